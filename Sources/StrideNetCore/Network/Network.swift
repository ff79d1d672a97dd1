import Foundation
import Synchronization

/// Lets a network be written as a list of layers without commas.
@resultBuilder public enum LayerList {
  public static func buildExpression(_ layer: any Layer) -> [any Layer] { [layer] }
  public static func buildExpression(_ layers: [any Layer]) -> [any Layer] { layers }
  public static func buildBlock(_ layers: [any Layer]...) -> [any Layer] { Array(layers.joined()) }
  public static func buildOptional(_ layers: [any Layer]?) -> [any Layer] { layers ?? [] }
  public static func buildEither(first layers: [any Layer]) -> [any Layer] { layers }
  public static func buildEither(second layers: [any Layer]) -> [any Layer] { layers }
  public static func buildArray(_ layers: [[any Layer]]) -> [any Layer] { Array(layers.joined()) }
}

/// Layers one after the other. Their sizes are learned from the first mini-batch.
///
///     let network = Network([
///       Conv2D(32, 3), MaxPool2D(2), Flatten(), Dense(100), Dense(10, activation: .softmax),
///     ])
///     let (layers, cce, ce) = try network.train(batch, learningRate: 0.1)
///
/// A network computes in memory of its own: one thread at a time may use it, and a second one that
/// enters meanwhile ends the program. Several threads that ask take a ``predictor()``, and several that
/// train a network each (``copy()``); these may share a ``Runtime``.
public final class Network {
  public let layers: [any Layer]
  public let runtime: Runtime
  /// The seed of the first weights.
  package let seed: UInt64
  /// What training minimises.
  public var loss = Loss.crossEntropy()
  /// What the classes are called, from output 0, or the numbers that are predicted; empty where nobody
  /// said. A trainer takes them from its data, and they are saved with the weights.
  public var classNames: [String] = []
  /// What each class counts in training; nil where all count alike.
  package var classWeights: [Float]?
  /// What is done to inputs before the first layer; nil for nothing. Set before training, and saved
  /// with the weights.
  public var normalization: InputNormalization?
  // The inputs of the last pass after that.
  var normalizedInputs = FloatStorage.empty
  /// Of a network that predicts numbers, what is done to these; nil where outputs are classes, or are
  /// taken as they are. Set before training, and saved with the weights.
  public var targetNormalization: TargetNormalization?
  var normalizedTargets = FloatStorage.empty
  /// How the pictures that it was trained on were fitted into its input, if they were pictures.
  package var pictureFit: Picture.Fit?
  /// Training steps so far. Dropout's masks are a function of it.
  package internal(set) var stepCount = 0

  /// The layers with what they are made of and its parameters; empty until built.
  package private(set) var stages: [Stage] = []
  /// Whether the last layer ends in softmax, which is computed with the loss; false until built.
  package private(set) var endsInSoftmax = false
  var parameters: [Parameter] = []
  package private(set) var plan: Plan?
  // What runs where nothing is trained, if that is something else.
  var inferencePlan: InferencePlan?
  /// Whether what was made of the weights for the last prediction is still good: who writes weights,
  /// or gives the network others, sets it back.
  var isReady = false

  var weights = FloatStorage.empty
  var gradients = FloatStorage.empty
  // What the optimiser remembers, array after array, and for how many steps.
  var memory: [FloatStorage] = []
  // Whether it is of the parts that this process updates, of several.
  var isMemoryDivided = false
  var updateCount = 0
  var method: Optimizer.Method?
  // The moving average of the weights, if there is one.
  var average: FloatStorage?
  var partialNorms: [Double] = []
  var parameterList: [(name: String, shape: [Int])] = []

  /// Where training steps are timed, if they are.
  package private(set) var times: PassTimes?
  private var timesPasses = false

  var losses = FloatStorage.empty
  var wrong: [Int32] = []
  // Where several processes train together: what travels, and the labels of all of a mini-batch.
  var exchange: GradientExchange?
  var allLabels = FloatStorage.empty

  public init(_ layers: [any Layer], seed: UInt64 = 1, runtime: Runtime = Runtime()) {
    self.layers = layers
    self.seed = seed
    self.runtime = runtime
  }

  public convenience init(
    seed: UInt64 = 1, runtime: Runtime = Runtime(), @LayerList _ layers: () -> [any Layer]
  ) {
    self.init(layers(), seed: seed, runtime: runtime)
  }

  /// A network with a runtime of its own, whose products have this precision.
  public convenience init(
    seed: UInt64 = 1, precision: Precision, @LayerList _ layers: () -> [any Layer]
  ) {
    self.init(layers(), seed: seed, runtime: Runtime(precision: precision))
  }

  // MARK: Building

  /// Sizes all layers for inputs of this shape and draws the first weights. Happens by itself with
  /// the first mini-batch.
  /// - Throws: ``StrideNetError`` naming the layer that doesn't fit and both shapes
  public func build(for input: Shape) throws {
    try build(for: input) { _ in }
  }

