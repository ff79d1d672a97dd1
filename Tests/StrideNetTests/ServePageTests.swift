import Foundation
import Testing

import StrideNet

/// The page of `stridenet serve` in a real browser.
extension ServeTests {
  @Test(.enabled(if: Browser.path != nil, "there is no Chromium on this machine"))
  func thePageInABrowser() throws {
    let served = try Served()
    let browser = try Browser(width: 1280, height: 900)
    try browser.visit("http://127.0.0.1:\(served.port)/")
    try PageVisitor(browser: browser).useAll()
    #expect(
      browser.complaints.filter { !$0.contains("favicon") && !$0.contains("400") }.isEmpty,
      "\(browser.complaints)")
    #expect(
      browser.requests.allSatisfy {
        $0.hasPrefix("http://127.0.0.1:\(served.port)/") || $0 == "about:blank"
      }, "\(browser.requests)")
  }

  /// A second tab shows what the first one trained, once it asks for anything.
  @Test(.enabled(if: Browser.path != nil, "there is no Chromium on this machine"))
  func twoTabs() throws {
    let served = try Served()
    let browser = try Browser(width: 1280, height: 900)
    try browser.visit("http://127.0.0.1:\(served.port)/")
    try browser.wait("typeof seen !== 'undefined' && seen && rows.length === 7")
    #expect(
      served.ask("train", "{\"layers\":\"flatten softmax(10)\",\"epochs\":1}").code == 200)
    try browser.value("$('number').value = 3; $('number').dispatchEvent(new Event('change'))")
    try browser.wait("rows.length === 2 && seen && seen.maps.length === 2")
    try browser.wait("!$('failure').hidden && $('failure').textContent.includes('was replaced')")
    // What is drawn anew meanwhile isn't drawn by another network's numbers.
    #expect(served.ask("reset").code == 200)
    try browser.resize(700, 900)
    try browser.value("draw(); overlays()")
    #expect(
      browser.complaints.allSatisfy { $0.contains("favicon") || $0.contains("409") },
      "\(browser.complaints)")
  }
}

/// What a visitor does, whoever answers.
struct PageVisitor {
  let browser: Browser
  /// Test images that are mistaken, at least.
  var mistakes = 20

  func useAll() throws {
    try browser.wait("typeof seen !== 'undefined' && seen && rows.length === 7")
    #expect(try browser.text("$('verdict').textContent") == "7")
    #expect(try !browser.scrollsSideways())
    try draw()
    try lookInside()
    try followANumber()
    try goBackwards()
    try timeKernels()
    try train()
    // On a phone.
    try browser.resize(390, 800)
    try browser.wait("innerWidth === 390 && rows[0].tiles.columns < 10")
    #expect(try !browser.scrollsSideways())
  }

  /// A 1, with the mouse and with the keyboard.
  private func draw() throws {
    try browser.value("$('clear').click()")
    try browser.drag("pad", stride(from: 0.15, through: 0.85, by: 0.05).map { (0.5, $0) })
    try browser.wait("seen && seen.label == null && $('verdict').textContent === '1'")
    #expect(try browser.text("$('fit').textContent").contains("20 × 20 of 28 × 28"))

    // A dot isn't a digit, and no mistake of the page's either.
    try browser.value("$('clear').click(); pad.focus(); pen = { x: 140, y: 50, down: false }")
    #expect(try browser.text("$('verdict').textContent") == "–")
    try browser.press(" ")
    for _ in 0..<18 { try browser.press("ArrowDown") }
    try browser.wait("seen && $('verdict').textContent === '1'")
    // The pen can be seen, and is lifted by what clears the drawing.
    #expect(try browser.holds("\(Self.ink)($('pen')) > 100 && pen.down"))
    try browser.press("Escape")
    #expect(try browser.holds("!pen.down && !seen && source === null"))

    // A stroke takes the place of a digit from the data.
    try load(3, "0")
    #expect(try browser.text("$('fit').textContent").contains("as it is in the data"))
    try browser.value("pad.focus()")
    try browser.press(" ")
    #expect(try browser.holds("\(Self.ink)(pad) < 1500"))
    try browser.press("Escape")
  }

  /// How many pixels of a canvas aren't black.
  private static let ink =
    "(c => c.getContext('2d').getImageData(0, 0, c.width, c.height).data.filter((v, i) => i % 4 === 0 && v > 0).length)"

  private func load(_ image: Int, _ verdict: String) throws {
    try browser.value(
      "$('number').value = \(image); $('number').dispatchEvent(new Event('change'))")
    try browser.wait(
      "seen && source.test === \(image) && seen.label === \(verdict) && $('verdict').textContent === '\(verdict)'"
    )
  }

