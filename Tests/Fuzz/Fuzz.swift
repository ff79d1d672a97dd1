import Foundation
import StrideNet
@testable import StrideNetCore
@testable import StrideNetFiles
@testable import StrideNetLaboratory
@testable import Web

// All that reads what comes from outside, for libFuzzer: `make fuzz`. These files are compiled together
// with the library's own, as one module.

/// A reader: it may refuse its input by a `StrideNetError`, and do nothing else that isn't reading.
struct Reader: Sendable {
  let name: String
  /// What good inputs look like.
  let seeds: @Sendable () throws -> [[UInt8]]
  let test: @Sendable (UnsafeRawBufferPointer) throws -> Void
}

private let one = Runtime(threads: 1)

/// Files that the tests have.
private func files(_ folder: String, _ names: String...) throws -> [[UInt8]] {
  let expectations = ProcessInfo.processInfo.environment["FUZZ_EXPECTATIONS"] ?? ""
  return try names.map {
    try InputFile("\(expectations)/../Pictures/\(folder)/\($0)").readAll(limit: 1 << 20)
  }
}

private let targets: [Reader] = [
  .http,
  Reader(name: "idx", seeds: { idxSeeds }) { bytes in
    let file = Array(bytes)
    let images = try? IDX.images(in: file, name: "input")
    if let images {
      precondition(
        images.pixels.count == images.count * images.height * images.width * images.channels)
      let set = try ImageSet(
        count: images.count, height: images.height, width: images.width,
        channels: images.channels,
        pixels: images.pixels, labels: [Int](repeating: 0, count: images.count))
      _ = set.prefix(1).batch([0])
    }
    _ = try IDX.labels(in: file, name: "input")
  },
  Reader(
    name: "gzip",
    seeds: { try idxSeeds.map(packed) + [packed(idxSeeds[0]) + packed(idxSeeds[1]) + [0, 0]] }
  ) { bytes in
    _ = try IDX.images(in: [0x1f, 0x8b] + bytes.dropFirst(2), name: "input")
  },
  Reader(name: "safetensors", seeds: headerSeeds) { bytes in
    let (tensors, metadata) = try Safetensors.read(InputFile(bytes, name: "input"))
    // What was read can be written and read again.
    let again = try Safetensors.header(tensors, metadata, "again") + data(tensors)
    let same = try again.withUnsafeBytes { try Safetensors.read(InputFile($0, name: "again")) }
    precondition(
      same.metadata == metadata && Set(same.tensors.map(\.name)) == Set(tensors.map(\.name)))
  },
  Reader(
    name: "weights",
    seeds: {
      try [
        "flatten softmax(2)",
        "conv(1,2) batchnorm(relu) residual(conv(1,1)) globalavgpool softmax(2)",
      ].map {
        try file(network($0).snapshot().arrays, network($0).metadata)
      }
    }
  ) { bytes in
    let network = try Network.load(
      from: InputFile(bytes, name: "input"), layers: nil, runtime: one)
    guard network.input!.count <= 4096, network.layers.count < 100 else { return }
    _ = try network.predict(Tensor(batch: 1, shape: network.input!))
  },
  Reader(name: "npz", seeds: { try files("arrays", "planes.npz", "named.npz", "stored.npz") }) {
    bytes in
    let file = InputFile(bytes, name: "input")
    for (_, _, array, _) in try NPY.arrays(in: file, "input") {
      let array = try array()
      _ = try? array.labels()
      _ = try array.images(labels: [0], scale: NumberArray.scale(of: [array]), .init())
    }
  },
  Reader(name: "npy", seeds: { [NPY.bytes(.init("x", [1, 2, 3], .bytes([1, 2, 3, 4, 5, 6])))] }) {
    bytes in
    let array = try NPY.array(Array(bytes), "input")
    _ = try? array.labels()
    _ = try array.images(labels: [0], scale: NumberArray.scale(of: [array]), .init())
  },
  Reader(
    name: "csv",
    seeds: {
      ["label,a,b,c,d\n1,2,3,4,5\n", "\"a\";1;2;3;4\r\nb;1;2.5;3;4"].map { Array($0.utf8) }
    }
  ) { bytes in
    let (labels, pixels, _) = try CSVTable(Array(bytes), name: "input").images()
    precondition(labels.count == pixels.shape[0])
  },
  Reader(
    name: "csv-targets",
    seeds: { ["price,a,b,c,d\n1.5,2,3,4,5\n", "1;2;3;4;-1e9"].map { Array($0.utf8) } }
  ) { bytes in
    let table = try CSVTable(Array(bytes), name: "input", texts: .none)
    let places = try table.places(of: ["-1", "1"])
    let (targets, pixels) = (try table.targets(places), try table.pixels(without: places))
    precondition(targets.batch == pixels.shape[0])
  },
  // Those that are read from memory.
  Reader(
    name: "pictures",
    seeds: {
      try files(
        "kinds", "rgb.jpg", "cmyk.jpg", "turned-6.jpg", "lossy.webp", "turned-6.webp",
        "turned-6.png", "progressive.jpeg")
    }
  ) { bytes in
    let file = try PictureFile(Array(bytes), name: "input")
    let size = try file.size()
    guard size.height * size.width < 1 << 16, file.kind != .bmp, file.kind != .ppm else { return }
    let picture = try file.decode()
    precondition((picture.height, picture.width) == size)
  },
  Reader(name: "checkpoint", seeds: { [try checkpointMetadata()] }) { bytes in
    // The configuration and the place, with a zero between them.
    let parts = bytes.split(separator: 0, maxSplits: 1).map {
      String(decoding: $0, as: UTF8.self)
    }
    guard parts.count == 2 else { return }
    let network = try network("flatten softmax(2)")
    var arrays = network.snapshot().arrays
    let count = network.snapshot().values.count
    for name in ["velocity", "square", "average", "last", "best"] {
      arrays.append(
        .init(
          name: "training.\(name)", shape: [count], values: .init(repeating: 0.5, count: count))
      )
    }
    var metadata = network.metadata
    (metadata["stridenet.configuration"], metadata["stridenet.place"]) = (parts[0], parts[1])
    let checkpoint = try file(arrays, metadata).withUnsafeBytes {
      try Checkpoint(from: InputFile($0, name: "input"))
    }
    let trainer = try Trainer(network, digits, checkpoint.configuration.training)
    try trainer.resume(checkpoint)
    try take(3, trainer)
  },
  Reader(
    name: "pytorch",
    seeds: {
      let network = try network(pyTorchLayers)
      let path = NSTemporaryDirectory() + "fuzz-\(getpid()).safetensors"
      defer { unlink(path) }
      try network.exportPyTorch(to: path)
      return [try InputFile(path).readAll(limit: 1 << 20)]
    }
  ) { bytes in
    _ = try Network.importPyTorch(
      from: InputFile(bytes, name: "input"), layers: Architecture.layers(pyTorchLayers),
      input: digits.train.shape, runtime: one)
  },
  Reader(
    name: "pickle",
    seeds: {
      try files("../Weights", "named.pt", "types.pt", "four.pt", "checkpoint.pt", "bad/call.pt").map
      {
        try $0.withUnsafeBytes { file in
          let archive = try ZipArchive(InputFile(file, name: "seed"))
          return try archive.bytes(of: archive.entries.first { $0.name.hasSuffix("data.pkl") }!)
        }
      }
    }
  ) { bytes in
    for (_, tensor) in try PyTorchArchive.stateDictionary(Array(bytes), "input") {
      let size = tensor.storage.count.multipliedReportingOverflow(by: 8)
      guard !size.overflow, size.partialValue < 1 << 16 else { continue }
      let numbers = try PyTorchArchive.numbers(
        of: tensor, in: .init(repeating: 1, count: size.partialValue), isBig: false, "input")
      precondition(numbers.count == tensor.shape.reduce(1, *))
    }
  },
  Reader(name: "torch", seeds: { try files("../Weights", "types.pt", "bad/none.pt") }) { bytes in
    _ = try PyTorchArchive.tensors(in: InputFile(bytes, name: "input"))
  },
  Reader(
    name: "png",
    seeds: {
      try [(1, 5, 7), (3, 9, 8), (1, 30, 20)].map { channels, height, width in
        try PNG.encode(
          Picture(
            height: height, width: width, channels: channels,
            pixels: (0..<height * width * channels).map { UInt8(truncatingIfNeeded: $0 &* 37) }))
      }
    }
  ) { bytes in
    // Large pictures are read, but not by the thousand.
    let size = bytes.dropFirst(16).prefix(8).map { Int($0) }
    guard size.count == 8,
      size[0...2] + size[4...6] == [0, 0, 0, 0, 0, 0] || size[0] + size[4] > 0
    else { return }
    let image = try PNG.decode(Array(bytes), name: "input")
    _ = try image.fitted(to: Shape(8, 8, 3))
    _ = try image.fitted(to: Shape(28, 28, 1))
  },
  Reader(
    name: "configuration",
    seeds: { RunConfiguration.recipes.map { Array($0.configuration.json.utf8) } }
  ) { bytes in
    let configuration = try RunConfiguration.parse(Array(bytes), at: "input")
    let again = try RunConfiguration.parse(Array(configuration.json.utf8), at: "again")
    precondition(again == configuration)
    precondition(again.differences(from: configuration).isEmpty)
  },
  Reader(
    name: "layers",
    seeds: {
      (Architecture.presets.map(\.text) + RunConfiguration.recipes.map(\.configuration.layers)
        + layerTexts)
        .map { Array("28x28x1 \($0)".utf8) }
    }
  ) { bytes in
    // The size of the input, then the layers.
    let parts = String(decoding: bytes, as: UTF8.self).split(separator: " ", maxSplits: 1)
    guard parts.count == 2 else { return }
    let layers = try Architecture.layers(String(parts[1]))
    let text = Architecture.text(layers)
    let again = try Architecture.layers(text)
    precondition(Architecture.text(again) == text, text)
    let sizes = parts[0].split(separator: "x").map { Int($0) ?? 0 }
    guard sizes.count == 3, sizes.allSatisfy({ (1...1 << 20).contains($0) }) else { return }
    _ = try Network.size(of: layers, for: Shape(sizes[0], sizes[1], sizes[2]))
  },
  Reader(
    name: "options",
    seeds: {
      [
        "linear", "warmup:0.5,cosine", "step:10:0.1", "onecycle", "cross_entropy:0.1",
        "mean_squared_error",
        "shift=2,rotate=12,scale=0.12,shear=0.12", "elastic=1,sigma=4,erase=0.2,mirror", "adamw",
        "uniform:0:0.1", "constant:0.5", "10.5.0.0.127",
      ].map { Array($0.utf8) }
    }
  ) { bytes in
    let text = String(decoding: bytes, as: UTF8.self)
    if let schedule = try? Schedule(text) {
      precondition(try! Schedule("\(schedule)") == schedule)
      for (step, total) in [(0, 1), (5, 10), (1 << 52, 1 << 53)] {
        precondition(schedule.share(step: step, of: total, perEpoch: max(1, total / 7)).isFinite)
      }
    }
    if let loss = try? Loss(text) { precondition(try! Loss("\(loss)") == loss) }
    if let initializer = Initializer(text) {
      precondition(Initializer(initializer.text) == initializer)
    }
    _ = try? Optimizer.Method(named: text)
    if let augmentation = try? Augmentation(text) {
      precondition(try! Augmentation("\(augmentation)") == augmentation)
      _ = digits.train.augmented([0], augmentation, seed: 1, epoch: 1)
    }
  },
  Reader(
    name: "settings", seeds: { [.init(repeating: 0, count: 90), (0..<90).map { UInt8($0) }] }
  ) { bytes in
    // Numbers as a program that uses the library may set them.
    var rest = bytes[...]
    func next<T: BitwiseCopyable>(_ type: T.Type) -> T {
      withUnsafeTemporaryAllocation(of: T.self, capacity: 1) { value in
        let raw = UnsafeMutableRawBufferPointer(value)
        for i in raw.indices { raw[i] = rest.popFirst() ?? 0 }
        return value[0]
      }
    }
    func some<T: BitwiseCopyable>(_ usual: [T]) -> T {
      let choice = Int(next(UInt8.self))
      return choice < usual.count ? usual[choice] : next(T.self)
    }
    var s = TrainingSettings()
    s.optimizer = Optimizer(Optimizer.Method.allCases[Int(next(UInt8.self)) % 5])
    s.epochs = some([1, 2, .max, 1_000_000_000])
    s.batchSize = some([1, 2, 3])
    s.learningRate = some([0.1])
    s.optimizer.momentum = some([0, 0.9])
    s.optimizer.beta2 = some([0.999])
    s.optimizer.epsilon = some([1e-8])
    s.optimizer.weightDecay = some([0, 0.1])
    s.optimizer.l1 = some([0, 0.1])
    s.schedule = Schedule(
      [.linear, .constant, .cosine, .oneCycle, .step(epochs: some([1]), factor: some([0.5]))][
        Int(next(UInt8.self)) % 5], warmup: some([0, 1]))
    if next(UInt8.self) % 2 == 1 { s.averageDecay = some([0.9]) }
    if next(UInt8.self) % 2 == 1 { s.patience = some([1]) }
    if next(UInt8.self) % 2 == 1 { s.optimizer.clipNorm = some([1]) }
    if next(UInt8.self) % 2 == 1 {
      var augmentation = Augmentation()
      augmentation.shift = some([0, 1])
      augmentation.sigma = some([4])
      augmentation.elastic = some([0, 1])
      augmentation.rotate = some([0, 10])
      augmentation.scale = some([0, 0.1])
      s.augmentation = augmentation
    }
    s.loss =
      next(UInt8.self) % 2 == 1
      ? .crossEntropy(labelSmoothing: some([0, 0.1])) : .meanSquaredError
    s.seed = next(UInt64.self)
    let trainer = try Trainer(network("flatten softmax(2)"), digits, s)
    let record = try TrainingRecord(trainer, frames: 3)
    trainer.onBatch { try? record.note($0) }
    try take(5, trainer)
  },
]

