import Foundation
import Testing

import StrideNet

/// Learning rates and settings that are tried: in Swift, by `stridenet lr-find` and by
/// `stridenet sweep`.
@Suite struct SweepTests {
  // MARK: Learning rates

  private static func trainer(
    threads: Int = 2, _ change: (inout TrainingSettings) -> Void = { _ in }
  )
    throws -> Trainer
  {
    let sample = try NetworkTests.sample.get()
    let data = try Dataset(
      name: "few", source: "few", train: sample.train.prefix(330), test: sample.test.prefix(60))
    var settings = TrainingSettings()
    (settings.epochs, settings.batchSize, settings.seed) = (2, 32, 6)
    change(&settings)
    return try Trainer(
      Network(
        try Architecture.layers("conv(4,5,stride=2) batchnorm flatten dropout(0.1) softmax(10)"),
        seed: 6, runtime: Runtime(threads: threads)), data, settings)
  }

  @Test func ratesRiseByEqualRatios() throws {
    let sweep = try Self.trainer().sweepLearningRates(from: 1e-5, to: 0.1, steps: 51)
    #expect(sweep.points.count == 51 && !sweep.hasDiverged)
    var (average, weight) = (0.0, 0.0)
    for (index, point) in sweep.points.enumerated() {
      let rate = 1e-5 * pow(1e4, Double(index) / 50)
      #expect(abs(Double(point.rate) - rate) < 1e-5 * rate)
      (average, weight) = (0.9 * average + 0.1 * Double(point.loss), 0.9 * weight + 0.1)
      #expect(abs(Double(point.smoothed) - average / weight) < 1e-5)
    }
    let (lowest, steepest) = (try #require(sweep.lowest), try #require(sweep.steepest))
    #expect(sweep.points.allSatisfy { $0.smoothed >= lowest.smoothed })
    #expect(steepest.rate < lowest.rate && sweep.suggestion == steepest.rate)
    // The same mini-batches as the training's: the first loss is its first one.
    let trainer = try Self.trainer()
    var first: Float?
    trainer.onBatch { first = first ?? $0.cce }
    try trainer.run()
    #expect(sweep.points[0].loss == first)
  }

  /// Whatever the optimiser remembers, the training afterwards is the one that it would have been.
  @Test(arguments: 0..<3) func nothingIsLeftOfIt(kind: Int) throws {
    func settings(_ s: inout TrainingSettings) {
      if kind == 1 { (s.optimizer, s.learningRate) = (Optimizer(.adamw), 0.002) }
      if kind == 2 { (s.averageDecay, s.keepsBest) = (0.9, true) }
      s.augmentation = try? Augmentation("shift=1")
    }
    let plain = try Self.trainer(settings)
    try plain.run()
    let swept = try [1, 3].map { threads in
      let trainer = try Self.trainer(threads: threads, settings)
      let before = trainer.network.snapshot()
      let sweep = try trainer.sweepLearningRates(to: 1e4, steps: 40)
      #expect(trainer.network.snapshot() == before)
      try trainer.run()
      #expect(trainer.network.snapshot() == plain.network.snapshot())
      #expect(trainer.results.map(\.testCCE) == plain.results.map(\.testCCE))
      #expect(throws: StrideNetError.self) { try trainer.sweepLearningRates() }
      return sweep
    }
    #expect(swept[0].points.map(\.loss) == swept[1].points.map(\.loss))
    // Rates in the thousands are too large for anything.
    #expect(swept[0].hasDiverged || kind == 1)
  }

  @Test func whatDoesNotFallSuggestsNothing() throws {
    let sweep = try Self.trainer().sweepLearningRates(from: 1e-12, to: 1e-11, steps: 30)
    #expect(sweep.suggestion == nil && sweep.points.count == 30)
    for (low, high, steps) in [(1, 0.1, 30), (0, 1, 30), (0.1, .infinity, 30), (0.1, 1, 9)]
      as [(
        Float, Float, Int
      )]
    {
      #expect(throws: StrideNetError.self) {
        try Self.trainer().sweepLearningRates(from: low, to: high, steps: steps)
      }
    }
    let stopped = try Self.trainer()
    stopped.shouldStop = { true }
    #expect(try stopped.sweepLearningRates().points.isEmpty)
  }

