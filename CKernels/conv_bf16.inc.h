// SPDX-License-Identifier: MIT
// Convolution with products of bf16. As in the direct convolution nothing is gathered: the window's
// row, FW·C numbers, lies side by side in an image, and the window of the next output starts a
// fixed step further on. So the rows of A, the product's left operand, are read from the image,
// made bf16 with the zeros around it, some lines at a time. With a stride of 1 all outputs of some
// lines are one product: what it computes between the end of a line and the start of the next is
// left out.
//
// The input gradient is the same over dy, with its numbers a stride apart and zeros between, by the
// weights turned round. The weight gradient is the product of the other two: its sum runs over
// pixels, so images are turned round, a plane a channel, and a weight's row of A starts where its
// tap first meets the image. dy, laid out in lines as long as the image's, is B.
#pragma clang fp contract(fast)

// An image (rows, columns, c) in a frame of zeros, as windows of fh×fw walk over it by (sh, sw).
typedef struct bf16_frame {
  ptrdiff_t n, oh, ow, f;                 // images, outputs
  ptrdiff_t fh, fw, c, sh, sw;            // windows
  ptrdiff_t rows, columns;                // of the image in memory
  ptrdiff_t image;                        // floats from image to image
  ptrdiff_t top, left, apart_h, apart_w;  // where its numbers are in the frame
  ptrdiff_t width;                        // of the frame: even
  ptrdiff_t lines;                        // of outputs at a time
  ptrdiff_t pitch;                        // outputs from line to line of the sums
  ptrdiff_t filters;                      // columns of the product
} bf16_frame;

// Lines of the frame that so many lines of outputs meet.
INLINE ptrdiff_t bf16_lines(const bf16_frame *g, ptrdiff_t lines) {
  return (lines - 1) * g->sh + g->fh;
}

static bf16_frame CK_NAME(bf16_frame_of)(const ck_conv_shape *s, ck_pass pass) {
  bf16_frame g = {.n = s->n,
                  .oh = s->oh,
                  .ow = s->ow,
                  .f = s->f,
                  .fh = s->fh,
                  .fw = s->fw,
                  .c = s->c,
                  .sh = s->sh,
                  .sw = s->sw,
                  .rows = s->h,
                  .columns = s->w,
                  .image = (ptrdiff_t)s->h * s->w * s->c,
                  .top = s->ph,
                  .left = s->pw,
                  .apart_h = 1,
                  .apart_w = 1};
  if (pass == CK_INPUT_GRADIENT) {
    g.oh = s->h, g.ow = s->w, g.f = s->c, g.c = s->f, g.sh = g.sw = 1;
    g.rows = s->oh, g.columns = s->ow, g.image = (ptrdiff_t)s->oh * s->ow * s->f;
    g.top = s->fh - 1 - s->ph, g.left = s->fw - 1 - s->pw;
    g.apart_h = s->sh, g.apart_w = s->sw;
  }
  g.width = (reach(g.ow, g.sw, g.fw) + 1) / 2 * 2;
  g.pitch = g.sh == 1 && g.sw == 1 ? g.width : g.ow;
  g.filters = sixteens(g.f);
  // 128 KB of image and sums, but two lines at least, for the pooling.
  ptrdiff_t words = g.sh * g.width * g.c / 2 +
                    (pass == CK_WEIGHT_GRADIENT ? g.width * g.filters / 2 : g.pitch * g.filters);
  g.lines = 32768 / words / 2 * 2;
  if (g.lines < 2) g.lines = 2;
  if (g.lines > g.oh) g.lines = g.oh;
  return g;
}

// Numbers of some lines of the frame, with what products may read behind the last window, which
// must be numbers.
enum { CK_BF16_SLACK = 64 };
INLINE ptrdiff_t bf16_numbers(const bf16_frame *g) {
  return (bf16_lines(g, g->lines) * g->width * g->c + CK_BF16_SLACK + 31) / 32 * 32;
}

