import Foundation
import Testing

import StrideNet
@testable import StrideNetLaboratory

/// Layers describe, networks hold: what is done with descriptions, or with one network, can't reach
/// another one's memory.
@Suite struct OwnershipTests {
  static let layers: [any Layer] = [
    Conv2D(4, 3), BatchNorm(), MaxPool2D(2), Flatten(), Dense(12), Dense(10, activation: .softmax),
  ]

  private func batch(_ count: Int = 20) throws -> Batch {
    try NetworkTests.batches(1, of: count)[0]
  }

  /// Asking how large layers are leaves a network of them as it is.
  @Test func sizesAreAskedWithoutHarm() throws {
    let (network, batch) = (Network(Self.layers), try batch())
    try network.train(batch, learningRate: 0.1)
    let before = try network.predict(batch.images).values
    let size = try Network.size(of: network.layers, for: Shape(40, 40, 1))
    let usual = try Network.size(of: network.layers, for: Shape(28, 28, 1))
    #expect(size.parameters > usual.parameters)
    #expect(try network.predict(batch.images).values == before)
    try network.train(batch, learningRate: 0.1)
    #expect(network.arrays.reduce(0) { $0 + $1.shape.reduce(1, *) } == usual.parameters)
  }

  /// The layers of a trained network in another one begin anew there, and what is done to the other
  /// one stays there.
  @Test func layersOfAnotherNetwork() throws {
    let (base, batch) = (Network(Self.layers), try batch())
    try base.train(batch, learningRate: 0.1)
    let before = (base.snapshot().sha256, try base.predict(batch.images).values)
    do {
      let head = Network(Array(base.layers.prefix(4)) + [Dense(10, activation: .softmax)])
      for _ in 0..<5 { try head.train(batch, learningRate: 0.1) }
      #expect(head.snapshot().sha256 != before.0)
    }
    #expect(base.snapshot().sha256 == before.0)
    #expect(try base.predict(batch.images).values == before.1)
  }

