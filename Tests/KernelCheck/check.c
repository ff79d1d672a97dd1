// SPDX-License-Identifier: MIT
// Every kernel against its definition, in plain C without a framework, so that it runs wherever a C
// compiler reaches: cross-compiled and emulated, under valgrind, on a board. The definitions are
// loops with sums in double precision; inputs are uneven, shapes awkward, all memory lies between
// guard zones at an address that is aligned to a float and no more, and results are filled with a
// pattern that is no number, so that an element never written shows.
//
//   check           with each instruction set that the processor has
//   check NAME...   with these instruction sets alone
//   check --bare    without guard zones and patterns: a memory checker sees the edges itself
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "CKernels.h"

#define FOR(i, count) for (ptrdiff_t i = 0; i < (ptrdiff_t)(count); i++)
#define COUNT(list) (ptrdiff_t)(sizeof(list) / sizeof *(list))

// ---- Memory: lives until the end of a case ------------------------------------------------------

enum { ZONE = 61 * sizeof(float), PATTERN = 0xFF };  // the pattern is a NaN, and 65,535 as a place
static struct {
  unsigned char *start;
  size_t bytes, zone;
} blocks[64];
static int block_count, bare;

static void *block(size_t bytes, size_t zone) {
  unsigned char *start = malloc(bytes + 2 * zone);
  if (!start || block_count == COUNT(blocks)) abort();
  if (zone) memset(start, PATTERN, bytes + 2 * zone);
  blocks[block_count].start = start, blocks[block_count].bytes = bytes;
  blocks[block_count++].zone = zone;
  return start + zone;
}

static float *floats(size_t count) { return block(sizeof(float) * count, bare ? 0 : ZONE); }
static uint16_t *places(size_t count) { return block(sizeof(uint16_t) * count, bare ? 0 : ZONE); }
static double *sums(size_t count) { return memset(block(sizeof(double) * count, 0), 0, 8 * count); }

/// The same values in [-0.5, 0.5) as in the Swift tests.
static float value(ptrdiff_t i, unsigned salt) {
  uint32_t u = (uint32_t)i * 2654435761u + salt * 40503u + 12345u;
  u ^= u >> 16, u *= 0x45d9f3b, u ^= u >> 16;
  return (float)(u >> 8) / 16777216 - 0.5f;
}

static float *values(size_t count, unsigned salt) {
  float *x = floats(count);
  FOR(i, count) x[i] = value(i, salt);
  return x;
}

static float *copy(const float *x, size_t count) {
  return memcpy(floats(count), x, sizeof(float) * count);
}

// ---- Judging ------------------------------------------------------------------------------------

typedef struct tally {
  char kernel[48];
  int cases, wrong;
  double worst;  // error as a share of its bound
} tally;
static tally tallies[128], *now;
static char shape[160];
static int wrong_cases, case_is_wrong;

static void wrong(const char *format, ...) {
  if (case_is_wrong++) return;
  wrong_cases++;
  if (now->wrong++) return;  // the first of each kernel tells
  printf("  WRONG: %s, %s, %s: ", now->kernel, ck_kernels()->name, shape);
  va_list arguments;
  va_start(arguments, format);
  vprintf(format, arguments);
  va_end(arguments);
  printf("\n");
}

/// Nothing was written outside of the buffers.
static void check_zones(void) {
  FOR(b, block_count) FOR(i, blocks[b].zone) {
    const unsigned char *before = blocks[b].start, *behind = before + ZONE + blocks[b].bytes;
    if (before[i] != PATTERN) wrong("wrote %td bytes before a buffer", (ptrdiff_t)ZONE - i);
    if (behind[i] != PATTERN) wrong("wrote %td bytes behind the end of a buffer", i + 1);
  }
}

/// A case of kernel `name`, and of its variant if there is one; the rest says which.
static void begin(const char *name, const char *variant, const char *format, ...) {
  if (block_count) check_zones();  // of the case before, if it shares its buffers with this one
  char kernel[sizeof now->kernel];
  snprintf(kernel, sizeof kernel, "ck_%s%s%s", name, variant ? "_" : "", variant ? variant : "");
  for (now = tallies; *now->kernel && strcmp(now->kernel, kernel);) now++;
  strcpy(now->kernel, kernel);
  now->cases++;
  case_is_wrong = 0;
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(shape, sizeof shape, format, arguments);
  va_end(arguments);
}

/// Ends a case and gives its buffers back.
static void end(void) {
  check_zones();
  while (block_count) free(blocks[--block_count].start);
}

/// What the rounding of a sum of `terms` products of values in ±0.5 may come to.
static double rounding(ptrdiff_t terms) { return 0x1p-23 * 0.25 * (double)(terms + 8); }

/// Each element within the bound; where a NaN is expected, a NaN.
static void compare(const float *found, const double *expected, size_t count, double bound) {
  FOR(i, count) {
    double error = fabs(found[i] - expected[i]);
    int same = found[i] == expected[i] || (isnan(found[i]) && isnan(expected[i]));
    if (!same && !(error <= bound))
      wrong("element %td is %.9g, expected %.9g, bound %.2g", i, found[i], expected[i], bound);
    else if (!same && error / bound > now->worst)
      now->worst = error / bound;
  }
}

static void compare_places(const uint16_t *found, const uint16_t *expected, size_t count) {
  FOR(i, count)
  if (found[i] != expected[i]) wrong("place %td is %d, expected %d", i, found[i], expected[i]);
}

/// Bit for bit.
static void same(const char *what, const float *found, const float *expected, size_t count) {
  FOR(i, count)
  if (memcmp(found + i, expected + i, sizeof *found))
    wrong("%s: element %td is %.9g, else %.9g", what, i, found[i], expected[i]);
}

// ---- Convolution --------------------------------------------------------------------------------

typedef struct conv_row {
  int n, h, w, c, fh, fw, f, sh, sw, ph, pw;
  int dh, dw, groups;
  int bottom, right;  // padding there beyond that above and to the left
} conv_row;

