/// What runs: operations one after the other, a network's or those inside a sum, bound to kernels and
/// the memory between them. Neighbours that can run together are one step; operations that only
/// reshape are none.
package final class Plan {
  package struct Step {
    package let node: Node
    package let first, last: Int
    package let parameters: [Parameter]
  }

  package let operations: [Bound]
  /// What each does its work with; nil where only the shape changes.
  package let nodes: [Node?]
  package private(set) var steps: [Step] = []
  let runtime: Runtime
  /// Batch normalisation at the end, whose statistics are taken here but which is left to the sum that
  /// the output goes into: the output is what it is to be applied to, and the gradient its own.
  private(set) var tail: BatchNormNode?

  // Activations and their gradients, one block a step, at the step's last operation (nil elsewhere),
  // for batches of up to `capacity` and `trainingCapacity` examples.
  private var outputs: [FloatStorage?] = []
  private var outputGradients: [FloatStorage?] = []
  private var capacity = 0
  private var trainingCapacity = 0

  let input: Shape
  // The lowest step whose backward pass anything trained needs.
  private var lowest = 0

  /// - Parameters:
  ///   - input: the size of one example
  ///   - training: false where nothing is to be trained: running statistics take the batch's place
  ///   - fusing: nil as the runtime has it
  ///   - isSummed: whether the output goes into a sum that does what the tail leaves to it
  package init(
    _ operations: [Bound], _ input: Shape, _ runtime: Runtime, training: Bool = true,
    fusing: Bool? = nil, isSummed: Bool = false
  ) {
    let nodes = operations.map { Self.node($0, runtime, training: training) }
    (self.operations, self.input, self.nodes, self.runtime) = (operations, input, nodes, runtime)
    var index = 0
    var chain: Chain?
    while index < operations.count {
      chain = Chain(operations, nodes, from: index, below: chain, isSummed: isSummed)
      var last = chain?.last ?? index
      let isFusing = fusing ?? runtime.fusing
      if let chain, isFusing, chain.isWorthIt {
        add(chain, index...last, parametersOf: chain.finished)
        tail = chain.sumTail
        if tail != nil { break }
      } else if isFusing, let sum = nodes[index] as? AddNode, index + 1 < operations.count,
        case .activate = operations[index + 1].kind, operations[index + 1].activation.isRelu
      {
        sum.isRelu = true
        last = index + 1
        add(sum, index...last, parametersOf: index..<last)
      } else {
        for single in index...last {
          if let node = nodes[single] {
            add(node, single...single, parametersOf: single..<single + 1)
          }
        }
      }
      if chain?.sumTail != nil { chain = nil }
      index = last + 1
    }
  }

  /// From now on nothing is computed below the lowest step with a parameter that isn't frozen, unless
  /// somebody wants the input's gradient; without frozen ones, everything is.
  func skipFrozen() {
    let hasFrozen = steps.contains { $0.parameters.contains(where: \.isFrozen) }
    lowest =
      hasFrozen
      ? steps.firstIndex { !$0.parameters.allSatisfy(\.isFrozen) } ?? steps.count : 0
  }

  private func add(_ node: Node, _ range: ClosedRange<Int>, parametersOf finished: Range<Int>) {
    steps.append(
      Step(
        node: node, first: range.lowerBound, last: range.upperBound,
        parameters: operations[finished].flatMap(\.allParameters).filter(\.isTrained)))
  }

  private static func node(_ operation: Bound, _ runtime: Runtime, training: Bool) -> Node? {
    switch operation.kind {
    case .convolve(let layer, let start): ConvolutionNode(layer, start: start, operation)
    case .multiply: DenseNode(operation)
    case .pool(let window): PoolingNode(window)
    case .normalizeBatch(let momentum, let epsilon):
      training
        ? BatchNormNode(momentum: momentum, epsilon: epsilon, operation)
        : RunningNormNode(epsilon: epsilon, operation)
    case .normalizePixels(let epsilon): LayerNormNode(epsilon: epsilon, operation)
    case .activate: ActivationNode(operation)
    case .drop(let rate): DropoutNode(rate, operation)
    case .reshape: nil
    case .add: AddNode(operation, runtime)
    case .own(let layer): CustomNode(layer, operation)
    }
  }

  /// What a pass of an operation computes and moves, for one image; nil where it has none.
  package func cost(_ pass: LayerPass, _ index: Int) -> PassCost? {
    nodes[index]?.cost(pass, operations[index].input, operations[index].output, runtime)
  }

  func hasRoom(for batch: Int, training: Bool) -> Bool {
    batch <= capacity && (!training || batch <= trainingCapacity)
  }

  /// Makes room for batches of this size.
  /// - Throws: ``StrideNetError`` where there isn't so much memory; what was there is there still
  package func reserve(_ batch: Int, training: Bool) throws {
    if hasRoom(for: batch, training: training) { return }
    func buffers() throws -> [FloatStorage?] {
      var all = [FloatStorage?](repeating: nil, count: operations.count)
      for step in steps {
        all[step.last] = try FloatStorage(count: batch * operations[step.last].output.count)
      }
      return all
    }
    for step in steps {
      try step.node.reserve(
        batch: max(batch, capacity), input: operations[step.first].input,
        output: operations[step.last].output, runtime: runtime, training: training)
    }
    if batch > capacity {
      outputs = try buffers()
      capacity = batch
    }
    if training && batch > trainingCapacity {
      outputGradients = try buffers()
      trainingCapacity = batch
    }
  }

  /// Calls `body` with the index of the last operation of each step: what ``reserve(_:training:)``
  /// takes memory for, once for outputs and once for their gradients, but for what nodes keep.
  func forEachBuffer(_ body: (Int) -> Void) { for step in steps { body(step.last) } }

  private func view(
    _ buffers: [FloatStorage?], _ index: Int, _ batch: Int, below: UnsafeMutablePointer<Float>?
  ) -> TensorView? {
    // An operation that only reshapes has the memory of the nearest one below that doesn't.
    var source = index
    while source >= 0, buffers[source] == nil { source -= 1 }
    guard let pointer = source >= 0 ? buffers[source]!.pointer : below else { return nil }
    return TensorView(pointer, batch: batch, shape: index < 0 ? input : operations[index].output)
  }

  /// The output of operation number `index`, the last of a step, in the last forward pass, from x.
  func output(_ index: Int, _ x: TensorView) -> TensorView {
    view(outputs, index, x.batch, below: x.pointer)!
  }

  private func gradient(_ index: Int, _ batch: Int) -> TensorView {
    view(outputGradients, index, batch, below: nil)!
  }

  /// Where the gradient of the last operation's output goes before ``backward(_:_:_:_:)``.
  func outputGradient(_ batch: Int) -> TensorView {
    gradient(operations.count - 1, batch)
  }

  /// The last operation's output in the last forward pass, from x.
  func lastOutput(_ x: TensorView) -> TensorView { output(operations.count - 1, x) }

  /// Runs all operations; the result stays valid until the next pass.
  package func forward(_ x: TensorView, _ pass: Pass) -> TensorView {
    for step in steps {
      pass.times?.layer = step.first
      step.node.forward(output(step.first - 1, x), output(step.last, x), pass)
      pass.exchange?.poll()
      pass.times?.lap(.forward)
    }
    return output(operations.count - 1, x)
  }

  /// From the upstream gradient `dy`, or what is in ``outputGradient(_:)``, which it may overwrite,
  /// computes all gradients; `dx` gets that of `x`, unless it is nil. Updates the parameters if the
  /// pass does.
  package func backward(_ x: TensorView, _ dy: TensorView?, _ dx: TensorView?, _ pass: Pass) {
    let last = steps.last?.last
    let lowest = dx == nil ? lowest : 0
    for index in (lowest..<steps.count).reversed() {
      let step = steps[index]
      pass.times?.layer = step.first
      step.node.backward(
        output(step.first - 1, x), output(step.last, x),
        step.last == last ? dy ?? outputGradient(x.batch) : gradient(step.last, x.batch),
        index == lowest && lowest > 0
          ? nil : view(outputGradients, step.first - 1, x.batch, below: dx?.pointer), pass)
      // What the node hasn't told apart.
      pass.times?.lap(.backward)
      if let exchange = pass.exchange {
        exchange.poll()
        exchange.update(step.parameters, step.node)
        continue
      }
      guard let update = pass.update, !step.node.updatesInBackward else { continue }
      // Nobody needs an operation's weights any more once its backward pass is over.
      for parameter in step.parameters { update.apply(parameter, runtime) }
      pass.times?.lap(.update)
    }
  }
}

