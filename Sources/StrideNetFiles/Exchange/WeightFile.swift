import Foundation
import MNISTSample
import StrideNetCore

extension Network {
  // Keys of the metadata in a weight file.
  static let architectureKey = "stridenet.architecture"
  private static let inputKey = "stridenet.input"
  private static let lossKey = "stridenet.loss"
  private static let classesKey = "stridenet.classes"
  private static let fitKey = "stridenet.fit"
  static let normalizationKey = "stridenet.normalization"
  static let targetsKey = "stridenet.targets"

  /// Writes the weights as a safetensors file with the architecture in its metadata, whole or not
  /// at all.
  /// - Parameter history: how it was trained, to be kept with the weights; nil where that isn't known
  public func save(to path: String, history: TrainingHistory? = nil) throws {
    try requireWeights(for: path)
    try Safetensors.write(
      snapshot().arrays, metadata: metadata.merging(history?.metadata ?? [:]) { $1 }, to: path)
  }

  func requireWeights(for path: String) throws {
    guard input == nil else { return }
    throw StrideNetError(
      .usage, "a network without weights can't be saved", at: path,
      hint: "train it, or build it for an input, first")
  }

  /// What a file says of the network; it must be built.
  var metadata: [String: String] {
    var result = [
      Self.architectureKey: Architecture.text(layers),
      Self.inputKey: "\(input!.height)x\(input!.width)x\(input!.channels)",
    ]
    // Where nothing is said, it is the only one that such a network can have, or the usual one.
    if loss != usualLoss { result[Self.lossKey] = "\(loss)" }
    if classNames != classNames.indices.map(String.init) {
      result[Self.classesKey] = ClassList.json(classNames)
    }
    result[Self.fitKey] = pictureFit?.rawValue
    func json(_ value: some Encodable) -> String {
      let encoder = JSONEncoder()
      encoder.outputFormatting = .sortedKeys
      return String(decoding: try! encoder.encode(value), as: UTF8.self)
    }
    result[Self.normalizationKey] = normalization.map(json)
    result[Self.targetsKey] = targetNormalization.map(json)
    return result
  }

  private var usualLoss: Loss { endsInSoftmax ? .crossEntropy() : .meanSquaredError }

  /// A network as it was saved: layers and weights from the file alone.
  public static func load(from path: String, runtime: Runtime = Runtime()) throws -> Network {
    try load(from: path, layers: nil, runtime: runtime)
  }

  /// The same for a network with layers of one's own, which the file only names.
  public static func load(from path: String, layers: [any Layer]?, runtime: Runtime = Runtime())
    throws
    -> Network
  {
    try load(from: InputFile(path), layers: layers, runtime: runtime)
  }

  /// A small network that knows digits, so that there is something to look into at once:
  ///
  ///     stridenet train --recipe digits --save digits.safetensors
  ///
  /// is how it was made, from the sample's 10,000 training images.
  public static func digits(runtime: Runtime = Runtime()) -> Network {
    // The tests load it.
    try! load(from: .digits, layers: nil, runtime: runtime)
  }

  static func load(from input: InputFile, layers: [any Layer]?, runtime: Runtime) throws
    -> Network
  {
    let (file, path) = (try Safetensors.read(input), input.path)
    func metadata(_ key: String) throws -> String {
      guard let value = file.metadata[key] else {
        throw StrideNetError(
          .badData, "not a weight file of StrideNet", at: path,
          found: "no '\(key)' in its metadata",
          hint: "files are written by: stridenet train --save FILE")
      }
      return value
    }
    let sizes = try metadata(inputKey).split(separator: "x").map { Int($0) ?? 0 }
    guard sizes.count == 3, sizes.allSatisfy({ $0 > 0 && $0 <= 1 << 20 }) else {
      throw StrideNetError(
        .badData, "an input size that isn't one", at: "\(path), metadata '\(inputKey)'",
        found: "'\(try metadata(inputKey))'", expected: "height x width x channels: 28x28x1")
    }
    let text = try metadata(architectureKey)
    if let layers {
      // As these are written today.
      let saved = (try? Architecture.layers(text)).map(Architecture.text) ?? text
      guard Architecture.text(layers) == saved else {
        throw StrideNetError(
          .badData, "layers other than those that the weights are of",
          at: "\(path), metadata '\(architectureKey)'", found: Architecture.text(layers),
          expected: saved)
      }
    }
    let network: Network
    do {
      network = Network(
        try layers ?? Architecture.layers(text, source: "\(path), metadata '\(architectureKey)'"),
        runtime: runtime)
      // A file may claim any architecture: compare its sizes before memory is taken for them.
      try network.build(for: Shape(sizes[0], sizes[1], sizes[2])) { expected in
        try matches(file, expected, path)
      }
      network.loss = try file.metadata[lossKey].map { try Loss($0) } ?? network.usualLoss
    } catch let error as StrideNetError where error.kind == .usage {
      throw StrideNetError(
        .badData, error.what, at: error.place, found: error.found, expected: error.expected,
        hint: error.hint)
    }
    if let names = file.metadata[classesKey] {
      network.classNames = try ClassList.read(
        names, outputs: network.classes, at: "\(path), metadata '\(classesKey)'")
    }
    network.pictureFit = file.metadata[fitKey].flatMap(Picture.Fit.init)
    network.normalization = try normalization(file.metadata, normalizationKey, path)
    network.targetNormalization = try normalization(file.metadata, targetsKey, path)
    try network.checkNormalization(for: network.input!)
    try network.checkTargetNormalization()
    let byName = Dictionary(uniqueKeysWithValues: file.tensors.map { ($0.name, $0.values) })
    try network.setWeights { byName[$0]! }
    return network
  }

