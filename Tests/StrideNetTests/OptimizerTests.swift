import Foundation
import Testing

import StrideNet
@testable import StrideNetCore

@Suite struct OptimizerTests {
  struct Expected: Decodable {
    struct Run: Decodable {
      let method: Optimizer.Method
      let rate, momentum, decay: Float
      let l1, clip, beta2, epsilon: Float?
      let float32, float64: Steps
    }
    struct Steps: Decodable {
      struct Final: Decodable {
        let sum_of_squares: Double
        let values: [Double]
      }
      let losses: [Double]
      let final: [Final]
    }
    let runs: [Run]
    let schedules: [String: [Double]]
  }

  static func flat(_ runtime: Runtime = Runtime(threads: 2)) throws -> Network {
    let network = Network(
      try Architecture.layers("flatten relu(100) softmax(10)"), runtime: runtime)
    try network.build(for: Shape(28, 28, 1))
    let shapes = Dictionary(
      uniqueKeysWithValues: network.snapshot().parameters.map { ($0.name, $0.shape) })
    var number = -1
    try network.setWeights { name in
      number += 1
      let shape = shapes[name]!
      return (0..<shape.reduce(1, *)).map {
        shape.count == 1
          ? 0 : Float(Double(value($0, 10 + number)) * (2 / Double(shape[1]).squareRoot()))
      }
    }
    return network
  }

