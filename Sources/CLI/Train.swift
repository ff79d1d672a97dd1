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
      "Hold out so many training images, or below 1 this share of them, of all classes alike, and evaluate those; the test set is measured once, at the end.",
      valueName: "images"))
  var validate: Double?

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp(
      "Cross-validation: train so many networks, each without another part of the training images, and evaluate that; --save writes file-1, file-2 and so on.",
      valueName: "parts"))
  var folds: Int?

  @Option(
    parsing: .unconditional,
    help: "Train on the first so many images; the test set stays whole.")
  var limit: Int?

  @Option(
    help: ArgumentHelp(
      "What pixels become before the first layer: none, 0 to 255; unit, 0 to 1; standard, mean 0 and deviation 1 in each channel of the training images (default: unit). Saved with the weights.",
      valueName: "way"))
  var normalize: InputNormalization.Method?

  @Flag(
    help:
      "Leave the images in their files and read them while the network trains, for data sets larger than memory; without it, those that would fill half of it."
  )
  var stream = false

  @Flag(help: "Then print where the time went: each layer's passes, their kernels and why those.")
  var profile = false

  // What it was called before.
  @Flag(help: .hidden) var explain = false

  @Option(parsing: .unconditional, help: .topK)
  var topK: Int?

  enum Reduction: String, ExpressibleByArgument, CaseIterable { case exact, fast }

  @Option(
    help: ArgumentHelp(
      "How the gradients of several processes (mpirun) are added: exact, the same weights for any number of them; fast, in MPI's own order (default: exact).",
      valueName: "way"))
  var reduce: Reduction?

  @Flag(help: "Print nothing but errors and the last line.")
  var quiet = false

  @Flag(help: "Print JSON, an object a line.")
  var json = false

  /// Whether the passes are timed and shown.
  var isProfiled: Bool { profile || explain }

  mutating func run() throws {
    if Processes.communicator != nil { try requireShareable() }
    let checkpoint = try files.resume.map { try Checkpoint(from: $0) }
    let isQuiet = quiet || json
    let set = try settle(goingOnFrom: checkpoint, isQuiet: isQuiet)
    if let folds = set.configuration.folds, let data = set.data as? Dataset {
      return try crossValidate(folds, set, data)
    }
    let run = try begin(set)
    let (trainer, network, test) = (run.trainer, run.trainer.network, set.test)
    if let checkpoint { try trainer.resume(checkpoint) }
    try requireSame(run, checkpoint)
    if let path = files.writeConfig, Processes.isFirst {
      // Where few images make mini-batches smaller, what was asked for.
      var asked = run.configuration
      asked.training.batchSize = set.configuration.training.batchSize
      try asked.write(to: path)
    }
    if let checkpointPath {
      // A run that goes on elsewhere is to find it.
      var kept = run.configuration
      kept.data = kept.data.map(Dataset.fullPath)
      trainer.writeCheckpoints(
        to: checkpointPath, every: files.checkpointEvery ?? 1, kept, writes: Processes.isFirst)
    }
    if !Processes.isFirst { writesNothing() }
    let isTimed = isProfiled || files.report != nil
    if isTimed { network.timePasses() }
    // Before as well as after: what else runs on the machine comes and goes.
    let peak = isTimed ? Roofline.gigaflopsPerSecond(network.runtime) : 0
    let record = try files.report.map { _ in
      try TrainingRecord(trainer, size: files.page.bytes)
    }
    // From the first output on, Ctrl-C ends the training in good order.
    let interrupt = Interrupt()
    try announce(trainer, run.configuration, test, from: set.start)

    if let checkpoint, checkpoint.epochs >= run.configuration.training.epochs {
      let text =
        "all \(checkpoint.epochs) epochs were done before; with --epochs it goes on to more"
      if json {
        try Output.json(FinishedEvent(epochs: checkpoint.epochs))
      } else if !quiet {
        try Output.line("finished \(text)")
      }
    }
    let log = try files.logDir.map {
      try EventFile(in: $0, goingOnAfter: checkpoint == nil ? nil : network.stepCount)
    }
    let end = try follow(run, isHeldOut: test != nil, log, record, interrupt)
    // Where no epoch was finished this time, the checkpoint's is what there is to save.
    if let save = files.save, let epochs = checkpoint?.epochs, epochs == trainer.results.count,
      epochs > 0
    {
      try run.save(to: save)
    }
    if let path = files.report, let record, let data = set.data as? Dataset {
      try Report(
        network, record: record, data: data, judged: test as? ImageSet ?? data.test,
        heldOut: test != nil, explanation: explanation(network, peak),
        history: TrainingHistory(run.configuration, trainer),
        .init(size: files.page.bytes, failure: failure(end, trainer))
      ).write(to: path)
    }
    try conclude(end, run, test, peak: peak, signal: interrupt.signal)
  }

  /// What several processes don't do together.
  private func requireShareable() throws {
    let others = [
      ("--folds", folds != nil), ("--profile", isProfiled), ("--report", files.report != nil),
    ]
    guard let (option, _) = others.first(where: \.1) else { return }
    throw StrideNetError(
      .usage, "\(option) is for one process",
      found: "\(Processes.communicator!.size) processes", expected: "a training without it")
  }

  /// Before several processes train together: what their results depend on is the same.
  private func requireSame(_ run: Run, _ checkpoint: Checkpoint?) throws {
    guard Processes.communicator != nil else { return }
    var settings = run.configuration
    // It may lie elsewhere on another machine.
    settings.data = nil
    let runtime = run.trainer.network.runtime
    try Processes.requireSame([
      ("versions", Runtime.version), ("instruction sets", KernelChoice.instructionSet),
      ("kernels", "\(runtime.kernels), \(runtime.kernels.precision)"),
      ("settings", "\(settings.json), reduce \(reduce ?? .exact)"),
      ("data", run.trainer.dataDigest()),
      ("weights to begin with", run.trainer.network.snapshot().sha256),
      ("checkpoints", checkpoint.map { "\($0.epochs) epochs" } ?? "none"),
    ])
  }

  /// Of several processes the first one does.
  private mutating func writesNothing() {
    (files.save, files.report, files.logDir, files.writeConfig) = (nil, nil, nil, nil)
    (quiet, json) = (true, false)
  }

  /// What is trained on, and with which settings.
  struct Settled {
    var configuration: RunConfiguration
    let data: any TrainingData
    /// What is measured once, at the end, where other images are evaluated meanwhile.
    let test: (any ExampleSource)?
    let runtime: Runtime
    /// The saved network that training starts from.
    let start: Network?
  }

  /// A training before its first step.
  struct Run {
    /// With what follows from the data.
    let configuration: RunConfiguration
    let trainer: Trainer

    /// The network's weights, and how they came to be.
    func save(to path: String) throws {
      try trainer.network.save(to: path, history: TrainingHistory(configuration, trainer))
    }
  }

  /// Checks the options and loads the data.
  /// - Parameters:
  ///   - cache: where loaded data is kept for the next one
  ///   - isQuiet: whether no progress is shown
  func settle(
    goingOnFrom checkpoint: Checkpoint? = nil, cache: DataCache? = nil, isQuiet: Bool
  ) throws -> Settled {
    var configuration = try configuration(goingOnFrom: checkpoint)
    if dataOptions.data == nil, let checkpoint, let resume = files.resume {
      configuration.data = checkpoint.configuration.placeOfData(besides: resume)
      if let data = configuration.data, data != checkpoint.configuration.data, !isQuiet {
        Output.note("the data is read from \(data)")
      }
    }
    try checkOptions()
    try checkFolds(configuration)
    _ = try Architecture.layers(configuration.layers, source: "--layers")
    let runtime = try compute.runtime(
      named: configuration.kernels, configuration.precision, reducesFast: reduce == .fast)
    try checkFiles()
    // A checkpoint has all weights itself.
    let start = checkpoint == nil ? try takeStart(in: &configuration, runtime) : nil
    if let frozen = try training.frozenLayers(of: Architecture.layers(configuration.layers)) {
      configuration.training.frozenLayers = frozen
    }
    try chooseStream(&configuration)
    let (data, test) =
      try cache?.data(for: configuration) { try load($0, isQuiet: isQuiet) }
      ?? load(configuration, isQuiet: isQuiet)
    try checkpoint?.requireData(data.source, data.labels.count)
    return Settled(
      configuration: configuration, data: data, test: test, runtime: runtime, start: start)
  }

  /// The network, new or from the saved one, made for the data, and its trainer.
  /// - Parameter data: what is trained on, where that isn't all
  func begin(_ set: Settled, on data: (any TrainingData)? = nil) throws -> Run {
    var configuration = set.configuration
    let data = data ?? set.data
    // A network that wasn't written for other data has an output for each class.
    if layers == nil && files.config == nil && files.resume == nil && !data.classNames.isEmpty {
      configuration.layers = Architecture.text(
        configuration.layers, outputs: data.classNames.count, numbers: data.hasTargets)
    }
    try chooseLoss(&configuration, data, from: set.start)
    let network = try network(set, data, configuration)
    if set.start != nil { configuration.layers = Architecture.text(network.layers) }
    // The defaults may be others elsewhere.
    configuration.data = configuration.data ?? data.name
    configuration.kernels = network.runtime.kernels.name
    if files.resume == nil && training.batchSize == nil {
      configuration.training.batchSize = min(
        configuration.training.batchSize, data.labels.count)
    }
    if let weights = training.classWeights {
      try network.build(for: data.shape)
      configuration.training.classWeights = try Dataset.classWeights(
        weights, data.classNames, data.labels, outputs: network.classes)
    }
    let trainer = try data.trainer(network, configuration.training)
    try topK.map { try network.checkTopK($0) }
    return Run(configuration: configuration, trainer: trainer)
  }

  /// Numbers to predict want another loss than classes, unless one was asked for.
  private func chooseLoss(
    _ configuration: inout RunConfiguration, _ data: any TrainingData, from start: Network?
  ) throws {
    if data.hasTargets, training.classWeights != nil {
      throw StrideNetError(
        .usage, "--class-weights is for classes", found: "numbers to predict",
        expected: "one of them")
    }
    guard training.loss == nil else { return }
    if data.hasTargets, configuration.training.loss?.needsSoftmax ?? true {
      configuration.training.loss = .meanSquaredError
    } else if let start, start.predictsNumbers, !data.hasTargets, basis.isEmpty {
      configuration.training.loss = .crossEntropy()
    }
  }

  private func network(
    _ set: Settled, _ data: any TrainingData, _ configuration: RunConfiguration
  ) throws -> Network {
    if let start = set.start, let data = data as? Dataset {
      // Its inputs go on being what they were.
      return try start.copy(for: data, seed: configuration.training.seed)
    }
    let network = Network(
      try Architecture.layers(configuration.layers, source: "--layers"),
      seed: configuration.training.seed, runtime: set.runtime)
    network.normalization = try data.normalization(configuration.normalize)
    return network
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
      ("--folds", result.folds.map(String.init)), ("--stream", result.stream ? "" : nil),
      ("--top-k", result.topK.map(String.init)), ("--save", files.save),
      ("--log-dir", files.logDir), ("--report", files.report),
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
    // And there may be more to do.
    if configuration.training.epochs > before.training.epochs {
      before.training.epochs = configuration.training.epochs
    }
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
    guard normalize == nil else {
      throw StrideNetError(
        .usage, "--normalize means nothing with --from", found: "--normalize and --from",
        expected: "one of them, since a saved network goes on with the inputs it learned from")
    }
    if basis.isEmpty || configuration.pictures == nil {
      configuration.pictures = try dataOptions.pictures.options(for: start)
      // The data may have other numbers to predict now, or classes.
      if dataOptions.pictures.targets == nil { configuration.pictures?.targets = nil }
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
    if files.resume != nil && training.classWeights != nil {
      throw StrideNetError(
        .usage, "a training goes on with the settings it began with", at: files.resume,
        found: "--class-weights", hint: "leave it out: --resume knows them")
    }
    if files.page.reportSize != nil && files.report == nil {
      throw StrideNetError(
        .usage, "--report-size means nothing without a report", expected: "--report FILE with it")
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
    var options: [String: String] = [:]
    for (option, path) in [
      ("--save", files.save),
      (files.checkpoint == nil ? "--resume" : "--checkpoint", checkpointPath),
      ("--write-config", files.writeConfig), ("--report", files.report),
    ] {
      guard let path else { continue }
      if let other = options.updateValue(
        option, forKey: URL(filePath: path).standardizedFileURL.path)
      {
        throw StrideNetError(
          .usage, "two things for one file", at: path, found: "\(other) and \(option)",
          expected: "a file for each")
      }
    }
    for path in [files.writeConfig, files.report] {
      if let path { try AtomicFile.checkWritable(path) }
    }
    for path in [files.save, checkpointPath] {
      if let path { try AtomicFile.checkWritable(path, again: true) }
    }
  }

  /// Images stay in their files where that is asked for, or where they would fill half of the memory.
  private func chooseStream(_ configuration: inout RunConfiguration) throws {
    let others = [("--report", files.report != nil), ("--from", configuration.from != nil)]
    if configuration.stream == true, let (option, _) = others.first(where: \.1) {
      throw StrideNetError(
        .usage, "\(option) means nothing with --stream", found: "\(option) and --stream",
        expected: option == "--from"
          ? "one of them, since images that stay in their files train a new network"
          : "one of them, since a page shows images from all of the data",
        hint: option == "--from" ? nil : "stridenet report makes one of a saved network")
    }
    guard configuration.stream == nil, files.resume == nil, !others.contains(where: \.1),
      configuration.split == nil, configuration.folds == nil, let data = configuration.data,
      Dataset.isTooLargeForMemory(data, configuration.pictures ?? PictureOptions())
    else { return }
    configuration.stream = true
    Output.note("the images would take more than half of the memory: they are read with --stream")
  }

  func load(_ configuration: RunConfiguration, isQuiet: Bool) throws -> (
    data: any TrainingData, test: (any ExampleSource)?
  ) {
    let (isStrict, cache) = (dataOptions.strict, dataOptions.pictures.cache)
    let progress = isQuiet ? nil : DataOptions.progress
    do {
      let result: (data: any TrainingData, test: (any ExampleSource)?)
      if configuration.stream == true {
        let streamed = try configuration.streamData(isStrict: isStrict, cache: cache, progress)
        result = (streamed.data, streamed.test)
      } else {
        let loaded = try configuration.loadData(isStrict: isStrict, cache: cache, progress)
        result = (loaded.data, loaded.test)
      }
      DataOptions.tell(result.data)
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
    if stream { result.stream = true }
    if let split { result.split = split }
    if let limit { result.limit = limit }
    if let validate { result.validate = validate }
    if let folds { result.folds = folds }
    if let normalize { result.normalize = normalize == .unit ? nil : normalize }
    try optimizer.apply(to: &result.training, isNew: base == nil)
    try training.apply(to: &result.training)
    return result
  }

  // MARK: Training

  /// Trains, and does what is to be done on the way. What fails there ends the training in good order.
  private func follow(
    _ run: Run, isHeldOut: Bool, _ log: EventFile?, _ record: TrainingRecord?,
    _ interrupt: Interrupt
  ) throws -> TrainingEnd {
    let trainer = run.trainer
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
          try log?.log(progress, hasClasses: !trainer.network.predictsNumbers)
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
        if let save = files.save { try run.save(to: save) }
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

  /// - Parameter peak: as it was measured before
  private func explanation(_ network: Network, _ peak: Double) -> Explanation? {
    network.explanation(Roofline(of: network.runtime).allThreads.raised(to: peak))
  }

  // MARK: The end

  private func conclude(
    _ end: TrainingEnd, _ run: Run, _ test: (any ExampleSource)?, peak: Double, signal: Int32?
  ) throws {
    let trainer = run.trainer
    let (network, keepsBest) = (trainer.network, trainer.settings.keepsBest)
    // The epoch whose weights the network has.
    let last = keepsBest ? trainer.bestEpoch.map { trainer.results[$0 - 1] } : trainer.results.last
    if keepsBest, last != nil, let save = files.save { try run.save(to: save) }
    try tell(end, of: trainer, last)
    if isProfiled, let explanation = explanation(network, peak) {
      try ProfileTable.print(explanation, json: json)
    }
    let regression =
      network.predictsNumbers
      ? try last.flatMap { try test.map(network.regressionMetrics) ?? $0.regression } : nil
    let accuracy = regression == nil ? try accuracy(trainer, test, last) : nil
    let topAccuracy = try last.flatMap { _ in
      try topK.flatMap { try network.metrics(test ?? trainer.test).topAccuracy($0) }
    }
    if keepsBest, let last, !quiet, !json { try Output.line("best     epoch \(last.epoch)") }
    try printDone(
      DoneEvent(
        seconds: trainer.seconds, epoch: last?.epoch, test_accuracy: accuracy,
        test_r2: regression?.r2, test_outputs: regression?.events, top_k: topK,
        test_top_k_accuracy: topAccuracy, weights_sha256: network.snapshot().sha256), regression)
    // As a shell has it for a program that a signal ended.
    if case .stopped = end { throw ExitCode(128 + (signal ?? SIGINT)) }
  }

  /// What a page says of a training that didn't come to its end.
  private func failure(_ end: TrainingEnd, _ trainer: Trainer) -> String {
    switch end {
    case .diverged(let epoch, let batch):
      "The training diverged in epoch \(epoch), batch \(batch): the loss was no finite number, or a million times the first. "
        + (trainer.results.isEmpty
          ? "The weights are those that it began with."
          : "The weights are those of epoch \(trainer.results.count).")
        + " Try a tenth of the learning rate, which was \(trainer.settings.learningRate), or --clip-norm 1."
    case .stopped: "The training was stopped after \(trainer.results.count) epochs."
    case .finished, .stoppedEarly: ""
    }
  }

  func diverged(
    _ settings: TrainingSettings, _ epoch: Int, _ batch: Int, at place: String = "",
    _ saved: String = ""
  ) -> StrideNetError {
    StrideNetError(
      .badData, "training diverged: the loss is no finite number, or a million times the first",
      at: "\(place)epoch \(epoch), batch \(batch)",
      found: "learning rate \(settings.learningRate), momentum \(settings.momentum)",
      expected: "steps small enough to go downhill",
      hint: "try a tenth of the learning rate, or clip gradients: --clip-norm 1" + saved)
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
      throw diverged(trainer.settings, epoch, batch, saved)
    case .stopped:
      Output.note(
        "stopped" + saved
          + (checkpointPath.map { "; go on with: \(SweepPlan.line(["--resume", $0]))" } ?? ""),
        isWhole: true)
    case .stoppedEarly:
      if !quiet && !json {
        try Output.line("stopped  no lower loss for \(trainer.settings.patience!) epochs")
      }
    case .finished: break
    }
  }

  /// On the test set, or on images held out. A test set that nothing has seen is measured once, with
  /// the final weights.
  private func accuracy(_ trainer: Trainer, _ test: (any ExampleSource)?, _ last: EpochResult?)
    throws
    -> Double?
  {
    guard let last else { return nil }
    let error = Double(try test.map { try trainer.network.evaluate($0).ce } ?? last.testCE)
    let images = (test ?? trainer.test).count
    // The share as it was counted, without the rounding of a Float.
    return Double(images - Int((error * Double(images)).rounded())) / Double(images)
  }
}
