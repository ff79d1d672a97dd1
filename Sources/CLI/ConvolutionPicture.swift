import StrideNet

/// What `stridenet explain conv` draws: `--svg`, all at once, and `--animate`, step by step. Both
/// follow the reader's light or dark mode; neither needs a script or a font of its own.
struct ConvolutionPicture {
  /// The largest input, padding included, that a picture holds.
  static let largest = 16

  private let walk: ConvolutionWalk
  private let padded: ConvolutionWalk.Size
  private var body = ""

  private init(_ walk: ConvolutionWalk) throws {
    let padded = walk.padded
    guard max(padded.height, padded.width) <= Self.largest else {
      throw StrideNetError(
        .usage, "too large for a picture",
        found: ConvolutionWalk.text(padded) + (walk.padding == (0, 0) ? "" : ", padding included"),
        expected: "at most \(Self.largest)×\(Self.largest)",
        hint: "take a smaller input, or the text alone")
    }
    (self.walk, self.padded) = (walk, padded)
  }

  // MARK: Elements

  private static let style = """
    text{font-family:system-ui,-apple-system,"Segoe UI",Roboto,Helvetica,Arial,"DejaVu Sans",sans-serif;\
    font-size:13px;fill:#1f2328;font-variant-numeric:tabular-nums}
    .paper{fill:#fff}.card{fill:#f6f8fa;stroke:#d8dee4}
    .cell{fill:#fff;stroke:#d0d7de}.zero{fill:#eef1f4;stroke:#d0d7de}
    .soft{fill:#59636e}.faint{fill:#a4adb6}.rule{stroke:#d0d7de}
    .hue{fill:currentColor}.wash{fill:currentColor;fill-opacity:.16;stroke:currentColor}
    .frame{fill:currentColor;fill-opacity:.13;stroke:currentColor;stroke-width:2.5}
    .b{font-weight:600}.m{text-anchor:middle}.e{text-anchor:end}
    .h1{font-size:22px;font-weight:600}.h2{font-size:16px;font-weight:600}
    .g0{color:#0969da}.g1{color:#cf4a0c}.g2{color:#1a7f37}.g3{color:#8e3fc4}.g4{color:#9a6700}
    .g5{color:#0b7a86}.g6{color:#c2255c}.g7{color:#8a5a2b}.g8{color:#57606a}
    @media(prefers-color-scheme:dark){
    text{fill:#e6edf3}.paper{fill:#0d1117}.card{fill:#151b23;stroke:#30363d}
    .cell{fill:#0d1117;stroke:#3d444d}.zero{fill:#1c232c;stroke:#3d444d}
    .soft{fill:#9198a1}.faint{fill:#5b646e}.rule{stroke:#3d444d}.hue{fill:currentColor}
    .wash{fill-opacity:.25}.frame{fill-opacity:.22}
    .g0{color:#58a6ff}.g1{color:#ff9248}.g2{color:#4cc964}.g3{color:#c792f5}.g4{color:#e3b341}
    .g5{color:#39c5cf}.g6{color:#ff80ab}.g7{color:#d3a173}.g8{color:#a8b1bb}
    }
    """

  private func document(_ width: Double, _ height: Double, _ style: String) -> String {
    """
    <svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 \(f(width)) \(f(height))" \
    width="\(f(width))" height="\(f(height))" role="img">
    <title>\(walk.heading)</title>
    <desc>\(walk.summary), the numbers that each gathers, and where its results go.</desc>
    <style>
    \(Self.style)
    \(style)</style>
    <rect class="paper" width="100%" height="100%"/>
    \(body)</svg>

    """
  }

  private func f(_ value: Double) -> String {
    value == value.rounded() ? "\(Int(value))" : value.fixed(1)
  }

  private mutating func text(
    _ x: Double, _ y: Double, _ text: String, _ classes: String = "", size: Double? = nil,
    style: String = ""
  ) {
    let look = (size.map { "font-size:\(f($0))px;" } ?? "") + style
    body +=
      "<text x=\"\(f(x))\" y=\"\(f(y))\"" + (classes.isEmpty ? "" : " class=\"\(classes)\"")
      + (look.isEmpty ? "" : " style=\"\(look)\"") + ">\(text)</text>\n"
  }

