import CCurl
import Foundation
import StrideNetCore
import Synchronization

/// Fetches the public data sets: resumes what was cut off, believes nothing before its digest is
/// right, and leaves alone what is there already.
public struct Download: Sendable {
  /// Called as bytes arrive; `total` is nil if the server doesn't tell.
  public typealias Progress = @Sendable (_ file: String, _ received: Int, _ total: Int?) -> Void

  /// Fetches "mnist" or "fashion-mnist" and returns the folder that has it now.
  ///
  /// `mirrors` are addresses of folders with the four files, tried in order; nil takes public ones.
  /// Without a `folder` it takes the one where ``Dataset/load(_:environment:)`` looks first.
  public static func fetch(
    _ name: String, mirrors: [String]? = nil, into folder: String? = nil,
    environment: [String: String] = ProcessInfo.processInfo.environment,
    progress: @escaping Progress = { _, _, _ in }
  ) async throws -> String {
    guard let download = published[name] else {
      throw StrideNetError(
        .usage, "no such data set to fetch", found: name,
        expected: Dataset.fetchable.joined(separator: " or "))
    }
    guard let folder = folder ?? Dataset.folders(of: name, environment).first else {
      throw StrideNetError(
        .usage, "no place to put the data set", hint: "set STRIDENET_DATA to a folder")
    }
    try await download.run(mirrors: mirrors ?? download.mirrors, into: folder, progress: progress)
    return folder
  }

  /// A file as published. Mirrors compress it differently: size and digest are of what's inside.
  struct File: Sendable {
    let name: String
    let size: Int
    let sha256: String
  }

  var files: [File]
  var mirrors: [String]
  /// Seconds without a connection, or below 1,000 bytes a second, after which a server is given up.
  var patience = 30

  static let published = [
    "mnist": Download(
      files: [
        File(
          name: Dataset.files[0], size: 47_040_016,
          sha256: "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"),
        File(
          name: Dataset.files[1], size: 60_008,
          sha256: "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"),
        File(
          name: Dataset.files[2], size: 7_840_016,
          sha256: "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"),
        File(
          name: Dataset.files[3], size: 10_008,
          sha256: "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"),
      ],
      mirrors: [
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
      ]),
    "fashion-mnist": Download(
      files: [
        File(
          name: Dataset.files[0], size: 47_040_016,
          sha256: "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"),
        File(
          name: Dataset.files[1], size: 60_008,
          sha256: "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"),
        File(
          name: Dataset.files[2], size: 7_840_016,
          sha256: "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"),
        File(
          name: Dataset.files[3], size: 10_008,
          sha256: "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"),
      ],
      mirrors: [
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
        "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
      ]),
  ]

  /// Fetches what isn't in the folder yet.
  func run(mirrors: [String], into folder: String, progress: @escaping Progress) async throws {
    let bases = try mirrors.map { mirror in
      guard let url = URL(string: mirror.hasSuffix("/") ? mirror : mirror + "/"),
        ["http", "https"].contains(url.scheme), url.host != nil
      else {
        throw StrideNetError(
          .usage, "the mirror isn't a web address", found: mirror,
          expected: "an address such as https://example.org/mnist/")
      }
      return url
    }
    do {
      try FileManager.default.createDirectory(
        atPath: folder, withIntermediateDirectories: true)
    } catch {
      throw StrideNetError(
        .cannotCreate, "the folder can't be created", at: folder, found: Self.text(of: error),
        hint: "set STRIDENET_DATA to a folder where you may write")
    }
    for file in files { try await fetch(file, from: bases, into: folder, progress) }
  }

  private func fetch(
    _ file: File, from mirrors: [URL], into folder: String, _ progress: @escaping Progress
  ) async throws {
    let target = "\(folder)/\(file.name).gz"
    if let present = Dataset.find(file.name, in: folder) {
      guard let problem = Self.problem(with: present, file) else { return }
      // Loading would go on preferring this file to the one fetched.
      if present != target {
        throw StrideNetError(
          .badData, "the file that is there isn't the published one", at: present, found: problem,
          hint: "move it away and fetch again")
      }
    }
    let part = target + ".part"
    var failures: [String] = []
    for mirror in mirrors {
      let url = mirror.appendingPathComponent(file.name + ".gz")
      do {
        // Two goes, as what's resumed may be another mirror's, compressed differently. A part that
        // is whole comes from a run that ended before the rename.
        var problem = Self.problem(with: part, file)
        var isFresh = false
        while problem != nil && !isFresh {
          isFresh = try await Transfer.run(url, into: part, file, patience, progress)
          problem = Self.problem(with: part, file)
          if problem != nil { unlink(part) }
        }
        if let problem {
          failures.append("\(url.absoluteString): \(problem); deleted")
          continue
        }
        if rename(part, target) != 0 { throw AtomicFile.cannotCreate(target, errno) }
        AtomicFile.syncFolder(folder)
        return
      } catch let failure as Transfer.Failure {
        failures.append("\(url.absoluteString): \(failure.text)")
      }
    }
    throw StrideNetError(
      .service, "\(file.name).gz can't be fetched",
      at: failures.isEmpty ? "no mirror given" : failures.joined(separator: "\n            "),
      hint: "check the network and run it again (it goes on where it was cut off), "
        + "or give another source with --mirror URL")
  }

