import Foundation
import StrideNetCore

/// A data set whose images stay in their files, for those larger than memory: IDX files and NumPy's
/// arrays, of bytes and not compressed, and what is unpacked or decoded once into the cache folder:
/// gzipped IDX files, and pictures in class folders.
public struct StreamedDataset: Sendable {
  /// The name of a folder.
  public let name: String
  /// Where it came from, for people.
  public let source: String
  public let train, test: StreamedImages
  /// Images that come with the data to choose by, if any do.
  public let validation: StreamedImages?
  /// What the classes are called, from label 0.
  public let classNames: [String]
  package var fit: Picture.Fit?
  package var skipped: [Dataset.Skipped] = []
  package var notes: [String] = []

  fileprivate init(
    name: String, source: String, train: StreamedImages, test: StreamedImages,
    validation: StreamedImages? = nil, classNames: [String]
  ) throws {
    for other in [test, validation].compactMap({ $0 }) where other.shape != train.shape {
      throw StrideNetError(
        .badData, "training and other images differ in size", at: source,
        found: "training \(train.shape), others \(other.shape)")
    }
    (self.name, self.source, self.train, self.test) = (name, source, train, test)
    (self.validation, self.classNames) = (validation, classNames)
  }

  /// The same classes with other images.
  private func with(
    _ change: String, train: StreamedImages, test: StreamedImages,
    validation: StreamedImages? = nil
  ) throws -> StreamedDataset {
    var result = try StreamedDataset(
      name: name, source: "\(source), \(change)", train: train, test: test,
      validation: validation, classNames: classNames)
    (result.fit, result.skipped, result.notes) = (fit, skipped, notes)
    return result
  }

  /// As ``Dataset/holdingOut(_:seed:)``.
  public func holdingOut(_ amount: Double, seed: UInt64 = 1) throws -> StreamedDataset {
    let (places, change) = try Dataset.heldOut(amount, train.labels, seed, at: source)
    let out = Set(places)
    return try with(
      change, train: train.picking((0..<train.count).filter { !out.contains($0) }),
      test: train.picking(places))
  }

  /// As ``Dataset/limited(to:)``.
  public func limited(to n: Int) throws -> StreamedDataset {
    let (places, change) = try Dataset.limit(n, train.labels, at: source)
    return try with(change, train: train.picking(places), test: test, validation: validation)
  }

  func choosingByValidation() throws -> StreamedDataset {
    try validation.map {
      try with("\($0.count) images of its own to validate", train: train, test: $0)
    } ?? self
  }

  /// What a method comes to for the training images, which are all read for it.
  package func normalization(_ method: InputNormalization.Method?) throws -> InputNormalization? {
    method == .standard
      ? InputNormalization(counts: try train.counts())
      : InputNormalization.of(method, channels: train.shape.channels)
  }
}

extension InputNormalization {
  /// Mean and deviation of each channel of some images, all of which are read for it.
  /// - Throws: ``StrideNetError`` where they can't be
  public static func standard(of images: StreamedImages) throws -> InputNormalization {
    InputNormalization(counts: try images.counts())
  }
}

extension Trainer {
  /// Trains on images that stay in their files.
  /// - Throws: ``StrideNetError`` where settings, data and network don't fit together
  public convenience init(
    _ network: Network, _ data: StreamedDataset, _ settings: TrainingSettings
  ) throws {
    try network.build(for: data.train.shape)
    try Dataset.checkNames(data.classNames, outputs: network.classes, at: data.source)
    try self.init(
      network, train: data.train, test: data.test, settings, source: data.source)
    (network.classNames, network.pictureFit) = (data.classNames, data.fit ?? data.train.usualFit)
  }
}

extension Dataset {
  /// Opens a data set whose images stay in their files: see ``StreamedDataset``.
  /// - Parameters:
  ///   - options: how pictures become images of one size, and where they are kept decoded
  ///   - memory: bytes for the images of each set that are at hand
  ///   - progress: told how many pictures of how many are decoded, on any thread
  /// - Throws: ``StrideNetError`` where the files aren't such that a part can be read alone
  public static func stream(
    _ data: String, _ options: PictureOptions = PictureOptions(),
    memory: Int = StreamedImages.usualMemory,
    environment: [String: String] = ProcessInfo.processInfo.environment,
    progress: (@Sendable (_ done: Int, _ all: Int) -> Void)? = nil
  ) throws -> StreamedDataset {
    let path =
      folders(of: data, environment).first {
        isName(data) && PictureFolder.isFolder($0)
      } ?? data
    let name = URL(fileURLWithPath: data).standardizedFileURL.lastPathComponent
    guard options.targets == nil, !TargetTable.isThere(path) else {
      throw StrideNetError(
        .usage, "numbers to predict can't be read with images that stay in their files", at: path,
        found: "--targets, or \(TargetTable.name), and --stream", expected: "one of them")
    }
    let paths = files.compactMap { find($0, in: path) }
    if paths.count == 4 { return try streamIDX(paths, path, name, options, memory) }
    let arrays = try arrays(at: path)
    if !arrays.isEmpty { return try arrays.streamed(name: name, memory) }
    guard PictureFolder.isFolder(path), !CIFAR.isOne(path), !hasTables(path), hasClassFolders(path)
    else {
      throw StrideNetError(
        .badData, "a data set whose images can't be read one by one", at: path,
        expected: "IDX files or NumPy's arrays of bytes, or pictures in class folders",
        hint: "stridenet data \(path) --save FOLDER writes IDX files, where it fits into memory; "
          + "numpy.save writes what doesn't")
    }
    return try streamPictures(path, name, options, memory, progress)
  }

