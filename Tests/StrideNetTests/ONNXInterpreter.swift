import Foundation
import Testing

import StrideNet

/// Computes a model as the definitions of its operators have it, all in Double.
struct ONNXInterpreter {
  struct Value {
    var sizes: [Int]
    var values: [Double]
    /// The values of all dimensions after the first few.
    func count(from axis: Int) -> Int { sizes[axis...].reduce(1, *) }
  }

  private(set) var values: [String: Value] = [:]
  private(set) var operators: [String] = []

  /// - Parameter image: (batch, channels, height, width)
  init(_ model: ONNXModel, _ image: Value) throws {
    for tensor in model.initializers {
      let numbers: [Double] =
        tensor.dataType == 1
        ? tensor.rawData.withUnsafeBytes { $0.bindMemory(to: Float.self).map(Double.init) }
        : tensor.rawData.withUnsafeBytes { $0.bindMemory(to: Int64.self).map(Double.init) }
      let sizes = tensor.dims
      #expect(numbers.count == sizes.reduce(1, *) && values[tensor.name] == nil)
      values[tensor.name] = Value(sizes: sizes, values: numbers)
    }
    var unused = Set(values.keys)
    values["image"] = image
    for node in model.nodes {
      unused.subtract(node.input)
      let inputs = try node.input.map { try #require(values[$0], "\($0) isn't known yet") }
      let attributes = Dictionary(uniqueKeysWithValues: node.attribute.map { ($0.name, $0) })
      #expect(node.output.count == 1 && values[node.output[0]] == nil)
      values[node.output[0]] = try Operation(
        name: node.opType, inputs: inputs, attributes: attributes
      ).result()
      operators.append(node.opType)
    }
    #expect(unused.isEmpty)
  }

  /// An operator and what goes into it.
  private struct Operation {
    let name: String
    let inputs: [Value]
    let attributes: [String: ONNXModel.Attribute]

    private var x: Value { inputs[0] }
    private func ints(_ name: String) -> [Int] { attributes[name]!.ints }
    private func number(_ name: String) -> Double { Double(attributes[name]!.f) }

    func result() throws -> Value {
      if let value = try elementwise() ?? rearranged() ?? byRows() ?? byChannels() { return value }
      Issue.record("an operator that the test doesn't know: \(name)")
      throw CancellationError()
    }

    private func map(_ f: (Double) -> Double) -> Value {
      Value(sizes: x.sizes, values: x.values.map(f))
    }

    private func with(_ other: Value, _ f: (Double, Double) -> Double) throws -> Value {
      if other.sizes.isEmpty { return map { f($0, other.values[0]) } }
      if other.sizes.count == 1, x.sizes.count == 2 {
        try #require(other.sizes[0] == x.sizes[1])
        return Value(
          sizes: x.sizes,
          values: x.values.enumerated().map { f($1, other.values[$0 % x.sizes[1]]) })
      }
      try #require(other.sizes == x.sizes)
      return Value(sizes: x.sizes, values: zip(x.values, other.values).map(f))
    }

    /// Each value by itself, or with the one in its place.
    private func elementwise() throws -> Value? {
      switch name {
      case "Identity": return x
      case "Relu": return map { max($0, 0) }
      case "LeakyRelu": return map { $0 > 0 ? $0 : number("alpha") * $0 }
      case "Elu": return map { $0 > 0 ? $0 : exp($0) - 1 }
      case "Sigmoid": return map { 1 / (1 + exp(-$0)) }
      case "Tanh": return map { tanh($0) }
      case "Softplus": return map { log(1 + exp($0)) }
      case "Erf": return map { erf($0) }
      case "Add": return try with(inputs[1], +)
      case "Mul": return try with(inputs[1], *)
      case "Sub": return try byChannel(inputs[1], -)
      case "Div": return try byChannel(inputs[1], /)
      default: return nil
      }
    }

    /// With a number for each channel, (channels, 1, 1).
    private func byChannel(_ other: Value, _ f: (Double, Double) -> Double) throws -> Value {
      try #require(x.sizes.count == 4 && other.sizes == [x.sizes[1], 1, 1])
      let pixels = x.sizes[2] * x.sizes[3]
      return Value(
        sizes: x.sizes,
        values: x.values.enumerated().map { f($1, other.values[$0 / pixels % x.sizes[1]]) })
    }

    /// The same values in other places.
    private func rearranged() throws -> Value? {
      switch name {
      case "Flatten":
        try #require(attributes["axis"]!.i == 1)
        return Value(sizes: [x.sizes[0], x.count(from: 1)], values: x.values)
      case "Reshape":
        let sizes = zip(0..., inputs[1].values).map { $1 == 0 ? x.sizes[$0] : Int($1) }
        try #require(sizes.reduce(1, *) == x.values.count)
        return Value(sizes: sizes, values: x.values)
      case "Transpose":
        let order = ints("perm")
        let sizes = order.map { x.sizes[$0] }
        let values = x.values.indices.map { index in
          var (rest, place) = (index, 0)
          for (axis, size) in zip(order, sizes).reversed() {
            place += rest % size * x.count(from: axis + 1)
            rest /= size
          }
          return x.values[place]
        }
        return Value(sizes: sizes, values: values)
      default: return nil
      }
    }

    /// The values of an example, or of a pixel, together.
    private func byRows() throws -> Value? {
      switch name {
      case "Softmax":
        try #require(attributes["axis"]!.i == 1 && x.sizes.count == 2)
        return rows { row in
          let sum = row.reduce(0) { $0 + exp($1) }
          return row.map { exp($0) / sum }
        }
      case "Gemm":
        try #require(attributes["transB"]!.i == 1)
        let (w, bias) = (inputs[1], inputs[2])
        try #require(x.sizes.count == 2 && x.sizes[1] == w.sizes[1] && bias.sizes == [w.sizes[0]])
        let result = rows { row in
          (0..<w.sizes[0]).map { o in
            zip(row, w.values[(o * row.count)...]).reduce(bias.values[o]) { $0 + $1.0 * $1.1 }
          }
        }
        return Value(sizes: [x.sizes[0], w.sizes[0]], values: result.values)
      case "LayerNormalization":
        try #require(attributes["axis"]!.i == -1)
        return rows { row in
          let n = Double(row.count)
          let mean = row.reduce(0, +) / n
          let variance = row.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / n
          let scale = 1 / (variance + number("epsilon")).squareRoot()
          return row.enumerated().map {
            ($1 - mean) * scale * inputs[1].values[$0] + inputs[2].values[$0]
          }
        }
      default: return nil
      }
    }

    /// Values of a channel, or of windows.
    private func byChannels() throws -> Value? {
      switch name {
      case "BatchNormalization":
        let behind = x.count(from: 2)
        return Value(
          sizes: x.sizes,
          values: x.values.enumerated().map { index, value in
            let c = index / behind % x.sizes[1]
            let p = inputs[1...].map { $0.values[c] }
            return (value - p[2]) / (p[3] + number("epsilon")).squareRoot() * p[0] + p[1]
          })
      case "GlobalAveragePool":
        let pixels = x.count(from: 2)
        return Value(
          sizes: [x.sizes[0], x.sizes[1], 1, 1],
          values: stride(from: 0, to: x.values.count, by: pixels).map {
            x.values[$0..<$0 + pixels].reduce(0, +) / Double(pixels)
          })
      case "MaxPool", "AveragePool":
        let size = ints("kernel_shape")
        return try windows(size, ints("strides"), ints("pads"), [1, 1], x.sizes[1]) { c, element in
          let all = (0..<size[0] * size[1]).compactMap { element(c, $0 / size[1], $0 % size[1]) }
          if name == "MaxPool" { return all.max()! }
          let divisor = attributes["count_include_pad"]!.i == 1 ? size[0] * size[1] : all.count
          return all.reduce(0, +) / Double(divisor)
        }
      case "Pad":
        let pads = inputs[1].values.map(Int.init)
        try #require(pads.count == 8 && Array(pads[0..<2] + pads[4..<6]) == [0, 0, 0, 0])
        // A window of one element, which is 0 outside.
        return try windows(
          [1, 1], [1, 1], [pads[2], pads[3], pads[6], pads[7]], [1, 1], x.sizes[1]
        ) {
          $1($0, 0, 0) ?? 0
        }
      case "Conv":
        let (w, bias, groups) = (inputs[1], inputs[2], attributes["group"]!.i)
        let (filters, channels) = (w.sizes[0], w.sizes[1])
        try #require(channels * groups == x.sizes[1] && w.sizes[2...] == ints("kernel_shape")[...])
        return try windows(
          ints("kernel_shape"), ints("strides"), ints("pads"), ints("dilations"), filters
        ) { f, element in
          var sum = bias.values[f]
          for c in 0..<channels {
            for i in 0..<w.sizes[2] {
              for j in 0..<w.sizes[3] {
                let weight = w.values[((f * channels + c) * w.sizes[2] + i) * w.sizes[3] + j]
                sum += weight * (element(f / (filters / groups) * channels + c, i, j) ?? 0)
              }
            }
          }
          return sum
        }
      default: return nil
      }
    }

    private func rows(_ f: (ArraySlice<Double>) -> [Double]) -> Value {
      let size = x.sizes.last!
      return Value(
        sizes: x.sizes,
        values: stride(from: 0, to: x.values.count, by: size).flatMap {
          f(ArraySlice(Array(x.values[$0..<$0 + size])))
        })
    }

    /// `f` gets an output channel and gives out of the window's input: channel, row, column.
    private func windows(
      _ size: [Int], _ stride: [Int], _ pads: [Int], _ dilation: [Int], _ channels: Int,
      _ f: (Int, (Int, Int, Int) -> Double?) -> Double
    ) throws -> Value {
      let (h, w) = (x.sizes[2], x.sizes[3])
      let rows = (h + pads[0] + pads[2] - dilation[0] * (size[0] - 1) - 1) / stride[0] + 1
      let columns = (w + pads[1] + pads[3] - dilation[1] * (size[1] - 1) - 1) / stride[1] + 1
      var result = Value(sizes: [x.sizes[0], channels, rows, columns], values: [])
      for n in 0..<x.sizes[0] {
        for c in 0..<channels {
          for p in 0..<rows {
            for q in 0..<columns {
              result.values.append(
                f(c) { channel, i, j in
                  let (row, column) = (
                    p * stride[0] + i * dilation[0] - pads[0],
                    q * stride[1] + j * dilation[1] - pads[1]
                  )
                  guard 0..<h ~= row && 0..<w ~= column else { return nil }
                  return x.values[((n * x.sizes[1] + channel) * h + row) * w + column]
                })
            }
          }
        }
      }
      return result
    }
  }
}
