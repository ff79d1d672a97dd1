import Foundation

/// Images of one size with their labels. A pixel is a byte; the layout is N×H×W×C.
public struct ImageSet: Sendable {
  /// How many images, and the size of each.
  public let count, height, width, channels: Int
  /// All images, one after the other.
  public let pixels: [UInt8]
  /// One label for each image, from 0; all 0 where there are ``targets``.
  public let labels: [UInt16]
  /// The numbers to predict of each image, N×K; nil where labels say classes.
  public let targets: Tensor?

  /// Bytes in one image.
  package var imageSize: Int { height * width * channels }

  /// - Parameter labels: one for each image, from 0, as any whole numbers
  /// - Throws: ``StrideNetError`` if there is no image, an image is empty, or the arrays don't fit the
  ///   sizes
  public init(
    count: Int, height: Int, width: Int, channels: Int, pixels: [UInt8],
    labels: some Collection<some BinaryInteger>
  ) throws {
    try Self.check(count, height, width, channels, pixels, labels.count, "labels")
    self.init(
      unchecked: count, height, width, channels, pixels,
      try labels.enumerated().map { index, label in
        guard let small = UInt16(exactly: label) else {
          throw StrideNetError(
            .badData, "a label that isn't one", at: "label \(index)", found: "\(label)",
            expected: "0 to \(UInt16.max)")
        }
        return small
      })
  }

  /// - Parameter targets: the numbers to predict of each image, N×K
  /// - Throws: ``StrideNetError`` if there is no image, an image is empty, the arrays don't fit the
  ///   sizes, or a target isn't a finite number
  public init(
    count: Int, height: Int, width: Int, channels: Int, pixels: [UInt8], targets: Tensor
  ) throws {
    try Self.check(count, height, width, channels, pixels, targets.batch, "targets")
    let columns = targets.shape.count
    guard columns > 0 else {
      throw StrideNetError(
        .badData, "no numbers to predict", found: "\(targets.shape)", expected: "one at least")
    }
    if let place = targets.values.firstIndex(where: { !$0.isFinite }) {
      throw StrideNetError(
        .badData, "a target that isn't a finite number",
        at: "image \(place / columns), target \(place % columns)",
        found: "\(targets.values[place])", expected: "a number for each")
    }
    self.init(
      unchecked: count, height, width, channels, pixels,
      [UInt16](repeating: 0, count: count), targets)
  }

  private static func check(
    _ count: Int, _ height: Int, _ width: Int, _ channels: Int, _ pixels: [UInt8],
    _ targets: Int, _ what: String
  ) throws {
    let sizes = "\(count)×\(height)×\(width)×\(channels)"
    guard let bytes = Shape.product([count, height, width, channels]), bytes > 0, count > 0 else {
      throw StrideNetError(.badData, "a set of images can't have this size", found: sizes)
    }
    guard pixels.count == bytes else {
      throw StrideNetError(
        .badData, "the pixels don't fit the size of the set", found: "\(pixels.count) bytes",
        expected: "\(bytes) bytes, for \(sizes)")
    }
    guard targets == count else {
      throw StrideNetError(
        .badData, "images and \(what) differ in number",
        found: "\(count) images, \(targets) \(what)",
        expected: "one \(what.dropLast()) for each image")
    }
  }

  private init(
    unchecked count: Int, _ height: Int, _ width: Int, _ channels: Int, _ pixels: [UInt8],
    _ labels: [UInt16], _ targets: Tensor? = nil
  ) {
    self.count = count
    self.height = height
    self.width = width
    self.channels = channels
    self.pixels = pixels
    self.labels = labels
    self.targets = targets
  }

  /// The first n images, or all if there are fewer.
  public func prefix(_ n: Int) -> ImageSet {
    n >= count ? self : Self.picking(0..<n, from: [self])
  }

  /// The images at the given places, in that order. A place may come twice.
  public func picking(_ indices: some Collection<Int>) -> ImageSet {
    Self.picking(indices, from: [self])
  }

  /// All images of sets with the same image size, in order.
  package static func joined(_ sets: [ImageSet]) throws -> ImageSet {
    guard let first = sets.first else {
      throw StrideNetError(.badData, "no sets of images to join")
    }
    for set in sets where !set.hasImageSize(of: first) {
      throw StrideNetError(
        .badData, "sets with images of different sizes can't be joined", found: set.imageText,
        expected: first.imageText)
    }
    try first.checkKind(of: sets)
    try first.probe(sets.reduce(0) { $0 + $1.count })
    return picking(0..<sets.reduce(0) { $0 + $1.count }, from: sets)
  }