  /// Bytes of the training images of a set in memory, by the sizes of its files; 0 where ``stream`` has
  /// none of it.
  package static func streamableBytes(_ data: String, _ options: PictureOptions) -> Int {
    guard options.targets == nil, !TargetTable.isThere(data) else { return 0 }
    if let images = find(files[0], in: data) {
      return images.hasSuffix(".gz") ? 0 : FileStamp(images)?.size ?? 0
    }
    if let arrays = try? arrays(at: data), !arrays.isEmpty { return arrays.streamableBytes }
    guard PictureFolder.isFolder(data), !CIFAR.isOne(data), !hasTables(data), hasClassFolders(data)
    else { return 0 }
    let train = splits[0].map { "\(data)/\($0)" }.first(where: hasClassFolders)
    let pictures = PictureFolder(train ?? data).classes.reduce(0) { $0 + $1.files.count }
    let side = PictureOptions.largest
    return pictures * (options.height ?? side) * (options.width ?? side) * 3
  }

  /// Whether a set's images take more than half of the memory that there is.
  package static func isTooLargeForMemory(_ data: String, _ options: PictureOptions) -> Bool {
    guard let available = SystemLimits().availableMemory else { return false }
    return streamableBytes(data, options) > available / 2
  }

  // MARK: Kinds

  /// NumPy's arrays in a folder, or in a file.
  private static func arrays(at path: String) throws -> ArraySet {
    let isFile =
      [".npz", ".npy"].contains(where: path.lowercased().hasSuffix)
      && FileManager.default.fileExists(atPath: path)
    return isFile ? try ArraySet(file: path) : ArraySet(folder: path)
  }

  private static func streamIDX(
    _ paths: [String], _ folder: String, _ name: String, _ options: PictureOptions, _ memory: Int
  ) throws -> StreamedDataset {
    let images = [paths[0], paths[2]]
    var notes: [String] = []
    let layouts =
      try images.contains { try IDX.isPacked($0) }
      ? unpacked(images, options.cache, &notes) : images.map { try IDX.layout(at: $0) }
    func set(_ layout: (StreamedImages.Layout, count: Int), _ labels: String) throws
      -> StreamedImages
    {
      try checked(layout, IDX.labels(at: labels).map(UInt16.init), memory)
    }
    let (train, test) = (try set(layouts[0], paths[1]), try set(layouts[1], paths[3]))
    let largest = UInt8(max(train.labels.max()!, test.labels.max()!))
    var result = try StreamedDataset(
      name: name, source: folder, train: train, test: test,
      classNames: try classNames(folder, name, largest))
    result.notes = notes
    return result
  }

  /// Where the images of files lie when they are unpacked: in the cache folder, as decoded pictures,
  /// where they are unpacked unless they are there.
  private static func unpacked(
    _ paths: [String], _ folder: String?, _ notes: inout [String]
  ) throws -> [(StreamedImages.Layout, count: Int)] {
    guard let folder else { throw PictureCache.none }
    var digest = SHA256()
    digest.update(Array("unpacked 1".utf8))
    for path in paths {
      let stamp = FileStamp(path).map { " \($0.size) \($0.modified) \($0.changed)" } ?? ""
      digest.update(Array("\(path.utf8.count) \(path)\(stamp)".utf8))
    }
    let cache = PictureCache(folder, key: digest.hex)
    func layouts(_ d: PictureCache.Description) -> [(StreamedImages.Layout, count: Int)] {
      var offset = 0
      return d.parts.map { part in
        defer { offset += part.count * d.imageBytes }
        return (.init(path: cache.path, offset: offset, shape: d.shape), part.count)
      }
    }
    if cache.isThere {
      do {
        let (file, description) = try cache.description()
        try cache.check(file, description)
        return layouts(description)
      } catch {
        notes.append(cache.broken(error))
      }
    }
    var result: PictureCache.Description?
    try cache.write { file in
      var checksum = PictureCache.crc(0, [])
      let sizes = try paths.map { path in
        try IDX.unpack(path) { piece in
          try file.append(piece)
          checksum = PictureCache.crc(checksum, piece)
        }
      }
      let shapes = sizes.map { Shape($0[1], $0[2], $0.count > 3 ? $0[3] : 1) }
      guard shapes[0] == shapes[1], [1, 3].contains(shapes[0].channels) else {
        throw StrideNetError(
          .badData, "images that can't be kept unpacked", at: paths[1],
          found: shapes.map { "\($0)" }.joined(separator: " and "),
          expected: "the same size in all files, of 1 or 3 channels", hint: "gunzip the files")
      }
      result = .init(
        height: shapes[0].height, width: shapes[0].width, channels: shapes[0].channels,
        isGrey: false, parts: sizes.map { Array(0..<$0[0]) }, skipped: [:], sizes: [:],
        checksum: checksum)
      return result!
    }
    return layouts(result!)
  }

