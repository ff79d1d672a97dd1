#!/usr/bin/env python3
"""Writes the stored expectations of the tests, computed by PyTorch.

    python generate.py [folder-with-sample-files]

Needs torch and numpy. The folder holds the digits as gzip-compressed IDX files
(train-images*.gz, train-labels*.gz); without it, the package's own sample is
used: ../../../Sources/MNISTSample/files, seen from this script. The outputs are
written next to the script: convolution.json, pooling.json, dense_softmax.json,
activation.json, normalization.json, frozen.json, optimizers.json, training.json, exchange.json
and pytorch.safetensors (with the package safetensors), metrics.json (with
scikit-learn), class_weights.json, regression.json (with scikit-learn).

Inputs are never stored, only results, because the tests make the same inputs:

    u = (i * 2654435761 + salt * 40503 + 12345) mod 2^32        (UInt32)
    u ^= u >> 16;  u = u * 0x45d9f3b mod 2^32;  u ^= u >> 16
    value(i, salt) = (u >> 8) / 2^24 - 0.5

which lies in [-0.5, 0.5) and is exact in single precision. i is the flat,
row-major index in the layouts below. Each file lists a few in "value_check" as
[i, salt, value].

Layouts, of inputs and of everything stored: activations NHWC, convolution
weights HWIO (fh, fw, c, f), dense weights (out, in). Numbers are rounded to nine
significant digits; magnitudes below 1e-30 are stored as 0.

convolution.json   "cases"; x = value(i, 1), w = value(i, 2), b = value(i, 3), and
                   the gradient that arrives from above dy = value(i, 4).
                   n h w c fh fw f sh sw ph pw give the sizes (s stride, p padding
                   on each side, to which some cases add more below and to the
                   right), dilation both, groups those of channels and
                   filters (w is (fh, fw, c / groups, f)), oh ow the output's;
                   "x" and "w" are inputs and not stored, "y", "dx", "dw", "db" are results. The width is
                   stored as "w". Float64.
pooling.json       "cases"; x = value(i, 1), dy = value(i, 4); padding, on each side,
                   ceil mode and whether means count padding, or none of it;
                   max_y, max_dx, avg_y, avg_dx. x has no equal values within a
                   window. "stem": a network's loss and gradient, parameter by
                   parameter, each value(i, 10 + p), but 1 more where p is 2, the
                   normalisation's weight; x = 0.5 + value(i, 1), labels 0 to 3.
                   Float64.
activation.json    "cases"; x = scale * value(i, 1), dy = value(i, 4), n of each; y, dx.
                   slope is leaky_relu's. Float64.
dense_softmax.json "dense": x (n, in) = value(i, 1), w = value(i, 2),
                   b = value(i, 3), then the activation none, relu or sigmoid,
                   whose output is y; dy = value(i, 4) arrives at y. y dx dw db.
                   "softmax": logits (n, classes) = scale * value(i, 1), label of
                   row r = 7 r mod classes; probabilities, loss (the mean of the
                   rows' cross-entropies), losses (each row's) and dlogits (of
                   the mean). With scale 2000 most probabilities are 0 or 1; the
                   losses stay finite. Float64.
class_weights.json "cases"; logits = 6 * value(i, 1), a weight of each class 0.6 + value(i, 2), labels
                   as in dense_softmax.json; loss, the weighted mean, and dlogits. Float64.
regression.json    "cases"; outputs y = 3 * value(i, 1) and targets t = 3 * value(i, 2), both (n, outputs);
                   squared and absolute, the mean errors, with their gradients dsquared and
                   dabsolute; mse, mae and r2 of each output, and r2_mean. Float64.
normalization.json Float64. "batch" and "layer": normalisation of x = 3 value(i, 1) + 1 with
                   gain 1 + value(i, 2) and bias value(i, 3), dy = value(i, 4); batch: after
                   ReLU with "relu", and the running statistics after two passes, the
                   second over 2 x; eval is what they make of x. "losses": logits and labels as
                   in dense_softmax.json, smoothing 0 with squared: the mean squared error of
                   the softmax to the one-hot labels.
                   "network": ten steps as in training.json, rate 0.05, label smoothing
                   0.1, of the network whose text is there; parameters with one dimension
                   start as the layers have them. After them, "eval": loss without
                   smoothing of the next batch, with the running statistics.
frozen.json        "network" of normalization.json once more, gradients clipped to a norm of 0.7;
                   its layers 1, 3 and 8, from 0, are frozen from the sixth step on, batch
                   normalisation there normalises by its running statistics. Float64.
optimizers.json    "runs": the network flat of training.json, its start and batches, and 20 steps
                   of each optimiser; decay and L1 (its slope added by hand) on weights,
                   not on biases; clip is the largest norm of all gradients. "float32" and
                   "float64" as there; "values" in "final" are those at (397 + 7919 i) mod
                   count, i = 0 to 15. "schedules":
                   the share of the learning rate in each of 20 steps, 5 an epoch, of
                   PyTorch's CosineAnnealingLR, OneCycleLR and StepLR (every 2 epochs, 0.5).
exchange.json      The logits of the model whose weights are in pytorch.safetensors, as its
                   state_dict was saved, of four images value(i, 77). Float64.

training.json      20 steps of gradient descent with momentum on real digits, for
                   each of two "networks". Batch 32: step k uses images
                   [32 k, 32 k + 32) of the training file, pixel / 255. Mean
                   cross-entropy. v = 0.9 v + g; weight -= 0.1 v, v from zero.
                   cnn:  convolution 32 @ 3x3 (no padding) and ReLU, max-pool 2,
                         flatten in the order (h, w, c), dense 100 ReLU, dense 10
                   flat: flatten, dense 100 ReLU, dense 10
                   Parameters are numbered p = 0, 1, ... as weight, bias, weight,
                   bias, ... Biases start at zero, weight i of parameter p at
                   Float(Double(value(i, 10 + p)) * (2 / sqrt(fan_in))), where
                   fan_in is fh * fw * c or in, all but the last rounding in double
                   precision. For "float32" and "float64" each: "losses" and
                   "misclassified" before the update of each step; and "final",
                   the sum and the sum of squares, in double precision, of each
                   parameter after the last step.
"""
import gzip
import json
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

