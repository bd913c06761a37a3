"""MNIST with 4-bit grey values, and the small digits inside scikit-learn, which need no download.

Images are discretised once, when they are read, and kept in memory as bytes. A batch is one index operation.
"""

import argparse
import socket
from pathlib import Path

import torch
from filelock import FileLock
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler, random_split
from torchvision.datasets import MNIST

from run import HERE, InputError

NUM_VALUES = 16  # grey values of 4 bits
DATA_DIR = "../data/"  # the course's default: beside the parts' directories, wherever a script is started
SPLIT_SEED = 42  # the course's: all runs have the same training and validation set

Loaders = tuple[DataLoader, DataLoader, DataLoader]


def discretize(x: Tensor, num_values: int) -> Tensor:
    """Cut the range [0, 1] into `num_values` equal steps.

    Args:
        x: float tensor of any shape with values in [0, 1].
        num_values: number of discrete values.

    Returns:
        long tensor of the same shape with values 0 .. num_values - 1; 1.0 belongs to the last step.
    """
    return (x * num_values).long().clamp_(max=num_values - 1)


class ImageDataset(Dataset):
    """Images and labels held in memory.

    Args:
        images: uint8 [N, 1, H, W] with values 0 .. 15.
        labels: long [N].
    """

    def __init__(self, images: Tensor, labels: Tensor):
        self.images, self.labels = images, labels

    def to(self, device: torch.device) -> None:
        """Move images and labels to a device; batches are there, too, then."""
        self.images, self.labels = self.images.to(device), self.labels.to(device)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int | Tensor) -> tuple[Tensor, Tensor]:
        return self.images[index].long(), self.labels[index]

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        """A whole batch. DataLoader calls this method if a data set has it."""
        index = torch.as_tensor(indices)
        if self.images.is_cuda:  # from page-locked memory, so that nobody waits for the copy
            index = index.pin_memory().to(self.images.device, non_blocking=True)
        return self[index]


class EpochSampler(RandomSampler):
    """Random order that depends on the seed and the epoch alone, so that a resumed run has the same batches.

    Lightning calls `set_epoch`. With several devices it replaces this sampler by its DistributedSampler, whose order
    depends on seed and epoch as well.
    """

    def __init__(self, data_source: Dataset, seed: int):
        super().__init__(data_source)
        self.seed, self.epoch = seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self):
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        yield from torch.randperm(len(self.data_source), generator=generator).tolist()


def identity_collate(batch):
    """Collate function for a dataset that already returns batches."""
    return batch


def mnist(
    root: str | Path = DATA_DIR,
    batch_size: int = 128,
    num_workers: int = 4,
    download: bool = True,
    seed: int | None = None,
) -> Loaders:
    """Loaders of 4-bit MNIST: 54,000 images for training, 6,000 for validation, 10,000 for the test.

    Args:
        root: directory that holds (or will hold) `MNIST/raw`; the default is next to the parts' directories.
        batch_size: images in a batch.
        num_workers: loader processes; 0 is fastest here.
        download: download missing files.
        seed: fixes the order of the training images in each epoch; None: PyTorch's global generator draws it.

    Returns:
        train, validation and test loader; each batch is images, long [B, 1, 28, 28] with values 0 .. 15, and labels,
        long [B] with values 0 .. 9.

    Raises:
        InputError: the files are missing and cannot be downloaded, or are damaged.
    """
    training, test = _read_mnist(HERE / root if root == DATA_DIR else Path(root), download)
    return _loaders(training, test, [54_000, 6_000], batch_size, num_workers, seed)


