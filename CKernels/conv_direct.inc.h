// SPDX-License-Identifier: MIT
// Convolution, rung 4: direct. Nothing is gathered. In NHWC a filter's row, FW·C numbers, meets
// FW·C numbers of the input that lie side by side already, and the windows of neighbouring outputs
// start a fixed step further on. So the matrix product's tile can read its operand from the image
// itself: CK_MR output pixels by two vectors of filters stay in registers while the sum runs over
// the window, each weight loaded serves all the pixels, each input pixel both vectors.
//
// The input gradient is a convolution too: of the output gradient, with zeros around it, by the
// weights turned round with channels and filters swapped. With a stride of s, the inputs at
// distance s from each other meet the same weights: each of the s·s phases is a convolution of
// stride 1 by every s-th weight. The weight gradient is the other product: a tile of weights by
// filters stays in registers while the sum runs over the pixels of some rows of an image, few
// enough that both operands stay in the first-level cache.
//
// Only what has to be is copied: an image that needs zeros around it, and the weights, packed so
// that a tile walks straight through them. The order of each sum is fixed by the shape alone.
#include <string.h>
#pragma clang fp contract(fast)

// One convolution over one image: sums over windows of `lines` lines of `run`
// numbers each, written to outputs y_line and y_step apart.
typedef struct walk {
  ptrdiff_t oh, ow;          // outputs
  ptrdiff_t lines, run;      // the window: FH lines of FW·C numbers
  ptrdiff_t x_row;           // from a line of the input to the next
  ptrdiff_t below;           // lines from an output's window to that of the output below
  ptrdiff_t x_step;          // from an output's window to that of the output to the right
  ptrdiff_t y_line, y_step;  // from an output to the one below, to the right
  int relu;
  ptrdiff_t first, last;  // rows of the input that aren't all zeros: first..<last
} walk;

// y (rows pixels, columns filters) = bias + sum over the window; packed w (lines·run, CK_NR).
INLINE void direct_tile(const int rows, const int vectors, const walk *g, ptrdiff_t lines,
                        const float *x, const float *w, const float *bias, float *y,
                        ptrdiff_t columns) {
  vec sum[CK_MR][2];
#pragma clang loop unroll(full)
  for (int r = 0; r < rows; r++)
#pragma clang loop unroll(full)
    for (int v = 0; v < vectors; v++) sum[r][v] = *(const vec *)(bias + v * CK_LANES);
  ptrdiff_t step = g->x_step;
  for (ptrdiff_t i = 0; i < lines; i++, x += g->x_row)
    for (ptrdiff_t k = 0; k < g->run; k++, w += CK_NR) {
      vec right[2];
      for (int v = 0; v < vectors; v++) right[v] = *(const vec *)(w + v * CK_LANES);
#pragma clang loop unroll(full)
      for (int r = 0; r < rows; r++)
#pragma clang loop unroll(full)
        for (int v = 0; v < vectors; v++) sum[r][v] += x[r * step + k] * right[v];
    }
  if (g->relu)
#pragma clang loop unroll(full)
    for (int r = 0; r < rows; r++)
#pragma clang loop unroll(full)
      for (int v = 0; v < vectors; v++) sum[r][v] = above_zero(sum[r][v]);
#pragma clang loop unroll(full)
  for (int r = 0; r < rows; r++) {
    float *out = y + r * g->y_step;
    if (columns == vectors * CK_LANES) {
#pragma clang loop unroll(full)
      for (int v = 0; v < vectors; v++) *(vec *)(out + v * CK_LANES) = sum[r][v];
    } else {
      float buffer[CK_NR];
#pragma clang loop unroll(full)
      for (int v = 0; v < vectors; v++) *(vec *)(buffer + v * CK_LANES) = sum[r][v];
      for (ptrdiff_t f = 0; f < columns; f++) out[f] = buffer[f];
    }
  }
}

static void CK_NAME(direct_any_tile)(ptrdiff_t rows, const walk *g, ptrdiff_t lines, const float *x,
                                     const float *w, const float *bias, float *y,
                                     ptrdiff_t columns) {
#define CK_ROWS(n)                                         \
  case n:                                                  \
    if (columns <= CK_LANES)                               \
      direct_tile(n, 1, g, lines, x, w, bias, y, columns); \
    else                                                   \
      direct_tile(n, 2, g, lines, x, w, bias, y, columns); \
    return;
  switch (rows) {
#include "rows.def"
  }
#undef CK_ROWS
}

