import StrideNetCore

/// Which of a file's tensors stand for those of a model.
struct PyTorchMatch {
  /// Tensors of one module: their names behind the last point, with their places in a list.
  private struct Module {
    let name: String
    var parts: [String: Int] = [:]
  }

  private let file: [Safetensors.Tensor]
  /// The file's names without what wrappers put before them.
  private let names: [String]
  private let path: String
  private let model: PyTorchModel

  init(_ file: [Safetensors.Tensor], path: String, _ model: PyTorchModel) {
    (self.file, self.path, self.model) = (file, path, model)
    var names = file.map(\.name)
    // Of DataParallel and of torch.compile.
    while let wrapper = ["module.", "_orig_mod."].first(where: { prefix in
      !names.isEmpty && names.allSatisfy { $0.hasPrefix(prefix) }
    }) {
      names = names.map { String($0.dropFirst(wrapper.count)) }
    }
    self.names = names
  }

  private static func modules(_ names: [String]) -> [Module] {
    var (result, places): ([Module], [String: Int]) = ([], [:])
    for (index, name) in names.enumerated() {
      let end = name.lastIndex(of: ".")
      let module = end.map { String(name[..<$0]) } ?? ""
      let place = places[module] ?? result.count
      if place == result.count {
        result.append(Module(name: module))
        places[module] = place
      }
      result[place].parts[end.map { String(name[name.index(after: $0)...]) } ?? name] = index
    }
    return result
  }

  /// For each tensor of the model, that of the file; nil for one that layers may lack.
  func tensors() throws -> [Safetensors.Tensor?] {
    let (ours, theirs) = (Self.modules(model.tensors.map(\.name)), Self.modules(names))
    let isNamed = Set(ours.map(\.name)) == Set(theirs.map(\.name))
    var rest = theirs
    var result = [Safetensors.Tensor?](repeating: nil, count: model.tensors.count)
    for module in ours {
      let place = rest.firstIndex { isNamed ? $0.name == module.name : fits($0, module) }
      guard let place else {
        throw misfit("no module of the file fits a layer", found: rest, expected: [module])
      }
      let taken = rest.remove(at: place)
      for (part, index) in module.parts {
        guard let there = taken.parts[part].map({ file[$0] }) else {
          if mayLack(part, module, taken) { continue }
          throw StrideNetError(
            .badData, "a tensor is missing", at: path,
            found: file.map(\.name).joined(separator: ", "), expected: model.tensors[index].name,
            hint: hint)
        }
        guard there.shape == model.tensors[index].shape else {
          throw StrideNetError(
            .badData, "a tensor has another shape than the layers ask for",
            at: "\(path), \(there.name)", found: "\(there.shape)",
            expected: "\(model.tensors[index].shape)", hint: hint)
        }
        result[index] = there
      }
      if let extra = taken.parts.keys.filter({ module.parts[$0] == nil }).min() {
        throw superfluous([file[taken.parts[extra]!].name])
      }
    }
    guard rest.isEmpty else {
      throw superfluous(rest.flatMap { $0.parts.values.sorted().map { file[$0].name } })
    }
    return result
  }

  /// Whether a module of the file can be one of the model.
  private func fits(_ their: Module, _ our: Module) -> Bool {
    their.parts.allSatisfy { part, index in
      our.parts[part].map { model.tensors[$0].shape == file[index].shape } ?? false
    } && our.parts.keys.allSatisfy { their.parts[$0] != nil || mayLack($0, our, their) }
  }

  /// A module without bias; of normalisations, one without weights either.
  private func mayLack(_ part: String, _ our: Module, _ their: Module) -> Bool {
    part == "bias"
      || part == "weight" && our.parts["running_mean"] != nil && their.parts["bias"] == nil
  }

  private var hint: String { "the model that fits these layers is\n" + model.text }

  private func superfluous(_ names: [String]) -> StrideNetError {
    StrideNetError(
      .badData, "a tensor that the layers don't have", at: path,
      found: names.joined(separator: ", "),
      expected: model.tensors.map(\.name).joined(separator: ", "), hint: hint)
  }

  private func misfit(_ what: String, found: [Module], expected: [Module]) -> StrideNetError {
    func text(_ modules: [Module], _ tensor: (Int) -> (String, [Int])) -> String {
      modules.flatMap { $0.parts.values.sorted() }.map(tensor).map { "\($0) \($1)" }
        .joined(separator: ", ")
    }
    let left = text(found) { (file[$0].name, file[$0].shape) }
    return StrideNetError(
      .badData, what, at: path, found: left.isEmpty ? "no tensors that are left" : left,
      expected: text(expected) { (model.tensors[$0].name, model.tensors[$0].shape) }, hint: hint)
  }
}
