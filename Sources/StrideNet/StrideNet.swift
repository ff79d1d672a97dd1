// The whole library. A program that computes and trains, and neither reads files nor looks inside,
// can do with the core alone, which needs no library of the system's.

/// Networks, their layers, training, and data in memory.
@_exported import StrideNetCore
/// Data sets, weights, checkpoints and other programs' formats in files.
@_exported import StrideNetFiles
/// What makes a network's numbers visible: traces, provenance, gradient checks, timings.
@_exported import StrideNetLaboratory
