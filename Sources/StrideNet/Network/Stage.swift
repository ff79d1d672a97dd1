/// A parameter of a network: its values, and the gradient of the loss with respect to them. The
/// network has all of them side by side in one block of memory, so that an update is one pass and a
/// snapshot one reference.
final class Parameter {
  /// With the layer's place: "layers.0.weight".
  let name: String
  let description: ParameterShape

  /// The values; `count` of them.
  var value: UnsafeMutablePointer<Float>
  /// The gradient; a backward pass overwrites it.
  var gradient: UnsafeMutablePointer<Float>
  /// What the optimiser remembers, array after array. Valid while the network is trained.
  private(set) var memories = UnsafeMutablePointer<UnsafeMutablePointer<Float>>.allocate(
    capacity: 1)
  /// Whether no step changes it, and what is added to its gradient.
  var isFrozen = false
  var regularizers: [any Regularizer] = []

  init(_ description: ParameterShape, name: String) {
    (self.description, self.name) = (description, name)
    // What a parameter points to before the network has given it memory.
    let unbound = UnsafeMutablePointer<Float>(bitPattern: 64)!
    (value, gradient) = (unbound, unbound)
  }

  deinit { memories.deallocate() }

  func setMemories(_ addresses: [UnsafeMutablePointer<Float>]) {
    memories.deallocate()
    memories = .allocate(capacity: max(1, addresses.count))
    memories.initialize(from: addresses, count: addresses.count)
  }

  var shape: [Int] { description.shape }
  var count: Int { description.count }
  var isTrained: Bool { description.isTrained }
  var values: [Float] { Array(UnsafeBufferPointer(start: value, count: count)) }
}

/// An operation in its network, with the parameters there.
struct Bound {
  let operation: LayerOperation
  let parameters: [Parameter]
  /// What it draws depends on it: dropout's masks.
  let number: Int
  /// Of a sum, what is added.
  let body, shortcut: [Stage]

  var kind: LayerOperation.Kind { operation.kind }
  var activation: Activation { operation.activation }
  var input: Shape { operation.input }
  var output: Shape { operation.output }

  /// Its parameters and those of layers inside it, in the order of files.
  var allParameters: [Parameter] { parameters + (body + shortcut).flatMap(\.parameters) }

  /// Whether it is a weighted sum with a weight for each product.
  var hasWeights: Bool {
    switch kind {
    case .convolve, .multiply: true
    default: false
    }
  }
  /// Whether its sums are of more than what it multiplies.
  var normalizes: Bool {
    switch kind {
    case .normalizeBatch, .normalizePixels: true
    default: false
    }
  }

  /// The same without its activation.
  var withoutActivation: Bound {
    Bound(
      operation: LayerOperation(operation.kind, input, output, operation.parameters),
      parameters: parameters, number: number, body: body, shortcut: shortcut)
  }
}

/// A layer in its network: what is walked by all that looks into a network or writes it elsewhere.
struct Stage {
  let layer: any Layer
  let input, output: Shape
  let operations: [Bound]

  var text: String { layer.text }
  /// The operation, of a layer that has one.
  var only: Bound? { operations.count == 1 ? operations[0] : nil }
  /// All that it learns or remembers, in the order of files; that of layers inside it included.
  var parameters: [Parameter] { operations.flatMap(\.allParameters) }
  /// Whether nothing is computed.
  var onlyReshapes: Bool {
    operations.allSatisfy(\.kind.isReshape)
  }

  /// The layers with parameters of their own.
  /// - Parameters:
  ///   - prefix: of the parameters' names: "layers"
  ///   - number: that of the first layer among all, those inside others included
  static func list(_ layers: [LoweredLayer], prefix: String = "layers") -> [Stage] {
    var number = 0
    return list(layers, prefix, &number)
  }

  private static func list(_ layers: [LoweredLayer], _ prefix: String, _ number: inout Int)
    -> [Stage]
  {
    layers.enumerated().map { index, lowered in
      let own = number
      number += 1
      let withParameters = lowered.operations.count { operation in
        if case .add = operation.kind { true } else { !operation.parameters.isEmpty }
      }
      let operations = lowered.operations.enumerated().map { place, operation in
        // Several of a layer's operations may have a "weight".
        let prefix = "\(prefix).\(index)" + (withParameters > 1 ? ".\(place)" : "")
        var (body, shortcut) = ([Stage](), [Stage]())
        if case .add(let one, let other) = operation.kind {
          body = list(one, "\(prefix).body", &number)
          shortcut = list(other, "\(prefix).shortcut", &number)
        }
        return Bound(
          operation: operation,
          parameters: operation.parameters.map { Parameter($0, name: "\(prefix).\($0.name)") },
          number: own + place << 24, body: body, shortcut: shortcut)
      }
      return Stage(
        layer: lowered.layer, input: lowered.input, output: lowered.output, operations: operations)
    }
  }

  /// Says that a format hasn't the layer; `number` is its place in the network or around it.
  func unknown(_ operation: Bound, to format: String, number: Int) -> StrideNetError {
    StrideNetError(
      .badData, "a layer that can't be exported to \(format)", at: "layer \(number), \(text)",
      found: operation.activation.isOwn
        ? "the activation '\(operation.activation.name)', a function of one's own"
        : "a layer of one's own",
      expected: "layers and activations of StrideNet's")
  }
}

extension Network {
  /// The layers, of a network that can be written to `path`.
  /// - Throws: ``StrideNetError`` if it isn't built or has weights that aren't finite
  func stages(for path: String) throws -> [Stage] {
    try requireWeights(for: path)
    for tensor in snapshot().arrays { try tensor.checkFinite(at: path) }
    return stages
  }
}

extension Activation {
  var isNone: Bool { if case .none = kind { true } else { false } }
  var isOwn: Bool { if case .own = kind { true } else { false } }
}
