// SPDX-License-Identifier: MIT
// Activations: ReLU, leaky ReLU, and those of activations.def at numbers of every size.
#include "check.h"

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
    begin_case(name, NULL, "%td%s", n, in_place ? ", in place" : "");
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
    end_case();
  }
}

static void check_relu(ptrdiff_t n) {
  check_elementwise("relu_forward", relu, ck_kernels()->relu_forward, NULL, n, 0);
  check_elementwise("relu_backward", relu_slope, NULL, ck_kernels()->relu_backward, n, 0);

  begin_case("relu_places", NULL, "%td", n);
  float *y = values(n, 1);
  uint16_t *place = places(n), *kept = places(n);
  if (n > 2) y[1] = 0, y[2] = NAN;
  FOR(i, n) place[i] = (uint16_t)(i * 7), kept[i] = y[i] <= 0 ? UINT16_MAX : place[i];
  ck_kernels()->relu_places(n, y, place);
  compare_places(place, kept, n);
  end_case();
}

static void check_leaky_relu(ptrdiff_t n) {
  const float slope = 0.2f;
  FOR(pass, 2) {
    begin_case(pass ? "leaky_relu_backward" : "leaky_relu_forward", NULL, "%td", n);
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
    end_case();
  }
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
    begin_case(name, NULL, "%td from %td%s", n, from, in_place ? ", in place" : "");
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
    end_case();
  }
}

void check_activations(void) {
  FOR(i, SIZES) {
    check_relu(sizes[i]);
    check_leaky_relu(sizes[i]);
  }
  FOR(a, ck_kernels()->activation_count) {
    FOR(i, SIZES) check_activation(a, sizes[i], 0);
    check_activation(a, 14848, 16);  // 16 a step
  }
}

/// What cnn's convolution writes.
void time_activations(void) {
  const ck_table *k = ck_kernels();
  ptrdiff_t n = IMAGES * 26 * 26 * 32;
  float *x = values(n, 1), *dy = values(n, 2), *out = floats(n);
  TIME(0, 8.0 * (double)n, k->relu_forward(n, x, out), "relu_forward", NULL, "%td", n);
  TIME(0, 12.0 * (double)n, k->relu_backward(n, x, dy, out), "relu_backward", NULL, "%td", n);
  FOR(a, k->activation_count) {
    const ck_activation *f = &k->activations[a];
    TIME(0, 8.0 * (double)n, f->forward(n, x, out), f->name, "forward", "%td", n);
    TIME(0, 12.0 * (double)n, f->backward(n, x, dy, out), f->name, "backward", "%td", n);
  }
  end_case();
}
