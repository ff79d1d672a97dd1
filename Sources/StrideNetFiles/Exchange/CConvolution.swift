import StrideNetCore

/// The loops of a convolution whose filters see all channels, for the filters of one block.
struct ConvolutionWindow {
  let layer: Conv2D
  private let pool: Pooling?
  private let input: Shape
  /// What the input, as one row of values, is called.
  private let x: String
  private let zeros: (top: Int, left: Int, bottom: Int, right: Int)
  /// Whether values that aren't 0 are listed, and the others passed over.
  var isListed = false
  /// Whether it sees the image itself, much of which may be 0, as paper and borders are.
  private let seesImage: Bool

  init(_ sum: WeightedSum, _ x: CProgram.Value) {
    let (layer, start) = sum.convolution!
    (self.layer, pool, input, self.x) = (layer, sum.pool, sum.main.input, x.name)
    seesImage = x.place == nil
    zeros = layer.zeros(input, sum.main.output, start: start)
  }

  private var size: (height: Int, width: Int) { layer.size }
  private var line: Int { input.width * input.channels }
  private var isPaddedAside: Bool { zeros.left > 0 || zeros.right > 0 }

  /// Rows of the image that a row of outputs is made of.
  private var rows: Int {
    ((pool?.size.height ?? 1) - 1) * layer.stride.height
      + (size.height - 1) * layer.dilation.height + 1
  }

  /// Columns that an output is made of.
  private var columns: Int {
    ((pool?.size.width ?? 1) - 1) * layer.stride.width
      + (size.width - 1) * layer.dilation.width + 1
  }

  /// Whether the values of a window's row lie side by side, and are so many that a list pays of
  /// which `fours` sums of four are made.
  func canList(_ fours: Int) -> Bool {
    let reads = size.height * size.width * fours / (layer.stride.height * layer.stride.width)
    return layer.dilation.width == 1 && size.width * input.channels >= 16
      && reads >= CProgram.leastReads
  }

  // MARK: Where the window is

  /// Whether all that an output is made of is 0, as a statement; nothing where it isn't asked.
  func zero(_ program: inout CProgram) -> String {
    guard seesImage else { return "" }
    program.isZero()
    func first(_ output: String, _ step: Int, _ zeros: Int) -> String {
      CProgram.product(output, step) + (zeros > 0 ? " - \(zeros)" : "")
    }
    let top = first("p", (pool?.size.height ?? 1) * layer.stride.height, zeros.top)
    let left = first("q", (pool?.size.width ?? 1) * layer.stride.width, zeros.left)
    let values = input.channels == 1 ? left : zeros.left > 0 ? "(\(left))" : left
    return "int zero = isZero(\(x), \(input.height), \(line), \(top), "
      + "\(CProgram.product(values, input.channels)), \(rows), \(columns * input.channels));\n"
  }

  /// How many windows of a pooling are looked at: where all is 0 they are alike.
  func windows(_ count: Int) -> String { seesImage ? "(zero ? 1 : \(count))" : "\(count)" }

  /// The row and column of its first value.
  var corner: String {
    let (height, width) = pool?.size ?? (1, 1)
    func place(_ output: String, _ step: Int, _ inside: String, _ stride: Int, _ zeros: Int)
      -> String
    {
      var text = CProgram.product(output, step) + (inside.isEmpty ? "" : " + \(inside)")
      if stride > 1 { text = CProgram.product(inside.isEmpty ? text : "(\(text))", stride) }
      return text + (zeros > 0 ? " - \(zeros)" : "")
    }
    let (down, aside) = (
      height == 1 ? "" : width == 1 ? "s" : "s / \(width)",
      width == 1 ? "" : height == 1 ? "s" : "s % \(width)"
    )
    let top = place("p", height, down, layer.stride.height, zeros.top)
    let left = place("q", width, aside, layer.stride.width, zeros.left)
    let text = "int top = \(top), left = \(left);"
    if !isPaddedAside || layer.dilation.width > 1 { return text }
    return text + "\nint from = left < 0 ? 0 : left, "
      + "to = left + \(size.width) > \(input.width) ? \(input.width) : left + \(size.width);"
      + (max(zeros.left, zeros.right) < size.width
        ? "" : "\nif (to < from)\n  from = to = 0; /* a window of padding alone */")
  }

