// SPDX-License-Identifier: MIT
// Dilated and grouped convolutions by kernels that know neither: split into dense ones. So are
// those with windows that hold padding alone: a dense one over a copy with the zeros around it.
//
// A group of filters sees its own channels alone, so it is a convolution of its own over a copy of
// these. Dilation: on an axis with dilation d and stride s let g be their greatest common divisor
// and P = d / g. Outputs a, a + P, a + 2P, ... (a phase; there are P) have windows that start
// P·s = d·(s / g) apart, and within a window taps are d apart: all of them read only rows
// a·s - padding + d·k. These rows, copied one after the other with the zeros around them, are the
// input of a dense convolution of stride s / g whose outputs are the phase's.
//
// Whatever the way, a weight gradient over many pixels is taken in parts of some images or rows.
//
// Backwards it is the same with the copies turned round. a·s differs between two phases by no
// multiple of d, so an input is in one phase at most: input gradients are put back, not added.
#include <string.h>

#include "isa.h"

/// One axis of a phase: outputs first, first + apart, ...; inputs base, base + step, ...
typedef struct axis {
  ptrdiff_t first, apart, outputs;
  ptrdiff_t base, step, inputs;
  ptrdiff_t stride;
} axis;

static ptrdiff_t common_divisor(ptrdiff_t a, ptrdiff_t b) {
  return b ? common_divisor(b, a % b) : a;
}

static ptrdiff_t phases(ptrdiff_t dilation, ptrdiff_t stride) {
  return dilation / common_divisor(dilation, stride);
}

static axis phase_of(ptrdiff_t phase, ptrdiff_t outputs, ptrdiff_t filter, ptrdiff_t stride,
                     ptrdiff_t padding, ptrdiff_t dilation) {
  ptrdiff_t apart = phases(dilation, stride);
  axis a = {.first = phase,
            .apart = apart,
            .outputs = (outputs - phase + apart - 1) / apart,
            .base = phase * stride - padding,
            .step = dilation,
            .stride = apart * stride / dilation};
  a.inputs = (a.outputs - 1) * a.stride + filter;
  return a;
}

/// One of the dense convolutions.
typedef struct part {
  const ck_conv_shape *s;
  axis rows, columns;
  ck_conv_shape dense;
} part;

static part part_of(const ck_conv_shape *s, ptrdiff_t row_phase, ptrdiff_t column_phase) {
  part p = {s, phase_of(row_phase, s->oh, s->fh, s->sh, s->ph, s->dh),
            phase_of(column_phase, s->ow, s->fw, s->sw, s->pw, s->dw), *s};
  p.dense.h = (int32_t)p.rows.inputs, p.dense.w = (int32_t)p.columns.inputs;
  p.dense.oh = (int32_t)p.rows.outputs, p.dense.ow = (int32_t)p.columns.outputs;
  p.dense.sh = (int32_t)p.rows.stride, p.dense.sw = (int32_t)p.columns.stride;
  p.dense.c /= s->groups, p.dense.f /= s->groups;
  p.dense.ph = p.dense.pw = 0;
  p.dense.dh = p.dense.dw = p.dense.groups = 1;
  return p;
}

static size_t inputs(const ck_conv_shape *s) { return (size_t)s->n * s->h * s->w * s->c; }
static size_t weights(const ck_conv_shape *s) { return (size_t)s->fh * s->fw * s->c * s->f; }
static size_t outputs(const ck_conv_shape *s) { return (size_t)s->n * s->oh * s->ow * s->f; }

// ---- Dense ones ---------------------------------------------------------------------------------

// Whole cache lines of floats for the weights made ready, in front of the variant's workspace.
static size_t ready_count(const ck_conv_variant *v, const ck_conv_shape *s, ck_pass pass) {
  return v->ready ? (v->ready_count(s, pass) + 15) & ~(size_t)15 : 0;
}

