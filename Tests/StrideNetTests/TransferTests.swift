import Foundation
import Testing

import StrideNet
@testable import StrideNetCore

/// Layers that stay as they are, and trainings that start from what a network has learned.
@Suite struct TransferTests {
  static let texts =
    NormalizationTests.texts + [
      "conv(5,3) conv(6,3) maxpool(2) conv(4,3) flatten relu(9) softmax(10)"
    ]

  /// Whatever is frozen, by whatever it is trained: those arrays stay bit for bit, their gradients are
  /// 0, others move, and nothing depends on the threads.
  @Test(arguments: texts, 0..<4) func frozenLayersStay(text: String, kind: Int) throws {
    let batches = try NetworkTests.batches(3, of: 37)
    let layers = try Architecture.layers(text)
    let optimizers = [
      Optimizer(.sgd, weightDecay: 0.1), Optimizer(.adamw, weightDecay: 0.5), Optimizer(.nesterov),
      Optimizer(.rmsprop),
    ]
    var optimizer = optimizers[kind]
    optimizer.clipNorm = kind == 1 ? nil : 0.5
    let head = layers.count - 1
    let sets: [Set<Int>] = [
      Set(0..<head), [0, 1], Set(1...head), Set(layers.indices.filter { $0 % 2 == kind % 2 }),
    ]
    let frozen = sets[kind]
    let ends = try [1, 3].map { threads in
      let network = Network(layers, seed: 4, runtime: Runtime(threads: threads))
      network.frozenLayers = frozen
      network.regularize(L2(0.3))
      let before = try {
        try network.build(for: Shape(28, 28, 1)); return network.snapshot().arrays
      }()
      for batch in batches { try network.train(batch, learningRate: 0.02, optimizer: optimizer) }
      var moved = 0
      for (old, new) in zip(before, network.snapshot().arrays) {
        let layer = try #require(Int(old.name.split(separator: ".")[1]))
        if frozen.contains(layer) {
          #expect(old.values == new.values, "\(text), \(old.name)")
          #expect(try network.gradient(old.name).allSatisfy { $0 == 0 }, "\(old.name)")
        } else {
          moved += old.values != new.values ? 1 : 0
        }
      }
      #expect(moved > 0 || network.parameterCount == 0 || frozen.count == layers.count, "\(text)")
      return network.snapshot()
    }
    #expect(ends[0] == ends[1])
  }

  /// What is above frozen layers is trained as a network of its own on their outputs would be.
  @Test func theRestIsTrainedAsIfItWereAlone() throws {
    let body = "conv(6,3,activation=none) batchnorm(activation=relu) maxpool(2) flatten relu(20)"
    let whole = Network(try Architecture.layers(body + " relu(12) softmax(10)"), seed: 3)
    let batches = try NetworkTests.batches(5, of: 37)
    for batch in batches { try whole.train(batch, learningRate: 0.05) }
    let below = Network(try Architecture.layers(body))
    try below.build(for: Shape(28, 28, 1))
    try below.copyWeights(from: whole, layers: 0..<5)
    let above = Network(try Architecture.layers("relu(12) softmax(10)"))
    try above.build(for: Shape(20))
    for (name, _) in above.arrays {
      let parts = name.split(separator: ".")
      try above.setWeights(name, whole.weights("layers.\(Int(parts[1])! + 5).\(parts[2])"))
    }
    whole.frozenLayers = Set(0..<5)
    for batch in batches {
      let features = try below.predict(batch.images)
      let (_, one, _) = try whole.train(batch, learningRate: 0.05)
      let (_, other, _) = try above.train(
        Batch(images: features, labels: batch.labels), learningRate: 0.05)
      #expect(abs(one - other) < 1e-4 * one, "\(one), \(other)")
    }
    for (name, _) in above.arrays {
      let parts = name.split(separator: ".")
      expectClose(
        try whole.weights("layers.\(Int(parts[1])! + 5).\(parts[2])"), try above.weights(name),
        within: 2e-5, name)
    }
  }

  /// Five steps, then five with frozen layers, clipped, as PyTorch does them; then an evaluation.
  @Test(arguments: KernelChoice.names, [true, false]) func frozenPyTorch(
    kernels: String, fusing: Bool
  )
    throws
  {
    let run = try expectations(NormalizationTests.Expected.Run.self, "frozen.json")
    let runtime = Runtime(
      threads: 2, kernels: try KernelChoice(named: kernels), fusing: fusing)
    let network = Network(try Architecture.layers(run.text), runtime: runtime)
    try NormalizationTests.start(network, run)
    var optimizer = Optimizer(.sgd)
    optimizer.clipNorm = 0.7
    let batches = try NetworkTests.batches(11, of: 32)
    for (step, loss) in run.losses.enumerated() {
      if step == 5 { network.frozenLayers = [1, 3, 8] }
      let found = try network.train(batches[step], learningRate: 0.05, optimizer: optimizer).cce
      #expect(abs(Double(found) - loss) <= 2e-4 * loss, "step \(step): \(found), PyTorch \(loss)")
    }
    let (_, cce, _) = try network.evaluate(batches[10].images, batches[10].labels)
    #expect(abs(Double(cce) - run.eval) <= 5e-4 * run.eval, "\(cce), PyTorch \(run.eval)")
  }

