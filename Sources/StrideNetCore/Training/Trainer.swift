import Foundation

/// How long and how fast a network is trained.
public struct TrainingSettings: Sendable, Codable, Hashable {
  /// Passes over the training images.
  public var epochs = 3
  /// Images a step; the last step of an epoch takes what is left.
  public var batchSize = 64
  /// Step size of gradient descent: the largest of the schedule.
  public var learningRate: Float = 0.05
  /// How the step size goes on from there.
  public var schedule = Schedule.linear
  /// How gradients become steps.
  public var optimizer = Optimizer()
  /// What training minimises.
  public var loss = Loss.crossEntropy()
  /// What is done to the training images, anew each epoch; nil for nothing.
  public var augmentation: Augmentation?
  /// Evaluates and returns a moving average of the weights, of which each step keeps this share
  /// (Polyak & Juditsky 1992); nil for the weights themselves.
  public var averageDecay: Float?
  /// Layers, from 0, whose weights stay as they are; nil for those that the network has frozen itself.
  public var frozenLayers: [Int]?
  /// Ends the training after so many epochs without a lower loss on the images that are evaluated.
  public var patience: Int?
  /// Ends with the weights of the epoch with the lowest loss, instead of the last one's.
  public var keepsBest = false
  /// Everything random: the order of the images here, the first weights in the network.
  public var seed: UInt64 = 1

  /// Share of the last step that the next one keeps.
  public var momentum: Float {
    get { optimizer.momentum }
    set { optimizer.momentum = newValue }
  }

  public init() {}

  /// - Throws: ``StrideNetError`` naming the setting and its range
  public func check(images: Int) throws {
    func require(_ holds: Bool, _ name: String, _ found: Any, _ expected: String) throws {
      guard holds else {
        throw StrideNetError(
          .usage, "\(name) out of range", found: "\(found)", expected: expected)
      }
    }
    try require((1...1_000_000_000).contains(epochs), "epochs", epochs, "1 … 1,000,000,000")
    try require(batchSize > 0, "batch size", batchSize, "at least 1")
    try require(
      batchSize <= images, "batch size", batchSize,
      "at most \(images), the number of training images")
    // Steps are counted in whole numbers that a double holds, too.
    try require(
      images == .max || epochs <= 1 << 53 / images, "epochs", epochs,
      "at most \(1 << 53 / max(1, images)), with \(images) training images")
    try require(
      learningRate.isFinite && learningRate > 0, "learning rate", learningRate,
      "a finite number above 0")
    try optimizer.check()
    try loss.check()
    try schedule.check()
    try augmentation?.check()
    if let averageDecay {
      try require(
        averageDecay > 0 && averageDecay < 1, "decay of the moving average", averageDecay,
        "between 0 and 1")
    }
    if let patience { try require(patience > 0, "patience", patience, "at least 1") }
  }
}

/// Where training stands after a mini-batch.
public struct BatchProgress: Sendable {
  /// From 1.
  public let epoch: Int
  /// From 1, of ``batches`` in the epoch.
  public let batch: Int
  public let batches: Int
  public let batchSize: Int
  /// Training steps of the network so far.
  public let step: Int
  /// What the step was taken with.
  public let learningRate: Float
  /// Seconds of training since the start, evaluations not counted.
  public let seconds: Double
  /// In this epoch so far.
  public let imagesPerSecond: Double
  /// This mini-batch's categorical cross-entropy and class error.
  public let cce: Float
  public let ce: Float
}

/// What an epoch came to.
public struct EpochResult: Sendable, Codable {
  /// From 1.
  public let epoch: Int
  /// Seconds of training, evaluation not counted.
  public let seconds: Double
  public let imagesPerSecond: Double
  /// Means over the epoch's steps, each taken before its update.
  public let trainCCE: Float
  public let trainCE: Float
  /// On the whole test set after the epoch, or on the images held out instead.
  public let testCCE: Float
  public let testCE: Float
}

/// Why training ended.
public enum TrainingEnd: Sendable {
  case finished
  /// No lower loss for ``TrainingSettings/patience`` epochs.
  case stoppedEarly
  /// Somebody asked to stop; the network has the weights of the last finished epoch, or with
  /// ``TrainingSettings/keepsBest`` the best one's.
  case stopped
  /// The loss was no longer a number; the network's weights are as with ``stopped``.
  case diverged(epoch: Int, batch: Int)
}

