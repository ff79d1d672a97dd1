import ArgumentParser
import Foundation
import StrideNet

struct Evaluate: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Measures a saved network, or several as one, on a test set.",
    discussion: """
      Of several networks the mean of their probabilities is measured, or of the numbers that they \
      predict.
      """)

  @Argument(
    help: ArgumentHelp(
      "Weights that train --save wrote; of several networks each.", valueName: "file"))
  var files: [String]

  @OptionGroup var dataOptions: DataOptions
  @OptionGroup var compute: ComputeOptions
  @OptionGroup var views: ViewOptions

  @Option(
    help: ArgumentHelp(
      "Measure it on pictures instead, in folders with the classes' names or numbers. What else is there is named, and the exit code 65 then; hidden files are only counted.",
      valueName: "folder"))
  var pictures: String?

  @Flag(help: "Also print what was taken for what, and precision, recall and F1 of each class.")
  var confusion = false

  @Option(parsing: .unconditional, help: .topK)
  var topK: Int?

  @Flag(help: "Print JSON, an object a line.")
  var json = false

  func run() throws {
    let ensemble = try views.ensemble(files, compute.runtime())
    let network = ensemble.networks[0]
    if pictures != nil && dataOptions.data != nil {
      throw StrideNetError(
        .usage, "two sets of images", found: "--data and --pictures", expected: "one of them")
    }
    if pictures != nil { try dataOptions.pictures.refuseThoseOfSets() }
    try topK.map { try network.checkTopK($0) }
    if network.predictsNumbers { return try measureNumbers(ensemble) }
    if confusion && network.classes > 1000 {
      throw StrideNetError(
        .usage, "too many classes for a table", at: "--confusion",
        found: "\(network.classes.grouped)",
        expected: "at most 1,000")
    }
    let labelled = try pictures.map { try LabelledPictures(in: $0, for: network, dataOptions) }
    let (metrics, source): (Metrics, String)
    if let labelled {
      (metrics, source) = (
        try ensemble.metrics(labelled.batches()), labelled.folder
      )
      try labelled.requireSome(metrics.images)
    } else {
      let data = try dataOptions.load(for: network)
      (metrics, source) = (try ensemble.metrics(data.test), data.source)
    }
    let (cce, ce) = (metrics.cce, Float(metrics.ce))
    try requireFinite([cce], files.joined(separator: ", "))
    if json {
      try Output.json(
        EvaluateEvent(
          data: source, test_images: metrics.images, test_cce: cce, test_ce: ce,
          test_accuracy: metrics.accuracy, top_k: topK,
          test_top_k_accuracy: topK.flatMap(metrics.topAccuracy),
          weights_sha256: network.snapshot().sha256,
          networks: files.count == 1
            ? nil : ensemble.networks.map { $0.snapshot().sha256 },
          views: ensemble.views?.count,
          confusion: confusion ? metrics.confusion : nil,
          classes: confusion ? metrics.classes : nil,
          class_names: network.classNames.isEmpty ? nil : network.classNames,
          skipped: labelled?.skipped,
          hidden: labelled?.hidden))
    } else {
      try describe(ensemble)
      try Output.line("data     \(source): \(metrics.images.grouped) test images")
      if let labelled {
        for skipped in labelled.skipped {
          try Output.line("skipped  \(skipped.file.oneLine): \(skipped.why)")
        }
        if labelled.hidden > 0 {
          try Output.line(
            "hidden   \(labelled.hidden.grouped) file\(labelled.hidden == 1 ? "" : "s")")
        }
      }
      try Output.line(
        """
        test \(network.loss.title) \(cce.number(4))  error \(ce.percent())  accuracy \((1 - ce).percent())\
        \(topK.map { "  top-\($0) \(metrics.topAccuracy($0)!.percent())" } ?? "")
        """)
      if confusion { try printTable(metrics, network) }
    }
    try labelled?.requireAll()
  }

  private func describe(_ ensemble: Ensemble) throws {
    for network in ensemble.networks {
      try Output.line("network  \(Architecture.text(network.layers))")
      if let inputs = network.normalization { try Output.line("inputs   \(inputs.text)") }
      if let targets = network.targetsText { try Output.line(targets) }
    }
    if let views = ensemble.views {
      try Output.line("views    \(views.count) of each image: \(views.augmentation)")
    }
  }

  /// Of networks that predict numbers.
  private func measureNumbers(_ ensemble: Ensemble) throws {
    let network = ensemble.networks[0]
    if confusion { try network.requireClasses("--confusion") }
    if pictures != nil { try network.requireClasses("--pictures") }
    let data = try dataOptions.load(for: network)
    let metrics = try ensemble.regressionMetrics(data.test)
    try requireFinite([Float(metrics.loss)], files.joined(separator: ", "))
    if json {
      return try Output.json(
        NumbersEvent(
          data: data.source, test_images: metrics.examples, test_cce: metrics.loss,
          test_r2: metrics.r2, outputs: metrics.events, weights_sha256: network.snapshot().sha256,
          networks: files.count == 1 ? nil : ensemble.networks.map { $0.snapshot().sha256 },
          views: ensemble.views?.count))
    }
    try describe(ensemble)
    try Output.line("data     \(data.source): \(metrics.examples.grouped) test images")
    try Output.line(
      "test \(network.loss.title) \(metrics.loss.number(4))  R² \(RegressionMetrics.r2(metrics.r2))\n"
    )
    for line in metrics.table { try Output.line(line) }
  }

  private struct NumbersEvent: Encodable {
    var event = "evaluate"
    let data: String
    let test_images: Int
    let test_cce: Double
    let test_r2: Double?
    let outputs: [RegressionMetrics.Event]
    let weights_sha256: String
    let networks: [String]?
    let views: Int?
  }

  /// A row a class: what its images were taken for, then how well. Where there are too many classes for
  /// that, the commonest mistakes instead.
  private func printTable(_ metrics: Metrics, _ network: Network) throws {
    let names = metrics.confusion.indices.map { network.className($0).oneLine }
    let digits = "\(metrics.confusion.joined().max()!)".count
    // A column is as wide as its numbers: longer names stand before the rows alone.
    let isNumbered = names.contains { $0.count > max(4, digits) }
    let place = "\(names.count - 1)".count
    let heads = names.enumerated().map { index, name in
      isNumbered ? "\("\(index)".leftPadded(place)) \(name.shortened(20))" : name
    }
    let isNarrow = 30 + (max(4, digits) + 2) * names.count <= 2 * Output.columns
    try Output.line(
      isNarrow
        ? "\nimages of a class (row) by what they were taken for (column)"
        : "\neach class; --json has the table of what was taken for what")
    let columns = isNarrow ? (isNumbered ? names.indices.map(String.init) : names) : []
    let rows = metrics.classes.enumerated().map { label, c in
      [heads[label]] + (isNarrow ? metrics.confusion[label].map { $0 == 0 ? "." : "\($0)" } : [])
        + [c.precision, c.recall, c.f1].map { $0?.percent() ?? "-" }
    }
    for line in aligned(
      [[""] + columns + ["precision", "recall", "F1"]] + rows, textColumns: isNumbered ? [0] : [],
      indent: "")
    { try Output.line(line) }
    if !isNarrow { try printMistakes(metrics.confusion, names) }
  }

  private func printMistakes(_ confusion: [[Int]], _ names: [String]) throws {
    let mistakes = confusion.enumerated().flatMap { label, row in
      row.enumerated().filter { $0.offset != label && $0.element > 0 }.map {
        (label: label, guess: $0.offset, count: $0.element)
      }
    }.sorted { ($1.count, $0.label, $0.guess) < ($0.count, $1.label, $1.guess) }
    let most = 20
    try Output.line(
      "\nthe commonest mistakes"
        + (mistakes.count > most ? ", \(most) kinds of \(mistakes.count.grouped)" : ""))
    for mistake in mistakes.prefix(most) {
      try Output.line(
        "\(mistake.count.grouped.leftPadded(6))  \(names[mistake.label]) taken for \(names[mistake.guess])"
      )
    }
  }

  private struct EvaluateEvent: Encodable {
    var event = "evaluate"
    let data: String
    let test_images: Int
    let test_cce, test_ce: Float
    let test_accuracy: Double
    let top_k: Int?
    let test_top_k_accuracy: Double?
    /// That of the first network, and of several those of all.
    let weights_sha256: String
    let networks: [String]?
    let views: Int?
    let confusion: [[Int]]?
    let classes: [Metrics.Class]?
    let class_names: [String]?
    /// Of pictures: what was passed over and why, and how many hidden files.
    let skipped: [Dataset.Skipped]?
    let hidden: Int?
  }
}
