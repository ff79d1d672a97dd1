// SPDX-License-Identifier: MIT
// Convolutions: each variant, any shape; the pass that pools too; weight gradients of large images.
#include "check.h"

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
    // More weights than the second-level cache holds.
    {2, 9, 7, 133, 3, 3, 140, 1, 1, 1, 1, 1, 1, 1, 0, 0},
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
    // Winograd's larger tiles: whole ones, cut ones, more of them than a block takes.
    {1, 6, 10, 16, 3, 3, 16, 1, 1, 0, 0, 1, 1, 1, 0, 0},
    {2, 7, 9, 17, 3, 3, 19, 1, 1, 1, 1, 1, 1, 1, 0, 0},
    {3, 14, 13, 16, 3, 3, 33, 1, 1, 1, 0, 1, 1, 1, 0, 0},
    {1, 5, 4, 40, 3, 3, 24, 1, 1, 2, 2, 1, 1, 1, 0, 0},
    {1, 4, 6, 128, 3, 3, 130, 1, 1, 1, 1, 1, 1, 1, 0, 0},
    {2, 3, 3, 16, 3, 3, 16, 1, 1, 0, 0, 1, 1, 1, 0, 0},
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
static void check_conv_pool(const ck_conv_variant *v, const ck_conv_shape *s, int with_bias,
                            int relu, const char *text) {
  ck_pool_shape pool = {s->n, s->oh, s->ow, s->f, 2, 2, 2, 2, s->oh / 2, s->ow / 2};
  ptrdiff_t outputs = (ptrdiff_t)s->n * s->oh * s->ow * s->f;
  ptrdiff_t pooled = (ptrdiff_t)s->n * pool.oh * pool.ow * s->f;
  FOR(with_places, 2) {
    begin_case("conv_pool_forward", v->name, "%s%s", text, with_places ? "" : ", no places");
    const float *x = values((size_t)s->n * s->h * s->w * s->c, 1);
    const float *w = values((size_t)s->fh * s->fw * s->c * s->f, 2);
    const float *bias = with_bias ? values(s->f, 3) : NULL;
    float *workspace = floats(v->workspace(s, CK_FORWARD));
    float *ready = floats(v->ready_count(s, CK_FORWARD));
    v->ready(s, CK_FORWARD, w, ready);
    float *between = floats(outputs), *two = floats(pooled), *one = floats(pooled);
    uint16_t *two_places = places(pooled), *one_places = places(pooled);
    v->forward(s, x, ready, bias, relu, between, workspace);
    ck_kernels()->pool_direct.max_forward(&pool, between, two, two_places);
    if (relu) ck_kernels()->relu_places(pooled, two, two_places);
    v->pool_forward(s, x, ready, bias, relu, one, with_places ? one_places : NULL, workspace);
    same("in one", one, two, pooled);
    if (with_places) compare_places(one_places, two_places, pooled);
    end_case();
  }
}

/// Whether winograd's transforms are between. Split by its dilation, it may be one of stride 1.
static int is_transformed(const ck_conv_variant *v, const ck_conv_shape *s) {
  return !strncmp(v->name, "winograd", 8) && s->fh == 3 && s->fw == 3 && s->dh % s->sh == 0 &&
         s->dw % s->sw == 0 && ck_conv_way_of(v, s) != CK_DEPTHWISE;
}

/// What the rounding of a pass may come to. With winograd's transforms errors grow as CKernels.h
/// says: four times that, of values whose mean square is a twelfth.
static double conv_bound(const ck_conv_variant *v, const ck_conv_shape *s, ck_pass pass,
                         ptrdiff_t terms) {
  double bound = rounding(terms + 1);
  if (!is_transformed(v, s)) return bound;
  double n = pass == CK_FORWARD ? s->c : s->f;
  int m = s->c / s->groups < 16 || s->f / s->groups < 16 ? 2 : 4;
  double growth = m == 4                       ? pass == CK_WEIGHT_GRADIENT ? 29 : 27
                  : pass == CK_WEIGHT_GRADIENT ? 4
                                               : 5;
  if (pass == CK_WEIGHT_GRADIENT)  // tiles, at most
    n = (double)s->n * ((s->oh + (m - 1) * s->dh) / m) * ((s->ow + (m - 1) * s->dw) / m);
  else
    n /= s->groups;
  double narrow = v->bf16 ? sqrt(n + 3) * 0x1p-8 : 0;  // of few terms more are large
  return 4. / 12 * growth * (sqrt(n * (n + 25)) * unit + narrow);
}

