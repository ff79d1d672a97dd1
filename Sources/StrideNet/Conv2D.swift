import CKernels

/// Two-dimensional convolution (cross-correlation, as everywhere in this field):
///
///     y[p,q,f] = activation(bias[f] + Σ i,j,c  x[p·stride + i − padding, q·stride + j − padding, c] · w[i,j,c,f])
///
/// The output is ⌊(input + 2·padding − size) / stride⌋ + 1 on each axis.
public final class Conv2D: ImageLayer {
  public let filters: Int
  /// Height and width of the filters.
  public let size: (height: Int, width: Int)
  public let stride: (height: Int, width: Int)
  public let padding: (height: Int, width: Int)
  private let activation: ActivationPass
  private let initializer: Initializer?

  /// (FH, FW, C, F)
  public private(set) var weight: Parameter!
  /// (F)
  public private(set) var bias: Parameter!
  private var partialSums = FloatStorage(count: 0)
  private var kernelScratch = 0

  public convenience init(
    _ filters: Int, _ size: Int, stride: Int = 1, padding: Int = 0, activation: Activation = .relu,
    initializer: Initializer? = nil
  ) {
    self.init(
      filters, (size, size), stride: (stride, stride), padding: (padding, padding),
      activation: activation, initializer: initializer)
  }

  public init(
    _ filters: Int, _ size: (height: Int, width: Int), stride: (height: Int, width: Int) = (1, 1),
    padding: (height: Int, width: Int) = (0, 0), activation: Activation = .relu,
    initializer: Initializer? = nil
  ) {
    self.filters = filters
    self.size = size
    self.stride = stride
    self.padding = padding
    self.activation = ActivationPass(activation)
    self.initializer = initializer
  }

  public override var parameters: [Parameter] { weight == nil ? [] : [weight, bias] }
  public override var finalActivation: Activation { activation.activation }

  public override var text: String {
    var arguments = ["\(filters)", pair(size)]
    if stride != (1, 1) { arguments.append("stride=\(pair(stride))") }
    if padding != (0, 0) { arguments.append("padding=\(pair(padding))") }
    if !activation.activation.isRelu {
      arguments.append(
        "activation=\(activation.activation.name)\(activation.activation.slopeText)")
    }
    if let initializer { arguments.append("init=\(initializer.text)") }
    return "conv(\(arguments.joined(separator: ",")))"
  }

  public override func build(for input: Shape, runtime: Runtime) throws -> Shape {
    try requirePositive(filters, "filters", in: text)
    let (rows, columns) = try windows(
      over: input, size: size, stride: stride, padding: padding, in: text)
    // Before anything is multiplied: windows may be so large that the products don't fit 64 bits.
    let shape = [size.height, size.width, input.channels, filters]
    guard let count = IDX.product(shape), count <= 1 << 31 else {
      throw StrideNetError(
        .badData, "layer too large", at: text,
        found: "weights of " + shape.map(String.init).joined(separator: "×"),
        expected: "at most 2³¹ weights")
    }
    let window = size.height * size.width
    weight = Parameter(
      "weight", shape: shape,
      initializer ?? activation.activation.initializer,
      fanIn: window * input.channels, fanOut: window * filters)
    bias = Parameter("bias", shape: [filters], .constant(0))
    return Shape(rows, columns, filters)
  }

  public override func reserve(batch: Int, input: Shape, output: Shape, runtime: Runtime) {
    activation.reserve(batch * output.count)
    let shape = kernelShape(imagesAtATime, input, output)
    kernelScratch =
      [CK_FORWARD, CK_INPUT_GRADIENT, CK_WEIGHT_GRADIENT].map { pass in
        runtime.kernels.convolution(shape, pass).variant.workspace(shape, pass)
      }.max()!.roundedUp
    runtime.reserveScratch(scratchCount)
    let needed = Self.pieces(batch) * gradientCount
    if partialSums.count < needed { partialSums = FloatStorage(count: needed) }
  }

  /// A layer of the same kind with another activation.
  private func copy(activation: Activation) -> Conv2D {
    Conv2D(
      filters, size, stride: stride, padding: padding, activation: activation,
      initializer: initializer)
  }

  override var forInference: Layer {
    let other = copy(activation: activation.activation)
    (other.weight, other.bias) = (weight, bias)
    return other
  }

