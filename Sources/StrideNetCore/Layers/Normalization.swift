/// Batch normalisation (Ioffe & Szegedy 2015, arXiv:1502.03167): for each channel c, over all pixels
/// of all images of the mini-batch,
///
///     y = activation(weight[c] · (x − mean[c]) / √(variance[c] + epsilon) + bias[c])
///
/// with weight from 1 and bias from 0. Running means of both statistics are kept (from mean 0 and
/// variance 1; the variance is the population's, n / (n − 1) times the mini-batch's); where nothing is
/// trained, or the layer is frozen, they take the mini-batch's place; in the former case a convolution
/// before the layer has the factors in its weights.
public struct BatchNorm: Layer {
  /// Share of a mini-batch's statistics in the running ones.
  package let momentum: Float
  package let epsilon: Float
  package let activation: Activation

  public init(activation: Activation = .none, momentum: Float = 0.1, epsilon: Float = 1e-5) {
    (self.activation, self.momentum, self.epsilon) = (activation, momentum, epsilon)
  }

  public var text: String {
    var arguments: [String] = []
    if activation.name != Activation.none.name {
      arguments.append("activation=\(activation.name)\(activation.slopeText)")
    }
    if momentum != 0.1 { arguments.append("momentum=\(momentum)") }
    if epsilon != 1e-5 { arguments.append("epsilon=\(epsilon)") }
    return "batchnorm" + (arguments.isEmpty ? "" : "(\(arguments.joined(separator: ",")))")
  }

  public func operations(for input: Shape) throws -> [LayerOperation] {
    try require(momentum > 0 && momentum <= 1, "momentum", momentum, "above 0, at most 1", in: text)
    try require(epsilon > 0 && epsilon < 1, "epsilon", epsilon, "above 0, below 1", in: text)
    func row(_ name: String, _ start: Float, isTrained: Bool = true) -> ParameterShape {
      ParameterShape(name, shape: [input.channels], .constant(start), isTrained: isTrained)
    }
    return [
      LayerOperation(
        .normalizeBatch(momentum: momentum, epsilon: epsilon), input, input,
        [
          row("weight", 1), row("bias", 0), row("running_mean", 0, isTrained: false),
          row("running_var", 1, isTrained: false),
        ], activation: activation)
    ]
  }
}

/// What batch normalisation multiplies a channel by and then adds, with the running statistics.
package struct RunningFactors {
  private let weight, bias, mean, variance: Parameter
  private let epsilon: Float
  var channels: Int { weight.count }

  package init(_ operation: Bound, epsilon: Float) {
    let all = operation.parameters
    (weight, bias, mean, variance) = (all[0], all[1], all[2], all[3])
    self.epsilon = epsilon
  }

  package subscript(_ channel: Int) -> (scale: Float, shift: Float) {
    let scale = weight.value[channel] / (variance.value[channel] + epsilon).squareRoot()
    return (scale, bias.value[channel] - mean.value[channel] * scale)
  }

  /// The factors of all channels.
  package var all: (scale: [Float], shift: [Float]) {
    let factors = (0..<channels).map { self[$0] }
    return (factors.map(\.scale), factors.map(\.shift))
  }
}

/// The passes of batch normalisation in training.
final class BatchNormNode: ImageNode {
  private let momentum, epsilon: Float
  let activation: Activation
  private let activationPass: ActivationPass
  private let weight, bias, runningMean, runningVariance: Parameter

  // Rows of C: what the passes work with, then two a piece of either kind.
  private enum Row: Int, CaseIterable { case mean, inverse, scale, shift, a, b }
  private var rows = FloatStorage.empty
  private var channels: Int { weight.count }
  /// Images whose statistics are taken together.
  var imagesMeasured = 8

  init(momentum: Float, epsilon: Float, _ operation: Bound) {
    (self.momentum, self.epsilon, activation) = (momentum, epsilon, operation.activation)
    activationPass = ActivationPass(operation.activation)
    let all = operation.parameters
    (weight, bias, runningMean, runningVariance) = (all[0], all[1], all[2], all[3])
  }

