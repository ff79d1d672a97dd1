import Foundation

/// How long and how fast a network is trained.
public struct TrainingSettings: Sendable {
  /// Passes over the training images.
  public var epochs = 3
  /// Images a step; the last step of an epoch takes what is left.
  public var batchSize = 64
  /// Step size of gradient descent at the start.
  public var learningRate: Float = 0.05
  /// How the step size goes on from there.
  public var schedule = Schedule.linear
  /// Share of the last step that the next one keeps.
  public var momentum: Float = 0.9
  /// Everything random: the order of the images here, the first weights in the network.
  public var seed: UInt64 = 1

  /// How the learning rate changes over a run.
  public enum Schedule: String, Sendable, CaseIterable {
    /// Not at all.
    case constant
    /// Falls in equal steps, to 0 after the last mini-batch: the last steps settle what the first
    /// ones found.
    case linear

    /// The share of the first learning rate that is left after `done` of all steps, 0…1.
    func share(_ done: Double) -> Double { self == .constant ? 1 : 1 - done }
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
    try require(epochs > 0, "epochs", epochs, "at least 1")
    try require(batchSize > 0, "batch size", batchSize, "at least 1")
    try require(
      batchSize <= images, "batch size", batchSize,
      "at most \(images), the number of training images")
    try require(
      learningRate.isFinite && learningRate > 0, "learning rate", learningRate,
      "a finite number above 0")
    try require(
      momentum.isFinite && momentum >= 0 && momentum < 1, "momentum", momentum,
      "0 up to, not with, 1")
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
  /// Seconds of training since the start, evaluations not counted.
  public let seconds: Double
  /// In this epoch so far.
  public let imagesPerSecond: Double
  /// This mini-batch's categorical cross-entropy and class error.
  public let cce: Float
  public let ce: Float
}

/// What an epoch came to.
public struct EpochResult: Sendable {
  /// From 1.
  public let epoch: Int
  /// Seconds of training, evaluation not counted.
  public let seconds: Double
  public let imagesPerSecond: Double
  /// Means over the epoch's steps, each taken before its update.
  public let trainCCE: Float
  public let trainCE: Float
  /// On the whole test set after the epoch.
  public let testCCE: Float
  public let testCE: Float
}

/// Why training ended.
public enum TrainingEnd: Sendable {
  case finished
  /// Somebody asked to stop; the network has the weights of the last finished epoch.
  case stopped
  /// The loss was no longer a number; the network has the weights of the last finished epoch.
  case diverged(epoch: Int, batch: Int)
}

/// Trains a network on a data set, epoch by epoch.
///
///     let trainer = try Trainer(network, data, settings)
///     trainer.onEpoch = { print($0.epoch, $0.testCE) }
///     try trainer.run()
public final class Trainer {
  public let network: Network
  public let data: Dataset
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

  private let buffer: BatchBuffer

  /// - Throws: ``StrideNetError`` where settings, data and network don't fit together
  public init(_ network: Network, _ data: Dataset, _ settings: TrainingSettings) throws {
    try settings.check(images: data.train.count)
    let shape = data.train.shape
    try network.requireClassifier(for: shape)
    try data.checkLabels(classes: network.classes)
    self.network = network
    self.data = data
    self.settings = settings
    buffer = BatchBuffer(capacity: max(settings.batchSize, Network.chunk), shape: shape)
  }

