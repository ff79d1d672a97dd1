import Foundation
import Synchronization

/// The weights of a network at one moment. It shares memory with the network until that trains on,
/// so taking one and dropping it costs nothing.
public struct Snapshot: Sendable {
  let storage: FloatStorage
  /// Name and shape of each array, in the order of ``values``.
  public let parameters: [(name: String, shape: [Int])]

  /// All weights, one parameter after the other.
  public var values: [Float] {
    Array(UnsafeBufferPointer(start: storage.pointer, count: storage.count))
  }

  /// SHA-256 of the weights' bytes, in hexadecimal: equal for equal training.
  public var sha256: String {
    var digest = SHA256()
    digest.update(UnsafeRawBufferPointer(start: storage.pointer, count: storage.count * 4))
    return digest.hex
  }

  /// The arrays by name, as they stand in a weight file.
  public var arrays: [Safetensors.Tensor] {
    var start = 0
    return parameters.map { name, shape in
      let count = shape.reduce(1, *)
      defer { start += count }
      return Safetensors.Tensor(
        name: name, shape: shape,
        values: Array(UnsafeBufferPointer(start: storage.pointer + start, count: count)))
    }
  }
}

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
/// enters meanwhile ends the program. Several threads take a network each (``load(from:runtime:)``,
/// or ``restore(_:)`` of a shared ``Snapshot``); these may share a ``Runtime``.
public final class Network {
  public let layers: [any Layer]
  public let runtime: Runtime
  /// The seed of the first weights.
  public let seed: UInt64
  /// What training minimises.
  public var loss = Loss.crossEntropy()
  /// Training steps so far. Dropout's masks are a function of it.
  public internal(set) var stepCount = 0

  /// The layers with what they are made of and its parameters; empty until built.
  private(set) var stages: [Stage] = []
  /// Whether the last layer ends in softmax, which is computed with the loss; false until built.
  public private(set) var endsInSoftmax = false
  private var parameters: [Parameter] = []
  private(set) var plan: Plan?
  // What runs where nothing is trained, if that is something else.
  private var inferencePlan: InferencePlan?

  private var weights = FloatStorage.empty
  private var gradients = FloatStorage.empty
  // What the optimiser remembers, array after array, and for how many steps.
  private var memory: [FloatStorage] = []
  private var updateCount = 0
  private var method: Optimizer.Method?
  // The moving average of the weights, if there is one.
  private var average: FloatStorage?
  private var partialNorms: [Double] = []
  private var parameterList: [(name: String, shape: [Int])] = []

  /// Where training steps are timed, if they are.
  private(set) var times: PassTimes?
  private var timesPasses = false

  private var losses = FloatStorage.empty
  private var wrong: [Int32] = []

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
  func build(
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
    markParameters()
    if timesPasses { timePasses() }
  }

  /// From now on the passes of training steps are timed, for ``explanation(_:)``.
  public func timePasses() {
    timesPasses = true
    times = plan.map { PassTimes(operations: $0.operations.count, workers: runtime.threads) }
  }

