import Foundation
import Synchronization

/// How gradients become steps: a rule and its constants. All of the library's rules start from
///
///     g = gradient + weightDecay · w + l1 · sign(w)
///
/// (AdamW without the decay, which it applies to the weight itself). Decay and L1 are for weights:
/// parameters with more than one dimension, not biases or the factors of a normalisation.
public struct Optimizer: Sendable, Codable, Hashable {
  public var method = Method.sgd
  /// Share of the last step that the next one keeps; for Adam, beta1.
  public var momentum: Float = 0.9
  /// Share of the remembered squares that the next step keeps.
  public var beta2: Float = 0.999
  /// Keeps the division by the root of the squares finite.
  public var epsilon: Float = 1e-8
  public var weightDecay: Float = 0
  public var l1: Float = 0
  /// If the norm of all gradients together is larger, they are scaled down to it; nil for no limit
  /// (Pascanu et al. 2012, arXiv:1211.5063).
  public var clipNorm: Float?

  /// The method with its usual constants, which are PyTorch's, but for `sgd` and `nesterov`: momentum
  /// is 0.9 there.
  public init(_ method: Method = .sgd, momentum: Float? = nil, weightDecay: Float? = nil) {
    let usual = method.rule.usual
    self.method = method
    self.momentum = momentum ?? usual.momentum
    beta2 = usual.beta2 ?? beta2
    self.weightDecay = weightDecay ?? usual.weightDecay
  }

  /// The same with a rule of one's own.
  public init(_ rule: any OptimizerRule, momentum: Float? = nil, weightDecay: Float? = nil) {
    self.init(Method(rule), momentum: momentum, weightDecay: weightDecay)
  }

  /// Arrays of the weights' size that a step reads or writes.
  package var arraysMoved: Int { 3 + 2 * method.rule.memory.count }

  /// - Throws: ``StrideNetError`` naming the value and its range
  package func check() throws { try check(inside: []) }

  /// - Parameter path: the keys that lead to the optimiser in a configuration
  func check(inside path: [any CodingKey]) throws {
    func require(
      _ holds: Bool, _ key: CodingKeys, _ name: String, _ found: Float, _ expected: String
    ) throws {
      if holds { return }
      throw StrideNetError(outOfRange: name, path + [key], found: found, expected: expected)
    }
    let name = method.rule.usual.isBeta1 ? "beta1" : "momentum"
    try require(momentum >= 0 && momentum < 1, .momentum, name, momentum, "0 up to, not with, 1")
    try require(beta2 >= 0 && beta2 < 1, .beta2, "beta2", beta2, "0 up to, not with, 1")
    try require(epsilon > 0 && epsilon <= 1, .epsilon, "epsilon", epsilon, "above 0, at most 1")
    try require(
      weightDecay >= 0 && weightDecay <= 10, .weightDecay, "weight decay", weightDecay, "0 … 10")
    try require(l1 >= 0 && l1 <= 10, .l1, "L1", l1, "0 … 10")
    if let clipNorm {
      try require(
        clipNorm > 0 && clipNorm.isFinite, .clipNorm, "clip norm", clipNorm,
        "a finite number above 0")
    }
  }
}

/// What an optimiser does with a gradient. One's own is a type that does it to a slice of an array, and
/// says what it remembers between steps:
///
///     struct SignDescent: OptimizerRule {
///       let name = "sign"
///       func update(_ slice: UpdateSlice) {
///         for i in 0..<slice.count where slice.gradient[i] != 0 {
///           slice.weights[i] -= slice.gradient[i] > 0 ? slice.rate : -slice.rate
///         }
///       }
///     }
///
/// With ``Optimizer/Method/register(_:)`` it has its name in configurations and checkpoints too.
public protocol OptimizerRule: Sendable {
  /// As `--optimizer` and configurations have it, which know a rule by it alone: constants of its own
  /// belong in it.
  var name: String { get }
  /// The C symbol without its prefix. Rules of one kernel may take turns without losing their memory.
  var kernel: String { get }
  /// The names of the arrays, each as large as the weights, that are remembered between steps and saved
  /// in checkpoints. They start at 0.
  var memory: [String] { get }
  /// The constants that are usual, and which of them there are.
  var usual: OptimizerConstants { get }
  /// One step on a slice of an array. Slices are shared out over threads.
  func update(_ slice: UpdateSlice)
}

extension OptimizerRule {
  public var kernel: String { name }
  public var memory: [String] { [] }
  public var usual: OptimizerConstants { OptimizerConstants() }
}

/// The constants that are usual for a rule.
public struct OptimizerConstants: Sendable {
  package let learningRate, momentum: Float
  package let isBeta1: Bool
  package let beta2: Float?
  package let weightDecay: Float

