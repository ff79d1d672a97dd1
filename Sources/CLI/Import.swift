import ArgumentParser
import StrideNet

struct Import: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Takes over weights that PyTorch saved.",
    discussion: """
      The file is of a model's state_dict: safetensors.torch.save_file(model.state_dict(), FILE) \
      or torch.save(model.state_dict(), FILE). Names as in a torch.nn.Sequential with a module for \
      each layer and each activation say which layer's the tensors are; else their shapes and \
      order do, and it is printed what became of what. Nothing in the file is run.
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
    var renamed: [String] = []
    let network = try Network.importPyTorch(
      from: file, layers: Architecture.layers(layers, source: "--layers"),
      input: Shape(sizes[0], sizes[1], sizes[2])
    ) { name, there in
      guard there != name else { return }
      renamed.append(there.map { "\(name) is \($0)" } ?? "\(name) isn't there: a layer without one")
    }
    try network.save(to: save)
    for line in renamed { try Output.line(line) }
    try Output.line("\(save): \(Architecture.text(network.layers))")
  }
}