  // MARK: Sums

  func loops(weight: String, _ blocks: FilterBlocks) -> String {
    let row = CProgram.product("i", layer.dilation.height)
    let check =
      zeros.top == 0 && zeros.bottom == 0
      ? "" : "  if (row < 0 || row >= \(input.height))\n    continue; /* outside all is 0 */\n"
    return """
      for (int i = 0; i < \(size.height)\(seesImage ? " && !zero" : ""); i++) {
        int row = top + \(row);
      \(check)  const float *line = \(x) + row * \(line);
      \(CProgram.indented(layer.dilation.width > 1 ? apart(weight, blocks) : together(weight, blocks)))
      }
      """
  }

  /// The values of a window's row, which lie side by side.
  private func together(_ weight: String, _ blocks: FilterBlocks) -> String {
    let channels = input.channels
    let (from, to) = isPaddedAside ? ("from", "to") : ("left", "left + \(size.width)")
    let left = CProgram.product("left", channels)
    if isListed {
      return """
        const place *places = lists[row % \(rows)];
        const int *begin = begins[row % \(rows)];
        for (int n = begin[\(from)]; n < begin[\(to)]; n++) {
          int k = places[n];
          \(added("line[k]", "\(weight)[i][k - \(left)]", blocks))
        }
        """
    }
    if isPaddedAside {
      return """
        for (int k = \(CProgram.product(from, channels)); k < \(CProgram.product(to, channels)); k++) {
          \(added("line[k]", "\(weight)[i][k - \(left)]", blocks))
        }
        """
    }
    return """
      for (int k = 0; k < \(size.width * channels); k++) {
        \(added("line[\(left) + k]", "\(weight)[i][k]", blocks))
      }
      """
  }

  /// The same with pixels left out between those of the window.
  private func apart(_ weight: String, _ blocks: FilterBlocks) -> String {
    let channels = input.channels
    let check =
      isPaddedAside
      ? "  if (column < 0 || column >= \(input.width))\n    continue;\n" : ""
    let (x, w) = (
      "line[\(CProgram.product("column", channels)) + c]",
      "\(weight)[i][\(CProgram.product("j", channels)) + c]"
    )
    return """
      for (int j = 0; j < \(size.width); j++) {
        int column = left + \(CProgram.product("j", layer.dilation.width));
      \(check)  for (int c = 0; c < \(channels); c++) {
          \(CProgram.indented(added(x, w, blocks)).dropFirst(2))
        }
      }
      """
  }

  private func added(_ x: String, _ weight: String, _ blocks: FilterBlocks) -> String {
    CProgram.indented(
      """
      float x = \(x);
      const float (*w)[4] = \(weight);
      \(blocks.multiplyAndAdd)
      """
    ).dropFirst(2).description
  }

  // MARK: Lists

  /// Loops in which the rows that output row p needs are listed first, and lists of as many rows
  /// kept as are needed at a time.
  func listing(_ loops: String, outputs: Int, _ program: inout CProgram) -> String {
    program.lists(rows: rows, pixels: input.width, channels: input.channels)
    let step = (pool?.size.height ?? 1) * layer.stride.height
    let end = rows - zeros.top
    let last =
      CProgram.product("p", step) + (end == 0 ? "" : end > 0 ? " + \(end)" : " - \(-end)")
    let (line, pixels) = ("[\(line)]", "[\(input.width + 1)]")
    return """
      {
        place (*lists)\(line) = (place (*)\(line))at;
        int (*begins)\(pixels) = (int (*)\(pixels))first;
        int listed = 0; /* rows so far */
        for (int p = 0; p < \(outputs); p++) {
          for (; listed < \(input.height) && listed < \(last); listed++)
            list(\(x) + listed * \(self.line), \(input.width), \(input.channels),
                 lists[listed % \(rows)], begins[listed % \(rows)]);
      \(CProgram.indented(loops, by: 2))
        }
      }
      """
  }
}

