"""4-bit MNIST and the small digits: discretisation, split, order; missing, packed and damaged files."""

import contextlib
import functools
import gzip
import hashlib
import shutil
import socket
import subprocess
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, random_split
from torchvision import datasets
from torchvision.transforms import ToTensor

from idx_files import write_idx

NAMES = [f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]


def load(part1, root, **kwargs):
    return part1.mnist.mnist(root=str(root), num_workers=0, download=False, **kwargs)


def all_of(loader) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = zip(*loader, strict=True)
    return torch.cat(images), torch.cat(labels)


@pytest.mark.parametrize(
    ("x", "num_values", "expected"),
    [
        ([0.0, 0.249, 0.25, 0.5, 0.749, 0.75, 1.0], 4, [0, 0, 1, 2, 2, 3, 3]),
        ([0.0, 1 / 16, 0.999, 1.0], 16, [0, 1, 15, 15]),
        ([0.0, 0.5, 1.0], 1, [0, 0, 0]),
    ],
)
def test_discretize(part1, x, num_values, expected):
    x = torch.tensor(x)
    before = x.clone()
    values = part1.mnist.discretize(x, num_values)
    assert values.tolist() == expected and values.dtype == torch.long
    assert torch.equal(x, before)


# ------------------------------------------------------------------------------------------------------------- loaders


def test_batches_and_sizes(part1, fake_mnist, monkeypatch):
    """A batch is one index operation."""
    get, calls = part1.mnist.ImageDataset.__getitem__, []
    monkeypatch.setattr(part1.mnist.ImageDataset, "__getitem__",
                        lambda self, index: calls.append(len(index)) or get(self, index))  # fmt: skip
    loaders = load(part1, fake_mnist, batch_size=13)
    assert [len(loader.dataset) for loader in loaders] == [54_000, 6_000, 10_000]
    for loader in loaders:
        assert isinstance(loader, DataLoader)
        images, labels = next(iter(loader))
        assert images.shape == (13, 1, 28, 28) and images.dtype == torch.long
        assert labels.shape == (13,) and labels.dtype == torch.long
        assert images.min() == 0 and images.max() == 15
    assert calls == [13, 13, 13]


def test_split_is_that_of_seed_42(part1, fake_mnist):
    """The labels of the made-up files tell each image's index modulo 10."""
    _, val, test = load(part1, fake_mnist, batch_size=500)
    expected = random_split(range(60_000), [54_000, 6_000], generator=torch.Generator().manual_seed(42))[1].indices
    assert all_of(val)[1].tolist() == [index % 10 for index in expected]
    assert all_of(test)[1].tolist() == [index % 10 for index in range(10_000)], "the test set keeps its order"


def test_order_of_an_epoch(part1, fake_mnist):
    """Every image once, in a new order, which depends on seed and epoch alone; without a seed, on torch's generator."""

    def epochs(seed: int | None) -> list[list[int]]:
        sampler = load(part1, fake_mnist, seed=seed)[0].sampler
        orders = []
        for epoch in range(2):
            if seed is not None:
                sampler.set_epoch(epoch)
            torch.rand(3)  # the global generator must not matter
            orders.append(list(sampler))
        return orders

    first, again, other, free = epochs(1), epochs(1), epochs(2), epochs(None)
    assert first == again
    assert all(sorted(order) == list(range(54_000)) for order in (*first, *other, *free))
    assert len({tuple(order) for order in (*first, *other, *free)}) == 6


def template_values(picture) -> torch.Tensor:
    """What the course's template makes of a picture: ToTensor, times 16, rounded down, at most 15."""
    return (ToTensor()(picture) * 16).long().clamp(max=15)


def test_images_equal_the_template_s(part1, fake_mnist):
    source = datasets.MNIST(str(fake_mnist), train=False, transform=template_values)
    images, labels = zip(*(source[i] for i in range(500)), strict=True)
    found, found_labels = all_of(load(part1, fake_mnist)[2])
    assert torch.equal(found[:500], torch.stack(images))
    assert found_labels[:500].tolist() == list(labels)


@pytest.mark.usefixtures("no_network")
def test_all_70_000_images_equal_the_template_s(part1, mnist_dir):
    """The template works pixel by pixel: it is applied to each of the 256 bytes once."""
    values = template_values(Image.fromarray(np.arange(256, dtype=np.uint8)[None])).flatten()
    train, val, test = part1.mnist.mnist(root=str(mnist_dir), num_workers=0)
    source = datasets.MNIST(str(mnist_dir), train=False)
    images, labels = test.dataset[:]
    assert torch.equal(images, values[source.data.long()].unsqueeze(1)) and torch.equal(labels, source.targets)
    source = datasets.MNIST(str(mnist_dir))
    for loader in (train, val):
        index = torch.as_tensor(loader.dataset.indices)
        images, labels = loader.dataset.dataset[index]
        assert torch.equal(images, values[source.data[index].long()].unsqueeze(1))
        assert torch.equal(labels, source.targets[index])


@pytest.mark.parametrize(("limit", "sizes"), [(1797, [1350, 150, 297]), (200, [150, 16, 34])])
def test_digits_look_like_mnist(part1, limit, sizes):
    loaders = part1.mnist.digits(batch_size=50, limit=limit)
    assert [len(loader.dataset) for loader in loaders] == sizes
    for loader in loaders:
        images, labels = all_of(loader)
        assert images.shape[1:] == (1, 28, 28) and images.dtype == torch.long
        assert images.min() == 0 and images.max() == 15
        assert sorted(labels.unique().tolist()) == list(range(10)) or limit < 1797


