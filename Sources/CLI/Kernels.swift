import ArgumentParser
import StrideNet

struct KernelList: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "kernels",
    abstract: "Lists the kernel variants and says which are bound.")

  func run() throws {
    try Output.line("instruction set  \(KernelChoice.instructionSet)")
    try Output.line("bound            \(KernelChoice.bound)\n")
    for (title, variants) in [
      ("convolution", KernelChoice.convolutions), ("pooling", KernelChoice.poolings),
    ] {
      try Output.line(title)
      for variant in variants {
        try Output.line("  \(variant.name.padded(14)) \(variant.summary)")
      }
    }
    try Output.line("\nbind another     make KERNELS=NAME, or --kernels NAME for one run")
  }
}
