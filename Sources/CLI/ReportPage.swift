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
    /// What there is to see; nil where there is no room for it.
    struct Look: Encodable {
      let filters: TrainingRecord.Filters
      let maps: [TrainingRecord.Maps]
      let probabilities: [[Float]]
    }
    let step: Int
    let weight_norms, gradient_norms: [Float]
    var look: Look?

    init(_ frame: TrainingRecord.Frame) {
      step = frame.step
      (weight_norms, gradient_norms) = (frame.weightNorms, frame.gradientNorms)
      look = Look(
        filters: frame.filters, maps: frame.maps, probabilities: frame.probabilities)
    }
  }
  struct Options {
    /// At most so many bytes; more of the same is shown where there is more room.
    var size = 1_500_000
    /// Why the training came to no good end.
    var failure = ""
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
        "The mean of \(e.steps.grouped) training steps of \(e.images.fixed(1)) images on \(e.roof.threads.threads): \((e.total.measured * 1e3).fixed(2)) ms each, \(e.total.shareOfPeak.percent(1)) of the peak that was measured beside them. The rows account for \(e.accounted.percent(1)) of the wall time."
        + (isKnown ? "" : " They are steps of plain SGD: which it was trained with isn't known.")
        + e.notes.map { " \($0.first!.uppercased())\($0.dropFirst())." }.joined()
      (peak_gflops, memory) = (e.roof.gigaflopsPerSecond, e.roof.memory)
      rows = e.rows.map {
        Row(
          number: $0.number, name: $0.name, pass: $0.pass, kernel: $0.kernel, why: "\($0.why)",
          flop: $0.operations, bytes: $0.bytes, seconds: $0.measured,
          share_of_peak: $0.shareOfPeak)
      }
    }
  }

  let network, failure: String
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
  private(set) var frames: [Frame]
  /// Pictures, height and width; how many there are in all; the mean of how many channels each is.
  let filter_shape: [Int]
  let filter_count, filter_depth: Int
  let arrays: [String]
  let followed: [Image]
  let classes_there: Int
  let image_shape: [Int]
  let images: [Image]
  let wrong: [Int]
  /// Of how many judged images.
  let wrong_count, judged: Int
  let cells: [String: [Int]]
  /// The classes that the matrix has, and its rows of these and columns of these.
  let confused: [Int]
  let confusion: [[Int]]
  let metrics: [Metrics.Class]
  /// Nil where outputs are classes.
  let outputs: [Predicted]?
  let time: Time?
  /// What repeats the training; empty where that isn't known.
  let configuration: String
  let history_note, footer: String
  /// What there wasn't room for.
  private(set) var left_out: [String] = []

  /// - Parameters:
  ///   - record: how it was trained; of a network from a file, a look at what it is
  ///   - set: the images that are judged
  init(
    _ network: Network, record: TrainingRecord, data: Dataset, judged set: ImageSet,
    heldOut: Bool, explanation: Explanation?, history: TrainingHistory?, _ options: Options
  ) throws {
    self.network = Architecture.text(network.layers)
    let judgedNumbers: [[String]]
    let gallery: Gallery
    let room = options.size * 35 / 100
    if network.predictsNumbers {
      let metrics = try network.regressionMetrics(set)
      let predicted = try Self.predicted(network, set)
      judgedNumbers = [
        ["R²", RegressionMetrics.r2(metrics.r2)], ["test images", set.count.grouped],
      ]
      gallery = try Gallery(network, set, predicted, size: room)
      (confused, confusion, self.metrics) = ([], [], [])
      (wrong_count, judged) = (gallery.wrong.count, set.count)
      outputs = Self.outputs(network, metrics, set, predicted)
    } else {
      let metrics = try network.metrics(set)
      judgedNumbers = [
        ["accuracy", metrics.accuracy.percent()],
        [
          "wrong",
          "\(Int((metrics.ce * Double(set.count)).rounded()).grouped) of \(set.count.grouped)",
        ],
      ]
      gallery = try Gallery(network, set, size: room)
      let confused = Self.mostConfused(metrics.confusion)
      self.confused = confused
      confusion = confused.map { row in confused.map { metrics.confusion[row][$0] } }
      (self.metrics, outputs) = (metrics.classes, nil)
      (wrong_count, judged) = (
        metrics.images - metrics.confusion.indices.reduce(0) { $0 + metrics.confusion[$1][$1] },
        metrics.images
      )
    }
    numbers = judgedNumbers + Self.numbers(network, record.epochs)
    classes = (0..<network.classes).map(network.className)
    layers = network.layers.map(\.text)
    shapes = network.shapes.map { [$0.height, $0.width, $0.channels] }
    (loss, has_probabilities) = (network.loss.title, network.endsInSoftmax)
    held_out = heldOut ? "validation" : "test"
    points = record.points.map {
      Point(step: $0.step, loss: $0.loss, error: $0.classError, rate: $0.learningRate)
    }
    let batches = history.map { ($0.images - 1) / $0.configuration.training.batchSize + 1 } ?? 1
    let every = max(1, (record.epochs.count + 499) / 500)
    epochs = record.epochs.filter { $0.epoch % every == 0 || $0.epoch == record.epochs.last!.epoch }
      .map {
        Epoch(
          step: $0.epoch * batches, train_loss: $0.trainCCE, train_error: $0.trainCE,
          test_loss: $0.testCCE, test_error: $0.testCE, r2: $0.regression?.outputs.map(\.r2))
      }
    frames = record.frames.map(Frame.init)
    (filter_shape, arrays) = (record.filterShape, record.arrays)
    (filter_count, filter_depth) = (record.filterCount, record.filterDepth)
    image_shape = gallery.shape
    (images, wrong, cells) = (gallery.images, gallery.wrong, gallery.cells)
    let followed = record.images
    let width = followed.targets?.shape.count ?? 0
    self.followed = (0..<followed.images.batch).map { n in
      let label = followed.labels.isEmpty ? 0 : Int(followed.labels[n])
      return Image(
        index: n, label: label, guess: label, probability: 1,
        pixels: gallery.pixels(Picture(followed.images, example: n).pixels),
        text: followed.targets.map { Self.text(network, $0.values[n * width..<(n + 1) * width]) })
    }
    classes_there = record.classesThere
    failure = options.failure
    time = explanation.map { Time($0, ofKnownTraining: history != nil) }
    configuration = history?.configuration.json ?? ""
    history_note = Self.note(
      history, shown: epochs.count, of: record.epochs.last?.epoch ?? 0,
      hasSteps: !record.points.isEmpty)
    footer =
      "\(data.source). Kernels: \(network.runtime.kernels), \(KernelChoice.instructionSet). Weights SHA-256 \(network.snapshot().sha256)."
    left_out = gallery.leftOut
    try fit(options.size)
  }

  /// Of very many classes those that are mistaken the most, or for which others are.
  private static func mostConfused(_ confusion: [[Int]]) -> [Int] {
    let most = 60
    guard confusion.count > most else { return Array(confusion.indices) }
    var mistakes = [Int](repeating: 0, count: confusion.count)
    for (label, row) in confusion.enumerated() {
      for (guess, count) in row.enumerated() where guess != label {
        mistakes[label] += count
        mistakes[guess] += count
      }
    }
    return confusion.indices.sorted { (mistakes[$1], $0) < (mistakes[$0], $1) }.prefix(most)
      .sorted()
  }

  /// Leaves out so many looks that the page isn't larger, and says what isn't there.
  private mutating func fit(_ size: Int) throws {
    let looks = frames.map(\.look)
    for index in frames.indices { frames[index].look = nil }
    let room = try size - 2000 - page().utf8.count
    let largest =
      try frames.indices.map { index in
        try Self.encoder.encode(looks[index]).count
      }.max() ?? 1
    let count = max(0, min(looks.count, room / largest))
    // Evenly, the last one in any case.
    for k in 0..<count {
      let index = count == 1 ? looks.count - 1 : k * (looks.count - 1) / (count - 1)
      frames[index].look = looks[index]
    }
    if count < looks.count {
      left_out.append("Of \(looks.count) looks into the network \(count) can be seen.")
    }
    if !left_out.isEmpty {
      left_out.append(
        "This page was to have at most \(String(format: "%g", Double(size) / 1e6)) MB; --report-size makes room for more."
      )
    }
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
    _ network: Network, _ epochs: [EpochResult]
  ) -> [[String]] {
    let numbers = [["parameters", network.parameterCount.grouped]]
    guard let last = epochs.last else { return numbers }
    let seconds = epochs.reduce(0) { $0 + $1.seconds }
    // A weight file doesn't say how long it took.
    let times =
      seconds > 0
      ? [["training", "\(seconds.fixed(1)) s"], ["images/s", last.imagesPerSecond.grouped]] : []
    return numbers + [["epochs", last.epoch.grouped]] + times
  }

  /// What isn't known of the training, or isn't shown.
  private static func note(_ history: TrainingHistory?, shown: Int, of all: Int, hasSteps: Bool)
    -> String
  {
    guard history != nil else {
      return "How this network was trained isn't known: its file doesn't say."
    }
    if all == 0 {
      return hasSteps ? "No epoch was finished." : "What its epochs came to isn't known."
    }
    return shown < all ? "Of \(all.grouped) epochs \(shown.grouped) are shown." : ""
  }

  private static var encoder: JSONEncoder {
    let encoder = JSONEncoder()
    // The page draws no point there.
    encoder.nonConformingFloatEncodingStrategy = Output.nonFinite
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    return encoder
  }

  private func page() throws -> String {
    // Within a script element, nothing may look like its end.
    let json = String(decoding: try Self.encoder.encode(self), as: UTF8.self)
      .replacing("</", with: "<\\/").replacing("<!--", with: "<\\!--")
    return Page.text(page_report).replacing("/*DATA*/null", with: json)
  }

  func write(to path: String) throws {
    try AtomicFile.write(Array(page().utf8), to: path)
  }
}

