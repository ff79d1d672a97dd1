import CKernels
import Foundation
import Testing

import StrideNet

/// What `stridenet explain conv` computes.
@Suite struct ConvolutionWalkTests {
  /// The source's four groups, with the misprint in its first mended.
  @Test func theExampleOfTheSource() throws {
    let walk = try ConvolutionWalk(input: (4, 4), filter: (2, 2))
    #expect(walk.isPublishedExample)
    let inputs = walk.groups.indices.map { group in
      (0..<4).map { walk.met(by: $0, in: group) }
    }
    #expect(
      inputs == [
        [[1, 3, 9, 11], [2, 4, 10, 12], [5, 7, 13, 15], [6, 8, 14, 16]],
        [[2, 10], [3, 11], [6, 14], [7, 15]],
        [[5, 7], [6, 8], [9, 11], [10, 12]],
        [[6], [7], [10], [11]],
      ])
    #expect(walk.values == [44, 54, 64, 84, 94, 104, 124, 134, 144])
    #expect(
      (0..<4).map { walk.gathered(0, $0) }.joined().map { Int($0) }
        == [1, 2, 5, 6, 3, 4, 7, 8, 9, 10, 13, 14, 11, 12, 15, 16])
    #expect((0..<4).map { walk.sum(0, $0) } == [44, 64, 124, 144])
    let all = (0..<4).map { row in (0..<4).map { walk.touches((row, $0)) } }
    #expect(all == [[1, 2, 2, 1], [2, 4, 4, 2], [2, 4, 4, 2], [1, 2, 2, 1]])
  }

  struct Case: CustomTestStringConvertible {
    var input: ConvolutionWalk.Size, filter: ConvolutionWalk.Size
    var stride: ConvolutionWalk.Size = (1, 1), padding: ConvolutionWalk.Size = (0, 0)

    var walk: ConvolutionWalk {
      get throws {
        try ConvolutionWalk(input: input, filter: filter, stride: stride, padding: padding)
      }
    }

    var testDescription: String {
      [input, filter, stride, padding].map { "\($0.height)x\($0.width)" }.joined(separator: " ")
    }
  }

  static let cases: [Case] = [
    Case(input: (4, 4), filter: (2, 2)),
    Case(input: (1, 1), filter: (1, 1)),
    Case(input: (1, 1), filter: (3, 3), padding: (1, 1)),
    Case(input: (5, 5), filter: (1, 1), stride: (2, 3)),
    Case(input: (5, 7), filter: (3, 3), stride: (2, 2), padding: (1, 1)),
    Case(input: (7, 5), filter: (3, 2), stride: (1, 2), padding: (2, 0)),
    Case(input: (9, 8), filter: (2, 5), stride: (3, 2), padding: (1, 4)),
    Case(input: (10, 10), filter: (3, 3), stride: (3, 3)),
    Case(input: (11, 9), filter: (2, 2), stride: (3, 5)),
    Case(input: (6, 6), filter: (6, 6)),
    Case(input: (8, 1), filter: (5, 1), stride: (2, 1), padding: (4, 0)),
    Case(input: (28, 28), filter: (5, 5), stride: (2, 2)),
    Case(input: (20, 40), filter: (3, 17)),
    Case(input: (6, 6), filter: (3, 3)),
    Case(input: (3, 3), filter: (3, 3)),
    Case(input: (5, 4), filter: (3, 3), padding: (1, 2)),
    Case(input: (1, 9), filter: (3, 3), padding: (2, 0)),
    Case(input: (13, 16), filter: (3, 3), padding: (1, 1)),
  ]

  /// Against the convolution's definition, in whole numbers.
  @Test(arguments: cases) func theDefinition(c: Case) throws {
    let walk = try c.walk
    let (input, filter) = (c.input, c.filter)
    let rows = (input.height + 2 * c.padding.height - filter.height) / c.stride.height + 1
    let columns = (input.width + 2 * c.padding.width - filter.width) / c.stride.width + 1
    #expect(walk.output == (rows, columns))
    var seen = Set<[Int]>()
    var all: [[Int]: Int] = [:]
    for (index, group) in walk.groups.enumerated() {
      var held: [[Int]: Int] = [:]
      for window in 0..<group.count {
        let (p, q) = group.position(window)
        #expect(seen.insert([p, q]).inserted, "a position twice")
        var (values, sum) = ([Int](), 0)
        for i in 0..<filter.height {
          for j in 0..<filter.width {
            let row = p * c.stride.height + i - c.padding.height
            let column = q * c.stride.width + j - c.padding.width
            let isInside = row >= 0 && row < input.height && column >= 0 && column < input.width
            let number = isInside ? row * input.width + column + 1 : 0
            #expect(walk.met(by: i * filter.width + j, in: index)[window] == number)
            values.append(number)
            sum += number * ((i * filter.width + j) % 9 + 1)
            held[[row, column], default: 0] += 1
            all[[row, column], default: 0] += isInside ? 1 : 0
            #expect(group.window(at: (row, column)) == window)
          }
        }
        #expect(walk.gathered(index, window) == values.map { Float($0) })
        #expect(walk.sum(index, window) == Float(sum))
      }
      #expect(held.values.allSatisfy { $0 == 1 }, "an input twice in a group")
    }
    #expect(seen.count == rows * columns)
    for row in 0..<input.height {
      for column in 0..<input.width {
        #expect(walk.touches((row, column)) == all[[row, column]] ?? 0)
        #expect(
          walk.groups.allSatisfy { group in
            group.window(at: (row, column)).map { window in
              (0..<filter.height * filter.width).contains {
                group.input($0, window) == (row, column)
              }
            } ?? true
          })
      }
    }
  }

  /// How often an input is touched, by the kernels: with weights and gradients of 1 that is what the
  /// backward pass gives.
  @Test(arguments: cases) func touchesAreTheKernels(c: Case) throws {
    let walk = try c.walk
    let s = Self.shape(walk)
    let ones = [Float](repeating: 1, count: s.weights)
    let x = [Float](repeating: 0, count: s.inputs)
    let places = (0..<s.inputs).map { ($0 / c.input.width, $0 % c.input.width) }
    for kernel in ConvVariant.all {
      func gradient(_ dy: [Float]) -> [Int] {
        ConvolutionTests.run(kernel, CK_INPUT_GRADIENT, s, x: x, w: ones, y: dy).map { Int($0) }
      }
      #expect(
        gradient([Float](repeating: 1, count: s.outputs)) == places.map { walk.touches($0) })
      for group in walk.groups {
        var dy = [Float](repeating: 0, count: s.outputs)
        for (row, column) in group.positions { dy[row * walk.output.width + column] = 1 }
        #expect(gradient(dy) == places.map { group.window(at: $0) == nil ? 0 : 1 })
      }
    }
  }

  static func shape(_ walk: ConvolutionWalk) -> ck_conv_shape {
    ck_conv_shape(
      n: 1, h: Int32(walk.input.height), w: Int32(walk.input.width), c: 1,
      fh: Int32(walk.filter.height), fw: Int32(walk.filter.width), f: 1,
      sh: Int32(walk.stride.height), sw: Int32(walk.stride.width),
      ph: Int32(walk.padding.height), pw: Int32(walk.padding.width),
      oh: Int32(walk.output.height), ow: Int32(walk.output.width), dh: 1, dw: 1, groups: 1)
  }

  /// The kernels' own workspaces bear the formulas out, and every kernel gives these values.
  @Test(arguments: cases) func costs(c: Case) throws {
    let walk = try c.walk
    let s = Self.shape(walk)
    #expect(walk.costs.map(\.variant) == ConvVariant.all.map(\.name))
    let products = walk.values.count * walk.weights.count
    let inside = walk.groups.indices.reduce(0) { sum, group in
      sum + walk.weights.indices.reduce(0) { $0 + walk.met(by: $1, in: group).count { $0 > 0 } }
    }
    for (cost, kernel) in zip(walk.costs, ConvVariant.all) {
      #expect(
        ConvolutionTests.run(
          kernel, CK_FORWARD, s, x: walk.pixels, w: walk.weights,
          y: [Float](repeating: 0, count: s.outputs)) == walk.values)
      let workspace = kernel.workspace(s, CK_FORWARD) * 4
      switch cost.variant {
      case "naive":
        #expect(cost.passes == walk.values.count && cost.multiplyAdds == inside)
        #expect(cost.gatheredBytes == 0 && workspace == 0)
      case "stride_groups":
        #expect(cost.passes == walk.groups.count && cost.multiplyAdds == products)
        #expect(cost.gatheredBytes == 4 * products)
        // Long rows without padding go straight to the product.
        let isWritten = walk.filter.width < 16 || walk.padding != (0, 0)
        #expect(cost.heldBytes == (isWritten ? 4 * walk.groups[0].count * walk.weights.count : 0))
        let padded =
          (c.input.height + 2 * c.padding.height) * (c.input.width + 2 * c.padding.width)
        #expect(cost.heldBytes <= 4 * padded)
      case "im2col":
        #expect(cost.passes == 1 && cost.multiplyAdds == products)
        #expect(cost.gatheredBytes == 4 * products && cost.heldBytes == 4 * products)
      case "winograd" where walk.isWinograd:
        let tiles = (walk.output.height + 1) / 2 * ((walk.output.width + 1) / 2)
        #expect(cost.passes == 1 && cost.multiplyAdds == 16 * tiles)
        #expect(cost.gatheredBytes == 64 * tiles && cost.heldBytes == 64 * min(tiles, 28))
        #expect(workspace >= cost.heldBytes)
      default:
        #expect(cost.passes == 1 && (inside...products).contains(cost.multiplyAdds))
        #expect((cost.gatheredBytes == 0) == (c.padding == (0, 0)))
        #expect(workspace >= cost.heldBytes)
      }
    }
  }

  /// Winograd's tiles cover the output and give what the definition does, where they stick out too.
  @Test(arguments: cases.filter { $0.filter == (3, 3) && $0.stride == (1, 1) })
  func winograd(c: Case) throws {
    let walk = try c.walk
    #expect(walk.isWinograd)
    var seen = 0
    for row in 0..<walk.tiles.height {
      for column in 0..<walk.tiles.width {
        let tile = walk.tile(row, column)
        for (i, line) in tile.outputs.whole.enumerated() {
          for (j, y) in line.enumerated() {
            let (p, q) = (2 * row + i, 2 * column + j)
            let isInside = p < walk.output.height && q < walk.output.width
            let value = isInside ? walk.values[p * walk.output.width + q] : nil
            #expect(walk.values(atTile: row, column)[i][j] == value)
            #expect(value == nil || Double(value!) == y)
            seen += isInside ? 1 : 0
          }
        }
        #expect(walk.agrees(row, column))
      }
    }
    #expect(seen == walk.values.count)
  }

  @Test func winogradIsForThreeInStepsOfOne() throws {
    for (filter, stride) in [
      ((2, 2), (1, 1)), ((3, 3), (2, 1)), ((3, 2), (1, 1)), ((5, 5), (1, 1)),
    ] {
      let walk = try ConvolutionWalk(input: (8, 8), filter: filter, stride: stride)
      #expect(!walk.isWinograd)
      let costs = walk.costs.suffix(2)
      #expect(costs.map(\.variant) == ["direct", "winograd"])
      #expect(costs.first!.multiplyAdds == costs.last!.multiplyAdds)
    }
  }

  /// Numbers by hand: inputs of 1 by a filter of ones.
  @Test func theNumbersOfATile() {
    let tile = WinogradTile(
      inputs: [.init(repeating: [1, 1, 1, 1], count: 4)],
      filters: [.init(repeating: [1, 1, 1], count: 3)])
    #expect(tile.inputs[0].half == [[0, 0, 0, 0], [2, 2, 2, 2], [0, 0, 0, 0], [0, 0, 0, 0]])
    #expect(tile.inputs[0].whole == [[0, 0, 0, 0], [0, 4, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    #expect(
      tile.filters[0].whole
        == [[1, 1.5, 0.5, 1], [1.5, 2.25, 0.75, 1.5], [0.5, 0.75, 0.25, 0.5], [1, 1.5, 0.5, 1]])
    #expect(tile.outputs.matrix == [[0, 0, 0, 0], [0, 9, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    #expect(tile.outputs.whole == [[9, 9], [9, 9]])
  }

  /// Against the definition, summed over channels, and against the kernel.
  @Test(arguments: [1, 2, 3, 5]) func tilesOfSeveralChannels(channels: Int) {
    var random = SeededGenerator(seed: UInt64(channels))
    func matrix(_ size: Int) -> WinogradTile.Matrix {
      (0..<size).map { _ in (0..<size).map { _ in Double(Int.random(in: -9...9, using: &random)) } }
    }
    let inputs = (0..<channels).map { _ in matrix(4) }
    let filters = (0..<channels).map { _ in matrix(3) }
    var expected: WinogradTile.Matrix = [[0, 0], [0, 0]]
    for (d, g) in zip(inputs, filters) {
      for p in 0..<2 {
        for q in 0..<2 {
          for i in 0..<3 { for j in 0..<3 { expected[p][q] += d[p + i][q + j] * g[i][j] } }
        }
      }
    }
    #expect(WinogradTile(inputs: inputs, filters: filters).outputs.whole == expected)
    let s = ck_conv_shape(
      n: 1, h: 4, w: 4, c: Int32(channels), fh: 3, fw: 3, f: 1, sh: 1, sw: 1, ph: 0, pw: 0, oh: 2,
      ow: 2, dh: 1, dw: 1, groups: 1)
    func packed(_ matrices: [WinogradTile.Matrix]) -> [Float] {
      let size = matrices[0].count
      return (0..<size * size).flatMap { i in matrices.map { Float($0[i / size][i % size]) } }
    }
    let kernel = ConvVariant.all.first { $0.name == "winograd" }!
    #expect(
      ConvolutionTests.run(
        kernel, CK_FORWARD, s, x: packed(inputs), w: packed(filters), y: [0, 0, 0, 0])
        == expected.joined().map { Float($0) })
  }

  /// Where values start again, sums stay exact: else the walk would throw.
  @Test func sumsStayExact() throws {
    let walk = try ConvolutionWalk(input: (1024, 1024), filter: (3, 3))
    #expect(walk.groups.count == 9 && walk.pixels.max()! < 1024 * 1024)
    #expect(walk.values.max()! < 16_777_216)
    #expect(walk.values.count == 1022 * 1022)
  }

  @Test func names() {
    #expect(
      [0, 25, 26, 51, 52, 701, 702].map(ConvolutionWalk.letter)
        == ["A", "Z", "AA", "AZ", "BA", "ZZ", "AAA"])
  }
}
