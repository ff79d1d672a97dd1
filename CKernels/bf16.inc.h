// SPDX-License-Identifier: MIT
// Numbers made bf16 and brought into the order in which the product reads them, and the dense
// layer's products. Of A·B, the numbers of a row of A that follow each other in the sum lie side by
// side; of B, two rows lie together, number by number, in panels of CK_BF16_PANEL columns: a word is
// what two numbers of A's row meet. So a matrix is only rounded where its rows already run along the
// sum, and two rows are interleaved where its columns do; else it is turned round by words.
#pragma clang fp contract(fast)

typedef uint16_t halves __attribute__((vector_size(2 * CK_LANES), aligned(2)));
enum { CK_BF16_KC = 512, CK_BF16_MC = 128, CK_BF16_NC = 256 };

INLINE ptrdiff_t sixteens(ptrdiff_t n) { return (n + 15) / 16 * 16; }

// The nearest bf16, ties to the even one, in the upper halves. Subnormal numbers are 0.
INLINE words rounded(vec x) {
  words bits = (words)x, up = bits + 0x7FFF + (bits >> 16 & 1);
  words nan = (words)(x != x), tiny = (words)((bits & 0x7F800000) == 0);
  up = (nan & (bits | 0x400000)) | (~nan & up);
  return up & (~tiny | 0x80000000) & 0xFFFF0000;
}

// n numbers, n of them read and written.
static void CK_NAME(narrow)(ptrdiff_t n, const float *x, uint16_t *out) {
  ptrdiff_t i = 0;
  for (; i + CK_LANES <= n; i += CK_LANES)
    *(halves *)(out + i) = __builtin_convertvector(rounded(*(const vec *)(x + i)) >> 16, halves);
  if (i == n) return;
  halves rest = __builtin_convertvector(rounded(some(n - i, x + i)) >> 16, halves);
  memcpy(out + i, &rest, sizeof(uint16_t) * (n - i));
}

// Two rows of n numbers together, in panels `panel` words apart; a row that is NULL is zeros, and so
// are columns that are missing.
static void CK_NAME(narrow_pair)(ptrdiff_t n, const float *first, const float *second,
                                 uint32_t *out, ptrdiff_t panel) {
  for (ptrdiff_t j = 0; j < n; j += CK_BF16_PANEL, out += panel)
    for (ptrdiff_t l = 0; l < CK_BF16_PANEL; l += CK_LANES) {
      ptrdiff_t left = n - j - l;
      vec a = {0}, b = {0};
      if (left >= CK_LANES) {
        if (first) a = *(const vec *)(first + j + l);
        if (second) b = *(const vec *)(second + j + l);
      } else if (left > 0) {
        if (first) a = some(left, first + j + l);
        if (second) b = some(left, second + j + l);
      }
      *(words *)(out + l) = rounded(a) >> 16 | rounded(b);
    }
}

// out (columns, rows) = words in (rows, columns) turned round.
static void CK_NAME(turn_words)(ptrdiff_t rows, ptrdiff_t columns, const uint32_t *in,
                                ptrdiff_t in_row, uint32_t *out, ptrdiff_t out_row) {
  ptrdiff_t i = 0;
  for (; i + 4 <= rows; i += 4) {
    ptrdiff_t j = 0;
    for (; j + 4 <= columns; j += 4) {
      ck_quad turned[4];
      const float *from = (const float *)(in + i * in_row + j);
      ck_turn(*(const ck_quad *)from, *(const ck_quad *)(from + in_row),
              *(const ck_quad *)(from + 2 * in_row), *(const ck_quad *)(from + 3 * in_row), turned);
      for (ptrdiff_t k = 0; k < 4; k++) *(ck_quad *)(out + (j + k) * out_row + i) = turned[k];
    }
    for (; j < columns; j++)
      for (ptrdiff_t k = 0; k < 4; k++) out[j * out_row + i + k] = in[(i + k) * in_row + j];
  }
  for (; i < rows; i++)
    for (ptrdiff_t j = 0; j < columns; j++) out[j * out_row + i] = in[i * in_row + j];
}

