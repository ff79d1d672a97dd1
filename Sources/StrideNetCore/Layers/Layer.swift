/// What a network is made of: a description, of constants alone. It says what it does to inputs of a
/// size as a list of operations, and holds no memory: weights, gradients and all that lies between
/// the passes belong to the network that the layer stands in. So a layer can stand in any number of
/// networks, as often as one likes.
///
/// A layer that is made of others says so:
///
///     struct Block: Layer {
///       let filters: Int
///       func operations(for input: Shape) throws -> [LayerOperation] {
///         try LayerOperation.sequence(
///           [Conv2D(filters, 3, padding: .same, activation: .none), BatchNorm(activation: .relu)],
///           for: input)
///       }
///     }
///
/// and works everywhere that they do: it is trained, fused, traced and exported as they are. One with
/// passes of its own is a ``CustomLayer``.
public protocol Layer: Sendable {
  /// As `--layers` has it: "conv(32,3)". It is saved with the weights.
  var text: String { get }

  /// What the layer does to examples of that size, one operation after the other.
  /// - Throws: ``StrideNetError`` if the layer can't take that input
  func operations(for input: Shape) throws -> [LayerOperation]
}

extension Layer {
  public var text: String { String(describing: type(of: self)).lowercased() }
}

/// A step of what layers do, of a short closed list: the network binds each to memory and kernels,
/// and whatever looks into a network or writes it elsewhere goes through its operations.
public struct LayerOperation: Sendable {
  package enum Kind: Sendable {
    /// Windows that slide over the image, each a weighted sum: weight (FH, FW, C / groups, F) and
    /// bias (F).
    case convolve(Conv2D, start: (top: Int, left: Int))
    /// x·wᵀ + bias: weight (outputs, inputs) and bias (outputs).
    case multiply
    case pool(Pooling)
    /// Over all pixels of a mini-batch, per channel: weight, bias, running mean and variance (C).
    case normalizeBatch(momentum: Float, epsilon: Float)
    /// Over the channels of each pixel: weight and bias (C).
    case normalizePixels(epsilon: Float)
    /// Takes the input over; the activation is all.
    case activate
    /// In training only.
    case drop(rate: Float)
    /// The same values, read under another shape.
    case reshape
    /// The sum of two lists of layers' outputs; without a shortcut, of one's and the input.
    case add(body: [LoweredLayer], shortcut: [LoweredLayer])
    case own(any CustomLayer)

    var isReshape: Bool { if case .reshape = self { true } else { false } }
  }

  let kind: Kind
  /// The sizes of one example.
  public let input, output: Shape
  /// What is learned, or remembered of training; a network makes memory for it.
  package let parameters: [ParameterShape]
  /// Applied to every value of the output (softmax: to all of an example).
  package let activation: Activation

  init(
    _ kind: Kind, _ input: Shape, _ output: Shape, _ parameters: [ParameterShape] = [],
    activation: Activation = .none
  ) {
    (self.kind, self.input, self.output) = (kind, input, output)
    (self.parameters, self.activation) = (parameters, activation)
  }

  var hasDenseWeights: Bool { if case .multiply = kind { true } else { false } }

  /// The operations of layers one after the other.
  /// - Throws: ``StrideNetError`` naming the layer that doesn't fit
  public static func sequence(_ layers: [any Layer], for input: Shape) throws -> [LayerOperation] {
    try LoweredLayer.list(layers, for: input).flatMap(\.operations)
  }
}

/// An array that an operation works with.
public struct ParameterShape: Sendable {
  /// "weight", "bias"; in files, behind the layer's place: "layers.0.weight".
  public let name: String
  public let shape: [Int]
  package let initializer: Initializer
  package let fanIn, fanOut: Int
  package let isTrained: Bool

  /// - Parameters:
  ///   - initializer: how the values start
  ///   - fanIn: how many values each output sums over, for initialisers that go by it
  ///   - fanOut: how many outputs each input goes into, likewise
  ///   - isTrained: false for what is saved with the weights but not learned by descent: running
  ///     statistics
  public init(
    _ name: String, shape: [Int], _ initializer: Initializer, fanIn: Int = 1, fanOut: Int = 1,
    isTrained: Bool = true
  ) {
    (self.name, self.shape, self.initializer) = (name, shape, initializer)
    (self.fanIn, self.fanOut, self.isTrained) = (fanIn, fanOut, isTrained)
  }

