"""Sampling from the VAE: latent vectors from the prior, pixels drawn from their categorical distributions."""

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


def test_pixels_are_drawn_with_their_probabilities(vae):
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
