/// A request of HTTP/1.1 (RFC 9112) but for its body.
package struct Request: Sendable {
  /// What was wrong with what came, as the status of the answer.
  package struct Refusal: Error, Equatable {
    package let status: Int
    package let what: String

    package init(_ status: Int, _ what: String) { (self.status, self.what) = (status, what) }
  }

  package let method: String
  /// As it was sent, without the query.
  package let path: String
  private let isOld: Bool
  private var fields: [(name: String, value: String)] = []
  /// Of the body; nil if it wasn't said. What is too large for an Int is Int.max.
  package private(set) var length: Int?
  package var bodyLength: Int { length ?? 0 }

  /// A field's value, or several ones as the list that they then are; nil if there is none. The name
  /// in lower case.
  package subscript(_ name: String) -> String? {
    let values = fields.filter { $0.name == name }.map(\.value)
    return values.isEmpty ? nil : values.joined(separator: ", ")
  }

  /// Whether another request may follow.
  package var keepsConnection: Bool { !isOld && !has("close", in: "connection") }
  /// Whether the client waits to be told that its body is wanted.
  package var waitsForConsent: Bool { !isOld && has("100-continue", in: "expect") }

  private func has(_ word: String, in name: String) -> Bool {
    (self[name] ?? "").lowercased().split { ", \t".contains($0) }.contains { $0 == word }
  }

  /// A request line, without its end.
  fileprivate init(line: [UInt8]) throws(Refusal) {
    let parts = line.split(separator: UInt8(ascii: " "), omittingEmptySubsequences: false)
    guard parts.count == 3, isToken(parts[0]), let first = parts[1].first else {
      throw Refusal(400, "a request line that isn't one")
    }
    guard first == UInt8(ascii: "/") || parts[1].elementsEqual("*".utf8) else {
      throw Refusal(400, "a request for something that isn't a path")
    }
    switch String(decoding: parts[2], as: UTF8.self) {
    case "HTTP/1.1": isOld = false
    case "HTTP/1.0": isOld = true
    case let version where version.wholeMatch(of: /HTTP\/[0-9]\.[0-9]/) != nil:
      throw Refusal(505, "another version than HTTP/1.1")
    default: throw Refusal(400, "a request line that isn't one")
    }
    method = String(decoding: parts[0], as: UTF8.self)
    path = String(decoding: parts[1].prefix { $0 != UInt8(ascii: "?") }, as: UTF8.self)
  }

  fileprivate mutating func add(line: [UInt8]) throws(Refusal) {
    // A name with a space before its colon, or behind a line's begin, is read by some as another.
    guard let colon = line.firstIndex(of: UInt8(ascii: ":")), isToken(line[..<colon]) else {
      throw Refusal(400, "a header line that isn't one")
    }
    func isSpace(_ byte: UInt8) -> Bool { byte == UInt8(ascii: " ") || byte == UInt8(ascii: "\t") }
    var value = line[(colon + 1)...].drop(while: isSpace)
    while let last = value.last, isSpace(last) { value.removeLast() }
    fields.append(
      (
        String(decoding: line[..<colon], as: UTF8.self).lowercased(),
        String(decoding: value, as: UTF8.self)
      ))
  }

  /// What only all fields together tell.
  fileprivate mutating func finish() throws(Refusal) {
    let hosts = fields.count { $0.name == "host" }
    guard hosts == 1 || hosts == 0 && isOld else {
      throw Refusal(400, hosts == 0 ? "no Host" : "more than one Host")
    }
    let lengths = fields.filter { $0.name == "content-length" }.map(\.value)
    if self["transfer-encoding"] != nil {
      // Two ways to tell where a body ends: whoever else reads it may take the other one.
      guard lengths.isEmpty, !isOld else { throw Refusal(400, "a body of two lengths") }
      throw Refusal(411, "a body in pieces, whose length isn't said first")
    }
    guard let first = lengths.first else { return }
    guard lengths.count == 1, !first.isEmpty,
      first.utf8.allSatisfy((UInt8(ascii: "0")...UInt8(ascii: "9")).contains)
    else { throw Refusal(400, "a Content-Length that isn't one") }
    length = Int(first) ?? .max
  }
}

/// Whether bytes are a name or a method.
private func isToken(_ bytes: ArraySlice<UInt8>) -> Bool {
  !bytes.isEmpty
    && bytes.allSatisfy { byte in
      switch byte {
      case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
        UInt8(ascii: "0")...UInt8(ascii: "9"):
        true
      default: "!#$%&'*+-.^_`|~".utf8.contains(byte)
      }
    }
}

/// Reads the head of a request as it comes. Every byte is looked at once, no more than a line is kept
/// of what wasn't understood yet, and what can't become a request is refused at the byte that shows it.
package struct RequestReader {
  /// Bytes of a line without its end, and of all header lines.
  private let longestLine, largestHeader: Int
  private var line: [UInt8] = []
  private var size = 0
  private var request: Request?
  private var hadEmptyLine = false
  /// Whether anything came.
  package private(set) var hasBegun = false

  package init(longestLine: Int = 8 << 10, largestHeader: Int = 32 << 10) {
    (self.longestLine, self.largestHeader) = (longestLine, largestHeader)
  }

  /// Takes from `bytes` what belongs to the head.
  /// - Returns: the request once its head is complete, nil before; not to be called after
  package mutating func read(_ bytes: inout ArraySlice<UInt8>) throws(Request.Refusal) -> Request? {
    let (feed, carriageReturn) = (UInt8(ascii: "\n"), UInt8(ascii: "\r"))
    for index in bytes.indices {
      let byte = bytes[index]
      if byte == feed {
        guard line.popLast() == carriageReturn else {
          throw Request.Refusal(400, "a line without a carriage return at its end")
        }
        if line.isEmpty, var request {
          bytes = bytes[(index + 1)...]
          try request.finish()
          return request
        }
        // An empty line may be left from the request before.
        if request != nil {
          try request!.add(line: line)
        } else if !line.isEmpty {
          request = try Request(line: line)
        } else if hadEmptyLine {
          throw Request.Refusal(400, "a request line that isn't one")
        } else {
          hadEmptyLine = true
        }
        line.removeAll(keepingCapacity: true)
        continue
      }
      if request != nil { size += 1 }
      guard line.last != carriageReturn, isAllowed(byte) else {
        throw Request.Refusal(400, "a byte that doesn't belong into a request")
      }
      line.append(byte)
      guard line.count <= longestLine || line.count == longestLine + 1 && byte == carriageReturn
      else {
        throw request == nil
          ? Request.Refusal(414, "a request line of more than \(longestLine) bytes")
          : Request.Refusal(431, "a header line of more than \(longestLine) bytes")
      }
      guard size <= largestHeader else {
        throw Request.Refusal(431, "a header of more than \(largestHeader) bytes")
      }
    }
    hasBegun = hasBegun || !bytes.isEmpty
    bytes = []
    return nil
  }

  private func isAllowed(_ byte: UInt8) -> Bool {
    switch byte {
    case UInt8(ascii: "\r"), UInt8(ascii: " ")...UInt8(ascii: "~"): true
    case UInt8(ascii: "\t"), 0x80...0xff: request != nil
    default: false
    }
  }
}
