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

// One axis of a blur: down columns, a vector of them at a time, then the result turned, so that
// calling it twice blurs both. The last vector overlaps the one before rather than leave a rest.
static void CK_NAME(ck_blur)(ptrdiff_t h, ptrdiff_t w, const float *x, ptrdiff_t radius,
                             const float *weights, float *y) {
  for (ptrdiff_t p = 0; p < h; p++) {
    ptrdiff_t first = p < radius ? -p : -radius, last = p + radius < h ? radius : h - 1 - p;
    if (w < CK_LANES)
      for (ptrdiff_t q = 0; q < w; q++) {
        float sum = 0;
        for (ptrdiff_t k = first; k <= last; k++) sum += weights[k + radius] * x[(p + k) * w + q];
        y[q * h + p] = sum;
      }
    else
      for (ptrdiff_t at = 0; at < w; at += CK_LANES) {
        ptrdiff_t q = at + CK_LANES <= w ? at : w - CK_LANES;
        vec sum = {0};
        for (ptrdiff_t k = first; k <= last; k++)
          sum += weights[k + radius] * *(const vec *)(x + (p + k) * w + q);
        for (ptrdiff_t i = 0; i < CK_LANES; i++) y[(q + i) * h + p] = sum[i];
      }
  }
}
