import ArgumentParser
import Foundation
import StrideNet

/// Draws the pictures of the tutorial and of the articles on the roofline and on many machines, from what their examples
/// compute and from what was measured once: `make pictures`.
struct ArticlePictures: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "pictures", abstract: "Draws the articles' pictures.", shouldDisplay: false)

  @Argument(help: "Where to.")
  var folder: String

  @Argument(help: "What 'bench kernels --json' printed.")
  var measured = "Benchmarks/roofline.jsonl"

  @Argument(help: "What 'bench machines --json' printed.")
  var machines = "Benchmarks/machines.jsonl"

  func run() throws {
    let tutorial = try TutorialPictures()
    let roofline = try RooflinePictures(measured)
    let many = try MachinePictures(machines)
    let pictures = [
      ("tutorial-descent", try TutorialPictures.descent()),
      ("tutorial-softmax", try TutorialPictures.softmax()),
      ("tutorial-corners", try TutorialPictures.corners()),
      ("tutorial-batch", tutorial.batch()),
      ("tutorial-filters", try tutorial.filters()),
      ("tutorial-loss", tutorial.loss()),
      ("tutorial-confusion", try tutorial.confusion()),
      ("roofline", roofline.roofline()),
      ("roofline-bytes", try roofline.bytes()),
      ("machines-tree", MachinePictures.tree()), ("machines-cnn", many.steps("cnn")),
      ("machines-lenet", many.steps("lenet")), ("machines-vgg", many.steps("vgg")),
    ]
    for (name, svg) in pictures {
      try AtomicFile.write(Array(svg.utf8), to: "\(folder)/\(name).svg")
    }
  }
}

/// The tutorial's. What is trained here is trained there, too.
struct TutorialPictures {
  private let data: Dataset
  private let network: Network
  /// Of the mini-batches.
  private var losses: (flat: [Float], network: [Float]) = ([], [])

  init() throws {
    data = try Dataset.load("sample")
    let flat = Network {
      Flatten()
      Dense(100)
      Dense(10, activation: .softmax)
    }
    for start in stride(from: 0, to: 2000, by: 50) {
      losses.flat.append(
        try flat.train(data.train.batch(start..<start + 50), learningRate: 0.1).cce)
    }
    network = Network {
      Conv2D(32, 3)
      MaxPool2D(2)
      Flatten()
      Dense(100)
      Dense(10, activation: .softmax)
    }
    let few = try Dataset(
      name: "few", source: "the sample", train: data.train.prefix(1000),
      test: data.test.prefix(500))
    var settings = TrainingSettings()
    settings.epochs = 2
    settings.learningRate = 0.03
    let trainer = try Trainer(network, few, settings)
    var found: [Float] = []
    trainer.onBatch { found.append($0.cce) }
    try trainer.run()
    losses.network = found
  }

  // MARK: One neuron

