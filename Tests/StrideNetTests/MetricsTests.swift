import Foundation
import Testing

import StrideNet

@Suite struct MetricsTests {
  /// A table of all pairs of classes would take 30 GB.
  @Test func metricsOfManyClasses() throws {
    let network = Network(try Architecture.layers("flatten softmax(60000)"))
    try network.build(for: Shape(1, 1, 1))
    let batch = Batch(images: Tensor(batch: 2, shape: Shape(1, 1, 1)), labels: [59_999, 300])
    let metrics = try network.metrics([batch, batch])
    #expect(metrics.images == 4 && metrics.classes[59_999].images == 2 && metrics.ce > 0)
  }

  @Test func metricsByHand() {
    let m = Metrics(cce: 0.5, confusion: [[3, 1, 0], [0, 4, 0], [1, 1, 0]])
    #expect(m.images == 10 && m.accuracy == 0.7 && abs(m.ce - 0.3) < 1e-12)
    let c = m.classes
    #expect(c.map(\.images) == [4, 4, 2])
    #expect(c[0].precision == 0.75 && c[0].recall == 0.75 && c[0].f1 == 0.75)
    #expect(c[1].precision == 4.0 / 6 && c[1].recall == 1 && c[1].f1 == 0.8)
    #expect(c[2].precision == nil && c[2].recall == 0 && c[2].f1 == 0)
  }

  /// As scikit-learn has them.
  @Test func metricsOfScikitLearn() throws {
    struct Stored: Decodable {
      let accuracy: Double
      let confusion: [[Int]]
      let images: [Int]
      let precision, recall, f1: [Double?]
    }
    let stored = try expectations(Stored.self, "metrics.json")
    let metrics = Metrics(cce: 0, confusion: stored.confusion)
    #expect(abs(metrics.accuracy - stored.accuracy) < 1e-12)
    #expect(metrics.classes.map(\.images) == stored.images)
    #expect(stored.precision.contains(nil))
    for (found, expected) in [
      (metrics.classes.map(\.precision), stored.precision),
      (metrics.classes.map(\.recall), stored.recall), (metrics.classes.map(\.f1), stored.f1),
    ] {
      #expect(found.count == expected.count)
      for (a, b) in zip(found, expected) {
        #expect((a == nil) == (b == nil) && abs((a ?? 0) - (b ?? 0)) < 1e-12)
      }
    }
  }

  @Test func metricsAgreeWithEvaluation() throws {
    let network = try OptimizerTests.flat()
    for batch in try NetworkTests.batches(60, of: 64) {
      try network.train(batch, learningRate: 0.05, momentum: 0.9)
    }
    let test = try NetworkTests.sample.get().test
    let (metrics, (cce, ce)) = (try network.metrics(test), try network.evaluate(test))
    #expect(metrics.cce == cce && abs(Float(metrics.ce) - ce) < 1e-6)
    #expect(metrics.images == test.count && metrics.accuracy > 0.7)
    for label in 0..<10 {
      #expect(metrics.classes[label].images == test.labels.count { $0 == label })
    }
    let some = test.prefix(300)
    let probabilities = try network.predict(some.batch(0..<300).images).values
    var confusion = [[Int]](repeating: [Int](repeating: 0, count: 10), count: 10)
    for i in 0..<300 {
      let row = Array(probabilities[i * 10..<i * 10 + 10])
      confusion[Int(some.labels[i])][row.firstIndex(of: row.max()!)!] += 1
    }
    #expect(try network.metrics(some).confusion == confusion)
  }
}
