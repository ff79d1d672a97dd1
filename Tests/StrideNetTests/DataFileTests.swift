import Foundation
import Testing

import StrideNet
@testable import StrideNetCore
@testable import StrideNetFiles

/// Data sets in files of many kinds, which Pictures/generate.py wrote.
@Suite struct DataFileTests {
  private static func load(_ name: String, _ options: PictureOptions = .init()) throws -> Dataset {
    try Dataset.load(PictureFiles.path(name), options, environment: [:])
  }

  private static func failure(_ name: String) throws -> StrideNetError {
    try #require(throws: StrideNetError.self) { try load(name) }
  }

  private static let names = ["cat", "dog", "eel"]
  private static let reference = Result { try load("same/folders") }

  // MARK: The same in all kinds

  @Test(arguments: [
    ("folders", true), ("set.npz", false), ("npy", false), ("csv", false),
    ("cifar-10-batches-bin", true), ("cifar-100-binary", true), ("idx", false),
    ("set.safetensors", false),
  ])
  func isTheSame(name: String, hasNames: Bool) throws {
    let (data, reference) = (try Self.load("same/\(name)"), try Self.reference.get())
    #expect(data.classNames == (hasNames ? Self.names : ["0", "1", "2"]))
    for (set, other) in [(data.train, reference.train), (data.test, reference.test)] {
      #expect(set.shape == Shape(32, 32, 3) && set.count == other.count)
      #expect(set.labels == other.labels && set.pixels == other.pixels)
    }
    #expect(data.skipped.isEmpty && data.validation == nil)
  }

  @Test func trainsToTheSame() throws {
    let place = try Workplace()
    let digests = try ["folders", "set.npz", "csv", "cifar-10-batches-bin", "idx"].map { name in
      try place.run(
        "train", "flat", "--data", PictureFiles.path("same/\(name)"), "--epochs", "2", "--json"
      ).digest
    }
    #expect(Set(digests).count == 1, "\(digests)")
  }

  // MARK: Arrays

  private static let plain = Result { try load("arrays/plain.npz") }

  @Test(arguments: [
    "float64", "float32", "float16", "big-endian", "planes", "one-hot", "stored", "named",
  ])
  func readsArrays(name: String) throws {
    let (data, plain) = (try Self.load("arrays/\(name).npz"), try Self.plain.get())
    #expect(data.train.shape == Shape(8, 8, 3) && data.train.pixels == plain.train.pixels)
    #expect(data.train.labels == plain.train.labels && data.test.labels == plain.test.labels)
    #expect(data.test.pixels == plain.test.pixels)
    #expect(data.classNames == (name == "named" ? Self.names : ["0", "1", "2"]))
    #expect((data.validation?.pixels == plain.test.pixels) == (name == "named"))
  }

