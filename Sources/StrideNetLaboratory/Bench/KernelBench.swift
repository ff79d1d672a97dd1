import CKernels
import Foundation
import StrideNetCore

/// What this processor and its memory can do at best, measured: the roofs of a roofline plot
/// (Williams et al. 2009, doi:10.1145/1498765.1498785).
package struct Roofline: Sendable {
  /// The best of a few rounds, since what disturbs a measurement only ever lowers it.
  package struct Roof: Sendable {
    package let threads: Int
    /// Independent fused multiply-adds in registers; of bf16, matrix products in the first-level
    /// cache.
    package let gigaflopsPerSecond: Double
    /// GB/s out of memory: all of 256 MB read and summed.
    package let memoryRead: Double
    /// GB/s in memory: 128 MB copied by memcpy, counted once as read and once as written.
    package let memoryCopy: Double
    /// GB/s of memcpy within 512 KB a thread, which a second-level cache holds, counted likewise.
    /// The kernels' data on the benchmarked shapes are about that large.
    package let cacheCopy: Double

    /// The higher of the two, the roof that counts.
    package var memory: Double { max(memoryRead, memoryCopy) }

    /// The same with another measurement of the peak, if that found more.
    package func raised(to gigaflopsPerSecond: Double) -> Self {
      Self(
        threads: threads,
        gigaflopsPerSecond: max(self.gigaflopsPerSecond, gigaflopsPerSecond),
        memoryRead: memoryRead, memoryCopy: memoryCopy, cacheCopy: cacheCopy)
    }
  }

  /// What is to be said of shares of the peak: of winograd's, and of more than there can be.
  package static func notes(_ rows: some Sequence<(kernel: String, share: Double)>) -> [String] {
    let winograd = rows.contains { $0.kernel.contains("winograd") }
    let others = rows.contains { $0.share > 1 && !$0.kernel.contains("winograd") }
    return
      (winograd
      ? [
        "winograd: the peak is for the definition's operations, of which it does a quarter; it may be above 100 %"
      ] : [])
      + (others
        ? [
          "above 100 %: something else used the processor while the peak was measured; it is higher"
        ]
        : [])
  }

  package let oneThread: Roof
  /// The same work on all threads at once.
  package let allThreads: Roof

  /// Of a runtime's precision, on one thread and on as many as it has.
  package init(of all: Runtime) {
    // Larger than any last-level cache; written once here, so that the pages exist. (In a debug build
    // that would take minutes, for numbers that say nothing.)
    let memory = FloatStorage.sure(count: KernelChoice.isDebugBuild ? 1 << 20 : 64 << 20)
    oneThread = Roof(Runtime(threads: 1, precision: all.kernels.precision), memory)
    allThreads = all.threads == 1 ? oneThread : Roof(all, memory)
  }
}

extension Roofline {
  /// GFLOP/s of the runtime's precision, on all of its threads: the best of ten tries, which together
  /// take some hundredths of a second.
  package static func gigaflopsPerSecond(_ runtime: Runtime) -> Double {
    let fastest = (0..<10).map { _ in ContinuousClock().measure { multiplyAdd(runtime, 0.25) } }
      .min()!
    return operations(runtime, 0.25) / fastest.inSeconds / 1e9
  }

  /// Steps of a peak's kernel: some milliseconds.
  private static func steps(_ precision: Precision, _ share: Double) -> Int {
    Int(share * (precision == .bf16 ? 1000 : 2_000_000))
  }

  fileprivate static func operations(_ runtime: Runtime, _ share: Double) -> Double {
    let precision = runtime.kernels.precision
    let one = precision == .bf16 ? Kernels.bf16Peak(steps: 1) : Kernels.fmaPeak(steps: 1)
    return one * Double(steps(precision, share) * runtime.threads)
  }

  fileprivate static func multiplyAdd(_ runtime: Runtime, _ share: Double) {
    let precision = runtime.kernels.precision
    runtime.parallel(over: runtime.threads, (precision, steps(precision, share))) { context, _, _ in
      let (precision, steps) = context
      _ = precision == .bf16 ? Kernels.bf16Peak(steps: steps) : Kernels.fmaPeak(steps: steps)
    }
  }
}

