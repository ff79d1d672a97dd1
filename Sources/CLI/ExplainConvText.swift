import Foundation
import StrideNet

/// What `stridenet explain conv` prints.
struct ConvolutionText {
  static let misprint = [
    "cnn-numpy, where this example comes from, prints C × (5, 7, 9, 11) in group 1: a misprint.",
    "C meets 5, 7, 13 and 15.",
  ]

  let walk: ConvolutionWalk
  private let isColoured: Bool
  let width: Int

  /// Of a grid; of a list or matrix.
  private let mostRows = 8
  private let mostColumns = 10
  private let mostInList = 6
  private let mostElements = 9

  init(_ walk: ConvolutionWalk) {
    self.walk = walk
    let environment = ProcessInfo.processInfo.environment
    let isTerminal = isatty(STDOUT_FILENO) == 1
    isColoured =
      isTerminal && (environment["NO_COLOR"] ?? "").isEmpty && environment["TERM"] != "dumb"
    width = Output.columns
  }

  func lines() -> [String] {
    let lines = head + sliding + multiplying + backward + winograd + kernels
    return lines.map { $0.rendered(isColoured: isColoured).withoutTrailingSpaces }
  }

  // MARK: Sections

  /// Input, filter and output.
  private var head: [StyledText] {
    var lines = [bold(walk.heading)] + prose([walk.summary]) + [""]
    lines += flow([
      ["input"] + grid(walk.input) { "\($0 * walk.input.width + $1 + 1)" },
      ["filter"]
        + grid(walk.filter) {
          let element = $0 * walk.filter.width + $1
          return "\(ConvolutionWalk.letter(element))=\(Int(walk.weights[element]))"
        },
      ["output"]
        + grid(walk.output, colour: walk.group) { number(walk.values[$0 * walk.output.width + $1]) },
      ["its groups"] + grid(walk.output, colour: walk.group) { "\(walk.group($0, $1) + 1)" },
    ])
    if let last = walk.pixels.last, Int(last) < walk.pixels.count {
      let most = Int(walk.pixels.max()!).grouped
      lines += [
        "", "After \(most) the inputs' values start again from 1, so that all sums are exact.",
      ]
    }
    return lines
  }

  private var sliding: [StyledText] {
    section(
      "1  The window slides",
      "The plain loop makes a pass for each position, row by row:", "  \(positions)",
      "In a group no two windows overlap, so each filter element meets inputs of its own. An output is",
      "the sum of a window's products, \(walk.sumOfProducts):", "")
      + flow(groups.map { [title($0), ""] + drawing($0) + [""] + products($0) }) + more
  }

  private var multiplying: [StyledText] {
    section(
      "2  Gather, multiply, scatter",
      "A group's windows are the rows of a matrix; its product with the filter is the output at these",
      "positions. (All computed by the stride_groups kernel, and equal to what naive gives.)", "")
      + groups.map { flow([matrix($0), scatter($0)]) }.joined(separator: [""]) + more
  }

  private var backward: [StyledText] {
    section(
      "3  Backward",
      "Each window adds to the inputs that it holds. How many do so to each: all windows together, and",
      "those of one group, which never meet and so can be added in any order, or side by side:", "")
      + flow(
        [["all"] + grid(walk.input) { "\(walk.touches(($0, $1)))" }]
          + groups.map { group in
            func isHeld(_ row: Int, _ column: Int) -> Bool {
              walk.groups[group].window(at: (row, column)) != nil
            }
            return [colour("group \(group + 1)", group)]
              + grid(walk.input, colour: { isHeld($0, $1) ? group : nil }) {
                isHeld($0, $1) ? "1" : "·"
              }
          }) + more
  }

  private var kernels: [StyledText] {
    var lines = section("5  What each kernel does with it") + [StyledText](table())
    var notes = [
      "",
      "For one image, channel and filter. \"At a time\" is the most of what is gathered that is in memory.",
      "The product copies a matrix once more, into the order in which it reads it.",
    ]
    if walk.isWinograd { notes.append("Of winograd the multiplications alone are counted.") }
    if walk.costs.contains(where: { $0.variant == "stride_groups" && $0.heldBytes == 0 }) {
      notes.append("Here stride_groups copies windows straight into that order, and has no matrix.")
    }
    lines += prose(notes)
    if walk.isPublishedExample { lines += section("Note") + prose(Self.misprint) }
    return lines
  }