  /// Picks as if the sets were one, without making that one first: the pixels are copied once.
  static func picking(_ indices: some Collection<Int>, from sets: [ImageSet]) -> ImageSet {
    let size = sets[0].imageSize
    func locate(_ index: Int) -> (set: Int, index: Int) {
      var index = index
      for (number, set) in sets.enumerated() {
        if index < set.count { return (number, index) }
        index -= set.count
      }
      preconditionFailure("no image \(index)")
    }
    let pixels = [UInt8](unsafeUninitializedCapacity: indices.count * size) { target, done in
      for index in indices {
        let (set, index) = locate(index)
        sets[set].pixels.withUnsafeBufferPointer {
          _ = UnsafeMutableBufferPointer(rebasing: target[done...])
            .update(fromContentsOf: $0[index * size..<(index + 1) * size])
        }
        done += size
      }
    }
    let labels = indices.map { index in
      let (set, index) = locate(index)
      return sets[set].labels[index]
    }
    let targets =
      sets[0].targets == nil
      ? nil
      : Self.targets(
        indices.map { index in
          let (set, index) = locate(index)
          return (sets[set], index)
        })
    return ImageSet(
      unchecked: indices.count, sets[0].height, sets[0].width, sets[0].channels, pixels, labels,
      targets)
  }

  func relabelled(_ label: (Int) -> Int) -> ImageSet {
    ImageSet(
      unchecked: count, height, width, channels, pixels, labels.map { UInt16(label(Int($0))) })
  }

  /// The numbers to predict of some images, of sets that have such.
  private static func targets(_ images: [(set: ImageSet, index: Int)]) -> Tensor? {
    guard let shape = images.first?.set.targets?.shape else { return nil }
    var targets = Tensor(batch: images.count, shape: shape)
    targets.withMutableView { view in
      for (slot, image) in images.enumerated() {
        image.set.readTarget(
          image.index, into: .init(start: view.example(slot), count: shape.count))
      }
    }
    return targets
  }

  /// The same images with numbers to predict.
  package func with(_ targets: Tensor) throws -> ImageSet {
    try ImageSet(
      count: count, height: height, width: width, channels: channels, pixels: pixels,
      targets: targets)
  }

  /// - Throws: ``StrideNetError`` where some sets have other targets than this one
  func checkKind(of sets: [ImageSet], at source: String? = nil) throws {
    func text(_ set: ImageSet) -> String {
      set.targetCount.map { "\($0) number\($0 == 1 ? "" : "s") an image" } ?? "classes"
    }
    guard let other = sets.first(where: { $0.targetCount != targetCount }) else { return }
    throw StrideNetError(
      .badData, "sets with targets of different kinds", at: source, found: text(other),
      expected: text(self))
  }

  /// How much each class counts where all are to count alike: images / (classes · its images), as
  /// scikit-learn's "balanced"; 1 for classes without images.
  public func balancedClassWeights(classes: Int) -> [Float] { labels.balancedWeights(classes) }

  /// So many places, spread evenly.
  package static func evenly(_ n: Int, of count: Int) -> [Int] {
    (0..<n).map { ($0 + 1) * count / n - 1 }
  }

  /// - Throws: ``StrideNetError`` where there is no memory for so many images more
  func probe(_ count: Int) throws {
    try MemoryNeed.probe(bytes: count * imageSize, for: "\(count) images of \(imageText)")
  }

  func hasImageSize(of other: ImageSet) -> Bool {
    (height, width, channels) == (other.height, other.width, other.channels)
  }

  var imageText: String { "\(height)×\(width)×\(channels)" }
}

extension [UInt16] {
  /// Whether images of a class stand side by side, as they come from folders: the first ones are then
  /// of one class.
  package var isSortedByClass: Bool {
    let steps = zip(self, dropFirst()).filter { $0 != $1 }
    return !steps.isEmpty && steps.allSatisfy { $0 < $1 } && 2 * (steps.count + 1) <= count
  }

