// SPDX-License-Identifier: MIT
// A layer and an activation of one's own, in a network with layers of the library.
//
//     swift run -c release CustomLayer [data]
import StrideNet

/// y = x · scale[c] + offset[c]: a learned contrast and brightness for each channel.
struct ChannelAffine: CustomLayer {
  func parameters(for input: Shape) -> [ParameterShape] {
    [
      ParameterShape("scale", shape: [input.channels], .constant(1)),
      ParameterShape("offset", shape: [input.channels], .constant(0)),
    ]
  }

  func forward(_ x: TensorView, _ y: TensorView, _ pass: CustomPass) {
    let (scale, offset) = (pass.weights(0), pass.weights(1))
    for i in 0..<x.count {
      let c = i % scale.count
      y[i] = scale[c] * x[i] + offset[c]
    }
  }

  func backward(
    _ x: TensorView, _ y: TensorView, _ dy: TensorView, _ dx: TensorView?, _ pass: CustomPass
  ) {
    let scale = pass.weights(0)
    let (scaleGradient, offsetGradient) = (pass.gradient(0), pass.gradient(1))
    scaleGradient.update(repeating: 0)
    offsetGradient.update(repeating: 0)
    for i in 0..<x.count {
      let c = i % scale.count
      scaleGradient[c] += dy[i] * x[i]
      offsetGradient[c] += dy[i]
      dx?[i] = dy[i] * scale[c]
    }
  }
}

extension Activation {
  /// y = x where that is above 0, else x/4 + x³/100: only to show how.
  static let bent = Activation(
    "bent", { $0 > 0 ? $0 : $0 / 4 + $0 * $0 * $0 / 100 },
    derivative: { x, _ in x > 0 ? 1 : 0.25 + 3 * x * x / 100 })
}

let data = try Dataset.load(CommandLine.arguments.dropFirst().first ?? "sample")
let network = Network {
  ChannelAffine()
  Conv2D(16, 3, stride: 2, activation: .bent)
  ChannelAffine()
  Flatten()
  Dense(10, activation: .softmax)
}
var settings = TrainingSettings()
settings.epochs = 2
settings.batchSize = min(64, data.train.count)
let trainer = try Trainer(network, data, settings)
trainer.onEpoch { print("epoch \($0.epoch): test class error \($0.testCE * 100) %") }
try trainer.run()
for array in network.snapshot().arrays where array.name.hasSuffix("scale") {
  print(array.name, array.values)
}
