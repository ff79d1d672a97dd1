// SPDX-License-Identifier: MIT
// Pooling, window by window: for a vector of channels the largest value (or the sum) and its place
// stay in registers while the window is read, and are written once, where stride groups go back to
// them for each element. Backwards, where windows don't overlap, each input belongs to one window
// at most and is written exactly once; where they do, the shares are added to zeros.
#include "window.h"

// The windows of one image: `in` and `out` are the offsets of the first element that a window holds
// and of its output; `lines` by `steps` elements, those of the window from number `first` on.
// `fh` and `fw` are s->fh and s->fw, or, where no window is clipped, the same as constants, for the
// loops to be unrolled.
#define FOR_WINDOWS(s)                                                                         \
  for (ptrdiff_t n = 0; n < (s)->n; n++)                                                       \
    for (ptrdiff_t p = 0; p < (s)->oh; p++)                                                    \
      for (ptrdiff_t q = 0, out = ((n * (s)->oh + p) * (s)->ow) * (ptrdiff_t)(s)->c, once = 1; \
           q < (s)->ow; q++, out += (s)->c, once = 1)                                          \
        for (ck_span down = clipped ? ck_pool_rows(s, p) : (ck_span){0, fh},                   \
                     aside = clipped ? ck_pool_columns(s, q) : (ck_span){0, fw};               \
             once; once = 0)
#define FIRST(s)                                                                         \
  (((n * (s)->h + p * (s)->sh - (s)->ph + down.first) * (s)->w + q * (s)->sw - (s)->pw + \
    aside.first) *                                                                       \
   (ptrdiff_t)(s)->c)

INLINE void max_forward(const ptrdiff_t fh, const ptrdiff_t fw, const int clipped,
                        const ck_pool_shape *s, const float *x, float *y, uint16_t *place) {
  ptrdiff_t c = s->c, row = (ptrdiff_t)s->w * c, whole = c / CK_LANES * CK_LANES;
  FOR_WINDOWS(s) {
    ptrdiff_t in = FIRST(s);
    int32_t start = (int32_t)(down.first * fw + aside.first);
    for (ptrdiff_t k = 0; k < whole; k += CK_LANES) {
      const float *first = x + in + k;
      vec best = *(const vec *)first;
      ints where = (ints){0} + start;
#pragma clang loop unroll_count(2)
      for (ptrdiff_t i = 0; i < down.count; i++)
#pragma clang loop unroll_count(2)
        for (ptrdiff_t j = 0; j < aside.count; j++) {
          vec value = *(const vec *)(first + i * row + j * c);
          ints better = (value > best) | (value != value);
          ints here = (ints){0} + (start + (int32_t)(i * fw + j));
          best = (vec)choose(better, (ints)value, (ints)best);
          where = choose(better, here, where);
        }
      *(vec *)(y + out + k) = best;
      *(places *)(place + out + k) = __builtin_convertvector(where, places);
    }
    for (ptrdiff_t k = whole; k < c; k++) {
      float best = x[in + k];
      uint16_t where = (uint16_t)start;
      for (ptrdiff_t i = 0; i < down.count; i++)
        for (ptrdiff_t j = 0; j < aside.count; j++) {
          float value = x[in + i * row + j * c + k];
          if (value > best || value != value) best = value, where = (uint16_t)(start + i * fw + j);
        }
      y[out + k] = best;
      place[out + k] = where;
    }
  }
}

INLINE int is_plain_2(const ck_pool_shape *s) {
  return s->fh == 2 && s->fw == 2 && !ck_pool_is_clipped(s);
}

static void CK_NAME(ck_pool_max_forward_direct)(const ck_pool_shape *s, const float *x, float *y,
                                                uint16_t *place) {
  if (is_plain_2(s))
    max_forward(2, 2, 0, s, x, y, place);
  else
    max_forward(s->fh, s->fw, 1, s, x, y, place);
}

