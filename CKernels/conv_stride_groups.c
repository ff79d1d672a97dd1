// SPDX-License-Identifier: MIT
// Convolution, rung 2: stride groups. The windows are sorted into groups in which no two overlap
// (see stride_groups.h), at most FH·FW of them whatever the images' number and size. For each
// group: gather its windows, of all images, as the rows of a matrix, multiply that by the weights,
// and put the product's rows where their positions are in the output (scatter). Forward, where
// a filter's rows are long and no window reaches into padding, the matrix is never written out: its
// rows go straight into the order in which the product reads them. (With single channels or
// padding, and in the weight gradient, which reads the matrix by columns, that was tried and is
// slower.) A group's matrix is never larger than the (padded) input, while im2col's is FH·FW times
// as large; and in the backward pass a group's rows go back to pixels that no other row of the
// group touches, so the scatter is a plain add without conflicts. What it costs is that every group
// walks over the whole input again, in steps, and that small groups make small products. With a
// stride of at least the filter's size there is one group, and its product is the output itself.
#include "quad.h"
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

// Whether windows go straight into the product's order.
static int goes_straight(const ck_conv_shape *s) {
  return s->fw * s->c >= 16 && !s->ph && !s->pw && (s->oh - 1) * s->sh + s->fh <= s->h &&
         (s->ow - 1) * s->sw + s->fw <= s->w;
}

static size_t ck_conv_workspace_stride_groups(const ck_conv_shape *s, ck_pass pass) {
  plan g = plan_groups(s);
  ptrdiff_t k = pass == CK_FORWARD && goes_straight(s) ? 0 : g.k;
  return g.most * (s->f + k) + ck_kernels()->gemm_workspace;
}

// Loops over the windows of group (gr, gc): n, p, q are the image and the output position.
#define FOR_WINDOWS(s, g, gr, gc)                        \
  for (ptrdiff_t n = 0; n < (s)->n; n++)                 \
    for (ptrdiff_t p = (gr); p < (s)->oh; p += g.rows.q) \
      for (ptrdiff_t q = (gc); q < (s)->ow; q += g.columns.q)

// The windows of one group as a matrix.
typedef struct group {
  const ck_conv_shape *s;
  plan g;
  ptrdiff_t row, column;    // of the group
  ptrdiff_t rows, columns;  // how many windows of an image
  const float *x;
} group;

static group group_of(const ck_conv_shape *s, plan g, ptrdiff_t gr, ptrdiff_t gc, const float *x) {
  return (group){s, g, gr, gc, ck_group_size(g.rows, gr), ck_group_size(g.columns, gc), x};
}

// Window number `index` of the group, which lies inside the image.
static const float *window(const group *m, ptrdiff_t index) {
  const ck_conv_shape *s = m->s;
  ptrdiff_t row = m->row + index / m->columns % m->rows * m->g.rows.q;
  ptrdiff_t column = m->column + index % m->columns * m->g.columns.q;
  ptrdiff_t n = index / m->columns / m->rows;
  return m->x + ((n * s->h + row * s->sh) * s->w + column * s->sw) * s->c;
}

// Rows of the matrix are windows, four at a time. The last four first: what they write too much,
// the others overwrite.
static void pack_windows(const void *matrix, ptrdiff_t row, ptrdiff_t rows, ptrdiff_t from,
                         ptrdiff_t count, float *out) {
  const group *m = matrix;
  ptrdiff_t run = (ptrdiff_t)m->s->fw * m->s->c, size = (ptrdiff_t)m->s->w * m->s->c;
  for (ptrdiff_t l = (rows - 1) / 4 * 4; l >= 0; l -= 4) {
    ptrdiff_t lines = rows - l < 4 ? rows - l : 4;
    const float *at[4];
    for (ptrdiff_t j = 0; j < 4; j++) at[j] = window(m, row + l + (j < lines ? j : lines - 1));
    for (ptrdiff_t p = from, n; p < from + count; p += n) {
      n = run - p % run < from + count - p ? run - p % run : from + count - p;
      ptrdiff_t line = p / run * size + p % run, e = 0;
      float *to = out + (p - from) * rows + l;
      for (; e + 4 <= n; e += 4) {
        ck_quad turned[4];
        ck_turn(*(const ck_quad *)(at[0] + line + e), *(const ck_quad *)(at[1] + line + e),
                *(const ck_quad *)(at[2] + line + e), *(const ck_quad *)(at[3] + line + e), turned);
        for (ptrdiff_t j = 0; j < 4; j++) *(ck_quad *)(to + (e + j) * rows) = turned[j];
      }
      for (; e < n; e++)
        for (ptrdiff_t j = 0; j < lines; j++) to[e * rows + j] = at[j][line + e];
    }
  }
}

