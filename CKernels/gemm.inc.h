// SPDX-License-Identifier: MIT
// The matrix product C = A·B. Three ideas make it fast. Registers: a tile of C, CK_MR rows by two
// vectors, stays in registers while the sum over k runs, so that each number loaded is used many
// times. Cache: k is cut into blocks of KC, so that a strip of B (KC × CK_NR) and the block of A
// (MC × KC) that passes by it stay in the second-level cache. Packing: both are
// copied beforehand into the order in which the tile reads them, edges filled with zeros, so that
// the inner loop walks straight through memory whatever the strides, transposed or not. The order
// of the additions depends on k alone, never on where a tile lies: results don't change with the
// way the work is cut.
#include "quad.h"
#pragma clang fp contract(fast)

enum { CK_NR = 2 * CK_LANES, CK_KC = 512, CK_MC = CK_MR * (112 / CK_MR), CK_NC = 1024 };

// A strip written in whole quads may reach three floats past its end.
enum { CK_GEMM_WORKSPACE = CK_KC * (CK_MC + CK_NC) + CK_LANES };

// Copies `lines` × kc elements, element (l, p) at x[l·line_stride + p·step], one of the two being
// 1, so that for each p the lines lie side by side, `width` of them: missing ones are 0.
INLINE void pack(ptrdiff_t width, ptrdiff_t lines, ptrdiff_t kc, const float *x,
                 ptrdiff_t line_stride, ptrdiff_t step, float *out) {
  if (lines < width) memset(out, 0, sizeof(float) * width * kc);
  ptrdiff_t p = 0;
  if (line_stride == 1 && lines == CK_NR)
    for (; p < kc; p++)
      for (ptrdiff_t l = 0; l < CK_NR; l += CK_LANES)
        *(vec *)(out + p * width + l) = *(const vec *)(x + p * step + l);
  else if (line_stride == 1 && lines == width)
    // Whole quads: what they write too much, the next ones overwrite.
    for (; p + 1 < kc && step >= 4; p++)
      for (ptrdiff_t l = 0; l < lines; l += 4)
        *(ck_quad *)(out + p * width + l) = *(const ck_quad *)(x + p * step + l);
  else if (step == 1) {
    // Four lines by four numbers at a time, turned round. The last lines first: what they write too
    // much, the first overwrite. Lines that are missing are the last one again: nobody reads them.
    for (ptrdiff_t l = (lines - 1) / 4 * 4; l >= 0; l -= 4) {
      const float *line[4];
      for (ptrdiff_t i = 0; i < 4; i++)
        line[i] = x + (l + i < lines ? l + i : lines - 1) * line_stride;
      for (p = 0; p + 4 <= kc; p += 4) {
        if (p % 16 == 0)  // the next strip's, a cache line each
          for (ptrdiff_t i = 0; i < 4; i++) __builtin_prefetch(line[i] + p + width * line_stride);
        ck_quad turned[4];
        ck_turn(*(const ck_quad *)(line[0] + p), *(const ck_quad *)(line[1] + p),
                *(const ck_quad *)(line[2] + p), *(const ck_quad *)(line[3] + p), turned);
        for (ptrdiff_t i = 0; i < 4; i++) *(ck_quad *)(out + (p + i) * width + l) = turned[i];
      }
    }
  }
  for (; p < kc; p++)
    for (ptrdiff_t l = 0; l < lines; l++) out[p * width + l] = x[p * step + l * line_stride];
}

// sum (rows, vectors) += packed A (kc, rows) · packed B (kc, CK_NR).
INLINE void multiply(const int rows, const int vectors, ptrdiff_t kc, const float *a,
                     const float *b, vec sum[CK_MR][2]) {
  for (ptrdiff_t p = 0; p < kc; p++, a += rows, b += CK_NR) {
    vec right[2];
    for (int v = 0; v < vectors; v++) right[v] = *(const vec *)(b + v * CK_LANES);
#pragma clang loop unroll(full)
    for (int i = 0; i < rows; i++)
#pragma clang loop unroll(full)
      for (int v = 0; v < vectors; v++) sum[i][v] += a[i] * right[v];
  }
}

// The tile: C (rows, vectors·CK_LANES) = or += packed A · packed B. `rows` and `vectors` are
// constants where this is inlined, so the sums live in registers. Of the columns `columns` are C's;
// where that isn't a whole number of vectors, the tile goes through a buffer.
INLINE void tile(const int rows, const int vectors, ptrdiff_t kc, const float *a, const float *b,
                 float *c, ptrdiff_t ldc, ptrdiff_t columns, int accumulate) {
  vec sum[CK_MR][2] = {0};
  // C is fetched shortly before it is needed: rows of C that lie a power of two apart share a set
  // of the first-level cache, and if fetched at the start would be pushed out again by then.
  ptrdiff_t last = kc < 40 ? kc : 40, first = kc - last;
  multiply(rows, vectors, first, a, b, sum);
  for (int i = 0; i < rows; i++)
    for (int v = 0; v < vectors; v++) __builtin_prefetch(c + i * ldc + v * CK_LANES, 1);
  multiply(rows, vectors, last, a + first * rows, b + first * CK_NR, sum);
  if (columns == vectors * CK_LANES) {
#pragma clang loop unroll(full)
    for (int i = 0; i < rows; i++)
#pragma clang loop unroll(full)
      for (int v = 0; v < vectors; v++) {
        vec *out = (vec *)(c + i * ldc + v * CK_LANES);
        *out = accumulate ? *out + sum[i][v] : sum[i][v];
      }
    return;
  }
#pragma clang loop unroll(full)
  for (int i = 0; i < rows; i++) {
    float buffer[CK_NR];
#pragma clang loop unroll(full)
    for (int v = 0; v < vectors; v++) *(vec *)(buffer + v * CK_LANES) = sum[i][v];
    for (ptrdiff_t j = 0; j < columns; j++)
      c[i * ldc + j] = accumulate ? c[i * ldc + j] + buffer[j] : buffer[j];
  }
}

