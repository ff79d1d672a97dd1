/// A layer as `--layers` has it: a name, arguments by name, and the layers inside.
struct LayerText: Equatable {
  var name: String
  var arguments: [(name: String, value: String)] = []
  var body: [LayerText] = []
  var shortcut: [LayerText] = []

  init(_ name: String, _ arguments: [(String, String)] = []) {
    self.name = name
    self.arguments = arguments.map { (name: $0.0, value: $0.1) }
  }

  static func == (a: LayerText, b: LayerText) -> Bool { a.text == b.text }

  subscript(_ name: String) -> String? {
    get { arguments.first { $0.name == name }?.value }
    set {
      arguments.removeAll { $0.name == name }
      if let newValue { arguments.append((name, newValue)) }
    }
  }

  func number(_ name: String, _ other: Int = 1) -> Int { self[name].flatMap(Int.init) ?? other }

  /// "3" or "3x5".
  func pair(_ name: String, _ other: (Int, Int) = (1, 1)) -> (height: Int, width: Int) {
    guard let numbers = self[name]?.split(separator: "x").compactMap({ Int($0) }), !numbers.isEmpty
    else { return other }
    return (numbers.first!, numbers.last!)
  }

  var text: String {
    if name == "residual" {
      return "residual(\(Self.text(body))\(shortcut.isEmpty ? "" : " | \(Self.text(shortcut))"))"
    }
    let leading = Self.positional[name] ?? []
    let list = arguments.map { leading.contains($0.name) ? $0.value : "\($0.name)=\($0.value)" }
    return name + (list.isEmpty ? "" : "(\(list.joined(separator: ",")))")
  }

  static func text(_ layers: [LayerText]) -> String {
    layers.map(\.text).joined(separator: " ")
  }

  /// The arguments that are written by position, which are always given and come first.
  private static let positional: [String: [String]] = {
    var result = [
      "conv": ["filters", "size"], "maxpool": ["size"], "avgpool": ["size"], "dropout": ["rate"],
      "activation": ["activation"],
    ]
    for name in activations.map(\.name) + ["dense"] { result[name] = ["outputs"] }
    return result
  }()

  /// Reads what ``text(_:)`` writes.
  static func layers(_ text: String) -> [LayerText] {
    var rest = Substring(text)
    return layers(&rest)
  }

  private static func layers(_ rest: inout Substring) -> [LayerText] {
    var result: [LayerText] = []
    while true {
      rest = rest.drop { $0 == " " }
      guard let next = rest.first, next != ")" && next != "|" else { return result }
      var layer = LayerText(String(rest.prefix { $0.isLetter || $0 == "_" }))
      rest = rest.dropFirst(layer.name.count)
      if rest.first == "(" {
        rest = rest.dropFirst()
        if layer.name == "residual" {
          layer.body = layers(&rest)
          if rest.first == "|" {
            rest = rest.dropFirst()
            layer.shortcut = layers(&rest)
          }
        } else {
          let list = rest.prefix { $0 != ")" }
          rest = rest.dropFirst(list.count)
          for (index, argument) in list.split(separator: ",").enumerated() {
            let parts = argument.split(separator: "=", maxSplits: 1).map(String.init)
            layer.arguments.append(
              parts.count == 2
                ? (parts[0], parts[1]) : (positional[layer.name]![index], parts[0]))
          }
        }
        rest = rest.dropFirst()
      }
      precondition(!layer.name.isEmpty, "no layers: \(text(result)) …\(rest)")
      result.append(layer)
    }
  }
}
