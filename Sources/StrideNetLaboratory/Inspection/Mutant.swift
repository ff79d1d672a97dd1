import Foundation
import StrideNetCore
import Synchronization

/// A layer with a mistake in it, to see what mistakes look like: `stridenet gradcheck --mutant NAME`.
/// All but one are small and plain versions of the library's layers; several of the mistakes were
/// made by the program that this one comes from.
public final class Mutant: CustomLayer {
  public enum Mistake: String, Sendable, CaseIterable {
    case biasInTheLoop = "bias-in-the-loop"
    case weightsRedrawn = "weights-redrawn"
    case absoluteValue = "absolute-value"
    case biasFromWeights = "bias-from-weights"
    case softmaxOfSigmoid = "softmax-of-sigmoid"
    case maxTies = "max-ties"
    case unpaddedGradient = "unpadded-gradient"
    case flippedFilter = "flipped-filter"
    case forgottenStride = "forgotten-stride"
    case meanGradient = "mean-gradient"
    case reluOfGradient = "relu-of-gradient"
    case overwrittenOverlap = "overwritten-overlap"

    /// What is wrong, and what it does.
    package var summary: String {
      switch self {
      case .biasInTheLoop: "adds the bias once for each element of a window; backwards, once"
      case .weightsRedrawn: "draws new weights in each forward pass"
      case .absoluteValue: "has |x| for ReLU, with ReLU's derivative"
      case .biasFromWeights: "takes the bias' gradient from sums of dW"
      case .softmaxOfSigmoid: "applies softmax to a sigmoid, and forgets the sigmoid backwards"
      case .maxTies: "gives each of several largest values the whole gradient"
      case .unpaddedGradient: "leaves the padding out of the input gradient"
      case .flippedFilter: "turns the filter round in the input gradient only"
      case .forgottenStride: "goes back without the stride"
      case .meanGradient: "divides the weights' gradient by the batch once more"
      case .reluOfGradient: "cuts the gradient off below 0, instead of where x is"
      case .overwrittenOverlap: "overwrites the input gradient where windows overlap"
      }
    }

    fileprivate var isConvolution: Bool {
      switch self {
      case .biasInTheLoop, .weightsRedrawn, .biasFromWeights, .unpaddedGradient, .flippedFilter,
        .forgottenStride, .meanGradient, .overwrittenOverlap:
        true
      default: false
      }
    }
  }

  package let mistake: Mistake
  // How often weights were redrawn.
  private let draws = Atomic<UInt64>(0)
  // Of the convolution: filters of 3 × 3, stride 2, padding 1.
  private let (filters, size, step, padding) = (3, 3, 2, 1)

  public init(_ mistake: Mistake) { self.mistake = mistake }

  public var text: String { "mutant(\(mistake.rawValue))" }

  public func parameters(for input: Shape) -> [ParameterShape] {
    guard mistake.isConvolution else { return [] }
    return [
      ParameterShape(
        "weight", shape: [size, size, input.channels, filters],
        .heUniform, fanIn: size * size * input.channels, fanOut: filters),
      ParameterShape("bias", shape: [filters], .constant(0.5)),
    ]
  }

  public func output(for input: Shape) -> Shape {
    if mistake.isConvolution {
      let (h, w) = (
        (input.height + 2 * padding - size) / step + 1,
        (input.width + 2 * padding - size) / step + 1
      )
      return Shape(h, w, filters)
    }
    guard mistake == .maxTies else { return input }
    return Shape(input.height / 2, input.width / 2, input.channels)
  }

  public func forward(_ x: TensorView, _ y: TensorView, _ pass: CustomPass) {
    switch mistake {
    case .absoluteValue: for i in 0..<x.count { y[i] = abs(x[i]) }
    case .reluOfGradient: for i in 0..<x.count { y[i] = max(0, x[i]) }
    case .softmaxOfSigmoid:
      let classes = x.shape.count
      for n in 0..<x.batch {
        let row = (0..<classes).map { exp(1 / (1 + exp(-x[n * classes + $0]))) }
        let sum = row.reduce(0, +)
        for i in 0..<classes { y[n * classes + i] = row[i] / sum }
      }
    case .maxTies:
      for n in 0..<x.batch {
        for p in 0..<y.shape.height {
          for q in 0..<y.shape.width {
            for c in 0..<y.shape.channels {
              y[n, p, q, c] = max(
                x[n, 2 * p, 2 * q, c], x[n, 2 * p, 2 * q + 1, c], x[n, 2 * p + 1, 2 * q, c],
                x[n, 2 * p + 1, 2 * q + 1, c])
            }
          }
        }
      }
    default: convolve(x, y, pass)
    }
  }

