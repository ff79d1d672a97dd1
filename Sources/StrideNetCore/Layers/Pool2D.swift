import CKernels

/// Windows that slide over each channel, and what is made of each.
package struct Pooling: Sendable {
  package enum Kind: Sendable { case max, average, globalAverage }
  package let kind: Kind
  /// Height and width of the windows.
  package let size: (height: Int, width: Int)
  package let stride: (height: Int, width: Int)

  package var isMax: Bool { kind == .max }

  var text: String {
    let arguments = "(\(pair(size))\(stride == size ? "" : ",stride=\(pair(stride))"))"
    return switch kind {
    case .max: "maxpool" + arguments
    case .average: "avgpool" + arguments
    case .globalAverage: "globalavgpool"
    }
  }

  func operations(for input: Shape) throws -> [LayerOperation] {
    let (rows, columns, _) = try windows(over: input, size: size, stride: stride, in: text)
    // The place of a largest value is kept in two bytes.
    let largest = isMax ? 65_535 : 1 << 24
    guard size.height * size.width <= largest else {
      throw StrideNetError(
        .badData, "window too large", at: text, found: "\(size.height)×\(size.width)",
        expected: "at most \(largest) elements")
    }
    return [LayerOperation(.pool(self), input, Shape(rows, columns, input.channels))]
  }

  func kernelShape(_ images: Int, _ input: Shape, _ output: Shape) -> ck_pool_shape {
    ck_pool_shape(
      n: Int32(images), h: Int32(input.height), w: Int32(input.width), c: Int32(input.channels),
      fh: Int32(size.height), fw: Int32(size.width),
      sh: Int32(stride.height), sw: Int32(stride.width),
      oh: Int32(output.height), ow: Int32(output.width))
  }
}

/// The largest value of each window: y[p,q,c] = max x[p·stride + i, q·stride + j, c].
/// Backwards, the first largest gets the whole gradient.
public struct MaxPool2D: Layer {
  private let pooling: Pooling

  /// The stride is the window's size unless given; a smaller one makes windows overlap.
  public init(_ size: Int, stride: Int? = nil) {
    self.init((size, size), stride: stride.map { ($0, $0) })
  }

  public init(_ size: (height: Int, width: Int), stride: (height: Int, width: Int)? = nil) {
    pooling = Pooling(kind: .max, size: size, stride: stride ?? size)
  }

  public var text: String { pooling.text }
  public func operations(for input: Shape) throws -> [LayerOperation] {
    try pooling.operations(for: input)
  }
}

/// The mean of each window. Backwards, each of its values gets an equal share.
public struct AvgPool2D: Layer {
  private let pooling: Pooling

  /// The stride is the window's size unless given; a smaller one makes windows overlap.
  public init(_ size: Int, stride: Int? = nil) {
    self.init((size, size), stride: stride.map { ($0, $0) })
  }

  public init(_ size: (height: Int, width: Int), stride: (height: Int, width: Int)? = nil) {
    pooling = Pooling(kind: .average, size: size, stride: stride ?? size)
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
    let size = (input.height, input.width)
    return try Pooling(kind: .globalAverage, size: size, stride: size).operations(for: input)
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
