// SPDX-License-Identifier: MIT
// For tests alone: a library that is loaded before a program (LD_PRELOAD) and makes one of its
// calls to the system fail. The environment says which:
//
//   FAULT=write:3:28    the third write and all after it fail with error 28, no space left
//   FAULT=read:5:5      reads fail with error 5; likewise create (opening to write), fsync, rename,
//                       alloc (taking memory) and thread (starting one)
//   FAULT=any:7:kill:9  before the seventh of all calls for files the process gets signal 9
//   FAULT=short:1       reads and writes do a part of what is asked, or are interrupted, by a
//                       sequence of random numbers from this seed
//
// Files are those that the program opens by a relative path: what the C library and the runtime
// read for themselves is left alone. Memory is what the networks compute in, large and aligned to
// 64 bytes: for arrays and what is small the Swift runtime ends the process where there is none.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

enum { SMALL = 4096, FILES = 1024 };

static char kind[8];
static long at;
static int code, killing;
static atomic_long calls;
static atomic_ullong state;
static atomic_bool ours[FILES];

__attribute__((constructor)) static void begin(void) {
  const char* fault = getenv("FAULT");
  if (!fault) return;
  killing = strstr(fault, ":kill:") != NULL;
  sscanf(fault, killing ? "%7[a-z]:%ld:kill:%d" : "%7[a-z]:%ld:%d", kind, &at, &code);
  state = at;
}

static int is_other(const char* call) {
  return strcmp(call, "alloc") == 0 || strcmp(call, "thread") == 0;
}

// Whether this call is to fail.
static int fails(const char* call) {
  if (strcmp(kind, call) != 0 && (strcmp(kind, "any") != 0 || is_other(call))) return 0;
  long count = atomic_fetch_add(&calls, 1) + 1;
  if (killing && count == at) kill(getpid(), code);
  if (killing || count < at) return 0;
  errno = code;
  return 1;
}

#define REAL(name, ...)                             \
  static __typeof__(name)* real;                    \
  if (!real) real = (void*)dlsym(RTLD_NEXT, #name); \
  return real(__VA_ARGS__)

static int known(int file) { return file > 2 && file < FILES && ours[file]; }

// The part of a read or write that is done; 0 is an interruption.
static size_t part(size_t size) {
  if (strcmp(kind, "short") != 0 || size == 0) return size;
  unsigned long long next = atomic_fetch_add(&state, 0x9E3779B97F4A7C15ull);
  next = (next ^ (next >> 30)) * 0xBF58476D1CE4E5B9ull;
  next = (next ^ (next >> 27)) * 0x94D049BB133111EBull;
  next ^= next >> 31;
  if (next % 4 == 0) {
    errno = EINTR;
    return 0;
  }
  return next % 4 == 1 ? size : 1 + (next >> 8) % size;
}

#define TRANSFER(call, name, type, ...)                  \
  if (known(file)) {                                     \
    if (fails(call)) return -1;                          \
    if (size > 0 && (size = part(size)) == 0) return -1; \
  }                                                      \
  REAL(name, file, data, size, ##__VA_ARGS__);

ssize_t read(int file, void* data, size_t size){TRANSFER("read", read, void*)} ssize_t
    write(int file, const void* data, size_t size){TRANSFER("write", write, const void*)} ssize_t
    pread(int file, void* data, size_t size,
          off_t place){TRANSFER("read", pread, void*, place)} ssize_t
    pread64(int file, void* data, size_t size,
            off64_t place){TRANSFER("read", pread64, void*, place)} ssize_t
    pwrite(int file, const void* data, size_t size, off_t place) {
  TRANSFER("write", pwrite, const void*, place)
}

static int opened(int file, const char* path) {
  if (file > 2 && file < FILES) ours[file] = path[0] != '/';
  return file;
}

static int opens(const char* name, const char* path, int flags, mode_t mode) {
  int (*real)(const char*, int, ...) = (int (*)(const char*, int, ...))dlsym(RTLD_NEXT, name);
  if (path[0] != '/' && (flags & O_ACCMODE) != O_RDONLY && fails("create")) return -1;
  return opened(real(path, flags, mode), path);
}

#define OPEN(name)                                                          \
  int name(const char* path, int flags, ...) {                              \
    va_list rest;                                                           \
    va_start(rest, flags);                                                  \
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
    va_end(rest);                                                           \
    return opens(#name, path, flags, mode);                                 \
  }
OPEN(open)
OPEN(open64)

int close(int file) {
  if (file >= 0 && file < FILES) ours[file] = 0;
  REAL(close, file);
}

int fsync(int file) {
  if (known(file) && fails("fsync")) return -1;
  REAL(fsync, file);
}

int rename(const char* from, const char* to) {
  if (from[0] != '/' && fails("rename")) return -1;
  REAL(rename, from, to);
}

int posix_memalign(void** result, size_t alignment, size_t size) {
  if (alignment == 64 && size >= SMALL && fails("alloc")) return ENOMEM;
  REAL(posix_memalign, result, alignment, size);
}

int pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*body)(void*),
                   void* argument) {
  if (fails("thread")) return code;
  REAL(pthread_create, thread, attributes, body, argument);
}
