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
      metadata: [
        "format": "pt",
        "python": model.source(input!, normalization, targetNormalization, file: name),
      ], to: path)
  }

  /// Python that makes the model and loads its weights from `file`, which
  /// ``exportPyTorch(to:)`` wrote.
  public func pyTorchSource(file: String) throws -> String {
    try PyTorchModel(stages(for: file)).source(
      input!, normalization, targetNormalization, file: file)
  }

  /// A network of these layers with the weights of PyTorch's model of the same: a safetensors file
  /// of its state_dict, or the archive that torch.save makes of that, of which nothing is run.
  ///
  /// Names may be those that ``exportPyTorch(to:)`` writes, behind `module.` or `_orig_mod.` too.
  /// Where they are others, each layer takes the first module left whose tensors have its shapes: of
  /// an archive in the order of the model, of a safetensors file in that of the names. A bias that
  /// isn't there is zero.
  /// - Parameter onMatch: is told of each tensor of the layers, by the name an export gives it, and of
  ///   that of the file, nil for a bias that isn't there
  /// - Throws: ``StrideNetError`` naming tensors that are missing, superfluous or of another shape
  public static func importPyTorch(
    from path: String, layers: [any Layer], input: Shape, runtime: Runtime = Runtime(),
    onMatch: (_ tensor: String, _ inFile: String?) -> Void = { _, _ in }
  ) throws -> Network {
    try importPyTorch(
      from: InputFile(path), layers: layers, input: input, runtime: runtime, onMatch: onMatch)
  }

  static func importPyTorch(
    from source: InputFile, layers: [any Layer], input: Shape, runtime: Runtime,
    onMatch: (_ tensor: String, _ inFile: String?) -> Void = { _, _ in }
  ) throws -> Network {
    let tensors = try PyTorchArchive.tensors(in: source)
    let network = Network(layers, runtime: runtime)
    try network.build(for: input)
    let model = try PyTorchModel(network.stages(for: source.path))
    let match = PyTorchMatch(tensors, path: source.path, model)
    for (tensor, there) in zip(model.tensors, try match.tensors()) {
      onMatch(tensor.name, there?.name)
      for (index, place) in tensor.places.enumerated() {
        tensor.parameter.value[place] = there?.values[index] ?? tensor.valueWithout
      }
    }
    return network
  }
}
