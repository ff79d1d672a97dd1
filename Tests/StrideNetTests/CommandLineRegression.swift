import Foundation
import Testing

import StrideNet

/// Numbers to predict, from the command line.
@Suite struct CommandLineRegression {
  /// A table of pixels with the spot's place before them, and the same as pictures.
  private func workplace() throws -> Workplace {
    let place = try Workplace()
    let (set, side) = (try RegressionTests.spots(120, 1), RegressionTests.side)
    let columns = set.columns
    var (table, list) = ("east,north", "file,east,north\n")
    for i in 0..<side * side { table += ",p\(i)" }
    table += "\n"
    for n in 0..<set.count {
      let pixels = set.pixels[n * side * side..<(n + 1) * side * side]
      let targets = "\(columns[0][n]),\(columns[1][n])"
      table += targets + pixels.map { ",\($0)" }.joined() + "\n"
      guard n < 40 else { continue }
      list += "\(n).png,\(targets)\n"
      let picture = Picture(height: side, width: side, channels: 1, pixels: Array(pixels))
      try PictureFolderTests.write("spots/\(n).png", PNG.encode(picture), in: place)
    }
    try place.write("spots.csv", table)
    try place.write("spots/targets.csv", list)
    return place
  }

  static let training = [
    "train", "flat", "--data", "spots.csv", "--targets", "east,north", "--batch-size", "8",
    "--epochs", "8",
  ]

