"""The picture of a run."""

import io
import math
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from run import atomic_write


def plot_curves(rows: list[dict[str, float]], num_tokens: int) -> Figure:
    """Training and validation loss and accuracy against the step.

    Args:
        rows: one for each validation, with `step`, `train_loss`, `val_loss`, `train_acc`, `val_acc`; losses in nats.
        num_tokens: size of the vocabulary, for the loss of guessing.
    """
    steps = [row["step"] for row in rows]
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    losses, accuracies = figure.subplots(1, 2)
    for axes, name in ((losses, "loss"), (accuracies, "acc")):
        for mode, label, colour in (("train", "training", "#0072b2"), ("val", "validation", "#d55e00")):
            marker = "o" if len(rows) < 3 else None
            axes.plot(steps, [row[f"{mode}_{name}"] for row in rows], label=label, color=colour, marker=marker)
        axes.set_xlabel("step")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    losses.set_ylabel("cross entropy [nats per token]")
    losses.set_title(f"loss (of guessing: {math.log(num_tokens):.2f})", fontsize="medium")
    accuracies.set_title("accuracy", fontsize="medium")
    accuracies.set_ylabel("share of tokens predicted")
    losses.legend()
    return figure


def write_figure(path: Path, figure: Figure) -> None:
    """Write a PNG file, in one step."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=150)
    atomic_write(path, file.getvalue())
