// SPDX-License-Identifier: MIT
// Activations that take each number on its own. All are made of one thing, e^x for x <= 0, which
// neither overflows nor loses digits: x = n·log 2 + r with |r| <= log(2) / 2, and e^x = 2^n · (1 +
// q) where q = e^r - 1 is a polynomial. q apart from the 1 gives e^x - 1 near 0 to the last digits
// too. Results are within 5 · 2^-23 of their size of the exact ones, in the tails as well; where an
// e^x is below the smallest normal number, it is 0. A NaN stays one.
//
// A last vector that isn't full goes through the same code, so a number's result doesn't depend on
// where in the array it stands. The polynomials were fitted for the least relative error.
#include <string.h>
#pragma clang fp contract(fast)

typedef uint32_t bits __attribute__((vector_size(4 * CK_LANES), aligned(4)));

INLINE vec all(float value) { return (vec){0} + value; }
INLINE vec either(ints mask, vec a, vec b) { return (vec)choose(mask, (ints)a, (ints)b); }
INLINE vec magnitude(vec x) { return (vec)((ints)x & INT32_MAX); }
INLINE vec at_least(float low, vec x) { return either(x < low, all(low), x); }
INLINE vec at_most(float high, vec x) { return either(x > high, all(high), x); }

// c[0] + c[1]·x + ...
INLINE vec polynomial(const int count, const float *c, vec x) {
  vec sum = all(c[count - 1]);
#pragma clang loop unroll(full)
  for (int i = count - 2; i >= 0; i--) sum = sum * x + c[i];
  return sum;
}

// e^(x + low) = scale · (1 + q) for x + low in -87.33...0, where low are digits that x has no room
// for.
INLINE void split_power(vec x, vec low, vec *scale, vec *q) {
  static const float c[] = {0.49999993f, 0.16666515f, 0.041668457f, 0.0083694244f, 0.0013813133f};
  // Added to 3·2^22, a number is rounded to a whole one, which the last bits hold.
  const float rounder = 0x1.8p23f;
  vec shifted = (x + low) * 0x1.715476p0f + rounder, n = shifted - rounder;
  // The first part of log 2 has so few digits that n times it is exact.
  vec r = x - n * 0x1.63p-1f + low + n * 0x1.bd0106p-13f;
  *q = r + r * r * polynomial(5, c, r);
  *scale = (vec)(((bits)shifted - (0x4B400000 - 127)) << 23);
}

// e^(x + low), 0 where that is below the smallest normal number.
INLINE vec power(vec x, vec low) {
  const float least = -87.33f;
  vec scale, q;
  split_power(at_least(least, x), low, &scale, &q);
  return (vec)(~(x < least) & (ints)(scale + scale * q));
}

// e^x - 1 for x <= 0.
INLINE vec power_less_one(vec x) {
  vec scale, q;
  // From here on it is -1.
  split_power(at_least(-30, x), (vec){0}, &scale, &q);
  return scale * q + (scale - 1);
}

// 1 / (1 + e^-x), and that for -x, which is 1 less the first without the loss of digits.
INLINE vec sigmoids(vec x, vec *other) {
  vec small = power(-magnitude(x), (vec){0}), one = all(1);
  vec inverse = 1 / (1 + small);
  *other = inverse * either(x < 0, one, small);
  return inverse * either(x < 0, small, one);
}

INLINE vec sigmoid_value(vec x) {
  vec other;
  return sigmoids(x, &other);
}
INLINE vec sigmoid_gradient(vec y, vec dy) { return dy * y * (1 - y); }

INLINE vec tanh_value(vec x) {
  vec less = power_less_one(-2 * magnitude(x));
  ints sign = (ints)x & INT32_MIN;
  return (vec)((ints)magnitude(less / (less + 2)) | sign);
}
INLINE vec tanh_gradient(vec y, vec dy) { return dy * ((1 - y) * (1 + y)); }

INLINE vec elu_value(vec x) { return either(x > 0, x, power_less_one(at_most(0, x))); }
INLINE vec elu_gradient(vec y, vec dy) { return dy * either(y > 0, all(1), y + 1); }

