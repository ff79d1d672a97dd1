import Foundation

/// Values that are normalised together, each with the weight and bias of its channel: all of a
/// channel for batch normalisation, all of a pixel for layer normalisation.
class Normalization: Part {
  let w, b: Weights
  let epsilon: Double
  fileprivate var x: Field!
  fileprivate var moments: [(mean: Number, variance: Number, inverse: Number)] = []

  fileprivate init(_ w: Weights, _ b: Weights, epsilon: Double) {
    (self.w, self.b, self.epsilon) = (w, b, epsilon)
  }

  override var weights: [Weights] { [w, b] }

  /// The places of what is normalised together.
  fileprivate func sets(_ x: Field) -> [[Int]] { fatalError() }

  /// The error that all of a set may share.
  fileprivate func sharedError(_ x: Field, _ set: [Int]) -> Double? { nil }

  fileprivate func measure(_ x: Field) {
    self.x = x
    moments = sets(x).map { set in
      let count = Number(Double(set.count))
      var sum = Sum()
      for i in set { sum.add(x.value[i], error: x.error[i]) }
      if let shared = sharedError(x, set) { sum.add(0, error: count.value * shared) }
      let mean = sum.number / count
      var squares = Sum()
      for i in set {
        let off = x.value[i] - mean.value
        squares.add(off * off, error: 2 * off * x.error[i])
        // What the mean's rounding leaves, and products of errors, which count where all are alike.
        squares.add(0, error: x.error[i] * x.error[i])
      }
      let variance = squares.number / count
      let root = (variance + Number(epsilon)).squareRoot()
      return (mean, variance, Number(1) / root)
    }
  }

  /// (x − mean) / √(variance + epsilon). The mean's error is largely x's own: only that of the
  /// other values and the rounding count.
  private func normalised(_ i: Int, _ set: Int, _ count: Int) -> Number {
    let (mean, _, inverse) = moments[set]
    let share = 1 / Double(count)
    let own = (1 - share) * x.error[i]
    let others = max(0, mean.error * mean.error - pow(share * x.error[i], 2)).squareRoot()
    // One value alone is its own mean, but where it is scaled first and shifted then.
    let rounding = roundoff * (abs(x.value[i]) + abs(mean.value))
    let off = Number(
      x.value[i] - mean.value,
      error: (own * own + (count == 1 ? 0 : others * others) + rounding * rounding).squareRoot())
    return off * inverse
  }

  fileprivate func normalise(_ x: Field) -> Field {
    let y = Field(x.batch, x.size)
    for (s, set) in sets(x).enumerated() {
      for i in set {
        let c = i % x.size.channels
        y[i] = normalised(i, s, set.count) * Number(w.values[c]) + Number(b.values[c])
        // Computed as x · scale + shift, of x and a mean that may be off together.
        let scale = w.values[c] * moments[s].inverse.value
        let sizes = abs(x.value[i]) + x.error[i] + abs(moments[s].mean.value)
        y.error[i] += roundoff * abs(scale) * sizes
        // The same shift for all of a channel.
        if sharedError(x, set) != nil {
          y.shared[c] =
            roundoff * (abs(moments[s].mean.value * scale) + abs(b.values[c]))
            + abs(scale) * moments[s].mean.error
        }
      }
    }
    y.shareRepeated(from: x)
    return y
  }

  override func backward(_ dy: Field) -> Field {
    let dx = Field(dy.batch, dy.size)
    var products = [Sum](repeating: Sum(), count: w.values.count)
    b.gradient = dy.channelSums
    for (s, set) in sets(x).enumerated() {
      let count = Number(Double(set.count))
      var (sum, product) = (Sum(), Sum())
      let h = set.map { normalised($0, s, set.count) }
      for (k, i) in set.enumerated() {
        let c = i % x.size.channels
        products[c].add(dy.value[i], error: dy.error[i], times: h[k].value, error: h[k].error)
        let g = dy[i] * Number(w.values[c])
        sum.add(g.value, error: g.error)
        product.add(g.value, error: g.error, times: h[k].value, error: h[k].error)
      }
      if sharedError(x, set) != nil {
        // All differences from the mean are off by what the mean is, rounded to a float.
        let c = set[0] % x.size.channels
        let mean = moments[s].mean
        let off = moments[s].inverse.value * (mean.error + roundoff * abs(mean.value))
        let upstream = abs(set.reduce(0) { $0 + dy.value[$1] })
        // Nothing times an error without bound is nothing.
        if upstream > 0 { products[c].add(0, error: upstream * off) }
        if upstream * abs(w.values[c]) > 0 {
          product.add(0, error: upstream * abs(w.values[c]) * off)
        }
      }
      for (k, i) in set.enumerated() {
        let g = dy[i] * Number(w.values[i % x.size.channels])
        let inner = g - sum.number / count - h[k] * product.number / count
        dx[i] = moments[s].inverse * inner
        if sharedError(x, set) != nil {
          let mean = sum.number / count
          dx.shared[i % x.size.channels] =
            moments[s].inverse.value * (mean.error + roundoff * abs(mean.value))
        }
      }
    }
    w.gradient = products.map(\.number)
    return dx
  }
}

final class BatchNormalization: Normalization {
  fileprivate let mean, variance: Weights
  private let momentum: Double
  /// Whether the convolution before it does it where nothing is trained.
  var isTakenOver = false

  init(
    _ w: Weights, _ b: Weights, _ mean: Weights, _ variance: Weights, momentum: Double,
    epsilon: Double
  ) {
    (self.mean, self.variance, self.momentum) = (mean, variance, momentum)
    super.init(w, b, epsilon: epsilon)
  }

  override var weights: [Weights] { [w, b, mean, variance] }

  override func sets(_ x: Field) -> [[Int]] {
    let channels = x.size.channels
    return (0..<channels).map { Array(stride(from: $0, to: x.count, by: channels)) }
  }

  override func sharedError(_ x: Field, _ set: [Int]) -> Double? {
    x.shared[set[0] % x.size.channels]
  }

  override func forward(_ x: Field, training: Bool) -> Field {
    guard training else {
      if isTakenOver { return x }
      let (y, factors) = (Field(x.batch, x.size), runningFactors)
      for i in 0..<x.count {
        let (scale, shift) = factors[i % x.size.channels]
        y[i] = x[i] * scale + shift
      }
      return y
    }
    measure(x)
    let n = Double(x.count / x.size.channels)
    func move(_ old: Weights, _ new: (Int) -> Number) {
      old.next = old.values.enumerated().map { c, value in
        Number(value) + Number(momentum) * (new(c) - Number(value))
      }
    }
    move(mean) { moments[$0].mean }
    move(variance) { moments[$0].variance * Number(n / max(1, n - 1)) }
    return normalise(x)
  }
}

extension BatchNormalization {
  /// What each channel is multiplied by, and what is added to it, where nothing is trained.
  var runningFactors: [(scale: Number, shift: Number)] {
    w.values.indices.map { c in
      let scale =
        Number(w.values[c]) / (Number(variance.values[c]) + Number(epsilon)).squareRoot()
      return (scale, Number(b.values[c]) - Number(mean.values[c]) * scale)
    }
  }
}

final class LayerNormalization: Normalization {
  override init(_ w: Weights, _ b: Weights, epsilon: Double) {
    super.init(w, b, epsilon: epsilon)
  }

  override func sets(_ x: Field) -> [[Int]] {
    let channels = x.size.channels
    return stride(from: 0, to: x.count, by: channels).map { Array($0..<$0 + channels) }
  }

  override func forward(_ x: Field, training: Bool) -> Field {
    measure(x)
    return normalise(x)
  }
}
