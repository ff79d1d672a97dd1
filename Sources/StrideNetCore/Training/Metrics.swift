/// How a classifier did on labelled images.
public struct Metrics: Sendable {
  /// Categorical cross-entropy, natural logarithm, the mean over the images.
  public let cce: Float
  private let classCount: Int
  /// Images by label and by what they were taken for. Not a table: there may be many classes.
  private let counts: [Pair: Int]
  /// Images by how many outputs came before their label's; empty where that wasn't counted.
  private let ranks: [Int]

  struct Pair: Hashable {
    let label, guess: Int
  }

  init(cce: Float, classes: Int, counts: [Pair: Int], ranks: [Int] = []) {
    (self.cce, classCount, self.counts, self.ranks) = (cce, classes, counts, ranks)
  }

  /// - Parameters:
  ///   - cce: the mean loss
  ///   - confusion: as in ``confusion``
  package init(cce: Float, confusion: [[Int]]) {
    var counts: [Pair: Int] = [:]
    for (label, row) in confusion.enumerated() {
      for (guess, count) in row.enumerated() where count != 0 {
        counts[Pair(label: label, guess: guess)] = count
      }
    }
    self.init(cce: cce, classes: confusion.count, counts: counts)
  }

  static var valuesAsTargets: StrideNetError {
    StrideNetError(.badData, "values as targets", expected: "classes, which can be counted")
  }

  /// Images by label (row) and by what they were taken for (column).
  public var confusion: [[Int]] {
    var rows = [[Int]](repeating: [Int](repeating: 0, count: classCount), count: classCount)
    for (pair, count) in counts { rows[pair.label][pair.guess] = count }
    return rows
  }

  /// The same without what never happened: label, guess, images, and so on, in this order.
  package var confusionPairs: [Int32] {
    counts.sorted { ($0.key.label, $0.key.guess) < ($1.key.label, $1.key.guess) }.flatMap {
      [Int32($0.key.label), Int32($0.key.guess), Int32($0.value)]
    }
  }

  public var images: Int { counts.values.reduce(0, +) }
  private var right: Int { counts.reduce(0) { $0 + ($1.key.label == $1.key.guess ? $1.value : 0) } }
  /// Share of the images that were taken for what they are.
  public var accuracy: Double { Double(right) / Double(images) }
  /// The class error: share of the others.
  public var ce: Double { Double(images - right) / Double(images) }

  /// Top-k accuracy: share of the images whose label is among their k largest outputs; of equal ones
  /// the first come first. Nil where outputs weren't counted.
  public func topAccuracy(_ k: Int) -> Double? {
    ranks.isEmpty ? nil : Double(ranks.prefix(max(0, k)).reduce(0, +)) / Double(images)
  }

  /// What one class came to; nil where nothing was divided by.
  public struct Class: Sendable, Encodable {
    /// Images of the class.
    public let images: Int
    /// Of what was taken for the class, the share that is of it.
    public let precision: Double?
    /// Of the class, the share that was taken for it.
    public let recall: Double?
    /// Harmonic mean of both.
    public let f1: Double?
  }

  public var classes: [Class] {
    var images = [Int](repeating: 0, count: classCount)
    var taken = images
    for (pair, count) in counts {
      images[pair.label] += count
      taken[pair.guess] += count
    }
    func share(_ part: Int, _ whole: Int) -> Double? {
      whole > 0 ? Double(part) / Double(whole) : nil
    }
    return (0..<classCount).map { label in
      let right = counts[Pair(label: label, guess: label)] ?? 0
      return Class(
        images: images[label], precision: share(right, taken[label]),
        recall: share(right, images[label]), f1: share(2 * right, images[label] + taken[label]))
    }
  }
}

extension Network {
  /// Evaluates on a whole set with classes as targets, chunk by chunk, and counts what was taken for
  /// what.
  public func metrics(_ set: any ExampleSource) throws -> Metrics {
    guard set.targetCount == nil else { throw Metrics.valuesAsTargets }
    let buffer = try prepare(set)
    let outputs = try FloatStorage(count: set.count * classes)
    let (cce, _) = try evaluate(set.count, keep: outputs.pointer) {
      buffer.gather(set, $0, runtime)
    }
    var counts: [Metrics.Pair: Int] = [:]
    var ranks = [Int](repeating: 0, count: classes + 1)
    for i in 0..<set.count {
      count(outputs.pointer + i * classes, set.label(i), in: &counts, &ranks)
    }
    return Metrics(cce: cce, classes: classes, counts: counts, ranks: ranks)
  }

  /// The same of mini-batches one after the other.
  public func metrics(_ batches: some Sequence<Batch>) throws -> Metrics {
    var (sum, images, counts) = (0.0, 0, [Metrics.Pair: Int]())
    var ranks: [Int] = []
    for batch in batches {
      let (output, cce, _) = try evaluate(batch.images, batch.labels)
      sum += Double(cce) * Double(output.batch)
      images += output.batch
      if ranks.isEmpty { ranks = [Int](repeating: 0, count: classes + 1) }
      output.withView { output in
        for (i, label) in batch.labels.enumerated() {
          count(output.example(i), Int(label), in: &counts, &ranks)
        }
      }
    }
    return Metrics(
      cce: Float(sum / Double(images)), classes: classes, counts: counts, ranks: ranks)
  }

  func count(
    _ output: UnsafePointer<Float>, _ label: Int, in counts: inout [Metrics.Pair: Int],
    _ ranks: inout [Int]
  ) {
    let row = UnsafeBufferPointer(start: output, count: classes)
    // The first largest, as in training.
    let best = row.indices.max { row[$0] < row[$1] || (row[$0] == row[$1] && $0 > $1) }!
    counts[Metrics.Pair(label: label, guess: best), default: 0] += 1
    let before = row.indices.count {
      row[$0] > row[label] || row[$0] == row[label] && $0 < label
    }
    // What is no number comes behind all that are.
    ranks[row[label].isNaN ? classes : before] += 1
  }
}
