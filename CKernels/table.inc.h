// SPDX-License-Identifier: MIT
// The table of one instruction set's functions.
#define CK_ACTIVATION(name, reads_x) \
  {#name, reads_x, CK_NAME(ck_##name##_forward), CK_NAME(ck_##name##_backward)},
static const ck_activation CK_NAME(activations)[] = {
#include "activations.def"
};
#undef CK_ACTIVATION

static const ck_conv_variant CK_NAME(depthwise) = {
    .name = "depthwise",
    .description = "a vector of channels at a time, each by its own filter",
    .forward = CK_NAME(ck_conv_forward_depthwise),
    .input_gradient = CK_NAME(ck_conv_input_gradient_depthwise),
    .weight_gradient = CK_NAME(ck_conv_weight_gradient_depthwise),
    .workspace = CK_NAME(ck_conv_workspace_depthwise),
};

static const ck_bf16_functions CK_NAME(bf16) = {CK_NAME(ck_bf16_product), CK_NAME(ck_bf16_round),
                                                CK_NAME(ck_bf16_round_pairs)};

const ck_table CK_NAME(ck_table) = {
    .name = CK_ISA_NAME,
    .gemm = CK_NAME(ck_gemm),
    .gemm_workspace = CK_GEMM_WORKSPACE,
    .gemm_packing = CK_NAME(ck_gemm_packing),
    .dense_forward = CK_NAME(ck_dense_forward),
    .gemm_bf16 = CK_NAME(ck_gemm_bf16),
    .gemm_bf16_workspace = CK_BF16_WORKSPACE,
    .bf16_column = CK_NAME(ck_bf16_column),
    .bf16_ready = CK_NAME(ck_bf16_ready),
    .bf16 = &CK_NAME(bf16),
    .bias_add = CK_NAME(ck_bias_add),
    .column_sum = CK_NAME(ck_column_sum),
    .relu_forward = CK_NAME(ck_relu_forward),
    .relu_backward = CK_NAME(ck_relu_backward),
    .relu_places = CK_NAME(ck_relu_places),
    .leaky_relu_forward = CK_NAME(ck_leaky_relu_forward),
    .leaky_relu_backward = CK_NAME(ck_leaky_relu_backward),
    .activations = CK_NAME(activations),
    .activation_count = sizeof CK_NAME(activations) / sizeof *CK_NAME(activations),
    .add = CK_NAME(ck_add),
    .sum = CK_NAME(ck_sum),
    .dropout = CK_NAME(ck_dropout),
    .scale_bytes = CK_NAME(ck_scale_bytes),
    .moments = CK_NAME(ck_moments),
    .scale_shift = CK_NAME(ck_scale_shift),
    .normalization_sums = CK_NAME(ck_normalization_sums),
    .normalization_gradient = CK_NAME(ck_normalization_gradient),
    .layer_norm_forward = CK_NAME(ck_layer_norm_forward),
    .layer_norm_backward = CK_NAME(ck_layer_norm_backward),
    .sgd = CK_NAME(ck_sgd),
    .rmsprop = CK_NAME(ck_rmsprop),
    .adam = CK_NAME(ck_adam),
    .average = CK_NAME(ck_average),
    .warp = CK_NAME(ck_warp),
    .blur = CK_NAME(ck_blur),
    .conv_direct =
        {
            .name = "direct",
            .description = "nothing gathered: tiles of pixels by filters read the image itself",
            .forward = CK_NAME(ck_conv_forward_direct),
            .input_gradient = CK_NAME(ck_conv_input_gradient_direct),
            .weight_gradient = CK_NAME(ck_conv_weight_gradient_direct),
            .workspace = CK_NAME(ck_conv_workspace_direct),
            .ready_count = CK_NAME(ck_conv_ready_count_direct),
            .ready = CK_NAME(ck_conv_ready_direct),
            .pool_forward = CK_NAME(ck_conv_pool_forward_direct),
            .depthwise = &CK_NAME(depthwise),
        },
    .conv_winograd =
        {
            .name = "winograd",
            .description =
                "3×3 by steps of 1: 36 products a tile of 4×4 outputs, not 144; else direct",
            .forward = CK_NAME(ck_conv_forward_winograd),
            .input_gradient = CK_NAME(ck_conv_input_gradient_winograd),
            .weight_gradient = CK_NAME(ck_conv_weight_gradient_winograd),
            .workspace = CK_NAME(ck_conv_workspace_winograd),
            .ready_count = CK_NAME(ck_conv_ready_count_winograd),
            .ready = CK_NAME(ck_conv_ready_winograd),
            .pool_forward = CK_NAME(ck_conv_pool_forward_winograd),
            .depthwise = &CK_NAME(depthwise),
        },
    .conv_bf16 =
        {
            .name = "bf16",
            .description = "as direct, by products of numbers rounded to bf16",
            .bf16 = 1,
            .forward = CK_NAME(ck_conv_forward_bf16),
            .input_gradient = CK_NAME(ck_conv_input_gradient_bf16),
            .weight_gradient = CK_NAME(ck_conv_weight_gradient_bf16),
            .workspace = CK_NAME(ck_conv_workspace_bf16),
            .ready_count = CK_NAME(ck_conv_ready_count_bf16),
            .ready = CK_NAME(ck_conv_ready_bf16),
            .pool_forward = CK_NAME(ck_conv_pool_forward_bf16),
            .depthwise = &CK_NAME(depthwise),
        },
    .conv_winograd_bf16 =
        {
            .name = "winograd_bf16",
            .description = "as winograd, what is multiplied rounded to bf16; else as bf16",
            .bf16 = 1,
            .forward = CK_NAME(ck_conv_forward_winograd_bf16),
            .input_gradient = CK_NAME(ck_conv_input_gradient_winograd_bf16),
            .weight_gradient = CK_NAME(ck_conv_weight_gradient_winograd_bf16),
            .workspace = CK_NAME(ck_conv_workspace_winograd_bf16),
            .ready_count = CK_NAME(ck_conv_ready_count_winograd_bf16),
            .ready = CK_NAME(ck_conv_ready_winograd_bf16),
            .pool_forward = CK_NAME(ck_conv_pool_forward_winograd_bf16),
            .depthwise = &CK_NAME(depthwise),
        },
    .pool_direct =
        {
            .name = "direct",
            .description = "window by window, a vector of channels kept in registers",
            .max_forward = CK_NAME(ck_pool_max_forward_direct),
            .max_backward = CK_NAME(ck_pool_max_backward_direct),
            .avg_forward = CK_NAME(ck_pool_avg_forward_direct),
            .avg_backward = CK_NAME(ck_pool_avg_backward_direct),
        },
    .fma_peak = CK_NAME(ck_fma_peak),
};
