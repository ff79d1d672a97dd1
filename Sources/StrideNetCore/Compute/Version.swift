extension Runtime {
  /// The library's version, which `stridenet --version` prints. It stands here alone, and in no file
  /// that the library writes: those are the same as long as what is in them is.
  public static let version = "0.9.0"
}
