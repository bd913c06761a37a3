"""CUDA devices without CUDA, and counts of what makes a program wait for them."""

import contextlib
from collections import defaultdict

import numpy as np
import pytest
import torch
from torch._subclasses import FakeTensor, FakeTensorMode
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils._python_dispatch import TorchDispatchMode

WAITING = ("item", "tolist", "cpu", "numpy", "__bool__", "__float__", "__int__", "__index__")
WAITING_OPERATIONS = ("_local_scalar_dense", "nonzero", "masked_select", "equal")


@contextlib.contextmanager
def fake_cuda():
    """Context in which CUDA tensors have shapes and devices but no values; an operation on two devices raises."""
    with pytest.MonkeyPatch.context() as patch, FakeTensorMode(allow_non_fake_inputs=True):
        patch.setattr(torch.Tensor, "pin_memory", lambda self: self)  # which FakeTensorMode does not know
        patch.setattr(torch.Tensor, "item", lambda self: 0.5)  # there are no values to read
        patch.setattr(torch.Tensor, "numpy", lambda self: np.full(self.shape, 0.5))
        patch.setattr(FakeTensor, "tolist", lambda self: np.zeros(self.shape, int).tolist())
        patch.setattr(torch.Tensor, "__bool__", lambda self: False)
        # A copy by way of the memory, of which fake tensors have none, corrupts that of others.
        patch.setattr(torch.Tensor, "__deepcopy__", lambda self, memo: self.detach().clone())
        yield


def on_cuda(build):
    """The module that `build()` makes, with weights and buffers on a fake CUDA device."""
    with torch.device("cuda"):
        module = build()
    for child in module.modules():
        child._buffers.update({name: buffer.cuda() for name, buffer in child._buffers.items()})
    return module


class EightOfEach:
    """Images, or the labels, of a test set with eight images of each digit, and without values to choose them by."""

    def __init__(self, images):
        self.images = images

    def __eq__(self, digit):
        return np.ones(8, dtype=bool)

    def __getitem__(self, chosen):
        return self.images


class Copies(TorchDispatchMode):
    """Context that notes the operations that copy a tensor from the CPU to a CUDA device or back.

    Attributes:
        found: their names.
    """

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        tensors = [value for value in (*args, result) if isinstance(value, torch.Tensor)]
        if {tensor.device.type for tensor in tensors} == {"cpu", "cuda"}:
            self.found.append(func.overloadpacket.__name__)
        return result


class Waits(TorchDispatchMode):
    """Context that notes where a training would wait for a GPU: the operations by name, for each number of steps that
    Adam or AdamW had taken.

    Attributes:
        found: by number of steps, a list of names of operations.
        steps: how many there have been.
    """

    def __init__(self):
        super().__init__()
        self.found, self.steps = defaultdict(list), 0

    def __enter__(self):
        self._patch, self._hook = pytest.MonkeyPatch(), register_optimizer_step_post_hook(self._count)
        for name in WAITING:
            self._patch.setattr(torch.Tensor, name, self._noting(name, getattr(torch.Tensor, name)))
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self._hook.remove()
        self._patch.undo()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket.__name__ in WAITING_OPERATIONS:
            self.found[self.steps].append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))

    def during_steps(self) -> dict[int, list[str]]:
        """Those after the first step and before the last one: not at the ends of an epoch."""
        return {step: names for step, names in self.found.items() if 0 < step < self.steps}

    def _noting(self, name, original):
        def method(tensor, *args, **kwargs):
            self.found[self.steps].append(name)
            return original(tensor, *args, **kwargs)

        return method

    def _count(self, optimizer, *_) -> None:
        self.steps += isinstance(optimizer, torch.optim.Adam)  # as AdamW is; part 2 has an SGD, too
