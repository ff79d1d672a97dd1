import Foundation
import Testing

import StrideNet

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
    try network.setWeights { $0.hasSuffix("weight") ? weights : [0, 0, 0] }
    let folder = try TemporaryFolder()
    try network.exportC(to: folder.path + "/model.c")
    let text = try String(contentsOfFile: folder.path + "/model.c", encoding: .utf8)
    let array = text.components(separatedBy: "weight2[3][4] =\n")[1].components(separatedBy: ";")[0]
    let numbers = array.split { "{},\n".contains($0) }.map { Float($0.dropLast()) }
    #expect(numbers.map { $0?.bitPattern } == weights.map { $0.bitPattern })
  }

  struct Own: CustomLayer {
    func forward(_ x: TensorView, _ y: TensorView, _ pass: CustomPass) {}
    func backward(
      _ x: TensorView, _ y: TensorView, _ dy: TensorView, _ dx: TensorView?, _ pass: CustomPass
    ) {}
  }

  /// What a format can't hold is named, and no file is left.
  @Test(arguments: [false, true]) func refusesWhatHasNoC(_ isLayer: Bool) throws {
    let cube = Activation("cube", { $0 * $0 * $0 }, derivative: { x, _ in 3 * x * x })
    let (layers, name): ([any Layer], String) =
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