static const conv_row conv_rows[] = {
    // One pixel, one channel, one filter; filters as large as the image.
    {1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 1, 1, 1, 0, 0},
    {2, 5, 5, 4, 1, 1, 5, 1, 1, 0, 0, 1, 1, 1, 0, 0},
    {3, 3, 7, 3, 3, 7, 4, 1, 1, 0, 0, 1, 1, 1, 0, 0},
    {2, 8, 2, 3, 8, 2, 17, 1, 1, 0, 0, 1, 1, 1, 0, 0},
    // Strides that leave a remainder, and beyond the filter.
    {2, 28, 28, 1, 3, 3, 3, 2, 2, 0, 0, 1, 1, 1, 0, 0},
    {2, 28, 28, 1, 5, 5, 3, 3, 3, 0, 0, 1, 1, 1, 0, 0},
    {1, 9, 9, 2, 4, 4, 3, 2, 2, 0, 0, 1, 1, 1, 0, 0},
    {2, 12, 12, 1, 5, 5, 9, 4, 4, 0, 0, 1, 1, 1, 0, 0},
    {2, 10, 10, 1, 3, 3, 2, 5, 5, 0, 0, 1, 1, 1, 0, 0},
    {1, 11, 7, 3, 1, 1, 4, 2, 3, 0, 0, 1, 1, 1, 0, 0},
    {1, 20, 20, 2, 3, 2, 5, 4, 7, 0, 0, 1, 1, 1, 0, 0},
    // Axes that differ.
    {1, 5, 9, 2, 3, 2, 3, 1, 1, 0, 0, 1, 1, 1, 0, 0},
    {1, 12, 7, 3, 5, 1, 2, 1, 1, 0, 0, 1, 1, 1, 0, 0},
    {1, 7, 12, 3, 1, 5, 2, 1, 1, 0, 0, 1, 1, 1, 0, 0},
    {2, 9, 8, 2, 3, 4, 3, 2, 1, 0, 0, 1, 1, 1, 0, 0},
    {2, 8, 9, 2, 4, 3, 3, 1, 3, 0, 0, 1, 1, 1, 0, 0},
    {1, 1, 16, 2, 1, 3, 4, 1, 2, 0, 0, 1, 1, 1, 0, 0},
    {1, 16, 1, 2, 3, 1, 4, 2, 1, 0, 0, 1, 1, 1, 0, 0},
    // Padding, up to a window that holds one row of the image.
    {2, 6, 6, 3, 3, 3, 4, 1, 1, 1, 1, 1, 1, 1, 0, 0},
    {2, 6, 6, 3, 3, 3, 4, 1, 1, 2, 2, 1, 1, 1, 0, 0},
    {1, 5, 5, 2, 5, 5, 3, 1, 1, 4, 4, 1, 1, 1, 0, 0},
    {2, 7, 7, 2, 3, 3, 3, 2, 2, 1, 1, 1, 1, 1, 0, 0},
    {2, 8, 6, 1, 4, 3, 3, 3, 2, 3, 1, 1, 1, 1, 0, 0},
    {1, 6, 8, 2, 3, 5, 2, 1, 2, 0, 2, 1, 1, 1, 0, 0},
    {1, 1, 1, 1, 3, 3, 2, 1, 1, 1, 1, 1, 1, 1, 0, 0},
    {2, 5, 5, 2, 5, 5, 3, 2, 2, 2, 2, 1, 1, 1, 0, 0},
    // Channels and filters around the width of a vector and of a tile.
    {2, 6, 5, 1, 3, 3, 7, 1, 1, 1, 1, 1, 1, 1, 0, 0},
    {2, 6, 5, 1, 3, 3, 9, 1, 1, 1, 1, 1, 1, 1, 0, 0},
    {2, 6, 5, 1, 3, 3, 16, 1, 1, 1, 1, 1, 1, 1, 0, 0},
    {2, 6, 5, 1, 3, 3, 33, 1, 1, 1, 1, 1, 1, 1, 0, 0},
    {2, 6, 5, 7, 3, 3, 9, 1, 1, 1, 1, 1, 1, 1, 0, 0},
    {2, 6, 5, 8, 3, 3, 4, 1, 1, 1, 1, 1, 1, 1, 0, 0},
    {2, 6, 5, 15, 3, 3, 16, 1, 1, 1, 1, 1, 1, 1, 0, 0},
    {1, 6, 5, 17, 3, 3, 33, 1, 1, 1, 1, 1, 1, 1, 0, 0},
    {1, 6, 5, 33, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0},
    {1, 6, 5, 5, 3, 3, 65, 1, 1, 1, 1, 1, 1, 1, 0, 0},
    // Sums longer than a block of the matrix product, more windows than its tile is high.
    {1, 6, 6, 57, 3, 3, 6, 1, 1, 0, 0, 1, 1, 1, 0, 0},
    {1, 13, 29, 3, 3, 3, 8, 1, 1, 0, 0, 1, 1, 1, 0, 0},
    // More padding below and to the right: as "same" has it where sizes or strides are even.
    {2, 8, 8, 3, 3, 3, 5, 2, 2, 0, 0, 1, 1, 1, 1, 1},
    {2, 7, 9, 2, 2, 4, 17, 1, 1, 0, 1, 1, 1, 1, 1, 1},
    {1, 5, 4, 3, 3, 3, 4, 3, 2, 0, 0, 1, 1, 1, 2, 1},
    // Dilation: with strides that share a divisor with it, share none, are multiples; over edges.
    {2, 9, 9, 3, 3, 3, 4, 1, 1, 0, 0, 2, 2, 1, 0, 0},
    {2, 9, 9, 3, 3, 3, 17, 1, 1, 2, 2, 2, 2, 1, 0, 0},
    {1, 11, 8, 2, 3, 2, 5, 2, 1, 1, 0, 2, 3, 1, 0, 0},
    {2, 13, 12, 2, 3, 3, 3, 2, 3, 3, 2, 4, 2, 1, 0, 0},
    {1, 12, 13, 1, 2, 3, 9, 4, 6, 0, 3, 6, 4, 1, 0, 0},
    {2, 4, 5, 2, 3, 3, 3, 1, 1, 5, 4, 5, 3, 1, 0, 0},
    {1, 7, 7, 2, 1, 3, 3, 2, 2, 0, 2, 3, 3, 1, 0, 2},
    {1, 16, 16, 8, 3, 3, 16, 1, 1, 4, 4, 4, 4, 1, 0, 0},
    // Groups, also of one channel or one filter each, and with dilation.
    {2, 6, 5, 4, 3, 3, 6, 1, 1, 1, 1, 1, 1, 2, 0, 0},
    {2, 7, 6, 6, 2, 3, 9, 2, 1, 0, 1, 1, 1, 3, 0, 0},
    {1, 6, 6, 5, 3, 3, 10, 1, 1, 1, 1, 1, 1, 5, 0, 0},
    {1, 6, 6, 10, 3, 3, 5, 1, 1, 1, 1, 1, 1, 5, 0, 0},
    {2, 8, 8, 32, 3, 3, 64, 1, 1, 1, 1, 1, 1, 4, 0, 0},
    {2, 9, 8, 4, 3, 3, 8, 2, 1, 2, 1, 2, 3, 2, 1, 0},
    // Depthwise: a channel each; channels around the width of a vector.
    {2, 7, 9, 1, 3, 3, 1, 1, 1, 1, 1, 2, 2, 1, 0, 0},
    {2, 7, 9, 3, 3, 3, 3, 1, 1, 1, 1, 1, 1, 3, 0, 0},
    {2, 7, 9, 4, 3, 3, 4, 1, 1, 1, 1, 1, 1, 4, 0, 0},
    {1, 9, 13, 7, 3, 5, 7, 1, 1, 1, 2, 1, 1, 7, 0, 0},
    {2, 9, 12, 8, 3, 3, 8, 2, 2, 0, 0, 1, 1, 8, 1, 1},
    {1, 10, 9, 15, 2, 4, 15, 1, 3, 1, 2, 1, 1, 15, 0, 0},
    {2, 9, 11, 16, 3, 3, 16, 1, 1, 2, 2, 2, 2, 16, 0, 0},
    {1, 9, 11, 17, 3, 3, 17, 1, 1, 0, 0, 1, 1, 17, 0, 0},
    {1, 12, 9, 33, 5, 3, 33, 2, 1, 4, 3, 3, 2, 33, 0, 0},
    {2, 14, 14, 32, 3, 3, 32, 1, 1, 1, 1, 1, 1, 32, 0, 0},
    {1, 4, 4, 19, 3, 3, 19, 5, 3, 2, 2, 1, 1, 19, 0, 0},
    {1, 3, 3, 5, 3, 3, 5, 1, 1, 3, 3, 3, 3, 5, 0, 0},
    // The shapes of the networks.
    {2, 28, 28, 1, 3, 3, 32, 1, 1, 0, 0, 1, 1, 1, 0, 0},
    {1, 28, 28, 1, 5, 5, 24, 1, 1, 0, 0, 1, 1, 1, 0, 0},
    {1, 12, 12, 24, 3, 3, 32, 1, 1, 0, 0, 1, 1, 1, 0, 0},
};

/// All products x·w·dy that there are, each without the factor that the pass is after, added up in
/// that one's place.
static void convolve(const ck_conv_shape *s, ck_pass pass, const float *x, const float *w,
                     const float *y, double *out) {
  FOR(n, s->n) FOR(p, s->oh) FOR(q, s->ow) FOR(i, s->fh) FOR(j, s->fw) {
    ptrdiff_t row = p * s->sh + s->dh * i - s->ph, column = q * s->sw + s->dw * j - s->pw;
    ptrdiff_t channels = s->c / s->groups;
    if (row < 0 || row >= s->h || column < 0 || column >= s->w) continue;
    FOR(c, channels) FOR(f, s->f) {
      ptrdiff_t first = f * s->groups / s->f * channels;
      ptrdiff_t at_x = ((n * s->h + row) * s->w + column) * s->c + first + c;
      ptrdiff_t at_w = ((i * s->fw + j) * channels + c) * s->f + f;
      ptrdiff_t at_y = ((n * s->oh + p) * s->ow + q) * s->f + f;
      if (pass == CK_FORWARD)
        out[at_y] += (double)x[at_x] * w[at_w];
      else if (pass == CK_INPUT_GRADIENT)
        out[at_x] += (double)y[at_y] * w[at_w];
      else
        out[at_w] += (double)x[at_x] * y[at_y];
    }
  }
}

/// A convolution and the pooling of its result, in one and one after the other.
static void check_conv_pool(const ck_conv_shape *s, int with_bias, int relu, const char *text) {
  const ck_conv_variant *direct = &ck_kernels()->conv_direct;
  ck_pool_shape pool = {s->n, s->oh, s->ow, s->f, 2, 2, 2, 2, s->oh / 2, s->ow / 2};
  ptrdiff_t outputs = (ptrdiff_t)s->n * s->oh * s->ow * s->f;
  ptrdiff_t pooled = (ptrdiff_t)s->n * pool.oh * pool.ow * s->f;
  FOR(with_places, 2) {
    begin("conv_pool_forward", "direct", "%s%s", text, with_places ? "" : ", no places");
    const float *x = values((size_t)s->n * s->h * s->w * s->c, 1);
    const float *w = values((size_t)s->fh * s->fw * s->c * s->f, 2);
    const float *bias = with_bias ? values(s->f, 3) : NULL;
    float *workspace = floats(direct->workspace(s, CK_FORWARD));
    float *between = floats(outputs), *two = floats(pooled), *one = floats(pooled);
    uint16_t *two_places = places(pooled), *one_places = places(pooled);
    direct->forward(s, x, w, bias, relu, between, workspace);
    ck_kernels()->pool_direct.max_forward(&pool, between, two, two_places);
    if (relu) ck_kernels()->relu_places(pooled, two, two_places);
    direct->pool_forward(s, x, w, bias, relu, one, with_places ? one_places : NULL, workspace);
    same("in one", one, two, pooled);
    if (with_places) compare_places(one_places, two_places, pooled);
    end();
  }
}