  /// What's wrong with a file, nil if it's the published one.
  private static func problem(with path: String, _ file: File) -> String? {
    do {
      let stream = try ByteStream(InputFile(path))
      return try withUnsafeTemporaryAllocation(byteCount: 1 << 16, alignment: 16) { buffer in
        var digest = SHA256()
        var size = 0
        // One piece beyond the size is enough to know; a file made to swell stops here.
        while size <= file.size {
          let count = try stream.read(into: buffer)
          if count == 0 {
            return digest.hex == file.sha256
              ? nil : "the content has the wrong SHA-256 \(digest.hex)"
          }
          digest.update(UnsafeRawBufferPointer(rebasing: buffer[..<count]))
          size += count
        }
        return "the content is larger than the \(file.size) bytes published"
      }
    } catch {
      return (error as? StrideNetError)?.what ?? text(of: error)
    }
  }

  fileprivate static func text(of error: Error) -> String { error.localizedDescription }
}

/// A file's body, written as it arrives. libcurl does the work on a thread of its own; all that a
/// server can make large or long is bounded here.
private final class Transfer {
  /// The server's or the network's; trying another mirror may help. What can't be written locally
  /// is thrown as `StrideNetError`.
  struct Failure: Error {
    let text: String
  }

  final class Wish: Sendable {
    let isCancelled = Atomic<Bool>(false)
  }

  private static let mostRedirects = 5
  /// Bytes of all header lines of an answer.
  private static let mostHeader = 64 << 10

  private let path: String
  private let file: Download.File
  /// Compressing makes no file much larger: more than this is something else.
  private let most: Int
  private let patience: Int
  private let descriptor: Int32
  private let wish: Wish
  private let progress: Download.Progress
  private var received: Int

  // Of the request that is under way.
  private var handle: UnsafeMutableRawPointer!
  private var start = 0
  private var headerBytes = 0
  private var (location, range): (String?, String) = (nil, "")
  private var verdict: Verdict?
  private var total: Int?
  private var failure: (any Error)?

  /// What an answer's status and header come to.
  private enum Verdict {
    case fresh, resumed, unresumable, elsewhere
  }

  /// Appends to the file at `path` what is missing. Returns whether it was written from the start;
  /// if not, and it's wrong, a fresh start may mend it.
  static func run(
    _ url: URL, into path: String, _ file: Download.File, _ patience: Int,
    _ progress: @escaping Download.Progress
  ) async throws -> Bool {
    let wish = Wish()
    return try await withTaskCancellationHandler {
      try await withCheckedThrowingContinuation { continuation in
        Thread.detachNewThread {
          continuation.resume(
            with: Result { try Transfer(path, file, patience, wish, progress).fetch(url) })
        }
      }
    } onCancel: {
      wish.isCancelled.store(true, ordering: .relaxed)
    }
  }

