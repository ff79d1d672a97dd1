// The web pages that travel inside the binary. A page is one file that needs no other: the program
// puts the shared style and script, and a report's numbers, where the page has their marks.

#include "Pages.h"

// #embed is C23; clang accepts it in every mode and warns of that with -Wpedantic only.
#ifdef __clang__
#pragma clang diagnostic ignored "-Wc23-extensions"
#endif

static const unsigned char style[] = {
#embed "files/style.css"
};
static const unsigned char pictures[] = {
#embed "files/pictures.js"
};
static const unsigned char report[] = {
#embed "files/report.html"
};
static const unsigned char serve[] = {
#embed "files/serve.html"
};
static const unsigned char views[] = {
#embed "files/play.js"
    ,
#embed "files/explore.js"
    ,
#embed "files/builder.js"
    ,
#embed "files/film.js"
    ,
#embed "files/lessons.js"
};
static const unsigned char network[] = {
#embed "files/network.js"
};
static const unsigned char engine[] = {
#embed "files/engine.js"
};
static const unsigned char kernels[] = {
#embed "files/kernels.wasm"
};

const page_file page_style = {style, sizeof style};
const page_file page_pictures = {pictures, sizeof pictures};
const page_file page_report = {report, sizeof report};
const page_file page_serve = {serve, sizeof serve};
const page_file page_views = {views, sizeof views};
const page_file page_network = {network, sizeof network};
const page_file page_engine = {engine, sizeof engine};
const page_file page_kernels = {kernels, sizeof kernels};
