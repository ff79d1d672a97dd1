import Foundation
import Testing

import StrideNet

/// Networks that are asked as one, and images that are shown several times.
@Suite struct EnsembleTests {
  private static let data = Result {
    let sample = try NetworkTests.sample.get()
    return try Dataset(
      name: "few", source: "few", train: sample.train.prefix(400), test: sample.test.prefix(301))
  }

  private static func network(
    _ text: String = "flatten relu(20) softmax(10)", seed: UInt64, threads: Int = 2
  ) throws -> Network {
    var settings = TrainingSettings()
    (settings.epochs, settings.batchSize, settings.seed) = (2, 20, seed)
    let network = Network(
      try Architecture.layers(text), seed: seed, runtime: Runtime(threads: threads))
    try Trainer(network, data.get(), settings).run()
    return network
  }

  /// The mean of the probabilities, its cross-entropy and its class error, as plain loops have them.
  @Test func isTheMean() throws {
    let networks = try [1, 2, 3].map { try Self.network(seed: $0) }
    let ensemble = try Ensemble(networks)
    let test = try Self.data.get().test
    let batch = test.batch(0..<test.count)
    let outputs = try networks.map { try $0.predict(batch.images).values }
    let mean = outputs[0].indices.map { i in outputs.reduce(0) { $0 + $1[i] } / 3 }
    expectClose(try ensemble.predict(batch.images).values, mean, within: 1e-6, "mean")
    var (loss, wrong) = (0.0, 0)
    for (n, label) in batch.labels.enumerated() {
      let row = mean[n * 10..<(n + 1) * 10]
      loss -= log(Double(row[row.startIndex + Int(label)]))
      wrong += row.firstIndex(of: row.max()!)! - row.startIndex == Int(label) ? 0 : 1
    }
    let metrics = try ensemble.metrics(test)
    #expect(abs(Double(metrics.cce) - loss / Double(test.count)) < 1e-5)
    #expect(metrics.images == 301 && metrics.ce == Double(wrong) / 301)
    // In other pieces the same.
    let pieces = try ensemble.metrics([0..<100, 100..<101, 101..<301].map { test.batch($0) })
    #expect(pieces.confusion == metrics.confusion && abs(pieces.cce - metrics.cce) < 1e-6)
    // One network is that network.
    let one = try Ensemble([networks[0]]).metrics(test)
    #expect(try one.cce == networks[0].metrics(test).cce)
    // The loss of probabilities where networks end in something else.
    let squared = Network(try Architecture.layers("flatten sigmoid(10)"))
    squared.loss = .meanSquaredError
    try squared.build(for: Shape(28, 28, 1))
    let twice = try Ensemble([squared, squared]).metrics(test)
    #expect(try abs(twice.cce - squared.metrics(test).cce) < 1e-6)
  }

  /// The first view is the image, the others depend on its number alone.
  @Test func viewsAreAveraged() throws {
    let network = try Self.network(seed: 1)
    var ensemble = try Ensemble([network])
    let augmentation = try Augmentation("shift=2,rotate=10")
    ensemble.views = try .init(augmentation, count: 4, seed: 9)
    let test = try Self.data.get().test
    let (all, images) = (Array(0..<test.count), test.batch(0..<test.count).images)
    var mean = try network.predict(images).values
    for view in 1..<4 {
      let changed = test.augmented(all, augmentation, seed: 9, epoch: view)
      for (i, value) in try network.predict(changed).values.enumerated() { mean[i] += value }
    }
    expectClose(
      try ensemble.predict(images).values, mean.map { $0 / 4 }, within: 1e-6, "four views")
    let metrics = try ensemble.metrics(test)
    for threads in [1, 3] {
      let other = try Self.network(seed: 1, threads: threads)
      var same = try Ensemble([other])
      same.views = ensemble.views
      let again = try same.metrics(test)
      #expect(again.cce == metrics.cce && again.confusion == metrics.confusion)
    }
    ensemble.views = try .init(augmentation, count: 1)
    #expect(try ensemble.predict(images).values == network.predict(images).values)
    for count in [0, 1001] {
      #expect(throws: StrideNetError.self) { try Ensemble.Views(augmentation, count: count) }
    }
  }

