import Foundation
import StrideNetCore

/// Numbers of some kind with a shape, as files of arrays have them.
struct NumberArray {
  enum Kind: Equatable {
    case unsigned(Int), signed(Int), float(Int), brain, bool
    /// Texts of so many characters, each of four bytes.
    case text(Int)

    var size: Int {
      switch self {
      case .unsigned(let size), .signed(let size), .float(let size): size
      case .brain: 2
      case .bool: 1
      case .text(let count): 4 * count
      }
    }
  }

  enum Values {
    case bytes([UInt8])
    case floats([Float])
    case texts([String])
  }

  /// What errors call it.
  let name: String
  let shape: [Int]
  let values: Values

  /// - Parameter raw: the numbers as they lie in a file
  init(_ name: String, _ shape: [Int], _ kind: Kind, _ raw: ArraySlice<UInt8>, big: Bool = false)
    throws
  {
    (self.name, self.shape) = (name, shape)
    let count = raw.count / max(1, kind.size)
    try MemoryNeed.probe(bytes: 4 * count, for: "\(name), \(Self.text(shape))")
    func floats<T: BitwiseCopyable>(_ type: T.Type, _ number: (T) -> Float) -> Values {
      raw.withUnsafeBytes { raw in
        .floats(
          (0..<count).map {
            number(raw.loadUnaligned(fromByteOffset: $0 * MemoryLayout<T>.size, as: type))
          })
      }
    }
    func whole<T: FixedWidthInteger & BitwiseCopyable>(_ type: T.Type) -> Values {
      floats(type) { Float(big ? $0.byteSwapped : $0) }
    }
    func bits<T: FixedWidthInteger & BitwiseCopyable>(
      _ type: T.Type, _ number: (T) -> Float
    ) -> Values {
      floats(type) { number(big ? $0.byteSwapped : $0) }
    }
    switch kind {
    case .unsigned(1): values = .bytes(Array(raw))
    case .bool: values = .bytes(raw.map { $0 == 0 ? 0 : 255 })
    case .unsigned(2): values = whole(UInt16.self)
    case .unsigned(4): values = whole(UInt32.self)
    case .unsigned: values = whole(UInt64.self)
    case .signed(1): values = whole(Int8.self)
    case .signed(2): values = whole(Int16.self)
    case .signed(4): values = whole(Int32.self)
    case .signed: values = whole(Int64.self)
    case .float(2): values = bits(UInt16.self, Safetensors.halfToFloat)
    case .float(4): values = bits(UInt32.self) { Float(bitPattern: $0) }
    case .float: values = bits(UInt64.self) { Float(Double(bitPattern: $0)) }
    case .brain: values = bits(UInt16.self) { Float(bitPattern: UInt32($0) << 16) }
    case .text(let length):
      values = .texts(Self.texts(raw, length, big))
    }
  }

  init(_ name: String, _ shape: [Int], _ values: Values) {
    (self.name, self.shape, self.values) = (name, shape, values)
  }

  private static func texts(_ raw: ArraySlice<UInt8>, _ length: Int, _ big: Bool) -> [String] {
    guard length > 0 else { return [] }
    return stride(from: raw.startIndex, to: raw.endIndex, by: 4 * length).map { start in
      var text = ""
      for place in stride(from: start, to: start + 4 * length, by: 4) {
        let bytes = raw[place..<place + 4]
        let digits = big ? Array(bytes) : bytes.reversed()
        let code = digits.reduce(UInt32(0)) { $0 << 8 | UInt32($1) }
        if code != 0, let scalar = Unicode.Scalar(code) { text.unicodeScalars.append(scalar) }
      }
      return text
    }
  }

  /// The values as they are.
  var numbers: [Float] {
    get throws {
      switch values {
      case .floats(let values): values
      case .bytes(let values): values.map(Float.init)
      case .texts: throw wrong("texts", expected: "numbers")
      }
    }
  }

