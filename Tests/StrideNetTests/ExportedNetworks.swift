import Foundation
import Testing

import StrideNet

/// Networks with each layer in its forms, at sizes where a wrong index shows.
enum ExportedNetworks {
  static let all: [(text: String, input: Shape)] = [
    ("conv(32,3) maxpool(2) flatten relu(100) softmax(10)", Shape(28, 28, 1)),
    ("flatten softmax(10)", Shape(9, 7, 3)),
    ("conv(4,3x2,stride=2x1,padding=1x0) avgpool(2,stride=1) flatten dense(5)", Shape(9, 8, 3)),
    ("conv(5,4,stride=3,padding=same,activation=gelu) flatten silu(6) softmax(3)", Shape(11, 8, 2)),
    (
      "conv(4,2,padding=0x1x1x0,activation=elu) maxpool(3,stride=2) flatten tanh(7)", Shape(8, 9, 1)
    ),
    (
      "conv(6,3,dilation=2,groups=3,padding=same,activation=none) "
        + "batchnorm(activation=leaky_relu,slope=0.2) conv(6,3,groups=6) globalavgpool softplus(4) "
        + "leaky_relu(9) elu(5) sigmoid(3)", Shape(9, 10, 3)
    ),
    (
      "conv(4,3,padding=1,activation=none) batchnorm residual(conv(4,3,padding=1) layernorm "
        + "dropout(0.5) | conv(4,1,activation=none) batchnorm) activation(relu) residual(residual("
        + "conv(4,1)) activation(softmax)) flatten gelu(9) batchnorm(activation=relu) layernorm "
        + "residual(relu(9)) softmax(10)", Shape(6, 5, 2)
    ),
    (
      "conv(3,2) flatten layernorm batchnorm conv(4,1) globalavgpool residual(relu(4)) softmax(2)",
      Shape(4, 5, 2)
    ),
    ("conv(3,2) flatten residual(dense(36)) softmax(2)", Shape(4, 5, 2)),
    ("conv(3,2) flatten residual(relu(5) dense(4) | dense(4)) activation(softmax)", Shape(4, 5, 2)),
    ("conv(2,2) maxpool(2) conv(3,1,activation=none)", Shape(7, 5, 2)),
    ("conv(3,5) globalavgpool activation(softmax)", Shape(7, 6, 1)),
    (
      "conv(5,3,padding=1) maxpool(2,ceil_mode=true) avgpool(2,padding=1) flatten softmax(3)",
      Shape(7, 9, 2)
    ),
    (
      "conv(4,3,stride=2,padding=4) maxpool(3,stride=2,padding=1) avgpool(3,stride=2,padding=1,"
        + "ceil_mode=true) flatten dense(2)", Shape(9, 12, 3)
    ),
    (
      "avgpool(3,stride=2,padding=1,count_include_pad=false) maxpool(3,stride=1,padding=same) "
        + "maxpool(2,stride=1,padding=1x0x0x1) avgpool(2,stride=1,padding=0x1x1x0) avgpool(3,stride=2,"
        + "padding=0x1x2x0,ceil_mode=true) flatten dense(2)", Shape(12, 13, 2)
    ),
    (
      "avgpool(2,stride=1,padding=same,count_include_pad=false) avgpool(3,stride=2,padding=2x1x0x1,"
        + "ceil_mode=true,count_include_pad=false) flatten dense(2)", Shape(8, 7, 2)
    ),
  ]

  /// A network with weights, biases and statistics all unlike their first values.
  static func network(_ text: String, _ input: Shape) throws -> Network {
    let network = Network(try Architecture.layers(text))
    try network.build(for: input)
    let first = Dictionary(
      uniqueKeysWithValues: network.snapshot().arrays.map { ($0.name, $0.values) })
    try network.setWeights { name in
      let noise = values(first[name]!.count, name.utf8.reduce(0) { $0 &* 31 &+ Int($1) } & 0xffff)
      return zip(first[name]!, noise).map { name.hasSuffix("var") ? 1.5 + $1 : $0 + 0.4 * $1 }
    }
    return network
  }

  /// The network without its last softmax, with the same weights.
  static func logits(_ network: Network) throws -> Network {
    var texts = network.layers.map(\.text)
    texts[texts.count - 1] = texts.last!.replacing(
      texts.last!.hasPrefix("softmax") ? "softmax" : "(softmax)",
      with: texts.last!.hasPrefix("softmax") ? "dense" : "(none)")
    let same = Network(try Architecture.layers(texts.joined(separator: " ")))
    try same.build(for: network.input!)
    let arrays = Dictionary(
      uniqueKeysWithValues: network.snapshot().arrays.map { ($0.name, $0.values) })
    try same.setWeights { arrays[$0]! }
    return same
  }

  /// Some images, of values from 0 to 1.
  static func images(_ count: Int, _ shape: Shape) -> Tensor {
    try! Tensor(batch: count, shape: shape, values(count * shape.count, 3).map { $0 + 0.5 })
  }
}

/// The Python that other programs are asked with: one that has torch, onnx and onnxruntime.
let python = ProcessInfo.processInfo.environment["STRIDENET_PYTHON"]

/// Runs a program to its end and gives what it printed.
func shell(_ script: String, _ arguments: [String], in folder: TemporaryFolder) throws -> String {
  let (process, output) = (Process(), "\(folder.path)/shell-\(UUID())")
  #expect(FileManager.default.createFile(atPath: output, contents: nil))
  process.executableURL = URL(fileURLWithPath: "/bin/sh")
  process.arguments = ["-c", script, "sh"] + arguments
  process.currentDirectoryURL = URL(fileURLWithPath: folder.path)
  let handle = try #require(FileHandle(forWritingAtPath: output))
  (process.standardOutput, process.standardError) = (handle, handle)
  try process.run()
  process.waitUntilExit()
  let text = try String(contentsOfFile: output, encoding: .utf8)
  if process.terminationStatus != 0 { Issue.record("\(script): \(text)") }
  return text
}
