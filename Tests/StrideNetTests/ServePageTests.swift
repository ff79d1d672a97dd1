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
    try browser.wait("typeof seen !== 'undefined' && seen && rows.length === 7")
    #expect(try browser.text("$('verdict').textContent") == "7")
    #expect(try !browser.scrollsSideways())

    try draw(browser)
    try lookInside(browser)
    try train(browser)

    // On a phone, in the dark.
    try browser.resize(390, 800)
    try browser.wait("innerWidth === 390 && rows[0].tiles.columns < 10")
    #expect(try !browser.scrollsSideways())
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
  }

  /// A 1, with the mouse and with the keyboard.
  private func draw(_ browser: Browser) throws {
    try browser.value("$('clear').click()")
    try browser.drag("pad", stride(from: 0.15, through: 0.85, by: 0.05).map { (0.5, $0) })
    try browser.wait("seen && seen.label == null && $('verdict').textContent === '1'")

    try browser.value("$('clear').click(); pad.focus(); pen = { x: 140, y: 50, down: false }")
    #expect(try browser.text("$('verdict').textContent") == "–")
    try browser.press(" ")
    for _ in 0..<18 { try browser.press("ArrowDown") }
    try browser.wait("seen && $('verdict').textContent === '1'")
  }

  /// A test digit, another kernel variant and its groups; the sum behind a value; other images.
  private func lookInside(_ browser: Browser) throws {
    try browser.value("$('number').value = 3; $('number').dispatchEvent(new Event('change'))")
    try browser.wait("seen.label === 0 && $('verdict').textContent === '0'")
    try browser.value(
      "$('kernels').value = 'stride_groups'; $('kernels').dispatchEvent(new Event('change'))")
    try browser.wait(
      "rows[0].told.textContent.includes('9 stride groups: 9 passes instead of 676')")
    #expect(try browser.text("$('groups').getAttribute('aria-pressed')") == "true")

    // The sum behind a value, by mouse and by keys.
    try browser.drag("rows[2].canvas", [(0.1, 0.1)])
    try browser.wait("!$('explain').hidden && $('explain-body').textContent.includes('Both agree')")
    try browser.press("Escape")
    try browser.wait("$('explain').hidden")
    try browser.value("rows[5].canvas.focus()")
    try browser.press("ArrowRight")
    try browser.press("Enter")
    try browser.wait(
      "!$('explain').hidden && $('explain-title').textContent.includes('relu(64)')")
    try browser.press("Escape")

    try browser.value("$('find').click()")
    try browser.wait("$('nearest').childElementCount === 12")
    try browser.value("$('list').click()")
    try browser.wait("$('wrong').childElementCount > 20")
  }

  /// A training, one that is refused, and back to the first network.
  private func train(_ browser: Browser) throws {
    try browser.value(
      "$('text').value = 'flatten softmax(10)'; $('epochs').value = 2; $('train').click()")
    try browser.wait("rows.length === 2 && epochs.length === 2 && !$('train').disabled")
    #expect(try browser.text("$('progress').textContent").contains("epoch 2"))
    try browser.value("$('rate').value = -1; $('train').click()")
    try browser.wait("!$('failure').hidden && $('failure').textContent.includes('learning rate')")
    try browser.value("$('reset').click()")
    try browser.wait("rows.length === 7 && machine.is_original")
  }
}
