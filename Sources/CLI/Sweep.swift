import ArgumentParser
import Foundation
import StrideNet

struct Sweep: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Trains with many settings and says which came out best.",
    discussion: """
      Takes a model and options of 'stridenet train', and tries values for some of them: all \
      combinations of the lists (--grid), or some that are drawn (--random, --range). They are judged \
      on images that are held out of the training set, a tenth unless --validate or the data says \
      otherwise; the test set stays unseen. Each training is repeated by the line that is printed.
      """)

  @Argument(
    parsing: .allUnrecognized,
    help: ArgumentHelp("A model and options, as train takes them.", valueName: "train-options"))
  var arguments: [String] = []

  @Option(
    parsing: .unconditionalSingleValue,
    help: ArgumentHelp(
      "An option and its values: learning-rate=0.01,0.1, or with ; between them; model=cnn,lenet too. May be given several times.",
      valueName: "option=values"))
  var grid: [String] = []

  @Option(
    parsing: .unconditionalSingleValue,
    help: ArgumentHelp(
      "An option and what to draw its value between, evenly by ratio: learning-rate=0.001:0.1; with :linear by difference.",
      valueName: "option=low:high"))
  var range: [String] = []

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp("Draw so many, by the seed, instead of all.", valueName: "trainings"))
  var random: Int?

  @Flag(
    help:
      "Successive halving: first all with few epochs, then the best third with three times as many, and so on."
  )
  var halving = false

  @Option(
    help: ArgumentHelp(
      "Keep results there, as they come (JSON, a line each); those that are there aren't trained again.",
      valueName: "file"))
  var results: String?

  @Option(help: ArgumentHelp("Write a page with the results there.", valueName: "html"))
  var page: String?

  @Flag(help: "Print JSON, an object a line.")
  var json = false

  /// What a training came to.
  struct Result: Codable {
    var event = "run"
    let line: String
    let choice: [SweepPlan.Choice]
    /// SHA-256 of the images that it was trained and judged on; nil where it didn't come so far.
    let data: String?
    let epochs: Int?
    /// Whose loss and share of wrong images these are, of numbers to predict the mean R².
    let error, r2, loss, train_error, train_loss: Float?
    let seconds: Double?
    let weights_sha256: String?
    /// Why it came to nothing, if it did.
    let failure: String?

    /// What is judged by, 0 at best: the error, or the share of the variance that isn't predicted.
    var score: Float? { error ?? r2.map { 1 - $0 } ?? loss }

    /// The error, or R².
    var text: String {
      error.map { "error \($0.percent())" } ?? "R² \(RegressionMetrics.r2(r2.map { Double($0) }))"
    }

    /// Better ones first.
    func isBetter(than other: Result) -> Bool {
      guard let score, let loss else { return false }
      guard let otherScore = other.score, let otherLoss = other.loss else { return true }
      return (score, loss) < (otherScore, otherLoss)
    }
  }

  func validate() throws {
    if let random, random < 1 {
      throw ValidationError("--random out of range: found \(random), expected at least 1")
    }
  }

  func run() throws {
    let plan = try SweepPlan(grid: grid, ranges: range)
    guard !plan.axes.isEmpty else {
      throw StrideNetError(
        .usage, "nothing to try",
        expected: "--grid learning-rate=0.01,0.1, or --random with --range",
        hint: "one training is: stridenet train")
    }
    let base = try Train.parsed(arguments, by: "sweep")
    let seed = try base.configuration(goingOnFrom: nil).training.seed
    let choices = try random.map { plan.random($0, seed: seed) } ?? plan.grid()
    for path in [page, results].compactMap({ $0 }) {
      try AtomicFile.checkWritable(path, again: path == results)
    }
    // All that options alone can be wrong about is said before anything is trained.
    for choice in choices { _ = try train(choice, arguments, epochs: nil) }
    var runner = try SweepRunner(
      kept: results.map { try SweepFile(at: $0) } ?? SweepFile(), json: json,
      arguments: judged(by: choices[0]))
    let stages = try stages(choices)
    try announce(plan, stages)
    var (remaining, finals) = (choices, [Result]())
    for (number, stage) in stages.enumerated() {
      if stages.count > 1, !json {
        try Output.line(
          "\(remaining.count) with \(stage.epochs!) epoch\(stage.epochs! == 1 ? "" : "s")")
      }
      let done = try runner.run(remaining, epochs: stage.epochs, self)
      finals = zip(done, remaining.indices).sorted {
        $0.0.isBetter(than: $1.0) || (!$1.0.isBetter(than: $0.0) && $0.1 < $1.1)
      }.map(\.0)
      if runner.interrupt.requested { break }
      guard number + 1 < stages.count else { break }
      remaining = finals.filter { $0.failure == nil }.prefix(stages[number + 1].count).map(\.choice)
    }
    try conclude(finals, runner)
  }

  /// A training with these values; a problem is one of their combination.
  func train(_ choice: [SweepPlan.Choice], _ base: [String], epochs: Int?) throws -> (
    train: Train, words: [String]
  ) {
    let words =
      SweepPlan.words(base, choice) + (epochs.map { ["--epochs", "\($0)"] } ?? [])
    let train = try Train.parsed(words, by: "sweep")
    do {
      _ = try train.configuration(goingOnFrom: nil)
    } catch let error as StrideNetError {
      throw StrideNetError(
        error.kind, error.what,
        at: [error.place, SweepPlan.line(words)].compactMap { $0 }.joined(separator: ", "),
        found: error.found, expected: error.expected, hint: error.hint)
    }
    return (train, words)
  }

  /// The arguments, such that the test set isn't what settings are chosen by.
  private func judged(by choice: [SweepPlan.Choice]) throws -> [String] {
    let (train, _) = try train(choice, arguments, epochs: nil)
    let configuration = try train.configuration(goingOnFrom: nil)
    if configuration.validate != nil { return arguments }
    return try train.load(configuration, isQuiet: json).test == nil
      ? arguments + ["--validate", "0.1"] : arguments
  }

  /// How many are trained for how many epochs; nil epochs for each one's own.
  private func stages(_ choices: [[SweepPlan.Choice]]) throws -> [(count: Int, epochs: Int?)] {
    guard halving else { return [(choices.count, nil)] }
    if choices[0].contains(where: { $0.name == "epochs" }) {
      throw StrideNetError(
        .usage, "--halving sets the epochs itself", found: "epochs among what is tried",
        expected: "--epochs N for the longest trainings")
    }
    let most = try train(choices[0], arguments, epochs: nil).train
      .configuration(goingOnFrom: nil).training.epochs
    var stages: [(count: Int, epochs: Int?)] = []
    var (count, divisor) = (choices.count, 1)
    // As many rounds as leave one, and have an epoch at least.
    var rounds = 1
    while count > 1, divisor * 3 <= most {
      (count, divisor, rounds) = ((count + 2) / 3, divisor * 3, rounds + 1)
    }
    guard rounds > 1 else {
      throw StrideNetError(
        .usage, "--halving with nothing to halve",
        found: "\(count) training\(count == 1 ? "" : "s") of \(most) epoch\(most == 1 ? "" : "s")",
        expected: "at least 2 trainings of 3 epochs, of which the first round has a third",
        hint: "take more --epochs, or leave --halving out")
    }
    count = choices.count
    for round in 0..<rounds {
      let share = Int(pow(3, Double(rounds - 1 - round)).rounded())
      stages.append((count, max(1, most / share)))
      count = (count + 2) / 3
    }
    return stages
  }

  private func announce(_ plan: SweepPlan, _ stages: [(count: Int, epochs: Int?)]) throws {
    if json { return }
    let names = plan.axes.map(\.name).joined(separator: ", ")
    let total = stages.reduce(0) { $0 + $1.count }
    try Output.line("sweep    \(names): \(total) training\(total == 1 ? "" : "s")")
  }

  private func conclude(_ finals: [Result], _ runner: SweepRunner) throws {
    let good = finals.filter { $0.failure == nil }
    if let page {
      let text = SweepPage.text(runner.done, best: good.first, loss: runner.lossTitle)
      try AtomicFile.write(Array(text.utf8), to: page)
    }
    let failed = runner.done.filter { $0.failure != nil }
    if json {
      try Output.json(
        Event(runs: runner.done.count, failed: failed.count, best: good.first?.line))
    } else {
      try Output.line("")
      for line in SweepPage.table(finals, loss: runner.lossTitle) { try Output.line(line) }
      for run in failed {
        try Output.line("failed   \(run.line)", isWhole: true)
        try Output.line("         \(run.failure!)")
      }
      if !failed.isEmpty { try Output.line("\(failed.count) of \(runner.done.count) failed") }
      if let best = good.first { try Output.line("\nbest     \(best.line)", isWhole: true) }
      if let page { try Output.line("page     \(page)") }
    }
    if runner.interrupt.requested {
      Output.note(
        "stopped; "
          + (results.map { "the same command goes on with what is in '\($0)'" }
            ?? "with --results FILE the same command would go on from here"))
      throw ExitCode(128 + (runner.interrupt.signal ?? SIGINT))
    }
    guard !good.isEmpty else {
      throw StrideNetError(
        .badData, "no training came to an end", found: "\(failed.count) that failed",
        hint: failed.first?.failure)
    }
  }

  private struct Event: Encodable {
    var event = "sweep"
    let runs, failed: Int
    let best: String?
  }
}