  /// A test digit, another kernel variant and its groups; the sum behind a value; other images.
  private func lookInside() throws {
    try load(3, "0")
    try browser.value(
      "$('kernels').value = 'stride_groups'; $('kernels').dispatchEvent(new Event('change'))")
    try browser.wait(
      "rows[0].told.textContent.includes('9 stride groups: 9 passes instead of 676')")
    #expect(try browser.text("$('groups').getAttribute('aria-pressed')") == "true")

    // The sum behind a value, by mouse and by keys.
    try browser.drag("rows[2].canvas", [(0.1, 0.1)])
    try browser.wait("!$('explain').hidden && $('explain-body').textContent.includes('Both agree')")
    #expect(try browser.text("marked.row === rows[1] && marked.high * marked.wide") == "9")
    try browser.press("Escape")
    try browser.wait("$('explain').hidden && !marked")
    try browser.value("rows[5].canvas.focus()")
    try browser.press("ArrowRight")
    try browser.press("Enter")
    try browser.wait(
      "!$('explain').hidden && $('explain-title').textContent.includes('relu(64)')")
    try browser.wait("document.activeElement === $('close')")
    try browser.press("Escape")
    try browser.wait("document.activeElement === rows[5].canvas")

    try browser.value("$('find').click()")
    try browser.wait("$('nearest').childElementCount === 12")
    // They were of that digit.
    try load(0, "7")
    #expect(try browser.text("$('nearest').childElementCount") == "0")
    try browser.value("$('list').click()")
    try browser.wait("$('wrong').childElementCount >= \(mistakes)")
  }

  /// A pooling's candidates, softmax's exponentials, and a panel that goes along with the digit.
  private func followANumber() throws {
    try browser.value("rows[1].cursor = { y: 5, x: 6, c: 2 }; explain(rows[1])")
    try browser.wait("$('explain-body').textContent.includes('4 candidates')")
    #expect(
      try browser.holds(
        "(row => +row.children[1].textContent === +short(value(rows[1], rows[1].cursor)))(document.querySelector('#explain-body tr.chosen'))"
      ))
    try browser.value("rows[6].cursor = { y: 0, x: 0, c: 7 }; explain(rows[6])")
    try browser.wait("$('explain-body').textContent.includes('Softmax')")
    #expect(
      try browser.holds(
        "Math.abs(parseFloat(document.querySelector('#explain-body tr.chosen').lastChild.textContent) - 100 * seen.probabilities[7]) < 0.01"
      ))
    try load(2, "1")
    try browser.wait(
      "!$('explain').hidden && Math.abs(parseFloat(document.querySelector('#explain-body tr.chosen').lastChild.textContent) - 100 * seen.probabilities[7]) < 0.01"
    )
    // The value under the pointer.
    try browser.drag("inputRow.canvas", [(0.4, 0.4), (0.51, 0.51)])
    #expect(try browser.text("inputRow.element.textContent").contains("row 14, column 14: "))
    try browser.press("Escape")
    try browser.value(
      "$('scale').value = 'network'; $('scale').dispatchEvent(new Event('change'))")
  }

  /// What it should have been; a step towards that, and undone.
  private func goBackwards() throws {
    try load(0, "7")
    #expect(try browser.text("wish.label") == "7")
    try browser.value("$('should').value = 2; $('should').dispatchEvent(new Event('change'))")
    try browser.value(
      "$('shown').value = 'gradients'; $('shown').dispatchEvent(new Event('change'))")
    try browser.wait("seen.gradients?.length === 8 && seen.loss > 3")
    #expect(
      try browser.holds(
        "seen.gradients.every((map, i) => map.length === valuesOf(all()[i]).length && map.some((v) => v !== 0))"
      ))
    // The last slopes are the shares, less 1 for the wish.
    #expect(
      try browser.holds(
        "seen.gradients[7].every((v, i) => Math.abs(v - seen.probabilities[i] + (i === 2)) < 1e-4)")
    )
    try browser.value("window.before = seen.loss; $('step').click()")
    try browser.wait("seen.loss < before && !machine.is_original && !$('undo').disabled")
    try browser.value("$('undo').click()")
    try browser.wait(
      "Math.abs(seen.loss - before) < 1e-4 && machine.is_original && $('undo').disabled")
    try browser.value("$('shown').value = 'values'; $('shown').dispatchEvent(new Event('change'))")
    try browser.wait("!seen.gradients")
  }

  private func timeKernels() throws {
    try browser.value("$('ladder').click()")
    try browser.wait("!$('ladder').disabled")
    #expect(
      try browser.holds(
        "document.querySelectorAll('#rungs tr').length === machine.kernels.length + 1"))
    #expect(try browser.text("$('rungs').textContent").contains("winograd"))
  }

  /// A training, one that is refused, and back to the first network.
  private func train() throws {
    try browser.value(
      "$('text').value = 'flatten softmax(10)'; $('epochs').value = 2; $('train').click()")
    try browser.wait("rows.length === 2 && epochs.length === 2 && !$('train').disabled")
    try browser.wait("$('progress').textContent.includes('epoch 2')")
    try browser.value("$('rate').value = -1; $('train').click()")
    try browser.wait("!$('failure').hidden && $('failure').textContent.includes('learning rate')")
    try browser.value("$('reset').click()")
    try browser.wait("rows.length === 7 && machine.is_original && fits(seen)")
  }
}
