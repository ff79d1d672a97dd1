import Foundation
import Testing

import StrideNet

@Suite struct OptimizerTests {
  struct Expected: Decodable {
    struct Run: Decodable {
      let method: Optimizer.Method
      let rate, momentum, decay: Float
      let l1, clip, beta2, epsilon: Float?
      let float32, float64: Steps
    }
    struct Steps: Decodable {
      struct Final: Decodable {
        let sum_of_squares: Double
        let values: [Double]
      }
      let losses: [Double]
      let final: [Final]
    }
    let runs: [Run]
    let schedules: [String: [Double]]
  }

  static func flat(_ runtime: Runtime = Runtime(threads: 2)) throws -> Network {
    let network = Network(
      try Architecture.layers("flatten relu(100) softmax(10)"), runtime: runtime)
    try network.build(for: Shape(28, 28, 1))
    let shapes = Dictionary(
      uniqueKeysWithValues: network.snapshot().parameters.map { ($0.name, $0.shape) })
    var number = -1
    try network.setWeights { name in
      number += 1
      let shape = shapes[name]!
      return (0..<shape.reduce(1, *)).map {
        shape.count == 1
          ? 0 : Float(Double(value($0, 10 + number)) * (2 / Double(shape[1]).squareRoot()))
      }
    }
    return network
  }