  package var count: Int { shape.reduce(1, *) }
}

/// A layer together with what it does to inputs of a size.
package struct LoweredLayer: Sendable {
  let layer: any Layer
  let operations: [LayerOperation]
  let input, output: Shape

  /// - Throws: ``StrideNetError`` naming the layer that doesn't fit and both shapes
  static func list(_ layers: [any Layer], for input: Shape) throws -> [LoweredLayer] {
    var shape = input
    return try layers.enumerated().map { index, layer in
      let place = "layer \(index + 1), \(layer.text)"
      var result: LoweredLayer
      do {
        result = LoweredLayer(
          layer: layer, operations: try layer.operations(for: shape), input: shape, output: shape)
      } catch let error as StrideNetError {
        throw StrideNetError(
          error.kind, error.what, at: "layer \(index + 1), \(error.place ?? layer.text)",
          found: error.found, expected: error.expected, hint: error.hint)
      }
      // A layer from outside may have made any list.
      guard !result.operations.isEmpty else {
        throw StrideNetError(
          .badData, "a layer without operations", at: place, expected: "at least one")
      }
      for operation in result.operations {
        guard operation.input == shape else {
          throw StrideNetError(
            .badData, "operations that don't fit each other", at: place,
            found: "one for inputs of \(operation.input)", expected: "one for \(shape)")
        }
        shape = operation.output
        let (values, overflow) = shape.height.multipliedReportingOverflow(
          by: shape.width * shape.channels)
        guard
          !overflow && values <= 1 << 31
            && operation.parameters.allSatisfy({
              Shape.product($0.shape).map { $0 <= 1 << 31 } ?? false
            })
        else {
          throw StrideNetError(
            .badData, "layer too large", at: place, found: "an output of \(shape)",
            expected: "at most 2³¹ values and as many weights")
        }
      }
      result = LoweredLayer(
        layer: layer, operations: result.operations, input: result.input, output: shape)
      return result
    }
  }

  /// Whether nothing is computed.
  var onlyReshapes: Bool {
    operations.allSatisfy(\.kind.isReshape)
  }
}

/// A layer with passes of one's own, beside what it says of its sizes:
///
///     struct ChannelScale: CustomLayer {
///       func parameters(for input: Shape) -> [ParameterShape] {
///         [ParameterShape("scale", shape: [input.channels], .constant(1))]
///       }
///       func forward(_ x: TensorView, _ y: TensorView, _ pass: CustomPass) {
///         let scale = pass.weights(0)
///         for i in 0..<x.count { y[i] = x[i] * scale[i % scale.count] }
///       }
///       func backward(
///         _ x: TensorView, _ y: TensorView, _ dy: TensorView, _ dx: TensorView?, _ pass: CustomPass
///       ) {
///         let (scale, gradient) = (pass.weights(0), pass.gradient(0))
///         gradient.update(repeating: 0)
///         for i in 0..<x.count {
///           gradient[i % scale.count] += dy[i] * x[i]
///           dx?[i] = dy[i] * scale[i % scale.count]
///         }
///       }
///     }
public protocol CustomLayer: Layer {
  /// The size of one example of the output; that of the input unless said otherwise.
  /// - Throws: ``StrideNetError`` if the layer can't take that input
  func output(for input: Shape) throws -> Shape

  /// The arrays that it learns, in the order in which they are saved.
  func parameters(for input: Shape) -> [ParameterShape]

  /// Floats for each example that the forward pass leaves to the backward pass, in
  /// ``CustomPass/memory``.
  func memory(for input: Shape) -> Int

  /// Computes the output `y` from the input `x`; both hold the same number of examples.
  func forward(_ x: TensorView, _ y: TensorView, _ pass: CustomPass)

  /// From the upstream gradient `dy` (as large as `y`; it may be overwritten) computes the
  /// gradient `dx` (as large as `x`; nil where nobody needs it, below the first layer), and
  /// overwrites each parameter's gradient. `x` and `y` are those of the last forward pass.
  /// The loss is a mean over the batch, so gradients are sums over it of what comes in.
  func backward(
    _ x: TensorView, _ y: TensorView, _ dy: TensorView, _ dx: TensorView?, _ pass: CustomPass)

  /// How other formats write it; those that are nil name it in an error.
  var exports: CustomExports { get }
}

