import Foundation

/// A parameter: its values as they are, and the gradient that the last backward pass found.
final class Weights {
  let name: String
  let values: [Double]
  var gradient: [Number] = []
  /// What a statistic becomes in a training pass.
  var next: [Number]?

  init(_ name: String, _ values: [Float]) {
    self.name = name
    self.values = values.map(Double.init)
  }
}

/// A step of the reference: the formula of a layer, or a part of it, and its derivative.
class Part {
  var weights: [Weights] { [] }
  func forward(_ x: Field, training: Bool) -> Field { fatalError() }
  /// The gradient of x of the last forward pass; gradients of weights stay with them.
  func backward(_ dy: Field) -> Field { fatalError() }
}

final class Convolution: Part {
  let input, output: Size
  let window, stride, dilation: (height: Int, width: Int)
  let top, left, groups: Int
  let w, b: Weights
  private var x: Field!

  init(
    _ input: Size, _ output: Size, window: (height: Int, width: Int),
    stride: (height: Int, width: Int), dilation: (height: Int, width: Int), top: Int, left: Int,
    groups: Int, _ w: Weights, _ b: Weights
  ) {
    (self.input, self.output, self.window, self.stride) = (input, output, window, stride)
    (self.dilation, self.top, self.left, self.groups) = (dilation, top, left, groups)
    (self.w, self.b) = (w, b)
  }

  override var weights: [Weights] { [w, b] }

  /// Calls `body` with the places of each y[n,p,q,f] and of each x and w that it is a sum over.
  @inline(__always) private func forEachTap(
    _ batch: Int, _ x: Field, _ y: Field, _ body: (_ y: Int, _ x: Int, _ w: Int) -> Void
  ) {
    let (channels, filters) = (input.channels / groups, output.channels)
    for n in 0..<batch {
      for p in 0..<output.height {
        for q in 0..<output.width {
          for i in 0..<window.height {
            let row = p * stride.height + i * dilation.height - top
            guard row >= 0 && row < input.height else { continue }
            for j in 0..<window.width {
              let column = q * stride.width + j * dilation.width - left
              guard column >= 0 && column < input.width else { continue }
              let pixel = x.pixel(n, row, column)
              for f in 0..<filters {
                let group = f / (filters / groups)
                for c in 0..<channels {
                  body(
                    y.pixel(n, p, q) + f, pixel + group * channels + c,
                    ((i * window.width + j) * channels + c) * filters + f)
                }
              }
            }
          }
        }
      }
    }
  }

  override func forward(_ x: Field, training: Bool) -> Field {
    self.x = x
    let y = Field(x.batch, output)
    var sums = [Sum](repeating: Sum(), count: y.count)
    sums.withUnsafeMutableBufferPointer { sums in
      w.values.withUnsafeBufferPointer { w in
        forEachTap(x.batch, x, y) { y, xi, wi in
          sums[y].add(x.value[xi], error: x.error[xi], times: w[wi], error: 0)
        }
      }
    }
    for i in 0..<y.count { sums[i].add(b.values[i % output.channels], error: 0) }
    y.fill(from: sums)
    let factors = channelFactors
    for f in 0..<output.channels {
      y.shared[f] = factors.reduce(0) {
        $1.filter == f ? hypot($0, $1.factor * x.shared[$1.channel]) : $0
      }
    }
    for i in 0..<y.count { y.error[i] = hypot(y.error[i], y.shared[i % output.channels]) }
    y.shareRepeated(from: x)
    return y
  }

  /// What each channel is multiplied by in each filter, all of a window together.
  private var channelFactors: [(channel: Int, filter: Int, factor: Double)] {
    let (channels, filters) = (input.channels / groups, output.channels)
    return (0..<channels * filters).map { k in
      let (c, f) = (k / filters, k % filters)
      let all = Swift.stride(from: k, to: w.values.count, by: channels * filters)
      return (
        f / (filters / groups) * channels + c, f, all.reduce(0) { $0 + w.values[$1] }
      )
    }
  }

  override func backward(_ dy: Field) -> Field {
    let (dx, x) = (Field(dy.batch, input), x!)
    var inputs = [Sum](repeating: Sum(), count: dx.count)
    var window = [Sum](repeating: Sum(), count: w.values.count)
    inputs.withUnsafeMutableBufferPointer { inputs in
      window.withUnsafeMutableBufferPointer { window in
        w.values.withUnsafeBufferPointer { w in
          forEachTap(dy.batch, x, dy) { yi, xi, wi in
            let (d, e) = (dy.value[yi], dy.error[yi])
            inputs[xi].add(d, error: e, times: w[wi], error: 0)
            window[wi].add(d, error: e, times: x.value[xi], error: x.error[xi])
          }
        }
      }
    }
    b.gradient = dy.channelSums
    let (above, below) = (b.gradient, x.channelSums)
    let (channels, filters) = (input.channels / groups, output.channels)
    for k in window.indices {
      let (c, f) = (k / filters % channels, k % filters)
      let channel = f / (filters / groups) * channels + c
      window[k].add(0, error: x.shared[channel] * above[f].value)
      window[k].add(0, error: dy.shared[f] * below[channel].value)
    }
    w.gradient = window.map(\.number)
    dx.fill(from: inputs)
    for (channel, f, factor) in channelFactors {
      dx.shared[channel] = hypot(dx.shared[channel], factor * dy.shared[f])
    }
    dx.shareRepeated(from: dy)
    return dx
  }
}

