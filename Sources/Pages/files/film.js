// SPDX-License-Identifier: MIT
// A training as a film: what the page showed at each moment can be played, compared with another
// run's, and saved as an animated picture.
