import CKernels

/// A kernel variant as the list in variants.def has it.
package struct KernelVariant: Sendable {
  package let name: String
  package let summary: String
}

/// How precise the factors are that convolutions and dense layers multiply. Sums, and all that is
/// kept, are floats.
public enum Precision: String, Sendable, Codable, CaseIterable {
  /// The numbers as they are: 24 bits.
  case float32
  /// Rounded to the upper half of a float: 8 bits. What processors have for it is up to 16 times as
  /// fast, elsewhere it is slower than ``float32``. Depthwise convolutions, and those whose windows'
  /// rows have fewer than 16 numbers, are computed in float32.
  case bf16
}

/// Which kernels to compute with: one variant, or automatic.
public struct KernelChoice: Sendable, CustomStringConvertible {
  /// A variant's name, "auto" or "exact".
  public let name: String
  /// With ``Precision/bf16``, its kernels are taken instead of those of the name: winograd's where
  /// that is "auto" or "winograd".
  public private(set) var precision = Precision.float32
  private let convolution: ConvVariant?
  // Whether what is picked may be winograd.
  private let transforms: Bool
  package let pool: PoolVariant
  /// Why this choice, and why pooling has what it has.
  private let why: StaticString
  let whyPool: StaticString

  /// Picks by shape.
  public static let auto = KernelChoice(checked: "auto", why: "")
  /// Picks by shape among the kernels that multiply each pair of numbers as the definition does,
  /// whose rounding is the smallest: without winograd.
  public static let exact = KernelChoice(checked: "exact", why: "")
  /// What was bound at build time.
  package static let bound = KernelChoice(
    checked: String(cString: ck_bound_variant()), why: "bound at build time")
  /// The convolution variants, slowest first.
  package static let convolutions = ConvVariant.all.map(\.info)
  /// The pooling variants.
  package static let poolings = PoolVariant.all.map(\.info)
  /// All names that can be chosen, the variants slowest first.
  public static let names = convolutions.map(\.name) + ["exact", "auto"]
  /// The instruction set in use: avx512, avx2, neon or baseline.
  public static var instructionSet: String { String(cString: ck_kernels().pointee.name) }
  /// Computes with another instruction set than the best there is, for comparisons. To be called
  /// before any network is made.
  /// - Throws: ``StrideNetError`` where the processor doesn't have it
  package static func select(instructionSet name: String) throws {
    guard ck_isa_select(name) != 0 else {
      throw StrideNetError(
        .usage, "no such instruction set on this processor", found: "'\(name)'",
        expected: "avx512, avx2, neon or baseline, as far as it has them")
    }
  }
  /// The same for what multiplies bf16.
  package static func select(bf16Unit name: String) throws {
    guard ck_bf16_select(name) != 0 else {
      throw StrideNetError(
        .usage, "no such unit for bf16 on this processor", found: "'\(name)'",
        expected: "amx, avx512_bf16 or emulated, as far as it has them")
    }
  }
  /// Whether the kernels were compiled without optimisation.
  package static var isDebugBuild: Bool { ck_is_debug_build() != 0 }

  /// - Throws: ``StrideNetError`` with the list of names
  public init(named name: String) throws {
    guard Self.names.contains(name) else {
      throw StrideNetError(
        .usage, "no kernel variant of that name", found: "'\(name)'",
        expected: Self.names.joined(separator: ", "), hint: "see: stridenet kernels")
    }
    self.init(checked: name, why: "bound by --kernels")
  }

  private init(checked name: String, why: StaticString) {
    self.name = name
    self.why = why
    convolution = ConvVariant.all.first { $0.name == name }
    transforms = ["auto", "winograd"].contains(name)
    let picks = ["exact", "auto"].contains(name)
    precondition(convolution != nil || picks, "variants.def has no \(name)")
    if let variant = PoolVariant.all.first(where: { $0.name == name }) {
      (pool, whyPool) = (variant, why)
    } else if picks {
      (pool, whyPool) = (PoolVariant.all.last!, "the fastest at pooling")
    } else {
      (pool, whyPool) = (PoolVariant.all.last!, "the fastest, as that is no way of pooling")
    }
  }

