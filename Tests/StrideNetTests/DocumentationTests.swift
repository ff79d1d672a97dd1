import Foundation
import StrideNet  // not @testable: the README's examples may use what is public alone
import Testing

/// The README's activation of one's own.
extension Activation {
  static let square = Activation("square", { $0 * $0 }, derivative: { x, _ in 2 * x })
}

/// What the README and the articles say is what there is: their examples are compiled and run here,
/// in ArticleTests and in TutorialTests, their commands are accepted, their links lead somewhere.
@Suite struct DocumentationTests {
  // MARK: Examples

  @Test func firstNetwork() throws {
    let path = FileManager.default.temporaryDirectory.appending(path: "\(UUID()).safetensors").path
    defer { try? FileManager.default.removeItem(atPath: path) }

    let network = Network {
      Conv2D(32, 3)  // 32 filters of 3×3, stride 1, no padding, then ReLU
      MaxPool2D(2)  // the largest of each 2×2 window
      Flatten()
      Dense(100)  // 100 outputs, ReLU
      Dense(10, activation: .softmax)  // a probability for each digit
    }

    let data = try Dataset.load("sample")
    let batch = data.train.batch(0..<32)

    let (layers, cce, ce) = try network.train(batch, learningRate: 0.1)
    let (output, testCCE, testCE) = try network.evaluate(batch.images, batch.labels)
    let probabilities = try network.predict(batch.images)

    #expect(cce.isFinite && testCCE.isFinite && testCE < ce)
    #expect(output.values == probabilities.values && output.batch == 32 && output.shape.count == 10)

    try network.restore(layers)
    try network.save(to: path)
    let same = try Network.load(from: path)

    #expect(same.snapshot().sha256 == layers.sha256)
    #expect(network.layers.count == 5)
  }

  @Test func trainer() throws {
    let network = Network {
      Flatten(); Dense(10, activation: .softmax)
    }
    let sample = try Dataset.load("sample")
    let data = try Dataset(
      name: "few", source: "few", train: sample.train.prefix(100), test: sample.test.prefix(100))

    var settings = TrainingSettings()
    settings.epochs = 5
    let trainer = try Trainer(network, data, settings)
    trainer.onEpoch { print($0.epoch, $0.testCCE, $0.testCE) }
    try trainer.run()

    #expect(trainer.results.count == 5)
  }

  @Test func ownActivation() throws {
    let network = Network {
      Flatten(); Dense(4, activation: .square); Dense(2, activation: .softmax)
    }
    let batch = Batch(
      images: try Tensor(batch: 1, shape: Shape(2, 2, 1), [1, 2, 3, 4]), labels: [1])
    let before = try network.train(batch, learningRate: 0.01).cce
    #expect(try network.train(batch, learningRate: 0.01).cce < before)
  }

  @Test func strideGroups() throws {
    let groups = StrideGroups(output: (3, 3), size: (2, 2), stride: (1, 1)).groups
    for (element, inputs) in zip("ABCD", groups[0].inputs) {
      print(element, inputs.map { $0.row * 4 + $0.column + 1 })  // A [1, 3, 9, 11] …
    }

    let readme = try Documents.text("README.md")
    for (index, element) in "ABCD".enumerated() {
      let cells = groups.map { group in
        group.inputs[index].map { "\($0.row * 4 + $0.column + 1)" }.joined(separator: " ")
      }
      #expect(readme.contains("| \(element) meets | \(cells.joined(separator: " | ")) |"))
    }
  }

