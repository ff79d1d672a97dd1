import ArgumentParser

struct ExplainCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "explain",
    abstract: "Shows how a convolution is computed, or where a number of a network comes from.",
    subcommands: [ExplainValue.self], defaultSubcommand: ExplainValue.self)
}