/// Trains one after the other.
struct SweepRunner {
  private var file: SweepFile
  private let json: Bool
  private let arguments: [String]
  private let cache = DataCache()
  let interrupt = Interrupt()
  /// All that there is so far, in order.
  private(set) var done: [Sweep.Result] = []
  /// What the loss is called.
  private(set) var lossTitle = "loss"

  init(kept: SweepFile, json: Bool, arguments: [String]) {
    (file, self.json, self.arguments) = (kept, json, arguments)
  }

  /// - Returns: what came of each that was begun and not interrupted
  mutating func run(_ choices: [[SweepPlan.Choice]], epochs: Int?, _ sweep: Sweep) throws
    -> [Sweep.Result]
  {
    var results: [Sweep.Result] = []
    for (number, choice) in choices.enumerated() {
      let (train, words) = try sweep.train(choice, arguments, epochs: epochs)
      let (result, isNew): (Sweep.Result, Bool)
      do {
        guard let found = try self.train(train, choice, words, "\(number + 1)/\(choices.count)")
        else { break }
        (result, isNew) = found
      } catch let error as StrideNetError {
        (result, isNew) = (failed(choice, words, error), true)
      }
      results.append(result)
      done.append(result)
      if isNew { try file.add(result) }
      if json {
        try Output.json(result)
      } else {
        try Output.line(Self.line(result, number, choices, isNew))
      }
    }
    return results
  }

