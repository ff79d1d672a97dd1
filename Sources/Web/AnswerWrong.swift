import Foundation
import StrideNetCore

/// The test images that it mistakes.
extension Workbench {
  struct Wrong: Encodable {
    struct Image: Encodable {
      let index, label, guess: Int
      let probability: Float
      let pixels: Data
    }
    let count, of: Int
    let images: [Image]
  }

  /// The test images that are taken for something else, the most certain first.
  func wrong() throws -> Wrong {
    let kernels = KernelChoice.bound.name
    let answer = 16 * 120 * Double(data.test.imageSize) + 64 * Double(data.test.count)
    let need = try need(kernels)
    // In and out.
    let atATime = try images(128, kernels: kernels) { answer + 8 * Double($0) * need.activations }
    let network = try network(
      kernels, batch: atATime, besides: answer + 8 * Double(atATime) * need.activations)
    var found: [(index: Int, guess: Int, probability: Float)] = []
    for start in stride(from: 0, to: data.test.count, by: atATime) {
      let range = start..<min(data.test.count, start + atATime)
      let output = try network.predict(data.test.batch(range).images).values
      let classes = network.classes
      for (row, index) in range.enumerated() {
        let values = output[row * classes..<(row + 1) * classes]
        let best = values.indices.max { values[$0] < values[$1] }!
        let guess = best - row * classes
        if guess != Int(data.test.labels[index]) { found.append((index, guess, values[best])) }
      }
    }
    found.sort {
      $0.probability > $1.probability || ($0.probability == $1.probability && $0.index < $1.index)
    }
    return Wrong(
      count: found.count, of: data.test.count,
      images: found.prefix(120).map {
        Wrong.Image(
          index: $0.index, label: Int(data.test.labels[$0.index]), guess: $0.guess,
          probability: $0.probability, pixels: pixels($0.index, data.test))
      })
  }
}
