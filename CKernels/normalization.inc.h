// SPDX-License-Identifier: MIT
// Batch and layer normalisation. Batch normalisation is arithmetic on columns: the values of a
// channel, one a pixel, lie C floats apart. So a block of channels, two vectors wide, is taken down
// all rows while its sums or factors stay in registers; what it costs is reading the array once for
// each pass. Its gradient needs two: the sums over all rows must be known before the first dx.
// ReLU behind it is part of the passes, and its derivative comes from x again rather than from
// memory. Layer normalisation is the same along rows, which need no second pass.
//
// Statistics are sums over as many pixels as there are, in numbers of seven digits. So a sum is
// taken in parts of a few hundred, and the parts are added up in double precision; and a variance
// is never the difference of two large sums, which would leave the few digits they don't share.
#include <math.h>

// Calls a block function for all columns: two vectors wide, then one, then one column.
#define CK_FOR_COLUMNS(c, block, ...)                                                       \
  {                                                                                         \
    ptrdiff_t i = 0;                                                                        \
    for (; i + 2 * CK_LANES <= (c); i += 2 * CK_LANES)                                      \
      block##_vectors(2, rows, c, i, __VA_ARGS__);                                          \
    for (; i + CK_LANES <= (c); i += CK_LANES) block##_vectors(1, rows, c, i, __VA_ARGS__); \
    for (; i < (c); i++) block##_column(rows, c, i, __VA_ARGS__);                           \
  }

// A sum over many rows loses digits: after this many, its part goes to a total of doubles.
enum { CK_PART = 256 };
INLINE void to_total(const int n, const vec *part, double total[][CK_LANES]) {
  for (int v = 0; v < n; v++)
    for (int l = 0; l < CK_LANES; l++) total[v][l] += part[v][l];
}
INLINE void put_total(const int n, double total[][CK_LANES], float *out) {
  for (int v = 0; v < n; v++)
    for (int l = 0; l < CK_LANES; l++) out[v * CK_LANES + l] = (float)total[v][l];
}

INLINE void moments_vectors(const int n, ptrdiff_t rows, ptrdiff_t c, ptrdiff_t i, const float *x,
                            float *mean, float *squares) {
  // Each part twice, the second time from the cache: its mean, then the squares of what is off it.
  // Their total, and what the parts' means are off each other (Chan, Golub & LeVeque 1979), has no
  // two large numbers that cancel, wherever the values lie.
  double means[2][CK_LANES] = {{0}}, totals[2][CK_LANES] = {{0}};
  for (ptrdiff_t first = 0; first < rows; first += CK_PART) {
    ptrdiff_t end = rows - first < CK_PART ? rows : first + CK_PART;
    vec s[2] = {{0}}, q[2] = {{0}}, more[2] = {{0}}, middle[2];
    ptrdiff_t r = first;
    for (; r + 2 <= end; r += 2)
      for (int v = 0; v < n; v++) {
        s[v] += *(const vec *)(x + r * c + i + v * CK_LANES);
        more[v] += *(const vec *)(x + (r + 1) * c + i + v * CK_LANES);
      }
    for (int v = 0; v < n; v++) {
      if (r < end) s[v] += *(const vec *)(x + r * c + i + v * CK_LANES);
      middle[v] = (s[v] + more[v]) / (float)(end - first);
      more[v] = (vec){0};
    }
    for (r = first; r + 2 <= end; r += 2)
      for (int v = 0; v < n; v++) {
        vec off = *(const vec *)(x + r * c + i + v * CK_LANES) - middle[v];
        vec next = *(const vec *)(x + (r + 1) * c + i + v * CK_LANES) - middle[v];
        q[v] += off * off;
        more[v] += next * next;
      }
    double before = (double)first, share = (double)(end - first) / (double)end;
    for (int v = 0; v < n; v++) {
      if (r < end) {
        vec off = *(const vec *)(x + r * c + i + v * CK_LANES) - middle[v];
        q[v] += off * off;
      }
      q[v] += more[v];
      for (int l = 0; l < CK_LANES; l++) {
        double off = middle[v][l] - means[v][l];
        totals[v][l] += q[v][l] + off * off * before * share;
        means[v][l] += off * share;
      }
    }
  }
  put_total(n, means, mean + i);
  put_total(n, totals, squares + i);
}

