// SPDX-License-Identifier: MIT
// Softmax and the losses: logits far apart and nearly alike, smoothed labels, long rows.
#include "check.h"

static void check_rows(ptrdiff_t rows, ptrdiff_t f) {
  ptrdiff_t n = rows * f;
  const double bound = rounding(f);
  FOR(in_place, 2) {
    float *logits = values(n, 1);
    // Every other row far apart: exp overflows where the largest isn't subtracted first.
    FOR(i, n) logits[i] *= (i / f) % 2 ? 8 : 4000;
    double *p = sums(n), *gradient = sums(n), *losses = sums(rows), *slopes = sums(n);
    float *dy = values(n, 2), *y = in_place ? copy(logits, n) : floats(n);
    float *dlogits = floats(n), *loss = floats(rows);
    int32_t *labels = block(sizeof(int32_t) * rows);
    int32_t *is_wrong = block(sizeof(int32_t) * rows);
    uint16_t *wrong_rows = places(rows), *found_rows = places(rows);
    FOR(r, rows) {
      const float *x = logits + r * f;
      ptrdiff_t best = 0;
      double total = 0, dot = 0;
      labels[r] = (int32_t)((r * 7) % f);
      FOR(i, f) if (x[i] > x[best]) best = i;
      FOR(i, f) total += exp((double)x[i] - x[best]);
      FOR(i, f) p[r * f + i] = exp((double)x[i] - x[best]) / total;
      losses[r] = log(total) + x[best] - x[labels[r]];
      wrong_rows[r] = best != labels[r];
      FOR(i, f) gradient[r * f + i] = 0.25 * (p[r * f + i] - (i == labels[r]));
      FOR(i, f) dot += p[r * f + i] * dy[r * f + i];
      FOR(i, f) slopes[r * f + i] = p[r * f + i] * (dy[r * f + i] - dot);
    }
    const char *how = in_place ? ", in place" : "";
    begin_case("softmax_forward", NULL, "%td×%td%s", rows, f, how);
    ck_softmax_forward(rows, f, in_place ? y : logits, y);
    compare(y, p, n, bound);

    begin_case("softmax_backward", NULL, "%td×%td%s", rows, f, how);
    float *dx = in_place ? dy : floats(n);
    ck_softmax_backward(rows, f, y, dy, dx);
    compare(dx, slopes, n, bound);

    begin_case("softmax_cross_entropy", NULL, "%td×%td%s", rows, f, how);
    if (in_place) memcpy(y, logits, sizeof(float) * n);
    ck_softmax_cross_entropy(rows, f, in_place ? y : logits, labels, 0, 0.25f, y, dlogits, loss,
                             is_wrong);
    compare(y, p, n, bound);
    compare(dlogits, gradient, n, bound);
    FOR(r, rows) found_rows[r] = (uint16_t)is_wrong[r];
    compare_places(found_rows, wrong_rows, rows);
    compare(loss, losses, rows, 4000 * 0x1p-23);

    begin_case("softmax_cross_entropy", NULL, "%td×%td%s, smoothing", rows, f, how);
    if (in_place) memcpy(y, logits, sizeof(float) * n);
    FOR(r, rows) {
      const float *x = logits + r * f;
      double target = 0;
      FOR(i, f) {
        double t = (i == labels[r] ? 0.75 : 0) + 0.25 / (double)f;
        gradient[r * f + i] = 0.25 * (p[r * f + i] - t);
        target += t * ((double)x[i] - x[labels[r]]);
      }
      losses[r] -= target;
    }
    ck_softmax_cross_entropy(rows, f, in_place ? y : logits, labels, 0.25f, 0.25f, y, dlogits, loss,
                             is_wrong);
    compare(dlogits, gradient, n, bound);
    compare(loss, losses, rows, 4000 * 0x1p-21);

    begin_case("squared_error", NULL, "%td×%td%s", rows, f, how);
    FOR(r, rows) {
      losses[r] = 0;
      FOR(i, f) {
        double off = (double)y[r * f + i] - (i == labels[r]);
        losses[r] += off * off / (double)f;
        gradient[r * f + i] = 2 * 0.25 / (double)f * off;
      }
    }
    ck_squared_error(rows, f, y, labels, 0.25f, dlogits, loss, is_wrong);
    compare(dlogits, gradient, n, bound);
    compare(loss, losses, rows, bound);
    end_case();
  }
}

