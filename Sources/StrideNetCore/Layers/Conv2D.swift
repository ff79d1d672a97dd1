import CKernels

/// Zeros around an image; around a max-pooling's, what is smaller than any number.
public enum Padding: Sendable, Equatable, ExpressibleByIntegerLiteral {
  /// None.
  case valid
  /// As many as it takes for ⌈input / stride⌉ outputs: with stride 1 the output is as large as the
  /// input. Where their number is odd, the one more is below and to the right, as in TensorFlow and
  /// (with stride 1, the only one that it takes) in PyTorch.
  case same
  case explicit(top: Int, left: Int, bottom: Int, right: Int)

  /// So many above and below, and so many to the left and to the right.
  public static func explicit(_ height: Int, _ width: Int) -> Padding {
    .explicit(top: height, left: width, bottom: height, right: width)
  }

  /// So many on each side; as a number, `padding: 1`, too.
  public static func explicit(_ size: Int) -> Padding { .explicit(size, size) }

  public init(integerLiteral value: Int) { self = .explicit(value) }

  /// As after `padding=`: "same", "1", "1x2", "0x0x1x1".
  var text: String {
    switch self {
    case .valid: "0"
    case .same: "same"
    case .explicit(let top, let left, let bottom, let right):
      (top, left) == (bottom, right)
        ? pair((top, left)) : [top, left, bottom, right].map(String.init).joined(separator: "x")
    }
  }
}

/// Two-dimensional convolution (cross-correlation, as everywhere in this field):
///
///     y[p,q,f] = activation(bias[f] + Σ i,j,c  x[p·stride + i·dilation − top, q·stride + j·dilation − left, g·C/groups + c] · w[i,j,c,f])
///
/// where f is one of the filters of group g. The output is
/// ⌊(input + padding − dilation·(size − 1) − 1) / stride⌋ + 1 on each axis.
public struct Conv2D: Layer {
  package let filters: Int
  /// Height and width of the filters.
  package let size: (height: Int, width: Int)
  package let stride: (height: Int, width: Int)
  package let padding: Padding
  /// The distance between neighbouring elements of a window (Yu & Koltun 2016, arXiv:1511.07122).
  package let dilation: (height: Int, width: Int)
  /// Channels and filters are divided into so many groups; a group's filters see its channels alone.
  /// With as many as there are channels and filters the convolution is depthwise (Chollet 2017,
  /// arXiv:1610.02357).
  package let groups: Int
  package let activation: Activation
  /// How the weights start; nil for He's before ReLU and its like, else Glorot's, uniform.
  package let initializer: Initializer?

  public init(
    _ filters: Int, _ size: Int, stride: Int = 1, padding: Padding = .valid, dilation: Int = 1,
    groups: Int = 1, activation: Activation = .relu, initializer: Initializer? = nil
  ) {
    self.init(
      filters, (size, size), stride: (stride, stride), padding: padding,
      dilation: (dilation, dilation), groups: groups, activation: activation,
      initializer: initializer)
  }

  public init(
    _ filters: Int, _ size: (height: Int, width: Int), stride: (height: Int, width: Int) = (1, 1),
    padding: Padding = .valid, dilation: (height: Int, width: Int) = (1, 1), groups: Int = 1,
    activation: Activation = .relu, initializer: Initializer? = nil
  ) {
    (self.filters, self.size, self.stride, self.padding) = (filters, size, stride, padding)
    (self.dilation, self.groups) = (dilation, groups)
    (self.activation, self.initializer) = (activation, initializer)
  }

  public var text: String {
    var arguments = ["\(filters)", pair(size)]
    if stride != (1, 1) { arguments.append("stride=\(pair(stride))") }
    if padding != .valid && padding != 0 { arguments.append("padding=\(padding.text)") }
    if dilation != (1, 1) { arguments.append("dilation=\(pair(dilation))") }
    if groups != 1 { arguments.append("groups=\(groups)") }
    if !activation.isRelu {
      arguments.append("activation=\(activation.name)\(activation.slopeText)")
    }
    if let initializer { arguments.append("init=\(initializer.text)") }
    return "conv(\(arguments.joined(separator: ",")))"
  }

