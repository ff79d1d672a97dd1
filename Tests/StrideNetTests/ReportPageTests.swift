import Foundation
import Testing

import StrideNet

/// Reports in a real browser, as they are seen, printed, and gone through without a mouse.
extension ReportTests {
  static let noBrowser: Comment = "there is no Chromium on this machine"

  /// A page of a training and one of a saved network.
  private func pages(_ place: Workplace) throws -> [String] {
    let end = try place.run(
      "train", "--layers", "conv(4,3) maxpool(2) flatten softmax(10)", "--data", "digits",
      "--epochs", "2", "--batch-size", "8", "--report", "page.html", "--save", "net")
    #expect(end.code == 0, "\(end.err)")
    #expect(try place.run("report", "net").code == 0)
    return ["page.html", "net.html"].map { "file://\(place.path)/\($0)" }
  }

  private func media(_ browser: Browser, _ features: [String: String], print: Bool = false) throws {
    try browser.send(
      "Emulation.setEmulatedMedia",
      [
        "media": print ? "print" : "screen",
        "features": features.map { ["name": $0.key, "value": $0.value] },
      ])
  }

  /// What is wrong with a page for somebody: text or an edge that is too faint, letters that are too
  /// small, something hidden that shows, a place in the order of focus that isn't the page's.
  private static let complaints = """
    (() => {
      const found = [], one = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
      const over = (colours) => {
        one.clearRect(0, 0, 1, 1);
        for (const colour of colours) { one.fillStyle = colour; one.fillRect(0, 0, 1, 1); }
        return [...one.getImageData(0, 0, 1, 1).data].slice(0, 3).map((v) => v / 255).map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
      };
      const light = ([r, g, b]) => 0.2126 * r + 0.7152 * g + 0.0722 * b;
      const contrast = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
      const grounds = (e) => { const list = ["#fff"]; const up = []; for (; e; e = e.parentElement) up.unshift(getComputedStyle(e).backgroundColor); return list.concat(up); };
      for (const e of document.querySelectorAll("body *")) {
        const style = getComputedStyle(e);
        if (e.hidden && style.display !== "none") found.push("shows: " + e.id);
        if (e.tabIndex > 0) found.push("out of order: " + e.id);
        if (!e.checkVisibility() || e.closest("script, noscript")) continue;
        const isText = [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
        if (isText) {
          const ground = grounds(e), colour = e.closest("svg") ? style.fill : style.color;
          const ratio = contrast(light(over([...ground, colour])), light(over(ground)));
          if (ratio < 4.5) found.push(`text ${ratio.toFixed(2)}: ${e.textContent.slice(0, 20)}`);
        }
        if (["BUTTON", "INPUT", "SELECT"].includes(e.tagName) && parseFloat(style.borderTopWidth) && !e.closest(".matrix")) {
          const ground = grounds(e.parentElement), ratio = contrast(light(over([...ground, style.borderTopColor])), light(over(ground)));
          if (ratio < 3) found.push(`edge ${ratio.toFixed(2)}: ${e.id || e.className}`);
        }
        if (e.closest("svg.chart") && e.getAttribute("stroke") !== "none" && ["path", "line"].includes(e.tagName)) {
          const ground = grounds(e.closest("svg").parentElement), ratio = contrast(light(over([...ground, style.stroke])), light(over(ground)));
          if (ratio < 3) found.push(`line ${ratio.toFixed(2)}: ${style.stroke}`);
        }
        if (e.tagName === "text") {
          const svg = e.ownerSVGElement, size = (parseFloat(style.fontSize) * svg.getBoundingClientRect().width) / svg.viewBox.baseVal.width;
          if (size < 11) found.push(`letters of ${size} px: ${e.textContent}`);
        }
      }
      const levels = [...document.querySelectorAll("h1, h2, h3")].filter((h) => h.checkVisibility()).map((h) => +h.tagName[1]);
      levels.forEach((level, i) => { if (level > (levels[i - 1] ?? 0) + 1) found.push("a heading of level " + level); });
      return found.join("; ");
    })()
    """