  override func reserve(
    batch: Int, input: Shape, output: Shape, runtime: Runtime, training: Bool
  ) throws {
    try activationPass.reserve(batch * output.count)
    try runtime.reserveScratch(scratchCount)
    // A mini-batch that several processes share is larger.
    let batch = batch * runtime.communicator.size
    let needed = (Row.allCases.count + 2 * (batch / imagesMeasured + 32)) * channels
    if rows.count < needed { rows = try FloatStorage(count: needed) }
  }

  /// A part's sums, before they are added to its piece's.
  override var scratchCount: Int { 2 * channels }

  private func row(_ row: Row) -> UnsafeMutablePointer<Float> {
    rows.pointer + row.rawValue * channels
  }
  /// The two rows of a piece, of those of all processes, one behind the other.
  private func sums(_ piece: Int) -> UnsafeMutablePointer<Float> {
    rows.at((Row.allCases.count + 2 * piece) * channels, count: 2 * channels)
  }

  /// What normalises the values whose statistics were taken last.
  var factors: (scale: Kernels.Floats, shift: Kernels.Floats) {
    (Kernels.Floats(row(.scale)), Kernels.Floats(row(.shift)))
  }

  // MARK: Forward: the statistics of all images, then the normalisation of each

  override func forward(_ x: TensorView, _ y: TensorView, _ pass: Pass) {
    // Where nothing is trained, a plan has another node in place of this one.
    precondition(pass.training)
    let chunks = pass.share.chunks(of: imagesMeasured)
    pass.runtime.parallel(over: chunks, (self, x, pass)) { context, chunk, _ in
      let (node, x, pass) = context
      let images = pass.share.chunk(chunk.lowerBound, of: node.imagesMeasured)
      node.measure(x.examples(images), chunk.lowerBound, pass)
    }
    finishStatistics(x, pass)
    super.forward(x, y, pass)
    if !activation.isPlain { activationPass.forward(y, pass) }
  }

  /// Whether the running statistics take the mini-batch's place and stay as they are.
  private var isFrozen: Bool { weight.isFrozen }

  /// Takes the statistics of a chunk of images.
  func measure(_ x: TensorView, _ chunk: Int, _ pass: Pass) {
    if isFrozen || x.batch == 0 { return }
    let sums = sums(pass.share.firstChunk(of: imagesMeasured) + chunk)
    Kernels.moments(
      rows: x.count / channels, channels, x.pointer, mean: sums, squares: sums + channels)
  }

  /// Puts together what was measured of all images (Chan, Golub & LeVeque 1979).
  func finishStatistics(_ x: TensorView, _ pass: Pass) {
    let pixels = x.shape.count / channels
    let (size, all) = (imagesMeasured, BatchShare(pass.share.batch))
    if !isFrozen {
      pass.exchange?.gather(sums(0)) { share in
        let first = share.firstChunk(of: size)
        return first * 2 * self.channels..<(first + share.chunks(of: size)) * 2 * self.channels
      }
    }
    for c in 0..<channels {
      if isFrozen {
        setRows(c, mean: Double(runningMean.value[c]), variance: Double(runningVariance.value[c]))
        continue
      }
      var (n, mean, squares) = (0.0, 0.0, 0.0)
      for chunk in 0..<all.chunks(of: size) {
        let images = all.chunk(chunk, of: size).count
        if images == 0 { continue }
        let sums = sums(chunk)
        let count = Double(images * pixels)
        let off = Double(sums[c]) - mean
        mean += off * count / (n + count)
        squares += Double(sums[channels + c]) + off * off * n * count / (n + count)
        n += count
      }
      let variance = max(0, squares / n)
      setRows(c, mean: mean, variance: variance)
      runningMean.value[c] += momentum * (Float(mean) - runningMean.value[c])
      runningVariance.value[c] +=
        momentum * (Float(variance * n / max(1, n - 1)) - runningVariance.value[c])
    }
  }

