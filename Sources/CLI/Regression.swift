import StrideNet

/// How near a network came to the numbers that it predicts, as the command line says it.
extension RegressionMetrics {
  /// MAE and R² of each output, of many the means alone: "MAE x 0.42 y 0.38  R² x 0.98 y 0.97".
  var text: String {
    func list(_ values: [String]) -> String {
      if outputs.count == 1 { return values[0] }
      return zip(outputs, values).map { "\($0.name.isEmpty ? "" : "\($0.name.oneLine) ")\($1)" }
        .joined(separator: " ")
    }
    guard outputs.count <= 4 else { return "mean R² \(Self.r2(r2)) of \(outputs.count) outputs" }
    return "MAE \(list(outputs.map { $0.meanAbsoluteError.digits(4) }))"
      + "  R² \(list(outputs.map { Self.r2($0.r2) }))"
  }

  /// A row for each output.
  var table: [String] {
    let rows = outputs.enumerated().map { index, output in
      [
        output.name.isEmpty ? "output \(index + 1)" : output.name.oneLine,
        output.meanSquaredError.digits(4), output.meanAbsoluteError.digits(4),
        Self.r2(output.r2),
      ]
    }
    return aligned([["", "MSE", "MAE", "R²"]] + rows, textColumns: [0], indent: "")
  }

  /// A dash where all targets are the same.
  static func r2(_ value: Double?) -> String { value?.fixed(4) ?? "-" }

  var events: [Event] { outputs.map(Event.init) }

  /// What one output came to, in JSON.
  struct Event: Encodable {
    let name: String?
    let mse, mae: Double
    let r2: Double?

    init(_ output: Output) {
      name = output.name.isEmpty ? nil : output.name
      (mse, mae, r2) = (output.meanSquaredError, output.meanAbsoluteError, output.r2)
    }
  }
}

extension Network {
  /// Of numbers to predict, what they are called and what is done to them.
  var targetsText: String? {
    targetNormalization.map {
      "targets  \(outputList)" + ($0 == .none(outputs: classes) ? "" : ", \($0.text)")
    }
  }

  /// What the outputs are called, or how many there are; of many names the first.
  var outputList: String {
    classNames.isEmpty ? "\(classes) outputs" : Dataset.list(classNames).oneLine
  }
}
