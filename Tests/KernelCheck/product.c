// SPDX-License-Identifier: MIT
// The matrix product and the dense layer: transposed, in pieces, packed on the way; long sums.
#include "check.h"

static const int product_sizes[][3] = {
    {1, 1, 1},   {1, 17, 3},  {17, 1, 3},   {3, 5, 1},    {4, 8, 16},    {6, 16, 7},
    {8, 8, 8},   {14, 32, 9}, {12, 8, 5},   {15, 33, 10}, {13, 31, 255}, {28, 64, 66},
    {9, 7, 64},  {5, 9, 513}, {2, 3, 511},  {7, 4, 512},  {100, 10, 31}, {197, 33, 5},
    {113, 2, 4}, {7, 530, 3}, {3, 1027, 6}, {5, 6, 1030}};

/// An A (rows, lda) that is written part by part, and the three floats behind that may be written.
typedef struct packed_matrix {
  const float *a;
  ptrdiff_t lda;
} packed_matrix;

static void pack(const void *matrix, ptrdiff_t row, ptrdiff_t rows, ptrdiff_t from, ptrdiff_t count,
                 float *out) {
  const packed_matrix *m = matrix;
  FOR(e, 3) out[rows * count + e] = NAN;
  FOR(p, count) FOR(i, rows) out[p * rows + i] = m->a[(row + i) * m->lda + from + p];
}

/// `narrow`: of numbers rounded to bf16.
static void check_gemm(int narrow) {
  const ck_table *kernels = ck_kernels();
  void (*gemm)(int, ptrdiff_t, ptrdiff_t, ptrdiff_t, const float *, ptrdiff_t, const float *,
               ptrdiff_t, float *, ptrdiff_t, float *) =
      narrow ? kernels->gemm_bf16 : kernels->gemm;
  FOR(flags, 8) FOR(i, COUNT(product_sizes)) {
    ptrdiff_t m = product_sizes[i][0], n = product_sizes[i][1], k = product_sizes[i][2];
    int turn_a = flags & CK_TRANSPOSE_A, turn_b = flags & CK_TRANSPOSE_B;
    // Rows longer than they need be, on every other size: what lies between them must stay.
    int gap = i % 2;
    ptrdiff_t lda = (turn_a ? m : k) + 3 * gap, ldb = (turn_b ? k : n) + gap, ldc = n + 2 * gap;
    begin_case(narrow ? "gemm_bf16" : "gemm", NULL,
               "%td×%td×%td%s%s%s, rows %td, %td and %td apart", m, n, k,
               turn_a ? ", A transposed" : "", turn_b ? ", B transposed" : "",
               flags & CK_ACCUMULATE ? ", added" : "", lda, ldb, ldc);
    const float *a = values((turn_a ? k : m) * lda, 1), *b = values((turn_b ? n : k) * ldb, 2);
    float *whole = values(m * ldc, 3), *pieces = copy(whole, m * ldc);
    float *workspace = floats(narrow ? kernels->gemm_bf16_workspace : kernels->gemm_workspace);
    const float *left_a = narrow ? narrowed(a, (turn_a ? k : m) * lda) : a;
    const float *right_b = narrow ? narrowed(b, (turn_b ? n : k) * ldb) : b;
    double *expected = sums(m * ldc);
    FOR(e, m * ldc) expected[e] = whole[e];
    FOR(r, m) FOR(j, n) {
      double sum = flags & CK_ACCUMULATE ? whole[r * ldc + j] : 0;
      FOR(p, k)
      sum += (double)(turn_a ? left_a[p * lda + r] : left_a[r * lda + p]) *
             (turn_b ? right_b[j * ldb + p] : right_b[p * ldb + j]);
      expected[r * ldc + j] = sum;
    }
    gemm(flags, m, n, k, a, lda, b, ldb, whole, ldc, workspace);
    compare(whole, expected, m * ldc, rounding(k));
    if (narrow) digest_bf16(0, whole, m * ldc);
    // C in six pieces.
    ptrdiff_t rows[] = {0, m / 3, m}, columns[] = {0, n / 5, n / 2, n};
    FOR(u, 2) FOR(v, 3) {
      ptrdiff_t r = rows[u], j = columns[v], height = rows[u + 1] - r, width = columns[v + 1] - j;
      if (height && width)
        gemm(flags, height, width, k, a + (turn_a ? r : r * lda), lda, b + (turn_b ? j * ldb : j),
             ldb, pieces + r * ldc + j, ldc, workspace);
    }
    same("C computed in pieces", pieces, whole, m * ldc);
    if (narrow) {
      ptrdiff_t column = kernels->bf16_column(k);
      float *ready = floats((n + 15) / 16 * 16 * column), *by_ready = values(m * ldc, 3);
      FOR(part,
          (n + CK_BF16_COLUMNS - 1) / CK_BF16_COLUMNS * ((k + CK_BF16_DEPTH - 1) / CK_BF16_DEPTH))
      kernels->bf16_ready(flags, n, k, b, ldb, part, ready, workspace);
      ptrdiff_t width;
      for (ptrdiff_t j = 0; j < n; j += width) {
        width = n - j < CK_BF16_COLUMNS ? n - j : CK_BF16_COLUMNS;
        gemm(flags | CK_READY_B, m, width, k, a, lda, ready + j * column, column, by_ready + j, ldc,
             workspace);
      }
      same("by B made ready", by_ready, whole, m * ldc);
    }
    end_case();
    if (turn_a || narrow) continue;
    begin_case("gemm_packing", NULL, "%td×%td×%td%s%s", m, n, k, turn_b ? ", B transposed" : "",
               flags & CK_ACCUMULATE ? ", added" : "");
    const float *left = values(m * lda, 1), *right = values((turn_b ? n : k) * ldb, 2);
    float *direct = values(m * ldc, 3), *indirect = copy(direct, m * ldc);
    packed_matrix matrix = {left, lda};
    workspace = floats(ck_kernels()->gemm_workspace);
    ck_kernels()->gemm((int)flags, m, n, k, left, lda, right, ldb, direct, ldc, workspace);
    ck_kernels()->gemm_packing((int)flags, m, n, k, pack, &matrix, right, ldb, indirect, ldc,
                               workspace);
    same("against ck_gemm", indirect, direct, m * ldc);
    end_case();
  }
}

