/// Backward passes against finite differences of forward passes: `stridenet gradcheck`.
///
/// Each layer stands alone, with inputs and an upstream gradient dy that tell their elements apart.
/// What the backward pass gives for dy is the slope of Σ dy · y, which is measured by moving one
/// number up and down by a small step. Where the slopes to either side differ, the number is at a
/// corner of the function (ReLU's at 0, a window with two largest values): there no slope is right,
/// and it is left out, as is one at a bend so sharp that shorter and shorter steps find other slopes.
/// Moving all inputs together finds what is counted twice at such corners.
public struct GradientCheck: Sendable {
  /// The gradient of one array of a layer.
  public struct Row: Sendable, Encodable {
    /// From 1.
    public let layer: Int
    public let name: String
    /// "x", "all of x" (moved together) or a parameter's name.
    public let array: String
    /// How many numbers were moved, and how many of them were at corners.
    public let checked, corners: Int
    /// The largest difference, as a share of the slope or of 1, and where it was.
    public let worstError: Double
    public let index: Int
    public let slope, gradient: Double
    public let passed: Bool
  }

  public let rows: [Row]
  public var passed: Bool { rows.allSatisfy(\.passed) }

  /// Rounding of float sums over a step of 1/64, and the step's own curvature.
  private static let tolerance = 4e-3
  private static let step: Float = 1 / 128
  private static let batch = 3
  /// Numbers that are moved in each array.
  private static let samples = 40

  /// Checks layers as a network of them would run.
  /// - Throws: ``StrideNetError`` where they don't fit the input
  public init(_ layers: [Layer], input: Shape, seed: UInt64 = 1, runtime: Runtime = Runtime())
    throws
  {
    let network = Network(layers, seed: seed, runtime: runtime)
    try network.build(for: input)
    var rows: [Row] = []
    for (index, layer) in layers.enumerated() where !layer.onlyReshapes {
      let below = index == 0 ? input : network.shapes[index - 1]
      rows += try Self.check(layer, index, below, network.shapes[index], seed, runtime)
    }
    self.rows = rows
  }