  /// The neuron of the text going downhill with three learning rates.
  static func descent() throws -> String {
    var drawing = Drawing()
    var style = ""
    let (width, steps) = (228.0, 8)
    let input = try Tensor(batch: 1, shape: Shape(3), [1, 2, 3])
    for (panel, rate) in [Float(0.01), 0.03125, 0.065].enumerated() {
      let single = Network([Dense(1, activation: .none)])
      single.loss = .meanSquaredError
      try single.build(for: Shape(3))
      try single.setWeights("layers.0.weight", [0.5, -1, 0.25])
      try single.setWeights("layers.0.bias", [1])
      var points: [(y: Float, loss: Float)] = []
      for step in 0...steps {
        let y = try single.predict(input).values[0]
        let lesson = Batch(images: input, labels: [0])
        points.append((y, try single.train(lesson, learningRate: step < steps ? rate : 0).cce))
      }
      let (left, bottom) = (32 + Double(panel) * width, 232.0)
      func px(_ y: Float) -> Double { left + Double(y) * 85 }
      func py(_ loss: Float) -> Double { bottom - Double(loss) * 150 }
      drawing.text(left, 24, "learning rate \(rate)", size: 14, weight: "bold")
      drawing.text(
        left, 44, "loss after \(steps) steps: \(Double(points.last!.loss).number(4))", Plot.soft)
      drawing.line([(left, 62), (left, bottom), (left + 180, bottom)])
      for tick in 0...2 {
        drawing.line([(px(Float(tick)), bottom), (px(Float(tick)), bottom + 5)])
        drawing.text(px(Float(tick)), bottom + 20, "\(tick)", anchor: "middle")
      }
      for tick in 0...1 {
        drawing.line([(left - 5, py(Float(tick))), (left, py(Float(tick)))])
        drawing.text(left - 9, py(Float(tick)) + 4, "\(tick)", anchor: "end")
      }
      drawing.text(left + 85, bottom + 40, "output; 1 is right", Plot.soft, anchor: "middle")
      let curve = (0...84).map { Float($0) / 40 }
      drawing.line(curve.map { (px($0), py(($0 - 1) * ($0 - 1))) }, Plot.soft, width: 2)
      let places = points.map { (px($0.y), py($0.loss)) }
      drawing.line(places, "c0", dashes: "3 3")
      for (step, (x, y)) in places.enumerated() {
        drawing.dot(x, y, "c0", "step \(step): output \(points[step].y), loss \(points[step].loss)")
      }
      drawing.inside("class=\"d\(panel)\"") {
        $0.inside("class=\"ball\"") { $0.dot(places[0].0, places[0].1, "c2") }
      }
      let stops = places.enumerated().map { step, place in
        "\(10 * step)%,\(10 * step + 3)%{transform:translate(\(Plot.f(place.0 - places[0].0))px,"
          + "\(Plot.f(place.1 - places[0].1))px)}"
      }
      style +=
        "@keyframes d\(panel){\(stops.joined())100%{transform:translate("
        + "\(Plot.f(places[steps].0 - places[0].0))px,\(Plot.f(places[steps].1 - places[0].1))px)}}\n"
        + ".d\(panel){animation:d\(panel) 12s ease-in-out infinite}\n"
    }
    return drawing.svg(
      3 * width + 12, 284, "A neuron's loss, step by step, with three learning rates",
      style: ".ball circle{r:7px}\n@media(prefers-reduced-motion:no-preference){\n\(style)}\n")
  }

  /// Scores, their probabilities, and the gradient where the first class is right.
  static func softmax() throws -> String {
    let scores = try Tensor(batch: 1, shape: Shape(3), [2, 1, 0])
    let classifier = Network([Dense(3, activation: .softmax, initializer: .constant(0))])
    try classifier.build(for: Shape(1))
    try classifier.setWeights("layers.0.bias", scores.values)
    let one = try Tensor(batch: 1, shape: Shape(1), [1])
    let shares = try classifier.predict(one).values
    try classifier.train(Batch(images: one, labels: [0]), learningRate: 0)
    let gradient = try classifier.gradient("layers.0.bias")
    var drawing = Drawing()
    for (panel, (title, values, scale)) in [
      ("scores", scores.values, Float(55)), ("probabilities", shares, 165),
      ("gradient, 0 being right", gradient, 165),
    ].enumerated() {
      let left = 36 + Double(panel) * 210
      // Where there is something below 0, that is left of the middle.
      let zero = left + (values.contains { $0 < 0 } ? 80 : 0)
      drawing.text(left - 20, 24, title, weight: "bold")
      for (index, value) in values.enumerated() {
        let (y, length) = (44 + 34 * Double(index), Double(value * scale))
        drawing.text(left - 20, y + 16, "\(index)", Plot.soft)
        drawing.bar(min(zero, zero + length), y, abs(length), 22, length < 0 ? "c0" : "c2")
        let text = panel == 0 ? "\(Int(value))" : value.fixed(3)
        drawing.text(
          max(zero, zero + length) + 6, y + 16, text.replacing("-", with: "−"))
      }
      drawing.line([(zero, 38), (zero, 140)])
    }
    return drawing.svg(
      680, 152, "Three scores, the probabilities that softmax makes of them, and the gradient")
  }

  // MARK: Why one layer isn't enough

