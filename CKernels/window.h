// SPDX-License-Identifier: MIT
// One window of the input: copied out as a row of a matrix (gather), and a row added back to where
// it came from (scatter). Both im2col and stride groups are made of these two; they differ only in
// which windows they take together. A filter row of NHWC input is FW·C floats that lie side by
// side, so a window is FH copies; outside the image it is zeros.
#ifndef CK_WINDOW_H
#define CK_WINDOW_H
#include <string.h>

#include "CKernels.h"

typedef struct ck_span {
  ptrdiff_t first, count;  // columns of the filter that fall inside the image
} ck_span;

static inline ck_span ck_inside(ptrdiff_t start, ptrdiff_t filter, ptrdiff_t size) {
  ptrdiff_t first = start < 0 ? -start : 0;
  ptrdiff_t last = start + filter > size ? size - start : filter;
  return (ck_span){first, last > first ? last - first : 0};
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
