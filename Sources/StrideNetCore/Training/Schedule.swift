import Foundation

/// How the learning rate goes on from its first value, or up to its largest. As text: "linear",
/// "step:10:0.1", and with a warm-up before it "warmup:0.5,cosine".
public struct Schedule: Sendable, Hashable {
  public enum Shape: Sendable, Hashable {
    /// The same all the time.
    case constant
    /// Falls in equal steps, to 0 after the last mini-batch: the last steps settle what the first
    /// ones found.
    case linear
    /// Half a cosine down to 0 (Loshchilov & Hutter 2016, arXiv:1608.03983).
    case cosine
    /// Times `factor` after every so many epochs.
    case step(epochs: Int, factor: Double)
    /// Up to the learning rate and down to nearly nothing, both as half a cosine: from 1/25 in the
    /// first 30 % of all steps, then to 1/250,000 (Smith & Topin 2017, arXiv:1708.07120; constants
    /// as in PyTorch).
    case oneCycle
  }

  public var shape: Shape
  /// Epochs, or a part of one, in which the rate first rises in equal steps.
  public var warmup: Double

  public init(_ shape: Shape, warmup: Double = 0) {
    self.shape = shape
    self.warmup = warmup
  }

  public static let constant = Schedule(.constant)
  public static let linear = Schedule(.linear)
  public static let cosine = Schedule(.cosine)
  public static let oneCycle = Schedule(.oneCycle)

  /// The share of the learning rate in a step.
  /// - Parameters:
  ///   - step: from 0
  ///   - total: steps in the whole run
  ///   - perEpoch: steps an epoch
  package func share(step: Int, of total: Int, perEpoch: Int) -> Double {
    let rising = Int(min((warmup * Double(perEpoch)).rounded(), Double(total)))
    if step < rising { return Double(step + 1) / Double(rising) }
    let done = Double(step - rising) / Double(max(1, total - rising))
    switch shape {
    case .constant: return 1
    case .linear: return 1 - done
    case .cosine: return (1 + cos(.pi * done)) / 2
    case .step(let epochs, let factor): return pow(factor, Double(step / perEpoch / epochs))
    case .oneCycle:
      let (step, total) = (Double(step - rising), Double(total - rising))
      let (top, end) = (0.3 * total - 1, total - 1)
      func anneal(_ from: Double, _ to: Double, _ part: Double) -> Double {
        to + (from - to) / 2 * (1 + cos(.pi * part))
      }
      return step <= top
        ? anneal(1 / 25, 1, top > 0 ? step / top : 1)
        : anneal(1, 1 / 25 / 1e4, end > top ? (step - top) / (end - top) : 1)
    }
  }

  /// - Throws: ``StrideNetError`` naming the value and its range
  package func check() throws {
    func require(_ holds: Bool, _ what: String, _ found: Any, _ expected: String) throws {
      if holds { return }
      throw StrideNetError(
        .usage, what, at: "schedule '\(self)'", found: "\(found)", expected: expected)
    }
    try require(warmup >= 0 && warmup <= 1e6, "warm-up out of range", warmup, "epochs, as 0.5")
    guard case .step(let epochs, let factor) = shape else { return }
    try require(
      epochs > 0 && epochs <= 1_000_000, "epochs of a step out of range", epochs,
      "a whole number from 1")
    try require(factor > 0 && factor <= 1, "factor out of range", factor, "above 0, at most 1")
  }

  /// - Throws: ``StrideNetError`` with the list of schedules
  public init(_ text: String) throws {
    func wrong(_ what: String, _ found: Substring, _ expected: String) -> StrideNetError {
      StrideNetError(
        .usage, what, at: "schedule '\(text)'", found: "'\(found)'", expected: expected)
    }
    var rest = text[...]
    warmup = 0
    if rest.hasPrefix("warmup:") {
      let parts = rest.dropFirst(7).split(
        separator: ",", maxSplits: 1, omittingEmptySubsequences: false)
      guard let epochs = Double(parts[0]) else {
        throw wrong("warm-up out of range", parts[0], "epochs, as 0.5")
      }
      warmup = epochs
      rest = parts.count > 1 ? parts[1] : "constant"
    }
    let parts = rest.split(separator: ":", omittingEmptySubsequences: false)
    switch (parts[0], parts.count) {
    case ("constant", 1): shape = .constant
    case ("linear", 1): shape = .linear
    case ("cosine", 1): shape = .cosine
    case ("onecycle", 1): shape = .oneCycle
    case ("step", 3):
      guard let epochs = Int(parts[1]) else {
        throw wrong("epochs of a step out of range", parts[1], "a whole number from 1")
      }
      guard let factor = Double(parts[2]) else {
        throw wrong("factor out of range", parts[2], "above 0, at most 1")
      }
      shape = .step(epochs: epochs, factor: factor)
    default:
      throw wrong(
        "no such schedule", rest,
        "constant, linear, cosine, onecycle or step:EPOCHS:FACTOR, each after warmup:EPOCHS, or alone"
      )
    }
    try check()
  }
}

extension Schedule: CustomStringConvertible, Codable {
  public var description: String {
    let name =
      switch shape {
      case .constant: "constant"
      case .linear: "linear"
      case .cosine: "cosine"
      case .oneCycle: "onecycle"
      case .step(let epochs, let factor): "step:\(epochs):\(factor)"
      }
    return warmup == 0 ? name : "warmup:\(warmup),\(name)"
  }

  public init(from decoder: any Decoder) throws {
    self = try decoder.text({ try Self($0) }) { error in
      [error.what, error.found.map { "found \($0)" }, error.expected].compactMap { $0 }
        .joined(separator: ", ")
    }
  }

  public func encode(to encoder: any Encoder) throws {
    try description.encode(to: encoder)
  }
}
