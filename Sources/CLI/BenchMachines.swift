import Foundation
import StrideNet

/// `stridenet bench machines`: training steps of several processes, and how many would pay.
struct BenchMachines {
  let compute: ComputeOptions
  let models: [String]
  let json: Bool

  static let usual = ["cnn", "lenet", "vgg"]

  /// - Returns: the time of a step over the number of processes, network by network
  func run() throws -> [Plot] {
    guard let communicator = Processes.communicator else {
      throw StrideNetError(
        .usage, "bench machines times several processes", found: "one process",
        expected: "two or more, of a build with MPI",
        hint: "make mpi, then mpirun -n 2 .build-mpi/release/stridenet bench machines")
    }
    let presets = try models.map { name in
      guard let preset = Architecture.presets.first(where: { $0.name == name }) else {
        throw StrideNetError(
          .usage, "no such model", found: "'\(name)'",
          expected: Architecture.presets.map(\.name).joined(separator: ", "))
      }
      return preset
    }
    let images = try Dataset.load("sample").train
    let link = try ProcessLink(communicator)
    let start = LinkEvent(
      processes: communicator.size, on_this_machine: Processes.neighbours,
      threads: try runtime(.exact)!.threads, isa: KernelChoice.instructionSet,
      precision: compute.precision ?? .float32, latency: link.latency, bandwidth: link.bandwidth)
    try tell(start)
    var events: [StepEvent] = []
    for preset in presets {
      for batch in [TrainingSettings().batchSize, 4 * TrainingSettings().batchSize] {
        let bench = try MachinesBench(
          try Architecture.layers(preset.text), images, batch: batch, communicator: communicator,
          runtime: runtime)
        let timings = try bench.run()
        let alone = timings.first { $0.way == .alone }!
        for timing in timings {
          let event = StepEvent(
            preset.name, batch, timing, bench.network, alone.seconds, link, communicator.size)
          events.append(event)
          try tell(event, of: timings)
        }
      }
    }
    if !json { try explain(start, events) }
    return Self.plots(start, events)
  }

  /// - Returns: nil for a way that isn't timed here
  private func runtime(_ way: MachinesBench.Way) throws -> Runtime? {
    var options = compute
    let own = options.threads ?? Processes.threads ?? 1
    options.threads = own
    let all = own * Processes.neighbours
    switch way {
    case .alone: break
    case .threads:
      // Where one process may use the processors of all.
      guard Processes.neighbours == Processes.communicator!.size, all <= Runtime.defaultThreads
      else { return nil }
      options.threads = all
    case .exact, .fast:
      return try options.runtime(
        named: options.name(), options.precision, reducesFast: way == .fast)
    }
    return Runtime(
      threads: options.threads, kernels: try options.name().map { try KernelChoice(named: $0) },
      precision: options.precision ?? .float32)
  }

  // MARK: What is printed

  struct LinkEvent: Codable {
    var event = "link"
    /// In a file that keeps what was measured.
    var machine: String?
    let processes, on_this_machine, threads: Int
    let isa: String
    let precision: Precision
    let latency, bandwidth: Double
  }

  struct StepEvent: Codable {
    var event = "step"
    let model: String
    let batch, leaves: Int
    let reduce: String
    let processes, threads: Int
    let seconds, computing, sending, waiting: Double
    let bytes, bytes_model: Double
    let messages, sums: Double
    let seconds_model: Double
    /// The model's seconds for 1, 2, 4 … processes, up to an image each.
    let curve: [Double]?

    init(
      _ model: String, _ batch: Int, _ timing: MachinesBench.Timing, _ network: Network,
      _ alone: Double, _ link: ProcessLink, _ size: Int
    ) {
      let foreseen = MachinesModel(
        network, batch: batch, isFast: timing.way == .fast, compute: alone, link: link)
      (self.model, self.batch, leaves) = (model, batch, foreseen.leaves)
      let isShared = timing.way.isShared
      (reduce, processes, threads) = (timing.way.rawValue, isShared ? size : 1, timing.threads)
      (seconds, computing) = (timing.seconds, timing.computing)
      (sending, waiting) = (timing.sending, timing.waiting)
      (bytes, bytes_model) = (timing.volume, isShared ? foreseen.volume(size) : 0)
      (messages, sums) = (timing.messages, timing.sums)
      seconds_model = isShared ? foreseen.seconds(size) : alone
      curve =
        isShared
        ? (0...10).map { 1 << $0 }.filter { $0 <= batch }.map { foreseen.seconds($0) } : nil
    }
  }

