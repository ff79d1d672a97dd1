import Foundation
import Testing

import StrideNet

/// Digits on paper as people photograph them: read as those of the data are.
@Suite struct PhotographTests {
  private static let isRelease = Comment("photographs take minutes without optimisation")

  /// What isn't ink.
  struct Paper {
    var paper: Float = 235
    var ink: Float = 40
    /// The standard deviation of its noise, of 255.
    var grain: Float = 0
    var isShaded = false
    var isRuled = false
  }

  /// A sheet with a digit of `size` × `size` pixels somewhere on it.
  private static func sheet(
    _ digit: [Float], _ height: Int, _ width: Int, size: Int, _ paper: Paper,
    _ random: inout SeededGenerator
  ) -> Picture {
    // Drawn from anew at every row: no deviate of its own for each pixel.
    let noise = (0..<4099).map { _ in paper.grain * random.normal() }
    let top = Int(random.next() % UInt64(height - size + 1))
    let left = Int(random.next() % UInt64(width - size + 1))
    // Places between the digit's pixels, with their shares.
    let places = (0..<size).map { i -> (first: Int, share: Float) in
      let place = min(max((Float(i) + 0.5) * 28 / Float(size) - 0.5, 0), 26.999)
      return (Int(place), place - Float(Int(place)))
    }
    var pixels = [UInt8](repeating: 0, count: height * width)
    for y in 0..<height {
      let start = Int(random.next() % 4099)
      let isLine = paper.isRuled && y % (height / 20) == height / 40
      for x in 0..<width {
        var ink: Float = 0
        if top <= y, y < top + size, left <= x, x < left + size {
          let ((row, down), (column, right)) = (places[y - top], places[x - left])
          let k = row * 28 + column
          ink =
            (digit[k] * (1 - right) + digit[k + 1] * right) * (1 - down)
            + (digit[k + 28] * (1 - right) + digit[k + 29] * right) * down
        }
        var value = paper.paper + ink * (paper.ink - paper.paper)
        if isLine { value *= 0.82 }
        if paper.isShaded { value *= 1 - 0.3 * Float(x) / Float(width) }
        value += noise[(start + x) % 4099]
        pixels[y * width + x] = UInt8(max(0, min(255, value.rounded())))
      }
    }
    return Picture(height: height, width: width, channels: 1, pixels: pixels)
  }

  /// Digits that the network in the package reads right as they are, and how many of them it reads so
  /// on paper.
  private static func read(
    _ count: Int, seed: UInt64, _ height: Int, _ width: Int, size: Int, _ paper: Paper
  ) throws -> Int {
    let (test, network) = (try NetworkTests.sample.get().test, Network.digits())
    var random = SeededGenerator(seed: seed)
    func best(_ x: Tensor) throws -> Int {
      let y = try network.predict(x)
      return (0..<10).max { y[$0] < y[$1] }!
    }
    var (right, done) = (0, 0)
    while done < count {
      let batch = test.batch([Int(random.next() % UInt64(test.count))])
      guard try best(batch.images) == Int(batch.labels[0]) else { continue }
      let picture = sheet(batch.images.values, height, width, size: size, paper, &random)
      done += 1
      right += try best(picture.fitted(to: Shape(28, 28, 1))) == Int(batch.labels[0]) ? 1 : 0
    }
    return right
  }

  /// 97 of 100, whatever the grain, the size and the paper.
  @Test(.enabled(if: !KernelChoice.isDebugBuild, isRelease), arguments: [1, 2] as [UInt64])
  func digitsAreReadThroughGrain(_ seed: UInt64) throws {
    let papers: [Paper] = [
      Paper(grain: 2), Paper(grain: 4), Paper(grain: 8), Paper(paper: 255, ink: 0, grain: 2),
      Paper(paper: 20, ink: 250, grain: 4), Paper(paper: 190, ink: 110, grain: 4),
    ]
    var right = 0
    for (index, paper) in papers.enumerated() {
      let seed = seed * 100 + UInt64(index)
      right += try Self.read(14, seed: seed, 300, 400, size: 140, paper)
      right += try Self.read(4, seed: seed, 520, 440, size: 250, paper)
      right += try Self.read(2, seed: seed, 90, 120, size: 56, paper)
    }
    #expect(right * 100 >= 97 * 20 * papers.count, "\(right) of \(20 * papers.count)")
  }

