"""Sampling from the VAE: latent vectors from the prior, pixels drawn from their distributions; grids of pictures."""

from types import SimpleNamespace

import pytest
import torch
from scipy import stats
from torch import nn


class LatentDecoder(nn.Module):
    """Logits [B, 16, 28, 28] computed from z by a given function."""

    device = torch.device("cpu")

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, z):
        return self.function(z)


@pytest.fixture
def vae(part1):
    return part1.train_pl.VAE(num_filters=4, z_dim=3, lr=1e-3)


@pytest.mark.parametrize("batch_size", [1, 5])
def test_shape_and_range(vae, batch_size):
    samples = vae.sample(batch_size)
    assert samples.shape == (batch_size, 1, 28, 28)
    assert torch.equal(samples.float().round(), samples.float()), "grey values are whole numbers"
    assert samples.min() >= 0 and samples.max() <= 15


def test_pixels_have_their_probabilities(vae):
    """A chi-squared test; a picture of the most likely values would fail it, having one value alone."""
    probabilities = torch.arange(1, 17, dtype=torch.float64) / 136
    logits = probabilities.float().log().view(1, 16, 1, 1)
    vae.decoder = LatentDecoder(lambda z: logits.expand(len(z), 16, 28, 28))
    samples = vae.sample(64).long()
    observed = torch.bincount(samples.flatten(), minlength=16).numpy()
    expected = probabilities.numpy() * samples.numel()
    assert stats.chisquare(observed, expected).pvalue > 1e-3


def test_pixels_keep_their_places(vae):
    """Each pixel's distribution is certain of another value, so that an image and its transpose cannot be confused."""
    picture = (torch.arange(28).view(28, 1) * 3 + torch.arange(28) * 5).remainder(16)
    logits = 60.0 * nn.functional.one_hot(picture, 16).permute(2, 0, 1).float()
    vae.decoder = LatentDecoder(lambda z: logits.expand(len(z), -1, -1, -1))
    assert torch.equal(vae.sample(3).long(), picture.expand(3, 1, 28, 28))


def test_latent_vectors_are_standard_normal(vae):
    """Each latent vector that the decoder is given is kept and tested."""
    seen = []

    def remember(z):
        seen.append(z)
        return torch.zeros(len(z), 16, 28, 28)

    vae.decoder = LatentDecoder(remember)
    vae.sample(1500)
    z = torch.cat(seen)
    assert z.shape == (1500, 3)
    assert stats.kstest(z.flatten().numpy(), "norm").pvalue > 1e-3


def test_samples_differ(vae):
    first, second = vae.sample(2), vae.sample(2)
    assert not torch.equal(first, second)
    assert not torch.equal(first[0], first[1])


def test_grids_of_a_training(part1, vae, monkeypatch):
    """Before the training, every few epochs and after the last one; all with the same random numbers, in evaluation
    mode, and without a change of the training's own."""
    callback, grids, modes = part1.train_pl.GenerateCallback(batch_size=2, every_n_epochs=3), {}, []
    board = SimpleNamespace(add_image=lambda tag, grid, global_step: grids.update({(tag, global_step): grid}))
    trainer = SimpleNamespace(
        global_step=0, max_epochs=8, is_global_zero=True, logger=SimpleNamespace(experiment=board)
    )
    sample = vae.sample
    monkeypatch.setattr(vae, "sample", lambda batch_size: modes.append(vae.training) or sample(batch_size))
    callback.on_train_start(trainer, vae.train())
    for trainer.current_epoch in range(8):
        torch.rand(1)  # as a training does
        state = torch.get_rng_state()
        callback.on_train_epoch_end(trainer, vae)
        assert vae.training and torch.equal(torch.get_rng_state(), state)
    assert list(grids) == [("Samples", epoch) for epoch in (0, 3, 6, 8)] and not any(modes)
    first, *others = grids.values()
    assert first.shape == (3, 32, 62) and all(torch.equal(first, other) for other in others)


def test_reconstructions_and_interpolations(part1, vae):
    """Each column of a digit starts with an image above its reconstruction; a row of interpolations starts and ends at
    reconstructions."""
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.mul_(3)  # so that codes and pictures differ clearly
    images, labels = torch.randint(16, (40, 1, 28, 28)), torch.arange(40) % 10
    codes, _ = vae.encoder(images)
    decoded = part1.utils.mean_intensity(vae.decoder(codes)).detach()

    def tile(grid, row: int, column: int):
        return grid[0, 2 + 30 * row : 30 + 30 * row, 2 + 30 * column : 30 + 30 * column]

    grid = part1.pictures.reconstruction_grid(vae, images, labels, rows=2)
    assert grid.shape == (3, 4 * 30 + 2, 10 * 30 + 2)
    for row, image in ((0, 7), (2, 17)):
        torch.testing.assert_close(tile(grid, row, 7), images[image, 0] / 15)
        torch.testing.assert_close(tile(grid, row + 1, 7), decoded[image, 0], rtol=1e-4, atol=1e-5)
    grid = part1.pictures.interpolation_grid(vae, images, labels, digits=(3, 8), steps=4, rows=2)
    assert grid.shape == (3, 2 * 30 + 2, 4 * 30 + 2)
    for row, column, image in ((0, 0, 3), (0, 3, 8), (1, 0, 13), (1, 3, 18)):
        torch.testing.assert_close(tile(grid, row, column), decoded[image, 0], rtol=1e-4, atol=1e-5)
