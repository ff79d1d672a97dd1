/// Makes layers of the text that ``Architecture`` describes.
struct LayerParser {
  let text: [Character]
  // What errors call the text.
  let source: String
  private var at = 0
  // Of residual connections.
  private var depth = 0

  init(text: [Character], source: String) {
    (self.text, self.source) = (text, source)
  }

  private struct Value {
    let text: String
    let position: Int
  }

  /// What stands in a layer's brackets.
  private struct Arguments {
    let layer: String
    /// Of the layer.
    let position: Int
    var values: [String: Value] = [:]
  }

  // MARK: Layers

  mutating func layers() throws -> [any Layer] {
    let result = try layers(until: "")
    guard !result.isEmpty else {
      throw error(
        "no layers", at: 0, found: "an empty text", expected: Architecture.presets[0].text)
    }
    return result
  }

  private mutating func layers(until end: String) throws -> [any Layer] {
    var result: [any Layer] = []
    skipSpace()
    while at < text.count, !end.contains(text[at]) {
      result.append(try layer())
      skipSpace()
    }
    return result
  }

  /// `(layers)` or `(layers | layers)`.
  private mutating func residual(_ place: Int) throws -> Residual {
    depth += 1
    defer { depth -= 1 }
    guard depth <= 100 else {
      throw error("residual connections nested too deeply", at: place, found: "more than 100")
    }
    func empty(_ place: Int, found: String) -> StrideNetError {
      error(
        "a residual connection without layers", at: place, found: found,
        expected: "residual(conv(32,3,padding=1,activation=none))")
    }
    let opening = at
    guard take("(") else { throw empty(place, found: found("", at)) }
    let body = try layers(until: "|)")
    var shortcut: [any Layer] = []
    let bar = at
    if take("|") {
      shortcut = try layers(until: ")")
      if shortcut.isEmpty {
        throw error(
          "a shortcut without layers", at: bar, found: "'|'", expected: "layers behind it")
      }
    }
    guard take(")") else { throw notClosed(opening) }
    if body.isEmpty { throw empty(opening, found: "'()'") }
    return Residual(body, shortcut: shortcut)
  }

  private mutating func layer() throws -> any Layer {
    let start = at
    let name = word()
    guard let entry = Architecture.grammar.first(where: { $0.name == name }) else {
      throw error(
        "unknown layer", at: start, found: found(name, start),
        expected: Architecture.grammar.map(\.name).joined(separator: ", "))
    }
    if name == Architecture.residual { return try residual(start) }
    let given = try arguments(of: name, at: start, entry.arguments)
    switch name {
    case "conv": return try convolution(given)
    case "maxpool":
      return MaxPool2D(
        try pair(given, "size"), stride: try optionalPair(given, "stride"),
        padding: try padding(given), ceilMode: try truth(given, "ceil_mode") ?? false)
    case "avgpool":
      return AvgPool2D(
        try pair(given, "size"), stride: try optionalPair(given, "stride"),
        padding: try padding(given), ceilMode: try truth(given, "ceil_mode") ?? false,
        countIncludePad: try truth(given, "count_include_pad") ?? true)
    case "globalavgpool": return GlobalAvgPool()
    case "flatten": return Flatten()
    case "batchnorm":
      return BatchNorm(
        activation: try activation(given) ?? .none,
        momentum: try decimal(given, "momentum", "above 0, at most 1") { $0 > 0 && $0 <= 1 }
          ?? 0.1,
        epsilon: try epsilon(given))
    case "layernorm": return LayerNorm(epsilon: try epsilon(given))
    case "dropout":
      let rate = try decimal(given, "rate", "0 up to, not with, 1") { $0 >= 0 && $0 < 1 }
      guard let rate else { throw missing("rate", given) }
      return Dropout(rate)
    case "activation":
      guard let activation = try activation(given) else { throw missing("activation", given) }
      return Activate(activation)
    default:
      let outputs = try number(given, "outputs")
      // Where the layer is named after its activation, that is as if given.
      return Dense(
        outputs, activation: try activation(given, named: name == "dense" ? nil : name) ?? .none,
        initializer: try initializer(given))
    }
  }

