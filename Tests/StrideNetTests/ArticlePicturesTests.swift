import Foundation
import StrideNet
import Testing

/// The pictures of the tutorial and of the articles on the roofline and on many machines are what the program draws.
@Suite struct ArticlePicturesTests {
  private static let folder = "Sources/StrideNet/StrideNet.docc"
  private static let measured = "Benchmarks/roofline.jsonl"
  private static let machines = "Benchmarks/machines.jsonl"

  /// A document, its pictures, and those that have no rounding in them.
  private static let articles = [
    (
      "Tutorial",
      ["descent", "softmax", "corners", "batch", "filters", "loss", "confusion"].map {
        "tutorial-\($0)"
      }
    ), ("FromFourLoopsToTheRoofline", ["roofline", "roofline-bytes"]),
    ("ManyMachines", ["tree", "cnn", "lenet", "vgg"].map { "machines-\($0)" }),
  ]
  private static let exact =
    ["tutorial-batch", "roofline", "roofline-bytes"]
    + ["tree", "cnn", "lenet", "vgg"].map { "machines-\($0)" }

  @Test func areWhatIsDrawn() throws {
    let place = try Workplace()
    let end = try place.run(
      ["pictures", "."]
        + [Self.measured, Self.machines].map { Documents.root.appending(path: $0).path })
    #expect(end.code == 0 && end.err.isEmpty, "\(end.err)")
    for (name, pictures) in Self.articles {
      let article = try Documents.text("\(Self.folder)/\(name).md")
      for picture in pictures {
        let drawn = String(decoding: try place.read("\(picture).svg"), as: UTF8.self)
        let committed = try Documents.text("\(Self.folder)/Resources/\(picture).svg")
        // Sums are rounded otherwise by other instructions and without the optimiser.
        let (found, expected) = (Self.parts(drawn), Self.parts(committed))
        let changes = drawn == committed ? 0 : found.difference(from: expected).count
        #expect(
          changes <= (Self.exact.contains(picture) ? 0 : expected.count / 20),
          "make pictures draws another \(picture): \(changes) of \(expected.count)")
        #expect(
          article.firstMatch(of: try Regex("!\\[[^\\]]{60,}\\]\\(\(picture)\\.svg\\)")) != nil)
        try check(committed, moves: ["tutorial-descent", "tutorial-corners"].contains(picture))
      }
    }
  }

  private static func parts(_ svg: String) -> [Substring] {
    svg.split { " M,\"\n".contains($0) }
  }

  /// Read by the browser: XML, named, with nothing from elsewhere, letters large enough, lines of
  /// enough contrast on light and dark.
  private func check(_ svg: String, moves: Bool) throws {
    let reader = try ExplainConvTests.Reader(Array(svg.utf8))
    #expect(reader.elements["script"] == nil && svg.contains("role=\"img\""))
    #expect(svg.components(separatedBy: "http").count == 2 && !svg.contains("url("))
    #expect(svg.contains("@keyframes") == moves)
    #expect(svg.contains("prefers-reduced-motion:no-preference") == moves)
    for size in svg.matches(of: /font-size="(\d+)"/) { #expect(Int(size.1)! >= 11) }
    let modes = svg.components(separatedBy: "@media screen and (prefers-color-scheme:dark)")
    #expect(modes.count == 2)
    for mode in modes {
      let colours = Dictionary(
        uniqueKeysWithValues: mode.matches(of: /\.sheet \.(\w+)\{color:#(\w+)\}/).map {
          (String($0.1), Self.brightness(String($0.2)))
        })
      #expect(colours.count == 11)
      for (name, brightness) in colours where name != "paper" && name != "faint" {
        let pair: [Double] = [brightness, colours["paper"]!].sorted()
        let contrast = (pair[1] + 0.05) / (pair[0] + 0.05)
        #expect(contrast >= (name.count > 2 ? 4.5 : 3), "\(name)")
      }
    }
  }

  /// As WCAG has it.
  private static func brightness(_ hex: String) -> Double {
    let digits = hex.count == 3 ? hex.flatMap { [$0, $0] } : Array(hex)
    let parts = stride(from: 0, to: 6, by: 2).map { index -> Double in
      let value = Double(Int(String(digits[index...index + 1]), radix: 16)!) / 255
      return value <= 0.03928 ? value / 12.92 : pow((value + 0.055) / 1.055, 2.4)
    }
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]
  }

  private func texts(_ picture: String) throws -> String {
    try Documents.text("\(Self.folder)/Resources/\(picture).svg")
  }

  /// The numbers that the tutorial prints are those in its pictures.
  @Test func showTheTutorialsNumbers() throws {
    let descent = try texts("tutorial-descent")
    #expect(descent.contains("step 0: output 0.25, loss 0.5625"))
    #expect(descent.contains("step 1: output 0.953125, loss"))
    let softmax = try texts("tutorial-softmax")
    for number in ["0.665", "0.245", "0.090", "−0.335"] { #expect(softmax.contains(">\(number)<")) }
    let labels = try Dataset.load("sample").train.batch(0..<50).labels.map { "\($0)" }
    let batch = try ExplainConvTests.Reader(Array(texts("tutorial-batch").utf8))
    #expect(batch.elements["text"] == 50)
    #expect(try texts("tutorial-batch").matches(of: />(\d)</).map { String($0.1) } == labels)
    #expect(try texts("tutorial-corners").contains("after 500 steps: loss 0.693"))
    // Five hundred digits in the cells, those of the heads aside.
    let confusion = try texts("tutorial-confusion")
    let counts = confusion.matches(of: /font-size="13"[^>]*>(\d+)</).compactMap { Int($0.1) }
    let sum: Int = counts.reduce(0, +)
    #expect(sum == 500 + 2 * 45)
  }

  /// What was measured is what the documents' tables say, on the machine that they name.
  @Test func showTheMeasurements() throws {
    let lines = try Documents.text(Self.measured).split(separator: "\n").map {
      try #require(JSONSerialization.jsonObject(with: Data($0.utf8)) as? [String: Any])
    }
    let article = try Documents.text("\(Self.folder)/FromFourLoopsToTheRoofline.md")
    let readme = try Documents.text("README.md")
    let machine = try #require(lines[0]["machine"] as? String)
    let picture = try texts("roofline")
    #expect(article.contains(machine) && picture.contains(machine))
    let roofs = [lines[0]["peak_gflops"], lines[0]["memory_read"]].map { $0 as? Double }
    #expect(roofs == [262, 33.5])
    #expect(article.contains("262 GFLOP/s") && article.contains("33.5 GB/s"))
    #expect(lines.count == 25)
    for line in lines.dropFirst() {
      let variant = try #require(line["variant"] as? String)
      let kernel = try #require(line["kernel"] as? String)
      let time = try #require(line["milliseconds"] as? Double)
      let shape = try #require(line["shape"] as? String)
      let rate = try #require(line["gflops"] as? Double)
      let isFirst = shape.hasPrefix("cnn")
      let operations: Double = isFirst ? 3_115_008 : 115_605_504
      let share = rate * time * 1e6 / operations
      #expect((0.95...1.05).contains(share), "\(kernel)")
      let pass = kernel.dropFirst(5).dropLast(variant.count + 1).replacing("_", with: " ")
      let row = try #require(
        (isFirst ? readme : article).split(separator: "\n").first {
          $0.hasPrefix(isFirst ? "| \(pass) | " : "| `\(variant)` | ")
        })
      let text = time < 1 ? String(format: "%.3f", time) : "\(time)"
      #expect(row.contains("\(text) ms"), "\(row): \(kernel) \(text)")
    }
  }

  /// The steps that were timed are those of the article's table, on the machine that it names; what
  /// travelled was foreseen.
  @Test func showTheSteps() throws {
    let lines = try Documents.text(Self.machines).split(separator: "\n").map {
      try #require(JSONSerialization.jsonObject(with: Data($0.utf8)) as? [String: Any])
    }
    let article = try Documents.text("\(Self.folder)/ManyMachines.md")
    #expect(article.contains(try #require(lines[0]["machine"] as? String)))
    func number(_ line: [String: Any], _ key: String) throws -> Double {
      try #require(line[key] as? NSNumber).doubleValue
    }
    let steps = lines.dropFirst()
    #expect(steps.count == 24)
    for exact in steps where exact["reduce"] as? String == "exact" {
      let model = try #require(exact["model"] as? String)
      let batch = try number(exact, "batch")
      func time(_ way: String) throws -> Double {
        let line = try #require(
          steps.first {
            $0["reduce"] as? String == way && $0["model"] as? String == model
              && ($0["batch"] as? NSNumber)?.doubleValue == batch
          })
        let (sent, foreseen) = (try number(line, "bytes"), try number(line, "bytes_model"))
        #expect(abs(sent - foreseen) <= 0.05 * foreseen)
        return try number(line, "seconds") * 1e3
      }
      let (threads, two, fast) = (try time("threads"), try time("exact"), try time("fast"))
      let more = Int((100 * (two / threads - 1)).rounded())
      let row =
        "| `\(model)` | \(Int(batch)) | \(String(format: "%.1f ms | %.1f ms", threads, two)), "
        + "\(more < 0 ? "−" : "+")\(abs(more)) % |"
        + String(format: " %.1f ms | %.1f MB |", fast, try number(exact, "bytes") / 1e6)
      #expect(article.contains(row), "\(row)")
    }
  }
}
