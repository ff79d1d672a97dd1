import Foundation
import StrideNet

/// An optimiser by its formulas, fed with the gradients that the network found.
struct Descent {
  let optimizer: Optimizer
  private var steps = 0
  private var velocity: [String: [Number]] = [:]
  private var square: [String: [Number]] = [:]

  init(_ optimizer: Optimizer) { self.optimizer = optimizer }

  /// What the weights become.
  /// - Parameters:
  ///   - gradients: by name, of all parameters that are trained
  ///   - decays: whether weight decay and L1 are for a parameter
  mutating func step(
    _ weights: [String: [Float]], _ gradients: [String: [Float]], rate: Float,
    decays: (String) -> Bool
  ) -> [String: [Number]] {
    steps += 1
    var factor = Number(1)
    if let limit = optimizer.clipNorm {
      let norm = gradients.values.joined().reduce(0) { $0 + Double($1) * Double($1) }.squareRoot()
      if norm > Double(limit) { factor = Number(Double(limit), error: 0) / Number(norm + 1e-6) }
      factor.error += 2 * roundoff
    }
    let rate = Number(Double(rate))
    // A constant of a formula, as the program has it.
    func constant(_ value: Float) -> Number { Number(Double(value)) }
    func complement(_ value: Float) -> Number { Number(1 - Double(value)) }
    func correction(_ value: Float) -> Number {
      Number(1 - pow(Double(value), Double(steps)), error: roundoff)
    }
    var result: [String: [Number]] = [:]
    for (name, gradient) in gradients {
      let zeros = [Number](repeating: Number(0), count: gradient.count)
      var (v, s) = (velocity[name] ?? zeros, square[name] ?? zeros)
      var new: [Number] = []
      let decay = decays(name) ? optimizer.weightDecay : 0
      let l1 = decays(name) ? optimizer.l1 : 0
      for i in gradient.indices {
        var w = Number(Double(weights[name]![i]))
        var g = constant(gradient[i]) * factor
        if optimizer.method != .adamw { g = g + constant(decay) * w }
        g = g + constant(l1) * Number(w.value == 0 ? 0 : w.value < 0 ? -1 : 1)
        let (momentum, beta2) = (constant(optimizer.momentum), constant(optimizer.beta2))
        let epsilon = constant(optimizer.epsilon)
        switch optimizer.method {
        case .sgd:
          v[i] = momentum * v[i] + g
          w = w - rate * v[i]
        case .nesterov:
          v[i] = momentum * v[i] + g
          w = w - rate * (g + momentum * v[i])
        case .rmsprop:
          s[i] = beta2 * s[i] + complement(optimizer.beta2) * (g * g)
          v[i] = momentum * v[i] + g / (s[i].squareRoot() + epsilon)
          w = w - rate * v[i]
        case .adam, .adamw:
          if optimizer.method == .adamw { w = w - rate * constant(decay) * w }
          v[i] = momentum * v[i] + complement(optimizer.momentum) * g
          s[i] = beta2 * s[i] + complement(optimizer.beta2) * (g * g)
          let mean = v[i] / correction(optimizer.momentum)
          w = w - rate * mean / ((s[i] / correction(optimizer.beta2)).squareRoot() + epsilon)
        default: fatalError("a rule that isn't known here: \(optimizer.method.rawValue)")
        }
        new.append(w)
      }
      (velocity[name], square[name], result[name]) = (v, s, new)
    }
    return result
  }
}