// Lines first..<first + lines of the frame, of an image.
static void CK_NAME(bf16_fill)(const bf16_frame *g, const float *x, ptrdiff_t first,
                               ptrdiff_t lines, uint16_t *out) {
  ptrdiff_t line = g->width * g->c;
  for (ptrdiff_t i = first; i < first + lines; i++, out += line) {
    ptrdiff_t row = i - g->top;
    int inside = row >= 0 && row % g->apart_h == 0 && row / g->apart_h < g->rows;
    // Columns that lie left of the frame, or right of it, are left out.
    ptrdiff_t skip = g->left < 0 ? (-g->left + g->apart_w - 1) / g->apart_w : 0;
    ptrdiff_t left = g->left + skip * g->apart_w;
    ptrdiff_t columns = smaller(g->columns - skip, (g->width - left + g->apart_w - 1) / g->apart_w);
    if (!inside || columns <= 0) {
      memset(out, 0, sizeof *out * line);
      continue;
    }
    const float *from = x + (row / g->apart_h * g->columns + skip) * g->c;
    ptrdiff_t start = left * g->c, end = start + columns * g->c;
    if (g->apart_w == 1) {
      memset(out, 0, sizeof *out * start);
      ck_bf16()->round(columns * g->c, from, out + start);
      memset(out + end, 0, sizeof *out * (line - end));
    } else {
      memset(out, 0, sizeof *out * line);
      for (ptrdiff_t q = 0; q < columns; q++)
        ck_bf16()->round(g->c, from + q * g->c, out + start + q * g->apart_w * g->c);
    }
  }
  memset(out, 0, sizeof *out * CK_BF16_SLACK);
}

// Rows of a panel that a line of the window takes.
INLINE ptrdiff_t bf16_run(const bf16_frame *g) { return sixteens((g->fw * g->c + 1) / 2); }

// w (fh, fw·c, f) in panels.
static void CK_NAME(bf16_pack)(const bf16_frame *g, const float *w, uint32_t *out) {
  ptrdiff_t run = g->fw * g->c, rows = bf16_run(g);
  for (ptrdiff_t j = 0; j < g->f; j += CK_BF16_PANEL)
    for (ptrdiff_t i = 0; i < g->fh; i++, out += rows * CK_BF16_PANEL) CK_NAME(bf16_rows)
  (run, smaller(g->f - j, CK_BF16_PANEL), w + i * run * g->f + j, g->f, out, rows);
}

static size_t CK_NAME(ck_conv_ready_count_bf16)(const ck_conv_shape *s, ck_pass pass) {
  if (pass == CK_WEIGHT_GRADIENT) return 0;
  bf16_frame g = CK_NAME(bf16_frame_of)(s, pass);
  ptrdiff_t turned = pass == CK_INPUT_GRADIENT ? g.fh * g.fw * g.c * g.f : 0;
  return g.filters * g.fh * bf16_run(&g) + turned;
}

static void CK_NAME(ck_conv_ready_bf16)(const ck_conv_shape *s, ck_pass pass, const float *w,
                                        float *out) {
  bf16_frame g = CK_NAME(bf16_frame_of)(s, pass);
  if (pass == CK_INPUT_GRADIENT) {
    float *turned = out + g.filters * g.fh * bf16_run(&g);
    CK_NAME(turn_weights)((ptrdiff_t)s->fh * s->fw, s->c, s->f, w, turned);
    w = turned;
  }
  CK_NAME(bf16_pack)(&g, w, (uint32_t *)out);
}

// What the weight gradient needs, and where it lies, in floats from the workspace's start.
typedef struct bf16_places {
  ptrdiff_t images;  // at a time
  ptrdiff_t taps;    // of the window, that share a row of A's
  ptrdiff_t rows;    // of A together
  ptrdiff_t blocks;  // such products
  ptrdiff_t pairs;   // of an image: lines of dy
  ptrdiff_t plane;   // words from row to row of A
  ptrdiff_t image;   // words from image to image of A
  int is_large;      // C, beside a second-level cache
  ptrdiff_t upstream, planes, between, end;
} bf16_places;

