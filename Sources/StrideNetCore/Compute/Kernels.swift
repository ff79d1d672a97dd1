import CKernels

/// The one place where Swift calls C kernels. Each function checks sizes, then makes one call.
package enum Kernels {
  package typealias Floats = UnsafePointer<Float>
  package typealias MutableFloats = UnsafeMutablePointer<Float>

  // MARK: Matrix product

  package static var gemmWorkspace: Int { Int(ck_kernels().pointee.gemm_workspace) }
  /// Of whichever product the precision wants.
  package static func gemmWorkspace(_ precision: Precision) -> Int {
    precision == .bf16 ? Int(ck_kernels().pointee.gemm_bf16_workspace) : gemmWorkspace
  }

  /// Columns of C that one piece of work computes. The result doesn't depend on them.
  private static let tileColumns = Int(CK_BF16_COLUMNS)

  /// C (m,n) = A (m,k) · B (k,n), with A as it is or stored (k,m), B as it is or stored (n,k), or
  /// made ready; the pieces of C are shared out. Where C is a parameter's gradient, `update` is
  /// applied to each piece while it is in the cache; C may be some of its columns, from the one given.
  static func gemm(
    _ runtime: Runtime, transposeA: Bool = false, transposeB: Bool = false, m: Int, n: Int, k: Int,
    _ a: Floats, _ b: Floats, isReady: Bool = false, _ c: MutableFloats,
    rowOfC: Int? = nil, update: (Update, Parameter, column: Int)? = nil
  ) {
    let rowOfC = rowOfC ?? n
    let across = (n + tileColumns - 1) / tileColumns
    // Of a narrow C more pieces, so that there is one for each thread.
    let height = across == 1 ? 64 : 128
    let down = (m + height - 1) / height
    let flags = Int32(
      (transposeA ? CK_TRANSPOSE_A : 0) | (transposeB ? CK_TRANSPOSE_B : 0)
        | (isReady ? CK_READY_B : 0))
    runtime.parallel(
      over: across * down, (runtime, flags, across, height, m, n, k, a, b, c, rowOfC, update)
    ) { context, range, worker in
      let (runtime, flags, across, height, m, n, k, a, b, c, rowOfC, update) = context
      let piece = range.lowerBound
      let (i, j) = (piece / across * height, piece % across * tileColumns)
      let (rows, columns) = (min(height, m - i), min(tileColumns, n - j))
      let isTurned = (flags & Int32(CK_TRANSPOSE_A) != 0, flags & Int32(CK_TRANSPOSE_B) != 0)
      let table = ck_kernels().pointee
      let isBF16 = runtime.kernels.precision == .bf16
      let right =
        flags & Int32(CK_READY_B) != 0
        ? (b + j * table.bf16_column(k), table.bf16_column(k))
        : isTurned.1 ? (b + j * k, k) : (b + j, n)
      (isBF16 ? table.gemm_bf16 : table.gemm)(
        flags, rows, columns, k, isTurned.0 ? a + i : a + i * k, isTurned.0 ? m : k, right.0,
        right.1, c + i * rowOfC + j, rowOfC, runtime.scratch(worker))
      guard let (update, parameter, first) = update else { return }
      update.apply(
        parameter, rows: i..<i + rows, of: rowOfC, columns: first + j..<first + j + columns)
    }
  }

  /// Floats that a dense layer's weights take when they are ready for the forward pass; 0 where that
  /// takes them as they are.
  package static func denseReadyCount(_ precision: Precision, outputs: Int, inputs: Int) -> Int {
    precision == .float32 ? 0 : outputs.roundedUp * ck_kernels().pointee.bf16_column(inputs)
  }

  /// Makes w (outputs, inputs) ready.
  package static func makeDenseReady(
    _ runtime: Runtime, outputs: Int, inputs: Int, _ w: Floats, _ ready: MutableFloats
  ) {
    let depth = Int(CK_BF16_DEPTH)
    let parts = ((outputs + tileColumns - 1) / tileColumns) * ((inputs + depth - 1) / depth)
    runtime.parallel(over: parts, (runtime, outputs, inputs, w, ready)) { context, part, worker in
      let (runtime, outputs, inputs, w, ready) = context
      ck_kernels().pointee.bf16_ready(
        Int32(CK_TRANSPOSE_B), outputs, inputs, w, inputs, part.lowerBound, ready,
        runtime.scratch(worker))
    }
  }

  /// y (batch, outputs) = x (batch, inputs) · w (outputs, inputs) transposed + bias, and of that
  /// max(·, 0) with `relu`; in bf16 by `w` made ready.
  package static func denseForward(
    _ runtime: Runtime, _ x: TensorView, _ w: Floats, _ bias: Floats, relu: Bool, _ y: TensorView
  ) {
    if runtime.kernels.precision == .bf16 {
      gemm(
        runtime, m: x.batch, n: y.shape.count, k: x.shape.count, x.pointer, w, isReady: true,
        y.pointer)
      ck_kernels().pointee.bias_add(x.batch, y.shape.count, bias, relu ? 1 : 0, y.pointer)
      return
    }
    // Rows of x that pass by a strip of w, which stays in a core's second-level cache.
    let (rows, columns) = (64, 50)
    let across = (y.shape.count + columns - 1) / columns
    let down = (x.batch + rows - 1) / rows
    // What takes a few microseconds isn't worth the waking of another thread.
    let isSmall = Double(x.batch) * Double(x.shape.count) * Double(y.shape.count) < 250_000
    runtime.parallel(
      over: across * down, by: isSmall ? across * down : 1, (across, x, w, bias, relu, y)
    ) { context, pieces, _ in
      let (across, x, w, bias, relu, y) = context
      let (inputs, outputs) = (x.shape.count, y.shape.count)
      for piece in pieces {
        let (i, j) = (piece / across * rows, piece % across * columns)
        ck_kernels().pointee.dense_forward(
          min(rows, x.batch - i), min(columns, outputs - j), inputs, x.example(i), w + j * inputs,
          bias + j, relu ? 1 : 0, y.example(i) + j, outputs)
      }
    }
  }

  /// The whole product in one call on one thread, for timings.
  package static func product(
    _ transposeA: Bool, _ transposeB: Bool, _ precision: Precision = .float32
  ) -> (
    _ m: Int, _ n: Int, _ k: Int, _ a: Floats, _ b: Floats, _ c: MutableFloats,
    _ workspace: MutableFloats
  ) -> Void {
    let flags = Int32((transposeA ? CK_TRANSPOSE_A : 0) | (transposeB ? CK_TRANSPOSE_B : 0))
    let table = ck_kernels().pointee
    let product = precision == .bf16 ? table.gemm_bf16 : table.gemm
    return { m, n, k, a, b, c, workspace in
      product(
        flags, m, n, k, a, transposeA ? m : k, b, transposeB ? k : n, c, n, workspace)
    }
  }

  // MARK: Rows and elements

  static func columnSum(rows: Int, count: Int, _ y: Floats, _ sum: MutableFloats) {
    ck_kernels().pointee.column_sum(rows, count, y, sum)
  }

  static func add(_ count: Int, _ x: Floats, to y: MutableFloats) {
    ck_kernels().pointee.add(count, x, y)
  }

  /// A summand, and what its channels are multiplied by and moved by before, if they are.
  typealias Summand = (values: Floats, scale: Floats?, shift: Floats?)
  static func sum(
    rows: Int, _ channels: Int, _ a: Summand, _ b: Summand, relu: Bool, _ y: MutableFloats
  ) {
    ck_kernels().pointee.sum(
      rows, channels, a.values, a.scale, a.shift, b.values, b.scale, b.shift, relu ? 1 : 0, y)
  }

  static func reluForward(_ count: Int, _ x: Floats, _ y: MutableFloats) {
    ck_kernels().pointee.relu_forward(count, x, y)
  }
  static func reluBackward(_ count: Int, y: Floats, _ dy: Floats, _ dx: MutableFloats) {
    ck_kernels().pointee.relu_backward(count, y, dy, dx)
  }
  static func reluPlaces(_ count: Int, y: Floats, _ places: UnsafeMutablePointer<UInt16>) {
    ck_kernels().pointee.relu_places(count, y, places)
  }
  static func leakyReLUForward(_ count: Int, slope: Float, _ x: Floats, _ y: MutableFloats) {
    ck_kernels().pointee.leaky_relu_forward(count, slope, x, y)
  }
  static func leakyReLUBackward(
    _ count: Int, slope: Float, y: Floats, _ dy: Floats, _ dx: MutableFloats
  ) {
    ck_kernels().pointee.leaky_relu_backward(count, slope, y, dy, dx)
  }
  package static func softmaxForward(rows: Int, _ count: Int, _ x: Floats, _ y: MutableFloats) {
    ck_softmax_forward(rows, count, x, y)
  }
  static func softmaxBackward(rows: Int, _ count: Int, y: Floats, _ dy: Floats, _ dx: MutableFloats)
  {
    ck_softmax_backward(rows, count, y, dy, dx)
  }

  /// Replaces logits by probabilities; writes each row's loss and whether it was wrong; `dlogits`
  /// gets `scale` · the gradient, if it isn't nil.
  static func softmaxCrossEntropy(
    _ logits: TensorView, labels: UnsafePointer<Int32>, smoothing: Float, scale: Float,
    dlogits: MutableFloats?, loss: MutableFloats, wrong: UnsafeMutablePointer<Int32>
  ) {
    ck_softmax_cross_entropy(
      logits.batch, logits.shape.count, logits.pointer, labels, smoothing, scale, logits.pointer,
      dlogits, loss, wrong)
  }
  static func squaredError(
    _ y: TensorView, labels: UnsafePointer<Int32>, scale: Float, dy: MutableFloats?,
    loss: MutableFloats, wrong: UnsafeMutablePointer<Int32>
  ) {
    ck_squared_error(y.batch, y.shape.count, y.pointer, labels, scale, dy, loss, wrong)
  }

  /// Drops each element with a probability of threshold / 2³², the same ones for the same key, and
  /// scales the others. `first` is the number of the first element.
  static func dropout(
    _ count: Int, key: UInt64, first: Int, threshold: UInt32, scale: Float, _ x: Floats,
    _ y: MutableFloats
  ) {
    ck_kernels().pointee.dropout(
      count, key, UInt32(truncatingIfNeeded: first), threshold, scale, x, y)
  }

  // MARK: Augmentation

  /// See warp in CKernels.h: `x` has a border of zeros.
  static func warp(
    _ shape: Shape, _ x: Floats, map: Floats, down: Floats?, right: Floats?, _ y: MutableFloats
  ) {
    ck_kernels().pointee.warp(shape.height, shape.width, shape.channels, x, map, down, right, y)
  }
  /// Blurs columns and turns the result.
  static func blur(rows: Int, columns: Int, _ x: Floats, weights: [Float], _ y: MutableFloats) {
    ck_kernels().pointee.blur(rows, columns, x, weights.count / 2, weights, y)
  }

  // MARK: Normalisation

  static func moments(
    rows: Int, _ channels: Int, _ x: Floats, mean: MutableFloats, squares: MutableFloats
  ) {
    ck_kernels().pointee.moments(rows, channels, x, mean, squares)
  }
  static func scaleShift(
    rows: Int, _ channels: Int, _ x: Floats, scale: Floats, shift: Floats, relu: Bool,
    _ y: MutableFloats
  ) {
    ck_kernels().pointee.scale_shift(rows, channels, x, scale, shift, relu ? 1 : 0, y)
  }
  static func normalizationSums(
    rows: Int, _ channels: Int, _ x: Floats, dy: Floats, mean: Floats, scale: Floats,
    shift: Floats, relu: Bool, sum: MutableFloats, product: MutableFloats
  ) {
    ck_kernels().pointee.normalization_sums(
      rows, channels, x, dy, mean, scale, shift, relu ? 1 : 0, sum, product)
  }
  static func normalizationGradient(
    rows: Int, _ channels: Int, _ x: Floats, dy: Floats, mean: Floats, scale: Floats,
    shift: Floats, relu: Bool, a: Floats, b: Floats, dx: MutableFloats
  ) {
    ck_kernels().pointee.normalization_gradient(
      rows, channels, x, dy, mean, scale, shift, relu ? 1 : 0, a, b, dx)
  }
  static func layerNormForward(
    rows: Int, _ channels: Int, _ x: Floats, gain: Floats, bias: Floats, epsilon: Float,
    _ y: MutableFloats
  ) {
    ck_kernels().pointee.layer_norm_forward(rows, channels, x, gain, bias, epsilon, y)
  }
  static func layerNormBackward(
    rows: Int, _ channels: Int, _ x: Floats, gain: Floats, epsilon: Float, dy: Floats,
    dx: MutableFloats, dgain: MutableFloats, dbias: MutableFloats
  ) {
    ck_kernels().pointee.layer_norm_backward(rows, channels, x, gain, epsilon, dy, dx, dgain, dbias)
  }

  // MARK: Optimisers

  private static func constants(_ s: UpdateSlice, decoupled: Bool = false, nesterov: Bool = false)
    -> ck_update
  {
    ck_update(
      rate: s.rate, scale: s.scale, l2: decoupled ? 0 : s.weightDecay, l1: s.l1,
      keep: decoupled ? 1 - s.rate * s.weightDecay : 1, momentum: s.momentum, beta2: s.beta2,
      epsilon: s.epsilon, correction1: s.momentumSum, correction2: s.beta2Sum,
      nesterov: nesterov ? 1 : 0)
  }
  static func sgd(_ s: UpdateSlice, nesterov: Bool) {
    var update = constants(s, nesterov: nesterov)
    ck_kernels().pointee.sgd(s.count, &update, s.gradient, s.memory(0), s.weights)
  }
  static func rmsprop(_ s: UpdateSlice) {
    var update = constants(s)
    ck_kernels().pointee.rmsprop(s.count, &update, s.gradient, s.memory(0), s.memory(1), s.weights)
  }
  static func adam(_ s: UpdateSlice, decoupled: Bool) {
    var update = constants(s, decoupled: decoupled)
    ck_kernels().pointee.adam(s.count, &update, s.gradient, s.memory(0), s.memory(1), s.weights)
  }

  /// y += share · (x − y)
  static func average(_ count: Int, share: Float, _ x: Floats, _ y: MutableFloats) {
    ck_kernels().pointee.average(count, share, x, y)
  }

  package static func sumOfSquares(_ count: Int, _ x: Floats) -> Double {
    ck_sum_of_squares(count, x)
  }

  package static func scaleBytes(
    _ count: Int, _ bytes: UnsafePointer<UInt8>, scale: Float, _ y: MutableFloats
  ) {
    ck_kernels().pointee.scale_bytes(count, bytes, scale, y)
  }

  // MARK: The processor

  @discardableResult package static func flushDenormals(_ on: Bool) -> Bool {
    ck_flush_denormals(on ? 1 : 0) != 0
  }

  /// Floating-point operations done in `steps` rounds of multiply-adds.
  package static func fmaPeak(steps: Int) -> Double { ck_kernels().pointee.fma_peak(Int64(steps)) }
  /// The same for bf16, by small matrix products.
  package static func bf16Peak(steps: Int) -> Double { ck_bf16_peak(Int64(steps)) }
}

/// An activation of the list in activations.def.
package struct ActivationKernel: Sendable {
  let name: String
  private let index: Int

  static let all: [ActivationKernel] = (0..<ck_kernels().pointee.activation_count).map {
    ActivationKernel(name: String(cString: ck_kernels().pointee.activations[$0].name), index: $0)
  }

  /// Those of the instruction set in use.
  private var functions: ck_activation { ck_kernels().pointee.activations[index] }

  /// Whether the backward pass is computed from x rather than from y.
  var readsX: Bool { functions.reads_x != 0 }

  func forward(_ count: Int, _ x: Kernels.Floats, _ y: Kernels.MutableFloats) {
    functions.forward(count, x, y)
  }
  func backward(
    _ count: Int, from: Kernels.Floats, _ dy: Kernels.Floats, _ dx: Kernels.MutableFloats
  ) {
    functions.backward(count, from, dy, dx)
  }
}
