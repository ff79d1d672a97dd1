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
    // Of any size, in colour too: three stages of residual blocks, as He et al. 2016,
    // arXiv:1512.03385, but one a stage; and depthwise convolutions with 1×1 between them, as
    // Howard et al. 2017, arXiv:1704.04861.
    (
      "resnet",
      normed(16, 3) + " " + residual(16) + " " + residual(32, stride: 2) + " "
        + residual(64, stride: 2) + " globalavgpool softmax(10)", .linear
    ),
    (
      "mobilenet",
      normed(32, 3) + " " + depthwise(32, 64) + " " + depthwise(64, 128, stride: 2) + " "
        + depthwise(128, 128) + " " + depthwise(128, 256, stride: 2)
        + " globalavgpool softmax(10)", .linear
    ),
  ]

  /// A convolution with batch normalisation.
  private static func normed(
    _ filters: Int, _ size: Int, stride: Int = 1, groups: Int = 1, relu: Bool = true
  ) -> String {
    "conv(\(filters),\(size)\(stride > 1 ? ",stride=\(stride)" : "")"
      + "\(size > 1 ? ",padding=\(size / 2)" : ""),activation=none"
      + "\(groups > 1 ? ",groups=\(groups)" : "")) batchnorm\(relu ? "(activation=relu)" : "")"
  }

  /// Two convolutions with a shortcut, which is one, too, where the size changes.
  private static func residual(_ filters: Int, stride: Int = 1) -> String {
    let body =
      normed(filters, 3, stride: stride) + " " + normed(filters, 3, relu: false)
    let shortcut = stride > 1 ? " | " + normed(filters, 1, stride: stride, relu: false) : ""
    return "residual(\(body)\(shortcut)) activation(relu)"
  }

  private static func depthwise(_ channels: Int, _ filters: Int, stride: Int = 1) -> String {
    normed(channels, 3, stride: stride, groups: channels) + " " + normed(filters, 1)
  }

  /// The layers that a text names. Errors call the text `source`: "--layers".
  /// - Throws: ``StrideNetError`` that points at the place
  public static func layers(_ text: String, source: String = "layers") throws -> [any Layer] {
    var parser = LayerParser(text: Array(text), source: source)
    return try parser.layers()
  }

  /// The text of layers, which ``layers(_:source:)`` reads back.
  public static func text(_ layers: [any Layer]) -> String {
    layers.map(\.text).joined(separator: " ")
  }

  /// The same text with so many outputs, where a dense layer has them; without what is behind that
  /// layer where they are numbers to predict.
  package static func text(_ text: String, outputs: Int, numbers: Bool = false) -> String {
    let end: Activation? = numbers ? Activation.none : nil
    return (try? self.text(Network.layers(layers(text), outputs: outputs, end))) ?? text
  }

  // What each layer takes: names in the order of position, of which the first so many must be given.
  static let grammar: [(name: String, arguments: [String], required: Int)] =
    [
      (
        "conv",
        [
          "filters", "size", "stride", "padding", "activation", "slope", "init", "dilation",
          "groups",
        ], 2
      ),
      ("maxpool", ["size", "stride", "padding", "ceil_mode"], 1),
      ("avgpool", ["size", "stride", "padding", "ceil_mode", "count_include_pad"], 1),
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
  static let residual = "residual"

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
    A size, stride or dilation is a number, or two as 3x5, height first; padding is \(paddings); \
    ceil_mode (false unless told otherwise) and count_include_pad (true), as in PyTorch, are true or \
    false. \
    Activations are \(Activation.builtIn.map(\.name).joined(separator: ", ")); conv has relu \
    unless told otherwise, dense and batchnorm none, and slope is leaky_relu's. Weights start by \
    init: \(Initializer.names).
    """
  }

  static let paddings =
    "same, valid, a whole number, two as 1x2 or four as 0x0x1x1 (top, left, bottom, right)"
}
