import Foundation
import Synchronization

/// Ctrl-C, SIGTERM and SIGHUP as a wish that the training loop looks at; a second one ends the
/// process. By a handler that does no more than that: threads to handle signals on can't be had
/// everywhere.
final class Interrupt: Sendable {
  private static let received = Atomic<Int32>(0)
  private let wish = Atomic<Bool>(false)

  var requested: Bool {
    get { wish.load(ordering: .relaxed) || signal != nil }
    set { wish.store(newValue, ordering: .relaxed) }
  }

  /// Which of them it was, if it was one.
  var signal: Int32? {
    let number = Self.received.load(ordering: .relaxed)
    return number == 0 ? nil : number
  }

  init() {
    // Made here, not by the handler.
    Self.received.store(0, ordering: .relaxed)
    var handled = sigset_t()
    sigemptyset(&handled)
    for number in [SIGINT, SIGTERM, SIGHUP] {
      let old = Foundation.signal(number) { number in
        Interrupt.received.store(number, ordering: .relaxed)
        Foundation.signal(number, SIG_DFL)
      }
      // A terminal that is closed sends SIGHUP, which nohup has us ignore.
      if number == SIGHUP
        && unsafeBitCast(old, to: Int.self) == unsafeBitCast(SIG_IGN, to: Int.self)
      {
        Foundation.signal(number, SIG_IGN)
      }
      sigaddset(&handled, number)
    }
    // Whoever started this may have had them blocked on the thread that did.
    pthread_sigmask(SIG_UNBLOCK, &handled, nil)
  }
}
