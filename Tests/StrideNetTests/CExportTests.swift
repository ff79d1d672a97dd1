import Foundation
import Testing

@testable import StrideNet

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
  ]

  /// A network with weights, biases and statistics all unlike their first values.
  static func network(_ text: String, _ input: Shape) throws -> Network {
    let network = Network(try Architecture.layers(text))
    try network.build(for: input)
    let first = Dictionary(
      uniqueKeysWithValues: network.snapshot().arrays.map { ($0.name, $0.values) })
    network.setWeights { name in
      let noise = values(first[name]!.count, name.utf8.reduce(0) { $0 &* 31 &+ Int($1) } & 0xffff)
      return zip(first[name]!, noise).map { name.hasSuffix("var") ? 1.5 + $1 : $0 + 0.4 * $1 }
    }
    return network
  }

  /// Some images, of values from 0 to 1.
  static func images(_ count: Int, _ shape: Shape) -> Tensor {
    Tensor(batch: count, shape: shape, values(count * shape.count, 3).map { $0 + 0.5 })
  }
}

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

@Suite struct CExportTests {
  /// Reads images as floats, writes what predict makes of them.
  static func main(_ inputs: Int, _ outputs: Int) -> String {
    """
    #include <stdio.h>
    void predict(const float image[\(inputs)], float output[\(outputs)]);
    int main(void) {
      static float image[\(inputs)], output[\(outputs)];
      while (fread(image, sizeof(image), 1, stdin) == 1) {
        predict(image, output);
        fwrite(output, sizeof(output), 1, stdout);
      }
      return 0;
    }
    """
  }

  /// What the program says of images.
  static func run(_ network: Network, _ images: Tensor, compiler: String = "cc") throws -> [Float] {
    let folder = try TemporaryFolder()
    try network.exportC(to: folder.path + "/model.c")
    try folder.write("main.c", Array(main(images.shape.count, network.classes).utf8))
    try folder.write("in", images.values.withUnsafeBytes { Array($0) })
    let text = try String(contentsOfFile: folder.path + "/model.c", encoding: .utf8)
    #expect(text.split(separator: "\n").allSatisfy { $0.utf8.count <= 100 && $0.last != " " })
    let said = try shell(
      "\(compiler) -std=c99 -pedantic -Wall -Wextra -Werror -O1 main.c model.c -lm -o model && ./model <in >out",
      [], in: folder)
    #expect(said.isEmpty)
    let bytes = try Data(contentsOf: URL(fileURLWithPath: folder.path + "/out"))
    return bytes.withUnsafeBytes { Array($0.bindMemory(to: Float.self)) }
  }

  /// Both compute in single precision with sums in other orders; values here are of about 1.
  @Test(arguments: ExportedNetworks.all.indices) func computesTheSame(_ index: Int) throws {
    let (text, input) = ExportedNetworks.all[index]
    let network = try ExportedNetworks.network(text, input)
    let images = ExportedNetworks.images(5, input)
    let expected = try network.predict(images).values
    let scale = max(1, expected.map(abs).max()!)
    expectClose(try Self.run(network, images), expected, within: 1e-5 * scale, text)
  }

  @Test func digitsAreReadAlike() throws {
    let data = try Dataset.load("sample")
    let network = Network(try Architecture.layers(Architecture.presets[0].text))
    for start in stride(from: 0, to: 1600, by: 32) {
      try network.train(data.train.batch(start..<start + 32), learningRate: 0.1)
    }
    let batch = data.test.batch(0..<200)
    let expected = try network.predict(batch.images).values
    let found = try Self.run(network, batch.images)
    expectClose(found, expected, within: 1e-5, "probabilities")
    let right = (0..<200).count { row in
      let p = found[row * 10..<row * 10 + 10]
      return p.firstIndex(of: p.max()!)! - row * 10 == Int(batch.labels[row])
    }
    #expect(right > 140)
  }

  /// The numbers in the text are the weights, to the last bit.
  @Test func weightsAreExact() throws {
    let network = try ExportedNetworks.network("flatten dense(3)", Shape(2, 2, 1))
    let weights: [Float] = [
      .leastNonzeroMagnitude, -.greatestFiniteMagnitude, 1 / 3, -0.0, 1e-38, 16_777_216, 0.1, 7, -1,
      .ulpOfOne, .pi, 1 / 3e9,
    ]
    network.setWeights { $0.hasSuffix("weight") ? weights : [0, 0, 0] }
    let folder = try TemporaryFolder()
    try network.exportC(to: folder.path + "/model.c")
    let text = try String(contentsOfFile: folder.path + "/model.c", encoding: .utf8)
    let array = text.components(separatedBy: "weight2[3][4] =\n")[1].components(separatedBy: ";")[0]
    let numbers = array.split { "{},\n".contains($0) }.map { Float($0.dropLast()) }
    #expect(numbers.map { $0?.bitPattern } == weights.map { $0.bitPattern })
  }

  final class Own: Layer {
    override func forward(_ x: TensorView, _ y: TensorView, _ pass: Pass) {}
  }

  /// What a format can't hold is named, and no file is left.
  @Test(arguments: [false, true]) func refusesWhatHasNoC(_ isLayer: Bool) throws {
    let cube = Activation("cube", { $0 * $0 * $0 }, derivative: { x, _ in 3 * x * x })
    let (layers, name): ([Layer], String) =
      isLayer
      ? ([Flatten(), Own(), Dense(2)], "own")
      : ([Flatten(), Residual([Dense(4, activation: cube)])], "cube")
    let network = Network(layers)
    let folder = try TemporaryFolder()
    #expect(throws: StrideNetError.self) { try network.exportC(to: folder.path + "/model.c") }
    try network.build(for: Shape(2, 2, 1))
    let error = #expect(throws: StrideNetError.self) {
      try network.exportC(to: folder.path + "/model.c")
    }
    #expect(error?.kind == .badData && error?.place?.contains("layer 2") == true)
    #expect(error?.place?.contains(name) == true)
    #expect(try folder.names.isEmpty)
  }
}
