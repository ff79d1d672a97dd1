import Foundation
import StrideNetCore

/// A training that goes on later as if it had never stopped: a safetensors file with the weights,
/// what the optimiser remembers, the moving average and the best weights, and in its metadata the
/// configuration and the place in the run. It loads as a weight file too.
///
///     let checkpoint = try Checkpoint(from: path)
///     let trainer = try Trainer(network, data, checkpoint.configuration.training)
///     try trainer.resume(checkpoint)
public struct Checkpoint {
  static let placeKey = "stridenet.place"
  /// What the names of arrays begin with that aren't weights.
  static let prefix = "training."

  public let configuration: RunConfiguration
  private let place: Place
  private let normalization: InputNormalization?
  private let targetNormalization: TargetNormalization?
  private let arrays: [String: [Float]]
  private let path: String

  /// All that isn't an array.
  private struct Place: Codable {
    var progress: Trainer.Progress
    var stepCount, updateCount: Int
    var images: Int
    var digest: String

    /// Whether the numbers can be counted and computed with.
    var isPossible: Bool {
      let (results, shares, most) = (progress.results, Float(0)...1, 1 << 53)
      return results.indices.allSatisfy { index in
        let r = results[index]
        return r.epoch == index + 1 && (0...1e15).contains(r.seconds)
          && (0...1e15).contains(r.imagesPerSecond) && r.trainCCE.isFinite && r.testCCE.isFinite
          && shares.contains(r.trainCE) && shares.contains(r.testCE)
      }
        && (progress.bestEpoch.map { (1...max(1, results.count)).contains($0) && !results.isEmpty }
          ?? true)
        && (0...most).contains(stepCount) && (0...most).contains(updateCount)
        && (1...most).contains(images) && progress.batchesDone >= 0
        && progress.sumCCE.isFinite && (0...Double(images)).contains(progress.sumCE)
    }
  }

  /// What the finished epochs came to.
  public var results: [EpochResult] { place.progress.results }
  /// How it was trained so far.
  var history: TrainingHistory {
    TrainingHistory(configuration, results, images: place.images, configuration.training)
  }
  /// Epochs that are finished.
  package var epochs: Int { results.count }

  // MARK: Writing

  static func write(
    _ state: Trainer.State, _ trainer: Trainer, digest: String, _ configuration: RunConfiguration,
    to path: String
  ) throws {
    var arrays = state.weights.arrays
    func add(_ name: String, _ values: [Float]?) {
      guard let values, !values.isEmpty else { return }
      arrays.append(.init(name: prefix + name, shape: [values.count], values: values))
    }
    for (name, values) in zip(
      trainer.settings.optimizer.method.rule.memory, state.network.memory)
    {
      add(name, values)
    }
    add("average", state.network.average)
    add("last", state.lastGood.values)
    add("best", state.best?.values)
    let place = Place(
      progress: state.progress, stepCount: state.network.stepCount,
      updateCount: state.network.updateCount, images: trainer.train.count,
      digest: digest)
    let text = String(decoding: try JSONEncoder().encode(place), as: UTF8.self)
    var configuration = configuration
    configuration.training = trainer.settings
    try Safetensors.write(
      arrays,
      metadata: trainer.network.metadata.merging(
        [TrainingHistory.configurationKey: configuration.json, placeKey: text]) { $1 }, to: path)
  }

  // MARK: Reading

  /// - Throws: ``StrideNetError`` where the file isn't a checkpoint
  public init(from path: String) throws { try self.init(from: InputFile(path)) }

  init(from input: InputFile) throws {
    let (file, path) = (try Safetensors.read(input), input.path)
    guard let text = file.metadata[TrainingHistory.configurationKey],
      let placeText = file.metadata[Self.placeKey]
    else {
      throw StrideNetError(
        .badData, "not a checkpoint", at: path,
        found: "no '\(Self.placeKey)' in its metadata",
        hint: "checkpoints are written by: stridenet train --checkpoint FILE")
    }
    do {
      configuration = try RunConfiguration.parse(
        Array(text.utf8), at: "\(path), metadata '\(TrainingHistory.configurationKey)'")
      place = try JSONDecoder().decode(Place.self, from: Data(placeText.utf8))
    } catch let error {
      throw StrideNetError(
        .badData, "a checkpoint that can't be read", at: "\(path), its metadata",
        found: (error as? StrideNetError)?.description ?? "\(error)")
    }
    guard place.isPossible else {
      throw StrideNetError(
        .badData, "a place that no run has", at: "\(path), metadata '\(Self.placeKey)'",
        found: placeText, expected: "what a training came to, epoch by epoch",
        hint: "the file is damaged")
    }
    normalization = try Network.normalization(file.metadata, Network.normalizationKey, path)
    targetNormalization = try Network.normalization(file.metadata, Network.targetsKey, path)
    arrays = Dictionary(uniqueKeysWithValues: file.tensors.map { ($0.name, $0.values) })
    self.path = path
  }

