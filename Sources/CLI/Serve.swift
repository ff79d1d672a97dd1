import ArgumentParser
import Foundation
import Pages
import StrideNet
import Web

struct Serve: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Serves a page where one draws a digit and watches it pass through a network.",
    discussion: """
      The page needs nothing but this program: no network, no other file. It is served to this \
      machine alone unless --host says otherwise.
      """)

  @Argument(
    help: ArgumentHelp(
      "A file that train --save wrote. Without it: the small trained network that is in the package.",
      valueName: "file"))
  var file: String?

  @OptionGroup var dataOptions: DataOptions

  @Option(parsing: .unconditional, help: "Where to listen; 0 takes a port that is free.")
  var port = 8080

  @Option(
    help: "The address to listen on. With 0.0.0.0 every machine that reaches this one may look.")
  var host = "127.0.0.1"

  @Option(parsing: .unconditional, help: "Threads that train; as many as there are processors.")
  var threads: Int?

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp(
      "Memory that the program may take in all; a question that needs more is refused.",
      valueName: "GB"))
  var memory = 1.0

  func run() throws {
    guard (0...65_535).contains(port) else {
      throw StrideNetError(
        .usage, "--port out of range", found: "\(port)", expected: "0 … 65535")
    }
    let threads = threads ?? Runtime.defaultThreads
    guard (1...1024).contains(threads) else {
      throw StrideNetError(
        .usage, "--threads out of range", found: "\(threads)", expected: "1 … 1024")
    }
    guard memory > 0 && memory <= 1e6 else {
      throw StrideNetError(
        .usage, "--memory out of range", found: "\(memory)", expected: "gigabytes, above 0")
    }
    let network =
      try file.map { try Network.load(from: $0, runtime: Runtime(threads: 1)) }
      ?? .digits(runtime: Runtime(threads: 1))
    try network.requireClasses("serve")
    let data = try dataOptions.loadImages(for: network)
    let workbench = try Workbench(
      network, data, threads: threads, memory: memory * 1e9, presets: Page.presets(),
      fit: dataOptions.pictures.fit
    ) { count in
      // Another network that the page trains has its outputs for the same classes.
      (0..<count).map { data.classNames.indices.contains($0) ? data.classNames[$0] : "\($0)" }
    }
    let server = try Server(
      address: host, port: UInt16(port),
      service: Site(workbench, page: Page.text(page_serve), host: host)
    ) { Output.note("stridenet: \($0)") }
    try Output.line(
      """
      network  \(Architecture.text(network.layers)), \(network.parameterCount.grouped) parameters
      data     \(data.source)
      page     http://\(host == "0.0.0.0" ? "127.0.0.1" : host):\(server.port)/   (Ctrl-C ends it)
      """)
    try server.run()
  }
}
