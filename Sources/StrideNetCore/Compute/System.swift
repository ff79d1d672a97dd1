import Foundation

/// What the system lets this process have: less than the machine has, in a container or under a
/// limit.
package struct SystemLimits {
  package init() {}

  /// Where the kernel describes this process, and where its control groups are; others in tests.
  var process = "/proc/self"
  var memoryInfo = "/proc/meminfo"
  var controlGroups = "/sys/fs/cgroup"
  var processors = ProcessInfo.processInfo.activeProcessorCount

  /// Threads that can run at the same time: as many as there are processors for the process, of
  /// which a control group (version 2, cpu.max) may allow a part of the time.
  var threads: Int {
    let shares = groups.compactMap { group -> Double? in
      let parts = (text("\(group)/cpu.max") ?? "").split(separator: " ").map(String.init)
      guard parts.count == 2, let quota = Double(parts[0]), let period = Double(parts[1]),
        quota > 0, period > 0
      else { return nil }  // "max 100000": no limit
      return quota / period
    }
    let allowed = shares.min().map { Int(min($0.rounded(.up), 1e6)) } ?? processors
    return max(1, min(processors, allowed))
  }

  /// Bytes that can still be taken: what is free or can be freed, within the control groups' limits
  /// and the process' own; nil where nothing says.
  package var availableMemory: Int? {
    var all: [Int] = []
    if let info = text(memoryInfo), let free = Self.number(after: "MemAvailable:", in: info) {
      all.append(Self.product(free, 1024))
    }
    for group in groups {
      guard let limit = text("\(group)/memory.max").flatMap({ Int($0) }),
        let used = text("\(group)/memory.current").flatMap({ Int($0) })
      else { continue }
      // Files in the cache are given up when memory is short.
      let files = text("\(group)/memory.stat")
        .flatMap { Self.number(after: "inactive_file ", in: $0) }
      all.append(max(0, limit - used + min(files ?? 0, used)))
    }
    if let used = text("\(process)/statm")?.split(separator: " ").first.flatMap({ Int($0) }),
      let limit = addressSpaceLimit
    {
      all.append(max(0, limit - Self.product(used, Int(sysconf(Int32(_SC_PAGESIZE))))))
    }
    return all.min()
  }

  /// `ulimit -v`, in bytes.
  private var addressSpaceLimit: Int? {
    var limit = rlimit()
    #if canImport(Glibc)
      let kind = __rlimit_resource_t(RLIMIT_AS.rawValue)
    #else
      let kind = RLIMIT_AS
    #endif
    guard getrlimit(kind, &limit) == 0, limit.rlim_cur < rlim_t(Int.max) else { return nil }
    return Int(limit.rlim_cur)
  }

  /// The process' control group and those around it.
  private var groups: [String] {
    // "0::/a/b" in version 2.
    guard
      let line = text("\(process)/cgroup")?.split(separator: "\n").first(where: {
        $0.hasPrefix("0::/")
      })
    else { return [] }
    var group = controlGroups + line.dropFirst(3)
    while group.hasSuffix("/") { group.removeLast() }
    var result: [String] = []
    while group.count >= controlGroups.count {
      result.append(group)
      guard let slash = group.lastIndex(of: "/") else { break }
      group = String(group[..<slash])
    }
    return result
  }

  private func text(_ path: String) -> String? {
    (try? String(contentsOfFile: path, encoding: .utf8))?
      .trimmingCharacters(in: .whitespacesAndNewlines)
  }

  private static func number(after key: String, in text: String) -> Int? {
    for line in text.split(separator: "\n") where line.hasPrefix(key) {
      return line.dropFirst(key.count).split(separator: " ").first.flatMap { Int($0) }
    }
    return nil
  }

  private static func product(_ a: Int, _ b: Int) -> Int {
    let (product, overflow) = a.multipliedReportingOverflow(by: b)
    return overflow ? .max : product
  }
}

/// Memory that was asked for, counted before it is taken.
package struct MemoryNeed {
  private(set) var floats = 0.0
  /// The largest part, and what it is.
  private var largest = (floats: 0.0, what: "")

  package init() {}

  /// Adds `count` · `times` floats for `what`.
  package mutating func add(_ count: Int, times: Int = 1, for what: @autoclosure () -> String) {
    let more = Double(count) * Double(times)
    floats += more
    if more > largest.floats { largest = (more, what()) }
  }

  /// - Throws: ``StrideNetError`` with both numbers where there is less than that
  package func require(_ limits: SystemLimits = SystemLimits(), hint: String? = nil) throws {
    let bytes = floats * 4
    // Not worth a look.
    guard bytes > 64e6, let available = limits.availableMemory, bytes > Double(available) else {
      return
    }
    throw StrideNetError(
      .badData, "more memory needed than there is", at: largest.what,
      found: "\(Self.text(bytes)) needed, at least, and \(Self.text(Double(available))) available",
      expected: "a network and mini-batches that fit",
      hint: hint ?? "smaller mini-batches (--batch-size), fewer filters, or smaller images")
  }

  /// Swift's arrays end the program where there is no memory for them: whether there is is asked before
  /// a large one is made.
  /// - Throws: ``StrideNetError`` where the system doesn't give so many bytes
  package static func probe(bytes: Int, for what: @autoclosure () -> String) throws {
    // What an array has in front of its elements, and what it is rounded up to.
    let memory = malloc(bytes + 4096)
    defer { free(memory) }
    guard memory == nil else { return }
    throw StrideNetError(
      .badData, "more memory needed than the system gives", at: what(),
      found: "\(text(Double(bytes))) asked for", hint: "fewer or smaller images (--limit)")
  }

  static func text(_ bytes: Double) -> String {
    let (size, unit) = bytes < 1e9 ? (bytes / 1e6, "MB") : (bytes / 1e9, "GB")
    return String(format: size < 10 ? "%.1f %@" : "%.0f %@", size, unit)
  }
}
