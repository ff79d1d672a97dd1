import StrideNet

/// What `stridenet train --profile` prints.
enum ProfileTable {
  static func print(_ explanation: Explanation, json: Bool) throws {
    if json {
      for row in explanation.rows { try Output.json(RowEvent(row)) }
      try Output.json(TotalEvent(explanation))
    } else {
      for line in table(explanation) { try Output.line(line) }
    }
  }

  private static func table(_ e: Explanation) -> [String] {
    let heading = [
      "", "layer", "pass", "kernel", "MFLOP", "MB", "roof µs", "took µs", "of peak", "why",
    ]
    func cells(_ row: Explanation.Row) -> [String] {
      let hasOperations = row.operations > 0
      return [
        row.number.isEmpty ? row.name : row.number, row.number.isEmpty ? "" : row.name, row.pass,
        row.kernel, hasOperations ? (row.operations / 1e6).fixed(1) : "",
        (row.bytes / 1e6).fixed(2),
        (row.predicted * 1e6).fixed(0), (row.measured * 1e6).fixed(0),
        hasOperations ? row.shareOfPeak.percent(1) : "", row.why,
      ]
    }
    let rows = [heading] + e.rows.map(cells) + [cells(e.total)]
    // Numbers stand between the words.
    let lines = aligned(rows, textColumns: [0, 1, 2, 3, heading.count - 1], keys: [0, 2])
    let (peak, memory) = (e.roof.gigaflopsPerSecond.fixed(0), e.roof.memory.fixed(0))
    var notes = [
      "  the rows account for \(e.accounted.percent(1)) of the wall time",
      "  roof: the operations at \(peak) GFLOP/s or the bytes at \(memory) GB/s of memory, both "
        + "measured beside the training, whichever takes longer; what a cache holds may be faster",
    ]
    notes += e.notes.map { "  \($0)" }
    if e.rows.contains(where: { $0.number.contains("+") }) {
      notes.append(
        "  1+2:  layers that run together; what lies between them stays in a cache, not in MB")
    }
    return [
      "explain  the mean of \(e.steps.grouped) steps of \(e.images.fixed(1)) images, "
        + e.roof.threads.threads
    ] + lines + notes.flatMap { $0.wrapped(Output.columns) }
  }

  private struct RowEvent: Encodable {
    var event = "pass"
    /// The layers' numbers, none where it isn't a layer's.
    let layers: [Int]
    let name, pass, kernel, why: String
    let fused: Bool
    let flop, bytes, predicted_seconds, seconds, share_of_peak: Double

    init(_ row: Explanation.Row) {
      layers = row.number.split(separator: "+").compactMap { Int($0) }
      (name, pass, kernel, why) = (row.name, row.pass, row.kernel, row.why)
      fused = layers.count > 1
      (flop, bytes) = (row.operations, row.bytes)
      (predicted_seconds, seconds) = (row.predicted, row.measured)
      share_of_peak = row.shareOfPeak
    }
  }

  private struct TotalEvent: Encodable {
    var event = "passes"
    let steps, threads: Int
    let images_per_step, flop, bytes, predicted_seconds, seconds, share_of_peak: Double
    let accounted, peak_gflops, memory: Double
    /// What is to be said of the shares.
    let notes: [String]

    init(_ e: Explanation) {
      (steps, threads, images_per_step) = (e.steps, e.roof.threads, e.images)
      (flop, bytes) = (e.total.operations, e.total.bytes)
      (predicted_seconds, seconds) = (e.total.predicted, e.total.measured)
      share_of_peak = e.total.shareOfPeak
      notes = e.notes
      (accounted, peak_gflops, memory) = (e.accounted, e.roof.gigaflopsPerSecond, e.roof.memory)
    }
  }
}
