// SPDX-License-Identifier: MIT
// A step of each optimiser, moving averages, and the sum that clipping goes by.
#include "check.h"

static void check_count(ptrdiff_t n) {
  FOR(how, 4) {
    const char *name = how < 2 ? "sgd" : how == 2 ? "rmsprop" : "adam";
    begin_case(name, NULL, "%td%s", n, how == 1 ? ", Nesterov" : "");
    ck_update u = {.rate = 0.1f,
                   .scale = 0.5f,
                   .l2 = 0.01f,
                   .l1 = 0.02f,
                   .keep = 0.99f,
                   .momentum = 0.9f,
                   .beta2 = 0.99f,
                   .epsilon = 0.25f,
                   .correction1 = 0.19f,
                   .correction2 = 0.02f,
                   .nesterov = how == 1};
    float *gradient = values(n, 1), *first = values(n, 2), *second = values(n, 3);
    float *weight = values(n, 4);
    double *firsts = sums(n), *seconds = sums(n), *weights = sums(n);
    FOR(i, n) {
      second[i] *= second[i];
      double w = weight[i], m = first[i], v = second[i];
      double g = u.scale * (double)gradient[i] + u.l2 * w + u.l1 * ((w > 0) - (w < 0));
      if (how >= 2) v = u.beta2 * v + (1 - (double)u.beta2) * g * g;
      m = u.momentum * m + (how == 3   ? (1 - (double)u.momentum) * g
                            : how == 2 ? g / (sqrt(v) + u.epsilon)
                                       : g);
      if (how < 2) w -= u.rate * (how == 1 ? g + u.momentum * m : m);
      if (how == 2) w -= u.rate * m;
      if (how == 3)
        w = u.keep * w - u.rate * (m / u.correction1) / (sqrt(v / u.correction2) + u.epsilon);
      firsts[i] = m, seconds[i] = v, weights[i] = w;
    }
    if (how < 2) ck_kernels()->sgd(n, &u, gradient, first, weight);
    if (how == 2) ck_kernels()->rmsprop(n, &u, gradient, first, second, weight);
    if (how == 3) ck_kernels()->adam(n, &u, gradient, first, second, weight);
    compare(first, firsts, n, 4 * 0x1p-22);
    compare(second, seconds, n, 0x1p-22);
    compare(weight, weights, n, 4 * 0x1p-22);
    end_case();
  }

  begin_case("average", NULL, "%td", n);
  float *x = values(n, 1), *y = values(n, 2);
  double *expected = sums(n);
  FOR(i, n) expected[i] = y[i] + 0.25 * ((double)x[i] - y[i]);
  ck_kernels()->average(n, 0.25f, x, y);
  compare(y, expected, n, 0x1p-23);
  double total = ck_sum_of_squares(n, x), right = 0;
  FOR(i, n) right += (double)x[i] * x[i];
  if (fabs(total - right) > 1e-12 * right) wrong("squares sum to %g, expected %g", total, right);
  end_case();
}

void check_optimizers(void) { FOR(i, SIZES) check_count(sizes[i]); }

/// The weights of cnn.
void time_optimizers(void) {
  const ck_table *k = ck_kernels();
  const ck_update u = {0.1f, 1, 0, 0, 1, 0.9f, 0.99f, 1e-8f, 0.19f, 0.02f, 0};
  ptrdiff_t n = 542230;
  float *g = values(n, 1), *v = values(n, 2), *square = positive(n, 3), *w = values(n, 4);
  TIME(0, 20.0 * (double)n, k->sgd(n, &u, g, v, w), "sgd", NULL, "%td", n);
  TIME(0, 28.0 * (double)n, k->rmsprop(n, &u, g, v, square, w), "rmsprop", NULL, "%td", n);
  TIME(0, 28.0 * (double)n, k->adam(n, &u, g, v, square, w), "adam", NULL, "%td", n);
  TIME(0, 12.0 * (double)n, k->average(n, 0.001f, g, w), "average", NULL, "%td", n);
  end_case();
}