static size_t dense_workspace(const ck_conv_variant *v, const ck_conv_shape *s, ck_pass pass) {
  return ready_count(v, s, pass) + v->workspace(s, pass);
}

static const float *ready(const ck_conv_variant *v, const ck_conv_shape *s, ck_pass pass,
                          const float *w, float **workspace) {
  if (!v->ready) return w;
  float *made = *workspace;
  v->ready(s, pass, w, made);
  *workspace += ready_count(v, s, pass);
  return made;
}

static void dense_forward(const ck_conv_variant *v, const ck_conv_shape *s, const float *x,
                          const float *w, const float *bias, int relu, float *y, float *workspace) {
  const float *made = ready(v, s, CK_FORWARD, w, &workspace);
  v->forward(s, x, made, bias, relu, y, workspace);
}

static void dense_input_gradient(const ck_conv_variant *v, const ck_conv_shape *s, const float *dy,
                                 const float *w, float *dx, float *workspace) {
  const float *made = ready(v, s, CK_INPUT_GRADIENT, w, &workspace);
  v->input_gradient(s, dy, made, dx, workspace);
}

// ---- Split ones ---------------------------------------------------------------------------------

// Workspace: the part's x or dx, y or dy, and w or dw, then that of the variant.
static size_t split_workspace(const ck_conv_variant *v, const ck_conv_shape *s, ck_pass pass) {
  part p = part_of(s, 0, 0);  // the largest
  return inputs(&p.dense) + outputs(&p.dense) + weights(&p.dense) +
         dense_workspace(v, &p.dense, pass);
}

// The part's input, from image to part or, with back, the other way, where what lies outside of the
// image is left out.
static void copy_inputs(const part *p, ptrdiff_t group, float *x, float *to, int back) {
  const ck_conv_shape *s = p->s, *d = &p->dense;
  for (ptrdiff_t n = 0; n < s->n; n++)
    for (ptrdiff_t i = 0; i < d->h; i++) {
      ptrdiff_t row = p->rows.base + i * p->rows.step;
      for (ptrdiff_t j = 0; j < d->w; j++, to += d->c) {
        ptrdiff_t column = p->columns.base + j * p->columns.step;
        int inside = row >= 0 && row < s->h && column >= 0 && column < s->w;
        float *pixel = inside ? x + ((n * s->h + row) * s->w + column) * s->c + group * d->c : NULL;
        if (back && inside)
          memcpy(pixel, to, sizeof(float) * d->c);
        else if (inside)
          memcpy(to, pixel, sizeof(float) * d->c);
        else if (!back)
          memset(to, 0, sizeof(float) * d->c);
      }
    }
}

// The part's outputs, from the whole's or, with back, to them.
static void copy_outputs(const part *p, ptrdiff_t group, float *y, float *to, int back) {
  const ck_conv_shape *s = p->s, *d = &p->dense;
  for (ptrdiff_t n = 0; n < s->n; n++)
    for (ptrdiff_t i = 0; i < d->oh; i++)
      for (ptrdiff_t j = 0; j < d->ow; j++, to += d->f) {
        ptrdiff_t row = p->rows.first + i * p->rows.apart;
        ptrdiff_t column = p->columns.first + j * p->columns.apart;
        float *from = y + ((n * s->oh + row) * s->ow + column) * s->f + group * d->f;
        memcpy(back ? from : to, back ? to : from, sizeof(float) * d->f);
      }
}

// A group's weights: the columns of its filters.
static void copy_weights(const part *p, ptrdiff_t group, const float *w, float *to) {
  ptrdiff_t f = p->dense.f;
  for (size_t k = 0; k < weights(&p->dense) / f; k++)
    memcpy(to + k * f, w + k * p->s->f + group * f, sizeof(float) * f);
}

// Phases that have outputs.
static ptrdiff_t filled(ptrdiff_t dilation, ptrdiff_t stride, ptrdiff_t outputs) {
  ptrdiff_t count = phases(dilation, stride);
  return count < outputs ? count : outputs;
}

