// SPDX-License-Identifier: MIT
// Pooling, the definition: each output is the largest, or the mean, of what its window holds of the
// image. Max remembers which element it took (the first of equal ones, in scan order; a NaN before
// any number), and backwards that element alone gets the gradient; with the mean, each gets an
// equal share.
#include <math.h>

#include "window.h"

#define FOR(i, count) for (ptrdiff_t i = 0; i < (count); i++)

// Where the window's element (i,j) is in x; -1 outside.
static ptrdiff_t input_at(const ck_pool_shape *s, ptrdiff_t n, ptrdiff_t p, ptrdiff_t q,
                          ptrdiff_t i, ptrdiff_t j, ptrdiff_t c) {
  ptrdiff_t row = p * s->sh + i - s->ph, column = q * s->sw + j - s->pw;
  if (row < 0 || row >= s->h || column < 0 || column >= s->w) return -1;
  return ((n * s->h + row) * s->w + column) * s->c + c;
}

static ptrdiff_t output_at(const ck_pool_shape *s, ptrdiff_t n, ptrdiff_t p, ptrdiff_t q,
                           ptrdiff_t c) {
  return ((n * s->oh + p) * s->ow + q) * s->c + c;
}

static void ck_pool_max_forward_naive(const ck_pool_shape *s, const float *x, float *y,
                                      uint16_t *place) {
  FOR(n, s->n) FOR(p, s->oh) FOR(q, s->ow) FOR(c, s->c) {
    float best = -INFINITY;
    ptrdiff_t where = -1;
    FOR(i, s->fh) FOR(j, s->fw) {
      ptrdiff_t in = input_at(s, n, p, q, i, j, c);
      if (in >= 0 && (where < 0 || x[in] > best || x[in] != x[in])) {
        best = x[in];
        where = i * s->fw + j;
      }
    }
    y[output_at(s, n, p, q, c)] = best;
    place[output_at(s, n, p, q, c)] = (uint16_t)where;
  }
}

static void ck_pool_max_backward_naive(const ck_pool_shape *s, const float *dy,
                                       const uint16_t *place, float *dx) {
  memset(dx, 0, sizeof(float) * s->n * s->h * s->w * s->c);
  FOR(n, s->n) FOR(p, s->oh) FOR(q, s->ow) FOR(c, s->c) {
    ptrdiff_t out = output_at(s, n, p, q, c), i = place[out] / s->fw, j = place[out] % s->fw;
    if (place[out] == UINT16_MAX) continue;
    dx[input_at(s, n, p, q, i, j, c)] += dy[out];
  }
}

static void ck_pool_avg_forward_naive(const ck_pool_shape *s, const float *x, float *y) {
  FOR(n, s->n) FOR(p, s->oh) FOR(q, s->ow) FOR(c, s->c) {
    double sum = 0;
    FOR(i, s->fh) FOR(j, s->fw) {
      ptrdiff_t in = input_at(s, n, p, q, i, j, c);
      if (in >= 0) sum += x[in];
    }
    y[output_at(s, n, p, q, c)] = (float)(sum / (double)ck_pool_divisor(s, p, q));
  }
}

static void ck_pool_avg_backward_naive(const ck_pool_shape *s, const float *dy, float *dx) {
  memset(dx, 0, sizeof(float) * s->n * s->h * s->w * s->c);
  FOR(n, s->n) FOR(p, s->oh) FOR(q, s->ow) FOR(c, s->c) {
    float share = dy[output_at(s, n, p, q, c)] / (float)ck_pool_divisor(s, p, q);
    FOR(i, s->fh) FOR(j, s->fw) {
      ptrdiff_t in = input_at(s, n, p, q, i, j, c);
      if (in >= 0) dx[in] += share;
    }
  }
}

const ck_pool_variant ck_pool_naive = {
    .name = "naive",
    .description = "the definition: plain loops over images, positions, channels and windows",
    .max_forward = ck_pool_max_forward_naive,
    .max_backward = ck_pool_max_backward_naive,
    .avg_forward = ck_pool_avg_forward_naive,
    .avg_backward = ck_pool_avg_backward_naive,
};
