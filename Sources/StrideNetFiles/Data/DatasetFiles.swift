import Foundation
import MNISTSample
import StrideNetCore

extension Dataset {
  /// Loads "sample", "mnist", "fashion-mnist" or a folder with the four files. Without a name: the
  /// full MNIST if this machine has it, else the sample.
  ///
  /// The files have their usual names, with a minus or a dot before idx, with or without .gz.
  /// They are looked for in $STRIDENET_DATA and in the cache folder, where `stridenet fetch` puts
  /// them.
  public static func load(
    _ data: String? = nil, environment: [String: String] = ProcessInfo.processInfo.environment
  ) throws -> Dataset {
    switch data {
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
    case let folder?:
      var isFolder: ObjCBool = false
      let exists = FileManager.default.fileExists(atPath: folder, isDirectory: &isFolder)
      guard isFolder.boolValue else {
        throw StrideNetError(
          .missingInput, exists ? "a file isn't a data set" : "no such data set or folder",
          at: folder,
          expected: "sample, \(fetchable.joined(separator: ", ")) or a folder with the four files",
          hint: "check the name")
      }
      return try load(
        folder: folder, name: URL(fileURLWithPath: folder).standardizedFileURL.lastPathComponent)
    }
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
    // The specification of XDG_CACHE_HOME says to ignore a relative path.
    if let cache = environment["XDG_CACHE_HOME"], cache.hasPrefix("/") {
      folders.append("\(cache)/stridenet/\(name)")
    } else if let home = environment["HOME"], !home.isEmpty {
      folders.append("\(home)/.cache/stridenet/\(name)")
    }
    // From Debian's package dataset-fashion-mnist.
    if name == "fashion-mnist" { folders.append("/usr/share/datasets/fashion-mnist") }
    return folders
  }

  /// The path of one of `files` in a folder, under whichever of its names; in a folder of that name,
  /// as some archives unpack, if it isn't beside it.
  static func find(_ file: String, in folder: String) -> String? {
    // Images with channels have four dimensions.
    let names = ["idx3", "idx4"].flatMap { dimensions in
      let name = file.replacingOccurrences(of: "idx3", with: dimensions)
      return [name, name.replacingOccurrences(of: "-idx", with: ".idx")]
    }.flatMap { [$0, "\($0).gz"] }
    return (names + names.map { "\($0)/\($0)" }).map { "\(folder)/\($0)" }.first { path in
      var isFolder: ObjCBool = false
      return FileManager.default.fileExists(atPath: path, isDirectory: &isFolder)
        && !isFolder.boolValue
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
    return try Dataset(
      name: name, source: folder + ignored.joined(),
      train: set(images, labels.labels, paths[1]),
      test: set(testImages, testLabels.labels, paths[3]))
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
        IDX.labels(stream(mnist_sample_test_labels, files[3])).labels, files[3]))
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
