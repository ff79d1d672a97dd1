// SPDX-License-Identifier: MIT
// Convolution, rung 5: Winograd's minimal filtering, F(4×4, 3×3). Four outputs of a filter of three
// are the coefficients of a product of polynomials, and a product of degree five is given by its
// values at six points: six multiplications instead of twelve, on both axes 36 instead of 144.
// For tiles d of 6×6 inputs and g of 3×3 weights, outputs of 4×4 are
//
//   y = Aᵀ [ (G g Gᵀ) ⊙ (Bᵀ d B) ] A
//
// and, as sums over channels go through ⊙, what is left is 36 matrix products: tiles × channels by
// channels × filters. The points are p = 0, a, -a, b, -b with a = 3/4 and b = 3/2, and ∞. With
// M(x) = x·(x² - a²)·(x² - b²) and N(p) the product of p - q over the other points q,
//
//   Bᵀ, row p: the coefficients of M(x) / (x - p);  G: (1, p, p²) / N(p);  A: (1, p, p², p³)
//   Bᵀ, row ∞: those of M(x);                       G: (0, 0, 1);          A: (0, 0, 0, 1)
//
// The matrices are in winograd_tiles.inc.h. What rounding grows to is a matter of the points
// (CKernels.h): with Lavin's ±1 and ±2 it is twice as much.
//
// With few channels or filters the transforms are most of the work. Then it is F(2×2, 3×3): tiles
// of 4×4 inputs, 16 products instead of 36, with the points 0, 1, -1 and ∞. It is as exact as
// direct, and where all inputs of a window are 0 its output is, too.
//
// The input gradient is the same, over dy, with the weights turned round and channels and filters
// swapped. The weight gradient is a filter as large as a tile's outputs over its inputs,
// Gᵀ [ (A dy Aᵀ) ⊙ (Bᵀ d B) ] G: the sum over tiles and images goes through ⊙, so there are as many
// products channels × tiles by tiles × filters, and one way back.
//
// Max-pooling in windows of 2×2 is done as a tile's outputs leave, which hold whole windows.
//
// Some tiles at a time, so that what is in between stays in the second-level cache. Any tiles may
// share a block, also of different images: each sum is one over channels, in their order.
// Other shapes than 3×3 with a stride of 1 are direct's.
#pragma clang fp contract(fast)

// How an image is cut: tiles m apart of size × size pixels, the first at (-top, -left).
typedef struct tiling {
  ptrdiff_t size, top, left;
  void (*transform)(const tile_rows *, ptrdiff_t c, float *v, ptrdiff_t plane);
  ptrdiff_t rows, columns;  // those that count: what lies beyond is zero
  ptrdiff_t width, c;       // of a row in memory, in pixels; channels
  ptrdiff_t image;          // floats from image to image
} tiling;

// What the three passes share: a convolution of x (h, w, c) to y (oh, ow, f).
typedef struct winograd {
  const filtering *by;
  ptrdiff_t m, planes;
  ptrdiff_t down, across, tiles;  // of an image; of all
  ptrdiff_t block;                // tiles at a time
  ptrdiff_t c, f;                 // numbers of a tile in a plane: whole vectors
  ptrdiff_t c_plane, f_plane;     // floats from plane to plane
  ptrdiff_t weights;              // from plane to plane of the weights
  ptrdiff_t zeros;                // a row of a tile, and what products begin with
} winograd;

INLINE ptrdiff_t whole_vectors(ptrdiff_t c) { return (c + CK_LANES - 1) / CK_LANES * CK_LANES; }

// An odd number of cache lines: else the 36 numbers of a tile share a few sets of the cache.
INLINE ptrdiff_t odd_lines(ptrdiff_t count) { return (((count + 15) / 16) | 1) * 16; }

