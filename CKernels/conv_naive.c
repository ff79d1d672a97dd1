// SPDX-License-Identifier: MIT
// Convolution, rung 1: the definition. Each output is the sum, over the filter's rows, columns and
// the group's channels, of input times weight, and both gradients are the same loops with the sum
// moved: whatever was multiplied by x gives dx, whatever was multiplied by w gives dw. Every other
// variant is judged by this file. It is slow because each output is one chain of additions, each
// waiting for the one before it, and because neighbouring windows read the same pixels again.
#include <string.h>

#include "CKernels.h"

static size_t ck_conv_workspace_naive(const ck_conv_shape *s, ck_pass pass) {
  (void)s, (void)pass;
  return 0;
}

#define FOR(i, count) for (ptrdiff_t i = 0; i < (count); i++)

static void ck_conv_forward_naive(const ck_conv_shape *s, const float *x, const float *w,
                                  const float *bias, int relu, float *y, float *workspace) {
  (void)workspace;
  ptrdiff_t channels = s->c / s->groups;
  FOR(n, s->n) FOR(p, s->oh) FOR(q, s->ow) FOR(f, s->f) {
    ptrdiff_t first = f / (s->f / s->groups) * channels;
    float sum = bias ? bias[f] : 0;
    FOR(i, s->fh) FOR(j, s->fw) {
      ptrdiff_t row = p * s->sh + i * s->dh - s->ph, column = q * s->sw + j * s->dw - s->pw;
      if (row < 0 || row >= s->h || column < 0 || column >= s->w) continue;
      const float *pixel = x + ((n * s->h + row) * s->w + column) * s->c + first;
      const float *weight = w + (i * s->fw + j) * channels * s->f + f;
      FOR(c, channels) sum += pixel[c] * weight[c * s->f];
    }
    y[((n * s->oh + p) * s->ow + q) * s->f + f] = relu && sum < 0 ? 0 : sum;
  }
}

static void ck_conv_input_gradient_naive(const ck_conv_shape *s, const float *dy, const float *w,
                                         float *dx, float *workspace) {
  (void)workspace;
  ptrdiff_t channels = s->c / s->groups;
  memset(dx, 0, sizeof(float) * s->n * s->h * s->w * s->c);
  FOR(n, s->n) FOR(p, s->oh) FOR(q, s->ow) FOR(f, s->f) {
    ptrdiff_t first = f / (s->f / s->groups) * channels;
    float upstream = dy[((n * s->oh + p) * s->ow + q) * s->f + f];
    FOR(i, s->fh) FOR(j, s->fw) {
      ptrdiff_t row = p * s->sh + i * s->dh - s->ph, column = q * s->sw + j * s->dw - s->pw;
      if (row < 0 || row >= s->h || column < 0 || column >= s->w) continue;
      float *pixel = dx + ((n * s->h + row) * s->w + column) * s->c + first;
      const float *weight = w + (i * s->fw + j) * channels * s->f + f;
      FOR(c, channels) pixel[c] += upstream * weight[c * s->f];
    }
  }
}

static void ck_conv_weight_gradient_naive(const ck_conv_shape *s, const float *x, const float *dy,
                                          float *dw, float *workspace) {
  (void)workspace;
  ptrdiff_t channels = s->c / s->groups;
  memset(dw, 0, sizeof(float) * s->fh * s->fw * channels * s->f);
  FOR(n, s->n) FOR(p, s->oh) FOR(q, s->ow) FOR(f, s->f) {
    ptrdiff_t first = f / (s->f / s->groups) * channels;
    float upstream = dy[((n * s->oh + p) * s->ow + q) * s->f + f];
    FOR(i, s->fh) FOR(j, s->fw) {
      ptrdiff_t row = p * s->sh + i * s->dh - s->ph, column = q * s->sw + j * s->dw - s->pw;
      if (row < 0 || row >= s->h || column < 0 || column >= s->w) continue;
      const float *pixel = x + ((n * s->h + row) * s->w + column) * s->c + first;
      float *weight = dw + (i * s->fw + j) * channels * s->f + f;
      FOR(c, channels) weight[c * s->f] += pixel[c] * upstream;
    }
  }
}

const ck_conv_variant ck_conv_naive = {
    .name = "naive",
    .description = "the definition: plain loops over images, positions, filters and windows",
    .forward = ck_conv_forward_naive,
    .input_gradient = ck_conv_input_gradient_naive,
    .weight_gradient = ck_conv_weight_gradient_naive,
    .workspace = ck_conv_workspace_naive,
    .takes_any = 1,
};
