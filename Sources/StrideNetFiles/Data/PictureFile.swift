import CPNG
import CTurboJPEG
import CWebP
import Foundation
import StrideNetCore
import Synchronization

extension Picture {
  /// Reads a PNG, JPEG, WebP, BMP or PPM file, told apart by content, as red, green and blue over
  /// white paper (black where what is on it is white), the way up that it is to be shown.
  /// - Throws: ``StrideNetError`` that says what is wrong with the file
  public static func read(at path: String) throws -> Picture {
    let file = try PictureFile(path)
    // Large ones take turns: each is some hundred megabytes.
    let size = try file.size()
    if size.height * size.width <= 1 << 24 { return try file.decode() }
    return try PictureFile.turn.withLock { _ in try file.decode() }
  }

  /// Whether a file begins as one of these does.
  package static func isFile(_ path: String) -> Bool {
    guard let file = try? InputFile(path) else { return false }
    var start = [UInt8](repeating: 0, count: 16)
    let count = (try? start.withUnsafeMutableBytes { try file.read(into: $0, from: 0) }) ?? 0
    return PictureFile.kind(Array(start.prefix(count))) != nil
  }
}

/// A file with a picture, its bytes in memory.
struct PictureFile {
  enum Kind: String {
    case png = "PNG"
    case jpeg = "JPEG"
    case webp = "WebP"
    case bmp = "BMP"
    case ppm = "PPM"
  }

  static let kinds = "PNG, JPEG, WebP, BMP or PPM"
  fileprivate static let turn = Mutex<Void>(())

  let path: String
  let bytes: [UInt8]
  let kind: Kind

  init(_ path: String) throws {
    try self.init(InputFile(path).readAll(limit: 64 << 20), name: path)
  }

  init(_ bytes: [UInt8], name path: String) throws {
    (self.path, self.bytes) = (path, bytes)
    guard let kind = Self.kind(bytes) else {
      throw StrideNetError(
        .badData, bytes.isEmpty ? "the file is empty" : "not a picture", at: path,
        expected: Self.kinds)
    }
    self.kind = kind
  }

  fileprivate static func kind(_ bytes: [UInt8]) -> Kind? {
    func begins(_ text: String, at place: Int = 0) -> Bool {
      bytes.dropFirst(place).starts(with: text.utf8)
    }
    if bytes.starts(with: [0x89, 0x50, 0x4E, 0x47, 0x0D, 0x0A, 0x1A, 0x0A]) { return .png }
    if bytes.starts(with: [0xff, 0xd8, 0xff]) { return .jpeg }
    if begins("RIFF") && begins("WEBP", at: 8) { return .webp }
    if begins("BM") && bytes.count > 6 && bytes[6...].prefix(4).allSatisfy({ $0 == 0 }) {
      return .bmp
    }
    let isSpaced = bytes.count > 2 && [9, 10, 13, 32, 35].contains(bytes[2])
    return isSpaced && ["P2", "P3", "P5", "P6"].contains(where: { begins($0) }) ? .ppm : nil
  }

  // MARK: Sizes

  /// Of the picture as it is to be shown.
  func size() throws -> (height: Int, width: Int) {
    let (h, w) =
      switch kind {
      case .png: try pngSize()
      case .jpeg: try withJPEG { (Int($0.height), Int($0.width)) }
      case .webp: try webPSize()
      case .bmp: try bmpSize()
      case .ppm: try ppmSize()
      }
    let largest = PNG.largest
    guard h > 0 && w > 0 else { throw wrong("a size of \(w) × \(h) pixels") }
    guard h <= largest && w <= largest else {
      throw StrideNetError(
        .badData, "a \(kind.rawValue) file that is too large", at: path,
        found: "\(w) × \(h) pixels", expected: "at most \(largest) × \(largest)",
        hint: "make it smaller")
    }
    return orientation > 4 ? (w, h) : (h, w)
  }

  private func number(_ place: Int, _ count: Int, big: Bool = false) throws -> Int {
    guard place + count <= bytes.count else { throw wrong("its end within the header") }
    let part = bytes[place..<place + count]
    return (big ? Array(part) : part.reversed()).reduce(0) { $0 << 8 | Int($1) }
  }

  private func pngSize() throws -> (Int, Int) {
    (try number(20, 4, big: true), try number(16, 4, big: true))
  }

  private func bmpSize() throws -> (Int, Int) {
    // The height of one that begins at its top is negative.
    (abs(Int(Int32(truncatingIfNeeded: try number(22, 4)))), try number(18, 4))
  }

