"""The report's estimates of log p(x), against models for which it is known or integrated by scipy."""

import importlib.util
import math
from argparse import Namespace

import pytest
import torch
from scipy.integrate import dblquad
from scipy.stats import norm
from torch import nn
from torch.distributions import Normal, kl_divergence

pytestmark = pytest.mark.own

MEAN, STD = torch.tensor([0.3, -0.7]), torch.tensor([0.5, 0.8])


class Model(nn.Module):
    """Two latent dimensions; the first pixel is white instead of black with probability sigmoid(a z_1 + b z_2), the
    others are white or black with probability 1/2 each."""

    def __init__(self, slopes=(0.0, 0.0)):
        super().__init__()
        self.slopes, self.hparams = torch.tensor(slopes), Namespace(z_dim=2)

    def encoder(self, imgs):
        return MEAN.expand(len(imgs), -1), STD.log().expand(len(imgs), -1)

    def decoder(self, z):
        logits = torch.full((len(z), 16, 28, 28), -math.inf)
        logits[:, (0, 15)] = 0.0
        logits[:, 15, 0, 0] = z @ self.slopes
        return logits.clamp(min=-1e4)  # a one-hot zero times minus infinity would be no number


@pytest.fixture
def likelihood(part1, repository):
    spec = importlib.util.spec_from_file_location("likelihood", repository / "report" / "likelihood.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def images():
    """Two random pictures in black and white; the first pixel is white in the first, black in the second."""
    pixels = 15 * torch.randint(0, 2, (2, 1, 28, 28))
    pixels[0, 0, 0, 0], pixels[1, 0, 0, 0] = 15, 0
    return pixels


def test_estimates_where_the_image_does_not_depend_on_the_code(likelihood, images):
    """log p(x) is -784 log 2. The prior's samples all say so; the encoder's weights are p(z) / q(z), of mean 1."""
    model, exact = Model(), -784 * math.log(2)
    prior = likelihood.from_prior(model, images, (1, 7, 101))
    torch.testing.assert_close(prior, torch.full((3, 2), exact, dtype=torch.float64), rtol=0, atol=5e-3)
    q, p = Normal(MEAN.double(), STD.double()), Normal(0.0, 1.0)
    z = torch.linspace(-12, 12, 200_001, dtype=torch.float64)[:, None]
    second_moment = ((2 * p.log_prob(z) - q.log_prob(z)).exp().sum(dim=0) * 24 / 200_000).prod().item()
    found = likelihood.from_encoder(model, images, (3000,))
    assert (found - exact).abs().max() < 5 * math.sqrt((second_moment - 1) / 3000)


def test_estimates_against_an_integral(likelihood, images):
    model = Model(slopes=(3.0, -2.0))
    for estimate in (likelihood.from_prior, likelihood.from_encoder):
        found = estimate(model, images, (3000,))[0]
        for image, sign in ((0, 1), (1, -1)):
            assert found[image].item() == pytest.approx(exact_log_px(sign), abs=0.2)


def exact_log_px(sign: int) -> float:
    def integrand(z_2, z_1):
        return norm.pdf(z_1) * norm.pdf(z_2) / (1 + math.exp(-sign * (3 * z_1 - 2 * z_2)))

    return math.log(dblquad(integrand, -6, 6, -6, 6, epsabs=1e-6)[0]) - 783 * math.log(2)


def test_gaps_add_up_and_are_those_of_the_integrals(likelihood, images):
    """log p(x) = ELBO + KL(q || p(z|x)), each computed in its own way."""
    rows = likelihood.gaps(Model(slopes=(3.0, -2.0)), images, points=81)
    for row, sign in zip(rows, (1, -1), strict=True):
        assert row["q_on_grid"] == pytest.approx(1, abs=1e-6)
        assert row["log_px"] == pytest.approx(exact_log_px(sign), abs=5e-3)
        assert row["elbo"] + row["gap"] == pytest.approx(row["log_px"], abs=5e-3)
        assert row["gap"] > 0.01


def test_without_information_the_gap_is_the_divergence_from_the_prior(likelihood, images):
    rows = likelihood.gaps(Model(), images, points=81)
    divergence = kl_divergence(Normal(MEAN, STD), Normal(0.0, 1.0)).sum().item()
    for row in rows:
        assert row["log_px"] == pytest.approx(-784 * math.log(2), abs=5e-3)
        assert row["gap"] == pytest.approx(divergence, abs=5e-3)
        assert row["elbo"] == pytest.approx(row["log_px"] - divergence, abs=5e-3)
