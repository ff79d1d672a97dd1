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
struct CProgram {
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
    let last = try layers(stages, image)
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
  mutating func code(_ text: String) {
    for part in text.split(separator: "\n", omittingEmptySubsequences: false) {
      line(part.isEmpty ? "" : "  \(part)")
    }
  }

  mutating func constant(_ name: String, _ sizes: [Int], _ values: [Float]) {
    constants.append(Constant(name: name, sizes: sizes, values: values))
  }

  mutating func buffer(_ name: String, _ shape: Shape, isFlat: Bool) -> Value {
    let value = Value(name: "x" + name, shape: shape, isFlat: isFlat)
    buffers.append(value)
    return value
  }

  mutating func function(_ name: String, _ text: String) {
    if !functions.contains(where: { $0.name == name }) { functions.append((name, text)) }
  }

  private func row(_ shape: Shape) -> String { "[\(shape.width)][\(shape.channels)]" }

  /// The same memory as one row of values.
  mutating func flat(_ value: Value) -> Value {
    if value.isFlat { return value }
    let name = "\(value.name)_flat"
    if views.insert(name).inserted {
      code("const float *\(name) = (const float *)\(value.name);")
    }
    return Value(name: name, shape: Shape(value.shape.count), isFlat: true)
  }

  /// The same memory as rows of pixels of channels.
  mutating func image(_ value: Value) -> Value {
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
  func loops(_ value: Value, pixels: Bool = false, _ body: String) -> String {
    let channels = pixels ? [] : [("c", value.shape.channels)]
    let all =
      (value.isFlat ? [] : [("p", value.shape.height), ("q", value.shape.width)]) + channels
    return Self.loops(all, body)
  }

  static func loops(_ all: [(name: String, count: Int)], _ body: String) -> String {
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
  static func wrapped(_ text: String, indent: String) -> String {
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

  func product(_ index: String, _ factor: Int) -> String {
    factor == 1 ? index : "\(index) * \(factor)"
  }

  func indented(_ text: String) -> String {
    text.split(separator: "\n", omittingEmptySubsequences: false).map { "  \($0)" }
      .joined(separator: "\n")
  }
}

extension String {
  /// With spaces behind, up to a width.
  fileprivate func padding(_ width: Int) -> String {
    self + String(repeating: " ", count: max(0, width - count))
  }
}