/// What runs where nothing is trained: no dropout, and batch normalisation as part of the convolution
/// before it, whose weights it scales.
final class InferencePlan {
  let plan: Plan
  private struct Fold {
    let from: Bound
    let factors: RunningFactors
    let to: Bound
  }
  private let folds: [Fold]
  // The folded convolutions' weights.
  private var memory: FloatStorage?

  /// Nil where that is what is trained.
  init?(_ operations: [Bound], _ input: Shape, _ runtime: Runtime) {
    func isOfTraining(_ operation: Bound) -> Bool {
      switch operation.kind {
      case .drop, .normalizeBatch: true
      case .add:
        (operation.body + operation.shortcut).flatMap(\.operations).contains(where: isOfTraining)
      default: false
      }
    }
    guard operations.contains(where: isOfTraining) else { return nil }
    var (kept, folds) = ([Bound](), [Fold]())
    var below: Bound?
    for operation in operations {
      defer { below = operation }
      if case .drop = operation.kind { continue }
      if case .normalizeBatch(_, let epsilon) = operation.kind, let below,
        case .convolve = below.kind, below.activation.isNone
      {
        let folded = Bound(
          operation: LayerOperation(
            below.kind, below.input, below.output, below.operation.parameters,
            activation: operation.activation),
          parameters: below.parameters.map { Parameter($0.description, name: $0.name) },
          number: below.number, body: [], shortcut: [])
        folds.append(
          Fold(from: below, factors: RunningFactors(operation, epsilon: epsilon), to: folded))
        kept[kept.count - 1] = folded
      } else {
        kept.append(operation)
      }
    }
    self.folds = folds
    plan = Plan(kept, input, runtime, training: false)
  }

  /// Takes over the weights as they are now.
  func fold() throws {
    for node in plan.nodes { try node?.prepareInference() }
    if memory == nil && !folds.isEmpty {
      // Not before it is needed: networks are measured, and refused, without it.
      let memory = try FloatStorage(
        count: folds.reduce(0) { $0 + $1.to.parameters.reduce(0) { $0 + $1.count } })
      var offset = 0
      for parameter in folds.flatMap(\.to.parameters) {
        parameter.value = memory.pointer + offset
        offset += parameter.count
      }
      self.memory = memory
    }
    for fold in folds {
      let (scale, shift) = fold.factors.all
      let filters = scale.count
      let (from, to) = (fold.from.parameters, fold.to.parameters)
      for i in 0..<to[0].count { to[0].value[i] = from[0].value[i] * scale[i % filters] }
      for f in 0..<filters { to[1].value[f] = from[1].value[f] * scale[f] + shift[f] }
    }
  }
}
