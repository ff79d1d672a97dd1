import Foundation

extension Int {
  /// 60,000
  var grouped: String {
    var digits = String(magnitude)
    var parts: [String] = []
    while digits.count > 3 {
      parts.insert(String(digits.suffix(3)), at: 0)
      digits.removeLast(3)
    }
    return (self < 0 ? "-" : "") + ([digits] + parts).joined(separator: ",")
  }

  /// "1 thread", "2 threads"
  var threads: String { "\(self) thread\(self == 1 ? "" : "s")" }
}

extension Double {
  /// The whole part likewise.
  var grouped: String { Int(exactly: rounded(.towardZero))?.grouped ?? "\(self)" }
}

extension FloatingPoint where Self: CVarArg {
  func fixed(_ places: Int) -> String { String(format: "%.\(places)f", self) }
  /// A share of 1: "97.39 %".
  func percent(_ places: Int = 2) -> String { "\((self * 100).fixed(places)) %" }
}

extension String {
  /// Line breaks as they are written in programs, as names of files may have them.
  var oneLine: String {
    replacing("\n", with: "\\n").replacing("\r", with: "\\r").replacing("\t", with: "\\t")
  }
  func padded(_ width: Int) -> String {
    self + String(repeating: " ", count: Swift.max(0, width - count))
  }
  func leftPadded(_ width: Int) -> String {
    String(repeating: " ", count: Swift.max(0, width - count)) + self
  }
  var withoutTrailingSpaces: String { String(reversed().drop { $0 == " " }.reversed()) }
}

/// Lines of cells under each other, numbers to the right.
func aligned(_ rows: [[String]], textColumns: Set<Int>, indent: String = "  ") -> [String] {
  let widths = rows[0].indices.map { column in rows.map { $0[column].count }.max()! }
  return rows.map { row in
    let line = row.enumerated().map { column, cell in
      textColumns.contains(column) ? cell.padded(widths[column]) : cell.leftPadded(widths[column])
    }.joined(separator: "  ")
    return indent + line.withoutTrailingSpaces
  }
}
