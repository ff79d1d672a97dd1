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
//
// With products of bf16 what the transforms make is rounded, and what they come from is not: there
// are a quarter of direct's products, of half the width. Tiles are the rows of A; of the weights,
// as of the gradients of outputs, two rows are interleaved.
//
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
  // With products of bf16 the planes hold some of the block's tiles: as many as are rounded at
  // once.
  int narrow;
  ptrdiff_t some;
  ptrdiff_t row;      // numbers from row to row of A
  ptrdiff_t pairs;    // rows of a panel: of words along the sum
  ptrdiff_t a_plane;  // numbers from plane to plane of A
  // Of the weight gradient, how many rows and columns of each plane's sums are done together.
  ptrdiff_t channels, filters;
} winograd;

INLINE ptrdiff_t whole_vectors(ptrdiff_t c) { return (c + CK_LANES - 1) / CK_LANES * CK_LANES; }

// An odd number of cache lines: else the 36 numbers of a tile share a few sets of the cache.
INLINE ptrdiff_t odd_lines(ptrdiff_t count) { return (((count + 15) / 16) | 1) * 16; }

INLINE winograd winograd_of(int narrow, ptrdiff_t n, ptrdiff_t oh, ptrdiff_t ow, ptrdiff_t c,
                            ptrdiff_t f) {
  const filtering *by =
      c < CK_WINOGRAD_MANY || f < CK_WINOGRAD_MANY ? &CK_NAME(filtering_2) : &CK_NAME(filtering_4);
  ptrdiff_t m = by->m;
  winograd g = {.by = by,
                .m = m,
                .planes = (m + 2) * (m + 2),
                .down = (oh + m - 1) / m,
                .across = (ow + m - 1) / m,
                .narrow = narrow};
  g.tiles = n * g.down * g.across;
  g.c = whole_vectors(c), g.f = narrow ? sixteens(f) : whole_vectors(f);
  // Half a megabyte of planes, but whole tiles of the product, and no more than 28. Where the
  // weights are too many for the second-level cache, what is read of them is to serve more tiles.
  ptrdiff_t fit = ((1 << 17) / g.planes) / (g.c + g.f), most = smaller(fit, 28);
  if (g.planes * g.c * g.f > 1 << 19) most = 84;
  g.block = most < CK_MR ? CK_MR : most / CK_MR * CK_MR;
  if (g.block > g.tiles) g.block = g.tiles;
  g.some = narrow ? smaller(g.block, CK_MR) : g.block;
  g.c_plane = odd_lines(g.some * g.c), g.f_plane = odd_lines(g.block * g.f);
  g.row = sixteens(c), g.pairs = sixteens((c + 1) / 2);
  g.a_plane = 2 * odd_lines(g.block * g.row / 2 + 8);  // products read 16 numbers more
  g.weights = odd_lines(narrow ? g.pairs * g.f : c * padded(f));
  g.zeros = 6 * (c > f ? c : f) + CK_NR;
  return g;
}

// Of the input gradient the inputs are the outputs, and filters the channels.
INLINE winograd winograd_for(int narrow, const ck_conv_shape *s, ck_pass pass) {
  if (pass == CK_INPUT_GRADIENT) return winograd_of(narrow, s->n, s->h, s->w, s->f, s->c);
  winograd g = winograd_of(narrow, s->n, s->oh, s->ow, s->c, s->f);
  if (pass == CK_FORWARD) return g;
  if (narrow) g.block = smaller(g.tiles, 128);
  // Where the sums are too many for the second-level cache, and all tiles are not, sums stay there
  // from the first tile to the last, 64 by 64 of each plane.
  int is_large = g.planes * s->c * s->f > 1 << 19 && g.planes * g.tiles * (g.c + g.f) <= 1 << 22;
  if (is_large) g.block = g.tiles;
  g.channels = is_large ? 64 : s->c, g.filters = is_large ? 64 : padded(s->f);
  g.weights = odd_lines(g.channels * (narrow ? sixteens(g.filters) : g.filters));
  // The sum of products of bf16 runs along the tiles, of which as many are turned round at a time
  // as rows are shuffled.
  g.some = narrow ? smaller(g.tiles, 32) : g.block;
  ptrdiff_t more = g.c > g.f ? g.c : g.f;
  g.c_plane = odd_lines(g.some * (narrow ? more : g.c));
  g.f_plane = odd_lines(g.some * (narrow ? more : g.f));
  if (!narrow) return g;
  g.pairs = sixteens((g.block + 1) / 2), g.row = 2 * g.pairs;
  g.a_plane = 2 * odd_lines(sixteens(s->c) * g.pairs);
  return g;
}

