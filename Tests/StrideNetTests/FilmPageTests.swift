import CZlib
import Foundation
import Testing

import StrideNet

/// The page's film of a training: its moments, two runs side by side, and the animated picture.
@Suite(.serialized) struct FilmPageTests {
  private static func open(width: Int = 1280, dark: Bool = false, isStill: Bool = false) throws
    -> Browser
  {
    let place = try Workplace()
    try Network.digits().save(to: place.path + "/w")
    let end = try place.run(["export", "w", "page.html"])
    #expect(end.code == 0 && end.err.isEmpty, "\(end.err)")
    let browser = try Browser(width: width, height: 900, dark: dark)
    browser.owned = place
    if isStill {
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
    try browser.wait("typeof seen !== 'undefined' && seen && rows.length === 7")
    return browser
  }

  /// Trains by the fields of the page, until run number `run` is over.
  private static func train(
    _ browser: Browser, run: Int, _ layers: String = "conv(4,5) maxpool(4) flatten softmax(10)",
    rate: String = "0.01", epochs: Int = 2, meanwhile: String = ""
  ) throws {
    try browser.value(
      """
      $('text').value = '\(layers)'; $('rate').value = \(rate); $('epochs').value = \(epochs);
      $('train').click(); \(meanwhile)
      """)
    try browser.wait(
      "film.runs.at(-1)?.number === \(run) && !film.runs.at(-1).isRunning && !$('train').disabled")
  }

  /// Whoever answers: the last matrix is about all test images and agrees with the epoch's error.
  private static func expectFilm(_ browser: Browser) throws {
    #expect(try !browser.holds("$('film').hidden"))
    // Every few of all steps, so that there are at most 59; and the ends of both epochs.
    let (train, test) = try (
      #require(browser.value("machine.train_images") as? Int),
      #require(browser.value("machine.test_images") as? Int)
    )
    let batches = (train + 63) / 64
    let gap = max((2 * batches + 58) / 59, 4)
    let steps = Set(stride(from: 0, through: 2 * batches, by: gap)).union([batches, 2 * batches])
    #expect(
      try browser.text("film.runs[0].moments.map((m) => m.step).join()")
        == steps.sorted().map { "\($0)" }.joined(separator: ","))
    #expect(
      try browser.text(
        "film.runs[0].moments.filter((m) => m.images === \(test)).map((m) => m.step).join()")
        == "\(batches),\(2 * batches)")
    #expect(
      try browser.holds(
        """
        film.runs[0].moments.every((m) => {
          const counts = m.confusion.filter((_, i) => i % 3 === 2), right = counts.filter((_, i) => m.confusion[3 * i] === m.confusion[3 * i + 1]);
          const sum = (list) => list.reduce((a, b) => a + b, 0);
          return sum(counts) === m.images && Math.abs(sum(right) / m.images - 1 + m.error) < 1e-6;
        })
        """))
    #expect(
      try browser.holds(
        """
        epochs.every((e) => {
          const m = film.runs[0].moments.find((m) => m.step === e.step);
          return m.images === machine.test_images && Math.abs(m.error - e.test_error) < 1e-6 && Math.abs(m.loss - e.test_loss) < 1e-4 * m.loss;
        })
        """))
    // What is kept of the last moment is what the network is now: of the digit that was pinned.
    #expect(
      try browser.value(
        """
        (async () => {
          const run = film.runs[0], m = run.moments.at(-1);
          const now = await ask("look", { input: { values: run.pinned }, kernels, paths: false });
          const maps = now.layers.map((l) => floats(l.output));
          return m.probabilities.every((p, i) => Math.abs(p - now.probabilities[i]) < 1e-4) && m.maps.length === maps.length
            && maps[0].length === 24 * 24 * 4 && m.maps[0].pixels.length === 24 * 24 * 4
            && m.maps.every((map, k) => Math.abs(map.greatest - Math.max(...maps[k])) <= 1e-4 * map.greatest)
            && m.maps[0].pixels.every((byte, i) => Math.abs(m.maps[0].least + (byte / 255) * (m.maps[0].greatest - m.maps[0].least) - maps[0][i]) <= 0.01 * m.maps[0].greatest);
        })()
        """) as? Bool == true)
    // The weights, in bytes beside what the state has.
    #expect(
      try browser.value(
        """
        ask("state").then(({ filters }) => {
          const w = floats(filters), most = Math.max(...w.map(Math.abs)), { filters: kept, filter_shape: [n, h, size] } = film.runs[0].moments.at(-1);
          return n === 4 && h === 5 && size === 5 && kept.every((byte, i) => Math.abs((byte - 128) / 127 * most - w[(i % 25) * 4 + Math.floor(i / 25)]) < 0.01 * most);
        })
        """) as? Bool == true)
    // The matrix on the page, and what the moments say.
    try browser.value("film.at(1)")
    #expect(
      try browser.holds(
        "[...document.querySelectorAll('#film .matrix td')].reduce((sum, td) => sum + (+td.textContent || 0), 0) === machine.test_images"
      ))
    for (share, index) in [(0.0, "0"), (1.0, "-1")] {
      try browser.value("film.at(\(share))")
      let loss = try browser.text("short(film.runs[0].moments.at(\(index)).loss)")
      let step = try browser.text("film.runs[0].moments.at(\(index)).step")
      #expect(try browser.text("$('film-when').textContent") == "step \(step)")
      #expect(
        try browser.text("$('film-sides').textContent").contains("step \(step): loss \(loss),"))
      #expect(
        try browser.text("$('film-at').getAttribute('aria-valuetext')").contains("loss \(loss),"))
    }
  }

  @Test(.enabled(if: Browser.path != nil, "there is no Chromium on this machine"))
  func theFilmInTheFile() throws {
    let browser = try Self.open()
    // Another digit meanwhile doesn't become the film's.
    try browser.value("window.first = seen.values.slice()")
    try Self.train(browser, run: 1, meanwhile: "tell(load({ test: 3 })); 0")
    try Self.expectFilm(browser)
    #expect(
      try browser.holds(
        "film.runs[0].pinned.every((v, i) => v === first[i]) && seen.label === 0 && first.some((v, i) => v !== seen.values[i])"
      ))

    // Labels are rows: each mistake is where the list of mistakes has it.
    #expect(
      try browser.value(
        """
        ask("wrong").then(({ count, images }) => {
          const { confusion } = film.runs[0].moments.at(-1), cells = {}, kept = {};
          for (const { label, guess } of images) cells[[label, guess]] = (cells[[label, guess]] ?? 0) + 1;
          for (let i = 0; i < confusion.length; i += 3) if (confusion[i] !== confusion[i + 1]) kept[[confusion[i], confusion[i + 1]]] = confusion[i + 2];
          return count === images.length && count > 5 && Object.keys(kept).length === Object.keys(cells).length && Object.entries(cells).every(([k, n]) => kept[k] === n);
        })
        """) as? Bool == true)

    // By keys, and by itself.
    try browser.value("$('film-at').focus()")
    try browser.press("ArrowLeft")
    try browser.wait("$('film-when').textContent === 'step 60'")
    try browser.value("film.at(0.9); $('film-play').focus()")
    try browser.press(" ")
    try browser.wait("$('film-when').textContent === 'step 64'")
    try browser.wait("$('film-play').getAttribute('aria-label') === 'Play'")

    // Another rate, from the same weights: both beside each other.
    try Self.train(browser, run: 2, rate: "0.001")
    #expect(try browser.holds("document.querySelectorAll('#film .matrix').length === 2"))
    #expect(
      try browser.text("$('film-runs-note').textContent")
        == "A and B differ in what is marked with ≠: rate.")
    #expect(
      try browser.text(
        "[...document.querySelectorAll('#film-runs td.differs')].map((td) => td.textContent).join()"
      ) == "0.01,0.001")
    #expect(
      try browser.holds(
        "film.runs[0].moments[0].loss === film.runs[1].moments[0].loss && film.runs[0].moments[5].loss !== film.runs[1].moments[5].loss"
      ))
    try browser.value("film.at(0.25)")
    #expect(
      try browser.holds(
        "[0, 1].every((i) => $('film-sides').children[i].textContent.includes('step 16: loss ' + short(film.runs[i].moments[4].loss)))"
      ))
    #expect(try browser.text("$('film-loss').textContent").contains("B all test images (dashed)"))
    // One alone again.
    try browser.value(
      "document.querySelector('#film-runs button[aria-label=\"Run 2 as B\"]').click()")
    #expect(try browser.holds("document.querySelectorAll('#film .matrix').length === 1"))
    try browser.value("film.compare(0, 1)")
    #expect(try browser.holds("document.querySelectorAll('#film .matrix').length === 2"))
    #expect(browser.complaints.isEmpty, "\(browser.complaints)")
  }

  /// The animated picture is one: its chunks, their sums, and every frame's rows.
  @Test(.enabled(if: Browser.path != nil, "there is no Chromium on this machine"))
  func theAnimatedPicture() throws {
    let browser = try Self.open(width: 390, dark: true, isStill: true)
    try Self.train(browser, run: 1, "flatten softmax(10)", epochs: 1)
    #expect(try !browser.scrollsSideways())
    // Nothing moves by itself: a press is a moment.
    try browser.value("film.at(0); $('film-play').focus()")
    #expect(try browser.text("$('film-play').getAttribute('aria-label')") == "Next moment")
    for step in [4, 8] {
      try browser.press(" ")
      try browser.wait("$('film-when').textContent === 'step \(step)'")
    }
    Thread.sleep(forTimeInterval: 0.5)
    #expect(try browser.text("$('film-when').textContent") == "step 8")

    try browser.value("$('film-save').click()")
    try browser.wait("document.querySelector('#film-saved a')")
    #expect(try browser.text("$('film-saved').textContent").contains("all 9 moments"))
    #expect(
      try browser.text("document.querySelector('#film-saved a').download") == "film-1.png")
    let link = "document.querySelector('#film-saved a').href"
    #expect(
      try browser.value(
        "(async () => { const i = new Image(); i.src = \(link); await i.decode(); return `${i.naturalWidth}×${i.naturalHeight}`; })()"
      ) as? String == "440×600")
    let text = try browser.value(
      "new Promise((done) => { const x = new XMLHttpRequest(); x.open('GET', \(link)); x.responseType = 'arraybuffer'; x.onload = () => done(base64(new Uint8Array(x.response))); x.send(); })"
    )
    let file = [UInt8](try #require((text as? String).flatMap { Data(base64Encoded: $0) }))
    let frames = try Self.frames(file, width: 440, height: 600)
    #expect(frames.count == 9)
    // Each shows something else than the one before.
    for (frame, next) in zip(frames, frames.dropFirst()) { #expect(frame != next) }
    #expect(browser.complaints.isEmpty, "\(browser.complaints)")
  }

  /// The server's training keeps the same moments.
  @Test(.enabled(if: Browser.path != nil, "there is no Chromium on this machine"))
  func theFilmOfTheServer() throws {
    let served = try Served()
    let browser = try Browser(width: 1280, height: 900)
    try browser.visit("http://127.0.0.1:\(served.port)/")
    try browser.wait("typeof seen !== 'undefined' && seen && rows.length === 7")
    try Self.train(browser, run: 1)
    try Self.expectFilm(browser)
    // Who doesn't ask for a film has none.
    #expect(served.ask("train", "{\"layers\":\"flatten softmax(10)\",\"epochs\":1}").code == 200)
    let progress = served.fields("training")
    #expect((progress["moments"] as? [Any])?.isEmpty == true)
    #expect((progress["settings"] as? [String: Any])?["optimizer"] as? String == "sgd")
    #expect(served.ask("stop").code == 200)
    #expect(
      browser.complaints.filter { !$0.contains("favicon") && !$0.contains("409") }.isEmpty,
      "\(browser.complaints)")
  }

  /// The rows of an animated PNG's frames, each of them whole; everything in it is checked.
  private static func frames(_ file: [UInt8], width: Int, height: Int) throws -> [[UInt8]] {
    func number(_ at: Int) -> Int { (0..<4).reduce(0) { $0 << 8 | Int(file[at + $1]) } }
    #expect(Array(file.prefix(8)) == [137, 80, 78, 71, 13, 10, 26, 10])
    var (at, sequence, names, frames) = (8, 0, [String](), [[UInt8]]())
    while at < file.count {
      let (length, name) = (number(at), String(decoding: file[at + 4..<at + 8], as: UTF8.self))
      #expect(crc(file[at + 4..<at + 8 + length]) == number(at + 8 + length), "\(name) at \(at)")
      let begin = at + 8
      switch name {
      case "IHDR":
        #expect(number(begin) == width && number(begin + 4) == height)
        #expect(Array(file[begin + 8..<begin + 13]) == [8, 2, 0, 0, 0])
      case "acTL": #expect(number(begin) == 9 && number(begin + 4) == 0, "loops for ever")
      case "fcTL":
        #expect(number(begin) == sequence && number(begin + 4) == width)
        sequence += 1
      case "IDAT", "fdAT":
        if name == "fdAT" {
          #expect(number(begin) == sequence)
          sequence += 1
        }
        let data = Array(file[(begin + (name == "fdAT" ? 4 : 0))..<begin + length])
        var rows = [UInt8](repeating: 1, count: height * (3 * width + 1))
        var count = uLongf(rows.count)
        let status = data.withUnsafeBufferPointer {
          uncompress(&rows, &count, $0.baseAddress, uLong($0.count))
        }
        #expect(status == Z_OK && count == rows.count)
        #expect(stride(from: 0, to: rows.count, by: 3 * width + 1).allSatisfy { rows[$0] == 0 })
        frames.append(rows)
      default: break
      }
      names.append(name)
      at += 12 + length
    }
    #expect(
      names == ["IHDR", "acTL", "fcTL", "IDAT"]
        + (1..<9).flatMap { _ in ["fcTL", "fdAT"] } + ["IEND"])
    return frames
  }

  private static func crc(_ bytes: ArraySlice<UInt8>) -> Int {
    var crc: UInt32 = .max
    for byte in bytes {
      crc ^= UInt32(byte)
      for _ in 0..<8 { crc = crc & 1 == 1 ? 0xedb8_8320 ^ (crc >> 1) : crc >> 1 }
    }
    return Int(~crc)
  }
}