  func section(_ title: String, _ lines: String...) -> [StyledText] {
    ["", bold(title), ""] + prose(lines)
  }

  /// Lines as they are written or, where one is too long, their paragraphs broken anew.
  private func prose(_ lines: [String]) -> [StyledText] {
    guard lines.contains(where: { $0.count > width }) else { return [StyledText](lines) }
    var paragraphs: [String] = []
    for line in lines {
      if let last = paragraphs.last, !last.isEmpty, !line.isEmpty, !(last + line).contains("  ") {
        paragraphs[paragraphs.count - 1] = "\(last) \(line)"
      } else {
        paragraphs.append(line)
      }
    }
    return [StyledText](paragraphs.flatMap { $0.wrapped(width) })
  }

  private var groups: Range<Int> { 0..<walk.shown }

  // MARK: Parts

  private func title(_ group: Int) -> StyledText {
    let count = ConvolutionWalk.count(walk.groups[group].count, "window")
    return colour("group \(group + 1)", group) + ": \(count)"
  }

  private var more: [StyledText] {
    let (all, shown) = (walk.groups.count, walk.shown)
    let last = ConvolutionWalk.count(walk.groups[all - 1].count, "window")
    return all == shown
      ? []
      : [
        "",
        "… and \(ConvolutionWalk.count(all - shown, "more group")), the last with \(last)",
      ]
  }

  /// "(0,0) (0,1) …"
  private var positions: String {
    let count = walk.values.count
    let texts = (0..<count).lazy.map { "(\($0 / walk.output.width),\($0 % walk.output.width))" }
    if count <= mostColumns { return texts.joined(separator: " ") }
    return (texts.prefix(mostColumns - 2) + ["…", texts.last!]).joined(separator: " ")
  }

  private func number(_ value: Float) -> String { "\(Int(value))" }

  /// "E = A × (1, 3, 9, 11)" for each element.
  private func products(_ group: Int) -> [StyledText] {
    let count = walk.weights.count
    let lines = (0..<min(count, mostElements)).map { element -> StyledText in
      let (name, product) = (
        ConvolutionWalk.letter(element), ConvolutionWalk.letter(count + element)
      )
      return "\(product) = \(name) × (\(walk.list(element, group, first: mostInList)))"
    }
    return lines + (count > lines.count ? ["…"] : [])
  }

  /// The input, padding included, with a frame around each window of a group.
  private func drawing(_ index: Int) -> [StyledText] {
    let group = walk.groups[index]
    let padded = walk.padded
    let shown = (cut(padded.height, mostRows), cut(padded.width, mostColumns))
    func window(_ row: Int, _ column: Int) -> Int? {
      group.window(at: (row - walk.padding.height, column - walk.padding.width))
    }
    func text(_ row: Int, _ column: Int) -> String {
      "\(walk.number((row - walk.padding.height, column - walk.padding.width)))"
    }
    var cell = 1
    for row in 0..<shown.0 {
      for column in 0..<shown.1 { cell = max(cell, text(row, column).count) }
    }
    // Whether there is a line between two places on the lattice's row or column.
    func across(_ row: Int, _ column: Int) -> Bool {
      (0..<shown.1).contains(column) && window(row - 1, column) != window(row, column)
    }
    func down(_ row: Int, _ column: Int) -> Bool {
      (0..<shown.0).contains(row) && window(row, column - 1) != window(row, column)
    }
    let corners = Array(" ╵╷│╴┘┐┤╶└┌├─┴┬┼")
    var lines: [StyledText] = []
    for row in 0...shown.0 {
      var (border, content): (String, StyledText) = ("", "")
      for column in 0...shown.1 {
        let arms = [
          down(row - 1, column), down(row, column), across(row, column - 1), across(row, column),
        ]
        border.append(
          corners[arms.enumerated().reduce(0) { $0 + ($1.element ? 1 << $1.offset : 0) }])
        content += down(row, column) ? colour("│", index) : " "
        if column < shown.1 {
          border += String(repeating: across(row, column) ? "─" : " ", count: cell + 2)
          if row < shown.0 {
            let number = text(row, column)
            let padded = " " + number.leftPadded(cell) + " "
            content +=
              window(row, column) == nil || number == "0" ? dim(padded) : StyledText(padded)
          }
        }
      }
      lines.append(colour(border, index))
      if row < shown.0 { lines.append(content + (padded.width > shown.1 ? " …" : "")) }
    }
    return lines + (padded.height > shown.0 ? ["⋮"] : [])
  }

