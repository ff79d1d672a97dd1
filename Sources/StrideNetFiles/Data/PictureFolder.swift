import Foundation
import StrideNetCore

/// What lies in a folder whose folders are classes.
package struct PictureFolder {
  package typealias Skipped = Dataset.Skipped

  package let path: String
  /// The classes' names and files, sorted.
  package private(set) var classes: [(name: String, files: [String])] = []
  /// What was passed over and shouldn't be there, with the reason.
  package private(set) var skipped: [Skipped] = []
  /// Files that a system puts beside others for its own ends.
  package private(set) var hidden = 0

  /// - Parameter expected: whether a folder of this name is a class
  package init(_ path: String, expected: (String) -> Bool = { _ in true }) {
    self.path = path
    var names: [String] = []
    for (name, isFolder) in list(path) {
      if isFolder && expected(name) {
        names.append(name)
      } else if isFolder || name != Self.classList {
        skip(
          "\(path)/\(name)",
          isFolder ? "a folder outside the classes" : "not in a class's folder")
      }
    }
    for name in ClassList.sorted(names) {
      let folder = "\(path)/\(name)"
      var files: [String] = []
      for (file, isFolder) in list(folder) {
        let path = "\(folder)/\(file)"
        if isFolder {
          skip(path, "a folder among the pictures")
        } else if Self.isPicture(path) {
          files.append(path)
        } else {
          skip(path, "not a picture: \(PictureFile.kinds)")
        }
      }
      classes.append((name, files))
    }
  }

  package static let kinds = PictureFile.kinds
  private static let endings = ["png", "jpg", "jpeg", "webp", "bmp", "ppm", "pgm"]
  /// The file beside the classes' folders that says their order.
  static let classList = "classes.txt"

  /// Names in order, but for what is hidden.
  private mutating func list(_ folder: String) -> [(name: String, isFolder: Bool)] {
    guard let names = try? FileManager.default.contentsOfDirectory(atPath: folder) else {
      skip(folder, "a folder that can't be read")
      return []
    }
    hidden += names.count(where: Self.isHidden)
    return names.filter { !Self.isHidden($0) }.sorted().map {
      ($0, Self.isFolder("\(folder)/\($0)"))
    }
  }

  /// Whether a file is one by its name, or else by how it begins.
  package static func isPicture(_ path: String) -> Bool {
    endings.contains((path as NSString).pathExtension.lowercased()) || Picture.isFile(path)
  }

  package static func isHidden(_ name: String) -> Bool {
    name.hasPrefix(".") || ["thumbs.db", "desktop.ini"].contains(name.lowercased())
  }

  package static func isFolder(_ path: String) -> Bool {
    var isFolder: ObjCBool = false
    return FileManager.default.fileExists(atPath: path, isDirectory: &isFolder)
      && isFolder.boolValue
  }

  private mutating func skip(_ path: String, _ why: String) {
    skipped.append(Skipped(file: path, why: why))
  }
}

extension Dataset {
  /// The folders that a split may have, by the names that they go under.
  static let splits = [
    ["train", "training"], ["test", "testing"], ["val", "valid", "validation"],
  ]

