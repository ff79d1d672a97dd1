import Foundation
import Testing

import StrideNet
@testable import Web

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
