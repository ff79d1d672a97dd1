import Foundation
import Testing

import StrideNet

/// "Watch it compute": what is shown at the end of each order is what the library computes.
@Suite(.serialized) struct PlayPageTests {
  private static func open(
    _ network: Network, width: Int = 1280, dark: Bool = false, still: Bool = false
  ) throws -> Browser {
    let place = try Workplace()
    try network.save(to: place.path + "/w")
    #expect(try place.run("export", "w", "page.html").code == 0)
    let browser = try Browser(width: width, height: 900, dark: dark)
    browser.owned = place
    if still {
      try browser.send(
        "Emulation.setEmulatedMedia",
        [
          "features": [
            ["name": "prefers-color-scheme", "value": dark ? "dark" : "light"],
            ["name": "prefers-reduced-motion", "value": "reduce"],
          ]
        ])
    }
    try browser.visit("file://\(place.path)/page.html")
    try browser.wait("typeof rows !== 'undefined' && rows.length && seen && seen.maps")
    return browser
  }

  /// Chooses a layer, an order and an output, as far as they are given, and waits until it is there.
  private func choose(_ browser: Browser, _ choices: KeyValuePairs<String, String>) throws {
    try browser.value("$('play').scrollIntoView()")
    for (id, value) in choices {
      try browser.value(
        "$('play-\(id)').value = '\(value)'; $('play-\(id)').dispatchEvent(new Event('change'))")
      #expect(try browser.text("$('play-\(id)').value") == value)
      try browser.wait("play.total > 0")
    }
  }

  private func goToTheEnd(_ browser: Browser) throws -> String {
    try browser.value("$('play-end-button').click()")
    try browser.wait("$('play-end').textContent.includes('✓')")
    return try browser.text("$('play-end').textContent")
  }

