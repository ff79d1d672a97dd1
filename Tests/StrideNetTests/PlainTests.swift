import Testing

import StrideNet

/// The example that trains without the library's layers, held to them.
@Suite struct PlainTests {
  /// Five mini-batches and a smaller one. Sums are the same but for their order, so the losses differ
  /// by rounding alone: with seeds from 1 to 8 by no more than 1.1e-6 of themselves.
  @Test func trainsAsTheLibraryDoes() throws {
    let (digits, seed, bound) = (5 * 64 + 16, 3 as UInt64, 5e-6 as Float)
    let place = try Workplace()
    let end = try place.run(
      ["\(digits)", "\(seed)"], shell: ["/bin/sh", "-c", "shift; exec \"$EXAMPLE\" \"$@\"", "sh"],
      environment: ["EXAMPLE": Workplace.built("Plain")])
    try #require(end.code == 0, "\(end.err)")
    let losses = end.out.matches(of: /(?m)^step (\d+): loss (\S+)$/)
    try #require(losses.map { Int($0.1) } == [1, 2, 3, 4, 5, 6], "\(end.out)")

    let data = try NetworkTests.sample.get()
    let network = Network(try Architecture.layers(Architecture.presets[0].text), seed: seed)
    for (step, start) in stride(from: 0, to: digits, by: 64).enumerated() {
      let batch = data.train.batch(start..<min(start + 64, digits))
      let loss = try network.train(batch, learningRate: 0.05, momentum: 0.9).cce
      let found = try #require(Float(losses[step].2))
      #expect(abs(found - loss) <= bound * loss, "step \(step + 1): \(found), not \(loss)")
    }

    // A logit that is nearly another may come out on the other side of it.
    let test = data.test.prefix(1000)
    let error = try #require(
      end.out.firstMatch(of: /\nclass error on 1000 test digits: (\S+) %\n/).flatMap { Float($0.1) }
    )
    #expect(abs(error / 100 - (try network.evaluate(test).ce)) < 0.0025, "\(error) %")
    #expect(end.out.contains(/\none epoch of 336 digits, [1-9]\d* images a second\n/))
  }
}
