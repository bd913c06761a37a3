"""The reparameterised sample: its distribution, and the gradients that reach both parameters."""

import pytest
import torch
from scipy import stats


def test_follows_the_given_normal(part1):
    mean, std = -1.7, 0.3
    z = part1.utils.sample_reparameterize(torch.full((20_000,), mean), torch.full((20_000,), std))
    assert stats.kstest(z.numpy(), "norm", args=(mean, std)).pvalue > 1e-3


def test_mean_and_std_of_each_element(part1):
    mean = torch.tensor([[-3.0, 0.0, 5.0], [1.0, 2.0, 40.0]])
    std = torch.tensor([[0.1, 1.0, 3.0], [0.5, 2.0, 0.01]])
    n = 40_000
    z = part1.utils.sample_reparameterize(mean.expand(n, 2, 3), std.expand(n, 2, 3))
    assert z.shape == (n, 2, 3)
    # five standard errors of a mean and of a standard deviation
    assert torch.all((z.mean(dim=0) - mean).abs() < 5 * std / n**0.5)
    assert torch.all((z.std(dim=0) - std).abs() < 5 * std / (2 * n) ** 0.5)


def test_noise_is_independent(part1):
    zeros, ones = torch.zeros(10_000, 2), torch.ones(10_000, 2)
    first = part1.utils.sample_reparameterize(zeros, ones)
    second = part1.utils.sample_reparameterize(zeros, ones)
    columns = torch.cat([first, second], dim=1).T  # (4, 10000)
    off_diagonal = torch.corrcoef(columns) - torch.eye(4)
    assert off_diagonal.abs().max() < 5 / 10_000**0.5


def test_gradients(part1):
    mean = torch.randn(3, 5, requires_grad=True)
    std = (torch.rand(3, 5) + 0.5).requires_grad_()
    z = part1.utils.sample_reparameterize(mean, std)
    z.sum().backward()
    torch.testing.assert_close(mean.grad, torch.ones(3, 5))
    torch.testing.assert_close(std.grad, ((z - mean) / std).detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("log_std", [-50.0, 50.0])
def test_extreme_log_stds(part1, log_std):
    mean, log_std = torch.zeros(4, 3, requires_grad=True), torch.full((4, 3), log_std, requires_grad=True)
    z = part1.utils.sample_reparameterize(mean, log_std.exp())
    z.sum().backward()
    assert all(tensor.isfinite().all() for tensor in (z, mean.grad, log_std.grad))


def test_negative_std_is_an_error(part1):
    std = torch.ones(3, 5)
    std[1, 2] = -0.1
    with pytest.raises(ValueError, match="negative"):
        part1.utils.sample_reparameterize(torch.zeros(3, 5), std)


def test_other_shape_is_an_error(part1):
    with pytest.raises(ValueError, match="shape"):
        part1.utils.sample_reparameterize(torch.zeros(3, 5), torch.ones(5))
