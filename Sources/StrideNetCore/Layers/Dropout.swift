/// Dropout (Srivastava et al. 2014, JMLR 15): in training each value is 0 with probability `rate`,
/// and the others are divided by 1 − rate, so that their sum stays what it was on average; otherwise
/// y = x.
///
/// Which values are dropped is a function of the network's seed, the layer's number, the training
/// step and the value's place, so the backward pass finds it again instead of remembering it, and it
/// is the same for any number of threads.
public struct Dropout: Layer {
  package let rate: Float

  public init(_ rate: Float) { self.rate = rate }

  public var text: String { "dropout(\(rate))" }

  public func operations(for input: Shape) throws -> [LayerOperation] {
    try require(rate >= 0 && rate < 1, "rate", rate, "0 up to, not with, 1", in: text)
    return [LayerOperation(.drop(rate: rate), input, input)]
  }
}

final class DropoutNode: Node {
  private let rate: Float
  private let number: Int

  init(_ rate: Float, _ operation: Bound) { (self.rate, number) = (rate, operation.number) }

  override func forward(_ x: TensorView, _ y: TensorView, _ pass: Pass) {
    drop(x, y, pass.training ? rate : 0, pass)
  }

  override func backward(
    _ x: TensorView, _ y: TensorView, _ dy: TensorView, _ dx: TensorView?, _ pass: Pass
  ) {
    if let dx { drop(dy, dx, rate, pass) }
  }

  private func drop(_ from: TensorView, _ to: TensorView, _ rate: Float, _ pass: Pass) {
    var random = SeededGenerator(
      seed: pass.seed &+ UInt64(number) << 32, stream: 1 << 40 + UInt64(pass.step))
    let threshold = UInt32(Double(rate) * 0x1p32)
    pass.runtime.parallel(
      over: from.count, by: 16_384,
      (
        from, to, random.next(), threshold, 1 / (1 - rate),
        pass.share.examples.lowerBound * from.shape.count
      )
    ) { context, range, _ in
      let (from, to, key, threshold, scale, first) = context
      Kernels.dropout(
        range.count, key: key, first: first + range.lowerBound, threshold: threshold, scale: scale,
        from.pointer + range.lowerBound, to.pointer + range.lowerBound)
    }
  }

  override func cost(_ pass: LayerPass, _ input: Shape, _ output: Shape, _ runtime: Runtime)
    -> PassCost?
  {
    guard pass == .forward || pass == .backward else { return nil }
    return PassCost(
      kernel: "dropout", why: PassCost.onlyKernel, inputs: Double(input.count),
      outputs: Double(output.count))
  }
}
