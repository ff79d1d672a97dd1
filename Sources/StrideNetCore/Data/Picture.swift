/// A picture: 8-bit pixels, row by row; channels side by side: 1 grey, 3 red, green and blue.
public struct Picture: Sendable, Equatable {
  public var height, width, channels: Int
  public var pixels: [UInt8]

  public init(height: Int, width: Int, channels: Int, pixels: [UInt8]) {
    precondition(pixels.count == height * width * channels)
    (self.height, self.width, self.channels) = (height, width, channels)
    self.pixels = pixels
  }

  /// Values of 0…1 as pixels.
  public init(_ x: Tensor, example: Int = 0) {
    let shape = x.shape
    let pixels = (0..<shape.count).map { i in UInt8(pixel: x[example * shape.count + i] * 255) }
    self.init(
      height: shape.height, width: shape.width, channels: shape.channels, pixels: pixels)
  }
}

extension Picture {
  /// The picture as a network for digits wants it, made as MNIST's makers made theirs: grey, the ink
  /// light on black, cut out, fitted into 20 of 28 parts of the network's input with its proportions
  /// kept, and put there with its centre of mass in the middle. Paper may have grain, shade and faint
  /// lines. A network that sees colours gets the picture itself, made as large as its input.
  /// - Throws: ``StrideNetError`` if nothing is drawn on it
  public func fitted(to shape: Shape) throws -> Tensor {
    var need = MemoryNeed()
    need.add(shape.count, times: 3, for: "a picture of \(shape)")
    try need.require(hint: "the network's input is too large for pictures")
    // As floats, several times over, a large picture would take a gigabyte of memory.
    let most = max(1024, 4 * max(shape.height, shape.width))
    if max(height, width) > most {
      return try reduced(by: (max(height, width) + most - 1) / most).fitted(to: shape)
    }
    return try shape.channels > 1 ? colours(as: shape) : digit(as: shape)
  }

  private func colours(as shape: Shape) throws -> Tensor {
    guard channels == shape.channels else {
      throw StrideNetError(
        .badData, "a picture with other channels than the network's input", found: "\(channels)",
        expected: "\(shape.channels)")
    }
    let values = pixels.map { Float($0) / 255 }
    return try Tensor(
      batch: 1, shape: shape,
      Self.resized(values, (height, width), channels, to: (shape.height, shape.width)))
  }

  // MARK: Digits

  private func digit(as shape: Shape) throws -> Tensor {
    let (drawn, h, w) = try drawing()
    let box = Double(min(shape.height, shape.width)) * 20 / 28
    let scale = box / Double(max(h, w))
    let (newH, newW) = (
      max(1, Int((Double(h) * scale).rounded())), max(1, Int((Double(w) * scale).rounded()))
    )
    let small = Self.resized(drawn, (h, w), 1, to: (newH, newW)).map { max(0, min(1, $0)) }
    let start = Self.start(of: small, (newH, newW), in: shape)
    var result = try Tensor(zeros: 1, shape)
    for (i, value) in small.enumerated() {
      result[0, start.row + i / newW, start.column + i % newW, 0] = value
    }
    return result
  }

  /// Where a picture begins if its centre of mass is to be in the middle.
  private static func start(
    of picture: [Float], _ size: (height: Int, width: Int), in shape: Shape
  ) -> (row: Int, column: Int) {
    var (mass, down, right) = (0.0, 0.0, 0.0)
    for (i, value) in picture.enumerated() {
      mass += Double(value)
      down += Double(value) * Double(i / size.width)
      right += Double(value) * Double(i % size.width)
    }
    func start(_ size: Int, _ centre: Double, _ extent: Int) -> Int {
      // MNIST's digits have theirs in the pixel behind the middle: number 14 of 0…27.
      // Inside, even where the mass lies far to one side.
      max(0, min(size - extent, Int((Double(size) / 2 - centre).rounded())))
    }
    return (
      start(shape.height, down / mass, size.height), start(shape.width, right / mass, size.width)
    )
  }

  // MARK: Sizes and colours

  /// Each pixel the mean of so many by so many.
  private func reduced(by factor: Int) -> Self {
    let (h, w) = ((height + factor - 1) / factor, (width + factor - 1) / factor)
    var sums = [Int](repeating: 0, count: w * channels)
    var result: [UInt8] = []
    result.reserveCapacity(h * w * channels)
    for top in stride(from: 0, to: height, by: factor) {
      let rows = top..<min(top + factor, height)
      for i in sums.indices { sums[i] = 0 }
      for row in rows {
        for i in 0..<width * channels {
          sums[i / (factor * channels) * channels + i % channels] += Int(
            pixels[row * width * channels + i])
        }
      }
      for i in sums.indices {
        let count = rows.count * min(factor, width - i / channels * factor)
        result.append(UInt8((sums[i] + count / 2) / count))
      }
    }
    return Self(height: h, width: w, channels: channels, pixels: result)
  }

  /// 0 black … 1 white, by the eye's weights of the colours.
  func grey() -> [Float] {
    guard channels == 3 else { return pixels.map { Float($0) / 255 } }
    let weights: [Float] = [0.299 / 255, 0.587 / 255, 0.114 / 255]
    return (0..<height * width).map { i in
      (0..<3).reduce(Float(0)) { $0 + weights[$1] * Float(pixels[3 * i + $1]) }
    }
  }

  /// Each pixel of the result is the mean of the area that it covers; where that is smaller than a
  /// pixel, what lies between neighbours.
  package static func resized(
    _ x: [Float], _ size: (Int, Int), _ channels: Int, to new: (Int, Int)
  ) -> [Float] {
    resized(x, size, channels, to: new) { $0 }
  }

  /// Row by row, so that bytes needn't all become floats.
  static func resized<Number>(
    _ x: [Number], _ size: (Int, Int), _ channels: Int, to new: (Int, Int),
    _ number: (Number) -> Float
  ) -> [Float] {
    let (rows, columns) = (weights(size.0, new.0), weights(size.1, new.1))
    let width = new.1 * channels
    var wide = [Float](repeating: 0, count: width)
    var result = [Float](repeating: 0, count: new.0 * width)
    x.withUnsafeBufferPointer { x in
      var first = 0
      for y in 0..<size.0 {
        for (q, terms) in columns.enumerated() {
          for c in 0..<channels {
            var sum: Float = 0
            for (j, share) in terms { sum += share * number(x[(y * size.1 + j) * channels + c]) }
            wide[q * channels + c] = sum
          }
        }
        // The rows of the result in which this one has a part stand side by side.
        while first < new.0 && rows[first].last!.0 < y { first += 1 }
        for p in first..<new.0 {
          guard rows[p][0].0 <= y else { break }
          for (i, share) in rows[p] where i == y {
            for k in 0..<width { result[p * width + k] += share * wide[k] }
          }
        }
      }
    }
    return result
  }

  /// For each place of the new ones, the old places that it is made of, with their shares.
  private static func weights(_ from: Int, _ to: Int) -> [[(Int, Float)]] {
    let step = Double(from) / Double(to)
    return (0..<to).map { i in
      let (start, end) = (Double(i) * step, Double(i + 1) * step)
      if step < 1 {
        let place = max(0, min(Double(from - 1), (start + end) / 2 - 0.5))
        let first = min(Int(place), max(0, from - 2))
        let share = Float(place - Double(first))
        return from == 1 ? [(0, 1)] : [(first, 1 - share), (first + 1, share)]
      }
      return (Int(start)..<min(from, Int(end.rounded(.up)))).map { j in
        (j, Float((min(end, Double(j + 1)) - max(start, Double(j))) / step))
      }
    }
  }
}