// For each group and each pair of phases.
#define FOR_PARTS(s, group, p)                                          \
  for (ptrdiff_t group = 0; group < (s)->groups; group++)               \
    for (ptrdiff_t u = 0; u < filled((s)->dh, (s)->sh, (s)->oh); u++)   \
      for (ptrdiff_t t = 0; t < filled((s)->dw, (s)->sw, (s)->ow); t++) \
        for (part p = part_of(s, u, t), *once = &p; once; once = NULL)

static void split_forward(const ck_conv_variant *v, const ck_conv_shape *s, const float *x,
                          const float *w, const float *bias, int relu, float *y, float *workspace) {
  FOR_PARTS(s, group, p) {
    float *part_x = workspace, *part_y = part_x + inputs(&p.dense);
    float *part_w = part_y + outputs(&p.dense), *rest = part_w + weights(&p.dense);
    copy_inputs(&p, group, (float *)x, part_x, 0);
    copy_weights(&p, group, w, part_w);
    dense_forward(v, &p.dense, part_x, part_w, bias ? bias + group * p.dense.f : NULL, relu, part_y,
                  rest);
    copy_outputs(&p, group, y, part_y, 1);
  }
}

static void split_input_gradient(const ck_conv_variant *v, const ck_conv_shape *s, const float *dy,
                                 const float *w, float *dx, float *workspace) {
  memset(dx, 0, sizeof(float) * inputs(s));
  FOR_PARTS(s, group, p) {
    float *part_dx = workspace, *part_dy = part_dx + inputs(&p.dense);
    float *part_w = part_dy + outputs(&p.dense), *rest = part_w + weights(&p.dense);
    copy_outputs(&p, group, (float *)dy, part_dy, 0);
    copy_weights(&p, group, w, part_w);
    dense_input_gradient(v, &p.dense, part_dy, part_w, part_dx, rest);
    copy_inputs(&p, group, dx, part_dx, 1);
  }
}

static void split_weight_gradient(const ck_conv_variant *v, const ck_conv_shape *s, const float *x,
                                  const float *dy, float *dw, float *workspace) {
  memset(dw, 0, sizeof(float) * weights(s) / s->groups);
  FOR_PARTS(s, group, p) {
    float *part_x = workspace, *part_dy = part_x + inputs(&p.dense);
    float *part_dw = part_dy + outputs(&p.dense), *rest = part_dw + weights(&p.dense);
    copy_inputs(&p, group, (float *)x, part_x, 0);
    copy_outputs(&p, group, (float *)dy, part_dy, 0);
    v->weight_gradient(&p.dense, part_x, part_dy, part_dw, rest);
    ptrdiff_t f = p.dense.f;
    for (size_t k = 0; k < weights(&p.dense); k++)
      dw[k / f * s->f + group * f + k % f] += part_dw[k];
  }
}

// ---- Any convolution ----------------------------------------------------------------------------

// Whether a window on an axis holds padding alone: the first or the last.
static int holds_nothing(ptrdiff_t size, ptrdiff_t filter, ptrdiff_t stride, ptrdiff_t padding,
                         ptrdiff_t outputs) {
  return padding >= filter || (outputs - 1) * stride - padding >= size;
}

ck_conv_way ck_conv_way_of(const ck_conv_variant *v, const ck_conv_shape *s) {
  int dense = s->dh == 1 && s->dw == 1 && s->groups == 1 &&
              !holds_nothing(s->h, s->fh, s->sh, s->ph, s->oh) &&
              !holds_nothing(s->w, s->fw, s->sw, s->pw, s->ow);
  if (dense || v->takes_any) return CK_ITSELF;
  return v->depthwise && s->groups == s->c && s->f == s->c ? CK_DEPTHWISE : CK_SPLIT;
}

// Whether the weight gradient's sums are so long that they are taken in parts.
static int is_long(const ck_conv_shape *s) { return (int64_t)s->n * s->oh * s->ow > CK_SUMMED; }

