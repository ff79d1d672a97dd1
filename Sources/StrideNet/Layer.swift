import Foundation

/// A trained array: its values, and the gradient of the loss with respect to them.
///
/// A layer makes its parameters when it learns its input's size; the network then puts all of them
/// side by side in one block of memory, so that an update is one pass and a snapshot one reference.
public final class Parameter {
  /// "weight", "bias"; in files, prefixed with the layer's place: "layers.0.weight".
  public internal(set) var name: String
  /// Convolution weights are (FH, FW, C, F), dense weights (outputs, inputs).
  public let shape: [Int]
  /// How the values start, and what each output sums over and each input goes into.
  public let initializer: Initializer
  public let fanIn, fanOut: Int
  /// False for what is saved with the weights but not learned by descent: running statistics.
  public let isTrained: Bool

  /// The values; `count` of them. Valid while the network is built.
  public internal(set) var value: UnsafeMutablePointer<Float>
  /// The gradient; a layer's backward pass overwrites it.
  public internal(set) var gradient: UnsafeMutablePointer<Float>
  /// What the optimiser remembers: of steps, and of gradients' squares if it does. Valid while the
  /// network is trained.
  var velocity, square: UnsafeMutablePointer<Float>

  public init(
    _ name: String, shape: [Int], _ initializer: Initializer, fanIn: Int = 1, fanOut: Int = 1,
    isTrained: Bool = true
  ) {
    self.name = name
    self.shape = shape
    self.initializer = initializer
    self.fanIn = fanIn
    self.fanOut = fanOut
    self.isTrained = isTrained
    // What a parameter points to before the network has given it memory.
    let unbound = UnsafeMutablePointer<Float>(bitPattern: 64)!
    value = unbound
    gradient = unbound
    velocity = unbound
    square = unbound
  }

  public var count: Int { shape.reduce(1, *) }
}

/// What all layers have in common. To write one's own, override ``build(for:runtime:)``,
/// ``forward(_:_:_:)``, ``backward(_:_:_:_:_:)`` and, if it learns, ``parameters``.
///
/// The network owns the memory of activations and gradients and hands it in; a layer keeps what
/// else it needs between the passes.
open class Layer {
  public init() {}

  /// The trained arrays, in the order in which they are saved.
  open var parameters: [Parameter] { [] }

  /// The layer as `--layers` has it: "conv(32,3)". It is saved with the weights.
  open var text: String { String(describing: type(of: self)).lowercased() }

  /// Learns the size of one example of the input, makes the parameters and gives the output's size.
  /// - Throws: ``StrideNetError`` if the layer can't take that input
  open func build(for input: Shape, runtime: Runtime) throws -> Shape { input }

  /// Called before the first step and whenever the batch grows: the place to allocate, enough for
  /// all batches of up to `batch` examples.
  open func reserve(batch: Int, input: Shape, output: Shape, runtime: Runtime) throws {}

  /// The same for a layer that is made of others.
  func reserve(batch: Int, input: Shape, output: Shape, runtime: Runtime, training: Bool) throws {
    try reserve(batch: batch, input: input, output: output, runtime: runtime)
  }

  /// Computes the output `y` from the input `x`; both hold the same number of examples.
  open func forward(_ x: TensorView, _ y: TensorView, _ pass: Pass) {
    fatalError("\(type(of: self)) doesn't override forward")
  }

  /// From the upstream gradient `dy` (as large as `y`; it may be overwritten) computes the
  /// gradient `dx` (as large as `x`; nil where nobody needs it, below the first layer), and
  /// overwrites each parameter's gradient. `x` and `y` are those of the last forward pass.
  /// The loss is a mean over the batch, so gradients are sums over it of what comes in.
  open func backward(
    _ x: TensorView, _ y: TensorView, _ dy: TensorView, _ dx: TensorView?, _ pass: Pass
  ) {
    fatalError("\(type(of: self)) doesn't override backward")
  }

  /// The layers that this one is made of, if it is.
  open var inner: [Layer] { [] }

  /// Its place among all layers of the network, those inside others included.
  final var number = 0

  /// The layer as it is used where nothing is trained, beside the one that is: a copy with the same
  /// parameters where a layer keeps something that depends on its neighbours or on training.
  var forInference: Layer { self }

  /// Called before passes in which nothing is trained, whenever the weights may have changed.
  func prepareInference() throws {}

  /// What a pass computes and moves, for ``Explanation``; nil where the layer has no such pass.
  /// Layers from outside have two, all arrays read or written once.
  func cost(_ pass: LayerPass, _ input: Shape, _ output: Shape, _ runtime: Runtime) -> PassCost? {
    let arrays = pass == .forward ? 1 : 2
    guard pass == .forward || pass == .backward else { return nil }
    return PassCost(
      kernel: "own", why: PassCost.onlyKernel, inputs: Double(arrays * input.count),
      outputs: Double(arrays * output.count),
      weights: arrays * parameters.reduce(0) { $0 + $1.count })
  }

  /// True where the backward pass also applies the pass' update to the parameters, piece by piece
  /// while their gradient is in the cache.
  var updatesInBackward: Bool { false }

  /// True where the output is the input's memory read under another shape: then neither pass is
  /// called.
  open var onlyReshapes: Bool { false }

  /// The activation that the layer ends in; a network that is trained as a classifier must end in
  /// softmax, which is computed with the loss.
  open var finalActivation: Activation { .none }

  /// Set by the network on its last layer: leave logits as they are, and take their gradient.
  public internal(set) final var leavesSoftmaxToLoss = false
}

/// What a pass is for and with what it computes.
public struct Pass {
  public let runtime: Runtime
  /// False for evaluation and prediction: nothing need be kept for a backward pass.
  public let training: Bool
  /// The network's seed and the number of the training step: what is drawn in a pass depends on
  /// them alone.
  public var seed: UInt64 = 0
  public var step = 0
  /// What a training step does with gradients.
  var update: Update?
  /// Nil unless somebody explains.
  var times: PassTimes?
}