  /// - Parameters:
  ///   - isBeta1: whether momentum is called beta1
  ///   - beta2: nil where no squares are remembered, and ``Optimizer/epsilon`` means nothing
  public init(
    learningRate: Float = 0.05, momentum: Float = 0.9, isBeta1: Bool = false, beta2: Float? = nil,
    weightDecay: Float = 0
  ) {
    (self.learningRate, self.momentum, self.isBeta1) = (learningRate, momentum, isBeta1)
    (self.beta2, self.weightDecay) = (beta2, weightDecay)
  }
}

/// Some of an array's values with all that a step on them needs.
public struct UpdateSlice {
  // Numbers and addresses alone: what is counted would be counted by all threads at once.
  public private(set) var count: Int
  /// The loss' slope for each weight; it may be overwritten.
  public private(set) var gradient: UnsafeMutablePointer<Float>
  public private(set) var weights: UnsafeMutablePointer<Float>
  private let memories: UnsafePointer<UnsafeMutablePointer<Float>>
  private var start: Int
  private var place: Int
  /// The learning rate of this step.
  public let rate: Float
  /// From 1.
  public let step: Int
  /// What the gradient is to be multiplied by first: below 1 where its norm was too large.
  public fileprivate(set) var scale: Float
  /// The optimiser's constants.
  public let momentum, beta2, epsilon: Float
  /// Of these values: 0 for biases and the factors of normalisations.
  public let weightDecay, l1: Float
  /// 1 − momentumˢᵗᵉᵖ and 1 − beta2ˢᵗᵉᵖ: the sums of the shares that are remembered by now.
  public let momentumSum, beta2Sum: Float

  /// Array number `index` of those that the rule remembers.
  public func memory(_ index: Int) -> UnsafeMutablePointer<Float> { memories[index] + place }

  fileprivate init(_ update: Update, _ parameter: Parameter) {
    let optimizer = update.optimizer
    let decays = parameter.shape.count > 1
    (count, start, place) = (parameter.count, 0, 0)
    (gradient, weights) = (parameter.gradient, parameter.value)
    memories = UnsafePointer(parameter.memories)
    (rate, step, scale) = (update.rate, update.step, update.scale)
    (momentum, beta2, epsilon) = (optimizer.momentum, optimizer.beta2, optimizer.epsilon)
    (weightDecay, l1) = decays ? (optimizer.weightDecay, optimizer.l1) : (0, 0)
    (momentumSum, beta2Sum) = (update.momentumSum, update.beta2Sum)
  }

  /// Moves to other values of the array, which are at another place of what is remembered.
  fileprivate mutating func move(to start: Int, count: Int, place: Int) {
    gradient += start - self.start
    weights += start - self.start
    (self.start, self.count, self.place) = (start, count, place)
  }
}

// MARK: The library's rules

/// v = momentum · v + g; w −= rate · v
private struct SGD: OptimizerRule {
  let name = "sgd"
  let kernel = "sgd"
  let memory = ["velocity"]
  func update(_ slice: UpdateSlice) { Kernels.sgd(slice, nesterov: false) }
}

/// v = momentum · v + g; w −= rate · (g + momentum · v) (Nesterov 1983, in the form of
/// Sutskever et al. 2013)
private struct Nesterov: OptimizerRule {
  let name = "nesterov"
  let kernel = "sgd"
  let memory = ["velocity"]
  func update(_ slice: UpdateSlice) { Kernels.sgd(slice, nesterov: true) }
}

/// s = beta2 · s + (1 − beta2) · g²; v = momentum · v + g / (√s + epsilon); w −= rate · v
/// (Tieleman & Hinton 2012)
private struct RMSProp: OptimizerRule {
  let name = "rmsprop"
  let memory = ["velocity", "square"]
  let usual = OptimizerConstants(learningRate: 0.001, momentum: 0, beta2: 0.99)
  func update(_ slice: UpdateSlice) { Kernels.rmsprop(slice) }
}

/// m = beta1 · m + (1 − beta1) · g; s = beta2 · s + (1 − beta2) · g²;
/// w −= rate · m / (1 − beta1ᵗ) / (√(s / (1 − beta2ᵗ)) + epsilon) (Kingma & Ba 2014,
/// arXiv:1412.6980)
private struct Adam: OptimizerRule {
  let name = "adam"
  let kernel = "adam"
  let memory = ["velocity", "square"]
  let usual = OptimizerConstants(learningRate: 0.001, isBeta1: true, beta2: 0.999)
  func update(_ slice: UpdateSlice) { Kernels.adam(slice, decoupled: false) }
}

/// The same, with w −= rate · weightDecay · w before it (Loshchilov & Hutter 2017, arXiv:1711.05101)
private struct AdamW: OptimizerRule {
  let name = "adamw"
  let kernel = "adam"
  let memory = ["velocity", "square"]
  let usual = OptimizerConstants(
    learningRate: 0.001, isBeta1: true, beta2: 0.999, weightDecay: 0.01)
  func update(_ slice: UpdateSlice) { Kernels.adam(slice, decoupled: true) }
}

extension Optimizer {
  /// A rule by its name.
  public struct Method: Sendable, Hashable, Codable, RawRepresentable, CaseIterable {
    package let rule: any OptimizerRule

