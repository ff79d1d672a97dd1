import Foundation
import Testing

import StrideNet
@testable import StrideNetLaboratory

/// What `trace` and `explain` show is what the fused kernels compute.
@Suite struct TraceTests {
  static let texts = [
    "conv(5,3) maxpool(2) conv(6,3,padding=1) flatten relu(7) softmax(4)",
    "conv(4,3x2,stride=2x1,padding=1) avgpool(2) flatten tanh(5) softmax(4)",
    "conv(4,3,dilation=2,activation=gelu) conv(4,3,groups=2) maxpool(3,2) globalavgpool softmax(4)",
    "conv(4,3,padding=4) maxpool(3,2,1,true) avgpool(3,stride=2,padding=1,ceil_mode=true) flatten softmax(4)",
    "avgpool(3,stride=2,padding=0x1x2x1,count_include_pad=false) conv(3,2) flatten softmax(4)",
    "conv(4,3,activation=none) batchnorm(activation=relu) conv(4,2) maxpool(2) dropout(0.3) flatten softmax(4)",
    "conv(4,3,padding=1) residual(conv(4,3,padding=1) conv(4,3,padding=1,activation=none)) activation(relu) layernorm flatten softmax(4)",
    "flatten dense(6) activation(silu) softmax(4)",
  ]
  static let batch = Batch(
    images: try! Tensor(batch: 3, shape: Shape(11, 10, 2), values(660, 3)), labels: [2, 0, 3])

  static func network(_ text: String, _ kernels: String? = nil) throws -> Network {
    let kernels = try kernels.map { try KernelChoice(named: $0) }
    let network = Network(
      try Architecture.layers(text), seed: 4, runtime: Runtime(threads: 2, kernels: kernels))
    // Biases that are 0, and running statistics that are nobody's, would hide what is done with them.
    for _ in 0..<3 { try network.train(batch, learningRate: 0.05, momentum: 0.9) }
    return network
  }

  @Test(arguments: texts) func itsOutputIsThePrediction(_ text: String) throws {
    let network = try Self.network(text)
    let trace = try network.trace(Self.batch.images, repeats: 2)
    let (found, expected) = (
      trace.output.values, try network.predict(Self.batch.images).values
    )
    // Batch normalisation is folded into convolutions for prediction: the same but for rounding.
    if text.contains("batchnorm") {
      expectClose(found, expected, within: 1e-6, text)
    } else {
      #expect(found == expected)
    }
    #expect(trace.layers.count == network.layers.count && trace.loss == nil)
    #expect(trace.layers.map(\.output.shape) == network.shapes)
    #expect(trace.layers.reduce(0) { $0 + $1.parameters } == network.parameterCount)
  }

  /// A step that takes a trace first is the step without it, and its gradients are the trace's.
  @Test(arguments: texts) func itsGradientsAreTheStepsAndNothingChanges(_ text: String) throws {
    let (traced, plain) = (try Self.network(text), try Self.network(text))
    let trace = try traced.trace(Self.batch)
    let gradients = traced.lastGradient
    #expect(traced.snapshot().sha256 == plain.snapshot().sha256)
    let first = try traced.train(Self.batch, learningRate: 0.1, momentum: 0.9)
    let second = try plain.train(Self.batch, learningRate: 0.1, momentum: 0.9)
    #expect(first.layers.sha256 == second.layers.sha256)
    #expect(trace.loss == first.cce)
    #expect(gradients == plain.lastGradient)
    let norms = trace.layers.compactMap(\.parameterGradientNorm).reduce(0) { $0 + $1 * $1 }
    let trained = Trace.norm(gradients)
    #expect(abs(norms.squareRoot() - trained) < 1e-6 * max(1, trained))
    #expect(trace.layers.allSatisfy { ($0.gradientNorm ?? 0) > 0 })
  }

  /// Values as targets go the same way, and their gradients are sums too.
  @Test func ofTargets() throws {
    let network = Network([Dense(5, activation: .tanh), Dense(2, activation: .none)], seed: 3)
    network.loss = .meanSquaredError
    let batch = try Batch(
      images: Tensor(batch: 3, shape: Shape(4), values(12, 5)),
      targets: Tensor(batch: 3, shape: Shape(2), values(6, 6)))
    let trace = try network.trace(batch, repeats: 2)
    let gradient = network.lastGradient
    #expect(trace.loss == (try network.evaluate(batch)).cce)
    #expect(trace.output.values == (try network.predict(batch.images)).values)
    let found = try network.provenance(ofGradientIn: trace, layer: 1, weight: [4, 2])
    #expect(found.agrees && found.terms.count == 3)
    #expect(trace.loss == (try network.train(batch, learningRate: 0.1)).cce)
    #expect(gradient == network.lastGradient)
    let wrong = Batch(images: batch.images, targets: Tensor(batch: 2, shape: Shape(2)))
    #expect(throws: StrideNetError.self) { try network.trace(wrong) }
  }

