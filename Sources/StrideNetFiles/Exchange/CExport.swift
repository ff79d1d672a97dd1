import StrideNetCore

extension Network {
  /// Writes the network as one file of C99 that needs nothing but `math.h`, and is C++ too:
  ///
  ///     void predict(const float image[784], float probabilities[10]);
  ///
  /// with the sizes of this network (`output` for `probabilities` where it doesn't end in softmax; of
  /// numbers that are predicted in their own units).
  /// Each layer is a few loops with a comment, which compilers make vector code of as they are; the
  /// weights are arrays behind them, in the order in which they are read, exact to the last bit but
  /// where a batch normalisation is multiplied into them. Outputs of layers take turns in static
  /// arrays: nothing is allocated, and one thread at a time may call it. Sums are taken in another
  /// order than here, so results differ by a few roundings. ``classNames``, where there are any, are in
  /// an array `classes`, those of numbers to predict in `names`.
  /// - Throws: ``StrideNetError`` naming a layer that has no C, such as one of one's own
  public func exportC(to path: String) throws {
    try CFile(self, path, name: nil, classes: nil).write(to: path)
  }

  /// Writes the network as ``exportC(to:)`` does, with names that begin with `name`, so that a
  /// program can have several networks; beside it a header, `path` with the ending `.h`:
  ///
  ///     void digits_predict(const float image[784], float probabilities[10]);
  ///     extern const char *const digits_classes[10];
  ///
  /// where the outputs are numbers to predict `digits_names`.
  /// - Parameters:
  ///   - name: letters, digits and underscores of ASCII, a letter first
  ///   - classes: what the outputs are called; ``classNames`` unless given
  /// - Throws: ``StrideNetError`` naming what is wrong; the header is written first, and each file
  ///   whole or not at all
  public func exportC(to path: String, name: String, classes: [String]? = nil) throws {
    let isIdentifier =
      name.utf8.first.map { Character(UnicodeScalar($0)).isLetter } == true
      && name.utf8.allSatisfy {
        let character = Character(UnicodeScalar($0))
        return character.isASCII && (character.isLetter || character.isNumber || character == "_")
      }
    guard isIdentifier else {
      throw StrideNetError(
        .usage, "not a name that C has", found: "'\(name)'",
        expected: "letters, digits and underscores, a letter first")
    }
    let header = Self.header(of: path)
    guard header != path else {
      throw StrideNetError(
        .usage, "the header would replace the C file", at: path, expected: "a name that ends in .c")
    }
    let file = try CFile(self, path, name: name, classes: classes)
    try AtomicFile.write(Array(file.header(for: path).utf8), to: header)
    try file.write(to: path)
  }

  /// Where the header of a C file goes: beside it, with another ending.
  package static func header(of path: String) -> String {
    let name = path.split(separator: "/", omittingEmptySubsequences: false).last ?? ""
    guard let dot = name.lastIndex(of: "."), dot != name.startIndex else { return path + ".h" }
    return path[..<dot] + ".h"
  }
}

/// The text of a network's C file and header.
private struct CFile {
  let program: CProgram
  let input, output: Shape
  let architecture: String
  let normalization: InputNormalization?
  let isClassifier: Bool
  /// What the array of the outputs' names is called, without the prefix.
  let list: String
  /// What functions and arrays are called that others see.
  let name: String?
  let classes: [String]?

  init(_ network: Network, _ path: String, name: String?, classes: [String]?) throws {
    let stages = try network.stages(for: path)
    (input, output) = (stages[0].input, stages.last!.output)
    isClassifier = stages.last!.operations.last!.activation.isSoftmax
    architecture = Architecture.text(network.layers)
    normalization = network.normalization
    list = network.predictsNumbers ? "names" : "classes"
    self.name = name
    self.classes =
      name == nil && network.classNames.isEmpty
      ? nil : classes ?? (0..<output.count).map(network.className)
    if let count = classes?.count, count != output.count {
      throw StrideNetError(
        .usage, "the classes don't fit the network", found: "\(count) names",
        expected: "\(output.count)")
    }
    program = try CProgram(
      stages, network.normalization, network.targetNormalization, prefix: name ?? "predict",
      result: isClassifier ? "probabilities" : "output")
  }

  func write(to path: String) throws {
    try AtomicFile.write(to: path) { file in
      try file.append(Array(text.utf8))
      for array in program.constants {
        try file.append(Array("\nconst float \(array.declaration) =\n".utf8))
        try file.append(array.initializer())
      }
    }
  }

  // MARK: What others see

  private var prefix: String { name.map { "\($0)_" } ?? "" }
  private var signature: String {
    "void \(prefix)predict("
      + "const float image[\(input.count)], float \(program.result)[\(output.count)])"
  }

  private var classesDeclaration: String? {
    classes.map { _ in "const char *const \(prefix)\(list)[\(output.count)]" }
  }