INLINE winograd winograd_of(ptrdiff_t n, ptrdiff_t oh, ptrdiff_t ow, ptrdiff_t c, ptrdiff_t f) {
  const filtering *by =
      c < CK_WINOGRAD_MANY || f < CK_WINOGRAD_MANY ? &CK_NAME(filtering_2) : &CK_NAME(filtering_4);
  ptrdiff_t m = by->m;
  winograd g = {.by = by,
                .m = m,
                .planes = (m + 2) * (m + 2),
                .down = (oh + m - 1) / m,
                .across = (ow + m - 1) / m};
  g.tiles = n * g.down * g.across;
  g.c = whole_vectors(c), g.f = whole_vectors(f);
  // Half a megabyte of planes, but whole tiles of the product, and no more than 28. Where the
  // weights are too many for the second-level cache, what is read of them is to serve more tiles.
  ptrdiff_t fit = ((1 << 17) / g.planes) / (g.c + g.f), most = smaller(fit, 28);
  if (g.planes * g.c * g.f > 1 << 19) most = 84;
  g.block = most < CK_MR ? CK_MR : most / CK_MR * CK_MR;
  if (g.block > g.tiles) g.block = g.tiles;
  g.c_plane = odd_lines(g.block * g.c), g.f_plane = odd_lines(g.block * g.f);
  g.weights = odd_lines(c * padded(f));
  g.zeros = 6 * (c > f ? c : f) + CK_NR;
  return g;
}

// Of the input gradient the inputs are the outputs, and filters the channels.
INLINE winograd winograd_for(const ck_conv_shape *s, ck_pass pass) {
  return pass == CK_INPUT_GRADIENT ? winograd_of(s->n, s->h, s->w, s->f, s->c)
                                   : winograd_of(s->n, s->oh, s->ow, s->c, s->f);
}

INLINE int is_winograd(const ck_conv_shape *s) {
  return s->fh == 3 && s->fw == 3 && s->sh == 1 && s->sw == 1;
}

static size_t CK_NAME(ck_conv_workspace_winograd)(const ck_conv_shape *s, ck_pass pass) {
  if (!is_winograd(s)) return CK_NAME(ck_conv_workspace_direct)(s, pass);
  int back = pass == CK_INPUT_GRADIENT;
  winograd g = winograd_for(s, pass);
  ptrdiff_t weights = pass == CK_WEIGHT_GRADIENT ? g.weights : 0;
  return g.planes * (weights + g.c_plane + g.f_plane) + padded(back ? s->c : s->f) + g.zeros;
}

// Tiles first..<first + count of all images x, transformed, in planes: `step` floats a tile. Rows
// of zeros are read from `zeros`.
static void CK_NAME(winograd_spread)(const winograd *g, const tiling *t, const float *x,
                                     const float *end, const float *zeros, ptrdiff_t first,
                                     ptrdiff_t count, float *v, ptrdiff_t plane, ptrdiff_t step) {
  ptrdiff_t an_image = g->down * g->across, size = t->size;
  for (ptrdiff_t k = 0; k < count; k++) {
    ptrdiff_t place = (first + k) % an_image;
    const float *image = x + (first + k) / an_image * t->image;
    ptrdiff_t row = place / g->across * g->m - t->top, column = place % g->across * g->m - t->left;
    tile_rows rows = {.pixel = t->c,
                      .first = column < 0 ? -column : 0,
                      .last = smaller(t->columns - column, size)};
    ptrdiff_t over = 0;  // behind the end of what is read
    for (ptrdiff_t i = 0; i < size; i++) {
      int inside = row + i >= 0 && row + i < t->rows;
      rows.row[i] = inside ? image + ((row + i) * t->width + column) * t->c : zeros;
      if (inside) over = rows.row[i] + rows.last * t->c - end;
    }
    for (ptrdiff_t c = 0; c < t->c; c += CK_LANES) {
      float patch[36 * CK_LANES], *to = v + k * step + c;
      tile_rows some = {.pixel = CK_LANES, .first = rows.first, .last = rows.last};
      const tile_rows *from = &rows;
      ptrdiff_t offset = c, lanes = t->c - c;
      // A vector may hold numbers of the next pixel, too, where there is one: nobody reads them.
      if (lanes < CK_LANES && over + CK_LANES > lanes) {
        memset(patch, 0, sizeof patch);
        for (ptrdiff_t i = 0; i < size; i++) {
          some.row[i] = patch + i * size * CK_LANES;
          for (ptrdiff_t j = rows.first; j < rows.last; j++)
            memcpy(patch + (i * size + j) * CK_LANES, rows.row[i] + j * t->c + c,
                   sizeof(float) * lanes);
        }
        from = &some, offset = 0;
      }
      t->transform(from, offset, to, plane);
    }
  }
}

// Where outputs go: y (n, oh, ow, f), or, where pooled, its windows of 2×2 (n, oh/2, ow/2, f).
typedef struct outlet {
  ptrdiff_t oh, ow, f;
  int relu, pooled;
  float *y;
  uint16_t *place;
} outlet;