static void check_conv_shape(const ck_conv_shape *s, int with_bias, int relu) {
  static const char *const passes[] = {"conv_forward", "conv_input_gradient",
                                       "conv_weight_gradient"};
  ptrdiff_t inputs = (ptrdiff_t)s->n * s->h * s->w * s->c;
  ptrdiff_t weights = (ptrdiff_t)s->fh * s->fw * s->c / s->groups * s->f;
  ptrdiff_t outputs = (ptrdiff_t)s->n * s->oh * s->ow * s->f;
  int is_dense = s->dh == 1 && s->dw == 1 && s->groups == 1;
  ptrdiff_t sizes[] = {outputs, inputs, weights};
  ptrdiff_t terms[] = {weights / s->f, weights / s->c, outputs / s->f};
  double *expected[3];
  FOR(pass, 3) {
    expected[pass] = calloc(sizes[pass], sizeof(double));
    const float *x = values(inputs, 1), *w = values(weights, 2), *y = values(outputs, 4);
    convolve(s, pass, x, w, y, expected[pass]);
    end();
  }
  FOR(i, outputs) {
    double sum = expected[0][i] + (with_bias ? value(i % s->f, 3) : 0);
    expected[0][i] = relu && sum < 0 ? 0 : sum;
  }
  char text[140];
  snprintf(
      text, sizeof text,
      "%d×%d×%d×%d, %d of %d×%d by %d×%d, padded %d×%d, dilated %d×%d, %d groups%s%s, to %d×%d",
      s->n, s->h, s->w, s->c, s->f, s->fh, s->fw, s->sh, s->sw, s->ph, s->pw, s->dh, s->dw,
      s->groups, with_bias ? ", bias" : "", relu ? ", ReLU" : "", s->oh, s->ow);
  const ck_conv_variant *variant;
  for (size_t v = 0; (variant = ck_conv_variant_at(v)); v++) FOR(pass, 3) {
      begin(passes[pass], variant->name, "%s", text);
      const float *x = values(inputs, 1), *w = values(weights, 2), *y = values(outputs, 4);
      const float *bias = with_bias ? values(s->f, 3) : NULL;
      float *out = floats(sizes[pass]), *workspace = floats(ck_conv_workspace(variant, s, pass));
      if (pass == CK_FORWARD)
        ck_conv_forward(variant, s, x, w, bias, relu, out, workspace);
      else if (pass == CK_INPUT_GRADIENT)
        ck_conv_input_gradient(variant, s, y, w, out, workspace);
      else
        ck_conv_weight_gradient(variant, s, x, y, out, workspace);
      compare(out, expected[pass], sizes[pass], rounding(terms[pass] + 1));
      end();
    }
  if (is_dense && s->oh > 1 && s->ow > 1) check_conv_pool(s, with_bias, relu, text);
  FOR(pass, 3) free(expected[pass]);
}

static int random_state;
static int pick(int low, int high) {
  return low + (int)((value(random_state++, 99) + 0.5f) * (float)(high - low + 1));
}

static void check_conv(void) {
  enum { RANDOM = 120 };
  random_state = 0;
  for (ptrdiff_t i = 0, done = 0; done < COUNT(conv_rows) + RANDOM; i++) {
    conv_row r;
    if (i < COUNT(conv_rows)) {
      r = conv_rows[i];
    } else {
      r.n = pick(1, 3), r.h = pick(1, 12), r.w = pick(1, 12), r.c = pick(1, 20);
      r.fh = pick(1, 6), r.fw = pick(1, 6), r.f = pick(1, 40), r.sh = pick(1, 4);
      r.sw = pick(1, 4), r.ph = pick(0, r.fh - 1), r.pw = pick(0, r.fw - 1);
      r.dh = i % 2 ? pick(1, 4) : 1, r.dw = i % 2 ? pick(1, 4) : 1;
      r.groups = i % 4 > 1 ? pick(2, 5) : 1, r.bottom = pick(0, 1), r.right = pick(0, 1);
      if (r.groups > 1) r.c = pick(1, 3) * r.groups, r.f = pick(1, 3) * r.groups;
      if (i % 8 == 7) r.groups = r.f = r.c;
    }
    int height = r.h + 2 * r.ph + r.bottom - r.dh * (r.fh - 1) - 1;
    int width = r.w + 2 * r.pw + r.right - r.dw * (r.fw - 1) - 1;
    if (height < 0 || width < 0) continue;
    ck_conv_shape s = {r.n,
                       r.h,
                       r.w,
                       r.c,
                       r.fh,
                       r.fw,
                       r.f,
                       r.sh,
                       r.sw,
                       r.ph,
                       r.pw,
                       height / r.sh + 1,
                       width / r.sw + 1,
                       r.dh,
                       r.dw,
                       r.groups};
    check_conv_shape(&s, i % 3 > 0, i % 2);
    done++;
  }
}

// ---- Pooling ------------------------------------------------------------------------------------

