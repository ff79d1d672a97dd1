import Foundation
import Testing

import StrideNet
@testable import StrideNetFiles

/// What a page without a server computes of normalisations, residual connections and poolings with
/// padding, beside what the library does.
@Suite(
  .serialized, .enabled(if: Browser.path != nil, "there is no Chromium on this machine"))
struct EnginePageTests {
  private static let networks: [(layers: String, input: Shape)] = [
    ("resnet", Shape(13, 11, 3)), ("mobilenet", Shape(9, 12, 1)), ("vgg", Shape(10, 9, 1)),
    (
      "conv(4,3,padding=1,activation=none) batchnorm(activation=relu) maxpool(3,stride=2,padding=1) flatten softmax(4)",
      Shape(7, 5, 1)
    ),
    (
      "batchnorm conv(5,3,activation=none) layernorm activation(gelu) avgpool(3x2,stride=2x1,padding=1x0,ceil_mode=true,count_include_pad=false) flatten layernorm(1e-3) softmax(4)",
      Shape(9, 8, 3)
    ),
    (
      "conv(6,3,stride=2,padding=1,activation=none) batchnorm(activation=leaky_relu,slope=0.2,momentum=0.3,epsilon=0.001) residual(conv(6,3,padding=1,activation=none) batchnorm(activation=silu) conv(6,1,activation=none) batchnorm) activation(relu) residual(conv(8,3,stride=2,padding=1,groups=2) | avgpool(1,stride=2) conv(8,1,activation=none)) residual(residual(layernorm | batchnorm) activation(tanh)) globalavgpool softmax(4)",
      Shape(11, 7, 3)
    ),
    (
      "residual(flatten relu(20) | avgpool(1) conv(1,1) flatten) batchnorm softmax(4)",
      Shape(4, 5, 3)
    ),
    (
      "avgpool(3,stride=2,padding=same) avgpool(3,stride=2,padding=0x1x1x0,ceil_mode=true) residual(activation(sigmoid)) maxpool(2,ceil_mode=true) flatten softmax(4)",
      Shape(11, 10, 3)
    ),
    ("residual(layernorm) conv(1,1) batchnorm batchnorm softmax(4)", Shape(1, 1, 3)),
    ("residual(dense(5) layernorm) batchnorm(activation=softmax)", Shape(1, 1, 5)),
  ]

  private static func network(_ layers: String, _ input: Shape, seed: UInt64 = 5) throws -> Network
  {
    let text = Architecture.presets.first { $0.name == layers }?.text ?? layers
    let network = Network(
      try Architecture.layers(text), seed: seed, runtime: Runtime(kernels: .exact))
    try network.build(for: input)
    // Running statistics and normalisations that aren't 0 and 1.
    for (number, (name, _)) in network.arrays.enumerated() {
      let values = try network.weights(name)
      guard values.allSatisfy({ $0 == values[0] }) else { continue }
      try network.setWeights(
        name, values.indices.map { values[$0] + 0.2 * sin(Float(7 * number + $0 + 1)) })
    }
    return network
  }

