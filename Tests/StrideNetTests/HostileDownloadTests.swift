import Foundation
import Testing

import StrideNet
@testable import StrideNetFiles
@testable import StrideNetCore

/// Servers that mean no good.
extension DownloadTests {
  /// What each failed download must come to: an error that says what is wrong, with no more
  /// taken from the server than the file can have.
  static func expectRefusal(
    _ text: String, part: [UInt8]? = nil,
    _ answer:
      @escaping @Sendable (LoopbackServer.Request) ->
      LoopbackServer.Response
  ) async throws {
    let folder = try TemporaryFolder()
    if let part { try folder.write(first + ".part", part) }
    let server = LoopbackServer(answer)
    var download = download
    download.patience = 2
    let error = try await #require(throws: StrideNetError.self) {
      try await download.run(mirrors: [server.url], into: folder.path) { _, _, _ in }
    }
    #expect(error.kind == .service && error.place!.contains(text), "\(error)")
    #expect(server.requests.count <= 6)
    for name in try folder.names {
      #expect(name == first + ".part")
      #expect(AtomicFileTests.content("\(folder.path)/\(name)")!.count <= contents[0].count * 2)
    }
  }

  static func head(_ lines: String...) -> [UInt8] {
    Array((["HTTP/1.1 200 OK"] + lines + ["", ""]).joined(separator: "\r\n").utf8)
  }

  enum Endless: CaseIterable { case body, chunks, header, line, informal, redirect }

  @Test(arguments: Endless.allCases) func endsTheEndless(what: Endless) async throws {
    let text =
      switch what {
      case .body, .chunks: "more than the file can have"
      case .header, .informal: "endless header"
      // As libcurl says it of more than a line can have.
      case .line: "Out of memory"
      case .redirect: "more than 5 redirects"
      }
    let piece = [UInt8](repeating: 65, count: 1 << 16)
    let long = String(repeating: "b", count: 30_000)
    // A server's share must stay bounded too: this much is far beyond what is read before the end.
    let most = 1 << 10
    try await Self.expectRefusal(text) { request in
      .init(misbehaving: { send in
        var count = 0
        func more(_ bytes: [UInt8]) -> Bool {
          count += 1
          return count < most && send(bytes)
        }
        switch what {
        case .body: if send(Self.head("Connection: close")) { while more(piece) {} }
        case .chunks:
          if send(Self.head("Transfer-Encoding: chunked")) {
            while more(Array("10000\r\n".utf8) + piece + [13, 10]) {}
          }
        case .header:
          if send(Array("HTTP/1.1 200 OK\r\n".utf8)) {
            while more(Array("A: \(long)\r\n".utf8)) {}
          }
        case .line: if send(Array("HTTP/1.1 200 OK\r\nA: ".utf8)) { while more(piece) {} }
        case .informal: while more(Array("HTTP/1.1 100 Continue\r\nA: \(long)\r\n\r\n".utf8)) {}
        case .redirect:
          _ = send(Array("HTTP/1.1 302 Found\r\nLocation: /x\r\n\r\n".utf8))
          while more(piece) {}
        }
        #expect(count < most)
      })
    }
  }

  @Test func countsRedirects() async throws {
    try await Self.expectRefusal("more than 5 redirects") {
      .init(status: 301, headers: ["Location": $0.path + "x"])
    }
  }

  @Test(arguments: [
    "file:///etc/hostname", "ftp://127.0.0.1/file", "gopher://127.0.0.1/", "", "http://",
    "//", "dict://127.0.0.1:1/",
  ])
  func followsToTheWebAlone(location: String) async throws {
    try await Self.expectRefusal("redirects to") { _ in
      .init(status: 302, headers: ["Location": location])
    }
  }

  @Test func followsAGoodRedirect() async throws {
    let folder = try TemporaryFolder()
    let server = LoopbackServer { request in
      guard request.path.hasPrefix("/old/") else { return Self.good(request) }
      return .init(status: 302, headers: ["Location": "../" + request.path.dropFirst(5)])
    }
    try await Self.download.run(mirrors: [server.url + "old"], into: folder.path) { _, _, _ in }
    #expect(server.requests.count == 8)
    try Self.expectWhole(folder)
  }

  /// Nothing at all, a header and a body byte by byte.
  @Test(arguments: [[], Array("HTTP/1.1 ".utf8), head("Content-Length: 9000")])
  func givesUpOnWhoIsSlow(first: [UInt8]) async throws {
    try await Self.expectRefusal("Timeout") { _ in
      .init(misbehaving: { send in
        guard send(first) else { return }
        for _ in 0..<300 {
          usleep(100_000)
          // To have the end of the connection seen, something must be sent.
          if !first.isEmpty, !send([65]) { break }
          if first.isEmpty, ContinuousClock.now - Self.began > .seconds(120) { break }
        }
      })
    }
  }
  static let began = ContinuousClock.now

  @Test(arguments: [
    ("9223372036854775807", "more than the file can have"), ("9223372036854775808", "SHA-256"),
    ("1000000", "more than the file can have"), ("18446744073709551616", "SHA-256"),
    ("-1", "Weird server reply"), ("x", "Weird server reply"), ("0x10", "sent nothing"),
    ("", "Weird server reply"), ("900", "cut off after"), ("2", "SHA-256"),
  ])
  func lengthsThatLie(length: String, text: String) async throws {
    for part in [nil, Array(Self.packed[0].prefix(5000))] {
      try await Self.expectRefusal(text, part: part) { request in
        let start = request.rangeStart ?? 0
        return .init(
          status: start > 0 ? 206 : 200,
          headers: [
            "Content-Length": length, "Content-Range": "bytes \(start)-\(length)/\(length)",
          ], body: [1, 2, 3])
      }
    }
  }

  /// The right place in words, and in truth the whole file or another part: started afresh.
  @Test(arguments: [0, 1, 4999, 5001]) func rangesThatLie(start: Int) async throws {
    let folder = try TemporaryFolder()
    try folder.write(Self.first + ".part", Array(Self.packed[0].prefix(5000)))
    let server = LoopbackServer { request in
      guard request.rangeStart == 5000 else { return Self.good(request) }
      let body = Array(Self.body(request)![start...])
      return .init(
        status: 206,
        headers: ["Content-Range": "bytes 5000-\(4999 + body.count)/\(5000 + body.count)"],
        body: body)
    }
    try await Self.download.run(mirrors: [server.url], into: folder.path) { _, _, _ in }
    try Self.expectWhole(folder)
  }

  /// Taken as it comes over the wire: never unpacked, however small it was made.
  @Test(arguments: ["Content-Encoding", "Transfer-Encoding"])
  func packedOnTheWay(header: String) async throws {
    let swollen = gzip([UInt8](repeating: 0, count: 1 << 26))
    try await Self.expectRefusal("larger than the") { _ in
      .init(headers: [header: "gzip"], body: swollen)
    }
    guard header == "Content-Encoding" else { return }
    // As some servers call what is a .gz file.
    let folder = try TemporaryFolder()
    let server = LoopbackServer { request in
      .init(headers: [header: "gzip"], body: Self.body(request)!)
    }
    try await Self.download.run(mirrors: [server.url], into: folder.path) { _, _, _ in }
    try Self.expectWhole(folder)
  }

  @Test(arguments: [
    #"Basic realm="x""#, #"Digest realm="x", nonce="1", qop="auth""#, "Negotiate", "NTLM",
  ])
  func doesNotLogIn(challenge: String) async throws {
    for (status, header) in [(401, "WWW-Authenticate"), (407, "Proxy-Authenticate")] {
      try await Self.expectRefusal("status \(status)") { _ in
        .init(status: status, headers: [header: challenge], body: [1])
      }
    }
  }
}
