import ArgumentParser
import Foundation
import StrideNet

struct TraceCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "trace",
    abstract: "Follows an image, or a mini-batch, through a network, layer by layer.",
    discussion: """
      Each layer runs by itself, on the kernels that train; its time is the median of --repeats. The \
      values are the forward pass', as in prediction; |dy| and |dw| are the norms of the gradients of \
      the loss with respect to the layer's output and its parameters, as a training step has them.
      """)

  @OptionGroup var network: NetworkArgument
  @OptionGroup var image: ImageOptions
  @OptionGroup var compute: ComputeOptions

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp(
      "The first so many training images instead, as a mini-batch.", valueName: "images"))
  var batch: Int?

  @Option(parsing: .unconditional, help: "How often each layer is timed.")
  var repeats = 25

  @Flag(help: "Print JSON, an object a line.")
  var json = false

  func run() throws {
    guard (1...10_000).contains(repeats) else {
      throw StrideNetError(
        .usage, "--repeats out of range", found: "\(repeats)", expected: "1 … 10,000")
    }
    let images = try images()
    let x = images.images
    let runtime = try compute.runtime()
    let network = try network.load(runtime, for: x.shape)
    // A mini-batch is one that trains; an image is first looked at as in prediction.
    let before = Roofline.gigaflopsPerSecond(runtime)
    let training = try network.trace(images, repeats: repeats)
    let values = batch == nil ? try network.trace(x, repeats: repeats) : training
    let peak = max(before, Roofline.gigaflopsPerSecond(runtime))
    let rows = zip(values.layers, training.layers).map { Row($0, $1, peak: peak) }
    try values.output.values.allSatisfy(\.isFinite) ? () : Self.notFinite(network.layers.last!)
    if json {
      for row in rows { try Output.json(row) }
      try Output.json(
        Summary(
          images: x.batch, labels: images.labels, loss: training.loss!,
          probabilities: network.endsInSoftmax ? values.output.values : nil,
          outputs: network.endsInSoftmax ? nil : values.output.values,
          threads: runtime.threads, kernels: runtime.kernels.name,
          isa: KernelChoice.instructionSet, peak_gflops: peak, notes: Self.notes(rows),
          seconds: rows.reduce(0) { $0 + $1.seconds }))
      return
    }
    let what =
      batch.map { "the first \($0.grouped) training images" } ?? "test image \(image.image)"
    try Output.line(
      """
      network  \(Architecture.text(network.layers)), \(network.parameterCount.grouped) parameters
      input    \(what), \(x.batch) × \(x.shape)
      kernels  \(runtime.kernels), \(KernelChoice.instructionSet), \(runtime.threads.threads), peak \(peak.fixed(0)) GFLOP/s

      """)
    for line in Self.table(rows) { try Output.line(line) }
    for note in Self.notes(rows) {
      for line in "  \(note)".wrapped(Output.columns) { try Output.line(line) }
    }
    try Output.line("\nloss     \(training.loss!.number(4))")
    if batch == nil, network.predictsNumbers {
      let outputs = try network.predict(x).values
      let texts = zip(outputs, images.targets?.values ?? []).enumerated().map { index, pair in
        (network.classNames.isEmpty ? "" : "\(network.classNames[index].oneLine) ")
          + "\(network.text(ofOutput: pair.0)), in truth \(network.text(ofOutput: pair.1))"
      }
      try Output.line("output   \(texts.joined(separator: "; "))")
    } else if batch == nil {
      let output = values.output.values
      let best = output.indices.max { output[$0] < output[$1] }!
      try Output.line(
        "output   \(network.className(best)) with \(network.text(ofOutput: output[best]))"
          + (images.labels.first.map { ", labelled \(network.className(Int($0)))" } ?? "")
      )
    }
  }

  private static func notFinite(_ layer: Layer) throws {
    throw StrideNetError(
      .badData, "an output that is no finite number", at: layer.text,
      hint: "train with a smaller learning rate")
  }

  private func images() throws -> Batch {
    guard let batch else { return try image.load() }
    let train = try image.dataOptions.load().train
    guard (1...train.count).contains(batch) else {
      throw StrideNetError(
        .usage, "--batch out of range", found: "\(batch)", expected: "1 … \(train.count)")
    }
    return train.batch(0..<batch)
  }

  struct Row: Encodable {
    var event = "layer"
    let number: Int
    let layer: String
    let output: [Int]
    let parameters: Int
    let multiply_adds, bytes, seconds, share_of_peak: Double
    let backward_seconds: Double?
    let least, mean, greatest: Float
    let zeros: Double
    let gradient_norm, parameter_gradient_norm: Double?
    let kernel: String?

    init(_ values: Trace.Layer, _ training: Trace.Layer, peak: Double) {
      (number, layer, parameters) = (values.number, values.text, values.parameters)
      let shape = values.output.shape
      output = [shape.height, shape.width, shape.channels]
      (multiply_adds, bytes, seconds) = (values.operations / 2, values.bytes, values.seconds)
      share_of_peak = values.seconds > 0 ? values.operations / values.seconds / peak / 1e9 : 0
      backward_seconds = training.backwardSeconds
      (least, mean, greatest) = values.range
      zeros = values.zeros
      (gradient_norm, parameter_gradient_norm) = (
        training.gradientNorm, training.parameterGradientNorm
      )
      kernel = values.kernel
    }
  }

  private struct Summary: Encodable {
    var event = "trace"
    let images: Int
    let labels: [Int32]
    let loss: Float
    /// Of a network that ends in softmax, else what its outputs are.
    let probabilities, outputs: [Float]?
    let threads: Int
    let kernels, isa: String
    let peak_gflops: Double
    /// What is to be said of the shares of it.
    let notes: [String]
    let seconds: Double
  }

  private static func notes(_ rows: [Row]) -> [String] {
    Roofline.notes(rows.map { ($0.kernel ?? "", $0.share_of_peak) })
  }

  private static func table(_ rows: [Row]) -> [String] {
    let heading = [
      "", "layer", "output", "parameters", "multiply-adds", "KB", "µs", "of peak", "back µs",
      "least",
      "mean", "greatest", "zeros", "|dy|", "|dw|", "kernel",
    ]
    func shape(_ sizes: [Int]) -> String { "\(Shape(sizes[0], sizes[1], sizes[2]))" }
    let cells = rows.map { row in
      [
        "\(row.number)", row.layer, shape(row.output), row.parameters.grouped,
        row.multiply_adds.grouped, (row.bytes / 1024).fixed(1), (row.seconds * 1e6).fixed(1),
        row.share_of_peak > 0 ? row.share_of_peak.percent(1) : "",
        row.backward_seconds.map { ($0 * 1e6).fixed(1) } ?? "", row.least.number(3),
        row.mean.number(3), row.greatest.number(3), row.zeros.percent(0),
        row.gradient_norm.map { $0.number(4) } ?? "",
        row.parameter_gradient_norm.map { $0.number(4) } ?? "", row.kernel ?? "",
      ]
    }
    return aligned([heading] + cells, textColumns: [1, 15])
  }
}
