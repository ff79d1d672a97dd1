import Foundation  // replacingOccurrences
import StrideNetCore

/// A network as PyTorch's modules, which have images as (N, C, H, W).
struct PyTorchModel {
  struct Tensor {
    let name: String
    let shape: [Int]
    let parameter: Parameter
    /// Where in the parameter each value stands.
    let places: [Int]

    /// The same as if there were none.
    var valueWithout: Float {
      ["weight", "running_var"].contains(parameter.description.name) ? 1 : 0
    }
  }

  private(set) var tensors: [Tensor] = []
  private(set) var text = ""
  private var needsResidual = false
  private var needsChannelNorm = false
  private var needsMeanOfPixels = false

  init(_ stages: [Stage]) throws {
    let start = Position(isFlat: Self.isPixel(stages[0].input), pixels: nil)
    var (modules, end) = try modules(stages, from: start, prefix: "", isWhole: true)
    if !end.isFlat && Self.isPixel(stages.last!.output) { modules.append("nn.Flatten()") }
    guard end.pixels == nil else {
      throw StrideNetError(
        .badData, "outputs that PyTorch would have in another order",
        at: "layer \(stages.count), \(stages.last!.text)",
        found: "an image of \(end.pixels!) that was flattened",
        expected: "a dense layer after a flatten, whose weights can be put in PyTorch's order",
        hint: "flatten reads pixel by pixel here, channel by channel there")
    }
    text = Self.sequential(modules)
  }

