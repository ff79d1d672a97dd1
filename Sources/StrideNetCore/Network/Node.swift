import CKernels

/// An operation at work: bound by a plan to a network's parameters and to the memory that it needs
/// besides. A plan makes its nodes, so each has neighbours and buffers of its own, while the layer
/// that it comes from knows of neither.
package class Node {
  /// Called before the first step and whenever the batch grows: the place to allocate, enough for
  /// all batches of up to `batch` examples.
  package func reserve(
    batch: Int, input: Shape, output: Shape, runtime: Runtime, training: Bool
  ) throws {}

  /// Computes the output `y` from the input `x`; both hold the same number of examples.
  package func forward(_ x: TensorView, _ y: TensorView, _ pass: Pass) {
    fatalError("\(type(of: self)) doesn't override forward")
  }

  /// From the upstream gradient `dy` (as large as `y`; it may be overwritten) computes the
  /// gradient `dx` (as large as `x`; nil where nobody needs it, below the first layer), and
  /// overwrites each parameter's gradient. `x` and `y` are those of the last forward pass.
  package func backward(
    _ x: TensorView, _ y: TensorView, _ dy: TensorView, _ dx: TensorView?, _ pass: Pass
  ) {
    fatalError("\(type(of: self)) doesn't override backward")
  }

  /// Called before passes in which nothing is trained, whenever the weights may have changed.
  package func prepareInference() throws {}

  /// What a pass computes and moves, for ``Explanation``; nil where there is no such pass.
  func cost(_ pass: LayerPass, _ input: Shape, _ output: Shape, _ runtime: Runtime) -> PassCost? {
    nil
  }

  /// True where the backward pass also applies the pass' update to the parameters, piece by piece
  /// while their gradient is in the cache.
  package var updatesInBackward: Bool { false }
}

/// A node that treats every image of a batch on its own. So threads share the batch out, and each
/// takes few images at a time through one node or, in a `Chain`, several.
///
/// How the batch is cut depends on shapes and the batch alone, never on the number of threads, and
/// sums go by a fixed tree (``BatchShare``): results are the same, bit for bit, for any number.
class ImageNode: Node {
  /// Images that pass at a time: few enough that what they leave stays in a second-level cache.
  final var imagesAtATime = 8

  /// Some images of a batch, on one thread.
  struct Part {
    let images: Range<Int>
    /// In a forward pass the number of the part, and in a backward pass the piece of the batch whose
    /// gradients are summed together, each counted from this process's first one.
    var piece = 0
    /// Whether these are the first images of a piece.
    var isFirst = true
    let pass: Pass
    let worker: Int
    /// How far behind the first of nodes that run together this one comes.
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

  /// Called before the parts of a pass, whose kernels may want the weights packed or transformed:
  /// once for all parts.
  func makeReady(_ pass: ck_pass, _ input: Shape, _ output: Shape, _ kernels: KernelChoice) {}

  /// Adds up the pieces' shares of the parameters' gradients, by the tree.
  func addPieces(_ pieces: Range<Int>, _ pass: Pass) {}

  /// Adds the shares of such pieces, `count` floats each, one behind the other.
  final func addByTree(_ sums: FloatStorage, _ count: Int, _ pieces: Range<Int>, _ pass: Pass) {
    pass.runtime.parallel(over: count, by: 4096, (sums, count, pieces)) { context, range, _ in
      let (sums, count, pieces) = context
      BatchShare.addNeighbours(pieces) { from, to in
        func part(_ piece: Int) -> UnsafeMutablePointer<Float> {
          sums.at((piece - pieces.lowerBound) * count + range.lowerBound, count: range.count)
        }
        Kernels.add(range.count, part(from), to: part(to))
      }
    }
  }

  /// Floats of scratch memory that a part needs.
  var scratchCount: Int { 0 }

  /// Of a small batch, images of a piece: more than one where there are so many weights that to write
  /// a gradient of them for each image takes longer than what the image itself does.
  final var fewestImages = 1
  /// Pieces that a batch is cut into, a power of two: at most 16.
  final func pieces(_ batch: Int) -> Int {
    min(16, max((batch / fewestImages).powerOfTwo, min(4, batch.powerOfTwo)))
  }
  /// This process's of them.
  final func pieces(_ share: BatchShare) -> Range<Int> { share.pieces(of: pieces(share.batch)) }
  /// The most that this process may have with up to so many images here.
  final func mostPieces(upTo batch: Int, _ runtime: Runtime) -> Int {
    runtime.communicator.size == 1 ? pieces(batch) : min(16, batch)
  }

