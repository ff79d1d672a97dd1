// SPDX-License-Identifier: MIT
// Convolution, rung 2: stride groups. The windows are sorted into groups in which no two overlap
// (see stride_groups.h), at most FH·FW of them whatever the images' number and size. For each
// group: gather its windows, of all images, as the rows of a matrix, multiply that by the weights,
// and put the product's rows where their positions are in the output (scatter). A group's matrix is
// never larger than the (padded) input, while im2col's is FH·FW times as large; and in the backward
// pass a group's rows go back to pixels that no other row of the group touches, so the scatter is a
// plain add without conflicts. What it costs is that every group walks over the whole input again,
// in steps, and that small groups make small products. With a stride of at least the filter's size
// there is one group, and its product is the output itself.
#include "window.h"

typedef struct plan {
  ck_axis rows, columns;
  ptrdiff_t k;     // length of a window: FH·FW·C
  ptrdiff_t most;  // rows of the largest group's matrix, the first group's
} plan;

static plan plan_groups(const ck_conv_shape *s) {
  plan g = {ck_axis_groups(s->fh, s->sh, s->oh), ck_axis_groups(s->fw, s->sw, s->ow),
            (ptrdiff_t)s->fh * s->fw * s->c, 0};
  g.most = s->n * ck_group_size(g.rows, 0) * ck_group_size(g.columns, 0);
  return g;
}

static int is_one_group(plan g) { return g.rows.groups * g.columns.groups == 1; }

size_t ck_conv_workspace_stride_groups(const ck_conv_shape *s, ck_pass pass) {
  (void)pass;
  plan g = plan_groups(s);
  return g.most * (g.k + s->f) + ck_gemm_workspace();
}

// Loops over the windows of group (gr, gc): n, p, q are the image and the output position.
#define FOR_WINDOWS(s, g, gr, gc)                        \
  for (ptrdiff_t n = 0; n < (s)->n; n++)                 \
    for (ptrdiff_t p = (gr); p < (s)->oh; p += g.rows.q) \
      for (ptrdiff_t q = (gc); q < (s)->ow; q += g.columns.q)

static ptrdiff_t gather(const ck_conv_shape *s, plan g, ptrdiff_t gr, ptrdiff_t gc, const float *x,
                        float *matrix) {
  float *row = matrix;
  FOR_WINDOWS(s, g, gr, gc) {
    ck_gather_window(s, x + n * s->h * s->w * s->c, p, q, row);
    row += g.k;
  }
  return (row - matrix) / g.k;
}

// The rows of y (N,OH,OW,F) that belong to the group, packed one after the other.
static void gather_outputs(const ck_conv_shape *s, plan g, ptrdiff_t gr, ptrdiff_t gc,
                           const float *y, float *rows) {
  FOR_WINDOWS(s, g, gr, gc) {
    memcpy(rows, y + ((n * s->oh + p) * s->ow + q) * s->f, sizeof(float) * s->f);
    rows += s->f;
  }
}

static void scatter_outputs(const ck_conv_shape *s, plan g, ptrdiff_t gr, ptrdiff_t gc,
                            const float *rows, float *y) {
  FOR_WINDOWS(s, g, gr, gc) {
    memcpy(y + ((n * s->oh + p) * s->ow + q) * s->f, rows, sizeof(float) * s->f);
    rows += s->f;
  }
}

void ck_conv_forward_stride_groups(const ck_conv_shape *s, const float *x, const float *w,
                                   const float *bias, int relu, float *y, float *workspace) {
  plan g = plan_groups(s);
  float *matrix = workspace, *product = matrix + g.most * g.k, *rest = product + g.most * s->f;
  for (ptrdiff_t gr = 0; gr < g.rows.groups; gr++)
    for (ptrdiff_t gc = 0; gc < g.columns.groups; gc++) {
      ptrdiff_t m = gather(s, g, gr, gc, x, matrix);
      float *target = is_one_group(g) ? y : product;
      ck_gemm(0, m, s->f, g.k, matrix, g.k, w, s->f, target, s->f, rest);
      ck_bias_add(m, s->f, bias, relu, target);
      if (target != y) scatter_outputs(s, g, gr, gc, product, y);
    }
}

void ck_conv_input_gradient_stride_groups(const ck_conv_shape *s, const float *dy, const float *w,
                                          float *dx, float *workspace) {
  plan g = plan_groups(s);
  float *matrix = workspace, *packed = matrix + g.most * g.k, *rest = packed + g.most * s->f;
  memset(dx, 0, sizeof(float) * s->n * s->h * s->w * s->c);
  for (ptrdiff_t gr = 0; gr < g.rows.groups; gr++)
    for (ptrdiff_t gc = 0; gc < g.columns.groups; gc++) {
      ptrdiff_t m = s->n * ck_group_size(g.rows, gr) * ck_group_size(g.columns, gc);
      if (!is_one_group(g)) gather_outputs(s, g, gr, gc, dy, packed);
      ck_gemm(CK_TRANSPOSE_B, m, g.k, s->f, is_one_group(g) ? dy : packed, s->f, w, s->f, matrix,
              g.k, rest);
      const float *row = matrix;
      FOR_WINDOWS(s, g, gr, gc) {
        ck_scatter_window(s, row, p, q, dx + n * s->h * s->w * s->c);
        row += g.k;
      }
    }
}

void ck_conv_weight_gradient_stride_groups(const ck_conv_shape *s, const float *x, const float *dy,
                                           float *dw, float *workspace) {
  plan g = plan_groups(s);
  float *matrix = workspace, *packed = matrix + g.most * g.k, *rest = packed + g.most * s->f;
  for (ptrdiff_t gr = 0; gr < g.rows.groups; gr++)
    for (ptrdiff_t gc = 0; gc < g.columns.groups; gc++) {
      ptrdiff_t m = gather(s, g, gr, gc, x, matrix);
      if (!is_one_group(g)) gather_outputs(s, g, gr, gc, dy, packed);
      ck_gemm(CK_TRANSPOSE_A | (gr || gc ? CK_ACCUMULATE : 0), g.k, s->f, m, matrix, g.k,
              is_one_group(g) ? dy : packed, s->f, dw, s->f, rest);
    }
}
