/// What a network that predicts numbers does to them: it learns (t − mean) / deviation of each column
/// of targets, and gives its outputs back in the columns' own units. Its loss is of what it learns; with
/// the squared error, always saying the mean of the training examples costs 1. It belongs to the
/// network, is saved with the weights and exported with them.
///
///     network.targetNormalization = .standard(of: data.train)
///
/// A ``Trainer`` on a ``Dataset`` with targets does that by itself where the last layer has no
/// activation; where it has one, whose range targets are to be in, they stay as they are.
public struct TargetNormalization: Sendable, Hashable, Codable {
  /// One value for each output.
  public let mean, deviation: [Double]

  private enum CodingKeys: CodingKey { case mean, deviation }

  /// - Throws: ``StrideNetError`` unless there is a finite mean and a finite deviation above 0 for
  ///   each output
  public init(mean: [Double], deviation: [Double]) throws {
    guard !mean.isEmpty, mean.count == deviation.count,
      mean.allSatisfy({ Float($0).isFinite }),
      deviation.allSatisfy({
        Float($0).isFinite && $0 >= Double(Float.leastNormalMagnitude)
      })
    else {
      throw StrideNetError(
        .badData, "not a normalisation of targets", found: "mean \(mean), deviation \(deviation)",
        expected: "a mean and a deviation above 0 for each output")
    }
    (self.mean, self.deviation) = (mean, deviation)
  }

  private init(unchecked mean: [Double], _ deviation: [Double]) {
    (self.mean, self.deviation) = (mean, deviation)
  }

  public init(from decoder: any Decoder) throws {
    let container = try decoder.container(keyedBy: CodingKeys.self)
    try self.init(
      mean: container.decode([Double].self, forKey: .mean),
      deviation: container.decode([Double].self, forKey: .deviation))
  }

  /// Leaves so many outputs as they are.
  public static func none(outputs: Int) -> TargetNormalization {
    TargetNormalization(
      unchecked: [Double](repeating: 0, count: outputs), [Double](repeating: 1, count: outputs))
  }

  /// Mean and population deviation of each column of targets, in double precision; of a column that
  /// has one value everywhere, the deviation is taken as 1.
  /// - Precondition: the examples have values as targets
  public static func standard(of set: some ExampleSource) -> TargetNormalization {
    let columns = set.columns
    let mean = columns.map { $0.reduce(0) { $0 + Double($1) } / Double($0.count) }
    let deviation = zip(columns, mean).map { column, mean in
      let squares = column.reduce(0) { $0 + (Double($1) - mean) * (Double($1) - mean) }
      let deviation = (squares / Double(column.count)).squareRoot()
      return deviation >= Double(Float.leastNormalMagnitude) ? deviation : 1
    }
    return TargetNormalization(unchecked: mean, deviation)
  }

  /// Each output's.
  package var columns: [(mean: Double, deviation: Double)] {
    zip(mean, deviation).map { ($0, $1) }
  }

  /// For people: "less mean 231.4, divided by deviation 20.11"; of many the first.
  package var text: String {
    func list(_ values: [Double]) -> String {
      values.prefix(4).map { "\(Float(($0 * 10_000).rounded() / 10_000))" }.joined(separator: " ")
        + (values.count > 4 ? " …" : "")
    }
    return "less mean \(list(mean)), divided by deviation \(list(deviation))"
  }

  /// Writes targets of so many examples as they are learned.
  func apply(_ examples: Int, _ t: UnsafePointer<Float>, _ y: UnsafeMutablePointer<Float>) {
    for i in 0..<examples * mean.count {
      let column = i % mean.count
      y[i] = (t[i] - Float(mean[column])) / Float(deviation[column])
    }
  }

  /// Outputs of so many examples as they are given.
  package func undo(_ examples: Int, _ y: UnsafeMutablePointer<Float>) {
    for i in 0..<examples * mean.count {
      let column = i % mean.count
      y[i] = y[i] * Float(deviation[column]) + Float(mean[column])
    }
  }
}

extension ExampleSource {
  /// The targets column by column.
  package var columns: [[Float]] {
    let width = targetCount!
    var row = [Float](repeating: 0, count: width)
    var result = [[Float]](repeating: [], count: width)
    for index in 0..<count {
      row.withUnsafeMutableBufferPointer { readTarget(index, into: $0) }
      for column in 0..<width { result[column].append(row[column]) }
    }
    return result
  }
}

extension Network {
  /// Whether its outputs are numbers to predict, not classes.
  package var predictsNumbers: Bool { targetNormalization != nil }

  /// What is usual for targets: the deviation is 1 where the last layer has no activation.
  func usualNormalization(ofTargets set: some ExampleSource) -> TargetNormalization {
    stages.last!.operations.last!.activation.name == "none"
      ? .standard(of: set) : .none(outputs: classes)
  }

  /// The targets as they are learned; good until the next call.
  package func normalized(_ targets: Targets, _ examples: Int) -> Targets {
    guard let targetNormalization, case .values(let values) = targets else { return targets }
    targetNormalization.apply(examples, values, normalizedTargets.pointer)
    return .values(normalizedTargets.pointer)
  }

  package func checkTargetNormalization() throws {
    guard let count = targetNormalization?.mean.count, count != classes else { return }
    throw StrideNetError(
      .badData, "a normalisation of other targets than the network's outputs",
      found: "\(count)", expected: "\(classes)")
  }

  /// Makes room for the targets of so many examples.
  package func reserveTargets(_ examples: Int) throws {
    guard targetNormalization != nil, normalizedTargets.count < examples * classes else { return }
    normalizedTargets = try FloatStorage(count: examples * classes)
  }
}
