import Foundation
import Synchronization
import Testing

import StrideNet
@testable import StrideNetCore
@testable import StrideNetFiles

@Suite struct AtomicFileTests {
  static func content(_ path: String) -> [UInt8]? {
    (try? Data(contentsOf: URL(fileURLWithPath: path))).map { [UInt8]($0) }
  }

  static func mode(_ path: String) -> mode_t {
    var status = stat()
    stat(path, &status)
    return status.st_mode & 0o7777
  }

  @Test func createsAndReplaces() throws {
    let folder = try TemporaryFolder()
    let path = folder.path + "/file"
    try AtomicFile.write([1, 2, 3], to: path)
    #expect(Self.content(path) == [1, 2, 3])
    let mask = umask(0)
    umask(mask)
    #expect(Self.mode(path) == 0o666 & ~mask)
    chmod(path, 0o640)
    try AtomicFile.write(to: path) { file in
      try file.append([4] as [UInt8])
      try file.append([UInt16(0x0605).littleEndian])
      try file.append([] as [Float])
      #expect(file.count == 3)
      #expect(Self.content(path) == [1, 2, 3])
    }
    #expect(Self.content(path) == [4, 5, 6])
    #expect(Self.mode(path) == 0o640)
    #expect(try folder.names == ["file"])
  }

  @Test func checkingLeavesNothing() throws {
    let folder = try TemporaryFolder()
    let path = try folder.write("file", [1])
    try AtomicFile.checkWritable(path)
    try AtomicFile.checkWritable(folder.path + "/new")
    #expect(try folder.names == ["file"] && Self.content(path) == [1])
    #expect(throws: StrideNetError.self) { try AtomicFile.checkWritable("") }
  }

  @Test func followsLinks() throws {
    let folder = try TemporaryFolder()
    try folder.write("file", [1])
    symlink("file", folder.path + "/link")
    try AtomicFile.write([2], to: folder.path + "/link")
    #expect(Self.content(folder.path + "/file") == [2])
    #expect(try folder.names == ["file", "link"])
    var status = stat()
    #expect(lstat(folder.path + "/link", &status) == 0 && status.st_mode & S_IFMT == S_IFLNK)
  }

