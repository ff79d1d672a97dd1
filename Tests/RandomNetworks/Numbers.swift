import Foundation

// What the reference computes with: each number in double precision, beside how far single precision
// may be expected to be off. Errors of different numbers are taken to be independent, so those of a
// sum add as squares do; where a function has a corner, all that lies within the error of the number
// counts as possible.

/// What rounding to single precision changes a number by, at most and relative to its size.
let roundoff = 0x1p-24

/// What is smaller than the smallest normal number, times what it may have been multiplied by before,
/// may be 0 as well.
let underflow = 0x1p-110

/// How many times its expected error a result may be off.
let tolerance = 8.0

/// A number and its expected error. Arithmetic rounds as single precision does.
struct Number {
  var value: Double
  var error = 0.0

  init(_ value: Double, error: Double = 0) {
    self.value = value
    self.error = error
  }

  /// A result, its error from the operands', and its own rounding.
  private init(_ value: Double, _ errors: Double...) {
    self.value = value
    let own = roundoff * abs(value) + 0x1p-126  // below which single precision has 0
    error = (errors.reduce(own * own) { $0 + $1 * $1 }).squareRoot()
  }

  static func + (a: Number, b: Number) -> Number { Number(a.value + b.value, a.error, b.error) }
  static func - (a: Number, b: Number) -> Number { Number(a.value - b.value, a.error, b.error) }
  static func * (a: Number, b: Number) -> Number {
    Number(a.value * b.value, a.error * b.value, b.error * a.value, tolerance * a.error * b.error)
  }
  static func / (a: Number, b: Number) -> Number {
    let quotient = a.value / b.value
    return Number(quotient, a.error / b.value, b.error * quotient / b.value)
  }
  func squareRoot() -> Number {
    let root = value.squareRoot()
    return Number(root, min(error / max(2 * root, .leastNormalMagnitude), error.squareRoot()))
  }
}

extension Number {
  /// The nearest number of 8 bits, ties to the even one; subnormal ones are 0. Its error is none
  /// where all that it may be is rounded to the same.
  func roundedToBF16() -> Number {
    let rounded = bf16(value)
    guard error > 0 && value.isFinite else { return Number(rounded, error: error) }
    if bf16(value - tolerance * error) == rounded && bf16(value + tolerance * error) == rounded {
      return Number(rounded)
    }
    return Number(rounded, error: error + 0x1p-8 * abs(value))
  }
}

/// The nearest bf16.
func bf16(_ x: Double) -> Double {
  guard x.isFinite else { return x }
  guard abs(x) >= 0x1p-126 else { return 0 }
  let unit = 0x1p45 * x.ulp
  let rounded = (x / unit).rounded(.toNearestOrEven) * unit
  return abs(rounded) < 0x1p128 ? rounded : rounded * .infinity
}

/// A sum of many terms. Each addition rounds by a share of what the sum has come to, which is no
/// larger than the largest partial sum here, or in another order than about the root of the squares.
struct Sum {
  private(set) var value = 0.0
  private var spread = 0.0
  private var squares = 0.0
  private var largest = 0.0
  private var count = 0.0

  @inline(__always) mutating func add(_ term: Double, error: Double) {
    value += term
    spread += error * error
    squares += term * term
    largest = max(largest, abs(value))
    count += 1
  }

  /// A term that is a product.
  @inline(__always) mutating func add(
    _ a: Double, error aError: Double, times b: Double, error bError: Double
  ) {
    let (first, second, both) = (aError * b, a * bError, tolerance * aError * bError)
    add(a * b, error: 0)
    spread += first * first + second * second + both * both
  }

  /// Where few different terms come again and again, additions are rounded the same way time after
  /// time: in all by up to count / 2 · roundoff.
  mutating func roundAlike() {
    let all = roundoff * count * largest / (2 * tolerance)
    spread += all * all
  }

  var error: Double {
    underflow + (spread + roundoff * roundoff * (count * largest * largest + squares)).squareRoot()
  }
  var number: Number { Number(value, error: error) }
}

