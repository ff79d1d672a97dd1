import Foundation
import StrideNetCore

/// What a training leaves to be looked at afterwards: its curves, and at some of its steps the first
/// layer's weights, all norms, and what the network makes of one image of each class.
///
///     let record = try TrainingRecord(trainer)
///     trainer.onBatch { try? record.note($0) }
///     trainer.onEpoch { record.note($0) }
package final class TrainingRecord {
  /// The mean over some steps in a row.
  package struct Point: Sendable, Encodable {
    /// The last of them, from 1.
    package let step: Int
    package let loss, classError, learningRate: Float
  }

  /// What one layer makes of the images, in bytes: 0 is `least`, 255 `greatest`.
  package struct Maps: Sendable, Encodable {
    package let least, greatest: Float
    /// Of each image `height` · `width` pixels of some channels, evenly chosen.
    package let height, width, channels: Int
    package let pixels: Data
  }

  /// The first layer's weights, each filter's or output's as a picture: the mean over the channels of
  /// what it looks at, a byte a value, 128 for 0 and 1 or 255 for what is as large as `greatest`.
  package struct Filters: Sendable, Encodable {
    package let greatest: Float
    package let pixels: Data
  }

  /// A look into the network.
  package struct Frame: Sendable, Encodable {
    /// Steps taken so far.
    package let step: Int
    package let filters: Filters
    /// The Euclidean norm of each trained array and of its last gradient.
    package let weightNorms, gradientNorms: [Float]
    package let maps: [Maps]
    /// Of each image, for each class.
    package let probabilities: [[Float]]
  }

  package private(set) var points: [Point] = []
  package private(set) var frames: [Frame] = []
  package private(set) var epochs: [EpochResult]
  /// The names of the trained arrays, in the order of the norms.
  package let arrays: [String]
  /// The shape of ``Frame/filters``: pictures, height and width; empty where neither a convolution nor
  /// a dense layer comes first. How many filters or outputs there are, and over how many channels each
  /// picture is the mean.
  package let filterShape: [Int]
  package let filterCount, filterDepth: Int
  /// The images that are followed: the test set's first of each class, or of as many as there is room
  /// for.
  package let images: Batch
  package let classesThere: Int

  private let trainer: Trainer
  private let size: Int
  // Steps a point, and steps at which to look; steps until then and sums over them.
  private let stepsAPoint: Int
  private var looks: [Int]
  private var sums = (loss: Float(0), error: Float(0), count: 0)

  /// - Parameters:
  ///   - trainer: before it runs
  ///   - frames: looks into the network, more of them at the beginning, when most changes
  ///   - size: bytes that all of it is to take as text
  package init(_ trainer: Trainer, frames: Int = 24, size: Int = 1_500_000) throws {
    self.trainer = trainer
    let (network, test, settings) = (trainer.network, trainer.test, trainer.settings)
    let batches = (trainer.train.count + settings.batchSize - 1) / settings.batchSize
    let steps = settings.epochs * batches
    stepsAPoint = max(1, (steps + 999) / 1000)
    looks = (1..<max(2, frames)).map { i in
      max(1, Int((Double(steps) * pow(Double(i) / Double(max(2, frames) - 1), 1.7)).rounded()))
    }
    // Without classes, the first ones.
    let firsts =
      test.targetCount == nil
      ? (0..<network.classes).compactMap { label in
        (0..<test.count).first { test.label($0) == label }
      }
      : Array(0..<min(test.count, 10))
    classesThere = firsts.count
    // Such that some looks fit, in base64.
    let each = network.shapes.reduce(11 * network.classes) { $0 + Maps.bytes($1) * 4 / 3 }
    images = try test.examples(
      firsts.isEmpty ? [0] : Array(firsts.prefix(max(1, size / 8 / each))))
    arrays = network.trainedArrays.map(\.name)
    let first = network.filterPictures(most: size / 20)
    filterShape = first.map { [$0.pictures.count, $0.height, $0.width] } ?? []
    (filterCount, filterDepth) = (first?.count ?? 0, first?.depth ?? 0)
    self.size = size
    epochs = trainer.results
    try look(at: network.stepCount)
    looks.removeAll { $0 <= network.stepCount }
  }

  /// After each mini-batch.
  package func note(_ progress: BatchProgress) throws {
    sums.loss += progress.cce
    sums.error += progress.ce
    sums.count += 1
    if sums.count == stepsAPoint {
      let count = Float(sums.count)
      points.append(
        Point(
          step: progress.step, loss: sums.loss / count, classError: sums.error / count,
          learningRate: progress.learningRate))
      sums = (0, 0, 0)
    }
    guard let next = looks.first, progress.step >= next else { return }
    looks.removeAll { $0 <= progress.step }
    try look(at: progress.step)
  }

  /// After each epoch.
  package func note(_ result: EpochResult) { epochs.append(result) }

  private func look(at step: Int) throws {
    let network = trainer.network
    let arrays = network.trainedArrays
    let trace = try network.trace(images.images)
    // Of a training that has just gone wrong there is nothing to see.
    guard
      trace.layers.allSatisfy({ $0.output.values.allSatisfy(\.isFinite) }),
      arrays.allSatisfy({ $0.gradients.allSatisfy(\.isFinite) })
    else { return }
    var output = trace.output.copy()
    output.withMutableView { network.targetNormalization?.undo($0.batch, $0.pointer) }
    let classes = output.shape.count
    frames.append(
      Frame(
        step: step,
        filters: Filters(
          network.filterPictures(most: size / 20)?.pictures.joined().map { $0 } ?? []),
        weightNorms: arrays.map { Self.norm($0.values) },
        gradientNorms: arrays.map { Self.norm($0.gradients) },
        maps: Maps.all(trace),
        probabilities: (0..<output.batch).map { n in
          (0..<classes).map { output[n * classes + $0] }
        }))
    // The look's time is nobody's.
    network.times?.skip()
  }

  private static func norm(_ values: UnsafeBufferPointer<Float>) -> Float {
    Float(Kernels.sumOfSquares(values.count, values.baseAddress!).squareRoot())
  }
}

