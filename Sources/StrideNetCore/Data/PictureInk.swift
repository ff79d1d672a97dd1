/// Telling ink from paper, and from what else is on it.
extension Picture {
  /// The ink, cut out: about 0 where there is paper … 1 full ink.
  func drawing() throws -> (values: [Float], height: Int, width: Int) {
    var ink = grey()
    // Paper is what is at the edge: where that is light, ink is dark.
    let edge =
      Array(0..<width) + Array((height - 1) * width..<height * width)
      + (0..<height).flatMap { [$0 * width, ($0 + 1) * width - 1] }
    let paper = edge.map { ink[$0] }.sorted()[edge.count / 2]
    ink = paper > 0.5 ? ink.map { paper - $0 } : ink.map { $0 - paper }
    /// What nine tenths of the edge keep within: 1.6 standard deviations of noise.
    func deviation(_ value: (Int) -> Float) -> Float {
      edge.map { abs(value($0)) }.sorted()[edge.count * 9 / 10]
    }
    // Grain is what is gone from the means of small squares. Of the ink's too: four deviations.
    let smooth = Self.blurred(ink, (height, width), min(height, width) / 250)
    let darkest = ink.max()! - 2.5 * deviation { ink[$0] - smooth[$0] }
    /// Above what the edge shows as well, the paper's grain and shade.
    func least(_ values: [Float], _ most: Float) -> Float {
      max(most / 30, min(3 * deviation { values[$0] }, most / 2))
    }
    // Faint lines and stains are no ink, but for ink's own soft edge, and neither are specks.
    let most = smooth.max()!
    let (fine, coarse) = (least(ink, darkest), least(smooth, most))
    let core = withoutSpecks(smooth.map { $0 > max(coarse, most / 4) }, ink)
    guard darkest > 0.1, let rough = box({ core[$0] }) else {
      throw StrideNetError(
        .badData, "nothing is drawn on the picture",
        found: "pixels that differ by \(Int(max(0, darkest) * 255)) of 255", expected: "a digit",
        hint: "draw it darker than its paper, or lighter")
    }
    let margin = max(1, max(rough.rows.count, rough.columns.count) / 20)
    let near = Self.blurred(core.map { $0 ? 1 : 0 }, (height, width), margin)
    let isInk = smooth.indices.map { near[$0] > 0 && smooth[$0] > coarse }
    let (rows, columns) = box { isInk[$0] && ink[$0] > fine } ?? rough
    let values = rows.flatMap { row in
      columns.map { column -> Float in
        let i = row * width + column
        return isInk[i] ? ink[i] / darkest : 0
      }
    }
    return (values, rows.count, columns.count)
  }

  /// What there is any ink in.
  private func box(_ isInk: (Int) -> Bool) -> (rows: ClosedRange<Int>, columns: ClosedRange<Int>)? {
    var (top, bottom, left, right) = (height, -1, width, -1)
    for row in 0..<height {
      for column in 0..<width where isInk(row * width + column) {
        (top, bottom) = (min(top, row), row)
        (left, right) = (min(left, column), max(right, column))
      }
    }
    return bottom < 0 ? nil : (top...bottom, left...right)
  }

  /// Without connected parts that have less than a fiftieth of the largest one's ink.
  private func withoutSpecks(_ mask: [Bool], _ ink: [Float]) -> [Bool] {
    var part = [Int32](repeating: 0, count: mask.count)
    var masses: [Float] = [0]
    var stack: [Int] = []
    for start in mask.indices where mask[start] && part[start] == 0 {
      let number = Int32(masses.count)
      masses.append(0)
      part[start] = number
      stack.append(start)
      while let i = stack.popLast() {
        masses[Int(number)] += max(0, ink[i])
        let (row, column) = (i / width, i % width)
        for y in max(0, row - 1)...min(height - 1, row + 1) {
          for x in max(0, column - 1)...min(width - 1, column + 1) {
            let k = y * width + x
            if mask[k] && part[k] == 0 {
              part[k] = number
              stack.append(k)
            }
          }
        }
      }
    }
    let least = masses.max()! / 50
    return mask.indices.map { mask[$0] && masses[Int(part[$0])] >= least }
  }

  /// Each value the mean of those up to `radius` away, as far as there are any.
  private static func blurred(_ x: [Float], _ size: (height: Int, width: Int), _ radius: Int)
    -> [Float]
  {
    guard radius > 0 else { return x }
    /// Along lines of `count` values that are `step` apart.
    func along(_ x: [Float], lines: Int, _ line: Int, count: Int, _ step: Int) -> [Float] {
      var result = x
      for l in 0..<lines {
        var (sum, first, end) = (0.0, 0, 0)
        for i in 0..<count {
          while end < min(count, i + radius + 1) {
            sum += Double(x[l * line + end * step])
            end += 1
          }
          while first < i - radius {
            sum -= Double(x[l * line + first * step])
            first += 1
          }
          result[l * line + i * step] = Float(sum / Double(end - first))
        }
      }
      return result
    }
    let wide = along(x, lines: size.height, size.width, count: size.width, 1)
    return along(wide, lines: size.width, 1, count: size.height, size.width)
  }
}