static bf16_places CK_NAME(bf16_places_of)(const bf16_frame *g) {
  // With few channels the taps' planes are laid one below the other, so that tiles are filled.
  ptrdiff_t taps = g->fh * g->fw, together = g->c < 16 ? taps : 1, channels = sixteens(g->c);
  bf16_places at = {
      .images = 1, .taps = together, .rows = together * g->c, .blocks = taps / together};
  at.pairs = ((g->lines - 1) * g->sh + 1) * g->width / 2;
  // Of small images several, so that sums stay in registers for longer.
  at.is_large = at.blocks * at.rows * g->filters > 1 << 17;
  ptrdiff_t many = at.is_large ? 2048 : 512;
  if (g->lines == g->oh && at.pairs < many) at.images = smaller(g->n, many / at.pairs);
  at.plane = (bf16_lines(g, g->lines) * g->width / 2 + 31) / 32 * 32 + 48;
  at.image = at.plane * (channels + (together > 1 ? sixteens(at.rows) : 0));
  at.upstream = at.blocks * at.rows * g->filters;
  at.planes = at.upstream + at.images * sixteens(at.pairs) * g->filters;
  at.between = at.planes + at.images * at.image;
  at.end = at.between + at.plane * channels;
  return at;
}

static size_t CK_NAME(ck_conv_workspace_bf16)(const ck_conv_shape *s, ck_pass pass) {
  bf16_frame g = CK_NAME(bf16_frame_of)(s, pass);
  if (pass == CK_WEIGHT_GRADIENT) return CK_NAME(bf16_places_of)(&g).end;
  return g.filters + bf16_numbers(&g) / 2 + g.lines * g.pitch * g.filters;
}

// Sums of `lines` lines of outputs from lines of the frame, in rows of `filters`, a pixel of width
// `pitch` a row: with that of the frame all lines are one product.
static void CK_NAME(bf16_sums)(const bf16_frame *g, ptrdiff_t lines, const uint16_t *frame,
                               const float *ready, const float *start, ptrdiff_t pitch,
                               float *sums) {
  ck_bf16_product p = {.m = (lines - 1) * pitch + g->ow,
                       .n = g->filters,
                       .runs = g->fh,
                       .pairs = (g->fw * g->c + 1) / 2,
                       .run_rows = bf16_run(g),
                       .a = frame,
                       .a_row = g->sw * g->c,
                       .a_run = g->width * g->c,
                       .b = (const uint32_t *)ready,
                       .panel = g->fh * bf16_run(g) * CK_BF16_PANEL,
                       .c = sums,
                       .ldc = g->filters,
                       .start = start};
  if (g->sh > 1 || g->sw > 1 || pitch != g->width) {
    p.m = g->ow, p.taps = lines, p.across = 1;
    p.down = g->sh * g->width * g->c, p.c_tap = pitch * g->filters;
  }
  ck_bf16()->product(&p);
}

// A line of outputs.
static void CK_NAME(bf16_line)(const bf16_frame *g, const float *sums, int relu, float *y) {
  for (ptrdiff_t q = 0; q < g->ow; q++, sums += g->filters, y += g->f)
    for (ptrdiff_t j = 0; j < g->f; j += CK_LANES) {
      vec sum = *(const vec *)(sums + j);
      if (relu) sum = above_zero(sum);
      if (j + CK_LANES <= g->f)
        *(vec *)(y + j) = sum;
      else
        memcpy(y + j, &sum, sizeof(float) * (g->f - j));
    }
}

