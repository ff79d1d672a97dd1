// SPDX-License-Identifier: MIT
// The kernels' contract. Pure functions on float arrays: nothing here allocates, starts threads,
// does I/O or keeps state (but for the instruction set, chosen once). All are reentrant.
//
// Letters: N images, H×W×C input height, width, channels, FH×FW filter size, F filters,
// SH, SW strides, PH, PW padding at the top and left, OH×OW output size.
// Activations are NHWC, convolution weights HWIO, dense weights (outputs, inputs).
// Buffers don't overlap unless a function says that they may. Alignment is that of a float;
// 64 bytes is faster. Sizes are positive. Workspaces are scratch: their contents mean nothing
// before or after a call, and no two calls at the same time may share one.
//
// A NaN goes through everything: it is a window's largest value, ReLU leaves it, and where an
// activation's output is one, its gradient arrives. Convolutions by winograd also carry it, as they
// make one of an infinity, to the other outputs of a tile of 4×4, and to all weights of a channel.
//
// Rounding. With u = 2^-24, a sum of n terms whose sizes add up to S is off by at most g·u·S:
//   g = n + 1                  forward pass and input gradient of naive, direct and depthwise
//                              convolutions (n = FH·FW·C/G or the terms that F adds), mean of a
//                              window of up to 256 elements, gradients of pooling
//   g = 512 + n/512            gemm (n = K), and so convolutions by stride_groups and im2col
//   g = 264 + n/1024           dense_forward (n = K)
//   g = 8194 + n/8192          weight gradients (n = N·OH·OW), column_sum
//   g = 264                    sums that end in double precision: softmax and its gradient,
//                              normalisation, the mean of a larger window
//   g = 264 + rows/256         dgain and dbias of layer normalisation
// winograd (3×3 with a stride of 1) transforms what it multiplies, and multiplies less: its sums
// have n = C/G terms, in the input gradient F/G, in the weight gradient as many as there are tiles,
// N·⌈OH/m⌉·⌈OW/m⌉. With tiles of m = 4, a row of the transforms, all sizes added up, makes each
// term 27.5² times as large as a product, 33.2² in the weight gradient; with m = 2, below 16
// channels or filters, 8² and 6². So with X and W the largest numbers that a tile and its filter
// are made of, not the window alone,
//   g = n + 25, S = 757·n·X·W, 64·n·X·W    winograd: up to 8 roundings a transform, and the sum
//   g = n + 25, S = 1103·n·X·Y, 36·n·X·Y   its weight gradient
// and where errors are as often up as down, u·27·√(n·(n + 25)) times the root mean squares of x and
// w, 29 in the weight gradient, and with m = 2 5 and 4: roots of the sums of the squares of the
// same matrices' elements. By bf16 each of the two factors is rounded once it is transformed, which
// adds 2^-7·S, and where errors are as often up as down 2^-8·27·√n and so on.
// Where errors are as often up as down, as with numbers that have nothing to do with each other, it
// is about the square root of that. A variance is off by 264·u of itself, and by the square of what
// the mean is off. A loss is off by 264·u of itself, whatever the logits' size.
#ifndef CKERNELS_H
#define CKERNELS_H
#include <stddef.h>
#include <stdint.h>

#include "stride_groups.h"

// No pointer may be NULL but those that say so.
#if defined(__clang__)
#pragma clang assume_nonnull begin
#else
#define _Nullable
#endif

// ---- Convolution --------------------------------------------------------------------------------

/// Shape of a convolution. OH = (H + PH + bottom - DH·(FH - 1) - 1) / SH + 1 rounded down: the
/// caller gives OH and OW, so padding below and to the right is whatever the last window needs,
/// zeros all round. Dilation DH, DW: the distance of a window's elements, 1 where they are
/// neighbours. With G groups, filters f in g·F/G..<(g + 1)·F/G see channels g·C/G..<(g + 1)·C/G
/// alone.
typedef struct ck_conv_shape {
  int32_t n, h, w, c;
  int32_t fh, fw, f;
  int32_t sh, sw;
  int32_t ph, pw;
  int32_t oh, ow;
  int32_t dh, dw, groups;
} ck_conv_shape;

/// The three passes of a layer.
typedef enum ck_pass { CK_FORWARD = 0, CK_INPUT_GRADIENT = 1, CK_WEIGHT_GRADIENT = 2 } ck_pass;

