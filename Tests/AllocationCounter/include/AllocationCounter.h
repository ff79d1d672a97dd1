// SPDX-License-Identifier: MIT
#ifndef ALLOCATION_COUNTER_H
#define ALLOCATION_COUNTER_H
#include <stddef.h>
#include <stdlib.h>
/// Calls of malloc and its kin on this thread so far; -1 where they aren't counted.
long allocation_count(void);
#endif
