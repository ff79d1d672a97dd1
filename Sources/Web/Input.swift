import Foundation
import StrideNetCore

/// Images that questions are about.
extension Workbench {
  /// An image: drawn, from the data, or as the network sees it.
  package struct Input: Decodable {
    struct Drawing: Decodable {
      let width, height: Int
      /// A byte a pixel, row by row.
      let pixels: Data
    }
    var drawing: Drawing?
    var test: Int?
    var train: Int?
    var values: Data?
  }

  func image(_ input: Input) throws -> (x: Tensor, label: Int?) {
    let shape = data.train.shape
    func pick(_ index: Int, _ set: ImageSet) throws -> (Tensor, Int?) {
      guard (0..<set.count).contains(index) else {
        throw StrideNetError(
          .usage, "no image of that number", found: "\(index)", expected: "0 … \(set.count - 1)")
      }
      let batch = set.batch([index])
      return (batch.images, Int(batch.labels[0]))
    }
    switch (input.drawing, input.test, input.train, input.values) {
    case (let drawing?, nil, nil, nil):
      guard (1...1024).contains(drawing.width), (1...1024).contains(drawing.height),
        drawing.pixels.count == drawing.width * drawing.height
      else {
        throw StrideNetError(
          .badData, "a drawing that isn't one", found: "\(drawing.pixels.count) pixels",
          expected: "width × height bytes, each of them 1 … 1024")
      }
      let picture = Picture(
        height: drawing.height, width: drawing.width, channels: 1, pixels: Array(drawing.pixels))
      return (try picture.input(of: shape, shape.channels == 1 ? fit : drawingFit), nil)
    case (nil, let index?, nil, nil): return try pick(index, data.test)
    case (nil, nil, let index?, nil): return try pick(index, data.train)
    case (nil, nil, nil, let values?):
      let floats = values.floats
      guard floats.count == shape.count, values.count % 4 == 0, floats.allSatisfy(\.isFinite) else {
        throw StrideNetError(
          .badData, "values that aren't an image", found: "\(values.count) bytes",
          expected: "\(shape.count) finite floats")
      }
      return (try Tensor(batch: 1, shape: shape, floats), nil)
    default:
      throw StrideNetError(
        .usage, "no image", expected: "one of drawing, test, train and values")
    }
  }

  /// How drawings, which are grey, become images.
  var drawingFit: Picture.Fit { fit ?? (data.train.shape.channels == 1 ? .digits : .crop) }

  func pixels(_ index: Int, _ set: ImageSet) -> Data {
    let size = set.height * set.width * set.channels
    return Data(set.pixels[index * size..<(index + 1) * size])
  }
}

extension Data {
  fileprivate var floats: [Float] {
    (0..<count / 4).map { i in
      var value: UInt32 = 0
      for k in 0..<4 { value |= UInt32(self[startIndex + 4 * i + k]) << UInt32(8 * k) }
      return Float(bitPattern: value)
    }
  }
}
