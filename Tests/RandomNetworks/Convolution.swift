import Foundation

final class Convolution: Part {
  let input, output: Size
  let window, stride, dilation: (height: Int, width: Int)
  let top, left, groups: Int
  let w, b: Weights
  private let isTransformed: Bool
  /// What they make of errors comes to them.
  override var transforms: Bool { isTransformed }
  /// Outputs of a tile on an axis then, and what errors grow to: see CKernels.h.
  private let tile: Int
  private var growth: Double { tile == 4 ? 27 : 5 }
  /// What a factor is expected to be off that is rounded to bf16 once it is transformed.
  private let narrowing: Double
  private var x: Field!
  /// Whether factors are rounded to bf16: in the input gradient, and in the two other passes.
  private let rounds, roundsWindows: Bool
  private var norm: BatchNormalization?
  // A NaN is multiplied by a 0, too.
  override var spreadsHoles: Bool { isTransformed || roundsWindows }

  init(
    _ input: Size, _ output: Size, window: (height: Int, width: Int),
    stride: (height: Int, width: Int), dilation: (height: Int, width: Int), top: Int, left: Int,
    groups: Int, _ w: Weights, _ b: Weights, transforms: (_ tile: Int) -> Bool,
    rounds: Bool
  ) {
    (self.input, self.output, self.window, self.stride) = (input, output, window, stride)
    (self.dilation, self.top, self.left, self.groups) = (dilation, top, left, groups)
    (self.w, self.b) = (w, b)
    let isDepthwise = groups > 1 && groups == input.channels && groups == output.channels
    tile = input.channels / groups < 16 || output.channels / groups < 16 ? 2 : 4
    isTransformed =
      transforms(tile) && window == (3, 3) && !isDepthwise && dilation.height % stride.height == 0
      && dilation.width % stride.width == 0
    narrowing = isTransformed && rounds ? 0.6 * 0x1p-8 : 0
    // One filter of one channel is depthwise, too, where it is dilated.
    let isPlain = groups == 1 && dilation == (1, 1)
    let isSingle = groups == input.channels && groups == output.channels && !isPlain
    self.rounds = rounds && !isSingle && !isTransformed
    roundsWindows = self.rounds && window.width * (input.channels / groups) >= 16
  }

  /// Where nothing is trained, a normalisation behind it scales its weights, before these are
  /// rounded.
  func takeOver(_ norm: BatchNormalization) {
    guard roundsWindows else { return }
    self.norm = norm
    norm.isTakenOver = true
  }

  /// Weights and bias of a pass forward.
  private func factors(training: Bool) -> (w: [Number], b: [Number]) {
    var (w, b) = (w.values.map { Number($0) }, b.values.map { Number($0) })
    if !training, let running = norm?.runningFactors {
      for i in w.indices { w[i] = w[i] * running[i % output.channels].scale }
      for f in b.indices { b[f] = b[f] * running[f].scale + running[f].shift }
    }
    return (roundsWindows ? w.map { $0.roundedToBF16() } : w, b)
  }

  override var weights: [Weights] { [w, b] }

  /// Calls `body` with the places of each y[n,p,q,f] and of each x and w that it is a sum over.
  @inline(__always) private func forEachTap(
    _ batch: Int, _ x: Field, _ y: Field, _ body: (_ y: Int, _ x: Int, _ w: Int) -> Void
  ) {
    let (channels, filters) = (input.channels / groups, output.channels)
    for n in 0..<batch {
      for p in 0..<output.height {
        for q in 0..<output.width {
          for i in 0..<window.height {
            let row = p * stride.height + i * dilation.height - top
            guard row >= 0 && row < input.height else { continue }
            for j in 0..<window.width {
              let column = q * stride.width + j * dilation.width - left
              guard column >= 0 && column < input.width else { continue }
              let pixel = x.pixel(n, row, column)
              for f in 0..<filters {
                let group = f / (filters / groups)
                for c in 0..<channels {
                  body(
                    y.pixel(n, p, q) + f, pixel + group * channels + c,
                    ((i * window.width + j) * channels + c) * filters + f)
                }
              }
            }
          }
        }
      }
    }
  }

  override func forward(_ x: Field, training: Bool) -> Field {
    self.x = x
    let x = roundsWindows ? x.rounded() : x
    let y = Field(x.batch, output)
    let (w, b) = factors(training: training)
    var sums = [Sum](repeating: Sum(), count: y.count)
    sums.withUnsafeMutableBufferPointer { sums in
      w.withUnsafeBufferPointer { w in
        forEachTap(x.batch, x, y) { y, xi, wi in
          sums[y].add(x.value[xi], error: x.error[xi], times: w[wi].value, error: w[wi].error)
        }
      }
    }
    for i in 0..<y.count {
      let b = b[i % output.channels]
      sums[i].add(b.value, error: b.error)
    }
    y.fill(from: sums)
    if transforms {
      let largest = largestWeights
      for (n, x) in largestOfEach(x).enumerated() {
        for f in 0..<output.channels {
          widen(
            y, n, f, growth,
            (0..<channels).map { x[f / filtersOfGroup * channels + $0] * largest[$0][f] }
          )
        }
      }
    }
    let factors = channelFactors
    for f in 0..<output.channels {
      y.shared[f] = factors.reduce(0) {
        $1.filter == f ? hypot($0, $1.factor * x.shared[$1.channel]) : $0
      }
    }
    if !training && norm != nil {
      // A weight that may be rounded either way is the same in all pixels.
      let sizes = largestOfEach(x).reduce([Double](repeating: 0, count: input.channels)) {
        zip($0, $1).map(max)
      }
      for (k, w) in w.enumerated() where w.error > 0 {
        let f = k % output.channels
        let c = f / filtersOfGroup * channels + k / output.channels % channels
        y.shared[f] = hypot(y.shared[f], w.error * sizes[c])
      }
    }
    for i in 0..<y.count { y.error[i] = hypot(y.error[i], y.shared[i % output.channels]) }
    y.shareRepeated(from: x)
    return y
  }

