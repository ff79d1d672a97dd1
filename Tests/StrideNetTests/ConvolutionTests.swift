import CKernels
import Testing

import StrideNet
@testable import StrideNetCore
@testable import StrideNetLaboratory

/// Every variant and pass on awkward shapes, judged by the definition; the definition itself
/// judged by PyTorch.
@Suite struct ConvolutionTests {
  /// Shapes that kernels get wrong: sizes around the tiles of the matrix product, strides beyond
  /// the filter, remainders that the last window doesn't reach, single rows, pixels and channels.
  static let awkward: [ck_conv_shape] = {
    var shapes: [ck_conv_shape] = []
    func add(
      _ n: Int, _ h: Int, _ w: Int, _ c: Int, _ fh: Int, _ fw: Int, _ f: Int, _ sh: Int = 1,
      _ sw: Int = 1, _ ph: Int = 0, _ pw: Int = 0, _ dh: Int = 1, _ dw: Int = 1,
      groups: Int = 1, bottom: Int = 0, right: Int = 0
    ) {
      shapes.append(
        ck_conv_shape(
          n: Int32(n), h: Int32(h), w: Int32(w), c: Int32(c), fh: Int32(fh), fw: Int32(fw),
          f: Int32(f), sh: Int32(sh), sw: Int32(sw), ph: Int32(ph), pw: Int32(pw),
          oh: Int32((h + 2 * ph + bottom - dh * (fh - 1) - 1) / sh + 1),
          ow: Int32((w + 2 * pw + right - dw * (fw - 1) - 1) / sw + 1), dh: Int32(dh),
          dw: Int32(dw), groups: Int32(groups)))
    }
    // More padding below and to the right: as "same" has it where sizes or strides are even.
    add(2, 8, 8, 3, 3, 3, 5, 2, 2, bottom: 1, right: 1)
    add(2, 7, 9, 2, 2, 4, 17, 1, 1, 0, 1, bottom: 1, right: 1)
    // Dilation: with strides that share a divisor with it, share none, are multiples; over edges.
    add(2, 9, 9, 3, 3, 3, 17, 1, 1, 2, 2, 2, 2)
    add(1, 11, 8, 2, 3, 2, 5, 2, 1, 1, 0, 2, 3)
    add(2, 13, 12, 2, 3, 3, 3, 2, 3, 3, 2, 4, 2)
    add(1, 12, 13, 1, 2, 3, 9, 4, 6, 0, 3, 6, 4)
    add(2, 4, 5, 2, 3, 3, 3, 1, 1, 5, 4, 5, 3)
    add(1, 7, 7, 2, 1, 3, 3, 2, 2, 0, 2, 3, 3, right: 2)
    // Groups, also of one channel or one filter each, and with dilation.
    add(2, 7, 6, 6, 2, 3, 9, 2, 1, 0, 1, groups: 3)
    add(1, 6, 6, 5, 3, 3, 10, 1, 1, 1, 1, groups: 5)
    add(1, 6, 6, 10, 3, 3, 5, 1, 1, 1, 1, groups: 5)
    add(2, 9, 8, 4, 3, 3, 8, 2, 1, 2, 1, 2, 3, groups: 2, bottom: 1)
    // Depthwise; channels around the width of a vector.
    for c in [1, 3, 4, 7, 8, 15, 16, 17, 33] {
      add(2, 7, 9, c, 3, 3, c, 1, 1, 1, 1, groups: c)
      add(1, 9, 12, c, 2, 4, c, 1 + c % 3, 2, 1, 3, 1 + c % 2, 2, groups: c, right: 1)
    }
    // Where the source's stride groups crash or go wrong, and their neighbours.
    for (size, width, stride) in [
      (28, 3, 2), (27, 3, 2), (29, 3, 2), (28, 5, 2), (28, 5, 3), (28, 4, 2), (28, 4, 3), (9, 4, 2),
      (10, 3, 2), (11, 5, 4), (12, 5, 2), (13, 7, 3), (8, 3, 3), (7, 2, 2),
    ] { add(2, size, size, 1, width, width, 3, stride, stride) }
    // Strides beyond the filter.
    add(2, 9, 9, 2, 2, 2, 3, 3, 3)
    add(1, 11, 7, 3, 1, 1, 4, 2, 3)
    add(2, 10, 10, 1, 3, 3, 2, 5, 5)
    add(1, 20, 20, 2, 3, 2, 5, 4, 7)
    // 1×1, and filters as large as the input.
    for (h, w) in [(1, 1), (5, 5), (3, 8)] { add(2, h, w, 4, 1, 1, 5) }
    for (h, w) in [(1, 1), (4, 4), (3, 7), (8, 2)] { add(3, h, w, 3, h, w, 4) }
    add(2, 5, 5, 2, 5, 5, 3, 2, 2, 2, 2)
    // Rectangles, and axes that differ.
    add(1, 5, 9, 2, 3, 2, 3)
    add(2, 9, 5, 1, 2, 4, 5)
    add(1, 12, 7, 3, 5, 1, 2)
    add(1, 7, 12, 3, 1, 5, 2)
    add(2, 9, 8, 2, 3, 4, 3, 2, 1)
    add(2, 8, 9, 2, 4, 3, 3, 1, 3)
    add(1, 1, 16, 2, 1, 3, 4, 1, 2)
    add(1, 16, 1, 2, 3, 1, 4, 2, 1)
    // Padding, up to a window that holds one row of the image.
    for padding in 0...2 { add(2, 6, 6, 3, 3, 3, 4, 1, 1, padding, padding) }
    add(1, 5, 5, 2, 5, 5, 3, 1, 1, 4, 4)
    add(2, 7, 7, 2, 3, 3, 3, 2, 2, 1, 1)
    add(2, 8, 8, 2, 3, 3, 3, 2, 2, 1, 1)
    add(2, 8, 6, 1, 4, 3, 3, 3, 2, 3, 1)
    add(1, 6, 8, 2, 3, 5, 2, 1, 2, 0, 2)
    add(1, 6, 8, 2, 5, 3, 2, 2, 1, 2, 0)
    add(1, 1, 1, 1, 3, 3, 2, 1, 1, 1, 1)
    add(2, 2, 2, 3, 3, 3, 16, 1, 1, 1, 1)
    // Channels and filters around the width of a vector and of a tile.
    for (c, f) in [
      (1, 1), (1, 15), (1, 16), (1, 17), (1, 31), (1, 33), (2, 32), (3, 8), (7, 9), (8, 4),
      (15, 16),
      (16, 15), (17, 33), (32, 32), (33, 1), (64, 10), (5, 64), (5, 65),
    ] { add(2, 6, 5, c, 3, 3, f, 1, 1, 1, 1) }
    // Depths around the block of the sum: 3·3·29 = 261 > 256, and twice that.
    add(1, 6, 6, 29, 3, 3, 6)
    add(1, 6, 6, 57, 3, 3, 6)
    // The shapes of the networks.
    add(3, 28, 28, 1, 3, 3, 32)
    add(1, 13, 13, 32, 3, 3, 64)
    add(1, 14, 14, 32, 3, 3, 64, 1, 1, 1, 1)
    add(2, 28, 28, 1, 5, 5, 24)
    add(5, 12, 12, 24, 3, 3, 32)
    add(17, 4, 4, 2, 3, 3, 3)
    return shapes
  }()

