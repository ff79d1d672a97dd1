import Foundation

/// What the loss came to at learning rates from small to large, each for one step (Smith 2015,
/// arXiv:1506.01186): a network learns where the loss falls fastest, and breaks where it rises again.
public struct LearningRateSweep: Sendable {
  public struct Point: Sendable, Encodable {
    public let rate: Float
    /// Of the mini-batch, before the step.
    public let loss: Float
    /// The moving average of the losses until here, of which each keeps nine tenths.
    public let smoothed: Float
  }

  /// In the order of the rates.
  public let points: [Point]
  /// Whether it ended early, because the loss was four times as large as the lowest, or no number.
  public let hasDiverged: Bool

  /// Where the smoothed loss was lowest; nil where it never fell by a twentieth.
  public var lowest: Point? {
    guard let first = points.first, let lowest = points.min(by: { $0.smoothed < $1.smoothed }),
      lowest.smoothed < 0.95 * first.smoothed
    else { return nil }
    return lowest
  }

  /// Where, before that, the smoothed loss fell fastest, by equal ratios of the rate.
  public var steepest: Point? {
    guard let lowest, let end = points.firstIndex(where: { $0.rate == lowest.rate }) else {
      return nil
    }
    // Over five points, which forgives the noise of a few.
    let reach = 2
    guard end > 2 * reach else { return nil }
    return points[(reach...end - reach).min { slope($0, reach) < slope($1, reach) }!]
  }

  private func slope(_ index: Int, _ reach: Int) -> Float {
    points[index + reach].smoothed - points[index - reach].smoothed
  }

  /// A rate to train with: that of the steepest fall, or without one a tenth of that of the lowest
  /// loss; nil where the loss never fell.
  public var suggestion: Float? { steepest?.rate ?? lowest.map { $0.rate / 10 } }
}

extension Trainer {
  /// Takes training steps at rates that rise from `low` to `high` by equal ratios, and puts all back:
  /// trained afterwards, the network is as if nothing had been.
  /// - Parameter steps: at most; fewer where the loss diverges, or somebody asks to stop
  /// - Throws: ``StrideNetError`` where the rates aren't in order, or the training has begun
  public func sweepLearningRates(
    from low: Float = 1e-6, to high: Float = 10, steps: Int = 100,
    _ progress: (LearningRateSweep.Point) -> Void = { _ in }
  ) throws -> LearningRateSweep {
    guard low > 0, low < high, high.isFinite else {
      throw StrideNetError(
        .usage, "learning rates out of order", found: "\(low) … \(high)",
        expected: "two finite numbers above 0, the smaller one first")
    }
    guard (10...1_000_000).contains(steps) else {
      throw StrideNetError(
        .usage, "steps out of range", found: "\(steps)", expected: "10 … 1,000,000")
    }
    guard results.isEmpty else {
      throw StrideNetError(
        .usage, "a training that has begun", expected: "rates are swept before the first step")
    }
    let before = (network.snapshot(), try network.trainingState())
    defer { forgetSteps() }
    var (points, average, weight, best) = ([LearningRateSweep.Point](), 0.0, 0.0, Double.infinity)
    var hasDiverged = false
    for index in 0..<steps where !shouldStop() {
      let rate = low * pow(high / low, Float(index) / Float(steps - 1))
      let loss = try step(number: index, rate: rate)
      (average, weight) = (0.9 * average + 0.1 * Double(loss), 0.9 * weight + 0.1)
      let smoothed = average / weight
      guard loss.isFinite, smoothed <= 4 * best else {
        hasDiverged = true
        break
      }
      best = min(best, smoothed)
      points.append(.init(rate: rate, loss: loss, smoothed: Float(smoothed)))
      progress(points.last!)
    }
    try network.restore(before.0)
    try network.goOn(from: before.1)
    return LearningRateSweep(points: points, hasDiverged: hasDiverged)
  }
}
