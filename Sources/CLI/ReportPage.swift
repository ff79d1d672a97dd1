import Foundation
import Pages
import StrideNet

/// A page about a network: how it was trained, what it sees, what it gets wrong and where its time
/// goes. One file that needs no other, nor a network.
struct Report: Encodable {
  struct Image: Encodable {
    let index: Int
    let label, guess: Int
    /// What the label was given.
    let probability: Float
    let pixels: Data
    /// Of numbers to predict, what they are, and what was predicted.
    var text: String?
  }
  /// One output of a network that predicts numbers.
  struct Predicted: Encodable {
    let name: String
    let mse, mae: Double
    let r2: Double?
    /// What is true and what was predicted, of images spread evenly.
    let points: [[Float]]
  }
  struct Point: Encodable {
    let step: Int
    let loss, error, rate: Float
  }
  struct Epoch: Encodable {
    let step: Int
    let train_loss, train_error, test_loss, test_error: Float
    /// Of each output, where numbers are predicted.
    let r2: [Double?]?
  }
  struct Frame: Encodable {
    let step: Int
    let filters: Data
    let weight_norms, gradient_norms: [Float]
    let maps: [TrainingRecord.Maps]
    let probabilities: [[Float]]

    init(_ frame: TrainingRecord.Frame) {
      (step, filters, maps) = (frame.step, frame.filters, frame.maps)
      (weight_norms, gradient_norms) = (frame.weightNorms, frame.gradientNorms)
      probabilities = frame.probabilities
    }
  }
  struct Time: Encodable {
    struct Row: Encodable {
      let number, name, pass, kernel, why: String
      let flop, bytes, seconds, share_of_peak: Double
    }
    let note: String
    let peak_gflops, memory: Double
    let rows: [Row]

    init(_ e: Explanation) {
      note =
        "The mean of \(e.steps.grouped) training steps of \(e.images.fixed(1)) images on \(e.roof.threads.threads): \((e.total.measured * 1e3).fixed(2)) ms each, \(e.total.shareOfPeak.percent(1)) of the peak that was just measured. The rows account for \(e.accounted.percent(1)) of the wall time."
      (peak_gflops, memory) = (e.roof.gigaflopsPerSecond, e.roof.memory)
      rows = e.rows.map {
        Row(
          number: $0.number, name: $0.name, pass: $0.pass, kernel: $0.kernel, why: "\($0.why)",
          flop: $0.operations, bytes: $0.bytes, seconds: $0.measured,
          share_of_peak: $0.shareOfPeak)
      }
    }
  }

  let network: String
  /// Titles and values on top of the page.
  let numbers: [[String]]
  let classes: [String]
  let layers: [String]
  let shapes: [[Int]]
  /// What the loss is called.
  let loss: String
  /// Whether the outputs are probabilities, not just numbers.
  let has_probabilities: Bool
  let held_out: String
  let points: [Point]
  let epochs: [Epoch]
  let frames: [Frame]
  let filter_shape: [Int]
  let arrays: [String]
  let followed: [Image]
  let image_shape: [Int]
  let images: [Image]
  let wrong: [Int]
  let cells: [String: [Int]]
  let confusion: [[Int]]
  let metrics: [Metrics.Class]
  /// Nil where outputs are classes.
  let outputs: [Predicted]?
  let time: Time?
  let command, configuration, footer: String

