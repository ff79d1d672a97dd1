import CKernels
import Foundation

/// One timing of one kernel.
public struct KernelTiming: Sendable, Codable {
  /// The C symbol without its prefix, as in tests and in `perf report`: "conv_forward_im2col".
  public let kernel: String
  /// The sizes: "8×28×28×1, 32 of 3×3".
  public let shape: String
  public let variant: String
  /// Median over the rounds, one thread.
  public let milliseconds: Double
  /// Floating-point operations; 0 for kernels that only move data.
  public let gigaflopsPerSecond: Double
  /// Share of the FMA peak measured in the same run.
  public let shareOfPeak: Double
  /// How many times faster than the definition on the same shape.
  public let ratioToNaive: Double?
}

/// Times every kernel variant on the shapes of real networks. The same cases are compared with the
/// definition in the tests.
public struct KernelBench {
  /// This processor's fused multiply-add peak, one thread, in GFLOP/s.
  public let peak: Double

  public init() {
    let clock = ContinuousClock()
    peak =
      (0..<5).map { _ in
        let start = clock.now
        let operations = Kernels.fmaPeak(steps: 2_000_000)
        return operations / (clock.now - start).inSeconds / 1e9
      }.sorted()[2]
  }

  struct ConvCase {
    let name: String
    let shape: ck_conv_shape
  }

  struct PoolCase {
    let name: String
    let shape: ck_pool_shape
  }

  struct ProductCase {
    let name: String
    let m, n, k: Int
    let transposeA, transposeB: Bool
  }

  static let convolutions: [ConvCase] = [
    ConvCase(name: "cnn", shape: .init(8, 28, 28, 1, 3, 3, 32)),
    ConvCase(name: "lenet 2", shape: .init(8, 13, 13, 32, 3, 3, 64)),
    ConvCase(name: "vgg 2", shape: .init(8, 28, 28, 32, 3, 3, 32, padding: 1)),
    ConvCase(name: "vgg 3", shape: .init(8, 14, 14, 32, 3, 3, 64, padding: 1)),
    ConvCase(name: "vgg 4", shape: .init(8, 14, 14, 64, 3, 3, 64, padding: 1)),
    ConvCase(name: "5×5", shape: .init(8, 28, 28, 1, 5, 5, 24)),
    ConvCase(name: "stride 2", shape: .init(8, 28, 28, 16, 3, 3, 32, stride: 2)),
    ConvCase(name: "patches", shape: .init(8, 28, 28, 16, 4, 4, 32, stride: 4)),
    ConvCase(name: "1×1", shape: .init(8, 14, 14, 64, 1, 1, 64)),
  ]

  static let poolings: [PoolCase] = [
    PoolCase(name: "2", shape: .init(8, 26, 26, 32, 2, stride: 2)),
    PoolCase(name: "3 by 2", shape: .init(8, 27, 27, 32, 3, stride: 2)),
  ]

  static let products: [ProductCase] = [
    ProductCase(name: "1024³", m: 1024, n: 1024, k: 1024, transposeA: false, transposeB: false),
    ProductCase(name: "dense", m: 128, n: 100, k: 5408, transposeA: false, transposeB: true),
    ProductCase(name: "dense dx", m: 128, n: 5408, k: 100, transposeA: false, transposeB: false),
    ProductCase(name: "dense dw", m: 100, n: 5408, k: 128, transposeA: true, transposeB: false),
  ]

  /// Times everything. Variants take turns within each round, so that a change in the machine's
  /// speed meets all of them.
  /// - Parameter report: called with each shape's timings as soon as they are there
  public func run(rounds: Int = 5, report: ([KernelTiming]) throws -> Void) rethrows {
    for c in Self.products {
      try report(time(product: c, rounds: rounds))
    }
    for c in Self.convolutions {
      for pass in ConvVariant.passes { try report(time(c, pass, rounds: rounds)) }
    }
    for c in Self.poolings {
      for operation in PoolVariant.operations { try report(time(c, operation, rounds: rounds)) }
    }
  }

