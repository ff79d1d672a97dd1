import ArgumentParser
import Foundation
import StrideNet

struct DataCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "data",
    abstract: "Says what is in a data set, and what would be trained on it; writes it anew.")

  @Argument(
    help: ArgumentHelp("What --data of the other commands takes.", valueName: "set"))
  var data: String?

  @OptionGroup var pictures: PictureArguments

  @Option(
    help: ArgumentHelp("Write there some images of each class, side by side.", valueName: "png"))
  var sheet: String?

  @Option(
    help: ArgumentHelp(
      "Write the images there: a file .npz, or a folder for IDX files.", valueName: "place"))
  var save: String?

  @Flag(help: "Print JSON.")
  var json = false

  func run() throws {
    for path in [sheet, save].compactMap({ $0 }) where path.lowercased().contains(/\.(png|npz)$/) {
      try AtomicFile.checkWritable(path)
    }
    let data = try Dataset.load(
      data, pictures.options(), progress: json ? nil : DataOptions.progress)
    for note in data.notes { Output.note(note) }
    let event = DataEvent(data, cache: pictures.cache)
    if json { try Output.json(event) } else { try describe(event, data) }
    if let sheet { try PNG.write(Self.sheet(of: data), to: sheet) }
    if let save { try data.save(to: save) }
    if json { return }
    if let sheet {
      let (most, all) = Self.sheetSize
      let classes = event.classes?.count ?? 0
      let of = classes > most ? "the first \(most) of \(classes.grouped) classes" : "each class"
      try Output.line(
        "sheet       \(sheet): up to "
          + (data.hasTargets
            ? "\(Self.sheetImages) training images" : "\(all) training images of \(of)"))
    }
    if let save { try Output.line("saved       \(save)") }
  }

  private static let sheetSize = (classes: 40, images: 10)
  private static let sheetImages = 100

  /// Some images of each class, or the first ones of those with numbers to predict.
  private static func sheet(of data: Dataset) -> Picture {
    let set = data.train
    let byClass = Dictionary(
      grouping: 0..<(data.hasTargets ? min(sheetImages, set.count) : set.count)
    ) {
      data.hasTargets ? $0 / sheetSize.images : Int(set.labels[$0])
    }.sorted { $0.key < $1.key }
    let rows = byClass.prefix(sheetSize.classes).map { _, places in
      let images = set.batch(places.prefix(sheetSize.images)).images
      return (0..<images.batch).map { Picture(images, example: $0) }
    }
    return ContactSheet.picture(rows, zoom: max(1, min(3, 100 / max(set.height, set.width))))
  }

  private func describe(_ event: DataEvent, _ data: Dataset) throws {
    let parts = data.parts.map { "\($0.set.count.grouped) \($0.name)" }
    try Output.line(
      """
      data        \(event.data)
      images      \(parts.formatted(.list(type: .and).locale(Locale(identifier: "en_GB")))) \
      images of \(data.train.shape)
      """)
    if !data.sizes.isEmpty {
      let sizes = data.sizes.sorted { ($1.value, $0.key) < ($0.value, $1.key) }
      let few = sizes.prefix(5).map { "\($0.value.grouped) of \($0.key)" }
      let rest = sizes.count > 5 ? ", \((sizes.count - 5).grouped) other sizes" : ""
      try Output.line("pictures    \(few.joined(separator: ", "))\(rest)")
    }
    for (channel, s) in event.channels.enumerated() {
      try Output.line(
        "\(channel == 0 ? "values  " : "        ")    mean \(s.mean.fixed(4)), deviation "
          + "\(s.deviation.fixed(4))"
          + (event.channels.count == 3 ? " (\(["red", "green", "blue"][channel]))" : ""))
    }
    try Output.line(data.hasTargets ? "\nto predict" : "\nclasses")
    let rows =
      event.targets?.map { [$0.name.oneLine] + $0.numbers.map { $0.digits(4) } }
      ?? event.classes!.map { [$0.name.oneLine] + $0.images.map(\.grouped) }
    let head =
      [""]
      + (data.hasTargets ? ["mean", "deviation", "least", "greatest"] : data.parts.map(\.name))
    for line in aligned([head] + rows, textColumns: [0]) { try Output.line(line) }
    try Output.line("")
    try printDoubtful(event, data)
    if let cache = event.cache {
      try Output.line(
        "cache       \(cache.sets) set\(cache.sets == 1 ? "" : "s") of decoded pictures, "
          + "\((Double(cache.bytes) / 1e6).fixed(1)) MB, in \(cache.folder)")
    }
    try Output.line("network     \(event.network)")
  }

  private func printDoubtful(_ event: DataEvent, _ data: Dataset) throws {
    let most = 10
    if !event.duplicates.isEmpty {
      let two = event.duplicates.count(where: \.differs)
      try Output.line(
        "duplicates  \(event.duplicates.count.grouped) that are to be tested with are training "
          + "images too"
          + (two > 0
            ? ", \(two.grouped) of them \(data.hasTargets ? "with other numbers" : "in another class")"
            : ""))
      for pair in event.duplicates.prefix(most) {
        try Output.line("  \(pair.test.oneLine) is \(pair.train.oneLine)")
      }
      if event.duplicates.count > most {
        try Output.line("  … and \((event.duplicates.count - most).grouped) more")
      }
    }
    if data.skipped.isEmpty { return }
    try Output.line("passed over \(data.skipped.count.grouped)")
    for file in data.skipped { try Output.line("  \(file.file.oneLine): \(file.why)") }
  }
}

