import ArgumentParser
import Foundation
import StrideNet

struct Export: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Writes a saved network for other programs.",
    discussion: """
      By the name's ending, or --format: c, one file of plain C99 with the weights in it, and with \
      --name a header beside it; onnx, \
      a model for ONNX Runtime and other tools; safetensors, the weights as PyTorch has them, with \
      the Python that loads them printed and in the metadata.
      """)

  enum Format: String, CaseIterable, ExpressibleByArgument { case c, onnx, safetensors }

  @Argument(help: ArgumentHelp("Weights that train --save wrote.", valueName: "file"))
  var file: String

  @Argument(help: ArgumentHelp("The file to write: model.c.", valueName: "target"))
  var target: String

  @Option(help: "What to write, whatever the target's name ends in.")
  var format: Format?

  @Option(
    help: ArgumentHelp(
      "Begin names in C with this, as digits_predict, and write a header too: model.h beside model.c.",
      valueName: "name"))
  var name: String?

  @Option(
    help: ArgumentHelp(
      "What the classes are called, for the header's array: cat,dog. As in the file unless given.",
      valueName: "names"))
  var classes: String?

  func run() throws {
    let ending = target.split(separator: "/").last?.split(separator: ".").dropFirst().last ?? ""
    guard let format = format ?? Format(rawValue: ending.lowercased()) else {
      throw StrideNetError(
        .usage, "no format to export to", at: target,
        found: ending.isEmpty ? "a name without an ending" : "a name that ends in .\(ending)",
        expected: Format.allCases.map { ".\($0.rawValue)" }.joined(separator: ", "),
        hint: "say which with --format")
    }
    let paths = [file, target].map { URL(fileURLWithPath: $0).resolvingSymlinksInPath().path }
    guard paths[0] != paths[1] else {
      throw StrideNetError(
        .usage, "the export would replace the saved network", at: target,
        expected: "another file to write to")
    }
    guard format == .c || (name == nil && classes == nil) else {
      throw StrideNetError(
        .usage, "\(name == nil ? "--classes" : "--name") is for C alone",
        found: "an export to \(format.rawValue)")
    }
    guard name != nil || classes == nil else {
      throw StrideNetError(.usage, "--classes without --name", expected: "--name too")
    }
    let network = try Network.load(from: file)
    switch format {
    case .c:
      guard let name else {
        try network.exportC(to: target)
        break
      }
      let classes = classes?.split(separator: ",", omittingEmptySubsequences: false)
      try network.exportC(to: target, name: name, classes: classes?.map(String.init))
    case .onnx: try network.exportONNX(to: target)
    case .safetensors:
      try network.exportPyTorch(to: target)
      return try Output.line(network.pyTorchSource(file: target))
    }
    try Output.line("\(target): \(Architecture.text(network.layers))")
  }
}
