// SPDX-License-Identifier: MIT
// What a network learned of digits helps it with clothes: its convolutions are taken over into a new
// network, which then sees few images of Fashion-MNIST, beside one that begins from nothing.
//
//     stridenet fetch fashion-mnist
//     swift run -c release Transfer [digits] [clothes] [images]
import StrideNet

let arguments = Array(CommandLine.arguments.dropFirst())
let digits = try Dataset.load(arguments.first ?? "sample")
let clothes = try Dataset.load(arguments.count > 1 ? arguments[1] : "fashion-mnist")
let images = min(arguments.count > 2 ? Int(arguments[2]) ?? 500 : 500, clothes.train.count)

func makeNetwork() -> Network {
  Network {
    Conv2D(16, 3, padding: .same)
    MaxPool2D(2)
    Conv2D(32, 3, padding: .same)
    MaxPool2D(2)
    Flatten()
    Dense(64)
    Dense(10, activation: .softmax)
  }
}

func train(_ network: Network, _ data: Dataset, epochs: Int) throws -> Float {
  var settings = TrainingSettings()
  settings.epochs = epochs
  settings.batchSize = min(32, data.train.count)
  settings.learningRate = 0.02
  let trainer = try Trainer(network, data, settings)
  try trainer.run()
  return trainer.results.last!.testCE
}

let teacher = makeNetwork()
print("digits: class error \(try train(teacher, digits, epochs: 3) * 100) %")

let few = try clothes.limited(to: images)
let pupil = makeNetwork()
try pupil.build(for: few.train.shape)
try pupil.copyWeights(from: teacher, layers: 0..<4)
print(
  "\(images) clothes, convolutions from the digits: \(try train(pupil, few, epochs: 10) * 100) %")
print("\(images) clothes, from nothing: \(try train(makeNetwork(), few, epochs: 10) * 100) %")