  private func ppmSize() throws -> (Int, Int) {
    let head = String(decoding: bytes.prefix(4096), as: UTF8.self).dropFirst(2)
    let words = head.replacing(/#[^\n]*/, with: "").split(whereSeparator: \.isWhitespace)
    guard words.count >= 2, let w = Int(words[0]), let h = Int(words[1]) else {
      throw wrong("no size in its header")
    }
    return (h, w)
  }

  private func webPSize() throws -> (Int, Int) {
    var features = WebPBitstreamFeatures()
    guard WebPGetFeatures(bytes, bytes.count, &features) == VP8_STATUS_OK else {
      throw wrong("a header that isn't one")
    }
    if features.has_animation != 0 { throw wrong("an animation") }
    return (Int(features.height), Int(features.width))
  }

  /// 1…8, as EXIF has it; 1 where nothing is said.
  private var orientation: Int { EXIF.orientation(of: self) }

  private func wrong(_ found: String) -> StrideNetError {
    StrideNetError(
      .badData, "a \(kind.rawValue) file that can't be read", at: path, found: found,
      hint: "write the file anew")
  }

  // MARK: Pixels

  func decode() throws -> Picture {
    let picture =
      switch kind {
      case .png: try PNG.decode(bytes, name: path)
      case .jpeg: try jpeg()
      case .webp: try webP()
      case .bmp, .ppm: try bitmap()
      }
    return picture.turned(orientation)
  }

  /// Calls this with what the header says, and the decoder.
  private func withJPEG<T>(
    _ body: ((decoder: tjhandle, width: Int32, height: Int32, colours: Int32)) throws -> T
  ) throws -> T {
    guard let decoder = tjInitDecompress() else {
      throw StrideNetError(.internalError, "libjpeg-turbo doesn't start", at: path)
    }
    defer { tjDestroy(decoder) }
    var (width, height, sampling, colours): (Int32, Int32, Int32, Int32) = (0, 0, 0, 0)
    guard
      tjDecompressHeader3(
        decoder, bytes, UInt(bytes.count), &width, &height, &sampling, &colours) == 0
    else { throw wrong(message(decoder)) }
    return try body((decoder, width, height, colours))
  }

  private func message(_ decoder: tjhandle?) -> String {
    String(cString: tjGetErrorStr2(decoder))
  }

  private func jpeg() throws -> Picture {
    try withJPEG { decoder, width, height, colours in
      let isInk = colours == Int32(TJCS_CMYK.rawValue) || colours == Int32(TJCS_YCCK.rawValue)
      let format = isInk ? TJPF_CMYK : TJPF_RGB
      let channels = isInk ? 4 : 3
      var pixels = [UInt8](repeating: 0, count: Int(height) * Int(width) * channels)
      let done = tjDecompress2(
        decoder, bytes, UInt(bytes.count), &pixels, width, 0, height, Int32(format.rawValue),
        TJFLAG_ACCURATEDCT)
      // Stray bytes between segments, which some cameras leave, harm nothing; a missing end does.
      let text = done == 0 ? "" : message(decoder)
      let isHarmless =
        tjGetErrorCode(decoder) == Int32(TJERR_WARNING.rawValue)
        && text.contains("extraneous")
      guard done == 0 || isHarmless else { throw wrong(text) }
      if isInk {
        // Written the other way round, as all programs do: 255 is no ink.
        for i in 0..<Int(height) * Int(width) {
          let black = Int(pixels[4 * i + 3])
          for k in 0..<3 { pixels[3 * i + k] = UInt8((Int(pixels[4 * i + k]) * black + 127) / 255) }
        }
        pixels.removeLast(Int(height) * Int(width))
      }
      return Picture(height: Int(height), width: Int(width), channels: 3, pixels: pixels)
    }
  }

  private func webP() throws -> Picture {
    let (height, width) = try webPSize()
    var pixels = [UInt8](repeating: 0, count: height * width * 4)
    let done = pixels.withUnsafeMutableBufferPointer {
      WebPDecodeRGBAInto(bytes, bytes.count, $0.baseAddress, $0.count, Int32(width * 4)) != nil
    }
    guard done else { throw wrong("its end, or damage, within the picture") }
    return Picture(overPaper: &pixels, height: height, width: width)
  }

  /// BMP and PPM are read from the file itself.
  private func bitmap() throws -> Picture {
    var (width, height, format): (Int32, Int32, Int32) = (0, 0, Int32(TJPF_RGB.rawValue))
    guard let pixels = tjLoadImage(path, &width, 1, &height, &format, 0) else {
      throw wrong(message(nil))
    }
    defer { tjFree(pixels) }
    return Picture(
      height: Int(height), width: Int(width), channels: 3,
      pixels: Array(UnsafeBufferPointer(start: pixels, count: Int(height) * Int(width) * 3)))
  }
}

extension Picture {
  /// Red, green, blue and alpha, which are overwritten, laid over white paper as browsers do; or over
  /// black where all that is there is so light that nothing would be seen on white.
  init(overPaper pixels: inout [UInt8], height: Int, width: Int) {
    pixels.withUnsafeMutableBufferPointer { pixels in
      let (all, faint) = (0..<height * width, 25 * 255)
      let isClear = all.contains { pixels[4 * $0 + 3] == 0 }
      let isLost =
        isClear && all.contains { pixels[4 * $0 + 3] > 25 }
        && all.allSatisfy { i in
          (0..<3).allSatisfy {
            (255 - Int(pixels[4 * i + $0])) * Int(pixels[4 * i + 3]) <= faint
          }
        }
      let paper = isLost ? 0 : 255
      for i in 0..<height * width {
        let alpha = Int(pixels[4 * i + 3])
        for k in 0..<3 {
          let value = Int(pixels[4 * i + k]) * alpha + paper * (255 - alpha)
          pixels[3 * i + k] = UInt8((value + 127) / 255)
        }
      }
    }
    pixels.removeLast(height * width)
    self.init(height: height, width: width, channels: 3, pixels: pixels)
  }

  /// The way up that EXIF's orientation, 1…8, asks for.
  fileprivate func turned(_ orientation: Int) -> Picture {
    if orientation == 1 { return self }
    let isTransposed = orientation > 4
    let (h, w) = isTransposed ? (width, height) : (height, width)
    var result = [UInt8](repeating: 0, count: pixels.count)
    for row in 0..<h {
      for column in 0..<w {
        var (y, x) = isTransposed ? (column, row) : (row, column)
        if [3, 4, 6, 7].contains(orientation) { y = height - 1 - y }
        if [2, 3, 7, 8].contains(orientation) { x = width - 1 - x }
        for c in 0..<channels {
          result[(row * w + column) * channels + c] = pixels[(y * width + x) * channels + c]
        }
      }
    }
    return Picture(height: h, width: w, channels: channels, pixels: result)
  }
}
