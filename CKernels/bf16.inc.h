// SPDX-License-Identifier: MIT
// Numbers made bf16 and brought into the order in which the product reads them, and the dense
// layer's products. Of A·B, the numbers of a row of A that follow each other in the sum lie side by
// side; of B, two rows lie together, number by number, in panels of CK_BF16_PANEL columns: a word
// is what two numbers of A's row meet. So a matrix is only rounded where its rows already run along
// the sum, and two rows are interleaved where its columns do; else it is turned round by words.
#pragma clang fp contract(fast)

enum { CK_BF16_KC = CK_BF16_DEPTH, CK_BF16_MC = 128, CK_BF16_NC = CK_BF16_COLUMNS };

INLINE ptrdiff_t sixteens(ptrdiff_t n) { return (n + 15) / 16 * 16; }

// The lanes of the lower, and of the upper, halves of a and b by turns.
#if CK_LANES == 16
#define CK_LOWER(a, b) \
  __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
#define CK_UPPER(a, b) \
  __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)
#elif CK_LANES == 8
#define CK_LOWER(a, b) __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11)
#define CK_UPPER(a, b) __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15)
#else
#define CK_LOWER(a, b) __builtin_shufflevector(a, b, 0, 4, 1, 5)
#define CK_UPPER(a, b) __builtin_shufflevector(a, b, 2, 6, 3, 7)
#endif

// out (columns, rows) = words in (rows, columns) turned round: as many rows as a vector has lanes
// are shuffled like a pack of cards, as often as it can be halved.
static void CK_NAME(turn_words)(ptrdiff_t rows, ptrdiff_t columns, const uint32_t *in,
                                ptrdiff_t in_row, uint32_t *out, ptrdiff_t out_row) {
  ptrdiff_t i = 0;
  for (; i + CK_LANES <= rows; i += CK_LANES) {
    ptrdiff_t j = 0;
    for (; j + CK_LANES <= columns; j += CK_LANES) {
      words now[CK_LANES], next[CK_LANES];
#pragma clang loop unroll(full)
      for (int k = 0; k < CK_LANES; k++) now[k] = *(const words *)(in + (i + k) * in_row + j);
#pragma clang loop unroll(full)
      for (int times = CK_LANES; times > 1; times /= 2) {
#pragma clang loop unroll(full)
        for (int k = 0; k < CK_LANES / 2; k++) {
          next[2 * k] = CK_LOWER(now[k], now[k + CK_LANES / 2]);
          next[2 * k + 1] = CK_UPPER(now[k], now[k + CK_LANES / 2]);
        }
#pragma clang loop unroll(full)
        for (int k = 0; k < CK_LANES; k++) now[k] = next[k];
      }
#pragma clang loop unroll(full)
      for (int k = 0; k < CK_LANES; k++) *(words *)(out + (j + k) * out_row + i) = now[k];
    }
    for (; j < columns; j++)
      for (ptrdiff_t k = 0; k < CK_LANES; k++) out[j * out_row + i + k] = in[(i + k) * in_row + j];
  }
  for (; i < rows; i++)
    for (ptrdiff_t j = 0; j < columns; j++) out[j * out_row + i] = in[i * in_row + j];
}
#undef CK_LOWER
#undef CK_UPPER

// out (taps,F,C) = w (taps,C,F), the last tap first.
static void CK_NAME(turn_weights)(ptrdiff_t taps, ptrdiff_t c, ptrdiff_t f, const float *w,
                                  float *out) {
  for (ptrdiff_t i = taps - 1; i >= 0; i--, out += c * f) CK_NAME(turn_words)
  (c, f, (const uint32_t *)(w + i * c * f), f, (uint32_t *)out, c);
}

// Rows of a matrix (depth, columns) by twos, in panels of `rows` rows, zeros below.
static void CK_NAME(bf16_rows)(ptrdiff_t depth, ptrdiff_t columns, const float *x, ptrdiff_t ldx,
                               uint32_t *out, ptrdiff_t rows) {
  const ck_bf16_functions *by = ck_bf16();
  ptrdiff_t whole = depth / 2, panel = rows * CK_BF16_PANEL;
  by->round_pairs(whole, columns, x, x + ldx, 2 * ldx, out, panel);
  if (depth % 2)
    by->round_pairs(1, columns, x + 2 * whole * ldx, NULL, 0, out + whole * CK_BF16_PANEL, panel);
  ptrdiff_t filled = (depth + 1) / 2;
  by->round_pairs(rows - filled, columns, NULL, NULL, 0, out + filled * CK_BF16_PANEL, panel);
}

// A block (rows, depth) of A in rows of `row` numbers, zeros behind.
static void CK_NAME(bf16_left)(int turned, ptrdiff_t rows, ptrdiff_t depth, const float *a,
                               ptrdiff_t lda, uint16_t *out, ptrdiff_t row, uint32_t *between) {
  ptrdiff_t pairs = sixteens((depth + 1) / 2);
  if (!turned) {
    ck_bf16_round_fn *round = ck_bf16()->round;
    for (ptrdiff_t i = 0; i < rows; i++) {
      round(depth, a + i * lda, out + i * row);
      memset(out + i * row + depth, 0, sizeof(uint16_t) * (2 * pairs - depth));
    }
    return;
  }
  CK_NAME(bf16_rows)(depth, rows, a, lda, between, pairs);
  for (ptrdiff_t i = 0; i < rows; i += CK_BF16_PANEL) CK_NAME(turn_words)
  (pairs, smaller(rows - i, CK_BF16_PANEL), between + i * pairs, CK_BF16_PANEL,
   (uint32_t *)(out + i * row), row / 2);
}

