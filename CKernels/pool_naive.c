// SPDX-License-Identifier: MIT
// Pooling, the definition: each output is the largest, or the mean, of its window. Max remembers
// which element it took (the first of equal ones, in scan order; a NaN before any number), and
// backwards that element alone gets the gradient; with the mean, each gets an equal share.
#include <string.h>

#include "CKernels.h"

#define FOR(i, count) for (ptrdiff_t i = 0; i < (count); i++)

static ptrdiff_t input_at(const ck_pool_shape *s, ptrdiff_t n, ptrdiff_t row, ptrdiff_t column,
                          ptrdiff_t c) {
  return ((n * s->h + row) * s->w + column) * s->c + c;
}

static ptrdiff_t output_at(const ck_pool_shape *s, ptrdiff_t n, ptrdiff_t p, ptrdiff_t q,
                           ptrdiff_t c) {
  return ((n * s->oh + p) * s->ow + q) * s->c + c;
}

static void ck_pool_max_forward_naive(const ck_pool_shape *s, const float *x, float *y,
                                      uint16_t *place) {
  FOR(n, s->n) FOR(p, s->oh) FOR(q, s->ow) FOR(c, s->c) {
    float best = x[input_at(s, n, p * s->sh, q * s->sw, c)];
    uint16_t where = 0;
    FOR(i, s->fh) FOR(j, s->fw) {
      float value = x[input_at(s, n, p * s->sh + i, q * s->sw + j, c)];
      if (value > best || value != value) {
        best = value;
        where = (uint16_t)(i * s->fw + j);
      }
    }
    y[output_at(s, n, p, q, c)] = best;
    place[output_at(s, n, p, q, c)] = where;
  }
}

static void ck_pool_max_backward_naive(const ck_pool_shape *s, const float *dy,
                                       const uint16_t *place, float *dx) {
  memset(dx, 0, sizeof(float) * s->n * s->h * s->w * s->c);
  FOR(n, s->n) FOR(p, s->oh) FOR(q, s->ow) FOR(c, s->c) {
    ptrdiff_t out = output_at(s, n, p, q, c), i = place[out] / s->fw, j = place[out] % s->fw;
    if (place[out] == UINT16_MAX) continue;
    dx[input_at(s, n, p * s->sh + i, q * s->sw + j, c)] += dy[out];
  }
}

static void ck_pool_avg_forward_naive(const ck_pool_shape *s, const float *x, float *y) {
  FOR(n, s->n) FOR(p, s->oh) FOR(q, s->ow) FOR(c, s->c) {
    double sum = 0;
    FOR(i, s->fh) FOR(j, s->fw) sum += x[input_at(s, n, p * s->sh + i, q * s->sw + j, c)];
    y[output_at(s, n, p, q, c)] = (float)(sum / (double)(s->fh * s->fw));
  }
}

static void ck_pool_avg_backward_naive(const ck_pool_shape *s, const float *dy, float *dx) {
  memset(dx, 0, sizeof(float) * s->n * s->h * s->w * s->c);
  FOR(n, s->n) FOR(p, s->oh) FOR(q, s->ow) FOR(c, s->c) {
    float share = dy[output_at(s, n, p, q, c)] / (float)(s->fh * s->fw);
    FOR(i, s->fh) FOR(j, s->fw) dx[input_at(s, n, p * s->sh + i, q * s->sw + j, c)] += share;
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
