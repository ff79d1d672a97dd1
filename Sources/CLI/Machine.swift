import Foundation
import StrideNet
import Synchronization

/// What the page of `serve` looks into: a network, its data, and a training that may be under way.
/// One question at a time; each is answered by the kernels that train.
actor Machine {
  private let data: Dataset
  private let threads: Int
  private let original: (text: String, weights: Snapshot)
  private var text: String
  private var weights: Snapshot
  // The network as each kernel variant runs it, and which weights it has.
  private var networks: [String: (network: Network, generation: Int)] = [:]
  private var generation = 0
  private var session: Session?
  // What the last hidden layer makes of the training images, for weights of some generation.
  private var features: (generation: Int, values: [Float], count: Int)?

  init(_ text: String, _ weights: Snapshot, _ data: Dataset, threads: Int) {
    (self.data, self.threads) = (data, threads)
    (self.text, self.weights) = (text, weights)
    original = (text, weights)
  }

  // MARK: Networks

  private func network(_ kernels: String?) throws -> Network {
    if let latest = session?.takeWeights() {
      weights = latest
      generation += 1
    }
    let name = kernels ?? KernelChoice.bound.name
    if let (network, has) = networks[name] {
      if has != generation {
        network.restore(weights)
        networks[name]!.generation = generation
      }
      return network
    }
    // One image is no work for several threads.
    let runtime = Runtime(threads: 1, kernels: try KernelChoice(named: name))
    let network = Network(try Architecture.layers(text), runtime: runtime)
    try network.build(for: data.train.shape)
    network.restore(weights)
    networks[name] = (network, generation)
    return network
  }

  private func exchange(_ text: String, _ weights: Snapshot) {
    (self.text, self.weights) = (text, weights)
    networks = [:]
    features = nil
    generation += 1
  }

  // MARK: What is asked and answered

  /// An image: drawn, from the data, or as the network sees it.
  struct Input: Decodable {
    struct Drawing: Decodable {
      let width, height: Int
      /// A byte a pixel, row by row.
      let pixels: Data
    }
    var drawing: Drawing?
    var test: Int?
    var train: Int?
    var values: Data?
  }

  private func image(_ input: Input) throws -> (x: Tensor, label: Int?) {
    let shape = data.train.shape
    func pick(_ index: Int, _ set: ImageSet) throws -> (Tensor, Int?) {
      guard (0..<set.count).contains(index) else {
        throw StrideNetError(
          .usage, "no image of that number", found: "\(index)", expected: "0 … \(set.count - 1)")
      }
      let batch = set.batch([index])
      return (batch.images, Int(batch.labels[0]))
    }
    switch (input.drawing, input.test, input.train, input.values) {
    case (let drawing?, nil, nil, nil):
      guard (1...1024).contains(drawing.width), (1...1024).contains(drawing.height),
        drawing.pixels.count == drawing.width * drawing.height
      else {
        throw StrideNetError(
          .badData, "a drawing that isn't one", found: "\(drawing.pixels.count) pixels",
          expected: "width × height bytes, each of them 1 … 1024")
      }
      let picture = PNG.Image(
        height: drawing.height, width: drawing.width, channels: 1, pixels: Array(drawing.pixels))
      return (try picture.fitted(to: shape), nil)
    case (nil, let index?, nil, nil): return try pick(index, data.test)
    case (nil, nil, let index?, nil): return try pick(index, data.train)
    case (nil, nil, nil, let values?):
      let floats = values.floats
      guard floats.count == shape.count, values.count % 4 == 0, floats.allSatisfy(\.isFinite) else {
        throw StrideNetError(
          .badData, "values that aren't an image", found: "\(values.count) bytes",
          expected: "\(shape.count) finite floats")
      }
      return (Tensor(batch: 1, shape: shape, floats), nil)
    default:
      throw StrideNetError(
        .usage, "no image", expected: "one of drawing, test, train and values")
    }
  }

  struct State: Encodable {
    struct LayerState: Encodable {
      let text: String
      let shape: [Int]
      let parameters: Int
      /// Of convolutions and poolings, the stride groups along each axis, and the window.
      let groups, window: [Int]?
    }
    let network: String
    let parameters: Int
    let input: [Int]
    let layers: [LayerState]
    let classes, kernels: [String]
    let kernel, isa, data: String
    let train_images, test_images: Int
    let presets: [String: String]
    let is_original, is_training: Bool
    let filters: Data
    let filter_shape: [Int]
  }

  func state() throws -> State {
    let network = try network(nil)
    let shape = network.input!
    var presets = Dictionary(
      uniqueKeysWithValues: Architecture.presets.map { ($0.name, $0.text) })
    presets["small"] = try RunConfiguration(recipe: "digits").layers
    return State(
      network: text, parameters: network.parameterCount,
      input: [shape.height, shape.width, shape.channels],
      layers: zip(network.layers, network.shapes).map { layer, shape in
        let windows = layer.strideGroups(output: shape)
        return State.LayerState(
          text: layer.text, shape: [shape.height, shape.width, shape.channels],
          parameters: layer.parameters.reduce(0) { $0 + ($1.isTrained ? $1.count : 0) },
          groups: windows.map { [$0.groups.rows, $0.groups.columns] },
          window: windows.map { [$0.window.height, $0.window.width] })
      },
      classes: ClassNames.of(data, count: network.classes), kernels: KernelChoice.names,
      kernel: KernelChoice.bound.name, isa: KernelChoice.instructionSet, data: data.source,
      train_images: data.train.count, test_images: data.test.count, presets: presets,
      is_original: text == original.text && weights.sha256 == original.weights.sha256,
      is_training: session?.isRunning ?? false,
      filters: network.firstFilters?.values.data ?? Data(),
      filter_shape: network.firstFilters?.shape ?? [])
  }

  struct Look: Encodable {
    struct LayerLook: Encodable {
      let output: Data
      let seconds: Double
      let kernel, why: String?
    }
    let input: Data
    let label: Int?
    let probabilities: [Float]
    let layers: [LayerLook]
    let paths: [Network.Path]
    let seconds: Double
    let weights: Int
  }

  func look(_ question: LookQuestion) throws -> Look {
    let (x, label) = try image(question.input)
    let network = try network(question.kernels)
    let trace = try network.trace(x, repeats: 3)
    let output = trace.output.values
    guard output.allSatisfy(\.isFinite) else {
      throw StrideNetError(
        .badData, "what the network makes of it is no finite number",
        hint: "a training that goes wrong says so; try a tenth of its learning rate")
    }
    let target = question.toward ?? output.indices.max { output[$0] < output[$1] }!
    guard output.indices.contains(target) else {
      throw StrideNetError(
        .usage, "no such class", found: "\(target)", expected: "0 … \(output.count - 1)")
    }
    return Look(
      input: x.values.data, label: label, probabilities: output,
      layers: trace.layers.map {
        Look.LayerLook(
          output: $0.output.values.data, seconds: $0.seconds, kernel: $0.kernel, why: $0.why)
      },
      paths: question.paths == false
        ? [] : network.strongestPaths(in: trace, to: target, width: 8),
      seconds: trace.layers.reduce(0) { $0 + $1.seconds }, weights: generation)
  }

  struct LookQuestion: Decodable {
    let input: Input
    var kernels: String?
    var paths: Bool?
    /// The class whose paths are shown; the likeliest if not given.
    var toward: Int?
  }

  struct ProvenanceQuestion: Decodable {
    let input: Input
    let layer: Int
    let at: [Int]
    var kernels: String?
  }

  struct Explained: Encodable {
    struct Term: Encodable {
      let from: [Int]
      let value, factor: Float
      let product: Double
    }
    let kind, activation: String
    /// The largest, at most 300; what the others add up to.
    let terms: [Term]
    let others: Int
    let rest: Double
    let bias, kernel: Float
    let sum, result: Double
    let agrees: Bool
  }

  func provenance(_ question: ProvenanceQuestion) throws -> Explained {
    guard question.at.count == 3 else {
      throw StrideNetError(
        .usage, "no place", found: "\(question.at)", expected: "row, column and channel")
    }
    let (x, _) = try image(question.input)
    let network = try network(question.kernels)
    let found = try network.provenance(
      in: network.trace(x), layer: question.layer,
      at: .init(question.at[0], question.at[1], question.at[2]))
    // In the sum's order, unless it is long.
    let many = found.terms.count > 300
    let shown =
      many
      ? Array(found.terms.sorted { abs($0.product) > abs($1.product) }.prefix(300)) : found.terms
    return Explained(
      kind: found.kind, activation: found.activation,
      terms: shown.map {
        Explained.Term(
          from: [$0.from.row, $0.from.column, $0.from.channel], value: $0.value,
          factor: $0.factor, product: $0.product)
      },
      others: found.terms.count - shown.count,
      rest: found.sum - Double(found.bias) - shown.reduce(0) { $0 + $1.product },
      bias: found.bias, kernel: found.value, sum: found.sum, result: found.result,
      agrees: found.agrees)
  }

  struct Neighbour: Encodable {
    let index, label: Int
    let distance: Float
    let pixels: Data
  }

  /// The training images that the last hidden layer makes nearly the same of.
  func nearest(_ question: LookQuestion) throws -> [Neighbour] {
    let (x, _) = try image(question.input)
    let network = try network(nil)
    guard let layer = network.layers.indices.dropLast().last(where: { _ in true }) else {
      throw StrideNetError(.usage, "a network of one layer has no hidden one")
    }
    func hidden(_ x: Tensor) throws -> [Float] {
      try network.trace(x).layers[layer].output.values
    }
    let set = data.train.prefix(10_000)
    if features?.generation != generation {
      var values: [Float] = []
      for start in stride(from: 0, to: set.count, by: 250) {
        values += try hidden(set.batch(start..<min(set.count, start + 250)).images)
      }
      features = (generation, values, set.count)
    }
    let mine = try hidden(x)
    let distances = features!.values.withUnsafeBufferPointer { all in
      (0..<features!.count).map { n in
        var sum: Float = 0
        for i in mine.indices {
          let difference = all[n * mine.count + i] - mine[i]
          sum += difference * difference
        }
        return sum.squareRoot()
      }
    }
    let order = distances.indices.sorted {
      distances[$0] < distances[$1] || (distances[$0] == distances[$1] && $0 < $1)
    }
    return order.prefix(12).map {
      Neighbour(
        index: $0, label: Int(set.labels[$0]), distance: distances[$0], pixels: pixels($0, set))
    }
  }

  private func pixels(_ index: Int, _ set: ImageSet) -> Data {
    let size = set.height * set.width * set.channels
    return Data(set.pixels[index * size..<(index + 1) * size])
  }

  struct Wrong: Encodable {
    struct Image: Encodable {
      let index, label, guess: Int
      let probability: Float
      let pixels: Data
    }
    let count, of: Int
    let images: [Image]
  }

  /// The test images that are taken for something else, the most certain first.
  func wrong() throws -> Wrong {
    let network = try network(nil)
    var found: [(index: Int, guess: Int, probability: Float)] = []
    for start in stride(from: 0, to: data.test.count, by: 512) {
      let range = start..<min(data.test.count, start + 512)
      let output = try network.predict(data.test.batch(range).images).values
      let classes = network.classes
      for (row, index) in range.enumerated() {
        let values = output[row * classes..<(row + 1) * classes]
        let best = values.indices.max { values[$0] < values[$1] }!
        let guess = best - row * classes
        if guess != Int(data.test.labels[index]) { found.append((index, guess, values[best])) }
      }
    }
    found.sort {
      $0.probability > $1.probability || ($0.probability == $1.probability && $0.index < $1.index)
    }
    return Wrong(
      count: found.count, of: data.test.count,
      images: found.prefix(120).map {
        Wrong.Image(
          index: $0.index, label: Int(data.test.labels[$0.index]), guess: $0.guess,
          probability: $0.probability, pixels: pixels($0.index, data.test))
      })
  }

  // MARK: Training

  struct TrainQuestion: Decodable {
    var layers: String?
    var learning_rate: Float?
    var batch_size: Int?
    var epochs: Int?
    var optimizer: String?
    var kernels: String?
    var augment: String?
    var seed: UInt64?
  }

  /// Begins a training from new weights; what the page shows is from now on that network.
  func train(_ question: TrainQuestion) throws {
    guard !(session?.isRunning ?? false) else {
      throw StrideNetError(
        .usage, "a training is under way", hint: "stop it, or wait until it is done")
    }
    var settings = TrainingSettings()
    settings.learningRate = question.learning_rate ?? settings.learningRate
    settings.batchSize = min(question.batch_size ?? settings.batchSize, data.train.count)
    settings.epochs = question.epochs ?? 5
    settings.seed = question.seed ?? settings.seed
    if let name = question.optimizer {
      settings.optimizer = Optimizer(try Optimizer.Method(named: name))
    }
    if let augment = question.augment, !augment.isEmpty {
      settings.augmentation = try Augmentation(augment)
    }
    guard settings.epochs <= 1000 else {
      throw StrideNetError(
        .usage, "epochs out of range", found: "\(settings.epochs)", expected: "1 … 1000")
    }
    let layers = try Architecture.layers(question.layers ?? text, source: "the network")
    // A page isn't to take the machine's memory.
    let size = try Network.size(of: layers, for: data.train.shape)
    guard size.parameters <= 20_000_000, size.activations * settings.batchSize <= 200_000_000 else {
      throw StrideNetError(
        .usage, "a network that is too large for this page",
        found:
          "\(size.parameters.grouped) weights, \((size.activations * settings.batchSize).grouped) values a batch",
        expected: "at most 20,000,000 and 200,000,000", hint: "stridenet train takes it")
    }
    let kernels = try question.kernels.map { try KernelChoice(named: $0) }
    let network = Network(
      layers, seed: settings.seed, runtime: Runtime(threads: threads, kernels: kernels))
    // Sizes and settings that don't fit are said here, by whoever asked.
    let trainer = try Trainer(network, data, settings)
    exchange(Architecture.text(layers), network.snapshot())
    session = Session(trainer)
  }

  func stop() { session?.stop() }

  func reset() {
    session?.stop()
    session = nil
    exchange(original.text, original.weights)
  }

  struct Since: Decodable {
    var since: Int?
  }

  func training(_ question: Since) -> Session.Progress {
    session?.progress(since: question.since ?? 0) ?? Session.Progress()
  }
}

