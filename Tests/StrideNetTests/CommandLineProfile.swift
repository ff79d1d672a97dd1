import Foundation
import Testing

import StrideNet

/// `stridenet train --profile`, and what it was called before.
@Suite struct CommandLineProfile {
  // In a debug build the machine's peak takes minutes to measure.
  private static let isRelease = Comment("roofs are measured in release builds")

  /// Every kind of layer, together and on its own.
  private static let varied =
    "conv(4,3) maxpool(2) conv(60,2,activation=sigmoid) avgpool(2) flatten relu(8) softmax(10)"
  /// Its passes in the order of a step; of the kernels the names but for the variant.
  private static func variedPasses(_ kernels: String) -> [(
    layers: [Int], pass: String, kernel: String
  )] {
    let pools = ["direct", "winograd"].contains(kernels) || isPicked(kernels)
    return [([], "gather", "scale_bytes")]
      + (pools
        ? [([1, 2], "forward", "conv_pool_forward_")]
        : [([1, 2], "forward", "conv_forward_"), ([1, 2], "forward", "pool_max_forward_")])
      + variedRest
  }
  /// Whether the shape decides which variant it is.
  private static func isPicked(_ kernels: String) -> Bool { ["exact", "auto"].contains(kernels) }
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
      ["--layers", Self.varied] + Workplace.brief
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
      if expected.kernel.hasPrefix("conv_") && !Self.isPicked(kernels) {
        // Of what isn't 3×3 winograd does nothing itself.
        let isOthers = kernels == "winograd" && expected.layers == [3]
        #expect(kernel == expected.kernel + (isOthers ? "direct" : kernels))
        #expect(why == "bound by --kernels")
      }
      for name in ["bytes", "predicted_seconds", "seconds"] {
        #expect(try #require(row[name] as? Double) > 0, "\(name): \(row)")
      }
      let hasOperations = ["conv_", "dense_", "gemm"].contains { kernel.hasPrefix($0) }
      #expect(try (#require(row["flop"] as? Double) > 0) == hasOperations)
    }
    if Self.isPicked(kernels) {
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
    let plain = try place.run(["--layers", Self.varied] + Workplace.brief)
    let end = try place.run(
      ["--layers", Self.varied] + Workplace.brief + ["--profile"], environment: ["COLUMNS": "300"])
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
    let script = Documents.root.appending(path: "Benchmarks/profile.sh").path
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
}