  private func tell(_ link: LinkEvent) throws {
    if json { return try Output.json(link) }
    try Output.line(
      "\(link.processes) processes, \(link.on_this_machine) of them here, \(link.threads.threads) each; "
        + "between two: \((link.latency * 1e6).digits(2)) µs, \((link.bandwidth / 1e9).digits(2)) GB/s"
    )
    try Output.line(
      "\nms of a step, its parts in % (computing, sending, waiting), MB that all send in a step: "
        + "counted, the model's, counted/model")
    try Output.line(
      "  model  images  way      ms      model   comp send wait       MB    model  ratio")
  }

  private func tell(_ event: StepEvent, of timings: [MachinesBench.Timing]) throws {
    if json { return try Output.json(event) }
    func percent(_ share: Double) -> String { (share * 100).fixed(0).leftPadded(5) }
    let head =
      "  \(event.model.padded(7))\("\(event.batch)".leftPadded(6))  \(event.reduce.padded(8))"
      + (event.seconds * 1e3).fixed(2).leftPadded(7)
    guard event.bytes_model > 0 else { return try Output.line(head) }
    try Output.line(
      head + (event.seconds_model * 1e3).fixed(2).leftPadded(9) + "  " + percent(event.computing)
        + percent(event.sending) + percent(event.waiting)
        + (event.bytes / 1e6).fixed(3).leftPadded(9)
        + (event.bytes_model / 1e6).fixed(3).leftPadded(9)
        + (event.bytes / event.bytes_model).fixed(3).leftPadded(7))
  }

  private func explain(_ link: LinkEvent, _ events: [StepEvent]) throws {
    try Output.line("")
    for way in ["alone", "threads"] where events.contains(where: { $0.reduce == way }) {
      let threads = events.first { $0.reduce == way }!.threads
      try Output.line("  \(way): one process, \(threads.threads)")
    }
    for event in events where event.reduce == "exact" {
      guard
        let other = events.first(where: {
          $0.reduce == "threads" && $0.model == event.model && $0.batch == event.batch
        })
      else { continue }
      let more = (event.seconds / other.seconds - 1) * 100
      try Output.line(
        "  \(event.model), \(event.batch) images: exact takes \(abs(more).fixed(0)) % "
          + "\(more < 0 ? "less" : "more") time than one process with as many threads")
    }
    let most = events.map(\.leaves).max()!
    try Output.line(
      "  a mini-batch has \(most) parts at most: more processes than that don't help today; the model "
        + "is of networks whose messages all take the measured link's time")
  }

  // MARK: The plots

  static func plots(_ link: LinkEvent, _ events: [StepEvent]) -> [Plot] {
    var plots: [Plot] = []
    for alone in events where alone.reduce == "alone" {
      let own = events.filter { $0.model == alone.model && $0.batch == alone.batch }
      var (lines, dots): ([Plot.Line], [Plot.Dot]) = ([], [])
      for event in own {
        let (colour, marker) = style(event.reduce)
        guard event.reduce != "threads" else { continue }
        dots.append(
          Plot.Dot(
            x: Double(event.processes), y: event.seconds * 1e3, colour: colour, marker: marker,
            title: "\(event.reduce): \((event.seconds * 1e3).digits(3)) ms measured"))
        guard let curve = event.curve else { continue }
        let points = curve.enumerated().map { (x: Double(1 << $0), y: $1 * 1e3) }
        let inside = points.filter { $0.x <= Double(event.leaves) }
        let beyond = points.filter { $0.x >= Double(event.leaves) }
        lines.append(Plot.Line(points: inside, colour: colour))
        if beyond.count > 1 {
          lines.append(Plot.Line(points: beyond, colour: colour, dashes: "3 4"))
        }
      }
      let ticks = [1, 4, 16, 64, 256, 1024].map { (value: Double($0), label: "\($0)") }
      plots.append(
        Plot(
          title: "\(alone.model), mini-batches of \(alone.batch)",
          subtitle: "blue exact, orange fast, dots measured, dashed beyond \(alone.leaves) parts",
          x: .logarithmic("processes", at: ticks),
          y: .logarithmic("ms a step", lines.flatMap(\.points).map(\.y) + dots.map(\.y)),
          lines: lines, dots: dots))
    }
    return plots
  }

  private static func style(_ way: String) -> (String, Plot.Marker) {
    switch way {
    case "exact": ("c2", .circle)
    case "fast": ("c0", .triangle)
    default: (Plot.ink, .square)
    }
  }
}
