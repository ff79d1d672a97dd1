import Foundation
import StrideNetCore

/// What a message takes between two processes.
package struct ProcessLink: Sendable {
  /// Seconds until the first byte is there.
  package let latency: Double
  /// Bytes a second.
  package let bandwidth: Double

  package init(latency: Double, bandwidth: Double) {
    (self.latency, self.bandwidth) = (latency, bandwidth)
  }

  /// Measured between the first two: half of the way there and back, the median of many. All processes
  /// make this call.
  package init(_ communicator: any Communicator) throws {
    func seconds(_ bytes: Int, times: Int) throws -> Double {
      let (sent, received) = (
        [UInt8](repeating: 1, count: bytes), [UInt8](repeating: 0, count: bytes)
      )
      var turns = try (0..<times).map { _ in try Self.turn(communicator, sent, received) }
      turns.sort()
      return try communicator.gather(turns[times / 2])[0] / 2
    }
    _ = try seconds(1 << 20, times: 5)
    latency = max(1e-9, try seconds(8, times: 501))
    bandwidth = Double(1 << 20) / max(1e-9, try seconds(1 << 20, times: 51) - latency)
  }

  /// There and back; the first process has the seconds.
  private static func turn(_ communicator: any Communicator, _ sent: [UInt8], _ received: [UInt8])
    throws -> Double
  {
    var received = received
    return try sent.withUnsafeBytes { sent in
      try received.withUnsafeMutableBytes { received in
        let clock = ContinuousClock()
        let start = clock.now
        for sender in 0...1 {
          let (rank, none) = (communicator.rank, UnsafeRawBufferPointer(start: nil, count: 0))
          let messages =
            rank > 1
            ? []
            : [
              ProcessMessage(
                peer: 1 - rank, sent: rank == sender ? sent : none,
                received: rank == sender ? .init(start: nil, count: 0) : received)
            ]
          try communicator.finish(communicator.begin(messages))
        }
        return (clock.now - start).inSeconds
      }
    }
  }
}

/// How long a training step takes with any number of processes: what one process computes is divided,
/// and each message takes the link's time, as if nothing else were done meanwhile.
package struct MachinesModel {
  package let network: Network
  package let batch: Int
  package let isFast: Bool
  /// Seconds a step in one process.
  package let compute: Double
  package let link: ProcessLink

  package init(
    _ network: Network, batch: Int, isFast: Bool, compute: Double, link: ProcessLink
  ) {
    (self.network, self.batch, self.isFast) = (network, batch, isFast)
    (self.compute, self.link) = (compute, link)
  }

  /// Parts into which the mini-batch can be divided.
  package var leaves: Int { BatchShare.leaves(batch) }

  /// With more processes than leaves, those that there would be if the mini-batch had as many.
  package func seconds(_ processes: Int) -> Double {
    if processes == 1 { return compute }
    let leaves = max(leaves, processes)
    // The slowest takes the most leaves.
    let most = (leaves + processes - 1) / processes
    // The last process has the most of each.
    let travel = network.travel(
      batch, rank: processes - 1, of: processes, fast: isFast, leaves: leaves)
    let rounds = Double(travel.messages) + log2(Double(processes)) * Double(travel.sums)
    return compute * Double(most) / Double(leaves) + link.latency * rounds
      + travel.volume(processes) / link.bandwidth
  }

  /// Bytes that all processes together send in a step.
  package func volume(_ processes: Int) -> Double {
    (0..<processes).reduce(0) { sum, rank in
      sum + network.travel(batch, rank: rank, of: processes, fast: isFast).volume(processes)
    }
  }
}

