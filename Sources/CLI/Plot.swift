import Foundation
import StrideNet

/// A plot with two axes, written as SVG.
struct Plot {
  struct Axis {
    let title: String
    let low, high: Double
    let isLogarithmic: Bool
    let ticks: [(value: Double, label: String)]

    /// From a power of ten to another one, ticked 1, 2, 5.
    static func logarithmic(_ title: String, _ values: [Double]) -> Axis {
      let low = values.min()! / 1.3, high = values.max()! * 1.3
      let first = Int(log10(low).rounded(.down)), last = Int(log10(high).rounded(.up))
      let steps: [Double] = high / low < 1000 ? [1, 2, 5] : [1]
      let ticks = (first...last).flatMap { power in steps.map { $0 * pow(10, Double(power)) } }
        .filter { $0 >= low && $0 <= high }
      return Axis(
        title: title, low: low, high: high, isLogarithmic: true,
        ticks: ticks.map { ($0, number($0)) })
    }

    /// Ticks where the values are.
    static func logarithmic(_ title: String, at values: [(value: Double, label: String)]) -> Axis {
      Axis(
        title: title, low: values.first!.value / 1.25, high: values.last!.value * 1.25,
        isLogarithmic: true, ticks: values)
    }

    /// From 0.
    static func linear(_ title: String, _ values: [Double]) -> Axis {
      let high = values.max()! * 1.15
      let power = pow(10, log10(high / 4).rounded(.down))
      let step = [1, 2, 5, 10].map { $0 * power }.first { high / $0 <= 6 }!
      let ticks = stride(from: 0, through: high, by: step)
      return Axis(
        title: title, low: 0, high: high, isLogarithmic: false,
        ticks: ticks.map { ($0, number($0)) })
    }

    /// 0…1 along the axis.
    func place(_ value: Double) -> Double {
      isLogarithmic ? log(value / low) / log(high / low) : (value - low) / (high - low)
    }

    private static func number(_ value: Double) -> String {
      String(format: "%.4g", value)
    }
  }

  struct Line {
    let points: [(x: Double, y: Double)]
    let colour: String
    var dashes = ""
    /// Along the line, from its first point.
    var label = ""
    var isLabelBelow = false
    var hasDots = false
  }

  enum Marker: String, CaseIterable { case circle, square, triangle, diamond }

  struct Dot {
    let x, y: Double
    let colour: String
    let marker: Marker
    /// What the pointer over it shows.
    let title: String
  }

  /// A word at the foot of the plot, with a line up to where it belongs.
  struct Foot {
    let x, lowestY: Double
    let text: String
  }

  struct Key {
    let text, colour: String
    let marker: Marker?
    var dashes = ""
  }

  let title, subtitle: String
  let x, y: Axis
  var lines: [Line] = []
  var dots: [Dot] = []
  var feet: [Foot] = []
  var keys: [Key] = []
  var isWide = false

  // Classes of ``style``.
  static let palette = (0..<7).map { "c\($0)" }
  static let (ink, soft) = ("ink", "soft")
  private static let faint = "faint"

  /// Colours distinct for colour-blind eyes too (after Okabe & Ito 2008), each at 3:1 or more against
  /// the paper; faint is the grid, whose axes have ticks. The picture brings its own paper, light or
  /// dark, so that forced colours needn't change it; on paper it is light.
  static let style = """
    .sheet{forced-color-adjust:none;background:#fff;print-color-adjust:exact}
    .sheet text{fill:currentColor}.sheet .paper{color:#fff}
    .sheet .dot{stroke:#fff;stroke-width:.7px}
    .sheet .ink{color:#222}.sheet .soft{color:#595959}.sheet .faint{color:#ddd}
    .sheet .c0{color:#c65700}.sheet .c1{color:#a87400}.sheet .c2{color:#0072b2}
    .sheet .c3{color:#008562}.sheet .c4{color:#b85c8f}.sheet .c5{color:#2b86ba}.sheet .c6{color:#666}
    @media screen and (prefers-color-scheme:dark){
    .sheet{background:#181818}.sheet .paper{color:#181818}
    .sheet .dot{stroke:#181818}
    .sheet .ink{color:#e6e6e6}.sheet .soft{color:#b0b0b0}.sheet .faint{color:#3c3c3c}
    .sheet .c0{color:#ff8c3a}.sheet .c1{color:#f0b429}.sheet .c2{color:#4aa3df}
    .sheet .c3{color:#2cc295}.sheet .c4{color:#e093bd}.sheet .c5{color:#8fd0f5}.sheet .c6{color:#9a9a9a}}
    """

