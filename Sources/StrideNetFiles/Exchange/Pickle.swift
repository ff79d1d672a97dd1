import StrideNetCore

/// Reads a pickle that holds tensors, and nothing else.
///
/// A pickle is a program for a machine with a stack, which in Python may call any function there is.
/// This machine calls none: of Python's names it knows those that torch.save writes for tensors, as
/// constants, and each has a meaning here. Lists, tuples and dictionaries lie in one array and are
/// referred to by their places, so that one that holds itself, or a million in each other, costs no
/// more than the bytes that ask for it.
/// https://docs.python.org/3/library/pickletools.html
struct Pickle {
  /// Numbers of a kind, in a file of the archive.
  struct Storage {
    let kind: NumberArray.Kind
    let key: String
    let count: Int
  }

  /// A part of a storage.
  struct Tensor {
    let storage: Storage
    let offset: Int
    let shape, strides: [Int]
  }

  enum Value {
    case none, bool(Bool), int(Int), float(Double), text(String), name(String)
    case storage(Storage), tensor(Tensor)
    /// Places in `containers`.
    case tuple(Int), list(Int), dictionary(Int)
    case mark

    var text: String {
      switch self {
      case .none: "None"
      case .bool: "a truth value"
      case .int(let number): "the number \(number)"
      case .float(let number): "the number \(number)"
      case .text(let text): "the text '\(text.prefix(40))'"
      case .name(let name): name
      case .storage: "a storage"
      case .tensor: "a tensor"
      case .tuple: "a tuple"
      case .list: "a list"
      case .dictionary: "a dictionary"
      case .mark: "a mark"
      }
    }
  }

  private let bytes: [UInt8]
  private let path: String
  private var position = 0
  private var stack: [Value] = []
  private var memo: [Int: Value] = [:]
  /// The elements of tuples and lists; of dictionaries, keys and values in turn.
  private var containers: [[Value]] = []

  /// What the pickle is of, and the elements of a container in it.
  static func read(_ bytes: [UInt8], path: String) throws -> (
    value: Value, elements: (Int) -> [Value]
  ) {
    // A few hundred bytes say what a tensor is.
    guard bytes.count <= 1 << 23 else {
      throw refused(path, "\(bytes.count) bytes", "no more than \(1 << 23) bytes")
    }
    var pickle = Pickle(bytes: bytes, path: path)
    let value = try pickle.run()
    let containers = pickle.containers
    return (value, { containers[$0] })
  }

  private init(bytes: [UInt8], path: String) {
    (self.bytes, self.path) = (bytes, path)
  }

  static func refused(_ place: String, _ found: String, _ expected: String) -> StrideNetError {
    StrideNetError(
      .badData, "what PyTorch saved holds more than tensors", at: place, found: found,
      expected: expected,
      hint: "nothing in a file is run here: save the weights alone, in Python by "
        + "safetensors.torch.save_file(model.state_dict(), \"model.safetensors\")")
  }

  private func refused(_ found: String, _ expected: String = "a state_dict: names and tensors")
    -> StrideNetError
  {
    Self.refused("\(path), byte \(position)", found, expected)
  }

  private func damaged(_ found: String) -> StrideNetError {
    StrideNetError(
      .badData, "a pickle that can't be read", at: "\(path), byte \(position)", found: found,
      hint: "the file is damaged")
  }

  // MARK: Bytes

  private mutating func take(_ count: Int) throws -> ArraySlice<UInt8> {
    guard count >= 0, count <= bytes.count - position else { throw damaged("its end") }
    defer { position += count }
    return bytes[position..<position + count]
  }

  /// Little-endian.
  private mutating func number(_ count: Int) throws -> Int {
    let digits = try take(count).reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
    return Int(truncatingIfNeeded: digits)
  }

  private mutating func text(_ count: Int) throws -> Value {
    guard let text = String(validating: try take(count), as: UTF8.self) else {
      throw damaged("a text that isn't UTF-8")
    }
    return .text(text)
  }

  private mutating func line() throws -> String {
    guard let end = bytes[position...].firstIndex(of: UInt8(ascii: "\n")) else {
      throw damaged("its end")
    }
    defer { position = end + 1 }
    return String(decoding: bytes[position..<end], as: UTF8.self)
  }

  // MARK: The stack

  private mutating func pop() throws -> Value {
    guard let value = stack.popLast() else { throw damaged("an empty stack") }
    if case .mark = value { throw damaged("a mark in place of a value") }
    return value
  }

