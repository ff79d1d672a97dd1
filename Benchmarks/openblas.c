// SPDX-License-Identifier: MIT
// The matrix products of training beside OpenBLAS's, on one thread, taking turns, so that a change
// in the machine's speed meets both. Both results are compared first. Prints medians.
#include <cblas.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "CKernels.h"

enum { ROUNDS = 21, BATCH = 128, INPUTS = 5408, OUTPUTS = 100, SIDE = 1024 };

static float *a, *b, *c, *theirs, *bias, *workspace;

static float *filled(size_t count, unsigned seed) {
  float *x = aligned_alloc(64, (sizeof(float) * count + 63) / 64 * 64);
  if (!x) abort();
  for (size_t i = 0; i < count; i++) {
    seed = seed * 1664525u + 1013904223u;
    x[i] = (float)(seed >> 8) / 16777216 - 0.5f;
  }
  return x;
}

// 1024×1024×1024
static void square(void) {
  ck_kernels()->gemm(0, SIDE, SIDE, SIDE, a, SIDE, b, SIDE, c, SIDE, workspace);
}
static void square_blas(void) {
  cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, SIDE, SIDE, SIDE, 1, a, SIDE, b, SIDE, 0,
              theirs, SIDE);
}

// A dense layer: y (BATCH,OUTPUTS) = x (BATCH,INPUTS) · w (OUTPUTS,INPUTS) transposed + bias
static void forward(void) {
  ck_kernels()->dense_forward(BATCH, OUTPUTS, INPUTS, a, b, bias, 0, c, OUTPUTS);
}
static void forward_blas(void) {
  for (int i = 0; i < BATCH; i++) memcpy(theirs + i * OUTPUTS, bias, sizeof(float) * OUTPUTS);
  cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, BATCH, OUTPUTS, INPUTS, 1, a, INPUTS, b,
              INPUTS, 1, theirs, OUTPUTS);
}

// dx (BATCH,INPUTS) = dy (BATCH,OUTPUTS) · w
static void input_gradient(void) {
  ck_kernels()->gemm(0, BATCH, INPUTS, OUTPUTS, a, OUTPUTS, b, INPUTS, c, INPUTS, workspace);
}
static void input_gradient_blas(void) {
  cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, BATCH, INPUTS, OUTPUTS, 1, a, OUTPUTS, b,
              INPUTS, 0, theirs, INPUTS);
}

// dw (OUTPUTS,INPUTS) = dy transposed · x
static void weight_gradient(void) {
  ck_kernels()->gemm(CK_TRANSPOSE_A, OUTPUTS, INPUTS, BATCH, a, OUTPUTS, b, INPUTS, c, INPUTS,
                     workspace);
}
static void weight_gradient_blas(void) {
  cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, OUTPUTS, INPUTS, BATCH, 1, a, OUTPUTS, b,
              INPUTS, 0, theirs, INPUTS);
}

static const struct {
  const char *name;
  void (*ours)(void), (*theirs)(void);
  double m, n, k;
} cases[] = {
    {"square", square, square_blas, SIDE, SIDE, SIDE},
    {"dense forward", forward, forward_blas, BATCH, OUTPUTS, INPUTS},
    {"dense dx", input_gradient, input_gradient_blas, BATCH, INPUTS, OUTPUTS},
    {"dense dw", weight_gradient, weight_gradient_blas, OUTPUTS, INPUTS, BATCH},
};

static double seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double timed(int repeats, void (*run)(void)) {
  double start = seconds();
  for (int i = 0; i < repeats; i++) run();
  return (seconds() - start) / repeats;
}

static double peak(void) {
  double start = seconds(), operations = ck_kernels()->fma_peak(200000);
  return operations / (seconds() - start);
}

static int ascending(const void *x, const void *y) {
  return (*(const double *)x > *(const double *)y) - (*(const double *)x < *(const double *)y);
}
static double median(double times[ROUNDS]) {
  qsort(times, ROUNDS, sizeof *times, ascending);
  return times[ROUNDS / 2];
}

int main(void) {
  const size_t most = (size_t)SIDE * SIDE;  // floats in the largest operand
  a = filled(most, 1), b = filled(most, 2), bias = filled(OUTPUTS, 3);
  c = filled(most, 4), theirs = filled(most, 5),
  workspace = filled(ck_kernels()->gemm_workspace, 6);
  openblas_set_num_threads(1);
  printf("StrideNet %s, %s, core %s, one thread, medians of %d\n\n", ck_kernels()->name,
         openblas_get_config(), openblas_get_corename(), ROUNDS);
  // A × is two bytes: the second column is 14 wide.
  printf("%-14s %-16s %10s %12s %6s %14s %10s %9s\n", "", "M×N×K", "StrideNet", "OpenBLAS", "ratio",
         "FMA peak", "StrideNet", "OpenBLAS");
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    double ours[ROUNDS], other[ROUNDS], peaks[ROUNDS];
    double operations = 2 * cases[i].m * cases[i].n * cases[i].k;
    size_t results = (size_t)(cases[i].m * cases[i].n);
    cases[i].ours(), cases[i].theirs();
    for (size_t e = 0; e < results; e++)
      if (!(fabsf(c[e] - theirs[e]) < 1e-3f)) {
        printf("%s: element %zu is %g, OpenBLAS has %g\n", cases[i].name, e, c[e], theirs[e]);
        return 1;
      }
    int repeats = 1 + (int)(0.01 / timed(1, cases[i].ours));
    for (int r = 0; r < ROUNDS; r++) {
      ours[r] = timed(repeats, cases[i].ours);
      other[r] = timed(repeats, cases[i].theirs);
      peaks[r] = peak();
    }
    double t = median(ours), u = median(other), fastest = median(peaks);
    char size[32];
    snprintf(size, sizeof size, "%.0f×%.0f×%.0f", cases[i].m, cases[i].n, cases[i].k);
    printf("%-14s %-16s %7.3f ms %9.3f ms %6.2f %7.0f GFLOP/s %8.0f %% %7.0f %%\n", cases[i].name,
           size, t * 1e3, u * 1e3, u / t, fastest / 1e9, 100 * operations / t / fastest,
           100 * operations / u / fastest);
  }
  return 0;
}