  private mutating func rect(
    _ x: Double, _ y: Double, _ width: Double, _ height: Double, _ classes: String,
    radius: Double = 0, style: String = ""
  ) {
    body +=
      "<rect x=\"\(f(x))\" y=\"\(f(y))\" width=\"\(f(width))\" height=\"\(f(height))\""
      + (radius > 0 ? " rx=\"\(f(radius))\"" : "") + " class=\"\(classes)\""
      + (style.isEmpty ? "" : " style=\"\(style)\"") + "/>\n"
  }

  /// What `draw` draws, as a group with a class.
  private mutating func inside(
    _ classes: String, style: String = "", _ draw: (inout Self) -> Void
  ) {
    body += "<g class=\"\(classes)\"" + (style.isEmpty ? "" : " style=\"\(style)\"") + ">\n"
    draw(&self)
    body += "</g>\n"
  }

  /// A cell with a number in its middle.
  private mutating func cell(
    _ x: Double, _ y: Double, _ width: Double, _ height: Double, _ number: String,
    box: String = "cell", ink: String = "", style: String = ""
  ) {
    // Coloured ones stand apart, so that neighbours' colours don't run into each other.
    let (inset, radius) = box.hasPrefix("wash") ? (1.5, 3.0) : (0, 0)
    rect(
      x + inset, y + inset, width - 2 * inset, height - 2 * inset, box, radius: radius, style: style
    )
    guard !number.isEmpty else { return }
    let size = min(14, height * 0.52, 1.35 * width / Double(max(2, number.count)))
    text(
      x + width / 2, y + height / 2 + size * 0.36, number, "m" + (ink.isEmpty ? "" : " " + ink),
      size: size, style: style)
  }

  /// The input with its padding; dim where `isDim` says so.
  private mutating func inputs(
    _ x: Double, _ y: Double, _ side: Double, isDim: (Int, Int) -> Bool = { _, _ in false }
  ) {
    for row in 0..<padded.height {
      for column in 0..<padded.width {
        let place = (row - walk.padding.height, column - walk.padding.width)
        let number = walk.number(place)
        cell(
          x + Double(column) * side, y + Double(row) * side, side, side, "\(number)",
          box: number == 0 ? "zero" : "cell", ink: isDim(place.0, place.1) ? "faint" : "")
      }
    }
  }

  /// A window of the input, as a frame.
  private mutating func frame(
    _ position: (row: Int, column: Int), _ x: Double, _ y: Double, _ side: Double,
    _ classes: String = "frame", style: String = ""
  ) {
    rect(
      x + Double(position.column * walk.stride.width) * side + 2,
      y + Double(position.row * walk.stride.height) * side + 2,
      Double(walk.filter.width) * side - 4, Double(walk.filter.height) * side - 4, classes,
      radius: 5, style: style)
  }

  // MARK: Sizes

  private func number(_ value: Float) -> String { "\(Int(value))" }

  private func side(_ room: Double, _ most: Double) -> Double {
    max(20, min(most, (room / Double(max(padded.width, padded.height))).rounded(.down)))
  }

  /// An output cell: as wide as its largest number needs, or a plain square where there are many.
  private func outputCell(_ room: Double, _ most: Double) -> (width: Double, hasNumbers: Bool) {
    let digits = walk.values.map { number($0).count }.max()!
    let width = min(
      most, (room / Double(max(walk.output.width, walk.output.height))).rounded(.down))
    return width >= Double(digits) * 7 + 6 ? (width, true) : (max(12, min(width, 18)), false)
  }

  private func hue(_ group: Int) -> String { "g\(group % 9)" }

  /// Rows and columns of a group's matrix that are drawn.
  private let mostRows = 6
  private let mostColumns = 9
  private var columns: Int { min(walk.weights.count, mostColumns) }
  private func rows(_ group: Int) -> Int { min(walk.groups[group].count, mostRows) }

  // MARK: The still picture

  static func still(_ walk: ConvolutionWalk) throws -> String {
    var picture = try Self(walk)
    return picture.drawStill()
  }

