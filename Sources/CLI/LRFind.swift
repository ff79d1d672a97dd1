import ArgumentParser
import Foundation
import StrideNet

struct LRFind: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "lr-find",
    abstract: "Sweeps learning rates and suggests one: where the loss falls fastest.",
    discussion: """
      Takes the network, the data and all other options of 'stridenet train', and trains a few \
      mini-batches at rates from small to large, until the loss diverges. No weights are kept. The \
      suggestion is the rate at which the loss fell fastest, as the largest one of a schedule that \
      falls; a tenth of the rate at which it was lowest is a careful one.
      """)

  @Argument(
    parsing: .allUnrecognized,
    help: ArgumentHelp("A model and options, as train takes them.", valueName: "train-options"))
  var arguments: [String] = []

  @Option(
    parsing: .unconditional, help: ArgumentHelp("Where the sweep begins.", valueName: "rate"))
  var lowest: Float = 1e-6

  @Option(parsing: .unconditional, help: ArgumentHelp("Where it ends.", valueName: "rate"))
  var highest: Float = 10

  @Option(parsing: .unconditional, help: "Mini-batches, each at a higher rate.")
  var steps = 100

  @Option(help: ArgumentHelp("Draw the curve there.", valueName: "file"))
  var svg: String?

  @Flag(help: "Print JSON.")
  var json = false

  func run() throws {
    let train = try Train.parsed(arguments, by: "lr-find")
    if let svg { try AtomicFile.checkWritable(svg) }
    let interrupt = Interrupt()
    let run = try train.begin(train.settle(isQuiet: json))
    run.trainer.shouldStop = { interrupt.requested }
    var done = 0
    let sweep = try run.trainer.sweepLearningRates(from: lowest, to: highest, steps: steps) {
      point in
      done += 1
      Output.progress {
        "step \(done)/\(steps)  learning rate \(point.rate.short)  "
          + "\(run.trainer.network.loss.title) \(point.smoothed.fixed(4))"
      }
    }
    if let signal = interrupt.signal { throw ExitCode(128 + signal) }
    if json {
      try Output.json(Event(sweep, loss: run.trainer.network.loss))
    } else {
      try show(sweep, run)
    }
    if let svg {
      try AtomicFile.write(Array(Plot.svg([plot(sweep, run)]).utf8), to: svg)
      if !json { try Output.line("curve     \(svg)") }
    }
  }

  private struct Event: Encodable {
    var event = "lr-find"
    let loss: Loss
    let points: [LearningRateSweep.Point]
    let diverged: Bool
    let lowest, steepest, suggestion: Float?

    init(_ sweep: LearningRateSweep, loss: Loss) {
      self.loss = loss
      (points, diverged) = (sweep.points, sweep.hasDiverged)
      (lowest, steepest) = (sweep.lowest?.rate, sweep.steepest?.rate)
      suggestion = sweep.suggestion
    }
  }

  private func show(_ sweep: LearningRateSweep, _ run: Train.Run) throws {
    let loss = run.trainer.network.loss.title
    try Output.line(
      """
      network   \(run.configuration.layers)
      data      \(run.trainer.source): \(run.trainer.train.count.grouped) training images, \
      mini-batches of \(run.trainer.settings.batchSize)

      """)
    let seen = Self.seen(sweep)
    if let first = seen.first, seen.count > 1 {
      let curve = TextCurve(
        points: seen.map { (log(Double($0.rate)), Double($0.smoothed)) },
        mark: sweep.suggestion.map { log(Double($0)) })
      try Output.line("\(loss), smoothed")
      for line in curve.lines(width: 64, height: 14) { try Output.line(line) }
      try Output.line(curve.foot("\(first.rate.short)", "\(seen.last!.rate.short)", width: 64))
    }
    try Output.line("")
    if let end = sweep.points.last {
      try Output.line(
        sweep.hasDiverged
          ? "diverged  behind \(end.rate.short)"
          : "ended     at \(end.rate.short), the loss didn't diverge")
    } else {
      try Output.line("diverged  at once")
    }
    guard let suggestion = sweep.suggestion, let lowest = sweep.lowest else {
      return try Output.line(
        "no suggestion: the loss never fell; look at the images, or "
          + (sweep.hasDiverged ? "begin lower with --lowest" : "end higher with --highest"))
    }
    try Output.line(
      "lowest    \(lowest.smoothed.number(4)) at \(lowest.rate.short), of which a tenth is "
        + "\((lowest.rate / 10).short)"
        + (sweep.steepest.map { "\nsteepest  at \($0.rate.short)" } ?? ""))
    try Output.line("try       --learning-rate \(suggestion.short)")
  }

  /// What a curve shows: where it shoots up, no higher than a little above where it began.
  private static func seen(_ sweep: LearningRateSweep) -> ArraySlice<LearningRateSweep.Point> {
    let points = sweep.points
    guard let first = points.first else { return [] }
    let most = 1.3 * max(first.smoothed, points.prefix(10).map(\.smoothed).max()!)
    let lowest = points.indices.min { points[$0].smoothed < points[$1].smoothed }!
    return points[..<(points[lowest...].firstIndex { $0.smoothed > most } ?? points.count)]
  }

  private func plot(_ sweep: LearningRateSweep, _ run: Train.Run) -> Plot {
    let seen = Self.seen(sweep)
    let rates = sweep.points.map { Double($0.rate) }
    let highest = max(1e-6, 1.2 * Double(seen.map(\.smoothed).max() ?? 1))
    let y = Plot.Axis.linear("loss: \(run.trainer.network.loss.title)", [highest])
    var plot = Plot(
      title: "Learning rates",
      subtitle: "dots: mini-batches of \(run.trainer.settings.batchSize); line: smoothed",
      x: .logarithmic("learning rate", rates.isEmpty ? [Double(lowest), 1] : rates), y: y)
    plot.dots = sweep.points.filter { Double($0.loss) <= y.high }.map {
      Plot.Dot(
        x: Double($0.rate), y: Double($0.loss), colour: Plot.soft, marker: .circle,
        title: "\($0.rate.short): \($0.loss.number(4))")
    }
    plot.lines = [
      Plot.Line(
        points: seen.map { (Double($0.rate), Double($0.smoothed)) }, colour: Plot.palette[2])
    ]
    if let suggestion = sweep.suggestion.map(Double.init) {
      plot.lines.append(
        Plot.Line(
          points: [(suggestion, y.low), (suggestion, y.high)], colour: Plot.palette[0],
          dashes: "6 4", label: "try \(Float(suggestion).short)"))
    }
    return plot
  }
}

