import ArgumentParser
import Foundation
import StrideNet

struct Evaluate: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Measures a saved network on a test set.")

  @Argument(help: ArgumentHelp("Weights that train --save wrote.", valueName: "file"))
  var file: String

  @OptionGroup var dataOptions: DataOptions
  @OptionGroup var compute: ComputeOptions

  @Flag(help: "Also print what was taken for what, and precision, recall and F1 of each class.")
  var confusion = false

  @Flag(help: "Print JSON, an object a line.")
  var json = false

  func run() throws {
    let network = try Network.load(from: file, runtime: compute.runtime())
    let data = try dataOptions.load()
    let metrics = try network.metrics(data.test)
    let (cce, ce) = (metrics.cce, Float(metrics.ce))
    try requireFinite([cce], file)
    if json {
      try Output.json(
        EvaluateEvent(
          data: data.source, test_images: data.test.count, test_cce: cce, test_ce: ce,
          test_accuracy: metrics.accuracy, weights_sha256: network.snapshot().sha256,
          confusion: confusion ? metrics.confusion : nil,
          classes: confusion ? metrics.classes : nil))
    } else {
      try Output.line(
        """
        network  \(Architecture.text(network.layers))
        data     \(data.source): \(data.test.count.grouped) test images
        test CCE \(cce.fixed(4))  CE \((ce * 100).fixed(2)) %  accuracy \(((1 - ce) * 100).fixed(2)) %
        """)
      if confusion { try printTable(metrics) }
    }
  }

  /// A row a class: what its images were taken for, then how well.
  private func printTable(_ metrics: Metrics) throws {
    let width = max(5, "\(metrics.confusion.joined().max()!)".count + 1)
    func row(_ head: String, _ cells: some Sequence<String>, _ shares: [String]) throws {
      try Output.line(
        head.leftPadded(6) + cells.map { $0.leftPadded(width) }.joined()
          + shares.map { $0.leftPadded(11) }.joined())
    }
    try Output.line("\nimages of a class (row) by what they were taken for (column)")
    try row(
      "", metrics.confusion.indices.map { "\($0)" }, ["precision", "recall", "F1"])
    for (label, c) in metrics.classes.enumerated() {
      try row(
        "\(label)", metrics.confusion[label].map { $0 == 0 ? "." : "\($0)" },
        [c.precision, c.recall, c.f1].map { $0.map { ($0 * 100).fixed(2) + " %" } ?? "-" })
    }
  }

  private struct EvaluateEvent: Encodable {
    var event = "evaluate"
    let data: String
    let test_images: Int
    let test_cce, test_ce: Float
    let test_accuracy: Double
    let weights_sha256: String
    let confusion: [[Int]]?
    let classes: [Metrics.Class]?
  }
}

/// Weights may each be finite and yet too large to compute with.
private func requireFinite(_ values: [Float], _ file: String) throws {
  guard let value = values.first(where: { !$0.isFinite }) else { return }
  throw StrideNetError(
    .badData, "the network computes numbers that aren't finite", at: file, found: "\(value)",
    hint: "the weights are too large: train again with a lower learning rate")
}

struct Predict: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Says what a saved network sees in images.")

  @Argument(help: ArgumentHelp("Weights that train --save wrote.", valueName: "file"))
  var file: String

  @Argument(help: ArgumentHelp("IDX files of images, plain or gzip.", valueName: "images"))
  var images: [String]

  @OptionGroup var compute: ComputeOptions

  @Flag(help: "Print JSON, an object a line.")
  var json = false

  func run() throws {
    let network = try Network.load(from: file, runtime: compute.runtime())
    for path in images {
      let idx = try IDX.images(at: path)
      let set = try ImageSet(
        count: idx.count, height: idx.height, width: idx.width, channels: idx.channels,
        pixels: idx.pixels, labels: [UInt8](repeating: 0, count: idx.count))
      for start in stride(from: 0, to: set.count, by: 128) {
        let range = start..<min(set.count, start + 128)
        let output = try network.predict(set.batch(range).images)
        for (row, index) in range.enumerated() {
          let values = (0..<output.shape.count).map { output[row * output.shape.count + $0] }
          try requireFinite(values, file)
          let best = values.indices.max { values[$0] < values[$1] }!
          if json {
            try Output.json(
              Prediction(file: path, index: index, class: best, probabilities: values))
          } else {
            try Output.line("\(path) \(index)  \(best)  \((values[best] * 100).fixed(2)) %")
          }
        }
      }
    }
  }

  private struct Prediction: Encodable {
    var event = "prediction"
    let file: String
    let index, `class`: Int
    let probabilities: [Float]
  }
}

struct Fetch: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Downloads a data set and checks it.",
    discussion: """
      Into STRIDENET_DATA if that is set, else into the cache folder (XDG_CACHE_HOME, or ~/.cache). \
      A download that was cut off is resumed.
      """)

  @Argument(help: ArgumentHelp("mnist or fashion-mnist.", valueName: "set"))
  var name: String

  @Option(help: ArgumentHelp("A folder on a server that has the four .gz files.", valueName: "url"))
  var mirror: String?

  func run() async throws {
    let folder = try await Download.fetch(name, mirrors: mirror.map { [$0] }) {
      file, received, total in
      Output.progress { Self.bar(file, received, total) }
    }
    try Output.line("\(name) is in \(folder)")
  }

  private static func bar(_ file: String, _ received: Int, _ total: Int?) -> String {
    let megabytes = (Double(received) / 1e6).fixed(1)
    guard let total, total > 0 else { return "\(file)  \(megabytes) MB" }
    let done = min(30, 30 * received / total)
    return
      "\(file)  [\(String(repeating: "#", count: done))\(String(repeating: ".", count: 30 - done))]"
      + "  \(megabytes) of \((Double(total) / 1e6).fixed(1)) MB"
  }
}

struct KernelList: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "kernels",
    abstract: "Lists the kernel variants and says which are bound.")

  func run() throws {
    try Output.line("instruction set  \(KernelChoice.instructionSet)")
    try Output.line("bound            \(KernelChoice.bound)\n")
    for (title, variants) in [
      ("convolution", KernelChoice.convolutions), ("pooling", KernelChoice.poolings),
    ] {
      try Output.line(title)
      for variant in variants {
        try Output.line("  \(variant.name.padded(14)) \(variant.summary)")
      }
    }
    try Output.line("\nbind another     make KERNELS=NAME, or --kernels NAME for one run")
  }
}
