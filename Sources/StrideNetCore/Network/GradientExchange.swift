/// What travels between processes that train together, in every step.
///
/// Of layers whose weights are shared by places of an image (convolutions) the gradients travel: of
/// each subtree of the mini-batch (``BatchShare``) that is a process's, one. Small ones go to everybody,
/// several in a message, and everybody adds all of them by the tree and makes the same update. Of a
/// large one each process gets a part of its own from everybody, adds that, updates the weights of that
/// part alone, with an optimiser's memory that nobody else has, and sends them to the others.
///
/// A dense layer's gradient is the product of its outputs' gradients and its inputs, and these are
/// smaller than it is: they travel instead ("sufficient factors", Xie et al. 2014, arXiv:1409.5705).
/// Each process gets all examples' inputs for some columns of the weights, multiplies and updates these
/// as one process alone would do it, number by number, and sends the others the new weights.
final class GradientExchange {
  private let runtime: Runtime
  private let communicator: any Communicator
  /// Whether gradients are added in the order that the communicator likes best.
  private let isFast: Bool
  private var share = BatchShare(0)
  /// What went wrong first; after it nothing travels any more.
  private(set) var failure: (any Error)?
  /// What this process has sent in all steps, and the seconds that it has spent on sending, what is
  /// put together for it included, and on waiting.
  private(set) var travel = Travel()
  private(set) var secondsSent = 0.0
  private(set) var secondsWaited = 0.0

  /// Arrays of fewer floats are put together and sent to everybody; an update of one is made by all.
  static let small = 16_384

  init(_ runtime: Runtime) {
    self.runtime = runtime
    communicator = runtime.communicator
    isFast = runtime.reducesFast
  }

  // MARK: Memory that lasts from step to step

  private var buffers: [FloatStorage] = []
  private var nextBuffer = 0
  private func buffer(_ count: Int) -> UnsafeMutablePointer<Float> {
    if nextBuffer == buffers.count { buffers.append(.empty) }
    if buffers[nextBuffer].count < count { buffers[nextBuffer] = .sure(count: count) }
    nextBuffer += 1
    return buffers[nextBuffer - 1].pointer
  }

  // MARK: Messages

  private func begin(_ messages: [ProcessMessage]) -> Int {
    guard failure == nil else { return 0 }
    for message in messages where !message.sent.isEmpty {
      travel.messages += 1
      travel.bytes += message.sent.count
    }
    return communicator.begin(messages)
  }

  /// Everybody gets everybody's part of an array.
  private func beginGather<Element: BitwiseCopyable>(
    _ array: UnsafeMutablePointer<Element>, _ part: (_ rank: Int) -> Range<Int>
  ) -> Int {
    guard failure == nil else { return 0 }
    let own = part(communicator.rank).count
    if own > 0 {
      travel.messages += others.count
      travel.bytes += own * MemoryLayout<Element>.stride * others.count
    }
    return communicator.beginGather(array, part)
  }

  private func finish(_ number: Int) {
    guard failure == nil else { return }
    let clock = ContinuousClock()
    let start = clock.now
    do { try communicator.finish(number) } catch { failure = error }
    secondsWaited += (clock.now - start).inSeconds
  }

  /// Counts the time of something that has to do with sending.
  private func sending<R>(_ body: () -> R) -> R {
    let clock = ContinuousClock()
    let start = clock.now
    defer { secondsSent += (clock.now - start).inSeconds }
    return body()
  }

  /// Waits until everybody has everybody's part of an array.
  func gather<Element: BitwiseCopyable>(
    _ array: UnsafeMutablePointer<Element>, _ part: (_ share: BatchShare) -> Range<Int>
  ) {
    finish(sending { beginGather(array) { part(share(of: $0)) } })
  }

  private func share(of rank: Int) -> BatchShare {
    BatchShare(share.batch, rank: rank, of: communicator.size)
  }
  private var others: [Int] { (0..<communicator.size).filter { $0 != communicator.rank } }
  /// The part of 0..<count that is a process's.
  private func part(_ count: Int, of rank: Int) -> Range<Int> {
    rank * count / communicator.size..<(rank + 1) * count / communicator.size
  }

