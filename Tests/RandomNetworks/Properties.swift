import Foundation
import StrideNet

extension Judge {
  /// A folder for the time of a call.
  private func inFolder(_ body: (String) throws -> Void) throws {
    let folder = FileManager.default.temporaryDirectory.appending(path: "random-\(UUID())").path
    try FileManager.default.createDirectory(
      atPath: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(atPath: folder) }
    try body(folder)
  }

  private func rows(_ tensor: Tensor) -> [[Float]] {
    let (values, count) = (tensor.values, tensor.shape.count)
    return (0..<tensor.batch).map { Array(values[$0 * count..<($0 + 1) * count]) }
  }

  private func picking(_ indices: [Int], from tensor: Tensor) -> Tensor {
    let all = rows(tensor)
    return try! Tensor(batch: indices.count, shape: tensor.shape, indices.flatMap { all[$0] })
  }

  /// Evaluation and prediction: right, the same whatever stands beside an image, and without a trace
  /// in the network.
  func inference(_ network: Network) throws {
    let batch = batch(500, of: subject.evaluated)
    let before = network.snapshot().sha256
    let reference = reference(network.snapshot(), step: 0)
    let result = reference.run(
      field(batch.images), labels: batch.labels.map(Int.init), loss: LossText(subject.loss),
      training: false)
    let expected = (0..<result.output.count).map { result.output[$0] }

    let predicted = try network.predict(batch.images)
    try compare(predicted.values, expected, "prediction", "prediction")
    let (output, cce, ce) = try network.evaluate(batch.images, batch.labels)
    try compareBits(output.values, predicted.values, "evaluation", "outputs of evaluation")
    try compareLoss(cce, ce, result, batch: subject.evaluated, "evaluation")
    try require(
      network.snapshot().sha256 == before, "a trace", "evaluation or prediction changed weights")
    let again = try network.predict(batch.images)
    try compareBits(again.values, predicted.values, "a trace", "the second prediction")

    let all = rows(predicted)
    for n in Set([0, subject.evaluated / 2, subject.evaluated - 1]) {
      let alone = try network.predict(picking([n], from: batch.images))
      try compareBits(alone.values, all[n], "company", "image \(n) alone")
    }
    var random = Random(seed: subject.seed, stream: 9)
    var order = Array(0..<subject.evaluated)
    for last in order.indices.dropFirst().reversed() {
      order.swapAt(last, random.whole(0...last))
    }
    let permuted = rows(try network.predict(picking(order, from: batch.images)))
    for (place, n) in order.enumerated() {
      try compareBits(permuted[place], all[n], "company", "image \(n) in another order")
    }
  }

  /// The same training with other threads, and with layers one by one or together.
  func repetition(_ network: Network, steps: Int) throws {
    let expected = network.snapshot()
    for (threads, fusing) in [
      (subject.threads % 3 + 1, subject.fusing), (subject.threads, !subject.fusing),
    ] {
      let other = try self.network(threads: threads, fusing: fusing)
      for number in 0..<steps {
        try other.train(
          batch(number, of: subject.batches[number]), learningRate: subject.rate,
          optimizer: subject.optimizer)
      }
      let what = "\(threads) threads, \(fusing ? "" : "not ")fused"
      let weights = Self.byName(other.snapshot())
      for array in expected.arrays {
        try compareBits(weights[array.name]!, array.values, "repetition", "\(what), \(array.name)")
      }
      let images = batch(500, of: subject.evaluated).images
      try compareBits(
        try other.predict(images).values, try network.predict(images).values, "repetition",
        "\(what), prediction")
    }
  }

