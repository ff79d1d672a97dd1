import StrideNet

/// Makes the parts of a reference, layer by layer.
struct ReferenceBuilder {
  let weights: [String: [Float]]
  let seed: UInt64
  let step: Int
  let kernels: String
  let rounds: Bool
  /// Layers are numbered each before those inside it, and these one after the other.
  private var number = 0

  init(weights: [String: [Float]], seed: UInt64, step: Int, kernels: String, rounds: Bool) {
    (self.weights, self.seed, self.step, self.kernels) = (weights, seed, step, kernels)
    self.rounds = rounds
  }

  mutating func parts(of layers: [LayerText], _ input: Size, prefix: String) -> ([Part], Size) {
    var (parts, size) = ([Part](), input)
    var below: Part?
    for (index, layer) in layers.enumerated() {
      let output = Geometry.output(layer, size)!.size
      let next = self.parts(of: layer, size, output, place: "\(prefix)\(index).")
      if let convolution = below as? Convolution, let norm = next.first as? BatchNormalization {
        convolution.takeOver(norm)
      }
      parts += next
      below = next.last
      size = output
    }
    return (parts, size)
  }

  private mutating func parts(
    of layer: LayerText, _ size: Size, _ output: Size, place: String
  ) -> [Part] {
    func array(_ name: String) -> Weights { Weights(place + name, weights[place + name] ?? []) }
    func decimal(_ name: String, _ other: Float) -> Double {
      Double(layer[name].flatMap(Float.init) ?? other)
    }
    func activate(_ name: String) -> [Part] {
      if name == "none" { return [] }
      return [activation(name, slope: layer["slope"]).map(Pointwise.init) ?? Softmax()]
    }
    let ownNumber = number
    number += 1
    switch layer.name {
    case "conv":
      let (top, left, _, _) = Geometry.windows(layer, over: size)!
      let convolution = Convolution(
        size, output, window: layer.pair("size"), stride: layer.pair("stride"),
        dilation: layer.pair("dilation"), top: top, left: left, groups: layer.number("groups"),
        array("weight"), array("bias"),
        transforms: { tile in
          // What is picked has the larger tiles alone.
          kernels == "winograd"
            || (kernels == "auto" && tile == 4 && (!rounds || KernelChoice.bf16Unit != "amx"))
        }, rounds: rounds)
      return [convolution] + activate(layer["activation"] ?? "relu")
    case "maxpool", "avgpool":
      let window = layer.pair("size")
      return [
        Pooling(
          output, window: window, stride: layer.pair("stride", (window.height, window.width)),
          takesLargest: layer.name == "maxpool")
      ]
    case "globalavgpool":
      let all = (size.height, size.width)
      return [Pooling(output, window: all, stride: all, takesLargest: false)]
    case "flatten": return [Reshape(size, output)]
    case "batchnorm":
      let norm = BatchNormalization(
        array("weight"), array("bias"), array("running_mean"), array("running_var"),
        momentum: decimal("momentum", 0.1), epsilon: decimal("epsilon", 1e-5))
      return [norm] + activate(layer["activation"] ?? "none")
    case "layernorm":
      return [
        LayerNormalization(array("weight"), array("bias"), epsilon: decimal("epsilon", 1e-5))
      ]
    case "dropout":
      return [Drop(rate: Float(layer["rate"]!)!, layer: ownNumber, seed: seed, step: step)]
    case "activation": return activate(layer["activation"]!)
    case "residual":
      let (body, _) = parts(of: layer.body, size, prefix: place + "body.")
      let (shortcut, _) = parts(of: layer.shortcut, size, prefix: place + "shortcut.")
      return [Fork(body, shortcut)]
    default:
      return [FullyConnected(array("weight"), array("bias"), rounds: rounds)]
        + activate(layer.name == "dense" ? layer["activation"] ?? "none" : layer.name)
    }
  }
}
