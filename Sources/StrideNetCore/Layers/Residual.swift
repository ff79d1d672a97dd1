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
      training = Plan(operations, input, runtime)
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
  }
  private let bodyBranch: Branch
  private let shortcutBranch: Branch?
  private var bodyGradient = FloatStorage.empty

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

  /// The two that are added, until the next pass.
  package func sides(_ x: TensorView, _ pass: Pass) -> (body: TensorView, shortcut: TensorView) {
    let shortcut = shortcutBranch?.forward(x, pass) ?? x
    return (bodyBranch.forward(x, pass), shortcut)
  }

  package override func forward(_ x: TensorView, _ y: TensorView, _ pass: Pass) {
    var pass = pass
    pass.times = nil  // the layers inside have no rows of their own
    let (result, other) = sides(x, pass)
    pass.runtime.parallel(over: y.count, by: 16_384, (result, other, y)) { context, range, _ in
      let (result, other, y) = context
      let start = range.lowerBound
      Kernels.sum(range.count, result.pointer + start, other.pointer + start, y.pointer + start)
    }
  }

  package override func backward(
    _ x: TensorView, _ y: TensorView, _ dy: TensorView, _ dx: TensorView?, _ pass: Pass
  ) {
    var inside = pass
    inside.times = nil
    func copy(_ from: TensorView, _ to: TensorView) {
      pass.runtime.parallel(over: from.count, by: 65_536, (from, to)) { context, range, _ in
        let (from, to) = context
        (to.pointer + range.lowerBound).update(
          from: from.pointer + range.lowerBound, count: range.count)
      }
    }
    // The body comes last: it may overwrite dy.
    if let shortcutBranch {
      copy(dy, shortcutBranch.training.outputGradient(dy.batch))
      shortcutBranch.training.backward(x, nil, dx, inside)
    } else if let dx {
      copy(dy, dx)
    }
    guard let dx else { return bodyBranch.training.backward(x, dy, nil, inside) }
    let gradient = TensorView(
      bodyGradient.at(0, count: dx.count), batch: dx.batch, shape: dx.shape)
    bodyBranch.training.backward(x, dy, gradient, inside)
    pass.runtime.parallel(over: dx.count, by: 16_384, (gradient, dx)) { context, range, _ in
      let (gradient, dx) = context
      Kernels.add(
        range.count, gradient.pointer + range.lowerBound, to: dx.pointer + range.lowerBound)
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
