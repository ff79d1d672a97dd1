import CDigest

/// SHA-256, fed piece by piece.
public struct SHA256: Sendable {
  private var context = SHA2_CTX()

  public init() { SHA256Init(&context) }

  /// Feeds raw bytes.
  public mutating func update(_ bytes: UnsafeRawBufferPointer) {
    SHA256Update(&context, bytes.assumingMemoryBound(to: UInt8.self).baseAddress, bytes.count)
  }

  /// Feeds the bytes of an array of numbers, as they lie in memory.
  public mutating func update<Number: BitwiseCopyable>(_ values: [Number]) {
    values.withUnsafeBytes { update($0) }
  }

  /// The digest of all bytes so far, as 64 hexadecimal digits. More may follow.
  public var hex: String {
    var context = context
    var digest = [UInt8](repeating: 0, count: Int(SHA256_DIGEST_LENGTH))
    SHA256Final(&digest, &context)
    return digest.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
  }
}
