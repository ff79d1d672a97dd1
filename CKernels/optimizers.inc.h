// SPDX-License-Identifier: MIT
// The optimisers. Each reads a gradient, what it remembers of earlier ones and the weight once,
// and writes the latter two: a step costs the memory traffic of that and hardly any arithmetic, so
// everything that changes a gradient (clipping's factor, weight decay, L1) is done on the way.

// a · b + c with one rounding where the processor has that. Left to the compiler, what is rounded
// would depend on whether an element is in a vector or among the rest behind the vectors, and so on
// how an array was cut into pieces.
#if CK_LANES > 4 || defined(__aarch64__)
#define MULTIPLY_ADD(a, b, c) __builtin_fmaf(a, b, c)
#else
#define MULTIPLY_ADD(a, b, c) ((a) * (b) + (c))
#endif

// The gradient that an optimiser sees: scaled, with the slopes of l2/2 · w² and of l1 · |w|.
INLINE float slope(const ck_update *u, float gradient, float weight) {
  float sign = (float)((weight > 0) - (weight < 0));
  return MULTIPLY_ADD(u->scale, gradient, MULTIPLY_ADD(u->l2, weight, u->l1 * sign));
}

static void CK_NAME(ck_sgd)(ptrdiff_t n, const ck_update *update, const float *gradient,
                            float *velocity, float *weight) {
  ck_update u = *update;  // which the compiler then knows that no store changes
  if (u.scale == 1 && u.l2 == 0 && u.l1 == 0 && !u.nesterov) {
    // The same without what multiplies by 1 and adds 0: here the arithmetic can be seen.
    for (ptrdiff_t i = 0; i < n; i++) {
      float v = MULTIPLY_ADD(u.momentum, velocity[i], gradient[i]);
      velocity[i] = v;
      weight[i] = MULTIPLY_ADD(-u.rate, v, weight[i]);
    }
    return;
  }
  float lead = u.nesterov ? u.momentum : 1, rest = u.nesterov ? 1 : 0;
  for (ptrdiff_t i = 0; i < n; i++) {
    float g = slope(&u, gradient[i], weight[i]);
    float v = MULTIPLY_ADD(u.momentum, velocity[i], g);
    velocity[i] = v;
    weight[i] = MULTIPLY_ADD(-u.rate, MULTIPLY_ADD(rest, g, lead * v), weight[i]);
  }
}

static void CK_NAME(ck_rmsprop)(ptrdiff_t n, const ck_update *update, const float *gradient,
                                float *velocity, float *square, float *weight) {
  ck_update u = *update;
  for (ptrdiff_t i = 0; i < n; i++) {
    float g = slope(&u, gradient[i], weight[i]);
    float s = MULTIPLY_ADD(u.beta2, square[i], (1 - u.beta2) * (g * g));
    float step = g / (__builtin_elementwise_sqrt(s) + u.epsilon);
    float v = MULTIPLY_ADD(u.momentum, velocity[i], step);
    square[i] = s, velocity[i] = v;
    weight[i] = MULTIPLY_ADD(-u.rate, v, weight[i]);
  }
}

static void CK_NAME(ck_adam)(ptrdiff_t n, const ck_update *update, const float *gradient,
                             float *first, float *second, float *weight) {
  ck_update u = *update;
  float rate = u.rate / u.correction1, factor = 1 / __builtin_elementwise_sqrt(u.correction2);
  for (ptrdiff_t i = 0; i < n; i++) {
    float g = slope(&u, gradient[i], weight[i]);
    float m = MULTIPLY_ADD(u.momentum, first[i], (1 - u.momentum) * g);
    float v = MULTIPLY_ADD(u.beta2, second[i], (1 - u.beta2) * (g * g));
    float root = MULTIPLY_ADD(__builtin_elementwise_sqrt(v), factor, u.epsilon);
    first[i] = m, second[i] = v;
    weight[i] = MULTIPLY_ADD(u.keep, weight[i], -(rate * m / root));
  }
}

static void CK_NAME(ck_average)(ptrdiff_t n, float share, const float *x, float *y) {
  for (ptrdiff_t i = 0; i < n; i++) y[i] = MULTIPLY_ADD(share, x[i] - y[i], y[i]);
}
#undef MULTIPLY_ADD
