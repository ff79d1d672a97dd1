import Foundation  // compare
import StrideNetCore

/// The weights in a file of PyTorch's: a safetensors file, or what torch.save made of a state_dict, a
/// zip archive with a pickle and a file for each storage.
enum PyTorchArchive {
  /// The tensors, but those that only count steps: of an archive in the order of the model, of
  /// safetensors, which sorts them, in that of their names, where 2 stands before 10.
  static func tensors(in file: InputFile) throws -> [Safetensors.Tensor] {
    // Batch normalisation counts its steps; with a fixed momentum nothing depends on them.
    func isCounter(_ name: String) -> Bool {
      name == "num_batches_tracked" || name.hasSuffix(".num_batches_tracked")
    }
    var start: [UInt8] = [0, 0, 0, 0]
    let count = try start.withUnsafeMutableBytes { try file.read(into: $0, from: 0) }
    switch Array(start.prefix(count)) {
    case Array("PK\u{3}\u{4}".utf8): return try archived(in: file, skipping: isCounter)
    case [0x80, 2, 0x8a, 0x0a]:
      throw StrideNetError(
        .badData, "weights in the format that PyTorch had before version 1.6", at: file.path,
        found: "a pickle", expected: "an archive of torch.save, or a safetensors file",
        hint: "save it again, in Python by torch.save(torch.load(\"OLD\"), \"NEW.pt\")")
    default:
      let (tensors, metadata) = try Safetensors.read(file, skipping: isCounter)
      guard metadata[Network.architectureKey] == nil else {
        throw StrideNetError(
          .badData, "weights of StrideNet's, in another order than PyTorch's", at: file.path,
          found: "'\(Network.architectureKey)' in its metadata",
          expected: "what PyTorch saved", hint: "predict, evaluate and export take it as it is")
      }
      return tensors.sorted {
        $0.name.compare($1.name, options: .numeric) == .orderedAscending
      }
    }
  }

  private static func archived(
    in file: InputFile, skipping isCounter: (String) -> Bool
  ) throws -> [Safetensors.Tensor] {
    let archive = try ZipArchive(file)
    let suffix = "/data.pkl"
    let pickles = archive.entries.filter { $0.name.hasSuffix(suffix) }
    guard pickles.count == 1, let pickle = pickles.first else {
      throw StrideNetError(
        .badData, "a zip archive that torch.save didn't write", at: file.path,
        found: "\(pickles.count) files data.pkl among \(archive.entries.count)",
        expected: "what torch.save(model.state_dict(), FILE) writes")
    }
    let folder = pickle.name.dropLast(suffix.count)
    let entries = Dictionary(archive.entries.map { ($0.name, $0) }) { first, _ in first }
    let order = try entries["\(folder)/byteorder"].map { try archive.bytes(of: $0) }
    let state = try stateDictionary(
      archive.bytes(of: pickle), "\(file.path), \(pickle.name)"
    ).filter { !isCounter($0.name) }

    var need = MemoryNeed()
    for (name, tensor) in state {
      need.add(tensor.shape.reduce(1, *), times: 2, for: "\(file.path), tensor \(name)")
    }
    try need.require(hint: "give it more memory")
    var result = [Safetensors.Tensor?](repeating: nil, count: state.count)
    // Each storage once, whatever shares it.
    for (key, places) in Dictionary(grouping: state.indices, by: { state[$0].tensor.storage.key }) {
      guard let entry = entries["\(folder)/data/\(key)"] else {
        throw StrideNetError(
          .badData, "the numbers of a tensor are missing", at: file.path,
          found: "no file \(folder)/data/\(key)", expected: "that of \(state[places[0]].name)",
          hint: "the file is damaged")
      }
      let bytes = try archive.bytes(of: entry)
      for place in places {
        let (name, tensor) = state[place]
        let numbers = try numbers(
          of: tensor, in: bytes, isBig: order?.first == UInt8(ascii: "b"),
          "\(file.path), tensor \(name)")
        result[place] = .init(name: name, shape: tensor.shape, values: numbers)
        try result[place]!.checkFinite(at: file.path)
      }
    }
    return result.map { $0! }
  }

