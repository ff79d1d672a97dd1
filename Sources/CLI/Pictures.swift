import Foundation
import StrideNet

/// A PNG file as the network's input.
func picture(at path: String, _ input: Shape) throws -> Tensor {
  do {
    return try PNG.read(at: path).fitted(to: input)
  } catch let error as StrideNetError where error.place == nil {
    throw StrideNetError(
      error.kind, error.what, at: path, found: error.found, expected: error.expected,
      hint: error.hint)
  }
}

/// Pictures in folders that have the classes' numbers as their names, and what isn't one of them.
final class LabelledPictures {
  struct Skipped: Encodable {
    let file, why: String
  }

  let folder: String
  private let classes: Int
  private var files: [(path: String, label: Int)] = []
  /// What was passed over and shouldn't be there, with the reason.
  private(set) var skipped: [Skipped] = []
  /// Files that a system puts beside others for its own ends.
  private(set) var hidden = 0

  init(in folder: String, classes: Int) {
    (self.folder, self.classes) = (folder, classes)
    var labels: [Int] = []
    list(folder) { name, path, isFolder in
      if isFolder, let label = Int(name), "\(label)" == name, (0..<classes).contains(label) {
        labels.append(label)
      } else {
        skip(
          path,
          isFolder ? "a folder outside the classes, 0 to \(classes - 1)" : "not in a class's folder"
        )
      }
    }
    for label in labels.sorted() {
      list("\(folder)/\(label)") { name, path, isFolder in
        if isFolder {
          skip(path, "a folder among the pictures")
        } else if name.lowercased().hasSuffix(".png") || PNG.isPNG(path) {
          files.append((path, label))
        } else {
          skip(path, "not a PNG file")
        }
      }
    }
  }

  private func list(
    _ folder: String, _ each: (_ name: String, _ path: String, _ isFolder: Bool) -> Void
  ) {
    let names: [String]
    do {
      names = try FileManager.default.contentsOfDirectory(atPath: folder)
    } catch {
      return skip(folder, "a folder that can't be read")
    }
    for name in names.sorted() {
      if name.hasPrefix(".") || ["thumbs.db", "desktop.ini"].contains(name.lowercased()) {
        hidden += 1
        continue
      }
      var isFolder: ObjCBool = false
      let path = "\(folder)/\(name)"
      _ = FileManager.default.fileExists(atPath: path, isDirectory: &isFolder)
      each(name, path, isFolder.boolValue)
    }
  }

  private func skip(_ path: String, _ why: String) {
    skipped.append(Skipped(file: path, why: why))
  }

  /// Reads the pictures as the network's input, some at a time; those that can't be are `skipped` then.
  func batches(of shape: Shape) -> some Sequence<Batch> {
    var rest = files[...]
    // Of large ones fewer, as floats take four times their memory.
    let most = max(1, min(128, 1 << 24 / max(1, shape.count)))
    return AnyIterator { [self] in
      var (values, labels): ([Float], [Int32]) = ([], [])
      while labels.count < most, let (path, label) = rest.popFirst() {
        do {
          values += try picture(at: path, shape).values
          labels.append(Int32(label))
        } catch {
          let error = error as? StrideNetError
          skip(path, [error?.what, error?.found].compactMap { $0 }.joined(separator: ": "))
        }
      }
      // Each picture has as many values as the shape.
      return labels.isEmpty
        ? nil
        : Batch(images: try! Tensor(batch: labels.count, shape: shape, values), labels: labels)
    }
  }

  /// - Throws: ``StrideNetError`` if no picture was read
  func requireSome(_ images: Int) throws {
    guard images == 0 else { return }
    throw StrideNetError(
      .missingInput, "no pictures", at: folder,
      found: skipped.isEmpty
        ? nil : skipped.prefix(10).map { "\($0.file), \($0.why)" }.joined(separator: "; "),
      expected: "PNG files in folders with the classes' numbers: \(folder)/7/one.png")
  }

  /// - Throws: ``StrideNetError`` if something was passed over
  func requireAll() throws {
    guard let first = skipped.first else { return }
    throw StrideNetError(
      .badData, "not all pictures were evaluated", at: folder,
      found: "\(skipped.count.grouped) passed over, the first: \(first.file), \(first.why)",
      expected: "nothing but PNG files in folders with the classes' numbers",
      hint: "the result is that of the others; convert the rest, or take it away")
  }
}