  private static func bytes(_ pointer: UnsafePointer<Float>, _ count: Int)
    -> UnsafeRawBufferPointer
  {
    UnsafeRawBufferPointer(start: pointer, count: 4 * count)
  }
  private static func bytes(_ pointer: UnsafeMutablePointer<Float>, _ count: Int)
    -> UnsafeMutableRawBufferPointer
  {
    UnsafeMutableRawBufferPointer(start: pointer, count: 4 * count)
  }

  // MARK: A step

  /// What is left to do for some arrays once their gradients have arrived.
  private struct Task {
    let number: Int
    /// Adds what has arrived and updates; then begins to send the new weights, if others need them.
    let add: () -> Int?
    /// Once the others' weights have arrived.
    let take: () -> Void
  }
  private var tasks: [Task] = []
  private var update: Update?

  func start(_ share: BatchShare) {
    self.share = share
    nextBuffer = 0
    tasks.removeAll(keepingCapacity: true)
    smallEntries.removeAll(keepingCapacity: true)
    smallCount = 0
  }

  /// - Parameter update: nil where the gradients themselves are to be everybody's
  func startBackward(_ update: Update?) { self.update = update }

  /// Between two layers.
  func poll() { if failure == nil { sending { communicator.poll() } } }

  /// The end of the backward pass.
  func finishStep() {
    sendSmall()
    var sent: [(number: Int, take: () -> Void)] = []
    for task in tasks {
      finish(task.number)
      guard failure == nil else { return }
      if let number = task.add() { sent.append((number, task.take)) }
      poll()
    }
    for (number, take) in sent {
      finish(number)
      guard failure == nil else { return }
      sending(take)
    }
  }

  // MARK: Gradients as sums over subtrees

  private struct Entry {
    let parameter: Parameter
    /// One subtree's gradient after the other.
    let sums: UnsafeMutablePointer<Float>
  }
  private var smallEntries: [Entry] = []
  private var smallCount = 0

  /// What batch normalisation learns: its gradients are of all processes' examples already.
  func update(_ parameters: [Parameter], _ node: Node) {
    guard let update, !node.updatesInBackward else { return }
    for parameter in parameters where given.remove(ObjectIdentifier(parameter)) == nil {
      update.apply(parameter, runtime)
    }
  }
  private var given: Set<ObjectIdentifier> = []

  /// Takes what this process's pieces come to.
  /// - Parameters:
  ///   - sums: the first piece's gradient, with others `stride` floats apart, added by the tree
  func give(
    _ parameter: Parameter, _ sums: UnsafePointer<Float>, stride: Int, _ pieces: Range<Int>
  ) {
    if parameter.isFrozen { return }
    given.insert(ObjectIdentifier(parameter))
    let roots = BatchShare.subtrees(pieces)
    let count = parameter.count
    if isFast {
      parameter.gradient.update(repeating: 0, count: count)
      for root in roots {
        Kernels.add(
          count, sums + (root.lowerBound - pieces.lowerBound) * stride, to: parameter.gradient)
      }
      return giveSum(parameter)
    }
    let own = buffer(max(1, roots.count) * count)
    for (index, root) in roots.enumerated() {
      (own + index * count).update(
        from: sums + (root.lowerBound - pieces.lowerBound) * stride, count: count)
    }
    if count < Self.small {
      smallEntries.append(Entry(parameter: parameter, sums: own))
      smallCount += count
      if smallCount >= Self.small { sendSmall() }
    } else {
      sendLarge(parameter, own)
    }
  }

  /// This process's gradient, as a whole, for the communicator's own sum.
  private func giveSum(_ parameter: Parameter) {
    let values = UnsafeMutableBufferPointer(start: parameter.gradient, count: parameter.count)
    travel.sums += 1
    travel.summedBytes += 4 * parameter.count
    tasks.append(
      Task(number: failure == nil ? sending { communicator.beginSum(values) } : 0) { [self] in
        update?.apply(parameter, runtime)
        return nil
      } take: {
      })
  }

