/// Where a trainer has its examples from: ``ImageSet`` (images as bytes), ``TensorSet`` (numbers in
/// memory), or a type of one's own that makes or reads them when they are needed.
public protocol ExampleSource: Sendable {
  var count: Int { get }
  /// The size of one example.
  var shape: Shape { get }
  /// How many values a target has; nil where it is a class.
  var targetCount: Int? { get }
  /// Writes the values of example number `index`, as many as ``shape`` has. Called on several threads
  /// at the same time.
  func read(_ index: Int, into input: UnsafeMutableBufferPointer<Float>)
  /// The class of example number `index`, from 0, where targets are classes.
  func label(_ index: Int) -> Int
  /// Writes the target of example number `index`, where it is no class.
  func readTarget(_ index: Int, into target: UnsafeMutableBufferPointer<Float>)
  /// Tells sources apart, so that a training goes on with the data that it began with; nil where
  /// nothing is quicker than to read all of it, which is what is done then.
  var identity: String? { get }
  /// The order of an epoch's examples, from 0, where the source has one of its own that it can read
  /// well; nil where they are to be shuffled as a whole.
  func order(epoch: Int, seed: UInt64) -> [Int]?
  /// What went wrong while it was read, which ends the training.
  var failure: (any Error)? { get }
}

extension ExampleSource {
  public var targetCount: Int? { nil }
  public var identity: String? { nil }
  public var failure: (any Error)? { nil }
  public func order(epoch: Int, seed: UInt64) -> [Int]? { nil }
  public func label(_ index: Int) -> Int { fatalError("\(Self.self) has no labels") }
  public func readTarget(_ index: Int, into target: UnsafeMutableBufferPointer<Float>) {
    fatalError("\(Self.self) has no targets")
  }

  /// - Throws: ``StrideNetError`` where targets aren't ones of a network with so many outputs
  func checkTargets(outputs: Int) throws {
    guard count > 0 else {
      throw StrideNetError(.badData, "no examples", expected: "at least one")
    }
    if let targetCount {
      guard targetCount == outputs else {
        throw StrideNetError(
          .badData, "targets that don't fit the network's outputs", found: "\(targetCount) values",
          expected: "\(outputs)")
      }
    } else if let index = (0..<count).first(where: { !(0..<outputs).contains(label($0)) }) {
      throw StrideNetError(
        .badData, "label out of range", at: "example \(index)", found: "\(label(index))",
        expected: "0 … \(outputs - 1), since the network has \(outputs) outputs")
    }
  }

  /// Examples as a mini-batch.
  package func examples(_ indices: some Collection<Int>) throws -> Batch {
    var images = try Tensor(zeros: indices.count, shape)
    func slot(_ n: Int, _ view: TensorView) -> UnsafeMutableBufferPointer<Float> {
      UnsafeMutableBufferPointer(start: view.example(n), count: view.shape.count)
    }
    images.withMutableView { x in
      for (n, index) in indices.enumerated() { read(index, into: slot(n, x)) }
    }
    guard let targetCount else { return Batch(images: images, labels: indices.map(label)) }
    var targets = try Tensor(zeros: indices.count, Shape(targetCount))
    targets.withMutableView { y in
      for (n, index) in indices.enumerated() { readTarget(index, into: slot(n, y)) }
    }
    return Batch(images: images, targets: targets)
  }
}

/// Examples in memory: any numbers, with classes or values as targets.
public struct TensorSet: ExampleSource {
  private let batch: Batch
  private let labels: [Int]

  public var count: Int { batch.images.batch }
  public var shape: Shape { batch.images.shape }
  public var targetCount: Int? { batch.targets?.shape.count }

  /// - Parameters:
  ///   - inputs: the examples
  ///   - labels: a class for each, from 0; any number of classes
  /// - Throws: ``StrideNetError`` where there are more or fewer labels than examples
  public init(_ inputs: Tensor, labels: [Int]) throws {
    (batch, self.labels) = (Batch(images: inputs, labels: labels), labels)
    try check(labels.count)
  }

  /// - Throws: ``StrideNetError`` where there are more or fewer targets than examples
  public init(_ inputs: Tensor, targets: Tensor) throws {
    (batch, labels) = (Batch(images: inputs, targets: targets), [])
    try check(targets.batch)
  }

  /// All of some mini-batches, one after the other.
  /// - Throws: ``StrideNetError`` where there are none, or they are of different kinds
  public init(_ batches: some Sequence<Batch>) throws {
    let all = Array(batches)
    let targets = all.compactMap(\.targets)
    guard let first = all.first, all.allSatisfy({ $0.images.shape == first.images.shape }),
      targets.isEmpty || targets.count == all.count,
      targets.allSatisfy({ $0.shape == first.targets?.shape })
    else {
      throw StrideNetError(
        .badData, all.isEmpty ? "no mini-batches" : "mini-batches of different kinds",
        found: all.map { "\($0.images.shape)" }.first { $0 != "\(all[0].images.shape)" },
        expected: "at least one, and all with the same size and targets")
    }
    func joined(_ tensors: [Tensor]) throws -> Tensor {
      try Tensor(
        batch: tensors.reduce(0) { $0 + $1.batch }, shape: tensors[0].shape,
        tensors.flatMap(\.values))
    }
    let images = try joined(all.map(\.images))
    if targets.isEmpty {
      try self.init(images, labels: all.flatMap { $0.labels.map(Int.init) })
    } else {
      try self.init(images, targets: joined(targets))
    }
  }

  private func check(_ targets: Int) throws {
    guard targets == count else {
      throw StrideNetError(
        .badData, "examples and targets differ in number", found: "\(targets) targets",
        expected: "\(count)")
    }
  }

  public func read(_ index: Int, into input: UnsafeMutableBufferPointer<Float>) {
    batch.images.copy(index, into: input)
  }
  public func label(_ index: Int) -> Int { labels[index] }
  public func readTarget(_ index: Int, into target: UnsafeMutableBufferPointer<Float>) {
    batch.targets!.copy(index, into: target)
  }
}

extension Tensor {
  func copy(_ example: Int, into target: UnsafeMutableBufferPointer<Float>) {
    withView { view in
      precondition((0..<batch).contains(example) && target.count == shape.count)
      target.baseAddress!.update(from: view.example(example), count: shape.count)
    }
  }
}