  /// Trains for all epochs, or until ``shouldStop`` or the loss says otherwise.
  @discardableResult
  public func run() throws -> TrainingEnd {
    let count = data.train.count
    let batches = (count + settings.batchSize - 1) / settings.batchSize
    var lastGood = network.snapshot()
    var order = Array(0..<count)
    let clock = ContinuousClock()
    for epoch in 1...settings.epochs {
      var random = SeededGenerator(seed: settings.seed, stream: UInt64(1 + epoch))
      random.shuffle(&order)
      let start = clock.now
      let before = seconds
      var sums = (cce: 0.0, ce: 0.0)
      network.times?.skip()
      for batch in 0..<batches {
        if shouldStop() {
          network.restore(lastGood)
          return .stopped
        }
        let range = batch * settings.batchSize..<min(count, (batch + 1) * settings.batchSize)
        network.times?.lap(.other)
        let (x, labels) = buffer.gather(data.train, order[range], network.runtime)
        network.times?.lap(.gather)
        let done = Double((epoch - 1) * batches + batch) / Double(settings.epochs * batches)
        let (cce, ce) = network.step(
          x, labels,
          learningRate: settings.learningRate * Float(settings.schedule.share(done)),
          momentum: settings.momentum)
        guard cce.isFinite else {
          network.restore(lastGood)
          return .diverged(epoch: epoch, batch: batch + 1)
        }
        sums.cce += Double(cce) * Double(range.count)
        sums.ce += Double(ce) * Double(range.count)
        if let onBatch {
          let elapsed = (clock.now - start).inSeconds
          onBatch(
            BatchProgress(
              epoch: epoch, batch: batch + 1, batches: batches, batchSize: range.count,
              seconds: before + elapsed, imagesPerSecond: Double(range.upperBound) / elapsed,
              cce: cce, ce: ce))
        }
      }
      network.times?.lap(.other)
      let elapsed = (clock.now - start).inSeconds
      guard let (testCCE, testCE) = evaluate(data.test) else {
        network.restore(lastGood)
        return .stopped
      }
      // The last step of an epoch may have been the one that went wrong.
      guard testCCE.isFinite else {
        network.restore(lastGood)
        return .diverged(epoch: epoch, batch: batches)
      }
      lastGood = network.snapshot()
      let result = EpochResult(
        epoch: epoch, seconds: elapsed, imagesPerSecond: Double(count) / elapsed,
        trainCCE: Float(sums.cce / Double(count)), trainCE: Float(sums.ce / Double(count)),
        testCCE: testCCE, testCE: testCE)
      results.append(result)
      onEpoch?(result)
    }
    return .finished
  }

  private func evaluate(_ set: ImageSet) -> (cce: Float, ce: Float)? {
    var stopped = false
    let result = network.evaluate(set.count) { range in
      stopped = stopped || shouldStop()
      return buffer.gather(set, range, network.runtime)
    }
    return stopped ? nil : result
  }
}

/// Memory for the images and labels of a mini-batch, filled anew for each one.
final class BatchBuffer {
  let capacity: Int
  private let shape: Shape
  private let images: FloatStorage
  private let labels: UnsafeMutablePointer<Int32>

  init(capacity: Int, shape: Shape) {
    self.capacity = capacity
    self.shape = shape
    images = FloatStorage(count: capacity * shape.count)
    labels = .allocate(capacity: capacity)
  }

  deinit { labels.deallocate() }

  /// The images at these places, scaled to 0…1, and their labels; good until the next call.
  func gather(
    _ set: ImageSet, _ indices: some RandomAccessCollection<Int>, _ runtime: Runtime
  ) -> (TensorView, UnsafePointer<Int32>) {
    precondition(indices.count <= capacity)
    let x = TensorView(images.pointer, batch: indices.count, shape: shape)
    runtime.parallel(over: indices.count, by: 16, (set, indices, x, labels)) { context, range, _ in
      let (set, indices, x, labels) = context
      for slot in range {
        let index = indices[indices.index(indices.startIndex, offsetBy: slot)]
        set.scale(index, into: x.example(slot))
        labels[slot] = Int32(set.labels[index])
      }
    }
    return (x, UnsafePointer(labels))
  }
}

extension Duration {
  var inSeconds: Double { self / .seconds(1) }
}

extension ImageSet {
  var shape: Shape { Shape(height, width, channels) }

  /// Writes one image's bytes as floats in 0…1.
  func scale(_ index: Int, into target: UnsafeMutablePointer<Float>) {
    precondition(index >= 0 && index < count, "no image \(index) among \(count)")
    pixels.withUnsafeBufferPointer {
      Kernels.scaleBytes(imageSize, $0.baseAddress! + index * imageSize, scale: 1 / 255, target)
    }
  }

  /// Images scaled to 0…1, with their labels.
  public func batch(_ indices: some Collection<Int>) -> Batch {
    var images = Tensor(batch: indices.count, shape: shape)
    images.withMutableView { x in
      for (slot, index) in indices.enumerated() { scale(index, into: x.example(slot)) }
    }
    return Batch(images: images, labels: indices.map { Int32(labels[$0]) })
  }
}

extension Network {
  /// Evaluates on a whole set, chunk by chunk.
  public func evaluate(_ set: ImageSet) throws -> (cce: Float, ce: Float) {
    try requireClassifier(for: set.shape)
    try set.checkLabels(classes: classes)
    let buffer = BatchBuffer(capacity: Self.chunk, shape: set.shape)
    return evaluate(set.count) { buffer.gather(set, $0, runtime) }
  }
}
