import ArgumentParser
import Foundation
import StrideNet

struct Predict: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Says what a saved network sees in images, or which numbers it predicts.",
    discussion: """
      IDX files are taken as they are. A picture of any size becomes an image as those did that the \
      network was trained on, unless --fit says otherwise. For a network that learned from digits that \
      is what MNIST's images are: grey, light ink on black paper, fitted into 20 × 20 of 28 × 28 \
      pixels and centred by its mass.
      """)

  @Argument(
    help: ArgumentHelp(
      "Weights that train --save wrote; of several networks each, which answer with the mean of their probabilities.",
      valueName: "file"))
  var file: String

  @Argument(
    help: ArgumentHelp(
      "Pictures, folders of them, IDX files of images, plain or gzip, patterns of such names, or - for one that comes in.",
      valueName: "images"))
  var images: [String] = []

  @OptionGroup var dataOptions: DataOptions
  @OptionGroup var compute: ComputeOptions
  @OptionGroup var views: ViewOptions

  @Option(
    help: ArgumentHelp("Write there what the network saw of the one picture.", valueName: "png"))
  var saveInput: String?

  @Flag(help: "Print JSON, an object a line.")
  var json = false

  func validate() throws {
    if shown.isEmpty && dataOptions.data == nil {
      throw ValidationError("nothing to predict: name images, or a data set with --data")
    }
  }

  /// More networks, and what comes behind them.
  private var others: ArraySlice<String> { images.prefix(while: Safetensors.begins) }
  private var shown: ArraySlice<String> { images.dropFirst(others.count) }

  func run() throws {
    if dataOptions.data == nil { try dataOptions.pictures.refuseThoseOfSets() }
    let ensemble = try views.ensemble([file] + others, compute.runtime())
    let (network, images) = (ensemble.networks[0], shown)
    if let saveInput {
      guard images.count == 1, images.first == "-" || PictureFolder.isPicture(images.first!) else {
        throw notOnePicture
      }
      try AtomicFile.checkWritable(saveInput)
    }
    let input = PictureInput(for: network, fit: dataOptions.pictures.fit)
    var failed = 0
    /// Goes on to the others, if there are any, where one can't be answered.
    func attempt(_ isOne: Bool, _ body: () throws -> Void) throws {
      do {
        try body()
      } catch let error as StrideNetError where !isOne && error.place != Output.place {
        Output.complain(error.description)
        failed += 1
      }
    }
    for name in images {
      try attempt(images.count == 1) {
        let paths = try files(name)
        for path in paths {
          try attempt(images.count == 1 && paths == [name]) {
            try Self.withFile(path) { file in
              guard PictureFolder.isPicture(file) else {
                if saveInput != nil { throw notOnePicture }
                return try show(ensemble, IDX.set(at: file), path)
              }
              let picture = try input.read(file)
              if let saveInput { try PNG.write(Picture(picture), to: saveInput) }
              try show(network, ensemble.predict(picture), path, 0)
            }
          }
        }
      }
    }
    if dataOptions.data != nil {
      let data = try dataOptions.load(for: network)
      try show(ensemble, data.test, data.name)
    }
    if failed == 0 { return }
    throw StrideNetError(
      .badData, "not all pictures could be read", found: "\(failed) that couldn't")
  }

  private var notOnePicture: StrideNetError {
    StrideNetError(
      .usage, "--save-input is for one picture", found: images.joined(separator: " "),
      expected: "one picture")
  }

  /// What a name stands for: the pictures in a folder, the others named; what fits a pattern that is
  /// no file's name; or itself.
  private func files(_ name: String) throws -> [String] {
    if PictureFolder.isFolder(name) { return try pictures(in: name) }
    guard name.contains(where: "*?[".contains), !FileManager.default.fileExists(atPath: name) else {
      return [name]
    }
    var found = glob_t()
    defer { globfree(&found) }
    guard glob(name, 0, nil, &found) == 0 else {
      throw StrideNetError(
        .missingInput, "no file that fits the pattern", at: name, expected: "such as pics/*.png")
    }
    return try (0..<Int(found.gl_pathc)).flatMap { i -> [String] in
      let path = String(cString: found.gl_pathv[i]!)
      return PictureFolder.isFolder(path) ? try pictures(in: path) : [path]
    }
  }

  private func pictures(in path: String) throws -> [String] {
    let names = try Self.reading(path) { try FileManager.default.contentsOfDirectory(atPath: path) }
    let all = names.sorted()
      .filter { !PictureFolder.isHidden($0) }.map { "\(path)/\($0)" }
    let found = all.filter(PictureFolder.isPicture)
    for other in all where !PictureFolder.isPicture(other) {
      Output.note("passed over: \(other.oneLine), not a picture")
    }
    guard !found.isEmpty else {
      throw StrideNetError(
        .missingInput, "no pictures in the folder", at: path, expected: PictureFolder.kinds)
    }
    return found
  }

  /// Says in our own words what the system can't read.
  private static func reading<T>(_ place: String, _ body: () throws -> T) throws -> T {
    do {
      return try body()
    } catch {
      let cause = (error as NSError).userInfo[NSUnderlyingErrorKey] as? NSError
      throw StrideNetError(
        .missingInput, "what is to be predicted can't be read", at: place,
        found: cause.map { String(cString: strerror(Int32($0.code))) }
          ?? error.localizedDescription)
    }
  }

  /// Calls this with a file's path: for `-` that of a file with what comes in, which is deleted then.
  private static func withFile(_ path: String, _ body: (String) throws -> Void) throws {
    guard path == "-" else { return try body(path) }
    let (place, most) = ("standard input", 64 << 20)
    var bytes = Data()
    try reading(place) {
      while bytes.count <= most,
        let part = try FileHandle.standardInput.read(upToCount: 1 << 20), !part.isEmpty
      {
        bytes += part
      }
    }
    guard 1...most ~= bytes.count else {
      throw StrideNetError(
        .badData,
        bytes.isEmpty ? "nothing comes in" : "more comes in than a picture's file may have",
        at: place, expected: "a picture or an IDX file of at most \(most >> 20) MB")
    }
    let file = FileManager.default.temporaryDirectory.appending(path: "stridenet-\(UUID())").path
    try AtomicFile.write(Array(bytes), to: file)
    defer { try? FileManager.default.removeItem(atPath: file) }
    do {
      try body(file)
    } catch let error as StrideNetError {
      throw StrideNetError(
        error.kind, error.what, at: error.place?.replacing(file, with: place), found: error.found,
        expected: error.expected, hint: error.hint)
    }
  }

  private func show(_ ensemble: Ensemble, _ set: ImageSet, _ path: String) throws {
    for start in stride(from: 0, to: set.count, by: 128) {
      let range = start..<min(set.count, start + 128)
      try show(
        ensemble.networks[0], try ensemble.predict(set.batch(range).images, from: start), path,
        start)
    }
  }

  private func show(_ network: Network, _ output: Tensor, _ path: String, _ first: Int) throws {
    for row in 0..<output.batch {
      let values = (0..<output.shape.count).map { output[row * output.shape.count + $0] }
      try requireFinite(values, file)
      if network.predictsNumbers {
        try show(network, values, path, first + row)
        continue
      }
      let best = values.indices.max { values[$0] < values[$1] }!
      let name = network.className(best)
      if json {
        try Output.json(
          Prediction(
            file: path, index: first + row, class: best,
            name: network.classNames.isEmpty ? nil : name,
            probabilities: network.endsInSoftmax ? values : nil,
            outputs: network.endsInSoftmax ? nil : values))
      } else {
        try Output.line(
          "\(path.oneLine) \(first + row)  \(name.oneLine)  "
            + network.text(ofOutput: values[best]))
      }
    }
  }

  private func show(_ network: Network, _ values: [Float], _ path: String, _ index: Int) throws {
    let names = network.classNames
    if json {
      return try Output.json(
        Prediction(
          file: path, index: index, class: nil, name: nil, probabilities: nil, outputs: values,
          names: names.isEmpty ? nil : names))
    }
    let texts = values.enumerated().map { output, value in
      (names.isEmpty ? "" : "\(names[output].oneLine) ") + network.text(ofOutput: value)
    }
    try Output.line("\(path.oneLine) \(index)  \(texts.joined(separator: "  "))")
  }

  private struct Prediction: Encodable {
    var event = "prediction"
    let file: String
    let index: Int
    /// Nil where numbers are predicted.
    let `class`: Int?
    /// What the class is called.
    let name: String?
    /// Of a network that ends in softmax, else what its outputs are.
    let probabilities, outputs: [Float]?
    /// What numbers that are predicted are called.
    var names: [String]?
  }
}

extension IDX {
  /// Images of a file without labels.
  fileprivate static func set(at path: String) throws -> ImageSet {
    let idx = try IDX.images(at: path)
    if idx.ignored > 0 {
      Output.note("\(path): \(idx.ignored) bytes behind the end of the gzip file passed over")
    }
    return try ImageSet(
      count: idx.count, height: idx.height, width: idx.width, channels: idx.channels,
      pixels: idx.pixels, labels: [Int](repeating: 0, count: idx.count))
  }
}
