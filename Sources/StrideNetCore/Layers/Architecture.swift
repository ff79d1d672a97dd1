/// Networks written as text: `conv(32,3) maxpool(2) flatten relu(100) softmax(10)`.
///
/// Arguments go by position or by name: `conv(32,3,stride=2,activation=none)`. A size, a stride,
/// a dilation or a padding is one number, or two as `3x5`, height first; padding also `same`, or four
/// numbers: top, left, bottom, right.
public enum Architecture {
  /// The networks that have names, and the learning rate's way that the command line takes for them.
  public static let presets: [(name: String, text: String, schedule: Schedule)] = [
    ("cnn", "conv(32,3) maxpool(2) flatten relu(100) softmax(10)", .linear),
    ("flat", "flatten relu(100) softmax(10)", .linear),
    ("lenet", "conv(32,3) maxpool(2) conv(64,3) maxpool(2) flatten relu(128) softmax(10)", .linear),
    (
      "vgg",
      "conv(32,3,padding=1) conv(32,3,padding=1) maxpool(2) conv(64,3,padding=1) "
        + "conv(64,3,padding=1) maxpool(2) flatten relu(128) softmax(10)",
      // From the start at the full rate, the first steps may be so large that it never learns.
      Schedule(.linear, warmup: 0.5)
    ),
  ]

  /// The layers that a text names. Errors call the text `source`: "--layers".
  /// - Throws: ``StrideNetError`` that points at the place
  public static func layers(_ text: String, source: String = "layers") throws -> [any Layer] {
    var parser = Parser(text: Array(text), source: source)
    return try parser.layers()
  }

  /// The text of layers, which ``layers(_:source:)`` reads back.
  public static func text(_ layers: [any Layer]) -> String {
    layers.map(\.text).joined(separator: " ")
  }

  // What each layer takes: names in the order of position, of which the first so many must be given.
  private static let grammar: [(name: String, arguments: [String], required: Int)] =
    [
      (
        "conv",
        [
          "filters", "size", "stride", "padding", "activation", "slope", "init", "dilation",
          "groups",
        ], 2
      ),
      ("maxpool", ["size", "stride"], 1),
      ("avgpool", ["size", "stride"], 1),
      ("globalavgpool", [], 0),
      ("flatten", [], 0),
    ]
    + Activation.builtIn.dropFirst().map {
      ($0.name, $0.name == "leaky_relu" ? ["outputs", "slope", "init"] : ["outputs", "init"], 1)
    } + [
      ("dense", ["outputs", "activation", "slope", "init"], 1),
      ("activation", ["activation", "slope"], 1),
      ("batchnorm", ["activation", "momentum", "epsilon", "slope"], 0),
      ("layernorm", ["epsilon"], 0),
      ("dropout", ["rate"], 1),
      (residual, [], 0),
    ]
  private static let residual = "residual"

  /// For a help text: a line for each layer, "maxpool(size[,stride])".
  package static var usage: [String] {
    grammar.map { name, arguments, required in
      if name == residual { return "\(name)(layers[|shortcut])" }
      if arguments.isEmpty { return name }
      let must = arguments.prefix(required).joined(separator: ",")
      let may = arguments.dropFirst(required).joined(separator: ",")
      return "\(name)(\(must)\(may.isEmpty ? "" : "[\(must.isEmpty ? "" : ",")\(may)]"))"
    }
  }

  /// And what the arguments may be.
  package static var values: String {
    """
    A size, stride or dilation is a number, or two as 3x5, height first; padding is \(paddings). \
    Activations are \(Activation.builtIn.map(\.name).joined(separator: ", ")); conv has relu \
    unless told otherwise, dense and batchnorm none, and slope is leaky_relu's. Weights start by \
    init: \(Initializer.names).
    """
  }

  private static let paddings =
    "same, valid, a whole number, two as 1x2 or four as 0x0x1x1 (top, left, bottom, right)"

  private struct Value {
    let text: String
    let position: Int
  }

  private struct Parser {
    let text: [Character]
    let source: String
    var at = 0
    // Of residual connections.
    var depth = 0