  private var channels: Int { input.channels / groups }
  private var filtersOfGroup: Int { output.channels / groups }

  /// The largest weight of each channel of a group and each filter.
  private var largestWeights: [[Double]] {
    let filters = output.channels
    var largest = [[Double]](repeating: [Double](repeating: 0, count: filters), count: channels)
    for (k, weight) in w.values.enumerated() {
      let (c, f) = (k / filters % channels, k % filters)
      largest[c][f] = max(largest[c][f], abs(weight))
    }
    return largest
  }

  /// The largest number of each channel in each example.
  private func largestOfEach(_ x: Field) -> [[Double]] {
    let (count, channels) = (x.size.count, x.size.channels)
    return (0..<x.batch).map { n in
      var largest = [Double](repeating: 0, count: channels)
      for i in 0..<count {
        largest[i % channels] = max(largest[i % channels], abs(x.value[n * count + i]))
      }
      return largest
    }
  }

  /// What a sum of products that were transformed may be off by: see CKernels.h.
  private func grown(_ growth: Double, _ products: [Double]) -> Double {
    let squares = products.reduce(0) { $0 + $1 * $1 }
    let each = roundoff * Double(products.count + 25).squareRoot() + narrowing
    return growth * each * squares.squareRoot()
  }

  /// Adds that to the errors of a channel of an example.
  private func widen(_ y: Field, _ n: Int, _ channel: Int, _ growth: Double, _ products: [Double]) {
    let error = grown(growth, products)
    for i in Swift.stride(from: channel, to: y.size.count, by: y.size.channels) {
      y.error[n * y.size.count + i] = hypot(y.error[n * y.size.count + i], error)
    }
  }

  /// What each channel is multiplied by in each filter, all of a window together.
  private var channelFactors: [(channel: Int, filter: Int, factor: Double)] {
    let (channels, filters) = (input.channels / groups, output.channels)
    return (0..<channels * filters).map { k in
      let (c, f) = (k / filters, k % filters)
      let all = Swift.stride(from: k, to: w.values.count, by: channels * filters)
      return (
        f / (filters / groups) * channels + c, f, all.reduce(0) { $0 + w.values[$1] }
      )
    }
  }

  override func backward(_ dy: Field) -> Field {
    let dx = Field(dy.batch, input)
    // The factors of dx, and of the weights' gradient.
    let back = rounds ? dy.rounded() : dy
    let w = rounds ? self.w.values.map(bf16) : self.w.values
    let (x, up) = roundsWindows ? (self.x.rounded(), back) : (self.x!, dy)
    var inputs = [Sum](repeating: Sum(), count: dx.count)
    var window = [Sum](repeating: Sum(), count: w.count)
    inputs.withUnsafeMutableBufferPointer { inputs in
      window.withUnsafeMutableBufferPointer { window in
        w.withUnsafeBufferPointer { w in
          forEachTap(dy.batch, x, dy) { yi, xi, wi in
            inputs[xi].add(back.value[yi], error: back.error[yi], times: w[wi], error: 0)
            window[wi].add(
              up.value[yi], error: up.error[yi], times: x.value[xi], error: x.error[xi])
          }
        }
      }
    }
    b.gradient = dy.channelSums
    let (above, below) = (b.gradient, x.channelSums)
    let (channels, filters) = (input.channels / groups, output.channels)
    for k in window.indices {
      let (c, f) = (k / filters % channels, k % filters)
      let channel = f / (filters / groups) * channels + c
      window[k].add(0, error: x.shared[channel] * above[f].value)
      window[k].add(0, error: up.shared[f] * below[channel].value)
    }
    self.w.gradient = window.map(\.number)
    dx.fill(from: inputs)
    if transforms {
      let (largest, upstream, x) = (largestWeights, largestOfEach(dy), largestOfEach(x))
      for n in 0..<dy.batch {
        for c in 0..<input.channels {
          let group = c / channels * filtersOfGroup
          widen(
            dx, n, c, growth,
            (group..<group + filtersOfGroup).map { upstream[n][$0] * largest[c % channels][$0] })
        }
      }
      // Of each image as many as there are tiles, at most.
      let more = tile - 1
      let tiles =
        (output.height + more * dilation.height) / tile
        * ((output.width + more * dilation.width) / tile)
      for k in window.indices {
        let (c, f) = (k / filters % channels, k % filters)
        let channel = f / (filters / groups) * channels + c
        let products = (0..<dy.batch * tiles).map {
          x[$0 / tiles][channel] * upstream[$0 / tiles][f]
        }
        self.w.gradient[k].error = hypot(
          self.w.gradient[k].error, grown(tile == 4 ? 29 : 4, products))
      }
    }
    for (channel, f, factor) in channelFactors {
      dx.shared[channel] = hypot(dx.shared[channel], factor * back.shared[f])
    }
    dx.shareRepeated(from: dy)
    return dx
  }
}