  // MARK: Layout

  private static let (wide, narrow, height) = (1000.0, 500.0, (wide: 760.0, narrow: 340.0))

  /// One plot alone, of a size of its own.
  func svg(width: Double, height: Double) -> String {
    Self.sheet(width, height, title, draw(0, 0, (width, height)))
  }

  /// The plots in reading order; a narrow one is half as wide as the sheet.
  static func svg(_ plots: [Plot]) -> String {
    var body = ""
    var (left, top) = (0.0, 0.0)
    for plot in plots {
      let isSecond = left > 0
      if plot.isWide && isSecond { (left, top) = (0, top + height.narrow) }
      body += plot.draw(left, top)
      if plot.isWide {
        top += height.wide
      } else if isSecond {
        (left, top) = (0, top + height.narrow)
      } else {
        left = narrow
      }
    }
    let bottom = top + (left > 0 ? height.narrow : 0)
    let width = plots.count == 1 && !plots[0].isWide ? narrow : wide
    return sheet(width, bottom, plots.map(\.title).joined(separator: "; "), body)
  }

  /// - Parameter style: more than the colours
  static func sheet(
    _ width: Double, _ height: Double, _ title: String, _ body: String, style more: String = ""
  ) -> String {
    """
    <svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 \(Int(width)) \(Int(height))" \
    width="\(Int(width))" height="\(Int(height))" class="sheet" role="img" \
    font-family="system-ui, DejaVu Sans, Verdana, sans-serif" font-size="12">
    <title>\(safe(title))</title>
    <style>
    \(style)
    \(more)</style>
    <rect class="paper" width="100%" height="100%" fill="currentColor"/>
    \(body)</svg>

    """
  }

  private func draw(
    _ left: Double, _ top: Double, _ own: (width: Double, height: Double)? = nil
  ) -> String {
    let size =
      own ?? (isWide ? (Self.wide, Self.height.wide) : (Self.narrow, Self.height.narrow))
    let frame = (
      left: left + 70, right: left + size.width - (isWide ? 190 : 20), top: top + 58,
      bottom: top + size.height - 52
    )
    func px(_ value: Double) -> Double {
      frame.left + x.place(value) * (frame.right - frame.left)
    }
    func py(_ value: Double) -> Double {
      frame.bottom - y.place(value) * (frame.bottom - frame.top)
    }
    var out = Self.text(frame.left, top + 24, title, size: 16, weight: "bold")
    out += Self.text(frame.left, top + 43, subtitle, colour: Self.soft)
    for tick in x.ticks {
      out += Self.line([(px(tick.value), frame.top), (px(tick.value), frame.bottom)], Self.faint)
      out += Self.line(
        [(px(tick.value), frame.bottom), (px(tick.value), frame.bottom + 5)], Self.ink)
      out += Self.text(px(tick.value), frame.bottom + 19, tick.label, anchor: "middle")
    }
    for tick in y.ticks {
      out += Self.line([(frame.left, py(tick.value)), (frame.right, py(tick.value))], Self.faint)
      out += Self.line([(frame.left - 5, py(tick.value)), (frame.left, py(tick.value))], Self.ink)
      out += Self.text(frame.left - 9, py(tick.value) + 4, tick.label, anchor: "end")
    }
    out += Self.line([(frame.left, frame.top), (frame.left, frame.bottom)], Self.ink)
    out += Self.line([(frame.left, frame.bottom), (frame.right, frame.bottom)], Self.ink)
    let middle = (x: (frame.left + frame.right) / 2, y: (frame.top + frame.bottom) / 2)
    out += Self.text(middle.x, frame.bottom + 40, x.title, anchor: "middle")
    out += Self.text(left + 20, middle.y, y.title, anchor: "middle", turned: -90)
    out += draw(feet.map { (px($0.x), py($0.lowestY), $0.text) }, frame.left, frame.bottom)
    for line in lines { out += Self.draw(line, line.points.map { (px($0.x), py($0.y)) }) }
    for dot in dots {
      out += Self.shape(dot.marker, px(dot.x), py(dot.y), dot.colour, title: dot.title)
    }
    for (index, key) in keys.enumerated() {
      out += Self.draw(key, frame.right + 24, frame.top + 8 + 22 * Double(index))
    }
    return out
  }

