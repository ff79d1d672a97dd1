import Foundation
import Testing

import StrideNet

/// `--help`, of the program and its commands.
@Suite struct CommandLineHelp {
  @Test(arguments: [
    (
      "train",
      "model variant --layers --data --threads --kernels --split --epochs --batch-size "
        + "--learning-rate --momentum --seed --limit --save --profile --quiet --json"
    ),
    ("evaluate", "file --data --threads --kernels --augment --views --json"),
    ("predict", "file images --threads --kernels --augment --views --json"),
    ("lr-find", "train-options --lowest --highest --steps --svg --json"),
    ("sweep", "train-options --grid --range --random --halving --results --page --json"),
    ("data", "set --image-size --fit --colour --strict --sheet --save --json"),
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
}
