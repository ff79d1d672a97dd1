import Foundation
import Testing

import StrideNet

/// Options and configurations: what they may be, and what is said of the others.
@Suite struct CommandLineOptions {
  /// Errors call a key what the file calls it.
  @Test(arguments: [
    ("training.learning_rate", #""fast""#), ("training.learning_rate", "-1"),
    ("training.learning_rate", "1e300"), ("training.batch_size", "1.5"),
    ("training.batch_size", "0"),
    ("training.batch_size", "1e300"), ("training.epochs", "9223372036854775807"),
    ("training.epochs", "9223372036854775808"), ("training.epochs", "[]"),
    ("training.average_decay", "1"), ("training.average_decay", "{}"), ("training.patience", "0"),
    ("training.patience", "-1e19"), ("training.keeps_best", "3"), ("training.seed", "-1"),
    ("training.seed", "18446744073709551616"), ("training.schedule", #""warmup:1e300,cosine""#),
    ("training.schedule", #""step:9223372036854775807:0.5""#),
    ("training.loss", #""cross_entropy:1e300""#), ("training.augmentation", #""shift=1e300""#),
    ("training.augmentation", "1"), ("training.optimizer.momentum", "1e300"),
    ("training.optimizer.weight_decay", "11"), ("training.optimizer.weight_decay", #""x""#),
    ("training.optimizer.clip_norm", "-1"), ("training.optimizer.l1", "1e39"),
    ("training.optimizer.beta2", "1"), ("training.optimizer.epsilon", "0"),
    ("training.optimizer.method", #""adamm""#), ("limit", "1.5"), ("limit", "1e300"),
    ("split", #""half""#), ("validate", "true"), ("data", "1"), ("kernels", "1"), ("layers", "1"),
  ])
  func configurationErrorsNameTheKey(key: String, value: String) throws {
    let keys = key.split(separator: ".")
    let text = keys.reversed().reduce(value) { #"{"\#($1)":\#($0)}"# }
    let error = try #require(throws: StrideNetError.self) {
      try RunConfiguration.parse(Array(text.utf8), at: "run.json")
    }
    #expect(error.place == "run.json, \(key)", "\(error)")
  }

  @Test func configurationsRepeatRuns() throws {
    let place = try Workplace()
    let first = try place.run(Workplace.thorough + ["--write-config", "run.json", "--json"]).digest
    #expect(try place.run("train", "--config", "run.json", "--json").digest == first)
    let other = try place.run("train", "--config", "run.json", "--seed", "4", "--json")
    #expect(try other.digest != first)
    try place.write("bad.json", #"{"training": {"epoch": 3}}"#)
    let refused = try place.run("train", "--config", "bad.json")
    #expect(refused.code == 64 && refused.err.contains("training.epoch"), "\(refused.err)")
    for (text, parts) in [
      (#"{"training": {"epochs": 0}}"#, ["bad.json, training", "epochs out of range"]),
      (#"{"layers": "flatten sofmax(10)"}"#, ["bad.json, layers", "column 9", "sofmax"]),
    ] {
      try place.write("bad.json", text)
      let refused = try place.run("train", "--config", "bad.json")
      #expect(refused.code == 64 && parts.allSatisfy(refused.err.contains), "\(refused.err)")
    }
    // The file says what was a default: which data, which kernels.
    let brief = ["cnn", "--limit", "64", "--epochs", "1", "--validate", "0.1"]
    let end = try place.run(brief + ["--write-config", "cnn.json"])
    #expect(end.code == 0 && end.out.contains("validation cross-entropy"), "\(end.out) \(end.err)")
    let text = String(decoding: try place.read("cnn.json"), as: UTF8.self)
    #expect(text.contains(#""kernels" : "#) && text.contains(#""data" : "#), "\(text)")
    let again = try place.run("train", "--config", "cnn.json")
    #expect(again.lines.last?.suffix(64) == end.lines.last?.suffix(64))
    #expect(again.out.contains("validation cross-entropy"), "\(again.out)")
    // And what was asked for, even where there are fewer images than that.
    let few = ["flat", "--data", "digits", "--limit", "20", "--epochs", "2"]
    let small = try place.run(few + ["--write-config", "few.json"])
    let usual = TrainingSettings().batchSize
    #expect(
      String(decoding: try place.read("few.json"), as: UTF8.self)
        .contains("\"batch_size\" : \(usual)"))
    let repeated = try place.run("train", "--config", "few.json")
    #expect(repeated.code == 0 && repeated.lines.last?.suffix(64) == small.lines.last?.suffix(64))
    let most = try place.run("train", "--config", "few.json", "--batch-size", "\(usual)")
    #expect(most.code == 64 && most.err.contains("20"), "\(most.err)")
  }

  @Test(arguments: [
    (["--optimizer", "adamm"], "no optimiser"),
    (["--optimizer", "adam", "--momentum", "0.5"], "--momentum"),
    (["--beta1", "0.5"], "--beta1"), (["--beta2", "0.5"], "--beta2"),
    (["--epsilon", "1"], "--epsilon"),
    (["--weight-decay", "-1"], "weight decay"), (["--l1", "nan"], "L1"),
    (["--clip-norm", "0"], "clip norm"),
    (["--ema", "1"], "moving average"), (["--patience", "0"], "patience"),
    (["--schedule", "fast"], "schedule"),
    (["--loss", "l3"], "loss"), (["--loss", "cross_entropy:1"], "label smoothing"),
    (["--validate", "64"], "held out"),
    (["--checkpoint-every", "0", "--checkpoint", "c"], "checkpoint-every"),
    (["--checkpoint-every", "2"], "without a checkpoint"),
    (["--validate", "1.5"], "held out"), (["--validate", "nan"], "held out"),
    (["--config", "digits"], "folder"), (["--config", "none.json"], "no such file"),
    (["--resume", "none"], "no such file"), (["--checkpoint", "none/c"], "none"),
    (["--optimizer", "adam", "--beta1", "1"], "beta1"),
    (["--split", "0.5", "--validate", "-3"], "held out"),
  ])
  func trainingOptionsOutOfRange(options: [String], what: String) throws {
    let place = try Workplace()
    let end = try place.run(
      ["--layers", Workplace.tiny, "--data", "digits", "--batch-size", "8"] + options)
    #expect(end.code != 0 && !end.wasKilled && end.err.contains(what), "\(end.code) \(end.err)")
    #expect(try place.names.allSatisfy { $0.hasPrefix("digits") })
  }

  /// No number that a user may give ends the program by a signal: it trains, or says what is wrong.
  @Test(arguments: [
    ["--epochs"], ["--batch-size"], ["--patience"], ["--limit"], ["--checkpoint-every"], ["--seed"],
    ["--threads"], ["--validate"], ["--split"], ["--ema"], ["--learning-rate"], ["--momentum"],
    ["--weight-decay"], ["--l1"], ["--clip-norm"], ["--optimizer=adam", "--beta1"],
    ["--optimizer=adam", "--beta2"], ["--optimizer=adam", "--epsilon"],
  ])
  func numbersAtTheirLimits(option: [String]) throws {
    let place = try Workplace()
    for number in ["9223372036854775807", "-9223372036854775808", "1e39", "1e-300", "nan", "-inf"] {
      let end = try place.run(
        [
          "--layers", Workplace.tiny, "--data", "digits", "--batch-size", "8", "--epochs", "1",
          "--checkpoint", "c",
        ] + option + [number])
      #expect(!end.wasKilled, "\(option) \(number): \(end.err)")
      #expect(end.code == 0 || end.code == 64 || end.code == 65, "\(option) \(number): \(end.err)")
    }
  }

  @Test(arguments: [
    ["trace", "--data", "digits", "--image"], ["trace", "flat", "--data", "digits", "--batch"],
    ["trace", "flat", "--data", "digits", "--repeats"],
    ["explain", "--data", "digits", "--at=0,0,0", "--layer"],
    ["explain", "--layer", "1", "--at"], ["speedrun", "--data", "digits", "--runs"],
    ["gradcheck", "--layers", "flatten softmax(2)", "--input"], ["explain", "conv", "--height"],
    ["augment", "shift=1", "--data", "digits", "--out", "a.png", "--seed"], ["serve", "--port"],
  ])
  func numbersOfOtherCommandsAtTheirLimits(command: [String]) throws {
    let place = try Workplace()
    for number in ["9223372036854775807", "-9223372036854775808", "-1"] {
      let text =
        command.last == "--at"
        ? "\(number),\(number),\(number)"
        : command.last == "--input" ? "\(number)x1x1" : number
      let end = try place.run(command + [text])
      #expect(
        !end.wasKilled && end.code != 0 || command.last == "--seed",
        "\(command) \(text): \(end.err)")
    }
  }
}