// A line of windows of 2×2 outputs.
static void CK_NAME(bf16_pool_line)(const bf16_frame *g, const float *sums, int relu, float *y,
                                    uint16_t *place) {
  ptrdiff_t below = g->pitch * g->filters;
  for (ptrdiff_t q = 0; q < g->ow / 2; q++, sums += 2 * g->filters)
    for (ptrdiff_t j = 0; j < g->f; j += CK_LANES) {
      const float *from = sums + j;
      vec window[4];
      for (int e = 0; e < 4; e++)
        window[e] = *(const vec *)(from + e / 2 * below + e % 2 * g->filters);
      ptrdiff_t at = q * g->f + j;
      pool_window(window, 1, relu, g->f - j, y + at, place ? place + at : NULL);
    }
}

// y, or with `pooled` of it the largest of windows of 2×2 and their places.
static void CK_NAME(bf16_convolve)(const bf16_frame *g, const float *x, const float *ready,
                                   const float *bias, int relu, int pooled, float *y,
                                   uint16_t *place, float *workspace) {
  float *start = workspace, *sums = start + g->filters + bf16_numbers(g) / 2;
  uint16_t *frame = (uint16_t *)(start + g->filters);
  memset(start, 0, sizeof(float) * g->filters);
  if (bias) memcpy(start, bias, sizeof(float) * g->f);
  ptrdiff_t step = pooled ? g->ow / 2 * g->f : g->ow * g->f, lines;
  // Where the sums are the outputs, and lines aren't much shorter than a tile, straight to y.
  int straight = !pooled && g->filters == g->f && g->ow >= 12;
  for (ptrdiff_t n = 0; n < g->n; n++, x += g->image)
    for (ptrdiff_t p = 0; p < (pooled ? g->oh / 2 * 2 : g->oh); p += lines) {
      lines = g->oh - p < g->lines ? g->oh - p : g->lines;
      CK_NAME(bf16_fill)(g, x, p * g->sh, bf16_lines(g, lines), frame);
      if (straight) {
        CK_NAME(bf16_sums)(g, lines, frame, ready, start, g->ow, y);
        if (relu) CK_NAME(ck_relu_forward)(lines * step, y, y);
        y += lines * step;
        continue;
      }
      CK_NAME(bf16_sums)(g, lines, frame, ready, start, g->pitch, sums);
      for (ptrdiff_t i = 0; i + pooled < lines; i += 1 + pooled, y += step) {
        const float *from = sums + i * g->pitch * g->filters;
        if (!pooled)
          CK_NAME(bf16_line)(g, from, relu, y);
        else {
          CK_NAME(bf16_pool_line)(g, from, relu, y, place);
          if (place) place += step;
        }
      }
    }
}

static void CK_NAME(ck_conv_forward_bf16)(const ck_conv_shape *s, const float *x,
                                          const float *ready, const float *bias, int relu, float *y,
                                          float *workspace) {
  bf16_frame g = CK_NAME(bf16_frame_of)(s, CK_FORWARD);
  CK_NAME(bf16_convolve)(&g, x, ready, bias, relu, 0, y, NULL, workspace);
}

static void CK_NAME(ck_conv_pool_forward_bf16)(const ck_conv_shape *s, const float *x,
                                               const float *ready, const float *bias, int relu,
                                               float *y, uint16_t *place, float *workspace) {
  bf16_frame g = CK_NAME(bf16_frame_of)(s, CK_FORWARD);
  CK_NAME(bf16_convolve)(&g, x, ready, bias, relu, 1, y, place, workspace);
}

static void CK_NAME(ck_conv_input_gradient_bf16)(const ck_conv_shape *s, const float *dy,
                                                 const float *ready, float *dx, float *workspace) {
  bf16_frame g = CK_NAME(bf16_frame_of)(s, CK_INPUT_GRADIENT);
  CK_NAME(bf16_convolve)(&g, dy, ready, NULL, 0, 0, dx, NULL, workspace);
}