extension TrainingRecord.Filters {
  package init(_ values: [Float]) {
    greatest = values.reduce(0) { max($0, abs($1)) }
    let scale = greatest > 0 ? 127 / Double(greatest) : 0
    pixels = Data(values.map { UInt8(pixel: Float(128 + (Double($0) * scale).rounded())) })
  }
}

extension TrainingRecord.Maps {
  // Bytes a layer may take of one image.
  package static let budget = 6000
  // Channels of an image that are shown, and of a list of numbers.
  private static let mostChannels = (image: 8, list: 256)

  /// Those that a layer's output takes.
  static func bytes(_ shape: Shape) -> Int {
    let isList = shape.height * shape.width == 1
    let most = isList ? mostChannels.list : mostChannels.image
    return min(budget, shape.height * shape.width * min(shape.channels, most))
  }

  package static func all(_ trace: Trace) -> [Self] {
    trace.layers.map { layer in
      let (shape, values) = (layer.output.shape, layer.output.values)
      // Large maps are shown coarser, and not all of their channels.
      var coarse = 1
      while (shape.height / coarse) * (shape.width / coarse) > budget { coarse += 1 }
      let (height, width) = (max(1, shape.height / coarse), max(1, shape.width / coarse))
      let isList = shape.height * shape.width == 1
      let most = isList ? mostChannels.list : mostChannels.image
      let channels = max(1, min(shape.channels, most, budget / (height * width)))
      let (least, greatest) = (values.min()!, values.max()!)
      // In double precision: the difference may be too large for a float.
      let scale = greatest > least ? 255 / (Double(greatest) - Double(least)) : 0
      var pixels: [UInt8] = []
      pixels.reserveCapacity(layer.output.batch * height * width * channels)
      for n in 0..<layer.output.batch {
        for y in 0..<height {
          for x in 0..<width {
            for c in 0..<channels {
              let place =
                ((n * shape.height + y * coarse) * shape.width + x * coarse) * shape.channels
              let value = values[place + c * shape.channels / channels]
              pixels.append(UInt8(pixel: Float((Double(value) - Double(least)) * scale)))
            }
          }
        }
      }
      return Self(
        least: least, greatest: greatest, height: height, width: width, channels: channels,
        pixels: Data(pixels))
    }
  }
}

extension Network {
  /// The trained arrays with their names in files, and their gradients of the last step.
  var trainedArrays:
    [(name: String, values: UnsafeBufferPointer<Float>, gradients: UnsafeBufferPointer<Float>)]
  {
    stages.flatMap(\.parameters).filter(\.isTrained).map { parameter in
      (
        parameter.name, UnsafeBufferPointer(start: parameter.value, count: parameter.count),
        UnsafeBufferPointer(start: parameter.gradient, count: parameter.count)
      )
    }
  }

  /// Each filter of the first layer that learns, or each output's weights, as a picture, of as many as
  /// take at most so many bytes; in all there are `count`, and each is the mean over `depth` channels.
  package func filterPictures(most: Int) -> (
    pictures: [[Float]], height: Int, width: Int, depth: Int, count: Int
  )? {
    guard let (shape, values, count, isDense) = firstFilters else { return nil }
    let (height, width, depth) =
      isDense ? (shape[1], shape[2], shape[3]) : (shape[0], shape[1], shape[2])
    let shown = max(1, min(isDense ? shape[0] : count, most / (height * width)))
    let pictures = (0..<shown).map { f in
      (0..<height * width).map { pixel in
        let sum = (0..<depth).reduce(0.0) { sum, c in
          let place =
            isDense ? (f * height * width + pixel) * depth + c : (pixel * depth + c) * count + f
          return sum + Double(values[place])
        }
        return Float(sum / Double(depth))
      }
    }
    return (pictures, height, width, depth, count)
  }

  /// What the first layer that learns looks for in the image: a convolution's filters (FH, FW, C, F),
  /// or for each of up to 64 outputs of a dense layer its weights in the image's shape
  /// (outputs, H, W, C), and how many there are in all; nil where something else comes first.
  package var firstFilters: (shape: [Int], values: [Float], count: Int, isDense: Bool)? {
    let operations = stages.flatMap(\.operations)
    let place = operations.firstIndex { !$0.parameters.isEmpty || !$0.body.isEmpty }
    guard let place, operations[place].hasWeights, let input else { return nil }
    let first = operations[place]
    let weight = first.parameters[0]
    if case .convolve = first.kind {
      return (weight.shape, weight.values, weight.shape[3], false)
    }
    // Of what a pooling made of the image there may be as many numbers as of the image.
    let isOverImage = operations[..<place].allSatisfy {
      switch $0.kind {
      case .reshape, .drop: true
      default: false
      }
    }
    guard isOverImage else { return nil }
    let outputs = min(64, weight.shape[0])
    return (
      [outputs, input.height, input.width, input.channels],
      Array(UnsafeBufferPointer(start: weight.value, count: outputs * input.count)),
      weight.shape[0], true
    )
  }
}
