// SPDX-License-Identifier: MIT
// Harder questions: what turning, shifting and noise do to the answer, what the network looks for,
// and a map of what its last hidden layer makes of the test images.