  /// The places of each class, in an order that the seed decides.
  private func shuffledClasses(_ seed: UInt64) -> [[Int]] {
    // Apart from the streams of weights and epochs.
    var random = SeededGenerator(seed: seed, stream: 1 << 40)
    return Dictionary(grouping: indices) { self[$0] }.sorted { $0.key < $1.key }
      .map { _, places in
        var places = places
        random.shuffle(&places)
        return places
      }
  }

  /// So many places, of each class as many as its share comes to, rounded so that the sum is right; a
  /// class isn't taken as a whole where that can be helped.
  package func stratified(_ n: Int, seed: UInt64) -> [Int] {
    let classes = shuffledClasses(seed)
    var counts = classes.map { $0.count * n / count }
    func add(_ limit: (Int) -> Int) {
      // The largest remainders first; of equal ones the first classes.
      let order = classes.indices.sorted {
        (classes[$1].count * n % count, $0) < (classes[$0].count * n % count, $1)
      }
      while counts.reduce(0, +) < n {
        let open = order.filter { counts[$0] < limit(classes[$0].count) }
        if open.isEmpty { return }
        for index in open.prefix(n - counts.reduce(0, +)) { counts[index] += 1 }
      }
    }
    add { $0 - 1 }
    add { $0 }
    return zip(classes, counts).flatMap { $0.prefix($1) }.sorted()
  }

  /// The places in so many parts, dealt out class after class.
  package func folds(_ parts: Int, seed: UInt64) -> [[Int]] {
    var result = [[Int]](repeating: [], count: parts)
    for (turn, place) in shuffledClasses(seed).joined().enumerated() {
      result[turn % parts].append(place)
    }
    return result.map { $0.sorted() }
  }

  /// See ``ImageSet/balancedClassWeights(classes:)``.
  package func balancedWeights(_ classes: Int) -> [Float] {
    var counts = [Int](repeating: 0, count: classes)
    for label in self where label < classes { counts[Int(label)] += 1 }
    let present = counts.count { $0 > 0 }
    return counts.map { $0 > 0 ? Float(Double(count) / Double(present * $0)) : 1 }
  }
}

extension ImageSet {
  /// The size of each image.
  public var shape: Shape { Shape(height, width, channels) }

  /// Writes one image's bytes as floats in 0…1.
  func scale(_ index: Int, into target: UnsafeMutablePointer<Float>) {
    precondition(index >= 0 && index < count, "no image \(index) among \(count)")
    pixels.withUnsafeBufferPointer {
      Kernels.scaleBytes(imageSize, $0.baseAddress! + index * imageSize, scale: 1 / 255, target)
    }
  }

  /// Images scaled to 0…1, with their labels or targets.
  public func batch(_ indices: some Collection<Int>) -> Batch {
    var images = Tensor(batch: indices.count, shape: shape)
    images.withMutableView { x in
      for (slot, index) in indices.enumerated() { scale(index, into: x.example(slot)) }
    }
    if targets == nil {
      return Batch(images: images, labels: indices.map { Int32(labels[$0]) })
    }
    return Batch(images: images, targets: Self.targets(indices.map { (self, $0) })!)
  }
}

extension ImageSet: ExampleSource {
  public func read(_ index: Int, into input: UnsafeMutableBufferPointer<Float>) {
    scale(index, into: input.baseAddress!)
  }
  public func label(_ index: Int) -> Int { Int(labels[index]) }
  public var targetCount: Int? { targets?.shape.count }
  public func readTarget(_ index: Int, into target: UnsafeMutableBufferPointer<Float>) {
    targets!.copy(index, into: target)
  }
}

extension ImageSet {
  /// Fails if a label isn't in 0..<classes.
  package func checkLabels(classes: Int, of source: String = "the images") throws {
    guard let index = labels.firstIndex(where: { Int($0) >= classes }) else { return }
    throw StrideNetError(
      .badData, "a label is outside the classes of the network", at: "\(source) label \(index)",
      found: "label \(labels[index])", expected: "0 to \(classes - 1)",
      hint: "the last layer needs \(Int(labels.max()!) + 1) outputs or more")
  }
}

extension UInt8 {
  /// The nearest value of a pixel; 255 for what isn't a number.
  package init(pixel value: Float) { self = UInt8(Swift.max(0, Swift.min(255, value.rounded()))) }
}
