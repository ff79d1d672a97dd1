import CZlib
import Foundation
import StrideNetCore

/// The IDX format of MNIST: a magic number that says how many dimensions follow, the dimensions,
/// the bytes. Data sets may also have other numbers, of which the magic number says the kind. Plain or gzipped, told apart by content. http://yann.lecun.com/exdb/mnist
public enum IDX {
  /// N×H×W×C bytes; and how many bytes behind the end of a gzip file were passed over.
  public typealias Images = (
    count: Int, height: Int, width: Int, channels: Int, pixels: [UInt8], ignored: Int
  )

  /// Reads images of any size, gray (N×H×W) or with channels (N×H×W×C).
  public static func images(at path: String) throws -> Images {
    try images(ByteStream(InputFile(path)))
  }

  /// Reads images from memory; `name` stands for the file in errors.
  package static func images(in bytes: [UInt8], name: String) throws -> Images {
    try bytes.withUnsafeBytes { try images(ByteStream($0, name: name)) }
  }

  /// Reads labels.
  public static func labels(at path: String) throws -> [UInt8] {
    try labels(ByteStream(InputFile(path))).labels
  }

  /// Reads labels from memory; `name` stands for the file in errors.
  package static func labels(in bytes: [UInt8], name: String) throws -> [UInt8] {
    try bytes.withUnsafeBytes { try labels(ByteStream($0, name: name)).labels }
  }

  /// Writes the images of a set, not compressed. One channel is written as N×H×W.
  public static func writeImages(of set: ImageSet, to path: String) throws {
    let sizes = [set.count, set.height, set.width] + (set.channels == 1 ? [] : [set.channels])
    try write(sizes, set.pixels, to: path)
  }

  /// Writes labels, not compressed.
  /// - Throws: ``StrideNetError`` where one is no byte
  public static func writeLabels(
    _ labels: some Collection<some BinaryInteger>, to path: String
  ) throws {
    let bytes = try labels.map { label in
      guard let byte = UInt8(exactly: label) else {
        throw StrideNetError(
          .badData, "a label too large for an IDX file", at: path, found: "\(label)",
          expected: "0 to \(UInt8.max)", hint: "an .npz file takes it")
      }
      return byte
    }
    try write([labels.count], bytes, to: path)
  }

  private static func write(_ sizes: [Int], _ bytes: [UInt8], to path: String) throws {
    var header: [UInt8] = [0, 0, 8, UInt8(sizes.count)]
    for size in sizes {
      guard let size = UInt32(exactly: size) else {
        throw StrideNetError(
          .badData, "too large for an IDX file", at: path, found: "\(size)",
          expected: "at most \(UInt32.max) in each dimension")
      }
      withUnsafeBytes(of: size.bigEndian) { header += $0 }
    }
    try AtomicFile.write(to: path) {
      try $0.append(header)
      try $0.append(bytes)
    }
  }

  /// Numbers of any kind that the format has.
  static func array(at path: String) throws -> NumberArray {
    let stream = try ByteStream(InputFile(path))
    let (sizes, kind, bytes) = try read(stream, dimensions: 1...4, what: "numbers", kinds)
    return try NumberArray(path, sizes, kind, bytes[...], big: true)
  }

  /// Whether the numbers aren't bytes.
  static func isOther(_ path: String) -> Bool {
    guard let stream = try? ByteStream(InputFile(path)), let magic = try? header(stream, 4) else {
      return false
    }
    return magic[0...1] == [0, 0] && magic[2] != 8 && kinds[magic[2]] != nil
  }

  static func isPacked(_ path: String) throws -> Bool {
    try ByteStream(InputFile(path)).isGzip
  }

