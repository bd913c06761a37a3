"""Fixtures of the suite: the parts under test, and data for them."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
from argparse import Namespace
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # processes that share the cores: set before torch reads it
    threads = (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, threads)))

import numpy as np
import pytest
import torch

from part_loader import Part
from plain_figures import plain_figures
from run_bench import benches as benches
from run_bench import server as server
from soak_record import soak as soak

REPOSITORY = Path(__file__).resolve().parents[1]

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a process that a shell has started in its background
    signal.signal(signal.SIGINT, signal.default_int_handler)

SHORT_TEXTS = (5, 1000, 20)  # part 3's trainings write texts of 20 instead of 300 tokens, which take longer than they

plain_figures()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Tell fixtures, after the test, whether it has passed."""
    report = yield
    if report.when == "call":
        item.passed = report.passed
    return report


@pytest.fixture(scope="session")
def _parts() -> dict[str, Part]:
    parts = {name: Part(REPOSITORY / name) for name in ("part1", "part2", "part3")}
    with parts["part3"].imported() as part3:
        part3.callbacks.GenerateCallback.__init__.__defaults__ = SHORT_TEXTS
    return parts


@pytest.fixture
def part1(_parts):
    """Modules of part 1."""
    with _parts["part1"].imported() as part:
        yield part


@pytest.fixture
def part2(_parts):
    """Modules of part 2."""
    with _parts["part2"].imported() as part:
        yield part


@pytest.fixture
def part3(_parts):
    """Modules of part 3."""
    with _parts["part3"].imported() as part:
        yield part


@pytest.fixture(scope="session")
def tiny_digits(_parts):
    """A few of the digits in the place of part 2's `digits`, while the context that is returned holds: 120 for training
    and 60 for the test, so that a training takes a moment."""

    @contextlib.contextmanager
    def shrunk(part2):
        original = part2.mnist.digits

        def few(batch_size=64, num_workers=0, seed=None, test_batch_size=1000, pin_memory=False):
            train, test = (
                part2.mnist.ImageDataset(*loader.dataset[: (120, 60)[i]]) for i, loader in enumerate(original())
            )
            return (
                part2.mnist._shuffled(train, batch_size, num_workers, seed, pin_memory),
                torch.utils.data.DataLoader(test, batch_size=test_batch_size, collate_fn=part2.mnist.identity_collate),
            )

        part2.mnist.digits = few
        try:
            yield
        finally:
            part2.mnist.digits = original

    return shrunk


@pytest.fixture(scope="session")
def few_digits():
    """A few of the digits in the place of part 1's `digits`, while the context that is returned holds: 120 for
    training, 40 for validation, and 40 for the test."""

    @contextlib.contextmanager
    def shrunk(part1):
        original, subset = part1.mnist._loaders, torch.utils.data.Subset

        def few(train, val, test, *rest):
            train, val = subset(train.dataset, train.indices[:120]), subset(val.dataset, val.indices[:40])
            return original(train, val, part1.mnist.ImageDataset(*test[:40]), *rest)

        part1.mnist._loaders = few
        try:
            yield
        finally:
            part1.mnist._loaders = original

    return shrunk


@pytest.fixture(scope="module", params=[2, 3], ids=["z_dim 2", "z_dim 3"])
def aae_run(request, _parts, tiny_digits, tmp_path_factory):
    """Directory of an autoencoder's run of one epoch on a few digits, and its z_dim."""
    log_dir = tmp_path_factory.mktemp("runs")
    with _parts["part2"].imported() as part2, tiny_digits(part2):
        part2.train.main(
            Namespace(dataset="digits", batch_size=60, z_dim=request.param, epochs=1, log_dir=str(log_dir))
        )
    return log_dir / "version_0", request.param


@pytest.fixture(autouse=True)
def _seed():
    """Every test starts from the same random numbers."""
    torch.manual_seed(0)
    np.random.seed(0)


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


def in_data_dir(file: str) -> Path:
    """Absolute path of a file in the folder that the environment variable DATA_DIR names; skips where it is not
    there."""
    folder = os.environ.get("DATA_DIR")
    if not folder:
        pytest.skip(f"DATA_DIR does not name a folder with {file}")
    if not Path(folder, file).is_file():
        pytest.skip(f"DATA_DIR={folder} holds no {file}")
    return Path(folder).resolve() / file


@pytest.fixture(scope="session")
def mnist_dir() -> Path:
    """Folder with the real MNIST/raw."""
    return in_data_dir("MNIST/raw/train-images-idx3-ubyte").parents[2]


@pytest.fixture(scope="session")
def gpt2_tokenizer_dir() -> Path:
    """Folder with GPT-2's real vocab.json, merges.txt and tokenizer.json."""
    return in_data_dir("gpt2/tokenizer.json").parent


@pytest.fixture(scope="session")
def tiny_shakespeare_file() -> Path:
    """The file tiny_shakespeare.txt."""
    return in_data_dir("text/tiny_shakespeare.txt")


@pytest.fixture
def no_network(monkeypatch):
    """Whoever opens a connection to another machine, or asks for its name, fails."""
    asked = []
    connect = socket.socket.connect

    def refuse(self, address):
        if self.family == socket.AF_UNIX:  # between processes of this machine
            return connect(self, address)
        asked.append(address)
        raise OSError(f"a connection to {address}")

    def no_names(*args, **kwargs):
        asked.append(args)
        raise OSError(f"a look-up of {args}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", no_names)
    yield
    assert asked == []


@pytest.fixture
def read_only(tmp_path):
    """A directory that can only be read, on a file system of its own: elsewhere, root may write everything."""
    directory = tmp_path / "read-only"
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(directory)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("file systems cannot be mounted here")
    yield directory
    subprocess.run(["umount", str(directory)], check=True)


@pytest.fixture(scope="session")
def fake_mnist(tmp_path_factory) -> Path:
    """Folder with files of MNIST's names, sizes and format; the pixels are random, and each image's label is its
    index modulo 10."""
    root = tmp_path_factory.mktemp("fake_mnist")
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, count in (("train", 60_000), ("t10k", 10_000)):
        images = rng.integers(0, 256, size=(count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        write_idx(raw / f"{name}-images-idx3-ubyte", images)
        write_idx(raw / f"{name}-labels-idx1-ubyte", labels)
    return root


def write_idx(path: Path, array: np.ndarray) -> None:
    """Write unsigned bytes as idx: two zeros, the type 8, the number of dimensions, their sizes, the data."""
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    path.write_bytes(header + array.tobytes())
