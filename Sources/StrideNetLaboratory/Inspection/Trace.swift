import StrideNetCore
import StrideNetFiles

/// A mini-batch on its way through a network, every layer by itself: what each was given, made of it
/// and took for it, and with labels the way back too. `stridenet trace` prints one.
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
    /// The gradient of the loss with respect to the output, as large; nil without labels. Of a last
    /// layer whose softmax is computed with the loss, with respect to its logits.
    public let gradient: Tensor?
    /// The Euclidean norm of the gradient of the layer's parameters; nil where there are none.
    public let parameterGradientNorm: Double?
    /// Trained values.
    public let parameters: Int
    /// The forward pass' C symbol without its prefix, and why that one; nil where nothing is computed.
    public let kernel, why: String?
    /// Floating-point operations of the forward pass over the batch, two a multiply-add; 0 where few
    /// are among what is moved.
    public let operations: Double
    /// Bytes that the forward pass can't help reading and writing.
    public let bytes: Double
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

  public let input: Tensor
  public let layers: [Layer]
  /// What softmax made the probabilities of; nil where the network doesn't end in it.
  public let logits: Tensor?
  /// The mean loss over the batch; nil without labels.
  public let loss: Float?

  /// The network's output.
  public var output: Tensor { layers.last!.output }

  static func norm(_ values: some Sequence<Float>) -> Double {
    values.reduce(0) { $0 + Double($1) * Double($1) }.squareRoot()
  }
}

