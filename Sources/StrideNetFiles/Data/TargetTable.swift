import Foundation
import StrideNetCore

/// `targets.csv` in a folder of pictures: a line a picture, the name of its file and numbers to predict.
struct TargetTable {
  static let name = "targets.csv"

  let folder: String
  let names: [String]
  /// The pictures' paths, a row each.
  let files: [String]
  let targets: Tensor
  /// What lies in the folder and isn't in the table.
  let skipped: [Dataset.Skipped]

  static func isThere(_ folder: String) -> Bool { !folders(in: folder).isEmpty }

  /// The folder itself, or its `train`, `test` and `val`.
  private static func folders(in folder: String) -> [[String]] {
    let all = [[folder]] + Dataset.splits.map { $0.map { "\(folder)/\($0)" } }
    let found = all.map { $0.filter { FileManager.default.fileExists(atPath: "\($0)/\(name)") } }
    if !found[0].isEmpty { return [found[0]] }
    return found[1].isEmpty ? [] : found.dropFirst().filter { !$0.isEmpty }
  }

  /// Those in a folder, for training, and perhaps for the test and for validation.
  static func all(in folder: String, _ targets: [String]?) throws -> [TargetTable] {
    try folders(in: folder).map { try TargetTable($0[0], targets) }
  }

  /// - Parameter columns: those that are asked for; nil for all
  private init(_ folder: String, _ columns: [String]?) throws {
    self.folder = folder
    let path = "\(folder)/\(Self.name)"
    let table = try CSVTable(path, texts: .first)
    let places = try columns.map(table.places) ?? Array(1..<table.columns)
    (names, targets) = (table.names(of: places), try table.targets(places))
    files = table.first.map { "\(folder)/\($0)" }
    var known: Set<String> = []
    if let twice = files.first(where: { !known.insert($0).inserted }) {
      throw StrideNetError(
        .badData, "a picture twice", at: path, found: twice, expected: "a line a picture")
    }
    let others = (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []
    skipped = others.sorted().filter { !PictureFolder.isHidden($0) && $0 != Self.name }
      .map { "\(folder)/\($0)" }
      .filter { other in
        PictureFolder.isFolder(other)
          ? !known.contains { $0.hasPrefix(other + "/") } : !known.contains(other)
      }
      .map { Dataset.Skipped(file: $0, why: "not in \(Self.name)") }
  }

  /// The rows of some files, N×K.
  func targets(of paths: [String]) throws -> Tensor {
    let rows = Dictionary(uniqueKeysWithValues: files.enumerated().map { ($1, $0) })
    let (width, values) = (targets.shape.count, targets.values)
    return try Tensor(
      batch: paths.count, shape: targets.shape,
      paths.flatMap { values[rows[$0]! * width..<(rows[$0]! + 1) * width] })
  }
}

extension Dataset {
  /// Pictures with numbers to predict.
  static func loadPredicted(
    _ folder: String, name: String, _ options: PictureOptions,
    _ progress: (@Sendable (Int, Int) -> Void)?
  ) throws -> Dataset {
    let tables = try TargetTable.all(in: folder, options.targets)
    var reader = PictureReader(tables, options)
    let sets = try zip(reader.read(progress), tables).enumerated().map { part, pair in
      try pair.0.with(pair.1.targets(of: reader.files[part]))
    }
    let (names, source) = (tables[0].names, "\(folder), to predict \(list(tables[0].names))")
    var result =
      sets.count > 1
      ? try Dataset(
        name: name, source: source, train: sets[0], test: sets[1],
        validation: sets.count > 2 ? sets[2] : nil, classNames: names)
      : try Dataset(name: name, source: source, splitting: sets[0], classNames: names)
    result.take(reader, options.fit, of: sets)
    return result
  }
}