  /// What each of two networks says all over the square, while they are trained.
  static func corners() throws -> String {
    let corners = try Tensor(batch: 4, shape: Shape(2), [0, 0, 0, 1, 1, 0, 1, 1])
    let differ = Batch(images: corners, labels: [0, 1, 1, 0])
    let (count, side) = (24, 11.0)
    // From above, as y goes up.
    let places = (0..<count * count).flatMap { index -> [Float] in
      [Float(index % count), Float(count - 1 - index / count)].map {
        ($0 + 0.5) / Float(count) * 1.5 - 0.25
      }
    }
    let square = try Tensor(batch: count * count, shape: Shape(2), places)
    let networks = [
      ("one layer", Network([Dense(2, activation: .softmax)])),
      ("two layers, ReLU between", Network([Dense(8), Dense(2, activation: .softmax)])),
    ]
    let steps = [0, 10, 20, 40, 80, 160, 500]
    var seen: [[(answers: [Float], loss: Float)]] = [[], []]
    for (index, (_, network)) in networks.enumerated() {
      var done = 0
      for step in steps {
        for _ in done..<step { try network.train(differ, learningRate: 0.5) }
        done = step
        let shares = try network.predict(square).values
        seen[index].append(
          (
            (0..<count * count).map { shares[2 * $0 + 1] * 2 - 1 },
            try network.evaluate(corners, differ.labels).cce
          ))
      }
    }
    var drawing = Drawing()
    let wide = Double(count) * side
    for (panel, (title, _)) in networks.enumerated() {
      drawing.text(24 + Double(panel) * 320, 24, title, size: 14, weight: "bold")
    }
    drawing.frames(steps.count) { drawing, frame in
      for panel in 0...1 {
        let (left, top) = (24 + Double(panel) * 320, 56.0)
        let (answers, loss) = seen[panel][frame]
        drawing.text(left, 44, "after \(steps[frame]) steps: loss \(loss.fixed(3))", Plot.soft)
        drawing.map(answers, width: count, left, top, side: side, "c1", below: "c2")
        // Between cells of which one says 0 and the other 1, by more than rounding.
        func parts(_ a: Float, _ b: Float) -> Bool { (a > 0) != (b > 0) && abs(a - b) > 1e-3 }
        var border = ""
        for (index, answer) in answers.enumerated() {
          let (x, y) = (index % count, index / count)
          if x > 0, parts(answer, answers[index - 1]) { border += "M\(x) \(y)v1" }
          if y > 0, parts(answer, answers[index - count]) { border += "M\(x) \(y)h1" }
        }
        drawing.border(border, left, top, side: side)
      }
    }
    for panel in 0...1 {
      for (corner, label) in differ.labels.enumerated() {
        let x = 24 + Double(panel) * 320 + (corner > 1 ? 5 : 1) * wide / 6
        let y = 56 + (corner % 2 == 1 ? 1 : 5) * wide / 6
        drawing.inside("class=\"corner\"") { $0.dot(x, y, "paper") }
        drawing.text(x, y + 5, "\(label)", size: 14, anchor: "middle", weight: "bold")
      }
    }
    return drawing.svg(
      612, 336, "What one layer and two layers say at each point of the square",
      style: ".sheet .corner circle{r:12px;stroke:#767676;stroke-width:1.5px}\n"
        + Drawing.style(frames: steps.count))
  }

  // MARK: Digits

  /// The first mini-batch.
  func batch() -> String {
    let batch = data.train.batch(0..<50)
    let values = batch.images.values
    var drawing = Drawing()
    for (index, label) in batch.labels.enumerated() {
      let (x, y) = (10 + Double(index % 10) * 66, 10 + Double(index / 10) * 80)
      drawing.map(
        Array(values[index * 784..<(index + 1) * 784]), width: 28, x, y, side: 2)
      drawing.text(x + 28, y + 71, "\(label)", anchor: "middle")
    }
    return drawing.svg(670, 404, "The first mini-batch: 50 digits, each with its label")
  }

  // MARK: The whole network

  /// A dozen filters with what they find in a digit, and what max-pooling leaves of it.
  func filters() throws -> String {
    let digit = data.test.batch([0])
    let layers = try network.trace(digit.images).layers.map(\.output)
    func channel(_ tensor: Tensor, _ channel: Int) -> [Float] {
      let count = tensor.shape.channels
      return stride(from: channel, to: tensor.count, by: count).map { tensor[$0] }
    }
    let maps = (0..<32).map { channel(layers[0], $0) }
    let weights = try network.weights("layers.0.weight")
    let strongest = (0..<32).sorted { maps[$0].reduce(0, +) > maps[$1].reduce(0, +) }.prefix(12)
    let brightest = strongest.flatMap { maps[$0] }.max()!
    let largest = weights.map(abs).max()!

    var drawing = Drawing()
    drawing.map(digit.images.values, width: 28, 12, 12, side: 3)
    for (index, line) in [
      "A \(digit.labels[0]), as the network sees it, and 12 of its 32 filters: those that find most.",
      "Left the filter, 3×3 weights: orange above 0, blue with a dash below.",
      "In the middle what it finds, stop by stop: 26×26.",
      "Right the largest of each 2×2: 13×13.",
    ].enumerated() { drawing.text(112, 30 + 21 * Double(index), line) }
    for (index, filter) in strongest.enumerated() {
      let (x, y) = (12 + Double(index % 3) * 228, 116 + Double(index / 3) * 94)
      let own = (0..<9).map { weights[$0 * 32 + filter] / largest }
      drawing.map(own, width: 3, x, y + 18, side: 14, "c0", below: "c2")
      for (cell, weight) in own.enumerated() where weight < 0 {
        let (left, middle) = (x + Double(cell % 3) * 14, y + 25 + Double(cell / 3) * 14)
        drawing.line([(left + 4, middle), (left + 10, middle)], width: 2)
      }
      drawing.map(maps[filter].map { $0 / brightest }, width: 26, x + 50, y, side: 3)
      drawing.map(
        channel(layers[1], filter).map { $0 / brightest }, width: 13, x + 136, y, side: 6)
    }
    return drawing.svg(
      690, 492, "Filters after the training, what they find in a digit, and that pooled")
  }