  /// - Parameters:
  ///   - batch: how many images a training step will have, if that is known
  ///   - accept: sees the parameters' names and shapes before memory is taken for them
  package func build(
    for input: Shape, batch: Int? = nil, _ optimizer: Optimizer? = nil,
    accept: ([(name: String, shape: [Int])]) throws -> Void
  ) throws {
    guard self.input == nil else { return try check(input) }
    try exclusively { try layOut(input, batch, optimizer, sharing: nil, accept) }
  }

  /// Sizes all layers for questions alone, with these weights, which stay as they are.
  func build(for input: Shape, sharing weights: Snapshot) throws {
    try exclusively { try layOut(input, nil, nil, sharing: weights) { _ in } }
  }

  private func layOut(
    _ input: Shape, _ batch: Int?, _ optimizer: Optimizer?, sharing snapshot: Snapshot?,
    _ accept: ([(name: String, shape: [Int])]) throws -> Void
  ) throws {
    guard !layers.isEmpty else {
      throw StrideNetError(.badData, "a network without layers", hint: "give it at least one layer")
    }
    let lowered = try LoweredLayer.list(layers, for: input)
    guard lowered.contains(where: { !$0.onlyReshapes }) else {
      throw StrideNetError(
        .badData, "a network that computes nothing", found: Architecture.text(layers),
        expected: "at least one layer that does more than reshape")
    }
    let stages = Stage.list(lowered)
    let parameters = stages.flatMap(\.parameters)
    let parameterList = parameters.map { (name: $0.name, shape: $0.shape) }
    try accept(parameterList)
    // The softmax at the end is computed with the loss.
    var operations = stages.flatMap(\.operations)
    let endsInSoftmax = operations.last!.activation.isSoftmax
    if endsInSoftmax {
      operations[operations.count - 1] = operations.last!.withoutActivation
    }
    let plan = Plan(operations, input, runtime)
    var need = MemoryNeed()
    if snapshot == nil {
      need.add(
        parameters.reduce(0) { $0 + $1.count }, times: 2, for: "weights and their gradients")
    }
    if let batch, let optimizer {
      count(plan, stages, batch, training: true, optimizer, in: &need)
    }
    try need.require()
    let inferencePlan = InferencePlan(operations, input, runtime)
    if let snapshot {
      weights = snapshot.storage
      point(parameters)
    } else {
      try bindParameters(parameters)
    }
    (self.stages, self.parameters, self.parameterList) = (stages, parameters, parameterList)
    shapes = stages.map(\.output)
    (self.plan, self.inferencePlan, self.endsInSoftmax) = (plan, inferencePlan, endsInSoftmax)
    isReady = false
    markParameters()
    if timesPasses { timePasses() }
  }

  /// From now on the passes of training steps are timed, for ``explanation(_:)``.
  package func timePasses() {
    timesPasses = true
    times = plan.map { PassTimes(operations: $0.operations.count, workers: runtime.threads) }
  }

  /// Counts what passes over batches of this size take, and an optimiser.
  func count(
    _ plan: Plan, _ stages: [Stage], _ batch: Int, training: Bool, _ optimizer: Optimizer?,
    in need: inout MemoryNeed
  ) {
    plan.forEachBuffer { index in
      let shape = plan.operations[index].output
      need.add(
        shape.count, times: training ? 2 * batch : batch,
        for: "layer \(Self.place(stages, ofOperation: index).layer + 1), "
          + "\(stages[Self.place(stages, ofOperation: index).layer].text): \(batch) images' outputs of "
          + "\(shape)\(training ? ", and their gradients" : "")")
    }
    let weights = parameters.reduce(0) { $0 + $1.count }
    if training, let optimizer {
      need.add(
        weights, times: max(0, optimizer.method.rule.memory.count - memory.count),
        for: "the optimiser's memory")
    }
  }

  /// The layer that operation number `index` of the plan is of, and its number there.
  package func place(ofOperation index: Int) -> (layer: Int, number: Int) {
    Self.place(stages, ofOperation: index)
  }

  private static func place(_ stages: [Stage], ofOperation index: Int) -> (layer: Int, number: Int)
  {
    var number = index
    for (layer, stage) in stages.enumerated() {
      if number < stage.operations.count { return (layer, number) }
      number -= stage.operations.count
    }
    preconditionFailure("no operation \(index)")
  }

  /// - Throws: ``StrideNetError`` naming a layer that several processes can't share
  func checkShared() throws {
    for (index, stage) in stages.enumerated() {
      for operation in stage.operations {
        guard case .own = operation.kind else { continue }
        throw StrideNetError(
          .badData, "a layer of one's own, which several processes can't train together",
          at: "layer \(index + 1), \(stage.text)", expected: "StrideNet's layers")
      }
    }
  }

  let isInUse = Atomic<Bool>(false)

  /// Everything that works in the network's memory or replaces it: what two threads did there at the
  /// same time would be wrong without a word.
  func exclusively<R>(_ body: () throws -> R) rethrows -> R {
    let wasInUse = isInUse.exchange(true, ordering: .acquiring)
    precondition(!wasInUse, "two threads use one network at the same time: each needs its own")
    defer { isInUse.store(false, ordering: .releasing) }
    return try body()
  }