  /// Twenty steps of each as PyTorch does them: losses, every parameter's sum of squares, and some
  /// of its values. PyTorch's own in single precision must pass too.
  @Test(arguments: 0..<9) func pyTorch(number: Int) throws {
    let runs = try expectations(Expected.self, "optimizers.json").runs
    #expect(runs.count == 9)
    #expect(Set(runs.map(\.method)) == Set(Optimizer.Method.allCases))
    let run = runs[number]
    var optimizer = Optimizer(run.method, momentum: run.momentum, weightDecay: run.decay)
    optimizer.l1 = run.l1 ?? 0
    optimizer.clipNorm = run.clip
    if let beta2 = run.beta2 { optimizer.beta2 = beta2 }
    if let epsilon = run.epsilon { optimizer.epsilon = epsilon }
    let network = try Self.flat()
    for (step, batch) in try NetworkTests.batches(20, of: 32).enumerated() {
      let found = try network.train(batch, learningRate: run.rate, optimizer: optimizer).cce
      let loss = run.float64.losses[step]
      for value in [Double(found), run.float32.losses[step]] {
        #expect(abs(value - loss) <= 2e-4 * loss, "\(run.method): \(value), PyTorch \(loss)")
      }
    }
    for (number, array) in network.snapshot().arrays.enumerated() {
      let (final, single) = (run.float64.final[number], run.float32.final[number])
      let sum = array.values.reduce(0) { $0 + Double($1) * Double($1) }
      #expect(
        abs(sum - final.sum_of_squares) <= 5e-4 * final.sum_of_squares,
        "\(run.method), \(array.name): \(sum), PyTorch \(final.sum_of_squares)")
      for (i, value) in final.values.enumerated() {
        let found = Double(array.values[(397 + 7919 * i) % array.values.count])
        for found in [found, single.values[i]] {
          #expect(
            abs(found - value) <= 2e-4 * max(abs(value), 0.05),
            "\(run.method), \(array.name), value \(i): \(found), PyTorch \(value)")
        }
      }
    }
  }

  /// Waiting for all gradients before the updates comes to the same bits, inside layers too.
  @Test(arguments: Optimizer.Method.allCases) func aNormThatIsNeverReached(method: Optimizer.Method)
    throws
  {
    let digests = try [nil, 1e30].map { (limit: Float?) in
      var optimizer = Optimizer(method, weightDecay: 0.01)
      optimizer.clipNorm = limit
      let network = Network(seed: 2, runtime: Runtime(threads: 2)) {
        Conv2D(4, 3, padding: 1, activation: .none)
        BatchNorm()
        Residual([Conv2D(4, 3, padding: 1)])
        Flatten()
        Dense(12)
        Dropout(0.2)
        Dense(10, activation: .softmax)
      }
      for batch in try NetworkTests.batches(4, of: 24) {
        try network.train(batch, learningRate: 0.01, optimizer: optimizer)
      }
      return network.snapshot().sha256
    }
    #expect(digests[0] == digests[1])
  }

  /// What one kind of optimiser remembers means something else to another.
  @Test func anotherKindBeginsAnew() throws {
    let batches = try NetworkTests.batches(6, of: 16)
    let (changed, fresh) = (try Self.flat(), try Self.flat())
    for batch in batches.prefix(3) {
      try changed.train(batch, learningRate: 0.002, optimizer: Optimizer(.adam))
    }
    try fresh.build(for: Shape(28, 28, 1))
    try fresh.restore(changed.snapshot())
    for batch in batches.suffix(3) {
      try changed.train(batch, learningRate: 0.05, optimizer: Optimizer(.nesterov))
      try fresh.train(batch, learningRate: 0.05, optimizer: Optimizer(.nesterov))
    }
    #expect(changed.snapshot().sha256 == fresh.snapshot().sha256)
  }

  @Test(arguments: Optimizer.Method.allCases, [nil, 0.7])
  func anyNumberOfThreads(method: Optimizer.Method, clipNorm: Float?) throws {
    var optimizer = Optimizer(method)
    optimizer.clipNorm = clipNorm
    let batches = try NetworkTests.batches(4, of: 37)
    let digests = try [1, 2, 3, 8].map { threads in
      let network = try NetworkTests.small(seed: 3, threads: threads)
      for batch in batches {
        try network.train(batch, learningRate: 0.01, optimizer: optimizer)
      }
      return network.snapshot().sha256
    }
    #expect(Set(digests).count == 1)
  }

  @Test func decayIsForWeightsAlone() throws {
    for method in [Optimizer.Method.sgd, .adamw] {
      let network = try NetworkTests.small()
      let batch = try NetworkTests.batches(1, of: 8)[0]
      var free = Optimizer(method, momentum: 0, weightDecay: 0)
      try network.train(batch, learningRate: 1e-3, optimizer: free)
      let start = network.snapshot()
      let plain = try network.train(batch, learningRate: 1e-3, optimizer: free).layers
      let other = try NetworkTests.small()
      try other.train(batch, learningRate: 1e-3, optimizer: free)
      (free.weightDecay, free.l1) = (0.1, 0.05)
      let decayed = try other.train(batch, learningRate: 1e-3, optimizer: free).layers
      for ((a, b), before) in zip(zip(plain.arrays, decayed.arrays), start.arrays) {
        if a.shape.count == 1 {
          #expect(a.values == b.values, "\(a.name)")
        } else {
          #expect(a.values != b.values && a.values != before.values, "\(a.name)")
        }
      }
    }
  }

  @Test func valuesOutOfRange() {
    let changes: [(String, (inout Optimizer) -> Void)] = [
      ("momentum", { $0.momentum = 1 }), ("momentum", { $0.momentum = .nan }),
      ("beta2", { $0.beta2 = -0.1 }), ("epsilon", { $0.epsilon = 0 }),
      ("weight decay", { $0.weightDecay = -1 }), ("L1", { $0.l1 = .infinity }),
      ("clip norm", { $0.clipNorm = 0 }),
    ]
    for (name, change) in changes {
      var optimizer = Optimizer()
      change(&optimizer)
      let error = #expect(throws: StrideNetError.self) { try optimizer.check() }
      #expect(error?.what == "\(name) out of range")
    }
  }

  // MARK: Schedules

  @Test func schedulesPyTorch() throws {
    let expected = try expectations(Expected.self, "optimizers.json").schedules
    #expect(expected.count == 3)
    for (name, shares) in expected {
      let schedule = try Schedule(name == "step" ? "step:2:0.5" : name)
      for (step, share) in shares.enumerated() {
        let found = schedule.share(step: step, of: 20, perEpoch: 5)
        #expect(abs(found - share) < 1e-8, "\(name), step \(step): \(found), PyTorch \(share)")
      }
    }
  }

  @Test func warmUpThenTheSchedule() throws {
    let warm = try Schedule("warmup:0.8,linear")
    let shares = (0..<20).map { warm.share(step: $0, of: 20, perEpoch: 5) }
    #expect(Array(shares.prefix(4)) == [0.25, 0.5, 0.75, 1])
    for step in 4..<20 { #expect(abs(shares[step] - (1 - Double(step - 4) / 16)) < 1e-12) }
    #expect(try Schedule("warmup:2").share(step: 15, of: 20, perEpoch: 5) == 1)
    // A run that is all warm-up.
    #expect(try Schedule("warmup:9,cosine").share(step: 19, of: 20, perEpoch: 5) == 1)
  }

  @Test(arguments: [
    "constant", "linear", "cosine", "onecycle", "step:3:0.1", "warmup:0.5,cosine",
    "warmup:1.0,constant",
  ])
  func textAndBack(text: String) throws {
    #expect(try Schedule(text).description == text)
    #expect(
      try JSONDecoder().decode([Schedule].self, from: JSONEncoder().encode([Schedule(text)])) == [
        Schedule(text)
      ])
  }

  @Test(arguments: [
    "", "lin", "step", "step:0:0.1", "step:2:0", "step:2:2", "warmup:-1,linear", "warmup:x",
    "cosine:3",
    "warmup:1,warmup:1,linear",
  ])
  func wrongSchedules(text: String) { #expect(throws: StrideNetError.self) { try Schedule(text) } }

  @Test func schedulesOutOfRangeAreRefusedHoweverTheyAreMade() throws {
    for schedule in [
      Schedule(.linear, warmup: .nan), Schedule(.linear, warmup: 1e300),
      Schedule(.linear, warmup: -1),
      Schedule(.step(epochs: 0, factor: 0.5)), Schedule(.step(epochs: 1, factor: .infinity)),
    ] {
      var settings = TrainingSettings()
      settings.schedule = schedule
      #expect(throws: StrideNetError.self) { try settings.check(images: 100) }
    }
    var settings = TrainingSettings()
    settings.augmentation = Augmentation()
    settings.augmentation?.sigma = .infinity
    #expect(throws: StrideNetError.self) { try settings.check(images: 100) }
  }

  // MARK: Metrics

  /// A table of all pairs of classes would take 30 GB.
  @Test func metricsOfManyClasses() throws {
    let network = Network(try Architecture.layers("flatten softmax(60000)"))
    try network.build(for: Shape(1, 1, 1))
    let batch = Batch(images: Tensor(batch: 2, shape: Shape(1, 1, 1)), labels: [59_999, 300])
    let metrics = try network.metrics([batch, batch])
    #expect(metrics.images == 4 && metrics.classes[59_999].images == 2 && metrics.ce > 0)
  }

  @Test func metricsByHand() {
    let m = Metrics(cce: 0.5, confusion: [[3, 1, 0], [0, 4, 0], [1, 1, 0]])
    #expect(m.images == 10 && m.accuracy == 0.7 && abs(m.ce - 0.3) < 1e-12)
    let c = m.classes
    #expect(c.map(\.images) == [4, 4, 2])
    #expect(c[0].precision == 0.75 && c[0].recall == 0.75 && c[0].f1 == 0.75)
    #expect(c[1].precision == 4.0 / 6 && c[1].recall == 1 && c[1].f1 == 0.8)
    #expect(c[2].precision == nil && c[2].recall == 0 && c[2].f1 == 0)
  }

  /// As scikit-learn has them.
  @Test func metricsOfScikitLearn() throws {
    struct Stored: Decodable {
      let accuracy: Double
      let confusion: [[Int]]
      let images: [Int]
      let precision, recall, f1: [Double?]
    }
    let stored = try expectations(Stored.self, "metrics.json")
    let metrics = Metrics(cce: 0, confusion: stored.confusion)
    #expect(abs(metrics.accuracy - stored.accuracy) < 1e-12)
    #expect(metrics.classes.map(\.images) == stored.images)
    #expect(stored.precision.contains(nil))
    for (found, expected) in [
      (metrics.classes.map(\.precision), stored.precision),
      (metrics.classes.map(\.recall), stored.recall), (metrics.classes.map(\.f1), stored.f1),
    ] {
      #expect(found.count == expected.count)
      for (a, b) in zip(found, expected) {
        #expect((a == nil) == (b == nil) && abs((a ?? 0) - (b ?? 0)) < 1e-12)
      }
    }
  }

  @Test func metricsAgreeWithEvaluation() throws {
    let network = try Self.flat()
    for batch in try NetworkTests.batches(60, of: 64) {
      try network.train(batch, learningRate: 0.05, momentum: 0.9)
    }
    let test = try NetworkTests.sample.get().test
    let (metrics, (cce, ce)) = (try network.metrics(test), try network.evaluate(test))
    #expect(metrics.cce == cce && abs(Float(metrics.ce) - ce) < 1e-6)
    #expect(metrics.images == test.count && metrics.accuracy > 0.7)
    for label in 0..<10 {
      #expect(metrics.classes[label].images == test.labels.count { $0 == label })
    }
    let some = test.prefix(300)
    let probabilities = try network.predict(some.batch(0..<300).images).values
    var confusion = [[Int]](repeating: [Int](repeating: 0, count: 10), count: 10)
    for i in 0..<300 {
      let row = Array(probabilities[i * 10..<i * 10 + 10])
      confusion[Int(some.labels[i])][row.firstIndex(of: row.max()!)!] += 1
    }
    #expect(try network.metrics(some).confusion == confusion)
  }
}

