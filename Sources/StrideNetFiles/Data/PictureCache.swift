import CZlib
import Foundation
import StrideNetCore

/// Decoded pictures in a file, so that they needn't be decoded again: images of one size, part after
/// part, then a description, its length and a word that ends a whole file. It is known by a digest of
/// what it was made of: names, sizes and times of the pictures' files, the classes, and the options.
struct PictureCache {
  /// What a file says of itself. Pictures are named by their places among those that the key counts.
  struct Description: Codable {
    let height, width: Int
    /// Of the stored images; where they are grey all three are the same, and the first is read.
    let channels: Int
    let isGrey: Bool
    /// Of each part, the pictures that could be read.
    let parts: [[Int]]
    /// The others, and why not.
    let skipped: [Int: String]
    let sizes: [String: Int]
    /// Of all pixels (zlib's crc32).
    let checksum: UInt

    var imageBytes: Int { height * width * channels }
    var shape: Shape { Shape(height, width, isGrey ? 1 : channels) }
    fileprivate var pixelBytes: Int { parts.reduce(0) { $0 + $1.count } * imageBytes }
    fileprivate var isPossible: Bool {
      [height, width].allSatisfy((1...1 << 16).contains) && [1, 3].contains(channels)
    }
  }

  /// All files of a folder together take at most so many bytes, unless one alone takes more.
  static let most = 4 << 30
  private static let end: [UInt8] = Array("stridenet set 1\n".utf8)
  private static let ending = ".set"

  let folder: String
  let path: String

  init(_ folder: String, key: String) {
    (self.folder, path) = (folder, "\(folder)/\(key)\(Self.ending)")
  }

  // MARK: Reading

  var isThere: Bool { FileManager.default.fileExists(atPath: path) }

  /// What is in the file.
  /// - Throws: ``StrideNetError`` where it isn't whole
  func description() throws -> (file: InputFile, description: Description) {
    let file = try InputFile(path)
    func part(_ count: Int, from offset: Int) throws -> [UInt8] {
      guard offset >= 0, count >= 0, offset + count <= file.size else { throw broken("its length") }
      return try [UInt8](unsafeUninitializedCapacity: count) { buffer, done in
        done = try file.read(into: UnsafeMutableRawBufferPointer(buffer), from: offset)
      }
    }
    let tail = try part(8 + Self.end.count, from: file.size - 8 - Self.end.count)
    let length = tail[..<8].reversed().reduce(0) { $0 << 8 | UInt64($1) }
    guard tail[8...].elementsEqual(Self.end), length < 1 << 30 else { throw broken("its end") }
    let start = file.size - tail.count - Int(length)
    guard
      let result = try? JSONDecoder().decode(
        Description.self, from: Data(part(Int(length), from: start))),
      result.isPossible, result.pixelBytes == start
    else { throw broken("its description") }
    return (file, result)
  }

  /// The pixels of each part.
  func pixels(_ file: InputFile, _ description: Description) throws -> [[UInt8]] {
    var (offset, checksum) = (0, crc32(0, nil, 0))
    let all = try description.parts.map { part in
      let count = part.count * description.imageBytes
      let bytes = try [UInt8](unsafeUninitializedCapacity: count) { buffer, done in
        done = try file.read(into: UnsafeMutableRawBufferPointer(buffer), from: offset)
      }
      offset += count
      checksum = Self.crc(checksum, bytes)
      guard description.isGrey && description.channels == 3 else { return bytes }
      return stride(from: 0, to: bytes.count, by: 3).map { bytes[$0] }
    }
    try finish(UInt(checksum), description)
    return all
  }

  /// Reads all pixels, some at a time.
  /// - Throws: ``StrideNetError`` where they aren't those that were written
  func check(_ file: InputFile, _ description: Description) throws {
    var (offset, checksum) = (0, Self.crc(0, []))
    var piece = [UInt8](repeating: 0, count: 1 << 20)
    while offset < description.pixelBytes {
      let most = min(piece.count, description.pixelBytes - offset)
      let count = try piece.withUnsafeMutableBytes {
        try file.read(into: .init(rebasing: $0[..<most]), from: offset)
      }
      guard count == most else { break }
      checksum = Self.crc(checksum, count == piece.count ? piece : Array(piece[..<count]))
      offset += count
    }
    try finish(checksum, description)
  }

  private func finish(_ checksum: UInt, _ description: Description) throws {
    guard checksum == description.checksum else { throw broken("its checksum") }
    // The least recently used is what goes first.
    utimes(path, nil)
  }

