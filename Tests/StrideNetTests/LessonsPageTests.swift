import Foundation
import Testing

import StrideNet
@testable import StrideNetLaboratory

/// The page's lessons: what their steps do and say, and quizzes whose answers are the library's.
@Suite(.serialized) struct LessonsPageTests {
  private static let names = [
    "convolution", "groups", "pooling", "percentage", "learning", "wrong", "kernels",
  ]

  private static func open(
    _ network: Network = .digits(), width: Int = 1280, dark: Bool = false
  ) throws -> Browser {
    let place = try Workplace()
    try network.save(to: place.path + "/w")
    let end = try place.run(["export", "w", "page.html"])
    #expect(end.code == 0 && end.err.isEmpty, "\(end.err)")
    let browser = try Browser(width: width, height: 844, dark: dark)
    browser.owned = place
    try browser.visit("file://\(place.path)/page.html")
    try browser.wait("typeof seen !== 'undefined' && seen && $('kernels').value")
    return browser
  }

  /// Waits until a step is there, and returns what it says.
  private static func arrive(_ browser: Browser, _ step: Int) throws -> String {
    try browser.wait("$('lesson').dataset.at === '\(step)'")
    return try browser.text("$('lesson-text').textContent")
  }

  /// Every lesson from its first step to its last question, by the button.
  @Test(.enabled(if: Browser.path != nil, "there is no Chromium on this machine"))
  func allSteps() throws {
    let browser = try Self.open()
    let first = try Dataset.load("sample").test.batch([0])
    let maps = try Network.digits().trace(first.images).layers.map(\.output.values)
    // What a step did with the page, and a part of what it says.
    let done = [
      "convolution 3":
        "marked.row === inputRow && marked.high * marked.wide === 9 && $('explain').hidden",
      "convolution 4": "!$('explain').hidden && explained === rows[0]",
      "convolution 10": "explained === rows[2]",
      "groups 1": "kernels === 'naive' && !showsGroups",
      "groups 5": "showsGroups && $('lesson-text').querySelector('canvas').width === 300",
      "groups 8": "rows[0].told.textContent.includes('9 passes instead of 676 windows')",
      "pooling 3": "explained === rows[1]",
      "pooling 8":
        "source.values && seen.values[200] === source.values[200] && source.test == null",
      "percentage 6": "explained === rows[6] && !$('explain').hidden",
      "learning 1": "seen.label !== seen.probabilities.indexOf(Math.max(...seen.probabilities))",
      "learning 5": "seen.gradients.length === 8",
      "learning 8": "!machine.is_original && !$('undo').disabled && seen.loss < 2",
      "percentage 8": "!$('saliency').hidden && $('saliency').classList.contains('pointed')",
      "learning 10":
        "rows.length === 2 && epochs.length === 1 && film.runs.length === 1 && $('film').classList.contains('pointed') && +$('film-at').value === 0",
      "wrong 1": "machine.is_original && rows.length === 7",
      "wrong 4":
        "rows.length === 3 && epochs[0].test_error > 0.5 && [0.1, 2].every((rate, i) => film.runs.at(i - 2).settings.learning_rate === rate && film.runs.at(i - 2).buttons[i].ariaPressed === 'true')",
      "wrong 6": "points.length > 0 && epochs[0].train_loss > 2",
      "wrong 7": "machine.is_original && rows.length === 7",
      "kernels 3": "document.querySelectorAll('#rungs tr').length === machine.kernels.length + 1",
      "kernels 8": "kernels === 'winograd'",
    ]
    let largest = maps[0].max()!
    let said: [String: (String) -> Bool] = [
      "convolution 3": { number($0, /is ([\d.]+):/, near: Double(largest)) },
      "convolution 9": { $0.contains("160 numbers") && $0.contains("8,479,744") },
      "groups 6": { $0.contains("3 × 3 = 9") },
      "groups 7": { $0.contains("9 × 9 = 81 windows") },
      "pooling 3": { number($0, /largest, ([\d.]+),/, near: Double(maps[1].max()!)) },
      "pooling 5": { $0.contains("2,704") && $0.contains("4 times") },
      "pooling 7": { $0.contains("of 4 rows") && $0.contains("2 rows further") },
      "wrong 1": { $0.contains(grouped(maps[0].filter { $0 == 0 }.count) + " of 10,816") },
      "wrong 4": { $0.firstMatch(of: /Dead: (\d+) of 30/).map { Int($0.1)! > 15 } ?? false },
      "wrong 9": { $0.contains("So the network is nearer") },
      "kernels 2": { $0.contains("97,344 + 557,568 products") },
      "kernels 7": { $0.contains("first copy 17,424 numbers, and direct copies 0") },
    ]
    for name in Self.names {
      try browser.value("document.querySelector('[data-lesson=\(name)]').click()")
      for step in 1...13 {
        let text = try Self.arrive(browser, step)
        #expect(text.count > 40 && !text.contains("undefined") && !text.contains("NaN"), "\(text)")
        #expect(
          try browser.text("$('lesson-where').textContent")
            == (step > 10 ? "question \(step - 10) of 3" : "\(step) of 10"))
        if let done = done["\(name) \(step)"] {
          #expect(try browser.holds(done), "\(name) \(step)")
        }
        if let said = said["\(name) \(step)"] { #expect(said(text), "\(name) \(step): \(text)") }
        try browser.value("$('lesson-next').click()")
      }
      #expect(
        try browser.holds(
          "$('lesson').hidden && $('explain').hidden && !document.querySelector('.pointed')"))
    }
    // What lessons did is undone.
    try browser.wait("machine.is_original && rows.length === 7 && !showsGroups")
    #expect(browser.complaints.isEmpty, "\(browser.complaints)")
  }

  /// Each question answered rightly, by the library's numbers, and wrongly.
  @Test(.enabled(if: Browser.path != nil, "there is no Chromium on this machine"))
  func quizzes() throws {
    let browser = try Self.open()
    for name in Self.names {
      for isRight in [true, false] {
        try browser.value("lessons.open('\(name)', 11)")
        for question in 1...3 {
          let text = try Self.arrive(browser, 10 + question)
          let answer = try Answer(browser).of("\(name) \(question)", text)
          let options =
            try browser.value(
              "[...document.querySelectorAll('#lesson-answers button.answer')].map((b) => b.textContent)"
            ) as? [String] ?? []
          if options.isEmpty {
            let value = try #require(Double(answer))
            try browser.value(
              "$('lesson-answer').value = '\(isRight ? answer : "\(value + 1)")'; document.querySelector('#lesson-answers form button').click()"
            )
          } else {
            let right = try #require(options.indices.min { far(options[$0]) < far(options[$1]) })
            #expect(far(options[right]) < 0.02, "\(name) \(question): \(answer) of \(options)")
            // What is nearest to the library's number.
            func far(_ option: String) -> Double {
              guard let value = numeric(option), let wanted = numeric(answer) else {
                return option == answer ? 0 : .infinity
              }
              return abs(value - wanted) / max(1e-3, abs(wanted))
            }
            let chosen = isRight ? right : (right + 1) % options.count
            try browser.value(
              "document.querySelectorAll('#lesson-answers button.answer')[\(chosen)].click()")
          }
          let reply = try browser.text("$('lesson-reply').textContent")
          #expect(
            reply.hasPrefix(isRight ? "✓ Right." : "✗ Not quite: it is "),
            "\(name) \(question): \(text) \(answer): \(reply)")
          if question == 3 {
            #expect(reply.hasSuffix("You had \(isRight ? 3 : 0) of 3."), "\(reply)")
          }
          try browser.value("$('lesson-next').click()")
        }
      }
    }
    // What is no number is asked for again.
    try browser.value("lessons.open('convolution', 12)")
    _ = try Self.arrive(browser, 12)
    try browser.value("document.querySelector('#lesson-answers form button').click()")
    #expect(
      try browser.holds(
        "$('lesson-reply').textContent.startsWith('Type a number') && !$('lesson-answer').disabled")
    )
    #expect(browser.complaints.isEmpty, "\(browser.complaints)")
  }

  /// With keys alone, on a phone, in the dark, where nothing is to move.
  @Test(.enabled(if: Browser.path != nil, "there is no Chromium on this machine"))
  func keyboardOnAPhone() throws {
    let browser = try Self.open(width: 390, dark: true)
    try browser.send(
      "Emulation.setEmulatedMedia",
      [
        "features": [
          ["name": "prefers-color-scheme", "value": "dark"],
          ["name": "prefers-reduced-motion", "value": "reduce"],
        ]
      ])
    #expect(try browser.holds("$('lessons').getBoundingClientRect().height < 460"))
    for name in ["convolution", "groups", "percentage"] {
      try browser.value("document.querySelector('[data-lesson=\(name)]').focus()")
      try browser.press(" ")
      for step in 1...10 {
        _ = try Self.arrive(browser, step)
        #expect(try browser.holds("document.activeElement === $('lesson-text')"))
        // What is pointed at begins above the panel.
        #expect(
          try browser.holds(
            "((mark, panel) => mark.top >= 0 && mark.top + 40 < panel.top)(document.querySelector('.pointed').getBoundingClientRect(), $('lesson').getBoundingClientRect())"
          ), "\(name) \(step)")
        // Its buttons can be seen.
        #expect(
          try browser.holds("$('lesson-next').getBoundingClientRect().bottom < innerHeight"),
          "\(name) \(step)")
        #expect(try !browser.scrollsSideways(), "\(name) \(step)")
        try browser.press("ArrowRight")
      }
      _ = try Self.arrive(browser, 11)
      try browser.press("ArrowLeft")
      _ = try Self.arrive(browser, 10)
      // The box of a sum first, then the lesson.
      for _ in 0..<2 where try browser.holds("!$('lesson').hidden") { try browser.press("Escape") }
      #expect(
        try browser.holds(
          "$('lesson').hidden && $('explain').hidden && document.activeElement.dataset.lesson === '\(name)'"
        ))
    }
    #expect(browser.complaints.isEmpty, "\(browser.complaints)")
  }

  /// A network without what a lesson is about, and one that somebody trained.
  @Test(.enabled(if: Browser.path != nil, "there is no Chromium on this machine"))
  func otherNetworks() throws {
    let network = Network(try Architecture.layers("flatten relu(12) softmax(10)"), seed: 3)
    try network.build(for: Shape(28, 28, 1))
    let browser = try Self.open(network)
    try browser.value("document.querySelector('[data-lesson=groups]').click()")
    #expect(
      try Self.arrive(browser, 1).contains("needs a convolution whose windows overlap"))
    try browser.value("$('lesson-answers').querySelector('button').click()")
    try browser.wait(
      "rows.length === 7 && $('lesson').dataset.at === '1' && $('lesson-text').textContent.includes('26 × 26 = 676')"
    )
    // It stays for the next ones.
    try browser.value("$('lesson-close').click()")
    try browser.value("document.querySelector('[data-lesson=pooling]').click()")
    #expect(try Self.arrive(browser, 1).contains("16 maps of 26 × 26"))
    // Left in the middle; somebody trains; nothing of theirs is thrown away unasked.
    try browser.value(
      "$('text').value = 'flatten softmax(10)'; $('epochs').value = 1; $('train').click()")
    try browser.wait("rows.length === 2 && epochs.length === 1 && !$('train').disabled")
    try browser.value("lessons.open('percentage')")
    #expect(try Self.arrive(browser, 1).contains("isn't the page's first one"))
    #expect(try browser.holds("rows.length === 2"))
    try browser.value("$('lesson-answers').querySelector('button').click()")
    try browser.wait("rows.length === 3 && $('lesson-text').textContent.startsWith('It says')")
    #expect(browser.complaints.isEmpty, "\(browser.complaints)")
  }

  /// The same lessons where a server answers.
  @Test(.enabled(if: Browser.path != nil, "there is no Chromium on this machine"))
  func byAServer() throws {
    let served = try Served()
    let browser = try Browser(width: 1280, height: 900)
    try browser.visit("http://127.0.0.1:\(served.port)/")
    try browser.wait("typeof seen !== 'undefined' && seen && $('kernels').value")
    for name in ["groups", "percentage", "learning", "wrong", "kernels"] {
      try browser.value("document.querySelector('[data-lesson=\(name)]').click()")
      for step in 1...13 {
        let text = try Self.arrive(browser, step)
        #expect(
          !text.contains("can't be shown") && !text.contains("NaN"), "\(name) \(step): \(text)")
        try browser.value("$('lesson-next').click()")
      }
    }
    try browser.wait("machine.is_original && rows.length === 7")
    #expect(browser.complaints.filter { !$0.contains("favicon") }.isEmpty, "\(browser.complaints)")
  }
}

