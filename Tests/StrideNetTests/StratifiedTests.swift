import Foundation
import Testing

import StrideNet

/// Sets cut so that every part has of every class, weights of classes, and the k likeliest.
@Suite struct StratifiedTests {
  /// Images with these labels; a pixel tells each from the others.
  private static func data(_ labels: [Int]) throws -> Dataset {
    let set = try ImageSet(
      count: labels.count, height: 1, width: 2, channels: 1,
      pixels: labels.indices.flatMap { [UInt8($0 & 255), UInt8($0 >> 8)] }, labels: labels)
    return try Dataset(name: "few", source: "few", train: set, test: set.prefix(2))
  }

  private static func counts(_ set: ImageSet) -> [Int: Int] {
    Dictionary(grouping: set.labels, by: Int.init).mapValues(\.count)
  }

  /// Which images they are.
  private static func places(_ set: ImageSet) -> [Int] {
    stride(from: 0, to: set.pixels.count, by: 2).map {
      Int(set.pixels[$0]) + 256 * Int(set.pixels[$0 + 1])
    }
  }

  private static let uneven = [60, 30, 9, 1, 2].enumerated().flatMap {
    [Int](repeating: $0, count: $1)
  }

  @Test(arguments: [0.33, 1, 7, 34, 90, 101]) func eachClassHasItsShare(amount: Double) throws {
    for labels in [Self.uneven, Self.uneven.reversed(), Self.uneven.indices.map { $0 % 5 }] {
      let data = try Self.data(labels)
      let held = try data.holdingOut(amount, seed: 7)
      let n = amount < 1 ? Int((amount * 102).rounded()) : Int(amount)
      #expect(held.test.count == n && held.train.count == 102 - n)
      let all = Self.places(held.train) + Self.places(held.test)
      #expect(all.sorted() == Array(0..<102))
      let (out, whole) = (Self.counts(held.test), Self.counts(data.train))
      for (label, count) in whole {
        let share = Double(count * n) / 102
        let found = out[label] ?? 0
        #expect(
          abs(Double(found) - share) < 1.5, "class \(label): \(found), \(share)")
        // Nothing is held out as a whole where that needn't be.
        #expect(found < count || n > 97)
      }
      #expect(try Self.places(data.holdingOut(amount, seed: 7).test) == Self.places(held.test))
      if n > 1 && n < 100 {
        #expect(try Self.places(data.holdingOut(amount, seed: 8).test) != Self.places(held.test))
      }
    }
  }

  @Test(arguments: [2, 3, 5, 102]) func foldsAreAlike(count: Int) throws {
    let data = try Self.data(Self.uneven)
    let folds = try data.folds(count, seed: 3)
    #expect(folds.count == count)
    #expect(folds.flatMap { Self.places($0.test) }.sorted() == Array(0..<102))
    for fold in folds {
      #expect(fold.test.count == 102 / count || fold.test.count == 102 / count + 1)
      #expect((Self.places(fold.train) + Self.places(fold.test)).sorted() == Array(0..<102))
      let found = Self.counts(fold.test)
      for (label, all) in Self.counts(data.train) {
        #expect(abs(Double(found[label] ?? 0) - Double(all) / Double(count)) < 1)
      }
    }
    for wrong in [-1, 0, 1, 103] {
      #expect(throws: StrideNetError.self) { try data.folds(wrong) }
    }
  }

  // MARK: Class weights

  struct Expected: Decodable {
    struct Case: Decodable {
      let n, classes: Int
      let smoothing, loss: Float
      let dlogits: [Float]
    }
    let cases: [Case]
  }

  @Test func weightedLossesAreThoseOfPyTorch() throws {
    for c in try expectations(Expected.self, "class_weights.json").cases {
      let logits = Guarded(values(c.n * c.classes, 1).map { 6 * $0 })
      let (gradient, losses) = (Guarded<Float>(c.n * c.classes), Guarded<Float>(c.n))
      let wrong = Guarded<Int32>(c.n)
      let labels = (0..<c.n).map { Int32(7 * $0 % c.classes) }
      let best = (0..<c.n).map { row in
        let values = logits.values[row * c.classes..<(row + 1) * c.classes]
        return values.firstIndex(of: values.max()!)! - row * c.classes
      }
      labels.withUnsafeBufferPointer {
        Loss.crossEntropy(labelSmoothing: c.smoothing).compute(
          LossBatch(
            output: TensorView(logits.pointer, batch: c.n, shape: Shape(c.classes)),
            gradient: gradient.pointer, loss: losses.pointer, wrong: wrong.pointer),
          .labels($0.baseAddress!), endsInSoftmax: true,
          classWeights: values(c.classes, 2).map { 0.6 + $0 })
      }
      #expect(gradient.guardsHold && losses.guardsHold && wrong.guardsHold && logits.guardsHold)
      expectClose(
        [losses.values.reduce(0, +) / Float(c.n)], [c.loss], within: 4e-6, "loss of \(c.n)")
      expectClose(gradient.values, c.dlogits, within: 1e-6, "gradient of \(c.n)")
      #expect(wrong.values == zip(labels, best).map { Int($0) == $1 ? 0 : 1 })
    }
  }

  /// The gradient of a whole network, against finite differences of the definition.
  @Test func weightedGradientsAreSlopes() throws {
    let weights: [Float] = [0.3, 2, 5]
    func network() throws -> Network {
      let network = Network(try Architecture.layers("flatten tanh(4) softmax(3)"), seed: 3)
      try network.build(for: Shape(2, 2, 1))
      network.loss = .crossEntropy(labelSmoothing: 0.1)
      network.classWeights = weights
      return network
    }
    let batch = Batch(
      images: try Tensor(batch: 7, shape: Shape(2, 2, 1), values(28, 5)),
      labels: (0..<7).map { Int32($0 * 5 % 3) })
    func loss(_ network: Network) throws -> Double {
      let p = try network.predict(batch.images).values.map(Double.init)
      var (sum, total) = (0.0, 0.0)
      for (row, label) in batch.labels.enumerated() {
        for c in 0..<3 {
          let t = (c == Int(label) ? 0.9 : 0) + 0.1 / 3
          sum -= t * Double(weights[c]) * log(p[row * 3 + c])
        }
        total += Double(weights[Int(label)])
      }
      return sum / total
    }
    let network = try network()
    let trained = try network.copy()
    let (_, cce, _) = try trained.train(batch, learningRate: 1e-9)
    #expect(abs(Double(cce) - (try loss(network))) < 1e-6)
    for name in ["layers.1.weight", "layers.2.weight", "layers.2.bias"] {
      let (start, slopes) = (try network.weights(name), try trained.gradient(name))
      for i in start.indices {
        let sides = try [Float(0.01), -0.01].map { step in
          var moved = start
          moved[i] += step
          try network.setWeights(name, moved)
          return try loss(network)
        }
        try network.setWeights(name, start)
        let slope = (sides[0] - sides[1]) / 0.02
        #expect(abs(slope - Double(slopes[i])) < 2e-4, "\(name) \(i)")
      }
    }
  }

  @Test func weightsThatFitNothingAreRefused() throws {
    let data = try Self.data(Self.uneven)
    func start(_ layers: String, _ weights: [Float]) throws {
      var settings = TrainingSettings()
      (settings.batchSize, settings.classWeights) = (8, weights)
      let network = Network(try Architecture.layers(layers))
      if layers.hasSuffix("tanh(5)") { network.loss = .meanSquaredError }
      _ = try Trainer(network, data, settings)
    }
    try start("flatten softmax(5)", [1, 2, 3, 4, 5])
    for (layers, weights) in [
      ("flatten softmax(5)", [1, 2, 3, 4]), ("flatten softmax(5)", [1, 2, 3, 4, 0]),
      ("flatten softmax(5)", [1, 2, 3, 4, .infinity]), ("flatten softmax(5)", []),
      ("flatten tanh(5)", [1, 2, 3, 4, 5]),
    ] as [(String, [Float])] {
      #expect(throws: StrideNetError.self, "\(layers) \(weights)") { try start(layers, weights) }
    }
  }

  @Test func balancedWeightsAndFiles() throws {
    let data = try Self.data(Self.uneven)
    let balanced = try Dataset.classWeights("balanced", [], data.train.labels, outputs: 6)
    #expect(data.train.balancedClassWeights(classes: 6) == balanced)
    let expected: [Float] = [60, 30, 9, 1, 2].map { (images: Double) in Float(102 / (5 * images)) }
    #expect(balanced == expected + [1])
    let names = ["a", "b, c", "d", "\"e\"", "f"]
    let folder = try TemporaryFolder()
    func weights(_ text: String) throws -> [Float] {
      try Dataset.classWeights(folder.write("w", Array(text.utf8)), names, [], outputs: 5)
    }
    let lines = "name,weight\r\n\"b, c\", 2\na,1\n{\"name\": \"d\", \"weight\": 3}\n\n"
    #expect(try weights(lines + #""""e""",4"# + "\nf,0.5") == [1, 2, 3, 4, 0.5])
    for (text, said) in [
      ("a,1", "b, c"), ("a,1\na,2", "again"), ("a,-1", "-1"), ("a,nan", "nan"), ("z,1", "'z'"),
      ("a", "line 1"), ("a,1\n{\"name\":\"d\"}", "line 2"), ("a,one", "one"), (",3", "line 1"),
    ] {
      let error = #expect(throws: StrideNetError.self) { try weights(text) }
      #expect(error?.description.contains(said) == true, "\(error?.description ?? text)")
    }
    #expect(throws: StrideNetError.self) { try Dataset.classWeights("none", names, [], outputs: 5) }
  }

  // MARK: The k likeliest

  @Test func topAccuraciesAreCountedByRanks() throws {
    let network = Network(try Architecture.layers("dense(4)"))
    try network.build(for: Shape(4))
    network.loss = .meanSquaredError
    try network.setWeights { name in
      name.hasSuffix("weight") ? (0..<16).map { $0 % 5 == 0 ? 1 : 0 } : [0, 0, 0, 0]
    }
    let rows: [[Float]] = [[4, 3, 2, 1], [1, 1, 1, 1], [0, 5, 5, 9], [.nan, 1, 2, 3]]
    let labels: [Int] = [0, 2, 2, 0]
    let set = try TensorSet(
      Tensor(batch: 4, shape: Shape(4), rows.flatMap { $0 }), labels: labels)
    let batch = Batch(
      images: try Tensor(batch: 4, shape: Shape(4), rows.flatMap { $0 }), labels: labels)
    for metrics in [try network.metrics(set), try network.metrics([batch])] {
      // Ranks: the first, the third of equal ones, the third, and behind all.
      #expect((0...5).map { metrics.topAccuracy($0) } == [0, 0.25, 0.25, 0.75, 0.75, 1])
    }
    #expect(Metrics(cce: 0, confusion: [[1]]).topAccuracy(1) == nil)
  }

  // MARK: On the command line

  @Test func aSetSortedByClassIsHeldOutOfAllClasses() throws {
    let place = try Workplace()
    try place.writeDigits("sorted") { file, bytes in
      file.hasPrefix("train-labels")
        ? Array(bytes.prefix(8)) + (0..<64).map { UInt8($0 * 3 / 64) } : bytes
    }
    let training = ["--layers", Workplace.tiny, "--data", "sorted", "--batch-size", "8", "--json"]
    let end = try place.run(training + ["--validate", "0.33", "--epochs", "1"])
    #expect(end.code == 0, "\(end.err)")
    #expect(end.json.first?["validation_images"] as? Int == 21)
    #expect((end.json.first?["data"] as? String)?.contains("of all classes") == true)
    // The order's seed is its own.
    let one = try place.run(training + ["--shuffle", "5"]).digest
    #expect(try one == place.run(training + ["--shuffle", "5", "--seed", "1"]).digest)
    #expect(try one != place.run(training).digest)
    #expect(try one != place.run(training + ["--shuffle", "5", "--seed", "2"]).digest)
    #expect(try place.run(training + ["--shuffle", "1"]).digest == place.run(training).digest)
  }

  @Test func classWeightsOnTheCommandLine() throws {
    let place = try Workplace()
    let training = Workplace.tinyTraining + ["--json"]
    let plain = try place.run(training).digest
    let balanced = try place.run(
      training + ["--class-weights", "balanced", "--checkpoint", "c", "--write-config", "r.json"])
    #expect(try balanced.digest != plain)
    #expect(try place.run("train", "--config", "r.json", "--json").digest == balanced.digest)
    #expect(try place.run("train", "--resume", "c", "--json").digest == balanced.digest)
    let again = try place.run("train", "--resume", "c", "--class-weights", "balanced")
    #expect(again.code == 64 && again.err.contains("--class-weights"), "\(again.err)")
    try place.write("w.csv", Array((0..<10).map { "\($0),1\n" }.joined().utf8))
    // All alike are none, but for rounding.
    let alike = try place.run(training + ["--class-weights", "w.csv"])
    let losses = try [alike, place.run(training)].map {
      try #require($0.json[1]["train_cce"] as? Double)
    }
    #expect(abs(losses[0] - losses[1]) < 1e-5)
    let missing = try place.run(training + ["--class-weights", "none.csv"])
    #expect(missing.code == 66 && missing.err.contains("none.csv"), "\(missing.err)")
  }

  @Test func topKOnTheCommandLine() throws {
    let place = try Workplace()
    let end = try place.run(Workplace.tinyTraining + ["--top-k", "3", "--json", "--save", "w"])
    let top = try #require(end.json.last?["test_top_k_accuracy"] as? Double)
    #expect(end.json.last?["top_k"] as? Int == 3)
    #expect(top >= end.json.last!["test_accuracy"] as! Double)
    let judged = try place.run(["evaluate", "w", "--data", "digits", "--json", "--top-k", "3"])
    #expect(judged.json.first?["test_top_k_accuracy"] as? Double == top)
    let text = try place.run(["evaluate", "w", "--data", "digits", "--top-k", "10"])
    #expect(text.out.contains("top-10 100.00 %"), "\(text.out)")
    for k in ["0", "11", "-1"] {
      let wrong = try place.run(["evaluate", "w", "--data", "digits", "--top-k", k])
      #expect(wrong.code == 64 && wrong.err.contains("1 … 10"), "\(wrong.err)")
    }
    #expect(try place.run(Workplace.tinyTraining + ["--top-k", "11"]).code == 64)
  }

  @Test func foldsOnTheCommandLine() throws {
    let place = try Workplace()
    let training = Workplace.tinyTraining + ["--folds", "3"]
    let end = try place.run(
      training + ["--json", "--save", "w.safetensors", "--write-config", "r"])
    try #require(end.code == 0 && end.err.isEmpty, "\(end.err)")
    #expect(end.json.map { $0["event"] as? String } == ["start", "fold", "fold", "fold", "folds"])
    let folds = end.json[1...3]
    #expect(folds.map { $0["validation_images"] as? Int } == [22, 21, 21])
    let accuracies = folds.compactMap { $0["validation_accuracy"] as? Double }
    let mean = accuracies.reduce(0, +) / 3
    let variance = accuracies.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / 2
    let last = end.json[4]
    #expect(abs(last["accuracy_mean"] as! Double - mean) < 1e-12)
    #expect(abs(last["accuracy_deviation"] as! Double - variance.squareRoot()) < 1e-12)
    for (index, fold) in folds.enumerated() {
      #expect(fold["file"] as? String == "w-\(index + 1).safetensors")
      let saved = try place.run(
        ["evaluate", "w-\(index + 1).safetensors", "--data", "digits", "--json"])
      #expect(saved.json.first?["weights_sha256"] as? String == fold["weights_sha256"] as? String)
    }
    let again = try place.run("train", "--config", "r", "--json", "--threads", "3")
    #expect(
      again.json.map { $0["weights_sha256"] as? String }
        == end.json.map { $0["weights_sha256"] as? String })
    let text = try place.run(training)
    #expect(text.lines.contains { $0.hasPrefix("folds    3, each held out once; the 20 test") })
    #expect(text.lines.filter { $0.hasPrefix("fold ") }.count == 3)
    #expect(text.lines.last!.contains(" ± "), "\(text.out)")
    #expect(try place.run(training + ["--quiet"]).lines.count == 1)
    for (options, said) in [
      (["--validate", "0.2"], "--validate"), (["--checkpoint", "c"], "--checkpoint"),
      (["--report", "a.html"], "--report"), (["--log-dir", "l"], "--log-dir"),
      (["--profile"], "--profile"), (["--top-k", "2"], "--top-k"),
    ] {
      let wrong = try place.run(training + options)
      #expect(wrong.code == 64 && wrong.err.contains("\(said) and --folds"), "\(wrong.err)")
    }
    for option in ["--folds", "--validate"] {
      let wrong = try place.run(Workplace.tinyTraining + ["--split", "0.01", option, "2"])
      #expect(wrong.code == 64 && wrong.err.contains("more than 1 training image"), "\(wrong.err)")
    }
    for count in ["1", "65", "-2"] {
      let wrong = try place.run(Workplace.tinyTraining + ["--folds", count])
      #expect(wrong.code == 64 && wrong.err.contains("folds"), "\(wrong.err)")
    }
  }
}
