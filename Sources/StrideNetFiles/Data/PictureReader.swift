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
  /// The folders' paths.
  private let parts: [String]
  private let classNames: [String]
  private let options: PictureOptions
  private(set) var skipped: [Dataset.Skipped]
  /// Of each folder, the files that were read.
  private(set) var files: [[String]] = []
  /// How many pictures there are of each size.
  private(set) var sizes: [String: Int] = [:]
  /// What is to be said, but for files that were passed over.
  private(set) var notes: [String] = []

  init(_ folders: [PictureFolder], _ names: [String], _ options: PictureOptions) {
    let labels = Dictionary(uniqueKeysWithValues: names.enumerated().map { ($1, $0) })
    (parts, classNames) = (folders.map(\.path), names)
    self.options = options
    items = folders.enumerated().flatMap { part, folder in
      // In the order of the labels, which a list of classes may have changed.
      folder.classes.sorted { labels[$0.name]! < labels[$1.name]! }.flatMap { name, files in
        files.map { Item(path: $0, label: labels[name]!, part: part) }
      }
    }
    skipped = folders.flatMap(\.skipped)
  }

  /// Of pictures with numbers to predict, which have no classes.
  init(_ tables: [TargetTable], _ options: PictureOptions) {
    (parts, classNames) = (tables.map(\.folder), [])
    self.options = options
    items = tables.enumerated().flatMap { part, table in
      table.files.map { Item(path: $0, label: 0, part: part) }
    }
    skipped = tables.flatMap(\.skipped)
  }

  /// - Parameter progress: told how many files of how many are done, on any thread
  mutating func read(_ progress: (@Sendable (Int, Int) -> Void)?) throws -> [ImageSet] {
    try requireAll()
    let cache = cache
    if let cache, let found = cached(cache) {
      let pixels = found.pixels
      try take(found.description)
      return try parts.indices.map { part in
        try set(pixels[part], found.description.parts[part], found.description.shape)
      }
    }
    let shape = try shape(progress)
    try MemoryNeed.probe(
      bytes: 2 * items.count * shape.count, for: "\(items.count) pictures of \(shape)")
    let images = decoded(items.indices, shape, progress)
    try requireAll()
    let sets = try sets(images, shape)
    if let cache { keep(sets, images, in: cache) }
    return sets
  }

  /// The size of all images.
  private mutating func shape(_ progress: (@Sendable (Int, Int) -> Void)?) throws -> Shape {
    let known = each(items.indices, progress) { try PictureFile($0.path).size() }
    for case .success((let h, let w)) in known { sizes["\(h)×\(w)", default: 0] += 1 }
    let (height, width) = size(known)
    return Shape(height, width, options.colour == .grey || options.fit == .digits ? 1 : 3)
  }

  /// Some pictures' images; nil for those that can't be read, which are named.
  private mutating func decoded(
    _ range: Range<Int>, _ shape: Shape, _ progress: (@Sendable (Int, Int) -> Void)?
  ) -> [[UInt8]?] {
    let fit = options.fit
    let images = each(range, progress) { item in
      try Picture.read(at: item.path).fitted(to: shape, fit).pixels
    }
    for (item, image) in zip(items[range], images) {
      guard case .failure(let error) = image else { continue }
      let known = error as? StrideNetError
      let why = [known?.what ?? "\(error)", known?.found].compactMap { $0 }.joined(separator: ": ")
      skipped.append(.init(file: item.path, why: why))
    }
    return images.map { try? $0.get() }
  }

  /// What comes of each file, in order.
  private func each<T: Sendable>(
    _ range: Range<Int>, _ progress: (@Sendable (Int, Int) -> Void)?,
    _ work: @Sendable (Item) throws -> T
  ) -> [Result<T, any Error>] {
    let items = items
    let done = Atomic<Int>(range.lowerBound)
    return [Result<T, any Error>](unsafeUninitializedCapacity: range.count) { buffer, count in
      let cells = Cells(start: buffer.baseAddress)
      DispatchQueue.concurrentPerform(iterations: range.count) { i in
        (cells.start! + i).initialize(to: Result { try work(items[range.lowerBound + i]) })
        progress?(done.add(1, ordering: .relaxed).newValue, items.count)
      }
      count = range.count
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
      expected: classNames.isEmpty
        ? "nothing but the pictures that \(TargetTable.name) names"
        : "nothing but pictures in folders with the classes' names",
      hint: "\(skipped.count) such files; without --strict they are named and passed over")
  }

  // MARK: Kept pictures

  /// Where the images are kept, if they are.
  private var cache: PictureCache? {
    guard let folder = options.cache else { return nil }
    var digest = SHA256()
    func add(_ text: String) { digest.update(Array("\(text.utf8.count) \(text)".utf8)) }
    // Another version may decode otherwise; the number behind it is for changes within one.
    add("\(Runtime.version) 1")
    add("\(options.height ?? 0)x\(options.width ?? 0) \(options.fit) \(options.colour)")
    for name in classNames { add(name) }
    for item in items {
      add("\(item.part) \(item.label) \(item.path.dropFirst(parts[item.part].count))")
      // A file that can't be asked can't be read either: it is passed over until it can be.
      add(FileStamp(item.path).map { "\($0.size) \($0.modified) \($0.changed)" } ?? "none")
    }
    return PictureCache(folder, key: digest.hex)
  }

  /// What is kept, if it is whole.
  private mutating func cached(_ cache: PictureCache) -> (
    description: PictureCache.Description, pixels: [[UInt8]]
  )? {
    guard let (file, description) = described(cache) else { return nil }
    do {
      return (description, try cache.pixels(file, description))
    } catch {
      notes.append(cache.broken(error))
      return nil
    }
  }

  private mutating func described(_ cache: PictureCache) -> (
    file: InputFile, description: PictureCache.Description
  )? {
    guard cache.isThere else { return nil }
    do {
      let (file, description) = try cache.description()
      let places = description.parts.joined()
      guard description.parts.count == parts.count, places.allSatisfy(items.indices.contains),
        description.skipped.keys.allSatisfy(items.indices.contains)
      else { throw StrideNetError(.badData, "pictures that aren't there", at: cache.path) }
      return (file, description)
    } catch {
      notes.append(cache.broken(error))
      return nil
    }
  }

  /// Takes over what is said of kept pictures.
  private mutating func take(_ description: PictureCache.Description) throws {
    sizes = description.sizes
    for (place, why) in description.skipped.sorted(by: { $0.key < $1.key }) {
      skipped.append(.init(file: items[place].path, why: why))
    }
    try requireAll()
    for (part, places) in description.parts.enumerated() { try note(places, of: part) }
  }

  /// Keeps what was decoded; that it can't be is no more than said.
  private mutating func keep(_ sets: [ImageSet], _ images: [[UInt8]?], in cache: PictureCache) {
    // Something may have changed meanwhile.
    guard cache.path == self.cache?.path,
      sets.reduce(0, { $0 + $1.pixels.count }) <= PictureCache.most
    else { return }
    do {
      try cache.write { file in
        var checksum: UInt = PictureCache.crc(0, [])
        for set in sets {
          try file.append(set.pixels)
          checksum = PictureCache.crc(checksum, set.pixels)
        }
        return description(
          sets[0].shape, isGrey: false, checksum, read: images.map { $0 != nil })
      }
    } catch {
      notes.append(
        "the decoded pictures couldn't be kept: \((error as? StrideNetError)?.description ?? "\(error)")"
      )
    }
  }

  private func description(
    _ stored: Shape, isGrey: Bool, _ checksum: UInt, read: [Bool]
  ) -> PictureCache.Description {
    let reasons = Dictionary(skipped.map { ($0.file, $0.why) }) { first, _ in first }
    return .init(
      height: stored.height, width: stored.width, channels: stored.channels, isGrey: isGrey,
      parts: parts.indices.map { part in
        items.indices.filter { items[$0].part == part && read[$0] }
      },
      skipped: Dictionary(
        uniqueKeysWithValues: items.indices.filter { !read[$0] }.map {
          ($0, reasons[items[$0].path] ?? "can't be read")
        }),
      sizes: sizes, checksum: checksum)
  }

  /// The images in a file, for those who read them when they are needed: decoded some at a time where
  /// they aren't there yet.
  /// - Throws: ``StrideNetError`` where there is no place to keep them
  mutating func stored(_ progress: (@Sendable (Int, Int) -> Void)?) throws -> (
    path: String, description: PictureCache.Description, labels: [[Int]]
  ) {
    try requireAll()
    guard let cache else { throw PictureCache.none }
    func labels(_ description: PictureCache.Description) -> [[Int]] {
      description.parts.map { $0.map { items[$0].label } }
    }
    if let (file, description) = described(cache) {
      do {
        try cache.check(file, description)
        try take(description)
        return (cache.path, description, labels(description))
      } catch let error as StrideNetError where error.place == cache.path {
        notes.append(cache.broken(error))
      }
    }
    let shape = try shape(progress)
    var (read, isGrey) = ([Bool](), shape.channels == 3 && options.colour == .auto)
    var result: PictureCache.Description?
    try cache.write { file in
      var checksum: UInt = PictureCache.crc(0, [])
      for start in stride(from: 0, to: items.count, by: 512) {
        let images = decoded(start..<min(items.count, start + 512), shape, progress)
        for image in images.compactMap({ $0 }) {
          try file.append(image)
          checksum = PictureCache.crc(checksum, image)
          isGrey = isGrey && Self.isGrey(image)
        }
        read += images.map { $0 != nil }
      }
      try requireAll()
      result = description(shape, isGrey: isGrey, checksum, read: read)
      return result!
    }
    for (part, places) in result!.parts.enumerated() { try note(places, of: part) }
    return (cache.path, result!, labels(result!))
  }

  private mutating func sets(_ images: [[UInt8]?], _ shape: Shape) throws -> [ImageSet] {
    let isGrey =
      shape.channels == 3 && options.colour == .auto
      && images.allSatisfy { $0.map(Self.isGrey) ?? true }
    let read = items.indices.filter { images[$0] != nil }
    return try parts.indices.map { part in
      let places = read.filter { items[$0].part == part }
      var pixels: [UInt8] = []
      pixels.reserveCapacity(places.count * shape.count / (isGrey ? 3 : 1))
      for place in places {
        let image = images[place]!
        pixels += isGrey ? stride(from: 0, to: image.count, by: 3).map { image[$0] } : image
      }
      try note(places, of: part)
      return try set(
        pixels, places, Shape(shape.height, shape.width, isGrey ? 1 : shape.channels))
    }
  }

  /// Notes the files of a part that were read.
  private mutating func note(_ places: [Int], of part: Int) throws {
    let found = Set(places.map { items[$0].label })
    if let lost = items.first(where: { $0.part == part && !found.contains($0.label) }) {
      throw StrideNetError(
        .badData,
        classNames.isEmpty
          ? "pictures of which none can be read" : "a class of which no picture can be read",
        at: URL(filePath: lost.path).deletingLastPathComponent().path,
        found: skipped.first { $0.file == lost.path }.map { "\($0.file), \($0.why)" },
        expected: PictureFile.kinds)
    }
    files.append(places.map { items[$0].path })
  }

  private func set(_ pixels: [UInt8], _ places: [Int], _ shape: Shape) throws -> ImageSet {
    try ImageSet(
      count: places.count, height: shape.height, width: shape.width, channels: shape.channels,
      pixels: pixels, labels: places.map { items[$0].label })
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
