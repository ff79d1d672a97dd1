import Foundation
import StrideNet  // not @testable: all of this is for anybody
import Testing

/// Losses and examples from outside the package.
@Suite struct TargetTests {
  /// Quadratic near 0, linear beyond 1 (Huber 1964).
  struct Huber: LossRule {
    let name = "huber"
    func loss(
      _ output: UnsafeBufferPointer<Float>, _ target: Target,
      gradient: UnsafeMutableBufferPointer<Float>?
    ) -> Float {
      var sum: Float = 0
      for i in output.indices {
        let off = output[i] - target[i]
        sum += abs(off) < 1 ? off * off / 2 : abs(off) - 0.5
        gradient?[i] = min(max(off, -1), 1)
      }
      return sum
    }
  }

  /// Points of the plane that are made when they are asked for: class k is the k-th of 300 rings.
  struct Rings: ExampleSource {
    let count: Int
    let shape = Shape(300)
    func label(_ index: Int) -> Int { index * 7 % 300 }
    func read(_ index: Int, into input: UnsafeMutableBufferPointer<Float>) {
      for i in input.indices {
        input[i] = (i == label(index) ? 1 : 0) + Float((index * 31 + i * 17) % 11) / 100
      }
    }
  }

  /// sin and cos of two numbers.
  private func waves(_ count: Int, from first: Int) throws -> TensorSet {
    let x = (first..<first + count).map { Float($0 * 37 % 101) / 50 - 1 }
    let z = (first..<first + count).map { Float($0 * 53 % 97) / 48 - 1 }
    var (inputs, targets): ([Float], [Float]) = ([], [])
    for (x, z) in zip(x, z) {
      inputs += [x, z]
      targets += [sin(2 * x + z), cos(3 * z)]
    }
    return try TensorSet(
      Tensor(batch: count, shape: Shape(2), inputs),
      targets: Tensor(batch: count, shape: Shape(2), targets))
  }

  private static let register: Void = { try! Loss.register(Huber()) }()

  @Test(arguments: ["mean_squared_error", "mean_absolute_error", "huber"])
  func regression(_ name: String) throws {
    Self.register
    var settings = TrainingSettings()
    (settings.epochs, settings.batchSize, settings.learningRate) = (60, 16, 0.01)
    settings.optimizer = Optimizer(.adam)
    settings.loss = try Loss(name)
    let network = Network([Dense(32, activation: .tanh), Dense(32), Dense(2, activation: .none)])
    let trainer = try Trainer(
      network, train: waves(300, from: 0), test: waves(70, from: 300), settings)
    try trainer.run()
    #expect(trainer.results.last!.testCCE < trainer.results[0].testCCE / 8)
    #expect(try network.evaluate(trainer.test).cce == trainer.results.last!.testCCE)
    #expect(throws: StrideNetError.self) { try network.metrics(trainer.test) }
    let batch = try Batch(
      images: Tensor(batch: 1, shape: Shape(2), [0.3, -0.2]),
      targets: Tensor(
        batch: 1, shape: Shape(2), [sin(0.4), cos(-0.6)]))
    let (output, loss, _) = try network.evaluate(batch)
    #expect(abs(output[0] - sin(0.4)) < 0.15 && abs(output[1] - cos(0.6)) < 0.15 && loss < 0.1)
    // The loss is saved with the weights.
    let path = FileManager.default.temporaryDirectory.appending(path: UUID().uuidString).path
    defer { try? FileManager.default.removeItem(atPath: path) }
    try network.save(to: path)
    #expect(try Network.load(from: path).loss == settings.loss)
  }

