// SPDX-License-Identifier: MIT
// The test process's own malloc: counts, thread by thread, then calls the C
// library's. It takes the place of the
// library's because symbols of the executable come first. Only where that works: glibc, and not
// under a sanitizer, which needs the place itself.
#include "AllocationCounter.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif

#if defined(__GLIBC__) && !defined(SANITIZED)
extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t),
    *__libc_memalign(size_t, size_t);
static __thread long count;
static void one(void) { count++; }

void *malloc(size_t size) { return one(), __libc_malloc(size); }
void *calloc(size_t n, size_t size) { return one(), __libc_calloc(n, size); }
void *realloc(void *old, size_t size) { return one(), __libc_realloc(old, size); }
void *aligned_alloc(size_t alignment, size_t size) {
  return one(), __libc_memalign(alignment, size);
}
int posix_memalign(void **out, size_t alignment, size_t size) {
  one();
  *out = __libc_memalign(alignment, size);
  return *out ? 0 : 12;
}
long allocation_count(void) { return count; }
#else
long allocation_count(void) { return -1; }
#endif