  /// The result and place that the text tells of, against the layer's output.
  private func compare(_ browser: Browser, _ output: Tensor, _ message: String) throws {
    let text = try browser.text("$('play-now').textContent")
    let found = try #require(text.firstMatch(of: /The result: (\S+)\. The kernel's/), "\(text)")
    let shape = output.shape
    var index = 0
    if let place = text.firstMatch(of: /row (\d+), column (\d+), (?:filter|channel) (\d+)/) {
      index = (Int(place.1)! * shape.width + Int(place.2)!) * shape.channels + Int(place.3)!
    } else {
      index = Int(try #require(text.firstMatch(of: /Output (\d+)/)).1)!
    }
    let expected = output.values[index]
    #expect(abs(Float(found.1)! - expected) <= 0.006 * abs(expected), "\(message): \(text)")
  }

  @Test(.enabled(if: Browser.path != nil, "there is no Chromium on this machine"))
  func endsAsTheKernelsDo() throws {
    let layers =
      "conv(6,3,stride=2,padding=1,activation=tanh) conv(20,3,padding=same,activation=gelu) conv(4,3,dilation=2,groups=2) maxpool(2) avgpool(3,stride=1) flatten activation(elu) dropout(0.2) dense(12) softmax(10)"
    let network = Network(try Architecture.layers(layers), seed: 3)
    let test = try Dataset.load("sample").test
    try network.build(for: test.shape)
    let trace = try network.trace(test.batch([0]).images)
    let browser = try Self.open(network)
    for (layer, count, orders) in [
      (0, 196, ["naive", "stride_groups", "im2col", "direct"]),
      (1, 196, ["naive", "stride_groups", "im2col", "direct"]), (2, 100, ["naive"]),
      (3, 25, ["naive", "stride_groups", "direct"]),
      (4, 9, ["naive", "stride_groups", "direct"]),
    ] {
      try choose(browser, ["layer": "\(layer)"])
      let offered = try browser.value("[...$('play-order').options].map((o) => o.value)")
      #expect(offered as? [String] == orders, "layer \(layer + 1)")
      for order in orders {
        if orders.count > 1 { try choose(browser, ["order": order]) }
        try choose(browser, ["filter": "3"])
        let end = try goToTheEnd(browser)
        #expect(end.contains("All \(count) numbers"), "\(end)")
        try compare(browser, trace.layers[layer].output, "layer \(layer + 1), \(order)")
      }
    }
    // Groups are as many as the layer says; a matrix is written before it is multiplied.
    try choose(browser, ["layer": "1", "order": "stride_groups"])
    try browser.value("$('play-end-button').click()")
    #expect(try browser.text("$('play-now').textContent").contains("Group 9 of 9, 16 windows"))
    try browser.value("$('play-start').click()")
    try choose(browser, ["order": "im2col"])
    try browser.value("$('play-next').click()")
    #expect(try browser.text("$('play-now').textContent").contains("1 of 196 windows"))
    // All filters in turn, as the definition has them.
    try choose(browser, ["layer": "0", "order": "naive", "filter": "all"])
    #expect(try browser.value("play.total") as? Int == 196 * 6 * 9)
    // Layers number by number.
    for (layer, phrase) in [(5, "one row"), (6, "function"), (7, "changes nothing")] {
      try choose(browser, ["layer": "\(layer)"])
      #expect(try browser.text("$('play-about').textContent").contains(phrase))
      try browser.value("$('play-end-button').click()")
      try browser.wait("$('play-now').textContent.includes('✓')")
    }
    try choose(browser, ["layer": "8"])
    #expect(try goToTheEnd(browser).contains("All 12 numbers"))
    try compare(browser, trace.layers[8].output, "dense")
    try choose(browser, ["layer": "9"])
    #expect(try goToTheEnd(browser).contains("All 10 numbers"))
    try compare(browser, try #require(trace.logits), "sums before softmax")
    // From sums to shares.
    try choose(browser, ["layer": "9s"])
    #expect(try browser.value("play.total") as? Int == 21)
    #expect(try goToTheEnd(browser).contains("All 10 shares"))
    let shares = try #require(
      try browser.value(
        "[...$('play-stage').querySelectorAll('tr')].slice(1, 11).map((r) => parseFloat(r.lastChild.textContent))"
      ) as? [NSNumber])
    expectClose(
      shares.map { $0.floatValue / 100 }, trace.output.values, within: 6e-5, "shares")
    #expect(try browser.text("$('play-stage').textContent").contains("100.00 %"))
    #expect(browser.complaints.isEmpty, "\(browser.complaints)")
  }

  /// By itself, by steps, from a chosen number, with another image, while it learns.
  @Test(.enabled(if: Browser.path != nil, "there is no Chromium on this machine"))
  func playing() throws {
    let browser = try Self.open(.digits())
    try choose(browser, ["layer": "0", "order": "naive"])
    #expect(try browser.text("$('play-end').textContent").isEmpty)
    try browser.value("$('play-speed').value = '200'; $('play-go').click()")
    try browser.wait("play.at > 20 && $('play-go').textContent === 'Pause'")
    try browser.value("$('play-go').click(); window.stopped = play.at")
    Thread.sleep(forTimeInterval: 0.3)
    #expect(try browser.holds("play.at === stopped && $('play-go').textContent === 'Play'"))
    // A row of the map is 26 outputs of 9 products.
    try browser.value(
      "play.seek(3); $('play-speed').value = 'output'; $('play-next').click(); window.first = play.at; $('play-speed').value = 'row'; $('play-next').click()"
    )
    #expect(try browser.holds("first === 9 && play.at === 234"))
    try browser.value("$('play-go').click()")
    try browser.wait("play.at === play.total && $('play-go').textContent === 'Play'")
    #expect(try browser.text("$('play-end').textContent").contains("All 676 numbers of filter 0"))
    // Another image: the same step of its sums.
    try browser.value(
      "play.seek(100); $('number').value = 3; $('number').dispatchEvent(new Event('change'))")
    try browser.wait("source.test === 3 && seen.label === 0 && play.at === 100")
    // The field of a number goes down to the pixels, and its panel leads here.
    try browser.value("rows[2].cursor = { y: 4, x: 5, c: 6 }; explain(rows[2])")
    try browser.wait("$('explain-body').textContent.includes('It sees 8 × 8 pixels')")
    let marks = try browser.value(
      "marks.map((m) => [m.row.index, m.top, m.left, m.high, m.wide, m.channels.length])")
    #expect(
      marks as? [[Int]] == [[1, 4, 5, 3, 3, 16], [0, 8, 10, 6, 6, 16], [-1, 8, 10, 8, 8, 1]])
    try browser.value("$('watch').click()")
    try browser.wait(
      "$('explain').hidden && $('play-layer').value === '2' && document.activeElement === $('play-next')"
    )
    try browser.value("$('play-speed').value = 'output'; $('play-next').click()")
    try browser.wait("$('play-now').textContent.includes('row 4, column 5, filter 6')")
    #expect(try browser.holds("$('play-now').textContent.includes('✓')"))
    // Lessons choose, too.
    try browser.value("play.show(0, 'stride_groups')")
    try browser.wait("$('play-order').value === 'stride_groups' && play.at === 0 && play.total")
    try browser.value("play.show(6, 'softmax')")
    try browser.wait("$('play-layer').value === '6s' && play.total === 21")
    try browser.value(
      "$('epochs').value = 1; $('text').value = 'flatten softmax(10)'; $('train').click()")
    try browser.wait("epochs.length === 1 && !$('train').disabled && rows.length === 2")
    try choose(browser, ["layer": "1"])
    #expect(try goToTheEnd(browser).contains("All 10 numbers"))
    #expect(browser.complaints.isEmpty, "\(browser.complaints)")
  }