  /// Counts what passes over batches of this size take, and an optimiser.
  private func count(
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
  func place(ofOperation index: Int) -> (layer: Int, number: Int) {
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

  private let isInUse = Atomic<Bool>(false)

  /// Everything that works in the network's memory or replaces it: what two threads did there at the
  /// same time would be wrong without a word.
  private func exclusively<R>(_ body: () throws -> R) rethrows -> R {
    let wasInUse = isInUse.exchange(true, ordering: .acquiring)
    precondition(!wasInUse, "two threads use one network at the same time: each needs its own")
    defer { isInUse.store(false, ordering: .releasing) }
    return try body()
  }

  /// How many weights layers have for an input, and how many values they make of one example, without
  /// memory taken for any of them.
  /// - Throws: ``StrideNetError`` naming the layer that doesn't fit and both shapes
  public static func size(of layers: [any Layer], for input: Shape) throws -> (
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
  private func bindParameters(_ all: [Parameter]) throws {
    let count = all.reduce(0) { $0 + $1.count }
    (weights, gradients) = (try FloatStorage(count: count), try FloatStorage(count: count))
    point(all)
    var random = SeededGenerator(seed: seed, stream: 1)
    for parameter in all {
      parameter.description.initializer.fill(parameter, &random)
    }
  }

  private func point(_ parameters: [Parameter]) {
    var offset = 0
    for parameter in parameters {
      parameter.value = weights.pointer + offset
      parameter.gradient = gradients.pointer + offset
      parameter.setMemories(memory.map { $0.pointer + offset })
      offset += parameter.count
    }
  }

  /// Before anything is written to the weights: somebody may have kept a snapshot of them.
  func ownWeights() throws {
    guard !isKnownUniquelyReferenced(&weights) else { return }
    weights = try weights.copy()
    point(parameters)
  }

  private func check(_ shape: Shape) throws {
    guard shape == input else {
      throw StrideNetError(
        .badData, "images of another size than the network was built for",
        found: "\(shape)", expected: "\(input!)",
        hint: "a network learns its sizes from its first mini-batch; make a new one")
    }
  }

  /// Makes room for batches of this size.
  private func reserve(_ batch: Int, training: Bool, _ optimizer: Optimizer? = nil) throws {
    let plan = training ? self.plan! : inferencePlan?.plan ?? self.plan!
    if !plan.hasRoom(for: batch, training: training) {
      var need = MemoryNeed()
      count(plan, stages, batch, training: training, optimizer, in: &need)
      try need.require()
      try plan.reserve(batch, training: training)
    }
    if losses.count < batch {
      losses = try FloatStorage(count: batch)
      wrong = [Int32](repeating: 0, count: batch)
    }
    if let optimizer {
      let arrays = optimizer.method.rule.memory.count
      var memory = memory
      while memory.count < arrays { memory.append(try FloatStorage(count: weights.count)) }
      if memory.count != self.memory.count {
        self.memory = memory
        point(parameters)
      }
    }
  }

  // MARK: The passes

  /// Runs all layers; the result stays valid until the next pass.
  private func forward(_ x: TensorView, training: Bool) -> TensorView {
    let pass = Pass(
      runtime: runtime, training: training, seed: seed, step: stepCount,
      times: training ? times : nil)
    return (training ? plan! : inferencePlan?.plan ?? plan!).forward(x, pass)
  }

  private func backward(_ x: TensorView, _ update: Update) {
    var pass = Pass(
      runtime: runtime, training: true, seed: seed, step: stepCount, update: update, times: times)
    guard let limit = update.optimizer.clipNorm else { return plan!.backward(x, nil, nil, pass) }
    // The norm is of all gradients: they come first, then the updates.
    pass.update = nil
    plan!.backward(x, nil, nil, pass)
    var update = update
    update.scale = min(1, limit / (Float(gradientNorm()) + 1e-6))
    for step in plan!.steps {
      for parameter in step.parameters { update.apply(parameter, runtime) }
    }
    times?.lap(.update)
  }

  /// The Euclidean norm of all gradients of the last step.
  func gradientNorm() -> Double {
    let size = 32_768
    let pieces = (gradients.count + size - 1) / size
    if partialNorms.count != pieces { partialNorms = [Double](repeating: 0, count: pieces) }
    return partialNorms.withUnsafeMutableBufferPointer { sums in
      runtime.parallel(over: gradients.count, by: size, (gradients.pointer, sums.baseAddress!)) {
        context, range, _ in
        let (gradients, sums) = context
        sums[range.lowerBound / 32_768] = Kernels.sumOfSquares(
          range.count, gradients + range.lowerBound)
      }
      return sums.reduce(0, +).squareRoot()
    }
  }

  /// Softmax, loss and, for training, the gradient that the backward pass starts from.
  private func measure(_ output: TensorView, _ targets: Targets, training: Bool) -> (
    cce: Double, wrong: Int
  ) {
    let gradient = training ? plan!.outputGradient(output.batch).pointer : nil
    return wrong.withUnsafeMutableBufferPointer { wrong in
      loss.compute(
        LossBatch(
          output: output, gradient: gradient, loss: losses.pointer, wrong: wrong.baseAddress!),
        targets, endsInSoftmax: endsInSoftmax)
      var sum = 0.0
      var errors = 0
      for i in 0..<output.batch {
        sum += Double(losses.pointer[i])
        errors += Int(wrong[i])
      }
      return (sum, errors)
    }
  }

  // MARK: Training and using

  /// One step of gradient descent: v = momentum · v + gradient; w −= learningRate · v.
  /// - Returns: a snapshot of the weights after the step; the loss, by default the categorical
  ///   cross-entropy (natural logarithm, mean over the batch), and the class error (share
  ///   misclassified) before it
  /// - Throws: ``StrideNetError`` if the batch doesn't fit the network, nothing changed then
  @discardableResult
  public func train(_ batch: Batch, learningRate: Float, momentum: Float = 0) throws -> (
    layers: Snapshot, cce: Float, ce: Float
  ) {
    try train(batch, learningRate: learningRate, optimizer: Optimizer(.sgd, momentum: momentum))
  }

  /// The same with any optimiser. What another kind remembers doesn't count: it begins anew.
  @discardableResult
  public func train(_ batch: Batch, learningRate: Float, optimizer: Optimizer) throws -> (
    layers: Snapshot, cce: Float, ce: Float
  ) {
    try optimizer.check()
    try prepare(batch)
    let (cce, ce) = try batch.images.withView { x in
      try batch.withTargets { try step(x, $0, learningRate: learningRate, optimizer) }
    }
    return (snapshot(), cce, ce)
  }

  /// The same without the checks, which a trainer has made for all of its data.
  func step(
    _ x: TensorView, _ targets: Targets, learningRate: Float, _ optimizer: Optimizer,
    averageDecay: Float? = nil
  ) throws -> (cce: Float, ce: Float) {
    try exclusively { try step(x, targets, learningRate, optimizer, averageDecay) }
  }

  private func step(
    _ x: TensorView, _ targets: Targets, _ learningRate: Float,
    _ optimizer: Optimizer, _ averageDecay: Float?
  ) throws -> (cce: Float, ce: Float) {
    try reserve(x.batch, training: true, optimizer)
    // Somebody may have kept a snapshot of either.
    try ownWeights()
    let isNewAverage = averageDecay != nil && average == nil
    if averageDecay != nil {
      if average == nil {
        average = try FloatStorage(count: weights.count)
      } else if !isKnownUniquelyReferenced(&average) {
        average = try average!.copy()
      }
    }
    if method?.rule.kernel != optimizer.method.rule.kernel {
      if method != nil { forgetSteps() }
      method = optimizer.method
    }
    let before = Kernels.flushDenormals(true)
    defer { Kernels.flushDenormals(before) }
    times?.optimizer = optimizer
    times?.lap(.other)
    let (sum, errors) = measure(forward(x, training: true), targets, training: true)
    times?.lap(.loss)
    updateCount += 1
    backward(x, Update(rate: learningRate, optimizer: optimizer, step: updateCount))
    if let averageDecay { addToAverage(averageDecay, isNew: isNewAverage) }
    stepCount += 1
    times?.countStep(of: x.batch)
    return (Float(sum / Double(x.batch)), Float(errors) / Float(x.batch))
  }

  /// Moving average of the weights: a += (1 − decay) · (w − a); in the first steps with less decay,
  /// so that the first weights don't count for long.
  private func addToAverage(_ decay: Float, isNew: Bool) {
    if isNew { average!.pointer.update(from: weights.pointer, count: weights.count) }
    let steps = Float(stepCount + 1)
    let share = 1 - min(decay, (1 + steps) / (10 + steps))
    runtime.parallel(
      over: weights.count, by: 32_768, (weights.pointer, average!.pointer, share)
    ) { context, range, _ in
      let (weights, average, share) = context
      Kernels.average(
        range.count, share: share, weights + range.lowerBound, average + range.lowerBound)
    }
    times?.lap(.update)
  }

  /// Exchanges the weights and their moving average, if there is one.
  func exchangeAverage() {
    guard let other = average else { return }
    average = weights
    weights = other
    point(parameters)
  }

  /// The network's output for images and how far it is from their labels.
  /// - Returns: the probabilities; the categorical cross-entropy; the class error
  public func evaluate(_ x: Tensor, _ labels: [Int32]) throws -> (
    output: Tensor, cce: Float, ce: Float
  ) {
    try evaluate(Batch(images: x, labels: labels))
  }

  /// The network's output for a mini-batch and how far it is from the targets.
  /// - Returns: the output, of a classifier the probabilities; the loss; the class error: the share
  ///   of examples whose largest output isn't their target's
  public func evaluate(_ batch: Batch) throws -> (output: Tensor, cce: Float, ce: Float) {
    try prepare(batch)
    let x = batch.images
    var result = try Tensor(zeros: x.batch, shapes.last!)
    let count = classes
    let (cce, ce) = try x.withView { x in
      try result.withMutableView { result in
        try batch.withTargets { targets in
          try evaluate(x.batch, keep: result.pointer) { range in
            (x.examples(range), targets.from(range.lowerBound, count))
          }
        }
      }
    }
    return (result, cce, ce)
  }

  /// Evaluates `count` examples, which `examples` gives in chunks, so that memory doesn't grow with
  /// their number.
  func evaluate(
    _ count: Int, keep: UnsafeMutablePointer<Float>? = nil,
    _ examples: (Range<Int>) -> (TensorView, Targets)
  ) throws -> (cce: Float, ce: Float) {
    try exclusively { try evaluateAll(count, keep, examples) }
  }

  private func evaluateAll(
    _ count: Int, _ keep: UnsafeMutablePointer<Float>?,
    _ examples: (Range<Int>) -> (TensorView, Targets)
  ) throws -> (cce: Float, ce: Float) {
    var sum = 0.0
    var errors = 0
    let before = Kernels.flushDenormals(true)
    defer { Kernels.flushDenormals(before) }
    try inferencePlan?.fold()
    for start in stride(from: 0, to: count, by: Self.chunk) {
      let (x, targets) = examples(start..<min(count, start + Self.chunk))
      try reserve(x.batch, training: false)
      let output = forward(x, training: false)
      let part = measure(output, targets, training: false)
      sum += part.cce
      errors += part.wrong
      keep?.advanced(by: start * output.shape.count)
        .update(from: output.pointer, count: output.count)
    }
    return (Float(sum / Double(count)), Float(errors) / Float(count))
  }

  static let chunk = 128

  /// The network's output for images: for a classifier each row the classes' probabilities.
  public func predict(_ x: Tensor) throws -> Tensor {
    try build(for: x.shape)
    var result = try Tensor(zeros: x.batch, shapes.last!)
    let before = Kernels.flushDenormals(true)
    defer { Kernels.flushDenormals(before) }
    try exclusively {
      try inferencePlan?.fold()
      try x.withView { x in
        try result.withMutableView { result in
          for start in stride(from: 0, to: x.batch, by: Self.chunk) {
            let part = x.examples(start..<min(x.batch, start + Self.chunk))
            try reserve(part.batch, training: false)
            let output = forward(part, training: false)
            let target = result.example(start)
            target.update(from: output.pointer, count: output.count)
            if endsInSoftmax {
              Kernels.softmaxForward(rows: part.batch, output.shape.count, target, target)
            }
          }
        }
      }
    }
    return result
  }

  /// Builds the network and checks that a mini-batch fits it.
  func prepare(_ batch: Batch) throws {
    let (x, labels) = (batch.images, batch.labels)
    guard x.batch > 0 else {
      throw StrideNetError(.badData, "an empty mini-batch", expected: "at least one image")
    }
    try requireClassifier(for: x.shape)
    if let targets = batch.targets {
      guard targets.batch == x.batch && targets.shape.count == classes else {
        throw StrideNetError(
          .badData, "targets that don't fit the network's outputs",
          found: "\(targets.batch) of \(targets.shape)",
          expected: "\(x.batch) of \(classes) values")
      }
      return
    }
    guard labels.count == x.batch else {
      throw StrideNetError(
        .badData, "images and labels differ in number", found: "\(labels.count) labels",
        expected: "\(x.batch), one an image")
    }
    if let index = labels.firstIndex(where: { $0 < 0 || $0 >= Int32(classes) }) {
      throw StrideNetError(
        .badData, "label out of range", at: "label \(index) of the mini-batch",
        found: "\(labels[index])",
        expected: "0 … \(classes - 1), since the network has \(classes) outputs")
    }
  }

  /// Builds the network, for training steps of so many images if that is given, and checks that it
  /// can be trained with its loss.
  func requireClassifier(for input: Shape, batch: Int? = nil, _ optimizer: Optimizer? = nil) throws
  {
    try build(for: input, batch: batch, optimizer) { _ in }
    guard endsInSoftmax || !loss.needsSoftmax else {
      throw StrideNetError(
        .badData, "a network that isn't a classifier",
        at: "layer \(layers.count), \(layers.last!.text)",
        found: "a last layer that ends in \(stages.last!.operations.last!.activation.name)",
        expected: "one that ends in softmax, which the cross-entropy is computed with",
        hint: "end the network with softmax(\(shapes.last!.count))")
    }
  }

  /// Number of outputs; 0 until built.
  public var classes: Int { shapes.last?.count ?? 0 }

  /// Number of trained values; 0 until built.
  public var parameterCount: Int {
    parameters.reduce(0) { $0 + ($1.isTrained ? $1.count : 0) }
  }

  // MARK: The state of training

  /// What a training needs to go on as if it had never stopped, beside the weights.
  struct TrainingState {
    var stepCount, updateCount: Int
    /// What the optimiser remembers, each array as large as the weights.
    var memory: [[Float]]
    /// As large as the weights, or empty where there is none.
    var average: [Float]
  }

  var trainingState: TrainingState {
    func array(_ storage: FloatStorage?) -> [Float] {
      storage.map { Array(UnsafeBufferPointer(start: $0.pointer, count: $0.count)) } ?? []
    }
    return TrainingState(
      stepCount: stepCount, updateCount: updateCount, memory: memory.map(array),
      average: array(average))
  }

  func goOn(from state: TrainingState) throws {
    let memory = try state.memory.map { try FloatStorage($0) }
    average = state.average.isEmpty ? nil : try FloatStorage(state.average)
    (stepCount, updateCount) = (state.stepCount, state.updateCount)
    self.memory = memory
    method = nil
    point(parameters)
  }

  /// A snapshot of these values.
  func snapshot(of values: [Float]) throws -> Snapshot {
    Snapshot(storage: try FloatStorage(values), parameters: parameterList)
  }

  /// Another network of the same layers with the same weights, in memory of its own; momentum starts
  /// anew there.
  /// - Throws: ``StrideNetError`` where there isn't so much memory, or if it isn't built
  public func copy() throws -> Network {
    guard let input else {
      throw StrideNetError(
        .usage, "a network without weights can't be copied",
        hint: "train it, or build it for an input, first")
    }
    let copy = Network(layers, seed: seed, runtime: runtime)
    copy.loss = loss
    try copy.build(for: input)
    copy.stepCount = stepCount
    try copy.restore(snapshot())
    try copy.ownWeights()
    return copy
  }

  // MARK: What is trained

  /// The layers, from 0, that training leaves as they are: gradients go through them, but no step
  /// changes their weights. (Batch normalisation goes on taking its statistics.)
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
  }

  // MARK: Snapshots

  /// The weights as they are now.
  public func snapshot() -> Snapshot { Snapshot(storage: weights, parameters: parameterList) }

  /// Puts weights back; momentum starts anew.
  /// - Throws: ``StrideNetError`` if they are of another network, or this one isn't built
  public func restore(_ snapshot: Snapshot) throws {
    guard snapshot.parameters.map(\.shape) == parameterList.map(\.shape), input != nil else {
      func text(_ arrays: [(name: String, shape: [Int])]) -> String {
        arrays.map { "\($0.name) \($0.shape.map(String.init).joined(separator: "×"))" }
          .joined(separator: ", ")
      }
      throw StrideNetError(
        .usage, "a snapshot of another network", found: text(snapshot.parameters),
        expected: input == nil ? "a network that has been built" : text(parameterList))
    }
    exclusively {
      weights = snapshot.storage
      point(parameters)
      forgetSteps()
      average = nil
    }
  }

  private func forgetSteps() {
    for array in memory { array.pointer.update(repeating: 0, count: array.count) }
    updateCount = 0
  }

  /// Takes over what some layers of another network have learned; the layers must be of the same
  /// kinds and sizes in both.
  /// - Throws: ``StrideNetError`` naming the first layer that differs
  public func copyWeights(from other: Network, layers range: Range<Int>) throws {
    guard input != nil, other.input != nil, range.lowerBound >= 0,
      range.upperBound <= min(layers.count, other.layers.count)
    else {
      throw StrideNetError(
        .usage, "no such layers in both networks", found: "\(range)",
        expected: "layers of networks that have been built")
    }
    for index in range {
      let (mine, its) = (stages[index].parameters, other.stages[index].parameters)
      guard mine.map(\.shape) == its.map(\.shape) else {
        throw StrideNetError(
          .badData, "layers that differ", at: "layer \(index + 1)", found: other.layers[index].text,
          expected: layers[index].text)
      }
    }
    try ownWeights()
    for index in range {
      for (mine, its) in zip(stages[index].parameters, other.stages[index].parameters) {
        mine.value.update(from: its.value, count: mine.count)
      }
    }
  }

  // MARK: Weights by name

  private func parameter(_ name: String) throws -> Parameter {
    guard let parameter = parameters.first(where: { $0.name == name }) else {
      throw StrideNetError(
        .usage, "no array of that name", found: "'\(name)'",
        expected: parameters.isEmpty
          ? "a network that has been built" : parameters.map(\.name).joined(separator: ", "))
    }
    return parameter
  }

  /// The names and shapes of what is learned or remembered of training, in the order of files; empty
  /// until built.
  public var arrays: [(name: String, shape: [Int])] { parameterList }

  /// The values of one array: "layers.0.weight".
  /// - Throws: ``StrideNetError`` with the names that there are
  public func weights(_ name: String) throws -> [Float] { try parameter(name).values }

  /// The gradient of one array in the last training step.
  /// - Throws: ``StrideNetError`` with the names that there are
  public func gradient(_ name: String) throws -> [Float] {
    let parameter = try parameter(name)
    return Array(UnsafeBufferPointer(start: parameter.gradient, count: parameter.count))
  }

  /// Overwrites one array.
  /// - Throws: ``StrideNetError`` with the names that there are, or the number of values
  public func setWeights(_ name: String, _ values: [Float]) throws {
    let parameter = try parameter(name)
    guard values.count == parameter.count else {
      throw StrideNetError(
        .usage, "another number of values than the array has", at: name,
        found: "\(values.count)",
        expected: parameter.shape.map(String.init).joined(separator: "×") + ", \(parameter.count)")
    }
    try exclusively {
      try ownWeights()
      parameter.value.update(from: values, count: values.count)
    }
  }

  /// Overwrites all weights with arrays given by name.
  func setWeights(_ values: (_ name: String) -> [Float]) throws {
    try ownWeights()
    for (parameter, entry) in zip(parameters, parameterList) {
      let new = values(entry.name)
      precondition(new.count == parameter.count)
      parameter.value.update(from: new, count: new.count)
    }
  }

  /// The gradient of the last training step, one parameter after the other, as in
  /// ``Snapshot/values``.
  public var lastGradient: [Float] {
    Array(UnsafeBufferPointer(start: gradients.pointer, count: gradients.count))
  }
}
