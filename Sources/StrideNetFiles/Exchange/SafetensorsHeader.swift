import Foundation
import StrideNetCore

/// Parses the header: what the format's own implementation reads is read, and what it refuses is
/// refused. Foundation's JSON parser couldn't say where it stumbled.
struct SafetensorsHeader {
  enum DType: String {
    case f32 = "F32"
    case f64 = "F64"
    case f16 = "F16"
    case bf16 = "BF16"
    case i64 = "I64"
    case i32 = "I32"
    case i16 = "I16"
    case i8 = "I8"
    case u64 = "U64"
    case u32 = "U32"
    case u16 = "U16"
    case u8 = "U8"
    case bool = "BOOL"
    /// Which are only skipped.
    case f8e4m3 = "F8_E4M3"
    case f8e5m2 = "F8_E5M2"
    case f8e8m0 = "F8_E8M0"
    case c64 = "C64"

    var size: Int {
      switch self {
      case .f64, .i64, .u64, .c64: 8
      case .f32, .i32, .u32: 4
      case .f16, .bf16, .i16, .u16: 2
      case .i8, .u8, .bool, .f8e4m3, .f8e5m2, .f8e8m0: 1
      }
    }

    /// - Throws: ``StrideNetError`` for those that are only skipped
    func kind(at place: String) throws -> NumberArray.Kind {
      switch self {
      case .f64, .f32, .f16: .float(size)
      case .bf16: .brain
      case .i64, .i32, .i16, .i8: .signed(size)
      case .u64, .u32, .u16, .u8, .bool: .unsigned(size)
      case .f8e4m3, .f8e5m2, .f8e8m0, .c64: throw SafetensorsHeader.unknownType(rawValue, place)
      }
    }
  }

  struct Entry {
    var name: String
    var type: DType
    var shape: [Int]
    var begin, end: Int
  }

  private let bytes: [UInt8]
  private let path: String
  private var position = 0

  init(_ bytes: [UInt8], path: String) {
    self.bytes = bytes
    self.path = path
  }

  mutating func parse() throws -> (entries: [Entry], metadata: [String: String]) {
    var entries: [Entry] = []
    var metadata: [String: String] = [:]
    var places: [String: Int] = [:]
    try object(once: ["__metadata__"]) { parser, name in
      if name == "__metadata__" {
        if parser.take("null") { return }
        try parser.object { parser, key in metadata[key] = try parser.string() }
      } else {
        let entry = try parser.entry(name)
        guard let place = places[name] else {
          places[name] = entries.count
          return entries.append(entry)
        }
        // The last one counts, but not if Swift alone takes its name for the same.
        guard entries[place].name.utf8.elementsEqual(name.utf8) else {
          throw parser.fail("\"\(name)\" only once")
        }
        entries[place] = entry
      }
    }
    skipSpace()
    if position < bytes.count { throw fail("the end of the header") }
    entries.sort { ($0.begin, $0.end) < ($1.begin, $1.end) }
    return (entries, metadata)
  }

  private mutating func entry(_ name: String) throws -> Entry {
    var type: DType?
    var shape: [Int]?
    var offsets: [Int]?
    // The three may stand in an array, too.
    if take("[") {
      type = try dtype(name)
      try expect(",")
      shape = try integers()
      try expect(",")
      offsets = try integers()
      try expect("]")
    } else {
      try object(once: ["dtype", "shape", "data_offsets"]) { parser, key in
        switch key {
        case "dtype": type = try parser.dtype(name)
        case "shape": shape = try parser.integers()
        case "data_offsets": offsets = try parser.integers()
        // Of later versions of the format, perhaps.
        default: try parser.skipValue(depth: 2)
        }
      }
    }
    guard let type, let shape, let offsets, offsets.count == 2 else {
      throw fail("dtype, shape and two data_offsets for tensor \(name)")
    }
    return Entry(name: name, type: type, shape: shape, begin: offsets[0], end: offsets[1])
  }

  private mutating func dtype(_ name: String) throws -> DType {
    let text = try string()
    guard let type = DType(rawValue: text) else {
      throw Self.unknownType(text, "\(path), tensor \(name)")
    }
    return type
  }

