"""MNIST with grey values in [-1, 1], and the small digits inside scikit-learn, which need no download.

The images stay in memory as bytes. A batch is one index operation, followed by the scaling of its grey values.
"""

import argparse
import socket
from pathlib import Path

import torch
from filelock import FileLock
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler, Sampler
from torchvision.datasets import MNIST

from run import HERE, InputError

DATA_DIR = "../data/"  # the course's default: beside the parts' directories, wherever a script is started


class ImageDataset(Dataset):
    """Images and labels held in memory. Items are images, float32 [1, H, W] with values in [-1, 1], and their labels.

    Args:
        images: uint8 [N, 1, H, W] with values 0 .. 255, or float32 with values in [-1, 1].
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
        images = self.images[index]
        if not images.is_floating_point():  # the arithmetic of torchvision's ToTensor and Normalize(0.5, 0.5)
            images = images.float().div_(255).sub_(0.5).div_(0.5)
        return images, self.labels[index]

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        """A whole batch. DataLoader calls this method if a data set has it."""
        index = torch.as_tensor(indices)
        if self.images.is_cuda:  # from page-locked memory, so that nobody waits for the copy
            index = index.pin_memory().to(self.images.device, non_blocking=True)
        return self[index]


class EpochSampler(Sampler):
    """Random order that depends on the seed and the epoch alone, so that a resumed run has the same batches.

    Of several processes, each has every `num_ranks`-th image, from the `rank`-th on, so that a step of all together has
    the images of one process with the whole batch. They have equally many: the first images may occur twice.

    Args:
        num_images: size of the data set.
        seed: seed of the order.
        rank, num_ranks: number of this process, and of all.
    """

    def __init__(self, num_images: int, seed: int, rank: int = 0, num_ranks: int = 1):
        self.num_images, self.seed, self.epoch = num_images, seed, 0
        self.rank, self.num_ranks = rank, num_ranks

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

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
) -> DataLoader:
    """Loader of MNIST's 60,000 training images in random order. The last batch of an epoch may be smaller.

    Args:
        root: directory that holds (or will hold) `MNIST/raw`; the default is next to the parts' directories.
        batch_size: images in a batch.
        num_workers: loader processes; 0 is fastest here.
        download: download missing files.
        seed: fixes the order of the images in each epoch; None: PyTorch's global generator draws it.

    Returns:
        Loader of images, float32 [B, 1, 28, 28] with values in [-1, 1], and labels, long [B] with values 0 .. 9.

    Raises:
        InputError: the files are missing and cannot be downloaded, or are damaged.
    """
    return _shuffled(_read_mnist(root, train=True, download=download), batch_size, num_workers, seed)


def mnist_test(root: str | Path = "../data", batch_size: int = 1000, download: bool = True) -> DataLoader:
    """Loader of the 10,000 test images in their own order; batches as those of `mnist`."""
    return DataLoader(_read_mnist(root, train=False, download=download), batch_size, collate_fn=identity_collate)


def digits(
    batch_size: int = 64, num_workers: int = 0, seed: int | None = None, limit: int = 1797
) -> tuple[DataLoader, DataLoader]:
    """Training and test loader, as those of `mnist` and `mnist_test`, of scikit-learn's 1,797 digits, scaled from 8x8
    to 28x28 pixels. Of the first `limit` digits, the last sixth is for the test."""
    from sklearn.datasets import load_digits

    source = load_digits()
    small = torch.as_tensor(source.images[:limit], dtype=torch.float32).unsqueeze(1) / 16  # (N, 1, 8, 8) in [0, 1]
    images = torch.nn.functional.interpolate(small, size=(28, 28), mode="bilinear").sub_(0.5).div_(0.5)
    labels = torch.as_tensor(source.target[:limit]).long()
    size = len(images) * 1500 // 1797
    train, test = ImageDataset(images[:size], labels[:size]), ImageDataset(images[size:], labels[size:])
    return _shuffled(train, batch_size, num_workers, seed), DataLoader(test, 1000, collate_fn=identity_collate)


def load_data(
    args: argparse.Namespace, device: torch.device, rank: int = 0, num_ranks: int = 1
) -> tuple[DataLoader, DataLoader]:
    """Training and test loader for the flags `dataset data_dir batch_size num_workers seed`.

    Args:
        args: the flags.
        device: of the training. A GPU holds all images itself, unless worker processes load them.
        rank, num_ranks: number of this process, and of all; the training loader has this one's share of each epoch.
    """
    if args.dataset == "digits":
        loaders = digits(args.batch_size, args.num_workers, args.seed)
    else:
        loaders = mnist(args.data_dir, args.batch_size, args.num_workers, seed=args.seed), mnist_test(args.data_dir)
    if device.type == "cuda" and not args.num_workers:
        for loader in loaders:
            loader.dataset.to(device)
    loaders[0].sampler.rank, loaders[0].sampler.num_ranks = rank, num_ranks
    return loaders


def _shuffled(dataset: ImageDataset, batch_size: int, num_workers: int, seed: int | None) -> DataLoader:
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=RandomSampler(dataset) if seed is None else EpochSampler(len(dataset), seed),
        num_workers=num_workers,
        collate_fn=identity_collate,
        persistent_workers=num_workers > 0,
        timeout=120 * (num_workers > 0),  # seconds: of a process that has failed, nothing would come
        generator=torch.Generator(),  # of the workers' seeds, which would else change the noise of the training
    )


def _read_mnist(root: str | Path, train: bool, download: bool) -> ImageDataset:
    """The training or the test set of the files in `root/MNIST/raw`."""
    root = HERE / root if Path(root) == Path(DATA_DIR) else Path(root)
    raw, timeout = root / "MNIST" / "raw", socket.getdefaulttimeout()
    astray = [place for place in (root, root / "raw", root / "MNIST") if any(place.glob("t*-idx?-ubyte*"))]
    try:
        if download and not astray and not all((raw / Path(name).stem).exists() for name, _ in MNIST.resources):
            raw.mkdir(parents=True, exist_ok=True)
            socket.setdefaulttimeout(10)  # seconds
            with FileLock(raw / ".lock"):  # other trainings may need the files, too
                MNIST(root, download=True)
        source, size = MNIST(root, train=train), 60_000 if train else 10_000
        if (*source.data.shape, len(source.targets)) != (size, 28, 28, size):
            raise ValueError("the files hold other data than MNIST's")
        return ImageDataset(source.data.unsqueeze(1), source.targets)  # (N, 1, 28, 28)
    except Exception as error:  # damage shows in many ways
        reason = f"they lie in {astray[0]}" if astray else str(error) or "they are damaged"
        raise InputError(f"MNIST cannot be read from {raw} ({reason}): put its four files there, delete damaged ones, "
                         "name the directory that holds MNIST/raw with --data_dir, or train on the built-in digits "
                         "with --dataset digits") from error  # fmt: skip
    finally:
        socket.setdefaulttimeout(timeout)
