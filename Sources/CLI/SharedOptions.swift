import ArgumentParser
import Foundation
import StrideNet

/// What commands that compute have in common.
struct ComputeOptions: ParsableArguments {
  @Option(
    parsing: .unconditional,
    help: "Worker threads; as many as there are processors unless given.")
  var threads: Int?

  @Option(
    help: ArgumentHelp(
      "Kernel variant: \(KernelChoice.names.joined(separator: ", ")).", valueName: "variant"))
  var kernels: String?

  @Flag(help: "Only kernels that multiply as the definition does: --kernels exact.")
  var exact = false

  @Option(
    help: ArgumentHelp(
      "float32, or bf16: the factors of convolutions and dense layers are rounded to 8 bits (default: float32).",
      valueName: "precision"))
  var precision: Precision?

  func validate() throws {
    if precision == .bf16, kernels != nil || exact {
      throw ValidationError(
        "--precision bf16 with --kernels or --exact: found both, expected one of them, since bf16 has kernels of its own"
      )
    }
    if let threads, !(1...1024).contains(threads) {
      throw ValidationError("--threads out of range: found \(threads), expected 1 … 1024")
    }
  }

  /// - Parameter positional: the variant as the second word of `train`
  func name(positional: String? = nil) throws -> String? {
    let named = [positional, kernels, exact ? "exact" : nil].compactMap { $0 }
    if let second = named.first(where: { $0 != named[0] }) {
      throw StrideNetError(
        .usage, "two kernel variants", found: "'\(named[0])' and '\(second)'",
        expected: "one of them")
    }
    return named.first
  }

  func runtime() throws -> Runtime { try runtime(named: name(), precision) }

  func runtime(named name: String?, _ precision: Precision?, reducesFast: Bool = false) throws
    -> Runtime
  {
    let runtime = Runtime(
      threads: threads ?? Processes.threads, kernels: try name.map { try KernelChoice(named: $0) },
      precision: precision ?? .float32, communicator: Processes.communicator,
      reducesFast: reducesFast)
    let missing = runtime.start()
    if missing > 0 {
      Output.note(
        "\(missing) of \(runtime.threads + missing) threads couldn't be started: the system gives no more; results are the same"
      )
    }
    return runtime
  }
}

extension Precision: ExpressibleByArgument {}
extension InputNormalization.Method: ExpressibleByArgument {}

/// Data sets on the command line.
struct DataOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "sample, mnist, fashion-mnist; \(Dataset.kinds). Without it: MNIST if it is on this machine, else the sample.",
      valueName: "set"))
  var data: String?

  @OptionGroup var pictures: PictureArguments

  var strict: Bool { pictures.strict }

  /// - Parameter network: whose input the images are to be, unless the options say otherwise
  func load(for network: Network? = nil) throws -> Dataset {
    let data = try Dataset.load(
      data, try pictures.options(for: network), progress: Self.progress)
    Self.tell(data)
    return try network.map(data.labelled) ?? data
  }

  /// Images of the network's size.
  func loadImages(for network: Network) throws -> Dataset {
    let data = try load(for: network)
    guard !data.hasTargets else {
      throw StrideNetError(
        .usage, "the page is for classes", at: data.source, found: "numbers to predict",
        expected: "a data set with classes")
    }
    guard network.input == data.train.shape else {
      throw StrideNetError(
        .badData, "the data's images have another size than the network's", at: data.source,
        found: "\(data.train.shape)", expected: "\(network.input!)",
        hint: "--data names another set")
    }
    return data
  }

  /// Whether any was given.
  var isGiven: Bool {
    data != nil || pictures.imageSize != nil || pictures.fit != nil || pictures.colour != nil
      || pictures.strict || pictures.noCache
  }

  static let progress: @Sendable (Int, Int) -> Void = { done, all in
    Output.progress { "\(done.grouped) of \(all.grouped) pictures" }
  }

  /// Names what was passed over; of very many the first.
  static func tell(_ data: any TrainingData) {
    for note in data.notes { Output.note(note) }
    let (most, skipped) = (20, data.skipped)
    for file in skipped.prefix(most) {
      Output.note("passed over: \(file.file.oneLine), \(file.why)")
    }
    guard !skipped.isEmpty else { return }
    Output.note(
      "\(skipped.count.grouped) file\(skipped.count == 1 ? "" : "s") passed over"
        + (skipped.count > most ? "; stridenet data names all of them" : ""))
  }
}

/// Networks that are asked as one, and how often an image is shown to them.
struct ViewOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "Show each image also changed at random, as train --augment has it (shift=1,rotate=5), and take the mean.",
      valueName: "changes"))
  var augment: String?

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp(
      "How often, the image itself among them (default: 8 with --augment).", valueName: "times"))
  var views: Int?

  func validate() throws {
    if views != nil && augment == nil {
      throw ValidationError("--views means nothing without --augment, which says how they differ")
    }
  }

  func ensemble(_ files: [String], _ runtime: Runtime) throws -> Ensemble {
    let networks = try files.map { try Network.load(from: $0, runtime: runtime) }
    var result: Ensemble
    do {
      result = try Ensemble(networks)
    } catch let error as StrideNetError {
      throw StrideNetError(
        error.kind, error.what, at: files.joined(separator: ", "), found: error.found,
        expected: error.expected)
    }
    result.views = try augment.map { try Ensemble.Views(Augmentation($0), count: views ?? 8) }
    return result
  }
}

