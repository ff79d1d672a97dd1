import ArgumentParser
import FlyingFox
import FlyingSocks
import Foundation
import Pages
import StrideNet
import Synchronization

struct Serve: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Serves a page where one draws a digit and watches it pass through a network.",
    discussion: """
      The page needs nothing but this program: no network, no other file. It is served to this \
      machine alone unless --host says otherwise.
      """)

  @Argument(
    help: ArgumentHelp(
      "A file that train --save wrote. Without it: the small trained network that is in the package.",
      valueName: "file"))
  var file: String?

  @OptionGroup var dataOptions: DataOptions

  @Option(parsing: .unconditional, help: "Where to listen; 0 takes a port that is free.")
  var port = 8080

  @Option(
    help: "The address to listen on. With 0.0.0.0 every machine that reaches this one may look.")
  var host = "127.0.0.1"

  @Option(parsing: .unconditional, help: "Threads that train; as many as there are processors.")
  var threads: Int?

  func run() async throws {
    guard (0...65_535).contains(port) else {
      throw StrideNetError(
        .usage, "--port out of range", found: "\(port)", expected: "0 … 65535")
    }
    let threads = threads ?? ProcessInfo.processInfo.activeProcessorCount
    guard (1...1024).contains(threads) else {
      throw StrideNetError(
        .usage, "--threads out of range", found: "\(threads)", expected: "1 … 1024")
    }
    let network =
      try file.map { try Network.load(from: $0, runtime: Runtime(threads: 1)) }
      ?? .digits(runtime: Runtime(threads: 1))
    let data = try dataOptions.load()
    let shape = data.train.shape
    guard network.input == shape else {
      throw StrideNetError(
        .badData, "the data's images have another size than the network's", at: data.source,
        found: "\(shape)", expected: "\(network.input!)", hint: "--data names another set")
    }
    // A client that goes away mustn't end the program.
    signal(SIGPIPE, SIG_IGN)
    let address: sockaddr_in
    do {
      address = try sockaddr_in.inet(ip4: host, port: UInt16(port))
    } catch {
      throw StrideNetError(
        .usage, "no address to listen on", found: "'\(host)'",
        expected: "an IPv4 address of this machine: 127.0.0.1, 0.0.0.0")
    }
    let text = Architecture.text(network.layers)
    let site = Site(
      machine: Machine(text, network.snapshot(), data, threads: threads),
      isLocal: host.hasPrefix("127."))
    let server = HTTPServer(
      address: address, timeout: 60, pool: PatientPool(), logger: .disabled, handler: site)
    let failure = Mutex<(any Error)?>(nil)
    let running = Task {
      do {
        try await server.run()
      } catch {
        failure.withLock { $0 = error }
      }
    }
    while await !server.isListening {
      try await Task.sleep(for: .milliseconds(5))
      if let error = failure.withLock({ $0 }) {
        var reason = "\(error)"
        if case SocketError.failed(_, _, let message) = error { reason = message }
        throw StrideNetError(
          .service, "cannot listen", at: "\(host), port \(port)", found: reason,
          hint: "another program may be listening there; --port 0 takes a free one")
      }
    }
    guard case .ip4(_, let bound) = await server.listeningAddress else {
      throw StrideNetError(.internalError, "a server without an address")
    }
    try Output.line(
      """
      network  \(text), \(network.parameterCount.grouped) parameters
      data     \(data.source)
      page     http://\(host == "0.0.0.0" ? "127.0.0.1" : host):\(bound)/   (Ctrl-C ends it)
      """)
    await running.value
    if let error = failure.withLock({ $0 }) { throw error }
  }
}

/// What is answered: the page, and questions in JSON.
struct Site: HTTPHandler {
  let machine: Machine
  /// Reached from this machine alone: then no name but its own is right.
  let isLocal: Bool
  private let page = Data(Page.text(page_serve).utf8)

  /// Questions are drawings; nothing that is asked is larger.
  private static let largest = 2 << 20

  init(machine: Machine, isLocal: Bool) {
    (self.machine, self.isLocal) = (machine, isLocal)
  }

  func handleRequest(_ request: HTTPRequest) async throws -> HTTPResponse {
    if let refusal = refusal(request) {
      // What follows would otherwise be read as the next request.
      if request.headers[.contentLength].flatMap(Int.init) ?? 0 <= 64 << 20 {
        for try await _ in request.bodySequence {}
      }
      return refusal
    }
    if request.path == "/" { return response(.ok, "text/html; charset=utf-8", page) }
    guard request.path.hasPrefix("/api/") else { return error(.notFound, "no such page") }
    do {
      let body = try await request.bodyData
      guard body.count <= Self.largest else { return tooLarge }
      guard let answer = try await answer(String(request.path.dropFirst(5)), body) else {
        return error(.notFound, "no such question")
      }
      return response(.ok, "application/json", answer)
    } catch let error as StrideNetError {
      return self.error(.badRequest, error.what, error)
    } catch is DecodingError {
      return error(.badRequest, "a question that can't be read")
    } catch is EncodingError {
      return error(.badRequest, "numbers that aren't finite")
    }
  }

