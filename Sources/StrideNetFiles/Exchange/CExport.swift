import StrideNetCore

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
    let isClassifier = stages.last!.operations.last!.activation.isSoftmax
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
      for (place, operation) in stage.operations.enumerated() {
        let name = "\(prefix)\(index + 1)" + (stage.only == nil ? "_\(place + 1)" : "")
        value = try self.operation(operation, stage, value, name, number: number ?? index + 1)
      }
    }
    return value
  }

  /// What stands above a layer's loops.
  private func comment(_ operation: Bound, _ stage: Stage, _ name: String, _ text: String)
    -> String
  {
    let end = operation.activation.isNone ? "" : ", then \(operation.activation.name)"
    let sizes = [operation.input, operation.output].map { "\($0)".replacing("×", with: "x") }
    let title = "/* \(name.replacing("_", with: ", ")). \(stage.text): \(text)\(end)."
    return "\n\(Self.wrapped(title, indent: "   "))\n   \(sizes[0]) -> \(sizes[1]) */"
  }

  private mutating func operation(
    _ operation: Bound, _ stage: Stage, _ x: Value, _ name: String, number: Int
  ) throws -> Value {
    let y: Value
    switch operation.kind {
    case .convolve(let layer, let start):
      code(
        comment(
          operation, stage, name,
          "each of \(layer.filters) filters slides over the image; an output is the bias and "
            + "the window's values, each times its weight"))
      y = try convolution(layer, start, operation, stage, image(x), name, number)
    case .multiply: y = try dense(operation, stage, x, name, number)
    case .pool(let window): y = pooling(window, operation, stage, x, name)
    case .reshape:
      code(comment(operation, stage, name, "the same values in one row"))
      return flat(x)
    case .drop:
      code(comment(operation, stage, name, "in training alone"))
      return x
    case .activate:
      code(comment(operation, stage, name, "value by value"))
      y = buffer(name, operation.output, isFlat: x.isFlat)
      code(loops(y, "\(y.element) = \(try applied(operation, to: x.element, stage, number));"))
    case .normalizeBatch(_, let epsilon):
      code(
        comment(
          operation, stage, name,
          "with the mean and variance of training, "
            + "scale = weight / sqrt(variance + \(epsilon)), shift = bias - mean * scale"))
      let (scale, shift) = RunningFactors(operation, epsilon: epsilon).all
      constant("scale\(name)", [scale.count], scale)
      constant("shift\(name)", [shift.count], shift)
      y = buffer(name, operation.output, isFlat: x.isFlat)
      let normal = "\(x.element) * scale\(name)[c] + shift\(name)[c]"
      code(loops(y, "\(y.element) = \(try applied(operation, to: normal, stage, number));"))
    case .normalizePixels(let epsilon): y = layerNorm(epsilon, operation, stage, x, name)
    case .add: y = try sum(operation, stage, x, name, number)
    case .own(let layer): y = try own(layer, operation, stage, x, name, number)
    }
    return operation.activation.isSoftmax ? softmax(y) : y
  }

  private mutating func weights(_ operation: Bound, _ name: String) {
    for (kind, parameter) in zip(["weight", "bias"], operation.parameters) {
      constant("\(kind)\(name)", parameter.shape, parameter.values)
    }
  }

  private mutating func dense(
    _ operation: Bound, _ stage: Stage, _ x: Value, _ name: String, _ number: Int
  ) throws -> Value {
    code(
      comment(operation, stage, name, "an output is the bias and all inputs, each times its weight")
    )
    let x = flat(x)
    weights(operation, name)
    let y = buffer(name, operation.output, isFlat: true)
    code(
      """
      for (int o = 0; o < \(operation.output.count); o++) {
        float sum = bias\(name)[o];
        for (int i = 0; i < \(operation.input.count); i++)
          sum += \(x.name)[i] * weight\(name)[o][i];
        \(y.name)[o] = \(try applied(operation, to: "sum", stage, number));
      }
      """)
    return y
  }

  private mutating func pooling(
    _ window: Pooling, _ operation: Bound, _ stage: Stage, _ x: Value, _ name: String
  ) -> Value {
    code(
      comment(
        operation, stage, name,
        window.isMax
          ? "the largest value of each window, or NaN if one is that" : "the mean of each window"))
    let x = image(x)
    let y = buffer(name, operation.output, isFlat: false)
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

  private mutating func layerNorm(
    _ epsilon: Float, _ operation: Bound, _ stage: Stage, _ x: Value, _ name: String
  ) -> Value {
    code(
      comment(operation, stage, name, "each pixel's channels with their own mean and variance"))
    weights(operation, name)
    let y = buffer(name, operation.output, isFlat: x.isFlat)
    let channels = operation.input.channels
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
            \(y.element) = (\(x.element) - mean) * scale * weight\(name)[c] + bias\(name)[c];
        }
        """))
    return y
  }

  private mutating func sum(
    _ operation: Bound, _ stage: Stage, _ x: Value, _ name: String, _ number: Int
  ) throws -> Value {
    code(comment(operation, stage, name, "two ways from the same input, added up"))
    var sides = [
      try layers(operation.body, x, prefix: "\(name)_body", number: number),
      try layers(operation.shortcut, x, prefix: "\(name)_shortcut", number: number),
    ]
    code("\n/* \(name.replacing("_", with: ", ")). Their sum. */")
    if sides.contains(where: \.isFlat) {
      // In two steps: each may add a line.
      for side in sides.indices { sides[side] = flat(sides[side]) }
    }
    let y = buffer(name, operation.output, isFlat: sides[0].isFlat)
    code(loops(y, "\(y.element) = \(sides[0].element) + \(sides[1].element);"))
    return y
  }

  private mutating func own(
    _ layer: any CustomLayer, _ operation: Bound, _ stage: Stage, _ x: Value, _ name: String,
    _ number: Int
  ) throws -> Value {
    guard let statements = layer.exports.c else {
      throw stage.unknown(operation, to: "C", number: number)
    }
    code(comment(operation, stage, name, "a layer of its own"))
    let x = flat(x)
    let names = operation.parameters.indices.map { "own\(name)_\($0 + 1)" }
    for (name, parameter) in zip(names, operation.parameters) {
      constant(name, [parameter.count], parameter.values)
    }
    let isFlat = operation.output.height == 1 && operation.output.width == 1
    let y = buffer(name, operation.output, isFlat: isFlat)
    code(
      "{\n  float *y = \(isFlat ? "" : "(float *)")\(y.name);\n\(indented(statements(x.name, "y", names)))\n}"
    )
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

  private mutating func convolution(
    _ layer: Conv2D, _ start: (top: Int, left: Int), _ operation: Bound, _ stage: Stage, _ x: Value,
    _ name: String, _ number: Int
  ) throws -> Value {
    weights(operation, name)
    let y = buffer(name, operation.output, isFlat: false)
    let zeros = layer.zeros(operation.input, operation.output, start: start)
    func place(_ output: String, _ stride: Int, _ window: String, _ dilation: Int, _ zeros: Int)
      -> String
    {
      "\(product(output, stride)) + \(product(window, dilation))"
        + (zeros == 0 ? "" : " - \(zeros)")
    }
    let row = place("p", layer.stride.height, "i", layer.dilation.height, zeros.top)
    let column = place("q", layer.stride.width, "j", layer.dilation.width, zeros.left)
    let channels = operation.input.channels / layer.groups
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
            if (row < 0 || row >= \(operation.input.height) || column < 0 || column >= \(operation.input.width))
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
        [("p", operation.output.height), ("q", operation.output.width), ("f", layer.filters)],
        """
        {
          float sum = bias\(name)[f];
        \(indented(window))
          \(y.name)[p][q][f] = \(try applied(operation, to: "sum", stage, number));
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
    _ operation: Bound, to x: String, _ stage: Stage, _ number: Int
  ) throws -> String {
    let activation = operation.activation
    let value: String
    switch activation.name {
    case _ where activation.isOwn: throw stage.unknown(operation, to: "C", number: number)
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
    default: throw stage.unknown(operation, to: "C", number: number)
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
