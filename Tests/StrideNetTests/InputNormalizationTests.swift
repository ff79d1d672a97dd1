import Foundation
import Testing

import StrideNet

/// What networks do to their inputs: in training, questions, files and exports.
@Suite struct InputNormalizationTests {
  private static let text = "conv(5,3,padding=1) maxpool(2) flatten relu(9) softmax(4)"
  private static let input = Shape(7, 6, 3)

  private static func set(_ count: Int, _ salt: Int) throws -> ImageSet {
    let pixels = values(count * input.count, salt).enumerated().map { index, value in
      UInt8(max(0, min(255, 40 * Float(index % 3 + 1) + 150 * value)))
    }
    return try ImageSet(
      count: count, height: 7, width: 6, channels: 3, pixels: pixels,
      labels: (0..<count).map { $0 * 7 % 4 })
  }

  /// The same images after it, as numbers: by the network's own kernel, whose rounding is the
  /// instruction set's, and near the definition.
  private static func tensor(_ set: ImageSet, _ n: InputNormalization) throws -> Tensor {
    let images = set.batch(0..<set.count).images
    let network = Network(try Architecture.layers(text))
    network.normalization = n
    let result = try network.normalized(images)
    for (index, value) in images.values.enumerated() {
      let defined = (Double(value) - n.mean[index % 3]) / n.deviation[index % 3]
      #expect(abs(Double(result[index]) - defined) < 1e-6 * (1 + abs(defined)))
    }
    return result
  }

  private static func normalized(_ set: ImageSet, _ n: InputNormalization) throws -> TensorSet {
    try TensorSet(tensor(set, n), labels: set.labels.map(Int.init))
  }

  @Test func theStatisticsAreThoseOfTheDefinition() throws {
    let set = try Self.set(37, 3)
    let n = InputNormalization.standard(of: set)
    for channel in 0..<3 {
      let values = stride(from: channel, to: set.pixels.count, by: 3).map {
        Double(set.pixels[$0]) / 255
      }
      let mean = values.reduce(0, +) / Double(values.count)
      let variance = values.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Double(values.count)
      #expect(abs(n.mean[channel] - mean) < 1e-12)
      #expect(abs(n.deviation[channel] - variance.squareRoot()) < 1e-12)
    }
    let flat = try ImageSet(
      count: 2, height: 1, width: 1, channels: 1, pixels: [51, 51], labels: [0, 1])
    #expect(InputNormalization.standard(of: flat).deviation == [1])
    #expect(abs(InputNormalization.standard(of: flat).mean[0] - 0.2) < 1e-12)
  }

