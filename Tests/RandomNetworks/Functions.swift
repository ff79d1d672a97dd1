import Foundation

/// An activation that takes each number on its own.
struct Function: Sendable {
  let name: String
  let value, slope: @Sendable (Double) -> Double

  /// How far f gets from f(x) for all that x may be.
  private static func reach(_ f: (Double) -> Double, _ x: Number) -> Double {
    guard x.error > 0 else { return 0 }
    let (reach, middle) = (tolerance * x.error, f(x.value))
    return max(abs(f(x.value - reach) - middle), abs(f(x.value + reach) - middle))
  }

  /// Whether the slope jumps.
  var hasCorner: Bool { name == "relu" || name == "leaky_relu" }

  func value(of x: Number) -> Number {
    let y = value(x.value)
    if name == "none" { return x }
    // Of vector code, which is within 5 · 2⁻²³ of a result's size.
    let own = name == "relu" ? 0 : 10 * roundoff * abs(y) + underflow
    return Number(y, error: Self.reach(value, x) / tolerance + own)
  }

  func slope(at x: Number) -> Number {
    let y = slope(x.value)
    if name == "none" { return Number(1) }
    // Most are computed from f(x) as 1 less something.
    let own = name == "relu" ? 0 : 16 * roundoff
    // Beside a corner the error isn't one of many small ones: the whole jump is as likely.
    return Number(y, error: Self.reach(slope, x) / (hasCorner ? 1 : tolerance) + own)
  }
}

@Sendable private func sigmoid(_ x: Double) -> Double {
  x > 0 ? 1 / (1 + exp(-x)) : exp(x) / (1 + exp(x))
}
private func normalShare(_ x: Double) -> Double { erfc(-x / 2.squareRoot()) / 2 }

/// All but softmax, by name. What is no number stays none.
let activations: [Function] = {
  func leaky(_ slope: Double) -> Function {
    Function(name: "leaky_relu", value: { $0 < 0 ? slope * $0 : $0 }, slope: { $0 > 0 ? 1 : slope })
  }
  return [
    Function(name: "none", value: { $0 }, slope: { _ in 1 }),
    Function(name: "relu", value: { $0 < 0 ? 0 : $0 }, slope: { $0 > 0 ? 1 : 0 }),
    leaky(0.01),
    Function(
      name: "elu", value: { $0 > 0 ? $0 : expm1($0) }, slope: { $0 > 0 ? 1 : exp($0) }),
    Function(
      name: "gelu", value: { $0 == -.infinity ? 0 : $0 * normalShare($0) },
      slope: { normalShare($0) + $0 * exp(-$0 * $0 / 2) / (2 * Double.pi).squareRoot() }),
    Function(
      name: "silu", value: { $0 == -.infinity ? 0 : $0 * sigmoid($0) },
      slope: { sigmoid($0) + $0 * sigmoid($0) * sigmoid(-$0) }),
    Function(name: "sigmoid", value: sigmoid, slope: { sigmoid($0) * sigmoid(-$0) }),
    Function(
      name: "tanh", value: { Foundation.tanh($0) },
      slope: { 4 * sigmoid(2 * $0) * sigmoid(-2 * $0) }
    ),
    Function(
      name: "softplus", value: { $0 < 0 ? log1p(exp($0)) : $0 + log1p(exp(-$0)) }, slope: sigmoid),
    Function(name: "softmax", value: { $0 }, slope: { _ in .nan }),
  ]
}()

/// The function of a layer that has one, `slope` included; nil where it is softmax.
func activation(_ name: String, slope: String?) -> Function? {
  if name == "softmax" { return nil }
  guard name == "leaky_relu", let slope = slope.flatMap({ Float($0) }).map(Double.init) else {
    return activations.first { $0.name == name }!
  }
  return Function(
    name: name, value: { $0 < 0 ? slope * $0 : $0 }, slope: { $0 > 0 ? 1 : slope })
}

/// e^x over their sum, for each example.
func softmax(_ x: Field) -> Field {
  let y = Field(x.batch, x.size)
  let count = x.size.count
  for n in 0..<x.batch {
    let row = n * count..<(n + 1) * count
    let most = row.map { x.value[$0] }.reduce(-.infinity) { $0.isNaN || $0 > $1 ? $0 : $1 }
    let sum = row.reduce(0.0) { $0 + exp(x.value[$1] - most) }
    for i in row { y.value[i] = exp(x.value[i] - most) / sum }
    let shared = row.reduce(0.0) { $0 + pow(y.value[$1] * x.error[$1], 2) }
    for i in row {
      let (p, e) = (y.value[i], x.error[i])
      let fromInput = (max(0, shared - p * p * e * e) + pow((1 - p) * e, 2)).squareRoot()
      // Rounding of the exponent, of e^x, of the sum and of the division.
      let own = roundoff * (4 + Double(count).squareRoot() + abs(x.value[i] - most))
      let relative = fromInput + own
      y.error[i] = min(1, p * expm1(min(500, tolerance * relative)) / tolerance) + underflow
    }
  }
  return y
}

/// y · (dy − Σ dy · y), for each example.
func softmaxGradient(_ y: Field, _ dy: Field) -> Field {
  let dx = Field(y.batch, y.size)
  let count = y.size.count
  for n in 0..<y.batch {
    var dot = Sum()
    for i in n * count..<(n + 1) * count {
      dot.add(y.value[i], error: y.error[i], times: dy.value[i], error: dy.error[i])
    }
    for i in n * count..<(n + 1) * count { dx[i] = y[i] * (dy[i] - dot.number) }
  }
  return dx
}