INLINE void moments_column(ptrdiff_t rows, ptrdiff_t c, ptrdiff_t i, const float *x, float *mean,
                           float *squares) {
  double s = 0, q = 0;
  for (ptrdiff_t r = 0; r < rows; r++) {
    double off = (double)x[r * c + i] - x[i];
    s += off, q += off * off;
  }
  mean[i] = (float)(x[i] + s / (double)rows), squares[i] = (float)(q - s * s / (double)rows);
}

static void CK_NAME(ck_moments)(ptrdiff_t rows, ptrdiff_t c, const float *x, float *mean,
                                float *squares){CK_FOR_COLUMNS(c, moments, x, mean, squares)}

INLINE
    void scale_shift_vectors(const int n, ptrdiff_t rows, ptrdiff_t c, ptrdiff_t i, const float *x,
                             const float *scale, const float *shift, int relu, float *y) {
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

INLINE void scale_shift_column(ptrdiff_t rows, ptrdiff_t c, ptrdiff_t i, const float *x,
                               const float *scale, const float *shift, int relu, float *y) {
  for (ptrdiff_t r = 0; r < rows; r++) {
    float value = x[r * c + i] * scale[i] + shift[i];
    y[r * c + i] = relu && value < 0 ? 0 : value;
  }
}

static void CK_NAME(ck_scale_shift)(ptrdiff_t rows, ptrdiff_t c, const float *x, const float *scale,
                                    const float *shift, int relu, float *y){
    CK_FOR_COLUMNS(c, scale_shift, x, scale, shift, relu, y)}

INLINE void sums_vectors(const int n, ptrdiff_t rows, ptrdiff_t c, ptrdiff_t i, const float *x,
                         const float *dy, const float *mean, const float *scale, const float *shift,
                         int relu, float *sum, float *product) {
  double total[2][CK_LANES] = {{0}}, totals[2][CK_LANES] = {{0}};
  vec from[2], factor[2], term[2];
  ints keep = (ints){0} - (relu ? 0 : 1);
  for (int v = 0; v < n; v++) {
    from[v] = *(const vec *)(mean + i + v * CK_LANES);
    factor[v] = *(const vec *)(scale + i + v * CK_LANES);
    term[v] = *(const vec *)(shift + i + v * CK_LANES);
  }
  for (ptrdiff_t r = 0; r < rows;) {
    ptrdiff_t end = rows - r < CK_PART ? rows : r + CK_PART;
    vec s[2] = {{0}}, q[2] = {{0}};
    for (; r < end; r++)
      for (int v = 0; v < n; v++) {
        vec value = *(const vec *)(x + r * c + i + v * CK_LANES);
        ints passes = ~(value * factor[v] + term[v] <= 0) | keep;
        vec g = (vec)(passes & *(const ints *)(dy + r * c + i + v * CK_LANES));
        s[v] += g;
        q[v] += g * (value - from[v]);
      }
    to_total(n, s, total);
    to_total(n, q, totals);
  }
  put_total(n, total, sum + i);
  put_total(n, totals, product + i);
}

INLINE void sums_column(ptrdiff_t rows, ptrdiff_t c, ptrdiff_t i, const float *x, const float *dy,
                        const float *mean, const float *scale, const float *shift, int relu,
                        float *sum, float *product) {
  double s = 0, q = 0;
  for (ptrdiff_t r = 0; r < rows; r++) {
    float value = x[r * c + i], g = dy[r * c + i];
    if (relu && value * scale[i] + shift[i] <= 0) g = 0;
    s += g, q += (double)g * (value - mean[i]);
  }
  sum[i] = (float)s, product[i] = (float)q;
}

static void CK_NAME(ck_normalization_sums)(ptrdiff_t rows, ptrdiff_t c, const float *x,
                                           const float *dy, const float *mean, const float *scale,
                                           const float *shift, int relu, float *sum,
                                           float *product){
    CK_FOR_COLUMNS(c, sums, x, dy, mean, scale, shift, relu, sum, product)}

INLINE
    void gradient_vectors(const int n, ptrdiff_t rows, ptrdiff_t c, ptrdiff_t i, const float *x,
                          const float *dy, const float *mean, const float *scale,
                          const float *shift, int relu, const float *a, const float *b, float *dx) {
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
      ints passes = ~(value * factor[v] + term[v] <= 0) | keep;
      vec g = (vec)(passes & *(const ints *)(dy + r * c + i + v * CK_LANES));
      *(vec *)(dx + r * c + i + v * CK_LANES) =
          factor[v] * (g - even[v] - (value - from[v]) * slope[v]);
    }
}

