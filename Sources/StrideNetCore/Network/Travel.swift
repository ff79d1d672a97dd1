/// What one process sends in a training step, or in some.
package struct Travel: Equatable, Sendable {
  /// Messages to one other process, and their bytes.
  package var messages = 0
  package var bytes = 0
  /// Arrays given to the communicator's own sums, and their bytes.
  package var sums = 0
  package var summedBytes = 0

  package init() {}

  /// Bytes that this process sends, its part of the sums included: those take that many at least
  /// (Chan et al. 2007, doi:10.1002/cpe.1206), 2 (p − 1) / p of what is summed.
  package func volume(_ processes: Int) -> Double {
    Double(bytes) + Double(summedBytes) * 2 * Double(processes - 1) / Double(processes)
  }

  package static func - (a: Travel, b: Travel) -> Travel {
    var result = a
    result.messages -= b.messages
    result.bytes -= b.bytes
    result.sums -= b.sums
    result.summedBytes -= b.summedBytes
    return result
  }

  /// As many bytes to each of so many others.
  fileprivate mutating func send(_ bytes: Int, to others: Int) {
    if bytes == 0 { return }
    messages += others
    self.bytes += bytes * others
  }
  fileprivate mutating func sum(_ count: Int) {
    sums += 1
    summedBytes += 4 * count
  }
}

extension Network {
  /// What this process has sent in all steps so far, and the seconds that it has spent on sending and
  /// on waiting for what others send.
  package var travelled: (travel: Travel, sending: Double, waiting: Double) {
    guard let exchange else { return (Travel(), 0, 0) }
    return (exchange.travel, exchange.secondsSent, exchange.secondsWaited)
  }

  /// What a process sends in a training step, from the layers' sizes: the model of
  /// ``GradientExchange``, which counts what it really sends.
  /// - Parameter leaves: into how many the mini-batch is divided, unless it is as many as it is
  package func travel(_ batch: Int, rank: Int, of size: Int, fast: Bool, leaves: Int? = nil)
    -> Travel
  {
    let share = BatchShare(
      batch, rank: rank, of: size, leaves: leaves ?? BatchShare.leaves(batch))
    var travel = Travel()
    // Of each example its loss, whether it is wrong and, where classes have weights, its label.
    let (others, examples) = (size - 1, share.examples.count)
    for _ in 0..<(classWeights == nil ? 2 : 3) { travel.send(4 * examples, to: others) }
    guard let plan else { return travel }
    var small = 0
    func sendSmall() {
      travel.send(4 * small * BatchShare.subtrees(share.leaves).count, to: others)
      small = 0
    }
    add(plan)
    sendSmall()
    return travel

    func add(_ plan: Plan) {
      for (operation, node) in zip(plan.operations, plan.nodes).reversed() {
        if let sum = node as? AddNode { sum.plans.forEach(add) }
        let parameters = operation.parameters.filter { $0.isTrained && !$0.isFrozen }
        guard let weight = parameters.first else { continue }
        if let norm = node as? BatchNormNode {
          // Were there more leaves than there are, one piece of each.
          for rows in norm.rowsSent(share) {
            travel.send(8 * weight.count * max(rows, leaves == nil ? 0 : 1), to: others)
          }
        } else if fast {
          for parameter in parameters { travel.sum(parameter.count) }
        } else if node is DenseNode {
          addDense(weight, parameters[1].count)
        } else {
          for parameter in parameters { addSums(parameter.count) }
        }
      }
    }

    /// One of each subtree: to everybody, or to each process its part, whose new weights come back.
    func addSums(_ count: Int) {
      if count < GradientExchange.small {
        small += count
        if small >= GradientExchange.small { sendSmall() }
        return
      }
      let own = (rank + 1) * count / size - rank * count / size
      let roots = BatchShare.subtrees(share.leaves).count
      travel.messages += roots * others
      travel.bytes += 4 * roots * (count - own)
      travel.send(4 * own, to: others)
    }

    /// Inputs for each process's columns, outputs' gradients, and this process's new columns.
    func addDense(_ weight: Parameter, _ outputs: Int) {
      let inputs = weight.shape[1]
      travel.send(4 * examples * outputs, to: others)
      if weight.count < GradientExchange.small {
        return travel.send(4 * examples * inputs, to: others)
      }
      let own = (rank + 1) * inputs / size - rank * inputs / size
      if examples > 0 { travel.messages += others }
      travel.bytes += 4 * examples * (inputs - own)
      travel.send(4 * outputs * own, to: others)
    }
  }
}
