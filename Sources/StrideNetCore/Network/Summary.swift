import Foundation

/// A network's layers before anything is trained: sizes, parameters, operations, memory.
public struct NetworkSummary: Sendable, CustomStringConvertible {
  public struct Layer: Sendable {
    /// From 1.
    public let number: Int
    /// As `--layers` has it.
    public let text: String
    /// The size of one example.
    public let output: Shape
    /// The arrays by the names that files have for them.
    public let arrays: [(name: String, shape: [Int])]
    /// Trained values.
    public let parameters: Int
    /// Floating-point operations of convolutions and dense layers for one example, two a multiply-add.
    public let operations: Double
  }

  public let input: Shape
  public let layers: [Layer]
  /// Bytes that prediction of one example takes, at most.
  package let bytesToPredict: Double
  /// Trained values.
  public var parameters: Int { layers.reduce(0) { $0 + $1.parameters } }
  /// Of a forward pass over one example.
  public var operations: Double { layers.reduce(0) { $0 + $1.operations } }

  /// - Throws: ``StrideNetError`` naming the layer that doesn't fit and both shapes
  package init(_ layers: [any StrideNetCore.Layer], input: Shape) throws {
    self.input = input
    bytesToPredict = try NetworkNeed(of: layers, for: input).bytesToPredict(1)
    self.layers = Stage.list(try LoweredLayer.list(layers, for: input)).enumerated().map {
      index, stage in
      let parameters = stage.parameters
      return Layer(
        number: index + 1, text: stage.text, output: stage.output,
        arrays: parameters.map { ($0.name, $0.shape) },
        parameters: parameters.reduce(0) { $0 + ($1.isTrained ? $1.count : 0) },
        operations: Network.operations([stage], training: false))
    }
  }

  /// A table of at most 80 columns.
  public var description: String {
    func row(
      _ number: String, _ text: String, _ output: String, _ parameters: String, _ work: String
    )
      -> String
    {
      func left(_ text: String, _ width: Int) -> String {
        text.count > width
          ? text.prefix(width - 1) + "…" : text + String(repeating: " ", count: width - text.count)
      }
      func right(_ text: String, _ width: Int) -> String {
        String(repeating: " ", count: max(0, width - text.count)) + text
      }
      return "\(right(number, 3))  \(left(text, 34)) \(left(output, 12)) \(right(parameters, 11)) "
        + right(work, 11)
    }
    func grouped(_ value: Int) -> String {
      let digits = Array(String(value).reversed())
      return String(
        stride(from: 0, to: digits.count, by: 3)
          .map { String(digits[$0..<min($0 + 3, digits.count)]) }.joined(separator: ",").reversed())
    }
    func work(_ operations: Double) -> String {
      operations == 0 ? "" : String(format: "%.3f M", operations / 1e6)
    }
    return
      ([
        row("", "layer", "output", "parameters", "operations"),
        row("", "image", "\(input)", "", ""),
      ]
      + layers.map {
        row(
          "\($0.number)", $0.text, "\($0.output)", $0.parameters == 0 ? "" : grouped($0.parameters),
          work($0.operations))
      } + [
        row("", "total", "", grouped(parameters), work(operations)),
        "memory to predict one image: at most \(MemoryNeed.text(bytesToPredict))",
      ]).joined(separator: "\n")
  }
}

extension Network {
  /// What the network's layers are like, for an input of that size; without one, for that which the
  /// network has been built for.
  /// - Throws: ``StrideNetError`` where the layers don't fit it, or there is none
  public func summary(for input: Shape? = nil) throws -> NetworkSummary {
    guard let input = input ?? self.input else {
      throw StrideNetError(
        .usage, "a network that knows no input yet", expected: "summary(for: Shape(28, 28, 1))")
    }
    return try NetworkSummary(layers, input: input)
  }
}

extension Network {
  /// Floating-point operations for one image, two a multiply-add, of convolutions and dense layers
  /// alone, those inside others included; what else there is counts for little. Training has a
  /// gradient for the weights and one for the input, the latter not where nobody needs it: in the
  /// first operations that learn. 0 until built.
  package func operations(training: Bool) -> Double {
    Self.operations(stages, training: training)
  }

  static func operations(_ stages: [Stage], training: Bool) -> Double {
    func sum(_ stages: [Stage], _ isNeeded: inout Bool) -> Double {
      var total = 0.0
      for operation in stages.flatMap(\.operations) {
        if operation.hasWeights {
          let once =
            2 * Double(operation.parameters[0].count)
            * Double(
              operation.output.count / operation.parameters[1].count)
          total += once * (training ? (isNeeded ? 3 : 2) : 1)
          isNeeded = true
          continue
        }
        // Both sides of a sum begin at its input.
        var (body, shortcut) = (isNeeded, isNeeded)
        total += sum(operation.body, &body) + sum(operation.shortcut, &shortcut)
        isNeeded = isNeeded || body || shortcut || !operation.parameters.isEmpty
      }
      return total
    }
    var isNeeded = false
    return sum(stages, &isNeeded)
  }
}