  @Test func greyArrays() throws {
    let (grey, plain) = (try Self.load("arrays/grey.npz"), try Self.plain.get())
    #expect(grey.train.shape == Shape(8, 8, 1) && grey.train.count == plain.train.count)
    #expect(
      grey.train.pixels
        == stride(from: 0, to: plain.train.pixels.count, by: 3).map { plain.train.pixels[$0] })
    #expect(try Self.load("arrays/rows.npz").train.pixels == grey.train.pixels)
    let other = try Self.load("arrays/rows.npz", .init(height: 4, width: 16))
    #expect(other.train.shape == Shape(4, 16, 1) && other.train.pixels == grey.train.pixels)
    // Without a test set a fifth of each class is one.
    let whole = try Self.load("arrays/whole.npz")
    #expect(whole.train.count == 9 && whole.test.labels == [0, 1, 2])
    #expect(whole.source.contains("a fifth of each class"))
  }

  @Test(arguments: [
    ("objects", "Python objects"), ("negative", "-1.0 to 0.97"), ("nan", "finite"),
    ("numbers", "12 images, 5 labels"), ("half-label", "0.5"), ("columns", "fortran_order"),
    ("no-labels", "images without labels"), ("complex", "c16"), ("dimensions", "found:    3"),
    ("cut", "zip archive"), ("changed", "zip archive"),
  ])
  func refusesArrays(name: String, message: String) throws {
    let error = try Self.failure("arrays/bad/\(name).npz")
    #expect(error.kind == .badData && error.description.contains(message), "\(error)")
    #expect(error.place!.contains("\(name).npz"))
  }

  @Test func everyBadArrayIsTried() { #expect(PictureFiles.names("arrays/bad").count == 11) }

  @Test func whatIsWritten() throws {
    let folder = try TemporaryFolder()
    for array in [
      NumberArray("a", [2, 3], .bytes([1, 2, 3, 4, 5, 6])), NumberArray("a", [1], .floats([0.5])),
      NumberArray("a", [2], .texts(["ä", "cat"])),
    ] {
      let again = try NPY.array(NPY.bytes(array), "again")
      #expect(again.shape == array.shape && "\(again.values)" == "\(array.values)")
    }
    let empty = NumberArray("empty", [2, 3, 0, 5], .bytes([]))
    #expect(throws: StrideNetError.self) { try empty.images(labels: [0, 1], scale: 1, .init()) }
    try folder.write("x.npy", Array("\u{93}NUMPY".utf8))
    #expect(throws: StrideNetError.self) { try Dataset.load(folder.path + "/x.npy") }
  }

  // MARK: Digits and letters

  @Test func digitsUnderTheirNames() throws {
    let plain = try Self.load("qmnist")
    #expect(plain.train.shape == Shape(8, 6, 1) && plain.test.labels == [0, 0, 1, 1, 2, 2])
    for name in ["kmnist", "floats", "emnist/emnist-digits", "emnist/emnist-letters"] {
      let data = try Self.load(name)
      #expect(data.train.shape == plain.train.shape, "\(name)")
      #expect(data.train.pixels == plain.train.pixels && data.test.pixels == plain.test.pixels)
      #expect(data.train.labels == plain.train.labels && data.test.labels == plain.test.labels)
      #expect(data.classNames == (name.contains("letters") ? ["A", "B", "C"] : ["0", "1", "2"]))
    }
    let several = try Self.failure("emnist")
    #expect(several.found == "emnist-digits, emnist-letters")
    #expect(several.hint!.hasSuffix("emnist/emnist-digits"))
    let missing = try Self.failure("emnist/emnist-balanced")
    #expect(missing.kind == .missingInput)
  }

  /// EMNIST's letters without the file that says what they are.
  @Test func lettersWithoutAMapping() throws {
    let folder = try TemporaryFolder()
    for name in PictureFiles.names("emnist") where name.contains("letters") && !name.contains("map")
    {
      try FileManager.default.copyItem(
        atPath: PictureFiles.path("emnist/\(name)"), toPath: "\(folder.path)/\(name)")
    }
    let data = try Dataset.load(folder.path, environment: [:])
    #expect(data.classNames.count == 26 && data.classNames[25] == "Z")
    #expect(data.train.labels[0] == 0)
  }

  /// As archives unpack, and with other names for the test set.
  @Test func otherNamesOfIDX() throws {
    let folder = try TemporaryFolder()
    for (name, to) in zip(
      Dataset.files,
      ["train-images.idx3-ubyte", "", "test-images-idx3-ubyte", "test-labels.idx1-ubyte"])
    {
      let source = "\(PictureFiles.path("floats"))/\(name)".replacing(
        "images-idx3-ubyte", with: "images-idx3-float")
      let target = to.isEmpty ? "\(name)/\(name)" : to
      try FileManager.default.createDirectory(
        atPath: "\(folder.path)/\(name)", withIntermediateDirectories: true)
      try FileManager.default.copyItem(atPath: source, toPath: "\(folder.path)/\(target)")
    }
    let data = try Dataset.load(folder.path, environment: [:])
    #expect(data.train.pixels == (try Self.load("floats").train.pixels))
  }

  // MARK: CIFAR

  @Test func refusesCutBatches() throws {
    let folder = try TemporaryFolder()
    try folder.write("data_batch_1.bin", [UInt8](repeating: 1, count: 3073))
    try folder.write("test_batch.bin", [UInt8](repeating: 1, count: 3072))
    func failure() throws -> StrideNetError {
      try #require(throws: StrideNetError.self) { try Dataset.load(folder.path, environment: [:]) }
    }
    #expect(try failure().expected!.hasPrefix("a multiple of 3073"))
    try folder.write("test_batch.bin", [UInt8](repeating: 12, count: 3073))
    #expect(try failure().found == "label 12")
  }

  // MARK: Tables

  private func table(_ text: String, _ options: PictureOptions = .init()) throws -> Dataset {
    let folder = try TemporaryFolder()
    return try Dataset.load(try folder.write("t.csv", Array(text.utf8)), options, environment: [:])
  }

  @Test func readsTables() throws {
    let first = try table("1,0,50,100,255\n0,0,1,2,0\n1,0,4,5,0\n0,0,7,8,0\n")
    #expect(first.train.shape == Shape(2, 2, 1) && first.source.contains("labels first"))
    #expect(first.train.count + first.test.count == 4 && first.classNames == ["0", "1"])
    // The label last: pixels at the other end are all the same.
    let last = try table("0,50,100,255,1\n0,1,2,0,0\n0,4,5,0,1\n0,7,8,0,0\n")
    #expect(last.train.pixels == first.train.pixels && last.train.labels == first.train.labels)
    #expect(last.source.contains("labels last"))
    // A header, names, quotes, semicolons, a mark at the beginning, lines of another system.
    let named = try table(
      "\u{feff}p0;p1;p2;p3;class\r\n0;50;100;255;\"dog\"\r\n0;1;2;0;cat\r\n\r\n0;4;5;0;dog\r\n0;7;8;0;cat"
    )
    #expect(named.classNames == ["cat", "dog"] && named.train.pixels == first.train.pixels)
    #expect(named.train.labels == first.train.labels)
    let shares = try table("1,0,0.2,0.4,1\n0,0,0,1,0\n1,0,0,1,0\n0,0,1,0,0\n")
    #expect(shares.train.pixels.contains(51))
    let sized = try table(
      "1,1,2,3,4,5,6\n0,1,2,3,4,5,6\n1,1,2,3,4,5,6\n0,1,2,3,4,5,6\n", .init(height: 2, width: 3))
    #expect(sized.train.shape == Shape(2, 3, 1))
  }

  @Test(arguments: [
    ("1,0,5,,2\n0,1,2,3,4\n", "t.csv, line 1", "missing cell"),
    ("1,0,5,1,2\n0,1,2,3\n", "t.csv, line 2", "another number of cells"),
    ("l,a,b,c,d\n1,0,5,1,2\n0,1,x,3,3\n", "t.csv, line 3", "'x' in column 3"),
    ("cat,0,5,1,2\ndog,1,2,3,x\n", "t.csv, line 2", "'x' in column 5"),
    ("1,0,5,900,2\n0,1,2,3,4\n", "t.csv", "0.0 to 900.0"),
    ("1,-1,5,9,2\n0,1,2,3,4\n", "t.csv", "-1.0 to 9.0"),
    ("1,0,5\n0,1,2\n", "t.csv", "2 numbers an image"), ("", "t.csv", "without images"),
    ("a,b,c\n", "t.csv", "without images"), ("1,2\n", "t.csv, line 1", "2 cells"),
    ("0.5,1,2,3,4\n1,1,2,3,9\n", "t.csv", "labels that aren't ones"),
  ])
  func refusesTables(text: String, place: String, message: String) throws {
    let error = try #require(throws: StrideNetError.self) { try table(text) }
    #expect(error.place!.hasSuffix(place), "\(error)")
    #expect(error.description.contains(message), "\(error)")
  }

  /// As competitions have them: the test set's labels are kept.
  @Test func aTestTableWithoutLabels() throws {
    let folder = try TemporaryFolder()
    try folder.write("train.csv", Array("label,p,p,p,p\n1,0,5,1,2\n0,1,2,3,3\n1,1,1,1,1\n".utf8))
    try folder.write("test.csv", Array("p,p,p,p\n0,5,1,2\n".utf8))
    let data = try Dataset.load(folder.path, environment: [:])
    #expect(data.skipped.map(\.why) == ["a table without labels"] && data.train.count == 2)
  }

  @Test func evaluatesWhatItTrainedOn() throws {
    let place = try Workplace()
    let set = PictureFiles.path("same/set.npz")
    let run = try place.run(
      "train", "flat", "--data", set, "--epochs", "20", "--save", "w", "--quiet")
    #expect(run.code == 0, "\(run.err)")
    for name in ["csv", "folders", "set.safetensors"] {
      let end = try place.run("evaluate", "w", "--data", PictureFiles.path("same/\(name)"))
      #expect(end.code == 0 && end.out.contains("6 test images"), "\(end.err)")
    }
    let predicted = try place.run("predict", "w", "--data", set, "--json")
    #expect(predicted.json.count == 6, "\(predicted.err)")
    let report = try place.run("report", "w", "--data", set, "--out", "r.html")
    #expect(report.code == 0, "\(report.err)")
  }
}
