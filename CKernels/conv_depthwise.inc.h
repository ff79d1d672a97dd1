// SPDX-License-Identifier: MIT
// Depthwise convolution: each channel has one filter of its own (groups = channels = filters), so
// there is no sum over channels and nothing for a matrix product to share. In NHWC neighbouring
// channels lie side by side, and so do their weights (FH, FW, 1, C): a vector is so many channels,
// and everything is a product of two vectors. Four outputs in a row share each weight that is
// loaded; with dilation they only start further apart. It is bound by what is loaded, not by
// arithmetic.
#include <string.h>
#pragma clang fp contract(fast)

// Taps first..<last of a window that starts at `start` lie in 0..<size.
typedef struct tap_range {
  ptrdiff_t first, last;
} tap_range;

INLINE tap_range taps_inside(ptrdiff_t start, ptrdiff_t filter, ptrdiff_t dilation,
                             ptrdiff_t size) {
  ptrdiff_t first = start < 0 ? (-start + dilation - 1) / dilation : 0;
  ptrdiff_t last = start < size ? (size - start + dilation - 1) / dilation : 0;
  if (last > filter) last = filter;
  return (tap_range){first, last > first ? last : first};
}

// Distances, in floats.
typedef struct distances {
  ptrdiff_t c, x_line, x_tap, x_step, w_line;
} distances;

// A vector of `count` channels, whole where it is as wide as one, of `pixels` outputs side by side.
INLINE void depth_tile(const int pixels, const int whole, ptrdiff_t count, const distances *g,
                       ptrdiff_t lines, ptrdiff_t taps, const float *x, const float *w,
                       const float *bias, int relu, float *y) {
#define LOAD(at) (whole ? *(const vec *)(at) : some(count, at))
  vec sum[4];
#pragma clang loop unroll(full)
  for (int r = 0; r < pixels; r++) sum[r] = bias ? LOAD(bias) : (vec){0};
  for (ptrdiff_t i = 0; i < lines; i++)
    for (ptrdiff_t j = 0; j < taps; j++) {
      vec weight = LOAD(w + i * g->w_line + j * g->c);
      const float *pixel = x + i * g->x_line + j * g->x_tap;
#pragma clang loop unroll(full)
      for (int r = 0; r < pixels; r++) sum[r] += LOAD(pixel + r * g->x_step) * weight;
    }
#pragma clang loop unroll(full)
  for (int r = 0; r < pixels; r++) {
    if (relu) sum[r] = above_zero(sum[r]);
    if (whole)
      *(vec *)(y + r * g->c) = sum[r];
    else
      memcpy(y + r * g->c, &sum[r], sizeof(float) * count);
  }
#undef LOAD
}

static void CK_NAME(ck_conv_forward_depthwise)(const ck_conv_shape *s, const float *x,
                                               const float *w, const float *bias, int relu,
                                               float *y, float *workspace) {
  (void)workspace;
  ptrdiff_t c = s->c;
  distances g = {c, (ptrdiff_t)s->dh * s->w * c, s->dw * c, s->sw * c, s->fw * c};
  for (ptrdiff_t n = 0; n < s->n; n++)
    for (ptrdiff_t p = 0; p < s->oh; p++) {
      ptrdiff_t top = p * s->sh - s->ph;
      tap_range rows = taps_inside(top, s->fh, s->dh, s->h);
      for (ptrdiff_t q = 0, pixels; q < s->ow; q += pixels) {
        ptrdiff_t left = q * s->sw - s->pw;
        tap_range columns = taps_inside(left, s->fw, s->dw, s->w);
        pixels =
            left >= 0 && left + 3 * s->sw + (s->fw - 1) * s->dw < s->w && q + 4 <= s->ow ? 4 : 1;
        ptrdiff_t lines = rows.last - rows.first, taps = columns.last - columns.first;
        const float *from = x;
        if (lines && taps)
          from += ((n * s->h + top + rows.first * s->dh) * s->w + left + columns.first * s->dw) * c;
        const float *weights = w + (rows.first * s->fw + columns.first) * c;
        float *to = y + ((n * s->oh + p) * s->ow + q) * c;
        if (!taps) lines = 0;
        if (c < CK_LANES) {
          for (ptrdiff_t r = 0; r < pixels; r++)
            depth_tile(1, 0, c, &g, lines, taps, from + r * g.x_step, weights, bias, relu,
                       to + r * c);
          continue;
        }
        for (ptrdiff_t k = 0; k < c; k += CK_LANES) {
          // The last vector ends where the channels do: some are computed twice.
          ptrdiff_t at = k + CK_LANES <= c ? k : c - CK_LANES;
          if (pixels == 4)
            depth_tile(4, 1, CK_LANES, &g, lines, taps, from + at, weights + at,
                       bias ? bias + at : NULL, relu, to + at);
          else
            depth_tile(1, 1, CK_LANES, &g, lines, taps, from + at, weights + at,
                       bias ? bias + at : NULL, relu, to + at);
        }
      }
    }
}

static size_t CK_NAME(ck_conv_workspace_depthwise)(const ck_conv_shape *s, ck_pass pass) {
  return pass == CK_INPUT_GRADIENT ? (size_t)s->fh * s->fw * s->c : 0;
}

