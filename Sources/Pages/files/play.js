// SPDX-License-Identifier: MIT
// How a layer computes, number by number: the window slides, multiplies and adds, in the order
// of the kernels in use.
