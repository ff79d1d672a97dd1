import Foundation

/// Images to train with and others to test with, with labels or with numbers to predict.
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
  /// What the classes are called, from label 0, or the numbers to predict; empty where nothing is
  /// known of them.
  public let classNames: [String]
  /// How its pictures were fitted into images of one size, if they were pictures.
  package var fit: Picture.Fit?
  /// What was found and couldn't be used.
  package var skipped: [Skipped] = []
  /// What else is to be said of the reading.
  package var notes: [String] = []
  /// Of pictures, the files of `train`, `test` and `validation`, and how many there are of each size.
  package var pictureFiles: [[String]] = []
  package var sizes: [String: Int] = [:]

  /// A file that was passed over, and why.
  package struct Skipped: Sendable, Encodable, Hashable {
    package let file, why: String
    package init(file: String, why: String) { (self.file, self.why) = (file, why) }
  }

  /// Whether its images have numbers to predict, not labels.
  public var hasTargets: Bool { train.targets != nil }

  /// Fails if the images of the sets differ in size or the kind of their targets, or numbers to predict
  /// aren't as many as have names, if they have any.
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
    try train.checkKind(of: [test] + (validation.map { [$0] } ?? []), at: source)
    if let count = train.targetCount, !classNames.isEmpty, classNames.count != count {
      throw StrideNetError(
        .badData, "names of other numbers than there are to predict", at: source,
        found: Self.list(classNames), expected: "\(count)")
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
    (result.fit, result.skipped, result.notes) = (fit, skipped, notes)
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
    let (places, change) = try Self.limit(n, train.labels, at: source)
    try train.probe(n)
    return try with(change, train: train.picking(places), test: test, validation: validation)
  }

  /// The places of the first n training images, or of a set that is sorted by class n of all of it.
  package static func limit(_ n: Int, _ labels: [UInt16], at source: String) throws -> (
    places: [Int], change: String
  ) {
    guard (1...labels.count).contains(n) else {
      throw StrideNetError(
        .usage, "the data set can't be limited to this number of training images", at: source,
        found: "\(n)", expected: "1 to \(labels.count)")
    }
    let isSorted = labels.isSortedByClass
    return (
      isSorted ? ImageSet.evenly(n, of: labels.count) : Array(0..<n),
      "\(isSorted ? "" : "first ")\(n) training image\(n == 1 ? "" : "s")"
    )
  }

  /// Some training images are held out, of each class its share as nearly as whole images go, of images
  /// with numbers to predict any: they take the test set's place, which nothing sees then.
  /// - Parameters:
  ///   - amount: their number, or below 1 their share
  ///   - seed: decides which
  public func holdingOut(_ amount: Double, seed: UInt64 = 1) throws -> Dataset {
    let (places, change) = try Self.heldOut(amount, train.labels, seed, at: source)
    return try holdingOut(places, change)
  }

  /// The places of training images that are held out.
  /// - Parameter amount: a number of images, or below 1 a share of them
  package static func heldOut(
    _ amount: Double, _ labels: [UInt16], _ seed: UInt64, at source: String
  ) throws -> (places: [Int], change: String) {
    let count = labels.count
    let n = Int(exactly: amount < 1 ? (amount * Double(count)).rounded() : amount) ?? 0
    guard n > 0, n < count else {
      throw StrideNetError(
        .usage, "these training images can't be held out", at: source, found: "\(amount)",
        expected: count < 2
          ? "more than 1 training image"
          : "a share of at least one image, such as 0.1, or 1 to \(count - 1)")
    }
    return (
      labels.stratified(n, seed: seed),
      "\(n) training image\(n == 1 ? "" : "s")\(labels.contains { $0 > 0 } ? " of all classes" : "") held out"
    )
  }

  /// The training images at some places take the test set's place.
  private func holdingOut(_ places: [Int], _ change: String) throws -> Dataset {
    try train.probe(train.count)
    let out = Set(places)
    return try with(
      change, train: train.picking((0..<train.count).filter { !out.contains($0) }),
      test: train.picking(places))
  }

  /// The training images in so many parts, each of which is held out once as ``holdingOut(_:seed:)``
  /// does, while the others train: each class is in each part as often as in any other, give or take
  /// one image; of images with numbers to predict, chance decides.
  /// - Throws: ``StrideNetError`` where there are fewer images than parts, or fewer parts than two
  public func folds(_ count: Int, seed: UInt64 = 1) throws -> [Dataset] {
    guard count >= 2, count <= train.count else {
      throw StrideNetError(
        .usage, "no such number of folds", at: source, found: "\(count)",
        expected: train.count < 2
          ? "more than 1 training image" : "2 to \(train.count), the number of training images")
    }
    return try train.labels.folds(count, seed: seed).enumerated().map { index, places in
      try holdingOut(places, "fold \(index + 1) of \(count) held out")
    }
  }

  /// The images that come to choose by take the test set's place, which nothing sees then.
  package func choosingByValidation() throws -> Dataset {
    try validation.map {
      try with("\($0.count) images of its own to validate", train: train, test: $0)
    } ?? self
  }

  /// Fails if a label isn't in 0..<classes, or if the classes have names and are fewer; of numbers to
  /// predict, if they are more or fewer.
  package func checkLabels(classes: Int) throws {
    if let count = train.targetCount {
      if count == classes { return }
      throw StrideNetError(
        .badData,
        "a network with \(count < classes ? "more" : "fewer") outputs than there are numbers to predict",
        at: source, found: "\(classes) outputs",
        expected: "\(count)\(classNames.isEmpty ? "" : ", for \(Self.list(classNames))")",
        hint: "end the network in dense(\(count))")
    }
    // Of labels without names the first that is none of the network's tells more.
    let isOutside = isNumbered && classNames.count > classes
    if !isOutside { try Self.checkNames(classNames, outputs: classes, at: source) }
    try train.checkLabels(classes: classes, of: "\(source), training")
    try test.checkLabels(classes: classes, of: "\(source), test")
  }

  /// - Throws: ``StrideNetError`` if a network has other outputs than there are names, if there are any
  package static func checkNames(_ names: [String], outputs: Int, at source: String) throws {
    if names.isEmpty || names.count == outputs { return }
    let more = names.count < outputs ? "more" : "fewer"
    throw StrideNetError(
      .badData, "a network with \(more) outputs than the data has classes", at: source,
      found: "\(outputs) outputs", expected: "\(names.count), for \(list(names))",
      hint: "end the network in softmax(\(names.count))")
  }

  /// Whether the classes are called by their labels.
  package var isNumbered: Bool { classNames == classNames.indices.map(String.init) }

  /// The same images with the labels that a network has for their classes' names. Numbers are labels
  /// already, of which there may be fewer than the network has outputs.
  /// - Throws: ``StrideNetError`` where there are others, or the network doesn't predict the numbers
  package func labelled(for network: Network) throws -> Dataset {
    guard hasTargets ? !network.endsInSoftmax : !network.predictsNumbers else {
      throw StrideNetError(
        .badData,
        hasTargets
          ? "a network that tells classes apart, and numbers to predict"
          : "a network that predicts numbers, and classes", at: source,
        found: Self.list(classNames), expected: Self.list(network.classNames),
        hint: hasTargets ? nil : "say with --targets where the numbers are")
    }
    if hasTargets {
      try checkLabels(classes: network.classes)
      guard network.classNames.isEmpty || classNames == network.classNames else {
        throw StrideNetError(
          .badData, "other numbers than those that the network predicts", at: source,
          found: Self.list(classNames), expected: Self.list(network.classNames))
      }
      return self
    }
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
    (result.pictureFiles, result.notes) = (pictureFiles, notes)
    return result
  }

  /// The first few of many names, and how many there are then.
  package static func list(_ names: [String]) -> String {
    names.prefix(12).joined(separator: ", ")
      + (names.count > 12 ? " … (\(names.count) in all)" : "")
  }
}
