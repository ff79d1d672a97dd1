// SPDX-License-Identifier: MIT
// Which kernels there are and which instruction set they run with. The set is chosen at the first
// call from what the processor reports, and the public functions that have a version for each go
// through its table.
#include <string.h>

#include "isa.h"
#if defined(__x86_64__)
#include <immintrin.h>
#endif

static const ck_isa *const sets[] = {
#if defined(__x86_64__)
    &ck_isa_avx512, &ck_isa_avx2,
#endif
    &ck_isa_baseline};

static int has(const ck_isa *set) {
#if defined(__x86_64__)
  if (set == &ck_isa_avx512)
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (set == &ck_isa_avx2) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
  return set == &ck_isa_baseline;
}

static const ck_isa *chosen;  // threads that race here all store the same pointer

static const ck_isa *isa(void) {
  const ck_isa *set = __atomic_load_n(&chosen, __ATOMIC_RELAXED);
  if (__builtin_expect(set != NULL, 1)) return set;
  for (size_t i = 0; i < sizeof sets / sizeof *sets && !set; i++)
    if (has(sets[i])) set = sets[i];
  __atomic_store_n(&chosen, set, __ATOMIC_RELAXED);
  return set;
}

const char *ck_isa_name(void) { return isa()->name; }

int ck_isa_select(const char *name) {
  for (size_t i = 0; i < sizeof sets / sizeof *sets; i++)
    if (!strcmp(sets[i]->name, name) && has(sets[i])) {
      __atomic_store_n(&chosen, sets[i], __ATOMIC_RELAXED);
      return 1;
    }
  return 0;
}

void ck_gemm(int flags, ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, const float *a, ptrdiff_t lda,
             const float *b, ptrdiff_t ldb, float *c, ptrdiff_t ldc, float *workspace) {
  isa()->gemm(flags, m, n, k, a, lda, b, ldb, c, ldc, workspace);
}
void ck_gemm_packing(int flags, ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, ck_pack_fn *pack,
                     const void *matrix, const float *b, ptrdiff_t ldb, float *c, ptrdiff_t ldc,
                     float *workspace) {
  isa()->gemm_packing(flags, m, n, k, pack, matrix, b, ldb, c, ldc, workspace);
}
size_t ck_gemm_workspace(void) { return isa()->gemm_workspace(); }
void ck_dense_forward(ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, const float *x, const float *w,
                      const float *bias, int relu, float *y, ptrdiff_t ldy) {
  isa()->dense_forward(m, n, k, x, w, bias, relu, y, ldy);
}
void ck_pool_max_forward_direct(const ck_pool_shape *s, const float *x, float *y, uint16_t *place) {
  isa()->pool_max_forward(s, x, y, place);
}
void ck_pool_max_backward_direct(const ck_pool_shape *s, const float *dy, const uint16_t *place,
                                 float *dx) {
  isa()->pool_max_backward(s, dy, place, dx);
}
void ck_pool_avg_forward_direct(const ck_pool_shape *s, const float *x, float *y) {
  isa()->pool_avg_forward(s, x, y);
}
void ck_pool_avg_backward_direct(const ck_pool_shape *s, const float *dy, float *dx) {
  isa()->pool_avg_backward(s, dy, dx);
}
size_t ck_conv_workspace_direct(const ck_conv_shape *s, ck_pass pass) {
  return isa()->conv_workspace(s, pass);
}
void ck_conv_forward_direct(const ck_conv_shape *s, const float *x, const float *w,
                            const float *bias, int relu, float *y, float *workspace) {
  isa()->conv_forward(s, x, w, bias, relu, y, workspace);
}
void ck_conv_input_gradient_direct(const ck_conv_shape *s, const float *dy, const float *w,
                                   float *dx, float *workspace) {
  isa()->conv_input_gradient(s, dy, w, dx, workspace);
}
void ck_conv_weight_gradient_direct(const ck_conv_shape *s, const float *x, const float *dy,
                                    float *dw, float *workspace) {
  isa()->conv_weight_gradient(s, x, dy, dw, workspace);
}
size_t ck_conv_workspace_depthwise(const ck_conv_shape *s, ck_pass pass) {
  return isa()->depthwise_workspace(s, pass);
}
void ck_conv_forward_depthwise(const ck_conv_shape *s, const float *x, const float *w,
                               const float *bias, int relu, float *y, float *workspace) {
  isa()->depthwise_forward(s, x, w, bias, relu, y, workspace);
}
void ck_conv_input_gradient_depthwise(const ck_conv_shape *s, const float *dy, const float *w,
                                      float *dx, float *workspace) {
  isa()->depthwise_input_gradient(s, dy, w, dx, workspace);
}
void ck_conv_weight_gradient_depthwise(const ck_conv_shape *s, const float *x, const float *dy,
                                       float *dw, float *workspace) {
  isa()->depthwise_weight_gradient(s, x, dy, dw, workspace);
}
void ck_conv_pool_forward_direct(const ck_conv_shape *s, const float *x, const float *w,
                                 const float *bias, int relu, float *y, uint16_t *place,
                                 float *workspace) {
  isa()->conv_pool_forward(s, x, w, bias, relu, y, place, workspace);
}
void ck_bias_add(ptrdiff_t rows, ptrdiff_t f, const float *bias, int relu, float *y) {
  isa()->bias_add(rows, f, bias, relu, y);
}
void ck_column_sum(ptrdiff_t rows, ptrdiff_t f, const float *y, float *sum) {
  isa()->column_sum(rows, f, y, sum);
}
void ck_relu_forward(ptrdiff_t n, const float *x, float *y) { isa()->relu_forward(n, x, y); }
void ck_relu_backward(ptrdiff_t n, const float *y, const float *dy, float *dx) {
  isa()->relu_backward(n, y, dy, dx);
}
void ck_relu_places(ptrdiff_t n, const float *y, uint16_t *place) {
  isa()->relu_places(n, y, place);
}
void ck_leaky_relu_forward(ptrdiff_t n, float slope, const float *x, float *y) {
  isa()->leaky_relu_forward(n, slope, x, y);
}
void ck_leaky_relu_backward(ptrdiff_t n, float slope, const float *y, const float *dy, float *dx) {
  isa()->leaky_relu_backward(n, slope, y, dy, dx);
}
#define CK_ACTIVATION(name, reads_x)                                                      \
  void ck_##name##_forward(ptrdiff_t n, const float *x, float *y) {                       \
    isa()->name##_forward(n, x, y);                                                       \
  }                                                                                       \
  void ck_##name##_backward(ptrdiff_t n, const float *from, const float *dy, float *dx) { \
    isa()->name##_backward(n, from, dy, dx);                                              \
  }