  @Test func whatDoesNotFitIsRefused() throws {
    func network(_ text: String, _ input: Shape = Shape(28, 28, 1), _ names: [String] = []) throws
      -> Network
    {
      let network = Network(try Architecture.layers(text))
      try network.build(for: input)
      network.classNames = names
      return network
    }
    let first = try network("flatten softmax(3)", Shape(28, 28, 1), ["a", "b", "c"])
    for (other, message) in [
      (try network("flatten softmax(3)", Shape(27, 28, 1), ["a", "b", "c"]), "other sizes"),
      (try network("flatten softmax(3)", Shape(28, 28, 1), ["a", "c", "b"]), "know other classes"),
      (try network("flatten softmax(4)"), "know other classes"),
      (try network("flatten sigmoid(3)", Shape(28, 28, 1), ["a", "b", "c"]), "end in other ways"),
    ] {
      do {
        _ = try Ensemble([first, other])
        Issue.record("taken: \(message)")
      } catch let error as StrideNetError {
        #expect(error.what.contains(message) && error.place == "network 2", "\(error)")
      }
    }
    #expect(throws: StrideNetError.self) { try Ensemble([]) }
    #expect(throws: StrideNetError.self) { try Ensemble([Network([Flatten(), Dense(3)])]) }
  }

  @Test func asTheArticleHasIt() throws {
    let (first, second) = (try Self.network(seed: 1), try Self.network(seed: 2))
    let data = try Self.data.get()
    let page = ArticlePage()
    func print(_ items: Any..., line: Int = #line) { page.print(items, line) }

    var ensemble = try Ensemble([first, second])
    ensemble.views = try Ensemble.Views(Augmentation("shift=1"), count: 5)
    print(try ensemble.metrics(data.test).accuracy)

    #expect(try ensemble.metrics(data.test).accuracy > 0.5)
  }

  // MARK: On the command line

  @Test func evaluateAndPredictTakeSeveral() throws {
    let place = try Workplace()
    for seed in ["1", "2"] {
      let end = try place.run(Workplace.tinyTraining + ["--seed", seed, "--save", "w\(seed)"])
      #expect(end.code == 0, "\(end.err)")
    }
    let both = try place.run("evaluate", "w1", "w2", "--data", "digits", "--json")
    #expect(both.code == 0 && both.err.isEmpty, "\(both.err)")
    #expect((both.json[0]["networks"] as? [String])?.count == 2)
    let text = try place.run("evaluate", "w1", "w2", "--data", "digits", "--confusion")
    #expect(text.lines.count { $0.hasPrefix("network  ") } == 2)
    let same = try place.run("evaluate", "w1", "w1", "--data", "digits", "--json")
    let one = try place.run("evaluate", "w1", "--data", "digits", "--json")
    #expect(same.json[0]["test_ce"] as? Double == one.json[0]["test_ce"] as? Double)
    #expect(one.json[0]["networks"] == nil && one.json[0]["views"] == nil)

    func probabilities(_ words: [String]) throws -> [[Double]] {
      let end = try place.run(["predict"] + words + ["--data", "digits", "--json"])
      #expect(end.code == 0 && end.err.isEmpty, "\(end.err)")
      return end.json.compactMap { $0["probabilities"] as? [Double] }
    }
    let (first, second) = (try probabilities(["w1"]), try probabilities(["w2"]))
    let mean = try probabilities(["w1", "w2"])
    #expect(mean.count == Workplace.testImages)
    for (row, parts) in zip(mean, zip(first, second)) {
      for (m, (a, b)) in zip(row, zip(parts.0, parts.1)) { #expect(abs(m - (a + b) / 2) < 1e-6) }
    }
    let shown = try probabilities(["w1", "--augment", "shift=1", "--views", "3"])
    #expect(shown != first && shown.count == first.count)
    let pictures = try place.run("predict", "w1", "w2", "digits/t10k-images-idx3-ubyte")
    #expect(pictures.lines.count == Workplace.testImages && pictures.code == 0)
  }

  @Test func mistakesAreNamed() throws {
    let place = try Workplace()
    try place.writeWeights("w")
    try place.writeWeights("other", "flatten softmax(4)")
    for (words, code, message) in [
      (["evaluate", "w", "other"], 65, "networks that know other classes"),
      (["evaluate", "w", "none"], 66, "none"),
      (["evaluate", "w", "--views", "3"], 64, "--views means nothing without --augment"),
      (["evaluate", "w", "--augment", "shift=1", "--views", "0"], 64, "views out of range"),
      (["evaluate", "w", "--augment", "melt=1"], 64, "no such change of images"),
      (["predict", "w", "other"], 64, "nothing to predict"),
    ] as [([String], Int32, String)] {
      let end = try place.run(words + (words[0] == "evaluate" ? ["--data", "digits"] : []))
      #expect(end.code == code && end.err.contains(message), "\(words): \(end.err)")
    }
  }
}
