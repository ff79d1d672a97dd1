import ArgumentParser
import Foundation
import StrideNet

struct Fetch: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Downloads a data set and checks it.",
    discussion: """
      Into STRIDENET_DATA if that is set, else into the cache folder (XDG_CACHE_HOME, or ~/.cache). \
      A download that was cut off is resumed.
      """)

  @Argument(help: ArgumentHelp("mnist or fashion-mnist.", valueName: "set"))
  var name: String

  @Option(help: ArgumentHelp("A folder on a server that has the four .gz files.", valueName: "url"))
  var mirror: String?

  func run() async throws {
    let folder = try await Download.fetch(name, mirrors: mirror.map { [$0] }) {
      file, received, total in
      Output.progress { Self.bar(file, received, total) }
    }
    try Output.line("\(name) is in \(folder)")
  }

  private static func bar(_ file: String, _ received: Int, _ total: Int?) -> String {
    let megabytes = (Double(received) / 1e6).fixed(1)
    guard let total, total > 0 else { return "\(file)  \(megabytes) MB" }
    let done = min(30, 30 * received / total)
    return
      "\(file)  [\(String(repeating: "#", count: done))\(String(repeating: ".", count: 30 - done))]"
      + "  \(megabytes) of \((Double(total) / 1e6).fixed(1)) MB"
  }
}
