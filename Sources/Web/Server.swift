import Foundation
import Synchronization

/// What a server answers.
package protocol Service: Sendable {
  /// What needs no more than the head: refusals too, which are to be known before a body is sent. Nil
  /// for a question, whose answer takes time or a body.
  func begin(_ request: Request) -> Response?
  /// One question at a time, on a thread of its own.
  /// - Parameter held: the bytes of all bodies and answers that are under way
  func answer(_ request: Request, _ body: [UInt8], held: Int) -> Response
}

/// A small server of HTTP/1.1 that nobody can keep from serving others: one thread does all that sends
/// and receives, a second one answers. Whatever a client sends is bounded in bytes and in time, and when
/// connections run out, whoever has been waited for the longest makes room.
///
/// What isn't here: bodies in pieces (411), encryption, names of hosts.
package final class Server {
  package struct Limits: Sendable {
    /// Bytes of a line without its end, and of all header lines.
    package var line = 8 << 10
    package var header = 32 << 10
    /// Bytes of all bodies that are under way.
    package var bodies = 64 << 20
    package var connections = 256
    /// From a head's first byte to its end; the same for a body and an answer.
    package var head = Duration.seconds(10)
    package var body = Duration.seconds(30)
    package var answer = Duration.seconds(60)
    /// Between two requests.
    package var idle = Duration.seconds(60)
    /// For the rest of what was refused: closed at once, the connection would take the answer with it.
    package var rest = Duration.seconds(2)

    package init() {}
  }

  /// A connection, and what it is waited for.
  private final class Connection {
    enum Phase {
      case head
      case body(Request)
      case asked(Request)
      /// `closes`: no other request may follow.
      case answer(closes: Bool)
      case rest
    }
    let socket: Int32
    let number: Int
    private(set) var phase = Phase.head
    private(set) var since = ContinuousClock.now
    private(set) var deadline: ContinuousClock.Instant?
    var reader: RequestReader
    var input: ArraySlice<UInt8> = []
    var body: [UInt8] = []
    /// The answer's head and its body, and how much of both was sent.
    var output: (head: [UInt8], body: Data) = ([], Data())
    var sent = 0

    init(_ socket: Int32, _ number: Int, _ limits: Limits) {
      (self.socket, self.number) = (socket, number)
      reader = RequestReader(longestLine: limits.line, largestHeader: limits.header)
      deadline = since + limits.idle
    }

    func enter(_ phase: Phase, for time: Duration?) {
      (self.phase, since) = (phase, .now)
      deadline = time.map { since + $0 }
    }

    var isAsked: Bool { if case .asked = phase { true } else { false } }
    var isAnswering: Bool { if case .answer = phase { true } else { false } }
    /// Of a question's body: all of it from its begin.
    var bodyBytes: Int {
      switch phase {
      case .body(let request), .asked(let request): request.bodyLength
      default: 0
      }
    }
    /// What it keeps in memory besides a few kilobytes.
    var held: Int { bodyBytes + output.body.count }
  }

  package let address: String
  package let port: UInt16
  private let limits: Limits
  private let service: any Service
  private let log: (String) -> Void
  private let listener: Int32
  private let worker: Worker
  private var connections: [Connection] = []
  private var count = 0
  // When connections are accepted again, after there was no room for one and nobody to leave.
  private var rests: ContinuousClock.Instant?
  private var hasComplained = false
  private let chunk = UnsafeMutableRawBufferPointer.allocate(byteCount: 64 << 10, alignment: 16)

  /// - Parameters:
  ///   - address: an IPv4 address of this machine
  ///   - port: 0 takes one that is free
  ///   - log: told what went wrong and doesn't end the server
  /// - Throws: ``StrideNetError`` if nothing can be listened to there
  package init(
    address: String, port: UInt16, limits: Limits = Limits(), service: any Service,
    log: @escaping (String) -> Void
  ) throws {
    (self.address, self.limits, self.service, self.log) = (address, limits, service, log)
    listener = try Sockets.listen(address, port)
    self.port = Sockets.port(listener)
    do {
      worker = try Worker(service)
    } catch {
      close(listener)
      chunk.deallocate()
      throw error
    }
  }

  deinit {
    for connection in connections { close(connection.socket) }
    close(listener)
    worker.stop()
    chunk.deallocate()
  }

  // MARK: The loop

  /// Serves until ``shouldStop`` says otherwise; asked whenever something has happened.
  package func run(until shouldStop: () -> Bool = { false }) throws {
    while !shouldStop() {
      let now = ContinuousClock.now
      if let end = rests, end <= now { rests = nil }
      var polled = [
        pollfd(fd: worker.bell, events: Int16(POLLIN), revents: 0),
        pollfd(fd: rests == nil ? listener : -1, events: Int16(POLLIN), revents: 0),
      ]
      for connection in connections {
        let events: Int32 =
          switch connection.phase {
          case .head, .body, .rest: Int32(POLLIN)
          case .answer: Int32(POLLOUT)
          case .asked: 0  // what it sends besides waits in the kernel
          }
        polled.append(pollfd(fd: connection.socket, events: Int16(events), revents: 0))
      }
      worker.held.store(connections.reduce(0) { $0 + $1.held }, ordering: .relaxed)
      let next = (connections.compactMap(\.deadline) + [rests].compactMap { $0 }).min()
      // A millisecond more, so that what was waited for has come.
      let wait = next.map { Int32(min(60_000, max(0, ($0 - now) / .milliseconds(1) + 1))) }
      if poll(&polled, nfds_t(polled.count), wait ?? -1) < 0 {
        guard errno == EINTR || errno == ENOMEM else { throw Sockets.error("cannot wait", errno) }
        continue
      }
      for (connection, polled) in zip(connections, polled[2...]) where polled.revents != 0 {
        if connection.isAsked {
          drop(connection)  // nobody is there to hear it
        } else if connection.isAnswering {
          advance(connection)
        } else {
          receive(connection)
        }
      }
      if polled[0].revents != 0 { takeAnswers() }
      let later = ContinuousClock.now
      for connection in connections where connection.deadline.map({ $0 <= later }) ?? false {
        expire(connection)
      }
      if polled[1].revents != 0 { try accept() }
    }
  }

  private func drop(_ connection: Connection) {
    close(connection.socket)
    worker.forget(connection.number)
    connections.removeAll { $0 === connection }
  }

  private func expire(_ connection: Connection) {
    switch connection.phase {
    case .head where connection.reader.hasBegun, .body:
      refuse(connection, Request.Refusal(408, "a request that doesn't end"))
      advance(connection)
    default: drop(connection)
    }
  }

  // MARK: Connections

  private func accept() throws {
    // Those who come at once; whoever is left is there at the next turn.
    for _ in 0..<64 {
      guard connections.count < limits.connections || connections.contains(where: { !$0.isAsked })
      else { return rest() }
      let socket = Sockets.accept(listener)
      if socket >= 0 {
        count += 1
        connections.append(Connection(socket, count, limits))
        if connections.count > limits.connections { makeRoom() }
        continue
      }
      switch errno {
      case EAGAIN, EWOULDBLOCK: return
      case EMFILE, ENFILE, ENOBUFS, ENOMEM:
        if !hasComplained {
          hasComplained = true
          let reason = String(cString: strerror(errno))
          log("no room for another connection: \(reason); from now on the oldest makes room")
        }
        guard makeRoom() else { return rest() }
      case EBADF, EINVAL, ENOTSOCK, EOPNOTSUPP, EFAULT:
        throw Sockets.error("cannot accept connections", errno)
      default: continue  // that one is gone already
      }
    }
  }

  /// Lets those who come wait a little, where nobody can leave for them.
  private func rest() { rests = .now + .milliseconds(100) }

  /// Closes the connection whose client has been waited for the longest; false if there is none.
  @discardableResult private func makeRoom() -> Bool {
    let waiting = connections.filter { !$0.isAsked }
    guard let oldest = waiting.min(by: { $0.since < $1.since }) else { return false }
    drop(oldest)
    return true
  }

  private func receive(_ connection: Connection) {
    let got = recv(connection.socket, chunk.baseAddress, chunk.count, 0)
    guard got > 0 else {
      if got < 0 && [EAGAIN, EWOULDBLOCK, EINTR].contains(errno) { return }
      return drop(connection)
    }
    if case .rest = connection.phase { return }
    connection.input += chunk[..<got]
    advance(connection)
  }

  /// Goes on as far as what was received and what can be sent allow.
  private func advance(_ connection: Connection) {
    while true {
      switch connection.phase {
      case .head:
        do throws(Request.Refusal) {
          guard try readHead(connection) else { return }
        } catch {
          refuse(connection, error)
        }
      case .body(let request):
        let part = connection.input.prefix(request.bodyLength - connection.body.count)
        connection.body += part
        connection.input = connection.input.dropFirst(part.count)
        guard connection.body.count == request.bodyLength else { return }
        connection.enter(.asked(request), for: nil)
        worker.ask(connection.number, request, connection.body)
      case .answer(let closes):
        guard send(connection) else { return }
        if closes {
          // What follows isn't read as a request.
          shutdown(connection.socket, Int32(SHUT_WR))
          connection.input = []
          connection.enter(.rest, for: limits.rest)
        } else {
          connection.enter(.head, for: limits.idle)
        }
      case .asked, .rest: return
      }
    }
  }

  /// False if the head isn't complete.
  private func readHead(_ connection: Connection) throws(Request.Refusal) -> Bool {
    let hadBegun = connection.reader.hasBegun
    guard let request = try connection.reader.read(&connection.input) else {
      if !hadBegun && connection.reader.hasBegun { connection.enter(.head, for: limits.head) }
      return false
    }
    connection.reader = RequestReader(longestLine: limits.line, largestHeader: limits.header)
    let length = request.bodyLength
    if let response = service.begin(request) {
      answer(
        connection, response, to: request,
        closes: response.status >= 400 || length > 0 || !request.keepsConnection)
      return true
    }
    guard length <= limits.bodies - connections.reduce(0, { $0 + $1.bodyBytes }) else {
      throw Request.Refusal(503, "too many questions at a time")
    }
    connection.body.reserveCapacity(length)
    connection.enter(.body(request), for: limits.body)
    if request.waitsForConsent && connection.input.isEmpty {
      // So short that it always fits.
      _ = "HTTP/1.1 100 Continue\r\n\r\n".withCString {
        Foundation.send(connection.socket, $0, strlen($0), Int32(MSG_NOSIGNAL))
      }
    }
    return true
  }

  // MARK: Answers

  private func takeAnswers() {
    for (number, response) in worker.takeAnswers() {
      guard let connection = connections.first(where: { $0.number == number }),
        case .asked(let request) = connection.phase
      else { continue }
      answer(connection, response, to: request, closes: !request.keepsConnection)
      advance(connection)
    }
  }

  private func refuse(_ connection: Connection, _ refusal: Request.Refusal) {
    answer(connection, Response(refusal), to: nil, closes: true)
  }

  private func answer(
    _ connection: Connection, _ response: Response, to request: Request?, closes: Bool
  ) {
    connection.output = (
      response.head(closing: closes), request?.method == "HEAD" ? Data() : response.body
    )
    (connection.sent, connection.body) = (0, [])
    connection.enter(.answer(closes: closes), for: limits.answer)
  }

  /// False if not everything was sent yet, or never will be.
  private func send(_ connection: Connection) -> Bool {
    let (head, body) = connection.output
    while connection.sent < head.count + body.count {
      let start = connection.sent
      func send(_ bytes: UnsafeRawBufferPointer, from start: Int) -> Int {
        Foundation.send(
          connection.socket, bytes.baseAddress! + start, bytes.count - start, Int32(MSG_NOSIGNAL))
      }
      let count =
        start < head.count
        ? head.withUnsafeBytes { send($0, from: start) }
        : body.withUnsafeBytes { send($0, from: start - head.count) }
      if count < 0 {
        if errno == EINTR { continue }
        if errno != EAGAIN && errno != EWOULDBLOCK { drop(connection) }
        return false
      }
      connection.sent += count
    }
    connection.output = ([], Data())
    return true
  }
}
