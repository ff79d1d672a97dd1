import AllocationCounter
import Foundation
import Testing

import StrideNet

/// Products of bf16. What its kernels compute is checked in C; here, what networks make of it.
@Suite struct PrecisionTests {
  static let networks = [
    Architecture.presets[0].text, Architecture.presets[2].text,
    "conv(8,5,padding=2) maxpool(2) conv(17,5,stride=2) conv(20,3) flatten softmax(10)",
    "conv(16,3,padding=same) conv(16,3,dilation=2,padding=same) maxpool(2) "
      + "conv(24,3,groups=2,stride=2) conv(24,3,groups=24) conv(8,3,padding=1) flatten softmax(10)",
    "conv(17,5,stride=2,activation=none) batchnorm(activation=relu) "
      + "residual(conv(17,3,padding=1) conv(17,3,padding=1,activation=none)) activation(relu) "
      + "conv(20,3,activation=none) layernorm flatten relu(33) dropout(0.2) softmax(10)",
  ]

  static func network(
    _ text: String, _ precision: Precision = .bf16, threads: Int = 2, fusing: Bool = true
  ) throws -> Network {
    _ = testedInstructionSet
    return Network(
      try Architecture.layers(text),
      runtime: Runtime(threads: threads, precision: precision, fusing: fusing))
  }

  /// Noise, and labels that can't be learned from it.
  static func noise(_ count: Int, _ shape: Shape, _ salt: Int) throws -> Batch {
    Batch(
      images: try Tensor(batch: count, shape: shape, values(count * shape.count, salt)),
      labels: (0..<count).map { Int32($0 * 7 % 10) })
  }

  static let ways: [(threads: Int, fusing: Bool)] = [
    (1, true), (2, true), (3, true), (8, true), (2, false), (3, false),
  ]

  /// Losses, weights and a prediction after some steps.
  static func outcome(_ network: Network, _ batches: [Batch]) throws -> String {
    let losses = try batches.map { try network.train($0, learningRate: 0.02, momentum: 0.9).cce }
    let predicted = try network.predict(batches[0].images).values.map(\.bitPattern)
    return "\(losses) \(network.snapshot().sha256) \(predicted)"
  }

  @Test(arguments: networks) func sameForAnyThreadsFusedOrNot(text: String) throws {
    let batches = try NetworkTests.batches(3, of: KernelChoice.isDebugBuild ? 11 : 37)
    let outcomes = try Self.ways.map {
      try Self.outcome(
        Self.network(text, threads: $0.threads, fusing: $0.fusing), batches)
    }
    #expect(Set(outcomes).count == 1, "\(outcomes.map { $0.prefix(120) })")
    let other = try Self.outcome(Self.network(text, .float32), batches)
    #expect(outcomes[0] != other, "that was float32")
  }

  /// Sizes that fill no vector, no tile and no piece of work.
  @Test(arguments: [1, 3, 17], [3, 5]) func oddSizes(channels: Int, window: Int) throws {
    let shape = Shape(13, 9, channels)
    let text =
      "conv(\(channels),\(window),padding=\(window / 2)) conv(17,3,stride=2,padding=1) "
      + "maxpool(2) conv(3,\(window),padding=same) flatten relu(7) softmax(10)"
    let sizes = KernelChoice.isDebugBuild ? [19, 7, 1] : [70, 37, 1]
    let batches = try sizes.map { try Self.noise($0, shape, $0) }
    let outcomes = try Self.ways.map {
      try Self.outcome(
        Self.network(text, threads: $0.threads, fusing: $0.fusing), batches)
    }
    #expect(Set(outcomes).count == 1)
  }

  /// Rounded to 8 bits a factor is off by 2⁻⁹ of itself at most, a product of two by 2⁻⁸, and by
  /// 0.2 % on average. The errors of a sum's products are independent, so the sum is off by no larger
  /// a share of its size; those of up to eight layers, forward and back, add as squares do: some 1 %
  /// of a step. Steps are small enough here not to make more of it than 5 % of the loss.
  @Test(arguments: networks) func curvesAreNearFloat32s(text: String) throws {
    let batches = try NetworkTests.batches(20, of: 16)
    let curves = try [Precision.bf16, .float32].map { precision in
      let network = try Self.network(text, precision)
      return try batches.map { try network.train($0, learningRate: 0.005).cce }
    }
    var worst: Float = 0
    for (rounded, exact) in zip(curves[0], curves[1]) {
      worst = max(worst, abs(rounded - exact) / max(exact, 0.5))
    }
    #expect(worst <= 0.05 && worst > 0, "\(worst): \(curves)")
    let (first, last) = (curves[0].prefix(5).reduce(0, +), curves[0].suffix(5).reduce(0, +))
    #expect(last < first, "\(curves[0])")
  }

