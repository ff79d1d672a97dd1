import Foundation
import StrideNetCore
import StrideNetLaboratory

/// What there is: the network, its layers and first filters, the data, the choices.
extension Workbench {
  struct State: Encodable {
    struct LayerState: Encodable {
      let text: String
      let shape: [Int]
      let parameters: Int
      /// Of convolutions and poolings, the stride groups along each axis, the window and its steps, the
      /// zeros before the input and how far a window's elements are apart.
      let groups, window, stride, start, dilation: [Int]?
    }
    /// Questions that have it are answered by this network or not at all.
    let version: String
    let network: String
    let parameters: Int
    let input: [Int]
    let layers: [LayerState]
    let classes, kernels: [String]
    /// Whether the outputs are probabilities, not just numbers.
    let has_probabilities: Bool
    let kernel, isa, data: String
    /// How drawings become images.
    let fit: Picture.Fit
    let train_images, test_images: Int
    let presets: [String: String]
    let is_original, is_training: Bool
    /// Of a dense first layer's outputs those of up to 64 are there; of how many.
    let filters: Data
    let filter_shape: [Int]
    let filter_count: Int
    /// Among how many training images the nearest are sought: the first ones.
    let nearest_among: Int
  }

  func state() throws -> State {
    let network = try network(besides: filterBytes())
    let shape = network.input!
    let filters = network.firstFilters
    return State(
      version: version, network: text, parameters: network.parameterCount,
      input: [shape.height, shape.width, shape.channels],
      layers: try network.summary().layers.map { layer in
        let windows = network.strideGroups(layer: layer.number - 1)
        return State.LayerState(
          text: layer.text,
          shape: [layer.output.height, layer.output.width, layer.output.channels],
          parameters: layer.parameters,
          groups: windows.map { [$0.groups.rows, $0.groups.columns] },
          window: windows.map { [$0.window.height, $0.window.width] },
          stride: windows.map { [$0.stride.height, $0.stride.width] },
          start: windows.map { [$0.start.top, $0.start.left] },
          dilation: windows.map { [$0.dilation.height, $0.dilation.width] })
      },
      classes: classNames(network.classes), kernels: KernelChoice.names,
      has_probabilities: network.endsInSoftmax,
      kernel: KernelChoice.bound.name, isa: KernelChoice.instructionSet, data: data.source,
      fit: drawingFit,
      train_images: data.train.count, test_images: data.test.count, presets: presets,
      is_original: text == original.text && weights == original.weights,
      is_training: session?.isRunning ?? false,
      filters: filters?.values.data ?? Data(), filter_shape: filters?.shape ?? [],
      filter_count: filters?.count ?? 0, nearest_among: min(Self.mostCompared, data.train.count))
  }

  /// What an answer with the first layer's weights takes.
  func filterBytes() throws -> Double {
    Self.bytesAnAnswer * (try need(KernelChoice.bound.name).firstWeights) + 8e6
  }
}

extension [Float] {
  var data: Data { withUnsafeBytes { Data($0) } }
}