HERE = Path(__file__).resolve().parent


def values(shape, salt):
    """value(0 ..., salt) as a float64 array of this shape."""
    count = int(np.prod(shape))
    i = np.arange(count, dtype=np.uint64)
    u = (i * 2654435761 + salt * 40503 + 12345) & 0xFFFFFFFF
    u ^= u >> np.uint64(16)
    u = (u * 0x45D9F3B) & 0xFFFFFFFF
    u ^= u >> np.uint64(16)
    v = (u >> np.uint64(8)).astype(np.float64) / 2**24 - 0.5
    assert np.array_equal(v, v.astype(np.float32))
    return v.reshape(shape)


def value_check():
    return [[i, s, float(values((i + 1,), s)[i])]
            for i, s in [(0, 0), (1, 0), (0, 1), (1, 1), (2, 1), (1000, 2), (40000, 14), (123456, 4)]]


def tensor(array, grad=False):
    return torch.from_numpy(np.ascontiguousarray(array)).requires_grad_(grad)


def flat(array):
    if isinstance(array, torch.Tensor):
        array = array.detach().numpy()
    return [float("%.9g" % v) if abs(v) >= 1e-30 else 0.0
            for v in np.asarray(array, dtype=np.float64).reshape(-1)]


def nchw(a):
    return np.ascontiguousarray(a.transpose(0, 3, 1, 2))


def nhwc(t):
    return t.detach().numpy().transpose(0, 2, 3, 1)


def oihw(w):
    return np.ascontiguousarray(w.transpose(3, 2, 0, 1))


def hwio(t):
    return t.detach().numpy().transpose(2, 3, 1, 0)


# --- convolution -----------------------------------------------------------

