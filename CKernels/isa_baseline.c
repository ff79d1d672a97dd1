// SPDX-License-Identifier: MIT
// The instruction set every processor of the platform has: SSE2 on x86-64 (16 registers of 4
// floats), NEON on arm64 (32 of them, 16 of them accumulators: as many additions as four units with
// a latency of four keep under way).
#include "isa.h"
#define CK_SUFFIX baseline
#define CK_LANES 4
#if defined(__aarch64__)
#define CK_ISA_NAME "neon"
#define CK_MR 8
#else
#define CK_ISA_NAME "baseline"
#define CK_MR 4
#endif
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
#include "table.inc.h"
