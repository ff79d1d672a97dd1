import StrideNet

/// The plots of `stridenet bench`.
extension Plot {
  /// Kernels under the roofs that the processor and its memory make (Williams et al. 2009).
  static func roofline(_ peak: Roofline, _ timings: [KernelTiming]) -> Plot {
    let timings = timings.filter { $0.gigaflopsPerSecond > 0 }
    let rates = timings.map(\.gigaflopsPerSecond)
    let x = Axis.logarithmic(
      "arithmetic intensity: FLOP a byte, were inputs and outputs moved once",
      [1] + timings.map(\.intensity))
    // Room below for the shapes' names.
    let lowest = (rates.min() ?? 1) / 6
    let y = Axis.logarithmic("GFLOP/s", [lowest, peak.allThreads.gigaflopsPerSecond * 1.2])

    var plot = Plot(
      title: "Roofline: kernels on one thread, \(KernelChoice.instructionSet)",
      subtitle: "roofs as measured in the same run; each dot a kernel on the shape named below it",
      x: x, y: y, isWide: true)
    plot.lines = roofs(peak, from: (x.low, y.low), to: x.high)
    // Fast ones last, on top.
    for t in timings.sorted(by: { $0.shareOfPeak < $1.shareOfPeak }) {
      plot.dots.append(
        Dot(
          x: t.intensity, y: t.gigaflopsPerSecond, colour: colour(t.variant),
          marker: marker(t.operation),
          title: "\(t.kernel), \(t.shape): \(t.gigaflopsPerSecond.fixed(1)) GFLOP/s"))
    }
    var seen: Set<String> = []
    for t in timings where seen.insert(t.shape).inserted {
      let name = String(t.shape.prefix { $0 != ":" })
      let bottom = timings.filter { $0.shape == t.shape }.map(\.gigaflopsPerSecond).min()!
      plot.feet.append(Foot(x: t.intensity, lowestY: bottom, text: name))
    }
    plot.keys = keys(timings)
    return plot
  }

  // A variant's colour and an operation's marker, also in the keys.
  private static func colour(_ variant: String) -> String {
    let order = KernelChoice.convolutions.map(\.name) + ["packed", "unpacked"]
    return palette[(order.firstIndex(of: variant) ?? order.count) % palette.count]
  }
  private static let operations = [
    "conv_forward", "conv_input_gradient", "conv_weight_gradient", "gemm",
  ]
  /// What isn't in the list is a product too: dense_forward.
  private static func marker(_ operation: String) -> Marker {
    Marker.allCases[operations.firstIndex(of: operation) ?? 3]
  }

  /// The roofs of one thread and of all, within the axes.
  private static func roofs(
    _ peak: Roofline, from low: (x: Double, y: Double), to high: Double
  ) -> [Line] {
    let (one, all) = (peak.oneThread, peak.allThreads)
    var lines: [Line] = []
    func label(_ roof: Roofline.Roof, _ what: String, _ value: Double, _ unit: String) -> String {
      "\(what), \(roof.threads.threads): \(value.fixed(0)) \(unit)"
    }
    for roof in all.threads == 1 ? [one] : [one, all] {
      let isOne = roof.threads == 1
      let (colour, dashes) = isOne ? (ink, "") : (soft, "7 4")
      let rate = roof.gigaflopsPerSecond
      let start = max(low.x, low.y / roof.memory)
      lines += [
        Line(
          points: [(start, start * roof.memory), (rate / roof.memory, rate)], colour: colour,
          dashes: dashes, label: label(roof, "memory", roof.memory, "GB/s"), isLabelBelow: isOne),
        Line(
          points: [(rate / roof.memory, rate), (high, rate)], colour: colour, dashes: dashes,
          label: label(roof, "multiply-adds", rate, "GFLOP/s")),
      ]
    }
    // Data that a cache holds may go higher than memory, up to here.
    let ridge = one.gigaflopsPerSecond / one.cacheCopy
    if ridge > low.x {
      lines.append(
        Line(
          points: [
            (low.x, low.x * one.cacheCopy), (ridge, one.gigaflopsPerSecond),
            (one.gigaflopsPerSecond / one.memory, one.gigaflopsPerSecond),
          ], colour: soft, dashes: "2 3",
          label: label(one, "cache", one.cacheCopy, "GB/s")))
    }
    return lines
  }

  private static func keys(_ timings: [KernelTiming]) -> [Key] {
    let variants = timings.reduce(into: [String]()) { list, timing in
      if !list.contains(timing.variant) { list.append(timing.variant) }
    }
    var keys = variants.filter { !$0.hasSuffix("packed") }.map {
      Key(text: $0, colour: colour($0), marker: .circle)
    }
    keys.append(Key(text: "", colour: "", marker: nil))
    for (operation, text) in zip(operations, ["forward", "input gradient", "weight gradient"]) {
      keys.append(Key(text: text, colour: soft, marker: marker(operation)))
    }
    for (variant, text) in [("packed", "matrix product"), ("unpacked", "dense forward")] {
      keys.append(Key(text: text, colour: colour(variant), marker: marker("gemm")))
    }
    return keys
  }

  /// Time an image over a size; for the mini-batch also memory.
  static func scaling(_ series: ScalingBench, _ timings: [ScalingBench.Timing]) -> [Plot] {
    let x = Axis.logarithmic(
      series.heading, at: timings.map { (Double($0.value), series.label($0.value)) })
    let times = timings.map { (x: Double($0.value), y: $0.microsecondsPerImage) }
    let title = "Training: time an image over \(series.title)"
    if series.over != .batch {
      // What would be proportional to the largest.
      let last = times.last!
      let straight = times.map { (x: $0.x, y: last.y * $0.x / last.x) }
      return [
        Plot(
          title: title, subtitle: "dashed: in proportion", x: x,
          y: .logarithmic("µs an image", (times + straight).map(\.y)),
          lines: [
            Line(points: straight, colour: soft, dashes: "6 4"),
            Line(points: times, colour: palette[2], hasDots: true),
          ])
      ]
    }
    let memory = timings.compactMap { t in
      t.memory.map { (x: Double(t.value), y: Double($0) / 1e6) }
    }
    let time = Plot(
      title: title, subtitle: "CNN", x: x, y: .linear("µs an image", times.map(\.y)),
      lines: [Line(points: times, colour: palette[2], hasDots: true)])
    guard memory.count > 1 else { return [time] }
    return [
      time,
      Plot(
        title: "Training: memory over \(series.title)",
        subtitle: "CNN: weights, activations, gradients and the mini-batch", x: x,
        y: .logarithmic("MB", memory.map(\.y)),
        lines: [Line(points: memory, colour: palette[3], hasDots: true)]),
    ]
  }
}

extension ScalingBench {
  var title: String {
    switch over {
    case .batch: "mini-batch"
    case .filters: "filters"
    case .pixels: "image size"
    }
  }

  var heading: String {
    switch over {
    case .batch: "images a step"
    case .filters: "filters"
    case .pixels: "pixels"
    }
  }

  /// An image by its sides.
  func label(_ value: Int) -> String {
    guard over == .pixels else { return "\(value)" }
    let side = Int(Double(value).squareRoot())
    return "\(side)×\(side)"
  }
}
