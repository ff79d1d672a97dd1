import Foundation
import StrideNetCore
import StrideNetLaboratory

/// The sum behind one value of a layer.
extension Workbench {
  struct ProvenanceQuestion: Decodable {
    let input: Input
    let layer: Int
    let at: [Int]
    var kernels: String?
  }

  struct Explained: Encodable {
    struct Term: Encodable {
      let from: [Int]
      let value, factor: Float
      let product: Double
    }
    let kind, activation: String
    /// The largest, at most 300; what the others add up to.
    let terms: [Term]
    let others: Int
    let rest: Double
    let bias, kernel: Float
    let sum, result: Double
    let agrees: Bool
  }

  func provenance(_ question: ProvenanceQuestion) throws -> Explained {
    guard question.at.count == 3 else {
      throw StrideNetError(
        .usage, "no place", found: "\(question.at.count) numbers",
        expected: "row, column and channel")
    }
    let (x, _) = try image(question.input)
    let need = try need(question.kernels ?? KernelChoice.bound.name)
    let network = try network(
      question.kernels, besides: 4 * need.activations + Self.bytesAPath / 4 * need.longestSum)
    let found = try network.provenance(
      in: network.trace(x), layer: question.layer,
      at: .init(question.at[0], question.at[1], question.at[2]))
    // In the sum's order, unless it is long.
    let many = found.terms.count > 300
    let shown =
      many
      ? Array(found.terms.sorted { abs($0.product) > abs($1.product) }.prefix(300)) : found.terms
    return Explained(
      kind: found.kind, activation: found.activation,
      terms: shown.map {
        Explained.Term(
          from: [$0.from.row, $0.from.column, $0.from.channel], value: $0.value,
          factor: $0.factor, product: $0.product)
      },
      others: found.terms.count - shown.count,
      rest: found.sum - Double(found.bias) - shown.reduce(0) { $0 + $1.product },
      bias: found.bias, kernel: found.value, sum: found.sum, result: found.result,
      agrees: found.agrees)
  }
}