  /// A sheet as a camera gives it.
  @Test(.enabled(if: !KernelChoice.isDebugBuild, isRelease), arguments: [2, 4] as [Float])
  func largeSheets(_ grain: Float) throws {
    let right = try Self.read(1, seed: 5, 3000, 4000, size: 1400, Paper(grain: grain))
    #expect(right == 1)
  }

  @Test(.enabled(if: !KernelChoice.isDebugBuild, isRelease)) func linesAndShadeAreNoInk() throws {
    var right = 0
    for (index, paper) in [
      Paper(isRuled: true), Paper(grain: 3, isRuled: true), Paper(grain: 2, isShaded: true),
      Paper(grain: 4, isShaded: true, isRuled: true),
    ].enumerated() {
      right += try Self.read(10, seed: UInt64(index), 300, 400, size: 140, paper)
    }
    #expect(right >= 39, "\(right) of 40")
  }

  /// A pencil's line of one pixel is ink, noise alone is none.
  @Test func thinLinesAndBlankPaper() throws {
    let (h, w) = (500, 600)
    var random = SeededGenerator(seed: 3)
    for grain in [0, 2, 12] as [Float] {
      var pixels = (0..<h * w).map { _ in
        UInt8(max(0, min(255, (200 + grain * random.normal()).rounded())))
      }
      let blank = Picture(height: h, width: w, channels: 1, pixels: pixels)
      #expect(throws: StrideNetError.self) { try blank.fitted(to: Shape(28, 28, 1)) }
      for i in 100..<300 { pixels[i * w + 250] = 30 }
      let line = try Picture(height: h, width: w, channels: 1, pixels: pixels)
        .fitted(to: Shape(28, 28, 1))
      let rows = (0..<28).filter { row in (0..<28).contains { line[0, row, $0, 0] > 0.1 } }
      #expect(grain > 2 || rows.count == 20, "grain \(grain): rows \(rows)")
    }
  }