// A line of pixels of c numbers, the first in column `left`, `apart` columns from one to the next,
// as pairs of the neighbours in a line of `width` columns.
static void CK_NAME(bf16_line_pairs)(ptrdiff_t width, ptrdiff_t left, ptrdiff_t apart,
                                     ptrdiff_t pixels, ptrdiff_t c, const float *x, uint32_t *out,
                                     ptrdiff_t panel) {
  ck_bf16_round_pairs_fn *round_pairs = ck_bf16()->round_pairs;
  for (ptrdiff_t t = 0, rows; t < width / 2; t += rows) {
    const float *pair[2] = {NULL, NULL};
    for (ptrdiff_t e = 0; e < 2; e++) {
      ptrdiff_t column = 2 * t + e - left;
      if (pixels && column >= 0 && column % apart == 0 && column / apart < pixels)
        pair[e] = x + column / apart * c;
    }
    rows = 1;
    if (pair[0] && pair[1])  // and all the way to the last two
      rows = (left + pixels) / 2 - t;
    else if (!pair[0] && !pair[1] && (!pixels || 2 * t > left + (pixels - 1) * apart))
      rows = width / 2 - t;
    rows = smaller(rows, width / 2 - t);
    round_pairs(rows, c, pair[0], pair[1], 2 * c, out + t * CK_BF16_PANEL, panel);
  }
}

// Lines p..<p + lines of an image's dy in lines as long as the frame's, in panels, zeros below.
static void CK_NAME(bf16_upstream)(const bf16_frame *g, const bf16_places *at, const float *dy,
                                   ptrdiff_t p, ptrdiff_t lines, uint32_t *out) {
  ptrdiff_t rows = sixteens(at->pairs), panel = at->images * rows * CK_BF16_PANEL, k = 0;
  for (ptrdiff_t i = 0; i < (lines - 1) * g->sh + 1; i++, k += g->width / 2)
    CK_NAME(bf16_line_pairs)
  (g->width, 0, g->sw, i % g->sh ? 0 : g->ow, g->f, dy + (p + i / g->sh) * g->ow * g->f,
   out + k * CK_BF16_PANEL, panel);
  ck_bf16()->round_pairs(rows - k, g->f, NULL, NULL, 0, out + k * CK_BF16_PANEL, panel);
}

// Lines of the frame from `first` on turned round: a plane a channel, then, where taps lie
// together, one a tap and channel, from where it first meets the image.
static void CK_NAME(bf16_planes)(const bf16_frame *g, const bf16_places *at, const float *x,
                                 ptrdiff_t first, ptrdiff_t lines, uint32_t *planes,
                                 uint32_t *between) {
  ptrdiff_t c = g->c, panel = at->plane * CK_BF16_PANEL, k = 0;
  for (ptrdiff_t i = first; i < first + bf16_lines(g, lines); i++, k += g->width / 2) {
    ptrdiff_t row = i - g->top;
    int inside = row >= 0 && row < g->rows;
    CK_NAME(bf16_line_pairs)
    (g->width, g->left, 1, inside ? g->columns : 0, c, x + row * g->columns * c,
     between + k * CK_BF16_PANEL, panel);
  }
  ck_bf16()->round_pairs(at->plane - k, c, NULL, NULL, 0, between + k * CK_BF16_PANEL, panel);
  for (ptrdiff_t j = 0; j < c; j += CK_BF16_PANEL) CK_NAME(turn_words)
  (at->plane, smaller(c - j, CK_BF16_PANEL), between + j * at->plane, CK_BF16_PANEL,
   planes + j * at->plane, at->plane);
  if (at->taps == 1) return;
  const uint16_t *from = (const uint16_t *)planes;
  uint16_t *row = (uint16_t *)(planes + sixteens(c) * at->plane);
  ptrdiff_t numbers = 2 * at->plane;
  for (ptrdiff_t i = 0; i < g->fh; i++)
    for (ptrdiff_t j = 0; j < g->fw; j++)
      for (ptrdiff_t channel = 0; channel < c; channel++, row += numbers) {
        ptrdiff_t start = i * g->width + j;
        memcpy(row, from + channel * numbers + start, sizeof *row * (numbers - start));
        memset(row + numbers - start, 0, sizeof *row * start);
      }
}

