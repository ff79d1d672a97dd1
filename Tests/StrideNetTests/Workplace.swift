import Foundation
import Testing

import StrideNet
@testable import StrideNetFiles

/// A folder with a small data set in `digits`, in which the built program is run as its user does.
final class Workplace: Sendable {
  struct Outcome {
    var code: Int32
    /// Ended by a signal: `code` is its number.
    var wasKilled: Bool
    var out: String
    var err: String

    var lines: [String] { out.split(separator: "\n").map(String.init) }
    var json: [[String: Any]] {
      lines.compactMap {
        (try? JSONSerialization.jsonObject(with: Data($0.utf8))) as? [String: Any]
      }
    }

    /// That of the weights of a training that went well.
    var digest: String {
      get throws {
        #expect(code == 0, "\(err)")
        return try #require(json.last?["weights_sha256"] as? String)
      }
    }
  }

  /// Layers that take a debug build no time.
  static let tiny = "flatten softmax(10)"
  /// A short training, but for its layers; and one with `tiny` ones.
  static let brief = ["--data", "digits", "--batch-size", "16", "--epochs", "2"]
  static let tinyTraining = ["--layers", tiny] + brief
  /// A training with something of all that a checkpoint remembers.
  static let thorough = [
    "--layers", "flatten batchnorm dropout(0.2) softmax(10)", "--data", "digits",
    "--batch-size", "8", "--epochs", "40", "--optimizer", "adamw", "--ema", "0.9",
    "--schedule", "warmup:2,cosine", "--seed", "3", "--best",
  ]
  /// A training that only a signal ends.
  static let endless = [
    "--layers", tiny, "--data", "digits", "--batch-size", "8", "--epochs", "100000000",
  ]

  private let folder: TemporaryFolder
  var path: String { folder.path }

  init() throws {
    folder = try TemporaryFolder()
    try writeDigits("digits")
  }

  /// The program, which the build puts beside the test bundle.
  static let program = built("stridenet")

  static func built(_ name: String) -> String {
    var folder = Bundle(for: TemporaryFolder.self).bundleURL
    for _ in 0..<3 {
      let path = folder.appending(path: name).path
      var isFolder: ObjCBool = false
      if FileManager.default.fileExists(atPath: path, isDirectory: &isFolder), !isFolder.boolValue {
        return path
      }
      folder.deleteLastPathComponent()
    }
    fatalError("no program '\(name)' beside the tests: build the whole package")
  }

  // MARK: Files

  static let images = 64
  static let testImages = 20

  /// Images of 8×8 that are noise, with labels from 0 to 9. `change` may replace a file's bytes by
  /// others, or by nil for no file.
  func writeDigits(
    _ name: String, gz: Bool = false,
    _ change: (_ file: String, _ bytes: [UInt8]) -> [UInt8]? = { $1 }
  ) throws {
    try FileManager.default.createDirectory(
      atPath: "\(path)/\(name)", withIntermediateDirectories: true)
    for (file, count) in zip(
      Dataset.files, [Self.images, Self.images, Self.testImages, Self.testImages])
    {
      let bytes =
        file.contains("images")
        ? idx([UInt32(count), 8, 8], bytes: (0..<count * 64).map { noise($0, count, 256) })
        : idx([UInt32(count)], bytes: (0..<count).map { noise($0, 7, 10) })
      guard let bytes = change(file, gz ? gzip(bytes) : bytes) else { continue }
      try write("\(name)/\(file)\(gz ? ".gz" : "")", bytes)
    }
  }

  private func noise(_ i: Int, _ salt: Int, _ range: Float) -> UInt8 {
    UInt8((value(i, salt) + 0.5) * range)
  }

  /// A network's first weights, as a file.
  func writeWeights(_ name: String, _ layers: String = tiny, seed: UInt64 = 1) throws {
    let network = Network(try Architecture.layers(layers), seed: seed)
    try network.build(for: Shape(8, 8, 1))
    try network.save(to: "\(path)/\(name)")
  }

  /// A safetensors file with any header.
  func writeWeights(_ name: String, header: String, data: [Float] = []) throws {
    try write(
      name, bytes([UInt64(header.utf8.count)]) + Array(header.utf8) + bytes(data))
  }

  /// What StrideNet would write, had it such a network.
  func writeWeights(
    _ name: String, architecture: String, input: String = "8x8x1",
    _ tensors: [(name: String, shape: [Int], value: Float)] = []
  ) throws {
    try Safetensors.write(
      tensors.map {
        .init(
          name: $0.name, shape: $0.shape,
          values: .init(repeating: $0.value, count: $0.shape.reduce(1, *)))
      }, metadata: ["stridenet.architecture": architecture, "stridenet.input": input],
      to: "\(path)/\(name)")
  }

  private func bytes<T: BitwiseCopyable>(_ values: [T]) -> [UInt8] {
    values.withUnsafeBytes { Array($0) }
  }

