import StrideNetCore

/// What each kind of operation is in C.
extension CProgram {
  /// An operation, and where in the network it is.
  private struct Part {
    let operation: Bound
    let stage: Stage
    /// What its arrays are called behind their kind: "2", or in a layer of several operations "2_1".
    let name: String
    /// The number of the layer that it is in, or inside of.
    let number: Int

    var title: String { name.replacing("_", with: ", ") }
    var input: Shape { operation.input }
    var output: Shape { operation.output }
    var unknown: StrideNetError { stage.unknown(operation, to: "C", number: number) }
  }

  /// - Parameter number: the place in the network of the layer that all of these are inside of
  mutating func layers(
    _ stages: [Stage], _ input: Value, prefix: String = "", number: Int? = nil
  ) throws -> Value {
    var value = input
    for (index, stage) in stages.enumerated() {
      for (place, operation) in stage.operations.enumerated() {
        let name = "\(prefix)\(index + 1)" + (stage.only == nil ? "_\(place + 1)" : "")
        let part = Part(
          operation: operation, stage: stage, name: name, number: number ?? index + 1)
        value = try self.operation(part, value)
      }
    }
    return value
  }

  private mutating func operation(_ part: Part, _ x: Value) throws -> Value {
    let y: Value
    switch part.operation.kind {
    case .convolve(let layer, let start): y = try convolution(layer, start, part, x)
    case .multiply: y = try dense(part, x)
    case .pool(let window): y = pooling(window, part, x)
    case .reshape:
      comment(part, "the same values in one row")
      return flat(x)
    case .drop:
      comment(part, "in training alone")
      return x
    case .activate:
      comment(part, "value by value")
      y = try each(part, x, x.element)
    case .normalizeBatch(_, let epsilon): y = try batchNorm(epsilon, part, x)
    case .normalizePixels(let epsilon): y = layerNorm(epsilon, part, x)
    case .add: y = try sum(part, x)
    case .own(let layer): y = try own(layer, part, x)
    }
    return part.operation.activation.isSoftmax ? softmax(y) : y
  }

  /// What stands above an operation's loops.
  private mutating func comment(_ part: Part, _ text: String) {
    let activation = part.operation.activation
    let end = activation.isNone ? "" : ", then \(activation.name)"
    let sizes = [part.input, part.output].map { "\($0)".replacing("×", with: "x") }
    let title = "/* \(part.title). \(part.stage.text): \(text)\(end)."
    code("\n\(Self.wrapped(title, indent: "   "))\n   \(sizes[0]) -> \(sizes[1]) */")
  }

  private mutating func weights(_ part: Part) {
    for (kind, parameter) in zip(["weight", "bias"], part.operation.parameters) {
      constant("\(kind)\(part.name)", parameter.shape, parameter.values)
    }
  }

  // MARK: Weighted sums

  private mutating func dense(_ part: Part, _ x: Value) throws -> Value {
    comment(part, "an output is the bias and all inputs, each times its weight")
    let x = flat(x)
    weights(part)
    let y = buffer(part.name, part.output, isFlat: true)
    code(
      """
      for (int o = 0; o < \(part.output.count); o++) {
        float sum = bias\(part.name)[o];
        for (int i = 0; i < \(part.input.count); i++)
          sum += \(x.name)[i] * weight\(part.name)[o][i];
        \(y.name)[o] = \(try applied(part, to: "sum"));
      }
      """)
    return y
  }

  private mutating func convolution(
    _ layer: Conv2D, _ start: (top: Int, left: Int), _ part: Part, _ x: Value
  ) throws -> Value {
    comment(
      part,
      "each of \(layer.filters) filters slides over the image; an output is the bias and "
        + "the window's values, each times its weight")
    let x = image(x)
    weights(part)
    let y = buffer(part.name, part.output, isFlat: false)
    code(
      Self.loops(
        [("p", part.output.height), ("q", part.output.width), ("f", layer.filters)],
        """
        {
          float sum = bias\(part.name)[f];
        \(indented(window(layer, start, part, x)))
          \(y.name)[p][q][f] = \(try applied(part, to: "sum"));
        }
        """))
    return y
  }

  /// The loops over a convolution's window.
  private func window(
    _ layer: Conv2D, _ start: (top: Int, left: Int), _ part: Part, _ x: Value
  ) -> String {
    let zeros = layer.zeros(part.input, part.output, start: start)
    func place(_ output: String, _ stride: Int, _ window: String, _ dilation: Int, _ zeros: Int)
      -> String
    {
      "\(product(output, stride)) + \(product(window, dilation))"
        + (zeros == 0 ? "" : " - \(zeros)")
    }
    let row = place("p", layer.stride.height, "i", layer.dilation.height, zeros.top)
    let column = place("q", layer.stride.width, "j", layer.dilation.width, zeros.left)
    let channels = part.input.channels / layer.groups
    let channel =
      layer.groups == 1
      ? "c" : "f / \(layer.filters / layer.groups) * \(channels) + c"  // those of f's group
    func sum(_ pixel: String) -> String {
      "sum += \(x.name)\(pixel)[\(channel)] * weight\(part.name)[i][j][c][f];"
    }
    if zeros == (0, 0, 0, 0) {
      return Self.loops(
        [("i", layer.size.height), ("j", layer.size.width), ("c", channels)],
        sum("[\(row)][\(column)]"))
    }
    return """
      for (int i = 0; i < \(layer.size.height); i++)
        for (int j = 0; j < \(layer.size.width); j++) {
          int row = \(row), column = \(column);
          if (row < 0 || row >= \(part.input.height) || column < 0 || column >= \(part.input.width))
            continue; /* outside of the image all is 0 */
          for (int c = 0; c < \(channels); c++)
            \(sum("[row][column]"))
        }
      """
  }

