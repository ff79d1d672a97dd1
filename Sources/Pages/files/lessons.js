// SPDX-License-Identifier: MIT
// Lessons that drive the page, ten steps each, and a quiz whose answers the page computes.
