import Foundation
import Synchronization

/// What an example's output should have been.
public enum Target {
  /// A class, from 0.
  case label(Int)
  /// As many values as there are outputs.
  case values(UnsafeBufferPointer<Float>)

  /// Its value number `index`: of a class, 1 at its place.
  public subscript(_ index: Int) -> Float {
    switch self {
    case .label(let label): label == index ? 1 : 0
    case .values(let values): values[index]
    }
  }
}

/// The targets of a mini-batch.
package enum Targets: @unchecked Sendable {
  // Sendable because they are only read.
  case labels(UnsafePointer<Int32>)
  case values(UnsafePointer<Float>)

  /// Those of the examples from number `first` on, of `count` values each.
  package func from(_ first: Int, _ count: Int) -> Targets {
    switch self {
    case .labels(let pointer): .labels(pointer + first)
    case .values(let pointer): .values(pointer + first * count)
    }
  }

  func target(_ index: Int, _ count: Int) -> Target {
    switch self {
    case .labels(let pointer): .label(Int(pointer[index]))
    case .values(let pointer):
      .values(UnsafeBufferPointer(start: pointer + index * count, count: count))
    }
  }
}

/// How far an output is from its target. One's own is a function of one example with its slope:
///
///     struct Huber: LossRule {
///       let name = "huber"
///       func loss(
///         _ output: UnsafeBufferPointer<Float>, _ target: Target,
///         gradient: UnsafeMutableBufferPointer<Float>?
///       ) -> Float {
///         var sum: Float = 0
///         for i in output.indices {
///           let off = output[i] - target[i]
///           sum += abs(off) < 1 ? off * off / 2 : abs(off) - 0.5
///           gradient?[i] = min(max(off, -1), 1)
///         }
///         return sum
///       }
///     }
///
/// With ``Loss/register(_:)`` it has its name in configurations, weight files and checkpoints too.
public protocol LossRule: Sendable {
  /// As `--loss` and files have it, which know a loss by it alone: its constants belong in it, as in
  /// "huber:0.5".
  var name: String { get }
  /// What is shown beside its values: "cross-entropy".
  var title: String { get }
  /// The loss of one example, and if somebody trains its slope for each output, which was 0 before.
  func loss(
    _ output: UnsafeBufferPointer<Float>, _ target: Target,
    gradient: UnsafeMutableBufferPointer<Float>?
  ) -> Float
}

extension LossRule {
  public var title: String { name }
}

/// A rule that is computed for a whole mini-batch, with a softmax before it if there is one.
private protocol BatchLoss: LossRule {
  /// The C symbol without its prefix.
  var kernel: String { get }
  /// Whether it takes logits, where the network ends in softmax.
  var takesLogits: Bool { get }
  func compute(_ batch: LossBatch, labels: UnsafePointer<Int32>)
}

/// A mini-batch's outputs on the way to losses.
package struct LossBatch {
  let output: TensorView
  /// Nil unless somebody trains.
  let gradient: UnsafeMutablePointer<Float>?
  /// Each example's.
  let loss: UnsafeMutablePointer<Float>
  let wrong: UnsafeMutablePointer<Int32>
  /// A mean is what is trained, over so many examples.
  let count: Int
  /// The labels of all of them, where they aren't all here and somebody asks for them.
  var allLabels: UnsafePointer<Int32>?

  /// - Parameter count: examples of the mini-batch, unless they are all here
  package init(
    output: TensorView, gradient: UnsafeMutablePointer<Float>?, loss: UnsafeMutablePointer<Float>,
    wrong: UnsafeMutablePointer<Int32>, of count: Int? = nil
  ) {
    (self.output, self.gradient, self.loss, self.wrong) = (output, gradient, loss, wrong)
    self.count = count ?? output.batch
  }

  var scale: Float { 1 / Float(count) }
}

/// −Σ t·log(softmax(logits)) with t = 1 − s + s/K for the label's class and s/K for the K − 1
/// others, s the label smoothing (Szegedy et al. 2015, arXiv:1512.00567); with s = 0 the categorical
/// cross-entropy. Evaluations are without smoothing.
private struct CrossEntropy: BatchLoss {
  let smoothing: Float
  var name: String { smoothing == 0 ? "cross_entropy" : "cross_entropy:\(smoothing)" }
  let title = "cross-entropy"
  let kernel = "softmax_cross_entropy"
  let takesLogits = true