  /// Names and tensors: the whole of the file, or the one part of it that is such, as of a checkpoint.
  static func stateDictionary(
    _ bytes: [UInt8], _ path: String
  ) throws -> [(name: String, tensor: Pickle.Tensor)] {
    let (top, elements) = try Pickle.read(bytes, path: path)
    let expected = "a state_dict: names and tensors"
    func pairs(_ value: Pickle.Value) -> [(key: Pickle.Value, value: Pickle.Value)]? {
      guard case .dictionary(let place) = value else { return nil }
      let all = elements(place)
      return stride(from: 0, to: all.count, by: 2).map { (all[$0], all[$0 + 1]) }
    }
    func isTensor(_ value: Pickle.Value) -> Bool { if case .tensor = value { true } else { false } }
    guard var state = pairs(top) else { throw Pickle.refused(path, top.text, expected) }
    if !state.contains(where: { isTensor($0.value) }) {
      let inside = state.filter { member in
        pairs(member.value).map { !$0.isEmpty && $0.allSatisfy { isTensor($0.value) } } ?? false
      }
      guard inside.count == 1 else {
        throw Pickle.refused(
          path,
          inside.isEmpty
            ? "no tensors under \(state.prefix(9).map(\.key.text).joined(separator: ", "))"
            : "several: under \(inside.prefix(9).map(\.key.text).joined(separator: ", "))",
          expected)
      }
      state = pairs(inside[0].value)!
    }
    var places: [String: Int] = [:]
    var result: [(name: String, tensor: Pickle.Tensor)] = []
    for (key, value) in state {
      guard case .text(let name) = key else {
        throw Pickle.refused(path, "\(key.text) as a name", expected)
      }
      guard case .tensor(let tensor) = value else {
        throw Pickle.refused(path, "\(value.text) under \(name.prefix(200))", expected)
      }
      // As in Python, the last of a name counts.
      if let place = places[name] {
        result[place].tensor = tensor
      } else {
        places[name] = result.count
        result.append((name, tensor))
      }
    }
    return result
  }

  static func numbers(
    of tensor: Pickle.Tensor, in bytes: [UInt8], isBig: Bool, _ place: String
  ) throws -> [Float] {
    let (size, shape, strides) = (tensor.storage.kind.size, tensor.shape, tensor.strides)
    guard tensor.storage.count <= bytes.count / size else {
      throw StrideNetError(
        .badData, "fewer numbers than there should be", at: place, found: "\(bytes.count) bytes",
        expected: "\(tensor.storage.count) numbers of \(size) bytes", hint: "the file is damaged")
    }
    let count = shape.reduce(1, *)
    var picked: [UInt8] = []
    picked.reserveCapacity(count * size)
    // Rows behind each other, as nearly always, are taken at once.
    var (row, isWhole) = (1, true)
    for axis in shape.indices.reversed() where shape[axis] != 1 {
      isWhole = isWhole && strides[axis] == row
      row *= shape[axis]
    }
    if isWhole { picked += bytes[tensor.offset * size..<(tensor.offset + count) * size] }
    var (index, from) = ([Int](repeating: 0, count: shape.count), tensor.offset)
    for _ in 0..<(isWhole ? 0 : count) {
      picked += bytes[from * size..<(from + 1) * size]
      // To the next element, in the order of rows.
      for axis in shape.indices.reversed() {
        index[axis] += 1
        from += strides[axis]
        if index[axis] < shape[axis] { break }
        from -= index[axis] * strides[axis]
        index[axis] = 0
      }
    }
    return try NumberArray(place, shape, tensor.storage.kind, picked[...], big: isBig).numbers
  }
}
