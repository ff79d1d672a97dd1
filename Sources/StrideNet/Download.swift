import Foundation

#if canImport(FoundationNetworking)
  import FoundationNetworking
#endif

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
      mirrors: ["http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"]),
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
          isFresh = try await Transfer.run(url, into: part, file, progress)
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

/// One request, its body written to a file as it arrives.
private final class Transfer: NSObject, URLSessionDataDelegate, @unchecked Sendable {
  // Sendable because the session calls its delegate from one serial queue, and nothing else touches
  // the state after the start.

  /// The server's or the network's; trying another mirror may help. What can't be written locally
  /// is thrown as `StrideNetError`.
  struct Failure: Error {
    let text: String
  }

  private let path: String
  private let file: Download.File
  private let descriptor: Int32
  private let progress: Download.Progress
  private var received: Int
  private var total: Int?
  private var isFresh = false
  private var isUnresumable = false
  private var failure: (any Error)?
  private var continuation: CheckedContinuation<Bool, any Error>?

  /// Appends to the file at `path` what is missing. Returns whether it was written from the start;
  /// if not, and it's wrong, a fresh start may mend it.
  static func run(
    _ url: URL, into path: String, _ file: Download.File, _ progress: @escaping Download.Progress
  ) async throws -> Bool {
    let transfer = try Transfer(path, file, progress)
    defer {
      if lseek(transfer.descriptor, 0, SEEK_END) == 0 { unlink(path) }
      close(transfer.descriptor)
    }
    let configuration = URLSessionConfiguration.ephemeral
    configuration.timeoutIntervalForRequest = 30
    let session = URLSession(
      configuration: configuration, delegate: transfer, delegateQueue: transfer.queue)
    defer { session.finishTasksAndInvalidate() }
    var request = URLRequest(url: url)
    // Or the server, or curl on our side, may unpack the file, and ranges would mean nothing.
    request.setValue("identity", forHTTPHeaderField: "Accept-Encoding")
    if transfer.received > 0 {
      request.setValue("bytes=\(transfer.received)-", forHTTPHeaderField: "Range")
    }
    let task = session.dataTask(with: request)
    let isFresh = try await withTaskCancellationHandler {
      try await withCheckedThrowingContinuation { continuation in
        transfer.continuation = continuation
        task.resume()
      }
    } onCancel: {
      task.cancel()
    }
    if fsync(transfer.descriptor) != 0 { throw AtomicFile.writeFailed(path, errno) }
    return isFresh
  }

  private let queue: OperationQueue = {
    let queue = OperationQueue()
    queue.maxConcurrentOperationCount = 1
    return queue
  }()

  private init(
    _ path: String, _ file: Download.File, _ progress: @escaping Download.Progress
  ) throws {
    self.path = path
    self.file = file
    self.progress = progress
    descriptor = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o666)
    if descriptor < 0 { throw AtomicFile.cannotCreate(path, errno) }
    received = Int(lseek(descriptor, 0, SEEK_END))
    super.init()
    if flock(descriptor, LOCK_EX | LOCK_NB) != 0 {
      close(descriptor)
      throw StrideNetError(
        .cannotCreate, "another process is fetching this file", at: path, hint: "wait for it")
    }
  }

  func urlSession(
    _ session: URLSession, dataTask: URLSessionDataTask, didReceive response: URLResponse,
    completionHandler: @escaping (URLSession.ResponseDisposition) -> Void
  ) {
    let response = response as? HTTPURLResponse
    let range = response?.value(forHTTPHeaderField: "Content-Range") ?? ""
    switch response?.statusCode {
    case 200:
      // The whole file, even if only the rest was asked for.
      isFresh = true
      received = 0
      if ftruncate(descriptor, 0) != 0 { failure = AtomicFile.writeFailed(path, errno) }
    case 206 where received > 0 && range.hasPrefix("bytes \(received)-"): break
    case 206 where received > 0, 416 where received > 0: isUnresumable = true
    case let status?: failure = Failure(text: "the server answered with status \(status)")
    case nil: failure = Failure(text: "not an answer of a web server")
    }
    let length = response?.expectedContentLength ?? -1
    total = length < 0 ? nil : received + Int(length)
    completionHandler(failure == nil && !isUnresumable ? .allow : .cancel)
  }

  func urlSession(_ session: URLSession, dataTask: URLSessionDataTask, didReceive data: Data) {
    if failure != nil { return }
    received += data.count
    do {
      // Compressing makes no file much larger: more than this is something else.
      if received > file.size + file.size / 8 + 4096 {
        ftruncate(descriptor, 0)
        throw Failure(text: "the server sends more than the file can have")
      }
      try data.withUnsafeBytes { try AtomicFile.writeAll($0, to: descriptor, path: path) }
      progress(file.name, received, total)
    } catch {
      failure = error
      dataTask.cancel()
    }
  }

  func urlSession(
    _ session: URLSession, task: URLSessionTask, didCompleteWithError error: (any Error)?
  ) {
    if isUnresumable { return finish(.success(false)) }
    if failure == nil, let error { failure = Failure(text: Download.text(of: error)) }
    if failure == nil, received == 0 { failure = Failure(text: "the server sent nothing") }
    // curl notices a connection that closes early, but not everywhere the same way.
    if failure == nil, let total, received < total {
      failure = Failure(text: "the connection was cut off after \(received) of \(total) bytes")
    }
    finish(failure.map { .failure($0) } ?? .success(isFresh))
  }

  private func finish(_ result: Result<Bool, any Error>) {
    continuation?.resume(with: result)
    continuation = nil
  }
}
