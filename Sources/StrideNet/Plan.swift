/// What runs: layers one after the other, a network's or those inside another layer, and the memory
/// between them. Neighbours that can run together are one step; layers that only reshape are none.
final class Plan {
  struct Step {
    let layer: Layer
    let first, last: Int
    let parameters: [Parameter]
  }

  let layers: [Layer]
  let input: Shape
  /// Each layer's output size.
  let shapes: [Shape]
  private(set) var steps: [Step] = []
  private let runtime: Runtime

  // Activations and their gradients, one block a step, at the step's last layer (nil elsewhere), for
  // batches of up to `capacity` and `trainingCapacity` examples.
  private var outputs: [FloatStorage?] = []
  private var outputGradients: [FloatStorage?] = []
  private var capacity = 0
  private var trainingCapacity = 0

  /// - Parameter shapes: what ``shapes(_:for:_:)`` gave for these layers and this input
  init(_ layers: [Layer], _ input: Shape, _ shapes: [Shape], _ runtime: Runtime) {
    self.layers = layers
    self.input = input
    self.shapes = shapes
    self.runtime = runtime
    var index = 0
    var chain: Chain?
    while index < layers.count {
      chain = Chain(layers, shapes, from: index, below: chain)
      let last = chain?.last ?? index
      if let chain, runtime.fusing, chain.isWorthIt {
        steps.append(
          Step(
            layer: chain, first: index, last: last, parameters: Self.parameters(chain.finished)))
      } else {
        for single in index...last where !layers[single].onlyReshapes {
          steps.append(
            Step(
              layer: layers[single], first: single, last: single,
              parameters: Self.parameters([layers[single]])))
        }
      }
      index = last + 1
    }
  }

  private static func parameters(_ layers: [Layer]) -> [Parameter] {
    layers.flatMap(\.parameters).filter(\.isTrained)
  }

  /// Each layer's output size; the layers make their parameters.
  /// - Throws: ``StrideNetError`` naming the layer that doesn't fit and both shapes
  static func shapes(_ layers: [Layer], for input: Shape, _ runtime: Runtime) throws -> [Shape] {
    var shape = input
    return try layers.enumerated().map { index, layer in
      do {
        shape = try layer.build(for: shape, runtime: runtime)
      } catch let error as StrideNetError {
        throw StrideNetError(
          error.kind, error.what, at: "layer \(index + 1), \(error.place ?? layer.text)",
          found: error.found, expected: error.expected, hint: error.hint)
      }
      let (values, overflow) = shape.height.multipliedReportingOverflow(
        by: shape.width * shape.channels)
      guard !overflow && values <= 1 << 31 && layer.parameters.allSatisfy({ $0.count <= 1 << 31 })
      else {
        throw StrideNetError(
          .badData, "layer too large", at: "layer \(index + 1), \(layer.text)",
          found: "an output of \(shape)", expected: "at most 2³¹ values and as many weights")
      }
      return shape
    }
  }

  /// The layers and those inside them, in order.
  static func all(_ layers: [Layer]) -> [Layer] { layers.flatMap { [$0] + all($0.inner) } }

  func hasRoom(for batch: Int, training: Bool) -> Bool {
    batch <= capacity && (!training || batch <= trainingCapacity)
  }

  /// Makes room for batches of this size.
  /// - Throws: ``StrideNetError`` where there isn't so much memory; what was there is there still
  func reserve(_ batch: Int, training: Bool) throws {
    if hasRoom(for: batch, training: training) { return }
    func buffers() throws -> [FloatStorage?] {
      var all = [FloatStorage?](repeating: nil, count: layers.count)
      for step in steps {
        all[step.last] = try FloatStorage(count: batch * shapes[step.last].count)
      }
      return all
    }
    for step in steps {
      try step.layer.reserve(
        batch: max(batch, capacity), input: step.first == 0 ? input : shapes[step.first - 1],
        output: shapes[step.last], runtime: runtime, training: training)
    }
    if batch > capacity {
      outputs = try buffers()
      capacity = batch
    }
    if training && batch > trainingCapacity {
      outputGradients = try buffers()
      trainingCapacity = batch
    }
  }

  /// Counts what ``reserve(_:training:)`` takes for batches of this size, but for what layers keep.
  func count(_ batch: Int, training: Bool, in need: inout MemoryNeed) {
    for step in steps {
      need.add(
        shapes[step.last].count, times: training ? 2 * batch : batch,
        for: "layer \(step.last + 1), \(layers[step.last].text): \(batch) images' outputs of "
          + "\(shapes[step.last])\(training ? ", and their gradients" : "")")
    }
  }

