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
    let (count, epochs) = (min(10, set.count), 8)
    let columns =
      [set.batch(0..<count).images]
      + (0..<epochs).map { set.augmented(0..<count, augmentation, seed: seed, epoch: $0) }
    let rows = (0..<count).map { row in columns.map { Picture($0, example: row) } }
    try PNG.write(ContactSheet.picture(rows, isFirstApart: true), to: out)
    try Output.line("\(count) images, each as it is and as \(epochs) epochs see it, are in \(out)")
  }
}
