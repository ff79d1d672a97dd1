import Foundation
import Synchronization
import Testing

import StrideNet
@testable import Web

/// Bytes to a server on this machine, and back.
struct Client {
  let port: UInt16
  /// Seconds.
  let patience: Int

  init(_ port: UInt16, patience: Int = 20) { (self.port, self.patience) = (port, patience) }

  func connected() -> Int32 {
    #if canImport(Glibc)
      let client = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    #else
      let client = socket(AF_INET, SOCK_STREAM, 0)
    #endif
    var patience = timeval(tv_sec: patience, tv_usec: 0)
    setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &patience, socklen_t(MemoryLayout<timeval>.size))
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_port = port.bigEndian
    address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
    withUnsafePointer(to: &address) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        _ = connect(client, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
      }
    }
    return client
  }

  /// As much as the other side takes.
  func send(_ bytes: [UInt8], on client: Int32) {
    var sent = 0
    while sent < bytes.count {
      let count = bytes[sent...].withUnsafeBytes {
        Foundation.send(client, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
      }
      if count <= 0 { break }
      sent += count
    }
  }

  func send(_ text: String, on client: Int32) { send(Array(text.utf8), on: client) }

  /// What comes until `end` is there, the other side closes, or is silent for some seconds.
  func receive(on client: Int32, until end: String? = nil) -> String {
    var (answer, chunk) = ([UInt8](), [UInt8](repeating: 0, count: 1 << 16))
    while true {
      let got = recv(client, &chunk, chunk.count, 0)
      if got <= 0 { break }
      answer += chunk[..<got]
      if let end, String(decoding: answer, as: UTF8.self).contains(end) { break }
    }
    return String(decoding: answer, as: UTF8.self)
  }

  /// Sends bytes and reads what comes until the other side closes, or is silent for some seconds.
  func exchange(_ bytes: [UInt8]) -> String {
    let client = connected()
    defer { close(client) }
    send(bytes, on: client)
    return receive(on: client)
  }

  func exchange(_ text: String) -> String { exchange(Array(text.utf8)) }
}

/// The head of a request, byte by byte.
@Suite struct RequestTests {
  /// What a reader makes of bytes that come in pieces of some size, and what it leaves.
  private func read(_ bytes: [UInt8], by size: Int) -> Result<
    (Request?, left: [UInt8]), Request.Refusal
  > {
    var reader = RequestReader()
    for start in stride(from: 0, to: bytes.count, by: size) {
      var piece = bytes[start..<min(bytes.count, start + size)]
      do throws(Request.Refusal) {
        if let request = try reader.read(&piece) {
          return .success((request, Array(piece) + bytes[min(bytes.count, start + size)...]))
        }
      } catch {
        return .failure(error)
      }
      #expect(piece.isEmpty)
    }
    return .success((nil, []))
  }

  private func status(_ text: String) -> Int {
    let results = [1, 2, 3, 7, 1000, 1 << 20].map { size in
      switch read(Array(text.utf8), by: size) {
      case .success(let (request, _)): request == nil ? 0 : 200
      case .failure(let refusal): refusal.status
      }
    }
    #expect(Set(results).count == 1, "\(text): \(results)")
    return results[0]
  }

  @Test func whatIsOne() throws {
    let text =
      "\r\nPOST /api/look?a=b HTTP/1.1\r\nhost:127.0.0.1:80\r\nConnection: Keep-Alive, \tCLOSE\r\n"
      + "Content-LENGTH: \t 007 \r\nX: a\r\nx:b \t\r\nEmpty:\r\nExpect: 100-Continue\r\n\r\nrest"
    for size in 1...text.utf8.count {
      let (request, left) = try read(Array(text.utf8), by: size).get()
      let it = try #require(request)
      #expect(it.method == "POST" && it.path == "/api/look" && it["host"] == "127.0.0.1:80")
      #expect(it.length == 7 && it["x"] == "a, b" && it["empty"] == "" && it["none"] == nil)
      #expect(!it.keepsConnection && it.waitsForConsent)
      #expect(left == Array("rest".utf8))
    }
    let old = try #require(try read(Array("GET / HTTP/1.0\r\n\r\n".utf8), by: 99).get().0)
    #expect(!old.keepsConnection && old.length == nil && old["host"] == nil)
  }

