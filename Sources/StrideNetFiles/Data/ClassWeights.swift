import Foundation
import StrideNetCore

extension Dataset {
  /// What each class counts: "balanced", or as a file says: a line `name,weight` for each class, or a
  /// line of JSON, `{"name":"cat","weight":2}`. A first line `name,weight` is passed over.
  /// - Throws: ``StrideNetError`` naming the line, or the class that is missing
  /// - Parameter labels: those of the training images
  package static func classWeights(
    _ text: String, _ classNames: [String], _ labels: [UInt16], outputs: Int
  ) throws -> [Float] {
    if text == "balanced" { return labels.balancedWeights(outputs) }
    let file = try InputFile(text)
    let names = classNames.isEmpty ? (0..<outputs).map(String.init) : classNames
    var found = [Float?](repeating: nil, count: names.count)
    let places = Dictionary(zip(names, names.indices)) { first, _ in first }
    let content = String(decoding: try file.readAll(limit: 1 << 24), as: UTF8.self)
    let lines = content.split(omittingEmptySubsequences: false, whereSeparator: \.isNewline)
    for (number, line) in lines.enumerated() {
      let line = line.trimmingCharacters(in: .whitespaces)
      if line.isEmpty || number == 0 && line == "name,weight" { continue }
      func wrong(_ what: String, _ found: String, _ expected: String) -> StrideNetError {
        StrideNetError(
          .badData, what, at: "\(text), line \(number + 1)", found: found, expected: expected)
      }
      guard let (name, value) = weight(line) else {
        throw wrong(
          "not a class weight", "'\(line.prefix(80))'",
          #"name,weight, or {"name":"cat","weight":2}"#)
      }
      guard let weight = Float(value), weight.isFinite, weight > 0 else {
        throw wrong("a class weight out of range", "'\(value)'", "a finite number above 0")
      }
      guard let place = places[name] else {
        throw wrong("a weight for a class that there isn't", "'\(name)'", list(names))
      }
      guard found[place] == nil else {
        throw wrong("two weights for one class", "'\(name)' again", "a line for each class")
      }
      found[place] = weight
    }
    guard let missing = found.firstIndex(of: nil) else { return found.map { $0! } }
    throw StrideNetError(
      .badData, "a class without a weight", at: text, found: "no line for \(names[missing])",
      expected: "a line for each of \(list(names))")
  }

  /// A line's name and number.
  private static func weight(_ line: String) -> (name: String, value: String)? {
    struct Entry: Decodable {
      let name: String
      let weight: Double
    }
    if line.hasPrefix("{") {
      guard let entry = try? JSONDecoder().decode(Entry.self, from: Data(line.utf8)) else {
        return nil
      }
      return (entry.name, "\(entry.weight)")
    }
    // Names may have commas; numbers haven't.
    guard let comma = line.lastIndex(of: ",") else { return nil }
    let parts = [line[..<comma], line[line.index(after: comma)...]].map {
      $0.trimmingCharacters(in: .whitespaces)
    }
    let isQuoted = parts[0].count > 1 && parts[0].hasPrefix("\"") && parts[0].hasSuffix("\"")
    let name =
      isQuoted ? String(parts[0].dropFirst().dropLast()).replacing("\"\"", with: "\"") : parts[0]
    return name.isEmpty ? nil : (name, parts[1])
  }
}
