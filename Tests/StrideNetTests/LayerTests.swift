import Foundation
import Testing

import StrideNet
@testable import StrideNetCore

/// The backward pass of each layer against finite differences of its forward pass.
@Suite struct GradientTests {
  struct Case: CustomTestStringConvertible, @unchecked Sendable {
    // Sendable because each test makes its own layer.
    let name: String
    let input: Shape
    let layer: () -> any Layer
    /// Piecewise linear functions need inputs away from their corners.
    var kinks = false

    var testDescription: String { name }
  }

  static let softsign = Activation(
    "softsign", { $0 / (1 + abs($0)) }, derivative: { _, y in (1 - abs(y)) * (1 - abs(y)) })

  static let cases: [Case] = [
    Case(name: "conv", input: Shape(6, 5, 2)) { Conv2D(3, 3, activation: .none) },
    Case(name: "conv, strided and padded", input: Shape(7, 6, 2)) {
      Conv2D(4, (3, 2), stride: (2, 1), padding: 1, activation: .none)
    },
    Case(name: "conv, dilated", input: Shape(8, 7, 2)) {
      Conv2D(3, (3, 2), padding: .same, dilation: (2, 3), activation: .none)
    },
    Case(name: "conv, dilated, strided, in groups", input: Shape(9, 8, 4)) {
      Conv2D(6, 3, stride: 2, padding: .same, dilation: 3, groups: 2, activation: .sigmoid)
    },
    Case(name: "conv, depthwise", input: Shape(6, 7, 5)) {
      Conv2D(5, 3, padding: .same, groups: 5, activation: .none)
    },
    Case(name: "conv, depthwise, strided", input: Shape(8, 7, 3)) {
      Conv2D(
        3, 3, stride: 2, padding: .explicit(top: 0, left: 1, bottom: 2, right: 0), groups: 3,
        activation: .tanh)
    },
    Case(name: "conv and ReLU", input: Shape(6, 6, 1), layer: { Conv2D(3, 3) }, kinks: true),
    Case(name: "conv and sigmoid", input: Shape(5, 5, 2)) { Conv2D(3, 3, activation: .sigmoid) },
    Case(name: "conv and softmax", input: Shape(4, 4, 1)) { Conv2D(2, 3, activation: .softmax) },
    Case(name: "conv and one's own", input: Shape(5, 5, 2)) { Conv2D(3, 3, activation: softsign) },
    Case(name: "max pool", input: Shape(6, 6, 3), layer: { MaxPool2D(2) }, kinks: true),
    Case(
      name: "max pool, overlapping", input: Shape(7, 5, 2), layer: { MaxPool2D(3, stride: 1) },
      kinks: true),
    Case(name: "average pool", input: Shape(6, 7, 3)) { AvgPool2D(2) },
    Case(name: "average pool, overlapping", input: Shape(7, 7, 2)) { AvgPool2D(3, stride: 2) },
    Case(
      name: "max pool, padded", input: Shape(7, 6, 2),
      layer: { MaxPool2D(3, stride: 2, padding: 1, ceilMode: true) }, kinks: true),
    Case(name: "average pool, padded", input: Shape(7, 6, 2)) {
      AvgPool2D(3, stride: 2, padding: .explicit(top: 2, left: 0, bottom: 1, right: 1))
    },
    Case(name: "average pool, of pixels alone", input: Shape(6, 5, 3)) {
      AvgPool2D(2, padding: 1, ceilMode: true, countIncludePad: false)
    },
    Case(name: "conv, padded beyond its window", input: Shape(4, 5, 2)) {
      Conv2D(3, 2, stride: 2, padding: 3, activation: .sigmoid)
    },
    Case(name: "average pool, global", input: Shape(5, 6, 3)) { GlobalAvgPool() },
    Case(name: "dense", input: Shape(11)) { Dense(7, activation: .none) },
    Case(name: "dense and ReLU", input: Shape(9), layer: { Dense(8) }, kinks: true),
    Case(name: "dense and sigmoid", input: Shape(9)) { Dense(5, activation: .sigmoid) },
    Case(name: "dense and softmax", input: Shape(6)) { Dense(5, activation: .softmax) },
    Case(name: "dense and one's own", input: Shape(6)) { Dense(5, activation: softsign) },
    Case(name: "conv and GELU", input: Shape(5, 5, 2)) { Conv2D(3, 3, activation: .gelu) },
    Case(name: "conv and SiLU", input: Shape(5, 4, 1)) { Conv2D(3, 3, activation: .silu) },
    Case(
      name: "conv and leaky ReLU", input: Shape(6, 6, 1),
      layer: { Conv2D(3, 3, activation: .leakyReLU(slope: 0.3)) }, kinks: true),
    Case(name: "dense and tanh", input: Shape(9)) { Dense(5, activation: .tanh) },
    Case(name: "dense and softplus", input: Shape(9)) { Dense(5, activation: .softplus) },
    Case(name: "dense and SiLU", input: Shape(9)) { Dense(5, activation: .silu) },
    Case(name: "ELU alone", input: Shape(3, 2, 2), layer: { Activate(.elu) }, kinks: true),
    Case(name: "GELU alone", input: Shape(3, 2, 2)) { Activate(.gelu) },
    Case(name: "softmax alone", input: Shape(7)) { Activate(.softmax) },
    Case(name: "sigmoid alone", input: Shape(3, 2, 2)) { Activate(.sigmoid) },
    // With ReLU, whose corners can lie anywhere after the normalisation, only against PyTorch.
    Case(name: "batch norm", input: Shape(5, 4, 3)) { BatchNorm() },
    Case(name: "batch norm and sigmoid", input: Shape(17)) { BatchNorm(activation: .sigmoid) },
    Case(name: "layer norm", input: Shape(3, 2, 19)) { LayerNorm() },
    Case(name: "layer norm of a vector", input: Shape(33)) { LayerNorm() },
    Case(name: "dropout", input: Shape(5, 4, 3)) { Dropout(0.4) },
    Case(name: "residual", input: Shape(5, 5, 2)) {
      Residual([Conv2D(3, 3, padding: 1, activation: .sigmoid), Conv2D(2, 1, activation: .none)])
    },
    Case(name: "residual with a shortcut", input: Shape(6, 6, 2)) {
      Residual(
        [Conv2D(4, 3, stride: 2, padding: 1, activation: .none), BatchNorm(), LayerNorm()],
        shortcut: [AvgPool2D(2), Conv2D(4, 1, activation: .sigmoid)])
    },
    Case(name: "a layer of one's own", input: Shape(3, 3, 2)) { ChannelScale() },
  ]

