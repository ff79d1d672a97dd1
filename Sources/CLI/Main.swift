import ArgumentParser
import Foundation
import StrideNet

@main
struct StrideNetCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "stridenet",
    abstract: "Trains convolutional neural networks on a CPU, with the cover off.",
    discussion: """
      'train' is the default: 'stridenet cnn' is 'stridenet train cnn'.

      Exit codes: 0 done, 64 usage, 65 bad data, 66 missing input, 69 server, 70 our own mistake, \
      73 and 74 cannot write, 129 stopped by SIGHUP, 130 by Ctrl-C, 143 by \
      SIGTERM.
      """,
    version: Runtime.version,
    subcommands: [
      Train.self, LRFind.self, Sweep.self, Serve.self, Evaluate.self, Predict.self, Export.self,
      Import.self, Augment.self,
      TraceCommand.self, ExplainCommand.self, ReportCommand.self, GradCheck.self, Speedrun.self,
      Fetch.self, DataCommand.self, KernelList.self, Bench.self, ArticlePictures.self,
    ],
    defaultSubcommand: Train.self)

  static func main() async {
    // A write past a file-size limit is to be an error like any other, not the end of the process.
    signal(SIGXFSZ, SIG_IGN)
    do {
      try requireDescriptors()
      try requireMemory()
      try Processes.join(CommandLine.arguments)
      // For comparisons: the same program with a poorer processor's instructions.
      if let name = ProcessInfo.processInfo.environment["STRIDENET_ISA"] {
        try KernelChoice.select(instructionSet: name)
      }
      if let name = ProcessInfo.processInfo.environment["STRIDENET_BF16"] {
        try KernelChoice.select(bf16Unit: name)
      }
      var command = try parseAsRoot()
      if var command = command as? any AsyncParsableCommand {
        try requireThreads()
        try await command.run()
      } else {
        try command.run()
      }
      Output.clearProgress()
      Processes.leave()
    } catch let error as StrideNetError {
      Processes.fail(code: error.kind.rawValue) { Output.complain(error.description) }
    } catch {
      let code = Self.exitCode(for: error)
      // All processes come here together where they were stopped, or asked for help.
      if error is ExitCode || code == .success {
        Processes.leave(code: code.rawValue)
      } else if Processes.communicator != nil {
        Processes.fail(code: code.rawValue) {
          FileHandle.standardError.write(Data((Self.fullMessage(for: error) + "\n").utf8))
        }
      }
      exit(withError: error)
    }
  }

  /// Some at the same time: what is asynchronous would wait for them for ever.
  private static func requireThreads() throws {
    let wanted = 4
    var threads: [pthread_t] = []
    for _ in 0..<wanted {
      #if canImport(Glibc)
        var thread = pthread_t()
      #else
        var thread: pthread_t!
      #endif
      let code = pthread_create(
        &thread, nil,
        { _ in
          usleep(1000)
          return nil
        }, nil)
      if code == 0 { threads.append(thread) }
    }
    for thread in threads { pthread_join(thread, nil) }
    guard threads.count < wanted else { return }
    throw StrideNetError(
      .cannotCreate, "too few threads can be started", found: "\(threads.count)",
      expected: "\(wanted)", hint: "raise the limit on processes: ulimit -u, or the container's")
  }

  /// For what every command needs, in pieces too small to be asked for one by one.
  private static func requireMemory() throws {
    let size = 64 << 20
    guard let probe = mmap(nil, size, PROT_READ, MAP_PRIVATE | MAP_ANON, -1, 0) else { return }
    guard probe == MAP_FAILED else {
      munmap(probe, size)
      return
    }
    throw StrideNetError(
      .cannotCreate, "too little memory", found: "less than \(size >> 20) MB that can be had",
      expected: "\(size >> 20) MB at least", hint: "raise the limit: ulimit -v")
  }

  /// Some for files, some for the runtime, which ends the process where it gets none.
  private static func requireDescriptors() throws {
    let probes = (0..<16).map { _ in open("/", O_RDONLY | O_CLOEXEC) }
    let code = errno
    for probe in probes where probe >= 0 { close(probe) }
    guard probes.contains(-1), code == EMFILE || code == ENFILE else { return }
    throw StrideNetError(
      .cannotCreate, "too few files may be open at once",
      found: "room for \(probes.count { $0 >= 0 })", expected: "for \(probes.count)",
      hint: "raise the limit: ulimit -n 256")
  }
}
