import Dispatch
import Foundation
import StrideNetCore
import Synchronization

/// Decodes the pictures of folders into sets of images of one size, on all processors.
struct PictureReader {
  private struct Item {
    let path: String
    let label: Int
    let part: Int
  }

  private let items: [Item]
  private let parts: Int
  private let folder: String
  private let classNames: [String]
  private let options: PictureOptions
  private(set) var skipped: [Dataset.Skipped]
  /// Of each folder, the files that were read.
  private(set) var files: [[String]] = []
  /// How many pictures there are of each size.
  private(set) var sizes: [String: Int] = [:]

  init(_ folders: [PictureFolder], _ names: [String], _ options: PictureOptions) {
    let labels = Dictionary(uniqueKeysWithValues: names.enumerated().map { ($1, $0) })
    (parts, folder, classNames) = (folders.count, folders[0].path, names)
    self.options = options
    items = folders.enumerated().flatMap { part, folder in
      // In the order of the labels, which a list of classes may have changed.
      folder.classes.sorted { labels[$0.name]! < labels[$1.name]! }.flatMap { name, files in
        files.map { Item(path: $0, label: labels[name]!, part: part) }
      }
    }
    skipped = folders.flatMap(\.skipped)
  }

  /// - Parameter progress: told how many files of how many are done, on any thread
  mutating func read(_ progress: (@Sendable (Int, Int) -> Void)?) throws -> [ImageSet] {
    try requireAll()
    let known = each(progress) { try PictureFile($0.path).size() }
    for case .success((let h, let w)) in known { sizes["\(h)×\(w)", default: 0] += 1 }
    let (height, width) = size(known)
    let channels = options.colour == .grey || options.fit == .digits ? 1 : 3
    let shape = Shape(height, width, channels)
    let bytes = items.count * shape.count
    try MemoryNeed.probe(bytes: 2 * bytes, for: "\(items.count) pictures of \(shape)")
    let fit = options.fit
    let images = each(progress) { item in
      try Picture.read(at: item.path).fitted(to: shape, fit).pixels
    }
    for (item, image) in zip(items, images) {
      guard case .failure(let error) = image else { continue }
      let known = error as? StrideNetError
      let why = [known?.what ?? "\(error)", known?.found].compactMap { $0 }.joined(separator: ": ")
      skipped.append(.init(file: item.path, why: why))
    }
    try requireAll()
    return try sets(images.map { try? $0.get() }, shape)
  }

  /// What comes of each file, in order.
  private func each<T: Sendable>(
    _ progress: (@Sendable (Int, Int) -> Void)?, _ work: @Sendable (Item) throws -> T
  ) -> [Result<T, any Error>] {
    let items = items
    let done = Atomic<Int>(0)
    return [Result<T, any Error>](unsafeUninitializedCapacity: items.count) { buffer, count in
      let cells = Cells(start: buffer.baseAddress)
      DispatchQueue.concurrentPerform(iterations: items.count) { i in
        (cells.start! + i).initialize(to: Result { try work(items[i]) })
        progress?(done.add(1, ordering: .relaxed).newValue, items.count)
      }
      count = items.count
    }
  }

  /// The size that is asked for, or the commonest, reduced.
  private func size(_ known: [Result<(height: Int, width: Int), any Error>]) -> (Int, Int) {
    if let height = options.height, let width = options.width { return (height, width) }
    let counts = Dictionary(
      grouping: known.compactMap { try? $0.get() }, by: { Shape($0.height, $0.width, 1) })
    // Of equally common ones the largest, and of these the highest, so that it is always the same.
    let order = { (s: Shape) in (counts[s]!.count, s.count, s.height) }
    guard let common = counts.keys.max(by: { order($0) < order($1) }) else {
      return (1, 1)
    }
    let (h, w, most) = (common.height, common.width, PictureOptions.largest)
    let longest = max(h, w)
    if longest <= most { return (h, w) }
    return (max(1, (h * most + longest / 2) / longest), max(1, (w * most + longest / 2) / longest))
  }

  private func requireAll() throws {
    guard options.isStrict, let first = skipped.first else { return }
    throw StrideNetError(
      .badData, "a file that can't be used", at: first.file, found: first.why,
      expected: "nothing but pictures in folders with the classes' names",
      hint: "\(skipped.count) such files; without --strict they are named and passed over")
  }

  private mutating func sets(_ images: [[UInt8]?], _ shape: Shape) throws -> [ImageSet] {
    let isGrey =
      shape.channels == 3 && options.colour == .auto
      && images.allSatisfy { $0.map(Self.isGrey) ?? true }
    files = (0..<parts).map { part in
      zip(items, images).filter { $0.part == part && $1 != nil }.map(\.0.path)
    }
    return try (0..<parts).map { part in
      var (pixels, labels): ([UInt8], [Int]) = ([], [])
      pixels.reserveCapacity(files[part].count * shape.count / (isGrey ? 3 : 1))
      for (item, image) in zip(items, images) where item.part == part {
        guard let image else { continue }
        pixels += isGrey ? stride(from: 0, to: image.count, by: 3).map { image[$0] } : image
        labels.append(item.label)
      }
      let found = Set(labels)
      if let lost = items.first(where: { $0.part == part && !found.contains($0.label) }) {
        throw StrideNetError(
          .badData, "a class of which no picture can be read",
          at: URL(filePath: lost.path).deletingLastPathComponent().path,
          found: skipped.first { $0.file == lost.path }.map { "\($0.file), \($0.why)" },
          expected: PictureFile.kinds)
      }
      return try ImageSet(
        count: labels.count, height: shape.height, width: shape.width,
        channels: isGrey ? 1 : shape.channels, pixels: pixels, labels: labels)
    }
  }

  private static func isGrey(_ pixels: [UInt8]) -> Bool {
    for i in stride(from: 0, to: pixels.count, by: 3) {
      if pixels[i] != pixels[i + 1] || pixels[i] != pixels[i + 2] { return false }
    }
    return true
  }
}

// A cell belongs to the one call that fills it, and all are filled before they are read.
private struct Cells<T>: @unchecked Sendable {
  let start: UnsafeMutablePointer<T>?
}