  /// 300 more, by a seed.
  static let random: [ck_conv_shape] = {
    var random = SeededGenerator(seed: 2026, stream: 3)
    func pick(_ range: ClosedRange<Int>) -> Int { range.lowerBound + random.below(range.count) }
    var shapes: [ck_conv_shape] = []
    while shapes.count < 300 {
      let (h, w, fh, fw) = (pick(1...14), pick(1...14), pick(1...6), pick(1...6))
      let (ph, pw, sh, sw) = (pick(0...fh - 1), pick(0...fw - 1), pick(1...4), pick(1...4))
      // Every third with dilation, groups or both, some of these depthwise.
      let kind = shapes.count % 6
      let (dh, dw) = kind % 4 == 1 ? (pick(1...3), pick(1...3)) : (1, 1)
      let groups = kind % 3 == 2 ? pick(2...5) : 1
      let (c, f) =
        groups == 1 ? (pick(1...20), pick(1...40)) : (groups * pick(1...4), groups * pick(1...5))
      let isDepthwise = kind == 5 && pick(0...1) == 1
      let (rows, columns) = (h + 2 * ph - dh * (fh - 1) - 1, w + 2 * pw - dw * (fw - 1) - 1)
      guard rows >= 0, columns >= 0 else { continue }
      shapes.append(
        ck_conv_shape(
          n: Int32(pick(1...4)), h: Int32(h), w: Int32(w), c: Int32(c), fh: Int32(fh),
          fw: Int32(fw),
          f: Int32(isDepthwise ? c : f), sh: Int32(sh), sw: Int32(sw), ph: Int32(ph), pw: Int32(pw),
          oh: Int32(rows / sh + 1), ow: Int32(columns / sw + 1), dh: Int32(dh), dw: Int32(dw),
          groups: Int32(isDepthwise ? c : groups)))
    }
    return shapes
  }()

