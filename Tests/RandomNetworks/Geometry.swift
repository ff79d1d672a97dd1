/// What a layer text and the sizes come to: output sizes, and work.
struct Geometry {
  typealias Sides = (top: Int, left: Int, bottom: Int, right: Int)

  /// Zeros around the input, and the size of what comes out; nil where a window doesn't fit.
  static func windows(_ layer: LayerText, over input: Size) -> (
    around: Sides, rows: Int, columns: Int
  )? {
    let window = layer.pair("size")
    let isConvolution = layer.name == "conv"
    let stride = layer.pair("stride", isConvolution ? (1, 1) : (window.height, window.width))
    let dilation = layer.pair("dilation")
    let reach = (dilation.height * (window.height - 1) + 1, dilation.width * (window.width - 1) + 1)
    var (top, left, bottom, right) = (0, 0, 0, 0)
    switch layer["padding"] {
    case nil, "valid": break
    case "same":
      // ⌈input / stride⌉ outputs.
      func missing(_ input: Int, _ stride: Int, _ reach: Int) -> Int {
        max(0, ((input + stride - 1) / stride - 1) * stride + reach - input)
      }
      let rows = missing(input.height, stride.height, reach.0)
      let columns = missing(input.width, stride.width, reach.1)
      (top, left, bottom, right) = (rows / 2, columns / 2, rows - rows / 2, columns - columns / 2)
    case let text?:
      let numbers = text.split(separator: "x").map { Int($0)! }
      switch numbers.count {
      case 1: (top, left, bottom, right) = (numbers[0], numbers[0], numbers[0], numbers[0])
      case 2: (top, left, bottom, right) = (numbers[0], numbers[1], numbers[0], numbers[1])
      default: (top, left, bottom, right) = (numbers[0], numbers[1], numbers[2], numbers[3])
      }
    }
    guard isConvolution || max(top, bottom) < reach.0 && max(left, right) < reach.1 else {
      return nil
    }
    /// Windows that end in the padding, or in ceil mode begin before what is behind the image.
    func count(_ first: Int, _ length: Int, _ last: Int, _ reach: Int, _ stride: Int) -> Int {
      let starts = Swift.stride(from: -first, through: length + last, by: stride)
      guard layer["ceil_mode"] == "true" else {
        return starts.prefix { $0 + reach <= length + last }.count
      }
      // Each but the first begins no later than a stride after one that ends in the padding.
      return starts.prefix { $0 < length && $0 + reach < length + last + stride }.count
    }
    let rows = count(top, input.height, bottom, reach.0, stride.height)
    let columns = count(left, input.width, right, reach.1, stride.width)
    guard rows > 0 && columns > 0 else { return nil }
    return ((top, left, bottom, right), rows, columns)
  }

  /// The size of what a layer makes of an input and about how many multiply-adds it takes; nil where
  /// it can't.
  static func output(_ layer: LayerText, _ input: Size) -> (size: Size, work: Int)? {
    switch layer.name {
    case "conv":
      let (filters, groups) = (layer.number("filters"), layer.number("groups"))
      guard input.channels % groups == 0, filters % groups == 0,
        let (_, rows, columns) = windows(layer, over: input)
      else { return nil }
      let window = layer.pair("size")
      return (
        Size(height: rows, width: columns, channels: filters),
        rows * columns * filters * (window.height * window.width * input.channels / groups + 8)
      )
    case "maxpool", "avgpool":
      guard let (_, rows, columns) = windows(layer, over: input) else { return nil }
      let (window, size) = (
        layer.pair("size"), Size(height: rows, width: columns, channels: input.channels)
      )
      return (size, size.count * window.height * window.width * 4)
    case "globalavgpool":
      return (Size(height: 1, width: 1, channels: input.channels), input.count * 4)
    case "flatten": return (Size(height: 1, width: 1, channels: input.count), input.count)
    case "residual":
      guard let (size, work) = output(layer.body, input),
        let (other, more) = output(layer.shortcut, input), size == other,
        layer.body.contains(where: { $0.name != "flatten" }),
        layer.shortcut.isEmpty || layer.shortcut.contains(where: { $0.name != "flatten" })
      else { return nil }
      return (size, work + more + size.count)
    case "batchnorm", "layernorm", "dropout", "activation": return (input, input.count * 8)
    default:
      guard input.isFlat else { return nil }
      let outputs = layer.number("outputs")
      return (Size(height: 1, width: 1, channels: outputs), outputs * (input.count + 8))
    }
  }

  static func output(_ layers: [LayerText], _ input: Size) -> (size: Size, work: Int)? {
    var (size, work) = (input, 0)
    for layer in layers {
      guard let next = output(layer, size) else { return nil }
      (size, work) = (next.size, work + next.work)
    }
    return (size, work)
  }
}
