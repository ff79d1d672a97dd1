import CZlib
import StrideNetCore

extension UnsafeRawBufferPointer {
  /// These bytes made smaller, as zlib's format has them (RFC 1950).
  package func deflated() throws -> [UInt8] {
    var size = compressBound(uLong(count))
    var result = [UInt8](repeating: 0, count: Int(size))
    let status = compress2(&result, &size, bindMemory(to: UInt8.self).baseAddress, uLong(count), 9)
    guard status == Z_OK else {
      throw StrideNetError(.internalError, "zlib doesn't compress", found: "\(status)")
    }
    return Array(result[..<Int(size)])
  }
}
