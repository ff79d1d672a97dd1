import Foundation

/// Writes whole files: other processes, and a run after a crash, see the old file or the new one,
/// never half of it.
public enum AtomicFile {
  /// Takes the bytes of a file in order. Every append is one system call or more: hand over large
  /// pieces.
  public struct Writer: ~Copyable {
    private let descriptor: Int32
    private let path: String
    /// Bytes written so far.
    public private(set) var count = 0

    fileprivate init(descriptor: Int32, path: String) {
      self.descriptor = descriptor
      self.path = path
    }

    /// Appends raw bytes.
    public mutating func append(_ bytes: UnsafeRawBufferPointer) throws {
      try writeAll(bytes, to: descriptor, path: path)
      count += bytes.count
    }

    /// Appends the bytes of an array of numbers, as they lie in memory.
    public mutating func append<Number: BitwiseCopyable>(_ values: [Number]) throws {
      try values.withUnsafeBytes { try append($0) }
    }
  }

  /// Creates or replaces the file at `path` with what `body` writes.
  ///
  /// On any failure, one thrown by `body` included, the old file stays as it was and nothing else
  /// is left behind. A symbolic link is followed. A target that isn't a file, such as /dev/stdout
  /// or a pipe, is written to directly, as there is nothing to replace.
  ///
  /// A program that runs under a file size limit must ignore SIGXFSZ to get the error.
  public static func write(to path: String, _ body: (inout Writer) throws -> Void) throws {
    var old = stat()
    let exists = stat(path, &old) == 0
    if !exists {
      // A name that is too long, say, would be noticed by the rename, when all is written.
      if path.isEmpty || errno != ENOENT { throw cannotCreate(path, errno) }
      if path.hasSuffix("/") { throw cannotCreate(path, EISDIR) }
    } else {
      if isKind(old, S_IFDIR) { throw cannotCreate(path, EISDIR) }
      // Replacing needs a right on the folder alone; the file's own permissions count all the same.
      if access(path, W_OK) != 0 { throw cannotCreate(path, errno) }
      if !isKind(old, S_IFREG) { return try writeDirectly(to: path, body) }
    }
    let target = exists ? resolved(path) : path
    // Up to the last slash. By hand: Foundation on Linux ends the process over the folder of "w".
    let folder = target.utf8.lastIndex(of: UInt8(ascii: "/")).map { String(target[...$0]) } ?? ""
    let (descriptor, temporary) = try createTemporary(in: folder, for: path)
    do {
      defer { close(descriptor) }
      var writer = Writer(descriptor: descriptor, path: path)
      try body(&writer)
      if exists { _ = fchmod(descriptor, old.st_mode & 0o7777) }
      // Before the rename, or a power cut could leave the new name with no content.
      if fsync(descriptor) != 0 { throw writeFailed(path, errno) }
      if rename(temporary, target) != 0 { throw cannotCreate(path, errno) }
    } catch {
      unlink(temporary)
      throw error
    }
    syncFolder(folder)
  }

  /// Creates or replaces the file at `path`.
  public static func write(_ bytes: [UInt8], to path: String) throws {
    try write(to: path) { try $0.append(bytes) }
  }

  /// Fails as `write` would if the file can't be created: before long work, not after it.
  public static func checkWritable(_ path: String) throws {
    struct Enough: Error {}
    do { try write(to: path) { _ in throw Enough() } } catch is Enough {}
  }

  private static func writeDirectly(
    to path: String, _ body: (inout Writer) throws -> Void
  ) throws {
    let descriptor = open(path, O_WRONLY | O_CLOEXEC)
    if descriptor < 0 { throw cannotCreate(path, errno) }
    defer { close(descriptor) }
    var writer = Writer(descriptor: descriptor, path: path)
    try body(&writer)
  }

