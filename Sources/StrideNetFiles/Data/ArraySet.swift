import Foundation
import StrideNetCore

/// Arrays of images and labels, told apart by their names: x_train, train_labels,
/// emnist-letters-test-images-idx3-ubyte.
struct ArraySet {
  enum Split: CaseIterable { case all, train, test, validation }
  private enum Content { case images, labels, names }

  private struct Item {
    let name: String
    let group: String
    let split: Split
    let content: Content
    /// Its file, and where in it its bytes lie as they are; nil where they can't be read so.
    let file: (path: String, size: Int, place: () throws -> Range<Int>?)?
    let array: () throws -> NumberArray
  }

  /// What errors call it.
  private let path: String
  private var items: [Item] = []
  /// Names that aren't those of images or labels.
  private var others: [String] = []

  var isEmpty: Bool { !items.contains { $0.content == .images } }

  private init(path: String) { self.path = path }

  // MARK: Names

  private static let splits: [String: Split] = [
    "train": .train, "training": .train, "test": .test, "testing": .test, "t10k": .test,
    "val": .validation, "valid": .validation, "validation": .validation,
  ]
  private static let contents: [String: Content] = [
    "x": .images, "images": .images, "image": .images, "imgs": .images, "data": .images,
    "pixels": .images, "features": .images, "y": .labels, "labels": .labels, "label": .labels,
    "targets": .labels, "target": .labels, "names": .names, "classes": .names,
  ]
  /// What IDX files have at their ends, and what says nothing.
  private static let types = ["ubyte", "byte", "short", "int", "float", "double", "class", "npy"]

  private mutating func add(
    _ name: String,
    file: (path: String, size: Int, place: () throws -> Range<Int>?)? = nil,
    _ array: @escaping () throws -> NumberArray
  ) {
    let words = name.lowercased().split { !$0.isLetter && !$0.isNumber }.map(String.init)
    var (split, content, group): (Split, Content?, [String]) = (.all, nil, [])
    for word in words {
      if let found = Self.splits[word] {
        split = found
      } else if let found = Self.contents[word] {
        content = content == .names ? .names : found
      } else if !Self.types.contains(word), word.wholeMatch(of: /idx\d/) == nil {
        group.append(word)
      }
    }
    guard let content else { return others.append(name) }
    items.append(
      Item(
        name: name, group: group.joined(separator: "-"), split: split, content: content,
        file: file, array: array))
  }

  private mutating func add(_ item: NPY.Item, named name: String, at path: String) {
    add(name, file: (path, item.size, item.place), item.array)
  }

  // MARK: Places

  /// Of one file.
  init(file: String) throws {
    self.init(path: file)
    if file.lowercased().hasSuffix(".safetensors") {
      for (name, array) in try Safetensors.arrays(at: file) { add(name, array) }
    } else {
      for item in try NPY.arrays(at: file) { add(item, named: item.name, at: file) }
    }
  }

  /// Of all files in a folder, each perhaps in a folder of its name.
  /// - Parameter prefix: that of the files' names
  init(folder: String, prefix: String = "") {
    self.init(path: prefix.isEmpty ? folder : "\(folder)/\(prefix)")
    let names = (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []
    for name in names.sorted() where name.hasPrefix(prefix) && !PictureFolder.isHidden(name) {
      var path = "\(folder)/\(name)"
      if PictureFolder.isFolder(path) { path += "/\(name)" }
      guard !PictureFolder.isFolder(path), FileManager.default.fileExists(atPath: path) else {
        continue
      }
      let lower = name.lowercased()
      let isIDX = lower.contains(/[-.]idx\d-[a-z]+(\.gz)?$/)
      if isIDX {
        add(name.replacing(/\.gz$/, with: "")) { try IDX.array(at: path) }
      } else if lower.hasSuffix(".npy") || lower.hasSuffix(".npz") {
        // An archive of one array is as good as that.
        guard let arrays = try? NPY.arrays(at: path), arrays.count == 1 else { continue }
        add(arrays[0], named: String(name.dropLast(4)), at: path)
      }
    }
  }

  // MARK: The data set

  private func style() throws -> (group: String, Style) {
    let groups = Set(items.filter { $0.content == .images }.map(\.group)).sorted()
    guard groups.count == 1, let group = groups.first else {
      throw groups.isEmpty
        ? wrong("no images", expected: Self.expected)
        : wrong(
          "several data sets", found: groups.joined(separator: ", "), expected: "one of them",
          hint: "name it: --data \(path)/\(groups[0])")
    }
    return (group, try Style(group, in: path))
  }

  private func labels(_ split: Split, _ group: String) throws -> NumberArray {
    guard let labels = try array(.labels, split, group) else {
      throw wrong("images without labels", found: all, expected: Self.expected)
    }
    return labels
  }

  func dataset(name: String, _ options: PictureOptions) throws -> Dataset {
    let (group, style) = try style()
    var parts: [Split: (images: NumberArray, labels: [Int]?, targets: Tensor?)] = [:]
    for split in Split.allCases {
      guard let images = try array(.images, split, group) else { continue }
      let labels = try labels(split, group)
      parts[split] =
        options.targets == nil
        ? (images, try style.labels(labels), nil) : (images, nil, try labels.targets())
    }
    guard let train = parts[.train] ?? parts[.all] else {
      throw wrong("no images to train with", found: all, expected: Self.expected)
    }
    let scale = try NumberArray.scale(of: parts.values.map(\.images))
    func set(_ part: (images: NumberArray, labels: [Int]?, targets: Tensor?)) throws -> ImageSet {
      let images = try part.images.images(
        labels: part.labels, scale: scale, options, isTransposed: style.isTransposed)
      return try part.targets.map(images.with) ?? images
    }
    let names =
      try options.targets
      ?? classNames(style, group, largest: parts.values.compactMap { $0.labels?.max() }.max() ?? 0)
    guard let test = parts[.test] ?? parts[.validation] else {
      return try Dataset(name: name, source: path, splitting: set(train), classNames: names)
    }
    return try Dataset(
      name: name, source: path, train: set(train), test: set(test),
      validation: parts[.test] == nil ? nil : parts[.validation].map(set), classNames: names)
  }

  private func array(_ content: Content, _ split: Split, _ group: String) throws -> NumberArray? {
    let found = items.filter {
      $0.content == content && $0.split == split && $0.group == group
    }
    guard found.count < 2 else {
      throw wrong("an array twice", found: found.map(\.name).joined(separator: ", "))
    }
    return try found.first?.array()
  }

  private func classNames(_ style: Style, _ group: String, largest: Int) throws -> [String] {
    let names: [String]
    if let given = items.first(where: { $0.content == .names && $0.group == group }) {
      guard case .texts(let texts) = try given.array().values else {
        throw wrong("names that aren't texts", found: given.name)
      }
      names = texts
    } else {
      names = style.classNames ?? Dataset.numbered(largest)
    }
    guard largest < names.count else {
      throw wrong(
        "a label without a name", found: "\(largest)", expected: "0 to \(names.count - 1)")
    }
    return names
  }

  static let expected =
    "x_train, y_train, x_test and y_test, or images and labels under such names"

  private var all: String { Dataset.list(items.map(\.name) + others) }

  private func wrong(
    _ what: String, found: String? = nil, expected: String? = nil, hint: String? = nil
  ) -> StrideNetError {
    StrideNetError(
      .badData, what, at: path, found: found ?? (all.isEmpty ? nil : all), expected: expected,
      hint: hint)
  }
}

extension ArraySet {
  private func images(_ split: Split, _ group: String) -> Item? {
    items.first { $0.content == .images && $0.split == split && $0.group == group }
  }