// A tile of m×m outputs at (row, column) of an image, without ReLU in `patch`, for `lanes` filters.
INLINE void winograd_pool(ptrdiff_t m, const float *patch, const outlet *o, ptrdiff_t image,
                          ptrdiff_t row, ptrdiff_t column, ptrdiff_t j, ptrdiff_t lanes) {
  ptrdiff_t down = o->oh / 2, across = o->ow / 2;
  for (ptrdiff_t p = 0; p < m / 2 && row / 2 + p < down; p++)
    for (ptrdiff_t q = 0; q < m / 2 && column / 2 + q < across; q++) {
      const vec *from = (const vec *)patch + 2 * (p * m + q);
      ptrdiff_t at = ((image * down + row / 2 + p) * across + column / 2 + q) * o->f + j;
      const vec window[4] = {from[0], from[1], from[m], from[m + 1]};
      pool_window(window, 1, o->relu, lanes, o->y + at, o->place ? o->place + at : NULL);
    }
}

// Outputs of tiles first..<first + count, from planes.
static void CK_NAME(winograd_collect)(const winograd *g, const outlet *o, const float *planes,
                                      const float *bias, ptrdiff_t first, ptrdiff_t count) {
  ptrdiff_t an_image = g->down * g->across, m = g->m, oh = o->oh, ow = o->ow, f = o->f;
  for (ptrdiff_t k = 0; k < count; k++) {
    ptrdiff_t image = (first + k) / an_image, place = (first + k) % an_image;
    ptrdiff_t row = place / g->across * m, column = place % g->across * m;
    float *out = o->y + ((image * oh + row) * ow + column) * f;
    ptrdiff_t rows = smaller(oh - row, m), columns = smaller(ow - column, m);
    for (ptrdiff_t j = 0; j < f; j += CK_LANES) {
      const float *from = planes + k * g->f + j;
      ptrdiff_t lanes = smaller(f - j, CK_LANES);
      if (!o->pooled && rows == m && columns == m && lanes == CK_LANES) {
        g->by->output(from, g->f_plane, bias + j, o->relu, out + j, ow * f, f);
        continue;
      }
      float patch[16 * CK_LANES];
      g->by->output(from, g->f_plane, bias + j, o->relu && !o->pooled, patch, m * CK_LANES,
                    CK_LANES);
      if (o->pooled)
        winograd_pool(m, patch, o, image, row, column, j, lanes);
      else
        for (ptrdiff_t p = 0; p < rows; p++)
          for (ptrdiff_t q = 0; q < columns; q++)
            memcpy(out + (p * ow + q) * f + j, patch + (p * m + q) * CK_LANES,
                   sizeof(float) * lanes);
    }
  }
}

// w (3,3,c,f) transformed, each plane in panels of CK_NR filters, as direct packs them.
static void CK_NAME(winograd_pack)(const winograd *g, ptrdiff_t c, ptrdiff_t f, const float *w,
                                   float *u) {
  for (ptrdiff_t j = 0; j < padded(f); j += CK_LANES)
    for (ptrdiff_t k = 0; k < c; k++) {
      float *to = u + j / CK_NR * CK_NR * c + k * CK_NR + j % CK_NR;
      const float *from = w + k * f + j;
      if (j + CK_LANES <= f) {
        g->by->weights(from, c * f, to, g->weights);
        continue;
      }
      float patch[9 * CK_LANES] = {0};
      for (ptrdiff_t i = 0; i < 9 && j < f; i++)
        memcpy(patch + i * CK_LANES, from + i * c * f, sizeof(float) * (f - j));
      g->by->weights(patch, CK_LANES, to, g->weights);
    }
}

// out (taps,F,C) = w (taps,C,F), the last tap first.
static void CK_NAME(turn_weights)(ptrdiff_t taps, ptrdiff_t c, ptrdiff_t f, const float *w,
                                  float *out) {
  for (ptrdiff_t i = taps - 1; i >= 0; i--, out += c * f) CK_NAME(turn_words)
  (c, f, (const uint32_t *)(w + i * c * f), f, (uint32_t *)out, c);
}