  override func forward(_ x: TensorView, _ y: TensorView, _ pass: Pass) {
    if !pass.keepsWeights { makeReady(CK_FORWARD, x.shape, y.shape, pass.runtime.kernels) }
    let size = imagesAtATime
    pass.runtime.parallel(over: pass.share.chunks(of: size), (self, size, x, y, pass)) {
      context, chunk, worker in
      let (node, size, x, y, pass) = context
      let images = pass.share.chunk(chunk.lowerBound, of: size)
      if images.isEmpty { return }
      pass.times?.startPiece(worker)
      node.forward(
        x.examples(images), y.examples(images),
        Part(images: images, piece: chunk.lowerBound, pass: pass, worker: worker))
    }
    pass.times?.lapOfPieces()
  }

  /// The part's share of what a node must know of the whole batch before its backward pass.
  func addSums(_ x: TensorView, _ dy: TensorView, _ part: Part) {}

  override func backward(
    _ x: TensorView, _ y: TensorView, _ dy: TensorView, _ dx: TensorView?, _ pass: Pass
  ) {
    makeReady(CK_INPUT_GRADIENT, x.shape, y.shape, pass.runtime.kernels)
    forEachPart(x, y, dy, dx, pass, sums: false)
    pass.times?.lapOfPieces()
    addPieces(pieces(pass.share), pass)
    pass.times?.lap(.weightGradient)
  }

  /// A piece of the batch on one thread, part after part: their sums, or their backward pass.
  final func forEachPart(
    _ x: TensorView, _ y: TensorView, _ dy: TensorView, _ dx: TensorView?, _ pass: Pass, sums: Bool
  ) {
    let pieces = pieces(pass.share)
    pass.runtime.parallel(over: pieces.count, (self, pieces.lowerBound, x, y, dy, dx, pass, sums)) {
      context, range, worker in
      let (node, first, x, y, dy, dx, pass, sums) = context
      pass.times?.startPiece(worker)
      let piece = pass.share.examples(
        first + range.lowerBound, of: node.pieces(pass.share.batch))
      let step = node.imagesAtATime
      for start in stride(from: piece.lowerBound, to: piece.upperBound, by: step) {
        let images = start..<min(piece.upperBound, start + step)
        let part = Part(
          images: images, piece: range.lowerBound, isFirst: start == piece.lowerBound, pass: pass,
          worker: worker)
        if sums {
          node.addSums(x.examples(images), dy.examples(images), part)
        } else {
          node.backward(
            x.examples(images), y.examples(images), dy.examples(images), dx?.examples(images), part)
        }
      }
    }
  }
}

/// The passes of a layer of one's own.
final class CustomNode: Node {
  private let layer: any CustomLayer
  private let parameters: [Parameter]
  private var memory = FloatStorage.empty
  // Floats for each example.
  private let kept: Int

  init(_ layer: any CustomLayer, _ operation: Bound) {
    (self.layer, parameters) = (layer, operation.parameters)
    kept = layer.memory(for: operation.input)
  }

  override func reserve(
    batch: Int, input: Shape, output: Shape, runtime: Runtime, training: Bool
  ) throws {
    if memory.count < batch * kept { memory = try FloatStorage(count: batch * kept) }
  }

  private func custom(_ pass: Pass, _ batch: Int) -> CustomPass {
    CustomPass(
      parameters: parameters,
      memory: UnsafeMutableBufferPointer(
        start: memory.at(0, count: batch * kept), count: batch * kept),
      runtime: pass.runtime, isTraining: pass.training, seed: pass.seed, step: pass.step)
  }

  override func forward(_ x: TensorView, _ y: TensorView, _ pass: Pass) {
    layer.forward(x, y, custom(pass, x.batch))
  }

  override func backward(
    _ x: TensorView, _ y: TensorView, _ dy: TensorView, _ dx: TensorView?, _ pass: Pass
  ) {
    layer.backward(x, y, dy, dx, custom(pass, x.batch))
  }

  /// All arrays read or written once.
  override func cost(_ pass: LayerPass, _ input: Shape, _ output: Shape, _ runtime: Runtime)
    -> PassCost?
  {
    let arrays = pass == .forward ? 1 : 2
    guard pass == .forward || pass == .backward else { return nil }
    return PassCost(
      kernel: "own", why: PassCost.onlyKernel, inputs: Double(arrays * input.count),
      outputs: Double(arrays * output.count),
      weights: arrays * parameters.reduce(0) { $0 + $1.count })
  }
}