@Suite struct ResumeTests {
  private static func settings(_ change: (inout TrainingSettings) -> Void = { _ in })
    -> TrainingSettings
  {
    var settings = TrainingSettings()
    (settings.epochs, settings.batchSize, settings.seed) = (3, 64, 5)
    change(&settings)
    return settings
  }
  private static let layers =
    "conv(4,5,stride=2,activation=none) batchnorm(activation=relu) flatten dropout(0.3) softmax(10)"

  static func data() throws -> Dataset {
    let sample = try NetworkTests.sample.get()
    return try Dataset(
      name: "small", source: "small", train: sample.train.prefix(500), test: sample.test.prefix(200)
    )
  }

  private static func trainer(_ settings: TrainingSettings, threads: Int = 2) throws -> Trainer {
    let network = Network(
      try Architecture.layers(layers), seed: settings.seed, runtime: Runtime(threads: threads))
    return try Trainer(network, data(), settings)
  }

  private static func outcome(_ trainer: Trainer) -> String {
    let losses = trainer.results.map { "\($0.trainCCE) \($0.trainCE) \($0.testCCE) \($0.testCE)" }
    return "\(losses) \(trainer.network.snapshot().sha256)"
  }

  static let changes: [@Sendable (inout TrainingSettings) -> Void] = [
    { _ in },
    { s in
      s.optimizer = Optimizer(.adamw)
      s.learningRate = 0.01
      s.averageDecay = 0.98
      s.schedule = .oneCycle
    },
    { s in
      s.optimizer = Optimizer(.rmsprop)
      s.learningRate = 0.002
      s.optimizer.clipNorm = 1
      s.keepsBest = true
      s.loss = .crossEntropy(labelSmoothing: 0.1)
    },
  ]

