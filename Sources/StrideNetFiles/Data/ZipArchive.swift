import CZlib
import Foundation
import StrideNetCore

/// Reads the files in a zip archive, which NumPy's .npz is.
struct ZipArchive {
  struct Entry {
    let name: String
    fileprivate let method, packed: Int
    let size: Int
    fileprivate let offset: Int
    fileprivate let checksum: UInt32
  }

  private let file: InputFile
  private(set) var entries: [Entry] = []

  init(_ file: InputFile) throws {
    self.file = file
    let directory = try directory()
    var place = 0
    while place + 46 <= directory.count, number(directory, place, 4) == 0x0201_4b50 {
      let (name, extra, comment) = (
        number(directory, place + 28, 2), number(directory, place + 30, 2),
        number(directory, place + 32, 2)
      )
      let end = place + 46 + name + extra + comment
      guard end <= directory.count else { break }
      if number(directory, place + 8, 2) & 1 != 0 { throw wrong("an encrypted archive") }
      let fields = Array(directory[place + 46 + name..<place + 46 + name + extra])
      // Sizes that don't fit 32 bits stand further back, those alone, in this order.
      let small = [24, 20, 42].map { number(directory, place + $0, 4) }
      var large = long(fields)[...]
      let sizes = small.map { $0 == 0xffff_ffff ? large.popFirst() ?? -1 : $0 }
      guard sizes.allSatisfy({ $0 >= 0 }) else { throw wrong("sizes that aren't ones") }
      entries.append(
        Entry(
          name: String(decoding: directory[place + 46..<place + 46 + name], as: UTF8.self),
          method: number(directory, place + 10, 2), packed: sizes[1], size: sizes[0],
          offset: sizes[2], checksum: UInt32(number(directory, place + 16, 4))))
      place = end
    }
    guard place == directory.count else { throw wrong("a directory that ends too early") }
  }

  private func number(_ bytes: [UInt8], _ place: Int, _ count: Int) -> Int {
    Int(
      truncatingIfNeeded: bytes[place..<place + count].reversed().reduce(UInt64(0)) {
        $0 << 8 | UInt64($1)
      })
  }

  private func wrong(_ found: String, at place: String? = nil) -> StrideNetError {
    StrideNetError(
      .badData, "a zip archive that can't be read", at: place ?? file.path, found: found,
      hint: "the file is damaged or incomplete: get it again, or write it anew")
  }

  private func bytes(_ count: Int, from offset: Int) throws -> [UInt8] {
    guard offset >= 0, count >= 0, offset <= file.size, count <= file.size - offset else {
      throw wrong("a place behind its end")
    }
    return try [UInt8](unsafeUninitializedCapacity: count) { buffer, done in
      done = try file.read(into: UnsafeMutableRawBufferPointer(buffer), from: offset)
    }
  }

  /// The list of files, which stands at the end.
  private func directory() throws -> [UInt8] {
    let tail = try bytes(min(file.size, 22 + 0xffff), from: max(0, file.size - 22 - 0xffff))
    let last = stride(from: tail.count - 22, through: 0, by: -1).first {
      tail[$0...].starts(with: [0x50, 0x4b, 5, 6])
    }
    guard let last else { throw wrong("no directory at its end") }
    let (size, offset) = (number(tail, last + 12, 4), number(tail, last + 16, 4))
    guard size == 0xffff_ffff || offset == 0xffff_ffff else {
      return try bytes(size, from: offset)
    }
    guard last >= 20, number(tail, last - 20, 4) == 0x0706_4b50 else {
      throw wrong("no directory at its end")
    }
    let record = try bytes(56, from: number(tail, last - 12, 8))
    guard record.count == 56, number(record, 0, 4) == 0x0606_4b50 else {
      throw wrong("no directory where it should be")
    }
    return try bytes(number(record, 40, 8), from: number(record, 48, 8))
  }

  /// The numbers of 64 bits in an entry's extra fields.
  private func long(_ fields: [UInt8]) -> [Int] {
    var place = 0
    while place + 4 <= fields.count {
      let length = number(fields, place + 2, 2)
      let end = min(fields.count, place + 4 + length)
      if number(fields, place, 2) == 1 {
        return stride(from: place + 4, through: end - 8, by: 8).map { number(fields, $0, 8) }
      }
      place = end
    }
    return []
  }

  private func start(of entry: Entry) throws -> Int {
    let head = try bytes(30, from: entry.offset)
    guard head.count == 30, number(head, 0, 4) == 0x0403_4b50 else {
      throw wrong("no file where one should be", at: "\(file.path), \(entry.name)")
    }
    return entry.offset + 30 + number(head, 26, 2) + number(head, 28, 2)
  }

  /// Where a file lies that isn't packed; nil where it is. All of it is read, some at a time, to see
  /// whether it is whole.
  func place(of entry: Entry) throws -> Range<Int>? {
    guard entry.method == 0 else { return nil }
    let start = try start(of: entry)
    var checksum = crc32_z(0, nil, 0)
    for offset in stride(from: 0, to: entry.size, by: 1 << 20) {
      let piece = try bytes(min(1 << 20, entry.size - offset), from: start + offset)
      checksum = piece.withUnsafeBytes {
        crc32_z(checksum, $0.bindMemory(to: UInt8.self).baseAddress, $0.count)
      }
    }
    guard entry.packed == entry.size, UInt32(checksum) == entry.checksum else {
      throw wrong("contents other than those that were written", at: "\(file.path), \(entry.name)")
    }
    return start..<start + entry.size
  }

