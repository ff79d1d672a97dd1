// SPDX-License-Identifier: MIT
// A vector of this instruction set: CK_LANES floats, or as many whole numbers.
#include <string.h>

typedef float vec __attribute__((vector_size(4 * CK_LANES), aligned(4)));
typedef int32_t ints __attribute__((vector_size(4 * CK_LANES), aligned(4)));
#define INLINE static inline __attribute__((always_inline))

// Lane by lane a where the mask's bits are set, else b.
INLINE ints choose(ints mask, ints a, ints b) { return (mask & a) | (~mask & b); }

INLINE ptrdiff_t smaller(ptrdiff_t a, ptrdiff_t b) { return a < b ? a : b; }

// Fewer numbers than lanes, zeros behind.
INLINE vec some(ptrdiff_t count, const float *x) {
  vec value = {0};
  memcpy(&value, x, sizeof(float) * count);
  return value;
}

// max(x, 0); a NaN stays one.
INLINE vec above_zero(vec x) { return (vec)(~(x < 0) & (ints)x); }