  /// Whether there are folders in which there is something to look for.
  static func hasClassFolders(_ folder: String) -> Bool {
    let names = (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []
    return names.contains {
      !PictureFolder.isHidden($0) && PictureFolder.isFolder("\(folder)/\($0)")
    }
  }

  /// A folder of class folders, or of `train` and `test` and perhaps `val` with class folders.
  static func loadPictures(
    _ folder: String, name: String, _ options: PictureOptions,
    _ progress: (@Sendable (Int, Int) -> Void)?
  ) throws -> Dataset {
    let folders = try classFolders(folder)
    let isSplit = folders.count > 1
    let names = try classNames(of: folders, in: folder)
    var reader = PictureReader(folders, names, options)
    let sets = try reader.read(progress)
    var result =
      isSplit
      ? try Dataset(
        name: name, source: folder, train: sets[0], test: sets[1],
        validation: sets.count > 2 ? sets[2] : nil, classNames: names)
      : try Dataset(name: name, source: folder, splitting: sets[0], classNames: names)
    result.take(reader, options.fit, of: sets)
    return result
  }

  /// Takes over what is known of pictures.
  /// - Parameter sets: as they were read; one alone was split
  mutating func take(_ reader: PictureReader, _ fit: Picture.Fit, of sets: [ImageSet]) {
    self.fit = fit
    (skipped, sizes, notes) = (reader.skipped, reader.sizes, reader.notes)
    pictureFiles = reader.files
    if sets.count > 1 { return }
    let all = pictureFiles[0]
    let test = Set(Dataset.heldOut(sets[0].labels))
    pictureFiles = [
      all.indices.filter { !test.contains($0) }.map { all[$0] },
      all.indices.filter(test.contains).map { all[$0] },
    ]
  }

  /// What is for training, for the test and perhaps for validation, or all in one.
  static func classFolders(_ folder: String) throws -> [PictureFolder] {
    var parts: [PictureFolder?] = splits.map { names in
      names.map { "\(folder)/\($0)" }.first(where: hasClassFolders).map { PictureFolder($0) }
    }
    // Only a validation set beside the training set is what is tested.
    if parts[0] != nil && parts[1] == nil { parts.swapAt(1, 2) }
    let isSplit = parts[0] != nil && parts[1] != nil
    if !isSplit { parts = [PictureFolder(parts[0]?.path ?? folder)] }
    let folders = parts.compactMap { $0 }
    guard folders.contains(where: { $0.classes.contains { !$0.files.isEmpty } }) else {
      throw nothing(in: folder)
    }
    return folders
  }

  /// - Throws: ``StrideNetError`` where they aren't classes to tell apart
  static func classNames(of folders: [PictureFolder], in folder: String) throws -> [String] {
    var names = ClassList.sorted(Set(folders.flatMap { $0.classes.map(\.name) }))
    if let wanted = try ClassList.names(in: folder) {
      guard Set(wanted) == Set(names), wanted.count == names.count else {
        let odd = Set(wanted).symmetricDifference(names).sorted()
        throw StrideNetError(
          .badData, "the list of classes isn't that of the folders",
          at: "\(folder)/\(PictureFolder.classList)",
          found: odd.isEmpty ? "a name twice" : list(odd), expected: list(names),
          hint: "a line a class, each a folder's name")
      }
      names = wanted
    }
    if let (part, empty) = folders.lazy.compactMap({ part in
      part.classes.first { $0.files.isEmpty }.map { (part, $0.name) }
    }).first {
      throw StrideNetError(
        .badData, "a class without pictures", at: "\(part.path)/\(empty)",
        found: "no file that is one", expected: PictureFile.kinds,
        hint: "put pictures into the folder, or take it away")
    }
    if let missing = names.first(where: { name in
      !folders[0].classes.contains { $0.name == name }
    }) {
      throw StrideNetError(
        .badData, "a class without pictures to train with", at: folders[0].path,
        found: "no folder \(missing)", expected: list(names))
    }
    guard names.count > 1 else {
      throw StrideNetError(
        .badData, names.isEmpty ? "no pictures" : "one class alone", at: folder,
        found: names.first.map { "the folder \($0)" }, expected: "a folder for each of the classes",
        hint: "put the pictures of each class into a folder with its name: \(folder)/cat/one.jpg")
    }
    guard names.count <= Int(UInt16.max) else {
      throw StrideNetError(
        .badData, "too many classes", at: folder, found: "\(names.count)",
        expected: "at most \(UInt16.max)")
    }
    return names
  }

  /// Where data aren't split, of each class a fifth, spread evenly, is the test set.
  init(name: String, source: String, splitting set: ImageSet, classNames: [String]) throws {
    let test = Self.heldOut(set.labels)
    guard !test.isEmpty else {
      throw StrideNetError(
        .badData, "too few images to train and to test", at: source, found: "\(set.count)",
        expected: set.targets == nil ? "two of a class at least" : "two at least")
    }
    let isTest = Set(test)
    try self.init(
      name: name,
      source: "\(source), a fifth\(set.targets == nil ? " of each class" : "") held out to test",
      train: set.picking((0..<set.count).filter { !isTest.contains($0) }),
      test: set.picking(test), classNames: classNames)
  }

  static func heldOut(_ labels: [UInt16]) -> [Int] {
    Dictionary(grouping: labels.indices) { labels[$0] }.values.flatMap { places in
      places.count < 2
        ? []
        : ImageSet.evenly(max(1, places.count / 5), of: places.count).map { places[$0] }
    }.sorted()
  }
}