  /// What a file's metadata say that is done to inputs, or to targets.
  static func normalization<Normalization: Decodable>(
    _ metadata: [String: String], _ key: String, _ path: String
  ) throws -> Normalization? {
    try metadata[key].map { text in
      guard let result = try? JSONDecoder().decode(Normalization.self, from: Data(text.utf8)) else {
        throw StrideNetError(
          .badData, "a normalisation that isn't one",
          at: "\(path), metadata '\(key)'", found: String(text.prefix(200)),
          expected: #"{"deviation":[…],"mean":[…]}, a finite number for each "#
            + (key == targetsKey ? "output" : "channel"))
      }
      return result
    }
  }

  private static func matches(
    _ file: Safetensors.Contents, _ expected: [(name: String, shape: [Int])], _ path: String
  ) throws {
    // A checkpoint has more than weights.
    var found = Dictionary(
      uniqueKeysWithValues: file.tensors.filter { !$0.name.hasPrefix(Checkpoint.prefix) }
        .map { ($0.name, $0.shape) })
    for (name, shape) in expected {
      guard let there = found.removeValue(forKey: name) else {
        throw StrideNetError(
          .badData, "a weight is missing", at: path,
          found: file.tensors.map(\.name).joined(separator: ", "), expected: name)
      }
      guard there == shape else {
        throw StrideNetError(
          .badData, "a weight has another shape than the architecture asks for",
          at: "\(path), \(name)", found: "\(there)", expected: "\(shape)")
      }
    }
    if let extra = found.keys.min() {
      throw StrideNetError(
        .badData, "a weight that the architecture doesn't have", at: path, found: extra,
        expected: expected.map(\.name).joined(separator: ", "))
    }
  }
}

extension InputFile {
  /// The weights of the network that is in the package.
  static var digits: InputFile {
    let file = mnist_sample_digits
    return InputFile(UnsafeRawBufferPointer(start: file.bytes, count: file.count), name: "digits")
  }
}

extension Snapshot {
  /// SHA-256 of the weights' bytes, in hexadecimal: equal for equal training.
  public var sha256: String {
    var digest = SHA256()
    digest.update(UnsafeRawBufferPointer(start: storage.pointer, count: storage.count * 4))
    return digest.hex
  }

  /// The arrays by name, as they stand in a weight file.
  public var arrays: [Safetensors.Tensor] {
    var start = 0
    return parameters.map { name, shape in
      let count = shape.reduce(1, *)
      defer { start += count }
      return Safetensors.Tensor(
        name: name, shape: shape,
        values: Array(UnsafeBufferPointer(start: storage.pointer + start, count: count)))
    }
  }
}

extension Predictor {
  /// SHA-256 of the weights' bytes, in hexadecimal.
  package var sha256: String { weights.sha256 }
}

extension Network {
  /// The layers, of a network that can be written to `path`.
  /// - Throws: ``StrideNetError`` if it isn't built or has weights that aren't finite
  func stages(for path: String) throws -> [Stage] {
    try requireWeights(for: path)
    for tensor in snapshot().arrays { try tensor.checkFinite(at: path) }
    return stages
  }
}

extension Safetensors {
  /// Whether there is a file that begins as these do: the header's length, then its JSON.
  package static func begins(_ path: String) -> Bool {
    var status = stat()
    // Of a pipe, what was read would be gone.
    guard stat(path, &status) == 0, status.st_mode & S_IFMT == S_IFREG,
      let file = FileHandle(forReadingAtPath: path), let head = try? file.read(upToCount: 9)
    else { return false }
    return head.count == 9 && head[8] == UInt8(ascii: "{") && head[4..<8].allSatisfy { $0 == 0 }
  }
}
