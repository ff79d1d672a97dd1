import CKernels
import StrideNetCore

/// A convolution of one channel by one filter that can be followed number by number: its stride
/// groups, what each gathers, multiplies and scatters, and what the other kernels would do.
///
/// Inputs are numbered from 1, row by row, and these are their values too; the filter's are 1, 2, 3,
/// … up to 9 and again from 1. All sums are whole numbers below 2²⁴, so that they are exact in
/// whatever order a kernel adds: where inputs are so many that they wouldn't be, their values, not
/// their numbers, start again from 1.
package struct ConvolutionWalk: Sendable {
  package typealias Size = (height: Int, width: Int)

  package let input, filter, stride, padding, output: Size
  /// The filter, row by row.
  package let weights: [Float]
  /// The input, row by row.
  package let pixels: [Float]
  package let groups: [StrideGroups.Group]
  /// The output, row by row, as the `stride_groups` kernel computes it. The `naive` kernel gives the
  /// same.
  package let values: [Float]
  /// Whether winograd computes it in tiles; else it does what direct does.
  package let isWinograd: Bool
  /// The convolution variants in the order of ``KernelChoice/convolutions``.
  package let costs: [Cost]

  /// What the forward pass of a kernel does with this input.
  package struct Cost: Sendable {
    package let variant: String
    /// Walks over the input from its top to its bottom, or for `naive` to one window each.
    package let passes: Int
    /// Bytes copied out of the input in all: windows, for `direct` the image with its padding, for
    /// `winograd` the transformed tiles.
    package let gatheredBytes: Int
    /// Bytes of these that are held at a time.
    package let heldBytes: Int
    /// Those with zeros of the padding included where the kernel does them; for `winograd` without
    /// its transforms.
    package let multiplyAdds: Int
  }

  /// The largest input, filter and stride on an axis.
  package static let largest = 1024
  /// The most products, positions × filter elements.
  package static let mostProducts = 100_000_000

  /// - Throws: ``StrideNetError`` where sizes are out of range or don't fit
  package init(
    input: Size, filter: Size, stride: Size = (1, 1), padding: Size = (0, 0)
  ) throws {
    let output = try Self.output(input, filter, stride, padding)
    (self.input, self.filter, self.stride, self.padding) = (input, filter, stride, padding)
    self.output = output
    let weights = (0..<filter.height * filter.width).map { Float($0 % 9 + 1) }
    let most = (1 << 24) / Int(weights.reduce(0, +))
    let pixels = (0..<input.height * input.width).map { Float($0 % most + 1) }
    (self.weights, self.pixels) = (weights, pixels)
    let groups = StrideGroups(
      output: output, size: filter, stride: stride, padding: padding
    ).groups
    self.groups = groups

    let shape = ck_conv_shape(
      n: 1, h: Int32(input.height), w: Int32(input.width), c: 1, fh: Int32(filter.height),
      fw: Int32(filter.width), f: 1, sh: Int32(stride.height), sw: Int32(stride.width),
      ph: Int32(padding.height), pw: Int32(padding.width), oh: Int32(output.height),
      ow: Int32(output.width), dh: 1, dw: 1, groups: 1)
    values = Self.values("stride_groups", shape, pixels, weights)
    guard values == Self.values("naive", shape, pixels, weights) else {
      throw StrideNetError(.internalError, "the stride_groups kernel differs from the definition")
    }
    isWinograd = ConvVariant.isThree(shape)
    costs = ConvVariant.all.compactMap { Cost($0, shape, groups) }
    guard !isWinograd || agrees(0, 0) else {
      throw StrideNetError(.internalError, "winograd's tile differs from the definition")
    }
  }

  /// The output's size, if the others are in range and fit.
  private static func output(_ input: Size, _ filter: Size, _ stride: Size, _ padding: Size) throws
    -> Size
  {
    for (name, size, lowest) in [
      ("input", input, 1), ("filter", filter, 1), ("stride", stride, 1), ("padding", padding, 0),
    ]
    where !(lowest...largest).contains(min(size.height, size.width))
      || max(size.height, size.width) > largest
    {
      throw StrideNetError(
        .usage, "\(name) out of range", found: text(size),
        expected: "\(lowest) … \(largest) on each axis")
    }
    guard padding.height < filter.height, padding.width < filter.width else {
      throw StrideNetError(
        .usage, "padding out of range", found: text(padding),
        expected: "less than the filter, \(text(filter))",
        hint: "more padding than that would make windows of zeros alone")
    }
    let padded = (
      height: input.height + 2 * padding.height, width: input.width + 2 * padding.width
    )
    guard filter.height <= padded.height, filter.width <= padded.width else {
      throw StrideNetError(
        .usage, "the filter is larger than its input", found: "a filter of \(text(filter))",
        expected: "at most \(text(padded))"
          + (padding == (0, 0) ? "" : ", the input of \(text(input)) and its padding"),
        hint: "take a smaller filter, a larger input or more padding")
    }
    let output = (
      height: (padded.height - filter.height) / stride.height + 1,
      width: (padded.width - filter.width) / stride.width + 1
    )
    let products = output.height * output.width * filter.height * filter.width
    guard products <= mostProducts else {
      throw StrideNetError(
        .usage, "too large to be followed", found: "\(products) products",
        expected: "at most \(mostProducts)",
        hint: "take a smaller input or filter, or a larger stride")
    }
    return output
  }

  /// The output as a kernel computes it.
  private static func values(
    _ kernel: String, _ shape: ck_conv_shape, _ pixels: [Float], _ weights: [Float]
  ) -> [Float] {
    let variant = ConvVariant.all.first { $0.name == kernel }!
    let workspace = FloatStorage.sure(count: max(1, variant.workspace(shape, CK_FORWARD)))
    return [Float](unsafeUninitializedCapacity: Int(shape.oh * shape.ow)) { y, count in
      variant.forward(shape, pixels, weights, bias: nil, y.baseAddress!, workspace.pointer)
      count = y.count
    }
  }

  /// "4×4"
  package static func text(_ size: Size) -> String { "\(size.height)×\(size.width)" }

  /// The input with its padding.
  package var padded: Size {
    (input.height + 2 * padding.height, input.width + 2 * padding.width)
  }

  /// The group that an output position is in.
  package func group(_ row: Int, _ column: Int) -> Int {
    groups.firstIndex { $0.rows.contains(row) && $0.columns.contains(column) }!
  }

  /// The number of an input, 0 in the padding.
  package func number(_ place: (row: Int, column: Int)) -> Int {
    (0..<input.height).contains(place.row) && (0..<input.width).contains(place.column)
      ? place.row * input.width + place.column + 1 : 0
  }

  /// The numbers of the inputs that a filter element meets in the first windows of a group.
  package func met(by element: Int, in group: Int, first count: Int = .max) -> [Int] {
    (0..<min(count, groups[group].count)).map { number(groups[group].input(element, $0)) }
  }

  /// A row of a group's gathered matrix: the values in a window.
  package func gathered(_ group: Int, _ window: Int) -> [Float] {
    weights.indices.map {
      let number = number(groups[group].input($0, window))
      return number == 0 ? 0 : pixels[number - 1]
    }
  }

  /// The output at a window of a group.
  package func sum(_ group: Int, _ window: Int) -> Float {
    let (row, column) = groups[group].position(window)
    return values[row * output.width + column]
  }

  /// How many windows hold an input: so many gradients are added to it in the backward pass.
  package func touches(_ place: (row: Int, column: Int)) -> Int {
    groups.count { $0.window(at: place) != nil }
  }

  /// A filter element's name, or that of its products, which follow: A, B, …, Z, AA, AB, ….
  package static func letter(_ index: Int) -> String {
    (index < 26 ? "" : letter(index / 26 - 1)) + String(UnicodeScalar(UInt8(65 + index % 26)))
  }

  /// Whether this is the worked example of cnn-numpy, whose text has a misprint: in its group 1, C
  /// meets 5, 7, 9, 11.
  package var isPublishedExample: Bool {
    input == (4, 4) && filter == (2, 2) && stride == (1, 1) && padding == (0, 0)
  }
}