  @Test func asTheArticleHasIt() throws {
    let trainer = try Self.trainer()
    let page = ArticlePage()
    func print(_ items: Any..., line: Int = #line) { page.print(items, line) }

    let rates = try trainer.sweepLearningRates(from: 1e-5, to: 10)
    print(rates.suggestion ?? .nan, rates.lowest?.rate ?? .nan)
    try trainer.run()

    #expect(rates.suggestion != nil)
  }

  @Test func lrFind() throws {
    let place = try Workplace()
    let options = ["--layers", "flatten softmax(10)", "--data", "digits", "--batch-size", "16"]
    let end = try place.run(["lr-find"] + options + ["--svg", "curve.svg"])
    #expect(end.code == 0 && end.err.isEmpty, "\(end.err)")
    #expect(end.out.contains("●") && end.out.contains("cross-entropy"))
    let rate = try #require(end.out.firstMatch(of: /try       --learning-rate (\S+)/)?.1)
    #expect(try #require(Float(rate)) > 1e-4)
    for line in end.lines.dropFirst(2) { #expect(line.count <= 80, "\(line)") }
    let svg = String(decoding: try place.read("curve.svg"), as: UTF8.self)
    #expect(svg.hasPrefix("<svg") && svg.contains("learning rate") && svg.contains("try \(rate)"))
    let json = try place.run(["lr-find"] + options + ["--json", "--steps", "40", "--highest", "3"])
    #expect(json.code == 0 && json.err.isEmpty && json.json.count == 1)
    let points = try #require(json.json[0]["points"] as? [[String: Any]])
    #expect((10...40).contains(points.count) && json.json[0]["suggestion"] is Double)
    // Nothing else is left.
    #expect(try place.names.filter { !$0.hasPrefix("digits") } == ["curve.svg"])
    for (words, message) in [
      (["--save", "w"], "--save means nothing to lr-find"), (["--nosuch"], "Unknown option"),
      (["--steps", "3"], "steps out of range"),
      (["--lowest", "20"], "learning rates out of order"),
      (["--epochs", "0"], "epochs out of range"),
    ] {
      let end = try place.run(["lr-find"] + options + words)
      #expect(end.code == 64 && end.err.contains(message), "\(words): \(end.err)")
    }
  }

  // MARK: Settings

  private static let base = [
    "--layers", "flatten softmax(10)", "--data", "digits", "--epochs", "2",
  ]
  private static let grid = ["--grid", "learning-rate=0.01,0.1,0.5", "--grid", "batch-size=16,20"]

  private func runs(_ end: Workplace.Outcome) -> [[String: Any]] {
    end.json.filter { $0["event"] as? String == "run" }
  }

  @Test func everyRunIsRepeatedByItsLine() throws {
    let place = try Workplace()
    let end = try place.run(["sweep"] + Self.base + Self.grid + ["--json", "--page", "s.html"])
    #expect(end.code == 0 && end.err.isEmpty, "\(end.err)")
    let runs = runs(end)
    #expect(runs.count == 6 && end.json.last?["runs"] as? Int == 6)
    #expect(Set(runs.compactMap { $0["line"] as? String }).count == 6)
    for run in runs {
      let line = try #require(run["line"] as? String)
      #expect(line.hasPrefix("stridenet train ") && line.contains("--validate 0.1"), "\(line)")
      let words = line.components(separatedBy: "'").enumerated()
        .flatMap { $0 % 2 == 1 ? [$1] : $1.split(separator: " ").map(String.init) }.dropFirst()
      let again = try place.run(Array(words) + ["--json"])
      #expect(try again.digest == run["weights_sha256"] as? String, "\(line): \(again.err)")
      let epoch = try #require(again.json.last { $0["event"] as? String == "epoch" })
      #expect(epoch["validation_ce"] as? Double == run["error"] as? Double)
    }
    // The best one is.
    let best = runs.min {
      ($0["error"] as! Double, $0["loss"] as! Double) < (
        $1["error"] as! Double, $1["loss"] as! Double
      )
    }
    #expect(end.json.last?["best"] as? String == best?["line"] as? String)
    let page = String(decoding: try place.read("s.html"), as: UTF8.self)
    #expect(
      page.contains("<svg") && page.components(separatedBy: "<code>stridenet train").count == 7)
    // For people the same.
    let text = try place.run(["sweep"] + Self.base + Self.grid)
    #expect(text.out.contains("best     \(best?["line"] as! String)\n"), "\(text.out)")
    #expect(text.lines.count { $0.contains("/6  learning-rate ") } == 6)
  }

  @Test func resultsAreKept() throws {
    let place = try Workplace()
    let long =
      [
        "sweep", "--layers", "flatten softmax(10)", "--data", "digits", "--epochs", "300", "--grid",
        "batch-size=8,9,10,11,12,13,14,15", "--results", "r.jsonl",
      ]
    let begun = try place.start(long)
    try begun.wait(for: "2/8  batch-size")
    let (stopped, _) = begun.stop(SIGINT)
    #expect(stopped.code == 130 && stopped.err.contains("goes on with"), "\(stopped.err)")
    let kept = String(decoding: try place.read("r.jsonl"), as: UTF8.self).split(separator: "\n")
    #expect((2...7).contains(kept.count))
    let end = try place.run(long + ["--json"])
    #expect(end.code == 0 && runs(end).count == 8)
    let all = String(decoding: try place.read("r.jsonl"), as: UTF8.self).split(separator: "\n")
    #expect(all.count == 8 && Array(all.prefix(kept.count)) == kept)
    #expect(
      zip(runs(end), kept).allSatisfy { run, line in
        line.contains("\"weights_sha256\":\"\(run["weights_sha256"] as! String)\"")
      })
    // On other data they don't count.
    try place.writeDigits("other") { file, bytes in
      file == "train-images-idx3-ubyte" ? bytes.dropLast() + [bytes.last! ^ 1] : bytes
    }
    let other = try place.run(long.map { $0 == "digits" ? "other" : $0 })
    #expect(other.code == 0 && !other.out.contains("(kept)"))
    try place.write("r.jsonl", "{\"a\": 1}\n")
    let broken = try place.run(long)
    #expect(broken.code == 65 && broken.err.contains("r.jsonl, line 1"), "\(broken.err)")
    #expect(try place.read("r.jsonl") == Array("{\"a\": 1}\n".utf8))
  }

