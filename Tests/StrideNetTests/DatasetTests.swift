import Foundation
import Testing

import StrideNet
@testable import StrideNetCore
@testable import StrideNetFiles

@Suite struct DatasetTests {
  /// A data set of two training images and one for the test in `folder`, its pixels all `value`.
  static func write(
    to folder: String, value: UInt8 = 1, labels: [UInt8] = [0, 1], testWidth: UInt32 = 2,
    dot: Bool = false, gz: Bool = false
  ) throws {
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    let contents = [
      idx([2, 2, 2], bytes: .init(repeating: value, count: 8)),
      idx([UInt32(labels.count)], bytes: labels),
      idx([1, 2, testWidth], bytes: .init(repeating: value, count: 2 * Int(testWidth))),
      idx([1], bytes: [1]),
    ]
    for (name, bytes) in zip(Dataset.files, contents) {
      let name = (dot ? name.replacingOccurrences(of: "-idx", with: ".idx") : name)
      try Data(gz ? gzip(bytes) : bytes).write(
        to: URL(fileURLWithPath: "\(folder)/\(name)\(gz ? ".gz" : "")"))
    }
  }

  @Test func theSampleIsTheStartOfMNIST() throws {
    let sample = try Dataset.load("sample", environment: [:])
    #expect(sample.name == "sample" && sample.source.contains("sample"))
    #expect(sample.train.count == 10_000 && sample.test.count == 10_000)
    #expect(sample.train.imageText == "28×28×1")
    #expect(sample.train.labels.prefix(10) == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4])
    func digest(_ values: [UInt8]) -> String {
      var digest = SHA256()
      digest.update(values)
      return digest.hex
    }
    #expect(
      digest(idx([10_000], bytes: sample.test.labels.map { UInt8($0) }))
        == Download.published["mnist"]!.files[3].sha256)
    #expect(
      digest(idx([10_000, 28, 28], bytes: sample.test.pixels))
        == Download.published["mnist"]!.files[2].sha256)
    try sample.checkLabels(classes: 10)
  }

  @Test(arguments: [false, true], [false, true])
  func findsAllNames(dot: Bool, gz: Bool) throws {
    let folder = try TemporaryFolder()
    try Self.write(to: folder.path + "/digits", value: 9, dot: dot, gz: gz)
    let data = try Dataset.load(folder.path + "/digits/", environment: [:])
    #expect(data.name == "digits" && data.source == folder.path + "/digits/")
    #expect(data.train.pixels == .init(repeating: 9, count: 8) && data.train.labels == [0, 1])
    #expect(data.test.count == 1)
  }

  /// As some archives unpack: a folder of the file's name, empty, or with the file inside.
  @Test func foldersOfTheFilesNamesHideNothing() throws {
    let folder = try TemporaryFolder()
    let (beside, inside) = (folder.path + "/beside", folder.path + "/inside")
    try Self.write(to: beside, value: 9, dot: true)
    try Self.write(to: inside, value: 8)
    for file in Dataset.files {
      try FileManager.default.createDirectory(
        atPath: "\(beside)/\(file)", withIntermediateDirectories: true)
      try FileManager.default.moveItem(atPath: "\(inside)/\(file)", toPath: "\(inside)/moved")
      try FileManager.default.createDirectory(
        atPath: "\(inside)/\(file)", withIntermediateDirectories: true)
      try FileManager.default.moveItem(
        atPath: "\(inside)/moved", toPath: "\(inside)/\(file)/\(file)")
    }
    #expect(try Dataset.load(beside, environment: [:]).train.pixels[0] == 9)
    #expect(try Dataset.load(inside, environment: [:]).train.pixels[0] == 8)
    try FileManager.default.removeItem(atPath: "\(inside)/\(Dataset.files[2])")
    let error = try #require(throws: StrideNetError.self) {
      try Dataset.load(inside, environment: [:])
    }
    #expect(error.found!.contains(Dataset.files[2]))
  }

  @Test func saysWhatIsBehindAGzipFile() throws {
    let folder = try TemporaryFolder()
    try Self.write(to: folder.path, gz: true)
    let path = "\(folder.path)/\(Dataset.files[1]).gz"
    let packed = [UInt8](try Data(contentsOf: URL(filePath: path)))
    try folder.write("\(Dataset.files[1]).gz", packed + [0, 0])
    #expect(try Dataset.load(folder.path, environment: [:]).source == folder.path)
    try folder.write("\(Dataset.files[1]).gz", packed + [1, 0])
    #expect(
      try Dataset.load(folder.path, environment: [:]).source
        == "\(folder.path); 2 bytes behind the end of \(path) passed over")
  }

  @Test func looksInOneFolderAfterTheOther() throws {
    let folder = try TemporaryFolder()
    let environment = [
      "STRIDENET_DATA": folder.path + "/data", "XDG_CACHE_HOME": folder.path + "/cache",
      "HOME": folder.path + "/home",
    ]
    #expect(try Dataset.load(nil, environment: environment).name == "sample")
    let error = try #require(throws: StrideNetError.self) {
      try Dataset.load("mnist", environment: environment)
    }
    #expect(error.kind == .missingInput && error.hint!.contains("stridenet fetch mnist"))
    for place in ["/data/mnist, ", "/data, ", "/cache/stridenet/mnist"] {
      #expect(error.place!.contains(folder.path + place))
    }
    // From the last place to the first: each time the better one is taken.
    for (value, place) in ["cache/stridenet/mnist", "data", "data/mnist"].enumerated() {
      try Self.write(to: "\(folder.path)/\(place)", value: UInt8(value))
      for name in [nil, "mnist"] {
        let data = try Dataset.load(name, environment: environment)
        #expect(data.name == "mnist" && data.source == "\(folder.path)/\(place)")
        #expect(data.train.pixels[0] == value)
      }
    }
    try Self.write(to: "\(folder.path)/data/fashion-mnist", value: 77)
    #expect(
      try Dataset.load("fashion-mnist", environment: environment).train.pixels[0] == 77)
    #expect(
      Dataset.folders(of: "mnist", ["XDG_CACHE_HOME": "relative", "HOME": "/h"])
        == ["/h/.cache/stridenet/mnist"])
    #expect(Dataset.folders(of: "mnist", ["STRIDENET_DATA": "", "HOME": ""]) == [])
  }

  @Test(arguments: Dataset.files) func namesTheMissingFile(file: String) throws {
    let folder = try TemporaryFolder()
    try Self.write(to: folder.path + "/mnist", gz: true)
    try FileManager.default.removeItem(atPath: "\(folder.path)/mnist/\(file).gz")
    // An incomplete data set isn't silently replaced by the sample.
    for name in [nil, "mnist", folder.path + "/mnist"] {
      let error = try #require(throws: StrideNetError.self) {
        try Dataset.load(name, environment: ["STRIDENET_DATA": folder.path])
      }
      #expect(error.kind == .missingInput && error.found!.contains(file))
    }
  }

  @Test func refusesWhatDoesNotFit() throws {
    let folder = try TemporaryFolder()
    try Self.write(to: folder.path + "/labels", labels: [0, 1, 1])
    try Self.write(to: folder.path + "/size", testWidth: 3)
    try Self.write(to: folder.path + "/swapped")
    let (images, labels) = ("/swapped/" + Dataset.files[0], "/swapped/" + Dataset.files[1])
    rename(folder.path + images, folder.path + "/swapped/x")
    rename(folder.path + labels, folder.path + images)
    rename(folder.path + "/swapped/x", folder.path + labels)
    let file = try folder.write("file", [])
    for (name, kind, message) in [
      (folder.path + "/labels", .badData, "2 images, 3 labels"),
      (folder.path + "/size", .badData, "training 2×2×1, test 2×3×1"),
      (folder.path + "/swapped", .badData, "swapped?"),
      (folder.path + "/none", .missingInput, "no such data set"), ("minst", .missingInput, "minst"),
      (file, .missingInput, "a file isn't a data set"),
      (folder.path, .missingInput, "train-images-idx3-ubyte"),
    ] as [(String, StrideNetError.Kind, String)] {
      let error = try #require(throws: StrideNetError.self) {
        try Dataset.load(name, environment: [:])
      }
      #expect(error.kind == kind && error.description.contains(message), "\(error)")
    }
  }

  static let data = try! Dataset(
    name: "x", source: "here", train: ImageSetTests.set(.init(0..<60)),
    test: ImageSetTests.set(.init(60..<100)))

  @Test(arguments: [0.005, 0.25, 0.8, 0.99]) func splits(share: Double) throws {
    let split = try Self.data.split(share, seed: 3)
    #expect(split.train.count == Int((share * 100).rounded()))
    let labels = split.train.labels + split.test.labels
    #expect(labels.sorted() == .init(0..<100) && labels != .init(0..<100))
    // Pixels go with their labels.
    #expect(split.train.pixels == split.train.labels.flatMap { [UInt8($0), UInt8($0)] })
    #expect(split.test.pixels == split.test.labels.flatMap { [UInt8($0), UInt8($0)] })
    #expect(try Self.data.split(share, seed: 3).train.labels == split.train.labels)
    #expect(try Self.data.split(share, seed: 4).test.labels != split.test.labels)
  }

  @Test(arguments: [0, 1, -0.5, 1.5, 0.004, 0.996, .nan, .infinity])
  func refusesSplits(share: Double) throws {
    let error = try #require(throws: StrideNetError.self) { try Self.data.split(share, seed: 1) }
    #expect(error.kind == .usage)
  }

  @Test func limits() throws {
    let limited = try Self.data.limited(to: 3)
    #expect(limited.train.labels == [0, 1, 2] && limited.test.count == 40)
    for n in [0, -1, 61, .min] {
      #expect(throws: StrideNetError.self) { try Self.data.limited(to: n) }
    }
  }

  @Test func checksLabels() throws {
    try Self.data.checkLabels(classes: 100)
    for (classes, place) in [(60, "here, test label 0"), (7, "here, training label 7")] {
      let error = try #require(throws: StrideNetError.self) {
        try Self.data.checkLabels(classes: classes)
      }
      #expect(error.place == place)
      #expect(error.expected == "0 to \(classes - 1)")
    }
  }
}