/// y[n,p,q,f] = bias[f] + sum over i,j,c of x[n, p·SH+DH·i-PH, q·SW+DW·j-PW, g·C/G+c] · w[i,j,c,f],
/// c in 0..<C/G, g the group of f, and of that max(., 0) with relu.
/// x (N,H,W,C), w (FH,FW,C/G,F), bias (F) or NULL, y (N,OH,OW,F), overwritten.
typedef void ck_conv_forward_fn(const ck_conv_shape *s, const float *x, const float *w,
                                const float *_Nullable bias, int relu, float *y,
                                float *_Nullable workspace);

/// dx[n,a,b,g·C/G+c] = sum over all (p,i), (q,j) with p·SH+DH·i-PH = a, q·SW+DW·j-PW = b, and f of
/// group g, of dy[n,p,q,f] · w[i,j,c,f].  dy (N,OH,OW,F), w (FH,FW,C/G,F), dx (N,H,W,C),
/// overwritten.
typedef void ck_conv_input_gradient_fn(const ck_conv_shape *s, const float *dy, const float *w,
                                       float *dx, float *_Nullable workspace);

/// dw[i,j,c,f] = sum over n,p,q of x[n, p·SH+DH·i-PH, q·SW+DW·j-PW, g·C/G+c] · dy[n,p,q,f]
/// x (N,H,W,C), dy (N,OH,OW,F), dw (FH,FW,C/G,F), overwritten. The bias' gradient is
/// column_sum of dy.
typedef void ck_conv_weight_gradient_fn(const ck_conv_shape *s, const float *x, const float *dy,
                                        float *dw, float *_Nullable workspace);

/// Floats of workspace that a pass needs; may be 0.
typedef size_t ck_conv_workspace_fn(const ck_conv_shape *s, ck_pass pass);

/// The weights made ready for a pass, packed or transformed, in so many floats: they serve any
/// number of calls, for any number of images, until the weights change.  w (FH,FW,C/G,F).
typedef size_t ck_conv_ready_count_fn(const ck_conv_shape *s, ck_pass pass);
typedef void ck_conv_ready_fn(const ck_conv_shape *s, ck_pass pass, const float *w, float *ready);

/// The forward pass and max-pooling in windows of 2×2 side by side in one: y (N,OH/2,OW/2,F) and
/// place are what the variant's forward pass, max_forward of the direct pooling, and relu_places
/// with relu, give bit for bit. place may be NULL; s->oh, s->ow are at least 2; workspace as for
/// the forward pass.
typedef void ck_conv_pool_forward_fn(const ck_conv_shape *s, const float *x, const float *w,
                                     const float *_Nullable bias, int relu, float *y,
                                     uint16_t *_Nullable place, float *_Nullable workspace);

/// A way of computing it. The functions take shapes without dilation and groups alone, unless
/// takes_any is set, and where there is a `ready`, what that made of w in place of w; for any shape
/// and w itself there is ck_conv_forward and so on.
typedef struct ck_conv_variant {
  const char *name, *description;
  ck_conv_forward_fn *forward;
  ck_conv_input_gradient_fn *input_gradient;
  ck_conv_weight_gradient_fn *weight_gradient;
  ck_conv_workspace_fn *workspace;
  int takes_any;
  int bf16;  // multiplies numbers rounded to bf16; depthwise ones as they are
  // What not every variant has: the pass with pooling, weights made ready, and kernels of its own
  // for depthwise shapes.
  ck_conv_pool_forward_fn *_Nullable pool_forward;
  ck_conv_ready_count_fn *_Nullable ready_count;
  ck_conv_ready_fn *_Nullable ready;
  const struct ck_conv_variant *_Nullable depthwise;
} ck_conv_variant;

/// Any convolution by a variant: dense ones, without dilation and groups, by itself; depthwise
/// ones, where groups, channels and filters are as many, by its kernels for them if it has any;
/// others split into dense ones (conv_split.c).
void ck_conv_forward(const ck_conv_variant *v, const ck_conv_shape *s, const float *x,
                     const float *w, const float *_Nullable bias, int relu, float *y,
                     float *_Nullable workspace);
void ck_conv_input_gradient(const ck_conv_variant *v, const ck_conv_shape *s, const float *dy,
                            const float *w, float *dx, float *_Nullable workspace);
void ck_conv_weight_gradient(const ck_conv_variant *v, const ck_conv_shape *s, const float *x,
                             const float *dy, float *dw, float *_Nullable workspace);
size_t ck_conv_workspace(const ck_conv_variant *v, const ck_conv_shape *s, ck_pass pass);

