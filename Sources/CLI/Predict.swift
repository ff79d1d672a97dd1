import ArgumentParser
import Foundation
import StrideNet

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
        if let saveInput { try PNG.write(Picture(picture), to: saveInput) }
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
        try Output.line("\(path) \(first + row)  \(best)  \(values[best].percent())")
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