  static func unknownType(_ text: String, _ place: String) -> StrideNetError {
    StrideNetError(
      .badData, "the numbers have a type that isn't read", at: place, found: "dtype \(text)",
      expected: "floats of 16 bits or more, or whole numbers")
  }

  /// Calls `member` with each key, to parse the value.
  /// - Parameter known: keys that may come once
  private mutating func object(
    once known: Set<String> = [],
    _ member: (inout SafetensorsHeader, _ key: String) throws -> Void
  ) throws {
    var keys: Set<String> = []
    try list("{", "}") { parser in
      let key = try parser.string()
      if known.contains(key), !keys.insert(key).inserted {
        throw parser.fail("\"\(key)\" only once")
      }
      try parser.expect(":")
      try member(&parser, key)
    }
  }

  private mutating func integers() throws -> [Int] {
    var result: [Int] = []
    try list("[", "]") { parser in
      parser.skipSpace()
      let digits = parser.bytes[parser.position...].prefix {
        (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0)
      }
      guard let number = Int(String(decoding: digits, as: UTF8.self)),
        digits.count == 1 || digits.first != UInt8(ascii: "0")
      else { throw parser.fail("a whole number that fits 64 bits") }
      parser.position += digits.count
      result.append(number)
    }
    return result
  }

  /// Any value of JSON, in so many objects and arrays.
  private mutating func skipValue(depth: Int) throws {
    // As deep as the format's own implementation goes.
    guard depth <= 127 else { throw fail("values that aren't nested so deeply") }
    skipSpace()
    switch position < bytes.count ? UInt8(bytes[position]) : 0 {
    case UInt8(ascii: "{"):
      try object { parser, _ in try parser.skipValue(depth: depth + 1) }
    case UInt8(ascii: "["): try list("[", "]") { try $0.skipValue(depth: depth + 1) }
    case UInt8(ascii: "\""): _ = try string()
    default:
      if take("null") || take("true") || take("false") { return }
      let text = bytes[position...].prefix { !Array(" \t\r\n,]}".utf8).contains($0) }
      guard (try? JSONDecoder().decode(Double.self, from: Data(text))) != nil else {
        throw fail("a value")
      }
      position += text.count
    }
  }

  private mutating func list(
    _ open: String, _ close: String,
    _ element: (inout SafetensorsHeader) throws -> Void
  ) throws {
    try expect(open)
    if take(close) { return }
    repeat { try element(&self) } while take(",")
    try expect(close)
  }

  private mutating func string() throws -> String {
    skipSpace()
    let start = position
    position += 1
    while position < bytes.count, bytes[position] != UInt8(ascii: "\"") {
      position += bytes[position] == UInt8(ascii: "\\") ? 2 : 1
    }
    // Escapes and encoding are left to Foundation; a string alone holds no surprises.
    guard start < bytes.count, bytes[start] == UInt8(ascii: "\""), take("\""),
      let text = try? JSONDecoder().decode(String.self, from: Data(bytes[start..<position]))
    else {
      position = start
      throw fail("a string")
    }
    return text
  }

  private mutating func expect(_ text: String) throws {
    if !take(text) { throw fail(text) }
  }

  private mutating func take(_ text: String) -> Bool {
    skipSpace()
    guard bytes.dropFirst(position).starts(with: text.utf8) else { return false }
    position += text.utf8.count
    return true
  }

  private mutating func skipSpace() {
    while position < bytes.count, [0x20, 0x09, 0x0a, 0x0d].contains(bytes[position]) {
      position += 1
    }
  }

  private func fail(_ expected: String) -> StrideNetError {
    let found = String(decoding: bytes.dropFirst(position).prefix(20), as: UTF8.self)
    return StrideNetError(
      .badData, "the header isn't what it should be", at: "\(path), byte \(8 + position)",
      found: found.isEmpty ? "the end of the header" : found, expected: expected,
      hint: "the file isn't in the safetensors format, or it is damaged")
  }
}