static void CK_NAME(ck_conv_weight_gradient_bf16)(const ck_conv_shape *s, const float *x,
                                                  const float *dy, float *dw, float *workspace) {
  bf16_frame g = CK_NAME(bf16_frame_of)(s, CK_WEIGHT_GRADIENT);
  bf16_places at = CK_NAME(bf16_places_of)(&g);
  // Straight to dw where that has room for whole vectors and no sum is cut.
  int straight = g.filters == g.f && s->n * ((g.oh - 1) * g.sh + 1) * g.width <= CK_SUMMED;
  float *sums = straight ? dw : workspace;
  uint32_t *upstream = (uint32_t *)(workspace + at.upstream);
  uint32_t *planes = (uint32_t *)(workspace + at.planes);
  ptrdiff_t block = at.rows * g.filters, run = sixteens(at.pairs), lines, images;
  if (!straight) memset(dw, 0, sizeof(float) * at.blocks * at.rows * g.f);
  ptrdiff_t summed = 0, pixels = 2 * at.images * at.pairs;
  for (ptrdiff_t n = 0; n < s->n; n += images)
    for (ptrdiff_t p = 0; p < g.oh; p += lines) {
      lines = smaller(g.oh - p, g.lines), images = smaller(s->n - n, at.images);
      for (ptrdiff_t e = 0; e < images; e++) {
        CK_NAME(bf16_upstream)
        (&g, &at, dy + (n + e) * g.oh * g.ow * g.f, p, lines, upstream + e * run * CK_BF16_PANEL);
        CK_NAME(bf16_planes)
        (&g, &at, x + (n + e) * g.image, p * g.sh, lines, planes + e * at.image,
         (uint32_t *)(workspace + at.between));
      }
      // As much of the sum at a time as leaves the operands of 32 by 32 numbers, which all taps
      // have in common, in the first-level cache; more where C doesn't fit the second.
      const uint16_t *rows =
          (const uint16_t *)(planes + (at.taps > 1 ? sixteens(g.c) * at.plane : 0));
      ptrdiff_t pairs = ((lines - 1) * g.sh + 1) * g.width / 2, most = at.is_large ? 2048 : 160;
      ptrdiff_t parts = (pairs + most - 1) / most, some = sixteens((pairs + parts - 1) / parts);
      ptrdiff_t runs = run < most ? most / run : 1;
      for (ptrdiff_t e = 0; e < images; e += runs)
        for (ptrdiff_t k = 0; k < pairs; k += some)
          ck_bf16()->product(&(ck_bf16_product){.m = at.rows,
                                                .n = g.filters,
                                                .runs = smaller(images - e, runs),
                                                .pairs = smaller(pairs - k, some),
                                                .run_rows = run,
                                                .a = rows + 2 * (e * at.image + k),
                                                .a_row = 2 * at.plane,
                                                .a_run = 2 * at.image,
                                                .b = upstream + (e * run + k) * CK_BF16_PANEL,
                                                .panel = at.images * run * CK_BF16_PANEL,
                                                .c = sums,
                                                .ldc = g.filters,
                                                .accumulate = summed + e + k > 0,
                                                .taps = at.blocks,
                                                .across = g.fw,
                                                .down = g.width,
                                                .c_tap = block});
      summed += pixels;
      int is_last = n + images == s->n && p + lines == g.oh;
      if (straight || (summed + pixels <= CK_SUMMED && !is_last)) continue;
      summed = 0;
      for (ptrdiff_t i = 0; i < at.blocks * at.rows; i++) CK_NAME(ck_add)
      (g.f, sums + i * g.filters, dw + i * g.f);
    }
}