  @Test(arguments: cases, KernelChoice.names)
  func finiteDifferences(c: Case, kernels: String) throws {
    let batch = 3
    let runtime = Runtime(threads: 2, kernels: try KernelChoice(named: kernels))
    let layer = try LayerUnit(c.layer(), c.input, batch: batch, seed: 7, runtime: runtime)
    let output = layer.output

    // Biases start at zero: give every parameter values that tell its elements apart.
    for (p, parameter) in layer.parameters.enumerated() {
      for i in 0..<parameter.count { parameter.value[i] = value(i, 20 + p) }
    }
    // Where a function has corners, values lie on a grid much wider than the step.
    let x = Guarded(
      values(batch * c.input.count, 1).enumerated().map { i, v in
        c.kinks ? Float((i * 37) % 101) / 25 - 2 + v / 100 : v
      })
    let dy = values(batch * output.count, 4)
    func view(_ memory: Guarded<Float>, _ shape: Shape) -> TensorView {
      TensorView(memory.pointer, batch: batch, shape: shape)
    }
    /// Σ dy · y: its gradient is what the backward pass gives for the upstream gradient dy.
    func objective() throws -> Double {
      let y = Guarded<Float>(batch * output.count)
      try layer.forward(view(x, c.input), view(y, output))
      #expect(y.guardsHold)
      return zip(y.values, dy).reduce(0) { $0 + Double($1.0) * Double($1.1) }
    }

    let y = Guarded<Float>(batch * output.count)
    try layer.forward(view(x, c.input), view(y, output))
    let (upstream, dx) = (Guarded(dy), Guarded<Float>(batch * c.input.count))
    layer.backward(
      view(x, c.input), view(y, output), view(upstream, output), view(dx, c.input))
    #expect(upstream.guardsHold && dx.guardsHold)

    try expectSlopes("x", x.pointer, dx.values, objective)
    let gradients = layer.parameters.map {
      Array(UnsafeBufferPointer(start: $0.gradient, count: $0.count))
    }
    for (parameter, gradient) in zip(layer.parameters, gradients) {
      try expectSlopes(parameter.name, parameter.value, gradient, objective)
    }
  }

  /// Some elements of a gradient against the slopes of what it is the gradient of.
  private func expectSlopes(
    _ name: String, _ memory: UnsafeMutablePointer<Float>, _ gradient: [Float],
    _ objective: () throws -> Double
  ) throws {
    let step: Float = 1 / 128
    for i in stride(from: 0, to: gradient.count, by: max(1, gradient.count / 60)) {
      let old = memory[i]
      memory[i] = old + step
      let up = try objective()
      memory[i] = old - step
      let down = try objective()
      memory[i] = old
      let slope = (up - down) / Double(2 * step)
      let error = abs(slope - Double(gradient[i]))
      // Float sums of some 100 products over a step of 1/64, and the step's own curvature.
      #expect(
        error <= 2e-3 * max(1, abs(slope)),
        "\(name)[\(i)]: slope \(slope), backward pass \(gradient[i])")
    }
  }

  /// Without somebody who needs dx, the parameters' gradients are the same.
  @Test func theFirstLayerNeedsNoInputGradient() throws {
    let shape = Shape(8, 8, 1)
    let network = Network([Conv2D(3, 3), Flatten(), Dense(4, activation: .softmax)])
    let padded = Network([
      Activate(.none), Conv2D(3, 3), Flatten(), Dense(4, activation: .softmax),
    ])
    let batch = Batch(
      images: try Tensor(batch: 5, shape: shape, values(5 * 64, 1)), labels: [0, 1, 2, 3, 1])
    try network.train(batch, learningRate: 0.1)
    try padded.train(batch, learningRate: 0.1)
    #expect(network.lastGradient == padded.lastGradient)
  }
}

