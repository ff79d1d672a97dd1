#ifndef PAGES_H
#define PAGES_H

#include <stddef.h>

// A file in memory.
typedef struct {
  const unsigned char *bytes;
  size_t count;
} page_file;

// What both pages share: how they look, and how numbers become pictures.
extern const page_file page_style, page_pictures;
// `stridenet report`.
extern const page_file page_report;
// `stridenet serve`, and the scripts of what else it shows.
extern const page_file page_serve, page_views;
// What that page is answered by where there is no server: two scripts, and the kernels as
// WebAssembly (`make wasm`).
extern const page_file page_network, page_engine, page_kernels;

#endif