/// The size of an example.
struct Size: Equatable, CustomStringConvertible {
  var height, width, channels: Int
  var count: Int { height * width * channels }
  var isFlat: Bool { height == 1 && width == 1 }
  var description: String { "\(height)x\(width)x\(channels)" }
}

/// A batch of examples, row by row, pixel by pixel, channel by channel.
final class Field {
  let batch: Int
  let size: Size
  let value, error: UnsafeMutableBufferPointer<Double>
  /// The part of each channel's error that may be the same in all pixels of all examples: that of a
  /// number that was added to all. It doesn't average out.
  var shared: [Double]
  /// After so many the channels come again: in what was flattened.
  var period: Int
  /// Whether few different values come again and again, so that they are rounded alike.
  var repeats = false

  init(_ batch: Int, _ size: Size) {
    self.batch = batch
    self.size = size
    shared = [Double](repeating: 0, count: size.channels)
    period = size.channels
    value = .allocate(capacity: batch * size.count)
    error = .allocate(capacity: batch * size.count)
    value.initialize(repeating: 0)
    error.initialize(repeating: 0)
  }

  deinit {
    value.deallocate()
    error.deallocate()
  }

  var count: Int { value.count }

  /// Where an example's pixel begins.
  @inline(__always) func pixel(_ n: Int, _ row: Int, _ column: Int) -> Int {
    ((n * size.height + row) * size.width + column) * size.channels
  }

  subscript(_ i: Int) -> Number {
    get { Number(value[i], error: error[i]) }
    set { (value[i], error[i]) = (newValue.value, newValue.error) }
  }

  func fill(from sums: [Sum]) {
    for (i, sum) in sums.enumerated() { self[i] = sum.number }
  }

  /// Its numbers as bf16.
  func rounded() -> Field {
    let (other, channels) = (Field(batch, size), size.channels)
    other.inherit(self)
    for i in 0..<count { other[i] = self[i].roundedToBF16() }
    // Numbers that are the same are rounded the same way.
    for c in 0..<channels {
      var errors: [Float: Double] = [:]
      for i in stride(from: c, to: count, by: channels) where other.error[i] > 0 {
        errors[Float(value[i]), default: 0] += other.error[i]
      }
      let all = errors.values.reduce(0) { $0 + $1 * $1 }.squareRoot()
      other.shared[c] = hypot(shared[c], all / Double(count / channels))
    }
    return other
  }

  /// The sum of each channel over all pixels and examples.
  var channelSums: [Number] {
    var sums = [Sum](repeating: Sum(), count: size.channels)
    for i in 0..<count { sums[i % size.channels].add(value[i], error: error[i]) }
    let pixels = Double(count / size.channels)
    for c in 0..<size.channels {
      sums[c].add(0, error: pixels * shared[c])
      let different = Set(stride(from: c, to: count, by: size.channels).map { Float(value[$0]) })
      if different.count < count / size.channels / 16 { sums[c].roundAlike() }
    }
    return sums.map(\.number)
  }

  /// Takes over what another one, with the same channels, says of its errors.
  func inherit(_ x: Field) {
    (shared, repeats, period) = (x.shared, x.repeats, x.period)
  }

  /// The errors of values that come again and again are shared.
  func shareRepeated(from x: Field) {
    repeats = x.repeats
    guard repeats else { return }
    for c in 0..<size.channels {
      let places = stride(from: c, to: count, by: size.channels)
      let mean = places.reduce(0) { $0 + error[$1] } / Double(count / size.channels)
      shared[c] = max(shared[c], mean)
    }
  }

  /// The same numbers under another size.
  func reshaped(to size: Size) -> Field {
    let other = Field(batch, size)
    _ = other.value.update(from: value)
    _ = other.error.update(from: error)
    other.repeats = repeats
    if size.channels == shared.count {
      other.shared = shared
    } else {
      other.period = shared.count
      // The channels come again and again in one that was flattened, or the other way round.
      for c in 0..<size.channels { other.shared[c] = shared[c % shared.count] }
    }
    return other
  }
}