  /// - Parameters:
  ///   - record: how it was trained; of a network from a file, a look at what it is
  ///   - set: the images that are judged
  init(
    _ network: Network, record: TrainingRecord, data: Dataset, judged set: ImageSet,
    heldOut: Bool, seconds: Double?, explanation: Explanation?, configuration: RunConfiguration
  ) throws {
    self.network = Architecture.text(network.layers)
    let judged: [[String]]
    let gallery: Gallery
    if network.predictsNumbers {
      let metrics = try network.regressionMetrics(set)
      let predicted = try Self.predicted(network, set)
      judged = [["R²", RegressionMetrics.r2(metrics.r2)], ["test images", set.count.grouped]]
      gallery = try Gallery(network, set, predicted)
      (confusion, self.metrics) = ([], [])
      outputs = Self.outputs(network, metrics, set, predicted)
    } else {
      let metrics = try network.metrics(set)
      judged = [
        ["accuracy", metrics.accuracy.percent()],
        [
          "wrong",
          "\(Int((metrics.ce * Double(set.count)).rounded()).grouped) of \(set.count.grouped)",
        ],
      ]
      gallery = try Gallery(network, set)
      (confusion, self.metrics, outputs) = (metrics.confusion, metrics.classes, nil)
    }
    numbers = judged + Self.numbers(network, record, seconds)
    classes = (0..<network.classes).map(network.className)
    layers = network.layers.map(\.text)
    shapes = network.shapes.map { [$0.height, $0.width, $0.channels] }
    (loss, has_probabilities) = (network.loss.title, network.endsInSoftmax)
    held_out = heldOut ? "validation" : "test"
    points = record.points.map {
      Point(step: $0.step, loss: $0.loss, error: $0.classError, rate: $0.learningRate)
    }
    let batches =
      (data.train.count + configuration.training.batchSize - 1) / configuration.training.batchSize
    epochs = record.epochs.map {
      Epoch(
        step: $0.epoch * batches, train_loss: $0.trainCCE, train_error: $0.trainCE,
        test_loss: $0.testCCE, test_error: $0.testCE, r2: $0.regression?.outputs.map(\.r2))
    }
    frames = record.frames.map(Frame.init)
    (filter_shape, arrays) = (record.filterShape, record.arrays)
    image_shape = [set.height, set.width, set.channels]
    (images, wrong, cells) = (gallery.images, gallery.wrong, gallery.cells)
    let followed = record.images
    let width = followed.targets?.shape.count ?? 0
    self.followed = (0..<followed.images.batch).map { n in
      let label = followed.labels.isEmpty ? 0 : Int(followed.labels[n])
      return Image(
        index: n, label: label, guess: label, probability: 1,
        pixels: Data(Picture(followed.images, example: n).pixels),
        text: followed.targets.map { Self.text(network, $0.values[n * width..<(n + 1) * width]) })
    }
    time = explanation.map(Time.init)
    self.configuration = configuration.json
    command = "stridenet train --config run.json   # with this as run.json:"
    footer =
      "\(data.source). Kernels: \(network.runtime.kernels), \(KernelChoice.instructionSet). Weights SHA-256 \(network.snapshot().sha256)."
  }

  /// What the network predicts, a row an image.
  private static func predicted(_ network: Network, _ set: ImageSet) throws -> [[Float]] {
    try stride(from: 0, to: set.count, by: 512).flatMap { start in
      let output = try network.predict(set.batch(start..<min(set.count, start + 512)).images)
      let (values, count) = (output.values, output.shape.count)
      return (0..<output.batch).map { Array(values[$0 * count..<($0 + 1) * count]) }
    }
  }

  private static func outputs(
    _ network: Network, _ metrics: RegressionMetrics, _ set: ImageSet, _ predicted: [[Float]]
  ) -> [Predicted] {
    let shown = ImageSet.evenly(min(2000, set.count), of: set.count)
    return zip(metrics.outputs, set.columns).enumerated().map { index, output in
      Predicted(
        name: network.className(index), mse: output.0.meanSquaredError,
        mae: output.0.meanAbsoluteError, r2: output.0.r2,
        points: shown.map { [output.1[$0], predicted[$0][index]] })
    }
  }

  /// Numbers with their names.
  fileprivate static func text(_ network: Network, _ values: some Sequence<Float>) -> String {
    values.enumerated().map { index, value in
      (network.classNames.isEmpty ? "" : "\(network.classNames[index]) ")
        + Double(value).digits(4)
    }.joined(separator: ", ")
  }

