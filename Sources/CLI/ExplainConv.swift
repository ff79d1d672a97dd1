import ArgumentParser
import Foundation
import StrideNet

struct ExplainConv: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "conv",
    abstract: "Follows a convolution of one channel by one filter, number by number.",
    discussion: """
      Shown are its stride groups, a tile of winograd, and what each kernel does. Inputs are \
      numbered 1, 2, 3, … row by row; the filter's elements are A, B, C, … with the values 1, 2, \
      3, …, and the letters after theirs stand for their products. Results are the kernels' own, \
      and winograd's tile gives the same. Sizes are HxW, or one number for both.
      """)

  @Option(help: ArgumentHelp("The input's size.", valueName: "HxW"))
  var input = "4x4"

  @Option(help: ArgumentHelp("The filter's size.", valueName: "HxW"))
  var filter = "2x2"

  @Option(help: ArgumentHelp("Steps from a window to the next.", valueName: "HxW"))
  var stride = "1"

  @Option(help: ArgumentHelp("Zeros above and below, and at the sides.", valueName: "HxW"))
  var padding = "0"

  @Option(help: ArgumentHelp("Draw all of it as a picture (SVG).", valueName: "file"))
  var svg: String?

  @Option(help: ArgumentHelp("Draw it as a moving picture (SVG).", valueName: "file"))
  var animate: String?

  @Flag(help: "Print JSON, an object a line.")
  var json = false

  /// The most numbers that are printed as JSON.
  private static let mostNumbers = 1_000_000

  func run() throws {
    let walk = try ConvolutionWalk(
      input: size(input, "input"), filter: size(filter, "filter"), stride: size(stride, "stride"),
      padding: size(padding, "padding"))
    if json, walk.values.count * walk.weights.count > Self.mostNumbers {
      throw StrideNetError(
        .usage, "too large for JSON",
        found: "\((walk.values.count * walk.weights.count).grouped) products",
        expected: "at most \(Self.mostNumbers.grouped)",
        hint: "take a smaller input, or leave out --json")
    }
    let paths = [svg, animate].compactMap { $0 }
      .map { URL(fileURLWithPath: $0).resolvingSymlinksInPath().path }
    guard Set(paths).count == paths.count else {
      throw StrideNetError(
        .usage, "two pictures in one file", at: animate, expected: "a file each",
        hint: "give --svg and --animate different names")
    }
    // Both before either is written.
    let pictures = try [(svg, ConvolutionPicture.still), (animate, ConvolutionPicture.animated)]
      .compactMap { path, draw in try path.map { ($0, try draw(walk)) } }
    for (path, _) in pictures { try AtomicFile.checkWritable(path) }
    for (path, picture) in pictures { try AtomicFile.write(Array(picture.utf8), to: path) }
    if json { return try printJSON(walk) }
    for line in ConvolutionText(walk).lines() { try Output.line(line, isWhole: true) }
    if !pictures.isEmpty { try Output.line("") }
    for (path, _) in pictures { try Output.line("wrote \(path)") }
  }

  /// "3x4", or "3" for "3x3".
  private func size(_ text: String, _ name: String) throws -> ConvolutionWalk.Size {
    let numbers = text.split(separator: "x", omittingEmptySubsequences: false).map { Int($0) }
    guard (1...2).contains(numbers.count), let height = numbers[0], let width = numbers.last! else {
      throw StrideNetError(
        .usage, "no size: --\(name)", found: "'\(text)'",
        expected: "height x width, or one number for both", hint: "for example --\(name) 3x3")
    }
    return (height, width)
  }

  // MARK: JSON

  private func printJSON(_ walk: ConvolutionWalk) throws {
    try Output.json(WalkEvent(walk))
    for group in walk.groups.indices { try Output.json(GroupEvent(walk, group)) }
    try Output.json(WinogradEvent(walk))
    if walk.isWinograd {
      for row in 0..<walk.tiles.height {
        for column in 0..<walk.tiles.width { try Output.json(TileEvent(walk, row, column)) }
      }
    }
    for cost in walk.costs { try Output.json(CostEvent(cost)) }
  }

  private struct WalkEvent: Encodable {
    var event = "convolution"
    /// Height and width each.
    let input, filter, stride, padding, output: [Int]
    let groups: Int
    /// Row by row.
    let weights, pixels, values: [Float]
    let note: String?

    init(_ walk: ConvolutionWalk) {
      func pair(_ size: ConvolutionWalk.Size) -> [Int] { [size.height, size.width] }
      (input, filter, output) = (pair(walk.input), pair(walk.filter), pair(walk.output))
      (stride, padding) = (pair(walk.stride), pair(walk.padding))
      (weights, pixels, values) = (walk.weights, walk.pixels, walk.values)
      groups = walk.groups.count
      note = walk.isPublishedExample ? ConvolutionText.misprint.joined(separator: " ") : nil
    }
  }

  private struct GroupEvent: Encodable {
    var event = "group"
    let group: Int
    /// Output rows and columns.
    let positions: [[Int]]
    /// The numbers of the inputs that each filter element meets, 0 in the padding.
    let inputs: [[Int]]
    /// The gathered matrix, a row a position.
    let matrix: [[Float]]
    let sums: [Float]

    init(_ walk: ConvolutionWalk, _ index: Int) {
      let group = walk.groups[index]
      self.group = index + 1
      positions = group.positions.map { [$0.row, $0.column] }
      inputs = walk.weights.indices.map { walk.met(by: $0, in: index) }
      matrix = (0..<group.count).map { walk.gathered(index, $0) }
      sums = (0..<group.count).map { walk.sum(index, $0) }
    }
  }

  private struct WinogradEvent: Encodable {
    var event = "winograd"
    /// Rows and columns of tiles.
    let tiles: [Int]?
    /// G g Gᵀ
    let filter: WinogradTile.Matrix?
    /// Where it doesn't apply.
    let note: String?

    init(_ walk: ConvolutionWalk) {
      let isWinograd = walk.isWinograd
      tiles = isWinograd ? [walk.tiles.height, walk.tiles.width] : nil
      filter = isWinograd ? walk.tile(0, 0).filters[0].whole : nil
      note = isWinograd ? nil : walk.notWinograd
    }
  }

  private struct TileEvent: Encodable {
    var event = "tile"
    /// Of its first output.
    let position: [Int]
    /// d, Bᵀ d B, M and Aᵀ M A; of the last what sticks out of the output, too.
    let inputs, transformed, products, outputs: WinogradTile.Matrix

    init(_ walk: ConvolutionWalk, _ row: Int, _ column: Int) {
      let tile = walk.tile(row, column)
      position = [2 * row, 2 * column]
      (inputs, transformed) = (tile.inputs[0].matrix, tile.inputs[0].whole)
      (products, outputs) = (tile.outputs.matrix, tile.outputs.whole)
    }
  }

  private struct CostEvent: Encodable {
    var event = "kernel"
    let variant: String
    let passes, gathered_bytes, held_bytes, multiply_adds: Int

    init(_ cost: ConvolutionWalk.Cost) {
      (variant, passes, multiply_adds) = (cost.variant, cost.passes, cost.multiplyAdds)
      (gathered_bytes, held_bytes) = (cost.gatheredBytes, cost.heldBytes)
    }
  }
}
