import Foundation
import MNISTSample
import StrideNetCore

extension Dataset {
  /// Loads "sample", "mnist", "fashion-mnist", or a file or folder of one's own. Without a name: the
  /// full MNIST if this machine has it, else the sample.
  ///
  /// A folder has four files of IDX under their usual names, with a minus or a dot before idx, with or
  /// without .gz; EMNIST's, QMNIST's or KMNIST's under theirs; CIFAR's; tables, `train.csv` and
  /// `test.csv`; arrays of NumPy's, `x_train.npy` and so on; or pictures in a folder for each class,
  /// perhaps in `train` and `test`. A file is NumPy's .npz, .csv or .safetensors. Where nothing is said
  /// to be the test set, a fifth of each class is.
  /// - Parameters:
  ///   - options: how pictures become images of one size
  ///   - environment: the named ones are looked for in $STRIDENET_DATA and in the cache folder, where
  ///     `stridenet fetch` puts them
  ///   - progress: told how many files of how many are read, on any thread
  public static func load(
    _ data: String? = nil, _ options: PictureOptions = PictureOptions(),
    environment: [String: String] = ProcessInfo.processInfo.environment,
    progress: (@Sendable (_ done: Int, _ all: Int) -> Void)? = nil
  ) throws -> Dataset {
    switch data {
    case let name? where isName(name) && options.targets != nil: throw noTargets(at: name)
    case nil where options.targets != nil: throw noTargets(at: "the usual data set")
    case nil:
      let folder = folders(of: "mnist", environment).first(where: holdsAny)
      return try folder.map { try load(folder: $0, name: "mnist") } ?? sample()
    case "sample": return try sample()
    case let name? where Self.fetchable.contains(name):
      let folders = folders(of: name, environment)
      guard let folder = folders.first(where: holdsAny) else {
        throw StrideNetError(
          .missingInput, "\(name) isn't on this machine",
          at: "looked in " + folders.joined(separator: ", "),
          hint: "stridenet fetch \(name) gets it, or set STRIDENET_DATA to the folder that has it")
      }
      return try load(folder: folder, name: name)
    case let path?: return try load(path: path, options, progress)
    }
  }

  /// What is at a path, told apart by its names.
  private static func load(
    path: String, _ options: PictureOptions, _ progress: (@Sendable (Int, Int) -> Void)?
  ) throws -> Dataset {
    let name = URL(fileURLWithPath: path).standardizedFileURL.lastPathComponent
    guard PictureFolder.isFolder(path) else { return try load(file: path, name, options) }
    // Of IDX with other numbers than bytes, arrays are made as of other files.
    let hasIDX = holdsAny(path)
    let isOther = files.contains { find($0, in: path).map(IDX.isOther) ?? false }
    if hasIDX && !isOther && options.targets == nil { return try load(folder: path, name: name) }
    if CIFAR.isOne(path) && options.targets == nil { return try CIFAR.load(path, name: name) }
    let arrays = ArraySet(folder: path)
    if !arrays.isEmpty { return try arrays.dataset(name: name, options) }
    if hasTables(path) { return try loadTables(path, name: name, options) }
    if TargetTable.isThere(path) {
      return try loadPredicted(path, name: name, options, progress)
    }
    if options.targets != nil { throw noTargets(at: path) }
    if hasClassFolders(path) { return try loadPictures(path, name: name, options, progress) }
    throw nothing(in: path)
  }

  /// A file, or what the names of some in a folder begin with.
  private static func load(
    file path: String, _ name: String, _ options: PictureOptions
  ) throws -> Dataset {
    let lower = path.lowercased()
    let exists = FileManager.default.fileExists(atPath: path)
    if exists && [".npz", ".npy", ".safetensors"].contains(where: lower.hasSuffix) {
      return try ArraySet(file: path).dataset(name: name, options)
    }
    if exists && lower.hasSuffix(".csv") { return try loadTables(path, name: name, options) }
    let url = URL(fileURLWithPath: path)
    let arrays = ArraySet(folder: url.deletingLastPathComponent().path, prefix: name + "-")
    if !exists && !arrays.isEmpty { return try arrays.dataset(name: name, options) }
    throw StrideNetError(
      .missingInput, exists ? "a file isn't a data set" : "no such data set or folder", at: path,
      expected: "sample, \(fetchable.joined(separator: ", ")), or \(kinds)",
      hint: "check the name")
  }