  /// One layer twice in a network is two layers.
  @Test func oneLayerTwice() throws {
    let layer = Dense(7)
    let network = Network([Flatten(), layer, layer, Dense(10, activation: .softmax)])
    let batch = try batch()
    try network.train(batch, learningRate: 0.1)
    #expect(
      network.arrays.map(\.name)
        == [1, 2, 3].flatMap { ["layers.\($0).weight", "layers.\($0).bias"] })
    #expect(network.arrays[0].shape == [7, 784] && network.arrays[2].shape == [7, 7])
    let written = Network([Flatten(), Dense(7), Dense(7), Dense(10, activation: .softmax)])
    try written.train(batch, learningRate: 0.1)
    #expect(written.snapshot().sha256 == network.snapshot().sha256)
  }

  /// Many networks of the same layers, each on a thread of its own, with one runtime.
  @Test func onManyThreads() async throws {
    let (runtime, batch) = (Runtime(threads: 2), try batch())
    let digests = await withTaskGroup(of: String.self) { group in
      for _ in 0..<6 {
        group.addTask {
          let network = Network(Self.layers, runtime: runtime)
          for _ in 0..<4 { _ = try? network.train(batch, learningRate: 0.05) }
          return network.snapshot().sha256
        }
      }
      return await group.reduce(into: Set()) { $0.insert($1) }
    }
    #expect(digests.count == 1)
  }

  /// One predictor, asked from many tasks while its network trains on.
  @Test func predictor() async throws {
    let (network, batch) = (Network(Self.layers), try batch(30))
    for _ in 0..<3 { try network.train(batch, learningRate: 0.05) }
    let expected = try network.predict(batch.images).values
    let (predictor, digest) = (try network.predictor(), network.snapshot().sha256)
    let answers = Task {
      await withTaskGroup(of: Bool.self) { group in
        for count in 0..<24 {
          group.addTask {
            let some = Array(batch.images.values.prefix((count % 5 + 1) * 784))
            guard
              let x = try? Tensor(batch: count % 5 + 1, shape: Shape(28, 28, 1), some),
              let found = try? predictor.predict(x).values
            else { return false }
            return found == Array(expected.prefix(found.count))
          }
        }
        return await group.reduce(true) { $0 && $1 }
      }
    }
    for _ in 0..<6 { try network.train(batch, learningRate: 0.05) }
    #expect(await answers.value)
    #expect(predictor.sha256 == digest && network.snapshot().sha256 != digest)
    #expect(try predictor.predict(batch.images).values == expected)
    #expect(throws: StrideNetError.self) {
      try predictor.predict(Tensor(batch: 1, shape: Shape(3)))
    }
    #expect(throws: StrideNetError.self) { try Network(Self.layers).predictor() }
  }

  @Test func gradientsOfATrainedNetworkAreChecked() throws {
    let (network, batch) = (Network(Self.layers, seed: 3), try batch())
    for _ in 0..<5 { try network.train(batch, learningRate: 0.05) }
    let before = network.snapshot().sha256
    // Of its layers, and of itself with its weights.
    #expect(try GradientCheck(network.layers, input: Shape(12, 12, 1)).passed)
    let check = try GradientCheck(network)
    #expect(check.passed, "\(check.rows.filter { !$0.passed })")
    #expect(network.snapshot().sha256 == before)
    // The weights are what is looked at: with weights of 0 there is no slope for x.
    for (name, shape) in network.arrays where name.hasSuffix("weight") {
      try network.setWeights(name, [Float](repeating: 0, count: shape.reduce(1, *)))
    }
    let zero = try GradientCheck(network)
    #expect(
      zero.rows.filter { $0.array == "x" && $0.name.hasPrefix("conv") }.allSatisfy { $0.slope == 0 }
    )
    #expect(throws: StrideNetError.self) { try GradientCheck(Network(Self.layers)) }
  }

  @Test(arguments: [[0, 0, 0, 3], [2, 0, 0, 0], [0, -1, 0, 0], [0, 0, 5, 0], [-1, 0, 0, 0]])
  func placesOutsideOfATensor(_ place: [Int]) async {
    await #expect(processExitsWith: .failure) { [place] in
      let tensor = Tensor(batch: 2, shape: Shape(4, 5, 3))
      print(tensor[place[0], place[1], place[2], place[3]])
    }
    await #expect(processExitsWith: .failure) { [place] in
      var tensor = Tensor(batch: 2, shape: Shape(4, 5, 3))
      tensor[place[0], place[1], place[2], place[3]] = 1
    }
    await #expect(processExitsWith: .failure) { [place] in
      var tensor = Tensor(batch: 2, shape: Shape(4, 5, 3))
      tensor.withMutableView { $0[place[3] == 3 ? 120 : -1] = 1 }
    }
  }

  /// What somebody gives is wrong: an error that says so, and nothing changed.
  @Test func errorsInsteadOfTraps() throws {
    for count in [0, 59, 61] {
      let error = #expect(throws: StrideNetError.self) {
        try Tensor(batch: 1, shape: Shape(4, 5, 3), [Float](repeating: 0, count: count))
      }
      #expect(error?.found == "\(count)" && error?.expected == "1 × 4×5×3")
    }
    #expect(throws: StrideNetError.self) { try Tensor(batch: -1, shape: Shape(-1), [1]) }
    let (network, batch) = (Network(Self.layers), try batch())
    try network.train(batch, learningRate: 0.1)
    let snapshot = network.snapshot()
    let unbuilt = Network(Self.layers)
    #expect(throws: StrideNetError.self) { try unbuilt.restore(snapshot) }
    #expect(throws: StrideNetError.self) { try unbuilt.weights("layers.0.weight") }
    #expect(throws: StrideNetError.self) { try unbuilt.copy() }
    #expect(throws: StrideNetError.self) { try unbuilt.summary() }
    let other = Network([Flatten(), Dense(10, activation: .softmax)])
    try other.build(for: Shape(28, 28, 1))
    let refusal = #expect(throws: StrideNetError.self) { try other.restore(snapshot) }
    #expect(refusal?.found?.contains("layers.0.weight 3×3×1×4") == true)
    let name = #expect(throws: StrideNetError.self) {
      try network.setWeights("layers.0.wieght", [1])
    }
    #expect(name?.expected?.contains("layers.0.weight") == true)
    #expect(throws: StrideNetError.self) { try network.setWeights("layers.0.weight", [1]) }
    #expect(network.snapshot().sha256 == snapshot.sha256)
  }

  /// A snapshot that was kept isn't changed by weights that are set.
  @Test func weightsByName() throws {
    let (network, batch) = (Network(Self.layers), try batch())
    try network.train(batch, learningRate: 0.1)
    let kept = network.snapshot()
    let old = try network.weights("layers.4.bias")
    try network.setWeights("layers.4.bias", old.map { $0 + 1 })
    #expect(try network.weights("layers.4.bias") == old.map { $0 + 1 })
    #expect(kept.arrays.first { $0.name == "layers.4.bias" }?.values == old)
    #expect(try network.gradient("layers.4.bias").contains { $0 != 0 })
    let copy = try network.copy()
    try network.restore(kept)
    #expect(try copy.weights("layers.4.bias") == old.map { $0 + 1 })
    let before = copy.snapshot().sha256
    try network.train(batch, learningRate: 0.1)
    #expect(copy.snapshot().sha256 == before)
  }

  /// What is counted for a network is what the trace of its layers counts.
  @Test(arguments: [
    "conv(32,3) maxpool(2) flatten relu(100) softmax(10)",
    "conv(8,3) conv(8,3,groups=8) conv(12,3,groups=4,dilation=2) globalavgpool softmax(10)",
    "residual(conv(16,3,padding=1) conv(1,3,padding=1,activation=none)) flatten softmax(10)",
    "conv(4,3,padding=1) residual(residual(conv(4,3,padding=1)) | conv(4,1)) flatten softmax(10)",
  ]) func operationsAreCounted(_ text: String) throws {
    let network = Network(try Architecture.layers(text))
    let batch = try batch(2)
    let trace = try network.trace(batch.images)
    // A residual's trace has the additions of its sum beside.
    let sum = trace.layers.reduce(0) { $0 + $1.operations } / 2
    let found = network.operations(training: false)
    #expect(abs(found - sum) <= 0.01 * sum, "\(found), \(sum)")
    let summary = try NetworkSummary(network.layers, input: batch.images.shape)
    #expect(summary.operations == found && summary.parameters == network.parameterCount)
    #expect("\(summary)".split(separator: "\n").allSatisfy { $0.count <= 80 })
    // Each product has one for each gradient, but below the first weights.
    let training = network.operations(training: true)
    #expect(training > 2 * found && training < 3 * found)
  }

  /// The loss that a network is trained with is the one that is measured and named.
  @Test func theLossByItsName() throws {
    let network = Network([Flatten(), Dense(10, activation: .softmax)])
    network.loss = .meanSquaredError
    try network.build(for: Shape(28, 28, 1))
    network.timePasses()
    try network.train(try batch(), learningRate: 0.1)
    let explanation = try #require(
      network.explanation(
        .init(
          threads: 1, gigaflopsPerSecond: 100, memoryRead: 10, memoryCopy: 10, cacheCopy: 10)))
    #expect(explanation.rows.contains { $0.kernel.hasPrefix("squared_error") })
    #expect(!explanation.rows.contains { $0.kernel == "softmax_cross_entropy" })
  }

  /// Run once more, a trainer goes on.
  @Test func aTrainerGoesOn() throws {
    let data = try ResumeTests.data()
    var settings = TrainingSettings()
    (settings.epochs, settings.batchSize, settings.learningRate) = (2, 50, 0.05)
    let trainer = try Trainer(
      Network(try Architecture.layers("flatten relu(20) softmax(10)")), data, settings)
    var rates: [Float] = []
    trainer.onBatch = { rates.append($0.learningRate) }
    try trainer.run()
    let (steps, once) = (rates.count, trainer.network.snapshot().sha256)
    try trainer.run()
    #expect(trainer.results.map(\.epoch) == [1, 2, 3, 4])
    #expect(trainer.network.snapshot().sha256 != once && trainer.network.stepCount == 2 * steps)
    #expect(Array(rates[..<steps]) == Array(rates[steps...]))
    #expect(trainer.results[3].testCCE < trainer.results[1].testCCE)
  }
}