@Suite struct RandomTests {
  @Test func isTheGeneratorOfThePaper() {
    // From the authors' C code: SplitMix64 and xoshiro256** chained as in `init`.
    var generator = SeededGenerator(seed: 42)
    #expect((0..<4).map { _ in generator.next() } == Self.expected)
  }

  static let expected: [UInt64] = [
    0xc986_fd80_7e5b_8ab5, 0xe071_ea15_f196_64d1, 0x7286_2413_7f1e_7291, 0x1a32_0ab3_31d4_8e7d,
  ]

  @Test func streamsDiffer() {
    var seen: Set<UInt64> = []
    for seed in 0..<20 as Range<UInt64> {
      for stream in 0..<20 as Range<UInt64> {
        var generator = SeededGenerator(seed: seed, stream: stream)
        seen.insert(generator.next())
      }
    }
    #expect(seen.count == 400)
  }

  @Test func numbersAreSpreadAsTheyShould() {
    var generator = SeededGenerator(seed: 1)
    let n = 100_000
    let uniform = (0..<n).map { _ in generator.uniform() }
    #expect(uniform.allSatisfy { (0..<1).contains($0) })
    #expect(abs(uniform.reduce(0, +) / Float(n) - 0.5) < 0.005)
    let normal = (0..<n).map { _ in Double(generator.normal()) }
    let mean = normal.reduce(0, +) / Double(n)
    let variance = normal.reduce(0) { $0 + $1 * $1 } / Double(n)
    #expect(abs(mean) < 0.015 && abs(variance - 1) < 0.02)
    let within = Double(normal.count { abs($0) < 1 }) / Double(n)
    #expect(abs(within - 0.6827) < 0.006)
    var counts = [Int](repeating: 0, count: 7)
    for _ in 0..<n { counts[generator.below(7)] += 1 }
    #expect(counts.allSatisfy { abs($0 - n / 7) < 600 })
  }

  @Test func everyOrderIsEquallyLikely() {
    var generator = SeededGenerator(seed: 5)
    var counts: [[Int]: Int] = [:]
    for _ in 0..<24_000 { counts[generator.permutation(4), default: 0] += 1 }
    #expect(counts.count == 24)
    #expect(counts.values.allSatisfy { abs($0 - 1000) < 150 })
    #expect(generator.permutation(0) == [] && generator.permutation(1) == [0])
  }
}
