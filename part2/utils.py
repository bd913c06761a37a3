"""Losses of single steps that stay on the device until a window of them is read, and their way into TensorBoard."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from statistics import fmean

import torch
from torch import Tensor


class DeviceValues:
    """Scalars by name, one a step. Adding computes nothing and waits for nothing; reading is one copy from the device.

    Attributes:
        pending: what was added to each name and not read yet.
    """

    def __init__(self):
        self.pending: dict[str, list[Tensor | float]] = defaultdict(list)

    def add(self, values: Mapping[str, Tensor | float]) -> None:
        """Add one value of each name: a number, or a tensor with one element, whose graph is let go."""
        for name, value in values.items():
            self.pending[name].append(value.detach() if isinstance(value, Tensor) else float(value))

    def read(self, names: Iterable[str] | None = None) -> dict[str, list[float]]:
        """Take out all values of the given names, or of all, in the order in which they were added."""
        taken = {name: self.pending.pop(name) for name in list(self.pending if names is None else names)}
        tensors = [value.reshape(()) for values in taken.values() for value in values if isinstance(value, Tensor)]
        numbers = iter(torch.stack(tensors).tolist() if tensors else ())
        return {
            name: [next(numbers) if isinstance(value, Tensor) else value for value in values]
            for name, values in taken.items()
        }


class EpochMeans:
    """Means over the images of an epoch, from the means over its batches."""

    def __init__(self):
        self._values, self._sizes = DeviceValues(), []
        self._totals, self._num_images = defaultdict(float), 0

    def add(self, values: Mapping[str, Tensor | float], size: int) -> None:
        """Add the values of a step with `size` images, which stay on the device."""
        self._values.add(values)
        self._sizes.append(size)

    def read(self) -> dict[str, list[float]]:
        """Read and return the values of the steps since the last reading, and add them to the totals."""
        window = self._values.read()
        for name, values in window.items():
            self._totals[name] += sum(size * value for size, value in zip(self._sizes, values, strict=True))
        self._num_images += sum(self._sizes)
        self._sizes.clear()
        return window

    def means(self) -> dict[str, float]:
        """Of all that has been read."""
        return {name: total / self._num_images for name, total in self._totals.items()}


class TensorBoardLogger:
    """Writes means over a window of steps into TensorBoard, so that its curves are smooth and its files small.

    Args:
        summary_writer: a SummaryWriter, or anything with its `add_scalar`; None where another process writes.
        avg_window: steps of a window.
        name: goes before every tag, with a slash.
    """

    def __init__(self, summary_writer, avg_window: int = 50, name: str | None = None):
        self.summary_writer, self.avg_window = summary_writer, avg_window
        self.prefix = f"{name}/" if name else ""
        self.global_step = 0
        self._values = DeviceValues()

    def add_values(self, log_dict: Mapping[str, Tensor | float]) -> None:
        """Add the values of one step. The mean of a name that has been added `avg_window` times since it was last
        written is written under the number of steps so far; only then is anything read from the device.

        Args:
            log_dict: scalars by name, as numbers or tensors with one element, all of these on one device.
        """
        self.global_step += 1
        self._values.add(log_dict)
        full = [name for name in log_dict if len(self._values.pending[name]) >= self.avg_window]
        for name, values in self._values.read(full).items():
            if self.summary_writer is None:
                continue
            self.summary_writer.add_scalar(self.prefix + name, fmean(values), self.global_step)

    def state_dict(self) -> dict:
        """The number of steps so far and the values of the unfinished window."""
        unfinished = self._values.read()
        self._values.pending.update(unfinished)
        return {"global_step": self.global_step, "unfinished": unfinished}

    def load_state_dict(self, state: dict) -> None:
        """Go on from what `state_dict` gave."""
        self.global_step = state["global_step"]
        self._values = DeviceValues()
        self._values.pending.update({name: list(values) for name, values in state["unfinished"].items()})