// A block (depth, columns) of B in panels, zeros below.
static void CK_NAME(bf16_right)(int turned, ptrdiff_t depth, ptrdiff_t columns, const float *b,
                                ptrdiff_t ldb, uint32_t *out, uint32_t *between) {
  ptrdiff_t pairs = sixteens((depth + 1) / 2), panel = pairs * CK_BF16_PANEL;
  if (!turned) return CK_NAME(bf16_rows)(depth, columns, b, ldb, out, pairs);
  for (ptrdiff_t j = 0; j < columns; j += CK_BF16_PANEL, out += panel) {
    ptrdiff_t count = smaller(columns - j, CK_BF16_PANEL);
    if (count < CK_BF16_PANEL) memset(out, 0, sizeof *out * panel);
    CK_NAME(bf16_left)(0, count, depth, b + j * ldb, ldb, (uint16_t *)between, 2 * pairs, NULL);
    CK_NAME(turn_words)(count, pairs, between, pairs, out, CK_BF16_PANEL);
  }
}

enum {
  // Rows of A are an odd number of cache lines apart.
  CK_BF16_ROW = CK_BF16_KC + 32,
  CK_BF16_WORKSPACE =
      CK_BF16_MC * (CK_BF16_ROW / 2 + CK_BF16_NC + CK_BF16_KC / 2) + CK_BF16_NC * CK_BF16_KC / 2
};

static ptrdiff_t CK_NAME(ck_bf16_column)(ptrdiff_t k) {
  return k / CK_BF16_KC * (CK_BF16_KC / 2) + sixteens((k % CK_BF16_KC + 1) / 2);
}

static void CK_NAME(ck_bf16_ready)(int flags, ptrdiff_t n, ptrdiff_t k, const float *b,
                                   ptrdiff_t ldb, ptrdiff_t part, float *ready, float *workspace) {
  enum { NC = CK_BF16_NC, KC = CK_BF16_KC };
  ptrdiff_t down = (k + KC - 1) / KC, j = part / down * NC, p = part % down * KC;
  ptrdiff_t columns = smaller(n - j, NC);
  int turned = flags & CK_TRANSPOSE_B;
  CK_NAME(bf16_right)
  (turned, smaller(k - p, KC), columns, b + (turned ? j * ldb + p : p * ldb + j), ldb,
   (uint32_t *)ready + j * CK_NAME(ck_bf16_column)(k) + sixteens(columns) * p / 2,
   (uint32_t *)workspace);
}

static void CK_NAME(ck_gemm_bf16)(int flags, ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, const float *a,
                                  ptrdiff_t lda, const float *b, ptrdiff_t ldb, float *c,
                                  ptrdiff_t ldc, float *workspace) {
  enum { MC = CK_BF16_MC, NC = CK_BF16_NC, KC = CK_BF16_KC };
  float *sum = workspace;
  uint16_t *left = (uint16_t *)(sum + MC * NC);
  uint32_t *right = (uint32_t *)(left + MC * CK_BF16_ROW), *between = right + NC * KC / 2;
  int turn_a = flags & CK_TRANSPOSE_A, turn_b = flags & CK_TRANSPOSE_B;
  for (ptrdiff_t j = 0; j < n; j += NC)
    for (ptrdiff_t i = 0; i < m; i += MC) {
      ptrdiff_t rows = smaller(m - i, MC), columns = smaller(n - j, NC);
      for (ptrdiff_t p = 0; p < k; p += KC) {
        ptrdiff_t depth = smaller(k - p, KC);
        CK_NAME(bf16_left)
        (turn_a, rows, depth, a + (turn_a ? p * lda + i : i * lda + p), lda, left, CK_BF16_ROW,
         between);
        const uint32_t *packed = right;
        if (flags & CK_READY_B)
          packed = (const uint32_t *)b + j * ldb + sixteens(columns) * p / 2;
        else
          CK_NAME(bf16_right)
        (turn_b, depth, columns, b + (turn_b ? j * ldb + p : p * ldb + j), ldb, right, between);
        // Straight to C where that has room for whole vectors, else by way of `sum`.
        float *out = c + i * ldc + j;
        int straight = k <= KC && !(flags & CK_ACCUMULATE) && columns % 16 == 0;
        ptrdiff_t pairs = (depth + 1) / 2;
        ck_bf16()->product(&(ck_bf16_product){.m = rows,
                                              .n = sixteens(columns),
                                              .runs = 1,
                                              .pairs = pairs,
                                              .run_rows = sixteens(pairs),
                                              .a = left,
                                              .a_row = CK_BF16_ROW,
                                              .b = packed,
                                              .panel = sixteens(pairs) * CK_BF16_PANEL,
                                              .c = straight ? out : sum,
                                              .ldc = straight ? ldc : NC});
        if (straight) continue;
        for (ptrdiff_t r = 0; r < rows; r++)
          if (p || flags & CK_ACCUMULATE)
            CK_NAME(ck_add)(columns, sum + r * NC, out + r * ldc);
          else
            memcpy(out + r * ldc, sum + r * NC, sizeof(float) * columns);
      }
    }
}
