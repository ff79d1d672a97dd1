import ArgumentParser
import Foundation
import StrideNet

struct Bench: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Times every kernel variant on the shapes of real networks, one thread.",
    discussion: """
      Each row: median time, floating-point operations a second, their share of this processor's \
      fused multiply-add peak measured in the same run, and how many times faster than the \
      definition ('naive').
      """)

  @Flag(help: "Print JSON, an object a line.")
  var json = false

  func run() throws {
    if KernelChoice.isDebugBuild {
      Output.complain("this is a debug build: these timings mean nothing\n  --> make bench")
    }
    let bench = KernelBench()
    if json {
      try Output.json(
        Machine(isa: KernelChoice.instructionSet, peak_gflops: bench.peak, threads: 1))
    } else {
      try Output.line(
        "\(KernelChoice.instructionSet), one thread, measured FMA peak \(bench.peak.fixed(1)) GFLOP/s"
      )
    }
    var heading = ""
    try bench.run { timings in
      for timing in timings {
        if json {
          try Output.json(timing)
          continue
        }
        if heading != timing.shape {
          heading = timing.shape
          try Output.line("\n\(heading)")
        }
        let rate =
          timing.gigaflopsPerSecond > 0
          ? "\(timing.gigaflopsPerSecond.fixed(1).leftPadded(8)) GFLOP/s"
            + "\((timing.shareOfPeak * 100).fixed(1).leftPadded(7)) % of peak"
          : ""
        let ratio = timing.ratioToNaive.map { "\($0.fixed(1).leftPadded(8))× naive" } ?? ""
        try Output.line(
          "  \(timing.kernel.padded(36))\(timing.milliseconds.fixed(3).leftPadded(10)) ms\(rate)\(ratio)"
        )
      }
    }
  }

  private struct Machine: Encodable {
    var event = "machine"
    let isa: String
    let peak_gflops: Double
    let threads: Int
  }
}
