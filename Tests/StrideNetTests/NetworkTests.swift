import AllocationCounter
import Foundation
import Testing

import StrideNet
@testable import StrideNetLaboratory

@Suite struct NetworkTests {
  /// A small network that has every kind of layer.
  static func small(seed: UInt64 = 1, threads: Int = 2, kernels: String = "auto") throws -> Network
  {
    Network(
      seed: seed, runtime: Runtime(threads: threads, kernels: try KernelChoice(named: kernels))
    ) {
      Conv2D(6, 3, padding: 1)
      MaxPool2D(2)
      Conv2D(5, 3, stride: 2, activation: .sigmoid)
      AvgPool2D(2, stride: 1)
      Flatten()
      Dense(12)
      Dense(10, activation: .softmax)
    }
  }

  static let sample = Result { try Dataset.load("sample") }

  static func batches(_ count: Int, of size: Int) throws -> [Batch] {
    let train = try sample.get().train
    return (0..<count).map { train.batch($0 * size..<($0 + 1) * size) }
  }

  struct Expected: Decodable {
    struct Run: Decodable {
      struct Final: Decodable { let sum, sum_of_squares: Double }
      let losses: [Double]
      let misclassified: [Int]
    }
    struct Runs: Decodable { let float32, float64: Run }
    let steps, batch: Int
    let rate, momentum: Float
    let labels: [UInt16]
    let networks: [String: Runs]
  }

  /// Twenty steps from the same weights on the same batches as PyTorch.
  @Test(arguments: ["cnn", "flat"], KernelChoice.names)
  func pyTorch(model: String, kernels: String) throws {
    _ = testedInstructionSet
    try Self.expectPyTorch(
      model, Runtime(threads: 2, kernels: try KernelChoice(named: kernels)), misclassified: 0
    ) { _ in 1e-4 }
  }

