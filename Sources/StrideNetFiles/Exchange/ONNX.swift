import StrideNetCore

extension Network {
  /// Writes the network as an ONNX model (opset 17), which ONNX Runtime and most other tools read.
  ///
  /// Its input "image" is (batch, channels, height, width), as usual there, with any batch size. A
  /// classifier's outputs are "logits" and "probabilities", both (batch, classes); another
  /// network's is "output", (batch, values) or, where that is an image, (batch, channels, height,
  /// width). Flatten goes through an image in that order, too, so the columns of the dense weights
  /// behind it are permuted. Dropout isn't in the model, and batch normalisation uses the running
  /// statistics. What is done to pixels before the first layer, ``Network/normalization``, is, and to
  /// numbers that are predicted, which come in their own units.
  /// - Throws: ``StrideNetError`` naming a layer that ONNX has no operators for, such as one of
  ///   one's own
  public func exportONNX(to path: String) throws {
    let stages = try stages(for: path)
    let count = snapshot().storage.count
    guard count <= 1 << 28 else {
      throw StrideNetError(
        .badData, "too many weights for an ONNX file", at: path,
        found: "\(count)", expected: "at most 2²⁸: 1 GB")
    }
    var graph = ONNXGraph()
    try graph.build(stages, normalization, targetNormalization)
    var model = Message()
    model.integer(1, 8)  // the format's version
    model.text(2, "StrideNet")
    model.message(7) {
      graph.write(
        to: &$0, "\(Architecture.text(layers)): pixels are bytes divided by 255.")
    }
    model.message(8) { $0.integer(2, 17) }  // the operators' version
    for (key, value) in metadata.sorted(by: { $0.key < $1.key }) {
      model.message(14) {
        $0.text(1, key)
        $0.text(2, value)
      }
    }
    try AtomicFile.write(model.data, to: path)
  }
}

/// The nodes of a model, in the order in which they compute. Field numbers are those of onnx.proto.
private struct ONNXGraph {
  private struct Node {
    let operation: String
    var name: String
    let inputs: [String]
    let attributes: KeyValuePairs<String, Attribute>

    func write(to node: inout Message) {
      for input in inputs { node.text(1, input) }
      node.text(2, name)
      node.text(3, name)
      node.text(4, operation)
      for (key, value) in attributes {
        node.message(5) { attribute in
          attribute.text(1, key)
          switch value {
          case .float(let float):
            attribute.float(2, float)
            attribute.integer(20, 1)
          case .int(let int):
            attribute.integer(3, int)
            attribute.integer(20, 2)
          case .ints(let ints):
            for int in ints { attribute.integer(8, int) }
            attribute.integer(20, 7)
          }
        }
      }
    }
  }
  private struct Constant {
    let name: String
    let sizes: [Int]
    let type: ElementType
    let bytes: [UInt8]
  }
  private enum ElementType: Int {
    case float = 1
    case int64 = 7
  }
  /// What goes in or comes out: (batch, sizes).
  private typealias Port = (name: String, sizes: [Int])

  private var nodes: [Node] = []
  private var constants: [Constant] = []
  private var inputs: [Port] = []
  private var outputs: [Port] = []

  /// A layer's output.
  struct Value {
    let name: String
    /// The image that the tensor holds as (batch, channels, height, width); nil for (batch, values).
    /// An image whose consumer takes a flat vector is one that was flattened: what comes next decides
    /// how.
    let image: Shape?
  }

  mutating func build(
    _ stages: [Stage], _ normalization: InputNormalization?, _ targets: TargetNormalization?
  ) throws {
    let (input, output) = (stages[0].input, stages.last!.output)
    var image = Value(name: "image", image: input)
    inputs = [("image", [input.channels, input.height, input.width])]
    if let normalization {
      let sizes = [input.channels, 1, 1]
      let mean = constant("input.mean", sizes, normalization.mean.map { Float($0) })
      let deviation = constant("input.deviation", sizes, normalization.deviation.map { Float($0) })
      image = Value(name: node("Div", [node("Sub", ["image", mean]), deviation]), image: input)
    }
    let endsInSoftmax = stages.last!.operations.last!.activation.isSoftmax
    let result = try layers(stages, image, number: nil, leavingSoftmax: endsInSoftmax)
    if endsInSoftmax {
      let logits = named("logits", flat(result))
      node("Softmax", [logits.name], ["axis": .int(1)], named: "probabilities")
      outputs = ["logits", "probabilities"].map { ($0, [output.count]) }
    } else if let targets {
      let deviation = constant(
        "output.deviation", [output.count], targets.deviation.map { Float($0) })
      let mean = constant("output.mean", [output.count], targets.mean.map { Float($0) })
      node("Add", [node("Mul", [flat(result).name, deviation]), mean], named: "output")
      outputs = [("output", [output.count])]
    } else if output.height == 1 && output.width == 1 {
      _ = named("output", flat(result))
      outputs = [("output", [output.count])]
    } else {
      _ = named("output", result)
      outputs = [("output", [output.channels, output.height, output.width])]
    }
  }

