import CKernels

/// Windows that slide over each channel, and what is made of each.
package struct Pooling: Sendable {
  package enum Kind: Sendable { case max, average, globalAverage }
  package let kind: Kind
  /// Height and width of the windows.
  package let size: (height: Int, width: Int)
  package let stride: (height: Int, width: Int)
  let padding: Padding
  /// Whether outputs are as many as there are windows that begin in the image or the padding before
  /// it, where those at the end may reach beyond the padding.
  let ceilMode: Bool
  /// Whether what a mean divides by counts padding.
  package let countsPadding: Bool
  /// Of an operation, the padding around its input.
  package private(set) var around = (top: 0, left: 0, bottom: 0, right: 0)

  init(
    _ kind: Kind, _ size: (height: Int, width: Int), _ stride: (height: Int, width: Int)? = nil,
    _ padding: Padding = .valid, ceilMode: Bool = false, countsPadding: Bool = true
  ) {
    (self.kind, self.size, self.stride) = (kind, size, stride ?? size)
    (self.padding, self.ceilMode, self.countsPadding) = (padding, ceilMode, countsPadding)
  }

  package var isMax: Bool { kind == .max }

  var text: String {
    var arguments = [pair(size)]
    if stride != size { arguments.append("stride=\(pair(stride))") }
    if padding != .valid && padding != 0 { arguments.append("padding=\(padding.text)") }
    if ceilMode { arguments.append("ceil_mode=true") }
    if !countsPadding { arguments.append("count_include_pad=false") }
    let list = "(\(arguments.joined(separator: ",")))"
    return switch kind {
    case .max: "maxpool" + list
    case .average: "avgpool" + list
    case .globalAverage: "globalavgpool"
    }
  }

  func operations(for input: Shape) throws -> [LayerOperation] {
    let (rows, columns, zeros) = try windows(
      over: input, size: size, stride: stride, padding: padding, ceilMode: ceilMode,
      needsPixels: true, in: text)
    // The place of a largest value is kept in two bytes.
    let largest = isMax ? 65_535 : 1 << 24
    guard size.height * size.width <= largest else {
      throw StrideNetError(
        .badData, "window too large", at: text, found: "\(size.height)×\(size.width)",
        expected: "at most \(largest) elements")
    }
    var pooling = self
    pooling.around = zeros
    return [LayerOperation(.pool(pooling), input, Shape(rows, columns, input.channels))]
  }

  /// What a window holds of the image: rows, columns, and how many elements its mean divides by.
  package func window(_ row: Int, _ column: Int, over input: Shape) -> (
    rows: Range<Int>, columns: Range<Int>, divisor: Int
  ) {
    func inside(_ from: Int, _ size: Int, _ range: Range<Int>) -> Range<Int> {
      (from..<from + size).clamped(to: range)
    }
    let (top, left) = (row * stride.height - around.top, column * stride.width - around.left)
    let rows = inside(top, size.height, 0..<input.height)
    let columns = inside(left, size.width, 0..<input.width)
    guard countsPadding else { return (rows, columns, rows.count * columns.count) }
    return (
      rows, columns,
      inside(top, size.height, -around.top..<input.height + around.bottom).count
        * inside(left, size.width, -around.left..<input.width + around.right).count
    )
  }

  /// The padding below and to the right with which there are as many outputs without `ceilMode`.
  package func end(_ input: Shape, _ output: Shape) -> (bottom: Int, right: Int) {
    (
      max(0, (output.height - 1) * stride.height + size.height - input.height - around.top),
      max(0, (output.width - 1) * stride.width + size.width - input.width - around.left)
    )
  }

  /// Whether all that windows hold is pixels.
  package func isInside(_ input: Shape, _ output: Shape) -> Bool {
    (around.top, around.left) == (0, 0) && end(input, output) == (0, 0)
  }

  func kernelShape(_ images: Int, _ input: Shape, _ output: Shape) -> ck_pool_shape {
    ck_pool_shape(
      n: Int32(images), h: Int32(input.height), w: Int32(input.width), c: Int32(input.channels),
      fh: Int32(size.height), fw: Int32(size.width),
      sh: Int32(stride.height), sw: Int32(stride.width),
      oh: Int32(output.height), ow: Int32(output.width),
      ph: Int32(around.top), pw: Int32(around.left),
      ch: countsPadding ? Int32(input.height + around.top + around.bottom) : 0,
      cw: countsPadding ? Int32(input.width + around.left + around.right) : 0)
  }
}

/// The largest value of each window:
///
///     y[p,q,c] = max i,j  x[p·stride + i − top, q·stride + j − left, c]
///
/// of what the window holds of the image: padding is never the largest. Backwards, the first largest
/// gets the whole gradient. The output is ⌊(input + padding − size) / stride⌋ + 1 on each axis; in
/// ceil mode rounded up instead, so that windows at the end may reach beyond the padding, but without
/// those that would begin there. Padding is smaller than the window.
public struct MaxPool2D: Layer {
  private let pooling: Pooling

  /// The stride is the window's size unless given; a smaller one makes windows overlap.
  public init(_ size: Int, stride: Int? = nil, padding: Padding = .valid, ceilMode: Bool = false) {
    self.init(
      (size, size), stride: stride.map { ($0, $0) }, padding: padding, ceilMode: ceilMode)
  }

