import ArgumentParser
import Foundation
import StrideNet

struct ExplainConv: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "conv",
    abstract: "Follows a convolution of one channel by one filter through its stride groups.",
    discussion: """
      Inputs are numbered 1, 2, 3, … row by row; the filter's elements are A, B, C, … with the \
      values 1, 2, 3, …, and the letters after theirs stand for their products. Results are the \
      kernels' own. Sizes are HxW, or one number for both.
      """)

  @Option(help: ArgumentHelp("The input's size.", valueName: "HxW"))
  var input = "4x4"

  @Option(help: ArgumentHelp("The filter's size.", valueName: "HxW"))
  var filter = "2x2"

  @Option(help: ArgumentHelp("Steps from a window to the next.", valueName: "HxW"))
  var stride = "1"

  @Option(help: ArgumentHelp("Zeros above and below, and at the sides.", valueName: "HxW"))
  var padding = "0"

  @Option(help: ArgumentHelp("Draw all of it as a picture (SVG).", valueName: "file"))
  var svg: String?

  @Option(help: ArgumentHelp("Draw it as a moving picture (SVG).", valueName: "file"))
  var animate: String?

  @Flag(help: "Print JSON, an object a line.")
  var json = false

  /// The most numbers that are printed as JSON.
  private static let mostNumbers = 1_000_000

  func run() throws {
    let walk = try ConvolutionWalk(
      input: size(input, "input"), filter: size(filter, "filter"), stride: size(stride, "stride"),
      padding: size(padding, "padding"))
    if json, walk.values.count * walk.weights.count > Self.mostNumbers {
      throw StrideNetError(
        .usage, "too large for JSON",
        found: "\((walk.values.count * walk.weights.count).grouped) products",
        expected: "at most \(Self.mostNumbers.grouped)",
        hint: "take a smaller input, or leave out --json")
    }
    let paths = [svg, animate].compactMap { $0 }
      .map { URL(fileURLWithPath: $0).resolvingSymlinksInPath().path }
    guard Set(paths).count == paths.count else {
      throw StrideNetError(
        .usage, "two pictures in one file", at: animate, expected: "a file each",
        hint: "give --svg and --animate different names")
    }
    // Both before either is written.
    let pictures = try [(svg, ConvolutionPicture.still), (animate, ConvolutionPicture.animated)]
      .compactMap { path, draw in try path.map { ($0, try draw(walk)) } }
    for (path, _) in pictures { try AtomicFile.checkWritable(path) }
    for (path, picture) in pictures { try AtomicFile.write(Array(picture.utf8), to: path) }
    if json { return try printJSON(walk) }
    for line in ConvolutionText(walk).lines() { try Output.line(line) }
    if !pictures.isEmpty { try Output.line("") }
    for (path, _) in pictures { try Output.line("wrote \(path)") }
  }

  /// "3x4", or "3" for "3x3".
  private func size(_ text: String, _ name: String) throws -> ConvolutionWalk.Size {
    let numbers = text.split(separator: "x", omittingEmptySubsequences: false).map { Int($0) }
    guard (1...2).contains(numbers.count), let height = numbers[0], let width = numbers.last! else {
      throw StrideNetError(
        .usage, "no size: --\(name)", found: "'\(text)'",
        expected: "height x width, or one number for both", hint: "for example --\(name) 3x3")
    }
    return (height, width)
  }

  // MARK: JSON

  private func printJSON(_ walk: ConvolutionWalk) throws {
    try Output.json(WalkEvent(walk))
    for group in walk.groups.indices { try Output.json(GroupEvent(walk, group)) }
    for cost in walk.costs { try Output.json(CostEvent(cost)) }
  }

  private struct WalkEvent: Encodable {
    var event = "convolution"
    /// Height and width each.
    let input, filter, stride, padding, output: [Int]
    let groups: Int
    /// Row by row.
    let weights, pixels, values: [Float]
    let note: String?

    init(_ walk: ConvolutionWalk) {
      func pair(_ size: ConvolutionWalk.Size) -> [Int] { [size.height, size.width] }
      (input, filter, output) = (pair(walk.input), pair(walk.filter), pair(walk.output))
      (stride, padding) = (pair(walk.stride), pair(walk.padding))
      (weights, pixels, values) = (walk.weights, walk.pixels, walk.values)
      groups = walk.groups.count
      note = walk.isTheSourcesExample ? ConvolutionText.misprint.joined(separator: " ") : nil
    }
  }

  private struct GroupEvent: Encodable {
    var event = "group"
    let group: Int
    /// Output rows and columns.
    let positions: [[Int]]
    /// The numbers of the inputs that each filter element meets, 0 in the padding.
    let inputs: [[Int]]
    /// The gathered matrix, a row a position.
    let matrix: [[Float]]
    let sums: [Float]

    init(_ walk: ConvolutionWalk, _ index: Int) {
      let group = walk.groups[index]
      self.group = index + 1
      positions = group.positions.map { [$0.row, $0.column] }
      inputs = walk.weights.indices.map { walk.met(by: $0, in: index) }
      matrix = (0..<group.count).map { walk.gathered(index, $0) }
      sums = (0..<group.count).map { walk.sum(index, $0) }
    }
  }

  private struct CostEvent: Encodable {
    var event = "kernel"
    let variant: String
    let passes, gathered_bytes, held_bytes, multiply_adds: Int

    init(_ cost: ConvolutionWalk.Cost) {
      (variant, passes, multiply_adds) = (cost.variant, cost.passes, cost.multiplyAdds)
      (gathered_bytes, held_bytes) = (cost.gatheredBytes, cost.heldBytes)
    }
  }
}

