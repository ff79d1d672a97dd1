import CKernels
import Foundation
import Testing

import StrideNet

#if canImport(FoundationXML)
  import FoundationXML
#endif

/// `stridenet explain conv`: what it computes, prints and draws.
@Suite struct ExplainConvTests {
  // MARK: The walk

  /// The source's four groups, with the misprint in its first mended.
  @Test func theExampleOfTheSource() throws {
    let walk = try ConvolutionWalk(input: (4, 4), filter: (2, 2))
    #expect(walk.isTheSourcesExample)
    let inputs = walk.groups.indices.map { group in
      (0..<4).map { walk.met(by: $0, in: group) }
    }
    #expect(
      inputs == [
        [[1, 3, 9, 11], [2, 4, 10, 12], [5, 7, 13, 15], [6, 8, 14, 16]],
        [[2, 10], [3, 11], [6, 14], [7, 15]],
        [[5, 7], [6, 8], [9, 11], [10, 12]],
        [[6], [7], [10], [11]],
      ])
    #expect(walk.values == [44, 54, 64, 84, 94, 104, 124, 134, 144])
    #expect(
      (0..<4).map { walk.gathered(0, $0) }.joined().map { Int($0) }
        == [1, 2, 5, 6, 3, 4, 7, 8, 9, 10, 13, 14, 11, 12, 15, 16])
    #expect((0..<4).map { walk.sum(0, $0) } == [44, 64, 124, 144])
    let all = (0..<4).map { row in (0..<4).map { walk.touches((row, $0)) } }
    #expect(all == [[1, 2, 2, 1], [2, 4, 4, 2], [2, 4, 4, 2], [1, 2, 2, 1]])
  }

  struct Case: CustomTestStringConvertible {
    var input: ConvolutionWalk.Size, filter: ConvolutionWalk.Size
    var stride: ConvolutionWalk.Size = (1, 1), padding: ConvolutionWalk.Size = (0, 0)

    var walk: ConvolutionWalk {
      get throws {
        try ConvolutionWalk(input: input, filter: filter, stride: stride, padding: padding)
      }
    }

    var testDescription: String {
      [input, filter, stride, padding].map { "\($0.height)x\($0.width)" }.joined(separator: " ")
    }
  }

  static let cases: [Case] = [
    Case(input: (4, 4), filter: (2, 2)),
    Case(input: (1, 1), filter: (1, 1)),
    Case(input: (1, 1), filter: (3, 3), padding: (1, 1)),
    Case(input: (5, 5), filter: (1, 1), stride: (2, 3)),
    Case(input: (5, 7), filter: (3, 3), stride: (2, 2), padding: (1, 1)),
    Case(input: (7, 5), filter: (3, 2), stride: (1, 2), padding: (2, 0)),
    Case(input: (9, 8), filter: (2, 5), stride: (3, 2), padding: (1, 4)),
    Case(input: (10, 10), filter: (3, 3), stride: (3, 3)),
    Case(input: (11, 9), filter: (2, 2), stride: (3, 5)),
    Case(input: (6, 6), filter: (6, 6)),
    Case(input: (8, 1), filter: (5, 1), stride: (2, 1), padding: (4, 0)),
    Case(input: (28, 28), filter: (5, 5), stride: (2, 2)),
    Case(input: (20, 40), filter: (3, 17)),
  ]

  /// Against the convolution's definition, in whole numbers.
  @Test(arguments: cases) func theDefinition(c: Case) throws {
    let walk = try c.walk
    let (input, filter) = (c.input, c.filter)
    let rows = (input.height + 2 * c.padding.height - filter.height) / c.stride.height + 1
    let columns = (input.width + 2 * c.padding.width - filter.width) / c.stride.width + 1
    #expect(walk.output == (rows, columns))
    var seen = Set<[Int]>()
    var all: [[Int]: Int] = [:]
    for (index, group) in walk.groups.enumerated() {
      var held: [[Int]: Int] = [:]
      for window in 0..<group.count {
        let (p, q) = group.position(window)
        #expect(seen.insert([p, q]).inserted, "a position twice")
        var (values, sum) = ([Int](), 0)
        for i in 0..<filter.height {
          for j in 0..<filter.width {
            let row = p * c.stride.height + i - c.padding.height
            let column = q * c.stride.width + j - c.padding.width
            let isInside = row >= 0 && row < input.height && column >= 0 && column < input.width
            let number = isInside ? row * input.width + column + 1 : 0
            #expect(walk.met(by: i * filter.width + j, in: index)[window] == number)
            values.append(number)
            sum += number * ((i * filter.width + j) % 9 + 1)
            held[[row, column], default: 0] += 1
            all[[row, column], default: 0] += isInside ? 1 : 0
            #expect(group.window(at: (row, column)) == window)
          }
        }
        #expect(walk.gathered(index, window) == values.map { Float($0) })
        #expect(walk.sum(index, window) == Float(sum))
      }
      #expect(held.values.allSatisfy { $0 == 1 }, "an input twice in a group")
    }
    #expect(seen.count == rows * columns)
    for row in 0..<input.height {
      for column in 0..<input.width {
        #expect(walk.touches((row, column)) == all[[row, column]] ?? 0)
        #expect(
          walk.groups.allSatisfy { group in
            group.window(at: (row, column)).map { window in
              (0..<filter.height * filter.width).contains {
                group.input($0, window) == (row, column)
              }
            } ?? true
          })
      }
    }
  }

  /// How often an input is touched, by the kernels: with weights and gradients of 1 that is what the
  /// backward pass gives.
  @Test(arguments: cases) func touchesAreTheKernels(c: Case) throws {
    let walk = try c.walk
    let s = Self.shape(walk)
    let ones = [Float](repeating: 1, count: s.weights)
    let x = [Float](repeating: 0, count: s.inputs)
    let places = (0..<s.inputs).map { ($0 / c.input.width, $0 % c.input.width) }
    for kernel in ConvVariant.all {
      func gradient(_ dy: [Float]) -> [Int] {
        ConvolutionTests.run(kernel, CK_INPUT_GRADIENT, s, x: x, w: ones, y: dy).map { Int($0) }
      }
      #expect(
        gradient([Float](repeating: 1, count: s.outputs)) == places.map { walk.touches($0) })
      for group in walk.groups {
        var dy = [Float](repeating: 0, count: s.outputs)
        for (row, column) in group.positions { dy[row * walk.output.width + column] = 1 }
        #expect(gradient(dy) == places.map { group.window(at: $0) == nil ? 0 : 1 })
      }
    }
  }

  static func shape(_ walk: ConvolutionWalk) -> ck_conv_shape {
    ck_conv_shape(
      n: 1, h: Int32(walk.input.height), w: Int32(walk.input.width), c: 1,
      fh: Int32(walk.filter.height), fw: Int32(walk.filter.width), f: 1,
      sh: Int32(walk.stride.height), sw: Int32(walk.stride.width),
      ph: Int32(walk.padding.height), pw: Int32(walk.padding.width),
      oh: Int32(walk.output.height), ow: Int32(walk.output.width), dh: 1, dw: 1, groups: 1)
  }

  /// The kernels' own workspaces bear the formulas out, and every kernel gives these values.
  @Test(arguments: cases) func costs(c: Case) throws {
    let walk = try c.walk
    let s = Self.shape(walk)
    #expect(walk.costs.map(\.variant) == KernelChoice.convolutions.map(\.name))
    let products = walk.values.count * walk.weights.count
    let inside = walk.groups.indices.reduce(0) { sum, group in
      sum + walk.weights.indices.reduce(0) { $0 + walk.met(by: $1, in: group).count { $0 > 0 } }
    }
    for (cost, kernel) in zip(walk.costs, ConvVariant.all) {
      #expect(
        ConvolutionTests.run(
          kernel, CK_FORWARD, s, x: walk.pixels, w: walk.weights,
          y: [Float](repeating: 0, count: s.outputs)) == walk.values)
      let workspace = kernel.workspace(s, CK_FORWARD) * 4
      switch cost.variant {
      case "naive":
        #expect(cost.passes == walk.values.count && cost.multiplyAdds == inside)
        #expect(cost.gatheredBytes == 0 && workspace == 0)
      case "stride_groups":
        #expect(cost.passes == walk.groups.count && cost.multiplyAdds == products)
        #expect(cost.gatheredBytes == 4 * products)
        // Long rows without padding go straight to the product.
        let isWritten = walk.filter.width < 16 || walk.padding != (0, 0)
        #expect(cost.heldBytes == (isWritten ? 4 * walk.groups[0].count * walk.weights.count : 0))
        let padded =
          (c.input.height + 2 * c.padding.height) * (c.input.width + 2 * c.padding.width)
        #expect(cost.heldBytes <= 4 * padded)
      case "im2col":
        #expect(cost.passes == 1 && cost.multiplyAdds == products)
        #expect(cost.gatheredBytes == 4 * products && cost.heldBytes == 4 * products)
      default:
        #expect(cost.passes == 1 && (inside...products).contains(cost.multiplyAdds))
        #expect((cost.gatheredBytes == 0) == (c.padding == (0, 0)))
        #expect(workspace >= cost.heldBytes)
      }
    }
  }

  /// Where values start again, sums stay exact: else the walk would throw.
  @Test func sumsStayExact() throws {
    let walk = try ConvolutionWalk(input: (1024, 1024), filter: (3, 3))
    #expect(walk.groups.count == 9 && walk.pixels.max()! < 1024 * 1024)
    #expect(walk.values.max()! < 16_777_216)
    #expect(walk.values.count == 1022 * 1022)
  }

  @Test func names() {
    #expect(
      [0, 25, 26, 51, 52, 701, 702].map(ConvolutionWalk.letter)
        == ["A", "Z", "AA", "AZ", "BA", "ZZ", "AAA"])
  }

  // MARK: Text

  @Test func text() throws {
    let place = try Workplace()
    let end = try place.run("explain", "conv", "--input", "4x4", "--filter", "2x2")
    #expect(end.code == 0 && end.err == "")
    for phrase in [
      "9 positions in 4 stride groups", "E = A × (1, 3, 9, 11)", "G = C × (5, 7, 13, 15)",
      "H = D × (7, 15)", "F = B × (6, 8)", "H = D × (11)", "├─────────┼─────────┤",
      "prints C × (5, 7, 9, 11) in group 1: a misprint", "124    ·  144", "2  4  4  2",
      "stride_groups       4     144 B       64 B             36",
    ] { #expect(end.out.contains(phrase), "\(phrase)\n\(end.out)") }
    #expect(!end.out.contains("\u{1b}"))
    #expect(end.lines.allSatisfy { $0.count <= 112 })
    // Other sizes aren't the source's.
    #expect(try !place.run("explain", "conv", "--stride", "2").out.contains("misprint"))
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
        + .init(repeating: "kernel", count: 4))
    #expect(events[0]["values"] as? [Float] == walk.values)
    #expect(events[0]["padding"] as? [Int] == [1, 1] && events[0]["note"] == nil)
    for group in 0..<4 {
      let event = events[1 + group]
      #expect(event["inputs"] as? [[Int]] == (0..<9).map { walk.met(by: $0, in: group) })
      #expect(
        event["positions"] as? [[Int]] == walk.groups[group].positions.map { [$0.row, $0.column] })
    }
    #expect(events.suffix(4).map { $0["multiply_adds"] as? Int } == walk.costs.map(\.multiplyAdds))
    #expect(try place.run("explain", "conv", "--json").json[0]["note"] is String)
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

  @Test(arguments: cases.filter { max($0.input.height, $0.input.width) <= 12 })
  func pictures(c: Case) throws {
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
    #expect(still.texts.contains("stride_groups"))
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
    let article = try DocumentationTests.text("\(folder)/StrideGroupsStepByStep.md")
    for name in names {
      let committed = try DocumentationTests.text("\(folder)/Resources/\(name)")
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
