import ArgumentParser
import Foundation
import StrideNet

struct Evaluate: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Measures a saved network on a test set.")

  @Argument(help: ArgumentHelp("Weights that train --save wrote.", valueName: "file"))
  var file: String

  @OptionGroup var dataOptions: DataOptions
  @OptionGroup var compute: ComputeOptions

  @Option(
    help: ArgumentHelp(
      "Measure it on PNG pictures instead, in folders with the classes' numbers as their names. What else is there is named, and the exit code 65 then; hidden files are only counted.",
      valueName: "folder"))
  var pictures: String?

  @Flag(help: "Also print what was taken for what, and precision, recall and F1 of each class.")
  var confusion = false

  @Flag(help: "Print JSON, an object a line.")
  var json = false

  func run() throws {
    let network = try Network.load(from: file, runtime: compute.runtime())
    if pictures != nil && dataOptions.data != nil {
      throw StrideNetError(
        .usage, "two sets of images", found: "--data and --pictures", expected: "one of them")
    }
    if confusion && network.classes > 1000 {
      throw StrideNetError(
        .usage, "too many classes for a table", at: "--confusion",
        found: "\(network.classes.grouped)",
        expected: "at most 1,000")
    }
    let labelled = pictures.map { LabelledPictures(in: $0, classes: network.classes) }
    let (metrics, source): (Metrics, String)
    if let labelled {
      (metrics, source) = (
        try network.metrics(labelled.batches(of: network.input!)), labelled.folder
      )
      try labelled.requireSome(metrics.images)
    } else {
      let data = try dataOptions.load()
      (metrics, source) = (try network.metrics(data.test), data.source)
    }
    let (cce, ce) = (metrics.cce, Float(metrics.ce))
    try requireFinite([cce], file)
    if json {
      try Output.json(
        EvaluateEvent(
          data: source, test_images: metrics.images, test_cce: cce, test_ce: ce,
          test_accuracy: metrics.accuracy, weights_sha256: network.snapshot().sha256,
          confusion: confusion ? metrics.confusion : nil,
          classes: confusion ? metrics.classes : nil, skipped: labelled?.skipped,
          hidden: labelled?.hidden))
    } else {
      try Output.line(
        """
        network  \(Architecture.text(network.layers))
        data     \(source): \(metrics.images.grouped) test images
        """)
      if let labelled {
        for skipped in labelled.skipped {
          try Output.line("skipped  \(skipped.file): \(skipped.why)")
        }
        if labelled.hidden > 0 {
          try Output.line(
            "hidden   \(labelled.hidden.grouped) file\(labelled.hidden == 1 ? "" : "s")")
        }
      }
      try Output.line(
        """
        test \(network.loss.abbreviation) \(cce.fixed(4))  CE \((ce * 100).fixed(2)) %  accuracy \(((1 - ce) * 100).fixed(2)) %
        """)
      if confusion { try printTable(metrics) }
    }
    try labelled?.requireAll()
  }

  /// A row a class: what its images were taken for, then how well.
  private func printTable(_ metrics: Metrics) throws {
    let width = max(5, "\(metrics.confusion.joined().max()!)".count + 1)
    func row(_ head: String, _ cells: some Sequence<String>, _ shares: [String]) throws {
      try Output.line(
        head.leftPadded(6) + cells.map { $0.leftPadded(width) }.joined()
          + shares.map { $0.leftPadded(11) }.joined())
    }
    try Output.line("\nimages of a class (row) by what they were taken for (column)")
    try row(
      "", metrics.confusion.indices.map { "\($0)" }, ["precision", "recall", "F1"])
    for (label, c) in metrics.classes.enumerated() {
      try row(
        "\(label)", metrics.confusion[label].map { $0 == 0 ? "." : "\($0)" },
        [c.precision, c.recall, c.f1].map { $0.map { ($0 * 100).fixed(2) + " %" } ?? "-" })
    }
  }

  private struct EvaluateEvent: Encodable {
    var event = "evaluate"
    let data: String
    let test_images: Int
    let test_cce, test_ce: Float
    let test_accuracy: Double
    let weights_sha256: String
    let confusion: [[Int]]?
    let classes: [Metrics.Class]?
    /// Of pictures: what was passed over and why, and how many hidden files.
    let skipped: [LabelledPictures.Skipped]?
    let hidden: Int?
  }
}

