// SPDX-License-Identifier: MIT
// Every kernel against its definition, in plain C without a framework, so that it runs wherever a C
// compiler reaches: cross-compiled and emulated, under valgrind, on a board. Inputs are uneven and
// shapes awkward.
//
//   check           with each instruction set that the processor has
//   check NAME...   with these instruction sets alone
//   check --bare    without guard zones and patterns: a memory checker sees the edges itself
//   check time [SUBJECT...]   how long they take at the networks' sizes, on one thread, with the
//                             best instruction set or that of STRIDENET_ISA
#include "check.h"

/// Subnormal numbers are zero while they are flushed, and numbers again afterwards.
static void check_flush_denormals(void) {
  begin_case("flush_denormals", NULL, "on and off");
  volatile float small = 0x1p-126f, half = 0.5f, smaller = small * half;
  int before = ck_flush_denormals(1);
  volatile float written = small * half, read = smaller * 2;
  int during = ck_flush_denormals(before);
  if (before || !during) wrong("was %d, then %d, expected 0 and 1", before, during);
  if (written != 0 || read != 0) wrong("%g written, %g read, expected 0", written, read);
  if (small * half == 0) wrong("still on afterwards");
  end_case();
}

static const struct {
  const char *name;
  void (*check)(void), (*time)(void);
} subjects[] = {
#define SUBJECT(subject) {#subject, check_##subject, time_##subject},
    SUBJECTS(SUBJECT)};

// All subjects; once more those of bf16 with each other unit for it; and whether its results are
// those of the other instruction sets (the matrix unit adds in another order; the transforms before
// some products round twice where there is no fused multiply-add).
static int check_all(void) {
  static const char *const units[] = {"emulated", "avx512_bf16", "amx"};
  static uint64_t first[2];
  int wrong_cases = 0;
  FOR(u, COUNT(units)) {
    if (!ck_bf16_select(units[u])) continue;
    bf16_only = u > 0;
    if (bf16_only) printf("== %s, bf16 by %s\n", ck_kernels()->name, ck_bf16_unit());
    FOR(transformed, 2) take_digest(transformed);
    if (bf16_only)
      check_convolution(), check_product();
    else
      FOR(i, COUNT(subjects)) subjects[i].check();
    if (!bf16_only && !bare) check_flush_denormals();  // memory checkers' processors don't have it
    int differs = 0;
    FOR(transformed, 2) {
      uint64_t digest = take_digest(transformed);
      if (!first[transformed]) first[transformed] = digest;
      if (!strcmp(units[u], "amx")) continue;
      if (transformed && !strcmp(ck_kernels()->name, "baseline")) continue;
      differs |= digest != first[transformed];
    }
    wrong_cases += print_tallies() + differs;
    if (differs) printf("  WRONG: bf16 isn't what it is with the first instruction set\n");
  }
  return wrong_cases;
}

static int time_all(int named, char **names) {
  const char *set = getenv("STRIDENET_ISA");
  if (set && !ck_isa_select(set)) return printf("%s is not on this processor\n", set), 1;
  timed = 1;
  printf("== %s, one thread\n", ck_kernels()->name);
  int ran = 0;
  FOR(i, COUNT(subjects)) {
    int wanted = !named;
    FOR(a, named) wanted |= !strcmp(names[a], subjects[i].name);
    if (wanted) subjects[i].time(), ran++;
  }
  if (ran < named) printf("a subject is one of this folder's files: convolution, pooling, ...\n");
  return ran < named;
}

int main(int argc, char **argv) {
  if (argc > 1 && !strcmp(argv[1], "time")) return time_all(argc - 2, argv + 2);
  static const char *const sets[] = {"avx512", "avx2", "neon", "baseline"};
  int named = 0, ran = 0, wrong_cases = 0;
  for (int i = 1; i < argc; i++)
    if (!strcmp(argv[i], "--bare"))
      bare = 1;
    else
      named++;
  FOR(i, COUNT(sets)) {
    int wanted = !named;
    for (int a = 1; a < argc; a++) wanted |= !strcmp(argv[a], sets[i]);
    if (!wanted || !ck_isa_select(sets[i])) continue;
    printf("== %s\n", ck_kernels()->name);
    wrong_cases += check_all();
    ran++;
  }
  if (ran < named || !ran) {
    printf("an instruction set that was asked for is not on this processor\n");
    return 1;
  }
  printf(wrong_cases ? "%d cases WRONG\n" : "all right\n", wrong_cases);
  return wrong_cases ? 1 : 0;
}