#include "activations.def"
#undef CK_ACTIVATION
void ck_add(ptrdiff_t n, const float *x, float *y) { isa()->add(n, x, y); }
void ck_sum(ptrdiff_t n, const float *a, const float *b, float *y) { isa()->sum(n, a, b, y); }
void ck_sgd(ptrdiff_t n, const ck_update *u, const float *gradient, float *velocity,
            float *weight) {
  isa()->sgd(n, u, gradient, velocity, weight);
}
void ck_rmsprop(ptrdiff_t n, const ck_update *u, const float *gradient, float *velocity,
                float *square, float *weight) {
  isa()->rmsprop(n, u, gradient, velocity, square, weight);
}
void ck_adam(ptrdiff_t n, const ck_update *u, const float *gradient, float *first, float *second,
             float *weight) {
  isa()->adam(n, u, gradient, first, second, weight);
}
void ck_average(ptrdiff_t n, float share, const float *x, float *y) {
  isa()->average(n, share, x, y);
}
void ck_scale_bytes(ptrdiff_t n, const uint8_t *x, float scale, float *y) {
  isa()->scale_bytes(n, x, scale, y);
}
void ck_moments(ptrdiff_t rows, ptrdiff_t c, const float *x, float *mean, float *squares) {
  isa()->moments(rows, c, x, mean, squares);
}
void ck_scale_shift(ptrdiff_t rows, ptrdiff_t c, const float *x, const float *scale,
                    const float *shift, int relu, float *y) {
  isa()->scale_shift(rows, c, x, scale, shift, relu, y);
}
void ck_normalization_sums(ptrdiff_t rows, ptrdiff_t c, const float *x, const float *dy,
                           const float *mean, const float *scale, const float *shift, int relu,
                           float *sum, float *product) {
  isa()->normalization_sums(rows, c, x, dy, mean, scale, shift, relu, sum, product);
}
void ck_normalization_gradient(ptrdiff_t rows, ptrdiff_t c, const float *x, const float *dy,
                               const float *mean, const float *scale, const float *shift, int relu,
                               const float *a, const float *b, float *dx) {
  isa()->normalization_gradient(rows, c, x, dy, mean, scale, shift, relu, a, b, dx);
}
void ck_layer_norm_forward(ptrdiff_t rows, ptrdiff_t c, const float *x, const float *gain,
                           const float *bias, float epsilon, float *y) {
  isa()->layer_norm_forward(rows, c, x, gain, bias, epsilon, y);
}
void ck_layer_norm_backward(ptrdiff_t rows, ptrdiff_t c, const float *x, const float *gain,
                            float epsilon, const float *dy, float *dx, float *dgain, float *dbias) {
  isa()->layer_norm_backward(rows, c, x, gain, epsilon, dy, dx, dgain, dbias);
}
void ck_dropout(ptrdiff_t n, uint64_t key, uint32_t first, uint32_t threshold, float scale,
                const float *x, float *y) {
  isa()->dropout(n, key, first, threshold, scale, x, y);
}
void ck_warp(ptrdiff_t h, ptrdiff_t w, ptrdiff_t c, const float *x, const float map[6],
             const float *down, const float *right, float *y) {
  isa()->warp(h, w, c, x, map, down, right, y);
}
void ck_blur(ptrdiff_t h, ptrdiff_t w, const float *x, ptrdiff_t radius, const float *weights,
             float *y) {
  isa()->blur(h, w, x, radius, weights, y);
}
double ck_fma_peak(int64_t steps) { return isa()->fma_peak(steps); }