static void CK_NAME(any_tile)(ptrdiff_t rows, ptrdiff_t kc, const float *a, const float *b,
                              float *c, ptrdiff_t ldc, ptrdiff_t columns, int accumulate) {
#define CK_ROWS(n)                                       \
  case n:                                                \
    if (columns <= CK_LANES)                             \
      tile(n, 1, kc, a, b, c, ldc, columns, accumulate); \
    else                                                 \
      tile(n, 2, kc, a, b, c, ldc, columns, accumulate); \
    return;
  switch (rows) {
#include "rows.def"
  }
#undef CK_ROWS
}

static void CK_NAME(ck_gemm_packing)(int flags, ptrdiff_t m, ptrdiff_t n, ptrdiff_t k,
                                     ck_pack_fn *pack_rows, const void *matrix, const float *b,
                                     ptrdiff_t ldb, float *c, ptrdiff_t ldc, float *workspace) {
  float *packed_b = workspace, *packed_a = workspace + CK_KC * CK_NC;
  ptrdiff_t b_column = flags & CK_TRANSPOSE_B ? ldb : 1, b_step = flags & CK_TRANSPOSE_B ? 1 : ldb;
  for (ptrdiff_t jc = 0; jc < n; jc += CK_NC) {
    ptrdiff_t nc = n - jc < CK_NC ? n - jc : CK_NC;
    for (ptrdiff_t pc = 0; pc < k; pc += CK_KC) {
      ptrdiff_t kc = k - pc < CK_KC ? k - pc : CK_KC;
      int accumulate = pc > 0 || (flags & CK_ACCUMULATE);
      for (ptrdiff_t j = 0; j < nc; j += CK_NR)
        pack(CK_NR, nc - j < CK_NR ? nc - j : CK_NR, kc, b + (jc + j) * b_column + pc * b_step,
             b_column, b_step, packed_b + j * kc);
      for (ptrdiff_t ic = 0; ic < m; ic += CK_MC) {
        ptrdiff_t mc = m - ic < CK_MC ? m - ic : CK_MC;
        // Tiles of nearly equal height: 100 rows are seven of 13 and one of 9, not seven of 14 and
        // one of 2.
        ptrdiff_t strips = (mc + CK_MR - 1) / CK_MR, height = (mc + strips - 1) / strips;
        for (ptrdiff_t i = 0; i < mc; i += height) {
          ptrdiff_t rows = mc - i < height ? mc - i : height;
          pack_rows(matrix, ic + i, rows, pc, kc, packed_a + i * kc);
        }
        for (ptrdiff_t j = 0; j < nc; j += CK_NR)
          for (ptrdiff_t i = 0; i < mc; i += height) CK_NAME(any_tile)
        (mc - i < height ? mc - i : height, kc, packed_a + i * kc, packed_b + j * kc,
         c + (ic + i) * ldc + jc + j, ldc, nc - j < CK_NR ? nc - j : CK_NR, accumulate);
      }
    }
  }
}

// Rows of a matrix in memory.
typedef struct strided {
  const float *a;
  ptrdiff_t row, step;
} strided;

static void CK_NAME(pack_rows)(const void *matrix, ptrdiff_t row, ptrdiff_t rows, ptrdiff_t from,
                               ptrdiff_t count, float *out) {
  const strided *r = matrix;
  pack(rows, rows, count, r->a + row * r->row + from * r->step, r->row, r->step, out);
}

static void CK_NAME(ck_gemm)(int flags, ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, const float *a,
                             ptrdiff_t lda, const float *b, ptrdiff_t ldb, float *c, ptrdiff_t ldc,
                             float *workspace) {
  strided rows = {a, flags & CK_TRANSPOSE_A ? 1 : lda, flags & CK_TRANSPOSE_A ? lda : 1};
  CK_NAME(ck_gemm_packing)
  (flags, m, n, k, CK_NAME(pack_rows), &rows, b, ldb, c, ldc, workspace);
}

// Independent chains of fused multiply-adds, more than are under way at once: what the processor
// can do when nothing is loaded or stored. Each adds to its own sum, as NEON does it in place.
static double CK_NAME(ck_fma_peak)(int64_t steps) {
  enum { CHAINS = CK_MR >= 8 ? 24 : 12 };
  volatile float tiny = 1e-9f;  // changes no sum, which the compiler must not know
  vec sum[CHAINS], factor = (vec){0} + tiny;
  for (int i = 0; i < CHAINS; i++) sum[i] = (vec){0} + (float)(i + 1);
  for (int64_t s = 0; s < steps; s++)
#pragma clang loop unroll(full)
    for (int i = 0; i < CHAINS; i++) sum[i] += sum[i] * factor;
  volatile float kept = 0;
  for (int i = 0; i < CHAINS; i++) kept += sum[i][0];
  return CHAINS * 2.0 * CK_LANES * (double)steps;
}
