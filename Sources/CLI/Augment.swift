import ArgumentParser
import StrideNet

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
        let image = Picture(tensor, example: row)
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
      Picture(height: high * zoom, width: wide * zoom, channels: c, pixels: large), to: out)
    try Output.line("\(count) images, each as it is and as \(epochs) epochs see it, are in \(out)")
  }
}
