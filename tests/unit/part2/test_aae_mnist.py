"""MNIST of part 2: one loader with all training images in [-1, 1]."""

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import datasets
from torchvision.transforms import Compose, Normalize, ToTensor

TRANSFORM = Compose([ToTensor(), Normalize((0.5,), (0.5,))])


def load(part2, root, **kwargs):
    return part2.mnist.mnist(root=str(root), num_workers=0, download=False, **kwargs)


def all_of(loader) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = zip(*loader, strict=True)
    return torch.cat(images), torch.cat(labels)


def template_images(root, train: bool, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """What the course's template reads: ToTensor and Normalize for each picture."""
    source = datasets.MNIST(str(root), train=train, transform=TRANSFORM)
    images, labels = zip(*(source[i] for i in range(count)), strict=True)
    return torch.stack(images), torch.tensor(labels)


def test_batches(part2, fake_mnist):
    loader = load(part2, fake_mnist, batch_size=13)
    assert isinstance(loader, DataLoader)
    images, labels = next(iter(loader))
    assert images.shape == (13, 1, 28, 28) and images.dtype == torch.float32
    assert labels.shape == (13,) and labels.dtype == torch.long
    assert images.min() == -1 and images.max() == 1


def test_epoch_has_every_image_once(part2, fake_mnist):
    loader = load(part2, fake_mnist, batch_size=1000)
    weights = torch.arange(1.0, 785.0, dtype=torch.float64)
    keys = [(all_of(loader)[0].flatten(1).double() * weights).sum(dim=1) for _ in range(2)]
    assert len(keys[0]) == 60_000
    torch.testing.assert_close(keys[0].sort().values, keys[1].sort().values)
    assert not torch.equal(keys[0], keys[1])


def test_last_batch_is_kept(part2):
    train, _ = part2.mnist.digits(batch_size=400)
    assert [len(images) for images, _ in train] == [400, 400, 400, 300]


def test_made_up_images(part2, fake_mnist):
    for train, loader in ((True, load(part2, fake_mnist)), (False, part2.mnist.mnist_test(fake_mnist))):
        images, labels = template_images(fake_mnist, train=train, count=300)
        found, found_labels = loader.dataset[torch.arange(300)]
        assert torch.equal(found, images)
        assert torch.equal(found_labels, labels)


def test_all_images_equal_the_template(part2, mnist_dir):
    """The template's transforms work pixel by pixel: they are applied to each of the 256 bytes once."""
    every_byte = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    transformed = TRANSFORM(every_byte).flatten()
    for train, loader in ((True, load(part2, mnist_dir)), (False, part2.mnist.mnist_test(mnist_dir))):
        source = datasets.MNIST(str(mnist_dir), train=train)
        found, found_labels = loader.dataset[:]
        assert torch.equal(found, transformed[source.data.long()].unsqueeze(1))
        assert torch.equal(found_labels, source.targets)


def test_test_set_keeps_its_order(part2, fake_mnist):
    images, labels = all_of(part2.mnist.mnist_test(fake_mnist, download=False))
    assert images.shape == (10_000, 1, 28, 28)
    assert labels.tolist() == [index % 10 for index in range(10_000)]


def test_order_depends_on_seed_and_epoch(part2):
    def order(seed, epoch):
        sampler = part2.mnist.EpochSampler(101, seed)
        sampler.set_epoch(epoch)
        torch.rand(3)  # the global generator must not matter
        return list(sampler)

    assert order(1, 5) == order(1, 5)
    assert sorted(order(1, 5)) == list(range(101))
    assert len({tuple(order(seed, epoch)) for seed in (1, 2) for epoch in (0, 1, 2)}) == 6


def test_processes_share_an_epoch(part2):
    """Three processes and 101 images: 34 each, the order's first image once more; step i of all of them together has
    the images that one process would have there."""

    def sampler(rank=0, num_ranks=1):
        sampler = part2.mnist.EpochSampler(101, 3, rank, num_ranks)
        sampler.set_epoch(2)
        return sampler

    shares = [list(sampler(rank, 3)) for rank in range(3)]
    assert [len(share) for share in shares] == [len(sampler(rank, 3)) for rank in range(3)] == [34, 34, 34]
    together = [index for step in zip(*shares, strict=True) for index in step]
    whole = list(sampler())
    assert together == [*whole, whole[0]]


def test_digits(part2):
    loaders = part2.mnist.digits(batch_size=50)
    assert [len(loader.dataset) for loader in loaders] == [1500, 297]
    assert [len(loader.dataset) for loader in part2.mnist.digits(limit=200)] == [166, 34]
    for loader in loaders:
        images, labels = all_of(loader)
        assert images.shape[1:] == (1, 28, 28) and images.dtype == torch.float32
        assert images.min() == -1 and images.max() == 1
        assert sorted(labels.unique().tolist()) == list(range(10))


def test_random_state_is_untouched(part2):
    train, _ = part2.mnist.digits(seed=1)
    state = torch.get_rng_state()
    next(iter(train))
    assert torch.equal(torch.get_rng_state(), state)
