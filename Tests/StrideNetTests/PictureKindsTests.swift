import Foundation
import Testing

import StrideNet
@testable import StrideNetCore
@testable import StrideNetFiles

/// Files that Pictures/generate.py wrote.
enum PictureFiles {
  static let folder = URL(filePath: #filePath).deletingLastPathComponent()
    .appending(path: "Pictures").path
  static func path(_ name: String) -> String { "\(folder)/\(name)" }
  static func names(_ name: String) -> [String] {
    (try? FileManager.default.contentsOfDirectory(atPath: path(name)).sorted()) ?? []
  }
}

@Suite struct PictureKindsTests {
  /// What is in all files of `kinds`: a quarter red, green, blue and white each.
  private static let colours = [[230, 20, 20], [20, 200, 20], [20, 20, 230], [255, 255, 255]]

  @Test(arguments: PictureFiles.names("kinds")) func reads(name: String) throws {
    let picture = try Picture.read(at: PictureFiles.path("kinds/\(name)"))
    #expect((picture.height, picture.width, picture.channels) == (16, 32, 3))
    // JPEG and lossy WebP keep colours roughly, those of ink more roughly.
    let isExact = !name.contains("jp") && !name.contains("lossy")
    let within = isExact ? 1 : name.contains("cmyk") ? 8 : 6
    for (quarter, colour) in Self.colours.enumerated() {
      let (row, column) = (4 + quarter / 2 * 8, 8 + quarter % 2 * 16)
      let start = (row * 32 + column) * 3
      let found = picture.pixels[start..<start + 3].map(Int.init)
      #expect(
        zip(found, colour).allSatisfy { abs($0 - $1) <= within }, "\(name), \(quarter): \(found)")
    }
  }

  @Test func everyKindIsThere() { #expect(PictureFiles.names("kinds").count == 40) }

  @Test(arguments: [
    ("cut-lossy.webp", "its end"), ("cut-rgb.bmp", "Premature end"), ("cut-rgb.jpg", "missing SOS"),
    ("cut-rgb.png", "end of data"), ("cut-end.jpg", "Premature end"),
    ("cut-rgb.ppm", "Premature end"), ("empty.png", "empty"),
    ("text.jpg", "not a picture"), ("start.jpg", "0 × 0"), ("huge.png", "20000 × 20000"),
    ("huge.bmp", "60000 × 60000"), ("animated.webp", "an animation"),
    ("picture.gif", "not a picture"), ("none.png", "no such file"),
  ])
  func refuses(name: String, message: String) throws {
    let path = PictureFiles.path("broken/\(name)")
    let error = try #require(throws: StrideNetError.self) { try Picture.read(at: path) }
    #expect(error.description.contains(message), "\(error)")
    #expect(error.place == path && error.kind != .internalError)
  }

  @Test func everyBrokenOneIsTried() { #expect(PictureFiles.names("broken").count == 13) }

  // MARK: Fitting

  private static let wide = Picture(
    height: 2, width: 4, channels: 1, pixels: [0, 10, 20, 30, 40, 50, 60, 70])

  @Test func fits() throws {
    func fitted(_ picture: Picture, _ h: Int, _ w: Int, _ fit: Picture.Fit) throws -> [UInt8] {
      try picture.fitted(to: Shape(h, w, 1), fit).pixels
    }
    let wide = Self.wide
    #expect(try fitted(wide, 2, 2, .crop) == [10, 20, 50, 60])
    #expect(try fitted(wide, 2, 2, .stretch) == [5, 25, 45, 65])
    #expect(try fitted(wide, 4, 4, .pad).prefix(8) == [0, 0, 0, 0, 0, 10, 20, 30])
    #expect(try fitted(wide, 1, 2, .pad) == [25, 45])
    let high = Picture(height: 4, width: 1, channels: 1, pixels: [0, 10, 20, 30])
    #expect(try fitted(high, 1, 1, .crop) == [10])
    #expect(try fitted(high, 4, 3, .pad) == [0, 0, 0, 0, 10, 0, 0, 20, 0, 0, 30, 0])
    // Nothing happens to one that fits.
    for fit in [Picture.Fit.crop, .pad, .stretch] {
      #expect(try fitted(wide, 2, 4, fit) == wide.pixels)
    }
  }

  @Test func digits() throws {
    var pixels = [UInt8](repeating: 240, count: 900)
    for i in 300..<600 where i % 30 < 9 { pixels[i] = 20 }
    let picture = Picture(height: 30, width: 30, channels: 1, pixels: pixels)
    let digit = try picture.fitted(to: Shape(28, 28, 1), .digits)
    #expect(digit == Picture(try picture.fitted(to: Shape(28, 28, 1))))
    #expect(digit.pixels[14 * 28 + 14] == 255 && digit.pixels[0] == 0)
  }

  @Test func colours() throws {
    let grey = try Self.wide.fitted(to: Shape(2, 4, 3), .crop)
    #expect(grey.channels == 3 && grey.pixels.prefix(6) == [0, 0, 0, 10, 10, 10])
    // And back: a grey of any brightness stays what it is.
    let all = Picture(
      height: 16, width: 16, channels: 3,
      pixels: (0..<256).flatMap { [UInt8($0), UInt8($0), UInt8($0)] })
    #expect(try all.fitted(to: Shape(16, 16, 1), .crop).pixels == (0..<256).map { UInt8($0) })
    let red = Picture(height: 1, width: 1, channels: 3, pixels: [200, 0, 0])
    #expect(try red.fitted(to: Shape(1, 1, 1), .crop).pixels == [60])
    #expect(throws: StrideNetError.self) { try red.fitted(to: Shape(1, 1, 2), .crop) }
    #expect(throws: StrideNetError.self) { try red.fitted(to: Shape(9, 9, 3), .digits) }
  }

  /// Large pictures are first reduced by whole pixels; the mean stays.
  @Test func large() throws {
    let side = 1100
    let pixels = (0..<side * side).map { UInt8($0 % side * 255 / (side - 1)) }
    let picture = Picture(height: side, width: side, channels: 1, pixels: pixels)
    let small = try picture.fitted(to: Shape(4, 4, 1), .stretch).pixels
    for (found, expected) in zip(small, [32, 96, 159, 223]) {
      #expect(abs(Int(found) - expected) <= 1, "\(small)")
    }
  }
}
