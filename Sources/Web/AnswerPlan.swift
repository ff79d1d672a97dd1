import StrideNetCore

/// What a text of layers makes of the data's images, layer by layer, without memory for any of it.
extension Workbench {
  struct PlanQuestion: Decodable {
    let layers: String
  }

  struct PlanAnswer: Encodable {
    struct Layer: Encodable {
      let text: String
      let shape: [Int]
      let parameters: Int
    }
    struct Mistake: Encodable {
      /// The layer that doesn't fit, from 0; nil where the text is no list of layers.
      let index: Int?
      let message: String
    }
    /// Those before a mistake.
    var layers: [Layer] = []
    var error: Mistake?
  }

  func plan(_ question: PlanQuestion) -> PlanAnswer {
    var answer = PlanAnswer()
    func note(_ error: any Error, _ index: Int?) {
      guard let error = error as? StrideNetError else { return }
      let parts = [
        error.what, error.found.map { "found: \($0)" }, error.expected.map { "expected: \($0)" },
        error.hint,
      ]
      answer.error = .init(index: index, message: parts.compactMap { $0 }.joined(separator: "; "))
    }
    do {
      guard question.layers.utf8.count <= 10_000 else {
        throw StrideNetError(
          .usage, "a network whose text is too long", found: "\(question.layers.utf8.count) bytes",
          expected: "at most 10,000")
      }
      var shape = data.train.shape
      for (index, layer) in try Architecture.layers(question.layers).enumerated() {
        do {
          let size = try Network.size(ofLayer: layer, for: shape)
          shape = size.output
          answer.layers.append(
            .init(
              text: layer.text, shape: [shape.height, shape.width, shape.channels],
              parameters: size.parameters))
        } catch {
          note(error, index)
          break
        }
      }
    } catch {
      note(error, nil)
    }
    return answer
  }
}