  func source(
    _ input: Shape, _ normalization: InputNormalization?, _ targets: TargetNormalization?,
    file: String
  ) -> String {
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
    let meanOfPixels = """


      class MeanOfPixels(nn.Module):
          def __init__(self, padding, size, stride):
              super().__init__()
              self.padding, self.size, self.stride = padding, size, stride

          def mean(self, x):
              return nn.functional.avg_pool2d(
                  nn.functional.pad(x, self.padding), self.size, self.stride)

          def forward(self, x):
              return self.mean(x) / self.mean(x.new_ones(x.shape))


      """
    let normalize = """


      class Normalize(nn.Module):
          def __init__(self, mean, deviation):
              super().__init__()
              self.register_buffer("mean", torch.tensor(mean), persistent=False)
              self.register_buffer("deviation", torch.tensor(deviation), persistent=False)

          def forward(self, x):
              return (x - self.mean) / self.deviation


      """
    let denormalize = """


      class Denormalize(Normalize):
          def forward(self, x):
              return x * self.deviation + self.mean


      """
    func factors(_ mean: [Double], _ deviation: [Double], isPixel: Bool) -> String {
      [mean, deviation].map { values in
        "["
          + values.map { isPixel ? "\(Float($0))" : "[[\(Float($0))]]" }.joined(separator: ", ")
          + "]"
      }.joined(separator: ", ")
    }
    // A number a channel, in the shape of one example.
    let first = normalization.map {
      "Normalize(\(factors($0.mean, $0.deviation, isPixel: Self.isPixel(input)))), "
    }
    let last = targets.map { ", Denormalize(\(factors($0.mean, $0.deviation, isPixel: true)))" }
    let wrapped =
      first == nil && last == nil
      ? nil : "model = nn.Sequential(\(first ?? "")model\(last ?? ""))\n"
    return """
      \(wrapped == nil ? "" : "import torch\n")from safetensors.torch import load_file
      from torch import nn
      \(needsResidual ? residual : "")\(needsChannelNorm ? channelNorm : "")\(needsMeanOfPixels ? meanOfPixels : "")\(wrapped == nil ? "" : normalize)\(last == nil ? "" : denormalize)
      model = \(text)
      model.load_state_dict(load_file(\(Self.quoted(file))))
      \(wrapped ?? "")model.eval()  # takes \(image), pixels from 0 to 1

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
    for operation in stages.flatMap(\.operations) {
      switch operation.kind {
      case .multiply: result = (nil, true)
      case .convolve: result = (nil, false)
      case .reshape:
        if Self.changesOrder(operation.input) { result = (operation.input, false) }
      case .add:
        let sides = [operation.body, operation.shortcut].map { order($0, from: result.pixels) }
        result = sides.first { !$0.isFree } ?? (nil, true)
      default: break
      }
    }
    return result
  }

  /// A single channel or pixel has the same order either way.
  private static func changesOrder(_ image: Shape) -> Bool { !isPixel(image) && image.channels > 1 }

  // MARK: Operations

  /// Modules one after the other.
  private struct Sequence {
    let prefix: String
    var list: [String] = []
    var now: Position

    mutating func flatten() {
      if !now.isFlat { list.append("nn.Flatten()") }
      now.isFlat = true
    }

    mutating func unflatten(_ shape: Shape) {
      if now.isFlat {
        list.append("nn.Unflatten(1, (\(shape.channels), \(shape.height), \(shape.width)))")
      }
      now.isFlat = false
    }

    /// A parameter of the module that was added last.
    func tensor(_ parameter: Parameter, _ shape: [Int], _ places: [Int]) -> Tensor {
      Tensor(
        name: "\(prefix)\(list.count - 1).\(parameter.description.name)", shape: shape,
        parameter: parameter, places: places)
    }
  }

  /// - Parameters:
  ///   - wanted: the order that the output should have if dense layers can give it
  ///   - isWhole: nothing comes behind: a softmax at the end is left out
  ///   - number: that of the layer around these, if there is one
  private mutating func modules(
    _ stages: [Stage], from start: Position, prefix: String, wanted: Shape? = nil,
    isWhole: Bool = false, number: Int? = nil
  ) throws -> ([String], Position) {
    var modules = Sequence(prefix: prefix, now: start)
    let all = stages.enumerated().flatMap { index, stage in
      stage.operations.map { (stage, number ?? index + 1, $0) }
    }
    // The last one that gives its output an order.
    let last = all.lastIndex {
      switch $0.2.kind {
      case .multiply, .add: true
      default: false
      }
    }
    for (index, (stage, number, operation)) in all.enumerated() {
      let wanted = index == last ? wanted : nil
      switch operation.kind {
      case .convolve(let layer, let start):
        try convolution(layer, start, operation, number, &modules)
      case .multiply: dense(operation, wanted, &modules)
      case .normalizeBatch(let momentum, let epsilon):
        var arguments = ["\(operation.input.channels)"]
        if epsilon != 1e-5 { arguments.append("eps=\(epsilon)") }
        if momentum != 0.1 { arguments.append("momentum=\(momentum)") }
        modules.list.append(
          "nn.BatchNorm\(modules.now.isFlat ? 1 : 2)d(\(arguments.joined(separator: ", ")))")
        channels(operation, modules)
      case .normalizePixels(let epsilon):
        let arguments =
          "\(operation.input.channels)" + (epsilon == 1e-5 ? "" : ", eps=\(epsilon)")
        if !modules.now.isFlat { needsChannelNorm = true }
        modules.list.append(
          "\(modules.now.isFlat ? "nn.LayerNorm" : "ChannelNorm")(\(arguments))")
        channels(operation, modules)
      case .pool(let window):
        modules.unflatten(operation.input)
        modules.list += pooling(window, operation.input, operation.output)
      case .reshape:
        modules.flatten()
        if Self.changesOrder(operation.input) { modules.now.pixels = operation.input }
      case .drop(let rate): modules.list.append("nn.Dropout(\(rate))")
      case .activate: break
      case .add: try sum(operation, stage, number, wanted, &modules)
      case .own(let layer):
        guard let module = layer.exports.pyTorch, operation.parameters.isEmpty else {
          throw stage.unknown(operation, to: "PyTorch", number: number)
        }
        modules.list.append(module)
      }
      // A softmax at the end is left to the loss.
      guard !(operation.activation.isSoftmax && isWhole && index == all.count - 1) else { continue }
      try activate(operation, stage, number, &modules)
    }
    return (modules.list, modules.now)
  }

  private func activate(
    _ operation: Bound, _ stage: Stage, _ number: Int, _ modules: inout Sequence
  ) throws {
    if operation.activation.isSoftmax {
      // It goes over all values of an example.
      let isImage = !modules.now.isFlat && !Self.isPixel(operation.output)
      if isImage { modules.flatten() }
      modules.list.append("nn.Softmax(dim=1)")
      if isImage { modules.unflatten(operation.output) }
    } else if let module = try module(operation, stage, number) {
      modules.list.append(module)
    }
  }

  /// Arrays of a number a channel.
  private mutating func channels(_ operation: Bound, _ modules: Sequence) {
    let channels = operation.input.channels
    let order = modules.now.channels(channels)
    tensors += operation.parameters.map { modules.tensor($0, [channels], order) }
  }

  private mutating func convolution(
    _ layer: Conv2D, _ start: (top: Int, left: Int), _ operation: Bound, _ number: Int,
    _ modules: inout Sequence
  ) throws {
    let (input, output) = (operation.input, operation.output)
    modules.unflatten(input)
    guard modules.now.pixels == nil || layer.groups == 1 else {
      throw StrideNetError(
        .badData, "groups of channels that PyTorch would have in another order",
        at: "layer \(number), \(layer.text)", found: "a flattened image of \(modules.now.pixels!)",
        expected: "a convolution without groups after a flatten")
    }
    let zeros = layer.zeros(input, output, start: start)
    let isEven = zeros.top == zeros.bottom && zeros.left == zeros.right
    if !isEven {
      modules.list.append(
        "nn.ZeroPad2d((\(zeros.left), \(zeros.right), \(zeros.top), \(zeros.bottom)))")
    }
    var arguments = ["\(input.channels)", "\(layer.filters)", tuple(layer.size)]
    if layer.stride != (1, 1) { arguments.append("stride=\(tuple(layer.stride))") }
    if isEven && (zeros.top, zeros.left) != (0, 0) {
      arguments.append("padding=\(tuple((zeros.top, zeros.left)))")
    }
    if layer.dilation != (1, 1) { arguments.append("dilation=\(tuple(layer.dilation))") }
    if layer.groups != 1 { arguments.append("groups=\(layer.groups)") }
    modules.list.append("nn.Conv2d(\(arguments.joined(separator: ", ")))")
    let (weight, bias) = (operation.parameters[0], operation.parameters[1])
    let (filters, channels) = (layer.filters, input.channels / layer.groups)
    let order = modules.now.channels(channels)
    let window = layer.size.height * layer.size.width
    var places: [Int] = []
    places.reserveCapacity(weight.count)
    for f in 0..<filters {
      for c in order {
        for element in 0..<window { places.append((element * channels + c) * filters + f) }
      }
    }
    tensors.append(
      modules.tensor(weight, [filters, channels, layer.size.height, layer.size.width], places))
    tensors.append(modules.tensor(bias, [filters], Array(0..<filters)))
    modules.now.pixels = nil
  }

  private mutating func dense(_ operation: Bound, _ wanted: Shape?, _ modules: inout Sequence) {
    let (inputs, outputs) = (operation.input.count, operation.output.count)
    modules.flatten()
    modules.list.append("nn.Linear(\(inputs), \(outputs))")
    let columns = modules.now.channels(inputs)
    modules.now.pixels = wanted
    let rows = modules.now.channels(outputs)
    tensors.append(
      modules.tensor(
        operation.parameters[0], [outputs, inputs],
        rows.flatMap { row in columns.map { row * inputs + $0 } }))
    tensors.append(modules.tensor(operation.parameters[1], [outputs], rows))
  }

  private mutating func pooling(_ window: Pooling, _ input: Shape, _ output: Shape) -> [String] {
    if window.kind == .globalAverage { return ["nn.AdaptiveAvgPool2d(1)"] }
    let (size, around, end) = (window.size, window.around, window.end(input, output))
    let name = window.isMax ? "nn.MaxPool2d" : "nn.AvgPool2d"
    var arguments = [tuple(size)]
    if window.stride != size { arguments.append("stride=\(tuple(window.stride))") }
    let isBeyond = end.bottom > around.bottom || end.right > around.right
    let isEven =
      around.top == around.bottom && around.left == around.right
      && 2 * around.top <= size.height && 2 * around.left <= size.width
    if isEven {
      let isPadded = (around.top, around.left) != (0, 0)
      if isPadded { arguments.append("padding=\(tuple((around.top, around.left)))") }
      if isBeyond { arguments.append("ceil_mode=True") }
      if isPadded && !window.isMax && !window.countsPadding {
        arguments.append("count_include_pad=False")
      }
      return ["\(name)(\(arguments.joined(separator: ", ")))"]
    }
    func sides(_ bottom: Int, _ right: Int) -> String {
      "(\(around.left), \(right), \(around.top), \(bottom))"
    }
    let all = sides(end.bottom, end.right)
    if window.isMax {
      return [
        "nn.ConstantPad2d(\(all), -float(\"inf\"))",
        "\(name)(\(arguments.joined(separator: ", ")))",
      ]
    }
    guard window.countsPadding else {
      needsMeanOfPixels = true
      return ["MeanOfPixels(\(all), \(tuple(size)), \(tuple(window.stride)))"]
    }
    if isBeyond { arguments.append("ceil_mode=True") }
    return [
      "nn.ZeroPad2d(\(sides(min(around.bottom, end.bottom), min(around.right, end.right))))",
      "\(name)(\(arguments.joined(separator: ", ")))",
    ]
  }

  private mutating func sum(
    _ operation: Bound, _ stage: Stage, _ number: Int, _ wanted: Shape?, _ modules: inout Sequence
  ) throws {
    needsResidual = true
    // Both sides are to be as flat as each other.
    if Self.isPixel(operation.input) { modules.flatten() }
    let both = [("body", operation.body), ("shortcut", operation.shortcut)]
    let orders = both.map { order($0.1, from: modules.now.pixels) }
    let target = orders.first { !$0.isFree }.map(\.pixels) ?? wanted
    var sides: [String] = []
    var ends: [Position] = []
    for (name, side) in both {
      var (inside, end) = try self.modules(
        side, from: modules.now, prefix: "\(modules.prefix)\(modules.list.count).\(name).",
        wanted: target, number: number)
      if Self.isPixel(operation.output) && !end.isFlat {
        inside.append("nn.Flatten()")
        end.isFlat = true
      }
      sides.append(side.isEmpty ? "nn.Identity()" : Self.sequential(inside))
      ends.append(end)
    }
    guard ends[0].pixels == ends[1].pixels else {
      throw StrideNetError(
        .badData, "two sides of a residual connection that PyTorch would have in two orders",
        at: "layer \(number), \(stage.text)",
        found: ends.map { $0.pixels.map { "\($0) flattened" } ?? "no flattened image" }
          .joined(separator: " and "),
        expected: "images of the same size, or a dense layer behind the flatten")
    }
    modules.now = ends[0]
    modules.list.append("Residual(\(sides.joined(separator: ", ")))")
  }

  /// The module of an activation other than softmax; nil for none.
  private func module(_ operation: Bound, _ stage: Stage, _ number: Int) throws -> String? {
    let activation = operation.activation
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
    throw stage.unknown(operation, to: "PyTorch", number: number)
  }

  private func tuple(_ p: (height: Int, width: Int)) -> String {
    p.height == p.width ? "\(p.height)" : "(\(p.height), \(p.width))"
  }
}
