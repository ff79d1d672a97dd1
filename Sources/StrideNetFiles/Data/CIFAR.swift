import Foundation
import StrideNetCore

/// CIFAR-10's and CIFAR-100's binary version: a byte or two of labels, then 32×32 pixels red, green
/// and blue, image after image. https://www.cs.toronto.edu/~kriz/cifar.html
enum CIFAR {
  private static let size = 32 * 32 * 3

  /// The files of a folder that has them.
  private static func files(_ folder: String) -> (
    train: [String], test: String, names: String, labels: Int
  )? {
    func path(_ name: String) -> String? {
      let path = "\(folder)/\(name)"
      return FileManager.default.fileExists(atPath: path) ? path : nil
    }
    let batches = (1...9).compactMap { path("data_batch_\($0).bin") }
    if let test = path("test_batch.bin"), !batches.isEmpty {
      return (batches, test, "\(folder)/batches.meta.txt", 1)
    }
    guard let train = path("train.bin"), let test = path("test.bin") else { return nil }
    return ([train], test, "\(folder)/fine_label_names.txt", 2)
  }

  static func isOne(_ folder: String) -> Bool { files(folder) != nil }

  static func load(_ folder: String, name: String) throws -> Dataset {
    let files = files(folder)!
    let train = try files.train.map { try set($0, labels: files.labels) }
    let test = try set(files.test, labels: files.labels)
    var names = (0..<(files.labels == 1 ? 10 : 100)).map(String.init)
    if let file = try? InputFile(files.names) {
      names = String(decoding: try file.readAll(limit: 1 << 16), as: UTF8.self)
        .split(whereSeparator: \.isNewline).map(String.init)
    }
    let data = try Dataset(
      name: name, source: folder, train: .joined(train), test: test, classNames: names)
    try data.checkLabels(classes: names.count)
    return data
  }

  private static func set(_ path: String, labels count: Int) throws -> ImageSet {
    let bytes = try InputFile(path).readAll(limit: 1 << 30)
    let record = count + size
    guard !bytes.isEmpty, bytes.count % record == 0 else {
      throw StrideNetError(
        .badData, "not a file of CIFAR's binary version", at: path, found: "\(bytes.count) bytes",
        expected: "a multiple of \(record): labels, then 32×32×3 pixels",
        hint: "the file is damaged or incomplete: get it again")
    }
    let starts = stride(from: 0, to: bytes.count, by: record)
    var pixels: [UInt8] = []
    pixels.reserveCapacity(bytes.count)
    for start in starts { pixels += bytes[start + count..<start + record] }
    return try ImageSet(
      count: bytes.count / record, height: 32, width: 32, channels: 3,
      pixels: NumberArray.rearranged(pixels, (32, 32, 3), true),
      // Of two labels the second, which tells more apart.
      labels: starts.map { bytes[$0 + count - 1] })
  }
}
