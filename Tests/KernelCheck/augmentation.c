// SPDX-License-Identifier: MIT
// Changing images: maps with and without displacement, and the blur that smooths it.
#include "check.h"

static void check_warp(ptrdiff_t h, ptrdiff_t w, ptrdiff_t c) {
  static const float maps[3][6] = {
      {1, 0, 0, 0, 1, 0}, {0.9f, 0.2f, -1.3f, -0.3f, 1.2f, 0.7f}, {-3, 2, 5, 40, -1, -9}};
  FOR(m, 3) FOR(moved, 2) {
    begin_case("warp", NULL, "%td×%td×%td, map %td%s", h, w, c, m, moved ? ", displaced" : "");
    float *x = floats((h + 3) * (w + 3) * c), *image = values(h * w * c, 1);
    float *down = values(h * w, 2), *right = values(h * w, 3), *y = floats(h * w * c);
    double *expected = sums(h * w * c);
    FOR(i, (h + 3) * (w + 3) * c) x[i] = 0;
    FOR(p, h) FOR(k, w * c) x[(p + 1) * (w + 3) * c + c + k] = image[p * w * c + k];
    FOR(p, h) FOR(q, w) {
      const float *map = maps[m];
      double v = (double)map[0] * p + (double)map[1] * q + map[2] + (moved ? down[p * w + q] : 0);
      double u = (double)map[3] * p + (double)map[4] * q + map[5] + (moved ? right[p * w + q] : 0);
      FOR(i, h) FOR(j, w) {
        // Each pixel weighs with what is left of 1 after its distance along both axes.
        double share = fmax(0, 1 - fabs(v - (double)i)) * fmax(0, 1 - fabs(u - (double)j));
        FOR(k, c) expected[(p * w + q) * c + k] += share * image[(i * w + j) * c + k];
      }
    }
    ck_kernels()->warp(h, w, c, x, maps[m], moved ? down : NULL, moved ? right : NULL, y);
    // Places of up to 1,000 are rounded to 2^-14.
    compare(y, expected, h * w * c, m == 2 ? 0x1p-12 : 0x1p-17);
    end_case();
  }
  begin_case("blur", NULL, "%td×%td", h, w);
  float *x = values(h * w, 1), *weights = values(7, 2), *y = floats(h * w);
  double *expected = sums(h * w);
  FOR(p, h) FOR(q, w) FOR(k, 7) {
    if (p + k < 3 || p + k - 3 >= h) continue;
    expected[q * h + p] += (double)weights[k] * x[(p + k - 3) * w + q];
  }
  ck_kernels()->blur(h, w, x, 3, weights, y);
  compare(y, expected, h * w, rounding(7));
  end_case();
}

void check_augmentation(void) {
  check_warp(28, 28, 1);
  check_warp(5, 9, 3);
  check_warp(1, 1, 1);
  check_warp(2, 17, 2);
  check_warp(9, 40, 1);
}

/// A digit.
void time_augmentation(void) {
  static const float map[6] = {0.9f, 0.2f, -1.3f, -0.3f, 1.2f, 0.7f};
  const ck_table *k = ck_kernels();
  float *x = values(31 * 31, 1), *d = values(28 * 28, 2), *y = floats(28 * 28);
  TIME(0, 0, k->warp(28, 28, 1, x, map, NULL, NULL, y), "warp", NULL, "28×28×1");
  TIME(0, 0, k->warp(28, 28, 1, x, map, d, d, y), "warp", NULL, "28×28×1, displaced");
  TIME(0, 0, k->blur(28, 28, x, 12, d, y), "blur", NULL, "28×28, 12 either way");
  end_case();
}
