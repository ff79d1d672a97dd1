import CKernels
import Foundation
import Testing

import StrideNet
@testable import StrideNetCore

/// Values in [-0.5, 0.5) that the generator of the stored expectations makes too; see generate.py.
func value(_ i: Int, _ salt: Int) -> Float {
  var u = UInt32(truncatingIfNeeded: i &* 2_654_435_761 &+ salt &* 40503 &+ 12345)
  u ^= u >> 16
  u = u &* 0x45d9f3b
  u ^= u >> 16
  return Float(u >> 8) / 16_777_216 - 0.5
}

func values(_ count: Int, _ salt: Int) -> [Float] { (0..<count).map { value($0, salt) } }

/// The instruction set under test: the best there is, or STRIDENET_ISA.
let testedInstructionSet: String = {
  if let name = ProcessInfo.processInfo.environment["STRIDENET_ISA"] {
    do { try KernelChoice.select(instructionSet: name) } catch { fatalError("\(error)") }
  }
  return KernelChoice.instructionSet
}()

/// Stored results of PyTorch, beside the script that made them.
func expectations<T: Decodable>(_ type: T.Type, _ file: String) throws -> T {
  let folder = URL(filePath: #filePath).deletingLastPathComponent()
  return try JSONDecoder().decode(
    type, from: Data(contentsOf: folder.appending(path: "Expectations/\(file)")))
}

/// Memory with guard zones: filled with a pattern that is no number, so that an element that was
/// never written shows, and so does one written past either end.
final class Guarded<Element: BitwiseCopyable> {
  private static var zone: Int { 64 }
  private let memory: UnsafeMutableRawBufferPointer
  let count: Int
  private static var pattern: UInt8 { 0xFF }  // a NaN as float, 65,535 as a place

  init(_ count: Int) {
    self.count = count
    memory = .allocate(
      byteCount: (count + 2 * Self.zone) * MemoryLayout<Element>.stride, alignment: 64)
    memory.initializeMemory(as: UInt8.self, repeating: Self.pattern)
  }

  convenience init(_ values: [Element]) {
    self.init(values.count)
    pointer.update(from: values, count: values.count)
  }

  deinit { memory.deallocate() }

  var pointer: UnsafeMutablePointer<Element> {
    memory.baseAddress!.assumingMemoryBound(to: Element.self) + Self.zone
  }

  var values: [Element] { Array(UnsafeBufferPointer(start: pointer, count: count)) }

  var guardsHold: Bool {
    let bytes = Self.zone * MemoryLayout<Element>.stride
    return memory.prefix(bytes).allSatisfy { $0 == Self.pattern }
      && memory.suffix(bytes).allSatisfy { $0 == Self.pattern }
  }
}

/// The worst element against a bound; an element that isn't a number never passes.
func expectClose(
  _ found: [Float], _ expected: [Float], within bound: Float, _ what: @autoclosure () -> String,
  sourceLocation: SourceLocation = #_sourceLocation
) {
  guard found.count == expected.count else {
    Issue.record(
      "\(what()): \(found.count) values, expected \(expected.count)",
      sourceLocation: sourceLocation)
    return
  }
  var worst = (index: 0, error: Float(-1))
  for i in found.indices {
    let error = abs(found[i] - expected[i])
    if !(error <= worst.error) { worst = (i, error) }
    if error.isNaN { break }
  }
  if !(worst.error <= bound) && !found.isEmpty {
    Issue.record(
      """
      \(what()): element \(worst.index) is \(found[worst.index]), expected \
      \(expected[worst.index]); off by \(worst.error), bound \(bound)
      """, sourceLocation: sourceLocation)
  }
}

/// What the rounding of a sum of `terms` products of values in ±0.5 may come to: each addition
/// rounds by half an epsilon of a partial sum that grows with the square root of their number.
func roundingBound(_ terms: Int) -> Float { Float.ulpOfOne * 0.25 * Float(terms + 8) }

/// One layer at work on memory that a test gives it.
final class LayerUnit {
  let network: Network
  /// In training, and where nothing is trained.
  private let nodes: [Bool: Node]
  var runtime: Runtime { network.runtime }
  var parameters: [Parameter] { network.stages[0].parameters }
  var output: Shape { network.shapes[0] }

  init(
    _ layer: any Layer, _ input: Shape, batch: Int, seed: UInt64 = 1, runtime: Runtime = Runtime()
  ) throws {
    network = Network([layer], seed: seed, runtime: runtime)
    try network.build(for: input)
    let operation = network.stages[0].operations[0]
    var nodes: [Bool: Node] = [:]
    for training in [true, false] {
      let plan = Plan([operation], input, runtime, training: training, fusing: false)
      let node = plan.nodes[0]!
      try node.reserve(
        batch: batch, input: input, output: operation.output, runtime: runtime, training: training)
      nodes[training] = node
    }
    self.nodes = nodes
  }

  func forward(
    _ x: TensorView, _ y: TensorView, training: Bool = true, seed: UInt64 = 0, step: Int = 0
  ) throws {
    let node = nodes[training]!
    if !training { try node.prepareInference() }
    node.forward(
      x, y,
      Pass(
        runtime: runtime, training: training, seed: seed, step: step, share: BatchShare(x.batch)))
  }

  func backward(
    _ x: TensorView, _ y: TensorView, _ dy: TensorView, _ dx: TensorView?, seed: UInt64 = 0,
    step: Int = 0
  ) {
    nodes[true]!.backward(
      x, y, dy, dx,
      Pass(
        runtime: runtime, training: true, seed: seed, step: step, share: BatchShare(x.batch)))
  }

  func cost(_ pass: LayerPass) -> PassCost? {
    nodes[true]!.cost(pass, network.input!, output, runtime)
  }
}
