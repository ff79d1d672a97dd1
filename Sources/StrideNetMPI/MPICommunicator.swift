// In the package with its trait MPI alone: swift build --traits MPI.
#if MPI
  import CMPI
  import Foundation
  import StrideNetCore

  /// Processes that `mpirun`, or what stands for it on a cluster, has started, over MPI: messages from
  /// one to another without waiting for them, and MPI's own sums.
  ///
  ///     let communicator = try MPICommunicator()
  ///     let runtime = Runtime(communicator: communicator)
  ///     // … Trainer(Network(layers, runtime: runtime), data, settings).run()
  ///     communicator.leave()
  ///
  /// One thread at a time may use it.
  public final class MPICommunicator: Communicator, @unchecked Sendable {
    // Sendable: networks that use it are one thread's at a time.
    public let rank, size: Int
    /// Processes on this machine.
    public let neighbours: Int
    /// Seconds without anything arriving after which a process counts as gone.
    public let patience: Double

    private var number = 0
    private var requests: [Int: [MPI_Request?]] = [:]

    /// Joins the others.
    /// - Throws: ``StrideNetError`` where MPI doesn't work here
    public init(patience: Double = 60) throws {
      self.patience = patience
      var (given, rank, size, neighbours): (Int32, Int32, Int32, Int32) = (0, 0, 1, 1)
      var local: MPI_Comm?
      guard
        MPI_Init_thread(nil, nil, Int32(MPI_THREAD_SERIALIZED), &given) == MPI_SUCCESS,
        MPI_Comm_rank(ck_mpi_world(), &rank) == MPI_SUCCESS,
        MPI_Comm_size(ck_mpi_world(), &size) == MPI_SUCCESS,
        MPI_Comm_split_type(
          ck_mpi_world(), Int32(MPI_COMM_TYPE_SHARED), rank, ck_mpi_no_info(), &local)
          == MPI_SUCCESS,
        MPI_Comm_size(local, &neighbours) == MPI_SUCCESS
      else {
        throw StrideNetError(
          .cannotCreate, "MPI doesn't start", hint: "does mpirun -n 2 hostname work?")
      }
      (self.rank, self.size, self.neighbours) = (Int(rank), Int(size), Int(neighbours))
      MPI_Comm_set_errhandler(ck_mpi_world(), ck_mpi_errors_return())
    }

    /// At the end, all together.
    public func leave() { MPI_Finalize() }

    // What MPI said last, if that was that it can't.
    private var code = MPI_SUCCESS
    private func check(_ code: Int32) { if code != MPI_SUCCESS { self.code = code } }

    public func begin(_ messages: [ProcessMessage]) -> Int {
      number += 1
      var list: [MPI_Request?] = []
      let tag = Int32(number % 32_768)
      func add(_ bytes: UnsafeRawBufferPointer, _ begin: (UnsafeRawBufferPointer) -> MPI_Request?) {
        // Counts are 32 bits.
        for start in stride(from: 0, to: bytes.count, by: 1 << 30) {
          list.append(
            begin(.init(rebasing: bytes[start..<min(bytes.count, start + 1 << 30)])))
        }
      }
      for message in messages {
        add(UnsafeRawBufferPointer(message.received)) { part in
          var request: MPI_Request?
          check(
            MPI_Irecv(
              UnsafeMutableRawPointer(mutating: part.baseAddress!), Int32(part.count),
              ck_mpi_byte(), Int32(message.peer), tag, ck_mpi_world(), &request))
          return request
        }
      }
      for message in messages {
        add(message.sent) { part in
          var request: MPI_Request?
          check(
            MPI_Isend(
              part.baseAddress!, Int32(part.count), ck_mpi_byte(), Int32(message.peer), tag,
              ck_mpi_world(), &request))
          return request
        }
      }
      requests[number] = list
      return number
    }

    public func beginSum(_ values: UnsafeMutableBufferPointer<Float>) -> Int {
      number += 1
      var request: MPI_Request?
      var own = Array(values)
      // What is sent has to be elsewhere than what comes; MPI's own word for "the same" is a macro.
      let place = UnsafeMutablePointer<Float>.allocate(capacity: max(1, own.count))
      place.update(from: &own, count: own.count)
      sent[number] = place
      check(
        MPI_Iallreduce(
          place, values.baseAddress!, Int32(values.count), ck_mpi_float(), ck_mpi_sum(),
          ck_mpi_world(), &request))
      requests[number] = [request]
      return number
    }
    private var sent: [Int: UnsafeMutablePointer<Float>] = [:]

    public func finish(_ number: Int) throws {
      guard var list = requests.removeValue(forKey: number) else { return }
      defer { sent.removeValue(forKey: number)?.deallocate() }
      let clock = ContinuousClock()
      var (turns, end): (Int, ContinuousClock.Instant?) = (0, nil)
      while true {
        var done: Int32 = 0
        if code == MPI_SUCCESS { check(ck_mpi_test_all(Int32(list.count), &list, &done)) }
        guard code == MPI_SUCCESS else {
          isCutOff = true
          throw StrideNetError(
            .ioError, "the connection to another process broke", at: place,
            found: "MPI's error \(code)", hint: Self.hint)
        }
        if done != 0 { return }
        turns += 1
        if turns < 1000 { continue }
        // Others may need this processor.
        sched_yield()
        if turns % 256 > 0 { continue }
        let now = clock.now
        if let end, now > end {
          isCutOff = true
          throw StrideNetError(
            .ioError, "another process doesn't answer", at: place,
            found: "nothing for \(patience) s", expected: "its part of a mini-batch",
            hint: Self.hint)
        }
        end = end ?? now + .seconds(patience)
      }
    }

    // Whether another process couldn't be reached.
    private var isCutOff = false

    private var place: String {
      "process \(rank) of \(size), on \(ProcessInfo.processInfo.hostName)"
    }
    private static let hint =
      "the last checkpoint is whole: go on with --resume, with as many processes as there are now"

    public func poll() {
      var flag: Int32 = 0
      check(MPI_Iprobe(MPI_ANY_SOURCE, MPI_ANY_TAG, ck_mpi_world(), &flag, nil))
    }

    public func abort(_ reason: any Error) -> Never { abort(reason, code: 1) { print($0) } }

    /// - Parameters:
    ///   - code: the exit code
    ///   - show: called once, in the first process that gets here
    public func abort(_ reason: any Error, code: Int32, show: (any Error) -> Void) -> Never {
      // Where many fail at once, the first of them ends the others before they say the same. From
      // MPI_Abort on it takes mpirun a second until it sends SIGTERM, and to other hosts two more; so
      // long wait those who only miss somebody. Those who know why must be heard before these.
      if rank > 0 {
        signal(SIGTERM, SIG_DFL)
        Thread.sleep(forTimeInterval: (isCutOff ? 4 : 1.5) + 0.05 * Double(min(rank, 20)))
      }
      show(reason)
      MPI_Abort(ck_mpi_world(), code)
      exit(code)
    }
  }
#endif
