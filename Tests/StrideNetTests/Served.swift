import Foundation
import Testing

import StrideNet

/// `stridenet serve` at work, on a port that was free.
final class Served {
  let place: Workplace
  let process: Workplace.Running
  let port: UInt16

  init(
    _ arguments: [String] = ["--data", "sample"], shell: [String]? = nil,
    prepare: (Workplace) throws -> Void = { _ in }
  ) throws {
    place = try Workplace()
    try prepare(place)
    process = try Workplace.Running(
      ["serve", "--port", "0"] + arguments, shell: shell, environment: [:], in: place.path)
    try process.wait(for: "(Ctrl-C ends it)")
    let match = try #require(process.out.firstMatch(of: /127\.0\.0\.1:(\d+)\//))
    port = try #require(UInt16(match.1))
  }

  deinit { process.send(SIGKILL) }

  /// With patience: a debug build takes its time, and more on a busy machine.
  func exchange(_ bytes: [UInt8]) -> String { Client(port, patience: 120).exchange(bytes) }
  func connected() -> Int32 { Client(port).connected() }

  func get(_ path: String, _ headers: String = "", method: String = "GET", body: String = "")
    -> String
  {
    exchange(
      Array(
        "\(method) \(path) HTTP/1.1\r\nHost: 127.0.0.1:\(port)\r\nConnection: close\r\n\(headers)\r\n\(body)"
          .utf8))
  }

  func ask(_ name: String, _ question: String = "{}") -> (code: Int, answer: Any?) {
    let text = get(
      "/api/\(name)",
      "Content-Type: application/json\r\nContent-Length: \(question.utf8.count)\r\n",
      method: "POST", body: question)
    let parts = text.components(separatedBy: "\r\n\r\n")
    let code = Int(text.dropFirst(9).prefix(3)) ?? 0
    let json =
      parts.count > 1 ? try? JSONSerialization.jsonObject(with: Data(parts[1].utf8)) : nil
    return (code, json)
  }

  func fields(_ name: String, _ question: String = "{}") -> [String: Any] {
    ask(name, question).answer as? [String: Any] ?? [:]
  }
}