  /// Bytes of the images to train with, as their file says; 0 where they can't be read in part.
  var streamableBytes: Int {
    guard let group = try? style().group else { return 0 }
    return (images(.train, group) ?? images(.all, group))?.file?.size ?? 0
  }

  /// The data set, with its images in their files.
  func streamed(name: String, _ memory: Int) throws -> StreamedDataset {
    let (group, style) = try style()
    guard !style.isTransposed else {
      throw wrong("images on their sides can't be read one by one", found: group)
    }
    var sets: [Split: StreamedImages] = [:]
    for split in Split.allCases {
      guard let item = images(split, group) else { continue }
      guard let file = item.file, let place = try file.place() else {
        throw wrong(
          "an array that can't be read in part", found: item.name,
          expected: "NumPy's arrays as they are, not packed",
          hint: "write them with numpy.savez or numpy.save, not with savez_compressed")
      }
      let all = try style.labels(labels(split, group)).map { UInt16(clamping: $0) }
      sets[split] = try Dataset.checked(NPY.layout(at: file.path, place), all, memory)
    }
    guard let train = sets[.train] ?? sets[.all] else {
      throw wrong("no images to train with", expected: Self.expected)
    }
    let rest = [sets[.test] ?? sets[.validation], sets[.test].flatMap { _ in sets[.validation] }]
    let all = [train] + rest.compactMap { $0 }
    let largest = all.compactMap { $0.labels.max() }.max()!
    return try Dataset.streamed(
      name: name, source: path, all,
      classNames: try classNames(style, group, largest: Int(largest)))
  }
}

/// The ways of data sets that have some of their own.
private struct Style {
  /// EMNIST's images lie on their sides.
  let isTransposed: Bool
  private(set) var classNames: [String]?
  /// QMNIST has a row for each image, of which the label is the first.
  private let column: Int?
  /// What the smallest label is: EMNIST's letters begin with 1.
  private var first = 0

  init(_ group: String, in path: String) throws {
    let words = group.split(separator: "-")
    isTransposed = words.contains("emnist")
    column = words.contains("qmnist") ? 0 : nil
    guard isTransposed else { return }
    let folder =
      PictureFolder.isFolder(path) ? path : URL(filePath: path).deletingLastPathComponent().path
    if let file = try? InputFile("\(folder)/\(group)-mapping.txt") {
      try read(String(decoding: file.readAll(limit: 1 << 16), as: UTF8.self), file.path)
    } else if words.contains("letters") {
      first = 1
      classNames = (65..<91).map { String(Unicode.Scalar($0)!) }
    }
  }

  /// A line a class: the label, and the codes of the characters that it is for.
  private mutating func read(_ text: String, _ path: String) throws {
    let rows = text.split(whereSeparator: \.isNewline).map {
      $0.split(separator: " ").map { UInt32($0) ?? 0 }
    }
    guard let label = rows.first?.first.map(Int.init) else { return }
    first = label
    classNames = try rows.enumerated().map { index, row in
      guard row.count > 1, Int(row[0]) == first + index, let scalar = Unicode.Scalar(row[1]) else {
        throw StrideNetError(
          .badData, "a mapping that isn't one", at: "\(path), line \(index + 1)",
          expected: "\(first + index) and the code of a character")
      }
      return String(scalar)
    }
  }

  func labels(_ array: NumberArray) throws -> [Int] {
    let labels = try array.labels(column: column)
    guard let low = labels.min(), low >= first else {
      throw StrideNetError(
        .badData, "a label that isn't one", at: array.name, found: "\(labels.min() ?? 0)",
        expected: "labels from \(first)")
    }
    return first == 0 ? labels : labels.map { $0 - first }
  }
}