// MARK: What they share

private let pyTorchLayers = "conv(2,2) batchnorm(relu) flatten softmax(2)"
private let layerTexts = [
  "residual(conv(8,3,padding=1,activation=none) batchnorm | conv(8,1)) activation(relu) globalavgpool softmax(2)",
  "conv(8,3x5,stride=2x1,padding=0x0x1x1,dilation=2,init=zeros) avgpool(2,stride=1) layernorm softmax(3)",
  "maxpool(3,stride=2,padding=1,ceil_mode=true) avgpool(3,2,0x1x2x0,false,false) conv(2,1,padding=2)",
  "conv(4,3,groups=1,padding=same,activation=leaky_relu,slope=0.1) dropout(0.5) dense(3,activation=gelu)",
]

/// Images of 4 × 4 that are no digits.
let digits: Dataset = {
  func set(_ count: Int) -> ImageSet {
    try! ImageSet(
      count: count, height: 4, width: 4, channels: 1,
      pixels: (0..<count * 16).map { UInt8(truncatingIfNeeded: $0 &* 53) },
      labels: (0..<count).map { UInt8($0 % 2) })
  }
  return try! Dataset(name: "noise", source: "noise", train: set(5), test: set(2))
}()

private let idxSeeds: [[UInt8]] = [
  [0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 3, 1, 2, 3, 4, 5, 6],
  [0, 0, 8, 4, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 1, 2, 3, 4, 5, 6],
  [0, 0, 8, 1, 0, 0, 0, 3, 7, 8, 9],
]

