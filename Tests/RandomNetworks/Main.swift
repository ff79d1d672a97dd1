import Foundation
import StrideNet

/// Random networks against a reference in double precision:
///
///     random-networks [--count N] [--seed S] [--work M] [--jobs J]
///     random-networks --case '{…}'
///
/// Each network is a number; the first is S. Some run at a time in processes of their own, since the
/// instruction set is a process's, and since a fault may end one.
@main struct RandomNetworks {
  static func main() {
    var options: [String: String] = [:]
    var name: String?
    for argument in CommandLine.arguments.dropFirst() {
      if argument.hasPrefix("--") {
        name = argument
        options[argument] = ""
      } else if let name {
        options[name] = argument
      }
    }
    func number(_ name: String, _ other: Int) -> Int { options[name].flatMap(Int.init) ?? other }
    if let json = options["--case"] {
      do {
        exit(judge(try Case(json: json), "case") ? 0 : 1)
      } catch {
        say("random-networks: not a case: \(error)")
        exit(64)
      }
    }
    let work = number("--work", 1_000_000)
    let first = number("--seed", 1)
    if options["--child"] != nil {
      var failed = false
      for seed in first..<first + number("--count", 1) {
        let subject = Generator.draw(
          UInt64(seed), work: work, instructionSets: Machine.instructionSets)
        guard subject.instructionSet == options["--isa"] else { continue }
        if !judge(subject, "\(seed)") { failed = true }
      }
      exit(failed ? 1 : 0)
    }
    exit(0)
  }

  /// Judges one network and prints what came out; false where it failed.
  static func judge(_ subject: Case, _ name: String) -> Bool {
    say("start \(name) \(subject.json)")
    let judge = Judge(subject)
    let clock = ContinuousClock()
    let start = clock.now
    do {
      try KernelChoice.select(instructionSet: subject.instructionSet)
      try judge.run()
    } catch let failure as Failure {
      say("fail \(name) \(failure.kind): \(failure.text)")
      return false
    } catch {
      say("fail \(name) refused: \("\(error)".replacing("\n", with: " "))")
      return false
    }
    let seconds = Double((clock.now - start).components.attoseconds) * 1e-18
      + Double((clock.now - start).components.seconds)
    say(
      "pass \(name) \(judge.compared) numbers, \(judge.loose) loosely, worst "
        + String(format: "%.2f at %@, %.2f s", judge.worst.ratio, judge.worst.what, seconds))
    return true
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
}

/// Prints a line at once: the process may end at any moment.
func say(_ line: String) { FileHandle.standardOutput.write(Data((line + "\n").utf8)) }
