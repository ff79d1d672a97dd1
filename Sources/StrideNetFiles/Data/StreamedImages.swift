import Foundation
import StrideNetCore
import Synchronization

/// Images that stay in a file and are read while a network trains: a data set may be larger than
/// memory.
///
/// In each epoch blocks of neighbouring images come in an order that the seed decides, and the images
/// of some blocks at a time are shuffled among each other. While a trainer works on those, a thread
/// reads the next ones. All else, such as evaluations, reads an image when it is asked for. What a
/// training comes to doesn't depend on threads, but the order is another one than that of an
/// ``ImageSet``, and so are the weights.
///
///     let data = try Dataset.stream("pictures")
///     let trainer = try Trainer(network, data, settings)
public final class StreamedImages: ExampleSource {
  /// Where images lie in a file, as bytes, one after the other.
  struct Layout: Sendable {
    let path: String
    /// Of the first image.
    let offset: Int
    let shape: Shape
    /// Bytes from one value to the next: 3 where a grey image is stored as one of three channels.
    var step = 1
    var imageBytes: Int { shape.count * step }
  }

  public let count: Int
  public let shape: Shape
  /// One label for each image, from 0.
  public let labels: [UInt16]

  private let layout: Layout
  private let file: OpenFile
  /// The places in the file, in ascending order.
  private let rows: [Int32]
  private let blockSize, blocksAtATime: Int
  private let window: Window
  private let digest = Mutex<String?>(nil)

  /// Bytes that images are kept in while they wait, unless said otherwise.
  public static let usualMemory = 96 << 20

  /// - Parameters:
  ///   - labels: of all images in the file
  ///   - rows: which of them
  ///   - memory: bytes for the images that are at hand
  init(
    _ layout: Layout, labels: [UInt16], rows: [Int32]? = nil, memory: Int = usualMemory
  ) throws {
    (self.layout, shape, file) = (layout, layout.shape, try OpenFile(layout.path))
    self.rows = rows ?? (0..<Int32(labels.count)).map { $0 }
    self.labels = self.rows.map { labels[Int($0)] }
    count = self.rows.count
    guard count > 0 else { throw StrideNetError(.badData, "no images", at: layout.path) }
    // Neighbours of some 64 kB; three windows of many blocks.
    blockSize = max(1, min(256, 65_536 / layout.imageBytes))
    blocksAtATime = max(1, memory / 3 / (blockSize * layout.imageBytes))
    window = Window(bytes: blocksAtATime * blockSize * layout.imageBytes)
  }

  deinit { window.stop() }

  /// Some of the images, which the set's places name, in ascending order.
  func picking(_ places: [Int]) throws -> StreamedImages {
    var all = [UInt16](repeating: 0, count: Int(rows.last!) + 1)
    for (row, label) in zip(rows, labels) { all[Int(row)] = label }
    return try StreamedImages(
      layout, labels: all, rows: places.sorted().map { rows[$0] },
      memory: 3 * window.bytes)
  }

  // MARK: The order of an epoch

  public func order(epoch: Int, seed: UInt64) -> [Int]? {
    var random = SeededGenerator(seed: seed, stream: 1 << 41 + UInt64(epoch))
    let blocks = random.permutation((count - 1) / blockSize + 1)
    var order: [Int] = []
    order.reserveCapacity(count)
    for start in stride(from: 0, to: blocks.count, by: blocksAtATime) {
      var part = blocks[start..<min(blocks.count, start + blocksAtATime)].flatMap {
        Array($0 * blockSize..<min(count, ($0 + 1) * blockSize))
      }
      random.shuffle(&part)
      order += part
    }
    var places = [Int32](repeating: 0, count: blocks.count)
    for (place, block) in blocks.enumerated() { places[block] = Int32(place) }
    window.begin(places, blocksAtATime: blocksAtATime) {
      [layout, file, rows, blockSize, blocksAtATime] number in
      let these = blocks[number * blocksAtATime..<min(blocks.count, (number + 1) * blocksAtATime)]
      return { target in
        for (place, block) in these.enumerated() {
          let range = block * blockSize..<min(rows.count, (block + 1) * blockSize)
          try Self.read(
            rows[range], layout, file, target + place * blockSize * layout.imageBytes)
        }
      }
    }
    return order
  }

