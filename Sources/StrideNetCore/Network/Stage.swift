/// A parameter of a network: its values, and the gradient of the loss with respect to them. The
/// network has all of them side by side in one block of memory, so that an update is one pass and a
/// snapshot one reference.
package final class Parameter {
  /// With the layer's place: "layers.0.weight".
  package let name: String
  package let description: ParameterShape

  /// The values; `count` of them.
  package var value: UnsafeMutablePointer<Float>
  /// The gradient; a backward pass overwrites it.
  package var gradient: UnsafeMutablePointer<Float>
  /// What the optimiser remembers, array after array, of the values that this process updates. Valid
  /// while the network is trained.
  private(set) var memories = UnsafeMutablePointer<UnsafeMutablePointer<Float>>.allocate(
    capacity: 1)
  var updated = UpdatedPart.all
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

  package var shape: [Int] { description.shape }
  package var count: Int { description.count }
  package var isTrained: Bool { description.isTrained }
  package var values: [Float] { Array(UnsafeBufferPointer(start: value, count: count)) }
}

/// The values of a parameter that a process updates: others of several processes have others.
enum UpdatedPart {
  case all
  /// In the order of memory.
  case range(Range<Int>)
  /// Of the rows of a matrix, each so long.
  case columns(Range<Int>, of: Int)

  /// How many of `count` values these are.
  func count(of count: Int) -> Int {
    switch self {
    case .all: count
    case .range(let range): range.count
    case .columns(let columns, let length): count / length * columns.count
    }
  }

  /// The place of value number `index` among these.
  func place(of index: Int) -> Int {
    switch self {
    case .all: index
    case .range(let range): index - range.lowerBound
    case .columns(let columns, let length):
      index / length * columns.count + index % length - columns.lowerBound
    }
  }

  /// Calls `body` with the places of all that lie side by side.
  func forEachRun(of count: Int, _ body: (_ index: Int, _ place: Int, _ count: Int) -> Void) {
    switch self {
    case .all: body(0, 0, count)
    case .range(let range): body(range.lowerBound, 0, range.count)
    case .columns(let columns, let length):
      for row in 0..<count / length {
        body(row * length + columns.lowerBound, row * columns.count, columns.count)
      }
    }
  }
}

/// An operation in its network, with the parameters there.
package struct Bound {
  let operation: LayerOperation
  package let parameters: [Parameter]
  /// What it draws depends on it: dropout's masks.
  let number: Int
  /// Of a sum, what is added.
  package let body, shortcut: [Stage]

  package var kind: LayerOperation.Kind { operation.kind }
  package var activation: Activation { operation.activation }
  package var input: Shape { operation.input }
  package var output: Shape { operation.output }

  /// Its parameters and those of layers inside it, in the order of files.
  var allParameters: [Parameter] { parameters + (body + shortcut).flatMap(\.parameters) }

  /// Whether it is a weighted sum with a weight for each product.
  package var hasWeights: Bool {
    switch kind {
    case .convolve, .multiply: true
    default: false
    }
  }
  /// Whether its sums are of more than what it multiplies.
  package var normalizes: Bool {
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
package struct Stage {
  let layer: any Layer
  package let input, output: Shape
  package let operations: [Bound]

  package var text: String { layer.text }
  /// The operation, of a layer that has one.
  package var only: Bound? { operations.count == 1 ? operations[0] : nil }
  /// All that it learns or remembers, in the order of files; that of layers inside it included.
  package var parameters: [Parameter] { operations.flatMap(\.allParameters) }
  /// Whether nothing is computed.
  package var onlyReshapes: Bool {
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
  package func unknown(_ operation: Bound, to format: String, number: Int) -> StrideNetError {
    StrideNetError(
      .badData, "a layer that can't be exported to \(format)", at: "layer \(number), \(text)",
      found: operation.activation.isOwn
        ? "the activation '\(operation.activation.name)', a function of one's own"
        : "a layer of one's own",
      expected: "layers and activations of StrideNet's")
  }
}

extension Activation {
  package var isNone: Bool { if case .none = kind { true } else { false } }
  package var isOwn: Bool { if case .own = kind { true } else { false } }
}