/// Channels and filters from which on winograd takes its larger tiles, whatever the batch: there
/// they are the faster.
enum { CK_WINOGRAD_MANY = 16 };

typedef enum ck_conv_way { CK_ITSELF = 0, CK_DEPTHWISE = 1, CK_SPLIT = 2 } ck_conv_way;
/// Which of the three it is.
ck_conv_way ck_conv_way_of(const ck_conv_variant *v, const ck_conv_shape *s);

// ---- Pooling ------------------------------------------------------------------------------------

/// Shape of a pooling: window FH×FW (at most 65,535 elements for the largest, whose place is kept,
/// and 2^24 for the mean), no padding,
/// OH = (H - FH) / SH + 1 rounded down.
typedef struct ck_pool_shape {
  int32_t n, h, w, c;
  int32_t fh, fw;
  int32_t sh, sw;
  int32_t oh, ow;
} ck_pool_shape;

/// y[n,p,q,c] = max over i,j of x[n, p·SH+i, q·SW+j, c], and place[n,p,q,c] = i·FW + j of the first
/// maximum in scan order; where there is a NaN, that and the last one's place.  x (N,H,W,C), y and
/// place (N,OH,OW,C), overwritten.
typedef void ck_pool_max_forward_fn(const ck_pool_shape *s, const float *x, float *y,
                                    uint16_t *place);
/// dx gets dy at the remembered places, summed where windows overlap, 0 elsewhere. A place of
/// 65,535 is none: that output's gradient goes nowhere.
typedef void ck_pool_max_backward_fn(const ck_pool_shape *s, const float *dy, const uint16_t *place,
                                     float *dx);
/// y[n,p,q,c] = mean over i,j of x[n, p·SH+i, q·SW+j, c]
typedef void ck_pool_avg_forward_fn(const ck_pool_shape *s, const float *x, float *y);
/// dx[n,a,b,c] = sum over the windows that hold (a,b) of dy / (FH·FW)
typedef void ck_pool_avg_backward_fn(const ck_pool_shape *s, const float *dy, float *dx);

typedef struct ck_pool_variant {
  const char *name, *description;
  ck_pool_max_forward_fn *max_forward;
  ck_pool_max_backward_fn *max_backward;
  ck_pool_avg_forward_fn *avg_forward;
  ck_pool_avg_backward_fn *avg_backward;
} ck_pool_variant;

// ---- The list of variants -----------------------------------------------------------------------

/// The variants in the list's order, with the instruction set that is in use; NULL past the end.
const ck_conv_variant *_Nullable ck_conv_variant_at(size_t index);
const ck_pool_variant *_Nullable ck_pool_variant_at(size_t index);
/// The variant bound at build time: a name of the list, or "auto".
const char *ck_bound_variant(void);

// ---- Softmax and losses -------------------------------------------------------------------------

/// Each row's exp(x - max) / sum; y may be x; x, y (rows,F)
void ck_softmax_forward(ptrdiff_t rows, ptrdiff_t f, const float *x, float *y);
/// dx = y · (dy - <y, dy>) row by row; dx may be dy
void ck_softmax_backward(ptrdiff_t rows, ptrdiff_t f, const float *y, const float *dy, float *dx);
/// From logits (rows,F) and labels (rows) in 0..<F: with targets t = 1 - smoothing + smoothing / F
/// for the label and smoothing / F for the others, loss[r] = -sum of t log softmax(logits[r]),
/// computed from the logits, so it is right where a probability rounds to 0;
/// dlogits (rows,F) = scale · (softmax - t), or NULL; wrong[r] = 1 where the first largest
/// logit is not the label's (or a logit is NaN). probabilities (rows,F) may be logits.
void ck_softmax_cross_entropy(ptrdiff_t rows, ptrdiff_t f, const float *logits,
                              const int32_t *labels, float smoothing, float scale,
                              float *probabilities, float *_Nullable dlogits, float *loss,
                              int32_t *wrong);
/// loss[r] = mean over f of (y[r,f] - onehot)²; dy (rows,F) = scale · 2/F · (y - onehot), or NULL;
/// wrong as above
void ck_squared_error(ptrdiff_t rows, ptrdiff_t f, const float *y, const int32_t *labels,
                      float scale, float *_Nullable dy, float *loss, int32_t *wrong);
/// Sum of squares, in double precision and the order of x
double ck_sum_of_squares(ptrdiff_t n, const float *x);

// ---- What the kernels below take ----------------------------------------------------------------

