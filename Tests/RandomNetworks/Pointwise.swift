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
