// SPDX-License-Identifier: MIT
// Softmax and the losses. Softmax subtracts the row's largest logit first: the result
// is the same and exp can't overflow. The loss -log p[label] is computed as log(sum exp) - logit
// from the same numbers, so it stays right where p rounds to 0, and its gradient with respect to
// the logits is simply p - target: that is why the two are computed together.
#include <math.h>

#include "CKernels.h"

// y = exp(x - max) / sum; returns max + log(sum), what a logit is subtracted from for its loss.
static float softmax_row(ptrdiff_t f, const float *x, float *y) {
  float most = x[0], sum = 0;
  for (ptrdiff_t i = 1; i < f; i++) most = x[i] > most ? x[i] : most;
  for (ptrdiff_t i = 0; i < f; i++) sum += y[i] = expf(x[i] - most);
  for (ptrdiff_t i = 0; i < f; i++) y[i] /= sum;
  return most + logf(sum);
}

void ck_softmax_forward(ptrdiff_t rows, ptrdiff_t f, const float *x, float *y) {
  for (ptrdiff_t r = 0; r < rows; r++) softmax_row(f, x + r * f, y + r * f);
}

void ck_softmax_backward(ptrdiff_t rows, ptrdiff_t f, const float *y, const float *dy, float *dx) {
  for (ptrdiff_t r = 0; r < rows; r++, y += f, dy += f, dx += f) {
    float dot = 0;
    for (ptrdiff_t i = 0; i < f; i++) dot += y[i] * dy[i];
    for (ptrdiff_t i = 0; i < f; i++) dx[i] = y[i] * (dy[i] - dot);
  }
}

// The index of the first largest value; -1 where one is no number.
static ptrdiff_t largest(ptrdiff_t f, const float *x) {
  ptrdiff_t best = 0;
  for (ptrdiff_t i = 0; i < f; i++) {
    if (x[i] != x[i]) return -1;
    best = x[i] > x[best] ? i : best;
  }
  return best;
}

void ck_softmax_cross_entropy(ptrdiff_t rows, ptrdiff_t f, const float *logits,
                              const int32_t *labels, float smoothing, float scale,
                              float *probabilities, float *dlogits, float *loss, int32_t *wrong) {
  for (ptrdiff_t r = 0; r < rows; r++, logits += f, probabilities += f) {
    ptrdiff_t label = labels[r];
    float target = logits[label], even = smoothing / (float)f;
    if (smoothing > 0) {
      float sum = 0;
      for (ptrdiff_t i = 0; i < f; i++) sum += logits[i];
      target = (1 - smoothing) * target + even * sum;
    }
    wrong[r] = largest(f, logits) != label;
    loss[r] = softmax_row(f, logits, probabilities) - target;
    if (!dlogits) continue;
    for (ptrdiff_t i = 0; i < f; i++)
      dlogits[i] = scale * (probabilities[i] - ((i == label ? 1 - smoothing : 0) + even));
    dlogits += f;
  }
}

void ck_squared_error(ptrdiff_t rows, ptrdiff_t f, const float *y, const int32_t *labels,
                      float scale, float *dy, float *loss, int32_t *wrong) {
  for (ptrdiff_t r = 0; r < rows; r++, y += f) {
    wrong[r] = largest(f, y) != labels[r];
    loss[r] = 0;
    for (ptrdiff_t i = 0; i < f; i++) {
      float off = y[i] - (i == labels[r]);
      loss[r] += off * off / (float)f;
      if (dy) *dy++ = 2 * scale / (float)f * off;
    }
  }
}

double ck_sum_of_squares(ptrdiff_t n, const float *x) {
  double sums[8] = {0}, sum = 0;
  ptrdiff_t i = 0;
  for (; i + 8 <= n; i += 8)
    for (int j = 0; j < 8; j++) sums[j] += (double)x[i + j] * x[i + j];
  for (; i < n; i++) sum += (double)x[i] * x[i];
  for (int j = 0; j < 8; j++) sum += sums[j];
  return sum;
}