  private func roots(_ rank: Int) -> [Range<Int>] { BatchShare.subtrees(share(of: rank).leaves) }

  /// Adds all subtrees' values up to the root, whose place is returned.
  /// - Parameter places: those of each process's subtrees, in the processes' order
  private func add(_ places: [[UnsafeMutablePointer<Float>]], _ count: Int)
    -> UnsafeMutablePointer<Float>
  {
    // Neighbours of the same size are added as soon as both are there.
    var sums: [(leaves: Range<Int>, place: UnsafeMutablePointer<Float>)] = []
    for rank in places.indices {
      for (leaves, place) in zip(roots(rank), places[rank]) {
        sums.append((leaves, place))
        while sums.count > 1 {
          let (left, right) = (sums[sums.count - 2], sums[sums.count - 1])
          guard left.leaves.count == right.leaves.count,
            left.leaves.lowerBound % (2 * left.leaves.count) == 0
          else { break }
          runtime.parallel(over: count, by: 8192, (right.place, left.place)) { context, range, _ in
            let (from, to) = context
            Kernels.add(range.count, from + range.lowerBound, to: to + range.lowerBound)
          }
          sums.removeLast()
          sums[sums.count - 1].leaves = left.leaves.lowerBound..<right.leaves.upperBound
        }
      }
    }
    return sums[0].place
  }

  /// Sends small arrays' sums to everybody.
  private func sendSmall() {
    if !smallEntries.isEmpty { sending(sendSmallEntries) }
  }
  private func sendSmallEntries() {
    let entries = smallEntries
    let total = smallCount
    smallEntries.removeAll(keepingCapacity: true)
    smallCount = 0
    let counts = (0..<communicator.size).map { roots($0).count }
    // One subtree after the other, of each all arrays.
    let places = counts.map { count in
      let start = buffer(max(1, count * total))
      return (0..<count).map { start + $0 * total }
    }
    for (root, place) in places[communicator.rank].enumerated() {
      var to = place
      for entry in entries {
        to.update(from: entry.sums + root * entry.parameter.count, count: entry.parameter.count)
        to += entry.parameter.count
      }
    }
    func bytes(_ rank: Int) -> UnsafeMutableRawBufferPointer {
      guard let first = places[rank].first else { return .init(start: nil, count: 0) }
      return Self.bytes(first, counts[rank] * total)
    }
    let number = begin(
      others.map {
        ProcessMessage(
          peer: $0, sent: UnsafeRawBufferPointer(bytes(communicator.rank)), received: bytes($0))
      })
    tasks.append(
      Task(number: number) { [self] in
        var sum = add(places, total)
        for entry in entries {
          entry.parameter.gradient.update(from: sum, count: entry.parameter.count)
          update?.apply(entry.parameter, runtime)
          sum += entry.parameter.count
        }
        return nil
      } take: {
      })
  }

  /// Sends each process its part of the sums.
  private func sendLarge(_ parameter: Parameter, _ own: UnsafeMutablePointer<Float>) {
    let (rank, count) = (communicator.rank, parameter.count)
    let mine = part(count, of: rank)
    var messages: [ProcessMessage] = []
    let ownRoots = roots(rank)
    let places = (0..<communicator.size).map { peer -> [UnsafeMutablePointer<Float>] in
      let theirs = roots(peer)
      if peer == rank { return theirs.indices.map { own + $0 * count + mine.lowerBound } }
      let from = buffer(max(1, theirs.count * mine.count))
      let to = part(count, of: peer)
      for root in 0..<max(ownRoots.count, theirs.count) {
        messages.append(
          ProcessMessage(
            peer: peer,
            sent: root < ownRoots.count
              ? Self.bytes(UnsafePointer(own + root * count + to.lowerBound), to.count)
              : .init(start: nil, count: 0),
            received: root < theirs.count
              ? Self.bytes(from + root * mine.count, mine.count) : .init(start: nil, count: 0)))
      }
      return theirs.indices.map { from + $0 * mine.count }
    }
    tasks.append(
      Task(number: sending { begin(messages) }) { [self] in
        (parameter.gradient + mine.lowerBound).update(
          from: add(places, mine.count), count: mine.count)
        updatePart(parameter, mine)
        let sent = update == nil ? parameter.gradient : parameter.value
        return sending { beginGather(sent) { part(count, of: $0) } }
      } take: {
      })
  }

