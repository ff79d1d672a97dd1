import ArgumentParser
import StrideNet

// Unconditional: a number below 0 after an option is its value, to be refused as such.

struct TrainingOptions: ParsableArguments {
  private static let defaults = TrainingSettings()

  @Option(
    parsing: .unconditional,
    help: "Passes over the training images (default: \(defaults.epochs)).")
  var epochs: Int?

  @Option(
    parsing: .unconditional,
    help: "Images a step (default: \(defaults.batchSize), or all there are).")
  var batchSize: Int?

  @Option(
    help: ArgumentHelp(
      "How the learning rate goes on: constant, linear (to 0, the default), cosine, onecycle or step:EPOCHS:FACTOR; warmup:EPOCHS, before it makes it rise first.",
      valueName: "schedule"))
  var schedule: String?

  @Option(
    help: ArgumentHelp(
      "cross_entropy (default), cross_entropy:SMOOTHING, as 0.1, mean_squared_error, mean_absolute_error or binary_cross_entropy.",
      valueName: "loss"))
  var loss: String?

  @Option(
    help: ArgumentHelp(
      "Change the training images at random: shift=PIXELS, rotate=DEGREES, scale=SHARE, shear=SHARE, elastic=PIXELS, sigma=PIXELS, erase=PROBABILITY, mirror, crop=PIXELS, brightness=SHARE, contrast=SHARE, saturation=SHARE, cutout=PIXELS; with commas between them.",
      valueName: "changes"))
  var augment: String?

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp(
      "Evaluate and save a moving average of the weights, of which a step keeps this share: 0.998.",
      valueName: "decay"))
  var ema: Float?

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp(
      "Stop after so many epochs without a lower loss on the images that are evaluated.",
      valueName: "epochs"))
  var patience: Int?

  @Flag(help: "End with the weights of the epoch with the lowest such loss.")
  var best = false

  @Option(
    help: ArgumentHelp(
      "Leave these layers as they are: 1-4,6, or all-but-last, of those with weights.",
      valueName: "layers"))
  var freeze: String?

  @Option(
    help: ArgumentHelp(
      "What classes count in the loss: balanced, the rarer the more, or a file with a line name,weight for each.",
      valueName: "weights"))
  var classWeights: String?

  @Option(parsing: .unconditional, help: "Decides everything random (default: \(defaults.seed)).")
  var seed: UInt64?

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp(
      "Decides the images' order, and which --split, --validate and --folds take, in --seed's place.",
      valueName: "seed"))
  var shuffle: UInt64?

  func apply(to settings: inout TrainingSettings) throws {
    if let epochs { settings.epochs = epochs }
    if let batchSize { settings.batchSize = batchSize }
    if let schedule { settings.schedule = try Schedule(schedule) }
    if let loss { settings.loss = try Loss(loss) }
    if let augment { settings.augmentation = try Augmentation(augment) }
    if let ema { settings.averageDecay = ema }
    if let patience { settings.patience = patience }
    if best { settings.keepsBest = true }
    if let seed { settings.seed = seed }
    if let shuffle { settings.shuffleSeed = shuffle }
  }

  /// The layers, from 0, that are frozen: by "1-4,6", "layers 1-4" or "all-but-last"; nil unless asked
  /// for.
  func frozenLayers(of layers: [any Layer]) throws -> [Int]? {
    guard let freeze else { return nil }
    if freeze == "all-but-last" { return Array(0..<(try Network.head(of: layers))) }
    return try Self.layers(String(freeze.trimmingPrefix(/layers? */)))
  }

  private static func layers(_ text: String) throws -> [Int] {
    try text.split(separator: ",", omittingEmptySubsequences: false).flatMap { part -> [Int] in
      let ends = part.split(separator: "-", omittingEmptySubsequences: false).map { Int($0) ?? 0 }
      guard ends.count <= 2, let first = ends.first, let last = ends.last, first > 0, last >= first,
        last <= 100_000
      else {
        throw StrideNetError(
          .usage, "no layers", at: "--freeze", found: "'\(part)'",
          expected: "numbers from 1, or two with a dash between them: 1-4,6; or all-but-last")
      }
      return Array(first - 1...last - 1)
    }
  }
}