  func write(_ name: String, _ bytes: [UInt8]) throws { try folder.write(name, bytes) }
  func write(_ name: String, _ text: String) throws { try write(name, Array(text.utf8)) }

  func read(_ name: String) throws -> [UInt8] {
    [UInt8](try Data(contentsOf: URL(fileURLWithPath: "\(path)/\(name)")))
  }

  /// Everything in the folder, at any depth.
  var names: Set<String> {
    get throws { Set(try FileManager.default.subpathsOfDirectory(atPath: path)) }
  }

  // MARK: Processes

  /// Runs the program to its end. A `shell` has it as "$0" and its arguments as "$@".
  func run(
    _ arguments: [String], shell: [String]? = nil, environment: [String: String] = [:]
  ) throws -> Outcome {
    try Running(arguments, shell: shell, environment: environment, in: path).end()
  }

  func run(_ arguments: String...) throws -> Outcome { try run(arguments) }

  func start(_ arguments: [String], shell: [String]? = nil) throws -> Running {
    try Running(arguments, shell: shell, environment: [:], in: path)
  }

  /// The program at work.
  final class Running {
    private let process = Process()
    private let exited = DispatchSemaphore(value: 0)
    /// Output goes to files: unlike pipes they never fill up. Not in the folder, to leave that alone.
    private let streams: TemporaryFolder

    init(
      _ arguments: [String], shell: [String]?, environment: [String: String], in folder: String
    ) throws {
      streams = try TemporaryFolder()
      func stream(_ name: String) throws -> FileHandle {
        try FileHandle(forWritingTo: URL(fileURLWithPath: streams.write(name, [UInt8]())))
      }
      process.executableURL = URL(fileURLWithPath: shell?.first ?? Workplace.program)
      process.arguments = (shell.map { $0.dropFirst() + [Workplace.program] } ?? []) + arguments
      process.currentDirectoryURL = URL(fileURLWithPath: folder)
      process.environment = ProcessInfo.processInfo.environment
        // The machine's own data sets and proxies stay out of it.
        .filter {
          !$0.key.lowercased().hasSuffix("_proxy")
            && !["STRIDENET_DATA", "COLUMNS"].contains($0.key)
        }
        .merging(["HOME": folder, "XDG_CACHE_HOME": "\(folder)/cache"]) { $1 }
        .merging(["SWIFT_BACKTRACE": "enable=no"]) { $1 }
        .merging(environment) { $1 }
      process.standardInput = FileHandle.nullDevice
      process.standardOutput = try stream("out")
      process.standardError = try stream("err")
      // Sooner than `waitUntilExit`, which looks every 50 ms.
      process.terminationHandler = { [exited] _ in exited.signal() }
      try process.run()
    }

    private func text(_ name: String) -> String {
      let data = try? Data(contentsOf: URL(fileURLWithPath: "\(streams.path)/\(name)"))
      return String(decoding: data ?? Data(), as: UTF8.self)
    }

    /// What it has printed so far.
    var out: String { text("out") }

    func send(_ signal: Int32) { kill(process.processIdentifier, signal) }

    /// The most memory that it has had so far, in bytes; nil where the system doesn't tell.
    var peakMemory: Int? {
      let path = "/proc/\(process.processIdentifier)/status"
      guard let text = try? String(contentsOfFile: path, encoding: .utf8),
        let kilobytes = text.firstMatch(of: /VmHWM:\s*(\d+) kB/)
      else { return nil }
      return Int(kilobytes.1).map { $0 * 1024 }
    }

    /// Waits until standard output has this text.
    func wait(for text: String) throws {
      let start = ContinuousClock.now
      while !self.text("out").contains(text) {
        guard process.isRunning, ContinuousClock.now - start < .seconds(30) else {
          Issue.record("never printed '\(text)': \(self.text("out")) \(self.text("err"))")
          throw CancellationError()
        }
        Thread.sleep(forTimeInterval: 0.005)
      }
    }

    func stop(_ signal: Int32) -> (Outcome, Duration) {
      let start = ContinuousClock.now
      send(signal)
      return (end(), ContinuousClock.now - start)
    }

    func end() -> Outcome {
      // A program that hangs is to fail its test, not to hang that too.
      if exited.wait(timeout: .now() + 60) == .timedOut {
        send(SIGKILL)
        exited.wait()
      }
      // Whether the build is a debug build isn't the tests' concern.
      var err = text("err")
      if err.hasPrefix("stridenet: this is a debug build") {
        err = err.split(separator: "\n", omittingEmptySubsequences: false).dropFirst(2)
          .joined(separator: "\n")
      }
      return Outcome(
        code: process.terminationStatus, wasKilled: process.terminationReason == .uncaughtSignal,
        out: text("out"), err: err)
    }
  }
}
