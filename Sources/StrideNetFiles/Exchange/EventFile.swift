import Foundation
import StrideNetCore

/// An event file as TensorBoard reads it: `tensorboard --logdir FOLDER` draws what is in it while it
/// grows. Records are framed with their length and two checksums (TFRecord); each is a protocol
/// buffer of the message Event.
public final class EventFile {
  package let path: String
  private let descriptor: Int32
  private let start = Date().timeIntervalSince1970
  private let clock = ContinuousClock.now

  /// Makes the folder if need be, and a new file in it.
  /// - Parameters:
  ///   - folder: where TensorBoard looks
  ///   - step: where a training goes on that has logged there before. What was logged of later steps,
  ///     by a run that was killed after its last checkpoint, doesn't count then
  /// - Throws: ``StrideNetError`` where that can't be done
  public init(in folder: String, goingOnAfter step: Int? = nil) throws {
    func failed(_ what: String, _ place: String) -> StrideNetError {
      StrideNetError(
        .cannotCreate, what, at: place, found: String(cString: strerror(errno)),
        hint: "choose a folder that can be written to")
    }
    do {
      try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    } catch {
      throw failed("the folder can't be made", folder)
    }
    let host = ProcessInfo.processInfo.hostName
    // One file may follow another within a second.
    var (number, name) = (0, "")
    var opened: Int32
    repeat {
      name = "\(folder)/events.out.tfevents.\(Int(start)).\(host).\(getpid()).\(number)"
      opened = open(name, O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0o644)
      number += 1
    } while opened < 0 && errno == EEXIST
    (path, descriptor) = (name, opened)
    guard descriptor >= 0 else { throw failed("the file can't be made", path) }
    try write { $0.text(3, "brain.Event:2") }
    guard let step else { return }
    // A SessionLog of status START: readers drop what they have of this step and later ones.
    try write { event in
      event.integer(2, step + 1)
      event.message(7) { $0.integer(1, 1) }
    }
  }

  deinit { close(descriptor) }

  // MARK: What can be logged

  /// A number for each step.
  public func scalar(_ tag: String, _ value: Float, step: Int) throws {
    try summary(tag, step) { $0.float(2, value) }
  }

  /// How values are distributed. Values that aren't numbers are left out.
  package func histogram(_ tag: String, _ values: some Collection<Float>, step: Int) throws {
    // Eight buckets an octave: which one a number is in, its first 12 bits say. So many numbers are
    // counted that a logarithm of each would slow training down.
    var counts = [Int](repeating: 0, count: 1 << 12)
    let zero: Float = 0x1p-40
    var (low, high, sum, squares, count) = (Float.infinity, -Float.infinity, 0.0, 0.0, 0)
    for value in values where value.isFinite {
      (low, high) = (min(low, value), max(high, value))
      (sum, squares) = (sum + Double(value), squares + Double(value) * Double(value))
      count += 1
      // A bucket takes in its lower limit: below 0 that is the one further from 0.
      let bits =
        value >= zero ? value.bitPattern : value < -zero ? value.bitPattern - 1 : 0
      counts[Int(bits >> 20)] += 1
    }
    guard count > 0 else { return }
    var (limits, numbers): ([Double], [Double]) = ([], [])
    for bucket in Array((1 << 11..<1 << 12).reversed()) + (0..<1 << 11) where counts[bucket] > 0 {
      // Of a negative bucket this is the limit next to 0.
      let inner = Float(bitPattern: UInt32(bucket) << 20)
      let outer = Double(inner) + 0x1p20 * Double(inner.ulp) * (inner < 0 ? -1 : 1)
      let (lower, upper) =
        bucket == 0
        ? (-Double(zero), Double(zero))
        : inner < 0 ? (outer, Double(inner)) : (Double(inner), outer)
      // An empty bucket before each gap, or what follows it would seem to fill it.
      if limits.last != lower {
        limits.append(lower)
        numbers.append(0)
      }
      limits.append(upper)
      numbers.append(Double(counts[bucket]))
    }
    try summary(tag, step) { value in
      value.message(5) {
        $0.double(1, Double(low))
        $0.double(2, Double(high))
        $0.double(3, Double(count))
        $0.double(4, sum)
        $0.double(5, squares)
        $0.doubles(6, limits)
        $0.doubles(7, numbers)
      }
    }
  }

  package func image(_ tag: String, _ image: Picture, step: Int) throws {
    let bytes = try PNG.encode(image)
    try summary(tag, step) { value in
      value.message(4) {
        $0.integer(1, image.height)
        $0.integer(2, image.width)
        $0.integer(3, image.channels)
        $0.bytes(4, bytes)
      }
    }
  }

  // MARK: Records

  private func summary(_ tag: String, _ step: Int, _ fill: (inout Message) -> Void) throws {
    try write { event in
      event.integer(2, step)
      event.message(5) { summary in
        summary.message(1) { value in
          value.text(1, tag)
          fill(&value)
        }
      }
    }
  }

  private func write(_ fill: (inout Message) -> Void) throws {
    var event = Message()
    event.double(1, start + (ContinuousClock.now - clock).inSeconds)
    fill(&event)
    let length = withUnsafeBytes(of: UInt64(event.data.count).littleEndian) { Array($0) }
    func checksum(_ bytes: [UInt8]) -> [UInt8] {
      withUnsafeBytes(of: Self.maskedChecksum(bytes).littleEndian) { Array($0) }
    }
    let record = length + checksum(length) + event.data + checksum(event.data)
    var done = 0
    while done < record.count {
      let count = record[done...].withUnsafeBytes {
        Foundation.write(descriptor, $0.baseAddress, $0.count)
      }
      guard count >= 0 || errno == EINTR else {
        throw StrideNetError(
          .ioError, "writing failed", at: path, found: String(cString: strerror(errno)),
          hint: "make room, or log elsewhere; what was logged before can still be read")
      }
      done += max(count, 0)
    }
  }