    public init(_ rule: any OptimizerRule) { self.rule = rule }

    public static let sgd = Method(SGD())
    public static let nesterov = Method(Nesterov())
    public static let rmsprop = Method(RMSProp())
    public static let adam = Method(Adam())
    public static let adamw = Method(AdamW())
    /// The library's.
    public static let allCases = [sgd, nesterov, rmsprop, adam, adamw]
    private static let registered = Mutex<[Method]>([])
    /// With those that were registered.
    private static var known: [Method] { allCases + registered.withLock { $0 } }

    /// Gives a rule its name in configurations and checkpoints.
    /// - Throws: ``StrideNetError`` where there is another one of that name
    public static func register(_ rule: any OptimizerRule) throws {
      try registered.withLock { others in
        guard !(allCases + others).contains(where: { $0.rawValue == rule.name }) else {
          throw StrideNetError(.usage, "there is an optimiser of that name", found: rule.name)
        }
        others.append(Method(rule))
      }
    }

    public init?(rawValue name: String) {
      guard let method = Self.known.first(where: { $0.rawValue == name }) else { return nil }
      self = method
    }

    /// - Throws: ``StrideNetError`` with the list of methods
    public init(named name: String) throws {
      guard let method = Self(rawValue: name) else {
        throw StrideNetError(
          .usage, "no optimiser of that name", found: "'\(name)'",
          expected: Self.known.map(\.rawValue).joined(separator: ", "))
      }
      self = method
    }

    public var rawValue: String { rule.name }
  }
}

/// One step of an optimiser: the one place where weights change.
package struct Update {
  let rate: Float
  let optimizer: Optimizer
  /// From 1.
  let step: Int
  /// What gradients are multiplied by.
  var scale: Float = 1
  let momentumSum, beta2Sum: Float

  init(rate: Float, optimizer: Optimizer, step: Int) {
    (self.rate, self.optimizer, self.step) = (rate, optimizer, step)
    momentumSum = Float(1 - pow(Double(optimizer.momentum), Double(step)))
    beta2Sum = Float(1 - pow(Double(optimizer.beta2), Double(step)))
  }

  /// Updates the columns of some rows of a parameter with rows of `length` values.
  func apply(_ parameter: Parameter, rows: Range<Int>, of length: Int, columns: Range<Int>) {
    if parameter.isFrozen { return }
    let (rule, regularizers) = (optimizer.method.rule, parameter.regularizers)
    var slice = UpdateSlice(self, parameter)
    for row in rows {
      let start = row * length + columns.lowerBound
      slice.move(to: start, count: columns.count, place: parameter.updated.place(of: start))
      if !regularizers.isEmpty { add(regularizers, to: &slice) }
      rule.update(slice)
    }
  }

  private func add(_ regularizers: [any Regularizer], to slice: inout UpdateSlice) {
    let gradient = UnsafeMutableBufferPointer(start: slice.gradient, count: slice.count)
    if scale != 1 { for i in gradient.indices { gradient[i] *= scale } }
    slice.scale = 1
    for regularizer in regularizers {
      regularizer.addSlopes(
        of: UnsafeBufferPointer(start: slice.weights, count: slice.count), to: gradient)
    }
  }

  func apply(_ parameter: Parameter, _ range: Range<Int>) {
    apply(parameter, rows: 0..<1, of: parameter.count, columns: range)
  }

  func apply(_ parameter: Parameter, _ runtime: Runtime) {
    runtime.parallel(over: parameter.count, by: 32_768, (self, parameter)) { context, range, _ in
      context.0.apply(context.1, range)
    }
  }
}

// MARK: Regularisers

/// What is added to the loss for the weights' own sake; only its slope is needed. For all layers alike,
/// ``Optimizer/weightDecay`` and ``Optimizer/l1`` do it in the update's own pass; one of some layers
/// is set with ``Network/regularize(_:layers:)``.
public protocol Regularizer: Sendable {
  /// Adds the slope at each weight to its gradient.
  func addSlopes(
    of weights: UnsafeBufferPointer<Float>, to gradient: UnsafeMutableBufferPointer<Float>)
}

/// factor · Σ |w|
public struct L1: Regularizer {
  package let factor: Float
  public init(_ factor: Float) { self.factor = factor }
  public func addSlopes(
    of weights: UnsafeBufferPointer<Float>, to gradient: UnsafeMutableBufferPointer<Float>
  ) {
    for i in weights.indices {
      gradient[i] += weights[i] > 0 ? factor : weights[i] < 0 ? -factor : 0
    }
  }
}

/// factor / 2 · Σ w²
public struct L2: Regularizer {
  package let factor: Float
  public init(_ factor: Float) { self.factor = factor }
  public func addSlopes(
    of weights: UnsafeBufferPointer<Float>, to gradient: UnsafeMutableBufferPointer<Float>
  ) {
    for i in weights.indices { gradient[i] += factor * weights[i] }
  }
}