  private mutating func drawStill() -> String {
    let walk = walk
    let (margin, gap, inset) = (32.0, 20.0, 18.0)
    let side = side(300, 46)
    let out = outputCell(300, 52)
    let step = 28.0  // of the matrix
    let isCut = walk.weights.count > columns
    let matrixWidth = Double(columns + (isCut ? 1 : 0)) * step + 122
    let listWidth =
      Double(
        (0..<walk.shown).flatMap { group in
          (0..<columns).map { walk.list($0, group, first: 5).count + 8 }
        }.max()!) * 7.2
    let content = max(
      Double(padded.width) * side, matrixWidth, listWidth, Double(walk.output.width) * out.width)
    let least = (content + 2 * inset).rounded(.up)
    // Rows of cards as equal as can be, and as wide as what is below.
    let fitting = max(1, min(walk.shown, Int((1400 + gap) / (least + gap))))
    let perRow = Int(
      (Double(walk.shown) / Double((walk.shown + fitting - 1) / fitting)).rounded(.up))
    let inner = max(980, Double(perRow) * (least + gap) - gap)
    let card = min(max(least, 480), (inner + gap) / Double(perRow) - gap)
    let width = inner + 2 * margin

    text(margin, 50, "\(walk.heading)", "h1")
    text(
      margin, 76,
      "\(walk.summary): one matrix product each, and no two windows of a group overlap.",
      "soft", size: 14)
    var y = 116.0
    y = drawOperands(margin, y, width - margin, side, out) + 48

    text(
      margin, y, "Each group: gather its windows, multiply by the filter, scatter the sums", "h2")
    y += 20
    let grids = (
      top: 58.0, lists: 58 + Double(padded.height) * side + 28,
      lines: Double(columns + (isCut ? 1 : 0)) * 21
    )
    let matrix = grids.lists + grids.lines + 32
    let most = (0..<walk.shown).map(rows).max()!
    let isLong = (0..<walk.shown).contains { walk.groups[$0].count > mostRows }
    let scatter = matrix + Double(most) * step + (isLong ? 20 : 0) + 40
    let cardHeight = scatter + Double(walk.output.height) * (out.hasNumbers ? 28 : out.width) + 20
    for group in 0..<walk.shown {
      let (left, top) = (
        margin + Double(group % perRow) * (card + gap),
        y + Double(group / perRow) * (cardHeight + gap)
      )
      inside(hue(group)) { picture in
        picture.rect(left, top, card, cardHeight, "card", radius: 10)
        let x = left + inset
        picture.text(x, top + 32, "Group \(group + 1)", "hue b", size: 16)
        picture.text(
          left + card - inset, top + 32,
          ConvolutionWalk.count(walk.groups[group].count, "window"), "soft e")
        picture.inputs(x, top + grids.top, side) {
          walk.groups[group].window(at: ($0, $1)) == nil
        }
        for position in walk.groups[group].positions {
          picture.frame(position, x, top + grids.top, side)
        }
        picture.drawLists(group, x, top + grids.lists)
        picture.drawMatrix(group, x, top + matrix, step)
        picture.text(x, top + scatter - 10, "output after group \(group + 1)", "soft", size: 12)
        picture.drawOutput(x, top + scatter, out, upTo: group)
      }
    }
    y += Double((walk.shown + perRow - 1) / perRow) * (cardHeight + gap)
    if walk.shown < walk.groups.count {
      text(margin, y + 12, "… and \(walk.groups.count - walk.shown) more groups", "soft", size: 14)
      y += 30
    }
    y = drawBackward(margin, y + 26, width - margin) + 44
    y = drawTable(margin, y, width - margin)
    if walk.isTheSourcesExample {
      y += 34
      text(margin, y, "Note", "b")
      text(margin + 42, y, ConvolutionText.misprint.joined(separator: " "), "soft")
    }
    return document(width, y + 30, "")
  }