  @Test(
    arguments: [
      ("G", 0), ("GET / HTTP/1.1\r\nHost: a\r\n", 0), ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", 200),
      // The request line.
      ("GET /\r\n\r\n", 400), ("GET  / HTTP/1.1\r\n", 400), ("GET / HTTP/1.1 \r\n", 400),
      (" GET / HTTP/1.1\r\n", 400), ("GET\t/ HTTP/1.1\r\n", 400), ("G(T / HTTP/1.1\r\n", 400),
      ("GET http://a/ HTTP/1.1\r\n", 400), ("GET a HTTP/1.1\r\n", 400),
      ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 200), ("GET ** HTTP/1.1\r\n", 400),
      ("GET / http/1.1\r\n", 400), ("GET / HTTP/1.1x\r\n", 400), ("GET / HTTP/2.0\r\n", 505),
      ("GET / HTTP/11\r\n", 400), ("\r\n\r\n", 400), ("GET / HTTP/1.1\n", 400),
      ("GET / HTTP/1.1\rHost: a", 400), ("GET /\u{0} HTTP/1.1\r\n", 400), ("GET /ü", 400),
      ("\u{16}\u{3}\u{1}", 400), ("nonsense\r\n", 400),
      // Header lines.
      ("GET / HTTP/1.1\r\nHost a\r\n", 400), ("GET / HTTP/1.1\r\nHost : a\r\n", 400),
      ("GET / HTTP/1.1\r\n Host: a\r\n", 400), ("GET / HTTP/1.1\r\n: a\r\n", 400),
      ("GET / HTTP/1.1\r\nHost: a\r\n b\r\n", 400), ("GET / HTTP/1.1\r\nHost: a\n", 400),
      ("GET / HTTP/1.1\r\nHost: a\u{0}", 400), ("GET / HTTP/1.1\r\nHost: a\u{7f}", 400),
      ("GET / HTTP/1.1\r\nX: ü\r\nHost: a\r\n\r\n", 200), ("GET / HTTP/1.1\r\nÜ: a\r\n", 400),
      ("GET / HTTP/1.1\r\n\r\n", 400), ("GET / HTTP/1.1\r\nHost: a\r\nhOST: a\r\n\r\n", 400),
      // Lengths.
      ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400),
      ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n", 400),
      ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n", 400),
      ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1 2\r\n\r\n", 400),
      ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1\r\n\r\n", 400),
      ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: ١\r\n\r\n", 400),
      ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
      ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\n", 400),
      ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", 411),
      (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n", 400
      ),
      ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    ] as [(String, Int)])
  func whatIsNone(_ text: String, _ expected: Int) { #expect(status(text) == expected) }

  @Test func limits() throws {
    func line(_ count: Int) -> String {
      "GET /\(String(repeating: "a", count: count - 14)) HTTP/1.1\r\n"
    }
    #expect(status(line(8192) + "Host: a\r\n\r\n") == 200)
    #expect(status(line(8193)) == 414)
    func fields(_ count: Int, of length: Int) -> String {
      String(repeating: "X: \(String(repeating: "b", count: length - 3))\r\n", count: count)
    }
    let begin = "GET / HTTP/1.1\r\nHost: a\r\n"
    #expect(status(begin + fields(3, of: 8192) + "\r\n") == 200)
    #expect(status(begin + fields(1, of: 8193)) == 431)
    #expect(status(begin + fields(4, of: 8192)) == 431)
    #expect(status(begin + fields(2000, of: 10) + "\r\n") == 200)
    #expect(status(begin + fields(4000, of: 10)) == 431)
    // Lengths that no Int holds are too large, not wrong.
    for length in [
      "9223372036854775807", "9223372036854775808", String(repeating: "9", count: 8000),
    ] {
      let text = begin + "Content-Length: \(length)\r\n\r\n"
      #expect(try read(Array(text.utf8), by: 99).get().0?.length == .max)
    }
    // A megabyte without an end is refused with its 8,193rd byte, and nothing of it is kept.
    var (reader, taken) = (RequestReader(), 0)
    #expect(throws: Request.Refusal.self) {
      while taken < 1 << 20 {
        var byte: ArraySlice<UInt8> = [UInt8(ascii: "a")]
        taken += 1
        _ = try reader.read(&byte)
      }
    }
    #expect(taken == 8193)
  }

  /// Whatever comes, in whatever pieces: the same end.
  @Test func anything() {
    var random = SeededGenerator(seed: 5)
    let seeds = [
      "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n",
      "POST /api/look HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\nExpect: 100-continue\r\n\r\n{}",
    ].map { Array($0.utf8) }
    let pool = Array("\r\n :/HTP1.\t\0".utf8) + [0x80, 0xff]
    for _ in 0..<3000 {
      var bytes = seeds[random.below(2)]
      for _ in 0...random.below(4) {
        let place = random.below(bytes.count)
        switch random.below(3) {
        case 0: bytes[place] = pool[random.below(pool.count)]
        case 1: bytes.insert(pool[random.below(pool.count)], at: place)
        default: bytes.remove(at: place)
        }
      }
      let results = [1, 5, 1000].map { size in
        switch read(bytes, by: size) {
        case .success(let (request, left)): "\(request?.path ?? "-") \(left.count)"
        case .failure(let refusal): "\(refusal)"
        }
      }
      #expect(Set(results).count == 1, "\(bytes): \(results)")
    }
  }
}