/// As a gzip file, by what every system has.
private func packed(_ bytes: [UInt8]) throws -> [UInt8] {
  let path = NSTemporaryDirectory() + "fuzz-\(getpid())"
  try Data(bytes).write(to: URL(filePath: path))
  let gzip = try Process.run(URL(filePath: "/bin/sh"), arguments: ["-c", "gzip -f '\(path)'"])
  gzip.waitUntilExit()
  defer { unlink(path + ".gz") }
  return [UInt8](try Data(contentsOf: URL(filePath: path + ".gz")))
}

/// The headers that the tests know the reference implementation's verdict of.
private func headerSeeds() throws -> [[UInt8]] {
  struct File: Decodable {
    struct Case: Decodable {
      let header: String
      let data: Int
      let accepts: Bool
    }
    let cases: [Case]
  }
  let path = ProcessInfo.processInfo.environment["FUZZ_EXPECTATIONS"]!
  let file = try JSONDecoder().decode(
    File.self, from: Data(contentsOf: URL(filePath: path + "/headers.json")))
  return file.cases.filter { $0.accepts && $0.header.count < 600 }.map { test in
    let digits = Array(test.header.utf8)
    let header = stride(from: 0, to: digits.count, by: 2).map {
      UInt8(String(decoding: digits[$0..<$0 + 2], as: UTF8.self), radix: 16)!
    }
    return withUnsafeBytes(of: UInt64(header.count).littleEndian) { Array($0) } + header
      + [UInt8](repeating: 0, count: test.data)
  }
}

