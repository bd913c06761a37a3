"""Importance-weighted bounds, for a model whose likelihood can be integrated numerically."""

import math
from types import SimpleNamespace

import pytest
import torch
from scipy.integrate import quad
from torch import nn

MEAN, LOG_STD = 0.4, -0.3  # of the posterior: neither the prior nor the true one


class Encoder(nn.Module):
    def forward(self, x):
        return torch.full((len(x), 1), MEAN), torch.full((len(x), 1), LOG_STD)


class Decoder(nn.Module):
    """Two pixels, two grey values; a pixel is white with probability sigmoid(2 z)."""

    device = torch.device("cpu")

    def forward(self, z):
        logits = torch.stack([torch.zeros_like(z), 2 * z], dim=1)  # (B, 2, 1)
        return logits.unsqueeze(-1).expand(-1, 2, 1, 2)


def likelihood(z: float) -> float:
    """p(x|z) of one white and one black pixel."""
    white = 1 / (1 + math.exp(-2 * z))
    return white * (1 - white)


def normal(z: float, mean: float = 0.0, std: float = 1.0) -> float:
    return math.exp(-0.5 * ((z - mean) / std) ** 2) / (std * math.sqrt(2 * math.pi))


@pytest.fixture
def model():
    return SimpleNamespace(encoder=Encoder(), decoder=Decoder())


def loader(n: int):
    images = torch.tensor([1, 0]).view(1, 1, 1, 2).expand(n, -1, -1, -1)
    return [(images, torch.zeros(n, dtype=torch.long))]


def exact_nll() -> float:
    return -math.log(quad(lambda z: likelihood(z) * normal(z), -12, 12)[0])


def exact_negative_elbo() -> float:
    std = math.exp(LOG_STD)
    expected = quad(lambda z: normal(z, MEAN, std) * math.log(likelihood(z)), -8, 8)[0]
    return -expected + 0.5 * (std**2 + MEAN**2 - 1 - 2 * LOG_STD)


def test_many_samples_reach_the_likelihood(part1, model):
    bound = part1.evaluation.importance_weighted_bound(model, loader(7), num_samples=20_000)
    assert bound == pytest.approx(exact_nll(), abs=0.01)


def test_one_sample_is_the_elbo(part1, model):
    bound = part1.evaluation.importance_weighted_bound(model, loader(100_000), num_samples=1)
    assert bound == pytest.approx(exact_negative_elbo(), abs=0.02)
    assert exact_negative_elbo() > exact_nll() + 0.1, "the two tests would not tell one from the other"


def test_more_samples_tighten_the_bound(part1, model):
    bounds = [part1.evaluation.importance_weighted_bound(model, loader(20_000), num_samples=k) for k in (1, 5, 50)]
    assert bounds[0] > bounds[1] > bounds[2] > exact_nll() - 0.01


def test_chunks_do_not_matter(part1, model):
    """Ten samples of sixteen images are drawn in ten, three and one chunk from the same stream of random numbers."""
    torch.manual_seed(1)
    log_w = part1.evaluation.log_importance_weights(model, loader(16)[0][0], 10)
    expected = (math.log(10) - log_w.double().logsumexp(dim=0)).mean().item()
    for largest_batch in (16, 64, 1000):
        torch.manual_seed(1)
        bound = part1.evaluation.importance_weighted_bound(model, loader(16), 10, largest_batch=largest_batch)
        assert bound == pytest.approx(expected, abs=1e-6)