/// A training on a thread of its own.
final class Session: Sendable {
  struct Point: Encodable {
    let step: Int
    let loss, error, rate: Float
  }
  struct Epoch: Encodable {
    let epoch, step: Int
    let train_loss, train_error, test_loss, test_error: Float
    let images_per_second: Double
  }
  struct Progress: Encodable {
    var is_running = false
    var failure: String?
    /// From the question's on.
    var points: [Point] = []
    var epochs: [Epoch] = []
    var seconds = 0.0
    var filters = Data()
    var filter_shape: [Int] = []
  }

  private struct Shared {
    var progress = Progress(is_running: true)
    var weights: Snapshot?
    var stops = false
  }
  private let shared = Mutex(Shared())

  var isRunning: Bool { shared.withLock { $0.progress.is_running } }

  /// The newest weights, if there are any that weren't taken yet.
  func takeWeights() -> Snapshot? {
    shared.withLock { shared in
      defer { shared.weights = nil }
      return shared.weights
    }
  }

  func stop() { shared.withLock { $0.stops = true } }

  func progress(since: Int) -> Progress {
    var progress = shared.withLock { $0.progress }
    progress.points.removeFirst(min(max(0, since), progress.points.count))
    return progress
  }

  init(_ trainer: sending Trainer) {
    // Nobody else has it: only the thread will.
    nonisolated(unsafe) let trainer = trainer
    let thread = Thread { [self] in run(trainer) }
    thread.stackSize = 8 << 20
    thread.start()
  }