static void check_long(void) {
  ptrdiff_t n = long_count();
  begin_case("softmax_forward", NULL, "1×%td", n);
  float *x = positive(n, 1), *y = floats(n), *dy = positive(n, 2), *dx = floats(n);
  double *p = sums(n), *slopes = sums(n), total = 0, dot = 0, loss = 0;
  FOR(i, n) total += exp(x[i]);
  FOR(i, n) p[i] = exp(x[i]) / total, dot += p[i] * dy[i];
  FOR(i, n) slopes[i] = p[i] * (dy[i] - dot);
  ck_softmax_forward(1, n, x, y);
  compare(y, p, n, 264 * unit * exp(1.5) / total);
  begin_case("softmax_backward", NULL, "1×%td", n);
  ck_softmax_backward(1, n, y, dy, dx);
  compare(dx, slopes, n, 2 * 264 * unit * 2 * exp(1.5) / total);
  int32_t label = 7, is_wrong;
  float found;
  FOR(smoothed, 2) {
    begin_case("softmax_cross_entropy", NULL, "1×%td%s", n, smoothed ? ", smoothed" : "");
    loss = log(total);
    FOR(i, n) loss -= ((smoothed ? 0.75 : 1) * (i == label) + (smoothed ? 0.25 / n : 0)) * x[i];
    ck_softmax_cross_entropy(1, n, x, &label, smoothed ? 0.25f : 0, 1, y, NULL, &found, &is_wrong);
    compare(&found, &loss, 1, 264 * unit * loss);
  }
  begin_case("squared_error", NULL, "1×%td", n);
  loss = 0;
  FOR(i, n) loss += (x[i] - (double)(i == label)) * (x[i] - (double)(i == label)) / (double)n;
  ck_squared_error(1, n, x, &label, 1, NULL, &found, &is_wrong);
  compare(&found, &loss, 1, 4 * unit * loss);
  end_case();

  // Large logits that are nearly alike: log(1 + e^-4).
  begin_case("softmax_cross_entropy", NULL, "logits of a million");
  float logits[2] = {1e6f, 1e6f - 4}, probabilities[2];
  label = 0, loss = log1p(exp(-4));
  ck_softmax_cross_entropy(1, 2, logits, &label, 0, 1, probabilities, NULL, &found, &is_wrong);
  compare(&found, &loss, 1, 4 * unit);
  end_case();
}

void check_softmax(void) {
  FOR(i, SIZES) check_rows(5, sizes[i]);
  check_long();
}

/// Ten classes.
void time_softmax(void) {
  int n = BATCH, f = 10;
  float *x = values(n * f, 1), *y = floats(n * f), *dx = floats(n * f), *loss = floats(n);
  int32_t *labels = memset(block(4 * n), 0, 4 * n), *off = block(4 * n);
  TIME(0, 0, ck_softmax_forward(n, f, x, y), "softmax_forward", NULL, "%d×%d", n, f);
  TIME(0, 0, ck_softmax_backward(n, f, y, x, dx), "softmax_backward", NULL, "%d×%d", n, f);
  TIME(0, 0, ck_softmax_cross_entropy(n, f, x, labels, 0, 0.25f, y, dx, loss, off),
       "softmax_cross_entropy", NULL, "%d×%d", n, f);
  TIME(0, 0, ck_squared_error(n, f, y, labels, 0.25f, dx, loss, off), "squared_error", NULL,
       "%d×%d", n, f);
  end_case();
}
