import StrideNetCore

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
    package let checked, corners: Int
    /// How many there are.
    package let count: Int
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
  public init(
    _ layers: [any Layer], input: Shape, seed: UInt64 = 1, runtime: Runtime = Runtime()
  ) throws {
    let network = Network(layers, seed: seed, runtime: runtime)
    try network.build(for: input)
    // Biases that are 0 hide what is done with them.
    rows = try Self.check(network, seed: seed) { parameter, random in
      guard parameter.isTrained && parameter.shape.count == 1 else { return }
      for i in 0..<parameter.count { parameter.value[i] += 0.2 * (2 * random.uniform() - 1) }
    }
  }

  /// Checks a network's layers with its weights, which stay as they are.
  /// - Throws: ``StrideNetError`` if it isn't built
  public init(_ network: Network, seed: UInt64 = 1) throws {
    let copy = try network.copy()
    rows = try Self.check(copy, seed: seed) { _, _ in }
  }

  private static func check(
    _ network: Network, seed: UInt64, _ change: (Parameter, inout SeededGenerator) -> Void
  ) throws -> [Row] {
    try network.stages.enumerated().flatMap { index, stage -> [Row] in
      if stage.onlyReshapes { return [] }
      var random = SeededGenerator(seed: seed, stream: 1 << 48 + UInt64(index))
      for parameter in stage.parameters { change(parameter, &random) }
      return try LayerCheck(stage, number: index + 1, seed, network.runtime, &random).rows()
    }
  }

  /// One layer with inputs and an upstream gradient.
  private struct LayerCheck {
    let stage: Stage
    let number: Int
    let plan: Plan
    let pass: Pass
    let x, dy: FloatStorage
    /// What the backward pass found.
    let dx: FloatStorage
    let gradients: [[Float]]
    /// Σ dy · y before anything is moved.
    let middle: Double

    init(
      _ stage: Stage, number: Int, _ seed: UInt64, _ runtime: Runtime,
      _ random: inout SeededGenerator
    ) throws {
      (self.stage, self.number) = (stage, number)
      plan = Plan(stage.operations, stage.input, runtime)
      try plan.reserve(batch, training: true)
      pass = Pass(runtime: runtime, training: true, seed: seed, share: BatchShare(batch))
      x = try FloatStorage(count: batch * stage.input.count)
      dy = try FloatStorage(count: batch * stage.output.count)
      dx = try FloatStorage(count: x.count)
      for i in 0..<x.count { x.pointer[i] = 1.5 * (2 * random.uniform() - 1) }
      // Some neighbours are the same, as in images: windows with two largest values are to be seen.
      let (images, input) = (TensorView(x.pointer, batch: batch, shape: stage.input), stage.input)
      for n in 0..<batch {
        for row in 0..<input.height {
          for column in stride(from: 0, to: input.width - 1, by: 4) {
            for c in 0..<input.channels {
              images[n, row, column + 1, c] = images[n, row, column, c]
            }
          }
        }
      }
      // Few outputs count, so that a step rarely takes one of them round a corner.
      for _ in 0..<min(48, dy.count) {
        dy.pointer[random.below(dy.count)] = 2 * random.uniform() - 1
      }
      middle = Self.objective(plan, images, dy, pass)
      let upstream = try dy.copy()
      plan.backward(
        images, TensorView(upstream.pointer, batch: batch, shape: stage.output),
        TensorView(dx.pointer, batch: batch, shape: input), pass)
      gradients = stage.parameters.map {
        Array(UnsafeBufferPointer(start: $0.gradient, count: $0.count))
      }
    }

    /// Σ dy · y: its slope is what the backward pass gives for the upstream gradient dy.
    private static func objective(
      _ plan: Plan, _ x: TensorView, _ dy: FloatStorage, _ pass: Pass
    ) -> Double {
      let y = plan.forward(x, pass)
      var sum = 0.0
      for i in 0..<y.count { sum += Double(dy.pointer[i]) * Double(y.pointer[i]) }
      return sum
    }

    private func objective() -> Double {
      Self.objective(plan, TensorView(x.pointer, batch: batch, shape: stage.input), dy, pass)
    }

    func rows() -> [Row] {
      let (x, dx) = (x.pointer, dx.pointer)
      let total = (0..<self.x.count).reduce(0.0) { $0 + Double(dx[$1]) }
      var rows = [
        row("x", of: self.x.count, Self.chosen(self.x.count, dx), { Double(dx[$0]) }) {
          x[$0] += $1
        },
        // By a smaller step for each, or many corners would be passed on the way.
        row("all of x", of: 1, [0], { _ in total / 64 }) { _, move in
          for i in 0..<self.x.count { x[i] += move / 64 }
        },
      ]
      let prefix = "layers.\(number - 1)."
      for (parameter, gradient) in zip(stage.parameters, gradients) where parameter.isTrained {
        rows.append(
          row(
            String(parameter.name.dropFirst(prefix.count)), of: parameter.count,
            Self.chosen(parameter.count, gradient), { Double(gradient[$0]) }
          ) { parameter.value[$0] += $1 })
      }
      return rows
    }

    /// Numbers all over an array, and of those that the backward pass has a gradient for.
    private static func chosen(_ count: Int, _ gradient: UnsafePointer<Float>) -> [Int] {
      let used = (0..<count).filter { gradient[$0] != 0 }
      func some(_ indices: [Int], _ most: Int) -> [Int] {
        stride(from: 0, to: indices.count, by: max(1, indices.count / most)).map { indices[$0] }
      }
      return Array(Set(some(Array(0..<count), samples / 2) + some(used, samples))).sorted()
    }

    /// The slopes of the objective to the left, to the right and over both, by a step.
    private func slopes(_ i: Int, _ step: Float, _ move: (Int, Float) -> Void) -> (
      left: Double, right: Double, middle: Double
    ) {
      move(i, step)
      let up = objective()
      move(i, -2 * step)
      let down = objective()
      move(i, step)
      return (
        (middle - down) / Double(step), (up - middle) / Double(step), (up - down) / Double(2 * step)
      )
    }

    /// The slope at number `i` that is closest to what the backward pass found; nil at a corner.
    private func slope(
      _ i: Int, _ found: Double, isSmooth: Bool, _ move: (Int, Float) -> Void
    ) -> (error: Double, slope: Double)? {
      func error(_ slope: Double) -> Double { abs(slope - found) / max(1, abs(slope)) }
      let (left, right, first) = slopes(i, step, move)
      var closest = (error: error(first), slope: first)
      let size = max(1, abs(first))
      // A curve bends little over such a step; a corner changes the slope at once, and any slope
      // between the two is right there.
      if abs(right - left) > 2 * tolerance * size && !isSmooth
        && found > min(left, right) - tolerance * size
        && found < max(left, right) + tolerance * size
      {
        return nil
      }
      // Several corners on the way, or a sharp bend? A shorter one has less of that, down to where
      // rounding counts as much, and if a last corner is close on one side, the slope to the other
      // is right. A mistake stays what it is.
      var (last, moved) = (first, 0.0)
      for halvings in 1...6 where closest.error > tolerance {
        let shorter = slopes(i, step / Float(1 << halvings), move)
        moved = abs(shorter.middle - last) / size
        last = shorter.middle
        for slope in [shorter.middle, shorter.left, shorter.right]
        where error(slope) < closest.error {
          closest = (error(slope), slope)
        }
      }
      // Bent too sharply for any step: nothing can be said. (Slopes that grow as steps get shorter
      // are of something that is no function.)
      return closest.error > tolerance && moved > tolerance && moved < 0.25 ? nil : closest
    }

    private func row(
      _ name: String, of count: Int, _ indices: [Int], _ gradient: (Int) -> Double,
      _ move: (Int, Float) -> Void
    ) -> Row {
      // Moving all inputs passes many corners, but of layers that are made of others.
      let isSmooth = name == "all of x" && stage.operations.allSatisfy(\.body.isEmpty)
      var (corners, worst) = (0, (error: -1.0, index: 0, slope: 0.0, gradient: 0.0))
      for i in indices {
        let found = gradient(i)
        guard let closest = slope(i, found, isSmooth: isSmooth, move) else {
          corners += 1
          continue
        }
        if !(closest.error <= worst.error) { worst = (closest.error, i, closest.slope, found) }
      }
      return Row(
        layer: number, name: stage.text, array: name, checked: indices.count, corners: corners,
        count: count, worstError: max(0, worst.error), index: worst.index, slope: worst.slope,
        gradient: worst.gradient, passed: worst.error <= tolerance)
    }
  }
}