  static let others = ConvVariant.all.dropFirst().map(\.name)

  /// Runs a pass with guarded buffers and gives its result.
  static func run(
    _ variant: ConvVariant, _ pass: ck_pass, _ s: ck_conv_shape, x: [Float], w: [Float],
    bias: [Float]? = nil, y: [Float]
  ) -> [Float] {
    _ = testedInstructionSet
    let count = [CK_FORWARD: s.outputs, CK_INPUT_GRADIENT: s.inputs][pass] ?? s.weights
    let (x, w, y) = (Guarded(x), Guarded(w), Guarded(y))
    let bias = bias.map { Guarded($0) }
    let target = Guarded<Float>(count)
    let scratch = Guarded<Float>(variant.workspace(s, pass))
    variant.run(
      pass, s, x: x.pointer, w: w.pointer, y: y.pointer,
      bias: bias.map { UnsafePointer($0.pointer) },
      into: target.pointer, scratch.pointer)
    #expect(
      target.guardsHold && scratch.guardsHold && x.guardsHold && w.guardsHold && y.guardsHold,
      "\(variant.name) wrote outside of its memory: \(pass.name), \(s.text)")
    return target.values
  }

  /// Products that go into one element of a pass' result.
  static func terms(_ s: ck_conv_shape, _ pass: ck_pass) -> Int {
    switch pass {
    case CK_FORWARD: Int(s.fh * s.fw * s.c / s.groups)
    case CK_INPUT_GRADIENT: Int(s.fh * s.fw * s.f / s.groups)
    default: Int(s.n * s.oh * s.ow)
    }
  }

  /// What rounding may come to. Winograd's transforms make errors larger, as CKernels.h says: four
  /// times that, of values whose mean square is a twelfth.
  static func bound(_ name: String, _ s: ck_conv_shape, _ pass: ck_pass) -> Float {
    let sum = roundingBound(terms(s, pass))
    let kernel = ConvVariant.all.first { $0.name == name }!.kernel(s, pass)
    guard kernel.contains("winograd") else { return sum }
    let groups = Float(s.groups)
    let m: Int32 = s.c / s.groups < 16 || s.f / s.groups < 16 ? 2 : 4
    // In the weight gradient tiles, of all phases where there is a dilation.
    let tiles = s.n * ((s.oh + (m - 1) * s.dh) / m) * ((s.ow + (m - 1) * s.dw) / m)
    let n =
      switch pass {
      case CK_FORWARD: Float(s.c) / groups
      case CK_INPUT_GRADIENT: Float(s.f) / groups
      default: Float(tiles)
      }
    let growth: Float =
      m == 4 ? pass == CK_WEIGHT_GRADIENT ? 29 : 27 : pass == CK_WEIGHT_GRADIENT ? 4 : 5
    return sum + 4 / 12 * growth * (n * (n + 25)).squareRoot() * 0x1p-24
  }

  func compare(_ name: String, _ shapes: [ck_conv_shape]) {
    let naive = ConvVariant.all.first!
    let variant = ConvVariant.all.first { $0.name == name }!
    for s in shapes {
      let (x, w, y) = (values(s.inputs, 1), values(s.weights, 2), values(s.outputs, 4))
      let bias: [Float]? = s.n % 2 == 0 ? values(Int(s.f), 3) : nil
      for pass in ConvVariant.passes {
        expectClose(
          Self.run(variant, pass, s, x: x, w: w, bias: bias, y: y),
          Self.run(naive, pass, s, x: x, w: w, bias: bias, y: y),
          within: Self.bound(name, s, pass), "conv_\(pass.name)_\(name), \(s.text)")
      }
    }
  }

  @Test func enoughShapes() {
    #expect(Self.awkward.count >= 60 && Self.random.count >= 300)
    #expect(ConvVariant.all.first!.name == "naive")
  }

  @Test(arguments: others) func awkwardShapes(variant: String) { compare(variant, Self.awkward) }

  @Test(arguments: others) func randomShapes(variant: String) { compare(variant, Self.random) }

  /// Those that would take the definition minutes with smaller images.
  @Test(arguments: others) func benchmarkedShapes(variant: String) {
    compare(
      variant,
      KernelBench.convolutions.map { c in
        var s = c.shape
        while s.operations > 1.2e8 {
          if s.n > 1 {
            s.n /= 2
          } else {
            (s.h, s.w) = ((s.h + 1) / 2, (s.w + 1) / 2)
            s.oh = (s.h + 2 * s.ph - s.dh * (s.fh - 1) - 1) / s.sh + 1
            s.ow = (s.w + 2 * s.pw - s.dw * (s.fw - 1) - 1) / s.sw + 1
          }
        }
        return s
      })
  }

  struct Expected: Decodable {
    struct Case: Decodable {
      let n, h, w, c, fh, fw, f, sh, sw, ph, pw, oh, ow, groups: Int32
      let dilation: [Int32]
      let y, dx, dw, db: [Float]
    }
    let value_check: [[Double]]
    let cases: [Case]
  }

  @Test func valuesAreTheGenerators() throws {
    for check in try expectations(Expected.self, "convolution.json").value_check {
      #expect(Double(value(Int(check[0]), Int(check[1]))) == check[2])
    }
  }

  @Test(arguments: ConvVariant.all.map(\.name)) func pyTorch(variant: String) throws {
    let file = try expectations(Expected.self, "convolution.json")
    #expect(file.cases.count >= 40)
    let kernels = ConvVariant.all.first { $0.name == variant }!
    for c in file.cases {
      let s = ck_conv_shape(
        n: c.n, h: c.h, w: c.w, c: c.c, fh: c.fh, fw: c.fw, f: c.f, sh: c.sh, sw: c.sw, ph: c.ph,
        pw: c.pw, oh: c.oh, ow: c.ow, dh: c.dilation[0], dw: c.dilation[1], groups: c.groups)
      let (x, w, b, dy) = (
        values(s.inputs, 1), values(s.weights, 2), values(Int(s.f), 3), values(s.outputs, 4)
      )
      for (pass, expected) in zip(ConvVariant.passes, [c.y, c.dx, c.dw]) {
        expectClose(
          Self.run(kernels, pass, s, x: x, w: w, bias: b, y: dy), expected,
          within: Self.bound(variant, s, pass), "\(variant) \(pass.name), \(s.text)")
      }
      let db = Guarded<Float>(Int(s.f))
      Kernels.columnSum(rows: Int(s.n * s.oh * s.ow), count: Int(s.f), dy, db.pointer)
      expectClose(
        db.values, c.db, within: roundingBound(Int(s.n * s.oh * s.ow)), "bias, \(s.text)")
    }
  }

  /// ⟨gather(x), y⟩ = ⟨x, scatter(y)⟩. With the identity as weights, the forward pass is the gather
  /// alone and the input gradient the scatter; with any other, they are still each other's adjoint.
  @Test(arguments: ConvVariant.all.map(\.name)) func gatherAndScatterAreAdjoint(
    variant: String
  ) {
    let kernels = ConvVariant.all.first { $0.name == variant }!
    for var s in Self.awkward where s.fh * s.fw * s.c <= 64 {
      // So many a group, and as many groups.
      let window = s.fh * s.fw * (s.c / s.groups)
      s.f = window * s.groups
      let identity = (0..<s.weights).map {
        Float($0 / Int(s.f) == $0 % Int(s.f) % Int(window) ? 1 : 0)
      }
      for w in [identity, values(s.weights, 2)] {
        let (x, y) = (values(s.inputs, 1), values(s.outputs, 4))
        let gathered = Self.run(kernels, CK_FORWARD, s, x: x, w: w, y: y)
        let scattered = Self.run(kernels, CK_INPUT_GRADIENT, s, x: x, w: w, y: y)
        let left = zip(gathered, y).reduce(0.0) { $0 + Double($1.0) * Double($1.1) }
        let right = zip(x, scattered).reduce(0.0) { $0 + Double($1.0) * Double($1.1) }
        let scale = zip(gathered, y).reduce(1e-3) { $0 + abs(Double($1.0) * Double($1.1)) }
        #expect(abs(left - right) <= 1e-5 * scale, "\(s.text): \(left) and \(right)")
      }
    }
  }
}