  @Test func trainsEvaluatesAndPredicts() throws {
    let place = try workplace()
    let end = try place.run(
      Self.training + ["--save", "w", "--report", "page.html", "--log-dir", "log"])
    try #require(end.code == 0 && end.err.isEmpty, "\(end.err)")
    for text in [
      "flatten relu(100) dense(2), ", "\ntargets  east, north, less mean 25",
      "train mean squared error ", "  MAE east ", "  R² east 0.", "\ntest MAE east ",
    ] { #expect(end.out.contains(text), "\(text) in \(end.out)") }
    #expect(!end.out.contains("accuracy") && !end.out.contains("%"))
    let json = try place.run(Self.training + ["--json"])
    let digest = try json.digest
    #expect(end.out.contains(digest))
    #expect(json.json[0]["loss"] as? String == "mean_squared_error")
    #expect(json.json[0]["classes"] as? [String] == ["east", "north"])
    let epoch = json.json[1]
    #expect(epoch["test_cce"] != nil && epoch["test_ce"] == nil && epoch["train_ce"] == nil)
    #expect((epoch["outputs"] as? [[String: Any]])?.count == 2 && epoch["r2"] is Double)
    let r2 = try #require(json.json.last?["test_r2"] as? Double)
    #expect(r2 > 0.8 && json.json.last?["test_accuracy"] == nil)

    // The file knows the columns.
    let judged = try place.run("evaluate", "w", "--data", "spots.csv", "--json")
    try #require(judged.code == 0, "\(judged.err)")
    #expect(judged.json[0]["test_r2"] as? Double == r2)
    #expect(
      judged.json[0]["outputs"] as? NSArray == json.json.last?["test_outputs"] as? NSArray)
    let shown = try place.run("evaluate", "w", "w", "--data", "spots.csv")
    #expect(
      shown.code == 0 && shown.out.contains("R²") && shown.out.contains("\neast   "), "\(shown)")
    let answers = try place.run("predict", "w", "spots/0.png", "spots/1.png")
    #expect(answers.code == 0 && answers.lines.count == 2, "\(answers.err)")
    #expect(answers.lines[0].wholeMatch(of: /spots\/0.png 0  east 25\d{4}  north -?0\.\d+/) != nil)
    let row = try #require(
      try place.run("predict", "w", "spots/0.png", "--json").json.first)
    #expect(row["names"] as? [String] == ["east", "north"] && row["class"] == nil)
    #expect((row["outputs"] as? [Double])?.first.map { (240_000...270_000).contains($0) } == true)
    let all = try place.run("predict", "w", "--data", "spots.csv")
    #expect(all.lines.count == 24 && all.code == 0)
    let trace = try place.run(
      "trace", "w", "--data", "spots.csv", "--targets", "east,north", "--repeats", "1")
    #expect(trace.code == 0 && trace.out.contains("in truth 25"), "\(trace.err)")

    // The page, and the one that is made later.
    for page in ["page.html", "later.html"] {
      if page == "later.html" {
        let end = try place.run("report", "w", "--data", "spots.csv", "--out", page)
        try #require(end.code == 0, "\(end.err)")
      }
      let report = try ReportTests.data(of: place.read(page))
      let outputs = try #require(report["outputs"] as? [[String: Any]])
      #expect(outputs.map { $0["name"] as? String } == ["east", "north"])
      #expect((outputs[0]["points"] as? [[Double]])?.count == 24)
      #expect((outputs[0]["points"] as? [[Double]])?.allSatisfy { $0[0] > 250_000 } == true)
      #expect((report["confusion"] as? [Any])?.isEmpty == true)
      #expect((report["wrong"] as? [Int])?.count == 24)
      let images = try #require(report["images"] as? [[String: Any]])
      #expect((images[0]["text"] as? String)?.contains(" as east 25") == true)
      #expect((report["numbers"] as? [[String]])?.first?.first == "R²")
    }
    let log = try place.names.first { $0.hasPrefix("log/events") }
    let events = String(decoding: try place.read(try #require(log)), as: UTF8.self)
    #expect(events.contains("epoch/test_r2/east") && events.contains("epoch/test_mae/north"))
    #expect(!events.contains("class_error"))
  }

  @Test func otherWaysToTrain() throws {
    let place = try workplace()
    // Pictures: half of a network's answer is where it looks.
    let pictures = try place.run(
      "train", "--layers", "flatten relu(20) dense(1)", "--data", "spots", "--targets", "north",
      "--batch-size", "4", "--epochs", "10", "--loss", "mean_absolute_error", "--save", "p",
      "--validate", "8", "--patience", "4", "--best")
    #expect(pictures.code == 0 && pictures.out.contains("validation mean absolute error"))
    #expect(pictures.out.contains("\ntest MAE 0.0"), "\(pictures.out) \(pictures.err)")
    #expect(try place.run("evaluate", "p", "--data", "spots").code == 0)

    let folds = try place.run(Self.training + ["--folds", "3", "--json"])
    #expect(folds.code == 0, "\(folds.err)")
    #expect(folds.json.last?["r2_mean"] is Double && folds.json.last?["accuracy_mean"] == nil)
    #expect(
      try place.run(Self.training + ["--folds", "3", "--quiet"]).out.hasPrefix("R² "))
    let sweep = try place.run(
      ["sweep"] + Self.training.dropFirst() + [
        "--grid", "learning-rate=0.0001,0.05", "--page", "s.html",
      ])
    #expect(sweep.code == 0 && sweep.out.contains("R² 0."), "\(sweep.err)")
    #expect(sweep.lines.last { $0.hasPrefix("best") }?.contains("--learning-rate 0.05") == true)
    let rates = try place.run(["lr-find"] + Self.training.dropFirst())
    #expect(rates.code == 0 && rates.out.contains("mean squared error"), "\(rates.err)")

    // A run goes on as if it had never stopped, and a saved one with all weights.
    let whole = try place.run(Self.training + ["--json"]).digest
    let half = ["--epochs", "4", "--schedule", "constant", "--checkpoint", "c"]
    let long = try place.run(Self.training + ["--schedule", "constant", "--json"]).digest
    #expect(try place.run(Self.training + half).code == 0)
    #expect(try place.run("train", "--resume", "c", "--epochs", "8", "--json").digest == long)
    #expect(whole != long)
    #expect(try place.run(Self.training + ["--save", "w", "--write-config", "run.json"]).code == 0)
    #expect(try place.run("train", "--config", "run.json", "--json").digest == whole)
    let more = try place.run(
      "train", "--from", "w", "--data", "spots.csv", "--targets", "east,north", "--epochs", "1",
      "--batch-size", "8")
    #expect(more.code == 0 && more.out.contains("from     w, all weights"), "\(more.err)")
    let classes = try place.run(
      "train", "--from", "w", "--data", PictureFiles.path("arrays/plain.npz"), "--epochs", "1")
    #expect(classes.code == 65 || classes.code == 64, "another input: \(classes.err)")
  }

  /// The article's commands, run to their end, and its example.
  @Test func asTheArticleHasIt() throws {
    let place = try workplace()
    let table = String(decoding: try place.read("spots.csv"), as: UTF8.self)
    try place.write("spots.csv", table.replacing("east,north", with: "x,y", maxReplacements: 1))
    try place.write("photo.png", place.read("spots/3.png"))
    let blocks = try Documents.blocks(
      "sh", in: ["Sources/StrideNet/StrideNet.docc/PredictingNumbers.md"])
    let lines = blocks.flatMap { $0.split(separator: "\n") }
    for line in lines {
      // Smaller, as a debug build is slow.
      let words = line.replacing("cnn", with: "flat").split(separator: " ").map(String.init)
      let end = try place.run(Array(words.dropFirst()))
      #expect(end.code == 0 && end.err.isEmpty, "\(line): \(end.err)")
      if words[1] == "predict" {
        #expect(end.out.wholeMatch(of: /photo.png 0  x [\d.]+  y -?[\d.]+\n/) != nil, "\(end.out)")
      }
    }
    #expect(lines.count == 5)
    #expect(try place.names.isSuperset(of: ["spots.html", "spots.c", "spots.h"]))
  }

  @Test func fromSwift() throws {
    let page = ArticlePage()
    func print(_ items: Any..., line: Int = #line) { page.print(items, line) }
    var settings = TrainingSettings()
    (settings.epochs, settings.batchSize) = (20, 16)
    let pixels = (0..<200).flatMap { n in (0..<16).map { UInt8((n + $0 * 3) % 240) } }
    let brightness = try Tensor(
      batch: 200, shape: Shape(1),
      (0..<200).map { n in (0..<16).reduce(0) { $0 + 5 * Float(pixels[n * 16 + $1]) } })

    let set = try ImageSet(
      count: 200, height: 4, width: 4, channels: 1, pixels: pixels, targets: brightness)
    let lamps = try Dataset(
      name: "lamps", source: "made here", train: set, test: set, classNames: ["lux"])
    let meter = Network {
      Flatten(); Dense(16); Dense(1, activation: .none)
    }
    try Trainer(meter, lamps, settings).run()
    print(try meter.regressionMetrics(lamps.test).outputs[0].r2! > 0.9)  // true

    try page.check("PredictingNumbers")
  }

  @Test func fromAFile() throws {
    let place = try Workplace()
    try place.write("lamps.csv", "lux,a,b,c,d\n9.5,1,2,3,4\n2,5,6,7,8\n")
    let path = "\(place.path)/lamps.csv"

    let lamps = try Dataset.load(path, PictureOptions(targets: ["lux"]))

    #expect(lamps.train.targets?.values == [9.5] || lamps.train.targets?.values == [2])
    #expect(lamps.classNames == ["lux"] && lamps.train.shape == Shape(2, 2, 1))
  }

  @Test func saysWhatThereIs() throws {
    let place = try workplace()
    let end = try place.run(
      "data", "spots.csv", "--targets", "north,east", "--sheet", "s.png", "--save", "set.npz")
    #expect(end.code == 0 && end.err.isEmpty, "\(end.err)")
    for text in ["to predict", "deviation", "\n  north ", "dense(2), "] {
      #expect(end.out.contains(text), "\(text) in \(end.out)")
    }
    let json = try #require(
      try place.run("data", "spots.csv", "--targets", "east", "--image-size", "1x101", "--json")
        .json.first)
    let target = try #require((json["targets"] as? [[String: Any]])?.first)
    #expect(target["name"] as? String == "east" && target["least"] as? Double == 251_000)
    #expect(json["classes"] == nil)
    let arrays = try place.run("data", "set.npz", "--targets", "n,e")
    #expect(arrays.code == 0 && arrays.out.contains("\n  e "), "\(arrays.err)")
  }

  @Test func refuses() throws {
    let place = try workplace()
    #expect(try place.run(Self.training + ["--save", "w", "--quiet"]).code == 0)
    let data = ["--data", "spots.csv"]
    for (arguments, code, message) in [
      (Self.training + ["--class-weights", "balanced"], 64, "--class-weights is for classes"),
      (Self.training + ["--top-k", "1"], 64, "--top-k is for classes"),
      (Self.training + ["--loss", "cross_entropy:0.1"], 64, "a loss that is for classes"),
      (Self.training + ["--stream"], 64, "stay in their files"),
      (
        ["train", "--layers", "flatten softmax(2)"] + Self.training.dropFirst(2), 65,
        "ends in softmax"
      ),
      (["train", "--layers", "flatten dense(3)"] + Self.training.dropFirst(2), 65, "more outputs"),
      (["train", "flat"] + data + ["--targets", "east,"], 64, "--targets"),
      (["train", "flat"] + data + ["--targets", "south"], 64, "no such column"),
      (["train", "flat", "--data", "sample", "--targets", "y"], 64, "has classes"),
      (["evaluate", "w", "--confusion"] + data, 64, "--confusion is for classes"),
      (["evaluate", "w", "--top-k", "2"] + data, 64, "--top-k is for classes"),
      (["evaluate", "w", "--pictures", "spots"], 64, "--pictures is for classes"),
      (["evaluate", "w", "--targets", "north,east"] + data, 65, "other numbers"),
      (["evaluate", "w", "--data", "sample"], 64, "has classes"),
      (["predict", "w", "spots/0.png", "--targets", "east"], 64, "without a data set"),
      (["serve", "w", "--port", "0"] + data, 64, "serve is for classes"),
      (["data", "spots.csv", "--targets", "east,north", "--save", "idx"], 64, "IDX has no place"),
    ] as [([String], Int32, String)] {
      let end = try place.run(arguments)
      #expect(end.code == code && end.err.contains(message), "\(arguments): \(end.code) \(end.err)")
    }
    try place.writeWeights("classes", "flatten softmax(2)")
    let wrong = try place.run(["evaluate", "classes", "--targets", "east,north"] + data)
    #expect(wrong.code == 65 && wrong.err.contains("tells classes apart"), "\(wrong.err)")
  }
}
