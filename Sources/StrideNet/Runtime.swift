import Foundation
import Synchronization

/// What layers compute with: threads, the kernel variant, scratch memory.
///
/// Work is cut into pieces whose number depends on the work alone, never on the number of threads,
/// and sums over pieces are added in the pieces' order. So results are the same, bit for bit, for
/// any number of threads.
public final class Runtime: @unchecked Sendable {
  // Sendable because `parallel` is the only entry that threads share, and it locks.

  /// How many threads work, the calling one included.
  public let threads: Int
  /// Which kernels: a variant's name, or automatic.
  public let kernels: KernelChoice

  private let pool: WorkerPool?
  private var scratch: [FloatStorage]

  /// - Parameters:
  ///   - threads: nil takes one for each processor
  ///   - kernels: nil takes what was bound at build time
  public init(threads: Int? = nil, kernels: KernelChoice? = nil) {
    let threads = threads ?? ProcessInfo.processInfo.activeProcessorCount
    precondition(threads > 0, "\(threads) threads")
    self.threads = threads
    self.kernels = kernels ?? .bound
    pool = threads > 1 ? WorkerPool(workers: threads - 1) : nil
    scratch = (0..<threads).map { _ in FloatStorage(count: 0) }
  }

  deinit { pool?.stop() }

  /// Calls `body(piece, worker)` for each piece in 0..<pieces and returns when all are done.
  /// `worker`, in 0..<threads, tells which scratch memory the call may use.
  public func parallel(_ pieces: Int, _ body: (_ piece: Int, _ worker: Int) -> Void) {
    if let pool, pieces > 1 {
      pool.run(pieces, body)
    } else {
      for piece in 0..<pieces { body(piece, 0) }
    }
  }

  /// Cuts 0..<count into ranges of `size` and calls `body` with each, in parallel.
  func parallel(over count: Int, by size: Int, _ body: (_ range: Range<Int>, _ worker: Int) -> Void)
  {
    parallel((count + size - 1) / size) { piece, worker in
      body(piece * size..<min(count, (piece + 1) * size), worker)
    }
  }

  /// Makes sure that every worker has this many floats of scratch memory. Called while planning,
  /// so that a training step allocates nothing.
  public func reserveScratch(_ floats: Int) {
    for worker in scratch.indices where scratch[worker].count < floats {
      scratch[worker] = FloatStorage(count: floats)
    }
  }

  /// A worker's scratch memory; its contents last as long as the piece.
  public func scratch(_ worker: Int) -> UnsafeMutablePointer<Float> { scratch[worker].pointer }
}

/// Threads that wait for work: they look for it for a short while, since training steps follow
/// each other closely, and sleep after that.
private final class WorkerPool: @unchecked Sendable {
  // Sendable: `body` and `pieces` are written before `generation` is raised (releasing) and read
  // after it was seen raised (acquiring); `run` returns only when every worker has checked out.
  private let workers: Int
  private let generation = Atomic<Int>(0)
  private let nextPiece = Atomic<Int>(0)
  private let busy = Atomic<Int>(0)
  private let sleeping = Atomic<Int>(0)
  private let stopped = Atomic<Bool>(false)
  private let wake = NSCondition()
  private let entry = NSLock()
  private var body: ((Int, Int) -> Void)?
  private var pieces = 0
  private var started = false
  private let spins: Int

  init(workers: Int) {
    self.workers = workers
    // With more threads than processors, looking for work would keep another from doing it.
    spins = workers < ProcessInfo.processInfo.activeProcessorCount ? 20_000 : 1
  }

  func run(_ pieces: Int, _ body: (Int, Int) -> Void) {
    entry.lock()  // one piece of work at a time; work within work isn't supported
    defer { entry.unlock() }
    if !started { start() }
    withoutActuallyEscaping(body) { body in
      self.body = body
      self.pieces = pieces
      nextPiece.store(0, ordering: .relaxed)
      busy.store(workers, ordering: .relaxed)
      generation.add(1, ordering: .sequentiallyConsistent)
      if sleeping.load(ordering: .sequentiallyConsistent) > 0 {
        wake.lock()
        wake.broadcast()
        wake.unlock()
      }
      work(worker: 0)
      var turns = 0
      while busy.load(ordering: .acquiring) > 0 {
        turns += 1
        if turns > spins { sched_yield() }
      }
      self.body = nil
    }
  }

  private func work(worker: Int) {
    let body = self.body!
    while true {
      let piece = nextPiece.add(1, ordering: .relaxed).oldValue
      if piece >= pieces { return }
      body(piece, worker)
    }
  }

  private func start() {
    started = true
    for worker in 1...workers {
      let thread = Thread { [self] in
        _ = Kernels.flushDenormals(true)
        var seen = 0
        while true {
          seen = waitForWork(after: seen)
          if stopped.load(ordering: .acquiring) { return }
          work(worker: worker)
          busy.subtract(1, ordering: .releasing)
        }
      }
      thread.stackSize = 1 << 20
      thread.name = "stridenet-\(worker)"
      thread.start()
    }
  }

  /// Returns the generation that follows `seen` when there is one.
  private func waitForWork(after seen: Int) -> Int {
    for _ in 0..<spins where generation.load(ordering: .acquiring) != seen { return seen + 1 }
    wake.lock()
    sleeping.add(1, ordering: .sequentiallyConsistent)
    while generation.load(ordering: .sequentiallyConsistent) == seen { wake.wait() }
    sleeping.subtract(1, ordering: .sequentiallyConsistent)
    wake.unlock()
    return seen + 1
  }

  func stop() {
    guard started else { return }
    stopped.store(true, ordering: .releasing)
    generation.add(1, ordering: .sequentiallyConsistent)
    wake.lock()
    wake.broadcast()
    wake.unlock()
  }
}
