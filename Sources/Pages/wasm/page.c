// SPDX-License-Identifier: MIT
// The kernels as the script of a page calls them: those of a table under their own names. Functions
// that have a name already are exported by `make wasm` as they are. Pointers are places in the
// module's memory, whose arrays the script lays out from __heap_base on.
#include "CKernels.h"

#define EXPORT(name) __attribute__((export_name(#name))) name
#define K ck_kernels()

/// The digest of the sources that this was made from, for the test that holds both together.
__attribute__((used)) const char digest[] = "sources " SOURCES;

void EXPORT(gemm)(int flags, ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, const float *a, ptrdiff_t lda,
                  const float *b, ptrdiff_t ldb, float *c, ptrdiff_t ldc, float *workspace) {
  K->gemm(flags, m, n, k, a, lda, b, ldb, c, ldc, workspace);
}
size_t EXPORT(gemm_workspace)(void) { return K->gemm_workspace; }
void EXPORT(dense_forward)(ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, const float *x, const float *w,
                           const float *bias, int relu, float *y) {
  K->dense_forward(m, n, k, x, w, bias, relu, y, n);
}
void EXPORT(column_sum)(ptrdiff_t rows, ptrdiff_t f, const float *y, float *sum) {
  K->column_sum(rows, f, y, sum);
}
void EXPORT(relu_forward)(ptrdiff_t n, const float *x, float *y) { K->relu_forward(n, x, y); }
void EXPORT(relu_backward)(ptrdiff_t n, const float *y, const float *dy, float *dx) {
  K->relu_backward(n, y, dy, dx);
}
void EXPORT(leaky_relu_forward)(ptrdiff_t n, float slope, const float *x, float *y) {
  K->leaky_relu_forward(n, slope, x, y);
}
void EXPORT(leaky_relu_backward)(ptrdiff_t n, float slope, const float *y, const float *dy,
                                 float *dx) {
  K->leaky_relu_backward(n, slope, y, dy, dx);
}
/// Activation number `index` of activations.def; NULL past the end.
const ck_activation *EXPORT(activation_at)(size_t index) {
  return index < K->activation_count ? &K->activations[index] : NULL;
}
void EXPORT(activation_forward)(const ck_activation *a, ptrdiff_t n, const float *x, float *y) {
  a->forward(n, x, y);
}
void EXPORT(activation_backward)(const ck_activation *a, ptrdiff_t n, const float *from,
                                 const float *dy, float *dx) {
  a->backward(n, from, dy, dx);
}
void EXPORT(max_forward)(const ck_pool_variant *v, const ck_pool_shape *s, const float *x, float *y,
                         uint16_t *place) {
  v->max_forward(s, x, y, place);
}
void EXPORT(max_backward)(const ck_pool_variant *v, const ck_pool_shape *s, const float *dy,
                          const uint16_t *place, float *dx) {
  v->max_backward(s, dy, place, dx);
}
void EXPORT(avg_forward)(const ck_pool_variant *v, const ck_pool_shape *s, const float *x,
                         float *y) {
  v->avg_forward(s, x, y);
}
void EXPORT(avg_backward)(const ck_pool_variant *v, const ck_pool_shape *s, const float *dy,
                          float *dx) {
  v->avg_backward(s, dy, dx);
}
void EXPORT(dropout)(ptrdiff_t n, uint32_t key, uint32_t first, uint32_t threshold, float scale,
                     const float *x, float *y) {
  K->dropout(n, key, first, threshold, scale, x, y);
}
void EXPORT(scale_shift)(ptrdiff_t rows, ptrdiff_t c, const float *x, const float *scale,
                         const float *shift, int relu, float *y) {
  K->scale_shift(rows, c, x, scale, shift, relu, y);
}
void EXPORT(moments)(ptrdiff_t rows, ptrdiff_t c, const float *x, float *mean, float *squares) {
  K->moments(rows, c, x, mean, squares);
}
void EXPORT(normalization_sums)(ptrdiff_t rows, ptrdiff_t c, const float *x, const float *dy,
                                const float *mean, const float *scale, const float *shift, int relu,
                                float *sum, float *product) {
  K->normalization_sums(rows, c, x, dy, mean, scale, shift, relu, sum, product);
}
void EXPORT(normalization_gradient)(ptrdiff_t rows, ptrdiff_t c, const float *x, const float *dy,
                                    const float *mean, const float *scale, const float *shift,
                                    int relu, const float *a, const float *b, float *dx) {
  K->normalization_gradient(rows, c, x, dy, mean, scale, shift, relu, a, b, dx);
}
void EXPORT(layer_norm_forward)(ptrdiff_t rows, ptrdiff_t c, const float *x, const float *gain,
                                const float *bias, float epsilon, float *y) {
  K->layer_norm_forward(rows, c, x, gain, bias, epsilon, y);
}
void EXPORT(layer_norm_backward)(ptrdiff_t rows, ptrdiff_t c, const float *x, const float *gain,
                                 float epsilon, const float *dy, float *dx, float *dgain,
                                 float *dbias) {
  K->layer_norm_backward(rows, c, x, gain, epsilon, dy, dx, dgain, dbias);
}
void EXPORT(add)(ptrdiff_t n, const float *x, float *y) { K->add(n, x, y); }
void EXPORT(sum)(ptrdiff_t n, const float *a, const float *b, float *y) {
  K->sum(1, n, a, NULL, NULL, b, NULL, NULL, 0, y);
}
void EXPORT(warp)(ptrdiff_t h, ptrdiff_t w, ptrdiff_t c, const float *x, const float *map,
                  float *y) {
  K->warp(h, w, c, x, map, NULL, NULL, y);
}
void EXPORT(sgd)(ptrdiff_t n, const ck_update *u, const float *gradient, float *velocity,
                 float *square, float *weight) {
  (void)square;
  K->sgd(n, u, gradient, velocity, weight);
}
void EXPORT(rmsprop)(ptrdiff_t n, const ck_update *u, const float *gradient, float *velocity,
                     float *square, float *weight) {
  K->rmsprop(n, u, gradient, velocity, square, weight);
}
void EXPORT(adam)(ptrdiff_t n, const ck_update *u, const float *gradient, float *velocity,
                  float *square, float *weight) {
  K->adam(n, u, gradient, velocity, square, weight);
}
/// Floating-point operations of so many rounds of multiply-adds.
double EXPORT(peak)(int32_t steps) { return K->fma_peak(steps); }