#define CK_CONV(name, text)        \
  {#name,                          \
   text,                           \
   ck_conv_forward_##name,         \
   ck_conv_input_gradient_##name,  \
   ck_conv_weight_gradient_##name, \
   ck_conv_workspace_##name},
#define CK_POOL(name, text)
static const ck_conv_variant conv_variants[] = {
#include "variants.def"
};
#undef CK_CONV
#undef CK_POOL
#define CK_CONV(name, text)
#define CK_POOL(name, text)     \
  {#name,                       \
   text,                        \
   ck_pool_max_forward_##name,  \
   ck_pool_max_backward_##name, \
   ck_pool_avg_forward_##name,  \
   ck_pool_avg_backward_##name},
static const ck_pool_variant pool_variants[] = {
#include "variants.def"
};

#define CK_ACTIVATION(name, reads_x) {#name, reads_x, ck_##name##_forward, ck_##name##_backward},
static const ck_activation activations[] = {
#include "activations.def"
};
#undef CK_ACTIVATION

const ck_activation *ck_activation_at(size_t index) {
  return index < sizeof activations / sizeof *activations ? activations + index : NULL;
}
const ck_conv_variant *ck_conv_variant_at(size_t index) {
  return index < sizeof conv_variants / sizeof *conv_variants ? conv_variants + index : NULL;
}
const ck_pool_variant *ck_pool_variant_at(size_t index) {
  return index < sizeof pool_variants / sizeof *pool_variants ? pool_variants + index : NULL;
}

#ifndef CK_BOUND
#define CK_BOUND auto
#endif
#define TEXT_(x) #x
#define TEXT(x) TEXT_(x)
const char *ck_bound_variant(void) { return TEXT(CK_BOUND); }

int ck_flush_denormals(int on) {
#if defined(__x86_64__)
  const unsigned bits = 0x8040;  // flush to zero, denormals are zero
  unsigned before = _mm_getcsr();
  _mm_setcsr(on ? before | bits : before & ~bits);
  return (before & bits) == bits;
#elif defined(__aarch64__)
  uint64_t before, bit = 1u << 24;  // FPCR.FZ
  __asm__ volatile("mrs %0, fpcr" : "=r"(before));
  __asm__ volatile("msr fpcr, %0" ::"r"(on ? before | bit : before & ~bit));
  return (before & bit) != 0;
#else
  (void)on;
  return 0;
#endif
}

int ck_is_debug_build(void) {
#if defined(__OPTIMIZE__)
  return 0;
#else
  return 1;
#endif
}
