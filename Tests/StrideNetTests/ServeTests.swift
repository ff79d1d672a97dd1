import Foundation
import Synchronization
import Testing

import StrideNet

/// `stridenet serve`: what it answers, what it refuses, and the page in a real browser.
@Suite(.serialized) struct ServeTests {
  // MARK: Answers

  @Test func thePageNeedsNothingElse() throws {
    let served = try Served()
    let page = served.get("/")
    #expect(
      page.hasPrefix("HTTP/1.1 200") && page.contains("Content-Security-Policy: default-src 'none'")
    )
    #expect(!page.contains("/*STYLE*/") && !page.contains("/*PICTURES*/"))
    let addresses = page.matches(of: /https?:\/\/[^"'` )]+/).map { String($0.0) }
    #expect(Set(addresses) == ["http://www.w3.org/2000/svg"])
    #expect(served.get("/none").hasPrefix("HTTP/1.1 404"))
  }

  /// What the page shows is what the library computes.
  @Test func answersAreTheLibrarys() throws {
    let served = try Served()
    let network = Network.digits()
    let test = try Dataset.load("sample").test
    let state = served.fields("state")
    #expect(state["network"] as? String == Architecture.text(network.layers))
    #expect(state["is_original"] as? Bool == true)
    for kernels in KernelChoice.names {
      let look = served.fields("look", "{\"input\":{\"test\":5},\"kernels\":\"\(kernels)\"}")
      let expected = try network.predict(test.batch([5]).images).values
      let found = (look["probabilities"] as? [Any])?.compactMap { ($0 as? NSNumber)?.floatValue }
      expectClose(found ?? [], expected, within: 1e-5, kernels)
      #expect(look["label"] as? Int == Int(test.labels[5]))
      let layers = try #require(look["layers"] as? [[String: Any]])
      let last = try #require(Data(base64Encoded: layers[6]["output"] as? String ?? ""))
      #expect(layers.count == 7 && last.count == 40)
      #expect(!(look["paths"] as? [Any] ?? []).isEmpty)
      let why = served.fields(
        "provenance",
        "{\"input\":{\"test\":5},\"layer\":3,\"at\":[4,5,6],\"kernels\":\"\(kernels)\"}")
      #expect(why["agrees"] as? Bool == true && (why["terms"] as? [Any])?.count == 144)
    }
    // A training image is its own nearest one.
    let near = served.ask("nearest", "{\"input\":{\"train\":7}}").answer as? [[String: Any]]
    #expect(near?.first?["index"] as? Int == 7 && near?.first?["distance"] as? Double == 0)
    let wrong = served.fields("wrong")
    let metrics = try network.metrics(test)
    #expect(wrong["count"] as? Int == Int((metrics.ce * Double(test.count)).rounded()))
  }

  /// The way back from what an image should have been, a step down it, and undone.
  @Test func gradientsAndSteps() throws {
    let served = try Served()
    let network = Network.digits()
    let question = "{\"input\":{\"test\":5},\"label\":3,\"learning_rate\":0.01}"
    var batch = try Dataset.load("sample").test.batch([5])
    batch.labels = [3]
    let trace = try network.trace(batch)
    let back = served.fields("gradients", question)
    #expect(abs((back["loss"] as? Double ?? 0) - Double(trace.loss!)) < 1e-4)
    let layers = try #require(back["layers"] as? [String])
    for (found, layer) in zip(layers, trace.layers) {
      let expected = layer.gradient!.values.withUnsafeBytes { Data($0) }
      #expect(Data(base64Encoded: found) == expected, "\(layer.text)")
    }
    #expect(layers.count == 7 && (back["input"] as? String)?.count == 4 * ((4 * 784 + 2) / 3))

    #expect(served.fields("step", question)["steps"] as? Int == 1)
    #expect(served.fields("step", question)["steps"] as? Int == 2)
    for _ in 0..<2 { try network.train(batch, learningRate: 0.01) }
    let less = try #require(served.fields("gradients", question)["loss"] as? Double)
    #expect(abs(less - Double(try network.trace(batch).loss!)) < 1e-4)
    #expect(less < Double(trace.loss!))
    #expect(served.fields("state")["is_original"] as? Bool == false)
    #expect(served.fields("undo")["steps"] as? Int == 1)
    #expect(served.fields("undo")["steps"] as? Int == 0)
    #expect(served.fields("undo")["steps"] as? Int == 0)
    #expect(served.fields("state")["is_original"] as? Bool == true)
  }

  /// A drawing is centred as MNIST's makers did; an empty one is no digit, and no harm.
  @Test func drawings() throws {
    let served = try Served()
    var pixels = [UInt8](repeating: 0, count: 100 * 100)
    for y in 10..<60 { for x in 70..<78 { pixels[y * 100 + x] = 255 } }
    func question(_ pixels: [UInt8]) -> String {
      let text = Data(pixels).base64EncodedString()
      return "{\"input\":{\"drawing\":{\"width\":100,\"height\":100,\"pixels\":\"\(text)\"}}}"
    }
    let look = served.fields("look", question(pixels))
    let probabilities = try #require(look["probabilities"] as? [Double])
    #expect(probabilities.firstIndex(of: probabilities.max()!) == 1)
    let empty = served.ask("look", question([UInt8](repeating: 0, count: 10_000)))
    #expect(empty.code == 400)
  }

  @Test func training() throws {
    let served = try Served()
    let begin = served.ask(
      "train", "{\"layers\":\"flatten softmax(10)\",\"epochs\":200,\"learning_rate\":0.01}")
    #expect(begin.code == 200)
    #expect(served.ask("train").code == 400)  // one at a time
    func wait(_ holds: ([String: Any]) -> Bool) throws -> [String: Any] {
      for _ in 0..<600 {
        let now = served.fields("training")
        if holds(now) { return now }
        Thread.sleep(forTimeInterval: 0.05)
      }
      Issue.record("never")
      throw CancellationError()
    }
    let points = try wait { ($0["points"] as? [Any])?.count ?? 0 > 2 }
    #expect(points["is_running"] as? Bool == true)
    // What is shown is the network in training.
    #expect(served.fields("state")["network"] as? String == "flatten softmax(10)")
    let look = served.fields("look", "{\"input\":{\"test\":0}}")
    #expect((look["layers"] as? [Any])?.count == 2 && look["weights"] as? Int ?? 0 > 1)
    #expect(served.ask("stop").code == 200)
    _ = try wait { $0["is_running"] as? Bool == false }
    let back = served.fields("reset")
    #expect(back["is_original"] as? Bool == true)
    // What can't be learned is said.
    _ = served.ask(
      "train",
      "{\"layers\":\"flatten relu(8) relu(8) softmax(10)\",\"epochs\":3,\"learning_rate\":1e30}")
    let end = try wait { $0["is_running"] as? Bool == false }
    #expect((end["failure"] as? String)?.contains("diverged") == true)
  }

  /// Another tab's training and another start of the server change the network under a page: what it
  /// asks of the one that it shows isn't answered by another.
  @Test func aQuestionIsOfOneNetwork() throws {
    let served = try Served()
    func version(_ served: Served) throws -> String {
      try #require(served.fields("state")["version"] as? String)
    }
    let first = try version(served)
    func look(_ version: String, _ served: Served) -> Int {
      served.ask("look", "{\"input\":{\"test\":5},\"version\":\"\(version)\"}").code
    }
    #expect(try look(first, served) == 200 && version(served) == first)
    _ = served.ask("train", "{\"layers\":\"flatten softmax(10)\",\"version\":\"\(first)\"}")
    let second = try version(served)
    #expect(second != first && look(second, served) == 200)
    let stale = "\"version\":\"\(first)\""
    for (name, question) in [
      ("look", "\"input\":{\"test\":5}"), ("nearest", "\"input\":{\"test\":5}"),
      ("provenance", "\"input\":{\"test\":5},\"layer\":1,\"at\":[0,0,0]"), ("wrong", "\"a\":1"),
      ("weights", "\"layer\":1"), ("training", "\"since\":0"), ("train", "\"epochs\":1"),
      ("stop", "\"a\":1"),
      ("reset", "\"a\":1"),
    ] {
      let end = served.ask(name, "{\(question),\(stale)}")
      #expect(end.code == 409, "\(name)")
      #expect((end.answer as? [String: Any])?["expected"] as? String == second)
    }
    #expect(try look(first, Served()) == 409)
  }

  /// What is only a part says of how much.
  @Test func partsSayOfHowMuch() throws {
    let served = try Served()
    let state = served.fields("state")
    #expect(state["nearest_among"] as? Int == 10_000 && state["train_images"] as? Int == 10_000)
    #expect(state["filter_count"] as? Int == 16)
    _ = served.ask("train", "{\"layers\":\"flatten relu(100) softmax(10)\",\"epochs\":1}")
    let dense = served.fields("state")
    #expect((dense["filter_shape"] as? [Int])?[0] == 64 && dense["filter_count"] as? Int == 100)
    _ = served.ask("reset")
    // Every candidate of a maximum is there, the chosen one marked; and nothing is left of no terms.
    let pool = served.fields("provenance", "{\"input\":{\"test\":5},\"layer\":2,\"at\":[4,5,6]}")
    let terms = try #require(pool["terms"] as? [[String: Any]])
    #expect(pool["kind"] as? String == "largest" && terms.count == 4)
    let chosen = terms.filter { $0["factor"] as? Double == 1 }
    #expect(chosen.count == 1 && chosen[0]["value"] as? Double == pool["kernel"] as? Double)
    for at in ["[0,0,0]", "[4,5,6]"] {
      let sum = served.fields("provenance", "{\"input\":{\"test\":5},\"layer\":3,\"at\":\(at)}")
      #expect(sum["others"] as? Int == 0 && sum["rest"] as? Double == 0)
    }
  }

  // MARK: Many at once

  /// Without a free descriptor somebody has to wait; nothing ends, and it is said once.
  @Test func descriptorsRunOut() throws {
    let served = try Served(shell: ["/bin/sh", "-c", "ulimit -n 24; exec \"$0\" \"$@\""])
    let idle = (0..<60).map { _ in served.connected() }
    for _ in 0..<5 { #expect(served.ask("look", "{\"input\":{\"test\":0}}").code == 200) }
    for client in idle { close(client) }
    #expect(served.get("/").hasPrefix("HTTP/1.1 200"))
    served.process.send(SIGKILL)
    let complaints = served.process.end().err.components(separatedBy: "no room for another")
    #expect(complaints.count == 2)
  }

  /// A training is over when it is: stopping and beginning anew doesn't leave others behind.
  @Test func onlyOneTraining() throws {
    let served = try Served()
    for _ in 0..<20 {
      let end = served.ask("train", "{\"layers\":\"flatten softmax(10)\",\"epochs\":1000}")
      #expect(end.code == 200, "\(end)")
      #expect(served.fields("reset")["is_original"] as? Bool == true)
    }
    // What the last one learned isn't shown any more.
    Thread.sleep(forTimeInterval: 0.2)
    #expect(served.fields("state")["is_original"] as? Bool == true)
  }

  /// A hundred at once, beside others that never finish their request.
  @Test func aHundredClients() throws {
    let served = try Served()
    let slow = (0..<50).map { _ in served.connected() }
    for client in slow { _ = "GET / HT".withCString { send(client, $0, 8, Int32(MSG_NOSIGNAL)) } }
    let codes = Mutex<[Int]>([])
    // Threads of their own: the concurrent queue has few.
    let group = DispatchGroup()
    nonisolated(unsafe) let server = served
    for i in 0..<100 {
      group.enter()
      Thread.detachNewThread {
        let code = server.ask("look", "{\"input\":{\"test\":\(i)}}").code
        codes.withLock { $0.append(code) }
        group.leave()
      }
    }
    #expect(group.wait(timeout: .now() + 60) == .success)
    #expect(codes.withLock { $0 } == [Int](repeating: 200, count: 100))
    for client in slow { close(client) }
  }
}