  /// Input, filter and output side by side; returns where they end.
  private mutating func drawOperands(
    _ left: Double, _ top: Double, _ right: Double, _ side: Double,
    _ out: (width: Double, hasNumbers: Bool)
  ) -> Double {
    let walk = walk
    let (rows, columns) = (min(walk.filter.height, 8), min(walk.filter.width, 8))
    let (filterSide, outHeight) = (max(side, 34), out.hasNumbers ? 28 : out.width)
    let heights = (
      Double(padded.height) * side, Double(rows) * side, Double(walk.output.height) * outHeight
    )
    let middle = top + 14 + max(heights.0, heights.1, heights.2) / 2
    var x = left
    func sign(_ picture: inout Self, _ sign: String) {
      picture.text(x + 26, middle + 8, sign, "m soft", size: 22)
      x += 52
    }
    let input = middle - heights.0 / 2
    text(x, input - 14, walk.padding == (0, 0) ? "input" : "input, with zeros around it", "soft")
    inputs(x, input, side)
    x += Double(padded.width) * side
    sign(&self, "∗")
    let filter = middle - heights.1 / 2
    let isCut = rows < walk.filter.height || columns < walk.filter.width
    text(x, filter - 14, isCut ? "filter, its first elements" : "filter", "soft")
    for row in 0..<rows {
      for column in 0..<columns {
        let element = row * walk.filter.width + column
        let (letter, weight) = (ConvolutionWalk.letter(element), number(walk.weights[element]))
        cell(
          x + Double(column) * filterSide, filter + Double(row) * side, filterSide, side,
          "\(letter)=\(weight)")
      }
    }
    x += Double(columns) * filterSide
    sign(&self, "=")
    let output = middle - heights.2 / 2
    text(x, output - 14, "output, in its groups’ colours", "soft")
    drawOutput(x, output, out, upTo: walk.groups.count)
    x += max(Double(walk.output.width) * out.width, 180) + 48
    if right - x > 300 {
      let lines = [
        "Inputs are numbered row by row, and have", "these numbers as their values.",
        "An output is the sum of a window’s products,", walk.sumOfProducts + ".",
      ]
      for (index, line) in lines.enumerated() {
        text(x, middle - 34 + Double(index) * 22 + (index > 1 ? 8 : 0), line, "soft", size: 14)
      }
    }
    return 2 * middle - top - 14
  }

  /// "E = A × (1, 3, 9, 11)" and so on.
  private mutating func drawLists(_ group: Int, _ x: Double, _ y: Double) {
    for element in 0..<columns {
      let (name, product) = (
        ConvolutionWalk.letter(element), ConvolutionWalk.letter(walk.weights.count + element)
      )
      body +=
        "<text x=\"\(f(x))\" y=\"\(f(y + Double(element) * 21))\">\(product) = <tspan class=\"hue b\">"
        + "\(name)</tspan> × (\(walk.list(element, group, first: 5)))</text>\n"
    }
    if walk.weights.count > columns { text(x, y + Double(columns) * 21, "…") }
  }

  /// Gathered matrix · filter = sums.
  private mutating func drawMatrix(_ group: Int, _ x: Double, _ y: Double, _ step: Double) {
    let (rows, isCut) = (rows(group), walk.weights.count > columns)
    let end = x + Double(columns) * step
    for element in 0..<columns {
      text(
        x + (Double(element) + 0.5) * step, y - 8, ConvolutionWalk.letter(element), "m hue b",
        size: 12)
    }
    for row in 0..<rows {
      let (values, top) = (walk.gathered(group, row), y + Double(row) * step)
      for element in 0..<columns {
        cell(
          x + Double(element) * step, top, step, step, number(values[element]), box: "wash")
      }
      if isCut { text(end + step / 2, top + step * 0.65, "…", "m soft") }
    }
    let sums = end + (isCut ? step : 0) + 74
    // As many as the filter has, however few the rows.
    text(sums - 37, y + Double(rows) * step / 2 + 5, "· filter =", "m soft")
    for row in 0..<rows {
      cell(
        sums, y + Double(row) * step, 46, step, number(walk.sum(group, row)), box: "wash", ink: "b")
    }
    if walk.groups[group].count > rows {
      text(
        x, y + Double(rows) * step + 16, "⋮ \(walk.groups[group].count - rows) more rows", "soft",
        size: 12)
    }
  }

  /// The output as it is after a group, which alone is in full colour; or all of it in colours.
  private mutating func drawOutput(
    _ x: Double, _ y: Double, _ out: (width: Double, hasNumbers: Bool), upTo last: Int
  ) {
    let height = out.hasNumbers ? 28 : out.width
    let isAll = last == walk.groups.count
    for row in 0..<walk.output.height {
      for column in 0..<walk.output.width {
        let group = walk.group(row, column)
        let isOwn = isAll || group == last
        let value = walk.values[row * walk.output.width + column]
        cell(
          x + Double(column) * out.width, y + Double(row) * height, out.width, height,
          out.hasNumbers && group <= last ? number(value) : "",
          box: isOwn ? "wash \(hue(group))" : group < last ? "zero" : "cell",
          ink: isOwn ? "b" : "soft")
      }
    }
  }

