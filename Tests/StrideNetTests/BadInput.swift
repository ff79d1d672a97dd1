import Foundation
import Testing

import StrideNet
@testable import StrideNetFiles

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

  static func folder(_ path: String) throws {
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
    data("wrong magic number", 0, "not an IDX file of images", "0x00000703") {
      [0, 0, 7, 3] + $0.dropFirst(4)
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
    train("an empty folder", [], code: 66, "no data set in the folder", "nothing", data: "bad") {
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
      "two kernel variants", "'naive' and 'im2col'"),
    other(
      "variant unknown", ["train", "cnn", "fast"], code: 64, "no kernel variant of that name",
      "'fast'"),
    other("model unknown", ["train", "alexnet"], code: 64, "no model", "'alexnet'", "cnn, flat"),
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
    layers("maxpool(3,padding=3) flatten softmax(10)", "maxpool(3,padding=3)", "0 … 2"),
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
}
