import CKernels
import Testing

import StrideNet
@testable import StrideNetLaboratory

@Suite struct PoolingTests {
  static let shapes: [ck_pool_shape] = {
    var random = SeededGenerator(seed: 2026, stream: 4)
    func pick(_ range: ClosedRange<Int>) -> Int { range.lowerBound + random.below(range.count) }
    func shape(
      _ n: Int, _ h: Int, _ w: Int, _ c: Int, _ fh: Int, _ fw: Int, _ sh: Int, _ sw: Int
    ) -> ck_pool_shape {
      ck_pool_shape(
        n: Int32(n), h: Int32(h), w: Int32(w), c: Int32(c), fh: Int32(fh), fw: Int32(fw),
        sh: Int32(sh), sw: Int32(sw), oh: Int32((h - fh) / sh + 1), ow: Int32((w - fw) / sw + 1))
    }
    var shapes: [ck_pool_shape] = []
    // Every size of input, window and stride around each other: remainders, overlaps, gaps.
    for size in 1...6 {
      for window in 1...min(size, 4) {
        for stride in 1...4 {
          shapes.append(shape(2, size, size, 3, window, window, stride, stride))
        }
      }
    }
    for c in [1, 7, 8, 15, 16, 17, 32, 33] { shapes.append(shape(2, 6, 5, c, 2, 2, 2, 2)) }
    shapes += [
      shape(3, 26, 26, 32, 2, 2, 2, 2), shape(1, 5, 9, 2, 3, 2, 1, 3),
      shape(2, 4, 7, 3, 4, 7, 1, 1),
      shape(1, 20, 20, 2, 17, 16, 2, 3), shape(1, 1, 12, 4, 1, 3, 1, 2),
    ]
    for _ in 0..<200 {
      let (h, w) = (pick(1...12), pick(1...12))
      shapes.append(
        shape(
          pick(1...3), h, w, pick(1...20), pick(1...min(h, 5)), pick(1...min(w, 5)), pick(1...5),
          pick(1...5)))
    }
    return shapes + KernelBench.poolings.map(\.shape)
  }()

  static let variants = PoolVariant.all.map(\.name)

  static func run(
    _ name: String, _ operation: PoolVariant.Operation, _ s: ck_pool_shape, x: [Float], dy: [Float],
    places: [UInt16] = []
  ) -> (values: [Float], places: [UInt16]) {
    let variant = PoolVariant.all.first { $0.name == name }!
    let forward = operation == .max_forward || operation == .avg_forward
    let (x, dy) = (Guarded(x), Guarded(dy))
    let target = Guarded<Float>(forward ? s.outputs : s.inputs)
    let places = operation == .max_backward ? Guarded(places) : Guarded<UInt16>(s.outputs)
    variant.run(operation, s, x.pointer, dy.pointer, into: target.pointer, places.pointer)
    #expect(
      target.guardsHold && places.guardsHold && x.guardsHold && dy.guardsHold,
      "\(name) wrote outside of its memory: \(operation), \(s.text)")
    return (target.values, places.values)
  }

  @Test(arguments: variants.dropFirst()) func againstTheDefinition(variant: String) {
    for s in Self.shapes {
      // Few different values, so that there are ties in every window.
      let ties = values(s.inputs, 1).map { ($0 * 4).rounded() }
      for (x, exact) in [(values(s.inputs, 1), true), (ties, true)] {
        let dy = values(s.outputs, 4)
        let naive = Self.run("naive", .max_forward, s, x: x, dy: dy)
        let other = Self.run(variant, .max_forward, s, x: x, dy: dy)
        #expect(other == naive && exact, "max_forward, \(s.text)")
        let bound = roundingBound(Int(s.fh * s.fw)) * 4
        for operation in [PoolVariant.Operation.max_backward, .avg_forward, .avg_backward] {
          expectClose(
            Self.run(variant, operation, s, x: x, dy: dy, places: naive.places).values,
            Self.run("naive", operation, s, x: x, dy: dy, places: naive.places).values,
            within: bound, "\(operation) \(variant), \(s.text)")
        }
      }
    }
  }

  @Test(arguments: variants) func theFirstMaximumWins(variant: String) {
    let s = ck_pool_shape(1, 2, 4, 1, 2, stride: 2)
    let (y, places) = Self.run(
      variant, .max_forward, s, x: [1, 7, 2, 2, 7, 7, 2, 2], dy: [0, 0])
    #expect(y == [7, 2] && places == [1, 0])
    let dx = Self.run(variant, .max_backward, s, x: [], dy: [3, 4], places: places).values
    #expect(dx == [0, 3, 4, 0, 0, 0, 0, 0])
  }

  /// The mean of all of a channel, whatever the image's size; what follows takes it as a flat vector.
  @Test(arguments: [Shape(1, 1, 3), Shape(7, 5, 17), Shape(300, 301, 2)]) func global(shape: Shape)
    throws
  {
    let layers = try Architecture.layers("globalavgpool dense(4,init=constant:1)")
    let network = Network(layers)
    let x = values(2 * shape.count, 1)
    let y = try network.predict(Tensor(batch: 2, shape: shape, x))
    #expect(network.shapes == [Shape(shape.channels), Shape(4)])
    for image in 0..<2 {
      let pixels = x[image * shape.count..<(image + 1) * shape.count]
      let sum = pixels.reduce(0) { $0 + Double($1) }
      let mean = Float(sum / Double(shape.height * shape.width))
      for f in 0..<4 { #expect(abs(y[image * 4 + f] - mean) < 1e-5) }
    }
  }

  struct Expected: Decodable {
    struct Case: Decodable {
      let n, h, w, c, fh, fw, sh, sw, oh, ow: Int32
      let max_y, max_dx, avg_y, avg_dx: [Float]
    }
    let cases: [Case]
  }

  @Test(arguments: variants) func pyTorch(variant: String) throws {
    let file = try expectations(Expected.self, "pooling.json")
    #expect(file.cases.count >= 10)
    for c in file.cases {
      let s = ck_pool_shape(
        n: c.n, h: c.h, w: c.w, c: c.c, fh: c.fh, fw: c.fw, sh: c.sh, sw: c.sw, oh: c.oh, ow: c.ow)
      let (x, dy) = (values(s.inputs, 1), values(s.outputs, 4))
      let bound = roundingBound(Int(s.fh * s.fw))
      let (y, places) = Self.run(variant, .max_forward, s, x: x, dy: dy)
      expectClose(y, c.max_y, within: bound, "max y, \(s.text)")
      for (operation, expected) in [
        (PoolVariant.Operation.max_backward, c.max_dx), (.avg_forward, c.avg_y),
        (.avg_backward, c.avg_dx),
      ] {
        expectClose(
          Self.run(variant, operation, s, x: x, dy: dy, places: places).values, expected,
          within: bound, "\(operation), \(s.text)")
      }
    }
  }
}
