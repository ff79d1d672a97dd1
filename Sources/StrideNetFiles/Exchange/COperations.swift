import StrideNetCore

/// What each kind of operation is in C.
extension CProgram {
  /// An operation, and where in the network it is.
  struct Part {
    let operation: Bound
    let stage: Stage
    /// What its arrays are called behind their kind: "2", or in a layer of several operations "2_1".
    let name: String
    /// The number of the layer that it is in, or inside of.
    let number: Int

    var title: String { name.replacing("_", with: ", ") }
    var input: Shape { operation.input }
    var output: Shape { operation.output }
    var activation: Activation { operation.activation }
    var unknown: StrideNetError { stage.unknown(operation, to: "C", number: number) }
  }

  /// - Parameter number: the place in the network of the layer that all of these are inside of
  mutating func layers(
    _ stages: [Stage], _ input: Value, prefix: String = "", number: Int? = nil
  ) throws -> Value {
    var parts: [Part] = []
    for (index, stage) in stages.enumerated() {
      for (place, operation) in stage.operations.enumerated() {
        let name = "\(prefix)\(index + 1)" + (stage.only == nil ? "_\(place + 1)" : "")
        parts.append(
          Part(operation: operation, stage: stage, name: name, number: number ?? index + 1))
      }
    }
    var value = input
    var rest = parts[...]
    while let part = rest.first {
      next(reading: value)
      if let sum = WeightedSum(rest) {
        value = try weightedSum(sum, value)
        rest = rest.dropFirst(sum.parts.count)
      } else {
        value = try self.operation(part, value)
        rest = rest.dropFirst()
      }
    }
    return value
  }

  private mutating func operation(_ part: Part, _ x: Value) throws -> Value {
    var y: Value
    switch part.operation.kind {
    case .convolve, .multiply: preconditionFailure("weighted sums go together with what follows")
    case .pool(let window): y = pooling(window, part, x)
    case .reshape:
      comment([(part, "the same values in one row")])
      return flat(x)
    case .drop:
      comment([(part, "in training alone")])
      return x
    case .activate:
      comment([(part, "value by value")])
      y = try each(part, x, x.element)
    case .normalizeBatch(_, let epsilon): y = try batchNorm(epsilon, part, x)
    case .normalizePixels(let epsilon): y = layerNorm(epsilon, part, x)
    case .add: y = try sum(part, x)
    case .own(let layer): y = try own(layer, part, x)
    }
    return activated(part, y)
  }

  /// A value behind its activation: softmax is taken here.
  mutating func activated(_ part: Part, _ y: Value) -> Value {
    var y = y
    if part.activation.isSoftmax { softmax(y) }
    if !part.activation.isNone { y.hasZeros = part.activation.name == "relu" }
    return y
  }

  /// What stands above the loops of an operation or several.
  mutating func comment(_ all: [(part: Part, text: String)]) {
    let sentences = all.map { part, text in
      let end = part.activation.isNone ? "" : ", then \(part.activation.name)"
      return "\(part.title). \(part.stage.text): \(text)\(end)."
    }
    let title = Self.wrapped("/* " + sentences.joined(separator: " "), indent: "   ")
    let sizes = [all[0].part.input, all.last!.part.output]
      .map { "\($0)".replacing("×", with: "x") }
    code("\n\(title)\n   \(sizes[0]) -> \(sizes[1]) */")
  }

  mutating func weights(_ part: Part) -> [String] {
    zip(["weight", "bias"], part.operation.parameters).map { kind, parameter in
      constant(kind + part.name, parameter.shape, parameter.values)
    }
  }

  // MARK: Pooling and normalisation

