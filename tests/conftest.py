"""Fixtures of the suite: the parts under test, and data for them."""

import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # processes that share the cores: set before torch reads it
    threads = (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, threads)))

import numpy as np
import pytest
import torch

from idx_files import write_mnist
from part_loader import Part
from plain_figures import plain_figures
from short_runs import commands as commands
from short_runs import runs as runs
from short_runs import runs_of as runs_of

REPOSITORY = Path(__file__).resolve().parents[1]

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a process that a shell has started in its background
    signal.signal(signal.SIGINT, signal.default_int_handler)

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
    return {name: Part(REPOSITORY / name) for name in ("part1", "part2", "part3")}


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
    write_mnist(root)
    return root
