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
  /// What the network is at a step, for the film of the training.
  struct Moment: Encodable {
    let step: Int
    /// Of so many test images, the first ones.
    let loss, error: Float
    let images: Int
    /// What they are and were taken for: label, guess, images, and so on.
    let confusion: [Int32]
    /// Of the image that the film is about.
    let probabilities: [Float]
    let maps: [TrainingRecord.Maps]
    let filters: Data
    let filter_shape: [Int]
    let filter_count, filter_depth: Int
    /// That image, in the first moment.
    let input: Data?

    /// Pictures of filters take that at most.
    static let filterBytes = 75_000
  }
  struct Settings: Encodable {
    let layers: String
    let learning_rate: Float
    let batch_size, epochs: Int
    let optimizer, augment, kernels: String
    let seed: UInt64
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
    var settings: Settings?
    /// From the question's on.
    var moments: [Moment] = []
  }

  private struct Shared {
    var progress = Progress(is_running: true)
    var weights: Snapshot?
    var stops = false
  }
  private let shared = Mutex(Shared())
  /// What it takes at most.
  let bytes: Double
  /// What its moments take, also when it is over.
  let filmBytes: Double
  private let film: (pinned: Tensor, test: ImageSet)?

  var isRunning: Bool { shared.withLock { $0.progress.is_running } }

  /// The newest weights, if there are any that weren't taken yet.
  func takeWeights() -> Snapshot? {
    shared.withLock { shared in
      defer { shared.weights = nil }
      return shared.weights
    }
  }

  func stop() { shared.withLock { $0.stops = true } }

  func progress(since: Int, moments: Int) -> Progress {
    var progress = shared.withLock { $0.progress }
    progress.points.removeFirst(min(max(0, since), progress.points.count))
    progress.moments.removeFirst(min(max(0, moments), progress.moments.count))
    return progress
  }

  /// - Parameters:
  ///   - settings: as they are told
  ///   - pinned: the image that a film of the training is about; nil if there is to be none
  /// - Throws: ``StrideNetError`` where there is no thread left
  init(
    _ trainer: sending Trainer, bytes: Double, filmBytes: Double, settings: Settings,
    film: (pinned: Tensor, test: ImageSet)?
  ) throws {
    (self.bytes, self.filmBytes, self.film) = (bytes, filmBytes, film)
    shared.withLock { $0.progress.settings = settings }
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
    let (settings, count) = (trainer.settings, trainer.train.count)
    let batches = (count + settings.batchSize - 1) / settings.batchSize
    // At most 59 moments between, and 60 at the ends of epochs: as in engine.js.
    let steps = max(
      (settings.epochs * batches + 58) / 59, (200 + settings.batchSize - 1) / settings.batchSize)
    let epochs = (settings.epochs + 59) / 60
    func hasMoment(epoch: Int) -> Bool { epoch % epochs == 0 || epoch == settings.epochs }
    trainer.shouldStop = { [self] in shared.withLock { $0.stops } }
    trainer.onBatch { [self] p in
      if p.step % steps == 0, p.batch < p.batches || !hasMoment(epoch: p.epoch) {
        note(p.step, of: 100, trainer.network)
      }
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
      if hasMoment(epoch: r.epoch) { note(epoch.step, of: .max, trainer.network) }
      shared.withLock { $0.progress.epochs.append(epoch) }
    }
    publish()
    note(0, of: 100, trainer.network)
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

  /// Keeps a moment for the film, judged by so many of the test images.
  private func note(_ step: Int, of most: Int, _ network: Network) {
    guard let film, let trace = try? network.trace(film.pinned),
      // Of a training that has just gone wrong there is nothing to see.
      trace.layers.allSatisfy({ $0.output.values.allSatisfy(\.isFinite) })
    else { return }
    let images = min(most, film.test.count)
    let parts = stride(from: 0, to: images, by: 100).lazy.map {
      film.test.batch($0..<min(images, $0 + 100))
    }
    guard let metrics = try? network.metrics(parts), metrics.cce.isFinite else { return }
    let first = network.filterPictures(most: Moment.filterBytes)
    let moment = Moment(
      step: step, loss: metrics.cce, error: Float(metrics.ce), images: images,
      confusion: metrics.confusionPairs, probabilities: trace.output.values,
      maps: TrainingRecord.Maps.all(trace),
      filters: TrainingRecord.Filters(first?.pictures.joined().map { $0 } ?? []).pixels,
      filter_shape: first.map { [$0.pictures.count, $0.height, $0.width] } ?? [],
      filter_count: first?.count ?? 0, filter_depth: first?.depth ?? 0,
      input: step == 0 ? film.pinned.values.data : nil)
    shared.withLock { $0.progress.moments.append(moment) }
  }
}
