import Foundation
import Synchronization
import Testing

import StrideNet
@testable import StrideNetCore
@testable import StrideNetFiles

@Suite(.timeLimit(.minutes(10))) struct DownloadTests {
  static let contents = Dataset.files.enumerated().map { number, name in
    // Random, so that compressing doesn't make it too short to cut.
    var generator = SeededGenerator(seed: UInt64(number))
    return name.contains("images")
      ? idx([200, 28, 28], bytes: (0..<200 * 784).map { _ in UInt8(generator.below(256)) })
      : idx([200], bytes: (0..<200).map { _ in UInt8(generator.below(10)) })
  }
  static let packed = contents.map(gzip)

  static let download = Download(
    files: zip(Dataset.files, contents).map { name, content in
      var digest = SHA256()
      digest.update(content)
      return Download.File(name: name, size: content.count, sha256: digest.hex)
    }, mirrors: [])

  static let first = Dataset.files[0] + ".gz"

  static func body(_ request: LoopbackServer.Request) -> [UInt8]? {
    Dataset.files.firstIndex { request.path == "/\($0).gz" }.map { packed[$0] }
  }

  /// As a good server answers, resuming where it's asked to.
  static func good(_ request: LoopbackServer.Request) -> LoopbackServer.Response {
    guard let body = body(request) else { return .init(status: 404) }
    guard let start = request.rangeStart else { return .init(body: body) }
    if start >= body.count { return .init(status: 416) }
    return .init(
      status: 206, headers: ["Content-Range": "bytes \(start)-\(body.count - 1)/\(body.count)"],
      body: Array(body[start...]))
  }

  static func expectWhole(_ folder: TemporaryFolder) throws {
    #expect(try folder.names == Dataset.files.map { $0 + ".gz" }.sorted())
    #expect(try Dataset.load(folder.path).train.pixels == Array(contents[0].dropFirst(16)))
    #expect(try Dataset.load(folder.path).test.labels == contents[3].dropFirst(8).map(UInt16.init))
  }

  static func failure(
    of server: LoopbackServer, into folder: TemporaryFolder
  ) async throws -> StrideNetError {
    try await #require(throws: StrideNetError.self) {
      try await download.run(mirrors: [server.url], into: folder.path) { _, _, _ in }
    }
  }

  @Test func fetchesAndThenLeavesAlone() async throws {
    let folder = try TemporaryFolder()
    let server = LoopbackServer(Self.good)
    let last = Mutex<[String: [Int?]]>([:])
    // Without the slash at the end, too.
    try await Self.download.run(mirrors: [String(server.url.dropLast())], into: folder.path) {
      file, received, total in
      last.withLock { $0[file] = [received, total] }
    }
    try Self.expectWhole(folder)
    for (file, bytes) in zip(Dataset.files, Self.packed) {
      #expect(last.withLock { $0[file] } == [bytes.count, bytes.count])
    }
    #expect(server.requests.count == 4)
    #expect(server.requests.allSatisfy { $0.headers["accept-encoding"] == "identity" })
    try await Self.download.run(mirrors: [server.url], into: folder.path) { _, _, _ in }
    #expect(server.requests.count == 4)
    // A damaged file is fetched again, and it alone.
    try folder.write(Self.first, Array(Self.packed[0].dropLast()))
    try await Self.download.run(mirrors: [server.url], into: folder.path) { _, _, _ in }
    #expect(server.requests.count == 5)
    try Self.expectWhole(folder)
  }

  @Test func resumesWhatWasCutOff() async throws {
    let folder = try TemporaryFolder()
    let cut = 100_000
    let breaking = LoopbackServer { request in
      var response = Self.good(request)
      response.cutAfter = cut
      return response
    }
    let error = try await Self.failure(of: breaking, into: folder)
    #expect(error.kind == .service && error.place!.contains(breaking.url + Self.first))
    #expect(try folder.names == [Self.first + ".part"])
    let kept = AtomicFileTests.content("\(folder.path)/\(Self.first).part")
    #expect(kept == Array(Self.packed[0][..<cut]))
    let server = LoopbackServer(Self.good)
    try await Self.download.run(mirrors: [server.url], into: folder.path) { _, _, _ in }
    #expect(server.requests[0].headers["range"] == "bytes=\(cut)-")
    #expect(server.requests.count == 4)
    try Self.expectWhole(folder)
  }

  /// What may lie there, and how many requests the first file then takes.
  @Test(
    arguments: [
      ("whole but not renamed", packed[0], 0),
      ("another file's", .init(repeating: 9, count: 99), 2),
      // What is behind its end is nothing to a gzip file.
      ("too long", packed[0] + [1], 0), ("empty", [], 1),
    ] as [(String, [UInt8], Int)])
  func copesWithAnyPart(what: String, part: [UInt8], requests: Int) async throws {
    let folder = try TemporaryFolder()
    try folder.write(Self.first + ".part", part)
    let server = LoopbackServer(Self.good)
    try await Self.download.run(mirrors: [server.url], into: folder.path) { _, _, _ in }
    #expect(server.requests.count == 3 + requests)
    try Self.expectWhole(folder)
  }

  @Test(arguments: [nil, "bytes 0-9/10"] as [String?])
  func copesWithServersThatDoNotResume(range: String?) async throws {
    let folder = try TemporaryFolder()
    try folder.write(Self.first + ".part", Array(Self.packed[0][..<5000]))
    let server = LoopbackServer { request in
      let body = Self.body(request)!
      guard let range, request.rangeStart != nil else { return .init(body: body) }
      return .init(status: 206, headers: ["Content-Range": range], body: Array(body[..<10]))
    }
    try await Self.download.run(mirrors: [server.url], into: folder.path) { _, _, _ in }
    try Self.expectWhole(folder)
  }

  @Test(
    arguments: [
      (
        "a flipped byte", packed[0][..<50_000] + [packed[0][50_000] ^ 1] + packed[0][50_001...],
        "dam"
      ),
      ("another content", gzip(contents[2]), "wrong SHA-256"),
      ("not gzip", Array("<html>Please log in".utf8), "wrong SHA-256"),
      ("nothing", [], "sent nothing"),
      ("a bomb", gzip(.init(repeating: 0, count: 1 << 24)), "larger than"),
      ("endless", packed[0] + .init(repeating: 0, count: 1 << 20), "more than the file can have"),
    ] as [(String, [UInt8], String)])
  func refusesTheWrongContent(what: String, body: [UInt8], message: String) async throws {
    let folder = try TemporaryFolder()
    let bad = LoopbackServer { _ in .init(body: body) }
    let error = try await Self.failure(of: bad, into: folder)
    #expect(error.kind == .service && error.description.contains(message), "\(error)")
    #expect(error.hint!.contains("--mirror"))
    #expect(try folder.names == [])
    // The next mirror helps.
    let server = LoopbackServer(Self.good)
    try await Self.download.run(mirrors: [bad.url, server.url], into: folder.path) { _, _, _ in }
    try Self.expectWhole(folder)
  }

  @Test(arguments: [403, 404, 500, 206, 416, 304]) func namesTheStatus(status: Int) async throws {
    let folder = try TemporaryFolder()
    let server = LoopbackServer { _ in .init(status: status, body: [1, 2, 3]) }
    let error = try await Self.failure(of: server, into: folder)
    #expect(error.kind == .service && error.place!.contains("status \(status)"), "\(error)")
    #expect(error.place!.contains(server.url + Self.first))
    #expect(try folder.names == [])
  }

  @Test func safeMirrorsFirst() {
    for (name, download) in Download.published {
      #expect(download.mirrors[0].hasPrefix("https://"), "\(name)")
    }
  }

  @Test func namesTheMirrorThatIsNotThere() async throws {
    let folder = try TemporaryFolder()
    let refused = "http://127.0.0.1:\(LoopbackServer.refusedPort())/"
    let error = try await #require(throws: StrideNetError.self) {
      try await Self.download.run(mirrors: [refused], into: folder.path) { _, _, _ in }
    }
    #expect(error.kind == .service && error.place!.contains(refused), "\(error)")
    #expect(try folder.names == [])
  }

  @Test func refusesWhatCannotWork() async throws {
    let folder = try TemporaryFolder()
    let file = try folder.write("file", [1])
    func run(_ body: () async throws -> Void) async -> StrideNetError? {
      await #expect(throws: StrideNetError.self) { try await body() }
    }
    for mirror in ["", "ftp://example.org", "example.org/mnist", "http://", "file:///tmp"] {
      let error = await run { _ = try await Download.fetch("mnist", mirrors: [mirror], into: file) }
      #expect(error?.kind == .usage && error?.found == mirror)
    }
    #expect(await run { _ = try await Download.fetch("imagenet", into: file) }?.kind == .usage)
    #expect(await run { _ = try await Download.fetch("mnist", environment: [:]) }?.kind == .usage)
    let server = LoopbackServer(Self.good)
    for place in [file, file + "/below"] {
      let error = await run {
        try await Self.download.run(mirrors: [server.url], into: place) { _, _, _ in }
      }
      #expect(error?.kind == .cannotCreate && error?.place?.contains(file) == true)
    }
    // A file under another name that loading prefers.
    try folder.write(Dataset.files[1], [1])
    let error = await run {
      try await Self.download.run(mirrors: [server.url], into: folder.path) { _, _, _ in }
    }
    #expect(error?.kind == .badData && error?.place == "\(folder.path)/\(Dataset.files[1])")
  }

  @Test func cancelling() async throws {
    let folder = try TemporaryFolder()
    let started = AsyncStream<Void>.makeStream()
    let server = LoopbackServer { request in
      started.continuation.yield()
      Thread.sleep(forTimeInterval: 0.5)
      return Self.good(request)
    }
    let task = Task {
      try await Self.download.run(mirrors: [server.url], into: folder.path) { _, _, _ in }
    }
    for await _ in started.stream { break }
    task.cancel()
    await #expect(throws: (any Error).self) { try await task.value }
    #expect(server.requests.count <= 1)
  }
}
