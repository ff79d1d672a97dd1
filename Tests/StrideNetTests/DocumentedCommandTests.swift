import Foundation
import StrideNet  // not @testable: nothing else is needed
import Testing

/// Commands that the documents have, and what installing leaves.
extension DocumentationTests {
  /// The documents' commands that begin with this word, without their comments, split into words. What
  /// mpirun starts counts as started alone.
  static func commands(_ program: String) throws -> [[String]] {
    try Documents.blocks("sh", in: Documents.all).flatMap { $0.split(separator: "\n") }.map {
      line in
      // Odd pieces stand between quotes.
      line.components(separatedBy: " #")[0].components(separatedBy: "'").enumerated()
        .flatMap { $0 % 2 == 1 ? [$1] : $1.split(separator: " ").map(String.init) }
    }.map { words in
      let program = words.firstIndex(of: ".build-mpi/release/stridenet") ?? 0
      return words.first == "mpirun" && program > 0
        ? ["stridenet"] + words[(program + 1)...] : words
    }.filter { $0.first == program || $0.first == ".build/release/\(program)" }
  }

  /// Everything in the shell blocks is one of the two programs', so that nothing goes untested. But
  /// for the first line, which gets them: into the folder by whose name dependants know the package.
  @Test func onlyKnownPrograms() throws {
    let lines = try Documents.blocks("sh", in: Documents.all).flatMap { $0.split(separator: "\n") }
    let known = try Self.commands("stridenet").count + Self.commands("make").count
    #expect(known + 1 == lines.count && known >= 15)
    #expect(lines[0] == "git clone ADDRESS stridenet && cd stridenet")
    let readme = try Documents.text("README.md")
    #expect(readme.contains(".package(path: \"../stridenet\")"))
    #expect(readme.contains(".product(name: \"StrideNet\", package: \"stridenet\")"))
  }

  /// In the README the program stands without its folder only where it has been installed before.
  @Test func programsAreFound() throws {
    var installed = false
    for line in try Documents.blocks("sh").flatMap({ $0.split(separator: "\n") }) {
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
    case "report", "data": try ends(command, 66, command[1])
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
    let (code, output) = try Self.run(["make", "-n"] + arguments, in: Documents.root)
    #expect(code == 0 && !output.isEmpty, "make \(arguments): \(output)")
  }

  /// Targets that the text names rather than a shell block.
  @Test func targetsInTheTextExist() throws {
    let text = try Documents.all.map(Documents.text).joined(separator: "\n")
    let targets = Set(
      text.matches(of: /`make ([a-z0-9-]+)/).map { String($0.1) })
    #expect(targets.isSuperset(of: ["run", "test", "setup", "help", "bench", "docs"]))
    let (code, output) = try Self.run(
      ["make", "-n"] + targets.filter { $0 != "clean" }, in: Documents.root)
    #expect(code == 0, "\(output)")
  }

  static func run(_ command: [String], in folder: URL) throws -> (Int32, String) {
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
      let (code, output) = try Self.run(["make", target] + settings, in: Documents.root)
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
    let newest = try Documents.text("CHANGELOG.md").firstMatch(of: /\n## (.+)\n/)?.1
    #expect(newest == Runtime.version[...])
  }
}