  static func text(_ shape: [Int]) -> String { shape.map(String.init).joined(separator: "×") }

  private func wrong(
    _ what: String, found: String? = nil, expected: String? = nil, hint: String? = nil
  ) -> StrideNetError {
    StrideNetError(.badData, what, at: name, found: found, expected: expected, hint: hint)
  }

  // MARK: Images

  /// The least and the largest value.
  func range() throws -> (low: Float, high: Float) {
    switch values {
    case .bytes: return (0, 255)
    case .texts: throw wrong("images that are texts", expected: "numbers")
    case .floats(let values):
      if let place = values.firstIndex(where: { !$0.isFinite }) {
        throw wrong("a value that isn't a finite number", found: "\(values[place]) at \(place)")
      }
      return (values.min() ?? 0, values.max() ?? 0)
    }
  }

  /// The values as pixels: numbers of 0…1 or 0…255. Which of both they are is to be told of all images
  /// of a data set together.
  private func pixels(_ scale: Float) throws -> [UInt8] {
    switch values {
    case .bytes(let bytes): return bytes
    case .floats(let values): return values.map { UInt8(pixel: $0 * scale) }
    case .texts: throw wrong("images that are texts", expected: "numbers")
    }
  }

  static func scale(of arrays: [NumberArray]) throws -> Float {
    let ranges = try arrays.filter { if case .bytes = $0.values { false } else { true } }
      .map { ($0, try $0.range()) }
    for (array, range) in ranges where range.low < 0 || range.high > 255 {
      throw array.wrong(
        "values that are no pixels", found: "\(range.low) to \(range.high)",
        expected: "0 to 1, or 0 to 255",
        hint: "store the images as bytes: images.astype(\"uint8\")")
    }
    return ranges.allSatisfy { $0.1.high <= 1 } ? 255 : 1
  }

  /// How the numbers lie: N×H×W, N×H×W×C or N×C×H×W, which are told apart by where there are 1 or 3
  /// channels, or N rows of pixels.
  private func layout(_ options: PictureOptions) throws -> (h: Int, w: Int, c: Int, first: Bool) {
    switch shape.count {
    case 2:
      let (h, w, c) = try Self.size(of: shape[1], options, name)
      return (h, w, c, false)
    case 3: return (shape[1], shape[2], 1, false)
    case 4:
      if [1, 3].contains(shape[1]) && ![1, 3].contains(shape[3]) {
        return (shape[2], shape[3], shape[1], true)
      }
      return (shape[1], shape[2], shape[3], false)
    default:
      throw wrong(
        "an array that holds no images", found: Self.text(shape),
        expected: "images × height × width, with or without channels")
    }
  }

  /// The size of images of so many numbers: the one asked for, or a square.
  static func size(of count: Int, _ options: PictureOptions, _ name: String) throws -> (
    Int, Int, Int
  ) {
    if let h = options.height, let w = options.width {
      for channels in [1, 3] where h * w * channels == count { return (h, w, channels) }
    }
    for channels in [1, 3] {
      let side = Int(Double(count / channels).squareRoot().rounded())
      if side * side * channels == count && side > 0 { return (side, side, channels) }
    }
    throw StrideNetError(
      .badData, "images of a size that can't be told", at: name, found: "\(count) numbers an image",
      expected: options.height.map { "those of \($0)×\(options.width!) pixels of 1 or 3 channels" },
      hint: "--image-size says it: --image-size 6x8")
  }

