import StrideNetCore
import StrideNetFiles

/// Where a number comes from: the multiply-adds behind one value of a layer's output, and the terms
/// of one weight's gradient. Computed here in the plainest way, from what the layer was given, to be
/// held against what its kernel made: `stridenet explain FILE`.
public struct Provenance: Sendable {
  /// A place in one example of an array: row, column, channel.
  public struct Place: Sendable, Hashable {
    public let row, column, channel: Int

    public init(_ row: Int, _ column: Int, _ channel: Int) {
      (self.row, self.column, self.channel) = (row, column, channel)
    }

    /// The place of the `index`-th value of one example.
    public init(_ index: Int, in shape: Shape) {
      self.init(
        index / (shape.width * shape.channels), index / shape.channels % shape.width,
        index % shape.channels)
    }

    /// The place as an index.
    public func index(in shape: Shape) -> Int {
      (row * shape.width + column) * shape.channels + channel
    }
  }

  /// One product of the sum.
  public struct Term: Sendable {
    /// What is multiplied: of an activation, a value of the layer's input there; of a weight's
    /// gradient, likewise.
    public let from: Place
    public let value: Float
    /// By what: a weight, and its place in the layer's weights (FH, FW, C, F) or (outputs, inputs);
    /// 1 / n of a mean; of a weight's gradient, the gradient at the output ``to``.
    public let factor: Float
    public let weight: Int?
    public let to: Place
    /// The example of the batch.
    public let example: Int

    public var product: Double { Double(value) * Double(factor) }
  }

  /// What kind of a sum it is. Of a residual connection the terms are what its layers made, and what
  /// the shortcut did.
  public let kind: String
  /// In the order in which the definition adds them; padding isn't among them.
  public let terms: [Term]
  /// What is added to the terms: a bias, or a normalisation's shift.
  public let bias: Float
  /// The terms and the bias, in double precision.
  public let sum: Double
  /// The activation's name, and what it makes of the sum; "none" where there isn't one.
  public let activation: String
  public let result: Double
  /// What the kernel computed.
  public let value: Float
  /// How far rounding to floats may take the two apart: n terms added in any order err by at most
  /// n · 2⁻²⁴ of the sum of their magnitudes (Higham 2002, section 4.2); twice that, for the products
  /// and the activation.
  public let tolerance: Double

  /// Whether both agree.
  public var agrees: Bool { abs(result - Double(value)) <= tolerance }

  fileprivate init(
    kind: String, _ terms: [Term], bias: Float = 0, activation: Activation = .none, value: Float
  ) {
    (self.kind, self.terms, self.bias, self.value) = (kind, terms, bias, value)
    sum = terms.reduce(Double(bias)) { $0 + $1.product }
    self.activation = activation.name
    var result = Tensor(batch: 1, shape: Shape(1))
    result[0] = Float(sum)
    if !activation.isSoftmax {
      let pass = ActivationPass(activation)
      let runtime = Runtime(threads: 1)
      result.withMutableView {
        pass.forward($0, Pass(runtime: runtime, training: false))
      }
    }
    // What an activation makes of a rounded sum is compared; without one nothing is rounded.
    self.result = activation.name == "none" || activation.isSoftmax ? sum : Double(result[0])
    let magnitude = terms.reduce(abs(Double(bias))) { $0 + abs($1.product) }
    tolerance = 2 * Double(terms.count + 2) * 0x1p-24 * magnitude + 0x1p-20 * abs(self.result)
  }
}

/// How a layer's output depends on its input, one value of it: Σ coefficient · input + bias.
struct Wiring {
  var kind = "weighted sum"
  /// In the definition's order.
  var links: [(input: Int, coefficient: Float, weight: Int?)] = []
  var bias: Float = 0
  var activation = Activation.none

