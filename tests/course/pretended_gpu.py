"""Tensors that say they are on a GPU, where there is none.

They hold real numbers in the CPU's memory, so that code that looks at values works, too. An operation that mixes them
with ordinary tensors is refused, as PyTorch refuses it on a real GPU; single numbers (tensors without dimensions) may
be mixed. `torch._subclasses.FakeTensorMode` would serve but for the values: handed-out code asserts on them.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map

from course.criterion import Failure, is_gap

GPU = torch.device("cuda", 0)
# Functions that may get tensors of both places, or bring them to another place.
CROSSING = {"to", "cuda", "cpu", "type_as", "copy_", "__getitem__", "__setitem__", "set_", "__set__", "_to"}
FACTORIES = {
    "tensor", "as_tensor", "zeros", "ones", "full", "empty", "rand", "randn", "randint", "randperm", "arange",
    "linspace", "logspace", "eye", "normal", "from_numpy",
}  # fmt: skip


class OtherDevice(RuntimeError):
    """Tensors of two devices in one operation."""


class OnGpu(torch.Tensor):
    """A tensor that says it is on the GPU."""

    @classmethod
    def __torch_function__(cls, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return _call(func, args, kwargs or {})


class PretendedGpu(TorchFunctionMode):
    """While it is active, `device="cuda"` gives tensors that say so."""

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return _call(func, args, kwargs or {})


@contextlib.contextmanager
def pretended_gpu() -> Iterator[None]:
    """A machine with one GPU; PyTorch itself, which would begin to use it, is told nothing of it."""
    home = str(Path(torch.__file__).parent)

    def is_available() -> bool:
        return not sys._getframe(1).f_code.co_filename.startswith(home)

    with mock.patch.object(torch.cuda, "is_available", is_available), PretendedGpu():
        yield


@contextlib.contextmanager
def stays_on_gpu(hint: str) -> Iterator[None]:
    """What is made here must be on the GPU wherever it meets what `on_gpu` has moved, or a Failure says the hint.
    Whatever else goes wrong is judged elsewhere."""
    try:
        with pretended_gpu():
            yield
    except (OtherDevice, TypeError) as error:
        if isinstance(error, OtherDevice) or "cuda" in str(error):
            raise Failure(hint, given="a model on a GPU", expected="all tensors there", got=str(error)) from error
    except Failure:
        raise
    except Exception as error:
        if is_gap(error):
            raise


def on_gpu(value: Any) -> Any:
    """A tensor, or a module with its parameters and buffers, on the pretended GPU."""
    if isinstance(value, nn.Module):
        for module in value.modules():
            for name, parameter in module._parameters.items():
                if parameter is not None:
                    module._parameters[name] = nn.Parameter(_moved(parameter.detach()), parameter.requires_grad)
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    module._buffers[name] = _moved(buffer)
            if hasattr(module, "_device"):  # LightningModule
                module._device = GPU
        return value
    return _moved(value)


def _moved(tensor: torch.Tensor) -> OnGpu:
    with torch._C.DisableTorchFunction():
        return tensor.as_subclass(OnGpu)


def _call(func: Callable, args: tuple, kwargs: dict) -> Any:
    name = getattr(func, "__name__", "")
    tensors = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, torch.Tensor)]
    if func == torch.Tensor.device.__get__:
        return GPU if isinstance(args[0], OnGpu) else torch.device("cpu")
    if func == torch.Tensor.is_cuda.__get__:
        return isinstance(args[0], OnGpu)
    if name == "get_device":
        return 0 if isinstance(args[0], OnGpu) else -1
    gpu = any(isinstance(value, OnGpu) for value in tensors)
    if gpu and name in ("numpy", "__array__"):
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first")
    mixed = gpu and any(not isinstance(value, OnGpu) and value.dim() > 0 for value in tensors)
    if mixed and name not in CROSSING and not name.endswith("_like"):
        raise OtherDevice("Expected all tensors to be on the same device, but found cuda:0 and cpu")
    if name.endswith("_like") or (name in ("type_as", "to", "copy_", "__setitem__", "__getitem__") and tensors):
        gpu = isinstance(tensors[-1 if name in ("type_as", "to") else 0], OnGpu)
    asked, args, kwargs = _without_device(name, args, kwargs)
    if asked is not None:
        gpu = asked
    with torch._C.DisableTorchFunction():
        result = func(*args, **kwargs)
        return tree_map(lambda value: _placed(value, gpu), result)


def _without_device(name: str, args: tuple, kwargs: dict) -> tuple[bool | None, tuple, dict]:
    """Whether a GPU is asked for (None: nothing is), and the arguments for the CPU."""
    if name == "cuda":
        return True, (args[0],), {}
    if name == "cpu":
        return False, args, kwargs
    asked = None
    if kwargs.get("device") is not None:
        asked = torch.device(kwargs["device"]).type == "cuda" if not isinstance(kwargs["device"], int) else True
        kwargs = {**kwargs, "device": "cpu"}
    if name in ("to", "_to"):
        for index, value in enumerate(args[1:], start=1):
            if isinstance(value, (str, torch.device)):
                asked = torch.device(value).type == "cuda"
                args = (*args[:index], torch.device("cpu"), *args[index + 1 :])
    if asked is None and name in FACTORIES:
        asked = None if any(isinstance(value, torch.Tensor) for value in args) else False
    return asked, args, kwargs


def _placed(value: Any, gpu: bool) -> Any:
    if not isinstance(value, torch.Tensor) or isinstance(value, OnGpu) == gpu:
        return value
    return value.as_subclass(OnGpu if gpu else torch.Tensor)
