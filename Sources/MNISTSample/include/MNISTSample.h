#ifndef MNIST_SAMPLE_H
#define MNIST_SAMPLE_H

#include <stddef.h>

// A file in memory: IDX, gzipped, or weights.
typedef struct {
  const unsigned char *bytes;
  size_t count;
} mnist_sample_file;

// The first 10,000 training digits of MNIST and the 10,000 test digits.
extern const mnist_sample_file mnist_sample_train_images;
extern const mnist_sample_file mnist_sample_train_labels;
extern const mnist_sample_file mnist_sample_test_images;
extern const mnist_sample_file mnist_sample_test_labels;
// A small network trained on them, in the safetensors format.
extern const mnist_sample_file mnist_sample_digits;

#endif