static const char *const passes[] = {"conv_forward", "conv_input_gradient", "conv_weight_gradient"};

static void run(const ck_conv_variant *variant, const ck_conv_shape *s, ck_pass pass,
                const float *x, const float *w, const float *bias, int relu, const float *y,
                float *out, float *workspace) {
  if (pass == CK_FORWARD)
    ck_conv_forward(variant, s, x, w, bias, relu, out, workspace);
  else if (pass == CK_INPUT_GRADIENT)
    ck_conv_input_gradient(variant, s, y, w, out, workspace);
  else
    ck_conv_weight_gradient(variant, s, x, y, out, workspace);
}

static void check_conv_shape(const ck_conv_shape *s, int with_bias, int relu) {
  ptrdiff_t inputs = (ptrdiff_t)s->n * s->h * s->w * s->c;
  ptrdiff_t weights = (ptrdiff_t)s->fh * s->fw * s->c / s->groups * s->f;
  ptrdiff_t outputs = (ptrdiff_t)s->n * s->oh * s->ow * s->f;
  int is_dense = s->dh == 1 && s->dw == 1 && s->groups == 1;
  ptrdiff_t sizes[] = {outputs, inputs, weights};
  ptrdiff_t terms[] = {weights / s->f, weights / s->c, outputs / s->f};
  double *expected[2][3];  // by the numbers, and by the numbers rounded to bf16
  FOR(narrow, 2) {
    FOR(pass, 3) {
      expected[narrow][pass] = calloc(sizes[pass], sizeof(double));
      const float *x = values(inputs, 1), *w = values(weights, 2), *y = values(outputs, 4);
      if (narrow) x = narrowed(x, inputs), w = narrowed(w, weights), y = narrowed(y, outputs);
      convolve(s, pass, x, w, y, expected[narrow][pass]);
      end_case();
    }
    FOR(i, outputs) {
      double sum = expected[narrow][0][i] + (with_bias ? value(i % s->f, 3) : 0);
      expected[narrow][0][i] = relu && sum < 0 ? 0 : sum;
    }
  }
  char text[140];
  snprintf(
      text, sizeof text,
      "%d×%d×%d×%d, %d of %d×%d by %d×%d, padded %d×%d, dilated %d×%d, %d groups%s%s, to %d×%d",
      s->n, s->h, s->w, s->c, s->f, s->fh, s->fw, s->sh, s->sw, s->ph, s->pw, s->dh, s->dw,
      s->groups, with_bias ? ", bias" : "", relu ? ", ReLU" : "", s->oh, s->ow);
  const ck_conv_variant *variant;
  for (size_t v = 0; (variant = ck_conv_variant_at(v)); v++) FOR(pass, 3) {
      // Depthwise ones are direct's.
      int narrow = variant->bf16 && ck_conv_way_of(variant, s) != CK_DEPTHWISE;
      if (bf16_only && !narrow) continue;
      begin_case(passes[pass], variant->name, "%s", text);
      const float *x = values(inputs, 1), *w = values(weights, 2), *y = values(outputs, 4);
      const float *bias = with_bias ? values(s->f, 3) : NULL;
      float *out = floats(sizes[pass]), *workspace = floats(ck_conv_workspace(variant, s, pass));
      run(variant, s, pass, x, w, bias, relu, y, out, workspace);
      int transformed = is_transformed(variant, s);
      compare(out, expected[narrow && !transformed][pass], sizes[pass],
              conv_bound(variant, s, pass, terms[pass]));
      if (narrow) digest_bf16(transformed, out, sizes[pass]);
      end_case();
    }
  for (size_t v = 0; is_dense && s->oh > 1 && s->ow > 1 && (variant = ck_conv_variant_at(v)); v++)
    if (variant->pool_forward && (!bf16_only || variant->bf16))
      check_conv_pool(variant, s, with_bias, relu, text);
  FOR(narrow, 2) FOR(pass, 3) free(expected[narrow][pass]);
}

