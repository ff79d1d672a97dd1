/// A layer with its sizes, as exporters go through a network.
struct Stage {
  let layer: Layer
  let input, output: Shape

  static func list(_ layers: [Layer], _ input: Shape, _ shapes: [Shape]) -> [Stage] {
    layers.enumerated().map { index, layer in
      Stage(layer: layer, input: index == 0 ? input : shapes[index - 1], output: shapes[index])
    }
  }

  /// Says that a format hasn't the layer; `number` is its place in the network or around it.
  func unknown(to format: String, number: Int) -> StrideNetError {
    StrideNetError(
      .badData, "a layer that can't be exported to \(format)",
      at: "layer \(number), \(layer.text)",
      found: layer.finalActivation.isOwn
        ? "the activation '\(layer.finalActivation.name)', a function of one's own"
        : "a layer of one's own",
      expected: "layers and activations of StrideNet's")
  }
}

extension Network {
  /// The layers, of a network that can be written to `path`.
  /// - Throws: ``StrideNetError`` if it isn't built or has weights that aren't finite
  func stages(for path: String) throws -> [Stage] {
    try requireWeights(for: path)
    for tensor in snapshot().arrays { try tensor.checkFinite(at: path) }
    return Stage.list(layers, input!, shapes)
  }
}

extension Parameter {
  var values: [Float] { Array(UnsafeBufferPointer(start: value, count: count)) }
}

extension Activation {
  var isNone: Bool { if case .none = kind { true } else { false } }
  var isOwn: Bool { if case .own = kind { true } else { false } }
}

extension Conv2D {
  /// The zeros around this input, as many as matter.
  func zeros(_ input: Shape, _ output: Shape) -> (top: Int, left: Int, bottom: Int, right: Int) {
    if case .explicit(let top, let left, let bottom, let right) = padding {
      return (top, left, bottom, right)
    }
    func end(_ outputs: Int, _ stride: Int, _ dilation: Int, _ size: Int, _ length: Int) -> Int {
      max(0, (outputs - 1) * stride + dilation * (size - 1) + 1 - length)
    }
    return (
      start.top, start.left,
      end(output.height, stride.height, dilation.height, size.height, input.height + start.top),
      end(output.width, stride.width, dilation.width, size.width, input.width + start.left)
    )
  }
}
