// SPDX-License-Identifier: MIT
// The dense layer's forward pass, y = x·wᵀ + bias. Both operands have their long side, the inputs,
// side by side in memory: each output is the dot product of a row of x with a row of w. So nothing
// is packed: a tile of 4 rows of x by 5 rows of w keeps 20 vectors of partial sums in registers
// while both are read straight through, and adds each vector's lanes up at the end of a block of
// the inputs, short enough that the block of w stays in the second-level cache. The gradients run
// through the matrix product, where nothing has to be transposed either.
#pragma clang fp contract(fast)

enum {
  // By the registers, of which AVX-512 and NEON have 32: CK_MR is at least 8 there.
  CK_DENSE_ROWS = CK_MR >= 8   ? 4
                  : CK_MR >= 6 ? 3
                               : 2,
  CK_DENSE_COLUMNS = CK_MR >= 8   ? 5
                     : CK_MR >= 6 ? 3
                                  : 2,
  CK_DENSE_BLOCK = 1024
};

// The lanes of a vector added up to four.
INLINE ck_quad fold(vec v) {
#if CK_LANES == 16
  typedef float octet __attribute__((vector_size(32)));
  octet half = __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7) +
               __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15);
  return __builtin_shufflevector(half, half, 0, 1, 2, 3) +
         __builtin_shufflevector(half, half, 4, 5, 6, 7);
#elif CK_LANES == 8
  return __builtin_shufflevector(v, v, 0, 1, 2, 3) + __builtin_shufflevector(v, v, 4, 5, 6, 7);
#else
  return v;
#endif
}

// The lanes of four vectors, each added up: half the work of doing so one by one.
INLINE ck_quad lanes(vec a, vec b, vec c, vec d) {
  ck_quad p = fold(a), q = fold(b), r = fold(c), s = fold(d);
  ck_quad pq =
      __builtin_shufflevector(p, q, 0, 4, 1, 5) + __builtin_shufflevector(p, q, 2, 6, 3, 7);
  ck_quad rs =
      __builtin_shufflevector(r, s, 0, 4, 1, 5) + __builtin_shufflevector(r, s, 2, 6, 3, 7);
  return __builtin_shufflevector(pq, rs, 0, 1, 4, 5) + __builtin_shufflevector(pq, rs, 2, 3, 6, 7);
}

// sum (rows, columns) of one block of the inputs.
INLINE void dense_tile(const int rows, const int columns, ptrdiff_t k, const float *x,
                       ptrdiff_t ldx, const float *w, ptrdiff_t ldw, float *y, ptrdiff_t ldy,
                       const float *bias) {
  vec sum[CK_DENSE_ROWS][CK_DENSE_COLUMNS] = {0};
  ptrdiff_t p = 0;
  for (; p + CK_LANES <= k; p += CK_LANES) {
    vec left[CK_DENSE_ROWS];
#pragma clang loop unroll(full)
    for (int i = 0; i < rows; i++) left[i] = *(const vec *)(x + i * ldx + p);
#pragma clang loop unroll(full)
    for (int j = 0; j < columns; j++) {
      vec right = *(const vec *)(w + j * ldw + p);
#pragma clang loop unroll(full)
      for (int i = 0; i < rows; i++) sum[i][j] += left[i] * right;
    }
  }
#pragma clang loop unroll(full)
  for (int j = 0; j < columns; j++) {
    ck_quad total = lanes(sum[0][j], sum[rows > 1 ? 1 : 0][j], sum[rows > 2 ? 2 : 0][j],
                          sum[rows > 3 ? 3 : 0][j]);
#pragma clang loop unroll(full)
    for (int i = 0; i < rows; i++) {
      float value = total[i];
      for (ptrdiff_t r = p; r < k; r++) value += x[i * ldx + r] * w[j * ldw + r];
      y[i * ldy + j] = (bias ? bias[j] : y[i * ldy + j]) + value;
    }
  }
}

static void CK_NAME(ck_dense_forward)(ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, const float *x,
                                      const float *w, const float *bias, int relu, float *y,
                                      ptrdiff_t ldy) {
  enum { ROWS = CK_DENSE_ROWS, COLUMNS = CK_DENSE_COLUMNS };
  for (ptrdiff_t p = 0; p < k; p += CK_DENSE_BLOCK) {
    ptrdiff_t depth = k - p < CK_DENSE_BLOCK ? k - p : CK_DENSE_BLOCK;
    // The rows of w stay in the first-level cache while all rows of x pass by. At the edges the
    // same sums are made in narrower tiles.
    for (ptrdiff_t j = 0, columns; j < n; j += columns) {
      columns = n - j >= COLUMNS ? COLUMNS : 1;
      const float *right = w + j * k + p, *start = p ? NULL : bias + j;
      for (ptrdiff_t i = 0, rows; i < m; i += rows) {
        rows = m - i >= ROWS ? ROWS : 1;
        const float *left = x + i * k + p;
        float *out = y + i * ldy + j;
        if (rows == ROWS && columns == COLUMNS)
          dense_tile(ROWS, COLUMNS, depth, left, k, right, k, out, ldy, start);
        else if (columns == COLUMNS)
          dense_tile(1, COLUMNS, depth, left, k, right, k, out, ldy, start);
        else if (rows == ROWS)
          dense_tile(ROWS, 1, depth, left, k, right, k, out, ldy, start);
        else
          dense_tile(1, 1, depth, left, k, right, k, out, ldy, start);
      }
    }
  }
  if (relu)
    for (ptrdiff_t i = 0; i < m; i++) CK_NAME(ck_relu_forward)(n, y + i * ldy, y + i * ldy);
}
