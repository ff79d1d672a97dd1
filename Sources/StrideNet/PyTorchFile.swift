import Foundation  // replacingOccurrences

extension Network {
  /// Writes the weights as PyTorch has them: a safetensors file with the names, shapes and order of
  /// the state_dict of a torch.nn.Sequential whose source, ``pyTorchSource(file:)``, is in the
  /// metadata. A softmax at the end is left out, so that the model gives logits, as PyTorch's
  /// cross-entropy takes them.
  /// - Throws: ``StrideNetError`` naming a layer that PyTorch's modules can't stand for
  public func exportPyTorch(to path: String) throws {
    let model = try PyTorchModel(stages(for: path))
    let tensors = model.tensors.map { tensor in
      let values = tensor.parameter.values
      return Safetensors.Tensor(
        name: tensor.name, shape: tensor.shape, values: tensor.places.map { values[$0] })
    }
    let name = path.split(separator: "/").last.map(String.init) ?? path
    try Safetensors.write(
      tensors, metadata: ["format": "pt", "python": model.source(input!, file: name)], to: path)
  }

  /// Python that makes the model and loads its weights from `file`, which
  /// ``exportPyTorch(to:)`` wrote.
  public func pyTorchSource(file: String) throws -> String {
    try PyTorchModel(stages(for: file)).source(input!, file: file)
  }

  /// A network of these layers with the weights of PyTorch's model of the same, saved by
  /// safetensors.torch.save_file(model.state_dict(), path). The names must be those that
  /// ``exportPyTorch(to:)`` writes.
  /// - Throws: ``StrideNetError`` naming tensors that are missing, superfluous or of another shape
  public static func importPyTorch(
    from path: String, layers: [Layer], input: Shape, runtime: Runtime = Runtime()
  ) throws -> Network {
    try importPyTorch(from: InputFile(path), layers: layers, input: input, runtime: runtime)
  }

  static func importPyTorch(
    from source: InputFile, layers: [Layer], input: Shape, runtime: Runtime
  ) throws -> Network {
    // Batch normalisation counts its steps; with a fixed momentum nothing depends on them.
    let file = try Safetensors.read(source) { $0.hasSuffix(".num_batches_tracked") }
    let path = source.path
    let network = Network(layers, runtime: runtime)
    try network.build(for: input)
    let model = try PyTorchModel(network.stages(for: path))
    var found = Dictionary(uniqueKeysWithValues: file.tensors.map { ($0.name, $0) })
    let hint = "the model that fits these layers is\n" + model.text
    for tensor in model.tensors {
      guard let there = found.removeValue(forKey: tensor.name) else {
        throw StrideNetError(
          .badData, "a tensor is missing", at: path,
          found: file.tensors.map(\.name).joined(separator: ", "), expected: tensor.name,
          hint: hint)
      }
      guard there.shape == tensor.shape else {
        throw StrideNetError(
          .badData, "a tensor has another shape than the layers ask for",
          at: "\(path), \(tensor.name)", found: "\(there.shape)", expected: "\(tensor.shape)",
          hint: hint)
      }
      for (value, place) in zip(there.values, tensor.places) {
        tensor.parameter.value[place] = value
      }
    }
    if let extra = found.keys.min() {
      throw StrideNetError(
        .badData, "a tensor that the layers don't have", at: path, found: extra,
        expected: model.tensors.map(\.name).joined(separator: ", "), hint: hint)
    }
    return network
  }
}

/// A network as PyTorch's modules, which have images as (N, C, H, W).
private struct PyTorchModel {
  struct Tensor {
    let name: String
    let shape: [Int]
    let parameter: Parameter
    /// Where in the parameter each value stands.
    let places: [Int]
  }

  private(set) var tensors: [Tensor] = []
  private(set) var text = ""
  private var needsResidual = false
  private var needsChannelNorm = false

