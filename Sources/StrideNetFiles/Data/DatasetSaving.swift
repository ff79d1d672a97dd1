import Foundation
import StrideNetCore

extension Dataset {
  /// Writes all images and labels in another form: a file of NumPy's, `set.npz`, or a folder with the
  /// four files of IDX. ``load(_:_:environment:progress:)`` reads both.
  /// - Throws: ``StrideNetError`` where it can't be written, or doesn't fit into IDX
  public func save(to path: String) throws {
    if path.lowercased().hasSuffix(".npz") { return try saveNPZ(to: path) }
    guard !path.lowercased().contains(/\.\w+$/) else {
      throw StrideNetError(
        .usage, "no kind of data set to save", at: path,
        expected: "a file .npz, or a folder for IDX files")
    }
    try saveIDX(to: path)
  }

  private var namesThatTell: [String]? { isNumbered ? nil : classNames }

  /// Labels, or numbers to predict.
  private static func answers(_ set: ImageSet) -> [UInt8] {
    guard let targets = set.targets else { return NPY.bytes(labels: set.labels) }
    return NPY.bytes(.init("", [set.count, targets.shape.count], .floats(targets.values)))
  }

  private func saveNPZ(to path: String) throws {
    var files: [(name: String, bytes: () -> [UInt8])] = []
    for (set, split) in [(train, "train"), (test, "test"), (validation, "val")] {
      guard let set else { continue }
      let size = [set.count, set.height, set.width] + (set.channels == 1 ? [] : [set.channels])
      files.append(("x_\(split).npy", { NPY.bytes(.init("", size, .bytes(set.pixels))) }))
      files.append(("y_\(split).npy", { Self.answers(set) }))
    }
    if !hasTargets, let names = namesThatTell {
      files.append(("class_names.npy", { NPY.bytes(.init("", [names.count], .texts(names))) }))
    }
    try ZipArchive.write(files, to: path)
  }

  private func saveIDX(to folder: String) throws {
    guard !hasTargets else {
      throw StrideNetError(
        .usage, "IDX has no place for numbers to predict", at: folder,
        found: Self.list(classNames), expected: "a file .npz")
    }
    guard validation == nil else {
      throw StrideNetError(
        .usage, "IDX has no place for a validation set", at: folder,
        found: "\(validation!.count) images to validate", expected: "a file .npz")
    }
    do {
      try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    } catch {
      throw StrideNetError(
        .cannotCreate, "the folder can't be made", at: folder, found: error.localizedDescription)
    }
    for (set, names) in [(train, Self.files[..<2]), (test, Self.files[2...])] {
      let images = names.first!.replacing("idx3", with: set.channels == 1 ? "idx3" : "idx4")
      // Labels first: they may not fit.
      try IDX.writeLabels(set.labels, to: "\(folder)/\(names.last!)")
      try IDX.writeImages(of: set, to: "\(folder)/\(images)")
    }
    if let names = namesThatTell {
      let lines = names.map { "\($0.replacing("\n", with: " "))\n" }.joined()
      try AtomicFile.write(Array(lines.utf8), to: "\(folder)/\(PictureFolder.classList)")
    }
  }
}
