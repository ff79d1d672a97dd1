/// How gradients become steps. All methods start from
///
///     g = gradient + weightDecay · w + l1 · sign(w)
///
/// (AdamW without the decay, which it applies to the weight itself). Decay and L1 are for weights:
/// parameters with more than one dimension, not biases or the factors of a normalisation.
public struct Optimizer: Sendable, Codable, Hashable {
  public enum Method: String, Sendable, Codable, CaseIterable {
    /// v = momentum · v + g; w −= rate · v
    case sgd
    /// v = momentum · v + g; w −= rate · (g + momentum · v) (Nesterov 1983, in the form of
    /// Sutskever et al. 2013)
    case nesterov
    /// s = beta2 · s + (1 − beta2) · g²; v = momentum · v + g / (√s + epsilon); w −= rate · v
    /// (Tieleman & Hinton 2012)
    case rmsprop
    /// m = beta1 · m + (1 − beta1) · g; s = beta2 · s + (1 − beta2) · g²;
    /// w −= rate · m / (1 − beta1ᵗ) / (√(s / (1 − beta2ᵗ)) + epsilon) (Kingma & Ba 2014,
    /// arXiv:1412.6980)
    case adam
    /// The same, with w −= rate · weightDecay · w before it (Loshchilov & Hutter 2017,
    /// arXiv:1711.05101)
    case adamw

    /// - Throws: ``StrideNetError`` with the list of methods
    public init(named name: String) throws {
      guard let method = Self(rawValue: name) else {
        throw StrideNetError(
          .usage, "no optimiser of that name", found: "'\(name)'",
          expected: Self.allCases.map(\.rawValue).joined(separator: ", "))
      }
      self = method
    }

    /// Whether squares of gradients are remembered.
    public var isAdaptive: Bool { self != .sgd && self != .nesterov }
    public var isAdam: Bool { self == .adam || self == .adamw }
    /// The C symbol without its prefix.
    var kernel: String { isAdam ? "adam" : self == .rmsprop ? "rmsprop" : "sgd" }
  }

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
    self.method = method
    self.momentum = momentum ?? (method == .rmsprop ? 0 : 0.9)
    beta2 = method == .rmsprop ? 0.99 : 0.999
    self.weightDecay = weightDecay ?? (method == .adamw ? 0.01 : 0)
  }

  /// Arrays of the weights' size that a step reads or writes.
  var arraysMoved: Int { method.isAdaptive ? 7 : 5 }

  /// - Throws: ``StrideNetError`` naming the value and its range
  public func check() throws {
    func require(_ holds: Bool, _ name: String, _ found: Float, _ expected: String) throws {
      guard holds else {
        throw StrideNetError(
          .usage, "\(name) out of range", found: "\(found)", expected: expected)
      }
    }
    let name = method.isAdam ? "beta1" : "momentum"
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

/// One step of an optimiser.
struct Update {
  let rate: Float
  let optimizer: Optimizer
  /// From 1.
  let step: Int
  /// What gradients are multiplied by.
  var scale: Float = 1

  func apply(_ parameter: Parameter, _ range: Range<Int>) {
    Kernels.update(self, decays: parameter.shape.count > 1, range, parameter)
  }

  func apply(_ parameter: Parameter, _ runtime: Runtime) {
    runtime.parallel(over: parameter.count, by: 32_768, (self, parameter)) { context, range, _ in
      context.0.apply(context.1, range)
    }
  }
}