// One image; w and bias packed in panels of CK_NR filters.
static void CK_NAME(direct_image)(const walk *g, ptrdiff_t f, const float *x, const float *w,
                                  const float *bias, float *y) {
  ptrdiff_t tiles = (g->ow + CK_MR - 1) / CK_MR, width = (g->ow + tiles - 1) / tiles;
  for (ptrdiff_t j = 0; j < f; j += CK_NR) {
    const float *panel = w + j * g->lines * g->run;
    for (ptrdiff_t p = 0; p < g->oh; p++) {
      // Lines of the window that meet nothing but zeros are left out.
      ptrdiff_t top = p * g->below;
      ptrdiff_t from = g->first > top ? g->first - top : 0;
      ptrdiff_t to = g->last - top < g->lines ? g->last - top : g->lines;
      for (ptrdiff_t q = 0; q < g->ow; q += width) CK_NAME(direct_any_tile)
      (g->ow - q < width ? g->ow - q : width, g, to > from ? to - from : 0,
       x + (top + from) * g->x_row + q * g->x_step, panel + from * g->run * CK_NR, bias + j,
       y + p * g->y_line + q * g->y_step + j, f - j < CK_NR ? f - j : CK_NR);
    }
  }
}

INLINE ptrdiff_t padded(ptrdiff_t f) { return (f + CK_NR - 1) / CK_NR * CK_NR; }

// w (k, f) in panels of CK_NR columns, missing ones 0.
static void CK_NAME(pack_panels)(ptrdiff_t k, ptrdiff_t f, const float *w, float *out) {
  for (ptrdiff_t j = 0; j < f; j += CK_NR, out += k * CK_NR)
    pack(CK_NR, f - j < CK_NR ? f - j : CK_NR, k, w + j, 1, f, out);
}

// rows × columns pixels of an image, x_row floats from line to line, in the middle of zeros
// (height, width, c), the first at (top, left). What doesn't fit is left out.
static void CK_NAME(surround)(ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t c, const float *x,
                              ptrdiff_t x_row, ptrdiff_t top, ptrdiff_t left, ptrdiff_t height,
                              ptrdiff_t width, float *out) {
  if (rows > height - top) rows = height - top;
  if (columns > width - left) columns = width - left;
  if (rows <= 0 || columns <= 0) rows = columns = 0;
  memset(out, 0, sizeof(float) * top * width * c);
  for (ptrdiff_t i = 0; i < rows; i++) {
    float *row = out + (top + i) * width * c;
    memset(row, 0, sizeof(float) * left * c);
    memcpy(row + left * c, x + i * x_row, sizeof(float) * columns * c);
    memset(row + (left + columns) * c, 0, sizeof(float) * (width - left - columns) * c);
  }
  memset(out + (top + rows) * width * c, 0, sizeof(float) * (height - top - rows) * width * c);
}

// What the windows of a layer reach on an axis, padding included.
INLINE ptrdiff_t reach(ptrdiff_t outputs, ptrdiff_t stride, ptrdiff_t filter) {
  return (outputs - 1) * stride + filter;
}

// The image as the windows walk over it: as it is, or with the zeros that they reach.
typedef struct image_frame {
  int zeros;
  ptrdiff_t height, width;
} image_frame;

INLINE image_frame frame_of(const ck_conv_shape *s) {
  ptrdiff_t height = reach(s->oh, s->sh, s->fh);
  ptrdiff_t width = reach(s->ow, s->sw, s->fw);
  if (s->ph || s->pw || height > s->h || width > s->w) return (image_frame){1, height, width};
  return (image_frame){0, s->h, s->w};
}

// Image x itself, or its copy in `zeros`.
INLINE const float *framed(const ck_conv_shape *s, image_frame f, const float *x, float *zeros) {
  if (!f.zeros) return x;
  CK_NAME(surround)
  (s->h, s->w, s->c, x, (ptrdiff_t)s->w * s->c, s->ph, s->pw, f.height, f.width, zeros);
  return zeros;
}

// Weights of the largest phase of the input gradient along an axis, and the zeros before dy.
INLINE ptrdiff_t phase_size(ptrdiff_t filter, ptrdiff_t stride) {
  return (filter + stride - 1) / stride;
}

// One axis of the input gradient, for inputs a = phase + stride·t: which weights they meet, and
// where in dy. Input a meets weight i where a + padding - i = stride·p, so i = first + stride·u for
// u in 0..<count, and p = t + offset - u.
typedef struct phase_range {
  ptrdiff_t inputs;  // how many
  ptrdiff_t first, count, offset;
} phase_range;