extension Roofline.Roof {
  fileprivate init(_ runtime: Runtime, _ memory: FloatStorage, rounds: Int = 7) {
    threads = runtime.threads
    let (block, repeats) = (64 << 10, 500)
    let (pointer, half, piece) = (memory.pointer, memory.count / 2, 1 << 20)
    let measures: [(amount: Double, body: () -> Void)] = [
      (
        Roofline.operations(runtime, 1),
        { Roofline.multiplyAdd(runtime, 1) }
      ),
      (
        Double(memory.count * 4),
        {
          runtime.parallel(over: memory.count, by: piece, pointer) { pointer, range, _ in
            // Stored where it was read, so that it has to be computed.
            pointer[range.lowerBound] = Self.sum(pointer + range.lowerBound, range.count)
          }
        }
      ),
      (
        Double(memory.count * 4),
        {
          runtime.parallel(over: half, by: piece, (pointer, half)) { context, range, _ in
            let (pointer, half) = context
            memcpy(pointer + half + range.lowerBound, pointer + range.lowerBound, range.count * 4)
          }
        }
      ),
      (
        Double(threads * repeats * 2 * block * 4),
        {
          runtime.parallel(over: runtime.threads, (pointer, block, repeats)) { context, range, _ in
            let (pointer, block, repeats) = context
            let mine = pointer + range.lowerBound * 4 * block
            for _ in 0..<repeats { memcpy(mine + block, mine, block * 4) }
          }
        }
      ),
    ]
    // In turn, so that each one's tries are spread over the whole time: what disturbs lasts a while.
    let clock = ContinuousClock()
    var best = measures.map { _ in 0.0 }
    for _ in 0...rounds {
      for (index, (amount, body)) in measures.enumerated() {
        best[index] = max(best[index], amount / clock.measure(body).inSeconds / 1e9)
      }
    }
    (gigaflopsPerSecond, memoryRead, memoryCopy, cacheCopy) = (best[0], best[1], best[2], best[3])
  }

  /// Several sums side by side, so that none waits for the one before.
  @inline(never) private static func sum(_ x: UnsafePointer<Float>, _ count: Int) -> Float {
    x.withMemoryRebound(to: SIMD16<Float>.self, capacity: count / 16) { x in
      var (a, b) = (SIMD16<Float>.zero, SIMD16<Float>.zero)
      for i in stride(from: 0, to: count / 16, by: 2) {
        a += x[i]
        b += x[i + 1]
      }
      return (a + b).sum()
    }
  }
}

/// One timing of one kernel.
package struct KernelTiming: Sendable, Codable {
  /// The C symbol without its prefix, as in tests and in `perf report`: "conv_forward_im2col".
  package let kernel: String
  /// What it computes, without the variant: "conv_forward".
  package let operation: String
  /// The sizes: "8×28×28×1, 32 of 3×3".
  package let shape: String
  package let variant: String
  /// Median over the rounds, one thread.
  package let milliseconds: Double
  /// Floating-point operations; 0 for kernels that only move data.
  package let gigaflopsPerSecond: Double
  /// Share of the precision's peak measured in the same run.
  package let shareOfPeak: Double
  /// Floating-point operations a byte, were every input and output moved once.
  package let intensity: Double
  /// How many times faster than the definition on the same shape; nil where that wasn't timed.
  package let ratioToNaive: Double?
  /// Its time as a multiple of the fastest variant's on the same shape.
  package let ratioToFastest: Double
  /// Whether it is what automatic choice takes for this shape.
  package let isAutomatic: Bool
}

