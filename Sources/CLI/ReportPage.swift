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
  }
  struct Point: Encodable {
    let step: Int
    let loss, error, rate: Float
  }
  struct Epoch: Encodable {
    let step: Int
    let train_loss, train_error, test_loss, test_error: Float
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

    init(_ e: Explanation, ofKnownTraining isKnown: Bool) {
      note =
        "The mean of \(e.steps.grouped) training steps of \(e.images.fixed(1)) images on \(e.roof.threads.threads): \((e.total.measured * 1e3).fixed(2)) ms each, \(e.total.shareOfPeak.percent(1)) of the peak that was just measured. The rows account for \(e.accounted.percent(1)) of the wall time."
        + (isKnown ? "" : " They are steps of plain SGD: which it was trained with isn't known.")
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
  let time: Time?
  /// What repeats the training; empty where that isn't known.
  let configuration: String
  let history_note, footer: String

  /// - Parameters:
  ///   - record: how it was trained; of a network from a file, a look at what it is
  ///   - set: the images that are judged
  init(
    _ network: Network, record: TrainingRecord, data: Dataset, judged set: ImageSet,
    heldOut: Bool, explanation: Explanation?, history: TrainingHistory?
  ) throws {
    let metrics = try network.metrics(set)
    self.network = Architecture.text(network.layers)
    numbers = Self.numbers(network, metrics, of: set.count, record.epochs)
    classes = (0..<network.classes).map(network.className)
    layers = network.layers.map(\.text)
    shapes = network.shapes.map { [$0.height, $0.width, $0.channels] }
    (loss, has_probabilities) = (network.loss.title, network.endsInSoftmax)
    held_out = heldOut ? "validation" : "test"
    points = record.points.map {
      Point(step: $0.step, loss: $0.loss, error: $0.classError, rate: $0.learningRate)
    }
    let batches = history.map { ($0.images - 1) / $0.configuration.training.batchSize + 1 } ?? 1
    epochs = record.epochs.map {
      Epoch(
        step: $0.epoch * batches, train_loss: $0.trainCCE, train_error: $0.trainCE,
        test_loss: $0.testCCE, test_error: $0.testCE)
    }
    frames = record.frames.map(Frame.init)
    (filter_shape, arrays) = (record.filterShape, record.arrays)
    image_shape = [set.height, set.width, set.channels]
    confusion = metrics.confusion
    self.metrics = metrics.classes

    let gallery = try Gallery(network, set)
    (images, wrong, cells) = (gallery.images, gallery.wrong, gallery.cells)
    followed = record.images.labels.enumerated().map { n, label in
      Image(
        index: n, label: Int(label), guess: Int(label), probability: 1,
        pixels: Data(Picture(record.images.images, example: n).pixels))
    }
    time = explanation.map { Time($0, ofKnownTraining: history != nil) }
    configuration = history?.configuration.json ?? ""
    history_note = Self.note(history, record)
    footer =
      "\(data.source). Kernels: \(network.runtime.kernels), \(KernelChoice.instructionSet). Weights SHA-256 \(network.snapshot().sha256)."
  }

  private static func numbers(
    _ network: Network, _ metrics: Metrics, of images: Int, _ epochs: [EpochResult]
  ) -> [[String]] {
    let numbers = [
      ["accuracy", metrics.accuracy.percent()],
      [
        "wrong",
        "\(Int((metrics.ce * Double(images)).rounded()).grouped) of \(images.grouped)",
      ],
      ["parameters", network.parameterCount.grouped],
    ]
    guard let last = epochs.last else { return numbers }
    let seconds = epochs.reduce(0) { $0 + $1.seconds }
    // A weight file doesn't say how long it took.
    let times =
      seconds > 0
      ? [["training", "\(seconds.fixed(1)) s"], ["images/s", last.imagesPerSecond.grouped]] : []
    return numbers + [["epochs", last.epoch.grouped]] + times
  }

  /// What isn't known of the training, or isn't shown.
  private static func note(_ history: TrainingHistory?, _ record: TrainingRecord) -> String {
    guard history != nil else {
      return "How this network was trained isn't known: its file doesn't say."
    }
    let (shown, all) = (record.epochs.count, record.epochs.last?.epoch ?? 0)
    return shown < all ? "Of \(all.grouped) epochs the file has \(shown.grouped)." : ""
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
