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
  var arraysMoved: Int { 3 + 2 * method.rule.memory.count }

  /// - Throws: ``StrideNetError`` naming the value and its range
  public func check() throws {
    func require(_ holds: Bool, _ name: String, _ found: Float, _ expected: String) throws {
      guard holds else {
        throw StrideNetError(
          .usage, "\(name) out of range", found: "\(found)", expected: expected)
      }
    }
    let name = method.rule.usual.isBeta1 ? "beta1" : "momentum"
    try require(momentum >= 0 && momentum < 1, name, momentum, "0 up to, not with, 1")
    try require(beta2 >= 0 && beta2 < 1, "beta2", beta2, "0 up to, not with, 1")
    try require(epsilon > 0 && epsilon <= 1, "epsilon", epsilon, "above 0, at most 1")
    try require(
      weightDecay >= 0 && weightDecay <= 10, "weight decay", weightDecay, "0 … 10")
    try require(l1 >= 0 && l1 <= 10, "L1", l1, "0 … 10")
    if let clipNorm {
      try require(
        clipNorm > 0 && clipNorm.isFinite, "clip norm", clipNorm, "a finite number above 0")
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
  /// As `--optimizer` and configurations have it.
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
  public var learningRate: Float
  public var momentum: Float
  /// Whether momentum is called beta1.
  public var isBeta1: Bool
  /// Nil where no squares are remembered, and ``Optimizer/epsilon`` means nothing.
  public var beta2: Float?
  public var weightDecay: Float

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
  let parameter: Parameter
  let range: Range<Int>
  let update: Update

  public var count: Int { range.count }
  /// The loss' slope for each weight; it may be overwritten.
  public var gradient: UnsafeMutablePointer<Float> { parameter.gradient + range.lowerBound }
  public var weights: UnsafeMutablePointer<Float> { parameter.value + range.lowerBound }
  /// Array number `index` of those that the rule remembers.
  public func memory(_ index: Int) -> UnsafeMutablePointer<Float> {
    parameter.memory[index] + range.lowerBound
  }
  /// The learning rate of this step.
  public var rate: Float { update.rate }
  /// From 1.
  public var step: Int { update.step }
  /// What the gradient is to be multiplied by first: below 1 where its norm was too large.
  public var scale: Float { update.scale }
  /// The constants.
  public var optimizer: Optimizer { update.optimizer }
  /// Of these values: 0 for biases and the factors of normalisations.
  public var weightDecay: Float { decays ? update.optimizer.weightDecay : 0 }
  public var l1: Float { decays ? update.optimizer.l1 : 0 }
  private var decays: Bool { parameter.shape.count > 1 }
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
    public let rule: any OptimizerRule

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

    /// Gives a rule its name in configurations, checkpoints and on the command line.
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
    public static func == (a: Method, b: Method) -> Bool { a.rawValue == b.rawValue }
    public func hash(into hasher: inout Hasher) { hasher.combine(rawValue) }
  }
}

/// One step of an optimiser: the one place where weights change.
struct Update {
  let rate: Float
  let optimizer: Optimizer
  /// From 1.
  let step: Int
  /// What gradients are multiplied by.
  var scale: Float = 1

  func apply(_ parameter: Parameter, _ range: Range<Int>) {
    if parameter.isFrozen { return }
    var update = self
    if !parameter.regularizers.isEmpty {
      let gradient = UnsafeMutableBufferPointer(
        start: parameter.gradient + range.lowerBound, count: range.count)
      let weights = UnsafeBufferPointer(
        start: parameter.value + range.lowerBound, count: range.count)
      if scale != 1 { for i in gradient.indices { gradient[i] *= scale } }
      update.scale = 1
      for regularizer in parameter.regularizers { regularizer.addSlopes(of: weights, to: gradient) }
    }
    optimizer.method.rule.update(
      UpdateSlice(parameter: parameter, range: range, update: update))
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
  public let factor: Float
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
  public let factor: Float
  public init(_ factor: Float) { self.factor = factor }
  public func addSlopes(
    of weights: UnsafeBufferPointer<Float>, to gradient: UnsafeMutableBufferPointer<Float>
  ) {
    for i in weights.indices { gradient[i] += factor * weights[i] }
  }
}
