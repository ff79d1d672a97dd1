import Foundation
import Testing

import StrideNet
@testable import StrideNetCore

/// What must hold at sizes and in orders that nobody chose.
@Suite struct AnySizeTests {
  static let texts = [
    "conv(3,3) batchnorm(activation=relu) layernorm flatten relu(9) softmax(10)",
    "conv(4,3,activation=none) batchnorm(activation=relu) maxpool(2) residual(conv(4,3,padding=1) "
      + "layernorm) flatten softmax(10)",
  ]

  private static func network(_ text: String, threads: Int = 2, seed: UInt64 = 3) throws -> Network
  {
    Network(try Architecture.layers(text), seed: seed, runtime: Runtime(threads: threads))
  }

  private static func batch(_ count: Int, from first: Int = 0) throws -> Batch {
    let train = try NetworkTests.sample.get().train
    return train.batch(first..<first + count)
  }

  /// Mini-batches are cut into different pieces. What one has left in memory is nothing to the next.
  @Test(
    arguments: texts,
    [[70, 60], [33, 32, 17], [17, 16], [300, 1, 225, 2, 15], [5, 4, 3, 2, 1]])
  func anyOrderOfBatchSizes(text: String, sizes: [Int]) throws {
    let network = try Self.network(text)
    for (step, size) in sizes.enumerated() {
      let batch = try Self.batch(size, from: 7 * step)
      let fresh = try Self.network(text)
      for network in [network, fresh] { try network.build(for: batch.images.shape) }
      if step > 0 { try fresh.restore(network.snapshot()) }
      try network.restore(fresh.snapshot())  // momentum anew in both
      let found = try network.train(batch, learningRate: 0.05)
      let expected = try fresh.train(batch, learningRate: 0.05)
      #expect(found.layers.sha256 == expected.layers.sha256 && found.cce == expected.cce)
      let (one, other) = (
        try network.evaluate(batch.images, batch.labels),
        try fresh.evaluate(batch.images, batch.labels)
      )
      #expect(one.output.values == other.output.values && one.cce == other.cce)
    }
  }

  @Test(arguments: [1, 4]) func roomForEverySmallerBatch(fewest: Int) {
    let node = ImageNode()
    node.fewestImages = fewest
    var needed = 0
    for most in 1...1030 {
      needed = max(needed, node.pieces(most))
      #expect(node.mostPieces(upTo: most, Runtime(threads: 1)) == needed && needed <= 16, "\(most)")
      // Nothing is left out, and a piece lies within a leaf of the tree.
      let share = BatchShare(most)
      #expect(share.examples == 0..<most && share.pieces(of: needed) == 0..<needed)
      #expect(needed % share.leaves.count == 0)
      #expect((0..<needed).map { share.examples($0, of: needed).count }.reduce(0, +) == most)
    }
  }