  /// Stopped anywhere and gone on with by another process with other threads, a training comes to
  /// the same weights and losses, bit for bit.
  @Test(arguments: 0..<3, [0, 1, 5, 8, 13, 23]) func asIfItHadNeverStopped(change: Int, stop: Int)
    throws
  {
    let settings = Self.settings(Self.changes[change])
    let whole = try Self.trainer(settings)
    try whole.run()
    let folder = try TemporaryFolder()
    let path = "\(folder.path)/checkpoint.safetensors"
    let configuration = RunConfiguration(layers: Self.layers, training: settings)

    let first = try Self.trainer(settings, threads: 1)
    first.writeCheckpoints(to: path, configuration)
    var steps = 0
    first.onBatch = { _ in steps += 1 }
    first.shouldStop = { steps >= stop }
    guard case .stopped = try first.run() else {
      Issue.record("not stopped")
      return
    }
    for threads in [1, 2, 3] {
      let checkpoint = try Checkpoint(from: path)
      #expect(checkpoint.configuration == configuration)
      let second = try Self.trainer(settings, threads: threads)
      try second.resume(checkpoint)
      guard case .finished = try second.run() else {
        Issue.record("not finished")
        continue
      }
      #expect(Self.outcome(second) == Self.outcome(whole), "\(threads) threads")
    }
    // A checkpoint is a weight file too.
    #expect(try Network.load(from: path).classes == 10)
  }

