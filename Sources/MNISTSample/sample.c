// The sample of MNIST that travels inside the binary: the first 10,000 training digits and all
// 10,000 test digits (LeCun, Cortes, Burges), as gzipped IDX files.
//
// How files/ was made, in a folder with the four full files (mkdir files first):
//
//   cut() { (printf "$2\0\0\47\20"; gzip -dc $1.gz | tail -c +9 | head -c $3) | gzip -9n; }
//   cut train-images-idx3-ubyte '\0\0\10\3' 7840008 > files/train-images-idx3-ubyte.gz
//   cut train-labels-idx1-ubyte '\0\0\10\1' 10000   > files/train-labels-idx1-ubyte.gz
//   for f in t10k-images-idx3-ubyte t10k-labels-idx1-ubyte; do
//     gzip -dc $f.gz | gzip -9n > files/$f.gz; done
//
// cut writes a new magic number and count (\47\20 is 10,000) and copies the bytes behind them.
//
// And a network trained on them: stridenet train --recipe digits --save files/digits.safetensors

#include "MNISTSample.h"

// #embed is C23; clang accepts it in every mode and warns of that with -Wpedantic only.
#ifdef __clang__
#pragma clang diagnostic ignored "-Wc23-extensions"
#endif

static const unsigned char train_images[] = {
#embed "files/train-images-idx3-ubyte.gz"
};
static const unsigned char train_labels[] = {
#embed "files/train-labels-idx1-ubyte.gz"
};
static const unsigned char test_images[] = {
#embed "files/t10k-images-idx3-ubyte.gz"
};
static const unsigned char test_labels[] = {
#embed "files/t10k-labels-idx1-ubyte.gz"
};
static const unsigned char digits[] = {
#embed "files/digits.safetensors"
};

const mnist_sample_file mnist_sample_train_images = {train_images, sizeof train_images};
const mnist_sample_file mnist_sample_train_labels = {train_labels, sizeof train_labels};
const mnist_sample_file mnist_sample_test_images = {test_images, sizeof test_images};
const mnist_sample_file mnist_sample_test_labels = {test_labels, sizeof test_labels};
const mnist_sample_file mnist_sample_digits = {digits, sizeof digits};
