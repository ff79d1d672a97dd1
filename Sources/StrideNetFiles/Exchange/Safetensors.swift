import StrideNetCore

/// The safetensors container: named tensors of floats and a few strings in one file. A header in
/// JSON after its length in eight bytes, then the numbers, little-endian, without gaps.
/// https://huggingface.co/docs/safetensors
public enum Safetensors {
  /// A tensor of any rank; no dimension means one value.
  public struct Tensor: Sendable, Equatable {
    public var name: String
    public var shape: [Int]
    public var values: [Float]

    public init(name: String, shape: [Int], values: [Float]) {
      self.name = name
      self.shape = shape
      self.values = values
    }

    /// - Throws: ``StrideNetError`` naming the first value that isn't a finite number
    func checkFinite(at path: String) throws {
      guard let index = values.firstIndex(where: { !$0.isFinite }) else { return }
      throw StrideNetError(
        .badData, "a weight isn't a finite number", at: "\(path), tensor \(name)[\(index)]",
        found: "\(values[index])",
        hint: "the training diverged: train again with a lower learning rate")
    }
  }

  /// What a file holds, the tensors in the order of their data.
  public typealias Contents = (tensors: [Tensor], metadata: [String: String])

  /// Writes tensors as F32 in the given order, metadata sorted by key: the same contents give the
  /// same bytes.
  public static func write(
    _ tensors: [Tensor], metadata: [String: String] = [:], to path: String
  ) throws {
    let header = try header(tensors, metadata, path)
    try AtomicFile.write(to: path) { file in
      try file.append(header)
      for tensor in tensors { try file.append(tensor.values) }
    }
  }

  /// What stands before the data, its length included.
  static func header(_ tensors: [Tensor], _ metadata: [String: String], _ path: String) throws
    -> [UInt8]
  {
    var names: Set<String> = ["__metadata__"]
    var entries: [String] = []
    if !metadata.isEmpty {
      let pairs = metadata.sorted { $0.key < $1.key }.map { "\(quoted($0)):\(quoted($1))" }
      entries.append("\"__metadata__\":{\(pairs.joined(separator: ","))}")
    }
    var offset = 0
    for tensor in tensors {
      precondition(names.insert(tensor.name).inserted, "two tensors named \(tensor.name)")
      precondition(
        Shape.product(tensor.shape) == tensor.values.count, "\(tensor.name) doesn't fit its shape")
      try tensor.checkFinite(at: path)
      let end = offset + 4 * tensor.values.count
      let shape = tensor.shape.map(String.init).joined(separator: ",")
      entries.append(
        quoted(tensor.name)
          + ":{\"dtype\":\"F32\",\"shape\":[\(shape)],\"data_offsets\":[\(offset),\(end)]}")
      offset = end
    }
    var header = Array("{\(entries.joined(separator: ","))}".utf8)
    // Readers that map the file want the numbers aligned.
    header += Array(repeating: UInt8(ascii: " "), count: -header.count & 7)
    return withUnsafeBytes(of: UInt64(header.count).littleEndian) { Array($0) } + header
  }

  /// Reads a file of tensors, of floats of 16 bits or more or of whole numbers, all as Float, and
  /// checks everything that can be wrong with it before it believes the header. `skipping` says of a
  /// name that its tensor, which may be of any type, isn't wanted.
  public static func read(
    at path: String, skipping: (_ name: String) -> Bool = { _ in false }
  ) throws -> Contents {
    try read(InputFile(path), skipping: skipping)
  }

  static func read(
    _ file: InputFile, skipping: (_ name: String) -> Bool = { _ in false }
  ) throws -> Contents {
    let path = file.path
    let (entries, metadata, start) = try entries(of: file)
    let wanted = entries.filter { !skipping($0.name) }
    var need = MemoryNeed()
    for entry in wanted {
      need.add((entry.end - entry.begin) / entry.type.size, for: "\(path), tensor \(entry.name)")
    }
    try need.require(hint: "give it more memory")
    let tensors = try wanted.map { entry in
      let tensor = Tensor(
        name: entry.name, shape: entry.shape,
        values: try values(of: entry, in: file, from: start + entry.begin))
      try tensor.checkFinite(at: path)
      return tensor
    }
    return (tensors, metadata)
  }

  /// The tensors of any kind of numbers, each read when it is asked for.
  static func arrays(at path: String) throws -> [(
    name: String, array: () throws -> NumberArray
  )] {
    let file = try InputFile(path)
    let (entries, _, start) = try entries(of: file)
    return entries.map { entry in
      (
        entry.name,
        {
          let place = "\(path), tensor \(entry.name)"
          let count = entry.end - entry.begin
          try MemoryNeed.probe(bytes: 2 * count, for: place)
          return try NumberArray(
            place, entry.shape, entry.type.kind(at: place),
            bytes(of: file, count, from: start + entry.begin)[...])
        }
      )
    }
  }