  @Test func whatDoesntFitIsRefused() throws {
    let folder = try TemporaryFolder()
    let path = "\(folder.path)/checkpoint.safetensors"
    let settings = Self.settings()
    let configuration = RunConfiguration(layers: Self.layers, training: settings)
    let trainer = try Self.trainer(settings)
    trainer.writeCheckpoints(to: path, configuration)
    trainer.shouldStop = { trainer.results.count == 1 }
    try trainer.run()
    let checkpoint = try Checkpoint(from: path)
    #expect(checkpoint.epochs == 1)

    let other = try Self.trainer(Self.settings { $0.epochs = 4 })
    let error = #expect(throws: StrideNetError.self) { try other.resume(checkpoint) }
    #expect(error?.found?.contains("training.epochs: 4, 3") == true)

    let sample = try NetworkTests.sample.get()
    let elsewhere = try Trainer(
      Network(try Architecture.layers(Self.layers)),
      Dataset(name: "x", source: "x", train: sample.train.prefix(501), test: sample.test), settings)
    #expect(throws: StrideNetError.self) { try elsewhere.resume(checkpoint) }
    // One pixel of one image is another.
    let data = try Self.data()
    var pixels = data.train.pixels
    pixels[4000] ^= 1
    let retouched = try Dataset(
      name: "x", source: "x",
      train: ImageSet(
        count: data.train.count, height: 28, width: 28, channels: 1, pixels: pixels,
        labels: data.train.labels), test: data.test)
    let odd = try Trainer(Network(try Architecture.layers(Self.layers)), retouched, settings)
    #expect(throws: StrideNetError.self) { try odd.resume(checkpoint) }
    let network = try Trainer(
      Network(try Architecture.layers("flatten softmax(10)")), Self.data(), settings)
    #expect(throws: StrideNetError.self) { try network.resume(checkpoint) }

    // Cut off anywhere, it says so.
    let bytes = [UInt8](try Data(contentsOf: URL(filePath: path)))
    for count in stride(from: 0, to: bytes.count, by: max(1, bytes.count / 40)) {
      try folder.write("cut", Array(bytes.prefix(count)))
      #expect(throws: StrideNetError.self) { try Checkpoint(from: "\(folder.path)/cut") }
    }
    try network.network.save(to: "\(folder.path)/weights")
    #expect(throws: StrideNetError.self) { try Checkpoint(from: "\(folder.path)/weights") }
  }