  /// Each Swift block of a document stands in a file of the tests, spaces and imports aside.
  @Test func examplesAreCompiled() throws {
    func normal(_ code: String) -> String {
      code.split(separator: "\n").filter { !$0.hasPrefix("import ") }.joined(separator: " ")
        .split(whereSeparator: \.isWhitespace).joined(separator: " ")
    }
    let folder = "Tests/StrideNetTests"
    let compiled = try FileManager.default
      .contentsOfDirectory(atPath: Documents.root.appending(path: folder).path)
      .filter { $0.hasSuffix(".swift") }.map { normal(try Documents.text("\(folder)/\($0)")) }
    let blocks = try Documents.blocks("swift", in: Documents.all)
      .filter { !$0.hasPrefix("// swift-tools-version") }
    #expect(blocks.count >= 40)
    for block in blocks {
      #expect(compiled.contains { $0.contains(normal(block)) }, "in no test:\n\(block)")
    }
  }

  /// The manifest of a package that depends on this one is one that the package manager reads.
  @Test func manifestIsRead() throws {
    let manifests = try Documents.blocks("swift").filter { $0.hasPrefix("// swift-tools-version") }
    #expect(manifests.count == 1)
    let folder = FileManager.default.temporaryDirectory.appending(path: "\(UUID())")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: folder) }
    for manifest in manifests {
      try manifest.write(
        to: folder.appending(path: "Package.swift"), atomically: true, encoding: .utf8)
      let (code, output) = try Self.run(["swift", "package", "dump-package"], in: folder)
      #expect(code == 0 && output.contains("stridenet"), "\(output)")
    }
  }

  // MARK: Links and lists

  @Test(arguments: Documents.pages) func linksLeadSomewhere(page: String) throws {
    let links = try Documents.text(page).matches(of: /\]\(([^)]+)\)/).map { String($0.1) }
      .filter { !$0.hasPrefix("http") }
    #expect(page != "README.md" || links.count >= 10)
    for link in links {
      #expect(
        FileManager.default.fileExists(atPath: Documents.root.appending(path: link).path), "\(link)"
      )
    }
  }

  /// The kernel variants of the C list, the manifest and the README are the same.
  @Test func variantsAreListedEverywhere() throws {
    let names = KernelChoice.names.filter { !["exact", "auto"].contains($0) }
    let list = names.map { "\"\($0)\"" }.joined(separator: ", ")
    #expect(try Documents.text("Package.swift").contains("let variants = [\(list)]"))
    for name in names {
      #expect(try Documents.text("README.md").contains("| [`\(name)`](CKernels/"))
    }
  }

  /// What `--layers` has names for is in the article on layers.
  @Test func layersAreListed() throws {
    let article = try Documents.text("Sources/StrideNet/StrideNet.docc/Layers.md")
    // What may be written there is in the errors.
    for text in ["?", "activation(?)", "dense(1,init=?)"] {
      let error = #expect(throws: StrideNetError.self) { try Architecture.layers(text) }
      let names = try #require(error?.expected).components(separatedBy: ", ")
      #expect(names.count >= 8)
      for name in names {
        #expect(article.contains("`\(name)`") || article.contains("`\(name)("), "\(name)")
      }
    }
  }

  /// `train --help` has each layer with its arguments, by the grammar that the parser goes by: those
  /// outside of [] are what it takes, and fewer are too few.
  @Test func layersAreInTheHelp() throws {
    let place = try Workplace()
    let help = try place.run("train", "--help").out
    let error = #expect(throws: StrideNetError.self) { try Architecture.layers("?") }
    let names = try #require(error?.expected).components(separatedBy: ", ")
    let examples = [
      "filters": "8", "size": "3", "outputs": "10", "activation": "gelu", "rate": "0.5",
      "layers": "flatten", "stride": "1", "padding": "same", "slope": "0.1", "init": "he_normal",
      "dilation": "1", "groups": "1", "momentum": "0.1", "epsilon": "0.1",
      "ceil_mode": "true", "count_include_pad": "false",
    ]
    for name in names {
      let line = try #require(
        help.split(separator: "\n").first { $0 == "  \(name)" || $0.hasPrefix("  \(name)(") })
      let words = line.dropFirst(2 + name.count).split(
        separator: "[", omittingEmptySubsequences: false)
      func arguments(_ part: Substring) -> [String] {
        part.split { "(),]|".contains($0) }.map(String.init)
      }
      let required = words.first.map(arguments) ?? []
      let values = try required.map { try #require(examples[$0]) }
      _ = try Architecture.layers("\(name)(\(values.joined(separator: ",")))")
      if !values.isEmpty {
        #expect(throws: StrideNetError.self) {
          try Architecture.layers("\(name)(\(values.dropLast().joined(separator: ",")))")
        }
      }
      guard words.count > 1, name != "residual" else { continue }
      for argument in arguments(words[1]) {
        // A slope is for one activation alone.
        let leaky = argument == "slope" && name != "leaky_relu"
        let given = zip(required, values).map {
          "\($0)=\(leaky && $0 == "activation" ? "leaky_relu" : $1)"
        }
        let more = leaky && !required.contains("activation") ? ["activation=leaky_relu"] : []
        let text = (given + more + ["\(argument)=\(try #require(examples[argument]))"]).joined(
          separator: ",")
        #expect(throws: Never.self, "\(name)(\(text))") {
          try Architecture.layers("\(name)(\(text))")
        }
      }
    }
  }

  /// The catalogue's first page leads to every article and every public type.
  @Test func everythingIsCurated() throws {
    let page = try Documents.text("Sources/StrideNet/StrideNet.docc/StrideNet.md")
    for article in Documents.articles.map({
      URL(filePath: $0).deletingPathExtension().lastPathComponent
    }
    )
    where article != "StrideNet" {
      #expect(page.contains("- <doc:\(article)>\n"))
    }
    var types: [String] = []
    for file in try FileManager.default.subpathsOfDirectory(
      atPath: Documents.root.appending(path: "Sources").path)
    where file.hasPrefix("StrideNet") && file.hasSuffix(".swift") {
      let source = try Documents.text("Sources/\(file)")
      types += source.matches(
        of: /(?m)^(@resultBuilder )?(public|open) (final )?(class|struct|enum|protocol) (\w+)/
      ).map { String($0.5) }
    }
    #expect(types.count >= 50)
    for type in types { #expect(page.contains("- ``\(type)``\n")) }
  }

  /// The questions of the document that this project goes back to, as far as it is about more than
  /// its own files.
  @Test func questionsAreAnswered() throws {
    let text = try Documents.text("Sources/StrideNet/StrideNet.docc/FAQ.md")
    let sections = text.components(separatedBy: "\n### ").dropFirst()
    let questions = [
      "run this code", "the point of", "should I use", "shouldn't I use", "a CNN?", "NumPy?",
      "Jupyter?", "MNIST", "Step by Step", "Andrew Ng", "differ from the Coursera",
      "Python packages",
      "How do I use it", "own network architecture", "size of the input", "train and use",
      "variables", "so slow", "different from the naive", "What's a stride group",
      "No, seriously", "stride groups better", "further optimised", "Should I optimise",
      "I have questions", "More projects",
    ]
    #expect(sections.count == questions.count)
    for (section, question) in zip(sections, questions) {
      let lines = section.components(separatedBy: "\n")
      #expect(lines[0].contains(question))
      #expect(lines.dropFirst().contains { $0.count > 40 }, "\(question)")
    }
  }

  @Test func modelsAndCodesAreListed() throws {
    let article = try Documents.text("Sources/StrideNet/StrideNet.docc/CommandLine.md")
    #expect(
      article.contains(
        "| models | \(Architecture.presets.map { "`\($0.name)`" }.joined(separator: ", "));"))
    for kind in [
      StrideNetError.Kind.usage, .badData, .missingInput, .service, .internalError,
    ] {
      #expect(article.contains("\n| \(kind.rawValue) | "))
    }
    // The mistake that is shown is answered so.
    let place = try Workplace()
    let answer = try place.run("--layers", "conv(8,3) maxpol(2) flatten softmax(10)").err
    #expect(article.contains("\n```text\n\(answer)```\n"), "\(answer)")
  }
}
