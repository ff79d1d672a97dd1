import StrideNet

/// Draws a network and what is done with it: all layers with all their arguments, in any order that
/// fits.
struct Generator {
  private var random: Random
  /// Multiply-adds that a pass over a batch may take.
  private let work: Int
  private let seed: UInt64

  static let instructionSets = ["avx512", "avx2", "neon", "baseline"]

  /// - Parameters:
  ///   - work: about how many multiply-adds a pass may have
  ///   - instructionSets: those that the processor has
  ///   - precision: nil for any
  static func draw(
    _ seed: UInt64, work: Int, instructionSets: [String], precision: Precision?
  ) -> Case {
    var generator = Generator(random: Random(seed: seed, stream: 7), work: work, seed: seed)
    while true {
      if let result = generator.draw(instructionSets, precision) { return result }
    }
  }

  // MARK: Layers

  private mutating func axis() -> Int {
    random.pick(weighted: [
      (1, 1), (4, random.whole(2...8)), (4, random.whole(9...20)), (2, random.whole(21...64)),
    ])
  }

  private mutating func window(_ limit: Int) -> Int {
    min(limit, random.pick(weighted: [(2, 1), (4, 2), (8, 3), (2, 4), (2, 5), (1, 7)]))
  }

  private func text(_ a: Int, _ b: Int) -> String { a == b ? "\(a)" : "\(a)x\(b)" }

  /// One number twice, or two.
  private mutating func pair(_ draw: (inout Generator) -> Int) -> (Int, Int) {
    let first = draw(&self)
    return (first, random.chance(0.7) ? first : draw(&self))
  }

  private mutating func activationArguments(_ other: String) -> [(String, String)] {
    let name = random.pick(weighted: [
      (6, other), (4, "none"), (4, "relu"), (1, "leaky_relu"), (1, "elu"), (1, "gelu"), (1, "silu"),
      (1, "sigmoid"), (1, "tanh"), (1, "softplus"), (0.2, "softmax"),
    ])
    guard name != other else { return [] }
    var result = [("activation", name)]
    if name == "leaky_relu" && random.chance(0.5) {
      result.append(("slope", random.pick(["0.2", "0", "1"])))
    }
    return result
  }

  private mutating func initializer() -> [(String, String)] {
    guard random.chance(0.25) else { return [] }
    let name = random.pick([
      "he_uniform", "he_normal", "glorot_uniform", "glorot_normal", "lecun_uniform",
      "lecun_normal", "uniform:0:0.1", "uniform:-0.3:0.2", "constant:0", "constant:0.1",
    ])
    return [("init", name)]
  }

  private mutating func filters() -> Int {
    random.pick(weighted: [
      (5, random.whole(1...8)), (4, 8), (4, 16), (2, random.whole(9...40)), (1, 32),
    ])
  }

  private mutating func convolution(_ input: Size, filters: Int? = nil) -> LayerText {
    var filters = filters ?? self.filters()
    var groups = 1
    if random.chance(0.2) {
      groups = random.pick((1...input.channels).filter { input.channels % $0 == 0 })
      if groups == input.channels && random.chance(0.7) {
        filters = groups
      } else {
        filters = (filters + groups - 1) / groups * groups
      }
    }
    let size = pair { $0.window(9) }
    var arguments = [("filters", "\(filters)"), ("size", text(size.0, size.1))]
    if random.chance(0.3) {
      let stride = pair { $0.random.whole(1...4) }
      arguments.append(("stride", text(stride.0, stride.1)))
    }
    let dilation = random.chance(0.2) ? pair { $0.random.whole(1...3) } : (1, 1)
    let reach = (dilation.0 * (size.0 - 1) + 1, dilation.1 * (size.1 - 1) + 1)
    switch random.pick(weighted: [(4, 0), (3, 1), (3, 2), (1, 3), (1, 4), (0.5, 5)]) {
    case 1: arguments.append(("padding", "same"))
    case 2: arguments.append(("padding", "\(random.whole(0...min(reach.0, reach.1, 4) - 1))"))
    case 3:
      arguments.append(
        ("padding", "\(random.whole(0...reach.0 - 1))x\(random.whole(0...reach.1 - 1))"))
    case 4:
      let sides = [reach.0, reach.1, reach.0, reach.1].map { "\(random.whole(0...$0 - 1))" }
      arguments.append(("padding", sides.joined(separator: "x")))
    case 5: arguments.append(("padding", text(reach.0 + random.whole(0...2), random.whole(0...5))))
    default: break
    }
    if dilation != (1, 1) { arguments.append(("dilation", text(dilation.0, dilation.1))) }
    if groups > 1 { arguments.append(("groups", "\(groups)")) }
    return LayerText("conv", arguments + activationArguments("relu") + initializer())
  }

