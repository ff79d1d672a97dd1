import Foundation
import StrideNetCore

/// All that decides what a training run computes, but for the number of threads, which doesn't:
/// the same configuration gives the same weights, bit for bit, with the same instruction set.
///
/// As a file it is JSON, which Foundation reads without another dependency; what isn't in it has
/// its default.
public struct RunConfiguration: Sendable, Codable, Hashable {
  /// The network as `--layers` has it.
  public var layers: String
  /// A data set's name or folder; nil for the default.
  public var data: String?
  /// Share of all images, shuffled, to train on, instead of the standard split.
  public var split: Double?
  /// The first so many training images only.
  public var limit: Int?
  /// The last so many training images, or below 1 this share of them, are held out and evaluated
  /// instead of the test set.
  public var validate: Double?
  /// The kernel variant; nil for the one bound at build time.
  public var kernels: String?
  public var training: TrainingSettings

  public init(layers: String = Architecture.presets[0].text, training: TrainingSettings = .init()) {
    self.layers = layers
    self.training = training
    self.training.loss = training.loss ?? .crossEntropy()
  }

  /// Loads the data as the configuration wants it, and the test set if the training evaluates other
  /// images.
  public func loadData() throws -> (data: Dataset, test: ImageSet?) {
    var data = try Dataset.load(data)
    if let split { data = try data.split(split, seed: training.seed) }
    let test = validate == nil ? nil : data.test
    if let validate { data = try data.holdingOut(validate) }
    if let limit { data = try data.limited(to: limit) }
    return (data, test)
  }

  // MARK: Recipes

  /// A run that was found to do well. Each was chosen by its results on the last 5,000 training
  /// images, which it wasn't trained on then.
  public struct Recipe: Sendable {
    public let name, summary: String
    public let configuration: RunConfiguration
  }