@Suite struct GroupAndDilationTests {
  /// What is said to be computed, and by what, counts a group's channels alone.
  @Test(arguments: [
    (1, 1, 12, "conv_forward_direct"), (4, 1, 3, "conv_forward_direct, split"),
    (12, 1, 1, "conv_forward_depthwise"), (1, 2, 12, "conv_forward_direct, split"),
    (12, 3, 1, "conv_forward_depthwise"),
  ])
  func cost(groups: Int, dilation: Int, channels: Int, kernel: String) throws {
    let layer = try LayerUnit(
      Conv2D(12, 3, padding: .same, dilation: dilation, groups: groups), Shape(7, 6, 12), batch: 1)
    let cost = try #require(layer.cost(.forward))
    #expect(cost.kernel == kernel)
    #expect(cost.operations == Double(2 * 7 * 6 * 12 * 9 * channels))
    #expect(cost.weights == 9 * channels * 12 + 12)
    #expect(layer.parameters[0].shape == [3, 3, channels, 12])
  }

  /// Only phases that have outputs are gone through.
  @Test func farApart() throws {
    let layer = Conv2D(2, 2, padding: .same, dilation: 1 << 23, activation: .none)
    let x = values(2 * 30, 1)
    let network = Network([layer])
    let y = try network.predict(Tensor(batch: 2, shape: Shape(5, 6, 1), x))
    #expect(y.shape == Shape(5, 6, 2) && y.values.allSatisfy { $0 == 0 })
  }
}

