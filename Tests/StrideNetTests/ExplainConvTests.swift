import Foundation
import Testing

import StrideNet

#if canImport(FoundationXML)
  import FoundationXML
#endif

/// `stridenet explain conv`: what it prints, draws and refuses.
@Suite struct ExplainConvTests {
  // MARK: Text

  @Test func text() throws {
    let place = try Workplace()
    let arguments = ["explain", "conv", "--input", "4x4", "--filter", "2x2"]
    let end = try place.run(arguments, environment: ["COLUMNS": "112"])
    #expect(end.code == 0 && end.err == "")
    #expect(try place.run(arguments).lines.allSatisfy { $0.count <= 80 })
    for phrase in [
      "9 positions in 4 stride groups", "E = A × (1, 3, 9, 11)", "G = C × (5, 7, 13, 15)",
      "H = D × (7, 15)", "F = B × (6, 8)", "H = D × (11)", "├─────────┼─────────┤",
      "prints C × (5, 7, 9, 11) in group 1: a misprint", "124    ·  144", "2  4  4  2",
      "stride_groups       4     144 B       64 B             36",
      "winograd            1       0 B        0 B             36  as direct",
      "winograd does not apply", "direct is taken.",
    ] { #expect(end.out.contains(phrase), "\(phrase)\n\(end.out)") }
    #expect(!end.out.contains("\u{1b}"))
    #expect(end.lines.allSatisfy { $0.count <= 112 })
    // Other sizes aren't the source's.
    #expect(try !place.run("explain", "conv", "--stride", "2").out.contains("misprint"))
  }

  @Test func winograd() throws {
    let place = try Workplace()
    let end = try place.run("explain", "conv", "--input", "5x6", "--filter", "3")
    #expect(end.code == 0 && end.err == "")
    for phrase in [
      "16 multiplications, not 4 × 9 = 36", "The first of 4 tiles:", "y = Aᵀ M A   naive's output",
      "  474  519     474  519\n  744  789     744  789\n", "\n\ny is naive's output.\n",
      "V(1,1) = (8 + 14) + (9 + 15) = 46",
    ] { #expect(end.out.contains(phrase), "\(phrase)\n\(end.out)") }
    let lines = end.lines.drop { $0 != "4  Winograd" }.prefix { !$0.hasPrefix("5 ") }
    #expect(lines.count > 30 && lines.allSatisfy { $0.count <= 80 })
    let over = try place.run("explain", "conv", "--input", "1", "--filter", "3", "--padding", "1")
    #expect(over.out.contains("The only tile:"))
    #expect(over.out.contains("  5  4         5  ·\n  2  1         ·  ·\n"))
    #expect(over.out.contains("y is naive's output, where there is one (not ·)."))
  }

  /// Colours on a terminal alone, and not where they aren't wanted. (`script` is a terminal.)
  @Test(.enabled(if: FileManager.default.isExecutableFile(atPath: "/usr/bin/script")))
  func colours() throws {
    let place = try Workplace()
    let shell = ["/bin/sh", "-c", #"exec /usr/bin/script -qec "$0 explain conv" /dev/null"#]
    func out(_ environment: [String: String]) throws -> String {
      try place.run([], shell: shell, environment: environment).out
    }
    #expect(try out(["TERM": "xterm", "NO_COLOR": ""]).contains("\u{1b}[36m"))
    #expect(try !out(["TERM": "xterm", "NO_COLOR": "1"]).contains("\u{1b}"))
    #expect(try !out(["TERM": "dumb", "NO_COLOR": ""]).contains("\u{1b}"))
  }

  @Test func largeOnesAreCutShort() throws {
    let place = try Workplace()
    let end = try place.run(
      "explain", "conv", "--input", "300x1000", "--filter", "9", "--stride", "2x1")
    #expect(end.code == 0 && end.lines.count < 240 && end.out.utf8.count < 40_000)
    #expect(end.out.contains("… and 41 more groups") && end.out.contains("stride_groups"))
  }

  @Test func json() throws {
    let place = try Workplace()
    let end = try place.run(
      "explain", "conv", "--input", "5x7", "--filter", "3", "--stride", "2", "--padding", "1",
      "--json")
    let walk = try ConvolutionWalk(
      input: (5, 7), filter: (3, 3), stride: (2, 2), padding: (1, 1))
    let events = end.json
    #expect(
      events.map { $0["event"] as? String }
        == ["convolution"] + .init(repeating: "group", count: 4)
        + ["winograd"] + .init(repeating: "kernel", count: 5))
    #expect(events[0]["values"] as? [Float] == walk.values)
    #expect(events[0]["padding"] as? [Int] == [1, 1] && events[0]["note"] == nil)
    for group in 0..<4 {
      let event = events[1 + group]
      #expect(event["inputs"] as? [[Int]] == (0..<9).map { walk.met(by: $0, in: group) })
      #expect(
        event["positions"] as? [[Int]] == walk.groups[group].positions.map { [$0.row, $0.column] })
    }
    #expect((events[5]["note"] as? String)?.contains("does not apply") == true)
    #expect(events.suffix(5).map { $0["multiply_adds"] as? Int } == walk.costs.map(\.multiplyAdds))
    #expect(try place.run("explain", "conv", "--json").json[0]["note"] is String)
  }

  @Test func jsonOfTiles() throws {
    let place = try Workplace()
    let events = try place.run(
      "explain", "conv", "--input", "5x4", "--filter", "3", "--padding", "1", "--json"
    ).json
    let walk = try ConvolutionWalk(input: (5, 4), filter: (3, 3), padding: (1, 1))
    let first = try #require(events.firstIndex { $0["event"] as? String == "winograd" })
    #expect(events[first]["tiles"] as? [Int] == [3, 2] && events[first]["note"] == nil)
    #expect(events[first]["filter"] as? [[Double]] == walk.tile(0, 0).filters[0].whole)
    for index in 0..<6 {
      let (event, tile) = (events[first + 1 + index], walk.tile(index / 2, index % 2))
      #expect(event["event"] as? String == "tile")
      #expect(event["position"] as? [Int] == [index / 2 * 2, index % 2 * 2])
      #expect(event["inputs"] as? [[Double]] == tile.inputs[0].matrix)
      #expect(event["transformed"] as? [[Double]] == tile.inputs[0].whole)
      #expect(event["products"] as? [[Double]] == tile.outputs.matrix)
      #expect(event["outputs"] as? [[Double]] == tile.outputs.whole)
    }
    #expect(events.count == first + 7 + 5)
  }

  // MARK: Pictures

  /// The texts and elements of an XML document, or where it isn't one.
  final class Reader: NSObject, XMLParserDelegate {
    var texts: [String] = []
    var elements: [String: Int] = [:]
    private var isText = false

    init(_ bytes: [UInt8]) throws {
      super.init()
      let parser = XMLParser(data: Data(bytes))
      parser.delegate = self
      try #require(parser.parse(), "\(parser.parserError.debugDescription)")
    }

    func parser(
      _ parser: XMLParser, didStartElement name: String, namespaceURI: String?,
      qualifiedName: String?, attributes: [String: String]
    ) {
      elements[name, default: 0] += 1
      isText = isText && name == "tspan" || name == "text"
      if name == "text" { texts.append("") }
      for value in attributes.values {
        #expect(!value.contains("nan") && !value.contains("inf"), "\(name): \(value)")
      }
    }

    func parser(
      _ parser: XMLParser, didEndElement name: String, namespaceURI: String?, qualifiedName: String?
    ) {
      if name == "text" { isText = false }
    }

    func parser(_ parser: XMLParser, foundCharacters text: String) {
      if isText { texts[texts.count - 1] += text }
    }
  }

  @Test(
    arguments: ConvolutionWalkTests.cases.filter { max($0.input.height, $0.input.width) <= 12 })
  func pictures(c: ConvolutionWalkTests.Case) throws {
    let place = try Workplace()
    let walk = try c.walk
    func pair(_ size: ConvolutionWalk.Size) -> String { "\(size.height)x\(size.width)" }
    let end = try place.run(
      "explain", "conv", "--input", pair(c.input), "--filter", pair(c.filter), "--stride",
      pair(c.stride), "--padding", pair(c.padding), "--svg", "a.svg", "--animate", "b.svg")
    guard max(c.input.height + 2 * c.padding.height, c.input.width + 2 * c.padding.width) <= 16
    else {
      #expect(end.code == 64 && end.err.contains("too large for a picture"))
      return
    }
    #expect(end.code == 0 && end.out.contains("wrote a.svg") && end.out.contains("wrote b.svg"))
    for name in ["a.svg", "b.svg"] {
      let bytes = try place.read(name)
      let source = String(decoding: bytes, as: UTF8.self)
      let picture = try Reader(bytes)
      #expect(picture.elements["svg"] == 1 && picture.elements["script"] == nil)
      for number in 1...c.input.height * c.input.width {
        #expect(picture.texts.contains("\(number)"), "\(name) lacks \(number)")
      }
      for window in 0..<min(6, walk.groups[0].count) {
        #expect(picture.texts.contains("\(Int(walk.sum(0, window)))"), "\(name)")
      }
      #expect(source.contains("prefers-color-scheme:dark"))
      #expect(source.contains("@keyframes") == (name == "b.svg"))
      #expect(source.contains("prefers-reduced-motion") == (name == "b.svg"))
      // Nothing from elsewhere.
      #expect(!source.contains("href") && !source.contains("url("))
      #expect(source.components(separatedBy: "http").count == 2, "more than the namespace")
    }
    let list = walk.met(by: 0, in: 0, first: 5).map(String.init).joined(separator: ", ")
    let still = try Reader(place.read("a.svg"))
    #expect(still.texts.contains { $0.contains(" = A × (\(list)") })
    #expect(still.texts.contains("stride_groups") && still.texts.contains("winograd"))
    #expect(still.texts.contains("y = Aᵀ M A") == walk.isWinograd)
    #expect(still.texts.contains(walk.isWinograd ? "11.25" : "Winograd: fewer multiplications"))
  }

  @Test func theMisprintIsInThePicture() throws {
    let place = try Workplace()
    _ = try place.run("explain", "conv", "--svg", "a.svg")
    let texts = try Reader(place.read("a.svg")).texts
    #expect(texts.contains("G = C × (5, 7, 13, 15)"))
    #expect(texts.contains { $0.contains("(5, 7, 9, 11) in group 1: a misprint") })
  }

  /// The article's pictures are what the command draws.
  @Test func theArticlesPictures() throws {
    let place = try Workplace()
    let names = ["stride-groups.svg", "stride-groups-animated.svg"]
    let end = try place.run(
      "explain", "conv", "--input", "4x4", "--filter", "2x2", "--svg", names[0], "--animate",
      names[1])
    #expect(end.code == 0)
    let folder = "Sources/StrideNet/StrideNet.docc"
    let article = try Documents.text("\(folder)/StrideGroupsStepByStep.md")
    for name in names {
      let committed = try Documents.text("\(folder)/Resources/\(name)")
      #expect(
        committed == String(decoding: try place.read(name), as: UTF8.self),
        "stridenet explain conv --input 4x4 --filter 2x2 writes another \(name)")
      #expect(article.contains("](\(name))"))
    }
  }

