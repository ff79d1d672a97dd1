import Foundation

/// A small seeded generator: xoshiro256**, its state filled by SplitMix64 (Blackman and Vigna,
/// "Scrambled Linear Pseudorandom Number Generators", 2018; public domain code at
/// https://prng.di.unimi.it). The same seed gives the same numbers in every version.
public struct SeededGenerator: RandomNumberGenerator, Sendable {
  private var state: (UInt64, UInt64, UInt64, UInt64)

  /// The generator of stream 0.
  public init(seed: UInt64) { self.init(seed: seed, stream: 0) }

  /// One of many generators for the same seed, each independent of the others: one for initial
  /// weights, one for each epoch's order.
  public init(seed: UInt64, stream: UInt64) {
    // Hashing twice keeps the streams of neighbouring seeds apart.
    var outer = SplitMix64(state: seed)
    var inner = SplitMix64(state: outer.next() ^ stream)
    var filler = SplitMix64(state: inner.next())
    state = (filler.next(), filler.next(), filler.next(), filler.next())
  }

  public mutating func next() -> UInt64 {
    let result = Self.rotate(state.1 &* 5, 7) &* 9
    let t = state.1 << 17
    state.2 ^= state.0
    state.3 ^= state.1
    state.1 ^= state.2
    state.0 ^= state.3
    state.2 ^= t
    state.3 = Self.rotate(state.3, 45)
    return result
  }

  /// A number in [0, 1), all 2²⁴ of them equally likely.
  public mutating func uniform() -> Float { Float(next() >> 40) * 0x1p-24 }

  /// A number from the normal distribution with mean 0 and variance 1 (Box and Muller).
  public mutating func normal() -> Float {
    // 1 − u lies in (0, 1]: its logarithm is finite.
    let u = 1 - Double(next() >> 11) * 0x1p-53
    let v = Double(next() >> 11) * 0x1p-53
    return Float((-2 * log(u)).squareRoot() * cos(2 * .pi * v))
  }

  /// A whole number in 0..<bound, each equally likely (Lemire, "Fast Random Integer Generation in
  /// an Interval", 2019).
  package mutating func below(_ bound: Int) -> Int {
    precondition(bound > 0, "no number below \(bound)")
    let bound = UInt64(bound)
    var (high, low) = next().multipliedFullWidth(by: bound)
    if low < bound {
      let threshold = (0 &- bound) % bound
      while low < threshold { (high, low) = next().multipliedFullWidth(by: bound) }
    }
    return Int(high)
  }

  // The standard library's shuffle may change its algorithm, and with it every seeded result.

  /// Shuffles in place (Fisher and Yates).
  package mutating func shuffle(_ indices: inout [Int]) {
    for last in indices.indices.dropFirst().reversed() { indices.swapAt(last, below(last + 1)) }
  }

  /// The numbers 0..<count in random order.
  public mutating func permutation(_ count: Int) -> [Int] {
    var indices = Array(0..<count)
    shuffle(&indices)
    return indices
  }

  private static func rotate(_ x: UInt64, _ by: UInt64) -> UInt64 { (x << by) | (x >> (64 - by)) }
}

/// Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", 2014.
private struct SplitMix64 {
  var state: UInt64

  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var z = state
    z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
    z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
    return z ^ (z >> 31)
  }
}
