import Foundation

/// Changes that make of each training image, each time it is used, another one that shows the same:
/// shifted, turned, and so on, by random amounts. What an image's are depends on the seed, the epoch
/// and the image's number alone, so results are the same for any number of threads. As text:
/// "shift=2,rotate=10,scale=0.1,elastic=1,erase=0.3,mirror", "crop=4,mirror,brightness=0.2,cutout=8".
///
/// What moves pixels is one map from the result's pixels to places in the source, between whose pixels
/// is interpolated (bilinear); outside is 0. Then come colours, then what covers a part.
public struct Augmentation: Sendable, Hashable {
  /// Up to so many pixels along each axis.
  public var shift: Float = 0
  /// Up to so many degrees, either way.
  public var rotate: Float = 0
  /// By a factor of 1 ± so much, the same along both axes.
  public var scale: Float = 0
  /// Rows slide sideways by up to this share of their distance from the middle one.
  public var shear: Float = 0
  /// Each pixel is moved by a random field whose displacements have this standard deviation, in
  /// pixels (Simard, Steinkraus & Platt 2003).
  public var elastic: Float = 0
  /// How smooth that field is: the standard deviation of the Gaussian it was blurred with, in pixels.
  public var sigma: Float = 4
  /// The probability that a random rectangle, 2 to 20 % of the image, is 0 (Zhong et al. 2017,
  /// arXiv:1708.04896).
  public var erase: Float = 0
  /// Up to so many whole pixels along each axis, as if a part of the image's size were cut out of it
  /// with so wide a border of 0. Above and below a whole number is the same as that below.
  public var crop: Float = 0
  /// Pixels are multiplied by 1 ± up to so much, and stay in 0…1.
  public var brightness: Float = 0
  /// They differ from the image's mean grey by a factor of 1 ± up to so much.
  public var contrast: Float = 0
  /// They differ from their own grey by such a factor; of images with three channels.
  public var saturation: Float = 0
  /// A square of this side is 0, its middle anywhere in the image (DeVries & Taylor 2017,
  /// arXiv:1708.04552).
  public var cutout: Float = 0
  /// Left and right change places in every other image, at random.
  public var mirror = false

  public init() {}

  private typealias Field = (
    name: String, path: WritableKeyPath<Augmentation, Float> & Sendable, range: ClosedRange<Float>
  )
  private static let fields: [Field] = [
    ("shift", \.shift, 0...64), ("rotate", \.rotate, 0...180), ("scale", \.scale, 0...0.9),
    ("shear", \.shear, 0...2), ("elastic", \.elastic, 0...16), ("sigma", \.sigma, 0.5...16),
    ("erase", \.erase, 0...1), ("crop", \.crop, 0...64), ("brightness", \.brightness, 0...1),
    ("contrast", \.contrast, 0...1), ("saturation", \.saturation, 0...1),
    ("cutout", \.cutout, 0...1024),
  ]

  /// - Throws: ``StrideNetError`` naming the place and the range
  public init(_ text: String) throws {
    var seen: Set<String> = []
    for part in text.split(separator: ",", omittingEmptySubsequences: false) {
      let pair = part.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
      let name = String(pair[0])
      func wrong(_ what: String, _ found: String, _ expected: String?) -> StrideNetError {
        StrideNetError(
          .usage, what, at: "augmentation '\(text)'", found: "'\(found)'", expected: expected)
      }
      guard seen.insert(name).inserted else { throw wrong("\(name) given twice", "\(part)", nil) }
      if name == "mirror" && pair.count == 1 {
        mirror = true
        continue
      }
      guard let field = Self.fields.first(where: { $0.name == name }), pair.count == 2 else {
        throw wrong(
          "no such change of images", "\(part)",
          Self.fields.map { "\($0.name)=…" }.joined(separator: ", ") + ", mirror")
      }
      self[keyPath: field.path] = Float(pair[1]) ?? .nan
      try check(field, as: "augmentation '\(text)'", found: "'\(pair[1])'")
    }
  }

  /// - Throws: ``StrideNetError`` naming the value and its range
  package func check() throws {
    for field in Self.fields {
      try check(field, as: "augmentation", found: "\(self[keyPath: field.path])")
    }
  }

