import Foundation
import Synchronization

/// What layers compute with: threads, the kernel variant, scratch memory.
///
/// Work is cut into pieces whose number depends on the work alone, never on the number of threads,
/// and sums over pieces are added in the pieces' order. So results are the same, bit for bit, for
/// any number of threads.
///
/// Networks may share one, on different threads too: their work then takes turns.
public final class Runtime: @unchecked Sendable {
  // Sendable because what changes is only touched inside `alone`, which lets one thread in at a time.

  /// As many threads as can run at the same time: one for each processor, or fewer where a control
  /// group allows less.
  package static var defaultThreads: Int { SystemLimits().threads }

  /// How many threads work, the calling one included; fewer than were asked for where the system
  /// gives no more. The results are the same.
  public var threads: Int { pool?.threads ?? 1 }
  /// Which kernels: a variant's name, or automatic.
  public let kernels: KernelChoice

  /// The processes that train together, this one alone unless said otherwise.
  public let communicator: any Communicator
  /// Whether their gradients are added in the order that the communicator likes best, which depends on
  /// their number, instead of the tree's.
  public let reducesFast: Bool

  /// Whether layers that can run together do. The results are the same.
  package let fusing: Bool

  private let pool: WorkerPool?
  private var scratch: [FloatStorage]
  private let turn = Mutex<Void>(())

  /// - Parameters:
  ///   - threads: nil takes as many as can run at the same time: one for each processor, or fewer
  ///     where a control group allows less
  ///   - kernels: nil takes what was bound at build time
  ///   - precision: of the products; nil takes the kernels', which is ``Precision/float32`` unless they
  ///     are those of a runtime with another
  ///   - fusing: false runs every layer on its own, for comparisons
  ///   - communicator: nil for this process alone
  ///   - reducesFast: whether its processes' gradients are added in its own order
  public convenience init(
    threads: Int? = nil, kernels: KernelChoice? = nil, precision: Precision? = nil,
    fusing: Bool = true, communicator: (any Communicator)? = nil, reducesFast: Bool = false
  ) {
    let kernels = kernels ?? .bound
    self.init(
      threads: threads, kernels: kernels.at(precision ?? kernels.precision), fusing: fusing,
      communicator, reducesFast, stackSize: 1 << 20)
  }

  init(
    threads: Int?, kernels: KernelChoice?, fusing: Bool, _ communicator: (any Communicator)? = nil,
    _ reducesFast: Bool = false, stackSize: Int
  ) {
    self.communicator = communicator ?? OneProcess()
    self.reducesFast = reducesFast
    let threads = threads ?? Self.defaultThreads
    precondition(threads > 0, "\(threads) threads")
    self.fusing = fusing
    self.kernels = kernels ?? .bound
    pool = threads > 1 ? WorkerPool(workers: threads - 1, stackSize) : nil
    scratch = [FloatStorage](repeating: .empty, count: threads)
  }

  deinit { pool?.stop() }

  /// This process's share of a mini-batch.
  package func share(of batch: Int) -> BatchShare {
    BatchShare(batch, rank: communicator.rank, of: communicator.size)
  }

  /// Starts the threads, which otherwise happens with the first work.
  /// - Returns: how many were asked for but can't be had
  @discardableResult package func start() -> Int {
    alone { pool?.start() ?? 0 }
  }

  /// Cuts 0..<count into ranges of `size`, calls `body(context, range, worker)` with each, shared
  /// out over the threads, and returns when all are done. `worker`, in 0..<threads, tells which
  /// memory of those for each thread the call may use. `body` must not itself call this; that ends
  /// the program.
  ///
  /// What the body needs goes through `context` rather than being captured: a closure that captures
  /// nothing needs no memory from the heap, so a training step allocates nothing.
  public func parallel<Context>(
    over count: Int, by size: Int = 1, _ context: Context,
    _ body: @escaping (_ context: Context, _ range: Range<Int>, _ worker: Int) -> Void
  ) {
    if count == 0 { return }
    let work = Work(count: count, size: size, context: context, body: body)
    alone {
      if let pool, work.pieces > 1 {
        withUnsafePointer(to: work) { pool.run(work.pieces, Work<Context>.self, $0) }
      } else {
        for piece in 0..<work.pieces { work.run(piece, worker: 0) }
      }
    }
  }

  /// Threads that `parallel` is running on, and workers: a call from there would wait for itself.
  private static let inside: pthread_key_t = {
    var key = pthread_key_t()
    precondition(pthread_key_create(&key, nil) == 0)
    return key
  }()
  fileprivate static var isInside: Bool {
    get { pthread_getspecific(inside) != nil }
    set { pthread_setspecific(inside, newValue ? UnsafeRawPointer(bitPattern: 1) : nil) }
  }

  private func alone<R>(_ body: () throws -> R) rethrows -> R {
    precondition(!Self.isInside, "work of a runtime that calls a runtime")
    return try turn.withLock { _ in
      Self.isInside = true
      defer { Self.isInside = false }
      return try body()
    }
  }

