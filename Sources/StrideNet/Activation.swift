import Foundation

/// A function applied to every value of a layer's output (softmax: to every row).
///
/// One's own is a value and a derivative:
///
///     extension Activation {
///       static let square = Activation("square", { $0 * $0 }, derivative: { x, _ in 2 * x })
///     }
public struct Activation: Sendable {
  enum Kind: Sendable {
    case none, relu, sigmoid, softmax
    case own(@Sendable (Float) -> Float, derivative: @Sendable (Float, Float) -> Float)
  }

  public let name: String
  let kind: Kind

  private init(_ name: String, _ kind: Kind) {
    self.name = name
    self.kind = kind
  }

  /// An activation of one's own.
  /// - Parameters:
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
  /// y = 1 / (1 + exp(−x))
  public static let sigmoid = Activation("sigmoid", .sigmoid)
  /// y = exp(x) / Σ exp(x) over each example's values
  public static let softmax = Activation("softmax", .softmax)

  static let builtIn: [Activation] = [.none, .relu, .sigmoid, .softmax]

  var isSoftmax: Bool { if case .softmax = kind { true } else { false } }
  var isRelu: Bool { if case .relu = kind { true } else { false } }

  /// He before ReLU, Glorot elsewhere.
  func initializer(fanIn: Int, fanOut: Int) -> Initializer {
    isRelu ? .he(fanIn: fanIn) : .glorot(fanIn: fanIn, fanOut: fanOut)
  }
}

/// A layer's activation together with what its backward pass needs: applied in place to the output.
final class ActivationPass {
  let activation: Activation
  // f′ of one's own function may need x, which y overwrites.
  private var inputs: FloatStorage?

  init(_ activation: Activation) { self.activation = activation }

  func reserve(_ count: Int) {
    guard case .own = activation.kind, inputs?.count ?? 0 < count else { return }
    inputs = FloatStorage(count: count)
  }

  func forward(_ y: TensorView, _ pass: Pass) {
    if case .none = activation.kind { return }
    if let inputs, pass.training { inputs.pointer.update(from: y.pointer, count: y.count) }
    pass.runtime.parallel(over: y.batch, by: examplesAPiece(y), (activation, y)) {
      context, range, _ in
      let (activation, y) = context
      let (rows, start, count) = (range.count, y.example(range.lowerBound), y.shape.count)
      switch activation.kind {
      case .none: break
      case .relu: Kernels.reluForward(rows * count, start, start)
      case .sigmoid: Kernels.sigmoidForward(rows * count, start, start)
      case .softmax: Kernels.softmaxForward(rows: rows, count, start, start)
      case .own(let value, _): for i in 0..<rows * count { start[i] = value(start[i]) }
      }
    }
  }

  /// Turns the gradient of the output into that of what the activation was applied to, in place.
  func backward(_ y: TensorView, _ dy: TensorView, _ pass: Pass) {
    if case .none = activation.kind { return }
    let inputs = self.inputs?.pointer
    pass.runtime.parallel(over: y.batch, by: examplesAPiece(y), (activation, inputs, y, dy)) {
      context, range, _ in
      let (activation, inputs, y, dy) = context
      let (rows, count) = (range.count, y.shape.count)
      let (out, gradient) = (y.example(range.lowerBound), dy.example(range.lowerBound))
      switch activation.kind {
      case .none: break
      case .relu: Kernels.reluBackward(rows * count, y: out, gradient, gradient)
      case .sigmoid: Kernels.sigmoidBackward(rows * count, y: out, gradient, gradient)
      case .softmax: Kernels.softmaxBackward(rows: rows, count, y: out, gradient, gradient)
      case .own(_, let derivative):
        let start = range.lowerBound * count
        for i in 0..<rows * count { gradient[i] *= derivative(inputs![start + i], out[i]) }
      }
    }
  }

  /// The C symbol without its prefix.
  func kernel(backward: Bool) -> String {
    if case .own = activation.kind { return "own" }
    return activation.name + (backward ? "_backward" : "_forward")
  }

  /// The backward pass: f′ from y, and dy read and written.
  func cost(_ output: Shape) -> PassCost? {
    if case .none = activation.kind { return nil }
    return PassCost(
      kernel: kernel(backward: true), why: PassCost.onlyKernel, outputs: 3 * Double(output.count))
  }

  // Pieces of at least 16,384 values: less isn't worth waking a thread for.
  private func examplesAPiece(_ y: TensorView) -> Int { max(1, 16_384 / max(1, y.shape.count)) }
}