/// A or B is stored transposed; C is added to instead of overwritten.
enum { CK_TRANSPOSE_A = 1, CK_TRANSPOSE_B = 2, CK_ACCUMULATE = 4, CK_READY_B = 8 };
/// The parts in which a matrix is made ready for the product of bf16.
enum { CK_BF16_COLUMNS = 256, CK_BF16_DEPTH = 512 };

/// Writes elements (row..<row+rows, from..<from+count) of a matrix so that for each column the rows
/// lie side by side: out[(p - from) · rows + i]. May write 3 floats more than that.
typedef void ck_pack_fn(const void *matrix, ptrdiff_t row, ptrdiff_t rows, ptrdiff_t from,
                        ptrdiff_t count, float *out);

/// y = f(x); y may be x
typedef void ck_activation_forward_fn(ptrdiff_t n, const float *x, float *y);
/// dx = dy · f'; `from` is y, or x where reads_x is set; dx may be dy
typedef void ck_activation_backward_fn(ptrdiff_t n, const float *from, const float *dy, float *dx);
typedef struct ck_activation {
  const char *name;
  int reads_x;
  ck_activation_forward_fn *forward;
  ck_activation_backward_fn *backward;
} ck_activation;

/// What a step of descent does. g, which all of them start from, is
/// scale · gradient + l2 · weight + l1 · sign(weight).
typedef struct ck_update {
  float rate;            // the learning rate
  float scale, l2, l1;   // of the gradient
  float keep;            // Adam: 1 less the decoupled weight decay: weight starts as keep · weight
  float momentum;        // Adam's beta1
  float beta2, epsilon;  // RMSprop, Adam
  float correction1, correction2;  // Adam: 1 - beta1^t, 1 - beta2^t in step t
  int nesterov;
} ck_update;

// ---- The kernels of an instruction set ----------------------------------------------------------

/// What bf16 is rounded and multiplied by: the kernels' own matter.
typedef struct ck_bf16_functions ck_bf16_functions;

