/// Memory for the examples and targets of a mini-batch, filled anew for each one.
package final class BatchBuffer {
  package let capacity: Int
  private let shape: Shape
  private let images: FloatStorage
  private let labels: UnsafeMutablePointer<Int32>
  private let targetCount: Int?
  private let targets: FloatStorage

  package init(capacity: Int, shape: Shape, targetCount: Int? = nil) throws {
    (self.capacity, self.shape, self.targetCount) = (capacity, shape, targetCount)
    images = try FloatStorage(count: capacity * shape.count)
    targets = try FloatStorage(count: capacity * (targetCount ?? 0))
    labels = .allocate(capacity: capacity)
  }

  deinit { labels.deallocate() }

  /// The examples at these places, and their targets; good until the next call.
  package func gather(
    _ set: any ExampleSource, _ indices: some RandomAccessCollection<Int>, _ runtime: Runtime,
    _ augmenter: Augmenter? = nil
  ) -> (TensorView, Targets) {
    precondition(indices.count <= capacity)
    let x = TensorView(images.pointer, batch: indices.count, shape: shape)
    let context = (self, set, indices, x, augmenter, runtime)
    runtime.parallel(over: indices.count, by: 16, context) { context, range, worker in
      let (buffer, set, indices, x, augmenter, runtime) = context
      for slot in range {
        let index = indices[indices.index(indices.startIndex, offsetBy: slot)]
        set.read(
          index,
          into: UnsafeMutableBufferPointer(start: x.example(slot), count: x.shape.count))
        augmenter?.apply(x.example(slot), x.shape, index: index, runtime.scratch(worker))
        if let count = buffer.targetCount {
          set.readTarget(
            index,
            into: UnsafeMutableBufferPointer(
              start: buffer.targets.at(slot * count, count: count), count: count))
        } else {
          buffer.labels[slot] = Int32(set.label(index))
        }
      }
    }
    return (x, targetCount == nil ? .labels(labels) : .values(targets.pointer))
  }
}

extension Network {
  /// Evaluates on a whole set, of all kinds that a trainer takes, chunk by chunk.
  public func evaluate(_ set: any ExampleSource) throws -> (cce: Float, ce: Float) {
    let buffer = try prepare(set)
    return try evaluate(set.count) { buffer.gather(set, $0, runtime) }
  }

  /// Builds the network and checks that a set fits it.
  /// - Returns: what its chunks go through
  func prepare(_ set: any ExampleSource) throws -> BatchBuffer {
    try requireClassifier(for: set.shape)
    if let images = set as? ImageSet, images.targets == nil {
      try images.checkLabels(classes: classes)
    } else {
      try set.checkTargets(outputs: classes)
    }
    return try BatchBuffer(
      capacity: Self.chunk, shape: set.shape, targetCount: set.targetCount)
  }
}
