// SPDX-License-Identifier: MIT
// Pooling, window by window: for a vector of channels the largest value (or the sum) and its place
// stay in registers while the window is read, and are written once, where stride groups go back to
// them for each element. Backwards, where windows don't overlap, each input belongs to one window
// at most and is written exactly once; where they do, the shares are added to zeros.
#include <string.h>

// The windows of one image: `in` and `out` are the offsets of a window's first element and of its
// output.
#define FOR_WINDOWS(s)                                                                      \
  for (ptrdiff_t n = 0; n < (s)->n; n++)                                                    \
    for (ptrdiff_t p = 0; p < (s)->oh; p++)                                                 \
      for (ptrdiff_t q = 0, in = ((n * (s)->h + p * (s)->sh) * (s)->w) * (ptrdiff_t)(s)->c, \
                     out = ((n * (s)->oh + p) * (s)->ow) * (ptrdiff_t)(s)->c;               \
           q < (s)->ow; q++, in += (ptrdiff_t)(s)->sw * (s)->c, out += (s)->c)

// `fh` and `fw` are s->fh and s->fw, or the same as constants, for the loops to be unrolled.
INLINE void max_forward(const ptrdiff_t fh, const ptrdiff_t fw, const ck_pool_shape *s,
                        const float *x, float *y, uint16_t *place) {
  ptrdiff_t c = s->c, row = (ptrdiff_t)s->w * c, whole = c / CK_LANES * CK_LANES;
  FOR_WINDOWS(s) {
    for (ptrdiff_t k = 0; k < whole; k += CK_LANES) {
      const float *first = x + in + k;
      vec best = *(const vec *)first;
      ints where = {0};
#pragma clang loop unroll_count(2)
      for (ptrdiff_t i = 0; i < fh; i++)
#pragma clang loop unroll_count(2)
        for (ptrdiff_t j = 0; j < fw; j++) {
          vec value = *(const vec *)(first + i * row + j * c);
          ints better = (value > best) | (value != value), here = (ints){0} + (int32_t)(i * fw + j);
          best = (vec)choose(better, (ints)value, (ints)best);
          where = choose(better, here, where);
        }
      *(vec *)(y + out + k) = best;
      *(places *)(place + out + k) = __builtin_convertvector(where, places);
    }
    for (ptrdiff_t k = whole; k < c; k++) {
      float best = x[in + k];
      uint16_t where = 0;
      for (ptrdiff_t i = 0; i < fh; i++)
        for (ptrdiff_t j = 0; j < fw; j++) {
          float value = x[in + i * row + j * c + k];
          if (value > best || value != value) best = value, where = (uint16_t)(i * fw + j);
        }
      y[out + k] = best;
      place[out + k] = where;
    }
  }
}

