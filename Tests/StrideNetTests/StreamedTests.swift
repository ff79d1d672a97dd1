import Foundation
import Testing

import StrideNet
@testable import StrideNetFiles

/// Data sets whose images stay in their files.
@Suite struct StreamedTests {
  /// IDX files of noise with a class that can be learned: 700 training images of 5×4.
  static func write(_ folder: String, in place: Workplace, channels: Int = 1) throws {
    try FileManager.default.createDirectory(
      atPath: "\(place.path)/\(folder)", withIntermediateDirectories: true)
    for (files, count) in [(Dataset.files[0...1], 700), (Dataset.files[2...3], 90)] {
      let labels = (0..<count).map { UInt8($0 * 3 / count) }
      let pixels = (0..<count * 20 * channels).map { i in
        UInt8(max(0, min(255, 60 * Float(labels[i / (20 * channels)]) + 200 * (value(i, 7) + 0.5))))
      }
      let sizes = [UInt32(count), 5, 4] + (channels > 1 ? [UInt32(channels)] : [])
      try place.write("\(folder)/\(files[files.startIndex])", idx(sizes, bytes: pixels))
      try place.write(
        "\(folder)/\(files[files.startIndex + 1])", idx([UInt32(count)], bytes: labels))
    }
  }

  private static func values(_ set: any ExampleSource) -> [Float] {
    (0..<set.count).flatMap { index in
      var values = [Float](repeating: .nan, count: set.shape.count)
      values.withUnsafeMutableBufferPointer { set.read(index, into: $0) }
      return values
    }
  }

  private static func expectSame(_ streamed: StreamedDataset, _ data: Dataset) throws {
    #expect(streamed.classNames == data.classNames && streamed.train.shape == data.train.shape)
    #expect(streamed.train.labels == data.train.labels && streamed.test.labels == data.test.labels)
    #expect(values(streamed.train) == values(data.train))
    #expect(values(streamed.test) == values(data.test))
    #expect(try InputNormalization.standard(of: streamed.train) == .standard(of: data.train))
    #expect(streamed.skipped == data.skipped && streamed.source == data.source)
  }

  // MARK: Kinds of files

  @Test func hasWhatIsInMemory() throws {
    let place = try Workplace()
    try Self.write("grey", in: place)
    try Self.write("rgb", in: place, channels: 3)
    for name in ["grey", "rgb"] {
      let path = "\(place.path)/\(name)"
      let data = try Dataset.load(path, environment: [:])
      try Self.expectSame(Dataset.stream(path, environment: [:]), data)
      // As NumPy's arrays: of training images alone, a fifth of each class is held out.
      try FileManager.default.createDirectory(
        atPath: "\(path)-npy", withIntermediateDirectories: true)
      let shape = [data.train.count, 5, 4] + (name == "rgb" ? [3] : [])
      try place.write(
        "\(name)-npy/images.npy", NPY.bytes(NumberArray("x", shape, .bytes(data.train.pixels))))
      try place.write("\(name)-npy/labels.npy", NPY.bytes(labels: data.train.labels))
      try Self.expectSame(
        Dataset.stream("\(path)-npy", environment: [:]),
        Dataset.load("\(path)-npy", environment: [:]))
    }
  }

