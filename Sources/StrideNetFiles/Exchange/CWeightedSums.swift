import StrideNetCore

/// A convolution or dense layer, and what can be computed together with it.
struct WeightedSum {
  /// The layer, and what follows and needs no loops of its own.
  private(set) var parts: [CProgram.Part]
  /// The part whose activation is taken.
  private(set) var active: CProgram.Part
  /// A max-pooling whose windows lie side by side, all inside: it takes its values as they come.
  private(set) var pool: Pooling?
  /// The filters', bias included, with the batch normalisation behind multiplied in.
  private(set) var weight, bias: [Float]
  /// Of the batch normalisation.
  private(set) var epsilon: Float?

  var main: CProgram.Part { parts[0] }
  var output: Shape { parts.last!.output }
  var convolution: (layer: Conv2D, start: (top: Int, left: Int))? {
    if case .convolve(let layer, let start) = main.operation.kind { (layer, start) } else { nil }
  }
  /// Filters of a convolution, outputs of a dense layer.
  var filters: Int { bias.count }
  /// Whether each filter sees all channels.
  var isWhole: Bool { convolution.map { $0.layer.groups == 1 } ?? true }

  /// Nil where the first isn't one.
  init?(_ rest: ArraySlice<CProgram.Part>) {
    guard let first = rest.first, first.operation.hasWeights else { return nil }
    (parts, active) = ([first], first)
    let all = first.operation.parameters
    weight = all[0].values
    bias = all[1].values
    for part in rest.dropFirst() {
      guard takes(part) else { break }
      parts.append(part)
    }
  }

  private mutating func takes(_ part: CProgram.Part) -> Bool {
    switch part.operation.kind {
    case .drop: return pool == nil
    case .normalizeBatch(_, let epsilon):
      guard pool == nil, active.activation.isNone, self.epsilon == nil else { return false }
      self.epsilon = epsilon
      multiply(by: RunningFactors(part.operation, epsilon: epsilon).all)
    case .activate:
      guard pool == nil, active.activation.isNone else { return false }
    case .pool(let window):
      guard pool == nil, window.isMax, window.size == window.stride,
        window.isInside(part.input, part.output), isWhole, convolution != nil,
        !active.activation.isSoftmax
      else { return false }
      pool = window
      return true
    default: return false
    }
    active = part
    return true
  }

  private mutating func multiply(by factors: (scale: [Float], shift: [Float])) {
    // Filters are the last index of a convolution's weights and the first of a dense layer's.
    let inputs = weight.count / filters
    for index in weight.indices {
      weight[index] *= factors.scale[convolution == nil ? index / inputs : index % filters]
    }
    for filter in bias.indices {
      bias[filter] = bias[filter] * factors.scale[filter] + factors.shift[filter]
    }
  }
}

/// How filters are computed together: in blocks of so many rows of four.
struct FilterBlocks {
  let rows, count: Int
  let filters: Int
  var size: Int { 4 * rows }

  /// What takes the fewest instructions: 3 for each row, and some 6 for the value that all are
  /// multiplied by. A block's sums and what it takes to add to them fit into 16 registers.
  init(_ filters: Int) {
    self.filters = filters
    let fours = (filters + 3) / 4
    let cost = { (rows: Int) in (fours + rows - 1) / rows * (3 * rows + 6) }
    rows = (1...8).min { cost($0) < cost($1) }!
    count = (fours + rows - 1) / rows
  }

  /// `[b]` where there are several.
  var index: String { count > 1 ? "[b]" : "" }
  var loop: [(name: String, count: Int)] { count > 1 ? [("b", count)] : [] }

  /// A statement for each of a block's sums.
  func each(_ statement: String) -> String {
    CProgram.loops([("v", rows), ("f", 4)], statement)
  }

  /// Stores a value for each filter, but for those that a block has too many.
  func stored(_ value: String, in place: String) -> String {
    let filter = (count > 1 ? "b * \(size) + " : "") + "v * 4 + f"
    let check = count * size == filters ? "" : "if (\(filter) < \(filters))\n  "
    return each("\(check)\(place)[\(filter)] = \(value);")
  }

