import Foundation
import Pages
import StrideNet

/// The pages that are in the program.
enum Page {
  /// A page with its style and its script in their places.
  static func text(_ page: page_file) -> String {
    string(page).replacing("/*STYLE*/", with: string(page_style))
      .replacing("/*PICTURES*/", with: string(page_pictures))
  }

  private static func string(_ file: page_file) -> String {
    String(decoding: UnsafeBufferPointer(start: file.bytes, count: file.count), as: UTF8.self)
  }
}

/// What classes are called where they aren't the digits that their numbers are.
enum ClassNames {
  static func of(_ data: Dataset, count: Int) -> [String] {
    let clothes = [
      "T-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag",
      "boot",
    ]
    let known = data.name == "fashion-mnist" ? clothes : []
    return (0..<count).map { known.indices.contains($0) ? known[$0] : "\($0)" }
  }
}
