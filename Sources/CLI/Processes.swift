import Foundation
import StrideNet

#if MPI
  import StrideNetMPI
#endif

/// The processes that `mpirun` has started this one with, if it has.
enum Processes {
  #if MPI
    // Set once, before anything else happens.
    nonisolated(unsafe) private static var joined: MPICommunicator?
  #endif

  /// Nil for a process on its own.
  static var communicator: (any Communicator)? {
    #if MPI
      joined
    #else
      nil
    #endif
  }
  /// Whether this one prints and writes files.
  static var isFirst: Bool { (communicator?.rank ?? 0) == 0 }

  /// Joins the others.
  /// - Throws: ``StrideNetError`` where this build can't, or what is asked for is not for several
  static func join(_ arguments: [String]) throws {
    let environment = ProcessInfo.processInfo.environment
    // Open MPI, other MPIs and Slurm.
    let names = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_SIZE"]
    let size = names.compactMap { environment[$0].flatMap { Int($0) } }.first
    guard let size, size > 1 else { return }
    #if MPI
      let patience = environment["STRIDENET_PATIENCE"].flatMap { Double($0) } ?? 60
      joined = try MPICommunicator(patience: patience)
      Output.isSilent = !isFirst
    #else
      if environment[names[0]] != nil && environment["OMPI_COMM_WORLD_RANK"] != "0" { exit(69) }
      throw StrideNetError(
        .cannotCreate, "this build trains in one process", found: "\(size) processes",
        expected: "a build with MPI", hint: "make mpi builds one, .build-mpi/release/stridenet")
    #endif
  }

  /// How many of them are on this machine, this one included.
  static var neighbours: Int {
    #if MPI
      joined?.neighbours ?? 1
    #else
      1
    #endif
  }

  /// How many threads each process has, unless it is told: the processors of its machine are divided.
  static var threads: Int? {
    #if MPI
      joined.map { max(1, Runtime.defaultThreads / $0.neighbours) }
    #else
      nil
    #endif
  }

  /// Checks that all have the same, before anything is trained.
  /// - Throws: ``StrideNetError`` naming the process that has something else
  static func requireSame(_ things: [(name: String, value: String)]) throws {
    guard let communicator else { return }
    for (name, value) in things {
      var digest = SHA256()
      digest.update([UInt8](value.utf8))
      let all = try communicator.gather(UInt64(digest.hex.prefix(16), radix: 16)!)
      guard let other = all.firstIndex(where: { $0 != all[0] }) else { continue }
      throw StrideNetError(
        .badData, "the processes have different \(name)",
        found: "process \(other) has another than process 0, which has \(value.prefix(100))",
        expected: "the same for all", hint: "the weights would depend on who computed them")
    }
  }

  /// Ends this process with an error, and the others with it, after one message.
  static func fail(code: Int32, _ show: () -> Void) -> Never {
    #if MPI
      if let joined {
        joined.abort(CancellationError(), code: code) { _ in
          Output.isSilent = false
          show()
        }
      }
    #endif
    show()
    exit(code)
  }

  /// The end of all that was to be done; all processes come to it.
  /// - Parameter code: the exit code. `mpirun` kills the others when one ends with another than 0, so
  ///   nobody ends before everything is written, and the first one's alone says it.
  static func leave(code: Int32 = 0) {
    #if MPI
      guard let joined else { return }
      fflush(nil)
      let isOther = !isFirst
      joined.leave()
      self.joined = nil
      if isOther && code != 0 { exit(0) }
    #endif
  }
}