/// A curve in letters.
struct TextCurve {
  /// From left to right.
  let points: [(x: Double, y: Double)]
  /// Where a line goes down.
  let mark: Double?

  private var left: Double { points.first!.x }
  private var right: Double { points.last!.x }

  private func column(_ x: Double, _ width: Int) -> Int {
    Int(((x - left) / (right - left) * Double(width - 1)).rounded())
  }

  /// The rows from above, with the values at the ends of the axis.
  func lines(width: Int, height: Int) -> [String] {
    let low = points.map(\.y).min()!, high = points.map(\.y).max()!
    var rows = [[Character]](
      repeating: [Character](repeating: " ", count: width), count: height)
    if let mark, mark >= left, mark <= right {
      for row in rows.indices { rows[row][column(mark, width)] = "┊" }
    }
    func row(_ y: Double) -> Int {
      high > low ? Int(((high - y) / (high - low) * Double(height - 1)).rounded()) : height / 2
    }
    var before: Int?
    for x in 0..<width {
      // Between two points the curve is straight.
      let at = left + (right - left) * Double(x) / Double(width - 1)
      let next = points.firstIndex { $0.x >= at } ?? points.count - 1
      let (a, b) = (points[max(0, next - 1)], points[next])
      let share = b.x > a.x ? (at - a.x) / (b.x - a.x) : 1
      let here = row(a.y + (b.y - a.y) * min(1, max(0, share)))
      // Steep pieces are joined.
      for y in min(here, before ?? here)...max(here, before ?? here) where y != before {
        rows[y][x] = y == here ? "●" : "·"
      }
      rows[here][x] = "●"
      before = here
    }
    return rows.enumerated().map { index, row in
      let label = index == 0 ? high.fixed(3) : index == height - 1 ? low.fixed(3) : ""
      return (label.leftPadded(9) + " │" + String(row)).withoutTrailingSpaces
    }
  }

  /// The axis below, with what stands at its ends.
  func foot(_ first: String, _ last: String, width: Int) -> String {
    let dashes = String(repeating: " ", count: 10) + "└" + String(repeating: "─", count: width)
    return dashes + "\n" + String(repeating: " ", count: 11) + first
      + last.leftPadded(width - first.count)
  }
}

extension Float {
  /// Three digits that count: 0.00125, 1e-06.
  var short: String { String(format: "%.3g", self) }
}
