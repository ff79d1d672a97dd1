// SPDX-License-Identifier: MIT
// Pooling: each variant, places and ties and numbers that are none, windows that reach outside; the
// mean of a large image.
#include "check.h"

static const char *const operations[] = {"pool_max_forward", "pool_max_backward",
                                         "pool_avg_forward", "pool_avg_backward"};

/// With holes, some values are no number: the largest of a window that holds one is none either.
static void check_pool_shape(const ck_pool_shape *s, int ties, int holes) {
  ptrdiff_t inputs = (ptrdiff_t)s->n * s->h * s->w * s->c;
  ptrdiff_t outputs = (ptrdiff_t)s->n * s->oh * s->ow * s->c;
  const ck_pool_variant *variant;
  for (size_t v = 0; (variant = ck_pool_variant_at(v)); v++) FOR(operation, 4) {
      begin_case(operations[operation], variant->name,
                 "%d×%d×%d×%d, %d×%d by %d×%d, from %d×%d, to %d×%d, %d×%d counted%s", s->n, s->h,
                 s->w, s->c, s->fh, s->fw, s->sh, s->sw, s->ph, s->pw, s->oh, s->ow, s->ch, s->cw,
                 holes  ? ", NaN"
                 : ties ? ", ties"
                        : "");
      float *x = values(inputs, 1), *dy = values(outputs, 4);
      FOR(i, inputs) if (ties) x[i] = roundf(x[i] * 4);
      FOR(i, inputs) if (holes && value(i, 6) > 0.25f) x[i] = NAN;
      double *y = sums(outputs), *mean = sums(outputs), *dx = sums(inputs), *shares = sums(inputs);
      uint16_t *place = places(outputs), *found = places(outputs);
      ptrdiff_t window = s->fh * s->fw;
      FOR(n, s->n) FOR(p, s->oh) FOR(q, s->ow) FOR(c, s->c) {
        ptrdiff_t at = ((n * s->oh + p) * s->ow + q) * s->c + c, best = -1, divisor = 0;
        FOR(twice, 2) FOR(i, s->fh) FOR(j, s->fw) {
          ptrdiff_t row = p * s->sh + i - s->ph, column = q * s->sw + j - s->pw;
          int inside = row >= 0 && row < s->h && column >= 0 && column < s->w;
          if (!twice) {
            divisor += s->ch ? row + s->ph < s->ch && column + s->pw < s->cw : inside;
            continue;
          }
          if (!inside) continue;
          ptrdiff_t in = ((n * s->h + row) * s->w + column) * s->c + c;
          if (best < 0 || x[in] > x[best] || isnan(x[in]))
            best = in, place[at] = (uint16_t)(i * s->fw + j);
          mean[at] += (double)x[in] / (double)divisor;
          shares[in] += (double)dy[at] / (double)divisor;
        }
        y[at] = x[best];
        if (operation == 1 && at % 5 == 4)  // no place at all
          place[at] = UINT16_MAX;
        else
          dx[best] += dy[at];
      }
      float *out = floats(operation % 2 ? inputs : outputs);
      double bound = rounding(window);
      if (operation == 0) {
        variant->max_forward(s, x, out, found);
        compare(out, y, outputs, 0);
        compare_places(found, place, outputs);
      } else if (operation == 1) {
        variant->max_backward(s, dy, place, out);
        compare(out, dx, inputs, bound);
      } else if (operation == 2) {
        variant->avg_forward(s, x, out);
        compare(out, mean, outputs, bound * (ties ? 4 : 1));
      } else {
        variant->avg_backward(s, dy, out);
        compare(out, shares, inputs, bound);
      }
      end_case();
    }
}

/// How many windows there are where they may end outside, but not begin below or to the right.
static int32_t rounded_up(int size, int window, int stride, int before, int after) {
  int outputs = (size + before + after - window + stride - 1) / stride + 1;
  return (outputs - 1) * stride >= size + before ? outputs - 1 : outputs;
}

/// Padding above and below, to the left and to the right, up to a window that holds one pixel.
static void check_outside(int c, int size, int window, int stride) {
  for (int before = 0; before < window; before++)
    for (int after = 0; after<window; after += window> 2 ? 2 : 1) {
      int whole = size + before + after, other = whole + 1;
      ck_pool_shape s = {1, size, size + 1, c, window, window, stride, stride, 0, 0, 0, 0, 0, 0};
      s.ph = before, s.pw = after;
      s.oh = (whole - window) / stride + 1, s.ow = (other - window) / stride + 1;
      if (before % 2) s.oh = rounded_up(size, window, stride, before, after);
      if (after % 2) s.ow = rounded_up(size + 1, window, stride, after, before);
      if (stride % 2) s.ch = whole, s.cw = other;
      check_pool_shape(&s, before % 2, after % 2);
    }
}

