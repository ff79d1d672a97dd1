import Foundation

/// How long and how fast a network is trained.
public struct TrainingSettings: Sendable, Codable, Hashable {
  /// Passes over the training images.
  public var epochs = 3
  /// Images a step; the last step of an epoch takes what is left.
  public var batchSize = 64
  /// Step size of gradient descent: the largest of the schedule.
  public var learningRate: Float = 0.05
  /// How the step size goes on from there.
  public var schedule = Schedule.linear
  /// How gradients become steps.
  public var optimizer = Optimizer()
  /// What training minimises; nil for what the network does already, which a trainer's settings say, or
  /// of numbers to predict the squared error where that is the cross-entropy.
  public var loss: Loss?
  /// What is done to the training images, anew each epoch; nil for nothing.
  public var augmentation: Augmentation?
  /// Evaluates and returns a moving average of the weights, of which each step keeps this share
  /// (Polyak & Juditsky 1992); nil for the weights themselves.
  public var averageDecay: Float?
  /// Layers, from 0, whose weights stay as they are; nil for those that the network has frozen itself.
  public var frozenLayers: [Int]?
  /// Ends the training after so many epochs without a lower loss on the images that are evaluated.
  public var patience: Int?
  /// Ends with the weights of the epoch with the lowest loss, instead of the last one's.
  public var keepsBest = false
  /// What each class counts in the loss, from label 0; nil where all count alike. The loss of a
  /// mini-batch is then Σ w·loss / Σ w over its images, as of PyTorch's `CrossEntropyLoss(weight=…)`.
  /// Evaluations are without.
  public var classWeights: [Float]?
  /// Everything random: the order of the images here, the first weights in the network.
  public var seed: UInt64 = 1
  /// The seed of the images' order alone, and of which are held out; nil for ``seed``.
  public var shuffleSeed: UInt64?
  /// The one that is used.
  package var orderSeed: UInt64 { shuffleSeed ?? seed }

  /// Share of the last step that the next one keeps.
  package var momentum: Float {
    get { optimizer.momentum }
    set { optimizer.momentum = newValue }
  }

  public init() {}

  /// - Throws: ``StrideNetError`` naming the setting and its range
  package func check(images: Int) throws {
    func require(
      _ holds: Bool, _ key: CodingKeys, _ name: String, _ found: Any, _ expected: String
    ) throws {
      if holds { return }
      throw StrideNetError(outOfRange: name, [key], found: found, expected: expected)
    }
    try require(
      (1...1_000_000_000).contains(epochs), .epochs, "epochs", epochs, "1 … 1,000,000,000")
    try require(batchSize > 0, .batchSize, "batch size", batchSize, "at least 1")
    try require(
      batchSize <= images, .batchSize, "batch size", batchSize,
      "at most \(images), the number of training images")
    // Steps are counted in whole numbers that a double holds, too.
    try require(
      images == .max || epochs <= 1 << 53 / images, .epochs, "epochs", epochs,
      "at most \(1 << 53 / max(1, images)), with \(images) training images")
    try require(
      learningRate.isFinite && learningRate > 0, .learningRate, "learning rate", learningRate,
      "a finite number above 0")
    try optimizer.check(inside: [CodingKeys.optimizer])
    try loss?.check()
    try schedule.check()
    try augmentation?.check()
    if let averageDecay {
      try require(
        averageDecay > 0 && averageDecay < 1, .averageDecay, "decay of the moving average",
        averageDecay, "between 0 and 1")
    }
    if let classWeights {
      try require(
        !classWeights.isEmpty && classWeights.allSatisfy { $0.isFinite && $0 > 0 }, .classWeights,
        "class weights", classWeights, "a finite number above 0 for each class")
    }
    if let patience {
      try require(patience > 0, .patience, "patience", patience, "at least 1")
    }
  }
}

/// Where training stands after a mini-batch.
public struct BatchProgress: Sendable {
  /// From 1.
  public let epoch: Int
  /// From 1, of ``batches`` in the epoch.
  public let batch: Int
  public let batches: Int
  public let batchSize: Int
  /// Training steps of the network so far.
  public let step: Int
  /// What the step was taken with.
  public let learningRate: Float
  /// Seconds of training since the start, evaluations not counted.
  public let seconds: Double
  /// In this epoch so far.
  public let imagesPerSecond: Double
  /// This mini-batch's loss, the categorical cross-entropy unless told otherwise, and class error,
  /// which means nothing where numbers are predicted.
  public let cce: Float
  public let ce: Float
}

/// What an epoch came to.
public struct EpochResult: Sendable, Codable {
  /// From 1.
  public let epoch: Int
  /// Seconds of training, evaluation not counted.
  public let seconds: Double
  public let imagesPerSecond: Double
  /// Means over the epoch's steps, each taken before its update.
  public let trainCCE: Float
  public let trainCE: Float
  /// On the whole test set after the epoch, or on the images held out instead.
  public let testCCE: Float
  public let testCE: Float
  /// Of a network with ``Network/targetNormalization``, how near it came to what it predicts there.
  public var regression: RegressionMetrics?

  package init(
    epoch: Int, seconds: Double, imagesPerSecond: Double, trainCCE: Float, trainCE: Float,
    testCCE: Float, testCE: Float, regression: RegressionMetrics? = nil
  ) {
    self.regression = regression
    (self.epoch, self.seconds, self.imagesPerSecond) = (epoch, seconds, imagesPerSecond)
    (self.trainCCE, self.trainCE, self.testCCE, self.testCE) = (trainCCE, trainCE, testCCE, testCE)
  }
}

/// Why training ended.
public enum TrainingEnd: Sendable {
  case finished
  /// No lower loss for ``TrainingSettings/patience`` epochs.
  case stoppedEarly
  /// Somebody asked to stop; the network has the weights of the last finished epoch, or with
  /// ``TrainingSettings/keepsBest`` the best one's.
  case stopped
  /// The loss was no longer a number, or a million times what it was at first (or 1); the network's weights are as with ``stopped``.
  case diverged(epoch: Int, batch: Int)
}
