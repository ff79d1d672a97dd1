import Foundation

/// The README, the articles and what else is read.
enum Documents {
  static let root = URL(filePath: #filePath)
    .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()

  static func text(_ path: String) throws -> String {
    try String(contentsOf: root.appending(path: path), encoding: .utf8)
  }

  /// The code blocks of the README, or of other documents, in one language.
  static func blocks(_ language: String, in documents: [String] = ["README.md"]) throws -> [String]
  {
    try documents.flatMap { document in
      try text(document).components(separatedBy: "\n```\(language)\n").dropFirst().map {
        $0.components(separatedBy: "\n```")[0]
      }
    }
  }

  static let articles: [String] = {
    let folder = "Sources/StrideNet/StrideNet.docc"
    let names = try! FileManager.default.contentsOfDirectory(
      atPath: root.appending(path: folder).path)
    return names.filter { $0.hasSuffix(".md") }.sorted().map { "\(folder)/\($0)" }
  }()
  /// Those beside the source, whose links are paths.
  static let pages = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"]
  static let all = pages + articles
}