  private func setRows(_ c: Int, mean: Double, variance: Double) {
    let inverse = 1 / (variance + Double(epsilon)).squareRoot()
    row(.mean)[c] = Float(mean)
    row(.inverse)[c] = Float(inverse)
    row(.scale)[c] = Float(Double(weight.value[c]) * inverse)
    row(.shift)[c] = Float(Double(bias.value[c]) - mean * Double(weight.value[c]) * inverse)
  }

  override func forward(_ x: TensorView, _ y: TensorView, _ part: Part) {
    Kernels.scaleShift(
      rows: x.count / channels, channels, x.pointer, scale: row(.scale), shift: row(.shift),
      relu: activation.isRelu, y.pointer)
    part.lap(.forward)
  }

  // MARK: Backward: two sums over all images, then the gradient of each

  override func backward(
    _ x: TensorView, _ y: TensorView, _ dy: TensorView, _ dx: TensorView?, _ pass: Pass
  ) {
    if !activation.isPlain { activationPass.backward(y, dy, pass) }
    forEachPart(x, y, dy, nil, pass, sums: true)
    finishSums(x, pass)
    if dx != nil { super.backward(x, y, dy, dx, pass) }
  }

  override func addSums(_ x: TensorView, _ dy: TensorView, _ part: Part) {
    if isFrozen { return }
    let total = sums(pieces(part.pass.share).lowerBound + part.piece)
    let sums = part.isFirst ? total : part.scratch
    Kernels.normalizationSums(
      rows: x.count / channels, channels, x.pointer, dy: dy.pointer, mean: row(.mean),
      scale: row(.scale), shift: row(.shift), relu: activation.isRelu, sum: sums,
      product: sums + channels)
    if !part.isFirst { Kernels.add(2 * channels, sums, to: total) }
  }

  /// Of how many chunks, and of how many pieces, a process sends the two rows of sums.
  func rowsSent(_ share: BatchShare) -> [Int] {
    isFrozen ? [] : [share.chunks(of: imagesMeasured), pieces(share).count]
  }

  func finishSums(_ x: TensorView, _ pass: Pass) {
    let n = Double(pass.share.batch * (x.shape.count / channels))
    if !isFrozen {
      pass.exchange?.gather(sums(0)) { share in
        let pieces = self.pieces(share)
        return pieces.lowerBound * 2 * self.channels..<pieces.upperBound * 2 * self.channels
      }
    }
    for c in 0..<channels {
      if isFrozen {
        // Statistics that stay have no slope.
        (row(.a)[c], row(.b)[c]) = (0, 0)
        continue
      }
      var (sum, product) = (0.0, 0.0)
      for piece in 0..<pieces(pass.share.batch) {
        sum += Double(sums(piece)[c])
        product += Double(sums(piece)[channels + c])
      }
      let inverse = Double(row(.inverse)[c])
      bias.gradient[c] = Float(sum)
      weight.gradient[c] = Float(product * inverse)
      row(.a)[c] = Float(sum / n)
      row(.b)[c] = Float(product * inverse * inverse / n)
    }
  }

