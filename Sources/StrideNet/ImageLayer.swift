/// A layer that treats every image of a batch on its own. So threads share the batch out, and each
/// takes few images at a time through one layer or, in a `Chain`, several.
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

  /// The batch is cut into at most so many pieces.
  private static let mostPieces = 16
  static func imagesAPiece(_ batch: Int) -> Int { (batch + mostPieces - 1) / mostPieces }
  static func pieces(_ batch: Int) -> Int { (batch - 1) / imagesAPiece(batch) + 1 }
  /// Pieces that a batch of up to so many images may be cut into. A smaller one may have more than a
  /// larger one: 70 images are 14 pieces of 5, 60 are 15 of 4.
  static func mostPieces(upTo batch: Int) -> Int { min(batch, mostPieces) }

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

  /// The part's share of what a layer must know of the whole batch before its backward pass.
  func addSums(_ x: TensorView, _ dy: TensorView, _ part: Part) {}

  public override func backward(
    _ x: TensorView, _ y: TensorView, _ dy: TensorView, _ dx: TensorView?, _ pass: Pass
  ) {
    forEachPart(x, y, dy, dx, pass, sums: false)
    pass.times?.lapOfPieces()
    addPieces(Self.pieces(x.batch), pass.runtime)
    pass.times?.lap(.weightGradient)
  }

  /// A piece of the batch on one thread, part after part: their sums, or their backward pass.
  final func forEachPart(
    _ x: TensorView, _ y: TensorView, _ dy: TensorView, _ dx: TensorView?, _ pass: Pass, sums: Bool
  ) {
    let size = Self.imagesAPiece(x.batch)
    pass.runtime.parallel(over: x.batch, by: size, (self, size, x, y, dy, dx, pass, sums)) {
      context, piece, worker in
      let (layer, size, x, y, dy, dx, pass, sums) = context
      pass.times?.startPiece(worker)
      let step = layer.imagesAtATime
      for start in stride(from: piece.lowerBound, to: piece.upperBound, by: step) {
        let images = start..<min(piece.upperBound, start + step)
        let part = Part(
          images: images, piece: start / size, isFirst: start == piece.lowerBound, pass: pass,
          worker: worker)
        if sums {
          layer.addSums(x.examples(images), dy.examples(images), part)
        } else {
          layer.backward(
            x.examples(images), y.examples(images), dy.examples(images), dx?.examples(images), part)
        }
      }
    }
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
///
/// Batch normalisation can't be inside, since its statistics are of the whole batch: it is where one
/// chain ends and the next begins. The lower chain takes the statistics of its outputs, as its tail;
/// the upper one normalises them, as its head, keeps nothing of that (the backward pass does it
/// again) and leaves the gradient of the normalised values, with its sums taken, to the lower one.
final class Chain: ImageLayer {
  private struct Link {
    let layer: ImageLayer
    let output: Shape
    /// The output is kept for the backward pass: the next layer's weight gradient needs it.
    let isKept: Bool
  }
  private let links: [Link]
  private let head, tail: BatchNorm?
  private var kept: [FloatStorage?] = []
  /// Index of the last layer.
  let last: Int
  /// Whether it does anything that its layers alone don't.
  var isWorthIt: Bool { links.count > 1 || head != nil || tail != nil }
  /// The layers whose parameters' gradients the chain's backward pass finishes.
  var finished: [Layer] {
    links.dropFirst(head == nil ? 0 : 1).map(\.layer) + [tail].compactMap { $0 }
  }

  /// The chain that begins with layer `first`; nil where that is no convolution with a kernel's own
  /// activation, nor the tail of the chain below. It may have one layer. Sets how many images its
  /// layers take at a time, which is the same whether they then run together or not.
  init?(_ layers: [Layer], _ shapes: [Shape], from first: Int, below: Chain?) {
    head = below?.tail
    let convolutions = first + (head == nil ? 0 : 1)
    var end = convolutions
    var tail: BatchNorm?
    while tail == nil, end < layers.count, let layer = layers[end] as? Conv2D, layer.isPlain {
      end += 1
      // Worth it where something follows that a chain can begin with after its head.
      if !layer.isRelu, end + 1 < layers.count, let next = layers[end] as? BatchNorm, next.isPlain,
        layers[end + 1] is MaxPool2D || (layers[end + 1] as? Conv2D)?.isPlain == true
      {
        tail = next
      }
    }
    guard end > first else { return nil }
    let images = shapes[first..<max(end, first + 1)].map(Conv2D.imagesAtATime).min()!
    if tail == nil, end < layers.count, layers[end] is MaxPool2D { end += 1 }
    self.tail = tail
    last = end - 1
    links = (first..<end).map { index in
      let next = index + 1 < end ? layers[index + 1] : nil
      return Link(
        layer: layers[index] as! ImageLayer, output: shapes[index],
        isKept: next is Conv2D && !(layers[index] is BatchNorm))
    }
    super.init()
    imagesAtATime = images
    for link in links { link.layer.imagesAtATime = images }
    tail?.imagesMeasured = images
  }

  /// Floats of the largest array between two layers, for the images that pass at a time; those
  /// arrays lie behind the layers' own scratch memory.
  private var largest = 0
  private var layersScratch = 0

  override func reserve(batch: Int, input: Shape, output: Shape, runtime: Runtime) throws {
    var below = input
    for link in links {
      try link.layer.reserve(batch: batch, input: below, output: link.output, runtime: runtime)
      below = link.output
    }
    try tail?.reserve(batch: batch, input: below, output: below, runtime: runtime)
    if let pooling = links.last!.layer as? MaxPool2D,
      let convolution = links[links.count - 2].layer as? Conv2D
    {
      convolution.leavesReluToPooling = convolution.isRelu
      pooling.dropsZeros = convolution.isRelu
    }
    kept = try links.map { $0.isKept ? try FloatStorage(count: batch * $0.output.count) : nil }
    largest = (imagesAtATime * links.map(\.output.count).max()!).roundedUp
    layersScratch = max(links.map(\.layer.scratchCount).max()!, tail?.scratchCount ?? 0).roundedUp
    try runtime.reserveScratch(layersScratch + 3 * largest)
  }

  /// Memory for link number `index`'s output or its gradient: neighbours get different ones.
  private func between(_ index: Int, _ part: Part) -> TensorView {
    TensorView(
      part.scratch + layersScratch + index % 2 * largest, batch: part.images.count,
      shape: links[index].output)
  }

  private func output(_ index: Int, _ part: Part) -> TensorView {
    // The head's is computed twice; nothing else has the third place.
    if index == 0 && head != nil {
      return TensorView(
        part.scratch + layersScratch + 2 * largest, batch: part.images.count,
        shape: links[0].output)
    }
    guard part.training, let kept = kept[index] else { return between(index, part) }
    let shape = links[index].output
    return TensorView(
      kept.at(part.images.lowerBound * shape.count, count: part.images.count * shape.count),
      batch: part.images.count, shape: shape)
  }

  override func forward(_ x: TensorView, _ y: TensorView, _ part: Part) {
    var below = x
    var part = part
    for index in links.indices {
      part.link = index
      if index == links.count - 2, let pooling = links[index + 1].layer as? MaxPool2D,
        let convolution = links[index].layer as? Conv2D,
        convolution.forward(below, between: links[index].output, pooling, y, part)
      {
        return
      }
      let above = index == links.count - 1 ? y : output(index, part)
      links[index].layer.forward(below, above, part)
      below = above
    }
    if let tail {
      tail.measure(y, at: part.images.lowerBound)
      part.link = links.count
      part.lap(.forward)
    }
  }

  override func forward(_ x: TensorView, _ y: TensorView, _ pass: Pass) {
    // Statistics are of training: elsewhere a plan has other layers in place of these.
    precondition(pass.training || head == nil && tail == nil)
    super.forward(x, y, pass)
    tail?.finishStatistics(y)
  }

  override func backward(
    _ x: TensorView, _ y: TensorView, _ dy: TensorView, _ dx: TensorView?, _ pass: Pass
  ) {
    tail?.finishSums(y)
    super.backward(x, y, dy, dx, pass)
  }

  override func backward(
    _ x: TensorView, _ y: TensorView, _ dy: TensorView, _ dx: TensorView?, _ part: Part
  ) {
    var (above, upstream) = (y, dy)
    var part = part
    if let tail {
      part.link = links.count
      upstream = between(links.count - 1, part)
      tail.backward(y, y, dy, upstream, part)
    }
    for index in links.indices.reversed() {
      part.link = index
      if index == 0, let head, let dx {
        head.addSums(x, upstream, part)
        part.lap(.backward)
        dx.pointer.update(from: upstream.pointer, count: dx.count)
        return
      }
      if index == 1, let head, links[1].layer is Conv2D {
        part.link = 0
        head.forward(x, output(0, part), part)
        part.link = 1
      }
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