  // MARK: As a protocol buffer

  func write(to graph: inout Message, _ description: String) {
    for node in nodes { graph.message(1) { node.write(to: &$0) } }
    graph.text(2, "StrideNet")
    for constant in constants {
      graph.message(5) {
        for size in constant.sizes { $0.integer(1, size) }
        $0.integer(2, constant.type.rawValue)
        $0.text(8, constant.name)
        $0.bytes(9, constant.bytes)
      }
    }
    graph.text(10, description)
    for (field, ports) in [(11 as UInt64, inputs), (12, outputs)] {
      for (name, sizes) in ports {
        graph.message(field) { port in
          port.text(1, name)
          port.message(2) { type in
            type.message(1) { tensor in
              tensor.integer(1, ElementType.float.rawValue)
              tensor.message(2) { shape in
                shape.message(1) { $0.text(2, "batch") }
                for size in sizes { shape.message(1) { $0.integer(1, size) } }
              }
            }
          }
        }
      }
    }
  }

  // MARK: Nodes and constants

  enum Attribute {
    case int(Int)
    case ints([Int])
    case float(Float)
  }

  @discardableResult
  private mutating func node(
    _ operation: String, _ inputs: [String], _ attributes: KeyValuePairs<String, Attribute> = [:],
    named name: String? = nil
  ) -> String {
    let output = name ?? "\(operation.lowercased())_\(nodes.count)"
    nodes.append(
      Node(operation: operation, name: output, inputs: inputs, attributes: attributes))
    return output
  }

  /// Gives a value a name of its own.
  private mutating func named(_ name: String, _ value: Value) -> Value {
    if let last = nodes.indices.last, nodes[last].name == value.name {
      nodes[last].name = name
    } else {
      node("Identity", [value.name], named: name)
    }
    return Value(name: name, image: value.image)
  }

  @discardableResult
  private mutating func constant(_ name: String, _ sizes: [Int], _ values: [Float]) -> String {
    constant(name, sizes, .float, values.map(\.bitPattern.littleEndian))
  }

  private mutating func constant<Number: BitwiseCopyable>(
    _ name: String, _ sizes: [Int], _ type: ElementType, _ values: [Number]
  ) -> String {
    if !constants.contains(where: { $0.name == name }) {
      constants.append(
        Constant(name: name, sizes: sizes, type: type, bytes: values.withUnsafeBytes(Array.init)))
    }
    return name
  }

  /// A number that goes with tensors of any shape.
  private mutating func scalar(_ value: Float) -> String {
    constant("number_\(value)", [], [value])
  }

  // MARK: Shapes

  /// Whether height, width and channels come in the same order in both layouts.
  private static func isOneOrder(_ image: Shape) -> Bool {
    image.channels == 1 || image.height * image.width == 1
  }

  /// As (batch, values) in the order that they have here: pixel by pixel, channel by channel.
  private mutating func flat(_ value: Value) -> Value {
    guard let image = value.image else { return value }
    var name = value.name
    if !Self.isOneOrder(image) { name = node("Transpose", [name], ["perm": .ints([0, 2, 3, 1])]) }
    return Value(name: node("Flatten", [name], ["axis": .int(1)]), image: nil)
  }

  /// As (batch, channels, height, width).
  private mutating func image(_ value: Value, _ shape: Shape) -> Value {
    if value.image == shape { return value }
    // Only a flat vector can be anything else: 1×1×n, the same in both orders.
    return shaped(flat(value).name, shape)
  }

