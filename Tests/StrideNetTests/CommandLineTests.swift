import Foundation
import Testing

import StrideNet
@testable import StrideNetFiles

// MARK: Running the program

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
  }

  /// Layers that take a debug build no time.
  static let tiny = "flatten softmax(10)"
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
        .filter { !$0.key.lowercased().hasSuffix("_proxy") && $0.key != "STRIDENET_DATA" }
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

// MARK: - Bad input

/// Something wrong, and what the program is to say about it.
struct BadInput: Sendable, CustomTestStringConvertible {
  var name: String
  var arguments: [String]
  var code: Int32
  /// What the message has to say.
  var phrases: [String]
  /// The column that a caret must point at.
  var column: Int?
  /// Training had begun, and printed, before it went wrong.
  var hasBegun = false
  /// Files that may appear.
  var makes: Set<String> = []
  var shell: [String]?
  var environment: [String: String] = [:]
  var prepare: @Sendable (Workplace) throws -> Void = { _ in }

  var testDescription: String { name }

  /// A training of the tiny network; `options` come after what they replace.
  static func train(
    _ name: String, _ options: [String], code: Int32, _ phrases: String..., data: String = "digits",
    layers: String = Workplace.tiny, hasBegun: Bool = false, makes: Set<String> = [],
    shell: [String]? = nil, prepare: @escaping @Sendable (Workplace) throws -> Void = { _ in }
  ) -> BadInput {
    let usual = ["--layers", layers, "--data", data, "--batch-size", "8", "--epochs", "1"]
    // An option given twice counts the last time.
    return BadInput(
      name: name, arguments: ["train"] + usual + options, code: code, phrases: phrases,
      hasBegun: hasBegun, makes: makes, shell: shell, prepare: prepare)
  }

  /// A training with a file of the data set changed.
  static func data(
    _ name: String, _ file: Int, gz: Bool = false, code: Int32 = 65, _ phrases: String...,
    change: @escaping @Sendable ([UInt8]) -> [UInt8]?
  ) -> BadInput {
    var result = train(name, [], code: code, data: "bad") { place in
      try place.writeDigits("bad", gz: gz) { $0 == Dataset.files[file] ? change($1) : $1 }
    }
    result.phrases = phrases + (code == 65 ? [Dataset.files[file]] : [])
    return result
  }

  /// A network that makes no sense, or not for these images.
  static func layers(
    _ layers: String, column: Int? = nil, code: Int32? = nil, _ phrases: String...
  ) -> BadInput {
    var result = train(
      "layers: \(layers)", [], code: code ?? (column == nil ? 65 : 64), layers: layers)
    result.column = column
    result.phrases = phrases
    return result
  }

  /// A file of weights that is none: met by `evaluate` and by `predict`.
  static func weights(
    _ name: String, _ phrases: String..., code: Int32 = 65,
    prepare: @escaping @Sendable (Workplace) throws -> Void
  ) -> [BadInput] {
    [["evaluate", "w", "--data", "digits"], ["predict", "w", "digits/t10k-images-idx3-ubyte"]].map {
      BadInput(
        name: "\($0[0]): \(name)", arguments: $0 + ["--json"], code: code, phrases: phrases,
        prepare: prepare)
    }
  }

  static func other(
    _ name: String, _ arguments: [String], code: Int32, _ phrases: String...,
    environment: [String: String] = [:],
    prepare: @escaping @Sendable (Workplace) throws -> Void = { _ in }
  ) -> BadInput {
    BadInput(
      name: name, arguments: arguments, code: code, phrases: phrases, environment: environment,
      prepare: prepare)
  }

  private static func folder(_ path: String) throws {
    try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
  }

  // MARK: Data

  static let dataCases: [BadInput] = [
    data("gzip cut off", 0, gz: true, "it ends too early") { $0.dropLast($0.count / 2) },
    data("gzip cut off by a byte", 1, gz: true, "it ends too early") { $0.dropLast() },
    data("gzip with a wrong byte", 0, gz: true, "the gzip file is damaged") {
      var bytes = $0
      bytes[bytes.count / 2] ^= 0x10
      return bytes
    },
    data("wrong magic number", 0, "not an IDX file of images", "0x00000d03") {
      [0, 0, 13, 3] + $0.dropFirst(4)
    },
    data("a web page", 2, "not an IDX file", "0x3c21444f") { _ in Array("<!DOCTYPE html>".utf8) },
    data("an empty file", 3, "the file is empty") { _ in [] },
    data("a byte short", 0, "the file ends too early", "4111 bytes", "4112 bytes") {
      $0.dropLast()
    },
    data("a byte long", 3, "bytes follow", "29 bytes", "28 bytes") { $0 + [0] },
    data("sizes that overflow", 0, "more than memory can hold") { _ in
      idx([.max, .max, .max, .max], bytes: [])
    },
    data("sizes that wrap round to 0", 0, "more than memory can hold") { _ in
      idx([1 << 31, 1 << 31, 4], bytes: [])
    },
    data("a size like a house", 0, "the file ends too early") { _ in
      idx([.max, 8, 8], bytes: [1, 2, 3])
    },
    data("no images", 0, "holds no images") { _ in idx([0, 8, 8]) },
    data("images without pixels", 2, "no pixels") { _ in idx([20, 0, 8]) },
    data("a label too few", 1, "differ in number", "64 images, 63 labels") { _ in
      idx([63], bytes: .init(repeating: 1, count: 63))
    },
    data("images where labels belong", 1, "not an IDX file of labels", "swapped") { _ in
      idx([64, 8, 8])
    },
    data("a file missing", 2, code: 66, "lacks one of its four files", Dataset.files[2]) { _ in
      nil
    },
    train(
      "label outside the classes", [], code: 65, "label 9", "0 to 8", "10 outputs",
      layers: "flatten softmax(9)"),
    train("images of two sizes", [], code: 65, "differ in size", "8×8×1, test 4×16×1", data: "bad")
    {
      try $0.writeDigits("bad") { $0 == Dataset.files[2] ? idx([20, 4, 16]) : $1 }
    },
    train("no such folder", [], code: 66, "no such data set or folder", "nowhere", data: "nowhere"),
    train("a file as the folder", [], code: 66, "a file isn't a data set", data: "file") {
      try $0.write("file", [1])
    },
    train("an empty folder as a file", [], code: 66, "lacks one of its four files", data: "bad") {
      try $0.writeDigits("bad") { $0 == Dataset.files[0] ? nil : $1 }
      try folder("\($0.path)/bad/\(Dataset.files[0])")
    },
    train("an empty folder", [], code: 66, "lacks one of its four files", data: "bad") {
      try folder("\($0.path)/bad")
    },
    train("a set not on this machine", [], code: 66, "stridenet fetch mnist", data: "mnist"),
    train("an empty name", [], code: 66, "no such data set or folder", data: ""),
  ]

  // MARK: Options

