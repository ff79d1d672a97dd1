import Foundation
import StrideNetCore

/// A network timed on images in file order: training steps, or inference.
///
/// Weights, data and what is timed are those of the peers in Benchmarks/peers.py, so that losses
/// and times can be compared.
package final class NetworkBench {
  package enum Mode: String, Sendable, Codable { case train, infer }

  /// One run.
  package struct Timing: Sendable {
    package let images: Int
    /// The loop alone: gathering bytes as floats, then the steps or the probabilities and losses.
    package let seconds: Double
    /// Mean cross-entropies of the first five mini-batches; in training each before its update.
    package let losses: [Float]

    package var imagesPerSecond: Double { Double(images) / seconds }
  }

  package static let learningRate: Float = 0.01
  package static let momentum: Float = 0.9

  package let network: Network
  private let images: ImageSet
  private let first: [String: [Float]]
  private let start: Snapshot
  private var buffer: BatchBuffer

  /// - Throws: ``StrideNetError`` if the layers are no classifier for these images
  package init(_ layers: [any Layer], _ images: ImageSet, runtime: Runtime) throws {
    network = Network(layers, runtime: runtime)
    try network.requireClassifier(for: images.shape)
    try images.checkLabels(classes: network.classes)
    self.images = images
    buffer = try BatchBuffer(capacity: 0, shape: images.shape)
    start = network.snapshot()
    var first: [String: [Float]] = [:]
    for (position, (name, shape)) in start.parameters.enumerated() {
      // Biases start at 0, what normalises at 0 or 1.
      first[name] =
        shape.count > 1
        ? Self.weights(shape, position: position) : try network.weights(name)
    }
    self.first = first
  }

  /// The values that parameter number `position` starts with, in all programs alike.
  private static func weights(_ shape: [Int], position: Int) -> [Float] {
    let count = shape.reduce(1, *)
    let fanIn = shape.count == 4 ? count / shape[3] : shape[1]
    let scale = 2 / Double(fanIn).squareRoot()
    return (0..<count).map { i in
      Float((Double(noise(i, salt: 10 + position) >> 8) / 16_777_216 - 0.5) * scale)
    }
  }

  fileprivate static func noise(_ i: Int, salt: Int) -> UInt32 {
    var u = UInt32(truncatingIfNeeded: i &* 2_654_435_761 &+ salt &* 40_503 &+ 12_345)
    u ^= u >> 16
    u = u &* 0x45D_9F3B
    return u ^ u >> 16
  }

  /// Weights as at first, momentum 0.
  private func reset() throws {
    try network.restore(start)
    try network.setWeights { first[$0]! }
  }

  /// Goes once over the first `count` images from the same weights each time; with `warmUp` it first
  /// runs a few mini-batches that aren't counted.
  package func run(_ mode: Mode, batch: Int, images count: Int, warmUp: Bool = true) throws
    -> Timing
  {
    precondition(batch > 0 && count > 0 && count <= images.count, "\(count) images by \(batch)")
    let parts = stride(from: 0, to: count, by: batch).map { $0..<min(count, $0 + batch) }
    if buffer.capacity < batch { buffer = try BatchBuffer(capacity: batch, shape: images.shape) }
    if warmUp {
      try reset()
      for part in parts.prefix(3) + parts.suffix(1) { _ = try step(mode, part) }
    }
    try reset()
    let clock = ContinuousClock()
    let start = clock.now
    var losses: [Float] = []
    for part in parts {
      let loss = try step(mode, part)
      if losses.count < 5 { losses.append(loss) }
    }
    return Timing(images: count, seconds: (clock.now - start).inSeconds, losses: losses)
  }

  /// One of several things to time.
  package struct Case {
    let bench: NetworkBench
    let mode: Mode
    let batch: Int
    let images: Int?

    /// `images` is how many in each round; nil takes as many as fill about a fifth of a second, but
    /// five mini-batches at least, as far as there are so many.
    package init(_ bench: NetworkBench, _ mode: Mode, batch: Int, images: Int? = nil) {
      (self.bench, self.mode, self.batch, self.images) = (bench, mode, batch, images)
    }
  }

  /// The median of each case. They take turns within each round, so that a change in the machine's
  /// speed meets all of them.
  package static func medians(_ cases: [Case], rounds: Int = 5) throws -> [Timing] {
    let counts = try cases.map { c in
      let all = c.bench.images.count
      let trial = try c.bench.run(c.mode, batch: c.batch, images: min(all, 2 * c.batch))
      let batches = Int(0.2 * trial.imagesPerSecond) / c.batch
      return c.images ?? min(max(batches, 5) * c.batch, all / c.batch * c.batch)
    }
    var timings = [[Timing]](repeating: [], count: cases.count)
    for _ in 0..<rounds {
      for (index, c) in cases.enumerated() {
        timings[index].append(
          try c.bench.run(c.mode, batch: c.batch, images: counts[index], warmUp: false))
      }
    }
    return timings.map { $0.sorted { $0.seconds < $1.seconds }[rounds / 2] }
  }

  /// The mini-batch that inference is fastest with.
  package func fastestBatch(of batches: [Int]) throws -> Int {
    func seconds(_ batch: Int) throws -> Double {
      try (0..<3).map { _ in try run(.infer, batch: batch, images: min(images.count, 1280)).seconds
      }.min()!
    }
    return try batches.map { ($0, try seconds($0)) }.min { $0.1 < $1.1 }!.0
  }

  private func step(_ mode: Mode, _ part: Range<Int>) throws -> Float {
    let (x, targets) = buffer.gather(images, part, network.runtime)
    return switch mode {
    case .train:
      try network.step(
        x, targets, learningRate: Self.learningRate, Optimizer(.sgd, momentum: Self.momentum)
      ).cce
    case .infer:
      try network.evaluate(part.count) { [network] in
        (x.examples($0), targets.from($0.lowerBound, network.classes))
      }.cce
    }
  }
}