  func compute(_ batch: LossBatch, labels: UnsafePointer<Int32>) {
    Kernels.softmaxCrossEntropy(
      batch.output, labels: labels, smoothing: batch.gradient == nil ? 0 : smoothing,
      scale: batch.scale, dlogits: batch.gradient, loss: batch.loss, wrong: batch.wrong)
  }

  /// Of an example whose target is no class: `output` are logits, and become probabilities.
  func loss(
    ofLogits output: UnsafeMutableBufferPointer<Float>, _ target: Target,
    gradient: UnsafeMutableBufferPointer<Float>?
  ) -> Float {
    let largest = output.max()!
    let sum = output.reduce(0.0) { $0 + exp(Double($1 - largest)) }
    var (loss, total) = (0.0, Float(0))
    for i in output.indices {
      loss += Double(target[i]) * (log(sum) - Double(output[i] - largest))
      total += target[i]
    }
    for i in output.indices {
      output[i] = Float(exp(Double(output[i] - largest)) / sum)
      gradient?[i] = output[i] * total - target[i]
    }
    return Float(loss)
  }

  /// Of values that are no classes: they are the t, and the outputs probabilities.
  func loss(
    _ output: UnsafeBufferPointer<Float>, _ target: Target,
    gradient: UnsafeMutableBufferPointer<Float>?
  ) -> Float {
    var sum: Float = 0
    for i in output.indices where target[i] != 0 {
      let p = max(output[i], .leastNormalMagnitude)
      sum -= target[i] * log(p)
      gradient?[i] = -target[i] / p
    }
    return sum
  }
}

/// The mean over the outputs of what each is off by itself, and its slopes.
private func mean(
  _ output: UnsafeBufferPointer<Float>, _ gradient: UnsafeMutableBufferPointer<Float>?,
  _ term: (Int) -> (loss: Float, slope: Float)
) -> Float {
  let share = 1 / Float(output.count)
  var sum: Float = 0
  for i in output.indices {
    let (loss, slope) = term(i)
    sum += loss
    gradient?[i] = slope * share
  }
  return sum * share
}

/// Σ (y − t)² / K: the mean over the K outputs.
private struct MeanSquaredError: BatchLoss {
  let name = "mean_squared_error"
  let title = "mean squared error"
  let kernel = "squared_error"
  let takesLogits = false

  func compute(_ batch: LossBatch, labels: UnsafePointer<Int32>) {
    Kernels.squaredError(
      batch.output, labels: labels, scale: batch.scale, dy: batch.gradient, loss: batch.loss,
      wrong: batch.wrong)
  }

  func loss(
    _ output: UnsafeBufferPointer<Float>, _ target: Target,
    gradient: UnsafeMutableBufferPointer<Float>?
  ) -> Float {
    mean(output, gradient) { i in
      let off = output[i] - target[i]
      return (off * off, 2 * off)
    }
  }
}

/// Σ |y − t| / K
private struct MeanAbsoluteError: LossRule {
  let name = "mean_absolute_error"
  let title = "mean absolute error"

  func loss(
    _ output: UnsafeBufferPointer<Float>, _ target: Target,
    gradient: UnsafeMutableBufferPointer<Float>?
  ) -> Float {
    mean(output, gradient) { i in
      let off = output[i] - target[i]
      return (abs(off), off > 0 ? 1 : off < 0 ? -1 : off)
    }
  }
}

/// −Σ (t·log(y) + (1 − t)·log(1 − y)) / K: every output says yes or no for itself. For networks that
/// end in sigmoid; probabilities are kept 10⁻⁷ away from 0 and 1.
private struct BinaryCrossEntropy: LossRule {
  let name = "binary_cross_entropy"
  let title = "binary cross-entropy"

  func loss(
    _ output: UnsafeBufferPointer<Float>, _ target: Target,
    gradient: UnsafeMutableBufferPointer<Float>?
  ) -> Float {
    mean(output, gradient) { i in
      // Written so that what is no number stays that.
      let p = output[i] < 1e-7 ? 1e-7 : output[i] > 1 - 1e-7 ? 1 - 1e-7 : output[i]
      return (
        -(target[i] * log(p) + (1 - target[i]) * log(1 - p)), (p - target[i]) / (p * (1 - p))
      )
    }
  }
}

