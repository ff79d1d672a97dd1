import Foundation
import Synchronization
import Testing

import StrideNet
@testable import Web

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