// max(x, 0) + log(1 + t) with t = e^-|x|, the logarithm as twice the inverse hyperbolic tangent of
// t / (2 + t), an odd function.
INLINE vec softplus_value(vec x) {
  static const float c[] = {1, 0.33333157f, 0.20012455f, 0.13980302f, 0.14089168f};
  vec t = power(-magnitude(x), (vec){0}), s = t / (2 + t);
  vec logarithm = 2 * s * polynomial(5, c, s * s);
  return either(x > 0, x, (vec){0}) + logarithm;
}
// f' = 1 / (1 + e^-x) = 1 - e^-y
INLINE vec softplus_gradient(vec y, vec dy) { return dy * -power_less_one(-y); }

// Where a product with 0 is due, x must not be infinite.
INLINE vec silu_value(vec x) { return at_least(-200, x) * sigmoid_value(x); }
INLINE vec silu_gradient(vec x, vec dy) {
  vec other, s = sigmoids(x, &other);
  return dy * (s * (1 + at_least(-200, at_most(200, x)) * other));
}

// Phi(-a) for a >= 0, the share of a normal distribution below -a, is e^(-a²/2) times a smooth
// function of a, here a polynomial of (a - 3) / (a + 3). a² has more digits than a number holds:
// the square of a's first 12 is exact, the rest goes along as the low digits.
INLINE vec normal_tail(vec a, vec *density) {
  static const float c[] = {0.12151395f,    -0.20640262f,   0.12322502f,     -0.046213314f,
                            0.0061321830f,  0.0029047026f,  -0.00098418268f, -0.00033991123f,
                            0.00011603723f, 0.000054150746f};
  vec first = (vec)((ints)a & ~0xFFF);
  vec e = power(-0.5f * first * first, -0.5f * (a - first) * (a + first));
  *density = e * 0.39894228f;
  return e * polynomial(10, c, (a - 3) / (a + 3));
}

INLINE vec gelu_value(vec x) {
  vec density, a = at_most(20, magnitude(x));
  return either(x > 0, x, (vec){0}) - a * normal_tail(a, &density);
}
// f' = Phi(x) + x · (the density at x)
INLINE vec gelu_gradient(vec x, vec dy) {
  vec density, a = at_most(20, magnitude(x));
  vec tail = normal_tail(a, &density);
  vec moment = either(x < 0, -a, a) * density;
  return dy * (either(x > 0, 1 - tail, tail) + moment);
}

// ---- Arrays -------------------------------------------------------------------------------------

#define CK_ACTIVATION(name, reads_x)                                                         \
  static void CK_NAME(ck_##name##_forward)(ptrdiff_t n, const float *x, float *y) {          \
    ptrdiff_t i = 0;                                                                         \
    for (; i + CK_LANES <= n; i += CK_LANES)                                                 \
      *(vec *)(y + i) = name##_value(*(const vec *)(x + i));                                 \
    vec rest = name##_value(some(n - i, x + i));                                             \
    memcpy(y + i, &rest, sizeof(float) * (n - i));                                           \
  }                                                                                          \
  static void CK_NAME(ck_##name##_backward)(ptrdiff_t n, const float *from, const float *dy, \
                                            float *dx) {                                     \
    ptrdiff_t i = 0;                                                                         \
    for (; i + CK_LANES <= n; i += CK_LANES)                                                 \
      *(vec *)(dx + i) = name##_gradient(*(const vec *)(from + i), *(const vec *)(dy + i));  \
    vec rest = name##_gradient(some(n - i, from + i), some(n - i, dy + i));                  \
    memcpy(dx + i, &rest, sizeof(float) * (n - i));                                          \
  }
#include "activations.def"
#undef CK_ACTIVATION

static void CK_NAME(ck_leaky_relu_forward)(ptrdiff_t n, float slope, const float *x, float *y) {
  ptrdiff_t i = 0;
  for (; i + CK_LANES <= n; i += CK_LANES) {
    vec value = *(const vec *)(x + i);
    *(vec *)(y + i) = either(value < 0, slope * value, value);
  }
  for (; i < n; i++) y[i] = x[i] < 0 ? slope * x[i] : x[i];
}

static void CK_NAME(ck_leaky_relu_backward)(ptrdiff_t n, float slope, const float *y,
                                            const float *dy, float *dx) {
  ptrdiff_t i = 0;
  for (; i + CK_LANES <= n; i += CK_LANES) {
    vec upstream = *(const vec *)(dy + i);
    *(vec *)(dx + i) = either(*(const vec *)(y + i) <= 0, slope * upstream, upstream);
  }
  for (; i < n; i++) dx[i] = y[i] <= 0 ? slope * dy[i] : dy[i];
}