/// The server by itself, with limits that a test can wait for.
@Suite(.serialized) struct ServerTests {
  /// Answers with what it was asked, after a time if the path says so.
  private struct Echo: Service {
    func begin(_ request: Request) -> Response? {
      if request.path == "/now" { return Response(type: "text/plain", body: Data("now".utf8)) }
      if request.path == "/large" {
        return Response(type: "text/plain", body: Data(count: 64 << 20))
      }
      return request.bodyLength > 1000 ? Response(Request.Refusal(413, "too large")) : nil
    }
    func answer(_ request: Request, _ body: [UInt8], held: Int) -> Response {
      if request.path == "/slow" { usleep(500_000) }
      return Response(type: "text/plain", body: Data(body))
    }
  }

  /// Serves until it is let go.
  private final class Running {
    let port: UInt16
    private let stops = Mutex(false)
    private let ended = DispatchSemaphore(value: 0)

    init(_ change: (inout Server.Limits) -> Void = { _ in }) throws {
      var limits = Server.Limits()
      change(&limits)
      let server = try Server(address: "127.0.0.1", port: 0, limits: limits, service: Echo()) { _ in
      }
      port = server.port
      nonisolated(unsafe) let only = server
      nonisolated(unsafe) let running = self
      Thread.detachNewThread {
        try? only.run(until: { running.stops.withLock { $0 } })
        running.ended.signal()
      }
    }

    func end() {
      stops.withLock { $0 = true }
      // Something has to happen for it to look.
      close(Client(port).connected())
      ended.wait()
    }
  }

  private func serving(
    _ change: (inout Server.Limits) -> Void = { _ in }, _ body: (Client) throws -> Void
  ) throws {
    let server = try Running(change)
    defer { server.end() }
    try body(Client(server.port))
  }

  private func seconds(_ body: () throws -> Void) rethrows -> Double {
    try ContinuousClock().measure(body) / .seconds(1)
  }

  private let close1 = "Host: a\r\nConnection: close\r\n"

