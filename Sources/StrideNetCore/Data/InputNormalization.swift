/// What a network does to its inputs before its first layer: of each channel (x − mean) / deviation.
/// It belongs to the network, is saved with the weights and exported with them, so who asks gives the
/// same pixels of 0…1 as ever. Zeros that a convolution pads with are put around the result.
///
///     network.normalization = .standard(of: data.train)
public struct InputNormalization: Sendable, Hashable, Codable {
  /// Ways to come to one, as `--normalize` has them.
  public enum Method: String, Sendable, Codable, CaseIterable {
    /// Bytes as they are, 0…255.
    case none
    /// Bytes divided by 255, 0…1: what pixels are without any normalisation.
    case unit
    /// Mean 0 and deviation 1 in each channel of the training images.
    case standard
  }

  /// One value for each channel, of inputs of 0…1.
  public let mean, deviation: [Double]
  /// The same as what is multiplied by and then added.
  package let scale, shift: [Float]

  private enum CodingKeys: CodingKey { case mean, deviation }

  /// - Throws: ``StrideNetError`` unless there is a finite mean and a finite deviation above 0 for
  ///   each channel
  public init(mean: [Double], deviation: [Double]) throws {
    guard !mean.isEmpty, mean.count == deviation.count, mean.allSatisfy(\.isFinite),
      deviation.allSatisfy({ $0.isFinite && $0 >= Double(Float.leastNormalMagnitude) })
    else {
      throw StrideNetError(
        .badData, "not a normalisation", found: "mean \(mean), deviation \(deviation)",
        expected: "a mean and a deviation above 0 for each channel")
    }
    self.init(unchecked: mean, deviation)
  }

  private init(unchecked mean: [Double], _ deviation: [Double]) {
    (self.mean, self.deviation) = (mean, deviation)
    scale = deviation.map { Float(1 / $0) }
    shift = zip(mean, deviation).map { Float(-$0 / $1) }
  }

  public init(from decoder: any Decoder) throws {
    let container = try decoder.container(keyedBy: CodingKeys.self)
    try self.init(
      mean: container.decode([Double].self, forKey: .mean),
      deviation: container.decode([Double].self, forKey: .deviation))
  }

  /// Mean and population deviation of each channel of some images, in double precision; of a channel
  /// that has one value everywhere, the deviation is taken as 1.
  public static func standard(of set: ImageSet) -> InputNormalization {
    InputNormalization(counts: set.byteCounts)
  }

  /// - Parameter counts: how often each byte stands in each channel
  package init(counts: [[Int]]) {
    let all = counts.map(Self.statistics)
    self.init(unchecked: all.map(\.mean), all.map { $0.deviation > 0 ? $0.deviation : 1 })
  }

  fileprivate static func statistics(_ counts: [Int]) -> (mean: Double, deviation: Double) {
    let total = Double(counts.reduce(0, +))
    func mean(_ value: (Double) -> Double) -> Double {
      counts.enumerated().reduce(0) { $0 + value(Double($1.offset) / 255) * Double($1.element) }
        / total
    }
    let middle = mean { $0 }
    return (middle, mean { ($0 - middle) * ($0 - middle) }.squareRoot())
  }

  /// What a method comes to for some training images; nil where pixels stay as they are.
  package static func of(_ method: Method?, _ set: ImageSet) -> InputNormalization? {
    method == .standard ? standard(of: set) : of(method, channels: set.channels)
  }

  /// The same of methods that need no images.
  package static func of(_ method: Method?, channels: Int) -> InputNormalization? {
    guard method == InputNormalization.Method.none else { return nil }
    let zeros = [Double](repeating: 0, count: channels)
    return InputNormalization(unchecked: zeros, zeros.map { _ in 1 / 255 })
  }

  /// For people: "less mean 0.1307, divided by deviation 0.3081".
  package var text: String {
    if self == Self.of(InputNormalization.Method.none, channels: mean.count) {
      return "0 to 255, not divided"
    }
    func list(_ values: [Double]) -> String {
      values.map { "\(Float(($0 * 10_000).rounded() / 10_000))" }.joined(separator: " ")
    }
    return "less mean \(list(mean)), divided by deviation \(list(deviation))"
  }

  /// Writes examples as the first layer sees them.
  fileprivate func apply(_ x: TensorView, _ y: UnsafeMutablePointer<Float>) {
    Kernels.scaleShift(
      rows: x.count / scale.count, scale.count, x.pointer, scale: scale, shift: shift,
      relu: false, y)
  }
}

extension ImageSet {
  /// How often each byte stands in each channel.
  fileprivate var byteCounts: [[Int]] {
    (0..<channels).map { channel in
      var counts = [Int](repeating: 0, count: 256)
      pixels.withUnsafeBufferPointer { pixels in
        for i in stride(from: channel, to: pixels.count, by: channels) {
          counts[Int(pixels[i])] += 1
        }
      }
      return counts
    }
  }

  /// Mean and standard deviation of each channel, of values of 0…1.
  package var channelStatistics: [(mean: Double, deviation: Double)] {
    byteCounts.map(InputNormalization.statistics)
  }
}

extension Network {
  /// The inputs as the first layer sees them; good until the next call.
  func normalized(_ x: TensorView) -> TensorView {
    guard let normalization else { return x }
    let y = normalizedInput(x)
    runtime.parallel(over: x.batch, by: 8, (x, y, normalization)) { context, images, _ in
      let (x, y, factors) = context
      factors.apply(x.examples(images), y.example(images.lowerBound))
    }
    return y
  }

  /// Where the inputs lie as the first layer saw them.
  func normalizedInput(_ x: TensorView) -> TensorView {
    normalization == nil
      ? x : TensorView(normalizedInputs.pointer, batch: x.batch, shape: x.shape)
  }

  /// The same of inputs that are kept.
  package func normalized(_ x: Tensor) throws -> Tensor {
    guard let normalization else { return x }
    var result = try Tensor(zeros: x.batch, x.shape)
    x.withView { x in result.withMutableView { normalization.apply(x, $0.pointer) } }
    return result
  }

  package func checkNormalization(for input: Shape) throws {
    guard let count = normalization?.mean.count, count != input.channels else { return }
    throw StrideNetError(
      .badData, "a normalisation of other channels than the network's input has",
      found: "\(count)", expected: "\(input.channels), for \(input)")
  }
}
