import Foundation

/// Max or average pooling.
final class Pooling: Part {
  let output: Size
  let window, stride: (height: Int, width: Int)
  let around: Geometry.Sides
  let takesLargest, countsPadding: Bool
  private var x: Field!

  init(
    _ output: Size, window: (height: Int, width: Int), stride: (height: Int, width: Int),
    around: Geometry.Sides = (0, 0, 0, 0), takesLargest: Bool, countsPadding: Bool = true
  ) {
    (self.output, self.window, self.stride, self.around) = (output, window, stride, around)
    (self.takesLargest, self.countsPadding) = (takesLargest, countsPadding)
  }

  /// With the pixels that a window holds, and how many places of it count.
  private func forEachWindow(_ y: Field, _ body: (_ y: Int, _ x: [Int], _ counted: Int) -> Void) {
    let size = x.size
    for n in 0..<y.batch {
      for p in 0..<output.height {
        for q in 0..<output.width {
          for c in 0..<output.channels {
            var (places, counted) = ([Int](), 0)
            for i in 0..<window.height {
              for j in 0..<window.width {
                let row = p * stride.height + i - around.top
                let column = q * stride.width + j - around.left
                if row < size.height + around.bottom && column < size.width + around.right {
                  counted += 1
                }
                guard row >= 0, row < size.height, column >= 0, column < size.width else {
                  continue
                }
                places.append(x.pixel(n, row, column) + c)
              }
            }
            body(y.pixel(n, p, q) + c, places, countsPadding ? counted : places.count)
          }
        }
      }
    }
  }

  /// The first largest, what is no number before all else, and all that it may as well be.
  private func largest(_ places: [Int]) -> (first: Int, possible: [Int]) {
    var first = places[0]
    for place in places.dropFirst() where !x.value[first].isNaN {
      if x.value[place].isNaN || x.value[place] > x.value[first] { first = place }
    }
    let possible = places.filter {
      let (reach, error) = (x.value[first] - x.value[$0], x.error[first] + x.error[$0])
      return $0 == first || (error > 0 && reach <= tolerance * error)
    }
    return (first, possible)
  }

  override func forward(_ x: Field, training: Bool) -> Field {
    self.x = x
    let y = Field(x.batch, output)
    forEachWindow(y) { place, window, counted in
      if takesLargest {
        let (first, possible) = largest(window)
        y.value[place] = x.value[first]
        y.error[place] = possible.map { x.error[$0] }.max()!
      } else {
        var sum = Sum()
        for i in window { sum.add(x.value[i], error: x.error[i]) }
        sum.add(0, error: Double(window.count) * x.shared[place % x.size.channels])
        y[place] = sum.number / Number(Double(counted))
      }
    }
    y.inherit(x)
    return y
  }

  override func backward(_ dy: Field) -> Field {
    let dx = Field(dy.batch, x.size)
    var sums = [Sum](repeating: Sum(), count: dx.count)
    forEachWindow(dy) { place, window, counted in
      let d = dy[place]
      if takesLargest {
        let (first, possible) = largest(window)
        sums[first].add(d.value, error: d.error)
        guard possible.count > 1 else { return }
        for i in possible { sums[i].add(0, error: abs(d.value) + d.error) }
      } else {
        let share = d / Number(Double(counted))
        for i in window { sums[i].add(share.value, error: share.error) }
      }
    }
    dx.fill(from: sums)
    dx.inherit(dy)
    return dx
  }
}
