import StrideNet

/// When what moves in the moving picture.
extension ConvolutionPicture {
  /// Seconds. Every animation lasts for the whole and starts over with it; what happens to many
  /// things one after the other is one set of keyframes, shifted by negative delays.
  struct Timeline {
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

  /// Animations by the class of what they move.
  private struct Keyframes {
    let time: Timeline
    private(set) var names: [String] = []
    private(set) var text = ""
    /// Shortly before the end, when all goes away.
    let last: String
    /// From where something flies.
    let away = "transform:translate(var(--x),var(--y))"

    init(_ time: Timeline) {
      (self.time, last) = (time, time.percent(time.all - 0.3))
    }

    mutating func add(_ name: String, _ keyframes: String) {
      names.append(".\(name){animation-name:\(name)}")
      text += "@keyframes \(name){\(keyframes)}\n"
    }
  }

  /// The keyframes. Without motion the picture is that of the first group, with the whole output.
  func keyframes(_ time: Timeline, _ side: Double) -> String {
    var frames = Keyframes(time)
    addHalves(&frames)
    addTurn(&frames)
    for group in 0...walk.shown { addGroup(group, &frames) }
    addEnd(&frames)
    addSlide(side, &frames)
    return """
      .one,.off{opacity:0}.bare{stroke:none}.fill{transform-box:fill-box}
      @media(prefers-reduced-motion:no-preference){
      .one,.two,.slot,.keep,.turn,.rise,.fly,.sum,.word,.end,.slide,.fill,[class*=land],[class*=" on"]\
      {animation:none \(time.all.fixed(2))s ease-in-out infinite}
      \(frames.names.joined(separator: "\n"))
      \(frames.text)}

      """
  }

  /// The plain loop and the groups, one after the other; a position of the loop.
  private func addHalves(_ frames: inout Keyframes) {
    let (time, last) = (frames.time, frames.last)
    let middle = time.percent(time.first)
    frames.add("one", "0%,\(time.percent(time.first - 0.2)){opacity:1}\(middle),100%{opacity:0}")
    frames.add(
      "two",
      "0%,\(time.percent(time.first - 0.2)){opacity:0}\(middle),\(last){opacity:1}100%{opacity:0}")
    frames.add(
      "slot",
      "0%,\(time.percent(time.step * 0.98)){opacity:1}\(time.percent(time.step)),100%{opacity:0}")
    frames.add(
      "keep",
      "0%,\(time.percent(time.first)){opacity:1}\(time.percent(time.first + 0.05)),100%{opacity:0}")
  }

  /// A group's turn.
  private func addTurn(_ frames: inout Keyframes) {
    let (time, away) = (frames.time, frames.away)
    func at(_ part: Double) -> String { time.percent(part * time.turn) }
    frames.add("turn", "0%{opacity:0}\(at(0.05)),\(at(0.95)){opacity:1}\(at(1)),100%{opacity:0}")
    frames.add("rise", "0%{opacity:0}\(at(0.1)),100%{opacity:1}")
    frames.add(
      "fly",
      "0%,\(at(0.1)){opacity:0;\(away)}\(at(0.13)){opacity:1;\(away)}"
        + "\(at(0.4)),\(at(1)){opacity:1;transform:none}\(at(1.01)),100%{opacity:0;transform:none}")
    frames.add("sum", "0%,\(at(0.5)){opacity:0}\(at(0.57)),100%{opacity:1}")
    for (index, (from, to)) in [(0.0, 0.4), (0.4, 0.62), (0.62, 1)].enumerated() {
      frames.add(
        "w\(index)",
        "0%\(index == 0 ? "" : ",\(at(from))"){opacity:\(index == 0 ? 1 : 0.25)}"
          + "\(at(from + 0.03)),\(at(to)){opacity:1}\(at(to + 0.03)),100%{opacity:.25}")
    }
  }

  /// A group's outputs land, and its bar appears.
  private func addGroup(_ group: Int, _ frames: inout Keyframes) {
    let (time, last, away, turn) = (frames.time, frames.last, frames.away, frames.time.turn)
    let start = time.start(group)
    let hasFlight = group < walk.shown
    let (from, to) = hasFlight ? (start + 0.64 * turn, start + 0.88 * turn) : (start, start + 0.5)
    frames.add(
      "land\(group)",
      "0%,\(time.percent(from)){opacity:0;\(away)}"
        + "\(time.percent(from + 0.1)){opacity:1;\(away)}"
        + "\(time.percent(to)),100%{opacity:1;transform:none}")
    frames.add(
      "on\(group)",
      "0%,\(time.percent(start)){opacity:0}\(time.percent(start + 0.2)),\(last){opacity:1}100%{opacity:0}"
    )
  }

  /// What is said at the end; the bar of the plain loop.
  private func addEnd(_ frames: inout Keyframes) {
    let (time, last) = (frames.time, frames.last)
    let end = time.first + time.second
    frames.add(
      "end",
      "0%,\(time.percent(end)){opacity:0}\(time.percent(end + 0.3)),\(last){opacity:1}100%{opacity:0}"
    )
    frames.add(
      "fill",
      "0%{transform:scaleX(0);animation-timing-function:steps(\(walk.values.count),start)}"
        + "\(time.percent(Double(walk.values.count) * time.step)),\(last){transform:none;opacity:1}"
        + "100%{transform:none;opacity:0}")
  }

  /// The window goes from place to place.
  private func addSlide(_ side: Double, _ frames: inout Keyframes) {
    let time = frames.time
    let slides = walk.values.indices.map { index in
      let (row, column) = (index / walk.output.width, index % walk.output.width)
      let move =
        "{transform:translate(\(f(Double(column * walk.stride.width) * side))px,"
        + "\(f(Double(row * walk.stride.height) * side))px)}"
      let start = Double(index) * time.step
      return "\(time.percent(start)),\(time.percent(start + time.step * 0.7))\(move)"
    }
    frames.add("slide", slides.joined())
  }
}