  static func checked(
    _ layout: (StreamedImages.Layout, count: Int), _ labels: [UInt16], _ memory: Int
  ) throws -> StreamedImages {
    guard layout.count == labels.count else {
      throw StrideNetError(
        .badData, "images and labels differ in number", at: layout.0.path,
        found: "\(layout.count) images, \(labels.count) labels",
        expected: "one label for each image", hint: "are the files from the same data set?")
    }
    return try StreamedImages(layout.0, labels: labels, memory: memory)
  }

  /// Where no images are for the test, a fifth of each class is, as in ``Dataset``.
  static func streamed(
    name: String, source: String, splitting set: StreamedImages, classNames: [String]
  ) throws -> StreamedDataset {
    let test = heldOut(set.labels)
    guard !test.isEmpty else {
      throw StrideNetError(
        .badData, "too few images to train and to test", at: source, found: "\(set.count)",
        expected: "two of a class at least")
    }
    let isTest = Set(test)
    return try StreamedDataset(
      name: name, source: "\(source), a fifth of each class held out to test",
      train: set.picking((0..<set.count).filter { !isTest.contains($0) }),
      test: set.picking(test), classNames: classNames)
  }

  static func streamed(
    name: String, source: String, _ sets: [StreamedImages], classNames: [String]
  ) throws -> StreamedDataset {
    guard sets.count > 1 else {
      return try streamed(name: name, source: source, splitting: sets[0], classNames: classNames)
    }
    return try StreamedDataset(
      name: name, source: source, train: sets[0], test: sets[1],
      validation: sets.count > 2 ? sets[2] : nil, classNames: classNames)
  }

  private static func streamPictures(
    _ folder: String, _ name: String, _ options: PictureOptions, _ memory: Int,
    _ progress: (@Sendable (Int, Int) -> Void)?
  ) throws -> StreamedDataset {
    let folders = try classFolders(folder)
    let names = try classNames(of: folders, in: folder)
    var reader = PictureReader(folders, names, options)
    let (path, description, labels) = try reader.stored(progress)
    var offset = 0
    let sets = try labels.map { labels in
      defer { offset += labels.count * description.imageBytes }
      return try StreamedImages(
        .init(
          path: path, offset: offset, shape: description.shape,
          step: description.isGrey ? description.channels : 1),
        labels: labels.map { UInt16($0) }, memory: memory)
    }
    var result = try streamed(name: name, source: folder, sets, classNames: names)
    (result.fit, result.skipped, result.notes) = (options.fit, reader.skipped, reader.notes)
    return result
  }
}

extension IDX {
  /// Where the images of a file lie.
  /// - Throws: ``StrideNetError`` where they aren't bytes, or compressed
  static func layout(at path: String) throws -> (StreamedImages.Layout, count: Int) {
    let sizes = try streamableSizes(at: path)
    return (
      .init(
        path: path, offset: 4 + 4 * sizes.count,
        shape: Shape(sizes[1], sizes[2], sizes.count > 3 ? sizes[3] : 1)), sizes[0]
    )
  }
}

extension NPY {
  /// Where the images of an array lie that has this part of a file.
  /// - Throws: ``StrideNetError`` where they aren't bytes with their channels last
  static func layout(at path: String, _ place: Range<Int>) throws -> (
    StreamedImages.Layout, count: Int
  ) {
    let file = try InputFile(path)
    var start = [UInt8](repeating: 0, count: min(place.count, 65_548))
    _ = try start.withUnsafeMutableBytes { try file.read(into: $0, from: place.lowerBound) }
    let (kind, shape, offset, _) = try header(start, path)
    let channels = shape.count > 3 ? shape[3] : 1
    guard kind == .unsigned(1), (3...4).contains(shape.count), [1, 3].contains(channels),
      !shape.contains(0)
    else {
      throw StrideNetError(
        .badData, "an array whose images can't be read one by one", at: path,
        found: "\(NumberArray.text(shape)) of \(kind == .unsigned(1) ? "bytes" : "other numbers")",
        expected: "N×H×W or N×H×W×C of bytes (uint8), 1 or 3 channels")
    }
    guard let bytes = Shape.product(shape), offset + bytes == place.count else {
      throw StrideNetError(
        .badData, "a NumPy array that can't be read", at: path, found: "\(place.count) bytes",
        expected: "as many as \(NumberArray.text(shape)) has")
    }
    return (
      .init(
        path: path, offset: place.lowerBound + offset, shape: Shape(shape[1], shape[2], channels)),
      shape[0]
    )
  }
}