  /// What is saved loads as what it was, and using a network doesn't change what is saved.
  func files(_ network: Network) throws {
    guard !network.snapshot().values.isEmpty else { return }
    let images = batch(501, of: min(3, subject.evaluated)).images
    try inFolder { folder in
      try network.save(to: folder + "/a.safetensors")
      let predicted = try network.predict(images)
      try network.save(to: folder + "/b.safetensors")
      let (a, b) = ("/a.safetensors", "/b.safetensors")
      try require(
        FileManager.default.contents(atPath: folder + a)
          == FileManager.default.contents(atPath: folder + b),
        "files", "a file saved after a prediction differs from one saved before")
      let loaded = try Network.load(from: folder + a, runtime: network.runtime)
      try require(
        loaded.snapshot().sha256 == network.snapshot().sha256, "files", "other weights loaded")
      try compareBits(
        try loaded.predict(images).values, predicted.values, "files", "prediction after loading")
    }
  }

  /// Images with a value that is no number or infinite.
  private func withHole(_ place: Int, _ value: Float) -> Tensor {
    var images = batch(502, of: 2).images
    images[place] = value
    return images
  }

  /// What is no number goes wherever its pixel has a part, and infinity as the formulas say.
  func holes(_ network: Network) throws {
    var random = Random(seed: subject.seed, stream: 10)
    for value in [Float.nan, random.pick([.nan, .infinity, -.infinity])] {
      let place = random.whole(0...subject.input.count - 1)
      let images = withHole(place, value)
      let found = try network.predict(images)
      try compareHoles(found.values, network, images, "place \(place) is \(value)")
    }
  }

  /// What is no number or infinite in the reference must be so, and all else right.
  private func compareHoles(
    _ found: [Float], _ network: Network, _ images: Tensor, _ what: String,
    precision: Precision? = nil
  ) throws {
    let reference = reference(network.snapshot(), step: 0, precision: precision)
    let expected = reference.run(
      field(images), labels: [0, 0], loss: LossText(subject.loss), training: false
    ).output
    for i in 0..<expected.count {
      let (value, error) = (expected.value[i], expected.error[i])
      if reference.parts.contains(where: \.spreadsHoles) {
        // Of an infinity winograd makes a NaN, and both go to a whole tile; with bf16 a NaN goes to
        // outputs of the same line whose windows are before it, too: by way of a 0.
        try require(
          value.isFinite || !found[i].isFinite, "not a number",
          "\(what): output \(i) is \(found[i]), expected \(value)")
        continue
      }
      try require(
        value.isFinite
          ? found[i].isFinite : value.isNaN ? found[i].isNaN : Double(found[i]) == value,
        "not a number", "\(what): output \(i) is \(found[i]), expected \(value)")
      if value.isFinite && error.isFinite {
        try compare([found[i]], [expected[i]], "not a number", what)
      }
    }
  }

  /// The network as a program in C.
  func exportedC(_ network: Network) throws {
    let (inputs, outputs) = (subject.input.count, network.classes)
    let plain = batch(503, of: 2).images
    let images = [plain, withHole(subject.input.count / 2, .nan)]
    try inFolder { folder in
      try network.exportC(to: folder + "/model.c")
      let main = """
        #include <stdio.h>
        void predict(const float image[\(inputs)], float output[\(outputs)]);
        int main(void) {
          static float image[\(inputs)], output[\(outputs)];
          while (fread(image, sizeof(image), 1, stdin) == 1) {
            predict(image, output);
            fwrite(output, sizeof(output), 1, stdout);
          }
          return 0;
        }
        """
      try main.write(toFile: folder + "/main.c", atomically: true, encoding: .utf8)
      let bytes = images.flatMap(\.values).withUnsafeBytes { Data($0) }
      try bytes.write(to: URL(fileURLWithPath: folder + "/in"))
      let process = Process()
      process.executableURL = URL(fileURLWithPath: "/bin/sh")
      process.arguments = [
        "-c",
        "cd '\(folder)' && cc -std=c99 -w -O1 main.c model.c -lm -o model >said 2>&1"
          + " && ./model <in >out",
      ]
      try process.run()
      process.waitUntilExit()
      try require(
        process.terminationStatus == 0, "C",
        "status \(process.terminationStatus): "
          + ((try? String(contentsOfFile: folder + "/said", encoding: .utf8)) ?? ""))
      let said = FileManager.default.contents(atPath: folder + "/out") ?? Data()
      let found = said.withUnsafeBytes { Array($0.bindMemory(to: Float.self)) }
      try require(found.count == 4 * outputs, "C", "\(found.count) numbers, not \(4 * outputs)")
      // The program in C computes with single precision, whatever made its weights.
      let expected = reference(network.snapshot(), step: 0, precision: .float32).run(
        field(plain), labels: [0, 0], loss: LossText(subject.loss), training: false
      ).output
      try compare(
        Array(found[..<(2 * outputs)]), (0..<expected.count).map { expected[$0] }, "C",
        "exported C")
      try compareHoles(
        Array(found[(2 * outputs)...]), network, images[1], "exported C, a hole",
        precision: .float32)
    }
  }

