import Foundation
import Testing

import StrideNet

extension BadInput {
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
    weights("complex numbers", "have a type that isn't read", "C64") {
      try $0.writeWeights(
        "w", header: #"{"a":{"dtype":"C64","shape":[1],"data_offsets":[0,8]}}"#, data: [1, 2])
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
    other("predict: no images", ["predict", "w"], code: 64, "nothing to predict"),
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
    export(
      "page: too large", ["m.html", "--data", "digits"],
      layers: "flatten relu(125000,init=constant:0) softmax(10,init=constant:0)",
      code: 65, "too large for a page", "9,375,010 weights", "8,000,000"),
    export(
      "page: other images", ["m.html", "--data", "sample"], code: 65, "another size", "8×8×1"),
    export("C with data", ["m.c", "--data", "digits"], code: 64, "html alone", "to c"),
    export("page: no folder", ["none/m.html", "--data", "digits"], code: 73, "none/m.html"),
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
      "import: not PyTorch's",
      ["import", "w", "--layers", Workplace.tiny, "--input", "8x8x1", "--save", "n"], code: 65,
      "weights of StrideNet's", "predict, evaluate and export"
    ) { try $0.writeWeights("w") },
    other(
      "import: no file",
      ["import", "w", "--layers", Workplace.tiny, "--input", "8x8x1", "--save", "n"], code: 66, "w"),
  ]

  private static func export(
    _ name: String, _ arguments: [String], layers: String = Workplace.tiny, code: Int32,
    _ phrases: String...
  ) -> BadInput {
    BadInput(
      name: "export: \(name)", arguments: ["export", "w"] + arguments, code: code,
      phrases: phrases, prepare: { try $0.writeWeights("w", layers) })
  }
}
