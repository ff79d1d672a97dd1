import StrideNetCore

extension Network {
  /// One step of a gradient's way back from the loss.
  package struct GradientStep: Sendable, Encodable {
    /// From 1; and the place in its output, as an index.
    package let layer, index: Int
    /// The gradient of the loss with respect to the sum there, before the activation.
    package let gradient: Float
    /// What the value below was multiplied by in that sum, and the share of the gradient below that
    /// came this way (shares of both signs add up to 1).
    package let factor: Float
    package let share: Double
  }

  /// The strongest way that the gradient at one output took from the loss: up from layer to layer,
  /// each time to the sum whose gradient times weight was largest. Ends below the first layer whose
  /// sums aren't of its input alone (normalisations, residual connections).
  /// - Parameters:
  ///   - trace: with targets, the last one
  ///   - number: the layer's, from 1
  ///   - index: of the output
  ///   - example: which of the batch
  package func gradientPath(in trace: Trace, layer number: Int, output index: Int, example: Int = 0)
    -> [GradientStep]
  {
    var (steps, index) = ([GradientStep](), index)
    for above in stride(from: number + 1, through: layers.count, by: 1) {
      let gradients = trace.layers[above - 1].innerGradient
      guard let gradients, let operation = stages[above - 1].only, !operation.normalizes else {
        break
      }
      let (x, shape) = (input(of: above, in: trace), gradients.shape)
      var best: (index: Int, gradient: Float, factor: Float)?
      var sum = 0.0
      x.withView { view in
        for output in 0..<shape.count {
          let gradient = gradients[example * shape.count + output]
          guard gradient != 0,
            let wiring = Wiring(operation, output: output, x: view.example(example))
          else { continue }
          for link in wiring.links where link.input == index {
            sum += Double(gradient * link.coefficient)
            if abs(gradient * link.coefficient) > abs((best?.gradient ?? 0) * (best?.factor ?? 0)) {
              best = (output, gradient, link.coefficient)
            }
          }
        }
      }
      guard let best else { break }
      steps.append(
        GradientStep(
          layer: above, index: best.index, gradient: best.gradient, factor: best.factor,
          share: Double(best.gradient * best.factor) / sum))
      index = best.index
    }
    return steps
  }

  /// A part of what one value passed on to the layer above.
  package struct Path: Sendable, Encodable {
    /// The layer above, from 1; index of the value in its output, and in its input.
    package let layer, to, from: Int
    /// Its share of the output that was asked for.
    package let share: Double
  }

  /// The strongest paths from the image to one output: its relevance is handed down layer by layer,
  /// to each value in proportion to what that added to the sum above it (layer-wise relevance
  /// propagation, the z⁺ rule: Bach et al. 2015, doi:10.1371/journal.pone.0130140), and the
  /// strongest few of each layer are followed.
  /// - Parameters:
  ///   - trace: without targets, of one image
  ///   - output: the index of one
  ///   - width: how many paths
  package func strongestPaths(in trace: Trace, to output: Int, width: Int = 6) -> [Path] {
    var paths: [Path] = []
    var relevance = [(index: output, share: 1.0)]
    for number in stride(from: layers.count, through: 1, by: -1) {
      let x = input(of: number, in: trace)
      var below: [Int: Double] = [:]
      var edges: [Path] = []
      x.withView { view in
        for (index, share) in relevance {
          guard let operation = stages[number - 1].only,
            let wiring = Wiring(operation, output: index, x: view.pointer)
          else { continue }
          let added = wiring.links.map { max(0, Double($0.coefficient * view[$0.input])) }
          let sum = added.reduce(0, +)
          guard sum > 0 else { continue }
          for (link, part) in zip(wiring.links, added) where part > 0 {
            let part = share * part / sum
            below[link.input, default: 0] += part
            edges.append(Path(layer: number, to: index, from: link.input, share: part))
          }
        }
      }
      relevance = below.map { (index: $0.key, share: $0.value) }
      relevance.sort { $0.share > $1.share || ($0.share == $1.share && $0.index < $1.index) }
      relevance = Array(relevance.prefix(width))
      let kept = Set(relevance.map(\.index))
      paths += edges.filter { kept.contains($0.from) }
    }
    return paths
  }
}