/// What is compiled for each instruction set. ck_kernels() has the functions of the one in use:
/// ck_kernels()->add(n, x, y). In `perf report` they are ck_add_avx2 and so on.
typedef struct ck_table {
  /// The instruction set: "avx512", "avx2", "neon" or "baseline".
  const char *name;

  // Matrix product and dense layer

  /// C (M,N) = A (M,K) · B (K,N), row-major with row strides lda, ldb, ldc (in floats, at least the
  /// row's length). With CK_TRANSPOSE_A, A is stored (K,M); with CK_TRANSPOSE_B, B is stored (N,K).
  /// The order of the sums depends on K alone, so an element of C is the same bit for bit whatever
  /// part of C a call computes. workspace: gemm_workspace floats.
  void (*gemm)(int flags, ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, const float *a, ptrdiff_t lda,
               const float *b, ptrdiff_t ldb, float *c, ptrdiff_t ldc, float *workspace);
  size_t gemm_workspace;
  /// The same product with an A that is nowhere in memory: `pack` writes the parts that are needed
  /// next straight into the order in which the product reads them.
  void (*gemm_packing)(int flags, ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, ck_pack_fn *pack,
                       const void *matrix, const float *b, ptrdiff_t ldb, float *c, ptrdiff_t ldc,
                       float *workspace);

  /// The dense layer: y (M,N) = x (M,K) · w (N,K) transposed + bias (N), and of that max(., 0) with
  /// relu. Rows of y are ldy floats apart. An element's sum is the same in whatever call it is.
  void (*dense_forward)(ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, const float *x, const float *w,
                        const float *bias, int relu, float *y, ptrdiff_t ldy);

  /// gemm with A and B rounded to bf16; products and their sums are floats, in the order of k.
  /// With CK_READY_B, b is what bf16_ready made of B, and ldb is bf16_column(K); C's columns then
  /// begin at a multiple of CK_BF16_COLUMNS, column j's at b + j · ldb. workspace:
  /// gemm_bf16_workspace floats.
  void (*gemm_bf16)(int flags, ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, const float *a, ptrdiff_t lda,
                    const float *b, ptrdiff_t ldb, float *c, ptrdiff_t ldc, float *workspace);
  size_t gemm_bf16_workspace;
  /// Floats that a column of a B of K rows takes when it is ready; columns are a multiple of 16.
  ptrdiff_t (*bf16_column)(ptrdiff_t k);
  /// Makes B (K,N), with CK_TRANSPOSE_B stored (N,K), ready for many calls: one of its parts, each
  /// of CK_BF16_COLUMNS by CK_BF16_DEPTH numbers, those of the first columns first. workspace as
  /// gemm_bf16's.
  void (*bf16_ready)(int flags, ptrdiff_t n, ptrdiff_t k, const float *b, ptrdiff_t ldb,
                     ptrdiff_t part, float *ready, float *workspace);
  /// What does it where there is no unit for it.
  const ck_bf16_functions *bf16;

  // Rows and elements

  /// y[r,f] += bias[f] (nothing where bias is NULL), then max(., 0) with relu; y (rows,F)
  void (*bias_add)(ptrdiff_t rows, ptrdiff_t f, const float *_Nullable bias, int relu, float *y);
  /// sum[f] = sum over r of y[r,f], in the order of r, in parts of 8,192; y (rows,F)
  void (*column_sum)(ptrdiff_t rows, ptrdiff_t f, const float *y, float *sum);
  /// y = max(x, 0); y may be x
  void (*relu_forward)(ptrdiff_t n, const float *x, float *y);
  /// dx = 0 where y <= 0, else dy; dx may be dy
  void (*relu_backward)(ptrdiff_t n, const float *y, const float *dy, float *dx);
  /// place = 65,535 where y <= 0: ReLU's backward pass for a max-pooling after it
  void (*relu_places)(ptrdiff_t n, const float *y, uint16_t *place);
  /// y = x where x > 0, else slope · x; y may be x; the slope isn't below 0 (Maas et al. 2013)
  void (*leaky_relu_forward)(ptrdiff_t n, float slope, const float *x, float *y);
  /// dx = slope · dy where y <= 0, else dy; dx may be dy
  void (*leaky_relu_backward)(ptrdiff_t n, float slope, const float *y, const float *dy, float *dx);
  /// The activations of activations.def, in its order
  const ck_activation *activations;
  size_t activation_count;
  /// y += x
  void (*add)(ptrdiff_t n, const float *x, float *y);
  /// y = a + b, (rows,C), each before that times its scale plus its shift (C), unless they are
  /// NULL, and of that max(., 0) with relu; y may be a or b
  void (*sum)(ptrdiff_t rows, ptrdiff_t c, const float *a, const float *_Nullable scale_a,
              const float *_Nullable shift_a, const float *b, const float *_Nullable scale_b,
              const float *_Nullable shift_b, int relu, float *y);
  /// y = scale · x where a hash of key and the element's number, first onwards, is at least
  /// threshold, else 0 · x: each element is dropped with a probability of threshold / 2^32; y may
  /// be x
  void (*dropout)(ptrdiff_t n, uint64_t key, uint32_t first, uint32_t threshold, float scale,
                  const float *x, float *y);
  /// y = scale · x, from bytes
  void (*scale_bytes)(ptrdiff_t n, const uint8_t *x, float scale, float *y);

  // Normalisation

  /// mean[c] over r of x[r,c]; squares[c] = sum over r of (x[r,c] - mean[c])²   x (rows,C)
  void (*moments)(ptrdiff_t rows, ptrdiff_t c, const float *x, float *mean, float *squares);
  /// y[r,c] = x[r,c] · scale[c] + shift[c], and of that max(., 0) with relu; y may be x
  void (*scale_shift)(ptrdiff_t rows, ptrdiff_t c, const float *x, const float *scale,
                      const float *shift, int relu, float *y);
  /// The two sums that batch normalisation's gradients are made of: sum[c] = sum over r of g and
  /// product[c] = sum over r of g · (x[r,c] - mean[c]), with g = dy[r,c], or with relu 0 where
  /// x · scale + shift isn't above 0
  void (*normalization_sums)(ptrdiff_t rows, ptrdiff_t c, const float *x, const float *dy,
                             const float *mean, const float *scale, const float *shift, int relu,
                             float *sum, float *product);
  /// dx[r,c] = scale[c] · (g - a[c] - (x[r,c] - mean[c]) · b[c]), with g as above; dx may be dy
  void (*normalization_gradient)(ptrdiff_t rows, ptrdiff_t c, const float *x, const float *dy,
                                 const float *mean, const float *scale, const float *shift,
                                 int relu, const float *a, const float *b, float *dx);
  /// Layer normalisation: each row minus its mean, over √(variance + epsilon), then times gain (C)
  /// plus bias (C)
  void (*layer_norm_forward)(ptrdiff_t rows, ptrdiff_t c, const float *x, const float *gain,
                             const float *bias, float epsilon, float *y);
  /// dx, overwritten; dgain (C) and dbias (C) are added to
  void (*layer_norm_backward)(ptrdiff_t rows, ptrdiff_t c, const float *x, const float *gain,
                              float epsilon, const float *dy, float *dx, float *dgain,
                              float *dbias);

  // Optimisers

  /// velocity = momentum · velocity + g; weight -= rate · velocity, or with nesterov
  /// rate · (g + momentum · velocity)
  void (*sgd)(ptrdiff_t n, const ck_update *u, const float *gradient, float *velocity,
              float *weight);
  /// square = beta2 · square + (1 - beta2) · g²; velocity = momentum · velocity + g / (√square +
  /// epsilon); weight -= rate · velocity
  void (*rmsprop)(ptrdiff_t n, const ck_update *u, const float *gradient, float *velocity,
                  float *square, float *weight);
  /// first = beta1 · first + (1 - beta1) · g; second = beta2 · second + (1 - beta2) · g²;
  /// weight = keep · weight - rate · first/correction1 / (√(second/correction2) + epsilon)
  void (*adam)(ptrdiff_t n, const ck_update *u, const float *gradient, float *first, float *second,
               float *weight);
  /// y += share · (x - y)
  void (*average)(ptrdiff_t n, float share, const float *x, float *y);

  // Augmentation

  /// y[p,q] = x at row map[0]·p + map[1]·q + map[2] and column map[3]·p + map[4]·q + map[5], moved
  /// by down[p,q] and right[p,q] (H,W; both or neither NULL), bilinear, 0 outside. x (H+3,W+3,C):
  /// the image with one row and column of zeros before it and two behind; y (H,W,C)
  void (*warp)(ptrdiff_t h, ptrdiff_t w, ptrdiff_t c, const float *x, const float *map,
               const float *_Nullable down, const float *_Nullable right, float *y);
  /// y (W,H) = x (H,W) turned, each value the sum over k in -radius…radius of weights[k + radius]
  /// times its neighbour k rows below, where there is one
  void (*blur)(ptrdiff_t h, ptrdiff_t w, const float *x, ptrdiff_t radius, const float *weights,
               float *y);

  // Convolution and pooling

  /// The variants that are written in vector code.
  ck_conv_variant conv_direct, conv_winograd, conv_bf16, conv_winograd_bf16;
  ck_pool_variant pool_direct;

  // The processor

  /// Runs `steps` rounds of independent fused multiply-adds (the widest there are) and returns how
  /// many floating-point operations that were: timed by the caller, it gives the FMA peak.
  double (*fma_peak)(int64_t steps);
} ck_table;

