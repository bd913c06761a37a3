"""4-bit MNIST: discretisation, split and loaders."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, random_split
from torchvision import datasets
from torchvision.transforms import ToTensor


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
def test_discretize_rounds_down_into_equal_steps(part1, x, num_values, expected):
    values = part1.mnist.discretize(torch.tensor(x), num_values)
    assert values.tolist() == expected
    assert values.dtype == torch.long


def test_discretize_leaves_its_input_alone(part1):
    x = torch.rand(3, 5)
    before = x.clone()
    part1.mnist.discretize(x, 16)
    assert torch.equal(x, before)


def test_batches(part1, fake_mnist):
    for loader in load(part1, fake_mnist, batch_size=13):
        assert isinstance(loader, DataLoader)
        images, labels = next(iter(loader))
        assert images.shape == (13, 1, 28, 28) and images.dtype == torch.long
        assert labels.shape == (13,) and labels.dtype == torch.long
        assert images.min() == 0 and images.max() == 15


def test_sizes_of_the_three_sets(part1, fake_mnist):
    assert [len(loader.dataset) for loader in load(part1, fake_mnist)] == [54_000, 6_000, 10_000]


def test_the_split_has_the_indices_of_seed_42(part1, fake_mnist):
    """The labels of the made-up files tell each image's index modulo 10."""
    _, val, _ = load(part1, fake_mnist, batch_size=500)
    generator = torch.Generator().manual_seed(42)
    expected = random_split(range(60_000), [54_000, 6_000], generator=generator)[1].indices
    _, labels = all_of(val)
    assert labels.tolist() == [index % 10 for index in expected]


def test_an_epoch_has_every_training_image_once_in_a_new_order(part1, fake_mnist):
    train, _, _ = load(part1, fake_mnist, batch_size=1000)
    keys = []
    for _ in range(2):
        images, _ = all_of(train)
        keys.append(
            (images.flatten(1)[:, :64] * torch.arange(1, 65)).sum(dim=1) + images.flatten(1).sum(dim=1) * 100_000
        )
    assert len(keys[0]) == 54_000
    assert torch.equal(keys[0].sort().values, keys[1].sort().values)
    assert not torch.equal(keys[0], keys[1])


def test_the_test_set_keeps_its_order(part1, fake_mnist):
    _, labels = all_of(load(part1, fake_mnist)[2])
    assert labels.tolist() == [index % 10 for index in range(10_000)]


def template_values(picture) -> torch.Tensor:
    """What the course's template makes of a picture: ToTensor, times 16, rounded down, at most 15."""
    return (ToTensor()(picture) * 16).long().clamp(max=15)


def test_made_up_images_equal_the_template_s(part1, fake_mnist):
    source = datasets.MNIST(str(fake_mnist), train=False, transform=template_values)
    images, labels = zip(*(source[i] for i in range(500)), strict=True)
    found, found_labels = all_of(load(part1, fake_mnist)[2])
    assert torch.equal(found[:500], torch.stack(images))
    assert found_labels[:500].tolist() == list(labels)


def test_all_70_000_images_equal_the_template_s(part1, mnist_dir):
    """The template works pixel by pixel: it is applied to each of the 256 bytes once."""
    values = template_values(Image.fromarray(np.arange(256, dtype=np.uint8)[None])).flatten()

    def template_images(train: bool) -> tuple[torch.Tensor, torch.Tensor]:
        source = datasets.MNIST(str(mnist_dir), train=train)
        return values[source.data.long()].unsqueeze(1), source.targets

    train, val, test = load(part1, mnist_dir, batch_size=1000)
    images, labels = template_images(train=False)
    found, found_labels = all_of(test)
    assert torch.equal(found, images) and torch.equal(found_labels, labels)

    images, labels = template_images(train=True)
    indices = random_split(range(60_000), [54_000, 6_000], generator=torch.Generator().manual_seed(42))
    found, found_labels = all_of(val)
    assert torch.equal(found, images[indices[1].indices]) and torch.equal(found_labels, labels[indices[1].indices])
    in_order = DataLoader(train.dataset, batch_size=1000, collate_fn=train.collate_fn)
    found, found_labels = all_of(in_order)
    assert torch.equal(found, images[indices[0].indices]) and torch.equal(found_labels, labels[indices[0].indices])


def test_a_batch_is_one_index_operation(part1, fake_mnist, monkeypatch):
    calls = []
    original = part1.mnist.ImageDataset.__getitem__
    monkeypatch.setattr(
        part1.mnist.ImageDataset, "__getitem__", lambda self, index: calls.append(index) or original(self, index)
    )
    train, _, _ = load(part1, fake_mnist, batch_size=77)
    next(iter(train))
    assert [len(index) for index in calls] == [77]


def test_the_order_depends_on_seed_and_epoch_alone(part1):
    def order(seed, epoch):
        sampler = part1.mnist.EpochSampler(range(101), seed)
        sampler.set_epoch(epoch)
        torch.rand(3)  # the global generator must not matter
        return list(sampler)

    assert order(1, 5) == order(1, 5)
    assert sorted(order(1, 5)) == list(range(101))
    assert len({tuple(order(seed, epoch)) for seed in (1, 2) for epoch in (0, 1, 2)}) == 6


def test_digits_look_like_mnist(part1):
    loaders = part1.mnist.digits(batch_size=50)
    assert [len(loader.dataset) for loader in loaders] == [1350, 150, 297]
    for loader in loaders:
        images, labels = all_of(loader)
        assert images.shape[1:] == (1, 28, 28) and images.dtype == torch.long
        assert images.min() == 0 and images.max() == 15
        assert sorted(labels.unique().tolist()) == list(range(10))


def test_the_default_folder_lies_beside_the_part(part1, repository, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    resolve_path = part1.inputs.resolve_path
    assert resolve_path("../data/", default="../data/") == repository / "data"
    assert resolve_path("VAE_logs", default="VAE_logs") == repository / "part1" / "VAE_logs"
    assert resolve_path("elsewhere", default="VAE_logs") == tmp_path / "elsewhere"