  private func time(product c: ProductCase, rounds: Int) -> [KernelTiming] {
    let (a, b, out, scratch) = (
      filled(c.m * c.k, 1), filled(c.n * c.k, 2), filled(c.m * c.n, 3),
      filled(Kernels.gemmWorkspace, 4)
    )
    let single = Kernels.product(c.transposeA, c.transposeB)
    return timings(
      shape: "\(c.name): \(c.m)×\(c.n)×\(c.k)", operations: 2 * Double(c.m * c.n * c.k), rounds,
      [
        (
          "gemm", "packed",
          { single(c.m, c.n, c.k, a.pointer, b.pointer, out.pointer, scratch.pointer) }
        )
      ])
  }

  private func time(_ c: ConvCase, _ pass: ck_pass, rounds: Int) -> [KernelTiming] {
    let s = c.shape
    let (x, w, y) = (filled(s.inputs, 1), filled(s.weights, 2), filled(s.outputs, 3))
    let target = FloatStorage(count: max(s.inputs, s.weights, s.outputs))
    return timings(
      shape: "\(c.name): \(s.text)", operations: s.operations, rounds,
      ConvVariant.all.map { variant in
        let scratch = FloatStorage(count: variant.workspace(s, pass))
        return (
          "conv_\(pass.name)", variant.variant.name,
          {
            variant.run(
              pass, s, x: x.pointer, w: w.pointer, y: y.pointer, into: target.pointer,
              scratch.pointer)
          }
        )
      })
  }

  private func time(_ c: PoolCase, _ operation: PoolVariant.Operation, rounds: Int)
    -> [KernelTiming]
  {
    let s = c.shape
    let (x, y) = (filled(s.inputs, 1), filled(s.outputs, 3))
    let target = FloatStorage(count: max(s.inputs, s.outputs))
    let places = UnsafeMutablePointer<UInt16>.allocate(capacity: s.outputs)
    defer { places.deallocate() }
    places.initialize(repeating: 0, count: s.outputs)
    return timings(
      shape: "\(c.name): \(s.text)", operations: 0, rounds,
      PoolVariant.all.map { variant in
        (
          "pool_\(operation)", variant.variant.name,
          { variant.run(operation, s, x.pointer, y.pointer, into: target.pointer, places) }
        )
      })
  }

  private func timings(
    shape: String, operations: Double, _ rounds: Int,
    _ work: [(kernel: String, variant: String, run: () -> Void)]
  ) -> [KernelTiming] {
    let clock = ContinuousClock()
    func seconds(_ repeats: Int, _ run: () -> Void) -> Double {
      let start = clock.now
      for _ in 0..<repeats { run() }
      return (clock.now - start).inSeconds / Double(repeats)
    }
    let repeats = work.map { max(1, Int(0.005 / seconds(1, $0.run))) }
    var times = [[Double]](repeating: [], count: work.count)
    for _ in 0..<rounds {
      for (index, entry) in work.enumerated() {
        times[index].append(seconds(repeats[index], entry.run))
      }
    }
    let medians = times.map { $0.sorted()[rounds / 2] }
    let naive = work.firstIndex { $0.variant == "naive" }.map { medians[$0] }
    return zip(work, medians).map { entry, median in
      let rate = operations / median / 1e9
      return KernelTiming(
        kernel: entry.variant == "packed" ? entry.kernel : "\(entry.kernel)_\(entry.variant)",
        shape: shape, variant: entry.variant, milliseconds: median * 1e3,
        gigaflopsPerSecond: rate, shareOfPeak: rate / peak, ratioToNaive: naive.map { $0 / median })
    }
  }

  private func filled(_ count: Int, _ stream: UInt64) -> FloatStorage {
    let storage = FloatStorage(count: count)
    var random = SeededGenerator(seed: 1, stream: stream)
    for i in 0..<count { storage.pointer[i] = random.uniform() - 0.5 }
    return storage
  }
}

