extension Network {
  /// Writes the network as one file of C99 that needs nothing but `math.h`:
  ///
  ///     void predict(const float image[784], float probabilities[10]);
  ///
  /// with the sizes of this network (`output` for `probabilities` where it doesn't end in softmax).
  /// Each layer is a few plain loops with a comment, and the weights, exact to the last bit, are
  /// arrays behind them. Outputs of layers are static arrays: nothing is allocated, and one thread
  /// at a time may call it. Sums are taken in another order than here, so results differ by a few
  /// roundings.
  /// - Throws: ``StrideNetError`` naming a layer that has no C, such as one of one's own
  public func exportC(to path: String) throws {
    var program = CProgram()
    let text = try program.text(try stages(for: path), Architecture.text(layers))
    try AtomicFile.write(to: path) { file in
      try file.append(Array(text.utf8))
      for array in program.constants {
        try file.append(Array("\nstatic const float \(array.declaration) =\n".utf8))
        try file.append(array.initializer())
      }
    }
  }
}

/// A C program in the making. Indices have the names of the formulas: p and q for output rows and
/// columns, i and j for those of a window, c for channels, f for filters.
private struct CProgram {
  struct Constant {
    let name: String
    let sizes: [Int]
    let values: [Float]

    var declaration: String { name + sizes.map { "[\($0)]" }.joined() }

    /// The numbers, in as many braces as there are sizes, in lines of at most 100 characters. The
    /// shortest decimal that reads back as the same float is what Swift prints.
    func initializer() -> [UInt8] {
      var out: [UInt8] = []
      var column = 0
      func add(_ text: String) {
        if column + text.utf8.count > 99 {
          out.append(UInt8(ascii: "\n"))
          column = 0
        }
        out += text.utf8
        column += text.utf8.count
      }
      func fill(_ level: Int, _ range: Range<Int>) {
        guard level < sizes.count else { return add("\(values[range.lowerBound])f") }
        add("{")
        let step = range.count / sizes[level]
        for start in stride(from: range.lowerBound, to: range.upperBound, by: step) {
          if start > range.lowerBound { add(",") }
          fill(level + 1, start..<start + step)
        }
        add("}")
      }
      fill(0, 0..<values.count)
      out += ";\n".utf8
      return out
    }
  }

  /// A layer's output: an array [rows][columns][channels], or [values] where it is flat.
  struct Value {
    let name: String
    let shape: Shape
    let isFlat: Bool
    var sizes: [Int] { isFlat ? [shape.count] : [shape.height, shape.width, shape.channels] }
    var declaration: String { name + sizes.map { "[\($0)]" }.joined() }
    /// One of its values.
    var element: String { name + (isFlat ? "[c]" : "[p][q][c]") }
  }

  private(set) var constants: [Constant] = []
  private var buffers: [Value] = []
  private var functions: [(name: String, text: String)] = []
  private var lines: [String] = []
  private var views: Set<String> = []

  mutating func text(_ stages: [Stage], _ architecture: String) throws -> String {
    let (input, output) = (stages[0].input, stages.last!.output)
    let isClassifier = stages.last!.layer.finalActivation.isSoftmax
    let result = isClassifier ? "probabilities" : "output"
    let image = Value(name: "x0", shape: input, isFlat: input.height == 1 && input.width == 1)
    line("  /* x0 is the image as an array of rows of pixels of channels. */")
    line(
      image.isFlat
        ? "  const float *x0 = image;"
        : "  const float (*x0)\(row(input)) = (const float (*)\(row(input)))image;")
    let last = try layers(stages, image, prefix: "", number: nil)
    line("")
    line("  /* The result. */")
    line("  const float *last = \(last.isFlat ? last.name : "(const float *)\(last.name)");")
    line("  for (int i = 0; i < \(output.count); i++)")
    line("    \(result)[i] = last[i];")

    let signature =
      "void predict(const float image[\(input.count)], float \(result)[\(output.count)])"
    let weights = constants.map { "static const float \($0.declaration);\n" }.joined()
    return """
      /* A trained network, as StrideNet wrote it:

           \(Self.wrapped(architecture, indent: "     "))

         image          \(input.height) rows of \(input.width) pixels of \(input.channels) \
      value\(input.channels == 1 ? "" : "s") each, bytes divided by 255
         \(result.padding(13))  \(isClassifier ? "of the classes 0 to \(output.count - 1)" : "\(output) values")

         Compile it with: cc -std=c99 -O2 -c FILE.c, and link with -lm. Layers leave their outputs in
         static arrays, so nothing is allocated and one thread at a time may call predict. */

      #include <math.h>

      \(signature);

      /* \(weights.isEmpty ? "There are no weights." : "The weights; their values are at the end of this file.") */
      \(weights)
      /* The outputs of layers. */
      \(buffers.map { "static float \($0.declaration);\n" }.joined())
      \(functions.map { $0.text + "\n\n" }.joined())\(signature) {
      \(lines.joined(separator: "\n"))
      }

      """
  }

