// SPDX-License-Identifier: MIT
// The instruction sets. The files *.inc.h are written once, in portable vector code,
// and compiled once for each set by isa_baseline.c, isa_avx2.c and isa_avx512.c, which say how wide
// a vector is (CK_LANES floats), how many rows of accumulators the registers hold (CK_MR) and what
// the functions' names end in. One table a set; cpu.c picks one at the first call.
#ifndef CK_ISA_H
#define CK_ISA_H
#include "CKernels.h"

/// A sum of floats loses digits with each addition. After so many its part goes to the total, and
/// what is lost grows with the number of parts from there on.
enum { CK_SUMMED = 8192 };

/// Columns of a panel of bf16's right operand.
enum { CK_BF16_PANEL = 16 };

/// C (m,n) = A·B, or C + A·B, or, where `start` isn't NULL, a row of n numbers + A·B; n is a
/// multiple of 16. A row of A is `runs` runs of `pairs` words, two numbers of bf16 a word, a_run
/// numbers apart; rows are a_row numbers apart. B's panels of 16 columns, `panel` words apart, have
/// run_rows rows of 16 words for each run, a multiple of 16: those behind the first `pairs` are
/// zeros. A may be read as if the pairs of a run were a multiple of 16: what is read too much must
/// be numbers. With `taps` above 0 as many products by the same B, done together, so that operands
/// come from the first-level cache: A of number t starts t / across · down + t % across numbers
/// further on, C t · c_tap floats.
typedef struct ck_bf16_product {
  ptrdiff_t m, n, runs, pairs, run_rows;
  const uint16_t *a;
  ptrdiff_t a_row, a_run;
  const uint32_t *b;
  ptrdiff_t panel;
  float *c;
  ptrdiff_t ldc;
  int accumulate;
  const float *start;
  ptrdiff_t taps, across, down, c_tap;
} ck_bf16_product;
typedef void ck_bf16_product_fn(const ck_bf16_product *p);
/// out = n numbers as bf16.
typedef void ck_bf16_round_fn(ptrdiff_t n, const float *x, uint16_t *out);
/// Rows of words, CK_BF16_PANEL in each panel: n numbers of `first`, in the lower halves, and of
/// `second`; both `step` floats further on from row to row. One that is NULL is zeros, and so are
/// columns that are missing.
typedef void ck_bf16_round_pairs_fn(ptrdiff_t rows, ptrdiff_t n, const float *first,
                                    const float *second, ptrdiff_t step, uint32_t *out,
                                    ptrdiff_t panel);
struct ck_bf16_functions {
  ck_bf16_product_fn *product;
  ck_bf16_round_fn *round;
  ck_bf16_round_pairs_fn *round_pairs;
};
/// Those of the unit in use.
const ck_bf16_functions *ck_bf16(void);
#if defined(__x86_64__)
extern const ck_bf16_functions ck_bf16_avx512_bf16, ck_bf16_amx;
/// Whether the processor has a matrix unit and the system lets this program use it.
int ck_amx_is_there(void);
#endif

extern const ck_table ck_table_baseline;
#if defined(__x86_64__)
extern const ck_table ck_table_avx2, ck_table_avx512;
#endif

#define CK_JOIN_(a, b) a##_##b
#define CK_JOIN(a, b) CK_JOIN_(a, b)
/// The name of a function of this instruction set: CK_NAME(ck_gemm) is ck_gemm_avx2. What is always
/// inlined needs none: it is no symbol, and each set's file is compiled by itself.
#define CK_NAME(base) CK_JOIN(base, CK_SUFFIX)
#endif