  private mutating func batchNormalization() -> LayerText {
    var arguments = random.chance(0.4) ? [("activation", "relu")] : activationArguments("none")
    if random.chance(0.2) { arguments.append(("momentum", random.pick(["0.5", "1.0", "0.01"]))) }
    if random.chance(0.2) { arguments.append(("epsilon", random.pick(["0.001", "1e-08"]))) }
    return LayerText("batchnorm", arguments)
  }

  private mutating func dropout() -> LayerText {
    LayerText("dropout", [("rate", random.pick(["0.2", "0.5", "0.9", "0.0"]))])
  }

  private mutating func pooling(_ input: Size) -> LayerText {
    let size = random.chance(0.5) ? (2, 2) : pair { $0.window(5) }
    var arguments = [("size", text(size.0, size.1))]
    if random.chance(0.4) {
      let stride = pair { $0.random.whole(1...4) }
      arguments.append(("stride", text(stride.0, stride.1)))
    }
    switch random.pick(weighted: [(5, 0), (1, 1), (2, 2), (1, 3)]) {
    case 1: arguments.append(("padding", "same"))
    case 2:
      arguments.append(
        ("padding", "\(random.whole(0...size.0 - 1))x\(random.whole(0...size.1 - 1))"))
    case 3:
      let sides = [size.0, size.1, size.0, size.1].map { "\(random.whole(0...$0 - 1))" }
      arguments.append(("padding", sides.joined(separator: "x")))
    default: break
    }
    if random.chance(0.3) { arguments.append(("ceil_mode", "true")) }
    if random.chance(0.7) { return LayerText("maxpool", arguments) }
    if random.chance(0.4) { arguments.append(("count_include_pad", "false")) }
    return LayerText("avgpool", arguments)
  }

  private mutating func dense(_ outputs: Int) -> LayerText {
    let name = random.pick(weighted: [
      (4, "relu"), (3, "dense"), (1, "leaky_relu"), (1, "elu"), (1, "gelu"), (1, "silu"),
      (1, "sigmoid"), (1, "tanh"), (1, "softplus"), (0.2, "softmax"),
    ])
    return LayerText(name, [("outputs", "\(outputs)")] + initializer())
  }

  private mutating func elementwise(_ input: Size) -> LayerText {
    switch random.pick(weighted: [(5, 0), (2, 1), (3, 2), (2, 3)]) {
    case 0: return batchNormalization()
    case 1:
      return LayerText("layernorm", random.chance(0.2) ? [("epsilon", "0.001")] : [])
    case 2: return dropout()
    default:
      let activation = activationArguments("")
      return LayerText("activation", activation.isEmpty ? [("activation", "tanh")] : activation)
    }
  }

  /// Layers in places where they run together, are folded or left out.
  private mutating func neighbours(_ input: Size) -> [LayerText] {
    var first = convolution(input)
    (first["activation"], first["slope"]) = ("none", nil)
    var list = [first]
    while random.chance(0.4) { list.append(random.chance(0.5) ? dropout() : batchNormalization()) }
    list.append(batchNormalization())
    if random.chance(0.3) { list.append(dropout()) }
    guard let (size, _) = Geometry.output(list, input) else { return list }
    if random.chance(0.6) {
      list.append(LayerText("maxpool", [("size", "2")]))
    } else {
      list.append(convolution(size))
    }
    return list
  }

