import Foundation
import StrideNetCore
import Synchronization

/// The thread that answers, one question after the other.
final class Worker: Sendable {
  private struct Question {
    let number: Int
    let request: Request
    let body: [UInt8]
  }
  private struct State {
    var questions: [Question] = []
    var answers: [(number: Int, response: Response)] = []
    var stops = false
  }
  private let state = Mutex(State())
  /// Raised once for each question, and to end.
  private let wake = DispatchSemaphore(value: 0)
  /// A byte comes out of the one end for each answer.
  let bell: Int32
  private let cord: Int32
  /// The bytes of all bodies and answers that are under way.
  let held = Atomic<Int>(0)

  init(_ service: any Service) throws {
    (bell, cord) = try Sockets.pipe()
    try startThread { [self] in
      while true {
        wake.wait()
        let next = state.withLock { state in
          state.stops || state.questions.isEmpty ? nil : state.questions.removeFirst()
        }
        guard let next else {
          if state.withLock({ $0.stops }) { break }
          continue
        }
        let response = service.answer(
          next.request, next.body, held: held.load(ordering: .relaxed))
        state.withLock { $0.answers.append((next.number, response)) }
        var byte: UInt8 = 0
        // A pipe that is full rings anyway.
        _ = write(cord, &byte, 1)
      }
      close(bell)
      close(cord)
    }
  }

  func ask(_ number: Int, _ request: Request, _ body: [UInt8]) {
    state.withLock { $0.questions.append(Question(number: number, request: request, body: body)) }
    wake.signal()
  }

  /// A question that nobody waits for any more.
  func forget(_ number: Int) { state.withLock { $0.questions.removeAll { $0.number == number } } }

  func takeAnswers() -> [(number: Int, response: Response)] {
    var bytes = [UInt8](repeating: 0, count: 256)
    while read(bell, &bytes, bytes.count) == bytes.count {}
    return state.withLock { state in
      defer { state.answers = [] }
      return state.answers
    }
  }

  /// Ends the thread after the question that it may be answering.
  func stop() {
    state.withLock { $0.stops = true }
    wake.signal()
  }
}

/// Starts a thread with room for deep recursion.
/// - Throws: ``StrideNetError`` where the system has none left, which Foundation's doesn't tell
func startThread(_ body: @escaping @Sendable () -> Void) throws {
  final class Box: Sendable {
    let body: @Sendable () -> Void
    init(_ body: @escaping @Sendable () -> Void) { self.body = body }
  }
  var attributes = pthread_attr_t()
  pthread_attr_init(&attributes)
  defer { pthread_attr_destroy(&attributes) }
  pthread_attr_setstacksize(&attributes, 8 << 20)
  pthread_attr_setdetachstate(&attributes, Int32(PTHREAD_CREATE_DETACHED))
  #if canImport(Darwin)
    var thread: pthread_t?
  #else
    var thread = pthread_t()
  #endif
  let box = Unmanaged.passRetained(Box(body))
  let failure = pthread_create(
    &thread, &attributes,
    { (box: UnsafeMutableRawPointer?) in
      Unmanaged<Box>.fromOpaque(box!).takeRetainedValue().body()
      return nil
    }, box.toOpaque())
  guard failure == 0 else {
    box.release()
    throw Sockets.error("cannot start a thread", failure)
  }
}