def digits(batch_size: int = 128, num_workers: int = 0, seed: int | None = None, limit: int = 1797) -> Loaders:
    """Loaders like those of `mnist` for scikit-learn's 1,797 digits, scaled from 8x8 to 28x28 pixels.

    Of the first `limit` digits, the last sixth is for the test; of the others, a tenth is for validation.
    """
    from sklearn.datasets import load_digits

    source = load_digits()
    small = torch.as_tensor(source.images[:limit], dtype=torch.float32).unsqueeze(1) / 16  # (N, 1, 8, 8) in [0, 1]
    large = torch.nn.functional.interpolate(small, size=(28, 28), mode="bilinear")
    images, labels = discretize(large, NUM_VALUES).byte(), torch.as_tensor(source.target[:limit]).long()
    size = len(images) * 1500 // 1797
    training, test = ImageDataset(images[:size], labels[:size]), ImageDataset(images[size:], labels[size:])
    return _loaders(training, test, [size - size // 10, size // 10], batch_size, num_workers, seed)


def load_data(args: argparse.Namespace, device: torch.device, epoch: int = 0) -> Loaders:
    """Training, validation and test loader for the flags `dataset data_dir batch_size num_workers seed`.

    Args:
        args: the flags.
        device: of the training. A GPU holds all images itself, unless worker processes load them.
        epoch: number of finished epochs, on which the order of the next one depends.
    """
    if args.dataset == "digits":
        loaders = digits(args.batch_size, args.num_workers, args.seed)
    else:
        loaders = mnist(args.data_dir, args.batch_size, args.num_workers, seed=args.seed)
    if device.type == "cuda" and not args.num_workers:
        for dataset in (loaders[0].dataset.dataset, loaders[2].dataset):  # training and validation set are parts of one
            dataset.to(device)
    loaders[0].sampler.set_epoch(epoch)  # Lightning does, too, but too late for worker processes
    return loaders


def _loaders(
    training: ImageDataset, test: ImageDataset, sizes: list[int], batch_size: int, num_workers: int, seed: int | None
) -> Loaders:
    train, val = random_split(training, sizes, generator=torch.Generator().manual_seed(SPLIT_SEED))
    common = {"batch_size": batch_size, "num_workers": num_workers, "collate_fn": identity_collate,
              "persistent_workers": num_workers > 0, "timeout": 120 * (num_workers > 0)}  # fmt: skip
    sampler = RandomSampler(train) if seed is None else EpochSampler(train, seed)
    return DataLoader(train, sampler=sampler, **common), DataLoader(val, **common), DataLoader(test, **common)


def _read_mnist(root: Path, download: bool) -> list[ImageDataset]:
    """The training and the test set of the files in `root/MNIST/raw`."""
    raw, timeout = root / "MNIST" / "raw", socket.getdefaulttimeout()
    astray = [place for place in (root, root / "raw", root / "MNIST") if any(place.glob("t*-idx?-ubyte*"))]
    try:
        if download and not astray and not all((raw / Path(name).stem).exists() for name, _ in MNIST.resources):
            raw.mkdir(parents=True, exist_ok=True)
            socket.setdefaulttimeout(10)  # seconds
            with FileLock(raw / ".lock"):  # other trainings may need the files, too
                MNIST(root, download=True)
        sets = [MNIST(root, train=train) for train in (True, False)]
        if [(*part.data.shape, len(part.targets)) for part in sets] != [(n, 28, 28, n) for n in (60_000, 10_000)]:
            raise ValueError("the files hold other data than MNIST's")
        return [ImageDataset(_grey_values(part.data), part.targets) for part in sets]
    except Exception as error:  # damage shows in many ways
        reason = f"they lie in {astray[0]}" if astray else str(error) or "they are damaged"
        raise InputError(f"MNIST cannot be read from {raw} ({reason}): put its four files there, delete damaged ones, "
                         "name the directory that holds MNIST/raw with --data_dir, or train on the built-in digits "
                         "with --dataset digits") from error  # fmt: skip
    finally:
        socket.setdefaulttimeout(timeout)


def _grey_values(images: Tensor) -> Tensor:
    """Grey values 0 .. 255 as 0 .. 15, both uint8, with the arithmetic of torchvision's ToTensor and `discretize`."""
    table = discretize(torch.arange(256).float().div(255), NUM_VALUES).byte()
    return torch.cat([table[chunk.long()] for chunk in images.split(1000)]).unsqueeze(1)  # (N, 1, 28, 28)
