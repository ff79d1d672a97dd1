import Foundation
import Testing

import StrideNet

/// Networks drawn at random, against a reference of plain loops in double precision: the program
/// random-networks, which runs each in a process where a fault ends nothing else. `make random` runs
/// more of them.
@Suite struct RandomNetworksTests {
  /// As many as RANDOM_NETWORKS says, or as take seconds; without optimisation few and small ones.
  @Test func agreeWithTheReference() throws {
    let isSlow = KernelChoice.isDebugBuild
    let count =
      isSlow ? "10" : ProcessInfo.processInfo.environment["RANDOM_NETWORKS"] ?? "40"
    let process = Process()
    let output = Pipe()
    process.executableURL = URL(fileURLWithPath: Workplace.built("random-networks"))
    process.arguments = ["--count", count, "--work", isSlow ? "20000" : "1000000"]
    process.standardOutput = output
    try process.run()
    let said = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
    process.waitUntilExit()
    #expect(process.terminationStatus == 0, "\(said)")
    #expect(said.contains("\n\(count) passed, 0 failed\n"), "\(said)")
  }
}