private struct DataEvent: Encodable {
  struct Class: Encodable {
    let name: String
    /// Of training, test and validation.
    let images: [Int]
  }
  /// A column of numbers to predict, of the training images.
  struct Target: Encodable {
    let name: String
    let mean, deviation: Double
    let least, greatest: Float
    var numbers: [Double] { [mean, deviation, Double(least), Double(greatest)] }
  }
  struct Channel: Encodable {
    let mean, deviation: Double
  }
  var event = "data"
  let data: String
  let train_images, test_images: Int
  let validation_images: Int?
  let image_size: [Int]
  let classes: [Class]?
  let targets: [Target]?
  let picture_sizes: [String: Int]
  let channels: [Channel]
  let duplicates: [Dataset.Duplicate]
  let skipped: [Dataset.Skipped]
  /// All that the folder of decoded pictures has, if these are of it.
  let cache: Cache?
  struct Cache: Encodable {
    let folder: String
    let sets, bytes: Int
  }
  /// What would be trained without saying which network.
  let network: String

  init(_ set: Dataset, cache folder: String?) {
    data = set.source
    cache =
      set.sizes.isEmpty
      ? nil
      : folder.map { folder in
        let sizes = PictureOptions.cachedSizes(in: folder)
        return Cache(folder: folder, sets: sizes.count, bytes: sizes.reduce(0, +))
      }
    (train_images, test_images) = (set.train.count, set.test.count)
    validation_images = set.validation?.count
    image_size = [set.train.height, set.train.width, set.train.channels]
    let names = (0..<set.classCount).map {
      set.classNames.isEmpty ? "\($0)" : set.classNames[$0]
    }
    let counts = set.parts.map { Dictionary(grouping: $0.set.labels) { $0 }.mapValues(\.count) }
    classes =
      set.hasTargets
      ? nil
      : names.enumerated().map { label, name in
        Class(name: name, images: counts.map { $0[UInt16(label)] ?? 0 })
      }
    targets =
      set.hasTargets
      ? zip(names, zip(set.train.columns, TargetNormalization.standard(of: set.train).columns))
        .map { name, column in
          Target(
            name: name, mean: column.1.mean, deviation: column.1.deviation,
            least: column.0.min()!, greatest: column.0.max()!)
        } : nil
    picture_sizes = set.sizes
    channels = set.train.channelStatistics.map { Channel(mean: $0.mean, deviation: $0.deviation) }
    (duplicates, skipped) = (set.duplicates, set.skipped)
    let text = Architecture.text(
      RunConfiguration().layers, outputs: names.count, numbers: set.hasTargets)
    let network = (try? Architecture.layers(text)).map { Network($0) }
    do {
      try network?.build(for: set.train.shape)
      self.network = "\(text), \(network?.parameterCount.grouped ?? "0") parameters"
    } catch {
      self.network = "\(text) doesn't fit: \((error as? StrideNetError)?.what ?? "\(error)")"
    }
  }
}