  /// - Parameters:
  ///   - output: the value's index in one example of the layer's output
  ///   - x: one example of its input
  /// - Returns: nil for operations that aren't sums
  init?(_ operation: Bound, output: Int, x: UnsafePointer<Float>) {
    let (below, parameters) = (operation.input, operation.parameters)
    let at = Provenance.Place(output, in: operation.output)
    activation = operation.activation
    switch operation.kind {
    case .convolve(let layer, let start):
      let weight = parameters[0]
      let channels = weight.shape[2]
      let first = at.channel / (layer.filters / layer.groups) * channels
      for i in 0..<layer.size.height {
        for j in 0..<layer.size.width {
          let row = at.row * layer.stride.height + i * layer.dilation.height - start.top
          let column = at.column * layer.stride.width + j * layer.dilation.width - start.left
          guard (0..<below.height).contains(row), (0..<below.width).contains(column) else {
            continue
          }
          for c in 0..<channels {
            let place = ((i * layer.size.width + j) * channels + c) * layer.filters + at.channel
            links.append(
              (
                (row * below.width + column) * below.channels + first + c,
                weight.value[place], place
              ))
          }
        }
      }
      bias = parameters[1].value[at.channel]
    case .multiply:
      let row = output * below.count
      links = (0..<below.count).map { ($0, parameters[0].value[row + $0], row + $0) }
      bias = parameters[1].value[output]
    case .pool(let pooling):
      var window: [Int] = []
      for i in 0..<pooling.size.height {
        for j in 0..<pooling.size.width {
          let row = at.row * pooling.stride.height + i
          let column = at.column * pooling.stride.width + j
          window.append((row * below.width + column) * below.channels + at.channel)
        }
      }
      if pooling.isMax {
        kind = "largest"
        // The first largest, as in training.
        let best = window.max { x[$0] < x[$1] || (x[$0] == x[$1] && $0 > $1) }!
        links = [(best, 1, nil)]
      } else {
        kind = "mean"
        links = window.map { ($0, 1 / Float(window.count), nil) }
      }
    case .normalizeBatch(_, let epsilon):
      kind = "normalised"
      let (scale, shift) = RunningFactors(operation, epsilon: epsilon)[at.channel]
      links = [(output, scale, nil)]
      bias = shift
    case .normalizePixels(let epsilon):
      kind = "normalised"
      let pixel = UnsafeBufferPointer(
        start: x + output - at.channel, count: below.channels)
      let mean = pixel.reduce(0) { $0 + Double($1) } / Double(pixel.count)
      let variance =
        pixel.reduce(0) { $0 + (Double($1) - mean) * (Double($1) - mean) } / Double(pixel.count)
      let scale =
        Double(parameters[0].value[at.channel]) / (variance + Double(epsilon)).squareRoot()
      links = [(output, Float(scale), nil)]
      bias = Float(Double(parameters[1].value[at.channel]) - mean * scale)
    case .activate, .drop, .reshape:
      kind = "taken over"
      links = [(output, 1, nil)]
    case .add, .own: return nil
    }
  }
}

extension Network {
  private func check(_ trace: Trace, layer number: Int, example: Int) throws -> Stage {
    guard (1...layers.count).contains(number) else {
      throw StrideNetError(
        .usage, "no such layer", found: "\(number)",
        expected: "1 … \(layers.count), as in \(Architecture.text(layers))")
    }
    guard (0..<trace.input.batch).contains(example) else {
      throw StrideNetError(
        .usage, "no such example in the batch", found: "\(example)",
        expected: "0 … \(trace.input.batch - 1)")
    }
    return stages[number - 1]
  }

  private func check(_ place: Provenance.Place, in shape: Shape, _ layer: String) throws {
    guard (0..<shape.height).contains(place.row), (0..<shape.width).contains(place.column),
      (0..<shape.channels).contains(place.channel)
    else {
      throw StrideNetError(
        .usage, "no such place", at: layer,
        found: "row \(place.row), column \(place.column), channel \(place.channel)",
        expected: "within \(shape), each from 0")
    }
  }

