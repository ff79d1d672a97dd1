import CKernels

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
  package init(of layers: [any Layer], for input: Shape, kernels: KernelChoice = .bound) throws {
    self.input = Double(input.count)
    activations = self.input
    let lowered = try LoweredLayer.list(layers, for: input)
    activations += lowered.reduce(0) { $0 + Double($1.output.count) }
    for operation in lowered.flatMap(\.operations) { add(operation, kernels) }
  }

  private mutating func add(_ operation: LayerOperation, _ kernels: KernelChoice) {
    let (input, output) = (Double(operation.input.count), Double(operation.output.count))
    if case .add(let body, let shortcut) = operation.kind {
      for inner in (body + shortcut).flatMap(\.operations) { add(inner, kernels) }
      // Their sum, and the gradient of the body's input.
      perExample += output
      perTrainingExample += 2 * output + input
      operations += output
      return
    }
    let channels = Double(operation.output.channels)
    let weights = operation.parameters.reduce(0) { $0 + Double($1.count) }
    // What an activation's or a pooling's backward pass needs of the output; a batch's pieces' sums;
    // a thread's memory; products of a sum; and what batch normalisation has for each example.
    var (kept, sums, own, longest, rows) = (1.0, 16 * weights, 2 * channels, 1.0, 0.0)
    if operation.activation.readsX { kept = 2 }
    switch operation.kind {
    case .convolve(let layer, let start):
      longest = Double(operation.parameters[0].fanIn)
      // A part's gradient, and three arrays of the few images that pass between operations that run
      // together.
      own += weights + 3 * max(output, 100_352)
      // Windows gathered from eight images, or weights, that don't fit an Int fit no machine either.
      guard 8 * longest * Double(layer.groups) * output < 0x1p60, weights < 0x1p55 else {
        own = .infinity
        break
      }
      own += Double(layer.workspace(8, operation.input, operation.output, start, kernels))
      for pass in [CK_FORWARD, CK_INPUT_GRADIENT] {
        sums += Double(layer.readyCount(pass, operation.input, operation.output, start, kernels))
      }
    case .multiply:
      sums = 0
      longest = Double(operation.parameters[0].fanIn)
      own += Double(Kernels.gemmWorkspace(kernels.precision))
    case .pool(let window):
      if window.isMax { kept = 1.5 }
      longest = Double(window.size.height) * Double(window.size.width)
    // Its sums are of eight images or fewer.
    case .normalizeBatch: rows = 2 * channels
    case .normalizePixels: longest = channels
    case .activate, .drop, .reshape, .add, .own: break
    }
    if parameters == 0 {
      firstWeights = operation.hasDenseWeights ? min(weights, 64 * input) : weights
    }
    parameters += weights
    perExample += kept * output + rows
    perTrainingExample += (kept + 1) * output + rows
    fixed += sums + 32 * channels
    longestSum = max(longestSum, longest)
    operations += 2 * longest * output
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
