/// Batch normalisation (Ioffe & Szegedy 2015, arXiv:1502.03167): for each channel c, over all pixels
/// of all images of the mini-batch,
///
///     y = activation(weight[c] · (x − mean[c]) / √(variance[c] + epsilon) + bias[c])
///
/// Running means of both statistics are kept; where nothing is trained they take the mini-batch's
/// place, and a convolution before the layer then has the factors in its weights.
public final class BatchNorm: Layer {
  /// Share of a mini-batch's statistics in the running ones, which start at mean 0, variance 1.
  public let momentum: Float
  public let epsilon: Float
  public let activation: Activation
  private let activationPass: ActivationPass

  /// (C), from 1
  public private(set) var weight: Parameter!
  /// (C), from 0
  public private(set) var bias: Parameter!
  /// (C), not trained
  public private(set) var runningMean: Parameter!
  /// (C), not trained; of the population: n / (n − 1) times the mini-batch's
  public private(set) var runningVariance: Parameter!

  // Rows of C: what the passes work with, then each piece's sums.
  private enum Row: Int, CaseIterable { case mean, inverse, scale, shift, a, b }
  private var rows = FloatStorage(count: 0)
  private var channels = 0

  public init(activation: Activation = .none, momentum: Float = 0.1, epsilon: Float = 1e-5) {
    self.activation = activation
    self.momentum = momentum
    self.epsilon = epsilon
    activationPass = ActivationPass(activation)
  }

  public override var parameters: [Parameter] {
    weight == nil ? [] : [weight, bias, runningMean, runningVariance]
  }
  public override var finalActivation: Activation { activation }

  public override var text: String {
    var arguments: [String] = []
    if activation.name != Activation.none.name {
      arguments.append("activation=\(activation.name)\(activation.slopeText)")
    }
    if momentum != 0.1 { arguments.append("momentum=\(momentum)") }
    if epsilon != 1e-5 { arguments.append("epsilon=\(epsilon)") }
    return "batchnorm" + (arguments.isEmpty ? "" : "(\(arguments.joined(separator: ",")))")
  }

  public override func build(for input: Shape, runtime: Runtime) throws -> Shape {
    try require(momentum > 0 && momentum <= 1, "momentum", momentum, "above 0, at most 1", in: text)
    try require(epsilon > 0 && epsilon < 1, "epsilon", epsilon, "above 0, below 1", in: text)
    channels = input.channels
    weight = Parameter("weight", shape: [channels], .constant(1))
    bias = Parameter("bias", shape: [channels], .constant(0))
    runningMean = Parameter("running_mean", shape: [channels], .constant(0), isTrained: false)
    runningVariance = Parameter("running_var", shape: [channels], .constant(1), isTrained: false)
    return input
  }

  public override func reserve(batch: Int, input: Shape, output: Shape, runtime: Runtime) {
    activationPass.reserve(batch * output.count)
    let needed = (Row.allCases.count + 2 * ImageLayer.pieces(batch)) * channels
    if rows.count < needed { rows = FloatStorage(count: needed) }
  }

  private func row(_ row: Row) -> UnsafeMutablePointer<Float> {
    rows.pointer + row.rawValue * channels
  }
  /// A piece's two sums, one behind the other.
  private func sums(_ piece: Int) -> UnsafeMutablePointer<Float> {
    rows.pointer + (Row.allCases.count + 2 * piece) * channels
  }
  private func total(_ pieces: Int, _ channel: Int) -> Double {
    var sum = 0.0
    for piece in 0..<pieces { sum += Double(sums(piece)[channel]) }
    return sum
  }

  /// What to multiply a channel by and then add, with the running statistics.
  private func inferenceFactors(_ channel: Int) -> (scale: Float, shift: Float) {
    let scale = weight.value[channel] / (runningVariance.value[channel] + epsilon).squareRoot()
    return (scale, bias.value[channel] - runningMean.value[channel] * scale)
  }

  /// The factors of all channels.
  var inferenceScaleAndShift: (scale: [Float], shift: [Float]) {
    let factors = (0..<channels).map(inferenceFactors)
    return (factors.map(\.scale), factors.map(\.shift))
  }

