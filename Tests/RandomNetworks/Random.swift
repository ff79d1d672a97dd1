/// xoshiro256**, its state filled by SplitMix64 (Blackman and Vigna, 2018), with streams: what
/// dropout's masks are made of.
struct Random {
  private var a, b, c, d: UInt64

  init(seed: UInt64, stream: UInt64 = 0) {
    var state = seed
    func split(_ state: inout UInt64) -> UInt64 {
      state &+= 0x9e37_79b9_7f4a_7c15
      var z = state
      z = (z ^ z >> 30) &* 0xbf58_476d_1ce4_e5b9
      z = (z ^ z >> 27) &* 0x94d0_49bb_1331_11eb
      return z ^ z >> 31
    }
    state = split(&state) ^ stream
    state = split(&state)
    (a, b, c, d) = (split(&state), split(&state), split(&state), split(&state))
  }

  mutating func next() -> UInt64 {
    func rotate(_ x: UInt64, _ by: UInt64) -> UInt64 { x << by | x >> (64 - by) }
    let result = rotate(b &* 5, 7) &* 9
    let t = b << 17
    c ^= a
    d ^= b
    b ^= c
    a ^= d
    c ^= t
    d = rotate(d, 45)
    return result
  }

  /// In 0..<1.
  mutating func uniform() -> Double { Double(next() >> 11) * 0x1p-53 }

  mutating func whole(_ range: ClosedRange<Int>) -> Int {
    range.lowerBound + Int(uniform() * Double(range.count))
  }

  mutating func pick<T>(_ list: [T]) -> T { list[whole(0...list.count - 1)] }

  mutating func chance(_ share: Double) -> Bool { uniform() < share }

  /// One of a list of choices with weights.
  mutating func pick<T>(weighted list: [(Double, T)]) -> T {
    var left = uniform() * list.reduce(0) { $0 + $1.0 }
    for (weight, item) in list {
      left -= weight
      if left < 0 { return item }
    }
    return list.last!.1
  }
}
