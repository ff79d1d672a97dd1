import Foundation
import Testing

/// Takes the place of `print`, and knows what the article says about it.
final class ArticlePage {
  private var printed: [Int: [String]] = [:]

  func print(_ items: [Any], _ line: Int) {
    printed[line, default: []].append(items.map { "\($0)" }.joined(separator: " "))
  }

  /// Compares what was printed, statement by statement, with the comments behind the `print`s of
  /// an article's section. "…" at a comment's end leaves the rest open, "about" before a number
  /// allows a quarter of it.
  func check(_ article: String, _ section: String? = nil) throws {
    let path = "Sources/StrideNet/StrideNet.docc/\(article).md"
    let claims = try Self.claims(path, section)
    let statements = printed.sorted { $0.key < $1.key }.map(\.value)
    #expect(statements.count == claims.count, "\(statements) \(claims)")
    for (found, claim) in zip(statements, claims) {
      guard let claim else { continue }
      let text = found.joined(separator: " ")
      if claim.hasPrefix("about ") {
        let number = try #require(Double(claim.dropFirst(6)))
        let value = try #require(Double(text), "\(text)")
        #expect(abs(value - number) <= abs(number) / 4, "\(text), \(claim)")
      } else if claim.hasSuffix("…") {
        #expect(text.hasPrefix(claim.dropLast().trimmingCharacters(in: .whitespaces)), "\(text)")
      } else {
        #expect(text == claim)
      }
    }
  }

  /// What stands behind each `print`, or in the line below it.
  private static func claims(_ path: String, _ section: String?) throws -> [String?] {
    var text = try Documents.text(path)
    if let section {
      let start = try #require(text.range(of: "\n## \(section)\n"), "\(section)")
      text = String(text[start.upperBound...])
      if let end = text.range(of: "\n## ") { text = String(text[..<end.lowerBound]) }
    }
    return text.components(separatedBy: "\n```swift\n").dropFirst().flatMap { block in
      let lines = block.components(separatedBy: "\n```")[0].components(separatedBy: "\n")
      return lines.indices.filter { lines[$0].contains("print(") }.map { index -> String? in
        if let comment = lines[index].range(of: "  // ") {
          return String(lines[index][comment.upperBound...])
        }
        guard index + 1 < lines.count else { return nil }
        let next = lines[index + 1].trimmingCharacters(in: .whitespaces)
        return next.hasPrefix("// ") ? String(next.dropFirst(3)) : nil
      }
    }
  }
}
