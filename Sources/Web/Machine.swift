import Foundation
import StrideNet

/// What the page of `serve` looks into: a network, its data, and a training that may be under way.
/// One question at a time; each is answered by the kernels that train, and none before it is known that
/// the memory that it takes is there.
package final class Machine {
  private let data: Dataset
  private let threads: Int
  private let classNames: (Int) -> [String]
  private let original: (text: String, weights: Snapshot)
  private var text: String
  private var weights: Snapshot
  // The network as each kernel variant runs it: which weights it has, and the largest batch so far.
  private var networks: [String: (network: Network, generation: Int, batch: Int)] = [:]
  private var needs: [String: NetworkNeed] = [:]
  private var generation = 0
  private var session: Session?
  // One that nobody asks about any more, until it is over.
  private var ending: Session?
  // What the last hidden layer makes of the training images, for weights of some generation.
  private var features: (generation: Int, values: [Float])?
  private let memory: Double
  private let base: Double
  /// Bytes that others in the process keep.
  package var held = 0

  /// - Parameters:
  ///   - network: built, with its weights
  ///   - threads: that train
  ///   - memory: bytes that the process may take in all
  ///   - classNames: what so many classes are called
  /// - Throws: ``StrideNetError`` if the data and the network alone take more
  package init(
    _ network: Network, _ data: Dataset, threads: Int, memory: Double,
    classNames: @escaping (Int) -> [String]
  ) throws {
    (self.data, self.threads, self.classNames) = (data, threads, classNames)
    (text, weights) = (Architecture.text(network.layers), network.snapshot())
    original = (text, weights)
    self.memory = memory
    // The program, its threads and what the allocator keeps; the images, a byte each; and the network
    // that the page begins with.
    base =
      128e6 + 4 * Double(original.weights.count)
      + [data.train, data.test].reduce(0) { $0 + Double($1.pixels.count + $1.labels.count) }
    try checkMemory(bytes(KernelChoice.bound.name, batch: 1), "more than --memory allows", .usage)
  }

  // MARK: Memory

  /// Answers take a value of a layer as a float twice, and its text as often while JSON is made of it.
  private static let bytesAnAnswer = 40.0
  /// A path to a value below: a product, its place in a dictionary, an edge; for eight values above.
  private static let bytesAPath = 1600.0

  private func need(_ kernels: String) throws -> NetworkNeed {
    if let need = needs[kernels] { return need }
    let need = try NetworkNeed(
      of: Architecture.layers(text), for: data.train.shape, kernels: KernelChoice(named: kernels))
    needs[kernels] = need
    return need
  }

  /// What the network takes that runs with these kernels, and the weights that it may have alone.
  private func bytes(_ kernels: String, batch: Int) throws -> Double {
    let need = try need(kernels)
    return need.bytesToPredict(batch) + 4 * need.parameters
  }

  private func bytesHeld(without kernels: String? = nil) -> Double {
    let networks = networks.filter { $0.key != kernels }.reduce(0.0) {
      $0 + ((try? bytes($1.key, batch: $1.value.batch)) ?? 0)
    }
    let sessions = [session, ending].compactMap { $0 }.reduce(0.0) {
      $0 + ($1.isRunning ? $1.bytes : 0)
    }
    return base + Double(held) + networks + sessions + 4 * Double(weights.count)
      + 4 * Double(features?.values.count ?? 0)
  }

  private func checkMemory(
    _ needed: Double, without kernels: String? = nil, _ what: String,
    _ kind: StrideNetError.Kind = .badData
  ) throws {
    // What is kept only to be quicker makes room.
    if bytesHeld(without: kernels) + needed > memory { features = nil }
    if bytesHeld(without: kernels) + needed > memory {
      networks = networks.filter { $0.key == kernels }
    }
    let taken = bytesHeld(without: kernels)
    guard taken + needed <= memory else {
      func gigabytes(_ bytes: Double) -> String { String(format: "%.2f GB", bytes / 1e9) }
      throw StrideNetError(
        kind, what, found: gigabytes(needed),
        expected: "at most \(gigabytes(max(0, memory - taken))) of \(gigabytes(memory))",
        hint: "a smaller network or batch, or stridenet serve --memory with more")
    }
  }

  /// The largest number of images, up to `most`, that there is memory for.
  private func images(_ most: Int, kernels: String, besides: (Int) throws -> Double) throws -> Int {
    var count = most
    while true {
      let needed = try bytes(kernels, batch: count) + besides(count)
      if count == 1 || bytesHeld(without: kernels) + needed <= memory { return count }
      count = (count + 1) / 2
    }
  }

  // MARK: Networks

  /// - Parameters:
  ///   - batch: how many images it is to see at a time
  ///   - besides: bytes that the question takes for other things
  private func network(_ kernels: String? = nil, batch: Int = 1, besides: Double) throws -> Network
  {
    if let latest = session?.takeWeights() {
      weights = latest
      generation += 1
    }
    let name = kernels ?? KernelChoice.bound.name
    let largest = max(batch, networks[name]?.batch ?? 0)
    do {
      try checkMemory(bytes(name, batch: largest) + besides, without: name, Self.tooMuch)
      networks[name]?.batch = largest
    } catch  where largest > batch {
      // It may still have room for more images than are asked for now.
      networks[name] = nil
      try checkMemory(bytes(name, batch: batch) + besides, without: name, Self.tooMuch)
    }
    if let (network, has, _) = networks[name] {
      if has != generation {
        try network.restore(weights)
        networks[name]!.generation = generation
      }
      return network
    }
    // One image is no work for several threads.
    let runtime = Runtime(threads: 1, kernels: try KernelChoice(named: name))
    let network = Network(try Architecture.layers(text), runtime: runtime)
    try network.build(for: data.train.shape)
    try network.restore(weights)
    networks[name] = (network, generation, batch)
    return network
  }

  private static let tooMuch = "a question that takes too much memory"

  private func exchange(_ text: String, _ weights: Snapshot) {
    (self.text, self.weights) = (text, weights)
    (networks, needs) = ([:], [:])
    features = nil
    generation += 1
  }

  // MARK: What is asked and answered

  /// An image: drawn, from the data, or as the network sees it.
  package struct Input: Decodable {
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
      return (try Tensor(batch: 1, shape: shape, floats), nil)
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
    let network = try network(besides: filterBytes())
    let shape = network.input!
    let filters = network.firstFilters
    var presets = Dictionary(
      uniqueKeysWithValues: Architecture.presets.map { ($0.name, $0.text) })
    presets["small"] = try RunConfiguration(recipe: "digits").layers
    return State(
      network: text, parameters: network.parameterCount,
      input: [shape.height, shape.width, shape.channels],
      layers: try network.summary().layers.map { layer in
        let windows = network.strideGroups(layer: layer.number - 1)
        return State.LayerState(
          text: layer.text,
          shape: [layer.output.height, layer.output.width, layer.output.channels],
          parameters: layer.parameters,
          groups: windows.map { [$0.groups.rows, $0.groups.columns] },
          window: windows.map { [$0.window.height, $0.window.width] })
      },
      classes: classNames(network.classes), kernels: KernelChoice.names,
      kernel: KernelChoice.bound.name, isa: KernelChoice.instructionSet, data: data.source,
      train_images: data.train.count, test_images: data.test.count, presets: presets,
      is_original: text == original.text && weights.sha256 == original.weights.sha256,
      is_training: session?.isRunning ?? false,
      filters: filters?.values.data ?? Data(), filter_shape: filters?.shape ?? [])
  }

  /// What an answer with the first layer's weights takes.
  private func filterBytes() throws -> Double {
    Self.bytesAnAnswer * (try need(KernelChoice.bound.name).firstWeights) + 8e6
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
    let need = try need(question.kernels ?? KernelChoice.bound.name)
    let network = try network(
      question.kernels,
      besides: Self.bytesAnAnswer * need.activations
        + (question.paths == false ? 0 : Self.bytesAPath * need.longestSum))
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
        .usage, "no place", found: "\(question.at.count) numbers",
        expected: "row, column and channel")
    }
    let (x, _) = try image(question.input)
    let need = try need(question.kernels ?? KernelChoice.bound.name)
    let network = try network(
      question.kernels, besides: 4 * need.activations + Self.bytesAPath / 4 * need.longestSum)
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
    let kernels = KernelChoice.bound.name
    let need = try need(kernels)
    let count = min(10_000, data.train.count)
    let answer = 16 * 12 * Double(data.train.imageSize) + 64 * Double(count)
    // Every layer's output is there at the same time, and the last hidden one's once more.
    let atATime = try images(250, kernels: kernels) { answer + 8 * Double($0) * need.activations }
    let network = try network(
      kernels, batch: atATime, besides: answer + 8 * Double(atATime) * need.activations)
    guard let layer = network.layers.indices.dropLast().last else {
      throw StrideNetError(.usage, "a network of one layer has no hidden one")
    }
    func hidden(_ x: Tensor) throws -> [Float] {
      try network.trace(x).layers[layer].output.values
    }
    let mine = try hidden(x)
    var distances: [Float] = []
    func add(_ values: [Float]) {
      values.withUnsafeBufferPointer { all in
        for start in stride(from: 0, to: all.count, by: mine.count) {
          var sum: Float = 0
          for i in mine.indices {
            let difference = all[start + i] - mine[i]
            sum += difference * difference
          }
          distances.append(sum.squareRoot())
        }
      }
    }
    if let features, features.generation == generation {
      add(features.values)
    } else {
      features = nil
      // Kept where there is room, so that the next question takes no time.
      let size = 4 * Double(count) * Double(mine.count)
      var kept: [Float]?
      if bytesHeld() + size + answer + 8 * Double(atATime) * need.activations <= memory {
        kept = []
        kept!.reserveCapacity(count * mine.count)
      }
      for start in stride(from: 0, to: count, by: atATime) {
        let values = try hidden(
          data.train.batch(start..<min(count, start + atATime)).images)
        add(values)
        kept?.append(contentsOf: values)
      }
      features = kept.map { (generation, $0) }
    }
    let order = distances.indices.sorted {
      distances[$0] < distances[$1] || (distances[$0] == distances[$1] && $0 < $1)
    }
    return order.prefix(12).map {
      Neighbour(
        index: $0, label: Int(data.train.labels[$0]), distance: distances[$0],
        pixels: pixels($0, data.train))
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
    let kernels = KernelChoice.bound.name
    let answer = 16 * 120 * Double(data.test.imageSize) + 64 * Double(data.test.count)
    let need = try need(kernels)
    // In and out.
    let atATime = try images(128, kernels: kernels) { answer + 8 * Double($0) * need.activations }
    let network = try network(
      kernels, batch: atATime, besides: answer + 8 * Double(atATime) * need.activations)
    var found: [(index: Int, guess: Int, probability: Float)] = []
    for start in stride(from: 0, to: data.test.count, by: atATime) {
      let range = start..<min(data.test.count, start + atATime)
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
    // The one before ends with its mini-batch.
    for _ in 0..<200 where ending?.isRunning ?? false { usleep(10_000) }
    guard !(ending?.isRunning ?? false) else {
      throw StrideNetError(
        .usage, "the training before is ending", hint: "ask again when its mini-batch is done")
    }
    ending = nil
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
    try settings.check(images: data.train.count)
    let text = question.layers ?? text
    guard text.utf8.count <= 10_000 else {
      throw StrideNetError(
        .usage, "a network whose text is too long", found: "\(text.utf8.count) bytes",
        expected: "at most 10,000")
    }
    let layers = try Architecture.layers(text, source: "the network")
    let kernels = try KernelChoice(named: question.kernels ?? KernelChoice.bound.name)
    // A page isn't to take the machine: neither its memory nor, since nothing else is answered
    // meanwhile, its time.
    let need = try NetworkNeed(of: layers, for: data.train.shape, kernels: kernels)
    guard need.operations <= 1e10 else {
      throw StrideNetError(
        .usage, "a network that is too large for this page",
        found: String(format: "%.0f billion operations an image", need.operations / 1e9),
        expected: "at most 10", hint: "stridenet train takes it")
    }
    // What the page needs to look into it is to fit beside it.
    let training =
      need.bytesToTrain(batch: settings.batchSize, threads: threads)
      + 32 * Double(data.train.count)
    let looking =
      need.bytesToPredict(1) + 8 * need.parameters + Self.bytesAnAnswer * need.activations
    try checkMemory(training + looking, "a network that is too large for this page")
    let network = Network(
      layers, seed: settings.seed, runtime: Runtime(threads: threads, kernels: kernels))
    // Sizes and settings that don't fit are said here, by whoever asked.
    let trainer = try Trainer(network, data, settings)
    let (described, weights) = (Architecture.text(layers), network.snapshot())
    session = try Session(trainer, bytes: training)
    exchange(described, weights)
  }

  func stop() { session?.stop() }

  func reset() {
    session?.stop()
    if session?.isRunning ?? false { ending = session }
    session = nil
    exchange(original.text, original.weights)
  }

  struct Since: Decodable {
    var since: Int?
  }

  func training(_ question: Since) throws -> Session.Progress {
    try checkMemory(filterBytes(), Self.tooMuch)
    return session?.progress(since: question.since ?? 0) ?? Session.Progress()
  }
}

extension Snapshot {
  fileprivate var count: Int { parameters.reduce(0) { $0 + $1.shape.reduce(1, *) } }
}

extension [Float] {
  var data: Data { withUnsafeBytes { Data($0) } }
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
