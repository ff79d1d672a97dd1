import ArgumentParser
import Foundation
import StrideNet

struct Bench: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Times kernels and networks against this machine's measured peak.",
    discussion: """
      kernels: every variant on the shapes of real networks, one thread; beside the time the \
      floating-point operations a second, their share of the measured fused multiply-add peak, and \
      how many times faster than the definition ('naive'), which is left out where it would take \
      seconds.
      networks: training (mini-batches of 128, momentum 0.9) and inference of 10,000 images of \
      each model, all threads.
      scaling: time and memory of training over mini-batch, filters and image size.
      machines: training steps of several processes (mpirun) beside one's, what travels between \
      them, and a model of how many would pay; of \(BenchMachines.usual.joined(separator: ", ")), \
      or the models that follow.
      """)

  enum Suite: String, ExpressibleByArgument {
    case kernels, networks, scaling, machines, all
    /// For Benchmarks/bench_peers.py: commands as JSON lines on standard input.
    case worker

    static let shown: [Suite] = [.kernels, .networks, .scaling, .machines, .all]
    static var allValueStrings: [String] { shown.map(\.rawValue) }
  }

  @Argument(help: ArgumentHelp("What to time.", valueName: "suite"))
  var suite = Suite.kernels

  @Argument(help: ArgumentHelp("Models, for machines.", valueName: "model"))
  var models: [String] = []

  @OptionGroup var compute: ComputeOptions

  @Option(
    help: ArgumentHelp(
      "Draw the kernels as a roofline plot, the scaling and the machines as lines (SVG).",
      valueName: "file"))
  var svg: String?

  @Flag(help: "Print JSON, an object a line.")
  var json = false

  func validate() throws {
    guard suite != .machines, let model = models.first else { return }
    throw ValidationError("models are for 'bench machines': found '\(model)' after '\(suite)'")
  }

  func run() throws {
    if suite == .machines { return try machines() }
    let runtime = try compute.runtime()
    if suite == .worker { return try BenchWorker(runtime: runtime).run() }
    if KernelChoice.isDebugBuild {
      Output.complain("this is a debug build: these timings mean nothing\n  --> make bench")
    }
    if let svg {
      guard suite != .networks else {
        throw StrideNetError(
          .usage, "nothing to draw", found: "--svg with networks",
          expected: "kernels, scaling, machines or all")
      }
      try AtomicFile.checkWritable(svg)
    }
    let peak = Roofline(of: runtime)
    try announce(peak)
    var plots: [Plot] = []
    if suite == .kernels || suite == .all { plots.append(try kernels(peak)) }
    if suite == .networks || suite == .all { try networks(peak, runtime) }
    if suite == .scaling || suite == .all { plots += try scaling(runtime) }
    if let svg {
      try AtomicFile.write(Array(Plot.svg(plots).utf8), to: svg)
      if !json { try Output.line("\nwrote \(svg)") }
    }
  }

  private func machines() throws {
    if let svg, Processes.isFirst { try AtomicFile.checkWritable(svg) }
    let plots = try BenchMachines(
      compute: compute, models: models.isEmpty ? BenchMachines.usual : models, json: json
    ).run()
    guard let svg, Processes.isFirst else { return }
    try AtomicFile.write(Array(Plot.svg(plots).utf8), to: svg)
    if !json { try Output.line("\nwrote \(svg)") }
  }

  private func announce(_ peak: Roofline) throws {
    let (one, all) = (peak.oneThread, peak.allThreads)
    if json {
      try Output.json(
        MachineEvent(
          isa: KernelChoice.instructionSet, precision: compute.precision ?? .float32,
          threads: all.threads, peak_gflops: one.gigaflopsPerSecond,
          peak_gflops_all: all.gigaflopsPerSecond,
          memory_read: one.memoryRead, memory_read_all: all.memoryRead,
          memory_copy: one.memoryCopy, memory_copy_all: all.memoryCopy,
          cache_copy: one.cacheCopy, cache_copy_all: all.cacheCopy))
      return
    }
    let precision = compute.precision ?? .float32
    try Output.line(
      "measured peak, \(KernelChoice.instructionSet)"
        + (precision == .bf16 ? ", bf16 by \(KernelChoice.bf16Unit)" : ""))
    for roof in all.threads == 1 ? [one] : [one, all] {
      try Output.line(
        "  \(roof.threads.threads.padded(10)) \(roof.gigaflopsPerSecond.fixed(1)) GFLOP/s "
          + "in multiply-adds; memory \(roof.memoryRead.fixed(1)) GB/s read, "
          + "\(roof.memoryCopy.fixed(1)) GB/s copied; cache \(roof.cacheCopy.fixed(0)) GB/s copied")
    }
  }

  // MARK: Kernels

  private func kernels(_ peak: Roofline) throws -> Plot {
    let choice =
      compute.precision == .bf16
      ? KernelChoice.auto.at(.bf16) : try compute.name().map { try KernelChoice(named: $0) }
    var all: [KernelTiming] = []
    var heading = ""
    if !json {
      try Output.line(
        "\nkernels: time, rate, its share of the peak, how many times as fast as naive")
    }
    try KernelBench(peak: peak.oneThread.gigaflopsPerSecond, kernels: choice).run { timings in
      all += timings
      for timing in timings {
        if json {
          try Output.json(KernelEvent(timing))
          continue
        }
        if heading != timing.shape {
          heading = timing.shape
          try Output.line("\n\(heading)")
        }
        try Output.line(line(timing))
      }
      if !json, timings.count > 1, let automatic = timings.first(where: \.isAutomatic) {
        let fastest = timings.first { $0.ratioToFastest == 1 }!
        try Output.line(
          "    auto takes \(automatic.variant), "
            + (automatic.variant == fastest.variant
              ? "the fastest"
              : "\(automatic.ratioToFastest.fixed(2))× the time of \(fastest.variant)"))
      }
    }
    if !json {
      for note in Roofline.notes(all.map { ($0.kernel, $0.shareOfPeak) }) {
        try Output.line("  \(note)")
      }
    }
    return .roofline(peak, all)
  }

  private func line(_ timing: KernelTiming) -> String {
    let rate =
      timing.gigaflopsPerSecond > 0
      ? "\(timing.gigaflopsPerSecond.fixed(1).leftPadded(8)) GFLOP/s"
        + "\((timing.shareOfPeak * 100).fixed(0).leftPadded(4)) %" : ""
    let ratio = timing.ratioToNaive.map { "\($0.fixed(1).leftPadded(7))×" } ?? ""
    return "  \(timing.kernel.padded(33))\(timing.milliseconds.fixed(3).leftPadded(9)) ms"
      + rate + ratio
  }

  // MARK: Networks

  private func networks(_ peak: Roofline, _ runtime: Runtime) throws {
    let data = try Dataset.load("sample")
    let roof = peak.allThreads.gigaflopsPerSecond
    if !json {
      try Output.line(
        "\nnetworks, \(runtime.threads.threads), kernels \(runtime.kernels); of each the "
          + "median round\n  model  mode   batch     images/s  MFLOP/image  GFLOP/s  % of peak")
    }
    let benches = try Architecture.presets.map { name, text, _ in
      (
        name, try NetworkBench(try Architecture.layers(text), data.train, runtime: runtime),
        try NetworkBench(try Architecture.layers(text), data.test, runtime: runtime)
      )
    }
    var rows: [(model: String, network: Network, mode: NetworkBench.Mode, batch: Int)] = []
    var cases: [NetworkBench.Case] = []
    for (name, training, inference) in benches {
      rows.append((name, training.network, .train, 128))
      cases.append(.init(training, .train, batch: 128))
      let batch = try inference.fastestBatch(of: [32, 64, 128])
      rows.append((name, inference.network, .infer, batch))
      cases.append(.init(inference, .infer, batch: batch, images: data.test.count))
    }
    var shares: [(kernel: String, share: Double)] = []
    for (row, timing) in zip(rows, try NetworkBench.medians(cases)) {
      let operations = row.network.operations(training: row.mode == .train)
      let event = NetworkEvent(
        model: row.model, mode: row.mode.rawValue, kernels: runtime.kernels.name,
        threads: runtime.threads, batch: row.batch, images: timing.images,
        seconds: timing.seconds, images_per_second: timing.imagesPerSecond,
        gflop_per_image: operations / 1e9, gflops: operations * timing.imagesPerSecond / 1e9,
        share_of_peak: operations * timing.imagesPerSecond / 1e9 / roof, losses: timing.losses)
      let winograd = row.network.runtime.kernels.name == "auto" ? "winograd" : ""
      shares.append((winograd, event.share_of_peak))
      if json {
        try Output.json(event)
      } else {
        try Output.line(
          "  \(row.model.padded(7))\(row.mode.rawValue.padded(6))"
            + "\("\(row.batch)".leftPadded(6))"
            + "\(Int(timing.imagesPerSecond).grouped.leftPadded(13))"
            + (operations / 1e6).fixed(3).leftPadded(13) + event.gflops.fixed(1).leftPadded(9)
            + (event.share_of_peak * 100).fixed(1).leftPadded(11))
      }
    }
    if !json, shares.contains(where: { $0.share > 1 }) {
      for note in Roofline.notes(shares) { try Output.line("  \(note)") }
    }
  }

  // MARK: Scaling

  private func scaling(_ runtime: Runtime) throws -> [Plot] {
    var plots: [Plot] = []
    for series in ScalingBench.all {
      var timings = try series.run(runtime: runtime)
      if series.over == .batch {
        for index in timings.indices {
          timings[index].memory = try BenchWorker.memory(
            batch: timings[index].value, threads: runtime.threads,
            kernels: compute.name())
        }
      }
      if !json {
        try Output.line(
          "\ntraining over \(series.title)\n"
            + series.heading.leftPadded(10)
            + "   µs/image   GFLOP/s" + (series.over == .batch ? "   memory" : ""))
      }
      for timing in timings {
        if json {
          try Output.json(
            ScalingEvent(
              over: series.over.rawValue, value: timing.value, kernels: runtime.kernels.name,
              threads: runtime.threads, batch: timing.batch,
              microseconds_per_image: timing.microsecondsPerImage,
              gflops: timing.gigaflopsPerSecond, memory_bytes: timing.memory))
        } else {
          let memory = timing.memory.map { (Double($0) / 1e6).fixed(1).leftPadded(8) + " MB" } ?? ""
          try Output.line(
            series.label(timing.value).leftPadded(10)
              + timing.microsecondsPerImage.fixed(2).leftPadded(11)
              + timing.gigaflopsPerSecond.fixed(1).leftPadded(10) + memory)
        }
      }
      plots += Plot.scaling(series, timings)
    }
    return plots
  }

  // MARK: What is printed

  private struct MachineEvent: Encodable {
    var event = "machine"
    let isa: String
    let precision: Precision
    let threads: Int
    let peak_gflops, peak_gflops_all: Double
    let memory_read, memory_read_all, memory_copy, memory_copy_all: Double
    let cache_copy, cache_copy_all: Double
  }

  private struct KernelEvent: Encodable {
    var event = "kernel"
    let kernel, shape, variant: String
    let milliseconds, gflops, share_of_peak, intensity: Double
    let ratio_to_naive: Double?
    let ratio_to_fastest: Double
    let automatic: Bool

    init(_ t: KernelTiming) {
      (kernel, shape, variant, milliseconds) = (t.kernel, t.shape, t.variant, t.milliseconds)
      (gflops, share_of_peak) = (t.gigaflopsPerSecond, t.shareOfPeak)
      intensity = t.intensity
      (ratio_to_naive, ratio_to_fastest) = (t.ratioToNaive, t.ratioToFastest)
      automatic = t.isAutomatic
    }
  }

  private struct NetworkEvent: Encodable {
    var event = "network"
    let model, mode, kernels: String
    let threads, batch, images: Int
    let seconds, images_per_second, gflop_per_image, gflops, share_of_peak: Double
    let losses: [Float]
  }

  private struct ScalingEvent: Encodable {
    var event = "scaling"
    let over: String
    let value: Int
    let kernels: String
    let threads, batch: Int
    let microseconds_per_image, gflops: Double
    let memory_bytes: Int?
  }
}

