/// Processes that train a network together, each with a share of every mini-batch: what they send each
/// other goes through one of these. All processes make the same calls in the same order. The library
/// has that of one process; a ``Runtime`` takes another.
public protocol Communicator: AnyObject, Sendable {
  /// This process's number, from 0.
  var rank: Int { get }
  /// How many processes there are.
  var size: Int { get }

  /// Begins to send and receive; the memory stays as it is, and is not written to by others, until
  /// ``finish(_:)``. Messages between two processes arrive in the order of the list.
  /// - Returns: what ``finish(_:)`` takes
  func begin(_ messages: [ProcessMessage]) -> Int
  /// Waits until all that was begun under this number has arrived and what was sent may be overwritten.
  /// - Throws: ``StrideNetError`` where a process has gone, or doesn't answer in time
  func finish(_ number: Int) throws
  /// Called now and then while something is under way.
  func poll()
  /// Begins to add up everybody's values, in an order of the communicator's own: the sums take their
  /// place by ``finish(_:)``.
  func beginSum(_ values: UnsafeMutableBufferPointer<Float>) -> Int
  /// Ends all processes; the reason is shown once.
  func abort(_ reason: any Error) -> Never
}

/// What one process sends another, and what it gets from it.
public struct ProcessMessage {
  /// The other process.
  public let peer: Int
  public let sent: UnsafeRawBufferPointer
  public let received: UnsafeMutableRawBufferPointer

  public init(
    peer: Int, sent: UnsafeRawBufferPointer, received: UnsafeMutableRawBufferPointer
  ) {
    (self.peer, self.sent, self.received) = (peer, sent, received)
  }
}

extension Communicator {
  /// Everybody gets everybody's part of an array, of which this process has its own in place.
  /// - Parameter part: elements that are a process's
  package func beginGather<Element: BitwiseCopyable>(
    _ array: UnsafeMutablePointer<Element>, _ part: (_ rank: Int) -> Range<Int>
  ) -> Int {
    func bytes(_ rank: Int) -> UnsafeMutableRawBufferPointer {
      let range = part(rank)
      return UnsafeMutableRawBufferPointer(
        start: array + range.lowerBound, count: range.count * MemoryLayout<Element>.stride)
    }
    let own = UnsafeRawBufferPointer(bytes(rank))
    return begin(
      (0..<size).filter { $0 != rank }.map {
        ProcessMessage(peer: $0, sent: own, received: bytes($0))
      })
  }

  /// One value of each process.
  package func gather<Element: BitwiseCopyable>(_ value: Element) throws -> [Element] {
    var values = [Element](repeating: value, count: size)
    try values.withUnsafeMutableBufferPointer {
      try finish(beginGather($0.baseAddress!) { $0..<$0 + 1 })
    }
    return values
  }

  /// Returns when all processes have called it.
  public func barrier() throws { _ = try gather(UInt8(0)) }
}

/// One process on its own.
final class OneProcess: Communicator {
  let (rank, size) = (0, 1)
  func begin(_ messages: [ProcessMessage]) -> Int { 0 }
  func finish(_ number: Int) {}
  func poll() {}
  func beginSum(_ values: UnsafeMutableBufferPointer<Float>) -> Int { 0 }
  func abort(_ reason: any Error) -> Never { fatalError("\(reason)") }
}
