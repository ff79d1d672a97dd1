// SPDX-License-Identifier: MIT
// Winograd's tiles: the transforms of conv_winograd.inc.h for one tile and a vector of channels or
// filters of it. Each is a small matrix on both sides of a tile, so it is done to columns, then to
// rows. What a matrix holds twice but for signs is computed once: points come in pairs, p and -p.
//
// F(4×4, 3×3), points 0, ±3/4, ±3/2, ∞; A and B are exact in binary:
//
// Bᵀ =
//     81/64     0    -45/16    0    1   0
//       0    -27/16   -9/4    3/4   1   0
//       0     27/16   -9/4   -3/4   1   0
//       0    -27/32   -9/16   3/2   1   0
//       0     27/32   -9/16  -3/2   1   0
//       0     81/64     0   -45/16  0   1
//
// G =                        A =
//     64/81     0      0         1    0    0     0
//   -128/243  -32/81  -8/27      1   3/4  9/16  27/64
//   -128/243   32/81  -8/27      1  -3/4  9/16 -27/64
//     32/243   16/81   8/27      1   3/2  9/4   27/8
//     32/243  -16/81   8/27      1  -3/2  9/4  -27/8
//       0       0      1         0    0    0     1
//
// F(2×2, 3×3), points 0, ±1, ∞:
//
// Bᵀ =                G =                A =
//   1  0 -1  0          1   0   0          1  0
//   0  1  1  0         1/2 1/2 1/2         1  1
//   0 -1  1  0         1/2-1/2 1/2         1 -1
//   0 -1  0  1          0   0   1          0  1
#pragma clang fp contract(fast)

// Out of line: where these are inlined into loops, their many addresses are kept in memory.
#define OUTLINE static __attribute__((noinline))

// F(4×4): t = Bᵀ d
INLINE void winograd_input_4(const vec d[6], vec t[6]) {
  vec even = d[4] - 2.25f * d[2], odd = d[3] - 2.25f * d[1];
  t[0] = d[4] - 2.8125f * d[2] + 1.265625f * d[0];
  t[1] = even + 0.75f * odd, t[2] = even - 0.75f * odd;
  even = d[4] - 0.5625f * d[2], odd = d[3] - 0.5625f * d[1];
  t[3] = even + 1.5f * odd, t[4] = even - 1.5f * odd;
  t[5] = d[5] - 2.8125f * d[3] + 1.265625f * d[1];
}

// y = Aᵀ m
INLINE void winograd_output_4(const vec m[6], vec y[4]) {
  vec near = m[1] + m[2], far = m[3] + m[4], slope = m[1] - m[2], steep = m[3] - m[4];
  y[0] = m[0] + near + far;
  y[1] = 0.75f * slope + 1.5f * steep;
  y[2] = 0.5625f * near + 2.25f * far;
  y[3] = m[5] + 0.421875f * slope + 3.375f * steep;
}

// t = A y
INLINE void winograd_upstream_4(const vec y[4], vec t[6]) {
  vec even = y[0] + 0.5625f * y[2], odd = y[1] + 0.5625f * y[3];
  t[0] = y[0];
  t[1] = even + 0.75f * odd, t[2] = even - 0.75f * odd;
  even = y[0] + 2.25f * y[2], odd = y[1] + 2.25f * y[3];
  t[3] = even + 1.5f * odd, t[4] = even - 1.5f * odd;
  t[5] = y[3];
}

#define CK_NINTH(n) ((float)(n / 243.0))
// t = G g
INLINE void winograd_weights_4(const vec g[3], vec t[6]) {
  vec even = CK_NINTH(-128) * g[0] + CK_NINTH(-72) * g[2], odd = CK_NINTH(-96) * g[1];
  t[0] = CK_NINTH(192) * g[0];
  t[1] = even + odd, t[2] = even - odd;
  even = CK_NINTH(32) * g[0] + CK_NINTH(72) * g[2], odd = CK_NINTH(48) * g[1];
  t[3] = even + odd, t[4] = even - odd;
  t[5] = g[2];
}

// g = Gᵀ t
INLINE void winograd_gradient_4(const vec t[6], vec g[3]) {
  vec near = t[1] + t[2], far = t[3] + t[4], slope = t[1] - t[2], steep = t[3] - t[4];
  g[0] = CK_NINTH(192) * t[0] + CK_NINTH(-128) * near + CK_NINTH(32) * far;
  g[1] = CK_NINTH(-96) * slope + CK_NINTH(48) * steep;
  g[2] = t[5] + CK_NINTH(72) * (far - near);
}
#undef CK_NINTH

// F(2×2), likewise.
INLINE void winograd_input_2(const vec d[4], vec t[4]) {
  t[0] = d[0] - d[2], t[1] = d[2] + d[1], t[2] = d[2] - d[1], t[3] = d[3] - d[1];
}
INLINE void winograd_output_2(const vec m[4], vec y[2]) {
  y[0] = m[0] + m[1] + m[2], y[1] = m[1] - m[2] + m[3];
}
INLINE void winograd_upstream_2(const vec y[2], vec t[4]) {
  t[0] = y[0], t[1] = y[0] + y[1], t[2] = y[0] - y[1], t[3] = y[1];
}
INLINE void winograd_weights_2(const vec g[3], vec t[4]) {
  vec even = 0.5f * (g[0] + g[2]), odd = 0.5f * g[1];
  t[0] = g[0], t[1] = even + odd, t[2] = even - odd, t[3] = g[2];
}
INLINE void winograd_gradient_2(const vec t[4], vec g[3]) {
  vec even = 0.5f * (t[1] + t[2]);
  g[0] = t[0] + even, g[1] = 0.5f * (t[1] - t[2]), g[2] = even + t[3];
}

