import Foundation

/// What a layer text and the sizes come to: output sizes, and work.
struct Geometry {
  /// Zeros above and to the left, and the size of what comes out; nil where a window doesn't fit.
  static func windows(_ layer: LayerText, over input: Size) -> (
    top: Int, left: Int, rows: Int, columns: Int
  )? {
    let window = layer.pair("size")
    let isConvolution = layer.name == "conv"
    let stride = layer.pair("stride", isConvolution ? (1, 1) : (window.height, window.width))
    let dilation = layer.pair("dilation")
    let reach = (dilation.height * (window.height - 1) + 1, dilation.width * (window.width - 1) + 1)
    var (top, left, bottom, right) = (0, 0, 0, 0)
    switch layer["padding"] {
    case nil, "valid": break
    case "same":
      // ⌈input / stride⌉ outputs.
      func missing(_ input: Int, _ stride: Int, _ reach: Int) -> Int {
        max(0, ((input + stride - 1) / stride - 1) * stride + reach - input)
      }
      let rows = missing(input.height, stride.height, reach.0)
      let columns = missing(input.width, stride.width, reach.1)
      (top, left, bottom, right) = (rows / 2, columns / 2, rows - rows / 2, columns - columns / 2)
    case let text?:
      let numbers = text.split(separator: "x").map { Int($0)! }
      switch numbers.count {
      case 1: (top, left, bottom, right) = (numbers[0], numbers[0], numbers[0], numbers[0])
      case 2: (top, left, bottom, right) = (numbers[0], numbers[1], numbers[0], numbers[1])
      default: (top, left, bottom, right) = (numbers[0], numbers[1], numbers[2], numbers[3])
      }
    }
    guard max(top, bottom) < reach.0 && max(left, right) < reach.1 else { return nil }
    let rows = input.height + top + bottom - reach.0
    let columns = input.width + left + right - reach.1
    guard rows >= 0 && columns >= 0 else { return nil }
    return (top, left, rows / stride.height + 1, columns / stride.width + 1)
  }

  /// The size of what a layer makes of an input and about how many multiply-adds it takes; nil where
  /// it can't.
  static func output(_ layer: LayerText, _ input: Size) -> (size: Size, work: Int)? {
    switch layer.name {
    case "conv":
      let (filters, groups) = (layer.number("filters"), layer.number("groups"))
      guard input.channels % groups == 0, filters % groups == 0,
        let (_, _, rows, columns) = windows(layer, over: input)
      else { return nil }
      let window = layer.pair("size")
      return (
        Size(height: rows, width: columns, channels: filters),
        rows * columns * filters * (window.height * window.width * input.channels / groups + 8)
      )
    case "maxpool", "avgpool":
      guard let (_, _, rows, columns) = windows(layer, over: input) else { return nil }
      let (window, size) = (
        layer.pair("size"), Size(height: rows, width: columns, channels: input.channels)
      )
      return (size, size.count * window.height * window.width * 4)
    case "globalavgpool":
      return (Size(height: 1, width: 1, channels: input.channels), input.count * 4)
    case "flatten": return (Size(height: 1, width: 1, channels: input.count), input.count)
    case "residual":
      guard let (size, work) = output(layer.body, input),
        let (other, more) = output(layer.shortcut, input), size == other,
        layer.body.contains(where: { $0.name != "flatten" }),
        layer.shortcut.isEmpty || layer.shortcut.contains(where: { $0.name != "flatten" })
      else { return nil }
      return (size, work + more + size.count)
    case "batchnorm", "layernorm", "dropout", "activation": return (input, input.count * 8)
    default:
      guard input.isFlat else { return nil }
      let outputs = layer.number("outputs")
      return (Size(height: 1, width: 1, channels: outputs), outputs * (input.count + 8))
    }
  }

  static func output(_ layers: [LayerText], _ input: Size) -> (size: Size, work: Int)? {
    var (size, work) = (input, 0)
    for layer in layers {
      guard let next = output(layer, size) else { return nil }
      (size, work) = (next.size, work + next.work)
    }
    return (size, work)
  }
}

/// The network in double precision, made anew for each pass from the text of its layers and the
/// weights as they are.
struct Reference {
  let parts: [Part]
  let output: Size
  /// Whether the parts end in what a last softmax takes.
  let givesLogits: Bool

  /// - Parameter weights: the network's, by name
  init(
    _ layers: [LayerText], _ input: Size, weights: [String: [Float]], seed: UInt64, step: Int
  ) {
    var number = 0
    func list(_ layers: [LayerText], _ input: Size, prefix: String) -> ([Part], Size) {
      var (parts, size) = ([Part](), input)
      // Layers are numbered each before those inside it, and these one after the other.
      for (index, layer) in layers.enumerated() {
        let place = "\(prefix)\(index)."
        func array(_ name: String) -> Weights {
          Weights(place + name, weights[place + name] ?? [])
        }
        func decimal(_ name: String, _ other: Float) -> Double {
          Double(layer[name].flatMap(Float.init) ?? other)
        }
        func activate(_ name: String) {
          let function = activation(name, slope: layer["slope"])
          if name != "none" { parts.append(function.map(Pointwise.init) ?? Softmax()) }
        }
        let output = Geometry.output(layer, size)!.size
        let ownNumber = number
        number += 1
        switch layer.name {
        case "conv":
          let (top, left, _, _) = Geometry.windows(layer, over: size)!
          parts.append(
            Convolution(
              size, output, window: layer.pair("size"), stride: layer.pair("stride"),
              dilation: layer.pair("dilation"), top: top, left: left,
              groups: layer.number("groups"), array("weight"), array("bias")))
          activate(layer["activation"] ?? "relu")
        case "maxpool", "avgpool":
          let window = layer.pair("size")
          parts.append(
            Pooling(
              output, window: window,
              stride: layer.pair("stride", (window.height, window.width)),
              takesLargest: layer.name == "maxpool"))
        case "globalavgpool":
          let all = (size.height, size.width)
          parts.append(Pooling(output, window: all, stride: all, takesLargest: false))
        case "flatten": parts.append(Reshape(size, output))
        case "batchnorm":
          parts.append(
            BatchNormalization(
              array("weight"), array("bias"), array("running_mean"), array("running_var"),
              momentum: decimal("momentum", 0.1), epsilon: decimal("epsilon", 1e-5)))
          activate(layer["activation"] ?? "none")
        case "layernorm":
          parts.append(
            LayerNormalization(
              array("weight"), array("bias"), epsilon: decimal("epsilon", 1e-5)))
        case "dropout":
          parts.append(
            Drop(rate: Float(layer["rate"]!)!, layer: ownNumber, seed: seed, step: step))
        case "activation": activate(layer["activation"]!)
        case "residual":
          let (body, _) = list(layer.body, size, prefix: place + "body.")
          let (shortcut, _) = list(layer.shortcut, size, prefix: place + "shortcut.")
          parts.append(Fork(body, shortcut))
        default:
          parts.append(FullyConnected(array("weight"), array("bias")))
          activate(layer.name == "dense" ? layer["activation"] ?? "none" : layer.name)
        }
        size = output
      }
      return (parts, size)
    }
    var (parts, output) = list(layers, input, prefix: "layers.")
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