  static let optionCases: [BadInput] = [
    train("epochs 0", ["--epochs", "0"], code: 64, "epochs out of range", "1 … 1,000,000,000"),
    train("epochs 1.5", ["--epochs", "1.5"], code: 64, "'1.5' is invalid for '--epochs"),
    train(
      "batch size 0", ["--batch-size", "0"], code: 64, "batch size out of range", "at least 1"),
    train("batch size -1", ["--batch-size", "-1"], code: 64, "batch size out of range", "-1"),
    train("batch size 65", ["--batch-size", "65"], code: 64, "at most 64, the number of training"),
    train("batch size 2⁶⁴", ["--batch-size", "18446744073709551616"], code: 64, "is invalid for"),
    train("learning rate nan", ["--learning-rate", "nan"], code: 64, "learning rate out of range"),
    train("learning rate inf", ["--learning-rate", "inf"], code: 64, "a finite number above 0"),
    train("learning rate 0", ["--learning-rate", "0"], code: 64, "learning rate out of range"),
    train("learning rate -1", ["--learning-rate", "-1"], code: 64, "found:    -1.0"),
    train("learning rate abc", ["--learning-rate", "abc"], code: 64, "'abc' is invalid for"),
    train("momentum 1", ["--momentum", "1"], code: 64, "momentum out of range", "0 up to"),
    train("momentum -0.1", ["--momentum", "-0.1"], code: 64, "momentum out of range", "-0.1"),
    train("momentum nan", ["--momentum", "nan"], code: 64, "momentum out of range"),
    train("threads 0", ["--threads", "0"], code: 64, "--threads out of range: found 0"),
    train("threads -2", ["--threads", "-2"], code: 64, "--threads out of range: found -2"),
    train("threads 1025", ["--threads", "1025"], code: 64, "expected 1 … 1024"),
    train("limit 0", ["--limit", "0"], code: 64, "can't be limited", "1 to 64"),
    train("limit -3", ["--limit", "-3"], code: 64, "can't be limited", "-3"),
    train("limit 65", ["--limit", "65"], code: 64, "can't be limited", "65", "1 to 64"),
    train("split 0", ["--split", "0"], code: 64, "the split leaves nothing", "0.0 of 84"),
    train("split 1", ["--split", "1"], code: 64, "the split leaves nothing"),
    train("split 1.5", ["--split", "1.5"], code: 64, "the split leaves nothing", "1.5"),
    train("split nan", ["--split", "nan"], code: 64, "the split leaves nothing", "nan"),
    train("split -1", ["--split", "-1"], code: 64, "the split leaves nothing", "-1.0"),
    train("freeze 0", ["--freeze", "0"], code: 64, "no layers", "'0'", "numbers from 1"),
    train("freeze 2-1", ["--freeze", "2-1"], code: 64, "no layers", "'2-1'"),
    train("freeze 1-x", ["--freeze", "1-x"], code: 64, "no layers", "'1-x'"),
    train("freeze all", ["--freeze", "1,99"], code: 64, "no such layers to freeze", "1, 99"),
    train("seed -1", ["--seed", "-1"], code: 64, "'-1' is invalid for '--seed"),
    train("no value", ["--seed"], code: 64, "Missing value for '--seed"),
    train("kernels", ["--kernels", "fast"], code: 64, "no kernel variant", "'fast'", ", auto"),
    train("two networks", ["cnn"], code: 64, "two networks", "'cnn' and --layers"),
    other(
      "two variants", ["cnn", "naive", "--kernels", "im2col", "--data", "digits"], code: 64,
      "two kernel variants", "'naive' and --kernels im2col"),
    other(
      "variant unknown", ["train", "cnn", "fast"], code: 64, "no kernel variant of that name",
      "'fast'"),
    other("model unknown", ["train", "resnet"], code: 64, "no model", "'resnet'", "cnn, flat"),
    other("variant alone", ["naive"], code: 64, "'naive'", "stridenet cnn naive"),
    other("command unknown", ["evalute", "w"], code: 64, "no model or command", "'evalute'"),
    other("option unknown", ["--epoch", "3"], code: 64, "Unknown option '--epoch'", "'--epochs'"),
    train(
      "a table and silence", ["--profile", "--quiet"], code: 64, "--profile and --quiet",
      "one of them"),
    train(
      "the table's old name", ["--explain", "--quiet"], code: 64, "--profile and --quiet"),
    other("explain elsewhere", ["evaluate", "w", "--explain"], code: 64, "Unknown option"),
    other("option of another", ["kernels", "--epochs", "3"], code: 64, "Unknown option"),
    other("one word too many", ["cnn", "naive", "more"], code: 64, "Unexpected argument 'more'"),
    other(
      "processor unknown", ["kernels"], code: 64, "no such instruction set", "'mmx'",
      environment: ["STRIDENET_ISA": "mmx"]),
    train(
      "diverges at once", ["--learning-rate", "1e30", "--save", "w"], code: 65,
      "training diverged", "epoch 1, batch", "1e+30",
      "no epoch was finished, so 'w' was not written",
      layers: "flatten relu(16) softmax(10)", hasBegun: true),
  ]

  // MARK: Networks

  static let layerCases: [BadInput] = [
    layers("conv(4,9) flatten softmax(10)", "a window is larger than its input", "9×9", "8×8×1"),
    layers("maxpool(4) conv(4,3) flatten softmax(10)", "layer 2, conv(4,3)", "2×2×1"),
    layers("maxpool(8x9) flatten softmax(10)", "a window is larger", "maxpool(8x9)"),
    layers("conv(4,3,padding=3) flatten softmax(10)", "padding out of range", "0 … 2"),
    layers("softmax(10)", "a dense layer takes flat vectors", "flatten layer before it"),
    layers("flatten relu(10)", "isn't a classifier", "ends in relu", "softmax(10)"),
    layers("flatten softmax(10) flatten", "isn't a classifier", "layer 3, flatten"),
    layers("conv(16777216,3) flatten softmax(10)", "layer too large"),
    layers("conv(16777216,16777216,1,16777215) flatten softmax(10)", "layer too large", "conv("),
    layers("flatten relu(16777216) softmax(16777216)", "layer too large", "layer 3"),
    layers("", column: 1, "no layers"),
    layers("  ", column: 1, "no layers"),
    layers("flatten softmx(10)", column: 9, "unknown layer", "'softmx'"),
    layers("conv(4,3,stride=0)", column: 17, "stride out of range", "'0'"),
    layers("conv(-4,3)", column: 6, "filters out of range", "'-4'"),
    layers("conv(4,3x-3)", column: 8, "size out of range"),
    layers("conv(4,3x3x3)", column: 8, "one number or two"),
    layers("conv(4)", column: 1, "conv without size", "conv(filters,size"),
    layers("conv(99999999999999999999,3)", column: 6, "filters out of range"),
    layers("flatten relu", column: 9, "relu without outputs"),
    layers(
      "conv(4,3,colour=1)", column: 10, "unknown argument of conv", "'colour'", "filters, size"),
    layers("conv(4,3,size=3)", column: 10, "size given twice"),
    layers("conv(filters=4,3)", column: 16, "by position after one by name", "size=3"),
    layers("conv(4,3,activation=tahn)", column: 21, "unknown activation", "'tahn'", "tanh"),
    layers("dense(4,relu,slope=0.1)", column: 20, "a slope without leaky_relu", "'0.1'", "leaky"),
    layers("relu(4,init=he)", column: 13, "unknown initializer", "'he'", "he_normal"),
    layers(
      "conv(4,3,init=uniform:1:0)", column: 15, "unknown initializer", "'uniform:1:0'", "lecun"),
    layers("conv(4,3,padding=1x2x3)", column: 18, "padding out of range", "'1x2x3'", "same, valid"),
    layers("conv(4,3,padding=sane)", column: 18, "padding out of range", "'sane'", "0x0x1x1"),
    layers("conv(4,3,groups=0)", column: 17, "groups out of range", "'0'"),
    layers("leaky_relu(4,1.5)", column: 14, "slope out of range", "'1.5'", "0 … 1"),
    layers(
      "flatten softmax(10,he_normal,2)", column: 30, "too many arguments for softmax", "at most 2"),
    layers("flatten(3)", column: 9, "too many arguments for flatten"),
    layers("flatten softmax(10", column: 16, "a bracket that isn't closed"),
    layers("flatten softmax(10 11)", column: 20, "unexpected character", "'1'"),
    layers("flatten softmax(10))", column: 20, "unknown layer", "')'"),
    layers("flatten softmax(,10)", column: 17, "no value for outputs"),
  ]

  // MARK: Saving

  /// A device that is always full. For the superuser one of our own, as the program might take it
  /// for a file and replace it: then the machine's is too good for a test.
  private static let makesFullDevice: @Sendable (Workplace) throws -> Void = {
    let path = "\($0.path)/full"
    #if os(Linux)
      if geteuid() == 0, mknod(path, S_IFCHR | 0o666, 1 << 8 | 7) == 0 { return }
    #endif
    symlink("/dev/full", path)
  }

  private static let keepsOldFile: @Sendable (Workplace) throws -> Void = {
    try $0.writeWeights("w", seed: 2)
  }

