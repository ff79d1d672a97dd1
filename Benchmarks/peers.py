#!/usr/bin/env python3
"""The peers that StrideNet is timed against: `make bench-peers` runs them.

    python peers.py list                          which peers can run here, as JSON
    python peers.py worker PEER [--threads 2] [--allocator keep|default]
                                                  a process that runs commands
    python peers.py check FOLDER [--images 1280] [PEER ...]
                                                  do the peers compute the same?

Peers: torch (eager, its default layout NCHW), torch-channels-last (eager), torch-compiled
(channels-last, by torch.compile, which needs a C++ compiler), numpy-im2col,
numpy-stride-groups, tensorflow, jax, and for inference alone onnxruntime (all of its
optimisations on) and openvino (one request on all threads, or, as openvino-streams, a request
on each); each needs its package, the last three also onnx. Those that end in -bf16 multiply
in bfloat16 (PyTorch by autocast), the others are in single precision.

A worker stays alive, so that measurements of several programs can alternate. It
reads commands from standard input, one JSON object a line:

    {"model": "cnn", "mode": "train", "batch": 128, "images": 60000, "data": "FOLDER"}
    {"model": "cnn", "mode": "infer", "batch": 128, "images": 10000, "data": "FOLDER"}
    {"model": "resnet20", "mode": "train", "batch": 128, "images": 1280}

and answers each with one JSON line on standard output: peer, version, threads,
allocator, model, mode, batch, images, seconds, losses (the mean cross-entropies of the first
five mini-batches, in training each before its update), or error. If the peer
cannot run, the only line is an error, and the exit status is 3.

FOLDER holds the digits as gzip-compressed IDX files (train-images*.gz,
train-labels*.gz, t10k-images*.gz, t10k-labels*.gz). Training takes the training
images, inference the test images, in file order; a file that holds fewer than
"images" is repeated from its start. The last mini-batch may be smaller. Without "data",
which those of three channels go without, images are bytes of noise, the same in all programs, and
labels count 0 ... 9. StrideNet's worker is told its "layers" and "shape" in the command, too.

Every command starts from the same weights and is preceded by a few mini-batches
that are not counted (three and the last, of its own size), after which the weights
are set back. The time is the wall-clock time of the loop alone: taking the
mini-batch from the images as bytes, scaling by 1/255, and in training the loss, the
gradients and the update, in inference the class probabilities. Reading and
decompressing the files, building the network and compiling are not in it.

With --allocator keep, which is what happens without the option, the C library is told
(by MALLOC_* variables; the worker starts itself again with them) to keep freed memory
rather than to give large blocks back to the system each time. It speeds the eager
peers up considerably, PyTorch up to twofold, and is what one would do who wanted them
fast. With --allocator default the C library is left as it is.

Models. ReLU follows every convolution and every dense layer but the last; max-pooling is 2x2
with stride 2; flattening is in the order (h, w, c); the loss is the mean softmax
cross-entropy.
    flat   dense 100, dense 10
    cnn    conv 32@3x3, pool, dense 100, dense 10
    lenet  conv 32@3x3, pool, conv 64@3x3, pool, dense 128, dense 10
    vgg    conv 32, conv 32, pool, conv 64, conv 64, pool (3x3, padded to the same
           size), dense 128, dense 10
of 28x28x1, and of 32x32x3:
    vgg32  conv 64, conv 64, pool, conv 128, conv 128, pool, conv 256, conv 256, pool (3x3,
           padded), dense 256, dense 10; not by NumPy
    resnet20  of arXiv:1512.03385: conv 16@3x3, three stages of three residual blocks with 16,
           32 and 64 channels, global average pooling, dense 10; each convolution with batch
           normalisation (momentum 0.1, epsilon 1e-5); where a stage begins with stride 2 or
           more channels, the shortcut is a convolution 1x1 with batch normalisation; not by
           NumPy, TensorFlow and JAX. PyTorch and ONNX leave out the convolutions' biases,
           which change nothing
    wide32  of arXiv:1605.07146, in resnet20's blocks: conv 16, three stages of two with 64,
           128 and 256 channels; the same peers
of 64x64x3:
    resnet64  resnet20
and of 224x224x3, trained in mini-batches of 16:
    resnet224  ResNet-18's layers: conv 64@7x7 with stride 2, pool (2x2), four stages of two
           blocks with 64 to 512 channels, global average pooling, dense 10
    vgg224  VGG-16's convolutions: 64 twice, 128 twice, 256, 512 and 512 three times, a pool
           behind each, global average pooling, dense 10; not by NumPy, TensorFlow and JAX

Gradient descent with momentum: v = 0.9 v + g, weight -= 0.01 v. Biases start at
zero; weight i of parameter p (numbered weight, bias, weight, bias, ...; of batch normalisation
weight, bias, mean, variance) at value(i, 10 + p) * 2 / sqrt(fan_in), i running row-major
through (fh, fw, c, f) or (out, in), with value() as in values() below, so that every program
starts from the same weights and its losses can be compared.
"""
import argparse
import gzip
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

PEERS = ["torch", "torch-channels-last", "torch-compiled", "torch-bf16",
         "torch-channels-last-bf16", "torch-compiled-bf16", "numpy-im2col", "numpy-stride-groups",
         "tensorflow", "jax", "onnxruntime", "openvino", "openvino-streams", "openvino-bf16",
         "openvino-streams-bf16"]
PACKAGES = {"torch": "torch", "numpy": "numpy", "tensorflow": "tensorflow", "jax": "jax",
            "onnxruntime": "onnxruntime", "openvino": "openvino"}


def package(peer):
    return PACKAGES[peer.split("-")[0]]


def trains(peer):
    return package(peer) not in ("onnxruntime", "openvino")


