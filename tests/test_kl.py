"""KL divergence of a diagonal Gaussian from N(0, I), against numerical integration and torch.distributions."""

import math

import pytest
import torch
from scipy.integrate import quad
from torch.distributions import Independent, Normal, kl_divergence

CASES = [(0.0, 0.0), (1.3, 0.0), (0.0, -0.7), (-2.1, 0.4), (0.3, -3.0)]


def integrated_kl(mean: float, log_std: float) -> float:
    """Integral of q(z) (log q(z) - log p(z)) over twelve standard deviations on either side."""
    std = math.exp(log_std)

    def integrand(z: float) -> float:
        log_q = -0.5 * ((z - mean) / std) ** 2 - log_std - 0.5 * math.log(2 * math.pi)
        log_p = -0.5 * z**2 - 0.5 * math.log(2 * math.pi)
        return math.exp(log_q) * (log_q - log_p)

    return quad(integrand, mean - 12 * std, mean + 12 * std, epsabs=1e-10)[0]


@pytest.mark.parametrize(("mean", "log_std"), CASES)
def test_equals_the_integral(part1, mean, log_std):
    kl = part1.utils.KLD(torch.tensor([mean]), torch.tensor([log_std]))
    assert kl.item() == pytest.approx(integrated_kl(mean, log_std), rel=1e-5, abs=1e-6)


def test_sums_over_the_last_dimension_only(part1):
    mean, log_std = torch.randn(3, 5, 7), torch.randn(3, 5, 7)
    posterior = Independent(Normal(mean, log_std.exp()), 1)
    prior = Independent(Normal(torch.zeros(7), torch.ones(7)), 1)
    kl = part1.utils.KLD(mean, log_std)
    assert kl.shape == (3, 5)
    torch.testing.assert_close(kl, kl_divergence(posterior, prior.expand((3, 5))))


def test_is_zero_for_the_prior_itself(part1):
    assert part1.utils.KLD(torch.zeros(5, 3), torch.zeros(5, 3)).tolist() == [0.0] * 5


@pytest.mark.parametrize("log_std", [-40.0, -20.0, 5.0, 20.0])
def test_extreme_standard_deviations(part1, log_std):
    kl = part1.utils.KLD(torch.tensor([0.5]), torch.tensor([log_std]))
    expected = 0.5 * (math.exp(2 * log_std) + 0.25 - 1 - 2 * log_std)
    assert kl.item() == pytest.approx(expected, rel=1e-5)


def test_gradients_are_the_closed_forms(part1):
    mean = torch.randn(5, 3, requires_grad=True)
    log_std = torch.randn(5, 3, requires_grad=True)
    part1.utils.KLD(mean, log_std).sum().backward()
    torch.testing.assert_close(mean.grad, mean.detach())
    torch.testing.assert_close(log_std.grad, torch.exp(2 * log_std.detach()) - 1, rtol=1e-4, atol=1e-5)


def test_keeps_its_digits_close_to_the_prior(part1):
    """exp(2s) - 1 - 2s is 2 s^2 for small s, which single precision loses if the terms are subtracted naively."""
    kl = part1.utils.KLD(torch.zeros(1), torch.tensor([1e-3]))
    assert kl.item() == pytest.approx(1e-6, rel=1e-2)
