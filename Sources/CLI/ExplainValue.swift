import ArgumentParser
import Foundation
import StrideNet

/// Where one number inside a network comes from.
struct ExplainValue: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "value",
    abstract: "Shows the multiply-adds behind one number of a network.",
    discussion: """
      With --at the value of a layer's output: each pixel or value below times its weight. With \
      --weight the gradient of one of the layer's weights: each value it was multiplied by, times \
      the gradient of what the product went into. Either sum is computed in double precision and \
      held against what the kernels made.
      """)

  @OptionGroup var network: NetworkArgument
  @OptionGroup var image: ImageOptions
  @OptionGroup var compute: ComputeOptions

  @Option(parsing: .unconditional, help: "The layer's number, from 1.")
  var layer = 1

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp(
      "Row, column and channel in the layer's output, from 0; of a flat one, the number alone.",
      valueName: "y,x,c"))
  var at: String?

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp(
      "A weight's place: row, column, channel and filter of a convolution; output and input of a dense layer.",
      valueName: "place"))
  var weight: String?

  @Flag(help: "Print all terms, not the largest alone.")
  var all = false

  @Flag(help: "Print JSON.")
  var json = false

  func run() throws {
    guard (at == nil) != (weight == nil) else {
      throw StrideNetError(
        .usage, "what is to be explained?", found: at == nil ? "neither" : "both",
        expected: "either --at y,x,c or --weight with a weight's place")
    }
    let image = try image.load()
    let (x, label) = (image.images, image.labels.first)
    let network = try network.load(try compute.runtime(), for: x.shape)
    let trace = try weight == nil ? network.trace(x) : network.trace(image)
    guard (1...network.layers.count).contains(layer) else {
      throw StrideNetError(
        .usage, "no such layer", found: "\(layer)",
        expected: "1 … \(network.layers.count), as in \(Architecture.text(network.layers))")
    }
    let shown = network.layers[layer - 1].text
    let (provenance, title): (Provenance, String)
    if let at {
      var numbers = try Self.numbers(at, "--at", counts: [1, 3])
      if numbers.count == 1 { numbers = [0, 0, numbers[0]] }
      let place = Provenance.Place(numbers[0], numbers[1], numbers[2])
      provenance = try network.provenance(in: trace, layer: layer, at: place)
      title =
        "layer \(layer), \(shown): the output at row \(place.row), column \(place.column), channel \(place.channel)"
    } else {
      let place = try Self.numbers(weight!, "--weight", counts: [2, 4])
      provenance = try network.provenance(ofGradientIn: trace, layer: layer, weight: place)
      title = "layer \(layer), \(shown): the gradient of the loss by weight \(weight!)"
    }
    try requireFinite([provenance.value], "layer \(layer), \(shown)")
    // How the largest term's gradient came there.
    let largest = provenance.terms.max { abs($0.product) < abs($1.product) }
    let outputs = trace.layers[layer - 1].output.shape
    let path =
      weight == nil || largest == nil
      ? nil
      : network.gradientPath(in: trace, layer: layer, output: largest!.to.index(in: outputs))
    if json { return try Output.json(Event(layer, shown, provenance, path)) }
    try Output.line(
      "\(title), for test image \(self.image.image)\(label.map { ", a \($0)" } ?? "")\n")
    let first = network.arrays.first { $0.name.hasPrefix("layers.\(layer - 1).") }
    try show(provenance, first?.shape ?? [])
    guard let path, !path.isEmpty else { return }
    try Output.line(
      "\nthe strongest way of dz\(Self.text(largest!.to)) from the loss, backwards:\n")
    let rows = path.map { step in
      let shape = trace.layers[step.layer - 1].output.shape
      return [
        "layer \(step.layer)", network.layers[step.layer - 1].text,
        "dz\(Self.text(.init(step.index, in: shape)))", Self.number(step.gradient), "×",
        Self.number(step.factor), step.share.percent(0),
      ]
    }
    for line in aligned(rows, textColumns: [0, 1, 2]) { try Output.line(line) }
    if let step = path.last, step.layer == network.layers.count, trace.logits != nil {
      let probability = trace.output[step.index]
      try Output.line(
        "\nthere it is softmax's: probability \(Self.number(probability)) − \(Int32(step.index) == label ? 1 : 0)"
      )
    }
  }

  private static func text(_ place: Provenance.Place) -> String {
    "[\(place.row),\(place.column),\(place.channel)]"
  }

  private static func number(_ value: some BinaryFloatingPoint & CVarArg) -> String {
    String(format: "%.6g", value)
  }

  private static func numbers(_ text: String, _ option: String, counts: Set<Int>) throws -> [Int] {
    let numbers = text.split(separator: ",", omittingEmptySubsequences: false).map { Int($0) }
    guard counts.contains(numbers.count), !numbers.contains(nil) else {
      throw StrideNetError(
        .usage, "\(option) isn't a place", found: "'\(text)'",
        expected: counts.sorted().map { "\($0)" }.joined(separator: " or ")
          + " whole numbers, with commas between them")
    }
    return numbers.compactMap { $0 }
  }

  /// - Parameter weights: the shape of the layer's weights
  private func show(_ p: Provenance, _ weights: [Int]) throws {
    let isGradient = p.kind == "gradient"
    let isLargest = p.kind == "largest"
    // What is 0 adds nothing; the rest is told in the order of the sum, unless it is long.
    let adding = isLargest || p.terms.count <= 2 ? p.terms : p.terms.filter { $0.product != 0 }
    func size(_ term: Provenance.Term) -> Double {
      isLargest ? Double(term.value) : abs(term.product)
    }
    var (shown, others) = (adding[...], ArraySlice<Provenance.Term>())
    if !all && adding.count > 32 {
      let sorted = adding.sorted { size($0) > size($1) }
      (shown, others) = (sorted[..<20], sorted[20...])
    }
    func weight(_ index: Int) -> String {
      var (rest, place) = (index, [String]())
      for size in weights.reversed() {
        place.insert("\(rest % size)", at: 0)
        rest /= size
      }
      return "w[\(place.joined(separator: ","))]"
    }
    let sides = ["the layers", "the shortcut"]
    var rows = shown.enumerated().map { index, term in
      isLargest
        ? [
          "x\(Self.text(term.from))", Self.number(term.value),
          term.factor == 1 ? "← the largest" : "", "", "", "", "",
        ]
        : [
          p.kind == "both sides" ? sides[index] : "x\(Self.text(term.from))",
          Self.number(term.value),
          "×",
          isGradient ? "dz\(Self.text(term.to))" : term.weight.map(weight) ?? "",
          Self.number(term.factor), "=", Self.number(term.product),
        ]
    }
    if !others.isEmpty {
      let rest = isLargest ? "" : Self.number(others.reduce(0) { $0 + $1.product })
      rows.append(["\(others.count.grouped) more", "", "", "", "", "", rest])
    }
    if p.kind == "weighted sum" || p.kind == "normalised" {
      rows.append([
        p.kind == "normalised" ? "shift" : "bias", "", "", "", "", "", Self.number(p.bias),
      ])
    }
    if !isLargest { rows.append(["sum", "", "", "", "", "", Self.number(p.sum)]) }
    if p.activation != "none" && p.activation != "softmax" {
      rows.append([p.activation, "", "", "", "", "", Self.number(p.result)])
    }
    let value = Self.number(p.value)
    rows.append(["the kernel's", isLargest ? value : "", "", "", "", "", isLargest ? "" : value])
    if !rows.isEmpty { for line in aligned(rows, textColumns: [0, 3]) { try Output.line(line) } }
    let zero = p.terms.count - adding.count
    if zero > 0 {
      try Output.line("\n\(zero.grouped) of \(p.terms.count.grouped) products are 0 and left out")
    }
    if p.activation == "softmax" {
      try Output.line("\nsoftmax makes probabilities of the layer's sums all together")
    }
    let difference = abs(p.result - Double(p.value))
    try Output.line(
      "\(p.agrees ? "they agree" : "THEY DIFFER"): by \(String(format: "%.1e", difference)), where rounding may make \(String(format: "%.1e", p.tolerance))"
    )
    guard p.agrees else {
      throw StrideNetError(
        .internalError, "a kernel's number isn't the sum of its terms", at: "layer \(layer)",
        found: "\(p.value)", expected: "\(p.result)")
    }
  }

  private struct Event: Encodable {
    struct Term: Encodable {
      let example: Int
      let from, to: [Int]
      let value, factor: Float
      let weight: Int?
      let product: Double
    }
    var event = "provenance"
    let layer: Int
    let text, kind, activation: String
    let terms: [Term]
    let bias, kernel: Float
    let sum, result, tolerance: Double
    let agrees: Bool
    let path: [Network.GradientStep]?

    init(_ layer: Int, _ text: String, _ p: Provenance, _ path: [Network.GradientStep]?) {
      self.path = path
      (self.layer, self.text, kind, activation) = (layer, text, p.kind, p.activation)
      terms = p.terms.map {
        Term(
          example: $0.example, from: [$0.from.row, $0.from.column, $0.from.channel],
          to: [$0.to.row, $0.to.column, $0.to.channel], value: $0.value, factor: $0.factor,
          weight: $0.weight, product: $0.product)
      }
      (bias, kernel, sum) = (p.bias, p.value, p.sum)
      (result, tolerance, agrees) = (p.result, p.tolerance, p.agrees)
    }
  }
}
