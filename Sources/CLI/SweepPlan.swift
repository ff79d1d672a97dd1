import Foundation
import StrideNet

/// What a sweep tries: values for some of train's options.
struct SweepPlan {
  /// An option and what it may be.
  struct Axis {
    enum Values {
      case list([String])
      /// Drawn evenly between two numbers, or between their logarithms.
      case range(low: Double, high: Double, isLogarithmic: Bool, isWhole: Bool)
    }
    /// Without its dashes; "model" is train's first word.
    let name: String
    let values: Values
  }

  /// What one training is given.
  struct Choice: Codable, Hashable {
    let name, value: String
  }

  let axes: [Axis]

  /// - Parameters:
  ///   - grid: "learning-rate=0.01,0.1"; values with commas in them are separated by semicolons
  ///   - ranges: "learning-rate=0.001:0.1", perhaps with ":linear" behind it
  init(grid: [String], ranges: [String]) throws {
    axes = try grid.map(Self.list) + ranges.map(Self.range)
    let names = axes.map(\.name)
    if let twice = names.first(where: { name in names.count { $0 == name } > 1 }) {
      throw StrideNetError(
        .usage, "an option to try is named twice", found: twice,
        expected: "all values of it at once")
    }
  }

  private static func parts(_ text: String, at option: String, _ expected: String) throws -> (
    name: String, values: String
  ) {
    let parts = text.split(separator: "=", maxSplits: 1)
    let name = parts.first.map { $0.trimmingPrefix(/--/) } ?? ""
    guard parts.count == 2, !name.isEmpty else {
      throw StrideNetError(
        .usage, "nothing to try", at: option, found: "'\(text)'", expected: expected)
    }
    return (String(name), String(parts[1]))
  }

  private static func list(_ text: String) throws -> Axis {
    let expected = "an option of train and its values: learning-rate=0.01,0.1"
    let (name, values) = try parts(text, at: "--grid", expected)
    let list = values.split(
      separator: values.contains(";") ? ";" : ",", omittingEmptySubsequences: false
    ).map { $0.trimmingCharacters(in: .whitespaces) }
    guard !list.contains(""), Set(list).count == list.count else {
      throw StrideNetError(
        .usage, "values to try that are empty or the same", at: "--grid", found: "'\(text)'",
        expected: expected)
    }
    return Axis(name: name, values: .list(list))
  }

  private static func range(_ text: String) throws -> Axis {
    let expected = "an option of train and two numbers: learning-rate=0.001:0.1"
    let (name, values) = try parts(text, at: "--range", expected)
    var ends = values.split(separator: ":", omittingEmptySubsequences: false).map(String.init)
    let isLinear = ends.last == "linear"
    if isLinear { ends.removeLast() }
    guard ends.count == 2, let low = Double(ends[0]), let high = Double(ends[1]), low < high,
      low.isFinite, high.isFinite
    else {
      throw StrideNetError(
        .usage, "no range to draw from", at: "--range", found: "'\(text)'",
        expected: expected + ", the smaller one first")
    }
    guard isLinear || low > 0 else {
      throw StrideNetError(
        .usage, "a range from 0 or less has no even ratios", at: "--range", found: "'\(text)'",
        expected: "numbers above 0, or drawn by even differences: \(name)=\(values):linear")
    }
    return Axis(
      name: name,
      values: .range(
        low: low, high: high, isLogarithmic: !isLinear,
        isWhole: ends.allSatisfy { Int($0) != nil }))
  }

  /// Everything with everything, in the order of the lists.
  /// - Throws: ``StrideNetError`` where there is a range, or nothing
  func grid() throws -> [[Choice]] {
    var result: [[Choice]] = [[]]
    for axis in axes {
      guard case .list(let values) = axis.values else {
        throw StrideNetError(
          .usage, "a range has no end of values", at: "--range", found: axis.name,
          expected: "--random N with it, or --grid \(axis.name)=…")
      }
      result = result.flatMap { head in values.map { head + [Choice(name: axis.name, value: $0)] } }
      guard result.count <= 100_000 else {
        throw StrideNetError(
          .usage, "too many trainings", found: "\(result.count.grouped) and more",
          expected: "at most 100,000", hint: "draw some of them with --random N")
      }
    }
    return result
  }

  /// So many, drawn by the seed, none twice; fewer where there aren't so many.
  func random(_ count: Int, seed: UInt64) -> [[Choice]] {
    var generator = SeededGenerator(seed: seed, stream: 7)
    var result: [[Choice]] = []
    var seen: Set<[Choice]> = []
    // Of few values, most draws are ones that were there before.
    for _ in 0..<100 * count where result.count < count {
      let drawn = axes.map { axis in
        Choice(name: axis.name, value: Self.value(of: axis.values, &generator))
      }
      if seen.insert(drawn).inserted { result.append(drawn) }
    }
    return result
  }

  private static func value(of values: Axis.Values, _ generator: inout SeededGenerator) -> String {
    let share = Double(generator.next() >> 11) / Double(1 << 53)
    switch values {
    case .list(let list): return list[min(list.count - 1, Int(share * Double(list.count)))]
    case .range(let low, let high, let isLogarithmic, let isWhole):
      let value = isLogarithmic ? low * pow(high / low, share) : low + share * (high - low)
      if isWhole { return "\(Int(min(high, max(low, value.rounded()))))" }
      // As many digits as anybody copies.
      return String(format: "%.3g", value)
    }
  }

  /// The words of `stridenet train` with these values.
  static func words(_ base: [String], _ choice: [Choice]) -> [String] {
    choice.filter { $0.name == "model" }.map(\.value) + base
      + choice.filter { $0.name != "model" }.flatMap { ["--\($0.name)", $0.value] }
  }

  /// A line for a shell.
  static func line(_ words: [String]) -> String {
    "stridenet train "
      + words.map { word in
        word.wholeMatch(of: /[A-Za-z0-9_.,:=\/+-]+/) != nil
          ? word : "'\(word.replacing("'", with: "'\\''"))'"
      }.joined(separator: " ")
  }
}