  private func view(
    _ buffers: [FloatStorage?], _ index: Int, _ batch: Int, below: UnsafeMutablePointer<Float>?
  ) -> TensorView? {
    // A layer that only reshapes has the memory of the nearest one below that doesn't.
    var source = index
    while source >= 0, buffers[source] == nil { source -= 1 }
    guard let pointer = source >= 0 ? buffers[source]!.pointer : below else { return nil }
    return TensorView(pointer, batch: batch, shape: index < 0 ? input : shapes[index])
  }

  private func output(_ index: Int, _ x: TensorView) -> TensorView {
    view(outputs, index, x.batch, below: x.pointer)!
  }

  private func gradient(_ index: Int, _ batch: Int) -> TensorView {
    view(outputGradients, index, batch, below: nil)!
  }

  /// Where the gradient of the last layer's output goes before ``backward(_:_:_:_:)``.
  func outputGradient(_ batch: Int) -> TensorView {
    gradient(layers.count - 1, batch)
  }

  /// Runs all layers; the result stays valid until the next pass.
  func forward(_ x: TensorView, _ pass: Pass) -> TensorView {
    for step in steps {
      pass.times?.layer = step.first
      step.layer.forward(output(step.first - 1, x), output(step.last, x), pass)
      pass.times?.lap(.forward)
    }
    return output(layers.count - 1, x)
  }

  /// From the upstream gradient `dy`, or what is in ``outputGradient(_:)``, which it may overwrite,
  /// computes all gradients; `dx` gets that of `x`, unless it is nil. Updates the parameters if the
  /// pass does.
  func backward(_ x: TensorView, _ dy: TensorView?, _ dx: TensorView?, _ pass: Pass) {
    let last = steps.last?.last
    for step in steps.reversed() {
      pass.times?.layer = step.first
      step.layer.backward(
        output(step.first - 1, x), output(step.last, x),
        step.last == last ? dy ?? outputGradient(x.batch) : gradient(step.last, x.batch),
        view(outputGradients, step.first - 1, x.batch, below: dx?.pointer), pass)
      // What the layer hasn't told apart.
      pass.times?.lap(.backward)
      guard let update = pass.update, !step.layer.updatesInBackward else { continue }
      // Nobody needs a layer's weights any more once its backward pass is over.
      for parameter in step.parameters { update.apply(parameter, runtime) }
      pass.times?.lap(.update)
    }
  }
}

/// What runs where nothing is trained: no dropout, and batch normalisation as part of the convolution
/// before it, whose weights it scales.
final class InferencePlan {
  let plan: Plan
  private var folds: [(from: Conv2D, BatchNorm, to: Conv2D)] = []

  /// Nil where that is what is trained.
  init?(_ layers: [Layer], _ input: Shape, _ shapes: [Shape], _ runtime: Runtime) {
    guard Plan.all(layers).contains(where: { $0 is BatchNorm || $0 is Dropout }) else { return nil }
    var (kept, keptShapes) = ([Layer](), [Shape]())
    for (index, layer) in layers.enumerated() where !(layer is Dropout) {
      if let normalization = layer as? BatchNorm, index > 0,
        let convolution = layers[index - 1] as? Conv2D,
        let folded = convolution.folded(activation: normalization.activation)
      {
        folds.append((convolution, normalization, folded))
        kept[kept.count - 1] = folded
      } else {
        // Copies, since how many images a layer takes at a time depends on its neighbours.
        kept.append(layer.forInference)
        keptShapes.append(shapes[index])
      }
    }
    plan = Plan(kept, input, keptShapes, runtime)
  }

  /// Takes over the weights as they are now.
  func fold() throws {
    for layer in plan.layers { try layer.prepareInference() }
    for (convolution, normalization, folded) in folds {
      let (scale, shift) = normalization.inferenceScaleAndShift
      let filters = scale.count
      try folded.reserveOwnWeights()
      for i in 0..<convolution.weight.count {
        folded.weight.value[i] = convolution.weight.value[i] * scale[i % filters]
      }
      for f in 0..<filters {
        folded.bias.value[f] = convolution.bias.value[f] * scale[f] + shift[f]
      }
    }
  }
}