  /// The arrays' sizes, and their values in the order in which loops read them: blocks, then what
  /// `sizes` are of, then a block's filters. Those that are missing in the last block are 0.
  func arranged(_ sizes: [Int], _ value: (_ input: Int, _ filter: Int) -> Float) -> (
    sizes: [Int], values: [Float]
  ) {
    let inputs = sizes.reduce(1, *)
    var values: [Float] = []
    values.reserveCapacity(count * inputs * size)
    for block in 0..<count {
      for input in 0..<inputs {
        for filter in block * size..<(block + 1) * size {
          values.append(filter < filters ? value(input, filter) : 0)
        }
      }
    }
    return ((count > 1 ? [count] : []) + sizes + [rows, 4], values)
  }

  /// `sum += x * w` for a block's filters.
  var multiplyAndAdd: String {
    "for (int f = 0; f < 4; f++) {\n"
      + (0..<rows).map { "  sum[\($0)][f] += x * w[\($0)][f];\n" }.joined() + "}"
  }
}

extension CProgram {
  mutating func weightedSum(_ sum: WeightedSum, _ x: Value) throws -> Value {
    comment(
      sum.parts.map { part in
        switch part.operation.kind {
        case .convolve(let layer, _):
          (
            part,
            "each of \(layer.filters) filters slides over the image; an output is the bias and "
              + "the window's values, each times its weight"
          )
        case .multiply: (part, "an output is the bias and all inputs, each times its weight")
        case .normalizeBatch:
          (part, Self.normText(sum.epsilon!) + "; both are in the weights and bias already")
        case .pool: (part, Self.maxText)
        case .drop: (part, "in training alone")
        default: (part, "value by value")
        }
      })
    let y: Value
    if !sum.isWhole {
      y = try groups(sum, x)
    } else if sum.convolution == nil {
      y = try dense(sum, x)
    } else {
      y = try convolution(sum, x)
    }
    return activated(sum.active, y)
  }

  /// Weights and bias in the order in which they are read; `sizes` are those of a filter's inputs.
  mutating func arrays(
    _ sum: WeightedSum, _ blocks: FilterBlocks, _ sizes: [Int],
    _ weight: (_ input: Int, _ filter: Int) -> Float
  ) -> (weight: String, bias: String) {
    let (weight, bias) = (blocks.arranged(sizes, weight), blocks.arranged([]) { sum.bias[$1] })
    return (
      constant("weight\(sum.main.name)", weight.sizes, weight.values) + blocks.index,
      constant("bias\(sum.main.name)", bias.sizes, bias.values) + blocks.index
    )
  }

  private mutating func dense(_ sum: WeightedSum, _ x: Value) throws -> Value {
    let (x, inputs) = (flat(x), sum.main.input.count)
    let y = buffer(sum.main.name, sum.output, isFlat: true)
    let blocks = FilterBlocks(sum.filters)
    let names = arrays(sum, blocks, [inputs]) { sum.weight[$1 * inputs + $0] }
    var head = "for (int k = 0; k < \(inputs); k++) {"
    if x.hasZeros && blocks.rows * blocks.count >= Self.leastReads {
      lists(rows: 1, pixels: 1, channels: inputs)
      code("list(\(x.name), 1, \(inputs), at, first);")
      head = "for (int n = 0; n < first[1]; n++) {\n    int k = at[n];"
    }
    code(
      Self.loops(
        blocks.loop,
        """
        {
          float sum[\(blocks.rows)][4];
        \(Self.indented(blocks.each("sum[v][f] = \(names.bias)[v][f];")))
          \(head)
            float x = \(x.name)[k];
            const float (*w)[4] = \(names.weight)[k];
        \(Self.indented(blocks.multiplyAndAdd, by: 2))
          }
        \(Self.indented(blocks.stored(try applied(sum.active, to: "sum[v][f]"), in: y.name)))
        }
        """))
    return y
  }

  /// How many fours of sums a value must be part of for a list to pay.
  static let leastReads = 12
}
