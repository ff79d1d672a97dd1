import Foundation

/// The size of one example: height × width × channels. A flat vector of n values is 1 × 1 × n.
public struct Shape: Hashable, Sendable, CustomStringConvertible {
  public var height, width, channels: Int

  public init(_ height: Int, _ width: Int, _ channels: Int) {
    self.height = height
    self.width = width
    self.channels = channels
  }

  /// A flat vector.
  public init(_ count: Int) { self.init(1, 1, count) }

  /// Values in one example.
  public var count: Int { height * width * channels }

  public var description: String {
    height == 1 && width == 1 ? "\(channels)" : "\(height)×\(width)×\(channels)"
  }
}

extension Shape {
  /// The product of sizes plus a number, or nil if it overflows or a size is below 0.
  package static func product(_ factors: [Int], plus: Int = 0) -> Int? {
    var result = 1
    for factor in factors {
      let (next, overflow) = result.multipliedReportingOverflow(by: factor)
      if overflow || factor < 0 { return nil }
      result = next
    }
    let (sum, overflow) = result.addingReportingOverflow(plus)
    return overflow ? nil : sum
  }
}

/// A window on floats that somebody else owns, good for the duration of a call: what layers read
/// and write. Layout NHWC: the channels of a pixel lie side by side.
public struct TensorView: @unchecked Sendable {
  // Sendable because the pieces of a batch that threads work on don't overlap.
  public let pointer: UnsafeMutablePointer<Float>
  /// Number of examples.
  public let batch: Int
  /// Size of each example.
  public let shape: Shape

  package init(_ pointer: UnsafeMutablePointer<Float>, batch: Int, shape: Shape) {
    self.pointer = pointer
    self.batch = batch
    self.shape = shape
  }

  /// Values in all examples.
  public var count: Int { batch * shape.count }

  public subscript(_ index: Int) -> Float {
    get { pointer[checked(index)] }
    nonmutating set { pointer[checked(index)] = newValue }
  }

  /// The value of example `n` at row `y`, column `x`, channel `c`.
  public subscript(_ n: Int, _ y: Int, _ x: Int, _ c: Int) -> Float {
    get { pointer[checked(n, y, x, c)] }
    nonmutating set { pointer[checked(n, y, x, c)] = newValue }
  }

  private func checked(_ index: Int) -> Int {
    guard index >= 0 && index < count else {
      fatalError("value \(index) of \(count), \(batch) × \(shape)")
    }
    return index
  }

  private func checked(_ n: Int, _ y: Int, _ x: Int, _ c: Int) -> Int {
    guard
      n >= 0 && n < batch && y >= 0 && y < shape.height && x >= 0 && x < shape.width && c >= 0
        && c < shape.channels
    else { fatalError("value [\(n), \(y), \(x), \(c)] of \(batch) × \(shape)") }
    return ((n * shape.height + y) * shape.width + x) * shape.channels + c
  }

  /// The first value of example `n`.
  package func example(_ n: Int) -> UnsafeMutablePointer<Float> { pointer + n * shape.count }

  /// Some of the examples.
  package func examples(_ range: Range<Int>) -> TensorView {
    TensorView(example(range.lowerBound), batch: range.count, shape: shape)
  }
}

/// 64-byte aligned memory for floats, zero at first.
package final class FloatStorage: @unchecked Sendable {
  // Sendable because it is only written while uniquely referenced.
  package let pointer: UnsafeMutablePointer<Float>
  package let count: Int

  /// - Throws: ``StrideNetError`` where there isn't so much memory
  package init(count: Int) throws {
    precondition(count >= 0)
    var need = MemoryNeed()
    need.add(count, for: "an array of \(count) numbers")
    try need.require()
    var raw: UnsafeMutableRawPointer?
    let (bytes, overflow) = max(count, 1).multipliedReportingOverflow(by: 4)
    guard !overflow, posix_memalign(&raw, 64, bytes) == 0, let raw else {
      throw StrideNetError(
        .badData, "more memory needed than the system gives",
        found: "\(MemoryNeed.text(Double(max(count, 1)) * 4)) asked for",
        hint: "smaller mini-batches (--batch-size), fewer filters, or smaller images")
    }
    memset(raw, 0, bytes)
    pointer = raw.bindMemory(to: Float.self, capacity: max(count, 1))
    self.count = count
  }

  /// No floats.
  static let empty = try! FloatStorage(count: 0)

  convenience init(_ values: [Float]) throws {
    try self.init(count: values.count)
    pointer.update(from: values, count: values.count)
  }

  package func copy() throws -> FloatStorage {
    let new = try FloatStorage(count: count)
    new.pointer.update(from: pointer, count: count)
    return new
  }

  /// The same where nobody can be told: without memory, the program ends with that error.
  static func sure(_ make: () throws -> FloatStorage) -> FloatStorage {
    do {
      return try make()
    } catch {
      fatalError("\(error)")
    }
  }
  package static func sure(count: Int) -> FloatStorage { sure { try FloatStorage(count: count) } }

  /// `count` floats from number `start` on. Debug builds check that they are inside.
  func at(_ start: Int, count: Int) -> UnsafeMutablePointer<Float> {
    assert(
      start >= 0 && count >= 0 && start + count <= self.count,
      "floats \(start) to \(start + count) of memory for \(self.count)")
    return pointer + start
  }

  deinit { free(pointer) }
}