  /// How many windows add to each input's gradient.
  private mutating func drawBackward(_ left: Double, _ top: Double, _ right: Double) -> Double {
    text(left, top, "Backward: how many windows add to each input’s gradient", "h2")
    let walk = walk
    let drawn = min(walk.shown, 4)
    let room = (right - left) / Double(drawn + 1) - 36
    let side = min(26, (room / Double(walk.input.width)).rounded(.down))
    let places = (0..<walk.input.height).map { row in
      (0..<walk.input.width).map { walk.touches((row, $0)) }
    }
    let y = top + 42
    let across = max(Double(walk.input.width) * side, 110) + 30
    text(left, y - 10, "all at once: up to \(places.joined().max()!)", "soft", size: 12)
    for (row, line) in places.enumerated() {
      for (column, count) in line.enumerated() {
        cell(
          left + Double(column) * side, y + Double(row) * side, side, side, "\(count)",
          ink: count > 1 ? "b" : count == 0 ? "faint" : "")
      }
    }
    for group in 0..<drawn {
      inside(hue(group)) { picture in
        let x = left + Double(group + 1) * across
        picture.text(x, y - 10, "group \(group + 1): at most 1", "hue", size: 12)
        for row in 0..<walk.input.height {
          for column in 0..<walk.input.width {
            let isHeld = walk.groups[group].window(at: (row, column)) != nil
            picture.cell(
              x + Double(column) * side, y + Double(row) * side, side, side,
              isHeld && side >= 14 ? "1" : "", box: isHeld ? "wash" : "cell")
          }
        }
      }
    }
    if walk.groups.count > drawn {
      text(left + Double(drawn + 1) * across, y - 10, "…", "soft")
    }
    return y + Double(walk.input.height) * side
  }

  private mutating func drawTable(_ left: Double, _ top: Double, _ right: Double) -> Double {
    text(left, top, "What each kernel does with this input", "h2")
    let ends = [left + 220, left + 330, left + 440, left + 560]
    var y = top + 32
    text(left, y, "kernel", "soft")
    for (end, heading) in zip(ends, ["passes", "gathered", "at a time", "multiply-adds"]) {
      text(end, y, heading, "soft e")
    }
    for cost in walk.costs {
      body += "<path class=\"rule\" d=\"M\(f(left)) \(f(y + 10))H\(f(right))\"/>\n"
      y += 30
      text(left, y, cost.variant, "b")
      let numbers = [
        cost.passes.grouped, "\(cost.gatheredBytes.grouped) B", "\(cost.heldBytes.grouped) B",
        cost.multiplyAdds.grouped,
      ]
      for (end, number) in zip(ends, numbers) { text(end, y, number, "e") }
      text(left + 590, y, walk.way(cost), "soft")
    }
    return y
  }
}

extension ConvolutionPicture {
  // MARK: The moving picture

  /// Seconds. Every animation lasts for the whole and starts over with it; what happens to many
  /// things one after the other is one set of keyframes, shifted by negative delays.
  private struct Timeline {
    /// A position of the plain loop, a group; all positions, all groups, everything.
    let step, turn, first, second, all: Double

    init(positions: Int, groups: Int) {
      step = max(0.1, min(0.8, 9 / Double(positions)))
      turn = max(2.8, min(4.8, 26 / Double(groups)))
      (first, second) = (Double(positions) * step + 1.2, Double(groups) * turn)
      all = first + second + 3
    }

    /// When a group's turn begins.
    func start(_ group: Int) -> Double { first + Double(group) * turn }
    func percent(_ time: Double) -> String { "\((100 * time / all).fixed(2))%" }
    /// Shifts keyframes that begin at 0.
    func delay(_ time: Double) -> String { "animation-delay:\((time - all).fixed(2))s" }
  }

  static func animated(_ walk: ConvolutionWalk) throws -> String {
    var picture = try Self(walk)
    return picture.drawAnimated()
  }

