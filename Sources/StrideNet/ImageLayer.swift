/// A layer that treats every image of a batch on its own. So threads share the batch out, and each
/// takes few images at a time through one layer or, in a ``Chain``, several.
///
/// How the batch is cut depends on shapes and the batch alone, never on the number of threads, and
/// sums are added in the pieces' order: results are the same, bit for bit, for any number.
public class ImageLayer: Layer {
  /// Images that pass at a time: few enough that what they leave stays in a second-level cache.
  final var imagesAtATime = 8

  /// Some images of a batch, on one thread.
  struct Part {
    let images: Range<Int>
    /// In a backward pass, the piece of the batch whose gradients are summed together, and whether
    /// these are its first images.
    var piece = 0
    var isFirst = true
    let pass: Pass
    let worker: Int
    /// How far behind the first of layers that run together this one comes.
    var link = 0

    var training: Bool { pass.training }
    var runtime: Runtime { pass.runtime }
    var scratch: UnsafeMutablePointer<Float> { pass.runtime.scratch(worker) }

    func lap(_ kind: LayerPass) { pass.times?.lapInPiece(kind, link: link, worker) }
  }

  /// The part's output y from its input x.
  func forward(_ x: TensorView, _ y: TensorView, _ part: Part) {
    fatalError("\(type(of: self)) doesn't override forward")
  }

  /// The part's input gradient dx, unless nil, and its share of the parameters' gradients.
  func backward(
    _ x: TensorView, _ y: TensorView, _ dy: TensorView, _ dx: TensorView?, _ part: Part
  ) {
    fatalError("\(type(of: self)) doesn't override backward")
  }

  /// Adds up the pieces' shares of the parameters' gradients.
  func addPieces(_ count: Int, _ runtime: Runtime) {}

  /// Floats of scratch memory that a part needs.
  var scratchCount: Int { 0 }

  static func imagesAPiece(_ batch: Int) -> Int { max(1, (batch + 15) / 16) }
  static func pieces(_ batch: Int) -> Int { (batch - 1) / imagesAPiece(batch) + 1 }

  public override func forward(_ x: TensorView, _ y: TensorView, _ pass: Pass) {
    pass.runtime.parallel(over: x.batch, by: imagesAtATime, (self, x, y, pass)) {
      context, images, worker in
      let (layer, x, y, pass) = context
      pass.times?.startPiece(worker)
      layer.forward(
        x.examples(images), y.examples(images), Part(images: images, pass: pass, worker: worker))
    }
    pass.times?.lapOfPieces()
  }

  public override func backward(
    _ x: TensorView, _ y: TensorView, _ dy: TensorView, _ dx: TensorView?, _ pass: Pass
  ) {
    let size = Self.imagesAPiece(x.batch)
    pass.runtime.parallel(over: x.batch, by: size, (self, size, x, y, dy, dx, pass)) {
      context, piece, worker in
      let (layer, size, x, y, dy, dx, pass) = context
      pass.times?.startPiece(worker)
      let step = layer.imagesAtATime
      for start in stride(from: piece.lowerBound, to: piece.upperBound, by: step) {
        let images = start..<min(piece.upperBound, start + step)
        layer.backward(
          x.examples(images), y.examples(images), dy.examples(images), dx?.examples(images),
          Part(
            images: images, piece: start / size, isFirst: start == piece.lowerBound, pass: pass,
            worker: worker))
      }
    }
    pass.times?.lapOfPieces()
    addPieces(Self.pieces(x.batch), pass.runtime)
    pass.times?.lap(.weightGradient)
  }
}

/// Convolutions that follow each other, and the max-pooling behind them, run together: a few images
/// go through all of them, forward as backward, before the next ones come. So what lies between the
/// layers, the network's largest arrays, is read again while it is still in the cache, and memory in
/// the size of the batch is needed only for what the backward pass reads.
///
/// The same kernels see the same images in the same order as when the layers run one after the
/// other, so the results are the same bit for bit. One thing is moved: where an output of the
/// pooling is 0, ReLU's gradient is 0 for all of its window, and where it isn't, the largest value
/// is one that ReLU let pass. So all of ReLU's backward pass is that the pooling sends no gradient
/// back from an output of 0.
final class Chain: ImageLayer {
  private struct Link {
    let layer: ImageLayer
    let output: Shape
    /// The output is kept for the backward pass: the next layer's weight gradient needs it.
    let isKept: Bool
  }
  private let links: [Link]
  private var kept: [FloatStorage?] = []
  /// Index of the last layer.
  let last: Int

