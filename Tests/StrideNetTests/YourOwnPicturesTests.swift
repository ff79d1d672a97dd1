import Foundation
import Testing

import StrideNet

/// The article's commands, run to their end, and `stridenet data`.
@Suite struct YourOwnPicturesTests {
  private static let article = "Sources/StrideNet/StrideNet.docc/YourOwnPictures.md"

  private func workplace() throws -> Workplace {
    let place = try Workplace()
    try PictureFolderTests.write("pics", in: place)
    let photo = try Data(contentsOf: URL(filePath: PictureFiles.path("kinds/rgb.jpg")))
    try place.write("photo.jpg", [UInt8](photo))
    return place
  }

  @Test func commands() throws {
    let place = try workplace()
    var outputs: [String: Workplace.Outcome] = [:]
    var digests: Set<String> = []
    let blocks = try Documents.blocks("sh", in: [Self.article])
    for line in blocks.flatMap({ $0.split(separator: "\n") }) {
      // Smaller, as a debug build is slow.
      let words = line.replacing("size 32", with: "size 12").replacing(
        "epochs 10", with: "epochs 2"
      )
      .split(separator: " ").map(String.init)
      #expect(words[0] == "stridenet")
      let end = try place.run(Array(words.dropFirst()))
      #expect(end.code == 0 && end.err.isEmpty, "\(line): \(end.err)")
      outputs[String(line)] = end
      if words[1] == "cnn", let digest = end.out.firstMatch(of: /SHA-256 (\w{64})/) {
        digests.insert(String(digest.1))
      }
    }
    #expect(outputs.count == 10 && digests.count == 1, "the same weights: \(digests)")
    let photo = try #require(outputs["stridenet predict pics.safetensors photo.jpg"])
    #expect(["cat", "dog", "eel"].contains { photo.out.contains("photo.jpg 0  \($0)  ") })
    let names = try place.names
    for file in ["pics.png", "pics.html", "pics.npz", "idx/classes.txt"] {
      #expect(names.contains(file), "\(file)")
    }
    let idx = try Dataset.load("\(place.path)/idx", environment: [:])
    #expect(idx.classNames == ["cat", "dog", "eel"])
  }

  @Test func fromSwift() throws {
    let place = try workplace()
    let folder = "\(place.path)/pics"
    let page = ArticlePage()
    func print(_ items: Any..., line: Int = #line) { page.print(items, line) }

    let pictures = try Dataset.load(folder, PictureOptions(height: 32, width: 32))
    let names = pictures.classNames  // ["cat", "dog", "eel"]
    let animals = Network {
      Conv2D(16, 3)
      MaxPool2D(2)
      Flatten()
      Dense(names.count, activation: .softmax)
    }
    var settings = TrainingSettings()
    settings.batchSize = min(64, pictures.train.count)
    try Trainer(animals, pictures, settings).run()
    print(animals.classNames == names)  // true

    try page.check("YourOwnPictures")
    #expect(names == ["cat", "dog", "eel"])
  }

  // MARK: What is there

  @Test func says() throws {
    let place = try workplace()
    // One picture in both sets, one of them in another class; and one that can't be read.
    for (set, count) in [("train", 5), ("test", 2)] {
      try PictureFolderTests.write("two/\(set)", count: count, in: place)
    }
    try PictureFolderTests.write("two/test/dog/x.png", PictureFolderTests.png(0, 3), in: place)
    try PictureFolderTests.write("two/train/dog/new\nline.png", [1], in: place)
    let end = try place.run("data", "two", "--sheet", "sheet.png")
    #expect(end.code == 0 && end.err.isEmpty, "\(end.err)")
    for text in [
      "15 training and 7 test images of 6×6×3", "  cat         5     2", "7 that are to be tested",
      "1 of them in another class", "  two/test/dog/x.png is two/train/cat/3.png", "22 of 6×6",
      "passed over 1", "two/train/dog/new\\nline.png: not a picture", "(blue)",
      "softmax(3), ", "sheet.png",
    ] { #expect(end.out.contains(text), "\(text) in \(end.out)") }
    let sheet = try Picture.read(at: "\(place.path)/sheet.png")
    #expect((sheet.height, sheet.width) == (3 * (3 * 8 - 2), 3 * (5 * 8 - 2)))
    let json = try #require(try place.run("data", "two", "--json").json.first)
    #expect((json["duplicates"] as? [Any])?.count == 7 && json["train_images"] as? Int == 15)
    let sample = try place.run("data", "sample")
    #expect(
      sample.out.contains("mean 0.13") && sample.out.contains(" 1,001 "), "\(sample.out)")
  }

  @Test func refuses() throws {
    let place = try workplace()
    for (arguments, code, message) in [
      (["none"], 66, "no such data set"),
      (["pics", "--save", "set.tar"], 64, "no kind of data set"),
      (["pics", "--sheet", "no/sheet.png"], 73, "can't be created"),
      (["pics", "--strict", "--image-size", "x"], 64, "image size"),
    ] as [([String], Int32, String)] {
      let end = try place.run(["data"] + arguments)
      #expect(end.code == code && end.err.contains(message), "\(end.err)")
    }
    // Labels that IDX has no room for, and .npz has.
    try PictureFolderTests.write("many", (0..<300).map { "c\($0)" }, count: 2, in: place)
    let idx = try place.run("data", "many", "--save", "idx")
    #expect(idx.code == 65 && idx.err.contains(".npz"), "\(idx.err)")
    #expect(try place.run("data", "many", "--save", "many.npz").code == 0)
    let again = try Dataset.load("\(place.path)/many.npz", environment: [:])
    let first = try Dataset.load("\(place.path)/many", environment: [:])
    #expect(again.classNames == first.classNames && again.train.labels == first.train.labels)
  }
}