static int random_state;
static int pick(int low, int high) {
  return low + (int)((value(random_state++, 99) + 0.5f) * (float)(high - low + 1));
}

static void check_shapes(void) {
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

/// The weight gradient of a large image; also where rows alone are too long.
static void check_large(void) {
  const ck_conv_variant *conv;
  for (size_t v = 0; (conv = ck_conv_variant_at(v)); v++) FOR(how, 4) {
      if (bf16_only && !conv->bf16) continue;
      int32_t edge = (int32_t)long_edge(), padded = how == 1, far = how == 2 ? 2 : 1;
      ck_conv_shape s = {1, edge, edge, 2, 3, 3, 3, 1, 1, padded, padded, 0, 0, far, far, 1};
      if (how == 3) s.n = 5, s.h = edge / 4, s.w = edge / 4, s.c = 3, s.groups = 3;
      s.oh = s.h + 2 * padded - 2 * far, s.ow = s.w + 2 * padded - 2 * far;
      begin_case("conv_weight_gradient", conv->name, "%d×%d×%d×%d, padded %d, dilated %d, alike",
                 s.n, s.h, s.w, s.c, padded, far);
      ptrdiff_t inputs = (ptrdiff_t)s.n * s.h * s.w * s.c, weights = 9 * s.c / s.groups * s.f;
      ptrdiff_t sum = (ptrdiff_t)s.n * s.oh * s.ow;
      float *x = floats(inputs), *dy = floats(sum * s.f), *dw = floats(weights);
      FOR(i, inputs) x[i] = 1;
      FOR(i, sum * s.f) dy[i] = conv->bf16 ? 0x1.ap-4f : 0.1f;  // a number of 8 bits
      float *workspace = floats(ck_conv_workspace(conv, &s, CK_WEIGHT_GRADIENT));
      double *expected = sums(weights);
      convolve(&s, CK_WEIGHT_GRADIENT, x, NULL, dy, expected);
      ck_conv_weight_gradient(conv, &s, x, dy, dw, workspace);
      FOR(i, weights)
      compare(dw + i, expected + i, 1, (8194 + (double)sum / 8192) * unit * expected[i]);
      end_case();
    }
}

void check_convolution(void) {
  check_shapes();
  check_large();
}

/// cnn's, lenet's second, vgg's second to fourth.
void time_convolution(void) {
  static const int rows[][4] = {// edge, channels, filters, padding
                                {28, 1, 32, 0},
                                {13, 32, 64, 0},
                                {28, 32, 32, 1},
                                {14, 32, 64, 1},
                                {14, 64, 64, 1}};
  const ck_conv_variant *v;
  FOR(i, COUNT(rows)) for (size_t at = 0; (v = ck_conv_variant_at(at)); at++) {
    int edge = rows[i][0], c = rows[i][1], f = rows[i][2], pad = rows[i][3],
        to = edge + 2 * pad - 2;
    ck_conv_shape s = {IMAGES, edge, edge, c, 3, 3, f, 1, 1, pad, pad, to, to, 1, 1, 1};
    int inputs = IMAGES * edge * edge * c, outputs = IMAGES * to * to * f;
    const int sizes[] = {outputs, inputs, 9 * c * f};
    char text[60];
    snprintf(text, sizeof text, "%d×%d×%d×%d to %d×%d×%d", IMAGES, edge, edge, c, to, to, f);
    const float *x = values(inputs, 1), *w = values(sizes[2], 2), *y = values(outputs, 4);
    double operations = 2.0 * 9 * c * outputs;
    uint16_t *place = places(outputs);
    FOR(pass, 3) {
      float *out = floats(sizes[pass]), *workspace = floats(ck_conv_workspace(v, &s, pass));
      TIME(operations, 0, run(v, &s, pass, x, w, w, 1, y, out, workspace), passes[pass], v->name,
           "%s", text);
      if (pass == CK_FORWARD && v->pool_forward) {
        float *ready = floats(v->ready_count(&s, CK_FORWARD));
        v->ready(&s, CK_FORWARD, w, ready);
        TIME(operations, 0, v->pool_forward(&s, x, ready, w, 1, out, place, workspace),
             "conv_pool_forward", v->name, "%s", text);
      }
    }
    end_case();
  }
}
