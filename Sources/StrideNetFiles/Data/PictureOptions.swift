import StrideNetCore

/// How pictures of any size and kind become a set of images.
public struct PictureOptions: Sendable, Codable, Hashable {
  public enum Colour: String, Sendable, Codable, CaseIterable {
    /// Grey if no picture has colours.
    case auto
    case grey, rgb
  }

  /// The images' size; nil for the commonest size of the pictures, made smaller until no side is
  /// longer than ``largest``. Numbers of a table or list that don't say their size are read by it.
  public var height, width: Int?
  public var fit: Picture.Fit
  public var colour: Colour
  /// Whether a file that can't be used ends the reading; else it is named. No part of what decides
  /// the images.
  package var isStrict = false
  /// A folder where the decoded images are kept for the next time, or nil. No part of what decides
  /// them: they are known by the names, sizes and times of the pictures' files and by these options.
  public var cache: String?

  private enum CodingKeys: CodingKey { case height, width, fit, colour }

  public init(
    height: Int? = nil, width: Int? = nil, fit: Picture.Fit = .crop, colour: Colour = .auto
  ) {
    (self.height, self.width, self.fit, self.colour) = (height, width, fit, colour)
  }

  /// The longest side of images where no size is asked for.
  public static let largest = 64

  /// A size as text: "64", or "48x64", height first.
  package mutating func setSize(_ text: String) throws {
    let sides = text.split(separator: "x", omittingEmptySubsequences: false).map { Int($0) ?? 0 }
    guard sides.count <= 2, sides.allSatisfy((1...4096).contains) else {
      throw StrideNetError(
        .usage, "an image size that isn't one", at: "--image-size", found: "'\(text)'",
        expected: "a number, or two as 48x64, height first, each 1 to 4096")
    }
    (height, width) = (sides[0], sides[sides.count - 1])
  }
}