    mutating func layers() throws -> [any Layer] {
      let result = try layers(until: "")
      guard !result.isEmpty else {
        throw error(
          "no layers", at: 0, found: "an empty text",
          expected: Architecture.presets[0].text)
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
      guard at < text.count, text[at] == "(" else {
        throw error(
          "a residual connection without layers", at: place, found: found("", at),
          expected: "residual(conv(32,3,padding=1,activation=none))")
      }
      let opening = at
      at += 1
      let body = try layers(until: "|)")
      var shortcut: [any Layer] = []
      if at < text.count, text[at] == "|" {
        let bar = at
        at += 1
        shortcut = try layers(until: ")")
        if shortcut.isEmpty {
          throw error(
            "a shortcut without layers", at: bar, found: "'|'", expected: "layers behind it")
        }
      }
      guard at < text.count else {
        throw error("a bracket that isn't closed", at: opening, found: "'('", expected: "')'")
      }
      at += 1
      if body.isEmpty {
        throw error(
          "a residual connection without layers", at: opening, found: "'()'",
          expected: "residual(conv(32,3,padding=1,activation=none))")
      }
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
      let values = try arguments(entry.name, entry.arguments)
      let place = start
      switch name {
      case "conv":
        let size = try pair(values, "size", of: name, place)
        return Conv2D(
          try number(values, "filters", of: name, place), size,
          stride: try optionalPair(values, "stride", minimum: 1) ?? (1, 1),
          padding: try padding(values),
          dilation: try optionalPair(values, "dilation", minimum: 1) ?? (1, 1),
          groups: try values["groups"].map {
            try number($0.text, "groups", $0.position, minimum: 1)
          } ?? 1,
          activation: try activation(values) ?? .relu, initializer: try initializer(values))
      case "maxpool":
        return MaxPool2D(
          try pair(values, "size", of: name, place),
          stride: try optionalPair(values, "stride", minimum: 1))
      case "avgpool":
        return AvgPool2D(
          try pair(values, "size", of: name, place),
          stride: try optionalPair(values, "stride", minimum: 1))
      case "globalavgpool": return GlobalAvgPool()
      case "flatten": return Flatten()
      case "batchnorm":
        return BatchNorm(
          activation: try activation(values) ?? .none,
          momentum: try decimal(values, "momentum", "above 0, at most 1") { $0 > 0 && $0 <= 1 }
            ?? 0.1,
          epsilon: try decimal(values, "epsilon", "above 0, below 1") { $0 > 0 && $0 < 1 } ?? 1e-5)
      case "layernorm":
        return LayerNorm(
          epsilon: try decimal(values, "epsilon", "above 0, below 1") { $0 > 0 && $0 < 1 } ?? 1e-5)
      case "dropout":
        let rate = try decimal(values, "rate", "0 up to, not with, 1") { $0 >= 0 && $0 < 1 }
        guard let rate else { throw missing("rate", of: name, place) }
        return Dropout(rate)
      case "activation":
        guard let activation = try activation(values) else {
          throw missing("activation", of: name, place)
        }
        return Activate(activation)
      default:
        let outputs = try number(values, "outputs", of: name, place)
        // Where the layer is named after its activation, that is as if given.
        return Dense(
          outputs, activation: try activation(values, named: name == "dense" ? nil : name) ?? .none,
          initializer: try initializer(values))
      }
    }

    /// `(32,3,stride=2)`, or nothing at all.
    private mutating func arguments(_ layer: String, _ names: [String]) throws -> [String: Value] {
      var values: [String: Value] = [:]
      guard at < text.count, text[at] == "(" else { return values }
      let opening = at
      at += 1
      skipSpace()
      if at < text.count, text[at] == ")" {
        at += 1
        return values
      }
      var position = 0
      var namedSeen = false
      while true {
        skipSpace()
        let start = at
        var name: String
        var value = Value(text: word(), position: start)
        skipSpace()
        if at < text.count, text[at] == "=" {
          name = value.text
          namedSeen = true
          guard names.contains(name) else {
            throw error(
              "unknown argument of \(layer)", at: start, found: found(name, start),
              expected: names.isEmpty ? "no arguments" : names.joined(separator: ", "))
          }
          at += 1
          skipSpace()
          let place = at
          value = Value(text: word(), position: place)
        } else {
          guard position < names.count else {
            throw error(
              "too many arguments for \(layer)", at: start, found: found(value.text, start),
              expected: names.isEmpty ? "none" : "at most \(names.count)")
          }
          guard !namedSeen else {
            throw error(
              "an argument by position after one by name", at: start,
              found: found(value.text, start),
              expected: "\(names.first { values[$0] == nil } ?? names[position])=\(value.text)")
          }
          name = names[position]
          position += 1
        }
        guard !value.text.isEmpty else {
          throw error(
            "no value for \(name)", at: value.position, found: found("", value.position),
            expected: "a value")
        }
        guard values.updateValue(value, forKey: name) == nil else {
          throw error("\(name) given twice", at: start, found: found(value.text, start))
        }
        skipSpace()
        guard at < text.count else {
          throw error("a bracket that isn't closed", at: opening, found: "'('", expected: "')'")
        }
        if text[at] == ")" {
          at += 1
          return values
        }
        guard text[at] == "," else {
          throw error(
            "unexpected character", at: at, found: "'\(text[at])'", expected: "',' or ')'")
        }
        at += 1
      }
    }

    // MARK: Values

    private func number(_ values: [String: Value], _ name: String, of layer: String, _ place: Int)
      throws -> Int
    {
      guard let value = values[name] else { throw missing(name, of: layer, place) }
      return try number(value.text, name, value.position, minimum: 1)
    }

    private func number(_ text: String, _ name: String, _ place: Int, minimum: Int) throws -> Int {
      guard let number = Int(text), number >= minimum, number <= 1 << 24 else {
        throw error(
          "\(name) out of range", at: place, found: found(text, place),
          expected: "a whole number, \(minimum) … \(1 << 24)")
      }
      return number
    }

    private func decimal(
      _ values: [String: Value], _ name: String, _ range: String, _ holds: (Float) -> Bool
    ) throws -> Float? {
      guard let value = values[name] else { return nil }
      guard let number = Float(value.text), holds(number) else {
        throw error(
          "\(name) out of range", at: value.position, found: found(value.text, value.position),
          expected: "a number, \(range)")
      }
      return number
    }

    private func optionalPair(_ values: [String: Value], _ name: String, minimum: Int) throws -> (
      height: Int, width: Int
    )? {
      guard let value = values[name] else { return nil }
      let parts = value.text.split(separator: "x", omittingEmptySubsequences: false)
      guard parts.count <= 2 else {
        throw error(
          "\(name) out of range", at: value.position, found: "'\(value.text)'",
          expected: "one number or two: 3x5")
      }
      let numbers = try parts.map {
        try number(String($0), name, value.position, minimum: minimum)
      }
      return (numbers.first!, numbers.last!)
    }

    private func pair(_ values: [String: Value], _ name: String, of layer: String, _ place: Int)
      throws -> (height: Int, width: Int)
    {
      guard let pair = try optionalPair(values, name, minimum: 1) else {
        throw missing(name, of: layer, place)
      }
      return pair
    }

    private func activation(_ values: [String: Value], named name: String? = nil) throws
      -> Activation?
    {
      let given = values["activation"]
      let activation = Activation.builtIn.first { $0.name == name ?? given?.text }
      if let given, activation == nil {
        throw error(
          "unknown activation", at: given.position, found: found(given.text, given.position),
          expected: Activation.builtIn.map(\.name).joined(separator: ", "))
      }
      guard let slope = try decimal(values, "slope", "0 … 1", { $0 >= 0 && $0 <= 1 }) else {
        return activation
      }
      guard let activation, case .leakyReLU = activation.kind else {
        let value = values["slope"]!
        throw error(
          "a slope without leaky_relu", at: value.position,
          found: found(value.text, value.position),
          expected: "activation=leaky_relu, the one that has a slope")
      }
      return .leakyReLU(slope: slope)
    }

    private func padding(_ values: [String: Value]) throws -> Padding {
      guard let value = values["padding"], value.text != "valid" else { return .valid }
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

    private func initializer(_ values: [String: Value]) throws -> Initializer? {
      guard let value = values["init"] else { return nil }
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

    private func missing(_ name: String, of layer: String, _ place: Int) -> StrideNetError {
      let names = Architecture.grammar.first { $0.name == layer }!.arguments
      return error(
        "\(layer) without \(name)", at: place, found: "no \(name)",
        expected: "\(layer)(\(names.joined(separator: ",")))")
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
}
