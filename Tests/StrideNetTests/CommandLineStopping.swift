import Foundation
import Testing

import StrideNet

/// A training that is stopped, killed, resumed.
@Suite struct CommandLineStopping {
  @Test(arguments: [SIGINT, SIGTERM, SIGHUP]) func aSignalEndsTrainingInGoodOrder(signal: Int32)
    throws
  {
    let place = try Workplace()
    let running = try place.start(Workplace.endless + ["--save", "w", "--json"])
    try running.wait(for: #""epoch":3"#)
    let (end, time) = running.stop(signal)
    #expect(
      end.code == 128 + signal && !end.wasKilled && time < .seconds(2), "\(end.code) after \(time)")
    let last = try #require(end.json.dropLast().last?["epoch"] as? Int)
    #expect(end.err == "stopped; 'w' has the weights of epoch \(last)\n")
    let done = try #require(end.json.last)
    #expect(done["event"] as? String == "done" && end.json.count == end.lines.count)
    let check = try place.run("evaluate", "w", "--data", "digits", "--json")
    #expect(check.code == 0, "\(check.err)")
    #expect(check.json.first?["weights_sha256"] as? String == done["weights_sha256"] as? String)
    #expect(try place.names.filter { !$0.hasPrefix("digits") } == ["w"])
  }