  private mutating func drawAnimated() -> String {
    let walk = walk
    let time = Timeline(positions: walk.values.count, groups: walk.shown)
    let (margin, top, step) = (40.0, 148.0, 36.0)
    let side = side(300, 60)
    let out = outputCell(240, 60)
    let isCut = walk.weights.count > columns
    let outHeight = out.hasNumbers ? min(out.width, 46) : out.width
    let most = (0..<walk.shown).map(rows).max()!
    let matrix = margin + Double(padded.width) * side + 56
    let sums = matrix + Double(columns + (isCut ? 1 : 0)) * step + 40
    let output = sums + 54 + 56
    let width = max(760, output + Double(walk.output.width) * out.width + margin)
    let foot = max(
      Double(padded.height) * side, Double(most + 1) * step + 34,
      Double(walk.output.height) * outHeight)
    let bars = top + foot + 44

    text(margin, 46, walk.heading, "h1")
    inside("one") { picture in
      picture.text(
        margin, 78,
        "The plain loop slides the window: a pass for each of "
          + ConvolutionWalk.count(walk.values.count, "position"), "soft", size: 15)
    }
    inside("two") { picture in
      picture.text(
        margin, 78, "Stride groups: windows that don’t overlap go together", "soft", size: 15)
    }
    text(margin, top - 14, "input", "soft")
    text(output, top - 14, "output", "soft")
    inputs(margin, top, side)
    for row in 0..<walk.output.height {
      for column in 0..<walk.output.width {
        rect(
          output + Double(column) * out.width, top + Double(row) * outHeight, out.width, outHeight,
          "cell")
      }
    }

    // The plain loop.
    inside("one") { picture in
      picture.frame((0, 0), margin, top, side, "frame g8 slide")
      for index in walk.values.indices {
        let (row, column) = (index / walk.output.width, index % walk.output.width)
        let delay = time.delay(Double(index) * time.step)
        let group = walk.group(row, column)
        let window = walk.groups[group].positions.firstIndex { $0 == (row, column) }!
        let terms = zip(walk.gathered(group, window), walk.weights).map {
          "\(picture.number($1))·\(picture.number($0))"
        }
        let sum = picture.number(walk.values[index])
        picture.inside("slot", style: delay) { picture in
          if terms.count <= 4 {
            picture.text(matrix, top + 70, terms.joined(separator: " + "), size: 16)
          } else {
            picture.text(matrix, top + 70, "\(terms.count) products", "soft", size: 16)
          }
          picture.text(matrix, top + 102, "= \(sum)", "b", size: 20)
          picture.text(matrix, top + 130, "pass \(index + 1)", "soft")
        }
        picture.inside("g8") { picture in
          picture.cell(
            output + Double(column) * out.width, top + Double(row) * outHeight, out.width,
            outHeight, out.hasNumbers ? sum : "", box: "wash keep", ink: "keep", style: delay)
        }
      }
    }

    // The groups.
    for element in 0..<columns {
      let (letter, weight) = (
        ConvolutionWalk.letter(element), number(walk.weights[element])
      )
      cell(matrix + Double(element) * step, top, step, step - 6, "\(letter)=\(weight)", box: "zero")
    }
    if isCut { text(matrix + (Double(columns) + 0.5) * step, top + 20, "…", "m soft") }
    text(matrix, top - 14, "filter", "soft")
    let first = top + step + 8
    for group in 0..<walk.shown {
      let delay = time.delay(time.start(group))
      inside("turn \(hue(group))" + (group == 0 ? "" : " off"), style: delay) { picture in
        let heading =
          "Group \(group + 1) of \(walk.groups.count), "
          + ConvolutionWalk.count(walk.groups[group].count, "window")
        picture.text(margin, 110, heading, "hue b", size: 16)
        for (index, word) in ["gather", "multiply", "scatter"].enumerated() {
          picture.text(
            [matrix, matrix + 80, matrix + 170][index], 110, word, "hue b word w\(index)", size: 16,
            style: delay)
        }
        for position in walk.groups[group].positions {
          picture.frame(position, margin, top, side, "frame rise", style: delay)
        }
        for row in 0..<picture.rows(group) {
          let (position, values) = (walk.groups[group].position(row), walk.gathered(group, row))
          let y = first + Double(row) * step
          let late = time.delay(time.start(group) + Double(row) * time.turn * 0.03)
          for element in 0..<picture.columns {
            let x = matrix + Double(element) * step
            let from = (
              x: margin
                + (Double(position.column * walk.stride.width + element % walk.filter.width) + 0.5)
                * side - x - step / 2,
              y: top
                + (Double(position.row * walk.stride.height + element / walk.filter.width) + 0.5)
                * side - y - step / 2
            )
            picture.flight(from, "fly", style: late) {
              $0.chip(x, y, step, step, $0.number(values[element]))
            }
          }
          if isCut {
            picture.text(
              matrix + (Double(picture.columns) + 0.5) * step, y + step * 0.62, "…", "m soft sum",
              style: delay)
          }
          picture.text(sums - 20, y + step * 0.64, "=", "m soft sum", style: delay)
          picture.cell(
            sums, y, 54, step, picture.number(walk.sum(group, row)), box: "wash sum", ink: "b sum",
            style: delay)
        }
        if walk.groups[group].count > picture.rows(group) {
          picture.text(
            matrix, first + Double(most) * step + 18,
            "⋮ \(walk.groups[group].count - picture.rows(group)) more rows", "soft rise",
            style: delay)
        }
      }
    }
    inside("two") { picture in
      for (group, members) in walk.groups.enumerated() {
        picture.inside(picture.hue(group)) { picture in
          let land = "land\(min(group, walk.shown))"
          for (window, position) in members.positions.enumerated() {
            let x = output + Double(position.column) * out.width
            let y = top + Double(position.row) * outHeight
            // From its row of the sums, where that is drawn.
            let isDrawn = group < walk.shown && window < picture.rows(group)
            let from = (
              x: isDrawn ? sums + 27 - x - out.width / 2 : 0,
              y: isDrawn ? first + (Double(window) + 0.5) * step - y - outHeight / 2 : 0
            )
            picture.flight(from, land) {
              $0.chip(
                x, y, out.width, outHeight,
                out.hasNumbers ? $0.number(walk.sum(group, window)) : "", ink: "b")
            }
          }
        }
      }
    }
    let rest = walk.groups.count - walk.shown
    inside("end off") { picture in
      picture.text(
        margin, 110,
        (rest > 0 ? "… and \(rest) more groups. " : "")
          + "The same output, in \(ConvolutionWalk.count(walk.groups.count, "pass")) instead of "
          + walk.values.count.grouped, "b", size: 16)
    }
    drawBars(margin, bars, width - 2 * margin)
    return document(width, bars + 74, style(time, side))
  }

