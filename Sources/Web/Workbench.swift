import Foundation
import StrideNetCore

/// What the page of `serve` looks into: a network, its data, and a training that may be under way.
/// One question at a time; each is answered by the kernels that train, and none before it is known that
/// the memory that it takes is there.
package final class Workbench {
  let data: Dataset
  let threads: Int
  let classNames: (Int) -> [String]
  let presets: [String: String]
  /// How drawings become images.
  let fit: Picture.Fit?
  let original: (text: String, weights: Snapshot)
  /// Of all networks here: they are of the same images.
  let normalization: InputNormalization?
  private(set) var text: String
  private(set) var weights: Snapshot
  // The network as each kernel variant runs it: which weights it has, and the largest batch so far.
  private var networks: [String: (network: Network, generation: Int, batch: Int)] = [:]
  private var needs: [String: NetworkNeed] = [:]
  private(set) var generation = 0
  // Of this process, and of its networks so far: a number that no other start has.
  private let start = UInt64.random(in: .min ... .max)
  private var exchanges = 0
  /// Which network there is, whatever its weights are by now: another one, also one of another start of
  /// the server, has another version.
  var version: String { "\(String(start, radix: 36))-\(exchanges)" }
  var session: Session?
  // One that nobody asks about any more, until it is over.
  var ending: Session?
  // What the last hidden layer makes of the training images, for weights of some generation.
  var features: (generation: Int, values: [Float])?
  /// The weights before each step that was made from an image.
  var undone: [Snapshot] = []
  let memory: Double
  private let base: Double
  /// Bytes that others in the process keep.
  package var held = 0

  /// - Parameters:
  ///   - network: built, with its weights
  ///   - threads: that train
  ///   - memory: bytes that the process may take in all
  ///   - presets: layers of other networks to choose from, by their names
  ///   - fit: how drawings become images, instead of the way that the network was trained with
  ///   - classNames: what so many classes are called
  /// - Throws: ``StrideNetError`` if the data and the network alone take more
  package init(
    _ network: Network, _ data: Dataset, threads: Int, memory: Double, presets: [String: String],
    fit: Picture.Fit? = nil, classNames: @escaping (Int) -> [String]
  ) throws {
    (self.data, self.threads) = (data, threads)
    (self.presets, self.classNames) = (presets, classNames)
    self.fit = fit ?? network.pictureFit
    (text, weights) = (Architecture.text(network.layers), network.snapshot())
    original = (text, weights)
    normalization = network.normalization
    self.memory = memory
    // The program, its threads and what the allocator keeps; the images, a byte each; and the network
    // that the page begins with.
    base =
      128e6 + 4 * Double(original.weights.count)
      + [data.train, data.test].reduce(0) { $0 + Double($1.pixels.count + $1.labels.count) }
    try checkMemory(bytes(KernelChoice.bound.name, batch: 1), "more than --memory allows", .usage)
  }

  // MARK: Memory

  /// Answers take a value of a layer as a float twice, and its text as often while JSON is made of it.
  static let bytesAnAnswer = 40.0
  /// A path to a value below: a product, its place in a dictionary, an edge; for eight values above.
  static let bytesAPath = 1600.0

  func need(_ kernels: String) throws -> NetworkNeed {
    if let need = needs[kernels] { return need }
    let need = try NetworkNeed(
      of: Architecture.layers(text), for: data.train.shape, kernels: KernelChoice(named: kernels))
    needs[kernels] = need
    return need
  }

  /// What the network takes that runs with these kernels, and the weights that it may have alone.
  private func bytes(_ kernels: String, batch: Int) throws -> Double {
    let need = try need(kernels)
    return need.bytesToPredict(batch) + 4 * need.parameters
  }

  func bytesHeld(without kernels: String? = nil) -> Double {
    let networks = networks.filter { $0.key != kernels }.reduce(0.0) {
      $0 + ((try? bytes($1.key, batch: $1.value.batch)) ?? 0)
    }
    let sessions = [session, ending].compactMap { $0 }.reduce(0.0) {
      $0 + $1.filmBytes + ($1.isRunning ? $1.bytes : 0)
    }
    return base + Double(held) + networks + sessions + 4
      * Double(weights.count * (1 + undone.count))
      + 4 * Double(features?.values.count ?? 0)
  }

  func checkMemory(
    _ needed: Double, without kernels: String? = nil, _ what: String,
    _ kind: StrideNetError.Kind = .badData
  ) throws {
    // What is kept only to be quicker makes room.
    if bytesHeld(without: kernels) + needed > memory { features = nil }
    if bytesHeld(without: kernels) + needed > memory {
      networks = networks.filter { $0.key == kernels }
    }
    let taken = bytesHeld(without: kernels)
    guard taken + needed <= memory else {
      func gigabytes(_ bytes: Double) -> String { String(format: "%.2f GB", bytes / 1e9) }
      throw StrideNetError(
        kind, what, found: gigabytes(needed),
        expected: "at most \(gigabytes(max(0, memory - taken))) of \(gigabytes(memory))",
        hint: "a smaller network or batch, or stridenet serve --memory with more")
    }
  }

  /// The largest number of images, up to `most`, that there is memory for.
  func images(_ most: Int, kernels: String, besides: (Int) throws -> Double) throws -> Int {
    var count = most
    while true {
      let needed = try bytes(kernels, batch: count) + besides(count)
      if count == 1 || bytesHeld(without: kernels) + needed <= memory { return count }
      count = (count + 1) / 2
    }
  }

  // MARK: Networks

  /// - Parameters:
  ///   - batch: how many images it is to see at a time
  ///   - besides: bytes that the question takes for other things
  func network(_ kernels: String? = nil, batch: Int = 1, besides: Double) throws -> Network {
    if let latest = session?.takeWeights() {
      weights = latest
      generation += 1
    }
    let name = kernels ?? KernelChoice.bound.name
    let largest = max(batch, networks[name]?.batch ?? 0)
    do {
      try checkMemory(bytes(name, batch: largest) + besides, without: name, Self.tooMuch)
      networks[name]?.batch = largest
    } catch  where largest > batch {
      // It may still have room for more images than are asked for now.
      networks[name] = nil
      try checkMemory(bytes(name, batch: batch) + besides, without: name, Self.tooMuch)
    }
    if let (network, has, _) = networks[name] {
      if has != generation {
        try network.restore(weights)
        networks[name]!.generation = generation
      }
      return network
    }
    // One image is no work for several threads.
    let runtime = Runtime(threads: 1, kernels: try KernelChoice(named: name))
    let network = Network(try Architecture.layers(text), runtime: runtime)
    network.normalization = normalization
    try network.build(for: data.train.shape)
    try network.restore(weights)
    networks[name] = (network, generation, batch)
    return network
  }

  static let tooMuch = "a question that takes too much memory"

  func exchange(_ text: String, _ weights: Snapshot) {
    (self.text, self.weights) = (text, weights)
    (networks, needs) = ([:], [:])
    (features, undone) = (nil, [])
    generation += 1
    exchanges += 1
  }

  /// Other weights of the same network.
  func adopt(_ weights: Snapshot) {
    self.weights = weights
    generation += 1
  }
}

extension Snapshot {
  fileprivate var count: Int { parameters.reduce(0) { $0 + $1.shape.reduce(1, *) } }
}