static size_t CK_NAME(ck_conv_ready_count_winograd)(const ck_conv_shape *s, ck_pass pass) {
  if (!is_winograd(s)) return CK_NAME(ck_conv_ready_count_direct)(s, pass);
  if (pass == CK_WEIGHT_GRADIENT) return 0;
  int back = pass == CK_INPUT_GRADIENT;
  winograd g = winograd_for(s, pass);
  return g.planes * g.weights + (back ? 9 * (ptrdiff_t)s->c * s->f : 0);
}

static void CK_NAME(ck_conv_ready_winograd)(const ck_conv_shape *s, ck_pass pass, const float *w,
                                            float *u) {
  if (!is_winograd(s)) return CK_NAME(ck_conv_ready_direct)(s, pass, w, u);
  winograd g = winograd_for(s, pass);
  if (pass == CK_FORWARD) return CK_NAME(winograd_pack)(&g, s->c, s->f, w, u);
  float *turned = u + g.planes * g.weights;
  CK_NAME(turn_weights)(9, s->c, s->f, w, turned);
  CK_NAME(winograd_pack)(&g, s->f, s->c, turned, u);
}

// Outputs from n images that are cut as t says, by transformed weights u.
static void CK_NAME(winograd_convolve)(const winograd *g, const tiling *t, ptrdiff_t n,
                                       const float *x, const float *u, const float *bias,
                                       const outlet *o, float *workspace) {
  ptrdiff_t f = o->f;
  float *start = workspace, *zeros = start + padded(f);
  float *v = zeros + g->zeros, *m = v + g->planes * g->c_plane;
  memset(start, 0, sizeof(float) * (padded(f) + g->zeros));
  if (bias) memcpy(start, bias, sizeof(float) * f);
  walk product = {.lines = 1, .run = t->c, .x_step = g->c, .y_step = g->f};
  for (ptrdiff_t first = 0; first < g->tiles; first += g->block) {
    ptrdiff_t count = smaller(g->tiles - first, g->block);
    ptrdiff_t strips = (count + CK_MR - 1) / CK_MR, height = (count + strips - 1) / strips;
    CK_NAME(winograd_spread)(g, t, x, x + n * t->image, zeros, first, count, v, g->c_plane, g->c);
    for (ptrdiff_t plane = 0; plane < g->planes; plane++)
      for (ptrdiff_t j = 0; j < g->f; j += CK_NR)
        for (ptrdiff_t i = 0; i < count; i += height) CK_NAME(direct_any_tile)
    (smaller(count - i, height), &product, 1, v + plane * g->c_plane + i * g->c,
     u + plane * g->weights + j * t->c, zeros, m + plane * g->f_plane + i * g->f + j,
     smaller(g->f - j, CK_NR));
    CK_NAME(winograd_collect)(g, o, m, start, first, count);
  }
}

// The input as the windows reach it.
INLINE tiling input_tiling(const ck_conv_shape *s, const filtering *by) {
  return (tiling){.size = by->m + 2,
                  .transform = by->input,
                  .top = s->ph,
                  .left = s->pw,
                  .rows = smaller(s->h, (ptrdiff_t)s->oh + 2 - s->ph),
                  .columns = smaller(s->w, (ptrdiff_t)s->ow + 2 - s->pw),
                  .width = s->w,
                  .c = s->c,
                  .image = (ptrdiff_t)s->h * s->w * s->c};
}

static void CK_NAME(winograd_forward)(const ck_conv_shape *s, const float *x, const float *u,
                                      const float *bias, const outlet *o, float *workspace) {
  winograd g = winograd_for(s, CK_FORWARD);
  tiling t = input_tiling(s, g.by);
  CK_NAME(winograd_convolve)(&g, &t, s->n, x, u, bias, o, workspace);
}

static void CK_NAME(ck_conv_forward_winograd)(const ck_conv_shape *s, const float *x,
                                              const float *u, const float *bias, int relu, float *y,
                                              float *workspace) {
  if (!is_winograd(s)) return CK_NAME(ck_conv_forward_direct)(s, x, u, bias, relu, y, workspace);
  const outlet o = {.oh = s->oh, .ow = s->ow, .f = s->f, .relu = relu, .y = y};
  CK_NAME(winograd_forward)(s, x, u, bias, &o, workspace);
}

