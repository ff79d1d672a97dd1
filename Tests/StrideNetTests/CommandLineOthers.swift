import Foundation
import Testing

import StrideNet
@testable import StrideNetFiles

/// Commands beside `train`, and the examples.
@Suite struct CommandLineOthers {
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

    // With a name, a header too.
    let named = try place.run(
      "export", "w", "n.c", "--name", "net", "--classes", "a,b,c,d,e,f,g,h,i,j")
    #expect(named.code == 0, "\(named.err)")
    #expect(String(decoding: try place.read("n.h"), as: UTF8.self).contains("void net_predict("))
    #expect(String(decoding: try place.read("n.c"), as: UTF8.self).contains("\"i\", \"j\"\n};"))
    for wrong in [
      ["m2.c", "--name", "2"], ["m2.c", "--classes", "a"], ["m2.onnx", "--name", "net"],
      ["m2.c", "--name", "net", "--classes", "a,b"],
    ] {
      let end = try place.run(["export", "w"] + wrong)
      #expect(end.code == 64 && end.out.isEmpty, "\(end.err)")
    }

    // There and back again.
    let there = try place.run("export", "w", "p.safetensors")
    #expect(try there.code == 0 && there.out == network.pyTorchSource(file: "p.safetensors") + "\n")
    let layers = "conv(2,3) flatten softmax(10)"
    let back = try place.run(
      "import", "p.safetensors", "--layers", layers, "--input", "8x8x1", "--save", "n")
    #expect(back.code == 0 && back.lines == ["n: \(layers)"], "\(back.err)")
    #expect(try place.read("n") == place.read("w"))
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

  /// What isn't a probability isn't shown as one.
  @Test func outputsWithoutSoftmaxAreNumbers() throws {
    let place = try Workplace()
    let layers = ["--layers", "flatten dense(10)", "--loss", "mean_squared_error"]
    #expect(try place.run(layers + Workplace.brief + ["--save", "w", "--quiet"]).code == 0)
    let files = ["predict", "w", "digits/t10k-images-idx3-ubyte"]
    let (text, json) = (try place.run(files), try place.run(files + ["--json"]))
    #expect(text.code == 0 && !text.out.contains("%"), "\(text.out) \(text.err)")
    for (line, row) in zip(text.lines, json.json) {
      let outputs = try #require(row["outputs"] as? [Double])
      #expect(outputs.count == 10 && row["probabilities"] == nil)
      let shown = try #require(Double(line.split(separator: " ").last!))
      #expect(abs(shown - outputs.max()!) < 1e-3 * abs(shown), "\(line)")
    }
    let trace = try place.run("trace", "w", "--data", "digits", "--json")
    #expect((trace.json.last?["outputs"] as? [Double])?.count == 10, "\(trace.err)")
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
      try place.write("wide/\(labels)", idx([UInt32(set.count)], bytes: set.labels.map(UInt8.init)))
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
}