  /// On a phone, in the dark, without motion, by the keyboard alone.
  @Test(.enabled(if: Browser.path != nil, "there is no Chromium on this machine"))
  func withoutMotion() throws {
    let browser = try Self.open(.digits(), width: 390, dark: true, still: true)
    #expect(try browser.holds("$('play-go').hidden"))
    for (layer, order) in [("0", "stride_groups"), ("2", "im2col"), ("2", "direct")] {
      try choose(browser, ["layer": layer, "order": order])
      try browser.value("play.seek(Math.floor(play.total / 2))")
      #expect(try !browser.scrollsSideways(), "\(layer) \(order)")
    }
    try choose(browser, ["layer": "6s"])
    try browser.value("$('play-at').focus()")
    try browser.press("ArrowRight")
    try browser.wait("play.at === 1")
    #expect(try browser.text("$('play-at').getAttribute('aria-valuetext')") == "step 1 of 21")
    #expect(try browser.text("$('play-now').textContent").contains("largest"))
    try browser.value("play.go()")
    Thread.sleep(forTimeInterval: 0.2)
    #expect(try browser.holds("play.at === 1"))
    #expect(try !browser.scrollsSideways())
    #expect(browser.complaints.isEmpty, "\(browser.complaints)")
  }

  /// What only the server has: normalisation, sums with a shortcut, padded poolings; and its weights.
  @Test(.enabled(if: Browser.path != nil, "there is no Chromium on this machine"))
  func fromTheServer() throws {
    let layers =
      "conv(4,3,stride=2) batchnorm layernorm residual(conv(4,3,padding=same)) maxpool(3,stride=2,padding=1) avgpool(2,padding=1,count_include_pad=false) flatten dense(10)"
    let network = Network(try Architecture.layers(layers), seed: 5)
    let test = try Dataset.load("sample").test
    try network.build(for: test.shape)
    let trace = try network.trace(test.batch([0]).images)
    let served = try Served(["w", "--data", "sample"]) { try network.save(to: $0.path + "/w") }
    let filters = served.fields("weights", #"{"layer":1,"first":1,"count":2}"#)
    let data = try #require(Data(base64Encoded: filters["values"] as? String ?? ""))
    let values = data.withUnsafeBytes { Array($0.bindMemory(to: Float.self)) }
    let all = network.snapshot().values
    #expect(values == [1, 2].flatMap { f in (0..<9).map { all[$0 * 4 + f] } })
    #expect(filters["activation"] as? String == "relu" && (filters["bias"] as? [Any])?.count == 2)
    let browser = try Browser(width: 1280, height: 900)
    try browser.visit("http://127.0.0.1:\(served.port)/")
    try browser.wait("typeof rows !== 'undefined' && rows.length === 8 && seen && seen.maps")
    for (layer, order) in [
      (0, "stride_groups"), (4, "naive"), (4, "stride_groups"), (5, "naive"), (5, "stride_groups"),
      (5, "direct"),
    ] {
      try choose(browser, ["layer": "\(layer)", "order": order, "filter": "2"])
      #expect(try goToTheEnd(browser).contains("✓"))
      try compare(browser, trace.layers[layer].output, "layer \(layer + 1), \(order)")
    }
    for layer in [1, 2, 3] {
      try choose(browser, ["layer": "\(layer)"])
      try browser.value("play.seek(30)")
      try browser.wait("$('play-now').textContent.includes('✓ equal')")
    }
    #expect(
      browser.complaints.filter { !$0.contains("favicon") }.isEmpty, "\(browser.complaints)")
  }
}
