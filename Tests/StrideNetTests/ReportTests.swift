import Foundation
import Testing

import StrideNet

/// `stridenet train --report` and `stridenet report`.
@Suite struct ReportTests {
  /// The numbers that a page shows.
  static func data(of page: [UInt8]) throws -> [String: Any] {
    let text = String(decoding: page, as: UTF8.self)
    #expect(!text.contains("/*STYLE*/") && !text.contains("/*PICTURES*/"))
    // Nothing is loaded from elsewhere.
    #expect(text.contains("default-src 'none'"))
    let addresses = text.matches(of: /(src|href)="[^"]*"/).map { String($0.0) }
    #expect(addresses.allSatisfy { $0.contains("\"data:") }, "\(addresses)")
    let start = try #require(text.range(of: "const report = "))
    let end = try #require(
      text.range(of: ";\nconst names", range: start.upperBound..<text.endIndex))
    let json = text[start.upperBound..<end.lowerBound]
    return try #require(
      JSONSerialization.jsonObject(with: Data(json.utf8)) as? [String: Any])
  }

  /// What can be seen of a frame.
  static func look(_ frame: [String: Any]?) throws -> [String: Any] {
    try #require(frame?["look"] as? [String: Any])
  }

  @Test func aTraining() throws {
    let place = try Workplace()
    let end = try place.run(
      "train", "--layers", "conv(4,3) maxpool(2) flatten softmax(10)", "--data", "digits",
      "--epochs", "3", "--batch-size", "8", "--report", "page.html", "--save", "net")
    #expect(end.code == 0 && end.lines.last == "report   page.html", "\(end.err)")
    let report = try Self.data(of: place.read("page.html"))
    #expect((report["epochs"] as? [Any])?.count == 3 && (report["points"] as? [Any])?.count == 24)
    let frames = try #require(report["frames"] as? [[String: Any]])
    #expect(frames.count > 5 && frames[0]["step"] as? Int == 0)
    #expect(frames.last?["step"] as? Int == 24)
    // The last look is at the network that was saved.
    let network = try Network.load(from: "\(place.path)/net")
    #expect(report["filter_shape"] as? [Int] == [4, 3, 3] && report["filter_count"] as? Int == 4)
    let filters = try #require(Self.look(frames.last)["filters"] as? [String: Any])
    let pixels = [UInt8](try #require(Data(base64Encoded: filters["pixels"] as? String ?? "")))
    let greatest = try #require(filters["greatest"] as? Double)
    let weights = network.firstFilters!.values
    #expect(abs(greatest - Double(weights.map(abs).max()!)) < 1e-6 && pixels.count == 36)
    for (i, pixel) in pixels.enumerated() {
      // Filter by filter; in the weights the filters are innermost.
      let value = (Double(pixel) - 128) / 127 * greatest
      #expect(abs(value - Double(weights[i % 9 * 4 + i / 9])) <= greatest / 250)
    }
    // All test images are in the matrix, and each wrong one can be looked at.
    let matrix = try #require(report["confusion"] as? [[Int]])
    #expect(matrix.joined().reduce(0, +) == Workplace.testImages)
    let cells = try #require(report["cells"] as? [String: [Int]])
    for (i, row) in matrix.enumerated() {
      for (j, count) in row.enumerated() { #expect(cells["\(i),\(j)", default: []].count == count) }
    }
    let time = try #require(report["time"] as? [String: Any])
    #expect(
      (time["rows"] as? [[String: Any]])?.contains { $0["pass"] as? String == "forward" } == true)
    // The configuration in it repeats the run.
    try place.write("run.json", report["configuration"] as? String ?? "")
    let again = try place.run("train", "--config", "run.json", "--save", "net2")
    #expect(again.code == 0, "\(again.err)")
    let second = try Network.load(from: "\(place.path)/net2").snapshot().sha256
    #expect(second == network.snapshot().sha256)
  }

  /// Looking doesn't change what is learned, and a training that is stopped has its page too.
  @Test func lookingChangesNothing() throws {
    let place = try Workplace()
    let arguments = [
      "train", "--layers",
      "conv(4,3,activation=none) batchnorm(activation=relu) dropout(0.2) flatten softmax(10)",
      "--data", "digits", "--epochs", "2", "--batch-size", "8", "--optimizer", "adam",
    ]
    let plain = try place.run(arguments)
    let seen = try place.run(arguments + ["--report", "page.html"])
    func sha(_ end: Workplace.Outcome) -> String? {
      end.lines.first { $0.contains("SHA-256") }?.components(separatedBy: " ").last
    }
    #expect(sha(plain) != nil && sha(plain) == sha(seen))

    let running = try place.start(Workplace.endless + ["--report", "stopped.html"])
    try running.wait(for: "epoch")
    running.send(SIGINT)
    #expect(running.end().code == 130)
    #expect(try Self.data(of: place.read("stopped.html"))["frames"] != nil)
  }

  /// A training that goes wrong says so, and its page shows what went before.
  @Test(arguments: ["1e20", "1e4"])
  func aTrainingThatDiverges(rate: String) throws {
    let place = try Workplace()
    let end = try place.run(
      "train", "--layers", "flatten relu(8) relu(8) softmax(10)", "--data", "digits", "--epochs",
      "4", "--batch-size", "8", "--learning-rate", rate, "--report", "page.html")
    #expect(end.code == 65 && end.err.contains("diverged") && !end.wasKilled, "\(end.err)")
    let report = try Self.data(of: place.read("page.html"))
    #expect((report["frames"] as? [Any])?.isEmpty == false)
    #expect((report["failure"] as? String)?.contains("diverged in epoch 1") == true)
  }

  /// A page has what there is room for, and says what there is none for.
  @Test func aSize() throws {
    let place = try Workplace()
    let arguments = [
      "train", "--layers", "conv(8,3,padding=1) conv(8,3,padding=1) flatten relu(100) softmax(10)",
      "--data", "digits", "--epochs", "2", "--batch-size", "4", "--report",
    ]
    #expect(try place.run(arguments + ["small.html", "--report-size", "0.2"]).code == 0)
    #expect(try place.run(arguments + ["large.html"]).code == 0)
    let (small, large) = (try place.read("small.html"), try place.read("large.html"))
    #expect(small.count <= 200_000 && large.count > 200_000 && large.count <= 1_500_000)
    func looks(_ page: [UInt8]) throws -> Int {
      let frames = try Self.data(of: page)["frames"] as? [[String: Any]] ?? []
      #expect(frames.count > 20 && frames.last?["look"] != nil)
      return frames.count { $0["look"] != nil }
    }
    let (few, all) = (try looks(small), try looks(large))
    #expect(few > 1 && few < all)
    let said = try #require(Self.data(of: small)["left_out"] as? [String])
    #expect(said.contains("Of \(all) looks into the network \(few) can be seen."), "\(said)")
    #expect(said.last?.contains("at most 0.2 MB; --report-size") == true)
    #expect((try Self.data(of: large)["left_out"] as? [String])?.isEmpty == true)
    for wrong in ["0.1", "-1", "nan"] {
      let end = try place.run(arguments + ["page.html", "--report-size", wrong])
      #expect(end.code == 64 && end.err.contains("--report-size"), "\(end.err)")
    }
    let alone = try place.run(["train"] + Workplace.tinyTraining + ["--report-size", "2"])
    #expect(alone.code == 64 && alone.err.contains("without a report"))
  }

  /// What a file doesn't say isn't made up; what `--save` writes says how it came to be.
  @Test func howItWasTrained() throws {
    let place = try Workplace()
    try place.writeWeights("old")
    #expect(try place.run("report", "old", "--data", "digits").code == 0)
    let old = try Self.data(of: place.read("old.html"))
    #expect(old["configuration"] as? String == "" && (old["epochs"] as? [Any])?.isEmpty == true)
    #expect((old["history_note"] as? String)?.contains("isn't known") == true)

    let trained = try place.run(
      ["train"] + Workplace.tinyTraining
        + ["--optimizer", "adam", "--epochs", "3", "--save", "net", "--json"])
    let sha = try trained.digest
    #expect(try place.run("report", "net").code == 0)
    let new = try Self.data(of: place.read("net.html"))
    let epochs = try #require(new["epochs"] as? [[String: Any]])
    let told = trained.json.filter { $0["event"] as? String == "epoch" }
    #expect(
      epochs.map { $0["test_loss"] as? Double } == told.map { $0["test_cce"] as? Double }
        && epochs.map { $0["step"] as? Int } == [4, 8, 12])
    #expect(new["history_note"] as? String == "")
    // The page has what repeats it, and the same file comes of it again, bit for bit.
    try place.write("run.json", new["configuration"] as? String ?? "")
    #expect(
      try place.run("train", "--config", "run.json", "--save", "net2", "--json").digest == sha)
    #expect(try place.read("net2") == place.read("net"))
  }

  @Test(
    arguments: [
      ("stridenet.configuration", "{", "stridenet.configuration"),
      ("stridenet.results", "{", "stridenet.results"),
      ("stridenet.configuration", #"{"training":{"batch_size":0}}"#, "batch size"),
      ("stridenet.results", #"{"images":0,"epochs":[]}"#, "stridenet.results"),
      ("stridenet.results", #"{"images":9000000000000000,"epochs":[]}"#, "stridenet.results"),
      (
        "stridenet.results",
        #"{"images":64,"epochs":[{"epoch":1,"train_loss":1,"train_error":2,"test_loss":1,"test_error":0}]}"#,
        "stridenet.results"
      ),
    ])
  func aDamagedHistory(key: String, text: String, told: String) throws {
    let place = try Workplace()
    _ = try place.run(["train"] + Workplace.tinyTraining + ["--save", "net"])
    var file = try Safetensors.read(at: "\(place.path)/net")
    file.metadata[key] = text
    try Safetensors.write(file.tensors, metadata: file.metadata, to: "\(place.path)/bad")
    let end = try place.run("report", "bad", "--data", "digits")
    #expect(end.code == 65 && end.err.contains(told), "\(end.err)")
    // The weights are whole.
    #expect(try place.run("evaluate", "bad", "--data", "digits").code == 0)
  }

  /// Of very many epochs a file has some, and how many there were.
  @Test func aLongHistory() throws {
    let folder = try TemporaryFolder()
    let set = try TensorSet(Tensor(batch: 2, shape: Shape(2), [0, 1, 1, 0]), labels: [0, 1])
    let network = Network { Dense(2, activation: .softmax) }
    var configuration = RunConfiguration(layers: "softmax(2)")
    (configuration.training.epochs, configuration.training.batchSize) = (1500, 2)
    let trainer = try Trainer(network, train: set, test: set, configuration.training)
    try trainer.run()
    let path = "\(folder.path)/w"
    try network.save(to: path, history: TrainingHistory(configuration, trainer))
    let history = try #require(try TrainingHistory(from: path))
    #expect(history.results.count == 750 && history.results.last?.epoch == 1500)
    #expect(history.results.last?.testCCE == trainer.results.last?.testCCE && history.images == 2)
    #expect(history.configuration.training == trainer.settings)
  }

  @Test func aSavedNetworkAndACheckpoint() throws {
    let place = try Workplace()
    try place.writeWeights("net", "flatten relu(5) softmax(10)")
    let end = try place.run("report", "net", "--data", "digits")
    #expect(end.code == 0 && end.out == "report   net.html\n", "\(end.err)")
    let report = try Self.data(of: place.read("net.html"))
    #expect((report["epochs"] as? [Any])?.isEmpty == true)
    #expect(report["filter_shape"] as? [Int] == [5, 8, 8])

    _ = try place.run(
      "train", "--layers", Workplace.tiny, "--data", "digits", "--epochs", "2", "--checkpoint", "c")
    let second = try place.run("report", "c", "--out", "c.html")
    #expect(second.code == 0, "\(second.err)")
    #expect((try Self.data(of: place.read("c.html"))["epochs"] as? [Any])?.count == 2)
  }

  /// Weights may be as large as floats get: what is made of them is shown, or said to be no number.
  @Test(arguments: [(Float(0), Float(3e38), Int32(0)), (3e38, 0, 65), (-3e38, 3e38, 65)])
  func immenseWeights(weight: Float, bias: Float, code: Int32) throws {
    let place = try Workplace()
    let layers = "conv(1,3,activation=none) flatten dense(2,activation=none) softmax(10)"
    func tensor(_ name: String, _ shape: [Int], _ value: Float) -> Safetensors.Tensor {
      let values = (0..<shape.reduce(1, *)).map { $0 % 2 == 0 ? value : -value }
      return .init(name: name, shape: shape, values: values)
    }
    try Safetensors.write(
      [
        tensor("layers.0.weight", [3, 3, 1, 1], weight), tensor("layers.0.bias", [1], weight),
        tensor("layers.2.weight", [2, 36], weight), tensor("layers.2.bias", [2], bias),
        tensor("layers.3.weight", [10, 2], weight), tensor("layers.3.bias", [10], 1),
      ], metadata: ["stridenet.architecture": layers, "stridenet.input": "8x8x1"],
      to: "\(place.path)/w")
    let end = try place.run("report", "w", "--data", "digits")
    #expect(end.code == code && !end.wasKilled, "\(end.err)")
    #expect(try place.names.contains("w.html") == (code == 0))
    if code == 0 {
      let frames = try #require(Self.data(of: place.read("w.html"))["frames"] as? [[String: Any]])
      let maps = try #require(Self.look(frames.last)["maps"] as? [[String: Any]])
      #expect(Data(base64Encoded: maps[2]["pixels"] as! String)!.prefix(2) == Data([255, 0]))
    }
    for arguments in [
      ["trace", "w"], ["trace", "w", "--json"], ["explain", "w", "--layer", "3", "--at", "0"],
      ["explain", "w", "--layer", "3", "--weight", "0,0", "--json"], ["evaluate", "w"],
    ] {
      let end = try place.run(arguments + ["--data", "digits"])
      #expect(!end.wasKilled && [0, 65].contains(end.code), "\(arguments): \(end)")
    }
  }

  @Test(
    arguments: [
      (["report", "none", "--data", "digits"], 66, "none"),
      (["report", "net", "--data", "digits", "--out", "no/page.html"], 73, "no/page.html"),
      (["report", "net", "--data", "sample"], 65, "another size"),
      (
        [
          "train", "--data", "digits", "--layers", "flatten softmax(10)", "--report",
          "no/page.html",
        ], 73, "no/page.html"
      ),
    ] as [([String], Int32, String)])
  func refusals(_ arguments: [String], _ code: Int32, _ message: String) throws {
    let place = try Workplace()
    try place.writeWeights("net")
    let before = try place.names
    let end = try place.run(arguments)
    #expect(end.code == code && end.err.contains(message), "\(end.err)")
    #expect(try place.names == before)
  }

  @Test(.enabled(if: Browser.path != nil, "there is no Chromium on this machine"))
  func inABrowser() throws {
    let place = try Workplace()
    let end = try place.run(
      "train", "--layers", "conv(4,3) maxpool(2) flatten softmax(10)", "--data", "digits",
      "--epochs", "2", "--batch-size", "8", "--report", "page.html")
    #expect(end.code == 0, "\(end.err)")
    let browser = try Browser(width: 1100, height: 900, dark: true)
    try browser.visit("file://\(place.path)/page.html")
    try browser.wait("document.readyState === 'complete' && $('maps').childElementCount === 4")
    #expect(try browser.text("document.querySelectorAll('svg.chart').length >= 6") == "1")
    #expect(try !browser.scrollsSideways())
    // Back to the first weights.
    let last = try browser.text("$('filters').toDataURL()")
    try browser.value("$('frame').value = 0; $('frame').dispatchEvent(new Event('input'))")
    #expect(try browser.text("$('when').textContent") == "step 0")
    #expect(try browser.text("$('filters').toDataURL()") != last)
    // A cell of the matrix shows its images.
    try browser.value(
      "[...$('matrix').querySelectorAll('button')].sort((a, b) => b.dataset.n - a.dataset.n)[0].click()"
    )
    #expect(
      try browser.text(
        "$('cell').childElementCount === Math.max(...report.confusion.flat())") == "1")
    try browser.resize(390, 800)
    try browser.wait("innerWidth === 390")
    #expect(try !browser.scrollsSideways())
    #expect(browser.complaints.isEmpty, "\(browser.complaints)")
    #expect(browser.requests.allSatisfy { $0.hasPrefix("file://") || $0 == "about:blank" })
  }
}