  /// - Parameters:
  ///   - misclassified: by how many images the number of wrong ones may differ
  ///   - bound: how far a step's loss may be off, relative to itself
  static func expectPyTorch(
    _ model: String, _ runtime: Runtime, misclassified: Int, within bound: (_ step: Int) -> Double
  ) throws {
    let expected = try expectations(Expected.self, "training.json")
    let runs = try #require(expected.networks[model])
    let text = try #require(Architecture.presets.first { $0.name == model }).text
    let network = Network(try Architecture.layers(text), runtime: runtime)
    try network.build(for: Shape(28, 28, 1))
    var number = -1
    let shapes = Dictionary(
      uniqueKeysWithValues: network.snapshot().parameters.map { ($0.name, $0.shape) })
    try network.setWeights { name in
      number += 1
      let shape = shapes[name]!
      let count = shape.reduce(1, *)
      guard shape.count > 1 else { return [Float](repeating: 0, count: count) }
      let fanIn = shape.count == 4 ? shape[0] * shape[1] * shape[2] : shape[1]
      return (0..<count).map {
        Float(Double(value($0, 10 + number)) * (2 / Double(fanIn).squareRoot()))
      }
    }
    #expect(Array(try sample.get().train.labels.prefix(10)) == expected.labels)
    for (step, batch) in try batches(expected.steps, of: expected.batch).enumerated() {
      let (_, cce, ce) = try network.train(
        batch, learningRate: expected.rate, momentum: expected.momentum)
      let loss = runs.float64.losses[step]
      #expect(
        abs(Double(cce) - loss) <= bound(step) * loss,
        "\(model), step \(step): \(cce), PyTorch \(loss)")
      let wrong = Int((ce * Float(expected.batch)).rounded())
      #expect(abs(wrong - runs.float64.misclassified[step]) <= misclassified)
    }
  }

  /// The variants give the same loss curve but for rounding.
  @Test func variantsAgree() throws {
    let batches = try Self.batches(50, of: 16)
    let curves = try KernelChoice.names.map { kernels in
      let network = Network(
        try Architecture.layers("conv(8,3) maxpool(2) flatten relu(30) softmax(10)"),
        runtime: Runtime(threads: 2, kernels: try KernelChoice(named: kernels)))
      return try batches.map { try network.train($0, learningRate: 0.05, momentum: 0.9).cce }
    }
    #expect(curves[0].last! < curves[0].first! / 2)
    for (name, curve) in zip(KernelChoice.names, curves) {
      for (step, (a, b)) in zip(curve, curves[0]).enumerated() {
        #expect(abs(a - b) <= 2e-3 * max(b, 0.1), "\(name), step \(step): \(a), naive \(b)")
      }
    }
  }

  /// What was made of the weights to predict is made anew whenever they have changed.
  @Test(
    arguments: [
      "conv(16,3) conv(16,3,padding=1) maxpool(2) flatten softmax(10)",
      "conv(16,3,activation=none) batchnorm residual(conv(16,3,padding=1)) flatten softmax(10)",
    ], ["direct", "winograd"])
  func predictsWithTheWeightsThatAre(layers: String, kernels: String) throws {
    let batches = try Self.batches(4, of: 8)
    let network = Network(
      try Architecture.layers(layers),
      runtime: Runtime(threads: 2, kernels: try KernelChoice(named: kernels)))
    var last: [Float] = []
    func check(_ what: String) throws {
      let found = try network.predict(batches[3].images).values
      #expect(try network.copy().predict(batches[3].images).values == found, "\(what)")
      #expect(try network.predict(batches[3].images).values == found, "\(what), again")
      #expect(found != last, "\(what)")
      last = found
    }
    try check("built")
    let first = network.snapshot()
    for batch in batches[..<3] {
      try network.train(batch, learningRate: 0.05)
      try check("trained")
    }
    let taught = network.snapshot()
    try network.restore(first)
    try check("restored")
    try network.setWeights("layers.0.weight", (0..<16 * 9).map { Float($0 % 7) / 20 - 0.1 })
    try check("set")
    _ = try network.evaluate(batches[0])
    try network.restore(taught)
    try check("restored again")
  }

  /// The rows of one image, or of fewer than there are threads, are cut into bands, where that pays.
  @Test(
    arguments: [
      "conv(40,3,padding=1) conv(33,3,padding=1) maxpool(2) flatten softmax(3)",
      "conv(44,3) conv(48,3) maxpool(2) conv(64,3,dilation=2) globalavgpool softmax(3)",
      "conv(24,5,2,2) conv(64,5x3,1,2,none) batchnorm(relu) maxpool(3,2) flatten softmax(3)",
    ], ["naive", "im2col", "winograd", "exact", "auto", "bf16"])
  func anyNumberOfThreadsForOneImage(layers: String, kernels: String) throws {
    let shape = Shape(26, 22, 16)
    let images = try Tensor(
      batch: 3, shape: shape, (0..<3 * shape.count).map { Float($0 * 7919 % 1009) / 500 - 1 })
    let found = try [1, 2, 3, 4, 16].map { threads in
      let isNarrow = kernels == "bf16"
      let network = Network(
        try Architecture.layers(layers), seed: 9,
        runtime: Runtime(
          threads: threads, kernels: try KernelChoice(named: isNarrow ? "auto" : kernels),
          precision: isNarrow ? .bf16 : .float32))
      let together = try network.predict(images).values
      let alone = try (0..<3).flatMap { n in
        let image = Array(images.values[n * shape.count..<(n + 1) * shape.count])
        return try network.predict(Tensor(batch: 1, shape: shape, image)).values
      }
      return [together, alone]
    }
    let (different, isFinite) = (Set(found.joined()), found[0][0].allSatisfy { $0.isFinite })
    #expect(different.count == 1 && isFinite)
  }

  @Test(arguments: KernelChoice.names) func anyNumberOfThreads(kernels: String) throws {
    let batches = try Self.batches(4, of: 37)
    let digests = try [1, 2, 3, 8].map { threads in
      let network = try Self.small(seed: 3, threads: threads, kernels: kernels)
      for batch in batches { try network.train(batch, learningRate: 0.1, momentum: 0.9) }
      return network.snapshot().sha256
    }
    #expect(Set(digests).count == 1, "\(digests)")
  }

  /// Layers run together give the same weights as each on its own, bit for bit.
  @Test(
    arguments: [
      "conv(6,3) maxpool(2) flatten relu(20) softmax(10)",
      "conv(6,3,activation=none) maxpool(3,2) conv(17,3,padding=1) maxpool(2) flatten softmax(10)",
      "maxpool(2) conv(4,5) maxpool(2,1) conv(8,3) flatten softmax(10)",
      "conv(33,4,stride=2) maxpool(2) conv(16,3,padding=1) maxpool(2) flatten softmax(10)",
      "conv(8,3,padding=same) conv(8,3,groups=8,dilation=2) maxpool(2) flatten softmax(10)",
      "conv(16,3,groups=1,padding=0x1x2x0) maxpool(2) conv(12,3,groups=4,stride=2,padding=same) "
        + "conv(12,3,padding=same,groups=12) maxpool(2) flatten softmax(10)",
      "conv(4,3) conv(40,3,stride=2) conv(7,3) maxpool(2) conv(3,2) avgpool(2) flatten softmax(10)",
      "conv(16,3,padding=1) maxpool(2,padding=1) conv(8,3,padding=4) maxpool(2,ceil_mode=true) "
        + "conv(4,2,activation=none) batchnorm maxpool(3,2,1) flatten softmax(10)",
    ], KernelChoice.names)
  func fusedAndUnfused(text: String, kernels: String) throws {
    let batches = try Self.batches(3, of: 150)
    let digests = try [true, false].map { fusing in
      let network = Network(
        try Architecture.layers(text),
        runtime: Runtime(threads: 2, kernels: try KernelChoice(named: kernels), fusing: fusing))
      var losses: [Float] = []
      for batch in batches {
        losses.append(try network.train(batch, learningRate: 0.05, momentum: 0.9).cce)
      }
      return "\(losses) \(network.snapshot().sha256)"
    }
    #expect(digests[0] == digests[1])
  }

  @Test func theSeedDecides() throws {
    let batch = try Self.batches(1, of: 8)[0]
    func digest(_ seed: UInt64) throws -> String {
      let network = try Self.small(seed: seed)
      try network.train(batch, learningRate: 0.1)
      return network.snapshot().sha256
    }
    #expect(try digest(1) == digest(1))
    #expect(try digest(1) != digest(2))
  }

  @Test func snapshots() throws {
    let batches = try Self.batches(3, of: 8)
    let network = try Self.small()
    let (kept, _, _) = try network.train(batches[0], learningRate: 0.1)
    let values = kept.values
    let before = try network.predict(batches[0].images).values
    try network.train(batches[1], learningRate: 0.1)
    #expect(kept.values == values, "a kept snapshot doesn't change")
    #expect(network.snapshot().values != values)
    #expect(try network.predict(batches[0].images).values != before)
    try network.restore(kept)
    #expect(network.snapshot().sha256 == kept.sha256)
    #expect(try network.predict(batches[0].images).values == before)
    try network.train(batches[2], learningRate: 0.1)
    #expect(kept.values == values, "nor after it was put back")
    #expect(kept.arrays.map(\.name).prefix(2) == ["layers.0.weight", "layers.0.bias"])
  }

  /// A step after the first allocates nothing; a snapshot that is dropped costs nothing either.
  /// Without optimisation Swift allocates for closures and tuples that it otherwise keeps on the
  /// stack.
  @Test(
    .enabled(
      if: allocation_count() >= 0 && !KernelChoice.isDebugBuild,
      "allocations are counted in release builds on glibc"))
  func stepsAllocateNothing() throws {
    let batch = try Self.batches(1, of: 32)[0]
    let options =
      "conv(8,3,padding=same,dilation=2) conv(16,3,stride=2,groups=4,activation=gelu) "
      + "conv(16,3,groups=16) activation(silu) maxpool(2) flatten leaky_relu(9) softmax(10)"
    for (name, threads, isTimed) in [
      ("cnn", 1, false), ("cnn", 2, false), ("flat", 2, false), ("small", 2, false),
      ("cnn", 2, true), ("small", 2, true), ("options", 2, false), ("options", 2, true),
    ] {
      let runtime = Runtime(threads: threads)
      let network =
        try (Architecture.presets.map { ($0.name, $0.text) } + [("options", options)])
        .first { $0.0 == name }
        .map { Network(try Architecture.layers($0.1), runtime: runtime) }
        ?? Self.small(threads: threads)
      if isTimed { network.timePasses() }
      func allocations(_ steps: Int) throws -> Int {
        let before = allocation_count()
        for _ in 0..<steps { try network.train(batch, learningRate: 0.01, momentum: 0.9) }
        return allocation_count() - before
      }
      _ = try allocations(2)
      // Pieces of work go to whichever thread is free: in the end this one has done all kinds.
      let most = try (0..<20).map { _ in try allocations(5) }.max()!
      #expect(most == 0, "\(name), \(threads) threads: \(most) allocations in five steps")
    }
  }

  /// Timing changes no weight, and a row is what its layer's sizes and the roof say.
  @Test func passesAreTimed() throws {
    let batches = try Self.batches(3, of: 16)
    let networks = try (0..<2).map { _ in try Self.small(threads: 3) }
    networks[1].timePasses()
    for network in networks {
      for batch in batches { try network.train(batch, learningRate: 0.1, momentum: 0.9) }
    }
    #expect(networks[0].snapshot().sha256 == networks[1].snapshot().sha256)
    let roof = Roofline.Roof(
      threads: 3, gigaflopsPerSecond: 10, memoryRead: 1, memoryCopy: 2, cacheCopy: 9)
    #expect(networks[0].explanation(roof) == nil)
    let explanation = try #require(networks[1].explanation(roof))
    #expect(explanation.steps == 3 && explanation.images == 16)
    for row in explanation.rows { #expect(row.measured > 0 && row.predicted > 0, "\(row)") }
    #expect(explanation.accounted > 0 && explanation.accounted <= 1)
    // 16 images of 28×28, 6 filters of 3×3; of each of the pooling's 14×14×6 outputs the value, four
    // bytes, and the place, two. What lies between them stays in registers or in a cache.
    let bytes = 16 * 14 * 14 * 6 * 6
    let first = try #require(explanation.rows.first { $0.number == "1+2" })
    let (pixels, window) = (16 * 28 * 28, 9)
    #expect(first.kernel == "conv_pool_forward_direct")
    #expect(first.operations == Double(2 * pixels * 6 * window))
    #expect(first.bytes == Double(4 * (pixels + 6 * window + 6) + bytes))
    #expect(first.predicted == max(first.operations / 10e9, first.bytes / 2e9))
    let pooling = explanation.rows.filter { $0.kernel.hasPrefix("pool_max") }
    #expect(pooling.map(\.bytes) == [Double(bytes)])
    #expect(pooling.allSatisfy { $0.predicted == Double(bytes) / 2e9 })
  }

  @Test func evaluationIsInChunks() throws {
    let network = try Self.small()
    let batch = try Self.batches(1, of: 300)[0]
    let (output, cce, ce) = try network.evaluate(batch.images, batch.labels)
    #expect(output.batch == 300 && output.shape == Shape(10))
    let rows = (0..<300).map { row in (0..<10).map { output[row * 10 + $0] } }
    #expect(rows.allSatisfy { abs($0.reduce(0, +) - 1) < 1e-5 })
    let expected = zip(rows, batch.labels).reduce(0.0) { $0 - log(Double($1.0[Int($1.1)])) } / 300
    #expect(abs(Double(cce) - expected) < 1e-4)
    let errors = zip(rows, batch.labels).filter { $0.firstIndex(of: $0.max()!)! != Int($1) }.count
    #expect(ce == Float(errors) / 300)
    #expect(try network.predict(batch.images).values == output.values)
    let set = try Self.sample.get().train.prefix(300)
    #expect(try network.evaluate(set) == (cce, ce))
  }

  @Test(arguments: [
    ("conv(4,9) flatten softmax(10)", "layer 1", "8×8×1"),
    ("conv(4,3) maxpool(7) flatten softmax(10)", "layer 2", "6×6×4"),
    ("conv(4,3) softmax(10)", "layer 2", "6×6×4"),
    ("flatten relu(10)", "layer 2", "relu"),
    ("maxpool(3) maxpool(3) flatten softmax(10)", "layer 2", "2×2×1"),
    ("maxpool(3,padding=3) flatten softmax(10)", "layer 1", "3"),
    ("avgpool(3,padding=0x0x3x0) flatten softmax(10)", "layer 1", "3"),
    ("maxpool(11,stride=3,ceil_mode=true) flatten softmax(10)", "layer 1", "11×11"),
    ("conv(4,3) conv(6,3,groups=4) flatten softmax(10)", "layer 2", "4 groups of 4 channels and 6"),
    ("conv(4,3,dilation=4) flatten softmax(10)", "layer 1", "dilated to 9×9"),
  ])
  func whatDoesntFitSaysWhere(text: String, layer: String, found: String) throws {
    let network = Network(try Architecture.layers(text))
    let batch = Batch(images: Tensor(batch: 2, shape: Shape(8, 8, 1)), labels: [0, 1])
    let error = #expect(throws: StrideNetError.self) {
      try network.train(batch, learningRate: 0.1)
    }
    #expect(error?.place?.contains(layer) == true && error?.found?.contains(found) == true)
    #expect(error?.kind == .badData)
  }

  @Test func whatDoesntFitTheNetwork() throws {
    let network = try Self.small()
    let batch = try Self.batches(1, of: 4)[0]
    try network.train(batch, learningRate: 0.1)
    let before = network.snapshot().sha256
    for (images, labels) in [
      (Tensor(batch: 4, shape: Shape(27, 28, 1)), batch.labels),
      (batch.images, [0, 1, 2]), (batch.images, [0, 1, 2, 10]), (batch.images, [0, 1, 2, -1]),
      (Tensor(batch: 0, shape: Shape(28, 28, 1)), []),
    ] {
      #expect(throws: StrideNetError.self) {
        try network.train(Batch(images: images, labels: labels), learningRate: 0.1)
      }
    }
    #expect(network.snapshot().sha256 == before)
  }

  @Test func textAndBack() throws {
    let text =
      "conv(32,3) conv(8,3x5,stride=2x1,padding=1x2,activation=none) maxpool(2) avgpool(3,stride=1) globalavgpool "
      + "maxpool(3,stride=2,padding=1,ceil_mode=true) avgpool(2x3,padding=0x1x1x2) "
      + "avgpool(3,padding=same,count_include_pad=false) "
      + "conv(32,3,padding=same,dilation=2,groups=4) conv(3,3,padding=0x1x2x3,dilation=2x1) "
      + "conv(4,3,init=he_normal) relu(5,init=glorot_uniform) dense(2,init=constant:0.5) "
      + "leaky_relu(5,slope=0.2,init=lecun_normal) tanh(7,init=uniform:-0.5:0.25) "
      + "conv(4,3,activation=leaky_relu,slope=0.2) batchnorm(activation=leaky_relu,slope=0.2) activation(leaky_relu,slope=0.125) elu(7) gelu(8) "
      + "dense(3) tanh(4) softplus(5) silu(6) leaky_relu(9) leaky_relu(10,slope=0.3) activation(gelu) "
      + "activation(sigmoid) flatten relu(100) sigmoid(20) dense(30) softmax(10)"
    #expect(Architecture.text(try Architecture.layers(text)) == text)
    let positional = try Architecture.layers(
      "conv( 8 , 3, 2,1 )maxpool(3,2) dense(4,activation=relu)")
    #expect(
      Architecture.text(positional) == "conv(8,3,stride=2,padding=1) maxpool(3,stride=2) relu(4)")
  }

  @Test func savedAndLoaded() throws {
    let path = FileManager.default.temporaryDirectory.appending(path: "\(UUID()).safetensors").path
    defer { try? FileManager.default.removeItem(atPath: path) }
    let network = try Self.small()
    let batch = try Self.batches(1, of: 20)[0]
    try network.train(batch, learningRate: 0.1)
    try network.save(to: path)
    let loaded = try Network.load(from: path)
    #expect(loaded.snapshot().sha256 == network.snapshot().sha256)
    #expect(try loaded.predict(batch.images).values == network.predict(batch.images).values)
    // A network with a layer of one's own is loaded into its layers.
    func own() -> [any Layer] { [ChannelScale(), Flatten(), Dense(10, activation: .softmax)] }
    let custom = Network(own())
    try custom.train(batch, learningRate: 0.1)
    try custom.save(to: path)
    #expect(throws: StrideNetError.self) { try Network.load(from: path) }
    let again = try Network.load(from: path, layers: own())
    #expect(again.snapshot().sha256 == custom.snapshot().sha256)
  }

  /// The README's layer and activation of one's own learn something.
  @Test func onesOwnLayerAndActivationLearn() throws {
    let square = Activation("square", { $0 * $0 }, derivative: { x, _ in 2 * x })
    let network = Network([
      ChannelScale(), Flatten(), Dense(20, activation: square), Dense(10, activation: .softmax),
    ])
    let batch = try Self.batches(1, of: 100)[0]
    let first = try network.train(batch, learningRate: 0.02).cce
    var last = first
    for _ in 0..<60 { last = try network.train(batch, learningRate: 0.02).cce }
    #expect(last < first / 2)
    #expect(network.snapshot().arrays[0].values != [1])
  }
}