  private mutating func pooling(_ window: Pooling, _ part: Part, _ x: Value) -> Value {
    comment([(part, window.isMax ? Self.maxText : "the mean of each window")])
    let x = image(x)
    var y = buffer(part.name, part.output, isFlat: false)
    y.hasZeros = x.hasZeros && window.isMax
    let (input, around) = (part.input, window.around)
    let isInside = window.isInside(input, part.output)
    let (isMax, counts) = (window.isMax, window.countsPadding)
    let row = Self.product("p", window.stride.height) + " + i"
    let column = Self.product("q", window.stride.width) + " + j"
    let sizes = [("i", window.size.height), ("j", window.size.width)]
    // A statement for each value in the window: of one channel, or with their loop of all.
    func each(_ channels: [(String, Int)], _ statement: (_ value: String) -> String) -> String {
      if isInside {
        return Self.loops(sizes + channels, statement("\(x.name)[\(row)][\(column)][c]"))
      }
      let (top, left) = (
        row + (around.top > 0 ? " - \(around.top)" : ""),
        column + (around.left > 0 ? " - \(around.left)" : "")
      )
      let (bottom, right) = (input.height + around.bottom, input.width + around.right)
      return Self.loops(
        sizes,
        """
        {
          int row = \(top), column = \(left);
        \(!isMax && counts ? "  count += row < \(bottom) && column < \(right);\n" : "")\
          if (row < 0 || row >= \(input.height) || column < 0 || column >= \(input.width))
            continue; /* outside of the image */
        \(!isMax && !counts ? "  count++;\n" : "")\
        \(Self.indented(Self.loops(channels, statement("\(x.name)[row][column][c]"))))
        }
        """)
    }
    if isMax {
      larger()
      let largest = each([("c", y.shape.channels)]) {
        "\(y.element) = larger(\(y.element), \($0));"
      }
      code(
        loops(
          y, pixels: true,
          """
          {
            for (int c = 0; c < \(y.shape.channels); c++)
              \(y.element) = -INFINITY;
          \(Self.indented(largest))
          }
          """))
    } else {
      code(
        loops(
          y,
          """
          {
            double sum = 0;
          \(isInside ? "" : "  int count = 0;\n")\
          \(Self.indented(each([]) { "sum += \($0);" }))
            \(y.element) = (float)(sum / \(isInside ? "\(window.size.height * window.size.width)" : "count"));
          }
          """))
    }
    return y
  }

  static let maxText = "the largest value of each window, or NaN if one is that"

  mutating func larger() {
    function(
      "larger",
      """
      static float larger(float a, float b) {
        float c = b > a ? b : a;
        return b != b ? b : c;
      }
      """)
  }

  private mutating func batchNorm(_ epsilon: Float, _ part: Part, _ x: Value) throws -> Value {
    comment([(part, Self.normText(epsilon))])
    let factors = RunningFactors(part.operation, epsilon: epsilon).all
    let scale = constant("scale\(part.name)", [factors.scale.count], factors.scale)
    let shift = constant("shift\(part.name)", [factors.shift.count], factors.shift)
    return try each(part, x, "\(x.element) * \(scale)[c] + \(shift)[c]")
  }

  static func normText(_ epsilon: Float) -> String {
    "with the mean and variance of training, "
      + "scale = weight / sqrt(variance + \(epsilon)), shift = bias - mean * scale"
  }

  private mutating func layerNorm(_ epsilon: Float, _ part: Part, _ x: Value) -> Value {
    comment([(part, "each pixel's channels with their own mean and variance")])
    let x = x.isFlat ? x : image(x)
    let names = weights(part)
    let y = inPlace(x, part.name)
    let channels = part.input.channels
    code(
      loops(
        y, pixels: true,
        """
        {
          double sum = 0, squares = 0;
          for (int c = 0; c < \(channels); c++)
            sum += \(x.element);
          float mean = (float)(sum / \(channels));
          for (int c = 0; c < \(channels); c++)
            squares += (\(x.element) - mean) * (\(x.element) - mean);
          float scale = (float)(1 / sqrt(squares / \(channels) + \(epsilon)));
          for (int c = 0; c < \(channels); c++)
            \(y.element) =
                (\(x.element) - mean) * scale * \(names[0])[c] + \(names[1])[c];
        }
        """))
    return y
  }