  /// A row of values read as (channels, height, width).
  private mutating func shaped(_ row: String, _ shape: Shape) -> Value {
    let sizes = [0, shape.channels, shape.height, shape.width]  // 0: as before
    let name = "shape_" + sizes.dropFirst().map(String.init).joined(separator: "x")
    let target = constant(name, [4], .int64, sizes.map { Int64($0).littleEndian })
    return Value(name: node("Reshape", [row, target]), image: shape)
  }

  /// As it is for what has as many values in front as behind: flat, or an image that isn't one that
  /// was flattened.
  private mutating func settled(_ value: Value, _ shape: Shape) -> Value {
    value.image == shape ? value : flat(value)
  }

  // MARK: Operations

  /// - Parameters:
  ///   - number: the place in the network of the layer that all of these are inside of
  ///   - leavingSoftmax: that of the last layer comes later
  private mutating func layers(
    _ stages: [Stage], _ input: Value, number: Int?, leavingSoftmax: Bool = false
  ) throws -> Value {
    var value = input
    for (index, stage) in stages.enumerated() {
      for (place, operation) in stage.operations.enumerated() {
        let number = number ?? index + 1
        value = try self.operation(operation, stage, value, number)
        if leavingSoftmax && index == stages.count - 1 && place == stage.operations.count - 1 {
          continue
        }
        value = try activation(operation, stage, value, number)
      }
    }
    return value
  }

  private mutating func operation(
    _ operation: Bound, _ stage: Stage, _ x: Value, _ number: Int
  ) throws -> Value {
    let (input, output) = (operation.input, operation.output)
    switch operation.kind {
    case .convolve(let layer, let start):
      return convolution(layer, start, operation, image(x, input))
    case .multiply: return dense(operation, x)
    case .pool(let window):
      return Value(name: pooling(window, image(x, input).name, input, output), image: output)
    case .reshape, .drop, .activate: return x
    case .normalizeBatch(_, let epsilon):
      let x = settled(x, input)
      let inputs = operation.parameters.map { constant($0.name, $0.shape, $0.values) }
      return Value(
        name: node("BatchNormalization", [x.name] + inputs, ["epsilon": .float(epsilon)]),
        image: x.image)
    case .normalizePixels(let epsilon):
      let x = settled(x, input)
      let inputs = operation.parameters.map { constant($0.name, $0.shape, $0.values) }
      // Of the last axis alone.
      var result =
        x.image == nil ? x.name : node("Transpose", [x.name], ["perm": .ints([0, 2, 3, 1])])
      result = node(
        "LayerNormalization", [result] + inputs,
        ["axis": .int(-1), "epsilon": .float(epsilon)])
      if x.image != nil { result = node("Transpose", [result], ["perm": .ints([0, 3, 1, 2])]) }
      return Value(name: result, image: x.image)
    case .add:
      let x = settled(x, input)
      let body = try layers(operation.body, x, number: number)
      let shortcut = try layers(operation.shortcut, x, number: number)
      let isFlat = output.height == 1 && output.width == 1
      let sides = [body, shortcut].map { isFlat ? flat($0) : image($0, output) }
      return Value(name: node("Add", sides.map(\.name)), image: isFlat ? nil : output)
    case .own(let layer):
      guard let name = layer.exports.onnx else {
        throw stage.unknown(operation, to: "ONNX", number: number)
      }
      let x = settled(x, input)
      let inputs = operation.parameters.map { constant($0.name, $0.shape, $0.values) }
      return Value(
        name: node(name, [x.name] + inputs),
        image: output.height == 1 && output.width == 1 ? nil : output)
    }
  }

  // Ceil mode is said by pads: what it means has changed between versions.
  private mutating func pooling(
    _ window: Pooling, _ x: String, _ input: Shape, _ output: Shape
  ) -> String {
    if window.kind == .globalAverage { return node("GlobalAveragePool", [x]) }
    var x = x
    let (around, end) = (window.around, window.end(input, output))
    var pads = [around.top, around.left, end.bottom, end.right]
    let isCounted = window.countsPadding && !window.isMax
    let isBeyond = end.bottom > around.bottom || end.right > around.right
    if isCounted && isBeyond {
      // What lies beyond the padding doesn't count.
      let zeros = [0, 0, around.top, around.left, 0, 0, around.bottom, around.right]
      let name = "pads_" + zeros.map(String.init).joined(separator: "x")
      x = node("Pad", [x, constant(name, [8], .int64, zeros.map { Int64($0).littleEndian })])
      pads = [0, 0, max(0, end.bottom - around.bottom), max(0, end.right - around.right)]
    }
    let size = Attribute.ints([window.size.height, window.size.width])
    let stride = Attribute.ints([window.stride.height, window.stride.width])
    if window.isMax {
      return node("MaxPool", [x], ["kernel_shape": size, "strides": stride, "pads": .ints(pads)])
    }
    return node(
      "AveragePool", [x],
      [
        "kernel_shape": size, "strides": stride, "pads": .ints(pads),
        "count_include_pad": .int(isCounted && !isBeyond ? 1 : 0),
      ])
  }