  /// The temporary file lies in the target's folder because a rename can't cross file systems.
  private static func createTemporary(
    in folder: String, for path: String
  ) throws -> (descriptor: Int32, path: String) {
    while true {
      let name = ".stridenet-\(String(UInt64.random(in: 0 ... .max), radix: 36)).tmp"
      let temporary = folder + name
      let descriptor = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o666)
      if descriptor >= 0 { return (descriptor, temporary) }
      if errno != EEXIST && errno != EINTR { throw cannotCreate(path, errno) }
    }
  }

  private static func resolved(_ path: String) -> String {
    guard let real = realpath(path, nil) else { return path }
    defer { free(real) }
    return String(cString: real)
  }

  /// Makes a rename in `folder` outlast a power cut. Not every file system can, and by now the
  /// file is whole under its name: so a failure here is none.
  static func syncFolder(_ folder: String) {
    let descriptor = open(folder.isEmpty ? "." : folder, O_RDONLY | O_CLOEXEC)
    if descriptor < 0 { return }
    fsync(descriptor)
    close(descriptor)
  }

  static func writeAll(
    _ bytes: UnsafeRawBufferPointer, to descriptor: Int32, path: String
  ) throws {
    var rest = bytes[...]
    while !rest.isEmpty {
      let written = Foundation.write(
        descriptor, UnsafeRawBufferPointer(rebasing: rest).baseAddress, rest.count)
      if written >= 0 {
        rest = rest.dropFirst(written)
      } else if errno != EINTR {
        throw writeFailed(path, errno)
      }
    }
  }

  static func cannotCreate(_ path: String, _ code: Int32) -> StrideNetError {
    let hint: String? =
      switch code {
      case ENOENT: "create the folder first"
      case EISDIR: "give a file name inside the folder"
      case EACCES, EPERM, EROFS: "choose a place where you may write"
      default: nil
      }
    return StrideNetError(
      .cannotCreate, "the file can't be created: \(describe(code))", at: path, hint: hint)
  }

  static func writeFailed(_ path: String, _ code: Int32) -> StrideNetError {
    let full = code == ENOSPC || code == EDQUOT || code == EFBIG
    return StrideNetError(
      .ioError, "writing failed: \(describe(code))", at: path,
      hint: full ? "make room or choose another place; a file of that name is as it was" : nil)
  }
}

/// A regular file open for reading, with its size; or bytes that are in the program.
final class InputFile {
  let path: String
  let size: Int
  private let descriptor: Int32
  private let memory: UnsafeRawBufferPointer?

  /// - Parameter name: for errors
  init(_ memory: UnsafeRawBufferPointer, name: String) {
    (path, size, descriptor, self.memory) = (name, memory.count, -1, memory)
  }

  init(_ path: String) throws {
    // Non-blocking, or opening a pipe that nobody writes to would hang. Files don't care.
    let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
    if descriptor < 0 { throw Self.unreadable(path, errno) }
    var status = stat()
    let known = fstat(descriptor, &status) == 0
    guard known, isKind(status, S_IFREG) else {
      let code = errno
      close(descriptor)
      if !known { throw Self.unreadable(path, code) }
      throw StrideNetError(
        .missingInput, isKind(status, S_IFDIR) ? "a folder isn't a file" : "not a regular file",
        at: path, expected: "a file", hint: "give the name of a file")
    }
    self.path = path
    self.size = Int(status.st_size)
    self.descriptor = descriptor
    memory = nil
  }

  deinit { if memory == nil { close(descriptor) } }

  /// Reads from `offset` until the buffer is full or the file ends.
  func read(into buffer: UnsafeMutableRawBufferPointer, from offset: Int) throws -> Int {
    if let memory {
      let part = memory.dropFirst(offset).prefix(buffer.count)
      buffer.copyMemory(from: UnsafeRawBufferPointer(rebasing: part))
      return part.count
    }
    var done = 0
    while done < buffer.count {
      let count = pread(
        descriptor, buffer.baseAddress! + done, buffer.count - done, off_t(offset + done))
      if count == 0 { break }
      if count > 0 {
        done += count
      } else if errno != EINTR {
        throw Self.unreadable(path, errno)
      }
    }
    return done
  }

  /// All of a file that is read in one piece, to its end: the size of one that grows, or that the
  /// system makes up, says little.
  func readAll(limit: Int) throws -> [UInt8] {
    var bytes: [UInt8] = []
    var wanted = size
    while wanted <= limit {
      // A byte more than there should be shows the end.
      let piece = wanted + 1 - bytes.count
      let more = try [UInt8](unsafeUninitializedCapacity: piece) { buffer, done in
        done = try read(into: UnsafeMutableRawBufferPointer(buffer), from: bytes.count)
      }
      bytes += more
      if more.count < piece { return bytes }
      wanted = max(bytes.count, min(2 * bytes.count, limit))
    }
    throw StrideNetError(
      .badData, "a file that is too large", at: path,
      found: size > limit ? "\(size) bytes" : "more than \(limit) bytes",
      expected: "at most \(limit)")
  }

  private static func unreadable(_ path: String, _ code: Int32) -> StrideNetError {
    StrideNetError(
      .missingInput,
      code == ENOENT ? "no such file" : "the file can't be read: \(describe(code))", at: path,
      hint: code == EACCES ? "ask for the right to read it" : "check the name")
  }
}

private func isKind(_ status: stat, _ kind: mode_t) -> Bool { status.st_mode & S_IFMT == kind }

private func describe(_ code: Int32) -> String { String(cString: strerror(code)) }
