import Foundation
import Pages
import StrideNet

/// The pages that are in the program.
enum Page {
  /// A page with its style and its script in their places, and what answers it without a server.
  static func text(_ page: page_file, engine: String? = nil) -> String {
    page.text.replacing("/*STYLE*/", with: style)
      .replacing("/*PICTURES*/", with: page_pictures.text)
      .replacing("/*VIEWS*/", with: engine == nil ? page_views.text : "")
      .replacing("<!--ENGINE-->", with: engine ?? "")
  }

  /// How all pages look.
  static var style: String { page_style.text }

  /// Layers of networks that a page trains, by their names.
  static func presets() throws -> [String: String] {
    var presets = Dictionary(
      uniqueKeysWithValues: Architecture.presets.map { ($0.name, $0.text) })
    // Windows that don't overlap: one stride group.
    presets["stride3"] = "conv(16,3,stride=3) flatten relu(32) softmax(10)"
    presets["small"] = try RunConfiguration(recipe: "digits").layers
    return presets
  }
}

extension page_file {
  var buffer: UnsafeRawBufferPointer { UnsafeRawBufferPointer(start: bytes, count: count) }
  var text: String { String(decoding: buffer, as: UTF8.self) }
}
