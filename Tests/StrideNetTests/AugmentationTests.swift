import Foundation
import Testing

import StrideNet
@testable import StrideNetFiles

@Suite struct AugmentationTests {
  /// Images of their own kind: a bright patch away from the middle.
  static let set: ImageSet = {
    let (h, w) = (28, 28)
    let pixels = (0..<6).flatMap { n in
      (0..<h * w).map { i -> UInt8 in
        let (y, x) = (i / w, i % w)
        return (6..<16).contains(y) && (9 + n..<14 + n).contains(x) ? UInt8(40 + y * 9 + x) : 0
      }
    }
    return try! ImageSet(
      count: 6, height: h, width: w, channels: 1, pixels: pixels, labels: [0, 1, 2, 3, 4, 5])
  }()

  private func augmented(_ text: String, seed: UInt64 = 1, epoch: Int = 0) throws -> [Float] {
    Self.set.augmented(0..<6, try Augmentation(text), seed: seed, epoch: epoch).values
  }

  @Test func nothingChangesNothing() throws {
    let plain = Self.set.batch(0..<6).images.values
    #expect(Self.set.augmented(0..<6, Augmentation(), seed: 1, epoch: 0).values == plain)
    #expect(try augmented("shift=0,erase=0,sigma=2") == plain)
  }

  @Test func theSameForTheSameSeedAndEpoch() throws {
    let text = "shift=3,rotate=20,scale=0.2,shear=0.2,elastic=1,erase=0.5,mirror"
    let first = try augmented(text)
    #expect(try augmented(text) == first)
    #expect(try augmented(text, seed: 2) != first)
    #expect(try augmented(text, epoch: 1) != first)
    // An image's changes don't depend on what else is in the mini-batch.
    let one = Self.set.augmented([4], try Augmentation(text), seed: 1, epoch: 0).values
    #expect(one == Array(first[4 * 784..<5 * 784]))
  }

  /// The middle of what is drawn, and its values, move as they should.
  private func moments(_ x: ArraySlice<Float>) -> (mass: Double, y: Double, x: Double) {
    var (mass, sy, sx) = (0.0, 0.0, 0.0)
    for (i, value) in x.enumerated() {
      mass += Double(value)
      sy += Double(value) * Double(i / 28)
      sx += Double(value) * Double(i % 28)
    }
    return (mass, sy / mass, sx / mass)
  }

  @Test func shiftsKeepTheirRangeAndTheMass() throws {
    let plain = Self.set.batch(0..<6).images.values
    var furthest = (0.0, 0.0)
    for epoch in 0..<200 {
      let x = try augmented("shift=3", epoch: epoch)
      for n in 0..<6 {
        let (a, b) = (moments(plain[n * 784..<(n + 1) * 784]), moments(x[n * 784..<(n + 1) * 784]))
        #expect(abs(b.mass - a.mass) < 1e-3 * a.mass)
        let (dy, dx) = (b.y - a.y, b.x - a.x)
        #expect(abs(dy) <= 3.001 && abs(dx) <= 3.001)
        furthest = (max(furthest.0, abs(dy)), max(furthest.1, abs(dx)))
      }
    }
    #expect(furthest.0 > 2.9 && furthest.1 > 2.9)
  }