  @Test func moreThan256Classes() throws {
    var settings = TrainingSettings()
    (settings.epochs, settings.batchSize, settings.learningRate) = (6, 50, 0.1)
    settings.optimizer = Optimizer(.adam)
    let trainer = try Trainer(
      Network([Dense(300, activation: .softmax)]), train: Rings(count: 1500),
      test: Rings(count: 300), settings)
    try trainer.run()
    #expect(trainer.results.last!.testCE < 0.05)
    let few = Network([Dense(299, activation: .softmax)])
    #expect(throws: StrideNetError.self) {
      try Trainer(few, train: Rings(count: 1500), test: Rings(count: 300), settings)
    }
  }

  /// Labels as whole numbers, and tensors of numbers instead of bytes, are the same training.
  @Test func numbersInsteadOfBytes() throws {
    let sample = try Dataset.load("sample")
    let (train, test) = (sample.train.prefix(300), sample.test.prefix(90))
    func set(_ images: ImageSet) throws -> TensorSet {
      try TensorSet(images.batch(0..<images.count).images, labels: images.labels.map(Int.init))
    }
    var settings = TrainingSettings()
    (settings.epochs, settings.batchSize) = (2, 40)
    func network() -> Network {
      Network([Conv2D(4, 3), Flatten(), Dense(10, activation: .softmax)])
    }
    let bytes = try Trainer(
      network(), Dataset(name: "x", source: "x", train: train, test: test), settings)
    let numbers = try Trainer(network(), train: set(train), test: set(test), settings)
    try bytes.run()
    try numbers.run()
    #expect(bytes.network.snapshot().sha256 == numbers.network.snapshot().sha256)
    #expect(bytes.results.map(\.testCCE) == numbers.results.map(\.testCCE))
    // Whoever asks is answered as the trainer is.
    let network = numbers.network
    #expect(try network.evaluate(set(test)).cce == numbers.results.last!.testCCE)
    #expect(try network.metrics(set(test)).confusion == network.metrics(test).confusion)
  }

  /// Several labels an example, or none.
  @Test func multiLabel() throws {
    let count = 400
    let x = (0..<count * 6).map { Float($0 * 7919 % 13) / 6 - 1 }
    var y: [Float] = []
    for n in 0..<count {
      for i in n * 6..<n * 6 + 3 { y.append(x[i] + x[i + 3] > 0 ? 1 : 0) }
    }
    let set = try TensorSet(
      Tensor(batch: count, shape: Shape(6), x), targets: Tensor(batch: count, shape: Shape(3), y))
    var settings = TrainingSettings()
    (settings.epochs, settings.batchSize, settings.loss) = (40, 20, .binaryCrossEntropy)
    settings.optimizer = Optimizer(.adam)
    settings.learningRate = 0.02
    let network = Network([Dense(12), Dense(3, activation: .sigmoid)])
    try Trainer(network, train: set, test: set, settings).run()
    let found = try network.predict(Tensor(batch: count, shape: Shape(6), x)).values
    let right = zip(found, y).count { ($0 > 0.5) == ($1 > 0.5) }
    #expect(Double(right) > 0.95 * Double(y.count))
  }

  /// Each loss' gradient is the slope of the loss, with classes and with values as targets, with
  /// logits and without.
  @Test(
    arguments: [
      "cross_entropy", "mean_squared_error", "mean_absolute_error", "binary_cross_entropy", "huber",
    ], [false, true]) func slopes(_ name: String, _ hasClasses: Bool) throws
  {
    Self.register
    for activation in [Activation.softmax, .sigmoid] {
      if name == "cross_entropy" && activation.name == "sigmoid" { continue }
      let network = Network([Dense(5, activation: activation)], seed: 6)
      network.loss = try Loss(name)
      let images = try Tensor(
        batch: 3, shape: Shape(4), (0..<12).map { Float($0 * 5 % 7) / 3 - 1 })
      let batch =
        hasClasses
        ? Batch(images: images, labels: [2, 0, 4])
        : Batch(
          images: images,
          targets: try Tensor(batch: 3, shape: Shape(5), (0..<15).map { Float($0 * 4 % 9) / 9 }))
      // Without a step nothing changes.
      try network.train(batch, learningRate: 0)
      let weights = try network.weights("layers.0.weight")
      let gradient = try network.gradient("layers.0.weight")
      for i in weights.indices {
        func loss(_ move: Float) throws -> Double {
          var moved = weights
          moved[i] += move
          try network.setWeights("layers.0.weight", moved)
          return Double(try network.evaluate(batch).cce)
        }
        let slope = try (loss(1 / 128) - loss(-1 / 128)) * 64
        #expect(
          abs(slope - Double(gradient[i])) < 3e-3 * max(1, abs(slope)),
          "\(activation.name) [\(i)]: slope \(slope), gradient \(gradient[i])")
      }
    }
  }

  @Test func whatDoesNotFit() throws {
    let network = Network([Dense(3, activation: .softmax)])
    let images = Tensor(batch: 2, shape: Shape(4))
    func refuses(_ batch: Batch) {
      #expect(throws: StrideNetError.self) { try network.train(batch, learningRate: 0.1) }
    }
    refuses(Batch(images: images, labels: [0, 1 << 40]))
    refuses(Batch(images: images, labels: [0, -1]))
    refuses(Batch(images: images, targets: Tensor(batch: 2, shape: Shape(4))))
    refuses(Batch(images: images, targets: Tensor(batch: 1, shape: Shape(3))))
    #expect(throws: StrideNetError.self) { try TensorSet(images, labels: [1]) }
    Self.register
    #expect(throws: StrideNetError.self) { try Loss.register(Huber()) }
    #expect(throws: StrideNetError.self) { try Loss("hubert") }
  }
}