/// Trains a network on a data set, epoch by epoch.
///
///     let trainer = try Trainer(network, data, settings)
///     trainer.onEpoch = { print($0.epoch, $0.testCE) }
///     try trainer.run()
public final class Trainer {
  public let network: Network
  /// What is trained on, and what is evaluated.
  public let train, test: any ExampleSource
  /// What errors call them.
  public let source: String
  public let settings: TrainingSettings
  /// Called after each mini-batch.
  public var onBatch: ((BatchProgress) -> Void)?
  /// Called after each epoch and its evaluation.
  public var onEpoch: ((EpochResult) -> Void)?
  /// Asked before each mini-batch and each chunk of an evaluation.
  public var shouldStop: () -> Bool = { false }

  /// Epochs finished so far.
  public private(set) var results: [EpochResult] = []
  /// Seconds of training in all finished epochs.
  public var seconds: Double { results.reduce(0) { $0 + $1.seconds } }
  /// The epoch, from 1, with the lowest loss on the images that are evaluated.
  public private(set) var bestEpoch: Int?

  private let buffer: BatchBuffer
  private var augmenter: Augmenter?
  // The images' order, shuffled anew before each epoch, and how often it was; mini-batches done in
  // the one that is under way, and the sums over them.
  private var order: [Int]
  private var shuffles = 0
  private var batchesDone = 0
  private var sums = (cce: 0.0, ce: 0.0)
  private var best: Snapshot?
  // Epochs to train until, and whether somebody asked for that.
  private var epochs: Int
  private var hasRun = false

  /// - Throws: ``StrideNetError`` where settings, data and network don't fit together
  public convenience init(_ network: Network, _ data: Dataset, _ settings: TrainingSettings) throws
  {
    try self.init(
      network, train: data.train, test: data.test, settings, source: data.source,
      checkTargets: data.checkLabels(classes:))
  }

  /// Trains on any examples: numbers in memory (``TensorSet``), or a source of one's own.
  /// - Throws: ``StrideNetError`` where settings, data and network don't fit together
  public convenience init(
    _ network: Network, train: any ExampleSource, test: any ExampleSource,
    _ settings: TrainingSettings, source: String = "examples"
  ) throws {
    guard train.shape == test.shape && train.targetCount == test.targetCount else {
      throw StrideNetError(
        .badData, "examples of two kinds", at: source,
        found: "\(train.shape) for training, \(test.shape) for the test",
        expected: "the same size and targets")
    }
    try self.init(network, train: train, test: test, settings, source: source) { outputs in
      for set in [train, test] { try set.checkTargets(outputs: outputs) }
    }
  }

  private init(
    _ network: Network, train: any ExampleSource, test: any ExampleSource,
    _ settings: TrainingSettings, source: String, checkTargets: (Int) throws -> Void
  ) throws {
    try settings.check(images: train.count)
    let shape = train.shape
    network.loss = settings.loss
    try network.requireClassifier(for: shape, batch: settings.batchSize, settings.optimizer)
    try checkTargets(network.classes)
    if let frozen = settings.frozenLayers {
      guard frozen.allSatisfy(network.layers.indices.contains) else {
        throw StrideNetError(
          .usage, "no such layers to freeze",
          found: frozen.map { "\($0 + 1)" }.joined(separator: ", "),
          expected: "1 … \(network.layers.count), as in \(Architecture.text(network.layers))")
      }
      network.frozenLayers = Set(frozen)
    }
    self.network = network
    (self.train, self.test, self.source) = (train, test, source)
    self.settings = settings
    epochs = settings.epochs
    buffer = try BatchBuffer(
      capacity: max(settings.batchSize, Network.chunk), shape: shape,
      targetCount: train.targetCount)
    order = Array(0..<train.count)
    if let augmentation = settings.augmentation {
      let augmenter = Augmenter(augmentation, seed: settings.seed)
      try network.runtime.reserveScratch(augmenter.scratchCount(shape))
      self.augmenter = augmenter
    }
  }

  private var batches: Int { (order.count + settings.batchSize - 1) / settings.batchSize }

