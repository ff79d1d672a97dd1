import ArgumentParser
import Dispatch
import Foundation
import StrideNet
import Synchronization

struct Train: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Trains a network and measures it on the test set.",
    discussion: """
      Models:
      \(Architecture.presets.map { "  \($0.name): \($0.text)" }.joined(separator: "\n"))

      Layers: conv(filters,size[,stride[,padding]]) with ReLU (also padding=same, dilation=2, \
      groups=4, activation=gelu), maxpool(size[,stride]), \
      avgpool(size[,stride]), globalavgpool, flatten, dense(n), and dense layers by their activation: relu(n), \
      leaky_relu(n[,slope]), elu(n), gelu(n), silu(n), sigmoid(n), tanh(n), softplus(n), \
      softmax(n). Arguments also go by name: conv(32,3,stride=2), and \
      init= says how weights start: \(Initializer.names). A size may be two \
      numbers: conv(8,3x5).

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

  // Unconditional: a number below 0 after an option is its value, to be refused as such.
  @Option(
    parsing: .unconditional,
    help: ArgumentHelp(
      "Shuffle all images and train on this share of them, as 0.95, instead of the standard split.",
      valueName: "share"))
  var split: Double?

  @Option(parsing: .unconditional, help: "Passes over the training images.")
  var epochs = TrainingSettings().epochs

  @Option(
    parsing: .unconditional,
    help: "Images a step (default: \(TrainingSettings().batchSize), or all there are).")
  var batchSize: Int?

  @Option(parsing: .unconditional, help: "Step size of gradient descent at the start.")
  var learningRate = TrainingSettings().learningRate

  @Option(help: "How the learning rate goes on: falling to 0 by the end, or constant.")
  var schedule = TrainingSettings().schedule

  @Option(parsing: .unconditional, help: "Share of the last step that the next one keeps.")
  var momentum = TrainingSettings().momentum

  @Option(parsing: .unconditional, help: "Decides everything random.")
  var seed = TrainingSettings().seed

  @Option(
    parsing: .unconditional,
    help: "Train on the first so many images; the test set stays whole.")
  var limit: Int?

  @Option(
    help: ArgumentHelp(
      "Write the weights there after every epoch (safetensors).", valueName: "file"))
  var save: String?

  @Flag(help: "Then print where the time went: each layer's passes, their kernels and why those.")
  var explain = false

  @Flag(help: "Print nothing but errors and the last line.")
  var quiet = false

  @Flag(help: "Print JSON, an object a line.")
  var json = false

  func run() throws {
    var settings = TrainingSettings()
    settings.epochs = epochs
    settings.schedule = schedule
    if let batchSize { settings.batchSize = batchSize }
    settings.learningRate = learningRate
    settings.momentum = momentum
    settings.seed = seed
    let (name, network) = try makeNetwork()
    // What is wrong with the numbers themselves is said before data is read.
    try settings.check(images: .max)
    if explain && quiet {
      throw StrideNetError(
        .usage, "a table that isn't to be printed", found: "--explain and --quiet",
        expected: "one of them")
    }
    if let save { try AtomicFile.checkWritable(save) }
    let data = try loadData()
    if batchSize == nil { settings.batchSize = min(settings.batchSize, data.train.count) }
    let trainer = try Trainer(network, data, settings)
    if explain { network.timePasses() }
    // From the first output on, Ctrl-C ends the training in good order.
    let interrupt = Interrupt()
    try announce(name, trainer)

    trainer.shouldStop = { interrupt.requested }
    if !quiet && !json && Output.isTerminal {
      trainer.onBatch = { progress in Output.progress { line(progress) } }
    }
    var failure: (any Error)?
    trainer.onEpoch = { result in
      do {
        // Saved first, so that an epoch that was reported isn't lost.
        if let save { try network.save(to: save) }
        if quiet { return }
        if json {
          try Output.json(EpochEvent(result))
        } else {
          try Output.line(line(result))
        }
      } catch {
        failure = error
        interrupt.requested = true
      }
    }
    let end = try trainer.run()
    if let failure { throw failure }
    try conclude(end, trainer)
  }

  private func makeNetwork() throws -> (String, Network) {
    if layers != nil, let model {
      throw StrideNetError(
        .usage, "two networks", found: "'\(model)' and --layers", expected: "one of them")
    }
    let name = model ?? "cnn"
    // The model before the kernels: `stridenet evalute FILE` is a command misspelt.
    guard let preset = Architecture.presets.first(where: { $0.name == name }) else {
      throw StrideNetError(
        .usage, "no model or command of that name", found: "'\(name)'",
        expected: Architecture.presets.map(\.name).joined(separator: ", "),
        hint: KernelChoice.names.contains(name)
          ? "kernels go after the model: stridenet cnn \(name)"
          : "see: stridenet --help; networks of one's own go with --layers")
    }
    let runtime = try compute.runtime(positional: variant)
    let (title, text) = layers.map { ("layers", $0) } ?? (name, preset.text)
    return (
      title,
      Network(try Architecture.layers(text, source: "--layers"), seed: seed, runtime: runtime)
    )
  }

  private func loadData() throws -> Dataset {
    var data = try dataOptions.load()
    if let split { data = try data.split(split, seed: seed) }
    if let limit { data = try data.limited(to: limit) }
    return data
  }

  // MARK: What is printed

  private func announce(_ name: String, _ trainer: Trainer) throws {
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
          model: name, layers: Architecture.text(network.layers),
          kernels: network.runtime.kernels.name, isa: KernelChoice.instructionSet,
          threads: network.runtime.threads, parameters: network.parameterCount,
          data: trainer.data.source, train_images: trainer.data.train.count,
          test_images: trainer.data.test.count, seed: seed))
    } else {
      try Output.line(
        """
        network  \(Architecture.text(network.layers)), \(network.parameterCount.grouped) parameters
        data     \(trainer.data.source): \(trainer.data.train.count.grouped) training and \
        \(trainer.data.test.count.grouped) test images of \(network.input!)
        kernels  \(network.runtime.kernels), \(KernelChoice.instructionSet), \
        \(network.runtime.threads) thread\(network.runtime.threads == 1 ? "" : "s")
        """)
    }
  }

  private func line(_ p: BatchProgress) -> String {
    "\(p.seconds.fixed(1)) s  epoch \(p.epoch)/\(epochs)  batch \(p.batch)/\(p.batches) of \(p.batchSize)"
      + "  \(Int(p.imagesPerSecond).grouped) images/s  CCE \(p.cce.fixed(4))  CE \(percent(p.ce))"
  }

  private func line(_ r: EpochResult) -> String {
    "epoch \("\(r.epoch)".leftPadded("\(epochs)".count))  \(r.seconds.fixed(2)) s"
      + "  \(Int(r.imagesPerSecond).grouped.leftPadded(8)) images/s"
      + "  train CCE \(r.trainCCE.fixed(4)) CE \(percent(r.trainCE))"
      + "  test CCE \(r.testCCE.fixed(4)) CE \(percent(r.testCE))"
  }

  private func percent(_ share: Float) -> String { "\((share * 100).fixed(2)) %" }

  private func conclude(_ end: TrainingEnd, _ trainer: Trainer) throws {
    let last = trainer.results.last
    switch end {
    case .diverged(let epoch, let batch):
      throw StrideNetError(
        .badData, "training diverged: the loss is no longer a finite number",
        at: "epoch \(epoch), batch \(batch)",
        found: "learning rate \(learningRate), momentum \(momentum)",
        expected: "steps small enough to go downhill",
        hint: "try a tenth of the learning rate"
          + (save.map {
            last == nil
              ? "; no epoch was finished, so '\($0)' was not written"
              : "; '\($0)' has the weights of epoch \(last!.epoch)"
          } ?? ""))
    case .stopped:
      Output.note(
        "stopped"
          + (save.map {
            last == nil
              ? "; no epoch was finished, so '\($0)' was not written"
              : "; '\($0)' has the weights of epoch \(last!.epoch)"
          } ?? ""))
    case .finished: break
    }
    let threads = trainer.network.runtime.threads
    if explain,
      let explanation = trainer.network.explanation(MachinePeak(threads: threads).allThreads)
    {
      try Explain.print(explanation, json: json)
    }
    let sha256 = trainer.network.snapshot().sha256
    if json {
      try Output.json(
        DoneEvent(
          seconds: trainer.seconds, test_accuracy: last.map { 1 - Double($0.testCE) },
          weights_sha256: sha256))
    } else {
      let accuracy = last.map { "test accuracy \(((1 - $0.testCE) * 100).fixed(2)) %, " } ?? ""
      try Output.line(
        "\(accuracy)trained for \(trainer.seconds.fixed(2)) s, weights SHA-256 \(sha256)")
      if let save, last != nil, !quiet { try Output.line("saved    \(save)") }
    }
  }

  // MARK: Events

  private struct StartEvent: Encodable {
    var event = "start"
    let model, layers, kernels, isa: String
    let threads, parameters: Int
    let data: String
    let train_images, test_images: Int
    let seed: UInt64
  }

  private struct EpochEvent: Encodable {
    var event = "epoch"
    let epoch: Int
    let seconds, images_per_second: Double
    let train_cce, train_ce, test_cce, test_ce: Float

    init(_ r: EpochResult) {
      (epoch, seconds, images_per_second) = (r.epoch, r.seconds, r.imagesPerSecond)
      (train_cce, train_ce, test_cce, test_ce) = (r.trainCCE, r.trainCE, r.testCCE, r.testCE)
    }
  }

  private struct DoneEvent: Encodable {
    var event = "done"
    let seconds: Double
    let test_accuracy: Double?
    let weights_sha256: String
  }
}

/// Ctrl-C and SIGTERM as a wish that the training loop looks at; a second one ends the process.
final class Interrupt: @unchecked Sendable {
  // Sendable because the sources are only held.
  private let wish = Atomic<Bool>(false)
  private let sources: [any DispatchSourceSignal]

  var requested: Bool {
    get { wish.load(ordering: .relaxed) }
    set { wish.store(newValue, ordering: .relaxed) }
  }

  init() {
    sources = [SIGINT, SIGTERM].map { number in
      signal(number, SIG_IGN)
      return DispatchSource.makeSignalSource(signal: number, queue: .global())
    }
    for (source, number) in zip(sources, [SIGINT, SIGTERM]) {
      source.setEventHandler { [self] in
        requested = true
        signal(number, SIG_DFL)
      }
      source.resume()
    }
  }
}

extension TrainingSettings.Schedule: ExpressibleByArgument {}
