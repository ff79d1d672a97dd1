import Foundation
import Testing

import StrideNet
@testable import StrideNetCore
@testable import StrideNetFiles

/// Data sets that are folders of pictures, and what training and asking make of them.
@Suite struct PictureFolderTests {
  /// A picture in a colour of its own.
  static func png(_ label: Int, _ number: Int, side: Int = 6, isGrey: Bool = false) throws
    -> [UInt8]
  {
    let pixels = (0..<side * side).flatMap { i -> [UInt8] in
      let value = UInt8((i * 7 + number * 31) % 60)
      let bright = UInt8(90 + 50 * (label % 3))
      return isGrey ? [value + bright] : [value, UInt8((label * 37) % 200), value + bright]
    }
    return try PNG.encode(
      Picture(height: side, width: side, channels: isGrey ? 1 : 3, pixels: pixels))
  }

  static func write(_ name: String, _ bytes: [UInt8], in place: Workplace) throws {
    let folder = URL(filePath: "\(place.path)/\(name)").deletingLastPathComponent()
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    try place.write(name, bytes)
  }

  /// `count` pictures of each class.
  static func write(
    _ folder: String, _ classes: [String] = ["cat", "dog", "eel"], count: Int = 5,
    isGrey: Bool = false, in place: Workplace
  ) throws {
    for (label, name) in classes.enumerated() {
      for number in 0..<count {
        try write(
          "\(folder)/\(name)/\(number).png", png(label, number, isGrey: isGrey), in: place)
      }
    }
  }