  private static func draw(_ line: Line, _ points: [(Double, Double)]) -> String {
    var out = Self.line(points, line.colour, width: 2, dashes: line.dashes)
    if line.hasDots {
      for (x, y) in points { out += shape(.circle, x, y, line.colour) }
    }
    guard !line.label.isEmpty, let a = points.first else { return out }
    let b = points[1]
    // Beside the line, turned as it is.
    let angle = atan2(b.1 - a.1, b.0 - a.0)
    let (along, aside) = (angle == 0 ? 16.0 : 10.0, line.isLabelBelow ? -16.0 : 6.0)
    return out
      + text(
        a.0 + along * cos(angle) + aside * sin(angle),
        a.1 + along * sin(angle) - aside * cos(angle),
        line.label, size: 11, colour: line.colour, turned: angle * 180 / .pi)
  }

  private static func draw(_ key: Key, _ x: Double, _ y: Double) -> String {
    var out = ""
    if let marker = key.marker {
      out += shape(marker, x + 8, y, key.colour)
    } else if !key.colour.isEmpty {
      out += line([(x - 4, y), (x + 20, y)], key.colour, width: 2, dashes: key.dashes)
    }
    return out + text(key.colour.isEmpty ? x - 4 : x + 28, y + 4, key.text)
  }

  /// Words upright at the foot, pushed apart where they would touch.
  private func draw(_ feet: [(x: Double, y: Double, text: String)], _ left: Double, _ foot: Double)
    -> String
  {
    let feet = feet.sorted { $0.x < $1.x }
    var places = feet.map(\.x)
    let gap = 14.0
    // Neighbours that touch share the middle of where they want to be.
    for _ in 0..<200 {
      for i in places.indices.dropFirst() where places[i] - places[i - 1] < gap {
        let push = (gap - (places[i] - places[i - 1])) / 2
        places[i] += push
        places[i - 1] -= push
      }
    }
    return zip(feet, places).map { foot_, place in
      let end = foot - 84
      return Self.line(
        [(foot_.x, foot_.y + 6), (foot_.x, end - 14), (place, end)], Self.soft, dashes: "2 2")
        + Self.text(place + 4, foot - 6, foot_.text, size: 11, colour: Self.soft, turned: -90)
    }.joined()
  }

  // MARK: Elements

  static func f(_ value: Double) -> String { value.fixed(1) }

  static func safe(_ text: String) -> String {
    text.replacing("&", with: "&amp;").replacing("<", with: "&lt;")
  }

  static func text(
    _ x: Double, _ y: Double, _ text: String, size: Int = 12, weight: String = "",
    colour: String = ink, anchor: String = "start", turned: Double = 0
  ) -> String {
    return "<text class=\"\(colour)\" x=\"\(f(x))\" y=\"\(f(y))\" font-size=\"\(size)\""
      + " text-anchor=\"\(anchor)\"" + (weight.isEmpty ? "" : " font-weight=\"\(weight)\"")
      + (turned == 0 ? "" : " transform=\"rotate(\(f(turned)) \(f(x)) \(f(y)))\"")
      + ">\(safe(text))</text>\n"
  }

  static func line(
    _ points: [(Double, Double)], _ colour: String, width: Double = 1, dashes: String = ""
  ) -> String {
    "<polyline class=\"\(colour)\" points=\"\(points.map { "\(f($0.0)),\(f($0.1))" }.joined(separator: " "))\""
      + " fill=\"none\" stroke=\"currentColor\" stroke-width=\"\(width)\""
      + (dashes.isEmpty ? "" : " stroke-dasharray=\"\(dashes)\"") + "/>\n"
  }

  static func shape(
    _ marker: Marker, _ x: Double, _ y: Double, _ colour: String, title: String = ""
  ) -> String {
    let style = "class=\"dot \(colour)\" fill=\"currentColor\""
    let told = title.isEmpty ? "" : "<title>\(title)</title>"
    let corners: [(Double, Double)]
    switch marker {
    case .circle:
      return
        "<circle cx=\"\(f(x))\" cy=\"\(f(y))\" r=\"4.5\" \(style)>\(told)</circle>\n"
    case .square: corners = [(-4, -4), (4, -4), (4, 4), (-4, 4)]
    case .triangle: corners = [(0, -5.5), (5, 4), (-5, 4)]
    case .diamond: corners = [(0, -6), (6, 0), (0, 6), (-6, 0)]
    }
    let points = corners.map { "\(f(x + $0.0)),\(f(y + $0.1))" }.joined(separator: " ")
    return "<polygon points=\"\(points)\" \(style)>\(told)</polygon>\n"
  }
}
