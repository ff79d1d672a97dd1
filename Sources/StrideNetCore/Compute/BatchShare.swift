/// The examples of a mini-batch that this process takes, and the order in which sums over all of the
/// mini-batch are added.
///
/// The examples are divided into equal leaves of a binary tree, and a process takes neighbouring ones.
/// Where a sum over examples is needed, each leaf's is taken, or of its halves, and two neighbours are
/// added at a time, then two pairs, and so on up to the root. The tree depends on the number of
/// examples alone: whichever threads of whichever processes take its leaves, the same numbers are added
/// in the same order, and the result is the same bit for bit.
package struct BatchShare: Equatable {
  /// Examples of the mini-batch, in all processes.
  package let batch: Int
  /// The leaves that are this process's.
  package let leaves: Range<Int>
  private let leafCount: Int

  /// All of a mini-batch, in one process.
  package init(_ batch: Int) { self.init(batch, rank: 0, of: 1) }

  /// The share of process number `rank`.
  package init(_ batch: Int, rank: Int, of size: Int) {
    self.init(batch, rank: rank, of: size, leaves: Self.leaves(batch))
  }
  init(_ batch: Int, rank: Int, of size: Int, leaves count: Int) {
    self.batch = batch
    leafCount = count
    leaves = rank * count / size..<(rank + 1) * count / size
  }

  /// Examples over which nothing is added, in one leaf.
  package static func whole(_ batch: Int) -> BatchShare {
    BatchShare(batch: batch, leaves: 0..<min(1, batch), leafCount: min(1, batch))
  }
  private init(batch: Int, leaves: Range<Int>, leafCount: Int) {
    (self.batch, self.leaves, self.leafCount) = (batch, leaves, leafCount)
  }

  /// Leaves of a mini-batch, a power of two: of at least eight examples, if it has two of these.
  package static func leaves(_ batch: Int) -> Int {
    min(16, max((batch / 8).powerOfTwo, min(2, batch.powerOfTwo)))
  }

  /// This process's examples.
  package var examples: Range<Int> {
    Self.cut(leaves.lowerBound, batch, leafCount)..<Self.cut(leaves.upperBound, batch, leafCount)
  }

  /// Where piece number `index` of so many begins.
  private static func cut(_ index: Int, _ batch: Int, _ pieces: Int) -> Int {
    pieces == 0 ? 0 : index * batch / pieces
  }

  /// This process's pieces of `count`, which is a multiple of the number of leaves.
  package func pieces(of count: Int) -> Range<Int> {
    let each = leafCount == 0 ? 0 : count / leafCount
    return leaves.lowerBound * each..<leaves.upperBound * each
  }

  /// The examples of such a piece, counted from this process's first one.
  func examples(_ piece: Int, of count: Int) -> Range<Int> {
    let first = examples.lowerBound
    return Self.cut(piece, batch, count) - first..<Self.cut(piece + 1, batch, count) - first
  }

  /// Leaves, one after the other, are cut into chunks of up to `size` examples, the same number each;
  /// of a leaf with fewer examples the last one may be empty. So many are this process's.
  func chunks(of size: Int) -> Int { leaves.count * chunksOfLeaf(size) }
  /// Those of all processes before them.
  func firstChunk(of size: Int) -> Int { leaves.lowerBound * chunksOfLeaf(size) }
  private func chunksOfLeaf(_ size: Int) -> Int {
    leafCount == 0 ? 0 : ((batch + leafCount - 1) / leafCount + size - 1) / size
  }
  /// The examples of one, counted from this process's first one as its number is.
  func chunk(_ number: Int, of size: Int) -> Range<Int> {
    let each = chunksOfLeaf(size)
    let leaf = examples(leaves.lowerBound + number / each, of: leafCount)
    let start = min(leaf.upperBound, leaf.lowerBound + number % each * size)
    return start..<min(leaf.upperBound, start + size)
  }

  /// The largest subtrees that these pieces, or leaves, are made of.
  package static func subtrees(_ pieces: Range<Int>) -> [Range<Int>] {
    var (result, first) = ([Range<Int>](), pieces.lowerBound)
    while first < pieces.upperBound {
      let aligned = first == 0 ? pieces.upperBound.powerOfTwo : first & -first
      let size = min(aligned, (pieces.upperBound - first).powerOfTwo)
      result.append(first..<first + size)
      first += size
    }
    return result
  }

  /// Adds neighbours among pieces, then neighbours among these sums, and so on: calls `add(from, to)`
  /// with the places of two that are added, the second of which takes the sum. What is left are the
  /// first places of ``subtrees(_:)``.
  static func addNeighbours(_ pieces: Range<Int>, _ add: (_ from: Int, _ to: Int) -> Void) {
    var step = 1
    while step < pieces.upperBound {
      var left = (pieces.lowerBound + 2 * step - 1) / (2 * step) * (2 * step)
      while left + 2 * step <= pieces.upperBound {
        add(left + step, left)
        left += 2 * step
      }
      step *= 2
    }
  }
}

extension Int {
  /// The largest power of two that isn't larger; of 0 it is 0.
  var powerOfTwo: Int { self < 1 ? 0 : 1 << (bitWidth - 1 - leadingZeroBitCount) }
}
