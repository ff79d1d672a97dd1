import StrideNet

/// The still picture: input, filter and output, a card for each group, a tile of winograd, and what
/// each kernel does.
extension ConvolutionPicture {
  static func still(_ walk: ConvolutionWalk) throws -> String {
    var picture = try Self(walk)
    return picture.drawStill()
  }

  /// Where things are, of which the groups' cards are most.
  private struct Layout {
    let margin = 32.0, gap = 20.0, inset = 18.0
    /// The side of a cell of the input, and of the matrices.
    let side: Double, step = 28.0
    let output: OutputCell
    var outputHeight: Double { output.hasNumbers ? step : output.width }

    let cardsInARow: Int
    /// Of all between the margins, and of a card.
    let inner, card: Double
    var width: Double { inner + 2 * margin }

    /// In a card, from its top.
    let inputs = 58.0
    let lists, matrix, scatter, cardHeight: Double

    init(_ picture: ConvolutionPicture) {
      let (walk, columns) = (picture.walk, picture.drawnColumns)
      side = picture.side(300, 46)
      output = picture.outputCell(300, 52)
      let listWidth =
        Double(
          (0..<walk.shown).flatMap { group in
            (0..<picture.columns).map { walk.list($0, group, first: 5).count + 8 }
          }.max()!) * 7.2
      let content = max(
        Double(picture.padded.width) * side, columns * step + 122, listWidth,
        Double(walk.output.width) * output.width)
      let least = (content + 2 * inset).rounded(.up)
      // Rows of cards as equal as can be, and as wide as what is below.
      let fitting = max(1, min(walk.shown, Int((1400 + gap) / (least + gap))))
      cardsInARow = Int(
        (Double(walk.shown) / Double((walk.shown + fitting - 1) / fitting)).rounded(.up))
      inner = max(980, Double(cardsInARow) * (least + gap) - gap)
      card = min(max(least, 480), (inner + gap) / Double(cardsInARow) - gap)

      lists = inputs + Double(picture.padded.height) * side + 28
      matrix = lists + columns * 21 + 32
      let isLong = (0..<walk.shown).contains { walk.groups[$0].count > picture.mostRows }
      scatter = matrix + Double(picture.drawnRows) * step + (isLong ? 20 : 0) + 40
      let outputHeight = output.hasNumbers ? step : output.width
      cardHeight = scatter + Double(walk.output.height) * outputHeight + 20
    }
  }

  private mutating func drawStill() -> String {
    let layout = Layout(self)
    let (left, right) = (layout.margin, layout.width - layout.margin)
    text(left, 50, "\(walk.heading)", "h1")
    text(
      left, 76,
      "\(walk.summary): one matrix product each, and no two windows of a group overlap.",
      "soft", size: 14)
    var y = drawOperands(116, layout) + 48
    text(
      left, y, "Each group: gather its windows, multiply by the filter, scatter the sums", "h2")
    y = drawGroups(y + 20, layout)
    y = drawBackward(left, y + 26, right) + 44
    y = drawWinograd(left, y) + 44
    y = drawTable(left, y, right)
    if walk.isPublishedExample {
      y += 34
      text(left, y, "Note", "b")
      text(left + 42, y, ConvolutionText.misprint.joined(separator: " "), "soft")
    }
    return document(layout.width, y + 30, "")
  }

  /// Input, filter and output side by side; returns where they end.
  private mutating func drawOperands(_ top: Double, _ layout: Layout) -> Double {
    let (walk, side) = (walk, layout.side)
    let (rows, columns) = (min(walk.filter.height, 8), min(walk.filter.width, 8))
    let filterSide = max(side, 34)
    let heights = (
      Double(padded.height) * side, Double(rows) * side,
      Double(walk.output.height) * layout.outputHeight
    )
    let middle = top + 14 + max(heights.0, heights.1, heights.2) / 2
    var x = layout.margin
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
    drawOutput(x, output, layout, upTo: walk.groups.count)
    x += max(Double(walk.output.width) * layout.output.width, 180) + 48
    if layout.width - layout.margin - x > 300 {
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

  /// The cards; returns where they end.
  private mutating func drawGroups(_ top: Double, _ layout: Layout) -> Double {
    let (cards, rows) = (
      layout.cardsInARow, (walk.shown + layout.cardsInARow - 1) / layout.cardsInARow
    )
    for group in 0..<walk.shown {
      let left = layout.margin + Double(group % cards) * (layout.card + layout.gap)
      let y = top + Double(group / cards) * (layout.cardHeight + layout.gap)
      inside(hue(group)) { $0.drawCard(group, left, y, layout) }
    }
    let y = top + Double(rows) * (layout.cardHeight + layout.gap)
    guard walk.shown < walk.groups.count else { return y }
    text(
      layout.margin, y + 12, "… and \(walk.groups.count - walk.shown) more groups", "soft", size: 14
    )
    return y + 30
  }

  private mutating func drawCard(_ group: Int, _ left: Double, _ top: Double, _ layout: Layout) {
    let members = walk.groups[group]
    rect(left, top, layout.card, layout.cardHeight, "card", radius: 10)
    let x = left + layout.inset
    text(x, top + 32, "Group \(group + 1)", "hue b", size: 16)
    text(
      left + layout.card - layout.inset, top + 32, ConvolutionWalk.count(members.count, "window"),
      "soft e")
    inputs(x, top + layout.inputs, layout.side) { members.window(at: ($0, $1)) == nil }
    for position in members.positions { frame(position, x, top + layout.inputs, layout.side) }
    drawLists(group, x, top + layout.lists)
    drawMatrix(group, x, top + layout.matrix, layout.step)
    text(x, top + layout.scatter - 10, "output after group \(group + 1)", "soft", size: 12)
    drawOutput(x, top + layout.scatter, layout, upTo: group)
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
    if isCut { text(x, y + Double(columns) * 21, "…") }
  }

  /// Gathered matrix · filter = sums.
  private mutating func drawMatrix(_ group: Int, _ x: Double, _ y: Double, _ step: Double) {
    let rows = rows(group)
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
    _ x: Double, _ y: Double, _ layout: Layout, upTo last: Int
  ) {
    let (out, height) = (layout.output, layout.outputHeight)
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