/// Weights may each be finite and yet too large to compute with.
func requireFinite(_ values: [Float], _ file: String) throws {
  guard let value = values.first(where: { !$0.isFinite }) else { return }
  throw StrideNetError(
    .badData, "the network computes numbers that aren't finite", at: file, found: "\(value)",
    hint: "the weights are too large: train again with a lower learning rate")
}

struct Predict: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Says what a saved network sees in images.",
    discussion: """
      IDX files are taken as they are. A PNG picture of any size is made what MNIST's images are: \
      grey, light ink on black paper, fitted into 20 × 20 of 28 × 28 pixels and centred by its mass.
      """)

  @Argument(help: ArgumentHelp("Weights that train --save wrote.", valueName: "file"))
  var file: String

  @Argument(
    help: ArgumentHelp("PNG pictures, or IDX files of images, plain or gzip.", valueName: "images"))
  var images: [String]

  @OptionGroup var compute: ComputeOptions

  @Option(
    help: ArgumentHelp("Write there what the network saw of the one picture.", valueName: "png"))
  var saveInput: String?

  @Flag(help: "Print JSON, an object a line.")
  var json = false

  func run() throws {
    let network = try Network.load(from: file, runtime: compute.runtime())
    if let saveInput {
      guard images.count == 1, PNG.isPNG(images[0]) else {
        throw StrideNetError(
          .usage, "--save-input is for one picture", found: images.joined(separator: " "),
          expected: "one PNG file")
      }
      try AtomicFile.checkWritable(saveInput)
    }
    for path in images {
      if PNG.isPNG(path) {
        let picture = try picture(at: path, network.input!)
        if let saveInput { try PNG.write(PNG.Image(picture), to: saveInput) }
        try show(try network.predict(picture), path, 0)
        continue
      }
      let idx = try IDX.images(at: path)
      if idx.ignored > 0 {
        Output.note("\(path): \(idx.ignored) bytes behind the end of the gzip file passed over")
      }
      let set = try ImageSet(
        count: idx.count, height: idx.height, width: idx.width, channels: idx.channels,
        pixels: idx.pixels, labels: [UInt8](repeating: 0, count: idx.count))
      for start in stride(from: 0, to: set.count, by: 128) {
        let range = start..<min(set.count, start + 128)
        try show(try network.predict(set.batch(range).images), path, start)
      }
    }
  }

  private func show(_ output: Tensor, _ path: String, _ first: Int) throws {
    for row in 0..<output.batch {
      let values = (0..<output.shape.count).map { output[row * output.shape.count + $0] }
      try requireFinite(values, file)
      let best = values.indices.max { values[$0] < values[$1] }!
      if json {
        try Output.json(
          Prediction(file: path, index: first + row, class: best, probabilities: values))
      } else {
        try Output.line("\(path) \(first + row)  \(best)  \((values[best] * 100).fixed(2)) %")
      }
    }
  }

  private struct Prediction: Encodable {
    var event = "prediction"
    let file: String
    let index, `class`: Int
    let probabilities: [Float]
  }
}

/// A PNG file as the network's input.
private func picture(at path: String, _ input: Shape) throws -> Tensor {
  do {
    return try PNG.read(at: path).fitted(to: input)
  } catch let error as StrideNetError where error.place == nil {
    throw StrideNetError(
      error.kind, error.what, at: path, found: error.found, expected: error.expected,
      hint: error.hint)
  }
}

/// Pictures in folders that have the classes' numbers as their names, and what isn't one of them.
private final class LabelledPictures {
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

/// Shows what an augmentation makes of images.
struct Augment: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Draws training images and what an augmentation makes of them.")

