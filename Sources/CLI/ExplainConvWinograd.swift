import StrideNet

/// A tile of winograd, in the text and in the still picture.
extension ConvolutionText {
  var winograd: [StyledText] {
    guard walk.isWinograd else { return section("4  Winograd", walk.notWinograd) }
    return section(
      "4  Winograd",
      "\(walk.tileSummary):", "y = Aᵀ M A with M = U ⊙ V, U = G g Gᵀ and V = Bᵀ d B.",
      "⊙ multiplies numbers in the same place; the rest is sums and halves.", "")
      + narrow([
        block("Bᵀ", WinogradTile.inputTransform), block("G", WinogradTile.filterTransform),
        block("Aᵀ", WinogradTile.outputTransform),
      ]) + ["", "\(walk.tileTitle):", ""] + numbers(walk.tile(0, 0))
      + [
        "", "With several channels M is the sum of their U ⊙ V, and is transformed once.",
        "U serves all tiles and images.",
      ]
  }

  /// A tile's numbers, and how one in each matrix comes about.
  private func numbers(_ tile: WinogradTile) -> [StyledText] {
    let (d, g, m) = (tile.inputs[0], tile.filters[0], tile.outputs)
    let values = walk.values(atTile: 0, 0)
    let rows = [
      [block("inputs d", d.matrix), block("Bᵀ d", d.half), block("V = Bᵀ d B", d.whole)],
      [block("filter g", g.matrix), block("G g", g.half), block("U = G g Gᵀ", g.whole)],
      [block("M = U ⊙ V", m.matrix), block("Aᵀ M", m.half)],
      [
        block("y = Aᵀ M A", m.whole),
        ["naive's output"]
          + grid((2, 2)) { row, column in values[row][column].map { "\(Int($0))" } ?? "·" },
      ],
    ]
    let examples = tile.examples.map { StyledText("  " + $0) }
    let equal =
      values.joined().contains(nil)
      ? "y is naive's output, where there is one (not ·)." : "y is naive's output."
    return rows.map(narrow).joined(separator: [""]) + [""] + examples + ["", StyledText(equal)]
  }

  private func block(_ title: String, _ matrix: WinogradTile.Matrix) -> [StyledText] {
    [StyledText(title)]
      + grid((matrix.count, matrix[0].count)) { WinogradTile.text(matrix[$0][$1]) }
  }

  private func narrow(_ blocks: [[StyledText]]) -> [StyledText] {
    sideBySide(blocks, width: min(width, 80))
  }
}

/// The same words in text and picture.
extension ConvolutionWalk {
  var notWinograd: String {
    "winograd does not apply: it is for 3×3 with a stride of 1. direct is taken."
  }

  var tileTitle: String {
    let count = tiles.height * tiles.width
    return count == 1 ? "The only tile" : "The first of \(count.grouped) tiles"
  }

  var tileSummary: String {
    "A tile of 2×2 outputs takes \(WinogradTile.products) multiplications, not "
      + "4 × 9 = \(WinogradTile.definition)"
  }
}

extension WinogradTile {
  /// "11.25": exact, as all are quarters.
  static func text(_ value: Double) -> String {
    value == value.rounded() ? "\(Int(value))" : "\(value)"
  }

  /// How one number in each matrix comes about.
  var examples: [String] {
    func sum(_ values: [Double]) -> String {
      values.dropFirst().reduce(Self.text(values[0])) {
        $0 + ($1 < 0 ? " - " : " + ") + Self.text(abs($1))
      }
    }
    let (d, g, m) = (inputs[0], filters[0], outputs)
    let columns = (0..<3).map { column in "(\(sum(g.matrix.map { $0[column] })))" }
    let pairs = (1...2).map { column in "(\(sum(d.matrix[1...2].map { $0[column] })))" }
    return [
      "V(1,1) = \(pairs.joined(separator: " + ")) = \(Self.text(d.whole[1][1]))",
      "U(1,1) = (\(columns.joined(separator: " + "))) / 4 = \(Self.text(g.whole[1][1]))",
      "M(1,1) = \(Self.text(g.whole[1][1])) × \(Self.text(d.whole[1][1])) = "
        + Self.text(m.matrix[1][1]),
      "y(0,0) = \(sum(Array(m.half[0][..<3]))) = \(Self.text(m.whole[0][0])), of Aᵀ M",
    ]
  }
}

extension ConvolutionPicture {
  /// The first tile: inputs and filter transformed, their product, and the outputs that come of it.
  /// Returns where it ends.
  mutating func drawWinograd(_ left: Double, _ top: Double) -> Double {
    text(left, top, "Winograd: fewer multiplications", "h2")
    guard walk.isWinograd else {
      text(left, top + 28, walk.notWinograd, "soft", size: 14)
      return top + 28
    }
    text(
      left, top + 26,
      "\(walk.tileSummary): those of ⊙, place by place. The rest is sums and halves. "
        + "\(walk.tileTitle):",
      "soft", size: 14)
    let tile = walk.tile(0, 0)
    let (d, g, m) = (tile.inputs[0], tile.filters[0], tile.outputs)
    let (middle, isInside) = (top + 122, walk.values(atTile: 0, 0).map { $0.map { $0 != nil } })
    var x = left
    for (sign, title, matrix, box) in [
      ("", "inputs d", d.matrix, "cell"),
      ("→", "V = Bᵀ d B", d.whole, "wash g0"), ("⊙", "U = G g Gᵀ", g.whole, "wash g1"),
      ("←", "filter g", g.matrix, "cell"), ("=", "M = U ⊙ V", m.matrix, "wash g2"),
      ("→", "y = Aᵀ M A", m.whole, "wash g3"),
    ] {
      if !sign.isEmpty {
        text(x + 16, middle + 6, sign, "m soft", size: 18)
        x += 32
      }
      let isCut = matrix.count == 2
      x += drawMatrix(matrix, title, x, middle) {
        isCut && !isInside[$0][$1] ? "zero" : box
      }
    }
    return middle + 60
  }

  /// Centred on a height; returns how wide it is.
  private mutating func drawMatrix(
    _ matrix: WinogradTile.Matrix, _ title: String, _ x: Double, _ middle: Double,
    box: (Int, Int) -> String
  ) -> Double {
    let (texts, height) = (matrix.map { $0.map(WinogradTile.text) }, 28.0)
    let width = max(height, Double(texts.joined().map(\.count).max()!) * 7.6 + 10)
    let top = middle - Double(matrix.count) * height / 2
    text(x, top - 8, title, "soft", size: 12)
    for (row, line) in texts.enumerated() {
      for (column, number) in line.enumerated() {
        let box = box(row, column)
        cell(
          x + Double(column) * width, top + Double(row) * height, width, height, number, box: box,
          ink: box == "zero" ? "faint" : "")
      }
    }
    return Double(matrix[0].count) * width
  }
}
