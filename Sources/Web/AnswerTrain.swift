import Foundation
import StrideNetCore
import StrideNetLaboratory

/// A training: begun, watched, stopped, and all put back.
extension Workbench {
  struct TrainQuestion: Decodable {
    var layers: String?
    var learning_rate: Float?
    var batch_size: Int?
    var epochs: Int?
    var optimizer: String?
    var kernels: String?
    var augment: String?
    var seed: UInt64?
    /// The image that a film of the training is to be about.
    var film: Input?
  }

  /// Begins a training from new weights; what the page shows is from now on that network.
  func train(_ question: TrainQuestion) throws {
    guard !(session?.isRunning ?? false) else {
      throw StrideNetError(
        .usage, "a training is under way", hint: "stop it, or wait until it is done")
    }
    // The one before ends with its mini-batch.
    for _ in 0..<200 where ending?.isRunning ?? false { usleep(10_000) }
    guard !(ending?.isRunning ?? false) else {
      throw StrideNetError(
        .usage, "the training before is ending", hint: "ask again when its mini-batch is done")
    }
    ending = nil
    var settings = TrainingSettings()
    settings.learningRate = question.learning_rate ?? settings.learningRate
    settings.batchSize = min(question.batch_size ?? settings.batchSize, data.train.count)
    settings.epochs = question.epochs ?? 5
    settings.seed = question.seed ?? settings.seed
    if let name = question.optimizer {
      settings.optimizer = Optimizer(try Optimizer.Method(named: name))
    }
    if let augment = question.augment, !augment.isEmpty {
      settings.augmentation = try Augmentation(augment)
    }
    guard settings.epochs <= 1000 else {
      throw StrideNetError(
        .usage, "epochs out of range", found: "\(settings.epochs)", expected: "1 … 1000")
    }
    try settings.check(images: data.train.count)
    let text = question.layers ?? text
    guard text.utf8.count <= 10_000 else {
      throw StrideNetError(
        .usage, "a network whose text is too long", found: "\(text.utf8.count) bytes",
        expected: "at most 10,000")
    }
    let layers = try Architecture.layers(text, source: "the network")
    let kernels = try KernelChoice(named: question.kernels ?? KernelChoice.bound.name)
    // A page isn't to take the machine: neither its memory nor, since nothing else is answered
    // meanwhile, its time.
    let pinned = try question.film.map { try image($0).x }
    let need = try NetworkNeed(of: layers, for: data.train.shape, kernels: kernels)
    guard need.operations <= 1e10 else {
      throw StrideNetError(
        .usage, "a network that is too large for this page",
        found: String(format: "%.0f billion operations an image", need.operations / 1e9),
        expected: "at most 10", hint: "stridenet train takes it")
    }
    // What the page needs to look into it is to fit beside it.
    let training =
      need.bytesToTrain(batch: settings.batchSize, threads: threads)
      + 32 * Double(data.train.count)
    let film = pinned == nil ? 0 : filmBytes(layers.count)
    let looking =
      need.bytesToPredict(1) + 8 * need.parameters + Self.bytesAnAnswer * need.activations
    try checkMemory(training + looking + film, "a network that is too large for this page")
    let network = Network(
      layers, seed: settings.seed, runtime: Runtime(threads: threads, kernels: kernels))
    network.normalization = normalization
    // Sizes and settings that don't fit are said here, by whoever asked.
    let trainer = try Trainer(network, data, settings)
    let (described, weights) = (Architecture.text(layers), network.snapshot())
    session = try Session(
      trainer, bytes: training, filmBytes: film,
      settings: Session.Settings(
        layers: described, learning_rate: settings.learningRate, batch_size: settings.batchSize,
        epochs: settings.epochs, optimizer: question.optimizer ?? "sgd",
        augment: question.augment ?? "", kernels: kernels.name, seed: settings.seed),
      film: pinned.map { ($0, data.test) })
    exchange(described, weights)
  }

  func stop() { session?.stop() }

  func reset() {
    session?.stop()
    if session?.isRunning ?? false { ending = session }
    session = nil
    exchange(original.text, original.weights)
  }

  struct Since: Decodable {
    var since: Int?
    var moments: Int?
  }

  /// What 120 moments of a training take at most.
  private func filmBytes(_ layers: Int) -> Double {
    120
      * Double(
        Session.Moment.filterBytes + layers * TrainingRecord.Maps.budget + 12 * data.test.count)
  }

  func training(_ question: Since) throws -> Session.Progress {
    try checkMemory(filterBytes(), Self.tooMuch)
    return session?.progress(since: question.since ?? 0, moments: question.moments ?? 0)
      ?? Session.Progress()
  }
}
