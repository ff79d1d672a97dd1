import Foundation
import Testing

@testable import StrideNet
@testable import StrideNetCore

/// The page's harder questions: changed images, what pixels count, ideal images, and the map.
@Suite(.serialized, .enabled(if: Browser.path != nil, "there is no Chromium on this machine"))
struct ExplorePageTests {
  private static func open(width: Int = 1280, dark: Bool = false) throws -> Browser {
    let place = try Workplace()
    try Network.digits().save(to: place.path + "/w")
    let end = try place.run(["export", "w", "page.html"])
    #expect(end.code == 0 && end.err.isEmpty, "\(end.err)")
    let browser = try Browser(width: width, height: 900, dark: dark)
    browser.owned = place
    try browser.send(
      "Emulation.setEmulatedMedia",
      [
        "features": [
          ["name": "prefers-color-scheme", "value": dark ? "dark" : "light"],
          ["name": "prefers-reduced-motion", "value": "reduce"],
        ]
      ])
    try browser.visit("file://\(place.path)/page.html")
    try browser.wait("rows.length && seen && seen.maps && explore.map")
    return browser
  }

  private static func floats(_ browser: Browser, _ expression: String) throws -> [Float] {
    let text = try browser.text("Promise.resolve(\(expression)).then((x) => base64(floats(x)))")
    let data = try #require(Data(base64Encoded: text))
    return data.withUnsafeBytes { Array($0.bindMemory(to: Float.self)) }
  }