  /// Gives the pixels of a file, some at a time, and returns its dimensions.
  static func unpack(_ path: String, _ piece: ([UInt8]) throws -> Void) throws -> [Int] {
    let stream = try ByteStream(InputFile(path))
    let sizes = try sizes(stream, rank(stream, 3...4, "images", bytes).0, "images")
    var found = 0
    while true {
      let next = try bytes(of: stream, 1 << 20)
      if next.isEmpty { break }
      try piece(next)
      found += next.count
    }
    guard Shape.product(sizes) == found else {
      throw StrideNetError(
        .badData, "a file of another length than its header says", at: path,
        found: "\(found) bytes of pixels", expected: NumberArray.text(sizes),
        hint: "the file is damaged or incomplete: get it again")
    }
    return sizes
  }

  /// The dimensions of a file of images that are bytes and not compressed.
  static func streamableSizes(at path: String) throws -> [Int] {
    let stream = try ByteStream(InputFile(path))
    let (rank, _) = try rank(stream, 3...4, "images", bytes)
    let sizes = try sizes(stream, rank, "images")
    let found = try stream.length(limit: .max)
    guard let whole = Shape.product(sizes, plus: 4 + 4 * rank), whole == found else {
      throw StrideNetError(
        .badData, "a file of another length than its header says", at: path,
        found: found.map { "\($0) bytes" }, expected: "\(NumberArray.text(sizes)) and a header",
        hint: "the file is damaged or incomplete: get it again")
    }
    return sizes
  }

  private static let bytes: [UInt8: NumberArray.Kind] = [8: .unsigned(1)]
  private static let kinds = bytes.merging([
    9: .signed(1), 11: .signed(2), 12: .signed(4), 13: .float(4), 14: .float(8),
  ]) { $1 }

  static func images(_ stream: ByteStream) throws -> Images {
    let (sizes, _, pixels) = try read(stream, dimensions: 3...4, what: "images")
    return (
      sizes[0], sizes[1], sizes[2], sizes.count > 3 ? sizes[3] : 1, pixels, stream.ignored
    )
  }

  static func labels(_ stream: ByteStream) throws -> (labels: [UInt8], ignored: Int) {
    (try read(stream, dimensions: 1...1, what: "labels").bytes, stream.ignored)
  }

  private static func read(
    _ stream: ByteStream, dimensions: ClosedRange<Int>, what: String,
    _ kinds: [UInt8: NumberArray.Kind] = bytes
  ) throws -> (sizes: [Int], kind: NumberArray.Kind, bytes: [UInt8]) {
    let (rank, kind) = try rank(stream, dimensions, what, kinds)
    let sizes = try sizes(stream, rank, what)
    let text = sizes.map(String.init).joined(separator: "×")
    let headerSize = 4 + 4 * rank
    guard let size = Shape.product(sizes + [kind.size]),
      let whole = Shape.product([1, size], plus: headerSize)
    else {
      throw StrideNetError(
        .badData, "the header promises more than memory can hold", at: "\(stream.name), header",
        found: text)
    }
    // A header may lie: believe it only when the file is known to have as many bytes.
    func check(_ found: Int?) throws {
      if found == whole { return }
      throw StrideNetError(
        .badData,
        found.map { $0 < whole } == true
          ? "the file ends too early" : "bytes follow after the last of the \(what)",
        at: stream.name,
        found: found.map { "\($0) bytes" } ?? "more than \(whole) bytes",
        expected: "\(whole) bytes, as the header says: \(text)",
        hint: "the file is damaged or incomplete: get it again")
    }
    try check(stream.length(limit: whole))
    var need = MemoryNeed()
    need.add(size / 4, for: "\(stream.name), \(text)")
    try need.require(hint: "make a smaller file of it")
    try MemoryNeed.probe(bytes: size, for: "\(stream.name), \(text)")
    let bytes = try bytes(of: stream, size)
    // Reading on to the end is also what verifies the checksum of a gzip file.
    let end = try withUnsafeTemporaryAllocation(byteCount: 1, alignment: 1) {
      try stream.read(into: $0)
    }
    try check(end > 0 ? nil : headerSize + bytes.count)
    return (sizes, kind, bytes)
  }

