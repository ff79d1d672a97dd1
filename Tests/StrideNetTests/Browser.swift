import Foundation

/// Chromium without a window, steered through its debugging pipe: messages are JSON with a 0 behind.
final class Browser {
  /// Where it is on this machine; nil where it isn't.
  static let path: String? = (ProcessInfo.processInfo.environment["PATH"] ?? "").split(
    separator: ":"
  )
  .flatMap { folder in ["chromium", "chromium-browser", "google-chrome"].map { "\(folder)/\($0)" } }
  .first { FileManager.default.isExecutableFile(atPath: $0) }

  struct Failure: Error, CustomStringConvertible {
    let description: String
  }

  /// What has to be there as long as the browser is: a folder with the page.
  var owned: AnyObject?
  private let process = Process()
  private let folder: TemporaryFolder
  private let (input, output): (Int32, Int32)
  private var received: [UInt8] = []
  private var (count, session): (Int, String?) = (0, nil)
  /// Exceptions and errors that pages told of, and what they asked the network for.
  private(set) var complaints: [String] = []
  private(set) var requests: [String] = []

  init(width: Int, height: Int, dark: Bool = false) throws {
    folder = try TemporaryFolder()
    let (inPath, outPath) = ("\(folder.path)/in", "\(folder.path)/out")
    guard mkfifo(inPath, 0o600) == 0, mkfifo(outPath, 0o600) == 0 else {
      throw Failure(description: "no pipes")
    }
    // Opened both ways, so that neither side waits for the other.
    (input, output) = (open(inPath, O_RDWR), open(outPath, O_RDWR | O_NONBLOCK))
    process.executableURL = URL(filePath: "/bin/sh")
    process.arguments = [
      "-c",
      "exec \"$0\" --headless --no-sandbox --disable-gpu --hide-scrollbars --no-first-run --disable-dev-shm-usage --user-data-dir=\"$1/profile\" --remote-debugging-pipe 3<\"$1/in\" 4>\"$1/out\"",
      Self.path!, folder.path,
    ]
    (process.standardInput, process.standardOutput, process.standardError) = (
      FileHandle.nullDevice, FileHandle.nullDevice, FileHandle.nullDevice
    )
    try process.run()
    let target = try send("Target.createTarget", ["url": "about:blank"])["targetId"] as? String
    session =
      try send("Target.attachToTarget", ["targetId": target ?? "", "flatten": true])["sessionId"]
      as? String
    for domain in ["Page", "Runtime", "Log", "Network"] { try send("\(domain).enable") }
    try resize(width, height)
    try send(
      "Emulation.setEmulatedMedia",
      ["features": [["name": "prefers-color-scheme", "value": dark ? "dark" : "light"]]])
  }

  deinit {
    process.terminate()
    process.waitUntilExit()
    close(input)
    close(output)
  }

  // MARK: Messages

  @discardableResult
  func send(_ method: String, _ parameters: [String: Any] = [:]) throws -> [String: Any] {
    count += 1
    var message: [String: Any] = ["id": count, "method": method, "params": parameters]
    if let session { message["sessionId"] = session }
    let data = try JSONSerialization.data(withJSONObject: message) + [0]
    let written = data.withUnsafeBytes { write(input, $0.baseAddress, $0.count) }
    guard written == data.count else { throw Failure(description: "the pipe is closed") }
    while true {
      let answer = try next()
      if answer["id"] as? Int == count {
        if let error = answer["error"] { throw Failure(description: "\(method): \(error)") }
        return answer["result"] as? [String: Any] ?? [:]
      }
      let details = answer["params"] as? [String: Any] ?? [:]
      switch answer["method"] as? String {
      case "Runtime.exceptionThrown": complaints.append("\(details)")
      case "Log.entryAdded": complaints.append("\(details)")
      case "Network.requestWillBeSent":
        requests.append((details["request"] as? [String: Any])?["url"] as? String ?? "")
      default: break
      }
    }
  }

  private func next() throws -> [String: Any] {
    let end = ContinuousClock.now + .seconds(60)
    while true {
      if let zero = received.firstIndex(of: 0) {
        let message = Data(received[..<zero])
        received.removeFirst(zero + 1)
        return try JSONSerialization.jsonObject(with: message) as? [String: Any] ?? [:]
      }
      var chunk = [UInt8](repeating: 0, count: 1 << 16)
      let got = read(output, &chunk, chunk.count)
      if got > 0 {
        received += chunk[..<got]
      } else if ContinuousClock.now > end || !process.isRunning {
        throw Failure(description: "the browser doesn't answer")
      } else {
        Thread.sleep(forTimeInterval: 0.005)
      }
    }
  }

  // MARK: What people do

  func resize(_ width: Int, _ height: Int) throws {
    try send(
      "Emulation.setDeviceMetricsOverride",
      ["width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600])
  }

  func visit(_ url: String) throws { try send("Page.navigate", ["url": url]) }

  /// The value of an expression in the page.
  @discardableResult
  func value(_ expression: String) throws -> Any? {
    let answer = try send(
      "Runtime.evaluate",
      ["expression": expression, "awaitPromise": true, "returnByValue": true])
    if let exception = answer["exceptionDetails"] {
      throw Failure(description: "\(expression): \(exception)")
    }
    return (answer["result"] as? [String: Any])?["value"]
  }

  func text(_ expression: String) throws -> String { "\(try value(expression) ?? "nothing")" }

  func holds(_ expression: String) throws -> Bool {
    try value("Boolean(\(expression))") as? Bool == true
  }

  /// Waits until an expression is true.
  func wait(_ expression: String) throws {
    let end = ContinuousClock.now + .seconds(60)
    while (try? holds(expression)) != true {
      guard ContinuousClock.now < end else {
        throw Failure(description: "never: \(expression); \(complaints)")
      }
      Thread.sleep(forTimeInterval: 0.02)
    }
  }

  /// The mouse goes along points, given in shares of an element's box, with its button down.
  func drag(_ element: String, _ points: [(Double, Double)]) throws {
    let box = try value(
      "(()=>{const e=\(element);e.scrollIntoView({block:'center'});const b=e.getBoundingClientRect();return [b.left,b.top,b.width,b.height]})()"
    )
    guard let box = (box as? [Any])?.compactMap({ ($0 as? NSNumber)?.doubleValue }), box.count == 4
    else { throw Failure(description: "no element \(element)") }
    func mouse(_ kind: String, _ point: (Double, Double)) throws {
      try send(
        "Input.dispatchMouseEvent",
        [
          "type": kind, "x": box[0] + point.0 * box[2], "y": box[1] + point.1 * box[3],
          "button": "left", "buttons": kind == "mouseReleased" ? 0 : 1, "clickCount": 1,
        ])
    }
    try mouse("mousePressed", points[0])
    for point in points.dropFirst() { try mouse("mouseMoved", point) }
    try mouse("mouseReleased", points.last!)
  }

  func press(_ key: String) throws {
    let code = [
      "Enter": 13, "Escape": 27, " ": 32, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39,
      "ArrowDown": 40, "PageDown": 34,
    ]
    for kind in ["keyDown", "keyUp"] {
      try send(
        "Input.dispatchKeyEvent",
        [
          "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code[key] ?? 0,
          "text": key == " " && kind == "keyDown" ? " " : "",
        ])
    }
  }

  /// Whether anything is wider than the window.
  func scrollsSideways() throws -> Bool {
    try value("document.documentElement.scrollWidth > innerWidth") as? Bool ?? true
  }
}
