import Foundation
import StrideNetCore

/// NumPy's files of arrays: .npy, and .npz, which is a zip archive of those.
/// https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
enum NPY {
  /// An array in a file: its name, how large the file says it is, what reads it, and where its bytes
  /// lie as they are; nil where they are packed.
  typealias Item = (
    name: String, size: Int, array: () throws -> NumberArray, place: () throws -> Range<Int>?
  )

  /// The arrays of a file; of .npy one, named as the file.
  static func arrays(at path: String) throws -> [Item] {
    let file = try InputFile(path)
    let stem = URL(filePath: path).deletingPathExtension().lastPathComponent
    guard path.lowercased().hasSuffix(".npz") else {
      return [
        (
          stem, file.size,
          {
            try file.require(times: 2)
            return try array(file.readAll(limit: 1 << 36), path)
          }, { 0..<file.size }
        )
      ]
    }
    return try arrays(in: file, stem)
  }

  static func arrays(in file: InputFile, _ stem: String) throws -> [Item] {
    let archive = try ZipArchive(file)
    return archive.entries.filter { $0.name.hasSuffix(".npy") }.map { entry in
      let name = String(entry.name.dropLast(4))
      // As saved without names.
      return (
        name == "arr_0" ? stem : name, entry.size,
        { try array(archive.bytes(of: entry), "\(file.path), \(name)") },
        { try archive.place(of: entry) }
      )
    }
  }

  static func array(_ bytes: [UInt8], _ place: String) throws -> NumberArray {
    let (kind, shape, start, isBig) = try header(bytes, place)
    let data = bytes[start...]
    let size = Shape.product(shape + [kind.size])!
    guard data.count == size else {
      throw wrong(
        place, "\(data.count) bytes of numbers", "\(size), for \(NumberArray.text(shape))")
    }
    return try NumberArray(place, shape, kind, data, big: isBig)
  }

  private static func wrong(_ place: String, _ found: String, _ expected: String? = nil)
    -> StrideNetError
  {
    StrideNetError(
      .badData, "a NumPy array that can't be read", at: place, found: found, expected: expected,
      hint: "write it anew: numpy.savez(file, x_train=…, y_train=…)")
  }

  /// What an array's first bytes say of it: also where its numbers begin, and whether a number's
  /// largest byte comes first.
  static func header(_ bytes: [UInt8], _ place: String) throws -> (
    kind: NumberArray.Kind, shape: [Int], start: Int, isBig: Bool
  ) {
    func wrong(_ found: String, _ expected: String? = nil) -> StrideNetError {
      Self.wrong(place, found, expected)
    }
    guard bytes.count > 12, bytes.starts(with: [0x93] + Array("NUMPY".utf8)) else {
      throw wrong("no header")
    }
    let wide = bytes[6] > 1
    let length = (0..<(wide ? 4 : 2)).reduce(0) { $0 | Int(bytes[8 + $1]) << (8 * $1) }
    let start = wide ? 12 : 10
    guard start + length <= bytes.count else { throw wrong("a header that ends too early") }
    let header = String(decoding: bytes[start..<start + length], as: UTF8.self)
    guard let type = header.firstMatch(of: /'descr':\s*'([^']*)'/)?.1,
      let order = header.firstMatch(of: /'fortran_order':\s*(\w+)/)?.1,
      let sizes = header.firstMatch(of: /'shape':\s*\(([\d,\s]*)\)/)?.1
    else { throw wrong(header.trimmingCharacters(in: .whitespacesAndNewlines)) }
    guard let kind = kind(String(type.dropFirst())) else {
      throw type.hasSuffix("O")
        ? wrong("Python objects (allow_pickle), which could be any program", "numbers")
        : wrong("numbers of type \(type)", "whole numbers, floats or bools")
    }
    let shape = sizes.split(separator: ",").map {
      Int($0.trimmingCharacters(in: .whitespaces)) ?? -1
    }
    guard Shape.product(shape + [kind.size]) ?? -1 >= 0 else {
      throw wrong("a shape of \(sizes)")
    }
    guard order == "False" || shape.count < 2 else {
      throw wrong("columns before rows (fortran_order)", "numpy.ascontiguousarray(…)")
    }
    return (kind, shape, start + length, type.hasPrefix(">"))
  }

  private static func kind(_ text: String) -> NumberArray.Kind? {
    guard let letter = text.first, let size = Int(text.dropFirst()) else { return nil }
    switch letter {
    case "u" where [1, 2, 4, 8].contains(size): return .unsigned(size)
    case "i" where [1, 2, 4, 8].contains(size): return .signed(size)
    case "f" where [2, 4, 8].contains(size): return .float(size)
    case "b" where size == 1: return .bool
    case "U" where (1...4096).contains(size): return .text(size)
    default: return nil
    }
  }

  // MARK: Writing

  /// An array's file: bytes, or texts.
  static func bytes(_ array: NumberArray) -> [UInt8] {
    let (type, data): (String, [UInt8]) =
      switch array.values {
      case .bytes(let bytes): ("|u1", bytes)
      case .floats(let floats): ("<f4", floats.withUnsafeBytes { Array($0) })
      case .texts(let texts): Self.texts(texts)
      }
    return bytes(type, array.shape, data)
  }

  /// Labels, in a byte or two each.
  static func bytes(labels: [UInt16]) -> [UInt8] {
    labels.allSatisfy { $0 < 256 }
      ? bytes("|u1", [labels.count], labels.map { UInt8($0) })
      : bytes("<u2", [labels.count], labels.withUnsafeBytes { Array($0) })
  }

  private static func bytes(_ type: String, _ shape: [Int], _ data: [UInt8]) -> [UInt8] {
    let shape = shape.map { "\($0)," }.joined(separator: " ")
    var header = "{'descr': '\(type)', 'fortran_order': False, 'shape': (\(shape)), }"
    // Numbers begin at a multiple of 64.
    header += String(repeating: " ", count: (64 - (11 + header.utf8.count) % 64) % 64) + "\n"
    let count = header.utf8.count
    return [0x93] + Array("NUMPY".utf8) + [1, 0, UInt8(count & 255), UInt8(count >> 8)]
      + Array(header.utf8) + data
  }

  private static func texts(_ texts: [String]) -> (String, [UInt8]) {
    let length = max(1, texts.map(\.unicodeScalars.count).max() ?? 1)
    let data = texts.flatMap { text -> [UInt8] in
      var codes = text.unicodeScalars.map(\.value)
      codes += Array(repeating: 0, count: length - codes.count)
      return codes.flatMap { code in (0..<4).map { UInt8(truncatingIfNeeded: code >> (8 * $0)) } }
    }
    return ("<U\(length)", data)
  }
}