  /// Numbers that a checkpoint may claim, and nothing could go on from.
  @Test(arguments: [
    (#""stepCount":\d+"#, #""stepCount":9223372036854775807"#),
    (#""stepCount":\d+"#, #""stepCount":-1"#),
    (#""updateCount":\d+"#, #""updateCount":9223372036854775806"#),
    (#""batchesDone":\d+"#, #""batchesDone":-9223372036854775808"#),
    (#""bestEpoch":1"#, #""bestEpoch":9223372036854775807"#),
    (#""bestEpoch":1"#, #""bestEpoch":0"#),
    (#""results":\[[^]]*\]"#, #""results":[]"#),
    (#""epoch":1"#, #""epoch":9223372036854775807"#), (#""epoch":1"#, #""epoch":2"#),
    (#""imagesPerSecond":[^,}]*"#, #""imagesPerSecond":1e300"#),
    (#""imagesPerSecond":[^,}]*"#, #""imagesPerSecond":-1"#),
    (#""seconds":[^,}]*"#, #""seconds":1e300"#), (#""testCE":[^,}]*"#, #""testCE":1e38"#),
    (#""trainCE":[^,}]*"#, #""trainCE":-1"#), (#""testCCE":[^,}]*"#, #""testCCE":1e300"#),
    (#""sumCE":[^,}]*"#, #""sumCE":1e300"#), (#""images":\d+"#, #""images":9223372036854775807"#),
    (#""images":\d+"#, #""images":0"#),
    (#""epochs" : 3"#, #""epochs" : 9223372036854775807"#),
    (#""batch_size" : 64"#, #""batch_size" : -9223372036854775808"#),
    (#""batch_size" : 64"#, #""batch_size" : 9223372036854775807"#),
    (#""learning_rate" : [^,]*"#, #""learning_rate" : 1e300"#),
    (#""schedule" : "linear""#, #""schedule" : "warmup:1e300,linear""#),
  ]) func numbersThatNoRunHasAreRefused(pattern: String, claim: String) throws {
    let folder = try TemporaryFolder()
    let path = "\(folder.path)/checkpoint"
    let settings = Self.settings()
    let configuration = RunConfiguration(layers: Self.layers, training: settings)
    let trainer = try Self.trainer(settings)
    trainer.writeCheckpoints(to: path, configuration)
    var steps = 0
    trainer.onBatch = { _ in steps += 1 }
    trainer.shouldStop = { steps == 9 }
    try trainer.run()
    var (tensors, metadata) = try Safetensors.read(at: path)
    var changed = 0
    for (key, text) in metadata {
      metadata[key] = text.replacingOccurrences(
        of: pattern, with: claim, options: .regularExpression)
      if metadata[key] != text { changed += 1 }
    }
    #expect(changed == 1, "\(metadata)")
    try Safetensors.write(tensors, metadata: metadata, to: path)
    let error = try #require(throws: StrideNetError.self) {
      try Self.trainer(settings).resume(Checkpoint(from: path))
    }
    #expect(error.kind == .badData || claim.contains("batch_size"), "\(error)")
    tensors.removeAll()
  }

  // MARK: Moving average, early stopping, the best epoch

  @Test func averagesAreEvaluatedAndReturned() throws {
    let plain = try Self.trainer(Self.settings())
    try plain.run()
    let averaged = try Self.trainer(Self.settings { $0.averageDecay = 0.9 })
    try averaged.run()
    #expect(averaged.results[0].trainCCE == plain.results[0].trainCCE)
    #expect(averaged.results[2].trainCCE == plain.results[2].trainCCE)
    #expect(averaged.results[2].testCCE != plain.results[2].testCCE)
    let evaluated = try averaged.network.evaluate(averaged.test as! ImageSet)
    #expect(evaluated.cce == averaged.results[2].testCCE)
    // By hand: each step's weights, averaged.
    let network = try OptimizerTests.flat()
    var average: [Float]?
    for (step, batch) in try NetworkTests.batches(5, of: 16).enumerated() {
      let (images, labels) = (batch.images, batch.labels)
      _ = try images.withView { x in
        try labels.withUnsafeBufferPointer {
          try network.step(
            x, .labels($0.baseAddress!), learningRate: 0.1, Optimizer(), averageDecay: 0.9)
        }
      }
      let weights = network.snapshot().values
      let share = 1 - min(Float(0.9), Float(step + 2) / Float(step + 11))
      average = average.map { zip($0, weights).map { $0 + share * ($1 - $0) } } ?? weights
    }
    network.exchangeAverage()
    expectClose(network.snapshot().values, average!, within: 1e-6, "average")
  }

  @Test func stopsEarlyWithTheBest() throws {
    let settings = Self.settings {
      ($0.epochs, $0.patience, $0.keepsBest) = (40, 2, true)
      $0.schedule = .constant
      $0.learningRate = 0.2
    }
    let trainer = try Self.trainer(settings)
    let end = try trainer.run()
    guard case .stoppedEarly = end else {
      Issue.record("\(end) after \(trainer.results.count)")
      return
    }
    let best = try #require(trainer.bestEpoch)
    #expect(trainer.results.count == best + 2)
    #expect(trainer.results.allSatisfy { $0.testCCE >= trainer.results[best - 1].testCCE })
    #expect(
      try trainer.network.evaluate(trainer.test as! ImageSet).cce
        == trainer.results[best - 1].testCCE)

    // Somebody who stops it has the best too; what goes on stops where this did, and no later.
    let folder = try TemporaryFolder()
    let path = "\(folder.path)/checkpoint.safetensors"
    let second = try Self.trainer(settings)
    second.writeCheckpoints(
      to: path, every: 1, RunConfiguration(layers: Self.layers, training: settings))
    second.shouldStop = { second.results.count == best + 1 }
    guard case .stopped = try second.run() else {
      Issue.record("not stopped")
      return
    }
    #expect(second.network.snapshot().sha256 == trainer.network.snapshot().sha256)
    for _ in 0..<2 {
      let third = try Self.trainer(settings)
      third.writeCheckpoints(
        to: path, every: 1, RunConfiguration(layers: Self.layers, training: settings))
      try third.resume(Checkpoint(from: path))
      guard case .stoppedEarly = try third.run() else {
        Issue.record("not stopped early")
        return
      }
      #expect(Self.outcome(third) == Self.outcome(trainer))
    }
  }

  /// The epoch that was stopped is done again from its start.
  @Test func runAgainAfterAStop() throws {
    func trainer() throws -> Trainer {
      let settings = Self.settings { ($0.optimizer.momentum, $0.epochs) = (0, 3) }
      let layers = try Architecture.layers("flatten softmax(10)")
      return try Trainer(Network(layers), Self.data(), settings)
    }
    let (whole, parts) = (try trainer(), try trainer())
    try whole.run()
    var steps = 0
    parts.onBatch = { _ in steps += 1 }
    for stop in [5, 13, 16] {
      parts.shouldStop = { steps >= stop }
      guard case .stopped = try parts.run() else {
        Issue.record("not stopped")
        return
      }
    }
    parts.shouldStop = { false }
    try parts.run()
    #expect(Self.outcome(parts) == Self.outcome(whole))
  }

  @Test func heldOutImagesAreTheLastOfTheTrainingSet() throws {
    let data = try Self.data()
    let held = try data.holdingOut(120)
    #expect(held.train.count == 380 && held.test.count == 120)
    #expect(Array(held.test.labels) == Array(data.train.labels.suffix(120)))
    #expect(held.train.labels.elementsEqual(data.train.labels.prefix(380)))
    #expect(try data.holdingOut(0.25).test.count == 125)
    for n in [0, -1, 500, 0.0001, 0.9999, 2.5, .nan, .infinity] {
      #expect(throws: StrideNetError.self) { try data.holdingOut(n) }
    }
  }

  // MARK: Configurations

  @Test func configurationsComeBack() throws {
    var configuration = RunConfiguration(
      layers: Self.layers, training: Self.settings(Self.changes[1]))
    (configuration.data, configuration.limit, configuration.kernels) = ("sample", 10, "im2col")
    (configuration.validate, configuration.training.seed) = (0.1, .max)
    let parsed = try RunConfiguration.parse(Array(configuration.json.utf8), at: "x")
    #expect(parsed == configuration)
    // What isn't said has its default, which may depend on the method.
    let short = try RunConfiguration.parse(
      Array(#"{"training": {"epochs": 7, "optimizer": {"method": "adamw"}}}"#.utf8), at: "x")
    #expect(short.training.epochs == 7 && short.training.batchSize == 64)
    #expect(short.training.optimizer == Optimizer(.adamw))
  }

  @Test(arguments: [
    ("", "JSON"), ("[]", "configuration"), ("{", "JSON"),
    (#"{"epochs": 3}"#, "unknown key"), (#"{"training": {"epoch": 3}}"#, "unknown key"),
    (#"{"training": {"epochs": "3"}}"#, "wrong value"), (#"{"training": 3}"#, "wrong value"),
    (#"{"training": {"epochs": 3.5}}"#, "wrong value"),
    (#"{"training": {"epochs": true}}"#, "wrong value"),
    (#"{"training": {"seed": -1}}"#, "wrong value"),
    (#"{"training": {"schedule": "lin"}}"#, "wrong value"),
    (#"{"training": {"optimizer": {"method": "adams"}}}"#, "wrong value"),
    (#"{"training": {"loss": "cross_entropy:2"}}"#, "wrong value"),
    (#"{"layers": null}"#, "wrong value"),
  ])
  func wrongConfigurations(text: String, what: String) {
    let error = #expect(throws: StrideNetError.self) {
      try RunConfiguration.parse(Array(text.utf8), at: "run.json")
    }
    #expect(error?.what.contains(what) == true && error?.place?.contains("run.json") == true)
  }
}
