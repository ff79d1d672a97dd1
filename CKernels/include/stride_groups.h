// SPDX-License-Identifier: MIT
// Stride groups along one axis: windows of filter size f every s steps, o of them. With
// q = ceil(f / s), output positions p fall into groups by p mod q. Consecutive windows of a group
// start q·s >= f apart, so no input element lies in two windows of one group. Group g holds
// positions g, g + q, g + 2q, ...; it exists for g < min(q, o). In two dimensions the groups are
// the product of the two axes'. With s >= f there is one group.
#ifndef CK_STRIDE_GROUPS_H
#define CK_STRIDE_GROUPS_H
#include <stddef.h>

typedef struct ck_axis {
  ptrdiff_t q;       // distance between a group's positions
  ptrdiff_t groups;  // how many groups there are
  ptrdiff_t o;       // output positions on this axis
} ck_axis;

static inline ck_axis ck_axis_groups(ptrdiff_t f, ptrdiff_t s, ptrdiff_t o) {
  ptrdiff_t q = (f + s - 1) / s;
  return (ck_axis){q, q < o ? q : o, o};
}

/// Positions in group g: ceil((o - g) / q)
static inline ptrdiff_t ck_group_size(ck_axis a, ptrdiff_t g) { return (a.o - g + a.q - 1) / a.q; }
#endif
