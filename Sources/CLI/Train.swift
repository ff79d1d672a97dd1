import ArgumentParser
import Foundation
import StrideNet

struct Train: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Trains a network and measures it on the test set.",
    discussion: """
      Models:
      \(Architecture.presets.map { "  \($0.name): \($0.text)" }.joined(separator: "\n"))

      Layers; arguments by position or by name (stride=2), those in [] are optional:
      \(Architecture.usage.map { "  \($0)" }.joined(separator: "\n"))

      \(Architecture.values)

      Recipes:
      \(RunConfiguration.recipes.map { "  \($0.name): \($0.summary)" }.joined(separator: "\n"))

      Kernels:
      \(KernelChoice.convolutions.map { "  \($0.name): \($0.summary)" }.joined(separator: "\n"))
        auto: the fastest for each shape
      """)

  @Argument(
    help: ArgumentHelp(
      "\(Architecture.presets.map(\.name).joined(separator: " or ")).", valueName: "model"))
  var model: String?

  @Argument(help: ArgumentHelp("Kernel variant, as with --kernels.", valueName: "variant"))
  var variant: String?

  @Option(help: ArgumentHelp("A network of one's own, layer by layer.", valueName: "text"))
  var layers: String?

  @OptionGroup var dataOptions: DataOptions
  @OptionGroup var compute: ComputeOptions
  @OptionGroup(title: "TRAINING") var training: TrainingOptions
  @OptionGroup(title: "OPTIMISER") var optimizer: OptimizerOptions
  @OptionGroup(title: "FILES") var files: RunFileOptions

  // Unconditional: a number below 0 after an option is its value, to be refused as such.
  @Option(
    parsing: .unconditional,
    help: ArgumentHelp(
      "Shuffle all images and train on this share of them, as 0.95, instead of the standard split.",
      valueName: "share"))
  var split: Double?

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp(
      "Hold out the last so many training images, or below 1 this share of them, and evaluate those; the test set is measured once, at the end.",
      valueName: "images"))
  var validate: Double?

  @Option(
    parsing: .unconditional,
    help: "Train on the first so many images; the test set stays whole.")
  var limit: Int?

  @Flag(help: "Then print where the time went: each layer's passes, their kernels and why those.")
  var profile = false

  // What it was called before.
  @Flag(help: .hidden) var explain = false

  @Flag(help: "Print nothing but errors and the last line.")
  var quiet = false

  @Flag(help: "Print JSON, an object a line.")
  var json = false

  /// Whether the passes are timed and shown.
  private var isProfiled: Bool { profile || explain }

  func run() throws {
    let checkpoint = try files.resume.map { try Checkpoint(from: $0) }
    let run = try prepare(goingOnFrom: checkpoint, isQuiet: quiet || json)
    let (trainer, network, test) = (run.trainer, run.trainer.network, run.test)
    if let path = files.writeConfig { try run.configuration.write(to: path) }
    if let checkpointPath {
      trainer.writeCheckpoints(
        to: checkpointPath, every: files.checkpointEvery ?? 1, run.configuration)
    }
    if isProfiled || files.report != nil { network.timePasses() }
    let record = try files.report.map { _ in try TrainingRecord(trainer) }
    // From the first output on, Ctrl-C ends the training in good order.
    let interrupt = Interrupt()
    try announce(trainer, run.configuration, test, from: run.start)

    let log = try files.logDir.map {
      try EventFile(in: $0, goingOnAfter: checkpoint == nil ? nil : network.stepCount)
    }
    let end = try follow(trainer, isHeldOut: test != nil, log, record, interrupt)
    // Where no epoch was finished this time, the checkpoint's is what there is to save.
    if let save = files.save, let epochs = checkpoint?.epochs, epochs == trainer.results.count,
      epochs > 0
    {
      try network.save(to: save)
    }
    if let path = files.report, let record {
      try Report(
        network, record: record, data: run.data, judged: test ?? run.data.test,
        heldOut: test != nil, seconds: trainer.seconds, explanation: explanation(network),
        configuration: run.configuration
      ).write(to: path)
    }
    try conclude(end, trainer, test, signal: interrupt.signal)
  }

  /// All that a training is, before its first step.
  struct Run {
    var configuration: RunConfiguration
    let data: Dataset
    /// What is measured once, at the end, where other images are evaluated meanwhile.
    let test: ImageSet?
    let trainer: Trainer
    /// The saved network that it starts from.
    let start: Network?
  }

  /// - Parameters:
  ///   - cache: where loaded data is kept for the next one
  ///   - isQuiet: whether no progress is shown
  func prepare(
    goingOnFrom checkpoint: Checkpoint? = nil, cache: DataCache? = nil, isQuiet: Bool
  ) throws -> Run {
    var configuration = try configuration(goingOnFrom: checkpoint)
    try checkOptions()
    _ = try Architecture.layers(configuration.layers, source: "--layers")
    let runtime = try compute.runtime(named: configuration.kernels, configuration.precision)
    try checkFiles()
    // A checkpoint has all weights itself.
    let start = checkpoint == nil ? try takeStart(in: &configuration, runtime) : nil
    if let frozen = try training.frozenLayers(of: Architecture.layers(configuration.layers)) {
      configuration.training.frozenLayers = frozen
    }
    let (data, test) =
      try cache?.data(for: configuration) { try load($0, isQuiet: isQuiet) }
      ?? load(configuration, isQuiet: isQuiet)
    // A network that wasn't written for other data has an output for each class.
    if layers == nil && files.config == nil && files.resume == nil && !data.classNames.isEmpty {
      configuration.layers = Architecture.text(
        configuration.layers, outputs: data.classNames.count)
    }
    let network =
      try start?.copy(for: data, seed: configuration.training.seed)
      ?? Network(
        try Architecture.layers(configuration.layers, source: "--layers"),
        seed: configuration.training.seed, runtime: runtime)
    if start != nil { configuration.layers = Architecture.text(network.layers) }
    // The defaults may be others elsewhere.
    configuration.data = configuration.data ?? data.name
    configuration.kernels = network.runtime.kernels.name
    if files.config == nil && files.resume == nil && training.batchSize == nil {
      configuration.training.batchSize = min(
        configuration.training.batchSize, data.train.count)
    }
    let trainer = try Trainer(network, data, configuration.training)
    if let checkpoint { try trainer.resume(checkpoint) }
    return Run(configuration: configuration, data: data, test: test, trainer: trainer, start: start)
  }

  // MARK: What is asked for

  /// The options that another command takes over, which writes no files of a training.
  static func parsed(_ arguments: [String], by command: String) throws -> Train {
    let result: Train
    do {
      result = try Train.parse(arguments)
    } catch {
      // With the other command's usage behind it.
      throw ValidationError(Train.message(for: error))
    }
    let files = result.files
    let refused = [
      ("--save", files.save), ("--log-dir", files.logDir), ("--report", files.report),
      ("--write-config", files.writeConfig), ("--checkpoint", files.checkpoint),
      ("--resume", files.resume), ("--profile", result.isProfiled ? "" : nil),
    ]
    if let (option, _) = refused.first(where: { $0.1 != nil }) {
      throw StrideNetError(
        .usage, "\(option) means nothing to \(command)", found: option,
        expected: "options of train that say what is trained, and how")
    }
    return result
  }

  /// What the options and defaults are laid over: at most one of these.
  private var basis: [String] { [files.resume, files.config, files.recipe].compactMap { $0 } }
  private var checkpointPath: String? { files.checkpoint ?? files.resume }

  /// - Throws: ``StrideNetError`` for numbers that are wrong, before data is read, and for a training
  ///   that would go on with other settings
  func configuration(goingOnFrom checkpoint: Checkpoint?) throws -> RunConfiguration {
    guard basis.count <= 1 else {
      throw StrideNetError(
        .usage, "two configurations", found: basis.joined(separator: ", "),
        expected: "one of --resume, --config and --recipe")
    }
    let configuration = try configuration(
      checkpoint?.configuration ?? files.config.map { try RunConfiguration.read(from: $0) }
        ?? files.recipe.map { try RunConfiguration(recipe: $0) })
    try configuration.training.check(images: .max)
    guard var before = checkpoint?.configuration else { return configuration }
    // The data may lie elsewhere now: whether it is the same, its digest tells.
    before.data = configuration.data
    let differences = configuration.differences(from: before)
    guard differences.isEmpty else {
      throw StrideNetError(
        .usage, "a training goes on with the settings it began with", at: files.resume,
        found: differences.joined(separator: "; ") + " before",
        hint: "leave these out: --resume knows them")
    }
    return configuration
  }

  /// The saved network that training starts from. What it wants of pictures, and its loss, it goes on
  /// with unless told otherwise.
  private func takeStart(in configuration: inout RunConfiguration, _ runtime: Runtime) throws
    -> Network?
  {
    let isOpen = model == nil && layers == nil && basis.isEmpty
    guard let start = try configuration.takeStart(isOpen: isOpen, runtime: runtime) else {
      return nil
    }
    if basis.isEmpty || configuration.pictures == nil {
      configuration.pictures = try dataOptions.pictures.options(for: start)
    }
    if basis.isEmpty && training.loss == nil { configuration.training.loss = start.loss }
    return start
  }

  private func checkOptions() throws {
    if isProfiled && quiet {
      throw StrideNetError(
        .usage, "a table that isn't to be printed", found: "--profile and --quiet",
        expected: "one of them")
    }
    if let every = files.checkpointEvery, every < 1 {
      throw StrideNetError(
        .usage, "--checkpoint-every out of range", found: "\(every)", expected: "at least 1")
    }
    if files.checkpointEvery != nil && checkpointPath == nil {
      throw StrideNetError(
        .usage, "--checkpoint-every means nothing without a checkpoint",
        expected: "--checkpoint FILE with it")
    }
  }

  private func checkFiles() throws {
    for path in [files.writeConfig, files.report] {
      if let path { try AtomicFile.checkWritable(path) }
    }
    for path in [files.save, checkpointPath] {
      if let path { try AtomicFile.checkWritable(path, again: true) }
    }
  }

  func load(_ configuration: RunConfiguration, isQuiet: Bool) throws -> (
    data: Dataset, test: ImageSet?
  ) {
    do {
      let result = try configuration.loadData(
        isStrict: dataOptions.strict, isQuiet ? nil : DataOptions.progress)
      DataOptions.tell(result.data.skipped)
      return result
    } catch let error as StrideNetError
      where error.kind == .missingInput && files.resume != nil && dataOptions.data == nil
    {
      throw StrideNetError(
        error.kind, error.what, at: error.place, found: error.found, expected: error.expected,
        hint: "if the same data lies elsewhere now, say where with --data")
    }
  }

  /// What the flags make of a configuration, or of the defaults.
  private func configuration(_ base: RunConfiguration?) throws -> RunConfiguration {
    if layers != nil, let model {
      throw StrideNetError(
        .usage, "two networks", found: "'\(model)' and --layers", expected: "one of them")
    }
    var result = base ?? RunConfiguration()
    if let model {
      // The model before the kernels: `stridenet evalute FILE` is a command misspelt.
      guard let preset = Architecture.presets.first(where: { $0.name == model }) else {
        throw StrideNetError(
          .usage, "no model or command of that name", found: "'\(model)'",
          expected: Architecture.presets.map(\.name).joined(separator: ", "),
          hint: KernelChoice.names.contains(model)
            ? "kernels go after the model: stridenet cnn \(model)"
            : "see: stridenet --help; networks of one's own go with --layers")
      }
      result.layers = preset.text
      if base == nil { result.training.schedule = preset.schedule }
    }
    // As the layers say it themselves, so that the same network is the same text.
    if let layers {
      result.layers = Architecture.text(try Architecture.layers(layers, source: "--layers"))
    }
    let kernels = try compute.name(positional: variant)
    if let kernels { result.kernels = kernels }
    if let precision = compute.precision {
      result.precision = precision == .float32 ? nil : precision
    }
    if let kernels, result.precision == .bf16 {
      throw StrideNetError(
        .usage, "bf16 has kernels of its own", found: "'\(kernels)' and --precision bf16",
        expected: "one of them")
    }
    if let from = files.from { result.from = .init(path: from) }
    if let data = dataOptions.data { result.data = data }
    result.pictures = try dataOptions.pictures.over(result.pictures)
    if let split { result.split = split }
    if let limit { result.limit = limit }
    if let validate { result.validate = validate }
    try optimizer.apply(to: &result.training, isNew: base == nil)
    try training.apply(to: &result.training)
    return result
  }

  // MARK: Training

  /// Trains, and does what is to be done on the way. What fails there ends the training in good order.
  private func follow(
    _ trainer: Trainer, isHeldOut: Bool, _ log: EventFile?, _ record: TrainingRecord?,
    _ interrupt: Interrupt
  ) throws -> TrainingEnd {
    var failure: (any Error)?
    func attempt(_ work: () throws -> Void) {
      do {
        try work()
      } catch {
        failure = error
        interrupt.requested = true
      }
    }
    trainer.shouldStop = { interrupt.requested }
    let showsProgress = !quiet && !json && Output.isTerminal
    if showsProgress || log != nil || record != nil {
      var remaining = Remaining()
      trainer.onBatch { progress in
        if showsProgress {
          remaining.note(progress, of: trainer.settings.epochs)
          Output.progress { line(progress, of: trainer, left: remaining.text) }
        }
        attempt {
          try log?.log(progress)
          try record?.note(progress)
        }
      }
    }
    var advice = try trainer.advice()
    if let advice { try tell(advice) }
    trainer.onEpoch { result in
      record?.note(result)
      attempt {
        try log?.log(result, trainer.network, isHeldOut: isHeldOut)
        // Saved first, so that an epoch that was reported isn't lost.
        if let save = files.save { try trainer.network.save(to: save) }
        try report(result, of: trainer, isHeldOut: isHeldOut)
        // Once: the first thing that is wrong explains the others.
        if advice == nil {
          advice = try trainer.advice()
          if let advice { try tell(advice) }
        }
      }
    }
    let end = try trainer.run()
    if let failure { throw failure }
    return end
  }

  private func explanation(_ network: Network) -> Explanation? {
    network.explanation(Roofline(of: network.runtime).allThreads)
  }

  // MARK: The end

  private func conclude(
    _ end: TrainingEnd, _ trainer: Trainer, _ test: ImageSet?, signal: Int32?
  ) throws {
    let (network, keepsBest) = (trainer.network, trainer.settings.keepsBest)
    // The epoch whose weights the network has.
    let last = keepsBest ? trainer.bestEpoch.map { trainer.results[$0 - 1] } : trainer.results.last
    if keepsBest, last != nil, let save = files.save { try network.save(to: save) }
    try tell(end, of: trainer, last)
    if isProfiled, let explanation = explanation(network) {
      try ProfileTable.print(explanation, json: json)
    }
    let accuracy = try accuracy(trainer, test, last)
    if keepsBest, let last, !quiet, !json { try Output.line("best     epoch \(last.epoch)") }
    try printDone(
      DoneEvent(
        seconds: trainer.seconds, epoch: last?.epoch, test_accuracy: accuracy,
        weights_sha256: network.snapshot().sha256))
    // As a shell has it for a program that a signal ended.
    if case .stopped = end { throw ExitCode(128 + (signal ?? SIGINT)) }
  }

  /// Why it ended, where that isn't all epochs' being done.
  private func tell(_ end: TrainingEnd, of trainer: Trainer, _ last: EpochResult?) throws {
    let saved =
      files.save.map {
        last == nil
          ? "; no epoch was finished, so '\($0)' was not written"
          : "; '\($0)' has the weights of epoch \(last!.epoch)"
      } ?? ""
    switch end {
    case .diverged(let epoch, let batch):
      let settings = trainer.settings
      throw StrideNetError(
        .badData, "training diverged: the loss is no longer a finite number",
        at: "epoch \(epoch), batch \(batch)",
        found: "learning rate \(settings.learningRate), momentum \(settings.momentum)",
        expected: "steps small enough to go downhill",
        hint: "try a tenth of the learning rate, or clip gradients: --clip-norm 1" + saved)
    case .stopped:
      Output.note(
        "stopped" + saved
          + (checkpointPath.map { "; go on with: stridenet train --resume \($0)" } ?? ""))
    case .stoppedEarly:
      if !quiet && !json {
        try Output.line("stopped  no lower loss for \(trainer.settings.patience!) epochs")
      }
    case .finished: break
    }
  }

  /// On the test set, or on images held out. A test set that nothing has seen is measured once, with
  /// the final weights.
  private func accuracy(_ trainer: Trainer, _ test: ImageSet?, _ last: EpochResult?) throws
    -> Double?
  {
    guard let last else { return nil }
    let error = Double(try test.map { try trainer.network.evaluate($0).ce } ?? last.testCE)
    let images = (test ?? trainer.test).count
    // The share as it was counted, without the rounding of a Float.
    return Double(images - Int((error * Double(images)).rounded())) / Double(images)
  }
}
