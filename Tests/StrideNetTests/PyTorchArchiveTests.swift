import Foundation
import Testing

import StrideNet
@testable import StrideNetFiles

/// What PyTorch itself saved; Weights/generate.py.
@Suite struct PyTorchArchiveTests {
  private static let folder = Documents.root.appending(path: "Tests/StrideNetTests/Weights").path
  private static let text =
    "conv(4,3,padding=1,activation=none) batchnorm(activation=relu) "
    + "residual(conv(6,3,stride=2,padding=1,activation=none) batchnorm(activation=relu) "
    + "conv(6,3,padding=1,activation=none) batchnorm | conv(6,1,stride=2,activation=none) batchnorm) "
    + "activation(relu) flatten tanh(5) dense(3)"
  private static let input = Shape(8, 6, 3)

  private struct Expected: Decodable { let named, types: [Float] }
  private static func expected() throws -> Expected {
    try JSONDecoder().decode(
      Expected.self, from: Data(contentsOf: URL(filePath: folder + "/expected.json")))
  }

  private static func images(_ count: Int, _ shape: Shape) throws -> Tensor {
    try Tensor(
      batch: count, shape: shape,
      (0..<count * shape.count).map { Float($0 * 37 % 256) / 256 })
  }

  @Test(arguments: [
    "named.pt", "named.safetensors", "wrapped.pt", "checkpoint.pt", "four.pt",
  ])
  func findsLayersByShapesAndOrder(_ file: String) throws {
    var matches: [String: String] = [:]
    var lacking: [String] = []
    let network = try Network.importPyTorch(
      from: "\(Self.folder)/\(file)", layers: Architecture.layers(Self.text), input: Self.input
    ) { name, there in
      if let there { matches[name] = there } else { lacking.append(name) }
    }
    expectClose(
      try network.predict(Self.images(3, Self.input)).values, try Self.expected().named,
      within: 1e-5, file)
    let prefix = file == "wrapped.pt" ? "_orig_mod.module." : ""
    #expect(matches["0.weight"] == prefix + "conv1.weight")
    #expect(matches["3.body.3.weight"] == prefix + "layer1.0.conv2.weight")
    #expect(matches["3.shortcut.1.running_var"] == prefix + "layer1.0.downsample.1.running_var")
    #expect(
      lacking.sorted() == [
        "0.bias", "3.body.0.bias", "3.body.3.bias", "3.shortcut.0.bias", "8.bias",
      ])
  }

  @Test func takesEachKindOfNumber() throws {
    let input = Shape(2, 3, 1)
    let network = try Network.importPyTorch(
      from: Self.folder + "/types.pt",
      layers: Architecture.layers("flatten dense(4) dense(4) dense(4) dense(2)"), input: input)
    expectClose(
      try network.predict(Self.images(3, input)).values, try Self.expected().types, within: 1e-5,
      "types")
  }

  @Test(arguments: [
    ("model.pt", "Python's torch.nn.modules.linear.Linear"), ("call.pt", "Python's posix.system"),
    ("old.pt", "before version 1.6"), ("complex.pt", "Python's torch.ComplexFloatStorage"),
    ("tensor.pt", "a tensor"), ("two.pt", "under the text 'generator', the text 'critic'"),
    ("none.pt", "no tensors under the text 'epoch', the text 'names'"),
    ("mixed.pt", "the number 3 under epoch"),
  ])
  func refuses(_ file: String, _ part: String) throws {
    let error = #expect(throws: StrideNetError.self) {
      try Network.importPyTorch(
        from: "\(Self.folder)/bad/\(file)", layers: Architecture.layers("flatten dense(2)"),
        input: Shape(1, 2, 1))
    }
    #expect(error?.kind == .badData && error?.place?.contains(file) == true)
    #expect(error?.description.contains(part) == true, "\(error!)")
    #expect(error?.hint?.contains("save") == true)
  }

  // MARK: Made by hand

  private static let dictionary = Array("ccollections\nOrderedDict\n)R".utf8)

  /// The instructions for a tensor of four floats.
  private static func tensor(
    count: Int = 4, offset: Int = 0, shape: [UInt8] = [2, 2], strides: [UInt8] = [2, 1],
    key: String = "0", kind: String = "FloatStorage"
  ) -> [UInt8] {
    func text(_ text: String) -> [UInt8] {
      [UInt8(ascii: "X"), UInt8(text.utf8.count), 0, 0, 0] + Array(text.utf8)
    }
    func number(_ number: Int) -> [UInt8] {
      [0x8a, 8] + (0..<8).map { UInt8(truncatingIfNeeded: number >> (8 * $0)) }
    }
    func tuple(_ numbers: [UInt8]) -> [UInt8] {
      Array("(".utf8) + numbers.flatMap { [UInt8(ascii: "K"), $0] } + Array("t".utf8)
    }
    return Array("ctorch._utils\n_rebuild_tensor_v2\n((".utf8) + text("storage")
      + Array("ctorch\n\(kind)\n".utf8) + text(key) + text("cpu") + number(count) + Array("tQ".utf8)
      + number(offset) + tuple(shape) + tuple(strides) + [0x89] + dictionary + Array("tR".utf8)
  }

  private static func pickle(_ body: [UInt8]) -> [UInt8] {
    [0x80, 2] + Array("}X".utf8) + [1, 0, 0, 0] + Array("w".utf8) + body + Array("s.".utf8)
  }

  private func read(_ pickle: [UInt8], data: [UInt8] = .init(repeating: 0, count: 16)) throws
    -> [Safetensors.Tensor]
  {
    let folder = try TemporaryFolder()
    let path = folder.path + "/a.pt"
    try ZipArchive.write(
      [("a/data.pkl", { pickle }), ("a/byteorder", { Array("big".utf8) }), ("a/data/0", { data })],
      to: path)
    return try PyTorchArchive.tensors(in: InputFile(path))
  }

  @Test func numbersOfTheOtherOrderOfBytes() throws {
    let tensors = try read(
      Self.pickle(Self.tensor(shape: [4], strides: [1])),
      data: [0x3f, 0x80, 0, 0, 0xc0, 0, 0, 0, 0, 0, 0, 0, 0x41, 0x20, 0, 0])
    #expect(tensors == [.init(name: "w", shape: [4], values: [1, -2, 0, 10])])
  }

  @Test(
    arguments: [
      ("a value behind the storage", pickle(tensor(offset: 1)), "a value at 4"),
      ("an offset below 0", pickle(tensor(offset: -1)), "sizes that aren't ones"),
      ("a step too far", pickle(tensor(strides: [9, 1])), "a value at 10"),
      ("one value for many", pickle(tensor(shape: [255, 255], strides: [0, 0])), "sizes"),
      ("another number of sizes", pickle(tensor(strides: [1])), "sizes that aren't ones"),
      ("a storage smaller than it says", pickle(tensor(count: 5)), "fewer numbers"),
      ("a storage of 2^62", pickle(tensor(count: 1 << 62)), "fewer numbers"),
      ("an offset of 2^63", pickle(tensor(count: .max, offset: .max)), "beyond 64 bits"),
      ("no such storage", pickle(tensor(key: "1")), "no file a/data/1"),
      ("another place", pickle(tensor(key: "../data.pkl")), "no file a/data/../data.pkl"),
      ("an unknown kind", pickle(tensor(kind: "QInt8Storage")), "torch.QInt8Storage"),
      ("a storage as a value", pickle(Array("ctorch\nFloatStorage\n".utf8)), "no tensors under"),
      ("a call of builtins", pickle(Array("cbuiltins\neval\n".utf8)), "Python's builtins.eval"),
      ("a call by text", pickle([0x8c, 2] + Array("os".utf8) + [0x8c, 1, 0x61, 0x93]), "os.a"),
      ("an object", pickle(Array("(ios\nsystem\n".utf8)), "the instruction 0x69"),
      ("an extension", pickle([0x82, 1]), "the instruction 0x82"),
      ("a tensor with attributes", pickle(tensor() + Array("}b".utf8)), "a tensor with attributes"),
      ("nothing", [], "its end"), ("an empty stack", [0x80, 2, 0x2e], "an empty stack"),
      ("another version", [0x80, 9], "version 9"),
      ("a mark as a value", [0x80, 2] + Array("(.".utf8), "a mark"),
      ("two values", [0x80, 2] + Array("NN.".utf8), "more than one value"),
      ("not remembered", pickle(Array("h".utf8) + [7]), "wasn't remembered"),
      ("a long text", pickle(Array("X".utf8) + [255, 255, 255, 255]), "its end"),
      ("a long number", pickle([0x8a, 9] + .init(repeating: 1, count: 9)), "9 bytes"),
    ] as [(String, [UInt8], String)])
  func refusesMadeUp(what: String, pickle: [UInt8], part: String) throws {
    let error = #expect(throws: StrideNetError.self, "\(what)") { try read(pickle) }
    #expect(error?.description.contains(part) == true, "\(what): \(error!)")
  }

  /// Containers in containers, in themselves, and doubled at each step, as far as bytes go.
  @Test func bombsCostNoMoreThanTheirBytes() throws {
    let deep =
      Array(repeating: UInt8(ascii: "("), count: 100_000) + Array("N".utf8)
      + Array(repeating: UInt8(ascii: "t"), count: 100_000)
    let itself = Array("]q".utf8) + [0] + Array("h".utf8) + [0] + Array("a".utf8)
    let doubled =
      Array("N".utf8) + (0..<100_000).flatMap { _ in [UInt8(ascii: "q"), 0, 0x68, 0, 0x86] }
    for body in [deep, itself, doubled] {
      let error = #expect(throws: StrideNetError.self) { try read(Self.pickle(body)) }
      #expect(error?.found?.contains("no tensors under") == true)
    }
    #expect(throws: StrideNetError.self) {
      try Pickle.read(.init(repeating: UInt8(ascii: "N"), count: 1 << 24), path: "a")
    }
  }

  /// Every cut, and bytes changed at random: an error or other tensors.
  @Test func anyDamageIsAnError() throws {
    let good = try InputFile(Self.folder + "/types.pt").readAll(limit: 1 << 20)
    func outcome(_ bytes: [UInt8]) throws {
      try bytes.withUnsafeBytes { raw in
        do { _ = try PyTorchArchive.tensors(in: InputFile(raw, name: "a")) } catch is StrideNetError
        {}
      }
    }
    for count in stride(from: 0, to: good.count, by: 7) {
      #expect(throws: StrideNetError.self) {
        try good[..<count].withUnsafeBytes {
          try PyTorchArchive.tensors(in: InputFile($0, name: "a"))
        }
      }
    }
    let archive = try ZipArchive(InputFile(Self.folder + "/types.pt"))
    let entry = try #require(archive.entries.first { $0.name.hasSuffix("data.pkl") })
    let pickle = try archive.bytes(of: entry)
    var generator = SeededGenerator(seed: 5)
    for _ in 0..<2000 {
      var (whole, part) = (good, pickle)
      for _ in 0...generator.below(3) {
        whole[generator.below(whole.count)] = UInt8(generator.below(256))
        part[generator.below(part.count)] = UInt8(generator.below(256))
      }
      try outcome(whole)
      do { _ = try Pickle.read(part, path: "a") } catch is StrideNetError {}
    }
  }
}