struct OptimizerOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "\(Optimizer.Method.allCases.map(\.rawValue).joined(separator: ", ")) (default: sgd, with momentum).",
      valueName: "method"))
  var optimizer: String?

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp(
      "Step size of gradient descent, the largest of the schedule (default: \(TrainingSettings().learningRate); 0.001 for the adaptive ones).",
      valueName: "rate"))
  var learningRate: Float?

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp(
      "Share of the last step that the next one keeps (default: 0.9; 0 for rmsprop).",
      valueName: "share"))
  var momentum: Float?

  @Option(parsing: .unconditional, help: "Adam's share of the remembered gradients (default: 0.9).")
  var beta1: Float?

  @Option(
    parsing: .unconditional,
    help: "Share of the remembered squares (default: 0.999; 0.99 for rmsprop).")
  var beta2: Float?

  @Option(parsing: .unconditional, help: "Added to their root (default: 1e-8).")
  var epsilon: Float?

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp(
      "Pulls weights towards 0: L2, or AdamW's own (default: 0; 0.01 for adamw).",
      valueName: "factor"))
  var weightDecay: Float?

  @Option(
    parsing: .unconditional, help: ArgumentHelp("Pulls weights to 0: L1.", valueName: "factor"))
  var l1: Float?

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp(
      "Scales all gradients down to this norm where it is larger.", valueName: "norm"))
  var clipNorm: Float?

  /// - Parameter isNew: the settings are the defaults, which depend on the method
  func apply(to settings: inout TrainingSettings, isNew: Bool) throws {
    if let optimizer {
      let method = try Optimizer.Method(named: optimizer)
      if isNew || method != settings.optimizer.method {
        settings.optimizer = Optimizer(method)
        settings.learningRate = method.rule.usual.learningRate
      }
    }
    let method = settings.optimizer.method
    func refuse(_ given: Bool, _ option: String, _ methods: String) throws {
      guard given else { return }
      throw StrideNetError(
        .usage, "\(option) means nothing to \(method.rawValue)", found: option,
        expected: "it with \(methods), or \(method.rawValue) without it")
    }
    let usual = method.rule.usual
    try refuse(usual.isBeta1 && momentum != nil, "--momentum", "sgd, nesterov or rmsprop")
    try refuse(!usual.isBeta1 && beta1 != nil, "--beta1", "adam or adamw")
    try refuse(usual.beta2 == nil && beta2 != nil, "--beta2", "adam, adamw or rmsprop")
    try refuse(usual.beta2 == nil && epsilon != nil, "--epsilon", "adam, adamw or rmsprop")
    if let learningRate { settings.learningRate = learningRate }
    if let momentum = momentum ?? beta1 { settings.optimizer.momentum = momentum }
    if let beta2 { settings.optimizer.beta2 = beta2 }
    if let epsilon { settings.optimizer.epsilon = epsilon }
    if let weightDecay { settings.optimizer.weightDecay = weightDecay }
    if let l1 { settings.optimizer.l1 = l1 }
    if let clipNorm { settings.optimizer.clipNorm = clipNorm }
  }
}

struct RunFileOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "Write the weights there after every epoch (safetensors).", valueName: "file"))
  var save: String?

  @Option(
    help: ArgumentHelp(
      "Write an event file there for TensorBoard: losses, norms, distributions, filters.",
      valueName: "folder"))
  var logDir: String?

  @Option(
    help: ArgumentHelp(
      "At the end write a page there that shows the training: curves, filters and feature maps over time, mistakes, where the time went.",
      valueName: "html"))
  var report: String?

  @OptionGroup var page: ReportOptions

  @Option(
    help: ArgumentHelp(
      "Start from the weights there, which train --save wrote. Where the data has other classes, the last dense layer is new.",
      valueName: "file"))
  var from: String?

  @Option(
    help: ArgumentHelp(
      "Take the run from there (JSON); other options override it.", valueName: "file"))
  var config: String?

  @Option(
    help: ArgumentHelp(
      "Take the run from a recipe: \(RunConfiguration.recipes.map(\.name).joined(separator: ", ")).",
      valueName: "name"))
  var recipe: String?

  @Option(help: ArgumentHelp("Write the file that repeats this run.", valueName: "file"))
  var writeConfig: String?

  @Option(
    help: ArgumentHelp(
      "Write there, after epochs and on Ctrl-C, what --resume goes on from.", valueName: "file"))
  var checkpoint: String?

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp("Only after every so many epochs.", valueName: "epochs"))
  var checkpointEvery: Int?

  @Option(
    help: ArgumentHelp(
      "Go on from a checkpoint as if the run had never stopped.", valueName: "file"))
  var resume: String?
}