  /// A file, unpacked and checked.
  func bytes(of entry: Entry) throws -> [UInt8] {
    let place = "\(file.path), \(entry.name)"
    // Nothing is packed to less than a thousandth: a size that is larger is a lie.
    guard entry.packed <= file.size, entry.size <= 1100 * entry.packed + 1100 else {
      throw wrong("a size of \(entry.size) bytes, packed into \(entry.packed)", at: place)
    }
    var need = MemoryNeed()
    need.add(entry.size / 4, times: 2, for: place)
    try need.require(hint: "make a smaller file of it")
    try MemoryNeed.probe(bytes: entry.size, for: place)
    let packed = try bytes(entry.packed, from: start(of: entry))
    let result: [UInt8]
    switch entry.method {
    case 0: result = packed
    case 8: result = try inflated(packed, entry.size, place)
    default: throw wrong("compression by method \(entry.method)", at: place)
    }
    let checksum = result.withUnsafeBytes {
      crc32_z(0, $0.bindMemory(to: UInt8.self).baseAddress, $0.count)
    }
    guard result.count == entry.size, UInt32(checksum) == entry.checksum else {
      throw wrong("contents other than those that were written", at: place)
    }
    return result
  }

  private func inflated(_ packed: [UInt8], _ size: Int, _ place: String) throws -> [UInt8] {
    var (stream, packed) = (z_stream(), packed)
    guard inflateInit2_(&stream, -15, ZLIB_VERSION, Int32(MemoryLayout<z_stream>.size)) == Z_OK
    else { throw StrideNetError(.internalError, "zlib doesn't start", at: place) }
    defer { inflateEnd(&stream) }
    return try [UInt8](unsafeUninitializedCapacity: size) { target, done in
      try packed.withUnsafeMutableBufferPointer { source in
        // zlib counts in 32 bits.
        let most = 1 << 30
        var (taken, status) = (0, Z_OK)
        while status == Z_OK {
          let (input, output) = (min(most, source.count - taken), min(most, size - done))
          stream.next_in = source.baseAddress.map { $0 + taken }
          stream.next_out = target.baseAddress.map { $0 + done }
          (stream.avail_in, stream.avail_out) = (UInt32(input), UInt32(output))
          status = inflate(&stream, Z_NO_FLUSH)
          taken += input - Int(stream.avail_in)
          done += output - Int(stream.avail_out)
        }
        if status != Z_STREAM_END { throw wrong("contents that can't be unpacked", at: place) }
      }
    }
  }
}

// MARK: Writing

extension ZipArchive {
  /// Writes an archive of these files, packed, whole or not at all.
  static func write(_ files: [(name: String, bytes: () -> [UInt8])], to path: String) throws {
    var (directory, offset): ([UInt8], Int) = ([], 0)
    try AtomicFile.write(to: path) { out in
      for (name, bytes) in files {
        let content = bytes()
        let packed = content.count < 1 << 31 ? try deflated(content, path) : content
        guard content.count < 1 << 31, offset + packed.count < 1 << 31 else {
          throw StrideNetError(
            .badData, "too large for this kind of file", at: path, found: name,
            expected: "less than 2 GB an array, and in all when packed")
        }
        let checksum = content.withUnsafeBytes {
          crc32_z(0, $0.bindMemory(to: UInt8.self).baseAddress, $0.count)
        }
        // Version, flags, method, time and date, as of 1980: the same contents give the same bytes.
        let common =
          little(20, 2) + little(0, 2) + little(8, 2) + little(0, 2) + little(0x21, 2)
          + little(Int(checksum), 4) + little(packed.count, 4) + little(content.count, 4)
          + little(name.utf8.count, 2) + little(0, 2)
        try out.append(little(0x0403_4b50, 4) + common + Array(name.utf8))
        try out.append(packed)
        directory += little(0x0201_4b50, 4) + little(20, 2) + common + little(0, 10)
        directory += little(offset, 4) + Array(name.utf8)
        offset += 30 + name.utf8.count + packed.count
      }
      try out.append(directory)
      try out.append(
        little(0x0605_4b50, 4) + little(0, 4) + little(files.count, 2) + little(files.count, 2)
          + little(directory.count, 4) + little(offset, 4) + little(0, 2))
    }
  }

  private static func little(_ number: Int, _ count: Int) -> [UInt8] {
    (0..<count).map { $0 < 8 ? UInt8(truncatingIfNeeded: number >> (8 * $0)) : 0 }
  }

  private static func deflated(_ content: [UInt8], _ path: String) throws -> [UInt8] {
    var (stream, content) = (z_stream(), content)
    let size = Int32(MemoryLayout<z_stream>.size)
    guard
      deflateInit2_(&stream, 6, Z_DEFLATED, -15, 8, Z_DEFAULT_STRATEGY, ZLIB_VERSION, size) == Z_OK
    else { throw StrideNetError(.internalError, "zlib doesn't start", at: path) }
    defer { deflateEnd(&stream) }
    let most = Int(deflateBound(&stream, UInt(content.count)))
    try MemoryNeed.probe(bytes: most, for: path)
    return content.withUnsafeMutableBufferPointer { source in
      [UInt8](unsafeUninitializedCapacity: most) { target, done in
        stream.next_in = source.baseAddress
        stream.next_out = target.baseAddress
        (stream.avail_in, stream.avail_out) = (UInt32(source.count), UInt32(most))
        deflate(&stream, Z_FINISH)
        done = most - Int(stream.avail_out)
      }
    }
  }
}
