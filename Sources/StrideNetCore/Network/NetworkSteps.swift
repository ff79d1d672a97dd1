// What a network computes: the passes through its plan, and what people ask for, a step of training, an
// evaluation, a prediction.

extension Network {
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
    // Of a mini-batch that several processes have, each takes its share.
    let share = runtime.share(of: batch.images.batch)
    let (cce, ce) = try batch.images.withView { x in
      try batch.withTargets {
        try step(
          x.examples(share.examples), $0.from(share.examples.lowerBound, classes),
          learningRate: learningRate, optimizer, of: x.batch)
      }
    }
    return (snapshot(), cce, ce)
  }

  /// The same without the checks, which a trainer has made for all of its data.
  /// - Parameters:
  ///   - x: this process's share of the mini-batch
  ///   - batch: examples of the mini-batch, unless they are all here
  package func step(
    _ x: TensorView, _ targets: Targets, learningRate: Float, _ optimizer: Optimizer,
    averageDecay: Float? = nil, of batch: Int? = nil
  ) throws -> (cce: Float, ce: Float) {
    try exclusively {
      try step(
        x, targets, learningRate, optimizer, averageDecay, runtime.share(of: batch ?? x.batch))
    }
  }

  private func step(
    _ x: TensorView, _ targets: Targets, _ learningRate: Float,
    _ optimizer: Optimizer, _ averageDecay: Float?, _ share: BatchShare
  ) throws -> (cce: Float, ce: Float) {
    if runtime.communicator.size > 1 && exchange == nil {
      try checkShared()
      exchange = GradientExchange(runtime)
    }
    try divideMemory(optimizer)
    // What is kept of the others' examples is sized by that of one's own, which may be none.
    let processes = runtime.communicator.size
    let room = max(1, x.batch, (share.batch + processes - 1) / processes)
    try reserve(room, losses: share.batch, training: true, optimizer)
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
    exchange?.start(share)
    let (sum, errors) = measure(
      forward(x, training: true, share), targets, training: true, share)
    times?.lap(.loss)
    updateCount += 1
    backward(x, Update(rate: learningRate, optimizer: optimizer, step: updateCount), share)
    if let failure = exchange?.failure { throw failure }
    if let averageDecay { addToAverage(averageDecay, isNew: isNewAverage) }
    stepCount += 1
    times?.countStep(of: x.batch)
    return (Float(sum / Double(share.batch)), Float(errors) / Float(share.batch))
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
    isReady = false
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
  /// - Returns: the output, of a classifier the probabilities; the loss, of targets as they are learned
  ///   (``targetNormalization``); the class error: the share of examples whose largest output isn't
  ///   their target's
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
  package func evaluate(
    _ count: Int, keep: UnsafeMutablePointer<Float>? = nil,
    _ examples: (Range<Int>) -> (TensorView, Targets)
  ) throws -> (cce: Float, ce: Float) {
    try evaluate(count, keep: keep, shared: false, unlessNil: examples)!
  }

  /// The same, or nil where there is nil instead of a chunk.
  /// - Parameter shared: whether all of the runtime's processes do this at the same time, each with
  ///   some of the chunks
  func evaluate(
    _ count: Int, keep: UnsafeMutablePointer<Float>? = nil, shared: Bool,
    unlessNil examples: (Range<Int>) -> (TensorView, Targets)?
  ) throws -> (cce: Float, ce: Float)? {
    try exclusively { try evaluateAll(count, keep, shared, examples) }
  }

  private func evaluateAll(
    _ count: Int, _ keep: UnsafeMutablePointer<Float>?, _ shared: Bool,
    _ examples: (Range<Int>) -> (TensorView, Targets)?
  ) throws -> (cce: Float, ce: Float)? {
    let others = runtime.communicator
    let chunks = (count + Self.chunk - 1) / Self.chunk
    func part(_ rank: Int) -> Range<Int> {
      shared ? rank * chunks / others.size..<(rank + 1) * chunks / others.size : 0..<chunks
    }
    var results = [(cce: Double, wrong: Int)](repeating: (0, 0), count: chunks)
    let before = Kernels.flushDenormals(true)
    defer { Kernels.flushDenormals(before) }
    try fold()
    for chunk in part(others.rank) {
      let start = chunk * Self.chunk
      guard let (x, targets) = examples(start..<min(count, start + Self.chunk)) else { return nil }
      try reserve(x.batch, training: false)
      let output = forward(x, training: false)
      results[chunk] = measure(output, targets, training: false)
      guard let keep = keep?.advanced(by: start * output.shape.count) else { continue }
      keep.update(from: output.pointer, count: output.count)
      targetNormalization?.undo(output.batch, keep)
    }
    if shared && others.size > 1 {
      try results.withUnsafeMutableBufferPointer {
        try others.finish(others.beginGather($0.baseAddress!, part))
      }
      if let keep {
        let width = classes
        try others.finish(
          others.beginGather(keep) { rank in
            let chunks = part(rank)
            return min(count, chunks.lowerBound * Self.chunk) * width..<min(
              count, chunks.upperBound * Self.chunk) * width
          })
      }
    }
    return (
      Float(results.reduce(0) { $0 + $1.cce } / Double(count)),
      Float(results.reduce(0) { $0 + $1.wrong }) / Float(count)
    )
  }

  static let chunk = 128

  /// The network's output for images: for a classifier each row the classes' probabilities, for a
  /// network that predicts numbers these, in their own units.
  public func predict(_ x: Tensor) throws -> Tensor {
    try build(for: x.shape)
    var result = try Tensor(zeros: x.batch, shapes.last!)
    let before = Kernels.flushDenormals(true)
    defer { Kernels.flushDenormals(before) }
    try exclusively {
      try fold()
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
            targetNormalization?.undo(part.batch, target)
          }
        }
      }
    }
    return result
  }

  /// Builds the network and checks that a mini-batch fits it.
  package func prepare(_ batch: Batch) throws {
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
  package func requireClassifier(for input: Shape, batch: Int? = nil, _ optimizer: Optimizer? = nil)
    throws
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
  package var classes: Int { shapes.last?.count ?? 0 }

  /// Number of trained values; 0 until built.
  public var parameterCount: Int {
    parameters.reduce(0) { $0 + ($1.isTrained ? $1.count : 0) }
  }

  /// The same without those of frozen layers.
  package var unfrozenCount: Int {
    parameters.reduce(0) { $0 + ($1.isTrained && !$1.isFrozen ? $1.count : 0) }
  }
}