extension ConvolutionWalk {
  /// How many groups are shown: all where these and their windows are still a picture.
  var shown: Int {
    groups.count <= 9 && max(input.height, input.width) <= ConvolutionPicture.largest
      ? groups.count : min(groups.count, 4)
  }

  /// "1, 3, 9, 11", or the first few and "…".
  func list(_ element: Int, _ group: Int, first count: Int) -> String {
    let rest = groups[group].count > count ? ", …" : ""
    return met(by: element, in: group, first: count).map(String.init).joined(separator: ", ") + rest
  }

  var heading: String {
    func pair(_ size: Size) -> String {
      size.height == size.width ? "\(size.height)" : Self.text(size)
    }
    return
      "A \(Self.text(filter)) filter over a \(Self.text(input)) input, stride \(pair(stride)), "
      + (padding == (0, 0) ? "no padding" : "padding \(pair(padding))")
  }

  var summary: String {
    "\(Self.count(values.count, "position")) in \(Self.count(groups.count, "stride group"))"
  }

  /// "E + F + G + H"
  var sumOfProducts: String {
    let count = weights.count
    let letters = (count..<2 * count).map(Self.letter)
    return (count <= 9 ? letters : [letters[0], letters[1], "…", letters[count - 1]])
      .joined(separator: " + ")
  }

  /// What a kernel does, in a few words.
  func way(_ cost: Cost) -> String {
    switch cost.variant {
    case "naive": "window after window, sum after sum"
    case "stride_groups": "a pass and a matrix product for each group"
    case "im2col": "all windows copied, overlaps and all; one product"
    default:
      "windows are read where they lie"
        + (padding == (0, 0) ? "" : ", in a copy with the zeros")
    }
  }

  static func count(_ count: Int, _ what: String) -> String {
    "\(count.grouped) \(what)\(count == 1 ? "" : what.hasSuffix("s") ? "es" : "s")"
  }
}

/// What `stridenet explain conv` prints.
struct ConvolutionText {
  static let misprint = [
    "cnn-numpy, where this example comes from, prints C × (5, 7, 9, 11) in group 1: a misprint.",
    "C meets 5, 7, 13 and 15.",
  ]