extension Network {
  /// Sends images through the layers one by one; with labels, as a training step does (dropout drops,
  /// batch normalisation takes the batch's statistics), and back again, but for the update. Nothing
  /// of the network changes except ``lastGradient``, which is then that of this batch.
  /// - Parameters:
  ///   - x: the images
  ///   - labels: one an image; nil for the forward pass alone, as for prediction
  ///   - repeats: how often each layer runs; its time is the median
  /// - Throws: ``StrideNetError`` if the images or labels don't fit the network
  public func trace(_ x: Tensor, labels: [Int32]? = nil, repeats: Int = 1) throws -> Trace {
    if let labels {
      try prepare(Batch(images: x, labels: labels))
    } else {
      try build(for: x.shape)
    }
    precondition(x.batch > 0 && repeats > 0)
    let before = Kernels.flushDenormals(true)
    defer { Kernels.flushDenormals(before) }
    if labels != nil { try ownWeights() }
    // Running statistics are what a training pass changes besides.
    let statistics = stages.flatMap(\.parameters).filter { !$0.isTrained }
    let saved = statistics.map { Array(UnsafeBufferPointer(start: $0.value, count: $0.count)) }
    defer {
      for (parameter, values) in zip(statistics, saved) {
        parameter.value.update(from: values, count: values.count)
      }
    }

    // Of its own, in which nothing runs together.
    let isTraining = labels != nil
    let plan = Plan(
      self.plan!.operations, x.shape, runtime, training: isTraining, fusing: false)
    let pass = Pass(runtime: runtime, training: isTraining, seed: seed, step: stepCount)
    if !isTraining { for node in plan.nodes { try node?.prepareInference() } }
    // Each operation's output; those of layers are the last ones of theirs.
    var (outputs, times) = ([x], [Double]())
    for (operation, node) in zip(plan.operations, plan.nodes) {
      let below = outputs.last!
      guard let node else {
        outputs.append(try Tensor(batch: x.batch, shape: operation.output, below.values))
        times.append(0)
        continue
      }
      try node.reserve(
        batch: x.batch, input: operation.input, output: operation.output, runtime: runtime,
        training: isTraining)
      var output = Tensor(batch: x.batch, shape: operation.output)
      times.append(
        below.withView { below in
          output.withMutableView { output in
            Self.median(repeats) { node.forward(below, output, pass) }
          }
        })
      outputs.append(output)
    }

    let logits = endsInSoftmax ? outputs.last! : nil
    var loss: Float?
    // The gradient of each operation's output, and of what its activation was applied to.
    var (gradients, inner) = ([Tensor?](), [Tensor?]())
    var backwardTimes = [Double](repeating: 0, count: plan.operations.count)
    if let labels {
      var upstream = Tensor(batch: x.batch, shape: shapes.last!)
      loss = traceLoss(outputs.last!, labels, &upstream)
      for (index, operation) in plan.operations.enumerated().reversed() {
        gradients.append(upstream)
        guard let node = plan.nodes[index] else {
          inner.append(upstream)
          upstream = try Tensor(batch: x.batch, shape: operation.input, upstream.values)
          continue
        }
        var (dy, dx) = (upstream, Tensor(batch: x.batch, shape: operation.input))
        backwardTimes[index] = outputs[index].withView { x in
          outputs[index + 1].withView { y in
            dx.withMutableView { dx in
              // The pass may overwrite the upstream gradient.
              Self.median(repeats, prepare: { dy = upstream.copy() }) {
                dy.withMutableView { node.backward(x, y, $0, dx, pass) }
              }
            }
          }
        }
        inner.append(dy)
        upstream = dx
      }
    }
    (gradients, inner) = (gradients.reversed(), inner.reversed())
    if logits != nil {
      outputs[outputs.count - 1].withMutableView {
        Kernels.softmaxForward(rows: $0.batch, $0.shape.count, $0.pointer, $0.pointer)
      }
    }
    var end = 0
    return Trace(
      input: x,
      layers: stages.enumerated().map { index, stage in
        let all = end..<end + stage.operations.count
        let last = all.upperBound - 1
        end = all.upperBound
        let costs = all.compactMap { plan.cost(.forward, $0) }
        let trained = stage.parameters.filter(\.isTrained)
        return Trace.Layer(
          number: index + 1, text: stage.text, output: outputs[last + 1],
          gradient: isTraining ? gradients[last] : nil,
          parameterGradientNorm: !isTraining || trained.isEmpty
            ? nil
            : Trace.norm(
              trained.lazy.flatMap { UnsafeBufferPointer(start: $0.gradient, count: $0.count) }),
          parameters: trained.reduce(0) { $0 + $1.count },
          kernel: costs.isEmpty ? nil : costs.map(\.kernel).joined(separator: ", "),
          why: costs.first?.why,
          operations: costs.reduce(0) { $0 + $1.operations } * Double(x.batch),
          bytes: costs.reduce(0) {
            $0 + 4 * (($1.inputs + $1.outputs) * Double(x.batch) + Double($1.weights))
          },
          seconds: times[all].reduce(0, +),
          backwardSeconds: isTraining && !costs.isEmpty ? backwardTimes[all].reduce(0, +) : nil,
          innerGradient: isTraining ? inner[last] : nil)
      },
      logits: logits, loss: loss)
  }

  private func traceLoss(_ output: Tensor, _ labels: [Int32], _ gradient: inout Tensor) -> Float {
    var losses = Tensor(batch: output.batch, shape: Shape(1))
    var wrong = [Int32](repeating: 0, count: output.batch)
    var output = output  // squared error makes probabilities of logits in place
    output.withMutableView { output in
      gradient.withMutableView { gradient in
        losses.withMutableView { losses in
          wrong.withUnsafeMutableBufferPointer { wrong in
            labels.withUnsafeBufferPointer { labels in
              loss.compute(
                LossBatch(
                  output: output, gradient: gradient.pointer, loss: losses.pointer,
                  wrong: wrong.baseAddress!),
                .labels(labels.baseAddress!), endsInSoftmax: self.endsInSoftmax)
            }
          }
        }
      }
    }
    return Float(losses.values.reduce(0) { $0 + Double($1) } / Double(output.batch))
  }

  private static func median(
    _ repeats: Int, prepare: () -> Void = {}, _ body: () -> Void
  ) -> Double {
    let clock = ContinuousClock()
    let times = (0..<repeats).map { _ in
      prepare()
      let start = clock.now
      body()
      return (clock.now - start).inSeconds
    }
    return times.sorted()[repeats / 2]
  }
}
