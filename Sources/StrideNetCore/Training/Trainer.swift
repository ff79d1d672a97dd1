import Dispatch
import Foundation
import Synchronization

/// Trains a network on a data set, epoch by epoch.
///
///     let trainer = try Trainer(network, data, settings)
///     trainer.onEpoch { print($0.epoch, $0.testCE) }
///     try trainer.run()
public final class Trainer {
  public let network: Network
  /// What is trained on, and what is evaluated.
  public let train, test: any ExampleSource
  /// What errors call them.
  package let source: String
  public let settings: TrainingSettings
  private var batchCallbacks: [(BatchProgress) -> Void] = []
  private var epochCallbacks: [(EpochResult) -> Void] = []
  /// Asked before each mini-batch and each chunk of an evaluation.
  public var shouldStop: () -> Bool = { false }

  /// Epochs finished so far.
  public private(set) var results: [EpochResult] = []
  /// Seconds of training in all finished epochs.
  package var seconds: Double { results.reduce(0) { $0 + $1.seconds } }
  /// The epoch, from 1, with the lowest loss on the images that are evaluated.
  public private(set) var bestEpoch: Int?

  // Somebody who watched the training has gone.
  private let isAbandoned = Atomic<Bool>(false)
  private let buffer: BatchBuffer
  private var augmenter: Augmenter?
  // The images' order, shuffled anew before each epoch, and how often it was; mini-batches done in
  // the one that is under way, and the sums over them.
  private var order: [Int]
  private var shuffles = 0
  private var batchesDone = 0
  private var sums = (cce: 0.0, ce: 0.0)
  // A million times the first: what goes beyond it is as lost as what is no number.
  private var largestLoss: Float?
  private var best: Snapshot?
  // While it runs, or is to go on: the weights after the last epoch.
  private var lastGood: Snapshot?
  // Epochs to train until, and whether somebody asked for that.
  private var epochs: Int
  private var hasRun = false

