import StrideNetCore

extension Network {
  /// Writes the weights as PyTorch has them: a safetensors file with the names, shapes and order of
  /// the state_dict of a torch.nn.Sequential whose source, ``pyTorchSource(file:)``, is in the
  /// metadata. A softmax at the end is left out, so that the model gives logits, as PyTorch's
  /// cross-entropy takes them.
  /// - Throws: ``StrideNetError`` naming a layer that PyTorch's modules can't stand for
  public func exportPyTorch(to path: String) throws {
    let model = try PyTorchModel(stages(for: path))
    let tensors = model.tensors.map { tensor in
      let values = tensor.parameter.values
      return Safetensors.Tensor(
        name: tensor.name, shape: tensor.shape, values: tensor.places.map { values[$0] })
    }
    let name = path.split(separator: "/").last.map(String.init) ?? path
    try Safetensors.write(
      tensors,
      metadata: ["format": "pt", "python": model.source(input!, normalization, file: name)],
      to: path)
  }

  /// Python that makes the model and loads its weights from `file`, which
  /// ``exportPyTorch(to:)`` wrote.
  public func pyTorchSource(file: String) throws -> String {
    try PyTorchModel(stages(for: file)).source(input!, normalization, file: file)
  }

  /// A network of these layers with the weights of PyTorch's model of the same, saved by
  /// safetensors.torch.save_file(model.state_dict(), path). The names must be those that
  /// ``exportPyTorch(to:)`` writes.
  /// - Throws: ``StrideNetError`` naming tensors that are missing, superfluous or of another shape
  public static func importPyTorch(
    from path: String, layers: [any Layer], input: Shape, runtime: Runtime = Runtime()
  ) throws -> Network {
    try importPyTorch(from: InputFile(path), layers: layers, input: input, runtime: runtime)
  }

  static func importPyTorch(
    from source: InputFile, layers: [any Layer], input: Shape, runtime: Runtime
  ) throws -> Network {
    // Batch normalisation counts its steps; with a fixed momentum nothing depends on them.
    let file = try Safetensors.read(source) { $0.hasSuffix(".num_batches_tracked") }
    let path = source.path
    let network = Network(layers, runtime: runtime)
    try network.build(for: input)
    let model = try PyTorchModel(network.stages(for: path))
    var found = Dictionary(uniqueKeysWithValues: file.tensors.map { ($0.name, $0) })
    let hint = "the model that fits these layers is\n" + model.text
    for tensor in model.tensors {
      guard let there = found.removeValue(forKey: tensor.name) else {
        throw StrideNetError(
          .badData, "a tensor is missing", at: path,
          found: file.tensors.map(\.name).joined(separator: ", "), expected: tensor.name,
          hint: hint)
      }
      guard there.shape == tensor.shape else {
        throw StrideNetError(
          .badData, "a tensor has another shape than the layers ask for",
          at: "\(path), \(tensor.name)", found: "\(there.shape)", expected: "\(tensor.shape)",
          hint: hint)
      }
      for (value, place) in zip(there.values, tensor.places) {
        tensor.parameter.value[place] = value
      }
    }
    if let extra = found.keys.min() {
      throw StrideNetError(
        .badData, "a tensor that the layers don't have", at: path, found: extra,
        expected: model.tensors.map(\.name).joined(separator: ", "), hint: hint)
    }
    return network
  }
}
