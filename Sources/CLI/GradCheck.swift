import ArgumentParser
import StrideNet

struct GradCheck: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "gradcheck",
    abstract: "Checks backward passes against finite differences, layer by layer.",
    discussion: """
      --mutant puts a layer with a mistake in the network's place, to see what it looks like:

      \(Mutant.Mistake.allCases.map { "  \($0.rawValue): \($0.summary)" }.joined(separator: "\n"))
      """)

  @Argument(
    help: ArgumentHelp(
      "\(Architecture.presets.map(\.name).joined(separator: ", ")), or a file that train --save wrote.",
      valueName: "network"))
  var network: String?

  @Option(help: ArgumentHelp("A network of one's own, layer by layer.", valueName: "text"))
  var layers: String?

  @Option(help: ArgumentHelp("The size of its input.", valueName: "HxWxC"))
  var input = "28x28x1"

  @Option(help: ArgumentHelp("A layer with this mistake instead.", valueName: "name"))
  var mutant: String?

  @Option(parsing: .unconditional, help: "Decides everything random.")
  var seed: UInt64 = 1

  @OptionGroup var compute: ComputeOptions

  @Flag(help: "Print JSON, an object a line.")
  var json = false

  func run() throws {
    guard [network, layers, mutant].compactMap({ $0 }).count <= 1 else {
      throw StrideNetError(
        .usage, "more than one network", found: "of a name, --layers and --mutant, several",
        expected: "one of them")
    }
    var sizes = input.split(separator: "x").map { Int($0) ?? 0 }
    guard sizes.count == 3, sizes.allSatisfy({ (1...4096).contains($0) }) else {
      throw StrideNetError(
        .usage, "no size of an input", found: "'\(input)'",
        expected: "height x width x channels: 28x28x1")
    }
    let chosen: [any Layer]
    // A file's weights are what is checked then.
    var loaded: Network?
    if let mutant {
      guard let mistake = Mutant.Mistake(rawValue: mutant) else {
        throw StrideNetError(
          .usage, "no mutant of that name", found: "'\(mutant)'",
          expected: Mutant.Mistake.allCases.map(\.rawValue).joined(separator: ", "))
      }
      chosen = [Mutant(mistake)]
      sizes = [8, 8, 2]
      if !json { try Output.line("\(mutant): \(mistake.summary)\n") }
    } else if let layers {
      chosen = try Architecture.layers(layers, source: "--layers")
    } else if let preset = Architecture.presets.first(where: { $0.name == network ?? "cnn" }) {
      chosen = try Architecture.layers(preset.text)
    } else {
      loaded = try Network.load(from: network!, runtime: compute.runtime())
      chosen = []
    }
    let check =
      if let loaded {
        try GradientCheck(loaded, seed: seed)
      } else {
        try GradientCheck(
          chosen, input: Shape(sizes[0], sizes[1], sizes[2]), seed: seed, runtime: compute.runtime()
        )
      }
    if json {
      for row in check.rows { try Output.json(row) }
    } else {
      for line in Self.table(check.rows) { try Output.line(line) }
    }
    guard check.passed else {
      throw StrideNetError(
        .badData, "a backward pass is wrong",
        at: check.rows.filter { !$0.passed }.map { "layer \($0.layer), \($0.name), \($0.array)" }
          .joined(separator: "; "),
        expected: "the slopes of the forward pass",
        hint: mutant == nil ? nil : "that is the mistake at work")
    }
  }

  private static func table(_ rows: [GradientCheck.Row]) -> [String] {
    let heading = ["", "", "layer", "array", "checked", "at corners", "worst error"]
    return aligned(
      [heading]
        + rows.map { row in
          [
            row.passed ? "ok" : "WRONG", "\(row.layer)", row.name, row.array,
            "\(row.checked.grouped) of \(row.count.grouped)",
            row.corners > 0 ? "\(row.corners)" : "",
            row.passed
              ? row.worstError.number(5)
              : "[\(row.index)]: slope \(row.slope.number(4)), backward pass \(row.gradient.number(4))",
          ]
        }, textColumns: [0, 2, 3, 6], keys: [0, 1], indent: "")
  }
}
