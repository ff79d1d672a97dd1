import Testing

/// A field of a protocol buffer: its number, and for a message or text its bytes, else its bits.
typealias WireField = (Int, WireValue)

enum WireValue {
  case bits(UInt64)
  case bytes([UInt8])
}

/// The fields of a message as they stand in it.
func wireFields(_ data: ArraySlice<UInt8>) throws -> [WireField] {
  var (rest, result) = (data, [WireField]())
  func variable() throws -> UInt64 {
    var (value, shift) = (UInt64(0), UInt64(0))
    while true {
      let next = rest.popFirst()
      let byte = try #require(next)
      value |= UInt64(byte & 0x7F) << shift
      if byte < 0x80 { return value }
      shift += 7
    }
  }
  func take(_ count: Int) throws -> [UInt8] {
    try #require(rest.count >= count)
    defer { rest = rest.dropFirst(count) }
    return Array(rest.prefix(count))
  }
  func number(_ bytes: [UInt8]) -> UInt64 {
    bytes.reversed().reduce(0) { $0 << 8 | UInt64($1) }
  }
  while !rest.isEmpty {
    let key = try variable()
    switch key & 7 {
    case 0: result.append((Int(key >> 3), .bits(try variable())))
    case 1: result.append((Int(key >> 3), .bits(number(try take(8)))))
    case 5: result.append((Int(key >> 3), .bits(number(try take(4)))))
    case 2:
      let count = try variable()
      result.append((Int(key >> 3), .bytes(try take(Int(count)))))
    default: Issue.record("wire type \(key & 7)")
    }
  }
  return result
}

/// A message whose fields are asked for by number; a field that nobody asked for is a mistake.
private struct WireMessage {
  private let fields: [WireField]

  init(_ bytes: [UInt8], known: [Int]) throws {
    fields = try wireFields(bytes[...])
    #expect(Set(fields.map(\.0)).subtracting(known).isEmpty)
  }

  func all(_ number: Int) -> [[UInt8]] {
    fields.compactMap {
      if $0.0 == number, case .bytes(let bytes) = $0.1 { bytes } else { nil }
    }
  }
  func ints(_ number: Int) -> [Int] {
    fields.compactMap {
      if $0.0 == number, case .bits(let bits) = $0.1 { Int(bitPattern: UInt(bits)) } else { nil }
    }
  }
  func int(_ number: Int) throws -> Int { try #require(ints(number).last) }
  func text(_ number: Int) throws -> String { String(decoding: try one(number), as: UTF8.self) }
  func texts(_ number: Int) -> [String] { all(number).map { String(decoding: $0, as: UTF8.self) } }
  func one(_ number: Int) throws -> [UInt8] { try #require(all(number).last) }
}

/// An ONNX model read back, by the field numbers of onnx.proto.
struct ONNXModel {
  struct Attribute {
    let name: String
    let f: Float
    let i: Int
    let ints: [Int]
  }
  struct Node {
    let opType: String
    let input, output: [String]
    let attribute: [Attribute]
  }
  struct Tensor {
    let name: String
    let dims: [Int]
    let dataType: Int
    let rawData: [UInt8]
  }
  /// A size of 0 is one that has a name.
  struct Port {
    let name: String
    let sizes: [Int]
    let names: [String]
  }

  let irVersion: Int
  let opsets: [Int]
  let metadata: [(key: String, value: String)]
  let nodes: [Node]
  let initializers: [Tensor]
  let inputs, outputs: [Port]

  init(_ bytes: [UInt8]) throws {
    let model = try WireMessage(bytes, known: [1, 2, 7, 8, 14])
    irVersion = try model.int(1)
    #expect(try model.text(2) == "StrideNet")
    opsets = try model.all(8).map { try WireMessage($0, known: [2]).int(2) }
    metadata = try model.all(14).map {
      let entry = try WireMessage($0, known: [1, 2])
      return (try entry.text(1), try entry.text(2))
    }
    let graph = try WireMessage(try model.one(7), known: [1, 2, 5, 10, 11, 12])
    nodes = try graph.all(1).map {
      let node = try WireMessage($0, known: [1, 2, 3, 4, 5])
      #expect(try [node.text(3)] == node.texts(2))
      return Node(
        opType: try node.text(4), input: node.texts(1), output: node.texts(2),
        attribute: try node.all(5).map {
          let attribute = try WireMessage($0, known: [1, 2, 3, 8, 20])
          let (f, i, ints) = (attribute.ints(2), attribute.ints(3), attribute.ints(8))
          #expect(try attribute.int(20) == (f.isEmpty ? i.isEmpty ? 7 : 2 : 1))
          #expect((f.isEmpty ? 0 : 1) + (i.isEmpty ? 0 : 1) + (ints.isEmpty ? 0 : 1) == 1)
          return Attribute(
            name: try attribute.text(1),
            f: Float(bitPattern: UInt32(truncatingIfNeeded: f.last ?? 0)), i: i.last ?? 0,
            ints: ints)
        })
    }
    initializers = try graph.all(5).map {
      let tensor = try WireMessage($0, known: [1, 2, 8, 9])
      return Tensor(
        name: try tensor.text(8), dims: tensor.ints(1), dataType: try tensor.int(2),
        rawData: try tensor.one(9))
    }
    func ports(_ number: Int) throws -> [Port] {
      try graph.all(number).map {
        let port = try WireMessage($0, known: [1, 2])
        let type = try WireMessage(try port.one(2), known: [1])
        let tensor = try WireMessage(try type.one(1), known: [1, 2])
        #expect(try tensor.int(1) == 1)
        let sizes = try WireMessage(try tensor.one(2), known: [1]).all(1).map {
          try WireMessage($0, known: [1, 2])
        }
        return Port(
          name: try port.text(1), sizes: sizes.map { $0.ints(1).last ?? 0 },
          names: sizes.flatMap { $0.texts(2) })
      }
    }
    inputs = try ports(11)
    outputs = try ports(12)
  }
}
