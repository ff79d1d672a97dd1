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