INLINE phase_range phase_of(ptrdiff_t phase, ptrdiff_t size, ptrdiff_t filter, ptrdiff_t stride,
                            ptrdiff_t padding) {
  ptrdiff_t first = (phase + padding) % stride;
  return (phase_range){(size - phase + stride - 1) / stride, first,
                       first < filter ? (filter - first + stride - 1) / stride : 0,
                       (phase + padding) / stride};
}

// Weights packed for the input gradient, phase after phase: of each every panel of channels.
static void CK_NAME(pack_phases)(const ck_conv_shape *s, const float *w, float *out) {
  for (ptrdiff_t row = 0; row < s->sh && row < s->h; row++)
    for (ptrdiff_t column = 0; column < s->sw && column < s->w; column++) {
      phase_range v = phase_of(row, s->h, s->fh, s->sh, s->ph);
      phase_range u = phase_of(column, s->w, s->fw, s->sw, s->pw);
      // Last tap first, filters before channels.
      for (ptrdiff_t c = 0; c < s->c; c += CK_NR)
        for (ptrdiff_t i = v.count - 1; i >= 0; i--)
          for (ptrdiff_t j = u.count - 1; j >= 0; j--, out += CK_NR * s->f)
            pack(CK_NR, s->c - c < CK_NR ? s->c - c : CK_NR, s->f,
                 w + (((v.first + i * s->sh) * s->fw + u.first + j * s->sw) * s->c + c) * s->f,
                 s->f, 1, out);
    }
}

static size_t CK_NAME(ck_conv_ready_count_direct)(const ck_conv_shape *s, ck_pass pass) {
  ptrdiff_t taps = (ptrdiff_t)s->fh * s->fw;
  if (pass == CK_WEIGHT_GRADIENT) return 0;
  if (pass == CK_FORWARD) return padded(s->f) * taps * s->c;
  return padded(s->c) * taps * s->f;
}

static void CK_NAME(ck_conv_ready_direct)(const ck_conv_shape *s, ck_pass pass, const float *w,
                                          float *out) {
  if (pass == CK_FORWARD)
    CK_NAME(pack_panels)((ptrdiff_t)s->fh * s->fw * s->c, s->f, w, out);
  else
    CK_NAME(pack_phases)(s, w, out);
}

static size_t CK_NAME(ck_conv_workspace_direct)(const ck_conv_shape *s, ck_pass pass) {
  image_frame frame = frame_of(s);
  ptrdiff_t window = (ptrdiff_t)s->fh * s->fw * s->c;
  ptrdiff_t zeros = frame.zeros ? frame.height * frame.width * s->c : 0;
  if (pass == CK_FORWARD) return padded(s->f) + zeros;
  if (pass == CK_WEIGHT_GRADIENT) return padded(s->f) * (window + (ptrdiff_t)s->oh * s->ow) + zeros;
  ptrdiff_t fh = phase_size(s->fh, s->sh), fw = phase_size(s->fw, s->sw);
  ptrdiff_t height = s->h / s->sh + 1 + s->oh + 2 * fh, width = s->w / s->sw + 1 + s->ow + 2 * fw;
  return padded(s->c) + height * width * s->f;
}

// How the forward pass walks; the bias goes to the workspace, which has room for zeros behind it.
INLINE walk forward_walk(const ck_conv_shape *s, image_frame frame, const float *bias, int relu,
                         float *workspace, float **start, float **zeros) {
  ptrdiff_t filters = padded(s->f);
  *start = workspace, *zeros = *start + filters;
  memset(*start, 0, sizeof(float) * filters);
  if (bias) memcpy(*start, bias, sizeof(float) * s->f);
  return (walk){.oh = s->oh,
                .ow = s->ow,
                .lines = s->fh,
                .run = (ptrdiff_t)s->fw * s->c,
                .x_row = frame.width * s->c,
                .below = s->sh,
                .x_step = (ptrdiff_t)s->sw * s->c,
                .y_line = (ptrdiff_t)s->ow * s->f,
                .y_step = s->f,
                .relu = relu,
                .first = frame.zeros ? s->ph : 0,
                .last = frame.zeros ? s->ph + s->h : s->h};
}

static void CK_NAME(ck_conv_forward_direct)(const ck_conv_shape *s, const float *x,
                                            const float *packed, const float *bias, int relu,
                                            float *y, float *workspace) {
  image_frame frame = frame_of(s);
  float *start, *zeros;
  walk g = forward_walk(s, frame, bias, relu, workspace, &start, &zeros);
  for (ptrdiff_t n = 0; n < s->n; n++, x += (ptrdiff_t)s->h * s->w * s->c) {
    const float *image = framed(s, frame, x, zeros);
    CK_NAME(direct_image)(&g, s->f, image, packed, start, y + n * s->oh * s->ow * s->f);
  }
}