  /// How many weights layers have for an input, and how many values they make of one example, without
  /// memory taken for any of them.
  /// - Throws: ``StrideNetError`` naming the layer that doesn't fit and both shapes
  package static func size(of layers: [any Layer], for input: Shape) throws -> (
    parameters: Int, activations: Int
  ) {
    let stages = Stage.list(try LoweredLayer.list(layers, for: input))
    return (
      stages.flatMap(\.parameters).reduce(0) { $0 + $1.count },
      stages.reduce(0) { $0 + $1.output.count }
    )
  }

  /// The size of one example; nil until the first mini-batch.
  public var input: Shape? { plan?.input }
  /// Each layer's output size; empty until the first mini-batch.
  public private(set) var shapes: [Shape] = []
  /// Gives each parameter its place in the block and its first values.
  func bindParameters(_ all: [Parameter]) throws {
    let count = all.reduce(0) { $0 + $1.count }
    (weights, gradients) = (try FloatStorage(count: count), try FloatStorage(count: count))
    point(all)
    var random = SeededGenerator(seed: seed, stream: 1)
    for parameter in all {
      parameter.description.initializer.fill(parameter, &random)
    }
  }

  func point(_ parameters: [Parameter]) {
    var (offset, place) = (0, 0)
    for parameter in parameters {
      parameter.value = weights.pointer + offset
      parameter.gradient = gradients.pointer + offset
      parameter.setMemories(memory.map { $0.pointer + place })
      offset += parameter.count
      place += parameter.updated.count(of: parameter.count)
    }
  }

  /// Before anything is written to the weights: somebody may have kept a snapshot of them.
  package func ownWeights() throws {
    isReady = false
    guard !isKnownUniquelyReferenced(&weights) else { return }
    weights = try weights.copy()
    point(parameters)
  }

  func check(_ shape: Shape) throws {
    guard shape == input else {
      throw StrideNetError(
        .badData, "images of another size than the network was built for",
        found: "\(shape)", expected: "\(input!)",
        hint: "a network learns its sizes from its first mini-batch; make a new one")
    }
  }

  /// Makes room for batches of this size.
  /// - Parameter losses: room for so many examples' losses, unless it is as many
  func reserve(
    _ batch: Int, losses lossCount: Int? = nil, training: Bool, _ optimizer: Optimizer? = nil
  ) throws {
    let plan = training ? self.plan! : inferencePlan?.plan ?? self.plan!
    if !plan.hasRoom(for: batch, training: training) {
      var need = MemoryNeed()
      count(plan, stages, batch, training: training, optimizer, in: &need)
      try need.require()
      try plan.reserve(batch, training: training)
    }
    try checkNormalization(for: input!)
    try checkTargetNormalization()
    try reserveTargets(batch)
    if normalization != nil, normalizedInputs.count < batch * input!.count {
      normalizedInputs = try FloatStorage(count: batch * input!.count)
    }
    let lossCount = lossCount ?? batch
    if losses.count < lossCount {
      losses = try FloatStorage(count: lossCount)
      wrong = [Int32](repeating: 0, count: lossCount)
      if runtime.communicator.size > 1 { allLabels = try FloatStorage(count: lossCount) }
    }
    if let optimizer {
      let arrays = optimizer.method.rule.memory.count
      var memory = memory
      let count = parameters.reduce(0) { $0 + $1.updated.count(of: $1.count) }
      while memory.count < arrays { memory.append(try FloatStorage(count: count)) }
      if memory.count != self.memory.count {
        self.memory = memory
        point(parameters)
      }
    }
  }

  // MARK: What is trained

  /// The layers, from 0, that training leaves as they are, bit for bit: gradients go through them, but
  /// no step changes their weights, and batch normalisation there normalises by its running statistics,
  /// which stay too. Below the lowest layer that is trained no gradients are computed; those of frozen
  /// layers are 0.
  public var frozenLayers: Set<Int> = [] { didSet { markParameters() } }
  private var regularizers: [(layers: Range<Int>, regularizer: any Regularizer)] = []

  /// From now on the weights (not biases or factors) of these layers, or of all, have a regulariser.
  /// - Parameters:
  ///   - regularizer: what is added to their slopes
  ///   - layers: from 0
  public func regularize(_ regularizer: any Regularizer, layers: Range<Int>? = nil) {
    regularizers.append((layers ?? 0..<self.layers.count, regularizer))
    markParameters()
  }

  private func markParameters() {
    for (index, stage) in stages.enumerated() {
      for parameter in stage.parameters {
        parameter.isFrozen = frozenLayers.contains(index)
        parameter.regularizers =
          parameter.shape.count > 1
          ? regularizers.filter { $0.layers.contains(index) }.map(\.regularizer) : []
      }
    }
    plan?.skipFrozen()
    clearFrozenGradients()
  }

  /// What was left there by a backward pass is no part of the gradient.
  func clearFrozenGradients() {
    if frozenLayers.isEmpty { return }
    for parameter in parameters where parameter.isFrozen {
      parameter.gradient.update(repeating: 0, count: parameter.count)
    }
  }
}