  /// How many dimensions there are, and the kind of numbers, by the magic number.
  private static func rank(
    _ stream: ByteStream, _ dimensions: ClosedRange<Int>, _ what: String,
    _ kinds: [UInt8: NumberArray.Kind]
  ) throws -> (Int, NumberArray.Kind) {
    let magic = try header(stream, 4)
    let rank = Int(magic[3])
    if magic[0...1] == [0, 0], dimensions.contains(rank), let kind = kinds[magic[2]] {
      return (rank, kind)
    }
    let isOther = magic[0...2] == [0, 0, 8] && (1...4).contains(rank) && rank != 2
    let other = rank == 1 ? "labels" : "images"
    throw StrideNetError(
      .badData, "not an IDX file of \(what)", at: "\(stream.name), byte 0",
      found: "magic number 0x"
        + magic.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
        + (isOther ? ": \(other)" : ""),
      expected: dimensions.map { "0x0000080\($0)" }.joined(separator: " or "),
      hint: isOther
        ? "are the files of images and labels swapped?"
        : "bytes of unsigned 8-bit numbers are read; check that this is the file you mean")
  }

  private static func sizes(_ stream: ByteStream, _ rank: Int, _ what: String) throws -> [Int] {
    let raw = try header(stream, 4 * rank)
    let sizes = stride(from: 0, to: raw.count, by: 4).map { at in
      raw[at..<at + 4].reduce(0) { $0 << 8 | Int($1) }
    }
    guard !sizes.contains(0) else {
      throw StrideNetError(
        .badData, sizes[0] == 0 ? "the file holds no \(what)" : "the images have no pixels",
        at: "\(stream.name), header", found: sizes.map(String.init).joined(separator: "×"),
        expected: "at least 1 in each dimension")
    }
    return sizes
  }

  private static func header(_ stream: ByteStream, _ count: Int) throws -> [UInt8] {
    let bytes = try bytes(of: stream, count)
    guard bytes.count == count else {
      throw StrideNetError(
        .badData,
        stream.isEmpty ? "the file is empty" : "the file ends within the header", at: stream.name,
        expected: "an IDX header", hint: "the file is damaged or incomplete: get it again")
    }
    return bytes
  }

  /// The next so many, or fewer at the end.
  private static func bytes(of stream: ByteStream, _ count: Int) throws -> [UInt8] {
    try [UInt8](unsafeUninitializedCapacity: count) { buffer, done in
      done = try stream.read(into: UnsafeMutableRawBufferPointer(buffer))
    }
  }
}

/// The bytes of a file or of memory in order, inflated on the way if they are gzipped. As gzip has
/// it, such a file may be several, one after the other, and may be filled up with zeros; anything else
/// behind its end is passed over and counted.
final class ByteStream {
  let name: String
  private let raw: (_ into: UnsafeMutableRawBufferPointer, _ from: Int) throws -> Int
  private let rawSize: Int
  let isGzip: Bool