  /// - Parameters:
  ///   - labels: one for each; nil for none
  ///   - isTransposed: rows are columns
  func images(
    labels given: [Int]?, scale: Float, _ options: PictureOptions, isTransposed: Bool = false
  ) throws -> ImageSet {
    let (h, w, c, isFirst) = try layout(options)
    let source = try pixels(scale)
    let labels = given ?? [Int](repeating: 0, count: shape[0])
    guard !shape.contains(0) else { throw wrong("images without pixels", found: Self.text(shape)) }
    guard shape[0] == labels.count else {
      throw wrong(
        "images and labels differ in number", found: "\(shape[0]) images, \(labels.count) labels",
        expected: "one label for each image")
    }
    func set(_ h: Int, _ w: Int, _ pixels: [UInt8]) throws -> ImageSet {
      try ImageSet(
        count: shape[0], height: h, width: w, channels: c, pixels: pixels, labels: labels)
    }
    if !isFirst && !isTransposed || c == 1 && !isTransposed { return try set(h, w, source) }
    return try set(
      isTransposed ? w : h, isTransposed ? h : w,
      Self.rearranged(source, (h, w, c), isFirst, isTransposed))
  }

  /// - Parameter isFirst: channels come before rows
  static func rearranged(
    _ source: [UInt8], _ size: (h: Int, w: Int, c: Int), _ isFirst: Bool,
    _ isTransposed: Bool = false
  ) -> [UInt8] {
    let (h, w, c) = size
    let (row, column, channel) = isFirst ? (w, 1, h * w) : (w * c, c, 1)
    let (outer, inner) = isTransposed ? ((w, column), (h, row)) : ((h, row), (w, column))
    return [UInt8](unsafeUninitializedCapacity: source.count) { target, done in
      source.withUnsafeBufferPointer { source in
        for start in stride(from: 0, to: source.count, by: h * w * c) {
          for y in 0..<outer.0 {
            for x in 0..<inner.0 {
              for k in 0..<c {
                target[done] = source[start + y * outer.1 + x * inner.1 + k * channel]
                done += 1
              }
            }
          }
        }
      }
    }
  }

  // MARK: Labels

  /// Whole numbers, one an image; or a row for each, in which one number is 1 and all others 0.
  /// - Parameter column: that of the rows in which labels stand beside other things
  func labels(column: Int? = nil) throws -> [Int] {
    if case .texts = values { throw wrong("labels that are texts", expected: "numbers from 0") }
    let numbers = try numbers
    let width = shape.dropFirst().reduce(1, *)
    if let column, column < width {
      return try stride(from: column, to: numbers.count, by: width).map { try label(numbers[$0]) }
    }
    guard width > 1 else { return try numbers.map(label) }
    let one = numbers.max() ?? 0
    return try stride(from: 0, to: numbers.count, by: width).map { start in
      let row = numbers[start..<start + width]
      guard shape.count == 2, row.count(where: { $0 == one }) == 1,
        row.allSatisfy({ $0 == one || $0 == 0 }), let place = row.firstIndex(of: one)
      else {
        throw wrong(
          "labels that aren't ones", found: Self.text(shape),
          expected: "a whole number an image, or a row with a 1 at its place and 0 else")
      }
      return place - start
    }
  }

  private func label(_ number: Float) throws -> Int {
    guard let label = Int(exactly: number), (0...Int(UInt16.max)).contains(label) else {
      throw wrong(
        "a label that isn't one", found: "\(number)",
        expected: "whole numbers from 0 to \(UInt16.max)", hint: Dataset.targetsHint)
    }
    return label
  }

  // MARK: Numbers to predict

  /// A number or a row of them for each image, N×K.
  func targets() throws -> Tensor {
    let (numbers, columns) = (try numbers, shape.dropFirst().reduce(1, *))
    guard shape.count == 1 || shape.count == 2, columns > 0, shape[0] > 0 else {
      throw wrong(
        "an array that holds no numbers to predict", found: Self.text(shape),
        expected: "a number, or a row of them, for each image")
    }
    if let place = numbers.firstIndex(where: { !$0.isFinite }) {
      throw wrong(
        "a number to predict that isn't finite",
        found: "\(numbers[place]) in row \(place / columns + 1)"
          + (shape.count == 2 ? ", column \(place % columns + 1)" : ""))
    }
    return try Tensor(batch: shape[0], shape: Shape(columns), numbers)
  }
}
