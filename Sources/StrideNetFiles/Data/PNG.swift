import CPNG
import Foundation
import StrideNetCore

/// PNG files as bytes, through libpng.
public enum PNG {
  /// Larger images have no place in a network that reads 28 × 28 pixels.
  static let largest = 8192

  /// Reads a file of any kind of PNG as red, green and blue over white paper.
  public static func read(at path: String) throws -> Picture {
    try decode(try InputFile(path).readAll(limit: 64 << 20), name: path)
  }

  /// The same of a file's bytes; `name` stands for it in errors.
  static func decode(_ bytes: [UInt8], name path: String) throws -> Picture {
    var image = png_image()
    image.version = UInt32(PNG_IMAGE_VERSION)
    defer { png_image_free(&image) }
    func wrong() -> StrideNetError {
      let message = withUnsafeBytes(of: image.message) {
        String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
      }
      return StrideNetError(
        .badData, "a PNG file that can't be read", at: path, found: message,
        hint: "write the file anew")
    }
    return try bytes.withUnsafeBytes { bytes in
      guard png_image_begin_read_from_memory(&image, bytes.baseAddress, bytes.count) != 0 else {
        throw wrong()
      }
      let (height, width) = (Int(image.height), Int(image.width))
      guard height <= largest && width <= largest else {
        throw StrideNetError(
          .badData, "a PNG file that is too large", at: path, found: "\(width) × \(height) pixels",
          expected: "at most \(largest) × \(largest)", hint: "make it smaller")
      }
      image.format = UInt32(PNG_FORMAT_FLAG_COLOR | PNG_FORMAT_FLAG_ALPHA)
      // Files of 16 bits that don't say how they are encoded are so like any other, not linear.
      image.flags |= UInt32(PNG_IMAGE_FLAG_16BIT_sRGB)
      var pixels = [UInt8](repeating: 0, count: height * width * 4)
      let done = pixels.withUnsafeMutableBytes {
        png_image_finish_read(&image, nil, $0.baseAddress, Int32(width * 4), nil)
      }
      guard done != 0 else { throw wrong() }
      // Laid over the paper as browsers do; libpng would mix light itself, which thins dark lines.
      return Picture(overPaper: &pixels, height: height, width: width)
    }
  }

  /// Writes a file, whole or not at all.
  public static func write(_ image: Picture, to path: String) throws {
    let bytes = try encode(image)
    try AtomicFile.write(to: path) { try $0.append(bytes) }
  }

  /// The bytes of a file.
  package static func encode(_ source: Picture) throws -> [UInt8] {
    precondition(source.channels == 1 || source.channels == 3)
    var image = png_image()
    image.version = UInt32(PNG_IMAGE_VERSION)
    (image.height, image.width) = (UInt32(source.height), UInt32(source.width))
    image.format = source.channels == 1 ? 0 : UInt32(PNG_FORMAT_FLAG_COLOR)
    defer { png_image_free(&image) }
    var size = 0
    let stride = Int32(source.width * source.channels)
    guard png_image_write_to_memory(&image, nil, &size, 0, source.pixels, stride, nil) != 0 else {
      throw StrideNetError(.internalError, "libpng can't encode an image")
    }
    var bytes = [UInt8](repeating: 0, count: size)
    guard png_image_write_to_memory(&image, &bytes, &size, 0, source.pixels, stride, nil) != 0
    else { throw StrideNetError(.internalError, "libpng can't encode an image") }
    return Array(bytes.prefix(size))
  }
}
