import Foundation
import StrideNetCore
import StrideNetLaboratory

/// The training images that are nearly the same to the network.
extension Workbench {
  struct Neighbour: Encodable {
    let index, label: Int
    let distance: Float
    let pixels: Data
  }

  /// Among so many training images, the first ones, they are sought.
  static let mostCompared = 10_000

  /// The training images that the last hidden layer makes nearly the same of.
  func nearest(_ question: LookQuestion) throws -> [Neighbour] {
    let (x, _) = try image(question.input)
    let kernels = KernelChoice.bound.name
    let need = try need(kernels)
    let count = min(Self.mostCompared, data.train.count)
    let answer = 16 * 12 * Double(data.train.imageSize) + 64 * Double(count)
    // Every layer's output is there at the same time, and the last hidden one's once more.
    let atATime = try images(250, kernels: kernels) { answer + 8 * Double($0) * need.activations }
    let network = try network(
      kernels, batch: atATime, besides: answer + 8 * Double(atATime) * need.activations)
    guard let layer = network.layers.indices.dropLast().last else {
      throw StrideNetError(.usage, "a network of one layer has no hidden one")
    }
    func hidden(_ x: Tensor) throws -> [Float] {
      try network.trace(x).layers[layer].output.values
    }
    let mine = try hidden(x)
    var distances: [Float] = []
    func add(_ values: [Float]) {
      values.withUnsafeBufferPointer { all in
        for start in stride(from: 0, to: all.count, by: mine.count) {
          var sum: Float = 0
          for i in mine.indices {
            let difference = all[start + i] - mine[i]
            sum += difference * difference
          }
          distances.append(sum.squareRoot())
        }
      }
    }
    if let features, features.generation == generation {
      add(features.values)
    } else {
      features = nil
      // Kept where there is room, so that the next question takes no time.
      let size = 4 * Double(count) * Double(mine.count)
      var kept: [Float]?
      if bytesHeld() + size + answer + 8 * Double(atATime) * need.activations <= memory {
        kept = []
        kept!.reserveCapacity(count * mine.count)
      }
      for start in stride(from: 0, to: count, by: atATime) {
        let values = try hidden(
          data.train.batch(start..<min(count, start + atATime)).images)
        add(values)
        kept?.append(contentsOf: values)
      }
      features = kept.map { (generation, $0) }
    }
    let order = distances.indices.sorted {
      distances[$0] < distances[$1] || (distances[$0] == distances[$1] && $0 < $1)
    }
    return order.prefix(12).map {
      Neighbour(
        index: $0, label: Int(data.train.labels[$0]), distance: distances[$0],
        pixels: pixels($0, data.train))
    }
  }
}
