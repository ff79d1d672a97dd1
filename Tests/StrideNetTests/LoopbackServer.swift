import Foundation
import Synchronization

/// A web server on 127.0.0.1 for tests: one thread, one request per connection.
final class LoopbackServer: Sendable {
  struct Request: Sendable {
    var path: String
    /// Names in lower case.
    var headers: [String: String]

    /// The N of "Range: bytes=N-".
    var rangeStart: Int? {
      headers["range"].flatMap { Int($0.dropFirst("bytes=".count).dropLast()) }
    }
  }

  struct Response: Sendable {
    var status = 200
    var headers: [String: String] = [:]
    var body: [UInt8] = []
    /// Close the connection after so many bytes of the body.
    var cutAfter: Int?
    /// Instead of all that: sends what it likes, until told that nobody listens any more.
    var misbehaving: (@Sendable (_ send: ([UInt8]) -> Bool) -> Void)?
  }

  let port: UInt16
  var url: String { "http://127.0.0.1:\(port)/" }
  var requests: [Request] { log.withLock { $0 } }

  private let listener: Int32
  private let log = Mutex<[Request]>([])

  init(_ answer: @escaping @Sendable (Request) -> Response) {
    (listener, port) = Self.listen()
    Thread.detachNewThread { [listener, weak self] in
      while true {
        let connection = accept(listener, nil, nil)
        if connection < 0 { break }
        if let request = Self.request(from: connection) {
          self?.log.withLock { $0.append(request) }
          Self.send(answer(request), to: connection)
        }
        close(connection)
      }
      close(listener)
    }
  }

  /// Wakes the thread out of `accept`.
  deinit { shutdown(listener, Int32(SHUT_RDWR)) }

  /// A port that nobody listens to.
  static func refusedPort() -> UInt16 {
    let (listener, port) = listen()
    close(listener)
    return port
  }

  private static func listen() -> (Int32, UInt16) {
    #if canImport(Glibc)
      let listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    #else
      let listener = socket(AF_INET, SOCK_STREAM, 0)
    #endif
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
    var size = socklen_t(MemoryLayout<sockaddr_in>.size)
    withUnsafeMutablePointer(to: &address) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        precondition(bind(listener, $0, size) == 0 && Foundation.listen(listener, 16) == 0)
        precondition(getsockname(listener, $0, &size) == 0)
      }
    }
    return (listener, UInt16(bigEndian: address.sin_port))
  }

  private static func request(from connection: Int32) -> Request? {
    var bytes: [UInt8] = []
    while !bytes.suffix(4).elementsEqual([13, 10, 13, 10]) {
      var byte: UInt8 = 0
      if read(connection, &byte, 1) != 1 { return nil }
      bytes.append(byte)
    }
    let lines = String(decoding: bytes, as: UTF8.self).components(separatedBy: "\r\n")
    let pairs = lines.dropFirst().compactMap { line -> (String, String)? in
      guard let colon = line.firstIndex(of: ":") else { return nil }
      let value = line[line.index(after: colon)...].trimmingCharacters(in: .whitespaces)
      return (line[..<colon].lowercased(), value)
    }
    return Request(
      path: lines[0].components(separatedBy: " ")[1],
      headers: Dictionary(pairs) { $1 })
  }

  private static func send(_ response: Response, to connection: Int32) {
    func send(_ bytes: [UInt8]) -> Bool {
      var sent = 0
      while sent < bytes.count {
        // MSG_NOSIGNAL: a client that has gone must not end the tests.
        let count = bytes[sent...].withUnsafeBytes {
          Foundation.send(connection, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
        }
        if count <= 0 { return false }
        sent += count
      }
      return true
    }
    if let misbehaving = response.misbehaving {
      misbehaving(send)
    } else {
      var headers = ["Content-Length": "\(response.body.count)", "Connection": "close"]
      headers.merge(response.headers) { $1 }
      let head =
        "HTTP/1.1 \(response.status) Status\r\n"
        + headers.map { "\($0): \($1)\r\n" }.joined() + "\r\n"
      _ = send(Array(head.utf8) + response.body.prefix(response.cutAfter ?? .max))
    }
    shutdown(connection, Int32(SHUT_WR))
  }
}
