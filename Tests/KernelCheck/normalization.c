// SPDX-License-Identifier: MIT
// Batch and layer normalisation: statistics, outputs, gradients; long sums.
#include "check.h"

static void check_shape(ptrdiff_t rows, ptrdiff_t c) {
  ptrdiff_t n = rows * c;
  float *x = values(n, 1), *dy = values(n, 2), *mean = values(c, 3), *scale = values(c, 4);
  float *shift = values(c, 5), *a = values(c, 6), *b = values(c, 7);
  const double bound = 4 * rounding(rows);
  begin_case("moments", NULL, "%td×%td", rows, c);
  float *sum = floats(c), *square = floats(c);
  double *first = sums(c), *second = sums(c);
  FOR(i, n) first[i % c] += x[i] / (double)rows;
  FOR(i, n) second[i % c] += (x[i] - first[i % c]) * (x[i] - first[i % c]);
  ck_kernels()->moments(rows, c, x, sum, square);
  compare(sum, first, c, rounding(1));
  compare(square, second, c, bound);
  FOR(relu, 2) {
    const char *how = relu ? ", ReLU" : "";
    begin_case("scale_shift", NULL, "%td×%td%s", rows, c, how);
    float *y = copy(x, n);
    double *expected = sums(n);
    FOR(i, n) {
      expected[i] = (double)x[i] * scale[i % c] + shift[i % c];
      if (relu && expected[i] < 0) expected[i] = 0;
    }
    ck_kernels()->scale_shift(rows, c, y, scale, shift, (int)relu, y);
    compare(y, expected, n, 0x1p-23);

    begin_case("normalization_sums", NULL, "%td×%td%s", rows, c, how);
    first = sums(c), second = sums(c), expected = sums(n);
    FOR(i, n) {
      int j = (int)(i % c);
      double g = relu && (double)x[i] * scale[j] + shift[j] <= 0 ? 0 : dy[i];
      first[j] += g, second[j] += g * (x[i] - mean[j]);
      expected[i] = scale[j] * (g - a[j] - ((double)x[i] - mean[j]) * b[j]);
    }
    sum = floats(c), square = floats(c);
    ck_kernels()->normalization_sums(rows, c, x, dy, mean, scale, shift, (int)relu, sum, square);
    compare(sum, first, c, bound);
    compare(square, second, c, bound);

    begin_case("normalization_gradient", NULL, "%td×%td%s", rows, c, how);
    float *dx = copy(dy, n);
    ck_kernels()->normalization_gradient(rows, c, x, dx, mean, scale, shift, (int)relu, a, b, dx);
    compare(dx, expected, n, 0x1p-22);
  }

  begin_case("layer_norm_forward", NULL, "%td×%td", rows, c);
  float *y = floats(n), *dx = floats(n), *dgain = floats(c), *dbias = floats(c);
  double *expected = sums(n), *slopes = sums(n), *gains = sums(c), *biases = sums(c);
  FOR(j, c) dgain[j] = dbias[j] = 0;
  FOR(r, rows) {
    const float *row = x + r * c, *up = dy + r * c;
    double average = 0, variance = 0, total = 0, product = 0;
    FOR(j, c) average += row[j] / (double)c;
    FOR(j, c) variance += (row[j] - average) * (row[j] - average) / (double)c;
    double inverse = 1 / sqrt(variance + 0.01);
    FOR(j, c) {
      double unit = (row[j] - average) * inverse;
      expected[r * c + j] = unit * scale[j] + shift[j];
      gains[j] += up[j] * unit, biases[j] += up[j];
      total += up[j] * scale[j] / (double)c, product += up[j] * scale[j] * unit / (double)c;
    }
    FOR(j, c)
    slopes[r * c + j] =
        inverse * (up[j] * scale[j] - total - (row[j] - average) * inverse * product);
  }
  ck_kernels()->layer_norm_forward(rows, c, x, scale, shift, 0.01f, y);
  compare(y, expected, n, 40 * rounding(c));

  begin_case("layer_norm_backward", NULL, "%td×%td", rows, c);
  ck_kernels()->layer_norm_backward(rows, c, x, scale, 0.01f, dy, dx, dgain, dbias);
  compare(dx, slopes, n, 400 * rounding(c));
  compare(dgain, gains, c, 40 * rounding(rows + c));
  compare(dbias, biases, c, bound);
  end_case();
}

/// What CKernels.h says of statistics, with one pixel unlike the rest, as in the corner of an image
/// with zeros around it, and with values that lie far from 0.
static void check_long_moments(ptrdiff_t rows, ptrdiff_t c, float first, float offset) {
  begin_case("moments", NULL, "%td×%td, first pixel %g, all others about %g", rows, c, first,
             offset);
  float *x = values(rows * c, 1), *mean = floats(c), *square = floats(c);
  FOR(i, rows * c) x[i] = i < c ? first : x[i] + offset;
  double *means = sums(c), *squares = sums(c), *sizes = sums(c);
  FOR(i, rows * c) means[i % c] += x[i] / (double)rows, sizes[i % c] += fabs(x[i]) / (double)rows;
  FOR(i, rows * c) squares[i % c] += (x[i] - means[i % c]) * (x[i] - means[i % c]);
  ck_kernels()->moments(rows, c, x, mean, square);
  FOR(j, c) {
    double off = 260 * unit * sizes[j];
    compare(mean + j, means + j, 1, off);
    compare(square + j, squares + j, 1, 264 * unit * squares[j] + (double)rows * off * off);
  }
  end_case();
}