// Both axes: the columns of what is loaded (from × from) transformed, then the rows of that
// (to × from); those numbers are stored. Columns of zeros alone may be skipped.
#define CK_BOTH(transform, from, to, skipped, load, store)                                    \
  {                                                                                           \
    vec half[to][from];                                                                       \
    _Pragma("clang loop unroll(full)") for (int j = 0; j < from; j++) {                       \
      vec line[from] = {0}, turned[to] = {0};                                                 \
      if (!(skipped)) {                                                                       \
        _Pragma("clang loop unroll(full)") for (int i = 0; i < from; i++) line[i] =           \
            *(const vec *)(load);                                                             \
        transform(line, turned);                                                              \
      }                                                                                       \
      _Pragma("clang loop unroll(full)") for (int i = 0; i < to; i++) half[i][j] = turned[i]; \
    }                                                                                         \
    _Pragma("clang loop unroll(full)") for (int i = 0; i < to; i++) {                         \
      vec turned[to];                                                                         \
      transform(half[i], turned);                                                             \
      _Pragma("clang loop unroll(full)") for (int j = 0; j < to; j++) {                       \
        vec number = turned[j];                                                               \
        store;                                                                                \
      }                                                                                       \
    }                                                                                         \
  }

// A tile of an image, for a vector of channels: its rows begin at row[i], pixels are `pixel` floats
// apart, and columns other than first..<last are zeros.
typedef struct tile_rows {
  const float *row[6];
  ptrdiff_t pixel, first, last;
} tile_rows;

// What becomes of one tile, and a vector of channels or filters of it:
typedef struct filtering {
  ptrdiff_t m;  // outputs of a tile on an axis
  // v = Bᵀ d B, with c floats added to where rows begin; element (i,j) of v in plane (m+2)·i + j.
  void (*input)(const tile_rows *d, ptrdiff_t c, float *v, ptrdiff_t plane);
  // v = A dy Aᵀ
  void (*upstream)(const tile_rows *dy, ptrdiff_t c, float *v, ptrdiff_t plane);
  // u = G g Gᵀ; the weights of a tap lie `tap` floats behind those before it.
  void (*weights)(const float *g, ptrdiff_t tap, float *u, ptrdiff_t plane);
  // y = Aᵀ m A + bias
  void (*output)(const float *m, ptrdiff_t plane, const float *bias, int relu, float *y,
                 ptrdiff_t row, ptrdiff_t column);
  // dw = Gᵀ u G
  void (*gradient)(const float *u, ptrdiff_t plane, float *dw);
} filtering;

#define CK_FILTERING(m)                                                                          \
  OUTLINE void CK_NAME(winograd_input_tile_##m)(                                                 \
      const tile_rows *d, ptrdiff_t c, float *v,                                                 \
      ptrdiff_t plane){CK_BOTH(winograd_input_##m, m + 2, m + 2, j < d->first || j >= d->last,   \
                               d->row[i] + c + j * d->pixel,                                     \
                               *(vec *)(v + (i * (m + 2) + j) * plane) = number)} OUTLINE void   \
  CK_NAME(winograd_upstream_tile_##m)(                                                           \
      const tile_rows *dy, ptrdiff_t c, float *v,                                                \
      ptrdiff_t plane){CK_BOTH(winograd_upstream_##m, m, m + 2, j < dy->first || j >= dy->last,  \
                               dy->row[i] + c + j * dy->pixel,                                   \
                               *(vec *)(v + (i * (m + 2) + j) * plane) = number)} OUTLINE void   \
  CK_NAME(winograd_weights_tile_##m)(const float *g, ptrdiff_t tap, float *u, ptrdiff_t plane){  \
      CK_BOTH(winograd_weights_##m, 3, m + 2, 0, g + (i * 3 + j) * tap,                          \
              *(vec *)(u + (i * (m + 2) + j) * plane) = number)} OUTLINE void                    \
  CK_NAME(winograd_output_tile_##m)(const float *from, ptrdiff_t plane, const float *bias,       \
                                    int relu, float *y, ptrdiff_t row, ptrdiff_t column) {       \
    vec start = *(const vec *)bias;                                                              \
    ints kept = (ints){0} - !relu;                                                               \
    CK_BOTH(winograd_output_##m, m + 2, m, 0, from + (i * (m + 2) + j) * plane, {                \
      number += start;                                                                           \
      *(vec *)(y + i * row + j * column) = (vec)((kept | ~(number < 0)) & (ints)number);         \
    })                                                                                           \
  }                                                                                              \
  OUTLINE void CK_NAME(winograd_gradient_tile_##m)(const float *u, ptrdiff_t plane, float *dw) { \
    CK_BOTH(winograd_gradient_##m, m + 2, 3, 0, u + (i * (m + 2) + j) * plane,                   \
            *(vec *)(dw + (i * 3 + j) * CK_LANES) = number)                                      \
  }                                                                                              \
  static const filtering CK_NAME(filtering_##m) = {m,                                            \
                                                   CK_NAME(winograd_input_tile_##m),             \
                                                   CK_NAME(winograd_upstream_tile_##m),          \
                                                   CK_NAME(winograd_weights_tile_##m),           \
                                                   CK_NAME(winograd_output_tile_##m),            \
                                                   CK_NAME(winograd_gradient_tile_##m)};
CK_FILTERING(4)
CK_FILTERING(2)
#undef CK_FILTERING
#undef CK_BOTH
