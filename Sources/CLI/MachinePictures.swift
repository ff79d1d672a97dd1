import Foundation
import StrideNet

/// The pictures of the article on many machines: the tree, and steps that were timed once, on a machine
/// that the file names.
struct MachinePictures {
  private let link: BenchMachines.LinkEvent
  private let steps: [BenchMachines.StepEvent]

  init(_ path: String) throws {
    let lines = try String(contentsOfFile: path, encoding: .utf8).split(separator: "\n")
    let decoder = JSONDecoder()
    link = try decoder.decode(BenchMachines.LinkEvent.self, from: Data(lines[0].utf8))
    steps = try lines.dropFirst().map {
      try decoder.decode(BenchMachines.StepEvent.self, from: Data($0.utf8))
    }
  }

  func steps(_ model: String) -> String {
    let plots = BenchMachines.plots(link, steps.filter { $0.model == model })
    return Plot.svg(plots)
  }

  /// The tree of a mini-batch of 64, whose leaves three processes take.
  static func tree() -> String {
    let (batch, processes) = (64, 3)
    let shares = (0..<processes).map { BatchShare(batch, rank: $0, of: processes) }
    let count = BatchShare.leaves(batch)
    let colours = ["c2", "c0", "c3"]
    let (left, wide, high, foot) = (14.0, 82.0, 26.0, 236.0)
    var drawing = Drawing()
    drawing.text(
      left, 20, "A mini-batch of \(batch) images in \(count) leaves, three processes",
      weight: "bold")
    func place(_ leaves: Range<Int>) -> (x: Double, y: Double) {
      let middle = Double(leaves.lowerBound + leaves.upperBound) / 2
      return (
        left + wide * middle, foot - 62 * Double(leaves.count.trailingZeroBitCount)
      )
    }
    var size = 1
    while size <= count {
      for first in stride(from: 0, to: count, by: size) {
        let leaves = first..<first + size
        let (x, y) = place(leaves)
        if size > 1 {
          for half in [first..<first + size / 2, first + size / 2..<first + size] {
            let below = place(half)
            drawing.line([(x, y + high), (below.x, below.y)], Plot.soft)
          }
        }
        let owner = shares.firstIndex {
          $0.leaves.contains(first) && $0.leaves.upperBound >= first + size
        }
        let travels = owner.map { BatchShare.subtrees(shares[$0].leaves).contains(leaves) } ?? false
        let half = size == 1 ? 36.0 : 44
        drawing.bar(x - half, y, 2 * half, high, "paper")
        if let owner {
          drawing.bar(x - half, y, 2 * half, high, colours[owner], opacity: travels ? 0.45 : 0.15)
        }
        drawing.line(
          [
            (x - half, y), (x + half, y), (x + half, y + high), (x - half, y + high), (x - half, y),
          ], owner.map { colours[$0] } ?? Plot.ink, width: travels ? 3 : 1)
        let images = "\(first * batch / count)–\((first + size) * batch / count - 1)"
        drawing.text(
          x, y + 18, size == count ? "sum" : images, anchor: "middle", weight: travels ? "bold" : ""
        )
      }
      size *= 2
    }
    for (rank, share) in shares.enumerated() {
      let (from, to) = (
        left + wide * Double(share.leaves.lowerBound) + 6,
        left + wide * Double(share.leaves.upperBound) - 6
      )
      drawing.line([(from, foot + 34), (from, foot + 40), (to, foot + 40), (to, foot + 34)])
      drawing.text((from + to) / 2, foot + 58, "process \(rank)", anchor: "middle")
    }
    drawing.text(
      left, foot + 84,
      "Thick: sums that travel, the largest that are one process's. Black: added by all, in the tree's order.",
      Plot.soft)
    return drawing.svg(
      684, foot + 98, "The tree of sums over a mini-batch, and which of them travel")
  }
}
