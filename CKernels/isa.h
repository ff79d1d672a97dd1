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