static void CK_NAME(ck_conv_input_gradient_direct)(const ck_conv_shape *s, const float *dy,
                                                   const float *packed, float *dx,
                                                   float *workspace) {
  ptrdiff_t channels = padded(s->c), size = (ptrdiff_t)s->h * s->w * s->c;
  for (ptrdiff_t row = 0; row < s->sh; row++)
    for (ptrdiff_t column = 0; column < s->sw; column++) {
      if (row >= s->h || column >= s->w) continue;
      phase_range v = phase_of(row, s->h, s->fh, s->sh, s->ph);
      phase_range u = phase_of(column, s->w, s->fw, s->sw, s->pw);
      ptrdiff_t window = v.count * u.count * s->f;
      float *start = workspace, *zeros = start + channels;
      memset(start, 0, sizeof(float) * channels);
      // Output t reads dy from t + offset - (count - 1) on: zeros before and behind.
      ptrdiff_t top = v.count - 1 - v.offset, left = u.count - 1 - u.offset;
      ptrdiff_t skip_rows = top < 0 ? -top : 0, skip_columns = left < 0 ? -left : 0;
      if (top < 0) top = 0;
      if (left < 0) left = 0;
      ptrdiff_t height = v.inputs + v.count - 1, width = u.inputs + u.count - 1;
      int exact = !top && !left && !skip_rows && !skip_columns && height <= s->oh &&
                  width <= s->ow && v.count && u.count;
      if (exact) height = s->oh, width = s->ow;
      walk g = {.oh = v.inputs,
                .ow = u.inputs,
                .lines = v.count,
                .run = u.count * s->f,
                .x_row = width * s->f,
                .below = 1,
                .x_step = s->f,
                .y_line = (ptrdiff_t)s->sh * s->w * s->c,
                .y_step = (ptrdiff_t)s->sw * s->c,
                .first = top,
                .last = top + s->oh - skip_rows};
      for (ptrdiff_t n = 0; n < s->n; n++) {
        const float *image = dy + n * s->oh * s->ow * s->f;
        if (!exact && window) {
          // Rows of dy that are left over are those that no input of this phase meets.
          CK_NAME(surround)
          (s->oh - skip_rows, s->ow - skip_columns, s->f,
           image + (skip_rows * s->ow + skip_columns) * s->f, (ptrdiff_t)s->ow * s->f, top, left,
           height, width, zeros);
          image = zeros;
        }
        CK_NAME(direct_image)
        (&g, s->c, image, packed, start, dx + n * size + (row * s->w + column) * s->c);
      }
      packed += window * channels;
    }
}

// A tile of the weight gradient: `lines` lines of `run` weights that lie side by side, by the
// filters of a panel (dw, CK_NR apart), summed over `rows` rows of `pixels` outputs each.
INLINE void gradient_tile(const int lines, const int run, const int vectors, const walk *g,
                          ptrdiff_t rows, const float *x, const float *dy, float *dw) {
  vec sum[CK_MR][2];
  float *target[CK_MR];
#pragma clang loop unroll(full)
  for (int i = 0; i < lines; i++)
#pragma clang loop unroll(full)
    for (int k = 0; k < run; k++) {
      target[i * run + k] = dw + (i * g->run + k) * CK_NR;
#pragma clang loop unroll(full)
      for (int v = 0; v < vectors; v++)
        sum[i * run + k][v] = *(const vec *)(target[i * run + k] + v * CK_LANES);
    }
  for (ptrdiff_t p = 0; p < rows; p++, x += g->below * g->x_row, dy += g->y_line) {
    const float *pixel = x, *upstream = dy;
    for (ptrdiff_t q = 0; q < g->ow; q++, pixel += g->x_step, upstream += g->y_step) {
      vec right[2];
      for (int v = 0; v < vectors; v++) right[v] = *(const vec *)(upstream + v * CK_LANES);
#pragma clang loop unroll(full)
      for (int i = 0; i < lines; i++)
#pragma clang loop unroll(full)
        for (int k = 0; k < run; k++)
#pragma clang loop unroll(full)
          for (int v = 0; v < vectors; v++)
            sum[i * run + k][v] += pixel[i * g->x_row + k] * right[v];
    }
  }
#pragma clang loop unroll(full)
  for (int i = 0; i < lines * run; i++)
#pragma clang loop unroll(full)
    for (int v = 0; v < vectors; v++) *(vec *)(target[i] + v * CK_LANES) = sum[i][v];
}

