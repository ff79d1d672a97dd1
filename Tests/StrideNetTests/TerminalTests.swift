import Foundation
import Testing

import StrideNet

/// What is printed fits the width that there is, says of how much it is a part, and hides no small
/// number behind zeros.
@Suite struct TerminalTests {
  private func run(_ place: Workplace, _ arguments: [String], columns: Int? = nil) throws
    -> Workplace.Outcome
  {
    let end = try place.run(
      arguments, environment: columns.map { ["COLUMNS": "\($0)"] } ?? [:])
    #expect(end.code == 0, "\(end.err)")
    return end
  }

  @Test(arguments: [nil, 60, 80, 300])
  func tablesFit(columns: Int?) throws {
    let place = try Workplace()
    let layers =
      "conv(4,3,activation=none) batchnorm(activation=relu) maxpool(2) flatten softmax(10)"
    let training = ["train", "--layers", layers] + Workplace.brief
    let profile = try run(place, training + ["--profile", "--save", "w"], columns: columns)
    let start = try #require(profile.lines.firstIndex { $0.hasPrefix("explain") })
    var lines = Array(profile.lines[(start + 1)...].prefix { !$0.contains("SHA-256") })
    for arguments in [
      ["trace", "w", "--data", "digits"], ["evaluate", "w", "--data", "digits", "--confusion"],
      ["explain", "w", "--layer", "1", "--at", "1,2,3", "--data", "digits"], ["gradcheck", "w"],
      ["data", "digits"],
    ] {
      lines += try run(place, arguments, columns: columns).lines.filter {
        // Without a width, lines that aren't of a table stay whole.
        columns != nil || $0.hasPrefix("  ")
      }
    }
    for line in lines { #expect(line.count <= columns ?? 80, "\(line)") }
    // Nothing is lost: each column is there once, its rows behind their keys.
    let trace = try run(place, ["trace", "w", "--data", "digits"], columns: columns).lines
    for column in ["multiply-adds", "back µs", "greatest", "|dy|", "kernel"] {
      #expect(trace.count { $0.contains(column) && !$0.hasPrefix("kernels") } == 1, "\(column)")
    }
    let rows = trace.filter { $0.hasPrefix("  4") }
    #expect(columns == 300 ? rows.count == 1 : rows.count > 1, "\(trace)")
  }

  /// A pipe's lines stay whole, and so do JSON and lines to copy.
  @Test func proseIsBrokenAtWords() throws {
    let place = try Workplace()
    let piped = try run(place, Workplace.tinyTraining)
    let narrow = try run(place, Workplace.tinyTraining, columns: 60)
    #expect(piped.lines.contains { $0.count > 80 } && narrow.lines.allSatisfy { $0.count <= 72 })
    func words(_ end: Workplace.Outcome) -> [Substring] {
      // But for times.
      end.out.split { $0 == " " || $0 == "\n" }.filter { $0.wholeMatch(of: /[0-9.,]+/) == nil }
    }
    #expect(words(piped) == words(narrow))
    let json = try run(place, Workplace.tinyTraining + ["--json"], columns: 40)
    #expect(json.json.count == json.lines.count)
  }

  @Test func namesAreWholeInATable() throws {
    let place = try Workplace()
    try FileManager.default.createDirectory(
      atPath: "\(place.path)/sets", withIntermediateDirectories: true)
    try place.writeDigits("sets/fashion-mnist")
    _ = try run(
      place, ["train", "--layers", Workplace.tiny, "--data", "sets/fashion-mnist", "--save", "w"])
    let end = try run(place, ["evaluate", "w", "--data", "sets/fashion-mnist", "--confusion"])
    for name in ["0 T-shirt", "1 trousers", "7 sneaker"] {
      #expect(end.lines.count { $0.hasPrefix(name) } == 1, "\(end.out)")
    }
    #expect(end.lines.contains { $0.contains(/\s0 +1 +2 .*F1$/) })
  }

  @Test func smallNumbersAreNoZeros() throws {
    let place = try Workplace()
    // So sure of its answer that next to no gradient is left.
    let network = Network {
      Flatten(); Dense(10, activation: .softmax)
    }
    let data = try Dataset.load("\(place.path)/digits")
    try network.build(for: data.train.shape)
    var weights = [Float](repeating: 0, count: network.snapshot().values.count)
    weights[640 + Int(data.test.labels[0])] = 14
    try network.restore(network.snapshot(of: weights))
    try network.save(to: "\(place.path)/w")
    let end = try run(place, ["trace", "w", "--data", "digits"])
    #expect(end.out.contains("e-0") && end.lines.contains { $0.hasPrefix("loss     ") })
    #expect(end.out.firstMatch(of: /\s0\.000+(\s|$)/) == nil, "\(end.out)")
  }

  @Test func aMaximumIsWhatItWasChosenFrom() throws {
    let place = try Workplace()
    try place.writeWeights("w", "conv(2,3) maxpool(2) flatten softmax(10)")
    let end = try run(
      place, ["explain", "w", "--layer", "2", "--at", "1,1,0", "--data", "digits"])
    #expect(end.lines.count { $0.hasPrefix("  x[") } == 4, "\(end.out)")
    #expect(end.lines.count { $0.contains("← the largest") } == 1 && !end.out.contains("×"))
  }

  /// Rates beyond the measured peak are explained.
  @Test func moreThanThePeak() {
    func notes(_ shares: [String: Double]) -> [String] {
      Roofline.notes(shares.map { (kernel: $0.key, share: $0.value) })
    }
    #expect(notes(["conv_forward_direct": 0.9, "gemm": 1]).isEmpty)
    #expect(notes(["conv_forward_direct": 1.1])[0].contains("above 100 %"))
    let winograd = notes(["conv_forward_winograd": 1.8])
    #expect(winograd.count == 1 && winograd[0].contains("a quarter"))
  }
}
