import StrideNet  // not @testable: the article's examples may use what is public alone
import Testing

/// Sharing's actor.
actor Learner {
  private let network: Network

  init(_ layers: [any Layer]) { network = Network(layers) }

  func learn(_ batch: Batch) throws -> Float {
    try network.train(batch, learningRate: 0.05).cce
  }

  func predictor() throws -> Predictor { try network.predictor() }
}

/// The examples of the article on tasks, threads and actors.
@Suite struct SharingTests {
  private static let layers: [any Layer] = [
    Conv2D(4, 3, stride: 2), BatchNorm(), Flatten(), Dense(10, activation: .softmax),
  ]

  private static func batches() throws -> [Batch] {
    let sample = try Dataset.load("sample").train
    return (0..<6).map { sample.batch($0 * 20..<$0 * 20 + 20) }
  }

  @Test func asking() async throws {
    let (network, batches) = (Network(Self.layers), try Self.batches())
    for batch in batches { try network.train(batch, learningRate: 0.05) }
    let sample = try Dataset.load("sample").test
    let images = (0..<12).map { sample.batch([$0]).images }

    let predictor = try network.predictor()
    let answers = try await withThrowingTaskGroup(of: (Int, [Float]).self) { group in
      for (index, image) in images.enumerated() {
        group.addTask { (index, try predictor.predict(image).values) }
      }
      return try await group.reduce(into: [:]) { $0[$1.0] = $1.1 }
    }

    for (index, image) in images.enumerated() {
      #expect(try answers[index] == network.predict(image).values)
    }
  }

  @Test func anActorLearns() async throws {
    let (learner, batches) = (Learner(Self.layers), try Self.batches())
    var losses: [Float] = []
    for batch in batches { losses.append(try await learner.learn(batch)) }
    let before = try await learner.predictor()
    let image = batches[0].images
    let answer = try before.predict(image).values
    for batch in batches { losses.append(try await learner.learn(batch)) }
    #expect(losses.last! < losses[0])
    #expect(try before.predict(image).values == answer)
    #expect(try await learner.predictor().predict(image).values != answer)
  }

  @Test func severalNetworks() async throws {
    let (layers, batches) = (Self.layers, try Self.batches())
    let digests = await withTaskGroup(of: String.self) { group in
      for seed in 1...3 {
        group.addTask {
          let network = Network(layers, seed: UInt64(seed), runtime: Runtime(threads: 1))
          for batch in batches { _ = try? network.train(batch, learningRate: 0.05) }
          return network.snapshot().sha256
        }
      }
      return await group.reduce(into: Set()) { $0.insert($1) }
    }
    #expect(digests.count == 3)
    let alone = Network(layers, seed: 2)
    for batch in batches { try alone.train(batch, learningRate: 0.05) }
    #expect(digests.contains(alone.snapshot().sha256))
  }
}
