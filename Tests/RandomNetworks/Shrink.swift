import StrideNet

extension Case {
  /// The same with something left out or made smaller, what saves most first. Those that are no
  /// networks any more are left out.
  var smaller: [Case] {
    var result: [Case] = []
    func with(_ change: (inout Case) -> Void) {
      var other = self
      change(&other)
      if other.json != json && other.isNetwork { result.append(other) }
    }
    with { $0.exportsC = false }
    with { $0.resumes = false }
    for layers in LayerText.smaller(text) { with { $0.layers = LayerText.text(layers) } }
    for index in batches.indices where batches.count > 1 { with { $0.batches.remove(at: index) } }
    with { $0.threads = 1 }
    with { $0.kernels = "auto" }
    with { $0.optimizer = Optimizer(.sgd, momentum: 0) }
    with { $0.averageDecay = nil }
    with { $0.fusing = true }
    with { $0.images = .noise }
    with { $0.loss = "cross_entropy" }
    for factor in [4, 2] {
      with { $0.height = max(1, height / factor) }
      with { $0.width = max(1, width / factor) }
      with { $0.channels = max(1, channels / factor) }
      with { $0.evaluated = max(1, evaluated / factor) }
      for index in batches.indices {
        with { $0.batches[index] = max(1, batches[index] / factor) }
      }
    }
    with { $0.height = max(1, height - 1) }
    with { $0.width = max(1, width - 1) }
    with { $0.channels = max(1, channels - 1) }
    for index in batches.indices { with { $0.batches[index] = max(1, batches[index] - 1) } }
    return result
  }

  private var isNetwork: Bool {
    guard !layers.isEmpty, let output = Geometry.output(text, input) else { return false }
    // A classifier's end stays.
    let end = text.last!.text
    return output.size.count > 0
      && (loss == "mean_squared_error" || end.contains("softmax"))
  }
}

extension LayerText {
  /// Lists with a layer less, or one that is simpler.
  static func smaller(_ layers: [LayerText]) -> [[LayerText]] {
    var result: [[LayerText]] = []
    func replacing(_ index: Int, by other: [LayerText]) {
      var list = layers
      list.replaceSubrange(index...index, with: other)
      result.append(list)
    }
    for index in layers.indices {
      replacing(index, by: [])
      if layers[index].name == "residual" { replacing(index, by: layers[index].body) }
    }
    for (index, layer) in layers.enumerated() {
      for list in smaller(layer.body) {
        var other = layer
        other.body = list
        replacing(index, by: [other])
      }
      for list in smaller(layer.shortcut) {
        var other = layer
        other.shortcut = list
        replacing(index, by: [other])
      }
      for (name, value) in layer.arguments {
        var other = layer
        if let number = Int(value), ["filters", "outputs", "size"].contains(name) {
          for less in Set([number / 4, number / 2, number - 1]).sorted() where less > 0 {
            other[name] = "\(less)"
            replacing(index, by: [other.ordered])
          }
        } else if name != "rate" && !(layer.name == "activation") {
          other[name] = nil
          replacing(index, by: [other])
        }
      }
    }
    return result
  }

  /// Arguments by position come first.
  private var ordered: LayerText {
    var other = self
    let first = ["filters", "outputs", "size"]
    other.arguments =
      first.flatMap { name in arguments.filter { $0.name == name } }
      + arguments.filter { !first.contains($0.name) }
    return other
  }
}