  // MARK: Training it

  func loss() -> String {
    func points(_ losses: [Float]) -> [(x: Double, y: Double)] {
      losses.enumerated().map { (Double($0 + 1), Double($1)) }
    }
    let (flat, network) = (points(losses.flat), points(losses.network))
    let x = Plot.Axis.linear("step", [Double(max(flat.count, network.count)) / 1.1])
    var plot = Plot(
      title: "The loss of each mini-batch", subtitle: "before its step is taken",
      x: x, y: .linear("cross-entropy", (flat + network).map(\.y)), isWide: true)
    plot.lines = [
      Plot.Line(points: [(0, log(10)), (x.high, log(10))], colour: Plot.soft, dashes: "2 4"),
      Plot.Line(points: flat, colour: "c2", dashes: "7 3"),
      Plot.Line(points: network, colour: "c0"),
    ]
    plot.keys = [
      Plot.Key(text: "guessing: log 10", colour: Plot.soft, marker: nil, dashes: "2 4"),
      Plot.Key(text: "dense layers alone", colour: "c2", marker: nil, dashes: "7 3"),
      Plot.Key(text: "with convolution", colour: "c0", marker: nil),
    ]
    return plot.svg(width: 680, height: 360)
  }

  // MARK: Looking into it

  func confusion() throws -> String {
    let metrics = try network.metrics(data.test.prefix(500))
    var drawing = Drawing()
    let (left, top, width, height) = (96.0, 60.0, 46.0, 32.0)
    drawing.text(left + 5 * width, 22, "taken for", weight: "bold")
    drawing.text(left - 8, 48, "what it is", anchor: "end", weight: "bold")
    for (is_, row) in metrics.confusion.enumerated() {
      let y = top + Double(is_) * height
      drawing.text(left + (Double(is_) + 0.5) * width, 48, "\(is_)", anchor: "middle")
      drawing.text(left - 8, y + 21, "\(is_)", anchor: "end")
      for (taken, count) in row.enumerated() where count > 0 {
        let x = left + Double(taken) * width
        let share = Double(count) / Double(row.reduce(0, +))
        drawing.bar(
          x, y, width, height, is_ == taken ? "c2" : "c0", opacity: 0.1 + 0.4 * share.squareRoot())
        drawing.text(
          x + width / 2, y + 21, "\(count)", anchor: "middle",
          weight: is_ == taken ? "bold" : "")
      }
    }
    for line in 0...10 {
      let (x, y) = (left + Double(line) * width, top + Double(line) * height)
      drawing.line([(x, top), (x, top + 10 * height)], Plot.soft, width: 0.5)
      drawing.line([(left, y), (left + 10 * width, y)], Plot.soft, width: 0.5)
    }
    return drawing.svg(
      570, 396, "Which digit was taken for which: \(metrics.images) of the test set")
  }
}

/// The roofline article's, of kernels that were timed once, on a machine that the file names.
struct RooflinePictures {
  private struct Machine: Decodable {
    let machine: String
    let peak_gflops, memory_read: Double
  }
  private struct Kernel: Decodable {
    let kernel, shape, variant: String
    let milliseconds, gflops, intensity: Double
  }
  private let machine: Machine
  private let kernels: [Kernel]

  init(_ path: String) throws {
    let lines = try String(contentsOfFile: path, encoding: .utf8).split(separator: "\n")
    let decoder = JSONDecoder()
    machine = try decoder.decode(Machine.self, from: Data(lines[0].utf8))
    kernels = try lines.dropFirst().map { try decoder.decode(Kernel.self, from: Data($0.utf8)) }
  }

