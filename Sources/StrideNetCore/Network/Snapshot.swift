import Foundation

/// The weights of a network at one moment. It shares memory with the network until that trains on,
/// so taking one and dropping it costs nothing.
public struct Snapshot: Sendable {
  package let storage: FloatStorage
  /// Name and shape of each array, in the order of ``values``.
  package let parameters: [(name: String, shape: [Int])]

  /// All weights, one parameter after the other.
  public var values: [Float] {
    Array(UnsafeBufferPointer(start: storage.pointer, count: storage.count))
  }
}

extension Snapshot: Equatable {
  /// The same parameters, bit for bit.
  public static func == (a: Self, b: Self) -> Bool {
    a.parameters.elementsEqual(b.parameters, by: ==)
      && memcmp(a.storage.pointer, b.storage.pointer, 4 * a.storage.count) == 0
  }
}

extension Network {
  /// The weights as they are now.
  public func snapshot() -> Snapshot { Snapshot(storage: weights, parameters: parameterList) }

  /// Puts weights back; momentum starts anew.
  /// - Throws: ``StrideNetError`` if they are of another network, or this one isn't built
  public func restore(_ snapshot: Snapshot) throws {
    guard snapshot.parameters.map(\.shape) == parameterList.map(\.shape), input != nil else {
      func text(_ arrays: [(name: String, shape: [Int])]) -> String {
        arrays.map { "\($0.name) \($0.shape.map(String.init).joined(separator: "×"))" }
          .joined(separator: ", ")
      }
      throw StrideNetError(
        .usage, "a snapshot of another network", found: text(snapshot.parameters),
        expected: input == nil ? "a network that has been built" : text(parameterList))
    }
    exclusively {
      weights = snapshot.storage
      isReady = false
      point(parameters)
      forgetSteps()
      average = nil
    }
  }

  func forgetSteps() {
    for array in memory { array.pointer.update(repeating: 0, count: array.count) }
    updateCount = 0
  }

  /// Takes over what some layers of another network have learned; the layers must be of the same
  /// kinds and sizes in both.
  /// - Throws: ``StrideNetError`` naming the first layer that differs
  public func copyWeights(from other: Network, layers range: Range<Int>) throws {
    guard input != nil, other.input != nil, range.lowerBound >= 0,
      range.upperBound <= min(layers.count, other.layers.count)
    else {
      throw StrideNetError(
        .usage, "no such layers in both networks", found: "\(range)",
        expected: "layers of networks that have been built")
    }
    for index in range {
      let (mine, its) = (stages[index].parameters, other.stages[index].parameters)
      guard mine.map(\.shape) == its.map(\.shape) else {
        throw StrideNetError(
          .badData, "layers that differ", at: "layer \(index + 1)", found: other.layers[index].text,
          expected: layers[index].text)
      }
    }
    try ownWeights()
    for index in range {
      for (mine, its) in zip(stages[index].parameters, other.stages[index].parameters) {
        mine.value.update(from: its.value, count: mine.count)
      }
    }
  }

  // MARK: Weights by name

  private func parameter(_ name: String) throws -> Parameter {
    guard let parameter = parameters.first(where: { $0.name == name }) else {
      throw StrideNetError(
        .usage, "no array of that name", found: "'\(name)'",
        expected: parameters.isEmpty
          ? "a network that has been built" : parameters.map(\.name).joined(separator: ", "))
    }
    return parameter
  }

  /// The names and shapes of what is learned or remembered of training, in the order of files; empty
  /// until built.
  public var arrays: [(name: String, shape: [Int])] { parameterList }

  /// The values of one array: "layers.0.weight".
  /// - Throws: ``StrideNetError`` with the names that there are
  public func weights(_ name: String) throws -> [Float] { try parameter(name).values }

  /// The gradient of one array in the last training step.
  /// - Throws: ``StrideNetError`` with the names that there are
  public func gradient(_ name: String) throws -> [Float] {
    let parameter = try parameter(name)
    return Array(UnsafeBufferPointer(start: parameter.gradient, count: parameter.count))
  }

  /// Overwrites one array.
  /// - Throws: ``StrideNetError`` with the names that there are, or the number of values
  public func setWeights(_ name: String, _ values: [Float]) throws {
    let parameter = try parameter(name)
    guard values.count == parameter.count else {
      throw StrideNetError(
        .usage, "another number of values than the array has", at: name,
        found: "\(values.count)",
        expected: parameter.shape.map(String.init).joined(separator: "×") + ", \(parameter.count)")
    }
    try exclusively {
      try ownWeights()
      parameter.value.update(from: values, count: values.count)
    }
  }

