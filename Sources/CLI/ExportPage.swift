import Foundation
import Pages
import StrideNet

/// What a page without a server has in it: a network, some images, and the kernels as WebAssembly.
struct PageContents: Encodable {
  struct Images: Encodable {
    let count: Int
    /// Bytes; and 16 bits each. Deflated, and written in base64, as all that is long here.
    let pixels, labels: String

    /// The first so many, or of a set that is sorted by class so many of all of it.
    init(_ set: ImageSet, _ count: Int, at source: String) throws {
      let places = try Dataset.limit(count, set.labels, at: source).places
      let size = set.imageSize
      self.count = count
      pixels = try packed(places.flatMap { set.pixels[$0 * size..<($0 + 1) * size] })
      labels = try packed(places.map { set.labels[$0].littleEndian })
    }
  }
  struct Normalization: Encodable {
    let scale, shift: [Float]
  }
  let network: String
  let input: [Int]
  let classes: [String]
  let normalization: Normalization?
  let fit: String?
  let weights, kernels, data: String
  let train, test: Images
  let presets: [String: String]

  /// A page is to open on a phone: about so many pixels, a fifth of them to test with, and at most so
  /// many weights and operations.
  private static let (pixels, images) = (1_960_000, 2500)
  private static let (weights, operations) = (8_000_000, 1e9)

  /// - Parameter fit: how drawings become images, instead of the way that the network was trained with
  /// - Throws: ``StrideNetError`` for networks that a page can't run
  init(_ network: Network, _ data: Dataset, fit: Picture.Fit?, for path: String) throws {
    func refuse(_ what: String, found: String, expected: String) -> StrideNetError {
      StrideNetError(
        .badData, what, at: path, found: found, expected: expected,
        hint: "stridenet serve shows it with a server")
    }
    guard network.parameterCount <= Self.weights else {
      throw refuse(
        "a network that is too large for a page",
        found: "\(network.parameterCount.grouped) weights",
        expected: "at most \(Self.weights.grouped)")
    }
    let shape = network.input!
    let need = try NetworkNeed(of: network.layers, for: shape, kernels: .auto)
    guard need.operations <= Self.operations else {
      throw refuse(
        "a network that is too large for a page",
        found: String(format: "%.1f billion operations an image", need.operations / 1e9),
        expected: "at most 1")
    }
    self.network = Architecture.text(network.layers)
    input = [shape.height, shape.width, shape.channels]
    classes = (0..<network.classes).map {
      data.classNames.indices.contains($0) ? data.classNames[$0] : "\($0)"
    }
    normalization = network.normalization.map { Normalization(scale: $0.scale, shift: $0.shift) }
    self.fit = (fit ?? network.pictureFit)?.rawValue
    weights = try packed(network.snapshot().values)
    kernels = try packed(page_kernels.buffer)
    self.data = data.source
    let images = min(Self.images, max(10, Self.pixels / shape.count))
    train = try Images(data.train, min(data.train.count, images * 4 / 5), at: data.source)
    test = try Images(data.test, min(data.test.count, images / 5), at: data.source)
    presets = try Page.presets()
  }

  /// The page's file.
  func html() throws -> String {
    let json = String(decoding: try JSONEncoder().encode(self), as: UTF8.self)
    // Nothing in it ends a script or begins a comment.
    return Page.text(
      page_serve,
      engine: """
        <script type="application/json" id="packed">\(json.replacing("<", with: "\\u003c"))</script>
        <script type="text/plain" id="packed-views">\(try packed(page_views.buffer))</script>
        <script type="text/plain" id="engine">
        \(page_network.text)\(page_engine.text)</script>
        """)
  }
}

private func packed(_ values: [some BitwiseCopyable]) throws -> String {
  try values.withUnsafeBytes { try packed($0) }
}
private func packed(_ bytes: UnsafeRawBufferPointer) throws -> String {
  Data(try bytes.deflated()).base64EncodedString()
}
