// SPDX-License-Identifier: MIT
// Convolution, rung 3: im2col. Every window of an image is written out as a row of a matrix
// (OH·OW, FH·FW·C); then the whole layer is one matrix product with the weights (FH·FW·C, F), and a
// matrix product can keep its sums in registers and its operands in cache, which the plain loops
// can't. The price is memory traffic: each pixel is copied once for every window that holds it, up
// to FH·FW times. Working image by image keeps the copy small enough for the cache. Backwards, the
// product with the transposed weights gives a row of gradients a window, and these are added back
// to the pixels that they came from, overlapping ones on top of each other.
#include "window.h"

static ptrdiff_t positions(const ck_conv_shape *s) { return (ptrdiff_t)s->oh * s->ow; }
static ptrdiff_t window_size(const ck_conv_shape *s) { return (ptrdiff_t)s->fh * s->fw * s->c; }

static size_t ck_conv_workspace_im2col(const ck_conv_shape *s, ck_pass pass) {
  (void)pass;
  return positions(s) * window_size(s) + ck_kernels()->gemm_workspace;
}

static void gather_image(const ck_conv_shape *s, const float *x, float *matrix) {
  for (ptrdiff_t p = 0; p < s->oh; p++)
    for (ptrdiff_t q = 0; q < s->ow; q++, matrix += window_size(s))
      ck_gather_window(s, x, p, q, matrix);
}

static void ck_conv_forward_im2col(const ck_conv_shape *s, const float *x, const float *w,
                                   const float *bias, int relu, float *y, float *workspace) {
  ptrdiff_t m = positions(s), k = window_size(s);
  float *matrix = workspace, *rest = workspace + m * k;
  for (ptrdiff_t n = 0; n < s->n; n++, x += (ptrdiff_t)s->h * s->w * s->c, y += m * s->f) {
    gather_image(s, x, matrix);
    ck_kernels()->gemm(0, m, s->f, k, matrix, k, w, s->f, y, s->f, rest);
    ck_kernels()->bias_add(m, s->f, bias, relu, y);
  }
}

static void ck_conv_input_gradient_im2col(const ck_conv_shape *s, const float *dy, const float *w,
                                          float *dx, float *workspace) {
  ptrdiff_t m = positions(s), k = window_size(s), size = (ptrdiff_t)s->h * s->w * s->c;
  float *matrix = workspace, *rest = workspace + m * k;
  for (ptrdiff_t n = 0; n < s->n; n++, dx += size, dy += m * s->f) {
    ck_kernels()->gemm(CK_TRANSPOSE_B, m, k, s->f, dy, s->f, w, s->f, matrix, k, rest);
    memset(dx, 0, sizeof(float) * size);
    const float *row = matrix;
    for (ptrdiff_t p = 0; p < s->oh; p++)
      for (ptrdiff_t q = 0; q < s->ow; q++, row += k) ck_scatter_window(s, row, p, q, dx);
  }
}

static void ck_conv_weight_gradient_im2col(const ck_conv_shape *s, const float *x, const float *dy,
                                           float *dw, float *workspace) {
  ptrdiff_t m = positions(s), k = window_size(s);
  float *matrix = workspace, *rest = workspace + m * k;
  for (ptrdiff_t n = 0; n < s->n; n++, x += (ptrdiff_t)s->h * s->w * s->c, dy += m * s->f) {
    gather_image(s, x, matrix);
    ck_kernels()->gemm(CK_TRANSPOSE_A | (n ? CK_ACCUMULATE : 0), k, s->f, m, matrix, k, dy, s->f,
                       dw, s->f, rest);
  }
}

const ck_conv_variant ck_conv_im2col = {
    .name = "im2col",
    .description = "every window of an image gathered as a row, one matrix product an image",
    .forward = ck_conv_forward_im2col,
    .input_gradient = ck_conv_input_gradient_im2col,
    .weight_gradient = ck_conv_weight_gradient_im2col,
    .workspace = ck_conv_workspace_im2col,
};