  static func failure(_ place: Workplace, _ name: String, _ options: PictureOptions = .init())
    throws -> StrideNetError
  {
    try #require(throws: StrideNetError.self) {
      try Dataset.load("\(place.path)/\(name)", options, environment: [:])
    }
  }

  @Test func readsClassFolders() throws {
    let place = try Workplace()
    try Self.write("pics", in: place)
    for name in ["cat/._1.png", ".DS_Store", "dog/Thumbs.db"] {
      try place.write("pics/\(name)", [1])
    }
    let data = try Dataset.load("\(place.path)/pics", environment: [:])
    #expect(data.name == "pics" && data.classNames == ["cat", "dog", "eel"])
    #expect(data.train.shape == Shape(6, 6, 3) && data.skipped.isEmpty)
    #expect(data.train.labels == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2])
    #expect(data.test.labels == [0, 1, 2] && data.source.contains("a fifth of each class"))
    #expect(data.sizes == ["6×6": 15])
    let first = try Picture.read(at: "\(place.path)/pics/cat/0.png").pixels
    #expect(Array(data.train.pixels.prefix(first.count)) == first)
    #expect(data.pictureFiles[1].allSatisfy { $0.hasSuffix("/4.png") })
    // In the order of a list.
    try place.write("pics/classes.txt", "eel\ncat\n\ndog\n")
    let listed = try Dataset.load("\(place.path)/pics", environment: [:])
    #expect(listed.classNames == ["eel", "cat", "dog"] && listed.train.labels[0] == 0)
    #expect(listed.train.pixels != data.train.pixels)
    try place.write("pics/classes.txt", "eel\ncat\ncow\n")
    #expect(try Self.failure(place, "pics").found == "cow, dog")
  }

  @Test func readsSplits() throws {
    let place = try Workplace()
    try Self.write("pics/train", isGrey: true, in: place)
    try Self.write("pics/val", count: 2, isGrey: true, in: place)
    // Only a validation set is what is tested.
    let two = try Dataset.load("\(place.path)/pics", environment: [:])
    #expect(two.train.count == 15 && two.test.count == 6 && two.validation == nil)
    #expect(two.train.shape == Shape(6, 6, 1), "all are grey")
    try Self.write("pics/test", ["cat", "eel"], count: 3, isGrey: true, in: place)
    let three = try Dataset.load("\(place.path)/pics", environment: [:])
    #expect(three.test.labels == [0, 0, 0, 2, 2, 2] && three.validation?.count == 6)
    #expect(try three.split(0.5, seed: 1).train.count == 14)
    let run = try place.run(
      "train", "flat", "--data", "pics", "--epochs", "1", "--save", "w", "--json")
    #expect(run.json[0]["validation_images"] as? Int == 6, "\(run.err)")
    #expect(run.json[0]["test_images"] as? Int == 6)
    try Self.write("pics/test", ["cow"], isGrey: true, in: place)
    #expect(try Self.failure(place, "pics").found == "no folder cow")
  }

  @Test func sizesAndColours() throws {
    let place = try Workplace()
    try Self.write("pics", in: place)
    try Self.write("pics/cat/9.png", Self.png(0, 9, side: 12), in: place)
    func shape(_ options: PictureOptions) throws -> Shape {
      try Dataset.load("\(place.path)/pics", options, environment: [:]).train.shape
    }
    #expect(try shape(.init()) == Shape(6, 6, 3), "the commonest")
    #expect(try shape(.init(height: 8, width: 10)) == Shape(8, 10, 3))
    #expect(try shape(.init(colour: .grey)) == Shape(6, 6, 1))
    // Larger ones than are good to begin with.
    for label in ["big", "bigger"] {
      for number in 0..<2 {
        let picture = Picture(
          height: 100, width: 200, channels: 1, pixels: .init(repeating: 9, count: 20_000))
        try Self.write("large/\(label)/\(number).png", try PNG.encode(picture), in: place)
      }
    }
    let large = try Dataset.load("\(place.path)/large", environment: [:])
    #expect(large.train.shape == Shape(32, 64, 1) && large.test.count == 2)
  }

  @Test func namesWhatItPassesOver() throws {
    let place = try Workplace()
    try Self.write("pics", in: place)
    let bad: [(String, [UInt8])] = [
      ("cat/cut.png", Array(try Self.png(0, 0).prefix(50))), ("cat/notes.txt", [1]),
      ("dog/more/1.png", [1]), ("lost.png", try Self.png(0, 0)), ("eel/new\nline.jpg", [1]),
    ]
    for (name, bytes) in bad { try Self.write("pics/\(name)", bytes, in: place) }
    let data = try Dataset.load("\(place.path)/pics", environment: [:])
    #expect(data.train.count + data.test.count == 15)
    let names = ["cat/cut.png", "cat/notes.txt", "dog/more", "lost.png", "eel/new\nline.jpg"]
    #expect(Set(data.skipped.map(\.file)) == Set(names.map { "\(place.path)/pics/\($0)" }))
    let run = try place.run("train", "flat", "--data", "pics", "--epochs", "1")
    #expect(run.code == 0 && run.err.contains("5 files passed over"), "\(run.err)")
    for name in names {
      #expect(run.err.contains("pics/\(name.replacing("\n", with: "\\n")), "), "\(run.err)")
    }
    let strict = try place.run("train", "flat", "--data", "pics", "--epochs", "1", "--strict")
    #expect(strict.code == 65 && strict.err.contains("can't be used"), "\(strict.err)")
  }

  @Test func refusesWhatIsNoSet() throws {
    let place = try Workplace()
    func make(_ name: String) throws {
      try FileManager.default.createDirectory(
        atPath: "\(place.path)/\(name)", withIntermediateDirectories: true)
    }
    try Self.write("empty", in: place)
    try make("empty/fox")
    #expect(try Self.failure(place, "empty").place!.hasSuffix("empty/fox"))
    try Self.write("one", ["cat"], in: place)
    #expect(try Self.failure(place, "one").what == "one class alone")
    try Self.write("single", ["cat", "dog"], count: 1, in: place)
    #expect(try Self.failure(place, "single").what.contains("too few images"))
    try Self.write("broken", in: place)
    try Self.write("broken/fox/1.png", [1, 2], in: place)
    let broken = try Self.failure(place, "broken")
    #expect(broken.place!.hasSuffix("broken/fox") && broken.found!.contains("1.png"))
    try make("nothing")
    #expect(try Self.failure(place, "nothing").found == "nothing")
    try Self.write("huge", in: place)
    try Self.write(
      "huge/cat/huge.png",
      [UInt8](try Data(contentsOf: URL(filePath: PictureFiles.path("broken/huge.png")))), in: place)
    let data = try Dataset.load("\(place.path)/huge", environment: [:])
    #expect(data.skipped.count == 1 && data.skipped[0].why.contains("20000 × 20000"))
  }

  /// More than a byte can number, and called by numbers, which are in their order.
  @Test func manyClasses() throws {
    let place = try Workplace()
    try Self.write("pics", (0..<300).map(String.init), count: 2, isGrey: true, in: place)
    let data = try Dataset.load("\(place.path)/pics", environment: [:])
    #expect(data.classNames == (0..<300).map(String.init) && data.test.count == 300)
    #expect(data.train.labels == (0..<300).map { UInt16($0) })
    let run = try place.run(
      "train", "flat", "--data", "pics", "--epochs", "1", "--save", "w", "--json")
    #expect(run.code == 0 && (run.json[0]["layers"] as? String)?.hasSuffix("softmax(300)") == true)
    let end = try place.run("evaluate", "w", "--data", "pics", "--confusion")
    #expect(end.code == 0 && end.out.contains("commonest mistakes"), "\(end.err)")
    #expect(end.lines.allSatisfy { $0.count <= 160 })
  }

  // MARK: Names

  @Test func trainsAndAnswersByName() throws {
    let place = try Workplace()
    try Self.write("pics", count: 10, in: place)
    let run = try place.run(
      "train", "flat", "--data", "pics", "--epochs", "30", "--save", "w", "--report", "w.html",
      "--write-config", "run.json")
    #expect(run.code == 0 && run.out.contains("softmax(3)"), "\(run.out) \(run.err)")
    let page = String(decoding: try place.read("w.html"), as: UTF8.self)
    #expect(page.contains(#""classes":["cat","dog","eel"]"#))
    #expect(try Network.load(from: "\(place.path)/w").classNames == ["cat", "dog", "eel"])
    let one = try place.run("predict", "w", "pics/dog/3.png", "--json")
    #expect(one.json[0]["name"] as? String == "dog", "\(one.out) \(one.err)")
    let trace = try place.run("trace", "w", "--data", "pics")
    #expect(trace.out.contains(", labelled cat\n"), "\(trace.out) \(trace.err)")
    let all = try place.run("predict", "w", "pics/eel")
    #expect(all.lines.count == 10 && all.out.contains("eel  "), "\(all.out)")
    // What can't be read loses no other's answer.
    try place.write("pics/eel/bad.png", try Array(Self.png(0, 0).prefix(40)))
    let some = try place.run("predict", "w", "pics/eel")
    #expect(some.code == 65 && some.lines.count == 10 && some.err.contains("bad.png"))
    try FileManager.default.removeItem(atPath: "\(place.path)/pics/eel/bad.png")
    try place.write("pics/eel/bad.jpg", Array("abc".utf8))
    try place.write("pics/eel/notes.txt", Array("abc".utf8))
    let named = try place.run("predict", "w", "pics/eel")
    #expect(named.code == 65 && named.lines.count == 10)
    for text in ["not a picture", "bad.jpg", "passed over: pics/eel/notes.txt"] {
      #expect(named.err.contains(text), "\(named.err)")
    }
    for name in ["bad.jpg", "notes.txt"] {
      try FileManager.default.removeItem(atPath: "\(place.path)/pics/eel/\(name)")
    }
    let set = try place.run("predict", "w", "--data", "pics", "--json")
    #expect(set.json.count == 6, "\(set.err)")
    // The table has names, and of folders some may be missing.
    let table = try place.run("evaluate", "w", "--data", "pics", "--confusion")
    #expect(table.out.contains("   cat") && table.out.contains("accuracy 100.00 %"), "\(table.out)")
    try FileManager.default.removeItem(atPath: "\(place.path)/pics/cat")
    let rest = try place.run("evaluate", "w", "--data", "pics")
    #expect(rest.out.contains("accuracy 100.00 %"), "labels by name: \(rest.out)")
    let pictures = try place.run("evaluate", "w", "--pictures", "pics", "--json")
    #expect(pictures.json[0]["test_images"] as? Int == 20, "\(pictures.out)")
    #expect(pictures.json[0]["class_names"] as? [String] == ["cat", "dog", "eel"])
    try Self.write("pics", ["cow"], in: place)
    #expect(try place.run("evaluate", "w", "--data", "pics").err.contains("cow"))
    let report = try place.run("report", "w", "--data", "digits", "--out", "r.html")
    #expect(report.code == 65, "other images: \(report.err)")
    try place.writeWeights("digits.w", "flatten softmax(10)")
    let other = try place.run(
      "evaluate", "digits.w", "--data", "pics", "--image-size", "8", "--colour", "grey")
    #expect(other.code == 65 && other.err.contains("more outputs"), "\(other.err)")
  }

  /// In one line from a folder of 3,000 to a page with names and mistakes, and a name for a photo.
  @Test func threeThousandPictures() throws {
    let place = try Workplace()
    var random = SeededGenerator(seed: 4)
    for (label, name) in ["cat", "dog", "eel"].enumerated() {
      try FileManager.default.createDirectory(
        atPath: "\(place.path)/pics/\(name)", withIntermediateDirectories: true)
      for number in 0..<1000 {
        // A colour of its class with so much noise that some are taken for others.
        let pixels = (0..<6 * 7 * 3).map { i in
          UInt8((i % 3 == label ? 50 : 40) + random.below(180))
        }
        let picture = Picture(height: 6, width: 7, channels: 3, pixels: pixels)
        try place.write("pics/\(name)/\(number).png", PNG.encode(picture))
      }
    }
    let run = try place.run(
      "flat", "--data", "pics", "--epochs", "2", "--save", "w", "--report", "w.html")
    #expect(run.code == 0 && run.err.isEmpty, "\(run.err)")
    #expect(run.out.contains("2,400 training and 600 test images of 6×7×3"), "\(run.out)")
    let page = String(decoding: try place.read("w.html"), as: UTF8.self)
    #expect(page.contains(#""classes":["cat","dog","eel"]"#))
    let wrong = try #require(page.firstMatch(of: /"wrong":\[([0-9,]+)\]/), "mistakes are shown")
    #expect(wrong.1.split(separator: ",").count > 3)
    let photo = try Data(contentsOf: URL(filePath: PictureFiles.path("kinds/rgb.jpg")))
    try place.write("photo.jpg", [UInt8](photo))
    let answer = try place.run("predict", "w", "photo.jpg")
    #expect(
      answer.code == 0 && ["cat", "dog", "eel"].contains { answer.out.contains("  \($0)  ") })
  }

  @Test(arguments: [["--recipe", "colour"], ["resnet"], ["mobilenet"]])
  func networksForColours(_ network: [String]) throws {
    let place = try Workplace()
    try Self.write("pics", in: place)
    let end = try place.run(
      ["train"] + network + ["--data", "pics", "--image-size", "16", "--epochs", "1"]
        + ["--batch-size", "5", "--save", "w"])
    #expect(end.code == 0 && end.err.isEmpty, "\(end.err)")
    #expect(end.out.contains("globalavgpool softmax(3)"), "\(end.out)")
    let layers = try Network.load(from: "\(place.path)/w").layers
    for shape in [Shape(28, 28, 1), Shape(32, 32, 3), Shape(64, 64, 3)] {
      #expect(try Network.size(of: layers, for: shape).parameters < 100_000)
    }
  }

  @Test func wrongNumberOfOutputs() throws {
    let place = try Workplace()
    try Self.write("pics", in: place)
    for (outputs, word) in [(2, "fewer"), (10, "more")] {
      let end = try place.run(
        "train", "--layers", "flatten softmax(\(outputs))", "--data", "pics")
      #expect(end.code == 65 && end.err.contains("\(word) outputs"), "\(end.err)")
      #expect(end.err.contains("softmax(3)"))
    }
  }

  /// A configuration has what decides the images, and another command line repeats them.
  @Test func repeats() throws {
    let place = try Workplace()
    try Self.write("pics", in: place)
    let options = ["--image-size", "5x4", "--fit", "pad", "--colour", "grey"]
    let first = try place.run(
      ["train", "flat", "--data", "pics", "--epochs", "2", "--write-config", "run.json", "--json"]
        + options + ["--checkpoint", "c"])
    let again = try place.run("train", "--config", "run.json", "--json")
    #expect(try first.digest == again.digest)
    #expect(try RunConfiguration.read(from: "\(place.path)/run.json").pictures?.fit == .pad)
    let resumed = try place.run("train", "--resume", "c", "--json")
    #expect(try first.digest == resumed.digest)
    for bad in [["--image-size", "0"], ["--image-size", "2x3x4"], ["--fit", "x"]] {
      #expect(try place.run(["train", "flat", "--data", "pics"] + bad).code == 64)
    }
  }
}
