import Foundation
import StrideNetCore
import StrideNetLaboratory

/// What the network makes of an image, layer by layer, and the strongest paths.
extension Workbench {
  struct Look: Encodable {
    struct LayerLook: Encodable {
      let output: Data
      let seconds: Double
      let kernel, why: String?
    }
    let input: Data
    let label: Int?
    let probabilities: [Float]
    /// Where the last layer ends in softmax, what that was made of.
    let logits: [Float]?
    let layers: [LayerLook]
    let paths: [Network.Path]
    let seconds: Double
    let weights: Int
  }

  func look(_ question: LookQuestion) throws -> Look {
    let (x, label) = try image(question.input)
    let need = try need(question.kernels ?? KernelChoice.bound.name)
    let network = try network(
      question.kernels,
      besides: Self.bytesAnAnswer * need.activations
        + (question.paths == false ? 0 : Self.bytesAPath * need.longestSum))
    let trace = try network.trace(x, repeats: 3)
    let output = trace.output.values
    guard output.allSatisfy(\.isFinite) else {
      throw StrideNetError(
        .badData, "what the network makes of it is no finite number",
        hint: "a training that goes wrong says so; try a tenth of its learning rate")
    }
    let target = question.toward ?? output.indices.max { output[$0] < output[$1] }!
    guard output.indices.contains(target) else {
      throw StrideNetError(
        .usage, "no such class", found: "\(target)", expected: "0 … \(output.count - 1)")
    }
    return Look(
      input: x.values.data, label: label, probabilities: output, logits: trace.logits?.values,
      layers: trace.layers.map {
        Look.LayerLook(
          output: $0.output.values.data, seconds: $0.seconds, kernel: $0.kernel, why: $0.why)
      },
      paths: question.paths == false
        ? [] : network.strongestPaths(in: trace, to: target, width: 8),
      seconds: trace.layers.reduce(0) { $0 + $1.seconds }, weights: generation)
  }

  struct LookQuestion: Decodable {
    let input: Input
    var kernels: String?
    var paths: Bool?
    /// The class whose paths are shown; the likeliest if not given.
    var toward: Int?
  }
}
