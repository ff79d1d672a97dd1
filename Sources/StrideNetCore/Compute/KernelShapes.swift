import CKernels

extension ck_conv_shape {
  /// A square convolution; output sizes follow.
  package init(
    _ n: Int, _ h: Int, _ w: Int, _ c: Int, _ fh: Int, _ fw: Int, _ f: Int, stride: Int = 1,
    padding: Int = 0, dilation: Int = 1, groups: Int = 1
  ) {
    self.init(
      n: Int32(n), h: Int32(h), w: Int32(w), c: Int32(c), fh: Int32(fh), fw: Int32(fw), f: Int32(f),
      sh: Int32(stride), sw: Int32(stride), ph: Int32(padding), pw: Int32(padding),
      oh: Int32((h + 2 * padding - dilation * (fh - 1) - 1) / stride + 1),
      ow: Int32((w + 2 * padding - dilation * (fw - 1) - 1) / stride + 1), dh: Int32(dilation),
      dw: Int32(dilation), groups: Int32(groups))
  }

  package var inputs: Int { Int(n) * Int(h) * Int(w) * Int(c) }
  package var weights: Int { Int(fh) * Int(fw) * Int(c / groups) * Int(f) }
  package var outputs: Int { Int(n) * Int(oh) * Int(ow) * Int(f) }
  /// Two a multiply-add, in each of the passes.
  package var operations: Double {
    2 * Double(outputs) * Double(Int(fh) * Int(fw) * Int(c / groups))
  }
  package var text: String {
    "\(n)×\(h)×\(w)×\(c), \(f) of \(fh)×\(fw)" + (sh == 1 && sw == 1 ? "" : " by \(sh)×\(sw)")
      + (ph == 0 && pw == 0 ? "" : ", padded \(ph)×\(pw)")
      + (dh == 1 && dw == 1 ? "" : ", dilated \(dh)×\(dw)")
      + (groups == 1 ? "" : ", \(groups) groups")
  }
}

extension ck_pool_shape {
  package init(_ n: Int, _ h: Int, _ w: Int, _ c: Int, _ size: Int, stride: Int) {
    self.init(
      n: Int32(n), h: Int32(h), w: Int32(w), c: Int32(c), fh: Int32(size), fw: Int32(size),
      sh: Int32(stride), sw: Int32(stride), oh: Int32((h - size) / stride + 1),
      ow: Int32((w - size) / stride + 1), ph: 0, pw: 0, ch: 0, cw: 0)
  }

  package var inputs: Int { Int(n) * Int(h) * Int(w) * Int(c) }
  package var outputs: Int { Int(n) * Int(oh) * Int(ow) * Int(c) }
  package var text: String {
    "\(n)×\(h)×\(w)×\(c), \(fh)×\(fw) by \(sh)×\(sw)"
      + (ph == 0 && pw == 0 ? "" : ", padded \(ph)×\(pw)")
  }
}

extension ck_pass {
  package var name: String {
    switch self {
    case CK_FORWARD: "forward"
    case CK_INPUT_GRADIENT: "input_gradient"
    default: "weight_gradient"
    }
  }
}

extension ConvVariant {
  package static let passes = [CK_FORWARD, CK_INPUT_GRADIENT, CK_WEIGHT_GRADIENT]

  /// Runs a pass: from x and w, y and w, or x and y, into `target`.
  package func run(
    _ pass: ck_pass, _ s: ck_conv_shape, x: Kernels.Floats, w: Kernels.Floats, y: Kernels.Floats,
    bias: Kernels.Floats? = nil, into target: Kernels.MutableFloats,
    _ workspace: Kernels.MutableFloats
  ) {
    switch pass {
    case CK_FORWARD: forward(s, x, w, bias: bias, target, workspace)
    case CK_INPUT_GRADIENT: inputGradient(s, y, w, target, workspace)
    default: weightGradient(s, x, y, target, workspace)
    }
  }
}

extension PoolVariant {
  package enum Operation: String, CaseIterable, CustomStringConvertible {
    case max_forward, max_backward, avg_forward, avg_backward
    package var description: String { rawValue }
  }

  package static let operations = Operation.allCases

  package func run(
    _ operation: Operation, _ s: ck_pool_shape, _ x: Kernels.Floats, _ y: Kernels.Floats,
    into target: Kernels.MutableFloats, _ places: UnsafeMutablePointer<UInt16>
  ) {
    switch operation {
    case .max_forward: maxForward(s, x, target, places)
    case .max_backward: maxBackward(s, y, places, target)
    case .avg_forward: averageForward(s, x, target)
    case .avg_backward: averageBackward(s, y, target)
    }
  }
}
