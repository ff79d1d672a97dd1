/// How near a network's outputs came to the numbers that it was to predict.
public struct RegressionMetrics: Sendable, Hashable, Codable {
  /// What one output came to, t being the targets, y the outputs, in their own units.
  public struct Output: Sendable, Hashable, Codable {
    /// What it is called; empty where nobody said.
    public let name: String
    /// Σ (y − t)² / N and Σ |y − t| / N
    public let meanSquaredError, meanAbsoluteError: Double
    /// The coefficient of determination, 1 − Σ (t − y)² / Σ (t − t̄)²: 1 where all are right, 0 for
    /// always saying the mean of these targets, below 0 for what is worse than that. Nil where all
    /// targets are the same.
    public let r2: Double?
  }

  public let examples: Int
  /// What training minimises, the mean over the examples.
  public let loss: Double
  public let outputs: [Output]

  /// The mean of the outputs' R², as scikit-learn's `r2_score` has it; nil where one has none.
  public var r2: Double? {
    let all = outputs.compactMap(\.r2)
    return all.count == outputs.count ? all.reduce(0, +) / Double(all.count) : nil
  }

  /// - Parameters:
  ///   - outputs: a row for each example
  ///   - targets: the same, column by column
  init(
    loss: Double, outputs: UnsafePointer<Float>, targets: [[Float]], names: [String]
  ) {
    let width = targets.count
    (self.loss, examples) = (loss, targets[0].count)
    self.outputs = targets.enumerated().map { column, t in
      let count = Double(t.count)
      let mean = t.reduce(0) { $0 + Double($1) } / count
      var (squares, absolute, spread) = (0.0, 0.0, 0.0)
      for (row, t) in t.enumerated() {
        let off = Double(outputs[row * width + column]) - Double(t)
        squares += off * off
        absolute += abs(off)
        spread += (Double(t) - mean) * (Double(t) - mean)
      }
      return Output(
        name: names.indices.contains(column) ? names[column] : "",
        meanSquaredError: squares / count, meanAbsoluteError: absolute / count,
        r2: spread > 0 ? 1 - squares / spread : nil)
    }
  }

  static var classesAsTargets: StrideNetError {
    StrideNetError(.badData, "classes as targets", expected: "numbers to predict")
  }
}

extension Network {
  /// Evaluates on a whole set with values as targets, chunk by chunk.
  /// - Throws: ``StrideNetError`` where it doesn't fit the network, or its targets are classes
  public func regressionMetrics(_ set: any ExampleSource) throws -> RegressionMetrics {
    guard set.targetCount != nil else { throw RegressionMetrics.classesAsTargets }
    let buffer = try prepare(set)
    return try regressionMetrics(of: set) { buffer.gather(set, $0, runtime) }!
  }

  /// - Parameters:
  ///   - shared: whether all of the runtime's processes do this at the same time, each with some of
  ///     the chunks
  ///   - examples: a chunk's; nil to stop
  func regressionMetrics(
    of set: any ExampleSource, shared: Bool = false,
    _ examples: (Range<Int>) -> (TensorView, Targets)?
  ) throws -> RegressionMetrics? {
    let outputs = try FloatStorage(count: set.count * classes)
    guard
      let (loss, _) = try evaluate(
        set.count, keep: outputs.pointer, shared: shared, unlessNil: examples)
    else { return nil }
    return RegressionMetrics(
      loss: Double(loss), outputs: outputs.pointer, targets: set.columns,
      names: classNames)
  }
}

extension Ensemble {
  /// Evaluates on a whole set with values as targets, chunk by chunk.
  /// - Throws: ``StrideNetError`` where it doesn't fit the networks, or its targets are classes
  public func regressionMetrics(_ set: any ExampleSource) throws -> RegressionMetrics {
    let first = networks[0]
    if networks.count == 1 && views == nil { return try first.regressionMetrics(set) }
    guard set.targetCount != nil else { throw RegressionMetrics.classesAsTargets }
    _ = try first.prepare(set)
    let width = first.classes
    let outputs = try FloatStorage(count: set.count * width)
    for start in stride(from: 0, to: set.count, by: Network.chunk) {
      let range = start..<min(set.count, start + Network.chunk)
      try predict(try set.examples(range).images, from: start).withView {
        (outputs.pointer + start * width).update(from: $0.pointer, count: $0.count)
      }
    }
    // The loss of what was averaged, as the first network learned it.
    var (sum, pair) = (0.0, [Float](repeating: 0, count: 2 * width))
    let scale = first.targetNormalization ?? .none(outputs: width)
    for row in 0..<set.count {
      pair.withUnsafeMutableBufferPointer { pair in
        let (output, target) = (
          UnsafeMutableBufferPointer(rebasing: pair[..<width]),
          UnsafeMutableBufferPointer(rebasing: pair[width...])
        )
        set.readTarget(row, into: target)
        scale.apply(1, target.baseAddress!, target.baseAddress!)
        scale.apply(1, outputs.pointer + row * width, output.baseAddress!)
        sum += Double(
          first.loss.rule.loss(
            UnsafeBufferPointer(output), .values(UnsafeBufferPointer(target)), gradient: nil))
      }
    }
    return RegressionMetrics(
      loss: sum / Double(set.count), outputs: outputs.pointer, targets: set.columns,
      names: first.classNames)
  }
}
