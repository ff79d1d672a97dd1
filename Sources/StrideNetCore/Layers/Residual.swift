/// A residual connection (He et al. 2015, arXiv:1512.03385): y = shortcut(x) + body(x), each of them
/// layers one after the other. Without layers, the shortcut is x itself.
///
///     Residual([
///       Conv2D(32, 3, padding: 1), Conv2D(32, 3, padding: 1, activation: .none),
///     ])
public struct Residual: Layer {
  package let body, shortcut: [any Layer]

  public init(_ body: [any Layer], shortcut: [any Layer] = []) {
    (self.body, self.shortcut) = (body, shortcut)
  }

  public var text: String {
    let other = shortcut.isEmpty ? "" : " | \(Architecture.text(shortcut))"
    return "residual(\(Architecture.text(body))\(other))"
  }

  public func operations(for input: Shape) throws -> [LayerOperation] {
    func side(_ layers: [any Layer]) throws -> [LoweredLayer] {
      let result = try LoweredLayer.list(layers, for: input)
      guard result.contains(where: { !$0.onlyReshapes }) else {
        throw StrideNetError(
          .badData, "a residual connection around nothing", at: text,
          expected: "at least one layer that computes something")
      }
      return result
    }
    let inner = try side(body)
    let other = shortcut.isEmpty ? [] : try side(shortcut)
    let (output, beside) = (inner.last!.output, other.last?.output ?? input)
    guard beside == output else {
      throw StrideNetError(
        .badData, "the two sides of a residual connection differ in size", at: text,
        found: "\(output) from the layers, \(beside) beside them", expected: "the same of both",
        hint: shortcut.isEmpty
          ? "use padding=same in its convolutions, or give it a shortcut: residual(… | conv(\(output.channels),1,activation=none))"
          : "change the shortcut's filters or stride")
    }
    return [LayerOperation(.add(body: inner, shortcut: other), input, output)]
  }
}