  /// What comes to its place from elsewhere.
  private mutating func flight(
    _ from: (x: Double, y: Double), _ classes: String, style: String = "",
    _ draw: (inout Self) -> Void
  ) {
    inside(classes, style: "--x:\(f(from.x))px;--y:\(f(from.y))px;\(style)", draw)
  }

  /// A coloured cell that hides what it flies over.
  private mutating func chip(
    _ x: Double, _ y: Double, _ width: Double, _ height: Double, _ number: String, ink: String = ""
  ) {
    rect(x + 1.5, y + 1.5, width - 3, height - 3, "paper", radius: 3)
    cell(x, y, width, height, number, box: "wash", ink: ink)
  }

  /// How many passes each takes, filling up.
  private mutating func drawBars(_ left: Double, _ top: Double, _ room: Double) {
    let label = 110.0
    let count = walk.values.count
    let unit = min(26, (room - label - 90) / Double(count))
    for (index, name) in ["naive", "stride groups"].enumerated() {
      let y = top + Double(index) * 28
      let passes = index == 0 ? count : walk.groups.count
      text(left, y + 13, name, "soft")
      text(
        left + label + Double(passes) * unit + 12, y + 13,
        ConvolutionWalk.count(passes, "pass"), "soft")
      let gap = unit > 6 ? 2.0 : 0
      for pass in 0..<passes {
        rect(
          left + label + Double(pass) * unit, y, unit - gap, 16, gap > 0 ? "zero" : "zero bare",
          radius: gap)
      }
      if index == 0 {
        // One bar that grows in steps, with gaps in the paper's colour over it.
        rect(left + label, y, Double(count) * unit - gap, 16, "hue g8 fill")
        for pass in 1..<max(1, passes) where gap > 0 {
          rect(left + label + Double(pass) * unit - gap, y - 1, gap, 18, "paper")
        }
        continue
      }
      for pass in 0..<passes {
        rect(
          left + label + Double(pass) * unit, y, unit - gap, 16,
          "hue \(hue(pass)) on\(min(pass, walk.shown))", radius: gap)
      }
    }
  }

