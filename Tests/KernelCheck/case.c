// SPDX-License-Identifier: MIT
// The memory of a case and the verdict on it. All memory lies between guard zones at an address
// that is aligned to a float and no more, and results are filled with a pattern that is no number,
// so that an element never written shows. And the clock, for timings.
#include <stdarg.h>
#include <time.h>

#include "check.h"

// ---- Memory: lives until the end of a case ------------------------------------------------------

enum { ZONE = 61 * sizeof(float), PATTERN = 0xFF };  // the pattern is a NaN, and 65,535 as a place
static struct {
  unsigned char *start;
  size_t bytes, zone;
} blocks[64];
static int block_count;
int bare, timed, bf16_only;
const int sizes[SIZES] = {1, 3, 4, 5, 8, 15, 16, 17, 31, 33, 100};

static void *block_between(size_t bytes, size_t zone) {
  unsigned char *start =
      timed ? aligned_alloc(64, (bytes + 64) / 64 * 64) : malloc(bytes + 2 * zone);
  if (!start || block_count == COUNT(blocks)) abort();
  if (zone) memset(start, PATTERN, bytes + 2 * zone);
  blocks[block_count].start = start, blocks[block_count].bytes = bytes;
  blocks[block_count++].zone = zone;
  return start + zone;
}

void *block(size_t bytes) { return block_between(bytes, bare || timed ? 0 : ZONE); }
float *floats(size_t count) { return block(sizeof(float) * count); }
uint16_t *places(size_t count) { return block(sizeof(uint16_t) * count); }
double *sums(size_t count) { return memset(block_between(8 * count, 0), 0, 8 * count); }

float value(ptrdiff_t i, unsigned salt) {
  uint32_t u = (uint32_t)i * 2654435761u + salt * 40503u + 12345u;
  u ^= u >> 16, u *= 0x45d9f3b, u ^= u >> 16;
  return (float)(u >> 8) / 16777216 - 0.5f;
}

float *values(size_t count, unsigned salt) {
  float *x = floats(count);
  FOR(i, count) x[i] = value(i, salt);
  return x;
}

float *positive(size_t count, unsigned salt) {
  float *x = values(count, salt);
  FOR(i, count) x[i] += 1;
  return x;
}

float *copy(const float *x, size_t count) {
  return memcpy(floats(count), x, sizeof(float) * count);
}

const float *narrowed(const float *x, size_t count) {
  float *y = floats(count);
  FOR(i, count) {
    int exponent;
    y[i] = ldexpf(rintf(frexpf(x[i], &exponent) * 256) / 256, exponent);
  }
  return y;
}

static uint64_t digests[2];
void digest_bf16(int transformed, const float *found, size_t count) {
  const unsigned char *bytes = (const unsigned char *)found;
  uint64_t *digest = &digests[transformed];
  FOR(i, 4 * count) *digest = (*digest ^ bytes[i]) * 0x100000001b3;
}
uint64_t take_digest(int transformed) {
  uint64_t value = digests[transformed];
  digests[transformed] = 0xcbf29ce484222325;
  return value;
}

// ---- Judging ------------------------------------------------------------------------------------

typedef struct tally {
  char kernel[48];
  int cases, wrong;
  double worst;  // error as a share of its bound
} tally;
static tally tallies[128], *now;
static char shape[160];
static int wrong_cases, case_is_wrong;

void wrong(const char *format, ...) {
  if (case_is_wrong++) return;
  wrong_cases++;
  if (now->wrong++) return;  // the first of each kernel tells
  printf("  WRONG: %s, %s, %s: ", now->kernel, ck_kernels()->name, shape);
  va_list arguments;
  va_start(arguments, format);
  vprintf(format, arguments);
  va_end(arguments);
  printf("\n");
}

