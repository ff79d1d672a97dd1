/// How a classifier did on labelled images.
public struct Metrics: Sendable {
  /// Categorical cross-entropy, natural logarithm, the mean over the images.
  public let cce: Float
  /// Images by label (row) and by what they were taken for (column).
  public let confusion: [[Int]]

  public init(cce: Float, confusion: [[Int]]) {
    self.cce = cce
    self.confusion = confusion
  }

  public var images: Int { confusion.reduce(0) { $0 + $1.reduce(0, +) } }
  private var right: Int { confusion.indices.reduce(0) { $0 + confusion[$1][$1] } }
  /// Share of the images that were taken for what they are.
  public var accuracy: Double { Double(right) / Double(images) }
  /// The class error: share of the others.
  public var ce: Double { Double(images - right) / Double(images) }

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
    confusion.indices.map { label in
      let (images, right) = (confusion[label].reduce(0, +), confusion[label][label])
      let taken = confusion.reduce(0) { $0 + $1[label] }
      func share(_ part: Int, _ whole: Int) -> Double? {
        whole > 0 ? Double(part) / Double(whole) : nil
      }
      return Class(
        images: images, precision: share(right, taken), recall: share(right, images),
        f1: share(2 * right, images + taken))
    }
  }
}

extension Network {
  /// Evaluates on a whole set, chunk by chunk, and counts what was taken for what.
  public func metrics(_ set: ImageSet) throws -> Metrics {
    try requireClassifier(for: set.shape)
    try set.checkLabels(classes: classes)
    let buffer = try BatchBuffer(capacity: Self.chunk, shape: set.shape)
    let outputs = try FloatStorage(count: set.count * classes)
    let (cce, _) = try evaluate(set.count, keep: outputs.pointer) {
      buffer.gather(set, $0, runtime)
    }
    var confusion = [[Int]](repeating: [Int](repeating: 0, count: classes), count: classes)
    for i in 0..<set.count {
      let row = UnsafeBufferPointer(start: outputs.pointer + i * classes, count: classes)
      // The first largest, as in training.
      let best = row.indices.max { row[$0] < row[$1] || (row[$0] == row[$1] && $0 > $1) }!
      confusion[Int(set.labels[i])][best] += 1
    }
    return Metrics(cce: cce, confusion: confusion)
  }
}
