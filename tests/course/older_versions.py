"""Spellings that libraries have given up since a solution was written: they are no mistake of the student's.

`accept` changes the libraries in this process, which grades and does nothing else: PyTorch Lightning 1's arguments of
`Trainer` and its `*_epoch_end(outputs)`, torchvision's `range`, NumPy's `np.float`, pickled checkpoints. A trainer that
asks for a GPU gets the CPU.
"""

import functools
import inspect
import os
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import torchvision
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.trainer import configuration_validator

STAGES = {"training": "train", "validation": "validation", "test": "test"}  # step's name: hook's name
NUMPY = {"float": float, "int": int, "object": object, "Inf": np.inf, "NaN": np.nan, "product": np.prod}


def accept() -> None:
    """Make the libraries of this process accept the older spellings."""
    os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] = "1"
    for name, value in NUMPY.items():
        if name not in vars(np):
            setattr(np, name, value)
    for function in ("make_grid", "save_image"):
        _replace(torchvision.utils, function, _with_value_range)
    _replace(pl.Trainer, "__init__", _with_trainer_arguments)
    for method in ("fit", "validate", "test"):
        _replace(pl.Trainer, method, _with_loaders)
    _replace(ModelCheckpoint, "__init__", _with_checkpoint_arguments)
    for check in ("__verify_train_val_loop_configuration", "__verify_eval_loop_configuration"):
        _replace(configuration_validator, check, _with_epoch_ends)


def _replace(owner: Any, name: str, wrapper: Any) -> None:
    original = getattr(owner, name)
    wrapped = functools.wraps(original)(functools.partial(wrapper, original))
    if isinstance(owner, type):  # a partial is no method
        setattr(owner, name, functools.wraps(original)(lambda self, *args, **kwargs: wrapped(self, *args, **kwargs)))
    else:
        setattr(owner, name, wrapped)


def _with_value_range(original: Any, *args: Any, **kwargs: Any) -> Any:
    if "range" in kwargs:
        kwargs["value_range"] = kwargs.pop("range")
    return original(*args, **kwargs)


def _with_trainer_arguments(original: Any, self: pl.Trainer, *args: Any, **kwargs: Any) -> None:
    refresh = kwargs.pop("progress_bar_refresh_rate", None)
    if refresh is not None:
        kwargs.setdefault("enable_progress_bar", bool(refresh))
    if "weights_summary" in kwargs:
        kwargs.setdefault("enable_model_summary", kwargs.pop("weights_summary") is not None)
    checkpoints = kwargs.pop("checkpoint_callback", None)
    if isinstance(checkpoints, bool):
        kwargs.setdefault("enable_checkpointing", checkpoints)
    elif checkpoints is not None:
        kwargs["callbacks"] = [*_as_list(kwargs.get("callbacks")), checkpoints]
    if not torch.cuda.is_available() and kwargs.get("accelerator") in ("gpu", "cuda", "mps", "ddp", "dp"):
        kwargs.update(accelerator="cpu", devices=1)
        kwargs.pop("strategy", None)
        kwargs.pop("precision", None)
    if kwargs.get("precision") in (16, "16"):
        kwargs.pop("precision")
    known = inspect.signature(original).parameters
    callbacks = _as_list(kwargs.get("callbacks"))
    for callback in callbacks:
        _move_hooks(callback)
    if callbacks:
        kwargs["callbacks"] = callbacks
    original(self, *args, **{name: value for name, value in kwargs.items() if name in known})


def _with_loaders(original: Any, self: pl.Trainer, model: Any = None, *args: Any, **kwargs: Any) -> Any:
    for old, new in (("train_dataloader", "train_dataloaders"), ("test_dataloaders", "dataloaders")):
        if old in kwargs:
            kwargs[new] = kwargs.pop(old)
    if "val_dataloaders" in kwargs and original.__name__ == "validate":
        kwargs["dataloaders"] = kwargs.pop("val_dataloaders")
    return original(self, model, *args, **kwargs)


def _with_checkpoint_arguments(original: Any, self: ModelCheckpoint, *args: Any, **kwargs: Any) -> None:
    for old, new in (("filepath", "dirpath"), ("period", "every_n_epochs")):
        if old in kwargs:
            kwargs[new] = kwargs.pop(old)
    known = inspect.signature(original).parameters
    original(self, *args, **{name: value for name, value in kwargs.items() if name in known})


def _with_epoch_ends(original: Any, *args: Any) -> Any:
    """Lightning's check of a model, which refuses `training_epoch_end(outputs)` and the like: they become hooks that
    get what the steps returned."""
    model = next(arg for arg in args if isinstance(arg, pl.LightningModule))
    _move_hooks(model)
    for step, stage in STAGES.items():
        epoch_end = getattr(model, f"{step}_epoch_end", None)
        if callable(epoch_end):
            _collect(model, f"{step}_step", f"on_{stage}_epoch_end", epoch_end)
            setattr(model, f"{step}_epoch_end", None)
    return original(*args)


def _collect(model: pl.LightningModule, step: str, hook: str, epoch_end: Any) -> None:
    outputs: list[Any] = []
    original_step, original_hook = getattr(model, step), getattr(model, hook)

    @functools.wraps(original_step)
    def collecting(*args: Any, **kwargs: Any) -> Any:
        output = original_step(*args, **kwargs)
        is_loss = step == "training_step" and isinstance(output, torch.Tensor)
        outputs.append(_detached({"loss": output} if is_loss else output))
        return output

    @functools.wraps(original_hook)
    def at_the_end() -> None:
        collected = outputs.copy()
        outputs.clear()
        epoch_end(collected)
        original_hook()

    setattr(model, step, collecting)
    setattr(model, hook, at_the_end)


def _detached(output: Any) -> Any:
    if isinstance(output, dict):
        return {name: _detached(value) for name, value in output.items()}
    if isinstance(output, (list, tuple)):
        return type(output)(_detached(value) for value in output)
    if isinstance(output, torch.Tensor) and output.requires_grad:
        return output.detach()
    return output


def _move_hooks(owner: Any) -> None:
    """Lightning 1 called `on_epoch_start` and `on_epoch_end` in every loop; here those of training do."""
    for moment in ("start", "end"):
        old = getattr(owner, f"on_epoch_{moment}", None)
        new = f"on_train_epoch_{moment}"
        if callable(old) and new not in vars(type(owner)):
            setattr(owner, new, old)


def _as_list(callbacks: Any) -> list[Any]:
    return list(callbacks) if isinstance(callbacks, (list, tuple)) else [] if callbacks is None else [callbacks]
