/// What layers take of a machine, known before any memory is taken for them. Bytes are counted in
/// double precision, since the products of what somebody may ask for don't fit an Int; each count is
/// an upper bound.
package struct NetworkNeed: Sendable {
  /// Weights, running statistics included.
  package private(set) var parameters = 0.0
  /// Values that the layers, those inside others not counted, make of one example, and the example.
  package private(set) var activations: Double
  /// Products of the longest sum behind one value.
  package private(set) var longestSum = 1.0
  /// Floating-point operations of a forward pass over one example, two a multiply-add.
  package private(set) var operations = 0.0

  /// The first layer's weights, as far as they are shown: of a dense layer 64 outputs'.
  package private(set) var firstWeights = 0.0

  private let input: Double
  // Floats: for each example of a batch; for any batch; for each thread.
  private var perExample = 0.0
  private var perTrainingExample = 0.0
  private var fixed = 0.0
  private var scratch = 0.0

  /// - Throws: ``StrideNetError`` naming the layer that doesn't fit and both shapes
  package init(of layers: [Layer], for input: Shape, kernels: KernelChoice = .bound) throws {
    self.input = Double(input.count)
    activations = self.input
    // Builds the layers: they know their sizes and parameters from then on.
    let shapes = try Plan.shapes(layers, for: input, Runtime(threads: 1, kernels: kernels))
    let stages = Stage.list(layers, input, shapes)
    activations += stages.reduce(0) { $0 + Double($1.output.count) }
    for stage in stages { add(stage, kernels) }
  }

  private mutating func add(_ stage: Stage, _ kernels: KernelChoice) {
    let (layer, output) = (stage.layer, Double(stage.output.count))
    if let residual = layer as? Residual {
      let (body, shortcut) = residual.stages(stage.input)
      for inner in body + shortcut { add(inner, kernels) }
      // Their sum, and the gradient of the body's input.
      perExample += output
      perTrainingExample += 2 * output + Double(stage.input.count)
      operations += output
      return
    }
    let weights = layer.parameters.reduce(0) { $0 + Double($1.count) }
    if parameters == 0 { firstWeights = layer is Dense ? min(weights, 64 * input) : weights }
    parameters += weights
    // The output; what an activation's or a pooling's backward pass needs of it; its gradient.
    let kept = layer.finalActivation.readsX ? 2 : layer is MaxPool2D ? 1.5 : 1.0
    perExample += kept * output
    perTrainingExample += (kept + 1) * output
    // The sums of a batch's pieces; batch normalisation's are of eight images or fewer.
    fixed += (layer is Dense ? 0 : 16 * weights) + 32 * Double(stage.output.channels)
    perExample += layer is BatchNorm ? 2 * Double(stage.output.channels) : 0
    perTrainingExample += layer is BatchNorm ? 2 * Double(stage.output.channels) : 0
    var own = 2 * Double(stage.output.channels)
    let sum: Double
    switch layer {
    case let layer as Conv2D:
      sum = Double(layer.weight.fanIn)
      // A part's gradient, and three arrays of the few images that pass between layers that run
      // together.
      own += weights + 3 * max(output, 100_352)
      // Windows gathered from eight images that don't fit an Int fit no machine either.
      own +=
        8 * sum * Double(layer.groups) * output < 0x1p60
        ? Double(layer.workspace(stage.input, stage.output, kernels)) : .infinity
    case let layer as Dense:
      sum = Double(layer.weight.fanIn)
      own += Double(Kernels.gemmWorkspace)
    case let layer as Pool2D: sum = Double(layer.size.height) * Double(layer.size.width)
    case is LayerNorm: sum = Double(stage.output.channels)
    default: sum = 1
    }
    longestSum = max(longestSum, sum)
    operations += 2 * sum * output
    scratch = max(scratch, own)
  }

  /// To predict a batch: weights, the room for their gradients that every network has, the copy that
  /// batch normalisation may be folded into, and the layers' memory.
  package func bytesToPredict(_ batch: Int) -> Double {
    4 * (3 * parameters + fixed + Double(batch) * perExample + scratch)
  }

  /// To train: besides, what the optimiser remembers, the snapshots of the last good and of the newest
  /// weights, and evaluation in chunks.
  package func bytesToTrain(batch: Int, threads: Int) -> Double {
    let chunk = Double(max(batch, Network.chunk))
    return 4
      * (8 * parameters + 2 * fixed + Double(batch) * perTrainingExample
        + chunk * (perExample + 2 * input) + Double(threads) * (scratch + 8 * input))
  }
}