/// The images that a report shows: mistakes, and some of each label and guess.
private struct Gallery {
  private(set) var images: [Report.Image] = []
  /// Places in `images`, the least likely first; `cells` by "label,guess".
  private(set) var wrong: [Int] = []
  private(set) var cells: [String: [Int]] = [:]
  /// The pictures' size, and what isn't shown.
  let shape: [Int]
  private(set) var leftOut: [String] = []
  private var places: [Int: Int] = [:]
  private let set: ImageSet
  // So many pixels of an image, each way, are one of its picture.
  private let coarse: Int

  /// With nothing in it.
  private init(of set: ImageSet) {
    self.set = set
    // They are shown with some 60 pixels.
    coarse = max(1, (max(set.height, set.width) + 63) / 64)
    shape = [set.height / coarse, set.width / coarse, set.channels].map { max(1, $0) }
    if coarse > 1 {
      leftOut.append(
        "Pictures of \(set.height)×\(set.width) are shown as \(shape[0])×\(shape[1]).")
    }
  }

  /// - Parameter size: bytes that all of it may take as text
  init(_ network: Network, _ set: ImageSet, size: Int) throws {
    self.init(of: set)
    let said = try Self.said(network, set)
    let order = (0..<set.count).sorted {
      said[$0].probability < said[$1].probability
        || (said[$0].probability == said[$1].probability && $0 < $1)
    }
    let most = max(1, size / (shape.reduce(1, *) * 4 / 3 + 90))
    func image(_ index: Int) -> Report.Image {
      Report.Image(
        index: index, label: Int(set.labels[index]), guess: said[index].guess,
        probability: said[index].probability,
        pixels: pixels(set.pixels[index * set.imageSize..<(index + 1) * set.imageSize]))
    }
    for index in order.lazy.filter({ said[$0].guess != Int(set.labels[$0]) }).prefix(min(48, most))
    {
      wrong.append(keep(image(index)))
    }
    func cell(_ index: Int) -> String { "\(set.labels[index]),\(said[index].guess)" }
    // Of each cell as many as of the others, where there isn't room for all that are asked for.
    let sizes = Dictionary(grouping: order, by: cell).mapValues(\.count).values
    func needed(_ each: Int) -> Int { sizes.reduce(0) { $0 + min(each, $1) } }
    let each = (1...24).last { needed($0) + wrong.count <= most } ?? 1
    for index in order where cells[cell(index), default: []].count < each {
      if images.count < most || places[index] != nil {
        cells[cell(index), default: []].append(keep(image(index)))
      }
    }
    if cells.values.reduce(0, { $0 + $1.count }) < needed(24) {
      leftOut.append(
        "Of the \(set.count.grouped) judged images \(images.count.grouped) can be looked at.")
    }
  }