/// Values with a batch size and a shape: images going in, probabilities coming out. A value type:
/// copies share memory until one of them is written to.
public struct Tensor: Sendable {
  public let batch: Int
  public let shape: Shape
  private var storage: FloatStorage

  /// Zeros.
  public init(batch: Int, shape: Shape) {
    self.init(batch, shape, .sure(count: Self.count(batch, shape)))
  }

  /// The same.
  /// - Throws: ``StrideNetError`` where there isn't so much memory
  package init(zeros batch: Int, _ shape: Shape) throws {
    self.init(batch, shape, try FloatStorage(count: Self.count(batch, shape)))
  }

  private init(_ batch: Int, _ shape: Shape, _ storage: FloatStorage) {
    (self.batch, self.shape, self.storage) = (batch, shape, storage)
  }

  private static func count(_ batch: Int, _ shape: Shape) -> Int {
    guard let count = Shape.product([batch, shape.height, shape.width, shape.channels]) else {
      fatalError("a tensor of \(batch) × \(shape)")
    }
    return count
  }

  /// `values` in NHWC order, `batch` · `shape.count` of them.
  /// - Throws: ``StrideNetError`` where there is another number of them
  public init(batch: Int, shape: Shape, _ values: [Float]) throws {
    guard batch >= 0,
      values.count == Shape.product([batch, shape.height, shape.width, shape.channels])
    else {
      throw StrideNetError(
        .badData, "another number of values than the tensor has", found: "\(values.count)",
        expected: "\(batch) × \(shape)")
    }
    try self.init(zeros: batch, shape)
    storage.pointer.update(from: values, count: values.count)
  }

  public var count: Int { batch * shape.count }

  /// All values in NHWC order.
  public var values: [Float] { Array(UnsafeBufferPointer(start: storage.pointer, count: count)) }

  /// The value of example `n` at row `y`, column `x`, channel `c`.
  public subscript(_ n: Int, _ y: Int, _ x: Int, _ c: Int) -> Float {
    get { view[n, y, x, c] }
    set { withMutableView { $0[n, y, x, c] = newValue } }
  }

  /// The `index`-th value in NHWC order.
  public subscript(_ index: Int) -> Float {
    get { view[index] }
    set { withMutableView { $0[index] = newValue } }
  }

  /// The same values in memory of their own.
  package func copy() -> Tensor {
    var copy = self
    copy.storage = .sure(storage.copy)
    return copy
  }

  /// For reading; good while the tensor lives.
  var view: TensorView { TensorView(storage.pointer, batch: batch, shape: shape) }

  package func withView<R>(_ body: (TensorView) throws -> R) rethrows -> R {
    try withExtendedLifetime(storage) { try body(view) }
  }

  /// Copies the values first if another tensor shares them.
  package mutating func withMutableView<R>(_ body: (TensorView) throws -> R) rethrows -> R {
    if !isKnownUniquelyReferenced(&storage) { storage = .sure(storage.copy) }
    return try withView(body)
  }
}

/// Examples with their labels or other targets, ready for a training step.
public struct Batch: Sendable {
  /// N×H×W×C.
  public var images: Tensor
  /// N class numbers, from 0; empty where there are ``targets``.
  public var labels: [Int32]
  /// What the outputs should be, where that is no class: as many values for each example as the
  /// network has outputs.
  public var targets: Tensor?

  public init(images: Tensor, labels: [Int32]) {
    self.images = images
    self.labels = labels
  }

  /// The same.
  public init(images: Tensor, labels: [Int]) {
    // What doesn't fit isn't a class of any network.
    self.init(images: images, labels: labels.map { Int32(exactly: $0) ?? -1 })
  }

  /// Examples with values as targets: regression, several labels or none.
  public init(images: Tensor, targets: Tensor) {
    (self.images, labels, self.targets) = (images, [], targets)
  }

  package func withTargets<R>(_ body: (Targets) throws -> R) rethrows -> R {
    if let targets { return try targets.withView { try body(.values($0.pointer)) } }
    return try labels.withUnsafeBufferPointer { try body(.labels($0.baseAddress!)) }
  }
}