  /// CRC-32C (Castagnoli), turned and shifted so that a checksum of data with checksums in it is no
  /// special case.
  static func maskedChecksum(_ bytes: [UInt8]) -> UInt32 {
    var crc = ~UInt32(0)
    for byte in bytes { crc = table[Int(UInt8(truncatingIfNeeded: crc) ^ byte)] ^ (crc >> 8) }
    crc = ~crc
    return ((crc >> 15) | (crc << 17)) &+ 0xa282_ead8
  }

  private static let table: [UInt32] = (0..<256).map { byte in
    (0..<8).reduce(UInt32(byte)) { crc, _ in (crc >> 1) ^ (crc & 1 == 1 ? 0x82f6_3b78 : 0) }
  }
}

extension EventFile {
  /// Steps between two numbers of a training's curves.
  private static let every = 10

  /// Loss, class error and learning rate of every tenth step.
  /// - Parameter hasClasses: whether there is a class error
  public func log(_ p: BatchProgress, hasClasses: Bool = true) throws {
    guard p.step % Self.every == 0 else { return }
    try scalar("step/loss", p.cce, step: p.step)
    if hasClasses { try scalar("step/class_error", p.ce, step: p.step) }
    try scalar("step/learning_rate", p.learningRate, step: p.step)
  }

  /// An epoch's losses and errors, of numbers that are predicted the mean absolute error and R² of each
  /// output; each parameter's norm and distribution, and those of its last
  /// gradient; the first layer's filters as a picture.
  /// With `isHeldOut`, what the epoch was evaluated on are images held out from training.
  public func log(_ result: EpochResult, _ network: Network, isHeldOut: Bool = false) throws {
    let judged = isHeldOut ? "validation" : "test"
    let step = network.stepCount
    try scalar("epoch/train_loss", result.trainCCE, step: step)
    try scalar("epoch/\(judged)_loss", result.testCCE, step: step)
    if let regression = result.regression {
      for (index, output) in regression.outputs.enumerated() {
        let name = output.name.isEmpty ? "\(index)" : output.name
        try scalar("epoch/\(judged)_mae/\(name)", Float(output.meanAbsoluteError), step: step)
        if let r2 = output.r2 { try scalar("epoch/\(judged)_r2/\(name)", Float(r2), step: step) }
      }
    } else {
      try scalar("epoch/train_class_error", result.trainCE, step: step)
      try scalar("epoch/\(judged)_class_error", result.testCE, step: step)
    }
    try scalar("epoch/images_per_second", Float(result.imagesPerSecond), step: step)
    func norm(_ values: ArraySlice<Float>) -> Float {
      Float(values.reduce(0) { $0 + Double($1) * Double($1) }.squareRoot())
    }
    let (weights, gradients) = (network.snapshot().values, network.lastGradient)
    var start = 0
    var hasFilters = false
    for (name, shape) in network.snapshot().parameters {
      let range = start..<start + shape.reduce(1, *)
      start = range.upperBound
      try scalar("norm/\(name)", norm(weights[range]), step: step)
      try scalar("gradient_norm/\(name)", norm(gradients[range]), step: step)
      try histogram("weights/\(name)", weights[range], step: step)
      try histogram("gradients/\(name)", gradients[range], step: step)
      if shape.count == 4, !hasFilters, let picture = Picture(filters: weights[range], shape) {
        hasFilters = true
        try image("filters/\(name)", picture, step: step)
      }
    }
  }
}

extension Picture {
  /// A convolution's filters (FH, FW, C, F) side by side: grey is 0, or with three channels each in
  /// its colours; nil for other numbers of channels, filters of single pixels and too many to draw.
  init?(filters w: ArraySlice<Float>, _ shape: [Int]) {
    let (h, v, c, f) = (shape[0], shape[1], shape[2], shape[3])
    guard (c == 1 || c == 3) && h * v > 1 else { return nil }
    let zoom = max(1, 24 / max(h, v))
    let columns = Int(Double(f).squareRoot().rounded(.up))
    let rows = (f + columns - 1) / columns
    let (cellH, cellW) = (h * zoom + 2, v * zoom + 2)
    let largest = max(w.map(abs).max() ?? 0, 1e-12)
    let (height, width) = (rows * cellH, columns * cellW)
    guard height <= PNG.largest && width <= PNG.largest else { return nil }
    var pixels = [UInt8](repeating: 0, count: height * width * c)
    for filter in 0..<f {
      for y in 0..<h * zoom {
        for x in 0..<v * zoom {
          for channel in 0..<c {
            let value = w[
              w.startIndex + ((y / zoom * v + x / zoom) * c + channel) * f + filter]
            let place =
              (filter / columns * cellH + y + 1) * width + filter % columns * cellW + x + 1
            // In double precision: the product may be too large for a float.
            pixels[place * c + channel] = UInt8(
              pixel:
                Float(127.5 + 127.5 * Double(value) / Double(largest)))
          }
        }
      }
    }
    self.init(height: height, width: width, channels: c, pixels: pixels)
  }
}
