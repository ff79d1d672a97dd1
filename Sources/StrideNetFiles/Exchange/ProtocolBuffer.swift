import StrideNetCore

/// A protocol buffer in the making, as event files and ONNX models are written: fields by their numbers,
/// in any order. Only the few kinds that these have are here; a library for all of them would be many
/// times as large as what it replaces.
struct Message {
  private(set) var data: [UInt8] = []

  private mutating func variable(_ value: UInt64) {
    var value = value
    while value >= 0x80 {
      data.append(UInt8(truncatingIfNeeded: value) | 0x80)
      value >>= 7
    }
    data.append(UInt8(value))
  }

  private mutating func key(_ field: UInt64, _ kind: UInt64) { variable(field << 3 | kind) }

  private mutating func raw<T: BitwiseCopyable>(_ value: T) {
    withUnsafeBytes(of: value) { data += $0 }
  }

  mutating func integer(_ field: UInt64, _ value: Int) {
    key(field, 0)
    variable(UInt64(bitPattern: Int64(value)))
  }
  mutating func double(_ field: UInt64, _ value: Double) {
    key(field, 1)
    raw(value.bitPattern.littleEndian)
  }
  mutating func float(_ field: UInt64, _ value: Float) {
    key(field, 5)
    raw(value.bitPattern.littleEndian)
  }
  mutating func bytes(_ field: UInt64, _ value: [UInt8]) {
    key(field, 2)
    variable(UInt64(value.count))
    data += value
  }
  mutating func text(_ field: UInt64, _ value: String) { bytes(field, Array(value.utf8)) }
  mutating func doubles(_ field: UInt64, _ values: [Double]) {
    var packed = Message()
    for value in values { packed.raw(value.bitPattern.littleEndian) }
    bytes(field, packed.data)
  }
  mutating func message(_ field: UInt64, _ fill: (inout Message) -> Void) {
    var inner = Message()
    fill(&inner)
    bytes(field, inner.data)
  }
}
