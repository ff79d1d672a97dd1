import Foundation
import Testing

import StrideNet

/// What `stridenet serve` refuses.
extension ServeTests {
  @Test func refusedQuestions() throws {
    let served = try Served()
    for (name, question, message) in [
      ("look", "{", "can't be read"), ("look", "[]", "can't be read"),
      ("look", "{\"input\":{}}", "no image"),
      ("look", "{\"input\":{\"test\":10000}}", "no image of that number"),
      ("look", "{\"input\":{\"test\":-1}}", "no image of that number"),
      ("look", "{\"input\":{\"test\":0,\"train\":0}}", "no image"),
      ("look", "{\"input\":{\"values\":\"AAAA\"}}", "aren't an image"),
      (
        "look", "{\"input\":{\"drawing\":{\"width\":9,\"height\":9,\"pixels\":\"AAAA\"}}}",
        "drawing"
      ),
      ("look", "{\"input\":{\"test\":0},\"kernels\":\"x\"}", "no kernel variant"),
      ("look", "{\"input\":{\"test\":0},\"toward\":10}", "no such class"),
      ("provenance", "{\"input\":{\"test\":0},\"layer\":8,\"at\":[0,0,0]}", "no such layer"),
      ("provenance", "{\"input\":{\"test\":0},\"layer\":1,\"at\":[0,26,0]}", "no such place"),
      ("provenance", "{\"input\":{\"test\":0},\"layer\":1,\"at\":[]}", "no place"),
      ("weights", "{\"layer\":0}", "no such layer"),
      ("weights", "{\"layer\":1,\"first\":15,\"count\":2}", "no such filters"),
      ("gradients", "{\"input\":{\"test\":0}}", "can't be read"),
      ("gradients", "{\"input\":{\"test\":0},\"label\":10}", "no such class"),
      ("step", "{\"input\":{\"test\":0},\"label\":0,\"learning_rate\":0}", "learning rate"),
      ("train", "{\"layers\":\"conv(\"}", "no value"),
      ("train", "{\"layers\":\"conv(4000,3) conv(4000,3) flatten softmax(10)\"}", "too large"),
      ("train", "{\"layers\":\"flatten softmax(3)\"}", "label"),
      ("train", "{\"learning_rate\":-1}", "learning rate"), ("train", "{\"epochs\":0}", "epochs"),
      ("train", "{\"epochs\":1001}", "epochs"), ("train", "{\"batch_size\":0}", "batch size"),
      ("train", "{\"optimizer\":\"x\"}", "optimiser"), ("train", "{\"augment\":\"x\"}", "no such"),
    ] {
      let end = served.ask(name, question)
      let text = "\((end.answer as? [String: Any])?["error"] ?? "nothing")"
      #expect(end.code == 400 && text.contains(message), "\(name) \(question): \(end)")
    }
    #expect(served.ask("nothing").code == 404)
    #expect(served.get("/").hasPrefix("HTTP/1.1 200"))  // and it still serves
  }