static void check_dense(void) {
  FOR(relu, 2) FOR(i, COUNT(product_sizes) + 1) {
    const int tall[] = {6, 7, 2051}, *size = i < COUNT(product_sizes) ? product_sizes[i] : tall;
    ptrdiff_t m = size[0], n = size[1], k = size[2], ldy = n + 3 * (i % 2);
    begin_case("dense_forward", NULL, "%td×%td×%td%s, rows %td apart", m, n, k,
               relu ? ", ReLU" : "", ldy);
    const float *x = values(m * k, 1), *w = values(n * k, 2), *bias = values(n, 3);
    float *whole = values(m * ldy, 5), *pieces = copy(whole, m * ldy);
    double *expected = sums(m * ldy);
    FOR(e, m * ldy) expected[e] = whole[e];
    FOR(r, m) FOR(j, n) {
      double sum = bias[j];
      FOR(p, k) sum += (double)x[r * k + p] * w[j * k + p];
      expected[r * ldy + j] = relu && sum < 0 ? 0 : sum;
    }
    ck_kernels()->dense_forward(m, n, k, x, w, bias, relu, whole, ldy);
    compare(whole, expected, m * ldy, rounding(k + 1));
    ptrdiff_t rows[] = {0, m / 3, m}, columns[] = {0, n / 5, n / 2, n};
    FOR(u, 2) FOR(v, 3) {
      ptrdiff_t r = rows[u], j = columns[v], height = rows[u + 1] - r, width = columns[v + 1] - j;
      if (height && width)
        ck_kernels()->dense_forward(height, width, k, x + r * k, w + j * k, bias + j, relu,
                                    pieces + r * ldy + j, ldy);
    }
    same("y computed in pieces", pieces, whole, m * ldy);
    end_case();
  }
}

static void check_long(void) {
  ptrdiff_t n = long_count();
  begin_case("gemm", NULL, "2×3×%td, all positive", n);
  float *a = positive(2 * n, 1), *b = positive(3 * n, 2), *c = floats(6), *bias = positive(3, 3);
  double *expected = sums(6);
  FOR(i, 2) FOR(j, 3) FOR(k, n) expected[i * 3 + j] += (double)a[i * n + k] * b[j * n + k];
  ck_kernels()->gemm(CK_TRANSPOSE_B, 2, 3, n, a, n, b, n, c, 3,
                     floats(ck_kernels()->gemm_workspace));
  FOR(e, 6) compare(c + e, expected + e, 1, (514 + (double)n / 512) * unit * expected[e]);
  begin_case("dense_forward", NULL, "2×3×%td, all positive", n);
  ck_kernels()->dense_forward(2, 3, n, a, b, bias, 0, c, 3);
  FOR(e, 6) {
    expected[e] += bias[e % 3];
    compare(c + e, expected + e, 1, (264 + (double)n / 1024) * unit * expected[e]);
  }
  end_case();
}

void check_product(void) {
  check_gemm(1);
  if (bf16_only) return;
  check_gemm(0);
  check_dense();
  check_long();
}

/// The three passes of the networks' dense layers.
void time_product(void) {
  static const int rows[][2] = {{5408, 100}, {1600, 128}, {3136, 128}, {128, 10}};
  const ck_table *k = ck_kernels();
  float *workspace = floats(k->gemm_workspace);
  FOR(i, COUNT(rows)) {
    int m = BATCH, from = rows[i][0], to = rows[i][1];
    double operations = 2.0 * m * from * to;
    float *x = values(m * from, 1), *w = values(from * to, 2), *bias = values(to, 3);
    float *y = values(m * to, 4), *dx = floats(m * from), *dw = floats(from * to);
    TIME(operations, 0, k->dense_forward(m, to, from, x, w, bias, 1, y, to), "dense_forward", NULL,
         "%d×%d to %d", m, from, to);
    TIME(operations, 0, k->gemm(0, m, from, to, y, to, w, from, dx, from, workspace), "gemm", NULL,
         "%d×%d to %d, input gradient", m, from, to);
    TIME(operations, 0, k->gemm(CK_TRANSPOSE_A, to, from, m, y, to, x, from, dw, from, workspace),
         "gemm", NULL, "%d×%d to %d, weight gradient", m, from, to);
  }
  end_case();
}