@Suite struct PaddingTests {
  /// Input, size, stride, dilation; outputs and zeros before and behind, of one axis. The first four
  /// are TensorFlow's own.
  @Test(arguments: [
    ([13, 6, 5, 1], [3, 1, 2]), ([5, 3, 1, 1], [5, 1, 1]), ([5, 3, 2, 1], [3, 1, 1]),
    ([4, 3, 2, 1], [2, 0, 1]), ([6, 2, 1, 1], [6, 0, 1]), ([7, 3, 1, 3], [7, 3, 3]),
    ([8, 4, 1, 3], [8, 4, 5]), ([9, 3, 4, 2], [3, 2, 2]), ([9, 1, 4, 1], [3, 0, 0]),
  ])
  func same(axis: [Int], expected: [Int]) throws {
    let (input, size, stride, dilation) = (axis[0], axis[1], axis[2], axis[3])
    func output(_ layer: Conv2D, _ shape: Shape) throws -> Tensor {
      let x = try Tensor(batch: 2, shape: shape, values(2 * shape.count, 1))
      return try Network([layer]).predict(x)
    }
    let rows = try output(
      Conv2D(
        3, (size, 1), stride: (stride, 1), padding: .same, dilation: (dilation, 1),
        activation: .none), Shape(input, 2, 2))
    #expect(rows.shape == Shape(expected[0], 2, 3))
    #expect(
      try output(
        Conv2D(
          3, (size, 1), stride: (stride, 1),
          padding: .explicit(top: expected[1], left: 0, bottom: expected[2], right: 0),
          dilation: (dilation, 1), activation: .none), Shape(input, 2, 2)
      ).values == rows.values)
    let columns = try output(
      Conv2D(
        3, (1, size), stride: (1, stride), padding: .same, dilation: (1, dilation),
        activation: .none), Shape(2, input, 2))
    #expect(columns.shape == Shape(2, expected[0], 3))
  }
}

