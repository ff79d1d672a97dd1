// SPDX-License-Identifier: MIT
// Element by element and row by row: sums, dropout, bytes, biases and their gradients.
#include "check.h"

static void check_count(ptrdiff_t n) {
  begin_case("add", NULL, "%td", n);
  float *x = values(n, 1), *y = values(n, 2);
  double *expected = sums(n);
  FOR(i, n) expected[i] = (float)(x[i] + y[i]);
  ck_kernels()->add(n, x, y);
  compare(y, expected, n, 0);
  end_case();

  FOR(which, 8) {
    // Three rows; either summand scaled, and ReLU.
    int of_a = which & 1, of_b = which & 2, relu = which & 4;
    begin_case("sum", NULL, "3×%td%s%s%s", n, of_a ? ", a scaled" : "", of_b ? ", b scaled" : "",
               relu ? ", ReLU" : "");
    float *a = values(3 * n, 1), *b = values(3 * n, 2);
    float *scale_a = values(n, 3), *shift_a = values(n, 4), *scale_b = positive(n, 5);
    y = floats(3 * n), expected = sums(3 * n);
    FOR(i, 3 * n) {
      double left = of_a ? (double)a[i] * scale_a[i % n] + shift_a[i % n] : a[i];
      double right = of_b ? (double)b[i] * scale_b[i % n] + shift_a[i % n] : b[i];
      expected[i] = relu && left + right < 0 ? 0 : left + right;
    }
    ck_kernels()->sum(3, n, a, of_a ? scale_a : NULL, of_a ? shift_a : NULL, b,
                      of_b ? scale_b : NULL, of_b ? shift_a : NULL, relu, y);
    compare(y, expected, 3 * n, 8 * unit);
    end_case();
  }

  begin_case("dropout", NULL, "%td", n);
  x = values(n, 1), y = floats(n);
  float *parts = floats(n);
  ck_kernels()->dropout(n, 99, 7, 1u << 31, 2, x, y);
  FOR(i, n) ck_kernels()->dropout(1, 99, (uint32_t)(7 + i), 1u << 31, 2, x + i, parts + i);
  same("one by one", parts, y, n);
  FOR(i, n) if (y[i] != 0 && y[i] != 2 * x[i]) wrong("element %td is %g of %g", i, y[i], x[i]);
  ck_kernels()->dropout(n, 99, 7, 1u << 31, 2, y, parts);
  FOR(i, n) if (y[i] == 0) {
    y[i] = NAN;
    ck_kernels()->dropout(n, 99, 7, 1u << 31, 2, y, parts);
    if (!isnan(parts[i])) wrong("a NaN was dropped at %td", i);
    break;
  }
  ck_kernels()->dropout(n, 99, 7, 0, 1, x, x);
  ck_kernels()->dropout(n, 98, 7, 0, 1, x, parts);
  same("nothing dropped", parts, x, n);
  end_case();

  begin_case("scale_bytes", NULL, "%td", n);
  uint8_t *bytes = block(n);
  FOR(i, n) bytes[i] = (uint8_t)(255 - i * 37);
  y = floats(n), expected = sums(n);
  FOR(i, n) expected[i] = bytes[i] / 255.0;
  ck_kernels()->scale_bytes(n, bytes, 1 / 255.0f, y);
  compare(y, expected, n, 0x1p-22);
  end_case();
}

static void check_rows(ptrdiff_t rows, ptrdiff_t f) {
  ptrdiff_t n = rows * f;
  FOR(with_bias, 2) FOR(with_relu, 2) {
    begin_case("bias_add", NULL, "%td×%td%s%s", rows, f, with_bias ? ", bias" : "",
               with_relu ? ", ReLU" : "");
    float *y = values(n, 1), *bias = values(f, 2);
    double *expected = sums(n);
    FOR(i, n) {
      float sum = y[i] + (with_bias ? bias[i % f] : 0);
      expected[i] = with_relu && sum < 0 ? 0 : sum;
    }
    ck_kernels()->bias_add(rows, f, with_bias ? bias : NULL, (int)with_relu, y);
    compare(y, expected, n, 0);
    end_case();
  }
  begin_case("column_sum", NULL, "%td×%td", rows, f);
  float *y = values(n, 1), *sum = floats(f);
  double *expected = sums(f);
  FOR(i, n) expected[i % f] += y[i];
  ck_kernels()->column_sum(rows, f, y, sum);
  compare(sum, expected, f, 4 * rounding(rows));
  end_case();
}

static void check_long(void) {
  ptrdiff_t pixels = long_edge() * long_edge(), n = long_count();
  FOR(wide, 2) {
    ptrdiff_t c = wide ? 35 : 3, rows = wide ? pixels : n;
    begin_case("column_sum", NULL, "%td×%td, all the same", rows, c);
    float *y = floats(rows * c), *sum = floats(c);
    double *expected = sums(c);
    FOR(i, rows * c) y[i] = 0.1f;  // what additions lose is the same again and again
    FOR(i, rows * c) expected[i % c] += y[i];
    ck_kernels()->column_sum(rows, c, y, sum);
    FOR(j, c) compare(sum + j, expected + j, 1, (8192 + (double)rows / 8192) * unit * expected[j]);
    end_case();
  }
}

void check_elements(void) {
  FOR(i, SIZES) {
    check_count(sizes[i]);
    FOR(r, 5) check_rows(r * r + 1, sizes[i]);
  }
  check_long();
}

/// What cnn's convolution writes.
void time_elements(void) {
  const ck_table *k = ck_kernels();
  ptrdiff_t f = 32, rows = IMAGES * 26 * 26, n = rows * f;
  float *x = values(n, 1), *y = values(n, 2), *out = floats(n);
  uint8_t *bytes = memset(block(n), 99, n);
  double size = (double)n;
  TIME(0, 12 * size, k->add(n, x, y), "add", NULL, "%td", n);
  TIME(0, 12 * size, k->sum(1, n, x, NULL, NULL, y, NULL, NULL, 0, out), "sum", NULL, "%td", n);
  TIME(0, 8 * size, k->dropout(n, 99, 0, 1u << 31, 2, x, out), "dropout", NULL, "%td", n);
  TIME(0, 5 * size, k->scale_bytes(n, bytes, 1 / 255.0f, out), "scale_bytes", NULL, "%td", n);
  TIME(0, 8 * size, k->bias_add(rows, f, x, 1, y), "bias_add", NULL, "%td×%td, ReLU", rows, f);
  TIME(0, 4 * size, k->column_sum(rows, f, x, out), "column_sum", NULL, "%td×%td", rows, f);
  end_case();
}
