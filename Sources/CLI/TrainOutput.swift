import StrideNet

/// What `stridenet train` prints on the way and at the end.
extension Train {
  /// What is trained, and on what.
  func announce(_ trainer: Trainer, _ configuration: RunConfiguration, _ test: (any ExampleSource)?)
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
          model: Architecture.presets.first {
            Architecture.text($0.text, outputs: network.classes) == configuration.layers
          }?.name ?? "layers",
          layers: Architecture.text(network.layers),
          kernels: network.runtime.kernels.name, precision: network.runtime.kernels.precision,
          isa: KernelChoice.instructionSet,
          threads: network.runtime.threads, parameters: network.parameterCount,
          data: trainer.source, train_images: trainer.train.count,
          validation_images: test == nil ? nil : trainer.test.count,
          test_images: (test ?? trainer.test).count, seed: trainer.settings.seed,
          classes: network.classNames, normalization: network.normalization))
    } else {
      try Output.line(
        """
        network  \(Architecture.text(network.layers)), \(network.parameterCount.grouped) parameters
        data     \(trainer.source): \(trainer.train.count.grouped) training and \
        \(trainer.test.count.grouped) \(test == nil ? "test" : "validation") images of \
        \(network.input!)
        \(network.normalization.map { "inputs   \($0.text)\n" } ?? "")\
        kernels  \(network.runtime.kernels), \(KernelChoice.instructionSet), \
        \(network.runtime.threads.threads)
        """)
    }
  }

  /// The progress line.
  func line(_ p: BatchProgress, of trainer: Trainer) -> String {
    "\(p.seconds.fixed(1)) s  epoch \(p.epoch)/\(trainer.settings.epochs)  batch \(p.batch)/\(p.batches) of \(p.batchSize)"
      + "  \(p.imagesPerSecond.grouped) images/s  \(trainer.network.loss.abbreviation) \(p.cce.fixed(4))  CE \(p.ce.percent())"
  }

  /// A line an epoch.
  func report(_ result: EpochResult, of trainer: Trainer, isHeldOut: Bool) throws {
    if quiet { return }
    if json {
      try Output.json(EpochEvent(result, isHeldOut: isHeldOut))
    } else {
      try Output.line(line(result, of: trainer, isHeldOut: isHeldOut))
    }
  }

  private func line(_ r: EpochResult, of trainer: Trainer, isHeldOut: Bool) -> String {
    let loss = trainer.network.loss.abbreviation
    return
      "epoch \("\(r.epoch)".leftPadded("\(trainer.settings.epochs)".count))  \(r.seconds.fixed(2)) s"
      + "  \(r.imagesPerSecond.grouped.leftPadded(8)) images/s"
      + "  train \(loss) \(r.trainCCE.fixed(4)) CE \(r.trainCE.percent())"
      + "  \(isHeldOut ? "validation" : "test") \(loss) \(r.testCCE.fixed(4)) CE \(r.testCE.percent())"
  }

  /// The last line, also of those that print no other.
  func printDone(_ done: DoneEvent) throws {
    if json { return try Output.json(done) }
    let text = done.test_accuracy.map { "test accuracy \($0.percent()), " } ?? ""
    let top = done.test_top_k_accuracy.map { "top-\(done.top_k!) \($0.percent()), " } ?? ""
    try Output.line(
      "\(text)\(top)trained for \(done.seconds.fixed(2)) s, weights SHA-256 \(done.weights_sha256)")
    if quiet { return }
    if let save = files.save, done.epoch != nil { try Output.line("saved    \(save)") }
    if let report = files.report { try Output.line("report   \(report)") }
  }

  // MARK: Events

  private struct StartEvent: Encodable {
    var event = "start"
    let model, layers, kernels: String
    let precision: Precision
    let isa: String
    let threads, parameters: Int
    let data: String
    let train_images: Int
    let validation_images: Int?
    let test_images: Int
    let seed: UInt64
    let classes: [String]
    let normalization: InputNormalization?
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

  /// A checkpoint after whose epochs there are none to come.
  struct FinishedEvent: Encodable {
    var event = "finished"
    let epochs: Int
  }

  struct DoneEvent: Encodable {
    var event = "done"
    let seconds: Double
    let epoch: Int?
    let test_accuracy: Double?
    let top_k: Int?
    let test_top_k_accuracy: Double?
    let weights_sha256: String
  }
}
