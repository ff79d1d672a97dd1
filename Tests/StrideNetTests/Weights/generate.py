#!/usr/bin/env python3
"""Writes what PyTorch saves, for the tests of what reads it:

    python generate.py

Needs torch and safetensors.

named.pt           a state_dict with names of its own, in the order of the model
named.safetensors  the same, in the order of safetensors; its steps counted in 32 bits
wrapped.pt         the same within torch.compile and DataParallel
checkpoint.pt      the same beside an optimiser and an epoch
four.pt            the same in version 4 of the pickle format
types.pt           numbers of many kinds, transposed, in parts of larger ones, one of them shared
expected.json      what the models say: logits of named and types for the tests' images
bad/               what is refused: a whole model, one of a function's call, the format before
                   PyTorch 1.6, complex numbers, a tensor alone, two models, names without tensors
"""

import json
import os
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

HERE = Path(__file__).parent
(HERE / "bad").mkdir(exist_ok=True)
torch.manual_seed(5)


class Block(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        # The order of definition is not that of names.
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = nn.Sequential(
            nn.Conv2d(inputs, outputs, 1, stride=2, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x):
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(y + self.downsample(x))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.layer1 = nn.Sequential(Block(4, 6))
        self.fc1 = nn.Linear(6 * 4 * 3, 5)
        self.fc2 = nn.Linear(5, 3, bias=False)

    def forward(self, x):
        x = self.layer1(torch.relu(self.bn1(self.conv1(x))))
        return self.fc2(torch.tanh(self.fc1(x.flatten(1))))


def images(count, channels, height, width):
    """As the tests make them: whole numbers of a simple rule, over 256."""
    all = torch.arange(count * height * width * channels, dtype=torch.float64)
    return (all * 37 % 256 / 256).reshape(count, height, width, channels).permute(0, 3, 1, 2)


net = Net()
for name, tensor in net.state_dict().items():
    if tensor.dtype == torch.float32:
        noise = torch.rand(tensor.shape) - 0.5
        tensor.copy_(1.5 + noise if name.endswith("var") else noise)
    else:
        tensor.fill_(7)
state = net.state_dict()
torch.save(state, HERE / "named.pt")
save_file({k: v.int() if v.dtype == torch.int64 else v for k, v in state.items()},
          HERE / "named.safetensors")
torch.save({f"_orig_mod.module.{k}": v for k, v in state.items()}, HERE / "wrapped.pt")
optimizer = torch.optim.Adam(net.parameters())
keep = {k: v.clone() for k, v in state.items()}
net(images(2, 3, 8, 6).float()).sum().backward()
optimizer.step()
net.load_state_dict(keep)
torch.save({"epoch": 3, "loss": 0.25, "best": None, "model": net.state_dict(),
            "optimizer": optimizer.state_dict()}, HERE / "checkpoint.pt")
torch.save(net.state_dict(), HERE / "four.pt", pickle_protocol=4)

large = torch.rand(9, 20) - 0.5
shared = (torch.rand(4, 4) - 0.5).half()
types = {
    "0.weight": large[2:6, 3:15].t()[::2].t(),  # 4×6 with strides (20, 2), from the 43rd value
    "0.bias": torch.tensor([0.25, -1, 2, 0.5], dtype=torch.bfloat16),
    "1.weight": shared, "1.bias": torch.tensor([1, -2, 3, 0]),
    "2.weight": shared.t(), "2.bias": torch.rand(4, dtype=torch.float64),
    "3.weight": torch.tensor([[1, -1, 2, 0], [3, 0, 0, -4]], dtype=torch.int8),
    "3.bias": torch.tensor([True, False])}
torch.save(types, HERE / "types.pt")


def answer(x):
    x = x.flatten(1)
    for layer in "0123":
        x = x @ types[f"{layer}.weight"].double().t() + types[f"{layer}.bias"].double()
    return x


net = net.double().eval()
with torch.no_grad():
    expected = dict(named=net(images(3, 3, 8, 6)).flatten().tolist(),
                    types=answer(images(3, 1, 2, 3)).flatten().tolist())
(HERE / "expected.json").write_text(json.dumps(expected) + "\n")


class Call:
    def __reduce__(self):
        return os.system, ("touch called",)


torch.save(nn.Linear(2, 2), HERE / "bad/model.pt")
torch.save({"0.weight": Call()}, HERE / "bad/call.pt")
torch.save({"0.weight": torch.zeros(2, 2)}, HERE / "bad/old.pt",
           _use_new_zipfile_serialization=False)
torch.save({"0.weight": torch.zeros(2, 2, dtype=torch.complex64)}, HERE / "bad/complex.pt")
torch.save(torch.zeros(2, 2), HERE / "bad/tensor.pt")
torch.save({"generator": {"0.weight": torch.zeros(2, 2)}, "critic": {"0.weight": torch.ones(2, 2)}},
           HERE / "bad/two.pt")
torch.save({"epoch": 3, "names": ["a", "b"]}, HERE / "bad/none.pt")
torch.save({"0.weight": torch.zeros(2, 2), "epoch": 3}, HERE / "bad/mixed.pt")