INLINE void gradient_column(ptrdiff_t rows, ptrdiff_t c, ptrdiff_t i, const float *x,
                            const float *dy, const float *mean, const float *scale,
                            const float *shift, int relu, const float *a, const float *b,
                            float *dx) {
  for (ptrdiff_t r = 0; r < rows; r++) {
    float value = x[r * c + i], g = dy[r * c + i];
    if (relu && value * scale[i] + shift[i] <= 0) g = 0;
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

// Mean and 1 / √(variance + epsilon) of a row; two passes over what is in the cache. Sums as above.
INLINE float row_moments(ptrdiff_t c, const float *x, float epsilon, float *mean) {
  double total = 0, squares = 0;
  for (ptrdiff_t i = 0; i < c;) {
    vec sum = {0};
    for (int k = 0; k < CK_PART && i + CK_LANES <= c; k++, i += CK_LANES)
      sum += *(const vec *)(x + i);
    for (int l = 0; l < CK_LANES; l++) total += sum[l];
    if (i + CK_LANES > c)
      for (; i < c; i++) total += x[i];
  }
  *mean = (float)(total / (double)c);
  for (ptrdiff_t i = 0; i < c;) {
    vec sum = {0};
    for (int k = 0; k < CK_PART && i + CK_LANES <= c; k++, i += CK_LANES) {
      vec off = *(const vec *)(x + i) - *mean;
      sum += off * off;
    }
    for (int l = 0; l < CK_LANES; l++) squares += sum[l];
    if (i + CK_LANES > c)
      for (; i < c; i++) squares += (x[i] - *mean) * (x[i] - *mean);
  }
  return (float)(1 / sqrt(squares / (double)c + epsilon));
}

static void CK_NAME(ck_layer_norm_forward)(ptrdiff_t rows, ptrdiff_t c, const float *x,
                                           const float *gain, const float *bias, float epsilon,
                                           float *y) {
  for (ptrdiff_t r = 0; r < rows; r++, x += c, y += c) {
    float mean, scale = row_moments(c, x, epsilon, &mean);
    for (ptrdiff_t i = 0; i < c; i++) y[i] = (x[i] - mean) * scale * gain[i] + bias[i];
  }
}

// Where the sums over a row are known, dx; then, column by column, the sums over some rows.
static void CK_NAME(ck_layer_norm_backward)(ptrdiff_t rows, ptrdiff_t c, const float *x,
                                            const float *gain, float epsilon, const float *dy,
                                            float *dx, float *dgain, float *dbias) {
  for (ptrdiff_t first = 0; first < rows; first += CK_PART) {
    ptrdiff_t count = rows - first < CK_PART ? rows - first : CK_PART;
    float mean[CK_PART], scale[CK_PART];
    for (ptrdiff_t r = 0; r < count; r++) {
      const float *row = x + (first + r) * c, *up = dy + (first + r) * c;
      float *out = dx + (first + r) * c;
      scale[r] = row_moments(c, row, epsilon, mean + r);
      double total = 0, product = 0;
      for (ptrdiff_t i = 0; i < c;) {
        vec sums = {0}, products = {0};
        for (int k = 0; k < CK_PART && i + CK_LANES <= c; k++, i += CK_LANES) {
          vec g = *(const vec *)(up + i) * *(const vec *)(gain + i);
          sums += g;
          products += g * (*(const vec *)(row + i) - mean[r]);
        }
        for (int l = 0; l < CK_LANES; l++) total += sums[l], product += products[l];
        if (i + CK_LANES > c)
          for (; i < c; i++)
            total += up[i] * gain[i], product += up[i] * gain[i] * (row[i] - mean[r]);
      }
      float even = (float)(total / (double)c);
      float slope = (float)(product / (double)c * scale[r] * scale[r]);
      for (ptrdiff_t i = 0; i < c; i++)
        out[i] = scale[r] * (up[i] * gain[i] - even - (row[i] - mean[r]) * slope);
    }
    for (ptrdiff_t i = 0; i < c; i += CK_LANES) {
      vec gains = {0}, biases = {0};
      ptrdiff_t columns = c - i < CK_LANES ? c - i : CK_LANES;
      for (ptrdiff_t r = 0; r < count; r++) {
        const float *row = x + (first + r) * c + i, *up = dy + (first + r) * c + i;
        vec upstream = some(columns, up);
        gains += upstream * (some(columns, row) - mean[r]) * scale[r];
        biases += upstream;
      }
      for (ptrdiff_t l = 0; l < columns; l++) dgain[i + l] += gains[l], dbias[i + l] += biases[l];
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
    y[i] = (h < threshold ? 0 : scale) * x[i];
  }
}