  private func check(_ field: Field, as place: String, found: String) throws {
    if field.range.contains(self[keyPath: field.path]) { return }
    throw StrideNetError(
      .usage, "\(field.name) out of range", at: place, found: found,
      expected: "\(field.range.lowerBound) … \(field.range.upperBound)")
  }

  // MARK: Changing an image

  /// The Gaussian's weights, so scaled that a field of uniform numbers in ±1, blurred along both
  /// axes, has a standard deviation of `elastic`.
  fileprivate var weights: [Float] {
    guard elastic > 0 else { return [] }
    let radius = Int((2.5 * sigma).rounded(.up))
    let raw = (-radius...radius).map { exp(-Double($0 * $0) / Double(2 * sigma * sigma)) }
    let squares = raw.reduce(0) { $0 + $1 * $1 }
    let factor = (Double(elastic) / (squares / 3.0.squareRoot())).squareRoot()
    return raw.map { Float($0 * factor) }
  }

  /// Floats of scratch memory that an image needs: the bordered image, then two fields and a place
  /// to blur them.
  fileprivate static func scratchCount(_ shape: Shape) -> Int {
    (shape.height + 3) * (shape.width + 3) * shape.channels + 3 * shape.height * shape.width
  }

  fileprivate func apply(
    _ image: UnsafeMutablePointer<Float>, _ shape: Shape, weights: [Float],
    _ random: inout SeededGenerator, _ scratch: UnsafeMutablePointer<Float>
  ) {
    func signed(_ most: Float) -> Float {
      most == 0 ? 0 : (2 * random.uniform() - 1) * most
    }
    let (h, w, c) = (shape.height, shape.width, shape.channels)
    let angle = signed(rotate) * .pi / 180
    let (size, slant) = (1 / (1 + signed(scale)), signed(shear))
    func whole(_ most: Float) -> Float {
      most < 1 ? 0 : Float(random.below(2 * Int(most) + 1) - Int(most))
    }
    let (down, right) = (signed(shift) + whole(crop), signed(shift) + whole(crop))
    let flip: Float = mirror && random.uniform() < 0.5 ? -1 : 1
    // About the middle:
    let (sine, cosine) = (sin(angle) * size, cos(angle) * size)
    // [v] = [cosine  −sine] · [1      0] · [p − middle]
    // [u]   [sine   cosine]   [slant  1]   [flip · (q − middle)]
    let (a, b) = (cosine - sine * slant, -sine * flip)
    let (d, e) = (sine + cosine * slant, cosine * flip)
    let (middleRow, middleColumn) = (Float(h - 1) / 2, Float(w - 1) / 2)
    let (p0, q0) = (middleRow + down, middleColumn + right)
    let moves = a != 1 || b != 0 || d != 0 || e != 1 || down != 0 || right != 0
    if moves || elastic > 0 {
      let bordered = scratch
      let fields = scratch + (h + 3) * (w + 3) * c
      if elastic > 0 {
        for field in 0..<2 {
          let turned = fields + 2 * h * w
          let target = fields + field * h * w
          for i in 0..<h * w { target[i] = 2 * random.uniform() - 1 }
          // Down columns and turned, then likewise back.
          Kernels.blur(rows: h, columns: w, target, weights: weights, turned)
          Kernels.blur(rows: w, columns: h, turned, weights: weights, target)
        }
      }
      bordered.update(repeating: 0, count: (h + 3) * (w + 3) * c)
      for row in 0..<h {
        (bordered + ((row + 1) * (w + 3) + 1) * c).update(from: image + row * w * c, count: w * c)
      }
      withUnsafePointer(
        to: (a, b, middleRow - a * p0 - b * q0, d, e, middleColumn - d * p0 - e * q0)
      ) {
        $0.withMemoryRebound(to: Float.self, capacity: 6) {
          Kernels.warp(
            shape, bordered, map: $0, down: elastic > 0 ? fields : nil,
            right: elastic > 0 ? fields + h * w : nil, image)
        }
      }
    }
    if brightness > 0 || contrast > 0 || saturation > 0 {
      colour(
        image, shape, 1 + signed(brightness), 1 + signed(contrast), 1 + signed(saturation))
    }
    if erase > 0 && random.uniform() < erase {
      let area = (0.02 + 0.18 * random.uniform()) * Float(h * w)
      let aspect = exp(signed(log(3.3)))
      let rows = min(h, max(1, Int((area * aspect).squareRoot().rounded())))
      let columns = min(w, max(1, Int((area / aspect).squareRoot().rounded())))
      let (top, left) = (random.below(h - rows + 1), random.below(w - columns + 1))
      for row in top..<top + rows {
        (image + (row * w + left) * c).update(repeating: 0, count: columns * c)
      }
    }
    if cutout >= 1 {
      let side = Int(cutout)
      let (top, left) = (random.below(h) - side / 2, random.below(w) - side / 2)
      let columns = max(0, left)..<min(w, left + side)
      for row in max(0, top)..<min(h, top + side) {
        (image + (row * w + columns.lowerBound) * c).update(repeating: 0, count: columns.count * c)
      }
    }
  }

