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

  @Option(
    help: ArgumentHelp(
      "Measure it on PNG pictures instead, in folders with the classes' numbers as their names. What else is there is named, and the exit code 65 then; hidden files are only counted.",
      valueName: "folder"))
  var pictures: String?

  @Flag(help: "Also print what was taken for what, and precision, recall and F1 of each class.")
  var confusion = false

  @Flag(help: "Print JSON, an object a line.")
  var json = false

  func run() throws {
    let network = try Network.load(from: file, runtime: compute.runtime())
    if pictures != nil && dataOptions.data != nil {
      throw StrideNetError(
        .usage, "two sets of images", found: "--data and --pictures", expected: "one of them")
    }
    if confusion && network.classes > 1000 {
      throw StrideNetError(
        .usage, "too many classes for a table", at: "--confusion",
        found: "\(network.classes.grouped)",
        expected: "at most 1,000")
    }
    let labelled = pictures.map { LabelledPictures(in: $0, classes: network.classes) }
    let (metrics, source): (Metrics, String)
    if let labelled {
      (metrics, source) = (
        try network.metrics(labelled.batches(of: network.input!)), labelled.folder
      )
      try labelled.requireSome(metrics.images)
    } else {
      let data = try dataOptions.load()
      (metrics, source) = (try network.metrics(data.test), data.source)
    }
    let (cce, ce) = (metrics.cce, Float(metrics.ce))
    try requireFinite([cce], file)
    if json {
      try Output.json(
        EvaluateEvent(
          data: source, test_images: metrics.images, test_cce: cce, test_ce: ce,
          test_accuracy: metrics.accuracy, weights_sha256: network.snapshot().sha256,
          confusion: confusion ? metrics.confusion : nil,
          classes: confusion ? metrics.classes : nil, skipped: labelled?.skipped,
          hidden: labelled?.hidden))
    } else {
      try Output.line(
        """
        network  \(Architecture.text(network.layers))
        data     \(source): \(metrics.images.grouped) test images
        """)
      if let labelled {
        for skipped in labelled.skipped {
          try Output.line("skipped  \(skipped.file): \(skipped.why)")
        }
        if labelled.hidden > 0 {
          try Output.line(
            "hidden   \(labelled.hidden.grouped) file\(labelled.hidden == 1 ? "" : "s")")
        }
      }
      try Output.line(
        """
        test \(network.loss.abbreviation) \(cce.fixed(4))  CE \(ce.percent())  accuracy \((1 - ce).percent())
        """)
      if confusion { try printTable(metrics) }
    }
    try labelled?.requireAll()
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
        [c.precision, c.recall, c.f1].map { $0?.percent() ?? "-" })
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
    /// Of pictures: what was passed over and why, and how many hidden files.
    let skipped: [LabelledPictures.Skipped]?
    let hidden: Int?
  }
}