  /// An image's picture: the mean of each square of pixels.
  func pixels(_ image: some RandomAccessCollection<UInt8>) -> Data {
    guard coarse > 1 else { return Data(image) }
    let (channels, all) = (set.channels, Array(image))
    var result = Data(capacity: shape.reduce(1, *))
    for y in 0..<shape[0] {
      for x in 0..<shape[1] {
        for c in 0..<channels {
          var sum = 0
          for i in 0..<coarse {
            for j in 0..<coarse {
              let row = min(set.height - 1, y * coarse + i)
              sum += Int(all[(row * set.width + min(set.width - 1, x * coarse + j)) * channels + c])
            }
          }
          result.append(UInt8(sum / (coarse * coarse)))
        }
      }
    }
    return result
  }

  /// Of numbers to predict, the images whose are furthest off, by the deviation of each.
  init(_ network: Network, _ set: ImageSet, _ predicted: [[Float]], size: Int) throws {
    self.init(of: set)
    let most = max(1, size / (shape.reduce(1, *) * 4 / 3 + 90))
    let (columns, scale) = (set.columns, TargetNormalization.standard(of: set).deviation)
    let off = (0..<set.count).map { index in
      columns.indices.reduce(0) { sum, column in
        let off = Double(predicted[index][column] - columns[column][index]) / scale[column]
        return sum + off * off
      }
    }
    let order = (0..<set.count).sorted { (off[$1], $0) < (off[$0], $1) }
    for index in order.prefix(min(48, most)) {
      let truth = Report.text(network, columns.map { $0[index] })
      wrong.append(
        keep(
          Report.Image(
            index: index, label: 0, guess: 0, probability: 0,
            pixels: pixels(set.pixels[index * set.imageSize..<(index + 1) * set.imageSize]),
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