  @Argument(help: ArgumentHelp("As with train --augment.", valueName: "changes"))
  var changes: String

  @Option(help: ArgumentHelp("The picture to write.", valueName: "png"))
  var out: String

  @OptionGroup var dataOptions: DataOptions

  @Option(parsing: .unconditional, help: "Decides everything random.")
  var seed: UInt64 = 1

  func run() throws {
    let augmentation = try Augmentation(changes)
    try AtomicFile.checkWritable(out)
    let set = try dataOptions.load().train
    // A row an image: itself, then what eight epochs see.
    let (count, epochs, gap, zoom) = (min(10, set.count), 8, 2, 3)
    let columns =
      [set.batch(0..<count).images]
      + (0..<epochs).map { set.augmented(0..<count, augmentation, seed: seed, epoch: $0) }
    let (h, w, c) = (set.height, set.width, set.channels == 3 ? 3 : 1)
    let (high, wide) = (count * (h + gap) - gap, columns.count * (w + gap) + gap)
    var sheet = [UInt8](repeating: 64, count: high * wide * c)
    for (column, tensor) in columns.enumerated() {
      for row in 0..<count {
        let image = PNG.Image(tensor, example: row)
        // The first column stands apart.
        let left = column * (w + gap) + (column > 0 ? gap : 0)
        for y in 0..<h {
          for x in 0..<w * c {
            sheet[((row * (h + gap) + y) * wide + left) * c + x] =
              image.pixels[y * w * set.channels + x * set.channels / c]
          }
        }
      }
    }
    var large = [UInt8](repeating: 0, count: sheet.count * zoom * zoom)
    for y in 0..<high * zoom {
      for x in 0..<wide * zoom {
        for k in 0..<c {
          large[(y * wide * zoom + x) * c + k] = sheet[(y / zoom * wide + x / zoom) * c + k]
        }
      }
    }
    try PNG.write(
      PNG.Image(height: high * zoom, width: wide * zoom, channels: c, pixels: large), to: out)
    try Output.line("\(count) images, each as it is and as \(epochs) epochs see it, are in \(out)")
  }
}

struct Fetch: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Downloads a data set and checks it.",
    discussion: """
      Into STRIDENET_DATA if that is set, else into the cache folder (XDG_CACHE_HOME, or ~/.cache). \
      A download that was cut off is resumed.
      """)

  @Argument(help: ArgumentHelp("mnist or fashion-mnist.", valueName: "set"))
  var name: String

  @Option(help: ArgumentHelp("A folder on a server that has the four .gz files.", valueName: "url"))
  var mirror: String?

  func run() async throws {
    let folder = try await Download.fetch(name, mirrors: mirror.map { [$0] }) {
      file, received, total in
      Output.progress { Self.bar(file, received, total) }
    }
    try Output.line("\(name) is in \(folder)")
  }

  private static func bar(_ file: String, _ received: Int, _ total: Int?) -> String {
    let megabytes = (Double(received) / 1e6).fixed(1)
    guard let total, total > 0 else { return "\(file)  \(megabytes) MB" }
    let done = min(30, 30 * received / total)
    return
      "\(file)  [\(String(repeating: "#", count: done))\(String(repeating: ".", count: 30 - done))]"
      + "  \(megabytes) of \((Double(total) / 1e6).fixed(1)) MB"
  }
}

struct KernelList: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "kernels",
    abstract: "Lists the kernel variants and says which are bound.")

  func run() throws {
    try Output.line("instruction set  \(KernelChoice.instructionSet)")
    try Output.line("bound            \(KernelChoice.bound)\n")
    for (title, variants) in [
      ("convolution", KernelChoice.convolutions), ("pooling", KernelChoice.poolings),
    ] {
      try Output.line(title)
      for variant in variants {
        try Output.line("  \(variant.name.padded(14)) \(variant.summary)")
      }
    }
    try Output.line("\nbind another     make KERNELS=NAME, or --kernels NAME for one run")
  }
}
