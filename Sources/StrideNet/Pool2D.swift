import CKernels

/// What max and average pooling share: windows that slide over each channel.
public class Pool2D: ImageLayer {
  /// Height and width of the windows.
  public fileprivate(set) var size: (height: Int, width: Int)
  public fileprivate(set) var stride: (height: Int, width: Int)

  /// The stride is the window's size unless given; a smaller one makes windows overlap.
  public convenience init(_ size: Int, stride: Int? = nil) {
    self.init((size, size), stride: stride.map { ($0, $0) })
  }

  public init(_ size: (height: Int, width: Int), stride: (height: Int, width: Int)? = nil) {
    self.size = size
    self.stride = stride ?? size
  }

  fileprivate var keyword: String { "" }

  public override var text: String {
    "\(keyword)(\(pair(size))\(stride == size ? "" : ",stride=\(pair(stride))"))"
  }

  public override func build(for input: Shape, runtime: Runtime) throws -> Shape {
    let (rows, columns, _) = try windows(over: input, size: size, stride: stride, in: text)
    guard size.height * size.width <= largest else {
      throw StrideNetError(
        .badData, "window too large", at: text, found: "\(size.height)×\(size.width)",
        expected: "at most \(largest) elements")
    }
    return Shape(rows, columns, input.channels)
  }

  override func cost(_ pass: LayerPass, _ input: Shape, _ output: Shape, _ runtime: Runtime)
    -> PassCost?
  {
    guard pass == .forward || pass == .inputGradient else { return nil }
    return PassCost(
      kernel: kernel(runtime.kernels.pool, backward: pass == .inputGradient),
      why: "\(runtime.kernels.whyPool)", inputs: Double(input.count),
      outputs: outputArrays * Double(output.count))
  }

  /// Elements that a window may have.
  fileprivate var largest: Int { 1 << 24 }

  /// Arrays of the output's size that a pass moves, in floats.
  fileprivate var outputArrays: Double { 1 }

  private func kernel(_ pool: PoolVariant, backward: Bool) -> String {
    // As in C.
    "pool_\(self is MaxPool2D ? "max" : "avg")_\(backward ? "backward" : "forward")_\(pool.variant.name)"
  }

  fileprivate func kernelShape(_ images: Int, _ input: Shape, _ output: Shape) -> ck_pool_shape {
    ck_pool_shape(
      n: Int32(images), h: Int32(input.height), w: Int32(input.width), c: Int32(input.channels),
      fh: Int32(size.height), fw: Int32(size.width),
      sh: Int32(stride.height), sw: Int32(stride.width),
      oh: Int32(output.height), ow: Int32(output.width))
  }
}

/// The largest value of each window: y[p,q,c] = max x[p·stride + i, q·stride + j, c].
/// Backwards, the first largest gets the whole gradient.
public final class MaxPool2D: Pool2D {
  // Where in its window each output came from.
  // Two to a float.
  private var places = FloatStorage.empty

  fileprivate override var keyword: String { "maxpool" }
  // A place is kept in two bytes.
  fileprivate override var largest: Int { 65_535 }
  /// The places, of two bytes each, too.
  fileprivate override var outputArrays: Double { 1.5 }

  public override func reserve(batch: Int, input: Shape, output: Shape, runtime: Runtime) throws {
    let needed = (batch * output.count + 1) / 2
    if places.count < needed { places = try FloatStorage(count: needed) }
  }

  override var forInference: Layer { MaxPool2D(size, stride: stride) }

  /// Whether outputs that aren't above 0, which ReLU before the pooling made, send no gradient back.
  var dropsZeros = false

  override func forward(_ x: TensorView, _ y: TensorView, _ part: Part) {
    let places = places(of: y, part)
    part.runtime.kernels.pool.maxForward(
      kernelShape(x.batch, x.shape, y.shape), x.pointer, y.pointer, places)
    if dropsZeros { Kernels.reluPlaces(y.count, y: y.pointer, places) }
    part.lap(.forward)
  }

  override func backward(
    _ x: TensorView, _ y: TensorView, _ dy: TensorView, _ dx: TensorView?, _ part: Part
  ) {
    guard let dx else { return }
    part.runtime.kernels.pool.maxBackward(
      kernelShape(dx.batch, dx.shape, dy.shape), dy.pointer, places(of: dy, part), dx.pointer)
    part.lap(.inputGradient)
  }

  func places(of y: TensorView, _ part: Part) -> UnsafeMutablePointer<UInt16> {
    let start = part.images.lowerBound * y.shape.count
    _ = places.at(start / 2, count: (y.count + start % 2 + 1) / 2)
    return UnsafeMutableRawPointer(places.pointer).assumingMemoryBound(to: UInt16.self) + start
  }
}

/// The mean of each window. Backwards, each of its values gets an equal share.
public class AvgPool2D: Pool2D {
  fileprivate override var keyword: String { "avgpool" }

  override func forward(_ x: TensorView, _ y: TensorView, _ part: Part) {
    part.runtime.kernels.pool.averageForward(
      kernelShape(x.batch, x.shape, y.shape), x.pointer, y.pointer)
    part.lap(.forward)
  }

  override func backward(
    _ x: TensorView, _ y: TensorView, _ dy: TensorView, _ dx: TensorView?, _ part: Part
  ) {
    guard let dx else { return }
    part.runtime.kernels.pool.averageBackward(
      kernelShape(dx.batch, dx.shape, dy.shape), dy.pointer, dx.pointer)
    part.lap(.inputGradient)
  }
}

/// The mean of each channel over the whole image: y[c] = mean x[·,·,c] (Lin et al. 2014,
/// arXiv:1312.4400). The output, 1×1×channels, is flat, so that a dense layer can follow.
public final class GlobalAvgPool: AvgPool2D {
  public init() { super.init((1, 1), stride: nil) }

  public override var text: String { "globalavgpool" }

  public override func build(for input: Shape, runtime: Runtime) throws -> Shape {
    size = (input.height, input.width)
    stride = size
    return try super.build(for: input, runtime: runtime)
  }
}

/// Reads each example as one flat vector, row by row, pixel by pixel, channel by channel.
public final class Flatten: Layer {
  public override init() {}
  public override var text: String { "flatten" }
  public override var onlyReshapes: Bool { true }
  public override func build(for input: Shape, runtime: Runtime) throws -> Shape {
    Shape(input.count)
  }
}
