import StrideNetCore

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
    package init(_ index: Int, in shape: Shape) {
      self.init(
        index / (shape.width * shape.channels), index / shape.channels % shape.width,
        index % shape.channels)
    }

    /// The place as an index.
    package func index(in shape: Shape) -> Int {
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
    /// 1 / n of a mean; of a maximum, 1 for the chosen one, else 0; of a weight's gradient, the gradient at the output ``to``.
    public let factor: Float
    public let weight: Int?
    public let to: Place
    /// The example of the batch.
    public let example: Int

    /// What isn't taken adds nothing, were it infinite.
    public var product: Double { factor == 0 ? 0 : Double(value) * Double(factor) }
  }

  /// What kind of a sum it is. Of a maximum, "largest", all that it was chosen from is there. Of a residual connection the terms are what its layers made, and what
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
  package let tolerance: Double

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
        pass.forward($0, Pass(runtime: runtime, training: false, share: .whole(1)))
      }
    }
    // What an activation makes of a rounded sum is compared; without one nothing is rounded.
    self.result = activation.name == "none" || activation.isSoftmax ? sum : Double(result[0])
    let magnitude = terms.reduce(abs(Double(bias))) { $0 + abs($1.product) }
    tolerance = 2 * Double(terms.count + 2) * 0x1p-24 * magnitude + 0x1p-20 * abs(self.result)
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
  ///   - trace: without targets, and of the weights as they are
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
    let value = (number == layers.count ? trace.logits ?? y : y)[example * y.shape.count + output]
    return try x.withView { view in
      if let sum = stage.only, case .add = sum.kind {
        let terms = try sides(of: sum, view, output: output, example: example)
        return Provenance(kind: "both sides", terms, value: value)
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
      return Provenance(
        kind: wiring.kind, terms, bias: wiring.bias, activation: wiring.activation, value: value)
    }
  }

  /// What the two sides of a residual connection made, which isn't in the trace.
  private func sides(of sum: Bound, _ x: TensorView, output: Int, example: Int) throws
    -> [Provenance.Term]
  {
    let node = AddNode(sum, runtime)
    try node.reserve(
      batch: x.batch, input: x.shape, output: sum.output, runtime: runtime, training: false)
    try node.prepareInference()
    let sides = node.sides(x, Pass(runtime: runtime, training: false, share: .whole(x.batch)))
    let place = Provenance.Place(output, in: sum.output)
    return [sides.body, sides.shortcut].map { side in
      Provenance.Term(
        from: place, value: side.example(example)[output], factor: 1, weight: nil, to: place,
        example: example)
    }
  }

  /// What the layer was given.
  func input(of number: Int, in trace: Trace) -> Tensor {
    number == 1 ? trace.input : trace.layers[number - 2].output
  }

  /// The terms of the gradient of one weight of a convolution or dense layer: each value that the
  /// weight was multiplied by, times the gradient of the loss with respect to the sum that the
  /// product went into.
  /// - Parameters:
  ///   - trace: with targets, the last one
  ///   - number: the layer's, from 1
  ///   - place: in the layer's weights: (FH, FW, C, F) or (outputs, inputs)
  public func provenance(ofGradientIn trace: Trace, layer number: Int, weight place: [Int]) throws
    -> Provenance
  {
    let stage = try check(trace, layer: number, example: 0)
    guard let gradient = trace.layers[number - 1].innerGradient else {
      throw StrideNetError(
        .usage, "a trace without its backward pass", expected: "one of a mini-batch with targets")
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
    let terms = gradientTerms(
      of: operation, weight: place, index, input(of: number, in: trace), gradient)
    return Provenance(kind: "gradient", terms, value: parameter.gradient[index])
  }

  /// For each product that a weight was in, the value times the gradient of the sum.
  private func gradientTerms(
    of operation: Bound, weight place: [Int], _ index: Int, _ x: Tensor, _ gradient: Tensor
  ) -> [Provenance.Term] {
    let (below, above) = (x.shape, gradient.shape)
    var terms: [Provenance.Term] = []
    func add(_ example: Int, _ from: Provenance.Place, _ to: Provenance.Place) {
      terms.append(
        .init(
          from: from, value: x[example * below.count + from.index(in: below)],
          factor: gradient[example * above.count + to.index(in: above)], weight: index, to: to,
          example: example))
    }
    for example in 0..<x.batch {
      guard case .convolve(let layer, let start) = operation.kind else {
        add(example, .init(place[1], in: below), .init(place[0], in: above))
        continue
      }
      let channels = below.channels / layer.groups
      let channel = place[3] / (layer.filters / layer.groups) * channels + place[2]
      for p in 0..<above.height {
        let row = p * layer.stride.height + place[0] * layer.dilation.height - start.top
        guard (0..<below.height).contains(row) else { continue }
        for q in 0..<above.width {
          let column = q * layer.stride.width + place[1] * layer.dilation.width - start.left
          guard (0..<below.width).contains(column) else { continue }
          add(example, .init(row, column, channel), .init(p, q, place[3]))
        }
      }
    }
    return terms
  }
}
