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
  /// The saved network whose weights training starts from; nil for new ones.
  package var from: SavedWeights?
  /// A data set's name or folder; nil for the default.
  package var data: String?
  /// Share of all images, shuffled, to train on, instead of the standard split.
  package var split: Double?
  /// The first so many training images only.
  package var limit: Int?
  /// So many training images, or below 1 this share of them, are held out and evaluated instead of the
  /// test set.
  package var validate: Double?
  /// Into how many parts the training images go, each of which is held out once.
  package var folds: Int?
  /// Whether images stay in their files and are read while the network trains.
  package var stream: Bool?
  /// How pictures become images; nil for the usual way.
  package var pictures: PictureOptions?
  /// What is done to pixels before the first layer; nil for nothing more than to divide them by 255.
  public var normalize: InputNormalization.Method?
  /// The kernel variant; nil for the one bound at build time.
  package var kernels: String?
  /// Of the products; nil for float32.
  package var precision: Precision?
  public var training: TrainingSettings

  public init(layers: String = Architecture.presets[0].text, training: TrainingSettings = .init()) {
    self.layers = layers
    self.training = training
    self.training.loss = training.loss ?? .crossEntropy()
  }

  /// A weight file, and the SHA-256 of the weights that it had; nil where that isn't known yet.
  package struct SavedWeights: Sendable, Codable, Hashable {
    package var path: String
    package var sha256: String?

    package init(path: String, sha256: String? = nil) { (self.path, self.sha256) = (path, sha256) }
  }

  /// Loads what training starts from and takes over its layers, and says of which weights they are.
  /// - Parameter isOpen: whether the layers here are only the default
  /// - Returns: the network as it was saved; nil where it starts from new weights
  /// - Throws: ``StrideNetError`` where the file has other layers, or other weights than it had
  package mutating func takeStart(isOpen: Bool, runtime: Runtime) throws -> Network? {
    guard let from else { return nil }
    let network = try Network.load(from: from.path, runtime: runtime)
    let found = network.snapshot().sha256
    if let sha256 = from.sha256, sha256 != found {
      throw StrideNetError(
        .badData, "other weights than the run started from", at: from.path,
        found: "weights with SHA-256 \(found)", expected: sha256,
        hint: "to start from these, leave from.sha256 out of the configuration")
    }
    let text = Architecture.text(network.layers)
    if !isOpen {
      // The last layer may have other outputs: which, the data says.
      guard layers == text || Architecture.text(layers, outputs: network.classes) == text else {
        throw StrideNetError(
          .usage, "another network than the file has", at: from.path, found: layers, expected: text,
          hint: "leave the network out: the file says which it is")
      }
    }
    layers = text
    self.from = SavedWeights(path: from.path, sha256: found)
    return network
  }

  /// Loads the data as the configuration wants it, and the test set if the training evaluates other
  /// images.
  package func loadData(
    isStrict: Bool = false, cache: String? = nil,
    _ progress: (@Sendable (_ done: Int, _ all: Int) -> Void)? = nil
  ) throws -> (data: Dataset, test: ImageSet?) {
    var options = pictures ?? PictureOptions()
    (options.isStrict, options.cache) = (isStrict, cache)
    var data = try Dataset.load(data, options, progress: progress)
    if let split { data = try data.split(split, seed: training.orderSeed) }
    if folds != nil {
      if let limit { data = try data.limited(to: limit) }
      return (data, nil)
    }
    return try divided(data)
  }

  /// The same of a data set whose images stay in their files.
  package func streamData(
    isStrict: Bool = false, cache: String? = nil,
    _ progress: (@Sendable (_ done: Int, _ all: Int) -> Void)? = nil
  ) throws -> (data: StreamedDataset, test: StreamedImages?) {
    guard split == nil && folds == nil, let name = data else {
      throw StrideNetError(
        .usage, "images that stay in their files can't be shuffled as a whole or cut into folds",
        found: data == nil ? "no data set" : split == nil ? "--folds" : "--split",
        expected: "--data, with or without --validate and --limit")
    }
    var options = pictures ?? PictureOptions()
    (options.isStrict, options.cache) = (isStrict, cache)
    return try divided(Dataset.stream(name, options, progress: progress))
  }

  /// What is trained on, with what is evaluated meanwhile as its test set; and the test set where that
  /// is another.
  private func divided<D: DividedData>(_ data: D) throws -> (data: D, test: D.Images?) {
    let test = validate == nil && data.validation == nil ? nil : data.test
    var data =
      try validate.map { try data.holdingOut($0, seed: training.orderSeed) }
      ?? data.choosingByValidation()
    if let limit { data = try data.limited(to: limit) }
    return (data, test)
  }

  /// Where the data may lie now: where it was, or where the end of its path leads from the working
  /// folder or that of a file with this configuration.
  package func placeOfData(besides file: String) -> String? {
    guard let data, !Dataset.isName(data), !Dataset.isThere(data) else { return data }
    let parts = data.split(separator: "/").map(String.init)
    let folder = URL(fileURLWithPath: file).deletingLastPathComponent().path
    for start in parts.indices {
      let end = parts[start...].joined(separator: "/")
      if let found = [end, "\(folder)/\(end)"].first(where: Dataset.isThere) { return found }
    }
    return data
  }

  // MARK: Files

  /// The configuration as JSON, a value a line.
  package var json: String {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
    encoder.keyEncodingStrategy = .convertToSnakeCase
    return String(decoding: try! encoder.encode(self), as: UTF8.self)
  }

  package func write(to path: String) throws {
    try AtomicFile.write(to: path) { try $0.append(Array("\(json)\n".utf8)) }
  }

  /// - Throws: ``StrideNetError`` naming the file and the key where something isn't as it should be
  package static func read(from path: String) throws -> RunConfiguration {
    let file = try InputFile(path)
    let result = try parse(try file.readAll(limit: 1 << 20), at: path)
    _ = try Architecture.layers(result.layers, source: "\(path), layers")
    return result
  }

  /// Reads a configuration's text; errors call it `place`.
  package static func parse(_ text: [UInt8], at place: String) throws -> RunConfiguration {
    try ConfigurationReader(text, at: place).configuration()
  }

  /// The configuration as JSON has it.
  var dictionary: [String: Any] {
    (try? JSONSerialization.jsonObject(with: Data(json.utf8))) as? [String: Any] ?? [:]
  }

  /// The keys in which two configurations differ, as "training.epochs: 3, 4".
  package func differences(from other: RunConfiguration) -> [String] {
    func text(_ value: Any?) -> String {
      guard let value else { return "none" }
      // To Foundation a truth is a number, too, of one kind.
      if let number = value as? NSNumber, String(cString: number.objCType) == "c" {
        return "\(number.boolValue)"
      }
      return "\(value)"
    }
    func compare(_ a: [String: Any], _ b: [String: Any], _ path: String) -> [String] {
      Set(a.keys).union(b.keys).sorted().flatMap { key -> [String] in
        let (inA, inB) = (a[key] as? [String: Any], b[key] as? [String: Any])
        if inA != nil || inB != nil { return compare(inA ?? [:], inB ?? [:], "\(path)\(key).") }
        let (a, b) = (text(a[key]), text(b[key]))
        return a == b ? [] : ["\(path)\(key): \(a), \(b)"]
      }
    }
    return compare(dictionary, other.dictionary, "")
  }
}

/// Images of which some are held out, in memory or in their files.
private protocol DividedData {
  associatedtype Images
  var test: Images { get }
  var validation: Images? { get }
  func holdingOut(_ amount: Double, seed: UInt64) throws -> Self
  func choosingByValidation() throws -> Self
  func limited(to n: Int) throws -> Self
}

extension Dataset: DividedData {}
extension StreamedDataset: DividedData {}
