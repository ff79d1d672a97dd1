import StrideNetCore

extension RunConfiguration {
  /// A run that was found to do well. Those for MNIST were chosen by their results on the last 5,000
  /// training images, which they weren't trained on then.
  package struct Recipe: Sendable {
    package let name, summary: String
    package let configuration: RunConfiguration

    fileprivate init(
      _ name: String, _ summary: String, data: String? = nil, layers: String,
      _ change: (inout TrainingSettings) -> Void
    ) {
      var configuration = RunConfiguration(layers: layers)
      configuration.data = data
      change(&configuration.training)
      (self.name, self.summary, self.configuration) = (name, summary, configuration)
    }
  }

  package static let recipes: [Recipe] = [
    Recipe(
      "speedrun", "99 % of MNIST's test digits in the least time", data: "mnist",
      layers: "conv(24,5) maxpool(2) conv(32,3) maxpool(2) flatten relu(256) softmax(10)"
    ) {
      $0.epochs = 1
      $0.batchSize = 128
      $0.optimizer = Optimizer(.adam)
      $0.learningRate = 0.008
      $0.loss = .crossEntropy(labelSmoothing: 0.05)
      $0.schedule = .oneCycle
    },
    Recipe("best", "the most of MNIST's test digits with one network", data: "mnist", layers: deep)
    {
      careful(&$0)
      $0.augmentation = try? Augmentation("shift=2,rotate=12,scale=0.12,shear=0.12")
    },
    Recipe("best-fashion", "the same for Fashion-MNIST", data: "fashion-mnist", layers: deep) {
      careful(&$0)
      $0.augmentation = try? Augmentation("shift=2,erase=0.2,mirror")
    },
    Recipe(
      "digits", "the small network that is in the package", data: "sample",
      layers: "conv(16,3) maxpool(2) conv(32,3) maxpool(2) flatten relu(64) softmax(10)"
    ) {
      $0.epochs = 60
      $0.optimizer = Optimizer(.adam)
      $0.learningRate = 0.003
      $0.schedule = .oneCycle
      $0.averageDecay = 0.995
      // Hands differ more than the sample shows.
      $0.augmentation = try? Augmentation("shift=2,rotate=12,scale=0.15,shear=0.15")
    },
    Recipe(
      "colour", "pictures in colour, of 32×32 pixels or so, by the preset resnet",
      layers: Architecture.presets.first { $0.name == "resnet" }!.text
    ) {
      $0.epochs = 30
      $0.batchSize = 64
      $0.optimizer = Optimizer(.adamw)
      $0.learningRate = 0.003
      $0.schedule = .oneCycle
      $0.loss = .crossEntropy(labelSmoothing: 0.1)
      $0.augmentation = try? Augmentation(
        "crop=4,mirror,brightness=0.2,contrast=0.2,saturation=0.2,cutout=8")
    },
  ]

  // Of the recipes for the best network.
  private static let deep =
    twice(32, ",padding=1") + "maxpool(2) dropout(0.1) " + twice(64, ",padding=1")
    + "maxpool(2) dropout(0.2) " + twice(128, "")
    + "flatten dropout(0.3) relu(256) dropout(0.3) softmax(10)"

  private static func twice(_ filters: Int, _ padding: String) -> String {
    let layer = "conv(\(filters),3\(padding),activation=none) batchnorm(activation=relu) "
    return layer + layer
  }

  private static func careful(_ settings: inout TrainingSettings) {
    settings.epochs = 20
    settings.batchSize = 128
    settings.optimizer = Optimizer(.adamw)
    settings.learningRate = 0.003
    settings.schedule = .oneCycle
    settings.averageDecay = 0.995
    settings.loss = .crossEntropy(labelSmoothing: 0.1)
  }

  /// - Throws: ``StrideNetError`` with the list of recipes
  package init(recipe name: String) throws {
    guard let recipe = Self.recipes.first(where: { $0.name == name }) else {
      throw StrideNetError(
        .usage, "no recipe of that name", found: "'\(name)'",
        expected: Self.recipes.map(\.name).joined(separator: ", "))
    }
    self = recipe.configuration
  }
}