  @Test func answers() throws {
    try serving { client in
      let now = client.exchange("GET /now HTTP/1.1\r\n\(close1)\r\n")
      #expect(now.hasPrefix("HTTP/1.1 200 OK\r\n") && now.hasSuffix("\r\n\r\nnow"))
      #expect(now.contains("Content-Length: 3\r\n") && now.contains("Connection: close\r\n"))
      let head = client.exchange("HEAD /now HTTP/1.1\r\n\(close1)\r\n")
      #expect(head == now.dropLast(3))
      let echo = client.exchange("POST / HTTP/1.1\r\n\(close1)Content-Length: 5\r\n\r\nhello")
      #expect(echo.hasSuffix("\r\n\r\nhello"))
      let old = client.exchange("GET /now HTTP/1.0\r\n\r\n")
      #expect(old.hasSuffix("now") && old.contains("Connection: close"))
    }
  }

  /// Requests that follow each other on one connection, also before the answer to the one before is
  /// there, are answered in order.
  @Test func oneConnection() throws {
    try serving { client in
      let socket = client.connected()
      defer { close(socket) }
      for i in 0..<3 {
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nq\(i)", on: socket)
        let answer = client.receive(on: socket, until: "q\(i)")
        #expect(answer.hasSuffix("q\(i)") && answer.contains("Connection: keep-alive"))
      }
      let many = 2000
      let questions = (0..<many).map { i in
        i % 2 == 0
          ? "GET /now HTTP/1.1\r\nHost: a\r\n\r\n"
          : "POST /\(i == 1 ? "slow" : "") HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\n<\(1000 + i)>"
      }
      let sender = Thread { [client] in
        client.send(
          questions.joined() + "GET /now HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
          on: socket)
      }
      sender.start()
      let text = client.receive(on: socket)
      #expect(text.matches(of: /HTTP\/1.1 200/).count == many + 1)
      let order = text.matches(of: /<(\d+)>/).map { Int($0.1)! }
      #expect(order == stride(from: 1001, to: 1000 + many, by: 2).map { $0 })
    }
  }