/// Over batches.
static void check_long_batch(void) {
  ptrdiff_t pixels = long_edge() * long_edge(), n = long_count();
  for (int c = 1; c <= 33; c += 16) {
    check_long_moments(pixels, c, 4, 0);
    check_long_moments(pixels, c, 0, 100);
  }
  check_long_moments(n, 1, -7, 3);
  check_long_moments(n, 16, -7, 3);

  FOR(wide, 2) {
    ptrdiff_t c = wide ? 35 : 3, rows = wide ? pixels : n;
    begin_case("normalization_sums", NULL, "%td×%td, all positive", rows, c);
    float *x = positive(rows * c, 1), *dy = positive(rows * c, 2), *mean = floats(c);
    float *scale = positive(c, 3), *shift = positive(c, 4), *sum = floats(c), *product = floats(c);
    double *expected = sums(c), *second = sums(c);
    FOR(j, c) mean[j] = 0;
    FOR(i, rows * c) expected[i % c] += dy[i], second[i % c] += (double)dy[i] * x[i];
    ck_kernels()->normalization_sums(rows, c, x, dy, mean, scale, shift, 1, sum, product);
    FOR(j, c) {
      compare(sum + j, expected + j, 1, 260 * unit * expected[j]);
      compare(product + j, second + j, 1, 264 * unit * second[j]);
    }
    end_case();
  }
}

static double most(double a, double b) { return a > b ? a : b; }

/// Over rows, few and long or many and short.
static void check_long_rows(void) {
  ptrdiff_t pixels = long_edge() * long_edge(), n = long_count();
  FOR(flat, 2) {
    ptrdiff_t rows = flat ? 2 : pixels, columns = flat ? n : 5;
    begin_case("layer_norm_forward", NULL, "%td×%td", rows, columns);
    ptrdiff_t all = rows * columns;
    float *in = values(all, 1), *up = positive(all, 2), *gain = positive(columns, 3);
    float *out = floats(all), *back = floats(all), *dgain = floats(columns),
          *dbias = floats(columns);
    double *right = sums(all), *slope = sums(all), *gains = sums(columns), *biases = sums(columns);
    double *sizes = sums(columns);
    FOR(j, columns) dgain[j] = dbias[j] = 0;
    FOR(r, rows) {
      in[r * columns] += 3;  // the first is unlike the others
      const float *row = in + r * columns, *upstream = up + r * columns;
      double mean = 0, variance = 0, even = 0, product = 0;
      FOR(j, columns) mean += row[j] / (double)columns;
      FOR(j, columns) variance += (row[j] - mean) * (row[j] - mean) / (double)columns;
      double scale = 1 / sqrt(variance + 0.01);
      FOR(j, columns) {
        double off = (row[j] - mean) * scale;
        right[r * columns + j] = off * gain[j] + gain[j];
        gains[j] += upstream[j] * off, biases[j] += upstream[j];
        sizes[j] += fabs(upstream[j] * off);
        even += upstream[j] * gain[j] / (double)columns;
        product += upstream[j] * gain[j] * off / (double)columns;
      }
      FOR(j, columns) {
        double off = (row[j] - mean) * scale;
        slope[r * columns + j] = scale * (upstream[j] * gain[j] - even - off * product);
      }
    }
    ck_kernels()->layer_norm_forward(rows, columns, in, gain, gain, 0.01f, out);
    const double bound = 300 * unit * 40;  // of what stands in a row, at most about 40
    compare(out, right, all, bound);
    begin_case("layer_norm_backward", NULL, "%td×%td", rows, columns);
    ck_kernels()->layer_norm_backward(rows, columns, in, gain, 0.01f, up, back, dgain, dbias);
    compare(back, slope, all, bound);
    double terms = 264 + (double)rows / 256;
    FOR(j, columns) {
      // A row's own mean and scale are as exact as its outputs.
      compare(dgain + j, gains + j, 1, terms * unit * sizes[j] + 8 * unit * most(1, sizes[j]));
      compare(dbias + j, biases + j, 1, terms * unit * biases[j]);
    }
    end_case();
  }
}

void check_normalization(void) {
  FOR(i, SIZES) {
    check_shape(1, sizes[i]);
    check_shape(6, sizes[i]);
    check_shape(531, sizes[i]);
  }
  check_long_batch();
  check_long_rows();
}

/// What vgg's first convolution writes.
void time_normalization(void) {
  const ck_table *k = ck_kernels();
  ptrdiff_t c = 32, n = IMAGES * 28 * 28;
  float *x = values(n * c, 1), *dy = values(n * c, 2), *y = floats(n * c), *a = values(c, 3);
  float *sum = values(c, 4), *product = values(c, 5);
  double size = 4 * (double)(n * c);
  TIME(0, size, k->moments(n, c, x, sum, product), "moments", NULL, "%td×%td", n, c);
  TIME(0, 2 * size, k->scale_shift(n, c, x, a, a, 1, y), "scale_shift", NULL, "%td×%td", n, c);
  TIME(0, 2 * size, k->normalization_sums(n, c, x, dy, a, a, a, 1, sum, product),
       "normalization_sums", NULL, "%td×%td", n, c);
  TIME(0, 3 * size, k->normalization_gradient(n, c, x, dy, a, a, a, 1, a, a, y),
       "normalization_gradient", NULL, "%td×%td", n, c);
  TIME(0, 2 * size, k->layer_norm_forward(n, c, x, a, a, 0.01f, y), "layer_norm_forward", NULL,
       "%td×%td", n, c);
  TIME(0, 3 * size, k->layer_norm_backward(n, c, x, a, 0.01f, dy, y, sum, product),
       "layer_norm_backward", NULL, "%td×%td", n, c);
  end_case();
}