/// How pictures become images, and what goes with them.
struct PictureArguments: ParsableArguments {
  @Option(
    parsing: .unconditional,
    help: ArgumentHelp(
      "Predict numbers, not classes: a table's columns with them, by name or number, -1 for the last (price, or x,y); of arrays, what y's columns are to be called.",
      valueName: "columns"))
  var targets: String?

  @Option(
    help: ArgumentHelp(
      "Of pictures, the images' size: 64, or 48x64, height first; without it the commonest, at most \(PictureOptions.largest).",
      valueName: "size"))
  var imageSize: String?

  @Option(
    help: ArgumentHelp(
      "How pictures are fitted into that: \(Picture.Fit.allCases.map(\.rawValue).joined(separator: ", ")) (default: crop).",
      valueName: "way"))
  var fit: Picture.Fit?

  @Option(
    help: ArgumentHelp(
      "Of pictures: grey, rgb or auto, grey if all are (default: auto).", valueName: "colour"))
  var colour: PictureOptions.Colour?

  @Flag(help: "End where a file can't be used, instead of naming it and going on.")
  var strict = false

  @Flag(help: "Neither read decoded pictures from the cache folder nor keep them there.")
  var noCache = false

  /// Where decoded pictures are kept.
  var cache: String? { noCache ? nil : PictureOptions.usualCache() }

  /// - Throws: ``StrideNetError`` for options of data sets where there is none: pictures that a network
  ///   is shown become what it wants
  func refuseThoseOfSets() throws {
    let given = [
      ("--image-size", imageSize != nil), ("--colour", colour != nil), ("--strict", strict),
      ("--targets", targets != nil),
    ]
    guard let (option, _) = given.first(where: \.1) else { return }
    throw StrideNetError(
      .usage, "\(option) means nothing without a data set", found: option,
      expected:
        "pictures alone: each becomes an image of the network's size and colours, and those "
        + "that can't be read are named")
  }

  /// The options as given, over others.
  func over(_ base: PictureOptions?) throws -> PictureOptions? {
    guard imageSize != nil || fit != nil || colour != nil || targets != nil else { return base }
    var result = base ?? PictureOptions()
    if let targets { try result.setTargets(targets) }
    if let imageSize { try result.setSize(imageSize) }
    if let fit { result.fit = fit }
    if let colour { result.colour = colour }
    return result
  }

  /// The options as given, for the rest such that images fit a network.
  func options(for network: Network? = nil) throws -> PictureOptions {
    var options = try over(nil) ?? PictureOptions()
    (options.isStrict, options.cache) = (strict, cache)
    guard let network, let input = network.input else { return options }
    if targets == nil, network.predictsNumbers, !network.classNames.isEmpty {
      options.targets = network.classNames
    }
    if imageSize == nil { (options.height, options.width) = (input.height, input.width) }
    if colour == nil { options.colour = input.channels == 1 ? .grey : .rgb }
    if fit == nil { options.fit = network.pictureFit ?? options.fit }
    return options
  }
}

extension Picture.Fit: ExpressibleByArgument {}
extension PictureOptions.Colour: ExpressibleByArgument {}

/// A network to look into: by name, from a file, or the one in the package.
struct NetworkArgument: ParsableArguments {
  @Argument(
    help: ArgumentHelp(
      "A file that train --save wrote, or \(Architecture.presets.map(\.name).joined(separator: ", ")) as it is before training. Without it: the small trained network that is in the package.",
      valueName: "network"))
  var network: String?

  func load(_ runtime: Runtime, for input: Shape) throws -> Network {
    guard let network else { return .digits(runtime: runtime) }
    guard let preset = Architecture.presets.first(where: { $0.name == network }),
      !FileManager.default.fileExists(atPath: network)
    else {
      let loaded = try Network.load(from: network, runtime: runtime)
      return loaded
    }
    let new = Network(try Architecture.layers(preset.text), runtime: runtime)
    try new.build(for: input)
    return new
  }
}

/// One image of a data set.
struct ImageOptions: ParsableArguments {
  @OptionGroup var dataOptions: DataOptions

  @Option(parsing: .unconditional, help: "Which test image, from 0.")
  var image = 0

  func load() throws -> Batch {
    let test = try dataOptions.load().test
    guard (0..<test.count).contains(image) else {
      throw StrideNetError(
        .usage, "--image out of range", found: "\(image)", expected: "0 … \(test.count - 1)")
    }
    return test.batch([image])
  }
}

extension ArgumentHelp {
  static let topK = ArgumentHelp(
    "Also the share of test images whose class is among the so many likeliest.", valueName: "k")
}

extension Network {
  /// - Throws: ``StrideNetError`` where its outputs are numbers to predict
  func requireClasses(_ option: String) throws {
    guard predictsNumbers else { return }
    throw StrideNetError(
      .usage, "\(option) is for classes",
      found: "a network that predicts "
        + (classNames.isEmpty ? "numbers" : Dataset.list(classNames)),
      expected: "one that tells classes apart, or none of it")
  }

  /// - Throws: ``StrideNetError`` unless there are so many classes to be among
  func checkTopK(_ k: Int) throws {
    try requireClasses("--top-k")
    guard (1...max(1, classes)).contains(k) else {
      throw StrideNetError(
        .usage, "--top-k out of range", found: "\(k)", expected: "1 … \(classes), the classes")
    }
  }
}
