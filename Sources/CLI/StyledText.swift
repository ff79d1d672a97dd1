import Foundation

/// A line for a terminal: pieces of text, of which some have a style. Its length is that of what is
/// seen.
struct StyledText: ExpressibleByStringInterpolation {
  private var pieces: [(text: String, code: String?)]

  /// - Parameter code: of ANSI's Select Graphic Rendition: 1 is bold
  init(_ text: String, code: String? = nil) { pieces = [(text, code)] }
  init(stringLiteral text: String) { self.init(text) }

  var count: Int { pieces.reduce(0) { $0 + $1.text.count } }

  static func + (a: Self, b: Self) -> Self {
    var sum = a
    sum.pieces += b.pieces
    return sum
  }
  static func += (a: inout Self, b: Self) { a = a + b }

  func padded(_ width: Int) -> Self {
    self + Self(String(repeating: " ", count: max(0, width - count)))
  }

  /// The text, with escape sequences or without.
  func rendered(isColoured: Bool) -> String {
    pieces.map { text, code in
      code.map { isColoured ? "\u{1b}[\($0)m\(text)\u{1b}[0m" : text } ?? text
    }.joined()
  }
}

extension [StyledText] {
  func joined(separator: String) -> StyledText {
    dropFirst().reduce(first ?? "") { $0 + StyledText(separator) + $1 }
  }

  /// Plain lines.
  init(_ lines: [String]) { self = lines.map { StyledText($0) } }
}

/// Blocks of lines side by side, as many as a width holds, indented by two.
func sideBySide(_ blocks: [[StyledText]], width: Int) -> [StyledText] {
  let gap = 3
  let sizes = blocks.map { $0.map(\.count).max()! }
  var (rows, used): ([[Int]], Int) = ([[]], 0)
  for (block, size) in sizes.enumerated() {
    if !rows.last!.isEmpty && used + size > width - 2 {
      rows.append([])
      used = 0
    }
    rows[rows.count - 1].append(block)
    used += size + gap
  }
  return Array(
    rows.map { row in
      (0..<row.map { blocks[$0].count }.max()!).map { index in
        "  "
          + row.map { block in
            (index < blocks[block].count ? blocks[block][index] : "").padded(sizes[block])
          }.joined(separator: String(repeating: " ", count: gap))
      }
    }.joined(separator: [""]))
}
