/// Every output is a weighted sum of all inputs: y = activation(x·wᵀ + bias).
public struct Dense: Layer {
  package let outputs: Int
  package let activation: Activation
  /// How the weights start; nil for He's before ReLU and its like, else Glorot's, uniform.
  package let initializer: Initializer?

  public init(_ outputs: Int, activation: Activation = .relu, initializer: Initializer? = nil) {
    (self.outputs, self.activation, self.initializer) = (outputs, activation, initializer)
  }

  public var text: String {
    let start = initializer.map { ",init=\($0.text)" } ?? ""
    switch activation.kind {
    case .none: return "dense(\(outputs)\(start))"
    case .own: return "dense(\(outputs),activation=\(activation.name)\(start))"
    default: return "\(activation.name)(\(outputs)\(activation.slopeText)\(start))"
    }
  }

  public func operations(for input: Shape) throws -> [LayerOperation] {
    try requirePositive(outputs, "outputs", in: text)
    guard input.height == 1 && input.width == 1 else {
      throw StrideNetError(
        .badData, "a dense layer takes flat vectors", at: text, found: "an input of \(input)",
        expected: "\(input.count) values in a row", hint: "put a flatten layer before it")
    }
    let weight = ParameterShape(
      "weight", shape: [outputs, input.count], initializer ?? activation.initializer,
      fanIn: input.count, fanOut: outputs)
    return [
      LayerOperation(
        .multiply, input, Shape(outputs),
        [weight, ParameterShape("bias", shape: [outputs], .constant(0))], activation: activation)
    ]
  }
}

/// The passes of a dense layer.
final class DenseNode: Node {
  private let activation: ActivationPass
  private let weight, bias: Parameter
  private var outputs: Int { bias.count }
  // The weights as the forward pass wants them, where it doesn't take them as they are.
  private var ready = FloatStorage.empty
  private var factors: DenseFactors?

  init(_ operation: Bound) {
    activation = ActivationPass(operation.activation)
    (weight, bias) = (operation.parameters[0], operation.parameters[1])
  }

  override func reserve(
    batch: Int, input: Shape, output: Shape, runtime: Runtime, training: Bool
  ) throws {
    try activation.reserve(batch * outputs)
    let precision = runtime.kernels.precision
    try runtime.reserveScratch(Kernels.gemmWorkspace(precision))
    let count = Kernels.denseReadyCount(precision, outputs: outputs, inputs: input.count)
    if ready.count < count { ready = try FloatStorage(count: count) }
  }

  override func forward(_ x: TensorView, _ y: TensorView, _ pass: Pass) {
    let relu = activation.function.isRelu
    if pass.training { factors = pass.exchange?.begin(weight, inputs: x) }
    let isReady = ready.count > 0
    if isReady && !pass.keepsWeights {
      Kernels.makeDenseReady(
        pass.runtime, outputs: outputs, inputs: x.shape.count, weight.value, ready.pointer)
    }
    Kernels.denseForward(
      pass.runtime, x, isReady ? Kernels.Floats(ready.pointer) : Kernels.Floats(weight.value),
      bias.value, relu: relu, y)
    if !relu { activation.forward(y, pass) }
  }

  override func backward(
    _ x: TensorView, _ y: TensorView, _ dy: TensorView, _ dx: TensorView?, _ pass: Pass
  ) {
    activation.backward(y, dy, pass)
    pass.times?.lap(.activationGradient)
    if let dx {
      // dx (batch, inputs) = dy · w
      Kernels.gemm(
        pass.runtime, m: x.batch, n: x.shape.count, k: outputs,
        dy.pointer, weight.value, dx.pointer)
      pass.times?.lap(.inputGradient)
    }
    if let exchange = pass.exchange, let factors {
      exchange.give(weight, bias, factors, outputGradients: dy)
      pass.times?.lap(.weightGradient)
      return
    }
    // dw (outputs, inputs) = dyᵀ · x
    Kernels.gemm(
      pass.runtime, transposeA: true, m: outputs, n: x.shape.count, k: x.batch,
      dy.pointer, x.pointer, weight.gradient, update: pass.update.map { ($0, weight, 0) })
    Kernels.columnSum(rows: x.batch, count: outputs, dy.pointer, bias.gradient)
    pass.update?.apply(bias, 0..<outputs)
    pass.times?.lap(.weightGradient)
  }

  override func cost(_ pass: LayerPass, _ input: Shape, _ output: Shape, _ runtime: Runtime)
    -> PassCost?
  {
    let all = weight.count + bias.count
    switch pass {
    case .activationGradient: return activation.cost(output)
    case .backward: return nil
    case .forward, .inputGradient, .weightGradient:
      let updates = pass == .weightGradient
      return PassCost(
        kernel: runtime.kernels.precision == .bf16
          ? "gemm_bf16" : pass == .forward ? "dense_forward" : "gemm", updates: updates,
        why: PassCost.onlyKernel, operations: 2 * Double(input.count * outputs),
        inputs: Double(input.count), outputs: Double(outputs),
        // Weights and velocities are read and written.
        weights: updates ? 5 * all : all)
    }
  }

  override var updatesInBackward: Bool { true }
}

/// An activation as a layer of its own: for networks that have something between it and what came
/// before.
public struct Activate: Layer {
  package let activation: Activation

  public init(_ activation: Activation) { self.activation = activation }

  public var text: String { "activation(\(activation.name)\(activation.slopeText))" }

  public func operations(for input: Shape) throws -> [LayerOperation] {
    [LayerOperation(.activate, input, input, activation: activation)]
  }
}

final class ActivationNode: Node {
  private let activation: ActivationPass

  init(_ operation: Bound) { activation = ActivationPass(operation.activation) }

  override func reserve(
    batch: Int, input: Shape, output: Shape, runtime: Runtime, training: Bool
  ) throws {
    try activation.reserve(batch * output.count)
  }

  override func forward(_ x: TensorView, _ y: TensorView, _ pass: Pass) {
    y.pointer.update(from: x.pointer, count: x.count)
    activation.forward(y, pass)
  }

  override func backward(
    _ x: TensorView, _ y: TensorView, _ dy: TensorView, _ dx: TensorView?, _ pass: Pass
  ) {
    guard let dx else { return }
    activation.backward(y, dy, pass)
    dx.pointer.update(from: dy.pointer, count: dy.count)
    pass.times?.lap(.inputGradient)
  }

  override func cost(_ pass: LayerPass, _ input: Shape, _ output: Shape, _ runtime: Runtime)
    -> PassCost?
  {
    guard pass == .forward || pass == .inputGradient else { return nil }
    return PassCost(
      kernel: activation.function.isNone
        ? "copy" : activation.kernel(backward: pass == .inputGradient),
      why: PassCost.onlyKernel, inputs: Double(input.count), outputs: Double(output.count))
  }
}