  /// White on nothing, of 12 × 16 pixels: on white paper it would be lost.
  @Test func whiteInkOnTransparency() throws {
    let png =
      "iVBORw0KGgoAAAANSUhEUgAAAAwAAAAQCAQAAACIaFaMAAAAGklEQVR42mNgoA34////fxibCZei4SJBRQAA"
      + "5QIED6Qn4o4AAAAASUVORK5CYII="
    let place = try Workplace()
    try place.write("white.png", Array(try #require(Data(base64Encoded: png))))
    let picture = try Picture.read(at: "\(place.path)/white.png")
    #expect((picture.height, picture.width) == (16, 12))
    #expect(picture.pixels.first == 0 && picture.pixels.max() == 255)
    #expect(try picture.fitted(to: Shape(28, 28, 1)).values.max()! > 0.9)
  }

  // MARK: What a network wants

  /// Pictures that fill their frame, as those of clothes do.
  private static func filled() throws -> Dataset {
    var random = SeededGenerator(seed: 9)
    func set(_ count: Int) throws -> ImageSet {
      try ImageSet(
        count: count, height: 8, width: 8, channels: 1,
        pixels: (0..<count * 64).map { $0 % 8 < 4 ? UInt8(40 + random.next() % 200) : 0 },
        labels: (0..<count).map { $0 % 2 })
    }
    return try Dataset(name: "filled", source: "here", train: set(40), test: set(10))
  }

  @Test func whatPicturesAreWantedIsSaved() throws {
    let place = try Workplace()
    let filled = try Self.filled()
    var once = TrainingSettings()
    (once.epochs, once.batchSize) = (1, 8)
    let network = Network(try Architecture.layers("flatten softmax(2)"))
    _ = try Trainer(network, filled, once).run()
    try network.save(to: "\(place.path)/w")
    let digits = Network(try Architecture.layers("flatten softmax(10)"))
    _ = try Trainer(digits, NetworkTests.sample.get().limited(to: 600), once).run()
    try digits.save(to: "\(place.path)/d")
    #expect(try Network.load(from: "\(place.path)/w").pictureFit == .crop)
    #expect(try Network.load(from: "\(place.path)/d").pictureFit == .digits)

    // A picture of the network's size is the image itself, but with --fit digits.
    let pixels = Array(filled.test.pixels[0..<64])
    let picture = Picture(height: 8, width: 8, channels: 1, pixels: pixels)
    try PNG.write(picture, to: "\(place.path)/a.png")
    let expected = try network.predict(filled.test.batch([0]).images).values
    let plain = try place.run("predict", "w", "a.png", "--save-input", "seen.png", "--json")
    let found = try #require(plain.json.first?["probabilities"] as? [Double], "\(plain.err)")
    expectClose(found.map { Float($0) }, expected, within: 1e-5, "as it is")
    #expect(try Picture.read(at: "\(place.path)/seen.png").grey(8, 8) == pixels)
    let other = try place.run(
      "predict", "w", "a.png", "--save-input", "seen.png", "--fit", "digits")
    #expect(other.code == 0, "\(other.err)")
    #expect(try Picture.read(at: "\(place.path)/seen.png").grey(8, 8) != pixels)

    // Folders by a class's number too, where classes have names: one may be none for a folder.
    network.classNames = ["T-shirt/top", "bag"]
    try network.save(to: "\(place.path)/w")
    for (index, name) in ["0", "bag"].enumerated() {
      try FileManager.default.createDirectory(
        atPath: "\(place.path)/p/\(name)", withIntermediateDirectories: true)
      try PNG.write(
        Picture(filled.test.batch([index]).images), to: "\(place.path)/p/\(name)/a.png")
    }
    let measured = try place.run("evaluate", "w", "--pictures", "p", "--json")
    #expect(measured.code == 0 && measured.json[0]["test_images"] as? Int == 2, "\(measured.err)")
  }

  // MARK: Names of files

  @Test func standardInputPatternsAndOthers() throws {
    let place = try Workplace()
    try place.writeWeights("w")
    let digit = Picture(
      height: 30, width: 20, channels: 1,
      pixels: (0..<600).map { (5..<20).contains($0 / 20) && (8..<11).contains($0 % 20) ? 20 : 230 })
    try FileManager.default.createDirectory(
      atPath: "\(place.path)/p", withIntermediateDirectories: true)
    for name in ["p/a.png", "p/b.png", "c.png"] {
      try PNG.write(digit, to: "\(place.path)/\(name)")
    }
    try place.write("p/cut.png", Array(PNG.encode(digit).prefix(60)))
    let all = try place.run(
      "predict", "w", "p/[ab].png", "none*.png", "no.png", "p", "c.png", "--json")
    #expect(all.code == 65 && all.err.contains("3 that couldn't"), "\(all.err)")
    let files = all.json.compactMap { $0["file"] as? String }
    #expect(files == ["p/a.png", "p/b.png", "p/a.png", "p/b.png", "c.png"])
    for name in ["none*.png", "no.png", "p/cut.png"] {
      #expect(all.err.contains(name), "\(all.err)")
    }

    func piped(_ file: String) throws -> Workplace.Outcome {
      try place.run(
        ["predict", "w", "-", "--json"], shell: ["/bin/sh", "-c", "exec \"$0\" \"$@\" <\(file)"])
    }
    let read = try piped("c.png")
    #expect(read.code == 0 && read.json.first?["file"] as? String == "-", "\(read.err)")
    expectClose(
      (read.json.first?["probabilities"] as? [Double] ?? []).map { Float($0) },
      (all.json.last?["probabilities"] as? [Double] ?? []).map { Float($0) }, within: 0, "piped")
    // What can't be written isn't the picture's fault.
    let full = try place.run(
      ["predict", "w", "p/a.png", "p/b.png"],
      shell: ["/bin/sh", "-c", "exec \"$0\" \"$@\" >/dev/full"])
    #expect(full.code == 74, "\(full.err)")
    #expect(full.err.components(separatedBy: "cannot write").count == 2, "\(full.err)")
    let cut = try piped("p/cut.png")
    #expect(cut.code == 65 && cut.err.contains("standard input"), "\(cut.err)")
    #expect(!cut.err.contains("stridenet-"), "\(cut.err)")
    let empty = try piped("/dev/null")
    #expect(empty.code == 65 && empty.err.contains("nothing comes in"), "\(empty.err)")
    for (file, said) in [("&-", "Bad file descriptor"), ("/", "Is a directory")] {
      let none = try piped(file)
      #expect(none.code == 66 && none.err.contains(said), "\(none.err)")
      #expect(none.err.contains("standard input"), "\(none.err)")
    }
  }
}

extension Picture {
  /// One channel of a grey picture of this size.
  fileprivate func grey(_ height: Int, _ width: Int) -> [UInt8]? {
    guard (self.height, self.width) == (height, width) else { return nil }
    return (0..<height * width).map { pixels[$0 * channels] }
  }
}
