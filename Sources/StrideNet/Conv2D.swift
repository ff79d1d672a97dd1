import CKernels

/// Two-dimensional convolution (cross-correlation, as everywhere in this field):
///
///     y[p,q,f] = activation(bias[f] + Σ i,j,c  x[p·stride + i − padding, q·stride + j − padding, c] · w[i,j,c,f])
///
/// The output is ⌊(input + 2·padding − size) / stride⌋ + 1 on each axis.
public final class Conv2D: Layer {
  public let filters: Int
  /// Height and width of the filters.
  public let size: (height: Int, width: Int)
  public let stride: (height: Int, width: Int)
  public let padding: (height: Int, width: Int)
  private let activation: ActivationPass

  /// (FH, FW, C, F)
  public private(set) var weight: Parameter!
  /// (F)
  public private(set) var bias: Parameter!
  private var partialSums = FloatStorage(count: 0)

  public convenience init(
    _ filters: Int, _ size: Int, stride: Int = 1, padding: Int = 0, activation: Activation = .relu
  ) {
    self.init(
      filters, (size, size), stride: (stride, stride), padding: (padding, padding),
      activation: activation)
  }

  public init(
    _ filters: Int, _ size: (height: Int, width: Int), stride: (height: Int, width: Int) = (1, 1),
    padding: (height: Int, width: Int) = (0, 0), activation: Activation = .relu
  ) {
    self.filters = filters
    self.size = size
    self.stride = stride
    self.padding = padding
    self.activation = ActivationPass(activation)
  }

  public override var parameters: [Parameter] { weight == nil ? [] : [weight, bias] }
  public override var finalActivation: Activation { activation.activation }

  public override var text: String {
    var arguments = ["\(filters)", pair(size)]
    if stride != (1, 1) { arguments.append("stride=\(pair(stride))") }
    if padding != (0, 0) { arguments.append("padding=\(pair(padding))") }
    if !activation.activation.isRelu {
      arguments.append("activation=\(activation.activation.name)")
    }
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
      activation.activation.initializer(
        fanIn: window * input.channels, fanOut: window * filters))
    bias = Parameter("bias", shape: [filters], .constant(0))
    return Shape(rows, columns, filters)
  }

  public override func reserve(batch: Int, input: Shape, output: Shape, runtime: Runtime) {
    activation.reserve(batch * output.count)
    let forward = kernelShape(imagesAPiece, input, output)
    let gradient = kernelShape(imagesAGradientPiece(batch), input, output)
    for (shape, pass) in [
      (forward, CK_FORWARD), (forward, CK_INPUT_GRADIENT), (gradient, CK_WEIGHT_GRADIENT),
    ] {
      runtime.reserveScratch(runtime.kernels.convolution(shape, pass).workspace(shape, pass))
    }
    let needed = gradientPieces(batch) * (weight.count + filters)
    if partialSums.count < needed { partialSums = FloatStorage(count: needed) }
  }

  public override func forward(_ x: TensorView, _ y: TensorView, _ pass: Pass) {
    pass.runtime.parallel(over: x.batch, by: imagesAPiece, (self, x, y, pass.runtime)) {
      context, range, worker in
      let (layer, x, y, runtime) = context
      let shape = layer.kernelShape(range.count, x.shape, y.shape)
      runtime.kernels.convolution(shape, CK_FORWARD).forward(
        shape, x.example(range.lowerBound), layer.weight.value, bias: layer.bias.value,
        y.example(range.lowerBound), runtime.scratch(worker))
    }
    if !leavesSoftmaxToLoss { activation.forward(y, pass) }
  }

  public override func backward(
    _ x: TensorView, _ y: TensorView, _ dy: TensorView, _ dx: TensorView?, _ pass: Pass
  ) {
    let runtime = pass.runtime
    if !leavesSoftmaxToLoss { activation.backward(y, dy, pass) }
    if let dx {
      runtime.parallel(over: x.batch, by: imagesAPiece, (self, dx, dy, runtime)) {
        context, range, worker in
        let (layer, dx, dy, runtime) = context
        let shape = layer.kernelShape(range.count, dx.shape, dy.shape)
        runtime.kernels.convolution(shape, CK_INPUT_GRADIENT).inputGradient(
          shape, dy.example(range.lowerBound), layer.weight.value, dx.example(range.lowerBound),
          runtime.scratch(worker))
      }
    }
    // Each piece of the batch gives a sum of its own; they are added in the pieces' order.
    let (weights, each) = (weight.count, weight.count + filters)
    let size = imagesAGradientPiece(x.batch)
    let sums = partialSums.pointer
    runtime.parallel(over: x.batch, by: size, (self, x, dy, sums, size, runtime)) {
      context, range, worker in
      let (layer, x, dy, sums, size, runtime) = context
      let shape = layer.kernelShape(range.count, x.shape, dy.shape)
      let weights = layer.weight.count
      let sum = sums + range.lowerBound / size * (weights + layer.filters)
      runtime.kernels.convolution(shape, CK_WEIGHT_GRADIENT).weightGradient(
        shape, x.example(range.lowerBound), dy.example(range.lowerBound), sum,
        runtime.scratch(worker))
      Kernels.columnSum(
        rows: range.count * dy.shape.height * dy.shape.width, count: layer.filters,
        dy.example(range.lowerBound), sum + weights)
    }
    let pieces = (x.batch + size - 1) / size
    for piece in 1..<max(pieces, 1) { Kernels.add(each, sums + piece * each, to: sums) }
    weight.gradient.update(from: sums, count: weights)
    bias.gradient.update(from: sums + weights, count: filters)
  }

  // How a batch is cut: by the batch alone, never by the number of threads.
  private let imagesAPiece = 8
  private func imagesAGradientPiece(_ batch: Int) -> Int { max(1, (batch + 15) / 16) }
  private func gradientPieces(_ batch: Int) -> Int {
    let size = imagesAGradientPiece(batch)
    return (batch + size - 1) / size
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
