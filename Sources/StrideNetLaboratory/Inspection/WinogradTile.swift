/// A tile of Winograd's F(2×2, 3×3) that can be followed number by number: 2×2 outputs from 4×4
/// inputs, as `winograd_tiles.inc.h` computes them. In double precision, and so exact for the walk's
/// whole numbers, which are only added, multiplied and halved.
package struct WinogradTile: Sendable {
  package typealias Matrix = [[Double]]

  /// Bᵀ
  package static let inputTransform: Matrix = [
    [1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, -1, 0, 1],
  ]
  /// G
  package static let filterTransform: Matrix = [
    [1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1],
  ]
  /// Aᵀ
  package static let outputTransform: Matrix = [[1, 1, 1, 0], [0, 1, -1, 1]]

  /// A matrix x, and with a transform T on one side and on both.
  package struct Transformed: Sendable {
    /// x, T x, T x Tᵀ
    package let matrix, half, whole: Matrix

    init(_ matrix: Matrix, by transform: Matrix) {
      self.matrix = matrix
      half = transform.map { row in
        matrix[0].indices.map { column in
          row.indices.reduce(0) { $0 + row[$1] * matrix[$1][column] }
        }
      }
      whole = half.map { line in
        transform.map { row in zip(row, line).reduce(0) { $0 + $1.0 * $1.1 } }
      }
    }
  }

  /// Of each channel d and Bᵀ d B, g and G g Gᵀ.
  package let inputs, filters: [Transformed]
  /// M, the element-wise products of these summed over channels, and Aᵀ M A.
  package let outputs: Transformed
  /// Multiplications of a channel, and those of the definition.
  package static let products = 16, definition = 36

  /// - Parameters:
  ///   - inputs: 4×4 of each channel
  ///   - filters: 3×3 of each channel
  package init(inputs: [Matrix], filters: [Matrix]) {
    let inputs = inputs.map { Transformed($0, by: Self.inputTransform) }
    let filters = filters.map { Transformed($0, by: Self.filterTransform) }
    (self.inputs, self.filters) = (inputs, filters)
    let products = (0..<4).map { row in
      (0..<4).map { column in
        zip(inputs, filters).reduce(0) {
          $0 + $1.0.whole[row][column] * $1.1.whole[row][column]
        }
      }
    }
    outputs = Transformed(products, by: Self.outputTransform)
  }
}

extension ConvolutionWalk {
  /// Rows and columns of tiles. The last ones stick out where the output's are odd.
  package var tiles: Size { ((output.height + 1) / 2, (output.width + 1) / 2) }

  package func tile(_ row: Int, _ column: Int) -> WinogradTile {
    let inputs = (0..<4).map { i in
      (0..<4).map { j in
        let number = number((2 * row + i - padding.height, 2 * column + j - padding.width))
        return number == 0 ? 0 : Double(pixels[number - 1])
      }
    }
    let filter = (0..<3).map { i in (0..<3).map { Double(weights[3 * i + $0]) } }
    return WinogradTile(inputs: [inputs], filters: [filter])
  }

  /// The definition's outputs at a tile; nil where it sticks out.
  package func values(atTile row: Int, _ column: Int) -> [[Float?]] {
    (2 * row..<2 * row + 2).map { p in
      (2 * column..<2 * column + 2).map { q in
        p < output.height && q < output.width ? values[p * output.width + q] : nil
      }
    }
  }

  /// Whether a tile's outputs are the definition's.
  package func agrees(_ row: Int, _ column: Int) -> Bool {
    zip(tile(row, column).outputs.whole.joined(), values(atTile: row, column).joined())
      .allSatisfy { $1 == nil || Float($0) == $1 }
  }
}
