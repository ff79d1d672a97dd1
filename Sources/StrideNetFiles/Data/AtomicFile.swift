import Foundation
import StrideNetCore

/// Writes whole files: other processes, and a run after a crash, see the old file or the new one,
/// never half of it.
package enum AtomicFile {
  /// Takes the bytes of a file in order. Every append is one system call or more: hand over large
  /// pieces.
  package struct Writer: ~Copyable {
    private let descriptor: Int32
    private let path: String
    /// Bytes written so far.
    package private(set) var count = 0

    fileprivate init(descriptor: Int32, path: String) {
      self.descriptor = descriptor
      self.path = path
    }

    /// Appends raw bytes.
    package mutating func append(_ bytes: UnsafeRawBufferPointer) throws {
      try writeAll(bytes, to: descriptor, path: path)
      count += bytes.count
    }

    /// Appends the bytes of an array of numbers, as they lie in memory.
    package mutating func append<Number: BitwiseCopyable>(_ values: [Number]) throws {
      try values.withUnsafeBytes { try append($0) }
    }
  }

  /// Creates or replaces the file at `path` with what `body` writes.
  ///
  /// On any failure, one thrown by `body` included, the old file stays as it was and nothing else
  /// is left behind; what a killed process left, the next one that writes the same file removes.
  /// Symbolic links are followed, to a file that isn't there yet too. A file that is replaced keeps
  /// its owner, group and mode as far as this process may set them, not its further names (hard
  /// links).
  ///
  /// Character devices and pipes are written to directly, as there is nothing to replace. A pipe
  /// is given `patience` seconds to have a reader. Other places that aren't files are refused.
  ///
  /// A program that runs under a file size limit must ignore SIGXFSZ to get the error.
  package static func write(
    to path: String, patience: Double = 10, _ body: (inout Writer) throws -> Void
  ) throws {
    let (target, old) = try place(path)
    if let old, !isKind(old, S_IFREG) {
      return try writeDirectly(to: path, old, patience, body)
    }
    let (folder, name) = split(target)
    removeAbandoned(of: name, in: folder, owners: [geteuid(), old?.st_uid ?? geteuid()])
    let (descriptor, temporary) = try createTemporary(of: name, in: folder, for: path)
    do {
      defer { close(descriptor) }
      var writer = Writer(descriptor: descriptor, path: path)
      try body(&writer)
      if let old { take(old, descriptor) }
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
  package static func write(_ bytes: [UInt8], to path: String) throws {
    try write(to: path) { try $0.append(bytes) }
  }

  /// Fails as `write` would if the file can't be created: before long work, not after it.
  ///
  /// - Parameters:
  ///   - path: the file
  ///   - again: the file will be written several times, which no pipe can take: what reads it is told
  ///     of an end each time
  package static func checkWritable(_ path: String, again: Bool = false) throws {
    struct Enough: Error {}
    let (_, old) = try place(path)
    if let old, !isKind(old, S_IFREG) {
      guard again, isKind(old, S_IFIFO) else { return }
      throw StrideNetError(
        .cannotCreate, "a pipe can't take a file that is replaced now and then", at: path,
        expected: "the name of a file", hint: "write to a file, and copy it when all is done")
    }
    do { try write(to: path) { _ in throw Enough() } } catch is Enough {}
  }

  // MARK: Where to write

  /// Where a write to `path` arrives, and what is there, if anything is; all that is known at once
  /// to make writing impossible is thrown.
  private static func place(_ path: String) throws -> (target: String, old: stat?) {
    var old = stat()
    guard stat(path, &old) == 0 else {
      // A name that is too long, say, would be noticed by the rename, when all is written.
      if path.isEmpty || errno != ENOENT { throw cannotCreate(path, errno) }
      let target = try followed(path)
      if target.hasSuffix("/") { throw cannotCreate(path, EISDIR) }
      return (target, nil)
    }
    if isKind(old, S_IFDIR) { throw cannotCreate(path, EISDIR) }
    // Replacing needs a right on the folder alone; the file's own permissions count all the same.
    if access(path, W_OK) != 0 { throw cannotCreate(path, errno) }
    guard isKind(old, S_IFREG) else {
      guard isKind(old, S_IFIFO) || isKind(old, S_IFCHR) else {
        throw StrideNetError(
          .cannotCreate, "\(isKind(old, S_IFSOCK) ? "a socket" : "a disk") isn't a file", at: path,
          expected: "a file, a pipe or a terminal", hint: "give the name of a file")
      }
      return (path, old)
    }
    // A link of /proc, which /dev/stdout is one of, may lead to a file that has no name any more:
    // replacing would put a file in the link's place.
    // Looked at again where the two differ, as another writer may have come in between.
    for _ in 0..<100 {
      let target = try followed(path)
      var found = stat()
      guard lstat(target, &found) == 0 else { break }
      if found.st_dev == old.st_dev && found.st_ino == old.st_ino { return (target, old) }
      guard stat(path, &old) == 0 else { break }
    }
    throw StrideNetError(
      .cannotCreate, "the file was removed and has no name to be replaced under", at: path,
      hint: "give the name of a file")
  }

  /// The name that is left when symbolic links are followed, as `open` would create it.
  private static func followed(_ path: String) throws -> String {
    var path = path
    for _ in 0..<40 {
      var buffer = [UInt8](repeating: 0, count: Int(PATH_MAX))
      let count = buffer.withUnsafeMutableBytes {
        readlink(path, $0.baseAddress!.assumingMemoryBound(to: CChar.self), $0.count)
      }
      if count < 0 { return path }
      let next = String(decoding: buffer.prefix(count), as: UTF8.self)
      path = next.hasPrefix("/") ? next : split(path).folder + next
    }
    throw cannotCreate(path, ELOOP)
  }

  /// The folder with its slash, if there is one. By hand: Foundation on Linux ends the process over
  /// the folder of "w".
  private static func split(_ path: String) -> (folder: String, name: String) {
    guard let slash = path.utf8.lastIndex(of: UInt8(ascii: "/")) else { return ("", path) }
    return (String(path[...slash]), String(path[path.utf8.index(after: slash)...]))
  }

  private static func writeDirectly(
    to path: String, _ old: stat, _ patience: Double, _ body: (inout Writer) throws -> Void
  ) throws {
    let clock = ContinuousClock()
    let start = clock.now
    var descriptor = Int32(-1)
    while descriptor < 0 {
      // A blocking open would wait for a pipe's reader for ever.
      descriptor = open(path, O_WRONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK)
      if descriptor >= 0 { break }
      let code = errno
      guard code == EINTR || (code == ENXIO && isKind(old, S_IFIFO)) else {
        throw cannotCreate(path, code)
      }
      guard clock.now - start < .seconds(patience) else {
        throw StrideNetError(
          .cannotCreate, "nobody reads this pipe", at: path,
          expected: "a reader within \(patience) s", hint: "start what reads it first")
      }
      usleep(20_000)
    }
    defer { close(descriptor) }
    _ = fcntl(descriptor, F_SETFL, fcntl(descriptor, F_GETFL) & ~O_NONBLOCK)
    var writer = Writer(descriptor: descriptor, path: path)
    try body(&writer)
  }

  /// Gives a new file the owner, group and mode of the one it replaces. Where the group can't be
  /// kept, the new one may do what everybody may.
  private static func take(_ old: stat, _ descriptor: Int32) {
    let owner = fchown(descriptor, old.st_uid, .max) == 0
    let group = fchown(descriptor, .max, old.st_gid) == 0
    var mode = old.st_mode & (owner && group ? 0o7777 : 0o777)
    if !group { mode = mode & ~0o070 | (mode & 0o007) << 3 }
    _ = fchmod(descriptor, mode)
  }

  // MARK: Temporary files

  /// The temporary file lies in the target's folder because a rename can't cross file systems. It
  /// is locked while it is written, by which others see that it is in use.
  private static func createTemporary(
    of name: String, in folder: String, for path: String
  ) throws -> (descriptor: Int32, path: String) {
    while true {
      let random = String(UInt64.random(in: 0 ... .max), radix: 36)
      let temporary = folder + temporaryPrefix(of: name) + random + ".tmp"
      let descriptor = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o666)
      if descriptor < 0 {
        if errno != EEXIST && errno != EINTR { throw cannotCreate(path, errno) }
        continue
      }
      // Before it was locked another process may have taken it for abandoned. A file system
      // without locks keeps abandoned files.
      var status = stat()
      let isLocked = flock(descriptor, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK
      if isLocked && fstat(descriptor, &status) == 0 && status.st_nlink > 0 {
        return (descriptor, temporary)
      }
      close(descriptor)
    }
  }

  /// How the names of a file's temporary files begin. The host's name is part of it, as the locks
  /// of some network file systems hold on one host alone.
  static func temporaryPrefix(
    of name: String, host: String = ProcessInfo.processInfo.hostName
  ) -> String {
    var digest = SHA256()
    digest.update(Array("\(host)/\(name)".utf8))
    return ".stridenet-\(digest.hex.prefix(16))-"
  }

  /// Removes the temporary files of processes that were killed. A lock ends with the process that
  /// holds it: so it tells, unlike a process number, which may be another's by then.
  private static func removeAbandoned(of name: String, in folder: String, owners: [uid_t]) {
    guard let entries = opendir(folder.isEmpty ? "." : folder) else { return }
    defer { closedir(entries) }
    let prefix = temporaryPrefix(of: name)
    while let entry = readdir(entries) {
      let found = withUnsafePointer(to: &entry.pointee.d_name) {
        $0.withMemoryRebound(to: CChar.self, capacity: Int(NAME_MAX) + 1) { String(cString: $0) }
      }
      guard found.hasPrefix(prefix), found.hasSuffix(".tmp") else { continue }
      let descriptor = open(folder + found, O_WRONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW)
      if descriptor < 0 { continue }
      var status = stat()
      if fstat(descriptor, &status) == 0, isKind(status, S_IFREG),
        owners.contains(status.st_uid), flock(descriptor, LOCK_EX | LOCK_NB) == 0
      {
        unlink(folder + found)
      }
      close(descriptor)
    }
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

  /// - Throws: ``StrideNetError`` where there is no memory for so many times its size
  func require(times: Int) throws {
    var need = MemoryNeed()
    need.add(size / 4 + 1, times: times + 1, for: path)
    try need.require(hint: "make a smaller file of it")
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