  private func convolution(_ given: Arguments) throws -> Conv2D {
    let size = try pair(given, "size")
    return Conv2D(
      try number(given, "filters"), size,
      stride: try optionalPair(given, "stride") ?? (1, 1),
      padding: try padding(given),
      dilation: try optionalPair(given, "dilation") ?? (1, 1),
      groups: try given.values["groups"].map { try number($0.text, "groups", $0.position) } ?? 1,
      activation: try activation(given) ?? .relu, initializer: try initializer(given))
  }

  // MARK: Arguments

  /// `(32,3,stride=2)`, or nothing at all.
  private mutating func arguments(of layer: String, at position: Int, _ names: [String]) throws
    -> Arguments
  {
    var result = Arguments(layer: layer, position: position)
    let opening = at
    guard take("(") else { return result }
    skipSpace()
    if take(")") { return result }
    var byPosition = 0
    repeat {
      skipSpace()
      let start = at
      let (name, value) = try argument(of: result, names, &byPosition)
      guard !value.text.isEmpty else {
        throw error(
          "no value for \(name)", at: value.position, found: found("", value.position),
          expected: "a value")
      }
      guard result.values.updateValue(value, forKey: name) == nil else {
        throw error("\(name) given twice", at: start, found: found(value.text, start))
      }
      skipSpace()
    } while take(",")
    guard at < text.count else { throw notClosed(opening) }
    guard take(")") else {
      throw error("unexpected character", at: at, found: "'\(text[at])'", expected: "',' or ')'")
    }
    return result
  }

  /// `stride=2`, or a value alone.
  /// - Parameters:
  ///   - before: the arguments that stand before it
  ///   - byPosition: how many of them are values alone
  private mutating func argument(
    of before: Arguments, _ names: [String], _ byPosition: inout Int
  ) throws -> (name: String, value: Value) {
    let start = at
    let first = word()
    skipSpace()
    if take("=") {
      guard names.contains(first) else {
        throw error(
          "unknown argument of \(before.layer)", at: start, found: found(first, start),
          expected: names.isEmpty ? "no arguments" : names.joined(separator: ", "))
      }
      skipSpace()
      let place = at
      return (first, Value(text: word(), position: place))
    }
    guard byPosition < names.count else {
      throw error(
        "too many arguments for \(before.layer)", at: start, found: found(first, start),
        expected: names.isEmpty ? "none" : "at most \(names.count)")
    }
    guard before.values.count == byPosition else {
      let name = names.first { before.values[$0] == nil } ?? names[byPosition]
      throw error(
        "an argument by position after one by name", at: start, found: found(first, start),
        expected: "\(name)=\(first)")
    }
    byPosition += 1
    return (names[byPosition - 1], Value(text: first, position: start))
  }

  // MARK: Values

  private func number(_ given: Arguments, _ name: String) throws -> Int {
    guard let value = given.values[name] else { throw missing(name, given) }
    return try number(value.text, name, value.position)
  }

  private func number(_ text: String, _ name: String, _ place: Int) throws -> Int {
    guard let number = Int(text), number >= 1, number <= 1 << 24 else {
      throw error(
        "\(name) out of range", at: place, found: found(text, place),
        expected: "a whole number, 1 … \(1 << 24)")
    }
    return number
  }

  private func decimal(
    _ given: Arguments, _ name: String, _ range: String, _ holds: (Float) -> Bool
  ) throws -> Float? {
    guard let value = given.values[name] else { return nil }
    guard let number = Float(value.text), holds(number) else {
      throw error(
        "\(name) out of range", at: value.position, found: found(value.text, value.position),
        expected: "a number, \(range)")
    }
    return number
  }

  private func truth(_ given: Arguments, _ name: String) throws -> Bool? {
    guard let value = given.values[name] else { return nil }
    guard let truth = Bool(value.text) else {
      throw error(
        "\(name) is neither true nor false", at: value.position,
        found: found(value.text, value.position), expected: "true or false")
    }
    return truth
  }

  private func epsilon(_ given: Arguments) throws -> Float {
    try decimal(given, "epsilon", "above 0, below 1") { $0 > 0 && $0 < 1 } ?? 1e-5
  }

