// SPDX-License-Identifier: MIT
// AVX-512: 32 registers of 16 floats, 28 of them accumulators.
#if defined(__x86_64__)
#include "isa.h"
#define CK_SUFFIX avx512
#define CK_ISA_NAME "avx512"
#define CK_LANES 16
#define CK_MR 14
#pragma clang attribute push( \
    __attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl"))), apply_to = function)
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
