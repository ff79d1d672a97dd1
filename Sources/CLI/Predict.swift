import ArgumentParser
import Foundation
import StrideNet

struct Predict: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Says what a saved network sees in images.",
    discussion: """
      IDX files are taken as they are. A picture of any size becomes an image as those did that the \
      network was trained on. For a network of one channel that knows no pictures that is what \
      MNIST's images are: grey, light ink on black paper, fitted into 20 × 20 of 28 × 28 pixels and \
      centred by its mass.
      """)

  @Argument(
    help: ArgumentHelp(
      "Weights that train --save wrote; of several networks each, which answer with the mean of their probabilities.",
      valueName: "file"))
  var file: String

  @Argument(
    help: ArgumentHelp(
      "Pictures, folders of them, or IDX files of images, plain or gzip.", valueName: "images"))
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
    let ensemble = try views.ensemble([file] + others, compute.runtime())
    let (network, images) = (ensemble.networks[0], shown)
    if let saveInput {
      guard images.count == 1, PictureFolder.isPicture(images.first!) else {
        throw StrideNetError(
          .usage, "--save-input is for one picture", found: images.joined(separator: " "),
          expected: "one picture")
      }
      try AtomicFile.checkWritable(saveInput)
    }
    let input = PictureInput(for: network, fit: dataOptions.pictures.fit)
    var failed: [any Error] = []
    for path in try images.flatMap(files) {
      do {
        guard PictureFolder.isPicture(path) else {
          try show(ensemble, IDX.set(at: path), path)
          continue
        }
        let picture = try input.read(path)
        if let saveInput { try PNG.write(Picture(picture), to: saveInput) }
        try show(network, ensemble.predict(picture), path, 0)
      } catch let error as StrideNetError where images.count > 1 || path != images.first {
        // The others are still to be answered.
        Output.complain(error.description)
        failed.append(error)
      }
    }
    if dataOptions.data != nil {
      let data = try dataOptions.load(for: network)
      try show(ensemble, data.test, data.name)
    }
    if failed.isEmpty { return }
    throw StrideNetError(
      .badData, "not all pictures could be read", found: "\(failed.count) that couldn't")
  }

  /// The pictures in a folder, the others named; anything else is a file.
  private func files(_ path: String) throws -> [String] {
    guard PictureFolder.isFolder(path) else { return [path] }
    let all = try FileManager.default.contentsOfDirectory(atPath: path).sorted()
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

  private struct Prediction: Encodable {
    var event = "prediction"
    let file: String
    let index, `class`: Int
    /// What the class is called.
    let name: String?
    /// Of a network that ends in softmax, else what its outputs are.
    let probabilities, outputs: [Float]?
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
