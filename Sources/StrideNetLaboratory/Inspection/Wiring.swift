import StrideNetCore

/// How a layer's output depends on its input, one value of it: Σ coefficient · input + bias.
struct Wiring {
  var kind = "weighted sum"
  /// In the definition's order.
  var links: [(input: Int, coefficient: Float, weight: Int?)] = []
  var bias: Float = 0
  var activation = Activation.none

  /// - Parameters:
  ///   - output: the value's index in one example of the layer's output
  ///   - x: one example of its input
  /// - Returns: nil for operations that aren't sums
  init?(_ operation: Bound, output: Int, x: UnsafePointer<Float>) {
    activation = operation.activation
    let at = Provenance.Place(output, in: operation.output)
    switch operation.kind {
    case .convolve(let layer, let start): convolve(layer, start, operation, at)
    case .multiply:
      let inputs = operation.input.count
      let row = output * inputs
      let (weight, bias) = (operation.parameters[0], operation.parameters[1])
      links = (0..<inputs).map { ($0, weight.value[row + $0], row + $0) }
      self.bias = bias.value[output]
    case .pool(let pooling): pool(pooling, operation, at, x)
    case .normalizeBatch(_, let epsilon):
      let (scale, shift) = RunningFactors(operation, epsilon: epsilon)[at.channel]
      normalize(output, scale, shift)
    case .normalizePixels(let epsilon):
      let (scale, shift) = Self.pixelFactors(
        epsilon, operation, at.channel, pixel: x + output - at.channel)
      normalize(output, scale, shift)
    case .activate, .drop, .reshape:
      kind = "taken over"
      links = [(output, 1, nil)]
    case .add, .own: return nil
    }
  }

  private mutating func convolve(
    _ layer: Conv2D, _ start: (top: Int, left: Int), _ operation: Bound, _ at: Provenance.Place
  ) {
    let (below, weight) = (operation.input, operation.parameters[0])
    let channels = weight.shape[2]
    let first = at.channel / (layer.filters / layer.groups) * channels
    for i in 0..<layer.size.height {
      for j in 0..<layer.size.width {
        let row = at.row * layer.stride.height + i * layer.dilation.height - start.top
        let column = at.column * layer.stride.width + j * layer.dilation.width - start.left
        guard (0..<below.height).contains(row), (0..<below.width).contains(column) else {
          continue
        }
        let pixel = Provenance.Place(row, column, first).index(in: below)
        for c in 0..<channels {
          let place = ((i * layer.size.width + j) * channels + c) * layer.filters + at.channel
          links.append((pixel + c, weight.value[place], place))
        }
      }
    }
    bias = operation.parameters[1].value[at.channel]
  }

  private mutating func pool(
    _ pooling: Pooling, _ operation: Bound, _ at: Provenance.Place, _ x: UnsafePointer<Float>
  ) {
    let (rows, columns, divisor) = pooling.window(at.row, at.column, over: operation.input)
    let window = rows.flatMap { row in
      columns.map { Provenance.Place(row, $0, at.channel).index(in: operation.input) }
    }
    if pooling.isMax {
      kind = "largest"
      // The first largest, as in training.
      let best = window.max { x[$0] < x[$1] || (x[$0] == x[$1] && $0 > $1) }!
      links = window.map { ($0, $0 == best ? 1 : 0, nil) }
    } else {
      kind = "mean"
      links = window.map { ($0, 1 / Float(divisor), nil) }
    }
  }

  private mutating func normalize(_ place: Int, _ scale: Float, _ shift: Float) {
    kind = "normalised"
    links = [(place, scale, nil)]
    bias = shift
  }

  /// What normalisation over the channels of a pixel makes of one of them, as a factor and a shift.
  private static func pixelFactors(
    _ epsilon: Float, _ operation: Bound, _ channel: Int, pixel: UnsafePointer<Float>
  ) -> (scale: Float, shift: Float) {
    let values = UnsafeBufferPointer(start: pixel, count: operation.input.channels)
    let mean = values.reduce(0) { $0 + Double($1) } / Double(values.count)
    let variance =
      values.reduce(0) { $0 + (Double($1) - mean) * (Double($1) - mean) } / Double(values.count)
    let (weight, bias) = (operation.parameters[0].value, operation.parameters[1].value)
    let scale = Double(weight[channel]) / (variance + Double(epsilon)).squareRoot()
    return (Float(scale), Float(Double(bias[channel]) - mean * scale))
  }
}