  /// Multiplies brightness, contrast and saturation by factors, in this order; values stay in 0…1.
  private func colour(
    _ image: UnsafeMutablePointer<Float>, _ shape: Shape, _ brightness: Float, _ contrast: Float,
    _ saturation: Float
  ) {
    let (pixels, c) = (shape.height * shape.width, shape.channels)
    func clamped(_ value: Float) -> Float { min(max(value, 0), 1) }
    // Of three channels as eyes see them (ITU-R BT.601), of others the mean.
    func grey(_ x: UnsafeMutablePointer<Float>) -> Float {
      if c == 3 { return 0.299 * x[0] + 0.587 * x[1] + 0.114 * x[2] }
      var sum: Float = 0
      for k in 0..<c { sum += x[k] }
      return sum / Float(c)
    }
    if brightness != 1 {
      for i in 0..<pixels * c { image[i] = clamped(image[i] * brightness) }
    }
    if contrast != 1 {
      var sum = 0.0
      for pixel in 0..<pixels { sum += Double(grey(image + pixel * c)) }
      let rest = Float(sum / Double(pixels)) * (1 - contrast)
      for i in 0..<pixels * c { image[i] = clamped(image[i] * contrast + rest) }
    }
    if saturation != 1 && c == 3 {
      for pixel in 0..<pixels {
        let x = image + pixel * c
        let rest = grey(x) * (1 - saturation)
        for k in 0..<c { x[k] = clamped(x[k] * saturation + rest) }
      }
    }
  }
}

extension Augmentation: CustomStringConvertible, Codable {
  public var description: String {
    let plain = Augmentation()
    let values = Self.fields.filter { self[keyPath: $0.path] != plain[keyPath: $0.path] }
      .map { "\($0.name)=\(self[keyPath: $0.path])" }
    let all = values + (mirror ? ["mirror"] : [])
    // Of one that changes nothing, too, the text can be read back.
    return all.isEmpty ? "shift=0" : all.joined(separator: ",")
  }

  public init(from decoder: any Decoder) throws {
    self = try decoder.text { try Self($0) }
  }

  public func encode(to encoder: any Encoder) throws {
    try description.encode(to: encoder)
  }
}

/// An augmentation at work on the images of an epoch.
package struct Augmenter {
  let augmentation: Augmentation
  private let seed: UInt64
  private let weights: [Float]
  var epoch = 0

  init(_ augmentation: Augmentation, seed: UInt64) {
    self.augmentation = augmentation
    self.seed = seed
    weights = augmentation.weights
  }

  func scratchCount(_ shape: Shape) -> Int { Augmentation.scratchCount(shape) }

  /// Changes image number `index` of the training set in place.
  func apply(
    _ image: UnsafeMutablePointer<Float>, _ shape: Shape, index: Int,
    _ scratch: UnsafeMutablePointer<Float>
  ) {
    var random = SeededGenerator(
      seed: seed, stream: 1 << 56 | UInt64(epoch) << 32 | UInt64(index))
    augmentation.apply(image, shape, weights: weights, &random, scratch)
  }
}

extension ImageSet {
  /// Images as an epoch of training would see them; epochs from 0.
  public func augmented(
    _ indices: some Collection<Int>, _ augmentation: Augmentation, seed: UInt64, epoch: Int
  ) -> Tensor {
    var augmenter = Augmenter(augmentation, seed: seed)
    augmenter.epoch = epoch
    let scratch = FloatStorage.sure(count: augmenter.scratchCount(shape))
    var images = batch(indices).images
    images.withMutableView { x in
      for (slot, index) in indices.enumerated() {
        augmenter.apply(x.example(slot), shape, index: index, scratch.pointer)
      }
    }
    return images
  }
}
