import Foundation
import Testing

import StrideNet

/// Normalisation, dropout, residual connections and the losses against PyTorch and what they promise.
@Suite struct NormalizationTests {
  struct Expected: Decodable {
    struct Case: Decodable {
      let n, h, w, c: Int
      let relu: Bool?
      let y, dx, dw, db: [Float]
      let mean, variance, eval: [Float]?
    }
    struct LossCase: Decodable {
      let n, classes: Int
      let smoothing: Float
      let squared: Bool
      let losses, dlogits: [Float]
    }
    struct Run: Decodable {
      let text: String
      let losses: [Double]
      let eval: Double
    }
    let batch, layer: [Case]
    let losses: [LossCase]
    let network: Run
  }

  /// A layer's passes on the inputs that the stored cases were made of.
  private func run(_ c: Expected.Case, _ layer: any Layer) throws -> (
    y: [Float], dx: [Float], network: Network,
    again: (_ training: Bool, _ scale: Float) throws -> [Float]
  ) {
    let shape = Shape(c.h, c.w, c.c)
    let layer = try LayerUnit(layer, shape, batch: c.n, runtime: Runtime(threads: 2))
    let network = layer.network
    try network.setWeights("layers.0.weight", values(c.c, 2).map { 1 + $0 })
    try network.setWeights("layers.0.bias", values(c.c, 3))
    let count = c.n * shape.count
    func view(_ memory: Guarded<Float>) -> TensorView {
      TensorView(memory.pointer, batch: c.n, shape: shape)
    }
    let input = values(count, 1).map { 3 * $0 + 1 }
    func forward(_ training: Bool, _ x: Guarded<Float>) throws -> Guarded<Float> {
      let y = Guarded<Float>(count)
      try layer.forward(view(x), view(y), training: training)
      #expect(y.guardsHold && x.guardsHold)
      return y
    }
    let x = Guarded(input)
    let y = try forward(true, x)
    let (dy, dx) = (Guarded(values(count, 4)), Guarded<Float>(count))
    layer.backward(view(x), view(y), view(dy), view(dx))
    #expect(dy.guardsHold && dx.guardsHold)
    return (
      y.values, dx.values, network,
      { training, scale in try forward(training, Guarded(input.map { scale * $0 })).values }
    )
  }

  @Test func batchNormPyTorch() throws {
    _ = testedInstructionSet
    let cases = try expectations(Expected.self, "normalization.json").batch
    #expect(cases.count >= 8)
    for c in cases {
      let layer = BatchNorm(activation: c.relu! ? .relu : .none)
      let (y, dx, network, again) = try run(c, layer)
      let name = "\(c.n)×\(c.h)×\(c.w)×\(c.c), ReLU \(c.relu!)"
      expectClose(y, c.y, within: 2e-6, "\(name) y")
      expectClose(dx, c.dx, within: 2e-6, "\(name) dx")
      let gradient = network.lastGradient
      expectClose(Array(gradient.prefix(c.c)), c.dw, within: 5e-6, "\(name) dw")
      expectClose(Array(gradient[c.c..<2 * c.c]), c.db, within: 5e-6, "\(name) db")
      _ = try again(true, 2)
      let weights = network.snapshot().values
      expectClose(Array(weights[2 * c.c..<3 * c.c]), c.mean!, within: 2e-6, "\(name) mean")
      expectClose(Array(weights.suffix(c.c)), c.variance!, within: 5e-6, "\(name) variance")
      expectClose(try again(false, 1), c.eval!, within: 5e-6, "\(name) eval")
    }
  }

  @Test func layerNormPyTorch() throws {
    let cases = try expectations(Expected.self, "normalization.json").layer
    #expect(cases.count >= 3)
    for c in cases {
      let (y, dx, network, _) = try run(c, LayerNorm())
      let name = "\(c.n)×\(c.h)×\(c.w)×\(c.c)"
      expectClose(y, c.y, within: 2e-6, "\(name) y")
      expectClose(dx, c.dx, within: 2e-6, "\(name) dx")
      let gradient = network.lastGradient
      expectClose(Array(gradient.prefix(c.c)), c.dw, within: 5e-6, "\(name) dw")
      expectClose(Array(gradient.suffix(c.c)), c.db, within: 5e-6, "\(name) db")
    }
  }

