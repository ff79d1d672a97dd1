// SPDX-License-Identifier: MIT
// Pooling by stride groups: instead of visiting windows one by one, take one element of the window
// (top left, say) of all windows of a group at once, for all channels, and fold it into the
// outputs. The inner loops run over channels that lie side by side, without a branch, so the
// compiler turns them into vector code. Forward, no two outputs share memory, so all windows can be
// taken together. Backward, the windows of a group share no input (see stride_groups.h), so each
// group's scatter is a plain add that no other window of the group can disturb.
#include "window.h"

// Loops over the windows of group (gr, gc) of image n whose element (i, j) lies inside the image:
// `in` is that element's offset in x, `out` the window's in y, for channel 0.
#define FOR_WINDOWS(s, n, first_row, row_step, first_column, column_step, i, j)                   \
  for (ptrdiff_t p = (first_row), row = p * (s)->sh + (i) - (s)->ph; p < (s)->oh && row < (s)->h; \
       p += (row_step), row += (row_step) * (s)->sh)                                              \
    for (ptrdiff_t q = (first_column), column = q * (s)->sw + (j) - (s)->pw,                      \
                   in = (((n) * (s)->h + row) * (s)->w + column) * (s)->c,                        \
                   out = (((n) * (s)->oh + p) * (s)->ow + q) * (s)->c;                            \
         row >= 0 && q < (s)->ow && column < (s)->w;                                              \
         q += (column_step), column += (column_step) * (s)->sw,                                   \
                   in += (column_step) * (s)->sw * (s)->c, out += (column_step) * (s)->c)         \
      if (column >= 0)

static void ck_pool_max_forward_stride_groups(const ck_pool_shape *s, const float *x, float *y,
                                              uint16_t *place) {
  for (ptrdiff_t n = 0; n < s->n; n++)
    for (ptrdiff_t i = 0; i < s->fh; i++)
      for (ptrdiff_t j = 0; j < s->fw; j++) {
        uint16_t here = (uint16_t)(i * s->fw + j);
        FOR_WINDOWS(s, n, 0, 1, 0, 1, i, j) {
          const float *value = x + in;
          float *best = y + out;
          uint16_t *where = place + out;
          if ((!i || !row) && (!j || !column)) {  // the first that the window holds
            memcpy(best, value, sizeof(float) * s->c);
            for (ptrdiff_t c = 0; c < s->c; c++) where[c] = here;
            continue;
          }
          for (ptrdiff_t c = 0; c < s->c; c++) {
            int better = value[c] > best[c] || value[c] != value[c];
            best[c] = better ? value[c] : best[c];
            where[c] = better ? here : where[c];
          }
        }
      }
}

// An element's share of the mean of window (p,q); of whole windows it is `whole`.
static float share_of(const ck_pool_shape *s, ptrdiff_t p, ptrdiff_t q, int clipped, float whole) {
  return clipped ? 1.0f / (float)ck_pool_divisor(s, p, q) : whole;
}

static void ck_pool_avg_forward_stride_groups(const ck_pool_shape *s, const float *x, float *y) {
  if ((ptrdiff_t)s->fh * s->fw > 256) {  // sums of floats in memory would lose too many digits
    ck_pool_naive.avg_forward(s, x, y);
    return;
  }
  int clipped = ck_pool_is_clipped(s);
  float whole = 1.0f / (float)(s->fh * s->fw);
  memset(y, 0, sizeof(float) * s->n * s->oh * s->ow * s->c);
  for (ptrdiff_t n = 0; n < s->n; n++)
    for (ptrdiff_t i = 0; i < s->fh; i++)
      for (ptrdiff_t j = 0; j < s->fw; j++) FOR_WINDOWS(s, n, 0, 1, 0, 1, i, j) {
          float share = share_of(s, p, q, clipped, whole);
          for (ptrdiff_t c = 0; c < s->c; c++) y[out + c] += x[in + c] * share;
        }
}

static void ck_pool_max_backward_stride_groups(const ck_pool_shape *s, const float *dy,
                                               const uint16_t *place, float *dx) {
  ck_axis rows = ck_axis_groups(s->fh, s->sh, s->oh), columns = ck_axis_groups(s->fw, s->sw, s->ow);
  memset(dx, 0, sizeof(float) * s->n * s->h * s->w * s->c);
  for (ptrdiff_t n = 0; n < s->n; n++)
    for (ptrdiff_t gr = 0; gr < rows.groups; gr++)
      for (ptrdiff_t gc = 0; gc < columns.groups; gc++)
        for (ptrdiff_t i = 0; i < s->fh; i++)
          for (ptrdiff_t j = 0; j < s->fw; j++) FOR_WINDOWS(s, n, gr, rows.q, gc, columns.q, i, j) {
              uint16_t here = (uint16_t)(i * s->fw + j);
              for (ptrdiff_t c = 0; c < s->c; c++)
                dx[in + c] += place[out + c] == here ? dy[out + c] : 0;
            }
}

static void ck_pool_avg_backward_stride_groups(const ck_pool_shape *s, const float *dy, float *dx) {
  ck_axis rows = ck_axis_groups(s->fh, s->sh, s->oh), columns = ck_axis_groups(s->fw, s->sw, s->ow);
  int clipped = ck_pool_is_clipped(s);
  float whole = 1.0f / (float)(s->fh * s->fw);
  memset(dx, 0, sizeof(float) * s->n * s->h * s->w * s->c);
  for (ptrdiff_t n = 0; n < s->n; n++)
    for (ptrdiff_t gr = 0; gr < rows.groups; gr++)
      for (ptrdiff_t gc = 0; gc < columns.groups; gc++)
        for (ptrdiff_t i = 0; i < s->fh; i++)
          for (ptrdiff_t j = 0; j < s->fw; j++) FOR_WINDOWS(s, n, gr, rows.q, gc, columns.q, i, j) {
              float share = share_of(s, p, q, clipped, whole);
              for (ptrdiff_t c = 0; c < s->c; c++) dx[in + c] += dy[out + c] * share;
            }
}

const ck_pool_variant ck_pool_stride_groups = {
    .name = "stride_groups",
    .description = "one pass a window element over all windows that don't overlap",
    .max_forward = ck_pool_max_forward_stride_groups,
    .max_backward = ck_pool_max_backward_stride_groups,
    .avg_forward = ck_pool_avg_forward_stride_groups,
    .avg_backward = ck_pool_avg_backward_stride_groups,
};