  public func operations(for input: Shape) throws -> [LayerOperation] {
    try requirePositive(filters, "filters", in: text)
    try requirePositive(groups, "groups", in: text)
    guard input.channels % groups == 0 && filters % groups == 0 else {
      throw StrideNetError(
        .badData, "groups that channels and filters can't be divided into", at: text,
        found: "\(groups) groups of \(input.channels) channels and \(filters) filters",
        expected: "a number that divides both")
    }
    let output = try windows(
      over: input, size: size, stride: stride, padding: padding, dilation: dilation, in: text)
    let channels = input.channels / groups
    // Before anything is multiplied: windows may be so large that the products don't fit 64 bits.
    let shape = [size.height, size.width, channels, filters]
    guard let count = Shape.product(shape), count <= 1 << 31 else {
      throw StrideNetError(
        .badData, "layer too large", at: text,
        found: "weights of " + shape.map(String.init).joined(separator: "×"),
        expected: "at most 2³¹ weights")
    }
    let window = size.height * size.width
    let weight = ParameterShape(
      "weight", shape: shape, initializer ?? activation.initializer,
      fanIn: window * channels, fanOut: window * filters / groups)
    return [
      LayerOperation(
        .convolve(self, start: (output.zeros.top, output.zeros.left)), input,
        Shape(output.rows, output.columns, filters),
        [weight, ParameterShape("bias", shape: [filters], .constant(0))], activation: activation)
    ]
  }

  /// The zeros around this input, as many as matter.
  package func zeros(_ input: Shape, _ output: Shape, start: (top: Int, left: Int)) -> (
    top: Int, left: Int, bottom: Int, right: Int
  ) {
    if case .explicit(let top, let left, let bottom, let right) = padding {
      return (top, left, bottom, right)
    }
    func end(_ outputs: Int, _ stride: Int, _ dilation: Int, _ size: Int, _ length: Int) -> Int {
      max(0, (outputs - 1) * stride + dilation * (size - 1) + 1 - length)
    }
    return (
      start.top, start.left,
      end(output.height, stride.height, dilation.height, size.height, input.height + start.top),
      end(output.width, stride.width, dilation.width, size.width, input.width + start.left)
    )
  }

  /// Images whose outputs stay in a second-level cache; more where there are so many weights that
  /// reading them, and adding up their gradients, takes longer than what leaves the cache.
  static func imagesAtATime(_ output: Shape, weights: Int) -> Int {
    hasMany(weights) ? 8 : min(8, max(1, 100_352 / output.count))
  }
  static func hasMany(_ weights: Int) -> Bool { weights > 1 << 17 }

  /// As the kernels take it.
  func kernelShape(
    _ images: Int, _ input: Shape, _ output: Shape, _ start: (top: Int, left: Int)
  ) -> ck_conv_shape {
    ck_conv_shape(
      n: Int32(images), h: Int32(input.height), w: Int32(input.width), c: Int32(input.channels),
      fh: Int32(size.height), fw: Int32(size.width), f: Int32(filters),
      sh: Int32(stride.height), sw: Int32(stride.width),
      ph: Int32(start.top), pw: Int32(start.left),
      oh: Int32(output.height), ow: Int32(output.width),
      dh: Int32(dilation.height), dw: Int32(dilation.width), groups: Int32(groups))
  }

  /// Floats that the weights made ready for the kernels of a pass take, whatever the images.
  func readyCount(
    _ pass: ck_pass, _ input: Shape, _ output: Shape, _ start: (top: Int, left: Int),
    _ kernels: KernelChoice
  ) -> Int {
    let shape = kernelShape(1, input, output, start)
    return kernels.convolution(shape, pass).variant.readyCount(shape, pass).roundedUp
  }

  /// Floats that the kernels need beside their arguments, for as many images as pass at a time.
  func workspace(
    _ images: Int, _ input: Shape, _ output: Shape, _ start: (top: Int, left: Int),
    _ kernels: KernelChoice
  ) -> Int {
    let shape = kernelShape(images, input, output, start)
    return [CK_FORWARD, CK_INPUT_GRADIENT, CK_WEIGHT_GRADIENT].map { pass in
      kernels.convolution(shape, pass).variant.scratch(shape, pass)
    }.max()!.roundedUp
  }
}

/// The passes of a convolution.
final class ConvolutionNode: ImageNode {
  let layer: Conv2D
  private let start: (top: Int, left: Int)
  private let activation: ActivationPass
  let weight, bias: Parameter
  private var partialSums = FloatStorage.empty
  private var kernelScratch = 0
  // The weights as the kernels of the two passes want them, where those don't take them as they are.
  private var readyForward = FloatStorage.empty, readyBackward = FloatStorage.empty

