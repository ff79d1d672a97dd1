import Foundation
import StrideNetCore

/// A table in text: a line an image, its label first or last and the others its pixels; or numbers to
/// predict in some columns and pixels in the others, or the name of the picture's file in the first.
struct CSVTable {
  /// Where cells may be texts.
  enum Texts { case ends, first, none }

  let path: String
  /// How many cells a line has.
  private(set) var columns = 0
  private let texts: Texts
  private var header: [String]?
  /// All cells as numbers; no number where one is a text.
  private var numbers: [Float] = []
  /// Those at both ends as they stand there.
  private var ends: [(first: String, last: String)] = []
  /// The line of each row.
  private var lines: [Int] = []

  init(_ path: String, texts: Texts = .ends) throws {
    let file = try InputFile(path)
    // A digit and a comma become four bytes.
    try file.require(times: 4)
    try self.init(file.readAll(limit: 1 << 33), name: path, texts: texts)
  }

  init(_ bytes: [UInt8], name: String, texts: Texts = .ends) throws {
    (path, self.texts) = (name, texts)
    let start = bytes.starts(with: [0xef, 0xbb, 0xbf]) ? 3 : 0
    let separator = Self.separator(bytes[start...])
    var place = start
    var line = 1
    while place < bytes.count {
      let end = bytes[place...].firstIndex(of: 10) ?? bytes.count
      let text = bytes[place..<end].last == 13 ? bytes[place..<end].dropLast() : bytes[place..<end]
      if !text.isEmpty { try read(text, separator, line) }
      place = end + 1
      line += 1
    }
    guard !lines.isEmpty else {
      throw wrong("a table without images", line: nil, expected: "a line an image")
    }
  }

  /// The commonest in the first line of those that are in use.
  private static func separator(_ bytes: ArraySlice<UInt8>) -> UInt8 {
    let first = bytes.prefix { $0 != 10 }
    let known = [44, 59, 9] as [UInt8]
    return known.max { a, b in
      first.count(where: { $0 == a }) < first.count(where: { $0 == b })
    }!
  }

  private func wrong(
    _ what: String, line: Int?, found: String? = nil, expected: String? = nil, hint: String? = nil
  ) -> StrideNetError {
    StrideNetError(
      .badData, what, at: line.map { "\(path), line \($0)" } ?? path, found: found,
      expected: expected, hint: hint)
  }

  // MARK: Reading

  private mutating func read(_ text: ArraySlice<UInt8>, _ separator: UInt8, _ line: Int) throws {
    let cells = text.split(separator: separator, omittingEmptySubsequences: false)
    if columns == 0 {
      columns = cells.count
      guard columns > (texts == .first ? 1 : 2) else {
        throw wrong(
          "a table without pixels", line: line, found: "\(columns) cells",
          expected: texts == .first
            ? "a picture's file and numbers, with commas between them"
            : "a label and pixels, with commas between them")
      }
      // Names stand over numbers; over a label alone they would be a label.
      if cells.indices.contains(where: {
        !mayBeText($0) && Self.number(cells[$0]) == nil && !Self.text(cells[$0]).isEmpty
      }) {
        header = cells.map(Self.text)
        return
      }
    }
    guard cells.count == columns else {
      throw wrong(
        "a line with another number of cells", line: line, found: "\(cells.count)",
        expected: "\(columns), as in the first line")
    }
    for (column, cell) in cells.enumerated() {
      if let number = Self.number(cell) {
        numbers.append(number)
        continue
      }
      let text = Self.text(cell)
      guard !text.isEmpty else {
        throw wrong(
          "a missing cell", line: line, found: "nothing in \(place(column))",
          expected: "a number", hint: "fill it, or take the line away")
      }
      if !mayBeText(column) {
        throw wrong(
          "a cell that is no number", line: line, found: "'\(text)' in \(place(column))",
          expected: texts == .ends ? "a pixel" : "a finite number")
      }
      numbers.append(.nan)
    }
    ends.append((Self.text(cells[0]), Self.text(cells[columns - 1])))
    lines.append(line)
  }

  private func mayBeText(_ column: Int) -> Bool {
    switch texts {
    case .ends: column == 0 || column == columns - 1
    case .first: column == 0
    case .none: false
    }
  }

  private func place(_ column: Int) -> String {
    "column \(column + 1)" + (texts == .ends ? "" : header.map { " (\($0[column]))" } ?? "")
  }