/// With holes, some values are no number: the largest of a window that holds one is none either.
static void check_pool_shape(const ck_pool_shape *s, int ties, int holes) {
  static const char *const operations[] = {"pool_max_forward", "pool_max_backward",
                                           "pool_avg_forward", "pool_avg_backward"};
  ptrdiff_t inputs = (ptrdiff_t)s->n * s->h * s->w * s->c;
  ptrdiff_t outputs = (ptrdiff_t)s->n * s->oh * s->ow * s->c;
  const ck_pool_variant *variant;
  for (size_t v = 0; (variant = ck_pool_variant_at(v)); v++) FOR(operation, 4) {
      begin(operations[operation], variant->name, "%d×%d×%d×%d, %d×%d by %d×%d%s", s->n, s->h, s->w,
            s->c, s->fh, s->fw, s->sh, s->sw,
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
        ptrdiff_t at = ((n * s->oh + p) * s->ow + q) * s->c + c, best = 0;
        FOR(i, s->fh) FOR(j, s->fw) {
          ptrdiff_t in = ((n * s->h + p * s->sh + i) * s->w + q * s->sw + j) * s->c + c;
          if (!i && !j) best = in, place[at] = 0;
          if (x[in] > x[best] || isnan(x[in])) best = in, place[at] = (uint16_t)(i * s->fw + j);
          mean[at] += (double)x[in] / (double)window;
          shares[in] += (double)dy[at] / (double)window;
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
      end();
    }
}

static void check_pool(void) {
  static const int channels[] = {1, 3, 4, 7, 8, 15, 16, 17, 32, 33};
  // Sizes, windows and strides around each other: remainders, overlaps, gaps.
  for (int size = 1; size <= 6; size++)
    for (int window = 1; window <= size && window <= 4; window++)
      for (int stride = 1; stride <= 4; stride++) {
        int c = channels[(size + 2 * window + 3 * stride) % COUNT(channels)];
        int out = (size - window) / stride + 1;
        ck_pool_shape s = {2, size, size, c, window, window, stride, stride, out, out};
        check_pool_shape(&s, 0, 0);
        check_pool_shape(&s, 1, 0);
        check_pool_shape(&s, 1, 1);
      }
  FOR(i, COUNT(channels)) {
    ck_pool_shape pairs = {2, 7, 5, channels[i], 2, 2, 2, 2, 3, 2};
    ck_pool_shape uneven = {1, 9, 11, channels[i], 3, 2, 1, 3, 7, 4};
    ck_pool_shape large = {1, 20, 20, channels[i], 17, 16, 2, 3, 2, 2};  // places above 255
    check_pool_shape(&pairs, 1, 0);
    check_pool_shape(&pairs, 0, 1);
    check_pool_shape(&uneven, 0, 0);
    check_pool_shape(&uneven, 0, 1);
    check_pool_shape(&large, 0, 0);
    ck_pool_shape wide = {1, 3, 9, 4 * channels[i] + 1, 2, 3, 2, 3, 1, 3};
    check_pool_shape(&wide, 0, 0);
  }
}

// ---- Matrix product and dense layer -------------------------------------------------------------

static const int product_sizes[][3] = {
    {1, 1, 1},   {1, 17, 3},  {17, 1, 3},   {3, 5, 1},    {4, 8, 16},    {6, 16, 7},
    {8, 8, 8},   {14, 32, 9}, {12, 8, 5},   {15, 33, 10}, {13, 31, 255}, {28, 64, 66},
    {9, 7, 64},  {5, 9, 513}, {2, 3, 511},  {7, 4, 512},  {100, 10, 31}, {197, 33, 5},
    {113, 2, 4}, {7, 530, 3}, {3, 1027, 6}, {5, 6, 1030}};

/// An A (rows, lda) that is written part by part, and the three floats behind that may be written.
typedef struct packed_matrix {
  const float *a;
  ptrdiff_t lda;
} packed_matrix;

static void pack(const void *matrix, ptrdiff_t row, ptrdiff_t rows, ptrdiff_t from, ptrdiff_t count,
                 float *out) {
  const packed_matrix *m = matrix;
  FOR(e, 3) out[rows * count + e] = NAN;
  FOR(p, count) FOR(i, rows) out[p * rows + i] = m->a[(row + i) * m->lda + from + p];
}

static void check_gemm(void) {
  FOR(flags, 8) FOR(i, COUNT(product_sizes)) {
    ptrdiff_t m = product_sizes[i][0], n = product_sizes[i][1], k = product_sizes[i][2];
    int turn_a = flags & CK_TRANSPOSE_A, turn_b = flags & CK_TRANSPOSE_B;
    // Rows longer than they need be, on every other size: what lies between them must stay.
    int gap = i % 2;
    ptrdiff_t lda = (turn_a ? m : k) + 3 * gap, ldb = (turn_b ? k : n) + gap, ldc = n + 2 * gap;
    begin("gemm", NULL, "%td×%td×%td%s%s%s, rows %td, %td and %td apart", m, n, k,
          turn_a ? ", A transposed" : "", turn_b ? ", B transposed" : "",
          flags & CK_ACCUMULATE ? ", added" : "", lda, ldb, ldc);
    const float *a = values((turn_a ? k : m) * lda, 1), *b = values((turn_b ? n : k) * ldb, 2);
    float *whole = values(m * ldc, 3), *pieces = copy(whole, m * ldc);
    float *workspace = floats(ck_kernels()->gemm_workspace);
    double *expected = sums(m * ldc);
    FOR(e, m * ldc) expected[e] = whole[e];
    FOR(r, m) FOR(j, n) {
      double sum = flags & CK_ACCUMULATE ? whole[r * ldc + j] : 0;
      FOR(p, k)
      sum += (double)(turn_a ? a[p * lda + r] : a[r * lda + p]) *
             (turn_b ? b[j * ldb + p] : b[p * ldb + j]);
      expected[r * ldc + j] = sum;
    }
    ck_kernels()->gemm(flags, m, n, k, a, lda, b, ldb, whole, ldc, workspace);
    compare(whole, expected, m * ldc, rounding(k));
    // C in six pieces.
    ptrdiff_t rows[] = {0, m / 3, m}, columns[] = {0, n / 5, n / 2, n};
    FOR(u, 2) FOR(v, 3) {
      ptrdiff_t r = rows[u], j = columns[v], height = rows[u + 1] - r, width = columns[v + 1] - j;
      if (height && width)
        ck_kernels()->gemm(flags, height, width, k, a + (turn_a ? r : r * lda), lda,
                           b + (turn_b ? j * ldb : j), ldb, pieces + r * ldc + j, ldc, workspace);
    }
    same("C computed in pieces", pieces, whole, m * ldc);
    end();
    if (turn_a) continue;
    begin("gemm_packing", NULL, "%td×%td×%td%s%s", m, n, k, turn_b ? ", B transposed" : "",
          flags & CK_ACCUMULATE ? ", added" : "");
    const float *left = values(m * lda, 1), *right = values((turn_b ? n : k) * ldb, 2);
    float *direct = values(m * ldc, 3), *indirect = copy(direct, m * ldc);
    packed_matrix matrix = {left, lda};
    workspace = floats(ck_kernels()->gemm_workspace);
    ck_kernels()->gemm((int)flags, m, n, k, left, lda, right, ldb, direct, ldc, workspace);
    ck_kernels()->gemm_packing((int)flags, m, n, k, pack, &matrix, right, ldb, indirect, ldc,
                               workspace);
    same("against ck_gemm", indirect, direct, m * ldc);
    end();
  }
}

static void check_dense(void) {
  FOR(relu, 2) FOR(i, COUNT(product_sizes) + 1) {
    const int tall[] = {6, 7, 2051}, *size = i < COUNT(product_sizes) ? product_sizes[i] : tall;
    ptrdiff_t m = size[0], n = size[1], k = size[2], ldy = n + 3 * (i % 2);
    begin("dense_forward", NULL, "%td×%td×%td%s, rows %td apart", m, n, k, relu ? ", ReLU" : "",
          ldy);
    const float *x = values(m * k, 1), *w = values(n * k, 2), *bias = values(n, 3);
    float *whole = values(m * ldy, 5), *pieces = copy(whole, m * ldy);
    double *expected = sums(m * ldy);
    FOR(e, m * ldy) expected[e] = whole[e];
    FOR(r, m) FOR(j, n) {
      double sum = bias[j];
      FOR(p, k) sum += (double)x[r * k + p] * w[j * k + p];
      expected[r * ldy + j] = relu && sum < 0 ? 0 : sum;
    }
    ck_kernels()->dense_forward(m, n, k, x, w, bias, relu, whole, ldy);
    compare(whole, expected, m * ldy, rounding(k + 1));
    ptrdiff_t rows[] = {0, m / 3, m}, columns[] = {0, n / 5, n / 2, n};
    FOR(u, 2) FOR(v, 3) {
      ptrdiff_t r = rows[u], j = columns[v], height = rows[u + 1] - r, width = columns[v + 1] - j;
      if (height && width)
        ck_kernels()->dense_forward(height, width, k, x + r * k, w + j * k, bias + j, relu,
                                    pieces + r * ldy + j, ldy);
    }
    same("y computed in pieces", pieces, whole, m * ldy);
    end();
  }
}

// ---- Rows and elements --------------------------------------------------------------------------

/// One element of a function of two numbers, for what goes through element by element.
typedef double element_fn(double a, double b);
static double relu(double x, double unused) { return (void)unused, x < 0 ? 0 : x; }
static double relu_slope(double y, double dy) { return y <= 0 ? 0 : dy; }

static const float special[] = {0.0f, -0.0f, NAN, INFINITY, -INFINITY, 90, -90, 1e-40f, -1e-40f};

static void check_elementwise(const char *name, element_fn *definition,
                              void (*one)(ptrdiff_t, const float *, float *),
                              void (*two)(ptrdiff_t, const float *, const float *, float *),
                              ptrdiff_t n, double bound) {
  FOR(in_place, 2) {
    begin(name, NULL, "%td%s", n, in_place ? ", in place" : "");
    float *a = values(n, 1), *b = values(n, 2);
    FOR(i, COUNT(special)) if (n > 2 * i + 1) a[2 * i + 1] = special[i];
    double *expected = sums(n);
    FOR(i, n) expected[i] = definition(a[i], b[i]);
    float *out = !in_place ? floats(n) : one ? a : b;
    if (one)
      one(n, a, out);
    else
      two(n, a, b, out);
    compare(out, expected, n, bound);
    end();
  }
}

static void check_elements(ptrdiff_t n) {
  const double ulps = 0x1p-22;
  check_elementwise("relu_forward", relu, ck_kernels()->relu_forward, NULL, n, 0);
  check_elementwise("relu_backward", relu_slope, NULL, ck_kernels()->relu_backward, n, 0);

  begin("relu_places", NULL, "%td", n);
  float *y = values(n, 1);
  uint16_t *place = places(n), *kept = places(n);
  if (n > 2) y[1] = 0, y[2] = NAN;
  FOR(i, n) place[i] = (uint16_t)(i * 7), kept[i] = y[i] <= 0 ? UINT16_MAX : place[i];
  ck_kernels()->relu_places(n, y, place);
  compare_places(place, kept, n);
  end();

  begin("add", NULL, "%td", n);
  float *x = values(n, 1);
  y = values(n, 2);
  double *expected = sums(n);
  FOR(i, n) expected[i] = (float)(x[i] + y[i]);
  ck_kernels()->add(n, x, y);
  compare(y, expected, n, 0);
  end();

  begin("sum", NULL, "%td", n);
  float *a = values(n, 1), *b = values(n, 2);
  y = floats(n), expected = sums(n);
  FOR(i, n) expected[i] = (float)(a[i] + b[i]);
  ck_kernels()->sum(n, a, b, y);
  compare(y, expected, n, 0);
  end();

  begin("dropout", NULL, "%td", n);
  x = values(n, 1), y = floats(n);
  float *parts = floats(n);
  ck_kernels()->dropout(n, 99, 7, 1u << 31, 2, x, y);
  FOR(i, n) ck_kernels()->dropout(1, 99, (uint32_t)(7 + i), 1u << 31, 2, x + i, parts + i);
  same("one by one", parts, y, n);
  FOR(i, n) if (y[i] != 0 && y[i] != 2 * x[i]) wrong("element %td is %g of %g", i, y[i], x[i]);
  ck_kernels()->dropout(n, 99, 7, 1u << 31, 2, y, parts);
  FOR(i, n) if (y[i] == 0) {
    y[i] = NAN;
    ck_kernels()->dropout(n, 99, 7, 1u << 31, 2, y, parts);
    if (!isnan(parts[i])) wrong("a NaN was dropped at %td", i);
    break;
  }
  ck_kernels()->dropout(n, 99, 7, 0, 1, x, x);
  ck_kernels()->dropout(n, 98, 7, 0, 1, x, parts);
  same("nothing dropped", parts, x, n);
  end();

  FOR(how, 4) {
    const char *name = how < 2 ? "sgd" : how == 2 ? "rmsprop" : "adam";
    begin(name, NULL, "%td%s", n, how == 1 ? ", Nesterov" : "");
    ck_update u = {.rate = 0.1f,
                   .scale = 0.5f,
                   .l2 = 0.01f,
                   .l1 = 0.02f,
                   .keep = 0.99f,
                   .momentum = 0.9f,
                   .beta2 = 0.99f,
                   .epsilon = 0.25f,
                   .correction1 = 0.19f,
                   .correction2 = 0.02f,
                   .nesterov = how == 1};
    float *gradient = values(n, 1), *first = values(n, 2), *second = values(n, 3);
    float *weight = values(n, 4);
    double *firsts = sums(n), *seconds = sums(n), *weights = sums(n);
    FOR(i, n) {
      second[i] *= second[i];
      double w = weight[i], m = first[i], v = second[i];
      double g = u.scale * (double)gradient[i] + u.l2 * w + u.l1 * ((w > 0) - (w < 0));
      if (how >= 2) v = u.beta2 * v + (1 - (double)u.beta2) * g * g;
      m = u.momentum * m + (how == 3   ? (1 - (double)u.momentum) * g
                            : how == 2 ? g / (sqrt(v) + u.epsilon)
                                       : g);
      if (how < 2) w -= u.rate * (how == 1 ? g + u.momentum * m : m);
      if (how == 2) w -= u.rate * m;
      if (how == 3)
        w = u.keep * w - u.rate * (m / u.correction1) / (sqrt(v / u.correction2) + u.epsilon);
      firsts[i] = m, seconds[i] = v, weights[i] = w;
    }
    if (how < 2) ck_kernels()->sgd(n, &u, gradient, first, weight);
    if (how == 2) ck_kernels()->rmsprop(n, &u, gradient, first, second, weight);
    if (how == 3) ck_kernels()->adam(n, &u, gradient, first, second, weight);
    compare(first, firsts, n, 4 * 0x1p-22);
    compare(second, seconds, n, 0x1p-22);
    compare(weight, weights, n, 4 * 0x1p-22);
    end();
  }

  begin("average", NULL, "%td", n);
  x = values(n, 1), y = values(n, 2), expected = sums(n);
  FOR(i, n) expected[i] = y[i] + 0.25 * ((double)x[i] - y[i]);
  ck_kernels()->average(n, 0.25f, x, y);
  compare(y, expected, n, 0x1p-23);
  double total = ck_sum_of_squares(n, x), right = 0;
  FOR(i, n) right += (double)x[i] * x[i];
  if (fabs(total - right) > 1e-12 * right) wrong("squares sum to %g, expected %g", total, right);
  end();

  begin("scale_bytes", NULL, "%td", n);
  uint8_t *bytes = block(n, bare ? 0 : ZONE);
  FOR(i, n) bytes[i] = (uint8_t)(255 - i * 37);
  y = floats(n), expected = sums(n);
  FOR(i, n) expected[i] = bytes[i] / 255.0;
  ck_kernels()->scale_bytes(n, bytes, 1 / 255.0f, y);
  compare(y, expected, n, ulps);
  end();
}

/// Value and slope at x, in double precision and without loss of digits, the limits at infinity.
typedef struct activation {
  double y, slope;
} activation;
static double below(double x) { return erfc(-x * M_SQRT1_2) / 2; }  // of a normal distribution
static activation sigmoid(double x) {
  double y = 1 / (1 + exp(-x));
  return (activation){y, y / (1 + exp(x))};
}
static activation hyperbolic(double x) { return (activation){tanh(x), pow(1 / cosh(x), 2)}; }
static activation elu(double x) { return (activation){x > 0 ? x : expm1(x), x > 0 ? 1 : exp(x)}; }
static activation softplus(double x) {
  return (activation){fmax(x, 0) + log1p(exp(-fabs(x))), 1 / (1 + exp(-x))};
}
static activation silu(double x) {
  double y = sigmoid(x).y, other = sigmoid(-x).y;
  return isinf(x) ? (activation){fmax(x, 0), x > 0} : (activation){x * y, y + x * y * other};
}
static activation gelu(double x) {
  double density = exp(-x * x / 2) / sqrt(2 * M_PI);
  return isinf(x) ? (activation){fmax(x, 0), x > 0}
                  : (activation){x * below(x), below(x) + x * density};
}
static const struct {
  const char *name;
  activation (*definition)(double);
  double forward, backward;  // how many times 2^-23 of its size a result may be off by
} activations[] = {{"sigmoid", sigmoid, 3, 2},   {"tanh", hyperbolic, 4, 3}, {"elu", elu, 2, 1},
                   {"softplus", softplus, 4, 4}, {"silu", silu, 4, 4},       {"gelu", gelu, 5, 4}};

/// Both passes of an activation at numbers of every size, judged relative to the result. A
/// gradient is judged as a function of what it is computed from: of y as it was rounded, or of x,
/// where it is a sum that may cancel and the size is that of the gradient that arrives.
static void check_activation(ptrdiff_t index, ptrdiff_t n, ptrdiff_t from) {
  const ck_activation *f = &ck_kernels()->activations[index];
  FOR(pass, 2) FOR(in_place, 2) {
    char name[40];
    snprintf(name, sizeof name, "%s_%s", f->name, pass ? "backward" : "forward");
    begin(name, NULL, "%td from %td%s", n, from, in_place ? ", in place" : "");
    if (strcmp(f->name, activations[index].name)) wrong("not the next in the list of definitions");
    float *x = floats(n), *y = floats(n), *dy = values(n, 4), *out;
    FOR(i, n) {
      // A sixteenth of an octave further each time, from 2^-20 to 2^9, up and down in turns.
      double size = exp2((double)((from + i) % 928) / 32 - 20) * (1 + value(i, 3) / 8);
      x[i] = (float)((from + i) % 2 ? -size : size);
    }
    FOR(i, COUNT(special)) if (from == 0 && n > 3 * i) x[3 * i] = special[i];
    f->forward(n, x, y);
    double ulps = pass ? activations[index].backward : activations[index].forward;
    if (!pass) {
      out = in_place ? copy(x, n) : floats(n);
      f->forward(n, in_place ? out : x, out);
    } else {
      out = in_place ? copy(dy, n) : floats(n);
      f->backward(n, f->reads_x ? x : y, in_place ? out : dy, out);
    }
    FOR(i, n) {
      double unit = 0x1p-23, expected = activations[index].definition(x[i]).y;
      if (pass) {
        // The slope where y is what it was rounded to.
        double v = y[i], slope = activations[index].definition(x[i]).slope;
        if (!f->reads_x && isfinite(v))
          slope = !strcmp(f->name, "sigmoid")    ? v * (1 - v)
                  : !strcmp(f->name, "tanh")     ? (1 - v) * (1 + v)
                  : !strcmp(f->name, "softplus") ? -expm1(-v)
                                                 : (v > 0 ? 1 : 1 + v);
        expected = dy[i] * slope;
        if (f->reads_x) unit = fmax(unit * fabs(dy[i]) / fmax(fabs(expected), 0x1p-126), unit);
      }
      compare(out + i, &expected, 1,
              ulps * unit * fabs(expected) + 0x1p-126 * fmin(fmax(1, fabs(x[i])), 256));
    }
    end();
  }
}

static void check_leaky_relu(ptrdiff_t n) {
  const float slope = 0.2f;
  FOR(pass, 2) {
    begin(pass ? "leaky_relu_backward" : "leaky_relu_forward", NULL, "%td", n);
    float *x = values(n, 1), *dy = values(n, 2);
    FOR(i, COUNT(special)) if (n > 2 * i + 1) x[2 * i + 1] = special[i];
    double *expected = sums(n);
    FOR(i, n)
    expected[i] = pass ? (x[i] <= 0 ? (double)slope * dy[i] : dy[i])
                       : (x[i] < 0 ? (double)slope * x[i] : x[i]);
    if (pass)
      ck_kernels()->leaky_relu_backward(n, slope, x, dy, dy);
    else
      ck_kernels()->leaky_relu_forward(n, slope, x, x);
    compare(pass ? dy : x, expected, n, 0x1p-17);  // of 90 at most
    end();
  }
}

static void check_rows(ptrdiff_t rows, ptrdiff_t f) {
  ptrdiff_t n = rows * f;
  FOR(with_bias, 2) FOR(with_relu, 2) {
    begin("bias_add", NULL, "%td×%td%s%s", rows, f, with_bias ? ", bias" : "",
          with_relu ? ", ReLU" : "");
    float *y = values(n, 1), *bias = values(f, 2);
    double *expected = sums(n);
    FOR(i, n) {
      float sum = y[i] + (with_bias ? bias[i % f] : 0);
      expected[i] = with_relu && sum < 0 ? 0 : sum;
    }
    ck_kernels()->bias_add(rows, f, with_bias ? bias : NULL, (int)with_relu, y);
    compare(y, expected, n, 0);
    end();
  }
  begin("column_sum", NULL, "%td×%td", rows, f);
  float *y = values(n, 1), *sum = floats(f);
  double *expected = sums(f);
  FOR(i, n) expected[i % f] += y[i];
  ck_kernels()->column_sum(rows, f, y, sum);
  compare(sum, expected, f, 4 * rounding(rows));
  end();
}

static void check_softmax(ptrdiff_t rows, ptrdiff_t f) {
  ptrdiff_t n = rows * f;
  const double bound = rounding(f);
  FOR(in_place, 2) {
    float *logits = values(n, 1);
    // Every other row far apart: exp overflows where the largest isn't subtracted first.
    FOR(i, n) logits[i] *= (i / f) % 2 ? 8 : 4000;
    double *p = sums(n), *gradient = sums(n), *losses = sums(rows), *slopes = sums(n);
    float *dy = values(n, 2), *y = in_place ? copy(logits, n) : floats(n);
    float *dlogits = floats(n), *loss = floats(rows);
    int32_t *labels = block(sizeof(int32_t) * rows, bare ? 0 : ZONE);
    int32_t *is_wrong = block(sizeof(int32_t) * rows, bare ? 0 : ZONE);
    uint16_t *wrong_rows = places(rows), *found_rows = places(rows);
    FOR(r, rows) {
      const float *x = logits + r * f;
      ptrdiff_t best = 0;
      double total = 0, dot = 0;
      labels[r] = (int32_t)((r * 7) % f);
      FOR(i, f) if (x[i] > x[best]) best = i;
      FOR(i, f) total += exp((double)x[i] - x[best]);
      FOR(i, f) p[r * f + i] = exp((double)x[i] - x[best]) / total;
      losses[r] = log(total) + x[best] - x[labels[r]];
      wrong_rows[r] = best != labels[r];
      FOR(i, f) gradient[r * f + i] = 0.25 * (p[r * f + i] - (i == labels[r]));
      FOR(i, f) dot += p[r * f + i] * dy[r * f + i];
      FOR(i, f) slopes[r * f + i] = p[r * f + i] * (dy[r * f + i] - dot);
    }
    const char *how = in_place ? ", in place" : "";
    begin("softmax_forward", NULL, "%td×%td%s", rows, f, how);
    ck_softmax_forward(rows, f, in_place ? y : logits, y);
    compare(y, p, n, bound);

    begin("softmax_backward", NULL, "%td×%td%s", rows, f, how);
    float *dx = in_place ? dy : floats(n);
    ck_softmax_backward(rows, f, y, dy, dx);
    compare(dx, slopes, n, bound);

    begin("softmax_cross_entropy", NULL, "%td×%td%s", rows, f, how);
    if (in_place) memcpy(y, logits, sizeof(float) * n);
    ck_softmax_cross_entropy(rows, f, in_place ? y : logits, labels, 0, 0.25f, y, dlogits, loss,
                             is_wrong);
    compare(y, p, n, bound);
    compare(dlogits, gradient, n, bound);
    FOR(r, rows) found_rows[r] = (uint16_t)is_wrong[r];
    compare_places(found_rows, wrong_rows, rows);
    compare(loss, losses, rows, 4000 * 0x1p-23);

    begin("softmax_cross_entropy", NULL, "%td×%td%s, smoothing", rows, f, how);
    if (in_place) memcpy(y, logits, sizeof(float) * n);
    FOR(r, rows) {
      const float *x = logits + r * f;
      double target = 0;
      FOR(i, f) {
        double t = (i == labels[r] ? 0.75 : 0) + 0.25 / (double)f;
        gradient[r * f + i] = 0.25 * (p[r * f + i] - t);
        target += t * ((double)x[i] - x[labels[r]]);
      }
      losses[r] -= target;
    }
    ck_softmax_cross_entropy(rows, f, in_place ? y : logits, labels, 0.25f, 0.25f, y, dlogits, loss,
                             is_wrong);
    compare(dlogits, gradient, n, bound);
    compare(loss, losses, rows, 4000 * 0x1p-21);

    begin("squared_error", NULL, "%td×%td%s", rows, f, how);
    FOR(r, rows) {
      losses[r] = 0;
      FOR(i, f) {
        double off = (double)y[r * f + i] - (i == labels[r]);
        losses[r] += off * off / (double)f;
        gradient[r * f + i] = 2 * 0.25 / (double)f * off;
      }
    }
    ck_squared_error(rows, f, y, labels, 0.25f, dlogits, loss, is_wrong);
    compare(dlogits, gradient, n, bound);
    compare(loss, losses, rows, bound);
    end();
  }
}

static void check_normalization(ptrdiff_t rows, ptrdiff_t c) {
  ptrdiff_t n = rows * c;
  float *x = values(n, 1), *dy = values(n, 2), *mean = values(c, 3), *scale = values(c, 4);
  float *shift = values(c, 5), *a = values(c, 6), *b = values(c, 7);
  const double bound = 4 * rounding(rows);
  begin("moments", NULL, "%td×%td", rows, c);
  float *sum = floats(c), *square = floats(c);
  double *first = sums(c), *second = sums(c);
  FOR(i, n) first[i % c] += x[i] / (double)rows;
  FOR(i, n) second[i % c] += (x[i] - first[i % c]) * (x[i] - first[i % c]);
  ck_kernels()->moments(rows, c, x, sum, square);
  compare(sum, first, c, rounding(1));
  compare(square, second, c, bound);
  FOR(relu, 2) {
    const char *how = relu ? ", ReLU" : "";
    begin("scale_shift", NULL, "%td×%td%s", rows, c, how);
    float *y = copy(x, n);
    double *expected = sums(n);
    FOR(i, n) {
      expected[i] = (double)x[i] * scale[i % c] + shift[i % c];
      if (relu && expected[i] < 0) expected[i] = 0;
    }
    ck_kernels()->scale_shift(rows, c, y, scale, shift, (int)relu, y);
    compare(y, expected, n, 0x1p-23);

    begin("normalization_sums", NULL, "%td×%td%s", rows, c, how);
    first = sums(c), second = sums(c), expected = sums(n);
    FOR(i, n) {
      int j = (int)(i % c);
      double g = relu && (double)x[i] * scale[j] + shift[j] <= 0 ? 0 : dy[i];
      first[j] += g, second[j] += g * (x[i] - mean[j]);
      expected[i] = scale[j] * (g - a[j] - ((double)x[i] - mean[j]) * b[j]);
    }
    sum = floats(c), square = floats(c);
    ck_kernels()->normalization_sums(rows, c, x, dy, mean, scale, shift, (int)relu, sum, square);
    compare(sum, first, c, bound);
    compare(square, second, c, bound);

    begin("normalization_gradient", NULL, "%td×%td%s", rows, c, how);
    float *dx = copy(dy, n);
    ck_kernels()->normalization_gradient(rows, c, x, dx, mean, scale, shift, (int)relu, a, b, dx);
    compare(dx, expected, n, 0x1p-22);
  }

  begin("layer_norm_forward", NULL, "%td×%td", rows, c);
  float *y = floats(n), *dx = floats(n), *dgain = floats(c), *dbias = floats(c);
  double *expected = sums(n), *slopes = sums(n), *gains = sums(c), *biases = sums(c);
  FOR(j, c) dgain[j] = dbias[j] = 0;
  FOR(r, rows) {
    const float *row = x + r * c, *up = dy + r * c;
    double average = 0, variance = 0, total = 0, product = 0;
    FOR(j, c) average += row[j] / (double)c;
    FOR(j, c) variance += (row[j] - average) * (row[j] - average) / (double)c;
    double inverse = 1 / sqrt(variance + 0.01);
    FOR(j, c) {
      double unit = (row[j] - average) * inverse;
      expected[r * c + j] = unit * scale[j] + shift[j];
      gains[j] += up[j] * unit, biases[j] += up[j];
      total += up[j] * scale[j] / (double)c, product += up[j] * scale[j] * unit / (double)c;
    }
    FOR(j, c)
    slopes[r * c + j] =
        inverse * (up[j] * scale[j] - total - (row[j] - average) * inverse * product);
  }
  ck_kernels()->layer_norm_forward(rows, c, x, scale, shift, 0.01f, y);
  compare(y, expected, n, 40 * rounding(c));

  begin("layer_norm_backward", NULL, "%td×%td", rows, c);
  ck_kernels()->layer_norm_backward(rows, c, x, scale, 0.01f, dy, dx, dgain, dbias);
  compare(dx, slopes, n, 400 * rounding(c));
  compare(dgain, gains, c, 40 * rounding(rows + c));
  compare(dbias, biases, c, bound);
  end();
}

// ---- Long sums ----------------------------------------------------------------------------------

static const double unit = 0x1p-24;  // the rounding of one operation
static double most(double a, double b) { return a > b ? a : b; }

/// Values in [0.5, 1.5): what each addition loses adds up.
static float *positive(size_t count, unsigned salt) {
  float *x = values(count, salt);
  FOR(i, count) x[i] += 1;
  return x;
}

/// What CKernels.h says of statistics, with one pixel unlike the rest, as in the corner of an image
/// with zeros around it, and with values that lie far from 0.
static void check_long_moments(ptrdiff_t rows, ptrdiff_t c, float first, float offset) {
  begin("moments", NULL, "%td×%td, first pixel %g, all others about %g", rows, c, first, offset);
  float *x = values(rows * c, 1), *mean = floats(c), *square = floats(c);
  FOR(i, rows * c) x[i] = i < c ? first : x[i] + offset;
  double *means = sums(c), *squares = sums(c), *sizes = sums(c);
  FOR(i, rows * c) means[i % c] += x[i] / (double)rows, sizes[i % c] += fabs(x[i]) / (double)rows;
  FOR(i, rows * c) squares[i % c] += (x[i] - means[i % c]) * (x[i] - means[i % c]);
  ck_kernels()->moments(rows, c, x, mean, square);
  FOR(j, c) {
    double off = 260 * unit * sizes[j];
    compare(mean + j, means + j, 1, off);
    compare(square + j, squares + j, 1, 264 * unit * squares[j] + (double)rows * off * off);
  }
  end();
}

static void check_long_sums(ptrdiff_t size) {
  ptrdiff_t pixels = size * size, n = bare ? 20011 : 1000003;
  for (int c = 1; c <= 33; c += 16) {
    check_long_moments(pixels, c, 4, 0);
    check_long_moments(pixels, c, 0, 100);
  }
  check_long_moments(n, 1, -7, 3);
  check_long_moments(n, 16, -7, 3);

  FOR(wide, 2) {
    ptrdiff_t c = wide ? 35 : 3, rows = wide ? pixels : n;
    begin("column_sum", NULL, "%td×%td, all the same", rows, c);
    float *y = floats(rows * c), *sum = floats(c);
    double *expected = sums(c);
    FOR(i, rows * c) y[i] = 0.1f;  // what additions lose is the same again and again
    FOR(i, rows * c) expected[i % c] += y[i];
    ck_kernels()->column_sum(rows, c, y, sum);
    FOR(j, c) compare(sum + j, expected + j, 1, (8192 + (double)rows / 8192) * unit * expected[j]);
    end();

    begin("normalization_sums", NULL, "%td×%td, all positive", rows, c);
    float *x = positive(rows * c, 1), *dy = positive(rows * c, 2), *mean = floats(c);
    float *scale = positive(c, 3), *shift = positive(c, 4), *product = floats(c);
    double *second = sums(c);
    sum = floats(c), expected = sums(c);
    FOR(j, c) mean[j] = 0;
    FOR(i, rows * c) expected[i % c] += dy[i], second[i % c] += (double)dy[i] * x[i];
    ck_kernels()->normalization_sums(rows, c, x, dy, mean, scale, shift, 1, sum, product);
    FOR(j, c) {
      compare(sum + j, expected + j, 1, 260 * unit * expected[j]);
      compare(product + j, second + j, 1, 264 * unit * second[j]);
    }
    end();
  }

  // Global average pooling.
  const ck_pool_variant *pool;
  for (size_t v = 0; (pool = ck_pool_variant_at(v)); v++)
    for (int c = 1; c <= 33; c += 16) {
      int32_t edge = (int32_t)size;
      ck_pool_shape s = {1, edge, edge, c, edge, edge, edge, edge, 1, 1};
      begin("pool_avg_forward", pool->name, "%td×%td×%d at once, all positive", size, size, c);
      float *x = positive(pixels * c, 1), *y = floats(c);
      double *expected = sums(c);
      FOR(i, pixels * c) expected[i % c] += x[i] / (double)pixels;
      pool->avg_forward(&s, x, y);
      compare(y, expected, c, 68 * unit * 1.5);
      end();
    }

  // The weight gradient of a large image, by each variant; also where rows alone are too long.
  const ck_conv_variant *conv;
  for (size_t v = 0; (conv = ck_conv_variant_at(v)); v++) FOR(how, 4) {
      int32_t edge = (int32_t)size, padded = how == 1, far = how == 2 ? 2 : 1;
      ck_conv_shape s = {1, edge, edge, 2, 3, 3, 3, 1, 1, padded, padded, 0, 0, far, far, 1};
      if (how == 3) s.n = 5, s.h = edge / 4, s.w = edge / 4, s.c = 3, s.groups = 3;
      s.oh = s.h + 2 * padded - 2 * far, s.ow = s.w + 2 * padded - 2 * far;
      begin("conv_weight_gradient", conv->name, "%d×%d×%d×%d, padded %d, dilated %d, alike", s.n,
            s.h, s.w, s.c, padded, far);
      ptrdiff_t inputs = (ptrdiff_t)s.n * s.h * s.w * s.c, weights = 9 * s.c / s.groups * s.f;
      ptrdiff_t sum = (ptrdiff_t)s.n * s.oh * s.ow;
      float *x = floats(inputs), *dy = floats(sum * s.f), *dw = floats(weights);
      FOR(i, inputs) x[i] = 1;
      FOR(i, sum * s.f) dy[i] = 0.1f;
      float *workspace = floats(ck_conv_workspace(conv, &s, CK_WEIGHT_GRADIENT));
      double *expected = sums(weights);
      convolve(&s, CK_WEIGHT_GRADIENT, x, NULL, dy, expected);
      ck_conv_weight_gradient(conv, &s, x, dy, dw, workspace);
      FOR(i, weights)
      compare(dw + i, expected + i, 1, (8194 + (double)sum / 8192) * unit * expected[i]);
      end();
    }

  begin("gemm", NULL, "2×3×%td, all positive", n);
  float *a = positive(2 * n, 1), *b = positive(3 * n, 2), *c = floats(6), *bias = positive(3, 3);
  double *expected = sums(6);
  FOR(i, 2) FOR(j, 3) FOR(k, n) expected[i * 3 + j] += (double)a[i * n + k] * b[j * n + k];
  ck_kernels()->gemm(CK_TRANSPOSE_B, 2, 3, n, a, n, b, n, c, 3,
                     floats(ck_kernels()->gemm_workspace));
  FOR(e, 6) compare(c + e, expected + e, 1, (514 + (double)n / 512) * unit * expected[e]);
  begin("dense_forward", NULL, "2×3×%td, all positive", n);
  ck_kernels()->dense_forward(2, 3, n, a, b, bias, 0, c, 3);
  FOR(e, 6) {
    expected[e] += bias[e % 3];
    compare(c + e, expected + e, 1, (264 + (double)n / 1024) * unit * expected[e]);
  }
  end();

  begin("softmax_forward", NULL, "1×%td", n);
  float *x = positive(n, 1), *y = floats(n), *dy = positive(n, 2), *dx = floats(n);
  double *p = sums(n), *slopes = sums(n), total = 0, dot = 0, loss = 0;
  FOR(i, n) total += exp(x[i]);
  FOR(i, n) p[i] = exp(x[i]) / total, dot += p[i] * dy[i];
  FOR(i, n) slopes[i] = p[i] * (dy[i] - dot);
  ck_softmax_forward(1, n, x, y);
  compare(y, p, n, 264 * unit * exp(1.5) / total);
  begin("softmax_backward", NULL, "1×%td", n);
  ck_softmax_backward(1, n, y, dy, dx);
  compare(dx, slopes, n, 2 * 264 * unit * 2 * exp(1.5) / total);
  int32_t label = 7, is_wrong;
  float found;
  FOR(smoothed, 2) {
    begin("softmax_cross_entropy", NULL, "1×%td%s", n, smoothed ? ", smoothed" : "");
    loss = log(total);
    FOR(i, n) loss -= ((smoothed ? 0.75 : 1) * (i == label) + (smoothed ? 0.25 / n : 0)) * x[i];
    ck_softmax_cross_entropy(1, n, x, &label, smoothed ? 0.25f : 0, 1, y, NULL, &found, &is_wrong);
    compare(&found, &loss, 1, 264 * unit * loss);
  }
  begin("squared_error", NULL, "1×%td", n);
  loss = 0;
  FOR(i, n) loss += (x[i] - (double)(i == label)) * (x[i] - (double)(i == label)) / (double)n;
  ck_squared_error(1, n, x, &label, 1, NULL, &found, &is_wrong);
  compare(&found, &loss, 1, 4 * unit * loss);
  end();

  // Large logits that are nearly alike: log(1 + e^-4).
  begin("softmax_cross_entropy", NULL, "logits of a million");
  float logits[2] = {1e6f, 1e6f - 4}, probabilities[2];
  label = 0, loss = log1p(exp(-4));
  ck_softmax_cross_entropy(1, 2, logits, &label, 0, 1, probabilities, NULL, &found, &is_wrong);
  compare(&found, &loss, 1, 4 * unit);
  end();

  FOR(flat, 2) {
    ptrdiff_t rows = flat ? 2 : pixels, columns = flat ? n : 5;
    begin("layer_norm_forward", NULL, "%td×%td", rows, columns);
    ptrdiff_t all = rows * columns;
    float *in = values(all, 1), *up = positive(all, 2), *gain = positive(columns, 3);
    float *out = floats(all), *back = floats(all), *dgain = floats(columns),
          *dbias = floats(columns);
    double *right = sums(all), *slope = sums(all), *gains = sums(columns), *biases = sums(columns);
    double *sizes = sums(columns);
    FOR(j, columns) dgain[j] = dbias[j] = 0;
    FOR(r, rows) {
      in[r * columns] += 3;  // the first is unlike the others
      const float *row = in + r * columns, *upstream = up + r * columns;
      double mean = 0, variance = 0, even = 0, product = 0;
      FOR(j, columns) mean += row[j] / (double)columns;
      FOR(j, columns) variance += (row[j] - mean) * (row[j] - mean) / (double)columns;
      double scale = 1 / sqrt(variance + 0.01);
      FOR(j, columns) {
        double off = (row[j] - mean) * scale;
        right[r * columns + j] = off * gain[j] + gain[j];
        gains[j] += upstream[j] * off, biases[j] += upstream[j];
        sizes[j] += fabs(upstream[j] * off);
        even += upstream[j] * gain[j] / (double)columns;
        product += upstream[j] * gain[j] * off / (double)columns;
      }
      FOR(j, columns) {
        double off = (row[j] - mean) * scale;
        slope[r * columns + j] = scale * (upstream[j] * gain[j] - even - off * product);
      }
    }
    ck_kernels()->layer_norm_forward(rows, columns, in, gain, gain, 0.01f, out);
    const double bound = 300 * unit * 40;  // of what stands in a row, at most about 40
    compare(out, right, all, bound);
    begin("layer_norm_backward", NULL, "%td×%td", rows, columns);
    ck_kernels()->layer_norm_backward(rows, columns, in, gain, 0.01f, up, back, dgain, dbias);
    compare(back, slope, all, bound);
    double terms = 264 + (double)rows / 256;
    FOR(j, columns) {
      // A row's own mean and scale are as exact as its outputs.
      compare(dgain + j, gains + j, 1, terms * unit * sizes[j] + 8 * unit * most(1, sizes[j]));
      compare(dbias + j, biases + j, 1, terms * unit * biases[j]);
    }
    end();
  }
}

static void check_warp(ptrdiff_t h, ptrdiff_t w, ptrdiff_t c) {
  static const float maps[3][6] = {
      {1, 0, 0, 0, 1, 0}, {0.9f, 0.2f, -1.3f, -0.3f, 1.2f, 0.7f}, {-3, 2, 5, 40, -1, -9}};
  FOR(m, 3) FOR(moved, 2) {
    begin("warp", NULL, "%td×%td×%td, map %td%s", h, w, c, m, moved ? ", displaced" : "");
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
    end();
  }
  begin("blur", NULL, "%td×%td", h, w);
  float *x = values(h * w, 1), *weights = values(7, 2), *y = floats(h * w);
  double *expected = sums(h * w);
  FOR(p, h) FOR(q, w) FOR(k, 7) {
    if (p + k < 3 || p + k - 3 >= h) continue;
    expected[q * h + p] += (double)weights[k] * x[(p + k - 3) * w + q];
  }
  ck_kernels()->blur(h, w, x, 3, weights, y);
  compare(y, expected, h * w, rounding(7));
  end();
}

/// Subnormal numbers are zero while they are flushed, and numbers again afterwards.
static void check_flush_denormals(void) {
  begin("flush_denormals", NULL, "on and off");
  volatile float small = 0x1p-126f, half = 0.5f, smaller = small * half;
  int before = ck_flush_denormals(1);
  volatile float written = small * half, read = smaller * 2;
  int during = ck_flush_denormals(before);
  if (before || !during) wrong("was %d, then %d, expected 0 and 1", before, during);
  if (written != 0 || read != 0) wrong("%g written, %g read, expected 0", written, read);
  if (small * half == 0) wrong("still on afterwards");
  end();
}

// ---- The program --------------------------------------------------------------------------------

static void check_all(void) {
  static const int sizes[] = {1, 3, 4, 5, 8, 15, 16, 17, 31, 33, 100};
  memset(tallies, 0, sizeof tallies);
  check_conv();
  check_pool();
  check_gemm();
  check_dense();
  FOR(i, COUNT(sizes)) {
    check_elements(sizes[i]);
    check_leaky_relu(sizes[i]);
    FOR(a, ck_kernels()->activation_count) check_activation(a, sizes[i], 0);
    FOR(r, 5) check_rows(r * r + 1, sizes[i]);
    check_normalization(1, sizes[i]);
    check_normalization(6, sizes[i]);
    check_normalization(531, sizes[i]);
    check_softmax(5, sizes[i]);
  }
  FOR(a, ck_kernels()->activation_count) check_activation(a, 14848, 16);  // 16 a step
  check_long_sums(bare ? 100 : 512);
  check_warp(28, 28, 1);
  check_warp(5, 9, 3);
  check_warp(1, 1, 1);
  check_warp(2, 17, 2);
  check_warp(9, 40, 1);
  if (!bare) check_flush_denormals();  // memory checkers' own processors don't have it
  for (now = tallies; *now->kernel; now++) {
    printf("  %-38s %4d cases, ", now->kernel, now->cases);
    if (now->wrong)
      printf("%d WRONG\n", now->wrong);
    else
      printf("worst error %3.0f %% of its bound\n", 100 * now->worst);
  }
}

int main(int argc, char **argv) {
  static const char *const sets[] = {"avx512", "avx2", "neon", "baseline"};
  int named = 0, ran = 0;
  for (int i = 1; i < argc; i++)
    if (!strcmp(argv[i], "--bare"))
      bare = 1;
    else
      named++;
  FOR(i, COUNT(sets)) {
    int wanted = !named;
    for (int a = 1; a < argc; a++) wanted |= !strcmp(argv[a], sets[i]);
    if (!wanted || !ck_isa_select(sets[i])) continue;
    printf("== %s\n", ck_kernels()->name);
    check_all();
    ran++;
  }
  if (ran < named || !ran) {
    printf("an instruction set that was asked for is not on this processor\n");
    return 1;
  }
  printf(wrong_cases ? "%d cases WRONG\n" : "all right\n", wrong_cases);
  return wrong_cases ? 1 : 0;
}
