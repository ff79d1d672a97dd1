import ArgumentParser
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
  }

  let network: String
  /// Titles and values on top of the page.
  let numbers: [[String]]
  let classes: [String]
  let layers: [String]
  let shapes: [[Int]]
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
  let command, configuration, footer: String

  /// - Parameters:
  ///   - record: how it was trained; of a network from a file, a look at what it is
  ///   - set: the images that are judged
  init(
    _ network: Network, record: TrainingRecord, data: Dataset, judged set: ImageSet,
    heldOut: Bool, seconds: Double?, explanation: Explanation?, configuration: RunConfiguration
  ) throws {
    let metrics = try network.metrics(set)
    self.network = Architecture.text(network.layers)
    var numbers = [
      ["accuracy", "\((metrics.accuracy * 100).fixed(2)) %"],
      [
        "wrong",
        "\(Int((metrics.ce * Double(set.count)).rounded()).grouped) of \(set.count.grouped)",
      ],
      ["parameters", network.parameterCount.grouped],
    ]
    if let seconds, let last = record.epochs.last {
      numbers += [
        ["training", "\(seconds.fixed(1)) s"], ["epochs", "\(last.epoch)"],
        ["images/s", last.imagesPerSecond.grouped],
      ]
    }
    self.numbers = numbers
    classes = ClassNames.of(data, count: network.classes)
    layers = network.layers.map(\.text)
    shapes = network.shapes.map { [$0.height, $0.width, $0.channels] }
    held_out = heldOut ? "validation" : "test"
    points = record.points.map {
      Point(step: $0.step, loss: $0.loss, error: $0.classError, rate: $0.learningRate)
    }
    let batches =
      (data.train.count + configuration.training.batchSize - 1) / configuration.training.batchSize
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

    // What the network says of each image.
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
    func image(_ index: Int) -> Image {
      let size = set.height * set.width * set.channels
      return Image(
        index: index, label: Int(set.labels[index]), guess: said[index].guess,
        probability: said[index].probability,
        pixels: Data(set.pixels[index * size..<(index + 1) * size]))
    }
    let order = (0..<set.count).sorted {
      said[$0].probability < said[$1].probability
        || (said[$0].probability == said[$1].probability && $0 < $1)
    }
    // Few enough that the page stays one that opens at once, of whatever size the images are.
    let most = max(60, min(1200, 3_000_000 / (set.height * set.width * set.channels)))
    var (kept, places, cells) = ([Image](), [Int: Int](), [String: [Int]]())
    func keep(_ index: Int) -> Int {
      if let place = places[index] { return place }
      places[index] = kept.count
      kept.append(image(index))
      return kept.count - 1
    }
    wrong = order.prefix(48).filter { said[$0].guess != Int(set.labels[$0]) }.map(keep)
    for index in order {
      let key = "\(set.labels[index]),\(said[index].guess)"
      if cells[key, default: []].count < 24, kept.count < most {
        cells[key, default: []].append(keep(index))
      }
    }
    (images, self.cells) = (kept, cells)
    followed = record.images.labels.enumerated().map { n, label in
      Image(
        index: n, label: Int(label), guess: Int(label), probability: 1,
        pixels: Data(PNG.Image(record.images.images, example: n).pixels))
    }
    time = explanation.map { e in
      Time(
        note:
          "The mean of \(e.steps.grouped) training steps of \(e.images.fixed(1)) images on \(e.roof.threads) thread\(e.roof.threads == 1 ? "" : "s"): \((e.total.measured * 1e3).fixed(2)) ms each, \((e.total.shareOfPeak * 100).fixed(1)) % of the peak that was just measured. The rows account for \((e.accounted * 100).fixed(1)) % of the wall time.",
        peak_gflops: e.roof.gigaflopsPerSecond, memory: e.roof.memory,
        rows: e.rows.map {
          Time.Row(
            number: $0.number, name: $0.name, pass: $0.pass, kernel: $0.kernel, why: "\($0.why)",
            flop: $0.operations, bytes: $0.bytes, seconds: $0.measured,
            share_of_peak: $0.shareOfPeak)
        })
    }
    self.configuration = configuration.json
    command = "stridenet train --config run.json   # with this as run.json:"
    footer =
      "\(data.source). Kernels: \(network.runtime.kernels), \(KernelChoice.instructionSet). Weights SHA-256 \(network.snapshot().sha256)."
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

/// The pages that are in the program.
enum Page {
  /// A page with its style and its script in their places.
  static func text(_ page: page_file) -> String {
    string(page).replacing("/*STYLE*/", with: string(page_style))
      .replacing("/*PICTURES*/", with: string(page_pictures))
  }

  private static func string(_ file: page_file) -> String {
    String(decoding: UnsafeBufferPointer(start: file.bytes, count: file.count), as: UTF8.self)
  }
}

/// What classes are called where they aren't the digits that their numbers are.
enum ClassNames {
  static func of(_ data: Dataset, count: Int) -> [String] {
    let clothes = [
      "T-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag",
      "boot",
    ]
    let known = data.name == "fashion-mnist" ? clothes : []
    return (0..<count).map { known.indices.contains($0) ? known[$0] : "\($0)" }
  }
}

struct ReportCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "report",
    abstract: "Writes a page about a saved network: what it sees, what it gets wrong, its time.",
    discussion: """
      train --report writes one that also shows how the network was trained. A checkpoint knows its \
      epochs. The page is one file and loads nothing from elsewhere.
      """)

  @Argument(
    help: ArgumentHelp(
      "Weights that train --save wrote, or a checkpoint. Without it: the small trained network that is in the package.",
      valueName: "file"))
  var file: String?

  @Option(
    help: ArgumentHelp(
      "The page to write; without it, beside the file under its name with .html.",
      valueName: "html"))
  var out: String?

  @OptionGroup var dataOptions: DataOptions
  @OptionGroup var compute: ComputeOptions

  func run() throws {
    let path = out ?? (file.map { "\($0).html" } ?? "digits.html")
    let runtime = try compute.runtime()
    func load() throws -> Network {
      try file.map { try Network.load(from: $0, runtime: runtime) } ?? .digits(runtime: runtime)
    }
    let network = try load()
    // A weight file has no configuration, nor epochs.
    let checkpoint = file.flatMap { try? Checkpoint(from: $0) }
    try AtomicFile.checkWritable(path)
    var configuration = checkpoint?.configuration ?? RunConfiguration()
    configuration.layers = Architecture.text(network.layers)
    if checkpoint == nil { configuration.training.loss = network.loss }
    let wanted = dataOptions.data ?? checkpoint?.configuration.data
    configuration.data = wanted
    let (data, test) = try configuration.loadData()
    try requireFinite([network.evaluate(test ?? data.test).cce], file ?? "the digits' network")
    configuration.data = wanted ?? data.name
    configuration.training.batchSize = min(configuration.training.batchSize, data.train.count)

    // Training steps are timed on another copy of the network.
    let copy = try load()
    var short = configuration.training
    short.epochs = 1
    let few = try data.limited(to: min(data.train.count, 40 * short.batchSize))
    try copy.build(for: few.train.shape)
    copy.timePasses()
    let timed = try Trainer(
      copy,
      try Dataset(
        name: few.name, source: few.source, train: few.train, test: few.test.prefix(1)), short)
    _ = try timed.run()
    let explanation = copy.explanation(MachinePeak(threads: runtime.threads).allThreads)

    let trainer = try Trainer(network, data, configuration.training)
    let record = try TrainingRecord(trainer, frames: 1)
    for result in checkpoint?.results ?? [] { record.note(result) }
    try Report(
      network, record: record, data: data, judged: test ?? data.test, heldOut: test != nil,
      seconds: checkpoint.map { $0.results.reduce(0) { $0 + $1.seconds } },
      explanation: explanation,
      configuration: configuration
    ).write(to: path)
    try Output.line("report   \(path)")
  }
}
