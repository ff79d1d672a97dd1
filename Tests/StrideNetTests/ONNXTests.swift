import Foundation
import Testing

import StrideNet

@Suite struct ONNXTests {
  /// As (batch, channels, height, width).
  static func channelsFirst(_ x: Tensor) -> [Float] {
    let s = x.shape
    return (0..<x.count).map { index in
      let (column, row) = (index % s.width, index / s.width % s.height)
      let (channel, n) = (index / (s.width * s.height) % s.channels, index / s.count)
      return x[n, row, column, channel]
    }
  }

  static func model(_ network: Network) throws -> ONNXModel {
    let folder = try TemporaryFolder()
    try network.exportONNX(to: folder.path + "/m.onnx")
    let data = try Data(contentsOf: URL(fileURLWithPath: folder.path + "/m.onnx"))
    return try ONNXModel([UInt8](data))
  }

  /// What a model's outputs have to be, by name.
  static func expected(_ network: Network, _ images: Tensor) throws -> [String: [Float]] {
    let output = try network.predict(images)
    guard network.endsInSoftmax else {
      let isFlat = output.shape.height * output.shape.width == 1
      return ["output": isFlat ? output.values : channelsFirst(output)]
    }
    return [
      "logits": try ExportedNetworks.logits(network).predict(images).values,
      "probabilities": output.values,
    ]
  }

  /// The model, read back and computed by its operators' definitions.
  @Test(arguments: ExportedNetworks.all.indices) func computesTheSame(_ index: Int) throws {
    let (text, input) = ExportedNetworks.all[index]
    let network = try ExportedNetworks.network(text, input)
    let model = try Self.model(network)
    #expect(model.opsets == [17] && model.irVersion == 8)
    #expect(model.inputs.map(\.name) == ["image"])
    #expect(model.inputs[0].sizes == [0, input.channels, input.height, input.width])
    #expect((model.inputs + model.outputs).allSatisfy { $0.names == ["batch"] })

    let images = ExportedNetworks.images(input.count > 500 ? 1 : 3, input)
    let result = try ONNXInterpreter(
      model,
      .init(
        sizes: [images.batch, input.channels, input.height, input.width],
        values: Self.channelsFirst(images).map(Double.init)))
    let expected = try Self.expected(network, images)
    #expect(Set(model.outputs.map(\.name)) == Set(expected.keys))
    for output in model.outputs {
      let found = try #require(result.values[output.name])
      #expect(found.sizes == [images.batch] + output.sizes.dropFirst())
      let values = expected[output.name]!
      expectClose(
        found.values.map(Float.init), values, within: 1e-5 * max(1, values.map(abs).max()!),
        "\(output.name) of \(text)")
    }
  }