  /// Reads images, neighbours in the file at once.
  private static func read(
    _ rows: ArraySlice<Int32>, _ layout: Layout, _ file: OpenFile,
    _ target: UnsafeMutablePointer<UInt8>
  ) throws {
    var start = rows.startIndex
    while start < rows.endIndex {
      var end = start + 1
      while end < rows.endIndex, rows[end] == rows[end - 1] + 1 { end += 1 }
      try file.read(
        target + (start - rows.startIndex) * layout.imageBytes,
        (end - start) * layout.imageBytes,
        from: layout.offset + Int(rows[start]) * layout.imageBytes)
      start = end
    }
  }

  // MARK: Reading

  public func label(_ index: Int) -> Int { Int(labels[index]) }

  public var failure: (any Error)? { window.failure }

  public func read(_ index: Int, into input: UnsafeMutableBufferPointer<Float>) {
    let (block, place) = (index / blockSize, index % blockSize)
    let isAtHand = window.use(block: block) { pixels, number in
      put(pixels + (number * blockSize + place) * layout.imageBytes, into: input)
    }
    if isAtHand { return }
    withUnsafeTemporaryAllocation(of: UInt8.self, capacity: layout.imageBytes) { pixels in
      do {
        try Self.read(rows[index...index], layout, file, pixels.baseAddress!)
      } catch {
        window.note(error)
        pixels.update(repeating: 0)
      }
      put(pixels.baseAddress!, into: input)
    }
  }

  private func put(
    _ pixels: UnsafePointer<UInt8>, into input: UnsafeMutableBufferPointer<Float>
  ) {
    precondition(input.count == shape.count)
    guard layout.step > 1 else {
      return Kernels.scaleBytes(input.count, pixels, scale: 1 / 255, input.baseAddress!)
    }
    for i in 0..<input.count { input[i] = Float(pixels[i * layout.step]) * (1 / 255) }
  }

  /// Calls `body` with the pixels of some images at a time, all in order.
  private func forEachPiece(_ body: (UnsafeRawBufferPointer) throws -> Void) throws {
    var buffer = [UInt8](repeating: 0, count: blockSize * layout.imageBytes)
    for start in stride(from: 0, to: count, by: blockSize) {
      let end = min(count, start + blockSize)
      try buffer.withUnsafeMutableBufferPointer {
        try Self.read(rows[start..<end], layout, file, $0.baseAddress!)
      }
      try buffer.withUnsafeBytes {
        try body(.init(rebasing: $0[..<((end - start) * layout.imageBytes)]))
      }
    }
  }

  /// The SHA-256 of all pixels and labels, read once.
  public var identity: String? {
    digest.withLock { known in
      if let known { return known }
      var digest = SHA256()
      do {
        try forEachPiece { digest.update($0) }
      } catch {
        window.note(error)
      }
      digest.update(labels)
      known = "streamed \(digest.hex)"
      return known
    }
  }

  /// How often each byte stands in each channel.
  func counts() throws -> [[Int]] {
    var counts = [[Int]](
      repeating: [Int](repeating: 0, count: 256), count: shape.channels)
    try forEachPiece { pixels in
      for i in stride(from: 0, to: pixels.count, by: layout.step) {
        counts[i / layout.step % shape.channels][Int(pixels[i])] += 1
      }
    }
    return counts
  }
}

/// A file that several threads read.
private final class OpenFile: @unchecked Sendable {
  // Sendable because reads say where they read, and change nothing.
  private let file: InputFile

  init(_ path: String) throws { file = try InputFile(path) }

  func read(_ target: UnsafeMutablePointer<UInt8>, _ count: Int, from offset: Int) throws {
    let found = try file.read(
      into: UnsafeMutableRawBufferPointer(start: target, count: count), from: offset)
    guard found == count else {
      throw StrideNetError(
        .badData, "the file has become shorter", at: file.path,
        found: "\(offset + found) bytes", expected: "\(offset + count)",
        hint: "leave a data set alone while a network trains on it")
    }
  }
}

/// What is at hand of an epoch: parts of it, of which three have memory: one in use, the one before,
/// since a mini-batch may lie in two, and the one that a thread reads meanwhile.
private final class Window: @unchecked Sendable {
  // Sendable because all that changes is touched with `lock` held, but for the memory of a part, which
  // is the reading thread's until the part is ready, and not its again while somebody uses it.
  typealias Fill = (UnsafeMutablePointer<UInt8>) throws -> Void

  private struct Slot {
    var memory: UnsafeMutablePointer<UInt8>?
    /// The part that it has or is to have; none as long as it is before all.
    var part = Int.min
    var isReady = false
    var users = 0
  }

