// SPDX-License-Identifier: MIT
// Batch and layer normalisation. Batch normalisation is arithmetic on columns: the values of a
// channel, one a pixel, lie C floats apart. So a block of channels, two vectors wide, is taken down
// all rows while its sums or factors stay in registers; what it costs is reading the array once for
// each pass. Its gradient needs two: the sums over all rows must be known before the first dx.
// ReLU behind it is part of the passes, and its derivative comes from x again rather than from
// memory. Layer normalisation is the same along rows, which need no second pass.
#include <math.h>

// Calls a block function for all columns: two vectors wide, then one, then one column.
#define CK_FOR_COLUMNS(c, block, ...)                                      \
  {                                                                        \
    ptrdiff_t i = 0;                                                       \
    for (; i + 2 * CK_LANES <= (c); i += 2 * CK_LANES)                     \
      CK_NAME(block##_vectors)(2, rows, c, i, __VA_ARGS__);                \
    for (; i + CK_LANES <= (c); i += CK_LANES)                             \
      CK_NAME(block##_vectors)(1, rows, c, i, __VA_ARGS__);                \
    for (; i < (c); i++) CK_NAME(block##_column)(rows, c, i, __VA_ARGS__); \
  }

// A sum over many rows loses digits: after this many, its part goes to the total.
enum { CK_NAME(part) = 256 };

INLINE void CK_NAME(moments_vectors)(const int n, ptrdiff_t rows, ptrdiff_t c, ptrdiff_t i,
                                     const float *x, float *mean, float *squares) {
  // Off the first row's value: a variance is the difference of two sums, and these are small where
  // what is summed is near zero.
  vec total[2] = {{0}}, totals[2] = {{0}}, from[2];
  for (int v = 0; v < n; v++) from[v] = *(const vec *)(x + i + v * CK_LANES);
  for (ptrdiff_t r = 0; r < rows;) {
    ptrdiff_t end = rows - r < CK_NAME(part) ? rows : r + CK_NAME(part);
    vec s[2] = {{0}}, q[2] = {{0}};
    for (; r < end; r++)
      for (int v = 0; v < n; v++) {
        vec off = *(const vec *)(x + r * c + i + v * CK_LANES) - from[v];
        s[v] += off;
        q[v] += off * off;
      }
    for (int v = 0; v < n; v++) total[v] += s[v], totals[v] += q[v];
  }
  for (int v = 0; v < n; v++) {
    *(vec *)(mean + i + v * CK_LANES) = from[v] + total[v] / (float)rows;
    *(vec *)(squares + i + v * CK_LANES) = totals[v] - total[v] * total[v] / (float)rows;
  }
}

INLINE void CK_NAME(moments_column)(ptrdiff_t rows, ptrdiff_t c, ptrdiff_t i, const float *x,
                                    float *mean, float *squares) {
  double s = 0, q = 0;
  for (ptrdiff_t r = 0; r < rows; r++) {
    double off = (double)x[r * c + i] - x[i];
    s += off, q += off * off;
  }
  mean[i] = (float)(x[i] + s / (double)rows), squares[i] = (float)(q - s * s / (double)rows);
}

static void CK_NAME(ck_moments)(ptrdiff_t rows, ptrdiff_t c, const float *x, float *mean,
                                float *squares){CK_FOR_COLUMNS(c, moments, x, mean, squares)}

INLINE void CK_NAME(scale_shift_vectors)(const int n, ptrdiff_t rows, ptrdiff_t c, ptrdiff_t i,
                                         const float *x, const float *scale, const float *shift,
                                         int relu, float *y) {
  vec factor[2], term[2];
  ints keep = (ints){0} - (relu ? 0 : 1);  // all ones: nothing is cut off
  for (int v = 0; v < n; v++) {
    factor[v] = *(const vec *)(scale + i + v * CK_LANES);
    term[v] = *(const vec *)(shift + i + v * CK_LANES);
  }
  for (ptrdiff_t r = 0; r < rows; r++)
    for (int v = 0; v < n; v++) {
      vec value = *(const vec *)(x + r * c + i + v * CK_LANES) * factor[v] + term[v];
      *(vec *)(y + r * c + i + v * CK_LANES) = (vec)((~(value < 0) | keep) & (ints)value);
    }
}

INLINE void CK_NAME(scale_shift_column)(ptrdiff_t rows, ptrdiff_t c, ptrdiff_t i, const float *x,
                                        const float *scale, const float *shift, int relu,
                                        float *y) {
  for (ptrdiff_t r = 0; r < rows; r++) {
    float value = x[r * c + i] * scale[i] + shift[i];
    y[r * c + i] = relu && value < 0 ? 0 : value;
  }
}

static void CK_NAME(ck_scale_shift)(ptrdiff_t rows, ptrdiff_t c, const float *x, const float *scale,
                                    const float *shift, int relu, float *y){
    CK_FOR_COLUMNS(c, scale_shift, x, scale, shift, relu, y)}

INLINE void CK_NAME(sums_vectors)(const int n, ptrdiff_t rows, ptrdiff_t c, ptrdiff_t i,
                                  const float *x, const float *dy, const float *mean,
                                  const float *scale, const float *shift, int relu, float *sum,
                                  float *product) {
  vec total[2] = {{0}}, totals[2] = {{0}}, from[2], factor[2], term[2];
  ints keep = (ints){0} - (relu ? 0 : 1);
  for (int v = 0; v < n; v++) {
    from[v] = *(const vec *)(mean + i + v * CK_LANES);
    factor[v] = *(const vec *)(scale + i + v * CK_LANES);
    term[v] = *(const vec *)(shift + i + v * CK_LANES);
  }
  for (ptrdiff_t r = 0; r < rows;) {
    ptrdiff_t end = rows - r < CK_NAME(part) ? rows : r + CK_NAME(part);
    vec s[2] = {{0}}, q[2] = {{0}};
    for (; r < end; r++)
      for (int v = 0; v < n; v++) {
        vec value = *(const vec *)(x + r * c + i + v * CK_LANES);
        ints passes = (value * factor[v] + term[v] > 0) | keep;
        vec g = (vec)(passes & *(const ints *)(dy + r * c + i + v * CK_LANES));
        s[v] += g;
        q[v] += g * (value - from[v]);
      }
    for (int v = 0; v < n; v++) total[v] += s[v], totals[v] += q[v];
  }
  for (int v = 0; v < n; v++) {
    *(vec *)(sum + i + v * CK_LANES) = total[v];
    *(vec *)(product + i + v * CK_LANES) = totals[v];
  }
}

INLINE void CK_NAME(sums_column)(ptrdiff_t rows, ptrdiff_t c, ptrdiff_t i, const float *x,
                                 const float *dy, const float *mean, const float *scale,
                                 const float *shift, int relu, float *sum, float *product) {
  double s = 0, q = 0;
  for (ptrdiff_t r = 0; r < rows; r++) {
    float value = x[r * c + i], g = dy[r * c + i];
    if (relu && !(value * scale[i] + shift[i] > 0)) g = 0;
    s += g, q += (double)g * (value - mean[i]);
  }
  sum[i] = (float)s, product[i] = (float)q;
}

static void CK_NAME(ck_normalization_sums)(ptrdiff_t rows, ptrdiff_t c, const float *x,
                                           const float *dy, const float *mean, const float *scale,
                                           const float *shift, int relu, float *sum,
                                           float *product){
    CK_FOR_COLUMNS(c, sums, x, dy, mean, scale, shift, relu, sum, product)}

INLINE void CK_NAME(gradient_vectors)(const int n, ptrdiff_t rows, ptrdiff_t c, ptrdiff_t i,
                                      const float *x, const float *dy, const float *mean,
                                      const float *scale, const float *shift, int relu,
                                      const float *a, const float *b, float *dx) {
  vec from[2], factor[2], term[2], even[2], slope[2];
  ints keep = (ints){0} - (relu ? 0 : 1);
  for (int v = 0; v < n; v++) {
    from[v] = *(const vec *)(mean + i + v * CK_LANES);
    factor[v] = *(const vec *)(scale + i + v * CK_LANES);
    term[v] = *(const vec *)(shift + i + v * CK_LANES);
    even[v] = *(const vec *)(a + i + v * CK_LANES);
    slope[v] = *(const vec *)(b + i + v * CK_LANES);
  }
  for (ptrdiff_t r = 0; r < rows; r++)
    for (int v = 0; v < n; v++) {
      vec value = *(const vec *)(x + r * c + i + v * CK_LANES);
      ints passes = (value * factor[v] + term[v] > 0) | keep;
      vec g = (vec)(passes & *(const ints *)(dy + r * c + i + v * CK_LANES));
      *(vec *)(dx + r * c + i + v * CK_LANES) =
          factor[v] * (g - even[v] - (value - from[v]) * slope[v]);
    }
}

INLINE void CK_NAME(gradient_column)(ptrdiff_t rows, ptrdiff_t c, ptrdiff_t i, const float *x,
                                     const float *dy, const float *mean, const float *scale,
                                     const float *shift, int relu, const float *a, const float *b,
                                     float *dx) {
  for (ptrdiff_t r = 0; r < rows; r++) {
    float value = x[r * c + i], g = dy[r * c + i];
    if (relu && !(value * scale[i] + shift[i] > 0)) g = 0;
    dx[r * c + i] = scale[i] * (g - a[i] - (value - mean[i]) * b[i]);
  }
}

static void CK_NAME(ck_normalization_gradient)(ptrdiff_t rows, ptrdiff_t c, const float *x,
                                               const float *dy, const float *mean,
                                               const float *scale, const float *shift, int relu,
                                               const float *a, const float *b, float *dx) {
  CK_FOR_COLUMNS(c, gradient, x, dy, mean, scale, shift, relu, a, b, dx)
}
#undef CK_FOR_COLUMNS

// A row's sum: whole vectors, then the rest.
INLINE float CK_NAME(total)(vec sum) {
  float all = 0;
  for (int l = 0; l < CK_LANES; l++) all += sum[l];
  return all;
}

// Mean and 1 / √(variance + epsilon) of a row; two passes over what is in the cache.
INLINE float CK_NAME(row_moments)(ptrdiff_t c, const float *x, float epsilon, float *mean) {
  vec sums = {0};
  float sum = 0;
  ptrdiff_t i = 0;
  for (; i + CK_LANES <= c; i += CK_LANES) sums += *(const vec *)(x + i);
  for (; i < c; i++) sum += x[i];
  *mean = (sum + CK_NAME(total)(sums)) / (float)c;
  sums = (vec){0}, sum = 0;
  for (i = 0; i + CK_LANES <= c; i += CK_LANES) {
    vec off = *(const vec *)(x + i) - *mean;
    sums += off * off;
  }
  for (; i < c; i++) sum += (x[i] - *mean) * (x[i] - *mean);
  return 1 / sqrtf((sum + CK_NAME(total)(sums)) / (float)c + epsilon);
}

static void CK_NAME(ck_layer_norm_forward)(ptrdiff_t rows, ptrdiff_t c, const float *x,
                                           const float *gain, const float *bias, float epsilon,
                                           float *y) {
  for (ptrdiff_t r = 0; r < rows; r++, x += c, y += c) {
    float mean, scale = CK_NAME(row_moments)(c, x, epsilon, &mean);
    for (ptrdiff_t i = 0; i < c; i++) y[i] = (x[i] - mean) * scale * gain[i] + bias[i];
  }
}

static void CK_NAME(ck_layer_norm_backward)(ptrdiff_t rows, ptrdiff_t c, const float *x,
                                            const float *gain, float epsilon, const float *dy,
                                            float *dx, float *dgain, float *dbias) {
  for (ptrdiff_t r = 0; r < rows; r++, x += c, dy += c, dx += c) {
    float mean, scale = CK_NAME(row_moments)(c, x, epsilon, &mean);
    vec sums = {0}, products = {0};
    float sum = 0, product = 0;
    ptrdiff_t i = 0;
    for (; i + CK_LANES <= c; i += CK_LANES) {
      vec g = *(const vec *)(dy + i) * *(const vec *)(gain + i);
      sums += g;
      products += g * (*(const vec *)(x + i) - mean);
    }
    for (; i < c; i++) sum += dy[i] * gain[i], product += dy[i] * gain[i] * (x[i] - mean);
    sum = (sum + CK_NAME(total)(sums)) / (float)c;
    product = (product + CK_NAME(total)(products)) / (float)c * scale * scale;
    for (i = 0; i < c; i++) {
      float off = x[i] - mean;
      dgain[i] += dy[i] * off * scale;
      dbias[i] += dy[i];
      dx[i] = scale * (dy[i] * gain[i] - sum - off * product);
    }
  }
}

// A number that looks random for each element of each key: two rounds of multiply and shift, the
// constants Chris Wellons' "hash prospector" found to mix best (lowbias32, public domain).
static void CK_NAME(ck_dropout)(ptrdiff_t n, uint64_t key, uint32_t first, uint32_t threshold,
                                float scale, const float *x, float *y) {
  uint32_t low = (uint32_t)key, high = (uint32_t)(key >> 32);
  for (ptrdiff_t i = 0; i < n; i++) {
    uint32_t h = (first + (uint32_t)i) ^ low;
    h = (h ^ (h >> 16)) * 0x7feb352du;
    h = (h ^ (h >> 15)) * 0x846ca68bu;
    h = ((h ^ (h >> 16)) + high) * 0x7feb352du;
    h = (h ^ (h >> 15)) * 0x846ca68bu;
    h ^= h >> 16;
    y[i] = h < threshold ? 0 : scale * x[i];
  }
}
