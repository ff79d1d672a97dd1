import StrideNetCore

/// A mini-batch's way through a network's operations and back, each by itself and timed: what a
/// ``Trace`` is made of.
struct LayerWalk {
  private let network: Network
  // Of its own, in which nothing runs together.
  private let plan: Plan
  private let pass: Pass
  private let repeats: Int

  // The input, and each operation's output; those of layers are the last ones of theirs.
  private var outputs: [Tensor]
  private var times: [Double] = []
  // The gradient of each operation's output, and of what its activation was applied to; empty before
  // the way back.
  private var gradients: [Tensor] = []
  private var inner: [Tensor] = []
  /// That of the input.
  private(set) var inputGradient: Tensor?
  private var backwardTimes: [Double] = []

  private var batch: Int { outputs[0].batch }

  init(_ network: Network, _ x: Tensor, training: Bool, repeats: Int) {
    self.network = network
    self.repeats = repeats
    plan = Plan(
      network.plan!.operations, x.shape, network.runtime, training: training, fusing: false)
    pass = Pass(
      runtime: network.runtime, training: training, seed: network.seed, step: network.stepCount,
      share: BatchShare(x.batch))
    outputs = [x]
  }

  // MARK: The way

  mutating func goForward() throws {
    if !pass.training { for node in plan.nodes { try node?.prepareInference() } }
    for (operation, node) in zip(plan.operations, plan.nodes) {
      let below = outputs.last!
      guard let node else {
        outputs.append(try Tensor(batch: batch, shape: operation.output, below.values))
        times.append(0)
        continue
      }
      try node.reserve(
        batch: batch, input: operation.input, output: operation.output, runtime: network.runtime,
        training: pass.training)
      var output = Tensor(batch: batch, shape: operation.output)
      times.append(
        below.withView { below in
          output.withMutableView { output in
            Self.median(repeats) { node.forward(below, output, pass) }
          }
        })
      outputs.append(output)
    }
  }

  /// - Returns: the mean loss
  mutating func goBack(_ targets: Batch) throws -> Float {
    var upstream = Tensor(batch: batch, shape: network.shapes.last!)
    let loss = meanLoss(outputs.last!, targets, &upstream)
    backwardTimes = [Double](repeating: 0, count: plan.operations.count)
    for (index, operation) in plan.operations.enumerated().reversed() {
      gradients.append(upstream)
      guard let node = plan.nodes[index] else {
        inner.append(upstream)
        upstream = try Tensor(batch: batch, shape: operation.input, upstream.values)
        continue
      }
      var (dy, dx) = (upstream, Tensor(batch: batch, shape: operation.input))
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
    (gradients, inner) = (gradients.reversed(), inner.reversed())
    inputGradient = upstream
    return loss
  }

  /// Makes probabilities of the last output.
  /// - Returns: the logits that it was
  mutating func applySoftmax() -> Tensor {
    let logits = outputs.last!
    outputs[outputs.count - 1].withMutableView {
      Kernels.softmaxForward(rows: $0.batch, $0.shape.count, $0.pointer, $0.pointer)
    }
    return logits
  }

  /// The mean loss, and the gradient of what it was computed from.
  private func meanLoss(_ output: Tensor, _ targets: Batch, _ gradient: inout Tensor) -> Float {
    var losses = Tensor(batch: output.batch, shape: Shape(1))
    var wrong = [Int32](repeating: 0, count: output.batch)
    var output = output  // squared error makes probabilities of logits in place
    output.withMutableView { output in
      gradient.withMutableView { gradient in
        losses.withMutableView { losses in
          wrong.withUnsafeMutableBufferPointer { wrong in
            targets.withTargets { targets in
              network.loss.compute(
                LossBatch(
                  output: output, gradient: gradient.pointer, loss: losses.pointer,
                  wrong: wrong.baseAddress!),
                network.normalized(targets, output.batch), endsInSoftmax: network.endsInSoftmax,
                classWeights: network.classWeights)
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

  // MARK: What each layer did

  var layers: [Trace.Layer] {
    var end = 0
    return network.stages.enumerated().map { index, stage in
      let all = end..<end + stage.operations.count
      end = all.upperBound
      return layer(index + 1, stage, operations: all)
    }
  }

  private func layer(_ number: Int, _ stage: Stage, operations all: Range<Int>) -> Trace.Layer {
    let last = all.upperBound - 1
    let wentBack = !gradients.isEmpty
    let costs = all.compactMap { plan.cost(.forward, $0) }
    let trained = stage.parameters.filter(\.isTrained)
    return Trace.Layer(
      number: number, text: stage.text, output: outputs[last + 1],
      gradient: wentBack ? gradients[last] : nil,
      parameterGradientNorm: !wentBack || trained.isEmpty
        ? nil
        : Trace.norm(
          trained.lazy.flatMap { UnsafeBufferPointer(start: $0.gradient, count: $0.count) }),
      parameters: trained.reduce(0) { $0 + $1.count },
      kernel: costs.isEmpty ? nil : costs.map(\.kernel).joined(separator: ", "),
      why: costs.first?.why,
      operations: costs.reduce(0) { $0 + $1.operations } * Double(batch),
      bytes: costs.reduce(0) {
        $0 + 4 * (($1.inputs + $1.outputs) * Double(batch) + Double($1.weights))
      },
      seconds: times[all].reduce(0, +),
      backwardSeconds: wentBack && !costs.isEmpty ? backwardTimes[all].reduce(0, +) : nil,
      innerGradient: wentBack ? inner[last] : nil)
  }
}