#    n  h   w  c  fh fw f  sh sw ph pw
CONVOLUTIONS = [
    (1, 4, 4, 1, 2, 2, 1, 1, 1, 0, 0),   # the worked example of the source: four groups
    (2, 8, 8, 1, 3, 3, 2, 1, 1, 0, 0),
    (2, 8, 8, 1, 3, 3, 2, 2, 2, 0, 0),   # 8/3/2 leaves a remainder
    (2, 9, 9, 1, 5, 5, 2, 2, 2, 0, 0),   # 9/5/2
    (2, 9, 9, 2, 5, 5, 2, 3, 3, 0, 0),   # 9/5/3 leaves a remainder
    (2, 8, 8, 2, 4, 4, 2, 2, 2, 0, 0),   # 8/4/2: stride divides the filter
    (1, 10, 10, 1, 5, 5, 2, 2, 2, 0, 0), # 10/5/2 leaves a remainder
    (1, 9, 9, 2, 3, 3, 3, 3, 3, 0, 0),   # stride = filter: one group
    (2, 8, 8, 2, 2, 2, 3, 3, 3, 0, 0),   # stride > filter, exact
    (1, 9, 10, 2, 2, 2, 3, 3, 3, 0, 0),  # stride > filter, with remainders
    (2, 5, 6, 3, 1, 1, 4, 1, 1, 0, 0),   # 1x1
    (2, 7, 6, 3, 1, 1, 4, 2, 3, 0, 0),   # 1x1 with strides
    (3, 5, 5, 2, 5, 5, 3, 1, 1, 0, 0),   # filter = input
    (1, 4, 6, 2, 4, 6, 5, 2, 3, 0, 0),   # filter = input, with strides
    (2, 7, 11, 2, 3, 3, 3, 1, 1, 0, 0),  # rectangular input
    (2, 8, 8, 2, 2, 5, 3, 1, 1, 0, 0),   # rectangular filter
    (1, 11, 7, 3, 5, 2, 2, 2, 1, 0, 0),  # both, and unequal strides
    (2, 9, 12, 2, 3, 4, 2, 1, 3, 0, 0),
    (2, 6, 6, 3, 3, 3, 4, 1, 1, 1, 1),   # padded to the same size
    (2, 7, 7, 2, 3, 3, 3, 2, 2, 1, 1),   # padded, stride 2
    (1, 6, 9, 2, 3, 5, 2, 2, 3, 1, 2),   # everything unequal
    (2, 5, 8, 1, 4, 3, 2, 3, 2, 2, 0),   # padding along one axis
    (3, 3, 3, 2, 5, 5, 2, 1, 1, 2, 2),   # filter larger than the bare input
    (1, 7, 8, 17, 3, 3, 9, 1, 1, 0, 0),  # channel counts that fill no vector evenly
    (2, 6, 7, 3, 3, 3, 33, 1, 1, 1, 0),  # more filters than a vector
    (1, 6, 6, 16, 3, 3, 16, 2, 2, 1, 1),
    #                                        dh dw groups bottom right
    (2, 8, 8, 3, 3, 3, 5, 2, 2, 0, 0,        1, 1, 1, 1, 1),   # "same" of TensorFlow: more below
    (2, 7, 9, 2, 2, 4, 5, 1, 1, 0, 1,        1, 1, 1, 1, 1),   # even sizes, "same"
    (2, 9, 9, 3, 3, 3, 4, 1, 1, 2, 2,        2, 2, 1, 0, 0),   # dilated
    (1, 11, 8, 2, 3, 2, 5, 2, 1, 1, 0,       2, 3, 1, 0, 0),   # strides, some share a divisor
    (2, 13, 12, 2, 3, 3, 3, 2, 3, 3, 2,      4, 2, 1, 0, 0),
    (1, 12, 13, 1, 2, 3, 4, 4, 6, 0, 3,      6, 4, 1, 0, 0),
    (2, 4, 5, 2, 3, 3, 3, 1, 1, 5, 4,        5, 3, 1, 0, 0),   # dilated beyond the image
    (2, 6, 5, 4, 3, 3, 6, 1, 1, 1, 1,        1, 1, 2, 0, 0),   # groups
    (2, 7, 6, 6, 2, 3, 9, 2, 1, 0, 1,        1, 1, 3, 0, 0),
    (1, 6, 6, 5, 3, 3, 10, 1, 1, 1, 1,       1, 1, 5, 0, 0),   # a channel each
    (1, 6, 6, 10, 3, 3, 5, 1, 1, 1, 1,       1, 1, 5, 0, 0),   # a filter each
    (2, 9, 8, 4, 3, 3, 8, 2, 1, 2, 1,        2, 3, 2, 1, 0),   # everything
    (2, 7, 9, 3, 3, 3, 3, 1, 1, 1, 1,        1, 1, 3, 0, 0),   # depthwise
    (1, 7, 6, 17, 3, 3, 17, 1, 1, 2, 2,      2, 2, 17, 0, 0),
    (1, 9, 8, 8, 3, 3, 8, 2, 2, 0, 0,        1, 1, 8, 1, 1),
    (1, 6, 7, 16, 2, 4, 16, 1, 3, 1, 2,      1, 1, 16, 0, 0),
]