  /// Means far from zero mustn't cost the variance its digits.
  @Test func largeMeansKeepTheVariance() throws {
    let shape = Shape(8, 8, 3)
    let layer = try LayerUnit(BatchNorm(), shape, batch: 4, runtime: Runtime(threads: 1))
    let x = Guarded(values(4 * shape.count, 1).map { 1000 + $0 })
    let y = Guarded<Float>(x.count)
    try layer.forward(
      TensorView(x.pointer, batch: 4, shape: shape), TensorView(y.pointer, batch: 4, shape: shape))
    for c in 0..<3 {
      let channel = stride(from: c, to: y.count, by: 3).map { Double(y.values[$0]) }
      let mean = channel.reduce(0, +) / Double(channel.count)
      let variance = channel.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Double(channel.count)
      #expect(abs(mean) < 1e-3 && abs(variance - 1) < 2e-3, "mean \(mean), variance \(variance)")
    }
  }

  @Test func lossesPyTorch() throws {
    for c in try expectations(Expected.self, "normalization.json").losses {
      let loss = c.squared ? Loss.meanSquaredError : .crossEntropy(labelSmoothing: c.smoothing)
      let logits = Guarded(values(c.n * c.classes, 1).map { 4 * $0 })
      let (gradient, losses) = (Guarded<Float>(c.n * c.classes), Guarded<Float>(c.n))
      let wrong = Guarded<Int32>(c.n)
      let labels = (0..<c.n).map { Int32(7 * $0 % c.classes) }
      labels.withUnsafeBufferPointer {
        loss.compute(
          LossBatch(
            output: TensorView(logits.pointer, batch: c.n, shape: Shape(c.classes)),
            gradient: gradient.pointer, loss: losses.pointer, wrong: wrong.pointer),
          .labels($0.baseAddress!), endsInSoftmax: true)
      }
      #expect(gradient.guardsHold && losses.guardsHold && wrong.guardsHold && logits.guardsHold)
      expectClose(losses.values, c.losses, within: 2e-6, "\(loss) losses")
      expectClose(gradient.values, c.dlogits, within: 1e-6, "\(loss) gradient")
    }
    for smoothing in [-0.1, 1, Float.nan] {
      #expect(throws: StrideNetError.self) {
        try Loss.crossEntropy(labelSmoothing: smoothing).check()
      }
    }
  }

  /// A network without softmax learns from the mean squared error alone.
  @Test func meanSquaredErrorNeedsNoSoftmax() throws {
    let network = Network([Flatten(), Dense(30), Dense(10, activation: .none)])
    let batches = try NetworkTests.batches(20, of: 32)
    #expect(throws: StrideNetError.self) { try network.train(batches[0], learningRate: 0.1) }
    network.loss = .meanSquaredError
    let losses = try batches.map { try network.train($0, learningRate: 0.1, momentum: 0.9).cce }
    let (first, last) = (losses.prefix(5).reduce(0, +), losses.suffix(5).reduce(0, +))
    #expect(last < first / 1.5, "\(losses)")
  }

  /// Ten steps of a network with all of it as PyTorch does them, then an evaluation.
  @Test(arguments: KernelChoice.names) func residualNetworkPyTorch(kernels: String) throws {
    let run = try expectations(Expected.self, "normalization.json").network
    let network = Network(
      try Architecture.layers(run.text),
      runtime: Runtime(threads: 2, kernels: try KernelChoice(named: kernels)))
    #expect(Architecture.text(network.layers) == run.text)
    try Self.start(network, run)
    let batches = try NetworkTests.batches(11, of: 32)
    for (step, loss) in run.losses.enumerated() {
      let found = try network.train(batches[step], learningRate: 0.05, momentum: 0.9).cce
      #expect(abs(Double(found) - loss) <= 2e-4 * loss, "step \(step): \(found), PyTorch \(loss)")
    }
    let (_, cce, _) = try network.evaluate(batches[10].images, batches[10].labels)
    #expect(abs(Double(cce) - run.eval) <= 5e-4 * run.eval, "\(cce), PyTorch \(run.eval)")
  }

  /// The weights that PyTorch's run began with.
  static func start(_ network: Network, _ run: Expected.Run) throws {
    network.loss = .crossEntropy(labelSmoothing: 0.1)
    try network.build(for: Shape(28, 28, 1))
    let start = Dictionary(
      uniqueKeysWithValues: network.snapshot().arrays.map { ($0.name, ($0.shape, $0.values)) })
    var number = -1
    try network.setWeights { name in
      number += 1
      let (shape, values) = start[name]!
      guard shape.count > 1 else { return values }
      let fanIn = shape.count == 4 ? shape[0] * shape[1] * shape[2] : shape[1]
      return values.indices.map {
        Float(Double(value($0, 10 + number)) * (2 / Double(fanIn).squareRoot()))
      }
    }
  }

  static let texts = [
    "conv(6,3,activation=none) batchnorm(activation=relu) maxpool(2) dropout(0.3) flatten relu(20) softmax(10)",
    "conv(6,3,padding=1,activation=none) batchnorm(activation=relu) conv(33,3,activation=none) batchnorm(activation=relu) maxpool(2) conv(5,3) conv(7,3,activation=none) batchnorm conv(4,1,activation=none) batchnorm flatten softmax(10)",
    "residual(conv(5,3,padding=1,activation=none) batchnorm(activation=relu) conv(4,3,padding=1,activation=none) batchnorm maxpool(2) | avgpool(2) conv(4,1,activation=none)) flatten softmax(10)",
    "residual(conv(5,3,padding=1) dropout(0.2) conv(4,3,padding=1,activation=none) batchnorm | conv(4,1,activation=none)) layernorm maxpool(2) flatten dropout(0.5) softmax(10)",
    "batchnorm conv(5,3,stride=2,activation=none) batchnorm(activation=sigmoid) residual(residual(conv(5,3,padding=1)) layernorm) flatten dense(12) batchnorm dropout(0.1) softmax(10)",
  ]

  @Test(arguments: texts) func anyNumberOfThreads(text: String) throws {
    let batches = try NetworkTests.batches(3, of: 37)
    let results = try [(1, true), (2, true), (3, false), (8, true)].map { threads, fusing in
      let network = Network(
        try Architecture.layers(text), seed: 3, runtime: Runtime(threads: threads, fusing: fusing))
      let losses = try batches.map { try network.train($0, learningRate: 0.05, momentum: 0.9).cce }
      let evaluated = try network.evaluate(batches[0].images, batches[0].labels)
      return "\(losses) \(evaluated.cce) \(network.snapshot().sha256)"
    }
    #expect(Set(results).count == 1, "\(results)")
  }

  @Test(arguments: texts) func savedAndLoaded(text: String) throws {
    let batch = try NetworkTests.batches(1, of: 50)[0]
    let network = Network(try Architecture.layers(text))
    for _ in 0..<3 { try network.train(batch, learningRate: 0.05) }
    let path = FileManager.default.temporaryDirectory
      .appending(path: "stridenet-\(UUID().uuidString).safetensors").path
    defer { try? FileManager.default.removeItem(atPath: path) }
    try network.save(to: path)
    let loaded = try Network.load(from: path)
    #expect(loaded.snapshot().sha256 == network.snapshot().sha256)
    #expect(try loaded.predict(batch.images).values == network.predict(batch.images).values)
  }

  /// What is folded into convolutions for inference computes what the layers one by one do.
  @Test func foldedIntoTheConvolution() throws {
    let layers = try Architecture.layers(Self.texts[0])
    let network = Network(layers)
    let batches = try NetworkTests.batches(6, of: 64)
    for batch in batches { try network.train(batch, learningRate: 0.05) }
    let images = batches[0].images
    let folded = try network.predict(images)
    let plan = Plan(
      network.plan!.operations, images.shape, network.runtime, training: false, fusing: false)
    try plan.reserve(images.batch, training: false)
    for node in plan.nodes { try node?.prepareInference() }
    var x = Tensor(batch: images.batch, shape: Shape(10))
    images.withView { images in
      let logits = plan.forward(
        images,
        Pass(
          runtime: network.runtime, training: false, share: .whole(images.batch)))
      x.withMutableView {
        Kernels.softmaxForward(rows: images.batch, 10, logits.pointer, $0.pointer)
      }
    }
    expectClose(folded.values, x.values, within: 1e-5, "folded")
    // Training goes on and the folded weights follow.
    for batch in batches { try network.train(batch, learningRate: 0.05) }
    #expect(try network.predict(images).values != folded.values)
  }

  @Test func dropoutDropsItsShare() throws {
    for rate in [Float(0), 0.1, 0.5, 0.9] {
      let shape = Shape(100_003)
      let layer = try LayerUnit(Dropout(rate), shape, batch: 1)
      func drop(step: Int, backward: Bool = false) throws -> [Float] {
        let x = Guarded([Float](repeating: 2, count: shape.count))
        let y = Guarded<Float>(shape.count)
        let (from, to) = (
          TensorView(x.pointer, batch: 1, shape: shape),
          TensorView(y.pointer, batch: 1, shape: shape)
        )
        if backward {
          layer.backward(from, to, from, to, seed: 5, step: step)
        } else {
          try layer.forward(from, to, seed: 5, step: step)
        }
        #expect(y.guardsHold)
        return y.values
      }
      let first = try drop(step: 0)
      let dropped = Double(first.count { $0 == 0 }) / Double(first.count)
      let deviation = (Double(rate) * (1 - Double(rate)) / Double(first.count)).squareRoot()
      #expect(abs(dropped - Double(rate)) <= 4 * deviation, "\(rate): \(dropped)")
      #expect(first.allSatisfy { $0 == 0 || $0 == 2 / (1 - rate) })
      // The same again, backwards too, and another mask in the next step.
      #expect(try drop(step: 0, backward: true) == first)
      guard rate > 0 else { continue }
      let second = try drop(step: 1)
      let both = Double(zip(first, second).count { $0 == 0 && $1 == 0 }) / Double(first.count)
      #expect(abs(both - Double(rate * rate)) < 0.01, "\(rate): \(both)")
      let neighbours = Double(zip(first, first.dropFirst()).count { $0 == 0 && $1 == 0 })
      #expect(abs(neighbours / Double(first.count) - Double(rate * rate)) < 0.01)
    }
  }

  @Test(arguments: [
    ("dropout(1)", "rate"), ("dropout(-0.1)", "rate"), ("dropout(nan)", "rate"),
    ("dropout", "rate"), ("batchnorm(momentum=0)", "momentum"),
    ("batchnorm(epsilon=-1)", "epsilon"),
    ("layernorm(2)", "epsilon"), ("residual", "residual"), ("residual()", "residual"),
    ("residual(conv(4,3)", "bracket"), ("residual(conv(4,3) | )", "shortcut"),
    (String(repeating: "residual(", count: 200), "nested"),
  ])
  func wrongTextSaysWhere(text: String, what: String) throws {
    let error = try #require(throws: StrideNetError.self) { try Architecture.layers(text) }
    #expect(error.what.contains(what), "\(error)")
    #expect(error.place?.contains("column") == true)
  }

  @Test(arguments: [
    "residual(conv(4,3))", "residual(flatten) flatten",
    "residual(conv(4,3,padding=1) | conv(5,1))", "residual(conv(4,30))",
  ])
  func whatDoesntFitSaysWhere(text: String) throws {
    let network = Network(try Architecture.layers(text))
    let error = try #require(throws: StrideNetError.self) {
      try network.build(for: Shape(8, 8, 1))
    }
    #expect(error.place?.contains("layer 1") == true && error.kind == .badData, "\(error)")
  }
}
