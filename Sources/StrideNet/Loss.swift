/// What training minimises: a mean over the mini-batch.
public enum Loss: Sendable, Hashable {
  /// −Σ t·log(softmax(logits)) with t = 1 − s + s/K for the label's class and s/K for the K − 1
  /// others, s the label smoothing (Szegedy et al. 2015, arXiv:1512.00567); with s = 0 the categorical
  /// cross-entropy. Evaluations are without smoothing.
  case crossEntropy(labelSmoothing: Float = 0)
  /// Σ (y − onehot)² / K: the mean over the K outputs.
  case meanSquaredError

  /// - Throws: ``StrideNetError`` if label smoothing isn't at least 0 and below 1
  public func check() throws {
    guard case .crossEntropy(let smoothing) = self, !(smoothing >= 0 && smoothing < 1) else {
      return
    }
    throw StrideNetError(
      .usage, "label smoothing out of range", found: "\(smoothing)",
      expected: "0 up to, not with, 1")
  }

  /// Replaces logits by probabilities; writes each row's loss and whether it was wrong; `gradient`,
  /// unless it is nil, gets that of what came in.
  /// - Parameter endsInSoftmax: the output is of logits
  func compute(
    _ output: TensorView, labels: UnsafePointer<Int32>, endsInSoftmax: Bool,
    gradient: UnsafeMutablePointer<Float>?, loss: UnsafeMutablePointer<Float>,
    wrong: UnsafeMutablePointer<Int32>
  ) {
    let scale = 1 / Float(output.batch)
    switch self {
    case .crossEntropy(let smoothing):
      Kernels.softmaxCrossEntropy(
        output, labels: labels, smoothing: gradient == nil ? 0 : smoothing, scale: scale,
        dlogits: gradient, loss: loss, wrong: wrong)
    case .meanSquaredError:
      let classes = output.shape.count
      if endsInSoftmax {
        Kernels.softmaxForward(rows: output.batch, classes, output.pointer, output.pointer)
      }
      Kernels.squaredError(
        output, labels: labels, scale: scale, dy: gradient, loss: loss, wrong: wrong)
      if let gradient, endsInSoftmax {
        Kernels.softmaxBackward(
          rows: output.batch, classes, y: output.pointer, gradient, gradient)
      }
    }
  }
}

extension Loss {
  /// What tables and progress lines call it: CCE, the categorical cross-entropy, or MSE.
  public var abbreviation: String {
    switch self {
    case .crossEntropy: "CCE"
    case .meanSquaredError: "MSE"
    }
  }
}

extension Loss {
  /// The C symbol without its prefix.
  var kernel: String {
    switch self {
    case .crossEntropy: "softmax_cross_entropy"
    case .meanSquaredError: "squared_error"
    }
  }
}

/// As text: "cross_entropy", with label smoothing "cross_entropy:0.1", "mean_squared_error".
extension Loss: CustomStringConvertible, Codable {
  public var description: String {
    switch self {
    case .crossEntropy(let smoothing):
      smoothing == 0 ? "cross_entropy" : "cross_entropy:\(smoothing)"
    case .meanSquaredError: "mean_squared_error"
    }
  }

  /// - Throws: ``StrideNetError`` with the list of losses
  public init(_ text: String) throws {
    let parts = text.split(separator: ":", omittingEmptySubsequences: false)
    switch (parts[0], parts.count) {
    case ("cross_entropy", 1): self = .crossEntropy()
    case ("mean_squared_error", 1): self = .meanSquaredError
    case ("cross_entropy", 2):
      self = .crossEntropy(labelSmoothing: Float(parts[1]) ?? .nan)
      try check()
    default:
      throw StrideNetError(
        .usage, "no such loss", found: "'\(text)'",
        expected: "cross_entropy, cross_entropy:SMOOTHING or mean_squared_error")
    }
  }

  public init(from decoder: any Decoder) throws {
    let container = try decoder.singleValueContainer()
    do {
      try self.init(container.decode(String.self))
    } catch let error as StrideNetError {
      throw DecodingError.dataCorruptedError(in: container, debugDescription: error.description)
    }
  }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    try container.encode(description)
  }
}