static void check_shapes(void) {
  static const int channels[] = {1, 3, 4, 7, 8, 15, 16, 17, 32, 33};
  // Sizes, windows and strides around each other: remainders, overlaps, gaps.
  for (int size = 1; size <= 6; size++)
    for (int window = 1; window <= size && window <= 4; window++)
      for (int stride = 1; stride <= 4; stride++) {
        int c = channels[(size + 2 * window + 3 * stride) % COUNT(channels)];
        int out = (size - window) / stride + 1;
        ck_pool_shape s = {2, size, size, c, window, window, stride, stride, out, out, 0, 0, 0, 0};
        check_pool_shape(&s, 0, 0);
        check_pool_shape(&s, 1, 0);
        check_pool_shape(&s, 1, 1);
        check_outside(c, size, window, stride);
      }
  FOR(i, COUNT(channels)) {
    ck_pool_shape pairs = {2, 7, 5, channels[i], 2, 2, 2, 2, 3, 2, 0, 0, 0, 0};
    ck_pool_shape uneven = {1, 9, 11, channels[i], 3, 2, 1, 3, 7, 4, 0, 0, 0, 0};
    ck_pool_shape large = {1, 20, 20, channels[i], 17, 16, 2,
                           3, 2,  2,  0,           0,  0,  0};  // places above 255
    check_pool_shape(&pairs, 1, 0);
    check_pool_shape(&pairs, 0, 1);
    check_pool_shape(&uneven, 0, 0);
    check_pool_shape(&uneven, 0, 1);
    check_pool_shape(&large, 0, 0);
    large.oh = 11, large.ow = 8, large.ph = 7, large.pw = 2;
    check_pool_shape(&large, 1, 0);
    large.ch = 27, large.cw = 22;
    check_pool_shape(&large, 0, 0);
    ck_pool_shape wide = {1, 3, 9, 4 * channels[i] + 1, 2, 3, 2, 3, 1, 3, 0, 0, 0, 0};
    check_pool_shape(&wide, 0, 0);
  }
}

/// Global average pooling.
static void check_large(void) {
  ptrdiff_t size = long_edge(), pixels = size * size;
  const ck_pool_variant *pool;
  for (size_t v = 0; (pool = ck_pool_variant_at(v)); v++)
    for (int c = 1; c <= 33; c += 16) {
      int32_t edge = (int32_t)long_edge();
      ck_pool_shape s = {1, edge, edge, c, edge, edge, edge, edge, 1, 1, 0, 0, 0, 0};
      begin_case("pool_avg_forward", pool->name, "%td×%td×%d at once, all positive", size, size, c);
      float *x = positive(pixels * c, 1), *y = floats(c);
      double *expected = sums(c);
      FOR(i, pixels * c) expected[i % c] += x[i] / (double)pixels;
      pool->avg_forward(&s, x, y);
      compare(y, expected, c, 68 * unit * 1.5);
      end_case();
    }
}

void check_pooling(void) {
  check_shapes();
  check_large();
}

/// What stands behind the convolutions of cnn and vgg.
void time_pooling(void) {
  static const int rows[][2] = {{26, 32}, {28, 32}, {14, 64}};  // edge, channels
  const ck_pool_variant *v;
  FOR(i, COUNT(rows)) for (size_t at = 0; (v = ck_pool_variant_at(at)); at++) {
    int n = IMAGES, edge = rows[i][0], c = rows[i][1];
    ck_pool_shape s = {n, edge, edge, c, 2, 2, 2, 2, edge / 2, edge / 2, 0, 0, 0, 0};
    double outputs = n * edge * edge * c / 4.0;
    float *x = values((size_t)outputs * 4, 1), *y = values((size_t)outputs, 2);
    uint16_t *place = places((size_t)outputs);
    const char *shape = "%d×%d×%d×%d";
    TIME(0, 22 * outputs, v->max_forward(&s, x, y, place), operations[0], v->name, shape, n, edge,
         edge, c);
    TIME(0, 22 * outputs, v->max_backward(&s, y, place, x), operations[1], v->name, shape, n, edge,
         edge, c);
    TIME(0, 20 * outputs, v->avg_forward(&s, x, y), operations[2], v->name, shape, n, edge, edge,
         c);
    TIME(0, 20 * outputs, v->avg_backward(&s, y, x), operations[3], v->name, shape, n, edge, edge,
         c);
    end_case();
  }
}