  /// Makes sure that every worker has this many floats of scratch memory. Called while planning,
  /// so that a training step allocates nothing.
  package func reserveScratch(_ floats: Int) throws {
    try alone {
      for worker in scratch.indices where scratch[worker].count < floats {
        scratch[worker] = try FloatStorage(count: floats)
      }
    }
  }

  /// A worker's scratch memory; its contents last as long as the piece.
  package func scratch(_ worker: Int) -> UnsafeMutablePointer<Float> { scratch[worker].pointer }
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
  // Sendable: `work` and `pieces` are written while it isn't open, and read by workers that have said
  // that they are busy before they saw it open; `run` closes it and waits for those that are busy, not
  // for those that sleep, who find it closed when they wake.
  // Changes in `start` alone, before there is any work.
  private var workers: Int
  private let generation = Atomic<Int>(0)
  private let nextPiece = Atomic<Int>(0)
  private let isOpen = Atomic<Bool>(false)
  private let busy = Atomic<Int>(0)
  private let sleeping = Atomic<Int>(0)
  private let stopped = Atomic<Bool>(false)
  private let wake = NSCondition()
  private var work: (type: any AnyWork.Type, pointer: UnsafeRawPointer)?
  private var pieces = 0
  private var started = false
  private let stackSize: Int
  /// Workers and the calling thread.
  var threads: Int { workers + 1 }
  private let spins: Int

  init(workers: Int, _ stackSize: Int) {
    (self.workers, self.stackSize) = (workers, stackSize)
    // About 100 µs, longer than what lies between two pieces of work of a training step. With more
    // threads than processors, looking for work would keep another from doing it.
    spins = workers < ProcessInfo.processInfo.activeProcessorCount ? 100_000 : 1
  }

  func run(_ pieces: Int, _ type: any AnyWork.Type, _ pointer: UnsafeRawPointer) {
    start()
    work = (type, pointer)
    self.pieces = pieces
    nextPiece.store(0, ordering: .relaxed)
    isOpen.store(true, ordering: .sequentiallyConsistent)
    generation.add(1, ordering: .sequentiallyConsistent)
    if sleeping.load(ordering: .sequentiallyConsistent) > 0 {
      wake.lock()
      wake.broadcast()
      wake.unlock()
    }
    takePieces(worker: 0)
    isOpen.store(false, ordering: .sequentiallyConsistent)
    var turns = 0
    while busy.load(ordering: .sequentiallyConsistent) > 0 {
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

  /// Starts as many workers as the system lets it: a container may allow no more threads.
  /// - Returns: how many are missing
  @discardableResult func start() -> Int {
    if started { return 0 }
    started = true
    let wanted = workers
    var attributes = pthread_attr_t()
    pthread_attr_init(&attributes)
    defer { pthread_attr_destroy(&attributes) }
    pthread_attr_setdetachstate(&attributes, Int32(PTHREAD_CREATE_DETACHED))
    pthread_attr_setstacksize(&attributes, stackSize)
    workers = 0
    while workers < wanted {
      let box = Unmanaged.passRetained(Worker(pool: self, number: workers + 1))
      #if canImport(Glibc)
        var thread = pthread_t()
      #else
        var thread: pthread_t?
      #endif
      let refusal = pthread_create(
        &thread, &attributes,
        { argument in
          #if canImport(Glibc)
            let argument = argument!
          #endif
          Unmanaged<Worker>.fromOpaque(argument).takeRetainedValue().run()
          return nil
        }, box.toOpaque())
      guard refusal == 0 else {
        box.release()
        break
      }
      workers += 1
    }
    return wanted - workers
  }

  private final class Worker {
    let pool: WorkerPool
    let number: Int

    init(pool: WorkerPool, number: Int) { (self.pool, self.number) = (pool, number) }

    func run() {
      Thread.current.name = "stridenet-\(number)"
      _ = Kernels.flushDenormals(true)
      Runtime.isInside = true
      var seen = 0
      while true {
        seen = pool.waitForWork(after: seen)
        if pool.stopped.load(ordering: .acquiring) { return }
        pool.busy.add(1, ordering: .sequentiallyConsistent)
        if pool.isOpen.load(ordering: .sequentiallyConsistent) { pool.takePieces(worker: number) }
        pool.busy.subtract(1, ordering: .sequentiallyConsistent)
      }
    }
  }

  /// Returns the generation when it isn't `seen`'s any more.
  private func waitForWork(after seen: Int) -> Int {
    for _ in 0..<spins {
      let now = generation.load(ordering: .acquiring)
      if now != seen { return now }
    }
    wake.lock()
    sleeping.add(1, ordering: .sequentiallyConsistent)
    while generation.load(ordering: .sequentiallyConsistent) == seen { wake.wait() }
    sleeping.subtract(1, ordering: .sequentiallyConsistent)
    wake.unlock()
    return generation.load(ordering: .acquiring)
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