  /// - Throws: ``StrideNetError`` where settings, data and network don't fit together
  public convenience init(_ network: Network, _ data: Dataset, _ settings: TrainingSettings) throws
  {
    var settings = settings
    if data.hasTargets {
      if settings.loss == nil && network.loss.needsSoftmax { settings.loss = .meanSquaredError }
      if let loss = settings.loss, loss.needsSoftmax {
        throw StrideNetError(
          .usage, "a loss that is for classes, and numbers to predict", at: data.source,
          found: "\(loss)", expected: "mean_squared_error or mean_absolute_error")
      }
    }
    try self.init(
      network, train: data.train, test: data.test, settings, source: data.source
    ) { outputs in
      try data.checkLabels(classes: outputs)
      guard data.hasTargets, network.endsInSoftmax else { return }
      throw StrideNetError(
        .badData, "a network that ends in softmax, and numbers to predict",
        found: Architecture.text(network.layers), expected: "a last layer without it",
        hint: "end the network in dense(\(outputs))")
    }
    if !data.hasTargets {
      network.targetNormalization = nil
    } else if network.targetNormalization == nil {
      network.targetNormalization = network.usualNormalization(ofTargets: data.train)
    }
    network.classNames = data.classNames
    network.pictureFit = data.fit ?? data.train.usualFit
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
    if let loss = settings.loss { network.loss = loss }
    var settings = settings
    settings.loss = network.loss
    try network.requireClassifier(for: shape, batch: settings.batchSize, settings.optimizer)
    try checkTargets(network.classes)
    try Self.check(settings.classWeights, network, train)
    network.classWeights = settings.classWeights
    if let frozen = settings.frozenLayers {
      guard frozen.allSatisfy(network.layers.indices.contains) else {
        throw StrideNetError(
          .usage, "no such layers to freeze",
          found: frozen.map { "\($0 + 1)" }.joined(separator: ", "),
          expected: "1 … \(network.layers.count), as in \(Architecture.text(network.layers))")
      }
      network.frozenLayers = Set(frozen)
    }
    guard network.frozenLayers.isEmpty || network.unfrozenCount > 0 else {
      throw StrideNetError(
        .usage, "nothing is left to train", found: "frozen layers with all of the weights",
        expected: "a layer with weights that isn't frozen, in \(Architecture.text(network.layers))")
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

  private static func check(
    _ classWeights: [Float]?, _ network: Network, _ train: any ExampleSource
  ) throws {
    guard let classWeights else { return }
    guard network.loss.needsSoftmax, train.targetCount == nil else {
      throw StrideNetError(
        .usage, "class weights are for the cross-entropy of classes",
        found: train.targetCount == nil ? "\(network.loss)" : "values as targets",
        expected: "cross_entropy, with classes as targets")
    }
    guard classWeights.count == network.classes else {
      throw StrideNetError(
        .usage, "another number of class weights than the network has outputs",
        found: "\(classWeights.count)", expected: "\(network.classes)")
    }
  }

  private var batches: Int { (order.count + settings.batchSize - 1) / settings.batchSize }

  /// Mini-batch number `batch` of an epoch, both from 0.
  /// - Parameter given: the learning rate, instead of the schedule's
  private func step(_ epoch: Int, _ batch: Int, rate given: Float? = nil) throws -> (
    cce: Float, ce: Float, rate: Float
  ) {
    let range =
      batch * settings.batchSize..<min(order.count, (batch + 1) * settings.batchSize)
    network.times?.lap(.other)
    augmenter?.epoch = epoch
    // Of several processes each takes its share.
    let own = network.runtime.share(of: range.count).examples
    let (x, targets) = buffer.gather(
      train, order[range.lowerBound + own.lowerBound..<range.lowerBound + own.upperBound],
      network.runtime, augmenter)
    if let failure = train.failure { throw failure }
    network.times?.lap(.gather)
    let share = settings.schedule.share(
      step: epoch % settings.epochs * batches + batch, of: settings.epochs * batches,
      perEpoch: batches)
    let rate = given ?? settings.learningRate * Float(share)
    let (cce, ce) = try network.step(
      x, targets, learningRate: rate, settings.optimizer, averageDecay: settings.averageDecay,
      of: range.count)
    sums.cce += Double(cce) * Double(range.count)
    sums.ce += Double(ce) * Double(range.count)
    return (cce, ce, rate)
  }

  /// A step at some rate, from 0 on, with the mini-batch that a training has for it.
  /// - Returns: the loss before it
  func step(number: Int, rate: Float) throws -> Float {
    shuffle(for: number / batches)
    return try step(number / batches, number % batches, rate: rate).cce
  }

  /// The next step is the first one.
  func forgetSteps() { (order, shuffles, sums) = (Array(0..<train.count), 0, (0, 0)) }

  // MARK: Watching

  /// Calls this after each mini-batch too; in the order in which they were given.
  public func onBatch(_ callback: @escaping (BatchProgress) -> Void) {
    batchCallbacks.append(callback)
  }

  /// Calls this after each epoch and its evaluation too; in the order in which they were given.
  public func onEpoch(_ callback: @escaping (EpochResult) -> Void) {
    epochCallbacks.append(callback)
  }

  /// What happens in a training.
  public enum Event: Sendable {
    case batch(BatchProgress)
    case epoch(EpochResult)
    case end(TrainingEnd)
  }

  /// Trains on a thread of its own and gives what happens there, for tasks that may not wait:
  ///
  ///     for try await event in trainer.events() {
  ///       if case .epoch(let result) = event { print(result.testCE) }
  ///     }
  ///
  /// Until the sequence has ended the trainer and its network are that thread's: nobody else may use
  /// them. Who leaves the loop, or whose task is cancelled, stops the training as ``shouldStop`` does,
  /// and goes on when it has stopped, after a mini-batch at most. The training waits for who is a
  /// thousand events behind.
  public func events() -> some AsyncSequence<Event, any Error> {
    let room = DispatchSemaphore(value: 0)
    for _ in 0..<Events.most { room.signal() }
    let stream = AsyncThrowingStream<Event, any Error> { continuation in
      // Sendable because, as said, nobody else uses it.
      nonisolated(unsafe) let trainer = self
      nonisolated(unsafe) let callbacks = (batchCallbacks, epochCallbacks)
      func give(_ event: Event) {
        if !trainer.isAbandoned.load(ordering: .relaxed) { room.wait() }
        continuation.yield(event)
      }
      onBatch { give(.batch($0)) }
      onEpoch { give(.epoch($0)) }
      let hasEnded = DispatchSemaphore(value: 0)
      continuation.onTermination = {
        guard case .cancelled = $0 else { return }
        trainer.isAbandoned.store(true, ordering: .relaxed)
        room.signal()
        hasEnded.wait()
        trainer.isAbandoned.store(false, ordering: .relaxed)
      }
      Thread.detachNewThread {
        let result = Result { try trainer.run() }
        (trainer.batchCallbacks, trainer.epochCallbacks) = callbacks
        hasEnded.signal()
        continuation.yield(with: result.map(Event.end))
        continuation.finish()
      }
    }
    return Events(stream: stream, room: room)
  }

  /// The events of a training, each as it happens.
  private struct Events: AsyncSequence {
    static let most = 1000
    fileprivate let stream: AsyncThrowingStream<Event, any Error>
    fileprivate let room: DispatchSemaphore

    struct AsyncIterator: AsyncIteratorProtocol {
      fileprivate var stream: AsyncThrowingStream<Event, any Error>.AsyncIterator
      fileprivate let room: DispatchSemaphore

      mutating func next() async throws -> Event? {
        defer { room.signal() }
        return try await stream.next()
      }
    }

    func makeAsyncIterator() -> AsyncIterator {
      AsyncIterator(stream: stream.makeAsyncIterator(), room: room)
    }
  }

  private var isToStop: Bool { isAbandoned.load(ordering: .relaxed) || shouldStop() }

  /// The same of several processes, which stop together where one of them is to.
  private func allAreToStop() throws -> Bool {
    let others = network.runtime.communicator
    return others.size == 1 ? isToStop : try others.gather(isToStop).contains(true)
  }

  // MARK: Training

  /// Trains for all epochs, or until ``shouldStop`` or the loss says otherwise. Run again after that,
  /// it goes on: with what is left if it was stopped, else for as many epochs once more, the schedule
  /// from its beginning.
  @discardableResult
  public func run() throws -> TrainingEnd {
    lastGood = lastGood ?? network.snapshot()
    defer { lastGood = nil }
    let isAnother = hasRun
    if isAnother && results.count == epochs { epochs += settings.epochs }
    hasRun = true
    let start = results.count
    for epoch in start..<epochs {
      if let patience = settings.patience, let bestEpoch,
        epoch - bestEpoch >= patience, !(isAnother && epoch == start)
      {
        return try end(.stoppedEarly)
      }
      if let other = try run(epoch) { return try end(other) }
    }
    // Without a moving average or a better epoch the network has the last weights already.
    return try best != nil || settings.averageDecay != nil ? end(.finished) : .finished
  }

  private func end(_ end: TrainingEnd) throws -> TrainingEnd {
    try network.restore(best ?? lastGood!)
    (batchesDone, sums) = (0, (0, 0))
    return end
  }

  /// An epoch, from 0, or what is left of it.
  /// - Returns: why there is to be no other one; nil unless something happened
  private func run(_ epoch: Int) throws -> TrainingEnd? {
    shuffle(for: epoch)
    let clock = ContinuousClock()
    let begin = clock.now
    let (before, first) = (seconds, batchesDone)
    network.times?.skip()
    for batch in first..<batches {
      if try allAreToStop() { return try stop() }
      let (cce, ce, rate) = try step(epoch, batch)
      let most = largestLoss ?? 1e6 * max(1, cce)
      largestLoss = most
      guard cce.isFinite && cce <= most else {
        return .diverged(epoch: epoch + 1, batch: batch + 1)
      }
      batchesDone = batch + 1
      guard !batchCallbacks.isEmpty else { continue }
      let elapsed = (clock.now - begin).inSeconds
      let done = min(order.count, batchesDone * settings.batchSize)
      let progress = BatchProgress(
        epoch: epoch + 1, batch: batch + 1, batches: batches,
        batchSize: done - batch * settings.batchSize, step: network.stepCount, learningRate: rate,
        seconds: before + elapsed,
        imagesPerSecond: Double(done - first * settings.batchSize) / elapsed, cce: cce, ce: ce)
      for callback in batchCallbacks { callback(progress) }
    }
    network.times?.lap(.other)
    let elapsed = (clock.now - begin).inSeconds
    network.exchangeAverage()
    guard let (testCCE, testCE, regression) = try evaluate(test) else {
      network.exchangeAverage()
      return try stop()
    }
    // The last step of an epoch may have been the one that went wrong.
    guard testCCE.isFinite else { return .diverged(epoch: epoch + 1, batch: batches) }
    let count = Double(order.count)
    note(
      EpochResult(
        epoch: epoch + 1, seconds: elapsed,
        imagesPerSecond: max(0, count - Double(first * settings.batchSize)) / elapsed,
        trainCCE: Float(sums.cce / count), trainCE: Float(sums.ce / count), testCCE: testCCE,
        testCE: testCE, regression: regression))
    network.exchangeAverage()
    try onState?(state())
    return nil
  }

  private func stop() throws -> TrainingEnd {
    try onStop?(state())
    return .stopped
  }

  /// Keeps what an epoch came to, the network's weights as they were evaluated.
  private func note(_ result: EpochResult) {
    lastGood = network.snapshot()
    results.append(result)
    if bestEpoch.map({ result.testCCE < results[$0 - 1].testCCE }) ?? true {
      bestEpoch = result.epoch
      if settings.keepsBest { best = lastGood }
    }
    (batchesDone, sums) = (0, (0, 0))
    for callback in epochCallbacks { callback(result) }
  }

  /// The order of an epoch follows from that of the one before.
  private func shuffle(for epoch: Int) {
    if let own = train.order(epoch: epoch, seed: settings.orderSeed) {
      precondition(own.count == order.count, "an order of other examples than there are")
      (order, shuffles) = (own, epoch + 1)
      return
    }
    while shuffles <= epoch {
      var random = SeededGenerator(seed: settings.orderSeed, stream: UInt64(2 + shuffles))
      random.shuffle(&order)
      shuffles += 1
    }
  }

  // MARK: Going on later

  /// Called after each epoch and, when somebody asks to stop, in the middle of one: with all that
  /// ``resume(_:)`` needs.
  package var onState: ((State) throws -> Void)?
  package var onStop: ((State) throws -> Void)?

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

  private func state() throws -> State {
    State(
      progress: Progress(
        results: results, bestEpoch: bestEpoch, batchesDone: batchesDone, sumCCE: sums.cce,
        sumCE: sums.ce),
      network: try network.trainingState(), weights: network.snapshot(),
      lastGood: lastGood!, best: best)
  }

  /// Goes on from where a training with the same settings stood: from then on every number is what
  /// it would have been without a stop.
  package func resume(_ state: State) throws {
    try network.restore(state.weights)
    try network.goOn(from: state.network)
    (results, bestEpoch) = (state.progress.results, state.progress.bestEpoch)
    (batchesDone, best) = (state.progress.batchesDone, state.best)
    sums = (state.progress.sumCCE, state.progress.sumCE)
    lastGood = state.lastGood
    let begun = results.count + (batchesDone > 0 ? 1 : 0)
    epochs = max(1, (begun - 1) / settings.epochs + 1) * settings.epochs
    hasRun = false
    (order, shuffles) = (Array(0..<train.count), 0)
  }

  private func evaluate(_ set: any ExampleSource) throws -> (
    cce: Float, ce: Float, regression: RegressionMetrics?
  )? {
    // Several processes share out the chunks, and come to the end of them together.
    let asks = network.runtime.communicator.size == 1
    func chunk(_ range: Range<Int>) -> (TensorView, Targets)? {
      asks && isToStop ? nil : buffer.gather(set, range, network.runtime)
    }
    if network.predictsNumbers && set.targetCount != nil {
      let metrics = try network.regressionMetrics(of: set, shared: true, chunk)
      if let failure = set.failure { throw failure }
      return metrics.map { (Float($0.loss), 0, $0) }
    }
    let result = try network.evaluate(set.count, shared: true, unlessNil: chunk)
    if let failure = set.failure { throw failure }
    return result.map { ($0.cce, $0.ce, nil) }
  }
}

extension Duration {
  package var inSeconds: Double { self / .seconds(1) }
}