  static let saveCases: [BadInput] = [
    train(
      "save: no folder", ["--save", "no/w"], code: 73, "can't be created", "create the folder"),
    train("save: a folder", ["--save", "digits"], code: 73, "Is a directory", "digits"),
    train("save: a folder to be", ["--save", "w/"], code: 73, "can't be created", "w/"),
    train("save: no name", ["--save", ""], code: 73, "can't be created"),
    train(
      "save: name too long", ["--save", .init(repeating: "w", count: 300)], code: 73, "too long"),
    train("save: /proc", ["--save", "/proc/x"], code: 73, "can't be created", "/proc/x"),
    train(
      "save: a full device", ["--save", "full"], code: 74, "writing failed", "No space left",
      hasBegun: true, prepare: makesFullDevice),
    train(
      "save: a pipe", ["--save", "pipe"], code: 73, "a pipe can't take", "pipe",
      prepare: { mkfifo("\($0.path)/pipe", 0o600) }),
    train(
      "checkpoint: a pipe", ["--checkpoint", "pipe"], code: 73, "a pipe can't take", "pipe",
      prepare: { mkfifo("\($0.path)/pipe", 0o600) }),
    train(
      "save: file-size limit, sh", ["--save", "w", "--quiet"], code: 74, "File too large",
      "as it was",
      hasBegun: true, shell: ["/bin/sh", "-c", #"ulimit -f 1; exec "$0" "$@""#],
      prepare: keepsOldFile),
    train(
      "save: file-size limit, bash", ["--save", "w", "--quiet"], code: 74, "File too large",
      "as it was", hasBegun: true,
      shell: ["/usr/bin/env", "bash", "-c", #"ulimit -f 1; exec "$0" "$@""#],
      prepare: keepsOldFile),
    train(
      "save: file-size limit, no old file", ["--save", "w", "--quiet"], code: 74, "File too large",
      hasBegun: true, shell: ["/bin/sh", "-c", #"ulimit -f 1; exec "$0" "$@""#]),
    train(
      "few file descriptors", [], code: 73, "too few files may be open", "room for", "ulimit -n",
      shell: ["/bin/sh", "-c", #"ulimit -n 12; exec "$0" "$@""#]),
    train(
      "output to a full disk", [], code: 74, "cannot write", "standard output", "No space left",
      shell: ["/bin/sh", "-c", #"exec "$0" "$@" >full"#], prepare: makesFullDevice),
    train(
      "JSON to a full disk", ["--json"], code: 74, "cannot write", "standard output",
      shell: ["/bin/sh", "-c", #"exec "$0" "$@" >full"#], prepare: makesFullDevice),
    train(
      "closed output", [], code: 74, "cannot write", "standard output",
      shell: ["/bin/sh", "-c", #"exec "$0" "$@" >&-"#]),
  ]

  // MARK: Weight files

  static let weightCases: [BadInput] = [
    weights("no such file", "no such file", code: 66) { _ in },
    weights("a folder", "a folder isn't a file", code: 66) { try folder("\($0.path)/w") },
    weights("empty", "the file is too short", "0 bytes") { try $0.write("w", "") },
    weights("a text", "the header's length is wrong") { try $0.write("w", "These are weights.") },
    weights("header length huge", "the header's length is wrong") {
      try $0.write("w", [UInt8](repeating: 0xff, count: 8) + Array(repeating: 32, count: 99))
    },
    weights("header length 0", "the header's length is wrong", "found:    0 bytes") {
      try $0.write("w", [UInt8](repeating: 0, count: 64))
    },
    weights("header beyond the file", "length is wrong", "found:    57 bytes", "2 to 56 bytes") {
      try $0.write("w", [57, 0, 0, 0, 0, 0, 0, 0] + [UInt8](repeating: 32, count: 56))
    },
    weights("header no JSON", "the header isn't what it should be", "byte 8") {
      try $0.writeWeights("w", header: "weights: none")
    },
    weights("header ends early", "the header isn't what it should be") {
      try $0.writeWeights("w", header: #"{"a":{"dtype":"F32","shape":["#)
    },
    weights("header a list", "the header isn't what it should be") {
      try $0.writeWeights("w", header: "[1,2,3]")
    },
    weights("data beyond the file", "the data lies outside of the file") {
      try $0.writeWeights("w", header: #"{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}"#)
    },
    weights("a shape that overflows", "is too large") {
      let huge = "4611686018427387904"
      try $0.writeWeights(
        "w",
        header: #"{"a":{"dtype":"F32","shape":[\#(huge),\#(huge)],"data_offsets":[0,0]}}"#)
    },
    weights("offsets that overlap", "tensors overlap") {
      try $0.writeWeights(
        "w",
        header: #"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"#
          + #""b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#, data: [1, 2, 3])
    },
    weights("whole numbers", "have a type that isn't read", "I64") {
      try $0.writeWeights(
        "w", header: #"{"a":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}}"#, data: [1, 2])
    },
    weights("no metadata", "not a weight file of StrideNet", "no 'stridenet.input'") {
      try $0.writeWeights(
        "w", header: #"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#, data: [1])
    },
    weights("a wrong shape", "another shape", "layers.1.weight", "[5, 64]", "[10, 64]") {
      try $0.writeWeights(
        "w", architecture: Workplace.tiny,
        [("layers.1.weight", [5, 64], 0), ("layers.1.bias", [10], 0)])
    },
    weights("a tensor missing", "a weight is missing", "layers.1.bias") {
      try $0.writeWeights("w", architecture: Workplace.tiny, [("layers.1.weight", [10, 64], 0)])
    },
    weights("a tensor more", "doesn't have", "found:    more") {
      try $0.writeWeights(
        "w", architecture: Workplace.tiny,
        [("layers.1.weight", [10, 64], 0), ("layers.1.bias", [10], 0), ("more", [1], 0)])
    },
    weights("not a number", "a weight isn't a finite number", "layers.1.bias[9]") {
      try $0.writeWeights("w")
      try $0.write("w", try $0.read("w").dropLast(4) + [0, 0, 0xc0, 0x7f])
    },
    weights("weights too large", "numbers that aren't finite", "too large") {
      try $0.writeWeights(
        "w", architecture: "flatten dense(8) softmax(10)",
        [
          ("layers.1.weight", [8, 64], 3e38), ("layers.1.bias", [8], 0),
          ("layers.2.weight", [10, 8], -3e38), ("layers.2.bias", [10], 0),
        ])
    },
    weights("architecture no text", "unknown layer", "stridenet.architecture", "'what'") {
      try $0.writeWeights("w", architecture: "what is this")
    },
    weights("architecture empty", "no layers") { try $0.writeWeights("w", architecture: "") },
    weights("architecture enormous", "layer too large") {
      try $0.writeWeights("w", architecture: "conv(16000000,3) flatten softmax(10)")
    },
    weights("architecture large", "a weight is missing", "layers.0.weight") {
      try $0.writeWeights("w", architecture: "conv(16000000,3) flatten softmax(1)")
    },
    weights("architecture beyond 64 bits", "layer too large", "conv(16777216,1048576)") {
      try $0.writeWeights(
        "w", architecture: "conv(16777216,1048576) flatten softmax(10)",
        input: "1048576x1048576x1048576")
    },
    weights("input enormous", "layer too large", "flatten") {
      try $0.writeWeights("w", architecture: Workplace.tiny, input: "1048576x1048576x1048576")
    },
    weights("input no size", "an input size that isn't one", "'8x8'") {
      try $0.writeWeights("w", architecture: Workplace.tiny, input: "8x8")
    },
    weights("input negative", "an input size that isn't one") {
      try $0.writeWeights("w", architecture: Workplace.tiny, input: "8x-8x1")
    },
    weights("input doesn't fit", "a window is larger than its input", "2×2×1") {
      try $0.writeWeights("w", architecture: "conv(4,3) flatten softmax(10)", input: "2x2x1")
    },
    weights("images of another size", "images of another size", "8×8×1", "4×16×1") {
      try $0.writeWeights(
        "w", architecture: Workplace.tiny, input: "4x16x1",
        [("layers.1.weight", [10, 64], 0), ("layers.1.bias", [10], 0)])
    },
  ].flatMap { $0 }

  // MARK: Other commands

  static let otherCases: [BadInput] = [
    other("predict: no images", ["predict", "w"], code: 64, "Missing expected argument '<images>"),
    other("evaluate: no file", ["evaluate"], code: 64, "Missing expected argument '<file>"),
    other(
      "predict: labels as images", ["predict", "w", "digits/t10k-labels-idx1-ubyte"], code: 65,
      "not an IDX file of images", "labels"
    ) { try $0.writeWeights("w") },
    other("predict: images missing", ["predict", "w", "no"], code: 66, "no such file", "no") {
      try $0.writeWeights("w")
    },
    other(
      "evaluate: too few classes", ["evaluate", "w", "--data", "digits"], code: 65,
      "a label is outside the classes", "0 to 4"
    ) { try $0.writeWeights("w", "flatten softmax(5)") },
    other(
      "evaluate: no classifier", ["evaluate", "w", "--data", "digits"], code: 65,
      "isn't a classifier", "dense(10)"
    ) { try $0.writeWeights("w", "flatten dense(10)") },
    other("fetch: unknown", ["fetch", "cifar"], code: 64, "no such data set", "mnist or fashion-"),
    other("fetch: nothing", ["fetch"], code: 64, "Missing expected argument '<set>'"),
    other(
      "fetch: no address", ["fetch", "mnist", "--mirror", "example"], code: 64,
      "isn't a web address"),
    other(
      "fetch: no place", ["fetch", "mnist", "--mirror", "http://127.0.0.1:9"], code: 73,
      "folder can't be created", "/proc/x/mnist", environment: ["STRIDENET_DATA": "/proc/x"]),
    other("export: no target", ["export", "w"], code: 64, "Missing expected argument '<target>'"),
    export("unknown ending", ["m.txt"], code: 64, "no format", "ends in .txt", ".c", ".onnx"),
    export("no ending", ["m"], code: 64, "no format", "without an ending", "--format"),
    export("unknown format", ["m.c", "--format", "pdf"], code: 64, "'pdf' is invalid"),
    export("over itself", ["./w", "--format", "c"], code: 64, "would replace the saved network"),
    export("no folder", ["none/m.onnx"], code: 73, "none/m.onnx"),
    other("export: no weights", ["export", "w", "m.c"], code: 66, "w"),
    other(
      "import: no size",
      ["import", "w", "--layers", Workplace.tiny, "--input", "8x8", "--save", "n"],
      code: 64, "an input size that isn't one", "--input", "'8x8'"),
    other(
      "import: wrong layers",
      ["import", "w", "--layers", "flaten", "--input", "8x8x1", "--save", "n"], code: 64,
      "unknown layer", "'flaten'"
    ) { try $0.writeWeights("w") },
    other(
      "import: not PyTorch's names",
      ["import", "w", "--layers", Workplace.tiny, "--input", "8x8x1", "--save", "n"], code: 65,
      "a tensor is missing", "layers.1.weight", "nn.Linear(64, 10)"
    ) { try $0.writeWeights("w") },
    other(
      "import: no file",
      ["import", "w", "--layers", Workplace.tiny, "--input", "8x8x1", "--save", "n"], code: 66, "w"),
  ]

  private static func export(
    _ name: String, _ arguments: [String], code: Int32, _ phrases: String...
  ) -> BadInput {
    BadInput(
      name: "export: \(name)", arguments: ["export", "w"] + arguments, code: code,
      phrases: phrases, prepare: { try $0.writeWeights("w") })
  }
}

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

// MARK: - Good behaviour

@Suite struct CommandLineUse {
  private static let brief = ["--data", "digits", "--batch-size", "16", "--epochs", "2"]
  private static let tiny = ["--layers", Workplace.tiny] + brief

  @Test func trainingIsReportedAsJSON() throws {
    let place = try Workplace()
    let end = try place.run(
      Self.tiny + ["--json", "--seed", "7", "--threads", "2", "--kernels", "im2col"])
    try #require(end.code == 0 && end.err.isEmpty, "\(end.err)")
    let events = end.json
    try #require(events.count == 4 && end.lines.count == 4, "\(end.out)")
    #expect(events.map { $0["event"] as? String } == ["start", "epoch", "epoch", "done"])
    let start = events[0]
    #expect(start["model"] as? String == "layers" && start["layers"] as? String == Workplace.tiny)
    #expect(start["kernels"] as? String == "im2col" && start["isa"] is String)
    #expect(start["threads"] as? Int == 2 && start["parameters"] as? Int == 650)
    #expect(start["train_images"] as? Int == 64 && start["test_images"] as? Int == 20)
    #expect(start["seed"] as? Int == 7 && start["data"] as? String == "digits")
    var seconds = 0.0
    for (index, epoch) in events[1...2].enumerated() {
      #expect(epoch["epoch"] as? Int == index + 1)
      for name in ["seconds", "images_per_second", "train_cce", "test_cce"] {
        #expect(try #require(epoch[name] as? Double) > 0)
      }
      for name in ["train_ce", "test_ce"] {
        #expect((0...1).contains(try #require(epoch[name] as? Double)))
      }
      seconds += epoch["seconds"] as! Double
    }
    let done = events[3]
    #expect(abs(try #require(done["seconds"] as? Double) - seconds) < 1e-9)
    let (accuracy, error) = (done["test_accuracy"] as? Double, events[2]["test_ce"] as? Double)
    #expect(abs(try #require(accuracy) + #require(error) - 1) < 1e-6)
    let digest = try #require(done["weights_sha256"] as? String)
    #expect(digest.count == 64 && digest.allSatisfy(\.isHexDigit))
  }

  /// By the name's ending, or whatever that is.
  @Test func exportsWhatTheLibraryDoes() throws {
    let place = try Workplace()
    try place.writeWeights("w", "conv(2,3) flatten softmax(10)")
    for arguments in [["m.c"], ["m.ONNX"], ["old.m", "--format", "c"], ["m", "--format", "onnx"]] {
      let end = try place.run(["export", "w"] + arguments)
      #expect(end.code == 0 && end.err.isEmpty, "\(end.err)")
      #expect(end.lines == ["\(arguments[0]): conv(2,3) flatten softmax(10)"])
    }
    let network = try Network.load(from: place.path + "/w")
    try network.exportC(to: place.path + "/c")
    try network.exportONNX(to: place.path + "/onnx")
    #expect(try place.read("m.c") == place.read("c") && place.read("old.m") == place.read("c"))
    #expect(try place.read("m.ONNX") == place.read("onnx") && place.read("m") == place.read("onnx"))

    // There and back again.
    let there = try place.run("export", "w", "p.safetensors")
    #expect(try there.code == 0 && there.out == network.pyTorchSource(file: "p.safetensors") + "\n")
    let layers = "conv(2,3) flatten softmax(10)"
    let back = try place.run(
      "import", "p.safetensors", "--layers", layers, "--input", "8x8x1", "--save", "n")
    #expect(back.code == 0 && back.lines == ["n: \(layers)"], "\(back.err)")
    #expect(try place.read("n") == place.read("w"))
  }

  @Test(arguments: [
    ("cnn", "cnn", "auto"), ("flat", "flat", "auto"), ("cnn naive", "cnn", "naive"),
    ("train cnn im2col", "cnn", "im2col"), ("train flat --kernels stride_groups", "flat", nil),
    ("train", "cnn", "auto"), ("", "cnn", "auto"), ("--seed 3", "cnn", "auto"),
    ("train --limit 16 cnn auto", "cnn", "auto"),
  ])
  func startsTheRightThing(words: String, model: String, kernels: String?) throws {
    let place = try Workplace()
    // What is found without being named: MNIST in the cache folder.
    try place.writeDigits("cache/stridenet/mnist", gz: true)
    let end = try place.run(
      words.split(separator: " ").map(String.init)
        + ["--epochs", "1", "--batch-size", "16", "--json"])
    #expect(end.code == 0 && end.err.isEmpty, "\(end.err)")
    let start = try #require(end.json.first)
    #expect(start["model"] as? String == model)
    #expect(start["layers"] as? String == Architecture.presets.first { $0.name == model }?.text)
    // Unless bound otherwise, it is "auto" that isn't named.
    let expected = kernels == "auto" ? KernelChoice.bound.name : kernels ?? "stride_groups"
    #expect(start["kernels"] as? String == (words.hasSuffix("auto") ? "auto" : expected))
    #expect(start["train_images"] as? Int == (words.contains("--limit") ? 16 : 64))
    #expect((start["data"] as? String)?.contains("/stridenet/mnist") == true)
    #expect(end.json.last?["event"] as? String == "done")
  }

  @Test func theBuiltInSampleNeedsNothing() throws {
    let place = try Workplace()
    let end = try place.run("flat", "--limit", "640", "--epochs", "1")
    #expect(end.code == 0 && end.err.isEmpty, "\(end.err)")
    #expect(end.out.contains("sample of MNIST") && end.out.contains("640 training and 10,000 test"))
  }

  @Test(arguments: [
    Workplace.tiny, "conv(4,3) maxpool(2) flatten relu(8) softmax(10)",
    "conv(4,3x5,stride=2x1,padding=1,activation=sigmoid) avgpool(2) flatten softmax(10)",
    "flatten dense(12) activation(softmax)", "conv(10,8,activation=softmax)",
  ])
  func whatIsSavedEvaluatesTheSame(layers: String) throws {
    let place = try Workplace()
    let trained = try place.run(["--layers", layers] + Self.brief + ["--save", "w", "--json"])
    try #require(trained.code == 0, "\(trained.err)")
    #expect(try place.names.filter { !$0.hasPrefix("digits") } == ["w"])
    let epoch = try #require(trained.json.dropLast().last)
    let done = try #require(trained.json.last)
    let checked = try place.run("evaluate", "w", "--data", "digits", "--json")
    try #require(checked.code == 0 && checked.json.count == 1, "\(checked.err)")
    let result = checked.json[0]
    #expect(result["event"] as? String == "evaluate" && result["test_images"] as? Int == 20)
    #expect(result["test_ce"] as? Double == epoch["test_ce"] as? Double)
    #expect(result["test_cce"] as? Double == epoch["test_cce"] as? Double)
    #expect(result["weights_sha256"] as? String == done["weights_sha256"] as? String)
    #expect(result["test_accuracy"] as? Double == done["test_accuracy"] as? Double)
    // Saved again over the old file: the same bytes.
    let first = try place.read("w")
    let again = try place.run(["--layers", layers] + Self.brief + ["--save", "w", "--quiet"])
    #expect(again.code == 0)
    #expect(try place.read("w") == first)
  }

  @Test func predictsRowByRow() throws {
    let place = try Workplace()
    try place.writeWeights("w")
    try place.writeDigits("packed", gz: true)
    let files = ["digits/t10k-images-idx3-ubyte", "packed/train-images-idx3-ubyte.gz"]
    let end = try place.run(["predict", "w"] + files + ["--json"])
    try #require(end.code == 0 && end.err.isEmpty, "\(end.err)")
    let rows = end.json
    try #require(rows.count == 84 && end.lines.count == 84)
    for (at, row) in rows.enumerated() {
      #expect(row["event"] as? String == "prediction")
      #expect(row["file"] as? String == files[at < 20 ? 0 : 1])
      #expect(row["index"] as? Int == (at < 20 ? at : at - 20))
      let probabilities = try #require(row["probabilities"] as? [Double])
      #expect(probabilities.count == 10 && abs(probabilities.reduce(0, +) - 1) < 1e-5)
      #expect(row["class"] as? Int == probabilities.firstIndex(of: probabilities.max()!))
    }
    let text = try place.run(["predict", "w"] + files)
    #expect(text.code == 0 && text.lines.count == 84)
    #expect(text.lines[0].hasPrefix("\(files[0]) 0  \(rows[0]["class"] as! Int)  "))
  }

  private func digest(_ place: Workplace, _ options: [String]) throws -> String {
    let layers = ["--layers", "conv(4,3) maxpool(2) flatten softmax(10)"]
    let end = try place.run(layers + Self.brief + ["--json", "--batch-size", "40"] + options)
    #expect(end.code == 0, "\(end.err)")
    return try #require(end.json.last?["weights_sha256"] as? String)
  }

  @Test func theSeedDecidesEverything() throws {
    let place = try Workplace()
    let first = try digest(place, ["--seed", "5"])
    #expect(try digest(place, ["--seed", "5"]) == first)
    #expect(try digest(place, ["--seed", "6"]) != first)
    let split = try digest(place, ["--seed", "5", "--split", "0.7"])
    #expect(try split == digest(place, ["--seed", "5", "--split", "0.7"]))
    #expect(split != first)
  }

  @Test(arguments: ["naive", "stride_groups", "im2col", "auto"])
  func theNumberOfThreadsDoesNotMatter(kernels: String) throws {
    let place = try Workplace()
    let digests = try ["1", "2", "3", "8"].map {
      try digest(place, ["--kernels", kernels, "--threads", $0])
    }
    #expect(Set(digests).count == 1, "\(digests)")
  }

  @Test func aPipeGetsALineAnEpoch() throws {
    let place = try Workplace()
    let end = try place.run(
      Self.tiny + ["--save", "w"], shell: ["/bin/sh", "-c", #""$0" "$@" 2>&1 | cat"#])
    #expect(end.code == 0 && !end.out.contains("\r"), "\(end.out)")
    let lines = end.lines.filter { !$0.contains("debug build") && !$0.contains("-->") }
    let starts = ["network", "data", "kernels", "epoch 1", "epoch 2", "test accuracy", "saved"]
    #expect(lines.count == starts.count, "\(end.out)")
    for (line, start) in zip(lines, starts) { #expect(line.hasPrefix(start), "\(line)") }
  }

  @Test func quietPrintsTheLastLineAlone() throws {
    let place = try Workplace()
    let text = try place.run(Self.tiny + ["--quiet", "--save", "w"])
    #expect(text.code == 0 && text.err.isEmpty && text.lines.count == 1, "\(text.out)\(text.err)")
    #expect(text.out.hasPrefix("test accuracy ") && text.out.contains("SHA-256"))
    let json = try place.run(Self.tiny + ["--quiet", "--json"])
    #expect(json.code == 0 && json.err.isEmpty && json.lines.count == 1, "\(json.out)\(json.err)")
    #expect(json.json.first?["event"] as? String == "done")
  }

  // MARK: Explaining

  // In a debug build the machine's peak takes minutes to measure.
  private static let isRelease = Comment("roofs are measured in release builds")

  /// Every kind of layer, together and on its own.
  private static let varied =
    "conv(4,3) maxpool(2) conv(60,2,activation=sigmoid) avgpool(2) flatten relu(8) softmax(10)"
  /// Its passes in the order of a step; of the kernels the names but for the variant.
  private static func variedPasses(_ kernels: String) -> [(
    layers: [Int], pass: String, kernel: String
  )] {
    let isDirect = kernels == "direct" || kernels == "auto"
    return [([], "gather", "scale_bytes")]
      + (isDirect
        ? [([1, 2], "forward", "conv_pool_forward_")]
        : [([1, 2], "forward", "conv_forward_"), ([1, 2], "forward", "pool_max_forward_")])
      + variedRest
  }
  private static let variedRest: [(layers: [Int], pass: String, kernel: String)] = [
    ([3], "forward", "conv_forward_"),
    ([4], "forward", "pool_avg_forward_"), ([6], "forward", "dense_forward"),
    ([7], "forward", "dense_forward"), ([], "forward, gradient", "softmax_cross_entropy"),
    ([7], "weight gradient", "gemm"), ([7], "input gradient", "gemm"),
    ([6], "activation gradient", "relu_backward"), ([6], "weight gradient", "gemm"),
    ([6], "input gradient", "gemm"), ([4], "input gradient", "pool_avg_backward_"),
    ([3], "activation gradient", "sigmoid_backward"),
    ([3], "weight gradient", "conv_weight_gradient_"),
    ([3], "input gradient", "conv_input_gradient_"),
    ([1, 2], "input gradient", "pool_max_backward_"),
    ([1, 2], "weight gradient", "conv_weight_gradient_"), ([], "update", "sgd"),
  ]

  @Test(.enabled(if: !KernelChoice.isDebugBuild, isRelease), arguments: KernelChoice.names)
  func explainsEveryPass(kernels: String) throws {
    let place = try Workplace()
    let end = try place.run(
      ["--layers", Self.varied] + Self.brief
        + ["--profile", "--json", "--kernels", kernels, "--threads", "2"])
    try #require(end.code == 0 && end.err.isEmpty, "\(end.err)")
    let rows = end.json.filter { $0["event"] as? String == "pass" }
    let passes = Self.variedPasses(kernels)
    try #require(rows.count == passes.count, "\(end.out)")
    for (row, expected) in zip(rows, passes) {
      #expect(row["layers"] as? [Int] == expected.layers && row["pass"] as? String == expected.pass)
      #expect(row["fused"] as? Bool == (expected.layers.count > 1))
      let kernel = try #require(row["kernel"] as? String)
      #expect(kernel.hasPrefix(expected.kernel), "\(row)")
      let why = try #require(row["why"] as? String)
      #expect(!why.isEmpty)
      if expected.kernel.hasPrefix("conv_") && kernels != "auto" {
        #expect(kernel == expected.kernel + kernels && why == "bound by --kernels")
      }
      for name in ["bytes", "predicted_seconds", "seconds"] {
        #expect(try #require(row[name] as? Double) > 0, "\(name): \(row)")
      }
      let hasOperations = ["conv_", "dense_", "gemm"].contains { kernel.hasPrefix($0) }
      #expect(try (#require(row["flop"] as? Double) > 0) == hasOperations)
    }
    if kernels == "auto" {
      // The convolution with 4 channels going in; the others say why they aren't like that.
      let narrow = rows.filter { $0["kernel"] as? String == "conv_input_gradient_im2col" }
      #expect(narrow.count == 1 && (narrow[0]["why"] as? String)?.contains("channels") == true)
      #expect(rows.contains { $0["kernel"] as? String == "conv_forward_direct" })
    }
    // Sums, and the time that training says it took.
    let total = try #require(end.json.first { $0["event"] as? String == "passes" })
    #expect(total["steps"] as? Int == 8 && total["images_per_step"] as? Double == 16)
    func number(_ event: [String: Any]?, _ name: String) throws -> Double {
      try #require(event?[name] as? Double)
    }
    for name in ["flop", "bytes", "predicted_seconds", "seconds"] {
      let (sum, all) = (try rows.reduce(0) { try $0 + number($1, name) }, try number(total, name))
      #expect(abs(sum - all) <= 1e-9 * all, "\(name)")
    }
    let accounted = try number(total, "accounted")
    #expect(accounted > 0 && accounted <= 1)
    let wall = try number(total, "seconds") / accounted * 8
    let trained = try number(end.json.last, "seconds")
    #expect(abs(wall - trained) <= 0.05 * trained + 0.001, "\(wall) s, \(trained) s")
  }

  /// The table has the same rows; the weights are those of an unexplained run.
  @Test(.enabled(if: !KernelChoice.isDebugBuild, isRelease)) func explanationIsATable() throws {
    let place = try Workplace()
    let plain = try place.run(["--layers", Self.varied] + Self.brief)
    let end = try place.run(["--layers", Self.varied] + Self.brief + ["--profile"])
    try #require(end.code == 0 && end.err.isEmpty, "\(end.err)")
    let start = try #require(
      end.lines.firstIndex { $0.hasPrefix("explain  the mean of 8 steps of 16.0") })
    let passes = Self.variedPasses("auto")
    for (line, expected) in zip(end.lines[(start + 2)...], passes) {
      let number = expected.layers.map(String.init).joined(separator: "+")
      #expect(line.hasPrefix("  \(number) ") || number.isEmpty, "\(line)")
      #expect(line.contains(" \(expected.pass)  ") && line.contains("  \(expected.kernel)"))
    }
    #expect(end.lines[start + 2 + passes.count].contains(" total "))
    #expect(end.out.contains("% of the wall time\n"))
    #expect(end.lines.last?.suffix(64) == plain.lines.last?.suffix(64))
  }

  /// On a network of a real size little goes unaccounted for, and the operations are those that
  /// the benchmark counts.
  @Test(.enabled(if: !KernelChoice.isDebugBuild, isRelease)) func explanationAddsUp() throws {
    let place = try Workplace()
    let end = try place.run(
      "cnn", "--data", "sample", "--limit", "6400", "--epochs", "1", "--profile", "--json")
    let total = try #require(end.json.first { $0["event"] as? String == "passes" })
    #expect(try #require(total["accounted"] as? Double) > 0.7, "\(total)")
    let text = try #require(Architecture.presets.first { $0.name == "cnn" }).text
    let network = Network(try Architecture.layers(text))
    try network.build(for: Shape(28, 28, 1))
    let operations = 64 * network.operations(training: true)
    // The benchmark leaves out no layer's input gradient but the first's: neither does a step.
    #expect(abs(try #require(total["flop"] as? Double) - operations) <= 1e-9 * operations)
  }

  /// Where perf isn't permitted, `make profile` prints that table and says why.
  @Test(.enabled(if: !KernelChoice.isDebugBuild, isRelease)) func profilesWithoutPerf() throws {
    let place = try Workplace()
    let script = DocumentationTests.root.appending(path: "Benchmarks/profile.sh").path
    try place.write(
      "perf", "#!/bin/sh\necho 'Error:' >&2\necho 'Access is limited.' >&2\nexit 255\n")
    chmod("\(place.path)/perf", 0o755)
    let end = try place.run(
      ["flat"], shell: ["/bin/sh", "-c", #"PATH=$PWD:$PATH; exec sh "\#(script)" "$0" "$@""#])
    #expect(end.code == 0 && end.err.isEmpty, "\(end.err)")
    let first =
      "profile: by the program's own timers, since perf may not record here: Access is limited."
    #expect(end.lines.first == first, "\(end.out)")
    #expect(end.out.contains("\nexplain  ") && end.out.contains(" sgd "))
  }

  /// The examples use the public interface alone; each runs on a small data set.
  @Test(arguments: [
    ("LeNet", ["wide", "1"], "parameters"), ("CustomLayer", ["digits"], "layers.2.scale"),
    ("Transfer", ["digits", "digits", "40"], "from nothing"),
  ])
  func examplesRun(name: String, arguments: [String], text: String) throws {
    let place = try Workplace()
    // LeNet's windows need larger images.
    let train = try NetworkTests.sample.get()
    func write(_ set: ImageSet, _ images: String, _ labels: String) throws {
      try place.write(
        "wide/\(images)", idx([UInt32(set.count), 28, 28], bytes: set.pixels))
      try place.write("wide/\(labels)", idx([UInt32(set.count)], bytes: set.labels))
    }
    try FileManager.default.createDirectory(
      atPath: "\(place.path)/wide", withIntermediateDirectories: true)
    try write(train.train.prefix(64), Dataset.files[0], Dataset.files[1])
    try write(train.test.prefix(32), Dataset.files[2], Dataset.files[3])
    let end = try place.run(
      arguments, shell: ["/bin/sh", "-c", "shift; exec \"$EXAMPLE\" \"$@\"", "sh"],
      environment: ["EXAMPLE": Workplace.built(name)])
    #expect(end.code == 0 && end.out.contains(text), "\(end.out) \(end.err)")
  }

  // MARK: Signals

  @Test(arguments: [SIGINT, SIGTERM, SIGHUP]) func aSignalEndsTrainingInGoodOrder(signal: Int32)
    throws
  {
    let place = try Workplace()
    let running = try place.start(Workplace.endless + ["--save", "w", "--json"])
    try running.wait(for: #""epoch":3"#)
    let (end, time) = stop(running, signal)
    #expect(
      end.code == 128 + signal && !end.wasKilled && time < .seconds(2), "\(end.code) after \(time)")
    let last = try #require(end.json.dropLast().last?["epoch"] as? Int)
    #expect(end.err == "stopped; 'w' has the weights of epoch \(last)\n")
    let done = try #require(end.json.last)
    #expect(done["event"] as? String == "done" && end.json.count == end.lines.count)
    let check = try place.run("evaluate", "w", "--data", "digits", "--json")
    #expect(check.code == 0, "\(check.err)")
    #expect(check.json.first?["weights_sha256"] as? String == done["weights_sha256"] as? String)
    #expect(try place.names.filter { !$0.hasPrefix("digits") } == ["w"])
  }

  private static let run = [
    "--layers", "flatten batchnorm dropout(0.2) softmax(10)", "--data", "digits", "--batch-size",
    "8",
    "--epochs", "40", "--optimizer", "adamw", "--ema", "0.9", "--schedule", "warmup:2,cosine",
    "--seed",
    "3", "--best",
  ]

  private func digest(_ end: Workplace.Outcome) throws -> String {
    #expect(end.code == 0, "\(end.err)")
    return try #require(end.json.last?["weights_sha256"] as? String)
  }

  /// A run that a signal ended goes on to the weights that it would have come to.
  @Test(arguments: [SIGINT, SIGTERM, SIGHUP]) func stoppedAndResumed(signal: Int32) throws {
    let place = try Workplace()
    let whole = try digest(try place.run(Self.run + ["--json"]))
    let running = try place.start(
      Self.run.map { $0 == "40" ? "100000" : $0 } + ["--checkpoint", "c", "--json"])
    try running.wait(for: #""epoch":3"#)
    let (end, _) = stop(running, signal)
    #expect(end.code == 128 + signal && end.err.contains("--resume c"), "\(end.err)")
    // Other settings than it began with are refused, and named.
    let other = try place.run("train", "--resume", "c", "--epochs", "40")
    #expect(other.code == 64 && other.err.contains("training.epochs: 40, 100000"), "\(other.err)")

    // The same, ended after some epochs by the number of them in its own checkpoints.
    let first = try place.start(
      Self.run + ["--checkpoint", "d", "--checkpoint-every", "3", "--threads", "1", "--json"])
    try first.wait(for: #""epoch":5"#)
    _ = stop(first, signal)
    let resumed = try place.run("train", "--resume", "d", "--threads", "2", "--json")
    #expect(try digest(resumed) == whole)
    #expect(try place.run("evaluate", "d", "--data", "digits").code == 0)
  }

  /// Killed at any instant, the last checkpoint loads and leads to the same weights.
  @Test func killedAndResumed() throws {
    let place = try Workplace()
    let whole = try digest(try place.run(Self.run + ["--json"]))
    for round in 1...4 {
      let running = try place.start(
        round == 1
          ? Self.run + ["--checkpoint", "c", "--json"] : ["train", "--resume", "c", "--json"])
      if round == 1 { try running.wait(for: #""epoch":2"#) }
      Thread.sleep(forTimeInterval: 0.01 * Double(round))
      running.send(SIGKILL)
      _ = running.end()
      #expect(try Checkpoint(from: "\(place.path)/c").epochs >= 1)
    }
    #expect(try digest(try place.run("train", "--resume", "c", "--json")) == whole)
    // Nor does anything stay of what was half written.
    #expect(try place.names.filter { !$0.hasPrefix("digits") } == ["c"])
  }

  /// Nothing is left to train: what was learned is saved all the same, and said to be.
  @Test func aFinishedCheckpointIsSaved() throws {
    let place = try Workplace()
    let whole = try digest(try place.run(Self.run + ["--checkpoint", "c", "--json"]))
    let again = try place.run("train", "--resume", "c", "--save", "w", "--json")
    #expect(try digest(again) == whole)
    let check = try place.run("evaluate", "w", "--data", "digits", "--json")
    #expect(check.code == 0 && check.json.first?["weights_sha256"] as? String == whole)
  }

  /// What nohup does: the terminal may be closed.
  @Test func nohupGoesOn() throws {
    let place = try Workplace()
    let running = try place.start(
      Workplace.endless + ["--json"], shell: ["/bin/sh", "-c", #"trap "" HUP; exec "$0" "$@""#])
    try running.wait(for: #""epoch":2"#)
    running.send(SIGHUP)
    let seen = running.out.count
    while running.out.count < seen + 2000 { Thread.sleep(forTimeInterval: 0.005) }
    #expect(stop(running, SIGTERM).0.code == 128 + SIGTERM)
  }

  /// A pipe that somebody reads is written to, once, and not opened before.
  @Test func writesToPipes() throws {
    let place = try Workplace()
    try place.writeWeights("w")
    for (arguments, text) in [
      (["export", "w", "pipe.c"], "int "), (["augment", "shift=1", "--out", "pipe.png"], "PNG"),
    ] {
      let pipe = arguments.first { $0.hasPrefix("pipe") }!
      mkfifo("\(place.path)/\(pipe)", 0o600)
      let end = try place.run(
        arguments + (arguments[0] == "augment" ? ["--data", "digits"] : []),
        shell: ["/bin/sh", "-c", "timeout 60 cat \(pipe) > got & \"$0\" \"$@\"; wait"])
      #expect(end.code == 0, "\(end.err)")
      #expect(String(decoding: try place.read("got"), as: UTF8.self).contains(text))
    }
  }

  /// Where data lies doesn't matter, what it is does.
  @Test func resumedWithTheDataElsewhere() throws {
    let place = try Workplace()
    let whole = try digest(try place.run(Self.run + ["--json"]))
    let running = try place.start(Self.run + ["--checkpoint", "c", "--json"])
    try running.wait(for: #""epoch":2"#)
    _ = stop(running, SIGINT)
    try FileManager.default.moveItem(atPath: "\(place.path)/digits", toPath: "\(place.path)/moved")
    let lost = try place.run("train", "--resume", "c")
    #expect(lost.code == 66 && lost.err.contains("--data"), "\(lost.err)")
    try place.writeDigits("other") { file, bytes in
      file.hasPrefix("t10k") ? bytes : bytes.dropLast() + [bytes.last! ^ 1]
    }
    let other = try place.run("train", "--resume", "c", "--data", "other")
    #expect(other.code == 65 && other.err.contains("other data"), "\(other.err)")
    #expect(
      try digest(try place.run("train", "--resume", "c", "--data", "moved", "--json")) == whole)
    // From then on it knows.
    #expect(try digest(try place.run("train", "--resume", "c", "--json")) == whole)
  }

  /// Errors call a key what the file calls it.
  @Test(arguments: [
    ("training.learning_rate", #""fast""#), ("training.learning_rate", "-1"),
    ("training.learning_rate", "1e300"), ("training.batch_size", "1.5"),
    ("training.batch_size", "0"),
    ("training.batch_size", "1e300"), ("training.epochs", "9223372036854775807"),
    ("training.epochs", "9223372036854775808"), ("training.epochs", "[]"),
    ("training.average_decay", "1"), ("training.average_decay", "{}"), ("training.patience", "0"),
    ("training.patience", "-1e19"), ("training.keeps_best", "3"), ("training.seed", "-1"),
    ("training.seed", "18446744073709551616"), ("training.schedule", #""warmup:1e300,cosine""#),
    ("training.schedule", #""step:9223372036854775807:0.5""#),
    ("training.loss", #""cross_entropy:1e300""#), ("training.augmentation", #""shift=1e300""#),
    ("training.augmentation", "1"), ("training.optimizer.momentum", "1e300"),
    ("training.optimizer.weight_decay", "11"), ("training.optimizer.weight_decay", #""x""#),
    ("training.optimizer.clip_norm", "-1"), ("training.optimizer.l1", "1e39"),
    ("training.optimizer.beta2", "1"), ("training.optimizer.epsilon", "0"),
    ("training.optimizer.method", #""adamm""#), ("limit", "1.5"), ("limit", "1e300"),
    ("split", #""half""#), ("validate", "true"), ("data", "1"), ("kernels", "1"), ("layers", "1"),
  ])
  func configurationErrorsNameTheKey(key: String, value: String) throws {
    let keys = key.split(separator: ".")
    let text = keys.reversed().reduce(value) { #"{"\#($1)":\#($0)}"# }
    let error = try #require(throws: StrideNetError.self) {
      try RunConfiguration.parse(Array(text.utf8), at: "run.json")
    }
    #expect(error.place == "run.json, \(key)", "\(error)")
  }

  @Test func configurationsRepeatRuns() throws {
    let place = try Workplace()
    let first = try digest(try place.run(Self.run + ["--write-config", "run.json", "--json"]))
    #expect(try digest(try place.run("train", "--config", "run.json", "--json")) == first)
    let other = try place.run("train", "--config", "run.json", "--seed", "4", "--json")
    #expect(try digest(other) != first)
    try place.write("bad.json", #"{"training": {"epoch": 3}}"#)
    let refused = try place.run("train", "--config", "bad.json")
    #expect(refused.code == 64 && refused.err.contains("training.epoch"), "\(refused.err)")
    for (text, parts) in [
      (#"{"training": {"epochs": 0}}"#, ["bad.json, training", "epochs out of range"]),
      (#"{"layers": "flatten sofmax(10)"}"#, ["bad.json, layers", "column 9", "sofmax"]),
    ] {
      try place.write("bad.json", text)
      let refused = try place.run("train", "--config", "bad.json")
      #expect(refused.code == 64 && parts.allSatisfy(refused.err.contains), "\(refused.err)")
    }
    // The file says what was a default: which data, which kernels.
    let brief = ["cnn", "--limit", "64", "--epochs", "1", "--validate", "0.1"]
    let end = try place.run(brief + ["--write-config", "cnn.json"])
    #expect(end.code == 0 && end.out.contains("validation CCE"), "\(end.out) \(end.err)")
    let text = String(decoding: try place.read("cnn.json"), as: UTF8.self)
    #expect(text.contains(#""kernels" : "#) && text.contains(#""data" : "#), "\(text)")
    let again = try place.run("train", "--config", "cnn.json")
    #expect(again.lines.last?.suffix(64) == end.lines.last?.suffix(64))
    #expect(again.out.contains("validation CCE"), "\(again.out)")
  }

  @Test(arguments: [
    (["--optimizer", "adamm"], "no optimiser"),
    (["--optimizer", "adam", "--momentum", "0.5"], "--momentum"),
    (["--beta1", "0.5"], "--beta1"), (["--beta2", "0.5"], "--beta2"),
    (["--epsilon", "1"], "--epsilon"),
    (["--weight-decay", "-1"], "weight decay"), (["--l1", "nan"], "L1"),
    (["--clip-norm", "0"], "clip norm"),
    (["--ema", "1"], "moving average"), (["--patience", "0"], "patience"),
    (["--schedule", "fast"], "schedule"),
    (["--loss", "l3"], "loss"), (["--loss", "cross_entropy:1"], "label smoothing"),
    (["--validate", "64"], "held out"),
    (["--checkpoint-every", "0", "--checkpoint", "c"], "checkpoint-every"),
    (["--checkpoint-every", "2"], "without a checkpoint"),
    (["--validate", "1.5"], "held out"), (["--validate", "nan"], "held out"),
    (["--config", "digits"], "folder"), (["--config", "none.json"], "no such file"),
    (["--resume", "none"], "no such file"), (["--checkpoint", "none/c"], "none"),
    (["--optimizer", "adam", "--beta1", "1"], "beta1"),
    (["--split", "0.5", "--validate", "-3"], "held out"),
  ])
  func trainingOptionsOutOfRange(options: [String], what: String) throws {
    let place = try Workplace()
    let end = try place.run(
      ["--layers", Workplace.tiny, "--data", "digits", "--batch-size", "8"] + options)
    #expect(end.code != 0 && !end.wasKilled && end.err.contains(what), "\(end.code) \(end.err)")
    #expect(try place.names.allSatisfy { $0.hasPrefix("digits") })
  }

  /// No number that a user may give ends the program by a signal: it trains, or says what is wrong.
  @Test(arguments: [
    ["--epochs"], ["--batch-size"], ["--patience"], ["--limit"], ["--checkpoint-every"], ["--seed"],
    ["--threads"], ["--validate"], ["--split"], ["--ema"], ["--learning-rate"], ["--momentum"],
    ["--weight-decay"], ["--l1"], ["--clip-norm"], ["--optimizer=adam", "--beta1"],
    ["--optimizer=adam", "--beta2"], ["--optimizer=adam", "--epsilon"],
  ])
  func numbersAtTheirLimits(option: [String]) throws {
    let place = try Workplace()
    for number in ["9223372036854775807", "-9223372036854775808", "1e39", "1e-300", "nan", "-inf"] {
      let end = try place.run(
        [
          "--layers", Workplace.tiny, "--data", "digits", "--batch-size", "8", "--epochs", "1",
          "--checkpoint", "c",
        ] + option + [number])
      #expect(!end.wasKilled, "\(option) \(number): \(end.err)")
      #expect(end.code == 0 || end.code == 64 || end.code == 65, "\(option) \(number): \(end.err)")
    }
  }

  @Test(arguments: [
    ["trace", "--data", "digits", "--image"], ["trace", "flat", "--data", "digits", "--batch"],
    ["trace", "flat", "--data", "digits", "--repeats"],
    ["explain", "--data", "digits", "--at=0,0,0", "--layer"],
    ["explain", "--layer", "1", "--at"], ["speedrun", "--data", "digits", "--runs"],
    ["gradcheck", "--layers", "flatten softmax(2)", "--input"], ["explain", "conv", "--height"],
    ["augment", "shift=1", "--data", "digits", "--out", "a.png", "--seed"], ["serve", "--port"],
  ])
  func numbersOfOtherCommandsAtTheirLimits(command: [String]) throws {
    let place = try Workplace()
    for number in ["9223372036854775807", "-9223372036854775808", "-1"] {
      let text =
        command.last == "--at"
        ? "\(number),\(number),\(number)"
        : command.last == "--input" ? "\(number)x1x1" : number
      let end = try place.run(command + [text])
      #expect(
        !end.wasKilled && end.code != 0 || command.last == "--seed",
        "\(command) \(text): \(end.err)")
    }
  }

  @Test func validationLeavesTheTestSetForTheEnd() throws {
    let place = try Workplace()
    let end = try place.run(
      [
        "--layers", Workplace.tiny, "--data", "digits", "--batch-size", "8", "--validate", "16",
        "--save", "w",
        "--json",
      ])
    try #require(end.code == 0, "\(end.err)")
    #expect(
      ["train_images", "validation_images", "test_images"].map { end.json[0][$0] as? Int } == [
        48, 16, 20,
      ])
    #expect(end.json[1]["validation_cce"] is Double && end.json[1]["test_cce"] == nil)
    let checked = try place.run("evaluate", "w", "--data", "digits", "--confusion", "--json")
    let result = try #require(checked.json.first)
    #expect(
      result["test_accuracy"] as? Double == end.json.last?["test_accuracy"] as? Double)
    let confusion = try #require(result["confusion"] as? [[Int]])
    #expect(confusion.joined().reduce(0, +) == 20 && confusion.count == 10)
    #expect((result["classes"] as? [[String: Any]])?.count == 10)
    let table = try place.run("evaluate", "w", "--data", "digits", "--confusion")
    #expect(table.code == 0 && table.out.contains("precision"))
  }

  @Test func aSignalInTheFirstEpochLeavesTheOldFile() throws {
    let place = try Workplace()
    try place.writeWeights("w", seed: 2)
    let old = try place.read("w")
    let running = try place.start(["cnn", "--data", "sample", "--save", "w"])
    try running.wait(for: "kernels")
    let (end, time) = stop(running, SIGINT)
    #expect(
      end.code == 130 && !end.wasKilled && time < .seconds(2), "\(end.code) after \(time)")
    #expect(end.err == "stopped; no epoch was finished, so 'w' was not written\n")
    #expect(!end.out.contains("epoch") && !end.out.contains("saved"), "\(end.out)")
    #expect(try place.read("w") == old)
    #expect(try place.names.filter { !$0.hasPrefix("digits") } == ["w"])
  }

  private func stop(_ running: Workplace.Running, _ signal: Int32) -> (
    Workplace.Outcome, Duration
  ) {
    let start = ContinuousClock.now
    running.send(signal)
    return (running.end(), ContinuousClock.now - start)
  }

  @Test func whateverMomentItIsKilledAtTheFileIsWhole() throws {
    let place = try Workplace()
    for _ in 0..<10 {
      let running = try place.start(Workplace.endless + ["--save", "w", "--quiet"])
      Thread.sleep(forTimeInterval: .random(in: 0...0.15))
      running.send(SIGKILL)
      let end = running.end()
      #expect(end.wasKilled && end.code == SIGKILL, "\(end.err)")
      let check = try place.run("evaluate", "w", "--data", "digits")
      let isThere = try place.names.contains("w")
      #expect(!check.wasKilled && check.code == (isThere ? 0 : 66), "\(check.err)")
    }
  }

  // MARK: Help

  @Test(arguments: [
    (
      "train",
      "model variant --layers --data --threads --kernels --split --epochs --batch-size "
        + "--learning-rate --momentum --seed --limit --save --profile --quiet --json"
    ),
    ("evaluate", "file --data --threads --kernels --json"),
    ("predict", "file images --threads --kernels --json"),
    ("fetch", "set --mirror"), ("kernels", ""), ("bench", "--json"),
    ("trace", "network --image --batch --repeats --data --threads --kernels --json"),
    ("report", "file --out --data --threads --kernels"),
    ("serve", "file --port --host --threads --data"),
  ])
  func helps(command: String, options: String) throws {
    let place = try Workplace()
    for arguments in [[command, "--help"], [command, "-h"], ["help", command]] {
      let end = try place.run(arguments)
      #expect(end.code == 0 && end.err.isEmpty, "\(end.err)")
      #expect(end.out.contains("USAGE: stridenet \(command)"), "\(end.out)")
      for option in options.split(separator: " ") {
        let name = option.hasPrefix("--") ? "  \(option) " : "  <\(option)> "
        #expect(end.out.contains(name), "\(command): \(option)")
      }
      for line in end.lines where !line.hasPrefix("USAGE") { #expect(line.count <= 80, "\(line)") }
    }
  }

  @Test func helpNamesEverything() throws {
    let place = try Workplace()
    let end = try place.run("--help")
    #expect(end.code == 0 && end.err.isEmpty)
    for word in ["train", "evaluate", "predict", "fetch", "kernels", "bench", "Exit codes"] {
      #expect(end.out.contains(word))
    }
    // Long lines are broken.
    let train = try place.run("train", "--help").out.replacingOccurrences(of: "\n", with: " ")
    for name in KernelChoice.names + Architecture.presets.flatMap({ [$0.name, $0.text] }) {
      #expect(train.contains(name), "\(name)")
    }
    let list = try place.run("kernels")
    #expect(list.code == 0)
    for variant in KernelChoice.convolutions + KernelChoice.poolings {
      #expect(list.out.contains("\(variant.name) ") && list.out.contains(variant.summary))
    }
    #expect(list.out.contains("bound            \(KernelChoice.bound)\n"))
  }

  // MARK: Terminal

  private static let script = "/usr/bin/script"

  #if os(Linux)  // elsewhere script takes other arguments
    /// The program under a terminal, whose lines end in CR and LF.
    private func runInTerminal(_ place: Workplace, _ arguments: [String]) throws -> String {
      let end = try place.run(
        arguments,
        shell: [
          "/bin/sh", "-c",
          #"command="'$0'"; for a; do command="$command '$a'"; done; "#
            + #"exec "# + Self.script + #" -qec "$command" /dev/null"#,
        ])
      #expect(end.code == 0, "\(end.out)\(end.err)")
      return end.out.replacingOccurrences(of: "\r\n", with: "\n")
    }

    @Test(
      .enabled(
        if: FileManager.default.isExecutableFile(atPath: script), "there is no \(script) here"))
    func aTerminalShowsTheProgress() throws {
      let place = try Workplace()
      let out = try runInTerminal(place, Self.tiny)
      // Carriage returns, each followed by what stands in the line from then on.
      let states = out.components(separatedBy: "\r")
      let progress = states.filter { $0.contains("  batch ") }
      #expect(progress.first?.contains("epoch 1/2  batch 1/4 of 16") == true, "\(out)")
      for line in progress { #expect(line.count < 80 && !line.contains("\n"), "\(line)") }
      // It goes away: spaces over it, then the epoch's line from the start.
      let after = try #require(states.firstIndex { $0.hasPrefix("epoch 1  ") })
      #expect(states[after - 1].allSatisfy { $0 == " " })
      #expect(out.contains("\ntest accuracy "))
      // Neither of these has a progress line.
      for option in ["--quiet", "--json"] {
        #expect(try !runInTerminal(place, Self.tiny + [option]).contains("\r"))
      }
    }
  #endif
}