size_t ck_conv_workspace(const ck_conv_variant *v, const ck_conv_shape *s, ck_pass pass) {
  size_t part = pass == CK_WEIGHT_GRADIENT && is_long(s) ? weights(s) / s->groups : 0;
  switch (ck_conv_way_of(v, s)) {
    case CK_ITSELF:
      return part + dense_workspace(v, s, pass);
    case CK_DEPTHWISE:
      return part + dense_workspace(v->depthwise, s, pass);
    default:
      return part + split_workspace(v, s, pass);
  }
}

void ck_conv_forward(const ck_conv_variant *v, const ck_conv_shape *s, const float *x,
                     const float *w, const float *bias, int relu, float *y, float *workspace) {
  switch (ck_conv_way_of(v, s)) {
    case CK_ITSELF:
      return dense_forward(v, s, x, w, bias, relu, y, workspace);
    case CK_DEPTHWISE:
      return dense_forward(v->depthwise, s, x, w, bias, relu, y, workspace);
    case CK_SPLIT:
      return split_forward(v, s, x, w, bias, relu, y, workspace);
  }
}

void ck_conv_input_gradient(const ck_conv_variant *v, const ck_conv_shape *s, const float *dy,
                            const float *w, float *dx, float *workspace) {
  switch (ck_conv_way_of(v, s)) {
    case CK_ITSELF:
      return dense_input_gradient(v, s, dy, w, dx, workspace);
    case CK_DEPTHWISE:
      return dense_input_gradient(v->depthwise, s, dy, w, dx, workspace);
    case CK_SPLIT:
      return split_input_gradient(v, s, dy, w, dx, workspace);
  }
}

static void weight_gradient(const ck_conv_variant *v, ck_conv_way way, const ck_conv_shape *s,
                            const float *x, const float *dy, float *dw, float *workspace) {
  switch (way) {
    case CK_ITSELF:
      return v->weight_gradient(s, x, dy, dw, workspace);
    case CK_DEPTHWISE:
      return v->depthwise->weight_gradient(s, x, dy, dw, workspace);
    case CK_SPLIT:
      return split_weight_gradient(v, s, x, dy, dw, workspace);
  }
}

void ck_conv_weight_gradient(const ck_conv_variant *v, const ck_conv_shape *s, const float *x,
                             const float *dy, float *dw, float *workspace) {
  ck_conv_way way = ck_conv_way_of(v, s);
  if (!is_long(s)) return weight_gradient(v, way, s, x, dy, dw, workspace);
  // Some images, or some rows of one, at a time: each is a convolution of its own.
  ptrdiff_t pixels = (ptrdiff_t)s->oh * s->ow, count = weights(s) / s->groups;
  ptrdiff_t images = pixels < CK_SUMMED ? CK_SUMMED / pixels : 1;
  ptrdiff_t rows = pixels < CK_SUMMED ? s->oh : s->ow < CK_SUMMED ? CK_SUMMED / s->ow : 1;
  float *part = workspace, *rest = workspace + count;
  memset(dw, 0, sizeof(float) * count);
  for (ptrdiff_t n = 0; n < s->n; n += images)
    for (ptrdiff_t p = 0; p < s->oh; p += rows) {
      ptrdiff_t top = p * s->sh - s->ph, start = top > 0 ? top : 0;
      if (start >= s->h) continue;  // windows of zeros alone
      ck_conv_shape some = *s;
      some.n = (int32_t)(s->n - n < images ? s->n - n : images);
      some.oh = (int32_t)(s->oh - p < rows ? s->oh - p : rows);
      some.ph = (int32_t)(start - top);
      some.h = (int32_t)(s->h - start);
      weight_gradient(v, way, &some, x + (n * s->h + start) * s->w * s->c,
                      dy + (n * s->oh + p) * s->ow * s->f, part, rest);
      ck_kernels()->add(count, part, dw);
    }
}
