import CDigest
import StrideNetCore

/// SHA-256, fed piece by piece.
package struct SHA256: Sendable {
  private var context = SHA2_CTX()

  package init() { SHA256Init(&context) }

  /// Feeds raw bytes.
  package mutating func update(_ bytes: UnsafeRawBufferPointer) {
    SHA256Update(&context, bytes.assumingMemoryBound(to: UInt8.self).baseAddress, bytes.count)
  }

  /// Feeds the bytes of an array of numbers, as they lie in memory.
  package mutating func update<Number: BitwiseCopyable>(_ values: [Number]) {
    values.withUnsafeBytes { update($0) }
  }

  /// The digest of all bytes so far, as 64 hexadecimal digits. More may follow.
  package var hex: String {
    var context = context
    var digest = [UInt8](repeating: 0, count: Int(SHA256_DIGEST_LENGTH))
    SHA256Final(&digest, &context)
    return digest.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
  }
}

extension ExampleSource {
  /// What the source says that it is, or the SHA-256 of all that it gives.
  func digest() -> String {
    if let identity { return identity }
    var digest = SHA256()
    var values = [Float](repeating: 0, count: shape.count)
    var target = [Float](repeating: 0, count: targetCount ?? 0)
    for index in 0..<count {
      values.withUnsafeMutableBufferPointer { read(index, into: $0) }
      values.withUnsafeBytes { digest.update($0) }
      if targetCount == nil {
        withUnsafeBytes(of: Int64(label(index)).littleEndian) { digest.update($0) }
      } else {
        target.withUnsafeMutableBufferPointer { readTarget(index, into: $0) }
        target.withUnsafeBytes { digest.update($0) }
      }
    }
    return digest.hex
  }
}

extension Trainer {
  /// Tells data sets apart: SHA-256 of all examples and targets.
  package func dataDigest() -> String {
    var digest = SHA256()
    guard let train = train as? ImageSet, let test = test as? ImageSet else {
      for set in [train, test] { Array(set.digest().utf8).withUnsafeBytes { digest.update($0) } }
      return digest.hex
    }
    for set in [train, test] {
      digest.update(set.pixels)
      if let targets = set.targets { digest.update(targets.values) }
      // Bytes where they are, as labels always were before there could be more.
      if set.labels.allSatisfy({ $0 < 256 }) {
        digest.update(set.labels.map { UInt8($0) })
      } else {
        digest.update(set.labels)
      }
    }
    return digest.hex
  }
}
