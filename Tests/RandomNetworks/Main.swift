import Foundation
import StrideNet
import Synchronization

/// Random networks against a reference in double precision:
///
///     random-networks [--count N] [--seed S] [--work M] [--jobs J] [--shrink SECONDS]
///         [--precision float32|bf16] [--isa SET]
///     random-networks --case '{…}'
///
/// Each network is a number; the first is S. Some run at a time in processes of their own, since the
/// instruction set is a process's, and since a fault may end one.
@main struct RandomNetworks {
  static func main() {
    let arguments = CommandLine.arguments.dropFirst()
    var options: [String: String] = [:]
    for (name, value) in zip(arguments, arguments.dropFirst()) where name.hasPrefix("--") {
      options[name] = value
    }
    func number(_ name: String, _ other: Int) -> Int { options[name].flatMap(Int.init) ?? other }
    let drawing = Drawing(
      work: number("--work", 1_000_000),
      precision: options["--precision"].flatMap(Precision.init), set: options["--isa"])
    if let json = options["--case"] {
      do {
        exit(judge(try Case(json: json), "case") ? 0 : 1)
      } catch {
        say("random-networks: not a case: \(error)")
        exit(64)
      }
    }
    if let seeds = options["--seeds"] {
      let failed = seeds.split(separator: ",").filter {
        !judge(drawing.network(Int($0)!), String($0))
      }
      exit(failed.isEmpty ? 0 : 1)
    }
    let crew = Crew(drawing: drawing, jobs: number("--jobs", 2))
    let passed = run(
      crew, number("--seed", 1), count: number("--count", 40),
      shrinking: number("--shrink", 60))
    exit(passed ? 0 : 1)
  }

  /// Judges one network and prints what came out; false where it failed.
  static func judge(_ subject: Case, _ name: String) -> Bool {
    say("start \(name) \(subject.json)")
    // One that hangs is ended.
    alarm(120)
    let judge = Judge(subject)
    let clock = ContinuousClock()
    let start = clock.now
    do {
      try KernelChoice.select(instructionSet: subject.instructionSet)
      if let unit = subject.unit { try KernelChoice.select(bf16Unit: unit) }
      try judge.run()
    } catch let failure as Failure {
      say("fail \(name) \(failure.kind): \(failure.text)")
      return false
    } catch {
      say("fail \(name) refused: \("\(error)".replacing("\n", with: " "))")
      return false
    }
    let seconds = (clock.now - start) / .seconds(1)
    say(
      "pass \(name) \(judge.compared) \(judge.loose) "
        + String(format: "%.2f", judge.worst.ratio) + " \(judge.worst.what), "
        + String(format: "%.2f s", seconds))
    return true
  }

  /// Judges networks, tells of those that fail, and shrinks the first of each kind.
  static func run(_ crew: Crew, _ first: Int, count: Int, shrinking seconds: Int) -> Bool {
    struct Tally {
      var failed: [Outcome] = []
      var passed = 0, compared = 0, loose = 0
      var worst = (ratio: 0.0, line: "")
    }
    let tally = Mutex(Tally())
    let clock = ContinuousClock()
    let start = clock.now
    crew.judge(first, count: count) { outcome in
      tally.withLock {
        guard let failure = outcome.failure else {
          $0.passed += 1
          $0.compared += outcome.compared
          $0.loose += outcome.loose
          if outcome.worst.ratio > $0.worst.ratio {
            $0.worst = (outcome.worst.ratio, "\(outcome.name): \(outcome.worst.line)")
          }
          return
        }
        $0.failed.append(outcome)
        say("network \(outcome.name) failed, \(failure.kind): \(failure.text)")
      }
    }
    let all = tally.withLock { $0 }
    var kinds: Set<String> = []
    for outcome in all.failed where kinds.insert(outcome.failure!.kind).inserted {
      let small = crew.shrink(outcome, seconds: Double(seconds))
      say("")
      say("\(outcome.failure!.kind), shrunk: \(small.failure!.text)")
      say("  make random SEED=\(outcome.name) N=1 \(crew.drawing.settings)")
      say("  make random CASE='\(small.subject.json)'")
      say("  \(small.subject.command)")
    }
    let taken = String(format: "%.1f", (clock.now - start) / .seconds(1))
    say(
      "\(count) networks from \(first) on in \(taken) s: \(all.compared) numbers compared, "
        + "\(all.loose) of them loosely; worst error, of \(Int(tolerance)) expected ones: "
        + all.worst.line)
    say("\(all.passed) passed, \(all.failed.count) failed")
    return all.failed.isEmpty
  }
}

/// What is drawn.
struct Drawing {
  let work: Int
  /// Nil for any.
  let precision: Precision?
  let set: String?

  func network(_ seed: Int) -> Case {
    Generator.draw(
      UInt64(seed), work: work, instructionSets: set.map { [$0] } ?? Machine.instructionSets,
      precision: precision)
  }

  private var options: [(String, String)] {
    [("work", "\(work)")] + (precision.map { [("precision", $0.rawValue)] } ?? [])
      + (set.map { [("isa", $0)] } ?? [])
  }
  /// As arguments of the program, and of `make`.
  var arguments: [String] { options.flatMap { ["--\($0)", $1] } }
  var settings: String {
    options.map { "\($0.uppercased())=\($1)" }.joined(separator: " ")
  }
}

/// What this machine has.
enum Machine {
  static let instructionSets: [String] = {
    let best = KernelChoice.instructionSet
    defer { try? KernelChoice.select(instructionSet: best) }
    return Generator.instructionSets.filter {
      (try? KernelChoice.select(instructionSet: $0)) != nil
    }
  }()

  /// What multiplies bf16 beside an instruction set.
  static func units(of set: String) -> [String] { unitsBySet[set]! }

  private static let unitsBySet: [String: [String]] = {
    let best = KernelChoice.instructionSet
    defer { try? KernelChoice.select(instructionSet: best) }
    return Dictionary(
      uniqueKeysWithValues: instructionSets.map { set in
        try! KernelChoice.select(instructionSet: set)
        return (
          set,
          ["amx", "avx512_bf16", "emulated"].filter {
            (try? KernelChoice.select(bf16Unit: $0)) != nil
          }
        )
      })
  }()
}

/// Prints a line at once: the process may end at any moment.
func say(_ line: String) { FileHandle.standardOutput.write(Data((line + "\n").utf8)) }