  private func answer(_ name: String, _ body: Data) async throws -> Data? {
    func question<T: Decodable>(_: T.Type = T.self) throws -> T {
      try JSONDecoder().decode(T.self, from: body)
    }
    func text(_ answer: some Encodable) throws -> Data { try JSONEncoder().encode(answer) }
    switch name {
    case "state": return try await text(machine.state())
    case "look": return try await text(machine.look(question()))
    case "provenance": return try await text(machine.provenance(question()))
    case "nearest": return try await text(machine.nearest(question()))
    case "wrong": return try await text(machine.wrong())
    case "training": return try await text(machine.training(question()))
    case "train":
      try await machine.train(question())
      return try await text(machine.training(Machine.Since()))
    case "stop":
      await machine.stop()
      return try await text(machine.training(Machine.Since()))
    case "reset":
      await machine.reset()
      return try await text(machine.state())
    default: return nil
    }
  }

  /// What is wrong with a request before anybody reads what it asks.
  private func refusal(_ request: HTTPRequest) -> HTTPResponse? {
    let isQuestion = request.path.hasPrefix("/api/")
    let method: HTTPMethod = isQuestion ? .POST : .GET
    guard request.method == method else {
      var refused = error(.methodNotAllowed, "a page is got, a question posted")
      refused.headers[HTTPHeader("Allow")] = method.rawValue
      return refused
    }
    // A page from elsewhere, or under another name for this machine, isn't to ask anything.
    let host = request.headers[.host] ?? ""
    let name = host.split(separator: ":").first.map(String.init) ?? ""
    guard !isLocal || ["localhost", "127.0.0.1"].contains(name) || name.hasPrefix("127.") else {
      return error(.forbidden, "this page is for its own machine")
    }
    if let origin = request.headers[HTTPHeader("Origin")], origin != "http://\(host)" {
      return error(.forbidden, "a question from another page")
    }
    guard isQuestion else { return nil }
    guard request.headers[.contentType]?.hasPrefix("application/json") == true else {
      return error(.unsupportedMediaType, "a question is JSON")
    }
    guard let length = request.headers[.contentLength].flatMap(Int.init) else {
      return error(HTTPStatusCode(411, phrase: "Length Required"), "a question without its length")
    }
    return length <= Self.largest ? nil : tooLarge
  }

  private var tooLarge: HTTPResponse {
    error(
      HTTPStatusCode(413, phrase: "Content Too Large"),
      "a question of more than \(Self.largest >> 20) MB")
  }

  private struct Failure: Encodable {
    let error: String
    var found, expected, hint: String?
  }

  private func error(_ code: HTTPStatusCode, _ what: String, _ error: StrideNetError? = nil)
    -> HTTPResponse
  {
    let failure = Failure(
      error: what, found: error?.found, expected: error?.expected, hint: error?.hint)
    return response(code, "application/json", (try? JSONEncoder().encode(failure)) ?? Data())
  }

  private func response(_ code: HTTPStatusCode, _ type: String, _ body: Data) -> HTTPResponse {
    HTTPResponse(
      statusCode: code,
      headers: [
        .contentType: type,
        HTTPHeader("Cache-Control"): "no-store",
        HTTPHeader("X-Content-Type-Options"): "nosniff",
        HTTPHeader("Referrer-Policy"): "no-referrer",
        HTTPHeader("Content-Security-Policy"):
          "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:; frame-ancestors 'none'",
      ],
      body: body)
  }
}

/// Waits for sockets as FlyingFox does, but not for ever: who says nothing for a minute is gone. And
/// answers leave at once; the kernel would hold back what follows a response's header until the other
/// side has acknowledged that, 40 ms later.
struct PatientPool: AsyncSocketPool {
  private let pool: any AsyncSocketPool = HTTPServer.defaultPool()
  private static let patience = Duration.seconds(60)

  func prepare() async throws { try await pool.prepare() }
  func run() async throws { try await pool.run() }

  func suspendSocket(_ socket: Socket, untilReadyFor events: Socket.Events) async throws {
    var (isListening, size) = (Int32(0), socklen_t(MemoryLayout<Int32>.size))
    getsockopt(socket.file.rawValue, SOL_SOCKET, SO_ACCEPTCONN, &isListening, &size)
    if isListening != 0 {
      // Those that it accepts inherit this.
      var on: Int32 = 1
      setsockopt(socket.file.rawValue, Int32(IPPROTO_TCP), TCP_NODELAY, &on, size)
      return try await pool.suspendSocket(socket, untilReadyFor: events)
    }
    try await withThrowingTaskGroup(of: Void.self) { group in
      group.addTask { try await pool.suspendSocket(socket, untilReadyFor: events) }
      group.addTask {
        try await Task.sleep(for: Self.patience)
        throw SocketError.disconnected
      }
      defer { group.cancelAll() }
      try await group.next()
    }
  }
}
