import CKernels
import Testing

import StrideNet
@testable import StrideNetCore
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
        sh: Int32(sh), sw: Int32(sw), oh: Int32((h - fh) / sh + 1), ow: Int32((w - fw) / sw + 1),
        ph: 0, pw: 0, ch: 0, cw: 0)
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
      let n, h, w, c, fh, fw, sh, sw, oh, ow: Int
      let padding: String?
      let ceil, counted: Bool?
      let max_y, max_dx, avg_y, avg_dx: [Float]

      /// As the layer of that name has it.
      func shape(_ name: String) throws -> ck_pool_shape {
        let more = name == "avgpool" ? ",count_include_pad=\(counted ?? true)" : ""
        let text =
          "\(name)(\(fh)x\(fw),\(sh)x\(sw),\(padding ?? "0"),\(ceil ?? false)\(more))"
        let operation = try Architecture.layers(text)[0].operations(for: Shape(h, w, c))[0]
        #expect(operation.output == Shape(oh, ow, c), "\(text)")
        guard case .pool(let pooling) = operation.kind else { preconditionFailure() }
        return pooling.kernelShape(n, operation.input, operation.output)
      }
    }
    struct Stem: Decodable {
      let loss: Float
      let gradient: [Float]
    }
    let cases: [Case]
    let stem: Stem
  }

  @Test(arguments: variants) func pyTorch(variant: String) throws {
    let file = try expectations(Expected.self, "pooling.json")
    #expect(file.cases.filter { $0.padding != nil }.count >= 10)
    for c in file.cases {
      let (s, means) = (try c.shape("maxpool"), try c.shape("avgpool"))
      let (x, dy) = (values(s.inputs, 1), values(s.outputs, 4))
      let bound = roundingBound(Int(s.fh * s.fw))
      let (y, places) = Self.run(variant, .max_forward, s, x: x, dy: dy)
      expectClose(y, c.max_y, within: bound, "max y, \(s.text)")
      for (operation, s, expected) in [
        (PoolVariant.Operation.max_backward, s, c.max_dx), (.avg_forward, means, c.avg_y),
        (.avg_backward, means, c.avg_dx),
      ] {
        expectClose(
          Self.run(variant, operation, s, x: x, dy: dy, places: places).values, expected,
          within: bound, "\(operation), \(s.text)")
      }
    }
  }

  /// How a ResNet begins: a padded convolution and a padded max-pooling, by every kernel.
  @Test(arguments: KernelChoice.names) func stem(kernels: String) throws {
    let expected = try expectations(Expected.self, "pooling.json").stem
    let network = Network(
      try Architecture.layers(
        "conv(8,7,stride=2,padding=3,activation=none) batchnorm(activation=relu) "
          + "maxpool(3,stride=2,padding=1) flatten softmax(4)"),
      runtime: Runtime(threads: 2, kernels: try KernelChoice(named: kernels)))
    let shape = Shape(17, 15, 3)
    try network.build(for: shape)
    let arrays = network.snapshot().arrays
    let learned = arrays.filter { !$0.name.contains("running") }
    for (p, array) in learned.enumerated() {
      try network.setWeights(
        array.name, values(array.values.count, 10 + p).map { $0 + (p == 2 ? 1 : 0) })
    }
    let images = try Tensor(batch: 4, shape: shape, values(4 * shape.count, 1).map { $0 + 0.5 })
    let (_, loss, _) = try network.train(
      Batch(images: images, labels: [0, 1, 2, 3]), learningRate: 1e-4)
    #expect(abs(loss - expected.loss) < 1e-5 * expected.loss)
    var rest = network.lastGradient[...]
    let gradient = arrays.flatMap { array in
      defer { rest = rest.dropFirst(array.values.count) }
      return array.name.contains("running") ? [] : Array(rest.prefix(array.values.count))
    }
    expectClose(gradient, expected.gradient, within: 2e-5, "gradient")
  }

  /// Sizes as PyTorch has them, and what fused and folded networks make of padded pooling.
  @Test(arguments: [
    ("maxpool(2,ceil_mode=true)", 4, 3), ("maxpool(2,padding=1)", 4, 4),
    ("maxpool(3,stride=2,padding=1)", 4, 3), ("avgpool(3,stride=2,padding=same)", 4, 3),
    ("maxpool(2,stride=3,ceil_mode=true)", 3, 2), ("maxpool(9,stride=4,ceil_mode=true)", 1, 1),
    ("avgpool(3x2,stride=2x1,padding=0x1x2x0)", 4, 6),
  ])
  func sizes(text: String, rows: Int, columns: Int) throws {
    let layer = try Architecture.layers(text)[0]
    #expect(layer.text == text)
    #expect(try layer.operations(for: Shape(7, 6, 2))[0].output == Shape(rows, columns, 2))
  }
}