  override func backward(
    _ x: TensorView, _ y: TensorView, _ dy: TensorView, _ dx: TensorView?, _ part: Part
  ) {
    guard let dx else { return }
    Kernels.normalizationGradient(
      rows: x.count / channels, channels, x.pointer, dy: dy.pointer, mean: row(.mean),
      scale: row(.scale), shift: row(.shift), relu: activation.isRelu, a: row(.a), b: row(.b),
      dx: dx.pointer)
    part.lap(.backward)
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

/// Batch normalisation where nothing is trained: y = activation(scale[c] · x + shift[c]), the factors
/// made of the running statistics. It takes no statistics and writes to no parameter.
final class RunningNormNode: ImageNode {
  private let factors: RunningFactors
  private let activation: Activation
  private let activationPass: ActivationPass
  private var scale, shift: [Float]

  init(epsilon: Float, _ operation: Bound) {
    factors = RunningFactors(operation, epsilon: epsilon)
    activation = operation.activation
    activationPass = ActivationPass(operation.activation)
    scale = [Float](repeating: 0, count: factors.channels)
    shift = scale
  }

  override func prepareInference() {
    for c in scale.indices { (scale[c], shift[c]) = factors[c] }
  }

  override func forward(_ x: TensorView, _ y: TensorView, _ pass: Pass) {
    super.forward(x, y, pass)
    if !activation.isPlain { activationPass.forward(y, pass) }
  }

  override func forward(_ x: TensorView, _ y: TensorView, _ part: Part) {
    Kernels.scaleShift(
      rows: x.count / scale.count, scale.count, x.pointer, scale: scale, shift: shift,
      relu: activation.isRelu, y.pointer)
  }

  override func cost(_ pass: LayerPass, _ input: Shape, _ output: Shape, _ runtime: Runtime)
    -> PassCost?
  {
    guard pass == .forward else { return nil }
    return PassCost(
      kernel: "scale_shift", why: PassCost.onlyKernel, inputs: Double(input.count),
      outputs: Double(output.count))
  }
}

/// Layer normalisation (Ba, Kiros & Hinton 2016, arXiv:1607.06450) over the channels of each pixel,
/// which for a flat vector are all of its values:
///
///     y = weight · (x − mean) / √(variance + epsilon) + bias
///
/// with weight from 1 and bias from 0.
public struct LayerNorm: Layer {
  package let epsilon: Float

  public init(epsilon: Float = 1e-5) { self.epsilon = epsilon }

  public var text: String { epsilon == 1e-5 ? "layernorm" : "layernorm(\(epsilon))" }

  public func operations(for input: Shape) throws -> [LayerOperation] {
    try require(epsilon > 0 && epsilon < 1, "epsilon", epsilon, "above 0, below 1", in: text)
    return [
      LayerOperation(
        .normalizePixels(epsilon: epsilon), input, input,
        [
          ParameterShape("weight", shape: [input.channels], .constant(1)),
          ParameterShape("bias", shape: [input.channels], .constant(0)),
        ])
    ]
  }
}

/// The passes of layer normalisation.
final class LayerNormNode: ImageNode {
  private let epsilon: Float
  private let weight, bias: Parameter
  private var partialSums = FloatStorage.empty
  private var channels: Int { weight.count }

  init(epsilon: Float, _ operation: Bound) {
    self.epsilon = epsilon
    (weight, bias) = (operation.parameters[0], operation.parameters[1])
  }

  override func reserve(
    batch: Int, input: Shape, output: Shape, runtime: Runtime, training: Bool
  ) throws {
    let needed = mostPieces(upTo: batch, runtime) * 2 * channels
    if partialSums.count < needed { partialSums = try FloatStorage(count: needed) }
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
    let sums = partialSums.at(part.piece * 2 * channels, count: 2 * channels)
    if part.isFirst { sums.update(repeating: 0, count: 2 * channels) }
    // Where nobody needs dx, y's memory takes it: y isn't read any more.
    Kernels.layerNormBackward(
      rows: x.count / channels, channels, x.pointer, gain: weight.value, epsilon: epsilon,
      dy: dy.pointer, dx: dx?.pointer ?? y.pointer, dgain: sums, dbias: sums + channels)
    part.lap(.backward)
  }

  override func addPieces(_ pieces: Range<Int>, _ pass: Pass) {
    addByTree(partialSums, 2 * channels, pieces, pass)
    pass.give(weight, partialSums.pointer, stride: 2 * channels, pieces)
    pass.give(bias, partialSums.pointer + channels, stride: 2 * channels, pieces)
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
