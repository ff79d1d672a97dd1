import Foundation
import StrideNet

/// What was wrong.
struct Failure: Error {
  /// What kind of fault it is: a shrunk network is one that fails in the same way.
  let kind: String
  let text: String
}

/// Holds a network against the reference and against itself.
final class Judge {
  let subject: Case
  let text: [LayerText]
  /// The largest error beside its expectation, and where; how many numbers were compared, and how
  /// many of those with a bound so wide that it says nothing.
  private(set) var worst = (ratio: 0.0, what: "nothing")
  private(set) var compared = 0
  private(set) var loose = 0

  init(_ subject: Case) {
    self.subject = subject
    text = subject.text
  }

  // MARK: Tools

  func require(_ holds: Bool, _ kind: String, _ text: @autoclosure () -> String) throws {
    if !holds { throw Failure(kind: kind, text: text()) }
  }

  /// The worst of some numbers against its bound.
  func compare(_ found: [Float], _ expected: [Number], _ kind: String, _ what: String) throws {
    try require(
      found.count == expected.count, kind, "\(what): \(found.count) values, not \(expected.count)")
    let scale = expected.reduce(0) { max($0, abs($1.value)) }
    for (i, (found, expected)) in zip(found, expected).enumerated() {
      // Differences of errors without bound are no number: nothing is known then.
      let known = expected.error + roundoff * abs(expected.value) + underflow
      let expectedError = known.isNaN ? .infinity : known
      let error = abs(Double(found) - expected.value)
      compared += 1
      if tolerance * expectedError > 0.01 * scale { loose += 1 }
      if error / expectedError > worst.ratio { worst = (error / expectedError, what) }
      // What is beyond a float's numbers is none of them.
      let isBeyond = abs(expected.value) > Double(Float.greatestFiniteMagnitude)
      let same =
        Double(found) == expected.value || (found.isNaN && expected.value.isNaN)
        || (isBeyond && !found.isFinite)
      try require(
        same || error <= tolerance * expectedError, kind,
        "\(what): element \(i) is \(found), expected \(expected.value) ± "
          + "\(tolerance * expectedError)")
    }
  }

  func compareBits(_ found: [Float], _ expected: [Float], _ kind: String, _ what: String) throws {
    try require(
      found.count == expected.count, kind, "\(what): \(found.count) values, not \(expected.count)")
    for i in found.indices where found[i].bitPattern != expected[i].bitPattern {
      try require(
        found[i].isNaN && expected[i].isNaN, kind,
        "\(what): element \(i) is \(found[i]), not \(expected[i])")
    }
  }

  func network(
    kernels: String? = nil, threads: Int? = nil, fusing: Bool? = nil
  ) throws -> Network {
    let runtime = Runtime(
      threads: threads ?? subject.threads,
      kernels: try KernelChoice(named: kernels ?? subject.kernels),
      precision: subject.precision, fusing: fusing ?? subject.fusing)
    let network = Network(
      try Architecture.layers(subject.layers), seed: subject.seed, runtime: runtime)
    network.loss = try Loss(subject.loss)
    return network
  }

  var shape: Shape { Shape(subject.height, subject.width, subject.channels) }

  func batch(_ number: Int, of count: Int) -> Batch {
    let (images, labels) = subject.batch(number, of: count)
    return Batch(images: try! Tensor(batch: count, shape: shape, images), labels: labels)
  }

  func field(_ tensor: Tensor) -> Field {
    let field = Field(tensor.batch, subject.input)
    for (i, value) in tensor.values.enumerated() { field.value[i] = Double(value) }
    field.repeats = [.bytes, .steps, .zeros].contains(subject.images)
    return field
  }

  func reference(
    _ weights: Snapshot, step: Int, kernels: String? = nil, precision: Precision? = nil
  ) -> Reference {
    Reference(
      text, subject.input, weights: Self.byName(weights), seed: subject.seed, step: step,
      kernels: kernels ?? subject.kernels, rounds: (precision ?? subject.precision) == .bf16)
  }

  static func byName(_ snapshot: Snapshot) -> [String: [Float]] {
    Dictionary(uniqueKeysWithValues: snapshot.arrays.map { ($0.name, $0.values) })
  }

  /// The gradient of the last step by name, of what is trained.
  static func gradients(_ network: Network) -> [String: [Float]] {
    var (result, start) = ([String: [Float]](), 0)
    let all = network.lastGradient
    for (name, shape) in network.snapshot().parameters {
      let count = shape.reduce(1, *)
      if !isStatistic(name) { result[name] = Array(all[start..<start + count]) }
      start += count
    }
    return result
  }