def convolution():
    cases = []
    for n, h, w, c, fh, fw, f, sh, sw, ph, pw, *rest in CONVOLUTIONS:
        dh, dw, groups, bottom, right = rest or (1, 1, 1, 0, 0)
        x = tensor(nchw(values((n, h, w, c), 1)), True)
        k = tensor(oihw(values((fh, fw, c // groups, f), 2)), True)
        b = tensor(values((f,), 3), True)
        y = F.conv2d(F.pad(x, (0, right, 0, bottom)), k, b, stride=(sh, sw), padding=(ph, pw),
                     dilation=(dh, dw), groups=groups)
        oh, ow = y.shape[2:]
        y.backward(tensor(nchw(values((n, oh, ow, f), 4))))
        cases.append(dict(n=n, h=h, w=w, c=c, fh=fh, fw=fw, f=f, sh=sh, sw=sw, ph=ph, pw=pw,
                          dilation=[dh, dw], groups=groups, oh=oh, ow=ow, y=flat(nhwc(y)), dx=flat(nhwc(x.grad)),
                          dw=flat(hwio(k.grad)), db=flat(b.grad)))
    return dict(value_check=value_check(), cases=cases)


# --- pooling ---------------------------------------------------------------

#    n  h   w  c  fh fw sh sw
POOLINGS = [
    (1, 4, 4, 1, 2, 2, 2, 2),
    (2, 8, 6, 3, 2, 2, 2, 2),
    (2, 7, 9, 2, 2, 2, 2, 2),    # remainders
    (2, 7, 7, 2, 3, 3, 2, 2),    # overlapping
    (1, 6, 6, 3, 3, 3, 1, 1),    # overlapping, stride 1
    (2, 8, 8, 1, 3, 3, 2, 2),    # overlapping, with remainders
    (2, 9, 9, 2, 5, 5, 3, 3),    # overlapping, with remainders
    (1, 8, 9, 2, 2, 2, 3, 3),    # stride > size
    (2, 7, 10, 5, 1, 1, 2, 3),   # single elements
    (2, 6, 8, 2, 2, 3, 2, 1),    # rectangular, unequal strides
    (1, 9, 5, 17, 4, 2, 1, 3),   # channels that fill no vector evenly
    (3, 4, 5, 3, 4, 5, 1, 1),    # global
    (1, 10, 11, 9, 3, 2, 3, 2),
]


# And with padding ph, pw, ceil_mode, count_include_pad.
PADDED_POOLINGS = [
    (2, 7, 8, 3, 3, 3, 2, 2, 1, 1, False, True), (1, 6, 9, 2, 3, 2, 2, 3, 1, 0, True, True),
    (1, 8, 7, 17, 3, 3, 2, 2, 1, 1, True, False), (1, 5, 5, 4, 2, 2, 2, 2, 1, 1, False, False),
    (1, 5, 6, 3, 2, 2, 2, 2, 0, 0, True, True), (1, 7, 6, 2, 2, 3, 3, 4, 1, 1, True, True),
    (1, 9, 10, 3, 5, 4, 3, 3, 2, 2, True, False), (2, 1, 2, 5, 3, 2, 1, 1, 1, 1, False, True),
    (1, 2, 3, 2, 3, 4, 2, 2, 0, 0, True, False), (1, 10, 9, 3, 4, 5, 1, 2, 2, 1, True, True)]


def pooling():
    cases = []
    for n, h, w, c, fh, fw, sh, sw, *padded in POOLINGS + PADDED_POOLINGS:
        case = dict(n=n, h=h, w=w, c=c, fh=fh, fw=fw, sh=sh, sw=sw)
        ph, pw, ceil, counted = padded or (0, 0, False, True)
        if padded:
            case.update(padding=f"{ph}x{pw}", ceil=ceil, counted=counted)
        for kind, pool, more in (("max", F.max_pool2d, {}),
                                 ("avg", F.avg_pool2d, dict(count_include_pad=counted))):
            x = tensor(nchw(values((n, h, w, c), 1)), True)
            y = pool(x, (fh, fw), stride=(sh, sw), padding=(ph, pw), ceil_mode=ceil, **more)
            case["oh"], case["ow"] = oh, ow = y.shape[2:]
            y.backward(tensor(nchw(values((n, oh, ow, c), 4))))
            case[kind + "_y"] = flat(nhwc(y))
            case[kind + "_dx"] = flat(nhwc(x.grad))
        windows = np.lib.stride_tricks.sliding_window_view(
            values((n, h, w, c), 1), (min(fh, h), min(fw, w)), (1, 2))
        ordered = np.sort(windows.reshape(-1, windows.shape[-2] * windows.shape[-1]), axis=1)
        assert (np.diff(ordered, axis=1) > 0).all()
        cases.append(case)
    return dict(value_check=value_check(), cases=cases, stem=stem())


def stem():
    """How a ResNet begins (He et al. 2016), with fewer filters, and a softmax behind it."""
    nn = torch.nn
    net = nn.Sequential(nn.Conv2d(3, 8, 7, stride=2, padding=3), nn.BatchNorm2d(8), nn.ReLU(),
                        nn.MaxPool2d(3, stride=2, padding=1)).double()
    head = nn.Linear(5 * 4 * 8, 4).double()
    parameters = list(net.parameters()) + list(head.parameters())
    with torch.no_grad():
        for p, parameter in enumerate(parameters):
            shape = tuple(parameter.shape)
            noise = values((7, 7, 3, 8) if p == 0 else shape, 10 + p) + (p == 2)
            parameter.copy_(tensor(oihw(noise) if p == 0 else noise))
    x = tensor(nchw(values((4, 17, 15, 3), 1) + 0.5))
    z = head(net(x).permute(0, 2, 3, 1).flatten(1))
    loss = F.cross_entropy(z, torch.arange(4))
    loss.backward()
    gradient = [p.grad.permute(2, 3, 1, 0) if p.dim() == 4 else p.grad for p in parameters]
    return dict(loss=flat(loss)[0], gradient=sum((flat(g) for g in gradient), []))


# --- activations -------------------------------------------------------------

ACTIVATIONS = dict(
    none=lambda x, _: x, relu=lambda x, _: torch.relu(x), leaky_relu=F.leaky_relu,
    elu=lambda x, _: F.elu(x), gelu=lambda x, _: F.gelu(x), silu=lambda x, _: F.silu(x),
    sigmoid=lambda x, _: torch.sigmoid(x), tanh=lambda x, _: torch.tanh(x),
    softplus=lambda x, _: F.softplus(x, threshold=1000))


def activation():
    cases = []
    for name, function in ACTIVATIONS.items():
        for n, scale, slope in ((65, 0.0625, 0.01), (65, 16, 0.25), (35, 128, 0.01)):
            x = tensor(scale * values((n,), 1), True)
            y = function(x, float(np.float32(slope)))
            y.backward(tensor(values((n,), 4)))
            cases.append(dict(n=n, activation=name, scale=scale, slope=slope, y=flat(y),
                              dx=flat(x.grad)))
    return dict(value_check=value_check(), cases=cases)


# --- dense layers and the softmax --------------------------------------------

def dense_softmax():
    dense = []
    for n, inputs, outputs in ((2, 5, 4), (4, 7, 6), (6, 33, 17)):
        for activation in ("none", "relu", "sigmoid"):
            x = tensor(values((n, inputs), 1), True)
            w = tensor(values((outputs, inputs), 2), True)
            b = tensor(values((outputs,), 3), True)
            z = F.linear(x, w, b)
            y = dict(none=lambda t: t, relu=torch.relu, sigmoid=torch.sigmoid)[activation](z)
            y.backward(tensor(values((n, outputs), 4)))
            assert 0 < int((z > 0).sum()) < z.numel()      # ReLU passes some and stops some
            dense.append({"n": n, "in": inputs, "out": outputs, "activation": activation,
                          "y": flat(y), "dx": flat(x.grad), "dw": flat(w.grad), "db": flat(b.grad)})
    softmax = []
    for n, classes, scale in ((1, 2, 4), (5, 10, 4), (7, 3, 4), (32, 10, 4), (3, 19, 4),
                              (6, 10, 2000)):
        z = tensor(scale * values((n, classes), 1), True)
        labels = torch.arange(n) * 7 % classes
        rows = F.cross_entropy(z, labels, reduction="none")
        loss = rows.mean()
        loss.backward()
        assert torch.isfinite(rows).all()
        softmax.append(dict(n=n, classes=classes, scale=scale, labels=labels.tolist(),
                            probabilities=flat(torch.softmax(z, 1)), loss=flat(loss)[0],
                            losses=flat(rows), dlogits=flat(z.grad)))
    return dict(value_check=value_check(), dense=dense, softmax=softmax)


# --- normalisation, residual connections, losses ------------------------------

def normalization(folder):
    batch = []
    for n, h, w, c in ((2, 3, 4, 5), (3, 2, 2, 33), (5, 1, 1, 16), (2, 3, 2, 40)):
        for relu in (False, True):
            def out(z):
                return torch.relu(z) if relu else z
            x = tensor(nchw(3 * values((n, h, w, c), 1) + 1), True)
            norm = torch.nn.BatchNorm2d(c).double()
            with torch.no_grad():
                norm.weight += tensor(values((c,), 2))
                norm.bias += tensor(values((c,), 3))
            y = out(norm(x))
            y.backward(tensor(nchw(values((n, h, w, c), 4))))
            norm(2 * x)
            norm.eval()
            batch.append(dict(n=n, h=h, w=w, c=c, relu=relu, y=flat(nhwc(y)), dx=flat(nhwc(x.grad)),
                              dw=flat(norm.weight.grad), db=flat(norm.bias.grad),
                              mean=flat(norm.running_mean), variance=flat(norm.running_var),
                              eval=flat(nhwc(out(norm(x))))))
    layer = []
    for n, h, w, c in ((2, 3, 4, 5), (3, 1, 1, 33), (1, 2, 2, 16)):
        x = tensor(3 * values((n, h, w, c), 1) + 1, True)
        gain, bias = tensor(1 + values((c,), 2), True), tensor(values((c,), 3), True)
        y = F.layer_norm(x, (c,), gain, bias)
        y.backward(tensor(values((n, h, w, c), 4)))
        layer.append(dict(n=n, h=h, w=w, c=c, y=flat(y), dx=flat(x.grad), dw=flat(gain.grad),
                          db=flat(bias.grad)))
    losses = []
    for n, classes, smoothing, squared in ((5, 10, 0.1, False), (3, 4, 0.5, False), (4, 7, 0, True)):
        z = tensor(4 * values((n, classes), 1), True)
        labels = torch.arange(n) * 7 % classes
        if squared:
            rows = ((torch.softmax(z, 1) - F.one_hot(labels, classes)) ** 2).mean(1)
        else:
            rows = F.cross_entropy(z, labels, reduction="none", label_smoothing=smoothing)
        rows.mean().backward()
        losses.append(dict(n=n, classes=classes, smoothing=smoothing, squared=squared,
                           losses=flat(rows), dlogits=flat(z.grad)))
    return dict(value_check=value_check(), batch=batch, layer=layer, losses=losses,
                network=residual_network(folder))


RESIDUAL = ("conv(6,3,padding=1,activation=none) batchnorm(activation=relu) maxpool(2) "
            "residual(conv(6,3,padding=1,activation=none) batchnorm(activation=relu) "
            "conv(6,3,padding=1,activation=none) batchnorm) activation(relu) "
            "residual(conv(9,3,stride=2,padding=1,activation=none) | "
            "conv(9,1,stride=2,activation=none)) layernorm flatten relu(20) softmax(10)")


class Branches(torch.nn.Module):
    def __init__(self, body, shortcut=None):
        super().__init__()
        self.body, self.shortcut = body, shortcut or torch.nn.Identity()

    def forward(self, x):
        return self.body(x) + self.shortcut(x)


class Channels(torch.nn.Module):
    """A module that wants the channels last."""

    def __init__(self, inside):
        super().__init__()
        self.inside = inside

    def forward(self, x):
        return self.inside(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def residual_network(folder, freezes=False):
    """Ten steps; with freezes, layers 1, 3 and 8 (from 0) stay as they are from the sixth on,
    and gradients are clipped."""
    nn = torch.nn
    net = nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2),
        Branches(nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(),
                               nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6))), nn.ReLU(),
        Branches(nn.Conv2d(6, 9, 3, stride=2, padding=1), nn.Conv2d(6, 9, 1, stride=2)),
        Channels(nn.LayerNorm(9)))
    head = nn.Sequential(nn.Linear(7 * 7 * 9, 20), nn.ReLU(), nn.Linear(20, 10))
    modules = [m for m in list(net.modules()) + list(head.modules())
               if isinstance(m, (nn.Conv2d, nn.BatchNorm2d, nn.LayerNorm, nn.Linear))]
    number = 0
    for module in modules:
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            with torch.no_grad():
                shape = tuple(module.weight.shape)
                if len(shape) == 4:
                    shape = (shape[2], shape[3], shape[1], shape[0])
                fan_in = int(np.prod(shape[:3])) if len(shape) == 4 else shape[1]
                start = (values(shape, 10 + number) * (2 / np.sqrt(fan_in))).astype(np.float32)
                module.weight.copy_(tensor(oihw(start) if len(shape) == 4 else start))
                module.bias.zero_()
        number += 4 if isinstance(module, nn.BatchNorm2d) else 2
    net.double(), head.double()
    images = idx(folder, "train-images*.gz", 16, 11 * BATCH * 784).reshape(-1, 1, 28, 28)
    labels = idx(folder, "train-labels*.gz", 8, 11 * BATCH)
    weights = list(net.parameters()) + list(head.parameters())
    sgd = torch.optim.SGD(weights, lr=0.05, momentum=MOMENTUM)
    losses = []
    for k in range(11):
        part = slice(BATCH * k, BATCH * (k + 1))
        x = torch.from_numpy(images[part].astype(np.float64) / 255)
        t = torch.from_numpy(labels[part].astype(np.int64))
        if k == 10:
            net.eval()
        if freezes and k == 5:
            for module in (net[1], net[4], head[0]):
                module.eval().requires_grad_(False)
        z = head(net(x).permute(0, 2, 3, 1).flatten(1))
        loss = F.cross_entropy(z, t, label_smoothing=0.1 if k < 10 else 0)
        if k == 10:
            return dict(text=RESIDUAL, losses=losses, eval=flat(loss)[0])
        losses += flat(loss)
        sgd.zero_grad()
        loss.backward()
        if freezes:
            torch.nn.utils.clip_grad_norm_(weights, 0.7)
        sgd.step()


# --- training ------------------------------------------------------------------

STEPS, BATCH, RATE, MOMENTUM = 20, 32, 0.1, 0.9
NETWORKS = dict(cnn=[("conv", (3, 3, 1, 32)), ("dense", (100, 13 * 13 * 32)), ("dense", (10, 100))],
                flat=[("dense", (100, 28 * 28)), ("dense", (10, 100))])


def idx(folder, pattern, header, count):
    files = sorted(Path(folder).glob(pattern))
    if len(files) != 1:
        sys.exit(f"{folder}: expected one file {pattern}, found {len(files)}")
    with gzip.open(files[0]) as f:
        return np.frombuffer(f.read(header + count)[header:], dtype=np.uint8)


def train(layers, images, labels, dtype, optimizer=None, l1=0, clip=None):
    weights = []
    for kind, shape in layers:
        fan_in = int(np.prod(shape[:3])) if kind == "conv" else shape[1]
        start = (values(shape, 10 + len(weights)) * (2 / np.sqrt(fan_in))).astype(np.float32)
        if kind == "conv":
            start = oihw(start)
        weights.append(tensor(start).to(dtype).requires_grad_())
        weights.append(torch.zeros(shape[-1] if kind == "conv" else shape[0], dtype=dtype,
                                   requires_grad=True))
    sgd = optimizer(weights) if optimizer else torch.optim.SGD(weights, lr=RATE, momentum=MOMENTUM)
    losses, wrong = [], []
    for k in range(STEPS):
        part = slice(BATCH * k, BATCH * (k + 1))
        x = torch.from_numpy(images[part].astype(np.float64) / 255).to(dtype).reshape(-1, 1, 28, 28)
        t = torch.from_numpy(labels[part].astype(np.int64))
        for number, (kind, _) in enumerate(layers):
            w, b = weights[2 * number:2 * number + 2]
            if kind == "conv":
                x = F.max_pool2d(torch.relu(F.conv2d(x, w, b)), 2)
            else:
                if x.dim() == 4:
                    x = x.permute(0, 2, 3, 1).flatten(1)      # (h, w, c)
                x = F.linear(x, w, b)
                if number < len(layers) - 1:
                    x = torch.relu(x)
        loss = F.cross_entropy(x, t)
        losses.append(loss.item())
        wrong.append(int((x.argmax(1) != t).sum()))
        sgd.zero_grad()
        loss.backward()
        if clip:
            torch.nn.utils.clip_grad_norm_(weights, clip)
        if l1:
            for w in weights[::2]:
                w.grad += l1 * w.detach().sign()
        sgd.step()
    final = [w.detach().double() for w in weights]

    def some(w):
        places = [(397 + 7919 * i) % w.numel() for i in range(16)]
        return dict(values=flat(w.reshape(-1)[places])) if optimizer else {}
    return dict(losses=flat(losses), misclassified=wrong,
                final=[dict(parameter=p, count=w.numel(), sum=flat(w.sum())[0],
                            sum_of_squares=flat((w * w).sum())[0], **some(w))
                       for p, w in enumerate(final)])


def training(folder):
    images = idx(folder, "train-images*.gz", 16, STEPS * BATCH * 784).reshape(-1, 784)
    labels = idx(folder, "train-labels*.gz", 8, STEPS * BATCH)
    networks = {name: dict(float32=train(layers, images, labels, torch.float32),
                           float64=train(layers, images, labels, torch.float64))
                for name, layers in NETWORKS.items()}
    return dict(value_check=value_check(), steps=STEPS, batch=BATCH, rate=RATE, momentum=MOMENTUM,
                pixel_sum=int(images.sum(dtype=np.int64)), labels=labels[:10].tolist(),
                networks=networks)


OPTIMIZERS = [
    dict(method="sgd", rate=0.1, momentum=0, decay=0.05),
    dict(method="sgd", rate=0.05, momentum=0.9, decay=0, l1=0.002),
    dict(method="sgd", rate=0.1, momentum=0.9, decay=0.01, clip=0.5),
    dict(method="nesterov", rate=0.05, momentum=0.9, decay=0.01),
    dict(method="rmsprop", rate=0.001, momentum=0, decay=0, beta2=0.99),
    dict(method="rmsprop", rate=0.0005, momentum=0.8, decay=0.01, beta2=0.95, epsilon=1e-4),
    dict(method="adam", rate=0.002, momentum=0.9, decay=0, beta2=0.999),
    dict(method="adam", rate=0.002, momentum=0.8, decay=0.05, beta2=0.99, epsilon=1e-5, clip=1.5),
    dict(method="adamw", rate=0.003, momentum=0.9, decay=0.5, beta2=0.999),
]


def optimizers(folder):
    images = idx(folder, "train-images*.gz", 16, STEPS * BATCH * 784).reshape(-1, 784)
    labels = idx(folder, "train-labels*.gz", 8, STEPS * BATCH)
    runs = []
    for o in OPTIMIZERS:
        def make(weights):
            groups = [dict(params=weights[::2], weight_decay=o["decay"]),
                      dict(params=weights[1::2], weight_decay=0)]
            if o["method"] in ("sgd", "nesterov"):
                return torch.optim.SGD(groups, lr=o["rate"], momentum=o["momentum"],
                                       nesterov=o["method"] == "nesterov")
            if o["method"] == "rmsprop":
                return torch.optim.RMSprop(groups, lr=o["rate"], alpha=o["beta2"],
                                           momentum=o["momentum"], eps=o.get("epsilon", 1e-8))
            kind = torch.optim.Adam if o["method"] == "adam" else torch.optim.AdamW
            return kind(groups, lr=o["rate"], betas=(o["momentum"], o["beta2"]),
                        eps=o.get("epsilon", 1e-8))
        run = {str(dtype).split(".")[1]:
               train(NETWORKS["flat"], images, labels, dtype, make, o.get("l1", 0), o.get("clip"))
               for dtype in (torch.float32, torch.float64)}
        runs.append(dict(n=len(runs), **o, **run))
    schedules = {}
    for name, make in dict(
            cosine=lambda s: torch.optim.lr_scheduler.CosineAnnealingLR(s, 20),
            onecycle=lambda s: torch.optim.lr_scheduler.OneCycleLR(
                s, 1.0, total_steps=20, cycle_momentum=False),
            step=lambda s: torch.optim.lr_scheduler.StepLR(s, 10, 0.5)).items():
        sgd = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        schedule, rates = make(sgd), []
        for _ in range(20):
            rates.append(sgd.param_groups[0]["lr"])
            sgd.step()
            if len(rates) < 20:
                schedule.step()
        schedules[name] = flat(rates)
    return dict(value_check=value_check(), runs=runs, schedules=schedules)


def exchange():
    """Weights as PyTorch saves them, in pytorch.safetensors, and what the model says of images."""
    from safetensors.torch import save_file
    model = torch.nn.Sequential(
        torch.nn.Conv2d(2, 4, 3, stride=2, padding=1),
        torch.nn.BatchNorm2d(4),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2, stride=1),
        torch.nn.Flatten(),
        torch.nn.Linear(4 * 3 * 2, 6),
        torch.nn.GELU(),
        torch.nn.Linear(6, 3))
    state = model.state_dict()
    for salt, (name, t) in enumerate(state.items()):
        if t.dtype == torch.float32:
            noise = torch.from_numpy(values(tuple(t.shape), salt).astype(np.float32))
            state[name] = noise + 1.5 if name.endswith("var") else noise
        else:
            state[name] = torch.tensor(7)
    model.load_state_dict(state)
    save_file(model.state_dict(), HERE / "pytorch.safetensors")
    images = values((4, 8, 6, 2), 77)
    with torch.no_grad():
        logits = model.double().eval()(tensor(nchw(images)))
    return dict(value_check=value_check(), logits=flat(logits))