extension ImageSet {
  /// The first `count` images; where there are fewer, they are repeated from the first.
  package func cycled(to count: Int) -> ImageSet {
    count == self.count ? self : picking((0..<count).map { $0 % self.count })
  }

  /// Images of 10 classes without meaning, for timings alone; peers.py makes the same.
  package static func synthetic(_ count: Int, _ shape: Shape) throws -> ImageSet {
    try ImageSet(
      count: count, height: shape.height, width: shape.width, channels: shape.channels,
      pixels: (0..<count * shape.count).map { UInt8(NetworkBench.noise($0, salt: 0) >> 24) },
      labels: (0..<count).map { UInt8($0 % 10) })
  }
}

/// Training steps of a small CNN over one of its sizes.
package struct ScalingBench: Sendable {
  package enum Size: String, Sendable { case batch, filters, pixels }

  package struct Timing: Sendable {
    /// The size: images a step, filters, or pixels an image.
    package let value: Int
    package let batch: Int
    package let microsecondsPerImage: Double
    package let gigaflopsPerSecond: Double
    /// Bytes that a step takes, where somebody measured them.
    package var memory: Int?
  }

  package let over: Size
  package let values: [Int]

  package static let all = [
    ScalingBench(over: .batch, values: [32, 64, 128, 256, 512, 1024, 2048]),
    ScalingBench(over: .filters, values: [8, 16, 32, 64, 128]),
    ScalingBench(over: .pixels, values: [14, 28, 56, 112].map { $0 * $0 }),
  ]

  /// The median of each; sizes take turns within each round.
  package func run(runtime: Runtime, rounds: Int = 5) throws -> [Timing] {
    let benches = try values.map { value in
      let side = over == .pixels ? Int(Double(value).squareRoot()) : 28
      let filters = over == .filters ? value : 32
      let batch = over == .batch ? value : 128
      let text = "conv(\(filters),3) maxpool(2) flatten relu(100) softmax(10)"
      let count = max(4 * batch, 4096 * 28 * 28 / (side * side))
      return (
        batch,
        try NetworkBench(
          try Architecture.layers(text), try .synthetic(count, Shape(side, side, 1)),
          runtime: runtime)
      )
    }
    let timings = try NetworkBench.medians(
      benches.map { batch, bench in .init(bench, .train, batch: batch) }, rounds: rounds)
    return zip(zip(values, benches), timings).map { size, timing in
      let (value, (batch, bench)) = size
      return Timing(
        value: value, batch: batch, microsecondsPerImage: 1e6 / timing.imagesPerSecond,
        gigaflopsPerSecond:
          bench.network.operations(training: true) * timing.imagesPerSecond / 1e9)
    }
  }
}