// The matrix written out; returns its rows.
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

static void ck_conv_forward_stride_groups(const ck_conv_shape *s, const float *x, const float *w,
                                          const float *bias, int relu, float *y, float *workspace) {
  plan g = plan_groups(s);
  int straight = goes_straight(s);
  float *product = workspace, *matrix = product + g.most * s->f;
  float *rest = matrix + (straight ? 0 : g.most * g.k);
  for (ptrdiff_t gr = 0; gr < g.rows.groups; gr++)
    for (ptrdiff_t gc = 0; gc < g.columns.groups; gc++) {
      float *target = is_one_group(g) ? y : product;
      group windows = group_of(s, g, gr, gc, x);
      ptrdiff_t m = s->n * windows.rows * windows.columns;
      if (straight) {
        ck_kernels()->gemm_packing(0, m, s->f, g.k, pack_windows, &windows, w, s->f, target, s->f,
                                   rest);
      } else {
        gather(s, g, gr, gc, x, matrix);
        ck_kernels()->gemm(0, m, s->f, g.k, matrix, g.k, w, s->f, target, s->f, rest);
      }
      ck_kernels()->bias_add(m, s->f, bias, relu, target);
      if (target != y) scatter_outputs(s, g, gr, gc, product, y);
    }
}

static void ck_conv_input_gradient_stride_groups(const ck_conv_shape *s, const float *dy,
                                                 const float *w, float *dx, float *workspace) {
  plan g = plan_groups(s);
  float *matrix = workspace, *packed = matrix + g.most * g.k, *rest = packed + g.most * s->f;
  memset(dx, 0, sizeof(float) * s->n * s->h * s->w * s->c);
  for (ptrdiff_t gr = 0; gr < g.rows.groups; gr++)
    for (ptrdiff_t gc = 0; gc < g.columns.groups; gc++) {
      ptrdiff_t m = s->n * ck_group_size(g.rows, gr) * ck_group_size(g.columns, gc);
      if (!is_one_group(g)) gather_outputs(s, g, gr, gc, dy, packed);
      ck_kernels()->gemm(CK_TRANSPOSE_B, m, g.k, s->f, is_one_group(g) ? dy : packed, s->f, w, s->f,
                         matrix, g.k, rest);
      const float *row = matrix;
      FOR_WINDOWS(s, g, gr, gc) {
        ck_scatter_window(s, row, p, q, dx + n * s->h * s->w * s->c);
        row += g.k;
      }
    }
}

static void ck_conv_weight_gradient_stride_groups(const ck_conv_shape *s, const float *x,
                                                  const float *dy, float *dw, float *workspace) {
  plan g = plan_groups(s);
  float *matrix = workspace, *packed = matrix + g.most * g.k, *rest = packed + g.most * s->f;
  for (ptrdiff_t gr = 0; gr < g.rows.groups; gr++)
    for (ptrdiff_t gc = 0; gc < g.columns.groups; gc++) {
      ptrdiff_t m = gather(s, g, gr, gc, x, matrix);
      if (!is_one_group(g)) gather_outputs(s, g, gr, gc, dy, packed);
      ck_kernels()->gemm(CK_TRANSPOSE_A | (gr || gc ? CK_ACCUMULATE : 0), g.k, s->f, m, matrix, g.k,
                         is_one_group(g) ? dy : packed, s->f, dw, s->f, rest);
    }
}

const ck_conv_variant ck_conv_stride_groups = {
    .name = "stride_groups",
    .description = "windows that don't overlap gathered together, one matrix product a group",
    .forward = ck_conv_forward_stride_groups,
    .input_gradient = ck_conv_input_gradient_stride_groups,
    .weight_gradient = ck_conv_weight_gradient_stride_groups,
    .workspace = ck_conv_workspace_stride_groups,
};