  public var description: String {
    precision == .bf16 ? "bf16 by \(Self.bf16Unit)" : name
  }
  /// What multiplies bf16: amx, avx512_bf16 or, by the instruction set's multiply-adds, emulated.
  package static var bf16Unit: String { String(cString: ck_bf16_unit()) }

  /// The same with another precision.
  package func at(_ precision: Precision) -> KernelChoice {
    var result = self
    result.precision = precision
    return result
  }

  package func convolution(_ shape: ck_conv_shape, _ pass: ck_pass) -> ConvVariant.Choice {
    if precision == .bf16 { return ConvVariant.pickBF16(shape, pass, exact: !transforms) }
    return convolution.map { ($0, why) } ?? ConvVariant.pick(shape, pass, exact: !transforms)
  }
}

/// A convolution variant's functions.
package struct ConvVariant: Sendable {
  package let info: KernelVariant
  package var name: String { info.name }
  private let index: Int

  private static let everything = list(ck_conv_variant_at).enumerated().map {
    ConvVariant(
      info: KernelVariant(
        name: String(cString: $1.pointee.name), summary: String(cString: $1.pointee.description)),
      index: $0)
  }

  /// Those of float32.
  package static let all = everything.filter { !$0.isBF16 }

  /// Whether it multiplies numbers rounded to bf16.
  private var isBF16: Bool { functions.pointee.bf16 != 0 }

  /// Those of the instruction set in use.
  private var functions: UnsafePointer<ck_conv_variant> { ck_conv_variant_at(index)! }

  private static let byName = Dictionary(uniqueKeysWithValues: everything.map { ($0.name, $0) })
  private static let direct = byName["direct"]!
  private static let im2col = byName["im2col"]!
  private static let winograd = byName["winograd"]!
  private static let bf16 = byName["bf16"]!
  private static let winogradBF16 = byName["winograd_bf16"]!

  /// A variant, and in a few words why it is taken.
  package typealias Choice = (variant: ConvVariant, why: StaticString)

  /// What `auto` takes, and with `exact` what that does. Where winograd's larger tiles pay, nothing
  /// is as fast. Direct reaches 75 to 97 % of the peak wherever a vector of filters (in the
  /// input gradient: of channels) is filled. With few channels its lanes stay empty there, and
  /// im2col, which fills them with the window's elements, is faster, unless its products are small
  /// beside the gradients that it has to add back: the limit is where the two were measured to meet.
  package static func pick(_ s: ck_conv_shape, _ pass: ck_pass, exact: Bool) -> Choice {
    if direct.way(s) == CK_DEPTHWISE {
      return (direct, "depthwise: a vector of channels at a time")
    }
    let (c, f) = (s.c / s.groups, s.f / s.groups)
    if pass == CK_INPUT_GRADIENT && c <= 8 && s.fh * s.fw * f > 120 + 20 * c {
      return (im2col, "few channels would leave direct's vectors half empty")
    }
    if !exact && savesProducts(s, pass) {
      return (winograd, "tiles of 4×4 by 36 products a channel and filter, not 144")
    }
    return (direct, "sums stay in registers, nothing is gathered")
  }

  /// What bf16 takes, and with `exact` without winograd. A matrix unit is so fast at products that
  /// there the transforms take longer than what they save.
  static func pickBF16(_ s: ck_conv_shape, _ pass: ck_pass, exact: Bool) -> Choice {
    let isShort = pass != CK_INPUT_GRADIENT && s.fw * (s.c / s.groups) < 16
    if isShort || direct.way(s) == CK_DEPTHWISE {
      return (direct, "float32: rows too short for a product of bf16")
    }
    if !exact && KernelChoice.bf16Unit != "amx" && savesProducts(s, pass) {
      return (winogradBF16, "tiles of 4×4 by 36 products of bf16")
    }
    return (bf16, "products of bf16")
  }

  /// What winograd does itself: 3×3 in steps of 1, or what is split into that.
  package static func isThree(_ s: ck_conv_shape) -> Bool {
    s.fh == 3 && s.fw == 3 && s.dh % s.sh == 0 && s.dw % s.sw == 0
  }

  /// Whether winograd is the fastest: without groups, with as many channels and filters as its larger
  /// tiles want, and enough of those, of each phase of a dilation, is used. Measured from 14²×16 to
  /// 56²×64 it takes 0.3 to 0.8 of direct's time; where half of the products were for nothing, more
  /// than all of it.
  private static func savesProducts(_ s: ck_conv_shape, _ pass: ck_pass) -> Bool {
    guard s.groups == 1, isThree(s), min(s.c, s.f) >= CK_WINOGRAD_MANY else { return false }
    let back = pass == CK_INPUT_GRADIENT
    func tiles(_ length: Int32, _ dilation: Int32) -> Int32 {
      (length + 4 * dilation - 1) / (4 * dilation) * dilation
    }
    let tiles = tiles(back ? s.h : s.oh, s.dh / s.sh) * tiles(back ? s.w : s.ow, s.dw / s.sw)
    // Of a pooling behind it, which a row or column too many doesn't reach, direct is fast, too.
    let odd: Int32 = pass == CK_FORWARD ? ~1 : ~0
    return 9 * (s.oh & odd) * (s.ow & odd) >= 60 * tiles
  }

  /// Whether it computes such a convolution itself, by the kernels for depthwise ones, or split into
  /// ones without dilation and groups.
  func way(_ shape: ck_conv_shape) -> ck_conv_way {
    withUnsafePointer(to: shape) { ck_conv_way_of(functions, $0) }
  }

  /// What runs: the C symbol without its prefix.
  func kernel(_ shape: ck_conv_shape, _ pass: ck_pass, pooled: Bool = false) -> String {
    // Of what winograd can't do, direct's functions do all.
    let others = ["winograd": "direct", "winograd_bf16": "bf16"]
    let name = Self.isThree(shape) ? self.name : others[self.name] ?? self.name
    return switch way(shape) {
    case CK_DEPTHWISE: "conv_\(pass.name)_depthwise"
    case CK_SPLIT: "conv_\(pass.name)_\(name), split"
    default: "conv_\(pooled ? "pool_" : "")\(pass.name)_\(name)"
    }
  }

  package func workspace(_ shape: ck_conv_shape, _ pass: ck_pass) -> Int {
    withUnsafePointer(to: shape) { Int(ck_conv_workspace(functions, $0, pass)) }
  }
  package func forward(
    _ s: ck_conv_shape, _ x: Kernels.Floats, _ w: Kernels.Floats, bias: Kernels.Floats?,
    relu: Bool = false, _ y: Kernels.MutableFloats, _ workspace: Kernels.MutableFloats
  ) {
    withUnsafePointer(to: s) {
      ck_conv_forward(functions, $0, x, w, bias, relu ? 1 : 0, y, workspace)
    }
  }
  func inputGradient(
    _ s: ck_conv_shape, _ dy: Kernels.Floats, _ w: Kernels.Floats, _ dx: Kernels.MutableFloats,
    _ workspace: Kernels.MutableFloats
  ) {
    withUnsafePointer(to: s) { ck_conv_input_gradient(functions, $0, dy, w, dx, workspace) }
  }
  func weightGradient(
    _ s: ck_conv_shape, _ x: Kernels.Floats, _ dy: Kernels.Floats, _ dw: Kernels.MutableFloats,
    _ workspace: Kernels.MutableFloats
  ) {
    withUnsafePointer(to: s) { ck_conv_weight_gradient(functions, $0, x, dy, dw, workspace) }
  }
}