  private mutating func pop(_ count: Int) throws -> [Value] {
    var values: [Value] = []
    for _ in 0..<count { values.append(try pop()) }
    return values.reversed()
  }

  private mutating func popToMark() throws -> [Value] {
    let mark = stack.lastIndex { if case .mark = $0 { true } else { false } }
    guard let mark else { throw damaged("no mark") }
    defer { stack.removeSubrange(mark...) }
    return Array(stack[(mark + 1)...])
  }

  private mutating func push(
    _ kind: (Int) -> Value, _ elements: [Value] = []
  ) {
    containers.append(elements)
    stack.append(kind(containers.count - 1))
  }

  private mutating func add(_ values: [Value], asPairs: Bool) throws {
    switch stack.last {
    case .list(let place) where !asPairs: containers[place] += values
    case .dictionary(let place) where asPairs && values.count % 2 == 0:
      containers[place] += values
    default: throw damaged("elements for what has none")
    }
  }

  private mutating func remember(_ place: Int) throws {
    guard let value = stack.last else { throw damaged("an empty stack") }
    memo[place] = value
  }

  private mutating func recall(_ place: Int) throws {
    guard let value = memo[place] else { throw damaged("a value that wasn't remembered") }
    stack.append(value)
  }

  // MARK: The machine

  private mutating func run() throws -> Value {
    while true {
      let code = try take(1).first!
      switch code {
      case 0x80: try checkProtocol(number(1))
      case 0x95: _ = try take(8)  // frame
      case UInt8(ascii: "."):
        let value = try pop()
        guard stack.isEmpty else { throw damaged("more than one value") }
        return value
      case UInt8(ascii: "("): stack.append(.mark)
      case UInt8(ascii: "0"): _ = try pop()
      case UInt8(ascii: "N"): stack.append(.none)
      case 0x88: stack.append(.bool(true))
      case 0x89: stack.append(.bool(false))
      case UInt8(ascii: "K"): stack.append(.int(try number(1)))
      case UInt8(ascii: "M"): stack.append(.int(try number(2)))
      case UInt8(ascii: "J"):
        stack.append(.int(Int(Int32(truncatingIfNeeded: try number(4)))))
      case 0x8a: try long()
      case UInt8(ascii: "G"):
        let bits = try take(8).reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
        stack.append(.float(Double(bitPattern: bits)))
      case UInt8(ascii: "X"): stack.append(try text(number(4)))
      case 0x8c: stack.append(try text(number(1)))
      case UInt8(ascii: "]"): push(Value.list)
      case UInt8(ascii: "}"): push(Value.dictionary)
      case UInt8(ascii: ")"): push(Value.tuple)
      case 0x85, 0x86, 0x87: push(Value.tuple, try pop(Int(code) - 0x84))
      case UInt8(ascii: "t"): push(Value.tuple, try popToMark())
      case UInt8(ascii: "a"): try add(pop(1), asPairs: false)
      case UInt8(ascii: "e"): try add(popToMark(), asPairs: false)
      case UInt8(ascii: "s"): try add(pop(2), asPairs: true)
      case UInt8(ascii: "u"): try add(popToMark(), asPairs: true)
      case UInt8(ascii: "q"): try remember(number(1))
      case UInt8(ascii: "r"): try remember(number(4))
      case 0x94: try remember(memo.count)
      case UInt8(ascii: "h"): try recall(number(1))
      case UInt8(ascii: "j"): try recall(number(4))
      case UInt8(ascii: "c"): try name(line(), line())
      case 0x93:
        let parts = try pop(2)
        guard case .text(let module) = parts[0], case .text(let name) = parts[1] else {
          throw damaged("a name that isn't a text")
        }
        try self.name(module, name)
      case UInt8(ascii: "Q"): try storage()
      case UInt8(ascii: "R"): try call()
      case UInt8(ascii: "b"): try build()
      default:
        throw refused(
          "the instruction 0x\(String(code, radix: 16))", "those that tensors need")
      }
    }
  }

  private func checkProtocol(_ version: Int) throws {
    guard (2...5).contains(version) else { throw damaged("version \(version) of the format") }
  }

  private mutating func long() throws {
    let digits = try take(number(1))
    guard digits.count <= 8 else { throw refused("a number of \(digits.count) bytes") }
    let isNegative = digits.last.map { $0 >= 0x80 } ?? false
    let bits = digits.reversed().reduce(isNegative ? UInt64.max : 0) { $0 << 8 | UInt64($1) }
    stack.append(.int(Int(truncatingIfNeeded: bits)))
  }

