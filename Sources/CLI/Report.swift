import ArgumentParser
import StrideNet

struct ReportCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "report",
    abstract: "Writes a page about a saved network: what it sees, what it gets wrong, its time.",
    discussion: """
      train --report writes one that also shows how the network was trained. A checkpoint knows its \
      epochs. The page is one file and loads nothing from elsewhere.
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

  @OptionGroup var dataOptions: DataOptions
  @OptionGroup var compute: ComputeOptions

  func run() throws {
    let path = out ?? (file.map { "\($0).html" } ?? "digits.html")
    let runtime = try compute.runtime()
    func load() throws -> Network {
      try file.map { try Network.load(from: $0, runtime: runtime) } ?? .digits(runtime: runtime)
    }
    let network = try load()
    // A weight file has no configuration, nor epochs.
    let checkpoint = file.flatMap { try? Checkpoint(from: $0) }
    try AtomicFile.checkWritable(path)
    var configuration = checkpoint?.configuration ?? RunConfiguration()
    configuration.layers = Architecture.text(network.layers)
    if checkpoint == nil { configuration.training.loss = network.loss }
    let wanted = dataOptions.data ?? checkpoint?.configuration.data
    configuration.data = wanted
    configuration.pictures = try dataOptions.pictures.options(for: network)
    let loaded = try configuration.loadData(
      isStrict: dataOptions.strict, cache: dataOptions.pictures.cache, DataOptions.progress)
    DataOptions.tell(loaded.data)
    let (data, test) = (try loaded.data.labelled(for: network), loaded.test)
    try requireFinite([network.evaluate(test ?? data.test).cce], file ?? "the digits' network")
    configuration.data = wanted ?? data.name
    configuration.training.batchSize = min(configuration.training.batchSize, data.train.count)

    // Training steps are timed on another copy of the network.
    let copy = try load()
    var short = configuration.training
    short.epochs = 1
    let few = try data.limited(to: min(data.train.count, 40 * short.batchSize))
    try copy.build(for: few.train.shape)
    copy.timePasses()
    let timed = try Trainer(
      copy,
      try Dataset(
        name: few.name, source: few.source, train: few.train, test: few.test.prefix(1)), short)
    _ = try timed.run()
    let explanation = copy.explanation(Roofline(of: runtime).allThreads)

    let trainer = try Trainer(network, data, configuration.training)
    let record = try TrainingRecord(trainer, frames: 1)
    for result in checkpoint?.results ?? [] { record.note(result) }
    try Report(
      network, record: record, data: data, judged: test ?? data.test, heldOut: test != nil,
      seconds: checkpoint.map { $0.results.reduce(0) { $0 + $1.seconds } },
      explanation: explanation,
      configuration: configuration
    ).write(to: path)
    try Output.line("report   \(path)")
  }
}
