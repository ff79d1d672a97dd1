// SPDX-License-Identifier: MIT
// Row by row and element by element: plain loops without branches that the compiler turns into
// vectors of this instruction set's width. What they cost is memory traffic, not arithmetic.
#pragma clang fp contract(fast)

static void CK_NAME(ck_bias_add)(ptrdiff_t rows, ptrdiff_t f, const float *bias, int relu,
                                 float *y) {
  for (ptrdiff_t r = 0; bias && r < rows; r++)
    for (ptrdiff_t i = 0; i < f; i++) y[r * f + i] += bias[i];
  if (relu)
    for (ptrdiff_t i = 0; i < rows * f; i++) y[i] = y[i] < 0 ? 0 : y[i];  // a NaN stays one
}

static void CK_NAME(ck_column_sum)(ptrdiff_t rows, ptrdiff_t f, const float *y, float *sum) {
  for (ptrdiff_t j = 0; j < f; j++) sum[j] = 0;
  for (ptrdiff_t first = 0; first < rows; first += CK_SUMMED) {
    ptrdiff_t end = rows - first < CK_SUMMED ? rows : first + CK_SUMMED, i = 0;
    // Two vectors of columns at a time, whose sums stay in registers.
    for (; i + 2 * CK_LANES <= f; i += 2 * CK_LANES) {
      vec left = {0}, right = {0};
      for (ptrdiff_t r = first; r < end; r++) {
        left += *(const vec *)(y + r * f + i);
        right += *(const vec *)(y + r * f + i + CK_LANES);
      }
      *(vec *)(sum + i) += left;
      *(vec *)(sum + i + CK_LANES) += right;
    }
    float part[2 * CK_LANES] = {0};
    for (ptrdiff_t r = first; r < end; r++)
      for (ptrdiff_t j = i; j < f; j++) part[j - i] += y[r * f + j];
    for (ptrdiff_t j = i; j < f; j++) sum[j] += part[j - i];
  }
}

// Whole vectors first, said outright: where a result may be its operand, the compiler's own vector
// loop is for arrays apart, and it would take the numbers one by one.
static void CK_NAME(ck_relu_forward)(ptrdiff_t n, const float *x, float *y) {
  ptrdiff_t i = 0;
  for (; i + CK_LANES <= n; i += CK_LANES) {
    vec value = *(const vec *)(x + i);
    *(vec *)(y + i) = above_zero(value);
  }
  for (; i < n; i++) y[i] = x[i] < 0 ? 0 : x[i];
}

static void CK_NAME(ck_relu_backward)(ptrdiff_t n, const float *y, const float *dy, float *dx) {
  ptrdiff_t i = 0;
  for (; i + CK_LANES <= n; i += CK_LANES)
    *(vec *)(dx + i) = (vec)(~(*(const vec *)(y + i) <= 0) & *(const ints *)(dy + i));
  for (; i < n; i++) dx[i] = y[i] <= 0 ? 0 : dy[i];
}

static void CK_NAME(ck_relu_places)(ptrdiff_t n, const float *y, uint16_t *place) {
  for (ptrdiff_t i = 0; i < n; i++) place[i] = y[i] <= 0 ? UINT16_MAX : place[i];
}

static void CK_NAME(ck_add)(ptrdiff_t n, const float *x, float *y) {
  for (ptrdiff_t i = 0; i < n; i++) y[i] += x[i];
}

// Lane by lane x · scale + shift, or x itself.
INLINE vec scaled(const int is, const float *x, const float *scale, const float *shift,
                  ptrdiff_t i) {
  vec value = *(const vec *)(x + i);
  return is ? value * *(const vec *)(scale + i) + *(const vec *)(shift + i) : value;
}

INLINE void sum_rows(const int of_a, const int of_b, ptrdiff_t rows, ptrdiff_t c, const float *a,
                     const float *scale_a, const float *shift_a, const float *b,
                     const float *scale_b, const float *shift_b, int relu, float *y) {
  for (ptrdiff_t r = 0; r < rows; r++, a += c, b += c, y += c) {
    ptrdiff_t i = 0;
    for (; i + CK_LANES <= c; i += CK_LANES) {
      vec sum = scaled(of_a, a, scale_a, shift_a, i) + scaled(of_b, b, scale_b, shift_b, i);
      if (relu) sum = above_zero(sum);
      *(vec *)(y + i) = sum;
    }
    for (; i < c; i++) {
      float left = of_a ? a[i] * scale_a[i] + shift_a[i] : a[i];
      float right = of_b ? b[i] * scale_b[i] + shift_b[i] : b[i], sum = left + right;
      y[i] = relu && sum < 0 ? 0 : sum;
    }
  }
}

static void CK_NAME(ck_sum)(ptrdiff_t rows, ptrdiff_t c, const float *a, const float *scale_a,
                            const float *shift_a, const float *b, const float *scale_b,
                            const float *shift_b, int relu, float *y) {
  if (scale_a && scale_b)
    sum_rows(1, 1, rows, c, a, scale_a, shift_a, b, scale_b, shift_b, relu, y);
  else if (scale_a)
    sum_rows(1, 0, rows, c, a, scale_a, shift_a, b, NULL, NULL, relu, y);
  else if (scale_b)
    sum_rows(0, 1, rows, c, a, NULL, NULL, b, scale_b, shift_b, relu, y);
  else  // all of it as one row
    sum_rows(0, 0, 1, rows * c, a, NULL, NULL, b, NULL, NULL, relu, y);
}

static void CK_NAME(ck_scale_bytes)(ptrdiff_t n, const uint8_t *x, float scale, float *y) {
  for (ptrdiff_t i = 0; i < n; i++) y[i] = scale * (float)x[i];
}