  /// Overwrites all weights with arrays given by name.
  package func setWeights(_ values: (_ name: String) -> [Float]) throws {
    try ownWeights()
    for (parameter, entry) in zip(parameters, parameterList) {
      let new = values(entry.name)
      precondition(new.count == parameter.count)
      parameter.value.update(from: new, count: new.count)
    }
  }

  /// The gradient of the last training step, one parameter after the other, as in
  /// ``Snapshot/values``.
  public var lastGradient: [Float] {
    Array(UnsafeBufferPointer(start: gradients.pointer, count: gradients.count))
  }
}

extension Network {
  /// What a training needs to go on as if it had never stopped, beside the weights.
  package struct TrainingState {
    package var stepCount, updateCount: Int
    /// What the optimiser remembers, each array as large as the weights.
    package var memory: [[Float]]
    /// As large as the weights, or empty where there is none.
    package var average: [Float]

    package init(stepCount: Int, updateCount: Int, memory: [[Float]], average: [Float]) {
      (self.stepCount, self.updateCount) = (stepCount, updateCount)
      (self.memory, self.average) = (memory, average)
    }
  }

  /// What the optimiser remembers, each array as large as the weights. Where several processes train
  /// together, all of them call this.
  private func allMemory() throws -> [[Float]] {
    guard let exchange, isMemoryDivided else {
      return memory.map { Array(UnsafeBufferPointer(start: $0.pointer, count: $0.count)) }
    }
    let all = memory.map { exchange.gather($0.pointer, parameters) }
    if let failure = exchange.failure { throw failure }
    return all
  }

  /// Each of several processes remembers what it takes to update its part of the weights, unless all
  /// update all.
  func divideMemory(_ optimizer: Optimizer) throws {
    guard let exchange, isMemoryDivided != (optimizer.clipNorm == nil) else { return }
    let all = try allMemory()
    isMemoryDivided.toggle()
    for parameter in parameters {
      parameter.updated = isMemoryDivided ? exchange.part(of: parameter) : .all
    }
    let count = parameters.reduce(0) { $0 + $1.updated.count(of: $1.count) }
    memory = try all.map { all in
      let own = try FloatStorage(count: count)
      var (offset, to) = (0, own.pointer)
      all.withUnsafeBufferPointer { all in
        for parameter in parameters {
          parameter.updated.forEachRun(of: parameter.count) { index, place, count in
            (to + place).update(from: all.baseAddress! + offset + index, count: count)
          }
          offset += parameter.count
          to += parameter.updated.count(of: parameter.count)
        }
      }
      return own
    }
    point(parameters)
  }

  func trainingState() throws -> TrainingState {
    TrainingState(
      stepCount: stepCount, updateCount: updateCount, memory: try allMemory(),
      average: average.map { Array(UnsafeBufferPointer(start: $0.pointer, count: $0.count)) } ?? [])
  }

  func goOn(from state: TrainingState) throws {
    let memory = try state.memory.map { try FloatStorage($0) }
    isMemoryDivided = false
    for parameter in parameters { parameter.updated = .all }
    average = state.average.isEmpty ? nil : try FloatStorage(state.average)
    (stepCount, updateCount) = (state.stepCount, state.updateCount)
    self.memory = memory
    method = nil
    point(parameters)
  }

  /// A snapshot of these values.
  package func snapshot(of values: [Float]) throws -> Snapshot {
    Snapshot(storage: try FloatStorage(values), parameters: parameterList)
  }

  static var unbuilt: StrideNetError {
    StrideNetError(
      .usage, "a network without weights can't be copied",
      hint: "train it, or build it for an input, first")
  }

  /// Another network of the same layers with the same weights, in memory of its own; momentum starts
  /// anew there.
  /// - Throws: ``StrideNetError`` where there isn't so much memory, or if it isn't built
  public func copy() throws -> Network {
    guard let input else { throw Self.unbuilt }
    let copy = Network(layers, seed: seed, runtime: runtime)
    (copy.loss, copy.normalization) = (loss, normalization)
    copy.targetNormalization = targetNormalization
    copy.classWeights = classWeights
    (copy.classNames, copy.pictureFit) = (classNames, pictureFit)
    try copy.build(for: input)
    copy.stepCount = stepCount
    try copy.restore(snapshot())
    try copy.ownWeights()
    return copy
  }
}