  /// A group's matrix, the products and their sums.
  private func matrix(_ index: Int) -> [StyledText] {
    let (group, count) = (walk.groups[index], walk.weights.count)
    let shown = min(count, mostElements)
    let withProducts = count <= 4
    let cut = count > shown ? ["…"] : []
    var rows = [
      ["", ""] + (0..<shown).map { "\(ConvolutionWalk.letter($0))=\(number(walk.weights[$0]))" }
        + cut
        + [""]
        + (withProducts ? (count..<2 * count).map { ConvolutionWalk.letter($0) } : []) + ["sum"]
    ]
    for window in 0..<min(group.count, mostInList) {
      let (values, place) = (walk.gathered(index, window), group.position(window))
      rows.append(
        ["(\(place.row),\(place.column))", "│"] + values[..<shown].map(number) + cut + ["│"]
          + (withProducts ? zip(values, walk.weights).map { number($0 * $1) } : [])
          + [number(walk.sum(index, window))])
    }
    let last = rows[0].count - 1
    let widths = (0...last).map { column in rows.map { $0[column].count }.max()! }
    var lines = rows.map { row in
      row.indices.map { column in
        let text = row[column].leftPadded(widths[column])
        return column == last && row[0] != "" ? colour(text, index) : StyledText(text)
      }.joined(separator: "  ")
    }
    if group.count > mostInList {
      lines.append("⋮ \((group.count - mostInList).grouped) more rows")
    }
    return [title(index) + ", a matrix of \(group.count.grouped) × \(count)", ""] + lines
  }

  /// The output after a group, its part in its colour.
  private func scatter(_ index: Int) -> [StyledText] {
    ["output after group \(index + 1)", ""]
      + grid(walk.output, colour: { walk.group($0, $1) == index ? index : nil }) { row, column in
        walk.group(row, column) <= index
          ? number(walk.values[row * walk.output.width + column]) : "·"
      }
  }

  private func table() -> [String] {
    let heading = ["kernel", "passes", "gathered", "at a time", "multiply-adds", ""]
    let rows =
      [heading]
      + walk.costs.map {
        [
          $0.variant, $0.passes.grouped, "\($0.gatheredBytes.grouped) B",
          "\($0.heldBytes.grouped) B", $0.multiplyAdds.grouped, walk.way($0),
        ]
      }
    return aligned(rows, textColumns: [0, heading.count - 1], indent: "")
  }

  // MARK: Layout

  /// All, or fewer where there are too many: what is cut off anyway may as well be short.
  private func cut(_ count: Int, _ most: Int) -> Int { count <= most ? count : most * 5 / 8 }

  /// A table of short texts, cut off where it is large. Without a colour a text is dim.
  func grid(
    _ size: ConvolutionWalk.Size, colour of: ((Int, Int) -> Int?)? = nil,
    _ text: (Int, Int) -> String
  ) -> [StyledText] {
    let (rows, columns) = (cut(size.height, mostRows), cut(size.width, mostColumns))
    let texts = (0..<rows).map { row in (0..<columns).map { text(row, $0) } }
    let cell = texts.joined().map(\.count).max()!
    let lines = texts.enumerated().map { row, texts in
      texts.enumerated().map { column, text in
        let text = text.leftPadded(cell)
        guard let of else { return StyledText(text) }
        return of(row, column).map { colour(text, $0) } ?? dim(text)
      }.joined(separator: "  ") + (size.width > columns ? "  …" : "")
    }
    return lines + (size.height > rows ? [StyledText("⋮".leftPadded(cell))] : [])
  }

  private func flow(_ blocks: [[StyledText]]) -> [StyledText] {
    sideBySide(blocks, width: width)
  }

  // MARK: Colour

  private func bold(_ text: String) -> StyledText { StyledText(text, code: "1") }
  private func dim(_ text: String) -> StyledText { StyledText(text, code: "2") }
  /// Of the terminal's own colours, so that they fit its background.
  private func colour(_ text: String, _ group: Int) -> StyledText {
    let codes = ["36", "33", "35", "32", "34", "31", "96", "93", "95"]
    return StyledText(text, code: codes[group % codes.count])
  }
}