  private static func numbers(
    _ network: Network, _ record: TrainingRecord, _ seconds: Double?
  ) -> [[String]] {
    let numbers = [["parameters", network.parameterCount.grouped]]
    guard let seconds, let last = record.epochs.last else { return numbers }
    return numbers + [
      ["training", "\(seconds.fixed(1)) s"], ["epochs", "\(last.epoch)"],
      ["images/s", last.imagesPerSecond.grouped],
    ]
  }

  func write(to path: String) throws {
    let encoder = JSONEncoder()
    // The page draws no point there.
    encoder.nonConformingFloatEncodingStrategy = Output.nonFinite
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    // Within a script element, nothing may look like its end.
    let json = String(decoding: try encoder.encode(self), as: UTF8.self)
      .replacing("</", with: "<\\/").replacing("<!--", with: "<\\!--")
    let page = Page.text(page_report).replacing("/*DATA*/null", with: json)
    try AtomicFile.write(Array(page.utf8), to: path)
  }
}

/// The images that a report shows: mistakes, and some of each label and guess.
private struct Gallery {
  private(set) var images: [Report.Image] = []
  /// Places in `images`, the least likely first; `cells` by "label,guess".
  private(set) var wrong: [Int] = []
  private(set) var cells: [String: [Int]] = [:]
  private var places: [Int: Int] = [:]

  init(_ network: Network, _ set: ImageSet) throws {
    let size = set.height * set.width * set.channels
    let said = try Self.said(network, set)
    let order = (0..<set.count).sorted {
      said[$0].probability < said[$1].probability
        || (said[$0].probability == said[$1].probability && $0 < $1)
    }
    // Few enough that the page stays one that opens at once, of whatever size the images are.
    let most = max(60, min(1200, 3_000_000 / size))
    func image(_ index: Int) -> Report.Image {
      Report.Image(
        index: index, label: Int(set.labels[index]), guess: said[index].guess,
        probability: said[index].probability,
        pixels: Data(set.pixels[index * size..<(index + 1) * size]))
    }
    for index in order.prefix(48) where said[index].guess != Int(set.labels[index]) {
      wrong.append(keep(image(index)))
    }
    for index in order {
      let key = "\(set.labels[index]),\(said[index].guess)"
      if cells[key, default: []].count < 24, images.count < most {
        cells[key, default: []].append(keep(image(index)))
      }
    }
  }

  /// Of numbers to predict, the images whose are furthest off, by the deviation of each.
  init(_ network: Network, _ set: ImageSet, _ predicted: [[Float]]) throws {
    let size = set.height * set.width * set.channels
    let (columns, scale) = (set.columns, TargetNormalization.standard(of: set).deviation)
    let off = (0..<set.count).map { index in
      columns.indices.reduce(0) { sum, column in
        let off = Double(predicted[index][column] - columns[column][index]) / scale[column]
        return sum + off * off
      }
    }
    let order = (0..<set.count).sorted { (off[$1], $0) < (off[$0], $1) }
    for index in order.prefix(48) {
      let truth = Report.text(network, columns.map { $0[index] })
      wrong.append(
        keep(
          Report.Image(
            index: index, label: 0, guess: 0, probability: 0,
            pixels: Data(set.pixels[index * size..<(index + 1) * size]),
            text: "\(truth) as \(Report.text(network, predicted[index]))")))
    }
  }

  private mutating func keep(_ image: Report.Image) -> Int {
    if let place = places[image.index] { return place }
    places[image.index] = images.count
    images.append(image)
    return images.count - 1
  }

  /// What the network says of each image: its guess, and how likely it finds the label.
  private static func said(_ network: Network, _ set: ImageSet) throws -> [(
    guess: Int, probability: Float
  )] {
    var said: [(guess: Int, probability: Float)] = []
    for start in stride(from: 0, to: set.count, by: 512) {
      let range = start..<min(set.count, start + 512)
      let output = try network.predict(set.batch(range).images)
      let count = output.shape.count
      for (row, index) in range.enumerated() {
        let values = (0..<count).map { output[row * count + $0] }
        said.append(
          (values.indices.max { values[$0] < values[$1] }!, values[Int(set.labels[index])]))
      }
    }
    return said
  }
}