  private mutating func residual(_ input: Size, depth: Int) -> LayerText {
    var layer = LayerText("residual")
    var size = input
    if input.isFlat && random.chance(0.8) {
      layer.body = layers(random.whole(0...2), from: &size, depth: depth + 1, flattens: false)
      if random.chance(0.4) {
        layer.shortcut = [dense(random.whole(1...20))]
        size = Geometry.output(layer.shortcut, input)!.size
      } else {
        size = input
      }
      layer.body.append(dense(size.channels))
      return layer
    }
    let stride = random.pick(weighted: [(3, 1), (1, 2)])
    let window = random.pick([1, 3, 5])
    let changes = stride > 1 || random.chance(0.3)
    let filters = changes ? self.filters() : input.channels
    func fitting(_ window: Int, stride: Int) -> LayerText {
      var arguments = [("filters", "\(filters)"), ("size", "\(window)")]
      if stride > 1 { arguments.append(("stride", "\(stride)")) }
      if window > 1 { arguments.append(("padding", "\(window / 2)")) }
      return LayerText("conv", arguments)
    }
    layer.body.append(fitting(window, stride: stride))
    layer.body[0].arguments += activationArguments("relu").map { (name: $0.0, value: $0.1) }
    size = Geometry.output(layer.body, input)?.size ?? input
    while random.chance(0.6) {
      switch random.pick(weighted: [(5, 0), (2, 1), (depth < 2 ? 1 : 0, 2)]) {
      case 0: layer.body.append(elementwise(size))
      case 1:
        layer.body.append(fitting(3, stride: 1))
        if random.chance(0.5) { layer.body[layer.body.count - 1]["activation"] = "none" }
      default:
        var inner = residual(size, depth: depth + 1)
        if Geometry.output(inner, size)?.size != size { inner = elementwise(size) }
        layer.body.append(inner)
      }
    }
    if changes {
      var beside = fitting(1, stride: stride)
      if random.chance(0.7) { beside["activation"] = "none" }
      layer.shortcut = [beside]
      while random.chance(0.3) { layer.shortcut.append(elementwise(size)) }
    }
    return layer
  }

  /// So many layers or a few more that fit onto each other; `size` becomes what they make of it.
  private mutating func layers(
    _ count: Int, from size: inout Size, depth: Int = 0, flattens: Bool = true
  ) -> [LayerText] {
    var result: [LayerText] = []
    var tries = 0
    while result.count < count && tries < 50 {
      tries += 1
      var next: [LayerText]
      if size.isFlat {
        next =
          switch random.pick(weighted: [(5, 0), (4, 1), (depth < 2 ? 1.5 : 0, 2), (0.3, 3)]) {
          case 0: [dense(random.whole(1...40))]
          case 1: [elementwise(size)]
          case 2: [residual(size, depth: depth)]
          default: [convolution(size)]
          }
      } else {
        next =
          switch random.pick(weighted: [
            (6, 0), (3, 1), (3, 2), (depth < 2 ? 2 : 0, 3), (2, 4), (flattens ? 0.5 : 0, 5),
            (flattens ? 0.3 : 0, 6),
          ]) {
          case 0: [convolution(size)]
          case 1: [pooling(size)]
          case 2: [elementwise(size)]
          case 3: [residual(size, depth: depth)]
          case 4: neighbours(size)
          case 5: [LayerText("flatten")]
          default: [LayerText("globalavgpool")]
          }
      }
      guard let (output, _) = Geometry.output(next, size), output.count <= 20_000 else { continue }
      result += next
      size = output
    }
    return result
  }

