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
  /// Takes the place of `print`, and knows what the article says about it.
  private final class Page {
    private var printed: [Int: [String]] = [:]

    func print(_ items: [Any], _ line: Int) {
      printed[line, default: []].append(items.map { "\($0)" }.joined(separator: " "))
    }

    /// Compares what was printed, statement by statement, with the comments behind the `print`s of
    /// an article's section. "…" at a comment's end leaves the rest open, "about" before a number
    /// allows a quarter of it.
    func check(_ article: String, _ section: String? = nil) throws {
      let path = "Sources/StrideNet/StrideNet.docc/\(article).md"
      let claims = try Self.claims(path, section)
      let statements = printed.sorted { $0.key < $1.key }.map(\.value)
      #expect(statements.count == claims.count, "\(statements) \(claims)")
      for (found, claim) in zip(statements, claims) {
        guard let claim else { continue }
        let text = found.joined(separator: " ")
        if claim.hasPrefix("about ") {
          let number = try #require(Double(claim.dropFirst(6)))
          let value = try #require(Double(text), "\(text)")
          #expect(abs(value - number) <= abs(number) / 4, "\(text), \(claim)")
        } else if claim.hasSuffix("…") {
          #expect(text.hasPrefix(claim.dropLast().trimmingCharacters(in: .whitespaces)), "\(text)")
        } else {
          #expect(text == claim)
        }
      }
    }

    /// What stands behind each `print`, or in the line below it.
    private static func claims(_ path: String, _ section: String?) throws -> [String?] {
      var text = try DocumentationTests.text(path)
      if let section {
        let start = try #require(text.range(of: "\n## \(section)\n"), "\(section)")
        text = String(text[start.upperBound...])
        if let end = text.range(of: "\n## ") { text = String(text[..<end.lowerBound]) }
      }
      return text.components(separatedBy: "\n```swift\n").dropFirst().flatMap { block in
        let lines = block.components(separatedBy: "\n```")[0].components(separatedBy: "\n")
        return lines.indices.filter { lines[$0].contains("print(") }.map { index -> String? in
          if let comment = lines[index].range(of: "  // ") {
            return String(lines[index][comment.upperBound...])
          }
          guard index + 1 < lines.count else { return nil }
          let next = lines[index + 1].trimmingCharacters(in: .whitespaces)
          return next.hasPrefix("// ") ? String(next.dropFirst(3)) : nil
        }
      }
    }
  }

  // MARK: From one neuron to a convolutional network

  @Test func aNeuron() throws {
    let page = Page()
    func print(_ items: Any..., line: Int = #line) { page.print(items, line) }

    let x: [Float] = [1, 2, 3]
    let w: [Float] = [0.5, -1, 0.25]
    let b: Float = 1
    let y = zip(x, w).map(*).reduce(b, +)
    print(y)  // 0.25

    let single = Network([Dense(1, activation: .none)])
    try single.build(for: Shape(3))
    try single.setWeights("layers.0.weight", w)
    try single.setWeights("layers.0.bias", [b])
    let input = try Tensor(batch: 1, shape: Shape(3), x)
    print(try single.predict(input).values)  // [0.25]

    try page.check("Tutorial", "One neuron")
  }

  @Test func descent() throws {
    let page = Page()
    func print(_ items: Any..., line: Int = #line) { page.print(items, line) }
    let x: [Float] = [1, 2, 3]
    let w: [Float] = [0.5, -1, 0.25]
    let b: Float = 1
    let single = Network([Dense(1, activation: .none)])
    try single.build(for: Shape(3))
    try single.setWeights("layers.0.weight", w)
    try single.setWeights("layers.0.bias", [b])
    let input = try Tensor(batch: 1, shape: Shape(3), x)

    func squaredError(_ w: [Float]) -> Float {
      let y = zip(x, w).map(*).reduce(b, +)
      return (y - 1) * (y - 1)
    }
    let h: Float = 0.125
    let more = squaredError([0.5 + h, -1, 0.25])
    let less = squaredError([0.5 - h, -1, 0.25])
    print(squaredError(w), (more - less) / (2 * h))  // 0.5625 -1.5

    single.loss = .meanSquaredError
    let lesson = Batch(images: input, labels: [0])
    let (_, loss, _) = try single.train(lesson, learningRate: 0.03125)
    print(loss)  // 0.5625
    print(single.lastGradient)  // [-1.5, -3.0, -4.5, -1.5]
    print(try single.predict(input).values)  // [0.953125]

    try page.check("Tutorial", "Its gradient, and a step downhill")
  }

  @Test func softmax() throws {
    let page = Page()
    func print(_ items: Any..., line: Int = #line) { page.print(items, line) }

    func rounded(_ values: [Float]) -> [Float] { values.map { ($0 * 1000).rounded() / 1000 } }

    let scores = try Tensor(batch: 1, shape: Shape(3), [2, 1, 0])
    let softmax = Network([Activate(.softmax)])
    print(rounded(try softmax.predict(scores).values))  // [0.665, 0.245, 0.09]

    let (_, right, _) = try softmax.evaluate(scores, [0])
    let (_, wrong, _) = try softmax.evaluate(scores, [2])
    print(rounded([right, wrong]))  // [0.408, 2.408]

    let classifier = Network([Dense(3, activation: .softmax, initializer: .constant(0))])
    try classifier.build(for: Shape(1))
    try classifier.setWeights("layers.0.bias", scores.values)
    let example = Batch(images: try Tensor(batch: 1, shape: Shape(1), [1]), labels: [0])
    try classifier.train(example, learningRate: 0)
    print(rounded(try classifier.gradient("layers.0.bias")))  // [-0.335, 0.245, 0.09]

    try page.check("Tutorial", "A layer that chooses")
  }

  @Test func twoLayers() throws {
    let page = Page()
    func print(_ items: Any..., line: Int = #line) { page.print(items, line) }

    let corners = try Tensor(batch: 4, shape: Shape(2), [0, 0, 0, 1, 1, 0, 1, 1])
    let differ = Batch(images: corners, labels: [0, 1, 1, 0])

    let straight = Network([Dense(2, activation: .softmax)])
    for _ in 0..<500 { try straight.train(differ, learningRate: 0.5) }
    print(try straight.evaluate(corners, differ.labels).cce)  // 0.693 …

    let bent = Network([Dense(8), Dense(2, activation: .softmax)])
    for _ in 0..<500 { try bent.train(differ, learningRate: 0.5) }
    print(try bent.evaluate(corners, differ.labels).cce < 0.05)  // true

    try page.check("Tutorial", "Why one layer isn't enough")
  }

  @Test func digits() throws {
    let page = Page()
    func print(_ items: Any..., line: Int = #line) { page.print(items, line) }

    let data = try Dataset.load("sample")
    print(data.train.count, data.test.count, data.train.shape)  // 10000 10000 28×28×1

    let first = data.train.batch(0..<1)
    print(first.labels)  // [5]
    for row in 4..<26 {
      print(String((3..<25).map { first.images[0, row, $0, 0] > 0.5 ? "#" : "." }))
    }

    let flat = Network {
      Flatten()
      Dense(100)
      Dense(10, activation: .softmax)
    }
    let test = data.test.batch(0..<1000)
    print(try flat.evaluate(test.images, test.labels).ce)  // about 0.9
    for start in stride(from: 0, to: 2000, by: 50) {
      try flat.train(data.train.batch(start..<start + 50), learningRate: 0.1)
    }
    print(try flat.evaluate(test.images, test.labels).ce)  // about 0.2

    try page.check("Tutorial", "Digits")
    let picture = (4..<26).map { row in
      String((3..<25).map { first.images[0, row, $0, 0] > 0.5 ? "#" : "." })
    }.joined(separator: "\n")
    let article = try DocumentationTests.text("Sources/StrideNet/StrideNet.docc/Tutorial.md")
    #expect(article.contains("\n```text\n\(picture)\n```\n"), "\(picture)")
  }

  @Test func convolution() throws {
    let page = Page()
    func print(_ items: Any..., line: Int = #line) { page.print(items, line) }

    let numbers = try Tensor(batch: 1, shape: Shape(4, 4, 1), (1...16).map { Float($0) })
    let sum = Conv2D(1, 2, activation: .none, initializer: .constant(1))
    print(try Network([sum]).predict(numbers).values)
    // [14.0, 18.0, 22.0, 30.0, 34.0, 38.0, 46.0, 50.0, 54.0]

    let edges = Network([Conv2D(1, 2, activation: .none)])
    try edges.build(for: Shape(3, 4, 1))
    try edges.setWeights("layers.0.weight", [-1, 1, -1, 1])
    let step = try Tensor(
      batch: 1, shape: Shape(3, 4, 1), [0, 0, 1, 1, 0, 0, 1, 1, 0, 0, 1, 1])
    print(try edges.predict(step).values)  // [0.0, 2.0, 0.0, 0.0, 2.0, 0.0]

    try page.check("Tutorial", "Convolution: the same neuron everywhere")
  }

  @Test func pooling() throws {
    let page = Page()
    func print(_ items: Any..., line: Int = #line) { page.print(items, line) }
    let numbers = try Tensor(batch: 1, shape: Shape(4, 4, 1), (1...16).map { Float($0) })

    print(try Network([MaxPool2D(2)]).predict(numbers).values)  // [6.0, 8.0, 14.0, 16.0]
    print(try Network([AvgPool2D(2)]).predict(numbers).values)  // [3.5, 5.5, 11.5, 13.5]

    try page.check("Tutorial", "Pooling: less of it")
  }

  @Test func strideGroups() throws {
    let page = Page()
    func print(_ items: Any..., line: Int = #line) { page.print(items, line) }
    let numbers = try Tensor(batch: 1, shape: Shape(4, 4, 1), (1...16).map { Float($0) })

    let groups = StrideGroups(output: (3, 3), size: (2, 2), stride: (1, 1)).groups
    print(groups.map(\.positions.count))  // [4, 2, 2, 1]
    for (element, inputs) in zip("ABCD", groups[0].inputs) {
      print(element, inputs.map { $0.row * 4 + $0.column + 1 })  // A [1, 3, 9, 11] …
    }

    let filter: [Float] = [1, 10, 100, 1000]
    var output = Tensor(batch: 1, shape: Shape(3, 3, 1))
    for group in groups {
      for (window, position) in group.positions.enumerated() {
        for element in 0..<4 {
          let (row, column) = group.inputs[element][window]
          output[0, position.row, position.column, 0] +=
            filter[element] * numbers[0, row, column, 0]
        }
      }
    }
    print(output.values.prefix(3))  // [6521.0, 7632.0, 8743.0]

    for name in ["naive", "stride_groups", "im2col", "direct"] {
      let network = Network(
        [Conv2D(1, 2, activation: .none)], runtime: Runtime(kernels: try KernelChoice(named: name)))
      try network.build(for: numbers.shape)
      try network.setWeights("layers.0.weight", filter)
      print(name, try network.predict(numbers).values == output.values)  // naive true …
    }

    try page.check("Tutorial", "Stride groups: many windows at once")
  }

  @Test func wholeNetwork() throws {
    let page = Page()
    func print(_ items: Any..., line: Int = #line) { page.print(items, line) }
    let data = try Dataset.load("sample")

    let network = Network {
      Conv2D(32, 3)
      MaxPool2D(2)
      Flatten()
      Dense(100)
      Dense(10, activation: .softmax)
    }
    try network.build(for: data.train.shape)
    print(network.shapes)  // [26×26×32, 13×13×32, 5408, 100, 10]
    print(network.parameterCount)  // 542230
    try page.check("Tutorial", "The whole network")

    let training = Page()
    do {
      func print(_ items: Any..., line: Int = #line) { training.print(items, line) }

      let few = try Dataset(
        name: "few", source: "the sample", train: data.train.prefix(1000),
        test: data.test.prefix(500))
      var settings = TrainingSettings()
      settings.epochs = 2
      settings.learningRate = 0.03
      let trainer = try Trainer(network, few, settings)
      trainer.onEpoch { print("epoch", $0.epoch, $0.testCE) }  // epoch 1 …
      try trainer.run()
      print(trainer.results.last!.testCE < 0.25)  // true
    }
    try training.check("Tutorial", "Training it")

    let looking = Page()
    do {
      func print(_ items: Any..., line: Int = #line) { looking.print(items, line) }

      for array in network.snapshot().arrays { print(array.name, array.shape) }
      // layers.0.weight [3, 3, 1, 32] …

      let metrics = try network.metrics(data.test.prefix(500))
      print(metrics.confusion.count, metrics.images)  // 10 500
      print(metrics.accuracy > 0.75)  // true
    }
    try looking.check("Tutorial", "Looking into it")
  }

  // MARK: Backpropagation

  @Test func backpropagation() throws {
    let page = Page()
    func print(_ items: Any..., line: Int = #line) { page.print(items, line) }

    let right = try GradientCheck([Conv2D(3, 3, stride: 2, padding: 1)], input: Shape(8, 8, 2))
    print(right.passed)  // true

    let wrong = try GradientCheck([Mutant(.flippedFilter)], input: Shape(8, 8, 2))
    print(wrong.rows.filter { !$0.passed }.map(\.array))  // ["x", "all of x"]

    try page.check("Backpropagation")
  }

  // MARK: Kernels

  @Test func variantsAgree() throws {
    let page = Page()
    func print(_ items: Any..., line: Int = #line) { page.print(items, line) }

    let digits = try Dataset.load("sample").train.batch(0..<8)
    let outputs = try KernelChoice.convolutions.map { variant in
      let runtime = Runtime(kernels: try KernelChoice(named: variant.name))
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
    let page = Page()
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
    let page = Page()
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
    let page = Page()
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
    let page = Page()
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
