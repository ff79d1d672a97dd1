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

  /// Whether layers that can run together do. The results are the same.
  public let fusing: Bool

  private let pool: WorkerPool?
  private var scratch: [FloatStorage]

  /// - Parameters:
  ///   - threads: nil takes one for each processor
  ///   - kernels: nil takes what was bound at build time
  ///   - fusing: false runs every layer on its own, for comparisons
  public init(threads: Int? = nil, kernels: KernelChoice? = nil, fusing: Bool = true) {
    let threads = threads ?? ProcessInfo.processInfo.activeProcessorCount
    precondition(threads > 0, "\(threads) threads")
    self.threads = threads
    self.fusing = fusing
    self.kernels = kernels ?? .bound
    pool = threads > 1 ? WorkerPool(workers: threads - 1) : nil
    scratch = (0..<threads).map { _ in FloatStorage(count: 0) }
  }

  deinit { pool?.stop() }

  /// Cuts 0..<count into ranges of `size`, calls `body(context, range, worker)` with each, shared
  /// out over the threads, and returns when all are done. `worker`, in 0..<threads, tells which
  /// scratch memory the call may use. `body` must not itself call this.
  ///
  /// What the body needs goes through `context` rather than being captured: a closure that captures
  /// nothing needs no memory from the heap, so a training step allocates nothing.
  public func parallel<Context>(
    over count: Int, by size: Int = 1, _ context: Context,
    _ body: @escaping (_ context: Context, _ range: Range<Int>, _ worker: Int) -> Void
  ) {
    let work = Work(count: count, size: size, context: context, body: body)
    if let pool, work.pieces > 1 {
      withUnsafePointer(to: work) { pool.run(work.pieces, Work<Context>.self, $0) }
    } else {
      for piece in 0..<work.pieces { work.run(piece, worker: 0) }
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

/// What is to be done, on the caller's stack.
private struct Work<Context>: AnyWork {
  let count, size: Int
  let context: Context
  let body: (Context, Range<Int>, Int) -> Void

  var pieces: Int { (count + size - 1) / size }

  func run(_ piece: Int, worker: Int) {
    body(context, piece * size..<min(count, (piece + 1) * size), worker)
  }

  static func run(_ work: UnsafeRawPointer, _ piece: Int, worker: Int) {
    work.assumingMemoryBound(to: Self.self).pointee.run(piece, worker: worker)
  }
}

/// Work whose type the threads don't know: a pointer, and what can read it.
private protocol AnyWork {
  static func run(_ work: UnsafeRawPointer, _ piece: Int, worker: Int)
}

/// Threads that wait for work: they look for it for a short while, since training steps follow
/// each other closely, and sleep after that.
private final class WorkerPool: @unchecked Sendable {
  // Sendable: `work` and `pieces` are written before `generation` is raised (releasing) and read
  // after it was seen raised (acquiring); `run` returns only when every worker has checked out.
  private let workers: Int
  private let generation = Atomic<Int>(0)
  private let nextPiece = Atomic<Int>(0)
  private let busy = Atomic<Int>(0)
  private let sleeping = Atomic<Int>(0)
  private let stopped = Atomic<Bool>(false)
  private let wake = NSCondition()
  private let entry = NSLock()
  private var work: (type: any AnyWork.Type, pointer: UnsafeRawPointer)?
  private var pieces = 0
  private var started = false
  private let spins: Int

  init(workers: Int) {
    self.workers = workers
    // With more threads than processors, looking for work would keep another from doing it.
    spins = workers < ProcessInfo.processInfo.activeProcessorCount ? 20_000 : 1
  }

  func run(_ pieces: Int, _ type: any AnyWork.Type, _ pointer: UnsafeRawPointer) {
    entry.lock()
    defer { entry.unlock() }
    if !started { start() }
    work = (type, pointer)
    self.pieces = pieces
    nextPiece.store(0, ordering: .relaxed)
    busy.store(workers, ordering: .relaxed)
    generation.add(1, ordering: .sequentiallyConsistent)
    if sleeping.load(ordering: .sequentiallyConsistent) > 0 {
      wake.lock()
      wake.broadcast()
      wake.unlock()
    }
    takePieces(worker: 0)
    var turns = 0
    while busy.load(ordering: .acquiring) > 0 {
      turns += 1
      if turns > spins { sched_yield() }
    }
    work = nil
  }

  private func takePieces(worker: Int) {
    let (type, pointer) = work!
    while true {
      let piece = nextPiece.add(1, ordering: .relaxed).oldValue
      if piece >= pieces { return }
      type.run(pointer, piece, worker: worker)
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
          takePieces(worker: worker)
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