  @Test(arguments: [
    ([], []), ([0], []), ([0], [0]), ([0], [-1]), ([.nan], [1]), ([0], [.infinity]),
  ])
  func refusesWhatIsNone(mean: [Double], deviation: [Double]) {
    #expect(throws: StrideNetError.self) {
      try InputNormalization(mean: mean, deviation: deviation)
    }
  }

  /// A network that normalises trains to the weights that one trains to whose inputs were normalised
  /// before, whatever the batch and the threads: zeros are padded behind it.
  @Test(arguments: [1, 3]) func trainsAsOnNormalizedInputs(threads: Int) throws {
    let (train, test) = (try Self.set(53, 1), try Self.set(19, 2))
    let n = InputNormalization.standard(of: train)
    var settings = TrainingSettings()
    (settings.epochs, settings.batchSize) = (3, 16)
    func digest(_ network: Network, _ trainer: Trainer) throws -> String {
      try trainer.run()
      return network.snapshot().sha256 + " \(trainer.results.map { [$0.trainCCE, $0.testCCE] })"
    }
    func network() throws -> Network {
      Network(try Architecture.layers(Self.text), runtime: Runtime(threads: threads))
    }
    let one = try network()
    one.normalization = n
    let found = try digest(one, Trainer(one, train: train, test: test, settings))
    let other = try network()
    let expected = try digest(
      other,
      Trainer(
        other, train: Self.normalized(train, n), test: Self.normalized(test, n), settings))
    #expect(found == expected)

    // Questions of all kinds.
    let images = test.batch(0..<5).images
    let x = try Self.tensor(test.prefix(5), n)
    let answer = try other.predict(x).values
    #expect(try one.predict(images).values == answer)
    #expect(try one.predictor().predict(images).values == answer)
    #expect(try one.copy().predict(images).values == answer)
    #expect(try one.trace(images).output.values == answer)
    #expect(try one.trace(images).input.values == x.values)
    #expect(try one.metrics(test).cce == other.metrics(Self.normalized(test, n)).cce)
    #expect(try one.evaluate(test.batch(0..<5)).cce == other.evaluate(x, labels(test, 5)).cce)

    // And of the same network from a file.
    let folder = try TemporaryFolder()
    try one.save(to: folder.path + "/a.safetensors")
    let again = try Network.load(from: folder.path + "/a.safetensors")
    #expect(again.normalization == n)
    #expect(try again.predict(images).values == answer)
  }

  private func labels(_ set: ImageSet, _ count: Int) -> [Int32] {
    set.labels.prefix(count).map { Int32($0) }
  }

  /// The article's line.
  @Test func asTheArticleHasIt() throws {
    let model = Network(try Architecture.layers("flatten softmax(4)"))
    let data = try Dataset(
      name: "few", source: "few", train: Self.set(20, 1), test: Self.set(9, 2))
    model.normalization = .standard(of: data.train)
    #expect(model.normalization?.mean.count == 3)
  }

  @Test func otherChannelsAreRefused() throws {
    let network = Network(try Architecture.layers(Self.text))
    network.normalization = try InputNormalization(mean: [0.5], deviation: [0.1])
    let error = #expect(throws: StrideNetError.self) {
      try network.predict(Self.set(2, 1).batch(0..<2).images)
    }
    #expect(error?.description.contains("channels") == true)
  }

  /// C, ONNX and PyTorch take the same pixels of 0…1 as the network.
  @Test(arguments: [
    (text, input), ("conv(4,3) flatten softmax(3)", Shape(6, 5, 1)),
    ("relu(7) softmax(3)", Shape(1, 1, 4)), ("residual(conv(2,1)) globalavgpool", Shape(4, 3, 2)),
  ])
  func exportsComputeTheSame(text: String, input: Shape) throws {
    let network = try ExportedNetworks.network(text, input)
    let channels = 0..<input.channels
    network.normalization = try InputNormalization(
      mean: channels.map { 0.1 + 0.05 * Double($0) },
      deviation: channels.map { 0.3 + 0.1 * Double($0) })
    let images = ExportedNetworks.images(3, input)
    let expected = try network.predict(images).values
    let scale = max(1, expected.map(abs).max()!)
    expectClose(
      try CExportTests.run(network, images), expected, within: 1e-5 * scale, "C of \(text)")

    let result = try ONNXInterpreter(
      ONNXTests.model(network),
      .init(
        sizes: [3, input.channels, input.height, input.width],
        values: ONNXTests.channelsFirst(images).map(Double.init)))
    let name = network.endsInSoftmax ? "probabilities" : "output"
    expectClose(
      try #require(result.values[name]).values.map(Float.init),
      expected, within: 1e-5 * scale,
      "ONNX of \(text)")

    let source = try network.pyTorchSource(file: "a.safetensors")
    #expect(source.contains("class Normalize") && source.contains("Normalize(["))
    #expect(source.hasPrefix("import torch\nfrom safetensors"))
    let folder = try TemporaryFolder()
    try network.exportC(to: folder.path + "/a.c")
    let c = try String(contentsOfFile: folder.path + "/a.c", encoding: .utf8)
    #expect(c.contains("subtracts the mean, 0.1"))
  }

  // MARK: On the command line

  /// The page asks the network as it is saved, and so does the report.
  @Test func pagesShowTheSame() throws {
    let network = Network(try Architecture.layers("flatten softmax(10)"))
    network.normalization = try InputNormalization(mean: [0.4], deviation: [0.05])
    try network.build(for: Shape(8, 8, 1))
    let served = try Served(["w.safetensors", "--data", "digits"]) { place in
      try network.save(to: "\(place.path)/w.safetensors")
    }
    let test = try Dataset.load("\(served.place.path)/digits", environment: [:]).test
    let look = served.fields("look", #"{"input":{"test":5}}"#)
    let found = (look["probabilities"] as? [Any])?.compactMap { ($0 as? NSNumber)?.floatValue }
    let expected = try network.predict(test.batch([5]).images).values
    expectClose(found ?? [], expected, within: 1e-5, "the page")
    let why = served.fields("provenance", #"{"input":{"test":5},"layer":2,"at":[0,0,3]}"#)
    #expect(why["agrees"] as? Bool == true)
    let accuracy = try network.metrics(test).accuracy
    let judged = try served.place.run("evaluate", "w.safetensors", "--data", "digits", "--json")
    #expect(judged.json.first?["test_accuracy"] as? Double == accuracy)
    let report = try served.place.run(
      "report", "w.safetensors", "--data", "digits", "--out", "r.html")
    #expect(report.code == 0, "\(report.err)")
  }

  @Test func isSavedAndGoneOnWith() throws {
    let place = try Workplace()
    let training = Workplace.tinyTraining + ["--normalize", "standard", "--json"]
    let whole = try place.run(training + ["--epochs", "4", "--save", "whole.safetensors"])
    _ = try whole.digest
    let start = try #require(whole.json.first?["normalization"] as? [String: [Double]])
    #expect(
      start["mean"]?.count == 1 && start["deviation"]!.allSatisfy { (0.2...0.4).contains($0) })
    let plain = try place.run(Workplace.tinyTraining + ["--epochs", "4", "--json"])
    #expect(try plain.digest != whole.digest)
    #expect(
      try place.run(Workplace.tinyTraining + ["--epochs", "4", "--json", "--normalize", "unit"])
        .digest == plain.digest)
    // The accuracy is that of evaluate, and of the end of training.
    let judged = try place.run(["evaluate", "whole.safetensors", "--data", "digits", "--json"])
    #expect(
      judged.json.first?["test_accuracy"] as? Double == whole.json.last?["test_accuracy"] as? Double
    )
    let shown = try place.run(["evaluate", "whole.safetensors", "--data", "digits"])
    #expect(shown.out.contains("inputs   less mean"))
    // Other pixels are another run.
    _ = try place.run(training + ["--epochs", "4", "--checkpoint", "c", "--limit", "40"])
    let other = try place.run(["train", "--resume", "c", "--normalize", "none"])
    #expect(other.code == 64 && other.err.contains("normalize: none, standard"), "\(other.err)")
    let raw = try place.run(
      Workplace.tinyTraining + ["--normalize", "none", "--learning-rate", "0.0001"])
    #expect(try plain.digest != String(raw.lines.last?.suffix(64) ?? ""))
    #expect(raw.out.contains("inputs   0 to 255, not divided\n"), "\(raw.out)")
    let wrong = try place.run(Workplace.tinyTraining + ["--normalize", "zscore"])
    #expect(wrong.code == 64 && wrong.err.contains("zscore") && wrong.err.contains("standard"))
  }
}
