// SPDX-License-Identifier: MIT
// The table of one instruction set's functions.
const ck_isa CK_NAME(ck_isa) = {
    .name = CK_ISA_NAME,
    .gemm = CK_NAME(ck_gemm),
    .gemm_workspace = CK_NAME(ck_gemm_workspace),
    .conv_forward = CK_NAME(ck_conv_forward_direct),
    .conv_input_gradient = CK_NAME(ck_conv_input_gradient_direct),
    .conv_weight_gradient = CK_NAME(ck_conv_weight_gradient_direct),
    .conv_workspace = CK_NAME(ck_conv_workspace_direct),
    .bias_add = CK_NAME(ck_bias_add),
    .column_sum = CK_NAME(ck_column_sum),
    .relu_forward = CK_NAME(ck_relu_forward),
    .relu_backward = CK_NAME(ck_relu_backward),
    .add = CK_NAME(ck_add),
    .sgd_momentum = CK_NAME(ck_sgd_momentum),
    .scale_bytes = CK_NAME(ck_scale_bytes),
    .fma_peak = CK_NAME(ck_fma_peak),
};
