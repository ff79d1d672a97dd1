import Foundation
import Testing

import StrideNet

@Suite struct CommandLineRefusals {
  @Test(
    arguments: BadInput.dataCases + BadInput.optionCases + BadInput.layerCases + BadInput.saveCases
      + BadInput.weightCases + BadInput.otherCases)
  func refuses(_ bad: BadInput) throws {
    let place = try Workplace()
    try bad.prepare(place)
    let before = try place.names
    let old = before.contains("w") ? try? place.read("w") : nil
    let end = try place.run(bad.arguments, shell: bad.shell, environment: bad.environment)
    expectRefusal(bad, end)
    // Nothing half-written, nothing forgotten.
    #expect(try place.names == before)
    if let old { #expect(try place.read("w") == old) }
  }

  private func expectRefusal(_ bad: BadInput, _ end: Workplace.Outcome) {
    #expect(!end.wasKilled, "ended by signal \(end.code): \(end.err)")
    #expect(end.code == bad.code, "\(end.err)")
    for phrase in bad.phrases {
      #expect(end.err.contains(phrase), "\(end.err) doesn't say '\(phrase)'")
    }
    #expect(end.err.hasPrefix("stridenet: ") || end.err.hasPrefix("Error: "), "\(end.err)")
    if end.err.hasPrefix("Error: ") { #expect(end.err.contains("Usage: "), "\(end.err)") }
    #expect(!end.err.contains("Fatal error"), "\(end.err)")
    if bad.hasBegun {
      #expect(end.json.isEmpty || end.json.count == end.lines.count, "\(end.out)")
    } else {
      #expect(end.out.isEmpty, "\(end.out)")
    }
    if let column = bad.column { expectCaret(column, in: end.err) }
  }

  /// The text that is wrong, under the line that tells the column, and the caret under that.
  private func expectCaret(_ column: Int, in message: String) {
    let lines = message.components(separatedBy: "\n")
    guard let at = lines.firstIndex(where: { $0.hasSuffix(", column \(column)") }),
      lines.count > at + 2, let margin = lines[at].firstRange(of: "--layers")
    else {
      Issue.record("no column \(column): \(message)")
      return
    }
    let before = lines[at].distance(from: lines[at].startIndex, to: margin.lowerBound)
    #expect(
      lines[at + 2] == String(repeating: " ", count: before + column - 1) + "^", "\(message)")
  }

  /// Wherever a file of weights was cut off, loading it says so.
  @Test func refusesWeightsThatWereCutOff() throws {
    let place = try Workplace()
    try place.writeWeights("whole")
    let bytes = try place.read("whole")
    for part in 0..<8 {
      try place.write("w", Array(bytes.prefix(bytes.count * part / 8 + part % 3)))
      let end = try place.run("evaluate", "w", "--data", "digits")
      #expect(end.code == 65 && !end.wasKilled && end.out.isEmpty, "part \(part): \(end.err)")
      #expect(end.err.hasPrefix("stridenet: "), "part \(part): \(end.err)")
    }
  }

  @Test func refusesAServerThatIsNotThere() throws {
    let place = try Workplace()
    let port = LoopbackServer.refusedPort()
    let end = try place.run("fetch", "mnist", "--mirror", "http://127.0.0.1:\(port)")
    #expect(end.code == 69 && !end.wasKilled && end.out.isEmpty, "\(end.err)")
    #expect(end.err.contains("can't be fetched") && end.err.contains(":\(port)/"), "\(end.err)")
    #expect(try !place.names.contains { $0.contains("ubyte") && $0.hasPrefix("cache") })
  }

  /// The superuser may read and write everything: so nothing to see then.
  @Test(.enabled(if: geteuid() != 0, "the superuser may do everything"))
  func refusesWhatMayNotBeReadOrWritten() throws {
    let place = try Workplace()
    try place.writeWeights("w")
    chmod("\(place.path)/w", 0o200)
    let read = try place.run("evaluate", "w", "--data", "digits")
    #expect(read.code == 66 && read.err.contains("Permission denied"), "\(read.err)")
    chmod("\(place.path)/w", 0o400)
    let write = try place.run(Workplace.endless + ["--save", "w"])
    #expect(write.code == 73 && write.err.contains("Permission denied"), "\(write.err)")
    try FileManager.default.createDirectory(
      atPath: "\(place.path)/locked", withIntermediateDirectories: true)
    chmod("\(place.path)/locked", 0o500)
    let folder = try place.run(Workplace.endless + ["--save", "locked/w"])
    #expect(folder.code == 73 && folder.err.contains("Permission denied"), "\(folder.err)")
  }

  /// A file system that is full in earnest: in a name space of its own, gone with the process.
  @Test func aFullDiskLeavesTheOldFile() throws {
    let place = try Workplace()
    let layers = "flatten relu(100) softmax(10)"
    try place.writeWeights("old", layers, seed: 2)
    try FileManager.default.createDirectory(
      atPath: "\(place.path)/full", withIntermediateDirectories: true)
    // Room for the old file and a part of the new one.
    let script = #"""
      mount -t tmpfs -o size=40k tmpfs full 2>/dev/null || exit 200
      cp old full/w
      "$0" "$@"
      code=$?
      cmp old full/w || exit 201
      test "$(ls -A full)" = w || exit 202
      exit $code
      """#
    let end = try place.run(
      ["--layers", layers, "--data", "digits", "--save", "full/w"],
      shell: ["/usr/bin/env", "unshare", "--mount", "/bin/sh", "-c", script])
    // 1, 126, 127: no unshare, or no right to; 200: no right to mount. The limits of file size
    // above are met everywhere.
    if [1, 126, 127, 200].contains(end.code) { return }
    #expect(end.code == 74, "\(end.out)\(end.err)")
    #expect(end.err.contains("No space left on device") && end.err.contains("as it was"))
  }

  /// The last good weights stay, and the message says which.
  @Test func divergenceLeavesTheLastGoodEpoch() throws {
    let place = try Workplace()
    // Found by trying: far too large a step, and yet it takes more than one epoch.
    let end = try place.run(
      "--layers", "flatten dense(10) softmax(10)", "--data", "digits", "--batch-size", "32",
      "--epochs", "50", "--learning-rate", "1e3", "--save", "w", "--json")
    #expect(end.code == 65 && !end.wasKilled, "\(end.err)")
    #expect(end.err.contains("training diverged"), "\(end.err)")
    let epochs = end.json.filter { $0["event"] as? String == "epoch" }
    #expect(!epochs.isEmpty && !end.json.contains { $0["event"] as? String == "done" })
    #expect(end.err.contains("'w' has the weights of epoch \(epochs.count)\n"), "\(end.err)")
    let check = try place.run("evaluate", "w", "--data", "digits", "--json")
    #expect(check.code == 0, "\(check.err)")
    let (cce, same) = (
      check.json.first?["test_cce"] as? Double, epochs.last?["test_cce"] as? Double
    )
    #expect(cce != nil && same != nil && abs(cce! - same!) <= 1e-5 * abs(same!))
  }
}
