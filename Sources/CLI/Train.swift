import ArgumentParser
import Foundation
import StrideNet
import Synchronization

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

  func run() throws {
    let checkpoint = try files.resume.map { try Checkpoint(from: $0) }
    let given = [files.resume, files.config, files.recipe].compactMap { $0 }
    guard given.count <= 1 else {
      throw StrideNetError(
        .usage, "two configurations", found: given.joined(separator: ", "),
        expected: "one of --resume, --config and --recipe")
    }
    var configuration = try configuration(
      checkpoint?.configuration ?? files.config.map { try RunConfiguration.read(from: $0) }
        ?? files.recipe.map { try RunConfiguration(recipe: $0) })
    // What is wrong with the numbers themselves is said before data is read.
    try configuration.training.check(images: .max)
    if let checkpoint {
      // The data may lie elsewhere now: whether it is the same, its digest tells.
      var before = checkpoint.configuration
      before.data = configuration.data
      let differences = configuration.differences(from: before)
      guard differences.isEmpty else {
        throw StrideNetError(
          .usage, "a training goes on with the settings it began with", at: files.resume,
          found: differences.joined(separator: "; ") + " before",
          hint: "leave these out: --resume knows them")
      }
    }
    if (profile || explain) && quiet {
      throw StrideNetError(
        .usage, "a table that isn't to be printed", found: "--profile and --quiet",
        expected: "one of them")
    }
    if let every = files.checkpointEvery, every < 1 {
      throw StrideNetError(
        .usage, "--checkpoint-every out of range", found: "\(every)", expected: "at least 1")
    }
    let checkpointPath = files.checkpoint ?? files.resume
    if files.checkpointEvery != nil && checkpointPath == nil {
      throw StrideNetError(
        .usage, "--checkpoint-every means nothing without a checkpoint",
        expected: "--checkpoint FILE with it")
    }
    let network = Network(
      try Architecture.layers(configuration.layers, source: "--layers"),
      seed: configuration.training.seed, runtime: try compute.runtime(named: configuration.kernels))
    for path in [files.writeConfig, files.report] {
      if let path { try AtomicFile.checkWritable(path) }
    }
    for path in [files.save, checkpointPath] {
      if let path { try AtomicFile.checkWritable(path, again: true) }
    }
    let (data, test) = try load(configuration)
    // The defaults may be others elsewhere.
    configuration.data = configuration.data ?? data.name
    configuration.kernels = network.runtime.kernels.name
    if checkpoint == nil && configuration.training.batchSize > data.train.count
      && training.batchSize == nil && given.isEmpty
    {
      configuration.training.batchSize = data.train.count
    }
    let trainer = try Trainer(network, data, configuration.training)
    if let checkpoint { try trainer.resume(checkpoint) }
    if let path = files.writeConfig { try configuration.write(to: path) }
    if let checkpointPath {
      trainer.writeCheckpoints(
        to: checkpointPath, every: files.checkpointEvery ?? 1, configuration)
    }
    if profile || explain || files.report != nil { network.timePasses() }
    let record = try files.report.map { _ in try TrainingRecord(trainer) }
    // From the first output on, Ctrl-C ends the training in good order.
    let interrupt = Interrupt()
    try announce(trainer, configuration, test)

    trainer.shouldStop = { interrupt.requested }
    var failure: (any Error)?
    let log = try files.logDir.map {
      try EventFile(in: $0, goingOnAfter: checkpoint == nil ? nil : network.stepCount)
    }
    let showsProgress = !quiet && !json && Output.isTerminal
    if showsProgress || log != nil || record != nil {
      trainer.onBatch { progress in
        if showsProgress { Output.progress { line(progress, of: trainer) } }
        do {
          try log?.log(progress)
          try record?.note(progress)
        } catch {
          failure = error
          interrupt.requested = true
        }
      }
    }
    trainer.onEpoch { result in
      record?.note(result)
      do {
        try log?.log(result, network, isHeldOut: test != nil)
        // Saved first, so that an epoch that was reported isn't lost.
        if let save = files.save { try network.save(to: save) }
        if quiet { return }
        if json {
          try Output.json(EpochEvent(result, isHeldOut: test != nil))
        } else {
          try Output.line(line(result, of: trainer, isHeldOut: test != nil))
        }
      } catch {
        failure = error
        interrupt.requested = true
      }
    }
    let end = try trainer.run()
    if let failure { throw failure }
    // Where no epoch was finished this time, the checkpoint's is what there is to save.
    if let save = files.save, let epochs = checkpoint?.epochs, epochs == trainer.results.count,
      epochs > 0
    {
      try network.save(to: save)
    }
    if let path = files.report, let record {
      try Report(
        network, record: record, data: data, judged: test ?? data.test, heldOut: test != nil,
        seconds: trainer.seconds,
        explanation: network.explanation(MachinePeak(threads: network.runtime.threads).allThreads),
        configuration: configuration
      ).write(to: path)
    }
    try conclude(end, trainer, test, signal: interrupt.signal)
  }

  private func load(_ configuration: RunConfiguration) throws -> (data: Dataset, test: ImageSet?) {
    do {
      return try configuration.loadData()
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
    if let kernels = try compute.name(positional: variant) { result.kernels = kernels }
    if let data = dataOptions.data { result.data = data }
    if let split { result.split = split }
    if let limit { result.limit = limit }
    if let validate { result.validate = validate }
    try optimizer.apply(to: &result.training, isNew: base == nil)
    try training.apply(to: &result.training)
    return result
  }

  // MARK: What is printed

  private func announce(_ trainer: Trainer, _ configuration: RunConfiguration, _ test: ImageSet?)
    throws
  {
    let network = trainer.network
    if KernelChoice.isDebugBuild {
      Output.complain(
        "this is a debug build: its kernels are some 30 times slower\n  --> make run, or swift build -c release"
      )
    }
    if quiet { return }
    if json {
      try Output.json(
        StartEvent(
          model: Architecture.presets.first { $0.text == configuration.layers }?.name ?? "layers",
          layers: Architecture.text(network.layers),
          kernels: network.runtime.kernels.name, isa: KernelChoice.instructionSet,
          threads: network.runtime.threads, parameters: network.parameterCount,
          data: trainer.source, train_images: trainer.train.count,
          validation_images: test == nil ? nil : trainer.test.count,
          test_images: (test ?? trainer.test).count, seed: trainer.settings.seed))
    } else {
      try Output.line(
        """
        network  \(Architecture.text(network.layers)), \(network.parameterCount.grouped) parameters
        data     \(trainer.source): \(trainer.train.count.grouped) training and \
        \(trainer.test.count.grouped) \(test == nil ? "test" : "validation") images of \
        \(network.input!)
        kernels  \(network.runtime.kernels), \(KernelChoice.instructionSet), \
        \(network.runtime.threads) thread\(network.runtime.threads == 1 ? "" : "s")
        """)
    }
  }

  private func line(_ p: BatchProgress, of trainer: Trainer) -> String {
    "\(p.seconds.fixed(1)) s  epoch \(p.epoch)/\(trainer.settings.epochs)  batch \(p.batch)/\(p.batches) of \(p.batchSize)"
      + "  \(p.imagesPerSecond.grouped) images/s  \(trainer.settings.loss.abbreviation) \(p.cce.fixed(4))  CE \(percent(p.ce))"
  }

  private func line(_ r: EpochResult, of trainer: Trainer, isHeldOut: Bool) -> String {
    let loss = trainer.settings.loss.abbreviation
    return
      "epoch \("\(r.epoch)".leftPadded("\(trainer.settings.epochs)".count))  \(r.seconds.fixed(2)) s"
      + "  \(r.imagesPerSecond.grouped.leftPadded(8)) images/s"
      + "  train \(loss) \(r.trainCCE.fixed(4)) CE \(percent(r.trainCE))"
      + "  \(isHeldOut ? "validation" : "test") \(loss) \(r.testCCE.fixed(4)) CE \(percent(r.testCE))"
  }

  private func percent(_ share: Float) -> String { "\((share * 100).fixed(2)) %" }

  private func conclude(
    _ end: TrainingEnd, _ trainer: Trainer, _ test: ImageSet?, signal: Int32?
  ) throws {
    let (network, save, keepsBest) = (trainer.network, files.save, trainer.settings.keepsBest)
    // The epoch whose weights the network has.
    let last = keepsBest ? trainer.bestEpoch.map { trainer.results[$0 - 1] } : trainer.results.last
    if keepsBest, last != nil, let save { try network.save(to: save) }
    let saved =
      save.map {
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
        hint: "try a tenth of the learning rate" + saved)
    case .stopped:
      let path = files.checkpoint ?? files.resume
      Output.note(
        "stopped" + saved + (path.map { "; go on with: stridenet train --resume \($0)" } ?? ""))
    case .stoppedEarly:
      if !quiet && !json {
        try Output.line("stopped  no lower loss for \(trainer.settings.patience!) epochs")
      }
    case .finished: break
    }
    if profile || explain,
      let explanation = network.explanation(
        MachinePeak(threads: network.runtime.threads).allThreads)
    {
      try Explain.print(explanation, json: json)
    }
    // Images that nothing has seen are measured once, with the final weights.
    var testCE = last?.testCE
    if let test, last != nil { testCE = try network.evaluate(test).ce }
    let images = (test ?? trainer.test).count
    // The share as it was counted, without the rounding of a Float.
    let accuracy = testCE.map {
      Double(images - Int((Double($0) * Double(images)).rounded())) / Double(images)
    }
    if keepsBest, let last, !quiet, !json { try Output.line("best     epoch \(last.epoch)") }
    let sha256 = network.snapshot().sha256
    if json {
      try Output.json(
        DoneEvent(
          seconds: trainer.seconds, epoch: last?.epoch, test_accuracy: accuracy,
          weights_sha256: sha256))
    } else {
      let text = accuracy.map { "test accuracy \(($0 * 100).fixed(2)) %, " } ?? ""
      try Output.line(
        "\(text)trained for \(trainer.seconds.fixed(2)) s, weights SHA-256 \(sha256)")
      if let save, last != nil, !quiet { try Output.line("saved    \(save)") }
      if let report = files.report, !quiet { try Output.line("report   \(report)") }
    }
    // As a shell has it for a program that a signal ended.
    if case .stopped = end { throw ExitCode(128 + (signal ?? SIGINT)) }
  }

  // MARK: Events

  private struct StartEvent: Encodable {
    var event = "start"
    let model, layers, kernels, isa: String
    let threads, parameters: Int
    let data: String
    let train_images: Int
    let validation_images: Int?
    let test_images: Int
    let seed: UInt64
  }

  private struct EpochEvent: Encodable {
    var event = "epoch"
    let epoch: Int
    let seconds, images_per_second: Double
    let train_cce, train_ce: Float
    let validation_cce, validation_ce, test_cce, test_ce: Float?

    init(_ r: EpochResult, isHeldOut: Bool) {
      (epoch, seconds, images_per_second) = (r.epoch, r.seconds, r.imagesPerSecond)
      (train_cce, train_ce) = (r.trainCCE, r.trainCE)
      (validation_cce, validation_ce) = isHeldOut ? (r.testCCE, r.testCE) : (nil, nil)
      (test_cce, test_ce) = isHeldOut ? (nil, nil) : (r.testCCE, r.testCE)
    }
  }

  private struct DoneEvent: Encodable {
    var event = "done"
    let seconds: Double
    let epoch: Int?
    let test_accuracy: Double?
    let weights_sha256: String
  }
}