  public static let recipes: [Recipe] = {
    func recipe(
      _ name: String, _ summary: String, data: String, layers: String,
      _ change: (inout TrainingSettings) -> Void
    ) -> Recipe {
      var configuration = RunConfiguration(layers: layers)
      configuration.data = data
      change(&configuration.training)
      return Recipe(name: name, summary: summary, configuration: configuration)
    }
    func block(_ filters: Int, _ padding: String) -> String {
      let layer =
        "conv(\(filters),3\(padding),activation=none) batchnorm(activation=relu) "
      return layer + layer
    }
    let deep =
      block(32, ",padding=1") + "maxpool(2) dropout(0.1) " + block(64, ",padding=1")
      + "maxpool(2) dropout(0.2) " + block(128, "")
      + "flatten dropout(0.3) relu(256) dropout(0.3) softmax(10)"
    func careful(_ settings: inout TrainingSettings) {
      settings.batchSize = 128
      settings.optimizer = Optimizer(.adamw)
      settings.learningRate = 0.003
      settings.schedule = .oneCycle
      settings.averageDecay = 0.995
      settings.loss = .crossEntropy(labelSmoothing: 0.1)
    }
    return [
      recipe(
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
      recipe(
        "best", "the most of MNIST's test digits with one network", data: "mnist", layers: deep
      ) {
        careful(&$0)
        $0.epochs = 20
        $0.augmentation = try? Augmentation("shift=2,rotate=12,scale=0.12,shear=0.12")
      },
      recipe("best-fashion", "the same for Fashion-MNIST", data: "fashion-mnist", layers: deep) {
        careful(&$0)
        $0.epochs = 20
        $0.augmentation = try? Augmentation("shift=2,erase=0.2,mirror")
      },
      recipe(
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
    ]
  }()

  /// - Throws: ``StrideNetError`` with the list of recipes
  public init(recipe name: String) throws {
    guard let recipe = Self.recipes.first(where: { $0.name == name }) else {
      throw StrideNetError(
        .usage, "no recipe of that name", found: "'\(name)'",
        expected: Self.recipes.map(\.name).joined(separator: ", "))
    }
    self = recipe.configuration
  }

  // MARK: Files

  /// The configuration as JSON, a value a line.
  public var json: String {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
    encoder.keyEncodingStrategy = .convertToSnakeCase
    return String(decoding: try! encoder.encode(self), as: UTF8.self)
  }

  public func write(to path: String) throws {
    try AtomicFile.write(to: path) { try $0.append(Array("\(json)\n".utf8)) }
  }

  /// - Throws: ``StrideNetError`` naming the file and the key where something isn't as it should be
  public static func read(from path: String) throws -> RunConfiguration {
    let file = try InputFile(path)
    let result = try parse(try file.readAll(limit: 1 << 20), at: path)
    _ = try Architecture.layers(result.layers, source: "\(path), layers")
    return result
  }

  /// Reads a configuration's text; errors call it `place`.
  public static func parse(_ text: [UInt8], at place: String) throws -> RunConfiguration {
    func wrong(_ what: String, _ key: String = "", found: String, expected: String? = nil)
      -> StrideNetError
    {
      StrideNetError(
        .usage, what, at: key.isEmpty ? place : "\(place), \(key)", found: found,
        expected: expected, hint: "stridenet train --write-config FILE writes one with all keys")
    }
    let object: Any
    do {
      object = try JSONSerialization.jsonObject(with: Data(text))
    } catch {
      let detail = (error as NSError).userInfo["NSDebugDescription"] as? String
      throw wrong("not JSON", found: detail ?? "\(error)")
    }
    guard let given = object as? [String: Any] else {
      throw wrong("not a configuration", found: "JSON that isn't an object", expected: "{ … }")
    }
    // Every key there is, by one configuration in which nothing is left out.
    var full = RunConfiguration()
    (full.data, full.split, full.limit, full.validate, full.kernels) = ("", 0, 0, 0, "")
    (full.training.averageDecay, full.training.patience) = (0, 0)
    full.training.optimizer.clipNorm = 0
    full.training.augmentation = Augmentation()
    full.training.frozenLayers = []
    let known = full.dictionary
    var defaults = RunConfiguration()
    if let training = given["training"] as? [String: Any],
      let optimizer = training["optimizer"] as? [String: Any],
      let name = optimizer["method"] as? String, let method = Optimizer.Method(rawValue: name)
    {
      defaults.training.optimizer = Optimizer(method)
    }
    func merge(
      _ base: [String: Any], _ given: [String: Any], _ known: [String: Any], _ path: String
    )
      throws -> [String: Any]
    {
      var result = base
      for (key, value) in given {
        guard let kind = known[key] else {
          throw wrong(
            "unknown key", path + key, found: "'\(key)'",
            expected: known.keys.sorted().joined(separator: ", "))
        }
        if value is NSNull {
          result[key] = nil
        } else if let inner = kind as? [String: Any] {
          guard let value = value as? [String: Any] else {
            throw wrong("wrong value", path + key, found: "\(value)", expected: "{ … }")
          }
          result[key] = try merge(
            base[key] as? [String: Any] ?? [:], value, inner, "\(path)\(key).")
        } else {
          result[key] = value
        }
      }
      return result
    }
    let merged = try merge(defaults.dictionary, given, known, "")
    // As the file has it: learning_rate, not learningRate.
    func key(_ name: String) -> String {
      name.map { $0.isUppercase ? "_\($0.lowercased())" : "\($0)" }.joined()
    }
    func decode(_ object: [String: Any]) throws -> RunConfiguration {
      let decoder = JSONDecoder()
      decoder.keyDecodingStrategy = .convertFromSnakeCase
      return try decoder.decode(
        RunConfiguration.self, from: JSONSerialization.data(withJSONObject: object))
    }
    // Foundation doesn't say which number it was that is none of its key's: the first of those that
    // can't be decoded alone.
    func firstWrong(_ given: [String: Any], _ path: String = "") -> (key: String, value: Any)? {
      for (key, value) in given.sorted(by: { $0.key < $1.key }) {
        if let inner = value as? [String: Any] {
          if let found = firstWrong(inner, "\(path)\(key).") { return found }
        } else {
          let keys = "\(path)\(key)".split(separator: ".").map(String.init)
          let alone = keys.dropLast().reversed().reduce([keys.last!: value]) { [$1: $0] }
          if (try? decode(merge(defaults.dictionary, alone, known, ""))) == nil {
            return ("\(path)\(key)", value)
          }
        }
      }
      return nil
    }
    do {
      let result = try decode(merged)
      try result.training.check(images: .max)
      return result
    } catch let error as StrideNetError {
      let words = error.what.replacing(" out of range", with: "").lowercased()
      let name =
        ["decay of the moving average": "average_decay", "beta1": "momentum"][words]
        ?? words.replacing(" ", with: "_")
      let training = known["training"] as? [String: Any]
      let isOptimizers = (training?["optimizer"] as? [String: Any])?[name] != nil
      throw wrong(
        error.what, "training.\(isOptimizers ? "optimizer." : "")\(name)", found: error.found ?? "",
        expected: error.expected)
    } catch let error as DecodingError {
      let (context, expected): (DecodingError.Context, String?) =
        switch error {
        case .typeMismatch(let type, let context): (context, "\(type)")
        case .valueNotFound(let type, let context): (context, "\(type)")
        case .keyNotFound(let missing, let context): (context, key(missing.stringValue))
        case .dataCorrupted(let context): (context, nil)
        @unknown default: (.init(codingPath: [], debugDescription: "\(error)"), nil)
        }
      if context.codingPath.isEmpty, let (key, value) = firstWrong(given) {
        throw wrong(
          "wrong value", key, found: "\(value)", expected: "a number of a size and kind that fits")
      }
      throw wrong(
        "wrong value", context.codingPath.map { key($0.stringValue) }.joined(separator: "."),
        found: context.debugDescription, expected: expected)
    }
  }

  private var dictionary: [String: Any] {
    (try? JSONSerialization.jsonObject(with: Data(json.utf8))) as? [String: Any] ?? [:]
  }

  /// The keys in which two configurations differ, as "training.epochs: 3, 4".
  public func differences(from other: RunConfiguration) -> [String] {
    func compare(_ a: [String: Any], _ b: [String: Any], _ path: String) -> [String] {
      Set(a.keys).union(b.keys).sorted().flatMap { key -> [String] in
        if let a = a[key] as? [String: Any], let b = b[key] as? [String: Any] {
          return compare(a, b, "\(path)\(key).")
        }
        let (a, b) = (a[key].map { "\($0)" } ?? "none", b[key].map { "\($0)" } ?? "none")
        return a == b ? [] : ["\(path)\(key): \(a), \(b)"]
      }
    }
    return compare(dictionary, other.dictionary, "")
  }
}
