import StrideNetCore

/// Where the time of training steps went, pass by pass, and how far that is from what the machine
/// can do: `stridenet train --profile`.
package struct Explanation: Sendable {
  /// A pass of a layer, or something else that every step does.
  package struct Row: Sendable {
    /// The layer's number, from 1; of layers that run together those of both, as "1+2"; else "".
    package let number: String
    /// The layer's text, or what else was worked on: "images", "loss", "weights".
    package let name: String
    package let pass: String
    /// The C symbol without its prefix, as in the benchmark and in `perf report`.
    package let kernel: String
    /// Why that kernel.
    package let why: String
    /// Floating-point operations a step, two a multiply-add; 0 where few are among what is moved.
    package let operations: Double
    /// Bytes that a step can't help reading and writing: inputs, outputs and weights, once each.
    /// What lies between layers that run together stays in a cache and isn't counted.
    package let bytes: Double
    /// Seconds a step at the roof: operations at the peak rate or bytes at memory's, whichever
    /// takes longer. Data that a cache holds may take less.
    package let predicted: Double
    /// Seconds a step, the mean over all steps.
    package let measured: Double
    /// The measured share of the peak rate of operations.
    package let shareOfPeak: Double
  }

  /// In the order in which a step does them.
  package let rows: [Row]
  /// The sums over the rows.
  package let total: Row
  package let steps: Int
  /// Images a step, the mean: an epoch's last step may have fewer.
  package let images: Double
  /// The share of the time between the first step's start and the last one's end, evaluations not
  /// counted, that the rows account for.
  package let accounted: Double
  package let roof: Roofline.Roof

  /// What is to be said of the shares of the peak.
  package var notes: [String] { Roofline.notes(rows.map { ($0.kernel, $0.shareOfPeak) }) }
}

extension Network {
  /// What the steps since ``timePasses()`` did; nil if there were none.
  /// - Parameter roof: of as many threads as the network works with
  package func explanation(_ roof: Roofline.Roof) -> Explanation? {
    guard let times, times.steps > 0, let input, let plan else { return nil }
    var explainer = Explainer(self, plan, times, roof)
    explainer.addStep(of: input)
    return explainer.explanation
  }

  fileprivate func text(ofOperation index: Int) -> String {
    layers[place(ofOperation: index).layer].text
  }

  /// "2", or of a layer of several operations "2.1".
  fileprivate func number(ofOperation index: Int) -> String {
    let (layer, number) = place(ofOperation: index)
    return stages[layer].operations.count == 1 ? "\(layer + 1)" : "\(layer + 1).\(number + 1)"
  }
}

/// Makes the rows of an ``Explanation``.
private struct Explainer {
  let network: Network
  let plan: Plan
  let times: PassTimes
  let roof: Roofline.Roof
  // A step, and operations a second.
  let images, peak: Double
  var rows: [Explanation.Row] = []

  init(_ network: Network, _ plan: Plan, _ times: PassTimes, _ roof: Roofline.Roof) {
    (self.network, self.plan, self.times, self.roof) = (network, plan, times, roof)
    images = Double(times.images) / Double(times.steps)
    peak = roof.gigaflopsPerSecond * 1e9
  }

  var explanation: Explanation {
    func sum(_ value: (Explanation.Row) -> Double) -> Double { rows.reduce(0) { $0 + value($1) } }
    let (operations, measured) = (sum(\.operations), sum(\.measured))
    let total = Explanation.Row(
      number: "", name: "total", pass: "", kernel: "", why: "", operations: operations,
      bytes: sum(\.bytes), predicted: sum(\.predicted), measured: measured,
      shareOfPeak: operations / measured / peak)
    return Explanation(
      rows: rows, total: total, steps: times.steps, images: images,
      accounted: measured / times.mean, roof: roof)
  }

  /// Whatever a step does.
  mutating func addStep(of input: Shape) {
    // Bytes that become floats; a trainer does that.
    if times.mean(.gather) > 0 {
      add(
        "images", "gather", kernel: "scale_bytes", bytes: images * Double(5 * input.count), .gather)
    }
    for step in plan.steps {
      for index in step.first...step.last { add(.forward, of: index, in: step) }
    }
    // Logits read, probabilities and gradients written.
    add(
      "loss", "forward, gradient", kernel: network.loss.kernel,
      bytes: images * Double(12 * network.classes), .loss)
    for step in plan.steps.reversed() {
      for index in (step.first...step.last).reversed() {
        for pass in [LayerPass.activationGradient, .weightGradient, .inputGradient, .backward] {
          add(pass, of: index, in: step)
        }
      }
    }
    // Weights and velocities read and written, gradients read; dense layers have done theirs.
    let rest = plan.steps.filter { !$0.node.updatesInBackward }.flatMap(\.parameters)
    if !rest.isEmpty {
      add(
        "weights", "update", kernel: times.optimizer.method.rule.kernel,
        bytes: Double(4 * times.optimizer.arraysMoved * rest.reduce(0) { $0 + $1.count }), .update)
    }
  }

  private mutating func add(
    number: String = "", _ name: String, _ pass: String, kernel: String,
    why: String = PassCost.onlyKernel, operations: Double = 0, bytes: Double,
    _ row: PassTimes.Row
  ) {
    let measured = times.mean(row)
    rows.append(
      .init(
        number: number, name: name, pass: pass, kernel: kernel, why: why, operations: operations,
        bytes: bytes, predicted: max(operations / peak, bytes / (roof.memory * 1e9)),
        measured: measured, shareOfPeak: operations > 0 ? operations / measured / peak : 0))
  }

  private mutating func add(_ pass: LayerPass, of index: Int, in step: Plan.Step) {
    // Nobody needs the gradient of the images; and what runs together has no pass for ReLU.
    if pass == .inputGradient && index == plan.steps[0].first { return }
    let isFused = step.first != step.last
    if isFused && times.mean(.layer(index, pass)) == 0 { return }
    guard var cost = plan.cost(pass, index) else { return }
    var name = network.text(ofOperation: index)
    if isFused { fuse(&cost, &name, pass, index, step) }
    let numbers = (isFused ? step.first...step.last : index...index)
      .map(network.number(ofOperation:))
    add(
      number: numbers.joined(separator: "+"), name, pass.name,
      kernel: cost.kernel + (cost.updates ? ", \(times.optimizer.method.rule.kernel)" : ""),
      why: cost.why, operations: cost.operations * images,
      bytes: 4 * ((cost.inputs + cost.outputs) * images + Double(cost.weights)),
      .layer(index, pass))
  }

  /// What lies between layers that run together and isn't kept for later isn't moved.
  private func fuse(
    _ cost: inout PassCost, _ name: inout String, _ pass: LayerPass, _ index: Int, _ step: Plan.Step
  ) {
    if index < step.last && isMaxPooling(index + 1) {
      cost.outputs = 0
      if pass == .forward && times.mean(.layer(index + 1, .forward)) == 0 {
        name += " \(network.text(ofOperation: index + 1))"
        cost.kernel = cost.pooledKernel ?? cost.kernel
        cost.outputs = plan.cost(pass, index + 1)?.outputs ?? 0
      }
    } else if isMaxPooling(index) {
      cost.inputs = 0
    }
  }

  private func isMaxPooling(_ index: Int) -> Bool {
    if case .pool(let window) = plan.operations[index].kind { window.isMax } else { false }
  }
}