/// The passes of two sides and their sum.
package final class AddNode: Node {
  /// What runs in training, and elsewhere.
  private struct Branch {
    let training: Plan
    let inference: InferencePlan?

    init(_ stages: [Stage], _ input: Shape, _ runtime: Runtime) {
      let operations = stages.flatMap(\.operations)
      training = Plan(operations, input, runtime, isSummed: true)
      inference = InferencePlan(operations, input, runtime)
    }

    func reserve(_ batch: Int, training isTraining: Bool) throws {
      try (isTraining ? training : inference?.plan ?? training)
        .reserve(batch, training: isTraining)
    }

    func forward(_ x: TensorView, _ pass: Pass) -> TensorView {
      let plan = pass.training ? training : inference?.plan ?? training
      return plan.forward(x, pass)
    }

    /// The batch normalisation that is left to the sum.
    func tail(_ pass: Pass) -> BatchNormNode? { pass.training ? training.tail : nil }
  }
  private let bodyBranch: Branch
  private let shortcutBranch: Branch?
  /// What is trained: both sides.
  var plans: [Plan] { [bodyBranch.training] + (shortcutBranch.map { [$0.training] } ?? []) }
  private var bodyGradient = FloatStorage.empty
  /// Whether ReLU, the next operation, is part of it.
  final var isRelu = false

  package init(_ operation: Bound, _ runtime: Runtime) {
    let input = operation.input
    bodyBranch = Branch(operation.body, input, runtime)
    shortcutBranch = operation.shortcut.isEmpty ? nil : Branch(operation.shortcut, input, runtime)
  }

  package override func reserve(
    batch: Int, input: Shape, output: Shape, runtime: Runtime, training: Bool
  ) throws {
    try bodyBranch.reserve(batch, training: training)
    try shortcutBranch?.reserve(batch, training: training)
    if training && bodyGradient.count < batch * input.count {
      bodyGradient = try FloatStorage(count: batch * input.count)
    }
  }

  package override func prepareInference() throws {
    try bodyBranch.inference?.fold()
    try shortcutBranch?.inference?.fold()
  }

  /// The two that are added, until the next pass; in training, batch normalisation at their end may
  /// be still to do.
  package func sides(_ x: TensorView, _ pass: Pass) -> (body: TensorView, shortcut: TensorView) {
    let shortcut = shortcutBranch?.forward(x, pass) ?? x
    return (bodyBranch.forward(x, pass), shortcut)
  }

  package override func forward(_ x: TensorView, _ y: TensorView, _ pass: Pass) {
    var pass = pass
    pass.times = nil  // the layers inside have no rows of their own
    let (result, other) = sides(x, pass)
    let tails = (bodyBranch.tail(pass), shortcutBranch?.tail(pass))
    let channels = y.shape.channels
    pass.runtime.parallel(
      over: y.count / channels, by: max(1, 16_384 / channels),
      (result, other, tails, isRelu, channels, y)
    ) { context, range, _ in
      let (result, other, tails, isRelu, channels, y) = context
      let start = range.lowerBound * channels
      func summand(_ values: TensorView, _ tail: BatchNormNode?) -> Kernels.Summand {
        (Kernels.Floats(values.pointer + start), tail?.factors.scale, tail?.factors.shift)
      }
      Kernels.sum(
        rows: range.count, channels, summand(result, tails.0), summand(other, tails.1),
        relu: isRelu, y.pointer + start)
    }
  }

  package override func backward(
    _ x: TensorView, _ y: TensorView, _ dy: TensorView, _ dx: TensorView?, _ pass: Pass
  ) {
    var inside = pass
    inside.times = nil
    // What is left to the sum doesn't overwrite the gradient that it is given, so without a shortcut's
    // layers that may be dx already.
    let target = shortcutBranch == nil && bodyBranch.training.tail != nil ? dx : nil
    let upstream = target ?? dy
    openGates(x, y, dy, upstream, inside)
    // The body comes last: it may overwrite dy.
    if let plan = shortcutBranch?.training {
      if plan.tail == nil { copy(dy, plan.outputGradient(dy.batch), pass) }
      plan.backward(x, plan.tail == nil ? nil : dy, dx, inside)
    } else if let dx, target == nil {
      copy(dy, dx, pass)
    }
    guard let dx else { return bodyBranch.training.backward(x, upstream, nil, inside) }
    let gradient = TensorView(
      bodyGradient.at(0, count: dx.count), batch: dx.batch, shape: dx.shape)
    bodyBranch.training.backward(x, upstream, gradient, inside)
    pass.runtime.parallel(over: dx.count, by: 16_384, (gradient, dx)) { context, range, _ in
      let (gradient, dx) = context
      Kernels.add(
        range.count, gradient.pointer + range.lowerBound, to: dx.pointer + range.lowerBound)
    }
  }

  /// ReLU's backward pass from dy to `upstream`, which may be dy, and the sums over it that batch
  /// normalisations at the sides' ends need.
  private func openGates(
    _ x: TensorView, _ y: TensorView, _ dy: TensorView, _ upstream: TensorView, _ pass: Pass
  ) {
    if isRelu {
      pass.runtime.parallel(over: y.count, by: 16_384, (y, dy, upstream)) { context, range, _ in
        let (y, dy, upstream) = context
        let start = range.lowerBound
        Kernels.reluBackward(
          range.count, y: y.pointer + start, dy.pointer + start, upstream.pointer + start)
      }
    } else if upstream.pointer != dy.pointer {
      copy(dy, upstream, pass)
    }
    func takeSums(_ plan: Plan) {
      guard let tail = plan.tail else { return }
      let inputs = plan.lastOutput(x)
      tail.forEachPart(inputs, inputs, upstream, nil, pass, sums: true)
    }
    takeSums(bodyBranch.training)
    if let shortcutBranch { takeSums(shortcutBranch.training) }
  }

  private func copy(_ from: TensorView, _ to: TensorView, _ pass: Pass) {
    pass.runtime.parallel(over: from.count, by: 65_536, (from, to)) { context, range, _ in
      let (from, to) = context
      (to.pointer + range.lowerBound).update(
        from: from.pointer + range.lowerBound, count: range.count)
    }
  }

  // Its layers' parameters are updated after each one's backward pass.
  package override var updatesInBackward: Bool { true }

  override func cost(_ pass: LayerPass, _ input: Shape, _ output: Shape, _ runtime: Runtime)
    -> PassCost?
  {
    // The operations inside as one: what they compute, and their inputs and outputs.
    let passes: [LayerPass] =
      pass == .forward
      ? [.forward] : [.activationGradient, .inputGradient, .weightGradient, .backward]
    func sum(_ plan: Plan?) -> [PassCost] {
      guard let plan else { return [] }
      return plan.operations.indices.flatMap { index in
        passes.compactMap { plan.cost($0, index) }
      }
    }
    guard pass == .forward || pass == .backward else { return nil }
    let costs = sum(bodyBranch.training) + sum(shortcutBranch?.training)
    return PassCost(
      kernel: "its layers'", why: PassCost.onlyKernel,
      operations: costs.reduce(0) { $0 + $1.operations },
      inputs: costs.reduce(Double(input.count)) { $0 + $1.inputs },
      outputs: costs.reduce(Double(output.count)) { $0 + $1.outputs },
      weights: costs.reduce(0) { $0 + $1.weights })
  }
}