/// A process that runs commands, as the workers of Benchmarks/peers.py do; its text says what
/// commands and answers hold. A model is a preset or the command's "layers"; without "data" the
/// images are synthetic, 28×28×1 unless the command says another "shape".
struct BenchWorker {
  let runtime: Runtime

  private struct Command: Codable {
    let model, mode: String
    let batch, images: Int
    var data, layers: String?
    /// Height, width, channels.
    var shape: [Int]?
  }

  private struct Answer: Codable {
    var peer = "stridenet"
    let version: String
    var allocator = "own"
    let threads: Int
    let model, mode: String
    let batch, images: Int
    let seconds: Double
    let losses: [Float]
    /// Bytes by which the peak of the memory in use rose from before the network was made.
    let memory: Int
  }

  private struct Failure: Encodable {
    var peer = "stridenet"
    let error: String
  }

  func run() throws {
    var loaded: (name: String, data: Dataset)?
    while let line = readLine() {
      if line.allSatisfy(\.isWhitespace) { continue }
      do {
        let command = try JSONDecoder().decode(Command.self, from: Data(line.utf8))
        if let folder = command.data, loaded?.name != folder {
          loaded = (folder, try Dataset.load(folder))
        }
        try Output.json(answer(command, command.data == nil ? nil : loaded?.data))
      } catch {
        try Output.json(Failure(error: "\(error)"))
      }
    }
  }