  /// The multiply-adds behind one value of a layer's output.
  /// - Parameters:
  ///   - trace: without labels, and of the weights as they are
  ///   - number: the layer's, from 1
  ///   - place: in the layer's output
  ///   - example: which of the batch
  /// - Throws: ``StrideNetError`` for a place that isn't there, and for layers that aren't sums of
  ///   their input: those of one's own
  public func provenance(
    in trace: Trace, layer number: Int, at place: Provenance.Place, example: Int = 0
  ) throws -> Provenance {
    let stage = try check(trace, layer: number, example: example)
    let (x, y) = (self.input(of: number, in: trace), trace.layers[number - 1].output)
    try check(place, in: y.shape, stage.text)
    let output = place.index(in: y.shape)
    return try x.withView { view in
      if let sum = stage.only, case .add = sum.kind {
        // What the layers inside made of it isn't in the trace.
        let node = AddNode(sum, runtime)
        try node.reserve(
          batch: view.batch, input: view.shape, output: y.shape, runtime: runtime, training: false)
        try node.prepareInference()
        let sides = node.sides(view, Pass(runtime: runtime, training: false))
        let terms = [sides.body, sides.shortcut].map { side in
          Provenance.Term(
            from: place, value: side.example(example)[output], factor: 1, weight: nil, to: place,
            example: example)
        }
        return Provenance(
          kind: "both sides", terms, value: y[example * y.shape.count + output])
      }
      guard let operation = stage.only,
        let wiring = Wiring(operation, output: output, x: view.example(example))
      else {
        throw StrideNetError(
          .usage, "a layer that isn't a sum of its input", at: "layer \(number), \(stage.text)",
          expected: "one of the library's layers")
      }
      let terms = wiring.links.map { link in
        Provenance.Term(
          from: .init(link.input, in: x.shape), value: view.example(example)[link.input],
          factor: link.coefficient, weight: link.weight, to: place, example: example)
      }
      let kernels =
        number == layers.count ? trace.logits ?? y : y
      return Provenance(
        kind: wiring.kind, terms, bias: wiring.bias, activation: wiring.activation,
        value: kernels[example * y.shape.count + output])
    }
  }

  private func input(of number: Int, in trace: Trace) -> Tensor {
    number == 1 ? trace.input : trace.layers[number - 2].output
  }

  /// The terms of the gradient of one weight of a convolution or dense layer: each value that the
  /// weight was multiplied by, times the gradient of the loss with respect to the sum that the
  /// product went into.
  /// - Parameters:
  ///   - trace: with labels, the last one
  ///   - number: the layer's, from 1
  ///   - place: in the layer's weights: (FH, FW, C, F) or (outputs, inputs)
  public func provenance(ofGradientIn trace: Trace, layer number: Int, weight place: [Int]) throws
    -> Provenance
  {
    let stage = try check(trace, layer: number, example: 0)
    guard let gradient = trace.layers[number - 1].innerGradient else {
      throw StrideNetError(
        .usage, "a trace without its backward pass", expected: "one with labels")
    }
    guard let operation = stage.only, operation.hasWeights else {
      throw StrideNetError(
        .usage, "a layer without weights", at: "layer \(number), \(stage.text)",
        expected: "a convolution or a dense layer")
    }
    let parameter = operation.parameters[0]
    guard place.count == parameter.shape.count,
      zip(place, parameter.shape).allSatisfy({ (0..<$1).contains($0) })
    else {
      throw StrideNetError(
        .usage, "no such weight", at: "layer \(number), \(stage.text)",
        found: place.map(String.init).joined(separator: ","),
        expected: "a place within " + parameter.shape.map(String.init).joined(separator: "×")
          + ", each from 0")
    }
    let index = zip(place, parameter.shape).reduce(0) { $0 * $1.1 + $1.0 }
    let (x, above) = (input(of: number, in: trace), gradient.shape)
    var terms: [Provenance.Term] = []
    func add(_ example: Int, _ input: Int, _ output: Int) {
      terms.append(
        .init(
          from: .init(input, in: x.shape), value: x[example * x.shape.count + input],
          factor: gradient[example * above.count + output], weight: index,
          to: .init(output, in: above), example: example))
    }
    for example in 0..<x.batch {
      if case .convolve(let layer, let start) = operation.kind {
        let channel = place[3] / (layer.filters / layer.groups) * parameter.shape[2] + place[2]
        for p in 0..<above.height {
          let row = p * layer.stride.height + place[0] * layer.dilation.height - start.top
          guard (0..<x.shape.height).contains(row) else { continue }
          for q in 0..<above.width {
            let column = q * layer.stride.width + place[1] * layer.dilation.width - start.left
            guard (0..<x.shape.width).contains(column) else { continue }
            add(
              example, (row * x.shape.width + column) * x.shape.channels + channel,
              (p * above.width + q) * above.channels + place[3])
          }
        }
      } else {
        add(example, place[1], place[0])
      }
    }
    return Provenance(kind: "gradient", terms, value: parameter.gradient[index])
  }