/// What training minimises: a mean over the mini-batch.
public struct Loss: Sendable {
  package let rule: any LossRule
  // The same, where it is computed for whole mini-batches; asked for once, since that costs more than
  // a small batch's loss.
  private let batchRule: (any BatchLoss)?

  /// A loss of one's own.
  public init(_ rule: any LossRule) { (self.rule, batchRule) = (rule, rule as? any BatchLoss) }

  /// −Σ t·log(softmax(logits)) with t = 1 − s + s/K for the label's class and s/K for the K − 1
  /// others, s the label smoothing (Szegedy et al. 2015, arXiv:1512.00567); with s = 0 the categorical
  /// cross-entropy. Evaluations are without smoothing.
  public static func crossEntropy(labelSmoothing: Float = 0) -> Loss {
    Loss(CrossEntropy(smoothing: labelSmoothing))
  }
  /// Σ (y − t)² / K: the mean over the K outputs; t is 1 for the label's class and 0 for others, or
  /// what was given.
  public static let meanSquaredError = Loss(MeanSquaredError())
  /// Σ |y − t| / K
  public static let meanAbsoluteError = Loss(MeanAbsoluteError())
  /// −Σ (t·log(y) + (1 − t)·log(1 − y)) / K, for networks that end in sigmoid: several labels an
  /// example, or none.
  public static let binaryCrossEntropy = Loss(BinaryCrossEntropy())

  private static let plain = [meanSquaredError, meanAbsoluteError, binaryCrossEntropy]
  private static let registered = Mutex<[Loss]>([])

  /// Gives a loss of one's own its name in configurations, weight files and checkpoints.
  /// - Throws: ``StrideNetError`` where there is another one of that name
  public static func register(_ rule: any LossRule) throws {
    try registered.withLock { others in
      guard
        !rule.name.hasPrefix("cross_entropy")
          && !(plain + others).contains(where: { $0.rule.name == rule.name })
      else { throw StrideNetError(.usage, "there is a loss of that name", found: rule.name) }
      others.append(Loss(rule))
    }
  }

  /// - Throws: ``StrideNetError`` if label smoothing isn't at least 0 and below 1
  package func check() throws {
    guard let smoothing = (rule as? CrossEntropy)?.smoothing, !(smoothing >= 0 && smoothing < 1)
    else { return }
    throw StrideNetError(
      .usage, "label smoothing out of range", found: "\(smoothing)",
      expected: "0 up to, not with, 1")
  }

  /// What is shown beside its values: "cross-entropy", "mean squared error".
  public var title: String { rule.title }

  /// Whether it needs a softmax at the network's end, which it is computed with.
  package var needsSoftmax: Bool { batchRule?.takesLogits ?? false }

  /// The C symbol without its prefix.
  package var kernel: String { batchRule?.kernel ?? "own" }

  /// Replaces logits by probabilities; writes each row's loss and whether it was wrong; the gradient,
  /// unless it is nil, gets that of what came in.
  /// - Parameters:
  ///   - endsInSoftmax: the output is of logits
  ///   - classWeights: of the cross-entropy of classes, what each counts
  package func compute(
    _ batch: LossBatch, _ targets: Targets, endsInSoftmax: Bool, classWeights: [Float]? = nil
  ) {
    let (output, count) = (batch.output, batch.output.shape.count)
    if let classWeights, case .labels(let labels) = targets, let rule = rule as? CrossEntropy {
      return compute(batch, labels: labels, classWeights, rule)
    }
    if case .labels(let labels) = targets, let rule = batchRule, rule.takesLogits {
      return rule.compute(batch, labels: labels)
    }
    if endsInSoftmax, needsSoftmax, let rule = rule as? CrossEntropy {
      for row in 0..<output.batch {
        finish(row, batch, targets.target(row, count)) { output, target, gradient in
          rule.loss(
            ofLogits: UnsafeMutableBufferPointer(mutating: output), target, gradient: gradient)
        }
      }
      return
    }
    if endsInSoftmax {
      Kernels.softmaxForward(rows: output.batch, count, output.pointer, output.pointer)
    }
    if case .labels(let labels) = targets, let rule = batchRule {
      rule.compute(batch, labels: labels)
    } else {
      for row in 0..<output.batch {
        finish(row, batch, targets.target(row, count), rule.loss(_:_:gradient:))
      }
    }
    if let gradient = batch.gradient, endsInSoftmax {
      Kernels.softmaxBackward(rows: output.batch, count, y: output.pointer, gradient, gradient)
    }
  }

