import Foundation
import Testing

import StrideNet

/// `stridenet train`: what it prints, saves and comes to.
@Suite struct CommandLineTraining {
  @Test func trainingIsReportedAsJSON() throws {
    let place = try Workplace()
    let end = try place.run(
      Workplace.tinyTraining + ["--json", "--seed", "7", "--threads", "2", "--kernels", "im2col"])
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
    "flatten dense(10) activation(softmax)", "conv(10,8,activation=softmax)",
  ])
  func whatIsSavedEvaluatesTheSame(layers: String) throws {
    let place = try Workplace()
    let trained = try place.run(
      ["--layers", layers] + Workplace.brief + ["--save", "w", "--json"])
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
    let again = try place.run(["--layers", layers] + Workplace.brief + ["--save", "w", "--quiet"])
    #expect(again.code == 0)
    #expect(try place.read("w") == first)
  }

  private func digest(_ place: Workplace, _ options: [String]) throws -> String {
    let layers = ["--layers", "conv(4,3) maxpool(2) flatten softmax(10)"]
    return try place.run(layers + Workplace.brief + ["--json", "--batch-size", "40"] + options)
      .digest
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

  @Test(arguments: ["naive", "stride_groups", "im2col", "winograd", "auto"])
  func theNumberOfThreadsDoesNotMatter(kernels: String) throws {
    let place = try Workplace()
    let digests = try ["1", "2", "3", "8"].map {
      try digest(place, ["--kernels", kernels, "--threads", $0])
    }
    #expect(Set(digests).count == 1, "\(digests)")
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

  @Test func aPipeGetsALineAnEpoch() throws {
    let place = try Workplace()
    let end = try place.run(
      Workplace.tinyTraining + ["--save", "w"], shell: ["/bin/sh", "-c", #""$0" "$@" 2>&1 | cat"#])
    #expect(end.code == 0 && !end.out.contains("\r"), "\(end.out)")
    let lines = end.lines.filter { !$0.contains("debug build") && !$0.contains("-->") }
    let starts = ["network", "data", "kernels", "epoch 1", "epoch 2", "test accuracy", "saved"]
    #expect(lines.count == starts.count, "\(end.out)")
    for (line, start) in zip(lines, starts) { #expect(line.hasPrefix(start), "\(line)") }
  }

  @Test func quietPrintsTheLastLineAlone() throws {
    let place = try Workplace()
    let text = try place.run(Workplace.tinyTraining + ["--quiet", "--save", "w"])
    #expect(text.code == 0 && text.err.isEmpty && text.lines.count == 1, "\(text.out)\(text.err)")
    #expect(text.out.hasPrefix("test accuracy ") && text.out.contains("SHA-256"))
    let json = try place.run(Workplace.tinyTraining + ["--quiet", "--json"])
    #expect(json.code == 0 && json.err.isEmpty && json.lines.count == 1, "\(json.out)\(json.err)")
    #expect(json.json.first?["event"] as? String == "done")
  }

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
      let out = try runInTerminal(place, Workplace.tinyTraining)
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
        #expect(try !runInTerminal(place, Workplace.tinyTraining + [option]).contains("\r"))
      }
    }
  #endif
}