  /// What the header says, checked, and where the data begins.
  private static func entries(of file: InputFile) throws -> (
    [SafetensorsHeader.Entry], metadata: [String: String], start: Int
  ) {
    let path = file.path
    var length: UInt64 = 0
    let got = try withUnsafeMutableBytes(of: &length) { try file.read(into: $0, from: 0) }
    length = UInt64(littleEndian: length)
    // A file that grows, or that the system makes up, may have more bytes than its size says.
    guard got == 8, file.size >= 8 else {
      throw StrideNetError(
        .badData, "the file is too short", at: "\(path), byte 0",
        found: got < 8
          ? "\(got) bytes" : "a size of \(file.size) bytes and more bytes than that",
        expected: "8 bytes of header length and a header",
        hint: got < 8
          ? "the file isn't in the safetensors format, or it was cut off"
          : "wait until the file is written, or give a copy of it")
    }
    let most = min(headerLimit, UInt64(file.size - 8))
    guard length >= 2, length <= most else {
      throw StrideNetError(
        .badData, "the header's length is wrong", at: "\(path), byte 0", found: "\(length) bytes",
        expected: "2 to \(most) bytes, as the file has \(file.size)",
        hint: "the file isn't in the safetensors format, or it was cut off")
    }
    let header = try bytes(of: file, Int(length), from: 8)
    var parser = SafetensorsHeader(header, path: path)
    let (entries, metadata) = try parser.parse()
    let start = 8 + header.count
    try checkOffsets(entries, dataSize: file.size - start, path: path)
    return (entries, metadata, start)
  }

  /// The limit of the format's own implementation.
  private static let headerLimit: UInt64 = 100_000_000

  /// The data must be covered, each byte once, in the order of the entries.
  private static func checkOffsets(
    _ entries: [SafetensorsHeader.Entry], dataSize: Int, path: String
  ) throws {
    func fail(_ what: String, _ entry: SafetensorsHeader.Entry, expected: String) -> StrideNetError
    {
      StrideNetError(
        .badData, what, at: "\(path), tensor \(entry.name)",
        found: "data_offsets [\(entry.begin),\(entry.end)]", expected: expected,
        hint: "the file is damaged")
    }
    var covered = 0
    for entry in entries {
      let shape = entry.shape.map(String.init).joined(separator: "×")
      guard let size = Shape.product(entry.shape + [entry.type.size]) else {
        throw fail("the shape \(shape) is too large", entry, expected: "a smaller shape")
      }
      guard entry.begin <= entry.end, entry.end <= dataSize else {
        throw fail(
          "the data lies outside of the file", entry, expected: "within \(dataSize) bytes of data")
      }
      guard entry.begin == covered else {
        throw fail(
          entry.begin < covered ? "tensors overlap" : "a gap lies before the data", entry,
          expected: "data from byte \(covered)")
      }
      guard entry.end - entry.begin == size else {
        throw fail(
          "the data doesn't fit the shape", entry,
          expected:
            "\(size) bytes, for \(shape.isEmpty ? "one value" : shape) of \(entry.type.rawValue)")
      }
      covered = entry.end
    }
    guard covered == dataSize else {
      throw StrideNetError(
        .badData, "bytes follow after the last tensor", at: path,
        found: "\(dataSize) bytes of data", expected: "\(covered) bytes",
        hint: "the file is damaged")
    }
  }

  private static func values(
    of entry: SafetensorsHeader.Entry, in file: InputFile, from offset: Int
  ) throws -> [Float] {
    let (size, place) = (entry.end - entry.begin, "\(file.path), tensor \(entry.name)")
    if entry.type == .f32 {
      // No detour: on all platforms of Swift the bytes of the file are those in memory.
      return try [Float](unsafeUninitializedCapacity: size / 4) { buffer, done in
        let target = UnsafeMutableRawBufferPointer(buffer)
        try readAll(of: file, into: .init(rebasing: target[..<size]), offset)
        done = size / 4
      }
    }
    let raw = try bytes(of: file, size, from: offset)
    return try NumberArray(place, entry.shape, entry.type.kind(at: place), raw[...]).numbers
  }

  /// By hand, as Float16 is missing on some platforms.
  static func halfToFloat(_ half: UInt16) -> Float {
    let sign = UInt32(half & 0x8000) << 16
    if half & 0x7c00 == 0x7c00 {
      return Float(bitPattern: sign | 0x7f80_0000 | UInt32(half & 0x3ff) << 13)
    }
    // The product moves the exponent from one bias to the other, for subnormal numbers too.
    return Float(bitPattern: sign | UInt32(half & 0x7fff) << 13) * 0x1p112
  }

  private static func bytes(of file: InputFile, _ count: Int, from offset: Int) throws -> [UInt8] {
    try [UInt8](unsafeUninitializedCapacity: count) { buffer, done in
      let target = UnsafeMutableRawBufferPointer(buffer)
      try readAll(of: file, into: .init(rebasing: target[..<count]), offset)
      done = count
    }
  }

  private static func readAll(
    of file: InputFile, into target: UnsafeMutableRawBufferPointer, _ offset: Int
  ) throws {
    if try file.read(into: target, from: offset) < target.count {
      throw StrideNetError(
        .badData, "the file ended while it was read", at: file.path, hint: "try again")
    }
  }

  private static func quoted(_ text: String) -> String {
    var result = "\""
    for scalar in text.unicodeScalars {
      switch scalar {
      case "\"", "\\": result += "\\\(scalar)"
      case "\u{0}"..<" ":
        result += "\\u00" + (scalar.value < 16 ? "0" : "") + String(scalar.value, radix: 16)
      default: result.unicodeScalars.append(scalar)
      }
    }
    return result + "\""
  }
}