  /// What a network ends in, and its loss.
  private mutating func end(_ input: Size) -> (layers: [LayerText], loss: String) {
    let classes = random.pick(weighted: [(1, 1), (4, random.whole(2...12)), (2, 10)])
    let start = initializer()
    func last(_ name: String) -> LayerText {
      LayerText(name, [("outputs", "\(classes)")] + start)
    }
    var list: [LayerText] = []
    if !input.isFlat {
      list.append(LayerText(random.chance(0.8) ? "flatten" : "globalavgpool"))
    }
    let softmax = LayerText("activation", [("activation", "softmax")])
    var isClassifier = true
    switch random.pick(weighted: [(8, 0), (1, 1), (2, 2), (1, 3), (1, 4)]) {
    case 0: list.append(last("softmax"))
    case 1: list += [last("dense"), softmax]
    case 2:
      list.append(last(random.pick(["dense", "tanh", "sigmoid", "relu", "gelu"])))
      isClassifier = false
    case 3: list += [last("dense"), LayerText("batchnorm", [("activation", "softmax")])]
    default: list.append(softmax)
    }
    let entropy = random.chance(0.3) ? "cross_entropy:0.1" : "cross_entropy"
    return (list, isClassifier && random.chance(0.85) ? entropy : "mean_squared_error")
  }

  // MARK: All the rest

  private mutating func draw(_ instructionSets: [String], _ precision: Precision?) -> Case? {
    let height = axis()
    let input = Size(
      height: height, width: random.chance(0.5) ? height : axis(), channels: random.whole(1...8))
    var size = input
    var list = layers(random.pick([0, 1, 1, 2, 2, 3, 3, 4, 5, 7]), from: &size)
    let (last, loss) = end(size)
    list += last
    guard let (output, perImage) = Geometry.output(list, input), output.count <= 2000 else {
      return nil
    }
    let most = min(300, work / max(1, perImage))
    guard most >= 1 else { return nil }
    var result = Case(
      seed: seed, layers: LayerText.text(list), height: input.height, width: input.width,
      channels: input.channels, batches: batches(most),
      instructionSet: random.pick(instructionSets))
    result.images = random.pick(weighted: [
      (8, .noise), (4, .bytes), (2, .offset), (0.5, .large), (0.5, .small), (1, .flat), (2, .spike),
      (1, .steps), (0.3, .zeros),
    ])
    result.evaluated = min(most, random.pick([1, 2, 3, 5, 9, 20, 140]))
    result.loss = loss
    result.optimizer = Optimizer(random.pick(Optimizer.Method.allCases))
    if random.chance(0.3) { result.optimizer.momentum = random.pick([0, 0.5, 0.95]) }
    if random.chance(0.3) { result.optimizer.weightDecay = random.pick([1e-4, 0.01, 0.3]) }
    if random.chance(0.15) { result.optimizer.l1 = 1e-3 }
    if random.chance(0.3) { result.optimizer.clipNorm = random.pick([0.01, 1, 100]) }
    result.rate = random.pick([0.1, 0.03, 0.01, 0.001])
    if random.chance(0.4) { result.averageDecay = random.pick([0.5, 0.9, 0.995]) }
    result.kernels = random.pick(KernelChoice.names)
    result.threads = random.whole(1...3)
    result.fusing = random.chance(0.7)
    result.exportsC = random.chance(0.1)
    result.resumes = random.chance(0.3)
    let any: Precision = random.chance(0.25) ? .bf16 : .float32
    result.precision = precision ?? any
    if result.precision == .bf16 {
      result.kernels = "auto"
      result.unit = random.pick(Machine.units(of: result.instructionSet))
    }
    return result
  }

  /// One size again and again, an epoch whose last batch is smaller, or any.
  private mutating func batches(_ most: Int) -> [Int] {
    let any = min(
      most,
      random.pick(weighted: [
        (1, 1), (3, random.whole(1...16)), (4, random.whole(17...80)), (2, random.whole(81...300)),
      ]))
    switch random.pick(weighted: [(2, 0), (4, 1), (3, 2)]) {
    case 0: return [any, any]
    case 1: return [any, random.whole(max(1, any - 16)...any)]
    default: return [any, random.whole(1...any), random.whole(1...most)]
    }
  }
}
