import Foundation
import Testing

@testable import StrideNet

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

  #if os(Linux)
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