extension ConvVariant {
  /// Whether kernels take what was made of the weights instead of the weights.
  private func takesReady(_ shape: ck_conv_shape) -> Bool {
    way(shape) == CK_ITSELF && functions.pointee.ready != nil
  }
  /// Floats that the weights made ready for a pass take, so that many calls may use them; 0 where
  /// the kernels take the weights themselves.
  func readyCount(_ shape: ck_conv_shape, _ pass: ck_pass) -> Int {
    takesReady(shape)
      ? withUnsafePointer(to: shape) { functions.pointee.ready_count!($0, pass) } : 0
  }
  func makeReady(
    _ shape: ck_conv_shape, _ pass: ck_pass, _ w: Kernels.Floats, _ ready: Kernels.MutableFloats
  ) {
    withUnsafePointer(to: shape) { functions.pointee.ready!($0, pass, w, ready) }
  }
  /// What a pass needs beside weights that are ready, or that there is no making ready of.
  func scratch(_ shape: ck_conv_shape, _ pass: ck_pass) -> Int {
    guard readyCount(shape, pass) > 0 else { return workspace(shape, pass) }
    return withUnsafePointer(to: shape) { functions.pointee.workspace($0, pass) }
  }

  // The passes by such weights.
  func forward(
    _ s: ck_conv_shape, _ x: Kernels.Floats, ready w: Kernels.Floats, bias: Kernels.Floats?,
    relu: Bool, _ y: Kernels.MutableFloats, _ workspace: Kernels.MutableFloats
  ) {
    guard takesReady(s) else {
      return forward(s, x, w, bias: bias, relu: relu, y, workspace)
    }
    withUnsafePointer(to: s) {
      functions.pointee.forward($0, x, w, bias, relu ? 1 : 0, y, workspace)
    }
  }
  /// Whether it has the forward pass and max-pooling in windows of 2×2 in one kernel.
  func pools(_ shape: ck_conv_shape) -> Bool {
    functions.pointee.pool_forward != nil && way(shape) == CK_ITSELF
  }
  /// The forward pass and max-pooling in windows of 2×2 behind it in one kernel; false, and nothing
  /// done, where the variant has none.
  func forwardPooled(
    _ s: ck_conv_shape, _ x: Kernels.Floats, ready w: Kernels.Floats, bias: Kernels.Floats,
    relu: Bool, _ y: Kernels.MutableFloats, _ places: UnsafeMutablePointer<UInt16>?,
    _ workspace: Kernels.MutableFloats
  ) -> Bool {
    guard pools(s), let pooled = functions.pointee.pool_forward else { return false }
    withUnsafePointer(to: s) { pooled($0, x, w, bias, relu ? 1 : 0, y, places, workspace) }
    return true
  }
  func inputGradient(
    _ s: ck_conv_shape, _ dy: Kernels.Floats, ready w: Kernels.Floats,
    _ dx: Kernels.MutableFloats, _ workspace: Kernels.MutableFloats
  ) {
    guard takesReady(s) else {
      return inputGradient(s, dy, w, dx, workspace)
    }
    withUnsafePointer(to: s) { functions.pointee.input_gradient($0, dy, w, dx, workspace) }
  }
}

