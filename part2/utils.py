"""What a training logs: means over windows of steps, and the scores of each epoch."""

import argparse
import csv
import io
import math
from collections import defaultdict
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from statistics import median

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from run import InputError, atomic_write


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
        self._windows: dict[str, list[Tensor]] = defaultdict(list)

    def add_values(self, log_dict: Mapping[str, Tensor | float]) -> None:
        """Add the values of one step. When a name has `avg_window` values, their mean is written, with the number of
        steps so far as its step; only then are values read from the device.

        Args:
            log_dict: scalars by name: numbers, or tensors with one element.
        """
        self.global_step += 1
        for name, value in log_dict.items():
            self._windows[name].append(torch.as_tensor(value).detach().reshape(()))
            if len(self._windows[name]) >= self.avg_window:
                mean = torch.stack(self._windows.pop(name)).float().mean()
                if self.summary_writer is not None:
                    self.summary_writer.add_scalar(self.prefix + name, mean.item(), self.global_step)

    def state_dict(self) -> dict:
        """The number of steps so far, and the values of the unfinished windows."""
        unfinished = {name: [value.item() for value in values] for name, values in self._windows.items()}
        return {"global_step": self.global_step, "unfinished": unfinished}

    def load_state_dict(self, state: dict) -> None:
        """Continue from the state that `state_dict` returned."""
        self.global_step = state["global_step"]
        self._windows.clear()
        for name, values in state["unfinished"].items():
            self._windows[name] = [torch.tensor(value) for value in values]


def check_finite(losses: Mapping[str, Tensor | float], place: str) -> None:
    """Raise InputError at the first of the losses that is NaN or infinite. `place`, such as "epoch 3, step 50", is for
    the message."""
    for name, loss in losses.items():
        if not math.isfinite(loss):
            raise InputError(f"{name} is not finite in {place}: lower --ae_lr or --d_lr, or raise --precision; the "
                             "checkpoint of the epoch before is kept")  # fmt: skip


def record_epoch(
    args: argparse.Namespace, run_dir: Path, board: SummaryWriter, rows: list[dict], seconds: list[float]
) -> None:
    """Write the scores of the last epoch into TensorBoard, at its last step, and `metrics.csv`, and print them.

    Args:
        args, run_dir, board: flags and directory of the training, and TensorBoard's writer.
        rows, seconds: of all epochs: the rows of `metrics.csv`, and the time that each took.
    """
    row = rows[-1]
    for name in row:
        if name.startswith("test_"):
            board.add_scalar(name.replace("_", "/", 1), row[name], row["step"])
    board.add_scalar("epoch_seconds", seconds[-1], row["step"])
    board.flush()
    table = io.StringIO()
    writer = csv.DictWriter(table, fieldnames=list(row), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    atomic_write(run_dir / "metrics.csv", table.getvalue())
    left = timedelta(seconds=round(median(seconds[-5:]) * (args.epochs - row["epoch"])))
    print(f"epoch {row['epoch']}/{args.epochs}: reconstruction {row['train_recon_loss']:.4f} (test "
          f"{row['test_recon_loss']:.4f}), accuracy of the discriminator {row['train_accuracy']:.2f}, "
          f"{seconds[-1]:.1f} s, about {left} left", flush=True)  # fmt: skip
