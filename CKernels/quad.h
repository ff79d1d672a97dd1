// SPDX-License-Identifier: MIT
// Four numbers by four, turned round in registers: what packing is made of where the numbers that
// should lie side by side come from different rows. Every instruction set has vectors of four.
#ifndef CK_QUAD_H
#define CK_QUAD_H

typedef float ck_quad __attribute__((vector_size(16), aligned(4)));

/// out[i] holds number i of each line.
static inline __attribute__((always_inline)) void ck_turn(ck_quad a, ck_quad b, ck_quad c,
                                                          ck_quad d, ck_quad out[4]) {
  ck_quad ab = __builtin_shufflevector(a, b, 0, 4, 1, 5);
  ck_quad cd = __builtin_shufflevector(c, d, 0, 4, 1, 5);
  out[0] = __builtin_shufflevector(ab, cd, 0, 1, 4, 5);
  out[1] = __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
  ab = __builtin_shufflevector(a, b, 2, 6, 3, 7), cd = __builtin_shufflevector(c, d, 2, 6, 3, 7);
  out[2] = __builtin_shufflevector(ab, cd, 0, 1, 4, 5);
  out[3] = __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
}
#endif
