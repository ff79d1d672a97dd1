import ArgumentParser
import Foundation
import StrideNet

/// `stridenet train --folds`: each part of the training images is held out once, while a new network
/// learns from the others.
extension Train {
  /// - Throws: ``StrideNetError`` for what means nothing with several trainings
  func checkFolds(_ configuration: RunConfiguration) throws {
    guard configuration.folds != nil else { return }
    let others: [(Bool, String, String)] = [
      (configuration.validate != nil, "--validate", "each fold is what is held out"),
      (files.resume != nil, "--resume", "a checkpoint is of one training"),
      (files.checkpoint != nil, "--checkpoint", "a checkpoint is of one training"),
      (files.report != nil, "--report", "a page is of one training"),
      (files.logDir != nil, "--log-dir", "a log is of one training"),
      (isProfiled, "--profile", "the table is of one training"),
      (topK != nil, "--top-k", "the test set isn't measured"),
    ]
    guard let (_, option, why) = others.first(where: \.0) else { return }
    throw StrideNetError(
      .usage, "\(option) means nothing with --folds", found: "\(option) and --folds",
      expected: "one of them, since \(why)")
  }

  func crossValidate(_ count: Int, _ set: Settled, _ data: Dataset) throws {
    let folds = try data.folds(count, seed: set.configuration.training.orderSeed)
    for fold in 1...count {
      if let path = savePath(of: fold) { try AtomicFile.checkWritable(path, again: true) }
    }
    let interrupt = Interrupt()
    var events: [FoldEvent] = []
    for (index, fold) in folds.enumerated() {
      let run = try begin(set, on: fold)
      let trainer = run.trainer
      if index == 0 {
        if let path = files.writeConfig { try run.configuration.write(to: path) }
        try announce(trainer, run.configuration, data.test, from: set.start)
        if !quiet && !json {
          try Output.line(
            "folds    \(count), each held out once; the \(data.test.count.grouped) test images"
              + (data.validation.map { " and \($0.count.grouped) validation images" } ?? "")
              + " are left alone")
        }
      }
      trainer.shouldStop = { interrupt.requested }
      if !quiet && !json && Output.isTerminal {
        var remaining = Remaining()
        trainer.onBatch { progress in
          remaining.note(progress, of: trainer.settings.epochs)
          Output.progress {
            "fold \(index + 1)/\(count)  \(line(progress, of: trainer, left: remaining.text))"
          }
        }
      }
      switch try trainer.run() {
      case .diverged(let epoch, let batch):
        throw diverged(trainer.settings, epoch, batch, at: "fold \(index + 1), ")
      case .stopped:
        Output.note("stopped in fold \(index + 1) of \(count)")
        throw ExitCode(128 + (interrupt.signal ?? SIGINT))
      case .finished, .stoppedEarly: break
      }
      let path = savePath(of: index + 1)
      if let path { try run.save(to: path) }
      let event = FoldEvent(index + 1, count, trainer, path)
      events.append(event)
      if json {
        try Output.json(event)
      } else if !quiet {
        try Output.line(event.text(trainer.network.loss.title))
      }
    }
    let sum = FoldsEvent(events)
    try json ? Output.json(sum) : Output.line(sum.text)
  }

  /// Where a fold's network goes: its number before the ending, digits-1.safetensors.
  private func savePath(of fold: Int) -> String? {
    files.save.map { path in
      let url = URL(fileURLWithPath: path)
      let ending = url.pathExtension.isEmpty ? "" : ".\(url.pathExtension)"
      return "\(path.dropLast(ending.count))-\(fold)\(ending)"
    }
  }
}

private struct FoldEvent: Encodable {
  var event = "fold"
  let fold, folds, epoch, train_images, validation_images: Int
  let seconds: Double
  let validation_cce: Float
  /// Of classes, or of numbers to predict.
  let validation_accuracy, validation_r2: Double?
  let outputs: [RegressionMetrics.Event]?
  let weights_sha256: String
  let file: String?

  init(_ fold: Int, _ folds: Int, _ trainer: Trainer, _ path: String?) {
    (self.fold, self.folds, file, seconds) = (fold, folds, path, trainer.seconds)
    (train_images, validation_images) = (trainer.train.count, trainer.test.count)
    // The epoch whose weights the network has.
    let best = trainer.settings.keepsBest ? trainer.bestEpoch : nil
    let last = trainer.results[(best ?? trainer.results.count) - 1]
    (epoch, validation_cce) = (last.epoch, last.testCCE)
    (validation_r2, outputs) = (last.regression?.r2, last.regression?.events)
    // The share as it was counted, without the rounding of a Float.
    let count = Double(validation_images)
    validation_accuracy =
      last.regression == nil ? (count - (Double(last.testCE) * count).rounded()) / count : nil
    weights_sha256 = trainer.network.snapshot().sha256
  }

  func text(_ loss: String) -> String {
    "fold \("\(fold)".leftPadded("\(folds)".count))   epoch \(epoch)  \(seconds.fixed(2)) s"
      + "  validation \(loss) \(validation_cce.number(4))  "
      + (validation_accuracy.map { "accuracy \($0.percent())" }
        ?? "R² \(RegressionMetrics.r2(validation_r2))")
      + (file.map { "  saved \($0)" } ?? "")
  }
}

private struct FoldsEvent: Encodable {
  var event = "folds"
  let folds: Int
  let seconds: Double
  /// Of the folds' validation images; deviations are those of a sample.
  let accuracy_mean, accuracy_deviation, r2_mean, r2_deviation: Double?
  let cce_mean, cce_deviation: Double

  init(_ events: [FoldEvent]) {
    func statistics(_ values: [Double]) -> (mean: Double, deviation: Double) {
      let mean = values.reduce(0, +) / Double(values.count)
      let squares = values.reduce(0) { $0 + ($1 - mean) * ($1 - mean) }
      return (mean, (squares / Double(values.count - 1)).squareRoot())
    }
    (folds, seconds) = (events.count, events.reduce(0) { $0 + $1.seconds })
    /// Of what all have.
    func known(_ values: [Double?]) -> (mean: Double?, deviation: Double?) {
      let found = values.compactMap { $0 }
      guard found.count == events.count else { return (nil, nil) }
      let (mean, deviation) = statistics(found)
      return (mean, deviation)
    }
    (accuracy_mean, accuracy_deviation) = known(events.map(\.validation_accuracy))
    (r2_mean, r2_deviation) = known(events.map(\.validation_r2))
    (cce_mean, cce_deviation) = statistics(events.map { Double($0.validation_cce) })
  }

  var text: String {
    (accuracy_mean.map { "accuracy \($0.percent()) ± \(accuracy_deviation!.percent())" }
      ?? r2_mean.map { "R² \($0.fixed(4)) ± \(r2_deviation!.fixed(4))" }
      ?? "loss \(cce_mean.fixed(4)) ± \(cce_deviation.fixed(4))") + " over \(folds) folds"
      + " (mean and standard deviation), trained for \(seconds.fixed(2)) s"
  }
}
