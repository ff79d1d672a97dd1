import Foundation
import Testing

import StrideNet

/// `evaluate --pictures`: what is there is measured, named or counted.
@Suite struct PicturesTests {
  private static let digit = Picture(
    height: 30, width: 20, channels: 1,
    pixels: (0..<600).map { (5..<20).contains($0 / 20) && (8..<11).contains($0 % 20) ? 20 : 230 })
  private static let blank = Picture(
    height: 40, width: 40, channels: 1, pixels: .init(repeating: 240, count: 1600))

  private func write(_ files: [(name: String, bytes: [UInt8])], in place: Workplace) throws {
    for (name, bytes) in files {
      let folder = URL(filePath: "\(place.path)/\(name)").deletingLastPathComponent()
      try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
      try place.write(name, bytes)
    }
  }

  @Test func namesWhatItPassesOver() throws {
    let place = try Workplace()
    try place.writeWeights("w")
    let (digit, blank) = (try PNG.encode(Self.digit), try PNG.encode(Self.blank))
    let good: [(name: String, bytes: [UInt8])] = [
      ("p/0/a.png", digit), ("p/3/b.PNG", digit), ("p/3/without-ending", digit),
      ("p/3/._b.PNG", [0, 5]), ("p/3/.DS_Store", [1]), ("p/0/Thumbs.db", [1]),
      ("p/.git/config", [1]),
    ]
    try write(good, in: place)
    let all = try place.run("evaluate", "w", "--pictures", "p", "--json")
    #expect(all.code == 0 && all.err.isEmpty, "\(all.err)")
    #expect(all.json[0]["test_images"] as? Int == 3 && all.json[0]["hidden"] as? Int == 4)
    #expect((all.json[0]["skipped"] as? [Any])?.isEmpty == true)
    #expect(try place.run("evaluate", "w", "--pictures", "p").out.contains("hidden   4 files"))

    let jpeg: [UInt8] = [0xff, 0xd8, 0xff, 0xe0]
    let bad: [(name: String, bytes: [UInt8])] = [
      ("p/3/blank.png", blank), ("p/3/cut.png", Array(digit.prefix(60))), ("p/3/empty.png", []),
      ("p/0/photo.jpg", jpeg), ("p/0/photo.png", jpeg), ("p/12/a.png", digit),
      ("p/07/a.png", digit),
      ("p/cat/a.png", digit), ("p/readme.txt", [1]), ("p/0/more/a.png", digit),
    ]
    try write(bad, in: place)
    let names = bad.map { file in
      ["p/12", "p/07", "p/cat", "p/0/more"].first { file.name.hasPrefix("\($0)/") } ?? file.name
    }
    let some = try place.run("evaluate", "w", "--pictures", "p", "--json")
    #expect(some.code == 65 && some.json[0]["test_images"] as? Int == 3, "\(some.out) \(some.err)")
    let skipped = try #require(some.json[0]["skipped"] as? [[String: String]])
    #expect(skipped.compactMap { $0["file"] }.sorted() == names.sorted())
    #expect(some.err.contains("10 passed over"), "\(some.err)")
    let text = try place.run("evaluate", "w", "--pictures", "p")
    #expect(text.code == 65 && text.out.contains("p: 3 test images"), "\(text.out)")
    for name in names { #expect(text.out.contains("skipped  \(name): "), "\(text.out)") }

    try write([("q/1/blank.png", blank)], in: place)
    let none = try place.run("evaluate", "w", "--pictures", "q")
    #expect(
      none.code == 66 && none.out.isEmpty && none.err.contains("q/1/blank.png"), "\(none.err)")
  }

  /// More classes than a byte can number.
  @Test func classesFrom256() throws {
    let place = try Workplace()
    try place.writeWeights("w", "flatten softmax(1200)")
    try write(
      [("p/299/a.png", try PNG.encode(Self.digit)), ("p/0/a.png", try PNG.encode(Self.digit))],
      in: place)
    let end = try place.run("evaluate", "w", "--pictures", "p", "--json")
    #expect(end.code == 0 && end.json[0]["test_images"] as? Int == 2, "\(end.err)")
    let table = try place.run("evaluate", "w", "--pictures", "p", "--confusion")
    #expect(table.code == 64 && table.err.contains("1,200"), "\(table.err)")
  }

  /// A large picture takes the memory of its pixels, not several times that: 4,096 × 4,096 of them fit
  /// where they wouldn't as floats.
  @Test func largePicturesTakeLittleMemory() throws {
    let place = try Workplace()
    try place.writeWeights("w")
    let side = 4096
    var pixels = [UInt8](repeating: 250, count: side * side)
    for row in 1000..<3000 {
      for column in 1900..<2100 { pixels[row * side + column] = 10 }
    }
    let large = Picture(height: side, width: side, channels: 1, pixels: pixels)
    try PNG.write(large, to: "\(place.path)/large.png")
    let limited = try place.run(
      ["predict", "w", "large.png", "--threads", "1", "--json"],
      shell: ["/bin/sh", "-c", #"ulimit -v 400000; exec "$0" "$@""#])
    #expect(limited.code == 0 && limited.json.count == 1, "\(limited.code) \(limited.err)")
    // The same as of a picture an eighth as large.
    let small = Picture(
      height: 512, width: 512, channels: 1,
      pixels: (0..<512 * 512).map { pixels[$0 / 512 * 8 * side + $0 % 512 * 8] })
    let shape = Shape(8, 8, 1)
    expectClose(
      try large.fitted(to: shape).values, try small.fitted(to: shape).values, within: 0.05, "large")
  }
}
