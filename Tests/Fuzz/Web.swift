import Foundation
import StrideNet
@testable import StrideNetCore
@testable import StrideNetFiles
@testable import StrideNetLaboratory
@testable import Web

/// What `serve` is sent: a request's head, in pieces, and its body as the page's questions.
extension Reader {
  static let http = Reader(
    name: "http",
    seeds: {
      let questions = [
        ("state", "{}"), ("wrong", "{}"), ("training", #"{"since":0}"#), ("stop", "{}"),
        ("look", #"{"input":{"test":1},"kernels":"naive","paths":true,"toward":1}"#),
        ("look", #"{"input":{"drawing":{"width":2,"height":2,"pixels":"AP8A/w=="}}}"#),
        ("provenance", #"{"input":{"train":0},"layer":1,"at":[0,0,0]}"#),
        ("hidden", "{}"),
        ("plan", #"{"layers":"conv(4,3) flatten softmax(10)"}"#),
        ("weights", #"{"layer":1,"first":0,"count":2}"#),
        ("nearest", #"{"input":{"test":0}}"#),
        (
          "train",
          #"{"layers":"flatten softmax(2)","learning_rate":0.1,"batch_size":2,"epochs":1,"optimizer":"adam","augment":"shift=1","seed":7}"#
        ),
      ]
      let posts = questions.map { name, body in
        "POST /api/\(name) HTTP/1.1\r\nHost: localhost:8080\r\nContent-Type: application/json\r\nContent-Length: \(body.utf8.count)\r\n\r\n\(body)"
      }
      return (posts + ["GET /?a HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"])
        .map { Array($0.utf8) }
    }
  ) { bytes in
    // The first byte says in which pieces it comes.
    let size = max(1, Int(bytes.first ?? 0) - 0x40)
    var rest = Array(bytes)[...]
    var reader = RequestReader()
    do {
      while !rest.isEmpty {
        var piece = rest.prefix(size)
        rest = rest.dropFirst(size)
        guard let request = try reader.read(&piece) else { continue }
        guard site.begin(request) == nil else { return }
        let body = Array((piece + rest).prefix(request.bodyLength))
        _ = site.answer(request, body, held: 0)
        // A training goes on by itself.
        if request.path == "/api/train" { _ = site.answer(reset, [], held: 0) }
        return
      }
    } catch let refusal as Request.Refusal {
      precondition((400...505).contains(refusal.status))
    }
  }

  private static let site = try! Site(
    Workbench(
      network("conv(1,2) flatten softmax(2)"), digits, threads: 1, memory: 1e9, presets: [:]
    ) { count in (0..<count).map { "\($0)" } }, page: "<html></html>", host: "127.0.0.1")

  private static let reset: Request = {
    var bytes = Array("POST /api/reset HTTP/1.1\r\nHost: localhost\r\n\r\n".utf8)[...]
    var reader = RequestReader()
    return try! reader.read(&bytes)!
  }()
}