/// Ctrl-C, SIGTERM and SIGHUP as a wish that the training loop looks at; a second one ends the
/// process. By a handler that does no more than that: threads to handle signals on can't be had
/// everywhere.
final class Interrupt: Sendable {
  private static let received = Atomic<Int32>(0)
  private let wish = Atomic<Bool>(false)

  var requested: Bool {
    get { wish.load(ordering: .relaxed) || signal != nil }
    set { wish.store(newValue, ordering: .relaxed) }
  }

  /// Which of them it was, if it was one.
  var signal: Int32? {
    let number = Self.received.load(ordering: .relaxed)
    return number == 0 ? nil : number
  }

  init() {
    // Made here, not by the handler.
    Self.received.store(0, ordering: .relaxed)
    var handled = sigset_t()
    sigemptyset(&handled)
    for number in [SIGINT, SIGTERM, SIGHUP] {
      let old = Foundation.signal(number) { number in
        Interrupt.received.store(number, ordering: .relaxed)
        Foundation.signal(number, SIG_DFL)
      }
      // A terminal that is closed sends SIGHUP, which nohup has us ignore.
      if number == SIGHUP
        && unsafeBitCast(old, to: Int.self) == unsafeBitCast(SIG_IGN, to: Int.self)
      {
        Foundation.signal(number, SIG_IGN)
      }
      sigaddset(&handled, number)
    }
    // Whoever started this may have had them blocked on the thread that did.
    pthread_sigmask(SIG_UNBLOCK, &handled, nil)
  }
}