@Suite struct StrideGroupTests {
  /// The source's example: a 2×2 filter A B C D over a 4×4 input 1…16, with its misprint mended:
  /// in the first group C meets 5, 7, 13, 15, not 5, 7, 9, 11.
  @Test func theExampleOfTheSource() {
    let groups = StrideGroups(output: (3, 3), size: (2, 2), stride: (1, 1)).groups
    let inputs = groups.map { group in
      group.inputs.map { $0.map { 4 * $0.row + $0.column + 1 } }
    }
    #expect(
      inputs == [
        [[1, 3, 9, 11], [2, 4, 10, 12], [5, 7, 13, 15], [6, 8, 14, 16]],
        [[2, 10], [3, 11], [6, 14], [7, 15]],
        [[5, 7], [6, 8], [9, 11], [10, 12]],
        [[6], [7], [10], [11]],
      ])
  }

  /// The same through the kernel: with one filter per element, each output is the input that the
  /// element meets.
  @Test func theKernelGathersTheSame() {
    let s = ck_conv_shape(1, 4, 4, 1, 2, 2, 4)
    let kernels = ConvVariant.all.first { $0.name == "stride_groups" }!
    let identity = (0..<16).map { Float($0 / 4 == $0 % 4 ? 1 : 0) }
    let y = ConvolutionTests.run(
      kernels, CK_FORWARD, s, x: (1...16).map(Float.init), w: identity,
      y: [Float](repeating: 0, count: s.outputs))
    for group in StrideGroups(output: (3, 3), size: (2, 2), stride: (1, 1)).groups {
      for (element, inputs) in group.inputs.enumerated() {
        for (position, input) in zip(group.positions, inputs) {
          #expect(
            y[(position.row * 3 + position.column) * 4 + element]
              == Float(4 * input.row + input.column + 1))
        }
      }
    }
  }

  /// Each position is in exactly one group, no input twice in one, and their number is bounded.
  @Test func theDefiningProperties() {
    for s in ConvolutionTests.awkward + ConvolutionTests.random where s.dh == 1 && s.dw == 1 {
      let groups = StrideGroups(
        output: (Int(s.oh), Int(s.ow)), size: (Int(s.fh), Int(s.fw)),
        stride: (Int(s.sh), Int(s.sw)), padding: (Int(s.ph), Int(s.pw))
      ).groups
      let positions = groups.flatMap { $0.positions.map { $0.row * Int(s.ow) + $0.column } }
      #expect(positions.sorted() == Array(0..<Int(s.oh * s.ow)), "\(s.text)")
      #expect(groups.count <= Int(s.fh * s.fw))
      if s.sh >= s.fh && s.sw >= s.fw { #expect(groups.count == 1) }
      for group in groups {
        let inputs = group.inputs.flatMap { $0.map { [$0.row, $0.column] } }
        #expect(Set(inputs).count == inputs.count, "\(s.text)")
      }
    }
  }
}