func network(_ text: String) throws -> Network {
  let network = Network(try Architecture.layers(text), runtime: one)
  try network.build(for: digits.train.shape)
  return network
}

private func data(_ tensors: [Safetensors.Tensor]) -> [UInt8] {
  tensors.flatMap { $0.values.withUnsafeBytes { Array($0) } }
}

private func file(_ tensors: [Safetensors.Tensor], _ metadata: [String: String]) throws -> [UInt8] {
  try Safetensors.header(tensors, metadata, "seed") + data(tensors)
}

/// Some steps of a training that may be asked for a billion epochs.
private func take(_ steps: Int, _ trainer: Trainer) throws {
  var count = 0
  trainer.shouldStop = {
    count += 1
    return count > steps
  }
  _ = try trainer.run()
}

private func checkpointMetadata() throws -> [UInt8] {
  let path = NSTemporaryDirectory() + "fuzz-\(getpid()).safetensors"
  defer { unlink(path) }
  var settings = TrainingSettings()
  (settings.epochs, settings.batchSize, settings.averageDecay) = (4, 2, 0.9)
  settings.optimizer = Optimizer(.adam)
  settings.keepsBest = true
  let network = try network("flatten softmax(2)")
  let trainer = try Trainer(network, digits, settings)
  trainer.writeCheckpoints(
    to: path, RunConfiguration(layers: "flatten softmax(2)", training: settings))
  try take(7, trainer)
  let metadata = try Safetensors.read(at: path).metadata
  return Array("\(metadata["stridenet.configuration"]!)\0\(metadata["stridenet.place"]!)".utf8)
}

