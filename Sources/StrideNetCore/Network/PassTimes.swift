import Dispatch

/// What a layer does in a training step.
package enum LayerPass: Int, CaseIterable {
  case forward
  /// From the gradient of the output to that of what the activation was applied to, where no other
  /// pass does it along the way.
  case activationGradient
  case inputGradient, weightGradient
  /// The whole backward pass, of layers that don't tell its parts apart.
  case backward

  package var name: String {
    switch self {
    case .forward: "forward"
    case .activationGradient: "activation gradient"
    case .inputGradient: "input gradient"
    case .weightGradient: "weight gradient"
    case .backward: "backward"
    }
  }
}

/// A stopwatch for training steps. The calling thread takes laps: each begins where the last one
/// ended, so that no time is lost in between, and goes to the row of what was just done. Where
/// layers run together, each worker times its own pieces, and the calling thread's lap over all of
/// them, waiting included, is divided among the rows as the workers' times are.
///
/// A network that nobody explains has none, and its steps read no clock.
package final class PassTimes: @unchecked Sendable {
  // Sendable because a worker writes to its own slot alone, and the calling thread reads the slots
  // when the workers are done.

  package enum Row {
    case gather, loss, update
    /// Between the steps: progress, the loop itself.
    case other
    case layer(Int, LayerPass)

    var index: Int {
      switch self {
      case .gather: 0
      case .loss: 1
      case .update: 2
      case .other: 3
      case .layer(let layer, let pass): 4 + layer * LayerPass.allCases.count + pass.rawValue
      }
    }
  }

  /// The operation at work; the first of those that run together.
  var layer = 0
  /// What the steps update with.
  package var optimizer = Optimizer()
  package private(set) var steps = 0
  package private(set) var images = 0
  private var nanoseconds: [Double]
  private var lapStart = PassTimes.now

  // A slot a worker: when its current pass began, then what it spent in each pass of each layer from
  // the first on that run together. Multiples of 128 bytes, so that no two workers write to the same
  // cache line, nor to the one beside it, which processors fetch along.
  private let workers: Int
  private let slots: UnsafeMutablePointer<UInt64>
  private let slotSize: Int

  init(operations: Int, workers: Int) {
    nanoseconds = [Double](repeating: 0, count: Row.layer(operations, .forward).index)
    self.workers = workers
    slotSize = (1 + operations * LayerPass.allCases.count).roundedUp
    let bytes = workers * slotSize * 8
    let raw = UnsafeMutableRawPointer.allocate(byteCount: bytes, alignment: 128)
    slots = raw.bindMemory(to: UInt64.self, capacity: bytes / 8)
    slots.initialize(repeating: 0, count: bytes / 8)
  }

  deinit { UnsafeMutableRawPointer(slots).deallocate() }

  private static var now: UInt64 { DispatchTime.now().uptimeNanoseconds }

  // MARK: The calling thread

  /// Forgets the time since the last lap: that of an evaluation.
  package func skip() { lapStart = Self.now }

  func lap(_ row: Row) { nanoseconds[row.index] += endLap() }

  /// A lap of the layer at work.
  func lap(_ pass: LayerPass) { lap(.layer(layer, pass)) }

  func countStep(of images: Int) {
    steps += 1
    self.images += images
  }

  private func endLap() -> Double {
    let now = Self.now
    defer { lapStart = now }
    return Double(now - lapStart)
  }

  /// Divides the lap over pieces that the workers have timed.
  func lapOfPieces() {
    let lap = endLap()
    let places = (0..<workers * slotSize).lazy.filter { [slotSize] in $0 % slotSize != 0 }
    let sum = places.reduce(0) { $0 + slots[$1] }
    for place in places where slots[place] > 0 {
      let row = Row.layer(layer, .forward).index + place % slotSize - 1
      nanoseconds[row] += lap * Double(slots[place]) / Double(sum)
      slots[place] = 0
    }
  }

  // MARK: Workers

  func startPiece(_ worker: Int) { slots[worker * slotSize] = Self.now }

  /// - Parameter link: how far behind the first of the layers that run together the layer comes
  func lapInPiece(_ pass: LayerPass, link: Int, _ worker: Int) {
    let slot = slots + worker * slotSize
    let now = Self.now
    slot[1 + link * LayerPass.allCases.count + pass.rawValue] += now - slot[0]
    slot[0] = now
  }

  // MARK: Results

  /// Seconds a step.
  package func mean(_ row: Row) -> Double { nanoseconds[row.index] / 1e9 / Double(steps) }

  /// Seconds a step, all told.
  package var mean: Double { nanoseconds.reduce(0, +) / 1e9 / Double(steps) }
}

/// What a pass computes with, computes and moves.
package struct PassCost {
  package var kernel: String
  /// The one that does the max-pooling behind it, too, where there is one.
  package var pooledKernel: String?
  /// Whether it also updates the weights, by the optimiser's kernel.
  package var updates = false
  package let why: String
  /// For one image.
  package var operations = 0.0
  /// Floats an image in arrays of the input's size, in those of the output's size, and floats that
  /// don't depend on the number of images.
  package var inputs = 0.0, outputs = 0.0
  package var weights = 0

  package static let onlyKernel = "the only one"
}
