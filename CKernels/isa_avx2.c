// SPDX-License-Identifier: MIT
// AVX2 and FMA: 16 registers of 8 floats, 12 of them accumulators.
#if defined(__x86_64__)
#include "isa.h"
#define CK_SUFFIX avx2
#define CK_ISA_NAME "avx2"
#define CK_LANES 8
#define CK_MR 6
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#include "vector.inc.h"
#include "gemm.inc.h"
#include "elements.inc.h"
#include "activation.inc.h"
#include "bf16_round.inc.h"
#include "bf16_product.inc.h"
#include "bf16.inc.h"
#include "conv_direct.inc.h"
#include "conv_pool_direct.inc.h"
#include "conv_depthwise.inc.h"
#include "conv_bf16.inc.h"
#include "winograd_tiles.inc.h"
#include "conv_winograd.inc.h"
#include "dense.inc.h"
#include "normalization.inc.h"
#include "optimizers.inc.h"
#include "augment.inc.h"
#include "pool_direct.inc.h"
#pragma clang attribute pop
#include "table.inc.h"
#endif