  func roofline() -> String {
    let (peak, memory) = (machine.peak_gflops, machine.memory_read)
    let x = Plot.Axis.logarithmic("floating-point operations a byte", [0.3, 300])
    let y = Plot.Axis.logarithmic("GFLOP/s", [0.12, peak * 1.4])
    var plot = Plot(
      title: "Kernels under the roof",
      subtitle: "one thread of \(machine.machine)", x: x, y: y, isWide: true)
    plot.lines = [
      Plot.Line(
        points: [(x.low, x.low * memory), (peak / memory, peak)], colour: Plot.ink,
        label: "memory: \(memory.fixed(1)) GB/s"),
      Plot.Line(
        points: [(peak / memory, peak), (x.high, peak)], colour: Plot.ink,
        label: "multiply-adds: \(peak.fixed(0)) GFLOP/s"),
    ]
    var passes: [String: Plot.Marker] = [:]
    var seen: [String] = []
    for kernel in kernels {
      let pass = String(kernel.kernel.dropFirst(5).dropLast(kernel.variant.count + 1))
      if passes[pass] == nil { passes[pass] = Plot.Marker.allCases[passes.count] }
      if !seen.contains(kernel.variant) { seen.append(kernel.variant) }
      plot.dots.append(
        Plot.Dot(
          x: kernel.intensity, y: kernel.gflops,
          colour: Plot.palette[seen.firstIndex(of: kernel.variant)!],
          marker: passes[pass]!,
          title: "\(kernel.kernel), \(kernel.shape): \(kernel.gflops.fixed(1)) GFLOP/s"))
    }
    for shape in Set(kernels.map(\.shape)).sorted() {
      let own = kernels.filter { $0.shape == shape }
      plot.feet.append(
        Plot.Foot(
          x: own[0].intensity, lowestY: own.map(\.gflops).min()!,
          text: String(shape.prefix { $0 != ":" })))
    }
    plot.keys = zip(seen, Plot.palette).map { Plot.Key(text: $0, colour: $1, marker: .circle) }
    plot.keys.append(Plot.Key(text: "", colour: "", marker: nil))
    plot.keys += passes.sorted { $0.value.rawValue < $1.value.rawValue }.map {
      Plot.Key(
        text: $0.key.replacing("_", with: " "), colour: Plot.soft, marker: $0.value)
    }
    return plot.svg(width: 700, height: 480)
  }

  /// What three kernels ask for on the article's layer, each as an area.
  func bytes() throws -> String {
    let (images, channels, filters, side) = (8, 32, 32, 28)
    let walk = try ConvolutionWalk(
      input: (side, side), filter: (3, 3), stride: (1, 1), padding: (1, 1))
    // Of one channel and one filter.
    let cost = walk.costs.first { $0.variant == "im2col" }!
    let products = images * channels * filters * cost.multiplyAdds
    let copied = images * channels * cost.gatheredBytes
    let output = images * filters * side * side * 4
    let once = images * channels * side * side * 4 + channels * filters * 9 * 4 + output
    let operations = Double(2 * products)
    var drawing = Drawing()
    var top = 12.0
    for (name, bytes, how) in [
      ("naive", 8 * products + output, "two numbers for every multiply-add"),
      ("im2col", once + 2 * copied, "each window written down, and read again"),
      ("direct", once, "input, weights and output once"),
    ] {
      let intensity = operations / Double(bytes)
      let measured = kernels.first {
        $0.kernel == "conv_forward_\(name)" && $0.shape.hasPrefix("vgg 2")
      }!
      // A megabyte is an area of 100.
      let edge = (Double(bytes) / 1e4).squareRoot()
      let height = max(edge, 78)
      drawing.bar(12, top, edge, edge, "c2")
      let middle = top + height / 2
      let most = min(machine.peak_gflops, intensity * machine.memory_read)
      for (index, line) in [
        "\((Double(bytes) / 1e6).digits(bytes > 100_000_000 ? 3 : 2)) MB: \(how)",
        "\((operations / 1e6).fixed(0)) million operations: \(intensity.digits(2)) a byte",
        "from memory at most \(most.fixed(0)) GFLOP/s; measured \(measured.gflops.fixed(0))",
      ].enumerated() { drawing.text(250, middle + 4 + 20 * Double(index), line) }
      drawing.text(250, middle - 18, name, size: 14, weight: "bold")
      top += height + 24
    }
    return drawing.svg(
      640, top, "Bytes that naive, im2col and direct ask for in one layer, as areas")
  }
}