final class FullyConnected: Part {
  let w, b: Weights
  private var x: Field!

  init(_ w: Weights, _ b: Weights) { (self.w, self.b) = (w, b) }

  override var weights: [Weights] { [w, b] }

  override func forward(_ x: Field, training: Bool) -> Field {
    self.x = x
    let (inputs, outputs) = (x.size.count, b.values.count)
    let y = Field(x.batch, Size(height: 1, width: 1, channels: outputs))
    for n in 0..<x.batch {
      for o in 0..<outputs {
        var sum = Sum()
        for i in 0..<inputs {
          let from = n * inputs + i
          sum.add(x.value[from], error: x.error[from], times: w.values[o * inputs + i], error: 0)
        }
        sum.add(b.values[o], error: 0)
        y[n * outputs + o] = sum.number
      }
    }
    for o in 0..<outputs {
      for c in 0..<x.period {
        let sum = stride(from: c, to: inputs, by: x.period).reduce(0) {
          $0 + w.values[o * inputs + $1] * x.shared[$1]
        }
        y.shared[o] = hypot(y.shared[o], sum)
      }
    }
    for i in 0..<y.count { y.error[i] = hypot(y.error[i], y.shared[i % outputs]) }
    y.shareRepeated(from: x)
    return y
  }

  override func backward(_ dy: Field) -> Field {
    let (dx, x) = (Field(dy.batch, x.size), x!)
    let (inputs, outputs) = (x.size.count, b.values.count)
    for n in 0..<dy.batch {
      for i in 0..<inputs {
        var sum = Sum()
        for o in 0..<outputs {
          let from = n * outputs + o
          sum.add(dy.value[from], error: dy.error[from], times: w.values[o * inputs + i], error: 0)
        }
        dx[n * inputs + i] = sum.number
      }
    }
    (w.gradient, b.gradient) = ([], dy.channelSums)
    let below = x.channelSums
    for o in 0..<outputs {
      for i in 0..<inputs {
        var sum = Sum()
        sum.add(0, error: x.shared[i] * b.gradient[o].value)
        sum.add(0, error: dy.shared[o] * below[i].value)
        for n in 0..<dy.batch {
          let (from, to) = (n * inputs + i, n * outputs + o)
          sum.add(dy.value[to], error: dy.error[to], times: x.value[from], error: x.error[from])
        }
        w.gradient.append(sum.number)
      }
    }
    for i in 0..<inputs {
      dx.shared[i] = (0..<outputs).reduce(0) {
        hypot($0, w.values[$1 * inputs + i] * dy.shared[$1])
      }
    }
    return dx
  }
}

/// Max or average pooling.
final class Pooling: Part {
  let output: Size
  let window, stride: (height: Int, width: Int)
  let takesLargest: Bool
  private var x: Field!

  init(
    _ output: Size, window: (height: Int, width: Int), stride: (height: Int, width: Int),
    takesLargest: Bool
  ) {
    (self.output, self.window, self.stride) = (output, window, stride)
    self.takesLargest = takesLargest
  }

  private func forEachWindow(_ y: Field, _ body: (_ y: Int, _ x: [Int]) -> Void) {
    for n in 0..<y.batch {
      for p in 0..<output.height {
        for q in 0..<output.width {
          for c in 0..<output.channels {
            var places: [Int] = []
            for i in 0..<window.height {
              for j in 0..<window.width {
                places.append(x.pixel(n, p * stride.height + i, q * stride.width + j) + c)
              }
            }
            body(y.pixel(n, p, q) + c, places)
          }
        }
      }
    }
  }

  /// The first largest, what is no number before all else, and all that it may as well be.
  private func largest(_ places: [Int]) -> (first: Int, possible: [Int]) {
    var first = places[0]
    for place in places.dropFirst() where !x.value[first].isNaN {
      if x.value[place].isNaN || x.value[place] > x.value[first] { first = place }
    }
    let possible = places.filter {
      let (reach, error) = (x.value[first] - x.value[$0], x.error[first] + x.error[$0])
      return $0 == first || (error > 0 && reach <= tolerance * error)
    }
    return (first, possible)
  }

  override func forward(_ x: Field, training: Bool) -> Field {
    self.x = x
    let y = Field(x.batch, output)
    forEachWindow(y) { place, window in
      if takesLargest {
        let (first, possible) = largest(window)
        y.value[place] = x.value[first]
        y.error[place] = possible.map { x.error[$0] }.max()!
      } else {
        var sum = Sum()
        for i in window { sum.add(x.value[i], error: x.error[i]) }
        sum.add(0, error: Double(window.count) * x.shared[place % x.size.channels])
        y[place] = sum.number / Number(Double(window.count))
      }
    }
    y.inherit(x)
    return y
  }

