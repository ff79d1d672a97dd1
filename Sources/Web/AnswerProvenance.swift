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
    /// The largest, at most 300; what the others add up to. Of a maximum all that it was chosen from,
    /// the chosen one with the factor 1, the others with 0.
    let terms: [Term]
    let others: Int
    let rest: Double
    let bias, kernel: Float
    let sum, result: Double
    let agrees: Bool
    /// Of the network's weights, as ``Look/weights``.
    let weights: Int
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
    var (shown, others) = (found.terms[...], ArraySlice<Provenance.Term>())
    if shown.count > 300 {
      let sorted = found.terms.sorted { abs($0.product) > abs($1.product) }
      (shown, others) = (sorted[..<300], sorted[300...])
    }
    return Explained(
      kind: found.kind, activation: found.activation,
      terms: shown.map {
        Explained.Term(
          from: [$0.from.row, $0.from.column, $0.from.channel], value: $0.value,
          factor: $0.factor, product: $0.product)
      },
      others: others.count, rest: others.reduce(0) { $0 + $1.product },
      bias: found.bias, kernel: found.value, sum: found.sum, result: found.result,
      agrees: found.agrees, weights: generation)
  }
}
