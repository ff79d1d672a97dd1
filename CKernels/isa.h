// SPDX-License-Identifier: MIT
// The instruction sets. The files *.inc.h are written once, in portable vector code,
// and compiled once for each set by isa_baseline.c, isa_avx2.c and isa_avx512.c, which say how wide
// a vector is (CK_LANES floats), how many rows of accumulators the registers hold (CK_MR) and what
// the functions' names end in. One table a set; cpu.c picks one at the first call.
#ifndef CK_ISA_H
#define CK_ISA_H
#include "CKernels.h"

typedef struct ck_isa {
  const char *name;
  void (*gemm)(int, ptrdiff_t, ptrdiff_t, ptrdiff_t, const float *, ptrdiff_t, const float *,
               ptrdiff_t, float *, ptrdiff_t, float *);
  void (*gemm_packing)(int, ptrdiff_t, ptrdiff_t, ptrdiff_t, ck_pack_fn *, const void *,
                       const float *, ptrdiff_t, float *, ptrdiff_t, float *);
  size_t (*gemm_workspace)(void);
  ck_conv_forward_fn *conv_forward;
  ck_conv_input_gradient_fn *conv_input_gradient;
  ck_conv_weight_gradient_fn *conv_weight_gradient;
  ck_conv_workspace_fn *conv_workspace;
  ck_conv_forward_fn *depthwise_forward;
  ck_conv_input_gradient_fn *depthwise_input_gradient;
  ck_conv_weight_gradient_fn *depthwise_weight_gradient;
  ck_conv_workspace_fn *depthwise_workspace;
  void (*conv_pool_forward)(const ck_conv_shape *, const float *, const float *, const float *, int,
                            float *, uint16_t *, float *);
  void (*dense_forward)(ptrdiff_t, ptrdiff_t, ptrdiff_t, const float *, const float *,
                        const float *, int, float *, ptrdiff_t);
  ck_pool_max_forward_fn *pool_max_forward;
  ck_pool_max_backward_fn *pool_max_backward;
  ck_pool_avg_forward_fn *pool_avg_forward;
  ck_pool_avg_backward_fn *pool_avg_backward;
  void (*bias_add)(ptrdiff_t, ptrdiff_t, const float *, int, float *);
  void (*column_sum)(ptrdiff_t, ptrdiff_t, const float *, float *);
  void (*relu_forward)(ptrdiff_t, const float *, float *);
  void (*relu_backward)(ptrdiff_t, const float *, const float *, float *);
  void (*relu_places)(ptrdiff_t, const float *, uint16_t *);
#define CK_ACTIVATION(name, reads_x)        \
  ck_activation_forward_fn *name##_forward; \
  ck_activation_backward_fn *name##_backward;
#include "activations.def"
#undef CK_ACTIVATION
  void (*leaky_relu_forward)(ptrdiff_t, float, const float *, float *);
  void (*leaky_relu_backward)(ptrdiff_t, float, const float *, const float *, float *);
  void (*add)(ptrdiff_t, const float *, float *);
  void (*sum)(ptrdiff_t, const float *, const float *, float *);
  void (*sgd)(ptrdiff_t, const ck_update *, const float *, float *, float *);
  void (*rmsprop)(ptrdiff_t, const ck_update *, const float *, float *, float *, float *);
  void (*adam)(ptrdiff_t, const ck_update *, const float *, float *, float *, float *);
  void (*average)(ptrdiff_t, float, const float *, float *);
  void (*scale_bytes)(ptrdiff_t, const uint8_t *, float, float *);
  void (*moments)(ptrdiff_t, ptrdiff_t, const float *, float *, float *);
  void (*scale_shift)(ptrdiff_t, ptrdiff_t, const float *, const float *, const float *, int,
                      float *);
  void (*normalization_sums)(ptrdiff_t, ptrdiff_t, const float *, const float *, const float *,
                             const float *, const float *, int, float *, float *);
  void (*normalization_gradient)(ptrdiff_t, ptrdiff_t, const float *, const float *, const float *,
                                 const float *, const float *, int, const float *, const float *,
                                 float *);
  void (*layer_norm_forward)(ptrdiff_t, ptrdiff_t, const float *, const float *, const float *,
                             float, float *);
  void (*layer_norm_backward)(ptrdiff_t, ptrdiff_t, const float *, const float *, float,
                              const float *, float *, float *, float *);
  void (*dropout)(ptrdiff_t, uint64_t, uint32_t, uint32_t, float, const float *, float *);
  void (*warp)(ptrdiff_t, ptrdiff_t, ptrdiff_t, const float *, const float *, const float *,
               const float *, float *);
  void (*blur)(ptrdiff_t, ptrdiff_t, const float *, ptrdiff_t, const float *, float *);
  double (*fma_peak)(int64_t);
} ck_isa;

/// A sum of floats loses digits with each addition. After so many its part goes to the total, and
/// what is lost grows with the number of parts from there on.
enum { CK_SUMMED = 8192 };

extern const ck_isa ck_isa_baseline;
#if defined(__x86_64__)
extern const ck_isa ck_isa_avx2, ck_isa_avx512;
#endif

#define CK_JOIN_(a, b) a##_##b
#define CK_JOIN(a, b) CK_JOIN_(a, b)
/// The name of a function of this instruction set: CK_NAME(ck_gemm) is ck_gemm_avx2. What is always
/// inlined needs none: it is no symbol, and each set's file is compiled by itself.
#define CK_NAME(base) CK_JOIN(base, CK_SUFFIX)
#endif
