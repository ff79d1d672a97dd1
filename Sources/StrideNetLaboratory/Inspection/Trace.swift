import StrideNetCore

/// A mini-batch on its way through a network, every layer by itself: what each was given, made of it
/// and took for it, and with targets the way back too. `stridenet trace` prints one.
///
/// The numbers are those of the kernels that train: layers that otherwise run together give the same
/// results bit for bit.
public struct Trace: Sendable {
  /// What one layer did.
  public struct Layer: Sendable {
    /// From 1.
    public let number: Int
    /// As `--layers` has it.
    public let text: String
    /// What it made of the batch; of a last layer with softmax, the probabilities.
    public let output: Tensor
    /// The gradient of the loss with respect to the output, as large; nil without targets. Of a last
    /// layer whose softmax is computed with the loss, with respect to its logits.
    public let gradient: Tensor?
    /// The Euclidean norm of the gradient of the layer's parameters; nil where there are none.
    public let parameterGradientNorm: Double?
    /// Trained values.
    package let parameters: Int
    /// The forward pass' C symbol without its prefix, and why that one; nil where nothing is computed.
    public let kernel, why: String?
    /// Floating-point operations of the forward pass over the batch, two a multiply-add; 0 where few
    /// are among what is moved.
    package let operations: Double
    /// Bytes that the forward pass can't help reading and writing.
    package let bytes: Double
    /// Seconds of the forward pass, and of the backward pass if there was one.
    public let seconds: Double
    public let backwardSeconds: Double?

    // The gradient of what the activation was applied to.
    let innerGradient: Tensor?

    /// The smallest, the mean and the largest value.
    public var range: (least: Float, mean: Float, greatest: Float) {
      var (least, sum, greatest) = (Float.infinity, 0.0, -Float.infinity)
      for value in output.values {
        (least, greatest) = (min(least, value), max(greatest, value))
        sum += Double(value)
      }
      return (least, Float(sum / Double(output.count)), greatest)
    }
    /// The share of values that are 0.
    public var zeros: Double {
      Double(output.values.count { $0 == 0 }) / Double(output.count)
    }
    /// The Euclidean norm of ``gradient``.
    public var gradientNorm: Double? { gradient.map { Trace.norm($0.values) } }
  }

  /// What the first layer was given: the images, after ``Network/normalization``.
  public let input: Tensor
  public let layers: [Layer]
  /// What softmax made the probabilities of; nil where the network doesn't end in it.
  public let logits: Tensor?
  /// The mean loss over the batch; nil without targets.
  public let loss: Float?
  /// The gradient of the loss with respect to ``input``; nil without targets.
  package let inputGradient: Tensor?

  /// The network's output.
  public var output: Tensor { layers.last!.output }

  static func norm(_ values: some Sequence<Float>) -> Double {
    values.reduce(0) { $0 + Double($1) * Double($1) }.squareRoot()
  }
}

extension Network {
  /// Sends images through the layers one by one, as for prediction. Nothing of the network changes.
  /// - Parameters:
  ///   - x: the images
  ///   - repeats: how often each layer runs; its time is the median
  /// - Throws: ``StrideNetError`` if the images don't fit the network
  public func trace(_ x: Tensor, repeats: Int = 1) throws -> Trace {
    try build(for: x.shape)
    return try trace(x, nil, repeats)
  }

  /// Sends a mini-batch through the layers one by one as a training step does (dropout drops, batch
  /// normalisation takes the batch's statistics), and back again, but for the update. Nothing of the
  /// network changes except ``lastGradient``, which is then that of this batch.
  /// - Parameters:
  ///   - batch: images with labels or values as targets
  ///   - repeats: how often each layer runs, either way; its time is the median
  /// - Throws: ``StrideNetError`` if the batch doesn't fit the network
  public func trace(_ batch: Batch, repeats: Int = 1) throws -> Trace {
    try prepare(batch)
    try reserveTargets(batch.images.batch)
    try ownWeights()
    // Running statistics are what a training pass changes besides.
    let statistics = stages.flatMap(\.parameters).filter { !$0.isTrained }
    let saved = statistics.map { Array(UnsafeBufferPointer(start: $0.value, count: $0.count)) }
    defer {
      for (parameter, values) in zip(statistics, saved) {
        parameter.value.update(from: values, count: values.count)
      }
    }
    return try trace(batch.images, batch, repeats)
  }

  /// - Parameter batch: with targets, for the way back
  private func trace(_ x: Tensor, _ batch: Batch?, _ repeats: Int) throws -> Trace {
    precondition(x.batch > 0 && repeats > 0)
    let x = try normalized(x)
    let before = Kernels.flushDenormals(true)
    defer { Kernels.flushDenormals(before) }
    var walk = LayerWalk(self, x, training: batch != nil, repeats: repeats)
    try walk.goForward()
    let loss = try batch.map { try walk.goBack($0) }
    let logits = endsInSoftmax ? walk.applySoftmax() : nil
    return Trace(
      input: x, layers: walk.layers, logits: logits, loss: loss,
      inputGradient: walk.inputGradient)
  }
}
