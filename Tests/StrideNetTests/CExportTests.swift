import Foundation
import Testing

import StrideNet

@Suite struct CExportTests {
  /// Reads images as floats, writes what predict makes of them.
  static func main(_ inputs: Int, _ outputs: Int) -> String {
    """
    #include <stdio.h>
    #ifdef __cplusplus
    extern "C"
    #endif
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
  static func run(
    _ network: Network, _ images: Tensor, compiler: String = "cc -std=c99"
  ) throws -> [Float] {
    let folder = try TemporaryFolder()
    try network.exportC(to: folder.path + "/model.c")
    try folder.write("main.c", Array(main(images.shape.count, network.classes).utf8))
    try folder.write("in", images.values.withUnsafeBytes { Array($0) })
    let text = try String(contentsOfFile: folder.path + "/model.c", encoding: .utf8)
    #expect(text.split(separator: "\n").allSatisfy { $0.utf8.count <= 100 && $0.last != " " })
    let said = try shell(
      "\(compiler) -pedantic -Wall -Wextra -Werror -O2 main.c model.c -lm -o model && ./model <in >out",
      [], in: folder)
    #expect(said.isEmpty)
    let bytes = try Data(contentsOf: URL(fileURLWithPath: folder.path + "/out"))
    return bytes.withUnsafeBytes { Array($0.bindMemory(to: Float.self)) }
  }

  @Test(arguments: ExportedNetworks.all.indices) func computesTheSame(_ index: Int) throws {
    let (text, input) = ExportedNetworks.all[index]
    try Self.compare(text, input)
  }

  /// Filters that blocks of four and of 32 don't divide, lists of values that aren't 0, windows over
  /// the edge, and what is computed together with a weighted sum.
  static let awkward: [(text: String, input: Shape)] = [
    ("conv(1,1) flatten dense(1)", Shape(1, 1, 1)),
    ("activation(tanh) flatten softmax(1)", Shape(1, 2, 1)),
    ("layernorm flatten dense(2)", Shape(2, 1, 3)),
    ("batchnorm dropout(0.5) flatten dense(2)", Shape(2, 1, 3)),
    ("residual(dropout(0.5) | batchnorm) residual(dropout(0.5)) flatten dense(2)", Shape(1, 3, 2)),
    ("residual(dropout(0.5)) maxpool(1x2) flatten dense(2)", Shape(1, 3, 2)),
    (
      "conv(20,3,padding=1) conv(64,3,padding=4x5) conv(50,5x3,stride=3,padding=7) maxpool(2,padding=1) "
        + "conv(12,3,groups=2,padding=3) conv(50,1,padding=2x1) flatten dense(2)", Shape(6, 5, 2)
    ),
    ("dropout(0.5) flatten residual(relu(6)) residual(dropout(0.5)) tanh(2)", Shape(1, 3, 2)),
    ("relu(49) dropout(0.5) relu(50) dense(1)", Shape(1, 1, 5)),
    (
      "conv(33,3,padding=1,activation=none) batchnorm maxpool(2) conv(17,3,padding=2,stride=2) "
        + "conv(70,3x5,padding=1x2) maxpool(2x3) flatten relu(61) softmax(3)", Shape(12, 13, 3)
    ),
    (
      "conv(20,3,activation=none) batchnorm(activation=gelu) maxpool(2x1) "
        + "conv(36,3x2,stride=2x1,padding=1) maxpool(1x3) flatten relu(48) dense(52) "
        + "batchnorm(activation=relu) dropout(0.1) tanh(5)", Shape(13, 9, 1)
    ),
    (
      "conv(16,2,activation=none) dropout(0.1) activation(relu) conv(24,3,dilation=2,padding=same) "
        + "conv(12,3x4,dilation=2x1,padding=same) maxpool(3,stride=2) conv(8,3,groups=2,"
        + "activation=none) batchnorm(activation=relu) conv(5,1,stride=2) flatten dense(2)",
      Shape(14, 11, 2)
    ),
    (
      "conv(16,3,padding=same) residual(conv(16,3,padding=1) conv(16,3,padding=1,activation=none)) "
        + "activation(relu) residual(dropout(0.5) | conv(16,1) activation(tanh)) maxpool(2) "
        + "residual(activation(elu) | activation(sigmoid)) residual(layernorm) residual(batchnorm | "
        + "batchnorm(activation=relu)) conv(9,3) globalavgpool softmax(9)", Shape(9, 8, 2)
    ),
  ]

  @Test(arguments: awkward.indices) func awkwardSizes(_ index: Int) throws {
    try Self.compare(Self.awkward[index].text, Self.awkward[index].input)
  }

  /// Drawn networks: each of a few layers, of sizes up to a few blocks.
  @Test func drawnNetworks() throws {
    var random = Xorshift(state: 88_172_645_463_325_252)
    for _ in 0..<8 {
      let input = Shape(random.among(6...12), random.among(6...12), random.among(1...5))
      var layers: [String] = []
      for _ in 0..<random.among(1...3) {
        let filters = random.among(1...40)
        let size = "\(random.among(1...4))x\(random.among(1...4))"
        let stride = random.among(1...4) == 1 ? ",stride=2" : ""
        let dilation = random.among(1...4) == 1 ? ",dilation=1x2" : ""
        let norm = random.among(1...3) == 1
        layers.append(
          "conv(\(filters),\(size)\(stride)\(dilation),padding=same"
            + "\(norm ? ",activation=none) batchnorm(activation=relu" : ""))")
        if layers.count == 1 { layers.append("maxpool(2,stride=\(random.among(1...2)))") }
      }
      let hidden = random.among(40...70)
      layers.append("flatten relu(\(hidden)) dense(\(random.among(1...13)))")
      try Self.compare(layers.joined(separator: " "), input)
    }
  }

  private struct Xorshift {
    var state: UInt64

    mutating func among(_ range: ClosedRange<Int>) -> Int {
      state ^= state << 13
      state ^= state >> 7
      state ^= state << 17
      return range.lowerBound + Int(state % UInt64(range.count))
    }
  }

  /// Holds the program against predict. Both compute in single precision with sums in other orders;
  /// values here are of about 1.
  private static func compare(_ text: String, _ input: Shape, compiler: String = "cc -std=c99")
    throws
  {
    let network = try ExportedNetworks.network(text, input)
    // As they come, with paper that is 0 around a few rows, and nothing but paper.
    var values = ExportedNetworks.images(3, input).values
    let paper = input.count / input.height * (input.height - input.height / 3)
    for i in input.count..<input.count + paper { values[i] = 0 }
    for i in 2 * input.count..<3 * input.count { values[i] = 0 }
    let images = try Tensor(batch: 3, shape: input, values)
    let expected = try network.predict(images).values
    let scale = max(1, expected.map(abs).max()!)
    expectClose(
      try run(network, images, compiler: compiler), expected, within: 1e-5 * scale, text)
  }

  /// It is C++ too.
  @Test func isCPlusPlus() throws {
    for index in [2, 6] {
      let (text, input) = ExportedNetworks.all[index]
      try Self.compare(text, input, compiler: "c++ -x c++")
    }
  }

  /// Networks with names go into one program, with their headers.
  @Test func twoNetworksInOneProgram() throws {
    let folder = try TemporaryFolder()
    let texts = ["conv(5,3) maxpool(2) flatten relu(50) softmax(2)", "flatten dense(3)"]
    let classes = [["a \"b\"\\ ??/", "Käse\n"], nil]
    let input = Shape(6, 6, 1)
    let images = ExportedNetworks.images(1, input)
    var expected: [Float] = []
    for (index, name) in ["one", "Two_2"].enumerated() {
      let network = try ExportedNetworks.network(texts[index], input)
      if index == 1 { network.classNames = ["red", "green", "blue"] }
      expected += try network.predict(images).values
      try network.exportC(to: "\(folder.path)/\(name).c", name: name, classes: classes[index])
    }
    let main = """
      #include "one.h"
      #include "Two_2.h"
      #include "one.h"
      #include <stdio.h>
      int main(void) {
        float image[36], output[5];
        if (fread(image, sizeof(image), 1, stdin) != 1)
          return 1;
        one_predict(image, output);
        Two_2_predict(image, output + 2);
        for (int i = 0; i < 5; i++)
          printf("%.9g\\n", output[i]);
        printf("%s|%s|%s|%s", one_classes[0], one_classes[1], Two_2_classes[0], Two_2_classes[2]);
        return 0;
      }
      """
    try folder.write("main.c", Array(main.utf8))
    try folder.write("in", images.values.withUnsafeBytes { Array($0) })
    // One of them as C, one as C++: headers say which names are C's.
    for language in ["c", "c++"] {
      let said = try shell(
        "f='-pedantic -Wall -Wextra -Werror -O1 -c' && cc $f -std=c99 main.c one.c "
          + "&& c++ -x \(language) $f Two_2.c && cc main.o one.o Two_2.o -lm -o model && ./model <in",
        [], in: folder)
      let lines = said.split(separator: "\n", maxSplits: 5)
      try #require(lines.count == 6, "\(said)")
      expectClose(lines[..<5].map { Float($0)! }, expected, within: 1e-5, said)
      #expect(lines[5] == "a \"b\"\\ ??/|Käse\n|red|blue")
    }
  }

  @Test func namesAreIdentifiers() throws {
    let network = try ExportedNetworks.network("flatten dense(3)", Shape(2, 2, 1))
    let folder = try TemporaryFolder()
    for name in ["", "2net", "_net", "my-net", "nät", "a b", "é"] {
      let error = #expect(throws: StrideNetError.self) {
        try network.exportC(to: folder.path + "/net.c", name: name)
      }
      #expect(error?.kind == .usage && error?.found == "'\(name)'")
    }
    #expect(throws: StrideNetError.self) {
      try network.exportC(to: folder.path + "/net.h", name: "net")
    }
    #expect(throws: StrideNetError.self) {
      try network.exportC(to: folder.path + "/net.c", name: "net", classes: ["one"])
    }
    #expect(try folder.names.isEmpty)
  }

  /// Outputs of layers take turns in memory, which the head says.
  @Test func memoryIsShared() throws {
    let network = try ExportedNetworks.network(
      "conv(4,3,padding=1) conv(4,3,padding=1) conv(4,3,padding=1) activation(tanh) flatten dense(2)",
      Shape(10, 10, 1))
    let folder = try TemporaryFolder()
    try network.exportC(to: folder.path + "/model.c")
    let text = try String(contentsOfFile: folder.path + "/model.c", encoding: .utf8)
    let arrays = text.components(separatedBy: "\nstatic float memory").dropFirst().map {
      $0.prefix { $0 != ";" }
    }
    #expect(arrays == ["1[400]", "2[400]"])
    #expect(text.contains("and 3200 bytes of static arrays"))
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
    let array = text.components(separatedBy: "weight2[4][1][4] =\n")[1]
      .components(separatedBy: ";")[0]
    let numbers = array.split { "{},\n".contains($0) }.map { Float($0.dropLast()) }
    // For each input the three outputs' weights, and a 0.
    var expected: [Float] = []
    for input in 0..<4 { expected += [weights[input], weights[4 + input], weights[8 + input], 0] }
    #expect(numbers.map { $0?.bitPattern } == expected.map { $0.bitPattern })
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
