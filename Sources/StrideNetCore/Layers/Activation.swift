import Foundation

/// A function applied to every value of a layer's output (softmax: to every row).
///
/// One's own is a value and a derivative:
///
///     extension Activation {
///       static let square = Activation("square", { $0 * $0 }, derivative: { x, _ in 2 * x })
///     }
public struct Activation: Sendable {
  package enum Kind: Sendable {
    case none, relu, softmax
    case leakyReLU(slope: Float)
    /// One of the kernels' list.
    case kernel(ActivationKernel)
    case own(@Sendable (Float) -> Float, derivative: @Sendable (Float, Float) -> Float)
  }

  public let name: String
  package let kind: Kind

  private init(_ name: String, _ kind: Kind) {
    self.name = name
    self.kind = kind
  }

  /// An activation of one's own.
  /// - Parameters:
  ///   - name: what errors and weight files call it
  ///   - value: f(x)
  ///   - derivative: f′ from x and y = f(x)
  public init(
    _ name: String, _ value: @escaping @Sendable (_ x: Float) -> Float,
    derivative: @escaping @Sendable (_ x: Float, _ y: Float) -> Float
  ) {
    self.init(name, .own(value, derivative: derivative))
  }

  /// y = x
  public static let none = Activation("none", .none)
  /// y = max(x, 0)
  public static let relu = Activation("relu", .relu)
  /// y = x where x > 0, else slope · x (Maas et al. 2013)
  /// - Parameter slope: not below 0
  public static func leakyReLU(slope: Float = 0.01) -> Activation {
    precondition(slope >= 0, "a slope of \(slope), expected one that isn't below 0")
    return Activation("leaky_relu", .leakyReLU(slope: slope))
  }
  /// y = x where x > 0, else exp(x) − 1 (Clevert et al. 2016, arXiv:1511.07289)
  public static let elu = Activation("elu")
  /// y = x · Φ(x) = x/2 · (1 + erf(x/√2)), exact (Hendrycks & Gimpel 2016, arXiv:1606.08415)
  public static let gelu = Activation("gelu")
  /// y = x / (1 + exp(−x)), also called swish (the same paper)
  public static let silu = Activation("silu")
  /// y = 1 / (1 + exp(−x))
  public static let sigmoid = Activation("sigmoid")
  /// y = (exp(x) − exp(−x)) / (exp(x) + exp(−x))
  public static let tanh = Activation("tanh")
  /// y = log(1 + exp(x))
  public static let softplus = Activation("softplus")
  /// y = exp(x) / Σ exp(x) over each example's values
  public static let softmax = Activation("softmax", .softmax)

  static let builtIn: [Activation] = [
    .none, .relu, .leakyReLU(), .elu, .gelu, .silu, .sigmoid, .tanh, .softplus, .softmax,
  ]

  private init(_ name: String) {
    self.init(name, .kernel(ActivationKernel.all.first { $0.name == name }!))
  }

  /// What follows the name in a layer's text: nothing, or the slope if it isn't the usual one.
  var slopeText: String {
    if case .leakyReLU(let slope) = kind, slope != 0.01 { ",slope=\(slope)" } else { "" }
  }

  /// Whether f′ is computed from x rather than from y.
  var readsX: Bool {
    switch kind {
    case .own: true
    case .kernel(let kernel): kernel.readsX
    case .none, .relu, .leakyReLU, .softmax: false
    }
  }

  package var isSoftmax: Bool { if case .softmax = kind { true } else { false } }
  var isRelu: Bool { if case .relu = kind { true } else { false } }
  /// Whether the kernels before it do all there is to do.
  var isPlain: Bool { isRelu || isNone }

  /// He before ReLU and what is like it for large x, Glorot elsewhere.
  var initializer: Initializer {
    ["relu", "leaky_relu", "elu", "gelu", "silu", "softplus"].contains(name)
      ? .heUniform : .glorotUniform
  }
}

/// An operation's activation together with what its backward pass needs: applied in place to the output.
package final class ActivationPass {
  let function: Activation
  // The x of activations whose f′ needs it: y overwrites it.
  private var inputs: FloatStorage?

  package init(_ activation: Activation) { function = activation }

  func reserve(_ count: Int) throws {
    guard function.readsX, inputs?.count ?? 0 < count else { return }
    inputs = try FloatStorage(count: count)
  }

  package func forward(_ y: TensorView, _ pass: Pass) {
    if case .none = function.kind { return }
    if let inputs, pass.training { inputs.pointer.update(from: y.pointer, count: y.count) }
    pass.runtime.parallel(over: y.batch, by: examplesAPiece(y), (function, y)) {
      context, range, _ in
      let (function, y) = context
      let (rows, start, count) = (range.count, y.example(range.lowerBound), y.shape.count)
      switch function.kind {
      case .none: break
      case .relu: Kernels.reluForward(rows * count, start, start)
      case .leakyReLU(let slope):
        Kernels.leakyReLUForward(rows * count, slope: slope, start, start)
      case .kernel(let kernel): kernel.forward(rows * count, start, start)
      case .softmax: Kernels.softmaxForward(rows: rows, count, start, start)
      case .own(let value, _): for i in 0..<rows * count { start[i] = value(start[i]) }
      }
    }
  }

  /// Turns the gradient of the output into that of what the activation was applied to, in place.
  func backward(_ y: TensorView, _ dy: TensorView, _ pass: Pass) {
    if case .none = function.kind { return }
    let inputs = self.inputs?.pointer
    pass.runtime.parallel(over: y.batch, by: examplesAPiece(y), (function, inputs, y, dy)) {
      context, range, _ in
      let (function, inputs, y, dy) = context
      let (rows, count) = (range.count, y.shape.count)
      let (out, gradient) = (y.example(range.lowerBound), dy.example(range.lowerBound))
      switch function.kind {
      case .none: break
      case .relu: Kernels.reluBackward(rows * count, y: out, gradient, gradient)
      case .leakyReLU(let slope):
        Kernels.leakyReLUBackward(rows * count, slope: slope, y: out, gradient, gradient)
      case .kernel(let kernel):
        kernel.backward(
          rows * count, from: inputs.map { $0 + range.lowerBound * count } ?? out, gradient,
          gradient)
      case .softmax: Kernels.softmaxBackward(rows: rows, count, y: out, gradient, gradient)
      case .own(_, let derivative):
        let start = range.lowerBound * count
        for i in 0..<rows * count { gradient[i] *= derivative(inputs![start + i], out[i]) }
      }
    }
  }

  /// The C symbol without its prefix.
  func kernel(backward: Bool) -> String {
    if case .own = function.kind { return "own" }
    return function.name + (backward ? "_backward" : "_forward")
  }

  /// The backward pass: f′ from x or y, and dy read and written.
  func cost(_ output: Shape) -> PassCost? {
    if case .none = function.kind { return nil }
    return PassCost(
      kernel: kernel(backward: true), why: PassCost.onlyKernel, outputs: 3 * Double(output.count))
  }

  // Pieces of at least 16,384 values: less isn't worth waking a thread for.
  private func examplesAPiece(_ y: TensorView) -> Int { max(1, 16_384 / max(1, y.shape.count)) }
}
