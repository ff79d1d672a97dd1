import ArgumentParser
import Foundation
import StrideNet

struct Speedrun: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Trains by a recipe with several seeds; prints times, accuracies and their spread.",
    discussion: """
      Each run begins with new weights and measures the test set once, at its end. The time is that \
      of training, without reading the data and measuring.

      \(RunConfiguration.recipes.map { "  \($0.name): \($0.summary)" }.joined(separator: "\n"))
      """)

  @Option(help: ArgumentHelp("The recipe.", valueName: "name"))
  var recipe = RunConfiguration.recipes[0].name

  @Option(parsing: .unconditional, help: "How many runs, with the seeds 1, 2, 3 …")
  var runs = 10

  @OptionGroup var dataOptions: DataOptions
  @OptionGroup var compute: ComputeOptions

  @Flag(help: "Print JSON, an object a line.")
  var json = false

  private struct Run: Encodable {
    var event = "run"
    let seed: UInt64
    let seconds, test_accuracy: Double
    let weights_sha256: String
  }

  private struct Summary: Encodable {
    var event = "speedrun"
    let recipe: String
    let runs: Int
    let mean_accuracy, deviation, least_accuracy, greatest_accuracy: Double
    let median_seconds, least_seconds, greatest_seconds: Double
  }

  func run() throws {
    guard (1...1000).contains(runs) else {
      throw StrideNetError(
        .usage, "--runs out of range", found: "\(runs)", expected: "1 … 1000")
    }
    var configuration = try RunConfiguration(recipe: recipe)
    if let data = dataOptions.data { configuration.data = data }
    let data = try configuration.loadData().data
    if !data.classNames.isEmpty {
      configuration.layers = Architecture.text(
        configuration.layers, outputs: data.classNames.count)
    }
    let runtime = try compute.runtime()
    if !json {
      try Output.line(
        """
        recipe   \(recipe): \(configuration.layers)
        data     \(data.source): \(data.train.count.grouped) training images
        kernels  \(runtime.kernels), \(KernelChoice.instructionSet), \(runtime.threads) threads

        """)
    }
    var done: [Run] = []
    for seed in 1...UInt64(runs) {
      let run = try self.run(configuration, data, runtime, seed: seed)
      done.append(run)
      if json {
        try Output.json(run)
      } else {
        try Output.line(
          "seed \("\(seed)".leftPadded(3))  \(run.seconds.fixed(2).leftPadded(8)) s  \(run.test_accuracy.percent())"
        )
      }
    }
    try conclude(done)
  }

  private func run(
    _ configuration: RunConfiguration, _ data: Dataset, _ runtime: Runtime, seed: UInt64
  ) throws -> Run {
    var settings = configuration.training
    settings.seed = seed
    settings.batchSize = min(settings.batchSize, data.train.count)
    // Evaluations on the way are on a few training images: only the end looks at the test set.
    let watched = try Dataset(
      name: data.name, source: data.source, train: data.train, test: data.train.prefix(100))
    let network = Network(
      try Architecture.layers(configuration.layers), seed: seed, runtime: runtime)
    let trainer = try Trainer(network, watched, settings)
    trainer.onBatch { p in
      Output.progress {
        "run \(seed) of \(runs)  epoch \(p.epoch)  batch \(p.batch) of \(p.batches)"
      }
    }
    guard case .finished = try trainer.run() else {
      throw StrideNetError(.badData, "training diverged", at: "seed \(seed)")
    }
    return Run(
      seed: seed, seconds: trainer.seconds, test_accuracy: try network.metrics(data.test).accuracy,
      weights_sha256: network.snapshot().sha256)
  }

  private func conclude(_ done: [Run]) throws {
    let accuracies = done.map(\.test_accuracy)
    let mean = accuracies.reduce(0, +) / Double(runs)
    let deviation =
      (accuracies.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Double(max(1, runs - 1)))
      .squareRoot()
    let seconds = done.map(\.seconds).sorted()
    let summary = Summary(
      recipe: recipe, runs: runs, mean_accuracy: mean, deviation: deviation,
      least_accuracy: accuracies.min()!, greatest_accuracy: accuracies.max()!,
      median_seconds: seconds[runs / 2], least_seconds: seconds[0],
      greatest_seconds: seconds[runs - 1])
    if json { return try Output.json(summary) }
    func percent(_ share: Double) -> String { (share * 100).fixed(2) }
    try Output.line(
      """

      mean     \(percent(mean)) % ± \(percent(deviation)), \(percent(summary.least_accuracy)) to \
      \(percent(summary.greatest_accuracy)) %
      time     \(summary.median_seconds.fixed(2)) s, \(summary.least_seconds.fixed(2)) to \
      \(summary.greatest_seconds.fixed(2)) s
      """)
  }
}