/// Times every kernel variant on the shapes of real networks. The same cases are compared with the
/// definition in the tests.
package struct KernelBench {
  /// This processor's peak in the precision, one thread, in GFLOP/s.
  package let peak: Double
  private let choice: KernelChoice
  private let isTimed: (_ variant: String, _ isAutomatic: Bool) -> Bool

  /// Products come in one kind each, which the kernels' names leave out.
  private static let single = ["packed", "unpacked"]

  /// - Parameters:
  ///   - peak: of one thread
  ///   - kernels: time these alone ("auto", "exact", bf16: what is picked); nil times all of float32
  package init(peak: Double, kernels: KernelChoice? = nil) {
    self.peak = peak
    choice = kernels ?? .auto
    let only = kernels?.precision == .bf16 ? "auto" : kernels?.name
    isTimed = { variant, isAutomatic in
      only == nil || variant == only || Self.single.contains(variant)
        || (["exact", "auto"].contains(only) && isAutomatic)
    }
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
    ConvCase(name: "8 filters", shape: .init(8, 28, 28, 1, 3, 3, 8)),
    ConvCase(name: "lenet 2", shape: .init(8, 13, 13, 32, 3, 3, 64)),
    ConvCase(name: "vgg 2", shape: .init(8, 28, 28, 32, 3, 3, 32, padding: 1)),
    ConvCase(name: "vgg 3", shape: .init(8, 14, 14, 32, 3, 3, 64, padding: 1)),
    ConvCase(name: "vgg 4", shape: .init(8, 14, 14, 64, 3, 3, 64, padding: 1)),
    ConvCase(name: "5×5", shape: .init(8, 28, 28, 1, 5, 5, 24)),
    ConvCase(name: "stride 2", shape: .init(8, 28, 28, 16, 3, 3, 32, stride: 2)),
    ConvCase(name: "patches", shape: .init(8, 28, 28, 16, 4, 4, 32, stride: 4)),
    ConvCase(name: "dilated", shape: .init(8, 28, 28, 32, 3, 3, 32, padding: 2, dilation: 2)),
    ConvCase(name: "groups", shape: .init(8, 28, 28, 32, 3, 3, 32, padding: 1, groups: 4)),
    ConvCase(name: "depthwise", shape: .init(8, 28, 28, 32, 3, 3, 32, padding: 1, groups: 32)),
    ConvCase(name: "1×1", shape: .init(8, 14, 14, 64, 1, 1, 64)),
    ConvCase(name: "resnet20 1", shape: .init(8, 32, 32, 16, 3, 3, 16, padding: 1)),
    ConvCase(name: "vgg32 6", shape: .init(8, 8, 8, 256, 3, 3, 256, padding: 1)),
    ConvCase(name: "ResNet-18 1", shape: .init(1, 224, 224, 3, 7, 7, 64, stride: 2, padding: 3)),
    ConvCase(name: "ResNet-18 2", shape: .init(1, 56, 56, 64, 3, 3, 64, padding: 1)),
    ConvCase(name: "ResNet-18 5", shape: .init(8, 7, 7, 512, 3, 3, 512, padding: 1)),
    ConvCase(name: "VGG-16 2", shape: .init(1, 224, 224, 64, 3, 3, 64, padding: 1)),
    ConvCase(name: "VGG-16 9", shape: .init(1, 28, 28, 512, 3, 3, 512, padding: 1)),
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
  /// speed meets all of them. `report` is called with each shape's timings as soon as they are there.
  package func run(rounds: Int = 5, report: ([KernelTiming]) throws -> Void) rethrows {
    for c in Self.products {
      try report(time(product: c, rounds: rounds))
    }
    try report(timeDense(rounds: rounds))
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
      filled(Kernels.gemmWorkspace(choice.precision), 4)
    )
    let single = Kernels.product(c.transposeA, c.transposeB, choice.precision)
    return timings(
      shape: "\(c.name): \(c.m)×\(c.n)×\(c.k)",
      operation: choice.precision == .bf16 ? "gemm_bf16" : "gemm",
      operations: 2 * Double(c.m * c.n * c.k), floats: c.m * c.k + c.k * c.n + c.m * c.n, rounds,
      automatic: "packed",
      [
        (
          "packed",
          { single(c.m, c.n, c.k, a.pointer, b.pointer, out.pointer, scratch.pointer) }
        )
      ])
  }

  /// The dense layer's forward pass: the product "dense" with bias and ReLU, by its own kernel.
  private func timeDense(rounds: Int) -> [KernelTiming] {
    let (m, n, k) = (128, 100, 5408)
    let (x, w, bias, y) = (
      filled(m * k, 1), filled(n * k, 2), filled(n, 3), filled(m * n, 4)
    )
    let runtime = Runtime(threads: 1, precision: choice.precision)
    try! runtime.reserveScratch(Kernels.gemmWorkspace(choice.precision))
    let count = Kernels.denseReadyCount(choice.precision, outputs: n, inputs: k)
    let ready = count > 0 ? FloatStorage.sure(count: count) : w
    return timings(
      shape: "dense: \(m)×\(n)×\(k)", operation: "dense_forward",
      operations: 2 * Double(m * n * k), floats: m * k + k * n + m * n, rounds,
      automatic: "unpacked",
      [
        (
          "unpacked",
          {
            if count > 0 {
              Kernels.makeDenseReady(runtime, outputs: n, inputs: k, w.pointer, ready.pointer)
            }
            Kernels.denseForward(
              runtime, TensorView(x.pointer, batch: m, shape: Shape(k)), ready.pointer,
              bias.pointer, relu: true, TensorView(y.pointer, batch: m, shape: Shape(n)))
          }
        )
      ])
  }

  private func time(_ c: ConvCase, _ pass: ck_pass, rounds: Int) -> [KernelTiming] {
    let s = c.shape
    let (x, w, y) = (filled(s.inputs, 1), filled(s.weights, 2), filled(s.outputs, 3))
    let target = FloatStorage.sure(count: max(s.inputs, s.weights, s.outputs))
    let picked = choice.convolution(s, pass).variant
    return timings(
      shape: "\(c.name): \(s.text)", operation: "conv_\(pass.name)", operations: s.operations,
      floats: s.inputs + s.weights + s.outputs, rounds,
      automatic: picked.name,
      // Of as much work as here the definition alone would take seconds.
      (choice.precision == .bf16
        ? [picked] : ConvVariant.all.filter { s.operations < 5e8 || $0.name != "naive" }).map {
          variant in
          let scratch = FloatStorage.sure(count: variant.workspace(s, pass))
          return (
            variant.name,
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
    let target = FloatStorage.sure(count: max(s.inputs, s.outputs))
    let places = UnsafeMutablePointer<UInt16>.allocate(capacity: s.outputs)
    defer { places.deallocate() }
    places.initialize(repeating: 0, count: s.outputs)
    return timings(
      shape: "\(c.name): \(s.text)", operation: "pool_\(operation)", operations: 0,
      floats: s.inputs + s.outputs, rounds, automatic: KernelChoice.auto.pool.name,
      PoolVariant.all.map { variant in
        (
          variant.name,
          { variant.run(operation, s, x.pointer, y.pointer, into: target.pointer, places) }
        )
      })
  }

  private func timings(
    shape: String, operation: String, operations: Double, floats: Int, _ rounds: Int,
    automatic: String, _ all: [(variant: String, run: () -> Void)]
  ) -> [KernelTiming] {
    let work = all.filter { isTimed($0.variant, $0.variant == automatic) }
    guard !work.isEmpty else { return [] }
    let clock = ContinuousClock()
    func seconds(_ repeats: Int, _ run: () -> Void) -> Double {
      let start = clock.now
      for _ in 0..<repeats { run() }
      return (clock.now - start).inSeconds / Double(repeats)
    }
    let repeats = work.map { max(1, Int(0.005 / max(1e-9, seconds(1, $0.run)))) }
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
        kernel: Self.single.contains(entry.variant) ? operation : "\(operation)_\(entry.variant)",
        operation: operation, shape: shape, variant: entry.variant, milliseconds: median * 1e3,
        gigaflopsPerSecond: rate, shareOfPeak: rate / peak,
        intensity: operations / Double(floats * 4), ratioToNaive: naive.map { $0 / median },
        ratioToFastest: median / medians.min()!, isAutomatic: entry.variant == automatic)
    }
  }

  private func filled(_ count: Int, _ stream: UInt64) -> FloatStorage {
    let storage = FloatStorage.sure(count: count)
    var random = SeededGenerator(seed: 1, stream: stream)
    for i in 0..<count { storage.pointer[i] = random.uniform() - 0.5 }
    return storage
  }
}
