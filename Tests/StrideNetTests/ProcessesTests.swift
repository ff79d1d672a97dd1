import Foundation
import Testing

@testable import StrideNetCore
@testable import StrideNetFiles
@testable import StrideNetLaboratory

/// Processes as threads of this one: what they send each other waits in a box for each pair and call.
/// Messages arrive late, in an order drawn from a seed, or never.
final class Crowd: @unchecked Sendable {
  // Sendable: everything that changes is behind the lock.
  final class Member: Communicator, @unchecked Sendable {
    // Sendable: one thread uses it.
    let (rank, crowd): (Int, Crowd)
    private var calls = 0
    private var pending: [Int: [ProcessMessage]] = [:]
    private var sums: [Int: UnsafeMutableBufferPointer<Float>] = [:]

    init(_ rank: Int, _ crowd: Crowd) { (self.rank, self.crowd) = (rank, crowd) }
    var size: Int { crowd.size }

    func begin(_ messages: [ProcessMessage]) -> Int {
      calls += 1
      crowd.send(messages, from: rank, calls)
      pending[calls] = messages
      return calls
    }

    func beginSum(_ values: UnsafeMutableBufferPointer<Float>) -> Int {
      // Everybody's values go to everybody; the order is that of the ranks from one's own on.
      calls += 1
      let bytes = UnsafeRawBufferPointer(values)
      let empty = UnsafeMutableRawBufferPointer(start: nil, count: 0)
      crowd.send(
        (0..<size).filter { $0 != rank }.map {
          ProcessMessage(peer: $0, sent: bytes, received: empty)
        },
        from: rank, calls)
      sums[calls] = values
      return calls
    }

    func finish(_ number: Int) throws {
      if let values = sums.removeValue(forKey: number) {
        var total = [[UInt8](UnsafeRawBufferPointer(values))]
        for peer in (0..<size) where peer != rank {
          total.append(try crowd.receive(from: peer, to: rank, number).joined().map { $0 })
        }
        // In the ranks' order, the same for all.
        total.insert(total.removeFirst(), at: rank)
        let floats = total.map { $0.withUnsafeBytes { Array($0.bindMemory(to: Float.self)) } }
        for i in values.indices { values[i] = floats.reduce(0) { $0 + $1[i] } }
        return
      }
      guard let messages = pending.removeValue(forKey: number) else { return }
      for peer in Set(messages.map(\.peer)) {
        let parts = try crowd.receive(from: peer, to: rank, number)
        let places = messages.filter { $0.peer == peer }.map(\.received)
        precondition(parts.map(\.count) == places.map(\.count), "messages of other sizes")
        for (part, place) in zip(parts, places) { place.copyBytes(from: part) }
      }
    }

    func poll() {}
    func abort(_ reason: any Error) -> Never { fatalError("\(reason)") }
  }

  let size: Int
  private let lock = NSCondition()
  private var boxes: [[Int]: (parts: [[UInt8]], due: Date)] = [:]
  private let (delays, drops, patience): (Bool, (Int, Int)?, Double)
  private var random: SeededGenerator

  /// - Parameters:
  ///   - drops: the rank and the number of a call whose messages get lost
  init(
    _ size: Int, delays: Bool = false, drops: (Int, Int)? = nil, patience: Double = 60,
    seed: UInt64 = 1
  ) {
    (self.size, self.delays, self.drops, self.patience) = (size, delays, drops, patience)
    random = SeededGenerator(seed: seed, stream: 77)
  }

  fileprivate func send(_ messages: [ProcessMessage], from rank: Int, _ number: Int) {
    if let drops, drops == (rank, number) { return }
    lock.lock()
    for peer in Set(messages.map(\.peer)) {
      let wait = delays ? Double(random.below(3000)) * 1e-6 : 0
      boxes[[rank, peer, number]] = (
        messages.filter { $0.peer == peer }.map { [UInt8]($0.sent) }, Date() + wait
      )
    }
    lock.broadcast()
    lock.unlock()
  }

  fileprivate func receive(from peer: Int, to rank: Int, _ number: Int) throws -> [[UInt8]] {
    let end = Date() + patience
    lock.lock()
    defer { lock.unlock() }
    while true {
      if let box = boxes[[peer, rank, number]] {
        if box.due <= Date() {
          boxes[[peer, rank, number]] = nil
          return box.parts
        }
        lock.wait(until: box.due)
      } else if Date() > end {
        throw StrideNetError(
          .badData, "a process that doesn't answer", found: "nothing from process \(peer)",
          expected: "a message within \(patience) s")
      } else {
        lock.wait(until: end)
      }
    }
  }