  init(_ layer: Conv2D, start: (top: Int, left: Int), _ operation: Bound) {
    (self.layer, self.start) = (layer, start)
    activation = ActivationPass(operation.activation)
    (weight, bias) = (operation.parameters[0], operation.parameters[1])
  }

  override func reserve(
    batch: Int, input: Shape, output: Shape, runtime: Runtime, training: Bool
  ) throws {
    try activation.reserve(batch * output.count)
    kernelScratch = layer.workspace(imagesAtATime, input, output, start, runtime.kernels)
    func reserve(_ ready: inout FloatStorage, _ pass: ck_pass) throws {
      let count = layer.readyCount(pass, input, output, start, runtime.kernels)
      if ready.count < count { ready = try FloatStorage(count: count) }
    }
    try reserve(&readyForward, CK_FORWARD)
    if training { try reserve(&readyBackward, CK_INPUT_GRADIENT) }
    try runtime.reserveScratch(scratchCount)
    let needed = mostPieces(upTo: batch, runtime) * gradientCount
    if partialSums.count < needed { partialSums = try FloatStorage(count: needed) }
  }

  // ReLU is part of the kernels' forward pass.
  var isRelu: Bool { activation.function.isRelu }
  /// Whether kernels do all there is to do.
  private var isPlain: Bool { activation.function.isPlain }
  /// Whether the pooling behind sends no gradient back where ReLU's is 0.
  var leavesReluToPooling = false

  private var gradientCount: Int { weight.count + layer.filters }
  /// Where a part's gradient goes before it is added lies behind the kernels' workspace.
  override var scratchCount: Int { (kernelScratch + gradientCount).roundedUp }

  override func forward(_ x: TensorView, _ y: TensorView, _ pass: Pass) {
    if isCut(x, y.shape, pass) {
      if !pass.keepsWeights { makeReady(CK_FORWARD, x.shape, y.shape, pass.runtime.kernels) }
      forward(x, y.shape, nil, y, cut: pass)
    } else {
      super.forward(x, y, pass)
    }
    if !isPlain { activation.forward(y, pass) }
  }

  /// Whether a pass cuts its images into bands of rows, one for each thread: where there are too few
  /// images for the threads, and each is more work than to wake one.
  func isCut(_ x: TensorView, _ output: Shape, _ pass: Pass) -> Bool {
    guard !pass.training, pass.runtime.threads > 1, x.batch <= imagesAtATime, output.height > 4
    else { return false }
    let whole = kernelShape(1, x.shape, output)
    return whole.operations >= 5e6
      // With a dilation the tiles of a split convolution would begin elsewhere.
      && whole.dh == 1
      // Every band sees something of the image.
      && whole.ph < whole.fh && (whole.oh - 1) * whole.sh < whole.h + whole.ph
  }

  /// All of x in such bands, with the pooling behind the convolution if that is given; false where
  /// there is no kernel for both. A band is a convolution of its own, by the kernel of the whole,
  /// whose tiles and windows of a pooling it leaves whole: no number is another for it.
  @discardableResult
  func forward(
    _ x: TensorView, _ between: Shape, _ pooling: PoolingNode?, _ y: TensorView, cut pass: Pass
  ) -> Bool {
    let whole = kernelShape(1, x.shape, between)
    let variant = pass.runtime.kernels.convolution(whole, CK_FORWARD).variant
    guard pooling == nil || takes(pooling!, between, y.shape) && variant.pools(whole) else {
      return false
    }
    let threads = pass.runtime.threads
    let rows = ((between.height + threads - 1) / threads + 3) & ~3
    let bands = (between.height + rows - 1) / rows
    pass.runtime.parallel(
      over: x.batch * bands, (self, x, y, whole, variant, rows, bands, pooling != nil, pass)
    ) { context, piece, worker in
      let (node, x, y, whole, variant, rows, bands, isPooled, pass) = context
      let (image, first) = (piece.lowerBound / bands, piece.lowerBound % bands * rows)
      var band = whole
      band.oh = min(Int32(rows), whole.oh - Int32(first))
      // The rows of the image that its windows reach.
      let top = Int32(first) * whole.sh - whole.ph
      let end = top + (band.oh - 1) * whole.sh + whole.dh * (whole.fh - 1) + 1
      band.ph = max(-top, 0)
      band.h = min(end, whole.h) - max(top, 0)
      let input = x.example(image) + Int(max(top, 0)) * x.shape.width * x.shape.channels
      let row = y.shape.width * y.shape.channels
      let scratch = pass.runtime.scratch(worker)
      let weights = node.ready(node.readyForward)
      if !isPooled {
        variant.forward(
          band, input, ready: weights, bias: node.bias.value, relu: node.isRelu,
          y.example(image) + first * row, scratch)
      } else if band.oh > 1 {
        _ = variant.forwardPooled(
          band, input, ready: weights, bias: node.bias.value, relu: node.isRelu,
          y.example(image) + first / 2 * row, nil, scratch)
      }
    }
    return true
  }

