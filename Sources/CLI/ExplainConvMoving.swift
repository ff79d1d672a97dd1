import StrideNet

/// The moving picture: the plain loop, then the groups, on one stage.
extension ConvolutionPicture {
  static func animated(_ walk: ConvolutionWalk) throws -> String {
    var picture = try Self(walk)
    return picture.drawAnimated()
  }

  /// Where things are.
  private struct Stage {
    let margin = 40.0, top = 148.0
    /// The side of a cell of the input, and of the filter and the matrix.
    let side: Double, step = 36.0
    let output: OutputCell
    let outputHeight: Double
    /// Left edges.
    let matrix, sums, outputLeft: Double
    /// Of the first row of the matrix, below the filter.
    var firstRow: Double { top + step + 8 }
    let width, bars: Double

    init(_ picture: ConvolutionPicture) {
      let (walk, padded) = (picture.walk, picture.padded)
      side = picture.side(300, 60)
      output = picture.outputCell(240, 60)
      outputHeight = output.hasNumbers ? min(output.width, 46) : output.width
      matrix = margin + Double(padded.width) * side + 56
      sums = matrix + picture.drawnColumns * step + 40
      outputLeft = sums + 54 + 56
      width = max(760, outputLeft + Double(walk.output.width) * output.width + margin)
      let foot = max(
        Double(padded.height) * side, Double(picture.drawnRows + 1) * step + 34,
        Double(walk.output.height) * outputHeight)
      bars = top + foot + 44
    }

    /// The upper left corner of an output's cell.
    func place(_ position: (row: Int, column: Int)) -> (x: Double, y: Double) {
      (
        outputLeft + Double(position.column) * output.width,
        top + Double(position.row) * outputHeight
      )
    }
  }

  private mutating func drawAnimated() -> String {
    let (walk, stage) = (walk, Stage(self))
    let time = Timeline(positions: walk.values.count, groups: walk.shown)
    drawScene(stage)
    inside("one") { $0.drawPlainLoop(stage, time) }
    drawFilter(stage)
    for group in 0..<walk.shown {
      let delay = time.delay(time.start(group))
      inside("turn \(hue(group))" + (group == 0 ? "" : " off"), style: delay) {
        $0.drawTurn(group, stage, time)
      }
    }
    inside("two") { $0.drawLandings(stage) }
    let rest = walk.groups.count - walk.shown
    inside("end off") { picture in
      picture.text(
        stage.margin, 110,
        (rest > 0 ? "… and \(rest) more groups. " : "")
          + "The same output, in \(ConvolutionWalk.count(walk.groups.count, "pass")) instead of "
          + walk.values.count.grouped, "b", size: 16)
    }
    drawBars(stage.margin, stage.bars, stage.width - 2 * stage.margin)
    return document(stage.width, stage.bars + 74, keyframes(time, stage.side))
  }

  /// What is there all the time: headings, the input, the empty output.
  private mutating func drawScene(_ stage: Stage) {
    let (margin, top) = (stage.margin, stage.top)
    text(margin, 46, walk.heading, "h1")
    inside("one") { picture in
      picture.text(
        margin, 78,
        "The plain loop slides the window: a pass for each of "
          + ConvolutionWalk.count(picture.walk.values.count, "position"), "soft", size: 15)
    }
    inside("two") { picture in
      picture.text(
        margin, 78, "Stride groups: windows that don’t overlap go together", "soft", size: 15)
    }
    text(margin, top - 14, "input", "soft")
    text(stage.outputLeft, top - 14, "output", "soft")
    inputs(margin, top, stage.side)
    for row in 0..<walk.output.height {
      for column in 0..<walk.output.width {
        let (x, y) = stage.place((row, column))
        rect(x, y, stage.output.width, stage.outputHeight, "cell")
      }
    }
  }

  /// A window that slides, and each output's sum when it is there.
  private mutating func drawPlainLoop(_ stage: Stage, _ time: Timeline) {
    let (walk, matrix, top) = (walk, stage.matrix, stage.top)
    frame((0, 0), stage.margin, top, stage.side, "frame g8 slide")
    for index in walk.values.indices {
      let position = (row: index / walk.output.width, column: index % walk.output.width)
      let delay = time.delay(Double(index) * time.step)
      let group = walk.group(position.row, position.column)
      let window = walk.groups[group].positions.firstIndex { $0 == position }!
      let terms = zip(walk.gathered(group, window), walk.weights).map {
        "\(number($1))·\(number($0))"
      }
      let sum = number(walk.values[index])
      inside("slot", style: delay) { picture in
        if terms.count <= 4 {
          picture.text(matrix, top + 70, terms.joined(separator: " + "), size: 16)
        } else {
          picture.text(matrix, top + 70, "\(terms.count) products", "soft", size: 16)
        }
        picture.text(matrix, top + 102, "= \(sum)", "b", size: 20)
        picture.text(matrix, top + 130, "pass \(index + 1)", "soft")
      }
      inside("g8") { picture in
        let (x, y) = stage.place(position)
        picture.cell(
          x, y, stage.output.width, stage.outputHeight, stage.output.hasNumbers ? sum : "",
          box: "wash keep", ink: "keep", style: delay)
      }
    }
  }