  /// Does the same in all processes and gives what each returns.
  func run<R: Sendable>(_ body: @escaping @Sendable (Member) throws -> R) -> [Result<R, any Error>]
  {
    let results = Results<R>(size)
    let threads = (0..<size).map { rank in
      let thread = Thread { results.set(rank, Result { try body(Member(rank, self)) }) }
      thread.stackSize = 8 << 20
      thread.start()
      return thread
    }
    while !threads.allSatisfy(\.isFinished) { usleep(500) }
    return results.all
  }

  private final class Results<R>: @unchecked Sendable {
    private let lock = NSLock()
    private var values: [Result<R, any Error>?]
    init(_ count: Int) { values = Array(repeating: nil, count: count) }
    func set(_ index: Int, _ value: Result<R, any Error>) {
      lock.withLock { values[index] = value }
    }
    var all: [Result<R, any Error>] { lock.withLock { values.map { $0! } } }
  }
}

/// Training shared out over processes: the same weights, bit for bit, for any number of them.
@Suite struct ProcessesTests {
  struct Case: Sendable, CustomTestStringConvertible {
    let text: String
    var optimizer = Optimizer(.sgd, momentum: 0.9)
    var clipNorm: Float?
    var average: Float?
    var augmentation: String?
    var weights: [Float]?
    var precision: Precision = .float32
    var images = 150
    var batch = 64
    var testDescription: String { "\(text) \(optimizer.method.rawValue) \(batch)" }
  }

  static let cases: [Case] = [
    Case(text: "conv(4,3) maxpool(2) flatten relu(30) softmax(10)"),
    Case(
      text:
        "conv(8,3,activation=none) batchnorm(activation=relu) conv(8,3,padding=1,activation=none) "
        + "batchnorm(activation=relu) maxpool(2) dropout(0.3) flatten softmax(10)",
      optimizer: Optimizer(.adam), average: 0.99, augmentation: "shift=2,rotate=10"),
    Case(
      text: "conv(6,5,stride=2) residual(conv(6,3,padding=1,activation=none) batchnorm) "
        + "activation(relu) conv(12,3) globalavgpool flatten layernorm softmax(10)",
      optimizer: Optimizer(.adamw), images: 101, batch: 33),
    Case(
      text: "conv(16,3) maxpool(2) flatten relu(64) softmax(10)",
      optimizer: Optimizer(.sgd, momentum: 0.9, weightDecay: 1e-3), clipNorm: 0.5,
      weights: (0..<10).map { 0.5 + Float($0) / 10 }, images: 70, batch: 24),
    Case(
      text: "conv(150,3,stride=2) conv(150,3,stride=2) maxpool(2) flatten softmax(10)",
      images: 40, batch: 20),
    Case(
      text: "conv(8,3) maxpool(2) conv(8,3) flatten relu(40) softmax(10)", precision: .bf16,
      images: 100, batch: 50),
    // Statistics of one image at a time, and more processes than leaves.
    Case(
      text:
        "conv(130,3,padding=same,activation=none) batchnorm(activation=relu) maxpool(4) flatten "
        + "softmax(10)", images: 127, batch: 127),
    Case(
      text: "flatten gelu(50) softmax(10)", optimizer: Optimizer(.rmsprop), images: 23, batch: 7),
  ]

  private static func train(
    _ test: Case, _ communicator: (any Communicator)? = nil, threads: Int = 1, fast: Bool = false,
    prepare: (Trainer) throws -> Void = { _ in }
  ) throws -> (sha: String, cce: [Float], weights: [Float], memory: [[Float]]) {
    let sample = try NetworkTests.sample.get()
    let data = try Dataset(
      name: "sample", source: "sample", train: sample.train.prefix(test.images),
      test: sample.test.prefix(300))
    let runtime = Runtime(
      threads: threads, precision: test.precision, communicator: communicator, reducesFast: fast)
    let network = Network(try Architecture.layers(test.text), seed: 3, runtime: runtime)
    var settings = TrainingSettings()
    (settings.epochs, settings.batchSize, settings.learningRate) = (2, test.batch, 0.01)
    settings.optimizer = test.optimizer
    settings.optimizer.clipNorm = test.clipNorm
    settings.averageDecay = test.average
    settings.classWeights = test.weights
    settings.augmentation = try test.augmentation.map { try Augmentation($0) }
    let trainer = try Trainer(network, data, settings)
    var memory: [[Float]] = []
    trainer.onState = { memory = $0.network.memory }
    try prepare(trainer)
    try trainer.run()
    let weights = network.snapshot()
    return (
      weights.sha256, trainer.results.flatMap { [$0.trainCCE, $0.testCCE, $0.testCE] },
      weights.values, memory
    )
  }