static void CK_NAME(gradient_any_tile)(ptrdiff_t lines, ptrdiff_t run, int vectors, const walk *g,
                                       ptrdiff_t rows, const float *x, const float *dy, float *dw) {
#define CK_TILE(lines, run)                             \
  {                                                     \
    if (vectors == 1)                                   \
      gradient_tile(lines, run, 1, g, rows, x, dy, dw); \
    else                                                \
      gradient_tile(lines, run, 2, g, rows, x, dy, dw); \
    return;                                             \
  }
  (void)lines;  // where there are no such tiles
  // Small filters over one channel: several lines at once, so that the tile isn't too small.
#if CK_MR >= 6
  if (lines == 2 && run == 3) CK_TILE(2, 3)
#endif
#if CK_MR >= 10
  if (lines == 3 && run == 3) CK_TILE(3, 3)
  if (lines == 2 && run == 5) CK_TILE(2, 5)
#endif
#define CK_ROWS(n) \
  case n:          \
    CK_TILE(1, n)
  switch (run) {
#include "rows.def"
  }
#undef CK_ROWS
#undef CK_TILE
}

// How many lines of the window a tile takes together.
INLINE ptrdiff_t lines_together(ptrdiff_t lines, ptrdiff_t run) {
  if (run == 3 && CK_MR >= 10 && lines >= 3) return 3;
  if (((run == 3 && CK_MR >= 6) || (run == 5 && CK_MR >= 10)) && lines >= 2) return 2;
  return 1;
}

static void CK_NAME(ck_conv_weight_gradient_direct)(const ck_conv_shape *s, const float *x,
                                                    const float *dy, float *dw, float *workspace) {
  ptrdiff_t run = (ptrdiff_t)s->fw * s->c, window = s->fh * run, filters = padded(s->f);
  ptrdiff_t outputs = (ptrdiff_t)s->oh * s->ow;
  // dw in panels of CK_NR filters; dy likewise where its rows aren't whole vectors.
  float *panels = workspace, *packed = panels + window * filters;
  int whole = s->f % CK_LANES == 0;
  float *zeros = packed + (whole ? 0 : outputs * filters);
  memset(panels, 0, sizeof(float) * window * filters);
  image_frame frame = frame_of(s);
  walk g = {.oh = s->oh,
            .ow = s->ow,
            .lines = s->fh,
            .run = run,
            .x_row = frame.width * s->c,
            .below = s->sh,
            .x_step = (ptrdiff_t)s->sw * s->c,
            .y_line = s->ow * (whole ? s->f : CK_NR),
            .y_step = whole ? s->f : CK_NR};
  // Rows of outputs whose operands fit the first-level cache together.
  ptrdiff_t floats_a_row = g.below * g.x_row + g.y_line,
            block = 6144 / (floats_a_row ? floats_a_row : 1);
  if (block < 1) block = 1;
  ptrdiff_t tiles = (run + CK_MR - 1) / CK_MR, most = (run + tiles - 1) / tiles;
  ptrdiff_t together = lines_together(s->fh, run);
  for (ptrdiff_t n = 0; n < s->n; n++) {
    const float *image = x + n * s->h * s->w * s->c, *upstream = dy + n * outputs * s->f;
    image = framed(s, frame, image, zeros);
    if (!whole) CK_NAME(pack_panels)(outputs, s->f, upstream, packed);
    for (ptrdiff_t p = 0; p < s->oh; p += block)
      for (ptrdiff_t j = 0; j < s->f; j += CK_NR) {
        int vectors = s->f - j <= CK_LANES ? 1 : 2;
        const float *rows =
            whole ? upstream + j + p * g.y_line : packed + j * outputs + p * g.y_line;
        for (ptrdiff_t i = 0; i < s->fh; i += together)
          for (ptrdiff_t k = 0; k < run; k += most) {
            ptrdiff_t lines = s->fh - i < together ? s->fh - i : together;
            CK_NAME(gradient_any_tile)
            (lines, run - k < most ? run - k : most, vectors, &g,
             s->oh - p < block ? s->oh - p : block, image + (p * g.below + i) * g.x_row + k, rows,
             panels + j * window + (i * run + k) * CK_NR);
          }
      }
  }
  for (ptrdiff_t k = 0; k < window; k++)
    for (ptrdiff_t j = 0; j < s->f; j += CK_NR)
      for (ptrdiff_t f = 0; f < CK_NR && j + f < s->f; f++)
        dw[k * s->f + j + f] = panels[j * window + k * CK_NR + f];
}
