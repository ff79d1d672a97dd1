import Testing

import StrideNet
@testable import StrideNetCore

@Suite struct InitializerTests {
  struct Case: CustomTestStringConvertible, Sendable {
    let initializer: Initializer
    /// Of a convolution of 40 filters of 5×3 over 20 channels, and a dense layer of 90 over 400.
    let convolution, dense: Double
    let isNormal: Bool
    var testDescription: String { initializer.text }
  }

  static let cases = [
    Case(initializer: .heUniform, convolution: 2 / 300, dense: 2 / 400, isNormal: false),
    Case(initializer: .heNormal, convolution: 2 / 300, dense: 2 / 400, isNormal: true),
    Case(initializer: .glorotUniform, convolution: 2 / 900, dense: 2 / 490, isNormal: false),
    Case(initializer: .glorotNormal, convolution: 2 / 900, dense: 2 / 490, isNormal: true),
    Case(initializer: .leCunUniform, convolution: 1 / 300, dense: 1 / 400, isNormal: false),
    Case(initializer: .leCunNormal, convolution: 1 / 300, dense: 1 / 400, isNormal: true),
    Case(initializer: .uniform(-0.3..<0.3), convolution: 0.03, dense: 0.03, isNormal: false),
  ]

  /// Mean, variance and shape of what a network's layers start with.
  @Test(arguments: cases) func distribution(c: Case) throws {
    for (layer, input, variance) in [
      (Conv2D(40, (5, 3), initializer: c.initializer), Shape(6, 6, 20), c.convolution),
      (Dense(90, initializer: c.initializer), Shape(400), c.dense),
    ] as [(any Layer, Shape, Double)] {
      let network = Network([layer], seed: 5)
      try network.build(for: input)
      let values = try network.weights("layers.0.weight").map(Double.init)
      let count = Double(values.count)
      let (deviation, bound) = (variance.squareRoot(), (3 * variance).squareRoot())
      // Four deviations of a mean of `count`, and of a variance where the kurtosis is at most 3.
      #expect(abs(values.reduce(0, +) / count) < 4 * deviation / count.squareRoot())
      let found = values.reduce(0) { $0 + $1 * $1 } / count
      #expect(abs(found / variance - 1) < 4 * (2 / count).squareRoot(), "\(found), \(variance)")
      // A uniform one fills its bounds; of a normal one 8.3 % lie outside of these.
      let outside = values.filter { abs($0) > bound * (1 + 1e-6) }.count
      let share = Double(outside) / count
      #expect(c.isNormal ? abs(share - 0.0833) < 0.01 : outside == 0)
      #expect(c.isNormal || values.map(abs).max()! > 0.999 * bound)
      #expect(try network.weights("layers.0.bias").allSatisfy { $0 == 0 })
    }
  }

  @Test func uniform() throws {
    let network = Network([Dense(100, initializer: .uniform(0..<0.1))])
    try network.build(for: Shape(100))
    let values = network.snapshot().values.prefix(10_000)
    #expect(values.min()! >= 0 && values.min()! < 1e-4)
    #expect(values.max()! < 0.1 && values.max()! > 0.0999)
    let mean = values.reduce(0, +) / 10_000
    #expect(abs(mean - 0.05) < 0.0012)  // four deviations
  }

  @Test func constant() throws {
    let layer = Dense(3, initializer: .constant(0.25))
    let network = Network([layer])
    try network.build(for: Shape(4))
    #expect(network.snapshot().values == [Float](repeating: 0.25, count: 12) + [0, 0, 0])
  }

  /// He's before ReLU and its like, Glorot's elsewhere, drawn in the order of the weights.
  @Test func withoutOne() throws {
    for activation in Activation.builtIn {
      let isHe = ["relu", "leaky_relu", "elu", "gelu", "silu", "softplus"].contains(activation.name)
      let network = Network([Dense(6, activation: activation)], seed: 9)
      try network.build(for: Shape(5))
      var random = SeededGenerator(seed: 9, stream: 1)
      let bound: Float = (isHe ? 6.0 / 5 : 6.0 / 11).squareRoot()
      let expected: [Float] = (0..<30).map { _ in (2 * random.uniform() - 1) * bound }
      #expect(Array(network.snapshot().values.prefix(30)) == expected, "\(activation.name)")
    }
  }
}
