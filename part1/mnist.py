"""MNIST with 4-bit grey values, and the small digits inside scikit-learn, which need no download.

Images are discretised once, when they are read, and kept in memory as bytes. A batch is one index operation.
"""

import argparse
import logging
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler, Subset, random_split

from gpu import on_device
from inputs import DATA_DIR, resolve_path
from mnist_files import read_mnist

NUM_VALUES = 16  # grey values of 4 bits
SPLIT_SEED = 42  # the course's: all runs have the same training and validation set
log = logging.getLogger("part1")

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

    @property
    def nbytes(self) -> int:
        """Memory that the images and labels take, in bytes."""
        return self.images.nbytes + self.labels.nbytes

    @property
    def device(self) -> torch.device:
        """Where the images and labels are."""
        return self.images.device

    def to(self, device: torch.device) -> None:
        """Move images and labels to a device; batches are there, too, then."""
        self.images, self.labels = self.images.to(device), self.labels.to(device)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int | Tensor) -> tuple[Tensor, Tensor]:
        return self.images[index].long(), self.labels[index]

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        """A whole batch. DataLoader calls this method if a data set has it."""
        return self[on_device(torch.as_tensor(indices), self.device)]


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
    root: str | Path = "../data/",
    batch_size: int = 128,
    num_workers: int = 4,
    download: bool = True,
    seed: int | None = None,
    pin_memory: bool = False,
) -> Loaders:
    """Loaders of 4-bit MNIST: 54,000 images for training, 6,000 for validation, 10,000 for the test.

    Args:
        root: directory that holds (or will hold) `MNIST/raw`; the default is next to the parts' directories.
        batch_size: images in a batch.
        num_workers: loader processes; 0 is fastest here.
        download: download missing files.
        seed: fixes the order of the training images in each epoch; None: PyTorch's global generator draws it.
        pin_memory: put batches into page-locked memory, which a CUDA device copies faster.

    Returns:
        train, validation and test loader; each batch is images, long [B, 1, 28, 28] with values 0 .. 15, and labels,
        long [B] with values 0 .. 9.

    Raises:
        NoDataError: the files are missing and cannot be downloaded.
        InputError: the files are not MNIST's.
    """
    (images, labels), test = _read_sets(resolve_path(root, default=DATA_DIR), download)
    training = ImageDataset(images, labels)
    train, val = random_split(training, [54_000, 6_000], generator=torch.Generator().manual_seed(SPLIT_SEED))
    return _loaders(train, val, ImageDataset(*test), batch_size, num_workers, seed, pin_memory)


def digits(batch_size: int = 128, num_workers: int = 0, seed: int | None = None, pin_memory: bool = False) -> Loaders:
    """Loaders like those of `mnist` for scikit-learn's 1,797 digits, scaled from 8x8 to 28x28 pixels.

    1,350 images are for training, 150 for validation, and the last 297 for the test.
    """
    from sklearn.datasets import load_digits

    source = load_digits()
    small = torch.as_tensor(source.images, dtype=torch.float32).unsqueeze(1) / 16  # (N, 1, 8, 8) in [0, 1]
    large = torch.nn.functional.interpolate(small, size=(28, 28), mode="bilinear")
    images, labels = discretize(large, NUM_VALUES).byte(), torch.as_tensor(source.target).long()
    training, test = ImageDataset(images[:1500], labels[:1500]), ImageDataset(images[1500:], labels[1500:])
    train, val = random_split(training, [1350, 150], generator=torch.Generator().manual_seed(SPLIT_SEED))
    return _loaders(train, val, test, batch_size, num_workers, seed, pin_memory)


def load_data(args: argparse.Namespace, pin_memory: bool = False) -> Loaders:
    """Training, validation and test loader for the flags `dataset data_dir batch_size num_workers seed`."""
    if args.dataset == "digits":
        return digits(args.batch_size, args.num_workers, args.seed, pin_memory)
    return mnist(args.data_dir, args.batch_size, args.num_workers, seed=args.seed, pin_memory=pin_memory)


def _loaders(
    train: Subset,
    val: Subset,
    test: ImageDataset,
    batch_size: int,
    num_workers: int,
    seed: int | None,
    pin_memory: bool,
) -> Loaders:
    common = {
        "batch_size": batch_size,
        "num_workers": num_workers,
        "collate_fn": identity_collate,
        "pin_memory": pin_memory,
        "persistent_workers": num_workers > 0,
    }
    sampler = RandomSampler(train) if seed is None else EpochSampler(train, seed)
    return DataLoader(train, sampler=sampler, **common), DataLoader(val, **common), DataLoader(test, **common)


def _grey_values(images: Tensor) -> Tensor:
    """Grey values 0 .. 255 as 0 .. 15, both uint8, with the arithmetic of torchvision's ToTensor and `discretize`."""
    table = discretize(torch.arange(256).float().div(255), NUM_VALUES).byte()
    return torch.cat([table[chunk.long()] for chunk in images.split(1000)]).unsqueeze(1)  # (N, 1, 28, 28)


def _read_sets(root: Path, download: bool) -> list[tuple[Tensor, Tensor]]:
    """Images, uint8 [N, 1, 28, 28] with values 0 .. 15, and labels, long [N], of the training and of the test set."""
    files = {name: torch.from_numpy(data) for name, data in read_mnist(root, download, log.info).items()}
    return [
        (_grey_values(files[f"{kind}-images-idx3-ubyte"]), files[f"{kind}-labels-idx1-ubyte"].long())
        for kind in ("train", "t10k")
    ]