extension CustomLayer {
  public func output(for input: Shape) throws -> Shape { input }
  public func parameters(for input: Shape) -> [ParameterShape] { [] }
  public func memory(for input: Shape) -> Int { 0 }
  public var exports: CustomExports { CustomExports() }

  public func operations(for input: Shape) throws -> [LayerOperation] {
    let output = try output(for: input)
    for size in [output.height, output.width, output.channels] {
      try requirePositive(size, "output size", in: text)
    }
    return [LayerOperation(.own(self), input, output, parameters(for: input))]
  }
}

/// What a layer of one's own works with in a pass.
public struct CustomPass {
  let parameters: [Parameter]
  /// What ``CustomLayer/memory(for:)`` asked for, for all examples of the batch.
  public let memory: UnsafeMutableBufferPointer<Float>
  public let runtime: Runtime
  /// False for evaluation and prediction: nothing need be kept for a backward pass.
  public let isTraining: Bool
  /// The network's seed and the number of the training step: what is drawn in a pass depends on
  /// them alone.
  public let seed: UInt64
  public let step: Int

  /// Whether the layer is to stay as it is (``Network/frozenLayers``): its statistics too.
  public var isFrozen: Bool { parameters.contains(where: \.isFrozen) }

  /// The values of parameter number `index`.
  public func weights(_ index: Int) -> UnsafeBufferPointer<Float> {
    UnsafeBufferPointer(start: parameters[index].value, count: parameters[index].count)
  }

  /// Where the gradient of parameter number `index` goes.
  public func gradient(_ index: Int) -> UnsafeMutableBufferPointer<Float> {
    precondition(isTraining, "gradients are of training")
    return UnsafeMutableBufferPointer(
      start: parameters[index].gradient, count: parameters[index].count)
  }

  /// The values of a parameter that isn't trained, to be changed in training: running statistics.
  public func statistics(_ index: Int) -> UnsafeMutableBufferPointer<Float> {
    precondition(isTraining && !parameters[index].isTrained, "statistics are taken in training")
    return UnsafeMutableBufferPointer(
      start: parameters[index].value, count: parameters[index].count)
  }
}

/// How a layer of one's own is written in other formats.
public struct CustomExports: Sendable {
  /// Statements of C that compute the flat array `y` from the flat array `x`, `weights` being those
  /// of the parameters, flat too.
  public var c: (@Sendable (_ x: String, _ y: String, _ weights: [String]) -> String)?
  /// An ONNX operator of one input and, behind it, the parameters; for layers whose result doesn't
  /// depend on the order of an image's axes, or whose images have one channel or pixel.
  public var onnx: String?
  /// A module of PyTorch without arguments that are arrays, as "nn.Hardtanh()".
  public var pyTorch: String?

  public init(
    c: (@Sendable (_ x: String, _ y: String, _ weights: [String]) -> String)? = nil,
    onnx: String? = nil, pyTorch: String? = nil
  ) {
    (self.c, self.onnx, self.pyTorch) = (c, onnx, pyTorch)
  }
}

/// What a pass is for and with what it computes.
package struct Pass {
  package let runtime: Runtime
  /// False for evaluation and prediction: nothing need be kept for a backward pass.
  package let training: Bool
  /// The network's seed and the number of the training step: what is drawn in a pass depends on
  /// them alone.
  package let seed: UInt64
  package let step: Int
  /// What a training step does with gradients.
  package var update: Update?
  /// Of a training step, the examples that are this process's.
  package let share: BatchShare
  /// Where several processes train together, what travels between them.
  var exchange: GradientExchange?
  /// Nil unless somebody measures.
  package var times: PassTimes?
  /// True where the weights are those of the network's passes before.
  var keepsWeights = false

  package init(
    runtime: Runtime, training: Bool, seed: UInt64 = 0, step: Int = 0, update: Update? = nil,
    times: PassTimes? = nil, share: BatchShare
  ) {
    (self.runtime, self.training, self.seed, self.step) = (runtime, training, seed, step)
    (self.update, self.times, self.share) = (update, times, share)
  }

  /// The gradient of a parameter, of which each of this process's pieces has a share, one `stride`
  /// floats behind the other and added by the tree.
  func give(
    _ parameter: Parameter, _ sums: UnsafePointer<Float>, stride: Int, _ pieces: Range<Int>
  ) {
    if let exchange {
      exchange.give(parameter, sums, stride: stride, pieces)
    } else {
      parameter.gradient.update(from: sums, count: parameter.count)
    }
  }
}