  // MARK: Errors

  static let errors: [(arguments: String, code: Int32, phrases: [String])] = [
    ("--input 3 --filter 4", 64, ["larger than its input", "a filter of 4×4", "at most 3×3"]),
    ("--input 3x9 --filter 6 --padding 1", 64, ["larger than its input", "at most 5×11"]),
    ("--input 0", 64, ["input out of range", "0×0", "1 … 1024"]),
    ("--input 4x0", 64, ["input out of range", "4×0"]),
    ("--input=-4", 64, ["input out of range", "-4×-4"]),
    ("--input 1025", 64, ["input out of range", "1 … 1024"]),
    ("--input 99999999999999999999", 64, ["no size: --input", "'99999999999999999999'"]),
    ("--input 4x4x1", 64, ["no size: --input", "'4x4x1'", "--input 3x3"]),
    ("--input 4×4", 64, ["no size: --input"]),
    ("--filter x", 64, ["no size: --filter", "'x'"]),
    ("--filter 0", 64, ["filter out of range"]),
    ("--stride 0", 64, ["stride out of range"]),
    ("--stride 1x-1", 64, ["stride out of range"]),
    ("--padding=-1", 64, ["padding out of range", "-1×-1"]),
    ("--padding 2", 64, ["padding out of range", "less than the filter, 2×2", "zeros alone"]),
    ("--input 1024 --filter 300", 64, ["too large to be followed", "at most 100000000"]),
    ("--input 400 --filter 3 --json", 64, ["too large for JSON", "1,000,000"]),
    ("--input 17 --svg a.svg", 64, ["too large for a picture", "17×17", "at most 16×16"]),
    (
      "--input 16 --padding 1 --animate a.svg", 64,
      ["too large for a picture", "18×18, padding included"]
    ),
    ("--svg no/a.svg", 73, ["can't be created", "no/a.svg"]),
    ("--svg a.svg --animate no/b.svg", 73, ["can't be created", "no/b.svg"]),
    ("--svg a.svg --animate ./a.svg", 64, ["two pictures in one file", "./a.svg"]),
    ("--svg digits", 73, ["can't be created", "digits"]),
    ("4x4", 64, ["Unexpected argument '4x4'"]),
  ]

  @Test(arguments: errors) func refuses(arguments: String, code: Int32, phrases: [String]) throws {
    let place = try Workplace()
    let before = try place.names
    let end = try place.run(["explain", "conv"] + arguments.split(separator: " ").map(String.init))
    #expect(end.code == code && end.out == "", "\(end.err)")
    for phrase in phrases { #expect(end.err.contains(phrase), "\(end.err)") }
    #expect(try place.names == before, "nothing is left behind")
  }

  /// A full disk: the picture that was there stays.
  @Test func noHalfPicture() throws {
    let place = try Workplace()
    try place.write("a.svg", "old")
    let end = try place.run(
      ["explain", "conv", "--svg", "a.svg"],
      shell: ["/bin/sh", "-c", "ulimit -f 1; exec \"$0\" \"$@\""])
    #expect(end.code == 74 && end.err.contains("writing failed"))
    #expect(try place.read("a.svg") == Array("old".utf8))
    #expect(try place.names.allSatisfy { !$0.hasSuffix(".tmp") })
  }
}
