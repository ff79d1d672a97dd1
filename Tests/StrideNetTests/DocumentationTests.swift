import Foundation
import StrideNet  // not @testable: the README's examples may use what is public alone
import Testing

/// The README's activation of one's own.
extension Activation {
  static let square = Activation("square", { $0 * $0 }, derivative: { x, _ in 2 * x })
}

/// What the README and the articles say is what there is: their examples are compiled and run here
/// and in ArticleTests, their commands are accepted, their links lead somewhere.
@Suite struct DocumentationTests {
  static let root = URL(filePath: #filePath)
    .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()

  static func text(_ path: String) throws -> String {
    try String(contentsOf: root.appending(path: path), encoding: .utf8)
  }

  /// The code blocks of the README, or of other documents, in one language.
  static func blocks(_ language: String, in documents: [String] = ["README.md"]) throws -> [String]
  {
    try documents.flatMap { document in
      try text(document).components(separatedBy: "\n```\(language)\n").dropFirst().map {
        $0.components(separatedBy: "\n```")[0]
      }
    }
  }

  static let articles: [String] = {
    let folder = "Sources/StrideNet/StrideNet.docc"
    let names = try! FileManager.default.contentsOfDirectory(
      atPath: root.appending(path: folder).path)
    return names.filter { $0.hasSuffix(".md") }.sorted().map { "\(folder)/\($0)" }
  }()
  /// Those beside the source, whose links are paths.
  static let pages = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"]
  static let documents = pages + articles

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
    trainer.onEpoch = { print($0.epoch, $0.testCCE, $0.testCE) }
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

    let readme = try Self.text("README.md")
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
      .contentsOfDirectory(atPath: Self.root.appending(path: folder).path)
      .filter { $0.hasSuffix(".swift") }.map { normal(try Self.text("\(folder)/\($0)")) }
    let blocks = try Self.blocks("swift", in: Self.documents)
      .filter { !$0.hasPrefix("// swift-tools-version") }
    #expect(blocks.count >= 40)
    for block in blocks {
      #expect(compiled.contains { $0.contains(normal(block)) }, "in no test:\n\(block)")
    }
  }

