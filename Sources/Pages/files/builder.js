// SPDX-License-Identifier: MIT
// The network as cards with shapes and parameter counts, and the lesson as a link: the network, the
// seed and the settings stand in the page's address.