INLINE int is_winograd(const ck_conv_shape *s) {
  return s->fh == 3 && s->fw == 3 && s->sh == 1 && s->sw == 1;
}

// Words of the panels of B that dy becomes.
INLINE ptrdiff_t upstream_plane(const winograd *g) { return odd_lines(g->f * g->pairs); }

static size_t CK_NAME(winograd_workspace)(int narrow, const ck_conv_shape *s, ck_pass pass) {
  winograd g = winograd_for(narrow, s, pass);
  if (pass != CK_WEIGHT_GRADIENT)
    return g.planes * (g.c_plane + g.f_plane + (narrow ? g.a_plane / 2 : 0)) +
           padded(pass == CK_INPUT_GRADIENT ? s->c : s->f) + g.zeros;
  ptrdiff_t sums = g.planes * g.weights + g.zeros;
  if (!narrow) return sums + g.planes * (g.c_plane + g.f_plane);
  return sums + g.planes * (g.c_plane + g.a_plane / 2 + upstream_plane(&g)) +
         (g.some + 1) / 2 * sixteens(s->c);
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

// Filters j..<j + wide of w (3,3,c,f) transformed, a plane (c, wide).
static void CK_NAME(winograd_panel)(const winograd *g, ptrdiff_t c, ptrdiff_t f, const float *w,
                                    ptrdiff_t j, ptrdiff_t wide, float *u, ptrdiff_t plane) {
  for (ptrdiff_t end = j + wide; j < end; j += CK_LANES, u += CK_LANES)
    for (ptrdiff_t k = 0; k < c; k++) {
      const float *from = w + k * f + j;
      if (j + CK_LANES <= f) {
        g->by->weights(from, c * f, u + k * wide, plane);
        continue;
      }
      float patch[9 * CK_LANES] = {0};
      for (ptrdiff_t i = 0; i < 9 && j < f; i++)
        memcpy(patch + i * CK_LANES, from + i * c * f, sizeof(float) * (f - j));
      g->by->weights(patch, CK_LANES, u + k * wide, plane);
    }
}

// w (3,3,c,f) transformed, each plane in panels: of CK_NR filters, as direct packs them, or of
// bf16.
static void CK_NAME(winograd_pack)(const winograd *g, ptrdiff_t c, ptrdiff_t f, const float *w,
                                   float *u, float *between) {
  ptrdiff_t wide = g->narrow ? CK_BF16_PANEL : CK_NR;
  for (ptrdiff_t j = 0; j < f; j += wide) {
    if (!g->narrow) {
      CK_NAME(winograd_panel)(g, c, f, w, j, wide, u + j * c, g->weights);
      continue;
    }
    CK_NAME(winograd_panel)(g, c, f, w, j, wide, between, c * wide);
    for (ptrdiff_t plane = 0; plane < g->planes; plane++) CK_NAME(bf16_rows)
    (c, wide, between + plane * c * wide, wide, (uint32_t *)u + plane * g->weights + j * g->pairs,
     g->pairs);
  }
}

static size_t CK_NAME(winograd_ready_count)(int narrow, const ck_conv_shape *s, ck_pass pass) {
  if (pass == CK_WEIGHT_GRADIENT) return 0;
  int back = pass == CK_INPUT_GRADIENT;
  winograd g = winograd_for(narrow, s, pass);
  return g.planes * (g.weights + (narrow ? (back ? s->f : s->c) * CK_BF16_PANEL : 0)) +
         (back ? 9 * (ptrdiff_t)s->c * s->f : 0);
}

static void CK_NAME(winograd_ready)(int narrow, const ck_conv_shape *s, ck_pass pass,
                                    const float *w, float *u) {
  winograd g = winograd_for(narrow, s, pass);
  float *turned = u + g.planes * g.weights;
  if (pass == CK_FORWARD) return CK_NAME(winograd_pack)(&g, s->c, s->f, w, u, turned);
  CK_NAME(turn_weights)(9, s->c, s->f, w, turned);
  CK_NAME(winograd_pack)(&g, s->f, s->c, turned, u, turned + 9 * (ptrdiff_t)s->c * s->f);
}

// Some tiles' planes of c channels, rounded, as rows `first` on of A's planes.
static void CK_NAME(winograd_narrow)(const winograd *g, ptrdiff_t c, const float *v,
                                     ptrdiff_t first, ptrdiff_t count, uint16_t *a) {
  ck_bf16_round_fn *round = ck_bf16()->round;
  ptrdiff_t row = g->row;
  a += first * row;
  for (ptrdiff_t plane = 0; plane < g->planes; plane++, v += g->c_plane, a += g->a_plane) {
    if (c == row) {
      round(count * row, v, a);
      continue;
    }
    for (ptrdiff_t k = 0; k < count; k++) round(c, v + k * g->c, a + k * row);
  }
}

// Outputs from n images that are cut as t says, by transformed weights u.
static void CK_NAME(winograd_convolve)(const winograd *g, const tiling *t, ptrdiff_t n,
                                       const float *x, const float *u, const float *bias,
                                       const outlet *o, float *workspace) {
  ptrdiff_t f = o->f;
  float *start = workspace, *zeros = start + padded(f);
  float *v = zeros + g->zeros, *m = v + g->planes * g->c_plane;
  uint16_t *a = (uint16_t *)(m + g->planes * g->f_plane);
  memset(start, 0, sizeof(float) * (padded(f) + g->zeros));
  if (bias) memcpy(start, bias, sizeof(float) * f);
  // What lies behind a row's numbers.
  if (g->narrow && t->c != 2 * g->pairs) memset(a, 0, sizeof *a * g->planes * g->a_plane);
  walk product = {.lines = 1, .run = t->c, .x_step = g->c, .y_step = g->f};
  for (ptrdiff_t first = 0; first < g->tiles; first += g->block) {
    ptrdiff_t count = smaller(g->tiles - first, g->block);
    ptrdiff_t strips = (count + CK_MR - 1) / CK_MR, height = (count + strips - 1) / strips;
    for (ptrdiff_t i = 0; i < count; i += g->some) {
      ptrdiff_t some = smaller(count - i, g->some);
      CK_NAME(winograd_spread)
      (g, t, x, x + n * t->image, zeros, first + i, some, v, g->c_plane, g->c);
      if (g->narrow) CK_NAME(winograd_narrow)(g, t->c, v, i, some, a);
    }
    for (ptrdiff_t plane = 0; plane < g->planes; plane++) {
      if (g->narrow) {
        ck_bf16()->product(&(ck_bf16_product){.m = count,
                                              .n = g->f,
                                              .runs = 1,
                                              .pairs = (t->c + 1) / 2,
                                              .run_rows = g->pairs,
                                              .a = a + plane * g->a_plane,
                                              .a_row = g->row,
                                              .b = (const uint32_t *)u + plane * g->weights,
                                              .panel = g->pairs * CK_BF16_PANEL,
                                              .c = m + plane * g->f_plane,
                                              .ldc = g->f});
        continue;
      }
      for (ptrdiff_t j = 0; j < g->f; j += CK_NR)
        for (ptrdiff_t i = 0; i < count; i += height) CK_NAME(direct_any_tile)
      (smaller(count - i, height), &product, 1, v + plane * g->c_plane + i * g->c,
       u + plane * g->weights + j * t->c, zeros, m + plane * g->f_plane + i * g->f + j,
       smaller(g->f - j, CK_NR));
    }
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

static void CK_NAME(winograd_forward)(int narrow, const ck_conv_shape *s, const float *x,
                                      const float *u, const float *bias, const outlet *o,
                                      float *workspace) {
  winograd g = winograd_for(narrow, s, CK_FORWARD);
  tiling t = input_tiling(s, g.by);
  CK_NAME(winograd_convolve)(&g, &t, s->n, x, u, bias, o, workspace);
}

static void CK_NAME(winograd_input_gradient)(int narrow, const ck_conv_shape *s, const float *dy,
                                             const float *u, float *dx, float *workspace) {
  winograd g = winograd_for(narrow, s, CK_INPUT_GRADIENT);
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

// Some tiles' planes of c channels in pairs of tiles, in panels: words (c, pairs) of each plane.
static void CK_NAME(winograd_pairs)(ptrdiff_t c, ptrdiff_t step, const float *v, ptrdiff_t count,
                                    ptrdiff_t rows, uint32_t *out, ptrdiff_t panel) {
  ck_bf16_round_pairs_fn *round_pairs = ck_bf16()->round_pairs;
  ptrdiff_t whole = count / 2, filled = (count + 1) / 2;
  round_pairs(whole, c, v, v + step, 2 * step, out, panel);
  if (count % 2)
    round_pairs(1, c, v + 2 * whole * step, NULL, 0, out + whole * CK_BF16_PANEL, panel);
  round_pairs(rows - filled, c, NULL, NULL, 0, out + filled * CK_BF16_PANEL, panel);
}

// Tiles first..<first + count of both operands, rounded, the sum along a row of A and a column of
// B.
static void CK_NAME(winograd_operands)(const winograd *g, const tiling *inputs,
                                       const tiling *outputs, ptrdiff_t n, const float *x,
                                       const float *dy, const float *zeros, ptrdiff_t first,
                                       ptrdiff_t count, float *v, uint16_t *a, uint32_t *b,
                                       uint32_t *between) {
  ptrdiff_t c = inputs->c, f = outputs->c, row = g->row, words = upstream_plane(g);
  for (ptrdiff_t i = 0; i < count; i += g->some) {
    ptrdiff_t some = smaller(count - i, g->some), at = i / 2;
    // Zeros behind the last ones.
    ptrdiff_t rows = i + some < count ? some / 2 : g->pairs - at;
    CK_NAME(winograd_spread)
    (g, inputs, x, x + n * inputs->image, zeros, first + i, some, v, g->c_plane, g->c);
    for (ptrdiff_t plane = 0; plane < g->planes; plane++) {
      ptrdiff_t filled = (some + 1) / 2, panel = filled * CK_BF16_PANEL;
      CK_NAME(winograd_pairs)
      (c, g->c, v + plane * g->c_plane, some, filled, between, panel);
      for (ptrdiff_t k = 0; k < c; k += CK_BF16_PANEL) {
        ptrdiff_t channels = smaller(c - k, CK_BF16_PANEL);
        uint32_t *to = (uint32_t *)(a + plane * g->a_plane + k * row) + at;
        CK_NAME(turn_words)
        (filled, channels, between + k * filled, CK_BF16_PANEL, to, row / 2);
        for (ptrdiff_t e = 0; e < channels && rows > filled; e++)
          memset(to + e * row / 2 + filled, 0, sizeof *to * (rows - filled));
      }
    }
    CK_NAME(winograd_spread)
    (g, outputs, dy, dy + n * outputs->image, zeros, first + i, some, v, g->f_plane, g->f);
    for (ptrdiff_t plane = 0; plane < g->planes; plane++) CK_NAME(winograd_pairs)
    (f, g->f, v + plane * g->f_plane, some, rows, b + plane * words + at * CK_BF16_PANEL,
     g->pairs * CK_BF16_PANEL);
  }
}

// dw for `rows` channels from k and `columns` filters from j, by their sums u, `wide` in a panel.
static void CK_NAME(winograd_gradient)(const winograd *g, const ck_conv_shape *s, ptrdiff_t k,
                                       ptrdiff_t rows, ptrdiff_t j, ptrdiff_t columns,
                                       const float *u, ptrdiff_t wide, float *dw) {
  dw += (ptrdiff_t)k * s->f + j;
  for (k = 0; k < rows; k++)
    for (j = 0; j < columns; j += CK_LANES) {
      float patch[9 * CK_LANES];
      g->by->gradient(u + j / wide * wide * rows + k * wide + j % wide, g->weights, patch);
      for (ptrdiff_t i = 0; i < 9; i++)
        memcpy(dw + (i * s->c + k) * s->f + j, patch + i * CK_LANES,
               sizeof(float) * smaller(columns - j, CK_LANES));
    }
}

static void CK_NAME(winograd_weight_gradient)(int narrow, const ck_conv_shape *s, const float *x,
                                              const float *dy, float *dw, float *workspace) {
  winograd g = winograd_for(narrow, s, CK_WEIGHT_GRADIENT);
  tiling inputs = input_tiling(s, g.by), outputs = {.size = g.m,
                                                    .transform = g.by->upstream,
                                                    .rows = s->oh,
                                                    .columns = s->ow,
                                                    .width = s->ow,
                                                    .c = s->f,
                                                    .image = (ptrdiff_t)s->oh * s->ow * s->f};
  float *zeros = workspace, *u = zeros + g.zeros;
  float *v = u + g.planes * g.weights, *m = v + g.planes * g.c_plane;
  uint16_t *a = (uint16_t *)m;
  uint32_t *b = (uint32_t *)a + g.planes * g.a_plane / 2;
  ptrdiff_t words = upstream_plane(&g), wide = narrow ? sixteens(g.filters) : CK_NR;
  memset(zeros, 0, sizeof(float) * g.zeros);
  for (ptrdiff_t first = 0; first < g.tiles; first += g.block) {
    ptrdiff_t count = smaller(g.tiles - first, g.block);
    if (narrow) {
      CK_NAME(winograd_operands)
      (&g, &inputs, &outputs, s->n, x, dy, zeros, first, count, v, a, b, b + g.planes * words);
    } else {
      CK_NAME(winograd_spread)
      (&g, &inputs, x, x + s->n * inputs.image, zeros, first, count, v, g.c_plane, g.c);
      CK_NAME(winograd_spread)
      (&g, &outputs, dy, dy + s->n * outputs.image, zeros, first, count, m, g.f_plane, g.f);
    }
    for (ptrdiff_t k = 0; k < s->c; k += g.channels)
      for (ptrdiff_t j = 0; j < s->f; j += g.filters) {
        ptrdiff_t rows = smaller(s->c - k, g.channels), columns = smaller(s->f - j, g.filters);
        if (!narrow && !first) memset(u, 0, sizeof(float) * g.planes * g.weights);
        ptrdiff_t strips = (rows + CK_MR - 1) / CK_MR, height = (rows + strips - 1) / strips;
        walk sum = {.ow = count, .run = rows, .x_step = g.c, .y_step = g.f};
        for (ptrdiff_t plane = 0; plane < g.planes; plane++) {
          if (narrow) {
            ck_bf16()->product(&(ck_bf16_product){.m = rows,
                                                  .n = sixteens(columns),
                                                  .runs = 1,
                                                  .pairs = (count + 1) / 2,
                                                  .run_rows = g.pairs,
                                                  .a = a + plane * g.a_plane + k * g.row,
                                                  .a_row = g.row,
                                                  .b = b + plane * words + j * g.pairs,
                                                  .panel = g.pairs * CK_BF16_PANEL,
                                                  .c = u + plane * g.weights,
                                                  .ldc = wide,
                                                  .accumulate = first > 0});
            continue;
          }
          for (ptrdiff_t q = 0; q < columns; q += CK_NR)
            for (ptrdiff_t p = 0; p < rows; p += height) CK_NAME(gradient_any_tile)
          (1, smaller(rows - p, height), columns - q > CK_LANES ? 2 : 1, &sum, 1,
           v + plane * g.c_plane + k + p, m + plane * g.f_plane + j + q,
           u + plane * g.weights + q * rows + p * CK_NR);
        }
        if (first + count == g.tiles) CK_NAME(winograd_gradient)
        (&g, s, k, rows, j, columns, u, wide, dw);
      }
  }
}

// The variants: the functions of CKernels.h, and whose are other shapes.
#define CK_WINOGRAD(name, narrow, other)                                                           \
  static size_t CK_NAME(ck_conv_workspace_##name)(const ck_conv_shape *s, ck_pass pass) {          \
    return is_winograd(s) ? CK_NAME(winograd_workspace)(narrow, s, pass)                           \
                          : CK_NAME(ck_conv_workspace_##other)(s, pass);                           \
  }                                                                                                \
  static size_t CK_NAME(ck_conv_ready_count_##name)(const ck_conv_shape *s, ck_pass pass) {        \
    return is_winograd(s) ? CK_NAME(winograd_ready_count)(narrow, s, pass)                         \
                          : CK_NAME(ck_conv_ready_count_##other)(s, pass);                         \
  }                                                                                                \
  static void CK_NAME(ck_conv_ready_##name)(const ck_conv_shape *s, ck_pass pass, const float *w,  \
                                            float *u) {                                            \
    if (!is_winograd(s)) return CK_NAME(ck_conv_ready_##other)(s, pass, w, u);                     \
    CK_NAME(winograd_ready)(narrow, s, pass, w, u);                                                \
  }                                                                                                \
  static void CK_NAME(ck_conv_forward_##name)(const ck_conv_shape *s, const float *x,              \
                                              const float *u, const float *bias, int relu,         \
                                              float *y, float *workspace) {                        \
    if (!is_winograd(s))                                                                           \
      return CK_NAME(ck_conv_forward_##other)(s, x, u, bias, relu, y, workspace);                  \
    const outlet o = {.oh = s->oh, .ow = s->ow, .f = s->f, .relu = relu, .y = y};                  \
    CK_NAME(winograd_forward)(narrow, s, x, u, bias, &o, workspace);                               \
  }                                                                                                \
  static void CK_NAME(ck_conv_pool_forward_##name)(const ck_conv_shape *s, const float *x,         \
                                                   const float *u, const float *bias, int relu,    \
                                                   float *y, uint16_t *place, float *workspace) {  \
    if (!is_winograd(s))                                                                           \
      return CK_NAME(ck_conv_pool_forward_##other)(s, x, u, bias, relu, y, place, workspace);      \
    const outlet o = {                                                                             \
        .oh = s->oh, .ow = s->ow, .f = s->f, .relu = relu, .pooled = 1, .y = y, .place = place};   \
    CK_NAME(winograd_forward)(narrow, s, x, u, bias, &o, workspace);                               \
  }                                                                                                \
  static void CK_NAME(ck_conv_input_gradient_##name)(                                              \
      const ck_conv_shape *s, const float *dy, const float *u, float *dx, float *workspace) {      \
    if (!is_winograd(s)) return CK_NAME(ck_conv_input_gradient_##other)(s, dy, u, dx, workspace);  \
    CK_NAME(winograd_input_gradient)(narrow, s, dy, u, dx, workspace);                             \
  }                                                                                                \
  static void CK_NAME(ck_conv_weight_gradient_##name)(                                             \
      const ck_conv_shape *s, const float *x, const float *dy, float *dw, float *workspace) {      \
    if (!is_winograd(s)) return CK_NAME(ck_conv_weight_gradient_##other)(s, x, dy, dw, workspace); \
    CK_NAME(winograd_weight_gradient)(narrow, s, x, dy, dw, workspace);                            \
  }
CK_WINOGRAD(winograd, 0, direct)
CK_WINOGRAD(winograd_bf16, 1, bf16)
#undef CK_WINOGRAD
