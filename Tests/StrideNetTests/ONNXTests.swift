import Foundation
import Testing

import StrideNet

/// Computes a model as the definitions of its operators have it, all in Double.
private struct Interpreter {
  struct Value {
    var sizes: [Int]
    var values: [Double]
    /// The values of all dimensions after the first few.
    func count(from axis: Int) -> Int { sizes[axis...].reduce(1, *) }
  }

  private(set) var values: [String: Value] = [:]
  private(set) var operators: [String] = []

  /// - Parameter image: (batch, channels, height, width)
  init(_ model: ONNXModel, _ image: Value) throws {
    for tensor in model.initializers {
      let numbers: [Double] =
        tensor.dataType == 1
        ? tensor.rawData.withUnsafeBytes { $0.bindMemory(to: Float.self).map(Double.init) }
        : tensor.rawData.withUnsafeBytes { $0.bindMemory(to: Int64.self).map(Double.init) }
      let sizes = tensor.dims
      #expect(numbers.count == sizes.reduce(1, *) && values[tensor.name] == nil)
      values[tensor.name] = Value(sizes: sizes, values: numbers)
    }
    var unused = Set(values.keys)
    values["image"] = image
    for node in model.nodes {
      unused.subtract(node.input)
      let inputs = try node.input.map { try #require(values[$0], "\($0) isn't known yet") }
      let attributes = Dictionary(uniqueKeysWithValues: node.attribute.map { ($0.name, $0) })
      #expect(node.output.count == 1 && values[node.output[0]] == nil)
      values[node.output[0]] = try Self.compute(node.opType, inputs, attributes)
      operators.append(node.opType)
    }
    #expect(unused.isEmpty)
  }

  static func compute(
    _ operation: String, _ inputs: [Value], _ attributes: [String: ONNXModel.Attribute]
  ) throws -> Value {
    let x = inputs[0]
    func map(_ f: (Double) -> Double) -> Value {
      Value(sizes: x.sizes, values: x.values.map(f))
    }
    func with(_ other: Value, _ f: (Double, Double) -> Double) throws -> Value {
      if other.sizes.isEmpty { return map { f($0, other.values[0]) } }
      try #require(other.sizes == x.sizes)
      return Value(sizes: x.sizes, values: zip(x.values, other.values).map(f))
    }
    func ints(_ name: String) -> [Int] { attributes[name]!.ints }
    func number(_ name: String) -> Double { Double(attributes[name]!.f) }
    switch operation {
    case "Identity": return x
    case "Relu": return map { max($0, 0) }
    case "LeakyRelu": return map { $0 > 0 ? $0 : number("alpha") * $0 }
    case "Elu": return map { $0 > 0 ? $0 : exp($0) - 1 }
    case "Sigmoid": return map { 1 / (1 + exp(-$0)) }
    case "Tanh": return map { tanh($0) }
    case "Softplus": return map { log(1 + exp($0)) }
    case "Erf": return map { erf($0) }
    case "Add": return try with(inputs[1], +)
    case "Mul": return try with(inputs[1], *)
    case "Flatten":
      try #require(attributes["axis"]!.i == 1)
      return Value(sizes: [x.sizes[0], x.count(from: 1)], values: x.values)
    case "Reshape":
      let sizes = zip(0..., inputs[1].values).map { $1 == 0 ? x.sizes[$0] : Int($1) }
      try #require(sizes.reduce(1, *) == x.values.count)
      return Value(sizes: sizes, values: x.values)
    case "Transpose":
      let order = ints("perm")
      let sizes = order.map { x.sizes[$0] }
      let values = x.values.indices.map { index in
        var (rest, place) = (index, 0)
        for (axis, size) in zip(order, sizes).reversed() {
          place += rest % size * x.count(from: axis + 1)
          rest /= size
        }
        return x.values[place]
      }
      return Value(sizes: sizes, values: values)
    case "Softmax":
      try #require(attributes["axis"]!.i == 1 && x.sizes.count == 2)
      return rows(x) { row in
        let sum = row.reduce(0) { $0 + exp($1) }
        return row.map { exp($0) / sum }
      }
    case "Gemm":
      try #require(attributes["transB"]!.i == 1)
      let (w, bias) = (inputs[1], inputs[2])
      try #require(x.sizes.count == 2 && x.sizes[1] == w.sizes[1] && bias.sizes == [w.sizes[0]])
      let result = rows(x) { row in
        (0..<w.sizes[0]).map { o in
          zip(row, w.values[(o * row.count)...]).reduce(bias.values[o]) { $0 + $1.0 * $1.1 }
        }
      }
      return Value(sizes: [x.sizes[0], w.sizes[0]], values: result.values)
    case "BatchNormalization":
      let behind = x.count(from: 2)
      return Value(
        sizes: x.sizes,
        values: x.values.enumerated().map { index, value in
          let c = index / behind % x.sizes[1]
          let p = inputs[1...].map { $0.values[c] }
          return (value - p[2]) / (p[3] + number("epsilon")).squareRoot() * p[0] + p[1]
        })
    case "LayerNormalization":
      try #require(attributes["axis"]!.i == -1)
      return rows(x) { row in
        let n = Double(row.count)
        let mean = row.reduce(0, +) / n
        let variance = row.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / n
        let scale = 1 / (variance + number("epsilon")).squareRoot()
        return row.enumerated().map {
          ($1 - mean) * scale * inputs[1].values[$0] + inputs[2].values[$0]
        }
      }
    case "GlobalAveragePool":
      let pixels = x.count(from: 2)
      return Value(
        sizes: [x.sizes[0], x.sizes[1], 1, 1],
        values: stride(from: 0, to: x.values.count, by: pixels).map {
          x.values[$0..<$0 + pixels].reduce(0, +) / Double(pixels)
        })
    case "MaxPool", "AveragePool":
      let size = ints("kernel_shape")
      return try windows(x, size, ints("strides"), [0, 0, 0, 0], [1, 1], x.sizes[1]) { c, element in
        let all = (0..<size[0] * size[1]).map { element(c, $0 / size[1], $0 % size[1])! }
        return operation == "MaxPool" ? all.max()! : all.reduce(0, +) / Double(all.count)
      }
    case "Conv":
      let (w, bias, groups) = (inputs[1], inputs[2], attributes["group"]!.i)
      let (filters, channels) = (w.sizes[0], w.sizes[1])
      try #require(channels * groups == x.sizes[1] && w.sizes[2...] == ints("kernel_shape")[...])
      return try windows(
        x, ints("kernel_shape"), ints("strides"), ints("pads"), ints("dilations"), filters
      ) { f, element in
        var sum = bias.values[f]
        for c in 0..<channels {
          for i in 0..<w.sizes[2] {
            for j in 0..<w.sizes[3] {
              let weight = w.values[((f * channels + c) * w.sizes[2] + i) * w.sizes[3] + j]
              sum += weight * (element(f / (filters / groups) * channels + c, i, j) ?? 0)
            }
          }
        }
        return sum
      }
    default:
      Issue.record("an operator that the test doesn't know: \(operation)")
      throw CancellationError()
    }
  }

  private static func rows(_ x: Value, _ f: (ArraySlice<Double>) -> [Double]) -> Value {
    let size = x.sizes.last!
    return Value(
      sizes: x.sizes,
      values: stride(from: 0, to: x.values.count, by: size).flatMap {
        f(ArraySlice(Array(x.values[$0..<$0 + size])))
      })
  }

  /// `f` gets an output channel and gives out of the window's input: channel, row, column.
  private static func windows(
    _ x: Value, _ size: [Int], _ stride: [Int], _ pads: [Int], _ dilation: [Int], _ channels: Int,
    _ f: (Int, (Int, Int, Int) -> Double?) -> Double
  ) throws -> Value {
    let (h, w) = (x.sizes[2], x.sizes[3])
    let rows = (h + pads[0] + pads[2] - dilation[0] * (size[0] - 1) - 1) / stride[0] + 1
    let columns = (w + pads[1] + pads[3] - dilation[1] * (size[1] - 1) - 1) / stride[1] + 1
    var result = Value(sizes: [x.sizes[0], channels, rows, columns], values: [])
    for n in 0..<x.sizes[0] {
      for c in 0..<channels {
        for p in 0..<rows {
          for q in 0..<columns {
            result.values.append(
              f(c) { channel, i, j in
                let (row, column) = (
                  p * stride[0] + i * dilation[0] - pads[0],
                  q * stride[1] + j * dilation[1] - pads[1]
                )
                guard 0..<h ~= row && 0..<w ~= column else { return nil }
                return x.values[((n * x.sizes[1] + channel) * h + row) * w + column]
              })
          }
        }
      }
    }
    return result
  }
}

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
    let result = try Interpreter(
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