  static func isStatistic(_ name: String) -> Bool {
    name.hasSuffix("running_mean") || name.hasSuffix("running_var")
  }

  // MARK: Training

  /// A reference that has made one training pass, and what it came to.
  struct Pass {
    let reference: Reference
    let result: Reference.Result
  }

  func pass(_ network: Network, _ batch: Batch, step: Int, kernels: String? = nil) -> Pass {
    let reference = reference(network.snapshot(), step: step, kernels: kernels)
    let result = reference.run(
      field(batch.images), labels: batch.labels.map(Int.init), loss: LossText(subject.loss),
      training: true)
    return Pass(reference: reference, result: result)
  }

  func compareLoss(
    _ cce: Float, _ ce: Float, _ result: Reference.Result, batch: Int, _ what: String
  ) throws {
    try compare([cce], [result.loss], "loss", "\(what), loss")
    let wrong = Int((ce * Float(batch)).rounded())
    try require(
      result.wrong.contains(wrong), "class error",
      "\(what): \(wrong) of \(batch) wrong, expected \(result.wrong)")
  }

  /// One step against the reference, from the weights as the network has them before it.
  func step(
    _ network: Network, _ batch: Batch, number: Int, _ descent: inout Descent, _ what: String
  )
    throws
  {
    try network.build(for: shape)
    let before = network.snapshot()
    let pass = pass(network, batch, step: number)
    try step(network, batch, before, pass, &descent, what)
  }

  func step(
    _ network: Network, _ batch: Batch, _ before: Snapshot, _ pass: Pass, _ descent: inout Descent,
    _ what: String
  ) throws {
    let (after, cce, ce) = try network.train(
      batch, learningRate: subject.rate, optimizer: subject.optimizer)
    try compareLoss(cce, ce, pass.result, batch: batch.images.batch, what)
    let gradients = Self.gradients(network)
    let new = Self.byName(after)
    for weights in pass.reference.weights {
      if let next = weights.next {
        try compare(new[weights.name]!, next, "statistics", "\(what), \(weights.name)")
      } else if !Self.isStatistic(weights.name) {
        try compare(
          gradients[weights.name]!, weights.gradient, "gradient",
          "\(what), gradient of \(weights.name)")
      }
    }
    let dimensions = Dictionary(
      uniqueKeysWithValues: before.parameters.map { ($0.name, $0.shape.count) })
    let expected = descent.step(Self.byName(before), gradients, rate: subject.rate) {
      dimensions[$0]! > 1
    }
    for (name, values) in expected {
      try compare(new[name]!, values, "update", "\(what), \(name) after it")
    }
  }

  /// Whether there is nothing to go on with: weights whose products through some layers are too large
  /// for single precision.
  func isLost(_ network: Network) -> Bool {
    network.snapshot().values.contains { !(abs($0) < 1e4) }
  }

  // MARK: All

  func run() throws {
    let network = try network()
    try network.build(for: shape)
    let parameters = network.snapshot().values.count
    var descent = Descent(subject.optimizer)
    var done = 0
    if parameters > 0 {
      try rungs()
      for (number, size) in subject.batches.enumerated() {
        let what = "step \(number + 1), \(size) images"
        try step(network, batch(number, of: size), number: number, &descent, what)
        done += 1
        if isLost(network) { break }
      }
      if isLost(network) { return }
    } else {
      // There is nothing to train; whether that is refused or done, it ends well.
      _ = try? network.train(batch(0, of: subject.batches[0]), learningRate: subject.rate)
    }
    try inference(network)
    if parameters > 0 { try repetition(network, steps: done) }
    try files(network)
    try holes(network)
    if subject.exportsC { try exportedC(network) }
    if subject.resumes && parameters > 0 { try resumption() }
  }

  /// The first step again with each of the other kernels.
  private func rungs() throws {
    if subject.precision == .bf16 { return }
    let batch = batch(0, of: subject.batches[0])
    var shared: (before: Snapshot, pass: Pass)?
    for kernels in KernelChoice.names where kernels != subject.kernels {
      let network = try network(kernels: kernels)
      try network.build(for: shape)
      let before = network.snapshot()
      // All others may be off by the same.
      let isShared = !["winograd", "auto"].contains(kernels)
      let pass =
        (isShared ? shared?.pass : nil) ?? pass(network, batch, step: 0, kernels: kernels)
      if let shared {
        try require(
          shared.before.sha256 == before.sha256, "first weights",
          "\(kernels) begins with other weights")
      }
      if isShared { shared = (before, pass) }
      var descent = Descent(subject.optimizer)
      try step(network, batch, before, pass, &descent, "first step by \(kernels)")
    }
  }
}
