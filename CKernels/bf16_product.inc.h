// SPDX-License-Identifier: MIT
// The product of two matrices of bf16, the upper halves of floats: 8 bits of precision instead of
// 24, half the memory. The product of two such numbers has 16 bits, so as a float it is exact; what
// rounds is the sum, which is a float. A word holds two numbers that follow each other in the sum,
// the first in its lower half, and of each word the second is added first: that is how processors
// do it that have an instruction for it (vdpbf16ps), and here it is done by two multiply-adds, the
// same bit for bit (but for sums below 2^-126, which the instruction takes for 0).
#pragma clang fp contract(fast)

#ifndef CK_DOT
#define CK_DOT(sum, left, right)                               \
  sum += (vec)((left)&0xFFFF0000) * (vec)((right)&0xFFFF0000), \
      sum += (vec)((left) << 16) * (vec)((right) << 16)
#endif

// A tile of C: rows by vectors at column j, which stay in registers.
INLINE void bf16_tile(const int rows, const int vectors, const ck_bf16_product *p, ptrdiff_t i,
                      ptrdiff_t j) {
  enum { PANEL = CK_BF16_PANEL };
  vec sum[CK_MR][2];
  float *c = p->c + i * p->ldc + j;
  const uint32_t *b[2];
#pragma clang loop unroll(full)
  for (int v = 0; v < vectors; v++) {
    ptrdiff_t column = j + v * CK_LANES;
    b[v] = p->b + column / PANEL * p->panel + column % PANEL;
  }
#pragma clang loop unroll(full)
  for (int r = 0; r < rows; r++)
#pragma clang loop unroll(full)
    for (int v = 0; v < vectors; v++) {
      const float *from = p->accumulate ? c + r * p->ldc : p->start ? p->start + j : NULL;
      sum[r][v] = from ? *(const vec *)(from + v * CK_LANES) : (vec){0};
    }
  for (ptrdiff_t run = 0; run < p->runs; run++) {
    const uint16_t *a = p->a + run * p->a_run + i * p->a_row;
    ptrdiff_t word = run * p->run_rows * PANEL;
    for (ptrdiff_t k = 0; k < p->pairs; k++, a += 2, word += PANEL) {
      words right[2];
#pragma clang loop unroll(full)
      for (int v = 0; v < vectors; v++) right[v] = *(const words *)(b[v] + word);
#pragma clang loop unroll(full)
      for (int r = 0; r < rows; r++) {
        uint32_t pair;
        memcpy(&pair, a + r * p->a_row, sizeof pair);
        words left = (words){0} + pair;
#pragma clang loop unroll(full)
        for (int v = 0; v < vectors; v++) CK_DOT(sum[r][v], left, right[v]);
      }
    }
  }
#pragma clang loop unroll(full)
  for (int r = 0; r < rows; r++)
#pragma clang loop unroll(full)
    for (int v = 0; v < vectors; v++) *(vec *)(c + r * p->ldc + v * CK_LANES) = sum[r][v];
}

static void CK_NAME(bf16_any_tile)(ptrdiff_t rows, int vectors, const ck_bf16_product *p,
                                   ptrdiff_t i, ptrdiff_t j) {
#define CK_ROWS(n)              \
  case n:                       \
    if (vectors == 1)           \
      bf16_tile(n, 1, p, i, j); \
    else                        \
      bf16_tile(n, 2, p, i, j); \
    return;
  switch (rows) {
#include "rows.def"
  }
#undef CK_ROWS
}

static void CK_NAME(ck_bf16_product)(const ck_bf16_product *p) {
  if (p->taps) {
    ck_bf16_product one = *p;
    one.taps = 0;
    for (ptrdiff_t t = 0; t < p->taps; t++) {
      one.a = p->a + t / p->across * p->down + t % p->across, one.c = p->c + t * p->c_tap;
      CK_NAME(ck_bf16_product)(&one);
    }
    return;
  }
  // The columns of two vectors stay in the first-level cache while the rows pass by.
  ptrdiff_t tiles = (p->m + CK_MR - 1) / CK_MR, height = (p->m + tiles - 1) / tiles;
  for (ptrdiff_t j = 0; j < p->n; j += 2 * CK_LANES)
    for (ptrdiff_t i = 0; i < p->m; i += height) CK_NAME(bf16_any_tile)
  (smaller(p->m - i, height), p->n - j > CK_LANES ? 2 : 1, p, i, j);
}
#undef CK_DOT
