// SPDX-License-Identifier: MIT
// Floats made bf16: the nearest number of 8 bits, ties to the even one. Subnormal numbers are 0.
#ifndef CK_ROUND
typedef uint32_t words __attribute__((vector_size(4 * CK_LANES), aligned(4)));
typedef uint16_t halves __attribute__((vector_size(2 * CK_LANES), aligned(2)));

// In the upper halves, the lower ones 0.
INLINE words bf16_upper(vec x) {
  words bits = (words)x, up = bits + 0x7FFF + (bits >> 16 & 1);
  words nan = (words)(x != x), tiny = (words)((bits & 0x7F800000) == 0);
  up = (nan & (bits | 0x400000)) | (~nan & up);
  return up & (~tiny | 0x80000000) & 0xFFFF0000;
}
#define CK_ROUND(x) __builtin_convertvector(bf16_upper(x) >> 16, halves)
#define CK_ROUND_PAIR(first, second) (bf16_upper(first) >> 16 | bf16_upper(second))
#endif

static void CK_NAME(ck_bf16_round)(ptrdiff_t n, const float *x, uint16_t *out) {
  ptrdiff_t i = 0;
  for (; i + CK_LANES <= n; i += CK_LANES) *(halves *)(out + i) = CK_ROUND(*(const vec *)(x + i));
  if (i == n) return;
  halves rest = CK_ROUND(some(n - i, x + i));
  memcpy(out + i, &rest, sizeof(uint16_t) * (n - i));
}

// `left` numbers of each of two rows, which may be NULL.
INLINE words bf16_pair(ptrdiff_t left, const float *first, const float *second) {
  vec a = {0}, b = {0};
  if (left >= CK_LANES) {
    if (first) a = *(const vec *)first;
    if (second) b = *(const vec *)second;
  } else if (left > 0) {
    if (first) a = some(left, first);
    if (second) b = some(left, second);
  }
  return CK_ROUND_PAIR(a, b);
}

static void CK_NAME(ck_bf16_round_pairs)(ptrdiff_t rows, ptrdiff_t n, const float *first,
                                         const float *second, ptrdiff_t step, uint32_t *out,
                                         ptrdiff_t panel) {
  for (ptrdiff_t j = 0; j < n; j += CK_BF16_PANEL, out += panel)
    for (ptrdiff_t l = 0; l < CK_BF16_PANEL; l += CK_LANES) {
      ptrdiff_t left = n - j - l, at = j + l;
      uint32_t *to = out + l;
      if (first && second && left >= CK_LANES)
        for (ptrdiff_t r = 0; r < rows; r++, at += step, to += CK_BF16_PANEL)
          *(words *)to = CK_ROUND_PAIR(*(const vec *)(first + at), *(const vec *)(second + at));
      else
        for (ptrdiff_t r = 0; r < rows; r++, at += step, to += CK_BF16_PANEL)
          *(words *)to = bf16_pair(left, first ? first + at : NULL, second ? second + at : NULL);
    }
}
#undef CK_ROUND
#undef CK_ROUND_PAIR
