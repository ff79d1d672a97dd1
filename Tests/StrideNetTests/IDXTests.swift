import Foundation
import Testing

import StrideNet

@Suite struct IDXTests {
  @Test(arguments: [
    ([1, 1, 1], 1), ([3, 28, 28], 1), ([2, 5, 7], 1), ([4, 3, 2, 3], 3), ([300, 28, 28], 1),
  ])
  func readsWhatWasEncoded(sizes: [UInt32], channels: Int) throws {
    let folder = try TemporaryFolder()
    let file = idx(sizes)
    let expected = Array(file.dropFirst(4 + 4 * sizes.count))
    // Two gzip files, one after the other, are one gzip file.
    let two = gzip(Array(file[..<9])) + gzip(Array(file[9...]))
    for bytes in [file, gzip(file), two] {
      let path = try folder.write("images", bytes)
      for images in [try IDX.images(at: path), try IDX.images(in: bytes, name: "memory")] {
        #expect(images.count == sizes[0] && images.height == sizes[1] && images.width == sizes[2])
        #expect(images.channels == channels)
        #expect(images.pixels == expected)
      }
    }
    let labels = idx([sizes[0]])
    #expect(try IDX.labels(in: gzip(labels), name: "memory") == Array(labels.dropFirst(8)))
  }

  @Test(arguments: [1, 3]) func writes(channels: Int) throws {
    let folder = try TemporaryFolder()
    let set = try ImageSet(
      count: 2, height: 3, width: 4, channels: channels,
      pixels: (0..<UInt8(24 * channels)).map { $0 }, labels: [7, 255])
    try IDX.writeImages(of: set, to: folder.path + "/images")
    try IDX.writeLabels(set.labels, to: folder.path + "/labels")
    let sizes: [UInt32] = channels == 1 ? [2, 3, 4] : [2, 3, 4, 3]
    #expect(
      [UInt8](try Data(contentsOf: URL(fileURLWithPath: folder.path + "/images")))
        == idx(sizes, bytes: set.pixels))
    #expect(try IDX.labels(at: folder.path + "/labels") == [7, 255])
  }

  static let images = idx([2, 3, 3])
  static let packed = gzip(images)

  @Test(
    arguments: [
      ("empty", [], "the file is empty"),
      ("half a magic number", [0, 0], "ends within the header"),
      ("no sizes", [0, 0, 8, 3, 0, 0], "ends within the header"),
      ("labels for images", idx([5]), "labels"),
      ("floats", idx([2, 3, 3], magic: [0, 0, 0x0d, 3]), "0x00000d03"),
      ("text", Array("<!DOCTYPE html><html>".utf8), "not an IDX file"),
      ("five dimensions", idx([1, 1, 1, 1, 1]), "0x00000805"),
      ("no images", idx([0, 28, 28]), "holds no images"),
      ("no pixels", idx([3, 0, 28]), "no pixels"),
      ("no channels", idx([3, 28, 28, 0]), "no pixels"),
      ("one byte short", images.dropLast(), "33 bytes\n  expected: 34 bytes"),
      ("one byte more", images + [0], "35 bytes\n  expected: 34 bytes"),
      ("overflow", idx([.max, .max, .max, .max], bytes: []), "more than memory can hold"),
      // A product that is 0 when it wraps round at 64 bits.
      ("wrapping", idx([1 << 31, 1 << 31, 4], bytes: []), "more than memory can hold"),
      ("a lie", idx([.max, 1 << 15, 1 << 15], bytes: [1, 2, 3]), "ends too early"),
      ("a packed lie", gzip(idx([.max, 1 << 15, 1 << 15], bytes: [1, 2, 3])), "ends too early"),
      // Swells to 64 MB when the header promises 9 bytes.
      ("a bomb", gzip(idx([1, 3, 3], bytes: .init(repeating: 0, count: 1 << 26))), "more than 25"),
      ("packed, one byte more", gzip(images + [0]), "expected: 34 bytes"),
      ("packed, one byte short", gzip(images.dropLast()), "33 bytes\n  expected: 34 bytes"),
      ("packed, cut off", packed.dropLast(9), "it ends too early"),
      ("packed, checksum cut off", packed.dropLast(1), "it ends too early"),
      ("only the gzip magic", [0x1f, 0x8b], "it ends too early"),
      ("another that is damaged behind", packed + [0x1f, 0x8b, 3], "damaged"),
      ("wrong checksum", packed.dropLast(8) + [1, 2, 3, 4] + packed.suffix(4), "data check"),
      ("wrong length", packed.dropLast(1) + [9], "length check"),
    ] as [(String, [UInt8], String)])
  func refuses(what: String, bytes: [UInt8], message: String) throws {
    let folder = try TemporaryFolder()
    let path = try folder.write("file", bytes)
    for read in [{ try IDX.images(at: path) }, { try IDX.images(in: bytes, name: path) }] {
      let error = try #require(throws: StrideNetError.self) { try read() }
      #expect(error.kind == .badData)
      #expect(error.description.contains(message))
      #expect(error.place?.contains(path) == true)
    }
  }

  /// As gzip(1) has it: zeros fill up a file; of anything else it says that it was ignored.
  @Test(
    arguments: [
      ([0], 0), (.init(repeating: 0, count: 200_000), 0), ([1, 2, 3], 3),
      ([0x1f, 0x8c], 2),
      ([0, 0, 0x1f, 0x8b], 2), (.init(repeating: 0, count: 100_000) + [7, 0], 2),
    ] as [([UInt8], Int)])
  func readsWhatIsBehindAGzipFileAsGzipDoes(rest: [UInt8], ignored: Int) throws {
    let found = try IDX.images(in: Self.packed + rest, name: "memory")
    #expect(found.pixels == Array(Self.images.dropFirst(16)) && found.ignored == ignored)
    let folder = try TemporaryFolder()
    let path = try folder.write("images.gz", Self.packed + rest)
    #expect(try IDX.images(at: path) == found)
    let gzip = try Process.run(
      URL(filePath: "/bin/sh"),
      arguments: ["-c", "gzip -dc '\(path)' > '\(folder.path)/out' 2>/dev/null"])
    gzip.waitUntilExit()
    #expect(gzip.terminationStatus == (ignored == 0 ? 0 : 2))
    #expect([UInt8](try Data(contentsOf: URL(filePath: folder.path + "/out"))) == Self.images)
  }

  /// Where the second file's two bytes of magic lie in two pieces of what is read at once, and many
  /// files without content.
  @Test func severalGzipFilesAreOne() throws {
    let noise = (0..<70_000).map { UInt8(truncatingIfNeeded: $0 &* $0 >> 7 &+ $0) }
    for size in 65_400..<65_480 {
      // Stored, not deflated: one byte more makes the file one byte longer.
      let first = idx([1, 1, 70_000], bytes: Array(noise.prefix(size)))
      let second = Array(noise.dropFirst(size))
      let file = gzip(first, level: 0) + gzip(second, level: 0)
      #expect(try IDX.images(in: file, name: "memory").pixels == noise)
    }
    let empty = [[UInt8]](repeating: gzip([]), count: 20_000).joined()
    #expect(try IDX.images(in: Self.packed + empty, name: "memory").ignored == 0)
  }

  @Test func noFlippedBitOfAPackedFileGivesOtherPixels() throws {
    let expected = Array(Self.images.dropFirst(16))
    for byte in Self.packed.indices {
      for bit in 0..<8 {
        var bytes = Self.packed
        bytes[byte] ^= 1 << bit
        // Some bits mean nothing: the time in the header, the rest of the last byte of codes.
        let read = try? IDX.images(in: bytes, name: "flipped")
        #expect(read.map { $0.pixels == expected } ?? true)
      }
    }
  }

  @Test func refusesWhatIsNoFile() throws {
    let folder = try TemporaryFolder()
    mkfifo(folder.path + "/pipe", 0o600)
    for (path, message) in [
      (folder.path + "/missing", "no such file"), (folder.path, "a folder isn't a file"),
      (folder.path + "/pipe", "not a regular file"), ("/dev/zero", "not a regular file"),
    ] {
      let error = try #require(throws: StrideNetError.self) { try IDX.labels(at: path) }
      #expect(error.kind == .missingInput && error.place == path && error.what == message)
    }
  }

  /// The superuser may read everything: so nothing to see then.
  @Test(.enabled(if: geteuid() != 0)) func refusesWhatMayNotBeRead() throws {
    let folder = try TemporaryFolder()
    let path = try folder.write("labels", idx([3]))
    chmod(path, 0)
    let error = try #require(throws: StrideNetError.self) { try IDX.labels(at: path) }
    #expect(error.kind == .missingInput && error.what.contains("Permission denied"))
  }
}

