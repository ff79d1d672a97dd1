import StrideNet

/// What `stridenet train` prints on the way and at the end.
extension Train {
  /// What is trained, and on what.
  /// - Parameter start: the saved network that it starts from
  func announce(
    _ trainer: Trainer, _ configuration: RunConfiguration, _ test: (any ExampleSource)?,
    from start: Network?
  ) throws {
    let network = trainer.network
    if KernelChoice.isDebugBuild {
      Output.complain(
        "this is a debug build: its kernels are some 30 times slower\n  --> make run, or swift build -c release"
      )
    }
    if quiet { return }
    let frozen =
      network.unfrozenCount == network.parameterCount
      ? "" : ", \(network.unfrozenCount.grouped) of them trained"
    if json {
      try Output.json(
        StartEvent(
          model: Architecture.presets.first {
            Architecture.text(
              $0.text, outputs: network.classes, numbers: network.predictsNumbers)
              == configuration.layers
          }?.name ?? "layers",
          layers: Architecture.text(network.layers),
          kernels: network.runtime.kernels.name, precision: network.runtime.kernels.precision,
          isa: KernelChoice.instructionSet,
          threads: network.runtime.threads, parameters: network.parameterCount,
          trained_parameters: network.unfrozenCount, from: configuration.from?.path,
          new_last_layer: start.map { !isWhole($0, in: network) },
          data: trainer.source, train_images: trainer.train.count,
          validation_images: test == nil ? nil : trainer.test.count,
          test_images: (test ?? trainer.test).count, seed: trainer.settings.seed,
          loss: network.loss, classes: network.classNames, normalization: network.normalization,
          targets: network.targetNormalization))
    } else {
      try Output.line(
        """
        network  \(Architecture.text(network.layers)), \(network.parameterCount.grouped) parameters\
        \(frozen)
        data     \(trainer.source): \(trainer.train.count.grouped) training and \
        \(trainer.test.count.grouped) \(test == nil ? "test" : "validation") images of \
        \(network.input!)
        \(network.normalization.map { "inputs   \($0.text)\n" } ?? "")\
        \(network.targetsText.map { "\($0)\n" } ?? "")\
        kernels  \(network.runtime.kernels), \(KernelChoice.instructionSet), \
        \(network.runtime.threads.threads)
        """)
      if let start, let path = configuration.from?.path {
        try Output.line(
          "from     \(path), "
            + (isWhole(start, in: network)
              ? "all weights"
              : "but for the last layer, which is new: \(classes(of: network)) instead of \(classes(of: start))")
        )
      }
    }
  }

  /// Whether a network began with all of another's weights.
  private func isWhole(_ start: Network, in network: Network) -> Bool {
    start.snapshot() == network.snapshot()
  }

  private func classes(of network: Network) -> String {
    network.classNames.isEmpty
      ? "\(network.classes) classes without names" : network.outputList
  }

  /// The progress line.
  /// - Parameter left: the time that the rest will take
  func line(_ p: BatchProgress, of trainer: Trainer, left: String) -> String {
    // What matters first: a terminal may be narrow.
    "epoch \(p.epoch)/\(trainer.settings.epochs)  batch \(p.batch)/\(p.batches) of \(p.batchSize)"
      + "  \(left) left  \(trainer.network.loss.title) \(p.cce.number(4))"
      + (trainer.network.predictsNumbers ? "" : "  error \(p.ce.percent())")
      + "  \(p.imagesPerSecond.grouped) images/s  \(p.seconds.fixed(1)) s"
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

  /// What to try where the network doesn't learn.
  func tell(_ advice: String) throws {
    if quiet { return }
    if json {
      try Output.json(HintEvent(text: advice))
    } else {
      Output.note("hint: \(advice)")
    }
  }

  private func line(_ r: EpochResult, of trainer: Trainer, isHeldOut: Bool) -> String {
    let loss = trainer.network.loss.title
    let (train, test): (String, String) =
      r.regression.map { ("", "  \($0.text)") }
      ?? (" error \(r.trainCE.percent())", " error \(r.testCE.percent())")
    return
      "epoch \("\(r.epoch)".leftPadded("\(trainer.settings.epochs)".count))  \(r.seconds.fixed(2)) s"
      + "  \(r.imagesPerSecond.grouped.leftPadded(8)) images/s"
      + "  train \(loss) \(r.trainCCE.number(4))\(train)"
      + "  \(isHeldOut ? "validation" : "test") \(loss) \(r.testCCE.number(4))\(test)"
  }

  /// The last line, also of those that print no other.
  func printDone(_ done: DoneEvent, _ regression: RegressionMetrics?) throws {
    if json { return try Output.json(done) }
    let text =
      done.test_accuracy.map { "test accuracy \($0.percent()), " }
      ?? regression.map { "test \($0.text), " } ?? ""
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
    let threads, parameters, trained_parameters: Int
    let from: String?
    /// Whether the last layer doesn't come from there.
    let new_last_layer: Bool?
    let data: String
    let train_images: Int
    let validation_images: Int?
    let test_images: Int
    let seed: UInt64
    let loss: Loss
    let classes: [String]
    let normalization: InputNormalization?
    let targets: TargetNormalization?
  }

  private struct HintEvent: Encodable {
    var event = "hint"
    let text: String
  }

  private struct EpochEvent: Encodable {
    var event = "epoch"
    let epoch: Int
    let seconds, images_per_second: Double
    let train_cce: Float
    let train_ce, validation_cce, validation_ce, test_cce, test_ce: Float?
    /// Of numbers to predict.
    let r2: Double?
    let outputs: [RegressionMetrics.Event]?

    init(_ r: EpochResult, isHeldOut: Bool) {
      (epoch, seconds, images_per_second) = (r.epoch, r.seconds, r.imagesPerSecond)
      let hasClasses = r.regression == nil
      (train_cce, train_ce) = (r.trainCCE, hasClasses ? r.trainCE : nil)
      let ce = hasClasses ? r.testCE : nil
      (validation_cce, validation_ce) = isHeldOut ? (r.testCCE, ce) : (nil, nil)
      (test_cce, test_ce) = isHeldOut ? (nil, nil) : (r.testCCE, ce)
      (r2, outputs) = (r.regression?.r2, r.regression?.events)
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
    /// Of numbers to predict.
    let test_r2: Double?
    let test_outputs: [RegressionMetrics.Event]?
    let top_k: Int?
    let test_top_k_accuracy: Double?
    let weights_sha256: String
  }
}