  private mutating func line(_ text: String) { lines.append(text) }

  /// Emits a C statement or several; the first layer's are indented as the rest of the function.
  private mutating func code(_ text: String) {
    for part in text.split(separator: "\n", omittingEmptySubsequences: false) {
      line(part.isEmpty ? "" : "  \(part)")
    }
  }

  private mutating func constant(_ name: String, _ sizes: [Int], _ values: [Float]) {
    constants.append(Constant(name: name, sizes: sizes, values: values))
  }

  private mutating func buffer(_ name: String, _ shape: Shape, isFlat: Bool) -> Value {
    let value = Value(name: "x" + name, shape: shape, isFlat: isFlat)
    buffers.append(value)
    return value
  }

  private mutating func function(_ name: String, _ text: String) {
    if !functions.contains(where: { $0.name == name }) { functions.append((name, text)) }
  }

  private func row(_ shape: Shape) -> String { "[\(shape.width)][\(shape.channels)]" }

  /// The same memory as one row of values.
  private mutating func flat(_ value: Value) -> Value {
    if value.isFlat { return value }
    let name = "\(value.name)_flat"
    if views.insert(name).inserted {
      code("const float *\(name) = (const float *)\(value.name);")
    }
    return Value(name: name, shape: Shape(value.shape.count), isFlat: true)
  }

  /// The same memory as rows of pixels of channels.
  private mutating func image(_ value: Value) -> Value {
    if !value.isFlat { return value }
    let name = "\(value.name)_image"
    if views.insert(name).inserted {
      code(
        "const float (*\(name))\(row(value.shape)) = "
          + "(const float (*)\(row(value.shape)))\(value.name);")
    }
    return Value(name: name, shape: value.shape, isFlat: false)
  }

  /// `body` for every value, or with `pixels` for every pixel.
  private func loops(_ value: Value, pixels: Bool = false, _ body: String) -> String {
    let channels = pixels ? [] : [("c", value.shape.channels)]
    let all =
      (value.isFlat ? [] : [("p", value.shape.height), ("q", value.shape.width)]) + channels
    return Self.loops(all, body)
  }

  private static func loops(_ all: [(name: String, count: Int)], _ body: String) -> String {
    var result = ""
    for (depth, index) in all.enumerated() {
      let space = String(repeating: "  ", count: depth)
      result +=
        "\(space)for (int \(index.name) = 0; \(index.name) < \(index.count); \(index.name)++)\n"
    }
    let isBlock = body.hasPrefix("{\n")
    if isBlock { result = result.dropLast() + " " }
    let space = String(repeating: "  ", count: isBlock ? max(0, all.count - 1) : all.count)
    let lines = body.split(separator: "\n", omittingEmptySubsequences: false).enumerated()
    return result
      + lines.map { $0 == 0 && isBlock ? "\($1)" : "\(space)\($1)" }.joined(separator: "\n")
  }

  /// Broken into lines of at most 96 characters, those after the first indented.
  private static func wrapped(_ text: String, indent: String) -> String {
    var (lines, line) = ([String](), "")
    for word in text.split(separator: " ") {
      if !line.isEmpty && line.count + 1 + word.count > 96 - indent.count {
        lines.append(line)
        line = ""
      }
      line += (line.isEmpty ? "" : " ") + word
    }
    return (lines + [line]).joined(separator: "\n\(indent)")
  }

