import StrideNet

/// What `stridenet train` trains on: images in memory, or in their files.
protocol TrainingData {
  var name: String { get }
  var source: String { get }
  var classNames: [String] { get }
  /// Whether images have numbers to predict, not labels.
  var hasTargets: Bool { get }
  /// Of the training images.
  var labels: [UInt16] { get }
  var shape: Shape { get }
  var skipped: [Dataset.Skipped] { get }
  var notes: [String] { get }
  func normalization(_ method: InputNormalization.Method?) throws -> InputNormalization?
  func trainer(_ network: Network, _ settings: TrainingSettings) throws -> Trainer
}

extension Dataset: TrainingData {
  var labels: [UInt16] { train.labels }
  var shape: Shape { train.shape }

  func normalization(_ method: InputNormalization.Method?) -> InputNormalization? {
    .of(method, train)
  }
  func trainer(_ network: Network, _ settings: TrainingSettings) throws -> Trainer {
    try Trainer(network, self, settings)
  }
}

extension StreamedDataset: TrainingData {
  var hasTargets: Bool { false }
  var labels: [UInt16] { train.labels }
  var shape: Shape { train.shape }

  func trainer(_ network: Network, _ settings: TrainingSettings) throws -> Trainer {
    try Trainer(network, self, settings)
  }
}