  /// How much of the raw bytes was taken.
  private var offset = 0
  // On the heap, as zlib wants to find it at the same address in every call.
  private let zlib = UnsafeMutablePointer<z_stream>.allocate(capacity: 1)
  private var atEnd = false
  /// Bytes behind the end of a gzip file that are no zeros before the end.
  private(set) var ignored = 0
  private let input = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 16, alignment: 16)

  var isEmpty: Bool { rawSize == 0 }

  convenience init(_ file: InputFile) throws {
    try self.init(name: file.path, size: file.size, raw: file.read)
  }

  /// The memory must outlive the stream.
  convenience init(_ bytes: UnsafeRawBufferPointer, name: String) throws {
    try self.init(name: name, size: bytes.count) { target, offset in
      let piece = bytes.dropFirst(offset).prefix(target.count)
      target.copyMemory(from: UnsafeRawBufferPointer(rebasing: piece))
      return piece.count
    }
  }

  private init(
    name: String, size: Int,
    raw: @escaping (_ into: UnsafeMutableRawBufferPointer, _ from: Int) throws -> Int
  ) throws {
    self.name = name
    self.raw = raw
    rawSize = size
    zlib.initialize(to: z_stream())
    isGzip = try raw(.init(rebasing: input[..<2]), 0) == 2 && input[0] == 0x1f && input[1] == 0x8b
    // 16 is zlib's way to ask for gzip, with its checksum verified.
    let structSize = Int32(MemoryLayout<z_stream>.size)
    if isGzip, inflateInit2_(zlib, 16 + 15, ZLIB_VERSION, structSize) != Z_OK {
      throw StrideNetError(.internalError, "zlib doesn't start", at: name)
    }
  }

  deinit {
    inflateEnd(zlib)
    zlib.deallocate()
    input.deallocate()
  }

  /// Fills the buffer, or gives less only at the end.
  func read(into buffer: UnsafeMutableRawBufferPointer) throws -> Int {
    if isGzip { return try inflate(into: buffer) }
    let count = try raw(buffer, offset)
    offset += count
    return count
  }

  /// How many bytes there are from the very beginning; nil if more than `limit`. For a gzip file
  /// whose own claim can't be trusted that means inflating it once without keeping anything.
  func length(limit: Int) throws -> Int? {
    if !isGzip { return rawSize }
    // The last four bytes claim the size. A claim that agrees is checked by the reading itself;
    // up to this size too much memory may be asked for in the meantime.
    let modest = 1 << 28
    var claim: UInt32 = 0
    let got = try withUnsafeMutableBytes(of: &claim) { try raw($0, max(0, rawSize - 4)) }
    if got == 4, limit <= modest, Int(UInt32(littleEndian: claim)) == limit { return limit }
    let other = try ByteStream(name: name, size: rawSize, raw: raw)
    return try withUnsafeTemporaryAllocation(byteCount: 1 << 16, alignment: 16) { buffer in
      var count = 0
      while count <= limit {
        let more = try other.read(into: buffer)
        if more == 0 { return count }
        count += more
      }
      return nil
    }
  }

  private func inflate(into buffer: UnsafeMutableRawBufferPointer) throws -> Int {
    var done = 0
    while done < buffer.count && !atEnd {
      if zlib.pointee.avail_in == 0 { try fill() }
      zlib.pointee.next_out = (buffer.baseAddress! + done).assumingMemoryBound(to: UInt8.self)
      let room = UInt32(clamping: buffer.count - done)
      zlib.pointee.avail_out = room
      let status = CZlib.inflate(zlib, Z_NO_FLUSH)
      done += Int(room - zlib.pointee.avail_out)
      switch status {
      case Z_OK: break
      case Z_BUF_ERROR: throw damaged("it ends too early")
      case Z_STREAM_END: try goOn()
      default:
        throw damaged(zlib.pointee.msg.map { String(cString: $0) } ?? "zlib status \(status)")
      }
    }
    return done
  }

  /// The next raw bytes, for zlib to take.
  private func fill() throws {
    let count = try raw(input, offset)
    offset += count
    zlib.pointee.next_in = input.baseAddress?.assumingMemoryBound(to: UInt8.self)
    zlib.pointee.avail_in = UInt32(count)
  }

  /// At the end of a gzip file: another one begins, or nothing that is one follows.
  private func goOn() throws {
    // Two bytes tell, which may lie in two pieces.
    if zlib.pointee.avail_in < 2 {
      offset -= Int(zlib.pointee.avail_in)
      try fill()
    }
    func rest() -> UnsafeBufferPointer<UInt8> {
      UnsafeBufferPointer(start: zlib.pointee.next_in, count: Int(zlib.pointee.avail_in))
    }
    if rest().starts(with: [0x1f, 0x8b]) {
      inflateReset(zlib)
      return
    }
    atEnd = true
    while !rest().isEmpty && ignored == 0 {
      if let place = rest().firstIndex(where: { $0 != 0 }) {
        ignored = max(1, rawSize - (offset - rest().count + place))
      }
      try fill()
    }
  }

  private func damaged(_ why: String) -> StrideNetError {
    StrideNetError(
      .badData, "the gzip file is damaged: \(why)",
      at: "\(name), near byte \(offset - Int(zlib.pointee.avail_in))",
      hint: "the file is damaged or incomplete: get it again")
  }
}
