"""What the tests of several parts do with a run's files: read its metrics, and compare its checkpoints."""

import csv
from pathlib import Path

import torch


def rows_of(run: Path) -> list[dict[str, str]]:
    """Rows of `metrics.csv`, one an epoch."""
    with open(run / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


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