  private func run(_ trainer: Trainer) {
    let clock = ContinuousClock()
    var (sums, last) = ((loss: Float(0), error: Float(0), count: Float(0)), clock.now)
    func publish() {
      let filters = trainer.network.firstFilters
      let weights = trainer.network.snapshot()
      shared.withLock {
        $0.weights = weights
        if let filters {
          ($0.progress.filters, $0.progress.filter_shape) = (filters.values.data, filters.shape)
        }
      }
    }
    trainer.shouldStop = { [self] in shared.withLock { $0.stops } }
    trainer.onBatch = { [self] p in
      sums = (sums.loss + p.cce, sums.error + p.ce, sums.count + 1)
      guard clock.now - last > .milliseconds(60) || p.batch == p.batches else { return }
      last = clock.now
      let point = Point(
        step: p.step, loss: sums.loss / sums.count, error: sums.error / sums.count,
        rate: p.learningRate)
      sums = (0, 0, 0)
      shared.withLock {
        $0.progress.points.append(point)
        $0.progress.seconds = p.seconds
      }
      publish()
    }
    trainer.onEpoch = { [self] r in
      let epoch = Epoch(
        epoch: r.epoch, step: trainer.network.stepCount, train_loss: r.trainCCE,
        train_error: r.trainCE, test_loss: r.testCCE, test_error: r.testCE,
        images_per_second: r.imagesPerSecond)
      shared.withLock { $0.progress.epochs.append(epoch) }
    }
    publish()
    var failure: String?
    do {
      if case .diverged(let epoch, let batch) = try trainer.run() {
        failure =
          "Training diverged in epoch \(epoch), batch \(batch): the loss is no longer a finite number. Try a tenth of the learning rate."
      }
    } catch {
      failure = "\(error)"
    }
    // What was stopped half-way keeps what it had just learned on the page; the end is the end.
    publish()
    shared.withLock {
      $0.progress.failure = failure
      $0.progress.is_running = false
    }
  }
}

extension [Float] {
  fileprivate var data: Data { withUnsafeBytes { Data($0) } }
}

extension Data {
  fileprivate var floats: [Float] {
    (0..<count / 4).map { i in
      var value: UInt32 = 0
      for k in 0..<4 { value |= UInt32(self[startIndex + 4 * i + k]) << UInt32(8 * k) }
      return Float(bitPattern: value)
    }
  }
}
