import Foundation
import Testing

import StrideNet

/// `--precision bf16` on the command line, in configurations and checkpoints.
@Suite struct CommandLinePrecision {
  private static let layers = "conv(16,3,padding=1) conv(8,3) flatten softmax(10)"
  private static let brief =
    ["--layers", layers] + Workplace.brief + ["--precision", "bf16", "--json"]

  /// A processor without the instruction for pairs gives the same weights. (The matrix unit adds in
  /// another order.)
  @Test func everyUnitGivesTheSameWeights() throws {
    let place = try Workplace()
    let data =
      KernelChoice.isDebugBuild ? ["--data", "digits"] : ["--data", "sample", "--limit", "300"]
    let words = ["train", "cnn", "--precision", "bf16", "--epochs", "2", "--json"] + data
    var digests: [String: String] = [:]
    for (set, unit) in [
      ("avx512", "avx512_bf16"), ("avx512", "emulated"), ("avx2", "emulated"),
    ] {
      let environment = ["STRIDENET_ISA": set, "STRIDENET_BF16": unit]
      guard try place.run(["kernels"], environment: environment).code == 0 else { continue }
      let end = try place.run(words, environment: environment)
      #expect(end.json.first?["precision"] as? String == "bf16")
      #expect(end.json.first?["isa"] as? String == set)
      digests["\(set), \(unit)"] = try end.digest
    }
    #expect(Set(digests.values).count <= 1, "\(digests)")
    let float32 = try place.run(words.filter { $0 != "bf16" && $0 != "--precision" })
    #expect(float32.json.first?["precision"] as? String == "float32")
    #expect(try !digests.values.contains(float32.digest))
  }