  private static func text(_ cell: ArraySlice<UInt8>) -> String {
    let text = String(decoding: cell, as: UTF8.self).trimmingCharacters(in: .whitespaces)
    let isQuoted = text.count > 1 && text.hasPrefix("\"") && text.hasSuffix("\"")
    return isQuoted ? String(text.dropFirst().dropLast()).replacing("\"\"", with: "\"") : text
  }

  private static func number(_ cell: ArraySlice<UInt8>) -> Float? {
    if cell.count <= 3 && !cell.isEmpty && cell.allSatisfy({ (48...57).contains($0) }) {
      return Float(cell.reduce(0) { $0 * 10 + Int($1 - 48) })
    }
    guard let number = Float(text(cell)), number.isFinite else { return nil }
    return number
  }

  // MARK: Images

  /// Where the labels stand: by the header; else where there are texts; else at the end that has more
  /// than one value, the fewer of them, as pixels at both ends of an image are often all paper.
  private func isLabelFirst() -> Bool {
    let words = ["label", "class", "target", "y", "labels", "category"]
    if let header {
      if words.contains(header[0].lowercased()) { return true }
      if words.contains(header[columns - 1].lowercased()) { return false }
    }
    let texts = { (end: KeyPath<(first: String, last: String), String>) in
      ends.contains { Float($0[keyPath: end]) == nil }
    }
    if texts(\.first) { return true }
    if texts(\.last) { return false }
    let (first, last) = (Set(ends.map(\.first)).count, Set(ends.map(\.last)).count)
    return last == 1 || (first > 1 && first <= last)
  }

  /// The labels as they stand there, and the pixels.
  func images() throws -> (labels: [String], pixels: NumberArray, isLabelFirst: Bool) {
    let isFirst = isLabelFirst()
    let width = columns - 1
    var pixels: [Float] = []
    pixels.reserveCapacity(lines.count * width)
    for row in lines.indices {
      let start = row * columns + (isFirst ? 1 : 0)
      let part = numbers[start..<start + width]
      if let place = part.firstIndex(where: \.isNaN) {
        throw wrong(
          "a cell that is no number", line: lines[row],
          found: "'\(isFirst ? ends[row].last : ends[row].first)' in column "
            + "\(place - row * columns + 1)", expected: "a pixel")
      }
      pixels += part
    }
    let labels = ends.map { isFirst ? $0.first : $0.last }
    return (labels, NumberArray(path, [lines.count, width], .floats(pixels)), isFirst)
  }
}

extension CSVTable {
  // MARK: Numbers to predict

  /// What is in the first column, of each row.
  var first: [String] { ends.map(\.first) }

  /// Columns by their names, or by their numbers, from 1 or from the end below 0.
  /// - Throws: ``StrideNetError`` where there is no such, one comes twice, or none is left over for
  ///   pixels
  func places(of targets: [String]) throws -> [Int] {
    func wrong(_ what: String, _ found: String, _ expected: String) -> StrideNetError {
      StrideNetError(.usage, what, at: path, found: found, expected: expected)
    }
    let all = names(of: Array(0..<columns))
    let places = try targets.map { target in
      let named = all.indices.filter { all[$0] == target && (texts != .first || $0 > 0) }
      if named.count == 1 { return named[0] }
      let number = Int(target) ?? 0
      let place = number < 0 ? columns + number : number - 1
      guard named.isEmpty, (0..<columns).contains(place), texts != .first || place > 0 else {
        let names = header.map { "\(Dataset.list($0)), or " } ?? ""
        throw wrong(
          named.isEmpty ? "no such column" : "two columns of one name", "'\(target)'",
          "\(names)a number from 1 to \(columns), or -1 for the last")
      }
      return place
    }
    if Set(places).count < places.count {
      throw wrong("a column twice", targets.joined(separator: ", "), "each once")
    }
    if texts == .none, places.count == columns {
      throw wrong("a table without pixels", "\(columns) columns to predict", "others with pixels")
    }
    return places
  }

  /// What columns are called.
  func names(of places: [Int]) -> [String] {
    places.map { place in
      header.flatMap { $0[place].isEmpty ? nil : $0[place] } ?? "column \(place + 1)"
    }
  }

  /// The numbers in some columns, N×K.
  func targets(_ places: [Int]) throws -> Tensor {
    try Tensor(
      batch: lines.count, shape: Shape(places.count),
      lines.indices.flatMap { row in places.map { numbers[row * columns + $0] } })
  }

  /// The numbers in the others.
  func pixels(without places: [Int]) -> NumberArray {
    let others = (0..<columns).filter { !places.contains($0) }
    return NumberArray(
      path, [lines.count, others.count],
      .floats(lines.indices.flatMap { row in others.map { numbers[row * columns + $0] } }))
  }
}