extension ConvolutionWalk.Cost {
  /// Of one image, channel and filter; nil for a kernel whose ways aren't known here.
  init?(_ kernel: ConvVariant, _ s: ck_conv_shape, _ groups: [StrideGroups.Group]) {
    variant = kernel.name
    let positions = Int(s.oh * s.ow)
    let (products, float) = (positions * s.weights, MemoryLayout<Float>.stride)
    // Of the workspace, what isn't the product's: a matrix, and for stride groups its result.
    let own = kernel.workspace(s, CK_FORWARD) - Kernels.gemmWorkspace
    // For each output row or column, the filter's rows or columns that don't lie in the padding.
    func inside(_ outputs: Int32, _ filter: Int32, _ stride: Int32, _ pad: Int32, _ size: Int32)
      -> Int
    {
      (0..<outputs).reduce(0) {
        let start = $1 * stride - pad
        return $0 + Int(max(0, min(start + filter, size) - max(start, 0)))
      }
    }
    let rows = inside(s.oh, s.fh, s.sh, s.ph, s.h)
    switch variant {
    case "naive":
      // Whatever lies in the padding is left out.
      let columns = inside(s.ow, s.fw, s.sw, s.pw, s.w)
      (passes, gatheredBytes, heldBytes, multiplyAdds) = (positions, 0, 0, rows * columns)
    case "stride_groups":
      (passes, gatheredBytes, multiplyAdds) = (groups.count, products * float, products)
      heldBytes = (own - groups[0].count) * float
    case "im2col":
      (passes, gatheredBytes, multiplyAdds) = (1, products * float, products)
      heldBytes = own * float
    case "winograd" where ConvVariant.isThree(s):
      // Up to 28 tiles at a time; with some instruction sets 24.
      let tiles = Int((s.oh + 1) / 2 * ((s.ow + 1) / 2))
      let numbers = WinogradTile.products
      (passes, gatheredBytes, multiplyAdds) = (1, tiles * numbers * float, tiles * numbers)
      heldBytes = min(tiles, 28) * numbers * float
    case "direct", "winograd":  // which takes direct
      // The image as far as windows reach, with its zeros. Rows of zeros are left out.
      let reach = ((s.oh - 1) * s.sh + s.fh, (s.ow - 1) * s.sw + s.fw)
      let copied = s.ph > 0 || s.pw > 0 ? Int(reach.0 * reach.1) * float : 0
      (passes, gatheredBytes, heldBytes) = (1, copied, copied)
      multiplyAdds = rows * Int(s.ow * s.fw)
    default: return nil
    }
  }
}