  public override func forward(_ x: TensorView, _ y: TensorView, _ pass: Pass) {
    if pass.training {
      takeStatistics(x, pass.runtime)
    } else {
      for c in 0..<channels {
        let (scale, shift) = inferenceFactors(c)
        row(.scale)[c] = scale
        row(.shift)[c] = shift
      }
    }
    pass.runtime.parallel(over: x.batch, by: 4, (self, x, y)) { context, images, _ in
      let (layer, x, y) = context
      let part = x.examples(images)
      Kernels.scaleShift(
        rows: part.count / layer.channels, layer.channels, part.pointer, scale: layer.row(.scale),
        shift: layer.row(.shift), relu: layer.activation.isRelu, y.example(images.lowerBound))
    }
    if !activation.isRelu && !leavesSoftmaxToLoss { activationPass.forward(y, pass) }
  }

  private func takeStatistics(_ x: TensorView, _ runtime: Runtime) {
    let size = ImageLayer.imagesAPiece(x.batch)
    // Relative to the first pixel: near enough to the mean.
    row(.mean).update(from: x.pointer, count: channels)
    runtime.parallel(over: x.batch, by: size, (self, x, size)) { context, images, _ in
      let (layer, x, size) = context
      let (part, channels) = (x.examples(images), layer.channels)
      let sums = layer.sums(images.lowerBound / size)
      Kernels.moments(
        rows: part.count / channels, channels, part.pointer, shift: layer.row(.mean), sum: sums,
        square: sums + channels)
    }
    let (pieces, n) = (ImageLayer.pieces(x.batch), Double(x.count / channels))
    for c in 0..<channels {
      let offset = total(pieces, c) / n
      let variance = max(0, total(pieces, channels + c) / n - offset * offset)
      let mean = Double(row(.mean)[c]) + offset
      let inverse = 1 / (variance + Double(epsilon)).squareRoot()
      row(.mean)[c] = Float(mean)
      row(.inverse)[c] = Float(inverse)
      row(.scale)[c] = Float(Double(weight.value[c]) * inverse)
      row(.shift)[c] = Float(
        Double(bias.value[c]) - mean * Double(weight.value[c]) * inverse)
      runningMean.value[c] += momentum * (Float(mean) - runningMean.value[c])
      runningVariance.value[c] +=
        momentum * (Float(variance * n / max(1, n - 1)) - runningVariance.value[c])
    }
  }

  public override func backward(
    _ x: TensorView, _ y: TensorView, _ dy: TensorView, _ dx: TensorView?, _ pass: Pass
  ) {
    if !activation.isRelu && !leavesSoftmaxToLoss { activationPass.backward(y, dy, pass) }
    let size = ImageLayer.imagesAPiece(x.batch)
    pass.runtime.parallel(over: x.batch, by: size, (self, x, dy, size)) { context, images, _ in
      let (layer, x, dy, size) = context
      let (part, channels) = (x.examples(images), layer.channels)
      let sums = layer.sums(images.lowerBound / size)
      Kernels.normalizationSums(
        rows: part.count / channels, channels, part.pointer, dy: dy.example(images.lowerBound),
        mean: layer.row(.mean), scale: layer.row(.scale), shift: layer.row(.shift),
        relu: layer.activation.isRelu, sum: sums, product: sums + channels)
    }
    let (pieces, n) = (ImageLayer.pieces(x.batch), Double(x.count / channels))
    for c in 0..<channels {
      let (sum, product) = (total(pieces, c), total(pieces, channels + c))
      let inverse = Double(row(.inverse)[c])
      bias.gradient[c] = Float(sum)
      weight.gradient[c] = Float(product * inverse)
      row(.a)[c] = Float(sum / n)
      row(.b)[c] = Float(product * inverse * inverse / n)
    }
    guard let dx else { return }
    pass.runtime.parallel(over: x.batch, by: 4, (self, x, dy, dx)) { context, images, _ in
      let (layer, x, dy, dx) = context
      let part = x.examples(images)
      Kernels.normalizationGradient(
        rows: part.count / layer.channels, layer.channels, part.pointer,
        dy: dy.example(images.lowerBound), mean: layer.row(.mean), scale: layer.row(.scale),
        shift: layer.row(.shift), relu: layer.activation.isRelu, a: layer.row(.a),
        b: layer.row(.b), dx: dx.example(images.lowerBound))
    }
  }

