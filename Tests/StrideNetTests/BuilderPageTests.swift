import Foundation
import Testing

@testable import StrideNet
@testable import StrideNetCore

/// The page's network as cards, and what a link says.
@Suite(.serialized, .enabled(if: Browser.path != nil, "there is no Chromium on this machine"))
struct BuilderPageTests {
  private static func place() throws -> Workplace {
    let place = try Workplace()
    try Network.digits().save(to: place.path + "/w")
    let end = try place.run(["export", "w", "page.html"])
    #expect(end.code == 0 && end.err.isEmpty, "\(end.err)")
    return place
  }

  private static func visit(_ browser: Browser, _ address: String) throws {
    try browser.visit(address)
    try browser.wait("rows.length && seen && seen.maps && $('total')?.textContent")
  }

  private static func open(width: Int = 1280, dark: Bool = false) throws -> Browser {
    let place = try Self.place()
    let browser = try Browser(width: width, height: 900, dark: dark)
    browser.owned = place
    try visit(browser, "file://\(place.path)/page.html")
    return browser
  }

  private static let made =
    "[...document.querySelectorAll('#cards .made')].map((e) => e.textContent).join('|')"

  /// What each layer makes, and how many parameters it has, by the library.
  private static func made(_ text: String) throws -> [String] {
    let network = Network(try Architecture.layers(text))
    try network.build(for: Shape(28, 28, 1))
    return network.stages.map { stage in
      let (shape, count) = (
        stage.output, stage.parameters.reduce(0) { $0 + ($1.isTrained ? $1.count : 0) }
      )
      let size =
        shape.height * shape.width > 1
        ? "\(shape.height) × \(shape.width) × \(shape.channels)" : "\(shape.channels)"
      let grouped = count.formatted(.number.locale(Locale(identifier: "en_US")))
      return "→ \(size)" + (count > 0 ? ", \(grouped) parameters" : "")
    }
  }

  @Test func cardsAndTextAreOne() throws {
    let browser = try Self.open()
    for text in [
      "conv(12,3,stride=3) flatten softmax(10)",
      "conv(8,3,padding=same,activation=none) batchnorm(activation=relu) maxpool(3,2,padding=1) "
        + "residual(conv(8,3,padding=1) conv(8,3,padding=1) | conv(8,1)) flatten dense(10)",
      "avgpool(2) flatten relu(33) dropout(0.25) softmax(10)",
    ] {
      try browser.value("builder.set('\(text)')")
      let expected = try Self.made(text).joined(separator: "|")
      try browser.wait("\(Self.made) === '\(expected)'")
    }
    // A field changes the text, and the text the fields.
    try browser.value(
      """
      (() => {
        const field = document.querySelector('[aria-label="layer 3, relu: outputs"]');
        field.value = 21;
        field.dispatchEvent(new Event('input', { bubbles: true }));
      })()
      """)
    #expect(
      try browser.text("$('text').value") == "avgpool(2) flatten relu(21) dropout(0.25) softmax(10)"
    )
    try browser.value(
      "$('text').value = 'conv(3,5) flatten softmax(10)'; $('text').dispatchEvent(new Event('input'))"
    )
    try browser.wait("document.querySelectorAll('#cards .card').length === 3")
    #expect(
      try browser.text("document.querySelector('[aria-label=\"layer 1, conv: size\"]').value")
        == "5")
    // What doesn't fit is said at its card; what is no list of layers, at the text.
    try browser.value("builder.set('conv(3,5) conv(3,29) flatten softmax(10)')")
    try browser.wait(
      "document.querySelectorAll('#cards .card')[1].querySelector('.wrong').textContent.includes('29 on 24')"
    )
    #expect(try browser.holds("$('train').disabled"))
    try browser.value("builder.set('conv(3,5) maxpool(x) flatten softmax(10)')")
    try browser.wait(
      "document.querySelectorAll('#cards .card')[1].querySelector('.wrong').textContent.includes('size')"
    )
    #expect(try browser.text(Self.made).hasPrefix("→ 24 × 24 × 3, 78 parameters||"))
    try browser.value(
      "$('text').value = 'conv(3,5'; $('text').dispatchEvent(new Event('input'))")
    try browser.wait("$('text-wrong').textContent.includes('bracket')")
    #expect(try browser.holds("document.querySelectorAll('#cards .card').length === 4"))
    #expect(browser.complaints.isEmpty, "\(browser.complaints)")
  }

  @Test func byKeysOnAPhone() throws {
    let browser = try Self.open(width: 390, dark: true)
    try browser.value("builder.set('conv(4,3) maxpool(2) flatten softmax(10)')")
    try browser.value("$('add').value = 'dropout'; $('add-layer').focus()")
    try browser.press(" ")
    try browser.wait("$('text').value.includes('flatten dropout(0.3) softmax(10)')")
    try browser.value("document.querySelector('[aria-label=\"Later: layer 1, conv\"]').focus()")
    try browser.press(" ")
    try browser.wait("$('text').value.startsWith('maxpool(2) conv(4,3) flatten')")
    try browser.value(
      "document.querySelector('[aria-label=\"Remove layer 4, dropout\"]').focus()")
    try browser.press(" ")
    try browser.wait("$('text').value === 'maxpool(2) conv(4,3) flatten softmax(10)'")
    #expect(try browser.holds("document.documentElement.scrollWidth <= 390"))
    #expect(browser.complaints.isEmpty, "\(browser.complaints)")
  }

  /// A link brings another page to the same settings, and the same seed to the same weights.
  @Test func theLinkIsTheLesson() throws {
    let browser = try Self.open()
    #expect(try browser.holds("location.hash === ''"))
    try browser.value(
      """
      builder.set('conv(4,5) maxpool(4) flatten softmax(10)');
      for (const [id, value] of Object.entries({ seed: 7, epochs: 1, rate: 0.01, batch: 50 })) {
        $(id).value = value;
        $(id).dispatchEvent(new Event('input'));
      }
      tell(load({ test: 3 }));
      """)
    try browser.wait("location.hash.includes('digit=3') && location.hash.includes('seed=7')")
    let link = try browser.text("location.href")
    func train() throws -> String {
      try browser.wait("!$('new-network').hidden && !$('train').disabled")
      try browser.value("$('train-new').click()")
      try browser.wait("machine.network.startsWith('conv(4,5)') && $('new-network').hidden")
      try browser.wait("!$('train').disabled && $('progress').textContent.includes('epoch 1:')")
      return try browser.text("ask('state').then((s) => base64(floats(s.filters)))")
    }
    let first = try train()
    try browser.visit("about:blank")
    try Self.visit(browser, link)
    try browser.wait("$('seed').value === '7' && seen.label != null && +$('number').value === 3")
    #expect(
      try browser.text("JSON.stringify(builder.settings())").contains(
        #""layers":"conv(4,5) maxpool(4) flatten softmax(10)","seed":"7""#))
    #expect(try train() == first)
    // What a link has wrong is said and left out.
    try browser.visit("about:blank")
    try Self.visit(
      browser, link + "&rate=fast&epochs=0&optimizer=magic&digit=500&shoes=2&kernels=none")
    try browser.wait("$('link-note').textContent.startsWith('6 of the link')")
    for word in ["fast", "epochs '0'", "magic", "digit '500'", "shoes", "none"] {
      #expect(try browser.text("$('link-note').textContent").contains(word), "\(word)")
    }
    #expect(browser.complaints.isEmpty, "\(browser.complaints)")
  }
}
