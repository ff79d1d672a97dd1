import StrideNetCore

/// How pictures of any size and kind, or numbers, become a set of images.
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
  /// The numbers to predict: the columns of a table with them, by their names or numbers, from 1 or
  /// from the end below 0; of arrays, what their columns are to be called. Nil for classes.
  public var targets: [String]?
  /// Whether a file that can't be used ends the reading; else it is named. No part of what decides
  /// the images.
  package var isStrict = false
  /// A folder where the decoded images are kept for the next time, or nil. No part of what decides
  /// them: they are known by the names, sizes and times of the pictures' files and by these options.
  public var cache: String?

  private enum CodingKeys: CodingKey { case height, width, fit, colour, targets }

  public init(
    height: Int? = nil, width: Int? = nil, fit: Picture.Fit = .crop, colour: Colour = .auto,
    targets: [String]? = nil
  ) {
    self.targets = targets
    (self.height, self.width, self.fit, self.colour) = (height, width, fit, colour)
  }

  /// The longest side of images where no size is asked for.
  public static let largest = 64

  /// Columns as text: "price", or "x,y".
  package mutating func setTargets(_ text: String) throws {
    let names = text.split(separator: ",", omittingEmptySubsequences: false)
      .map { $0.trimmingCharacters(in: .whitespaces) }
    guard names.allSatisfy({ !$0.isEmpty }), names.count <= 1000, Set(names).count == names.count
    else {
      throw StrideNetError(
        .usage, "columns that aren't ones", at: "--targets", found: "'\(text)'",
        expected: "names or numbers with commas between them, each once: price, or x,y or -2,-1")
    }
    targets = names
  }

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