static void CK_NAME(ck_conv_pool_forward_winograd)(const ck_conv_shape *s, const float *x,
                                                   const float *u, const float *bias, int relu,
                                                   float *y, uint16_t *place, float *workspace) {
  if (!is_winograd(s))
    return CK_NAME(ck_conv_pool_forward_direct)(s, x, u, bias, relu, y, place, workspace);
  const outlet o = {
      .oh = s->oh, .ow = s->ow, .f = s->f, .relu = relu, .pooled = 1, .y = y, .place = place};
  CK_NAME(winograd_forward)(s, x, u, bias, &o, workspace);
}

static void CK_NAME(ck_conv_input_gradient_winograd)(const ck_conv_shape *s, const float *dy,
                                                     const float *u, float *dx, float *workspace) {
  if (!is_winograd(s)) return CK_NAME(ck_conv_input_gradient_direct)(s, dy, u, dx, workspace);
  winograd g = winograd_for(s, CK_INPUT_GRADIENT);
  // Input a meets dy from a + padding - 2 on; rows of dy that no input meets are left out.
  tiling t = {.size = g.m + 2,
              .transform = g.by->input,
              .top = 2 - (ptrdiff_t)s->ph,
              .left = 2 - (ptrdiff_t)s->pw,
              .rows = smaller(s->oh, (ptrdiff_t)s->h + s->ph),
              .columns = smaller(s->ow, (ptrdiff_t)s->w + s->pw),
              .width = s->ow,
              .c = s->f,
              .image = (ptrdiff_t)s->oh * s->ow * s->f};
  const outlet o = {.oh = s->h, .ow = s->w, .f = s->c, .y = dx};
  CK_NAME(winograd_convolve)(&g, &t, s->n, dy, u, NULL, &o, workspace);
}

static void CK_NAME(ck_conv_weight_gradient_winograd)(const ck_conv_shape *s, const float *x,
                                                      const float *dy, float *dw,
                                                      float *workspace) {
  if (!is_winograd(s)) return CK_NAME(ck_conv_weight_gradient_direct)(s, x, dy, dw, workspace);
  winograd g = winograd_for(s, CK_WEIGHT_GRADIENT);
  tiling inputs = input_tiling(s, g.by), outputs = {.size = g.m,
                                                    .transform = g.by->upstream,
                                                    .rows = s->oh,
                                                    .columns = s->ow,
                                                    .width = s->ow,
                                                    .c = s->f,
                                                    .image = (ptrdiff_t)s->oh * s->ow * s->f};
  float *zeros = workspace, *u = zeros + g.zeros;
  float *v = u + g.planes * g.weights, *m = v + g.planes * g.c_plane;
  memset(zeros, 0, sizeof(float) * g.zeros);
  memset(u, 0, sizeof(float) * g.planes * g.weights);
  ptrdiff_t strips = (s->c + CK_MR - 1) / CK_MR, height = (s->c + strips - 1) / strips;
  for (ptrdiff_t first = 0; first < g.tiles; first += g.block) {
    ptrdiff_t count = smaller(g.tiles - first, g.block);
    CK_NAME(winograd_spread)
    (&g, &inputs, x, x + s->n * inputs.image, zeros, first, count, v, g.c_plane, g.c);
    CK_NAME(winograd_spread)
    (&g, &outputs, dy, dy + s->n * outputs.image, zeros, first, count, m, g.f_plane, g.f);
    walk sum = {.ow = count, .run = s->c, .x_step = g.c, .y_step = g.f};
    for (ptrdiff_t plane = 0; plane < g.planes; plane++)
      for (ptrdiff_t j = 0; j < g.f; j += CK_NR)
        for (ptrdiff_t k = 0; k < s->c; k += height) CK_NAME(gradient_any_tile)
    (1, smaller(s->c - k, height), g.f - j > CK_LANES ? 2 : 1, &sum, 1, v + plane * g.c_plane + k,
     m + plane * g.f_plane + j, u + plane * g.weights + j * s->c + k * CK_NR);
  }
  for (ptrdiff_t k = 0; k < s->c; k++)
    for (ptrdiff_t j = 0; j < s->f; j += CK_LANES) {
      float patch[9 * CK_LANES];
      g.by->gradient(u + j / CK_NR * CK_NR * s->c + k * CK_NR + j % CK_NR, g.weights, patch);
      for (ptrdiff_t i = 0; i < 9; i++)
        memcpy(dw + (i * s->c + k) * s->f + j, patch + i * CK_LANES,
               sizeof(float) * smaller(s->f - j, CK_LANES));
    }
}