  /// Where nothing can be kept.
  static let none = StrideNetError(
    .usage,
    "pictures, and packed files, are read while a network trains from where they are kept decoded",
    found: "no cache",
    expected: "XDG_CACHE_HOME or HOME, and neither --no-cache nor STRIDENET_NO_CACHE")

  /// What to say where the file isn't whole, which is then written anew.
  func broken(_ error: any Error) -> String {
    let found = (error as? StrideNetError)?.found.map { " (\($0))" } ?? ""
    return "the cached pictures aren't whole\(found) and are made anew: \(path)"
  }

  private func broken(_ what: String) -> StrideNetError {
    StrideNetError(.badData, "cached pictures that aren't whole", at: path, found: what)
  }

  static func crc(_ start: UInt, _ bytes: [UInt8]) -> UInt {
    var result = start
    bytes.withUnsafeBufferPointer { buffer in
      // zlib counts in 32 bits.
      for first in stride(from: 0, to: buffer.count, by: 1 << 30) {
        let count = min(1 << 30, buffer.count - first)
        result = UInt(crc32(uLong(result), buffer.baseAddress! + first, uInt(count)))
      }
    }
    return result
  }

  // MARK: Writing

  /// Writes the file, whole or not at all.
  /// - Parameter body: writes all pixels, and then says what they are
  func write(_ body: (inout AtomicFile.Writer) throws -> Description) throws {
    do {
      try FileManager.default.createDirectory(
        atPath: folder, withIntermediateDirectories: true,
        attributes: [.posixPermissions: 0o700])
    } catch {
      throw StrideNetError(
        .cannotCreate, "the cache folder can't be made", at: folder,
        found: error.localizedDescription,
        hint: "set XDG_CACHE_HOME to a folder where you may write")
    }
    try AtomicFile.write(to: path) { file in
      let description = try body(&file)
      let encoder = JSONEncoder()
      encoder.outputFormatting = .sortedKeys
      let text = try Array(encoder.encode(description))
      try file.append(text)
      try file.append([UInt64(text.count).littleEndian])
      try file.append(Self.end)
    }
    Self.makeRoom(in: folder, keeping: path)
  }

  /// All files of a folder, the least recently used first.
  static func files(in folder: String) -> [(path: String, size: Int)] {
    let names = (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []
    return names.filter { $0.hasSuffix(ending) }.compactMap { name in
      let path = "\(folder)/\(name)"
      return FileStamp(path).map { (path, $0) }
    }.sorted { ($0.1.modified, $0.0) < ($1.1.modified, $1.0) }.map { ($0.0, $0.1.size) }
  }

  private static func makeRoom(in folder: String, keeping kept: String) {
    let all = files(in: folder)
    var sum = all.reduce(0) { $0 + $1.size }
    for (path, size) in all where sum > most && path != kept {
      unlink(path)
      sum -= size
    }
  }
}

/// What tells that a file is another one, without reading it.
struct FileStamp {
  let size: Int
  /// Nanoseconds since 1970: of its content, and of all that the system knows of it, which no program
  /// sets back.
  let modified, changed: Int

  init?(_ path: String) {
    var status = stat()
    guard stat(path, &status) == 0 else { return nil }
    func nanoseconds(_ time: timespec) -> Int {
      Int(time.tv_sec) * 1_000_000_000 + Int(time.tv_nsec)
    }
    size = Int(status.st_size)
    #if canImport(Darwin)
      (modified, changed) = (
        nanoseconds(status.st_mtimespec), nanoseconds(status.st_ctimespec)
      )
    #else
      (modified, changed) = (nanoseconds(status.st_mtim), nanoseconds(status.st_ctim))
    #endif
  }
}

extension PictureOptions {
  /// Where the command line keeps decoded pictures: `stridenet/pictures` in $XDG_CACHE_HOME or
  /// ~/.cache; nil where neither is known, or where $STRIDENET_NO_CACHE isn't empty.
  public static func usualCache(
    environment: [String: String] = ProcessInfo.processInfo.environment
  ) -> String? {
    guard (environment["STRIDENET_NO_CACHE"] ?? "").isEmpty else { return nil }
    return Dataset.cacheFolder(environment).map { "\($0)/pictures" }
  }

  /// The bytes of each set that a folder keeps.
  package static func cachedSizes(in folder: String) -> [Int] {
    PictureCache.files(in: folder).map(\.size)
  }
}
