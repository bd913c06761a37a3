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


def test_sums_over_the_last_dimension(part1):
    mean, log_std = torch.randn(3, 5, 7), torch.randn(3, 5, 7)
    posterior = Independent(Normal(mean, log_std.exp()), 1)
    prior = Independent(Normal(torch.zeros(7), torch.ones(7)), 1)
    kl = part1.utils.KLD(mean, log_std)
    assert kl.shape == (3, 5)
    torch.testing.assert_close(kl, kl_divergence(posterior, prior.expand((3, 5))))


def test_is_zero_for_the_prior(part1):
    assert part1.utils.KLD(torch.zeros(5, 3), torch.zeros(5, 3)).tolist() == [0.0] * 5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("mean", "log_std"), [(0.5, -40), (300, -50), (-1e4, -5), (0, 5), (3e4, 0)])
def test_extreme_posteriors(part1, dtype, mean, log_std):
    """Also of 16-bit numbers, whose squares overflow: they give float32."""
    mean, log_std = (torch.full((2, 3), float(x), dtype=dtype, requires_grad=True) for x in (mean, log_std))
    kl = part1.utils.KLD(mean, log_std)
    kl.sum().backward()
    m, s = mean.detach().double(), log_std.detach().double().exp()
    expected = kl_divergence(Normal(m, s), Normal(torch.zeros_like(m), torch.ones_like(s))).sum(dim=-1)
    assert torch.allclose(kl.double(), expected, rtol=1e-5) and kl.dtype in (torch.float32, torch.float64)
    assert mean.grad.isfinite().all() and log_std.grad.isfinite().all()


def test_gradients(part1):
    mean = torch.randn(5, 3, requires_grad=True)
    log_std = torch.randn(5, 3, requires_grad=True)
    part1.utils.KLD(mean, log_std).sum().backward()
    torch.testing.assert_close(mean.grad, mean.detach())
    torch.testing.assert_close(log_std.grad, torch.exp(2 * log_std.detach()) - 1, rtol=1e-4, atol=1e-5)


def test_digits_close_to_the_prior(part1):
    """exp(2s) - 1 - 2s is 2 s^2 for small s, which single precision loses if the terms are subtracted naively."""
    kl = part1.utils.KLD(torch.zeros(1), torch.tensor([2e-4]))
    assert kl.item() == pytest.approx(4e-8, rel=1e-2)