def supports(peer, model):
    few = model in LARGE and model != "vgg32"
    return package(peer) not in (["numpy", "tensorflow", "jax"] if few else
                                 ["numpy"] if model in LARGE else [])


def stages(channels, blocks):
    return [("block", c, 2 if number == 0 and c > channels[0] else 1)
            for c in channels for number in range(blocks)] + [("average",), ("dense", 10)]


# A conv is 3x3, filters and padding; normed is one with batch normalisation, padded: filters, size,
# stride; a block has two of these, 3x3, and a shortcut: channels, stride.
MODELS = {
    "flat": [("dense", 100), ("dense", 10)],
    "cnn": [("conv", 32, 0), ("pool",), ("dense", 100), ("dense", 10)],
    "lenet": [("conv", 32, 0), ("pool",), ("conv", 64, 0), ("pool",), ("dense", 128),
              ("dense", 10)],
    "vgg": [("conv", 32, 1), ("conv", 32, 1), ("pool",), ("conv", 64, 1), ("conv", 64, 1),
            ("pool",), ("dense", 128), ("dense", 10)],
    "vgg32": [layer for filters in (64, 128, 256)
              for layer in (("conv", filters, 1), ("conv", filters, 1), ("pool",))]
    + [("dense", 256), ("dense", 10)],
    "resnet20": [("normed", 16, 3, 1)] + stages((16, 32, 64), 3),
    "wide32": [("normed", 16, 3, 1)] + stages((64, 128, 256), 2),
    "resnet64": [("normed", 16, 3, 1)] + stages((16, 32, 64), 3),
    "resnet224": [("normed", 64, 7, 2), ("pool",)] + stages((64, 128, 256, 512), 2),
    "vgg224": [layer for filters, times in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
               for layer in [("conv", filters, 1)] * times + [("pool",)]]
    + [("average",), ("dense", 10)],
}
# Edge of an image, images to train on and to answer, mini-batch to train in.
LARGE = {"vgg32": (32, 1280, 1000, 128), "resnet20": (32, 1280, 1000, 128),
         "wide32": (32, 384, 320, 128), "resnet64": (64, 384, 320, 128),
         "resnet224": (224, 48, 64, 16), "vgg224": (224, 32, 32, 16)}


def shape(model):
    """Height, width and channels of an image."""
    return (LARGE[model][0],) * 2 + (3,) if model in LARGE else (28, 28, 1)


def has_shortcut(channels, filters, stride):
    return stride > 1 or channels != filters


