"""CUDA devices without CUDA, and counts of what makes a program wait for them."""

import contextlib
from collections import Counter

import numpy as np
import pytest
import torch
from torch._subclasses import FakeTensorMode

WAITING = ("item", "tolist", "cpu", "numpy", "__bool__", "__float__", "__int__", "__index__")


@contextlib.contextmanager
def fake_cuda():
    """Context in which CUDA tensors have shapes and devices but no values; an operation on two devices raises."""
    with pytest.MonkeyPatch.context() as patch, FakeTensorMode(allow_non_fake_inputs=True):
        patch.setattr(torch.Tensor, "pin_memory", lambda self: self)  # which FakeTensorMode does not know
        patch.setattr(torch.Tensor, "item", lambda self: 0.5)  # there are no values to read
        patch.setattr(torch.Tensor, "numpy", lambda self: np.full(self.shape, 0.5))
        patch.setattr(torch.Tensor, "__bool__", lambda self: False)
        yield


def on_cuda(build):
    """The module that `build()` makes, with weights and buffers on a fake CUDA device."""
    with torch.device("cuda"):
        module = build()
    for child in module.modules():
        child._buffers.update({name: buffer.cuda() for name, buffer in child._buffers.items()})
    return module


@contextlib.contextmanager
def counted_waits():
    """Context that yields a Counter of the calls that would wait for a GPU."""
    counts = Counter()

    def counting(name, original):
        def method(self, *args, **kwargs):
            counts[name] += 1
            return original(self, *args, **kwargs)

        return method

    with pytest.MonkeyPatch.context() as patch:
        for name in WAITING:
            patch.setattr(torch.Tensor, name, counting(name, getattr(torch.Tensor, name)))
        yield counts
