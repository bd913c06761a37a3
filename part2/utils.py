"""Losses of single steps: kept on the device, read from it in windows, checked, averaged, written to TensorBoard."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from statistics import fmean

import torch
from torch import Tensor

from inputs import NotFiniteError


class DeviceValues:
    """Scalars by name, one for each step. Adding does not wait for the device; reading copies all values at once.

    Attributes:
        pending: the values of each name that have not been read yet.
    """

    def __init__(self):
        self.pending: dict[str, list[Tensor | float]] = defaultdict(list)

    def add(self, values: Mapping[str, Tensor | float]) -> None:
        """Add one value for each name: a number, or a tensor with one element, which is detached."""
        for name, value in values.items():
            self.pending[name].append(value.detach() if isinstance(value, Tensor) else float(value))

    def read(self, names: Iterable[str] | None = None) -> dict[str, list[float]]:
        """Remove and return the values of the given names, or of all, in the order in which they were added."""
        taken = {name: self.pending.pop(name) for name in list(self.pending if names is None else names)}
        tensors = [value.reshape(()) for values in taken.values() for value in values if isinstance(value, Tensor)]
        numbers = iter(torch.stack(tensors).tolist() if tensors else ())
        return {
            name: [next(numbers) if isinstance(value, Tensor) else value for value in values]
            for name, values in taken.items()
        }


class EpochMeans:
    """Means over the images of an epoch, computed from the means over its batches."""

    def __init__(self):
        self._values, self._sizes = DeviceValues(), []
        self._totals, self._num_images = defaultdict(float), 0

    def add(self, values: Mapping[str, Tensor | float], size: int) -> None:
        """Add the values of a step with `size` images; they stay on the device."""
        self._values.add(values)
        self._sizes.append(size)

    def read(self) -> dict[str, list[float]]:
        """Read the values of the steps since the last call, add them to the totals, and return them by name."""
        window = self._values.read()
        for name, values in window.items():
            self._totals[name] += sum(size * value for size, value in zip(self._sizes, values, strict=True))
        self._num_images += sum(self._sizes)
        self._sizes.clear()
        return window

    def means(self) -> dict[str, float]:
        """Means over the images of all steps that have been read."""
        return {name: total / self._num_images for name, total in self._totals.items()}


class TensorBoardLogger:
    """Writes means over a window of steps to TensorBoard: smooth curves, small files.

    Args:
        summary_writer: a SummaryWriter, or an object with its `add_scalar`; None if another process writes.
        avg_window: number of steps in a window.
        name: prefix of every tag, followed by a slash.
    """

    def __init__(self, summary_writer, avg_window: int = 50, name: str | None = None):
        self.summary_writer, self.avg_window = summary_writer, avg_window
        self.prefix = f"{name}/" if name else ""
        self.global_step = 0
        self._values = DeviceValues()

    def add_values(self, log_dict: Mapping[str, Tensor | float]) -> None:
        """Add the values of one step. When a name has `avg_window` values, their mean is written, with the number of
        steps so far as its step; only then are values read from the device.

        Args:
            log_dict: scalars by name: numbers, or tensors with one element, all on one device.
        """
        self.global_step += 1
        self._values.add(log_dict)
        full = [name for name in log_dict if len(self._values.pending[name]) >= self.avg_window]
        for name, values in self._values.read(full).items():
            if self.summary_writer is None:
                continue
            self.summary_writer.add_scalar(self.prefix + name, fmean(values), self.global_step)

    def state_dict(self) -> dict:
        """The number of steps so far, and the values of the unfinished window."""
        unfinished = self._values.read()
        self._values.pending.update(unfinished)
        return {"global_step": self.global_step, "unfinished": unfinished}

    def load_state_dict(self, state: dict) -> None:
        """Continue from the state that `state_dict` returned."""
        self.global_step = state["global_step"]
        self._values = DeviceValues()
        self._values.pending.update({name: list(values) for name, values in state["unfinished"].items()})


def raise_if_not_finite(window: dict[str, list[float]], epoch: int, last_step: int, device: torch.device) -> None:
    """Stop, on all processes at once, at the first step with a loss that is NaN or infinite.

    Args:
        window: losses of the last steps by name.
        epoch: the current epoch.
        last_step: number, within the epoch, of the window's last step.
        device: device on which processes exchange tensors.

    Raises:
        NotFiniteError: a loss is not finite; the message names the loss, the epoch and the step.
    """
    num_steps = max(map(len, window.values()), default=0)
    bad = {}  # name of the first bad loss by step of the window
    for name, losses in window.items():
        for step in range(num_steps):
            if not math.isfinite(losses[step]):
                bad.setdefault(step, name)
    first = min(bad, default=math.inf)
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        shared = torch.tensor(float(first), device=device)
        torch.distributed.all_reduce(shared, torch.distributed.ReduceOp.MIN)
        first = shared.item()
    if first < math.inf:
        name = bad.get(int(first), "a loss of another process")
        raise not_finite_error(name, epoch, last_step - num_steps + 1 + int(first))


def not_finite_error(loss: str, epoch: int, step: int) -> NotFiniteError:
    """The error for a loss that is NaN or infinite, found at a step of an epoch."""
    kept = "the checkpoint of the epoch before it is kept" if epoch > 1 else "there is no checkpoint yet"
    return NotFiniteError(
        f"{loss} is not finite in epoch {epoch}, step {step} of the epoch: lower --ae_lr or --d_lr, or raise "
        f"--precision; {kept}"
    )