static void CK_NAME(ck_pool_max_forward_direct)(const ck_pool_shape *s, const float *x, float *y,
                                                uint16_t *place) {
  if (s->fh == 2 && s->fw == 2)
    max_forward(2, 2, s, x, y, place);
  else
    max_forward(s->fh, s->fw, s, x, y, place);
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

INLINE void avg_forward(const ptrdiff_t fh, const ptrdiff_t fw, const ck_pool_shape *s,
                        const float *x, float *y) {
  ptrdiff_t c = s->c, row = (ptrdiff_t)s->w * c;
  float share = 1 / (float)(fh * fw);
  FOR_WINDOWS(s) {
    ptrdiff_t k = 0;
    for (; k + 4 * CK_LANES <= c; k += 4 * CK_LANES)
      avg_window(4, fh, fw, row, c, x + in + k, share, y + out + k);
    for (; k + CK_LANES <= c; k += CK_LANES)
      avg_window(1, fh, fw, row, c, x + in + k, share, y + out + k);
    for (; k < c; k++) {
      float sum = 0;
      for (ptrdiff_t i = 0; i < fh; i++)
        for (ptrdiff_t j = 0; j < fw; j++) sum += x[in + i * row + j * c + k];
      y[out + k] = sum * share;
    }
  }
}

// Windows of any size: parts of a few values, added up in double precision.
static void CK_NAME(avg_forward_large)(const ck_pool_shape *s, const float *x, float *y) {
  ptrdiff_t c = s->c, row = (ptrdiff_t)s->w * c;
  double count = (double)s->fh * s->fw;
  FOR_WINDOWS(s)
  for (ptrdiff_t k = 0, channels; k < c; k += channels) {
    channels = c - k < 2 * CK_LANES ? c - k : 2 * CK_LANES;
    double total[2 * CK_LANES] = {0};
    for (ptrdiff_t i = 0; i < s->fh; i++)
      for (ptrdiff_t from = 0; from < s->fw; from += 64) {
        ptrdiff_t end = s->fw - from < 64 ? s->fw : from + 64;
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
  else if (s->fh == 2 && s->fw == 2)
    avg_forward(2, 2, s, x, y);
  else
    avg_forward(s->fh, s->fw, s, x, y);
}

// With windows side by side or apart, zeros only where no window reaches; else everywhere.
static void CK_NAME(clear_outside)(const ck_pool_shape *s, int overlap, float *dx) {
  ptrdiff_t row = (ptrdiff_t)s->w * s->c;
  if (overlap || s->sh != s->fh || s->sw != s->fw) {
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
                         const ck_pool_shape *s, const float *dy, const uint16_t *place,
                         float *dx) {
  ptrdiff_t c = s->c, row = (ptrdiff_t)s->w * c, whole = c / CK_LANES * CK_LANES;
  FOR_WINDOWS(s) {
    for (ptrdiff_t k = 0; k < whole; k += CK_LANES) {
      vec upstream = *(const vec *)(dy + out + k);
      ints where = __builtin_convertvector(*(const places *)(place + out + k), ints);
      for (ptrdiff_t i = 0; i < fh; i++)
        for (ptrdiff_t j = 0; j < fw; j++) {
          vec *target = (vec *)(dx + in + i * row + j * c + k);
          ints here = where == (ints){0} + (int32_t)(i * fw + j);
          vec share = (vec)(here & (ints)upstream);
          *target = overlap ? *target + share : share;
        }
    }
    for (ptrdiff_t k = whole; k < c; k++)
      for (ptrdiff_t i = 0; i < fh; i++)
        for (ptrdiff_t j = 0; j < fw; j++) {
          float *target = dx + in + i * row + j * c + k;
          float share = place[out + k] == i * fw + j ? dy[out + k] : 0;
          *target = overlap ? *target + share : share;
        }
  }
}

static void CK_NAME(ck_pool_max_backward_direct)(const ck_pool_shape *s, const float *dy,
                                                 const uint16_t *place, float *dx) {
  int overlap = s->sh < s->fh || s->sw < s->fw;
  CK_NAME(clear_outside)(s, overlap, dx);
  if (s->fh == 2 && s->fw == 2 && !overlap)
    max_backward(2, 2, 0, s, dy, place, dx);
  else
    max_backward(s->fh, s->fw, overlap, s, dy, place, dx);
}

INLINE void avg_backward(const ptrdiff_t fh, const ptrdiff_t fw, const int overlap,
                         const ck_pool_shape *s, const float *dy, float *dx) {
  ptrdiff_t c = s->c, row = (ptrdiff_t)s->w * c, whole = c / CK_LANES * CK_LANES;
  float share = 1 / (float)(fh * fw);
  FOR_WINDOWS(s)
  for (ptrdiff_t i = 0; i < fh; i++)
    for (ptrdiff_t j = 0; j < fw; j++) {
      float *to = dx + in + i * row + j * c;
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
    avg_backward(s->fh, s->fw, 1, s, dy, dx);
  else if (s->fh == 2 && s->fw == 2)
    avg_backward(2, 2, 0, s, dy, dx);
  else
    avg_backward(s->fh, s->fw, 0, s, dy, dx);
}
#undef FOR_WINDOWS
