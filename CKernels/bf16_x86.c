// SPDX-License-Identifier: MIT
// The product of bf16 by what some x86 processors have for it. AVX512-BF16 multiplies 16 words by
// 16 and adds each word's two products to a lane's sum: the tile of bf16_product.inc.h with one
// instruction instead of two. AMX has eight tiles of 16 rows of 64 bytes: an instruction adds the
// product of 16×16 words of A by 16×16 of B to 16×16 sums, 8,192 multiply-adds, in as many cycles
// as a vector unit needs for 512. Four tiles hold sums, 32 rows by 32 columns; two and two the
// operands.
#if defined(__x86_64__)
#define _GNU_SOURCE
#include <immintrin.h>

#include "isa.h"
#define CK_SUFFIX avx512_bf16
#define CK_LANES 16
#define CK_MR 14
#pragma clang attribute push(                                                          \
    __attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16"))), \
    apply_to = function)
#include "vector.inc.h"
typedef uint32_t words __attribute__((vector_size(64), aligned(4)));
typedef uint16_t halves __attribute__((vector_size(32), aligned(2)));
#define CK_ROUND(x) (halves) _mm512_cvtneps_pbh((__m512)(x))
#define CK_ROUND_PAIR(first, second)                 \
  (__builtin_convertvector(CK_ROUND(first), words) | \
   __builtin_convertvector(CK_ROUND(second), words) << 16)
#include "bf16_round.inc.h"
#define CK_DOT(sum, left, right) \
  sum = (vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)(left), (__m512bh)(right))
#include "bf16_product.inc.h"
#pragma clang attribute pop

#pragma clang attribute push(__attribute__((target("amx-tile,amx-bf16"))), apply_to = function)

// Sums of `rows` by `columns` tiles, whose upper ones are at c, the others at `below`, by rows at
// `left` and, for those below, `lower` numbers further on, and the columns at `right`. Tiles 0 to 3
// are sums, 4 and 5 of A, 6 and 7 of B.
INLINE void amx_block(const int rows, const int columns, const ck_bf16_product *p,
                      const uint16_t *left, ptrdiff_t lower, const uint32_t *right,
                      const float *start, float *c, float *below) {
  ptrdiff_t ldc = 4 * p->ldc, step = 2 * p->a_row;
  if (p->accumulate || start) {
    // A row as each row of a tile: they lie 0 bytes apart.
    const float *first = p->accumulate ? c : start, *second = p->accumulate ? below : start;
    ptrdiff_t apart = p->accumulate ? ldc : 0;
    _tile_loadd(0, first, apart);
    if (columns > 1) _tile_loadd(1, first + 16, apart);
    if (rows > 1) _tile_loadd(2, second, apart);
    if (rows > 1 && columns > 1) _tile_loadd(3, second + 16, apart);
  } else {
    _tile_zero(0), _tile_zero(1), _tile_zero(2), _tile_zero(3);
  }
  for (ptrdiff_t run = 0; run < p->runs; run++) {
    const uint16_t *a = left + run * p->a_run;
    const uint32_t *b = right + run * p->run_rows * 16;
    for (ptrdiff_t k = 0; k < p->pairs; k += 16, a += 32, b += 256) {
      _tile_loadd(4, a, step);
      _tile_loadd(6, b, 64);
      _tile_dpbf16ps(0, 4, 6);
      if (columns > 1) {
        _tile_loadd(7, b + p->panel, 64);
        _tile_dpbf16ps(1, 4, 7);
      }
      if (rows > 1) {
        _tile_loadd(5, a + lower, step);
        _tile_dpbf16ps(2, 5, 6);
        if (columns > 1) _tile_dpbf16ps(3, 5, 7);
      }
    }
  }
  _tile_stored(0, c, ldc);
  if (columns > 1) _tile_stored(1, c + 16, ldc);
  if (rows > 1) _tile_stored(2, below, ldc);
  if (rows > 1 && columns > 1) _tile_stored(3, below + 16, ldc);
}

// Tiles of A and of sums have as many rows as there are.
static void configure(uint8_t upper, uint8_t lower) {
  const struct {
    uint8_t palette, start, zeros[14];
    uint16_t bytes[16];
    uint8_t rows[16];
  } tiles = {1,
             0,
             {0},
             {64, 64, 64, 64, 64, 64, 64, 64},
             {upper, upper, lower, lower, upper, lower, 16, 16}};
  _tile_loadconfig(&tiles);
}

static void ck_bf16_product_amx(const ck_bf16_product *p) {
  const ptrdiff_t taps = p->taps ? p->taps : 1, across = p->taps ? p->across : 1;
  // Of few rows two taps are done at a time, one below the other.
  const int twos = p->m <= 16 && taps > 1;
  // Of many taps a panel of A, which is read at as many places, stays in the cache while B passes
  // by; else one of B.
  const ptrdiff_t down = (p->m + 31) / 32, right = (p->n + 31) / 32;
  for (ptrdiff_t block = 0, configured = 0; block < down * right; block++) {
    ptrdiff_t i = 32 * (p->taps ? block / right : block % down);
    ptrdiff_t j = 32 * (p->taps ? block % right : block / down);
    ptrdiff_t rows = p->m - i < 32 ? p->m - i : 32;
    if (rows != configured) {
      if (twos)
        configure(rows, rows);
      else
        configure(rows < 16 ? rows : 16, rows > 16 ? rows - 16 : 16);
      configured = rows;
    }
    int wide = p->n - j > 16;
    const uint32_t *b = p->b + j / 16 * p->panel;
    const float *start = p->start ? p->start + j : NULL;
    for (ptrdiff_t t = 0; t < taps; t += 1 + twos) {
      ptrdiff_t at = t / across * p->down + t % across, lower = 16 * p->a_row;
      const uint16_t *a = p->a + i * p->a_row + at;
      float *c = p->c + i * p->ldc + j + t * p->c_tap, *below = c + 16 * p->ldc;
      if (twos) lower = (t + 1) / across * p->down + (t + 1) % across - at, below = c + p->c_tap;
      int tall = twos ? t + 1 < taps : rows > 16;
      if (tall && wide)
        amx_block(2, 2, p, a, lower, b, start, c, below);
      else if (tall)
        amx_block(2, 1, p, a, lower, b, start, c, below);
      else if (wide)
        amx_block(1, 2, p, a, lower, b, start, c, below);
      else
        amx_block(1, 1, p, a, lower, b, start, c, below);
    }
  }
  _tile_release();
}
#pragma clang attribute pop

const ck_bf16_functions ck_bf16_avx512_bf16 = {
    ck_bf16_product_avx512_bf16, ck_bf16_round_avx512_bf16, ck_bf16_round_pairs_avx512_bf16};
// Whoever has the matrix unit rounds by an instruction, too.
const ck_bf16_functions ck_bf16_amx = {ck_bf16_product_amx, ck_bf16_round_avx512_bf16,
                                       ck_bf16_round_pairs_avx512_bf16};

#if defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

int ck_amx_is_there(void) {
  enum { ARCH_REQ_XCOMP_PERM = 0x1023, TILE_DATA = 18 };
  unsigned a, b, c, d;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return 0;
  if (!(d >> 22 & 1) || !(d >> 24 & 1)) return 0;  // AMX-BF16, AMX-TILE
  return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILE_DATA) == 0;
}
#else
int ck_amx_is_there(void) { return 0; }
#endif
#endif