extension Network {
  /// Before passes in which nothing is trained.
  private func fold() throws {
    if !isReady { try inferencePlan?.fold() }
  }

  /// Runs all layers; the result stays valid until the next pass.
  func forward(_ x: TensorView, training: Bool, _ share: BatchShare? = nil) -> TensorView {
    var pass = Pass(
      runtime: runtime, training: training, seed: seed, step: stepCount,
      times: training ? times : nil, share: share ?? .whole(x.batch))
    pass.exchange = training ? exchange : nil
    pass.keepsWeights = !training && isReady
    defer { if !training { isReady = true } }
    return (training ? plan! : inferencePlan?.plan ?? plan!).forward(normalized(x), pass)
  }

  func backward(_ x: TensorView, _ update: Update, _ share: BatchShare) {
    let x = normalizedInput(x)
    var pass = Pass(
      runtime: runtime, training: true, seed: seed, step: stepCount, update: update, times: times,
      share: share)
    // A norm is of all gradients: they come first, then the updates.
    let limit = update.optimizer.clipNorm
    if limit != nil { pass.update = nil }
    pass.exchange = exchange
    exchange?.startBackward(pass.update)
    plan!.backward(x, nil, nil, pass)
    exchange?.finishStep()
    clearFrozenGradients()
    guard let limit else { return }
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
  /// - Parameter share: of a mini-batch that several processes share, what is here
  /// - Returns: the sums over all of it
  func measure(
    _ output: TensorView, _ targets: Targets, training: Bool, _ share: BatchShare? = nil
  ) -> (cce: Double, wrong: Int) {
    let gradient = training ? plan!.outputGradient(output.batch).pointer : nil
    let share = share ?? BatchShare(output.batch)
    let first = share.examples.lowerBound
    let others = training ? exchange : nil
    let given = targets
    let targets = normalized(targets, output.batch)
    return wrong.withUnsafeMutableBufferPointer { wrong in
      var batch = LossBatch(
        output: output, gradient: gradient, loss: losses.pointer + first,
        wrong: wrong.baseAddress! + first, of: share.batch)
      if let others, classWeights != nil, case .labels(let labels) = given {
        let all = UnsafeMutableRawPointer(allLabels.pointer).assumingMemoryBound(to: Int32.self)
        (all + first).update(from: labels, count: output.batch)
        others.gather(all) { $0.examples }
        batch.allLabels = UnsafePointer(all)
      }
      loss.compute(
        batch, targets, endsInSoftmax: endsInSoftmax, classWeights: training ? classWeights : nil)
      others?.gather(losses.pointer) { $0.examples }
      others?.gather(wrong.baseAddress!) { $0.examples }
      var sum = 0.0
      var errors = 0
      for i in 0..<share.batch {
        sum += Double(losses.pointer[i])
        errors += Int(wrong[i])
      }
      return (sum, errors)
    }
  }
}
