import Foundation
import StrideNetCore

/// What is answered: the page, and questions in JSON.
package final class Site: Service {
  // Only `answer` uses it, one question at a time.
  private nonisolated(unsafe) let workbench: Workbench
  private let isLocal: Bool
  private let page: Response

  /// Questions are drawings; nothing that is asked is larger.
  private static let largest = 2 << 20

  /// - Parameters:
  ///   - workbench: which nobody else uses from now on
  ///   - page: HTML
  ///   - host: the address that is listened to
  package init(_ workbench: Workbench, page: String, host: String) {
    self.workbench = workbench
    isLocal = Self.isLoopback(host)
    self.page = Response(type: "text/html; charset=utf-8", body: Data(page.utf8))
  }

  /// An address that reaches this machine alone.
  private static func isLoopback(_ address: some StringProtocol) -> Bool {
    Sockets.ipv4(address).map { $0 >> 24 == 127 } ?? false
  }

  // MARK: Heads

  package func begin(_ request: Request) -> Response? {
    let isQuestion = request.path.hasPrefix("/api/")
    let methods = isQuestion ? ["POST"] : ["GET", "HEAD"]
    guard methods.contains(request.method) else {
      var refused = Response(Request.Refusal(405, "a page is got, a question posted"))
      refused.fields = [("Allow", methods.joined(separator: ", "))]
      return refused
    }
    if let refusal = refusal(request, isQuestion: isQuestion) { return Response(refusal) }
    return isQuestion ? nil : page
  }

  private func refusal(_ request: Request, isQuestion: Bool) -> Request.Refusal? {
    // A page from elsewhere, or under another name for this machine, isn't to ask anything: its name
    // may be anybody's, and lead here since yesterday.
    let host = request["host"] ?? ""
    guard !isLocal || Self.isThisMachine(host) else {
      return Request.Refusal(403, "this page is for its own machine")
    }
    if let origin = request["origin"], origin.lowercased() != "http://\(host.lowercased())" {
      return Request.Refusal(403, "a question from another page")
    }
    guard isQuestion else {
      return request.path == "/" ? nil : Request.Refusal(404, "no such page")
    }
    let type = (request["content-type"] ?? "").prefix { $0 != ";" }
    guard type.trimmingCharacters(in: .whitespaces).lowercased() == "application/json" else {
      return Request.Refusal(415, "a question is JSON")
    }
    guard let length = request.length else {
      return Request.Refusal(411, "a question without its length")
    }
    guard length <= Self.largest else {
      return Request.Refusal(413, "a question of more than \(Self.largest >> 20) MB")
    }
    return nil
  }

  /// `localhost` or an address that only this machine has, and perhaps a port: through a tunnel it is
  /// another one than this server's.
  private static func isThisMachine(_ host: String) -> Bool {
    let parts = host.split(separator: ":", omittingEmptySubsequences: false)
    guard parts.count == 1 || parts.count == 2 && parts[1].wholeMatch(of: /[0-9]{1,5}/) != nil
    else { return false }
    return parts[0].lowercased() == "localhost" || isLoopback(parts[0])
  }

  // MARK: Questions

  package func answer(_ request: Request, _ body: [UInt8], held: Int) -> Response {
    workbench.held = held
    do {
      let name = String(request.path.dropFirst(5))
      // A page that shows another network than there is by now isn't to mix the two.
      let asked = try? JSONDecoder().decode(Asked.self, from: Data(body))
      if name != "state", let of = asked?.version, of != workbench.version {
        return Response(
          Request.Refusal(409, "the page shows another network than there is now"), found: of,
          expected: workbench.version, hint: "ask for the state again")
      }
      guard let answer = try answer(name, Data(body)) else {
        return Response(Request.Refusal(404, "no such question"))
      }
      return Response(body: answer)
    } catch let error as StrideNetError {
      return Response(
        Request.Refusal(400, error.what), found: error.found, expected: error.expected,
        hint: error.hint)
    } catch is DecodingError {
      return Response(Request.Refusal(400, "a question that can't be read"))
    } catch is EncodingError {
      return Response(Request.Refusal(400, "numbers that aren't finite"))
    } catch {
      return Response(Request.Refusal(500, "\(error)"))
    }
  }

  /// The version of the state that a question is about.
  private struct Asked: Decodable {
    let version: String?
  }

  private func answer(_ name: String, _ body: Data) throws -> Data? {
    func question<T: Decodable>(_: T.Type = T.self) throws -> T {
      try JSONDecoder().decode(T.self, from: body)
    }
    func text(_ answer: some Encodable) throws -> Data { try JSONEncoder().encode(answer) }
    switch name {
    case "state": return try text(workbench.state())
    case "look": return try text(workbench.look(question()))
    case "provenance": return try text(workbench.provenance(question()))
    case "hidden": return try text(workbench.hidden())
    case "plan": return try text(workbench.plan(question()))
    case "weights": return try text(workbench.weights(question()))
    case "gradients": return try text(workbench.gradients(question()))
    case "step": return try text(workbench.step(question()))
    case "undo": return try text(workbench.undo())
    case "nearest": return try text(workbench.nearest(question()))
    case "wrong": return try text(workbench.wrong())
    case "training": return try text(workbench.training(question()))
    case "train":
      try workbench.train(question())
      return try text(workbench.training(Workbench.Since()))
    case "stop":
      workbench.stop()
      return try text(workbench.training(Workbench.Since()))
    case "reset":
      workbench.reset()
      return try text(workbench.state())
    default: return nil
    }
  }
}