extension CProgram {
  mutating func convolution(_ sum: WeightedSum, _ x: Value) throws -> Value {
    let x = flat(x)
    let y = buffer(sum.main.name, sum.output, isFlat: false)
    let blocks = FilterBlocks(sum.filters)
    var window = ConvolutionWindow(sum, x)
    if x.hasZeros && window.canList(blocks.rows * blocks.count) { window.isListed = true }
    let size = window.layer.size
    let names = arrays(sum, blocks, [size.height, size.width * sum.main.input.channels]) {
      sum.weight[$0 * sum.filters + $1]
    }
    let pixel = try pixel(sum, blocks, window, names, "\(y.name)[p][q]")
    let row = Self.loops(
      blocks.loop + [("q", sum.output.width)], "{\n\(Self.indented(pixel))\n}")
    if window.isListed {
      code(window.listing(row, outputs: sum.output.height, &self))
    } else {
      code(Self.loops([("p", sum.output.height)], row))
    }
    return y
  }

  /// The statements for one output pixel and a block of filters.
  private mutating func pixel(
    _ sum: WeightedSum, _ blocks: FilterBlocks, _ window: ConvolutionWindow,
    _ names: (weight: String, bias: String), _ place: String
  ) throws -> String {
    let sums = """
      \(window.corner)
      \(blocks.each("sum[v][f] = \(names.bias)[v][f];"))
      \(window.loops(weight: names.weight, blocks))
      """
    let zero = window.zero(&self)
    guard let pool = sum.pool else {
      return """
        float sum[\(blocks.rows)][4];
        \(zero)\
        \(sums)
        \(blocks.stored(try applied(sum.active, to: "sum[v][f]"), in: place))
        """
    }
    larger()
    // The largest of what relu gives is relu of the largest, which is taken once.
    let isLast = sum.active.activation.isNone || sum.active.activation.name == "relu"
    let value = isLast ? "sum[v][f]" : try applied(sum.active, to: "sum[v][f]")
    let result = isLast ? try applied(sum.active, to: "best[v][f]") : "best[v][f]"
    return """
      float best[\(blocks.rows)][4], sum[\(blocks.rows)][4];
      \(blocks.each("best[v][f] = -INFINITY;"))
      \(zero)\
      for (int s = 0; s < \(window.windows(pool.size.height * pool.size.width)); s++) {
      \(Self.indented(sums))
      \(Self.indented(blocks.each("best[v][f] = larger(best[v][f], \(value));")))
      }
      \(blocks.stored(result, in: place))
      """
  }

  // MARK: Groups

  /// A convolution each of whose filters sees the channels of its group alone.
  mutating func groups(_ sum: WeightedSum, _ x: Value) throws -> Value {
    let x = image(x)
    let (layer, _) = sum.convolution!
    let name = sum.main.name
    let y = buffer(name, sum.output, isFlat: false)
    let parameters = sum.main.operation.parameters
    let weight = constant("weight\(name)", parameters[0].shape, sum.weight)
    let bias = constant("bias\(name)", parameters[1].shape, sum.bias)
    code(
      Self.loops(
        [("p", sum.output.height), ("q", sum.output.width), ("f", layer.filters)],
        """
        {
          float sum = \(bias)[f];
        \(Self.indented(groupWindow(sum, x.name, weight)))
          \(y.name)[p][q][f] = \(try applied(sum.active, to: "sum"));
        }
        """))
    return y
  }

  private func groupWindow(_ sum: WeightedSum, _ x: String, _ weight: String) -> String {
    let (layer, start) = sum.convolution!
    let input = sum.main.input
    let zeros = layer.zeros(input, sum.main.output, start: start)
    func place(_ output: String, _ stride: Int, _ window: String, _ dilation: Int, _ zeros: Int)
      -> String
    {
      "\(Self.product(output, stride)) + \(Self.product(window, dilation))"
        + (zeros == 0 ? "" : " - \(zeros)")
    }
    let row = place("p", layer.stride.height, "i", layer.dilation.height, zeros.top)
    let column = place("q", layer.stride.width, "j", layer.dilation.width, zeros.left)
    let channels = input.channels / layer.groups
    let first = "f / \(layer.filters / layer.groups) * \(channels)"  // of f's group
    return """
      for (int i = 0; i < \(layer.size.height); i++)
        for (int j = 0; j < \(layer.size.width); j++) {
          int row = \(row), column = \(column);
          if (row < 0 || row >= \(input.height) || column < 0 || column >= \(input.width))
            continue; /* outside of the image all is 0 */
          for (int c = 0; c < \(channels); c++)
            sum += \(x)[row][column][\(first) + c] * \(weight)[i][j][c][f];
        }
      """
  }
}
