import Foundation
import StrideNetCore

/// How a network was trained, as it stands in a weight file's metadata and in a checkpoint.
///
///     try network.save(to: path, history: TrainingHistory(configuration, trainer))
///     let history = try TrainingHistory(from: path)
public struct TrainingHistory: Sendable {
  static let configurationKey = "stridenet.configuration"
  static let resultsKey = "stridenet.results"
  /// Epochs that a weight file keeps.
  static let mostEpochs = 1000

  public let configuration: RunConfiguration
  /// What its epochs came to, in order. A weight file has of more than 1,000 epochs evenly chosen ones
  /// and the last, and no times, which are 0: the same training is to give the same file.
  public let results: [EpochResult]
  /// Training images an epoch.
  public let images: Int

  /// - Parameters:
  ///   - configuration: what the trainer was made of
  ///   - trainer: as it stands
  public init(_ configuration: RunConfiguration, _ trainer: Trainer) {
    self.init(configuration, trainer.results, images: trainer.train.count, trainer.settings)
  }

  init(
    _ configuration: RunConfiguration, _ results: [EpochResult], images: Int,
    _ settings: TrainingSettings
  ) {
    var configuration = configuration
    configuration.training = settings
    (self.configuration, self.results, self.images) = (configuration, results, images)
  }

  /// What the file says; nil where it says nothing, as files do that an earlier version or another
  /// program wrote.
  /// - Throws: ``StrideNetError`` where what it says can't be read
  public init?(from path: String) throws {
    let metadata = try Safetensors.read(at: path) { _ in true }.metadata
    if metadata[Checkpoint.placeKey] != nil {
      self = try Checkpoint(from: path).history
    } else {
      try self.init(metadata, path)
    }
  }

  /// Of ``StrideNetCore/Network/digits(runtime:)``.
  package static func digits() throws -> TrainingHistory? {
    try TrainingHistory(Safetensors.read(.digits) { _ in true }.metadata, "digits")
  }

  private init?(_ metadata: [String: String], _ path: String) throws {
    guard let configuration = metadata[Self.configurationKey] else { return nil }
    do {
      self.configuration = try RunConfiguration.parse(
        Array(configuration.utf8), at: "\(path), metadata '\(Self.configurationKey)'")
      try self.configuration.training.check(images: .max)
    } catch let error as StrideNetError {
      throw StrideNetError(
        .badData, error.what, at: error.place, found: error.found, expected: error.expected,
        hint: error.hint)
    }
    let text = metadata[Self.resultsKey] ?? ""
    guard let rows = try? JSONDecoder().decode(Rows.self, from: Data(text.utf8)), rows.isPossible
    else {
      throw StrideNetError(
        .badData, "epochs that no run has", at: "\(path), metadata '\(Self.resultsKey)'",
        found: text.isEmpty ? "nothing" : String(text.prefix(200)),
        expected: "what a training came to, epoch by epoch", hint: "the file is damaged")
    }
    images = rows.images
    results = rows.epochs.map {
      EpochResult(
        epoch: $0.epoch, seconds: 0, imagesPerSecond: 0, trainCCE: $0.train_loss,
        trainCE: $0.train_error, testCCE: $0.test_loss, testCE: $0.test_error)
    }
  }

  var metadata: [String: String] {
    let encoder = JSONEncoder()
    encoder.outputFormatting = .sortedKeys
    let every = (results.count - 1) / Self.mostEpochs + 1
    let rows = Rows(
      images: images,
      epochs: results.filter { $0.epoch % every == 0 || $0.epoch == results.count }.map {
        .init(
          epoch: $0.epoch, train_loss: $0.trainCCE, train_error: $0.trainCE,
          test_loss: $0.testCCE, test_error: $0.testCE)
      })
    return [
      Self.configurationKey: configuration.json,
      Self.resultsKey: String(decoding: try! encoder.encode(rows), as: UTF8.self),
    ]
  }

  private struct Rows: Codable {
    struct Row: Codable {
      let epoch: Int
      let train_loss, train_error, test_loss, test_error: Float
    }
    let images: Int
    let epochs: [Row]

    /// Whether the numbers can be counted and computed with.
    var isPossible: Bool {
      let (numbers, shares, most) = (epochs.map(\.epoch), Float(0)...1, 1 << 31)
      return (1...most).contains(images)
        && numbers.allSatisfy((1...most).contains)
        && zip(numbers, numbers.dropFirst()).allSatisfy(<)
        && epochs.allSatisfy {
          $0.train_loss.isFinite && $0.test_loss.isFinite && shares.contains($0.train_error)
            && shares.contains($0.test_error)
        }
    }
  }
}
