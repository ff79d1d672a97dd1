import Foundation
import StrideNet
import Synchronization

/// What commands print: text for people, or JSON lines for programs.
enum Output {
  /// Where lines go, in errors.
  static let place = "standard output"

  /// Whether nothing is written: one of several processes does.
  nonisolated(unsafe) static var isSilent = false

  /// One line on standard output, on a terminal as many as it takes.
  /// - Parameter isWhole: a line for programs, or to be copied
  static func line(_ text: String, isWhole: Bool = false) throws {
    clearProgress()
    guard write((isWhole ? text : wrapped(text, STDOUT_FILENO)) + "\n", to: STDOUT_FILENO) else {
      throw StrideNetError(
        .ioError, "cannot write", at: place, found: String(cString: strerror(errno)),
        hint: "free space, or write elsewhere")
    }
  }

  /// One JSON object as a line on standard output.
  static func json(_ value: some Encodable) throws {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    encoder.nonConformingFloatEncodingStrategy = nonFinite
    try line(String(decoding: encoder.encode(value), as: UTF8.self), isWhole: true)
  }

  /// JSON has no numbers for these. A norm may be too large for a float, for one.
  static let nonFinite = JSONEncoder.NonConformingFloatEncodingStrategy.convertToString(
    positiveInfinity: "∞", negativeInfinity: "−∞", nan: "NaN")

  /// To standard error, where it disturbs no pipe.
  static func complain(_ text: String) {
    clearProgress()
    write(wrapped("stridenet: " + text, STDERR_FILENO) + "\n", to: STDERR_FILENO)
  }

  static func note(_ text: String, isWhole: Bool = false) {
    clearProgress()
    write((isWhole ? text : wrapped(text, STDERR_FILENO)) + "\n", to: STDERR_FILENO)
  }

  /// Straight to the file descriptor, so that nothing is lost in a buffer.
  @discardableResult
  private static func write(_ text: String, to descriptor: Int32) -> Bool {
    if isSilent { return true }
    var bytes = Array(text.utf8)[...]
    while !bytes.isEmpty {
      let count = bytes.withUnsafeBytes { Foundation.write(descriptor, $0.baseAddress, $0.count) }
      if count < 0 && errno != EINTR { return false }
      bytes = bytes.dropFirst(max(count, 0))
    }
    return true
  }

  // MARK: The progress line

  /// Progress is shown on a terminal alone.
  static let isTerminal = isatty(STDERR_FILENO) == 1
  private static let shown = Mutex<(length: Int, at: ContinuousClock.Instant)>((0, .now))

  /// Replaces the progress line, ten times a second at most.
  static func progress(_ text: () -> String) {
    guard isTerminal else { return }
    shown.withLock { shown in
      guard shown.length == 0 || ContinuousClock.now - shown.at > .milliseconds(100) else { return }
      let text = String(text().prefix((width(of: STDERR_FILENO) ?? 80) - 1))
      write(
        "\r" + text + String(repeating: " ", count: max(0, shown.length - text.count)),
        to: STDERR_FILENO)
      shown = (max(text.count, 1), .now)
    }
  }

  /// Takes the progress line away before something else is printed.
  static func clearProgress() {
    shown.withLock { shown in
      guard shown.length > 0 else { return }
      write("\r" + String(repeating: " ", count: shown.length) + "\r", to: STDERR_FILENO)
      shown.length = 0
    }
  }

  /// Columns of a terminal, or of what $COLUMNS says that there are.
  static func width(of descriptor: Int32) -> Int? {
    if let columns = ProcessInfo.processInfo.environment["COLUMNS"].flatMap({ Int($0) }),
      columns > 0
    {
      return max(20, columns)
    }
    var size = winsize()
    return ioctl(descriptor, UInt(TIOCGWINSZ), &size) == 0 && size.ws_col > 0
      ? max(20, Int(size.ws_col)) : nil
  }

  /// What tables are to fit into.
  static let columns = width(of: STDOUT_FILENO) ?? 80

  /// Broken at words where there is a width; a pipe's lines stay whole.
  private static func wrapped(_ text: String, _ descriptor: Int32) -> String {
    // A mark below a word is to stay there.
    guard let width = width(of: descriptor), text.firstMatch(of: /\n *\^(\n|$)/) == nil else {
      return text
    }
    return text.split(separator: "\n", omittingEmptySubsequences: false)
      .flatMap { String($0).wrapped(width) }.joined(separator: "\n")
  }
}

/// Weights may each be finite and yet too large to compute with.
func requireFinite(_ values: [Float], _ file: String) throws {
  guard let value = values.first(where: { !$0.isFinite }) else { return }
  throw StrideNetError(
    .badData, "the network computes numbers that aren't finite", at: file, found: "\(value)",
    hint: "the weights are too large: train again with a lower learning rate")
}