  @Test(.enabled(if: Browser.path != nil, noBrowser), arguments: [1100, 390])
  func anybodyCanReadIt(width: Int) throws {
    let place = try Workplace()
    let browser = try Browser(width: width, height: 900)
    for page in try pages(place) {
      try browser.visit(page)
      try browser.wait("document.readyState === 'complete' && $('maps').childElementCount === 4")
      for scheme in ["light", "dark"] {
        try media(browser, ["prefers-color-scheme": scheme])
        try browser.wait("dark === \(scheme == "dark")")
        #expect(try browser.text(Self.complaints) == "", "\(page) \(scheme)")
      }
      #expect(try !browser.scrollsSideways())
      // All that can be reached, or is a picture, has a name.
      try browser.send("Accessibility.enable")
      let tree = try browser.send("Accessibility.getFullAXTree")["nodes"] as? [[String: Any]] ?? []
      func value(_ node: [String: Any], _ key: String) -> String {
        "\((node[key] as? [String: Any])?["value"] ?? "")"
      }
      let named = ["button", "slider", "image", "img", "region", "textbox", "combobox", "link"]
      let nodes = tree.filter {
        $0["ignored"] as? Bool != true && named.contains(value($0, "role"))
      }
      #expect(nodes.count > 100)
      for node in nodes { #expect(value(node, "name") != "", "\(node)") }
      let focusable = tree.filter { node in
        node["ignored"] as? Bool != true
          && (node["properties"] as? [[String: Any]] ?? []).contains {
            $0["name"] as? String == "focusable" && ["1", "true"].contains(value($0, "value"))
          }
      }
      for node in focusable where value(node, "role") != "RootWebArea" {
        #expect(value(node, "name") != "", "\(node)")
      }
    }
    #expect(browser.complaints.isEmpty, "\(browser.complaints)")
  }

  @Test(.enabled(if: Browser.path != nil, noBrowser), arguments: [1100, 390])
  func aSweepToo(width: Int) throws {
    let place = try Workplace()
    let end = try place.run(
      ["sweep"] + Workplace.tinyTraining
        + ["--grid", "learning-rate=0.01,0.1", "--grid", "epochs=1,2", "--page", "page.html"])
    #expect(end.code == 0, "\(end.err)")
    let browser = try Browser(width: width, height: 900)
    try browser.visit("file://\(place.path)/page.html")
    try browser.wait("document.readyState === 'complete' && document.querySelector('.plot')")
    for scheme in ["light", "dark"] {
      try media(browser, ["prefers-color-scheme": scheme])
      #expect(try browser.text(Self.complaints) == "", "\(scheme)")
    }
    #expect(try !browser.scrollsSideways())
  }

  /// On paper, also from a dark screen, and in colours that somebody's system forces.
  @Test(.enabled(if: Browser.path != nil, noBrowser))
  func onPaperAndInForcedColours() throws {
    let place = try Workplace()
    let browser = try Browser(width: 1100, height: 900, dark: true)
    try browser.visit(try pages(place)[0])
    try browser.wait("document.readyState === 'complete' && $('maps').childElementCount === 4")
    func style(_ element: String, _ property: String) throws -> String {
      try browser.text(
        "getComputedStyle(document.querySelector('\(element)')).getPropertyValue('\(property)')")
    }
    try media(browser, ["prefers-color-scheme": "dark"], print: true)
    #expect(try style("body", "color") == "rgb(29, 27, 23)")
    for element in [
      ".bars i", ".bars .best b", ".legend i", ".share", ".matrix td.right", "canvas",
    ] {
      #expect(try style(element, "print-color-adjust") == "exact", "\(element)")
    }
    #expect(try browser.text(Self.complaints) == "")
    try media(browser, ["forced-colors": "active", "prefers-color-scheme": "dark"])
    #expect(try style(".bars .best b", "background-color") == "rgb(251, 139, 60)")
    #expect(try style(".legend i", "forced-color-adjust") == "none")
  }

  /// By the keyboard alone: a map says what is where, and moves.
  @Test(.enabled(if: Browser.path != nil, noBrowser))
  func mapsByKeyboard() throws {
    let place = try Workplace()
    let browser = try Browser(width: 1100, height: 900)
    try browser.visit(try pages(place)[0])
    try browser.wait("document.readyState === 'complete' && $('maps').childElementCount === 4")
    let told = "document.activeElement.closest('#maps > div').children[1].textContent"
    try browser.value("$('maps').querySelector('canvas').focus()")
    #expect(try browser.text(told).hasPrefix("row 0, column 0, channel 0: about "))
    for key in ["ArrowDown", "ArrowRight", "ArrowRight", "PageDown"] { try browser.press(key) }
    #expect(try browser.text(told).hasPrefix("row 1, column 2, channel 1: about "))
    // What is told is the network's, but for the byte that it is kept as.
    let network = try Network.load(from: "\(place.path)/net")
    let test = try Dataset.load("\(place.path)/digits").test
    let first = (0..<test.count).first { test.labels[$0] == test.labels.min()! }!
    let map = try network.trace(test.batch([first]).images).layers[0].output
    let value = map[(1 * map.shape.width + 2) * map.shape.channels + 1]
    let text = try browser.text(told).components(separatedBy: "about ")[1]
    let range = map.values.max()! - map.values.min()!
    #expect(
      abs(try #require(Float(text)) - value) <= range / 255 + abs(value) / 20, "\(text) \(value)")
  }

  /// A layer of which there is more than is shown, mistakes of which there are more, and classes.
  @Test(.enabled(if: Browser.path != nil, noBrowser))
  func partsSayOfHowMuch() throws {
    let place = try Workplace()
    let end = try place.run(
      "train", "--layers", "flatten relu(300) dense(12,activation=none) dense(10,activation=none)",
      "--loss", "mean_squared_error", "--data", "digits", "--epochs", "1", "--batch-size", "8",
      "--learning-rate", "0.001", "--report", "page.html")
    #expect(end.code == 0, "\(end.err)")
    let browser = try Browser(width: 1100, height: 900)
    try browser.visit("file://\(place.path)/page.html")
    try browser.wait("document.readyState === 'complete' && $('maps').childElementCount === 4")
    #expect(try browser.text("$('filters-note').textContent") == " 64 of 300 are shown.")
    #expect(
      try browser.text("$('maps').children[1].firstChild.textContent").contains(
        "300, 256 of 300 values"))
    #expect(
      try browser.text("$('wrong-note').textContent").contains(" of \(Workplace.testImages) images")
    )
    // Numbers that are no probabilities are none.
    #expect(try browser.text("$('bars-note').textContent").contains("not probabilities"))
    #expect(try browser.text("$('bars').textContent.includes('%')") == "0")
    #expect(try browser.text("$('wrong').textContent.includes('%')") == "0")
  }
}
