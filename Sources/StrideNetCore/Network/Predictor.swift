import Synchronization

/// A trained network to be asked from any number of tasks and threads at once: it shares the weights
/// as they were when it was made, and nothing changes them.
///
///     let predictor = try network.predictor()
///     await withTaskGroup(of: Int.self) { group in
///       for image in images { group.addTask { … try predictor.predict(image) … } }
///     }
///
/// Each question is answered by the thread that asks. What lies between the layers is memory of its
/// own for each that is being answered, and kept for the next ones.
public final class Predictor: @unchecked Sendable {
  // Sendable because `idle` is only touched inside `lock`, and a network that was taken out of it
  // belongs to one call until it is put back. The weights are never written.
  private let layers: [any Layer]
  private let input: Shape
  private let loss: Loss
  private let normalization: InputNormalization?
  private let targetNormalization: TargetNormalization?
  package let weights: Snapshot
  private let kernels: KernelChoice
  private let lock = Mutex<Void>(())
  private var idle: [Network] = []

  fileprivate init(_ network: Network, input: Shape) {
    (layers, self.input, loss) = (network.layers, input, network.loss)
    (normalization, targetNormalization) = (network.normalization, network.targetNormalization)
    (weights, kernels) = (network.snapshot(), network.runtime.kernels)
  }

  /// The network's output for images, bit for bit what ``Network/predict(_:)`` gives: for a classifier
  /// each row the classes' probabilities.
  /// - Throws: ``StrideNetError`` if the images don't fit the network, or where there isn't so much
  ///   memory
  public func predict(_ x: Tensor) throws -> Tensor {
    let network = try lock.withLock { _ in idle.popLast() } ?? make()
    defer { lock.withLock { _ in idle.append(network) } }
    return try network.predict(x)
  }

  private func make() throws -> Network {
    let network = Network(layers, runtime: Runtime(threads: 1, kernels: kernels))
    (network.loss, network.normalization) = (loss, normalization)
    network.targetNormalization = targetNormalization
    try network.build(for: input, sharing: weights)
    return network
  }
}

extension Network {
  /// The network as it is now, to be asked from many tasks at once; it shares the weights' memory until
  /// this network trains on.
  /// - Throws: ``StrideNetError`` if it isn't built
  public func predictor() throws -> Predictor {
    guard let input else {
      throw StrideNetError(
        .usage, "a network without weights can't be asked",
        hint: "train it, or build it for an input, first")
    }
    return Predictor(self, input: input)
  }
}
