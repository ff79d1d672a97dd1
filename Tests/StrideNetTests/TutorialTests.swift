import Foundation
import StrideNet  // not @testable: the articles' examples may use what is public alone
import Testing

/// The examples of "From one neuron to a convolutional network", as `ArticleTests` has the others.
@Suite struct TutorialTests {
  @Test func aNeuron() throws {
    let page = ArticlePage()
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
    let page = ArticlePage()
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
    let page = ArticlePage()
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
    let page = ArticlePage()
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
    let page = ArticlePage()
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
    let article = try Documents.text("Sources/StrideNet/StrideNet.docc/Tutorial.md")
    #expect(article.contains("\n```text\n\(picture)\n```\n"), "\(picture)")
  }

  @Test func convolution() throws {
    let page = ArticlePage()
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
    let page = ArticlePage()
    func print(_ items: Any..., line: Int = #line) { page.print(items, line) }
    let numbers = try Tensor(batch: 1, shape: Shape(4, 4, 1), (1...16).map { Float($0) })

    print(try Network([MaxPool2D(2)]).predict(numbers).values)  // [6.0, 8.0, 14.0, 16.0]
    print(try Network([AvgPool2D(2)]).predict(numbers).values)  // [3.5, 5.5, 11.5, 13.5]

    try page.check("Tutorial", "Pooling: less of it")
  }

  @Test func strideGroups() throws {
    let page = ArticlePage()
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
    let page = ArticlePage()
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

    let training = ArticlePage()
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

    let looking = ArticlePage()
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
}
