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
    *(vec *)(y + i) = (vec)(~(value < 0) & (ints)value);
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

static void CK_NAME(ck_sum)(ptrdiff_t n, const float *a, const float *b, float *y) {
  for (ptrdiff_t i = 0; i < n; i++) y[i] = a[i] + b[i];
}

static void CK_NAME(ck_scale_bytes)(ptrdiff_t n, const uint8_t *x, float scale, float *y) {
  for (ptrdiff_t i = 0; i < n; i++) y[i] = scale * (float)x[i];
}