def test_default_folder_lies_beside_the_part(part1, repository, tmp_path, monkeypatch):
    """Wherever the command runs; a folder that is given starts in the current one."""
    monkeypatch.chdir(tmp_path)
    asked = []
    monkeypatch.setattr(part1.mnist, "MNIST", lambda root, **kwargs: asked.append(Path(root)))
    for root in ({}, {"root": "elsewhere"}):
        with pytest.raises(part1.run.InputError):
            part1.mnist.mnist(download=False, **root)
    assert asked[0].resolve() == repository / "data" and asked[2].absolute() == tmp_path / "elsewhere"


# --------------------------------------------------------------------------------------------------------------- files


@pytest.fixture(scope="module")
def packed(fake_mnist, tmp_path_factory) -> tuple[Path, list[tuple[str, str]]]:
    """Folder with the made-up files packed, and their names with checksums."""
    folder, resources = tmp_path_factory.mktemp("packed"), []
    for name in NAMES:
        content = gzip.compress((fake_mnist / "MNIST" / "raw" / name).read_bytes(), compresslevel=0)
        (folder / f"{name}.gz").write_bytes(content)
        resources.append((f"{name}.gz", hashlib.md5(content).hexdigest()))
    return folder, resources


@contextlib.contextmanager
def serving(folder: Path):
    """The address of a server of the folder's files, while this holds."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def error_of(part1, root: Path, download: bool = False) -> str:
    with pytest.raises(part1.run.InputError) as caught:
        part1.mnist.mnist(root=root, num_workers=0, download=download)
    sentence = part1.run.explain(caught.value)
    assert f"MNIST cannot be read from {root / 'MNIST' / 'raw'} (" in sentence and "\n" not in sentence
    return sentence


def test_packed_files_are_unpacked(part1, packed, tmp_path, monkeypatch, no_network):
    raw = tmp_path / "MNIST" / "raw"
    shutil.copytree(packed[0], raw)
    monkeypatch.setattr(datasets.MNIST, "resources", packed[1])
    test = part1.mnist.mnist(root=tmp_path, num_workers=0)[2]
    assert test.dataset[:][1].tolist() == [index % 10 for index in range(10_000)]


def test_download(part1, packed, tmp_path, monkeypatch):
    """From the second mirror where the first lacks a file; what is there is not asked for again."""
    monkeypatch.setattr(datasets.MNIST, "resources", packed[1])
    monkeypatch.setenv("NO_PROXY", "*")
    (tmp_path / "empty").mkdir()
    with serving(tmp_path / "empty") as bad, serving(packed[0]) as good:
        monkeypatch.setattr(datasets.MNIST, "mirrors", [bad])
        assert "HTTP Error 404" in error_of(part1, tmp_path / "data", download=True)
        monkeypatch.setattr(datasets.MNIST, "mirrors", [bad, good])
        assert len(part1.mnist.mnist(root=tmp_path / "data", num_workers=0)[2].dataset) == 10_000
    assert len(part1.mnist.mnist(root=tmp_path / "data", num_workers=0)[2].dataset) == 10_000
    assert socket.getdefaulttimeout() is None


def test_missing_files_and_no_network(part1, tmp_path, monkeypatch):
    def no_such_name(*args, **kwargs):
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", no_such_name)
    monkeypatch.delenv("https_proxy", raising=False)
    monkeypatch.delenv("HTTPS_PROXY", raising=False)
    sentence = error_of(part1, tmp_path / "data", download=True)
    assert "Temporary failure in name resolution" in sentence and "--data_dir" in sentence
    assert not [file.name for file in tmp_path.rglob("*ubyte*")]
    assert "not found" in error_of(part1, tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("given", ["MNIST/raw", "MNIST"])
def test_files_that_lie_elsewhere(part1, fake_mnist, no_network, given):
    """No second copy is downloaded into a directory below."""
    with pytest.raises(part1.run.InputError, match=f"they lie in {fake_mnist}/MNIST/raw.*that holds MNIST/raw"):
        part1.mnist.mnist(root=fake_mnist / given)
    assert not (fake_mnist / given / "MNIST").exists()


def test_damaged_and_foreign_files(part1, fake_mnist, tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    shutil.copytree(fake_mnist / "MNIST" / "raw", raw)
    for name in NAMES:
        whole = (raw / name).read_bytes()
        other = {"train": "t10k", "t10k": "train"}[name.split("-")[0]] + name[name.index("-") :]
        kind = NAMES[NAMES.index(name) ^ 1]
        damages = {"truncated": whole[:-1], "empty": b"", "text": b"x" * 99, "other set": (raw / other).read_bytes(),
                   "labels for images": (raw / kind).read_bytes()}  # fmt: skip
        for damage, content in damages.items():
            (raw / name).write_bytes(content)
            assert error_of(part1, tmp_path), (name, damage)
        (raw / name).unlink()
        (raw / name).mkdir()
        assert error_of(part1, tmp_path), (name, "a directory")
        (raw / name).rmdir()
        (raw / name).write_bytes(whole)
    write_idx(raw / NAMES[2], np.zeros((10_000, 14, 56), dtype=np.uint8))
    assert "other data than MNIST's" in error_of(part1, tmp_path)


def test_read_only_directory(part1, fake_mnist, read_only, no_network):
    """Nothing is written where all files are there; elsewhere the sentence says why."""
    assert "Read-only file system" in error_of(part1, read_only, download=True)
    subprocess.run(["mount", "--bind", str(fake_mnist), str(read_only)], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(read_only)], check=True)
        assert len(part1.mnist.mnist(root=read_only, num_workers=0)[0].dataset) == 54_000
    finally:
        subprocess.run(["umount", str(read_only)], check=True)
