// SPDX-License-Identifier: MIT
// LeNet-5 as of 1998 in spirit: two convolutions with average pooling and tanh, three dense layers.
//
//     swift run -c release LeNet [data] [epochs]
import StrideNet

let arguments = CommandLine.arguments.dropFirst()
let data = try Dataset.load(arguments.first ?? "sample")

let network = Network {
  Conv2D(6, 5, padding: .same, activation: .tanh)
  AvgPool2D(2)
  Conv2D(16, 5, activation: .tanh)
  AvgPool2D(2)
  Flatten()
  Dense(120, activation: .tanh)
  Dense(84, activation: .tanh)
  Dense(10, activation: .softmax)
}

var settings = TrainingSettings()
settings.epochs = arguments.dropFirst().first.flatMap(Int.init) ?? 3
settings.batchSize = min(32, data.train.count)
settings.optimizer = Optimizer(.adam)
settings.learningRate = 0.002
settings.schedule = .cosine

let trainer = try Trainer(network, data, settings)
trainer.onEpoch { print("epoch \($0.epoch): test class error \($0.testCE * 100) %") }
try trainer.run()

let metrics = try network.metrics(data.test)
print("accuracy \(metrics.accuracy * 100) %, \(network.parameterCount) parameters")
for (digit, result) in metrics.classes.enumerated() {
  print("  \(digit): recall \(result.recall.map { "\($0 * 100) %" } ?? "-") of \(result.images)")
}
