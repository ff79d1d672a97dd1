import Foundation
import Testing

import StrideNet
@testable import StrideNetCore
@testable import StrideNetFiles

@Suite struct EventFileTests {
  /// All records of a file, their checksums checked.
  private static func events(_ path: String) throws -> [[WireField]] {
    var rest = [UInt8](try Data(contentsOf: URL(filePath: path)))[...]
    var result: [[WireField]] = []
    while !rest.isEmpty {
      func take(_ count: Int) throws -> [UInt8] {
        try #require(rest.count >= count)
        defer { rest = rest.dropFirst(count) }
        return Array(rest.prefix(count))
      }
      func number(_ bytes: [UInt8]) -> Int { bytes.reversed().reduce(0) { $0 << 8 | Int($1) } }
      let length = try take(8)
      #expect(UInt32(number(try take(4))) == EventFile.maskedChecksum(length))
      let data = try take(number(length))
      #expect(UInt32(number(try take(4))) == EventFile.maskedChecksum(data))
      result.append(try wireFields(data[...]))
    }
    return result
  }

  @Test func checksum() {
    // The check value of CRC-32C, then masked.
    let crc: UInt32 = 0xe306_9283
    #expect(
      EventFile.maskedChecksum(Array("123456789".utf8)) == ((crc >> 15) | (crc << 17))
        &+ 0xa282_ead8)
  }

  @Test func whatIsWrittenCanBeRead() throws {
    let folder = try TemporaryFolder()
    let file = try EventFile(in: "\(folder.path)/a/b")
    try file.scalar("loss", 0.25, step: 300)
    let values: [Float] = [
      -.greatestFiniteMagnitude, -2, -1.9, -1, -0.0, 0, 0x1p-40, -0x1p-40, 1e-9, 1, 3, 3.1, .nan,
      250,
      .greatestFiniteMagnitude, .infinity,
    ]
    try file.histogram("h", values, step: 7)
    try file.histogram("nothing", [Float.nan], step: 7)
    try file.image(
      "i", Picture(height: 2, width: 3, channels: 1, pixels: [1, 2, 3, 4, 5, 6]), step: 8)
    let events = try Self.events(file.path)
    #expect(events.count == 4)
    func bytes(_ fields: [WireField], _ number: Int) throws -> [UInt8] {
      guard case .bytes(let bytes) = try #require(fields.first { $0.0 == number }).1 else {
        return []
      }
      return bytes
    }
    #expect(try bytes(events[0], 3) == Array("brain.Event:2".utf8))
    func value(_ event: [WireField]) throws -> [WireField] {
      try wireFields(bytes(wireFields(bytes(event, 5)[...]), 1)[...])
    }
    let scalar = try value(events[1])
    #expect(try bytes(scalar, 1) == Array("loss".utf8))
    guard case .bits(let bits) = scalar[1].1, case .bits(let step) = events[1][1].1 else {
      Issue.record("no number")
      return
    }
    #expect(Float(bitPattern: UInt32(bits)) == 0.25 && step == 300)
    let histogram = try wireFields(bytes(value(events[2]), 5)[...])
    func doubles(_ number: Int) throws -> [Double] {
      let bytes = try bytes(histogram, number)
      return stride(from: 0, to: bytes.count, by: 8).map { i in
        Double(bitPattern: bytes[i..<i + 8].reversed().reduce(0) { $0 << 8 | UInt64($1) })
      }
    }
    let (limits, counts) = (try doubles(6), try doubles(7))
    #expect(limits.count == counts.count && limits == limits.sorted())
    #expect(counts.reduce(0, +) == 14)
    // Each bucket has the values between its limit and the one before.
    for (index, limit) in limits.enumerated() {
      let low = index == 0 ? -Double.infinity : limits[index - 1]
      let inside = values.count { Double($0) >= low && Double($0) < limit }
      #expect(Double(inside) == counts[index], "up to \(limit)")
    }
    #expect(
      try PNG.encode(Picture(height: 2, width: 3, channels: 1, pixels: [1, 2, 3, 4, 5, 6]))
        == bytes(wireFields(bytes(value(events[3]), 4)[...]), 4))
  }

  @Test func onTheCommandLine() throws {
    let place = try Workplace()
    let end = try place.run(
      "--layers", "conv(3,3) flatten softmax(10)", "--data", "digits", "--batch-size", "4",
      "--epochs",
      "2", "--log-dir", "log", "--json")
    #expect(end.code == 0, "\(end.err)")
    let names = try FileManager.default.contentsOfDirectory(atPath: "\(place.path)/log")
    #expect(names.count == 1 && names[0].hasPrefix("events.out.tfevents."))
    // 32 steps, three numbers at every tenth; two epochs of 5 numbers, 4 parameters and filters.
    #expect(
      try Self.events("\(place.path)/log/\(names[0])").count == 1 + 3 * 3 + 2 * (5 + 4 * 4 + 1))
    try place.write("file", "x")
    let refused = try place.run(
      "--layers", Workplace.tiny, "--data", "digits", "--batch-size", "4", "--log-dir", "file")
    #expect(refused.code == 73 && refused.err.contains("file"), "\(refused.err)")
  }

  /// A run that was killed has logged steps that the resumed one takes again: readers are told from
  /// which one on to forget the first file's.
  @Test func aResumedRunRepeatsNoSteps() throws {
    let run = [
      "--layers", "flatten softmax(10)", "--data", "digits", "--batch-size", "2", "--log-dir",
      "log",
      "--json", "--epochs", "100000", "--checkpoint", "c", "--checkpoint-every", "3",
    ]
    var place = try Workplace()
    func names() throws -> Set<String> {
      try Set(FileManager.default.contentsOfDirectory(atPath: "\(place.path)/log"))
    }
    func steps(_ names: Set<String>) throws -> [(step: UInt64, isStart: Bool)] {
      try names.flatMap { try Self.events("\(place.path)/log/\($0)") }.compactMap { event in
        guard case .bits(let step) = event.first(where: { $0.0 == 2 })?.1 else { return nil }
        guard case .bytes(let log) = event.first(where: { $0.0 == 7 })?.1 else {
          return (step, false)
        }
        #expect(log == [8, 1])  // its status: START
        return (step, true)
      }
    }
    var (before, done) = (Set<String>(), 0)
    // Until the kill comes some steps after a checkpoint.
    for _ in 0..<50 {
      let running = try place.start(run)
      try running.wait(for: #""epoch":5"#)
      running.send(SIGKILL)
      _ = running.end()
      (before, done) = (
        try names(), try Checkpoint(from: "\(place.path)/c").epochs * Workplace.images / 2
      )
      if try steps(before).contains(where: { $0.step > done }) { break }
      place = try Workplace()
    }
    let resumed = try place.start(["train", "--resume", "c", "--log-dir", "log", "--json"])
    try resumed.wait(for: #""epoch""#)
    resumed.send(SIGINT)
    #expect(resumed.end().code == 130)
    let (old, new) = (try steps(before), try steps(names().subtracting(before)))
    #expect(old.contains { $0.step > done } && !old.contains { $0.isStart })
    #expect(new.first.map { $0.isStart && $0.step == done + 1 } == true)
    #expect(new.dropFirst().allSatisfy { !$0.isStart && $0.step > done })
  }

  @Test func weightsOfAnySizeAreDrawn() throws {
    for largest in [Float.greatestFiniteMagnitude, .leastNonzeroMagnitude, 0, .infinity, .nan] {
      let w: [Float] = [largest, -largest, largest / 2, 0]
      let picture = try #require(Picture(filters: w[...], [2, 2, 1, 1]))
      if largest > 1 && largest.isFinite {
        #expect(picture.pixels[picture.width + 1] == 255 && picture.pixels.contains(0))
      }
    }
    #expect(
      Picture(filters: [Float](repeating: 1, count: 10_000)[...], [1, 10_000, 1, 1]) == nil)
  }

  /// TensorBoard itself, where STRIDENET_PYTHON names an interpreter that has it.
  @Test(.enabled(if: python != nil, "STRIDENET_PYTHON names no Python with tensorboard"))
  func tensorBoardReadsIt() throws {
    let folder = try TemporaryFolder()
    let file = try EventFile(in: folder.path)
    for step in [0, 10, 20] { try file.scalar("loss", 1 / Float(step + 1), step: step) }
    try file.histogram("h", (0..<1000).map { value($0, 1) }, step: 5)
    try file.image(
      "i", Picture(height: 4, width: 4, channels: 1, pixels: .init(repeating: 9, count: 16)),
      step: 1)
    // Of a run that went on after step 10.
    let next = try EventFile(in: folder.path, goingOnAfter: 10)
    try next.scalar("loss", 0.5, step: 20)
    let script = """
      import sys
      from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
      a = EventAccumulator(sys.argv[1]); a.Reload()
      print(a.Tags()["scalars"], [(s.step, round(s.value, 4)) for s in a.Scalars("loss")])
      h = a.Histograms("h")[0].histogram_value
      print(int(h.num), len(h.bucket) == len(h.bucket_limit), a.Images("i")[0].width)
      """
    let process = Process()
    process.executableURL = URL(filePath: try #require(python))
    process.arguments = ["-c", script, folder.path]
    let pipe = Pipe()
    process.standardOutput = pipe
    try process.run()
    let text = String(decoding: pipe.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
    process.waitUntilExit()
    #expect(text == "['loss'] [(0, 1.0), (10, 0.0909), (20, 0.5)]\n1000 True 4\n")
  }
}
