/// Every output is a weighted sum of all inputs: y = activation(x·wᵀ + bias).
public final class Dense: Layer {
  public let outputs: Int
  private let activation: ActivationPass
  private let initializer: Initializer?

  /// (outputs, inputs)
  public private(set) var weight: Parameter!
  /// (outputs)
  public private(set) var bias: Parameter!

  /// Without an `initializer` the weights start by He's before ReLU and its like, else by Glorot's,
  /// uniform.
  public init(_ outputs: Int, activation: Activation = .relu, initializer: Initializer? = nil) {
    self.outputs = outputs
    self.activation = ActivationPass(activation)
    self.initializer = initializer
  }

  public override var parameters: [Parameter] { weight == nil ? [] : [weight, bias] }
  public override var finalActivation: Activation { activation.activation }

  public override var text: String {
    let name = activation.activation.name
    let start = initializer.map { ",init=\($0.text)" } ?? ""
    switch activation.activation.kind {
    case .none: return "dense(\(outputs)\(start))"
    case .own: return "dense(\(outputs),activation=\(name)\(start))"
    default: return "\(name)(\(outputs)\(activation.activation.slopeText)\(start))"
    }
  }

  public override func build(for input: Shape, runtime: Runtime) throws -> Shape {
    try requirePositive(outputs, "outputs", in: text)
    guard input.height == 1 && input.width == 1 else {
      throw StrideNetError(
        .badData, "a dense layer takes flat vectors", at: text, found: "an input of \(input)",
        expected: "\(input.count) values in a row", hint: "put a flatten layer before it")
    }
    weight = Parameter(
      "weight", shape: [outputs, input.count],
      initializer ?? activation.activation.initializer, fanIn: input.count, fanOut: outputs)
    bias = Parameter("bias", shape: [outputs], .constant(0))
    return Shape(outputs)
  }

  public override func reserve(batch: Int, input: Shape, output: Shape, runtime: Runtime) throws {
    try activation.reserve(batch * outputs)
    try runtime.reserveScratch(Kernels.gemmWorkspace)
  }

  public override func forward(_ x: TensorView, _ y: TensorView, _ pass: Pass) {
    let relu = activation.activation.isRelu
    Kernels.denseForward(pass.runtime, x, weight.value, bias.value, relu: relu, y)
    if !relu && !leavesSoftmaxToLoss { activation.forward(y, pass) }
  }

  public override func backward(
    _ x: TensorView, _ y: TensorView, _ dy: TensorView, _ dx: TensorView?, _ pass: Pass
  ) {
    if !leavesSoftmaxToLoss { activation.backward(y, dy, pass) }
    pass.times?.lap(.activationGradient)
    if let dx {
      // dx (batch, inputs) = dy · w
      Kernels.gemm(
        pass.runtime, m: x.batch, n: x.shape.count, k: outputs,
        dy.pointer, weight.value, dx.pointer)
      pass.times?.lap(.inputGradient)
    }
    // dw (outputs, inputs) = dyᵀ · x
    Kernels.gemm(
      pass.runtime, transposeA: true, m: outputs, n: x.shape.count, k: x.batch,
      dy.pointer, x.pointer, weight.gradient, update: pass.update.map { ($0, weight) })
    Kernels.columnSum(rows: x.batch, count: outputs, dy.pointer, bias.gradient)
    pass.update?.apply(bias, 0..<outputs)
    pass.times?.lap(.weightGradient)
  }

  override func cost(_ pass: LayerPass, _ input: Shape, _ output: Shape, _ runtime: Runtime)
    -> PassCost?
  {
    let all = weight.count + bias.count
    switch pass {
    case .activationGradient: return leavesSoftmaxToLoss ? nil : activation.cost(output)
    case .backward: return nil
    case .forward, .inputGradient, .weightGradient:
      let updates = pass == .weightGradient
      return PassCost(
        kernel: pass == .forward ? "dense_forward" : updates ? "gemm, update" : "gemm",
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
public final class Activate: Layer {
  private let activation: ActivationPass

  public init(_ activation: Activation) { self.activation = ActivationPass(activation) }

  public override var text: String {
    "activation(\(activation.activation.name)\(activation.activation.slopeText))"
  }
  public override var finalActivation: Activation { activation.activation }

  public override func reserve(batch: Int, input: Shape, output: Shape, runtime: Runtime) throws {
    try activation.reserve(batch * output.count)
  }

  public override func forward(_ x: TensorView, _ y: TensorView, _ pass: Pass) {
    y.pointer.update(from: x.pointer, count: x.count)
    if !leavesSoftmaxToLoss { activation.forward(y, pass) }
  }

  public override func backward(
    _ x: TensorView, _ y: TensorView, _ dy: TensorView, _ dx: TensorView?, _ pass: Pass
  ) {
    guard let dx else { return }
    if !leavesSoftmaxToLoss { activation.backward(y, dy, pass) }
    dx.pointer.update(from: dy.pointer, count: dy.count)
    pass.times?.lap(.inputGradient)
  }

  override func cost(_ pass: LayerPass, _ input: Shape, _ output: Shape, _ runtime: Runtime)
    -> PassCost?
  {
    guard pass == .forward || pass == .inputGradient else { return nil }
    return PassCost(
      kernel: leavesSoftmaxToLoss ? "copy" : activation.kernel(backward: pass == .inputGradient),
      why: PassCost.onlyKernel, inputs: Double(input.count), outputs: Double(output.count))
  }
}
