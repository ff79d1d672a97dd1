import Foundation
import StrideNetCore
import StrideNetLaboratory
import Synchronization

/// A training on a thread of its own.
final class Session: Sendable {
  struct Point: Encodable {
    let step: Int
    let loss, error, rate: Float
  }
  struct Epoch: Encodable {
    let epoch, step: Int
    let train_loss, train_error, test_loss, test_error: Float
    let images_per_second: Double
  }
  struct Progress: Encodable {
    var is_running = false
    var failure: String?
    /// From the question's on.
    var points: [Point] = []
    var epochs: [Epoch] = []
    var seconds = 0.0
    var filters = Data()
    var filter_shape: [Int] = []
  }

  private struct Shared {
    var progress = Progress(is_running: true)
    var weights: Snapshot?
    var stops = false
  }
  private let shared = Mutex(Shared())
  /// What it takes at most.
  let bytes: Double

  var isRunning: Bool { shared.withLock { $0.progress.is_running } }

  /// The newest weights, if there are any that weren't taken yet.
  func takeWeights() -> Snapshot? {
    shared.withLock { shared in
      defer { shared.weights = nil }
      return shared.weights
    }
  }

  func stop() { shared.withLock { $0.stops = true } }

  func progress(since: Int) -> Progress {
    var progress = shared.withLock { $0.progress }
    progress.points.removeFirst(min(max(0, since), progress.points.count))
    return progress
  }

  /// - Throws: ``StrideNetError`` where there is no thread left
  init(_ trainer: sending Trainer, bytes: Double) throws {
    self.bytes = bytes
    // Nobody else has it: only the thread will.
    nonisolated(unsafe) let trainer = trainer
    try startThread { [self] in run(trainer) }
  }

  private func run(_ trainer: Trainer) {
    let clock = ContinuousClock()
    var (sums, last) = ((loss: Float(0), error: Float(0), count: Float(0)), clock.now)
    func publish() {
      let filters = trainer.network.firstFilters
      let weights = trainer.network.snapshot()
      shared.withLock {
        $0.weights = weights
        if let filters {
          ($0.progress.filters, $0.progress.filter_shape) = (filters.values.data, filters.shape)
        }
      }
    }
    trainer.shouldStop = { [self] in shared.withLock { $0.stops } }
    trainer.onBatch { [self] p in
      sums = (sums.loss + p.cce, sums.error + p.ce, sums.count + 1)
      // More and more seldom, so that there are never many.
      let gap = max(0.06, p.seconds / 5000)
      guard (clock.now - last) / .seconds(1) > gap || p.batch == p.batches else { return }
      last = clock.now
      let point = Point(
        step: p.step, loss: sums.loss / sums.count, error: sums.error / sums.count,
        rate: p.learningRate)
      sums = (0, 0, 0)
      shared.withLock {
        $0.progress.points.append(point)
        $0.progress.seconds = p.seconds
      }
      publish()
    }
    trainer.onEpoch { [self] r in
      let epoch = Epoch(
        epoch: r.epoch, step: trainer.network.stepCount, train_loss: r.trainCCE,
        train_error: r.trainCE, test_loss: r.testCCE, test_error: r.testCE,
        images_per_second: r.imagesPerSecond)
      shared.withLock { $0.progress.epochs.append(epoch) }
    }
    publish()
    var failure: String?
    do {
      if case .diverged(let epoch, let batch) = try trainer.run() {
        failure =
          "Training diverged in epoch \(epoch), batch \(batch): the loss is no finite number, or a million times the first. Try a tenth of the learning rate."
      }
    } catch {
      failure = "\(error)"
    }
    // What was stopped half-way keeps what it had just learned on the page; the end is the end.
    publish()
    shared.withLock {
      $0.progress.failure = failure
      $0.progress.is_running = false
    }
  }
}