  // MARK: Other layers inside

  private mutating func sum(_ part: Part, _ x: Value) throws -> Value {
    comment([(part, "two ways from the same input, added up")])
    var body = try keeping(x) {
      try $0.layers(part.operation.body, x, prefix: "\(part.name)_body", number: part.number)
    }
    var shortcut = try keeping(body) {
      try $0.layers(
        part.operation.shortcut, x, prefix: "\(part.name)_shortcut", number: part.number)
    }
    next(reading: body, shortcut)
    code("\n/* \(part.title). Their sum. */")
    let isFlat = body.isFlat || shortcut.isFlat
    body = isFlat ? flat(body) : image(body)
    shortcut = isFlat ? flat(shortcut) : image(shortcut)
    var y = inPlace(body, part.name)
    y.hasZeros = false
    code(loops(y, "\(y.element) = \(body.element) + \(shortcut.element);"))
    return y
  }

  private mutating func own(_ layer: any CustomLayer, _ part: Part, _ x: Value) throws -> Value {
    guard let statements = layer.exports.c else { throw part.unknown }
    comment([(part, "a layer of its own")])
    let x = flat(x)
    let names = part.operation.parameters.enumerated().map {
      constant("own\(part.name)_\($0 + 1)", [$1.count], $1.values)
    }
    let isFlat = part.output.height == 1 && part.output.width == 1
    let y = buffer(part.name, part.output, isFlat: isFlat)
    code("{\n  float *y = \(y.array);\n\(Self.indented(statements(x.name, "y", names)))\n}")
    return y
  }

  // MARK: Activations

  /// An expression of each value of x, and the activation of that.
  private mutating func each(_ part: Part, _ x: Value, _ expression: String) throws -> Value {
    let x = x.isFlat ? x : image(x)
    var y = inPlace(x, part.name)
    y.hasZeros = false
    let value = try applied(part, to: expression)
    code(loops(y, "\(y.element) =\(value.utf8.count > 40 ? "\n   " : "") \(value);"))
    return y
  }

  /// In place.
  private mutating func softmax(_ y: Value) {
    function(
      "softmax",
      """
      /* Turns n values into probabilities, which add up to 1. */
      static void softmax(int n, float *x) {
        float largest = x[0];
        double sum = 0;
        for (int i = 1; i < n; i++)
          if (x[i] > largest)
            largest = x[i];
        for (int i = 0; i < n; i++)
          sum += x[i] = expf(x[i] - largest);
        for (int i = 0; i < n; i++)
          x[i] = (float)(x[i] / sum);
      }
      """)
    code("softmax(\(y.shape.count), \(y.array));")
  }

  /// A call of the activation, whose function is added; softmax, which isn't of one value, comes
  /// later.
  mutating func applied(_ part: Part, to x: String) throws -> String {
    let activation = part.activation
    let value: String
    switch activation.name {
    case _ where activation.isOwn: throw part.unknown
    case "none", "softmax": return x
    case "relu": value = "x < 0 ? 0 : x"
    case "leaky_relu":
      guard case .leakyReLU(let slope) = activation.kind else { fatalError() }
      function(
        activation.name,
        """
        static float leaky_relu(float x, float slope) {
          return x > 0 ? x : slope * x;
        }
        """)
      return "leaky_relu(\(x), \(slope)f)"
    case "elu": value = "x > 0 ? x : expm1f(x)"
    case "gelu": value = "0.5f * x * erfcf(-0.70710678f * x)"
    case "silu": value = "x / (1 + expf(-x))"
    case "sigmoid": value = "1 / (1 + expf(-x))"
    case "tanh": return "tanhf(\(x))"
    case "softplus": value = "(x > 0 ? x : 0) + log1pf(expf(-fabsf(x)))"
    default: throw part.unknown
    }
    function(
      activation.name,
      """
      static float \(activation.name)(float x) {
        return \(value);
      }
      """)
    return "\(activation.name)(\(x))"
  }
}
