import ArgumentParser
import Foundation
import StrideNet

struct Export: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Writes a saved network for other programs.",
    discussion: """
      By the name's ending, or --format: c, one file of plain C99 with the weights in it, and with \
      --name a header beside it; html, the page of stridenet serve as one file that needs no server, \
      with some images in it; onnx, \
      a model for ONNX Runtime and other tools; safetensors, the weights as PyTorch has them, with \
      the Python that loads them printed and in the metadata.
      """)

  enum Format: String, CaseIterable, ExpressibleByArgument { case c, html, onnx, safetensors }

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

  @OptionGroup(title: "Images of an html page") var dataOptions: DataOptions

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
    guard format == .html || !dataOptions.isGiven else {
      throw StrideNetError(
        .usage, "options of data sets are for html alone",
        found: "an export to \(format.rawValue)")
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
    case .html:
      try network.requireClasses("a page")
      let data = try dataOptions.loadImages(for: network)
      let page = try PageContents(network, data, fit: dataOptions.pictures.fit, for: target)
      let text = try Array(page.html().utf8)
      try AtomicFile.write(text, to: target)
      return try Output.line(
        """
        \(target): \(page.network)
        \(String(format: "%.2f", Double(text.count) / 1e6)) MB, with \(page.train.count.grouped) \
        training and \(page.test.count.grouped) test images of \(data.source)
        """)
    case .onnx: try network.exportONNX(to: target)
    case .safetensors:
      try network.exportPyTorch(to: target)
      return try Output.line(network.pyTorchSource(file: target))
    }
    try Output.line("\(target): \(Architecture.text(network.layers))")
  }
}
