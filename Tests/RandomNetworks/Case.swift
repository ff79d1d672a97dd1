import Foundation
import StrideNet

/// A network and what is done with it.
struct Case: Codable {
  /// Of weights, images, labels and what is tried.
  var seed: UInt64
  var layers: String
  var height, width, channels: Int
  /// How the values of the images are.
  var images = Images.noise
  /// Images a training step.
  var batches: [Int]
  /// Images that are evaluated and predicted.
  var evaluated = 3
  var loss = "cross_entropy"
  var optimizer = Optimizer()
  var rate: Float = 0.05
  var averageDecay: Float?
  var kernels = "auto"
  var instructionSet: String
  var threads = 1
  var fusing = true
  /// Of the products.
  var precision = Precision.float32
  /// What multiplies bf16.
  var unit: String?
  /// Through C, which takes a compiler.
  var exportsC = false
  /// Through a trainer, stopped and resumed.
  var resumes = false

  enum Images: String, Codable, CaseIterable {
    /// In ±0.5.
    case noise
    /// 0 to 1 in 255 steps, half of them 0.
    case bytes
    /// Noise around a large number.
    case offset
    /// Large numbers.
    case large
    /// Hardly any.
    case small
    /// All alike, but for a little noise.
    case flat
    /// Noise, and a first pixel that is unlike all others.
    case spike
    /// Whole numbers, the same few again and again.
    case steps
    /// Nothing.
    case zeros
  }

  var input: Size { Size(height: height, width: width, channels: channels) }
  var text: [LayerText] { LayerText.layers(layers) }
  var classes: Int { Geometry.output(text, input)!.size.count }

  /// As an argument of the program.
  var json: String {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    return String(decoding: try! encoder.encode(self), as: UTF8.self)
  }

  /// What comes close to it on the command line.
  var command: String {
    let batch = batches.max() ?? 1
    return "stridenet train --layers '\(layers)' --batch-size \(batch) "
      + (precision == .bf16 ? "--precision bf16 " : "--kernels \(kernels) ")
      + "--threads \(threads) --optimizer \(optimizer.method.rawValue) --loss \(loss)"
  }

  /// The same numbers whenever they are asked for.
  func batch(_ number: Int, of count: Int) -> (images: [Float], labels: [Int32]) {
    var random = Random(seed: seed, stream: UInt64(1000 + number))
    let total = count * input.count
    let level = Float(random.uniform()) * 200 + 1
    var images = [Float](repeating: 0, count: total)
    for i in 0..<total {
      let noise = Float(random.uniform()) - 0.5
      switch self.images {
      case .noise, .spike: images[i] = noise
      case .bytes: images[i] = noise < 0 ? 0 : (noise * 510).rounded(.down) / 255
      case .offset: images[i] = level + noise
      case .large: images[i] = 1e6 * noise
      case .small: images[i] = 1e-6 * noise
      case .flat: images[i] = level / 200 + 1e-3 * noise
      case .steps: images[i] = (noise * 6).rounded()
      case .zeros: break
      }
    }
    if self.images == .spike {
      for n in 0..<count {
        for c in 0..<channels { images[n * input.count + c] = level }
      }
    }
    let classes = self.classes
    return (images, (0..<count).map { _ in Int32(random.whole(0...classes - 1)) })
  }
}

extension Case {
  init(json: String) throws {
    self = try JSONDecoder().decode(Case.self, from: Data(json.utf8))
  }
}