  private init(
    _ path: String, _ file: Download.File, _ patience: Int, _ wish: Wish,
    _ progress: @escaping Download.Progress
  ) throws {
    (self.path, self.file, self.patience) = (path, file, patience)
    (self.wish, self.progress) = (wish, progress)
    most = file.size + file.size / 8 + 4096
    descriptor = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK, 0o666)
    if descriptor < 0 { throw AtomicFile.cannotCreate(path, errno) }
    received = Int(lseek(descriptor, 0, SEEK_END))
    if flock(descriptor, LOCK_EX | LOCK_NB) != 0 {
      throw StrideNetError(
        .cannotCreate, "another process is fetching this file", at: path, hint: "wait for it")
    }
  }

  deinit { close(descriptor) }

  private func fetch(_ url: URL) throws -> Bool {
    defer { if lseek(descriptor, 0, SEEK_END) == 0 { unlink(path) } }
    var url = url
    for _ in 0...Self.mostRedirects {
      let verdict = try request(url)
      guard verdict == .elsewhere else {
        if fsync(descriptor) != 0 { throw AtomicFile.writeFailed(path, errno) }
        return verdict == .fresh
      }
      // Not from a safe connection to an open one, nor to a file.
      let next = URL(string: location ?? "", relativeTo: url)?.absoluteURL
      guard let next, next.host != nil, next.scheme == "https" || next.scheme == url.scheme else {
        throw Failure(text: "the server redirects to \(next?.absoluteString ?? "no address")")
      }
      url = next
    }
    throw Failure(text: "more than \(Self.mostRedirects) redirects")
  }

  private static let isReady = curl_global_init(Int(CURL_GLOBAL_DEFAULT)) == CURLE_OK

  private func request(_ url: URL) throws -> Verdict {
    guard Self.isReady, let handle = curl_easy_init() else {
      throw Failure(text: "libcurl can't be started")
    }
    self.handle = handle
    defer { curl_easy_cleanup(handle) }
    (start, headerBytes, location, range) = (received, 0, nil, "")
    (verdict, total, failure) = (nil, nil, nil)
    _ = curl_set_text(handle, CURLOPT_URL, url.absoluteString)
    // Redirects are followed by hand, judged and counted. Bodies are taken as they are: compressed
    // ones would swell, and ranges mean nothing of them.
    for (option, value) in [
      (CURLOPT_NOSIGNAL, 1), (CURLOPT_FOLLOWLOCATION, 0), (CURLOPT_HTTP_CONTENT_DECODING, 0),
      (CURLOPT_CONNECTTIMEOUT, patience), (CURLOPT_LOW_SPEED_LIMIT, 1000),
      (CURLOPT_LOW_SPEED_TIME, patience),
    ] {
      _ = curl_set_number(handle, option, value)
    }
    if start > 0 { _ = curl_set_text(handle, CURLOPT_RANGE, "\(start)-") }
    let headers = curl_slist_append(nil, "Accept-Encoding: identity")
    defer { curl_slist_free_all(headers) }
    _ = curl_set_headers(handle, headers)
    curl_set_callbacks(
      handle, Unmanaged.passUnretained(self).toOpaque(),
      { bytes, size, count, context in
        Transfer.at(context).head(UnsafeRawBufferPointer(start: bytes, count: size * count))
          ? size * count : 0
      },
      { bytes, size, count, context in
        Transfer.at(context).body(UnsafeRawBufferPointer(start: bytes, count: size * count))
          ? size * count : 0
      },
      { context, _, _, _, _ in
        Transfer.at(context).wish.isCancelled.load(ordering: .relaxed) ? 1 : 0
      })
    let code = curl_easy_perform(handle)
    if wish.isCancelled.load(ordering: .relaxed) { throw CancellationError() }
    if code == CURLE_OK { try judge() }
    if let failure { throw failure }
    if verdict == .elsewhere || verdict == .unresumable { return verdict! }
    // Also where the connection closes early and the server is one of those that just do that.
    if let total, received < total, code == CURLE_OK || code == CURLE_PARTIAL_FILE {
      throw Failure(text: "the connection was cut off after \(received) of \(total) bytes")
    }
    guard code == CURLE_OK, let verdict else {
      throw Failure(text: String(cString: curl_easy_strerror(code)))
    }
    if received == 0 { throw Failure(text: "the server sent nothing") }
    return verdict
  }

  private static func at(_ context: UnsafeMutableRawPointer?) -> Transfer {
    Unmanaged<Transfer>.fromOpaque(context!).takeUnretainedValue()
  }

  /// A line of a header; returns whether to go on. What follows the body says nothing any more.
  private func head(_ line: UnsafeRawBufferPointer) -> Bool {
    headerBytes += line.count
    if headerBytes > Self.mostHeader {
      failure = Failure(text: "the server sends an endless header")
      return false
    }
    let text = String(decoding: line, as: UTF8.self)
    if verdict != nil { return true }
    if text.hasPrefix("HTTP/") { (location, range) = (nil, "") }
    guard let colon = text.firstIndex(of: ":") else { return true }
    let value = text[text.index(after: colon)...].trimmingCharacters(in: .whitespacesAndNewlines)
    switch text[..<colon].lowercased() {
    case "location": location = value
    case "content-range": range = value
    default: break
    }
    return true
  }

  /// Makes up its mind when the header is complete.
  private func judge() throws {
    if verdict != nil || failure != nil { return }
    switch curl_status(handle) {
    // The whole file, even if only the rest was asked for.
    case 200: (verdict, start) = (.fresh, 0)
    case 206 where start > 0 && range.hasPrefix("bytes \(start)-"): verdict = .resumed
    case 206 where start > 0, 416 where start > 0: verdict = .unresumable
    case 301, 302, 303, 307, 308: verdict = .elsewhere
    case let status: throw Failure(text: "the server answered with status \(status)")
    }
    guard verdict == .fresh || verdict == .resumed else { return }
    let length = Int(curl_content_length(handle))
    if length >= 0 {
      if length > most - start {
        throw Failure(text: "the server announces \(length) bytes: more than the file can have")
      }
      total = start + length
    }
    received = start
    if start == 0, ftruncate(descriptor, 0) != 0 { throw AtomicFile.writeFailed(path, errno) }
  }

  /// A piece of the body; returns whether to go on.
  private func body(_ bytes: UnsafeRawBufferPointer) -> Bool {
    do {
      try judge()
      guard verdict == .fresh || verdict == .resumed else { return false }
      received += bytes.count
      if received > most {
        ftruncate(descriptor, 0)
        throw Failure(text: "the server sends more than the file can have")
      }
      try AtomicFile.writeAll(bytes, to: descriptor, path: path)
      progress(file.name, received, total)
      return true
    } catch {
      failure = error
      return false
    }
  }
}