  /// Two epochs in one go, and with a stop in the middle of the second: the same. And the moving
  /// average is what the formula makes of the weights after each step.
  func resumption() throws {
    var random = Random(seed: subject.seed, stream: 11)
    let size = subject.batches[0]
    let count = size + random.whole(0...size)
    func images(_ count: Int) throws -> ImageSet {
      let classes = min(subject.classes, 250)
      return try ImageSet(
        count: count, height: subject.height, width: subject.width, channels: subject.channels,
        pixels: (0..<count * subject.input.count).map { _ in UInt8(random.whole(0...255)) },
        labels: (0..<count).map { _ in UInt8(random.whole(0...classes - 1)) })
    }
    let data = try Dataset(
      name: "random", source: "random", train: images(count), test: images(3))
    var settings = TrainingSettings()
    settings.epochs = 2
    settings.batchSize = size
    settings.learningRate = subject.rate
    settings.optimizer = subject.optimizer
    settings.loss = try Loss(subject.loss)
    settings.averageDecay = subject.averageDecay
    settings.seed = subject.seed
    let configuration = RunConfiguration(layers: subject.layers, training: settings)

    guard let whole = try trained(data, settings) else { return }
    try inFolder { folder in
      let path = folder + "/checkpoint.safetensors"
      let first = try network()
      let half = try Trainer(first, data, settings)
      half.writeCheckpoints(to: path, configuration)
      let batches = (count + size - 1) / size
      let stop = random.whole(1...2 * batches - 1)
      var done = 0
      half.onBatch { _ in done += 1 }
      half.shouldStop = { done >= stop }
      _ = try half.run()
      let second = try network(threads: subject.threads % 3 + 1)
      let rest = try Trainer(second, data, settings)
      try rest.resume(Checkpoint(from: path))
      _ = try rest.run()
      let weights = Self.byName(second.snapshot())
      for array in whole.snapshot().arrays {
        try compareBits(
          weights[array.name]!, array.values, "resumption",
          "stopped after \(stop) of \(2 * batches) steps, \(array.name)")
      }
    }
  }

  /// A network after the training, and its moving average as the formula has it; nil where the
  /// training had no end.
  private func trained(_ data: Dataset, _ settings: TrainingSettings) throws -> Network? {
    let whole = try network()
    let trainer = try Trainer(whole, data, settings)
    var average: [Number]?
    var steps = 0
    trainer.onBatch { _ in
      guard let decay = self.subject.averageDecay else { return }
      let weights = whole.snapshot().values.map { Number(Double($0)) }
      steps += 1
      let keep = min(Double(decay), (1 + Double(steps)) / (10 + Double(steps)))
      let share = Number(1 - keep, error: roundoff)
      // It begins as the weights after the first step.
      average =
        average.map { old in
          zip(old, weights).map { $0 + share * ($1 - $0) }
        } ?? weights
    }
    guard case .finished = try trainer.run() else { return nil }
    if let average { try compare(whole.snapshot().values, average, "average", "moving average") }
    return whole
  }
}
