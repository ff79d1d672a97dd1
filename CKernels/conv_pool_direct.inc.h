// SPDX-License-Identifier: MIT
// Convolution, bias, ReLU and max-pooling 2×2 in one. A tile of the direct convolution whose pixels
// are the windows of the pooling, two rows of the image by up to CK_MR / 2 columns, has everything
// in registers that the pooling needs: the four sums of a window are compared there, and only the
// largest goes to memory, a quarter of the numbers, together with its place for the backward pass.
// ReLU comes after the comparison: the largest of four numbers cut off at 0 is the largest cut off.
// A NaN counts as the largest; whether there can be one is seen from the image and the weights.
#pragma clang fp contract(fast)

typedef uint16_t places __attribute__((vector_size(2 * CK_LANES), aligned(2)));

// The largest of a window's four numbers for `left` filters, and its place unless that is NULL.
INLINE void pool_window(const vec window[4], const int nan, int relu, ptrdiff_t left, float *y,
                        uint16_t *place) {
  vec best = window[0];
  ints where = {0};
#pragma clang loop unroll(full)
  for (int e = 1; e < 4; e++) {
    ints better = window[e] > best;
    if (nan) better |= window[e] != window[e];
    best = (vec)choose(better, (ints)window[e], (ints)best);
    where = choose(better, (ints){0} + e, where);
  }
  if (relu) {
    best = above_zero(best);
    where |= best <= 0;
  }
  places narrow = __builtin_convertvector(where, places);
  if (left >= CK_LANES) {
    *(vec *)y = best;
    if (place) *(places *)place = narrow;
  } else {
    for (ptrdiff_t f = 0; f < left; f++) y[f] = best[f];
    for (ptrdiff_t f = 0; place && f < left; f++) place[f] = narrow[f];
  }
}

// y, place (windows, columns filters) of windows side by side, place unless NULL.
INLINE void pooled_tile(const int windows, const int vectors, const int nan, const walk *g,
                        const float *x, const float *w, const float *bias, float *y,
                        uint16_t *place, ptrdiff_t columns) {
  vec sum[CK_MR / 4][4][2];
#pragma clang loop unroll(full)
  for (int r = 0; r < windows; r++)
#pragma clang loop unroll(full)
    for (int e = 0; e < 4; e++)
#pragma clang loop unroll(full)
      for (int v = 0; v < vectors; v++) sum[r][e][v] = *(const vec *)(bias + v * CK_LANES);
  ptrdiff_t step = g->x_step, below = g->below * g->x_row;
  for (ptrdiff_t i = 0; i < g->lines; i++, x += g->x_row)
    for (ptrdiff_t k = 0; k < g->run; k++, w += CK_NR) {
      vec right[2];
      for (int v = 0; v < vectors; v++) right[v] = *(const vec *)(w + v * CK_LANES);
#pragma clang loop unroll(full)
      for (int r = 0; r < windows; r++)
#pragma clang loop unroll(full)
        for (int e = 0; e < 4; e++)
#pragma clang loop unroll(full)
          for (int v = 0; v < vectors; v++)
            sum[r][e][v] += x[(2 * r + e % 2) * step + e / 2 * below + k] * right[v];
    }
#pragma clang loop unroll(full)
  for (int r = 0; r < windows; r++)
#pragma clang loop unroll(full)
    for (int v = 0; v < vectors; v++) {
      ptrdiff_t at = r * g->y_step + v * CK_LANES;
      vec window[4];
#pragma clang loop unroll(full)
      for (int e = 0; e < 4; e++) window[e] = sum[r][e][v];
      pool_window(window, nan, g->relu, columns - v * CK_LANES, y + at, place ? place + at : NULL);
    }
}

static void CK_NAME(pooled_any_tile)(ptrdiff_t windows, int nan, const walk *g, const float *x,
                                     const float *w, const float *bias, float *y, uint16_t *place,
                                     ptrdiff_t columns) {
#define CK_WINDOWS(n)                                         \
  case n:                                                     \
    if (nan)                                                  \
      pooled_tile(n, 2, 1, g, x, w, bias, y, place, columns); \
    else if (columns <= CK_LANES)                             \
      pooled_tile(n, 1, 0, g, x, w, bias, y, place, columns); \
    else                                                      \
      pooled_tile(n, 2, 0, g, x, w, bias, y, place, columns); \
    return;
  switch (windows) {
    CK_WINDOWS(1)
#if CK_MR >= 8
    CK_WINDOWS(2)
#endif
#if CK_MR >= 12
    CK_WINDOWS(3)
#endif
  }
#undef CK_WINDOWS
}

// The largest magnitude, a NaN before any number: as whole numbers, its bits are the largest.
INLINE float largest(ptrdiff_t n, const float *x) {
  ints most[4] = {{0}, {0}, {0}, {0}};  // that don't wait for each other
  ptrdiff_t i = 0;
  for (; i + 4 * CK_LANES <= n; i += 4 * CK_LANES)
#pragma clang loop unroll(full)
    for (int v = 0; v < 4; v++) {
      ints size = (ints) * (const vec *)(x + i + v * CK_LANES) & INT32_MAX;
      most[v] = __builtin_elementwise_max(size, most[v]);
    }
  for (; i < n; i += CK_LANES) {
    ptrdiff_t left = n - i < CK_LANES ? n - i : CK_LANES;
    ints size = (ints)some(left, x + i) & INT32_MAX;
    most[0] = __builtin_elementwise_max(size, most[0]);
  }
  int32_t bits = 0;
  for (int v = 0; v < 4; v++)
    for (int l = 0; l < CK_LANES; l++) bits = most[v][l] > bits ? most[v][l] : bits;
  float result;
  memcpy(&result, &bits, sizeof result);
  return result;
}

static void CK_NAME(ck_conv_pool_forward_direct)(const ck_conv_shape *s, const float *x,
                                                 const float *packed, const float *bias, int relu,
                                                 float *y, uint16_t *place, float *workspace) {
  image_frame frame = frame_of(s);
  float *start, *zeros;
  walk g = forward_walk(s, frame, bias, relu, workspace, &start, &zeros);
  ptrdiff_t rows = s->oh / 2, windows = s->ow / 2;
  // Where no sum can reach infinity, none can be a NaN, and the comparisons needn't look for one.
  ptrdiff_t window = g.lines * g.run;
  double bound = largest(padded(s->f) * window, packed) * (double)window;
  double least = largest(padded(s->f), start);
  ptrdiff_t tiles = (windows + CK_MR / 4 - 1) / (CK_MR / 4), width = (windows + tiles - 1) / tiles;
  for (ptrdiff_t n = 0; n < s->n; n++, x += (ptrdiff_t)s->h * s->w * s->c) {
    const float *image = framed(s, frame, x, zeros);
    double most = largest((ptrdiff_t)s->h * s->w * s->c, x) * bound + least;
    int nan = !(most < 0x1p126);
    for (ptrdiff_t j = 0; j < s->f; j += CK_NR)
      for (ptrdiff_t p = 0; p < rows; p++)
        for (ptrdiff_t q = 0; q < windows; q += width) {
          ptrdiff_t out = ((n * rows + p) * windows + q) * s->f + j;
          CK_NAME(pooled_any_tile)
          (windows - q < width ? windows - q : width, nan, &g,
           image + 2 * p * g.below * g.x_row + 2 * q * g.x_step, packed + j * g.lines * g.run,
           start + j, y + out, place ? place + out : NULL, s->f - j < CK_NR ? s->f - j : CK_NR);
        }
  }
}