  private func failed(_ choice: [SweepPlan.Choice], _ words: [String], _ error: StrideNetError)
    -> Sweep.Result
  {
    Sweep.Result(
      line: SweepPlan.line(words), choice: choice, data: nil, epochs: nil, error: nil, r2: nil,
      loss: nil, train_error: nil, train_loss: nil, seconds: nil, weights_sha256: nil,
      failure: [error.what, error.place, error.found.map { "found \($0)" }].compactMap { $0 }
        .joined(separator: ", "))
  }

  /// - Returns: nil where somebody asked to stop
  private mutating func train(
    _ train: Train, _ choice: [SweepPlan.Choice], _ words: [String], _ place: String
  ) throws -> (Sweep.Result, isNew: Bool)? {
    if interrupt.requested { return nil }
    let run = try train.begin(train.settle(cache: cache, isQuiet: json))
    let trainer = run.trainer
    lossTitle = trainer.network.loss.title
    let line = SweepPlan.line(words)
    let digest = cache.digest(of: trainer)
    if let kept = file.result(line, data: digest) { return (kept, false) }
    trainer.shouldStop = { [interrupt] in interrupt.requested }
    var remaining = Remaining()
    if !json && Output.isTerminal {
      trainer.onBatch { p in
        remaining.note(p, of: trainer.settings.epochs)
        Output.progress {
          "training \(place), \(remaining.text) left  epoch \(p.epoch)/\(trainer.settings.epochs)"
            + "  \(trainer.network.loss.title) \(p.cce.number(4))"
        }
      }
    }
    let end = try trainer.run()
    switch end {
    case .stopped: return nil
    case .diverged(let epoch, let batch):
      throw StrideNetError(
        .badData, "the loss is no number any more", at: "epoch \(epoch), batch \(batch)")
    case .finished, .stoppedEarly: break
    }
    let last =
      trainer.settings.keepsBest
      ? trainer.bestEpoch.map { trainer.results[$0 - 1] } : trainer.results.last
    guard let last else { return nil }
    return (
      Sweep.Result(
        line: line, choice: choice, data: digest, epochs: trainer.settings.epochs,
        error: last.regression == nil ? last.testCE : nil,
        r2: last.regression?.r2.map { Float($0) }, loss: last.testCCE,
        train_error: last.regression == nil ? last.trainCE : nil, train_loss: last.trainCCE,
        seconds: trainer.seconds,
        weights_sha256: trainer.network.snapshot().sha256, failure: nil), true
    )
  }

