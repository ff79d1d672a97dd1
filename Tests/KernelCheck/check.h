// SPDX-License-Identifier: MIT
// What the checks and timings share. Each file has one kind of kernels: the definitions, loops with
// sums in double precision, beside what compares the kernels with them, and what times them.
#ifndef CHECK_H
#define CHECK_H
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "CKernels.h"

#define FOR(i, count) for (ptrdiff_t i = 0; i < (ptrdiff_t)(count); i++)
#define COUNT(list) (ptrdiff_t)(sizeof(list) / sizeof *(list))

// ---- Sizes --------------------------------------------------------------------------------------

/// No guard zones and no patterns, and shorter sums: a memory checker looks on.
extern int bare;

/// Numbers of elements around the widths of vectors.
enum { SIZES = 11 };
extern const int sizes[SIZES];

/// Terms of a long sum, and the edge of a large image.
static inline ptrdiff_t long_count(void) { return bare ? 20011 : 1000003; }
static inline ptrdiff_t long_edge(void) { return bare ? 100 : 512; }

/// The kernels of bf16 alone: once more with another unit for them.
extern int bf16_only;

/// Timings: memory at addresses as networks have them, without guard zones.
extern int timed;

// ---- Memory: lives until the end of a case ------------------------------------------------------

/// Memory of any kind, between guard zones.
void *block(size_t bytes);
float *floats(size_t count);
uint16_t *places(size_t count);
/// Zeros, for definitions.
double *sums(size_t count);

/// The same values in [-0.5, 0.5) as in the Swift tests.
float value(ptrdiff_t i, unsigned salt);
float *values(size_t count, unsigned salt);
/// Values in [0.5, 1.5): what each addition loses adds up.
float *positive(size_t count, unsigned salt);
float *copy(const float *x, size_t count);
/// Each rounded to the nearest number of 8 bits, ties to the even one.
const float *narrowed(const float *x, size_t count);

// ---- Judging ------------------------------------------------------------------------------------

/// A case of kernel `name`, and of its variant if there is one; the rest says which.
void begin_case(const char *name, const char *variant, const char *format, ...);
/// Ends a case and gives its buffers back.
void end_case(void);
/// The case is wrong, and why.
void wrong(const char *format, ...);

/// The rounding of one operation.
static const double unit = 0x1p-24;
/// What the rounding of a sum of `terms` products of values in ±0.5 may come to.
static inline double rounding(ptrdiff_t terms) { return 0x1p-23 * 0.25 * (double)(terms + 8); }

/// Each element within the bound; where a NaN is expected, a NaN.
void compare(const float *found, const double *expected, size_t count, double bound);
void compare_places(const uint16_t *found, const uint16_t *expected, size_t count);
/// Bit for bit.
void same(const char *what, const float *found, const float *expected, size_t count);

/// The results of bf16, which are the same with any instruction set; with transforms before the
/// products, with any that has fused multiply-adds.
void digest_bf16(int transformed, const float *found, size_t count);
uint64_t take_digest(int transformed);

/// Prints what was found of each kernel since the last call; returns how many cases were wrong.
int print_tallies(void);

// ---- Timing -------------------------------------------------------------------------------------

/// Times a call as a case: makes it again and again, and prints the median of its times; with how
/// many operations of floating point it has, or bytes it reads and writes, as a rate too.
#define TIME(operations, bytes, call, ...) \
  for (begin_case(__VA_ARGS__); timing(operations, bytes);) call
/// Whether to go on.
int timing(double operations, double bytes);
/// How many images are timed, in layers of their own and in dense ones.
enum { IMAGES = 8, BATCH = 64 };

// ---- The subjects -------------------------------------------------------------------------------

#define SUBJECTS(X) \
  X(convolution)    \
  X(pooling)        \
  X(product)        \
  X(elements)       \
  X(activations)    \
  X(softmax)        \
  X(normalization)  \
  X(optimizers)     \
  X(augmentation)
#define DECLARE(subject)      \
  void check_##subject(void); \
  void time_##subject(void);
SUBJECTS(DECLARE)
#endif