def metrics():
    """Precision, recall and F1 as scikit-learn has them; None where nothing was divided by."""
    from sklearn.metrics import accuracy_score, confusion_matrix, precision_recall_fscore_support
    rows, classes = 400, 6
    labels = [7 * row % classes for row in range(rows)]
    # Class 5 is never guessed.
    noise = values((rows,), 8)
    guesses = [label if noise[row] < 0.2 else row % (classes - 1) for row, label in enumerate(labels)]
    guesses = [0 if guess == 5 else guess for guess in guesses]
    precision, recall, f1, images = precision_recall_fscore_support(
        labels, guesses, labels=range(classes), zero_division=np.nan)
    number = lambda list: [None if np.isnan(x) else float(x) for x in list]
    return dict(
        value_check=value_check(), accuracy=accuracy_score(labels, guesses),
        confusion=confusion_matrix(labels, guesses).tolist(), images=images.tolist(),
        precision=number(precision), recall=number(recall), f1=number(f1))


def class_weights():
    """CrossEntropyLoss(weight=..., reduction="mean") of logits and labels as in dense_softmax.json."""
    cases = []
    for n, classes, smoothing in ((1, 3, 0), (7, 4, 0), (13, 10, 0.1), (5, 2, 0.5)):
        z = tensor(6 * values((n, classes), 1), True)
        weights = tensor(0.6 + values((classes,), 2))
        labels = torch.arange(n) * 7 % classes
        loss = torch.nn.CrossEntropyLoss(weight=weights, label_smoothing=smoothing)(z, labels)
        loss.backward()
        cases.append(dict(n=n, classes=classes, smoothing=smoothing, loss=float(loss.detach()),
                          dlogits=flat(z.grad)))
    return dict(value_check=value_check(), cases=cases)