  private func updatePart(_ parameter: Parameter, _ part: Range<Int>) {
    guard let update else { return }
    runtime.parallel(over: part.count, by: 32_768, (update, parameter, part.lowerBound)) {
      context, range, _ in
      let (update, parameter, first) = context
      update.apply(parameter, first + range.lowerBound..<first + range.upperBound)
    }
  }

  // MARK: Dense layers

  /// The columns of a dense layer's weights whose gradient is a process's.
  private func columns(_ weight: Parameter, _ rank: Int) -> Range<Int> {
    weight.count < Self.small
      ? 0..<weight.shape[1] : part(weight.shape[1], of: rank)
  }

  /// Begins to send a dense layer's inputs to where they are needed.
  /// - Returns: what ``give(_:_:_:_:)`` takes
  func begin(_ weight: Parameter, inputs x: TensorView) -> DenseFactors {
    if isFast || weight.isFrozen { return DenseFactors(number: 0, inputs: x.pointer) }
    return sending { beginFactors(weight, x) }
  }
  private func beginFactors(_ weight: Parameter, _ x: TensorView) -> DenseFactors {
    let mine = columns(weight, communicator.rank)
    let all = buffer(max(1, share.batch * mine.count))
    func copy(_ columns: Range<Int>, to: UnsafeMutablePointer<Float>) {
      runtime.parallel(over: x.batch, by: 16, (x, columns, to)) { context, rows, _ in
        let (x, columns, to) = context
        for row in rows {
          (to + row * columns.count).update(
            from: x.example(row) + columns.lowerBound, count: columns.count)
        }
      }
    }
    copy(mine, to: all + share.examples.lowerBound * mine.count)
    let messages = others.map { peer in
      let (theirs, rows) = (columns(weight, peer), share(of: peer).examples)
      let sent = buffer(max(1, x.batch * theirs.count))
      copy(theirs, to: sent)
      return ProcessMessage(
        peer: peer, sent: Self.bytes(UnsafePointer(sent), x.batch * theirs.count),
        received: Self.bytes(all + rows.lowerBound * mine.count, rows.count * mine.count))
    }
    return DenseFactors(number: begin(messages), inputs: all)
  }

  /// A dense layer's backward pass but for the gradient of its inputs.
  func give(
    _ weight: Parameter, _ bias: Parameter, _ factors: DenseFactors, outputGradients dy: TensorView
  ) {
    if weight.isFrozen { return }
    let (inputs, outputs) = (weight.shape[1], bias.count)
    if isFast {
      if dy.batch == 0 {
        // A product over nothing is left as it is.
        weight.gradient.update(repeating: 0, count: weight.count)
      } else {
        Kernels.gemm(
          runtime, transposeA: true, m: outputs, n: inputs, k: dy.batch, dy.pointer,
          factors.inputs, weight.gradient)
      }
      Kernels.columnSum(rows: dy.batch, count: outputs, dy.pointer, bias.gradient)
      giveSum(weight)
      return giveSum(bias)
    }
    let rows = share.examples
    let all = buffer(share.batch * outputs)
    (all + rows.lowerBound * outputs).update(from: dy.pointer, count: dy.count)
    let number = sending {
      beginGather(all) { rank in
        let rows = share(of: rank).examples
        return rows.lowerBound * outputs..<rows.upperBound * outputs
      }
    }
    let mine = columns(weight, communicator.rank)
    tasks.append(
      Task(number: number) { [self] in
        finish(factors.number)
        guard failure == nil else { return nil }
        Kernels.gemm(
          runtime, transposeA: true, m: outputs, n: mine.count, k: share.batch, all,
          factors.inputs, weight.gradient + mine.lowerBound, rowOfC: inputs,
          update: update.map { ($0, weight, mine.lowerBound) })
        Kernels.columnSum(rows: share.batch, count: outputs, all, bias.gradient)
        update?.apply(bias, 0..<outputs)
        if mine.count == inputs { return nil }
        return sending { sendColumns(of: weight, mine) }
      } take: { [self] in
        takeColumns(of: weight)
      })
  }