  private func optionalPair(_ given: Arguments, _ name: String) throws -> (
    height: Int, width: Int
  )? {
    guard let value = given.values[name] else { return nil }
    let parts = value.text.split(separator: "x", omittingEmptySubsequences: false)
    guard parts.count <= 2 else {
      throw error(
        "\(name) out of range", at: value.position, found: "'\(value.text)'",
        expected: "one number or two: 3x5")
    }
    let numbers = try parts.map { try number(String($0), name, value.position) }
    return (numbers.first!, numbers.last!)
  }

  private func pair(_ given: Arguments, _ name: String) throws -> (height: Int, width: Int) {
    guard let pair = try optionalPair(given, name) else { throw missing(name, given) }
    return pair
  }

  private func activation(_ arguments: Arguments, named name: String? = nil) throws -> Activation? {
    let given = arguments.values["activation"]
    let activation = Activation.builtIn.first { $0.name == name ?? given?.text }
    if let given, activation == nil {
      throw error(
        "unknown activation", at: given.position, found: found(given.text, given.position),
        expected: Activation.builtIn.map(\.name).joined(separator: ", "))
    }
    guard let slope = try decimal(arguments, "slope", "0 … 1", { $0 >= 0 && $0 <= 1 }) else {
      return activation
    }
    guard let activation, case .leakyReLU = activation.kind else {
      let value = arguments.values["slope"]!
      throw error(
        "a slope without leaky_relu", at: value.position,
        found: found(value.text, value.position),
        expected: "activation=leaky_relu, the one that has a slope")
    }
    return .leakyReLU(slope: slope)
  }

  private func padding(_ given: Arguments) throws -> Padding {
    guard let value = given.values["padding"], value.text != "valid" else { return .valid }
    if value.text == "same" { return .same }
    let parts = value.text.split(separator: "x", omittingEmptySubsequences: false)
    let numbers = parts.compactMap { Int($0) }.filter { $0 >= 0 && $0 <= 1 << 24 }
    switch (numbers.count, parts.count) {
    case (1, 1), (2, 2): return .explicit(numbers.first!, numbers.last!)
    case (4, 4):
      return .explicit(top: numbers[0], left: numbers[1], bottom: numbers[2], right: numbers[3])
    default:
      throw error(
        "padding out of range", at: value.position, found: found(value.text, value.position),
        expected: Architecture.paddings)
    }
  }

  private func initializer(_ given: Arguments) throws -> Initializer? {
    guard let value = given.values["init"] else { return nil }
    guard let initializer = Initializer(value.text) else {
      throw error(
        "unknown initializer", at: value.position, found: found(value.text, value.position),
        expected: Initializer.names)
    }
    return initializer
  }

  // MARK: Characters

  private mutating func skipSpace() {
    while at < text.count, text[at].isWhitespace { at += 1 }
  }

  private mutating func take(_ character: Character) -> Bool {
    guard at < text.count, text[at] == character else { return false }
    at += 1
    return true
  }

  private mutating func word() -> String {
    let start = at
    while at < text.count, !text[at].isWhitespace, !"(),=|".contains(text[at]) { at += 1 }
    return String(text[start..<at])
  }

  // MARK: Errors

  private func found(_ word: String, _ place: Int) -> String {
    if !word.isEmpty { return "'\(word)'" }
    return place < text.count ? "'\(text[place])'" : "the end of the text"
  }

  private func missing(_ name: String, _ given: Arguments) -> StrideNetError {
    let names = Architecture.grammar.first { $0.name == given.layer }!.arguments
    return error(
      "\(given.layer) without \(name)", at: given.position, found: "no \(name)",
      expected: "\(given.layer)(\(names.joined(separator: ",")))")
  }

  private func notClosed(_ opening: Int) -> StrideNetError {
    error("a bracket that isn't closed", at: opening, found: "'('", expected: "')'")
  }

  private func error(_ what: String, at place: Int, found: String, expected: String? = nil)
    -> StrideNetError
  {
    let caret = String(repeating: " ", count: place) + "^"
    return StrideNetError(
      .usage, what,
      at: "\(source), column \(place + 1)\n            \(String(text))\n            \(caret)",
      found: found, expected: expected)
  }
}