  private mutating func drawFilter(_ stage: Stage) {
    let (matrix, top, step) = (stage.matrix, stage.top, stage.step)
    for element in 0..<columns {
      let (letter, weight) = (ConvolutionWalk.letter(element), number(walk.weights[element]))
      cell(matrix + Double(element) * step, top, step, step - 6, "\(letter)=\(weight)", box: "zero")
    }
    if isCut { text(matrix + (Double(columns) + 0.5) * step, top + 20, "…", "m soft") }
    text(matrix, top - 14, "filter", "soft")
  }

  /// A group's turn: its windows' values fly into rows of a matrix, whose sums appear beside it.
  private mutating func drawTurn(_ group: Int, _ stage: Stage, _ time: Timeline) {
    let (members, matrix) = (walk.groups[group], stage.matrix)
    let delay = time.delay(time.start(group))
    let heading =
      "Group \(group + 1) of \(walk.groups.count), "
      + ConvolutionWalk.count(members.count, "window")
    text(stage.margin, 110, heading, "hue b", size: 16)
    for (index, word) in ["gather", "multiply", "scatter"].enumerated() {
      text(
        [matrix, matrix + 80, matrix + 170][index], 110, word, "hue b word w\(index)", size: 16,
        style: delay)
    }
    for position in members.positions {
      frame(position, stage.margin, stage.top, stage.side, "frame rise", style: delay)
    }
    for row in 0..<rows(group) { drawRow(row, of: group, stage, time) }
    if members.count > rows(group) {
      text(
        matrix, stage.firstRow + Double(drawnRows) * stage.step + 18,
        "⋮ \(members.count - rows(group)) more rows", "soft rise", style: delay)
    }
  }

  private mutating func drawRow(_ row: Int, of group: Int, _ stage: Stage, _ time: Timeline) {
    let (position, values) = (walk.groups[group].position(row), walk.gathered(group, row))
    let (step, y) = (stage.step, stage.firstRow + Double(row) * stage.step)
    let delay = time.delay(time.start(group))
    let late = time.delay(time.start(group) + Double(row) * time.turn * 0.03)
    for element in 0..<columns {
      let x = stage.matrix + Double(element) * step
      let input = (
        row: position.row * walk.stride.height + element / walk.filter.width,
        column: position.column * walk.stride.width + element % walk.filter.width
      )
      let from = (
        x: stage.margin + (Double(input.column) + 0.5) * stage.side - x - step / 2,
        y: stage.top + (Double(input.row) + 0.5) * stage.side - y - step / 2
      )
      flight(from, "fly", style: late) { $0.chip(x, y, step, step, $0.number(values[element])) }
    }
    if isCut {
      text(
        stage.matrix + (Double(columns) + 0.5) * step, y + step * 0.62, "…", "m soft sum",
        style: delay)
    }
    text(stage.sums - 20, y + step * 0.64, "=", "m soft sum", style: delay)
    cell(
      stage.sums, y, 54, step, number(walk.sum(group, row)), box: "wash sum", ink: "b sum",
      style: delay)
  }

  /// The sums fly to their places in the output, and stay.
  private mutating func drawLandings(_ stage: Stage) {
    let out = stage.output
    for (group, members) in walk.groups.enumerated() {
      inside(hue(group)) { picture in
        let land = "land\(min(group, picture.walk.shown))"
        for (window, position) in members.positions.enumerated() {
          let (x, y) = stage.place(position)
          // From its row of the sums, where that is drawn.
          let isDrawn = group < picture.walk.shown && window < picture.rows(group)
          let row = stage.firstRow + (Double(window) + 0.5) * stage.step
          let from = (
            x: isDrawn ? stage.sums + 27 - x - out.width / 2 : 0,
            y: isDrawn ? row - y - stage.outputHeight / 2 : 0
          )
          picture.flight(from, land) {
            $0.chip(
              x, y, out.width, stage.outputHeight,
              out.hasNumbers ? $0.number($0.walk.sum(group, window)) : "", ink: "b")
          }
        }
      }
    }
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
}
