import CKernels

/// What max and average pooling share: windows that slide over each channel.
public class Pool2D: Layer {
  /// Height and width of the windows.
  public let size: (height: Int, width: Int)
  public let stride: (height: Int, width: Int)

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
    let (rows, columns) = try windows(
      over: input, size: size, stride: stride, padding: (0, 0), in: text)
    guard size.height * size.width <= 65_535 else {
      throw StrideNetError(
        .badData, "window too large", at: text, found: "\(size.height)×\(size.width)",
        expected: "at most 65,535 elements")
    }
    return Shape(rows, columns, input.channels)
  }

  private static let imagesAPiece = 8

  public override func forward(_ x: TensorView, _ y: TensorView, _ pass: Pass) {
    pass.runtime.parallel(over: x.batch, by: Self.imagesAPiece, (self, x, y, pass.runtime)) {
      context, range, _ in
      let (layer, x, y, runtime) = context
      layer.forward(x.examples(range), y.examples(range), from: range.lowerBound, runtime)
    }
  }

  public override func backward(
    _ x: TensorView, _ y: TensorView, _ dy: TensorView, _ dx: TensorView?, _ pass: Pass
  ) {
    guard let dx else { return }
    pass.runtime.parallel(over: x.batch, by: Self.imagesAPiece, (self, dx, dy, pass.runtime)) {
      context, range, _ in
      let (layer, dx, dy, runtime) = context
      layer.backward(dy.examples(range), dx.examples(range), from: range.lowerBound, runtime)
    }
  }

  /// A piece of the batch, on one thread; its first example is the batch's `first`.
  func forward(_ x: TensorView, _ y: TensorView, from first: Int, _ runtime: Runtime) {
    fatalError("\(type(of: self)) doesn't pool")
  }

  func backward(_ dy: TensorView, _ dx: TensorView, from first: Int, _ runtime: Runtime) {
    fatalError("\(type(of: self)) doesn't pool")
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
  private var places = UnsafeMutableBufferPointer<UInt16>(start: nil, count: 0)

  deinit { places.deallocate() }

  fileprivate override var keyword: String { "maxpool" }

  public override func reserve(batch: Int, input: Shape, output: Shape, runtime: Runtime) {
    guard places.count < batch * output.count else { return }
    places.deallocate()
    places = .allocate(capacity: batch * output.count)
  }

  override func forward(_ x: TensorView, _ y: TensorView, from first: Int, _ runtime: Runtime) {
    runtime.kernels.pool.maxForward(
      kernelShape(x.batch, x.shape, y.shape), x.pointer, y.pointer,
      places.baseAddress! + first * y.shape.count)
  }

  /// Forgets the places of outputs that aren't above 0: those that ReLU before the pooling made.
  func dropPlacesOfZeros(_ y: TensorView, from first: Int) {
    Kernels.reluPlaces(y.count, y: y.pointer, places.baseAddress! + first * y.shape.count)
  }

  override func backward(_ dy: TensorView, _ dx: TensorView, from first: Int, _ runtime: Runtime) {
    runtime.kernels.pool.maxBackward(
      kernelShape(dx.batch, dx.shape, dy.shape), dy.pointer,
      places.baseAddress! + first * dy.shape.count, dx.pointer)
  }
}

/// The mean of each window. Backwards, each of its values gets an equal share.
public final class AvgPool2D: Pool2D {
  fileprivate override var keyword: String { "avgpool" }

  override func forward(_ x: TensorView, _ y: TensorView, from first: Int, _ runtime: Runtime) {
    runtime.kernels.pool.averageForward(
      kernelShape(x.batch, x.shape, y.shape), x.pointer, y.pointer)
  }

  override func backward(_ dy: TensorView, _ dx: TensorView, from first: Int, _ runtime: Runtime) {
    runtime.kernels.pool.averageBackward(
      kernelShape(dx.batch, dx.shape, dy.shape), dy.pointer, dx.pointer)
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
