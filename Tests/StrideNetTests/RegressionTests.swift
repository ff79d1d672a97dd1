import Foundation
import Testing

import StrideNet
@testable import StrideNetCore
@testable import StrideNetFiles

/// Images with numbers to predict: losses, measures, training, files and exports.
@Suite struct RegressionTests {
  static let side = 10

  /// A bright spot of 3×3 with its middle at (x, y), on noise; what is to be predicted has units of
  /// another size.
  static func spots(_ count: Int, _ salt: Int) throws -> ImageSet {
    var (pixels, targets): ([UInt8], [Float]) = ([], [])
    for n in 0..<count {
      let (x, y) = (1 + n * (5 + 2 * salt) % 8, 1 + n / 8 * 3 % 8)
      for i in 0..<side * side {
        let isSpot = abs(i % side - x) <= 1 && abs(i / side - y) <= 1
        pixels.append(UInt8((isSpot ? 200 : 20) + 30 * value(n * 100 + i, salt)))
      }
      targets += [1000 * Float(x) + 250_000, 0.01 * Float(y)]
    }
    return try ImageSet(
      count: count, height: side, width: side, channels: 1, pixels: pixels,
      targets: Tensor(batch: count, shape: Shape(2), targets))
  }

  static let names = ["east", "north"]

  static func data(_ count: Int = 256) throws -> Dataset {
    try Dataset(
      name: "spots", source: "spots", train: spots(count, 1), test: spots(64, 2), classNames: names)
  }

  private static func network(_ text: String = "flatten relu(24) dense(2)") throws -> Network {
    Network(try Architecture.layers(text))
  }

  private static var settings: TrainingSettings {
    var settings = TrainingSettings()
    (settings.epochs, settings.batchSize, settings.learningRate) = (12, 16, 0.02)
    return settings
  }

  // MARK: Losses and measures

  private struct Expected: Decodable {
    let cases: [Case]
    struct Case: Decodable {
      let n, outputs: Int
      let squared, absolute: Double
      let dsquared, dabsolute: [Float]
      let mse, mae, r2: [Double]
      let r2_mean: Double
    }
  }

  @Test func lossesPyTorch() throws {
    for c in try expectations(Expected.self, "regression.json").cases {
      for (loss, mean, slopes) in [
        (Loss.meanSquaredError, c.squared, c.dsquared),
        (.meanAbsoluteError, c.absolute, c.dabsolute),
      ] {
        let output = Guarded(values(c.n * c.outputs, 1).map { 3 * $0 })
        let (gradient, losses) = (Guarded<Float>(c.n * c.outputs), Guarded<Float>(c.n))
        let wrong = Guarded<Int32>(c.n)
        values(c.n * c.outputs, 2).map { 3 * $0 }.withUnsafeBufferPointer {
          loss.compute(
            LossBatch(
              output: TensorView(output.pointer, batch: c.n, shape: Shape(c.outputs)),
              gradient: gradient.pointer, loss: losses.pointer, wrong: wrong.pointer),
            .values($0.baseAddress!), endsInSoftmax: false)
        }
        #expect(gradient.guardsHold && losses.guardsHold)
        let found = losses.values.reduce(0) { $0 + Double($1) } / Double(c.n)
        #expect(abs(found - mean) < 1e-6 * (1 + mean), "\(loss)")
        expectClose(gradient.values, slopes, within: 1e-6, "\(loss) gradient")
      }
    }
  }

  @Test func metricsOfScikitLearn() throws {
    for c in try expectations(Expected.self, "regression.json").cases {
      let targets = values(c.n * c.outputs, 2).map { 3 * $0 }
      let m = RegressionMetrics(
        loss: 0, outputs: values(c.n * c.outputs, 1).map { 3 * $0 },
        targets: (0..<c.outputs).map { column in
          (0..<c.n).map { targets[$0 * c.outputs + column] }
        }, names: [])
      for (column, output) in m.outputs.enumerated() {
        #expect(abs(output.meanSquaredError - c.mse[column]) < 1e-6)
        #expect(abs(output.meanAbsoluteError - c.mae[column]) < 1e-6)
        #expect(abs(output.r2! - c.r2[column]) < 1e-6 * abs(c.r2[column]))
      }
      #expect(abs(m.r2! - c.r2_mean) < 1e-6 * abs(c.r2_mean))
    }
  }

