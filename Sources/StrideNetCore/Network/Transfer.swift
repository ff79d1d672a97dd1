// Going on with what a network has learned: on the same classes, or with a last layer for others.

extension Network {
  /// Another network that goes on from this one's weights on `data`: whole where that has the classes
  /// that the outputs stand for, or the numbers, else with a last dense layer that is new. Its classes
  /// are the data's. From classes to numbers the new layer has no activation, and the loss is the
  /// squared error; from numbers to classes they are softmax and the cross-entropy.
  ///
  ///     let network = try Network.load(from: path).copy(for: data, seed: 3)
  ///
  /// - Parameter seed: of what is drawn from now on, the new layer's first weights among it
  /// - Throws: ``StrideNetError`` where it isn't built, or has no dense layer at its end and the classes
  ///   are others
  public func copy(for data: Dataset, seed: UInt64 = 1) throws -> Network {
    let other = hasClasses(of: data) ? nil : data.classCount
    let isOther = predictsNumbers != data.hasTargets
    let result = try copy(
      outputs: other, seed: seed,
      isOther ? data.hasTargets ? Activation.none : .softmax : nil)
    if other == nil { result.targetNormalization = targetNormalization }
    if isOther { result.loss = data.hasTargets ? .meanSquaredError : .crossEntropy() }
    (result.classNames, result.pictureFit) = (data.classNames, data.fit)
    return result
  }

  /// Another network with the same layers and weights, but for a last dense layer of so many outputs,
  /// whose first weights are drawn by the seed. Its classes have no names.
  /// - Throws: ``StrideNetError`` where it isn't built, or doesn't end in a dense layer
  public func copy(outputs: Int, seed: UInt64 = 1) throws -> Network {
    try copy(outputs: .some(outputs), seed: seed, nil)
  }

  /// - Parameter activation: the new layer's, if it is to be another one
  private func copy(outputs: Int?, seed: UInt64, _ activation: Activation?) throws -> Network {
    guard let input else { throw Self.unbuilt }
    let head = try outputs.map { _ in try Self.head(of: layers) }
    let result = Network(
      try outputs.map { try Self.layers(layers, outputs: $0, activation) } ?? layers, seed: seed,
      runtime: runtime)
    (result.loss, result.normalization) = (loss, normalization)
    try result.build(for: input)
    // What came behind a last layer of another kind is gone.
    for index in result.layers.indices where index != head {
      try result.copyWeights(from: self, layers: index..<index + 1)
    }
    return result
  }

  /// Whether the outputs stand for the classes of `data`, or the numbers to predict: those of the same
  /// names in the same order. Classes without names are called by their numbers.
  public func hasClasses(of data: Dataset) -> Bool {
    if data.hasTargets != predictsNumbers { return false }
    if data.hasTargets, data.classNames.isEmpty || classNames.isEmpty {
      return data.classCount == classes
    }
    if data.classNames.isEmpty { return data.classCount <= classes }
    return data.classNames
      == (classNames.isEmpty ? (0..<classes).map(String.init) : classNames)
  }

  /// The place of the last dense layer, behind which nothing has weights.
  /// - Throws: ``StrideNetError`` where there is none
  package static func head(of layers: [any Layer]) throws -> Int {
    guard let head = layers.lastIndex(where: { $0 is Dense }),
      layers[(head + 1)...].allSatisfy({ $0 is Activate || $0 is Dropout })
    else {
      throw StrideNetError(
        .badData, "a network without a last layer that could be new",
        found: Architecture.text(layers),
        expected: "a dense layer at its end, as softmax(10)")
    }
    return head
  }

  /// The layers with a last dense layer of so many outputs, and another activation at the end if that
  /// is given.
  package static func layers(
    _ layers: [any Layer], outputs: Int, _ activation: Activation? = nil
  ) throws -> [any Layer] {
    let head = try head(of: layers)
    let old = layers[head] as! Dense
    var layers = layers
    if activation != nil { layers.removeSubrange((head + 1)...) }
    layers[head] = Dense(
      outputs, activation: activation ?? old.activation, initializer: old.initializer)
    return layers
  }
}

extension Dataset {
  /// How many classes there are: as many as have names, or as labels tell; or numbers to predict.
  package var classCount: Int {
    if let count = train.targetCount { return count }
    return classNames.isEmpty
      ? Int([train, test].compactMap { $0.labels.max() }.max() ?? 0) + 1 : classNames.count
  }
}