/// Nothing was written outside of the buffers.
static void check_zones(void) {
  FOR(b, block_count) FOR(i, blocks[b].zone) {
    const unsigned char *before = blocks[b].start, *behind = before + ZONE + blocks[b].bytes;
    if (before[i] != PATTERN) wrong("wrote %td bytes before a buffer", (ptrdiff_t)ZONE - i);
    if (behind[i] != PATTERN) wrong("wrote %td bytes behind the end of a buffer", i + 1);
  }
}

void begin_case(const char *name, const char *variant, const char *format, ...) {
  if (block_count) check_zones();  // of the case before, if it shares its buffers with this one
  char kernel[sizeof now->kernel];
  snprintf(kernel, sizeof kernel, "ck_%s%s%s", name, variant ? "_" : "", variant ? variant : "");
  for (now = tallies; *now->kernel && strcmp(now->kernel, kernel);) now++;
  strcpy(now->kernel, kernel);
  now->cases++;
  case_is_wrong = 0;
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(shape, sizeof shape, format, arguments);
  va_end(arguments);
}

void end_case(void) {
  check_zones();
  while (block_count) free(blocks[--block_count].start);
}

void compare(const float *found, const double *expected, size_t count, double bound) {
  FOR(i, count) {
    double error = fabs(found[i] - expected[i]);
    int same = found[i] == expected[i] || (isnan(found[i]) && isnan(expected[i]));
    if (!same && !(error <= bound))
      wrong("element %td is %.9g, expected %.9g, bound %.2g", i, found[i], expected[i], bound);
    else if (!same && error / bound > now->worst)
      now->worst = error / bound;
  }
}

void compare_places(const uint16_t *found, const uint16_t *expected, size_t count) {
  FOR(i, count)
  if (found[i] != expected[i]) wrong("place %td is %d, expected %d", i, found[i], expected[i]);
}

void same(const char *what, const float *found, const float *expected, size_t count) {
  FOR(i, count)
  if (memcmp(found + i, expected + i, sizeof *found))
    wrong("%s: element %td is %.9g, else %.9g", what, i, found[i], expected[i]);
}

int print_tallies(void) {
  for (now = tallies; *now->kernel; now++) {
    printf("  %-38s %4d cases, ", now->kernel, now->cases);
    if (now->wrong)
      printf("%d WRONG\n", now->wrong);
    else
      printf("worst error %3.0f %% of its bound\n", 100 * now->worst);
  }
  int count = wrong_cases;
  wrong_cases = 0;
  memset(tallies, 0, sizeof tallies);
  return count;
}

// ---- Timing -------------------------------------------------------------------------------------

static double seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int timing(double operations, double bytes) {
  enum { ROUNDS = 15 };
  static double start, times[ROUNDS];
  static long calls, left;  // of a round
  static int round = -1;
  if (left > 0 && --left > 0) return 1;
  double took = seconds() - start;
  if (round < 0) {
    calls = 1, round = 0;
  } else if (took < 1e-3) {  // rounds are to be long
    calls *= took < 1e-4 ? 8 : 2, round = 0;
  } else {
    double each = took / (double)calls;
    int at = round++;  // in order
    for (; at > 0 && times[at - 1] > each; at--) times[at] = times[at - 1];
    times[at] = each;
  }
  left = calls, start = seconds();
  if (round < ROUNDS) return 1;
  double median = times[ROUNDS / 2];
  int width = 34;  // in characters, the bytes that continue one not counted
  for (const char *c = shape; *c; c++) width -= (*c & 0xC0) != 0x80;
  printf("  %-37s  %s%*s", now->kernel, shape, width > 0 ? width : 0, "");
  printf(median < 1e-5 ? "%9.0f ns" : "%9.1f µs", median * (median < 1e-5 ? 1e9 : 1e6));
  if (operations) printf("%9.1f GFLOP/s", operations / median / 1e9);
  if (bytes) printf("%9.1f GB/s", bytes / median / 1e9);
  printf("\n");
  left = 0, round = -1;
  return 0;
}