  /// By the same share of a step, with a momentum that sums ten steps whose errors are independent,
  /// some 1 %: the bound is 2 %. The loss of cnn leaps up from step 13 on, where a float32 that began
  /// a little aside differs as well: 12 % are left to what that makes of it, and 4 images of a batch.
  @Test(arguments: ["cnn", "flat"]) func pyTorch(model: String) throws {
    _ = testedInstructionSet
    try NetworkTests.expectPyTorch(
      model, Runtime(threads: 2, precision: .bf16), misclassified: 4
    ) { model == "cnn" && $0 > 12 ? 0.12 : 0.02 }
  }

  @Test(arguments: networks) func aBatchIsItsImages(text: String) throws {
    let batches = try NetworkTests.batches(2, of: KernelChoice.isDebugBuild ? 9 : 70)
    let network = try Self.network(text)
    try network.train(batches[0], learningRate: 0.02)
    let images = batches[1].images
    let together = try network.predict(images).values
    let size = images.shape.count
    for n in 0..<images.batch {
      let one = try Tensor(
        batch: 1, shape: images.shape, Array(images.values[n * size..<(n + 1) * size]))
      #expect(
        try network.predict(one).values.elementsEqual(together[n * 10..<(n + 1) * 10]),
        "image \(n)")
    }
    let evaluated = try network.evaluate(images, batches[1].labels)
    #expect(evaluated.output.values == together)
    #expect(try network.copy().predict(images).values == together)
    #expect(try network.predictor().predict(images).values == together)
  }

  /// What is no number comes out as none, or is refused; nothing else is touched.
  @Test(arguments: networks, [Float.nan, .infinity, -.infinity, .greatestFiniteMagnitude])
  func whatIsNoNumber(text: String, value: Float) throws {
    let network = try Self.network(text)
    let whole = try NetworkTests.batches(1, of: 5)[0]
    let expected = try network.predict(whole.images).values
    var images = whole.images
    images[2 * images.shape.count + 14 * 28 + 14] = value
    let predicted = try network.predict(images).values
    #expect(predicted[20..<30].contains { !$0.isFinite } || value.isFinite)
    for n in [0, 1, 3, 4] {
      #expect(predicted[n * 10..<(n + 1) * 10] == expected[n * 10..<(n + 1) * 10], "image \(n)")
    }
    let cce = try? network.train(Batch(images: images, labels: whole.labels), learningRate: 0.1).cce
    #expect(cce?.isFinite != true || value.isFinite)
  }

  /// A step after the first allocates nothing.
  @Test(
    .enabled(
      if: allocation_count() >= 0 && !KernelChoice.isDebugBuild,
      "allocations are counted in release builds on glibc"),
    arguments: networks)
  func stepsAllocateNothing(text: String) throws {
    let batch = try NetworkTests.batches(1, of: 32)[0]
    let network = try Self.network(text)
    func allocations(_ steps: Int) throws -> Int {
      let before = allocation_count()
      for _ in 0..<steps { try network.train(batch, learningRate: 0.01, momentum: 0.9) }
      return allocation_count() - before
    }
    _ = try allocations(2)
    let most = try (0..<10).map { _ in try allocations(3) }.max()!
    #expect(most == 0, "\(most) allocations in three steps")
  }

  @Test func whatIsChosen() throws {
    #expect(Runtime().kernels.precision == .float32)
    let network = Network(precision: .bf16) {
      Flatten()
      Dense(10, activation: .softmax)
    }
    #expect(network.runtime.kernels.precision == .bf16)
    #expect(network.runtime.kernels.name == KernelChoice.bound.name)
    #expect("\(network.runtime.kernels)" == "bf16 by \(KernelChoice.bf16Unit)")
    #expect(!KernelChoice.names.contains("bf16"))
    #expect(throws: StrideNetError.self) { try KernelChoice(named: "bf16") }
    let error = #expect(throws: StrideNetError.self) {
      try KernelChoice.select(bf16Unit: "tensor_core")
    }
    #expect(error?.found == "'tensor_core'" && error?.expected?.contains("emulated") == true)
  }
}