  @Test(arguments: cases) func theSameWeightsForAnyNumber(test: Case) throws {
    let expected = try Self.train(test)
    for (size, threads) in [(1, 3), (2, 1), (3, 2), (4, 1), (8, 1), (16, 1)] {
      for result in Crowd(size).run({ try Self.train(test, $0, threads: threads) }) {
        let found = try result.get()
        #expect(found.sha == expected.sha, "\(size) processes of \(threads) threads")
        #expect(found.cce == expected.cce)
        #expect(found.memory == expected.memory, "\(size) processes")
      }
    }
  }

  /// Layers, sizes, mini-batches, threads and processes that nobody chose.
  @Test(arguments: 1...10) func randomTrainings(seed: UInt64) throws {
    var random = SeededGenerator(seed: seed, stream: 3)
    func pick<T>(_ list: [T]) -> T { list[random.below(list.count)] }
    var layers: [String] = []
    for _ in 0..<1 + random.below(3) {
      let filters = pick([3, 4, 6, 9])
      let more = pick([
        ["conv(\(filters),\(pick([1, 2, 3, 5])),stride=\(pick([1, 1, 2])))"],
        ["conv(\(filters),3,padding=same,activation=none)", "batchnorm(activation=relu)"],
        ["conv(\(filters),3,dilation=2,padding=same)", "maxpool(2)"],
        ["conv(6,3,padding=1)", "conv(\(pick([6, 12])),3,groups=3,padding=1,activation=tanh)"],
        ["conv(5,3,padding=1)", "residual(conv(5,3,padding=1,activation=none) batchnorm)"],
        ["maxpool(3,stride=2,padding=1)", "conv(\(filters),3,padding=1)"],
        ["conv(\(filters),3,padding=1)", "layernorm", "dropout(0.4)", "avgpool(2)"],
        ["conv(130,4,padding=same)", "conv(131,3,padding=same)", "maxpool(4)"],
      ])
      // What doesn't fit is left out.
      let all = try Architecture.layers((layers + more).joined(separator: " "))
      if (try? Network.size(of: all, for: Shape(28, 28, 1))) != nil { layers += more }
    }
    layers += pick([["flatten"], ["globalavgpool", "flatten"]])
    layers += pick([[], ["relu(\(pick([7, 40, 65])))"], ["gelu(20)", "dropout(0.2)"]])
    var test = Case(text: (layers + ["softmax(10)"]).joined(separator: " "))
    test.batch = 1 + random.below(pick([6, 30, 90]))
    test.images = test.batch + random.below(40)
    test.optimizer = Optimizer(pick(Optimizer.Method.allCases))
    test.clipNorm = pick([nil, nil, 1])
    test.average = pick([nil, 0.9])
    test.precision = pick([.float32, .float32, .bf16])
    let expected = try Self.train(test, threads: 2)
    let size = 2 + random.below(8)
    let threads = 1 + random.below(3)
    for result in Crowd(size).run({ [test] in try Self.train(test, $0, threads: threads) }) {
      let found = try result.get()
      #expect(
        found.sha == expected.sha && found.cce == expected.cce && found.memory == expected.memory,
        "\(test) precision \(test.precision), \(size) processes of \(threads) threads")
    }
  }

  /// In whichever order messages arrive.
  @Test(arguments: 1...3) func lateMessages(seed: UInt64) throws {
    let test = Self.cases[1]
    let expected = try Self.train(test)
    for result in Crowd(3, delays: true, seed: seed).run({ try Self.train(test, $0) }) {
      #expect(try result.get().sha == expected.sha)
    }
  }

  /// What never arrives is an error in every process, in time.
  @Test(arguments: [1, 2, 3, 17, 40]) func lostMessages(call: Int) throws {
    let begin = Date()
    let results = Crowd(3, drops: (1, call), patience: 2).run { try Self.train(Self.cases[0], $0) }
    for (rank, result) in results.enumerated() where rank != 1 {
      let error = #expect(throws: StrideNetError.self) { try result.get() }
      #expect("\(try #require(error))".contains("doesn't answer"))
    }
    #expect(Date().timeIntervalSince(begin) < 30)
  }

  /// In the communicator's own order of additions the results are nearly the same, and those of all
  /// processes still are the same.
  @Test(arguments: [0, 3, 4]) func fastSums(index: Int) throws {
    let test = Self.cases[index]
    let expected = try Self.train(test)
    let found = try Crowd(4).run { try Self.train(test, $0, fast: true) }.map { try $0.get() }
    #expect(Set(found.map(\.sha)).count == 1)
    expectClose(found[0].weights, expected.weights, within: 2e-3, test.text)
  }

  /// A training that three processes begin, and stop in the middle of an epoch, two go on with, then
  /// one: as if it had never stopped. It stops where any one of them wants it to.
  @Test func anotherNumberGoesOn() throws {
    let test = Self.cases[1]
    let expected = try Self.train(test)
    nonisolated(unsafe) var state: Trainer.State?
    func part(_ size: Int, stopAfter steps: Int?) throws -> [String] {
      let before = state
      let results = Crowd(size).run { member -> (String, Trainer.State?) in
        nonisolated(unsafe) var last: Trainer.State?
        let found = try Self.train(test, member) { trainer in
          trainer.onStop = { last = $0 }
          if let before { try trainer.resume(before) }
          var asked = 0
          trainer.shouldStop = {
            asked += 1
            return member.rank == size - 1 && steps.map { asked > $0 } ?? false
          }
        }
        return (found.sha, last)
      }
      let all = try results.map { try $0.get() }
      state = all[0].1
      return all.map(\.0)
    }
    #expect(Set(try part(3, stopAfter: 2)).count == 1)
    #expect(try #require(state).progress.batchesDone == 2)
    #expect(Set(try part(2, stopAfter: 2)).count == 1)
    #expect(try part(1, stopAfter: nil) == [expected.sha])
  }

  struct Own: CustomLayer {
    var text: String { "own" }
    func output(for input: Shape) throws -> Shape { input }
    func forward(_ x: TensorView, _ y: TensorView, _ pass: CustomPass) {}
    func backward(
      _ x: TensorView, _ y: TensorView, _ dy: TensorView, _ dx: TensorView?, _ pass: CustomPass
    ) {}
  }

  @Test func layersOfOnesOwnAreRefused() throws {
    let data = try NetworkTests.sample.get()
    let results = Crowd(2).run { member in
      let network = Network(
        [Own(), Flatten(), Dense(10, activation: .softmax)],
        runtime: Runtime(threads: 1, communicator: member))
      try Trainer(network, data, TrainingSettings()).run()
    }
    for result in results {
      let error = #expect(throws: StrideNetError.self) { try result.get() }
      #expect("\(try #require(error))".contains("layer 1, own"))
    }
  }

  // MARK: What travels

  /// What each process has sent is what the model says, whichever layers there are, and both ways.
  @Test(
    arguments: [
      cases[0].text, cases[1].text, cases[2].text, Architecture.presets[0].text,
      "conv(48,3,stride=4) conv(48,3) flatten layernorm softmax(10)",
      "flatten gelu(50) softmax(10)",
    ], [2, 3, 8])
  func travelsAsForeseen(text: String, size: Int) throws {
    let data = try NetworkTests.sample.get().train
    for (batch, fast) in [(20, false), (64, false), (33, true)] {
      let results = Crowd(size).run { member -> (found: Travel, model: Travel) in
        let runtime = Runtime(threads: 1, communicator: member, reducesFast: fast)
        let network = Network(try Architecture.layers(text), runtime: runtime)
        try network.build(for: data.shape)
        let share = runtime.share(of: batch).examples
        let buffer = try BatchBuffer(capacity: max(1, share.count), shape: data.shape)
        let (x, targets) = buffer.gather(data, share, runtime)
        _ = try network.step(x, targets, learningRate: 0.01, Optimizer(.sgd), of: batch)
        let model = network.travel(batch, rank: member.rank, of: size, fast: fast)
        return (network.travelled.travel, model)
      }
      for result in results {
        let (found, model) = try result.get()
        #expect(found.sums == model.sums && found.summedBytes == model.summedBytes)
        #expect(fast == (found.sums > 0))
        // How many small arrays go together depends on the order in which they come.
        #expect(abs(found.messages - model.messages) <= 2 * (size - 1), "\(text)")
        #expect(found.bytes == model.bytes, "\(text): \(batch), \(size) processes")
      }
    }
  }

  /// All ways of a step are timed, and what waits and travels is a part of it.
  @Test(arguments: [2, 3]) func stepsAreTimed(size: Int) throws {
    let data = try NetworkTests.sample.get().train
    let results = Crowd(size).run { member -> ([MachinesBench.Timing], [Double], Double) in
      let link = try ProcessLink(member)
      #expect(link.latency > 0 && link.bandwidth > 0)
      let bench = try MachinesBench(
        try Architecture.layers(Self.cases[0].text), data, batch: 64, communicator: member
      ) { way in
        way == .threads
          ? nil
          : Runtime(
            threads: 1, communicator: way.isShared ? member : nil, reducesFast: way == .fast)
      }
      let timings = try bench.run(rounds: 3, seconds: 0.01)
      let model = MachinesModel(
        bench.network, batch: 64, isFast: false, compute: timings[0].seconds, link: link)
      return (timings, [1, 2, 8, 64].map { model.seconds($0) }, model.volume(size))
    }
    for result in results {
      let (timings, curve, volume) = try result.get()
      #expect(timings.map(\.way) == [.alone, .exact, .fast])
      #expect(curve[0] == timings[0].seconds && curve.allSatisfy { $0 > 0 })
      for timing in timings {
        #expect(timing.seconds > 0 && timing.computing > 0 && timing.computing <= 1)
        #expect((timing.volume > 0) == timing.way.isShared)
        #expect((timing.sums > 0) == (timing.way == .fast))
      }
      #expect(abs(timings[1].volume / volume - 1) < 1e-9)
    }
  }

  /// Without a message's time the model is the share of the slowest; with it, more processes than
  /// parts cost more than they give.
  @Test func model() throws {
    let network = Network(try Architecture.layers(Architecture.presets[0].text))
    try network.build(for: Shape(28, 28, 1))
    func model(_ latency: Double, _ bandwidth: Double) -> MachinesModel {
      MachinesModel(
        network, batch: 64, isFast: false, compute: 8,
        link: ProcessLink(latency: latency, bandwidth: bandwidth))
    }
    let free = model(0, .infinity)
    #expect(free.leaves == 8)
    #expect([1, 2, 3, 5, 8, 16].map { free.seconds($0) } == [8, 4, 3, 2, 1, 0.5])
    #expect(model(0.1, 1e9).seconds(64) > model(0.1, 1e9).seconds(8))
    // One process sends nothing.
    #expect(network.travel(64, rank: 0, of: 1, fast: false) == Travel())
  }

  /// Every mini-batch is divided without rest, and neighbours make subtrees that make the root.
  @Test func theTree() {
    for batch in [0, 1, 2, 3, 5, 7, 8, 15, 16, 31, 63, 64, 70, 100, 127, 128, 129, 1000, 4097] {
      for size in 1...17 {
        var (examples, leaves) = (0, 0)
        var roots: [Range<Int>] = []
        for rank in 0..<size {
          let share = BatchShare(batch, rank: rank, of: size)
          #expect(share.examples.lowerBound == examples && share.leaves.lowerBound == leaves)
          (examples, leaves) = (share.examples.upperBound, share.leaves.upperBound)
          roots += BatchShare.subtrees(share.leaves)
          for root in roots {
            #expect(root.count.nonzeroBitCount == 1 && root.lowerBound % root.count == 0)
          }
          var left = Array(share.leaves)
          BatchShare.addNeighbours(share.leaves) { from, to in
            #expect(from > to)
            left.removeAll { $0 == from }
          }
          #expect(left == BatchShare.subtrees(share.leaves).map(\.lowerBound))
          // Chunks of any size are all examples, in order.
          for size in [1, 3, 8] {
            let chunks = (0..<share.chunks(of: size)).map { share.chunk($0, of: size) }
            #expect(chunks.flatMap { Array($0) } == Array(0..<share.examples.count))
          }
        }
        #expect(examples == batch)
      }
    }
  }
}
