import ArgumentParser
import StrideNet

struct Import: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Takes over weights that PyTorch saved.",
    discussion: """
      The file is a safetensors file of the state_dict of a torch.nn.Sequential with a module for \
      each layer and each activation: safetensors.torch.save_file(model.state_dict(), FILE).
      """)

  @Argument(help: ArgumentHelp("PyTorch's weights.", valueName: "file"))
  var file: String

  @Option(help: ArgumentHelp("The layers, as for train.", valueName: "text"))
  var layers: String

  @Option(help: ArgumentHelp("The images' height, width and channels: 28x28x1.", valueName: "size"))
  var input: String

  @Option(help: ArgumentHelp("The weight file to write.", valueName: "file"))
  var save: String

  func run() throws {
    let sizes = input.split(separator: "x", omittingEmptySubsequences: false).map { Int($0) ?? 0 }
    guard sizes.count == 3, sizes.allSatisfy({ $0 > 0 && $0 <= 1 << 20 }) else {
      throw StrideNetError(
        .usage, "an input size that isn't one", at: "--input", found: "'\(input)'",
        expected: "height x width x channels: 28x28x1")
    }
    let network = try Network.importPyTorch(
      from: file, layers: Architecture.layers(layers, source: "--layers"),
      input: Shape(sizes[0], sizes[1], sizes[2]))
    try network.save(to: save)
    try Output.line("\(save): \(Architecture.text(network.layers))")
  }
}