  public init(
    _ size: (height: Int, width: Int), stride: (height: Int, width: Int)? = nil,
    padding: Padding = .valid, ceilMode: Bool = false
  ) {
    pooling = Pooling(.max, size, stride, padding, ceilMode: ceilMode)
  }

  public var text: String { pooling.text }
  public func operations(for input: Shape) throws -> [LayerOperation] {
    try pooling.operations(for: input)
  }
}

/// The mean of each window; there are as many of them as of ``MaxPool2D``'s. Backwards, each of its
/// values gets an equal share. Padding counts as zeros, as in PyTorch, or with `countIncludePad`
/// false not at all, as in TensorFlow; what lies beyond it, in ceil mode, never counts.
public struct AvgPool2D: Layer {
  private let pooling: Pooling

  /// The stride is the window's size unless given; a smaller one makes windows overlap.
  public init(
    _ size: Int, stride: Int? = nil, padding: Padding = .valid, ceilMode: Bool = false,
    countIncludePad: Bool = true
  ) {
    self.init(
      (size, size), stride: stride.map { ($0, $0) }, padding: padding, ceilMode: ceilMode,
      countIncludePad: countIncludePad)
  }

  public init(
    _ size: (height: Int, width: Int), stride: (height: Int, width: Int)? = nil,
    padding: Padding = .valid, ceilMode: Bool = false, countIncludePad: Bool = true
  ) {
    pooling = Pooling(
      .average, size, stride, padding, ceilMode: ceilMode, countsPadding: countIncludePad)
  }

  public var text: String { pooling.text }
  public func operations(for input: Shape) throws -> [LayerOperation] {
    try pooling.operations(for: input)
  }
}

/// The mean of each channel over the whole image: y[c] = mean x[·,·,c] (Lin et al. 2014,
/// arXiv:1312.4400). The output, 1×1×channels, is flat, so that a dense layer can follow.
public struct GlobalAvgPool: Layer {
  public init() {}

  public var text: String { "globalavgpool" }

  public func operations(for input: Shape) throws -> [LayerOperation] {
    try Pooling(.globalAverage, (input.height, input.width)).operations(for: input)
  }
}

/// The passes of max-pooling and of averages.
final class PoolingNode: ImageNode {
  let window: Pooling
  // Where in its window each largest value came from; two to a float.
  private var places = FloatStorage.empty

  init(_ window: Pooling) { self.window = window }

  override func reserve(
    batch: Int, input: Shape, output: Shape, runtime: Runtime, training: Bool
  ) throws {
    guard window.isMax else { return }
    let needed = (batch * output.count + 1) / 2
    if places.count < needed { places = try FloatStorage(count: needed) }
  }

  /// Whether outputs that aren't above 0, which ReLU before the pooling made, send no gradient back.
  var dropsZeros = false

  override func forward(_ x: TensorView, _ y: TensorView, _ part: Part) {
    let (pool, shape) = (part.runtime.kernels.pool, window.kernelShape(x.batch, x.shape, y.shape))
    if window.isMax {
      let places = places(of: y, part)
      pool.maxForward(shape, x.pointer, y.pointer, places)
      if dropsZeros { Kernels.reluPlaces(y.count, y: y.pointer, places) }
    } else {
      pool.averageForward(shape, x.pointer, y.pointer)
    }
    part.lap(.forward)
  }

  override func backward(
    _ x: TensorView, _ y: TensorView, _ dy: TensorView, _ dx: TensorView?, _ part: Part
  ) {
    guard let dx else { return }
    let pool = part.runtime.kernels.pool
    let shape = window.kernelShape(dx.batch, dx.shape, dy.shape)
    if window.isMax {
      pool.maxBackward(shape, dy.pointer, places(of: dy, part), dx.pointer)
    } else {
      pool.averageBackward(shape, dy.pointer, dx.pointer)
    }
    part.lap(.inputGradient)
  }

  func places(of y: TensorView, _ part: Part) -> UnsafeMutablePointer<UInt16> {
    let start = part.images.lowerBound * y.shape.count
    _ = places.at(start / 2, count: (y.count + start % 2 + 1) / 2)
    return UnsafeMutableRawPointer(places.pointer).assumingMemoryBound(to: UInt16.self) + start
  }

  override func cost(_ pass: LayerPass, _ input: Shape, _ output: Shape, _ runtime: Runtime)
    -> PassCost?
  {
    guard pass == .forward || pass == .inputGradient else { return nil }
    let (kind, way) = (window.isMax ? "max" : "avg", pass == .forward ? "forward" : "backward")
    return PassCost(
      // As in C.
      kernel: "pool_\(kind)_\(way)_\(runtime.kernels.pool.name)",
      why: "\(runtime.kernels.whyPool)", inputs: Double(input.count),
      // The places, of two bytes each, too.
      outputs: (window.isMax ? 1.5 : 1) * Double(output.count))
  }
}

/// Reads each example as one flat vector, row by row, pixel by pixel, channel by channel.
public struct Flatten: Layer {
  public init() {}
  public var text: String { "flatten" }
  public func operations(for input: Shape) throws -> [LayerOperation] {
    [LayerOperation(.reshape, input, Shape(input.count))]
  }
}
