import Foundation
import Testing

import StrideNet

@Suite struct PyTorchFileTests {
  // MARK: Without PyTorch

  private static let text =
    "conv(4,3,stride=2,padding=1,activation=none) batchnorm(activation=relu) "
    + "maxpool(2,stride=1) flatten gelu(6) softmax(3)"
  private static let input = Shape(8, 6, 2)
  private static let stored = Documents.root
    .appending(path: "Tests/StrideNetTests/Expectations/pytorch.safetensors").path

  private func imported(_ path: String, _ text: String = text) throws -> Network {
    try Network.importPyTorch(from: path, layers: Architecture.layers(text), input: Self.input)
  }

  /// A file that PyTorch saved, and the logits it computed from it.
  @Test func readsWhatPyTorchSaved() throws {
    struct File: Decodable { let logits: [Float] }
    let expected = try expectations(File.self, "exchange.json").logits
    let network = try imported(
      Self.stored, Self.text.replacingOccurrences(of: "softmax", with: "dense"))
    let images = try Tensor(batch: 4, shape: Self.input, values(4 * Self.input.count, 77))
    expectClose(try network.predict(images).values, expected, within: 1e-6, "logits")
    // The same weights go back as they came.
    let folder = try TemporaryFolder()
    try network.exportPyTorch(to: folder.path + "/again.safetensors")
    let again = try Safetensors.read(at: folder.path + "/again.safetensors").tensors
    let first = try Safetensors.read(at: Self.stored) { $0.hasSuffix("num_batches_tracked") }
      .tensors
    #expect(again.sorted { $0.name < $1.name } == first.sorted { $0.name < $1.name })
  }

  @Test(arguments: ExportedNetworks.all.indices) func comesBack(_ index: Int) throws {
    let (text, input) = ExportedNetworks.all[index]
    let network = try ExportedNetworks.network(text, input)
    let folder = try TemporaryFolder()
    let path = folder.path + "/model.safetensors"
    try network.exportPyTorch(to: path)
    let same = try Network.importPyTorch(
      from: path, layers: Architecture.layers(text), input: input)
    #expect(same.snapshot().sha256 == network.snapshot().sha256)
  }