// MARK: libFuzzer

private let target: Reader = {
  let name = ProcessInfo.processInfo.environment["FUZZ"] ?? ""
  guard let target = targets.first(where: { $0.name == name }) else {
    print(targets.map(\.name).joined(separator: "\n"))
    exit(name.isEmpty ? 0 : 64)
  }
  return target
}()

/// With FUZZ_SEEDS writes the seeds into that folder before the run begins.
@_cdecl("LLVMFuzzerInitialize")
public func initialize(
  _ count: UnsafeMutablePointer<CInt>, _ arguments: UnsafeMutableRawPointer
) -> CInt {
  _ = target
  guard let folder = ProcessInfo.processInfo.environment["FUZZ_SEEDS"] else { return 0 }
  do {
    for (number, seed) in try target.seeds().enumerated() {
      try Data(seed).write(to: URL(filePath: "\(folder)/seed-\(number)"))
    }
  } catch {
    fatalError("\(error)")
  }
  return 0
}

@_cdecl("LLVMFuzzerTestOneInput")
public func testOneInput(_ start: UnsafePointer<UInt8>, _ count: Int) -> CInt {
  do {
    try target.test(UnsafeRawBufferPointer(start: start, count: count))
  } catch let error as StrideNetError {
    precondition(!error.description.isEmpty)
  } catch {
    fatalError("an error that isn't a StrideNetError: \(error)")
  }
  return 0
}
