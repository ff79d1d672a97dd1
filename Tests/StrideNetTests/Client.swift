import Foundation

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