  private var columnPlaces: [ObjectIdentifier: [UnsafeMutablePointer<Float>]] = [:]

  /// Sends the others what this process has made of its columns.
  private func sendColumns(of weight: Parameter, _ mine: Range<Int>) -> Int {
    let outputs = weight.shape[0]
    let places = (0..<communicator.size).map { buffer(outputs * columns(weight, $0).count) }
    columnPlaces[ObjectIdentifier(weight)] = places
    let from = (update == nil ? weight.gradient : weight.value) + mine.lowerBound
    let own = places[communicator.rank]
    for row in 0..<outputs {
      (own + row * mine.count).update(from: from + row * weight.shape[1], count: mine.count)
    }
    return begin(
      others.map {
        ProcessMessage(
          peer: $0, sent: Self.bytes(UnsafePointer(own), outputs * mine.count),
          received: Self.bytes(places[$0], outputs * columns(weight, $0).count))
      })
  }

  private func takeColumns(of weight: Parameter) {
    let places = columnPlaces[ObjectIdentifier(weight)]!
    let to = update == nil ? weight.gradient : weight.value
    for rank in others {
      let columns = columns(weight, rank)
      for row in 0..<weight.shape[0] {
        (to + row * weight.shape[1] + columns.lowerBound).update(
          from: places[rank] + row * columns.count, count: columns.count)
      }
    }
  }

  // MARK: What an optimiser remembers

  /// What this process updates where gradients aren't everybody's, and remembers what that takes.
  func part(of parameter: Parameter) -> UpdatedPart { part(of: parameter, communicator.rank) }

  private func part(of parameter: Parameter, _ rank: Int) -> UpdatedPart {
    guard !isFast, parameter.isTrained, !parameter.isFrozen, parameter.count >= Self.small else {
      return .all
    }
    return parameter.shape.count == 2
      ? .columns(columns(parameter, rank), of: parameter.shape[1])
      : .range(part(parameter.count, of: rank))
  }

  /// Puts together an array as large as the weights of which each process has the parts that it updates.
  func gather(_ own: UnsafePointer<Float>, _ parameters: [Parameter]) -> [Float] {
    var all = [Float](repeating: 0, count: parameters.reduce(0) { $0 + $1.count })
    var (offset, from) = (0, own)
    all.withUnsafeMutableBufferPointer { all in
      for parameter in parameters {
        nextBuffer = 0
        let counts = (0..<communicator.size).map {
          part(of: parameter, $0).count(of: parameter.count)
        }
        let places = counts.map { buffer(max(1, $0)) }
        places[communicator.rank].update(from: from, count: counts[communicator.rank])
        if case .all = parameter.updated {
        } else {
          finish(
            begin(
              others.map {
                ProcessMessage(
                  peer: $0,
                  sent: Self.bytes(
                    UnsafePointer(places[communicator.rank]), counts[communicator.rank]),
                  received: Self.bytes(places[$0], counts[$0]))
              }))
        }
        let to = all.baseAddress! + offset
        for rank in 0..<communicator.size {
          if case .all = parameter.updated, rank != communicator.rank { continue }
          part(of: parameter, rank).forEachRun(of: parameter.count) { index, place, count in
            (to + index).update(from: places[rank] + place, count: count)
          }
        }
        offset += parameter.count
        from += counts[communicator.rank]
      }
    }
    return all
  }
}

/// A dense layer's inputs, those of all processes' examples once they have arrived.
struct DenseFactors {
  fileprivate let number: Int
  fileprivate let inputs: UnsafeMutablePointer<Float>
}