  /// Names, shapes and order of a network that has each of these in a few numbers.
  @Test func layouts() throws {
    let network = Network(try Architecture.layers("conv(2,1x2) flatten softmax(2)"))
    try network.build(for: Shape(1, 3, 2))
    // Weights that are their places.
    try network.setWeights { name in
      (0..<(name.contains(".0.weight") || name.contains(".2.weight")
        ? 8 : 2)).map { Float($0) }
    }
    let folder = try TemporaryFolder()
    try network.exportPyTorch(to: folder.path + "/a.safetensors")
    let file = try Safetensors.read(at: folder.path + "/a.safetensors")
    #expect(file.tensors.map(\.name) == ["0.weight", "0.bias", "3.weight", "3.bias"])
    #expect(file.tensors.map(\.shape) == [[2, 2, 1, 2], [2], [2, 4], [2]])
    // (i, j, c, f) to (f, c, i, j), and columns (pixel, channel) to (channel, pixel).
    #expect(file.tensors[0].values == [0, 4, 2, 6, 1, 5, 3, 7])
    #expect(file.tensors[2].values == [0, 2, 1, 3, 4, 6, 5, 7])
    #expect(
      file.metadata["python"] == """
        from safetensors.torch import load_file
        from torch import nn

        model = nn.Sequential(
            nn.Conv2d(2, 2, (1, 2)),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(4, 2),
        )
        model.load_state_dict(load_file("a.safetensors"))
        model.eval()  # takes (N, 2, 1, 3), pixels from 0 to 1

        """)
  }

  @Test func anyNameIsAPythonString() throws {
    let network = try ExportedNetworks.network("flatten dense(1)", Shape(1, 1, 1))
    #expect(
      try network.pyTorchSource(file: #"a "b"\c"#).contains(#"load_file("a \"b\"\\c")"#))
  }

  @Test func articleHasTheSource() throws {
    let network = Network(try Architecture.layers(Architecture.presets[0].text))
    try network.build(for: Shape(28, 28, 1))
    let blocks = try Documents.blocks("python", in: Documents.articles)
    #expect(blocks.map { $0 + "\n" } == [try network.pyTorchSource(file: "pytorch.safetensors")])
  }

  @Test func namesWhatDoesNotFit() throws {
    let folder = try TemporaryFolder()
    let path = folder.path + "/bad.safetensors"
    let good = try Safetensors.read(at: Self.stored) { $0.hasSuffix("num_batches_tracked") }.tensors
    func expect(_ tensors: [Safetensors.Tensor], _ part: String, _ name: String) throws {
      try Safetensors.write(tensors, to: path)
      let error = #expect(throws: StrideNetError.self) { try imported(path) }
      #expect(error?.kind == .badData && error?.what.contains(part) == true)
      #expect(error?.description.contains(name) == true)
    }
    try expect(good.filter { $0.name != "7.weight" }, "missing", "7.weight")
    try expect(good.filter { !$0.name.hasPrefix("7.") }, "no module", "7.weight [3, 6]")
    try expect(
      good + [.init(name: "8.bias", shape: [1], values: [0])], "don't have", "8.bias")
    try expect(
      good.map { tensor in
        tensor.name == "5.weight"
          ? .init(name: tensor.name, shape: tensor.shape.reversed(), values: tensor.values) : tensor
      }, "another shape", "5.weight")
  }

  @Test func namesWhatPyTorchCannotHave() throws {
    let folder = try TemporaryFolder()
    for (text, layer) in [
      ("conv(4,2) flatten conv(4,1,groups=2) flatten softmax(2)", "layer 3"),
      (
        "conv(4,2) residual(conv(4,2) flatten | conv(2,2,padding=1x0) flatten) softmax(2)",
        "layer 2"
      ),
      ("conv(4,2) flatten activation(softmax)", "layer 3"),
    ] {
      let network = Network(try Architecture.layers(text))
      try network.build(for: Shape(4, 4, 2))
      let error = #expect(throws: StrideNetError.self, "\(text)") {
        try network.exportPyTorch(to: folder.path + "/a.safetensors")
      }
      #expect(error?.place?.contains(layer) == true)
    }
    let cube = Activation("cube", { $0 * $0 * $0 }, derivative: { x, _ in 3 * x * x })
    let network = Network([Flatten(), Residual([Dense(4, activation: cube)])])
    try network.build(for: Shape(2, 2, 1))
    let error = #expect(throws: StrideNetError.self) {
      try network.exportPyTorch(to: folder.path + "/a.safetensors")
    }
    #expect(error?.place?.contains("layer 2") == true && error?.found?.contains("cube") == true)
    #expect(try folder.names.isEmpty)
  }

  // MARK: With PyTorch

  /// PyTorch loads the file by the source in it, and computes the same.
  @Test(
    .enabled(if: python != nil, "STRIDENET_PYTHON names no Python with torch and safetensors"),
    arguments: ExportedNetworks.all.indices)
  func pyTorchComputesTheSame(_ index: Int) throws {
    let (text, input) = ExportedNetworks.all[index]
    let network = try ExportedNetworks.network(text, input)
    let images = ExportedNetworks.images(5, input)
    let folder = try TemporaryFolder()
    try network.exportPyTorch(to: folder.path + "/model.safetensors")
    try folder.write("in", images.values.withUnsafeBytes { Array($0) })
    let endsInSoftmax = network.endsInSoftmax
    let script = """
      import numpy, safetensors, torch
      with safetensors.safe_open("model.safetensors", "pt") as file:
          exec(file.metadata()["python"])
      x = numpy.fromfile("in", numpy.float32).reshape(-1, \(input.height), \(input.width), \(input.channels))
      with torch.no_grad():
          y = model(torch.from_numpy(x).permute(0, 3, 1, 2))
      if \(endsInSoftmax ? "True" : "False"):
          y = torch.softmax(y.flatten(1), 1)
      if y.dim() == 4:
          y = y.permute(0, 2, 3, 1)
      y.contiguous().numpy().tofile("out")
      """
    try folder.write("compare.py", Array(script.utf8))
    #expect(try shell("\"$1\" compare.py", [try #require(python)], in: folder).isEmpty)
    let bytes = try Data(contentsOf: URL(fileURLWithPath: folder.path + "/out"))
    let expected = bytes.withUnsafeBytes { Array($0.bindMemory(to: Float.self)) }
    let scale = max(1, expected.map(abs).max()!)
    expectClose(try network.predict(images).values, expected, within: 1e-5 * scale, text)
  }
}
