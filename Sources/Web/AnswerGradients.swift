import Foundation
import StrideNetCore
import StrideNetLaboratory

/// An image that should have been of some class: the loss' slopes, a step down them, and back.
extension Workbench {
  struct GradientQuestion: Decodable {
    let input: Input
    /// The class that it should have been.
    let label: Int
    var kernels: String?
    var learning_rate: Float?
  }

  struct Gradients: Encodable {
    let loss: Float
    /// With respect to the image, and to each layer's output, of the last one's softmax to its logits.
    let input: Data
    let layers: [Data]
  }

  func gradients(_ question: GradientQuestion) throws -> Gradients {
    let (network, batch) = try prepare(question)
    let trace = try network.trace(batch)
    return Gradients(
      loss: trace.loss!, input: trace.inputGradient!.values.data,
      layers: trace.layers.map { $0.gradient!.values.data })
  }

  struct Steps: Encodable {
    /// The loss before the step; those that can be undone.
    var loss: Float?
    let steps: Int
  }

  /// One step of gradient descent from an image.
  func step(_ question: GradientQuestion) throws -> Steps {
    guard !(session?.isRunning ?? false) else {
      throw StrideNetError(
        .usage, "a training is under way", hint: "stop it, or wait until it is done")
    }
    let rate = question.learning_rate ?? 0.01
    guard rate > 0, rate.isFinite else {
      throw StrideNetError(
        .usage, "learning rate out of range", found: "\(rate)", expected: "a finite number above 0")
    }
    guard undone.count < 1000 else {
      throw StrideNetError(
        .usage, "too many steps from images", found: "\(undone.count)", expected: "at most 1,000",
        hint: "undo some, or go back to the first network")
    }
    let (network, batch) = try prepare(question)
    let before = weights
    let (after, loss, _) = try network.train(batch, learningRate: rate)
    adopt(after)
    undone.append(before)
    return Steps(loss: loss, steps: undone.count)
  }

  func undo() -> Steps {
    if let before = undone.popLast() { adopt(before) }
    return Steps(steps: undone.count)
  }

  private func prepare(_ question: GradientQuestion) throws -> (Network, Batch) {
    let (x, _) = try image(question.input)
    let need = try need(question.kernels ?? KernelChoice.bound.name)
    let network = try network(
      question.kernels,
      besides: need.bytesToTrain(batch: 1, threads: 1) + Self.bytesAnAnswer * need.activations)
    guard network.endsInSoftmax else {
      throw StrideNetError(
        .usage, "training needs probabilities", found: text, expected: "a last layer with softmax")
    }
    guard (0..<network.classes).contains(question.label) else {
      throw StrideNetError(
        .usage, "no such class", found: "\(question.label)", expected: "0 … \(network.classes - 1)")
    }
    return (network, Batch(images: x, labels: [Int32(question.label)]))
  }
}