  /// Mini-batch number `batch` of an epoch, both from 0.
  private func step(_ epoch: Int, _ batch: Int) throws -> (cce: Float, ce: Float, rate: Float) {
    let range =
      batch * settings.batchSize..<min(order.count, (batch + 1) * settings.batchSize)
    network.times?.lap(.other)
    augmenter?.epoch = epoch
    let (x, targets) = buffer.gather(train, order[range], network.runtime, augmenter)
    network.times?.lap(.gather)
    let share = settings.schedule.share(
      step: epoch % settings.epochs * batches + batch, of: settings.epochs * batches,
      perEpoch: batches)
    let rate = settings.learningRate * Float(share)
    let (cce, ce) = try network.step(
      x, targets, learningRate: rate, settings.optimizer, averageDecay: settings.averageDecay)
    sums.cce += Double(cce) * Double(range.count)
    sums.ce += Double(ce) * Double(range.count)
    return (cce, ce, rate)
  }

  /// Trains for all epochs, or until ``shouldStop`` or the loss says otherwise. Run again after that,
  /// it goes on: with what is left if it was stopped, else for as many epochs once more, the schedule
  /// from its beginning.
  @discardableResult
  public func run() throws -> TrainingEnd {
    let count = order.count
    var lastGood = lastGoodAtStart ?? network.snapshot()
    lastGoodAtStart = nil
    func end(_ end: TrainingEnd) throws -> TrainingEnd {
      try network.restore(best ?? lastGood)
      (batchesDone, sums) = (0, (0, 0))
      return end
    }
    let isAnother = hasRun
    if isAnother && results.count == epochs { epochs += settings.epochs }
    hasRun = true
    let clock = ContinuousClock()
    let start = results.count
    for epoch in start..<epochs {
      if let patience = settings.patience, let bestEpoch,
        epoch - bestEpoch >= patience, !(isAnother && epoch == start)
      {
        return try end(.stoppedEarly)
      }
      shuffle(for: epoch)
      let begin = clock.now
      let (before, first) = (seconds, batchesDone)
      network.times?.skip()
      for batch in first..<batches {
        if shouldStop() {
          try onStop?(state(lastGood))
          return try end(.stopped)
        }
        let (cce, ce, rate) = try step(epoch, batch)
        guard cce.isFinite else { return try end(.diverged(epoch: epoch + 1, batch: batch + 1)) }
        batchesDone = batch + 1
        if let onBatch {
          let elapsed = (clock.now - begin).inSeconds
          let done = min(count, batchesDone * settings.batchSize)
          onBatch(
            BatchProgress(
              epoch: epoch + 1, batch: batch + 1, batches: batches,
              batchSize: done - batch * settings.batchSize, step: network.stepCount,
              learningRate: rate, seconds: before + elapsed,
              imagesPerSecond: Double(done - first * settings.batchSize) / elapsed, cce: cce,
              ce: ce))
        }
      }
      network.times?.lap(.other)
      let elapsed = (clock.now - begin).inSeconds
      network.exchangeAverage()
      guard let (testCCE, testCE) = try evaluate(test) else {
        network.exchangeAverage()
        try onStop?(state(lastGood))
        return try end(.stopped)
      }
      // The last step of an epoch may have been the one that went wrong.
      guard testCCE.isFinite else { return try end(.diverged(epoch: epoch + 1, batch: batches)) }
      lastGood = network.snapshot()
      let result = EpochResult(
        epoch: epoch + 1, seconds: elapsed,
        imagesPerSecond: Double(max(0, count - first * settings.batchSize)) / elapsed,
        trainCCE: Float(sums.cce / Double(count)), trainCE: Float(sums.ce / Double(count)),
        testCCE: testCCE, testCE: testCE)
      results.append(result)
      if bestEpoch.map({ testCCE < results[$0 - 1].testCCE }) ?? true {
        bestEpoch = epoch + 1
        if settings.keepsBest { best = lastGood }
      }
      (batchesDone, sums) = (0, (0, 0))
      onEpoch?(result)
      network.exchangeAverage()
      try onState?(state(lastGood))
    }
    // Without a moving average or a better epoch the network has the last weights already.
    return try best != nil || settings.averageDecay != nil ? end(.finished) : .finished
  }

  /// The order of an epoch follows from that of the one before.
  private func shuffle(for epoch: Int) {
    while shuffles <= epoch {
      var random = SeededGenerator(seed: settings.seed, stream: UInt64(2 + shuffles))
      random.shuffle(&order)
      shuffles += 1
    }
  }

  // MARK: Going on later

  /// Called after each epoch and, when somebody asks to stop, in the middle of one: with all that
  /// ``resume(_:)`` needs.
  package var onState: ((State) throws -> Void)?
  package var onStop: ((State) throws -> Void)?
  private var lastGoodAtStart: Snapshot?