extension Dataset {
  /// The tables in a folder, by what their names say they are for.
  private static func tables(in folder: String) -> [(split: String, path: String)] {
    let names = (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []
    return names.sorted().filter {
      $0.lowercased().hasSuffix(".csv") && !PictureFolder.isHidden($0)
    }.map { name in
      let words = name.lowercased().split { !$0.isLetter && !$0.isNumber }.map(String.init)
      return (["train", "test", "val"].first(where: words.contains) ?? "", "\(folder)/\(name)")
    }
  }

  static func hasTables(_ folder: String) -> Bool {
    tables(in: folder).contains { $0.split == "train" }
  }

  /// A table, or a folder of train.csv and test.csv.
  static func loadTables(
    _ path: String, name: String, _ options: PictureOptions
  ) throws -> Dataset {
    var found: [(split: String, path: String)] = [("train", path)]
    if PictureFolder.isFolder(path) { found = tables(in: path).filter { !$0.split.isEmpty } }
    let bySplit = Dictionary(grouping: found) { $0.split }
    if let twice = bySplit.values.first(where: { $0.count > 1 }) {
      throw StrideNetError(
        .badData, "several tables", at: path, found: list(twice.map(\.path)), expected: "one",
        hint: "name the one that you mean: --data \(twice[0].path)")
    }
    let targets = options.targets
    let texts = targets == nil ? CSVTable.Texts.ends : .none
    let train = try CSVTable(bySplit["train"]![0].path, texts: texts)
    var skipped: [Skipped] = []
    var tables = [train]
    for split in ["test", "val"] {
      guard let place = bySplit[split]?[0].path else { continue }
      let table = try CSVTable(place, texts: texts)
      // As in competitions, whose answers are kept.
      if table.columns == train.columns - (targets?.count ?? 1) {
        skipped.append(.init(file: place, why: "a table without labels"))
      } else {
        tables.append(table)
      }
    }
    let (sets, names, what) =
      try targets.map { try predicted($0, tables, options) } ?? labelled(tables, options)
    let source = "\(path), \(what)"
    var result =
      sets.count == 1
      ? try Dataset(name: name, source: source, splitting: sets[0], classNames: names)
      : try Dataset(
        name: name, source: source, train: sets[0], test: sets[1],
        validation: sets.count > 2 ? sets[2] : nil, classNames: names)
    result.skipped = skipped
    return result
  }

  private static func labelled(
    _ tables: [CSVTable], _ options: PictureOptions
  ) throws -> (sets: [ImageSet], names: [String], what: String) {
    let parts = try tables.map { try $0.images() }
    let (labels, names) = try labels(parts.map(\.labels), tables[0].path)
    let scale = try NumberArray.scale(of: parts.map(\.pixels))
    let sets = try zip(parts, labels).map {
      try $0.pixels.images(labels: $1, scale: scale, options)
    }
    return (sets, names, "labels \(parts[0].isLabelFirst ? "first" : "last")")
  }

  private static func predicted(
    _ targets: [String], _ tables: [CSVTable], _ options: PictureOptions
  ) throws -> (sets: [ImageSet], names: [String], what: String) {
    let places = try tables.map { try $0.places(of: targets) }
    let pixels = zip(tables, places).map { $0.pixels(without: $1) }
    let scale = try NumberArray.scale(of: pixels)
    let names = tables[0].names(of: places[0])
    let sets = try tables.indices.map {
      try pixels[$0].images(labels: nil, scale: scale, options).with(tables[$0].targets(places[$0]))
    }
    return (sets, names, "to predict \(list(names))")
  }

  /// Whole numbers as they are; anything else as names.
  private static func labels(
    _ texts: [[String]], _ path: String
  ) throws -> (labels: [[Int]], names: [String]) {
    let numbers = texts.map { $0.map { Double($0).flatMap { Int(exactly: $0) } ?? -1 } }
    if numbers.allSatisfy({ $0.allSatisfy { (0...Int(UInt16.max)).contains($0) } }) {
      return (numbers, numbered(numbers.joined().max() ?? 0))
    }
    let names = ClassList.sorted(Set(texts.joined()))
    guard names.count <= 10_000, texts.joined().allSatisfy({ Double($0) == nil }) else {
      throw StrideNetError(
        .badData, "labels that aren't ones", at: path, found: list(names),
        expected: "whole numbers from 0, or names", hint: targetsHint)
    }
    let places = Dictionary(uniqueKeysWithValues: names.enumerated().map { ($1, $0) })
    return (texts.map { $0.map { places[$0]! } }, names)
  }
}