  @Test func failuresAreNamedAndCounted() throws {
    let place = try Workplace()
    let end = try place.run(
      ["sweep"] + Self.base + ["--grid", "learning-rate=0.05,1e38", "--batch-size", "16"])
    #expect(end.code == 0 && end.out.contains("1 of 2 failed"), "\(end.out) \(end.err)")
    #expect(end.out.contains("failed   stridenet train ") && end.out.contains("no number any more"))
    let none = try place.run(
      ["sweep"] + Self.base + ["--grid", "learning-rate=1e37,1e38", "--batch-size", "16"])
    #expect(none.code == 65 && none.err.contains("no training came to an end"), "\(none.err)")
    // A batch that is too large for the data is one training's failure.
    let batch = try place.run(["sweep"] + Self.base + ["--grid", "batch-size=2000,16", "--json"])
    #expect(batch.code == 0 && batch.json.last?["failed"] as? Int == 1)
    #expect((runs(batch).first?["failure"] as? String)?.contains("batch size out of range") == true)
  }

  @Test func randomDrawsAndHalving() throws {
    let place = try Workplace()
    let words =
      ["sweep"] + Self.base.dropLast(2)
      + [
        "--random", "7", "--range", "learning-rate=0.001:0.1", "--range", "batch-size=8:20",
        "--range", "momentum=0:0.9:linear", "--grid", "optimizer=sgd,nesterov", "--json",
      ]
    let end = try place.run(words + ["--epochs", "1"])
    #expect(end.code == 0, "\(end.err)")
    let choices = try runs(end).map { run in
      Dictionary(
        uniqueKeysWithValues: try #require(run["choice"] as? [[String: String]]).map {
          ($0["name"]!, $0["value"]!)
        })
    }
    #expect(choices.count == 7 && Set(choices.map { "\($0)" }).count == 7)
    for choice in choices {
      #expect((0.001...0.1).contains(try #require(Double(choice["learning-rate"]!))))
      #expect((8...20).contains(try #require(Int(choice["batch-size"]!))))
      #expect((0...0.9).contains(try #require(Double(choice["momentum"]!))))
      #expect(["sgd", "nesterov"].contains(choice["optimizer"]!))
    }
    func lines(_ end: Workplace.Outcome) -> [String] { runs(end).map { $0["line"] as! String } }
    #expect(try lines(place.run(words + ["--epochs", "1"])) == lines(end))
    #expect(try lines(place.run(words + ["--epochs", "1", "--seed", "2"])) != lines(end))
    // 7 with 1 epoch, 3 with 3, 1 with 9: always the best of those before.
    let halved = runs(try place.run(words + ["--epochs", "9", "--halving"]))
    #expect(halved.map { $0["epochs"] as! Int } == [1, 1, 1, 1, 1, 1, 1, 3, 3, 3, 9])
    let first = halved.prefix(7).sorted {
      ($0["error"] as! Double, $0["loss"] as! Double) < (
        $1["error"] as! Double, $1["loss"] as! Double
      )
    }
    func values(_ run: [String: Any]) -> [String] {
      (run["choice"] as! [[String: String]]).map { $0["value"]! }
    }
    #expect(halved[7..<10].map(values) == first.prefix(3).map(values))
    // Fewer than there are to draw.
    let few = try place.run(
      ["sweep"] + Self.base + ["--random", "9", "--grid", "batch-size=16,17", "--json"])
    #expect(runs(few).count == 2)
  }

  @Test func wrongPlansAreRefused() throws {
    let place = try Workplace()
    for (words, message) in [
      ([], "nothing to try"), (["--grid", "learning-rate"], "nothing to try"),
      (["--grid", "learning-rate=0.1,0.1"], "empty or the same"),
      (["--grid", "a=1", "--grid", "a=2"], "named twice"),
      (["--grid", "learning-rat=1,2"], "Unknown option '--learning-rat'"),
      (["--grid", "schedule=foo,linear"], "no such schedule"),
      (["--grid", "save=a,b"], "--save means nothing to sweep"),
      (["--range", "learning-rate=0.1:1"], "a range has no end of values"),
      (["--random", "2", "--range", "learning-rate=1:0.1"], "no range to draw from"),
      (["--random", "2", "--range", "momentum=0:0.9"], "no even ratios"),
      (["--random", "0", "--range", "learning-rate=0.1:1"], "--random out of range"),
      (["--halving", "--grid", "epochs=1,2"], "--halving sets the epochs itself"),
      (["--halving", "--grid", "seed=1,2", "--epochs", "2"], "2 trainings of 2 epochs"),
      (["--halving", "--grid", "seed=1", "--epochs", "9"], "1 training of 9 epochs"),
      (["--grid", "batch-size=8,9", "--epochs", "0"], "epochs out of range"),
    ] {
      let end = try place.run(["sweep"] + Self.base.prefix(4) + words)
      #expect(end.code == 64 && end.err.contains(message), "\(words): \(end.err)")
      #expect(!end.out.contains("1/"), "\(words)")
    }
    let missing = try place.run("sweep", "flat", "--data", "none", "--grid", "batch-size=1,2")
    #expect(missing.code == 66)
  }
}
