/// What a user can cause and mend: a file, a flag, an architecture that doesn't fit its input.
///
/// The message says what happened, where, what was found, what was expected and what to do.
/// Mistakes inside the library are `precondition`s instead.
public struct StrideNetError: Error, CustomStringConvertible, Sendable {
  /// The kind decides the exit code of the command line (sysexits.h).
  public enum Kind: Int32, Sendable {
    /// A wrong flag or value: EX_USAGE.
    case usage = 64
    /// Data or an architecture that doesn't fit: EX_DATAERR.
    case badData = 65
    /// A file or folder that is missing or unreadable: EX_NOINPUT.
    case missingInput = 66
    /// A server that doesn't answer, or not as it should: EX_UNAVAILABLE.
    case service = 69
    /// Our own mistake: EX_SOFTWARE.
    case internalError = 70
    /// A file that can't be created: EX_CANTCREAT.
    case cannotCreate = 73
    /// A write that failed half-way, a full disk: EX_IOERR.
    case ioError = 74
  }

  public let kind: Kind
  public let what: String
  public let place: String?
  public let found: String?
  public let expected: String?
  public let hint: String?
  /// Of a setting that is out of range, the keys that lead to it in a configuration.
  package private(set) var setting: [any CodingKey] = []

  /// - Parameters:
  ///   - kind: decides the exit code
  ///   - what: what happened, one short clause without a full stop
  ///   - place: file, byte offset, layer, column: where
  ///   - found: what was there
  ///   - expected: what should have been there
  ///   - hint: what to do about it
  public init(
    _ kind: Kind, _ what: String, at place: String? = nil, found: String? = nil,
    expected: String? = nil, hint: String? = nil
  ) {
    self.kind = kind
    self.what = what
    self.place = place
    self.found = found
    self.expected = expected
    self.hint = hint
  }

  /// A setting that is out of range.
  /// - Parameters:
  ///   - name: what the message calls it
  ///   - setting: the keys that lead to it in a configuration
  init(
    outOfRange name: String, _ setting: [any CodingKey], found: Any, expected: String
  ) {
    self.init(.usage, "\(name) out of range", found: "\(found)", expected: expected)
    self.setting = setting
  }

  public var description: String {
    var lines = [what]
    if let place { lines.append("  where:    \(place)") }
    if let found { lines.append("  found:    \(found)") }
    if let expected { lines.append("  expected: \(expected)") }
    if let hint { lines.append("  --> \(hint)") }
    return lines.joined(separator: "\n")
  }
}

extension Decoder {
  /// A value that stands in configurations as its text.
  func text<T>(
    _ read: (String) throws -> T, _ describe: (StrideNetError) -> String = \.description
  ) throws -> T {
    let container = try singleValueContainer()
    do {
      return try read(container.decode(String.self))
    } catch let error as StrideNetError {
      throw DecodingError.dataCorruptedError(in: container, debugDescription: describe(error))
    }
  }
}
