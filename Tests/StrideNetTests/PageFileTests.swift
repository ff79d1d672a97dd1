import Foundation
import Testing

import StrideNet
@testable import StrideNetFiles

/// `stridenet export page.html`: the page of `serve` as a file, which runs the kernels in a browser.
@Suite(.serialized) struct PageFileTests {
  /// The kernels in the package are those of the sources.
  @Test func kernelsAreMadeOfTheSources() throws {
    let folders = ["CKernels", "CKernels/include", "Sources/Pages/wasm"]
    let files = try folders.flatMap { folder in
      try FileManager.default.contentsOfDirectory(
        atPath: Documents.root.appending(path: folder).path
      ).filter { $0.contains(".") }.map { "\(folder)/\($0)" }
    }
    var digest = SHA256()
    for file in files.sorted() {
      digest.update([UInt8](try Data(contentsOf: Documents.root.appending(path: file))))
    }
    let kernels = try Data(
      contentsOf: Documents.root.appending(path: "Sources/Pages/files/kernels.wasm"))
    #expect(
      kernels.range(of: Data("sources \(digest.hex)".utf8)) != nil,
      "CKernels has changed: make wasm")
  }

  /// A network's page in a folder.
  private static func export(
    _ network: Network = .digits(), _ arguments: [String] = [],
    prepare: (Workplace) throws -> Void = { _ in }
  ) throws -> Workplace {
    let place = try Workplace()
    try prepare(place)
    try network.save(to: place.path + "/w")
    let end = try place.run(["export", "w", "page.html"] + arguments)
    #expect(end.code == 0 && end.err.isEmpty, "\(end.err)")
    return place
  }

  /// The page in a browser without a network.
  private static func open(_ place: Workplace, width: Int = 1280, dark: Bool = false) throws
    -> Browser
  {
    let browser = try Browser(width: width, height: 900, dark: dark)
    browser.owned = place
    try browser.send(
      "Network.emulateNetworkConditions",
      ["offline": true, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1])
    try browser.visit("file://\(place.path)/page.html")
    return browser
  }

  @Test func theFile() throws {
    let place = try Self.export()
    let page = String(decoding: try place.read("page.html"), as: UTF8.self)
    #expect(page.utf8.count < 1_200_000)
    #expect(!page.contains("/*STYLE*/") && !page.contains("<!--ENGINE-->"))
    let addresses = page.matches(of: /https?:\/\/[^"'` )]+/).map { String($0.0) }
    #expect(Set(addresses) == ["http://www.w3.org/2000/svg"])
    let end = try place.run("export", "w", "page.html")
    #expect(
      end.out.contains("MB, with 2,000 training and 500 test images of the built-in sample"),
      "\(end.out)")
  }

  @Test(.enabled(if: Browser.path != nil, "there is no Chromium on this machine"))
  func thePageWithoutAServer() throws {
    let browser = try Self.open(Self.export())
    try PageVisitor(browser: browser, mistakes: 3).useAll()
    #expect(browser.complaints.isEmpty, "\(browser.complaints)")
    #expect(
      browser.requests.allSatisfy { request in
        ["file://", "about:", "blob:", "data:"].contains { request.hasPrefix($0) }
      },
      "\(browser.requests)")
  }

  /// What the file's scripts compute in the browser is what the library does: outputs and gradients
  /// of 200 images with each kernel variant, and how drawings become images.
  @Test(.enabled(if: Browser.path != nil, "there is no Chromium on this machine"))
  func resultsAreTheLibrarys() throws {
    let browser = try Self.open(Self.export())
    try browser.wait("typeof rows !== 'undefined' && rows.length && seen")
    let scripts = try ["network", "engine"].map {
      try Documents.text("Sources/Pages/files/\($0).js")
    }
    try browser.value(
      """
      window.here = (() => { \(scripts.joined()); return { unpack, Network, fitted, numbers } })();
      (async () => {
        const file = here.file = await here.unpack(JSON.parse($("packed").textContent));
        const network = here.network = new here.Network(file.module, file.network, file.input, file.normalization);
        network.values = file.weights;
        here.floats = (at, count) => base64(network.k.floats(at, count));
        here.run = (kernels) => {
          network.kernels = kernels;
          network.reserve(200, true);
          network.load(file.test.pixels, 0, 200, 1 / 255);
          const { loss, error } = network.backward(200, file.test.labels.subarray(0, 200));
          return [loss, error, here.floats(network.operations.at(-1).y, 2000), ...network.parameters.map((p) => here.floats(p.gradient, p.count))];
        };
      })()
      """)
    let network = Network.digits(runtime: Runtime(kernels: .exact))
    let batch = try Dataset.load("sample").test.batch(0..<200)
    let output = try network.predict(batch.images).values
    let loss = try #require(try network.trace(batch).loss)
    let gradient = network.lastGradient
    let largest = gradient.map(abs).max()!
    let variants = try #require(try browser.value("here.network.variants") as? [String])
    #expect(variants == KernelChoice.names.filter { $0 != "exact" })
    for variant in variants {
      let answer = try #require(try browser.value("here.run('\(variant)')") as? [Any])
      let arrays = try answer.dropFirst(2).map { try floats($0) }
      expectClose(arrays[0], output, within: 1e-5, "\(variant): outputs")
      expectClose(
        arrays.dropFirst().flatMap { $0 }, gradient, within: 1e-5 * largest, "\(variant): gradient")
      let found = try #require((answer[0] as? NSNumber)?.floatValue)
      #expect(abs(found - loss) < 1e-5 * loss, "\(variant)")
    }

    // A thick stroke, off the middle; and the same as the fits for other pictures take it.
    var pixels = [UInt8](repeating: 0, count: 140 * 140)
    for i in 0..<90 { for j in 0..<12 { pixels[(20 + i) * 140 + 30 + i / 2 + j] = UInt8(155 + i) } }
    let picture = Picture(height: 140, width: 140, channels: 1, pixels: pixels)
    let drawing =
      "{ width: 140, height: 140, pixels: bytes('\(Data(pixels).base64EncodedString())') }"
    func fitted(_ shape: String, _ fit: String) throws -> [Float] {
      try floats(try browser.value("base64(here.fitted(\(drawing), \(shape), \(fit)))"))
    }
    let digit = try picture.fitted(to: Shape(28, 28, 1)).values
    expectClose(try fitted("[28, 28, 1]", "null"), digit, within: 1e-5, "digit")
    for fit in Picture.Fit.allCases {
      for shape in [Shape(28, 28, 1), Shape(20, 32, 1), Shape(32, 20, 3)]
      where fit != .digits || shape.channels == 1 {
        let expected = try picture.fitted(to: shape, fit).pixels.map { Float($0) / 255 }
        let found = try fitted(
          "[\(shape.height), \(shape.width), \(shape.channels)]", "'\(fit.rawValue)'")
        // A byte up or down, where a value lies between two.
        expectClose(found, expected, within: 1.01 / 255, "\(fit) into \(shape)")
      }
    }
  }

  private func floats(_ text: Any?) throws -> [Float] {
    let data = try #require((text as? String).flatMap { Data(base64Encoded: $0) })
    return data.withUnsafeBytes { Array($0.bindMemory(to: Float.self)) }
  }

  /// A network as large as the presets learns, without keeping the page from anything; in the dark, on
  /// a phone, where nothing is to move.
  @Test(.enabled(if: Browser.path != nil, "there is no Chromium on this machine"))
  func trainingInTheFile() throws {
    let browser = try Self.open(Self.export(), width: 390, dark: true)
    try browser.send(
      "Emulation.setEmulatedMedia",
      [
        "features": [
          ["name": "prefers-color-scheme", "value": "dark"],
          ["name": "prefers-reduced-motion", "value": "reduce"],
        ]
      ])
    try browser.wait("typeof seen !== 'undefined' && seen && rows.length === 7")
    #expect(try !browser.scrollsSideways())
    try browser.value(
      """
      const frames = [];
      (function frame(now) { frames.push(now); requestAnimationFrame(frame); })(performance.now());
      $('text').value = 'conv(8,5) relu(1)';
      $('train').click();
      """)
    try browser.wait("$('failure').textContent.includes('put a flatten layer before it')")
    try browser.value(
      """
      $('text').value = machine.presets.lenet; $('augment').value = 'shift=1,rotate=5';
      $('epochs').value = 3; $('train').click()
      """)
    // The digit is looked into meanwhile.
    try browser.wait("points.length > 2 && $('stop').disabled === false && seen.weights > 2")
    try browser.wait("epochs.length === 3 && !$('train').disabled")
    #expect(try browser.holds("epochs.at(-1).test_error < 0.12"))
    #expect(try browser.holds("epochs.every((e) => e.images_per_second > 0)"))
    // The page goes on, whatever else the machine does.
    #expect(
      try browser.value(
        "ask('training').then((t) => Math.max(...frames.slice(1).map((now, i) => now - frames[i])) < Math.max(1000, 300 * t.seconds))"
      ) as? Bool == true)
    for (layers, phrase) in [
      ("residual(conv(8,3)) flatten softmax(10)", "differ in size"),
      ("flatten dense(10)", "softmax"),
      ("flatten softmax(3)", "a label"), ("conv(64,29)", "larger"),
      ("flatten softmx(3)", "unknown"),
      ("conv(4000,3) conv(4000,3) flatten softmax(10)", "too large"), ("", "no layers"),
      ("flatten relu(16777216) softmax(10)", "too large"), ("conv(", "closed"),
    ] {
      try browser.value(
        "$('failure').hidden = true; $('text').value = '\(layers)'; $('train').click()")
      try browser.wait("!$('failure').hidden")
      #expect(try browser.text("$('failure').textContent").contains(phrase), "\(layers)")
    }
    #expect(browser.complaints.isEmpty, "\(browser.complaints)")
  }

  /// In colour, without probabilities, with all that such a network may have, and with names that are
  /// no HTML.
  @Test(.enabled(if: Browser.path != nil, "there is no Chromium on this machine"))
  func otherNetworks() throws {
    let layers =
      "conv(4,3x2,padding=same,stride=2x1,activation=gelu) avgpool(2) dropout(0.2) conv(6,3,dilation=2,groups=2,padding=1,activation=leaky_relu,slope=0.2) globalavgpool dense(3,activation=tanh)"
    let network = Network(try Architecture.layers(layers), seed: 3)
    network.normalization = try InputNormalization(
      mean: [0.5, 0.4, 0.3], deviation: [0.2, 0.3, 0.4])
    try network.build(for: Shape(12, 16, 3))
    let (pixels, labels) = (
      (0..<40 * 576).map { UInt8(truncatingIfNeeded: $0 &* 2_654_435_761 >> 7) },
      (0..<40).map { UInt16($0 % 3) }
    )
    let set = try ImageSet(
      count: 40, height: 12, width: 16, channels: 3, pixels: pixels, labels: labels)
    let names = ["</script><b>", "<!--", "\"&\\"]
    let place = try Self.export(network, ["--data", "set.npz"]) {
      try Dataset(
        name: "set", source: "colours", train: set, test: set, classNames: names
      ).save(to: $0.path + "/set.npz")
    }
    let browser = try Self.open(place, width: 390)
    try browser.wait("typeof seen !== 'undefined' && seen && rows.length === 6")
    let found = try #require(try browser.value("seen.probabilities") as? [NSNumber])
    expectClose(
      found.map(\.floatValue), try network.predict(set.batch([0]).images).values, within: 1e-5,
      "outputs")
    #expect(try browser.value("machine.classes") as? [String] == names)
    #expect(try browser.text("$('bars').textContent").contains(names[0]))
    // Numbers, not percentages; drawing works, and clearing leaves nothing.
    #expect(try !browser.text("$('bars').textContent + $('sure').textContent").contains("%"))
    #expect(try !browser.scrollsSideways() && browser.holds("innerWidth === 390"))
    try browser.value("$('clear').click()")
    #expect(
      try browser.holds(
        "$('seen').getContext('2d').getImageData(0, 0, 16, 12).data.every((v) => v === 0)"))
    try browser.drag("pad", [(0.2, 0.2), (0.8, 0.8)])
    try browser.wait("seen && seen.label == null && seen.values.length === 576")
    for layer in 0..<6 {
      try browser.value("rows[\(layer)].cursor = { y: 0, x: 0, c: 1 }; explain(rows[\(layer)])")
      try browser.wait(
        "$('explain-title').textContent.startsWith('Layer \(layer + 1),') && $('explain-body').textContent.includes('Both agree')"
      )
    }
    try browser.value("$('train').click()")
    try browser.wait("!$('failure').hidden && $('failure').textContent.includes('softmax')")
    #expect(browser.complaints.isEmpty, "\(browser.complaints)")
  }
}
