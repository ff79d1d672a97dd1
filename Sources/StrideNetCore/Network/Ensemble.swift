import Foundation

/// Several networks that are asked as one, several views of each image, or both: the output is the mean
/// of all outputs, of classifiers of the probabilities.
///
///     var ensemble = try Ensemble([first, second])
///     ensemble.views = try Ensemble.Views(Augmentation("shift=1"), count: 5)
///     print(try ensemble.metrics(data.test).accuracy)
public struct Ensemble {
  /// They see the same images, and their outputs stand for the same.
  public let networks: [Network]
  /// How each image is shown; nil for once, as it is.
  public var views: Views?

  /// What is shown of an image: itself, and it changed at random. How depends on the image's number and
  /// the seed alone.
  public struct Views: Sendable {
    public let augmentation: Augmentation
    public let count: Int
    public let seed: UInt64

    /// - Parameter count: the image itself among them
    /// - Throws: ``StrideNetError`` where the count is below 1 or above 1,000, or the changes are out of
    ///   range
    public init(_ augmentation: Augmentation, count: Int, seed: UInt64 = 1) throws {
      guard (1...1000).contains(count) else {
        throw StrideNetError(
          .usage, "views out of range", found: "\(count)", expected: "1 … 1,000")
      }
      try augmentation.check()
      (self.augmentation, self.count, self.seed) = (augmentation, count, seed)
    }
  }

  /// - Throws: ``StrideNetError`` naming by its number the first network that sees other images than the
  ///   first one, or answers something else
  public init(_ networks: [Network]) throws {
    guard let first = networks.first else {
      throw StrideNetError(.usage, "no networks", expected: "at least one")
    }
    for (number, other) in networks.enumerated() {
      func require(
        _ same: Bool, _ what: String, _ found: @autoclosure () -> String,
        _ expected: @autoclosure () -> String
      ) throws {
        if same { return }
        throw StrideNetError(
          .badData, "networks that \(what)", at: "network \(number + 1)", found: found(),
          expected: "\(expected()), as of the first one")
      }
      guard let input = other.input else { throw Network.unbuilt }
      func names(_ network: Network) -> String {
        network.classNames.isEmpty
          ? "\(network.classes) without names" : Dataset.list(network.classNames)
      }
      try require(
        input == first.input, "see images of other sizes", "\(input)", "\(first.input!)")
      try require(
        other.classes == first.classes && other.classNames == first.classNames,
        "know other classes", names(other), names(first))
      try require(
        other.pictureFit == first.pictureFit, "fit pictures in other ways",
        "\(other.pictureFit?.rawValue ?? "none")", "\(first.pictureFit?.rawValue ?? "none")")
      try require(
        other.endsInSoftmax == first.endsInSoftmax
          && other.predictsNumbers == first.predictsNumbers, "end in other ways",
        "\(other.layers.last!.text)", "\(first.layers.last!.text)")
    }
    self.networks = networks
  }

  private var first: Network { networks[0] }

  /// The mean output for images.
  public func predict(_ x: Tensor) throws -> Tensor { try predict(x, from: 0) }

  /// - Parameter number: that of the first image, which its views depend on
  package func predict(_ x: Tensor, from number: Int) throws -> Tensor {
    var sum = try Tensor(zeros: x.batch, Shape(first.classes))
    let share = 1 / Float(networks.count * (views?.count ?? 1))
    for view in 0..<(views?.count ?? 1) {
      let images = view == 0 ? x : try changed(x, view, from: number)
      for network in networks {
        let output = try network.predict(images)
        output.withView { output in
          sum.withMutableView { sum in for i in 0..<sum.count { sum[i] += output[i] * share } }
        }
      }
    }
    return sum
  }

  private func changed(_ x: Tensor, _ view: Int, from number: Int) throws -> Tensor {
    var augmenter = Augmenter(views!.augmentation, seed: views!.seed)
    augmenter.epoch = view
    var result = x.copy()
    try first.runtime.reserveScratch(augmenter.scratchCount(x.shape))
    result.withMutableView { result in
      first.runtime.parallel(
        over: result.batch, by: 16, (augmenter, result, number, first.runtime)
      ) { context, range, worker in
        let (augmenter, result, number, runtime) = context
        for n in range {
          augmenter.apply(
            result.example(n), result.shape, index: number + n, runtime.scratch(worker))
        }
      }
    }
    return result
  }

  /// Evaluates on a whole set with classes as targets, chunk by chunk.
  /// - Throws: ``StrideNetError`` where the set doesn't fit the networks
  public func metrics(_ set: any ExampleSource) throws -> Metrics {
    if isPlain { return try first.metrics(set) }
    guard set.targetCount == nil else { throw Metrics.valuesAsTargets }
    _ = try first.prepare(set)
    var start = 0
    return try metrics { () throws -> Batch? in
      guard start < set.count else { return nil }
      defer { start += Network.chunk }
      return try set.examples(Array(start..<min(set.count, start + Network.chunk)))
    }
  }

  /// The same of mini-batches one after the other.
  public func metrics(_ batches: some Sequence<Batch>) throws -> Metrics {
    if isPlain { return try first.metrics(batches) }
    var iterator = batches.makeIterator()
    return try metrics { iterator.next() }
  }

  private var isPlain: Bool { networks.count == 1 && views == nil }

  private func metrics(_ next: () throws -> Batch?) throws -> Metrics {
    var (sum, images, confusion) = (0.0, 0, [Metrics.Pair: Int]())
    var ranks = [Int](repeating: 0, count: first.classes + 1)
    while let batch = try next() {
      try first.prepare(batch)
      let output = try predict(batch.images, from: images)
      output.withView { output in
        for (n, label) in batch.labels.enumerated() {
          // Of probabilities: those that were averaged.
          let row = UnsafeBufferPointer(start: output.example(n), count: first.classes)
          sum += Double(first.loss.rule.loss(row, .label(Int(label)), gradient: nil))
          first.count(output.example(n), Int(label), in: &confusion, &ranks)
        }
      }
      images += batch.labels.count
    }
    return Metrics(
      cce: Float(sum / Double(images)), classes: first.classes, counts: confusion, ranks: ranks)
  }
}
