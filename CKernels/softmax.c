// SPDX-License-Identifier: MIT
// Softmax and the losses. Softmax subtracts the row's largest logit first: the result
// is the same and exp can't overflow. The loss -log p[label] is computed as log(sum exp) - (logit -
// largest) from the same numbers, so it stays right where p rounds to 0, and its gradient with
// respect to the logits is simply p - target: that is why the two are computed together.
#include <math.h>

#include "CKernels.h"

// Numbers whose sum a float holds without much loss; such parts are added up in double precision.
enum { PART = 16 };

static float largest_value(ptrdiff_t f, const float *x) {
  float most = x[0];
  for (ptrdiff_t i = 1; i < f; i++) most = x[i] > most ? x[i] : most;
  return most;
}

// y = exp(x - most) / sum; returns log(sum), what x[i] - most is subtracted from for its loss.
static float softmax_row(ptrdiff_t f, const float *x, float most, float *y) {
  double total = 0;
  for (ptrdiff_t first = 0; first < f; first += PART) {
    float part = 0;
    for (ptrdiff_t i = first; i < f && i < first + PART; i++) part += y[i] = expf(x[i] - most);
    total += part;
  }
  float sum = (float)total;
  for (ptrdiff_t i = 0; i < f; i++) y[i] /= sum;
  return logf(sum);
}

void ck_softmax_forward(ptrdiff_t rows, ptrdiff_t f, const float *x, float *y) {
  for (ptrdiff_t r = 0; r < rows; r++, x += f, y += f) softmax_row(f, x, largest_value(f, x), y);
}

void ck_softmax_backward(ptrdiff_t rows, ptrdiff_t f, const float *y, const float *dy, float *dx) {
  for (ptrdiff_t r = 0; r < rows; r++, y += f, dy += f, dx += f) {
    double total = 0;
    for (ptrdiff_t first = 0; first < f; first += PART) {
      float part = 0;
      for (ptrdiff_t i = first; i < f && i < first + PART; i++) part += y[i] * dy[i];
      total += part;
    }
    float dot = (float)total;
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
    float most = largest_value(f, logits), even = smoothing / (float)f;
    // How far the logits are below the largest: the logits themselves may be large and all alike.
    double target = logits[label] - most;
    if (smoothing > 0) {
      double sum = 0;
      for (ptrdiff_t i = 0; i < f; i++) sum += logits[i] - most;
      target = (1 - smoothing) * target + even * sum;
    }
    wrong[r] = largest(f, logits) != label;
    loss[r] = (float)(softmax_row(f, logits, most, probabilities) - target);
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
    double sum = 0;
    for (ptrdiff_t i = 0; i < f; i++) {
      float off = y[i] - (i == labels[r]);
      sum += (double)off * off;
      if (dy) *dy++ = 2 * scale / (float)f * off;
    }
    loss[r] = (float)(sum / (double)f);
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
