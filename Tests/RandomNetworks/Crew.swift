import Foundation
import StrideNet
import Synchronization

/// What became of a network.
struct Outcome {
  let name: String
  let subject: Case
  /// Nil where all was right.
  var failure: Failure?
  var compared = 0
  var loose = 0
  var worst = (ratio: 0.0, line: "")
}

/// Judges networks in processes of their own, some at a time.
struct Crew {
  let drawing: Drawing
  let jobs: Int

  /// What a process said before it ended.
  struct Report {
    var outcomes: [Outcome] = []
    /// What it was about when it ended too soon.
    var broken: Outcome?
  }

  /// Runs this program with other arguments and reads what it prints.
  func run(_ arguments: [String]) -> Report {
    let (process, pipe) = (Process(), Pipe())
    let said = FileManager.default.temporaryDirectory.appending(path: "random-\(UUID()).txt")
    defer { try? FileManager.default.removeItem(at: said) }
    _ = FileManager.default.createFile(atPath: said.path, contents: nil)
    process.executableURL = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath()
    process.arguments = arguments
    process.standardOutput = pipe
    // The printing of a crash can outlive the time limit.
    process.environment = ProcessInfo.processInfo.environment.merging(
      ["SWIFT_BACKTRACE": "enable=no"]
    ) { $1 }
    process.standardError = FileHandle(forWritingAtPath: said.path)
    do { try process.run() } catch { fatalError("\(error)") }
    let output = pipe.fileHandleForReading.readDataToEndOfFile()
    process.waitUntilExit()

    var report = Report()
    for line in String(decoding: output, as: UTF8.self).split(separator: "\n") {
      let words = line.split(separator: " ", maxSplits: 2).map(String.init)
      guard words.count == 3 else { continue }
      switch words[0] {
      case "start":
        guard let subject = try? Case(json: words[2]) else { continue }
        report.broken = Outcome(name: words[1], subject: subject)
      case "fail":
        let parts = words[2].split(separator: ":", maxSplits: 1).map(String.init)
        report.broken!.failure = Failure(
          kind: parts[0], text: parts.count > 1 ? parts[1].trimmingCharacters(in: .whitespaces) : ""
        )
        report.outcomes.append(report.broken!)
        report.broken = nil
      case "pass":
        let numbers = words[2].split(separator: " ")
        report.broken!.compared = Int(numbers[0])!
        report.broken!.loose = Int(numbers[1])!
        report.broken!.worst = (Double(numbers[2])!, words[2])
        report.outcomes.append(report.broken!)
        report.broken = nil
      default: continue
      }
    }
    if report.broken != nil || process.terminationReason == .uncaughtSignal {
      let hangs =
        process.terminationReason == .uncaughtSignal && process.terminationStatus == SIGALRM
      let text = (try? String(contentsOf: said, encoding: .utf8)) ?? ""
      let lines = text.split(separator: "\n").filter { !$0.allSatisfy { "= ".contains($0) } }
      report.broken?.failure = Failure(
        kind: hangs ? "hang" : "crash",
        text: "status \(process.terminationStatus)\n    "
          + lines.prefix(14).joined(separator: "\n    "))
    }
    return report
  }

  /// All networks from `first` on, in chunks that have their instruction set in common.
  func judge(_ first: Int, count: Int, _ onOutcome: @escaping @Sendable (Outcome) -> Void) {
    var bySet: [String: [Int]] = [:]
    for seed in first..<first + count {
      bySet[drawing.network(seed).instructionSet, default: []].append(seed)
    }
    let size = max(1, min(10, count / (4 * jobs)))
    var chunks: [[Int]] = []
    for set in bySet.keys.sorted() {
      let seeds = bySet[set]!
      for start in stride(from: 0, to: seeds.count, by: size) {
        chunks.append(Array(seeds[start..<min(seeds.count, start + size)]))
      }
    }
    let queue = Mutex(chunks)
    DispatchQueue.concurrentPerform(iterations: jobs) { _ in
      while var seeds = queue.withLock({ $0.popLast() }) {
        while !seeds.isEmpty {
          let report = run(
            ["--seeds", seeds.map(String.init).joined(separator: ",")] + drawing.arguments)
          for outcome in report.outcomes + [report.broken].compactMap({ $0 }) {
            onOutcome(outcome)
            seeds.removeAll { "\($0)" == outcome.name }
          }
          if report.outcomes.isEmpty && report.broken == nil {
            fatalError("a process that said nothing: \(seeds)")
          }
        }
      }
    }
  }

  /// How a case fails; nil where it doesn't.
  func failure(of subject: Case) -> Failure? {
    let report = run(["--case", subject.json])
    return report.outcomes.first?.failure ?? report.broken?.failure
  }

  /// A case that fails in the same way and is as small as can be found in so many seconds.
  func shrink(_ outcome: Outcome, seconds: Double) -> Outcome {
    var smallest = outcome
    let clock = ContinuousClock()
    let end = clock.now + .seconds(seconds)
    var found = true
    while found && clock.now < end {
      found = false
      for candidate in smallest.subject.smaller where clock.now < end {
        guard let failure = failure(of: candidate), failure.kind == outcome.failure!.kind else {
          continue
        }
        smallest = Outcome(name: outcome.name, subject: candidate, failure: failure)
        found = true
        break
      }
    }
    return smallest
  }
}
