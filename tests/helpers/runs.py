"""What the tests of several parts do with a run: interrupt it, read its metrics and its points in TensorBoard, and
compare its checkpoints."""

import contextlib
import csv
import logging
import shlex
import signal
import subprocess
from pathlib import Path

import torch
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader


def rows_of(run: Path) -> list[dict[str, str]]:
    """Rows of `metrics.csv`, one an epoch."""
    with open(run / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def event_files_of(run: Path) -> list[Path]:
    """Event files in the order in which they were begun: their names hold the second, the process and a counter."""
    files = run.glob("events.out.tfevents.*")
    return sorted(files, key=lambda file: [int(word) if word.isdigit() else word for word in file.name.split(".")])


def points_of(run: Path) -> dict[str, list[tuple[int, bytes]]]:
    """Step and value of all points in TensorBoard by tag, in the order in which they lie in the files."""
    points = {}
    for file in event_files_of(run):
        for event in LegacyEventFileLoader(str(file)).Load():
            for value in event.summary.value:
                points.setdefault(value.tag, []).append((event.step, value.SerializeToString()))
    return points


def assert_equal(a, b) -> None:
    """Equality of nested containers of tensors, bit for bit."""
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_equal(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_equal(x, y)
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    else:
        assert a == b


@contextlib.contextmanager
def not_configured_logging(part):
    """While this holds, logging is not configured, as in a notebook: not even by pytest."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    root.handlers = []
    root.setLevel(logging.WARNING)
    try:
        yield root
    finally:
        root.handlers = handlers
        root.setLevel(level)
        part.training_run.log_to_stdout()  # finds pytest's handlers again


def interruptible() -> None:
    """To be called in a new process: what a script has started in its background ignores Ctrl-C, and hands that on."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def interrupt(process: subprocess.Popen) -> str:
    """Press Ctrl-C and return the output."""
    process.send_signal(signal.SIGINT)
    return process.communicate(timeout=600)[0]


def command_to_go_on(output: str) -> list[str]:
    """The command in the message of an interrupted run."""
    return shlex.split(output.split("continue with ")[1].splitlines()[0])
