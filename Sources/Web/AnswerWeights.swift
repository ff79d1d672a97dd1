import Foundation
import StrideNetCore
import StrideNetLaboratory

/// What a layer multiplies by: for one to recompute its numbers.
extension Workbench {
  struct WeightsQuestion: Decodable {
    let layer: Int
    /// Which filters or outputs: from that one on, so many.
    var first: Int?
    var count: Int?
  }

  struct Weights: Encodable {
    let activation: String
    let slope: Float
    /// For one filter or output after the other its weights, in the order in which the definition adds
    /// them; empty for layers that don't multiply by any.
    let values: Data
    let bias: [Float]
    /// Of a mean over windows, what each divides by, row by row.
    let divisors: [Int]
    /// Of the network's weights, as ``Look/weights``.
    let weights: Int
  }

  func weights(_ question: WeightsQuestion) throws -> Weights {
    let (first, count) = (question.first ?? 0, question.count ?? 1)
    let parameters = try need(KernelChoice.bound.name).parameters
    let network = try network(besides: Self.bytesAnAnswer * parameters)
    guard (1...network.stages.count).contains(question.layer) else {
      throw StrideNetError(
        .usage, "no such layer", found: "\(question.layer)", expected: "1 … \(network.stages.count)"
      )
    }
    let stage = network.stages[question.layer - 1]
    var (values, bias, divisors): ([Float], [Float], [Int]) = ([], [], [])
    if let operation = stage.only, operation.hasWeights {
      let outputs = operation.output.channels
      guard first >= 0, count >= 1, first < outputs, count <= outputs - first else {
        throw StrideNetError(
          .usage, "no such filters", found: "\(count) from \(first) on",
          expected: "within 0 ..< \(outputs)")
      }
      let weight = operation.parameters[0]
      let size = weight.shape.reduce(1, *) / outputs
      if case .multiply = operation.kind {
        values = (first * size..<(first + count) * size).map { weight.value[$0] }
      } else {
        for f in first..<first + count {
          for i in 0..<size { values.append(weight.value[i * outputs + f]) }
        }
      }
      bias = (first..<first + count).map { operation.parameters[1].value[$0] }
    } else if let operation = stage.only, case .pool(let pooling) = operation.kind, !pooling.isMax {
      for row in 0..<operation.output.height {
        for column in 0..<operation.output.width {
          divisors.append(pooling.window(row, column, over: operation.input).divisor)
        }
      }
    }
    let activation = stage.only?.activation ?? .none
    var slope: Float = 0
    if case .leakyReLU(let its) = activation.kind { slope = its }
    return Weights(
      activation: activation.name, slope: slope, values: values.data, bias: bias,
      divisors: divisors, weights: generation)
  }
}
