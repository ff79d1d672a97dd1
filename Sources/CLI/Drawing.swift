import StrideNet

/// A picture's elements, one after the other, in the colours of ``Plot``.
struct Drawing {
  private var body = ""

  private static let style = """
    .map{fill:none;stroke:currentColor;shape-rendering:crispEdges}
    .map rect{stroke-width:1px;vector-effect:non-scaling-stroke}
    .f{opacity:0}.last{opacity:1}

    """

  func svg(_ width: Double, _ height: Double, _ title: String, style: String = "") -> String {
    Plot.sheet(width, height, title, body, style: Self.style + style)
  }

  mutating func text(
    _ x: Double, _ y: Double, _ text: String, _ colour: String = Plot.ink, size: Int = 13,
    anchor: String = "start", weight: String = ""
  ) {
    body += Plot.text(x, y, text, size: size, weight: weight, colour: colour, anchor: anchor)
  }

  mutating func line(
    _ points: [(Double, Double)], _ colour: String = Plot.ink, width: Double = 1,
    dashes: String = ""
  ) {
    body += Plot.line(points, colour, width: width, dashes: dashes)
  }

  mutating func dot(_ x: Double, _ y: Double, _ colour: String, _ title: String = "") {
    body += Plot.shape(.circle, x, y, colour, title: title)
  }

  mutating func bar(
    _ x: Double, _ y: Double, _ width: Double, _ height: Double, _ colour: String,
    opacity: Double = 1
  ) {
    let f = Plot.f
    body +=
      "<rect class=\"\(colour)\" x=\"\(f(x))\" y=\"\(f(y))\" width=\"\(f(width))\""
      + " height=\"\(f(height))\" fill=\"currentColor\""
      + (opacity < 1 ? " fill-opacity=\"\(opacity.fixed(2))\"" : "") + "/>\n"
  }

  mutating func inside(_ attributes: String, _ draw: (inout Self) -> Void) {
    body += "<g \(attributes)>\n"
    draw(&self)
    body += "</g>\n"
  }

  /// Numbers from -1 to 1 as eight shades, those below 0 of another colour. What is of one shade in a
  /// row is one stroke.
  mutating func map(
    _ values: [Float], width: Int, _ x: Double, _ y: Double, side: Double,
    _ colour: String = Plot.ink, below: String = Plot.ink
  ) {
    let shades = values.map { Int(($0 * 8).rounded()) }
    var strokes: [Int: String] = [:]
    for row in 0..<values.count / width {
      var column = 0
      while column < width {
        let (start, shade) = (column, shades[row * width + column])
        while column < width, shades[row * width + column] == shade { column += 1 }
        if shade != 0 { strokes[shade, default: ""] += "M\(start) \(row)h\(column - start)" }
      }
    }
    inside(
      "class=\"map\" transform=\"translate(\(Plot.f(x)) \(Plot.f(y + side / 2)))"
        + " scale(\(Plot.f(side)))\""
    ) {
      for (shade, strokes) in strokes.sorted(by: { $0.key < $1.key }) {
        $0.body +=
          "<path class=\"\(shade < 0 ? below : colour)\""
          + (abs(shade) < 8 ? " stroke-opacity=\"\(Double(abs(shade)) / 8)\"" : "")
          + " d=\"\(strokes)\"/>\n"
      }
      $0.body +=
        "<rect class=\"soft\" y=\"-.5\" width=\"\(width)\" height=\"\(values.count / width)\"/>\n"
    }
  }

  /// Lines between some of such cells.
  mutating func border(_ path: String, _ x: Double, _ y: Double, side: Double) {
    guard !path.isEmpty else { return }
    body +=
      "<path class=\"map ink\" transform=\"translate(\(Plot.f(x)) \(Plot.f(y)))"
      + " scale(\(Plot.f(side)))\" stroke-width=\"\((2 / side).fixed(2))\" d=\"\(path)\"/>\n"
  }

  // MARK: What moves

  /// One picture after the other at the same place; without motion, the last.
  mutating func frames(_ count: Int, _ draw: (inout Self, _ frame: Int) -> Void) {
    for frame in 0..<count {
      let isLast = frame == count - 1
      inside(
        "class=\"\(isLast ? "f last" : "f")\" style=\"animation-delay:\(frame - Self.slots(count))s\""
      ) { draw(&$0, frame) }
    }
  }

  /// A second each, and the last for four.
  private static func slots(_ count: Int) -> Int { count + 3 }

  static func style(frames count: Int) -> String {
    let all = Double(slots(count))
    func shown(_ seconds: Double) -> String {
      "0%,\((100 * seconds / all - 0.1).fixed(1))%{opacity:1}\((100 * seconds / all).fixed(1))%,100%{opacity:0}"
    }
    return """
      @media(prefers-reduced-motion:no-preference){
      .f{animation:f \(slots(count))s infinite}.last{animation-name:last}
      @keyframes f{\(shown(1))}
      @keyframes last{\(shown(3.99))}}

      """
  }
}