  /// An image that was changed is answered for as the library does it.
  @Test func changedImages() throws {
    let browser = try Self.open()
    let network = Network.digits(runtime: Runtime(kernels: .exact))
    let before = try Self.floats(browser, "seen.values")
    try browser.value("explore.turn(35)")
    try browser.wait("$('turn-now').textContent === '35°' && source.values")
    let values = try Self.floats(browser, "seen.values")
    #expect(values != before)
    let expected = try network.predict(
      Tensor(batch: 1, shape: Shape(28, 28, 1), values)
    ).values
    let shares = try #require(try browser.value("seen.probabilities") as? [Double])
    for (share, other) in zip(shares, expected) { #expect(abs(Float(share) - other) < 1e-4) }
    try browser.value("explore.reset()")
    try browser.wait("$('turn-now').textContent === '0°'")
    #expect(try Self.floats(browser, "seen.values") == before)
    // The class that an image is formed for is what it is taken for, by the library, too.
    try browser.value("explore.ideal(4)")
    try browser.wait("$('ideal-note').textContent.startsWith('The network takes this for a 4')")
    #expect(browser.complaints.isEmpty, "\(browser.complaints)")
  }

  /// The map's numbers are the library's, and its two directions those in which they differ most.
  @Test func theMap() throws {
    let browser = try Self.open(width: 390, dark: true)
    let network = Network.digits(runtime: Runtime(kernels: .exact))
    let test = try Dataset.load("sample").test
    let count = 500
    let hidden = try network.trace(test.batch(0..<count).images).layers.dropLast().last!.output
    let size = hidden.values.count / count
    let found = try Self.floats(browser, "ask('hidden').then((h) => h.values)")
    expectClose(found, hidden.values, within: 1e-3, "hidden values")
    try browser.value("explore.map('pca')")
    try browser.wait("$('map-note').textContent.includes('500 of 500 test images')")
    let note = try browser.text("$('map-note').textContent")
    let guesses = try network.predict(test.batch(0..<count).images).values
    let wrong = (0..<count).count { row in
      let own = guesses[row * 10..<(row + 1) * 10]
      return own.firstIndex(of: own.max()!)! - row * 10 != Int(test.labels[row])
    }
    #expect(note.contains("something else (\(wrong))"), "\(note)")
    // No other two directions have more of the variance: the first two eigenvalues, by Jacobi's way.
    var mean = [Double](repeating: 0, count: size)
    for (i, value) in hidden.values.enumerated() { mean[i % size] += Double(value) / Double(count) }
    var matrix = [[Double]](repeating: [Double](repeating: 0, count: size), count: size)
    for row in 0..<count {
      let own = (0..<size).map { Double(hidden.values[row * size + $0]) - mean[$0] }
      for i in 0..<size { for j in 0..<size { matrix[i][j] += own[i] * own[j] } }
    }
    for _ in 0..<12 {
      for p in 0..<size {
        for q in p + 1..<size where abs(matrix[p][q]) > 1e-12 {
          let angle = 0.5 * atan2(2 * matrix[p][q], matrix[q][q] - matrix[p][p])
          let (c, s) = (cos(angle), sin(angle))
          for k in 0..<size {
            (matrix[k][p], matrix[k][q]) = (
              c * matrix[k][p] - s * matrix[k][q], s * matrix[k][p] + c * matrix[k][q]
            )
          }
          for k in 0..<size {
            (matrix[p][k], matrix[q][k]) = (
              c * matrix[p][k] - s * matrix[q][k], s * matrix[p][k] + c * matrix[q][k]
            )
          }
        }
      }
    }
    let largest = (0..<size).map { matrix[$0][$0] }.sorted(by: >)
    let spread = try #require(
      try browser.value(
        "(({ y }) => [0, 1].map((a) => y.reduce((sum, v, i) => sum + (i % 2 === a ? v * v : 0), 0)))(explore.atlas())"
      ) as? [Double])
    for (found, expected) in zip(spread, largest) {
      #expect(abs(found - expected) < 1e-3 * expected, "\(found), expected \(expected)")
    }
    // Neighbours of t-SNE are of one class far more often than by chance; keys go about in it.
    try browser.value("explore.map('tsne')")
    try browser.wait("$('map-note').textContent.includes('(t-SNE)')")
    let alike = try #require(
      try browser.value(
        """
        (({ y, labels, n }) => labels.filter((label, i) => {
          let best = [Infinity, 0];
          for (let k = 0; k < n; k++) {
            const far = (y[2 * i] - y[2 * k]) ** 2 + (y[2 * i + 1] - y[2 * k + 1]) ** 2;
            if (k !== i && far < best[0]) best = [far, k];
          }
          return labels[best[1]] === label;
        }).length)(explore.atlas())
        """) as? Int)
    #expect(alike > count * 8 / 10, "\(alike)")
    try browser.value("$('map').focus()")
    try browser.press("ArrowRight")
    try browser.wait("$('map-at').textContent.startsWith('Test image')")
    let place = try browser.text("$('map-at').textContent.match(/[0-9]+/)[0]")
    try browser.press("Enter")
    try browser.wait("source.test === \(place)")
    // New weights: it says that it is of the old ones.
    try browser.value("$('step').click()")
    try browser.wait("$('map-note').textContent.startsWith('The network has changed')")
    #expect(try browser.holds("document.documentElement.scrollWidth <= 390"))
    #expect(browser.complaints.isEmpty, "\(browser.complaints)")
  }

  /// The strongest colour is where the slope is the largest, and a covered place costs what it costs
  /// in the library.
  @Test func theAnswersGrounds() throws {
    let browser = try Self.open()
    let network = Network.digits(runtime: Runtime(kernels: .exact))
    var batch = try Dataset.load("sample").test.batch([0])
    let shares = try network.predict(batch.images).values
    let order = shares.indices.sorted { shares[$0] > shares[$1] }
    batch.labels = [Int32(order[1])]
    let slope = try #require(network.trace(batch).inputGradient).values
    let largest = slope.indices.max { abs(slope[$0]) < abs(slope[$1]) }!
    try browser.value("$('saliency-start').click()")
    try browser.wait("!$('saliency').hidden && $('saliency-note').textContent")
    let darkest = try browser.text(
      """
      (() => {
        const canvas = $('saliency'), zoom = canvas.width / 28, data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
        const light = Array.from({ length: 784 }, (_, i) => { const at = 4 * (Math.floor(i / 28) * zoom * canvas.width + (i % 28) * zoom); return data[at] + data[at + 1] + data[at + 2]; });
        return light.indexOf(Math.min(...light));
      })()
      """)
    #expect(darkest == "\(largest)")
    #expect(
      try browser.text("$('saliency-note').textContent")
        .contains("\(order[0]), its guess, and \(order[1]),"))

    let falls = try Self.floats(
      browser, "explore.cover().then((falls) => Float32Array.from(falls))")
    #expect(falls.count == 14 * 14)
    let values = batch.images.values
    for place in [0, 90, falls.indices.max { falls[$0] < falls[$1] }!] {
      let (top, left) = (place / 14 * 2 - 2, place % 14 * 2 - 2)
      let covered = values.indices.map { i in
        (top..<top + 6).contains(i / 28) && (left..<left + 6).contains(i % 28) ? 0.5 : values[i]
      }
      let share = try network.predict(
        Tensor(batch: 1, shape: Shape(28, 28, 1), covered)
      ).values[order[0]]
      #expect(abs(shares[order[0]] - share - falls[place]) < 1e-4, "place \(place)")
    }
    #expect(
      try browser.holds(
        "!$('cover').hidden && $('cover-note').textContent.includes('14 × 14 places')"))

    // What was formed for a class, as it is shown, is taken for it by the library, too.
    try browser.value("$('ideal-class').value = 3; $('ideal-start').click()")
    try browser.wait("$('ideal-note').textContent.startsWith('The network takes this for a 3')")
    let shown = try Self.floats(
      browser,
      "(() => { const c = $('ideal'), data = c.getContext('2d').getImageData(0, 0, 28, 28).data; return Float32Array.from({ length: 784 }, (_, i) => data[4 * i] / 255); })()"
    )
    let taken = try network.predict(Tensor(batch: 1, shape: Shape(28, 28, 1), shown)).values
    #expect(taken.indices.max { taken[$0] < taken[$1] } == 3)
    #expect(browser.complaints.isEmpty, "\(browser.complaints)")
  }

  /// The map of the server's answers, which its page's policy allows to be computed in a worker.
  @Test func theMapOfTheServer() throws {
    let served = try Served()
    let browser = try Browser(width: 1280, height: 900)
    try browser.visit("http://127.0.0.1:\(served.port)/")
    try browser.wait("rows.length && seen && seen.maps && explore.map")
    try browser.value("$('map-pca').click()")
    try browser.wait("explore.atlas()?.isDone && explore.atlas().own && !$('map').hidden")
    // Test image 0 is both one of them and the image above.
    #expect(
      try browser.holds(
        "(({ own, places }) => Math.hypot(own[0] - places[0][0], own[1] - places[0][1]) < 0.1)(explore.atlas())"
      ))
    try browser.value("window.before = explore.atlas().own; explore.turn(40)")
    try browser.wait(
      "(({ own }) => Math.hypot(own[0] - before[0], own[1] - before[1]) > 3)(explore.atlas())")
    #expect(
      browser.complaints.filter { !$0.contains("favicon") }.isEmpty, "\(browser.complaints)")
  }

  @Test func theServersAnswers() throws {
    let served = try Served()
    let (code, answer) = served.ask("hidden")
    #expect(code == 200)
    let all = try #require(answer as? [String: Any])
    let labels = try #require(all["labels"] as? [Int])
    #expect(labels.count == min(1000, all["of"] as? Int ?? 0))
    let values = try #require(Data(base64Encoded: all["values"] as? String ?? ""))
    #expect(values.count == 4 * labels.count * (all["size"] as? Int ?? 0))
    let plan = served.ask("plan", #"{"layers":"conv(4,3) conv(4,40) softmax(10)"}"#)
    let error = (plan.answer as? [String: Any])?["error"] as? [String: Any]
    #expect(plan.code == 200 && error?["index"] as? Int == 1)
  }
}