  /// - Throws: ``StrideNetError`` for another number of training images than it was made with, or for
  ///   others
  package func requireData(_ source: String, _ count: Int, digest: String? = nil) throws {
    guard place.images == count, digest == nil || place.digest == digest else {
      throw StrideNetError(
        .badData, "the checkpoint was made with other data", at: path,
        found: "\(source), \(count) training images",
        expected: "the \(place.images) training images that it was made with")
    }
  }

  fileprivate func state(_ trainer: Trainer) throws -> Trainer.State {
    let network = trainer.network
    try requireData(trainer.source, trainer.train.count, digest: trainer.dataDigest())
    (network.normalization, network.targetNormalization) = (normalization, targetNormalization)
    let count = network.snapshot().values.count
    func values(_ name: String, required: Bool) throws -> [Float]? {
      let found = arrays[Self.prefix + name]
      guard found.map({ $0.count == count }) ?? !required else {
        throw StrideNetError(
          .badData, "a checkpoint that isn't whole", at: "\(path), \(Self.prefix)\(name)",
          found: found.map { "\($0.count) values" } ?? "nothing", expected: "\(count) values")
      }
      return found
    }
    let progress = place.progress
    let batches = (place.images - 1) / trainer.settings.batchSize + 1
    guard (0...batches).contains(progress.batchesDone) else {
      throw StrideNetError(
        .badData, "a place that the run doesn't have", at: "\(path), metadata '\(Self.placeKey)'",
        found: "epoch \(progress.results.count), mini-batch \(progress.batchesDone)",
        expected: "at most mini-batch \(batches)")
    }
    var weights: [Float] = []
    for (name, shape) in network.snapshot().parameters {
      guard let part = arrays[name], part.count == shape.reduce(1, *) else {
        throw StrideNetError(
          .badData, "a checkpoint that isn't whole", at: "\(path), \(name)",
          found: arrays[name].map { "\($0.count) values" } ?? "nothing", expected: "\(shape)")
      }
      weights += part
    }
    let started = place.updateCount > 0
    return Trainer.State(
      progress: progress,
      network: .init(
        stepCount: place.stepCount, updateCount: place.updateCount,
        memory: try trainer.settings.optimizer.method.rule.memory.compactMap {
          try values($0, required: started)
        },
        average: try values(
          "average", required: started && trainer.settings.averageDecay != nil) ?? []),
      weights: try network.snapshot(of: weights),
      lastGood: try network.snapshot(of: try values("last", required: true)!),
      best: try values("best", required: false).map(network.snapshot(of:)))
  }
}

extension Trainer {
  /// Goes on from a checkpoint: from then on every number is what it would have been without a stop.
  /// The settings may have more epochs than those of the checkpoint: the learning rate is then that of
  /// the longer run, from where it goes on.
  /// - Throws: ``StrideNetError`` where it doesn't fit the network, the data or the settings
  public func resume(_ checkpoint: Checkpoint) throws {
    var before = checkpoint.configuration.training
    before.epochs = max(before.epochs, settings.epochs)
    guard before == settings else {
      var other = checkpoint.configuration
      other.training = settings
      throw StrideNetError(
        .usage, "the checkpoint was made with other settings",
        found: other.differences(from: checkpoint.configuration).joined(separator: "; "),
        expected: "the same")
    }
    try resume(try checkpoint.state(self))
  }

  /// Writes a checkpoint after every so many epochs and where the training is stopped, whole or not
  /// at all.
  public func writeCheckpoints(
    to path: String, every epochs: Int = 1, _ configuration: RunConfiguration, writes: Bool = true
  ) {
    // Of several processes one writes, and the others send it what it hasn't.
    guard writes else {
      (onStop, onState) = ({ _ in }, { _ in })
      return
    }
    // All data is read for it: once, and not before it is needed.
    lazy var digest = dataDigest()
    onStop = { [unowned self] in
      try Checkpoint.write($0, self, digest: digest, configuration, to: path)
    }
    onState = { [unowned self] in
      guard results.count % epochs == 0 || results.count == settings.epochs else { return }
      try Checkpoint.write($0, self, digest: digest, configuration, to: path)
    }
  }
}
