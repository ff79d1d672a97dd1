// SPDX-License-Identifier: MIT
// What the kernels take of string.h where there is no C library: the compiler makes instructions
// of the first two.
#pragma once
#include <stddef.h>
void *memcpy(void *, const void *, size_t), *memset(void *, int, size_t);
static inline int strcmp(const char *a, const char *b) {
  while (*a && *a == *b) a++, b++;
  return (unsigned char)*a - (unsigned char)*b;
}
