/// A convolution and the max-pooling after it, run together a few images at a time: what lies
/// between them, the network's largest arrays, stays in the cache and needs no memory in the size
/// of the batch.
///
/// The same kernels see the same images in the same order as when the layers run one after the
/// other, so the results are the same bit for bit. One thing is moved: where an output of the
/// pooling is 0, ReLU's gradient is 0 for all of its window, and where it isn't, the largest value
/// is one that ReLU let pass. So all of ReLU's backward pass is that the pooling sends no gradient
/// back from an output of 0.
final class ConvPool: Layer {
  private let convolution: Conv2D
  private let pooling: MaxPool2D
  /// The convolution's output size.
  private let between: Shape

  /// Nil where the pair can't run together.
  init?(_ first: Layer, _ second: Layer, between: Shape) {
    guard let convolution = first as? Conv2D, let pooling = second as? MaxPool2D,
      convolution.isRelu || convolution.finalActivation.name == Activation.none.name
    else { return nil }
    self.convolution = convolution
    self.pooling = pooling
    self.between = between
  }

  override func reserve(batch: Int, input: Shape, output: Shape, runtime: Runtime) {
    convolution.reserve(batch: batch, input: input, output: between, runtime: runtime)
    pooling.reserve(batch: batch, input: between, output: output, runtime: runtime)
    runtime.reserveScratch(
      convolution.scratchCount + convolution.imagesACall(between) * between.count)
  }

  /// The convolution's output, or its gradient, for a few images.
  private func scratchBetween(_ images: Int, _ runtime: Runtime, _ worker: Int) -> TensorView {
    TensorView(
      runtime.scratch(worker) + convolution.scratchCount, batch: images, shape: between)
  }

  override func forward(_ x: TensorView, _ y: TensorView, _ pass: Pass) {
    pass.runtime.parallel(
      over: x.batch, by: convolution.imagesACall(between), (self, x, y, pass.runtime)
    ) { context, range, worker in
      let (layer, x, y, runtime) = context
      let z = layer.scratchBetween(range.count, runtime, worker)
      layer.convolution.forward(x.examples(range), z, runtime, runtime.scratch(worker))
      layer.pooling.forward(z, y.examples(range), from: range.lowerBound, runtime)
      if layer.convolution.isRelu {
        layer.pooling.dropPlacesOfZeros(y.examples(range), from: range.lowerBound)
      }
    }
  }

  override func backward(
    _ x: TensorView, _ y: TensorView, _ dy: TensorView, _ dx: TensorView?, _ pass: Pass
  ) {
    pass.runtime.parallel(
      over: x.batch, by: convolution.imagesAGradientPiece(x.batch),
      (self, x, dy, dx, pass.runtime)
    ) { context, piece, worker in
      let (layer, x, dy, dx, runtime) = context
      let (convolution, scratch) = (layer.convolution, runtime.scratch(worker))
      convolution.inCalls(piece, layer.between) { part in
        let dz = layer.scratchBetween(part.count, runtime, worker)
        layer.pooling.backward(dy.examples(part), dz, from: part.lowerBound, runtime)
        convolution.weightGradient(
          x.examples(part), dz, piece: piece, part, batch: x.batch, runtime, scratch)
        if let dx { convolution.inputGradient(dx.examples(part), dz, runtime, scratch) }
      }
    }
    convolution.addPartialSums(batch: x.batch, pass.runtime)
  }
}