  /// Turning moves the patch on a circle about the middle of the image, scaling along its radius.
  @Test func turnsAndScalesAboutTheMiddle() throws {
    let plain = moments(Self.set.batch([0]).images.values[...])
    func place(_ m: (mass: Double, y: Double, x: Double)) -> (radius: Double, angle: Double) {
      let (y, x) = (m.y - 13.5, m.x - 13.5)
      return ((y * y + x * x).squareRoot(), atan2(y, x))
    }
    let before = place(plain)
    var (widest, largest) = (0.0, 0.0)
    for epoch in 0..<200 {
      func one(_ text: String) throws -> (radius: Double, angle: Double) {
        place(
          moments(
            Self.set.augmented([0], try Augmentation(text), seed: 1, epoch: epoch).values[...]))
      }
      let turned = try one("rotate=30")
      #expect(abs(turned.radius - before.radius) < 0.05)
      let angle = remainder(turned.angle - before.angle, 2 * .pi) * 180 / .pi
      #expect(abs(angle) < 30.5)
      widest = max(widest, abs(angle))
      let scaled = try one("scale=0.2")
      // A tenth of a pixel, which interpolation may move the middle by.
      #expect(abs(remainder(scaled.angle - before.angle, 2 * .pi)) < 0.03)
      #expect(abs(scaled.radius / before.radius - 1) < 0.205)
      largest = max(largest, abs(scaled.radius / before.radius - 1))
    }
    #expect(widest > 28 && largest > 0.18)
  }