  public func backward(
    _ x: TensorView, _ y: TensorView, _ dy: TensorView, _ dx: TensorView?, _ pass: CustomPass
  ) {
    for i in 0..<(dx?.count ?? 0) { dx![i] = 0 }
    switch mistake {
    case .absoluteValue: for i in 0..<x.count { dx?[i] = x[i] > 0 ? dy[i] : 0 }
    case .reluOfGradient: for i in 0..<x.count { dx?[i] = max(0, dy[i]) }
    case .softmaxOfSigmoid:
      let classes = x.shape.count
      for n in 0..<x.batch {
        let rows = n * classes..<(n + 1) * classes
        let dot = rows.reduce(Float(0)) { $0 + y[$1] * dy[$1] }
        for i in rows { dx?[i] = y[i] * (dy[i] - dot) }
      }
    case .maxTies:
      for n in 0..<x.batch {
        for p in 0..<y.shape.height {
          for q in 0..<y.shape.width {
            for c in 0..<y.shape.channels {
              for (row, column) in [(0, 0), (0, 1), (1, 0), (1, 1)]
              where x[n, 2 * p + row, 2 * q + column, c] == y[n, p, q, c] {
                dx?[n, 2 * p + row, 2 * q + column, c] = dy[n, p, q, c]
              }
            }
          }
        }
      }
    default: convolveBack(x, dy, dx, pass)
    }
  }

  // MARK: Convolution

  /// Calls `body` for each product of an output and a weight: output, filter element, row and
  /// column of the input, whether those are inside.
  private func products(
    _ x: TensorView, _ y: TensorView,
    _ body: (_ n: Int, _ p: Int, _ q: Int, _ i: Int, _ j: Int, _ row: Int, _ column: Int) -> Void
  ) {
    for n in 0..<x.batch {
      for p in 0..<y.shape.height {
        for q in 0..<y.shape.width {
          for i in 0..<size {
            for j in 0..<size {
              body(n, p, q, i, j, p * step + i - padding, q * step + j - padding)
            }
          }
        }
      }
    }
  }

  private func isInside(_ x: TensorView, _ row: Int, _ column: Int) -> Bool {
    row >= 0 && row < x.shape.height && column >= 0 && column < x.shape.width
  }

  private func place(_ i: Int, _ j: Int, _ c: Int, _ f: Int, _ channels: Int) -> Int {
    ((i * size + j) * channels + c) * filters + f
  }

  private func convolve(_ x: TensorView, _ y: TensorView, _ pass: CustomPass) {
    let (w, b, channels) = (pass.weights(0), pass.weights(1), x.shape.channels)
    if mistake == .weightsRedrawn {
      var random = SeededGenerator(seed: draws.add(1, ordering: .relaxed).newValue)
      let weights = UnsafeMutablePointer(mutating: w.baseAddress!)
      for i in 0..<w.count { weights[i] = random.uniform() - 0.5 }
    }
    for i in 0..<y.count { y[i] = mistake == .biasInTheLoop ? 0 : b[i % filters] }
    products(x, y) { n, p, q, i, j, row, column in
      for f in 0..<filters {
        if mistake == .biasInTheLoop { y[n, p, q, f] += b[f] }
        guard isInside(x, row, column) else { continue }
        for c in 0..<channels {
          y[n, p, q, f] += x[n, row, column, c] * w[place(i, j, c, f, channels)]
        }
      }
    }
  }

  private func convolveBack(
    _ x: TensorView, _ dy: TensorView, _ dx: TensorView?, _ pass: CustomPass
  ) {
    let (w, dw, db, channels) = (
      pass.weights(0), pass.gradient(0), pass.gradient(1), x.shape.channels
    )
    dw.update(repeating: 0)
    db.update(repeating: 0)
    for i in 0..<dy.count { db[i % filters] += dy[i] }
    products(x, dy) { n, p, q, i, j, row, column in
      guard isInside(x, row, column) else { return }
      var (toRow, toColumn, fi, fj) = (row, column, i, j)
      if mistake == .unpaddedGradient { (toRow, toColumn) = (row + padding, column + padding) }
      if mistake == .forgottenStride { (toRow, toColumn) = (p + i - padding, q + j - padding) }
      if mistake == .flippedFilter { (fi, fj) = (size - 1 - i, size - 1 - j) }
      for c in 0..<channels {
        var sum: Float = 0
        for f in 0..<filters {
          dw[place(i, j, c, f, channels)] += x[n, row, column, c] * dy[n, p, q, f]
          sum += dy[n, p, q, f] * w[place(fi, fj, c, f, channels)]
        }
        guard let dx, isInside(x, toRow, toColumn) else { continue }
        if mistake == .overwrittenOverlap {
          dx[n, toRow, toColumn, c] = sum
        } else {
          dx[n, toRow, toColumn, c] += sum
        }
      }
    }
    if mistake == .meanGradient {
      for i in 0..<w.count { dw[i] /= Float(x.batch) }
    }
    if mistake == .biasFromWeights {
      for f in 0..<filters { db[f] = 0 }
      for i in 0..<w.count { db[i % filters] += dw[i] }
    }
  }
}