  init(_ stages: [Stage]) throws {
    let start = Position(isFlat: Self.isPixel(stages[0].input), pixels: nil)
    var (modules, end) = try modules(stages, from: start, prefix: "", isWhole: true)
    if !end.isFlat && Self.isPixel(stages.last!.output) { modules.append("nn.Flatten()") }
    guard end.pixels == nil else {
      throw StrideNetError(
        .badData, "outputs that PyTorch would have in another order",
        at: "layer \(stages.count), \(stages.last!.layer.text)",
        found: "an image of \(end.pixels!) that was flattened",
        expected: "a dense layer after a flatten, whose weights can be put in PyTorch's order",
        hint: "flatten reads pixel by pixel here, channel by channel there")
    }
    text = Self.sequential(modules)
  }

  func source(_ input: Shape, file: String) -> String {
    let image =
      Self.isPixel(input)
      ? "(N, \(input.count))" : "(N, \(input.channels), \(input.height), \(input.width))"
    let residual = """


      class Residual(nn.Module):
          def __init__(self, body, shortcut):
              super().__init__()
              self.body, self.shortcut = body, shortcut

          def forward(self, x):
              return self.body(x) + self.shortcut(x)


      """
    let channelNorm = """


      class ChannelNorm(nn.LayerNorm):
          def forward(self, x):
              return super().forward(x.movedim(1, -1)).movedim(-1, 1)


      """
    return """
      from safetensors.torch import load_file
      from torch import nn
      \(needsResidual ? residual : "")\(needsChannelNorm ? channelNorm : "")
      model = \(text)
      model.load_state_dict(load_file(\(Self.quoted(file))))
      model.eval()  # takes \(image), pixels from 0 to 1

      """
  }

  /// As Python writes it.
  private static func quoted(_ text: String) -> String {
    let escaped = text.replacingOccurrences(of: "\\", with: "\\\\")
      .replacingOccurrences(of: "\"", with: "\\\"").replacingOccurrences(of: "\n", with: "\\n")
    return "\"\(escaped)\""
  }

  private static func sequential(_ modules: [String]) -> String {
    "nn.Sequential(\n"
      + modules.map { "    \($0.replacingOccurrences(of: "\n", with: "\n    ")),\n" }.joined() + ")"
  }

  private static func isPixel(_ shape: Shape) -> Bool { shape.height == 1 && shape.width == 1 }

  // MARK: The order of values

  /// What PyTorch's tensor is like between two modules.
  private struct Position {
    /// (N, C), not (N, C, H, W).
    var isFlat: Bool
    /// The image that was flattened to the channels, which PyTorch has in another order then.
    var pixels: Shape?

    /// Where in our order each of PyTorch's `count` channels stands.
    func channels(_ count: Int) -> [Int] {
      guard let p = pixels else { return Array(0..<count) }
      return (0..<count).map { index in
        let (pixel, channel) = (index % (p.height * p.width), index / (p.height * p.width))
        return pixel * p.channels + channel
      }
    }
  }

  /// The image whose order the layers' output has, and whether a dense layer could give it another.
  private func order(_ stages: [Stage], from start: Shape?) -> (pixels: Shape?, isFree: Bool) {
    var result: (pixels: Shape?, isFree: Bool) = (start, false)
    for stage in stages {
      switch stage.layer {
      case is Dense: result = (nil, true)
      case is Conv2D: result = (nil, false)
      case is Flatten:
        if !Self.isPixel(stage.input) && stage.input.channels > 1 { result = (stage.input, false) }
      case let layer as Residual:
        let (body, shortcut) = layer.stages(stage.input)
        let sides = [body, shortcut].map { order($0, from: result.pixels) }
        result = sides.first { !$0.isFree } ?? (nil, true)
      default: break
      }
    }
    return result
  }

  // MARK: Layers