/// A pooling variant's functions.
package struct PoolVariant: Sendable {
  package let info: KernelVariant
  package var name: String { info.name }
  private let index: Int

  package static let all: [PoolVariant] = list(ck_pool_variant_at).enumerated().map {
    PoolVariant(
      info: KernelVariant(
        name: String(cString: $1.pointee.name), summary: String(cString: $1.pointee.description)),
      index: $0)
  }

  /// Those of the instruction set in use.
  private var functions: ck_pool_variant { ck_pool_variant_at(index)!.pointee }

  func maxForward(
    _ s: ck_pool_shape, _ x: Kernels.Floats, _ y: Kernels.MutableFloats,
    _ place: UnsafeMutablePointer<UInt16>
  ) {
    withUnsafePointer(to: s) { functions.max_forward($0, x, y, place) }
  }
  func maxBackward(
    _ s: ck_pool_shape, _ dy: Kernels.Floats, _ place: UnsafePointer<UInt16>,
    _ dx: Kernels.MutableFloats
  ) {
    withUnsafePointer(to: s) { functions.max_backward($0, dy, place, dx) }
  }
  func averageForward(_ s: ck_pool_shape, _ x: Kernels.Floats, _ y: Kernels.MutableFloats) {
    withUnsafePointer(to: s) { functions.avg_forward($0, x, y) }
  }
  func averageBackward(_ s: ck_pool_shape, _ dy: Kernels.Floats, _ dx: Kernels.MutableFloats) {
    withUnsafePointer(to: s) { functions.avg_backward($0, dy, dx) }
  }
}

private func list<V>(_ at: (Int) -> UnsafePointer<V>?) -> [UnsafePointer<V>] {
  var result: [UnsafePointer<V>] = []
  while let variant = at(result.count) { result.append(variant) }
  return result
}