@Suite struct TrainerTests {
  @Test func learnsAndReports() throws {
    let data = try NetworkTests.sample.get().limited(to: 1_000)
    var settings = TrainingSettings()
    (settings.epochs, settings.batchSize, settings.learningRate) = (2, 32, 0.05)
    let network = Network(try Architecture.layers("flatten relu(30) softmax(10)"))
    let trainer = try Trainer(network, data, settings)
    var batches = 0
    var epochs: [EpochResult] = []
    trainer.onBatch { progress in
      batches += 1
      #expect(progress.batches == 32 && progress.batchSize == (progress.batch == 32 ? 8 : 32))
    }
    trainer.onEpoch { epochs.append($0) }
    guard case .finished = try trainer.run() else {
      Issue.record("not finished")
      return
    }
    #expect(batches == 64 && epochs.count == 2)
    #expect(epochs[1].testCE < 0.25 && epochs[1].trainCCE < epochs[0].trainCCE)
    let (cce, ce) = try network.evaluate(data.test)
    #expect(cce == epochs[1].testCCE && ce == epochs[1].testCE)
  }

  @Test func stopsWithTheLastFinishedEpoch() throws {
    let data = try NetworkTests.sample.get().limited(to: 200)
    var settings = TrainingSettings()
    (settings.epochs, settings.batchSize) = (5, 20)
    let network = Network(try Architecture.layers("flatten softmax(10)"))
    let trainer = try Trainer(network, data, settings)
    var steps = 0
    var digest = ""
    trainer.onBatch { _ in steps += 1 }
    trainer.onEpoch { _ in digest = network.snapshot().sha256 }
    trainer.shouldStop = { steps == 17 }
    guard case .stopped = try trainer.run() else {
      Issue.record("not stopped")
      return
    }
    #expect(trainer.results.count == 1 && network.snapshot().sha256 == digest)
  }

  @Test func divergenceKeepsTheLastGoodWeights() throws {
    let data = try NetworkTests.sample.get().limited(to: 200)
    var settings = TrainingSettings()
    (settings.batchSize, settings.learningRate) = (20, 1e30)
    let network = Network(try Architecture.layers("flatten relu(10) softmax(10)"))
    let trainer = try Trainer(network, data, settings)
    let before = network.snapshot().sha256
    guard case .diverged = try trainer.run() else {
      Issue.record("not diverged")
      return
    }
    #expect(network.snapshot().sha256 == before)
  }
}