extension ck_conv_shape {
  /// A square convolution; output sizes follow.
  init(
    _ n: Int, _ h: Int, _ w: Int, _ c: Int, _ fh: Int, _ fw: Int, _ f: Int, stride: Int = 1,
    padding: Int = 0
  ) {
    self.init(
      n: Int32(n), h: Int32(h), w: Int32(w), c: Int32(c), fh: Int32(fh), fw: Int32(fw), f: Int32(f),
      sh: Int32(stride), sw: Int32(stride), ph: Int32(padding), pw: Int32(padding),
      oh: Int32((h + 2 * padding - fh) / stride + 1), ow: Int32((w + 2 * padding - fw) / stride + 1)
    )
  }

  var inputs: Int { Int(n) * Int(h) * Int(w) * Int(c) }
  var weights: Int { Int(fh) * Int(fw) * Int(c) * Int(f) }
  var outputs: Int { Int(n) * Int(oh) * Int(ow) * Int(f) }
  /// Two a multiply-add, in each of the passes.
  var operations: Double { 2 * Double(outputs) * Double(Int(fh) * Int(fw) * Int(c)) }
  var text: String {
    "\(n)×\(h)×\(w)×\(c), \(f) of \(fh)×\(fw)" + (sh == 1 && sw == 1 ? "" : " by \(sh)×\(sw)")
      + (ph == 0 && pw == 0 ? "" : ", padded \(ph)×\(pw)")
  }
}

extension ck_pool_shape {
  init(_ n: Int, _ h: Int, _ w: Int, _ c: Int, _ size: Int, stride: Int) {
    self.init(
      n: Int32(n), h: Int32(h), w: Int32(w), c: Int32(c), fh: Int32(size), fw: Int32(size),
      sh: Int32(stride), sw: Int32(stride), oh: Int32((h - size) / stride + 1),
      ow: Int32((w - size) / stride + 1))
  }

  var inputs: Int { Int(n) * Int(h) * Int(w) * Int(c) }
  var outputs: Int { Int(n) * Int(oh) * Int(ow) * Int(c) }
  var text: String { "\(n)×\(h)×\(w)×\(c), \(fh)×\(fw) by \(sh)×\(sw)" }
}

extension ck_pass {
  var name: String {
    switch self {
    case CK_FORWARD: "forward"
    case CK_INPUT_GRADIENT: "input_gradient"
    default: "weight_gradient"
    }
  }
}

extension ConvVariant {
  static let passes = [CK_FORWARD, CK_INPUT_GRADIENT, CK_WEIGHT_GRADIENT]

  /// Runs a pass: from x and w, y and w, or x and y, into `target`.
  func run(
    _ pass: ck_pass, _ s: ck_conv_shape, x: Kernels.Floats, w: Kernels.Floats, y: Kernels.Floats,
    bias: Kernels.Floats? = nil, into target: Kernels.MutableFloats,
    _ workspace: Kernels.MutableFloats
  ) {
    switch pass {
    case CK_FORWARD: forward(s, x, w, bias: bias, target, workspace)
    case CK_INPUT_GRADIENT: inputGradient(s, y, w, target, workspace)
    default: weightGradient(s, x, y, target, workspace)
    }
  }
}

extension PoolVariant {
  enum Operation: String, CaseIterable, CustomStringConvertible {
    case max_forward, max_backward, avg_forward, avg_backward
    var description: String { rawValue }
  }

  static let operations = Operation.allCases

  func run(
    _ operation: Operation, _ s: ck_pool_shape, _ x: Kernels.Floats, _ y: Kernels.Floats,
    into target: Kernels.MutableFloats, _ places: UnsafeMutablePointer<UInt16>
  ) {
    switch operation {
    case .max_forward: maxForward(s, x, target, places)
    case .max_backward: maxBackward(s, y, places, target)
    case .avg_forward: averageForward(s, x, target)
    case .avg_backward: averageBackward(s, y, target)
    }
  }
}