/// The table of the instruction set in use, chosen at the first call from what the processor has.
const ck_table *ck_kernels(void);
/// Chooses another by its name, for tests and comparisons; 0 where the processor or the build
/// doesn't have it. Not to be called while kernels run.
int ck_isa_select(const char *name);
/// What multiplies bf16: "amx", tiles of the processor's matrix unit; "avx512_bf16", its
/// instruction for pairs; "emulated", the multiply-adds of the instruction set in use. The last two
/// give the same results bit for bit; the matrix unit adds a word's two numbers apart from each
/// other, 16 words at a time, and the two sums to the total.
const char *ck_bf16_unit(void);
/// Chooses another, as above.
int ck_bf16_select(const char *name);
/// Multiplies matrices of bf16 that a first-level cache holds, `steps` times, and returns how many
/// floating-point operations that were: timed by the caller, it gives bf16's peak.
double ck_bf16_peak(int64_t steps);

// ---- The processor ------------------------------------------------------------------------------

/// Subnormal numbers are read as and rounded to zero on this thread from now on (1) or no longer
/// (0): they slow training down tenfold and carry nothing it needs. Returns what was set before.
int ck_flush_denormals(int on);
/// 1 in a build without optimisation: kernels are some 30 times slower then.
int ck_is_debug_build(void);

#if defined(__clang__)
#pragma clang assume_nonnull end
#else
#undef _Nullable
#endif

// The variants that are written once.
#define CK_CONV(name) extern const ck_conv_variant ck_conv_##name;
#define CK_POOL(name) extern const ck_pool_variant ck_pool_##name;
#define CK_CONV_OF_SET(name)
#define CK_CONV_OF_BF16(name)
#define CK_POOL_OF_SET(name)
#include "variants.def"
#undef CK_CONV
#undef CK_POOL
#undef CK_CONV_OF_SET
#undef CK_CONV_OF_BF16
#undef CK_POOL_OF_SET
#endif