// With a stride of 1 the input gradient is a convolution of dy by the weights turned round. With
// others, each dy is added to its window.
static void CK_NAME(ck_conv_input_gradient_depthwise)(const ck_conv_shape *s, const float *dy,
                                                      const float *w, float *dx, float *workspace) {
  ptrdiff_t c = s->c, window = (ptrdiff_t)s->fh * s->fw;
  if (s->sh == 1 && s->sw == 1) {
    for (ptrdiff_t k = 0; k < window; k++)
      memcpy(workspace + k * c, w + (window - 1 - k) * c, sizeof(float) * c);
    ck_conv_shape turned = *s;
    turned.h = s->oh, turned.w = s->ow, turned.oh = s->h, turned.ow = s->w;
    turned.ph = s->dh * (s->fh - 1) - s->ph, turned.pw = s->dw * (s->fw - 1) - s->pw;
    CK_NAME(ck_conv_forward_depthwise)(&turned, dy, workspace, NULL, 0, dx, NULL);
    return;
  }
  memset(dx, 0, sizeof(float) * s->n * s->h * s->w * c);
  for (ptrdiff_t n = 0; n < s->n; n++)
    for (ptrdiff_t p = 0; p < s->oh; p++) {
      ptrdiff_t top = p * s->sh - s->ph;
      tap_range rows = taps_inside(top, s->fh, s->dh, s->h);
      for (ptrdiff_t q = 0; q < s->ow; q++, dy += c) {
        ptrdiff_t left = q * s->sw - s->pw;
        tap_range columns = taps_inside(left, s->fw, s->dw, s->w);
        for (ptrdiff_t i = rows.first; i < rows.last; i++)
          for (ptrdiff_t j = columns.first; j < columns.last; j++) {
            const float *weight = w + (i * s->fw + j) * c;
            float *to = dx + ((n * s->h + top + i * s->dh) * s->w + left + j * s->dw) * c;
            ptrdiff_t k = 0;
            for (; k + CK_LANES <= c; k += CK_LANES)
              *(vec *)(to + k) += *(const vec *)(dy + k) * *(const vec *)(weight + k);
            for (; k < c; k++) to[k] += dy[k] * weight[k];
          }
      }
    }
}

// A vector of channels of dw += the products of a row of pixels and their dy, c floats apart. Four
// sums side by side, so that none waits for the one before.
INLINE void depth_gradient(const int whole, ptrdiff_t count, ptrdiff_t pixels, ptrdiff_t c,
                           ptrdiff_t x_step, const float *x, const float *dy, float *dw) {
#define LOAD(at) (whole ? *(const vec *)(at) : some(count, at))
  vec sum[4] = {{0}, {0}, {0}, {0}};
  ptrdiff_t q = 0;
  for (; q + 4 <= pixels; q += 4)
#pragma clang loop unroll(full)
    for (int r = 0; r < 4; r++) sum[r] += LOAD(x + (q + r) * x_step) * LOAD(dy + (q + r) * c);
  for (; q < pixels; q++) sum[0] += LOAD(x + q * x_step) * LOAD(dy + q * c);
  vec total = LOAD(dw) + ((sum[0] + sum[1]) + (sum[2] + sum[3]));
  if (whole)
    *(vec *)dw = total;
  else
    memcpy(dw, &total, sizeof(float) * count);
#undef LOAD
}

static void CK_NAME(ck_conv_weight_gradient_depthwise)(const ck_conv_shape *s, const float *x,
                                                       const float *dy, float *dw,
                                                       float *workspace) {
  (void)workspace;
  ptrdiff_t c = s->c, step = s->sw * c;
  memset(dw, 0, sizeof(float) * s->fh * s->fw * c);
  for (ptrdiff_t n = 0; n < s->n; n++)
    for (ptrdiff_t p = 0; p < s->oh; p++) {
      ptrdiff_t top = p * s->sh - s->ph;
      tap_range rows = taps_inside(top, s->fh, s->dh, s->h);
      for (ptrdiff_t i = rows.first; i < rows.last; i++)
        for (ptrdiff_t j = 0; j < s->fw; j++) {
          // The outputs whose tap j lies inside are to windows what taps are to inputs.
          ptrdiff_t start = j * s->dw - s->pw;
          tap_range inside = taps_inside(start, s->ow, s->sw, s->w);
          ptrdiff_t pixels = inside.last - inside.first;
          if (!pixels) continue;
          const float *from =
              x + ((n * s->h + top + i * s->dh) * s->w + start + inside.first * s->sw) * c;
          const float *upstream = dy + ((n * s->oh + p) * s->ow + inside.first) * c;
          float *to = dw + (i * s->fw + j) * c;
          ptrdiff_t k = 0;
          for (; k + CK_LANES <= c; k += CK_LANES)
            depth_gradient(1, CK_LANES, pixels, c, step, from + k, upstream + k, to + k);
          if (k < c) depth_gradient(0, c - k, pixels, c, step, from + k, upstream + k, to + k);
        }
    }
}