  @Test func refusedRequests() throws {
    let served = try Served()
    let json = "Content-Type: application/json\r\n"
    func code(_ text: String) -> String { String(text.dropFirst(9).prefix(3)) }
    #expect(code(served.get("/", method: "DELETE")) == "405")
    #expect(code(served.get("/api/state")) == "405")
    #expect(code(served.get("/api/state", method: "POST")) == "415")
    #expect(code(served.get("/api/state", json, method: "POST")) == "411")
    #expect(
      code(served.get("/api/state", "\(json)Content-Length: 999999999999\r\n", method: "POST"))
        == "413")
    #expect(
      code(
        served.get(
          "/api/state", "\(json)Content-Length: 3000000\r\n", method: "POST",
          body: String(repeating: "x", count: 3_000_000))) == "413")
    #expect(
      code(
        served.get(
          "/api/state", "\(json)Origin: http://elsewhere.example\r\nContent-Length: 2\r\n",
          method: "POST", body: "{}")) == "403")
    for text in [
      "GET / HTTP/1.1\r\nHost: elsewhere.example\r\nConnection: close\r\n\r\n",
      "GET / HTTP/1.0\r\nConnection: close\r\n\r\n",
    ] {
      #expect(code(served.exchange(Array(text.utf8))) == "403")
    }
    // What is no HTTP is told so, and does no harm.
    for bytes in [
      Array("nonsense\r\n\r\n".utf8), (0...255).map { UInt8($0) } + [13, 10, 13, 10],
      Array("POST /api/look HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: -4\r\n\r\n".utf8),
      Array("GET / HTTP/1.1\r\nConnection: close\r\n\r\n".utf8),
    ] {
      #expect(code(served.exchange(bytes)) == "400")
    }
    #expect(code(served.get("/")) == "200")
  }

  /// A name that leads to this machine today is nobody's proof of being it: only what can't be
  /// anything else is.
  @Test func otherNamesForThisMachine() throws {
    let served = try Served()
    func code(_ host: String, _ fields: String = "") -> String {
      let text = served.exchange(
        Array("GET / HTTP/1.1\r\nHost: \(host)\r\n\(fields)Connection: close\r\n\r\n".utf8))
      return String(text.dropFirst(9).prefix(3))
    }
    for host in [
      "127.0.0.1", "127.0.0.1:\(served.port)", "127.0.0.1:1", "127.8.9.10", "localhost",
      "LocalHost:80",
    ] {
      #expect(code(host) == "200", "\(host)")
    }
    for host in [
      "127.evil.example", "127.0.0.1.evil.example", "127.0.0.1evil", "127.1", "127.0.0.256",
      "0127.0.0.1", "localhost.evil.example", "localhost.", "notlocalhost", "evil.example", "",
      ":80", "127.0.0.1:", "127.0.0.1:80x", "127.0.0.1:80:80", "127.0.0.1@evil.example", "[::1]",
      "2130706433", "128.0.0.1", "localhost evil.example", "localhost,evil.example",
    ] {
      #expect(code(host) == "403", "\(host)")
    }
    func question(_ fields: String) -> String {
      let text = served.get(
        "/api/state", "Content-Length: 2\r\n\(fields)\r\n", method: "POST", body: "{}")
      return String(text.dropFirst(9).prefix(3))
    }
    let json = "Content-Type: application/json\r\n"
    for fields in [
      "Content-Type: application/json", "Content-Type: Application/JSON;charset=utf-8",
      "Content-Type: application/json ; charset=utf-8",
      "\(json)Origin: http://127.0.0.1:\(served.port)",
      "\(json)Origin: HTTP://127.0.0.1:\(served.port)",
    ] {
      #expect(question(fields) == "200", "\(fields)")
    }
    for fields in [
      "Content-Type: application/jsonp", "Content-Type: text/plain", "Content-Type: application",
      "Content-Type: text/plain; application/json",
    ] {
      #expect(question(fields) == "415", "\(fields)")
    }
    for origin in [
      "null", "http://127.0.0.1", "http://127.0.0.1:\(served.port).evil.example",
      "http://127.0.0.1:\(served.port)/", "https://127.0.0.1:\(served.port)", "http://evil.example",
      "", "http://127.0.0.1:\(served.port)\r\nOrigin: http://evil.example",
    ] {
      #expect(question("\(json)Origin: \(origin)") == "403", "\(origin)")
    }
    let asked = served.get("/api/state", "Origin: http://evil.example\r\n", method: "OPTIONS")
    #expect(asked.hasPrefix("HTTP/1.1 405") && asked.contains("Allow: POST\r\n"))
  }

  /// Numbers that no sum or product holds, in every place where one is read.
  @Test func numbersAtTheEdges() throws {
    let served = try Served()
    let numbers = [
      "-9223372036854775808", "9223372036854775807", "-9223372036854775809", "1e300", "-1",
      "18446744073709551615", "2147483648", "-2147483649", "1.5", "-0", "1e-400",
    ]
    for number in numbers {
      for (name, question) in [
        ("look", "{\"input\":{\"test\":#}}"), ("look", "{\"input\":{\"train\":#}}"),
        ("look", "{\"input\":{\"test\":0},\"toward\":#}"),
        ("look", "{\"input\":{\"drawing\":{\"width\":#,\"height\":#,\"pixels\":\"AAAA\"}}}"),
        ("look", "{\"input\":{\"drawing\":{\"width\":1,\"height\":#,\"pixels\":\"AAAA\"}}}"),
        ("provenance", "{\"input\":{\"test\":0},\"layer\":#,\"at\":[0,0,0]}"),
        ("provenance", "{\"input\":{\"test\":0},\"layer\":1,\"at\":[#,#,#]}"),
        ("provenance", "{\"input\":{\"test\":0},\"layer\":7,\"at\":[0,0,#]}"),
        ("weights", "{\"layer\":#}"), ("weights", "{\"layer\":1,\"first\":#,\"count\":#}"),
        ("gradients", "{\"input\":{\"test\":0},\"label\":#}"),
        ("step", "{\"input\":{\"test\":0},\"label\":0,\"learning_rate\":#}"),
        ("nearest", "{\"input\":{\"test\":#}}"), ("training", "{\"since\":#}"),
      ] {
        let code = served.ask(name, question.replacing("#", with: number)).code
        // No number is wrong for `since`, as far as it is one.
        #expect(code == 400 || code == 200, "\(name) \(question) \(number)")
      }
      for name in ["batch_size", "epochs"]
      where !["9223372036854775807", "2147483648"].contains(number) {
        let code = served.ask("train", "{\"\(name)\":\(number)}").code
        #expect(code == 400, "\(name) \(number)")
      }
      #expect(served.ask("train", "{\"batch_size\":\(number),\"epochs\":\(number)}").code == 400)
      for layers in [
        "conv(#,3) flatten softmax(10)", "conv(1,#) flatten softmax(10)",
        "conv(1,3,stride=#) flatten softmax(10)", "conv(1,3,padding=#) flatten softmax(10)",
        "conv(1,3,dilation=#) flatten softmax(10)", "conv(1,3,groups=#) flatten softmax(10)",
        "maxpool(#) flatten softmax(10)", "flatten softmax(#)", "dropout(#) flatten softmax(10)",
        "batchnorm(momentum=#) flatten softmax(10)",
      ] where number != "1.5" {
        let question = "{\"layers\":\"\(layers.replacing("#", with: number))\",\"epochs\":0}"
        #expect(served.ask("train", question).code == 400, "\(layers) \(number)")
      }
    }
    // The largest that a layer's own limits let pass.
    for layers in [
      "conv(1,4096,padding=4095) flatten softmax(10)", "conv(16777216,1) globalavgpool softmax(10)",
      "conv(1,28x28,padding=same,dilation=16777216)", "conv(128,1) conv(16777216,1,stride=28)",
      "residual(conv(16777216,1,activation=none) batchnorm conv(1,1,activation=none)) flatten softmax(10)",
      String(repeating: "relu(1) ", count: 200_000), String(repeating: "residual(", count: 100_000),
      "flatten relu(16777216) relu(16777216) softmax(10)",
    ] {
      let end = served.ask("train", "{\"layers\":\"\(layers)\"}")
      #expect(end.code == 400, "\(layers.prefix(80)): \(end)")
    }
    // A step may have been as large as a number can be.
    #expect(served.ask("reset").code == 200)
    #expect(served.ask("look", "{\"input\":{\"test\":0}}").code == 200)
    if let peak = served.process.peakMemory { #expect(peak < 1_000_000_000, "\(peak)") }
  }

  /// What needs more memory than there is to be is refused with both numbers, or done in parts; and
  /// what was admitted stays within it.
  @Test(
    arguments: [
      "conv(4000,1) flatten softmax(10)", "flatten relu(20000) softmax(10)",
      "residual(conv(1,5,padding=same,activation=none) batchnorm) conv(1000,1,activation=none) batchnorm(activation=gelu) maxpool(2) flatten dropout(0.2) softmax(10)",
    ])
  func memory(_ layers: String) throws {
    func served(_ gigabytes: Double) throws -> Served {
      try Served(
        ["tiny.safetensors", "--data", "digits", "--threads", "2", "--memory", "\(gigabytes)"],
        prepare: { try $0.writeWeights("tiny.safetensors") })
    }
    let question =
      "{\"layers\":\"\(layers)\",\"epochs\":2,\"batch_size\":64,\"optimizer\":\"adam\"}"
    let poor = try served(0.15)
    let refused = poor.fields("train", question)
    #expect("\(refused["error"] ?? "")".contains("too large"), "\(refused)")
    func number(_ text: Any?) throws -> Double {
      let match = try #require("\(text ?? "")".firstMatch(of: /([0-9.]+) GB/))
      return try #require(Double(match.1))
    }
    let (needs, has) = (try number(refused["found"]), try number(refused["expected"]))
    #expect(needs > has)
    #expect(poor.fields("state")["network"] as? String == Workplace.tiny)
    // With just what it was said to need, it is done.
    let limit = 0.15 - has + needs + 0.02
    let rich = try served(limit)
    #expect(rich.ask("train", question).code == 200)
    while rich.fields("training")["is_running"] as? Bool == true {
      Thread.sleep(forTimeInterval: 0.05)
    }
    #expect(rich.fields("training")["failure"] == nil)
    let image = "\"input\":{\"train\":0}"
    #expect(rich.ask("look", "{\(image),\"paths\":false}").code == 200)
    let near = rich.ask("nearest", "{\(image)}").answer as? [[String: Any]]
    #expect(near?.first?["index"] as? Int == 0)
    #expect(rich.fields("wrong")["of"] as? Int == Workplace.testImages)
    // Answered or refused: not more memory taken.
    for kernels in KernelChoice.names {
      for name in ["look", "provenance"] {
        let code = rich.ask(
          name,
          "{\(image),\"kernels\":\"\(kernels)\",\"paths\":false,\"layer\":1,\"at\":[0,0,0]}"
        ).code
        #expect(code == 200 || code == 400)
      }
    }
    if let peak = rich.process.peakMemory {
      #expect(Double(peak) < limit * 1e9, "\(peak) of \(limit)")
    }
  }

  @Test(
    arguments: [
      (["--port", "70000"], 64, "--port out of range"),
      (["--port", "-1"], 64, "--port out of range"),
      (["--threads", "0"], 64, "--threads out of range"),
      (["--memory", "0"], 64, "--memory out of range"),
      (["--memory", "nan"], 64, "--memory out of range"),
      (["--memory", "0.01"], 64, "more than --memory allows"),
      (["--host", "nowhere"], 64, "no address to listen on"),
      (["--host", "192.0.2.1", "--port", "0"], 69, "cannot listen"),
      (["none.safetensors"], 66, "none.safetensors"), (["--data", "digits"], 65, "another size"),
    ] as [([String], Int32, String)])
  func refusedCommands(_ arguments: [String], _ code: Int32, _ message: String) throws {
    let data = arguments.contains("--data") ? [] : ["--data", "sample"]
    let end = try Workplace().run(["serve"] + arguments + data)
    #expect(end.code == code && end.err.contains(message), "\(end.err)")
  }

  @Test func aPortThatIsTaken() throws {
    let served = try Served()
    let end = try Workplace().run(["serve", "--data", "sample", "--port", "\(served.port)"])
    #expect(end.code == 69 && end.err.contains("--port 0"), "\(end.err)")
  }
}
