import StrideNet  // not @testable: the article's examples may use what is public alone
import Testing

/// Watching a training: callbacks, and a sequence of what happens.
@Suite struct TrainerEventsTests {
  private static func trainer(epochs: Int) throws -> Trainer {
    let sample = try Dataset.load("sample").limited(to: 330)
    let network = Network([Conv2D(4, 5, stride: 4), Flatten(), Dense(10, activation: .softmax)])
    var settings = TrainingSettings()
    settings.epochs = epochs
    settings.learningRate = 0.1
    return try Trainer(network, train: sample.train, test: sample.train, settings)
  }

  @Test func everyCallbackIsCalledInOrder() throws {
    let trainer = try Self.trainer(epochs: 2)
    var calls: [String] = []
    trainer.onBatch { if $0.batch == $0.batches { calls.append("a\($0.epoch)") } }
    trainer.onBatch { if $0.batch == $0.batches { calls.append("b\($0.epoch)") } }
    trainer.onEpoch { calls.append("c\($0.epoch)") }
    trainer.onEpoch { calls.append("d\($0.epoch)") }
    try trainer.run()
    #expect(calls == ["a1", "b1", "c1", "d1", "a2", "b2", "c2", "d2"])
  }

  /// All that happens, in order, and the same training as without anybody watching.
  @Test func everythingIsSeen() async throws {
    let (trainer, other) = (try Self.trainer(epochs: 2), try Self.trainer(epochs: 2))
    try other.run()
    var called = 0
    trainer.onEpoch { _ in called += 1 }
    var seen: [String] = []
    for try await event in trainer.events() {
      switch event {
      case .batch(let progress): seen.append("\(progress.epoch).\(progress.batch)")
      case .epoch(let result): seen.append("epoch \(result.epoch)")
      case .end(let end):
        guard case .finished = end else { Issue.record("\(end)"); continue }
        seen.append("finished")
      }
    }
    let batches = (1...2).map { epoch in (1...6).map { "\(epoch).\($0)" } + ["epoch \(epoch)"] }
    #expect(seen == batches.flatMap { $0 } + ["finished"])
    #expect(called == 2)
    #expect(trainer.network.snapshot().sha256 == other.network.snapshot().sha256)
    // The sequence's own callbacks have gone with it.
    try trainer.run()
    #expect(called == 4 && trainer.results.count == 4)
  }

  /// Behind the loop the training has stopped, and trainer and network can be used again.
  @Test func leavingStops() async throws {
    let trainer = try Self.trainer(epochs: 1_000_000_000)
    for try await event in trainer.events() {
      guard case .epoch(let result) = event else { continue }
      print(result.epoch, result.testCE)
      if result.testCE < 0.1 { break }
    }
    // It waited for who was behind.
    let epochs = trainer.results.count
    #expect(epochs < 200 && trainer.results.contains { $0.testCE < 0.1 })
    let weights = trainer.network.snapshot().sha256
    #expect(try trainer.network.evaluate(trainer.train).ce < 0.2)
    try await Task.sleep(for: .milliseconds(50))
    #expect(trainer.results.count == epochs && trainer.network.snapshot().sha256 == weights)
    // It goes on when asked to.
    trainer.shouldStop = { trainer.results.count == epochs + 2 }
    try trainer.run()
    #expect(trainer.results.count == epochs + 2)
  }

  @Test func divergenceEndsIt() async throws {
    let sample = try Dataset.load("sample").limited(to: 64)
    let network = Network([
      Flatten(), Dense(20, activation: .relu), Dense(10, activation: .softmax),
    ])
    var settings = TrainingSettings()
    settings.learningRate = 1e30
    settings.optimizer = Optimizer(.sgd, momentum: 0)
    settings.epochs = 50
    let trainer = try Trainer(network, train: sample.train, test: sample.train, settings)
    var last: Trainer.Event?
    for try await event in trainer.events() { last = event }
    guard case .end(.diverged) = last else { Issue.record("\(String(describing: last))"); return }
  }
}