  @Test func mirrorsEveryOther() throws {
    let plain = Self.set.batch([0]).images.values
    var mirrored = 0
    for epoch in 0..<200 {
      let x = Self.set.augmented([0], try Augmentation("mirror"), seed: 1, epoch: epoch).values
      if x == plain { continue }
      mirrored += 1
      for i in 0..<784 { #expect(abs(x[i] - plain[i / 28 * 28 + 27 - i % 28]) < 1e-5) }
    }
    #expect((70...130).contains(mirrored))
  }

  @Test func erasesItsShare() throws {
    let bright = try ImageSet(
      count: 1, height: 28, width: 28, channels: 1, pixels: .init(repeating: 255, count: 784),
      labels: [0])
    var (erased, shares) = (0, 0.0)
    for epoch in 0..<400 {
      let x = bright.augmented([0], try Augmentation("erase=0.4"), seed: 3, epoch: epoch).values
      let zeros = x.count { $0 == 0 }
      #expect(x.allSatisfy { $0 == 0 || $0 == 1 })
      if zeros > 0 {
        erased += 1
        shares += Double(zeros) / 784
        #expect(zeros < 784 / 4)
      }
    }
    #expect((120...200).contains(erased))
    #expect(abs(shares / Double(erased) - 0.11) < 0.03)
  }

  /// The displacements have the standard deviation that was asked for: measured on a ramp, whose
  /// values tell where they came from.
  @Test(arguments: [2.0, 4.0]) func elasticDisplacements(sigma: Double) throws {
    let (h, w) = (64, 64)
    let ramp = try ImageSet(
      count: 1, height: h, width: w, channels: 1,
      pixels: (0..<h * w).map { UInt8(4 * ($0 % w)) }, labels: [0])
    var (sum, count, neighbours) = (0.0, 0, 0.0)
    for epoch in 0..<20 {
      let x = ramp.augmented(
        [0], try Augmentation("elastic=0.8,sigma=\(sigma)"), seed: 1, epoch: epoch
      ).values
      for y in 16..<48 {
        for q in 16..<48 {
          func displacement(_ q: Int) -> Double { Double(x[y * w + q]) * 255 / 4 - Double(q) }
          sum += displacement(q) * displacement(q)
          neighbours += displacement(q) * displacement(q + 1)
          count += 1
        }
      }
    }
    let deviation = (sum / Double(count)).squareRoot()
    #expect(abs(deviation - 0.8) < 0.12, "\(deviation)")
    // A field blurred twice by a Gaussian: correlated over its width.
    #expect(abs(neighbours / sum - exp(-1 / (4 * sigma * sigma))) < 0.05)
  }

  @Test func severalChannels() throws {
    let colours = try ImageSet(
      count: 1, height: 9, width: 7, channels: 3,
      pixels: (0..<189).map { UInt8($0 % 3 == 0 ? 100 : $0 % 3 == 1 ? 200 : 50) }, labels: [0])
    let x = colours.augmented(
      [0], try Augmentation("shift=2,rotate=10,elastic=0.5,mirror"), seed: 1, epoch: 0
    ).values
    for i in stride(from: 0, to: 189, by: 3) {
      // What is mixed with the black outside is mixed alike.
      #expect(abs(x[i + 1] - 2 * x[i]) < 1e-4 && abs(x[i] - 2 * x[i + 2]) < 1e-4)
    }
  }

  // MARK: Colours, and what is cut

  /// Neither square nor of one colour, and nowhere black.
  private static let coloured = try! ImageSet(
    count: 2, height: 9, width: 7, channels: 3,
    pixels: (0..<378).map { UInt8(40 + $0 * 37 % 170) }, labels: [0, 1])

  private func coloured(_ text: String, _ epoch: Int) throws -> [Float] {
    Self.coloured.augmented([1], try Augmentation(text), seed: 9, epoch: epoch).values
  }

  /// Whole pixels from the image with its border, each place as often as the others.
  @Test func cropsWholePixels() throws {
    let plain = Self.coloured.batch([1]).images.values
    var places: [[Int]: Int] = [:]
    for epoch in 0..<500 {
      let x = try coloured("crop=2", epoch)
      let fits = (-2...2).flatMap { down in (-2...2).map { [down, $0] } }.filter { place in
        (0..<189).allSatisfy { i in
          let (row, column) = (i / 21 - place[0], i / 3 % 7 - place[1])
          let inside = (0..<9).contains(row) && (0..<7).contains(column)
          return x[i] == (inside ? plain[(row * 7 + column) * 3 + i % 3] : 0)
        }
      }
      #expect(fits.count == 1)
      places[fits.first ?? [], default: 0] += 1
    }
    #expect(places.count == 25 && places.values.allSatisfy { (5...40).contains($0) })
  }

  /// By the formulas of torchvision's ColorJitter, one factor an image.
  @Test func coloursChange() throws {
    let plain = Self.coloured.batch([1]).images.values
    func grey(_ x: [Float], _ i: Int) -> Float {
      let p = i / 3 * 3
      return 0.299 * x[p] + 0.587 * x[p + 1] + 0.114 * x[p + 2]
    }
    let mean = (0..<63).map { grey(plain, 3 * $0) }.reduce(0, +) / 63
    for (name, rest) in [
      ("brightness", { _ in 0 }), ("contrast", { _ in mean }), ("saturation", { grey(plain, $0) }),
    ] as [(String, (Int) -> Float)] {
      var (least, largest) = (Float(2), Float(0))
      for epoch in 0..<200 {
        let x = try coloured("\(name)=0.3", epoch)
        // From the pixel that differs most from what stays.
        let i = plain.indices.max { abs(plain[$0] - rest($0)) < abs(plain[$1] - rest($1)) }!
        guard x[i] > 0 && x[i] < 1 else { continue }
        let factor = (x[i] - rest(i)) / (plain[i] - rest(i))
        (least, largest) = (min(least, factor), max(largest, factor))
        for i in plain.indices {
          let expected = min(1, max(0, plain[i] * factor + rest(i) * (1 - factor)))
          #expect(abs(x[i] - expected) < 1e-4, "\(name), epoch \(epoch)")
        }
      }
      #expect(least >= 0.699 && least < 0.75 && largest > 1.15 && largest <= 1.301, "\(name)")
    }
    // A grey image has no saturation to change.
    #expect(
      Self.set.augmented([0], try Augmentation("saturation=1"), seed: 1, epoch: 0).values
        == Self.set.batch([0]).images.values)
  }