  private static func check(
    _ layer: Layer, _ index: Int, _ input: Shape, _ output: Shape, _ seed: UInt64,
    _ runtime: Runtime
  ) throws -> [Row] {
    layer.leavesSoftmaxToLoss = false
    try layer.reserve(
      batch: batch, input: input, output: output, runtime: runtime, training: true)
    var random = SeededGenerator(seed: seed, stream: 1 << 48 + UInt64(index))
    func view(_ storage: FloatStorage, _ shape: Shape) -> TensorView {
      TensorView(storage.pointer, batch: batch, shape: shape)
    }
    func fill(_ pointer: UnsafeMutablePointer<Float>, _ count: Int, _ scale: Float) {
      for i in 0..<count { pointer[i] = scale * (2 * random.uniform() - 1) }
    }
    for parameter in layer.parameters where parameter.isTrained && parameter.shape.count == 1 {
      // Biases that are 0 hide what is done with them.
      for i in 0..<parameter.count { parameter.value[i] += 0.2 * (2 * random.uniform() - 1) }
    }
    let x = try FloatStorage(count: batch * input.count)
    let y = try FloatStorage(count: batch * output.count)
    let dy = try FloatStorage(count: batch * output.count)
    fill(x.pointer, x.count, 1.5)
    // Some neighbours are the same, as in images: windows with two largest values are to be seen.
    let images = view(x, input)
    for n in 0..<batch {
      for row in 0..<input.height {
        for column in stride(from: 0, to: input.width - 1, by: 4) {
          for c in 0..<input.channels { images[n, row, column + 1, c] = images[n, row, column, c] }
        }
      }
    }
    // Few outputs count, so that a step rarely takes one of them round a corner.
    for _ in 0..<min(48, dy.count) {
      dy.pointer[random.below(dy.count)] = 2 * random.uniform() - 1
    }
    let pass = Pass(runtime: runtime, training: true, seed: seed)
    func objective() -> Double {
      layer.forward(view(x, input), view(y, output), pass)
      var sum = 0.0
      for i in 0..<y.count { sum += Double(dy.pointer[i]) * Double(y.pointer[i]) }
      return sum
    }
    let middle = objective()
    let (upstream, dx) = (try dy.copy(), try FloatStorage(count: x.count))
    layer.backward(
      view(x, input), view(y, output), view(upstream, output), view(dx, input), pass)
    let gradients = layer.parameters.map {
      Array(UnsafeBufferPointer(start: $0.gradient, count: $0.count))
    }

    func row(
      _ name: String, _ indices: [Int], _ gradient: (Int) -> Double, _ move: (Int, Float) -> Void
    ) -> Row {
      var (corners, worst) = (0, (error: -1.0, index: 0, slope: 0.0, gradient: 0.0))
      for i in indices {
        let found = gradient(i)
        func slopes(_ step: Float) -> (left: Double, right: Double, slope: Double, error: Double) {
          move(i, step)
          let up = objective()
          move(i, -2 * step)
          let down = objective()
          move(i, step)
          let slope = (up - down) / Double(2 * step)
          return (
            (middle - down) / Double(step), (up - middle) / Double(step), slope,
            abs(slope - found) / max(1, abs(slope))
          )
        }
        let (left, right, first, firstError) = slopes(step)
        var (closest, error) = (first, firstError)
        let size = max(1, abs(first))
        // A curve bends little over such a step; a corner changes the slope at once, and any slope
        // between the two is right there.
        if abs(right - left) > 2 * tolerance * size && (name != "all of x" || !layer.inner.isEmpty)
          && found > min(left, right) - tolerance * size
          && found < max(left, right) + tolerance * size
        {
          corners += 1
          continue
        }
        // Several corners on the way, or a sharp bend? A shorter one has less of that, down to where
        // rounding counts as much, and if a last corner is close on one side, the slope to the other
        // is right. A mistake stays what it is.
        var (last, moved) = (first, 0.0)
        for halvings in 1...6 where error > tolerance {
          let shorter = slopes(step / Float(1 << halvings))
          moved = abs(shorter.slope - last) / size
          last = shorter.slope
          for slope in [shorter.slope, shorter.left, shorter.right] {
            let other = abs(slope - found) / max(1, abs(slope))
            if other < error { (closest, error) = (slope, other) }
          }
        }
        // Bent too sharply for any step: nothing can be said. (Slopes that grow as steps get shorter
        // are of something that is no function.)
        if error > tolerance && moved > tolerance && moved < 0.25 {
          corners += 1
          continue
        }
        if !(error <= worst.error) { worst = (error, i, closest, found) }
      }
      return Row(
        layer: index + 1, name: layer.text, array: name, checked: indices.count, corners: corners,
        worstError: max(0, worst.error), index: worst.index, slope: worst.slope,
        gradient: worst.gradient, passed: worst.error <= tolerance)
    }
    /// Numbers all over an array, and of those that the backward pass has a gradient for.
    func chosen(_ count: Int, _ gradient: UnsafePointer<Float>) -> [Int] {
      let used = (0..<count).filter { gradient[$0] != 0 }
      func some(_ indices: [Int], _ most: Int) -> [Int] {
        stride(from: 0, to: indices.count, by: max(1, indices.count / most)).map { indices[$0] }
      }
      return Array(Set(some(Array(0..<count), samples / 2) + some(used, samples))).sorted()
    }
    var total = 0.0
    for i in 0..<dx.count { total += Double(dx.pointer[i]) }
    var rows = [
      row("x", chosen(x.count, dx.pointer), { Double(dx.pointer[$0]) }) { x.pointer[$0] += $1 },
      // By a smaller step for each, or many corners would be passed on the way.
      row("all of x", [0], { _ in total / 64 }) { _, move in
        for i in 0..<x.count { x.pointer[i] += move / 64 }
      },
    ]
    for (parameter, gradient) in zip(layer.parameters, gradients) where parameter.isTrained {
      rows.append(
        row(parameter.name, chosen(parameter.count, gradient), { Double(gradient[$0]) }) {
          parameter.value[$0] += $1
        })
    }
    return rows
  }
}
