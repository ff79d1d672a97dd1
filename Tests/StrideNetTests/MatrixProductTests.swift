import CKernels
import Testing

import StrideNet
@testable import StrideNetCore

@Suite struct MatrixProductTests {
  /// C = A·B by its definition.
  static func naive(
    _ flags: Int, _ m: Int, _ n: Int, _ k: Int, _ a: [Float], _ lda: Int, _ b: [Float], _ ldb: Int,
    _ c: [Float], _ ldc: Int
  ) -> [Float] {
    var c = c
    for i in 0..<m {
      for j in 0..<n {
        var sum: Float = 0
        for p in 0..<k {
          sum +=
            (flags & CK_TRANSPOSE_A != 0 ? a[p * lda + i] : a[i * lda + p])
            * (flags & CK_TRANSPOSE_B != 0 ? b[j * ldb + p] : b[p * ldb + j])
        }
        c[i * ldc + j] = flags & CK_ACCUMULATE != 0 ? c[i * ldc + j] + sum : sum
      }
    }
    return c
  }

  static let sizes: [(Int, Int, Int)] = {
    var sizes = [
      (1, 1, 1), (1, 17, 3), (17, 1, 3), (3, 5, 0 + 1), (4, 8, 16), (6, 16, 7), (14, 32, 9),
      (15, 33, 10), (13, 31, 255), (14, 16, 256), (28, 64, 257), (5, 9, 513), (100, 10, 31),
      (200, 20, 12), (197, 33, 5), (7, 530, 11), (64, 100, 300), (10, 10, 100), (193, 3, 260),
    ]
    var random = SeededGenerator(seed: 2026, stream: 5)
    for _ in 0..<60 {
      sizes.append((1 + random.below(70), 1 + random.below(70), 1 + random.below(300)))
    }
    return sizes
  }()

  @Test(arguments: 0..<8) func againstTheDefinition(flags: Int) {
    _ = testedInstructionSet
    for (m, n, k) in Self.sizes {
      // Rows longer than they need be: what lies between them must stay.
      let lda = (flags & CK_TRANSPOSE_A != 0 ? m : k) + 3
      let ldb = (flags & CK_TRANSPOSE_B != 0 ? k : n) + 1
      let ldc = n + 2
      let a = values((flags & CK_TRANSPOSE_A != 0 ? k : m) * lda, 1)
      let b = values((flags & CK_TRANSPOSE_B != 0 ? n : k) * ldb, 2)
      let start = values(m * ldc, 3)
      let c = Guarded(start)
      let scratch = Guarded<Float>(Kernels.gemmWorkspace)
      ck_kernels().pointee.gemm(
        Int32(flags), m, n, k, a, lda, b, ldb, c.pointer, ldc, scratch.pointer)
      #expect(c.guardsHold && scratch.guardsHold)
      expectClose(
        c.values, Self.naive(flags, m, n, k, a, lda, b, ldb, start, ldc),
        within: roundingBound(k), "flags \(flags), \(m)×\(n)×\(k)")
    }
  }

  /// Not a number and infinity come through; a block of zeros doesn't hide them.
  @Test func notANumber() {
    var a = [Float](repeating: 0, count: 20)
    a[7] = .nan
    let c = Guarded<Float>(5 * 3)
    let scratch = Guarded<Float>(Kernels.gemmWorkspace)
    ck_kernels().pointee.gemm(0, 5, 3, 4, a, 4, values(12, 2), 3, c.pointer, 3, scratch.pointer)
    #expect(c.values.enumerated().allSatisfy { $1.isNaN == ($0 / 3 == 1) })
  }

  /// The result of an element doesn't depend on which part of C a call computes.
  @Test func piecesAreTheWhole() throws {
    let (m, n, k) = (150, 700, 300)
    let (a, b) = (values(m * k, 1), values(k * n, 2))
    let whole = Guarded<Float>(m * n)
    let scratch = Guarded<Float>(Kernels.gemmWorkspace)
    ck_kernels().pointee.gemm(0, m, n, k, a, k, b, n, whole.pointer, n, scratch.pointer)
    let runtime = Runtime(threads: 2)
    try runtime.reserveScratch(Kernels.gemmWorkspace)
    let pieces = Guarded<Float>(m * n)
    Kernels.gemm(runtime, m: m, n: n, k: k, a, b, pieces.pointer)
    #expect(whole.values == pieces.values)
  }
}