  /// Where a training stands.
  package struct State {
    package var progress: Progress
    package var network: Network.TrainingState
    package var weights, lastGood: Snapshot
    package var best: Snapshot?

    package init(
      progress: Progress, network: Network.TrainingState, weights: Snapshot, lastGood: Snapshot,
      best: Snapshot?
    ) {
      (self.progress, self.network) = (progress, network)
      (self.weights, self.lastGood, self.best) = (weights, lastGood, best)
    }
  }

  package struct Progress: Codable {
    package var results: [EpochResult]
    package var bestEpoch: Int?
    package var batchesDone: Int
    package var sumCCE, sumCE: Double
  }

  private func state(_ lastGood: Snapshot) -> State {
    State(
      progress: Progress(
        results: results, bestEpoch: bestEpoch, batchesDone: batchesDone, sumCCE: sums.cce,
        sumCE: sums.ce),
      network: network.trainingState, weights: network.snapshot(), lastGood: lastGood, best: best)
  }

  /// Goes on from where a training with the same settings stood: from then on every number is what
  /// it would have been without a stop.
  package func resume(_ state: State) throws {
    try network.restore(state.weights)
    try network.goOn(from: state.network)
    (results, bestEpoch) = (state.progress.results, state.progress.bestEpoch)
    (batchesDone, best) = (state.progress.batchesDone, state.best)
    sums = (state.progress.sumCCE, state.progress.sumCE)
    lastGoodAtStart = state.lastGood
    let begun = results.count + (batchesDone > 0 ? 1 : 0)
    epochs = max(1, (begun - 1) / settings.epochs + 1) * settings.epochs
    hasRun = false
    (order, shuffles) = (Array(0..<train.count), 0)
  }

  private func evaluate(_ set: any ExampleSource) throws -> (cce: Float, ce: Float)? {
    var stopped = false
    let result = try network.evaluate(set.count) { range in
      stopped = stopped || shouldStop()
      return buffer.gather(set, range, network.runtime)
    }
    return stopped ? nil : result
  }
}

/// Memory for the examples and targets of a mini-batch, filled anew for each one.
package final class BatchBuffer {
  package let capacity: Int
  private let shape: Shape
  private let images: FloatStorage
  private let labels: UnsafeMutablePointer<Int32>
  private let targetCount: Int?
  private let targets: FloatStorage

  package init(capacity: Int, shape: Shape, targetCount: Int? = nil) throws {
    (self.capacity, self.shape, self.targetCount) = (capacity, shape, targetCount)
    images = try FloatStorage(count: capacity * shape.count)
    targets = try FloatStorage(count: capacity * (targetCount ?? 0))
    labels = .allocate(capacity: capacity)
  }

  deinit { labels.deallocate() }

  /// The examples at these places, and their targets; good until the next call.
  package func gather(
    _ set: any ExampleSource, _ indices: some RandomAccessCollection<Int>, _ runtime: Runtime,
    _ augmenter: Augmenter? = nil
  ) -> (TensorView, Targets) {
    precondition(indices.count <= capacity)
    let x = TensorView(images.pointer, batch: indices.count, shape: shape)
    let context = (self, set, indices, x, augmenter, runtime)
    runtime.parallel(over: indices.count, by: 16, context) { context, range, worker in
      let (buffer, set, indices, x, augmenter, runtime) = context
      for slot in range {
        let index = indices[indices.index(indices.startIndex, offsetBy: slot)]
        set.read(
          index,
          into: UnsafeMutableBufferPointer(start: x.example(slot), count: x.shape.count))
        augmenter?.apply(x.example(slot), x.shape, index: index, runtime.scratch(worker))
        if let count = buffer.targetCount {
          set.readTarget(
            index,
            into: UnsafeMutableBufferPointer(
              start: buffer.targets.at(slot * count, count: count), count: count))
        } else {
          buffer.labels[slot] = Int32(set.label(index))
        }
      }
    }
    return (x, targetCount == nil ? .labels(labels) : .values(targets.pointer))
  }
}

extension Duration {
  package var inSeconds: Double { self / .seconds(1) }
}

extension Network {
  /// Evaluates on a whole set, chunk by chunk.
  public func evaluate(_ set: ImageSet) throws -> (cce: Float, ce: Float) {
    try requireClassifier(for: set.shape)
    try set.checkLabels(classes: classes)
    let buffer = try BatchBuffer(capacity: Self.chunk, shape: set.shape)
    return try evaluate(set.count) { buffer.gather(set, $0, runtime) }
  }
}
