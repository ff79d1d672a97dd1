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
    /// Output rows and columns: each row with each column is a position.
    package let rows, columns: [Int]
    let size, stride, padding: (height: Int, width: Int)

    /// How many windows.
    public var count: Int { rows.count * columns.count }

    /// The output position of a window, row by row.
    package func position(_ window: Int) -> (row: Int, column: Int) {
      (rows[window / columns.count], columns[window % columns.count])
    }

    /// The input (in padding outside of 0..<size) that a filter element, counted row by row, meets
    /// in a window.
    package func input(_ element: Int, _ window: Int) -> (row: Int, column: Int) {
      let (row, column) = position(window)
      return (
        row * stride.height + element / size.width - padding.height,
        column * stride.width + element % size.width - padding.width
      )
    }

    /// The window that holds an input; none where no window of the group does.
    package func window(at input: (row: Int, column: Int)) -> Int? {
      func index(_ offset: Int, _ positions: [Int], _ size: Int, _ stride: Int) -> Int? {
        let offset = offset - positions[0] * stride
        let step = positions.count > 1 ? (positions[1] - positions[0]) * stride : size
        let index = offset / step
        return offset >= 0 && index < positions.count && offset % step < size ? index : nil
      }
      guard let row = index(input.row + padding.height, rows, size.height, stride.height),
        let column = index(input.column + padding.width, columns, size.width, stride.width)
      else { return nil }
      return row * columns.count + column
    }

    /// Output positions, row by row.
    public var positions: [(row: Int, column: Int)] { (0..<count).map(position) }

    /// For each filter element, row by row, the inputs (row, column; in padding outside of
    /// 0..<size) that it meets, one for each position.
    public var inputs: [[(row: Int, column: Int)]] {
      (0..<size.height * size.width).map { element in (0..<count).map { input(element, $0) } }
    }
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
        Group(
          rows: Array(Swift.stride(from: r, to: output.height, by: rows.q)),
          columns: Array(Swift.stride(from: c, to: output.width, by: columns.q)), size: size,
          stride: stride, padding: padding)
      }
    }
  }
}

extension Network {
  /// Of a convolution or pooling, how many stride groups there are along each axis, and how its
  /// windows lie; nil for other layers.
  /// - Parameter number: the layer's, from 0
  package func strideGroups(layer number: Int) -> (
    groups: (rows: Int, columns: Int), window: (height: Int, width: Int),
    stride: (height: Int, width: Int), start: (top: Int, left: Int),
    dilation: (height: Int, width: Int)
  )? {
    guard stages.indices.contains(number), let operation = stages[number].only else { return nil }
    func count(
      _ size: (height: Int, width: Int), _ stride: (height: Int, width: Int),
      _ dilation: (height: Int, width: Int)
    ) -> (rows: Int, columns: Int) {
      func groups(_ size: Int, _ stride: Int, _ dilation: Int, _ output: Int) -> Int {
        ck_axis_groups((size - 1) * dilation + 1, stride, output).groups
      }
      let output = operation.output
      return (
        groups(size.height, stride.height, dilation.height, output.height),
        groups(size.width, stride.width, dilation.width, output.width)
      )
    }
    switch operation.kind {
    case .convolve(let layer, let start):
      return (
        count(layer.size, layer.stride, layer.dilation), layer.size, layer.stride, start,
        layer.dilation
      )
    case .pool(let window):
      return (
        count(window.size, window.stride, (1, 1)), window.size, window.stride,
        (window.around.top, window.around.left), (1, 1)
      )
    default: return nil
    }
  }
}