  /// With what each class counts: of an image with label y, t as the rule has it times w, and divided
  /// by the mean of w[y] over the batch.
  private func compute(
    _ batch: LossBatch, labels: UnsafePointer<Int32>, _ weights: [Float], _ rule: CrossEntropy
  ) {
    let (rows, count) = (batch.output.batch, batch.output.shape.count)
    precondition(weights.count == count)
    let all = batch.allLabels ?? labels
    let total = (0..<batch.count).reduce(0.0) { $0 + Double(weights[Int(all[$1])]) }
    let share = Float(Double(batch.count) / total)
    withUnsafeTemporaryAllocation(of: Float.self, capacity: count) { target in
      for row in 0..<rows {
        let label = Int(labels[row])
        for i in 0..<count { target[i] = rule.smoothing / Float(count) * weights[i] * share }
        target[label] += (1 - rule.smoothing) * weights[label] * share
        finish(row, batch, .values(UnsafeBufferPointer(target)), label: label) {
          rule.loss(
            ofLogits: UnsafeMutableBufferPointer(mutating: $0), $1, gradient: $2)
        }
      }
    }
  }

  /// One example by its rule: the loss, the gradient's share of the batch, and whether it was wrong.
  /// - Parameter label: what is right, where that isn't the target's largest
  private func finish(
    _ row: Int, _ batch: LossBatch, _ target: Target, label: Int? = nil,
    _ loss: (UnsafeBufferPointer<Float>, Target, UnsafeMutableBufferPointer<Float>?) -> Float
  ) {
    let count = batch.output.shape.count
    let output = UnsafeBufferPointer(start: batch.output.example(row), count: count)
    let gradient = batch.gradient.map {
      UnsafeMutableBufferPointer(start: $0 + row * count, count: count)
    }
    gradient?.update(repeating: 0)
    batch.loss[row] = loss(output, target, gradient)
    if let gradient { for i in gradient.indices { gradient[i] *= batch.scale } }
    // The first largest, or what is no number, isn't the target's.
    func first(_ value: (Int) -> Float) -> Int {
      var best = 0
      for i in 1..<max(1, count) where value(i) > value(best) { best = i }
      return best
    }
    let best = first { output[$0] }
    batch.wrong[row] = best == label ?? first { target[$0] } && !output[best].isNaN ? 0 : 1
  }
}

/// As text: "cross_entropy", with label smoothing "cross_entropy:0.1", "mean_squared_error".
extension Loss: CustomStringConvertible, Codable, Hashable {
  public var description: String { rule.name }

  public static func == (a: Loss, b: Loss) -> Bool { a.description == b.description }
  public func hash(into hasher: inout Hasher) { hasher.combine(description) }

  /// - Throws: ``StrideNetError`` with the list of losses
  public init(_ text: String) throws {
    let parts = text.split(separator: ":", omittingEmptySubsequences: false)
    let known = Self.plain + Self.registered.withLock { $0 }
    if parts[0] == "cross_entropy", parts.count <= 2 {
      self = .crossEntropy(labelSmoothing: parts.count == 1 ? 0 : Float(parts[1]) ?? .nan)
      try check()
    } else if let loss = known.first(where: { $0.description == text }) {
      self = loss
    } else {
      throw StrideNetError(
        .usage, "no such loss", found: "'\(text)'",
        expected: "cross_entropy, cross_entropy:SMOOTHING, "
          + known.map(\.description).joined(separator: ", "))
    }
  }

  public init(from decoder: any Decoder) throws {
    self = try decoder.text { try Self($0) }
  }

  public func encode(to encoder: any Encoder) throws {
    try description.encode(to: encoder)
  }
}