  /// Gzipped IDX files, and NumPy's archives of arrays.
  @Test func hasWhatIsPacked() throws {
    let place = try Workplace()
    try Self.write("plain", in: place)
    let data = try Dataset.load("\(place.path)/plain", environment: [:])
    try FileManager.default.createDirectory(
      atPath: "\(place.path)/packed", withIntermediateDirectories: true)
    for file in Dataset.files {
      try place.write("packed/\(file).gz", gzip(place.read("plain/\(file)")))
    }
    let path = "\(place.path)/packed"
    var options = PictureOptions()
    options.cache = "\(place.path)/kept"
    for _ in 0..<2 {
      let streamed = try Dataset.stream(path, options, environment: [:])
      #expect(streamed.notes.isEmpty && streamed.source == path)
      for (set, other) in [(streamed.train, data.train), (streamed.test, data.test)] {
        #expect(set.labels == other.labels && Self.values(set) == Self.values(other))
      }
    }
    let kept = try FileManager.default.contentsOfDirectory(atPath: options.cache!)
    #expect(kept.count == 1)
    var bytes = try place.read("kept/\(kept[0])")
    bytes[0] ^= 1
    try place.write("kept/\(kept[0])", bytes)
    let again = try Dataset.stream(path, options, environment: [:])
    #expect(again.notes.count == 1 && Self.values(again.train) == Self.values(data.train))
    // One that is cut short, or says another size.
    let file = "packed/\(Dataset.files[0]).gz"
    try place.write(file, gzip(Array(place.read("plain/\(Dataset.files[0])").dropLast())))
    let error = #expect(throws: StrideNetError.self) {
      try Dataset.stream(path, options, environment: [:])
    }
    #expect(error?.what.contains("another length") == true)
    let none = #expect(throws: StrideNetError.self) { try Dataset.stream(path, environment: [:]) }
    #expect(none?.found == "no cache")
  }

  @Test func hasWhatIsInArchives() throws {
    // numpy.savez doesn't pack, numpy.savez_compressed does.
    let path = PictureFiles.path("arrays/stored.npz")
    let data = try Dataset.load(path, environment: [:])
    let place = try Workplace()
    try place.write("x.npz", [UInt8](Data(contentsOf: URL(filePath: path))))
    let streamed = try Dataset.stream("\(place.path)/x.npz", environment: [:])
    #expect(streamed.classNames == data.classNames && streamed.train.labels == data.train.labels)
    #expect(Self.values(streamed.train) == Self.values(data.train))
    #expect(Self.values(streamed.test) == Self.values(data.test))
    var bytes = try place.read("x.npz")
    bytes[300] ^= 1
    try place.write("x.npz", bytes)
    let packed = #expect(throws: StrideNetError.self) {
      try Dataset.stream(PictureFiles.path("same/set.npz"), environment: [:])
    }
    #expect(packed?.hint?.contains("not with savez_compressed") == true)
    let error = #expect(throws: StrideNetError.self) {
      try Dataset.stream("\(place.path)/x.npz", environment: [:])
    }
    #expect(error?.found == "contents other than those that were written")
  }

  @Test(arguments: [false, true]) func hasThePicturesOfFolders(isGrey: Bool) throws {
    let place = try Workplace()
    try PictureFolderTests.write("pics", count: 7, isGrey: isGrey, in: place)
    try place.write("pics/dog/none.png", [1, 2])
    try FileManager.default.createSymbolicLink(
      atPath: "\(place.path)/pics/dog/gone.png", withDestinationPath: "nothing")
    var options = PictureOptions()
    options.cache = "\(place.path)/kept"
    let path = "\(place.path)/pics"
    let data = try Dataset.load(path, environment: [:])
    #expect(data.train.shape == Shape(6, 6, isGrey ? 1 : 3))
    // Decoded, then found, by either way.
    try Self.expectSame(Dataset.stream(path, options, environment: [:]), data)
    try Self.expectSame(Dataset.stream(path, options, environment: [:]), data)
    let loaded = try Dataset.load(path, options, environment: [:])
    #expect(loaded.train.pixels == data.train.pixels && loaded.skipped == data.skipped)
    try FileManager.default.removeItem(atPath: "\(place.path)/kept")
    _ = try Dataset.load(path, options, environment: [:])
    try Self.expectSame(Dataset.stream(path, options, environment: [:]), data)
    let error = #expect(throws: StrideNetError.self) {
      try Dataset.stream(path, environment: [:])
    }
    #expect(error?.description.contains("no cache") == true)
  }

  /// A byte that changed where pictures are kept.
  @Test func damagedPicturesAreMadeAnew() throws {
    let place = try Workplace()
    try PictureFolderTests.write("pics", count: 7, in: place)
    var options = PictureOptions()
    options.cache = "\(place.path)/kept"
    let path = "\(place.path)/pics"
    let first = try Dataset.stream(path, options, environment: [:])
    let values = Self.values(first.train)
    let kept = try #require(
      FileManager.default.contentsOfDirectory(atPath: options.cache!).first)
    var bytes = try place.read("kept/\(kept)")
    let whole = bytes
    bytes[100] ^= 1
    try place.write("kept/\(kept)", bytes)
    let second = try Dataset.stream(path, options, environment: [:])
    #expect(second.notes.contains { $0.contains("its checksum") })
    #expect(Self.values(second.train) == values)
    #expect(try place.read("kept/\(kept)") == whole)
    #expect(try Dataset.stream(path, options, environment: [:]).notes == first.notes)
  }

  @Test func refusesWhatCannotBeReadInPart() throws {
    let place = try Workplace()
    try place.writeDigits("packed", gz: true)
    try place.write("table.csv", "1,2,3\n")
    try FileManager.default.createDirectory(
      atPath: "\(place.path)/floats", withIntermediateDirectories: true)
    try place.write(
      "floats/x_train.npy",
      NPY.bytes(NumberArray("x", [4, 2, 2], .floats([Float](repeating: 0.5, count: 16)))))
    try place.write("floats/y_train.npy", NPY.bytes(labels: [0, 1, 0, 1]))
    for (name, said) in [
      ("packed", "no cache"), ("table.csv", "numpy.save"), ("floats", "uint8"),
      ("none", "one by one"),
    ] {
      let error = #expect(throws: StrideNetError.self) {
        try Dataset.stream("\(place.path)/\(name)", environment: [:])
      }
      #expect(error?.description.contains(said) == true, "\(error?.description ?? "")")
    }
    try Self.write("short", in: place)
    let path = "\(place.path)/short/\(Dataset.files[0])"
    try Data([UInt8](Data(contentsOf: URL(filePath: path))).dropLast()).write(
      to: URL(filePath: path))
    let error = #expect(throws: StrideNetError.self) {
      try Dataset.stream("\(place.path)/short", environment: [:])
    }
    #expect(error?.what.contains("another length") == true)
  }

  // MARK: Orders

  /// So little memory that there are several parts: blocks are of 256 images of 20 bytes, each alone.
  private static let little = 3 * 256 * 20

  @Test func ordersHaveEveryImageOnce() throws {
    let place = try Workplace()
    try Self.write("set", in: place)
    let path = "\(place.path)/set"
    let set = try Dataset.stream(path, memory: Self.little, environment: [:]).train
    let orders = try (0..<4).map { try #require(set.order(epoch: $0, seed: 5)) }
    for order in orders { #expect(order.sorted() == Array(0..<700)) }
    #expect(Set(orders).count == 4)
    #expect(set.order(epoch: 2, seed: 5) == orders[2])
    #expect(set.order(epoch: 2, seed: 6) != orders[2])
    // Images of a block stay together where it is alone.
    let blocks = orders[0].map { $0 / 256 }
    #expect(zip(blocks, blocks.dropFirst()).count { $0 != $1 } == 2)
    let whole = try Dataset.stream(path, environment: [:]).train
    let mixed = try #require(whole.order(epoch: 0, seed: 5)).map { $0 / 256 }
    #expect(zip(mixed, mixed.dropFirst()).count { $0 != $1 } > 200)
  }

  /// In the order of an epoch, or in any other, on many threads.
  @Test func readsTheSameInAnyOrder() throws {
    let place = try Workplace()
    try Self.write("set", in: place)
    let path = "\(place.path)/set"
    let set = try Dataset.stream(path, memory: Self.little, environment: [:]).train
    let data = try Dataset.load(path, environment: [:]).train
    let expected = Self.values(data)
    @Sendable func isRight(_ index: Int) -> Bool {
      var values = [Float](repeating: .nan, count: 20)
      values.withUnsafeMutableBufferPointer { set.read(index, into: $0) }
      return values.elementsEqual(expected[index * 20..<(index + 1) * 20])
    }
    for epoch in 0..<3 {
      let order = try #require(set.order(epoch: epoch, seed: 1))
      // Whole, from the middle on, and backwards.
      let part = epoch == 1 ? Array(order[300...]) : epoch == 2 ? order.reversed() : order
      let isAll = UnsafeMutableBufferPointer<Bool>.allocate(capacity: part.count)
      defer { isAll.deallocate() }
      nonisolated(unsafe) let results = isAll
      for start in stride(from: 0, to: part.count, by: 64) {
        let count = min(64, part.count - start)
        DispatchQueue.concurrentPerform(iterations: count) { i in
          results[start + i] = isRight(part[start + i])
        }
      }
      #expect(isAll.allSatisfy { $0 })
    }
    #expect(set.failure == nil)
  }

  // MARK: Training

  private static func trainer(_ path: String, threads: Int, _ epochs: Int = 3) throws -> Trainer {
    var settings = TrainingSettings()
    (settings.epochs, settings.batchSize, settings.shuffleSeed) = (epochs, 48, 9)
    // Without it an epoch that was stopped can be begun again.
    settings.optimizer.momentum = 0
    let network = Network(
      try Architecture.layers("flatten relu(9) softmax(3)"), runtime: Runtime(threads: threads))
    return try Trainer(
      network, Dataset.stream(path, memory: little, environment: [:]), settings)
  }

  /// The same weights for any number of threads, and gone on with in the middle of an epoch.
  @Test func trainsTheSameEveryTime() throws {
    let place = try Workplace()
    try Self.write("set", in: place)
    let path = "\(place.path)/set"
    let digests = try [1, 2, 3].map { threads in
      let trainer = try Self.trainer(path, threads: threads)
      try trainer.run()
      return trainer.network.snapshot().sha256
    }
    #expect(Set(digests).count == 1)
    let stopped = try Self.trainer(path, threads: 2)
    stopped.writeCheckpoints(
      to: "\(place.path)/c",
      RunConfiguration(
        layers: "flatten relu(9) softmax(3)", training: stopped.settings))
    var steps = 0
    stopped.onBatch { _ in steps += 1 }
    stopped.shouldStop = { steps >= 25 }
    guard case .stopped = try stopped.run() else {
      Issue.record("not stopped")
      return
    }
    let again = try Self.trainer(path, threads: 1)
    try again.resume(try Checkpoint(from: "\(place.path)/c"))
    try again.run()
    #expect(again.network.snapshot().sha256 == digests[0])
    // Also where it is the same trainer.
    stopped.shouldStop = { false }
    try stopped.run()
    #expect(stopped.network.snapshot().sha256 == digests[0])
  }

  /// The article's lines.
  @Test func asTheArticleHasIt() throws {
    let place = try Workplace()
    try Self.write("set", in: place)
    let path = "\(place.path)/set"
    let classifier = Network(try Architecture.layers("flatten softmax(3)"))
    var settings = TrainingSettings()
    settings.epochs = 1

    let many = try Dataset.stream(path)
    try Trainer(classifier, many, settings).run()

    #expect(classifier.classNames == ["0", "1", "2"])
  }

  /// What pictures are to be like is the same as where the images are in memory.
  @Test func knowsDigits() throws {
    let place = try Workplace()
    for (name, isInk) in [("digits", true), ("noise", false)] {
      // Of 8×8, with ink in the middle or anywhere.
      try place.writeDigits(name) { file, bytes in
        guard file.contains("images"), isInk else { return bytes }
        return bytes.enumerated().map { index, byte in
          let (row, column) = ((index - 16) % 64 / 8, (index - 16) % 8)
          return index < 16 ? byte : (2...5).contains(row) && (3...4).contains(column) ? 255 : 0
        }
      }
      let path = "\(place.path)/\(name)"
      let data = try Dataset.load(path, environment: [:])
      let network = Network([Flatten(), Dense(10, activation: .softmax)])
      var settings = TrainingSettings()
      settings.batchSize = 8
      _ = try Trainer(network, Dataset.stream(path, environment: [:]), settings)
      #expect(network.pictureFit == (isInk ? .digits : .crop))
      #expect(network.pictureFit == data.train.usualFit)
    }
  }

  /// A file that is cut short meanwhile ends the training with an error.
  @Test func aFileThatBecomesShorterIsNoticed() throws {
    let place = try Workplace()
    try Self.write("set", in: place)
    let trainer = try Self.trainer("\(place.path)/set", threads: 2, 1000)
    var epochs = 0
    trainer.onEpoch { _ in
      epochs += 1
      if epochs == 2 { truncate("\(place.path)/set/\(Dataset.files[0])", 3000) }
    }
    let error = #expect(throws: StrideNetError.self) { try trainer.run() }
    #expect(error?.what == "the file has become shorter" && epochs < 5)
  }

  /// Sets of batches, for what comes as a sequence of them.
  @Test func batchesBecomeASet() throws {
    let batches = (0..<3).map { n in
      Batch(
        images: try! Tensor(batch: n + 1, shape: Shape(2), (0..<2 * (n + 1)).map { Float($0 + n) }),
        labels: (0...n).map { $0 })
    }
    let set = try TensorSet(batches)
    #expect(set.count == 6 && (0..<6).map(set.label) == [0, 0, 1, 0, 1, 2])
    #expect(Self.values(set) == batches.flatMap { $0.images.values })
    let none = [Batch]()
    #expect(throws: StrideNetError.self) { try TensorSet(none) }
    let other = Batch(images: try Tensor(batch: 1, shape: Shape(3), [1, 2, 3]), labels: [0])
    #expect(throws: StrideNetError.self) { try TensorSet(batches + [other]) }
  }

  // MARK: On the command line

  @Test func onTheCommandLine() throws {
    let place = try Workplace()
    try Self.write("set", in: place)
    let training = [
      "--layers", "flatten softmax(3)", "--data", "set", "--epochs", "3", "--json", "--batch-size",
      "32",
    ]
    let end = try place.run(
      training + [
        "--stream", "--validate", "0.2", "--normalize", "standard", "--class-weights", "balanced",
        "--checkpoint", "c", "--write-config", "r", "--top-k", "2", "--save", "w",
      ])
    try #require(end.code == 0 && end.err.isEmpty, "\(end.err)")
    #expect(end.json[0]["train_images"] as? Int == 560)
    #expect(end.json[0]["validation_images"] as? Int == 140)
    #expect(end.json[0]["test_images"] as? Int == 90)
    let judged = try place.run("evaluate", "w", "--data", "set", "--json", "--top-k", "2")
    for key in ["test_accuracy", "test_top_k_accuracy"] {
      #expect(judged.json[0][key] as? Double == end.json.last![key] as? Double)
    }
    #expect(try place.run("train", "--config", "r", "--json").digest == end.digest)
    #expect(try place.run("train", "--resume", "c", "--json").digest == end.digest)
    #expect(try place.run(training + ["--checkpoint", "m"]).code == 0)
    let streamed = try place.run("train", "--resume", "m", "--epochs", "4", "--stream")
    #expect(
      streamed.code == 64 && streamed.err.contains("stream: true, none before"), "\(streamed.err)")
    #expect(try place.run(training).digest != place.run(training + ["--stream"]).digest)
    let limited = try place.run(training + ["--stream", "--limit", "100"])
    #expect(limited.json[0]["train_images"] as? Int == 100)
    for (options, said) in [
      (["--report", "a.html"], "--report and --stream"), (["--split", "0.5"], "--split"),
      (["--folds", "3"], "--folds"),
    ] {
      let wrong = try place.run(training + ["--stream"] + options)
      #expect(wrong.code == 64 && wrong.err.contains(said), "\(wrong.err)")
    }
    let none = try place.run("cnn", "--stream", "--epochs", "1")
    #expect(none.code == 64 && none.err.contains("no data set"), "\(none.err)")
  }
}
