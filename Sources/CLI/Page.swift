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

  /// How all pages look.
  static var style: String { string(page_style) }

  private static func string(_ file: page_file) -> String {
    String(decoding: UnsafeBufferPointer(start: file.bytes, count: file.count), as: UTF8.self)
  }
}