  /// No more nodes than one would write by hand, and weights as they are.
  @Test func aPlainNetworkIsAPlainGraph() throws {
    let network = try ExportedNetworks.network(
      "conv(2,3) maxpool(2) dropout(0.3) flatten relu(5) softmax(3)", Shape(8, 8, 1))
    let model = try Self.model(network)
    #expect(
      model.nodes.map(\.opType)
        == ["Conv", "Relu", "MaxPool", "Flatten", "Gemm", "Relu", "Gemm", "Softmax"])
    #expect(
      model.initializers.map(\.name)
        == [0, 4, 5].flatMap { ["layers.\($0).weight", "layers.\($0).bias"] })
    #expect(
      model.initializers.map(\.dims) == [[2, 1, 3, 3], [2], [5, 18], [5], [3, 5], [3]])
    let arrays = network.snapshot().arrays
    for (tensor, array) in zip(model.initializers, arrays) where tensor.dims.count == 1 {
      #expect(tensor.rawData == array.values.withUnsafeBytes(Array.init))
    }
    // A filter's weights lie together; the columns behind flatten are a channel's together.
    let floats = model.initializers.map {
      $0.rawData.withUnsafeBytes { Array($0.bindMemory(to: Float.self)) }
    }
    #expect(floats[0][9 + 4] == arrays[0].values[4 * 2 + 1])
    #expect(floats[2][18 + 9 + 5] == arrays[2].values[18 + 5 * 2 + 1])
    #expect(
      model.metadata.map(\.value)
        == ["conv(2,3) maxpool(2) dropout(0.3) flatten relu(5) softmax(3)", "8x8x1"])
  }

  @Test func refusesWhatHasNoOperators() throws {
    let cube = Activation("cube", { $0 * $0 * $0 }, derivative: { x, _ in 3 * x * x })
    let network = Network([Flatten(), Dense(4, activation: cube)])
    try network.build(for: Shape(2, 2, 1))
    let folder = try TemporaryFolder()
    let error = #expect(throws: StrideNetError.self) {
      try network.exportONNX(to: folder.path + "/m.onnx")
    }
    #expect(error?.place?.hasPrefix("layer 2") == true && error?.what.contains("ONNX") == true)
    #expect(try folder.names.isEmpty)
  }

  // MARK: The real readers

  /// The model's full check, and ONNX Runtime's outputs.
  static let script = """
    import numpy, onnx, onnxruntime, sys
    onnx.checker.check_model("m.onnx", full_check=True)
    session = onnxruntime.InferenceSession("m.onnx", providers=["CPUExecutionProvider"])
    (image,) = session.get_inputs()
    x = numpy.fromfile("in", "<f4").reshape([-1] + image.shape[1:])
    for output, values in zip(session.get_outputs(), session.run(None, {image.name: x})):
        assert list(values.shape) == [len(x)] + output.shape[1:], (values.shape, output.shape)
        values.astype("<f4").tofile(output.name)
    """

  static func runtime(_ network: Network, _ images: Tensor) throws -> [String: [Float]] {
    let folder = try TemporaryFolder()
    try network.exportONNX(to: folder.path + "/m.onnx")
    try folder.write("in", channelsFirst(images).withUnsafeBytes { Array($0) })
    try folder.write("run.py", Array(script.utf8))
    _ = try shell("\"$1\" run.py", [python!], in: folder)
    return try Dictionary(
      uniqueKeysWithValues: ["logits", "probabilities", "output"].compactMap { name in
        guard try folder.names.contains(name) else { return nil }
        let bytes = try Data(contentsOf: URL(fileURLWithPath: "\(folder.path)/\(name)"))
        return (name, bytes.withUnsafeBytes { Array($0.bindMemory(to: Float.self)) })
      })
  }

  static func expectTheSame(_ network: Network, _ images: Tensor) throws {
    let (found, expected) = (try runtime(network, images), try expected(network, images))
    #expect(Set(found.keys) == Set(expected.keys))
    for (name, values) in expected {
      expectClose(
        found[name] ?? [], values, within: 1e-5 * max(1, values.map(abs).max()!),
        "\(name) of \(Architecture.text(network.layers))")
    }
  }

  @Test(
    .enabled(if: python != nil, "STRIDENET_PYTHON names no Python with onnx and onnxruntime"),
    arguments: ExportedNetworks.all.indices)
  func runtimeComputesTheSame(_ index: Int) throws {
    let (text, input) = ExportedNetworks.all[index]
    let network = try ExportedNetworks.network(text, input)
    try Self.expectTheSame(network, ExportedNetworks.images(1000, input))
  }

  @Test(.enabled(if: python != nil, "STRIDENET_PYTHON names no Python with onnx and onnxruntime"))
  func runtimeReadsDigits() throws {
    let data = try Dataset.load("sample")
    let network = Network(
      try Architecture.layers(
        "conv(8,3,activation=none) batchnorm(activation=relu) maxpool(2) dropout(0.1) "
          + "residual(conv(8,3,padding=same)) flatten gelu(50) softmax(10)"))
    for start in stride(from: 0, to: 3200, by: 32) {
      try network.train(data.train.batch(start..<start + 32), learningRate: 0.1)
    }
    let batch = data.test.batch(0..<1000)
    #expect(try network.evaluate(batch.images, batch.labels).ce < 0.2)
    try Self.expectTheSame(network, batch.images)
  }
}