def work(model):
    """Millions of multiply-adds that the answer for an image takes by the definition."""
    h, w, c = shape(model)
    total, flat = 0, None
    for kind, *numbers in MODELS[model]:
        size, stride, padding = 3, 1, 1
        if kind == "conv":
            padding = numbers[1]
        elif kind == "normed":
            _, size, stride = numbers
            padding = size // 2
        elif kind == "block":
            stride = numbers[1]
        if kind in ("conv", "normed", "block"):
            f = numbers[0]
            h, w = ((n + 2 * padding - size) // stride + 1 for n in (h, w))
            total += h * w * f * c * size * size
            if kind == "block":
                total += h * w * f * (f * 9 + (c if has_shortcut(c, f, stride) else 0))
            c = f
        elif kind == "pool":
            h, w = h // 2, w // 2
        elif kind == "average":
            h = w = 1
        else:
            flat = flat or h * w * c
            total, flat = total + flat * numbers[0], numbers[0]
    return total / 1e6


def text(model):
    """A large model's layers as StrideNet writes them."""
    def normed(filters, size=3, stride=1, activation=""):
        return (f"conv({filters},{size},{stride},{size // 2},none) "
                f"batchnorm{f'({activation})' if activation else ''}")

    result, flat, c = [], False, shape(model)[2]
    for number, layer in enumerate(MODELS[model]):
        kind, filters = (layer + (0,))[:2]
        if kind == "dense":
            result += [] if flat else ["flatten"]
            last = number == len(MODELS[model]) - 1
            result.append(f"{'softmax' if last else 'relu'}({filters})")
            flat = True
        elif kind == "normed":
            result.append(normed(*layer[1:], activation="relu"))
        elif kind == "block":
            body = f"{normed(filters, 3, layer[2], 'relu')} {normed(filters)}"
            shortcut = (f" | {normed(filters, 1, layer[2])}"
                        if has_shortcut(c, filters, layer[2]) else "")
            result.append(f"residual({body}{shortcut}) activation(relu)")
        else:
            result.append({"conv": f"conv({filters},3,padding={layer[-1]})", "pool": "maxpool(2)",
                           "average": "globalavgpool"}[kind])
        if kind in ("conv", "normed", "block"):
            c = filters
    return " ".join(result)


RATE, MOMENTUM = 0.01, 0.9
# By which losses may differ, as shares.
TOLERANCE = {"float32": 1e-3, "bf16": 2e-2}
KEEP = {"MALLOC_MMAP_THRESHOLD_": str(4 << 30), "MALLOC_TRIM_THRESHOLD_": str(8 << 30),
        "MALLOC_TOP_PAD_": str(64 << 20)}


def prepare_environment(threads, allocator):
    """Before numpy or any other package is loaded, and before any input is read."""
    # These pin OpenBLAS to another processor's kernels and block sizes.
    for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
        os.environ.pop(name, None)
    if os.environ.get("ATEN_CPU_CAPABILITY") == "avx2":
        os.environ["OPENBLAS_CORETYPE"] = "Haswell"
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(threads)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"        # else its processes stay
    # The C library looks at these when the process starts.
    wanted = {name: KEEP[name] if allocator == "keep" else None for name in KEEP}
    if any(os.environ.get(name) != value for name, value in wanted.items()):
        for name, value in wanted.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        os.execv(sys.executable, [sys.executable] + sys.orig_argv[1:])


# --- data and weights ----------------------------------------------------------

def read_digits(folder, kind, count):
    """The images (count, 784) and labels (count) as bytes."""
    import numpy as np
    arrays = []
    for pattern, header, size in ((kind + "-images*.gz", 16, 784), (kind + "-labels*.gz", 8, 1)):
        files = sorted(Path(folder).glob(pattern))
        if len(files) != 1:
            raise ValueError(f"{folder}: expected one file {pattern}, found {len(files)}")
        with gzip.open(files[0]) as f:
            content = np.frombuffer(f.read(), dtype=np.uint8)[header:].reshape(-1, size)
        if len(content) < count:
            content = np.concatenate([content] * math.ceil(count / len(content)))
        arrays.append(content[:count].copy())
    return arrays[0], arrays[1].reshape(-1)


def synthetic(shape, count):
    """The same as ImageSet.synthetic makes: images (count, height * width * channels), labels."""
    import numpy as np
    pixels = (noise(count * math.prod(shape), 0) >> np.uint64(24)).astype(np.uint8)
    return pixels.reshape(count, -1), (np.arange(count) % 10).astype(np.uint8)


def noise(count, salt):
    import numpy as np
    u = (np.arange(count, dtype=np.uint64) * 2654435761 + salt * 40503 + 12345) & 0xFFFFFFFF
    u ^= u >> np.uint64(16)
    u = (u * 0x45D9F3B) & 0xFFFFFFFF
    u ^= u >> np.uint64(16)
    return u


def values(shape, salt):
    import numpy as np
    u = noise(math.prod(shape), salt) >> np.uint64(8)
    return (u.astype(np.float64) / 2**24 - 0.5).reshape(shape)


def initial_weights(model):
    """Weight, bias, weight, bias, ...; convolutions HWIO, dense (out, in)."""
    import numpy as np
    c, result = shape(model)[2], []

    def add(shape, fan_in, outputs):
        weight = values(shape, 10 + len(result)) * (2 / math.sqrt(fan_in))
        result.extend([weight.astype(np.float32), np.zeros(outputs, np.float32)])

    def add_normed(size, inputs, outputs):
        add((size, size, inputs, outputs), size * size * inputs, outputs)
        for value in (1, 0, 0, 1):                    # weight, bias, mean, variance
            result.append(np.full(outputs, value, np.float32))

    inputs = None
    for kind, *numbers in MODELS[model]:
        if kind == "conv":
            add((3, 3, c, numbers[0]), 9 * c, numbers[0])
        elif kind == "normed":
            add_normed(numbers[1], c, numbers[0])
        elif kind == "block":
            add_normed(3, c, numbers[0])
            add_normed(3, numbers[0], numbers[0])
            if has_shortcut(c, *numbers):
                add_normed(1, c, numbers[0])
        elif kind == "dense":
            inputs = inputs or math.prod(shape_before_flatten(model))
            add((numbers[0], inputs), inputs, numbers[0])
            inputs = numbers[0]
        if kind in ("conv", "normed", "block"):
            c = numbers[0]
    return result


def shape_before_flatten(model):
    h, w, c = shape(model)
    for kind, *numbers in MODELS[model]:
        if kind == "conv":
            h, w = h + 2 * numbers[1] - 2, w + 2 * numbers[1] - 2
        elif kind in ("normed", "block"):
            h, w = ((n - 1) // numbers[-1] + 1 for n in (h, w))
        elif kind == "pool":
            h, w = h // 2, w // 2
        elif kind == "average":
            h = w = 1
        if kind in ("conv", "normed", "block"):
            c = numbers[0]
    return h, w, c


# --- PyTorch ---------------------------------------------------------------------

class Torch:
    def __init__(self, threads, channels_last, bf16, compiled=False):
        import torch
        self.torch, self.channels_last, self.compiled = torch, channels_last, compiled
        self.precision = lambda: torch.autocast("cpu", torch.bfloat16, enabled=bf16)
        self.version, self.models = torch.__version__, {}
        torch.set_num_threads(threads)
        torch.set_flush_denormal(True)
        if compiled:
            import torch._dynamo
            torch._dynamo.config.recompile_limit = 1000      # one for each size of mini-batch

    def load(self, images, labels, shape):
        # With one channel both layouts have the same bytes; the strides must say
        # which one is meant, and these do.
        images = self.torch.from_numpy(images).view(-1, *shape).permute(0, 3, 1, 2)
        h, w, c = shape
        if not self.channels_last:
            images = images.contiguous().view(-1, c, h, w)
        self.images, self.labels = images, self.torch.from_numpy(labels).long()

    def reset(self, model):
        torch = self.torch
        if model not in self.models:
            network = self.network(model)
            start = {name: value.clone() for name, value in network.state_dict().items()}
            self.models[model] = network, start, *self.functions(network)
        self.trained, start, self.loss, self.predict = self.models[model]
        self.trained.load_state_dict(start)
        self.optimizer = torch.optim.SGD(self.trained.parameters(), lr=RATE, momentum=MOMENTUM)

    def network(self, model):
        torch, nn = self.torch, self.torch.nn

        class FlattenHWC(nn.Module):                     # of channels-last: without a copy
            def forward(self, x):
                return x.permute(0, 2, 3, 1).flatten(1)

        class Block(nn.Module):
            def __init__(self, body, shortcut):
                super().__init__()
                self.body, self.shortcut = body, shortcut

            def forward(self, x):
                return self.body(x).add_(self.shortcut(x))

        weights = iter([torch.from_numpy(w) for w in initial_weights(model)])

        def normed(stride=1):
            w, *_ = (next(weights) for _ in range(6))        # as PyTorch's own start: 0 and 1
            size, _, inputs, outputs = w.shape
            module = nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)
            with torch.no_grad():
                module.weight.copy_(w.permute(3, 2, 0, 1))
            return module, nn.BatchNorm2d(outputs)

        modules, flat = [], False
        for number, (kind, *numbers) in enumerate(MODELS[model]):
            if kind in ("pool", "average"):
                modules.append(nn.MaxPool2d(2) if kind == "pool" else nn.AdaptiveAvgPool2d(1))
                continue
            if kind == "normed":
                modules.extend(normed(numbers[2]))
            elif kind == "block":
                body = nn.Sequential(*normed(numbers[1]), nn.ReLU(inplace=True), *normed())
                shortcut = (nn.Sequential(*normed(numbers[1]))
                            if has_shortcut(body[0].in_channels, *numbers) else nn.Identity())
                modules.append(Block(body, shortcut))
            else:
                w, b = next(weights), next(weights)
                if kind == "conv":
                    module = nn.Conv2d(w.shape[2], w.shape[3], 3, padding=numbers[1])
                    w = w.permute(3, 2, 0, 1)
                else:
                    if not flat:
                        flat = True
                        if self.channels_last:
                            modules.append(FlattenHWC())
                        else:                             # the same network, its inputs reordered
                            modules.append(nn.Flatten())
                            h, v, c = shape_before_flatten(model)
                            w = w.view(-1, h, v, c).permute(0, 3, 1, 2).reshape(len(w), -1)
                    module = nn.Linear(w.shape[1], w.shape[0])
                with torch.no_grad():
                    module.weight.copy_(w)
                    module.bias.copy_(b)
                modules.append(module)
            if number < len(MODELS[model]) - 1:
                modules.append(nn.ReLU(inplace=True))
        network = nn.Sequential(*modules)
        return network.to(memory_format=torch.channels_last) if self.channels_last else network

    def functions(self, network):
        """The loss, and the probabilities, of images as bytes."""
        torch = self.torch

        def loss(images, labels):
            x = images.to(torch.float32).mul_(1 / 255)
            return torch.nn.functional.cross_entropy(network(x), labels)

        def predict(images):
            return torch.softmax(network(images.to(torch.float32).mul_(1 / 255)).float(), 1)

        if not self.compiled:
            return loss, predict
        return (torch.compile(loss, dynamic=False),
                torch.compile(predict, dynamic=False, options={"freezing": True}))

    def train(self, parts):
        images, labels, losses = self.images, self.labels, []
        self.trained.train()
        for part in parts:
            self.optimizer.zero_grad(set_to_none=True)
            with self.precision():
                loss = self.loss(images[part], labels[part])
            loss.backward()
            self.optimizer.step()
            if len(losses) < 5:
                losses.append(loss.detach())
        return losses

    def infer(self, parts):
        predict, images, first = self.predict, self.images, []
        self.trained.eval()
        with self.torch.inference_mode(), self.precision():
            for part in parts:
                output = predict(images[part])
                if len(first) < 5:
                    first.append(output)
        return first

    def finish(self):
        pass


# --- NumPy -----------------------------------------------------------------------

class NumPy:
    """Layers by hand, NHWC. The convolution is either im2col with one matrix product
    or one matrix product for each stride group; everything else is shared."""

    def __init__(self, threads, stride_groups):
        import numpy as np
        self.np, self.stride_groups = np, stride_groups
        self.version = np.__version__

    def load(self, images, labels, shape):
        self.images, self.labels = images.reshape(-1, *shape), labels.astype(self.np.intp)

    def reset(self, model):
        np = self.np
        weights = initial_weights(model)
        self.layers, position, seen = [], 0, False
        for number, layer in enumerate(MODELS[model]):
            if layer[0] == "pool":
                self.layers.append(MaxPool(np, 2, 2))
                continue
            w, b = weights[position:position + 2]
            position += 2
            if layer[0] == "conv":
                kind = StrideGroups if self.stride_groups else Im2col
                self.layers.append(kind(np, w, b, (1, 1), (layer[2], layer[2]), not seen))
            else:
                self.layers.append(Dense(np, w, b, not seen))
            seen = True
            if number < len(MODELS[model]) - 1:
                self.layers.append(ReLU(np))
        self.trained = [l for l in self.layers if isinstance(l, (Convolution, Dense))]
        self.velocities = [(np.zeros_like(l.w), np.zeros_like(l.b)) for l in self.trained]

    def probabilities(self, part, training):
        np = self.np
        x = self.images[part].astype(np.float32)
        x *= np.float32(1 / 255)
        for layer in self.layers:
            x = layer.forward(x, training)
        x = x - x.max(axis=1, keepdims=True)
        np.exp(x, out=x)
        x /= x.sum(axis=1, keepdims=True)
        return x

    def train(self, parts):
        np, losses = self.np, []
        for part in parts:
            d, labels = self.probabilities(part, True), self.labels[part]
            rows = np.arange(len(d))
            if len(losses) < 5:
                losses.append(-np.log(np.maximum(d[rows, labels], 1e-38)).mean())
            d[rows, labels] -= 1
            d /= np.float32(len(d))
            for layer in reversed(self.layers):
                d = layer.backward(d)
            for layer, (vw, vb) in zip(self.trained, self.velocities):
                vw *= np.float32(MOMENTUM)
                vw += layer.dw
                layer.w -= np.float32(RATE) * vw
                vb *= np.float32(MOMENTUM)
                vb += layer.db
                layer.b -= np.float32(RATE) * vb
        return losses

    def infer(self, parts):
        first = []
        for part in parts:
            output = self.probabilities(part, False)
            if len(first) < 5:
                first.append(output)
        return first

    def finish(self):
        pass


class ReLU:
    def __init__(self, np):
        self.np = np

    def forward(self, x, training):
        self.y = self.np.maximum(x, 0, out=x)
        return self.y

    def backward(self, dy):
        dy *= self.y > 0
        return dy


class Dense:
    def __init__(self, np, w, b, first):
        self.np, self.w, self.b, self.first = np, w, b, first

    def forward(self, x, training):
        self.shape = x.shape
        self.x = x.reshape(len(x), -1)
        y = self.x @ self.w.T
        y += self.b
        return y

    def backward(self, dy):
        self.dw, self.db = dy.T @ self.x, dy.sum(axis=0)
        return None if self.first else (dy @ self.w).reshape(self.shape)


class MaxPool:
    """Any size and stride; of equal values the first receives the gradient."""

    def __init__(self, np, size, stride):
        self.np, self.size, self.stride = np, size, stride

    def windows(self, x, oh, ow):
        s = self.stride
        for i in range(self.size):
            for j in range(self.size):
                yield x[:, i:i + s * (oh - 1) + 1:s, j:j + s * (ow - 1) + 1:s]

    def forward(self, x, training):
        self.x = x
        oh, ow = ((d - self.size) // self.stride + 1 for d in x.shape[1:3])
        y = None
        for part in self.windows(x, oh, ow):
            y = part.copy() if y is None else self.np.maximum(y, part, out=y)
        self.y = y
        return y

    def backward(self, dy):
        np = self.np
        dx = np.zeros_like(self.x)
        oh, ow = dy.shape[1:3]
        open_ = np.ones(dy.shape, bool)
        for part, target in zip(self.windows(self.x, oh, ow), self.windows(dx, oh, ow)):
            hit = part == self.y
            hit &= open_
            open_ ^= hit
            target += dy * hit
        return dx


class Convolution:
    """w is HWIO; stride and padding are (vertical, horizontal)."""

    def __init__(self, np, w, b, stride, padding, first):
        self.np, self.w, self.b, self.first = np, w, b, first
        self.stride, self.padding = stride, padding

    def pad(self, x):
        (ph, pw), (n, h, w, c) = self.padding, x.shape
        if ph == 0 and pw == 0:
            return x
        padded = self.np.zeros((n, h + 2 * ph, w + 2 * pw, c), x.dtype)
        padded[:, ph:ph + h, pw:pw + w] = x
        return padded

    def unpad(self, x):
        (ph, pw), (_, h, w, _) = self.padding, x.shape
        return x[:, ph:h - ph, pw:w - pw]

    def output_size(self, x):
        return [(x.shape[1 + a] - self.w.shape[a]) // self.stride[a] + 1 for a in (0, 1)]


class Im2col(Convolution):
    def forward(self, x, training):
        np, (fh, fw, c, f), (sh, sw) = self.np, self.w.shape, self.stride
        x = self.pad(x)
        self.shape = x.shape
        oh, ow = self.output_size(x)
        columns = np.empty((len(x), oh, ow, fh, fw, c), x.dtype)
        for i in range(fh):
            for j in range(fw):
                columns[:, :, :, i, j] = x[:, i:i + sh * (oh - 1) + 1:sh, j:j + sw * (ow - 1) + 1:sw]
        columns = columns.reshape(-1, fh * fw * c)
        self.columns = columns if training else None
        y = columns @ self.w.reshape(-1, f)
        y += self.b
        return y.reshape(len(x), oh, ow, f)

    def backward(self, dy):
        np, (fh, fw, c, f), (sh, sw) = self.np, self.w.shape, self.stride
        n, oh, ow, _ = dy.shape
        flat = dy.reshape(-1, f)
        self.dw = (self.columns.T @ flat).reshape(self.w.shape)
        self.db = flat.sum(axis=0)
        self.columns = None
        if self.first:
            return None
        columns = (flat @ self.w.reshape(-1, f).T).reshape(n, oh, ow, fh, fw, c)
        dx = np.zeros(self.shape, dy.dtype)
        for i in range(fh):
            for j in range(fw):
                dx[:, i:i + sh * (oh - 1) + 1:sh, j:j + sw * (ow - 1) + 1:sw] += columns[:, :, :, i, j]
        return self.unpad(dx)


class StrideGroups(Convolution):
    """Along one axis q = ceil(filter / stride); the output positions p with equal
    p mod q form a group, whose windows start q * stride >= filter apart and so do not
    overlap. In two dimensions the groups are the pairs."""

    def groups(self, x, writeable=False):
        """(rows, columns, windows): the group's output positions, and a view of x as
        (n, positions down, positions across, fh, fw, c) in which no element is seen
        twice."""
        np, (fh, fw, c, _), (sh, sw) = self.np, self.w.shape, self.stride
        oh, ow = self.output_size(x)
        qh, qw = -(-fh // sh), -(-fw // sw)
        n, (st_n, st_h, st_w, st_c) = len(x), x.strides
        for g in range(min(qh, oh)):
            for k in range(min(qw, ow)):
                shape = (n, -(-(oh - g) // qh), -(-(ow - k) // qw), fh, fw, c)
                strides = (st_n, qh * sh * st_h, qw * sw * st_w, st_h, st_w, st_c)
                view = np.lib.stride_tricks.as_strided(x[:, g * sh:, k * sw:], shape, strides,
                                                       writeable=writeable)
                yield slice(g, None, qh), slice(k, None, qw), view

    def forward(self, x, training):
        np, (fh, fw, c, f) = self.np, self.w.shape
        x = self.pad(x)
        self.shape = x.shape
        oh, ow = self.output_size(x)
        y = np.empty((len(x), oh, ow, f), x.dtype)
        self.gathered = []
        for rows, columns, windows in self.groups(x):
            matrix = windows.reshape(-1, fh * fw * c)               # a copy: the gather
            y[:, rows, columns] = (matrix @ self.w.reshape(-1, f)).reshape(windows.shape[:3] + (f,))
            if training:
                self.gathered.append(matrix)
        y += self.b
        return y

    def backward(self, dy):
        np, (fh, fw, c, f) = self.np, self.w.shape
        dw = np.zeros((fh * fw * c, f), dy.dtype)
        dx = np.zeros(self.shape, dy.dtype)
        for (rows, columns, windows), matrix in zip(self.groups(dx, True), self.gathered):
            part = dy[:, rows, columns].reshape(-1, f)
            dw += matrix.T @ part
            if not self.first:
                windows += (part @ self.w.reshape(-1, f).T).reshape(windows.shape)   # the scatter
        self.dw, self.db = dw.reshape(self.w.shape), dy.sum(axis=(0, 1, 2))
        self.gathered = []
        return None if self.first else self.unpad(dx)


# --- TensorFlow --------------------------------------------------------------------

class TensorFlow:
    """NHWC, its default, with the step compiled to a graph by tf.function."""

    def __init__(self, threads):
        import tensorflow as tf
        self.tf, self.version = tf, tf.__version__
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        self.weights = {}

    def load(self, images, labels, shape):
        self.images = self.tf.constant(images.reshape(-1, *shape))
        self.labels = self.tf.constant(labels.astype("int32"))

    def reset(self, model):
        tf = self.tf
        if model not in self.weights:
            start = [tf.Variable(w) for w in initial_weights(model)]
            speed = [tf.Variable(tf.zeros_like(w)) for w in start]
            self.weights[model] = start, speed, *self.functions(model, start, speed)
        start, speed, self.step, self.predict = self.weights[model]
        for variable, velocity, w in zip(start, speed, initial_weights(model)):
            variable.assign(w)
            velocity.assign(tf.zeros_like(velocity))

    def functions(self, model, weights, velocities):
        tf = self.tf

        def forward(images):
            x, position = tf.cast(images, tf.float32) * (1 / 255), 0
            for number, layer in enumerate(MODELS[model]):
                if layer[0] == "pool":
                    x = tf.nn.max_pool2d(x, 2, 2, "VALID")
                    continue
                w, b = weights[position:position + 2]
                position += 2
                if layer[0] == "conv":
                    x = tf.nn.bias_add(tf.nn.conv2d(x, w, 1, "SAME" if layer[2] else "VALID"), b)
                else:
                    if len(x.shape) > 2:
                        x = tf.reshape(x, (-1, math.prod(x.shape[1:])))
                    x = tf.nn.bias_add(tf.matmul(x, w, transpose_b=True), b)
                if number < len(MODELS[model]) - 1:
                    x = tf.nn.relu(x)
            return x

        @tf.function
        def step(images, labels):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(
                    labels=labels, logits=forward(images)))
            for w, v, g in zip(weights, velocities, tape.gradient(loss, weights)):
                v.assign(MOMENTUM * v + g)
                w.assign_sub(RATE * v)
            return loss

        @tf.function
        def predict(images):
            return tf.nn.softmax(forward(images))

        return step, predict

    def train(self, parts):
        images, labels, step, losses = self.images, self.labels, self.step, []
        for part in parts:
            loss = step(images[part], labels[part])
            if len(losses) < 5:
                losses.append(loss)
        self.last = loss
        return losses

    def infer(self, parts):
        images, predict, first = self.images, self.predict, []
        for part in parts:
            self.last = predict(images[part])
            if len(first) < 5:
                first.append(self.last)
        return first

    def finish(self):
        self.last.numpy()


# --- JAX ---------------------------------------------------------------------------

class JAX:
    """NHWC, the step compiled by jax.jit. XLA takes its number of threads from the
    processors the process may use."""

    def __init__(self, threads):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
        import jax
        self.jax, self.version = jax, jax.__version__
        self.compiled = {}

    def load(self, images, labels, shape):
        self.images, self.labels = images.reshape(-1, *shape), labels.astype("int32")

    def reset(self, model):
        jax = self.jax
        if model not in self.compiled:
            self.compiled[model] = self.functions(model)
        self.step, self.predict = self.compiled[model]
        self.weights = [jax.numpy.array(w) for w in initial_weights(model)]
        self.velocities = [jax.numpy.zeros_like(w) for w in self.weights]

    def functions(self, model):
        jax, jnp = self.jax, self.jax.numpy

        def forward(weights, images):
            x, position = images.astype(jnp.float32) * (1 / 255), 0
            for number, layer in enumerate(MODELS[model]):
                if layer[0] == "pool":
                    x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1),
                                              "VALID")
                    continue
                w, b = weights[position:position + 2]
                position += 2
                if layer[0] == "conv":
                    x = jax.lax.conv_general_dilated(x, w, (1, 1), [(layer[2], layer[2])] * 2,
                                                     dimension_numbers=("NHWC", "HWIO", "NHWC")) + b
                else:
                    x = x.reshape(len(x), -1) @ w.T + b
                if number < len(MODELS[model]) - 1:
                    x = jax.nn.relu(x)
            return x

        def mean_loss(weights, images, labels):
            logits = jax.nn.log_softmax(forward(weights, images))
            return -jnp.take_along_axis(logits, labels[:, None], 1).mean()

        def step(weights, velocities, images, labels):
            loss, gradients = jax.value_and_grad(mean_loss)(weights, images, labels)
            velocities = [MOMENTUM * v + g for v, g in zip(velocities, gradients)]
            weights = [w - RATE * v for w, v in zip(weights, velocities)]
            return weights, velocities, loss

        return (jax.jit(step, donate_argnums=(0, 1)),
                jax.jit(lambda weights, images: jax.nn.softmax(forward(weights, images))))

    def train(self, parts):
        losses, weights, velocities = [], self.weights, self.velocities
        for part in parts:
            weights, velocities, loss = self.step(weights, velocities, self.images[part],
                                                  self.labels[part])
            if len(losses) < 5:
                losses.append(loss)
        self.weights, self.velocities, self.last = weights, velocities, weights
        return losses

    def infer(self, parts):
        first = []
        for part in parts:
            self.last = self.predict(self.weights, self.images[part])
            if len(first) < 5:
                first.append(self.last)
        return first

    def finish(self):
        self.jax.block_until_ready(self.last)


# --- ONNX Runtime --------------------------------------------------------------------

class ONNXRuntime:
    """It answers only: what it can't do is train. Images come in as bytes, and scaling is in the
    graph, so that its optimiser sees all of it."""

    def __init__(self, threads):
        import onnx
        import onnxruntime
        self.onnx, self.runtime, self.version = onnx, onnxruntime, onnxruntime.__version__
        self.threads, self.sessions = threads, {}

    def load(self, images, labels, shape):
        import numpy as np
        self.images = np.ascontiguousarray(images.reshape(-1, *shape).transpose(0, 3, 1, 2))

    def reset(self, model):
        if model not in self.sessions:
            options = self.runtime.SessionOptions()
            options.intra_op_num_threads = self.threads
            options.graph_optimization_level = self.runtime.GraphOptimizationLevel.ORT_ENABLE_ALL
            self.sessions[model] = self.runtime.InferenceSession(
                self.graph(model), options, providers=["CPUExecutionProvider"])
        self.session = self.sessions[model]

    def graph(self, model):
        helper, numpy_helper = self.onnx.helper, self.onnx.numpy_helper
        kinds, nodes, constants = self.onnx.TensorProto, [], []

        def named(array):
            constants.append(numpy_helper.from_array(array, f"c{len(constants)}"))
            return constants[-1].name

        def add(kind, *inputs, **attributes):
            nodes.append(helper.make_node(kind, inputs, [f"y{len(nodes)}"], **attributes))
            return f"y{len(nodes) - 1}"

        import numpy as np
        weights = iter(initial_weights(model))

        def weight():
            w = next(weights)
            if w.ndim == 4:
                w = np.ascontiguousarray(w.transpose(3, 2, 0, 1))
            return w

        def normed(x, stride=1):
            w, _, *rows = (weight() for _ in range(6))
            size = w.shape[2]
            x = add("Conv", x, named(w), pads=[size // 2] * 4, strides=[stride] * 2)
            return add("BatchNormalization", x, *map(named, rows), epsilon=1e-5)

        x = add("Mul", add("Cast", "x", to=kinds.FLOAT), named(np.float32(1 / 255)))
        flat, c = False, shape(model)[2]
        for number, (kind, *numbers) in enumerate(MODELS[model]):
            if kind == "pool":
                x = add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
                continue
            if kind == "average":
                x = add("GlobalAveragePool", x)
                continue
            if kind == "normed":
                x = normed(x, numbers[2])
            elif kind == "block":
                body = normed(add("Relu", normed(x, numbers[1])))
                x = add("Add", body, normed(x, numbers[1]) if has_shortcut(c, *numbers) else x)
            elif kind == "conv":
                w, b = weight(), weight()
                x = add("Conv", x, named(w), named(b), pads=[numbers[1]] * 4)
            else:
                w, b = weight(), weight()
                if not flat:
                    flat, (h, v, c) = True, shape_before_flatten(model)
                    x = add("Flatten", x)
                    w = np.ascontiguousarray(
                        w.reshape(-1, h, v, c).transpose(0, 3, 1, 2).reshape(len(w), -1))
                x = add("Gemm", x, named(w), named(b), transB=1)
            if kind in ("conv", "normed", "block"):
                c = numbers[0]
            if number < len(MODELS[model]) - 1:
                x = add("Relu", x)
        x = add("Softmax", x, axis=1)
        h, w, channels = shape(model)
        graph = helper.make_graph(
            nodes, model, [helper.make_tensor_value_info("x", kinds.UINT8, ["n", channels, h, w])],
            [helper.make_tensor_value_info(x, kinds.FLOAT, ["n", MODELS[model][-1][1]])], constants)
        return helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()

    def infer(self, parts):
        first = []
        for part in parts:
            output = self.session.run(None, {"x": self.images[part]})[0]
            if len(first) < 5:
                first.append(output)
        return first

    def finish(self):
        pass


# --- OpenVINO ------------------------------------------------------------------------

class OpenVINO(ONNXRuntime):
    """The same graph, compiled for each size of mini-batch. It answers only, too."""

    def __init__(self, threads, streams, bf16):
        import onnx
        import openvino
        self.onnx, self.openvino, self.version = onnx, openvino, openvino.__version__
        self.core, self.streams, self.compiled = openvino.Core(), streams, {}
        self.settings = {"INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32",
                         "INFERENCE_NUM_THREADS": threads,
                         "NUM_STREAMS": threads if streams else 1}

    def reset(self, model):
        self.model = model

    def program(self, count):
        key = self.model, count
        if key not in self.compiled:
            graph = self.core.read_model(self.graph(self.model))
            graph.reshape([count, *self.images.shape[1:]])
            self.compiled[key] = self.core.compile_model(graph, "CPU", self.settings)
        return self.compiled[key]

    def infer(self, parts):
        first = {}

        def keep(request, number):
            if number < 5:
                first[number] = request.get_output_tensor().data.copy()

        queues = {}
        for number, part in enumerate(parts):
            images = self.images[part]
            if len(images) not in queues:
                queues[len(images)] = self.openvino.AsyncInferQueue(self.program(len(images)))
                queues[len(images)].set_callback(keep)
            queues[len(images)].start_async([images], number)
            if not self.streams:
                queues[len(images)].wait_all()
        for queue in queues.values():
            queue.wait_all()
        return [first[number] for number in sorted(first)]


# --- the worker ----------------------------------------------------------------------

def make(peer, threads):
    name, bf16 = peer.removesuffix("-bf16"), peer.endswith("-bf16")
    return {"torch": lambda: Torch(threads, False, bf16),
            "torch-channels-last": lambda: Torch(threads, True, bf16),
            "torch-compiled": lambda: Torch(threads, True, bf16, compiled=True),
            "numpy-im2col": lambda: NumPy(threads, False),
            "numpy-stride-groups": lambda: NumPy(threads, True),
            "tensorflow": lambda: TensorFlow(threads),
            "jax": lambda: JAX(threads),
            "onnxruntime": lambda: ONNXRuntime(threads),
            "openvino": lambda: OpenVINO(threads, False, bf16),
            "openvino-streams": lambda: OpenVINO(threads, True, bf16)}[name]()


def run(program, command, cache):
    import numpy as np
    model, mode = command["model"], command["mode"]
    batch, count = int(command["batch"]), int(command["images"])
    if model not in MODELS:
        raise ValueError(f"no model {model!r}: there are {', '.join(MODELS)}")
    if mode not in ("train", "infer"):
        raise ValueError(f"no mode {mode!r}: there are train and infer")
    if batch < 1 or count < 1:
        raise ValueError("batch and images must be positive")
    key = (command.get("data"), shape(model), mode, count)
    if cache.get("key") != key:
        cache["key"], cache["data"] = key, (
            read_digits(command["data"], "train" if mode == "train" else "t10k", count)
            if "data" in command else synthetic(shape(model), count))
        program.load(*cache["data"], shape(model))
    parts = [slice(a, min(a + batch, count)) for a in range(0, count, batch)]
    loop = program.train if mode == "train" else program.infer
    program.reset(model)
    loop(parts[:3] + parts[-1:])
    program.finish()
    program.reset(model)
    start = time.perf_counter()
    first = loop(parts)
    program.finish()
    seconds = time.perf_counter() - start
    if mode == "infer":
        labels = cache["data"][1]
        first = [-np.log(np.maximum(np.asarray(p)[np.arange(len(p)), labels[part]], 1e-38)).mean()
                 for p, part in zip(first, parts)]
    return dict(model=model, mode=mode, batch=batch, images=count, seconds=round(seconds, 6),
                losses=[round(float(v), 7) for v in first])


def worker(peer, threads, allocator):
    # Only answers go to standard output, whatever the packages print.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def answer(content):
        answers.write(json.dumps(dict(peer=peer, **content)) + "\n")
        answers.flush()

    try:
        program = make(peer, threads)
    except ImportError as error:
        message = f"{package(peer)} cannot be imported: {error}"
        answer(dict(error=message))
        sys.exit(3)
    cache = {}
    for line in sys.stdin:
        if not line.strip():
            continue
        try:
            result = run(program, json.loads(line), cache)
            answer(dict(version=program.version, threads=threads, allocator=allocator, **result))
        except Exception as error:                # whatever it was, the worker stays
            answer(dict(error=f"{type(error).__name__}: {error}"))


def ask(peer, commands, threads):
    """One worker, these commands; its answers."""
    process = subprocess.run([sys.executable, __file__, "worker", peer, "--threads", str(threads)],
                             input="".join(json.dumps(c) + "\n" for c in commands),
                             stdout=subprocess.PIPE, text=True)
    return [json.loads(line) for line in process.stdout.splitlines()]


def check(folder, images, peers, threads):
    """Runs every model with every peer and compares the losses with the first's."""
    reference, failed = {}, False
    for peer in peers:
        commands = [dict(model=model, mode=mode, batch=128, images=images,
                         **({} if model in LARGE else {"data": folder}))
                    for model in MODELS if supports(peer, model)
                    for mode in (["train", "infer"] if trains(peer) else ["infer"])]
        answers = ask(peer, commands, threads)
        if len(answers) != len(commands):
            print(peer, answers[-1].get("error") if answers else "gave no answer")
            continue
        for a in answers:
            if "error" in a:
                sys.exit(f"{peer}: {a['error']}")
            expected = reference.setdefault((a["model"], a["mode"]), a["losses"])
            difference = max(abs(x - y) / y for x, y in zip(a["losses"], expected))
            failed |= not difference < TOLERANCE["bf16" if peer.endswith("-bf16") else "float32"]
            print(f"{peer:24} {a['model']:8} {a['mode']:5} {a['seconds']:8.3f} s "
                  f"{' '.join('%.5f' % v for v in a['losses'])}  differ {difference:.0e}",
                  flush=True)
    sys.exit(0 if reference and not failed else 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("list")
    action = actions.add_parser("worker")
    action.add_argument("peer", choices=PEERS)
    action.add_argument("--threads", type=int, default=2)
    action.add_argument("--allocator", choices=["keep", "default"], default="keep")
    action = actions.add_parser("check")
    action.add_argument("folder")
    action.add_argument("peers", nargs="*", default=[], metavar="PEER")
    action.add_argument("--images", type=int, default=1280)
    action.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    if arguments.action == "list":
        from importlib import metadata, util

        def version(package):
            if util.find_spec(package) is None:
                return None
            try:
                return metadata.version(package)
            except metadata.PackageNotFoundError:      # installed under another name
                return ""
        print(json.dumps({peer: version(package(peer)) for peer in PEERS}))
    elif arguments.action == "worker":
        prepare_environment(arguments.threads, arguments.allocator)
        worker(arguments.peer, arguments.threads, arguments.allocator)
    else:
        for peer in arguments.peers:
            if peer not in PEERS:
                parser.error(f"no peer {peer!r}: there are {', '.join(PEERS)}")
        check(arguments.folder, arguments.images, arguments.peers or PEERS, arguments.threads)


if __name__ == "__main__":
    main()
