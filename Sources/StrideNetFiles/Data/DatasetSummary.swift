import Foundation
import StrideNetCore

extension Dataset {
  /// Training, test and validation images, with what they are for.
  package var parts: [(name: String, set: ImageSet)] {
    [("training", train), ("test", test)] + (validation.map { [("validation", $0)] } ?? [])
  }

  /// An image of the test set that is in the training set too.
  package struct Duplicate: Encodable {
    package let test, train: String
    /// Whether it is in two classes.
    package let differs: Bool
  }

  /// Test and validation images that are training images too, by their digests.
  package var duplicates: [Duplicate] {
    var places: [String: Int] = [:]
    for index in (0..<train.count).reversed() { places[train.digest(index)] = index }
    return parts.enumerated().dropFirst().flatMap { part, entry in
      (0..<entry.set.count).compactMap { index in
        places[entry.set.digest(index)].map { place in
          Duplicate(
            test: name(of: index, part), train: name(of: place, 0),
            differs: entry.set.labels[index] != train.labels[place]
              || entry.set.target(index) != train.target(place))
        }
      }
    }
  }

  private func name(of index: Int, _ part: Int) -> String {
    pictureFiles.indices.contains(part)
      ? pictureFiles[part][index] : "\(parts[part].name) image \(index)"
  }
}

extension ImageSet {
  fileprivate func target(_ index: Int) -> [Float]? {
    targetCount.map { count in
      [Float](unsafeUninitializedCapacity: count) { target, done in
        readTarget(index, into: .init(rebasing: target[..<count]))
        done = count
      }
    }
  }

  fileprivate func digest(_ index: Int) -> String {
    var digest = SHA256()
    pixels.withUnsafeBytes {
      digest.update(.init(rebasing: $0[index * imageSize..<(index + 1) * imageSize]))
    }
    return digest.hex
  }
}
