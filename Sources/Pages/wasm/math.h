// SPDX-License-Identifier: MIT
// What the kernels take of C's mathematics where there is no C library: of the two that are no
// instruction the page has its own.
#pragma once
float expf(float), logf(float);
#define sqrt __builtin_sqrt
#define sqrtf __builtin_sqrtf
#define INFINITY __builtin_inff()