  /// The keyframes. Without motion the picture is that of the first group, with the whole output.
  private func style(_ time: Timeline, _ side: Double) -> String {
    let turn = time.turn
    func at(_ part: Double) -> String { time.percent(part * turn) }
    let away = "transform:translate(var(--x),var(--y))"
    var names: [String] = []
    var frames = ""
    func add(_ name: String, _ keyframes: String) {
      names.append(".\(name){animation-name:\(name)}")
      frames += "@keyframes \(name){\(keyframes)}\n"
    }
    let last = time.percent(time.all - 0.3)
    let middle = time.percent(time.first)
    add("one", "0%,\(time.percent(time.first - 0.2)){opacity:1}\(middle),100%{opacity:0}")
    add(
      "two",
      "0%,\(time.percent(time.first - 0.2)){opacity:0}\(middle),\(last){opacity:1}100%{opacity:0}")
    add(
      "slot",
      "0%,\(time.percent(time.step * 0.98)){opacity:1}\(time.percent(time.step)),100%{opacity:0}")
    add(
      "keep",
      "0%,\(time.percent(time.first)){opacity:1}\(time.percent(time.first + 0.05)),100%{opacity:0}")
    add("turn", "0%{opacity:0}\(at(0.05)),\(at(0.95)){opacity:1}\(at(1)),100%{opacity:0}")
    add("rise", "0%{opacity:0}\(at(0.1)),100%{opacity:1}")
    add(
      "fly",
      "0%,\(at(0.1)){opacity:0;\(away)}\(at(0.13)){opacity:1;\(away)}"
        + "\(at(0.4)),\(at(1)){opacity:1;transform:none}\(at(1.01)),100%{opacity:0;transform:none}")
    add("sum", "0%,\(at(0.5)){opacity:0}\(at(0.57)),100%{opacity:1}")
    for (index, (from, to)) in [(0.0, 0.4), (0.4, 0.62), (0.62, 1)].enumerated() {
      add(
        "w\(index)",
        "0%\(index == 0 ? "" : ",\(at(from))"){opacity:\(index == 0 ? 1 : 0.25)}"
          + "\(at(from + 0.03)),\(at(to)){opacity:1}\(at(to + 0.03)),100%{opacity:.25}")
    }
    for group in 0...walk.shown {
      let start = time.start(group)
      let hasFlight = group < walk.shown
      let (from, to) = hasFlight ? (start + 0.64 * turn, start + 0.88 * turn) : (start, start + 0.5)
      add(
        "land\(group)",
        "0%,\(time.percent(from)){opacity:0;\(away)}"
          + "\(time.percent(from + 0.1)){opacity:1;\(away)}"
          + "\(time.percent(to)),100%{opacity:1;transform:none}")
      add(
        "on\(group)",
        "0%,\(time.percent(start)){opacity:0}\(time.percent(start + 0.2)),\(last){opacity:1}100%{opacity:0}"
      )
    }
    let end = time.first + time.second
    add(
      "end",
      "0%,\(time.percent(end)){opacity:0}\(time.percent(end + 0.3)),\(last){opacity:1}100%{opacity:0}"
    )
    add(
      "fill",
      "0%{transform:scaleX(0);animation-timing-function:steps(\(walk.values.count),start)}"
        + "\(time.percent(Double(walk.values.count) * time.step)),\(last){transform:none;opacity:1}"
        + "100%{transform:none;opacity:0}")
    let slides = walk.values.indices.map { index in
      let (row, column) = (index / walk.output.width, index % walk.output.width)
      let move =
        "{transform:translate(\(f(Double(column * walk.stride.width) * side))px,"
        + "\(f(Double(row * walk.stride.height) * side))px)}"
      let start = Double(index) * time.step
      return "\(time.percent(start)),\(time.percent(start + time.step * 0.7))\(move)"
    }
    add("slide", slides.joined())
    return """
      .one,.off{opacity:0}.bare{stroke:none}.fill{transform-box:fill-box}
      @media(prefers-reduced-motion:no-preference){
      .one,.two,.slot,.keep,.turn,.rise,.fly,.sum,.word,.end,.slide,.fill,[class*=land],[class*=" on"]\
      {animation:none \(time.all.fixed(2))s ease-in-out infinite}
      \(names.joined(separator: "\n"))
      \(frames)}

      """
  }
}
