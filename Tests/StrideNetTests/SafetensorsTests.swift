import Foundation
import Synchronization
import Testing

import StrideNet
@testable import StrideNetFiles

@Suite struct SafetensorsTests {
  static func file(_ header: String, data: Int = 0, length: UInt64? = nil) -> [UInt8] {
    let length = length ?? UInt64(header.utf8.count)
    return (0..<8).map { UInt8(truncatingIfNeeded: length >> (8 * $0)) } + Array(header.utf8)
      + [UInt8](repeating: 0, count: data)
  }

  static let tensors = [
    Safetensors.Tensor(
      name: "conv1.weight", shape: [2, 1, 3],
      values: [0, -0.0, 1.5, .leastNonzeroMagnitude, -.greatestFiniteMagnitude, 1 / 3]),
    Safetensors.Tensor(name: "a \"b\" \\ \n ä 字", shape: [], values: [7]),
    Safetensors.Tensor(name: "none", shape: [3, 0], values: []),
  ]

  @Test func readsWhatItWrote() throws {
    let folder = try TemporaryFolder()
    let path = folder.path + "/model.safetensors"
    let metadata = ["architecture": "conv 8 3x3; \"dense\" 10\t\u{1}", "": "empty", "b": ""]
    try Safetensors.write(Self.tensors, metadata: metadata, to: path)
    let contents = try Safetensors.read(at: path)
    #expect(contents.tensors == Self.tensors && contents.metadata == metadata)
    #expect(contents.tensors[0].values[1].sign == .minus)
    let bytes = [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))
    #expect(bytes[0] % 8 == 0 && bytes.count == 8 + Int(bytes[0]) + 256 * Int(bytes[1]) + 28)
    for _ in 0..<3 {
      try Safetensors.write(Self.tensors, metadata: metadata, to: path)
      #expect([UInt8](try Data(contentsOf: URL(fileURLWithPath: path))) == bytes)
    }
    try Safetensors.write([], to: path)
    #expect(try Safetensors.read(at: path).tensors.isEmpty)
  }

  @Test func writesTheBytesOfTheFormat() throws {
    let folder = try TemporaryFolder()
    try Safetensors.write(
      [.init(name: "w", shape: [2], values: [1, -2])], metadata: ["k": "v"],
      to: folder.path + "/m")
    let header =
      #"{"__metadata__":{"k":"v"},"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#
    let padded = header + String(repeating: " ", count: 8 - header.utf8.count % 8)
    #expect(
      [UInt8](try Data(contentsOf: URL(fileURLWithPath: folder.path + "/m")))
        == Self.file(padded) + [0, 0, 0x80, 0x3f, 0, 0, 0, 0xc0])
  }

  @Test func readsOtherTypesInTheOrderOfTheData() throws {
    let folder = try TemporaryFolder()
    let header = """
      {"half": {"dtype": "F16", "shape": [6], "data_offsets": [12, 24]} ,
      "brain":{"data_offsets":[8,12],"dtype":"BF16","shape":[1,2]},
      "\\u0064ouble":{"dtype":"F64","shape":[1],"data_offsets":[0,8]}}
      """
    let numbers: [UInt8] =
      [0, 0, 0, 0, 0, 0, 0x04, 0xc0] + [0x80, 0x3f, 0x20, 0xc1]
      // 1, −2, the largest, the smallest subnormal, the largest subnormal, −0
      + [0, 0x3c, 0, 0xc0, 0xff, 0x7b, 1, 0, 0xff, 3, 0, 0x80]
    let path = try folder.write("m", Self.file(header) + numbers)
    let tensors = try Safetensors.read(at: path).tensors
    #expect(tensors.map(\.name) == ["double", "brain", "half"])
    #expect(tensors[0].values == [-2.5] && tensors[1].values == [1, -10])
    #expect(tensors[2].values == [1, -2, 65504, 0x1p-24, 1023 * 0x1p-24, 0])
    #expect(tensors[2].values[5].sign == .minus)
  }

  static func entry(
    _ begin: Int, _ end: Int, _ shape: String = "2", _ type: String = "F32"
  ) -> String {
    #"{"dtype":"\#(type)","shape":[\#(shape)],"data_offsets":[\#(begin),\#(end)]}"#
  }

  @Test(
    arguments: [
      ("empty", [], "too short"), ("short", [1, 0, 0], "too short"),
      ("no header", file("", length: 2), "length is wrong"),
      ("zero length", file("{}", length: 0), "length is wrong"),
      ("length beyond the file", file("{}", length: 3), "length is wrong"),
      ("huge length", file("{}", length: .max), "length is wrong"),
      ("length with sign", file("{}", length: 1 << 63), "length is wrong"),
      ("not JSON", file("hello"), "byte 8"),
      ("array", file("[]"), "expected: {"), ("open", file("{  "), "a string"),
      ("two values", file("{}{}"), "the end of the header"),
      ("open string", file("{\"a\\\""), "a string"), ("backslash last", file("{\"\\"), "a string"),
      ("bad escape", file("{\"\\x\":1}"), "a string"),
      ("bad UTF-8", file("{\"", length: 4) + [0xff, 0x22], "a string"),
      ("comma", file("{\"a\":\(entry(0, 8)),}", data: 8), "a string"),
      ("no colon", file("{\"a\"}"), "expected: :"),
      ("metadata", file(#"{"__metadata__":{"a":1}}"#), "a string"),
      ("negative", file("{\"a\":\(entry(-8, 0))}"), "a whole number"),
      ("fraction", file(#"{"a":{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}}"#), "byte 38"),
      ("large number", file("{\"a\":\(entry(0, 8, "99999999999999999999"))}"), "64 bits"),
      ("no dtype", file(#"{"a":{"shape":[2],"data_offsets":[0,8]}}"#), "dtype, shape"),
      ("one offset", file(#"{"a":{"dtype":"F32","shape":[],"data_offsets":[0]}}"#), "data_offsets"),
      ("unknown type", file("{\"a\":\(entry(0, 16, "2", "C64"))}", data: 16), "dtype C64"),
      ("unknown key alone", file(#"{"a":{"shape":[],"x":[0]}}"#), "dtype, shape"),
      ("twice in an entry", file(#"{"a":{"shape":[],"shape":[]}}"#), "\"shape\" only once"),
      ("leading zero", file("{\"a\":\(entry(0, 8, "02"))}", data: 8), "a whole number"),
      (
        "twice", file("{\"a\":\(entry(0, 8)),\"\\u0061\":\(entry(8, 16))}", data: 16),
        "a gap"
      ),
      (
        "twice to Swift",
        file("{\"\\u00e9\":\(entry(0, 8)),\"e\\u0301\":\(entry(8, 16))}", data: 16), "only once"
      ),
      (
        "beyond", file("{\"a\":\(entry(0, 8))}", data: 7),
        "tensor a\n  found:    data_offsets [0,8]"
      ),
      ("backwards", file("{\"a\":\(entry(8, 0))}", data: 8), "outside"),
      ("gap", file("{\"a\":\(entry(0, 8)),\"b\":\(entry(12, 20))}", data: 20), "a gap"),
      ("gap before", file("{\"a\":\(entry(4, 12))}", data: 12), "a gap"),
      ("overlap", file("{\"a\":\(entry(0, 8)),\"b\":\(entry(4, 12))}", data: 12), "overlap"),
      ("the same", file("{\"a\":\(entry(0, 8)),\"b\":\(entry(0, 8))}", data: 8), "overlap"),
      ("more behind", file("{\"a\":\(entry(0, 8))}", data: 9), "bytes follow"),
      ("shape", file("{\"a\":\(entry(0, 8, "3"))}", data: 8), "expected: 12 bytes"),
      ("overflow", file("{\"a\":\(entry(0, 0, "4611686018427387904,4"))}"), "too large"),
      ("not a number", file("{\"w\":\(entry(0, 8))}") + [0, 0, 0, 0, 0, 0, 0xc0, 0x7f], "w[1]"),
      ("infinite", file("{\"w\":\(entry(0, 4, "2", "F16"))}") + [0, 0xfc, 0, 0], "-inf"),
      ("not in a Float", file("{\"w\":\(entry(0, 8, "1", "F64"))}", data: 7) + [0x7f], "w[0]"),
    ] as [(String, [UInt8], String)])
  func refuses(what: String, bytes: [UInt8], message: String) throws {
    let folder = try TemporaryFolder()
    let path = try folder.write("m", bytes)
    let error = try #require(throws: StrideNetError.self) { try Safetensors.read(at: path) }
    #expect(error.kind == .badData && error.place!.contains(path))
    #expect(error.description.contains(message), "\(error)")
  }

  /// What the format's own implementation says of several hundred headers; generate_headers.py.
  private struct Headers: Decodable {
    struct Case: Decodable {
      let what, header: String
      let data: Int
      let accepts: Bool
      let tensors: [Entry]?
      let metadata: [String: String]?
    }
    struct Entry: Decodable {
      let name, type: String
      let shape: [UInt]
      init(from decoder: any Decoder) throws {
        var list = try decoder.unkeyedContainer()
        (name, type) = (try list.decode(String.self), try list.decode(String.self))
        shape = try list.decode([UInt].self)
      }
    }
    let cases: [Case]
  }

  /// What is refused though the format's own implementation reads it, by a part of the message, and
  /// how many of the cases that are.
  private static let stricter = [
    // Two names that Swift takes for the same: é in one character and in two.
    ("only once", 1),
    // Numbers that no network here has: of 8 bits, and complex ones.
    ("isn't read", 2),
    // Dimensions from 2^63, of tensors without a value.
    ("fits 64 bits", 4),
  ]

  @Test func agreesWithTheReferenceImplementation() throws {
    let headers = try expectations(Headers.self, "headers.json")
    var refused: [String: Int] = [:]
    let folder = try TemporaryFolder()
    for (number, test) in headers.cases.enumerated() {
      let digits = Array(test.header.utf8)
      let header = stride(from: 0, to: digits.count, by: 2).map {
        UInt8(String(decoding: digits[$0..<$0 + 2], as: UTF8.self), radix: 16)!
      }
      let text = "case \(number), \(test.what): \(String(decoding: header, as: UTF8.self))"
      let path = try folder.write(
        "m",
        Self.file("", length: UInt64(header.count)) + header + .init(repeating: 0, count: test.data)
      )
      do {
        let (tensors, metadata) = try Safetensors.read(at: path) { name in
          test.tensors?.contains { $0.name == name && $0.type == "I64" } ?? false
        }
        let expected = try #require(test.tensors, "\(text) was read").filter { $0.type != "I64" }
        #expect(test.accepts && metadata == test.metadata, "\(text)")
        let found = tensors.sorted {
          $0.name.unicodeScalars.lexicographicallyPrecedes($1.name.unicodeScalars)
        }
        #expect(found.map(\.name) == expected.map(\.name), "\(text)")
        #expect(found.map { $0.shape.map(UInt.init) } == expected.map(\.shape), "\(text)")
      } catch let error as StrideNetError {
        #expect(error.kind == .badData && error.place!.contains(path), "\(text)")
        guard test.accepts else { continue }
        let reason = Self.stricter.first { error.description.contains($0.0) }
        #expect(reason != nil, "\(text)\n\(error)")
        refused[reason?.0 ?? "", default: 0] += 1
      }
    }
    #expect(refused == Dictionary(uniqueKeysWithValues: Self.stricter))
  }

  /// /proc has files of size 0 that can be read all the same.
  @Test func refusesFilesThatSayNoSize() throws {
    let path = "/proc/self/environ"
    let error = try #require(throws: StrideNetError.self) { try Safetensors.read(at: path) }
    #expect(error.kind == .badData && error.found!.contains("a size of 0 bytes"))
    #expect(!(try InputFile(path).readAll(limit: 1 << 24)).isEmpty)
    #expect(throws: StrideNetError.self) { try InputFile(path).readAll(limit: 2) }
  }

  /// A process that writes the file anew all the time, without a rename.
  @Test func aFileThatChangesWhileItIsReadIsAnErrorOrWhole() throws {
    let folder = try TemporaryFolder()
    let path = folder.path + "/m"
    try Safetensors.write(Self.tensors, to: path)
    let whole = [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))
    let stop = Atomic<Bool>(false)
    let changes = Thread {
      let file = open(path, O_WRONLY)
      while !stop.load(ordering: .relaxed) {
        for size in [0, 4, 8, 20, whole.count - 1, whole.count] {
          ftruncate(file, 0)
          pwrite(file, whole, size, 0)
        }
      }
      close(file)
    }
    changes.start()
    defer { stop.store(true, ordering: .relaxed) }
    for _ in 0..<2000 {
      do {
        #expect(try Safetensors.read(at: path).tensors == Self.tensors)
      } catch is StrideNetError {
      }
    }
  }

  @Test func anyDamageIsAnErrorOrAnotherModel() throws {
    let folder = try TemporaryFolder()
    let path = folder.path + "/m"
    try Safetensors.write(Self.tensors, metadata: ["k": "v"], to: path)
    let good = [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))
    for length in 0..<good.count {
      try folder.write("cut", Array(good[..<length]))
      #expect(throws: StrideNetError.self) { try Safetensors.read(at: folder.path + "/cut") }
    }
    var generator = SeededGenerator(seed: 8)
    for _ in 0..<3000 {
      var bytes = good
      for _ in 0...generator.below(3) {
        bytes[generator.below(bytes.count)] = UInt8(generator.below(256))
      }
      // What matters is that it returns.
      _ = try? Safetensors.read(at: folder.write("damaged", bytes))
    }
  }

  @Test func refusesToWriteWhatIsNotFinite() throws {
    let folder = try TemporaryFolder()
    let path = try folder.write("m", [1])
    let error = try #require(throws: StrideNetError.self) {
      try Safetensors.write([.init(name: "w", shape: [2], values: [0, .nan])], to: path)
    }
    #expect(error.place == "\(path), tensor w[1]" && error.found == "nan")
    #expect(try Data(contentsOf: URL(fileURLWithPath: path)) == Data([1]))
  }
}
