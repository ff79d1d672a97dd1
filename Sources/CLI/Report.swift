import ArgumentParser
import StrideNet

struct ReportCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "report",
    abstract: "Writes a page about a saved network: what it sees, what it gets wrong, its time.",
    discussion: """
      train --report writes one that also shows how the weights moved. What train --save or \
      --checkpoint wrote says how it was trained, and what its epochs came to. The page is one file \
      and loads nothing from elsewhere.
      """)

  @Argument(
    help: ArgumentHelp(
      "Weights that train --save wrote, or a checkpoint. Without it: the small trained network that is in the package.",
      valueName: "file"))
  var file: String?

  @Option(
    help: ArgumentHelp(
      "The page to write; without it, beside the file under its name with .html.",
      valueName: "html"))
  var out: String?

  @OptionGroup var size: ReportOptions
  @OptionGroup var dataOptions: DataOptions
  @OptionGroup var compute: ComputeOptions

  func run() throws {
    let path = out ?? (file.map { "\($0).html" } ?? "digits.html")
    let runtime = try compute.runtime()
    func load() throws -> Network {
      try file.map { try Network.load(from: $0, runtime: runtime) } ?? .digits(runtime: runtime)
    }
    let network = try load()
    // What an older file, or another program's, doesn't say isn't known.
    let history = try file.map { try TrainingHistory(from: $0) } ?? TrainingHistory.digits()
    try AtomicFile.checkWritable(path)
    var configuration = history?.configuration ?? RunConfiguration()
    configuration.layers = Architecture.text(network.layers)
    if history == nil { configuration.training.loss = network.loss }
    if let data = dataOptions.data, data != configuration.data {
      // What is said of one set's images means nothing for another's.
      (configuration.data, configuration.split, configuration.folds) = (data, nil, nil)
      (configuration.limit, configuration.validate) = (nil, nil)
    } else if let file {
      configuration.data = configuration.placeOfData(besides: file)
    }
    configuration.pictures = try dataOptions.pictures.options(for: network)
    let loaded = try configuration.loadData(
      isStrict: dataOptions.strict, cache: dataOptions.pictures.cache, DataOptions.progress)
    DataOptions.tell(loaded.data)
    let (data, test) = (try loaded.data.labelled(for: network), loaded.test)
    try requireFinite([network.evaluate(test ?? data.test).cce], file ?? "the digits' network")
    // Timed, and shown, by settings that fit other data too.
    configuration.training.batchSize = min(configuration.training.batchSize, data.train.count)

    // Training steps are timed on another copy of the network.
    let copy = try load()
    var short = configuration.training
    short.epochs = 1
    let few = try data.limited(to: min(data.train.count, 40 * short.batchSize))
    try copy.build(for: few.train.shape)
    copy.timePasses()
    let peak = Roofline.gigaflopsPerSecond(runtime)
    let timed = try Trainer(
      copy,
      try Dataset(
        name: few.name, source: few.source, train: few.train, test: few.test.prefix(1)), short)
    _ = try timed.run()
    let explanation = copy.explanation(Roofline(of: runtime).allThreads.raised(to: peak))

    let trainer = try Trainer(network, data, configuration.training)
    let record = try TrainingRecord(trainer, frames: 1, size: size.bytes)
    for result in history?.results ?? [] { record.note(result) }
    try Report(
      network, record: record, data: data, judged: test ?? data.test, heldOut: test != nil,
      explanation: explanation, history: history,
      .init(size: size.bytes)
    ).write(to: path)
    try Output.line("report   \(path)")
  }
}

/// How much is in a report.
struct ReportOptions: ParsableArguments {
  @Option(
    parsing: .unconditional,
    help: ArgumentHelp(
      "At most so large a page; what there is no room for is said there (default: 1.5).",
      valueName: "MB"))
  var reportSize: Double?

  var bytes: Int { Int((reportSize ?? 1.5) * 1e6) }

  func validate() throws {
    if let reportSize, !(0.2...1000).contains(reportSize) {
      throw ValidationError(
        "--report-size out of range: found \(reportSize), expected 0.2 … 1,000 (MB)")
    }
  }
}