  /// The manifest of a package that depends on this one is one that the package manager reads.
  @Test func manifestIsRead() throws {
    let manifests = try Self.blocks("swift").filter { $0.hasPrefix("// swift-tools-version") }
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

  // MARK: Commands

  /// The documents' commands that begin with this word, without their comments, split into words.
  static func commands(_ program: String) throws -> [[String]] {
    try blocks("sh", in: documents).flatMap { $0.split(separator: "\n") }.map { line in
      // Odd pieces stand between quotes.
      line.components(separatedBy: " #")[0].components(separatedBy: "'").enumerated()
        .flatMap { $0 % 2 == 1 ? [$1] : $1.split(separator: " ").map(String.init) }
    }.filter { $0.first == program || $0.first == ".build/release/\(program)" }
  }

  /// Everything in the shell blocks is one of the two programs', so that nothing goes untested. But
  /// for the first line, which gets them: into the folder by whose name dependants know the package.
  @Test func onlyKnownPrograms() throws {
    let lines = try Self.blocks("sh", in: Self.documents).flatMap { $0.split(separator: "\n") }
    let known = try Self.commands("stridenet").count + Self.commands("make").count
    #expect(known + 1 == lines.count && known >= 15)
    #expect(lines[0] == "git clone ADDRESS stridenet && cd stridenet")
    let readme = try Self.text("README.md")
    #expect(readme.contains(".package(path: \"../stridenet\")"))
    #expect(readme.contains(".product(name: \"StrideNet\", package: \"stridenet\")"))
  }

  /// In the README the program stands without its folder only where it has been installed before.
  @Test func programsAreFound() throws {
    var installed = false
    for line in try Self.blocks("sh").flatMap({ $0.split(separator: "\n") }) {
      installed = installed || line.hasPrefix("make install")
      if line.hasPrefix("stridenet ") { #expect(installed, "\(line)") }
    }
    #expect(installed)
  }

  /// The program is run with the command and something that ends it once the command is understood.
  /// (`--help` wouldn't do: before it, wrong options are accepted.)
  @Test(arguments: try commands("stridenet").map { Array($0.dropFirst()) })
  func commandIsAccepted(_ command: [String]) throws {
    let place = try Workplace()
    func ends(_ arguments: [String], _ code: Int32, _ message: String) throws {
      let end = try place.run(arguments)
      #expect(
        end.code == code && (end.err == message || (!message.isEmpty && end.err.contains(message))),
        "\(arguments): \(end.err)")
    }
    switch command[0] {
    case "kernels": try ends(command, 0, "")
    case "explain" where command[1] == "conv":
      try ends(command + ["--input", "0"], 64, "input out of range")
    case "bench": try ends(command + ["--no-such"], 64, "Unknown option '--no-such'")
    case "fetch": try ends(command + ["--mirror", "none"], 64, "the mirror isn't a web address")
    case "evaluate", "predict", "export", "import": try ends(command, 66, command[1])
    case "gradcheck" where command.contains("--mutant"):
      try ends(command, 65, "the mistake at work")
    case "gradcheck": try ends(command + ["--input", "0"], 64, "no size of an input")
    case "trace": try ends(command + ["--repeats", "0"], 64, "--repeats out of range")
    case "serve": try ends(command + ["--port", "70000"], 64, "--port out of range")
    case "report": try ends(command, 66, command[1])
    case "explain" where command.contains("--at") || command.contains("--weight"):
      try ends(command + ["--image", "10000"], 64, "--image out of range")
    case "speedrun": try ends(command + ["--runs", "0"], 64, "--runs out of range")
    case "augment": try ends(command + ["--data", "none"], 66, "none")
    case "train" where command.contains("--resume") || command.contains("--config"):
      try ends(command, 66, command[2])
    default: try ends(command + ["--epochs", "0"], 64, "epochs out of range")
    }
  }

  @Test(arguments: try commands("make").map { Array($0.dropFirst()) })
  func targetExists(_ arguments: [String]) throws {
    let (code, output) = try Self.run(["make", "-n"] + arguments, in: Self.root)
    #expect(code == 0 && !output.isEmpty, "make \(arguments): \(output)")
  }

  /// Targets that the text names rather than a shell block.
  @Test func targetsInTheTextExist() throws {
    let text = try Self.documents.map(Self.text).joined(separator: "\n")
    let targets = Set(
      text.matches(of: /`make ([a-z0-9-]+)/).map { String($0.1) })
    #expect(targets.isSuperset(of: ["run", "test", "setup", "help", "bench", "docs"]))
    let (code, output) = try Self.run(
      ["make", "-n"] + targets.filter { $0 != "clean" }, in: Self.root)
    #expect(code == 0, "\(output)")
  }

  private static func run(_ command: [String], in folder: URL) throws -> (Int32, String) {
    let process = Process()
    process.executableURL = URL(filePath: "/usr/bin/env")
    process.arguments = command
    process.currentDirectoryURL = folder
    // The make that runs the tests must not hand its own options down.
    process.environment = ProcessInfo.processInfo.environment.filter {
      !["MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "KERNELS", "MODEL"].contains($0.key)
    }
    let pipe = Pipe()
    process.standardInput = FileHandle.nullDevice
    process.standardOutput = pipe
    process.standardError = pipe
    try process.run()
    let output = pipe.fileHandleForReading.readDataToEndOfFile()
    process.waitUntilExit()
    return (process.terminationStatus, String(decoding: output, as: UTF8.self))
  }

  // MARK: Installing

  /// What `make install` puts somewhere `make uninstall` takes away: the program, a manual page with
  /// every command and option that it has, and completions.
  @Test func installedAndRemoved() throws {
    let place = try Workplace()
    // Elsewhere than in the prefix, as packagers do.
    let settings = ["BINARY=\(Workplace.program)", "PREFIX=/usr", "DESTDIR=\(place.path)/root"]
    func make(_ target: String) throws {
      let (code, output) = try Self.run(["make", target] + settings, in: Self.root)
      #expect(code == 0, "\(output)")
    }
    func files() throws -> Set<String> {
      try place.names.filter {
        var isFolder: ObjCBool = false
        return FileManager.default.fileExists(atPath: "\(place.path)/\($0)", isDirectory: &isFolder)
          && !isFolder.boolValue
      }
    }
    let before = try files()
    try make("install")
    #expect(
      try files().subtracting(before)
        == Set(
          [
            "bin/stridenet", "share/man/man1/stridenet.1",
            "share/bash-completion/completions/stridenet", "share/zsh/site-functions/_stridenet",
            "share/fish/vendor_completions.d/stridenet.fish",
          ].map { "root/usr/\($0)" }))
    func text(_ path: String) throws -> String {
      String(decoding: try place.read("root/usr/share/\(path)"), as: UTF8.self)
    }

    let page = try text("man/man1/stridenet.1")
    #expect(page.hasPrefix(".TH STRIDENET 1 \"\" \"stridenet \(Runtime.version)\"\n"))
    #expect(page.contains("\n.SH NAME\nstridenet \\- "))
    let help = try place.run("--help").out
    let commands = help.components(separatedBy: "SUBCOMMANDS:\n")[1]
      .matches(of: /(?m)^ {2}([a-z]+)\s/).map { String($0.1) }
    #expect(commands.count >= 15)
    for command in commands + ["explain conv", "explain value"] {
      #expect(page.contains("\n.SH \"stridenet \(command)\"\n"), "\(command)")
      let help = try place.run(command.components(separatedBy: " ") + ["--help"]).out
      for option in help.matches(of: /(?m)^ {2}(?:-[a-z], )?(--[a-z0-9-]+)/).map({ $0.1 }) {
        #expect(
          page.contains(option.replacing("-", with: "\\-")), "\(command): \(option)")
      }
    }
    // A line that began with a dot or a quote would be read as a command, and vanish.
    let requests: Set = [".TH", ".ad", ".SH", ".SS", ".PP", ".TP", ".B", ".nf", ".fi"]
    for line in page.split(separator: "\n") where line.hasPrefix(".") || line.hasPrefix("'") {
      #expect(requests.contains(String(line.prefix { $0 != " " })), "\(line)")
    }
    #expect(try text("bash-completion/completions/stridenet").hasPrefix("#!/bin/bash\n"))
    #expect(try text("zsh/site-functions/_stridenet").hasPrefix("#compdef stridenet\n"))
    #expect(
      try text("fish/vendor_completions.d/stridenet.fish").contains("complete -c 'stridenet'"))

    try make("uninstall")
    #expect(try files() == before)
  }

  /// The version stands in one place; the list of changes has reached it.
  @Test func version() throws {
    let place = try Workplace()
    let end = try place.run("--version")
    #expect(end.code == 0 && end.out == "\(Runtime.version)\n" && end.err.isEmpty)
    #expect(Runtime.version.wholeMatch(of: /[0-9]+\.[0-9]+\.[0-9]+/) != nil)
    let newest = try Self.text("CHANGELOG.md").firstMatch(of: /\n## (.+)\n/)?.1
    #expect(newest == Runtime.version[...])
  }

  // MARK: Links and lists

  @Test(arguments: pages) func linksLeadSomewhere(page: String) throws {
    let links = try Self.text(page).matches(of: /\]\(([^)]+)\)/).map { String($0.1) }
      .filter { !$0.hasPrefix("http") }
    #expect(page != "README.md" || links.count >= 10)
    for link in links {
      #expect(
        FileManager.default.fileExists(atPath: Self.root.appending(path: link).path), "\(link)")
    }
  }

  /// The kernel variants of the C list, the manifest and the README are the same.
  @Test func variantsAreListedEverywhere() throws {
    let names = KernelChoice.convolutions.map(\.name)
    let list = names.map { "\"\($0)\"" }.joined(separator: ", ")
    #expect(try Self.text("Package.swift").contains("let variants = [\(list)]"))
    for name in names { #expect(try Self.text("README.md").contains("| [`\(name)`](CKernels/")) }
  }

  /// What `--layers` has names for is in the article on layers.
  @Test func layersAreListed() throws {
    let article = try Self.text("Sources/StrideNet/StrideNet.docc/Layers.md")
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
    let page = try Self.text("Sources/StrideNet/StrideNet.docc/StrideNet.md")
    for article in Self.articles.map({ URL(filePath: $0).deletingPathExtension().lastPathComponent }
    )
    where article != "StrideNet" {
      #expect(page.contains("- <doc:\(article)>\n"))
    }
    var types: [String] = []
    for file in try FileManager.default.subpathsOfDirectory(
      atPath: Self.root.appending(path: "Sources").path)
    where file.hasPrefix("StrideNet") && file.hasSuffix(".swift") {
      let source = try Self.text("Sources/\(file)")
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
    let text = try Self.text("Sources/StrideNet/StrideNet.docc/FAQ.md")
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
    let article = try Self.text("Sources/StrideNet/StrideNet.docc/CommandLine.md")
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