  static let targetsHint = "numbers to predict are asked for with --targets"

  private static func noTargets(at place: String) -> StrideNetError {
    StrideNetError(
      .usage, "a data set that has classes, not numbers to predict", at: place,
      found: "--targets",
      expected: "a table, arrays, or a folder of pictures with "
        + "\(TargetTable.name), which names them and their numbers")
  }

  static func nothing(in folder: String) -> StrideNetError {
    let names = (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []
    return StrideNetError(
      .missingInput, "no data set in the folder", at: folder,
      found: names.isEmpty ? "nothing" : list(names.sorted()), expected: kinds)
  }

  /// What may be loaded by its path.
  package static let kinds =
    "a folder of IDX files (\(files[0]) …), of pictures in a folder for each class, of CIFAR's files or of train.csv and test.csv; or a file .npz, .csv or .safetensors"

  /// Whether it is a data set's name, not a path.
  static func isName(_ data: String) -> Bool { data == "sample" || fetchable.contains(data) }

  /// The path from the root on, if it is a path.
  package static func fullPath(_ data: String) -> String {
    isName(data) ? data : URL(fileURLWithPath: data).standardizedFileURL.path
  }

  /// Whether there is a file or folder, or files whose names begin so.
  static func isThere(_ path: String) -> Bool {
    let url = URL(fileURLWithPath: path)
    let names = try? FileManager.default.contentsOfDirectory(
      atPath: url.deletingLastPathComponent().path)
    return FileManager.default.fileExists(atPath: path)
      || names?.contains { $0.hasPrefix(url.lastPathComponent + "-") } ?? false
  }

  /// The data sets with a name that aren't part of the library.
  static let fetchable = ["mnist", "fashion-mnist"]

  /// The four files under their usual names, training before test, images before labels.
  static let files = [
    "train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
  ]

  /// Where a data set may lie; the first is where it's put when fetched.
  static func folders(of name: String, _ environment: [String: String]) -> [String] {
    var folders: [String] = []
    if let own = environment["STRIDENET_DATA"], !own.isEmpty {
      folders.append("\(own)/\(name)")
      // Which data set lies there directly can't be told from names: the usual one is assumed.
      if name == "mnist" { folders.append(own) }
    }
    if let cache = cacheFolder(environment) { folders.append("\(cache)/\(name)") }
    // From Debian's package dataset-fashion-mnist.
    if name == "fashion-mnist" { folders.append("/usr/share/datasets/fashion-mnist") }
    return folders
  }

  /// The library's in the user's cache folder, if it is known where that is.
  static func cacheFolder(_ environment: [String: String]) -> String? {
    // The specification of XDG_CACHE_HOME says to ignore a relative path.
    if let cache = environment["XDG_CACHE_HOME"], cache.hasPrefix("/") {
      return "\(cache)/stridenet"
    }
    guard let home = environment["HOME"], !home.isEmpty else { return nil }
    return "\(home)/.cache/stridenet"
  }

  /// The path of one of `files` in a folder, under whichever of its names; in a folder of that name,
  /// as some archives unpack, if it isn't beside it.
  static func find(_ file: String, in folder: String) -> String? {
    // Images with channels have four dimensions; numbers needn't be bytes.
    let kinds = ["idx3", "idx4"].map { file.replacingOccurrences(of: "idx3", with: $0) }
    let all = kinds + kinds.map { $0.replacingOccurrences(of: "ubyte", with: "float") }
    let names = (all + all.map { $0.replacingOccurrences(of: "t10k", with: "test") }).flatMap {
      [$0, $0.replacingOccurrences(of: "-idx", with: ".idx")]
    }.flatMap { [$0, "\($0).gz"] }
    return (names + names.map { "\($0)/\($0)" }).map { "\(folder)/\($0)" }.first {
      FileManager.default.fileExists(atPath: $0) && !PictureFolder.isFolder($0)
    }
  }

  /// One file is enough to take the folder: an incomplete data set is to be noticed, not passed
  /// over for another.
  private static func holdsAny(_ folder: String) -> Bool {
    files.contains { find($0, in: folder) != nil }
  }

  private static func load(folder: String, name: String) throws -> Dataset {
    let paths = try files.map { file in
      guard let path = find(file, in: folder) else {
        throw StrideNetError(
          .missingInput, "the data set lacks one of its four files", at: folder,
          found: "no \(file), with or without .gz",
          hint: fetchable.contains(name)
            ? "stridenet fetch \(name) gets it; --data sample does without"
            : "the four files are " + files.joined(separator: ", "))
      }
      return path
    }
    let (images, testImages) = (try IDX.images(at: paths[0]), try IDX.images(at: paths[2]))
    let (labels, testLabels) = (try self.labels(at: paths[1]), try self.labels(at: paths[3]))
    let ignored = zip(
      paths, [images.ignored, labels.ignored, testImages.ignored, testLabels.ignored]
    ).filter { $1 > 0 }.map { "; \($1) bytes behind the end of \($0) passed over" }
    var result = try Dataset(
      name: name, source: folder + ignored.joined(),
      train: set(images, labels.labels, paths[1]),
      test: set(testImages, testLabels.labels, paths[3]),
      classNames: try classNames(folder, name, max(labels.labels.max()!, testLabels.labels.max()!)))
    // Clothes aren't to be fitted as digits are.
    if name == "fashion-mnist" { result.fit = .crop }
    return result
  }

  /// Those of a list beside the files, or numbers.
  static func classNames(_ folder: String, _ name: String, _ largest: UInt8) throws
    -> [String]
  {
    if name == "fashion-mnist" { return clothes }
    guard let names = try ClassList.names(in: folder) else { return numbered(largest) }
    guard names.count > largest else {
      throw StrideNetError(
        .badData, "a label without a name", at: "\(folder)/\(PictureFolder.classList)",
        found: "label \(largest)", expected: "more than \(largest) names, a line each")
    }
    return names
  }

  /// Fashion-MNIST's.
  private static let clothes = [
    "T-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot",
  ]

  /// Names of classes that are called by their numbers, up to this one.
  static func numbered(_ largest: some BinaryInteger) -> [String] {
    (0...Int(largest)).map(String.init)
  }

  private static func labels(at path: String) throws -> (labels: [UInt8], ignored: Int) {
    try IDX.labels(ByteStream(InputFile(path)))
  }

  private static func sample() throws -> Dataset {
    func stream(_ file: mnist_sample_file, _ name: String) throws -> ByteStream {
      try ByteStream(
        UnsafeRawBufferPointer(start: file.bytes, count: file.count), name: "the sample's \(name)")
    }
    return try Dataset(
      name: "sample", source: "the built-in sample of MNIST: its first 10,000 training images",
      train: set(
        IDX.images(stream(mnist_sample_train_images, files[0])),
        IDX.labels(stream(mnist_sample_train_labels, files[1])).labels, files[1]),
      test: set(
        IDX.images(stream(mnist_sample_test_images, files[2])),
        IDX.labels(stream(mnist_sample_test_labels, files[3])).labels, files[3]),
      classNames: numbered(9))
  }

  private static func set(
    _ images: IDX.Images, _ labels: [UInt8], _ labelFile: String
  ) throws -> ImageSet {
    guard labels.count == images.count else {
      throw StrideNetError(
        .badData, "images and labels differ in number", at: labelFile,
        found: "\(images.count) images, \(labels.count) labels",
        expected: "one label for each image", hint: "are the files from the same data set?")
    }
    return try ImageSet(
      count: images.count, height: images.height, width: images.width, channels: images.channels,
      pixels: images.pixels, labels: labels)
  }
}