/// Training steps by one process and by several, taking turns.
package final class MachinesBench {
  package enum Way: String, Sendable, CaseIterable {
    /// One process, with its threads.
    case alone
    /// One process with the threads of all.
    case threads
    case exact, fast
    package var isShared: Bool { self == .exact || self == .fast }
  }

  /// One way's steps.
  package struct Timing: Sendable {
    package let way: Way
    package let threads: Int
    /// A step, the median of the rounds.
    package let seconds: Double
    /// Shares of the processes' time.
    package let sending, waiting: Double
    package var computing: Double { 1 - sending - waiting }
    /// What all processes send in a step.
    package let messages, sums, volume: Double
  }

  private struct Entry {
    let way: Way
    let network: Network
    let buffer: BatchBuffer
    var steps = 1
    /// A round's seconds, as the first process has measured them.
    var expected = 0.0
    var rounds: [Double] = []
    var sending = 0.0
    var waiting = 0.0
  }
  private let images: ImageSet
  private let batch: Int
  private let communicator: any Communicator
  private var entries: [Entry] = []

  /// The network that several processes train in the tree's order.
  package var network: Network { entries.first { $0.way == .exact }!.network }

  /// - Parameters:
  ///   - runtime: that of each way; nil leaves it out
  package init(
    _ layers: [any Layer], _ images: ImageSet, batch: Int, communicator: any Communicator,
    runtime: (Way) throws -> Runtime?
  ) throws {
    (self.images, self.batch, self.communicator) = (images, batch, communicator)
    for way in Way.allCases {
      guard let runtime = try runtime(way) else { continue }
      let network = Network(layers, runtime: runtime)
      try network.requireClassifier(for: images.shape)
      let share = runtime.share(of: batch).examples.count
      entries.append(
        Entry(
          way: way, network: network,
          buffer: try BatchBuffer(capacity: max(1, share), shape: images.shape)))
    }
  }

  /// - Parameter seconds: about what a round of one way takes
  package func run(rounds: Int = 5, seconds: Double = 0.15) throws -> [Timing] {
    // Memory and caches first, then how long it takes.
    for index in entries.indices {
      entries[index].expected = 0.2
      _ = try time(index)
      entries[index].steps = 3
      let step = try time(index) / 3
      entries[index].steps = max(2, min(10_000, Int(seconds / step)))
      entries[index].expected = step * Double(entries[index].steps)
    }
    let before = entries.map { $0.network.travelled }
    for _ in 0..<rounds {
      for index in entries.indices { entries[index].rounds.append(try time(index)) }
    }
    return try zip(entries, before).map { entry, before in
      let after = entry.network.travelled
      let steps = Double(rounds * entry.steps)
      func sum(_ own: Double) throws -> Double {
        try communicator.gather(own).reduce(0, +)
      }
      let travel = after.travel - before.travel
      let all = entry.rounds.reduce(0, +) * Double(communicator.size)
      return Timing(
        way: entry.way, threads: entry.network.runtime.threads,
        seconds: entry.rounds.sorted()[rounds / 2] / Double(entry.steps),
        sending: try sum(after.sending - before.sending) / all,
        waiting: try sum(after.waiting - before.waiting) / all,
        messages: try sum(Double(travel.messages)) / steps,
        sums: try sum(Double(travel.sums)) / steps,
        volume: try sum(travel.volume(communicator.size)) / steps)
    }
  }

  /// A round of one way, as long as the first process says that it was.
  private func time(_ index: Int) throws -> Double {
    let entry = entries[index]
    try communicator.barrier()
    let clock = ContinuousClock()
    let start = clock.now
    if entry.way.isShared || communicator.rank == 0 {
      for step in 0..<entry.steps { try train(entry, step) }
    } else {
      // Who waits for a message asks for it again and again, and would take a processor.
      usleep(UInt32(entry.expected * 1.1e6))
    }
    if entry.way.isShared { try communicator.barrier() }
    let own = (clock.now - start).inSeconds
    return try communicator.gather(own)[0]
  }

  private func train(_ entry: Entry, _ step: Int) throws {
    let share = entry.network.runtime.share(of: batch).examples
    let first = step * batch % max(1, images.count - batch + 1)
    let (x, targets) = entry.buffer.gather(
      images, first + share.lowerBound..<first + share.upperBound, entry.network.runtime)
    _ = try entry.network.step(
      x, targets, learningRate: NetworkBench.learningRate,
      Optimizer(.sgd, momentum: NetworkBench.momentum), of: batch)
  }
}
