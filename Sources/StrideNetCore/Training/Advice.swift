import Foundation

extension Trainer {
  /// What is likely to keep the network from learning, and what to try: before the first epoch what the
  /// settings alone tell, after it where the training error is no lower than that of always saying the
  /// commonest class, or numbers are predicted no better than by their mean. Nil where nothing is known
  /// to be wrong.
  /// - Throws: ``StrideNetError`` where there is no memory to look
  public func advice() throws -> String? {
    if settings.batchSize == 1, let layer = network.firstUnfrozenBatchNorm {
      return
        "batch normalisation (layer \(layer + 1)) has no batch to take its statistics of: with "
        + "mini-batches of 1 image it can't tell images apart; try a batch size of 16 or more, or "
        + "layernorm"
    }
    let steps = network.stepCount
    guard let last = results.last, steps >= 100, let found = worseThanChance(last) else {
      return nil
    }
    let what = "it doesn't learn: after \(steps) steps \(found); "
    let (rate, method) = (settings.learningRate, settings.optimizer.method)
    let usual = method.rule.usual.learningRate
    // Momentum that adds up to larger steps than usual.
    let size = rate / usual
    if let dead = try deadLayer() {
      return what
        + "\(dead.of == dead.count ? "all" : "\(dead.count) of the") \(dead.of) outputs of layer "
        + "\(dead.layer + 1), \(network.layers[dead.layer].text), are 0 for every image, so nothing is "
        + "learned through them: try a learning rate of \(Self.number(min(rate / 10, usual))), a schedule "
        + "with warmup, or leaky_relu"
    }
    if size > 2 {
      return what
        + "a learning rate of \(rate) is large for \(method.rawValue): try \(Self.number(min(rate / 10, usual))), "
        + "or a schedule with warmup"
    }
    if size < 0.05 {
      return what
        + "a learning rate of \(rate) is small for \(method.rawValue): try \(Self.number(min(rate * 10, usual)))"
    }
    return what
      + "try another learning rate, a tenth and ten times \(rate), and look at the images and "
      + "their labels"
  }

  /// What came of it, where that is no better than an answer that is always the same.
  private func worseThanChance(_ last: EpochResult) -> String? {
    if let r2 = last.regression?.r2 {
      return r2 < 0.01
        ? "R² is \(String(format: "%.4f", r2)), and always saying the mean is 0" : nil
    }
    guard train.targetCount == nil else { return nil }
    let chance = errorOfCommonest
    let margin = 2 * (chance * (1 - chance) / Double(train.count)).squareRoot()
    guard chance > 0, Double(last.trainCE) > chance - margin else { return nil }
    return
      "it is wrong about \(Self.percent(Double(last.trainCE))) of the training images, and always "
      + "saying the commonest class is about \(Self.percent(chance))"
  }

  /// The class error of always saying the commonest class of the training images; of many, of some.
  private var errorOfCommonest: Double {
    var counts: [Int: Int] = [:]
    let step = max(1, train.count / 10_000)
    for index in stride(from: 0, to: train.count, by: step) {
      counts[train.label(index), default: 0] += 1
    }
    return 1 - Double(counts.values.max()!) / Double(counts.values.reduce(0, +))
  }

  /// The first layer most of whose outputs are dead.
  private func deadLayer() throws -> (layer: Int, count: Int, of: Int)? {
    let batch = try test.examples(Array(0..<min(test.count, Network.chunk)))
    return try network.deadOutputs(batch.images).first { $0.count * 10 >= $0.of * 9 }
  }

  private static func percent(_ share: Double) -> String {
    String(format: "%.1f %%", share * 100)
  }

  private static func number(_ value: Float) -> String { String(format: "%.2g", value) }
}

extension Network {
  /// The place of the first layer with batch normalisation that takes statistics.
  var firstUnfrozenBatchNorm: Int? {
    func normalizes(_ operation: Bound) -> Bool {
      if case .normalizeBatch = operation.kind { return true }
      return (operation.body + operation.shortcut).flatMap(\.operations).contains(where: normalizes)
    }
    return stages.indices.first {
      !frozenLayers.contains($0) && stages[$0].operations.contains(where: normalizes)
    }
  }

  /// Of each layer whose weighted sums go through ReLU, how many of its outputs (of images, channels)
  /// are 0 in all of these examples, of which there are at most ``chunk``.
  func deadOutputs(_ images: Tensor) throws -> [(layer: Int, count: Int, of: Int)] {
    _ = try predict(images)
    let plan = inferencePlan?.plan ?? plan!
    var result: [(layer: Int, count: Int, of: Int)] = []
    images.withView { x in
      for step in plan.steps {
        // With a pooling behind it, what passes that is 0 where all of the window is.
        guard
          let sum = plan.operations[step.first...step.last].last(where: { !$0.parameters.isEmpty }),
          sum.activation.isRelu, let layer = Int(sum.parameters[0].name.split(separator: ".")[1])
        else { continue }
        let y = plan.output(step.last, x)
        var alive = [Bool](repeating: false, count: y.shape.channels)
        for i in 0..<y.count where y[i] != 0 { alive[i % alive.count] = true }
        result.append((layer, alive.count { !$0 }, alive.count))
      }
    }
    return result
  }
}