  @Test func aSignalInTheFirstEpochLeavesTheOldFile() throws {
    let place = try Workplace()
    try place.writeWeights("w", seed: 2)
    let old = try place.read("w")
    let running = try place.start(["cnn", "--data", "sample", "--save", "w"])
    try running.wait(for: "kernels")
    let (end, time) = running.stop(SIGINT)
    #expect(
      end.code == 130 && !end.wasKilled && time < .seconds(2), "\(end.code) after \(time)")
    #expect(end.err == "stopped; no epoch was finished, so 'w' was not written\n")
    #expect(!end.out.contains("epoch") && !end.out.contains("saved"), "\(end.out)")
    #expect(try place.read("w") == old)
    #expect(try place.names.filter { !$0.hasPrefix("digits") } == ["w"])
  }

  /// A run that a signal ended goes on to the weights that it would have come to.
  @Test(arguments: [SIGINT, SIGTERM, SIGHUP]) func stoppedAndResumed(signal: Int32) throws {
    let place = try Workplace()
    let whole = try place.run(Workplace.thorough + ["--json"]).digest
    let running = try place.start(
      Workplace.thorough.map { $0 == "40" ? "100000" : $0 } + ["--checkpoint", "c", "--json"])
    try running.wait(for: #""epoch":3"#)
    let (end, _) = running.stop(signal)
    #expect(end.code == 128 + signal && end.err.contains("--resume c"), "\(end.err)")
    // Other settings than it began with are refused, and named.
    let other = try place.run("train", "--resume", "c", "--epochs", "40")
    #expect(other.code == 64 && other.err.contains("training.epochs: 40, 100000"), "\(other.err)")

    // The same, ended after some epochs by the number of them in its own checkpoints.
    let first = try place.start(
      Workplace.thorough + [
        "--checkpoint", "d d", "--checkpoint-every", "3", "--threads", "1", "--json",
      ])
    try first.wait(for: #""epoch":5"#)
    let (early, _) = first.stop(signal)
    #expect(early.err.contains("stridenet train --resume 'd d'\n"), "\(early.err)")
    let resumed = try place.run("train", "--resume", "d d", "--threads", "2", "--json")
    #expect(try resumed.digest == whole)
    #expect(try place.run("evaluate", "d d", "--data", "digits").code == 0)
  }

  /// Killed at any instant, the last checkpoint loads and leads to the same weights.
  @Test func killedAndResumed() throws {
    let place = try Workplace()
    let whole = try place.run(Workplace.thorough + ["--json"]).digest
    for round in 1...4 {
      let running = try place.start(
        round == 1
          ? Workplace.thorough + ["--checkpoint", "c", "--json"]
          : ["train", "--resume", "c", "--json"])
      if round == 1 { try running.wait(for: #""epoch":2"#) }
      Thread.sleep(forTimeInterval: 0.01 * Double(round))
      running.send(SIGKILL)
      _ = running.end()
      #expect(try Checkpoint(from: "\(place.path)/c").epochs >= 1)
    }
    #expect(try place.run("train", "--resume", "c", "--json").digest == whole)
    // Nor does anything stay of what was half written.
    #expect(try place.names.filter { !$0.hasPrefix("digits") } == ["c"])
  }

  /// Nothing is left to train: what was learned is saved all the same, and said to be.
  @Test func aFinishedCheckpointIsSaved() throws {
    let place = try Workplace()
    let whole = try place.run(Workplace.thorough + ["--checkpoint", "c", "--json"]).digest
    let again = try place.run("train", "--resume", "c", "--save", "w", "--json")
    #expect(try again.digest == whole)
    let check = try place.run("evaluate", "w", "--data", "digits", "--json")
    #expect(check.code == 0 && check.json.first?["weights_sha256"] as? String == whole)
  }

  /// What nohup does: the terminal may be closed.
  @Test func nohupGoesOn() throws {
    let place = try Workplace()
    let running = try place.start(
      Workplace.endless + ["--json"], shell: ["/bin/sh", "-c", #"trap "" HUP; exec "$0" "$@""#])
    try running.wait(for: #""epoch":2"#)
    running.send(SIGHUP)
    let seen = running.out.count
    while running.out.count < seen + 2000 { Thread.sleep(forTimeInterval: 0.005) }
    #expect(running.stop(SIGTERM).0.code == 128 + SIGTERM)
  }

  @Test func saysWhatDoesntGoOn() throws {
    let place = try Workplace()
    _ = try place.run(Workplace.tinyTraining + ["--checkpoint", "c"])
    let before = try place.read("c")
    // Fewer images than a mini-batch has, of another size.
    try PictureFolderTests.write("pics", in: place)
    for (options, code, said) in [
      (["--data", "pics", "--epochs", "9"], 65, "made with other data"),
      (["--from", "w"], 64, "from.path: w, none before"),
      (["--epochs", "9", "--save", "./c"], 64, "--save and --resume"),
      (["--epochs", "9", "--save", "w", "--checkpoint", "w"], 64, "--save and --checkpoint"),
      (["--report", "w", "--write-config", "w"], 64, "--write-config and --report"),
      (["--fit", "pad"], 64, "pictures.colour: auto, none; pictures.fit: pad, none before"),
    ] {
      let end = try place.run(["train", "--resume", "c"] + options)
      #expect(end.code == code && end.err.contains(said), "\(end.err)")
      #expect(try place.read("c") == before)
    }
  }

  /// Where data lies doesn't matter, what it is does.
  @Test func resumedWithTheDataElsewhere() throws {
    let place = try Workplace()
    let whole = try place.run(Workplace.thorough + ["--json"]).digest
    let running = try place.start(Workplace.thorough + ["--checkpoint", "c", "--json"])
    try running.wait(for: #""epoch":2"#)
    _ = running.stop(SIGINT)
    // From another folder, by the path it had; and moved along with the checkpoint.
    let away = try TemporaryFolder()
    let elsewhere = try Workplace()
    try FileManager.default.removeItem(atPath: "\(elsewhere.path)/digits")
    for name in ["c", "c2"] {
      try FileManager.default.copyItem(
        atPath: "\(place.path)/c", toPath: "\(elsewhere.path)/\(name)")
    }
    let far = try elsewhere.run("train", "--resume", "c", "--json")
    #expect(try far.digest == whole)
    try FileManager.default.moveItem(atPath: "\(place.path)/digits", toPath: "\(away.path)/digits")
    try FileManager.default.copyItem(atPath: "\(place.path)/c", toPath: "\(away.path)/c")
    let along = try elsewhere.run("train", "--resume", "\(away.path)/c")
    #expect(along.code == 0 && along.out.contains(whole), "\(along.err)")
    #expect(along.err.contains("the data is read from \(away.path)/digits\n"))
    try FileManager.default.moveItem(
      atPath: "\(away.path)/digits", toPath: "\(place.path)/moved")
    let lost = try place.run("train", "--resume", "c")
    #expect(lost.code == 66 && lost.err.contains("--data"), "\(lost.err)")
    try place.writeDigits("other") { file, bytes in
      file.hasPrefix("t10k") ? bytes : bytes.dropLast() + [bytes.last! ^ 1]
    }
    let other = try place.run("train", "--resume", "c", "--data", "other")
    #expect(other.code == 65 && other.err.contains("other data"), "\(other.err)")
    #expect(
      try place.run("train", "--resume", "c", "--data", "moved", "--json").digest == whole)
    // From then on it knows.
    #expect(try place.run("train", "--resume", "c", "--json").digest == whole)
  }

  /// A run that is finished says so, and goes on where it is to have more epochs.
  @Test func aFinishedRunGoesOnToMoreEpochs() throws {
    let place = try Workplace()
    let constant = Workplace.tinyTraining + ["--schedule", "constant", "--ema", "0.9"]
    let whole = try place.run(constant + ["--epochs", "5", "--json"]).digest
    _ = try place.run(constant + ["--epochs", "3", "--checkpoint", "c"])
    let again = try place.run("train", "--resume", "c")
    #expect(
      again.code == 0 && again.out.contains("finished all 3 epochs were done"), "\(again.out)")
    let json = try place.run("train", "--resume", "c", "--json").json
    #expect(json.contains { $0["event"] as? String == "finished" && $0["epochs"] as? Int == 3 })
    let fewer = try place.run("train", "--resume", "c", "--epochs", "2")
    #expect(fewer.code == 64 && fewer.err.contains("training.epochs: 2, 3"), "\(fewer.err)")
    // With a rate that doesn't depend on how long it goes on, as if it had been so from the start.
    let more = try place.run("train", "--resume", "c", "--epochs", "5", "--json", "--threads", "3")
    #expect(try more.digest == whole)
    #expect(more.json.compactMap { $0["epoch"] as? Int } == [4, 5, 5])
    // That it is of five epochs now is in the checkpoint.
    #expect(try place.run("train", "--resume", "c", "--json").digest == whole)
  }

  @Test func whateverMomentItIsKilledAtTheFileIsWhole() throws {
    let place = try Workplace()
    for _ in 0..<10 {
      let running = try place.start(Workplace.endless + ["--save", "w", "--quiet"])
      Thread.sleep(forTimeInterval: .random(in: 0...0.15))
      running.send(SIGKILL)
      let end = running.end()
      #expect(end.wasKilled && end.code == SIGKILL, "\(end.err)")
      let check = try place.run("evaluate", "w", "--data", "digits")
      let isThere = try place.names.contains("w")
      #expect(!check.wasKilled && check.code == (isThere ? 0 : 66), "\(check.err)")
    }
  }
}