  /// A link to a file that isn't there yet: that is written, as everything else would write it.
  @Test func followsDanglingLinks() throws {
    let folder = try TemporaryFolder()
    mkdir(folder.path + "/below", 0o700)
    symlink("below/other", folder.path + "/link")
    symlink("\(folder.path)/file", folder.path + "/below/other")
    try AtomicFile.checkWritable(folder.path + "/link")
    #expect(try folder.names == ["below", "link"])
    try AtomicFile.write([1], to: folder.path + "/link")
    #expect(Self.content(folder.path + "/file") == [1])
    var status = stat()
    for link in ["/link", "/below/other"] {
      #expect(lstat(folder.path + link, &status) == 0 && status.st_mode & S_IFMT == S_IFLNK)
    }
    for (link, target) in [("a", "a"), ("b", "missing/file"), ("c", "below/")] {
      symlink(target, folder.path + "/" + link)
      let error = #expect(throws: StrideNetError.self) {
        try AtomicFile.write([2], to: folder.path + "/" + link)
      }
      #expect(error?.kind == .cannotCreate)
    }
    #expect(try folder.names == ["a", "b", "below", "c", "file", "link"])
  }

  /// The superuser saves over somebody else's file.
  @Test(.enabled(if: geteuid() == 0, "only the superuser may give files away"))
  func keepsOwnerGroupAndMode() throws {
    let folder = try TemporaryFolder()
    let path = try folder.write("file", [1])
    chown(path, 12345, 54321)
    chmod(path, 0o640)
    try AtomicFile.write([2], to: path)
    var status = stat()
    #expect(stat(path, &status) == 0 && Self.content(path) == [2])
    #expect(status.st_uid == 12345 && status.st_gid == 54321 && Self.mode(path) == 0o640)
  }

  // MARK: What killed processes leave

  /// In a process of its own that ends half-way.
  @Test func removesWhatAKilledProcessLeft() async throws {
    let folder = try TemporaryFolder()
    try folder.write("file", [1])
    await #expect(processExitsWith: .signal(SIGKILL)) { [path = folder.path as String] in
      try AtomicFile.write(to: path + "/file") { file in
        try file.append([2] as [UInt8])
        kill(getpid(), SIGKILL)
      }
    }
    #expect(try folder.names.count == 2)
    // Another file's is none of ours.
    try AtomicFile.write([3], to: folder.path + "/other")
    #expect(try folder.names.count == 3 && Self.content(folder.path + "/file") == [1])
    try AtomicFile.checkWritable(folder.path + "/file")
    #expect(try folder.names == ["file", "other"])
  }

  @Test func leavesWhatIsInUse() throws {
    let folder = try TemporaryFolder()
    let path = folder.path + "/file"
    // Whose names begin in the same way: another host's, and what isn't a file.
    let prefix = AtomicFile.temporaryPrefix(of: "file")
    let other = AtomicFile.temporaryPrefix(of: "file", host: "elsewhere") + "1.tmp"
    try folder.write(other, [1])
    symlink(other, "\(folder.path)/\(prefix)2.tmp")
    mkfifo("\(folder.path)/\(prefix)3.tmp", 0o600)
    mkdir("\(folder.path)/\(prefix)4.tmp", 0o700)
    try folder.write(prefix + "5.tmp", [1])
    let strange = try folder.names.filter { !$0.hasSuffix("5.tmp") }
    try AtomicFile.write(to: path) { outer in
      try outer.append([1] as [UInt8])
      // Another writer of the same file comes and goes meanwhile.
      try AtomicFile.write([2], to: path)
      #expect(try folder.names.count == strange.count + 2)
      try outer.append([3] as [UInt8])
    }
    #expect(Self.content(path) == [1, 3])
    #expect(try folder.names == (strange + ["file"]).sorted())
  }

  /// Writers of one file at the same time, each of which looks for abandoned files.
  @Test func manyWritersOfOneFile() async throws {
    let folder = try TemporaryFolder()
    let path = folder.path + "/file"
    try await withThrowingTaskGroup(of: Void.self) { group in
      for writer in 0..<4 {
        group.addTask {
          for _ in 0..<100 {
            try AtomicFile.write([UInt8](repeating: UInt8(writer), count: 99), to: path)
          }
        }
      }
      try await group.waitForAll()
    }
    let content = try #require(Self.content(path))
    #expect(content.count == 99 && Set(content).count == 1)
    #expect(try folder.names == ["file"])
  }

  @Test(arguments: [
    "/missing/file", "", "/", "/new/", "/file/below", "/" + String(repeating: "x", count: 300),
  ])
  func refusesBadPlaces(name: String) throws {
    let folder = try TemporaryFolder()
    try folder.write("file", [1])
    let error = try #require(throws: StrideNetError.self) {
      try AtomicFile.write([2], to: folder.path + name)
    }
    #expect(error.kind == .cannotCreate && error.place == folder.path + name)
    let early = #expect(throws: StrideNetError.self) {
      try AtomicFile.checkWritable(folder.path + name)
    }
    #expect(early?.description == error.description)
    #expect(try folder.names == ["file"])
  }

  /// The superuser may write anywhere: so nothing to see then.
  @Test(.enabled(if: geteuid() != 0)) func heedsPermissions() throws {
    let folder = try TemporaryFolder()
    let path = try folder.write("file", [1])
    chmod(path, 0o400)
    #expect(throws: StrideNetError.self) { try AtomicFile.write([2], to: path) }
    #expect(Self.content(path) == [1])
    chmod(folder.path, 0o500)
    defer { chmod(folder.path, 0o700) }
    let error = try #require(throws: StrideNetError.self) {
      try AtomicFile.write([2], to: folder.path + "/new")
    }
    #expect(error.kind == .cannotCreate && error.what.contains("Permission denied"))
  }

  @Test func whatTheBodyThrowsLeavesTheOldFile() throws {
    let folder = try TemporaryFolder()
    let path = try folder.write("file", [1])
    struct Stop: Error {}
    #expect(throws: Stop.self) {
      try AtomicFile.write(to: path) { file in
        try file.append([2] as [UInt8])
        throw Stop()
      }
    }
    #expect(Self.content(path) == [1])
    #expect(try folder.names == ["file"])
  }

  /// In a process of its own, as all tests share the current folder.
  @Test func takesANameWithoutAFolder() async throws {
    await #expect(processExitsWith: .success) {
      let folder = try TemporaryFolder()
      try #require(chdir(folder.path) == 0)
      for name in ["w", "./x"] { try AtomicFile.write([1], to: name) }
      try #require(try folder.names == ["w", "x"])
    }
  }

  /// In a process of its own, as the limit can't be taken back.
  @Test func aFullPlaceLeavesTheOldFile() async throws {
    await #expect(processExitsWith: .success) {
      let folder = try TemporaryFolder()
      let path = try folder.write("file", [1])
      signal(SIGXFSZ, SIG_IGN)
      var limit = rlimit(rlim_cur: 1000, rlim_max: 1000)
      #if canImport(Glibc)
        try #require(setrlimit(__rlimit_resource_t(RLIMIT_FSIZE.rawValue), &limit) == 0)
      #else
        try #require(setrlimit(RLIMIT_FSIZE, &limit) == 0)
      #endif
      let error = #expect(throws: StrideNetError.self) {
        try AtomicFile.write([UInt8](repeating: 2, count: 5000), to: path)
      }
      try #require(error?.kind == .ioError && error?.what.contains("File too large") == true)
      try #require(Self.content(path) == [1])
      try #require(try folder.names == ["file"])
    }
  }

  @Test func writesDirectlyToWhatIsNoFile() throws {
    let folder = try TemporaryFolder()
    let pipe = folder.path + "/pipe"
    mkfifo(pipe, 0o600)
    // Opened for both directions, the pipe keeps what is written until it's read.
    let reader = open(pipe, O_RDWR | O_NONBLOCK)
    defer { close(reader) }
    try AtomicFile.write([1, 2, 3], to: pipe)
    var got = [UInt8](repeating: 0, count: 9)
    #expect(read(reader, &got, 9) == 3 && got.prefix(3) == [1, 2, 3])
    #expect(try folder.names == ["pipe"])
  }

  /// Checking opens no pipe, or its reader would be told of an end; nor does writing wait for ever.
  @Test func aPipeNeedsAReader() throws {
    let folder = try TemporaryFolder()
    let pipe = folder.path + "/pipe"
    mkfifo(pipe, 0o600)
    try AtomicFile.checkWritable(pipe)
    let error = #expect(throws: StrideNetError.self) {
      try AtomicFile.write(to: pipe, patience: 0.1) { try $0.append([1] as [UInt8]) }
    }
    #expect(error?.kind == .cannotCreate && error?.what == "nobody reads this pipe")
    #expect(throws: StrideNetError.self) { try AtomicFile.checkWritable(pipe, again: true) }
    // A reader that comes late, and gets more than the pipe holds.
    let bytes = (0..<300_000).map { UInt8(truncatingIfNeeded: $0) }
    let got = Mutex<[UInt8]>([])
    let done = DispatchSemaphore(value: 0)
    Thread.detachNewThread {
      usleep(100_000)
      let reader = open(pipe, O_RDONLY)
      var buffer = [UInt8](repeating: 0, count: 1 << 16)
      while case let count = read(reader, &buffer, buffer.count), count > 0 {
        got.withLock { $0 += buffer.prefix(count) }
      }
      close(reader)
      done.signal()
    }
    try AtomicFile.write(bytes, to: pipe)
    done.wait()
    #expect(got.withLock { $0 } == bytes)
    #expect(try folder.names == ["pipe"])
  }

  #if os(Linux)
    @Test func refusesASocket() throws {
      let folder = try TemporaryFolder()
      let path = folder.path + "/socket"
      let descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
      defer { close(descriptor) }
      var address = sockaddr_un()
      address.sun_family = sa_family_t(AF_UNIX)
      withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
      let bound = withUnsafePointer(to: address) {
        $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
          bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
        }
      }
      try #require(bound == 0)
      for write in [
        { try AtomicFile.checkWritable(path) }, { try AtomicFile.write([1], to: path) },
      ] {
        let error = #expect(throws: StrideNetError.self) { try write() }
        #expect(error?.kind == .cannotCreate && error?.what == "a socket isn't a file")
      }
      #expect(try folder.names == ["socket"])
    }

    /// As /dev/stdout is one where the output goes to a file that was deleted.
    @Test func refusesALinkToADeletedFile() throws {
      let folder = try TemporaryFolder()
      let file = try folder.write("file", [1])
      let descriptor = open(file, O_RDWR)
      defer { close(descriptor) }
      symlink("/proc/self/fd/\(descriptor)", folder.path + "/link")
      try AtomicFile.write([2], to: folder.path + "/link")
      #expect(Self.content(file) == [2])
      let again = open(file, O_RDWR)
      defer { close(again) }
      unlink(folder.path + "/link")
      symlink("/proc/self/fd/\(again)", folder.path + "/link")
      unlink(file)
      let error = #expect(throws: StrideNetError.self) {
        try AtomicFile.write([3], to: folder.path + "/link")
      }
      #expect(error?.kind == .cannotCreate && error?.what.contains("was removed") == true)
      #expect(try folder.names == ["link"])
    }

    @Test func namesTheFullDisk() throws {
      // By descriptor, never by path: run by the superuser, a mistake in the code under test would
      // put a file in the place of the machine's device.
      let full = open("/dev/full", O_WRONLY)
      defer { close(full) }
      let error = try #require(throws: StrideNetError.self) {
        try [UInt8](repeating: 1, count: 9).withUnsafeBytes {
          try AtomicFile.writeAll($0, to: full, path: "model")
        }
      }
      #expect(error.kind == .ioError && error.place == "model")
      #expect(error.what.contains("No space left on device"))
    }
  #endif
}

@Suite struct DigestTests {
  @Test(arguments: [
    ("", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
    ("abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
    (
      "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
      "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"
    ),
  ])
  func isSHA256(text: String, hex: String) {
    var whole = SHA256()
    whole.update(Array(text.utf8))
    #expect(whole.hex == hex)
    var pieces = SHA256()
    for byte in text.utf8 {
      _ = pieces.hex
      pieces.update([byte])
    }
    #expect(pieces.hex == hex)
  }
}
