import Testing

import StrideNet
@testable import StrideNetCore

@Suite struct ActivationTests {
  struct Expected: Decodable {
    struct Case: Decodable {
      let n: Int
      let activation: String
      let scale, slope: Float
      let y, dx: [Float]
    }
    let cases: [Case]
  }

  /// On numbers from some hundredths to some tens. The whole range is in Tests/KernelCheck.
  @Test(arguments: [1, 3]) func pyTorch(threads: Int) throws {
    _ = testedInstructionSet
    let cases = try expectations(Expected.self, "activation.json").cases
    #expect(
      Set(cases.map(\.activation)) == Set(Activation.builtIn.map(\.name)).subtracting(["softmax"]))
    for c in cases {
      let slope = c.activation == "leaky_relu" ? ",slope=\(c.slope)" : ""
      let text = "activation(\(c.activation)\(slope))"
      let (batch, shape) = (c.n / 5, Shape(5))
      let layer = try LayerUnit(
        try Architecture.layers(text)[0], shape, batch: batch, runtime: Runtime(threads: threads))
      let x = Guarded(values(c.n, 1).map { c.scale * $0 })
      let (dy, y, dx) = (Guarded(values(c.n, 4)), Guarded<Float>(c.n), Guarded<Float>(c.n))
      func view(_ memory: Guarded<Float>) -> TensorView {
        TensorView(memory.pointer, batch: batch, shape: shape)
      }
      try layer.forward(view(x), view(y))
      layer.backward(view(x), view(y), view(dy), view(dx))
      #expect(y.guardsHold && dx.guardsHold)
      // Where y was rounded near 1, f′ computed from it is off by as much.
      expectClose(y.values, c.y, within: 5 * .ulpOfOne * max(1, c.scale / 2), "\(text) y")
      expectClose(dx.values, c.dx, within: 5 * .ulpOfOne, "\(text) dx, scale \(c.scale)")
    }
  }

  /// An activation's result doesn't depend on where its number stands or how the work is cut.
  @Test func anyPosition() {
    for kernel in ActivationKernel.all {
      let x = values(37, 1).map { 6 * $0 }
      let whole = Guarded<Float>(x.count)
      kernel.forward(x.count, x, whole.pointer)
      for start in x.indices {
        let one = Guarded<Float>(1)
        kernel.forward(1, [x[start]], one.pointer)
        #expect(one.values[0].bitPattern == whole.values[start].bitPattern, "\(kernel.name)")
      }
    }
  }

  /// Leaky ReLU at its corner and at numbers that are none.
  @Test func slopes() throws {
    let x: [Float] = [-3, -0.0, 0, 2, .nan, -.infinity, .infinity]
    func y(_ slope: Float) throws -> [Float] {
      try Network([Activate(.leakyReLU(slope: slope))]).predict(
        Tensor(batch: 1, shape: Shape(7), x)
      ).values
    }
    #expect(try Array(y(0.5).prefix(4)) == [-1.5, 0, 0, 2])
    #expect(try y(0.5)[4].isNaN && y(0.5)[5] == -.infinity && y(0.5)[6] == .infinity)
    #expect(try Array(y(0).prefix(4)) == [0, 0, 0, 2])
  }
}