  /// One step of a gradient's way back from the loss.
  public struct GradientStep: Sendable, Encodable {
    /// From 1; and the place in its output, as an index.
    public let layer, index: Int
    /// The gradient of the loss with respect to the sum there, before the activation.
    public let gradient: Float
    /// What the value below was multiplied by in that sum, and the share of the gradient below that
    /// came this way (shares of both signs add up to 1).
    public let factor: Float
    public let share: Double
  }

  /// The strongest way that the gradient at one output took from the loss: up from layer to layer,
  /// each time to the sum whose gradient times weight was largest. Ends below the first layer whose
  /// sums aren't of its input alone (normalisations, residual connections).
  /// - Parameters:
  ///   - trace: with labels, the last one
  ///   - number: the layer's, from 1
  ///   - index: of the output
  ///   - example: which of the batch
  public func gradientPath(in trace: Trace, layer number: Int, output index: Int, example: Int = 0)
    -> [GradientStep]
  {
    var (steps, index) = ([GradientStep](), index)
    for above in stride(from: number + 1, through: layers.count, by: 1) {
      let gradients = trace.layers[above - 1].innerGradient
      guard let gradients, let operation = stages[above - 1].only, !operation.normalizes else {
        break
      }
      let (x, shape) = (input(of: above, in: trace), gradients.shape)
      var best: (index: Int, gradient: Float, factor: Float)?
      var sum = 0.0
      x.withView { view in
        for output in 0..<shape.count {
          let gradient = gradients[example * shape.count + output]
          guard gradient != 0,
            let wiring = Wiring(operation, output: output, x: view.example(example))
          else { continue }
          for link in wiring.links where link.input == index {
            sum += Double(gradient * link.coefficient)
            if abs(gradient * link.coefficient) > abs((best?.gradient ?? 0) * (best?.factor ?? 0)) {
              best = (output, gradient, link.coefficient)
            }
          }
        }
      }
      guard let best else { break }
      steps.append(
        GradientStep(
          layer: above, index: best.index, gradient: best.gradient, factor: best.factor,
          share: Double(best.gradient * best.factor) / sum))
      index = best.index
    }
    return steps
  }

  // MARK: Paths

  /// A part of what one value passed on to the layer above.
  public struct Path: Sendable, Encodable {
    /// The layer above, from 1; index of the value in its output, and in its input.
    public let layer, to, from: Int
    /// Its share of the output that was asked for.
    public let share: Double
  }

  /// The strongest paths from the image to one output: its relevance is handed down layer by layer,
  /// to each value in proportion to what that added to the sum above it (layer-wise relevance
  /// propagation, the z⁺ rule: Bach et al. 2015, doi:10.1371/journal.pone.0130140), and the
  /// strongest few of each layer are followed.
  /// - Parameters:
  ///   - trace: without labels, of one image
  ///   - output: the index of one
  ///   - width: how many paths
  public func strongestPaths(in trace: Trace, to output: Int, width: Int = 6) -> [Path] {
    var paths: [Path] = []
    var relevance = [(index: output, share: 1.0)]
    for number in stride(from: layers.count, through: 1, by: -1) {
      let x = input(of: number, in: trace)
      var below: [Int: Double] = [:]
      var edges: [Path] = []
      x.withView { view in
        for (index, share) in relevance {
          guard let operation = stages[number - 1].only,
            let wiring = Wiring(operation, output: index, x: view.pointer)
          else { continue }
          let added = wiring.links.map { max(0, Double($0.coefficient * view[$0.input])) }
          let sum = added.reduce(0, +)
          guard sum > 0 else { continue }
          for (link, part) in zip(wiring.links, added) where part > 0 {
            let part = share * part / sum
            below[link.input, default: 0] += part
            edges.append(Path(layer: number, to: index, from: link.input, share: part))
          }
        }
      }
      relevance = below.map { (index: $0.key, share: $0.value) }
      relevance.sort { $0.share > $1.share || ($0.share == $1.share && $0.index < $1.index) }
      relevance = Array(relevance.prefix(width))
      let kept = Set(relevance.map(\.index))
      paths += edges.filter { kept.contains($0.from) }
    }
    return paths
  }
}
