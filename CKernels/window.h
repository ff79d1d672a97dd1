// SPDX-License-Identifier: MIT
// What of a window lies inside the image; and one window of the input: copied out as a row of a
// matrix (gather), and a row added back to where it came from (scatter). Both im2col and stride
// groups are made of these two; they differ only in which windows they take together. A filter row
// of NHWC input is FW·C floats that lie side by side, so a window is FH copies; outside the image
// it is zeros.
#ifndef CK_WINDOW_H
#define CK_WINDOW_H
#include <string.h>

#include "CKernels.h"

typedef struct ck_span {
  ptrdiff_t first, count;  // rows or columns of the window that fall inside the image
} ck_span;

static inline ck_span ck_inside(ptrdiff_t start, ptrdiff_t filter, ptrdiff_t size) {
  ptrdiff_t first = start < 0 ? -start : 0;
  ptrdiff_t last = start + filter > size ? size - start : filter;
  return (ck_span){first, last > first ? last - first : 0};
}

/// What of a pooling's windows falls inside, and how many elements their means divide by.
static inline ck_span ck_pool_rows(const ck_pool_shape *s, ptrdiff_t p) {
  return ck_inside(p * s->sh - s->ph, s->fh, s->h);
}
static inline ck_span ck_pool_columns(const ck_pool_shape *s, ptrdiff_t q) {
  return ck_inside(q * s->sw - s->pw, s->fw, s->w);
}
static inline ptrdiff_t ck_pool_divisor(const ck_pool_shape *s, ptrdiff_t p, ptrdiff_t q) {
  if (!s->ch) return ck_pool_rows(s, p).count * ck_pool_columns(s, q).count;
  return ck_inside(p * s->sh, s->fh, s->ch).count * ck_inside(q * s->sw, s->fw, s->cw).count;
}
/// Whether there is a window that isn't whole.
static inline int ck_pool_is_clipped(const ck_pool_shape *s) {
  return s->ph || s->pw || (ptrdiff_t)(s->oh - 1) * s->sh + s->fh > s->h ||
         (ptrdiff_t)(s->ow - 1) * s->sw + s->fw > s->w;
}

/// row (FH,FW,C) = the window of image x (H,W,C) at output position (p,q)
static inline void ck_gather_window(const ck_conv_shape *s, const float *x, ptrdiff_t p,
                                    ptrdiff_t q, float *row) {
  ptrdiff_t top = p * s->sh - s->ph, left = q * s->sw - s->pw, width = (ptrdiff_t)s->fw * s->c;
  ck_span columns = ck_inside(left, s->fw, s->w);
  for (ptrdiff_t i = 0; i < s->fh; i++, row += width) {
    ptrdiff_t y = top + i;
    if (y >= 0 && y < s->h && columns.count == s->fw) {
      const float *source = x + (y * s->w + left) * s->c;
      for (ptrdiff_t k = 0; k < width; k++) row[k] = source[k];
    } else {
      memset(row, 0, sizeof(float) * width);
      if (y >= 0 && y < s->h && columns.count)
        memcpy(row + columns.first * s->c, x + (y * s->w + left + columns.first) * s->c,
               sizeof(float) * columns.count * s->c);
    }
  }
}

/// The adjoint: adds row (FH,FW,C) to the window of image dx (H,W,C) at (p,q)
static inline void ck_scatter_window(const ck_conv_shape *s, const float *row, ptrdiff_t p,
                                     ptrdiff_t q, float *dx) {
  ptrdiff_t top = p * s->sh - s->ph, left = q * s->sw - s->pw, width = (ptrdiff_t)s->fw * s->c;
  ck_span columns = ck_inside(left, s->fw, s->w);
  for (ptrdiff_t i = 0; i < s->fh; i++, row += width) {
    ptrdiff_t y = top + i;
    if (y < 0 || y >= s->h) continue;
    float *target = dx + (y * s->w + left + columns.first) * s->c;
    const float *source = row + columns.first * s->c;
    for (ptrdiff_t k = 0; k < columns.count * s->c; k++) target[k] += source[k];
  }
}
#endif
