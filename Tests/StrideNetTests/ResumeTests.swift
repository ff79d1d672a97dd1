import Foundation
import Testing

import StrideNet
@testable import StrideNetCore

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
    first.onBatch { _ in steps += 1 }
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

  @Test func differencesAreNamedAsTheFileHasThem() {
    var other = RunConfiguration()
    (other.stream, other.limit, other.training.keepsBest) = (true, 1, true)
    #expect(
      other.differences(from: RunConfiguration())
        == ["limit: 1, none", "stream: true, none", "training.keeps_best: true, false"])
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

    let other = try Self.trainer(Self.settings { $0.epochs = 2 })
    let error = #expect(throws: StrideNetError.self) { try other.resume(checkpoint) }
    #expect(error?.found?.contains("training.epochs: 2, 3") == true)

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
    trainer.onBatch { _ in steps += 1 }
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
    parts.onBatch { _ in steps += 1 }
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

  @Test func imagesAreHeldOutOfTheTrainingSet() throws {
    let data = try Self.data()
    let held = try data.holdingOut(120)
    #expect(held.train.count == 380 && held.test.count == 120)
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