  /// Declarations that C++ takes for those of C.
  private func declared(_ weights: String = "") -> String {
    """
    #ifdef __cplusplus
    extern "C" {
    #endif

    \(signature);
    \(classesDeclaration.map { "extern \($0);\n" } ?? "")\(weights)
    #ifdef __cplusplus
    }
    #endif
    """
  }

  func header(for path: String) -> String {
    let guardName = "\(name!)_H"
    return """
      /* A trained network, as StrideNet wrote it:

           \(CProgram.wrapped(architecture, indent: "     "))

         \(name!)_predict takes an image and writes \(program.result):

      \(sizes)

         \(name!)_\(list) has the \(list == "names" ? "outputs'" : "classes'") names. One thread at a time may call it. */

      #ifndef \(guardName)
      #define \(guardName)

      \(declared())

      #endif

      """
  }

  private var sizes: String {
    """
         image          \(input.height) rows of \(input.width) pixels of \(input.channels) \
    value\(input.channels == 1 ? "" : "s") each, bytes divided by 255\(normalizationText)
         \(program.result.padding(13))  \
    \(isClassifier ? "of the classes 0 to \(output.count - 1)\(classes == nil ? "" : ", named in \(prefix)\(list)")" : "\(output) value\(output.count == 1 ? "" : "s")")\(outputNames)
    """
  }

  /// Of numbers that are predicted, what they are called.
  private var outputNames: String {
    guard list == "names", let classes else { return "" }
    let indent = String(repeating: " ", count: 20)
    let text = CProgram.wrapped(
      "(\(classes.joined(separator: ", ")))".replacing("*/", with: "* /"), indent: indent)
    return "\n\(indent)\(text)"
  }

  private var normalizationText: String {
    guard let normalization else { return "" }
    func list(_ values: [Double]) -> String {
      values.map { "\(Float($0))" }.joined(separator: ", ")
    }
    return "\n" + String(repeating: " ", count: 20)
      + CProgram.wrapped(
        "(predict itself subtracts the mean, \(list(normalization.mean)), and divides by the "
          + "deviation, \(list(normalization.deviation)))",
        indent: String(repeating: " ", count: 20))
  }

  // MARK: The file

  private var text: String {
    let weights = program.constants.map { "extern const float \($0.declaration);\n" }.joined()
    return """
      /* A trained network, as StrideNet wrote it:

           \(CProgram.wrapped(architecture, indent: "     "))

      \(sizes)

         Compile it with: cc -std=c99 -O2 -c FILE.c, and link with -lm. It has \
      \(Self.bytes(program.weightBytes)) of weights
         and \(Self.bytes(program.memoryBytes)) of static arrays that layers leave their outputs in, \
      so nothing is
         allocated and one thread at a time may call predict.

         How it is written: a weighted sum is taken for up to 32 filters or outputs at once, in a
         local array of rows of 4. The innermost loops have 4 turns, one instruction on 4 numbers
         where the processor has that, and a compiler that sees the sizes keeps the array in
         registers. Weights lie in the order in which they are read. Where relu has left many zeros,
         the other values are listed first, and products with 0 needn't be taken; where a part of
         the image is 0, a sum is its bias. */

      #if defined(__GNUC__) && !defined(__clang__)
      #pragma GCC optimize("O2") /* -O3 takes loops of 4 turns apart, and is slow then */
      #endif

      #include <math.h>

      \(declared(weights.isEmpty ? "" : "\n/* The weights; their values are at the end of this file. */\n" + weights))

      \(names)\(program.memory)\(program.functions.map { $0.text + "\n\n" }.joined())\(signature) {
      \(program.body)
      }

      """
  }

  private var names: String {
    guard let classes, let classesDeclaration else { return "" }
    var text = "\(classesDeclaration) = {"
    var column = 100
    for (index, name) in classes.enumerated() {
      let literal = Self.literal(name) + (index < classes.count - 1 ? "," : "")
      column += literal.utf8.count + 1
      if column > 98 {
        text += "\n "
        column = literal.utf8.count + 2
      }
      text += " " + literal
    }
    return text + "\n};\n\n"
  }

  /// A text as C has it; of characters that it can't hold, their numbers.
  private static func literal(_ text: String) -> String {
    let characters = text.utf8.map { byte -> String in
      switch byte {
      case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "?"):
        "\\\(Character(UnicodeScalar(byte)))"
      case 0x20...0x7e: String(UnicodeScalar(byte))
      default: "\\" + String(Int(byte) + 0o1000, radix: 8).dropFirst()
      }
    }
    return "\"\(characters.joined())\""
  }

  private static func bytes(_ count: Int) -> String {
    count < 10_000 ? "\(count) bytes" : "\((count + 500) / 1000) kB"
  }
}

extension String {
  /// With spaces behind, up to a width.
  fileprivate func padding(_ width: Int) -> String {
    self + String(repeating: " ", count: max(0, width - count))
  }
}
