import Foundation
import StrideNet  // not @testable: the articles' examples may use what is public alone
import Testing

/// Extending's layer of one's own: y = scale[c] · x + offset[c].
struct ChannelAffine: CustomLayer {
  func parameters(for input: Shape) -> [ParameterShape] {
    [
      ParameterShape("scale", shape: [input.channels], .constant(1)),
      ParameterShape("offset", shape: [input.channels], .constant(0)),
    ]
  }

  func forward(_ x: TensorView, _ y: TensorView, _ pass: CustomPass) {
    let (scale, offset) = (pass.weights(0), pass.weights(1))
    for i in 0..<x.count {
      let c = i % scale.count
      y[i] = scale[c] * x[i] + offset[c]
    }
  }

  func backward(
    _ x: TensorView, _ y: TensorView, _ dy: TensorView, _ dx: TensorView?, _ pass: CustomPass
  ) {
    let scale = pass.weights(0)
    let (scaleGradient, offsetGradient) = (pass.gradient(0), pass.gradient(1))
    scaleGradient.update(repeating: 0)
    offsetGradient.update(repeating: 0)
    for i in 0..<x.count {
      let c = i % scale.count
      scaleGradient[c] += dy[i] * x[i]
      offsetGradient[c] += dy[i]
      dx?[i] = dy[i] * scale[c]
    }
  }
}

/// Extending's layer that is made of others.
struct Block: Layer {
  let filters: Int

  func operations(for input: Shape) throws -> [LayerOperation] {
    try LayerOperation.sequence(
      [Conv2D(filters, 3, padding: .same, activation: .none), BatchNorm(activation: .relu)],
      for: input)
  }
}

/// Extending's activation of one's own.
extension Activation {
  static let bent = Activation(
    "bent", { $0 > 0 ? $0 : $0 / 4 }, derivative: { x, _ in x > 0 ? 1 : 0.25 })
}

/// The articles' examples. They stand here as they do there, and what an example says that it prints
/// is compared with what it printed.
@Suite struct ArticleTests {
  // MARK: Backpropagation

