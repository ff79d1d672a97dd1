/// A parameter: its values as they are, and the gradient that the last backward pass found.
final class Weights {
  let name: String
  let values: [Double]
  var gradient: [Number] = []
  /// What a statistic becomes in a training pass.
  var next: [Number]?

  init(_ name: String, _ values: [Float]) {
    self.name = name
    self.values = values.map(Double.init)
  }
}

/// A step of the reference: the formula of a layer, or a part of it, and its derivative.
class Part {
  var weights: [Weights] { [] }
  /// Whether winograd's transforms are between.
  var transforms: Bool { false }
  /// Whether what is no number goes further than the formula says.
  var spreadsHoles: Bool { transforms }
  func forward(_ x: Field, training: Bool) -> Field { fatalError() }
  /// The gradient of x of the last forward pass; gradients of weights stay with them.
  func backward(_ dy: Field) -> Field { fatalError() }
}

final class Reshape: Part {
  private let input, output: Size

  init(_ input: Size, _ output: Size) { (self.input, self.output) = (input, output) }

  override func forward(_ x: Field, training: Bool) -> Field { x.reshaped(to: output) }
  override func backward(_ dy: Field) -> Field { dy.reshaped(to: input) }
}

/// body(x) + shortcut(x), or + x.
final class Fork: Part {
  let body, shortcut: [Part]

  init(_ body: [Part], _ shortcut: [Part]) { (self.body, self.shortcut) = (body, shortcut) }

  override var weights: [Weights] { (body + shortcut).flatMap(\.weights) }
  override var transforms: Bool { (body + shortcut).contains(where: \.transforms) }
  override var spreadsHoles: Bool { (body + shortcut).contains(where: \.spreadsHoles) }

  private func sum(_ a: Field, _ b: Field) -> Field {
    let y = Field(a.batch, a.size)
    for i in 0..<y.count { y[i] = a[i] + b[i] }
    for c in y.shared.indices { y.shared[c] = a.shared[c] + b.shared[c] }
    y.repeats = a.repeats || b.repeats
    return y
  }

  override func forward(_ x: Field, training: Bool) -> Field {
    sum(
      body.reduce(x) { $1.forward($0, training: training) },
      shortcut.reduce(x) { $1.forward($0, training: training) })
  }

  override func backward(_ dy: Field) -> Field {
    sum(
      body.reversed().reduce(dy) { $1.backward($0) },
      shortcut.reversed().reduce(dy) { $1.backward($0) })
  }
}
