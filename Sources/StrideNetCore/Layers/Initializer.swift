/// How a layer's weights start. Variances suit what a weight's output sums over (fan-in) and what its
/// input goes into (fan-out): for a convolution these are the window times the channels and the
/// window times the filters, of a group; for a dense layer inputs and outputs.
///
/// Those with a variance have mean 0: the uniform ones draw from ±√3 deviations, the normal ones
/// aren't truncated. Biases start at 0.
public enum Initializer: Sendable, Equatable {
  /// All the same.
  case constant(Float)
  /// Uniform in a range. The program that this one goes back to drew from 0..<0.1 for convolutions
  /// and from 0..<0.0001 for dense layers.
  case uniform(Range<Float>)
  /// Variance 2 / fan-in: keeps that of activations through ReLU layers, and that of gradients
  /// (He et al. 2015, arXiv:1502.01852).
  case heUniform, heNormal
  /// Variance 2 / (fan-in + fan-out): a compromise between the two for linear and S-shaped layers
  /// (Glorot & Bengio 2010).
  case glorotUniform, glorotNormal
  /// Variance 1 / fan-in: keeps that of activations through linear layers (LeCun et al. 1998).
  case leCunUniform, leCunNormal

  /// Those without a number, by the name that `init=` has for them.
  static let named: [(name: String, initializer: Initializer)] = [
    ("he_uniform", .heUniform), ("he_normal", .heNormal), ("glorot_uniform", .glorotUniform),
    ("glorot_normal", .glorotNormal), ("lecun_uniform", .leCunUniform),
    ("lecun_normal", .leCunNormal),
  ]
  /// What `init=` may be, for errors.
  package static let names = (named.map(\.name) + ["uniform:0:0.1", "constant:0"]).joined(
    separator: ", ")

  /// As after `init=`: "he_normal", "uniform:0:0.1", "constant:0".
  var text: String {
    switch self {
    case .constant(let value): "constant:\(value)"
    case .uniform(let range): "uniform:\(range.lowerBound):\(range.upperBound)"
    default: Self.named.first { $0.initializer == self }!.name
    }
  }

  /// Reads ``text``; nil where it is none.
  init?(_ text: String) {
    if let named = Self.named.first(where: { $0.name == text }) {
      self = named.initializer
      return
    }
    let parts = text.split(separator: ":", omittingEmptySubsequences: false)
    let numbers = parts.dropFirst().compactMap { Float($0) }.filter(\.isFinite)
    switch (parts[0], parts.count, numbers.count) {
    case ("constant", 2, 1): self = .constant(numbers[0])
    case ("uniform", 3, 2) where numbers[0] < numbers[1]: self = .uniform(numbers[0]..<numbers[1])
    default: return nil
    }
  }

  /// Draws a parameter's values.
  func fill(_ parameter: Parameter, _ random: inout SeededGenerator) {
    let values = UnsafeMutableBufferPointer(start: parameter.value, count: parameter.count)
    let (fanIn, fanOut) = (Float(parameter.description.fanIn), Float(parameter.description.fanOut))
    func uniform(within bound: Float) {
      for i in values.indices { values[i] = (2 * random.uniform() - 1) * bound }
    }
    func normal(_ variance: Float) {
      let deviation = variance.squareRoot()
      for i in values.indices { values[i] = random.normal() * deviation }
    }
    switch self {
    case .constant(let value): values.update(repeating: value)
    case .uniform(let range):
      for i in values.indices {
        values[i] = range.lowerBound + random.uniform() * (range.upperBound - range.lowerBound)
      }
    case .heUniform: uniform(within: (6 / fanIn).squareRoot())
    case .heNormal: normal(2 / fanIn)
    case .glorotUniform: uniform(within: (6 / (fanIn + fanOut)).squareRoot())
    case .glorotNormal: normal(2 / (fanIn + fanOut))
    case .leCunUniform: uniform(within: (3 / fanIn).squareRoot())
    case .leCunNormal: normal(1 / fanIn)
    }
  }
}