// `vectors` vectors of channels, as many sums that don't wait for each other.
INLINE void avg_window(const int vectors, ptrdiff_t fh, ptrdiff_t fw, ptrdiff_t row, ptrdiff_t c,
                       const float *x, float share, float *y) {
  vec sum[4] = {{0}, {0}, {0}, {0}};
  for (ptrdiff_t i = 0; i < fh; i++)
    for (ptrdiff_t j = 0; j < fw; j++)
#pragma clang loop unroll(full)
      for (int v = 0; v < vectors; v++)
        sum[v] += *(const vec *)(x + i * row + j * c + v * CK_LANES);
#pragma clang loop unroll(full)
  for (int v = 0; v < vectors; v++) *(vec *)(y + v * CK_LANES) = sum[v] * share;
}

INLINE void avg_forward(const ptrdiff_t fh, const ptrdiff_t fw, const int clipped,
                        const ck_pool_shape *s, const float *x, float *y) {
  ptrdiff_t c = s->c, row = (ptrdiff_t)s->w * c;
  FOR_WINDOWS(s) {
    ptrdiff_t k = 0, in = FIRST(s);
    float share = 1 / (float)(clipped ? ck_pool_divisor(s, p, q) : fh * fw);
    for (; k + 4 * CK_LANES <= c; k += 4 * CK_LANES)
      avg_window(4, down.count, aside.count, row, c, x + in + k, share, y + out + k);
    for (; k + CK_LANES <= c; k += CK_LANES)
      avg_window(1, down.count, aside.count, row, c, x + in + k, share, y + out + k);
    for (; k < c; k++) {
      float sum = 0;
      for (ptrdiff_t i = 0; i < down.count; i++)
        for (ptrdiff_t j = 0; j < aside.count; j++) sum += x[in + i * row + j * c + k];
      y[out + k] = sum * share;
    }
  }
}

// Windows of any size: parts of a few values, added up in double precision.
static void CK_NAME(avg_forward_large)(const ck_pool_shape *s, const float *x, float *y) {
  const int clipped = 1;
  ptrdiff_t c = s->c, row = (ptrdiff_t)s->w * c, fh = s->fh, fw = s->fw;
  FOR_WINDOWS(s)
  for (ptrdiff_t k = 0, channels; k < c; k += channels) {
    channels = c - k < 2 * CK_LANES ? c - k : 2 * CK_LANES;
    double total[2 * CK_LANES] = {0}, count = (double)ck_pool_divisor(s, p, q);
    ptrdiff_t in = FIRST(s);
    for (ptrdiff_t i = 0; i < down.count; i++)
      for (ptrdiff_t from = 0; from < aside.count; from += 64) {
        ptrdiff_t end = aside.count - from < 64 ? aside.count : from + 64;
        vec left = {0}, right = {0};
        float part[2 * CK_LANES] = {0};
        const float *line = x + in + i * row + k;
        if (channels == 2 * CK_LANES) {
          for (ptrdiff_t j = from; j < end; j++) {
            left += *(const vec *)(line + j * c);
            right += *(const vec *)(line + j * c + CK_LANES);
          }
          *(vec *)part = left, *(vec *)(part + CK_LANES) = right;
        } else {
          for (ptrdiff_t j = from; j < end; j++)
            for (ptrdiff_t l = 0; l < channels; l++) part[l] += line[j * c + l];
        }
        for (ptrdiff_t l = 0; l < channels; l++) total[l] += part[l];
      }
    for (ptrdiff_t l = 0; l < channels; l++) y[out + k + l] = (float)(total[l] / count);
  }
}

static void CK_NAME(ck_pool_avg_forward_direct)(const ck_pool_shape *s, const float *x, float *y) {
  if ((ptrdiff_t)s->fh * s->fw > 256)
    CK_NAME(avg_forward_large)(s, x, y);
  else if (is_plain_2(s))
    avg_forward(2, 2, 0, s, x, y);
  else
    avg_forward(s->fh, s->fw, 1, s, x, y);
}

