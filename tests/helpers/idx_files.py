"""Files of MNIST's names and format."""

from pathlib import Path

import numpy as np


def write_mnist(root: Path, train: int = 60_000, test: int = 10_000) -> None:
    """Write the four files of MNIST into `root/MNIST/raw`, with random pixels; an image's label is its index modulo
    10."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, count in (("train", train), ("t10k", test)):
        write_idx(raw / f"{name}-images-idx3-ubyte", rng.integers(0, 256, size=(count, 28, 28), dtype=np.uint8))
        write_idx(raw / f"{name}-labels-idx1-ubyte", (np.arange(count) % 10).astype(np.uint8))


def write_idx(path: Path, array: np.ndarray) -> None:
    """Write unsigned bytes as idx: two zeros, the type 8, the number of dimensions, their sizes, the data."""
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    path.write_bytes(header + array.tobytes())