  /// The chain that begins with layer `first`; nil where that is no convolution with a kernel's own
  /// activation. It may have one layer. Sets how many images its layers take at a time, which is the
  /// same whether they then run together or not.
  init?(_ layers: [Layer], _ shapes: [Shape], from first: Int) {
    var last = first
    while last < layers.count, let layer = layers[last] as? Conv2D, layer.isPlain { last += 1 }
    guard last > first else { return nil }
    let images = layers[first..<last].indices.map { Conv2D.imagesAtATime(shapes[$0]) }.min()!
    if last == layers.count || !(layers[last] is MaxPool2D) { last -= 1 }
    self.last = last
    links = (first...last).map { index in
      let next = index < last ? layers[index + 1] : nil
      return Link(
        layer: layers[index] as! ImageLayer, output: shapes[index], isKept: next is Conv2D)
    }
    super.init()
    imagesAtATime = images
    for link in links { link.layer.imagesAtATime = images }
  }

  /// Floats of the largest array between two layers, for the images that pass at a time; those
  /// arrays lie behind the layers' own scratch memory.
  private var largest = 0
  private var layersScratch = 0

  override func reserve(batch: Int, input: Shape, output: Shape, runtime: Runtime) {
    var below = input
    for link in links {
      link.layer.reserve(batch: batch, input: below, output: link.output, runtime: runtime)
      below = link.output
    }
    if let pooling = links.last!.layer as? MaxPool2D {
      let convolution = links[links.count - 2].layer as! Conv2D
      convolution.leavesReluToPooling = convolution.isRelu
      pooling.dropsZeros = convolution.isRelu
    }
    kept = links.map { $0.isKept ? FloatStorage(count: batch * $0.output.count) : nil }
    largest = (imagesAtATime * links.dropLast().map(\.output.count).max()!).roundedUp
    layersScratch = links.map(\.layer.scratchCount).max()!.roundedUp
    runtime.reserveScratch(layersScratch + 2 * largest)
  }

  /// Memory for link number `index`'s output or its gradient: neighbours get different ones.
  private func between(_ index: Int, _ part: Part) -> TensorView {
    TensorView(
      part.scratch + layersScratch + index % 2 * largest, batch: part.images.count,
      shape: links[index].output)
  }

  private func output(_ index: Int, _ part: Part) -> TensorView {
    guard part.training, let kept = kept[index] else { return between(index, part) }
    let shape = links[index].output
    return TensorView(
      kept.pointer + part.images.lowerBound * shape.count, batch: part.images.count, shape: shape)
  }

  override func forward(_ x: TensorView, _ y: TensorView, _ part: Part) {
    var below = x
    var part = part
    for index in links.indices {
      part.link = index
      if index == links.count - 2, let pooling = links[index + 1].layer as? MaxPool2D,
        (links[index].layer as! Conv2D).forward(
          below, between: links[index].output, pooling, y, part)
      {
        return
      }
      let above = index == links.count - 1 ? y : output(index, part)
      links[index].layer.forward(below, above, part)
      below = above
    }
  }

  override func backward(
    _ x: TensorView, _ y: TensorView, _ dy: TensorView, _ dx: TensorView?, _ part: Part
  ) {
    var (above, upstream) = (y, dy)
    var part = part
    for index in links.indices.reversed() {
      part.link = index
      let below = index == 0 ? x : output(index - 1, part)
      let gradient = index == 0 ? dx : between(index - 1, part)
      links[index].layer.backward(below, above, upstream, gradient, part)
      (above, upstream) = (below, gradient ?? upstream)
    }
  }

  override func addPieces(_ count: Int, _ runtime: Runtime) {
    for link in links { link.layer.addPieces(count, runtime) }
  }
}
