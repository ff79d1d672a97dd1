import Foundation
import StrideNetCore

/// Reads a configuration over the defaults. Its errors name the key where something isn't as it
/// should be.
struct ConfigurationReader {
  // What errors call the text.
  private let place: String
  private let given: [String: Any]
  private let defaults: [String: Any]
  private let known = Self.everyKey

  init(_ text: [UInt8], at place: String) throws {
    self.place = place
    given = try Self.object(text, at: place)
    defaults = Self.defaults(for: given)
  }

  func configuration() throws -> RunConfiguration {
    let merged = try merge(given, over: defaults, known)
    do {
      let result = try decode(merged)
      try result.training.check(images: .max)
      return result
    } catch let error as StrideNetError {
      throw wrong(
        error.what, "training.\(Self.text(error.setting))", found: error.found ?? "",
        expected: error.expected)
    } catch let error as DecodingError {
      throw wrong(error)
    }
  }

  // MARK: What there is

  private static func object(_ text: [UInt8], at place: String) throws -> [String: Any] {
    let object: Any
    do {
      object = try JSONSerialization.jsonObject(with: Data(text))
    } catch {
      let detail = (error as NSError).userInfo["NSDebugDescription"] as? String
      throw wrong("not JSON", at: place, found: detail ?? "\(error)")
    }
    guard let object = object as? [String: Any] else {
      throw wrong(
        "not a configuration", at: place, found: "JSON that isn't an object", expected: "{ … }")
    }
    return object
  }

  /// Every key there is, by one configuration in which nothing is left out.
  private static var everyKey: [String: Any] {
    var full = RunConfiguration()
    (full.data, full.split, full.limit, full.validate, full.kernels) = ("", 0, 0, 0, "")
    (full.precision, full.normalize, full.folds) = (.bf16, .unit, 0)
    full.stream = true
    full.from = .init(path: "", sha256: "")
    full.pictures = PictureOptions(height: 0, width: 0, targets: [])
    (full.training.averageDecay, full.training.patience) = (0, 0)
    full.training.optimizer.clipNorm = 0
    full.training.augmentation = Augmentation()
    (full.training.frozenLayers, full.training.classWeights) = ([], [])
    full.training.shuffleSeed = 0
    return full.dictionary
  }

  /// The defaults, of an optimiser those of its method.
  private static func defaults(for given: [String: Any]) -> [String: Any] {
    var result = RunConfiguration()
    if given["pictures"] is [String: Any] { result.pictures = PictureOptions() }
    if let training = given["training"] as? [String: Any],
      let optimizer = training["optimizer"] as? [String: Any],
      let name = optimizer["method"] as? String, let method = Optimizer.Method(rawValue: name)
    {
      result.training.optimizer = Optimizer(method)
    }
    return result.dictionary
  }

  // MARK: Reading

  /// - Parameter path: the keys that lead there, with a dot behind each
  private func merge(
    _ given: [String: Any], over base: [String: Any], _ known: [String: Any], _ path: String = ""
  ) throws -> [String: Any] {
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
          value, over: base[key] as? [String: Any] ?? [:], inner, "\(path)\(key).")
      } else {
        result[key] = value
      }
    }
    return result
  }

  private func decode(_ object: [String: Any]) throws -> RunConfiguration {
    let decoder = JSONDecoder()
    decoder.keyDecodingStrategy = .convertFromSnakeCase
    return try decoder.decode(
      RunConfiguration.self, from: JSONSerialization.data(withJSONObject: object))
  }

  // MARK: Errors

  private func wrong(_ error: DecodingError) -> StrideNetError {
    let (context, expected): (DecodingError.Context, String?) =
      switch error {
      case .typeMismatch(let type, let context): (context, "\(type)")
      case .valueNotFound(let type, let context): (context, "\(type)")
      case .keyNotFound(let missing, let context): (context, Self.text([missing]))
      case .dataCorrupted(let context): (context, nil)
      @unknown default: (.init(codingPath: [], debugDescription: "\(error)"), nil)
      }
    if context.codingPath.isEmpty, let (keys, value) = firstWrong(given) {
      return wrong(
        "wrong value", keys.joined(separator: "."), found: "\(value)",
        expected: "a number of a size and kind that fits")
    }
    return wrong(
      "wrong value", Self.text(context.codingPath), found: context.debugDescription,
      expected: expected)
  }

  /// Foundation doesn't say which number it was that is none of its key's: the first of those that
  /// can't be decoded alone.
  private func firstWrong(
    _ object: [String: Any], in path: [String] = []
  ) -> (keys: [String], value: Any)? {
    for (key, value) in object.sorted(by: { $0.key < $1.key }) {
      let keys = path + [key]
      if let inner = value as? [String: Any] {
        if let found = firstWrong(inner, in: keys) { return found }
      } else {
        let alone = path.reversed().reduce([key: value]) { [$1: $0] }
        if (try? decode(merge(alone, over: defaults, known))) == nil { return (keys, value) }
      }
    }
    return nil
  }

  private func wrong(_ what: String, _ key: String, found: String, expected: String?)
    -> StrideNetError
  {
    Self.wrong(
      what, at: key.isEmpty ? place : "\(place), \(key)", found: found, expected: expected)
  }

  private static func wrong(
    _ what: String, at place: String, found: String, expected: String? = nil
  ) -> StrideNetError {
    StrideNetError(
      .usage, what, at: place, found: found, expected: expected,
      hint: "stridenet train --write-config FILE writes one with all keys")
  }

  /// As the file has them: training.learning_rate, not learningRate.
  private static func text(_ keys: [any CodingKey]) -> String {
    keys.map { key in
      key.stringValue.map { $0.isUppercase ? "_\($0.lowercased())" : "\($0)" }.joined()
    }.joined(separator: ".")
  }
}
