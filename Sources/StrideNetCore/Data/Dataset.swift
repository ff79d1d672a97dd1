import Foundation

/// Labelled images to train with and others to test with.
public struct Dataset: Sendable {
  /// "sample", "mnist", "fashion-mnist" or the name of a folder.
  public let name: String
  /// Where it came from, for people.
  public let source: String
  public let train: ImageSet
  public let test: ImageSet

  /// Fails if the images of the two sets differ in size.
  public init(name: String, source: String, train: ImageSet, test: ImageSet) throws {
    guard train.hasImageSize(of: test) else {
      throw StrideNetError(
        .badData, "training and test images differ in size", at: source,
        found: "training \(train.imageText), test \(test.imageText)")
    }
    self.name = name
    self.source = source
    self.train = train
    self.test = test
  }

  /// All images, training and test together, shuffled by the seed: the first `share` of them for
  /// training, the others for the test.
  public func split(_ share: Double, seed: UInt64) throws -> Dataset {
    let total = train.count + test.count
    // Not a number fails the comparison too.
    let first = share > 0 && share < 1 ? Int((share * Double(total)).rounded()) : 0
    guard first > 0, first < total else {
      throw StrideNetError(
        .usage, "the split leaves nothing for training or nothing for the test",
        found: "\(share) of \(total) images", expected: "a number between 0 and 1, such as 0.8")
    }
    try train.probe(total)
    var generator = SeededGenerator(seed: seed)
    let order = generator.permutation(total)
    return try Dataset(
      name: name, source: "\(source), split \(first) : \(total - first) with seed \(seed)",
      train: .picking(order[..<first], from: [train, test]),
      test: .picking(order[first...], from: [train, test]))
  }

  /// The first n training images only; the test set stays whole.
  public func limited(to n: Int) throws -> Dataset {
    guard (1...train.count).contains(n) else {
      throw StrideNetError(
        .usage, "the data set can't be limited to this number of training images", at: source,
        found: "\(n)", expected: "1 to \(train.count)")
    }
    try train.probe(n)
    return try Dataset(
      name: name, source: "\(source), first \(n) training images", train: train.prefix(n),
      test: test)
  }

  /// The last training images are held out: they take the test set's place, which nothing sees
  /// then.
  /// - Parameter amount: their number, or below 1 their share
  public func holdingOut(_ amount: Double) throws -> Dataset {
    let n = Int(exactly: amount < 1 ? (amount * Double(train.count)).rounded() : amount) ?? 0
    guard n > 0, n < train.count else {
      throw StrideNetError(
        .usage, "these training images can't be held out", at: source, found: "\(amount)",
        expected: "a share of at least one image, such as 0.1, or 1 to \(train.count - 1)")
    }
    try train.probe(train.count)
    return try Dataset(
      name: name, source: "\(source), last \(n) training images held out",
      train: train.prefix(train.count - n), test: train.picking(train.count - n..<train.count))
  }

  /// Fails if a label isn't in 0..<classes.
  package func checkLabels(classes: Int) throws {
    try train.checkLabels(classes: classes, of: "\(source), training")
    try test.checkLabels(classes: classes, of: "\(source), test")
  }
}
