import CKernels

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
/// Where a sum follows instead of a chain, that does as an upper chain would: see `AddNode`.
final class Chain: ImageNode {
  private struct Link {
    let node: ImageNode
    let output: Shape
    /// The output is kept for the backward pass: the next layer's weight gradient needs it.
    let isKept: Bool
  }
  private let links: [Link]
  private let head, tail: BatchNormNode?
  // The pooling at the end, and the convolution before it.
  private let pooling: PoolingNode?
  private let pooled: ConvolutionNode?
  private var kept: [FloatStorage?] = []
  /// Index of the last operation.
  let last: Int
  /// The tail where what comes after it is a sum, which normalises while it adds.
  let sumTail: BatchNormNode?
  /// Whether it does anything that its nodes alone don't.
  var isWorthIt: Bool { links.count > 1 || head != nil || tail != nil }
  /// Indices of the operations whose parameters' gradients the chain's backward pass finishes.
  let finished: Range<Int>

  /// The chain that begins with operation `first`; nil where that is no convolution with a kernel's
  /// own activation, nor the tail of the chain below. It may have one node. Sets how many images its
  /// nodes take at a time, which is the same whether they then run together or not.
  /// - Parameters:
  ///   - nodes: one for each operation
  ///   - isSummed: whether the output of the last operation goes into a sum
  init?(
    _ operations: [Bound], _ nodes: [Node?], from first: Int, below: Chain?, isSummed: Bool
  ) {
    head = below?.tail
    func isConvolution(_ index: Int) -> Bool {
      guard index < operations.count, case .convolve = operations[index].kind else { return false }
      return operations[index].activation.isPlain
    }
    func isMaxPooling(_ index: Int) -> Bool {
      guard index < operations.count, case .pool(let window) = operations[index].kind else {
        return false
      }
      return window.isMax
    }
    let convolutions = first + (head == nil ? 0 : 1)
    var end = convolutions
    var tail: BatchNormNode?
    while tail == nil, isConvolution(end) {
      end += 1
      // Worth it where something follows that a chain can begin with after its head, or a sum.
      if !operations[end - 1].activation.isRelu, end < operations.count,
        let next = nodes[end] as? BatchNormNode, next.activation.isPlain,
        isMaxPooling(end + 1) || isConvolution(end + 1)
          || isSummed && end + 1 == operations.count && next.activation.isNone
      {
        tail = next
      }
    }
    sumTail = end + 1 == operations.count ? tail : nil
    guard end > first else { return nil }
    let images = operations[first..<end].map { operation in
      Conv2D.imagesAtATime(operation.output, weights: operation.parameters.first?.count ?? 0)
    }.min()!
    var pooling: PoolingNode?
    if tail == nil, isMaxPooling(end) {
      pooling = nodes[end] as? PoolingNode
      end += 1
    }
    (self.tail, self.pooling) = (tail, pooling)
    pooled = pooling == nil ? nil : nodes[end - 2] as? ConvolutionNode
    last = end - 1
    finished = first + (head == nil ? 0 : 1)..<end + (tail == nil ? 0 : 1)
    links = (first..<end).map { index in
      Link(
        node: nodes[index] as! ImageNode, output: operations[index].output,
        isKept: index + 1 < end && isConvolution(index + 1) && isConvolution(index))
    }
    super.init()
    imagesAtATime = images
    let weights = operations[first..<end].map { $0.parameters.first?.count ?? 0 }.max()!
    fewestImages = Conv2D.hasMany(weights) ? 4 : 1
    for link in links { (link.node.imagesAtATime, link.node.fewestImages) = (images, fewestImages) }
    // Whose sums the backward pass takes, piece by piece.
    head?.fewestImages = fewestImages
    tail?.imagesMeasured = images
    sumTail?.imagesAtATime = images
  }

  /// Floats of the largest array between two nodes, for the images that pass at a time; those
  /// arrays lie behind the nodes' own scratch memory.
  private var largest = 0
  private var nodesScratch = 0

