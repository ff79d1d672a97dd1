// SPDX-License-Identifier: MIT
// Sigmoid, softmax and cross-entropy. Softmax subtracts the row's largest logit first: the result
// is the same and exp can't overflow. The loss -log p[label] is computed as log(sum exp) - logit
// from the same numbers, so it stays right where p rounds to 0, and its gradient with respect to
// the logits is simply p - onehot: that is why the two are computed together.
#include <math.h>

#include "CKernels.h"

void ck_sigmoid_forward(ptrdiff_t n, const float *x, float *y) {
  for (ptrdiff_t i = 0; i < n; i++) y[i] = 1 / (1 + expf(-x[i]));
}

void ck_sigmoid_backward(ptrdiff_t n, const float *y, const float *dy, float *dx) {
  for (ptrdiff_t i = 0; i < n; i++) dx[i] = dy[i] * y[i] * (1 - y[i]);
}

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

void ck_softmax_cross_entropy(ptrdiff_t rows, ptrdiff_t f, const float *logits,
                              const int32_t *labels, float scale, float *probabilities,
                              float *dlogits, float *loss, int32_t *wrong) {
  for (ptrdiff_t r = 0; r < rows; r++, logits += f, probabilities += f) {
    ptrdiff_t label = labels[r], best = 0;
    float target = logits[label];
    int is_number = 1;
    for (ptrdiff_t i = 0; i < f; i++) {
      best = logits[i] > logits[best] ? i : best;
      is_number &= logits[i] == logits[i];
    }
    wrong[r] = best != label || !is_number;
    loss[r] = softmax_row(f, logits, probabilities) - target;
    if (!dlogits) continue;
    for (ptrdiff_t i = 0; i < f; i++) dlogits[i] = scale * (probabilities[i] - (i == label));
    dlogits += f;
  }
}
