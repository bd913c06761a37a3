"""How close codes are to the prior, by definition and by hand; the reconstruction error of a whole set."""

import math
from argparse import Namespace

import pytest
import torch
from scipy import stats
from torch import nn


class Grey(nn.Module):
    """A decoder that draws zeros."""

    device = torch.device("cpu")

    def forward(self, z):
        return torch.zeros(len(z), 1, 28, 28)


def test_kolmogorov_smirnov_by_definition(part2):
    """The share of the values up to each one, and of those before it, against Φ."""
    values = torch.randn(101, 5) * torch.tensor([1.0, 0.1, 3.0, 1.0, 1.0]) + torch.tensor([0.0, 0.0, 1.0, 5.0, -0.3])
    values[:, 4] = values[:, 4].round()  # with ties
    found = part2.evaluation.kolmogorov_smirnov(values)
    assert found.dtype == torch.float64
    for column, distance in zip(values.double().T, found.tolist(), strict=True):
        below_or_at = [abs((column <= v).double().mean().item() - stats.norm.cdf(v)) for v in column.tolist()]
        below = [abs((column < v).double().mean().item() - stats.norm.cdf(v)) for v in column.tolist()]
        assert distance == pytest.approx(max(below_or_at + below), rel=1e-9)


def test_kolmogorov_smirnov_of_nan(part2):
    values = torch.randn(11, 3)
    values[5, 1] = torch.nan
    assert part2.evaluation.kolmogorov_smirnov(values).isnan().tolist() == [False, True, False]


def test_distances_by_hand(part2):
    """Four codes with mean (3, 4), variances 4/3 and 16/3, and no correlation: cov - I has 1/3 and 13/3."""
    codes = torch.tensor([[4.0, 6.0], [4.0, 2.0], [2.0, 6.0], [2.0, 2.0]])
    found = part2.evaluation.distances_to_prior(codes)
    assert found["mean_error"] == pytest.approx(5)
    assert found["covariance_error"] == pytest.approx(math.hypot(1 / 3, 13 / 3))
    # All values lie above 2, where the prior's distribution function is Φ(2), and none of the codes is.
    below = stats.norm.cdf(2)
    assert found["ks_mean"] == found["ks_max"] == pytest.approx(below)


def test_draws_from_the_prior(part2):
    found = part2.evaluation.distances_to_prior(torch.randn(20_000, 3))
    assert all(0 < value < 0.06 for value in found.values())


def test_reconstruction_error_of_unequal_batches(part2):
    model = Namespace(encoder=lambda x: x.flatten(1)[:, :2], decoder=Grey())
    images = torch.zeros(5, 1, 28, 28)
    images[4] = 1.0
    loader = [(images[:3], torch.arange(3)), (images[3:], torch.arange(3, 5))]
    codes, labels, loss = part2.evaluation.encode(model, loader)
    assert loss == pytest.approx(1 / 5)
    assert labels.tolist() == [0, 1, 2, 3, 4]
    assert codes.tolist() == [[0, 0]] * 4 + [[1, 1]]


def test_one_dimension(part2):
    """Values 1 and 3: mean 2, variance 2."""
    found = part2.evaluation.distances_to_prior(torch.tensor([[1.0], [3.0]]))
    assert found["mean_error"] == pytest.approx(2)
    assert found["covariance_error"] == pytest.approx(1)


def test_reconstruction_grid(part2):
    """Three images in rows of two: originals, reconstructions, originals, reconstructions, in tiles of 30 pixels."""
    model = Namespace(encoder=lambda x: x.flatten(1)[:, :2], decoder=Grey())
    images = torch.tensor([-1.0, 0.5, 1.0]).view(3, 1, 1, 1).expand(3, 1, 28, 28)
    grid = part2.pictures.reconstruction_grid(model, images, nrow=2)
    assert grid.shape == (3, 4 * 30 + 2, 2 * 30 + 2)
    centres = grid[0, 15::30, 15::30]
    assert centres.tolist() == [[0, 0.75], [0.5, 0.5], [1, 0.5], [0.5, 0.5]]


def test_first_of_each_digit(part2):
    labels = torch.arange(30) % 10
    images = torch.arange(30.0).view(30, 1, 1, 1)
    order = torch.randperm(30)
    found = part2.pictures.first_of_each_digit(images[order], labels[order], count=2).flatten()
    assert (found % 10).tolist() == [*range(10)] * 2
    assert sorted(found.tolist()) == sorted({*found.tolist()}), "no image twice"