  /// Where nothing is trained, batch normalisation takes the running statistics, wherever it stands;
  /// nothing is written, and an image's output doesn't depend on its neighbours.
  @Test(arguments: [
    "conv(8,3,activation=none) dropout(0.2) batchnorm(activation=relu) maxpool(2) flatten softmax(10)",
    "conv(4,3,activation=none) batchnorm batchnorm(activation=relu) conv(4,3) flatten softmax(10)",
    "conv(4,3,activation=none) dropout(0.5) batchnorm conv(3,3,activation=none) batchnorm "
      + "batchnorm(activation=gelu) flatten softmax(10)",
    "conv(4,3) residual(conv(4,3,padding=1,activation=none) dropout(0.3) batchnorm(activation=relu) "
      + "conv(4,3,padding=1,activation=none) batchnorm) maxpool(2) flatten softmax(10)",
    "batchnorm conv(4,3,activation=none) dropout(0.1) batchnorm maxpool(3) flatten batchnorm "
      + "softmax(10)",
  ])
  func inferenceWritesNothing(text: String) throws {
    let network = try Self.network(text)
    for step in 0..<3 { try network.train(try Self.batch(24, from: 24 * step), learningRate: 0.05) }
    let before = network.snapshot().sha256
    let batch = try Self.batch(40, from: 100)
    let together = try network.evaluate(batch.images, batch.labels).output
    #expect(network.snapshot().sha256 == before)
    let classes = 10
    for image in [0, 17, 39] {
      let alone = try network.predict(try Self.batch(1, from: 100 + image).images)
      #expect(
        alone.values == Array(together.values[image * classes..<(image + 1) * classes]), "\(image)")
    }
    #expect(try network.predict(batch.images).values == together.values)
    #expect(network.snapshot().sha256 == before)
    // By the layers one by one, which know nothing of each other.
    let trace = try network.trace(batch.images)
    expectClose(together.values, trace.output.values, within: 1e-4, "beside layers alone")
  }

  /// A trace with labels is of training; where a residual's numbers come from is asked of inference.
  @Test func aResidualsSidesAfterATrainingTrace() throws {
    let network = try Self.network(
      "conv(2,3) residual(conv(2,3,padding=1,activation=none) batchnorm) flatten softmax(10)")
    let batch = try Self.batch(2)
    let trace = try network.trace(batch)
    let provenance = try network.provenance(
      in: trace, layer: 2, at: .init(1, 1, 0))
    #expect(provenance.terms.count == 2)
  }

  // MARK: Threads

  /// Networks on different threads may share a runtime.
  @Test(arguments: [1, 2]) func aSharedRuntime(threads: Int) throws {
    struct Trained: @unchecked Sendable {
      // Sendable because each is on one thread.
      let network: Network
      let batches: [Batch]

      func run() { for batch in batches { _ = try! network.train(batch, learningRate: 0.05) } }
    }
    func trained(_ runtime: Runtime) throws -> [Trained] {
      try Self.texts.enumerated().map { index, text in
        Trained(
          network: Network(try Architecture.layers(text), seed: UInt64(index), runtime: runtime),
          batches: try (0..<6).map { try Self.batch(1 + 13 * $0, from: 40 * $0) })
      }
    }
    let shared = try trained(Runtime(threads: threads))
    DispatchQueue.concurrentPerform(iterations: shared.count) { shared[$0].run() }
    for (one, alone) in zip(shared, try trained(Runtime(threads: threads))) {
      alone.run()
      #expect(one.network.snapshot().sha256 == alone.network.snapshot().sha256)
    }
  }

  /// One network on two threads ends the program rather than giving wrong numbers.
  @Test func aNetworkIsForOneThread() async {
    await #expect(processExitsWith: .failure) {
      struct Shared: @unchecked Sendable { let network: Network }
      let shared = Shared(
        network: try Network(
          Architecture.layers("conv(8,3) flatten relu(200) softmax(10)"),
          runtime: Runtime(threads: 1)))
      let images = Tensor(batch: 128, shape: Shape(28, 28, 1))
      _ = try shared.network.predict(images)
      DispatchQueue.concurrentPerform(iterations: 64) { _ in
        _ = try! shared.network.predict(images)
      }
    }
  }

  @Test func workDoesNotCallTheRuntime() async {
    await #expect(processExitsWith: .failure) {
      let runtime = Runtime(threads: 2)
      runtime.parallel(over: 4, runtime) { runtime, _, _ in
        runtime.parallel(over: 4, 0) { _, _, _ in }
      }
    }
  }

  /// A system that gives no more threads: the work is done by those there are.
  @Test func threadsThatCannotStart() throws {
    let runtime = Runtime(threads: 4, kernels: nil, fusing: true, stackSize: 1 << 50)
    #expect(runtime.start() == 3 && runtime.threads == 1)
    let network = Network(try Architecture.layers(Self.texts[0]), seed: 3, runtime: runtime)
    let batch = try Self.batch(20)
    let found = try network.train(batch, learningRate: 0.05).layers.sha256
    let usual = try Self.network(Self.texts[0]).train(batch, learningRate: 0.05).layers.sha256
    #expect(found == usual)
  }

  // MARK: The system

  private static func limits(_ files: [String: String]) throws -> (TemporaryFolder, SystemLimits) {
    let folder = try TemporaryFolder()
    for (name, text) in files {
      let url = URL(filePath: "\(folder.path)/\(name)")
      try FileManager.default.createDirectory(
        at: url.deletingLastPathComponent(), withIntermediateDirectories: true)
      try text.write(to: url, atomically: false, encoding: .utf8)
    }
    var limits = SystemLimits()
    limits.process = folder.path
    limits.memoryInfo = "\(folder.path)/meminfo"
    limits.controlGroups = "\(folder.path)/groups"
    limits.processors = 8
    return (folder, limits)
  }

  /// The least that any of the groups around the process allows.
  @Test(arguments: [
    (["cgroup": "0::/a/b\n", "groups/a/b/cpu.max": "150000 100000\n"], 2),
    (
      [
        "cgroup": "0::/a/b\n", "groups/a/b/cpu.max": "max 100000\n",
        "groups/a/cpu.max": "50000 100000\n",
      ], 1
    ),
    (["cgroup": "0::/\n", "groups/cpu.max": "300000 100000\n"], 3),
    (["cgroup": "0::/a\n", "groups/a/cpu.max": "99900000 100000\n"], 8),
    (["cgroup": "0::/a\n", "groups/a/cpu.max": "nonsense\n"], 8),
    (["cgroup": "4:cpu:/a\n"], 8), ([:], 8),
  ])
  func threadsOfAControlGroup(files: [String: String], expected: Int) throws {
    let (folder, limits) = try Self.limits(files)
    defer { withExtendedLifetime(folder) {} }
    #expect(limits.threads == expected)
  }

  @Test func memoryOfAControlGroup() throws {
    let info = "MemTotal: 16 kB\nMemAvailable:   2000 kB\n"
    for (files, expected) in [
      (["meminfo": info], 2_048_000), ([:], Int?.none),
      (
        [
          "meminfo": info, "cgroup": "0::/a/b\n", "groups/a/b/memory.max": "max\n",
          "groups/a/memory.max": "1000000\n", "groups/a/memory.current": "700000\n",
          "groups/a/memory.stat": "anon 5\ninactive_file 200000\n",
        ], 500_000
      ),
    ] {
      let (folder, limits) = try Self.limits(files)
      defer { withExtendedLifetime(folder) {} }
      #expect(limits.availableMemory == expected)
    }
    #expect(SystemLimits().threads >= 1)
  }

  /// What doesn't fit is refused before memory is taken, with both numbers; and so is what no number
  /// of bytes can say.
  @Test func moreMemoryThanThereIs() throws {
    let (folder, limits) = try Self.limits(["meminfo": "MemAvailable: 1000000 kB"])
    defer { withExtendedLifetime(folder) {} }
    var need = MemoryNeed()
    need.add(100_000_000, for: "a little")
    try need.require(limits)
    need.add(1 << 31, times: 1 << 31, for: "too much")
    let error = #expect(throws: StrideNetError.self) { try need.require(limits) }
    #expect(error?.place == "too much" && error?.found?.contains("1.0 GB available") == true)
    #expect(throws: StrideNetError.self) { try FloatStorage(count: 1 << 45) }
    #expect(throws: StrideNetError.self) { try FloatStorage(count: Int.max) }

    let place = try Workplace()
    for arguments in [
      ["train", "--layers", "conv(2000000,1) globalavgpool softmax(10)", "--batch-size", "64"],
      ["train", "--layers", "flatten relu(16000000) relu(130) relu(16000000) softmax(10)"],
    ] {
      let end = try place.run(arguments + ["--data", "digits", "--epochs", "1"])
      #expect(end.code == 65 && !end.wasKilled, "\(end.err)")
      #expect(end.err.contains("GB needed") && end.err.contains("available"), "\(end.err)")
    }
  }

  // MARK: Networks of few words

  @Test func layersThatComputeNothing() throws {
    let place = try Workplace()
    let end = try place.run(
      "train", "--layers", "flatten", "--loss", "mean_squared_error", "--data", "digits")
    #expect(end.code == 65 && !end.wasKilled && end.err.contains("computes nothing"), "\(end.err)")
  }

  /// A network that was trained by the squared error is evaluated by it, from its file alone.
  @Test(arguments: ["flatten dense(10)", "flatten softmax(10)", "flatten sigmoid(10)"])
  func theLossIsSaved(layers: String) throws {
    let place = try Workplace()
    let trained = try place.run(
      "train", "--layers", layers, "--loss", "mean_squared_error", "--data", "digits", "--epochs",
      "1", "--batch-size", "8", "--learning-rate", "0.01", "--save", "w", "--json")
    #expect(trained.code == 0, "\(trained.err)")
    let loss = trained.json.first { $0["event"] as? String == "epoch" }?["test_cce"] as? Double
    let evaluated = try place.run("evaluate", "w", "--data", "digits", "--json")
    #expect(evaluated.code == 0, "\(evaluated.err)")
    let again = evaluated.json.first?["test_cce"] as? Double
    #expect(loss != nil && loss == again)
    let shown = try place.run("evaluate", "w", "--data", "digits").out
    #expect(shown.contains("test mean squared error"))
  }

  /// vgg begins with small steps: at the full rate some seeds never learn.
  @Test func presetsHaveTheirSchedules() throws {
    let place = try Workplace()
    for (model, schedule) in [("vgg", "warmup:0.5,linear"), ("cnn", "linear")] {
      let end = try place.run(
        "train", model, "--data", "digits", "--limit", "8", "--epochs", "1", "--batch-size", "8",
        "--write-config", model)
      #expect(end.code == 0, "\(end.err)")
      let text = try String(contentsOfFile: "\(place.path)/\(model)", encoding: .utf8)
      #expect(text.contains("\"\(schedule)\""), "\(text)")
    }
  }
}