/// The README's layer of one's own: a learned factor for each channel.
struct ChannelScale: CustomLayer {
  func parameters(for input: Shape) -> [ParameterShape] {
    [ParameterShape("scale", shape: [input.channels], .constant(1))]
  }

  func forward(_ x: TensorView, _ y: TensorView, _ pass: CustomPass) {
    let scale = pass.weights(0)
    for i in 0..<x.count { y[i] = x[i] * scale[i % scale.count] }
  }

  func backward(
    _ x: TensorView, _ y: TensorView, _ dy: TensorView, _ dx: TensorView?, _ pass: CustomPass
  ) {
    let (scale, gradient) = (pass.weights(0), pass.gradient(0))
    gradient.update(repeating: 0)
    for i in 0..<x.count {
      let c = i % scale.count
      gradient[c] += dy[i] * x[i]
      if let dx { dx[i] = dy[i] * scale[c] }
    }
  }
}

@Suite struct DenseAndSoftmaxTests {
  struct Expected: Decodable {
    struct DenseCase: Decodable {
      let n, `in`, out: Int
      let activation: String
      let y, dx, dw, db: [Float]
    }
    struct SoftmaxCase: Decodable {
      let n, classes: Int
      let scale: Float
      let loss: Double
      let probabilities, losses, dlogits: [Float]
    }
    let dense: [DenseCase]
    let softmax: [SoftmaxCase]
  }

  @Test func densePyTorch() throws {
    let cases = try expectations(Expected.self, "dense_softmax.json").dense
    #expect(cases.count >= 9)
    for c in cases {
      let activation = try #require(Activation.builtIn.first { $0.name == c.activation })
      let layer = try LayerUnit(
        Dense(c.out, activation: activation), Shape(c.in), batch: c.n, runtime: Runtime(threads: 2))
      let network = layer.network
      try network.setWeights("layers.0.weight", values(c.in * c.out, 2))
      try network.setWeights("layers.0.bias", values(c.out, 3))
      let (x, dy) = (Guarded(values(c.n * c.in, 1)), Guarded(values(c.n * c.out, 4)))
      let (y, dx) = (Guarded<Float>(c.n * c.out), Guarded<Float>(c.n * c.in))
      func view(_ memory: Guarded<Float>, _ count: Int) -> TensorView {
        TensorView(memory.pointer, batch: c.n, shape: Shape(count))
      }
      try layer.forward(view(x, c.in), view(y, c.out))
      layer.backward(view(x, c.in), view(y, c.out), view(dy, c.out), view(dx, c.in))
      let name = "dense \(c.n)×\(c.in)→\(c.out) \(c.activation)"
      let bound = roundingBound(max(c.in, c.out, c.n))
      expectClose(y.values, c.y, within: bound, "\(name) y")
      expectClose(dx.values, c.dx, within: bound, "\(name) dx")
      let gradient = network.lastGradient
      expectClose(Array(gradient.prefix(c.in * c.out)), c.dw, within: bound, "\(name) dw")
      expectClose(Array(gradient.suffix(c.out)), c.db, within: bound, "\(name) db")
    }
  }

  @Test func softmaxCrossEntropyPyTorch() throws {
    let cases = try expectations(Expected.self, "dense_softmax.json").softmax
    #expect(cases.contains { $0.scale >= 2000 })
    for c in cases {
      let logits = Guarded(values(c.n * c.classes, 1).map { c.scale * $0 })
      let (dlogits, loss) = (Guarded<Float>(c.n * c.classes), Guarded<Float>(c.n))
      let wrong = Guarded<Int32>(c.n)
      let labels = (0..<c.n).map { Int32(7 * $0 % c.classes) }
      let before = logits.values
      Kernels.softmaxCrossEntropy(
        TensorView(logits.pointer, batch: c.n, shape: Shape(c.classes)), labels: labels,
        smoothing: 0, scale: 1 / Float(c.n), dlogits: dlogits.pointer, loss: loss.pointer,
        wrong: wrong.pointer)
      #expect(dlogits.guardsHold && loss.guardsHold && wrong.guardsHold && logits.guardsHold)
      // exp of a rounded argument: relative error of half an epsilon times the argument.
      let bound = Float.ulpOfOne * (4 + c.scale)
      expectClose(logits.values, c.probabilities, within: bound, "probabilities")
      expectClose(dlogits.values, c.dlogits, within: bound, "dlogits")
      expectClose(loss.values, c.losses, within: bound, "losses")
      let mean = loss.values.reduce(0.0) { $0 + Double($1) } / Double(c.n)
      #expect(abs(mean - c.loss) <= 1e-6 * max(1, c.loss))
      for row in 0..<c.n {
        let values = before[row * c.classes..<(row + 1) * c.classes]
        let best = values.firstIndex(of: values.max()!)! - row * c.classes
        #expect((wrong.values[row] == 1) == (best != Int(labels[row])))
      }
    }
  }
}