  /// A copy with weights of its own, for a linear function that follows and its activation; nil
  /// where something else lies between.
  func folded(activation next: Activation) -> Conv2D? {
    guard activation.activation.name == Activation.none.name else { return nil }
    let other = copy(activation: next)
    let memory = FloatStorage(count: weight.count + filters)
    other.ownWeights = memory
    other.weight = Parameter("weight", shape: weight.shape, weight.initializer)
    other.bias = Parameter("bias", shape: bias.shape, bias.initializer)
    other.weight.value = memory.pointer
    other.bias.value = memory.pointer + weight.count
    return other
  }
  // Where a copy's weights are that isn't one of the network's layers.
  private var ownWeights: FloatStorage?

  /// Images whose outputs stay in a second-level cache.
  static func imagesAtATime(_ output: Shape) -> Int { min(8, max(1, 100_352 / output.count)) }

  // ReLU is part of the kernels' forward pass.
  var isRelu: Bool { activation.activation.isRelu }
  /// Whether kernels do all there is to do.
  var isPlain: Bool { isRelu || activation.activation.name == Activation.none.name }
  /// Whether the pooling behind sends no gradient back where ReLU's is 0.
  var leavesReluToPooling = false

  private var gradientCount: Int { weight.count + filters }
  /// Where a part's gradient goes before it is added lies behind the kernels' workspace.
  override var scratchCount: Int { (kernelScratch + gradientCount).roundedUp }

  public override func forward(_ x: TensorView, _ y: TensorView, _ pass: Pass) {
    super.forward(x, y, pass)
    if !isPlain && !leavesSoftmaxToLoss { activation.forward(y, pass) }
  }

  public override func backward(
    _ x: TensorView, _ y: TensorView, _ dy: TensorView, _ dx: TensorView?, _ pass: Pass
  ) {
    if !isPlain && !leavesSoftmaxToLoss {
      activation.backward(y, dy, pass)
      pass.times?.lap(.activationGradient)
    }
    super.backward(x, y, dy, dx, pass)
  }

  override func cost(_ pass: LayerPass, _ input: Shape, _ output: Shape, _ runtime: Runtime)
    -> PassCost?
  {
    let kernelPass: ck_pass
    switch pass {
    case .forward: kernelPass = CK_FORWARD
    case .inputGradient: kernelPass = CK_INPUT_GRADIENT
    case .weightGradient: kernelPass = CK_WEIGHT_GRADIENT
    case .activationGradient: return leavesSoftmaxToLoss ? nil : activation.cost(output)
    case .backward: return nil
    }
    let shape = kernelShape(imagesAtATime, input, output)
    let choice = runtime.kernels.convolution(shape, kernelPass)
    return PassCost(
      kernel: "conv_\(kernelPass.name)_\(choice.variant.variant.name)", why: "\(choice.why)",
      operations: shape.operations / Double(shape.n), inputs: Double(input.count),
      outputs: Double(output.count), weights: gradientCount)
  }

  override func forward(_ x: TensorView, _ y: TensorView, _ part: Part) {
    let shape = kernelShape(x.batch, x.shape, y.shape)
    part.runtime.kernels.convolution(shape, CK_FORWARD).variant.forward(
      shape, x.pointer, weight.value, bias: bias.value, relu: isRelu, y.pointer, part.scratch)
    part.lap(.forward)
  }

  /// This layer and the pooling behind it in one kernel; false where there is none for them.
  func forward(_ x: TensorView, between: Shape, _ pooling: MaxPool2D, _ y: TensorView, _ part: Part)
    -> Bool
  {
    guard pooling.size == (2, 2) && pooling.stride == (2, 2) else { return false }
    let shape = kernelShape(x.batch, x.shape, between)
    guard
      part.runtime.kernels.convolution(shape, CK_FORWARD).variant.forwardPooled(
        shape, x.pointer, weight.value, bias: bias.value, relu: isRelu, y.pointer,
        part.training ? pooling.places(of: y, part) : nil, part.scratch)
    else { return false }
    part.lap(.forward)
    return true
  }

