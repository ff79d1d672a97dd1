import Foundation
import StrideNet

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

  /// With so many digits that count, or all before the point: 0.001234, 231400.
  func digits(_ count: Int) -> String {
    let isLarge = magnitude >= pow(10, Double(count)) && magnitude < 1e15
    return isLarge ? fixed(0) : String(format: "%.\(count)g", self)
  }
}

/// How long the rest of a training will take, by the time that passed since the first step that was
/// seen, evaluations and all.
struct Remaining {
  private var start: (time: ContinuousClock.Instant, step: Int)?
  private var seconds: Double?

  mutating func note(_ progress: BatchProgress, of epochs: Int) {
    let done = (progress.epoch - 1) * progress.batches + progress.batch
    guard let start else {
      start = (.now, done)
      return
    }
    let each = (ContinuousClock.now - start.time) / .seconds(max(1, done - start.step))
    seconds = each * Double(epochs * progress.batches - done)
  }

  /// 0:07, 12:05, 3:00:00; a dash while nothing is known.
  var text: String {
    guard let seconds, seconds < 1e8 else { return "-" }
    let whole = Int(seconds.rounded(.up))
    func two(_ number: Int) -> String { number < 10 ? "0\(number)" : "\(number)" }
    return whole < 3600
      ? "\(whole / 60):\(two(whole % 60))"
      : "\(whole / 3600):\(two(whole / 60 % 60)):\(two(whole % 60))"
  }
}

extension Network {
  /// A share of 1 where the outputs are probabilities, else the number.
  func text(ofOutput value: Float) -> String {
    endsInSoftmax ? value.percent() : Double(value).digits(predictsNumbers ? 6 : 4)
  }
}

extension FloatingPoint where Self: CVarArg {
  func fixed(_ places: Int) -> String { String(format: "%.\(places)f", self) }
  /// A share of 1: "97.39 %".
  func percent(_ places: Int = 2) -> String { "\((self * 100).fixed(places)) %" }
}

extension BinaryFloatingPoint where Self: CVarArg {
  /// With so many places, but in scientific form where little but zeros would be left: "3.2e-05".
  func number(_ places: Int) -> String {
    if self == 0 { return "0" }
    return abs(Double(self)) < pow(10, Double(1 - places))
      ? String(format: "%.1e", self) : fixed(places)
  }
}

extension String {
  /// Line breaks as they are written in programs, as names of files may have them.
  var oneLine: String {
    replacing("\n", with: "\\n").replacing("\r", with: "\\r").replacing("\t", with: "\\t")
  }
  func shortened(_ width: Int) -> String { count > width ? prefix(width - 1) + "…" : self }
  func padded(_ width: Int) -> String {
    self + String(repeating: " ", count: Swift.max(0, width - count))
  }
  func leftPadded(_ width: Int) -> String {
    String(repeating: " ", count: Swift.max(0, width - count)) + self
  }
  var withoutTrailingSpaces: String { String(reversed().drop { $0 == " " }.reversed()) }
}

extension String {
  /// Lines of at most so many columns, broken at spaces. What follows the first begins below its second
  /// column, where there is one: "data     the built-in …". A longer word stays whole, as those that are
  /// copied must, unless it may be broken: best behind a comma.
  func wrapped(_ width: Int, breakingWords: Bool = false) -> [String] {
    guard count > width else { return [self] }
    let head = firstMatch(of: /^ *\S.{0,14}? {2,}(?=\S)|^ +/).map { $0.output.count } ?? 0
    let indent = head * 2 > width ? 2 : head
    var (lines, rest) = ([String](), self[...])
    while rest.count > width - (lines.isEmpty ? 0 : indent) {
      let room = rest.prefix(width - (lines.isEmpty ? 0 : indent) + 1)
      // Not within what the first line begins with.
      let body = lines.isEmpty ? room.dropFirst(head) : room
      let end =
        body.lastIndex(of: " ")
        ?? (breakingWords
          ? room.dropLast().lastIndex(of: ",").map(room.index(after:))
            ?? room.index(before: room.endIndex)
          : rest.dropFirst(room.count).firstIndex(of: " ") ?? rest.endIndex)
      lines.append(String(repeating: " ", count: lines.isEmpty ? 0 : indent) + rest[..<end])
      rest = rest[end...].drop { $0 == " " }
    }
    if !rest.isEmpty { lines.append(String(repeating: " ", count: indent) + rest) }
    return lines.map(\.withoutTrailingSpaces)
  }
}

/// Lines of cells under each other, numbers to the right. Where they don't fit into the width, long
/// texts are broken, and what columns are too many follow below, each time behind the key columns.
func aligned(
  _ rows: [[String]], textColumns: Set<Int>, keys: Set<Int> = [0], indent: String = "  ",
  width: Int = Output.columns
) -> [String] {
  let room = width - indent.count
  let natural = rows[0].indices.map { column in rows.map { $0[column].count }.max()! }
  let isWide = natural.reduce(-2) { $0 + $1 + 2 } > room
  // The last column has what the keys leave.
  let last = room - keys.reduce(0) { $0 + natural[$1] + 2 }
  let cells = rows.map { row in
    row.enumerated().map { column, cell in
      let most = column == row.count - 1 ? last : room / 2
      return isWide && textColumns.contains(column)
        ? cell.wrapped(max(12, most), breakingWords: true) : [cell]
    }
  }
  let widths = rows[0].indices.map { column in cells.flatMap { $0[column] }.map(\.count).max()! }
  var (blocks, used) = ([[Int]](), 0)
  for column in widths.indices {
    if blocks.isEmpty {
      blocks.append([])
    } else if used + widths[column] > room, !keys.isSuperset(of: blocks.last!) {
      blocks.append(keys.sorted())
      used = keys.reduce(0) { $0 + widths[$1] + 2 }
    }
    blocks[blocks.count - 1].append(column)
    used += widths[column] + 2
  }
  return Array(
    blocks.map { block in
      cells.flatMap { row in
        (0..<block.map { row[$0].count }.max()!).map { index in
          let line = block.map { column in
            let cell = index < row[column].count ? row[column][index] : ""
            return textColumns.contains(column)
              ? cell.padded(widths[column]) : cell.leftPadded(widths[column])
          }.joined(separator: "  ")
          return indent + line.withoutTrailingSpaces
        }
      }
    }.joined(separator: [""]))
}