  @Test func metricsByHand() {
    // Of 1, 2, 3, 6 the mean is 3 and the squares about it are 4 + 1 + 0 + 9; of the outputs 1, 3, 3, 5
    // about them 0 + 1 + 0 + 1.
    let one = RegressionMetrics(
      loss: 0.5, outputs: [1, 3, 3, 5], targets: [[1, 2, 3, 6]], names: ["a"])
    #expect(one.outputs[0].meanSquaredError == 0.5 && one.outputs[0].meanAbsoluteError == 0.5)
    #expect(one.r2 == 1 - 2.0 / 14 && one.outputs[0].name == "a" && one.examples == 4)
    // Always the mean, and a column with nothing to tell.
    let two = RegressionMetrics(
      loss: 0, outputs: [2, 7, 2, 8], targets: [[1, 3], [7, 7]], names: [])
    #expect(two.outputs[0].r2 == 0 && two.outputs[1].r2 == nil && two.r2 == nil)
    #expect(two.outputs[1].meanAbsoluteError == 0.5)
  }

  @Test func standardTargets() throws {
    let set = try Self.spots(50, 3)
    let n = TargetNormalization.standard(of: set)
    for (column, values) in set.columns.enumerated() {
      let mean = values.reduce(0) { $0 + Double($1) } / 50
      let variance = values.reduce(0) { $0 + pow(Double($1) - mean, 2) } / 50
      #expect(abs(n.mean[column] - mean) < 1e-9 * abs(mean))
      #expect(abs(n.deviation[column] - variance.squareRoot()) < 1e-9 * variance.squareRoot())
    }
    let flat = try TensorSet(
      Tensor(batch: 2, shape: Shape(1), [0, 1]), targets: Tensor(batch: 2, shape: Shape(1), [7, 7]))
    #expect(TargetNormalization.standard(of: flat).deviation == [1])
    for (mean, deviation) in [([], []), ([0], [0]), ([.nan], [1]), ([0], [1, 2]), ([1e300], [1])]
      as [([Double], [Double])]
    {
      #expect(throws: StrideNetError.self) {
        try TargetNormalization(mean: mean, deviation: deviation)
      }
    }
  }

  // MARK: Training

  /// It is the training on targets that were normalised before, and answers in their units; the file,
  /// copies and those who ask from many threads know that.
  @Test func trainsInStandardUnits() throws {
    let data = try Self.data()
    let network = try Self.network()
    let trainer = try Trainer(network, data, Self.settings)
    #expect(trainer.settings.loss == .meanSquaredError && network.classNames == Self.names)
    let n = try #require(network.targetNormalization)
    #expect(n == .standard(of: data.train))
    func set(_ set: ImageSet) throws -> TensorSet {
      let columns = set.columns
      return try TensorSet(
        set.batch(0..<set.count).images,
        targets: Tensor(
          batch: set.count, shape: Shape(2),
          (0..<set.count * 2).map {
            (columns[$0 % 2][$0 / 2] - Float(n.mean[$0 % 2])) / Float(n.deviation[$0 % 2])
          }))
    }
    var settings = Self.settings
    settings.loss = .meanSquaredError
    let other = try Self.network()
    let plain = try Trainer(other, train: set(data.train), test: set(data.test), settings)
    try trainer.run()
    try plain.run()
    #expect(network.snapshot() == other.snapshot())
    #expect(trainer.results.map(\.trainCCE) == plain.results.map(\.trainCCE))
    let last = try #require(trainer.results.last)
    let metrics = try network.regressionMetrics(data.test)
    #expect(last.regression == metrics && Float(metrics.loss) == last.testCCE)
    #expect(metrics.r2! > 0.9 && metrics.outputs.map(\.name) == Self.names, "\(metrics)")
    #expect(metrics.outputs[0].meanAbsoluteError < 1000)

    let images = data.test.batch(0..<5)
    let answer = try network.predict(images.images).values
    let raw = try other.predict(images.images).values
    for (index, value) in answer.enumerated() {
      let expected = Double(raw[index]) * n.deviation[index % 2] + n.mean[index % 2]
      #expect(abs(Double(value) - expected) < 1e-6 * abs(expected))
    }
    #expect(try network.evaluate(images).output.values == answer)
    #expect(try network.predictor().predict(images.images).values == answer)
    #expect(try network.copy().predict(images.images).values == answer)
    let folder = try TemporaryFolder()
    try network.save(to: folder.path + "/w")
    let again = try Network.load(from: folder.path + "/w")
    #expect(again.targetNormalization == n && again.classNames == Self.names)
    #expect(try again.predict(images.images).values == answer)
    #expect(try again.evaluate(images).cce == network.evaluate(images).cce)
    #expect(try abs(again.trace(images).loss! - network.evaluate(images).cce) < 1e-6)

    let twice = try Ensemble([network, again]).regressionMetrics(data.test)
    // The numbers that are averaged are of 6 digits before the point.
    #expect(abs(twice.loss - metrics.loss) < 1e-4)
    #expect(abs(twice.r2! - metrics.r2!) < 1e-6)
  }

  /// Where a digit of MNIST is on a larger sheet, told from its pixels.
  @Test func findsDigits() throws {
    let sample = try Dataset.load("sample")
    let side = 20
    func set(_ images: ImageSet, _ count: Int) throws -> ImageSet {
      var (pixels, targets): ([UInt8], [Float]) = ([], [])
      for n in 0..<count {
        // 14×14, each the mean of 2×2.
        let (top, left) = (n * 31 % 7, n * 17 / 7 % 7)
        var sheet = [UInt8](repeating: 0, count: side * side)
        for y in 0..<14 {
          for x in 0..<14 {
            let sum = [0, 1, 28, 29].reduce(0) {
              $0 + Int(images.pixels[n * 784 + 2 * y * 28 + 2 * x + $1])
            }
            sheet[(top + y) * side + left + x] = UInt8(sum / 4)
          }
        }
        pixels += sheet
        targets += [Float(left) + 7, Float(top) + 7]
      }
      return try ImageSet(
        count: count, height: side, width: side, channels: 1, pixels: pixels,
        targets: Tensor(batch: count, shape: Shape(2), targets))
    }
    let data = try Dataset(
      name: "sheets", source: "sheets", train: set(sample.train, 700), test: set(sample.test, 200),
      classNames: ["x", "y"])
    let trainer = try Trainer(try Self.network("flatten relu(32) dense(2)"), data, Self.settings)
    try trainer.run()
    let r2 = try #require(trainer.results.last?.regression?.r2)
    #expect(r2 > 0.8, "R² \(r2)")
  }

  @Test func headsWithARangeKeepTargets() throws {
    let data = try Self.data(32)
    let network = try Self.network("flatten sigmoid(2)")
    _ = try Trainer(network, data, Self.settings)
    #expect(network.targetNormalization == TargetNormalization.none(outputs: 2))
  }

  @Test func splitsCarryTargets() throws {
    /// The target says which image it is.
    func set(_ count: Int, _ first: Int) throws -> ImageSet {
      try ImageSet(
        count: count, height: 1, width: 2, channels: 1,
        pixels: (first..<first + count).flatMap { [UInt8($0), 9] },
        targets: Tensor(
          batch: count, shape: Shape(1), (first..<first + count).map { Float($0) + 0.5 }))
    }
    let data = try Dataset(name: "n", source: "n", train: set(50, 0), test: set(30, 50))
    var all = [
      data, try data.split(0.5, seed: 2), try data.limited(to: 7),
      try data.holdingOut(0.3, seed: 3),
    ]
    let folds = try data.folds(4)
    all += folds
    for data in all {
      for set in [data.train, data.test] {
        #expect(
          set.columns[0]
            == stride(from: 0, to: 2 * set.count, by: 2).map {
              Float(set.pixels[$0]) + 0.5
            })
      }
    }
    #expect(Set(folds.flatMap { $0.test.columns[0] }).count == 50)
    // Chance decides, not the order.
    #expect(all[3].test.columns[0] != (35..<50).map { Float($0) + 0.5 })
    let joined = try ImageSet.joined([data.train, data.test])
    #expect(joined.columns[0] == (0..<80).map { Float($0) + 0.5 })
    #expect(joined.batch([3, 70]).targets?.values == [3.5, 70.5])
  }

  // MARK: What doesn't fit

  private func refused(_ text: String, _ body: () throws -> Void) {
    let error = #expect(throws: StrideNetError.self) { try body() }
    #expect(error?.description.contains(text) == true, "\(error?.description ?? "")")
  }

  @Test func refuses() throws {
    let (set, data) = (try Self.spots(32, 1), try Self.data(32))
    func other(_ targets: [Float], of count: Int) throws {
      _ = try set.with(Tensor(batch: count, shape: Shape(1), targets))
    }
    refused("image 3, target 0") {
      try other((0..<32).map { $0 == 3 ? .nan : 0 }, of: 32)
    }
    refused("32 images, 31 targets") { try other([Float](repeating: 0, count: 31), of: 31) }
    let labelled = try ImageSet(
      count: 32, height: 10, width: 10, channels: 1, pixels: set.pixels,
      labels: [Int](repeating: 1, count: 32))
    refused("targets of different kinds") { _ = try ImageSet.joined([set, labelled]) }
    refused("targets of different kinds") {
      _ = try Dataset(name: "", source: "", train: set, test: labelled)
    }
    refused("names of other numbers") {
      _ = try Dataset(name: "", source: "", train: set, test: set, classNames: ["x"])
    }
    for (text, message) in [
      ("flatten softmax(2)", "ends in softmax"), ("flatten dense(3)", "more outputs than"),
      ("flatten dense(1)", "fewer outputs than"),
    ] { refused(message) { _ = try Trainer(Self.network(text), data, Self.settings) } }
    var settings = Self.settings
    settings.loss = .crossEntropy(labelSmoothing: 0.1)
    refused("a loss that is for classes") { _ = try Trainer(Self.network(), data, settings) }
    settings = Self.settings
    settings.classWeights = [1, 1]
    refused("class weights") { _ = try Trainer(Self.network(), data, settings) }
    let network = try Self.network()
    _ = try Trainer(network, data, Self.settings)
    refused("values as targets") { _ = try network.metrics(data.test) }
    refused("classes as targets") { _ = try network.regressionMetrics(labelled) }
    network.targetNormalization = .none(outputs: 3)
    refused("other targets than") { _ = try network.predict(set.batch([0]).images) }
  }

  /// From classes to numbers and back the last layer is new; the same numbers go on with all weights.
  @Test func goesOnFromOthers() throws {
    let data = try Self.data(32)
    let classes = try Self.network("flatten relu(5) dense(10) activation(softmax)")
    try classes.build(for: data.train.shape)
    let numbers = try classes.copy(for: data, seed: 4)
    #expect(Architecture.text(numbers.layers) == "flatten relu(5) dense(2)")
    #expect(numbers.loss == .meanSquaredError && numbers.classNames == Self.names)
    #expect(
      try numbers.weights("layers.1.weight") == classes.weights("layers.1.weight"))
    try Trainer(numbers, data, Self.settings).run()
    let again = try numbers.copy(for: data)
    #expect(again.snapshot() == numbers.snapshot())
    #expect(again.targetNormalization == numbers.targetNormalization)
    let sample = try ImageSet(
      count: 3, height: 10, width: 10, channels: 1, pixels: Array(data.train.pixels.prefix(300)),
      labels: [0, 1, 2])
    let back = try numbers.copy(
      for: Dataset(name: "", source: "", train: sample, test: sample, classNames: ["a", "b", "c"]))
    #expect(Architecture.text(back.layers) == "flatten relu(5) softmax(3)")
    #expect(back.loss == .crossEntropy() && back.targetNormalization == nil)
  }

  // MARK: Exports

  /// C, ONNX and PyTorch give the numbers in their units, with their names.
  @Test func exportsComputeTheSame() throws {
    for (text, input) in [
      ("conv(3,3) flatten dense(2)", Shape(6, 5, 1)), ("relu(7) dense(2)", Shape(1, 1, 4)),
    ] {
      let network = try ExportedNetworks.network(text, input)
      network.targetNormalization = try TargetNormalization(
        mean: [250_000, -0.5], deviation: [2000, 0.25])
      network.classNames = ["east \"*/", "north"]
      let images = ExportedNetworks.images(3, input)
      let expected = try network.predict(images).values
      func close(_ found: [Float], _ what: String) {
        #expect(found.count == expected.count)
        for (a, b) in zip(found, expected) {
          #expect(abs(a - b) < 1e-5 * max(1, abs(b)), "\(what)")
        }
      }
      close(try CExportTests.run(network, images), "C of \(text)")
      let result = try ONNXInterpreter(
        ONNXTests.model(network),
        .init(
          sizes: [3, input.channels, input.height, input.width],
          values: ONNXTests.channelsFirst(images).map(Double.init)))
      close(try #require(result.values["output"]).values.map(Float.init), "ONNX of \(text)")
      let source = try network.pyTorchSource(file: "a.safetensors")
      #expect(source.contains("model, Denormalize([250000.0, -0.5], [2000.0, 0.25]))"))
      let folder = try TemporaryFolder()
      try network.exportC(to: folder.path + "/a.c", name: "map")
      let header = try String(contentsOfFile: folder.path + "/a.h", encoding: .utf8)
      #expect(header.contains("map_names[2];") && header.contains("(east \"* /, north)"))
      #expect(try shell("cc -std=c99 -Wall -Wextra -Werror -c a.c", [], in: folder).isEmpty)
    }
  }

  // MARK: Files

  private func table(_ text: String, _ targets: [String]) throws -> Dataset {
    let folder = try TemporaryFolder()
    return try Dataset.load(
      folder.write("t.csv", Array(text.utf8)), PictureOptions(targets: targets), environment: [:])
  }

  private static let table = """
    price,a,b,size,c,d
    1.5,0,50,-3,100,255
    2.5,1,2,1e2,3,4
    3.25,5,6,7,8,9

    """

  @Test func readsTables() throws {
    let named = try table(Self.table, ["size", "price"])
    #expect(named.classNames == ["size", "price"] && named.train.shape == Shape(2, 2, 1))
    #expect(named.train.pixels + named.test.pixels == [0, 50, 100, 255, 1, 2, 3, 4, 5, 6, 8, 9])
    let rows = zip(named.train.columns, named.test.columns).map { $0 + $1 }
    #expect(rows == [[-3, 100, 7], [1.5, 2.5, 3.25]])
    #expect(
      named.source.contains("to predict size, price") && named.source.contains("a fifth held"))
    for targets in [["4", "1"], ["-3", "-6"]] {
      let numbered = try table(Self.table, targets)
      #expect(numbered.classNames == named.classNames)
      #expect(numbered.train.columns == named.train.columns)
    }
    // Without a header, in a folder with a test set.
    let folder = try TemporaryFolder()
    try folder.write("train.csv", Array("1,2,3,4,0.5\n5,6,7,8,1.5\n".utf8))
    try folder.write("test.csv", Array("1,2,3,4,-9\n".utf8))
    let last = try Dataset.load(folder.path, PictureOptions(targets: ["-1"]), environment: [:])
    #expect(last.classNames == ["column 5"] && last.train.columns == [[0.5, 1.5]])
    #expect(last.test.columns == [[-9]])
    // What a saved network calls it.
    let again = try Dataset.load(
      folder.path, PictureOptions(targets: last.classNames), environment: [:])
    #expect(again.train.columns == last.train.columns)
  }

  @Test(arguments: [
    ("p0", "no such column"), ("0", "no such column"), ("7", "a number from 1 to 6"),
    ("-7", "price, a, b"), ("price,1", "a column twice"),
    ("1,2,3,4,5,6", "a table without pixels"),
  ])
  func refusesColumns(targets: String, message: String) throws {
    refused(message) {
      _ = try table(Self.table, targets.split(separator: ",").map(String.init))
    }
  }

  @Test(arguments: [
    ("1,2,3,4,,6", "nothing in column 5 (c)"), (",2,3,4,5,6", "nothing in column 1 (price)"),
    ("1,2,3,much,5,6", "'much' in column 4 (size)"), ("1,2,3,NaN,5,6", "'NaN' in column 4 (size)"),
    ("inf,2,3,4,5,6", "'inf' in column 1 (price)"), ("1,2,3,1e99,5,6", "'1e99' in column 4 (size)"),
    ("1,2,3,4,5,x", "'x' in column 6 (d)"), ("1,2,3,4,5", "another number of cells"),
  ])
  func refusesCells(row: String, message: String) throws {
    for part in ["line 5", message] {
      refused(part) { _ = try table(Self.table + row, ["size", "price"]) }
    }
  }

  @Test func readsArrays() throws {
    func load(_ name: String, _ targets: [String]? = ["all", "red"]) throws -> Dataset {
      try Dataset.load(
        PictureFiles.path("arrays/\(name).npz"), PictureOptions(targets: targets), environment: [:])
    }
    let data = try load("targets")
    #expect(data.train.count == 12 && data.classNames == ["all", "red"])
    for set in [data.train, data.test] {
      for index in 0..<set.count {
        let image = set.pixels[index * 192..<(index + 1) * 192].map(Double.init)
        let red = stride(from: 0, to: 192, by: 3).reduce(0) { $0 + image[$1] } / 64
        #expect(abs(Double(set.columns[0][index]) - image.reduce(0, +) / 192) < 1e-4)
        #expect(abs(Double(set.columns[1][index]) - red) < 1e-4)
      }
    }
    // Labels, and halves of numbers, as numbers, N of them.
    #expect(
      try load("bad/half-label", ["y"]).train.columns[0].allSatisfy { $0 * 2 != $0.rounded() * 2 })
    #expect(try load("plain", ["y"]).train.targets?.shape == Shape(1))
    refused("row 5, column 2") { _ = try load("nan-targets") }
    refused("names of other numbers") { _ = try load("targets", ["one"]) }
    refused("--targets") { _ = try load("bad/half-label", nil) }
    refused("differ in number") { _ = try load("bad/numbers", ["y"]) }
    refused("a data set that has classes") {
      _ = try Dataset.load("sample", PictureOptions(targets: ["y"]))
    }
    refused("a data set that has classes") {
      _ = try Dataset.load(
        PictureFiles.path("same/folders"), PictureOptions(targets: ["y"]), environment: [:])
    }
    refused("stay in their files") {
      _ = try Dataset.stream(PictureFiles.path("same/npy"), PictureOptions(targets: ["y"]))
    }
    // There and back again.
    let folder = try TemporaryFolder()
    try data.save(to: folder.path + "/set.npz")
    let again = try Dataset.load(
      folder.path + "/set.npz", PictureOptions(targets: ["all", "red"]), environment: [:])
    #expect(again.train.columns == data.train.columns && again.test.pixels == data.test.pixels)
    refused("IDX has no place") { try data.save(to: folder.path + "/idx") }
  }

  @Test func readsPictures() throws {
    let place = try Workplace()
    for number in 0..<6 {
      try PictureFolderTests.write(
        "pics/\(number).png", PictureFolderTests.png(1, number, isGrey: true), in: place)
    }
    try place.write("pics/notes.txt", "x")
    try place.write(
      "pics/targets.csv", "file,age,size\n0.png,1,2\n3.png,4,5\n2.png,7,8\n9.png,0,0\n")
    func load(_ targets: [String]? = nil) throws -> Dataset {
      try Dataset.load(
        "\(place.path)/pics",
        PictureOptions(height: 6, width: 6, targets: targets), environment: [:])
    }
    let data = try load()
    #expect(data.classNames == ["age", "size"])
    // The rows, in their order, but for that of a picture that isn't there.
    #expect(zip(data.train.columns, data.test.columns).map { $0 + $1 } == [[1, 4, 7], [2, 5, 8]])
    let numbers = data.pictureFiles.joined().map { URL(filePath: $0).lastPathComponent }
    #expect(numbers == ["0.png", "3.png", "2.png"])
    for (number, pixels) in zip([0, 3], [0, 1]) {
      let picture = try Picture.read(at: "\(place.path)/pics/\(number).png")
      let grey = stride(from: 0, to: picture.pixels.count, by: picture.channels)
      #expect(
        Array(data.train.pixels[pixels * 36..<(pixels + 1) * 36]) == grey.map { picture.pixels[$0] }
      )
    }
    #expect(
      Set(data.skipped.map { URL(filePath: $0.file).lastPathComponent })
        == ["1.png", "4.png", "5.png", "notes.txt", "9.png"])
    #expect(try load(["size"]).train.columns == [[2, 5]])
    #expect(try load(["2"]).classNames == ["age"])
    refused("no such column") { _ = try load(["file"]) }
    try place.write("pics/targets.csv", "0.png,1\n3.png\n")
    refused("line 2") { _ = try load() }
    try place.write("pics/targets.csv", "0.png,1\n3.png,\n")
    refused("nothing in column 2") { _ = try load() }
    try place.write("pics/targets.csv", "0.png,1\n0.png,2\n")
    refused("a picture twice") { _ = try load() }
    try place.write("pics/targets.csv", "7.png,1\n8.png,2\n")
    refused("none can be read") { _ = try load() }
    // Sets of their own.
    for (part, number) in [("train", 1), ("train", 2), ("test", 3)] {
      try PictureFolderTests.write(
        "two/\(part)/\(number).png", PictureFolderTests.png(1, number), in: place)
    }
    try place.write("two/train/targets.csv", "2.png,0.5\n1.png,0.25\n")
    try place.write("two/test/targets.csv", "3.png,4\n")
    let two = try Dataset.load("\(place.path)/two", environment: [:])
    #expect(two.train.columns == [[0.5, 0.25]] && two.test.columns == [[4]])
    #expect(two.classNames == ["column 2"] && two.skipped.isEmpty)
  }
}
