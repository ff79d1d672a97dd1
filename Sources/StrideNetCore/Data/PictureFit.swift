extension Picture {
  /// How a picture of any size becomes an image of a network's.
  public enum Fit: String, Sendable, Codable, CaseIterable {
    /// As large as covers the image; what juts out on two sides is cut off.
    case crop
    /// As large as fits into the image; what is left on two sides is black.
    case pad
    /// As wide and as high as the image, whatever becomes of the proportions.
    case stretch
    /// As MNIST's makers made theirs: ink, light on black, cut out and centred.
    case digits
  }

  /// The picture as an image of this size: grey for one channel, else red, green and blue. A picture
  /// that is one already stays as it is, but for its colours.
  /// - Throws: ``StrideNetError`` for ``Fit/digits`` if nothing is drawn on it, or in colours
  public func fitted(to shape: Shape, _ fit: Fit) throws -> Picture {
    guard shape.channels == 1 || shape.channels == 3 else {
      throw StrideNetError(
        .badData, "pictures can't become images of this many channels",
        found: "\(shape.channels)", expected: "1 or 3")
    }
    if fit == .digits {
      guard shape.channels == 1 else {
        throw StrideNetError(
          .badData, "digits are fitted into grey images", found: "\(shape)",
          expected: "one channel", hint: "--colour grey, or another --fit")
      }
      return Picture(try fitted(to: shape))
    }
    let size = (shape.height, shape.width)
    let (w, h) = (width * shape.height, height * shape.width)
    var result = self
    switch fit {
    case .crop where w > h: result = cut(height, max(1, h / shape.height))
    case .crop where h > w: result = cut(max(1, w / shape.width), width)
    case .pad where w > h:
      result = resized(to: (max(1, (h + width / 2) / width), shape.width)).placed(in: size)
    case .pad where h > w:
      result = resized(to: (shape.height, max(1, (w + height / 2) / height))).placed(in: size)
    default: break
    }
    return result.resized(to: size).coloured(shape.channels)
  }

  /// The picture as an example: fitted in this way, or where there is none as ``fitted(to:)`` does it.
  package func input(of shape: Shape, _ fit: Fit?) throws -> Tensor {
    guard let fit else { return try fitted(to: shape) }
    return try Tensor(batch: 1, shape: shape, fitted(to: shape, fit).values)
  }

  /// The middle.
  private func cut(_ h: Int, _ w: Int) -> Picture {
    let (top, left) = ((height - h) / 2, (width - w) / 2)
    var result: [UInt8] = []
    result.reserveCapacity(h * w * channels)
    for row in top..<top + h {
      let start = (row * width + left) * channels
      result += pixels[start..<start + w * channels]
    }
    return Picture(height: h, width: w, channels: channels, pixels: result)
  }

  /// In the middle of a black one.
  private func placed(in size: (height: Int, width: Int)) -> Picture {
    var result = [UInt8](repeating: 0, count: size.height * size.width * channels)
    let (top, left) = ((size.height - height) / 2, (size.width - width) / 2)
    for row in 0..<height {
      let start = ((top + row) * size.width + left) * channels
      result.replaceSubrange(
        start..<start + width * channels,
        with: pixels[row * width * channels..<(row + 1) * width * channels])
    }
    return Picture(height: size.height, width: size.width, channels: channels, pixels: result)
  }

  private func resized(to size: (height: Int, width: Int)) -> Picture {
    if size == (height, width) { return self }
    let values = Self.resized(pixels, (height, width), channels, to: size) { Float($0) }
    return Picture(
      height: size.height, width: size.width, channels: channels,
      pixels: values.map { UInt8(pixel: $0) })
  }

  private func coloured(_ wanted: Int) -> Picture {
    if channels == wanted { return self }
    let values =
      wanted == 1 ? grey().map { UInt8(pixel: $0 * 255) } : pixels.flatMap { [$0, $0, $0] }
    return Picture(height: height, width: width, channels: wanted, pixels: values)
  }

  /// The numbers of a network's input.
  package var values: [Float] { pixels.map { Float($0) / 255 } }
}

extension ExampleSource {
  /// How pictures become images like these: as ``Picture/Fit/digits`` where nearly all of these are
  /// light on black, end before the edge, and have their mass in the middle, as MNIST's.
  package var usualFit: Picture.Fit? {
    guard shape.channels == 1 || shape.channels == 3 else { return nil }
    let some = Array(stride(from: 0, to: count, by: max(1, count / 500)))
    let likeDigits = some.count { isLikeDigit($0) }
    return shape.channels == 1 && likeDigits * 10 >= some.count * 9 ? .digits : .crop
  }

  private func isLikeDigit(_ index: Int) -> Bool {
    withUnsafeTemporaryAllocation(of: Float.self, capacity: shape.count) { pixels in
      read(index, into: pixels)
      let (height, width) = (shape.height, shape.width)
      var (mass, down, right, black) = (0, 0, 0, 0)
      for row in 0..<height {
        for column in 0..<width {
          let value = Int((pixels[row * width + column] * 255).rounded())
          let isEdge = row == 0 || column == 0 || row == height - 1 || column == width - 1
          if isEdge && value > 0 { return false }
          mass += value
          down += value * row
          right += value * column
          black += value == 0 ? 1 : 0
        }
      }
      func isMiddle(_ moment: Int, _ size: Int) -> Bool {
        abs(Double(moment) / Double(mass) - Double(size) / 2) <= Double(size) / 10
      }
      return mass > 0 && 2 * black > height * width && isMiddle(down, height)
        && isMiddle(right, width)
    }
  }
}