  private static func open(_ network: Network, _ arguments: [String] = [], width: Int = 1280)
    throws -> Browser
  {
    let place = try Workplace()
    try network.save(to: place.path + "/w")
    let shape = network.input!
    let count = 40 * shape.count
    let set = try ImageSet(
      count: 40, height: shape.height, width: shape.width, channels: shape.channels,
      pixels: (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 2_654_435_761 >> 7) },
      labels: (0..<40).map { UInt16($0 % 4) })
    try Dataset(name: "set", source: "made up", train: set, test: set, classNames: [])
      .save(to: place.path + "/set.npz")
    let end = try place.run(["export", "w", "page.html", "--data", "set.npz"])
    #expect(end.code == 0 && end.err.isEmpty, "\(end.err)")
    let browser = try Browser(width: width, height: 900)
    browser.owned = place
    try browser.visit("file://\(place.path)/page.html")
    try browser.wait("typeof seen !== 'undefined' && seen && rows.length")
    return browser
  }

  private func floats(_ text: Any?) throws -> [Float] {
    let data = try #require((text as? String).flatMap { Data(base64Encoded: $0) })
    return data.withUnsafeBytes { Array($0.bindMemory(to: Float.self)) }
  }
  private func base64(_ values: [Float]) -> String {
    values.withUnsafeBytes { Data($0) }.base64EncodedString()
  }

  /// Outputs, the gradients of a mini-batch with each kernel variant, and the weights and running
  /// statistics after some steps.
  @Test func resultsAreTheLibrarys() throws {
    let browser = try Self.open(try Self.network("flatten batchnorm softmax(4)", Shape(3, 3, 1)))
    let scripts = try ["network", "engine"].map {
      try Documents.text("Sources/Pages/files/\($0).js")
    }
    try browser.value(
      """
      window.here = (() => { \(scripts.joined()); return { unpack, Network, optimizers } })();
      (async () => {
        const { module } = await here.unpack(JSON.parse($("packed").textContent));
        let network;
        const x = (text) => floats(text), labels = (count) => Int32Array.from({ length: count }, (_, i) => i % network.classes);
        here.make = (text, input, weights) => {
          network = new here.Network(module, text, input, null);
          network.values = floats(weights);
          return [network.variants, network.text];
        };
        here.predict = (images, count) => {
          network.load(floats(images), 0, count);
          network.forward(count);
          return base64(network.output(network.operations.at(-1), count));
        };
        here.gradient = (kernels, images, count) => {
          network.kernels = kernels;
          network.reserve(count, true, true);
          network.load(floats(images), 0, count);
          const { statistics } = network, { loss } = network.backward(count, labels(count));
          network.statistics = statistics;
          return [loss, base64(network.k.floats(network.imageGradient, floats(images).length)), ...network.parameters.filter((p) => p.isTrained).map((p) => base64(network.k.floats(p.gradient, p.count)))];
        };
        here.train = (rule, rate, images, count, steps) => {
          network.kernels = "auto";
          for (let step = 1; step <= steps; step++) {
            network.load(floats(images), 0, count);
            network.backward(count, labels(count));
            network.update(here.optimizers[rule], rate, step);
          }
          return base64(network.values);
        };
      })()
      """)
    for (layers, shape) in Self.networks {
      let network = try Self.network(layers, shape)
      let count = 7
      let images = try Tensor(
        batch: count, shape: shape, (0..<count * shape.count).map { sin(Float($0 * $0 % 1009)) })
      let batch = Batch(images: images, labels: (0..<count).map { $0 % network.classes })
      let sent = "'\(base64((0..<images.count).map { images[$0] }))', \(count)"
      let made = try #require(
        try browser.value(
          "here.make('\(Architecture.text(network.layers))', [\(shape.height), \(shape.width), \(shape.channels)], '\(base64(network.snapshot().values))')"
        ) as? [Any])
      #expect(made[1] as? String == Architecture.text(network.layers))
      expectClose(
        try floats(try browser.value("here.predict(\(sent))")), try network.predict(images).values,
        within: 1e-5, "\(layers): outputs")
      let trace = try network.trace(batch)
      let names = network.arrays.map(\.name).filter { !$0.contains("running_") }
      let gradient = try names.flatMap { try network.gradient($0) }
      let inputGradient = try #require(trace.inputGradient).values
      let largest = gradient.map(abs).max()!
      for variant in try #require(made[0] as? [String]) {
        let answer = try #require(
          try browser.value("here.gradient('\(variant)', \(sent))") as? [Any])
        let loss = try #require((answer[0] as? NSNumber)?.floatValue)
        #expect(abs(loss - trace.loss!) < 1e-5 * max(1, loss), "\(layers), \(variant)")
        expectClose(
          try floats(answer[1]), inputGradient, within: 1e-5 * inputGradient.map(abs).max()!,
          "\(layers), \(variant): gradient of the images")
        expectClose(
          try answer.dropFirst(2).flatMap { try floats($0) }, gradient, within: 1e-5 * largest,
          "\(layers), \(variant): gradient")
      }
      for (rule, rate, bound) in [("sgd", 0.01, 1e-4), ("adam", 1e-4, 1e-3)]
        as [(String, Float, Float)]
      {
        let copy = try network.copy()
        let optimizer = Optimizer(try .init(named: rule))
        for _ in 0..<4 { try copy.train(batch, learningRate: rate, optimizer: optimizer) }
        _ = try browser.value(
          "here.make('\(Architecture.text(network.layers))', [\(shape.height), \(shape.width), \(shape.channels)], '\(base64(network.snapshot().values))')"
        )
        try browser.value("here.predict(\(sent))")
        // Where a gradient is no more than rounding, Adam, which divides by its size, makes steps of it.
        let found = try floats(
          try browser.value(
            "here.gradient('auto', \(sent)), here.train('\(rule)', \(rate), \(sent), 4)"))
        expectClose(
          found, copy.snapshot().values, within: bound, "\(layers): weights after \(rule)")
      }
    }
    #expect(browser.complaints.isEmpty, "\(browser.complaints)")
  }

  /// Each layer's values are explained, the strongest paths are the library's, and a step from an image
  /// moves running statistics, which its gradients alone don't.
  @Test func answersAreTheLibrarys() throws {
    for (layers, shape) in Self.networks.dropFirst(3) where layers.hasSuffix("softmax(4)") {
      let network = try Self.network(layers, shape)
      let browser = try Self.open(network)
      let x = try Tensor(
        batch: 1, shape: shape, floats(try browser.value("base64(seen.values)")))
      let trace = try network.trace(x)
      #expect(try browser.value("machine.parameters") as? Int == network.parameterCount)
      for (index, layer) in trace.layers.enumerated() {
        let size = layer.output.shape
        for place in Set([
          Provenance.Place(0, 0, 0),
          .init(size.height - 1, size.width - 1, size.channels - 1),
          .init(size.height / 2, size.width / 2, size.channels / 2),
        ]) {
          let expected = try network.provenance(in: trace, layer: index + 1, at: place)
          let found = try #require(
            try browser.value(
              "ask('provenance', { input: { test: 0 }, layer: \(index + 1), at: [\(place.row), \(place.column), \(place.channel)] })"
            ) as? [String: Any])
          let what = "\(layers), layer \(index + 1), \(place)"
          #expect(found["agrees"] as? Bool == true, "\(what)")
          #expect(found["kind"] as? String == expected.kind, "\(what)")
          let terms = try #require(found["terms"] as? [[String: Any]])
          #expect(terms.count == expected.terms.count, "\(what)")
          func numbers(_ key: String) -> [Float] {
            terms.map { ($0[key] as? NSNumber)?.floatValue ?? .nan }
          }
          expectClose(
            numbers("factor"), expected.terms.map(\.factor), within: 1e-5, "\(what): factors")
          expectClose(
            numbers("product"), expected.terms.map { Float($0.product) }, within: 1e-4, "\(what)")
          #expect(
            terms.compactMap { $0["from"] as? [Int] }
              == expected.terms.map { [$0.from.row, $0.from.column, $0.from.channel] }, "\(what)")
        }
        try browser.value(
          "rows[\(index)].cursor = { y: 0, x: 0, c: 0 }; explain(rows[\(index)])")
        try browser.wait(
          "$('explain-title').textContent.startsWith('Layer \(index + 1),') && $('explain-body').textContent.includes('Both agree')"
        )
      }
      let output = trace.output.values
      let best = output.indices.max { output[$0] < output[$1] }!
      let paths = network.strongestPaths(in: trace, to: best, width: 8)
      let found = try #require(try browser.value("seen.paths") as? [[String: Any]])
      #expect(
        Set(found.map { "\($0["layer"]!) \($0["to"]!) \($0["from"]!)" })
          == Set(paths.map { "\($0.layer) \($0.to) \($0.from)" }), "\(layers)")

      let before = try floats(try browser.value("base64(new Float32Array(seen.probabilities))"))
      try browser.value("ask('gradients', { input: { test: 0 }, label: 2 })")
      let probabilities =
        "ask('look', { input: { test: 0 } }).then((a) => base64(new Float32Array(a.probabilities)))"
      #expect(try floats(try browser.value(probabilities)) == before)
      let copy = try network.copy()
      try copy.train(Batch(images: x, labels: [2]), learningRate: 0.01)
      try browser.value("ask('step', { input: { test: 0 }, label: 2, learning_rate: 0.01 })")
      expectClose(
        try floats(try browser.value(probabilities)), try copy.predict(x).values, within: 1e-4,
        "\(layers): after a step")
      try browser.value("ask('undo')")
      #expect(try floats(try browser.value(probabilities)) == before)
      #expect(browser.complaints.isEmpty, "\(browser.complaints)")
    }
  }

  /// A preset of such layers learns in the page.
  @Test func resnetLearns() throws {
    let place = try Workplace()
    try Network.digits().save(to: place.path + "/w")
    #expect(try place.run("export", "w", "page.html").code == 0)
    let browser = try Browser(width: 390, height: 900)
    try browser.visit("file://\(place.path)/page.html")
    try browser.wait("typeof seen !== 'undefined' && seen && rows.length")
    try browser.value(
      """
      $('text').value = $('preset').value = machine.presets.resnet;
      $('epochs').value = 3; $('rate').value = 0.03; $('train').click()
      """)
    try browser.wait("machine.network.startsWith('conv(16,3,padding=1') && epochs.length === 3")
    try browser.wait("!$('train').disabled")
    #expect(try browser.holds("epochs.at(-1).train_error < 0.1 && epochs.at(-1).test_error < 0.25"))
    #expect(try browser.holds("machine.parameters === 78090"))
    #expect(browser.complaints.isEmpty, "\(browser.complaints)")
  }

  /// Dense weights are pictures only over the image itself, however small that is.
  @Test func weightsAsPictures() throws {
    let small = Shape(8, 6, 1)
    let browser = try Self.open(
      try Self.network("flatten relu(70) softmax(4)", small), width: 1000)
    #expect(try browser.value("machine.filter_shape") as? [Int] == [64, 8, 6, 1])
    #expect(
      try browser.text("$('filters-note').textContent").contains("64 of 70 outputs shown"))
    // Pictures of 8 by 6 weights, four or five pixels a weight.
    #expect(
      try browser.holds(
        "[4, 5].some((z) => ($('filters').width + 4) % (6 * z + 4) === 0 && ($('filters').height + 4) % (8 * z + 4) === 0)"
      ))
    for (layers, shape) in [
      ("conv(3,1x13,padding=same) flatten softmax(4)", [1, 13, 1, 3]),
      // As many numbers as the image has, but not the image.
      ("avgpool(5x3,stride=1,padding=4x0) flatten relu(9) softmax(4)", []),
      ("avgpool(3,stride=1,padding=1) flatten relu(9) softmax(4)", []),
      ("batchnorm flatten softmax(4)", []), ("residual(activation(relu)) flatten softmax(4)", []),
    ] {
      try browser.value(
        "$('text').value = '\(layers)'; $('epochs').value = 1; $('train').click()")
      try browser.wait(
        "machine.network === '\(layers)' && epochs.length === 1 && !$('train').disabled")
      #expect(try browser.value("machine.filter_shape") as? [Int] == shape, "\(layers)")
      #expect(try browser.holds("$('filters').hidden === \(shape.isEmpty)"), "\(layers)")
      #expect(
        try Self.network(layers, small).firstFilters.map(\.shape) ?? [] == shape, "\(layers)")
    }
    #expect(browser.complaints.isEmpty, "\(browser.complaints)")
  }
}