  /// Whoever never ends a head is told so and let go; whoever says nothing is let go.
  @Test func slowHeads() throws {
    try serving({
      $0.head = .milliseconds(400); $0.idle = .milliseconds(900)
    }) { client in
      let socket = client.connected()
      defer { close(socket) }
      // A byte now and then doesn't help.
      let drip = Thread {
        for byte in "GET /now HTTP/1.1\r\nHost: a" {
          client.send(String(byte), on: socket)
          usleep(60_000)
        }
      }
      drip.start()
      var answer = ""
      let time = seconds { answer = client.receive(on: socket) }
      #expect(answer.hasPrefix("HTTP/1.1 408") && time > 0.3 && time < 5, "\(time): \(answer)")
      // The same on a connection that was of use before.
      let second = client.connected()
      defer { close(second) }
      client.send("GET /now HTTP/1.1\r\nHost: a\r\n\r\nGET", on: second)
      #expect(
        client.receive(on: second).components(separatedBy: "HTTP/1.1 ").map { $0.prefix(3) } == [
          "", "200", "408",
        ])
      let silent = client.connected()
      defer { close(silent) }
      let wait = seconds { answer = client.receive(on: silent) }
      #expect(answer.isEmpty && wait > 0.5 && wait < 5)
    }
  }

  @Test func slowBodiesAndReaders() throws {
    try serving({
      $0.body = .milliseconds(300); $0.answer = .milliseconds(300)
    }) { client in
      let answer = client.exchange("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhel")
      #expect(answer.hasPrefix("HTTP/1.1 408"))
      // An answer that nobody takes doesn't stay.
      let socket = client.connected()
      defer { close(socket) }
      client.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\n", on: socket)
      usleep(600_000)
      #expect(client.exchange("GET /now HTTP/1.1\r\n\(close1)\r\n").hasSuffix("now"))
      #expect(client.receive(on: socket).utf8.count < 64 << 20)
    }
  }

  /// However many say nothing: who asks is answered.
  @Test func crowds() throws {
    try serving({ $0.connections = 8 }) { client in
      let silent = (0..<100).map { _ in client.connected() }
      defer { silent.forEach { close($0) } }
      for _ in 0..<5 {
        #expect(client.exchange("GET /now HTTP/1.1\r\n\(close1)\r\n").hasSuffix("now"))
      }
      // Not at the cost of who is being answered.
      let asking = client.connected()
      defer { close(asking) }
      client.send("POST /slow HTTP/1.1\r\n\(close1)Content-Length: 2\r\n\r\nhi", on: asking)
      usleep(50_000)
      let more = (0..<50).map { _ in client.connected() }
      defer { more.forEach { close($0) } }
      #expect(client.receive(on: asking).hasSuffix("hi"))
    }
  }

  /// What is refused is refused at once, and the answer arrives though much more was being sent.
  @Test func refusedEarly() throws {
    try serving { client in
      let much = String(repeating: "a", count: 1 << 20)
      for (text, status) in [
        ("GET /\(much) HTTP/1.1\r\n", 414), ("GET / HTTP/1.1\r\nX: \(much)\r\n", 431),
        (much, 414), ("GET / HTTP/1.1\r\n\(String(repeating: "a: b\r\n", count: 200_000))", 431),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1048576\r\n\r\n\(much)", 413),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n\(much)", 413),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\(much)", 411),
        (
          "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n\(much)", 400
        ),
      ] {
        var answer = ""
        let time = seconds { answer = client.exchange(text) }
        #expect(answer.hasPrefix("HTTP/1.1 \(status)"), "\(text.prefix(60)): \(answer)")
        #expect(answer.contains("Connection: close") && time < 5, "\(time)")
      }
      // What is behind a refused request isn't another one.
      let hidden = client.exchange(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2000\r\n\r\nGET /now HTTP/1.1\r\nHost: a\r\n\r\n"
      )
      #expect(hidden.hasPrefix("HTTP/1.1 413") && !hidden.hasSuffix("now"))
    }
  }

  @Test func bodiesTogether() throws {
    try serving({ $0.bodies = 2500 }) { client in
      let waiting = (0..<2).map { _ in client.connected() }
      defer { waiting.forEach { close($0) } }
      for socket in waiting {
        client.send(
          "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\nExpect: 100-continue\r\n\r\n",
          on: socket)
        #expect(client.receive(on: socket, until: "\r\n\r\n") == "HTTP/1.1 100 Continue\r\n\r\n")
      }
      let body = String(repeating: "b", count: 1000)
      let question = "POST / HTTP/1.1\r\n\(close1)Content-Length: 1000\r\n\r\n\(body)"
      #expect(client.exchange(question).hasPrefix("HTTP/1.1 503"))
      client.send(body, on: waiting[0])
      #expect(client.receive(on: waiting[0], until: body).hasSuffix(body))
      #expect(client.exchange(question).hasSuffix(body))
    }
  }

  /// Clients that leave in the middle of anything.
  @Test func gone() throws {
    try serving { client in
      for text in [
        "", "GET", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n12",
        "POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi",
        "GET /large HTTP/1.1\r\nHost: a\r\n\r\n",
      ] {
        for resets in [false, true] {
          let socket = client.connected()
          client.send(text, on: socket)
          usleep(20_000)
          var linger = Foundation.linger(l_onoff: resets ? 1 : 0, l_linger: 0)
          setsockopt(
            socket, SOL_SOCKET, SO_LINGER, &linger, socklen_t(MemoryLayout<Foundation.linger>.size))
          close(socket)
        }
      }
      // One that only doesn't send any more gets its answer.
      let half = client.connected()
      defer { close(half) }
      client.send("POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi", on: half)
      shutdown(half, Int32(SHUT_WR))
      #expect(client.receive(on: half).hasSuffix("hi"))
    }
  }
}