  override func reserve(
    batch: Int, input: Shape, output: Shape, runtime: Runtime, training: Bool
  ) throws {
    func reserve(_ node: Node, _ below: Shape, _ above: Shape) throws {
      try node.reserve(
        batch: batch, input: below, output: above, runtime: runtime, training: training)
    }
    var below = input
    for link in links {
      try reserve(link.node, below, link.output)
      below = link.output
    }
    if let tail { try reserve(tail, below, below) }
    if let pooling, let pooled {
      pooled.leavesReluToPooling = pooled.isRelu
      pooling.dropsZeros = pooled.isRelu
    }
    kept = try links.map { $0.isKept ? try FloatStorage(count: batch * $0.output.count) : nil }
    largest = (imagesAtATime * links.map(\.output.count).max()!).roundedUp
    nodesScratch = max(links.map(\.node.scratchCount).max()!, tail?.scratchCount ?? 0).roundedUp
    try runtime.reserveScratch(nodesScratch + 3 * largest)
  }

  /// Memory for link number `index`'s output or its gradient: neighbours get different ones.
  private func between(_ index: Int, _ part: Part) -> TensorView {
    TensorView(
      part.scratch + nodesScratch + index % 2 * largest, batch: part.images.count,
      shape: links[index].output)
  }

  private func output(_ index: Int, _ part: Part) -> TensorView {
    // The head's is computed twice; nothing else has the third place.
    if index == 0 && head != nil {
      return TensorView(
        part.scratch + nodesScratch + 2 * largest, batch: part.images.count,
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
      if index == links.count - 2, let pooling, let pooled,
        pooled.forward(below, between: links[index].output, pooling, y, part)
      {
        return
      }
      let above = index == links.count - 1 ? y : output(index, part)
      links[index].node.forward(below, above, part)
      below = above
    }
    if let tail {
      tail.measure(y, part.piece, part.pass)
      part.link = links.count
      part.lap(.forward)
    }
  }

  override func forward(_ x: TensorView, _ y: TensorView, _ pass: Pass) {
    // Statistics are of training: elsewhere a plan has other layers in place of these.
    precondition(pass.training || head == nil && tail == nil)
    if isCut(x, pass) { return forwardCut(x, y, pass) }
    super.forward(x, y, pass)
    tail?.finishStatistics(y, pass)
  }

  /// Whether threads share out the rows of few images: then links follow each other, each of all
  /// rows.
  private func isCut(_ x: TensorView, _ pass: Pass) -> Bool {
    var below = x
    for link in links {
      if let node = link.node as? ConvolutionNode, node.isCut(below, link.output, pass) {
        return true
      }
      below = TensorView(x.pointer, batch: x.batch, shape: link.output)
    }
    return false
  }

  private func forwardCut(_ x: TensorView, _ y: TensorView, _ pass: Pass) {
    if !pass.keepsWeights { makeReady(CK_FORWARD, x.shape, y.shape, pass.runtime.kernels) }
    let all = Part(images: 0..<x.batch, pass: pass, worker: 0)
    var below = x
    for index in links.indices {
      let (node, shape) = (links[index].node, links[index].output)
      let above = index == links.count - 1 ? y : between(index, all)
      let convolution = node as? ConvolutionNode
      if let convolution, convolution.isCut(below, shape, pass) {
        if index == links.count - 2, let pooling,
          convolution.forward(below, shape, pooling, y, cut: pass)
        {
          return
        }
        convolution.forward(below, shape, nil, above, cut: pass)
      } else if index == links.count - 2, let pooling, let convolution,
        convolution.forward(below, between: shape, pooling, y, all)
      {
        return
      } else {
        node.forward(below, above, all)
      }
      below = above
    }
  }

  override func backward(
    _ x: TensorView, _ y: TensorView, _ dy: TensorView, _ dx: TensorView?, _ pass: Pass
  ) {
    tail?.finishSums(y, pass)
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
      if index == 1, let head, links[1].node !== pooling {
        part.link = 0
        head.forward(x, output(0, part), part)
        part.link = 1
      }
      let below = index == 0 ? x : output(index - 1, part)
      let gradient = index == 0 ? dx : between(index - 1, part)
      links[index].node.backward(below, above, upstream, gradient, part)
      (above, upstream) = (below, gradient ?? upstream)
    }
  }

  override func makeReady(
    _ pass: ck_pass, _ input: Shape, _ output: Shape, _ kernels: KernelChoice
  ) {
    var below = input
    for link in links {
      link.node.makeReady(pass, below, link.output, kernels)
      below = link.output
    }
  }

  override func addPieces(_ pieces: Range<Int>, _ pass: Pass) {
    for link in links { link.node.addPieces(pieces, pass) }
  }
}