// A block (rows, depth) of A in rows of `row` numbers, zeros behind.
static void CK_NAME(bf16_left)(int turned, ptrdiff_t rows, ptrdiff_t depth, const float *a,
                               ptrdiff_t lda, uint16_t *out, ptrdiff_t row, uint32_t *words) {
  ptrdiff_t pairs = sixteens((depth + 1) / 2);
  if (!turned)
    for (ptrdiff_t i = 0; i < rows; i++) {
      CK_NAME(narrow)(depth, a + i * lda, out + i * row);
      memset(out + i * row + depth, 0, sizeof(uint16_t) * (2 * pairs - depth));
    }
  else {
    for (ptrdiff_t k = 0; k < pairs; k++)
      CK_NAME(narrow_pair)
    (rows, 2 * k < depth ? a + 2 * k * lda : NULL,
     2 * k + 1 < depth ? a + (2 * k + 1) * lda : NULL, words + k * CK_BF16_PANEL,
     CK_BF16_PANEL * pairs);
    for (ptrdiff_t i = 0; i < rows; i += CK_BF16_PANEL)
      CK_NAME(turn_words)
    (pairs, rows - i < CK_BF16_PANEL ? rows - i : CK_BF16_PANEL, words + i * pairs, CK_BF16_PANEL,
     (uint32_t *)(out + i * row), row / 2);
  }
}

// A block (depth, columns) of B in panels, zeros below.
static void CK_NAME(bf16_right)(int turned, ptrdiff_t depth, ptrdiff_t columns, const float *b,
                                ptrdiff_t ldb, uint32_t *out, uint32_t *words) {
  ptrdiff_t pairs = sixteens((depth + 1) / 2), panel = pairs * CK_BF16_PANEL;
  if (!turned) {
    for (ptrdiff_t k = 0; k < pairs; k++)
      CK_NAME(narrow_pair)
    (columns, 2 * k < depth ? b + 2 * k * ldb : NULL,
     2 * k + 1 < depth ? b + (2 * k + 1) * ldb : NULL, out + k * CK_BF16_PANEL, panel);
    return;
  }
  for (ptrdiff_t j = 0; j < columns; j += CK_BF16_PANEL, out += panel) {
    ptrdiff_t count = columns - j < CK_BF16_PANEL ? columns - j : CK_BF16_PANEL;
    if (count < CK_BF16_PANEL) memset(out, 0, sizeof *out * panel);
    CK_NAME(bf16_left)(0, count, depth, b + j * ldb, ldb, (uint16_t *)words, 2 * pairs, NULL);
    CK_NAME(turn_words)(count, pairs, words, pairs, out, CK_BF16_PANEL);
  }
}

enum {
  // Rows of A are an odd number of cache lines apart.
  CK_BF16_ROW = CK_BF16_KC + 32,
  CK_BF16_WORKSPACE = CK_BF16_MC * (CK_BF16_ROW / 2 + CK_BF16_NC + CK_BF16_KC / 2) +
                      CK_BF16_NC * CK_BF16_KC / 2
};

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
      ptrdiff_t rows = m - i < MC ? m - i : MC, columns = n - j < NC ? n - j : NC;
      for (ptrdiff_t p = 0; p < k; p += KC) {
        ptrdiff_t depth = k - p < KC ? k - p : KC;
        CK_NAME(bf16_left)
        (turn_a, rows, depth, a + (turn_a ? p * lda + i : i * lda + p), lda, left, CK_BF16_ROW,
         between);
        CK_NAME(bf16_right)
        (turn_b, depth, columns, b + (turn_b ? j * ldb + p : p * ldb + j), ldb, right, between);
        ptrdiff_t pairs = (depth + 1) / 2;
        ck_bf16_multiply(&(ck_bf16_product){.m = rows,
                                            .n = sixteens(columns),
                                            .runs = 1,
                                            .pairs = pairs,
                                            .run_rows = sixteens(pairs),
                                            .a = left,
                                            .a_row = CK_BF16_ROW,
                                            .b = right,
                                            .panel = sixteens(pairs) * CK_BF16_PANEL,
                                            .c = sum,
                                            .ldc = NC});
        for (ptrdiff_t r = 0; r < rows; r++) {
          float *out = c + (i + r) * ldc + j;
          if (p || flags & CK_ACCUMULATE)
            CK_NAME(ck_add)(columns, sum + r * NC, out);
          else
            memcpy(out, sum + r * NC, sizeof(float) * columns);
        }
      }
    }
}
