import Foundation
import StrideNetCore

/// The system's calls, each of them once. Descriptors are non-blocking and closed by `exec`.
enum Sockets {
  static func error(_ what: String, _ number: Int32) -> StrideNetError {
    StrideNetError(.service, what, found: String(cString: strerror(number)))
  }

  private static func prepare(_ descriptor: Int32) {
    _ = fcntl(descriptor, F_SETFL, fcntl(descriptor, F_GETFL) | O_NONBLOCK)
    _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC)
  }

  private static func set(_ socket: Int32, _ level: Int32, _ option: Int32) {
    var on: Int32 = 1
    setsockopt(socket, level, option, &on, socklen_t(MemoryLayout<Int32>.size))
  }

  /// The number of an IPv4 address in dotted form, of four decimal numbers; nil for all else.
  static func ipv4(_ text: some StringProtocol) -> UInt32? {
    var address = in_addr()
    return inet_pton(AF_INET, String(text), &address) == 1 ? UInt32(bigEndian: address.s_addr) : nil
  }

  /// A socket that listens.
  static func listen(_ host: String, _ port: UInt16) throws -> Int32 {
    guard let number = ipv4(host) else {
      throw StrideNetError(
        .usage, "no address to listen on", found: "'\(host)'",
        expected: "an IPv4 address of this machine: 127.0.0.1, 0.0.0.0")
    }
    #if canImport(Glibc)
      let listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    #else
      let listener = socket(AF_INET, SOCK_STREAM, 0)
    #endif
    guard listener >= 0 else { throw error("cannot listen", errno) }
    prepare(listener)
    set(listener, SOL_SOCKET, SO_REUSEADDR)
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_port = port.bigEndian
    address.sin_addr.s_addr = number.bigEndian
    let bound = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        bind(listener, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
      }
    }
    guard bound == 0, Foundation.listen(listener, SOMAXCONN) == 0 else {
      let reason = String(cString: strerror(errno))
      close(listener)
      throw StrideNetError(
        .service, "cannot listen", at: "\(host), port \(port)", found: reason,
        hint: "another program may be listening there; --port 0 takes a free one")
    }
    return listener
  }

  /// Where a socket listens.
  static func port(_ listener: Int32) -> UInt16 {
    var (address, size) = (sockaddr_in(), socklen_t(MemoryLayout<sockaddr_in>.size))
    withUnsafeMutablePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { _ = getsockname(listener, $0, &size) }
    }
    return UInt16(bigEndian: address.sin_port)
  }

  /// The next connection, or -1 with `errno` set.
  static func accept(_ listener: Int32) -> Int32 {
    let socket = Foundation.accept(listener, nil, nil)
    guard socket >= 0 else { return -1 }
    prepare(socket)
    // The kernel would hold back what follows an answer's head until the other side has acknowledged
    // that, 40 ms later.
    set(socket, Int32(IPPROTO_TCP), TCP_NODELAY)
    return socket
  }

  /// Two ends of a pipe: what is written to the second comes out of the first.
  static func pipe() throws -> (Int32, Int32) {
    var ends: [Int32] = [0, 0]
    guard Foundation.pipe(&ends) == 0 else { throw error("cannot serve", errno) }
    ends.forEach(prepare)
    return (ends[0], ends[1])
  }
}
