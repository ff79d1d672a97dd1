import ArgumentParser

struct ExplainCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "explain",
    abstract: "Shows a computation step by step, with its numbers.",
    discussion: """
      'value' is the default: 'stridenet explain FILE --at y,x,c' is 'stridenet explain value FILE --at y,x,c'.
      """,
    subcommands: [ExplainConv.self, ExplainValue.self], defaultSubcommand: ExplainValue.self)
}
