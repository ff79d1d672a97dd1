// SPDX-License-Identifier: MIT
// Changing images on their way into a mini-batch. For each pixel of the result the place in the
// source is computed, an affine map of its own place plus, where there is one, a displacement; the
// value there is interpolated between the four pixels around it. The source has a border of zeros,
// so that nothing need be asked inside the loop: a place outside is moved to the border.

static void CK_NAME(ck_warp)(ptrdiff_t h, ptrdiff_t w, ptrdiff_t c, const float *x,
                             const float map[6], const float *down, const float *right, float *y) {
  ptrdiff_t line = (w + 3) * c;
  float bottom = (float)h + 1, side = (float)w + 1;
  for (ptrdiff_t p = 0; p < h; p++, y += w * c)
    for (ptrdiff_t q = 0; q < w; q++) {
      float v = map[0] * (float)p + map[1] * (float)q + map[2] + 1;
      float u = map[3] * (float)p + map[4] * (float)q + map[5] + 1;
      if (down) v += down[p * w + q], u += right[p * w + q];
      v = v < 0 ? 0 : v > bottom ? bottom : v;
      u = u < 0 ? 0 : u > side ? side : u;
      ptrdiff_t i = (ptrdiff_t)v, j = (ptrdiff_t)u;
      float below = v - (float)i, beside = u - (float)j;
      const float *at = x + i * line + j * c;
      for (ptrdiff_t k = 0; k < c; k++) {
        float top = at[k] + beside * (at[c + k] - at[k]);
        float low = at[line + k] + beside * (at[line + c + k] - at[line + k]);
        y[q * c + k] = top + below * (low - top);
      }
    }
}

// One axis of a blur: along rows, then the result turned, so that calling it twice blurs both.
static void CK_NAME(ck_blur)(ptrdiff_t h, ptrdiff_t w, const float *x, ptrdiff_t radius,
                             const float *weights, float *y) {
  for (ptrdiff_t p = 0; p < h; p++, x += w)
    for (ptrdiff_t q = 0; q < w; q++) {
      ptrdiff_t first = q < radius ? -q : -radius, last = q + radius < w ? radius : w - 1 - q;
      float sum = 0;
      for (ptrdiff_t k = first; k <= last; k++) sum += weights[k + radius] * x[q + k];
      y[q * h + p] = sum;
    }
}