@Suite struct ImageSetTests {
  static func set(_ labels: [UInt8], width: Int = 2) -> ImageSet {
    try! ImageSet(
      count: labels.count, height: 1, width: width, channels: 1,
      pixels: labels.flatMap { [UInt8](repeating: $0, count: width) }, labels: labels)
  }

  @Test func picksAndJoins() throws {
    let a = Self.set([1, 2, 3])
    let b = Self.set([4, 5])
    #expect(a.prefix(2).pixels == [1, 1, 2, 2] && a.prefix(2).labels == [1, 2])
    #expect(a.prefix(9).count == 3)
    let picked = a.picking([2, 0, 2])
    #expect(picked.pixels == [3, 3, 1, 1, 3, 3] && picked.labels == [3, 1, 3])
    let joined = try ImageSet.joined([a, b])
    #expect(joined.labels == [1, 2, 3, 4, 5] && joined.pixels == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5])
    #expect(throws: StrideNetError.self) { try ImageSet.joined([a, Self.set([1], width: 3)]) }
    #expect(throws: StrideNetError.self) { try ImageSet.joined([]) }
  }

  @Test(arguments: [
    ([0, 2, 2, 1], 0, 0), ([1, 2, 0, 1], 0, 1), ([1, 2, 2, 1], 3, 1), ([1, 2, 2, 1], 4, 2),
    ([-1, -2, 2, 1], 4, 1), ([.max, 2, 1, 1], 4, 1),
  ])
  func refusesWhatDoesNotFit(sizes: [Int], pixels: Int, labels: Int) {
    #expect(throws: StrideNetError.self) {
      try ImageSet(
        count: sizes[0], height: sizes[1], width: sizes[2], channels: sizes[3],
        pixels: .init(repeating: 0, count: pixels), labels: [Int](repeating: 0, count: labels))
    }
  }
}
