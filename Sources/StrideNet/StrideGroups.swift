import CKernels

/// The stride groups of a convolution or pooling: sets of windows that don't overlap.
///
/// On an axis with windows of f elements every s steps, q = ⌈f / s⌉, and window p belongs to group
/// p mod q: consecutive windows of a group start q·s ≥ f apart, so no input element lies in two of
/// them. In two dimensions the groups are the product of the two axes'. There are at most
/// filter-height × filter-width of them, however large the input and the batch are.
public struct StrideGroups: Sendable {
  /// One set of windows that don't overlap.
  public struct Group: Sendable {
    /// Output positions, row by row.
    public let positions: [(row: Int, column: Int)]
    /// For each filter element, row by row, the inputs (row, column; in padding outside of
    /// 0..<size) that it meets, one for each position.
    public let inputs: [[(row: Int, column: Int)]]
  }

  public let groups: [Group]

  /// - Parameters:
  ///   - output: output rows and columns
  ///   - size: the window's height and width
  ///   - stride: from one window to the next, down and to the right
  ///   - padding: zeros above and to the left
  public init(
    output: (height: Int, width: Int), size: (height: Int, width: Int),
    stride: (height: Int, width: Int), padding: (height: Int, width: Int) = (0, 0)
  ) {
    let rows = ck_axis_groups(size.height, stride.height, output.height)
    let columns = ck_axis_groups(size.width, stride.width, output.width)
    groups = (0..<rows.groups).flatMap { r in
      (0..<columns.groups).map { c in
        let positions = Swift.stride(from: r, to: output.height, by: rows.q).flatMap { row in
          Swift.stride(from: c, to: output.width, by: columns.q).map { (row: row, column: $0) }
        }
        let inputs = (0..<size.height * size.width).map { element in
          positions.map { position in
            (
              row: position.row * stride.height + element / size.width - padding.height,
              column: position.column * stride.width + element % size.width - padding.width
            )
          }
        }
        return Group(positions: positions, inputs: inputs)
      }
    }
  }
}

extension Layer {
  /// Of a convolution or pooling, how many stride groups there are along each axis, and its window's
  /// size; nil for other layers.
  /// - Parameter output: the layer's output
  public func strideGroups(output: Shape) -> (
    groups: (rows: Int, columns: Int), window: (height: Int, width: Int)
  )? {
    func count(
      _ size: (height: Int, width: Int), _ stride: (height: Int, width: Int),
      _ dilation: (height: Int, width: Int)
    ) -> (rows: Int, columns: Int) {
      (
        ck_axis_groups((size.height - 1) * dilation.height + 1, stride.height, output.height)
          .groups,
        ck_axis_groups((size.width - 1) * dilation.width + 1, stride.width, output.width).groups
      )
    }
    switch self {
    case let layer as Conv2D:
      return (count(layer.size, layer.stride, layer.dilation), layer.size)
    case let layer as Pool2D: return (count(layer.size, layer.stride, (1, 1)), layer.size)
    default: return nil
    }
  }
}