  @Test(arguments: [
    (["cnn", "--precision", "half"], ["half", "float32", "bf16"]),
    (["cnn", "--precision", "bf16", "--kernels", "im2col"], ["--kernels", "one of them"]),
    (["cnn", "--precision", "bf16", "--exact"], ["--exact", "one of them"]),
    (["cnn", "im2col", "--precision", "bf16"], ["im2col", "one of them"]),
    (["--config", "run.json", "--kernels", "im2col"], ["im2col", "one of them"]),
    (["--config", "run.json", "--exact"], ["exact", "one of them"]),
    (["--config", "bad.json"], ["bad.json, precision", "half"]),
  ])
  func refuses(words: [String], phrases: [String]) throws {
    let place = try Workplace()
    try place.write("run.json", #"{"precision": "bf16", "layers": "\#(Workplace.tiny)"}"#)
    try place.write("bad.json", #"{"precision": "half"}"#)
    let end = try place.run(["train"] + words + ["--data", "digits", "--epochs", "1"])
    #expect(end.code == 64 && end.out.isEmpty, "\(end.out)\(end.err)")
    for phrase in phrases { #expect(end.err.contains(phrase), "\(end.err)") }
  }

  @Test(arguments: ["nonsense", "", "AMX", "avx2"]) func refusesUnits(name: String) throws {
    let end = try Workplace().run(["kernels"], environment: ["STRIDENET_BF16": name])
    #expect(end.code == 64 && end.out.isEmpty, "\(end.err)")
    #expect(end.err.contains("'\(name)'") && end.err.contains("amx, avx512_bf16 or emulated"))
  }

  /// Without AVX-512 there is nothing to round by but shifts.
  @Test func aPoorerSetHasNoUnit() throws {
    let place = try Workplace()
    let environment = ["STRIDENET_ISA": "baseline", "STRIDENET_BF16": "avx512_bf16"]
    let end = try place.run(["kernels"], environment: environment)
    #expect(end.code == 64 && end.err.contains("'avx512_bf16'"), "\(end.err)")
  }

  @Test func configurationsHaveIt() throws {
    let place = try Workplace()
    let first = try place.run(Self.brief + ["--write-config", "run.json"]).digest
    let text = String(decoding: try place.read("run.json"), as: UTF8.self)
    #expect(text.contains(#""precision" : "bf16""#), "\(text)")
    let again = try place.run("train", "--config", "run.json", "--json")
    #expect(try again.digest == first)
    #expect(again.json.first?["precision"] as? String == "bf16")
    let plain = try place.run("train", "--config", "run.json", "--precision", "float32", "--json")
    #expect(plain.json.first?["precision"] as? String == "float32")
    #expect(try plain.digest != first)
    let said = try place.run("train", "--config", "run.json")
    #expect(said.out.contains("kernels  bf16 by "), "\(said.out)")
    // Float32 is what is meant where nothing is said, and isn't said.
    _ = try place.run(
      Workplace.tinyTraining + ["--precision", "float32", "--write-config", "plain.json"])
    #expect(!String(decoding: try place.read("plain.json"), as: UTF8.self).contains("precision"))
  }

  @Test func resumedItIsTheSame() throws {
    let place = try Workplace()
    let words = Workplace.thorough + ["--layers", Self.layers, "--precision", "bf16", "--json"]
    let whole = try place.run(words).digest
    let running = try place.start(words + ["--checkpoint", "c", "--threads", "1"])
    try running.wait(for: #""epoch":2"#)
    _ = running.stop(SIGINT)
    #expect(try Checkpoint(from: "\(place.path)/c").configuration.precision == .bf16)
    let other = try place.run("train", "--resume", "c", "--precision", "float32")
    #expect(other.code == 64 && other.out.isEmpty, "\(other.err)")
    #expect(other.err.contains("precision: none, bf16 before"), "\(other.err)")
    let resumed = try place.run("train", "--resume", "c", "--threads", "3", "--json")
    #expect(resumed.json.first?["precision"] as? String == "bf16")
    #expect(try resumed.digest == whole)
    // And one that began without it doesn't go on with it.
    _ = try place.run(Workplace.tinyTraining + ["--checkpoint", "d"])
    let late = try place.run("train", "--resume", "d", "--precision", "bf16")
    #expect(late.code == 64 && late.err.contains("precision: bf16, none before"), "\(late.err)")
    #expect(try place.run("train", "--resume", "d", "--precision", "float32").code == 0)
  }

  @Test func othersTakeIt() throws {
    let place = try Workplace()
    let trained = try place.run(Self.brief + ["--save", "w"])
    let digest = try trained.digest
    let bf16 = ["--precision", "bf16"]
    let evaluate = ["evaluate", "w", "--data", "digits", "--json"]
    let results = try [evaluate + bf16, evaluate].map { try #require(try place.run($0).json.first) }
    #expect(results[0]["weights_sha256"] as? String == digest)
    #expect(
      results[0]["test_cce"] as? Double == trained.json.dropLast().last?["test_cce"] as? Double)
    #expect(results[0]["test_cce"] as? Double != results[1]["test_cce"] as? Double)
    for words in [
      ["predict", "w", "digits/t10k-images-idx3-ubyte", "--json"],
      ["trace", "w", "--data", "digits", "--repeats", "1", "--json"],
    ] {
      let ends = try [bf16, []].map { try place.run(words + $0) }
      #expect(ends.allSatisfy { $0.code == 0 && $0.err.isEmpty }, "\(ends)")
      let values = ends.map { $0.json.last?["probabilities"] as? [Double] }
      #expect(values[0] != nil && values[0] != values[1], "\(words)")
    }
    // Without optimisation its measuring of the machine takes a minute.
    if !KernelChoice.isDebugBuild {
      let report = try place.run(["report", "w", "--data", "digits", "--out", "w.html"] + bf16)
      #expect(report.code == 0, "\(report.err)")
      #expect(try place.names.contains("w.html"))
    }
    for words in [evaluate, ["trace", "w"], ["report", "w"]] {
      let end = try place.run(words + ["--precision", "half"])
      #expect(end.code == 64 && end.err.contains("float32"), "\(words): \(end.err)")
    }
  }
}