def regression():
    """mse_loss and l1_loss with their gradients; scikit-learn's metrics, output by output."""
    from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score
    cases = []
    for n, outputs in ((2, 1), (7, 3), (40, 2)):
        y, t = tensor(3 * values((n, outputs), 1), True), tensor(3 * values((n, outputs), 2))
        case = dict(n=n, outputs=outputs)
        for name, loss in (("squared", F.mse_loss), ("absolute", F.l1_loss)):
            y.grad = None
            result = loss(y, t)
            result.backward()
            case.update({name: float(result.detach()), "d" + name: flat(y.grad)})
        for name, metric in (("mse", mean_squared_error), ("mae", mean_absolute_error),
                             ("r2", r2_score)):
            case[name] = metric(t.numpy(), y.detach().numpy(), multioutput="raw_values").tolist()
        case["r2_mean"] = float(r2_score(t.numpy(), y.detach().numpy()))
        cases.append(case)
    return dict(value_check=value_check(), cases=cases)


def write(name, content):
    path = HERE / name
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    path.write_text(text.replace('{"n":', '\n{"n":') + "\n")      # a case a line
    print(f"{name}: {path.stat().st_size} bytes")


def main():
    if len(sys.argv) > 2:
        sys.exit(__doc__)
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "../../../Sources/MNISTSample/files"
    torch.set_num_threads(1)
    write("convolution.json", convolution())
    write("pooling.json", pooling())
    write("activation.json", activation())
    write("dense_softmax.json", dense_softmax())
    write("normalization.json", normalization(folder))
    write("frozen.json", residual_network(folder, freezes=True))
    write("optimizers.json", optimizers(folder))
    write("training.json", training(folder))
    write("exchange.json", exchange())
    write("metrics.json", metrics())
    write("class_weights.json", class_weights())
    write("regression.json", regression())


if __name__ == "__main__":
    main()