  private static let kinds: [String: NumberArray.Kind] = [
    "torch.FloatStorage": .float(4), "torch.DoubleStorage": .float(8),
    "torch.HalfStorage": .float(2), "torch.BFloat16Storage": .brain,
    "torch.LongStorage": .signed(8), "torch.IntStorage": .signed(4),
    "torch.ShortStorage": .signed(2), "torch.CharStorage": .signed(1),
    "torch.ByteStorage": .unsigned(1), "torch.BoolStorage": .unsigned(1),
  ]
  private static let dictionary = "collections.OrderedDict"
  private static let tensor = "torch._utils._rebuild_tensor_v2"
  private static let parameter = "torch._utils._rebuild_parameter"

  private mutating func name(_ module: String, _ name: String) throws {
    let full = "\(module).\(name)"
    guard
      [Self.dictionary, Self.tensor, Self.parameter].contains(full) || Self.kinds[full] != nil
    else { throw refused("Python's \(full.prefix(200))") }
    stack.append(.name(full))
  }

  /// What torch.save writes in place of numbers: ("storage", kind, key, device, count).
  private mutating func storage() throws {
    guard case .tuple(let place) = try pop(), containers[place].count == 5,
      case .text("storage") = containers[place][0], case .name(let type) = containers[place][1],
      let kind = Self.kinds[type], case .text(let key) = containers[place][2],
      case .int(let count) = containers[place][4], count >= 0
    else { throw refused("numbers that lie in an unknown way") }
    stack.append(.storage(Storage(kind: kind, key: key, count: count)))
  }

  private mutating func call() throws {
    guard case .tuple(let place) = try pop(), case .name(let name) = try pop() else {
      throw damaged("a call of what isn't a function")
    }
    let arguments = containers[place]
    switch (name, arguments.first) {
    case (Self.dictionary, nil): push(Value.dictionary)
    case (Self.parameter, .tensor(let tensor)?): stack.append(.tensor(tensor))
    case (Self.tensor, .storage(let storage)?):
      guard arguments.count >= 4, case .int(let offset) = arguments[1],
        let shape = numbers(arguments[2]), let strides = numbers(arguments[3])
      else { fallthrough }
      stack.append(.tensor(try part(of: storage, from: offset, shape, strides)))
    default: throw refused("\(name) of \(arguments.first?.text ?? "nothing")")
    }
  }

  private func numbers(_ value: Value) -> [Int]? {
    guard case .tuple(let place) = value, containers[place].count <= 64 else { return nil }
    let numbers = containers[place].compactMap { if case .int(let n) = $0 { n } else { nil } }
    return numbers.count == containers[place].count ? numbers : nil
  }

  /// A tensor, all of whose values lie in its storage, no more of them than that has.
  private func part(
    of storage: Storage, from offset: Int, _ shape: [Int], _ strides: [Int]
  ) throws -> Tensor {
    func isTooLarge(_ what: String) -> StrideNetError {
      StrideNetError(
        .badData, "a tensor that lies outside of its storage", at: "\(path), byte \(position)",
        found: "\(what): shape \(shape), strides \(strides), offset \(offset)",
        expected: "one within \(storage.count) values", hint: "the file is damaged")
    }
    guard shape.count == strides.count, (shape + strides + [offset]).allSatisfy({ $0 >= 0 }),
      let count = Shape.product(shape), count <= storage.count
    else { throw isTooLarge("sizes that aren't ones") }
    if count > 0 {
      var last = offset
      for (size, stride) in zip(shape, strides) {
        let (step, tooFar) = (size - 1).multipliedReportingOverflow(by: stride)
        let (sum, farther) = last.addingReportingOverflow(step)
        if tooFar || farther { throw isTooLarge("a place beyond 64 bits") }
        last = sum
      }
      if last >= storage.count { throw isTooLarge("a value at \(last)") }
    }
    return Tensor(storage: storage, offset: offset, shape: shape, strides: strides)
  }

  /// What a dictionary is told besides its elements: which version each module of PyTorch has.
  private mutating func build() throws {
    let (state, target) = (try pop(), stack.last)
    guard case .dictionary = state, case .dictionary = target else {
      throw refused("\(target?.text ?? "nothing") with attributes")
    }
  }
}
