import Foundation

/// Labelled images to train with and others to test with.
public struct Dataset: Sendable {
  /// "sample", "mnist", "fashion-mnist" or the name of a folder.
  public let name: String
  /// Where it came from, for people.
  public let source: String
  public let train: ImageSet
  public let test: ImageSet
  /// Images that come with the data to choose by, if any do: these are then evaluated while the
  /// network trains, and the test set once, at the end.
  public let validation: ImageSet?
  /// What the classes are called, from label 0; empty where nothing is known of them.
  public let classNames: [String]
  /// How its pictures were fitted into images of one size, if they were pictures.
  package var fit: Picture.Fit?
  /// What was found and couldn't be used.
  package var skipped: [Skipped] = []
  /// Of pictures, the files of `train`, `test` and `validation`, and how many there are of each size.
  package var pictureFiles: [[String]] = []
  package var sizes: [String: Int] = [:]

  /// A file that was passed over, and why.
  package struct Skipped: Sendable, Encodable, Hashable {
    package let file, why: String
    package init(file: String, why: String) { (self.file, self.why) = (file, why) }
  }

  /// Fails if the images of the sets differ in size.
  public init(
    name: String, source: String, train: ImageSet, test: ImageSet, validation: ImageSet? = nil,
    classNames: [String] = []
  ) throws {
    for (other, what) in [(test, "test"), (validation ?? test, "validation")] {
      guard train.hasImageSize(of: other) else {
        throw StrideNetError(
          .badData, "training and \(what) images differ in size", at: source,
          found: "training \(train.imageText), \(what) \(other.imageText)")
      }
    }
    self.name = name
    self.source = source
    self.train = train
    self.test = test
    self.validation = validation
    self.classNames = classNames
  }

  /// The same classes with other images.
  private func with(
    _ change: String, train: ImageSet, test: ImageSet, validation: ImageSet? = nil
  ) throws -> Dataset {
    var result = try Dataset(
      name: name, source: "\(source), \(change)", train: train, test: test,
      validation: validation, classNames: classNames)
    (result.fit, result.skipped) = (fit, skipped)
    return result
  }

  /// All images, training and test together, shuffled by the seed: the first `share` of them for
  /// training, the others for the test.
  public func split(_ share: Double, seed: UInt64) throws -> Dataset {
    let sets = [train, test] + (validation.map { [$0] } ?? [])
    let total = sets.reduce(0) { $0 + $1.count }
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
    return try with(
      "split \(first) : \(total - first) with seed \(seed)",
      train: .picking(order[..<first], from: sets), test: .picking(order[first...], from: sets))
  }

  /// The first n training images only; the test set stays whole.
  public func limited(to n: Int) throws -> Dataset {
    guard (1...train.count).contains(n) else {
      throw StrideNetError(
        .usage, "the data set can't be limited to this number of training images", at: source,
        found: "\(n)", expected: "1 to \(train.count)")
    }
    try train.probe(n)
    let chosen = train.isSortedByClass ? train.evenly(n) : Array(0..<n)
    return try with(
      "\(train.isSortedByClass ? "" : "first ")\(n) training images", train: train.picking(chosen),
      test: test, validation: validation)
  }

  /// The last training images are held out, or of a set that is sorted by class some of all of it:
  /// they take the test set's place, which nothing sees then.
  /// - Parameter amount: their number, or below 1 their share
  public func holdingOut(_ amount: Double) throws -> Dataset {
    let n = Int(exactly: amount < 1 ? (amount * Double(train.count)).rounded() : amount) ?? 0
    guard n > 0, n < train.count else {
      throw StrideNetError(
        .usage, "these training images can't be held out", at: source, found: "\(amount)",
        expected: "a share of at least one image, such as 0.1, or 1 to \(train.count - 1)")
    }
    try train.probe(train.count)
    let isSorted = train.isSortedByClass
    let out = isSorted ? train.evenly(n) : Array(train.count - n..<train.count)
    let kept = Set(out)
    return try with(
      isSorted
        ? "\(n) training images of all classes held out" : "last \(n) training images held out",
      train: train.picking((0..<train.count).filter { !kept.contains($0) }),
      test: train.picking(out))
  }

  /// The images that come to choose by take the test set's place, which nothing sees then.
  package func choosingByValidation() throws -> Dataset {
    try validation.map {
      try with("\($0.count) images of its own to validate", train: train, test: $0)
    } ?? self
  }

  /// Fails if a label isn't in 0..<classes, or if the classes have names and are fewer.
  package func checkLabels(classes: Int) throws {
    // Of labels without names the first that is none of the network's tells more.
    let isOutside = isNumbered && classNames.count > classes
    guard classNames.isEmpty || classNames.count == classes || isOutside else {
      let more = classNames.count < classes ? "more" : "fewer"
      throw StrideNetError(
        .badData, "a network with \(more) outputs than the data has classes", at: source,
        found: "\(classes) outputs", expected: "\(classNames.count), for \(Self.list(classNames))",
        hint: "end the network in softmax(\(classNames.count))")
    }
    try train.checkLabels(classes: classes, of: "\(source), training")
    try test.checkLabels(classes: classes, of: "\(source), test")
  }

  /// Whether the classes are called by their labels.
  package var isNumbered: Bool { classNames == classNames.indices.map(String.init) }

  /// The same images with the labels that a network has for their classes' names. Numbers are labels
  /// already, of which there may be fewer than the network has outputs.
  /// - Throws: ``StrideNetError`` where there are others
  package func labelled(for network: Network) throws -> Dataset {
    let (names, outputs) = (network.classNames, network.classes)
    if isNumbered {
      let all = names.count == outputs ? names : (0..<outputs).map(String.init)
      return classNames.count < outputs ? try named(all) { $0 } : self
    }
    if names.isEmpty { try checkLabels(classes: outputs) }
    if names.isEmpty || classNames == names { return self }
    let places = Dictionary(names.enumerated().map { ($1, $0) }) { first, _ in first }
    let map = classNames.map { places[$0] }
    if let unknown = zip(classNames, map).first(where: { $1 == nil })?.0 {
      throw StrideNetError(
        .badData, "a class that the network doesn't know", at: source, found: unknown,
        expected: Self.list(names), hint: "train a network on this data, or take the class away")
    }
    return try named(names) { map[$0]! }
  }

  private func named(_ names: [String], _ label: (Int) -> Int) throws -> Dataset {
    var result = try Dataset(
      name: name, source: source, train: train.relabelled(label), test: test.relabelled(label),
      validation: validation?.relabelled(label), classNames: names)
    (result.fit, result.skipped, result.sizes) = (fit, skipped, sizes)
    result.pictureFiles = pictureFiles
    return result
  }

  /// The first few of many names.
  package static func list(_ names: [String]) -> String {
    names.prefix(12).joined(separator: ", ") + (names.count > 12 ? " …" : "")
  }
}
