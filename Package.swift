// swift-tools-version: 6.1
import PackageDescription

// The kernel variants that can be bound at build time: `make KERNELS=im2col`, or
// `swift build --traits im2col`. Without a trait the library binds `auto`, which picks by shape.
// The list in CKernels/include/variants.def is the source; a test holds the two against each other.
let variants = ["naive", "stride_groups", "im2col", "direct", "winograd"]

// The library's modules, the last of which is the others under one name. Whoever depends on that is
// compiled anew where one of the others has changed only if it depends on them, too.
let library = ["StrideNetCore", "StrideNetFiles", "StrideNetLaboratory", "StrideNet"]
let dependencies = library.map { Target.Dependency(stringLiteral: $0) }

let package = Package(
  name: "stridenet",
  platforms: [.macOS(.v15)],
  products: [
    // All of it; and the core alone, which needs no library of the system's.
    .library(name: "StrideNet", targets: library),
    .library(name: "StrideNetCore", targets: ["StrideNetCore"]),
    // With the trait MPI: processes on many machines.
    .library(name: "StrideNetMPI", targets: ["StrideNetMPI"]),
    .executable(name: "stridenet", targets: ["stridenet-cli"]),
  ],
  traits: Set(
    variants.map { .trait(name: $0, description: "bind the \($0) kernels") } + [
      .trait(name: "MPI", description: "train with several processes, over MPI")
    ]),
  dependencies: [
    // Parsing, help and usage errors of the command line: the standard choice for Swift.
    .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2")
  ],
  targets: [
    // The hot loops. No unsafeFlags: who depends on the library has these, too.
    .target(
      name: "CKernels",
      path: "CKernels",
      cSettings: variants.map { .define("CK_BOUND", to: $0, .when(traits: [$0])) },
      linkerSettings: [.linkedLibrary("m", .when(platforms: [.linux]))]),
    // Networks, their layers, training, and data in memory.
    .target(name: "StrideNetCore", dependencies: ["CKernels"]),
    // Inflating gzip files.
    .systemLibrary(name: "CZlib", pkgConfig: "zlib", providers: [.apt(["zlib1g-dev"])]),
    // SHA-256: libmd is the smallest well-kept library that has it (nothing to build).
    .systemLibrary(name: "CDigest", pkgConfig: "libmd", providers: [.apt(["libmd-dev"])]),
    // Reading and writing PNG: the reference library, whose simplified interface needs no C of ours.
    .systemLibrary(name: "CPNG", pkgConfig: "libpng", providers: [.apt(["libpng-dev"])]),
    // Reading JPEG, BMP and PPM: libjpeg-turbo's own interface, which returns where libjpeg's jumps.
    .systemLibrary(
      name: "CTurboJPEG", pkgConfig: "libturbojpeg", providers: [.apt(["libturbojpeg0-dev"])]),
    // Reading WebP.
    .systemLibrary(name: "CWebP", pkgConfig: "libwebp", providers: [.apt(["libwebp-dev"])]),
    // Downloads: the system's libcurl. FoundationNetworking, which is made of it too, unpacks what a
    // server sends without bound and ends the process over lengths; the clients in Swift take minutes
    // to build. It costs whoever builds this one more header.
    .systemLibrary(
      name: "CCurl", pkgConfig: "libcurl", providers: [.apt(["libcurl4-openssl-dev"])]),
    // The first 10,000 training digits and the test set, embedded so that a copied binary has them.
    .target(name: "MNISTSample", exclude: ["files"]),
    // Data sets, weights, checkpoints and other programs' formats in files.
    .target(
      name: "StrideNetFiles",
      dependencies: [
        "StrideNetCore", "CZlib", "CDigest", "CPNG", "CTurboJPEG", "CWebP", "CCurl", "MNISTSample",
      ]),
    // Traces, provenance, gradient checks, timings.
    .target(
      name: "StrideNetLaboratory", dependencies: ["StrideNetCore", "CKernels"]),
    // Messages between processes: Open MPI, which clusters have already. Neither is in a build without
    // the trait.
    .systemLibrary(name: "CMPI", pkgConfig: "ompi-c", providers: [.apt(["libopenmpi-dev"])]),
    .target(
      name: "StrideNetMPI",
      dependencies: ["StrideNetCore", .target(name: "CMPI", condition: .when(traits: ["MPI"]))]),
    // The three under one name.
    .target(name: "StrideNet", dependencies: Array(dependencies.dropLast())),
    // The pages of `report` and `serve`, embedded for the same reason.
    .target(name: "Pages", exclude: ["files", "wasm"]),
    // What answers the page of `serve`: a small server, and the questions. It reads no files.
    .target(name: "Web", dependencies: ["StrideNetCore", "StrideNetLaboratory"]),
    .executableTarget(
      name: "stridenet-cli",
      dependencies: dependencies + [
        "Pages", "Web", .product(name: "ArgumentParser", package: "swift-argument-parser"),
        .target(name: "StrideNetMPI", condition: .when(traits: ["MPI"])),
      ],
      path: "Sources/CLI",
      // Nothing in it is hot: without the optimiser it is compiled in a third of the time. (Unsafe
      // flags keep nobody from depending on the libraries: `make dependant`.)
      swiftSettings: [.unsafeFlags(["-Onone"])]),
    // Three small programs that use nothing but the public interface.
    .executableTarget(name: "LeNet", dependencies: dependencies, path: "Examples/LeNet"),
    .executableTarget(
      name: "CustomLayer", dependencies: dependencies, path: "Examples/CustomLayer"),
    .executableTarget(name: "Transfer", dependencies: dependencies, path: "Examples/Transfer"),
    // A training without the library's layers, by the kernels that are the definition.
    .executableTarget(
      name: "Plain", dependencies: dependencies + ["CKernels"], path: "Examples/Plain"),
    // Counts malloc calls in the test process: shows that a training step allocates nothing.
    .target(name: "AllocationCounter", path: "Tests/AllocationCounter"),
    // Random networks against a reference in double precision.
    .executableTarget(
      name: "random-networks", dependencies: dependencies, path: "Tests/RandomNetworks"),
    .testTarget(
      name: "StrideNetTests",
      dependencies: dependencies + ["CKernels", "AllocationCounter", "Web"],
      exclude: ["Expectations", "Pictures", "Weights"]),
  ],
  swiftLanguageModes: [.v6]
)