private func number(_ text: String, _ pattern: Regex<(Substring, Substring)>, near value: Double)
  -> Bool
{
  guard let found = text.firstMatch(of: pattern).flatMap({ Double($0.1) }) else { return false }
  return abs(found - value) < 1e-3 * max(1, abs(value))
}

private func grouped(_ count: Int) -> String {
  count >= 1000 ? "\(count / 1000),\(String(format: "%03d", count % 1000))" : "\(count)"
}

private func numeric(_ text: String) -> Double? {
  Double(text.replacing(",", with: "").replacing(" %", with: ""))
}

/// What the library answers to the page's questions.
private struct Answer {
  let browser: Browser
  let network = Network.digits(runtime: Runtime(kernels: .exact))
  let image: Batch, wish: Int

  init(_ browser: Browser) throws {
    self.browser = browser
    let digit = try #require((try browser.value("source.test") as? NSNumber)?.intValue)
    wish = try #require((try browser.value("wish.label") as? NSNumber)?.intValue)
    let batch = try Dataset.load("sample").test.batch([digit])
    image = Batch(images: batch.images, labels: [Int32(wish)])
  }

  func of(_ question: String, _ text: String) throws -> String {
    let numbers = text.replacing(/layer \d, \w+\([^)]*\)/, with: "").matches(
      of: /\d[\d,]*(\.\d+)?(e-?\d+)?/
    ).compactMap { numeric(String($0.0)) }
    let whole = numbers.map { Int($0) }
    let trace = try network.trace(image)
    let shares = trace.output.values.map(Double.init), shapes = network.shapes
    // Window and products of the convolution that is asked about.
    func layer() -> (places: Int, window: Int, filters: Int, side: Int) {
      let number = Int(text.firstMatch(of: /layer (\d)/)!.1)!
      return number == 1 ? (676, 9, 16, 26) : (121, 144, 32, 11)
    }
    func at(_ from: Int) -> Int {
      let shape = shapes[0]
      return (whole[from] * shape.width + whole[from + 1]) * 16 + whole[from + 2]
    }
    switch question {
    case "convolution 1": return "\(trace.layers[0].output.values[at(0)])"
    case "convolution 2":
      let places = whole[3] - whole[0] + 1
      return "\(places * places)"
    case "convolution 3":
      return "\(try network.summary().layers[layer().filters == 16 ? 0 : 2].parameters)"
    case "groups 1":
      let (size, stride) = (whole[0], whole[2])
      return
        "\(StrideGroups(output: (50, 50), size: (size, size), stride: (stride, stride)).groups.count)"
    case "groups 2":
      let groups = StrideGroups(output: (26, 26), size: (3, 3), stride: (1, 1)).groups
      let places = [(whole[0], whole[1]), (whole[2], whole[3])]
      let same = groups.contains { group in
        places.allSatisfy { place in group.positions.contains { $0 == place } }
      }
      return same ? "Yes" : "No"
    case "groups 3":
      let side = layer().side
      return
        "\(StrideGroups(output: (side, side), size: (3, 3), stride: (1, 1)).groups[0].count)"
    case "pooling 1":
      let largest = numbers.max()!
      #expect(trace.layers[1].output.values.contains { abs(Double($0) - largest) < 1e-3 })
      return "\(largest)"
    case "pooling 2": return "\(whole[0] * whole[0] / 4)"
    case "pooling 3": return "\(trace.layers[0].output.count - trace.layers[1].output.count)"
    case "percentage 1": return "\(100 * shares.sorted()[8])"
    case "percentage 2":
      let classes = text.matches(of: /(\d):/).map { Int($0.1)! }
      return "\(classes.max { shares[$0] < shares[$1] }!)"
    case "percentage 3": return String(format: "%.2f", 100 - 100 * shares.max()!)
    case "learning 1": return "\(-log(shares[wish]))"
    case "learning 2":
      let biases = try network.weights(network.arrays.last!.name)
      return "\(Double(biases[wish]) - 0.1 * (shares[wish] - 1))"
    case "learning 3":
      return trace.inputGradient!.values[whole[0] * 28 + whole[1]] > 0 ? "It grows" : "It falls"
    case "wrong 1":
      #expect(trace.layers[0].output.values[at(0)] == 0)
      return "0"
    case "wrong 2": return "\(trace.inputGradient!.values[whole[0] * 28 + whole[1]])"
    case "wrong 3": return "\(100 * M_E / (M_E + Double(whole[0] - 1)))"
    case "kernels 1": return "\(layer().places * layer().window * layer().filters)"
    case "kernels 2": return "\(layer().places * layer().window)"
    default: return "0"
    }
  }
}