  // MARK: Starting from a network

  private static func data(_ names: [String], classes: Int = 10) throws -> Dataset {
    let sample = try NetworkTests.sample.get()
    func part(_ set: ImageSet) -> ImageSet {
      set.picking((0..<set.count).filter { set.labels[$0] < classes })
    }
    return try Dataset(
      name: "few", source: "few", train: part(sample.train.prefix(300)),
      test: part(sample.test.prefix(100)), classNames: names)
  }

  @Test func theLastLayerIsNewForOtherClasses() throws {
    let network = Network(
      try Architecture.layers(
        "conv(4,3) batchnorm flatten relu(8,init=glorot_uniform) dropout(0.1) softmax(10)"))
    let digits = try Self.data((0..<10).map(String.init))
    try Trainer(
      network, digits,
      {
        var s = TrainingSettings(); s.epochs = 1; return s
      }()
    ).run()

    let same = try network.copy(for: digits, seed: 7)
    #expect(network.hasClasses(of: digits) && same.snapshot() == network.snapshot())
    // Nothing is shared.
    try same.train(digits.train.batch(0..<32), learningRate: 0.1)
    #expect(same.snapshot() != network.snapshot())

    for names in [["a", "b", "c"], ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"]] {
      let other = try Self.data(names, classes: names.count)
      let new = try network.copy(for: other, seed: 7)
      #expect(!network.hasClasses(of: other) && new.classNames == names)
      #expect(new.layers.last!.text == "softmax(\(names.count))")
      let begun = Network(new.layers, seed: 7)
      try begun.build(for: Shape(28, 28, 1))
      for (name, _) in new.arrays {
        let isHead = name.hasPrefix("layers.5.")
        #expect(
          try new.weights(name) == (isHead ? begun : network).weights(name), "\(name)")
      }
    }
    // What follows the dense layer may have no weights, and there must be one.
    let activated = Network(try Architecture.layers("flatten dense(10) activation(softmax)"))
    try activated.build(for: Shape(28, 28, 1))
    #expect(try activated.copy(outputs: 3).layers.map(\.text)[1] == "dense(3)")
    for text in ["conv(10,28,activation=softmax)", "flatten relu(9) layernorm activation(softmax)"]
    {
      let headless = Network(try Architecture.layers(text))
      try headless.build(for: Shape(28, 28, 1))
      #expect(throws: StrideNetError.self) { try headless.copy(outputs: 3) }
    }
    #expect(throws: StrideNetError.self) {
      try Network([Flatten(), Dense(3)]).copy(outputs: 2)
    }
  }

  @Test func asTheArticleHasIt() throws {
    let folder = try TemporaryFolder()
    let path = "\(folder.path)/digits.safetensors"
    let digits = Network(try Architecture.layers("conv(4,5,stride=2) flatten softmax(10)"))
    try digits.build(for: Shape(28, 28, 1))
    try digits.save(to: path)
    let animals = try Self.data(["cat", "dog", "eel"], classes: 3)
    let settings = TrainingSettings()

    let learned = try Network.load(from: path)
    let further = try learned.copy(for: animals, seed: 3)
    further.frozenLayers = Set(0..<further.layers.count - 1)
    try Trainer(further, animals, settings).run()

    #expect(try further.weights("layers.0.weight") == digits.weights("layers.0.weight"))
    #expect(further.classNames == ["cat", "dog", "eel"] && further.shapes.last == Shape(3))
  }

  // MARK: What to try

  private static func advice(
    _ text: String, epochs: Int = 1, batch: Int = 3, rate: Float,
    _ change: (Network) throws -> Void = { _ in }
  ) throws -> String? {
    var settings = TrainingSettings()
    (settings.epochs, settings.batchSize, settings.learningRate) = (epochs, batch, rate)
    let network = Network(try Architecture.layers(text))
    let trainer = try Trainer(network, data((0..<10).map(String.init)), settings)
    try change(network)
    let before = try trainer.advice()
    guard before == nil else { return before }
    try trainer.run()
    return try trainer.advice()
  }

  @Test func adviceFitsWhatIsWrong() throws {
    let text = "conv(4,5,stride=2) maxpool(2) flatten relu(12) softmax(10)"
    #expect(try Self.advice(text, epochs: 3, rate: 0.02) == nil)
    #expect(
      try Self.advice("flatten softmax(10)", rate: 1e-9)?.contains("is small for sgd") == true)
    #expect(
      try Self.advice("flatten sigmoid(4) softmax(10)", rate: 3)?.contains("is large") == true)
    // Too few steps to tell.
    #expect(try Self.advice("flatten softmax(10)", batch: 30, rate: 1e-9) == nil)
    // ReLUs that no image opens.
    let dead = try Self.advice(text, rate: 0.001) { network in
      try network.setWeights("layers.0.bias", [-100, -100, -100, -100])
    }
    #expect(
      dead?.contains("all 4 outputs of layer 1, conv(4,5,stride=2), are 0") == true,
      "\(dead ?? "nothing")")
    let single = try Self.advice(
      "residual(conv(1,3,padding=1) batchnorm) flatten softmax(10)", batch: 1, rate: 0.01)
    #expect(single?.contains("(layer 1)") == true && single?.contains("layernorm") == true)
  }

  @Test func hintsAreShownOnce() throws {
    let place = try Workplace()
    let options = [
      "--layers", "flatten softmax(10)", "--data", "digits", "--batch-size", "1", "--epochs", "4",
      "--learning-rate", "1e-9",
    ]
    let end = try place.run(options)
    #expect(end.code == 0 && end.err.hasPrefix("hint: it doesn't learn"), "\(end.err)")
    #expect(end.err.split(separator: "hint: ").count == 1)
    let json = try place.run(options + ["--json"])
    #expect(json.json.filter { $0["event"] as? String == "hint" }.count == 1 && json.err.isEmpty)
    #expect(try place.run(options + ["--quiet"]).err.isEmpty)
  }

  @Test func nothingLeftToTrainIsRefused() throws {
    let network = Network(try Architecture.layers("flatten relu(8) softmax(10)"))
    var settings = TrainingSettings()
    settings.frozenLayers = [1, 2]
    #expect(throws: StrideNetError.self) {
      try Trainer(network, Self.data((0..<10).map(String.init)), settings)
    }
  }

  // MARK: On the command line

  private static let layers = "flatten relu(6) batchnorm softmax(10)"

  @Test func fromGoesOnAndResumes() throws {
    let place = try Workplace()
    let first = try place.run(
      ["--layers", Self.layers] + Workplace.brief + ["--save", "w", "--json"])
    let more =
      [
        "--data", "digits", "--batch-size", "16", "--epochs", "3", "--seed", "4", "--json",
        "--freeze", "layers 1-3", "--checkpoint", "c",
      ]
    let end = try place.run(["--from", "w", "--write-config", "run.json"] + more)
    try #require(end.code == 0, "\(end.err)")
    let start = end.json[0]
    #expect(start["from"] as? String == "w" && start["new_last_layer"] as? Bool == false)
    #expect(start["trained_parameters"] as? Int == 70 && start["layers"] as? String == Self.layers)
    // It went on: the first epoch is better than the first one's.
    #expect(try first.digest != end.digest)
    // The configuration repeats it, and knows the weights.
    let again = try place.run("train", "--config", "run.json", "--json")
    #expect(try again.digest == end.digest, "\(again.err)")
    let named = try place.run(["--from", "w", "--freeze", "all-but-last"] + more.prefix(6))
    #expect(named.code == 0 && named.out.contains("from     w, all weights"), "\(named.err)")
    // Other weights there are another run.
    try place.writeWeights("w", Self.layers, seed: 3)
    let changed = try place.run("train", "--config", "run.json")
    #expect(changed.code == 65 && changed.err.contains("other weights"), "\(changed.err)")
  }

  @Test func resumedFromIsTheSame() throws {
    let place = try Workplace()
    try place.writeWeights("w", Self.layers, seed: 9)
    let options = [
      "--from", "w", "--data", "digits", "--batch-size", "16", "--epochs", "400",
      "--freeze", "2", "--json",
    ]
    let whole = try place.run(options).digest
    let part = try place.start(options + ["--checkpoint", "c"])
    try part.wait(for: "\"epoch\":2,")
    _ = part.stop(SIGINT)
    #expect(try place.run("train", "--resume", "c", "--json").digest == whole)
  }

  @Test func contradictionsAreRefused() throws {
    let place = try Workplace()
    try place.writeWeights("w", Self.layers)
    let options = ["--data", "digits", "--batch-size", "16", "--epochs", "1"]
    for (words, message) in [
      (["cnn"], "another network than the file has"),
      (["--layers", "flatten relu(7) batchnorm softmax(10)"], "another network than the file has"),
      (["--freeze", "1-4"], "nothing is left to train"), (["--freeze", "all"], "no layers"),
      (["--freeze", "layers 9"], "no such layers to freeze"),
    ] {
      let end = try place.run(words + ["--from", "w"] + options)
      #expect(end.code == 64 && end.err.contains(message), "\(words): \(end.err)")
    }
    // The same network said again is none.
    #expect(try place.run(["--layers", Self.layers, "--from", "w"] + options).code == 0)
    #expect(try place.run(["--from", "none"] + options).code == 66)
  }
}