  /// Whether some kernels do that pooling, too.
  private func takes(_ pooling: PoolingNode, _ between: Shape, _ output: Shape) -> Bool {
    pooling.window.size == (2, 2) && pooling.window.stride == (2, 2)
      && pooling.window.isInside(between, output)
  }

  override func backward(
    _ x: TensorView, _ y: TensorView, _ dy: TensorView, _ dx: TensorView?, _ pass: Pass
  ) {
    if !isPlain {
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
    case .activationGradient: return activation.cost(output)
    case .backward: return nil
    }
    let shape = kernelShape(imagesAtATime, input, output)
    let choice = runtime.kernels.convolution(shape, kernelPass)
    return PassCost(
      kernel: choice.variant.kernel(shape, kernelPass),
      pooledKernel: choice.variant.kernel(shape, kernelPass, pooled: true), why: "\(choice.why)",
      operations: shape.operations / Double(shape.n), inputs: Double(input.count),
      outputs: Double(output.count), weights: gradientCount)
  }

  override func makeReady(
    _ pass: ck_pass, _ input: Shape, _ output: Shape, _ kernels: KernelChoice
  ) {
    let ready = pass == CK_FORWARD ? readyForward : readyBackward
    guard ready.count > 0 else { return }
    let shape = kernelShape(1, input, output)
    kernels.convolution(shape, pass).variant.makeReady(shape, pass, weight.value, ready.pointer)
  }
  private func ready(_ storage: FloatStorage) -> Kernels.Floats {
    storage.count > 0 ? Kernels.Floats(storage.pointer) : Kernels.Floats(weight.value)
  }

  override func forward(_ x: TensorView, _ y: TensorView, _ part: Part) {
    let shape = kernelShape(x.batch, x.shape, y.shape)
    part.runtime.kernels.convolution(shape, CK_FORWARD).variant.forward(
      shape, x.pointer, ready: ready(readyForward), bias: bias.value, relu: isRelu, y.pointer,
      part.scratch)
    part.lap(.forward)
  }

