import Foundation
import StrideNetCore
import StrideNetLaboratory

/// What the network makes of the test images before its last layer: for a map of them.
extension Workbench {
  struct Hidden: Encodable {
    /// Of each image the last hidden layer's values, `size` of them.
    let values: Data
    let size: Int
    let labels, guesses: [Int]
    /// How many test images there are; the first ones are here.
    let of: Int
    let weights: Int
  }

  func hidden() throws -> Hidden {
    let kernels = KernelChoice.bound.name
    let need = try need(kernels)
    let count = min(1000, data.test.count)
    let answer = 16 * Double(count) * need.activations
    let atATime = try images(250, kernels: kernels) { answer + 8 * Double($0) * need.activations }
    let network = try network(
      kernels, batch: atATime, besides: answer + 8 * Double(atATime) * need.activations)
    guard let layer = network.layers.indices.dropLast().last else {
      throw StrideNetError(.usage, "a network of one layer has no hidden one")
    }
    var (values, guesses): ([Float], [Int]) = ([], [])
    for start in stride(from: 0, to: count, by: atATime) {
      let range = start..<min(count, start + atATime)
      let trace = try network.trace(data.test.batch(range).images)
      values += trace.layers[layer].output.values
      let output = trace.layers.last!.output.values
      for row in 0..<range.count {
        let own = output[row * network.classes..<(row + 1) * network.classes]
        guesses.append(own.firstIndex(of: own.max()!)! - row * network.classes)
      }
    }
    return Hidden(
      values: values.data, size: values.count / count,
      labels: (0..<count).map { Int(data.test.labels[$0]) }, guesses: guesses,
      of: data.test.count, weights: generation)
  }
}
