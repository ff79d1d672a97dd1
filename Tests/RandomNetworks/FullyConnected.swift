import Foundation

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
