/// A residual connection (He et al. 2015, arXiv:1512.03385): y = shortcut(x) + body(x), each of them
/// layers one after the other. Without layers, the shortcut is x itself.
///
///     Residual([
///       Conv2D(32, 3, padding: 1), Conv2D(32, 3, padding: 1, activation: .none),
///     ])
public final class Residual: Layer {
  public let body, shortcut: [Layer]

  /// What runs in training, and elsewhere.
  private struct Branch {
    let training: Plan
    let inference: InferencePlan?

    init(_ layers: [Layer], _ input: Shape, _ shapes: [Shape], _ runtime: Runtime) {
      training = Plan(layers, input, shapes, runtime)
      inference = InferencePlan(layers, input, shapes, runtime)
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
  private var bodyBranch, shortcutBranch: Branch?
  private var bodyGradient = FloatStorage.empty

  public init(_ body: [Layer], shortcut: [Layer] = []) {
    self.body = body
    self.shortcut = shortcut
  }

  public override var inner: [Layer] { body + shortcut }

  /// The layers with their sizes, once they are known.
  func stages(_ input: Shape) -> (body: [Stage], shortcut: [Stage]) {
    func list(_ layers: [Layer], _ branch: Branch?) -> [Stage] {
      Stage.list(layers, input, branch?.training.shapes ?? [])
    }
    return (list(body, bodyBranch), list(shortcut, shortcutBranch))
  }

  public override var parameters: [Parameter] { inner.flatMap(\.parameters) }

  public override var text: String {
    let other = shortcut.isEmpty ? "" : " | \(Architecture.text(shortcut))"
    return "residual(\(Architecture.text(body))\(other))"
  }

  public override func build(for input: Shape, runtime: Runtime) throws -> Shape {
    func branch(_ layers: [Layer], _ name: String) throws -> (Branch, Shape) {
      let shapes = try Plan.shapes(layers, for: input, runtime)
      for (index, layer) in layers.enumerated() {
        for parameter in layer.parameters { parameter.name = "\(name).\(index).\(parameter.name)" }
      }
      guard layers.contains(where: { !$0.onlyReshapes }) else {
        throw StrideNetError(
          .badData, "a residual connection around nothing", at: text,
          expected: "at least one layer that computes something")
      }
      return (Branch(layers, input, shapes, runtime), shapes.last!)
    }
    let (bodyBranch, output) = try branch(body, "body")
    self.bodyBranch = bodyBranch
    var other = input
    if !shortcut.isEmpty { (shortcutBranch, other) = try branch(shortcut, "shortcut") }
    guard other == output else {
      throw StrideNetError(
        .badData, "the two sides of a residual connection differ in size", at: text,
        found: "\(output) from the layers, \(other) beside them", expected: "the same of both",
        hint: shortcut.isEmpty
          ? "use padding=same in its convolutions, or give it a shortcut: residual(… | conv(\(output.channels),1,activation=none))"
          : "change the shortcut's filters or stride")
    }
    return output
  }

  public override func reserve(batch: Int, input: Shape, output: Shape, runtime: Runtime) throws {
    try reserve(batch: batch, input: input, output: output, runtime: runtime, training: true)
  }

  override func reserve(
    batch: Int, input: Shape, output: Shape, runtime: Runtime, training: Bool
  ) throws {
    for branch in [bodyBranch, shortcutBranch] { try branch?.reserve(batch, training: training) }
    if training && bodyGradient.count < batch * input.count {
      bodyGradient = try FloatStorage(count: batch * input.count)
    }
  }

  override func prepareInference() throws {
    try bodyBranch?.inference?.fold()
    try shortcutBranch?.inference?.fold()
  }

  /// The two that are added, until the next pass.
  func sides(_ x: TensorView, _ pass: Pass) -> (body: TensorView, shortcut: TensorView) {
    let shortcut = shortcutBranch?.forward(x, pass) ?? x
    return (bodyBranch!.forward(x, pass), shortcut)
  }

  public override func forward(_ x: TensorView, _ y: TensorView, _ pass: Pass) {
    var pass = pass
    pass.times = nil  // the layers inside have no rows of their own
    let (result, other) = sides(x, pass)
    pass.runtime.parallel(over: y.count, by: 16_384, (result, other, y)) { context, range, _ in
      let (result, other, y) = context
      let start = range.lowerBound
      Kernels.sum(range.count, result.pointer + start, other.pointer + start, y.pointer + start)
    }
  }

  public override func backward(
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
    guard let dx else { return bodyBranch!.training.backward(x, dy, nil, inside) }
    let gradient = TensorView(
      bodyGradient.at(0, count: dx.count), batch: dx.batch, shape: dx.shape)
    bodyBranch!.training.backward(x, dy, gradient, inside)
    pass.runtime.parallel(over: dx.count, by: 16_384, (gradient, dx)) { context, range, _ in
      let (gradient, dx) = context
      Kernels.add(
        range.count, gradient.pointer + range.lowerBound, to: dx.pointer + range.lowerBound)
    }
  }

  // Its layers' parameters are updated after each one's backward pass.
  override var updatesInBackward: Bool { true }

  override func cost(_ pass: LayerPass, _ input: Shape, _ output: Shape, _ runtime: Runtime)
    -> PassCost?
  {
    // The layers inside as one: their operations, and their inputs and outputs.
    func sum(_ layers: [Layer], _ branch: Branch?) -> [PassCost] {
      guard let plan = branch?.training else { return [] }
      let passes: [LayerPass] =
        pass == .forward
        ? [.forward] : [.activationGradient, .inputGradient, .weightGradient, .backward]
      return layers.indices.flatMap { index in
        passes.compactMap {
          layers[index].cost(
            $0, index == 0 ? input : plan.shapes[index - 1], plan.shapes[index], runtime)
        }
      }
    }
    guard pass == .forward || pass == .backward else { return nil }
    let costs = sum(body, bodyBranch) + sum(shortcut, shortcutBranch)
    return PassCost(
      kernel: "its layers'", why: PassCost.onlyKernel,
      operations: costs.reduce(0) { $0 + $1.operations },
      inputs: costs.reduce(Double(input.count)) { $0 + $1.inputs },
      outputs: costs.reduce(Double(output.count)) { $0 + $1.outputs },
      weights: costs.reduce(0) { $0 + $1.weights })
  }
}
