import Foundation
import StrideNet

/// Pictures as a network's input.
struct PictureInput {
  private let shape: Shape
  /// How they are fitted; nil as ``Picture/fitted(to:)`` does it.
  private let fit: Picture.Fit?

  /// - Parameter fit: what was asked for, instead of the way that the network was trained with
  init(for network: Network, fit: Picture.Fit?) {
    (shape, self.fit) = (network.input!, fit ?? network.pictureFit)
  }

  func read(_ path: String) throws -> Tensor {
    do {
      return try Picture.read(at: path).input(of: shape, fit)
    } catch let error as StrideNetError where error.place == nil {
      throw StrideNetError(
        error.kind, error.what, at: path, found: error.found, expected: error.expected,
        hint: error.hint)
    }
  }

  /// How many to read at a time: of large ones fewer, as floats take four times their memory.
  var batch: Int { max(1, min(128, 1 << 24 / max(1, shape.count))) }

  /// Each picture has as many values as the shape.
  func batch(_ values: [Float], _ labels: [Int32]) -> Batch {
    Batch(images: try! Tensor(batch: labels.count, shape: shape, values), labels: labels)
  }
}

/// Pictures in folders that have the classes' names or numbers, and what isn't one of them.
final class LabelledPictures {
  let folder: String
  private let input: PictureInput
  private var files: [(path: String, label: Int)]
  /// What was passed over and shouldn't be there, with the reason.
  private(set) var skipped: [Dataset.Skipped]
  /// Files that a system puts beside others for its own ends.
  let hidden: Int

  init(in folder: String, for network: Network, _ options: DataOptions) throws {
    let names = (0..<network.classes).map(network.className)
    // A name such as T-shirt/top can't be a folder's; its number can.
    let numbers = names.allSatisfy { Int($0) == nil } ? names.indices.map { ("\($0)", $0) } : []
    let labels = Dictionary(names.enumerated().map { ($1, $0) } + numbers) { first, _ in first }
    let found = PictureFolder(folder) { labels[$0] != nil }
    self.folder = folder
    input = PictureInput(for: network, fit: options.pictures.fit)
    files = found.classes.flatMap { name, files in files.map { ($0, labels[name]!) } }
    (skipped, hidden) = (found.skipped, found.hidden)
  }

  /// Reads the pictures as the network's input, some at a time; those that can't be are `skipped` then.
  func batches() -> some Sequence<Batch> {
    var rest = files[...]
    return AnyIterator { [self] in
      var (values, labels): ([Float], [Int32]) = ([], [])
      while labels.count < input.batch, let (path, label) = rest.popFirst() {
        do {
          values += try input.read(path).values
          labels.append(Int32(label))
        } catch {
          let error = error as? StrideNetError
          let why = [error?.what, error?.found].compactMap { $0 }.joined(separator: ": ")
          skipped.append(.init(file: path, why: why))
        }
      }
      return labels.isEmpty ? nil : input.batch(values, labels)
    }
  }

  /// - Throws: ``StrideNetError`` if no picture was read
  func requireSome(_ images: Int) throws {
    guard images == 0 else { return }
    throw StrideNetError(
      .missingInput, "no pictures", at: folder,
      found: skipped.isEmpty
        ? nil
        : skipped.prefix(10).map { "\($0.file), \($0.why)" }.joined(separator: "; ")
          + (skipped.count > 10 ? "; and \((skipped.count - 10).grouped) more" : ""),
      expected: "pictures in folders with the classes' names or numbers: \(folder)/7/one.png")
  }

  /// - Throws: ``StrideNetError`` if something was passed over
  func requireAll() throws {
    guard let first = skipped.first else { return }
    throw StrideNetError(
      .badData, "not all pictures were evaluated", at: folder,
      found: "\(skipped.count.grouped) passed over, the first: \(first.file), \(first.why)",
      expected: "nothing but pictures in folders with the classes' names or numbers",
      hint: "the result is that of the others; convert the rest, or take it away")
  }
}