  private let walk: ConvolutionWalk
  private let isColoured: Bool
  private let width: Int

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
    var size = winsize()
    let isKnown = isTerminal && ioctl(STDOUT_FILENO, UInt(TIOCGWINSZ), &size) == 0
    width = isKnown && size.ws_col > 0 ? Int(size.ws_col) : 100
  }

  func lines() -> [String] {
    let groups = 0..<walk.shown
    var lines = [bold(walk.heading), "\(walk.summary)", ""]
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
    lines += [
      "", bold("1  The window slides"), "",
      "The plain loop makes a pass for each position, row by row:", "  \(positions)",
      "In a group no two windows overlap, so each filter element meets inputs of its own. An output is",
      "the sum of a window's products, \(walk.sumOfProducts):", "",
    ]
    lines += flow(groups.map { [title($0), ""] + drawing($0) + [""] + products($0) })
    lines += more
    lines += ["", bold("2  Gather, multiply, scatter"), ""]
    lines += [
      "A group's windows are the rows of a matrix; its product with the filter is the output at these",
      "positions. (All computed by the stride_groups kernel, and equal to what naive gives.)", "",
    ]
    for group in groups { lines += flow([matrix(group), scatter(group)]) + [""] }
    lines.removeLast()
    lines += more
    lines += [
      "", bold("3  Backward"), "",
      "Each window adds to the inputs that it holds. How many do so to each: all windows together, and",
      "those of one group, which never meet and so can be added in any order, or side by side:", "",
    ]
    lines += flow(
      [["all"] + grid(walk.input) { "\(walk.touches(($0, $1)))" }]
        + groups.map { group in
          [colour("group \(group + 1)", group)]
            + grid(
              walk.input,
              colour: { row, column in
                walk.groups[group].window(at: (row, column)) == nil ? nil : group
              }
            ) { walk.groups[group].window(at: ($0, $1)) == nil ? "·" : "1" }
        })
    lines += more
    lines += ["", bold("4  What each kernel does with it"), ""] + table() + [""]
    lines += [
      "For one image, channel and filter. \"At a time\" is the most of what is gathered that is in memory.",
      "The product copies a matrix once more, into the order in which it reads it.",
    ]
    if walk.costs.contains(where: { $0.variant == "stride_groups" && $0.heldBytes == 0 }) {
      lines.append("Here stride_groups copies windows straight into that order, and has no matrix.")
    }
    if walk.isTheSourcesExample { lines += ["", bold("Note"), ""] + Self.misprint }
    return lines.map { line in String(line.reversed().drop { $0 == " " }.reversed()) }
  }

  // MARK: Parts

  private func title(_ group: Int) -> String {
    let count = ConvolutionWalk.count(walk.groups[group].count, "window")
    return colour("group \(group + 1)", group) + ": " + count
  }

  private var more: [String] {
    let (all, shown) = (walk.groups.count, walk.shown)
    return all == shown
      ? []
      : [
        "",
        "… and \(ConvolutionWalk.count(all - shown, "more group")), the last with "
          + ConvolutionWalk.count(walk.groups[all - 1].count, "window"),
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
  private func products(_ group: Int) -> [String] {
    let count = walk.weights.count
    let lines = (0..<min(count, mostElements)).map { element in
      let (name, product) = (
        ConvolutionWalk.letter(element), ConvolutionWalk.letter(count + element)
      )
      return "\(product) = \(name) × (\(walk.list(element, group, first: mostInList)))"
    }
    return lines + (count > lines.count ? ["…"] : [])
  }

  /// The input, padding included, with a frame around each window of a group.
  private func drawing(_ index: Int) -> [String] {
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
    var lines: [String] = []
    for row in 0...shown.0 {
      var (border, content) = ("", "")
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
            content += window(row, column) == nil || number == "0" ? dim(padded) : padded
          }
        }
      }
      lines.append(colour(border, index))
      if row < shown.0 { lines.append(content + (padded.width > shown.1 ? " …" : "")) }
    }
    return lines + (padded.height > shown.0 ? ["⋮"] : [])
  }

  /// A group's matrix, the products and their sums.
  private func matrix(_ index: Int) -> [String] {
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
        return column == last && row[0] != "" ? colour(text, index) : text
      }.joined(separator: "  ")
    }
    if group.count > mostInList {
      lines.append("⋮ \((group.count - mostInList).grouped) more rows")
    }
    return [title(index) + ", a matrix of \(group.count.grouped) × \(count)", ""] + lines
  }

  /// The output after a group, its part in its colour.
  private func scatter(_ index: Int) -> [String] {
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
    let widths = heading.indices.map { column in rows.map { $0[column].count }.max()! }
    return rows.map { row in
      row.indices.map { column in
        column == 0 || column == heading.count - 1
          ? row[column].padded(widths[column]) : row[column].leftPadded(widths[column])
      }.joined(separator: "  ")
    }
  }

  // MARK: Layout

  /// All, or fewer where there are too many: what is cut off anyway may as well be short.
  private func cut(_ count: Int, _ most: Int) -> Int { count <= most ? count : most * 5 / 8 }

  /// A table of short texts, cut off where it is large. Without a colour a text is dim.
  private func grid(
    _ size: ConvolutionWalk.Size, colour of: ((Int, Int) -> Int?)? = nil,
    _ text: (Int, Int) -> String
  ) -> [String] {
    let (rows, columns) = (cut(size.height, mostRows), cut(size.width, mostColumns))
    let texts = (0..<rows).map { row in (0..<columns).map { text(row, $0) } }
    let cell = texts.joined().map(\.count).max()!
    let lines = texts.enumerated().map { row, texts in
      texts.enumerated().map { column, text in
        let text = text.leftPadded(cell)
        guard let of else { return text }
        return of(row, column).map { colour(text, $0) } ?? dim(text)
      }.joined(separator: "  ") + (size.width > columns ? "  …" : "")
    }
    return lines + (size.height > rows ? ["⋮".leftPadded(cell)] : [])
  }

  /// Blocks side by side, as many as the width holds.
  private func flow(_ blocks: [[String]]) -> [String] {
    func visible(_ line: String) -> Int { line.replacing(/\u{1b}\[[0-9;]*m/, with: "").count }
    let gap = 3
    var (rows, row, used): ([[[String]]], [[String]], Int) = ([], [], 0)
    for block in blocks {
      let size = block.map(visible).max()! + gap
      if !row.isEmpty && used + size - gap > width - 2 {
        rows.append(row)
        (row, used) = ([], 0)
      }
      row.append(block)
      used += size
    }
    rows.append(row)
    return Array(
      rows.map { row in
        (0..<row.map(\.count).max()!).map { index in
          "  "
            + row.map { block in
              let line = index < block.count ? block[index] : ""
              return line
                + String(repeating: " ", count: block.map(visible).max()! - visible(line))
            }.joined(separator: String(repeating: " ", count: gap))
        }
      }.joined(separator: [""]))
  }

  // MARK: Colour

  private func code(_ code: String, _ text: String) -> String {
    isColoured ? "\u{1b}[\(code)m\(text)\u{1b}[0m" : text
  }
  private func bold(_ text: String) -> String { code("1", text) }
  private func dim(_ text: String) -> String { code("2", text) }
  /// Of the terminal's own colours, so that they fit its background.
  private func colour(_ text: String, _ group: Int) -> String {
    let codes = ["36", "33", "35", "32", "34", "31", "96", "93", "95"]
    return code(codes[group % codes.count], text)
  }
}