  @Test func backpropagation() throws {
    let page = ArticlePage()
    func print(_ items: Any..., line: Int = #line) { page.print(items, line) }

    let right = try GradientCheck([Conv2D(3, 3, stride: 2, padding: 1)], input: Shape(8, 8, 2))
    print(right.passed)  // true

    let wrong = try GradientCheck([Mutant(.flippedFilter)], input: Shape(8, 8, 2))
    print(wrong.rows.filter { !$0.passed }.map(\.array))  // ["x", "all of x"]

    try page.check("Backpropagation")
  }

  // MARK: Kernels

  @Test func variantsAgree() throws {
    let page = ArticlePage()
    func print(_ items: Any..., line: Int = #line) { page.print(items, line) }

    let digits = try Dataset.load("sample").train.batch(0..<8)
    let outputs = try KernelChoice.names.map { name in
      let runtime = Runtime(kernels: try KernelChoice(named: name))
      return try Network([Conv2D(32, 3), Conv2D(32, 3)], runtime: runtime)
        .predict(digits.images).values
    }
    for output in outputs.dropFirst() {
      let apart = zip(output, outputs[0]).map { abs($0 - $1) }.max()!
      print(apart < 1e-4)  // true …
    }

    try page.check("Kernels")
  }

  @Test func lookingInside() throws {
    let page = ArticlePage()
    func print(_ items: Any..., line: Int = #line) { page.print(items, line) }

    let network = Network.digits()
    let test = try Dataset.load("sample").test
    let trace = try network.trace(test.batch([8]).images)
    for layer in trace.layers { print(layer.text, layer.output.shape, layer.zeros) }

    let why = try network.provenance(in: trace, layer: 3, at: .init(4, 5, 6))
    print(why.terms.count, why.agrees)  // 144 true

    try page.check("LookingInside")
  }

  // MARK: Extending

  @Test func extending() throws {
    let page = ArticlePage()
    func print(_ items: Any..., line: Int = #line) { page.print(items, line) }
    let data = try Dataset.load("sample")

    let own = try GradientCheck(
      [ChannelAffine(), Activate(.bent)], input: Shape(6, 6, 3))
    print(own.passed)  // true

    let network = Network {
      Flatten()
      ChannelAffine()
      Dense(20, activation: .bent)
      Dense(10, activation: .softmax)
    }
    for step in 0..<20 {
      let rate: Float = step < 10 ? 0.1 : 0.02
      try network.train(data.train.batch(step * 50..<(step + 1) * 50), learningRate: rate)
    }

    let batch = data.train.batch(0..<50)
    let before = try network.evaluate(batch.images, batch.labels).cce
    try network.train(batch, learningRate: 0)
    for (name, _) in network.arrays {
      let slopes = try network.gradient(name)
      let steps = slopes.map { $0 == 0 ? 0 : $0 > 0 ? Float(0.0005) : -0.0005 }
      try network.setWeights(name, zip(try network.weights(name), steps).map { $0 - $1 })
    }
    print(try network.evaluate(batch.images, batch.labels).cce < before)  // true

    try page.check("Extending")
  }

  // MARK: The FAQ and the corrections

  @Test func faq() throws {
    let page = ArticlePage()
    func print(_ items: Any..., line: Int = #line) { page.print(items, line) }

    let network = Network {
      Conv2D(16, 5, stride: 2, padding: 2)
      AvgPool2D(2)
      Flatten()
      Dense(64, activation: .sigmoid)
      Dense(10, activation: .softmax)
    }
    let digits = try Dataset.load("sample").train.batch(0..<16)
    let (layers, cce, ce) = try network.train(digits, learningRate: 0.1)
    let (output, newCCE, newCE) = try network.evaluate(digits.images, digits.labels)
    let probabilities = try network.predict(digits.images)

    #expect(newCCE < cce && newCE <= ce && output.values == probabilities.values)
    #expect(layers.values == network.snapshot().values)
    try page.check("FAQ")
  }

  @Test func corrections() throws {
    let page = ArticlePage()
    func print(_ items: Any..., line: Int = #line) { page.print(items, line) }

    let groups = StrideGroups(output: (3, 3), size: (2, 2), stride: (1, 1)).groups
    for inputs in groups[0].inputs {
      print(inputs.map { $0.row * 4 + $0.column + 1 })
      // [1, 3, 9, 11] [2, 4, 10, 12] [5, 7, 13, 15] [6, 8, 14, 16]
    }

    print(70_000 * 95 / 100, 65_500 * 26 * 26 * 32)  // 66500 1416896000

    for (input, size, stride) in [
      (28, 3, 2), (27, 3, 2), (29, 3, 2), (28, 5, 2), (28, 5, 3), (28, 4, 2),
    ] {
      let images = try Tensor(
        batch: 2, shape: Shape(input, input, 1),
        (0..<2 * input * input).map { Float($0 % 17) })
      let outputs = try ["naive", "stride_groups"].map { name in
        let runtime = Runtime(kernels: try KernelChoice(named: name))
        return try Network([Conv2D(4, size, stride: stride)], runtime: runtime)
          .predict(images).values
      }
      let apart = zip(outputs[0], outputs[1]).map { abs($0 - $1) }.max()!
      print(apart < 1e-3)  // true true true true true true
    }

    let best = try Tensor(batch: 1, shape: Shape(10), [1, 0, 0, 0, 0, 0, 0, 0, 0, 0])
    print(try Network([Activate(.softmax)]).evaluate(best, [0]).cce)  // 1.4611 …

    let digits = try Dataset.load("sample").train
    let gradients = try [digits.batch(0..<8), digits.batch((0..<16).map { $0 % 8 })].map { batch in
      let network = Network {
        Conv2D(4, 3)
        Flatten()
        Dense(10, activation: .softmax)
      }
      try network.train(batch, learningRate: 0)
      return network.lastGradient
    }
    print(zip(gradients[0], gradients[1]).allSatisfy { abs($0 - $1) < 1e-4 })  // true

    try page.check("Corrections")
  }
}