  @Test func statistics() throws {
    let network = Network([Activate(.relu), Flatten(), Dense(2, activation: .softmax)])
    let x = try Tensor(batch: 1, shape: Shape(2, 2, 1), [-1, 0.5, 2, 0])
    let layer = try network.trace(x).layers[0]
    #expect(layer.range == (0, 0.625, 2) && layer.zeros == 0.5)
    #expect(layer.gradientNorm == nil && layer.operations == 0)
    #expect(throws: StrideNetError.self) { try network.trace(Batch(images: x, labels: [2])) }
    #expect(throws: StrideNetError.self) {
      try network.trace(Tensor(batch: 1, shape: Shape(3, 2, 1)))
    }
  }

  // MARK: Provenance

  /// Every value of every layer, with every variant, is the sum of its terms.
  @Test(arguments: texts, KernelChoice.names) func valuesAreSums(_ text: String, _ kernels: String)
    throws
  {
    let network = try Self.network(text, kernels)
    let trace = try network.trace(Self.batch.images)
    for (index, layer) in network.layers.enumerated() {
      let shape = network.shapes[index]
      for output in stride(from: 0, to: shape.count, by: max(1, shape.count / 40)) {
        let at = Provenance.Place(output, in: shape)
        #expect(at.index(in: shape) == output)
        let found = try network.provenance(in: trace, layer: index + 1, at: at, example: 1)
        #expect(found.agrees, "\(layer.text) \(at): \(found.result), kernel \(found.value)")
      }
    }
  }

  /// And of other weights than the kernel had, it isn't.
  @Test func aDifferenceShows() throws {
    let network = try Self.network(Self.texts[0])
    let trace = try network.trace(Self.batch.images)
    try network.train(Self.batch, learningRate: 0.01)
    let found = try network.provenance(in: trace, layer: 6, at: .init(0, 0, 1))
    #expect(!found.agrees)
  }

  @Test(arguments: texts) func gradientsAreSums(_ text: String) throws {
    let network = try Self.network(text)
    let trace = try network.trace(Self.batch)
    for (index, layer) in network.stages.enumerated() {
      guard let operation = layer.only, operation.hasWeights else { continue }
      let weight = operation.parameters[0]
      for i in stride(from: 0, to: weight.count, by: max(1, weight.count / 12)) {
        var (place, rest) = ([Int](), i)
        for size in weight.shape.reversed() {
          place.insert(rest % size, at: 0)
          rest /= size
        }
        let found = try network.provenance(ofGradientIn: trace, layer: index + 1, weight: place)
        #expect(found.agrees, "\(layer.text) \(place): \(found.result), kernel \(found.value)")
        #expect(!found.terms.isEmpty)
      }
    }
  }

  @Test func waysOfAGradientAndOfAValue() throws {
    let network = try Self.network(Self.texts[0])
    let trace = try network.trace(Self.batch)
    let first = try #require(trace.layers[0].gradient)
    let index = try #require((0..<first.shape.count).max { abs(first[$0]) < abs(first[$1]) })
    let steps = network.gradientPath(in: trace, layer: 1, output: index)
    #expect(steps.map(\.layer) == [2, 3, 4, 5, 6])
    // At the top it is softmax's: probability − 1 for the label, divided by the batch.
    let last = try #require(steps.last)
    let target: Float = last.index == Int(Self.batch.labels[0]) ? 1 : 0
    #expect(abs(last.gradient - (trace.output[last.index] - target) / 3) < 1e-6)

    let forward = try network.trace(Self.batch.images)
    let paths = network.strongestPaths(in: forward, to: 2, width: 4)
    #expect(Set(paths.map(\.layer)) == [1, 2, 3, 4, 5, 6])
    for layer in 1...6 {
      let edges = paths.filter { $0.layer == layer }
      #expect(Set(edges.map(\.from)).count <= 4)
      let sum = edges.reduce(0) { $0 + $1.share }
      #expect(sum > 0 && sum < 1 + 1e-9)
      if layer < 6 {
        #expect(
          Set(edges.map(\.to)).isSubset(of: paths.filter { $0.layer == layer + 1 }.map(\.from)))
      } else {
        #expect(edges.allSatisfy { $0.to == 2 })
      }
    }
  }

  /// A layer of one's own may be anything.
  @Test func aLayerOfOnesOwn() throws {
    let network = Network([ChannelScale(), Flatten(), Dense(4, activation: .softmax)])
    let trace = try network.trace(Self.batch.images)
    #expect(throws: StrideNetError.self) {
      try network.provenance(in: trace, layer: 1, at: .init(0, 0, 0))
    }
  }

  @Test func placesThatAreNotThere() throws {
    let network = try Self.network(Self.texts[0])
    let trace = try network.trace(Self.batch.images)
    for (layer, place, example) in [
      (0, (0, 0, 0), 0), (7, (0, 0, 0), 0), (1, (9, 0, 0), 0), (1, (0, 0, 5), 0),
      (1, (-1, 0, 0), 0),
      (1, (0, 0, 0), 3),
    ] {
      #expect(throws: StrideNetError.self) {
        try network.provenance(
          in: trace, layer: layer, at: .init(place.0, place.1, place.2), example: example)
      }
    }
    // Without labels there are no gradients; and a pooling has no weights.
    #expect(throws: StrideNetError.self) {
      try network.provenance(ofGradientIn: trace, layer: 1, weight: [0, 0, 0, 0])
    }
    let back = try network.trace(Self.batch)
    for (layer, place) in [(2, [0, 0]), (1, [0, 0]), (1, [3, 0, 0, 0]), (5, [0, -1])] {
      #expect(throws: StrideNetError.self) {
        try network.provenance(ofGradientIn: back, layer: layer, weight: place)
      }
    }
  }

  /// The network in the package is there, and knows digits.
  @Test func digitsInThePackage() throws {
    let network = Network.digits()
    let test = try Dataset.load("sample").test.prefix(500)
    #expect(try network.evaluate(test).ce < 0.04)
    let recipe = try RunConfiguration(recipe: "digits")
    #expect(Architecture.text(network.layers) == recipe.layers)
    #expect(try TrainingHistory.digits()?.configuration == recipe)
  }

  // MARK: Commands

  @Test func commands() throws {
    let place = try Workplace()
    let table = try place.run(["trace", "--image", "3"])
    #expect(
      table.code == 0 && table.out.contains("conv_forward") && table.out.contains("labelled 0"))
    let batch = try place.run(["trace", "lenet", "--data", "sample", "--batch", "4", "--json"])
    let rows = batch.json.filter { $0["event"] as? String == "layer" }
    #expect(batch.code == 0 && rows.count == 7, "\(batch.err)")
    #expect(rows.allSatisfy { $0["gradient_norm"] as? Double ?? 0 > 0 })

    let value = try place.run(["explain", "--image", "1", "--layer", "3", "--at", "4,5,6"])
    #expect(value.code == 0 && value.out.contains("they agree"), "\(value.err)")
    let flat = try place.run(["explain", "--layer", "7", "--at", "7", "--all", "--json"])
    let terms = try #require(flat.json.first?["terms"] as? [Any])
    #expect(terms.count == 64 && flat.json[0]["agrees"] as? Bool == true)
    let gradient = try place.run([
      "explain", "--image", "8", "--layer", "1", "--weight", "0,1,0,3",
    ])
    #expect(
      gradient.out.contains("the strongest way") && gradient.out.contains("there it is softmax's"))
  }

  @Test(
    arguments: [
      (["trace", "none.safetensors"], 66, "none.safetensors"),
      (["trace", "--image", "10000"], 64, "--image out of range"),
      (["trace", "--image", "-1"], 64, "--image out of range"),
      (["trace", "--batch", "0"], 64, "--batch out of range"),
      (["trace", "--repeats", "0"], 64, "--repeats out of range"),
      (["trace", "--data", "digits"], 65, "another size"),
      (["explain"], 64, "either --at"),
      (["explain", "--at", "1,2"], 64, "--at isn't a place"),
      (["explain", "--at", "1,,2"], 64, "--at isn't a place"),
      (["explain", "--at", "0,0,0", "--weight", "1,1"], 64, "either --at"),
      (["explain", "--at", "26,0,0"], 64, "no such place"),
      (["explain", "--layer", "8", "--at", "0"], 64, "no such layer"),
      (["explain", "--layer", "2", "--weight", "0,0"], 64, "a layer without weights"),
      (["explain", "--layer", "6", "--weight", "0,800"], 64, "no such weight"),
    ] as [([String], Int32, String)])
  func refusals(_ arguments: [String], _ code: Int32, _ message: String) throws {
    let end = try Workplace().run(
      arguments + (arguments.contains("--data") ? [] : ["--data", "sample"]))
    #expect(end.code == code && end.err.contains(message), "\(end.err)")
  }
}
