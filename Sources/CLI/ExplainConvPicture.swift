import StrideNet

/// What `stridenet explain conv` draws: `--svg`, all at once, and `--animate`, step by step. Both
/// follow the reader's light or dark mode; neither needs a script or a font of its own.
struct ConvolutionPicture {
  /// The largest input, padding included, that a picture holds.
  static let largest = 16

  let walk: ConvolutionWalk
  let padded: ConvolutionWalk.Size
  var body = ""

  init(_ walk: ConvolutionWalk) throws {
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

  func document(_ width: Double, _ height: Double, _ style: String) -> String {
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

  func f(_ value: Double) -> String {
    value == value.rounded() ? "\(Int(value))" : value.fixed(1)
  }

  mutating func text(
    _ x: Double, _ y: Double, _ text: String, _ classes: String = "", size: Double? = nil,
    style: String = ""
  ) {
    let look = (size.map { "font-size:\(f($0))px;" } ?? "") + style
    body +=
      "<text x=\"\(f(x))\" y=\"\(f(y))\"" + (classes.isEmpty ? "" : " class=\"\(classes)\"")
      + (look.isEmpty ? "" : " style=\"\(look)\"") + ">\(text)</text>\n"
  }

  mutating func rect(
    _ x: Double, _ y: Double, _ width: Double, _ height: Double, _ classes: String,
    radius: Double = 0, style: String = ""
  ) {
    body +=
      "<rect x=\"\(f(x))\" y=\"\(f(y))\" width=\"\(f(width))\" height=\"\(f(height))\""
      + (radius > 0 ? " rx=\"\(f(radius))\"" : "") + " class=\"\(classes)\""
      + (style.isEmpty ? "" : " style=\"\(style)\"") + "/>\n"
  }

  /// What `draw` draws, as a group with a class.
  mutating func inside(
    _ classes: String, style: String = "", _ draw: (inout Self) -> Void
  ) {
    body += "<g class=\"\(classes)\"" + (style.isEmpty ? "" : " style=\"\(style)\"") + ">\n"
    draw(&self)
    body += "</g>\n"
  }

  /// A cell with a number in its middle.
  mutating func cell(
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
  mutating func inputs(
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
  mutating func frame(
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

  func number(_ value: Float) -> String { "\(Int(value))" }

  func side(_ room: Double, _ most: Double) -> Double {
    max(20, min(most, (room / Double(max(padded.width, padded.height))).rounded(.down)))
  }

  /// An output cell: as wide as its largest number needs, or a plain square where there are many.
  func outputCell(_ room: Double, _ most: Double) -> OutputCell {
    let digits = walk.values.map { number($0).count }.max()!
    let width = min(
      most, (room / Double(max(walk.output.width, walk.output.height))).rounded(.down))
    return width >= Double(digits) * 7 + 6
      ? OutputCell(width: width, hasNumbers: true)
      : OutputCell(width: max(12, min(width, 18)), hasNumbers: false)
  }

  struct OutputCell {
    let width: Double
    let hasNumbers: Bool
  }

  func hue(_ group: Int) -> String { "g\(group % 9)" }

  /// Rows and columns of a group's matrix that are drawn.
  let mostRows = 6
  let mostColumns = 9
  var columns: Int { min(walk.weights.count, mostColumns) }
  /// Whether columns are left out, for which there is one of dots.
  var isCut: Bool { walk.weights.count > columns }
  /// That one counted.
  var drawnColumns: Double { Double(columns + (isCut ? 1 : 0)) }
  var drawnRows: Int { (0..<walk.shown).map(rows).max()! }
  func rows(_ group: Int) -> Int { min(walk.groups[group].count, mostRows) }
}