  /// Twenty steps of each as PyTorch does them: losses, every parameter's sum of squares, and some
  /// of its values. PyTorch's own in single precision must pass too.
  @Test(arguments: 0..<9) func pyTorch(number: Int) throws {
    let runs = try expectations(Expected.self, "optimizers.json").runs
    #expect(runs.count == 9)
    #expect(Set(runs.map(\.method)) == Set(Optimizer.Method.allCases))
    let run = runs[number]
    var optimizer = Optimizer(run.method, momentum: run.momentum, weightDecay: run.decay)
    optimizer.l1 = run.l1 ?? 0
    optimizer.clipNorm = run.clip
    if let beta2 = run.beta2 { optimizer.beta2 = beta2 }
    if let epsilon = run.epsilon { optimizer.epsilon = epsilon }
    let network = try Self.flat()
    for (step, batch) in try NetworkTests.batches(20, of: 32).enumerated() {
      let found = try network.train(batch, learningRate: run.rate, optimizer: optimizer).cce
      let loss = run.float64.losses[step]
      for value in [Double(found), run.float32.losses[step]] {
        #expect(abs(value - loss) <= 2e-4 * loss, "\(run.method): \(value), PyTorch \(loss)")
      }
    }
    for (number, array) in network.snapshot().arrays.enumerated() {
      let (final, single) = (run.float64.final[number], run.float32.final[number])
      let sum = array.values.reduce(0) { $0 + Double($1) * Double($1) }
      #expect(
        abs(sum - final.sum_of_squares) <= 5e-4 * final.sum_of_squares,
        "\(run.method), \(array.name): \(sum), PyTorch \(final.sum_of_squares)")
      for (i, value) in final.values.enumerated() {
        let found = Double(array.values[(397 + 7919 * i) % array.values.count])
        for found in [found, single.values[i]] {
          #expect(
            abs(found - value) <= 2e-4 * max(abs(value), 0.05),
            "\(run.method), \(array.name), value \(i): \(found), PyTorch \(value)")
        }
      }
    }
  }

  /// Waiting for all gradients before the updates comes to the same bits, inside layers too.
  @Test(arguments: Optimizer.Method.allCases) func aNormThatIsNeverReached(method: Optimizer.Method)
    throws
  {
    let digests = try [nil, 1e30].map { (limit: Float?) in
      var optimizer = Optimizer(method, weightDecay: 0.01)
      optimizer.clipNorm = limit
      let network = Network(seed: 2, runtime: Runtime(threads: 2)) {
        Conv2D(4, 3, padding: 1, activation: .none)
        BatchNorm()
        Residual([Conv2D(4, 3, padding: 1)])
        Flatten()
        Dense(12)
        Dropout(0.2)
        Dense(10, activation: .softmax)
      }
      for batch in try NetworkTests.batches(4, of: 24) {
        try network.train(batch, learningRate: 0.01, optimizer: optimizer)
      }
      return network.snapshot().sha256
    }
    #expect(digests[0] == digests[1])
  }

  /// What one kind of optimiser remembers means something else to another.
  @Test func anotherKindBeginsAnew() throws {
    let batches = try NetworkTests.batches(6, of: 16)
    let (changed, fresh) = (try Self.flat(), try Self.flat())
    for batch in batches.prefix(3) {
      try changed.train(batch, learningRate: 0.002, optimizer: Optimizer(.adam))
    }
    try fresh.build(for: Shape(28, 28, 1))
    try fresh.restore(changed.snapshot())
    for batch in batches.suffix(3) {
      try changed.train(batch, learningRate: 0.05, optimizer: Optimizer(.nesterov))
      try fresh.train(batch, learningRate: 0.05, optimizer: Optimizer(.nesterov))
    }
    #expect(changed.snapshot().sha256 == fresh.snapshot().sha256)
  }

  @Test(arguments: Optimizer.Method.allCases, [nil, 0.7])
  func anyNumberOfThreads(method: Optimizer.Method, clipNorm: Float?) throws {
    var optimizer = Optimizer(method)
    optimizer.clipNorm = clipNorm
    let batches = try NetworkTests.batches(4, of: 37)
    let digests = try [1, 2, 3, 8].map { threads in
      let network = try NetworkTests.small(seed: 3, threads: threads)
      for batch in batches {
        try network.train(batch, learningRate: 0.01, optimizer: optimizer)
      }
      return network.snapshot().sha256
    }
    #expect(Set(digests).count == 1)
  }

  @Test func decayIsForWeightsAlone() throws {
    for method in [Optimizer.Method.sgd, .adamw] {
      let network = try NetworkTests.small()
      let batch = try NetworkTests.batches(1, of: 8)[0]
      var free = Optimizer(method, momentum: 0, weightDecay: 0)
      try network.train(batch, learningRate: 1e-3, optimizer: free)
      let start = network.snapshot()
      let plain = try network.train(batch, learningRate: 1e-3, optimizer: free).layers
      let other = try NetworkTests.small()
      try other.train(batch, learningRate: 1e-3, optimizer: free)
      (free.weightDecay, free.l1) = (0.1, 0.05)
      let decayed = try other.train(batch, learningRate: 1e-3, optimizer: free).layers
      for ((a, b), before) in zip(zip(plain.arrays, decayed.arrays), start.arrays) {
        if a.shape.count == 1 {
          #expect(a.values == b.values, "\(a.name)")
        } else {
          #expect(a.values != b.values && a.values != before.values, "\(a.name)")
        }
      }
    }
  }

  @Test func valuesOutOfRange() {
    let changes: [(String, (inout Optimizer) -> Void)] = [
      ("momentum", { $0.momentum = 1 }), ("momentum", { $0.momentum = .nan }),
      ("beta2", { $0.beta2 = -0.1 }), ("epsilon", { $0.epsilon = 0 }),
      ("weight decay", { $0.weightDecay = -1 }), ("L1", { $0.l1 = .infinity }),
      ("clip norm", { $0.clipNorm = 0 }),
    ]
    for (name, change) in changes {
      var optimizer = Optimizer()
      change(&optimizer)
      let error = #expect(throws: StrideNetError.self) { try optimizer.check() }
      #expect(error?.what == "\(name) out of range")
    }
  }

  // MARK: Schedules

  @Test func schedulesPyTorch() throws {
    let expected = try expectations(Expected.self, "optimizers.json").schedules
    #expect(expected.count == 3)
    for (name, shares) in expected {
      let schedule = try Schedule(name == "step" ? "step:2:0.5" : name)
      for (step, share) in shares.enumerated() {
        let found = schedule.share(step: step, of: 20, perEpoch: 5)
        #expect(abs(found - share) < 1e-8, "\(name), step \(step): \(found), PyTorch \(share)")
      }
    }
  }

  @Test func warmUpThenTheSchedule() throws {
    let warm = try Schedule("warmup:0.8,linear")
    let shares = (0..<20).map { warm.share(step: $0, of: 20, perEpoch: 5) }
    #expect(Array(shares.prefix(4)) == [0.25, 0.5, 0.75, 1])
    for step in 4..<20 { #expect(abs(shares[step] - (1 - Double(step - 4) / 16)) < 1e-12) }
    #expect(try Schedule("warmup:2").share(step: 15, of: 20, perEpoch: 5) == 1)
    // A run that is all warm-up.
    #expect(try Schedule("warmup:9,cosine").share(step: 19, of: 20, perEpoch: 5) == 1)
  }

  @Test(arguments: [
    "constant", "linear", "cosine", "onecycle", "step:3:0.1", "warmup:0.5,cosine",
    "warmup:1.0,constant",
  ])
  func textAndBack(text: String) throws {
    #expect(try Schedule(text).description == text)
    #expect(
      try JSONDecoder().decode([Schedule].self, from: JSONEncoder().encode([Schedule(text)])) == [
        Schedule(text)
      ])
  }

  @Test(arguments: [
    "", "lin", "step", "step:0:0.1", "step:2:0", "step:2:2", "warmup:-1,linear", "warmup:x",
    "cosine:3",
    "warmup:1,warmup:1,linear",
  ])
  func wrongSchedules(text: String) { #expect(throws: StrideNetError.self) { try Schedule(text) } }

  @Test func schedulesOutOfRangeAreRefusedHoweverTheyAreMade() throws {
    for schedule in [
      Schedule(.linear, warmup: .nan), Schedule(.linear, warmup: 1e300),
      Schedule(.linear, warmup: -1),
      Schedule(.step(epochs: 0, factor: 0.5)), Schedule(.step(epochs: 1, factor: .infinity)),
    ] {
      var settings = TrainingSettings()
      settings.schedule = schedule
      #expect(throws: StrideNetError.self) { try settings.check(images: 100) }
    }
    var settings = TrainingSettings()
    settings.augmentation = Augmentation()
    settings.augmentation?.sigma = .infinity
    #expect(throws: StrideNetError.self) { try settings.check(images: 100) }
  }
}