  /// - Parameters:
  ///   - wanted: the order that the output should have if dense layers can give it
  ///   - isWhole: nothing comes behind: a softmax at the end is left out
  ///   - number: that of the layer around these, if there is one
  private mutating func modules(
    _ stages: [Stage], from start: Position, prefix: String, wanted: Shape? = nil,
    isWhole: Bool = false, number: Int? = nil
  ) throws -> ([String], Position) {
    var list: [String] = []
    var now = start
    let last = stages.lastIndex { $0.layer is Dense || $0.layer is Residual }

    func flatten() {
      if !now.isFlat { list.append("nn.Flatten()") }
      now.isFlat = true
    }
    func unflatten(_ shape: Shape) {
      if now.isFlat {
        list.append("nn.Unflatten(1, (\(shape.channels), \(shape.height), \(shape.width)))")
      }
      now.isFlat = false
    }
    /// A parameter of the module that was added last.
    func tensor(_ parameter: Parameter, _ shape: [Int], _ places: [Int]) -> Tensor {
      let name = parameter.name.split(separator: ".").last!
      return Tensor(
        name: "\(prefix)\(list.count - 1).\(name)", shape: shape, parameter: parameter,
        places: places)
    }

    for (index, stage) in stages.enumerated() {
      let (input, output) = (stage.input, stage.output)
      let number = number ?? index + 1
      func activate(_ activation: Activation) throws {
        if activation.isSoftmax {
          if isWhole && index == stages.count - 1 { return }
          // It goes over all values of an example.
          let isImage = !now.isFlat && !Self.isPixel(output)
          if isImage { flatten() }
          list.append("nn.Softmax(dim=1)")
          if isImage { unflatten(output) }
        } else if let module = try module(activation, stage, number) {
          list.append(module)
        }
      }
      switch stage.layer {
      case let layer as Conv2D:
        unflatten(input)
        guard now.pixels == nil || layer.groups == 1 else {
          throw StrideNetError(
            .badData, "groups of channels that PyTorch would have in another order",
            at: "layer \(number), \(layer.text)", found: "a flattened image of \(now.pixels!)",
            expected: "a convolution without groups after a flatten")
        }
        let zeros = layer.zeros(input, output)
        let isEven = zeros.top == zeros.bottom && zeros.left == zeros.right
        if !isEven {
          list.append(
            "nn.ZeroPad2d((\(zeros.left), \(zeros.right), \(zeros.top), \(zeros.bottom)))")
        }
        var arguments = ["\(input.channels)", "\(layer.filters)", tuple(layer.size)]
        if layer.stride != (1, 1) { arguments.append("stride=\(tuple(layer.stride))") }
        if isEven && (zeros.top, zeros.left) != (0, 0) {
          arguments.append("padding=\(tuple((zeros.top, zeros.left)))")
        }
        if layer.dilation != (1, 1) { arguments.append("dilation=\(tuple(layer.dilation))") }
        if layer.groups != 1 { arguments.append("groups=\(layer.groups)") }
        list.append("nn.Conv2d(\(arguments.joined(separator: ", ")))")
        let (filters, channels) = (layer.filters, input.channels / layer.groups)
        let order = now.channels(channels)
        let window = layer.size.height * layer.size.width
        var places: [Int] = []
        places.reserveCapacity(layer.weight.count)
        for f in 0..<filters {
          for c in order {
            for element in 0..<window { places.append((element * channels + c) * filters + f) }
          }
        }
        tensors.append(
          tensor(
            layer.weight, [filters, channels, layer.size.height, layer.size.width], places))
        tensors.append(tensor(layer.bias, [filters], Array(0..<filters)))
        now.pixels = nil
        try activate(layer.finalActivation)

      case let layer as Dense:
        flatten()
        list.append("nn.Linear(\(input.count), \(layer.outputs))")
        let columns = now.channels(input.count)
        now.pixels = index == last ? wanted : nil
        let rows = now.channels(layer.outputs)
        tensors.append(
          tensor(
            layer.weight, [layer.outputs, input.count],
            rows.flatMap { row in columns.map { row * input.count + $0 } }))
        tensors.append(tensor(layer.bias, [layer.outputs], rows))
        try activate(layer.finalActivation)

      case let layer as BatchNorm:
        var arguments = ["\(input.channels)"]
        if layer.epsilon != 1e-5 { arguments.append("eps=\(layer.epsilon)") }
        if layer.momentum != 0.1 { arguments.append("momentum=\(layer.momentum)") }
        list.append("nn.BatchNorm\(now.isFlat ? 1 : 2)d(\(arguments.joined(separator: ", ")))")
        let order = now.channels(input.channels)
        tensors += layer.parameters.map { tensor($0, [input.channels], order) }
        try activate(layer.activation)

      case let layer as LayerNorm:
        let epsilon = layer.epsilon == 1e-5 ? "" : ", eps=\(layer.epsilon)"
        list.append("\(now.isFlat ? "nn.LayerNorm" : "ChannelNorm")(\(input.channels)\(epsilon))")
        if !now.isFlat { needsChannelNorm = true }
        let order = now.channels(input.channels)
        tensors += layer.parameters.map { tensor($0, [input.channels], order) }

      case is GlobalAvgPool:
        unflatten(input)
        list.append("nn.AdaptiveAvgPool2d(1)")

      case let layer as Pool2D:
        unflatten(input)
        let stride = layer.stride == layer.size ? "" : ", stride=\(tuple(layer.stride))"
        list.append(
          "nn.\(layer is MaxPool2D ? "Max" : "Avg")Pool2d(\(tuple(layer.size))\(stride))")

      case is Flatten:
        flatten()
        // A single channel or pixel has the same order either way.
        if !Self.isPixel(input) && input.channels > 1 { now.pixels = input }

      case let layer as Dropout: list.append("nn.Dropout(\(layer.rate))")
      case let layer as Activate: try activate(layer.finalActivation)

      case let layer as Residual:
        needsResidual = true
        // Both sides are to be as flat as each other.
        if Self.isPixel(input) { flatten() }
        let (body, shortcut) = layer.stages(input)
        let orders = [body, shortcut].map { order($0, from: now.pixels) }
        let target = orders.first { !$0.isFree }.map(\.pixels) ?? (index == last ? wanted : nil)
        var sides: [String] = []
        var ends: [Position] = []
        for (name, side) in [("body", body), ("shortcut", shortcut)] {
          var (inside, end) = try modules(
            side, from: now, prefix: "\(prefix)\(list.count).\(name).", wanted: target,
            number: number)
          if Self.isPixel(output) && !end.isFlat {
            inside.append("nn.Flatten()")
            end.isFlat = true
          }
          sides.append(side.isEmpty ? "nn.Identity()" : Self.sequential(inside))
          ends.append(end)
        }
        guard ends[0].pixels == ends[1].pixels else {
          throw StrideNetError(
            .badData, "two sides of a residual connection that PyTorch would have in two orders",
            at: "layer \(number), \(layer.text)",
            found: ends.map { $0.pixels.map { "\($0) flattened" } ?? "no flattened image" }
              .joined(separator: " and "),
            expected: "images of the same size, or a dense layer behind the flatten")
        }
        now = ends[0]
        list.append("Residual(\(sides.joined(separator: ", ")))")

      default: throw stage.unknown(to: "PyTorch", number: number)
      }
    }
    return (list, now)
  }

  /// The module of an activation other than softmax; nil for none.
  private func module(_ activation: Activation, _ stage: Stage, _ number: Int) throws -> String? {
    switch activation.kind {
    case .none, .softmax: return nil
    case .relu: return "nn.ReLU()"
    case .leakyReLU(let slope): return "nn.LeakyReLU(\(slope))"
    case .kernel:
      let names = [
        "elu": "ELU", "gelu": "GELU", "silu": "SiLU", "sigmoid": "Sigmoid", "tanh": "Tanh",
        "softplus": "Softplus",
      ]
      if let name = names[activation.name] { return "nn.\(name)()" }
    case .own: break
    }
    throw stage.unknown(to: "PyTorch", number: number)
  }

  private func tuple(_ p: (height: Int, width: Int)) -> String {
    p.height == p.width ? "\(p.height)" : "(\(p.height), \(p.width))"
  }
}