  override func backward(_ dy: Field) -> Field {
    let dx = Field(dy.batch, x.size)
    var sums = [Sum](repeating: Sum(), count: dx.count)
    forEachWindow(dy) { place, window in
      let d = dy[place]
      if takesLargest {
        let (first, possible) = largest(window)
        sums[first].add(d.value, error: d.error)
        guard possible.count > 1 else { return }
        for i in possible { sums[i].add(0, error: abs(d.value) + d.error) }
      } else {
        let share = d / Number(Double(window.count))
        for i in window { sums[i].add(share.value, error: share.error) }
      }
    }
    dx.fill(from: sums)
    dx.inherit(dy)
    return dx
  }
}

final class Pointwise: Part {
  let function: Function
  private var x: Field!

  init(_ function: Function) { self.function = function }

  override func forward(_ x: Field, training: Bool) -> Field {
    self.x = x
    let y = Field(x.batch, x.size)
    for i in 0..<x.count { y[i] = function.value(of: x[i]) }
    y.inherit(x)
    return y
  }

  override func backward(_ dy: Field) -> Field {
    let dx = Field(dy.batch, dy.size)
    dx.inherit(dy)
    let pixels = Double(dy.count / dy.size.channels)
    for i in 0..<dy.count {
      let slope = function.slope(at: x[i])
      dx[i] = dy[i] * slope
      // All values of a channel may be beside the corner together.
      if function.hasCorner {
        dx.shared[i % dy.size.channels] += slope.error * abs(dy.value[i]) / pixels
      }
    }
    return dx
  }
}

final class Softmax: Part {
  private var y: Field!

  override func forward(_ x: Field, training: Bool) -> Field {
    y = softmax(x)
    return y
  }

  override func backward(_ dy: Field) -> Field { softmaxGradient(y, dy) }
}

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
  private let mean, variance: Weights
  private let momentum: Double

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
      let y = Field(x.batch, x.size)
      for i in 0..<x.count {
        let c = i % x.size.channels
        let scale =
          Number(w.values[c]) / (Number(variance.values[c]) + Number(epsilon)).squareRoot()
        y[i] = x[i] * scale + (Number(b.values[c]) - Number(mean.values[c]) * scale)
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

/// In training 0 where a hash of the seed, the layer, the step and the place says so.
final class Drop: Part {
  private let rate: Float
  private let key: UInt64

  init(rate: Float, layer: Int, seed: UInt64, step: Int) {
    self.rate = rate
    var random = Random(
      seed: seed &+ UInt64(layer) << 32, stream: 1 << 40 + UInt64(step))
    key = random.next()
  }

  private func factor(_ place: Int) -> Double {
    var h = UInt32(truncatingIfNeeded: place) ^ UInt32(truncatingIfNeeded: key)
    h = (h ^ h >> 16) &* 0x7feb_352d
    h = (h ^ h >> 15) &* 0x846c_a68b
    h = ((h ^ h >> 16) &+ UInt32(key >> 32)) &* 0x7feb_352d
    h = (h ^ h >> 15) &* 0x846c_a68b
    h ^= h >> 16
    return Double(h) < (Double(rate) * 0x1p32).rounded(.down) ? 0 : 1 / (1 - Double(rate))
  }

  private func drop(_ x: Field) -> Field {
    let y = Field(x.batch, x.size)
    for i in 0..<x.count {
      y[i] = x[i] * Number(factor(i), error: factor(i) * roundoff)
    }
    y.inherit(x)
    for c in y.shared.indices { y.shared[c] /= 1 - Double(rate) }
    return y
  }

  override func forward(_ x: Field, training: Bool) -> Field { training ? drop(x) : x }
  override func backward(_ dy: Field) -> Field { drop(dy) }
}

final class Reshape: Part {
  private let input, output: Size

  init(_ input: Size, _ output: Size) { (self.input, self.output) = (input, output) }

  override func forward(_ x: Field, training: Bool) -> Field { x.reshaped(to: output) }
  override func backward(_ dy: Field) -> Field { dy.reshaped(to: input) }
}

/// body(x) + shortcut(x), or + x.
final class Fork: Part {
  let body, shortcut: [Part]

  init(_ body: [Part], _ shortcut: [Part]) { (self.body, self.shortcut) = (body, shortcut) }

  override var weights: [Weights] { (body + shortcut).flatMap(\.weights) }

  private func sum(_ a: Field, _ b: Field) -> Field {
    let y = Field(a.batch, a.size)
    for i in 0..<y.count { y[i] = a[i] + b[i] }
    for c in y.shared.indices { y.shared[c] = a.shared[c] + b.shared[c] }
    y.repeats = a.repeats || b.repeats
    return y
  }

  override func forward(_ x: Field, training: Bool) -> Field {
    sum(
      body.reduce(x) { $1.forward($0, training: training) },
      shortcut.reduce(x) { $1.forward($0, training: training) })
  }

  override func backward(_ dy: Field) -> Field {
    sum(
      body.reversed().reduce(dy) { $1.backward($0) },
      shortcut.reversed().reduce(dy) { $1.backward($0) })
  }
}