  let bytes: Int
  private let lock = NSCondition()
  private var slots = [Slot](repeating: Slot(), count: 3)
  /// Of each block the place in the epoch's order.
  private var places: [Int32] = []
  private var blocksAtATime = 1
  private var parts = 0
  /// The last part that was asked for.
  private var front = 0
  private var isWanted = false
  /// Tells an epoch's thread from later ones'.
  private var turn = 0
  private var error: (any Error)?

  init(bytes: Int) { self.bytes = bytes }

  deinit { for slot in slots { slot.memory?.deallocate() } }

  var failure: (any Error)? {
    lock.lock()
    defer { lock.unlock() }
    return error
  }

  func note(_ error: any Error) {
    lock.lock()
    defer { lock.unlock() }
    self.error = self.error ?? error
  }

  /// Nothing more is read.
  func stop() {
    lock.lock()
    defer { lock.unlock() }
    turn += 1
    isWanted = false
    lock.broadcast()
  }

  /// An epoch begins, whose parts `fill` reads.
  func begin(
    _ places: [Int32], blocksAtATime: Int, _ fill: @escaping @Sendable (Int) -> Fill
  ) {
    lock.lock()
    defer { lock.unlock() }
    turn += 1
    (self.places, self.blocksAtATime) = (places, blocksAtATime)
    parts = (places.count - 1) / blocksAtATime + 1
    (front, isWanted) = (-1, false)
    for i in slots.indices { (slots[i].part, slots[i].isReady) = (.min, false) }
    lock.broadcast()
    // Not before somebody reads: a training that goes on in the middle of an epoch begins there.
    let mine = turn
    Thread.detachNewThread { [weak self] in
      while let self, let part = self.next(mine) {
        self.load(part, mine, fill)
      }
    }
  }

  /// The part that is to be read next; nil when there is none to come.
  private func next(_ mine: Int) -> (part: Int, slot: Int)? {
    lock.lock()
    defer { lock.unlock() }
    while turn == mine {
      if isWanted {
        // What is waited for, then what comes after it.
        let wanted = [front, front + 1].first { part in
          part < parts && !slots.contains { $0.part == part }
        }
        if wanted == nil && front + 1 >= parts { return nil }
        if let wanted,
          let slot = slots.indices.first(where: {
            slots[$0].users == 0 && (slots[$0].part < front - 1 || slots[$0].part > front + 1)
          })
        {
          (slots[slot].part, slots[slot].isReady) = (wanted, false)
          return (wanted, slot)
        }
      }
      lock.wait()
    }
    return nil
  }

  private func load(
    _ next: (part: Int, slot: Int), _ mine: Int, _ fill: @Sendable (Int) -> Fill
  ) {
    lock.lock()
    let memory = slots[next.slot].memory ?? .allocate(capacity: bytes)
    slots[next.slot].memory = memory
    // Nobody else's while it is read, not even a later epoch's thread.
    slots[next.slot].users += 1
    lock.unlock()
    var failure: (any Error)?
    do { try fill(next.part)(memory) } catch { failure = error }
    lock.lock()
    slots[next.slot].users -= 1
    if let failure {
      error = error ?? failure
      memory.update(repeating: 0, count: bytes)
    }
    if turn == mine { slots[next.slot].isReady = true }
    lock.broadcast()
    lock.unlock()
  }

  /// Calls `body` with the memory of the part that a block is in, and the block's number there.
  /// - Returns: false where the part isn't at hand, nor will be
  func use(block: Int, _ body: (UnsafePointer<UInt8>, _ number: Int) -> Void) -> Bool {
    lock.lock()
    guard parts > 0 else {
      lock.unlock()
      return false
    }
    let (part, number) = Int(places[block]).quotientAndRemainder(dividingBy: blocksAtATime)
    if !isWanted || part == front + 1 {
      (front, isWanted) = (part, true)
      lock.broadcast()
    }
    guard part == front || part == front - 1 else {
      lock.unlock()
      return false
    }
    let mine = turn
    // What was passed is read again by who asks for it.
    while part == front, turn == mine, !slots.contains(where: { $0.part == part && $0.isReady }) {
      lock.wait()
    }
    guard let slot = slots.firstIndex(where: { $0.part == part && $0.isReady }) else {
      lock.unlock()
      return false
    }
    slots[slot].users += 1
    let memory = slots[slot].memory!
    lock.unlock()
    body(memory, number)
    lock.lock()
    slots[slot].users -= 1
    if slots[slot].users == 0 { lock.broadcast() }
    lock.unlock()
    return true
  }
}
