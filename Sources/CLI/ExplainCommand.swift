import ArgumentParser

struct ExplainCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "explain", abstract: "Shows a computation step by step, with its numbers.",
    subcommands: [ExplainConv.self])
}