  /// This layer and the pooling behind it in one kernel; false where there is none for them.
  func forward(
    _ x: TensorView, between: Shape, _ pooling: PoolingNode, _ y: TensorView, _ part: Part
  )
    -> Bool
  {
    guard takes(pooling, between, y.shape) else { return false }
    let shape = kernelShape(x.batch, x.shape, between)
    guard
      part.runtime.kernels.convolution(shape, CK_FORWARD).variant.forwardPooled(
        shape, x.pointer, ready: ready(readyForward), bias: bias.value, relu: isRelu, y.pointer,
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
    let sum = partialSums.at(part.piece * gradientCount, count: gradientCount)
    let gradient = part.isFirst ? sum : part.scratch + kernelScratch
    kernels.convolution(shape, CK_WEIGHT_GRADIENT).variant.weightGradient(
      shape, x.pointer, dy.pointer, gradient, part.scratch)
    Kernels.columnSum(
      rows: dy.count / layer.filters, count: layer.filters, dy.pointer, gradient + weight.count)
    if !part.isFirst { Kernels.add(gradientCount, gradient, to: sum) }
    part.lap(.weightGradient)
    if let dx {
      kernels.convolution(shape, CK_INPUT_GRADIENT).variant.inputGradient(
        shape, dy.pointer, ready: ready(readyBackward), dx.pointer, part.scratch)
      part.lap(.inputGradient)
    }
  }

  override func addPieces(_ pieces: Range<Int>, _ pass: Pass) {
    addByTree(partialSums, gradientCount, pieces, pass)
    pass.give(weight, partialSums.pointer, stride: gradientCount, pieces)
    pass.give(bias, partialSums.pointer + weight.count, stride: gradientCount, pieces)
  }

  private func kernelShape(_ images: Int, _ input: Shape, _ output: Shape) -> ck_conv_shape {
    layer.kernelShape(images, input, output, start)
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

/// Output rows and columns of windows that slide over `input`, and the padding around it.
/// - Parameter needsPixels: whether windows of padding alone are an error
/// - Throws: ``StrideNetError`` naming the layer and both sizes where they don't fit
func windows(
  over input: Shape, size: (height: Int, width: Int), stride: (height: Int, width: Int),
  padding: Padding = .valid, dilation: (height: Int, width: Int) = (1, 1), ceilMode: Bool = false,
  needsPixels: Bool = false, in layer: String
) throws -> (
  rows: Int, columns: Int, zeros: (top: Int, left: Int, bottom: Int, right: Int)
) {
  for value in [size.height, size.width] { try requirePositive(value, "size", in: layer) }
  for value in [stride.height, stride.width] { try requirePositive(value, "stride", in: layer) }
  for value in [dilation.height, dilation.width] {
    try requirePositive(value, "dilation", in: layer)
  }
  // From a window's first element to its last.
  let reach = (dilation.height * (size.height - 1) + 1, dilation.width * (size.width - 1) + 1)
  let zeros: (top: Int, left: Int, bottom: Int, right: Int)
  switch padding {
  case .valid: zeros = (0, 0, 0, 0)
  case .same:
    func missing(_ input: Int, _ stride: Int, _ reach: Int) -> Int {
      max(0, (input - 1) / stride * stride + reach - input)
    }
    let rows = missing(input.height, stride.height, reach.0)
    let columns = missing(input.width, stride.width, reach.1)
    zeros = (rows / 2, columns / 2, rows - rows / 2, columns - columns / 2)
  case .explicit(let top, let left, let bottom, let right): zeros = (top, left, bottom, right)
  }
  for (value, reach) in [
    (zeros.top, reach.0), (zeros.bottom, reach.0), (zeros.left, reach.1), (zeros.right, reach.1),
  ] where value < 0 || value > (needsPixels ? reach - 1 : 1 << 24) {
    throw StrideNetError(
      .badData, "padding out of range", at: layer, found: "\(value)",
      expected: "0 … \(needsPixels ? reach - 1 : 1 << 24)",
      hint: needsPixels && value > 0 ? "more would make windows of padding alone" : nil)
  }
  let padded = (
    input.height + zeros.top + zeros.bottom, input.width + zeros.left + zeros.right
  )
  // A window may reach so far beyond the padding.
  let beyond = ceilMode ? (stride.height - 1, stride.width - 1) : (0, 0)
  guard reach.0 <= padded.0 + beyond.0 && reach.1 <= padded.1 + beyond.1 else {
    throw StrideNetError(
      .badData, "a window is larger than its input", at: layer,
      found: "windows of \(size.height)×\(size.width)"
        + (dilation == (1, 1) ? "" : ", dilated to \(reach.0)×\(reach.1),")
        + " over an input of \(input)"
        + (zeros == (0, 0, 0, 0) ? "" : " padded to \(padded.0)×\(padded.1)"),
      expected: "windows of at most \(padded.0)×\(padded.1)",
      hint: "take a smaller window, more padding, or fewer layers that shrink the image before it")
  }
  // Reached by as much padding, windows may be larger than kernels count.
  guard reach.0 <= 1 << 24 && reach.1 <= 1 << 24 else {
    throw StrideNetError(
      .badData, "window too large", at: layer, found: "\(reach.0)×\(reach.1) with its dilation",
      expected: "at most \(1 << 24) on each axis")
  }
  func outputs(_ room: Int, _ stride: Int, before end: Int) -> Int {
    let outputs = room / stride + 1
    return ceilMode && (outputs - 1) * stride >= end ? outputs - 1 : outputs
  }
  return (
    outputs(padded.0 + beyond.0 - reach.0, stride.height, before: input.height + zeros.top),
    outputs(padded.1 + beyond.1 - reach.1, stride.width, before: input.width + zeros.left), zeros
  )
}