  override func backward(
    _ x: TensorView, _ y: TensorView, _ dy: TensorView, _ dx: TensorView?, _ part: Part
  ) {
    let shape = kernelShape(x.batch, x.shape, y.shape)
    let kernels = part.runtime.kernels
    if isRelu && !leavesReluToPooling {
      Kernels.reluBackward(dy.count, y: y.pointer, dy.pointer, dy.pointer)
      part.lap(.activationGradient)
    }
    let sum = partialSums.pointer + part.piece * gradientCount
    let gradient = part.isFirst ? sum : part.scratch + kernelScratch
    kernels.convolution(shape, CK_WEIGHT_GRADIENT).variant.weightGradient(
      shape, x.pointer, dy.pointer, gradient, part.scratch)
    Kernels.columnSum(
      rows: dy.count / filters, count: filters, dy.pointer, gradient + weight.count)
    if !part.isFirst { Kernels.add(gradientCount, gradient, to: sum) }
    part.lap(.weightGradient)
    if let dx {
      kernels.convolution(shape, CK_INPUT_GRADIENT).variant.inputGradient(
        shape, dy.pointer, weight.value, dx.pointer, part.scratch)
      part.lap(.inputGradient)
    }
  }

  override func addPieces(_ count: Int, _ runtime: Runtime) {
    runtime.parallel(over: gradientCount, by: 4096, (self, count)) { context, range, _ in
      let (layer, count) = context
      let sum = layer.partialSums.pointer + range.lowerBound
      for piece in 1..<max(count, 1) {
        Kernels.add(range.count, sum + piece * layer.gradientCount, to: sum)
      }
    }
    weight.gradient.update(from: partialSums.pointer, count: weight.count)
    bias.gradient.update(from: partialSums.pointer + weight.count, count: filters)
  }

  private func kernelShape(_ images: Int, _ input: Shape, _ output: Shape) -> ck_conv_shape {
    ck_conv_shape(
      n: Int32(images), h: Int32(input.height), w: Int32(input.width), c: Int32(input.channels),
      fh: Int32(size.height), fw: Int32(size.width), f: Int32(filters),
      sh: Int32(stride.height), sw: Int32(stride.width),
      ph: Int32(padding.height), pw: Int32(padding.width),
      oh: Int32(output.height), ow: Int32(output.width))
  }
}

extension Int {
  /// Up to a whole number of cache lines of floats.
  var roundedUp: Int { (self + 15) & ~15 }
}

/// "3" where both are the same, else "3x5".
func pair(_ p: (height: Int, width: Int)) -> String {
  p.height == p.width ? "\(p.height)" : "\(p.height)x\(p.width)"
}

func requirePositive(_ value: Int, _ name: String, in layer: String) throws {
  guard value > 0 && value <= 1 << 24 else {
    throw StrideNetError(
      .badData, "\(name) out of range", at: layer, found: "\(value)", expected: "1 … \(1 << 24)")
  }
}

/// Output rows and columns of windows that slide over `input`.
/// - Throws: ``StrideNetError`` naming the layer and both sizes where they don't fit
func windows(
  over input: Shape, size: (height: Int, width: Int), stride: (height: Int, width: Int),
  padding: (height: Int, width: Int), in layer: String
) throws -> (rows: Int, columns: Int) {
  for (value, name) in [(size.height, "size"), (size.width, "size")] {
    try requirePositive(value, name, in: layer)
  }
  for value in [stride.height, stride.width] { try requirePositive(value, "stride", in: layer) }
  for (value, size) in [(padding.height, size.height), (padding.width, size.width)]
  where value < 0 || value >= size {
    throw StrideNetError(
      .badData, "padding out of range", at: layer, found: "\(value)", expected: "0 … \(size - 1)",
      hint: "more padding than that would make windows of zeros alone")
  }
  let padded = (input.height + 2 * padding.height, input.width + 2 * padding.width)
  guard size.height <= padded.0 && size.width <= padded.1 else {
    throw StrideNetError(
      .badData, "a window is larger than its input", at: layer,
      found: "windows of \(size.height)×\(size.width) over an input of \(input)"
        + (padding == (0, 0) ? "" : " padded to \(padded.0)×\(padded.1)"),
      expected: "windows of at most \(padded.0)×\(padded.1)",
      hint: "take a smaller window, more padding, or fewer layers that shrink the image before it")
  }
  return (
    (padded.0 - size.height) / stride.height + 1, (padded.1 - size.width) / stride.width + 1
  )
}