  @Test func cutsOutASquare() throws {
    let plain = Self.coloured.batch([1]).images.values
    var (whole, corners) = (0, 0)
    for epoch in 0..<400 {
      let x = try coloured("cutout=4", epoch)
      let dark = (0..<63).filter { x[3 * $0] == 0 }
      let (rows, columns) = (Set(dark.map { $0 / 7 }), Set(dark.map { $0 % 7 }))
      #expect(rows.count * columns.count == dark.count && rows.count <= 4 && columns.count <= 4)
      #expect((2...4).contains(rows.count) && (2...4).contains(columns.count))
      for i in plain.indices { #expect(x[i] == (dark.contains(i / 3) ? 0 : plain[i])) }
      if dark.count == 16 { whole += 1 }
      if dark.contains(0) { corners += 1 }
    }
    // Its middle is anywhere: inside in 6 of 9 rows and 4 of 7 columns, over the corner in 3 and 3.
    #expect((110...195).contains(whole) && (35...80).contains(corners), "\(whole), \(corners)")
  }

  @Test func anyNumberOfThreadsAndNoEffectOnEvaluation() throws {
    let sample = try NetworkTests.sample.get()
    let data = try Dataset(
      name: "x", source: "x", train: sample.train.prefix(300), test: sample.test.prefix(100))
    var settings = TrainingSettings()
    (settings.epochs, settings.batchSize) = (2, 50)
    func run(_ threads: Int, _ augment: String?) throws -> (String, Float) {
      settings.augmentation = try augment.map { try Augmentation($0) }
      let network = Network(
        try Architecture.layers("conv(4,5,stride=2) flatten softmax(10)"),
        runtime: Runtime(threads: threads))
      let trainer = try Trainer(network, data, settings)
      try trainer.run()
      return (
        network.snapshot().sha256, try network.evaluate(data.test).cce - trainer.results[1].testCCE
      )
    }
    let text =
      "shift=2,rotate=10,elastic=1,erase=0.5,crop=3,brightness=0.3,contrast=0.2,cutout=5"
    let results = try [1, 2, 3].map { try run($0, text) }
    #expect(Set(results.map(\.0)).count == 1)
    #expect(results.allSatisfy { $0.1 == 0 })
    #expect(try run(2, nil).0 != results[0].0)
  }

  @Test(arguments: [
    "", "shift", "shift=x", "shift=-1", "shift=65", "rotate=nan", "tilt=3", "mirror=1",
    "shift=1,,erase=1",
    "shift=1,shift=2", "sigma=0", "erase=1.5", "brightness=1.1", "crop=-1", "cutout=nan",
  ])
  func wrongText(text: String) {
    let error = #expect(throws: StrideNetError.self) { try Augmentation(text) }
    #expect(error?.kind == .usage && error?.place?.contains("'\(text)'") == true)
  }

  @Test func textAndBack() throws {
    let text =
      "shift=2.0,rotate=10.0,elastic=0.5,sigma=3.0,crop=4.0,saturation=0.2,cutout=8.0,mirror"
    #expect(try Augmentation(text).description == text)
    for plain in ["sigma=4", "shift=0,rotate=0"] {
      let augmentation = try Augmentation(plain)
      #expect(try Augmentation(augmentation.description) == augmentation)
    }
  }
}

@Suite struct PNGTests {
  static let path: @Sendable (String) -> String = { name in
    FileManager.default.temporaryDirectory.appending(path: "stridenet-\(UUID())-\(name)").path
  }

  /// A digit as a picture of another size, on paper or inverted, off the middle.
  private func picture(
    _ x: Tensor, zoom: Int, dark: Bool, off: (Int, Int), photographed: Bool = false
  ) -> Picture {
    let (h, w) = (28 * zoom + 40, 28 * zoom + 30)
    var pixels = [UInt8](repeating: dark ? 10 : 250, count: h * w)
    for y in 0..<28 * zoom {
      for q in 0..<28 * zoom {
        let ink = x[0, y / zoom, q / zoom, 0]
        pixels[(y + off.0) * w + q + off.1] = UInt8(dark ? 10 + 240 * ink : 250 - 240 * ink)
      }
    }
    // A photograph is darker to one side, and has grain.
    var random = SeededGenerator(seed: 1)
    for i in pixels.indices where photographed {
      let light = 0.95 - 0.1 * Float(i % w) / Float(w)
      pixels[i] = UInt8(max(0, min(255, Float(pixels[i]) * light + 4 * random.normal())))
    }
    return Picture(height: h, width: w, channels: 1, pixels: pixels)
  }

