import Foundation
import StrideNetCore

/// Names of classes, as they stand in files.
enum ClassList {
  static func json(_ names: [String]) -> String {
    let encoder = JSONEncoder()
    encoder.outputFormatting = .withoutEscapingSlashes
    return String(decoding: try! encoder.encode(names), as: UTF8.self)
  }

  /// - Throws: ``StrideNetError`` where it isn't a list of a name for each output
  static func read(_ json: String, outputs: Int, at place: String) throws -> [String] {
    guard let names = try? JSONDecoder().decode([String].self, from: Data(json.utf8)),
      names.count == outputs
    else {
      throw StrideNetError(
        .badData, "class names that aren't ones of this network", at: place,
        found: String(json.prefix(80)), expected: "\(outputs) names: [\"cat\",\"dog\"]")
    }
    return names
  }

  /// The lines of a folder's classes.txt, if there is one.
  static func names(in folder: String) throws -> [String]? {
    guard let file = try? InputFile("\(folder)/\(PictureFolder.classList)") else { return nil }
    return String(decoding: try file.readAll(limit: 1 << 20), as: UTF8.self)
      .split(whereSeparator: \.isNewline).map { $0.trimmingCharacters(in: .whitespaces) }
      .filter { !$0.isEmpty }
  }

  /// Sorted as people would: all numbers by their values, anything else by its characters.
  static func sorted(_ names: some Collection<String>) -> [String] {
    let numbers = names.compactMap { Int($0) }
    if numbers.count == names.count { return names.sorted { Int($0)! < Int($1)! } }
    return names.sorted()
  }
}

extension Network {
  /// What an output is called.
  package func className(_ output: Int) -> String {
    classNames.indices.contains(output) ? classNames[output] : "\(output)"
  }
}