  private func answer(_ command: Command, _ data: Dataset?) throws -> Answer {
    let preset = Architecture.presets.first { $0.name == command.model }?.text
    let shape = command.shape ?? [28, 28, 1]
    guard let layers = command.layers ?? preset, shape.count == 3, shape.allSatisfy({ $0 > 0 }),
      let mode = NetworkBench.Mode(rawValue: command.mode), command.batch > 0, command.images > 0
    else { throw StrideNetError(.usage, "no such command", found: "\(command)") }
    let set = (mode == .train ? data?.train : data?.test)?.cycled(to: command.images)
    let images = try set ?? .synthetic(command.images, Shape(shape[0], shape[1], shape[2]))
    let before = Self.peakMemory
    let bench = try NetworkBench(try Architecture.layers(layers), images, runtime: runtime)
    let timing = try bench.run(mode, batch: command.batch, images: command.images)
    return Answer(
      version: "\(runtime.kernels), \(KernelChoice.instructionSet)", threads: runtime.threads,
      model: command.model, mode: command.mode, batch: command.batch, images: command.images,
      seconds: timing.seconds, losses: timing.losses, memory: Self.peakMemory - before)
  }

  /// Bytes of this process that were in memory at most.
  private static var peakMemory: Int {
    #if os(Linux)
      // Not getrusage: there a process starts with the peak of the one that started it.
      let status = (try? String(contentsOfFile: "/proc/self/status", encoding: .utf8)) ?? ""
      let line = status.split(separator: "\n").first { $0.hasPrefix("VmHWM:") }
      return line.flatMap { Int($0.filter(\.isNumber)) }.map { $0 * 1024 } ?? 0
    #else
      var usage = rusage()
      getrusage(RUSAGE_SELF, &usage)
      return usage.ru_maxrss
    #endif
  }

  /// What a step of the CNN takes, in a process of its own, since a peak never falls.
  static func memory(batch: Int, threads: Int, kernels: String?) throws -> Int? {
    let process = Process()
    guard let program = Bundle.main.executablePath else { return nil }
    process.executableURL = URL(fileURLWithPath: program)
    process.arguments =
      ["bench", "worker", "--threads", "\(threads)"] + (kernels.map { ["--kernels", $0] } ?? [])
    let (input, output) = (Pipe(), Pipe())
    process.standardInput = input
    process.standardOutput = output
    try process.run()
    let command = Command(model: "cnn", mode: "train", batch: batch, images: batch)
    try input.fileHandleForWriting.write(contentsOf: JSONEncoder().encode(command) + Data([10]))
    try input.fileHandleForWriting.close()
    let answer = try output.fileHandleForReading.readToEnd() ?? Data()
    process.waitUntilExit()
    guard let bytes = try? JSONDecoder().decode(Answer.self, from: answer).memory, bytes > 0
    else { return nil }
    return bytes
  }
}