  /// - Parameter number: the place in the network of the layer that all of these are inside of
  private mutating func layers(
    _ stages: [Stage], _ input: Value, prefix: String, number: Int?
  ) throws -> Value {
    var value = input
    for (index, stage) in stages.enumerated() {
      value = try layer(stage, value, "\(prefix)\(index + 1)", number: number ?? index + 1)
    }
    return value
  }

  private mutating func layer(_ stage: Stage, _ x: Value, _ name: String, number: Int) throws
    -> Value
  {
    let activation = stage.layer.finalActivation
    func comment(_ text: String) -> String {
      let end = activation.isNone ? "" : ", then \(activation.name)"
      let sizes = [stage.input, stage.output].map { "\($0)".replacing("×", with: "x") }
      let title = "/* \(name.replacing("_", with: ", ")). \(stage.layer.text): \(text)\(end)."
      return "\n\(Self.wrapped(title, indent: "   "))\n   \(sizes[0]) -> \(sizes[1]) */"
    }
    var y: Value
    switch stage.layer {
    case let layer as Conv2D:
      code(
        comment(
          "each of \(layer.filters) filters slides over the image; an output is the bias and "
            + "the window's values, each times its weight"))
      y = try convolution(layer, stage, image(x), name, number)
    case let layer as Dense:
      code(comment("an output is the bias and all inputs, each times its weight"))
      let x = flat(x)
      constant("weight\(name)", layer.weight.shape, layer.weight.values)
      constant("bias\(name)", layer.bias.shape, layer.bias.values)
      y = buffer(name, stage.output, isFlat: true)
      code(
        """
        for (int o = 0; o < \(stage.output.count); o++) {
          float sum = bias\(name)[o];
          for (int i = 0; i < \(stage.input.count); i++)
            sum += \(x.name)[i] * weight\(name)[o][i];
          \(y.name)[o] = \(try applied(activation, to: "sum", stage, number));
        }
        """)
    case let layer as Pool2D:
      let isMax = layer is MaxPool2D
      code(
        comment(
          isMax
            ? "the largest value of each window, or NaN if one is that"
            : "the mean of each window"))
      let x = image(x)
      y = buffer(name, stage.output, isFlat: false)
      let element =
        "\(x.name)[\(product("p", layer.stride.height)) + i][\(product("q", layer.stride.width)) + j][c]"
      let count = layer.size.height * layer.size.width
      let window = Self.loops(
        [("i", layer.size.height), ("j", layer.size.width)],
        isMax
          ? "{\n  float value = \(element);\n  if (value > result || value != value)\n    result = value;\n}"
          : "result += \(element);")
      code(
        loops(
          y,
          """
          {
            \(isMax ? "float result = -INFINITY" : "double result = 0");
          \(indented(window))
            \(y.element) = \(isMax ? "result" : "(float)(result / \(count))");
          }
          """))
    case is Flatten:
      code(comment("the same values in one row"))
      return flat(x)
    case is Dropout:
      code(comment("in training alone"))
      return x
    case is Activate:
      code(comment("value by value"))
      y = buffer(name, stage.output, isFlat: x.isFlat)
      code(loops(y, "\(y.element) = \(try applied(activation, to: x.element, stage, number));"))
    case let layer as BatchNorm:
      code(
        comment(
          "with the mean and variance of training, "
            + "scale = weight / sqrt(variance + \(layer.epsilon)), shift = bias - mean * scale"))
      let (scale, shift) = layer.inferenceScaleAndShift
      constant("scale\(name)", [scale.count], scale)
      constant("shift\(name)", [shift.count], shift)
      y = buffer(name, stage.output, isFlat: x.isFlat)
      let normal = "\(x.element) * scale\(name)[c] + shift\(name)[c]"
      code(loops(y, "\(y.element) = \(try applied(activation, to: normal, stage, number));"))
    case let layer as LayerNorm:
      code(comment("each pixel's channels with their own mean and variance"))
      constant("weight\(name)", layer.weight.shape, layer.weight.values)
      constant("bias\(name)", layer.bias.shape, layer.bias.values)
      y = buffer(name, stage.output, isFlat: x.isFlat)
      let channels = stage.input.channels
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
            float scale = (float)(1 / sqrt(squares / \(channels) + \(layer.epsilon)));
            for (int c = 0; c < \(channels); c++)
              \(y.element) = (\(x.element) - mean) * scale * weight\(name)[c] + bias\(name)[c];
          }
          """))
    case let layer as Residual:
      code(comment("two ways from the same input, added up"))
      let inner = layer.stages(stage.input)
      var sides = [
        try layers(inner.body, x, prefix: "\(name)_body", number: number),
        try layers(inner.shortcut, x, prefix: "\(name)_shortcut", number: number),
      ]
      code("\n/* \(name.replacing("_", with: ", ")). Their sum. */")
      if sides.contains(where: \.isFlat) {
        // In two steps: each may add a line.
        for side in sides.indices { sides[side] = flat(sides[side]) }
      }
      y = buffer(name, stage.output, isFlat: sides[0].isFlat)
      code(loops(y, "\(y.element) = \(sides[0].element) + \(sides[1].element);"))
    default: throw stage.unknown(to: "C", number: number)
    }
    guard activation.isSoftmax else { return y }
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

  private mutating func convolution(
    _ layer: Conv2D, _ stage: Stage, _ x: Value, _ name: String, _ number: Int
  ) throws -> Value {
    constant("weight\(name)", layer.weight.shape, layer.weight.values)
    constant("bias\(name)", layer.bias.shape, layer.bias.values)
    let y = buffer(name, stage.output, isFlat: false)
    let zeros = layer.zeros(stage.input, stage.output)
    func place(_ output: String, _ stride: Int, _ window: String, _ dilation: Int, _ zeros: Int)
      -> String
    {
      "\(product(output, stride)) + \(product(window, dilation))"
        + (zeros == 0 ? "" : " - \(zeros)")
    }
    let row = place("p", layer.stride.height, "i", layer.dilation.height, zeros.top)
    let column = place("q", layer.stride.width, "j", layer.dilation.width, zeros.left)
    let channels = stage.input.channels / layer.groups
    let channel =
      layer.groups == 1
      ? "c" : "f / \(layer.filters / layer.groups) * \(channels) + c"  // those of f's group
    let isPadded = zeros != (0, 0, 0, 0)
    let element = isPadded ? "[row][column]" : "[\(row)][\(column)]"
    let sum =
      "sum += \(x.name)\(element)[\(channel)] * weight\(name)[i][j][c][f];"
    let window: String
    if isPadded {
      window = """
        for (int i = 0; i < \(layer.size.height); i++)
          for (int j = 0; j < \(layer.size.width); j++) {
            int row = \(row), column = \(column);
            if (row < 0 || row >= \(stage.input.height) || column < 0 || column >= \(stage.input.width))
              continue; /* outside of the image all is 0 */
            for (int c = 0; c < \(channels); c++)
              \(sum)
          }
        """
    } else {
      window = Self.loops(
        [("i", layer.size.height), ("j", layer.size.width), ("c", channels)], sum)
    }
    code(
      Self.loops(
        [("p", stage.output.height), ("q", stage.output.width), ("f", layer.filters)],
        """
        {
          float sum = bias\(name)[f];
        \(indented(window))
          \(y.name)[p][q][f] = \(try applied(layer.finalActivation, to: "sum", stage, number));
        }
        """))
    return y
  }

  private func product(_ index: String, _ factor: Int) -> String {
    factor == 1 ? index : "\(index) * \(factor)"
  }

  private func indented(_ text: String) -> String {
    text.split(separator: "\n", omittingEmptySubsequences: false).map { "  \($0)" }
      .joined(separator: "\n")
  }

  /// A call of the activation, whose function is added; softmax, which isn't of one value, comes
  /// later.
  private mutating func applied(
    _ activation: Activation, to x: String, _ stage: Stage, _ number: Int
  ) throws -> String {
    let value: String
    switch activation.name {
    case _ where activation.isOwn: throw stage.unknown(to: "C", number: number)
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
    default: throw stage.unknown(to: "C", number: number)
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

extension String {
  /// With spaces behind, up to a width.
  fileprivate func padding(_ width: Int) -> String {
    self + String(repeating: " ", count: max(0, width - count))
  }
}