  private static func line(
    _ result: Sweep.Result, _ number: Int, _ choices: [[SweepPlan.Choice]], _ isNew: Bool
  ) -> String {
    let values = result.choice.map { "\($0.name) \($0.value)" }.joined(separator: "  ")
    let place = "\(number + 1)".leftPadded("\(choices.count)".count)
    guard let seconds = result.seconds else {
      return "\(place)/\(choices.count)  \(values)  failed: \(result.failure ?? "")"
    }
    return "\(place)/\(choices.count)  \(values)  \(result.text)  \(seconds.fixed(2)) s"
      + (isNew ? "" : "  (kept)")
  }
}

/// Results of trainings in a file, an object a line.
struct SweepFile {
  private let path: String?
  private var results: [Sweep.Result] = []

  init() { path = nil }

  /// - Throws: ``StrideNetError`` where there is something else
  init(at path: String) throws {
    self.path = path
    guard FileManager.default.fileExists(atPath: path) else { return }
    guard let text = try? String(contentsOfFile: path, encoding: .utf8) else {
      throw StrideNetError(.missingInput, "results that can't be read", at: path)
    }
    results = try text.split(separator: "\n").enumerated().map { number, line in
      do {
        return try JSONDecoder().decode(Sweep.Result.self, from: Data(line.utf8))
      } catch {
        throw StrideNetError(
          .badData, "a file that has other things than results of a sweep",
          at: "\(path), line \(number + 1)", found: String(line.prefix(60)),
          expected: "what --results wrote", hint: "name another file")
      }
    }
  }

  /// What a training on this data came to; a failed one is tried again.
  func result(_ line: String, data: String) -> Sweep.Result? {
    results.last { $0.line == line && $0.data == data && $0.failure == nil }
  }

  mutating func add(_ result: Sweep.Result) throws {
    // One that failed was tried again.
    results.removeAll { $0.line == result.line && $0.failure != nil }
    results.append(result)
    guard let path else { return }
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    let lines = try results.map { String(decoding: try encoder.encode($0), as: UTF8.self) + "\n" }
    try AtomicFile.write(Array(lines.joined().utf8), to: path)
  }
}

/// The data that was loaded last, for trainings one after the other on the same.
final class DataCache {
  private var key: RunConfiguration?
  private var loaded: (data: any TrainingData, test: (any ExampleSource)?)?
  private var digest: String?

  func data(
    for configuration: RunConfiguration,
    _ load: (RunConfiguration) throws -> (data: any TrainingData, test: (any ExampleSource)?)
  ) rethrows -> (data: any TrainingData, test: (any ExampleSource)?) {
    // What isn't about data is the same in all keys; the seed is: a split goes by it.
    var key = configuration
    (key.layers, key.kernels, key.precision, key.from, key.normalize) = ("", nil, nil, nil, nil)
    key.training = TrainingSettings()
    key.training.seed = configuration.training.seed
    if let loaded, key == self.key { return loaded }
    let result = try load(configuration)
    (self.key, loaded, digest) = (key, result, nil)
    return result
  }

  /// SHA-256 of what was loaded last.
  func digest(of trainer: Trainer) -> String {
    if digest == nil { digest = trainer.dataDigest() }
    return digest!
  }
}
