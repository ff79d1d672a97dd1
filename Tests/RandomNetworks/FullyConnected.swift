import Foundation

final class FullyConnected: Part {
  let w, b: Weights
  private var x: Field!
  /// The weights as they are multiplied.
  private let factors: [Double]
  private let rounds: Bool

  init(_ w: Weights, _ b: Weights, rounds: Bool) {
    (self.w, self.b, self.rounds) = (w, b, rounds)
    factors = rounds ? w.values.map(bf16) : w.values
  }

  override var weights: [Weights] { [w, b] }

  override func forward(_ x: Field, training: Bool) -> Field {
    let x = rounds ? x.rounded() : x
    self.x = x
    let (inputs, outputs) = (x.size.count, b.values.count)
    let y = Field(x.batch, Size(height: 1, width: 1, channels: outputs))
    for n in 0..<x.batch {
      for o in 0..<outputs {
        var sum = Sum()
        for i in 0..<inputs {
          let from = n * inputs + i
          sum.add(x.value[from], error: x.error[from], times: factors[o * inputs + i], error: 0)
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
    (w.gradient, b.gradient) = ([], dy.channelSums)
    let dy = rounds ? dy.rounded() : dy
    let (dx, x) = (Field(dy.batch, x.size), x!)
    let (inputs, outputs) = (x.size.count, b.values.count)
    for n in 0..<dy.batch {
      for i in 0..<inputs {
        var sum = Sum()
        for o in 0..<outputs {
          let from = n * outputs + o
          sum.add(dy.value[from], error: dy.error[from], times: factors[o * inputs + i], error: 0)
        }
        dx[n * inputs + i] = sum.number
      }
    }
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
    // What is off by the way that dy was rounded is so in all pixels.
    let pixels = rounds ? inputs / x.period : 1
    for i in 0..<inputs / pixels {
      let shared = (0..<outputs).reduce(0) { sum, o in
        let places = stride(from: o * inputs + i, to: (o + 1) * inputs, by: inputs / pixels)
        return hypot(
          sum, places.reduce(0) { $0 + w.values[$1] } / Double(pixels) * dy.shared[o])
      }
      for k in 0..<pixels { dx.shared[k * inputs / pixels + i] = shared }
    }
    return dx
  }
}