  private mutating func convolution(
    _ layer: Conv2D, _ start: (top: Int, left: Int), _ operation: Bound, _ x: Value
  ) -> Value {
    let (kernel, bias) = (operation.parameters[0], operation.parameters[1])
    let (fh, fw, c, f) = (kernel.shape[0], kernel.shape[1], kernel.shape[2], kernel.shape[3])
    // (FH, FW, C, F) to (F, C, FH, FW)
    let values = kernel.values
    let weight = (0..<f * c * fh * fw).map { index in
      let (j, i) = (index % fw, index / fw % fh)
      let (channel, filter) = (index / (fw * fh) % c, index / (fw * fh * c))
      return values[((i * fw + j) * c + channel) * f + filter]
    }
    let zeros = layer.zeros(operation.input, operation.output, start: start)
    let result = node(
      "Conv",
      [
        x.name, constant(kernel.name, [f, c, fh, fw], weight),
        constant(bias.name, [f], bias.values),
      ],
      [
        "kernel_shape": .ints([fh, fw]),
        "strides": .ints([layer.stride.height, layer.stride.width]),
        "pads": .ints([zeros.top, zeros.left, zeros.bottom, zeros.right]),
        "dilations": .ints([layer.dilation.height, layer.dilation.width]),
        "group": .int(layer.groups),
      ])
    return Value(name: result, image: operation.output)
  }

  private mutating func dense(_ operation: Bound, _ x: Value) -> Value {
    let parameters = operation.parameters
    var values = parameters[0].values
    var rows = x.name
    if let image = x.image {
      // The vector has channels before rows and columns, and so have the weights then.
      rows = node("Flatten", [rows], ["axis": .int(1)])
      let (pixels, channels, count) = (image.height * image.width, image.channels, image.count)
      let old = values
      for index in values.indices {
        let (row, column) = (index / count, index % count)
        values[index] = old[row * count + column % pixels * channels + column / pixels]
      }
    }
    let weight = constant(parameters[0].name, parameters[0].shape, values)
    let bias = constant(parameters[1].name, parameters[1].shape, parameters[1].values)
    return Value(name: node("Gemm", [rows, weight, bias], ["transB": .int(1)]), image: nil)
  }

  private mutating func activation(
    _ operation: Bound, _ stage: Stage, _ x: Value, _ number: Int
  ) throws -> Value {
    let activation = operation.activation
    if activation.isOwn { throw stage.unknown(operation, to: "ONNX", number: number) }
    let y: String
    switch activation.name {
    case "none": return x
    case "relu": y = node("Relu", [x.name])
    case "leaky_relu":
      guard case .leakyReLU(let slope) = activation.kind else { fatalError() }
      y = node("LeakyRelu", [x.name], ["alpha": .float(slope)])
    case "elu": y = node("Elu", [x.name])
    case "gelu":
      // An operator of its own from opset 20 on. x/2 · (1 + erf(x/√2))
      let scaled = node("Mul", [x.name, scalar(Float(0.5.squareRoot()))])
      let share = node("Add", [node("Erf", [scaled]), scalar(1)])
      y = node("Mul", [node("Mul", [x.name, scalar(0.5)]), share])
    case "silu": y = node("Mul", [x.name, node("Sigmoid", [x.name])])
    case "sigmoid": y = node("Sigmoid", [x.name])
    case "tanh": y = node("Tanh", [x.name])
    case "softplus": y = node("Softplus", [x.name])
    case "softmax":
      // Over all of an example's values, in any order.
      let row = x.image == nil ? x.name : node("Flatten", [x.name], ["axis": .int(1)])
      y = node("Softmax", [row], ["axis": .int(1)])
      if let image = x.image { return shaped(y, image) }
    default: throw stage.unknown(operation, to: "ONNX", number: number)
    }
    return Value(name: y, image: x.image)
  }
}