// With windows side by side or apart, zeros only where no window reaches; else everywhere.
static void CK_NAME(clear_outside)(const ck_pool_shape *s, int overlap, float *dx) {
  ptrdiff_t row = (ptrdiff_t)s->w * s->c;
  if (overlap || s->sh != s->fh || s->sw != s->fw || ck_pool_is_clipped(s)) {
    memset(dx, 0, sizeof(float) * s->n * s->h * row);
    return;
  }
  ptrdiff_t reached = (ptrdiff_t)s->ow * s->fw * s->c;
  for (ptrdiff_t n = 0; n < s->n; n++)
    for (ptrdiff_t i = 0; i < s->h; i++) {
      ptrdiff_t from = i < (ptrdiff_t)s->oh * s->fh ? reached : 0;
      memset(dx + (n * s->h + i) * row + from, 0, sizeof(float) * (row - from));
    }
}

INLINE void max_backward(const ptrdiff_t fh, const ptrdiff_t fw, const int overlap,
                         const int clipped, const ck_pool_shape *s, const float *dy,
                         const uint16_t *place, float *dx) {
  ptrdiff_t c = s->c, row = (ptrdiff_t)s->w * c, whole = c / CK_LANES * CK_LANES;
  FOR_WINDOWS(s) {
    ptrdiff_t in = FIRST(s);
    int32_t start = (int32_t)(down.first * fw + aside.first);
    for (ptrdiff_t k = 0; k < whole; k += CK_LANES) {
      vec upstream = *(const vec *)(dy + out + k);
      ints where = __builtin_convertvector(*(const places *)(place + out + k), ints);
      for (ptrdiff_t i = 0; i < down.count; i++)
        for (ptrdiff_t j = 0; j < aside.count; j++) {
          vec *target = (vec *)(dx + in + i * row + j * c + k);
          ints here = where == (ints){0} + (start + (int32_t)(i * fw + j));
          vec share = (vec)(here & (ints)upstream);
          *target = overlap ? *target + share : share;
        }
    }
    for (ptrdiff_t k = whole; k < c; k++)
      for (ptrdiff_t i = 0; i < down.count; i++)
        for (ptrdiff_t j = 0; j < aside.count; j++) {
          float *target = dx + in + i * row + j * c + k;
          float share = place[out + k] == start + i * fw + j ? dy[out + k] : 0;
          *target = overlap ? *target + share : share;
        }
  }
}

static void CK_NAME(ck_pool_max_backward_direct)(const ck_pool_shape *s, const float *dy,
                                                 const uint16_t *place, float *dx) {
  int overlap = s->sh < s->fh || s->sw < s->fw;
  CK_NAME(clear_outside)(s, overlap, dx);
  if (is_plain_2(s) && !overlap)
    max_backward(2, 2, 0, 0, s, dy, place, dx);
  else
    max_backward(s->fh, s->fw, overlap, 1, s, dy, place, dx);
}

INLINE void avg_backward(const ptrdiff_t fh, const ptrdiff_t fw, const int overlap,
                         const int clipped, const ck_pool_shape *s, const float *dy, float *dx) {
  ptrdiff_t c = s->c, row = (ptrdiff_t)s->w * c, whole = c / CK_LANES * CK_LANES;
  FOR_WINDOWS(s)
  for (ptrdiff_t i = 0; i < down.count; i++)
    for (ptrdiff_t j = 0; j < aside.count; j++) {
      float share = 1 / (float)(clipped ? ck_pool_divisor(s, p, q) : fh * fw);
      float *to = dx + FIRST(s) + i * row + j * c;
      for (ptrdiff_t k = 0; k < whole; k += CK_LANES) {
        vec part = *(const vec *)(dy + out + k) * share;
        *(vec *)(to + k) = overlap ? *(vec *)(to + k) + part : part;
      }
      for (ptrdiff_t k = whole; k < c; k++) {
        float part = dy[out + k] * share;
        to[k] = overlap ? to[k] + part : part;
      }
    }
}

static void CK_NAME(ck_pool_avg_backward_direct)(const ck_pool_shape *s, const float *dy,
                                                 float *dx) {
  int overlap = s->sh < s->fh || s->sw < s->fw;
  CK_NAME(clear_outside)(s, overlap, dx);
  if (overlap)
    avg_backward(s->fh, s->fw, 1, 1, s, dy, dx);
  else if (is_plain_2(s))
    avg_backward(2, 2, 0, 0, s, dy, dx);
  else
    avg_backward(s->fh, s->fw, 0, 1, s, dy, dx);
}
#undef FOR_WINDOWS
#undef FIRST