  @Test func writtenAndRead() throws {
    for channels in [1, 3] {
      let image = Picture(
        height: 5, width: 7, channels: channels,
        pixels: (0..<35 * channels).map { UInt8(($0 * 37) % 256) })
      let path = Self.path("a.png")
      defer { try? FileManager.default.removeItem(atPath: path) }
      try PNG.write(image, to: path)
      #expect(Picture.isFile(path))
      let read = try PNG.read(at: path)
      #expect((read.height, read.width, read.channels) == (5, 7, 3))
      let expected =
        channels == 3 ? image.pixels : image.pixels.flatMap { [$0, $0, $0] }
      #expect(read.pixels == expected)
    }
  }

  /// Digits drawn larger, off the middle, in either colour: recognised about as well as the originals.
  @Test func recognisedInAnySizeAndColour() throws {
    let sample = try NetworkTests.sample.get()
    let network = Network(
      try Architecture.layers("conv(8,5,stride=2) flatten relu(32) softmax(10)"))
    for batch in try NetworkTests.batches(150, of: 64) {
      try network.train(batch, learningRate: 0.05, momentum: 0.9)
    }
    let shape = Shape(28, 28, 1)
    var right = [0, 0, 0, 0]
    for i in 0..<200 {
      let x = sample.test.batch([i]).images
      let ways = [
        x, try picture(x, zoom: 5, dark: false, off: (3, 25)).fitted(to: shape),
        try picture(x, zoom: 3, dark: true, off: (38, 1)).fitted(to: shape),
        try picture(x, zoom: 5, dark: false, off: (20, 9), photographed: true).fitted(to: shape),
      ]
      for (way, input) in ways.enumerated() {
        let output = try network.predict(input)
        let best = (0..<10).max { output[$0] < output[$1] }!
        right[way] += best == Int(sample.test.labels[i]) ? 1 : 0
      }
    }
    #expect(right[0] > 180 && right.allSatisfy { $0 > right[0] - 12 }, "\(right)")
  }

  @Test func centredByMass() throws {
    let x = try NetworkTests.sample.get().test.batch([4]).images
    let fitted = try picture(x, zoom: 4, dark: false, off: (0, 29)).fitted(to: Shape(28, 28, 1))
    var (mass, y, q) = (0.0, 0.0, 0.0)
    for i in 0..<784 {
      mass += Double(fitted[i])
      y += Double(fitted[i]) * Double(i / 28)
      q += Double(fitted[i]) * Double(i % 28)
    }
    #expect(abs(y / mass - 14) <= 0.51 && abs(q / mass - 14) <= 0.51)
    let rows = (0..<28).filter { r in (0..<28).contains { fitted[0, r, $0, 0] > 0 } }
    let columns = (0..<28).filter { c in (0..<28).contains { fitted[0, $0, c, 0] > 0 } }
    #expect(max(rows.last! - rows.first!, columns.last! - columns.first!) + 1 == 20)
  }

  @Test func resizingKeepsMeans() {
    let x = (0..<60).map { Float($0) }
    #expect(Picture.resized(x, (6, 10), 1, to: (6, 10)) == x)
    let half = Picture.resized(x, (6, 10), 1, to: (3, 5))
    #expect(half[0] == 5.5 && half[14] == 53.5)
    let odd = Picture.resized(x, (6, 10), 1, to: (4, 7))
    #expect(abs(odd.reduce(0, +) / 28 - 29.5) < 1e-3)
    #expect(Picture.resized([3], (1, 1), 1, to: (2, 3)) == .init(repeating: 3, count: 6))
  }