  // MARK: Pooling and normalisation

  private mutating func pooling(_ window: Pooling, _ part: Part, _ x: Value) -> Value {
    comment(
      part,
      window.isMax
        ? "the largest value of each window, or NaN if one is that" : "the mean of each window")
    let x = image(x)
    let y = buffer(part.name, part.output, isFlat: false)
    let element =
      "\(x.name)[\(product("p", window.stride.height)) + i][\(product("q", window.stride.width)) + j][c]"
    let count = window.size.height * window.size.width
    let loop = Self.loops(
      [("i", window.size.height), ("j", window.size.width)],
      window.isMax
        ? "{\n  float value = \(element);\n  if (value > result || value != value)\n    result = value;\n}"
        : "result += \(element);")
    code(
      loops(
        y,
        """
        {
          \(window.isMax ? "float result = -INFINITY" : "double result = 0");
        \(indented(loop))
          \(y.element) = \(window.isMax ? "result" : "(float)(result / \(count))");
        }
        """))
    return y
  }

  private mutating func batchNorm(_ epsilon: Float, _ part: Part, _ x: Value) throws -> Value {
    comment(
      part,
      "with the mean and variance of training, "
        + "scale = weight / sqrt(variance + \(epsilon)), shift = bias - mean * scale")
    let (scale, shift) = RunningFactors(part.operation, epsilon: epsilon).all
    constant("scale\(part.name)", [scale.count], scale)
    constant("shift\(part.name)", [shift.count], shift)
    return try each(part, x, "\(x.element) * scale\(part.name)[c] + shift\(part.name)[c]")
  }

  private mutating func layerNorm(_ epsilon: Float, _ part: Part, _ x: Value) -> Value {
    comment(part, "each pixel's channels with their own mean and variance")
    weights(part)
    let y = buffer(part.name, part.output, isFlat: x.isFlat)
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
            \(y.element) = (\(x.element) - mean) * scale * weight\(part.name)[c] + bias\(part.name)[c];
        }
        """))
    return y
  }

  // MARK: Other layers inside

  private mutating func sum(_ part: Part, _ x: Value) throws -> Value {
    comment(part, "two ways from the same input, added up")
    var sides = [
      try layers(part.operation.body, x, prefix: "\(part.name)_body", number: part.number),
      try layers(part.operation.shortcut, x, prefix: "\(part.name)_shortcut", number: part.number),
    ]
    code("\n/* \(part.title). Their sum. */")
    if sides.contains(where: \.isFlat) {
      // In two steps: each may add a line.
      for side in sides.indices { sides[side] = flat(sides[side]) }
    }
    let y = buffer(part.name, part.output, isFlat: sides[0].isFlat)
    code(loops(y, "\(y.element) = \(sides[0].element) + \(sides[1].element);"))
    return y
  }

  private mutating func own(_ layer: any CustomLayer, _ part: Part, _ x: Value) throws -> Value {
    guard let statements = layer.exports.c else { throw part.unknown }
    comment(part, "a layer of its own")
    let x = flat(x)
    let parameters = part.operation.parameters
    let names = parameters.indices.map { "own\(part.name)_\($0 + 1)" }
    for (name, parameter) in zip(names, parameters) {
      constant(name, [parameter.count], parameter.values)
    }
    let isFlat = part.output.height == 1 && part.output.width == 1
    let y = buffer(part.name, part.output, isFlat: isFlat)
    code(
      "{\n  float *y = \(isFlat ? "" : "(float *)")\(y.name);\n\(indented(statements(x.name, "y", names)))\n}"
    )
    return y
  }

  // MARK: Activations

  /// An expression of each value of x, and the activation of that.
  private mutating func each(_ part: Part, _ x: Value, _ expression: String) throws -> Value {
    let y = buffer(part.name, part.output, isFlat: x.isFlat)
    code(loops(y, "\(y.element) = \(try applied(part, to: expression));"))
    return y
  }

  /// In place.
  private mutating func softmax(_ y: Value) -> Value {
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
    code("softmax(\(y.shape.count), \(y.isFlat ? y.name : "(float *)\(y.name)"));")
    return y
  }

  /// A call of the activation, whose function is added; softmax, which isn't of one value, comes
  /// later.
  private mutating func applied(_ part: Part, to x: String) throws -> String {
    let activation = part.operation.activation
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
