// SPDX-License-Identifier: MIT
// The optimisers. Each reads a gradient, what it remembers of earlier ones and the weight once,
// and writes the latter two: a step costs the memory traffic of that and hardly any arithmetic, so
// everything that changes a gradient (clipping's factor, weight decay, L1) is done on the way.

// The gradient that an optimiser sees: scaled, with the slopes of l2/2 · w² and of l1 · |w|.
INLINE float CK_NAME(slope)(const ck_update *u, float gradient, float weight) {
  float sign = (float)((weight > 0) - (weight < 0));
  return u->scale * gradient + (u->l2 * weight + u->l1 * sign);
}

static void CK_NAME(ck_sgd)(ptrdiff_t n, const ck_update *update, const float *gradient,
                            float *velocity, float *weight) {
  ck_update u = *update;  // which the compiler then knows that no store changes
  if (u.scale == 1 && u.l2 == 0 && u.l1 == 0 && !u.nesterov) {
    // The same without what multiplies by 1 and adds 0: here the arithmetic can be seen.
    for (ptrdiff_t i = 0; i < n; i++) {
      float v = u.momentum * velocity[i] + gradient[i];
      velocity[i] = v;
      weight[i] -= u.rate * v;
    }
    return;
  }
  float lead = u.nesterov ? u.momentum : 1, rest = u.nesterov ? 1 : 0;
  for (ptrdiff_t i = 0; i < n; i++) {
    float g = CK_NAME(slope)(&u, gradient[i], weight[i]);
    float v = u.momentum * velocity[i] + g;
    velocity[i] = v;
    weight[i] -= u.rate * (lead * v + rest * g);
  }
}

static void CK_NAME(ck_rmsprop)(ptrdiff_t n, const ck_update *update, const float *gradient,
                                float *velocity, float *square, float *weight) {
  ck_update u = *update;
  for (ptrdiff_t i = 0; i < n; i++) {
    float g = CK_NAME(slope)(&u, gradient[i], weight[i]);
    float s = u.beta2 * square[i] + (1 - u.beta2) * (g * g);
    float v = u.momentum * velocity[i] + g / (__builtin_elementwise_sqrt(s) + u.epsilon);
    square[i] = s, velocity[i] = v;
    weight[i] -= u.rate * v;
  }
}

static void CK_NAME(ck_adam)(ptrdiff_t n, const ck_update *update, const float *gradient,
                             float *first, float *second, float *weight) {
  ck_update u = *update;
  float rate = u.rate / u.correction1, factor = 1 / __builtin_elementwise_sqrt(u.correction2);
  for (ptrdiff_t i = 0; i < n; i++) {
    float g = CK_NAME(slope)(&u, gradient[i], weight[i]);
    float m = u.momentum * first[i] + (1 - u.momentum) * g;
    float v = u.beta2 * second[i] + (1 - u.beta2) * (g * g);
    first[i] = m, second[i] = v;
    weight[i] =
        u.keep * weight[i] - rate * m / (__builtin_elementwise_sqrt(v) * factor + u.epsilon);
  }
}

static void CK_NAME(ck_average)(ptrdiff_t n, float share, const float *x, float *y) {
  for (ptrdiff_t i = 0; i < n; i++) y[i] += share * (x[i] - y[i]);
}