  /// Cut off anywhere or with any byte changed: an error or a picture, never a crash.
  @Test func brokenFiles() throws {
    let image = Picture(
      height: 9, width: 8, channels: 3, pixels: (0..<216).map { UInt8($0) })
    let path = Self.path("broken.png")
    defer { try? FileManager.default.removeItem(atPath: path) }
    let bytes = try PNG.encode(image)
    func read(_ bytes: [UInt8]) throws -> Picture {
      try Data(bytes).write(to: URL(filePath: path))
      return try PNG.read(at: path)
    }
    #expect(try read(bytes) == image)
    for count in 0..<bytes.count - 12 {
      #expect(throws: StrideNetError.self) { try read(Array(bytes.prefix(count))) }
    }
    var wrong = 0
    for place in bytes.indices {
      var changed = bytes
      changed[place] ^= 0x55
      if (try? read(changed)) == nil { wrong += 1 }
    }
    #expect(wrong > bytes.count / 2)
    // Far too large, by its header.
    var huge = bytes
    huge.replaceSubrange(16..<20, with: [0x7F, 0xFF, 0xFF, 0xFF])
    #expect(throws: StrideNetError.self) { try read(huge) }
  }

  @Test func blankPaperIsNoDigit() {
    let blank = Picture(
      height: 40, width: 40, channels: 1, pixels: .init(repeating: 240, count: 1600))
    #expect(throws: StrideNetError.self) { try blank.fitted(to: Shape(28, 28, 1)) }
  }

  @Test func onTheCommandLine() throws {
    let place = try Workplace()
    try place.writeWeights("w", "flatten softmax(10)")
    let image = Picture(
      height: 30, width: 20, channels: 1,
      pixels: (0..<600).map { (5..<20).contains($0 / 20) && (8..<11).contains($0 % 20) ? 20 : 230 })
    try PNG.write(image, to: "\(place.path)/one.png")
    let end = try place.run("predict", "w", "one.png", "--save-input", "seen.png", "--json")
    #expect(end.code == 0 && end.json.count == 1, "\(end.err)")
    #expect((end.json[0]["probabilities"] as? [Double])?.count == 10)
    let seen = try PNG.read(at: "\(place.path)/seen.png")
    #expect((seen.height, seen.width) == (8, 8) && seen.pixels.max()! > 200)
    for label in [1, 7] {
      try FileManager.default.createDirectory(
        atPath: "\(place.path)/drawn/\(label)", withIntermediateDirectories: true)
      try PNG.write(image, to: "\(place.path)/drawn/\(label)/a.png")
    }
    let measured = try place.run("evaluate", "w", "--pictures", "drawn", "--json")
    #expect(measured.code == 0 && measured.json[0]["test_images"] as? Int == 2, "\(measured.err)")
    let sheet = try place.run("augment", "shift=1", "--data", "digits", "--out", "sheet.png")
    #expect(sheet.code == 0 && Picture.isFile("\(place.path)/sheet.png"), "\(sheet.err)")
    for (arguments, what) in [
      (["predict", "w", "one.png", "one.png", "--save-input", "x.png"], "one picture"),
      (["predict", "w", "one.png", "--save-input", "none/x.png"], "none"),
      (["evaluate", "w", "--pictures", "empty"], "no pictures"),
      (["evaluate", "w", "--pictures", "drawn", "--data", "digits"], "two sets"),
      (["predict", "w", "one.png", "--image-size", "9"], "--image-size means nothing"),
      (["predict", "w", "one.png", "--strict"], "--strict means nothing"),
      (["evaluate", "w", "--pictures", "drawn", "--colour", "rgb"], "--colour means nothing"),
      (["augment", "turn=3", "--out", "x.png"], "turn=3"),
    ] {
      let refused = try place.run(arguments)
      #expect(
        refused.code != 0 && !refused.wasKilled && refused.err.contains(what), "\(refused.err)")
    }
  }
}
