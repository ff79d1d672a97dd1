import Foundation

/// An answer, without what depends on the connection.
package struct Response: Sendable {
  package var status = 200
  package var type = "application/json"
  package var fields: [(name: String, value: String)] = []
  package var body = Data()

  package init(
    status: Int = 200, type: String = "application/json",
    fields: [(name: String, value: String)] = [], body: Data
  ) {
    (self.status, self.type, self.fields, self.body) = (status, type, fields, body)
  }

  /// What was wrong, as the page reads it.
  private struct Failure: Encodable {
    let error: String
    var found, expected, hint: String?
  }

  package init(
    _ refusal: Request.Refusal, found: String? = nil, expected: String? = nil, hint: String? = nil
  ) {
    status = refusal.status
    let failure = Failure(error: refusal.what, found: found, expected: expected, hint: hint)
    body = (try? JSONEncoder().encode(failure)) ?? Data()
  }

  /// All that comes before the body.
  func head(closing: Bool) -> [UInt8] {
    var text = "HTTP/1.1 \(status) \(Self.phrases[status] ?? "Status")\r\n"
    for (name, value) in fields + [
      ("Content-Type", type), ("Content-Length", "\(body.count)"), ("Cache-Control", "no-store"),
      ("X-Content-Type-Options", "nosniff"), ("Referrer-Policy", "no-referrer"),
      ("Content-Security-Policy", Self.policy),
      ("Connection", closing ? "close" : "keep-alive"),
    ] {
      text += "\(name): \(value)\r\n"
    }
    return Array((text + "\r\n").utf8)
  }

  /// What is shown loads nothing from elsewhere.
  private static let policy =
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; worker-src blob:; img-src data:; frame-ancestors 'none'"

  private static let phrases = [
    200: "OK", 400: "Bad Request", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed",
    408: "Request Timeout", 409: "Conflict", 411: "Length Required", 413: "Content Too Large",
    414: "URI Too Long", 415: "Unsupported Media Type", 431: "Request Header Fields Too Large",
    500: "Internal Server Error", 503: "Service Unavailable", 505: "HTTP Version Not Supported",
  ]
}
