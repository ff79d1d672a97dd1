// SPDX-License-Identifier: MIT
// Which kernels there are and which instruction set they run with. The set is chosen at the first
// call from what the processor reports; callers take its functions from its table.
#include <string.h>

#include "isa.h"
#if defined(__x86_64__)
#include <immintrin.h>
#endif

static const ck_table *const sets[] = {
#if defined(__x86_64__)
    &ck_table_avx512, &ck_table_avx2,
#endif
    &ck_table_baseline};

static int has(const ck_table *set) {
#if defined(__x86_64__)
  if (set == &ck_table_avx512)
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (set == &ck_table_avx2) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
  return set == &ck_table_baseline;
}

static const ck_table *chosen;  // threads that race here all store the same pointer

const ck_table *ck_kernels(void) {
  const ck_table *set = __atomic_load_n(&chosen, __ATOMIC_RELAXED);
  if (__builtin_expect(set != NULL, 1)) return set;
  for (size_t i = 0; i < sizeof sets / sizeof *sets && !set; i++)
    if (has(sets[i])) set = sets[i];
  __atomic_store_n(&chosen, set, __ATOMIC_RELAXED);
  return set;
}

// What multiplies bf16, best first.
static const struct unit {
  const char *name;
  const ck_bf16_functions *functions;  // NULL: the instruction set's
} units[] = {
#if defined(__x86_64__)
    {"amx", &ck_bf16_amx},
    {"avx512_bf16", &ck_bf16_avx512_bf16},
#endif
    {"emulated", NULL}};
static const struct unit *chosen_unit;

static int has_unit(const struct unit *unit) {
#if defined(__x86_64__)
  int pairs = ck_kernels() == &ck_table_avx512 && __builtin_cpu_supports("avx512bf16");
  if (unit->functions == &ck_bf16_amx) return pairs && ck_amx_is_there();
  if (unit->functions) return pairs;
#endif
  return !unit->functions;
}

static const struct unit *bf16_unit(void) {
  const struct unit *unit = __atomic_load_n(&chosen_unit, __ATOMIC_RELAXED);
  if (__builtin_expect(unit != NULL, 1)) return unit;
  for (unit = units; !has_unit(unit);) unit++;
  __atomic_store_n(&chosen_unit, unit, __ATOMIC_RELAXED);
  return unit;
}

int ck_isa_select(const char *name) {
  for (size_t i = 0; i < sizeof sets / sizeof *sets; i++)
    if (!strcmp(sets[i]->name, name) && has(sets[i])) {
      __atomic_store_n(&chosen, sets[i], __ATOMIC_RELAXED);
      __atomic_store_n(&chosen_unit, NULL, __ATOMIC_RELAXED);
      return 1;
    }
  return 0;
}

const char *ck_bf16_unit(void) { return bf16_unit()->name; }

int ck_bf16_select(const char *name) {
  for (size_t i = 0; i < sizeof units / sizeof *units; i++)
    if (!strcmp(units[i].name, name) && has_unit(&units[i])) {
      __atomic_store_n(&chosen_unit, &units[i], __ATOMIC_RELAXED);
      return 1;
    }
  return 0;
}

const ck_bf16_functions *ck_bf16(void) {
  const ck_bf16_functions *functions = bf16_unit()->functions;
  return functions ? functions : ck_kernels()->bf16;
}

double ck_bf16_peak(int64_t steps) {
  enum { SIZE = 32, PAIRS = 64, RUNS = 16 };
  uint16_t a[SIZE * 2 * PAIRS];
  uint32_t b[SIZE * PAIRS];
  float c[SIZE * SIZE];
  memset(a, 0x3C, sizeof a), memset(b, 0x3C, sizeof b);  // small numbers
  const ck_bf16_product product = {.m = SIZE,
                                   .n = SIZE,
                                   .runs = RUNS,  // of the same numbers
                                   .pairs = PAIRS,
                                   .a = a,
                                   .a_row = 2 * PAIRS,
                                   .b = b,
                                   .panel = PAIRS * CK_BF16_PANEL,
                                   .c = c,
                                   .ldc = SIZE};
  for (int64_t step = 0; step < steps; step++) ck_bf16()->product(&product);
  return 2.0 * SIZE * SIZE * 2 * PAIRS * RUNS * (double)steps;
}

// The lists. What is compiled for each instruction set is that of the one in use.
#define CK_CONV(name) &ck_conv_##name,
#define CK_CONV_OF_SET(name) &ck_kernels()->conv_##name,
#define CK_CONV_OF_BF16(name) CK_CONV_OF_SET(name)
#define CK_POOL(name)
#define CK_POOL_OF_SET(name)
const ck_conv_variant *ck_conv_variant_at(size_t index) {
  const ck_conv_variant *const variants[] = {
#include "variants.def"
  };
  return index < sizeof variants / sizeof *variants ? variants[index] : NULL;
}
#undef CK_CONV
#undef CK_CONV_OF_SET
#undef CK_CONV_OF_BF16
#undef CK_POOL
#undef CK_POOL_OF_SET

#define CK_CONV(name)
#define CK_CONV_OF_SET(name)
#define CK_CONV_OF_BF16(name)
#define CK_POOL(name) &ck_pool_##name,
#define CK_POOL_OF_SET(name) &ck_kernels()->pool_##name,
const ck_pool_variant *ck_pool_variant_at(size_t index) {
  const ck_pool_variant *const variants[] = {
#include "variants.def"
  };
  return index < sizeof variants / sizeof *variants ? variants[index] : NULL;
}

#ifndef CK_BOUND
#define CK_BOUND auto
#endif
#define TEXT_(x) #x
#define TEXT(x) TEXT_(x)
const char *ck_bound_variant(void) { return TEXT(CK_BOUND); }

int ck_flush_denormals(int on) {
#if defined(__x86_64__)
  const unsigned bits = 0x8040;  // flush to zero, denormals are zero
  unsigned before = _mm_getcsr();
  _mm_setcsr(on ? before | bits : before & ~bits);
  return (before & bits) == bits;
#elif defined(__aarch64__)
  uint64_t before, bit = 1u << 24;  // FPCR.FZ
  __asm__ volatile("mrs %0, fpcr" : "=r"(before));
  __asm__ volatile("msr fpcr, %0" ::"r"(on ? before | bit : before & ~bit));
  return (before & bit) != 0;
#else
  (void)on;
  return 0;
#endif
}

int ck_is_debug_build(void) {
#if defined(__OPTIMIZE__)
  return 0;
#else
  return 1;
#endif
}
