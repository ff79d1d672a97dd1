import Foundation

/// The network in double precision, made anew for each pass from the text of its layers and the
/// weights as they are.
struct Reference {
  let parts: [Part]
  let output: Size
  /// Whether the parts end in what a last softmax takes.
  let givesLogits: Bool

  /// - Parameters:
  ///   - weights: the network's, by name
  ///   - rounds: whether products are of bf16
  init(
    _ layers: [LayerText], _ input: Size, weights: [String: [Float]], seed: UInt64, step: Int,
    kernels: String, rounds: Bool
  ) {
    var builder = ReferenceBuilder(
      weights: weights, seed: seed, step: step, kernels: kernels, rounds: rounds)
    var (parts, output) = builder.parts(of: layers, input, prefix: "layers.")
    givesLogits = parts.last is Softmax
    if givesLogits { parts.removeLast() }
    (self.parts, self.output) = (parts, output)
  }

  var weights: [Weights] { parts.flatMap(\.weights) }

  /// The loss of a batch and between how many of its examples are wrong.
  struct Result {
    var output: Field
    var loss: Number
    var wrong: ClosedRange<Int>
  }

  /// Loss, and for training the gradients, which stay with the weights.
  func run(_ x: Field, labels: [Int], loss: LossText, training: Bool) -> Result {
    let scores = parts.reduce(x) { $1.forward($0, training: training) }
    let output = givesLogits ? softmax(scores) : scores
    let (batch, classes) = (x.batch, scores.size.count)
    let gradient = Field(batch, scores.size)
    var total = Number(0)
    var (surely, perhaps) = (0, 0)
    for n in 0..<batch {
      func target(_ k: Int) -> Double {
        let smoothing = training ? loss.smoothing : 0
        return (k == labels[n] ? 1 - smoothing : 0) + smoothing / Double(classes)
      }
      let row = (n * classes..<(n + 1) * classes)
      var one = Sum()
      if loss.isSquaredError {
        for (k, i) in row.enumerated() {
          let off = output[i] - Number(k == labels[n] ? 1 : 0)
          let square = off * off / Number(Double(classes))
          one.add(square.value, error: square.error)
          gradient[i] = off * Number(2 / Double(classes) / Double(batch))
        }
      } else {
        // Σ t · (log Σ eˣ − x), with differences from the largest x.
        let most = row.map { scores.value[$0] }.max()!
        let sum = row.reduce(0) { $0 + exp(scores.value[$1] - most) }
        for (k, i) in row.enumerated() {
          let (t, p) = (target(k), output[i])
          let below = most - scores.value[i]
          one.add(t * below, error: abs(p.value - t) * scores.error[i] + roundoff * abs(t * below))
          let off = p - Number(t, error: roundoff * t)
          gradient[i] = off * Number(1 / Double(batch), error: roundoff / Double(batch))
        }
        one.add(log(sum), error: roundoff * (4 + Double(classes).squareRoot()))
      }
      total = total + one.number
      // The first largest is the answer.
      let judged = givesLogits && loss.isSquaredError ? output : scores
      let right = row.lowerBound + labels[n]
      let above = row.filter { i in
        i != right
          && (judged.value[i] > judged.value[right]
            || (judged.value[i] == judged.value[right] && i < right))
      }
      func isClose(_ i: Int) -> Bool {
        let error = judged.error[i] + judged.error[right]
        return abs(judged.value[i] - judged.value[right]) <= tolerance * error
      }
      if above.contains(where: { !isClose($0) }) { surely += 1 }
      if !above.isEmpty || row.contains(where: { $0 != right && isClose($0) }) { perhaps += 1 }
    }
    if training {
      var back = gradient
      if loss.isSquaredError && givesLogits { back = softmaxGradient(output, gradient) }
      for part in parts.reversed() { back = part.backward(back) }
    }
    let mean = total / Number(Double(batch))
    return Result(output: output, loss: mean, wrong: surely...perhaps)
  }
}

/// "cross_entropy", "cross_entropy:0.1" or "mean_squared_error".
struct LossText {
  let isSquaredError: Bool
  let smoothing: Double

  init(_ text: String) {
    isSquaredError = text == "mean_squared_error"
    smoothing = text.split(separator: ":").dropFirst().first.map { Double(Float($0)!) } ?? 0
  }
}