  override func cost(_ pass: LayerPass, _ input: Shape, _ output: Shape, _ runtime: Runtime)
    -> PassCost?
  {
    switch pass {
    case .forward:
      PassCost(
        kernel: "moments, scale_shift", why: PassCost.onlyKernel, inputs: 2 * Double(input.count),
        outputs: Double(output.count))
    case .backward:
      PassCost(
        kernel: "normalization_sums, normalization_gradient", why: PassCost.onlyKernel,
        inputs: 3 * Double(input.count), outputs: 2 * Double(output.count))
    default: nil
    }
  }
}

/// Layer normalisation (Ba, Kiros & Hinton 2016, arXiv:1607.06450) over the channels of each pixel,
/// which for a flat vector are all of its values:
///
///     y = weight · (x − mean) / √(variance + epsilon) + bias
public final class LayerNorm: ImageLayer {
  public let epsilon: Float

  /// (C), from 1
  public private(set) var weight: Parameter!
  /// (C), from 0
  public private(set) var bias: Parameter!
  private var partialSums = FloatStorage(count: 0)
  private var channels = 0

  public init(epsilon: Float = 1e-5) { self.epsilon = epsilon }

  public override var parameters: [Parameter] { weight == nil ? [] : [weight, bias] }
  public override var text: String { epsilon == 1e-5 ? "layernorm" : "layernorm(\(epsilon))" }

  public override func build(for input: Shape, runtime: Runtime) throws -> Shape {
    try require(epsilon > 0 && epsilon < 1, "epsilon", epsilon, "above 0, below 1", in: text)
    channels = input.channels
    weight = Parameter("weight", shape: [channels], .constant(1))
    bias = Parameter("bias", shape: [channels], .constant(0))
    return input
  }

  public override func reserve(batch: Int, input: Shape, output: Shape, runtime: Runtime) {
    let needed = Self.pieces(batch) * 2 * channels
    if partialSums.count < needed { partialSums = FloatStorage(count: needed) }
  }

  override func forward(_ x: TensorView, _ y: TensorView, _ part: Part) {
    Kernels.layerNormForward(
      rows: x.count / channels, channels, x.pointer, gain: weight.value, bias: bias.value,
      epsilon: epsilon, y.pointer)
    part.lap(.forward)
  }

  override func backward(
    _ x: TensorView, _ y: TensorView, _ dy: TensorView, _ dx: TensorView?, _ part: Part
  ) {
    let sums = partialSums.pointer + part.piece * 2 * channels
    if part.isFirst { sums.update(repeating: 0, count: 2 * channels) }
    // Where nobody needs dx, y's memory takes it: y isn't read any more.
    Kernels.layerNormBackward(
      rows: x.count / channels, channels, x.pointer, gain: weight.value, epsilon: epsilon,
      dy: dy.pointer, dx: dx?.pointer ?? y.pointer, dgain: sums, dbias: sums + channels)
    part.lap(.backward)
  }

  override func addPieces(_ count: Int, _ runtime: Runtime) {
    for piece in 1..<max(count, 1) {
      Kernels.add(2 * channels, partialSums.pointer + piece * 2 * channels, to: partialSums.pointer)
    }
    weight.gradient.update(from: partialSums.pointer, count: channels)
    bias.gradient.update(from: partialSums.pointer + channels, count: channels)
  }

  override func cost(_ pass: LayerPass, _ input: Shape, _ output: Shape, _ runtime: Runtime)
    -> PassCost?
  {
    guard pass == .forward || pass == .backward else { return nil }
    return PassCost(
      kernel: "layer_norm_\(pass == .forward ? "forward" : "backward")", why: PassCost.onlyKernel,
      inputs: (pass == .forward ? 1 : 2) * Double(input.count), outputs: Double(output.count))
  }
}

/// - Throws: ``StrideNetError`` naming the layer, the value and its range
func require(
  _ holds: Bool, _ name: String, _ value: Float, _ range: String, in layer: String
) throws {
  guard !holds else { return }
  throw StrideNetError(
    .badData, "\(name) out of range", at: layer, found: "\(value)", expected: range)
}
