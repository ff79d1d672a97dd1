import Foundation
import Testing

import StrideNet
@testable import StrideNetFiles

/// Decoded pictures that are kept for the next time.
@Suite struct PictureCacheTests {
  private let place: Workplace
  private var cache: String { "\(place.path)/kept" }

  init() throws {
    place = try Workplace()
    try PictureFolderTests.write("pics", in: place)
    try place.write("pics/dog/none.png", [1, 2, 3])
  }

  private func load(_ change: (inout PictureOptions) -> Void = { _ in }) throws -> Dataset {
    var options = PictureOptions()
    options.cache = cache
    change(&options)
    return try Dataset.load("\(place.path)/pics", options, environment: [:])
  }

  private func kept() -> [String] {
    ((try? FileManager.default.contentsOfDirectory(atPath: cache)) ?? []).sorted()
  }

  private func expectSame(_ a: Dataset, _ b: Dataset) {
    #expect(a.train.pixels == b.train.pixels && a.test.pixels == b.test.pixels)
    #expect(a.train.labels == b.train.labels && a.test.labels == b.test.labels)
    #expect(a.train.shape == b.train.shape && a.classNames == b.classNames)
    #expect(a.skipped == b.skipped && a.sizes == b.sizes && a.pictureFiles == b.pictureFiles)
    #expect(a.source == b.source && a.fit == b.fit)
  }

  /// The second time no picture is opened, and all is the same.
  @Test func theSecondStartReadsNoPicture() throws {
    let plain = try load { $0.cache = nil }
    #expect(kept().isEmpty && plain.skipped.count == 1)
    let first = try load()
    #expect(kept().count == 1 && first.notes.isEmpty)
    expectSame(first, plain)
    let done = Done()
    var options = PictureOptions()
    options.cache = cache
    let second = try Dataset.load("\(place.path)/pics", options, environment: [:]) { _, _ in
      done.count()
    }
    #expect(done.isNone)
    expectSame(second, plain)
    // What is said of files holds then too.
    #expect(throws: StrideNetError.self) { try load { $0.isStrict = true } }
  }

  private final class Done: @unchecked Sendable {
    private let lock = NSLock()
    private var calls = 0
    func count() { lock.withLock { calls += 1 } }
    var isNone: Bool { lock.withLock { calls == 0 } }
  }

  /// Pictures, classes and options that changed are other sets; a folder that was moved is the same.
  @Test func whatChangedIsReadAnew() throws {
    _ = try load()
    for (number, change)
      in ([
        {
          $0.height = 3; $0.width = 4
        }, { $0.colour = .grey }, { $0.fit = .pad },
      ] as [(inout PictureOptions) -> Void]).enumerated()
    {
      expectSame(
        try load(change),
        try load {
          change(&$0); $0.cache = nil
        })
      #expect(kept().count == 2 + number)
    }
    // Other content of the same length and time.
    let path = "\(place.path)/pics/cat/0.png"
    let old = try FileManager.default.attributesOfItem(atPath: path)[.modificationDate]!
    let other = try PictureFolderTests.png(0, 17)
    try place.write("pics/cat/0.png", other)
    try FileManager.default.setAttributes([.modificationDate: old], ofItemAtPath: path)
    expectSame(try load(), try load { $0.cache = nil })
    #expect(kept().count == 5)
    try PictureFolderTests.write("pics/cat/more.png", PictureFolderTests.png(0, 9), in: place)
    #expect(try load().train.count == 13)
    #expect(kept().count == 6)
    try FileManager.default.moveItem(
      atPath: "\(place.path)/pics", toPath: "\(place.path)/moved")
    var options = PictureOptions()
    options.cache = cache
    let moved = try Dataset.load("\(place.path)/moved", options, environment: [:])
    #expect(kept().count == 6 && moved.skipped[0].file.hasPrefix("\(place.path)/moved/dog"))
  }

  @Test func aLinkToNothingIsPassedOverUntilItLeadsSomewhere() throws {
    let before = try load()
    let path = "\(place.path)/pics/cat/link.png"
    try FileManager.default.createSymbolicLink(
      atPath: path, withDestinationPath: "\(place.path)/later.png")
    for _ in 0..<2 {
      let data = try load()
      #expect(data.train.count + data.test.count == before.train.count + before.test.count)
      #expect(data.skipped.contains { $0.file == path && $0.why == "no such file" })
      #expect(kept().count == 2)
    }
    try PictureFolderTests.write("later.png", PictureFolderTests.png(0, 9), in: place)
    let after = try load()
    #expect(after.train.count + after.test.count == before.train.count + before.test.count + 1)
    #expect(kept().count == 3)
  }

  /// A file that isn't whole is said and made anew.
  @Test(arguments: [0, 1, 2, 3, 4]) func brokenFilesAreMadeAnew(how: Int) throws {
    let first = try load()
    let path = try "\(cache)/\(#require(kept().first))"
    var bytes = [UInt8](try Data(contentsOf: URL(filePath: path)))
    switch how {
    case 0: bytes[5] ^= 1
    case 1: bytes.removeLast(9)
    case 2: bytes = []
    case 3: bytes.insert(0, at: 0)
    default: bytes[bytes.count - 100] ^= 0xff
    }
    try Data(bytes).write(to: URL(filePath: path))
    let again = try load()
    expectSame(again, first)
    #expect(again.notes.count == 1 && again.notes[0].contains("aren't whole"), "\(again.notes)")
    #expect(try load().notes.isEmpty)
  }

  /// Where nothing can be kept the set is read all the same.
  @Test func aPlaceThatCannotBeWrittenIsSaid() throws {
    try place.write("file", [1])
    let data = try load { $0.cache = "\(place.path)/file/inside" }
    #expect(data.train.count == 12 && data.notes.count == 1, "\(data.notes)")
    #expect(data.notes[0].contains("cache folder can't be made"), "\(data.notes)")
    // But what is streamed is read from there.
    let end = try place.run(
      ["flat", "--data", "pics", "--epochs", "1", "--stream"],
      environment: ["XDG_CACHE_HOME": "\(place.path)/file"])
    #expect(end.code == 73 && end.err.contains("XDG_CACHE_HOME"), "\(end.err)")
  }

  @Test func onTheCommandLine() throws {
    let training = ["--layers", "flatten softmax(3)", "--data", "pics", "--epochs", "1", "--json"]
    let folder = "\(place.path)/cache/stridenet/pictures"
    func count() -> Int {
      ((try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []).count
    }
    let none = try place.run(training + ["--no-cache"])
    #expect(none.code == 0 && count() == 0)
    _ = try place.run(training, environment: ["STRIDENET_NO_CACHE": "1"])
    #expect(count() == 0)
    let first = try place.run(training)
    #expect(count() == 1)
    let second = try place.run(training)
    #expect(count() == 1 && first.err == second.err && first.err.contains("none.png"))
    #expect(try first.digest == none.digest && second.digest == none.digest)
    let said = try place.run("data", "pics")
    #expect(said.out.contains("1 set of decoded pictures") && said.out.contains(folder))
    let json = try place.run("data", "pics", "--json").json
    #expect((json.first?["cache"] as? [String: Any])?["sets"] as? Int == 1)
    #expect(!(try place.run("data", "digits").out.contains("decoded pictures")))
    let name = try FileManager.default.contentsOfDirectory(atPath: folder)[0]
    try Data([1]).write(to: URL(filePath: "\(folder)/\(name)"))
    let broken = try place.run(training)
    #expect(broken.err.contains("aren't whole"), "\(broken.err)")
    #expect(try broken.digest == none.digest)
  }
}
