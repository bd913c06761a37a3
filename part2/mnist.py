"""MNIST with grey values in [-1, 1], and the small digits inside scikit-learn, which need no network.

The images stay in memory as bytes. A batch is one index operation, followed by the scaling of its grey values.
"""

import argparse
import logging
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler, Sampler

from gpu import on_device
from inputs import DATA_DIR, resolve_path
from mnist_files import read_mnist

log = logging.getLogger("part2")


class ImageDataset(Dataset):
    """Images and labels held in memory.

    Args:
        images: uint8 [N, 1, H, W] with values 0 .. 255, or float32 with values in [-1, 1].
        labels: long [N].

    Items are images, float32 [1, H, W] with values in [-1, 1], and labels.
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
        return scaled(self.images[index]), self.labels[index]

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        """A whole batch; if a dataset has this method, DataLoader calls it."""
        return self[on_device(torch.as_tensor(indices), self.device)]


def scaled(images: Tensor) -> Tensor:
    """Grey values as float32 in [-1, 1]: uint8 is scaled as by torchvision's ToTensor and Normalize(0.5, 0.5), floats
    are returned unchanged."""
    return images if images.is_floating_point() else images.float().div_(255).sub_(0.5).div_(0.5)


class EpochSampler(Sampler):
    """Random order that depends only on the seed and the epoch, so that a resumed run sees the same batches. Call
    `set_epoch` before each epoch.

    Args:
        num_images: size of the data set.
        seed: seed of the order.
    """

    def __init__(self, num_images: int, seed: int):
        self.num_images, self.seed, self.epoch = num_images, seed, 0
        self.rank, self.num_ranks = 0, 1

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def share(self, rank: int, num_ranks: int) -> None:
        """Restrict the sampler to one process's share of an epoch: every `num_ranks`-th image, from the `rank`-th on.
        The first images are repeated at the end if that is needed to give all processes the same number of steps."""
        self.rank, self.num_ranks = rank, num_ranks

    def __len__(self) -> int:
        return -(-self.num_images // self.num_ranks)

    def __iter__(self):
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = torch.randperm(self.num_images, generator=generator)
        places = torch.arange(len(self)) * self.num_ranks + self.rank
        yield from order[places % self.num_images].tolist()


def identity_collate(batch):
    """Collate function for a dataset that already returns batches."""
    return batch


def mnist(
    root: str | Path = "../data",
    batch_size: int = 64,
    num_workers: int = 4,
    download: bool = True,
    seed: int | None = None,
    pin_memory: bool = False,
) -> DataLoader:
    """Loader of MNIST's 60,000 training images in random order. The last batch of an epoch may be smaller.

    Args:
        root: directory that holds `MNIST/raw`; the default is `data` beside the part directories.
        batch_size: images in a batch.
        num_workers: loader processes; 0 is fastest here.
        download: download the files if they are missing.
        seed: fixes the order of each epoch; with None, torch's global generator decides.
        pin_memory: put batches into pinned memory, from which copies to a CUDA device run in the background.

    Returns:
        Loader of images, float32 [B, 1, 28, 28] with values in [-1, 1], and labels, long [B] with values 0 .. 9.

    Raises:
        NoDataError: the files are missing and cannot be downloaded.
        InputError: the files are not MNIST's.
    """
    dataset = _read_set(resolve_path(root, default=DATA_DIR), train=True, download=download)
    return _shuffled(dataset, batch_size, num_workers, seed, pin_memory)


def mnist_test(root: str | Path = "../data", batch_size: int = 1000, download: bool = True) -> DataLoader:
    """Loader of the 10,000 test images in their own order; batches as those of `mnist`."""
    dataset = _read_set(resolve_path(root, default=DATA_DIR), train=False, download=download)
    return DataLoader(dataset, batch_size=batch_size, collate_fn=identity_collate)


def digits(
    batch_size: int = 64,
    num_workers: int = 0,
    seed: int | None = None,
    test_batch_size: int = 1000,
    pin_memory: bool = False,
) -> tuple[DataLoader, DataLoader]:
    """Training and test loader, as those of `mnist` and `mnist_test`, of scikit-learn's 1,797 digits, enlarged from 8x8
    to 28x28 pixels: 1,500 images for training, the last 297 for the test."""
    source = load_digits()
    small = torch.as_tensor(source.images, dtype=torch.float32).unsqueeze(1) / 16  # (N, 1, 8, 8) in [0, 1]
    images = torch.nn.functional.interpolate(small, size=(28, 28), mode="bilinear").sub_(0.5).div_(0.5)
    labels = torch.as_tensor(source.target).long()
    train, test = ImageDataset(images[:1500], labels[:1500]), ImageDataset(images[1500:], labels[1500:])
    return (
        _shuffled(train, batch_size, num_workers, seed, pin_memory),
        DataLoader(test, batch_size=test_batch_size, collate_fn=identity_collate),
    )


def load_data(args: argparse.Namespace, pin_memory: bool = False) -> tuple[DataLoader, DataLoader]:
    """Training and test loader of the data set that the flags name."""
    if args.dataset == "digits":
        return digits(args.batch_size, args.num_workers, seed=args.seed, pin_memory=pin_memory)
    train = mnist(args.data_dir, args.batch_size, args.num_workers, seed=args.seed, pin_memory=pin_memory)
    return train, mnist_test(args.data_dir)


def load_test_images(args: argparse.Namespace) -> tuple[Tensor, Tensor]:
    """All images and labels of the test set that the flags name."""
    loader = digits()[1] if args.dataset == "digits" else mnist_test(args.data_dir)
    return loader.dataset[:]


def _shuffled(
    dataset: ImageDataset, batch_size: int, num_workers: int, seed: int | None, pin_memory: bool
) -> DataLoader:
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=RandomSampler(dataset) if seed is None else EpochSampler(len(dataset), seed),
        num_workers=num_workers,
        collate_fn=identity_collate,
        pin_memory=pin_memory,
        persistent_workers=num_workers > 0,
        # A loader draws its workers' seed when it starts them. With its own generator, it leaves the random state of
        # the training alone.
        generator=torch.Generator(),
    )


def _read_set(root: Path, train: bool, download: bool) -> ImageDataset:
    files = read_mnist(root, download, log.info)
    kind = "train" if train else "t10k"
    images = torch.from_numpy(files[f"{kind}-images-idx3-ubyte"]).unsqueeze(1)  # (N, 1, 28, 28)
    return ImageDataset(images, torch.from_numpy(files[f"{kind}-labels-idx1-ubyte"]).long())
